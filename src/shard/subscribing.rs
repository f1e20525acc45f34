//! How connections come into topics and leave them.
//!
//! A subscription is asked of the channel's home shard and made when the answer arrives, in the same
//! queue as the channel's publications; so nothing is missed or doubled between the position in the
//! answer and the first live publication. Where the channel has no stream and this shard receives it
//! already, there is nothing to ask: the home shard knows of the interest, and any moment is a right one.

use super::{
    connection::{Connecting, Flag, Pending},
    state::State,
    view,
};
use crate::{
    config::SlowConsumerPolicy,
    fanout::{Content, Marks, Outbox, Subscription, Topics},
    limits::{CHANNEL_FILTER_NODES_MAX, HISTORY_REPLY_BYTES_MAX, SUBSCRIBER_COUNT_AGE_MS_MAX},
    mesh::{ChannelName, Recovery, Subscribe, Subscribed, ToShard},
    protocol::{ErrorCode, Push, Reply, ServerSubscription, SubscribeResult, Unsubscribe},
    session::{self, Connect, ConnectReply, Flow, Phase, ServerSide, Terms},
};

impl State {
    /// A client has proved who it is: its server-side subscriptions are made, then it is told.
    pub fn begin_connect(&mut self, index: u32, connect: Connect) -> Flow {
        let program = self.programs.add(&connect.name, &connect.version);
        let connection = self.connection_mut(index);
        connection.program = program;
        let accepted_ms = connection.expires_unix_seconds;
        connection.expires_unix_seconds = connect.expires_at.map_or(0, |at| u32::try_from(at).unwrap_or(u32::MAX));
        let extra = connection.extra_mut();
        extra.info = connect.info;
        extra.meta = connect.meta.map(|meta| meta[..].into());
        extra.connecting = Some(Box::new(Connecting {
            command: connect.command,
            accepted_ms,
            data: connect.data,
            waiting: 0,
            admission: None,
            made: Vec::new(),
            recovered_bytes: 0,
            items_ahead: extra.outbox.as_ref().map_or(0, |outbox| outbox.items()),
        }));
        self.admit_user(index, connect.user, connect.channels);
        Flow::Paused
    }

    /// Makes the server-side subscriptions of a client whose user is settled.
    pub fn begin_server_side(&mut self, index: u32, channels: Vec<ServerSide>) {
        self.connecting_mut(index).expect("the client connects").waiting += channels.len();
        for ServerSide { channel, terms } in channels {
            self.begin_subscribe(index, &channel, 0, terms);
        }
    }

    /// A session has paused: it waits for its connect, or for held messages to be gone.
    pub fn paused(&mut self, index: u32) {
        match self.connection(index).extra.as_ref().and_then(|extra| extra.connecting.as_ref()) {
            Some(connecting) if connecting.waiting == 0 => self.complete_connect(index),
            Some(_) => {}
            // A request to `/emulation` waits for its answer by another shard.
            None if self.connection(index).session.phase() == Phase::Head => {}
            // A connect command waits for the application's back end.
            None if self.connection(index).session.phase() == Phase::AwaitingConnect => {}
            None if self.connection(index).is_asking_enough() => {}
            None => self.paused.push(self.id(index)),
        }
    }

    pub fn connecting_mut(&mut self, index: u32) -> Option<&mut Connecting> {
        self.connection_mut(index).extra.as_mut()?.connecting.as_deref_mut()
    }

    pub fn is_connecting(&self, index: u32) -> bool {
        self.connection(index).extra.as_ref().is_some_and(|extra| extra.connecting.is_some())
    }

