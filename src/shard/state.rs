//! A shard's tables, and the beginning and end of its connections.

use std::{
    collections::{BTreeSet, VecDeque},
    rc::Rc,
    sync::Arc,
};

use nix::errno::Errno;
use slab::Slab;

use super::{
    ClientIds, DRAIN_WAVE_MS, ShardOptions,
    admitting::Admitting,
    compressing::Compression,
    connection::{Connection, Flag, Pending},
    figures::Counters,
    hooks::Asked,
    keys::KeyWaiters,
    notices::Notices,
    peer::{End, Peer},
    programs::Programs,
    rates::Rated,
    session_ids::SessionIds,
    slab::ConnectionSlab,
    tls::TlsState,
    traces::Traces,
    watched::Watched,
    wheel::{TimerLinks, Timers, Wheel},
};
use crate::{
    channel::Channels,
    config::Config,
    fanout::{FurtherSubscriptions, Overflow, Patches, Topics, Turn},
    limits::{CLIENT_REQUESTS_MAX, CLOSE_HANDSHAKE_MS_MAX, CLOSE_HANDSHAKE_STOPPING_MS_MAX, HELD_RETRY_MS},
    mesh::{Admission, ChannelHasher, ConnectionId, Publish, Sampler, ShardMesh, ToShard, Uplink},
    protocol::Disconnect,
    session::{self, Flow, Phase, Reason, Rules, Session, Transient},
    uring::{Socket, Token},
    websocket::deflate::Inflater,
};

/// Expired history and the like that is looked at in one turn.
const EXPIRE_BUDGET: usize = 256;

/// Everything of a shard but its kernel.
pub struct State {
    pub config: Arc<Config>,
    pub rules: Rc<Rules>,
    pub hasher: ChannelHasher,
    pub mesh: ShardMesh,
    pub admission: Admission,
    pub admitting: Admitting,
    pub rated: Rated,
    pub client_ids: ClientIds,
    pub session_ids: SessionIds,
    pub core: u32,
    pub now_ms: u64,
    pub now_unix_seconds: u64,
    pub connections: ConnectionSlab,
    /// What of the connections' subscriptions has no place in their slots.
    pub further: FurtherSubscriptions,
    pub programs: Programs,
    pub topics: Topics,
    pub channels: Channels,
    pub turn: Turn,
    /// While a publication is delivered: the patch to the one before.
    pub patches: Patches,
    pub compression: Compression,
    /// Reads what clients compress.
    pub inflater: Inflater,
    pub wheel: Wheel,
    pub counters: Counters,
    pub notices: Notices,
    pub watched: Watched,
    /// Chooses which publications of clients are traced.
    pub sampler: Sampler,
    pub traces: Traces,
    /// If the clients' port speaks TLS.
    pub tls: Option<TlsState>,
    /// Connections with something to receive.
    pub readable: VecDeque<u32>,
    /// Connections whose outboxes may go on.
    pub writable: Vec<u32>,
    /// Connections whose sessions wait until no message is held back.
    pub paused: Vec<ConnectionId>,
    /// Connections whose sessions wait for keys.
    pub key_waiters: KeyWaiters,
    /// Questions to the application's back end that are open, by their numbers.
    pub questions: Slab<Asked>,
    /// Subscriptions that expire: when they end, in seconds since 1970, whose, and in which topic.
    pub expiries: BTreeSet<(u32, u32, u32)>,
    /// Connections that are over once what they were given is sent.
    pub ending: Vec<u32>,
    /// Requests of clients that home shards have yet to answer.
    pub requests: usize,
    /// Queues behind the shard's own that were taken from when the last turn was full; 0 if all were.
    pub queues_taken: usize,
    /// Clients' publications that wait, as their home is here, until no message is held back.
    pub deferred: VecDeque<Publish>,
    /// Commands for this shard's sessions that wait until no message is held back.
    pub deferred_uplinks: VecDeque<Uplink>,
    /// Connections that go to the control thread at the turn's end, with what has arrived on them.
    pub handed_over: Vec<(u32, Vec<u8>)>,
    /// Sockets to close at the turn's end, with what the kernel watches for them.
    pub closes: Vec<(Socket, Token, bool)>,
    /// Outboxes that ran over this turn.
    pub overflows: Vec<(u32, Overflow)>,
    /// Connections that have an outbox.
    pub backlogged: BTreeSet<u32>,
    /// When what this turn delivers came into the server.
    pub delivering: Vec<u64>,
    /// Bytes in all outboxes.
    pub outbox_bytes: u64,
    /// Topics whose number of subscribers the home shard has yet to be told.
    pub stale_counts: Vec<u32>,
    /// When it is told.
    pub stale_counts_due_ms: u64,
    /// What became of the last sends; kept for its memory.
    pub send_outcomes: Vec<Result<usize, Errno>>,
    pub accept_rests_until_ms: Option<u64>,
    pub is_accept_starved: bool,
    pub must_stop_accepting: bool,
    /// Messages of the shard to itself that were on their way when a reload changed what it counts of itself.
    pub recounts: usize,
    /// The control thread's question that is answered at the turn's end, and whether a console asks.
    pub observed_by: Option<(u64, bool)>,
    drain: Option<Drain>,
    accepted: u32,
    due: Vec<u32>,
}

