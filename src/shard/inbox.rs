//! Messages of other threads: each is passed to the module that it is about.

use std::sync::Arc;

use super::{state::State, view};
use crate::{
    channel::{PublishOutcome, SubscribeOutcome},
    config::SlowConsumerPolicy,
    fanout::{Batch, Form, glob_matches},
    limits::{MESH_TURN_MESSAGES_MAX, TURN_BYTES_MAX},
    mesh::{
        Answer, ChannelName, ConnectionId, HistoryFound, Origin, Publication, Publish, ReplyTo, ToControl, ToIngest,
        ToShard, Uplink,
    },
    protocol::{Disconnect, Encoding, ErrorCode, Push, Reply},
    session::{self, Reason},
};

impl State {
    /// Takes a bounded number of messages from each queue, as far as there is room for what they bring. While something
    /// is held back, producers' messages wait.
    ///
    /// Where one queue has filled the turn, the next turn begins with the one behind it, so that none starves.
    pub fn take_messages(&mut self) {
        while !self.mesh.is_holding()
            && let Some(publish) = self.deferred.pop_front()
        {
            self.publish(publish);
        }
        while !self.mesh.is_holding()
            && let Some(uplink) = self.deferred_uplinks.pop_front()
        {
            self.uplink(&uplink);
        }
        if self.is_turn_full() {
            return;
        }
        let queues = self.mesh.inbound.len();
        let first = std::mem::take(&mut self.queues_taken);
        for position in (first..queues).chain(0..first) {
            self.take_messages_of(self.mesh.queue_in_turn(position));
            if self.is_turn_full() {
                self.queues_taken = (position + 1) % queues;
                return;
            }
        }
    }

    fn take_messages_of(&mut self, queue: usize) {
        for _ in 0..MESH_TURN_MESSAGES_MAX {
            if self.is_turn_full() || queue == self.mesh.ingest_queue() && self.mesh.is_holding() {
                return;
            }
            let Ok(message) = self.mesh.inbound[queue].try_recv() else { return };
            self.handle(message);
            if queue == usize::from(self.mesh.shard) {
                self.recounts = self.recounts.saturating_sub(1);
            }
        }
    }

    fn is_turn_full(&self) -> bool {
        self.turn.bytes() >= TURN_BYTES_MAX
    }

