//! Published keys (JWKS): when they are fetched, and whom an answer is due.
//!
//! Owns the last set that was fetched, and the decisions; pure, as time and outcomes are handed in. Fetching and sending
//! is the control loop's part.
//!
//! Invariants:
//! - An answer to a shard rests on a fetch that began after its question: what is not in the set then is not published,
//!   and a client that named it can be refused for good.
//! - One fetch at a time, and none sooner than [`KEY_SET_INTERVAL_MS_MIN`] after the last began: clients that make up
//!   names of keys cannot make this server a burden to the publisher.
//! - A set is replaced by another only. While the publisher is down, the last one counts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{limits::KEY_SET_INTERVAL_MS_MIN, protocol::KeySet};

const INTERVAL_MIN: Duration = Duration::from_millis(KEY_SET_INTERVAL_MS_MIN);

/// The keys of one publisher.
pub struct KeySets {
    refresh: Duration,
    current: Arc<KeySet>,
    /// Shards that have asked since the fetch under way began.
    waiting: Vec<u16>,
    /// Shards that the fetch under way will answer; none: there is none.
    fetching_for: Option<Vec<u16>>,
    /// When the last fetch began.
    began_at: Option<Instant>,
    /// When the next is due even if nobody asks.
    due_at: Instant,
    figures: KeySetFigures,
}

/// What is counted of a publisher.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeySetFigures {
    /// Fetches that brought a set.
    pub fetched: u64,
    /// Fetches that did not.
    pub failed: u64,
    /// Keys in the last set.
    pub keys: usize,
    /// When it was fetched.
    pub fetched_at: Option<Instant>,
}

/// What the caller has to do now.
#[derive(Debug, PartialEq, Eq)]
pub enum KeySetStep {
    /// Fetch, and tell the outcome.
    Fetch,
    /// Ask again then.
    WaitUntil(Instant),
    /// Ask again when the fetch under way has an outcome.
    WaitForFetch,
}

/// What follows from an outcome.
pub struct Fetched {
    /// The keys that count now.
    pub keys: Arc<KeySet>,
    /// Whether they are new to the shards.
    pub is_new: bool,
    /// Shards that wait for an answer.
    pub asked_by: Vec<u16>,
}

impl KeySets {
    /// The first fetch is due at once.
    pub fn new(refresh: Duration, now: Instant) -> Self {
        Self {
            refresh,
            current: Arc::default(),
            waiting: Vec::new(),
            fetching_for: None,
            began_at: None,
            due_at: now,
            figures: KeySetFigures::default(),
        }
    }

    /// From now on the keys are fetched anew after this time.
    pub fn set_refresh(&mut self, refresh: Duration, now: Instant) {
        self.refresh = refresh;
        self.due_at = self.due_at.min(now + refresh);
    }

    /// The shards that wait for an answer: another publisher is to give it.
    pub fn into_waiting(self) -> impl Iterator<Item = u16> {
        self.fetching_for.unwrap_or_default().into_iter().chain(self.waiting)
    }

    /// A client of this shard names a key that the shard does not have.
    pub fn asked(&mut self, shard: u16) {
        self.waiting.push(shard);
    }

    /// Whether to fetch.
    pub fn step(&mut self, now: Instant) -> KeySetStep {
        if self.fetching_for.is_some() {
            return KeySetStep::WaitForFetch;
        }
        let wanted_at = if self.waiting.is_empty() { self.due_at } else { now };
        let at = self.began_at.map_or(wanted_at, |began_at| wanted_at.max(began_at + INTERVAL_MIN));
        if at > now {
            return KeySetStep::WaitUntil(at);
        }
        self.began_at = Some(now);
        self.fetching_for = Some(std::mem::take(&mut self.waiting));
        KeySetStep::Fetch
    }

