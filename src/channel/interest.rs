//! Which shards have subscribers of a channel, and how many.
//!
//! Owns one compact entry per channel with subscribers, keyed by the 64-bit hash of its name and
//! by nothing else: a personal channel per user is the common case, a million of them on a shard,
//! and their names are held already by the shards that their subscribers live on. An entry is 10
//! bytes, in a bucket with some twenty others that is as long as they are and sorted by hash; with
//! its part of the bucket, a channel costs some 12 bytes at any number of channels.
//!
//! Invariants:
//! - Counts are absolute: a shard says how many subscribers it has now, so a count that was told
//!   twice is still right, and the last one told holds.
//! - An entry exists only while some shard has a subscriber; otherwise channels that nobody
//!   listens to would keep their memory.
//! - A channel whose subscribers are all on one shard (every personal channel) needs no memory
//!   beside its entry; the counts of several shards are in a list of their own.
//!
//! Two names with one hash share an entry, and each shard's count is what it last said of either.
//! Their publications go to shards with subscribers of the other, which find none and drop them;
//! counts are a little wrong; and a publication can miss a shard after it has said 0 for one of
//! the two, until it speaks again for the other. The hash's keys are random, so nobody can choose
//! such names; among a million channels there is a pair once in 37 million server starts.

use std::collections::BTreeMap;

use crate::{limits::SHARDS_MAX, mesh::bucket};

/// Entries of a bucket, on average. More would cost time at each look, fewer bytes for each bucket.
const BUCKET_ENTRIES: usize = 24;

/// A table has no fewer buckets.
const BUCKETS_MIN: usize = 16;

/// Who wants a channel's publications.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Interest {
    /// Shards with subscribers, by bit.
    pub shards: u64,
    /// Subscribers on all shards.
    pub subscribers: u32,
}

/// The interest in every channel of this home shard. The table is one of linear hashing: it grows by one bucket at a time,
/// so no turn of the loop waits for a million entries to move.
pub(super) struct InterestTable {
    buckets: Vec<Box<[Entry]>>,
    /// Counts that do not fit an entry, by hash.
    spreads: BTreeMap<u64, Spread>,
    channels: usize,
}

impl InterestTable {
    pub(super) fn new() -> Self {
        Self { buckets: vec![Box::default(); BUCKETS_MIN], spreads: BTreeMap::new(), channels: 0 }
    }

    /// `shard` has `subscribers` subscribers of the channel now.
    pub(super) fn set(&mut self, hash: u64, shard: u16, subscribers: u32) {
        assert!(usize::from(shard) < SHARDS_MAX, "a shard's bit must fit the set of shards");
        let place = bucket(hash, self.buckets.len());
        match self.position(place, hash) {
            Ok(position) => {
                let counts = self.buckets[place][position].counts();
                match self.change(hash, counts, shard, subscribers) {
                    Some(counts) => self.buckets[place][position] = Entry::new(hash, counts),
                    None => self.remove(place, position),
                }
            }
            Err(_) if subscribers == 0 => {}
            Err(_) => {
                let counts = self.counts_of_one(hash, shard, subscribers);
                self.insert(Entry::new(hash, counts));
            }
        }
    }

    /// Who wants the channel's publications now.
    pub(super) fn get(&self, hash: u64) -> Interest {
        let place = bucket(hash, self.buckets.len());
        let Ok(position) = self.position(place, hash) else { return Interest::default() };
        match self.buckets[place][position].counts().read() {
            Some((shard, subscribers)) => Interest { shards: 1 << shard, subscribers },
            None => {
                let spread = &self.spreads[&hash];
                let subscribers = spread.counts.iter().fold(0_u32, |sum, &count| sum.saturating_add(count));
                Interest { shards: spread.shards, subscribers }
            }
        }
    }

    /// Channels with subscribers.
    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// Bytes held, those of the allocator for each bucket and each list among them.
    pub(super) fn bytes(&self) -> usize {
        let lists: usize = self.spreads.values().map(|spread| spread.counts.capacity() * size_of::<u32>()).sum();
        self.channels * size_of::<Entry>()
            + self.buckets.capacity() * (size_of::<Box<[Entry]>>() + ALLOCATION_BYTES)
            + self.spreads.len() * (size_of::<u64>() + size_of::<Spread>() + ALLOCATION_BYTES)
            + lists
    }

    /// Where a hash is in its bucket, or would be.
    fn position(&self, place: usize, hash: u64) -> Result<usize, usize> {
        self.buckets[place].binary_search_by_key(&hash, Entry::hash)
    }

