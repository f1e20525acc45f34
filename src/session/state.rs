//! What a session remembers between two receives: two bytes for good, the rest only while it is needed.

use super::{Rules, request::PendingRequest, uplink::DeferredAnswer};
use crate::{limits::CLOSE_HANDSHAKE_MS_MAX, websocket::message::Fragments};

/// Where one connection's conversation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Session {
    pub(super) phase: Phase,
    flags: u8,
}

/// Every idle client pays it.
const _: () = assert!(size_of::<Session>() == 2);

/// The stages of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Phase {
    /// A request is awaited, or under way.
    #[default]
    Head,
    /// Upgraded; the connect command is awaited.
    AwaitingConnect,
    /// The connect command is accepted; its reply waits for server-side subscriptions.
    Connecting,
    /// The client has its connect reply.
    Connected,
    /// Our last word is said; the peer's close frame is awaited.
    Closing,
    /// Nothing that may come has a meaning any more; the peer's end is awaited.
    Ended,
}

/// A bit of [`Session::flags`].
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum Flag {
    /// Input is held back until [`resume`](super::resume).
    Paused = 1 << 0,
    /// A ping is out.
    AwaitingPong = 1 << 1,
    /// No rule of channels applies.
    Operator = 1 << 2,
    /// Closing without a close frame of ours: the client's is to be answered.
    Lingering = 1 << 3,
    /// A request has been answered, and the connection was kept for the next.
    Answered = 1 << 4,
    /// The published keys were asked for, for the command that is carried out next.
    KeysAsked = 1 << 5,
    /// Pings and pongs are WebSocket control frames, not messages.
    FramePings = 1 << 6,
}

impl Session {
    /// Where the conversation stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the client has its connect reply and is not on its way out.
    pub fn is_connected(&self) -> bool {
        self.phase == Phase::Connected
    }

    /// Whether our last word is said.
    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing | Phase::Ended)
    }

    /// Whether input is held back: nothing is to be received until [`resume`](super::resume).
    pub fn is_paused(&self) -> bool {
        self.phase == Phase::Connecting || self.has(Flag::Paused) && !self.is_closing()
    }

    /// Whether a ping is out that has not been answered.
    pub fn awaiting_pong(&self) -> bool {
        self.has(Flag::AwaitingPong)
    }

    /// A pong has arrived as a message: whether one was awaited.
    pub(super) fn take_pong(&mut self) -> bool {
        let was_awaited = self.awaiting_pong() && !self.has(Flag::FramePings);
        if was_awaited {
            self.clear(Flag::AwaitingPong);
        }
        was_awaited
    }

    /// Whether the client is the console, which may subscribe and publish everywhere.
    pub fn is_operator(&self) -> bool {
        self.has(Flag::Operator)
    }

    /// Milliseconds, from the moment when the session entered its phase, after which
    /// [`deadline_passed`](super::deadline_passed) is to be called; none: the phase has no deadline but the heartbeat.
    ///
    /// [`Phase::Connecting`] belongs to [`Phase::AwaitingConnect`]: its deadline goes on.
    pub fn deadline_ms(&self, rules: &Rules) -> Option<u64> {
        let client = &rules.config.client;
        match self.phase {
            Phase::Head => Some(u64::from(client.request_head_ms_max)),
            Phase::AwaitingConnect | Phase::Connecting => Some(u64::from(client.connect_ms_max)),
            Phase::Connected => None,
            Phase::Closing | Phase::Ended => Some(CLOSE_HANDSHAKE_MS_MAX),
        }
    }

    pub(super) fn has(&self, flag: Flag) -> bool {
        self.flags & flag as u8 != 0
    }

    pub(super) fn set(&mut self, flag: Flag) {
        self.flags |= flag as u8;
    }

    pub(super) fn clear(&mut self, flag: Flag) {
        self.flags &= !(flag as u8);
    }
}

/// What a session must keep for a while: it exists on first use and goes when it is empty.
///
/// Its size is bounded by what may be incomplete: a request's head and body, or one message and its header,
/// by one receive more while the session is paused, because the shard receives nothing then, and by one
/// message that other connections bring meanwhile.
#[derive(Debug, Default)]
pub struct Transient {
    /// Received and not read: the beginning of a head or frame, or what came while paused.
    pub(super) input: Vec<u8>,
    /// Commands of a message whose front was carried out before the pause.
    pub(super) commands: Vec<u8>,
    /// The message that is under way in fragments.
    pub(super) fragments: Option<Box<Fragments>>,
    /// The request whose body is under way.
    pub(super) request: Option<Box<PendingRequest>>,
    /// The answer that waits until another session has taken what this connection brought.
    pub(super) answer: Option<DeferredAnswer>,
}

impl Transient {
    /// What has arrived and was not read.
    pub fn into_input(self) -> Vec<u8> {
        self.input
    }

    /// Whether it may be given back.
    pub fn is_empty(&self) -> bool {
        self.input.is_empty()
            && self.commands.is_empty()
            && self.fragments.is_none()
            && self.request.is_none()
            && self.answer.is_none()
    }
}