    /// The fetch under way has ended; none: without a set.
    pub fn fetched(&mut self, keys: Option<KeySet>, now: Instant) -> Fetched {
        let asked_by = self.fetching_for.take().unwrap_or_default();
        let is_new = keys.is_some();
        match keys {
            Some(keys) => {
                self.figures.fetched += 1;
                self.figures.keys = keys.len();
                self.figures.fetched_at = Some(now);
                self.current = Arc::new(keys);
                self.due_at = now + self.refresh;
            }
            None => {
                self.figures.failed += 1;
                self.due_at = now + INTERVAL_MIN.max(self.refresh / RETRY_PART_OF_REFRESH);
            }
        }
        Fetched { keys: Arc::clone(&self.current), is_new, asked_by }
    }

    /// For the metrics.
    pub fn figures(&self) -> KeySetFigures {
        self.figures
    }
}

/// After a failure the next attempt is due after this part of the interval.
const RETRY_PART_OF_REFRESH: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_secs(600);

    fn key_set() -> Option<KeySet> {
        let json = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/jwks.json")).expect("a file");
        Some(KeySet::parse(&json).expect("keys"))
    }

    #[test]
    fn an_answer_rests_on_a_fetch_that_began_after_the_question() {
        let start = Instant::now();
        let mut sets = KeySets::new(REFRESH, start);
        sets.asked(1);
        assert_eq!(sets.step(start), KeySetStep::Fetch);
        sets.asked(2);
        assert_eq!(sets.step(start), KeySetStep::WaitForFetch);
        assert_eq!(sets.fetched(key_set(), start).asked_by, [1]);
        assert_eq!(sets.step(start), KeySetStep::WaitUntil(start + INTERVAL_MIN));
        sets.asked(0);
        assert_eq!(sets.step(start + INTERVAL_MIN), KeySetStep::Fetch);
        let fetched = sets.fetched(key_set(), start + INTERVAL_MIN);
        assert_eq!((fetched.asked_by, fetched.is_new), (vec![2, 0], true));
    }

    #[test]
    fn who_waits_for_one_publisher_can_be_answered_by_the_next() {
        let start = Instant::now();
        let mut sets = KeySets::new(REFRESH, start);
        sets.asked(1);
        assert_eq!(sets.step(start), KeySetStep::Fetch);
        sets.asked(2);
        let mut next = KeySets::new(REFRESH, start);
        sets.into_waiting().for_each(|shard| next.asked(shard));
        assert_eq!(next.step(start), KeySetStep::Fetch);
        assert_eq!(next.fetched(key_set(), start).asked_by, [1, 2]);
        next.set_refresh(REFRESH / 2, start);
        assert_eq!(next.step(start), KeySetStep::WaitUntil(start + REFRESH / 2));
    }

    #[test]
    fn sets_are_fetched_again_before_anybody_asks() {
        let start = Instant::now();
        let mut sets = KeySets::new(REFRESH, start);
        assert_eq!(sets.step(start), KeySetStep::Fetch);
        sets.fetched(key_set(), start);
        assert_eq!(sets.step(start), KeySetStep::WaitUntil(start + REFRESH));
        assert_eq!(sets.step(start + REFRESH), KeySetStep::Fetch);
    }

    #[test]
    fn a_publisher_that_is_down_is_asked_sooner_and_its_last_keys_count() {
        let start = Instant::now();
        let mut sets = KeySets::new(REFRESH, start);
        assert_eq!(sets.step(start), KeySetStep::Fetch);
        sets.fetched(key_set(), start);
        sets.asked(0);
        let later = start + INTERVAL_MIN;
        assert_eq!(sets.step(later), KeySetStep::Fetch);
        let fetched = sets.fetched(None, later);
        assert_eq!((fetched.keys.is_empty(), fetched.is_new, fetched.asked_by), (false, false, vec![0]));
        assert_eq!(sets.step(later), KeySetStep::WaitUntil(later + REFRESH / RETRY_PART_OF_REFRESH));
        let figures = KeySetFigures { fetched: 1, failed: 1, keys: 7, fetched_at: Some(start) };
        assert_eq!(sets.figures(), figures);
    }
}
