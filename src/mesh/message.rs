//! What threads tell each other. Each variant says who sends it, who owns it and what its loss would mean.

use std::{hash::Hasher, os::fd::OwnedFd, sync::Arc};

use bytes::Bytes;
use siphasher::sip::SipHasher13;

use super::{Histogram, TraceNote, TraceNumber, TraceParent};
use crate::{
    config::{Config, Hook},
    network::PrefixSet,
    protocol::{AttributesPatch, Encoding, Grant, HookAnswer, KeySet, PresenceStats, Tags},
    uring::monotonic_us,
};

/// Hashes channel names, alike on all threads of a process. Its key is secret, so that no client can choose collisions.
#[derive(Debug, Clone)]
pub struct ChannelHasher {
    key: [u8; 16],
}

impl ChannelHasher {
    /// A hasher of this key, for simulations that must replay.
    pub fn with_key(key: [u8; 16]) -> Self {
        Self { key }
    }

    /// The name with its hash, computed once and carried along.
    pub fn name(&self, name: &str) -> ChannelName {
        ChannelName { hash: self.hash(name), name: name.into() }
    }

    /// The hash alone.
    pub fn hash(&self, name: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(name.as_bytes());
        hasher.finish()
    }

    /// Of a number: another one, which nobody can foretell who does not know the key.
    pub fn hash_number(&self, number: u64) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u64(number);
        hasher.finish()
    }
}

impl Default for ChannelHasher {
    /// A hasher of a random key.
    fn default() -> Self {
        let mut key = [0; 16];
        getrandom::fill(&mut key).expect("the kernel gives random bytes once it has booted");
        Self { key }
    }
}

/// A channel's name and its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelName {
    /// By [`ChannelHasher`].
    pub hash: u64,
    /// At most [`crate::limits::CHANNEL_BYTES_MAX`] bytes.
    pub name: Arc<str>,
}

impl ChannelName {
    /// The shard that owns the channel.
    pub fn home(&self, shards: usize) -> usize {
        Self::home_of(self.hash, shards)
    }

    /// The shard that owns the channel of this hash.
    pub fn home_of(hash: u64, shards: usize) -> usize {
        // The high bits choose the shard, so that tables keyed by the low bits stay well spread.
        ((u128::from(hash) * shards as u128) >> 64) as usize
    }
}

/// The bucket of a hash in a table of linear hashing, which grows by one bucket at a time: by the hash's low bits, and by
/// one bit less where that bucket is yet to be split off. The high bits have chosen the home shard.
pub fn bucket(hash: u64, buckets: usize) -> usize {
    let mask = buckets.next_power_of_two() - 1;
    let place = hash as usize & mask;
    if place < buckets { place } else { hash as usize & (mask >> 1) }
}

/// A connection as other threads may name it: stale ids are recognised by their generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// Index of its shard.
    pub shard: u16,
    /// Index in the shard's slab.
    pub index: u32,
    /// How many connections had this index before.
    pub generation: u32,
}

/// Who published, as subscribers see it (protocol.md section 3, ClientInfo).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// User id; "" if anonymous.
    pub user: Arc<str>,
    /// Client id.
    pub client: Arc<str>,
    /// `info` of its token: a JSON text.
    pub conn_info: Option<Bytes>,
    /// What belongs to its subscription: a JSON text.
    pub chan_info: Option<Bytes>,
}

impl ClientInfo {
    /// Bytes of what its token says of it.
    pub fn content_bytes(&self) -> usize {
        let optional = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        optional(&self.conn_info) + optional(&self.chan_info)
    }
}

/// A subscriber whose coming and going the channel's home shard knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who it is.
    pub info: ClientInfo,
    /// Whoever asks who is subscribed is told of it.
    pub is_present: bool,
    /// Subscribers that want to know are told when it comes and when it goes.
    pub is_announced: bool,
}

/// What others see of a member from now on.
#[derive(Debug)]
pub struct MemberRenewed {
    /// The channel.
    pub channel: ChannelName,
    /// Whose.
    pub connection: ConnectionId,
    /// What they see.
    pub info: ClientInfo,
}

/// A connection on the clients' port that brings requests to the server API.
#[derive(Debug)]
pub struct ApiConnection {
    /// Its socket, which the shard has let go.
    pub socket: OwnedFd,
    /// What has arrived on it: a head, and maybe what follows.
    pub received: Vec<u8>,
}