    fn insert(&mut self, entry: Entry) {
        if self.channels >= self.buckets.len() * BUCKET_ENTRIES {
            self.split();
        }
        let place = bucket(entry.hash(), self.buckets.len());
        let position = self.position(place, entry.hash()).expect_err("an entry is added once");
        let mut entries = std::mem::take(&mut self.buckets[place]).into_vec();
        entries.reserve_exact(1);
        entries.insert(position, entry);
        self.buckets[place] = entries.into();
        self.channels += 1;
    }

    fn remove(&mut self, place: usize, position: usize) {
        let mut entries = std::mem::take(&mut self.buckets[place]).into_vec();
        entries.remove(position);
        self.buckets[place] = entries.into();
        self.channels -= 1;
        // A quarter of the entries for which there are buckets: floods come and go, and their memory with them.
        while self.buckets.len() > BUCKETS_MIN.max(self.channels * 4 / BUCKET_ENTRIES) {
            self.merge();
        }
    }

    /// One bucket more: what belongs there lies in the bucket that it was one with so far.
    fn split(&mut self) {
        let added = self.buckets.len();
        let old = bucket(added as u64, added);
        let all = std::mem::take(&mut self.buckets[old]).into_vec();
        let (moving, staying): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|entry| bucket(entry.hash(), added + 1) == added);
        self.buckets[old] = staying.into();
        self.buckets.push(moving.into());
    }

    /// One bucket less: undoes a split.
    fn merge(&mut self) {
        let last = self.buckets.pop().expect("there are BUCKETS_MIN at least");
        let place = bucket(self.buckets.len() as u64, self.buckets.len());
        let mut entries = std::mem::take(&mut self.buckets[place]).into_vec();
        entries.extend(last);
        entries.sort_unstable_by_key(Entry::hash);
        self.buckets[place] = entries.into();
        if self.buckets.len() * 4 < self.buckets.capacity() {
            self.buckets.shrink_to(self.buckets.len() * 2);
        }
    }

    fn counts_of_one(&mut self, hash: u64, shard: u16, subscribers: u32) -> Counts {
        if subscribers <= INLINE_COUNT_MAX {
            Counts::of_one(shard, subscribers)
        } else {
            self.spreads.insert(hash, Spread { shards: 1 << shard, counts: vec![subscribers] });
            Counts::SPREAD
        }
    }

    /// The counts of a channel with one of them changed; none when no shard has subscribers any more.
    fn change(&mut self, hash: u64, counts: Counts, shard: u16, subscribers: u32) -> Option<Counts> {
        match counts.read() {
            Some((only, _)) if only == shard => (subscribers > 0).then(|| self.counts_of_one(hash, shard, subscribers)),
            Some(_) if subscribers == 0 => Some(counts),
            Some((only, count)) => {
                let mut spread = Spread { shards: 1 << only, counts: vec![count] };
                spread.set(shard, subscribers);
                self.spreads.insert(hash, spread);
                Some(Counts::SPREAD)
            }
            None => {
                let spread = self.spreads.get_mut(&hash).expect("an entry says that there is a list");
                spread.set(shard, subscribers);
                match *spread.counts {
                    [] => {
                        self.spreads.remove(&hash);
                        None
                    }
                    [count] if count <= INLINE_COUNT_MAX => {
                        let only = spread.shards.trailing_zeros() as u16;
                        self.spreads.remove(&hash);
                        Some(Counts::of_one(only, count))
                    }
                    _ => Some(Counts::SPREAD),
                }
            }
        }
    }
}

/// What the allocator spends on an allocation beside its bytes: a word, and half of its unit of 16 bytes.
const ALLOCATION_BYTES: usize = 16;

/// A hash and its counts: 10 bytes, which is why they are bytes. Numbers would be aligned, and make them 16.
#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: [u8; 8],
    counts: [u8; 2],
}

const _: () = assert!(size_of::<Entry>() == 10);

impl Entry {
    fn new(hash: u64, counts: Counts) -> Self {
        Self { hash: hash.to_ne_bytes(), counts: counts.0.to_ne_bytes() }
    }

    fn hash(&self) -> u64 {
        u64::from_ne_bytes(self.hash)
    }

    fn counts(&self) -> Counts {
        Counts(u16::from_ne_bytes(self.counts))
    }
}

/// One shard (6 bits) and its count (10 bits), or [`Counts::SPREAD`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts(u16);

const INLINE_COUNT_BITS: u32 = 10;

/// All bits of a count set would be [`Counts::SPREAD`].
const INLINE_COUNT_MAX: u32 = (1 << INLINE_COUNT_BITS) - 2;