/// The way to a stop: clients are told to reconnect, in waves.
#[derive(Clone, Copy)]
struct Drain {
    began_ms: u64,
    spread_ms: u64,
    connections: u64,
    told: u64,
    cursor: u32,
    next_wave_ms: u64,
}

impl State {
    pub fn new(options: ShardOptions, now_ms: u64, now_unix_seconds: u64) -> Self {
        let connections = ConnectionSlab::for_connections(options.config.client.connections_max as usize);
        let tls = options.tls.map(|port| TlsState::new(port, &options.config.client.tls, options.kernel_tls, now_ms));
        let sampler = Sampler::new(&options.config.tracing, options.mesh.shard.into(), options.hasher.clone());
        Self {
            sampler,
            channels: Channels::new(Arc::clone(&options.config), options.mesh.shard, options.seed),
            admitting: Admitting::new(&options.config),
            rated: Rated::default(),
            rules: Rc::new(options.rules),
            config: options.config,
            hasher: options.hasher,
            mesh: options.mesh,
            admission: options.admission,
            client_ids: ClientIds::new(options.client_id_key),
            session_ids: SessionIds::new(options.client_id_key),
            core: options.core,
            now_ms,
            now_unix_seconds,
            connections,
            further: FurtherSubscriptions::default(),
            programs: Programs::default(),
            topics: Topics::default(),
            turn: Turn::default(),
            patches: Patches::default(),
            compression: Compression::default(),
            inflater: Inflater::default(),
            wheel: Wheel::new(now_ms),
            counters: Counters::default(),
            notices: Notices::default(),
            watched: Watched::default(),
            traces: Traces::default(),
            tls,
            readable: VecDeque::new(),
            writable: Vec::new(),
            paused: Vec::new(),
            key_waiters: KeyWaiters::default(),
            questions: Slab::new(),
            expiries: BTreeSet::new(),
            ending: Vec::new(),
            requests: 0,
            queues_taken: 0,
            deferred: VecDeque::new(),
            deferred_uplinks: VecDeque::new(),
            handed_over: Vec::new(),
            closes: Vec::new(),
            overflows: Vec::new(),
            backlogged: BTreeSet::new(),
            delivering: Vec::new(),
            outbox_bytes: 0,
            stale_counts: Vec::new(),
            stale_counts_due_ms: 0,
            send_outcomes: Vec::new(),
            accept_rests_until_ms: None,
            is_accept_starved: false,
            must_stop_accepting: false,
            recounts: 0,
            observed_by: None,
            drain: None,
            accepted: 0,
            due: Vec::new(),
        }
    }

    /// How long the shard may sleep; 0: there is work; none: until something happens.
    pub fn sleep_ms(&self, now_ms: u64) -> Option<u64> {
        if self.mesh.is_holding() {
            return Some(HELD_RETRY_MS);
        }
        let has_input = !self.readable.is_empty() || !self.paused.is_empty();
        if !self.writable.is_empty()
            || !self.deferred.is_empty()
            || !self.deferred_uplinks.is_empty()
            || self.admitting.look_for_denied_from.is_some()
            || has_input && self.takes_from_clients()
        {
            return Some(0);
        }
        let stale_counts = (!self.stale_counts.is_empty()).then_some(self.stale_counts_due_ms);
        let drain = self.drain.as_ref().map(|drain| drain.next_wave_ms);
        let due = [
            self.next_subscription_end_ms(),
            self.tls.as_ref().and_then(|tls| tls.next_due_ms(now_ms)),
            self.wheel.next_due_ms(),
            self.rated.next_due_ms(),
            self.channels.next_due_ms(),
            self.accept_rests_until_ms,
            stale_counts,
            drain,
        ];
        // Without branches: it is asked for in every turn.
        let due_ms = due.map(|due_ms| due_ms.unwrap_or(u64::MAX)).into_iter().fold(u64::MAX, u64::min);
        (due_ms != u64::MAX).then(|| due_ms.saturating_sub(now_ms))
    }