/// A position in a channel's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Of the last publication; 0: none yet.
    pub offset: u64,
    /// Identity of the stream.
    pub epoch: Arc<str>,
}

/// One message in a channel, numbered by its home shard.
#[derive(Debug, PartialEq, Eq)]
pub struct Publication {
    /// Its channel.
    pub channel: ChannelName,
    /// The payload: a JSON text without line feeds, or bytes if the namespace's format is binary.
    pub data: Bytes,
    /// Whether `data` is known to be a JSON text.
    pub is_json: bool,
    /// From 1; 0 if it was not stored in history.
    pub offset: u64,
    /// Identity of the stream, if stored.
    pub epoch: Option<Arc<str>>,
    /// The publishing client, if one did.
    pub info: Option<Box<ClientInfo>>,
    /// Strings by name, as given by the producer.
    pub tags: Option<Tags>,
    /// Its producer says that it may be sent as a patch to the publication before.
    pub delta: bool,
}

impl Publication {
    /// Bytes of all that its producer chose: what it adds to a reply, but for names and numbers.
    pub fn content_bytes(&self) -> usize {
        self.data.len()
            + self.tags.as_ref().map_or(0, Tags::bytes)
            + self.info.as_ref().map_or(0, |info| info.content_bytes())
    }
}

/// Who is told what became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyTo {
    /// Nobody.
    Nobody,
    /// A producer: the ingest thread matches replies by connection and sequence.
    Ingest {
        /// The producer's connection, numbered by the ingest thread.
        connection: u64,
        /// The command within that connection.
        sequence: u64,
    },
    /// A client's command.
    Client {
        /// The connection.
        connection: ConnectionId,
        /// `id` of the command.
        command: u32,
    },
    /// A request to the server API: the control thread matches answers by these.
    Control {
        /// The request.
        ticket: u64,
        /// Which of its questions.
        part: u32,
    },
}

/// What a shard answers to whoever asked.
#[derive(Debug)]
pub enum Answer {
    /// A publication's outcome.
    Published(Published),
    /// How many connections of the shard it has concerned.
    Connections(u32),
    /// Subscribers of channels on all shards, in the order asked for.
    Subscribers(Vec<(ChannelName, u32)>),
    /// Channels with subscribers on the shard, in no order, with the number of these. A channel may be named more than
    /// once, with a part of its subscribers each time.
    Channels(Vec<(Arc<str>, u32)>),
    /// A part of who and what is on the shard.
    Census(Census),
    /// A channel's history; none: the position in the question is gone (error 112).
    History(Option<Box<HistoryFound>>),
    /// Who is in a channel.
    Presence(PresenceFound),
    /// Connections of a user on the shard.
    Devices(DevicesFound),
    /// How connections of a user have ended, the newest first.
    Closes(Vec<Close>),
    /// How many connections of the shard have other attributes now, and how many would have had too much of them.
    Changed {
        /// Changed.
        updated: u32,
        /// As they were.
        refused: u32,
    },
    /// It is done.
    Done,
}

/// The channels that have subscribers on a shard and the users that have connections there, or a part of them: hashes, of
/// which one may come more than once.
#[derive(Debug, Default)]
pub struct Census {
    /// Of channels' names.
    pub channels: Vec<u64>,
    /// Of the names of users' personal channels.
    pub users: Vec<u64>,
    /// Where the next part begins; none: this was the last.
    pub next: Option<u32>,
}

/// Something that the application wants done with connections of a user (protocol.md section 19). Each shard looks for
/// them among its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRequest {
    /// The user; "": those that are anonymous.
    pub user: String,
    /// Which of the user's connections.
    pub addressees: Addressees,
    /// What is to be done with them.
    pub action: UserAction,
}

/// Which of a user's connections are meant: those that meet every demand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addressees {
    /// The one with this client id.
    pub client: Option<String>,
    /// The one with this session id.
    pub session: Option<String>,
    /// None of those with these client ids.
    pub spared: Vec<String>,
}

