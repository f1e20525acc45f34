//! A home shard's state: the channels that it owns.
//!
//! Owns, for the channels whose hash falls to this shard: which shards have subscribers and how
//! many, the numbering and the history of publications, recovery, who is present where a namespace
//! wants to know, idempotency keys, and how many connections users have where that is limited. It leaves
//! to others: who may do what (the session and the ingest thread have asked the namespace), the
//! subscribers themselves (`fanout`), and the sending of what it answers (`shard`).
//!
//! Pure: time is an argument (`now_ms`, milliseconds of a clock that never goes back), randomness
//! a seed, and nothing is ever waited for, so a simulation replays.
//!
//! Invariants:
//! - A channel whose namespace keeps no history and knows no members has no state but its entry in the interest table,
//!   and none for subscribers on the home shard itself: its topics say who they are, and whoever asks for counts or
//!   publishes adds them ([`Channels::counts_own`]). They would not be delivered to otherwise.
//! - Offsets of one epoch rise by one with each stored publication and are never given twice;
//!   clients trust them without looking.
//! - A reply to a subscription and the publications that this state returns after it are in one
//!   order; if the caller sends them in that order, nothing is missed or doubled between them.
//! - Whoever is announced is announced to all in one order, after the answer to its subscription.
//! - Everything is bounded: history by size, age and the bytes of the whole shard, replies by count,
//!   keys by age and bytes, streams by [`crate::limits::STREAM_POSITION_MS`], members by connections,
//!   and [`Channels::expire`] by its budget.

mod block;
mod idempotency;
mod interest;
mod member_table;
mod random;
mod stream;
mod stream_table;
mod user_table;

use std::sync::Arc;

pub use self::{block::PackerFigures, random::Random};
use self::{
    idempotency::IdempotencyKeys, interest::InterestTable, member_table::MemberTable, stream::Stream,
    stream_table::StreamTable, user_table::UserTable,
};
use crate::{
    config::{Config, Namespace, Namespaces},
    limits::PRESENCE_REPLY_CLIENTS_MAX,
    mesh::{
        Announcement, ChannelName, ConnectionId, History, HistoryFound, Member, MemberChange, MemberRenewed, Position,
        Presence, PresenceFound, Publication, Publish, Published, Recovery, Subscribe, Subscribed,
    },
};

/// The channels of one home shard.
pub struct Channels {
    shard: u16,
    namespaces: Namespaces,
    interests: InterestTable,
    streams: StreamTable,
    members: MemberTable,
    users: UserTable,
    keys: IdempotencyKeys,
    /// The latest time that a caller named.
    now_ms: u64,
}

/// What became of a publication, and where it goes.
#[derive(Debug)]
pub struct PublishOutcome {
    /// To be delivered; none: it is a duplicate, and the answer is the one that the first got, or its version is old, and
    /// the answer is the stream's position.
    pub publication: Option<Arc<Publication>>,
    /// Shards to deliver to, by bit; but see [`Channels::counts_own`].
    pub shards: u64,
    /// The producer's answer.
    pub published: Published,
}

/// What became of a subscription.
#[derive(Debug)]
pub struct SubscribeOutcome {
    /// The subscriber's answer.
    pub subscribed: Subscribed,
    /// Somebody has come: to be told behind the answer.
    pub told: Option<Telling>,
}

/// News for the subscribers of a channel.
#[derive(Debug)]
pub struct Telling {
    /// The news.
    pub announcement: Arc<Announcement>,
    /// Shards to tell, by bit; but see [`Channels::counts_own`].
    pub shards: u64,
}

impl Channels {
    /// No channels yet, on this shard. The seed chooses the epochs of streams; it must differ with every start of the server.
    pub fn new(config: Arc<Config>, shard: u16, seed: u64) -> Self {
        let idempotency_ms = u64::from(config.ingest.idempotency_ms);
        Self {
            users: UserTable::new(config.client.user_connections_max),
            ..Self::with_rules(config.namespaces.clone(), shard, config.shards.history_bytes_max, idempotency_ms, seed)
        }
    }