    /// All server-side subscriptions are made: the reply, what was published meanwhile, and what the client said behind connect.
    fn complete_connect(&mut self, index: u32) {
        let connecting = self.connection_mut(index).extra_mut().connecting.take().expect("the caller has seen it");
        let held = self.take_held(index, connecting.items_ahead);
        let (id, form) = (self.id(index), self.connection(index).form);
        let client = self.client_ids.of(id);
        let secret = if form.has_session() { self.session_ids.of(id) } else { String::new() };
        let node = if form.is_emulated() { self.session_ids.node().to_owned() } else { String::new() };
        self.connection_mut(index).set(Flag::Connected);
        self.admitting.handshakes.end();
        self.counters.connections += 1;
        let took_ms = (self.now_ms as u32).wrapping_sub(connecting.accepted_ms);
        self.counters.accept_to_connected.record(u64::from(took_ms) * 1000);
        self.begin_heartbeat(index);
        self.tell_connected(index);
        let recovered: Vec<_> = connecting.made.iter().map(|made| view::recovered(made, false)).collect();
        let made = connecting.made.iter().zip(&recovered);
        let subs: Vec<_> = made
            .map(|(subscribed, recovered)| (&*subscribed.channel.name, view::subscribe_result(subscribed, recovered)))
            .collect();
        let expires = u64::from(self.connection(index).expires_unix_seconds);
        let has_ttl = expires != 0 && !self.is_refreshed_by_hook(index);
        let ttl_seconds = has_ttl.then(|| session::ttl_seconds(expires, self.now_unix_seconds));
        self.converse(index, |session, transient, rules, peer| {
            let reply = ConnectReply {
                command: connecting.command,
                client: &client,
                ttl_seconds,
                data: connecting.data.as_deref(),
                subs: &subs,
                session: &secret,
                node: &node,
            };
            session::connected(session, &reply, rules, peer);
            peer.commit();
            if let Some(held) = held {
                held.peek(peer.output_mut(), held.bytes());
                peer.commit();
            }
            session::resume(session, transient, rules, peer)
        });
    }

    /// Asks for a subscription that a session has allowed, or makes it where there is nothing to ask. `command` 0 is a
    /// server-side one: while the client connects it belongs to the connect reply, later the client is told by a push.
    pub fn begin_subscribe(&mut self, index: u32, channel: &str, command: u32, terms: Terms) {
        let channel = self.hasher.name(channel);
        if self.topic_in(index, channel.hash, &channel.name).is_some() {
            return match command {
                0 if self.is_connecting(index) => self.server_side_made(index, None),
                0 => {}
                _ => self.reply(index, command, &ErrorCode::AlreadySubscribed.into()),
            };
        }
        if !self.may_filter(index, &channel, &terms.content) {
            return self.reply(index, command, &ErrorCode::LimitExceeded.into());
        }
        let topic = self.find_or_insert_topic(index, &channel, &terms.content);
        let mut topics = self.topics.of_channel(channel.hash, &channel.name);
        let has_subscribers = topics.any(|topic| !self.topics.subscribers(topic).is_empty());
        drop(topics);
        let (marks, member) = self.member(index, &terms, command == 0);
        self.topics.begin_pending(topic);
        self.connection_mut(index).extra_mut().pending.push(Pending { topic, command, marks, question: None });
        self.grant(index, topic, terms.expires_at, terms.chan_info);
        let connection = self.id(index);
        let has_stream = terms.positioned || terms.recoverable || terms.recover.is_some();
        if has_subscribers && !has_stream && member.is_none() {
            return self.subscribed(Subscribed {
                channel,
                connection,
                command,
                positioned: false,
                recoverable: false,
                reject_unrecovered: false,
                position: None,
                recovery: None,
                data: terms.data,
            });
        }
        let home = channel.home(self.mesh.to_shards.len());
        let subscribe = ToShard::Subscribe(Box::new(Subscribe {
            subscribers: self.topics.interest(channel.hash, &channel.name),
            channel,
            connection,
            command,
            recover: terms.recover,
            reject_unrecovered: terms.reject_unrecovered,
            positioned: terms.positioned,
            recoverable: terms.recoverable,
            member,
            data: terms.data,
        }));
        self.request(home, subscribe);
    }

