//! What a session asks of its shard.

use bytes::Bytes;

use super::{Forwarded, Question, Reason, TooFrequent, TurnedAway, Uplink};
use crate::{
    fanout::{Content, Form},
    mesh::{Position, Version},
    protocol::{Payload, Tags},
    websocket::deflate::Inflater,
};

/// Everything that needs tables or other shards. Each call is carried out at once, so that what
/// it writes lies in its place between the replies of the same turn.
pub trait Effects {
    /// Where messages for this peer are appended, in order.
    fn output(&mut self) -> &mut Vec<u8>;
    /// How the peer is written to.
    fn form(&self) -> Form;
    /// It is known how the peer is to be written to; said once, before it connects.
    fn set_form(&mut self, form: Form);
    /// What reads compressed messages, of any peer.
    fn inflater(&mut self) -> &mut Inflater;
    /// Why the peer may not become a client, but only speak for those that are; none: it may.
    fn no_place(&self) -> Option<TurnedAway>;
    /// The time, in seconds since 1970.
    fn now_unix_seconds(&self) -> u64;
    /// The connection's user; "": anonymous, or not connected yet.
    fn user(&self) -> &str;
    /// The connection's client id.
    fn client(&self) -> String;
    /// Whether the connection is subscribed to the channel, or about to be.
    fn is_subscribed(&self, channel: &str) -> bool;
    /// How many channels the connection is subscribed to, or about to be.
    fn subscriptions(&self) -> usize;
    /// The client has proven who it is.
    ///
    /// [`Flow::Paused`]: server-side subscriptions are under way; [`connected`](super::connected),
    /// then [`resume`](super::resume) will be called. [`Flow::Continue`]: the shard has written the
    /// reply, with [`write_connect_reply`](super::write_connect_reply). Nothing else is a valid answer.
    fn connect(&mut self, connect: Connect) -> Flow;
    /// The client may subscribe to a channel to which it is not subscribed. The shard answers, now or later.
    fn subscribe(&mut self, subscribe: SubscribeCommand<'_>);
    /// The client wants to leave a channel, in which it may not be. The shard answers.
    fn unsubscribe(&mut self, command: u32, channel: &str);
    /// The client may publish. The shard answers, now or later. [`Flow::Paused`]: nothing more can
    /// be taken in before [`resume`](super::resume). Otherwise [`Flow::Continue`].
    fn publish(&mut self, publish: PublishCommand<'_>) -> Flow;
    /// The application's back end is to be asked; [`answered`](super::answered) will be called. [`Flow::Paused`]: it is
    /// asked enough about this client, and nothing more can be taken in before [`resume`](super::resume).
    fn ask(&mut self, question: Question<'_>) -> Flow;
    /// Whether the back end is asked now if the client may subscribe to the channel.
    fn is_asking(&self, channel: &str) -> bool;
    /// A header field of the client's request that the back end is shown, by its place in `hooks.headers`. An emulated
    /// one stands in for one that is missing.
    fn keep_header(&mut self, place: u16, value: &[u8], is_emulated: bool);
    /// The client may read the history. The shard answers, now or later.
    fn history(&mut self, history: HistoryCommand<'_>);
    /// The client may know who is subscribed. The shard answers, now or later.
    fn presence(&mut self, presence: PresenceCommand<'_>);
    /// The client has brought a new token.
    fn refresh(&mut self, renewal: Renewal);
    /// The same for a subscription that the client has, or is about to have.
    fn refresh_subscription(&mut self, channel: &str, expires_at: Option<u64>, info: Option<Bytes>);
    /// Whether the server has made the subscription, which the client has.
    fn is_server_side(&self, channel: &str) -> bool;
    /// The time of a subscription is over that the client has made itself: it is ended, and the client told.
    fn expire_subscription(&mut self, channel: &str);
    /// Commands have arrived for a session of another connection. [`Forwarded::Sent`]:
    /// [`uplink_taken`](super::uplink_taken) will be called.
    fn forward(&mut self, uplink: Uplink<'_>) -> Forwarded;
    /// The conversation ends by this close code, for this reason. Not said where the client ends it.
    fn ends(&mut self, code: u16, reason: &str);
    /// A command of a connected client has come.
    ///
    /// # Errors
    /// When it comes too often, and is not to be carried out.
    fn charge_command(&mut self, is_publication: bool) -> Result<(), TooFrequent>;
    /// A whole message has arrived; what it means is still to be seen.
    fn message(&mut self);
    /// Something was refused, or the connection is about to end, for this reason.
    fn count(&mut self, reason: Reason);
    /// The same, of a command about this channel.
    fn count_in(&mut self, reason: Reason, channel: &str) {
        let _ = channel;
        self.count(reason);
    }
}

/// What the shard has to do after a session has acted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// Nothing in particular.
    Continue,
    /// A request is answered, and the next may come: its deadline begins.
    Answered,
    /// Receive nothing until the pause is over, then call [`resume`](super::resume), or
    /// [`uplink_taken`](super::uplink_taken) or [`answered`](super::answered) where that was announced.
    Paused,
    /// The same, after the keys that are published now have been asked for.
    AwaitingKeys,
    /// Send what is written, shut down our side, and wait for the peer's end, at most
    /// [`CLOSE_HANDSHAKE_MS_MAX`](crate::limits::CLOSE_HANDSHAKE_MS_MAX). Input still goes to
    /// [`receive`](super::receive). Said once.
    Closing,
    /// The same, but our side stays open: the last word was a reply, on which the client closes. An
    /// end of ours that overtakes the reply in the client's library would look like a lost connection.
    Lingering,
    /// Send what is written and close the socket.
    Drop,
    /// The request that has begun is for the control thread: it gets the socket, and what
    /// [`Transient::into_input`](super::Transient::into_input) gives.
    HandOver,
}

/// A client that has proven who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// `id` of the command.
    pub command: u32,
    /// User id; "": anonymous.
    pub user: String,
    /// When the connection expires, in seconds since 1970; none: never.
    pub expires_at: Option<u64>,
    /// What other clients may see of the user: a JSON text without line feeds.
    pub info: Option<Bytes>,
    /// What the application tells the client: a JSON text, or any bytes for a client that takes them.
    pub data: Option<Bytes>,
    /// What the application's back end may see of the connection, and clients never: a JSON text without line feeds.
    pub meta: Option<Bytes>,
    /// What the client's program calls itself; "": nothing.
    pub name: String,
    /// The version of that program.
    pub version: String,
    /// Server-side subscriptions: the personal channel, the token's, and those asked for and
    /// permitted. Each channel once.
    pub channels: Vec<ServerSide>,
    /// The client is the console.
    pub is_operator: bool,
}

/// What a new token says of its connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renewal {
    /// When the connection expires from now on, in seconds since 1970; none: never.
    pub expires_at: Option<u64>,
    /// What other clients may see of the user; none: what they may see already.
    pub info: Option<Bytes>,
    /// What the application's back end may see of the connection; none: what it may see already.
    pub meta: Option<Bytes>,
}

/// A subscription that the server makes at connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSide {
    /// Its channel.
    pub channel: String,
    /// What the subscription comes with.
    pub terms: Terms,
}

/// A subscribe command that is permitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribeCommand<'a> {
    /// Its `id`.
    pub command: u32,
    /// The channel.
    pub channel: &'a str,
    /// What the subscription comes with.
    pub terms: Terms,
}

/// A publish command that is permitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishCommand<'a> {
    /// Its `id`.
    pub command: u32,
    /// The channel.
    pub channel: &'a str,
    /// What is published.
    pub payload: Payload,
    /// Publications with the same key are one.
    pub idempotency_key: Option<Bytes>,
    /// Deliver, but do not store.
    pub skip_history: bool,
    /// Subscribers with deltas may be sent a patch.
    pub delta: bool,
    /// Which version of the channel's state it is.
    pub version: Option<Box<Version>>,
    /// Strings by name.
    pub tags: Option<Tags>,
}

