//! How often something happens to each of many, counted by all shards together, in a table whose length is fixed.
//!
//! Each key has a place in each of two rows of token buckets, by a hash that is secret, and shares it with whom chance
//! brings there. It is within its rate if one of its two buckets says so. A bucket that is full again is as good as one
//! that was never used, so nothing is ever evicted, and no flood of keys makes the table forget who is in it.
//!
//! What it costs: of `n` keys that are all beyond their rate, another key meets two with a chance of `(n / 65536)²`, and
//! is then held to what they leave. With a thousand at it, one in four thousand others is.
//!
//! Shards' clocks differ by the milliseconds between their starts, which is what a bucket may be wrong by.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::network::{Bucket, Rate};

/// Places in a row.
const PLACES: usize = 1 << 16;

const ROWS: usize = 2;

/// The buckets of many keys.
#[derive(Debug)]
pub(super) struct RateTable {
    hasher: RandomState,
    /// When each bucket is full again. Made when the first is asked for: a limit that is off costs nothing.
    buckets: OnceLock<Box<[AtomicU64]>>,
}

impl Default for RateTable {
    fn default() -> Self {
        Self { hasher: RandomState::new(), buckets: OnceLock::new() }
    }
}

impl RateTable {
    /// Whether the key may once more, at this time.
    pub fn take(&self, key: impl Hash, rate: Rate, now_ns: u64) -> bool {
        let hash = self.hasher.hash_one(key);
        let buckets = self.buckets.get_or_init(|| (0..ROWS * PLACES).map(|_| AtomicU64::new(0)).collect());
        let places = [hash as usize % PLACES, PLACES + (hash >> 32) as usize % PLACES];
        // Both are charged, whatever the first says.
        places.map(|place| take(&buckets[place], rate, now_ns)).contains(&true)
    }
}

fn take(full_at_ns: &AtomicU64, rate: Rate, now_ns: u64) -> bool {
    let mut before = full_at_ns.load(Ordering::Relaxed);
    loop {
        let mut bucket = Bucket::from_full_at_ns(before);
        let is_within = bucket.try_take(rate, 1, now_ns);
        let after = bucket.full_at_ns();
        match full_at_ns.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return is_within,
            Err(other) => before = other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn shards_count_together() {
        let table = RateTable::default();
        let rate = Rate::with_burst(10, 50).unwrap();
        let passed = std::thread::scope(|scope| {
            let shards =
                [(); 4].map(|()| scope.spawn(|| (0..1_000).filter(|_| table.take(7, rate, SECOND_NS)).count()));
            shards.map(|shard| shard.join().unwrap())
        });
        assert_eq!(passed.iter().sum::<usize>(), 50);
        assert_eq!((0..100).filter(|_| table.take(7, rate, 2 * SECOND_NS)).count(), 10);
    }

    #[test]
    fn a_flood_of_keys_makes_the_table_forget_nobody() {
        let table = RateTable::default();
        let rate = Rate::with_burst(1, 2).unwrap();
        while table.take("noisy", rate, SECOND_NS) {}
        (0..1_000_000).for_each(|key| _ = table.take(key, rate, SECOND_NS));
        assert!(!table.take("noisy", rate, SECOND_NS));
        assert!(table.take("noisy", rate, 3 * SECOND_NS));
    }

    #[test]
    fn a_thousand_that_are_beyond_their_rate_touch_hardly_anybody_else() {
        let table = RateTable::default();
        let rate = Rate::with_burst(1, 1).unwrap();
        for key in 0..1_000 {
            while table.take(key, rate, SECOND_NS) {}
        }
        let others = 1_000_000..1_002_000;
        let refused = others.filter(|key| !table.take(key, rate, SECOND_NS)).count();
        assert!(refused < 30, "{refused} of 2,000 were refused");
    }
}