    /// The home shard's answer.
    pub fn subscribed(&mut self, mut subscribed: Subscribed) {
        // Whoever went, or unsubscribed meanwhile, took its pending subscription along.
        let Some(index) = self.live_index(subscribed.connection) else { return };
        let command = subscribed.command;
        let channel = &subscribed.channel.name;
        let is_meant = |topics: &Topics, pending: &Pending| {
            pending.command == command && pending.question.is_none() && topics.name(pending.topic) == &**channel
        };
        let Some(Pending { topic, marks, .. }) = self.take_pending(index, is_meant) else { return };
        self.filter_recovered(topic, &mut subscribed);
        if let Some(Recovery::Recovered { publications, .. }) = &subscribed.recovery
            && !self.can_read(index, publications)
        {
            self.subscription_ended(index, topic, marks);
            self.release_topic(topic);
            return self.disconnect_illegible(index);
        }
        if !self.limit_recovery(index, &mut subscribed) {
            self.subscription_ended(index, topic, marks);
        }
        if matches!(subscribed.recovery, Some(Recovery::Rejected)) {
            self.revoke(index, topic);
            self.release_topic(topic);
            self.reply(index, command, &ErrorCode::UnrecoverablePosition.into());
        } else {
            let is_connecting = self.is_connecting(index);
            if is_connecting && !self.connection(index).has(Flag::Backlogged) {
                // Publications wait behind the connect reply.
                self.begin_backlog(index, Outbox::default());
            }
            self.enter_topic(index, topic, marks);
            let has_deltas = self.topics.has_deltas(topic);
            if has_deltas {
                self.join_chain(index, topic, &subscribed);
            }
            self.count_is_stale(topic);
            match command {
                0 if is_connecting => return self.server_side_made(index, Some(subscribed)),
                0 => self.push_subscription(index, &subscribed),
                _ => {
                    let publications = view::recovered(&subscribed, has_deltas);
                    let result = view::subscribe_result(&subscribed, &publications);
                    let result = self.with_expiry(index, topic, SubscribeResult { delta: has_deltas, ..result });
                    self.reply(index, command, &Reply::Subscribe(result));
                }
            }
        }
        self.connection_mut(index).drop_empty_extra();
    }

    /// Whether a subscription's filter, if it has one, is among its channel's or finds room there.
    fn may_filter(&self, index: u32, channel: &ChannelName, content: &Content) -> bool {
        let ChannelName { hash, name } = channel;
        let Content::Filtered(filter) = content else { return true };
        self.topics.find(*hash, name, self.connection(index).form, content).is_some()
            || self.topics.filter_nodes(*hash, name) + filter.nodes() <= CHANNEL_FILTER_NODES_MAX
    }

    /// Takes away of what was recovered what does not pass the subscription's filter. The client goes on from the last
    /// that passes; where none does, from the top: had it stayed where it was, it would soon be too far behind.
    fn filter_recovered(&self, topic: u32, subscribed: &mut Subscribed) {
        let Subscribed { recovery: Some(Recovery::Recovered { from, publications }), position, .. } = subscribed else {
            return;
        };
        if self.topics.is_filtered(topic) {
            publications.retain(|publication| self.topics.passes(topic, publication.tags.as_ref()));
            if let Some(position) = position.as_ref().filter(|_| publications.is_empty()) {
                *from = position.offset;
            }
        }
    }

    /// A subscription waits for the back end's answer to a question.
    pub fn await_subscription(&mut self, index: u32, channel: &str, command: u32, question: u32) {
        let topic = self.find_or_insert_topic(index, &self.hasher.name(channel), &Content::Whole);
        self.topics.begin_pending(topic);
        let pending = Pending { topic, command, marks: Marks::default(), question: Some(question) };
        self.connection_mut(index).extra_mut().pending.push(pending);
    }

    /// That question is answered. Whether the client still wants to subscribe.
    pub fn take_question(&mut self, index: u32, question: u32) -> bool {
        let taken = self.take_pending(index, |_, pending| pending.question == Some(question));
        taken.map(|pending| self.release_topic(pending.topic)).is_some()
    }