/// What is to be done with a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserAction {
    /// It is subscribed to a channel, unless it is already.
    Subscribe {
        /// The channel, of a namespace that there is.
        channel: String,
        /// What the subscription comes with.
        grant: Box<Grant>,
        /// What came after this position is sent to it.
        recover: Option<Position>,
    },
    /// Its subscription ends.
    Unsubscribe {
        /// The channel; none: all of its subscriptions.
        channel: Option<String>,
    },
    /// It ends.
    Disconnect {
        /// From 3000 to 4999.
        code: u16,
        /// For developers; never empty, and short enough for a close frame.
        reason: String,
    },
    /// It is listed.
    List,
    /// What the back end knows of it changes.
    ChangeAttributes {
        /// How.
        patch: AttributesPatch,
    },
    /// It expires at another time.
    Refresh {
        /// When, in seconds since 1970; none: never.
        expires_at: Option<u64>,
        /// What others see of the user, if that changes: a JSON text.
        info: Option<Bytes>,
    },
}

/// One of a user's connections, as the application's back end sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Client id.
    pub client: String,
    /// How it is connected, as hooks call it.
    pub transport: &'static str,
    /// How its messages are written.
    pub encoding: Encoding,
    /// What its program calls itself; "" if it does not.
    pub name: Box<str>,
    /// The version of that program.
    pub version: Box<str>,
    /// What the back end knows of it: a JSON text.
    pub attributes: Option<Box<[u8]>>,
    /// What it is subscribed to, sorted.
    pub channels: Vec<Box<str>>,
}

/// A user's connections on one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DevicesFound {
    /// At most [`crate::limits::LISTED_CONNECTIONS_MAX`].
    Devices(Vec<Device>),
    /// There are more.
    TooMany,
}

/// A publication on its way to its home shard.
#[derive(Debug)]
pub struct Publish {
    /// Where to.
    pub channel: ChannelName,
    /// The payload.
    pub data: Bytes,
    /// Whether the sender has checked that `data` is a JSON text.
    pub is_json: bool,
    /// Publications with the same key within the window are one.
    pub idempotency_key: Option<Bytes>,
    /// Deliver, but do not store.
    pub skip_history: bool,
    /// It may be sent as a patch to the publication before.
    pub delta: bool,
    /// Which version of the channel's state it is: one that is not newer than the last is dropped.
    pub version: Option<Box<Version>>,
    /// Strings by name.
    pub tags: Option<Tags>,
    /// The publishing client.
    pub info: Option<Box<ClientInfo>>,
    /// Who waits for the result.
    pub reply_to: ReplyTo,
    /// Where it comes from.
    pub origin: Origin,
    /// The producer's span, if the publication's trace goes on from there.
    pub trace_parent: Option<Box<TraceParent>>,
}

impl Publish {
    /// A JSON payload of which nothing else is said, and whose result nobody waits for.
    pub fn json(channel: ChannelName, data: Bytes) -> Self {
        Self {
            channel,
            data,
            is_json: true,
            idempotency_key: None,
            skip_history: false,
            delta: false,
            version: None,
            tags: None,
            info: None,
            reply_to: ReplyTo::Nobody,
            origin: Origin::default(),
            trace_parent: None,
        }
    }
}

/// When a publication came into the server, and whether it is traced. It travels with the publication to every shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Origin {
    /// By [`monotonic_us`](crate::uring::monotonic_us); 0: nobody knows.
    pub taken_in_us: u64,
    /// Its trace.
    pub trace: Option<TraceNumber>,
}

// It is part of each delivery.
const _: () = assert!(size_of::<Origin>() == 16);

impl Origin {
    /// Of what comes in now, without a trace.
    pub fn now() -> Self {
        Self { taken_in_us: monotonic_us(), trace: None }
    }
}

/// A version of what a channel tells, as its producer counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// From 1.
    pub number: u64,
    /// Numbers of one epoch are compared; "": with those of any.
    pub epoch: String,
}

/// What became of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Offset and epoch, if it was stored in history.
    pub position: Option<Position>,
    /// Subscribers known, on all shards; at most [`crate::limits::SUBSCRIBER_COUNT_AGE_MS_MAX`] old.
    pub subscribers: u32,
}

