//! The reading of a client's bytes: requests and frames as they become complete, and what is left of them.

use super::{Effects, Flow, Phase, Reason, Rules, Session, Transient, state::Flag};
use crate::{
    protocol::{Commands, ConnectRequest, Disconnect, ErrorCode, ErrorView, Reply},
    websocket::{
        frame::{self, Control, OpCode},
        message::{self, Event, Fragments, Read},
    },
};

/// A session with all that it acts on.
pub(super) struct Conversation<'a, E> {
    pub session: &'a mut Session,
    pub transient: &'a mut Option<Box<Transient>>,
    pub rules: &'a Rules,
    pub effects: &'a mut E,
}

/// What became of the bytes at the front of the input.
pub(super) enum Step {
    /// They are not complete.
    Incomplete,
    /// So many were taken, and this is what follows from them.
    Taken(usize, Flow),
}

/// Why a command is not carried out.
pub(super) enum Refusal {
    /// The client broke the protocol, or wants what cannot be: the conversation ends.
    End(Disconnect<'static>, Reason),
    /// An answer by an error.
    Error(ErrorCode),
    /// The same, for a reason of its own.
    ErrorBecause(ErrorCode, Reason),
    /// None yet: its token names a key that is not at hand. It is carried out again when the keys were asked for.
    AwaitKeys,
}

impl From<ErrorCode> for Refusal {
    fn from(error: ErrorCode) -> Self {
        Self::Error(error)
    }
}

impl<E: Effects> Conversation<'_, E> {
    pub fn receive(&mut self, input: &mut [u8]) -> Flow {
        if self.session.is_paused() {
            self.keep(input);
            return Flow::Paused;
        }
        match self.take_kept() {
            Some(mut kept) => {
                kept.extend_from_slice(input);
                self.read_kept(kept)
            }
            None => {
                let (taken, flow) = self.read(input);
                self.keep(&input[taken..]);
                flow
            }
        }
    }

    pub fn resume(&mut self) -> Flow {
        if self.session.phase == Phase::Connecting {
            return Flow::Paused;
        }
        self.session.clear(Flag::Paused);
        let commands = self.transient.as_mut().map(|transient| std::mem::take(&mut transient.commands));
        let flow = match commands {
            Some(commands) if !commands.is_empty() && !self.session.is_closing() => {
                let form = self.effects.form();
                if form.is_one_way() {
                    self.connect_one_way(&commands)
                } else {
                    self.run(Commands::from_rest(form.encoding(), &commands))
                }
            }
            // The shard has ended the conversation during the pause.
            _ => Flow::Continue,
        };
        if matches!(flow, Flow::Paused | Flow::AwaitingKeys | Flow::Drop) { flow } else { self.read_on(flow) }
    }

    /// Reads what was kept during a pause. What follows from it goes before what the pause's end brought.
    pub(super) fn read_on(&mut self, flow: Flow) -> Flow {
        let Some(kept) = self.take_kept() else { return flow };
        match self.read_kept(kept) {
            Flow::Continue => flow,
            later => later,
        }
    }

    /// Reads what was kept, and keeps what still cannot be read.
    fn read_kept(&mut self, mut kept: Vec<u8>) -> Flow {
        let (taken, flow) = self.read(&mut kept);
        if taken == 0 {
            // Not copied again for every piece of a long message.
            self.transient.get_or_insert_default().input = kept;
        } else {
            self.keep(&kept[taken..]);
        }
        flow
    }