    /// Whether the back end is asked if a connection may subscribe to a topic.
    pub fn is_asking(&self, index: u32, topic: u32) -> bool {
        let extra = self.connection(index).extra.as_ref();
        let mut pending = extra.into_iter().flat_map(|extra| &extra.pending);
        pending.any(|pending| pending.topic == topic && pending.question.is_some())
    }

    /// Takes a subscription that waits for its home shard or the back end away, if there is one that `is_meant`.
    fn take_pending(&mut self, index: u32, is_meant: impl Fn(&Topics, &Pending) -> bool) -> Option<Pending> {
        let pending = &mut self.connections[index as usize].extra.as_mut()?.pending;
        let position = pending.iter().position(|pending| is_meant(&self.topics, pending))?;
        let pending = pending.swap_remove(position);
        self.hand_out(pending.topic);
        self.topics.end_pending(pending.topic);
        Some(pending)
    }

    /// Tells a client of a subscription that the server has made after the client had connected, and what it missed.
    fn push_subscription(&mut self, index: u32, subscribed: &Subscribed) {
        let publications = view::recovered(subscribed, false);
        let result = view::subscribe_result(subscribed, &[]);
        let subscription = ServerSubscription {
            recoverable: result.recoverable,
            epoch: result.epoch,
            offset: result.offset,
            positioned: result.positioned,
            data: result.data,
        };
        self.push(index, &subscribed.channel.name, &Push::Subscribe(subscription));
        for publication in publications {
            self.push(index, &subscribed.channel.name, &Push::Publication(publication));
        }
    }

    /// A client that does not read what it has recovered in other channels is sent no more: it begins at the top, as after
    /// too long an absence. Were it closed as slow, it would come back and ask for the same. Whether the subscription
    /// goes on as its home shard believes.
    fn limit_recovery(&self, index: u32, subscribed: &mut Subscribed) -> bool {
        let bytes = recovered_bytes(subscribed);
        if bytes == 0 || self.waiting_reply_bytes(index) + bytes <= HISTORY_REPLY_BYTES_MAX {
            return true;
        }
        let is_rejected = subscribed.reject_unrecovered;
        subscribed.recovery = Some(if is_rejected { Recovery::Rejected } else { Recovery::Unrecovered });
        !is_rejected
    }

    fn server_side_made(&mut self, index: u32, subscribed: Option<Subscribed>) {
        let extra = self.connection_mut(index).extra_mut();
        let connecting = extra.connecting.as_mut().expect("server-side subscriptions are made while connecting");
        if let Some(mut subscribed) = subscribed {
            // All go out in one reply: what no longer fits begins at its channel's top.
            let bytes = recovered_bytes(&subscribed);
            if bytes > 0 && connecting.recovered_bytes + bytes > HISTORY_REPLY_BYTES_MAX {
                subscribed.recovery = Some(Recovery::Unrecovered);
            } else {
                connecting.recovered_bytes += bytes;
            }
            connecting.made.push(subscribed);
        }
        self.connect_goes_on(index);
    }

    /// Something that a connect command waited for is there.
    pub fn connect_goes_on(&mut self, index: u32) {
        let connecting = self.connecting_mut(index).expect("the client connects");
        connecting.waiting -= 1;
        // While `begin_connect` is still asking, the session does not wait yet, and `paused` completes it.
        if connecting.waiting == 0 && self.connection(index).session.phase() == Phase::Connecting {
            self.complete_connect(index);
        }
    }

    /// A client leaves a channel, or takes back that it wanted to enter.
    pub fn unsubscribe(&mut self, index: u32, channel: &str) {
        let Some(topic) = self.topic_of(index, channel) else { return };
        // Every command is answered. If the client wants the channel again meanwhile, it tries again.
        self.end_subscription(index, topic, ErrorCode::Internal);
    }

