//! What the console sees of single connections: who reads slowest, who sends most, and why the last ones ended.
//!
//! Owns a bounded list of ends, and counts of what connections send, which are kept only while a console is open: an
//! unwatched shard pays a comparison for each receive.

use std::collections::VecDeque;

use super::{peer::End, state::State};
use crate::{
    limits::{CLOSES_KEPT_MAX, CONSOLE_CLIENTS_MAX, CONSOLE_CLOSES_MAX, TALKERS_COUNTED_MAX},
    mesh::{Answer, Close, ConnectionId, ReplyTo, SlowConsumer, Talker},
    session::Reason,
};

/// Milliseconds for which one look of a console keeps the counting up.
const WATCH_MS: u64 = 5_000;

/// Milliseconds of counting that a rate rests on at least.
const RATE_MS_MIN: u64 = 900;

/// What is kept for consoles.
#[derive(Default)]
pub struct Watched {
    closes: VecDeque<Closed>,
    talkers: Talkers,
    /// Until when what connections send is counted.
    until_ms: u64,
    /// What the last look has found.
    pub slow_consumers: Vec<SlowConsumer>,
    /// The same of those that send most.
    pub top_talkers: Vec<Talker>,
}

/// The end of a connection that was a client's.
struct Closed {
    connection: ConnectionId,
    user: Box<str>,
    code: u16,
    reason: Option<Reason>,
    at_unix_seconds: u64,
}

/// The connections that send most, out of any number, in little memory: one that is not counted takes the place of the
/// one with the least, and inherits its count, which is then its possible error (Metwally, Agrawal and El Abbadi,
/// "Efficient computation of frequent and top-k elements in data streams", 2005).
#[derive(Default)]
struct Talkers {
    counted: Vec<Counted>,
    since_ms: u64,
}

struct Counted {
    index: u32,
    generation: u32,
    bytes: u64,
    error: u64,
}

impl Talkers {
    fn add(&mut self, index: u32, generation: u32, bytes: u64) {
        let is_it = |counted: &&mut Counted| counted.index == index && counted.generation == generation;
        if let Some(counted) = self.counted.iter_mut().find(is_it) {
            counted.bytes += bytes;
        } else if self.counted.len() < TALKERS_COUNTED_MAX {
            self.counted.push(Counted { index, generation, bytes, error: 0 });
        } else if let Some(least) = self.counted.iter_mut().min_by_key(|counted| counted.bytes) {
            *least = Counted { index, generation, bytes: least.bytes + bytes, error: least.bytes };
        }
    }

    /// Those that have certainly sent most, and begins anew.
    fn take(&mut self, now_ms: u64) -> Vec<Counted> {
        self.since_ms = now_ms;
        let mut counted = std::mem::take(&mut self.counted);
        counted.sort_by_key(|counted| std::cmp::Reverse(counted.bytes - counted.error));
        counted.truncate(CONSOLE_CLIENTS_MAX);
        counted.retain(|counted| counted.bytes > counted.error);
        counted
    }
}

impl State {
    /// A connection has sent bytes.
    pub fn count_talker(&mut self, index: u32, bytes: usize) {
        if self.now_ms < self.watched.until_ms {
            let generation = self.connection(index).generation;
            self.watched.talkers.add(index, generation, bytes as u64);
        }
    }

    /// A client's connection ends.
    pub fn remember_close(&mut self, index: u32, end: &End<'_>) {
        if self.watched.closes.len() == CLOSES_KEPT_MAX {
            self.watched.closes.pop_front();
        }
        let closed = Closed {
            connection: self.id(index),
            user: self.user(index).into(),
            code: end.code,
            reason: end.why,
            at_unix_seconds: self.now_unix_seconds,
        };
        self.watched.closes.push_back(closed);
    }

    /// A console looks.
    pub fn look_closely(&mut self) {
        if self.watched.until_ms <= self.now_ms {
            self.watched.talkers.take(self.now_ms);
            self.watched.top_talkers.clear();
        }
        self.watched.until_ms = self.now_ms + WATCH_MS;
        let took_ms = self.now_ms - self.watched.talkers.since_ms;
        if took_ms >= RATE_MS_MIN {
            let counted = self.watched.talkers.take(self.now_ms);
            self.watched.top_talkers = counted.iter().filter_map(|counted| self.talker(counted, took_ms)).collect();
        }
        self.watched.slow_consumers = self.slowest();
    }

    fn talker(&self, counted: &Counted, took_ms: u64) -> Option<Talker> {
        let connection = self.connections.get(counted.index as usize)?;
        (connection.generation == counted.generation).then(|| Talker {
            client: self.client_ids.of(self.id(counted.index)),
            user: self.user(counted.index).to_owned(),
            bytes_per_second: (counted.bytes - counted.error) as f64 * 1000.0 / took_ms as f64,
        })
    }

    /// The connections with the largest outboxes.
    fn slowest(&self) -> Vec<SlowConsumer> {
        let bytes = |index: u32| self.outbox(index).map_or(0, |outbox| outbox.bytes() as u64);
        let mut slow: Vec<(u64, u32)> = self.backlogged.iter().map(|index| (bytes(*index), *index)).collect();
        if slow.len() > CONSOLE_CLIENTS_MAX {
            slow.select_nth_unstable_by(CONSOLE_CLIENTS_MAX, |left, right| right.cmp(left));
            slow.truncate(CONSOLE_CLIENTS_MAX);
        }
        slow.sort_unstable_by(|left, right| right.cmp(left));
        let client = |index: u32| (self.client_ids.of(self.id(index)), self.user(index).to_owned());
        slow.into_iter()
            .map(|(bytes, index)| {
                let (client, user) = client(index);
                SlowConsumer { client, user, bytes }
            })
            .collect()
    }

    /// How a user's last connections have ended, the newest first.
    pub fn tell_closes(&mut self, user: &str, reply_to: ReplyTo) {
        let closes = self.watched.closes.iter().rev().filter(|closed| &*closed.user == user);
        let closes = closes.map(|closed| Close {
            client: self.client_ids.of(closed.connection),
            code: closed.code,
            reason: closed.reason.map_or("", Reason::label),
            at_unix_seconds: closed.at_unix_seconds,
        });
        let answer = Answer::Closes(closes.take(CONSOLE_CLOSES_MAX).collect());
        self.answer(reply_to, answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_most_is_found_among_many() {
        let mut talkers = Talkers::default();
        for round in 0..1_000 {
            talkers.add(7, 1, 100);
            talkers.add(9, 1, 50);
            // As many as there are, each with a word now and then.
            talkers.add(1_000 + round, 1, 1);
        }
        let found = talkers.take(5);
        let certain: Vec<_> =
            found.iter().take(2).map(|counted| (counted.index, counted.bytes - counted.error)).collect();
        assert_eq!(certain, [(7, 100_000), (9, 50_000)]);
        assert!(talkers.take(6).is_empty(), "it begins anew");
    }

    #[test]
    fn an_index_that_is_used_again_is_another_connection() {
        let mut talkers = Talkers::default();
        talkers.add(7, 1, 100);
        talkers.add(7, 2, 30);
        let found: Vec<_> = talkers.take(5).iter().map(|counted| (counted.generation, counted.bytes)).collect();
        assert_eq!(found, [(1, 100), (2, 30)]);
    }
}