    /// Whether clients may ask for more; if not, what they send stays in their sockets.
    pub fn takes_from_clients(&self) -> bool {
        !self.mesh.is_holding() && self.requests < CLIENT_REQUESTS_MAX
    }

    /// Asks a channel's home shard for what a client wants; there will be an answer.
    pub fn request(&mut self, home: usize, request: ToShard) {
        self.requests += 1;
        self.mesh.to_shards[home].send(request);
    }

    /// The connection of a token, unless it is gone.
    pub fn live(&mut self, token: Token) -> Option<&mut Connection> {
        self.connections.get_mut(token.index as usize).filter(|connection| connection.token(token.index) == token)
    }

    /// The slab index of a connection id, unless the connection is gone or on its way out: nothing may follow a close frame.
    pub fn live_index(&self, id: ConnectionId) -> Option<u32> {
        debug_assert_eq!(id.shard, self.mesh.shard, "a message finds the shard that it is for");
        let connection = self.connections.get(id.index as usize)?;
        let is_ending = connection.has(Flag::Dropping) || connection.session.is_closing();
        (connection.generation == id.generation && !is_ending).then_some(id.index)
    }

    pub fn connection(&self, index: u32) -> &Connection {
        &self.connections[index as usize]
    }

    pub fn connection_mut(&mut self, index: u32) -> &mut Connection {
        &mut self.connections[index as usize]
    }

    pub fn id(&self, index: u32) -> ConnectionId {
        ConnectionId { shard: self.mesh.shard, index, generation: self.connection(index).generation }
    }

    /// How many connections the shard has accepted since a connection's own.
    pub fn age(&self, index: u32) -> u32 {
        self.accepted.wrapping_sub(self.connection(index).generation)
    }

    /// The generation of a connection that begins.
    pub fn next_generation(&mut self) -> u32 {
        self.accepted = self.accepted.wrapping_add(1);
        self.accepted
    }

    /// Bytes of a client: its session acts on them.
    pub fn converse_with_input(&mut self, index: u32, input: &mut [u8]) {
        if self.connection(index).awaits_proxy_header() {
            return self.hear_balancer(index, input);
        }
        self.count_talker(index, input.len());
        self.converse(index, |session, transient, rules, peer| {
            session::receive(session, transient, input, rules, peer)
        });
    }

