//! One client's conversation, from request head to close, sans-IO: bytes in, bytes and [`Effects`] out.
//!
//! Owns what a client may say when, what it is answered, and how a conversation ends. Leaves to
//! the shard the socket, the timers, the tables of channels, and everything that other shards
//! know; leaves syntax to `http`, `websocket` and `protocol`.
//!
//! Invariants:
//! - [`Session`] is all that an idle client keeps: two bytes. Everything else is in [`Transient`],
//!   which exists only while something is incomplete or held back.
//! - Commands are carried out and answered in order. A pause (connect under way, backpressure)
//!   holds back everything behind the command that caused it, so no later command overtakes it.
//! - How the network cuts the input does not matter: any split of the same bytes has the same effects.
//! - What ends a conversation is said once: [`Flow::Closing`], [`Flow::Lingering`] or [`Flow::Drop`]
//!   at the moment when it ends. Afterwards input is only searched for the peer's close frame.
//!   Were it said again, a peer that keeps talking would put off its own deadline.

mod connect;
mod conversation;
mod effects;
mod execute;
mod origin;
mod permission;
mod reason;
mod rules;
mod state;
mod tokens;
mod upgrade;

#[cfg(test)]
mod tests;

use conversation::Conversation;
use state::Flag;
pub use {
    effects::{Connect, Effects, Flow, HistoryCommand, PresenceCommand, ServerSide, SubscribeCommand, Terms},
    reason::Reason,
    rules::Rules,
    state::{Phase, Session, Transient},
};

use crate::{
    http::Answer,
    protocol::{ConnectResult, Disconnect, Encoding, Reply, SubscribeResult},
    websocket::frame::{self, Data, OpCode},
};

/// What the shard has made of a connect command.
#[derive(Debug, Clone, Copy)]
pub struct ConnectReply<'a> {
    /// `id` of the command.
    pub command: u32,
    /// The client id.
    pub client: &'a str,
    /// Seconds within which the client has to bring a new token; none: its connection does not expire.
    pub ttl_seconds: Option<u32>,
    /// Server-side subscriptions, by channel.
    pub subs: &'a [(&'a str, SubscribeResult<'a>)],
}

/// Takes in what was received, all of it: what is incomplete or held back is copied into `transient`.
///
/// Bytes of `input` are changed (frames are unmasked in place). While the session is paused
/// nothing more should be received: what is, is kept.
pub fn receive<E: Effects>(
    session: &mut Session,
    transient: &mut Option<Box<Transient>>,
    input: &mut [u8],
    rules: &Rules,
    effects: &mut E,
) -> Flow {
    Conversation { session, transient, rules, effects }.receive(input)
}

/// Ends a pause (the connect reply is written, or there is room again) and goes on with what was held back.
pub fn resume<E: Effects>(
    session: &mut Session,
    transient: &mut Option<Box<Transient>>,
    rules: &Rules,
    effects: &mut E,
) -> Flow {
    Conversation { session, transient, rules, effects }.resume()
}

/// The server-side subscriptions of a connect command are made: writes the reply. [`resume`] is to follow.
pub fn connected<E: Effects>(session: &mut Session, reply: &ConnectReply<'_>, rules: &Rules, effects: &mut E) {
    assert_eq!(session.phase, Phase::Connecting, "a connect reply belongs to a connect command that waits for it");
    session.phase = Phase::Connected;
    session.set(Flag::Paused);
    write_connect_reply(session.encoding(), reply, rules, effects.output());
}

/// Appends the frame of a connect reply, for a shard that completes [`Effects::connect`] at once.
pub fn write_connect_reply(encoding: Encoding, reply: &ConnectReply<'_>, rules: &Rules, out: &mut Vec<u8>) {
    let result = ConnectResult {
        client: reply.client,
        version: Rules::SERVER_VERSION,
        expires: reply.ttl_seconds.is_some(),
        ttl_seconds: reply.ttl_seconds.unwrap_or_default(),
        subs: reply.subs,
        ping_seconds: rules.config.client.ping_ms / 1000,
        pong: true,
        ..ConnectResult::default()
    };
    write_reply(encoding, reply.command, &Reply::Connect(result), out);
}

/// Seconds until a token expires, as clients are told it; one at least, as 0 would be left out.
pub fn ttl_seconds(expires_at: u64, now_unix_seconds: u64) -> u32 {
    u32::try_from(expires_at.saturating_sub(now_unix_seconds)).unwrap_or(u32::MAX).max(1)
}

/// Appends a ping; the client has to answer it.
pub fn ping(session: &mut Session, out: &mut Vec<u8>) {
    assert!(session.is_connected(), "only connected clients are pinged");
    session.set(Flag::AwaitingPong);
    frame::write(out, opcode(session.encoding()), session.encoding().ping());
}

/// Ends the conversation from the shard's side: appends the close frame, or before the upgrade an
/// HTTP answer. Nothing, if it has ended already. The flow is [`Flow::Closing`] from here on.
pub fn disconnect(session: &mut Session, disconnect: Disconnect, out: &mut Vec<u8>) {
    match session.phase {
        Phase::Head => {
            let (status, body) = http_answer(disconnect);
            Answer::last(status, body).write(out);
            session.phase = Phase::Ended;
        }
        Phase::AwaitingConnect | Phase::Connecting | Phase::Connected => {
            frame::write_close(out, disconnect.code(), disconnect.reason());
            session.phase = Phase::Closing;
        }
        Phase::Closing | Phase::Ended => {}
    }
}

/// The phase's deadline ([`Session::deadline_ms`]), or the pong's, has passed.
pub fn deadline_passed<E: Effects>(session: &mut Session, effects: &mut E) -> Flow {
    let (disconnect, reason) = match session.phase {
        Phase::Head => (Disconnect::STALE, Reason::RequestHeadTimeout),
        Phase::AwaitingConnect | Phase::Connecting => (Disconnect::STALE, Reason::Stale),
        Phase::Connected if session.awaiting_pong() => (Disconnect::NO_PONG, Reason::NoPong),
        Phase::Connected => return Flow::Continue,
        Phase::Closing | Phase::Ended => {
            session.phase = Phase::Ended;
            return Flow::Drop;
        }
    };
    effects.count(reason);
    self::disconnect(session, disconnect, effects.output());
    Flow::Closing
}

/// Appends the frame of an answer to a command.
pub fn write_reply(encoding: Encoding, command: u32, reply: &Reply<'_>, out: &mut Vec<u8>) {
    write_frame(encoding, out, |out| encoding.write_reply(out, command, reply));
}

/// Appends the frame of one message of this encoding, which `write` appends.
pub fn write_frame(encoding: Encoding, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let mark = frame::begin(out);
    write(out);
    frame::finish(out, mark, opcode(encoding));
}

/// What frames of this encoding are marked with (protocol.md section 1).
fn opcode(encoding: Encoding) -> OpCode {
    OpCode::Data(match encoding {
        Encoding::Json => Data::Text,
        Encoding::Protobuf => Data::Binary,
    })
}

/// What a client is told that is not upgraded yet.
fn http_answer(disconnect: Disconnect) -> (u16, &'static str) {
    match disconnect {
        Disconnect::STALE => (408, "the request head was not complete in time\n"),
        Disconnect::INTERNAL_ERROR => (500, "internal server error\n"),
        Disconnect::CONNECTION_LIMIT => (503, "as many clients are connected as there may be\n"),
        _ => (503, "the server takes no new clients now\n"),
    }
}