    /// Reads all that is complete: how many bytes that was, and what follows from it.
    fn read(&mut self, input: &mut [u8]) -> (usize, Flow) {
        let (mut fragments, mut request) = match self.transient {
            Some(transient) => (transient.fragments.take(), transient.request.take()),
            None => (None, None),
        };
        let mut outcome = Flow::Continue;
        let mut taken = 0;
        while taken < input.len() && self.session.phase != Phase::Ended {
            let rest = &mut input[taken..];
            let step = match self.session.phase {
                Phase::Head => self.read_request(rest, &mut request),
                _ if self.effects.form().is_stream() => Step::Taken(rest.len(), Flow::Continue),
                _ => self.read_frame(rest, &mut fragments),
            };
            let Step::Taken(bytes, flow) = step else { break };
            taken += bytes;
            match flow {
                Flow::Continue => {}
                // The next request, or the peer's close frame, may lie behind.
                Flow::Answered | Flow::Closing | Flow::Lingering => outcome = flow,
                Flow::Paused | Flow::AwaitingKeys | Flow::Drop | Flow::HandOver => {
                    outcome = flow;
                    break;
                }
            }
        }
        if self.session.phase == Phase::Ended {
            *self.transient = None;
            return (input.len(), outcome);
        }
        if fragments.is_some() {
            self.transient.get_or_insert_default().fragments = fragments;
        }
        if request.is_some() {
            self.transient.get_or_insert_default().request = request;
        }
        (taken, outcome)
    }

    fn read_frame(&mut self, input: &mut [u8], fragments: &mut Option<Box<Fragments>>) -> Step {
        let bytes_all = input.len();
        let message_bytes_max = self.rules.config.client.message_bytes_max as usize;
        let inflater = self.effects.form().deflation().is_some().then(|| self.effects.inflater());
        match message::read(input, fragments, message_bytes_max, inflater) {
            Ok(Read::Incomplete { .. }) => Step::Incomplete,
            Ok(Read::Event { event, bytes }) => Step::Taken(bytes, self.hear(event)),
            Err(violation) => {
                // Where frames cannot be told apart, no close frame can be found either.
                let was_closing = self.session.is_closing();
                self.session.phase = Phase::Ended;
                if was_closing {
                    return Step::Taken(bytes_all, Flow::Continue);
                }
                self.effects.count(violation.into());
                self.effects.ends(violation.close_code(), &violation.to_string());
                frame::write_close(self.effects.output(), violation.close_code(), &violation.to_string());
                Step::Taken(bytes_all, Flow::Closing)
            }
        }
    }

    fn hear(&mut self, event: Event<'_>) -> Flow {
        let is_closing = self.session.is_closing();
        match event {
            Event::Close { code, .. } => self.hear_close(code),
            Event::Message { payload, .. } if !is_closing => {
                self.effects.message();
                self.hear_message(&payload)
            }
            Event::Ping(payload) if !is_closing => {
                frame::write(self.effects.output(), OpCode::Control(Control::Pong), payload);
                Flow::Continue
            }
            Event::Pong(_) if self.effects.form().is_one_way() || self.session.has(Flag::FramePings) => {
                self.session.clear(Flag::AwaitingPong);
                Flow::Continue
            }
            Event::Message { .. } | Event::Ping(_) | Event::Pong(_) | Event::Continue => Flow::Continue,
        }
    }

    fn hear_message(&mut self, payload: &[u8]) -> Flow {
        let form = self.effects.form();
        if !form.is_one_way() {
            // By far the most messages are pongs.
            if payload == form.encoding().ping() && self.session.take_pong() {
                return Flow::Continue;
            }
            return self.run(form.encoding().decode(payload));
        }
        // After its first message a client that only listens has nothing to say.
        if self.session.phase != Phase::AwaitingConnect {
            return Flow::Continue;
        }
        self.connect_one_way(payload)
    }

    /// The connect request of a client that only listens.
    pub(super) fn connect_one_way(&mut self, request: &[u8]) -> Flow {
        let flow = match ConnectRequest::read(request) {
            Ok(connect) => self.connect(0, &connect),
            Err(_) => self.end(Disconnect::BAD_REQUEST, Reason::CommandMalformed),
        };
        if flow == Flow::AwaitingKeys {
            self.transient.get_or_insert_default().commands.extend_from_slice(request);
        } else {
            self.session.clear(Flag::KeysAsked);
        }
        flow
    }