    /// Ends a subscription, or answers its command by `refusal` if it waits for its home shard. Whether there was one
    /// that the client knows of.
    fn end_subscription(&mut self, index: u32, topic: u32, refusal: ErrorCode) -> bool {
        let subscription = self.connection(index).subscriptions.find(&self.further, topic);
        if subscription.is_some_and(|subscription| !subscription.is_silent()) {
            if let Some(connecting) =
                self.connections[index as usize].extra.as_mut().and_then(|extra| extra.connecting.as_mut())
            {
                let channel = self.topics.name(topic);
                connecting.made.retain(|subscribed| *subscribed.channel.name != *channel);
            }
            self.leave_topic(index, topic);
            return true;
        }
        let Some(Pending { command, marks, .. }) = self.take_pending(index, |_, pending| pending.topic == topic) else {
            return false;
        };
        self.subscription_ended(index, topic, marks);
        self.revoke(index, topic);
        self.release_topic(topic);
        match command {
            0 if self.is_connecting(index) => self.server_side_made(index, None),
            0 => {}
            _ => self.reply(index, command, &refusal.into()),
        }
        command != 0
    }

    /// The server subscribes a client to a channel. One that connects learns it from the connect reply, one that is
    /// connected by a push; one that is subscribed already hears nothing.
    pub fn subscribe_by_server(&mut self, index: u32, channel: &str, terms: Terms) {
        if let Some(connecting) = self.connecting_mut(index) {
            connecting.waiting += 1;
        } else if !self.connection(index).session.is_connected() {
            return;
        }
        self.begin_subscribe(index, channel, 0, terms);
    }

    /// The server ends a client's subscription, whoever made it, and says why.
    pub fn unsubscribe_by_server(&mut self, index: u32, channel: &str, unsubscribe: Unsubscribe) {
        let Some(topic) = self.topic_of(index, channel) else { return };
        if self.end_subscription(index, topic, ErrorCode::PermissionDenied) && !self.is_connecting(index) {
            self.push(index, channel, &Push::Unsubscribe(unsubscribe));
        }
    }

    /// Makes a connection a subscriber of a topic. In that of its user it is already, but silent.
    fn enter_topic(&mut self, index: u32, topic: u32, marks: Marks) {
        let member = self.connection(index).subscriptions.position(&self.further, topic);
        let (connections, further) = (&mut self.connections, &mut self.further);
        let moved = |connection: u32, position| {
            connections[connection as usize].subscriptions.set_position(further, topic, position);
        };
        match member {
            Some(position) => {
                let position = self.topics.make_subscriber(topic, position, moved);
                let subscription = Subscription::new(topic, position, marks);
                self.connections[index as usize].subscriptions.replace(&mut self.further, subscription);
            }
            None => {
                let position = self.topics.attach(topic, index, moved);
                let subscription = Subscription::new(topic, position, marks);
                self.connections[index as usize].subscriptions.insert(&mut self.further, subscription);
            }
        }
    }

    /// Ends a subscription. In the topic of its user the connection stays, silent.
    pub fn leave_topic(&mut self, index: u32, topic: u32) {
        if self.connection(index).user_topic() != Some(topic) {
            return self.detach(index, topic);
        }
        self.revoke(index, topic);
        self.hand_out(topic);
        let (connections, further) = (&mut self.connections, &mut self.further);
        let position =
            connections[index as usize].subscriptions.position(further, topic).expect("the caller has seen it");
        let position = self.topics.make_silent(topic, position, |connection, position| {
            connections[connection as usize].subscriptions.set_position(further, topic, position);
        });
        let silent = Subscription::silent(topic, position);
        let before = connections[index as usize].subscriptions.replace(further, silent);
        self.has_left_cohort(index, before);
        self.subscription_ended(index, topic, before.marks());
        self.release_topic(topic);
    }

    /// Takes a member out of a topic.
    pub fn detach(&mut self, index: u32, topic: u32) {
        self.revoke(index, topic);
        self.hand_out(topic);
        let (connections, further) = (&mut self.connections, &mut self.further);
        let left = connections[index as usize].subscriptions.remove(further, topic).expect("the caller has seen it");
        self.topics.detach(topic, left.position(), |connection, position| {
            connections[connection as usize].subscriptions.set_position(further, topic, position);
        });
        self.has_left_cohort(index, left);
        if left.is_silent() {
            self.topics.remove_if_unused(topic);
        } else {
            self.subscription_ended(index, topic, left.marks());
            self.release_topic(topic);
        }
    }