/// A subscription on its way to the channel's home shard.
#[derive(Debug)]
pub struct Subscribe {
    /// The channel.
    pub channel: ChannelName,
    /// Who subscribes.
    pub connection: ConnectionId,
    /// `id` of the command; 0 for a server-side subscription made at connect.
    pub command: u32,
    /// Subscribers on that shard, this one among them.
    pub subscribers: u32,
    /// The client's last position, if it wants what it missed.
    pub recover: Option<Position>,
    /// `flag` bit 1: better no subscription than one with a gap (protocol.md section 7).
    pub reject_unrecovered: bool,
    /// The subscription knows its position.
    pub positioned: bool,
    /// The subscription can recover.
    pub recoverable: bool,
    /// Who subscribes, if the home shard is to know. Its shard says [`ToShard::Leave`] when it goes.
    pub member: Option<Arc<Member>>,
    /// What the application says to the client with the subscription. Given back with the answer.
    pub data: Option<Bytes>,
}

/// The home shard's answer to [`Subscribe`]; publications that follow it in the queue are new to the subscriber.
#[derive(Debug)]
pub struct Subscribed {
    /// The channel.
    pub channel: ChannelName,
    /// Who subscribes.
    pub connection: ConnectionId,
    /// As asked.
    pub command: u32,
    /// As asked.
    pub positioned: bool,
    /// As asked.
    pub recoverable: bool,
    /// As asked.
    pub reject_unrecovered: bool,
    /// The stream's position; none if the channel has no stream.
    pub position: Option<Position>,
    /// What recovery brought, if it was asked for.
    pub recovery: Option<Recovery>,
    /// As asked.
    pub data: Option<Bytes>,
}

/// The outcome of a recovery (protocol.md section 7).
#[derive(Debug)]
pub enum Recovery {
    /// Everything after the given position.
    Recovered {
        /// The position the client named.
        from: u64,
        /// In order; at most [`crate::limits::HISTORY_REPLY_PUBLICATIONS_MAX`].
        publications: Vec<Arc<Publication>>,
    },
    /// Something is missing; the subscription begins at the top.
    Unrecovered,
    /// Something is missing and the client asked to be refused then (error 112).
    Rejected,
}

/// The news that somebody has come to a channel or left it.
#[derive(Debug)]
pub struct Announcement {
    /// The channel.
    pub channel: ChannelName,
    /// Which of the two.
    pub change: MemberChange,
    /// Who.
    pub member: Arc<Member>,
}

/// What a member did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// It has subscribed.
    Join,
    /// It is subscribed no more.
    Leave,
}

/// A question for who is in a channel.
#[derive(Debug)]
pub struct Presence {
    /// The channel.
    pub channel: ChannelName,
    /// Only how many there are.
    pub stats_only: bool,
    /// Who asks.
    pub reply_to: ReplyTo,
}

/// Who is in a channel.
#[derive(Debug)]
pub enum PresenceFound {
    /// At most [`crate::limits::PRESENCE_REPLY_CLIENTS_MAX`].
    Members(Vec<Arc<Member>>),
    /// There are more.
    TooMany,
    /// How many there are.
    Stats(PresenceStats),
}

/// Commands on their way to the session that they are for, which is another connection's than the one that brought them.
#[derive(Debug)]
pub struct Uplink {
    /// Whose session it is.
    pub to: ConnectionId,
    /// Who brought them.
    pub from: ConnectionId,
    /// A message as a client sends it.
    pub commands: Bytes,
}

/// A question for a channel's history.
#[derive(Debug)]
pub struct History {
    /// The channel.
    pub channel: ChannelName,
    /// Publications wanted; 0: only the position; negative: as many as there may be.
    pub limit: i32,
    /// As many as there may be.
    pub limit_max: usize,
    /// Where to start.
    pub since: Option<Position>,
    /// Newest first.
    pub reverse: bool,
    /// Who asks.
    pub reply_to: ReplyTo,
}

/// Publications and the stream's position.
#[derive(Debug)]
pub struct HistoryFound {
    /// In the order asked for.
    pub publications: Vec<Arc<Publication>>,
    /// The stream's position.
    pub position: Position,
}

/// A question for the application's back end, or news for it.
#[derive(Debug)]
pub struct HookQuestion {
    /// What it is about.
    pub hook: Hook,
    /// Who waits for the answer; none: nobody.
    pub ticket: Option<HookTicket>,
    /// A JSON text.
    pub body: Bytes,
    /// What it is shown of the client's request.
    pub headers: Option<Arc<ForwardedHeaders>>,
    /// The client's payloads need not be JSON.
    pub takes_bytes: bool,
}