    /// Lets a session act, and does what it says about its own future.
    pub fn converse(
        &mut self,
        index: u32,
        act: impl FnOnce(&mut Session, &mut Option<Box<Transient>>, &Rules, &mut Peer<'_>) -> Flow,
    ) {
        let connection = self.connection_mut(index);
        let mut session = connection.session;
        let mut transient = connection.extra.as_mut().and_then(|extra| extra.transient.take());
        let rules = Rc::clone(&self.rules);
        let mut peer = Peer::new(self, index);
        let flow = act(&mut session, &mut transient, &rules, &mut peer);
        peer.commit();
        let end = peer.into_end();
        let connection = self.connection_mut(index);
        let phase_before = std::mem::replace(&mut connection.session, session).phase();
        if phase_before != session.phase() {
            self.counters.phase_changed(phase_before, session.phase());
        }
        let connection = self.connection_mut(index);
        match transient {
            Some(transient) if !transient.is_empty() => connection.extra_mut().transient = Some(transient),
            _ => connection.drop_empty_extra(),
        }
        if phase_before == Phase::Head && matches!(session.phase(), Phase::AwaitingConnect | Phase::Connecting) {
            self.schedule_phase_deadline(index);
        }
        if !session.is_paused() && self.connection(index).has(Flag::Readable) {
            self.readable.push_back(index);
        }
        match flow {
            Flow::Continue => {}
            Flow::Answered => self.schedule_phase_deadline(index),
            Flow::Paused => self.paused(index),
            Flow::AwaitingKeys => self.await_keys(index),
            Flow::Closing => {
                self.connection_mut(index).set(Flag::Shutting);
                self.leave(index, &end);
            }
            Flow::Lingering => self.leave(index, &end),
            Flow::Drop => {
                self.connection_mut(index).set(Flag::Dropping);
                self.leave(index, &end);
            }
            Flow::HandOver => {
                let transient = self.connection_mut(index).extra_mut().transient.take();
                self.connection_mut(index).drop_empty_extra();
                self.handed_over.push((index, transient.expect("a head has arrived").into_input()));
            }
        }
    }

    /// After a receive: `more` may be there, or the peer's end that the kernel told of once.
    pub fn receive_again(&mut self, index: u32, more: bool) {
        let connection = self.connection_mut(index);
        if (more || connection.has(Flag::Ended)) && !connection.has(Flag::Dropping) && !connection.set(Flag::Readable) {
            self.readable.push_back(index);
        }
    }

    /// The peer has closed its side, or the socket has failed: nothing more can be said.
    pub fn peer_ended(&mut self, index: u32, reason: Reason) {
        if self.connection(index).has(Flag::Connected) {
            self.count(index, reason, "");
        }
        self.end_quietly(index, Some(reason));
    }

    /// Closes a connection to which nothing more is to be said.
    pub fn let_go(&mut self, index: u32) {
        self.end_quietly(index, None);
    }

    fn end_quietly(&mut self, index: u32, why: Option<Reason>) {
        self.drop_when_sent(index, why);
        self.drop_outbox(index);
    }

    /// Closes a connection as soon as it has taken what waits for it.
    pub fn drop_when_sent(&mut self, index: u32, why: Option<Reason>) {
        self.connection_mut(index).set(Flag::Dropping);
        self.leave(index, &End { why, ..End::default() });
    }

    /// Ends a connection from our side, with its code.
    pub fn disconnect(&mut self, index: u32, disconnect: Disconnect<'_>, reason: Reason) {
        if self.connection(index).has(Flag::Left) {
            return;
        }
        self.count(index, reason, "");
        self.forget_backlog(index);
        let start = self.turn.replies.len();
        let connection = &mut self.connections[index as usize];
        let phase_before = connection.session.phase();
        session::disconnect(&mut connection.session, connection.form, disconnect, &mut self.turn.replies);
        let phase = connection.session.phase();
        self.counters.phase_changed(phase_before, phase);
        self.connection_mut(index).set(Flag::Shutting);
        self.give_replies(index, start);
        self.leave(index, &End { code: disconnect.code(), reason: disconnect.reason().into(), why: Some(reason) });
    }

    /// A conversation is over that never had a client: what was written goes out, and our side is shut.
    pub fn over(&mut self, index: u32) {
        self.connection_mut(index).set(Flag::Shutting);
        self.leave(index, &End::default());
    }

    /// A connection on its way out: it is in no topic and waits for nothing but its last bytes and the peer's end.
    fn leave(&mut self, index: u32, end: &End<'_>) {
        self.ending.push(index);
        if self.connection_mut(index).set(Flag::Left) {
            return;
        }
        if self.connection_mut(index).clear(Flag::Connected) {
            self.counters.connections -= 1;
            self.tell_left(index, end.code, end.why);
            self.remember_close(index, end);
            self.tell_gone(index, end.code, &end.reason);
        } else if !self.connection(index).has(Flag::Refused) {
            self.admitting.handshakes.end();
        }
        self.leave_user(index);
        self.connection_mut(index).clear(Flag::Identified);
        loop {
            let first = self.connection(index).subscriptions.iter(&self.further).next();
            let Some(subscription) = first else { break };
            self.detach(index, subscription.topic);
        }
        if self.connection(index).has(Flag::Readable) {
            // Its session may have been paused; now the peer's end is what it waits for.
            self.readable.push_back(index);
        }
        self.revoke_all(index);
        if self.is_connecting(index) {
            // What waited for the connect reply would wait for ever.
            self.writable.push(index);
        }
        let connection = self.connection_mut(index);
        let pending = connection.extra.as_mut().map(|extra| {
            extra.proxy_header = None;
            extra.connecting = None;
            extra.info = None;
            extra.meta = None;
            (std::mem::take(&mut extra.pending), extra.asking.take())
        });
        connection.drop_empty_extra();
        let (pending, asking) = pending.unwrap_or_default();
        asking.into_iter().for_each(|asking| self.forget_answers(&asking));
        for Pending { topic, marks, .. } in pending {
            self.topics.end_pending(topic);
            self.subscription_ended(index, topic, marks);
            self.release_topic(topic);
        }
        self.schedule(index, if self.is_draining() { CLOSE_HANDSHAKE_STOPPING_MS_MAX } else { CLOSE_HANDSHAKE_MS_MAX });
    }

    /// The slot goes, the socket is closed at the turn's end.
    pub fn remove(&mut self, index: u32) {
        self.drop_outbox(index);
        self.cancel_timer(index);
        if let Some(tls) = &mut self.tls {
            tls.end(index);
        }
        let connection = self.connections.remove(index as usize);
        self.counters.phases[connection.session.phase() as usize] -= 1;
        assert!(connection.subscriptions.is_empty(), "a connection leaves its topics before it goes");
        self.programs.remove(connection.program);
        self.end_admission(index, &connection);
        self.closes.push((connection.socket, connection.token(index), connection.has(Flag::WritableParked)));
    }

    pub fn schedule_phase_deadline(&mut self, index: u32) {
        if let Some(in_ms) = self.connection(index).session.deadline_ms(&self.rules) {
            self.schedule(index, in_ms);
        }
    }

    pub fn schedule(&mut self, index: u32, in_ms: u64) {
        self.wheel.schedule(&mut Links(&mut self.connections), index, self.now_ms + in_ms);
    }

    /// When the connection's timer is due; none: it is not scheduled.
    pub fn timer_due_ms(&self, index: u32) -> Option<u64> {
        self.wheel.due_ms(&self.connection(index).timer)
    }

    fn cancel_timer(&mut self, index: u32) {
        self.wheel.cancel(&mut Links(&mut self.connections), index);
    }

    /// Runs what is due: deadlines and heartbeats, counts for home shards, expiry of history.
    pub fn run_timers<K: crate::uring::Kernel>(&mut self, kernel: &K) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(&mut Links(&mut self.connections), self.now_ms, &mut due, usize::MAX);
        for index in due.drain(..) {
            self.timer_fired(index, kernel);
        }
        self.due = due;
        self.look_at_rates();
        self.end_expired_subscriptions();
        self.send_stale_counts();
        if self.channels.next_due_ms().is_some_and(|due_ms| due_ms <= self.now_ms) {
            self.channels.expire(self.now_ms, EXPIRE_BUDGET);
        }
        if self.takes_from_clients() {
            for id in std::mem::take(&mut self.paused) {
                if let Some(index) = self.live_index(id) {
                    self.converse(index, |session, transient, rules, peer| {
                        session::resume(session, transient, rules, peer)
                    });
                }
            }
        }
    }

