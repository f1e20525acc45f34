//! What a session can do to its shard: the shard's side of [`Effects`].

use std::borrow::Cow;

use bytes::Bytes;

use super::{connection::Flag, state::State};
use crate::{
    config::Hook,
    fanout::Form,
    limits::HISTORY_REPLY_PUBLICATIONS_MAX,
    mesh::{History, Presence, Publish, ReplyTo, ToShard, Uplink},
    protocol::Reply,
    session::{
        self, Connect, Effects, Flow, Forwarded, HistoryCommand, PresenceCommand, PublishCommand, Question, Reason,
        Renewal, SubscribeCommand, TooFrequent, TurnedAway,
    },
    websocket::deflate::Inflater,
};

/// One connection, while its session acts.
pub struct Peer<'a> {
    state: &'a mut State,
    index: u32,
    /// Where output that the connection was not given yet begins.
    output_start: usize,
    /// How its conversation ends, if it does.
    end: End<'static>,
}

/// Why a connection has gone: the code of its close frame, the same in words, and as it is counted.
pub struct End<'a> {
    pub code: u16,
    pub reason: Cow<'a, str>,
    pub why: Option<Reason>,
}

impl Default for End<'_> {
    /// The client has ended it (protocol.md section 14).
    fn default() -> Self {
        Self { code: 3000, reason: Cow::Borrowed("connection closed"), why: None }
    }
}

impl<'a> Peer<'a> {
    pub fn new(state: &'a mut State, index: u32) -> Self {
        let output_start = state.turn.replies.len();
        Self { state, index, output_start, end: End::default() }
    }

    /// How the conversation ends, if it does.
    pub fn into_end(self) -> End<'static> {
        self.end
    }

    /// Gives the connection what its session has written, before anything else is given to anybody.
    pub fn commit(&mut self) {
        self.state.give_replies(self.index, self.output_start);
        self.output_start = self.state.turn.replies.len();
    }

    /// Where the session writes.
    pub fn output_mut(&mut self) -> &mut Vec<u8> {
        &mut self.state.turn.replies
    }

    /// Lets the shard act, in order behind what the session has written.
    fn act<T>(&mut self, act: impl FnOnce(&mut State, u32) -> T) -> T {
        self.commit();
        let result = act(self.state, self.index);
        self.output_start = self.state.turn.replies.len();
        result
    }
}