    /// A topic has one subscriber less, or one less that wants to be: ends it if nobody needs it any more, and tells its
    /// home shard.
    pub fn release_topic(&mut self, topic: u32) {
        self.hand_out(topic);
        let channel = self.hasher.name(self.topics.name(topic));
        self.topics.remove_if_unused(topic);
        if self.topics.interest(channel.hash, &channel.name) == 0 {
            self.tell_count(channel, 0);
        } else if let Some(first) = self.topics.first_of_channel(channel.hash, &channel.name) {
            self.count_is_stale(first);
        }
    }

    /// The home shard is to be told how many subscribers the topic's channel has here.
    fn count_is_stale(&mut self, topic: u32) {
        if self.topics.mark_count_stale(topic) {
            if self.stale_counts.is_empty() {
                self.stale_counts_due_ms = self.now_ms + SUBSCRIBER_COUNT_AGE_MS_MAX / 2;
            }
            self.stale_counts.push(topic);
        }
    }

    /// Tells home shards how many subscribers their channels have here, often enough for producers' answers.
    pub fn send_stale_counts(&mut self) {
        if self.stale_counts.is_empty() || self.now_ms < self.stale_counts_due_ms {
            return;
        }
        for topic in std::mem::take(&mut self.stale_counts) {
            // The topic may have ended, and another may have its index: then that one's count is told once too often.
            if !self.topics.contains(topic) {
                continue;
            }
            self.topics.clear_count_stale(topic);
            let channel = self.hasher.name(self.topics.name(topic));
            let subscribers = self.topics.interest(channel.hash, &channel.name);
            self.tell_count(channel, subscribers);
        }
    }

    fn tell_count(&mut self, channel: ChannelName, subscribers: u32) {
        let home = channel.home(self.mesh.to_shards.len());
        let shard = self.mesh.shard;
        if home == usize::from(shard) && !self.channels.counts_own(&channel) {
            return;
        }
        self.mesh.to_shards[home].send(ToShard::Interest { channel, shard, subscribers });
    }

    /// The topic by which a connection is subscribed to a channel, or is about to be.
    pub fn topic_of(&self, index: u32, channel: &str) -> Option<u32> {
        self.topic_in(index, self.hasher.hash(channel), channel)
    }

    fn topic_in(&self, index: u32, hash: u64, channel: &str) -> Option<u32> {
        let form = self.connection(index).form;
        let mut topics = self.topics.of_channel(hash, channel);
        topics.find(|topic| self.topics.form(*topic) == form && self.is_subscribed(index, *topic))
    }

    pub fn find_or_insert_topic(&mut self, index: u32, channel: &ChannelName, content: &Content) -> u32 {
        let policy = self.policy(&channel.name);
        self.topics.find_or_insert(channel, self.connections[index as usize].form, content, || policy)
    }

    /// Whether a connection is subscribed to a topic, or about to be.
    pub fn is_subscribed(&self, index: u32, topic: u32) -> bool {
        let connection = self.connection(index);
        connection.subscriptions.find(&self.further, topic).is_some_and(|subscription| !subscription.is_silent())
            || connection.extra.as_ref().is_some_and(|extra| extra.pending.iter().any(|pending| pending.topic == topic))
    }

    fn policy(&self, channel: &str) -> SlowConsumerPolicy {
        self.config
            .namespaces
            .of_channel(channel)
            .map_or_else(SlowConsumerPolicy::default, |namespace| namespace.slow_consumer)
    }
}

/// Bytes of the publications that a recovery brings.
fn recovered_bytes(subscribed: &Subscribed) -> usize {
    match &subscribed.recovery {
        Some(Recovery::Recovered { publications, .. }) => publications.iter().map(|one| one.content_bytes()).sum(),
        _ => 0,
    }
}