    fn handle(&mut self, message: ToShard) {
        match message {
            ToShard::Publish(publish) if self.mesh.is_holding() => self.deferred.push_back(*publish),
            ToShard::Publish(publish) => self.publish(*publish),
            ToShard::Deliver { publication, origin } => self.deliver(&publication, origin),
            ToShard::Subscribe(mut subscribe) => {
                let shard = subscribe.connection.shard;
                subscribe.subscribers = self.recounted(&subscribe.channel, shard, subscribe.subscribers);
                let SubscribeOutcome { subscribed, told } = self.channels.subscribe(&subscribe, self.now_ms);
                self.mesh.to_shards[usize::from(shard)].send(ToShard::Subscribed(Box::new(subscribed)));
                self.tell_members(told);
            }
            ToShard::Subscribed(subscribed) => {
                self.requests -= 1;
                self.subscribed(*subscribed);
            }
            ToShard::Interest { channel, shard, subscribers } => {
                let subscribers = self.recounted(&channel, shard, subscribers);
                self.channels.interest(&channel, shard, subscribers);
            }
            ToShard::Leave { channel, connection, is_quiet } => self.member_left(&channel, connection, is_quiet),
            ToShard::MemberRenewed(renewed) => self.channels.renew_member(*renewed),
            ToShard::UserConnects { hash, connection } => self.user_connects(hash, connection),
            ToShard::UserAdmitted { hash, connection, is_admitted } => {
                self.requests -= 1;
                self.user_admitted(hash, connection, is_admitted);
            }
            ToShard::UserLeft { hash } => self.channels.user_left(hash),
            ToShard::Announce(announcement) => self.announce(&announcement),
            ToShard::Presence(presence) => {
                let found = self.channels.presence(&presence);
                self.answer(presence.reply_to, Answer::Presence(found));
            }
            ToShard::History(history) => {
                let found = self.channels.history(&history, self.now_ms);
                self.answer(history.reply_to, Answer::History(found.map(Box::new)));
            }
            ToShard::RemoveHistory { channel, reply_to } => {
                self.channels.remove_history(&channel);
                self.answer(reply_to, Answer::Done);
            }
            ToShard::Answer { connection, command, answer } => {
                self.requests -= 1;
                self.answered(connection, command, &answer);
            }
            ToShard::User { request, reply_to } => self.act_on_user(&request, reply_to),
            ToShard::Confirm { reply_to, connections } => self.answer(reply_to, Answer::Connections(connections)),
            ToShard::Uplink(uplink) if self.mesh.is_holding() => self.deferred_uplinks.push_back(*uplink),
            ToShard::Uplink(uplink) => self.uplink(&uplink),
            ToShard::UplinkTaken { connection } => self.uplink_taken(connection),
            ToShard::Broadcast { data, reply_to } => self.broadcast(&data, reply_to),
            ToShard::CountSubscribers { channels, reply_to } => self.count_subscribers(channels, reply_to),
            ToShard::ListChannels { pattern, reply_to } => self.list_channels(pattern.as_deref(), reply_to),
            ToShard::Census { from, reply_to } => self.answer(reply_to, Answer::Census(self.census(from))),
            // Figures are made at the turn's end, when what the turn has done is counted.
            ToShard::Observe { ticket, is_watched } => self.observed_by = Some((ticket, is_watched)),
            ToShard::RecentCloses { user, reply_to } => self.tell_closes(&user, reply_to),
            ToShard::TokenKeys { keys, is_current, is_answer } => self.keys_arrived(keys, is_current, is_answer),
            ToShard::HookAnswered { number, answer } => self.hook_answered(number, answer),
            ToShard::Deny { prefixes } => self.deny(prefixes),
            ToShard::Memory { is_short, shed_bytes } => self.memory_measured(is_short, shed_bytes),
            ToShard::Reconfigure { config, reload } => self.reconfigure(config, reload),
            ToShard::Shutdown { spread_ms } => self.begin_drain(spread_ms),
        }
    }

    /// As the home of a user's personal channel: whether the user may have one more connection.
    fn user_connects(&mut self, hash: u64, connection: ConnectionId) {
        let is_admitted = self.channels.admit_user(hash);
        let shard = usize::from(connection.shard);
        self.mesh.to_shards[shard].send(ToShard::UserAdmitted { hash, connection, is_admitted });
    }

    /// Tells whoever has asked.
    pub fn answer(&mut self, reply_to: ReplyTo, answer: Answer) {
        match reply_to {
            ReplyTo::Nobody => {}
            ReplyTo::Ingest { connection, sequence } => {
                self.mesh.to_ingest.send(ToIngest::Answer { connection, sequence, answer });
            }
            ReplyTo::Client { connection, command } => {
                let shard = usize::from(connection.shard);
                self.mesh.to_shards[shard].send(ToShard::Answer { connection, command, answer });
            }
            ReplyTo::Control { ticket, part } => self.mesh.to_control.send(ToControl::Answer { ticket, part, answer }),
        }
    }

    /// A home shard has answered a client's command.
    pub fn answered(&mut self, connection: ConnectionId, command: u32, answer: &Answer) {
        let Some(index) = self.live_index(connection) else { return };
        match answer {
            Answer::Published(_) => {
                // A client sees its own publication before it is told that it was published.
                self.hand_out_to(index);
                self.reply(index, command, &Reply::Publish);
            }
            Answer::History(found) => self.history_found(index, command, found.as_deref()),
            Answer::Presence(found) => self.presence_found(index, command, found),
            Answer::Connections(_)
            | Answer::Subscribers(_)
            | Answer::Channels(_)
            | Answer::Census(_)
            | Answer::Devices(_)
            | Answer::Closes(_)
            | Answer::Changed { .. }
            | Answer::Done => {
                unreachable!("no command of a client asks for {answer:?}")
            }
        }
    }