    /// The client closes, or answers our close frame.
    fn hear_close(&mut self, code: Option<u16>) -> Flow {
        if !self.session.is_closing() || self.session.has(Flag::Lingering) {
            let out = self.effects.output();
            match code {
                Some(code) => frame::write_close(out, code, ""),
                None => frame::write(out, OpCode::Control(Control::Close), &[]),
            }
        }
        if !self.session.is_closing() {
            self.effects.count(Reason::PeerClosed);
        }
        self.session.phase = Phase::Ended;
        Flow::Drop
    }

    /// Carries out commands until one ends the conversation or pauses it.
    pub(super) fn run(&mut self, mut commands: Commands<'_>) -> Flow {
        loop {
            let rest_with_command = commands.rest();
            let Some(command) = commands.next() else { return Flow::Continue };
            let flow = match command {
                Ok(command) => self.execute(command),
                Err(_) => self.end(Disconnect::BAD_REQUEST, Reason::CommandMalformed),
            };
            if flow != Flow::AwaitingKeys {
                self.session.clear(Flag::KeysAsked);
            }
            match flow {
                Flow::Continue => {}
                Flow::AwaitingKeys => {
                    let rest = rest_with_command.expect("a command was read from it");
                    self.transient.get_or_insert_default().commands.extend_from_slice(rest);
                    return flow;
                }
                Flow::Paused => {
                    if let Some(rest) = commands.rest() {
                        // An empty rest is a blank line, and a blank line is a mistake that must not get lost.
                        let rest = if rest.is_empty() { b" " } else { rest };
                        self.transient.get_or_insert_default().commands.extend_from_slice(rest);
                    }
                    return Flow::Paused;
                }
                Flow::Answered | Flow::Closing | Flow::Lingering | Flow::Drop | Flow::HandOver => return flow,
            }
        }
    }

    /// Holds everything back, this command among it, until the published keys were asked for.
    pub fn await_keys(&mut self) -> Flow {
        self.session.set(Flag::Paused);
        self.session.set(Flag::KeysAsked);
        Flow::AwaitingKeys
    }

    /// What follows from a token whose key is not at hand: it is asked for once, and what is not published then is as
    /// good as forged. If it cannot be asked for, nobody knows, and a later attempt is worth while.
    pub fn key_missing(&self, forged: Refusal) -> Refusal {
        if !self.session.has(Flag::KeysAsked) {
            Refusal::AwaitKeys
        } else if self.rules.verifier.has_current_keys() {
            forged
        } else {
            Refusal::ErrorBecause(ErrorCode::Internal, Reason::TokenKeyUnavailable)
        }
    }

    /// Ends the conversation, and tells the client why.
    pub fn end(&mut self, disconnect: Disconnect<'_>, reason: Reason) -> Flow {
        self.effects.count(reason);
        self.effects.ends(disconnect.code(), disconnect.reason());
        super::disconnect(self.session, self.effects.form(), disconnect, self.effects.output());
        Flow::Closing
    }

    /// Answers a command by an error; the conversation goes on.
    pub fn refuse(&mut self, command: u32, error: ErrorView<'_>, reason: Reason) -> Flow {
        self.effects.count(reason);
        self.effects.form().write_reply(self.effects.output(), command, &Reply::Error(error));
        Flow::Continue
    }

    /// The same of a command about a channel.
    pub fn refuse_in(&mut self, channel: &str, command: u32, error: ErrorCode, reason: Reason) -> Flow {
        self.effects.count_in(reason, channel);
        self.effects.form().write_reply(self.effects.output(), command, &Reply::Error(error.into()));
        Flow::Continue
    }

    /// Keeps what cannot be read yet.
    fn keep(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            self.transient.get_or_insert_default().input.extend_from_slice(rest);
        }
    }

    fn take_kept(&mut self) -> Option<Vec<u8>> {
        let kept = std::mem::take(&mut self.transient.as_mut()?.input);
        (!kept.is_empty()).then_some(kept)
    }
}