/// A question that a shard waits with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HookTicket {
    /// Its index.
    pub shard: u16,
    /// The question, as the shard knows it.
    pub number: u32,
}

/// Header fields of a client's request: their places in `hooks.headers`, and their values.
pub type ForwardedHeaders = Vec<(u16, Bytes)>;

/// To a shard.
#[derive(Debug)]
pub enum ToShard {
    /// From ingest, control or a shard to the channel's home. Its loss would lose a publication.
    Publish(Box<Publish>),
    /// From the channel's home to a shard with subscribers. Its loss would make a gap.
    Deliver {
        /// What was published.
        publication: Arc<Publication>,
        /// Where it comes from.
        origin: Origin,
    },
    /// From a shard to the channel's home. Its loss would hang a client's subscription.
    Subscribe(Box<Subscribe>),
    /// The answer. Its loss would hang a client's subscription.
    Subscribed(Box<Subscribed>),
    /// From a shard to the channel's home: its present number of subscribers. Its loss would make counts wrong or waste deliveries.
    Interest {
        /// The channel.
        channel: ChannelName,
        /// The shard that speaks.
        shard: u16,
        /// Its subscribers now.
        subscribers: u32,
    },
    /// From a shard to the channel's home: a subscriber that came as a [`Member`] is subscribed no more. Its loss would
    /// leave a ghost in the channel.
    Leave {
        /// The channel.
        channel: ChannelName,
        /// Who has left.
        connection: ConnectionId,
        /// Nobody is to be told.
        is_quiet: bool,
    },
    /// From a shard to the channel's home: what others see of a [`Member`] has changed. Its loss would show them what was.
    MemberRenewed(Box<MemberRenewed>),
    /// From a shard to the home of a user's personal channel, where users' connections are limited: may the user have one
    /// more? Its loss would hang a client's connect command.
    UserConnects {
        /// Of the personal channel's name.
        hash: u64,
        /// Who connects.
        connection: ConnectionId,
    },
    /// The answer. If it is yes, the connection is counted until [`ToShard::UserLeft`]. Its loss would hang a client's
    /// connect command.
    UserAdmitted {
        /// As asked.
        hash: u64,
        /// Who connects.
        connection: ConnectionId,
        /// Whether it may.
        is_admitted: bool,
    },
    /// From a shard to the home of a user's personal channel: a connection that was counted is gone. Its loss would keep
    /// the user from having as many again.
    UserLeft {
        /// Of the personal channel's name.
        hash: u64,
    },
    /// From the channel's home to a shard with subscribers. Its loss would leave them with a wrong idea of who is there.
    Announce(Arc<Announcement>),
    /// From a shard or control to the channel's home.
    Presence(Box<Presence>),
    /// From a shard or control to the channel's home.
    History(Box<History>),
    /// From control to the channel's home: forget the publications; the position stays.
    RemoveHistory {
        /// The channel.
        channel: ChannelName,
        /// Who asks.
        reply_to: ReplyTo,
    },
    /// From the channel's home to a client's shard, which has asked for it. Its loss would hang a client's command.
    Answer {
        /// Who asked.
        connection: ConnectionId,
        /// `id` of the command.
        command: u32,
        /// What was asked for.
        answer: Answer,
    },
    /// From ingest or control to every shard. Its loss would be told to whoever asks.
    User {
        /// What is to be done, alike for all shards.
        request: Arc<UserRequest>,
        /// Each shard answers with the number of connections that it has found.
        reply_to: ReplyTo,
    },
    /// From a shard to a channel's home: tell whoever asked that all is done, now that what the shard has sent before,
    /// such as a subscription, is.
    Confirm {
        /// Who asked.
        reply_to: ReplyTo,
        /// What is to be told.
        connections: u32,
    },
    /// From a shard that a request to `/emulation` has reached to that of the session. Its loss would lose commands.
    Uplink(Box<Uplink>),
    /// The answer: they are carried out, or wait in the session. Its loss would hang the request.
    UplinkTaken {
        /// Who brought them.
        connection: ConnectionId,
    },
    /// From ingest: a message to every connection (`TG.BROADCAST`).
    Broadcast {
        /// A JSON text.
        data: Bytes,
        /// Each shard answers with its number of connections.
        reply_to: ReplyTo,
    },
    /// From ingest: how many subscribers do these channels have (`PUBSUB NUMSUB`, one message to each home shard concerned)?
    CountSubscribers {
        /// Channels of this home shard.
        channels: Vec<ChannelName>,
        /// Who asks.
        reply_to: ReplyTo,
    },
    /// From ingest or control: which channels have subscribers on this shard (`PUBSUB CHANNELS`, `channels`)?
    ListChannels {
        /// Glob, as Redis means it; none: all.
        pattern: Option<Bytes>,
        /// Who asks.
        reply_to: ReplyTo,
    },
    /// From control: a part of the channels with subscribers and the users on this shard (`info`). What comes and goes
    /// between two parts may be missed. Its loss would be told to whoever asks.
    Census {
        /// Where the part begins: 0, or what the part before says.
        from: u32,
        /// Who asks.
        reply_to: ReplyTo,
    },
    /// From control: tell me your figures.
    Observe {
        /// Given back with the answer.
        ticket: u64,
        /// A console is open: it wants to see single clients.
        is_watched: bool,
    },
    /// From control: how have this user's last connections here ended?
    RecentCloses {
        /// User id.
        user: Arc<str>,
        /// Who asks.
        reply_to: ReplyTo,
    },
    /// From control: the published keys that verify tokens, when they change, and as the answer to
    /// [`ToControl::TokenKeysWanted`]. Its loss would leave clients waiting until their time is over.
    TokenKeys {
        /// All of them.
        keys: Arc<KeySet>,
        /// Whether the publisher was reached: what is not among them is not published.
        is_current: bool,
        /// Whether the shard has asked.
        is_answer: bool,
    },
    /// From control: the end of a question to the application's back end. Its loss would hang a client's command.
    HookAnswered {
        /// The question's.
        number: u32,
        /// None: the back end did not answer.
        answer: Option<Box<HookAnswer>>,
    },
    /// From control: these addresses may not connect from now on, and who is connected from one of them is closed. Its loss
    /// would let them go on.
    Deny {
        /// All of them.
        prefixes: Arc<PrefixSet>,
    },
    /// From control: the host's memory, when it becomes short, when it is there again, and while it ends. Its loss would
    /// let the kernel choose what is killed.
    Memory {
        /// No new clients.
        is_short: bool,
        /// What this shard is to free.
        shed_bytes: u64,
    },
    /// From control: this configuration counts from now on. It is confirmed by [`ToControl::Reconfigured`]. Its loss would
    /// leave the shard under the old one.
    Reconfigure {
        /// All of it.
        config: Arc<Config>,
        /// The reload's number.
        reload: u64,
    },
    /// From control: stop accepting, tell clients to come back, end.
    Shutdown {
        /// Milliseconds over which clients are told.
        spread_ms: u32,
    },
}

