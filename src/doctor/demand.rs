//! What a host is examined for: the number of connections, and what the configuration takes beside them.

use super::cost::{
    KERNEL_TLS_BYTES, OTHER_THREADS, PROCESS_BYTES, PROCESS_DESCRIPTORS, RING_LOCKED_BYTES, SHARD_BYTES,
    SHARD_DESCRIPTORS, TLS_BYTES,
};
use crate::{
    config::Config,
    limits::{ADMIN_CONNECTIONS_MAX, uplinks_reserved},
};

/// What the server is to hold.
#[derive(Debug, Clone)]
pub struct Demand {
    /// Clients' connections.
    pub connections: u64,
    /// What set that number, for messages.
    pub source: &'static str,
    /// Cores that get a shard each.
    pub shards: Vec<u32>,
    /// Producers' connections at most.
    pub producers: u64,
    /// Connections to the operators' port and to the server API's at most.
    pub operators: u64,
    /// Bytes that each client's connection keeps for TLS, in the server or in the kernel; 0 where clients speak none.
    pub tls_bytes: u64,
    /// Whether clients speak TLS and the kernel is to seal and open their records.
    pub wants_kernel_tls: bool,
    /// Bytes that may wait for slow clients, in all shards together.
    pub outboxes_bytes: u64,
}

impl Demand {
    /// What a configuration demands; `connections`, if given, in place of its `client.connections_max`.
    pub fn new(config: &Config, connections: Option<u32>) -> Self {
        let shards = config.shards.cores.clone();
        let tls = &config.client.tls;
        Self {
            connections: u64::from(connections.unwrap_or(config.client.connections_max)),
            source: if connections.is_some() { "--connections" } else { "client.connections_max" },
            producers: u64::from(config.ingest.connections_max),
            operators: (ADMIN_CONNECTIONS_MAX + config.api.connections_max()) as u64,
            tls_bytes: match (tls.port.is_on(), tls.kernel) {
                (false, _) => 0,
                (true, false) => TLS_BYTES,
                (true, true) => KERNEL_TLS_BYTES,
            },
            wants_kernel_tls: tls.port.is_on() && tls.kernel,
            outboxes_bytes: config.shards.outboxes_bytes_max.saturating_mul(shards.len() as u64),
            shards,
        }
    }

    /// Descriptors that are not clients'.
    pub fn other_descriptors(&self) -> u64 {
        let uplinks = u64::from(uplinks_reserved(u32::try_from(self.connections).unwrap_or(u32::MAX)));
        PROCESS_DESCRIPTORS + self.shard_count() * SHARD_DESCRIPTORS + self.producers + self.operators + uplinks
    }

    /// Bytes of the process before its first client.
    pub fn fixed_bytes(&self) -> u64 {
        PROCESS_BYTES + self.shard_count() * SHARD_BYTES
    }

    /// Bytes that rings of shards and of the ingest thread lock.
    pub fn locked_bytes(&self) -> u64 {
        (self.shard_count() + 1) * RING_LOCKED_BYTES
    }

    /// Threads.
    pub fn threads(&self) -> u64 {
        self.shard_count() + OTHER_THREADS
    }

    /// Shards.
    pub fn shard_count(&self) -> u64 {
        self.shards.len() as u64
    }
}
