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
mod endpoint;
mod execute;
mod hooks;
mod origin;
mod permission;
mod rates;
mod reason;
mod request;
mod rules;
mod state;
mod stream;
mod tokens;
mod turned_away;
mod upgrade;
mod uplink;

#[cfg(test)]
mod tests;

use conversation::Conversation;
use state::Flag;
pub use {
    effects::{
        Connect, Effects, Flow, HistoryCommand, PresenceCommand, PublishCommand, Renewal, ServerSide, SubscribeCommand,
        Terms,
    },
    hooks::{Awaiting, Question, answered},
    rates::{Rates, TooFrequent},
    reason::{Noise, Reason},
    rules::Rules,
    state::{Phase, Session, Transient},
    turned_away::{TurnedAway, turn_away},
    uplink::{Forwarded, Uplink, uplink, uplink_taken},
};

use crate::{
    fanout::{Carrier, Form},
    http::{Answer, chunk},
    protocol::{ConnectResult, Disconnect, Push, Reply, SubscribeResult},
    websocket::frame::{self, Control, OpCode},
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
    /// What the application tells it.
    pub data: Option<&'a [u8]>,
    /// Server-side subscriptions, by channel.
    pub subs: &'a [(&'a str, SubscribeResult<'a>)],
    /// The secret by which other requests may speak for the client; "" where its commands come over the connection itself.
    pub session: &'a str,
    /// The process that knows the session; "" without one.
    pub node: &'a str,
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
    let is_told_pings = !session.has(Flag::FramePings);
    write_connect_reply(effects.form(), reply, is_told_pings, rules, effects.output());
}

/// Appends a connect reply, for a shard that completes [`Effects::connect`] at once. `is_told_pings`: pings are messages,
/// so the client has to know when to expect them.
pub fn write_connect_reply(
    form: Form,
    reply: &ConnectReply<'_>,
    is_told_pings: bool,
    rules: &Rules,
    out: &mut Vec<u8>,
) {
    let result = ConnectResult {
        client: reply.client,
        version: Rules::SERVER_VERSION,
        expires: reply.ttl_seconds.is_some(),
        ttl_seconds: reply.ttl_seconds.unwrap_or_default(),
        data: reply.data,
        subs: reply.subs,
        ping_seconds: if is_told_pings { rules.config.client.ping_ms / 1000 } else { 0 },
        pong: is_told_pings && !form.is_one_way(),
        session: reply.session,
        node: reply.node,
    };
    if form.is_one_way() {
        form.write_push(out, "", &Push::Connect(result));
    } else {
        form.write_reply(out, reply.command, &Reply::Connect(result));
    }
}

/// Seconds until a token expires, as clients are told it; one at least, as 0 would be left out.
pub fn ttl_seconds(expires_at: u64, now_unix_seconds: u64) -> u32 {
    u32::try_from(expires_at.saturating_sub(now_unix_seconds)).unwrap_or(u32::MAX).max(1)
}

/// Appends a ping. The client has to answer it, unless it has no way to.
pub fn ping(session: &mut Session, form: Form, out: &mut Vec<u8>) {
    assert!(session.is_connected(), "only connected clients are pinged");
    let is_by_frame = session.has(Flag::FramePings);
    if is_by_frame || form.is_one_way() && !form.is_stream() {
        // Whoever only listens, and many a tool, says nothing, but its WebSocket answers.
        frame::write(out, OpCode::Control(Control::Ping), &[]);
    }
    // Of one-way streams TCP alone tells that the client is gone: what is written is not acknowledged.
    if !form.is_one_way() || !form.is_stream() {
        session.set(Flag::AwaitingPong);
    }
    if !is_by_frame {
        form.write_ping(out);
    }
}

/// Ends the conversation from the shard's side: appends the client's last message, or an HTTP answer to a request that
/// is not answered yet. Nothing, if it has ended already. The flow is [`Flow::Closing`] from here on.
pub fn disconnect(session: &mut Session, form: Form, disconnect: Disconnect<'_>, out: &mut Vec<u8>) {
    match session.phase {
        Phase::Head => {
            // Between two requests nothing is to be answered.
            if !session.has(Flag::Answered) || session.has(Flag::Paused) {
                let (status, body) = http_answer(disconnect);
                Answer::last(status, body).write(out);
            }
            session.phase = Phase::Ended;
        }
        Phase::AwaitingConnect | Phase::Connecting | Phase::Connected => {
            if form.is_stream() || form.is_one_way() {
                form.write_push(out, "", &Push::Disconnect(disconnect));
            }
            session.phase = match form.carrier() {
                Carrier::WebSocket => {
                    frame::write_close(out, disconnect.code(), disconnect.reason());
                    Phase::Closing
                }
                Carrier::Events | Carrier::Chunks => {
                    out.extend_from_slice(chunk::LAST);
                    Phase::Ended
                }
            };
        }
        Phase::Closing | Phase::Ended => {}
    }
}

/// The phase's deadline ([`Session::deadline_ms`]), or the pong's, has passed.
pub fn deadline_passed<E: Effects>(session: &mut Session, effects: &mut E) -> Flow {
    let (disconnect, reason) = match session.phase {
        // The request is here, and its answer waits for the session that it is for.
        Phase::Head if session.has(Flag::Paused) => return Flow::Continue,
        // Kept for a next request that has not come.
        Phase::Head if session.has(Flag::Answered) => {
            session.phase = Phase::Ended;
            return Flow::Drop;
        }
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
    effects.ends(disconnect.code(), disconnect.reason());
    self::disconnect(session, effects.form(), disconnect, effects.output());
    Flow::Closing
}

/// What a client is told that is not upgraded yet.
fn http_answer(disconnect: Disconnect<'_>) -> (u16, &'static str) {
    match disconnect {
        Disconnect::STALE => (408, "the request head was not complete in time\n"),
        Disconnect::INTERNAL_ERROR => (500, "internal server error\n"),
        _ => (503, "the server takes no new clients now\n"),
    }
}
