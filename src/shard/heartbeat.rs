//! What a connection's one timer means: deadlines of its phases, and the heartbeat.

use bytes::Bytes;

use super::{connection::Flag, state::State};
use crate::{
    protocol::Disconnect,
    session::{self, Reason, Renewal},
    uring::{Kernel, PathQuality},
};

/// A network is bad when a round trip takes longer than this part of the pong's time.
const ROUND_TRIP_PART_OF_PONG: u32 = 8;

/// Clients that are pinged together.
const HEARTBEATS_TOGETHER: u32 = 32;

impl State {
    /// The first ping comes at some time in the second half of the interval: evenly spread, however many clients
    /// connect together. A few that connect one after the other are pinged together, because what memory holds of them,
    /// here and in the kernel, lies side by side.
    pub fn begin_heartbeat(&mut self, index: u32) {
        let ping_ms = u64::from(self.config.client.ping_ms);
        // Multiples of the golden ratio, taken without their whole part, fill an interval evenly at any count.
        let group = self.counters.heartbeats_begun / HEARTBEATS_TOGETHER;
        self.counters.heartbeats_begun = self.counters.heartbeats_begun.wrapping_add(1);
        let spread = (ping_ms / 2 * u64::from(group.wrapping_mul(0x9e37_79b9))) >> 32;
        self.schedule_heartbeat(index, ping_ms - ping_ms / 2 + spread);
    }

    pub fn timer_fired<K: Kernel>(&mut self, index: u32, kernel: &K) {
        if self.connection(index).has(Flag::Dropping) {
            return self.give_up(index);
        }
        if self.connection(index).session.is_connected() {
            return self.heartbeat(index, kernel);
        }
        self.deadline_passed(index);
    }

    fn deadline_passed(&mut self, index: u32) {
        if self.is_shaking_hands(index) {
            self.count(index, Reason::TlsHandshakeTimeout, "");
            return self.let_go(index);
        }
        self.converse(index, |session, _, _, peer| session::deadline_passed(session, peer));
        if self.connection(index).has(Flag::Dropping) {
            self.drop_outbox(index);
        }
    }

    /// The socket has had its time to take the last bytes: it goes with whatever it did not take.
    fn give_up(&mut self, index: u32) {
        self.drop_outbox(index);
        self.ending.push(index);
    }

    fn heartbeat<K: Kernel>(&mut self, index: u32, kernel: &K) {
        let client = &self.config.client;
        let (ping_ms, pong_ms_max, grace_ms) =
            (u64::from(client.ping_ms), u64::from(client.pong_ms_max), u64::from(client.pong_grace_ms));
        if self.is_expired(index) && self.is_refreshed_by_hook(index) {
            self.ask_refresh(index);
            // The timer was cut short. A ping that comes early does no harm; the end of a pong's time would.
            if self.connection(index).session.awaiting_pong() {
                return self.schedule_heartbeat(index, pong_ms_max);
            }
        } else if self.is_expired(index) {
            return self.disconnect(index, Disconnect::CONNECTION_EXPIRED, Reason::ConnectionExpired);
        }
        if self.is_worn_out(index, kernel) {
            return self.disconnect(index, Disconnect::FORCE_RECONNECT, Reason::TlsKeysWornOut);
        }
        let connection = self.connection_mut(index);
        if !connection.has(Flag::Pinged) {
            connection.set(Flag::Pinged);
            self.ping(index);
            return self.schedule_heartbeat(index, pong_ms_max);
        }
        if connection.session.awaiting_pong() {
            let is_graced = connection.set(Flag::Graced);
            let socket = connection.socket;
            if is_graced || !kernel.path_quality(socket).is_some_and(|quality| is_bad(quality, pong_ms_max as u32)) {
                return self.deadline_passed(index);
            }
            return self.schedule_heartbeat(index, grace_ms);
        }
        connection.clear(Flag::Pinged);
        let spent_ms = if connection.clear(Flag::Graced) { pong_ms_max + grace_ms } else { pong_ms_max };
        self.schedule_heartbeat(index, ping_ms.saturating_sub(spent_ms));
    }

    fn ping(&mut self, index: u32) {
        let start = self.turn.replies.len();
        let connection = &mut self.connections[index as usize];
        session::ping(&mut connection.session, connection.form, &mut self.turn.replies);
        self.counters.pings += 1;
        self.counters.messages_sent += 1;
        self.give_replies(index, start);
    }

    /// The client has brought a new token.
    pub fn refresh(&mut self, index: u32, renewal: Renewal) {
        let Renewal { expires_at, info, meta } = renewal;
        let pong_ms_max = u64::from(self.config.client.pong_ms_max);
        let due_ms = self.timer_due_ms(index).unwrap_or(self.now_ms);
        if let Some(meta) = meta {
            self.connection_mut(index).extra_mut().meta = Some(meta[..].into());
        }
        self.set_expiry(index, expires_at, info);
        // The timer may have been cut short by the old expiry. A ping that comes early does no harm; the end of a pong's
        // time would.
        let is_awaiting = self.connection(index).session.awaiting_pong();
        let in_ms = if is_awaiting { pong_ms_max } else { due_ms.saturating_sub(self.now_ms) };
        self.schedule_heartbeat(index, in_ms);
    }

    /// When a connection expires, in seconds since 1970, and what others see of its user, if that changes.
    pub fn set_expiry(&mut self, index: u32, expires_at: Option<u64>, info: Option<Bytes>) {
        let connection = self.connection_mut(index);
        connection.expires_unix_seconds = expires_at.map_or(0, |at| u32::try_from(at).unwrap_or(u32::MAX));
        let is_new_info = info.is_some() && info != connection.extra.as_ref().and_then(|extra| extra.info.clone());
        if is_new_info {
            connection.extra_mut().info = info;
            self.client_renewed(index);
        }
    }

    fn is_expired(&self, index: u32) -> bool {
        self.expiry_in_ms(index) == Some(0)
    }

    /// Milliseconds until an expired token ends the connection.
    fn expiry_in_ms(&self, index: u32) -> Option<u64> {
        let expires = u64::from(self.connection(index).expires_unix_seconds);
        // Clients are given time to bring another token; the back end is asked on time.
        let is_by_hook = expires != 0 && self.is_refreshed_by_hook(index);
        let grace_ms = if is_by_hook { 0 } else { self.config.client.expired_grace_ms };
        let ends = expires + u64::from(grace_ms).div_ceil(1000);
        (expires != 0).then(|| ends.saturating_sub(self.now_unix_seconds) * 1000)
    }

    fn schedule_heartbeat(&mut self, index: u32, in_ms: u64) {
        let in_ms = self.expiry_in_ms(index).map_or(in_ms, |expiry_in_ms| expiry_in_ms.min(in_ms));
        self.schedule(index, in_ms);
    }
}

/// TCP is resending, or a round trip takes so long that a pong on time cannot be expected.
fn is_bad(quality: PathQuality, pong_ms_max: u32) -> bool {
    quality.retransmits > 0 || quality.round_trip_ms > pong_ms_max / ROUND_TRIP_PART_OF_PONG
}