    fn with_rules(namespaces: Namespaces, shard: u16, history_bytes_max: u64, idempotency_ms: u64, seed: u64) -> Self {
        Self {
            shard,
            namespaces: namespaces.clone(),
            interests: InterestTable::new(),
            streams: StreamTable::new(namespaces, history_bytes_max, Random::new(seed)),
            members: MemberTable::default(),
            users: UserTable::new(0),
            keys: IdempotencyKeys::new(idempotency_ms),
            now_ms: 0,
        }
    }

    /// From now on this configuration counts. What is kept in history follows it step by step, in [`Channels::expire`],
    /// and before that wherever somebody asks for it. Where [`Channels::counts_own_in`] says something else now, the
    /// caller is to call [`Channels::recount_own`].
    pub fn reconfigure(&mut self, config: &Config) {
        self.namespaces = config.namespaces.clone();
        self.streams.reconfigure(&config.namespaces, config.shards.history_bytes_max);
        self.users.set_connections_max(config.client.user_connections_max);
        self.keys.set_window_ms(config.ingest.idempotency_ms.into());
    }

    /// Subscribers on the home shard itself, of the channel of this hash, that are to be counted here from now on.
    pub fn recount_own(&mut self, hash: u64, subscribers: u32) {
        self.interests.set(hash, self.shard, subscribers);
    }

    /// Numbers, stores in history, and tells where to deliver; a publication whose key is known, or whose version is not
    /// newer than the last, is neither stored nor delivered.
    pub fn publish(&mut self, mut publish: Publish, now_ms: u64) -> PublishOutcome {
        self.now_ms = now_ms;
        let interest = self.interests.get(publish.channel.hash);
        let subscribers = interest.subscribers;
        let key = publish.idempotency_key.take();
        if let Some(key) = &key
            && let Some(position) = self.keys.find(&publish.channel, key, now_ms)
        {
            let published = Published { position: position.cloned(), subscribers };
            return PublishOutcome { publication: None, shards: 0, published };
        }
        let has_subscribers = subscribers > 0;
        let stream =
            if publish.skip_history { None } else { self.streams.open(&publish.channel, has_subscribers, now_ms) };
        if let (Some(stream), Some(version)) = (stream.map(|index| self.streams.stream(index)), &publish.version)
            && stream.has_seen(version)
        {
            let position = Some(stream.position());
            if let Some(key) = key {
                self.keys.remember(&publish.channel, &key, position.clone(), now_ms);
            }
            self.make_room();
            return PublishOutcome { publication: None, shards: 0, published: Published { position, subscribers } };
        }
        let publication = match stream {
            Some(stream) => self.streams.append(stream, publish, has_subscribers, now_ms),
            None => Arc::new(unstored(publish)),
        };
        let position =
            publication.epoch.as_ref().map(|epoch| Position { offset: publication.offset, epoch: Arc::clone(epoch) });
        if let Some(key) = key {
            self.keys.remember(&publication.channel, &key, position.clone(), now_ms);
        }
        self.make_room();
        PublishOutcome {
            publication: Some(publication),
            shards: interest.shards,
            published: Published { position, subscribers },
        }
    }