/// To the ingest thread.
#[derive(Debug)]
pub enum ToIngest {
    /// From a shard, which the producer's command has asked for it. Its loss would hang the command.
    Answer {
        /// The producer's connection.
        connection: u64,
        /// The command.
        sequence: u64,
        /// What was asked for.
        answer: Answer,
    },
    /// From control: this configuration counts from now on. It is confirmed by [`ToControl::Reconfigured`]. Its loss would
    /// leave the thread under the old one.
    Reconfigure {
        /// All of it.
        config: Arc<Config>,
        /// The reload's number.
        reload: u64,
    },
    /// From control: stop reading, answer what is pending, end.
    Shutdown,
    /// From control: tell me your figures.
    Observe {
        /// Given back with the answer.
        ticket: u64,
    },
}

/// To the control thread. The loss of figures is seen: they are asked for again.
#[derive(Debug)]
pub enum ToControl {
    /// A shard's figures.
    Shard {
        /// The question's.
        ticket: u64,
        /// The figures.
        figures: Box<ShardFigures>,
    },
    /// The ingest thread's figures.
    Ingest {
        /// The question's.
        ticket: u64,
        /// The figures.
        figures: Box<IngestFigures>,
    },
    /// A shard's answer to a question of the server API. If it is lost, the request is answered as late.
    Answer {
        /// The request.
        ticket: u64,
        /// Which of its questions.
        part: u32,
        /// What was asked for.
        answer: Answer,
    },
    /// A client of this shard names a key that the shard does not have. The shard asks again only when it has an answer.
    TokenKeysWanted {
        /// Its index.
        shard: u16,
    },
    /// From a shard or ingest: the configuration that was sent counts. If it is lost, whoever asked for the reload is told
    /// that the thread is late.
    Reconfigured {
        /// As sent.
        reload: u64,
    },
    /// From a shard: a question for the application's back end. Its loss would hang a client's command.
    Hook(Box<HookQuestion>),
    /// From a shard: a client that asks the server API. Its loss would close the connection without an answer.
    ApiConnection(Box<ApiConnection>),
    /// From a shard: what it has noted of a publication that is traced. It is offered, not sent; its loss leaves a gap in
    /// a trace.
    Trace(Box<TraceNote>),
    /// A shard has closed its last connection after [`ToShard::Shutdown`].
    ShardStopped {
        /// Its index.
        shard: u16,
    },
    /// The ingest thread has ended.
    IngestStopped,
}

