//! The emulated uplink (protocol.md section 17): commands that come by a request of their own, for a client whose
//! answers go out on a stream.
//!
//! The connection that brings them and the connection that they are for are two, maybe on two shards. The first waits
//! until the second has taken them, so a client that waits for its answers has its commands carried out in order.

use super::{
    Effects, Flow, Phase, Reason, Rules, Session, Transient, conversation::Conversation, state::Flag,
    stream::PROTOBUF_MEDIA_TYPE,
};
use crate::{
    http::{Answer, Request},
    protocol::{Disconnect, EmulationRequest, Encoding},
};

/// Commands on their way to their session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink<'a> {
    /// The process that the client believes it speaks to.
    pub node: &'a str,
    /// The session's secret.
    pub session: &'a str,
    /// Commands, as a client of the session's encoding sends them.
    pub commands: &'a [u8],
}

/// Where commands of an uplink have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// To their session; [`uplink_taken`] will be called.
    Sent,
    /// Nowhere: no session has this secret.
    SessionUnknown,
    /// Nowhere: this is another process.
    NodeUnknown,
}

/// The answer that an uplink waits to give.
#[derive(Debug)]
pub(super) struct DeferredAnswer {
    bytes: Vec<u8>,
    keeps_alive: bool,
}

impl<E: Effects> Conversation<'_, E> {
    /// A request to `/emulation`.
    pub(super) fn take_uplink(&mut self, request: &Request<'_>, body: &[u8]) -> Flow {
        let encoding = if request.has_content_type(PROTOBUF_MEDIA_TYPE) { Encoding::Protobuf } else { Encoding::Json };
        let Ok(emulation) = EmulationRequest::read(encoding, body) else {
            let body = "this is no request to the emulation endpoint: it names a session, a node and data\n";
            return self.turn_away(400, Reason::CommandMalformed, body, request.origin);
        };
        let uplink = Uplink { node: &emulation.node, session: &emulation.session, commands: &emulation.data };
        let keeps_alive = !request.closes;
        let answer = Answer { origin: request.origin, keeps_alive, ..Answer::last(204, "") };
        match self.effects.forward(uplink) {
            Forwarded::NodeUnknown => {
                let body = "the session is not here: it was made by another server, or before a restart\n";
                self.turn_away(404, Reason::NodeUnknown, body, request.origin)
            }
            Forwarded::SessionUnknown => {
                self.effects.count(Reason::SessionUnknown);
                answer.write(self.effects.output());
                self.answered(keeps_alive)
            }
            Forwarded::Sent => {
                let mut bytes = Vec::new();
                answer.write(&mut bytes);
                self.transient.get_or_insert_default().answer = Some(DeferredAnswer { bytes, keeps_alive });
                self.session.set(Flag::Paused);
                Flow::Paused
            }
        }
    }

    /// The session has taken what this connection brought.
    pub(super) fn finish_uplink(&mut self) -> Flow {
        let Some(answer) = self.transient.as_mut().and_then(|transient| transient.answer.take()) else {
            return Flow::Continue;
        };
        self.session.clear(Flag::Paused);
        self.effects.output().extend_from_slice(&answer.bytes);
        match self.answered(answer.keeps_alive) {
            Flow::Answered => self.read_on(Flow::Answered),
            last => last,
        }
    }

    /// Commands for this session that another connection has brought.
    pub(super) fn hear_uplink(&mut self, commands: &[u8]) -> Flow {
        let form = self.effects.form();
        let is_speaking = matches!(self.session.phase, Phase::Connecting | Phase::Connected);
        if !form.is_emulated() || !is_speaking {
            return Flow::Continue;
        }
        self.effects.message();
        if !self.session.is_paused() {
            return self.run(form.encoding().decode(commands));
        }
        let commands = match form.encoding() {
            Encoding::Json => commands.strip_suffix(b"\n").unwrap_or(commands),
            Encoding::Protobuf => commands,
        };
        if commands.is_empty() {
            return self.end(Disconnect::BAD_REQUEST, Reason::CommandMalformed);
        }
        // No window of TCP slows down who sends by ever new requests.
        let bytes_max = self.rules.config.client.message_bytes_max as usize;
        let held = &mut self.transient.get_or_insert_default().commands;
        if held.len() + commands.len() > bytes_max {
            return self.end(Disconnect::TOO_MANY_REQUESTS, Reason::UplinkOverrun);
        }
        if form.encoding() == Encoding::Json && !held.is_empty() {
            held.push(b'\n');
        }
        held.extend_from_slice(commands);
        Flow::Continue
    }
}

/// Carries out commands that another connection has brought, now or when the session's pause is over.
pub fn uplink<E: Effects>(
    session: &mut Session,
    transient: &mut Option<Box<Transient>>,
    commands: &[u8],
    rules: &Rules,
    effects: &mut E,
) -> Flow {
    Conversation { session, transient, rules, effects }.hear_uplink(commands)
}

/// What this connection brought has been taken: answers the request, and goes on with what came behind it.
pub fn uplink_taken<E: Effects>(
    session: &mut Session,
    transient: &mut Option<Box<Transient>>,
    rules: &Rules,
    effects: &mut E,
) -> Flow {
    Conversation { session, transient, rules, effects }.finish_uplink()
}