    /// Takes the subscriber's shard in, and tells the stream's position and what the subscriber missed
    /// (protocol.md section 7). If recovery is [`Recovery::Rejected`], nobody has come: the shard takes its
    /// subscriber back and says its count again.
    pub fn subscribe(&mut self, subscribe: &Subscribe, now_ms: u64) -> SubscribeOutcome {
        self.now_ms = now_ms;
        let Subscribe { channel, connection, command, subscribers, positioned, recoverable, .. } = subscribe;
        self.interest(channel, connection.shard, *subscribers);
        let has_subscribers = self.subscribers(channel) > 0;
        let asks = *positioned || *recoverable || subscribe.recover.is_some();
        let stream = if asks { self.streams.open(channel, has_subscribers, now_ms) } else { None };
        let recovery = subscribe.recover.as_ref().map(|from| {
            let publications = stream.and_then(|index| self.streams.recover(index, from));
            match publications {
                Some(publications) => Recovery::Recovered { from: from.offset, publications },
                None if subscribe.reject_unrecovered => Recovery::Rejected,
                None => Recovery::Unrecovered,
            }
        });
        let position = stream.map(|index| self.streams.stream(index).position());
        let member = subscribe.member.as_ref().filter(|_| !matches!(recovery, Some(Recovery::Rejected)));
        let told = member.and_then(|member| self.join(channel, *connection, member));
        self.make_room();
        let subscribed = Subscribed {
            channel: channel.clone(),
            connection: *connection,
            command: *command,
            positioned: *positioned,
            recoverable: *recoverable,
            reject_unrecovered: subscribe.reject_unrecovered,
            position,
            recovery,
            data: subscribe.data.clone(),
        };
        SubscribeOutcome { subscribed, told }
    }

    fn join(&mut self, channel: &ChannelName, connection: ConnectionId, member: &Arc<Member>) -> Option<Telling> {
        self.members.insert(channel, connection, Arc::clone(member));
        self.telling(channel, MemberChange::Join, member)
    }

    /// A member is subscribed no more: who is to be told.
    pub fn leave(&mut self, channel: &ChannelName, connection: ConnectionId) -> Option<Telling> {
        let member = self.members.remove(channel, connection)?;
        self.telling(channel, MemberChange::Leave, &member)
    }

    fn telling(&self, channel: &ChannelName, change: MemberChange, member: &Arc<Member>) -> Option<Telling> {
        let shards = self.interests.get(channel.hash).shards;
        member.is_announced.then(|| Telling {
            announcement: Arc::new(Announcement { channel: channel.clone(), change, member: Arc::clone(member) }),
            shards,
        })
    }

    /// What others see of a member has changed; whoever hears of members is not told.
    pub fn renew_member(&mut self, renewed: MemberRenewed) {
        self.members.renew(&renewed.channel, renewed.connection, renewed.info);
    }

    /// A user of this hash connects: whether it may have one connection more; then it is counted.
    pub fn admit_user(&mut self, hash: u64) -> bool {
        self.users.admit(hash)
    }

    /// A connection that was counted is gone.
    pub fn user_left(&mut self, hash: u64) {
        self.users.leave(hash);
    }

    /// Users whose connections are counted.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Who is in a channel (protocol.md section 9).
    pub fn presence(&self, presence: &Presence) -> PresenceFound {
        let stats = self.members.stats(&presence.channel);
        if presence.stats_only {
            PresenceFound::Stats(stats)
        } else if stats.clients as usize > PRESENCE_REPLY_CLIENTS_MAX {
            PresenceFound::TooMany
        } else {
            PresenceFound::Members(self.members.present(&presence.channel).map(Arc::clone).collect())
        }
    }

    /// Whether subscribers on the home shard itself are counted here as those on others are: where somebody has to
    /// know them at all times.
    pub fn counts_own(&self, channel: &ChannelName) -> bool {
        Self::counts_own_in(self.namespaces.of_channel(&channel.name).map(|namespace| &**namespace))
    }

    /// The same for all channels of a namespace, or of none that there is.
    pub fn counts_own_in(namespace: Option<&Namespace>) -> bool {
        namespace.is_some_and(|namespace| Stream::is_kept(namespace) || namespace.knows_members())
    }

    /// `shard` has `subscribers` subscribers of the channel now.
    pub fn interest(&mut self, channel: &ChannelName, shard: u16, subscribers: u32) {
        if shard == self.shard && !self.counts_own(channel) {
            return;
        }
        self.interests.set(channel.hash, shard, subscribers);
        if subscribers == 0 && self.subscribers(channel) == 0 {
            self.streams.abandon(channel, self.now_ms);
        }
    }

    /// Subscribers of the channel, on all shards; but see [`Channels::counts_own`].
    pub fn subscribers(&self, channel: &ChannelName) -> u32 {
        self.interests.get(channel.hash).subscribers
    }

