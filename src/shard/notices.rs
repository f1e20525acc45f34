//! What a shard tells its operators of single connections: who was refused and why, and who came and went.
//!
//! Owns how often one reason is told. What is told waits for the end of the turn, when the kernel can be asked where the
//! connection comes from; a connection that nobody tells of is never asked about.

use super::state::State;
use crate::{
    limits::{AUDIT_LINES_PER_REASON_MAX, LOG_LINES_PER_REASON_MAX},
    log::{AUDIT, Gate},
    session::{Noise, Reason},
    uring::Kernel,
};

/// Bounds for each reason, and what is to be told in this turn.
pub struct Notices {
    gates: Vec<Gate>,
    waiting: Vec<Notice>,
}

/// Something that was refused.
struct Notice {
    /// By slab index: it is there until the turn ends.
    connection: u32,
    client: String,
    user: String,
    channel: String,
    reason: Reason,
    /// How often the same was not told since the last time.
    suppressed: u64,
}

impl Default for Notices {
    fn default() -> Self {
        let lines_max = |reason: &Reason| match reason.noise() {
            Noise::Audit => AUDIT_LINES_PER_REASON_MAX,
            Noise::Refusal | Noise::Usual => LOG_LINES_PER_REASON_MAX,
        };
        let gates = Reason::ALL.iter().map(|reason| Gate::new(lines_max(reason))).collect();
        Self { gates, waiting: Vec::new() }
    }
}

impl State {
    /// Counts what has become of a connection, or of a command of its about this channel, and tells it if that is worth
    /// a line.
    pub fn count(&mut self, index: u32, reason: Reason, channel: &str) {
        self.counters.count(reason);
        if reason.noise() == Noise::Usual {
            return;
        }
        let Some(suppressed) = self.notices.gates[reason as usize].pass(self.now_ms) else { return };
        let notice = Notice {
            connection: index,
            client: self.client_ids.of(self.id(index)),
            user: self.user(index).to_owned(),
            channel: channel.to_owned(),
            reason,
            suppressed,
        };
        self.notices.waiting.push(notice);
    }

    /// Tells what the turn has brought.
    pub fn tell_notices<K: Kernel>(&mut self, kernel: &K) {
        for notice in std::mem::take(&mut self.notices.waiting) {
            let Notice { connection, client, user, channel, reason, suppressed } = notice;
            // Behind a balancer it is the balancer that the kernel knows.
            let told = self.admitting.address(connection).map(|address| address.to_string());
            let address = told.or_else(|| {
                let address = kernel.peer_address(self.connection(connection).socket);
                address.map(|address| address.to_string())
            });
            let address = address.unwrap_or_default();
            let (shard, reason_label) = (self.mesh.shard, reason.label());
            let [client, user, channel, address] = [&*client, &user, &channel, &address];
            if reason.noise() == Noise::Audit {
                tracing::warn!(
                    target: AUDIT, reason = reason_label, address, client, user, channel, shard, suppressed,
                    "a client was refused"
                );
            } else {
                tracing::warn!(
                    reason = reason_label,
                    address,
                    client,
                    user,
                    channel,
                    shard,
                    suppressed,
                    "a client was refused or ended"
                );
            }
        }
    }

    /// A client has its connect reply.
    pub fn tell_connected(&self, index: u32) {
        if tracing::enabled!(tracing::Level::DEBUG) {
            let (client, user) = (self.client_ids.of(self.id(index)), self.user(index));
            let transport = self.connection(index).form.transport();
            tracing::debug!(client, user, transport, shard = self.mesh.shard, "connected");
        }
    }

    /// A client that had its connect reply has gone, or is about to.
    pub fn tell_left(&self, index: u32, code: u16, reason: Option<Reason>) {
        if tracing::enabled!(tracing::Level::DEBUG) {
            let (client, user) = (self.client_ids.of(self.id(index)), self.user(index));
            let reason = reason.map_or("", Reason::label);
            tracing::debug!(client, user, code, reason, shard = self.mesh.shard, "disconnected");
        }
    }
}
