//! Which shards have subscribers of a channel, and how many.
//!
//! Owns one compact entry per channel with subscribers, keyed by the 64-bit hash of its name and
//! by nothing else: a personal channel per user is the common case, a million of them on a shard,
//! and their names are held already by the shards that their subscribers live on. An entry is 12
//! bytes; at the table's worst load (it doubles when 7/8 full) that is 29.7 bytes a channel.
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

use hashbrown::HashTable;
use slab::Slab;

use super::table_hash;
use crate::limits::SHARDS_MAX;

/// The table is cut in segments by hash, so that a turn of the loop never waits for a million
/// entries to move when the table grows: one segment of a million channels moves 16,000.
const SEGMENTS: usize = 64;

/// Who wants a channel's publications.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Interest {
    /// Shards with subscribers, by bit.
    pub shards: u64,
    /// Subscribers on all shards.
    pub subscribers: u32,
}

/// The interest in every channel of this home shard.
pub(super) struct InterestTable {
    segments: Box<[HashTable<Entry>]>,
    spreads: Slab<Spread>,
    channels: usize,
}

impl InterestTable {
    pub(super) fn new() -> Self {
        Self { segments: (0..SEGMENTS).map(|_| HashTable::new()).collect(), spreads: Slab::new(), channels: 0 }
    }

    /// `shard` has `subscribers` subscribers of the channel now.
    pub(super) fn set(&mut self, hash: u64, shard: u16, subscribers: u32) {
        assert!(usize::from(shard) < SHARDS_MAX, "a shard's bit must fit the set of shards");
        let table = &mut self.segments[segment(hash)];
        match table.find_entry(table_hash(hash), |entry| entry.hash() == hash) {
            Ok(mut occupied) => {
                let entry = occupied.get_mut();
                match entry.counts.set(&mut self.spreads, shard, subscribers) {
                    Some(counts) => entry.counts = counts,
                    None => {
                        occupied.remove();
                        self.channels -= 1;
                        shrink(table);
                    }
                }
            }
            Err(_) if subscribers == 0 => {}
            Err(_) => {
                let counts = Counts::of_one(&mut self.spreads, shard, subscribers);
                table.insert_unique(table_hash(hash), Entry::new(hash, counts), |entry| table_hash(entry.hash()));
                self.channels += 1;
            }
        }
    }

    /// Who wants the channel's publications now.
    pub(super) fn get(&self, hash: u64) -> Interest {
        self.segments[segment(hash)]
            .find(table_hash(hash), |entry| entry.hash() == hash)
            .map_or(Interest::default(), |entry| entry.counts.get(&self.spreads))
    }

    /// Channels with subscribers.
    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let tables: usize = self.segments.iter().map(HashTable::allocation_size).sum();
        let lists: usize = self.spreads.iter().map(|(_, spread)| spread.counts.capacity() * size_of::<u32>()).sum();
        tables
            + self.segments.len() * size_of::<HashTable<Entry>>()
            + self.spreads.capacity() * (size_of::<Spread>() + size_of::<usize>())
            + lists
    }
}

/// 12 bytes, which is why the hash is in two halves: a u64 would make them 16.
#[derive(Clone, Copy)]
struct Entry {
    hash_high: u32,
    hash_low: u32,
    counts: Counts,
}

const _: () = assert!(size_of::<Entry>() == 12);

impl Entry {
    fn new(hash: u64, counts: Counts) -> Self {
        Self { hash_high: (hash >> 32) as u32, hash_low: hash as u32, counts }
    }

    fn hash(&self) -> u64 {
        u64::from(self.hash_high) << 32 | u64::from(self.hash_low)
    }
}

/// One shard and its count (bit 31 clear, 6 bits of shard, 25 bits of count), or the index of a [`Spread`] (bit 31 set).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts(u32);

const SPREAD: u32 = 1 << 31;
const INLINE_COUNT_BITS: u32 = 25;
const INLINE_COUNT_MAX: u32 = (1 << INLINE_COUNT_BITS) - 1;

const _: () = assert!(((SHARDS_MAX - 1) as u32) << INLINE_COUNT_BITS < SPREAD);

/// The counts of a channel with subscribers on several shards.
struct Spread {
    shards: u64,
    /// Of the shards in `shards`, in the order of their bits.
    counts: Vec<u32>,
}