    /// Publications and the position of a channel's stream (protocol.md section 9). Nothing is found in a channel without
    /// history, nor where the position in the question is gone.
    pub fn history(&mut self, history: &History, now_ms: u64) -> Option<HistoryFound> {
        self.now_ms = now_ms;
        let has_subscribers = self.subscribers(&history.channel) > 0;
        let found = self.streams.open(&history.channel, has_subscribers, now_ms).and_then(|index| {
            let publications = self.streams.history(index, history)?;
            Some(HistoryFound { publications, position: self.streams.stream(index).position() })
        });
        self.make_room();
        found
    }

    /// Forgets the publications of a channel; its position stays.
    pub fn remove_history(&mut self, channel: &ChannelName) {
        if let Some(index) = self.streams.find(channel) {
            let has_subscribers = self.subscribers(channel) > 0;
            self.streams.clear(index, has_subscribers);
        }
    }

    /// Frees what has expired: publications, keys, and streams without any use; at most `budget` of
    /// them. When to call again: at once if that is not after `now_ms`, never if it is none.
    pub fn expire(&mut self, now_ms: u64, budget: usize) -> Option<u64> {
        self.now_ms = now_ms;
        let mut work = self.keys.expire(now_ms, budget);
        while work < budget
            && let Some(channel) = self.streams.next_due(now_ms)
        {
            let has_subscribers = self.interests.get(channel.hash).subscribers > 0;
            work += self.streams.expire_next(has_subscribers, now_ms, budget - work);
        }
        while work < budget
            && let Some(channel) = self.streams.next_to_follow()
        {
            let has_subscribers = self.interests.get(channel.hash).subscribers > 0;
            self.streams.follow_next(has_subscribers);
            work += 1;
        }
        self.streams.shrink();
        self.make_room();
        self.next_due_ms()
    }

    /// Streams hold no more than they may together. What goes was paid for by what came.
    fn make_room(&mut self) {
        while self.streams.is_full()
            && let Some(channel) = self.streams.next_to_evict()
        {
            let has_subscribers = self.interests.get(channel.hash).subscribers > 0;
            self.streams.evict_next(has_subscribers);
        }
    }

    /// When [`Channels::expire`] has something to do; it may be early.
    pub fn next_due_ms(&self) -> Option<u64> {
        let following = self.streams.is_following().then_some(self.now_ms);
        [self.keys.next_due_ms(), self.streams.next_due_ms(), following].into_iter().flatten().min()
    }

    /// Channels with subscribers on any shard.
    pub fn channels(&self) -> usize {
        self.interests.channels()
    }

    /// Channels with a stream.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Bytes of all streams, and publications that were forgotten before their time for want of room.
    pub fn history_figures(&self) -> (u64, u64) {
        (self.streams.bytes() as u64, self.streams.evicted())
    }

    /// What was compressed of the history of channels, and decompressed.
    pub fn packer_figures(&self) -> PackerFigures {
        self.streams.packer_figures()
    }

    /// Subscribers that are known by name.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// Idempotency keys that were forgotten before their time for want of memory.
    pub fn keys_forgotten_early(&self) -> u64 {
        self.keys.forgotten_early()
    }

    /// Bytes held for all of this; payloads among them.
    pub fn bytes(&self) -> u64 {
        (self.interests.bytes() + self.streams.bytes() + self.members.bytes() + self.users.bytes() + self.keys.bytes())
            as u64
    }
}

fn unstored(publish: Publish) -> Publication {
    Publication {
        channel: publish.channel,
        data: publish.data,
        is_json: publish.is_json,
        offset: 0,
        epoch: None,
        info: publish.info,
        tags: publish.tags,
        delta: publish.delta,
    }
}

/// The key of a table of channels. `hashbrown` tells entries apart by the highest bits, which on one
/// home shard are all alike ([`ChannelName::home`] goes by them); mix lower ones in.
fn table_hash(hash: u64) -> u64 {
    hash ^ (hash << 32)
}

#[cfg(test)]
mod tests;