impl<'a> PublishCommand<'a> {
    /// What a client says, and no more.
    pub fn new(command: u32, channel: &'a str, payload: Payload) -> Self {
        Self {
            command,
            channel,
            payload,
            idempotency_key: None,
            skip_history: false,
            delta: false,
            version: None,
            tags: None,
        }
    }
}

/// What a subscription comes with: what was asked for, as far as the namespace grants it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// It knows its position.
    pub positioned: bool,
    /// It can recover; then it is positioned too.
    pub recoverable: bool,
    /// The client's last position, if it wants what it missed; an epoch "" is any.
    pub recover: Option<Position>,
    /// What of the channel's publications it is sent.
    pub content: Content,
    /// Better no subscription than one with a gap.
    pub reject_unrecovered: bool,
    /// Whoever asks who is subscribed is told of it.
    pub emit_presence: bool,
    /// Others are told when it comes and when it goes.
    pub emit_join_leave: bool,
    /// It is told when others come and go.
    pub push_join_leave: bool,
    /// When it expires, in seconds since 1970; none: never.
    pub expires_at: Option<u64>,
    /// What the application says to the client with the subscription: a JSON text.
    pub data: Option<Bytes>,
    /// What others may see of the client in this channel: a JSON text.
    pub chan_info: Option<Bytes>,
}

/// A history command that is permitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryCommand<'a> {
    /// Its `id`.
    pub command: u32,
    /// The channel.
    pub channel: &'a str,
    /// Publications wanted; 0: only the position; negative: as many as there may be.
    pub limit: i32,
    /// Where to start; an epoch "" is any.
    pub since: Option<Position>,
    /// Newest first.
    pub reverse: bool,
}

/// A presence or presence_stats command that is permitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceCommand<'a> {
    /// Its `id`.
    pub command: u32,
    /// The channel.
    pub channel: &'a str,
    /// Only how many there are.
    pub stats_only: bool,
}