impl Counts {
    fn of_one(spreads: &mut Slab<Spread>, shard: u16, subscribers: u32) -> Self {
        if subscribers <= INLINE_COUNT_MAX {
            Self(u32::from(shard) << INLINE_COUNT_BITS | subscribers)
        } else {
            Self::of_several(spreads, Spread { shards: 1 << shard, counts: vec![subscribers] })
        }
    }

    fn of_several(spreads: &mut Slab<Spread>, spread: Spread) -> Self {
        let index = u32::try_from(spreads.insert(spread)).expect("the table holds fewer than 2^31 entries");
        assert!(index < SPREAD, "the index must leave bit 31 free");
        Self(SPREAD | index)
    }

    /// The index of the list, or the one shard and its count.
    fn read(self) -> Result<usize, (u16, u32)> {
        if self.0 & SPREAD != 0 {
            Ok((self.0 & !SPREAD) as usize)
        } else {
            Err(((self.0 >> INLINE_COUNT_BITS) as u16, self.0 & INLINE_COUNT_MAX))
        }
    }

    fn get(self, spreads: &Slab<Spread>) -> Interest {
        match self.read() {
            Err((shard, subscribers)) => Interest { shards: 1 << shard, subscribers },
            Ok(index) => {
                let spread = &spreads[index];
                let subscribers = spread.counts.iter().fold(0_u32, |sum, &count| sum.saturating_add(count));
                Interest { shards: spread.shards, subscribers }
            }
        }
    }

    /// The counts with one of them changed; none when no shard has subscribers any more.
    fn set(self, spreads: &mut Slab<Spread>, shard: u16, subscribers: u32) -> Option<Self> {
        match self.read() {
            Err((only, _)) if only == shard => {
                if subscribers == 0 {
                    return None;
                }
                Some(Self::of_one(spreads, shard, subscribers))
            }
            Err((only, count)) => {
                if subscribers == 0 {
                    return Some(self);
                }
                let counts = if only < shard { vec![count, subscribers] } else { vec![subscribers, count] };
                Some(Self::of_several(spreads, Spread { shards: 1 << only | 1 << shard, counts }))
            }
            Ok(index) => {
                let spread = &mut spreads[index];
                spread.set(shard, subscribers);
                match *spread.counts {
                    [] => {
                        spreads.remove(index);
                        None
                    }
                    [count] if count <= INLINE_COUNT_MAX => {
                        let only = spread.shards.trailing_zeros() as u16;
                        spreads.remove(index);
                        Some(Self::of_one(spreads, only, count))
                    }
                    _ => Some(self),
                }
            }
        }
    }
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

/// Bits that neither choose a bucket (the low ones) nor the home shard (the high ones).
fn segment(hash: u64) -> usize {
    (hash >> 32) as usize % SEGMENTS
}

/// Gives memory back after a flood has gone. A table shrinks to a quarter of its size at most, so the work is paid for by the removals before it.
fn shrink(table: &mut HashTable<Entry>) {
    if table.capacity() > 64 && table.len() < table.capacity() / 8 {
        table.shrink_to(table.len() * 2, |entry| table_hash(entry.hash()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::prelude::*;

    use super::*;
    use crate::{channel::Random, mesh::ChannelHasher};

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
    fn an_entry_costs_at_most_32_bytes_at_any_load() {
        let hasher = ChannelHasher::default();
        let mut table = InterestTable::new();
        for number in 0..100_000 {
            table.set(hasher.hash(&format!("#{number}")), 1, 1);
            if number >= 50_000 && number % 1_000 == 0 {
                let bytes_per_channel = table.bytes() as f64 / f64::from(number + 1);
                assert!(bytes_per_channel <= 32.0, "{bytes_per_channel} bytes at {number} channels");
            }
        }
        println!("{:.1} bytes per channel at 100,000", table.bytes() as f64 / 100_000.0);
        for number in 0..100_000 {
            table.set(hasher.hash(&format!("#{number}")), 1, 0);
        }
        assert_eq!(table.channels(), 0);
        assert!(table.bytes() < 150_000, "{} bytes are held for nothing", table.bytes());
    }

    /// On one of 64 home shards the six highest bits of every hash are alike; the table must not degrade to a search.
    #[test]
    fn the_tags_of_one_home_shard_differ() {
        let mut random = Random::new(3);
        let mut tags: HashMap<u64, u32> = HashMap::new();
        for _ in 0..10_000 {
            let hash = random.next_u64() >> 6;
            *tags.entry(table_hash(hash) >> 57).or_default() += 1;
        }
        assert_eq!(tags.len(), 128);
        assert!(tags.values().all(|&count| count < 160), "{tags:?}");
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
