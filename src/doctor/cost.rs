//! What connections cost the host: measured, and named one by one.
//!
//! Measured on Linux 6.18 with 10,000 to 15,000 loopback connections; on 6.1 a socket costs 3 % less.

use crate::limits::TLS_CHANNEL_BYTES_MAX;

/// Kernel memory of an accepted TCP socket with its inode, file and directory entry, in bytes.
pub const SOCKET_BYTES: u64 = 3_870;

/// Kernel memory of a multishot poll on it, in bytes.
pub const POLL_BYTES: u64 = 264;

/// The server's own memory for an idle, subscribed client, in bytes: the budget, not the usual.
pub const USER_BYTES: u64 = 120;

/// What an idle connection keeps for TLS, in bytes: its keys, their place in the shard's table, and the allocator's part.
pub const TLS_BYTES: u64 = TLS_CHANNEL_BYTES_MAX as u64 + 32;

/// Kernel memory of an idle connection whose records the kernel seals and opens, in bytes: with AES-GCM by AES-NI on
/// Linux 6.1, for both directions. `ChaCha20-Poly1305` takes 2,470.
pub const KERNEL_TLS_BYTES: u64 = 4_080;

/// What an idle connection costs, in bytes.
pub const IDLE_BYTES: u64 = SOCKET_BYTES + POLL_BYTES + USER_BYTES;

/// Kernel memory of one small message in a socket's queue, in bytes: its buffer's head and clone.
pub const QUEUED_MESSAGE_BYTES: u64 = 1_100;

/// What a connection costs while one small message is on its way to it, in bytes.
pub const SENDING_BYTES: u64 = IDLE_BYTES + QUEUED_MESSAGE_BYTES;

/// Pages of `net.ipv4.tcp_mem` that a connection is charged while a message of at most 2 KiB waits for its
/// acknowledgement. An idle connection is charged none.
pub const SENDING_PAGES: u64 = 1;

/// The process before its first client, in bytes: program, control and ingest threads, allocator.
pub const PROCESS_BYTES: u64 = 32 << 20;

/// One shard before its first client, in bytes: scratch buffer, ring, queues.
pub const SHARD_BYTES: u64 = 4 << 20;

/// Locked memory that a ring is charged, in bytes: 200 KiB for a shard's, rounded up.
pub const RING_LOCKED_BYTES: u64 = 256 << 10;

/// Threads beside shards: control, ingest, and the kernel's workers of a few rings.
pub const OTHER_THREADS: u64 = 18;

/// Descriptors per shard beside its clients: listener, ring, bell.
pub const SHARD_DESCRIPTORS: u64 = 4;

/// Descriptors of the process that belong to no shard, no producer and no visitor.
pub const PROCESS_DESCRIPTORS: u64 = 32;