const _: () = assert!((SHARDS_MAX - 1) << INLINE_COUNT_BITS <= u16::MAX as usize);

impl Counts {
    /// There is a [`Spread`].
    const SPREAD: Self = Self(u16::MAX);

    fn of_one(shard: u16, subscribers: u32) -> Self {
        Self(shard << INLINE_COUNT_BITS | subscribers as u16)
    }

    /// The one shard and its count; none where there is a list.
    fn read(self) -> Option<(u16, u32)> {
        let count = self.0 & ((1 << INLINE_COUNT_BITS) - 1);
        (self != Self::SPREAD).then_some((self.0 >> INLINE_COUNT_BITS, u32::from(count)))
    }
}

/// The counts of a channel with subscribers on several shards.
struct Spread {
    shards: u64,
    /// Of the shards in `shards`, in the order of their bits.
    counts: Vec<u32>,
}

impl Spread {
    fn set(&mut self, shard: u16, subscribers: u32) {
        let bit = 1_u64 << shard;
        let position = (self.shards & (bit - 1)).count_ones() as usize;
        match (self.shards & bit != 0, subscribers) {
            (true, 0) => {
                self.shards &= !bit;
                self.counts.remove(position);
            }
            (true, _) => self.counts[position] = subscribers,
            (false, 0) => {}
            (false, _) => {
                self.shards |= bit;
                self.counts.insert(position, subscribers);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::mesh::ChannelHasher;

    #[test]
    fn counts_are_absolute() {
        let mut table = InterestTable::new();
        table.set(9, 3, 5);
        table.set(9, 3, 5);
        assert_eq!(table.get(9), Interest { shards: 0b1000, subscribers: 5 });
        table.set(9, 3, 1);
        assert_eq!(table.get(9), Interest { shards: 0b1000, subscribers: 1 });
        table.set(9, 3, 0);
        assert_eq!(table.get(9), Interest::default());
        assert_eq!(table.channels(), 0);
    }

    #[test]
    fn a_count_beyond_the_inline_bits_is_exact() {
        let mut table = InterestTable::new();
        for count in [INLINE_COUNT_MAX, INLINE_COUNT_MAX + 1, u32::MAX, 7] {
            table.set(1, 63, count);
            assert_eq!(table.get(1), Interest { shards: 1 << 63, subscribers: count });
        }
        assert!(table.spreads.is_empty());
    }

    /// The figure that the design rests on: a million personal channels must not cost more than this per channel.
    #[test]
    fn a_channel_costs_at_most_13_bytes_at_any_load() {
        let hasher = ChannelHasher::default();
        let mut table = InterestTable::new();
        for number in 0..100_000 {
            table.set(hasher.hash(&format!("#{number}")), 1, 1);
            if number >= 50_000 && number % 1_000 == 0 {
                let bytes_per_channel = table.bytes() as f64 / f64::from(number + 1);
                assert!(bytes_per_channel <= 13.0, "{bytes_per_channel} bytes at {number} channels");
            }
        }
        println!("{:.1} bytes per channel at 100,000", table.bytes() as f64 / 100_000.0);
        for number in 0..100_000 {
            table.set(hasher.hash(&format!("#{number}")), 1, 0);
        }
        assert_eq!(table.channels(), 0);
        assert!(table.bytes() < 5_000, "{} bytes are held for nothing", table.bytes());
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_a_naive_one(
            changes in prop::collection::vec((0_u64..20, 0_u16..64, prop_oneof![Just(0_u32), 1..5_u32, Just(u32::MAX)]), 1..400)
        ) {
            let mut table = InterestTable::new();
            let mut model: BTreeMap<u64, BTreeMap<u16, u32>> = BTreeMap::new();
            for (hash, shard, subscribers) in changes {
                table.set(hash, shard, subscribers);
                let counts = model.entry(hash).or_default();
                if subscribers == 0 { counts.remove(&shard); } else { counts.insert(shard, subscribers); }
                if counts.is_empty() { model.remove(&hash); }
                for hash in 0..20 {
                    let expected = model.get(&hash).map_or(Interest::default(), |counts| Interest {
                        shards: counts.keys().fold(0, |bits, shard| bits | 1 << shard),
                        subscribers: counts.values().fold(0, |sum: u32, &count| sum.saturating_add(count)),
                    });
                    prop_assert_eq!(table.get(hash), expected);
                }
                prop_assert_eq!(table.channels(), model.len());
                let spread = model.values()
                    .filter(|counts| counts.len() > 1 || counts.values().any(|&count| count > INLINE_COUNT_MAX))
                    .count();
                prop_assert_eq!(table.spreads.len(), spread);
            }
        }
    }
}