    /// Begins the stop.
    pub fn begin_drain(&mut self, spread_ms: u32) {
        self.must_stop_accepting = true;
        self.drain = Some(Drain {
            began_ms: self.now_ms,
            spread_ms: u64::from(spread_ms),
            connections: self.connections.len() as u64,
            told: 0,
            cursor: 0,
            next_wave_ms: self.now_ms,
        });
    }

    pub fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    pub fn is_stopped(&self) -> bool {
        self.drain.is_some() && self.connections.is_empty() && !self.mesh.is_holding() && self.deferred.is_empty()
    }

    /// While stopping: tells as many clients to reconnect as the time since the stop's begin asks for.
    pub fn drain_wave(&mut self) {
        // Copied, not taken: to whatever happens in the wave, the shard is stopping.
        let Some(mut drain) = self.drain else { return };
        let elapsed_ms = self.now_ms - drain.began_ms;
        let goal = if elapsed_ms >= drain.spread_ms {
            u64::MAX
        } else {
            (drain.connections * (elapsed_ms + DRAIN_WAVE_MS)).div_ceil(drain.spread_ms.max(1))
        };
        // Connections that are accepted meanwhile lie behind the cursor or before it; the last wave tells them all.
        if goal == u64::MAX {
            drain.cursor = 0;
        }
        // What those that leave were in has to hear of it: no more leave than that is passed on.
        while drain.told < goal && (drain.cursor as usize) < self.connections.capacity() && !self.mesh.is_holding() {
            let index = drain.cursor;
            drain.cursor += 1;
            if self.connections.contains(index as usize) {
                self.disconnect(index, Disconnect::SHUTDOWN, Reason::Shutdown);
                drain.told += 1;
            }
        }
        drain.next_wave_ms = self.now_ms + DRAIN_WAVE_MS;
        self.drain = Some(drain);
    }
}

/// The wheel's way to the timers in the slots.
struct Links<'a>(&'a mut ConnectionSlab);

impl Timers for Links<'_> {
    fn links(&mut self, index: u32) -> &mut TimerLinks {
        &mut self.0[index as usize].timer
    }
}
