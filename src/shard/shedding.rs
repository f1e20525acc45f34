//! What a shard does when memory is short: it takes no new clients, and closes some where that is not enough.
//!
//! In this order, each as far as it takes: connections that most waits for, because that is memory at once, and theirs
//! alone; handshakes, the oldest first, who have lost nothing yet; then clients, those first that came last, so that the
//! ones who come back first are those that have the least to lose by it. Of clients, a part at a time: what has been
//! closed shows in the host's memory only a moment later.

use super::{connection::Flag, state::State};
use crate::{
    limits::CONNECTION_HOST_BYTES,
    protocol::Disconnect,
    session::{Reason, TurnedAway},
};

/// Of a shard's clients, the part that is closed at once at most.
const PART_AT_ONCE: usize = 64;

impl State {
    /// The host's memory has been looked at. `shed_bytes`: what this shard is to free; 0: nothing.
    pub fn memory_measured(&mut self, is_short: bool, shed_bytes: u64) {
        self.admitting.is_memory_short = is_short;
        if shed_bytes == 0 {
            return;
        }
        let freed = self.shed_outboxes(shed_bytes);
        let freed = freed + self.shed_handshakes(shed_bytes.saturating_sub(freed));
        self.shed_newest(shed_bytes.saturating_sub(freed));
    }

    fn shed_outboxes(&mut self, wanted_bytes: u64) -> u64 {
        let mut freed = 0;
        for (bytes, index) in self.outboxes_by_size() {
            if freed >= wanted_bytes {
                break;
            }
            freed += bytes as u64 + CONNECTION_HOST_BYTES;
            self.close_with_outbox(index);
        }
        freed
    }

    fn shed_handshakes(&mut self, wanted_bytes: u64) -> u64 {
        let mut freed = 0;
        while freed < wanted_bytes
            && let Some(oldest) = self.oldest_handshake()
        {
            self.end_handshake_of(oldest.index, TurnedAway::MemoryShort);
            freed += CONNECTION_HOST_BYTES;
        }
        freed
    }

    fn shed_newest(&mut self, wanted_bytes: u64) {
        let mut clients: Vec<(u32, u32)> = self.connected().map(|index| (self.age(index), index)).collect();
        let part = clients.len().div_ceil(PART_AT_ONCE);
        let wanted = usize::try_from(wanted_bytes.div_ceil(CONNECTION_HOST_BYTES)).unwrap_or(usize::MAX).min(part);
        if wanted == 0 {
            return;
        }
        clients.select_nth_unstable(wanted - 1);
        for (_, index) in &clients[..wanted] {
            if !self.connection(*index).has(Flag::Left) {
                self.disconnect(*index, Disconnect::FORCE_RECONNECT, Reason::MemoryShort);
            }
        }
    }
}
