//! What a shard counts, and how it is told to the control thread.

use super::{
    connection::{Connection, Flag},
    state::State,
};
use crate::{
    config::SlowConsumerPolicy,
    limits::CENSUS_TOPICS_MAX,
    mesh::{Census, ChannelFigures, Histogram, Outlet, ShardFigures},
    session::{Phase, Reason},
    uring::Kernel,
};

/// Totals since the shard's start.
#[derive(Debug)]
pub struct Counters {
    pub accepted: u64,
    /// Clients connected now.
    pub connections: u64,
    /// Users with connections here now.
    pub users: u64,
    pub publications: u64,
    pub deliveries: u64,
    pub messages_sent: u64,
    pub messages_received: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub pings: u64,
    pub sends: u64,
    pub receives: u64,
    pub turns: u64,
    /// Publications not sent to slow consumers, by policy.
    pub dropped: [u64; 4],
    /// Sockets by the phase of their sessions.
    pub phases: [u64; 6],
    pub accept_to_connected: Histogram,
    pub ingest_to_socket: Histogram,
    pub turn_time: Histogram,
    pub outbox_depth: Histogram,
    /// The place of the last heartbeat that was begun within its interval.
    pub heartbeats_begun: u32,
    reasons: [u64; Reason::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            accepted: 0,
            connections: 0,
            users: 0,
            publications: 0,
            deliveries: 0,
            messages_sent: 0,
            messages_received: 0,
            bytes_sent: 0,
            bytes_received: 0,
            pings: 0,
            sends: 0,
            receives: 0,
            turns: 0,
            dropped: [0; 4],
            phases: [0; 6],
            accept_to_connected: Histogram::of_microseconds(),
            ingest_to_socket: Histogram::of_microseconds(),
            turn_time: Histogram::of_microseconds(),
            outbox_depth: Histogram::of_bytes(),
            heartbeats_begun: 0,
            reasons: [0; Reason::ALL.len()],
        }
    }
}

impl Counters {
    pub fn count(&mut self, reason: Reason) {
        self.reasons[reason as usize] += 1;
    }

    /// A session has gone from one phase to another.
    pub fn phase_changed(&mut self, from: Phase, to: Phase) {
        self.phases[from as usize] -= 1;
        self.phases[to as usize] += 1;
    }
}