impl Effects for Peer<'_> {
    fn output(&mut self) -> &mut Vec<u8> {
        self.output_mut()
    }

    fn form(&self) -> Form {
        self.state.connection(self.index).form
    }

    fn set_form(&mut self, form: Form) {
        self.state.connection_mut(self.index).form = form;
    }

    fn inflater(&mut self) -> &mut Inflater {
        &mut self.state.inflater
    }

    fn no_place(&self) -> Option<TurnedAway> {
        self.state.connection(self.index).has(Flag::Uplink).then(|| self.state.no_place())
    }

    fn now_unix_seconds(&self) -> u64 {
        self.state.now_unix_seconds
    }

    fn user(&self) -> &str {
        self.state.user(self.index)
    }

    fn client(&self) -> String {
        self.state.client_ids.of(self.state.id(self.index))
    }

    fn is_subscribed(&self, channel: &str) -> bool {
        self.state.topic_of(self.index, channel).is_some_and(|topic| !self.state.is_asking(self.index, topic))
    }

    fn is_asking(&self, channel: &str) -> bool {
        let topic = self.state.topic_of(self.index, channel);
        topic.is_some_and(|topic| self.state.is_asking(self.index, topic))
    }

    fn ask(&mut self, question: Question<'_>) -> Flow {
        self.act(|state, index| state.ask(index, question))
    }

    fn keep_header(&mut self, place: u16, value: &[u8], is_emulated: bool) {
        self.state.keep_header(self.index, place, value, is_emulated);
    }

    fn subscriptions(&self) -> usize {
        let connection = self.state.connection(self.index);
        connection.subscriptions.subscribed(&self.state.further)
            + connection.extra.as_ref().map_or(0, |extra| extra.pending.len())
    }

    fn connect(&mut self, connect: Connect) -> Flow {
        self.act(|state, index| state.begin_connect(index, connect))
    }

    fn subscribe(&mut self, subscribe: SubscribeCommand<'_>) {
        self.act(|state, index| {
            state.begin_subscribe(index, subscribe.channel, subscribe.command, subscribe.terms);
        });
    }

    fn unsubscribe(&mut self, command: u32, channel: &str) {
        self.act(|state, index| {
            state.unsubscribe(index, channel);
            state.reply(index, command, &Reply::Unsubscribe);
        });
    }

    fn publish(&mut self, publish: PublishCommand<'_>) -> Flow {
        self.act(|state, index| {
            let PublishCommand { command, channel, payload, idempotency_key, skip_history, delta, version, tags } =
                publish;
            let connection = state.id(index);
            let chan_info = state.topic_of(index, channel).and_then(|topic| state.chan_info(index, topic));
            let info = state.client_info(index, chan_info);
            let channel = state.hasher.name(channel);
            let home = channel.home(state.mesh.to_shards.len());
            let publish = ToShard::Publish(Box::new(Publish {
                channel,
                data: payload.data,
                is_json: payload.is_json,
                idempotency_key,
                skip_history,
                delta,
                version,
                tags,
                info: Some(Box::new(info)),
                reply_to: ReplyTo::Client { connection, command },
                origin: state.sampler.take_in(),
                trace_parent: None,
            }));
            state.request(home, publish);
            if state.takes_from_clients() { Flow::Continue } else { Flow::Paused }
        })
    }

    fn history(&mut self, history: HistoryCommand<'_>) {
        self.act(|state, index| {
            let channel = state.hasher.name(history.channel);
            let home = channel.home(state.mesh.to_shards.len());
            let history = ToShard::History(Box::new(History {
                channel,
                limit: history.limit,
                limit_max: HISTORY_REPLY_PUBLICATIONS_MAX,
                since: history.since,
                reverse: history.reverse,
                reply_to: ReplyTo::Client { connection: state.id(index), command: history.command },
            }));
            state.request(home, history);
        });
    }

    fn presence(&mut self, presence: PresenceCommand<'_>) {
        self.act(|state, index| {
            let channel = state.hasher.name(presence.channel);
            let home = channel.home(state.mesh.to_shards.len());
            let reply_to = ReplyTo::Client { connection: state.id(index), command: presence.command };
            let presence = Presence { channel, stats_only: presence.stats_only, reply_to };
            let presence = ToShard::Presence(Box::new(presence));
            state.request(home, presence);
        });
    }

    fn refresh(&mut self, renewal: Renewal) {
        self.state.refresh(self.index, renewal);
    }

    fn refresh_subscription(&mut self, channel: &str, expires_at: Option<u64>, info: Option<Bytes>) {
        let topic = self.state.topic_of(self.index, channel).expect("the session has seen the subscription");
        self.state.refresh_subscription(self.index, topic, expires_at, info);
    }

    fn is_server_side(&self, channel: &str) -> bool {
        let topic = self.state.topic_of(self.index, channel);
        let subscriptions = &self.state.connection(self.index).subscriptions;
        topic
            .and_then(|topic| subscriptions.find(&self.state.further, topic))
            .is_some_and(|found| found.marks().is_server_side)
    }

    fn expire_subscription(&mut self, channel: &str) {
        self.act(|state, index| {
            let topic = state.topic_of(index, channel).expect("the session has seen the subscription");
            state.expire_subscription(index, topic);
        });
    }

    fn ends(&mut self, code: u16, reason: &str) {
        self.end.code = code;
        if self.state.config.hooks.is_asked(Hook::Disconnect) {
            self.end.reason = Cow::Owned(reason.to_owned());
        }
    }

    fn forward(&mut self, uplink: session::Uplink<'_>) -> Forwarded {
        if uplink.node != self.state.session_ids.node() {
            return Forwarded::NodeUnknown;
        }
        let shards = self.state.mesh.to_shards.len();
        let session = self.state.session_ids.read(uplink.session);
        let Some(to) = session.filter(|session| usize::from(session.shard) < shards) else {
            return Forwarded::SessionUnknown;
        };
        let from = self.state.id(self.index);
        let commands = Bytes::copy_from_slice(uplink.commands);
        self.state.request(usize::from(to.shard), ToShard::Uplink(Box::new(Uplink { to, from, commands })));
        Forwarded::Sent
    }

    fn charge_command(&mut self, is_publication: bool) -> Result<(), TooFrequent> {
        self.state.charge_command(self.index, is_publication)
    }

    fn message(&mut self) {
        self.state.counters.messages_received += 1;
    }

    fn count(&mut self, reason: Reason) {
        self.count_in(reason, "");
    }

    fn count_in(&mut self, reason: Reason, channel: &str) {
        self.end.why = Some(reason);
        self.state.count(self.index, reason, channel);
    }
}