    /// As their home: how many subscribers channels have.
    fn count_subscribers(&mut self, channels: Vec<ChannelName>, reply_to: ReplyTo) {
        let counts = channels.into_iter().map(|channel| {
            let subscribers = self.channels.subscribers(&channel) + self.own_subscribers(&channel);
            (channel, subscribers)
        });
        let counts = counts.collect();
        self.answer(reply_to, Answer::Subscribers(counts));
    }

    /// The channels that have subscribers here.
    fn list_channels(&mut self, pattern: Option<&[u8]>, reply_to: ReplyTo) {
        let channels = self.topics.subscribed_channels();
        let matching =
            channels.filter(|(name, _)| pattern.is_none_or(|pattern| glob_matches(pattern, name.as_bytes())));
        let matching = matching.map(|(name, subscribers)| (name.into(), subscribers)).collect();
        self.answer(reply_to, Answer::Channels(matching));
    }

    /// Commands that another connection, here or on another shard, has brought for one of this shard's.
    fn uplink(&mut self, uplink: &Uplink) {
        if let Some(index) = self.live_index(uplink.to) {
            self.converse(index, |session, transient, rules, peer| {
                session::uplink(session, transient, &uplink.commands, rules, peer)
            });
        }
        let shard = usize::from(uplink.from.shard);
        self.mesh.to_shards[shard].send(ToShard::UplinkTaken { connection: uplink.from });
    }

    /// What a connection brought has reached the session that it was for.
    fn uplink_taken(&mut self, connection: ConnectionId) {
        self.requests -= 1;
        if let Some(index) = self.live_index(connection) {
            self.converse(index, |session, transient, rules, peer| {
                session::uplink_taken(session, transient, rules, peer)
            });
        }
    }

    /// As the channel's home: numbers a publication and sends it once to each shard that has subscribers.
    fn publish(&mut self, publish: Publish) {
        let (reply_to, origin) = (publish.reply_to, publish.origin);
        if let Some(trace) = origin.trace {
            return self.publish_traced(trace, publish);
        }
        let outcome = self.number(publish);
        self.pass_on(&outcome, origin);
        self.answer(reply_to, Answer::Published(outcome.published));
    }

    /// Numbers a publication, with the shards that it goes to.
    #[inline(always)]
    pub fn number(&mut self, publish: Publish) -> PublishOutcome {
        let own_subscribers = self.own_subscribers(&publish.channel);
        let mut outcome = self.channels.publish(publish, self.now_ms);
        if own_subscribers > 0 {
            outcome.shards |= 1 << self.mesh.shard;
            outcome.published.subscribers += own_subscribers;
        }
        self.counters.publications += 1;
        outcome
    }

    /// Sends a publication to its shards.
    #[inline(always)]
    pub fn pass_on(&mut self, outcome: &PublishOutcome, origin: Origin) {
        let Some(publication) = &outcome.publication else { return };
        let mut shards = outcome.shards;
        while shards != 0 {
            let shard = shards.trailing_zeros() as usize;
            shards &= shards - 1;
            let publication = Arc::clone(publication);
            self.mesh.to_shards[shard].send(ToShard::Deliver { publication, origin });
        }
    }

    /// As the channel's home: subscribers on this shard that are not counted among those on all shards.
    pub fn own_subscribers(&self, channel: &ChannelName) -> u32 {
        if self.channels.counts_own(channel) { 0 } else { self.topics.interest(channel.hash, &channel.name) }
    }

    /// Passes a publication to each of its channel's topics.
    fn deliver(&mut self, publication: &Publication, origin: Origin) {
        let channel = &publication.channel;
        let first = self.topics.first_of_channel(channel.hash, &channel.name);
        if first.is_some() && origin.taken_in_us != 0 {
            self.delivering.push(origin.taken_in_us);
        }
        if let Some(trace) = origin.trace {
            self.note_received(trace, publication, first);
        }
        if let Some(first) = first {
            self.deliver_to_topics(first, publication);
        }
        if origin.trace.is_some() {
            self.note_encoded();
        }
    }