impl State {
    /// Connected clients, by slab index.
    pub fn connected(&self) -> impl Iterator<Item = u32> + '_ {
        let connected = self.connections.iter().filter(|(_, connection)| connection.has(Flag::Connected));
        connected.map(|(index, _)| index as u32)
    }

    pub fn figures<K: Kernel>(&self, kernel: &K) -> ShardFigures {
        let counters = &self.counters;
        let (history_bytes, history_evicted) = self.channels.history_figures();
        let packer = self.channels.packer_figures();
        let tls = self.tls.as_ref().map(|tls| tls.figures(self.connections.len())).unwrap_or_default();
        let top_channels = self.topics.busiest().into_iter();
        ShardFigures {
            shard: self.mesh.shard,
            core: self.core,
            sockets: self.connections.len() as u64,
            connections: counters.connections,
            users_connected: counters.users,
            channels: self.topics.channels() as u64,
            subscriptions: self.topics.subscriptions(),
            outbox_bytes: self.waiting_bytes(),
            outboxes: self.backlogged.len() as u64,
            connection_bytes: self.connection_bytes() + tls.bytes,
            tls_handshakes_under_way: tls.under_way,
            tls_handshakes_waiting: tls.waiting,
            tls_handshakes_begun: tls.begun,
            tls_handshakes: tls.ended,
            tls_connections: tls.connections,
            tls_kernel_refusals: tls.refused_by_kernel,
            history_bytes,
            history_evicted,
            history_packed_payload_bytes: packer.payload_bytes,
            history_packed_bytes: packer.frame_bytes,
            history_unpacked_blocks: packer.unpacked_blocks,
            members: self.channels.members() as u64,
            users: self.channels.users() as u64,
            accepted: counters.accepted,
            publications: counters.publications,
            deliveries: counters.deliveries,
            messages_sent: counters.messages_sent,
            messages_received: counters.messages_received,
            bytes_sent: counters.bytes_sent,
            bytes_received: counters.bytes_received,
            pings: counters.pings,
            enters: kernel.enters(),
            sends: counters.sends,
            receives: counters.receives,
            other_calls: kernel.other_calls(),
            turns: counters.turns,
            states: self.states(),
            accept_to_connected: counters.accept_to_connected.clone(),
            ingest_to_socket: counters.ingest_to_socket.clone(),
            turn_time: counters.turn_time.clone(),
            outbox_depth: counters.outbox_depth.clone(),
            trace_spans_dropped: self.traces.spans_dropped,
            dropped: self.dropped(),
            reasons: Reason::ALL.iter().map(|reason| (reason.label(), counters.reasons[*reason as usize])).collect(),
            mesh_held: self.mesh.to_shards.iter().map(Outlet::held_total).sum::<u64>()
                + self.mesh.to_ingest.held_total()
                + self.mesh.to_control.held_total(),
            mesh_holding: self.mesh.held() as u64,
            slow_consumers: self.watched.slow_consumers.clone(),
            top_talkers: self.watched.top_talkers.clone(),
            top_channels: top_channels
                .map(|(name, subscribers, deliveries)| ChannelFigures { name: name.into(), subscribers, deliveries })
                .collect(),
            cohort_members: self.compression.cohorts.members(),
            cohort_waiting: self.compression.cohorts.waiting(),
            cohort_bytes: self.compression.cohorts.bytes() as u64,
            keyframes: self.compression.keyframes(),
            compression: self.compression.figures(),
        }
    }

    /// The channels with subscribers and the users among so many topics as one turn has time for.
    pub fn census(&self, from: u32) -> Census {
        let (topics, next) = self.topics.part(from, CENSUS_TOPICS_MAX);
        let mut census = Census { next, ..Census::default() };
        for topic in topics {
            let name = self.topics.name(topic);
            let is_user = self.config.client.is_personal_channel(name)
                && self.topics.members(topic).iter().any(|index| self.connection(*index).user_topic() == Some(topic));
            let is_channel = !self.topics.subscribers(topic).is_empty();
            if is_user || is_channel {
                let hash = self.hasher.hash(name);
                census.channels.extend(is_channel.then_some(hash));
                census.users.extend(is_user.then_some(hash));
            }
        }
        census
    }

    /// Publications that slow consumers were not sent, by policy.
    fn dropped(&self) -> Vec<(&'static str, u64)> {
        let policies = [
            ("disconnect", SlowConsumerPolicy::Disconnect),
            ("drop-oldest", SlowConsumerPolicy::DropOldest),
            ("latest", SlowConsumerPolicy::Latest),
            ("resync", SlowConsumerPolicy::Resync),
        ];
        policies.map(|(name, policy)| (name, self.counters.dropped[policy as usize])).to_vec()
    }

    /// Sockets by state. Those that have had their last word wait for the peer's end, whichever way.
    fn states(&self) -> Vec<(&'static str, u64)> {
        let phases = &self.counters.phases;
        let one = |phase: Phase| phases[phase as usize];
        vec![
            ("head", one(Phase::Head)),
            ("awaiting_connect", one(Phase::AwaitingConnect)),
            ("connecting", one(Phase::Connecting)),
            ("connected", one(Phase::Connected)),
            ("closing", one(Phase::Closing) + one(Phase::Ended)),
        ]
    }

    /// Bytes of the tables that exist for connections: their slots, the topics and their lists.
    fn connection_bytes(&self) -> u64 {
        let slots = self.connections.capacity() * size_of::<Connection>();
        (slots + self.further.bytes() + self.programs.bytes() + self.admitting.bytes()) as u64 + self.topics.bytes()
    }
}