/// What a shard counts. Totals since its start unless a field says otherwise.
#[derive(Debug, Clone, Default)]
pub struct ShardFigures {
    /// Index of the shard.
    pub shard: u16,
    /// The core it is pinned to.
    pub core: u32,
    /// Sockets that are open now, in any state.
    pub sockets: u64,
    /// Clients that are connected now.
    pub connections: u64,
    /// Users that have connections on this shard now.
    pub users_connected: u64,
    /// Channels that clients of this shard are in, or are about to be in, now.
    pub channels: u64,
    /// Subscriptions now.
    pub subscriptions: u64,
    /// Bytes in outboxes now.
    pub outbox_bytes: u64,
    /// Connections that have an outbox now.
    pub outboxes: u64,
    /// Bytes of user memory that this shard's tables hold for connections now: slots, topics and lists of subscribers.
    pub connection_bytes: u64,
    /// TLS handshakes that are under way now.
    pub tls_handshakes_under_way: u64,
    /// Connections whose TLS handshake waits for others now.
    pub tls_handshakes_waiting: u64,
    /// TLS handshakes that were begun.
    pub tls_handshakes_begun: u64,
    /// Those that have ended well.
    pub tls_handshakes: u64,
    /// Connections that speak TLS, by who seals and opens their records.
    pub tls_connections: Vec<(&'static str, u64)>,
    /// Connections whose keys the kernel has refused.
    pub tls_kernel_refusals: u64,
    /// Bytes of history that this shard keeps as the home of channels.
    pub history_bytes: u64,
    /// Publications forgotten before their time for want of room.
    pub history_evicted: u64,
    /// Payload bytes of history that were compressed.
    pub history_packed_payload_bytes: u64,
    /// What they became.
    pub history_packed_bytes: u64,
    /// Blocks of history that were decompressed.
    pub history_unpacked_blocks: u64,
    /// Subscribers that this shard knows by name as the home of channels.
    pub members: u64,
    /// Users whose connections this shard counts as the home of their personal channels.
    pub users: u64,
    /// Accepted sockets.
    pub accepted: u64,
    /// Publications numbered here.
    pub publications: u64,
    /// Publications delivered here, before fan-out.
    pub deliveries: u64,
    /// Messages (frames) to clients.
    pub messages_sent: u64,
    /// Messages from clients.
    pub messages_received: u64,
    /// Bytes to clients.
    pub bytes_sent: u64,
    /// Bytes from clients.
    pub bytes_received: u64,
    /// Pings sent.
    pub pings: u64,
    /// Calls of io_uring_enter.
    pub enters: u64,
    /// Sends submitted.
    pub sends: u64,
    /// Receives submitted.
    pub receives: u64,
    /// Other system calls, by name.
    pub other_calls: Vec<(&'static str, u64)>,
    /// Turns of the loop.
    pub turns: u64,
    /// Sockets by the state that they are in now.
    pub states: Vec<(&'static str, u64)>,
    /// Microseconds from a socket's accept to its connect reply.
    pub accept_to_connected: Histogram,
    /// Microseconds from a publication's arrival in the server to the end of the turn that sent it.
    pub ingest_to_socket: Histogram,
    /// Microseconds of the loop's turns, without their sleep.
    pub turn_time: Histogram,
    /// Bytes of a slow client's outbox, each time when more was added.
    pub outbox_depth: Histogram,
    /// Spans of traces that found no room in the queue to the control thread.
    pub trace_spans_dropped: u64,
    /// Publications dropped for slow consumers, by policy name.
    pub dropped: Vec<(&'static str, u64)>,
    /// Ended or refused connections, commands and requests, by reason.
    pub reasons: Vec<(&'static str, u64)>,
    /// Messages that found a queue full and were held back.
    pub mesh_held: u64,
    /// Messages that are held back now.
    pub mesh_holding: u64,
    /// Clients with the largest outboxes when a console looked last.
    pub slow_consumers: Vec<SlowConsumer>,
    /// Clients that sent most before a console looked last.
    pub top_talkers: Vec<Talker>,
    /// The channels with the most deliveries of late: name, subscribers on this shard, deliveries since start.
    pub top_channels: Vec<ChannelFigures>,
    /// Connections whose inflaters hold the window of a channel.
    pub cohort_members: u64,
    /// Subscriptions that wait for a keyframe to become members.
    pub cohort_waiting: u64,
    /// Memory of the windows.
    pub cohort_bytes: u64,
    /// Keyframes by what caused them.
    pub keyframes: Vec<(&'static str, u64)>,
    /// What compression has brought, by namespace.
    pub compression: Vec<(String, CompressionFigures)>,
}

/// What the compression of a namespace's publications has brought.
#[derive(Debug, Clone, Copy, Default)]
pub struct CompressionFigures {
    /// Messages that were compressed, once for all that are sent them.
    pub messages: u64,
    /// Messages that would have been no shorter.
    pub messages_kept: u64,
    /// Bytes of the compressed ones before.
    pub bytes_before: u64,
    /// And after.
    pub bytes_after: u64,
    /// Bytes for all subscribers that have agreed on compression, were nothing compressed.
    pub delivered_bytes_before: u64,
    /// What they were given.
    pub delivered_bytes_after: u64,
    /// Nanoseconds that it took.
    pub nanoseconds: u64,
}

impl CompressionFigures {
    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.messages_kept += other.messages_kept;
        self.bytes_before += other.bytes_before;
        self.bytes_after += other.bytes_after;
        self.delivered_bytes_before += other.delivered_bytes_before;
        self.delivered_bytes_after += other.delivered_bytes_after;
        self.nanoseconds += other.nanoseconds;
    }
}

/// A client that reads more slowly than it is sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowConsumer {
    /// Client id.
    pub client: String,
    /// User id; "": anonymous.
    pub user: String,
    /// What waits for it.
    pub bytes: u64,
}

/// A client that sends much.
#[derive(Debug, Clone, PartialEq)]
pub struct Talker {
    /// Client id.
    pub client: String,
    /// User id; "": anonymous.
    pub user: String,
    /// What it has sent for certain.
    pub bytes_per_second: f64,
}

/// The end of a client's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// Client id.
    pub client: String,
    /// Of the close frame; 3000: the client has ended it.
    pub code: u16,
    /// As it is counted; "": it is not.
    pub reason: &'static str,
    /// When.
    pub at_unix_seconds: u64,
}

/// A channel as one shard sees it.
#[derive(Debug, Clone)]
pub struct ChannelFigures {
    /// Its name.
    pub name: Arc<str>,
    /// Subscribers on this shard.
    pub subscribers: u32,
    /// Publications delivered here since the channel's first subscriber.
    pub deliveries: u64,
}

/// What the ingest thread counts. Totals since its start unless a field says otherwise.
#[derive(Debug, Clone, Default)]
pub struct IngestFigures {
    /// Producers connected now.
    pub connections: u64,
    /// Accepted connections.
    pub accepted: u64,
    /// Commands by name, lower case.
    pub commands: Vec<(&'static str, u64)>,
    /// Refused commands and ended connections, by reason.
    pub reasons: Vec<(&'static str, u64)>,
    /// Bytes from producers.
    pub bytes_received: u64,
    /// Times that a full mesh queue stopped the reading.
    pub backpressure: u64,
    /// Payloads that producers compressed.
    pub compressed_payloads: u64,
    /// Their bytes as they came.
    pub compressed_bytes: u64,
    /// Their bytes, decompressed.
    pub decompressed_bytes: u64,
}
