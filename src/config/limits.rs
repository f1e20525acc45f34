//! `[client.limits]`: what clients, their users, their addresses and the networks of those may do, and when memory ends.

/// Limits against abuse. 0 stands for any number, unless said otherwise; `docs/limits.md` has each with its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Connections of one address, on all shards together. Default 0.
    pub address_connections_max: u32,
    /// Connections of one network, a /24 or a /64. Default 0.
    pub network_connections_max: u32,
    /// Connections that one address, or one /64, may begin in a second. Default 0.
    pub address_accepts_per_second: u32,
    /// Connections of one shard that have not come to their connect reply. Default 16,384.
    pub handshakes_max: u32,
    /// Commands of one connection in a second. Default 0.
    pub commands_per_second: u32,
    /// Commands of one user in a second, on all its connections. Default 0.
    pub user_commands_per_second: u32,
    /// Publications of one connection in a second. Default 0.
    pub publications_per_second: u32,
    /// Bytes of one connection in a second; what comes beyond waits in its socket. Default 0.
    pub received_bytes_per_second: u32,
    /// Bytes of memory that clients leave to the host, or to its cgroup. Default 64 MiB.
    pub memory_reserve_bytes: u64,
}

impl LimitsConfig {
    /// Whether the addresses of connections are counted, so that each is known until its connection ends.
    pub fn counts_addresses(&self) -> bool {
        self.address_connections_max > 0 || self.network_connections_max > 0
    }
}
