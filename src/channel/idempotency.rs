//! Idempotency keys: a producer that is not sure whether its publication arrived sends it again under the same key.
//!
//! Owns the keys of the window and the positions that were answered for them. What a duplicate
//! means is [`super::Channels`]' business.
//!
//! Invariants:
//! - Keys are compared in full, with their channel: a hash collision would drop a publication.
//! - Every key lives as long as every other, so the oldest is always first and to forget is to pop.
//! - Memory is bounded by time and by [`IDEMPOTENCY_BYTES_MAX`]; beyond it the oldest keys are
//!   forgotten before their time, which is counted, and the window is shorter than configured.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use hashbrown::HashTable;

use crate::{
    limits::IDEMPOTENCY_BYTES_MAX,
    mesh::{ChannelName, Position},
};

/// The keys of one home shard's window.
pub(super) struct IdempotencyKeys {
    window_ms: u64,
    bytes_max: usize,
    hasher: RandomState,
    /// Oldest first.
    keys: VecDeque<Key>,
    /// Number of the first key in `keys`; numbers are never used again.
    first: u64,
    numbers: HashTable<u64>,
    key_bytes: usize,
    forgotten_early: u64,
}

impl IdempotencyKeys {
    /// Keys are remembered for `window_ms` milliseconds; 0: not at all.
    pub(super) fn new(window_ms: u64) -> Self {
        Self {
            window_ms,
            bytes_max: IDEMPOTENCY_BYTES_MAX,
            hasher: RandomState::new(),
            keys: VecDeque::new(),
            first: 0,
            numbers: HashTable::new(),
            key_bytes: 0,
            forgotten_early: 0,
        }
    }

    /// From now on keys are remembered for so long, those that are remembered already among them.
    pub(super) fn set_window_ms(&mut self, window_ms: u64) {
        self.window_ms = window_ms;
    }

    /// What was answered to the publication with this key, if one is remembered: its position, if it was stored.
    pub(super) fn find(&self, channel: &ChannelName, key: &[u8], now_ms: u64) -> Option<Option<&Position>> {
        let hash = self.hash(channel, key);
        let number = *self.numbers.find(hash, |&number| self.key(number).is(channel, key))?;
        let found = self.key(number);
        (now_ms < self.expires_ms(found)).then_some(found.position.as_ref())
    }

    /// Remembers a key that [`IdempotencyKeys::find`] has not found, with what its publication was answered.
    pub(super) fn remember(&mut self, channel: &ChannelName, key: &[u8], position: Option<Position>, now_ms: u64) {
        if self.window_ms == 0 {
            return;
        }
        let hash = self.hash(channel, key);
        let number = self.first + self.keys.len() as u64;
        let known = self.numbers.find_entry(hash, |&number| {
            // The key may be there still, expired and not yet forgotten: its place in the table goes to the new one.
            let known = &self.keys[(number - self.first) as usize];
            known.is(channel, key)
        });
        match known {
            Ok(mut occupied) => *occupied.get_mut() = number,
            Err(_) => {
                let (keys, first) = (&self.keys, self.first);
                self.numbers.insert_unique(hash, number, |&number| keys[(number - first) as usize].hash);
            }
        }
        let key = Key { hash, channel: Arc::clone(&channel.name), key: key.into(), position, remembered_ms: now_ms };
        self.key_bytes += key.bytes();
        self.keys.push_back(key);
        while self.bytes() > self.bytes_max && !self.keys.is_empty() {
            self.forget_oldest();
            self.forgotten_early += 1;
        }
    }

    /// Forgets at most `budget` expired keys; how many it was.
    pub(super) fn expire(&mut self, now_ms: u64, budget: usize) -> usize {
        let mut forgotten = 0;
        while forgotten < budget && self.next_due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            self.forget_oldest();
            forgotten += 1;
        }
        forgotten
    }

    /// When the oldest key expires.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.keys.front().map(|key| self.expires_ms(key))
    }

    /// Keys forgotten before their time for want of memory.
    pub(super) fn forgotten_early(&self) -> u64 {
        self.forgotten_early
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.key_bytes + self.numbers.len() * 2 * (size_of::<u64>() + 1)
    }

    fn forget_oldest(&mut self) {
        let Some(key) = self.keys.pop_front() else { return };
        self.key_bytes -= key.bytes();
        let first = self.first;
        // Not found if a younger key has taken its place.
        if let Ok(occupied) = self.numbers.find_entry(key.hash, |&number| number == first) {
            occupied.remove();
        }
        self.first += 1;
        if self.keys.capacity() > 64 && self.keys.len() < self.keys.capacity() / 8 {
            self.keys.shrink_to(self.keys.len() * 2);
            let (keys, first) = (&self.keys, self.first);
            self.numbers.shrink_to(keys.len() * 2, |&number| keys[(number - first) as usize].hash);
        }
    }

    fn key(&self, number: u64) -> &Key {
        &self.keys[(number - self.first) as usize]
    }

    fn expires_ms(&self, key: &Key) -> u64 {
        key.remembered_ms.saturating_add(self.window_ms)
    }

    fn hash(&self, channel: &ChannelName, key: &[u8]) -> u64 {
        self.hasher.hash_one((channel.hash, key))
    }
}