    /// Passes a publication to its channel's topics, from the first on.
    #[inline]
    fn deliver_to_topics(&mut self, first: u32, publication: &Publication) {
        self.counters.deliveries += 1;
        self.topics.count_delivery(first);
        let mut next = Some(first);
        while let Some(topic) = next {
            // Asked first: a topic that loses its subscribers may end, but no other of its channel with it.
            next = self.topics.next_of_channel(topic);
            self.deliver_to(topic, publication);
        }
        self.patches.forget();
    }

    /// Encodes a publication once, next to those of the topic that the turn has brought already.
    fn deliver_to(&mut self, topic: u32, publication: &Publication) {
        if self.topics.subscribers(topic).is_empty() || !self.topics.passes(topic, publication.tags.as_ref()) {
            return;
        }
        let form = self.topics.form(topic);
        if !publication.is_json && form.encoding() == Encoding::Json {
            self.hand_out(topic);
            for index in self.topics.subscribers(topic).to_vec() {
                self.disconnect_illegible(index);
            }
            return;
        }
        if self.topics.has_deltas(topic) {
            return self.deliver_delta(topic, publication);
        }
        let open = self.open_batch(topic, false);
        self.write_push(open, form, &publication.channel.name, &Push::Publication(view::publication(publication)));
    }

    /// Hands out the open batches of all topics that a connection is in.
    fn hand_out_to(&mut self, index: u32) {
        let topics: Vec<u32> =
            self.connection(index).subscriptions.iter(&self.further).map(|subscription| subscription.topic).collect();
        for topic in topics {
            self.hand_out(topic);
        }
    }

    /// Whether a connection's encoding can carry the publications: JSON carries none but JSON.
    pub fn can_read(&self, index: u32, publications: &[Arc<Publication>]) -> bool {
        self.connection(index).form.encoding() != Encoding::Json || publications.iter().all(|one| one.is_json)
    }

    /// Ends a connection that would have to be sent what it cannot read.
    pub fn disconnect_illegible(&mut self, index: u32) {
        self.disconnect(index, Disconnect::INAPPROPRIATE_PROTOCOL, Reason::InappropriateProtocol);
    }

    fn history_found(&mut self, index: u32, command: u32, found: Option<&HistoryFound>) {
        match found {
            Some(found) if !self.can_read(index, &found.publications) => self.disconnect_illegible(index),
            Some(found) => {
                let publications: Vec<_> = found.publications.iter().map(|one| view::publication(one)).collect();
                let result = view::history_result(found, &publications);
                self.reply(index, command, &Reply::History(result));
            }
            None => self.reply(index, command, &ErrorCode::UnrecoverablePosition.into()),
        }
    }

    /// One message to every connected client.
    fn broadcast(&mut self, data: &bytes::Bytes, reply_to: ReplyTo) {
        let mut audiences: Vec<(Form, Vec<u32>)> = Vec::new();
        for index in self.connected() {
            let form = self.connection(index).form;
            match audiences.iter_mut().find(|(candidate, _)| *candidate == form) {
                Some((_, indices)) => indices.push(index),
                None => audiences.push((form, vec![index])),
            }
        }
        let mut told = 0;
        for (form, indices) in audiences {
            let open = self.turn.open_batch(Batch::NO_TOPIC, SlowConsumerPolicy::Disconnect);
            self.write_push(open, form, "", &Push::Message(data));
            self.give_batch(open, &indices);
            told += indices.len() as u32;
        }
        self.answer(reply_to, Answer::Connections(told));
    }

    /// Answers the control thread's question.
    pub fn answer_observer(&mut self, figures: impl FnOnce(&Self) -> crate::mesh::ShardFigures) {
        if let Some((ticket, is_watched)) = self.observed_by.take() {
            if is_watched {
                self.look_closely();
            }
            let figures = Box::new(figures(self));
            self.mesh.to_control.send(ToControl::Shard { ticket, figures });
        }
    }
}
