//! The timers of many connections, in the slots where they live in service.

use super::shuffle::shuffled;
use tidegate::{
    session::Session,
    shard::{
        Connection, ConnectionSlab,
        wheel::{TICK_MS, TimerLinks, Timers, Wheel},
    },
    uring::Socket,
};

/// Milliseconds between a client's pings.
const PING_MS: u64 = 25_000;

/// A shard's connections, each with a timer that is due at some time within [`PING_MS`].
pub struct Heartbeats {
    links: Links,
    wheel: Wheel,
    /// Slots in no order.
    order: Vec<u32>,
    now_ms: u64,
    due: Vec<u32>,
}

struct Links(ConnectionSlab);

impl Timers for Links {
    fn links(&mut self, index: u32) -> &mut TimerLinks {
        &mut self.0[index as usize].timer
    }
}

impl Heartbeats {
    /// Of so many connections.
    pub fn new(connections: u32) -> Self {
        let mut slots = ConnectionSlab::for_connections(connections as usize);
        for generation in 0..connections {
            slots.insert(Connection::new(Socket(3), generation, Session::default()));
        }
        let mut heartbeats = Self {
            links: Links(slots),
            wheel: Wheel::new(0),
            order: shuffled(connections),
            now_ms: 0,
            due: Vec::new(),
        };
        heartbeats.schedule(0, connections as usize);
        heartbeats
    }

    /// Gives `count` timers from the `first` on a time that spreads all of them over the interval.
    pub fn schedule(&mut self, first: usize, count: usize) {
        for position in first..first + count {
            let index = self.order[position];
            let ahead_ms = position as u64 * PING_MS / self.order.len() as u64;
            self.wheel.schedule(&mut self.links, index, self.now_ms + 1 + ahead_ms);
        }
    }

    /// Takes `count` timers from the `first` on out of the wheel.
    pub fn cancel(&mut self, first: usize, count: usize) {
        for &index in &self.order[first..first + count] {
            self.wheel.cancel(&mut self.links, index);
        }
    }

    /// A tick passes, and what was due is scheduled anew, an interval ahead: how many that were.
    pub fn tick(&mut self) -> usize {
        self.now_ms += TICK_MS;
        self.due.clear();
        self.wheel.advance(&mut self.links, self.now_ms, &mut self.due, usize::MAX);
        for &index in &self.due {
            self.wheel.schedule(&mut self.links, index, self.now_ms + PING_MS);
        }
        self.due.len()
    }
}