struct Key {
    hash: u64,
    channel: Arc<str>,
    key: Box<[u8]>,
    position: Option<Position>,
    remembered_ms: u64,
}

impl Key {
    fn is(&self, channel: &ChannelName, key: &[u8]) -> bool {
        *self.key == *key && *self.channel == *channel.name
    }

    /// The epoch is the stream's; the name is counted in full, since the key may be its last holder.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.key.len() + self.channel.len() + 2 * size_of::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::ChannelHasher;

    const WINDOW_MS: u64 = 1_000;

    fn position(offset: u64) -> Option<Position> {
        Some(Position { offset, epoch: "abcdefgh".into() })
    }

    fn offset(found: Option<Option<&Position>>) -> Option<u64> {
        found.map(|position| position.map_or(0, |position| position.offset))
    }

    #[test]
    fn a_key_is_known_within_its_window_and_in_its_channel() {
        let names = ChannelHasher::default();
        let (news, chat) = (names.name("news"), names.name("chat"));
        let mut keys = IdempotencyKeys::new(WINDOW_MS);
        assert_eq!(keys.find(&news, b"a", 0), None);
        keys.remember(&news, b"a", position(4), 0);
        keys.remember(&chat, b"b", None, 0);
        assert_eq!(offset(keys.find(&news, b"a", 999)), Some(4));
        assert_eq!(offset(keys.find(&chat, b"b", 999)), Some(0));
        assert_eq!(keys.find(&chat, b"a", 0), None);
        assert_eq!(keys.find(&news, b"b", 0), None);
        assert_eq!(keys.find(&news, b"a", 1_000), None);
    }

    #[test]
    fn names_with_one_hash_have_keys_of_their_own() {
        let mut keys = IdempotencyKeys::new(WINDOW_MS);
        let left = ChannelName { hash: 1, name: "left".into() };
        let right = ChannelName { hash: 1, name: "right".into() };
        keys.remember(&left, b"key", position(1), 0);
        assert_eq!(keys.find(&right, b"key", 0), None);
        keys.remember(&right, b"key", position(2), 0);
        assert_eq!(offset(keys.find(&left, b"key", 0)), Some(1));
        assert_eq!(offset(keys.find(&right, b"key", 0)), Some(2));
    }

    #[test]
    fn a_key_used_again_after_its_window_outlives_its_first_use() {
        let channel = ChannelHasher::default().name("news");
        let mut keys = IdempotencyKeys::new(WINDOW_MS);
        keys.remember(&channel, b"a", position(1), 0);
        keys.remember(&channel, b"a", position(2), 1_500);
        assert_eq!(keys.expire(1_500, 10), 1);
        assert_eq!(offset(keys.find(&channel, b"a", 1_500)), Some(2));
        assert_eq!(keys.expire(2_500, 10), 1);
        assert_eq!(keys.numbers.len(), 0);
        assert_eq!(keys.bytes(), 0);
    }

    #[test]
    fn expiry_is_done_in_steps() {
        let channel = ChannelHasher::default().name("news");
        let mut keys = IdempotencyKeys::new(WINDOW_MS);
        for number in 0..100_u32 {
            keys.remember(&channel, &number.to_le_bytes(), None, u64::from(number));
        }
        assert_eq!(keys.next_due_ms(), Some(1_000));
        assert_eq!(keys.expire(1_049, 30), 30);
        assert_eq!(keys.expire(1_049, 30), 20);
        assert_eq!(keys.next_due_ms(), Some(1_050));
        assert_eq!(keys.expire(9_999, usize::MAX), 50);
        assert_eq!(keys.next_due_ms(), None);
    }

    #[test]
    fn memory_is_bounded_and_the_youngest_keys_stay() {
        let channel = ChannelHasher::default().name("news");
        let mut keys = IdempotencyKeys::new(WINDOW_MS);
        keys.bytes_max = 10_000;
        for number in 0..1_000_u32 {
            keys.remember(&channel, &number.to_le_bytes(), None, 0);
            assert!(keys.bytes() <= 10_000);
        }
        assert!(keys.find(&channel, &999_u32.to_le_bytes(), 0).is_some());
        assert!(keys.find(&channel, &0_u32.to_le_bytes(), 0).is_none());
        assert_eq!(keys.forgotten_early() as usize, 1_000 - keys.keys.len());
        keys.remember(&channel, &[0; 20_000], None, 0);
        assert!(keys.bytes() <= 10_000);
    }

    #[test]
    fn a_window_of_zero_remembers_nothing() {
        let channel = ChannelHasher::default().name("news");
        let mut keys = IdempotencyKeys::new(0);
        keys.remember(&channel, b"a", None, 0);
        assert_eq!(keys.bytes(), 0);
    }
}
