//! The rates of connections, while they have any to speak of; what comes too fast waits in its socket.
//!
//! Invariants:
//! - A connection with buckets is in one line, by which they are looked at when they should be full, and then forgotten.
//! - Whoever is made to wait counts as readable until then, as arrivals are told of once.

use std::collections::{BTreeSet, VecDeque};

use super::{connection::Flag, state::State};
use crate::{
    network::Rate,
    session::{Rates, Reason, TooFrequent},
};

/// Connections whose rates are looked at in one turn.
const LOOKS_PER_TURN_MAX: usize = 1_024;

/// Connections with rates.
#[derive(Default)]
pub struct Rated {
    /// When their buckets should be full, whose, and their generations. Not in order of time: each fills within seconds.
    line: VecDeque<(u64, u32, u32)>,
    /// Those that nothing is received from, by the time when it is again.
    waiting: BTreeSet<(u64, u32, u32)>,
}

/// What a connection is charged for, and until when nothing is received from it.
#[derive(Default)]
pub struct Charged {
    rates: Rates,
    waits_until_ms: u64,
}

impl Rated {
    /// When there is something to look at.
    pub fn next_due_ms(&self) -> Option<u64> {
        let looked_at = self.line.front().map(|(due_ms, ..)| *due_ms);
        let waiting = self.waiting.first().map(|(due_ms, ..)| *due_ms);
        [looked_at, waiting].into_iter().flatten().min()
    }
}

impl State {
    /// Charges a client's command.
    pub fn charge_command(&mut self, index: u32, is_publication: bool) -> Result<(), TooFrequent> {
        let now_ns = self.now_ms * 1_000_000;
        let limits = &self.config.client.limits;
        let user_rate = Rate::new(limits.user_commands_per_second);
        let mut outcome = Ok(());
        if Rates::limits_commands(limits, is_publication) {
            let limits = limits.clone();
            outcome = self.charge(index, |charged| charged.rates.command(&limits, is_publication, now_ns));
        }
        if let Some(rate) = user_rate
            && outcome.is_ok()
            && !self.user(index).is_empty()
            && !self.admission.may_command(self.user(index), rate, now_ns)
        {
            outcome = Err(TooFrequent { reason: Reason::UserCommandsTooFrequent, is_far_beyond: false });
        }
        outcome
    }

    /// Charges what was received: whether nothing more is to be for a while.
    pub fn charge_received(&mut self, index: u32, bytes: usize) -> bool {
        if self.config.client.limits.received_bytes_per_second == 0 {
            return false;
        }
        let limits = self.config.client.limits.clone();
        let now_ms = self.now_ms;
        let waits_until_ms = self.charge(index, |charged| {
            let wait_ns = charged.rates.receive(&limits, bytes, now_ms * 1_000_000);
            charged.waits_until_ms = now_ms + wait_ns.div_ceil(1_000_000);
            charged.waits_until_ms
        });
        if waits_until_ms <= now_ms {
            return false;
        }
        let connection = self.connection_mut(index);
        connection.set(Flag::Readable);
        let generation = connection.generation;
        self.rated.waiting.insert((waits_until_ms, index, generation));
        self.count(index, Reason::BytesTooFrequent, "");
        true
    }

    /// Whether nothing is to be received from a connection now.
    pub fn is_waiting(&self, index: u32) -> bool {
        let charged = self.connection(index).extra.as_ref().and_then(|extra| extra.charged.as_ref());
        charged.is_some_and(|charged| charged.waits_until_ms > self.now_ms)
    }

    fn charge<T>(&mut self, index: u32, charge: impl FnOnce(&mut Charged) -> T) -> T {
        let connection = &mut self.connections[index as usize];
        let generation = connection.generation;
        let charged = &mut connection.extra_mut().charged;
        let is_new = charged.is_none();
        let charged = charged.get_or_insert_default();
        let outcome = charge(charged);
        if is_new {
            self.rated.line.push_back((due_ms(charged), index, generation));
        }
        outcome
    }

    /// Forgets what is full again, and lets those go on whose wait is over.
    pub fn look_at_rates(&mut self) {
        while let Some(&(due_ms, index, generation)) = self.rated.waiting.first()
            && due_ms <= self.now_ms
        {
            self.rated.waiting.pop_first();
            let connection = self.connections.get(index as usize);
            if connection
                .is_some_and(|connection| connection.generation == generation && connection.has(Flag::Readable))
            {
                self.readable.push_back(index);
            }
        }
        for _ in 0..LOOKS_PER_TURN_MAX {
            let Some(&(due_ms, index, generation)) = self.rated.line.front() else { break };
            if due_ms > self.now_ms {
                break;
            }
            self.rated.line.pop_front();
            self.forget_rates(index, generation);
        }
        if self.rated.line.is_empty() {
            self.rated.line.shrink_to(LOOKS_PER_TURN_MAX);
        }
    }

    fn forget_rates(&mut self, index: u32, generation: u32) {
        let now_ms = self.now_ms;
        let connection = self.connections.get_mut(index as usize).filter(|one| one.generation == generation);
        let Some(connection) = connection else { return };
        let Some(extra) = connection.extra.as_mut() else { return };
        match extra.charged.as_ref().map(|charged| due_ms(charged)) {
            Some(due_ms) if due_ms > now_ms => self.rated.line.push_back((due_ms, index, generation)),
            _ => {
                extra.charged = None;
                connection.drop_empty_extra();
            }
        }
    }
}

fn due_ms(charged: &Charged) -> u64 {
    charged.rates.full_at_ns().div_ceil(1_000_000)
}
