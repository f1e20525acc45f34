//! The streams of a home shard, by name, and when each is due to lose something.
//!
//! Owns the lookup by name, the creation of streams by their namespace's rules, the schedule of
//! what expires, the sum of what they hold, and its bound.
//!
//! Invariants:
//! - Streams are found by hash and then by name: two channels' publications never mix.
//! - A stream that is read or written follows the rules that count now. After a reload the others come to follow them
//!   one by one, so that no turn of the loop waits for a million streams.
//! - A stream has at most one entry in the schedule, at or before the moment it is due. An early
//!   entry costs one look; a late one would keep memory, but never give expired publications away.

use std::{collections::BTreeSet, mem::size_of, sync::Arc};

use hashbrown::HashTable;
use slab::Slab;

use super::{
    Random,
    block::{Packer, PackerFigures},
    stream::Stream,
    table_hash,
};
use crate::{
    config::Namespaces,
    limits::EPOCH_LETTERS,
    mesh::{ChannelName, History, Position, Publication, Publish},
};

/// The streams of one home shard.
pub(super) struct StreamTable {
    namespaces: Namespaces,
    /// Whether any namespace keeps history, or did until of late; if none does, no name need be looked up.
    is_used: bool,
    /// Streams from this index on may yet have to follow the rules of a reload; none: all do.
    followed: Option<u32>,
    random: Random,
    /// Boxed, so that memory goes back when streams end, and growing moves pointers only.
    streams: Slab<Box<Slot>>,
    by_hash: HashTable<HashedIndex>,
    schedule: BTreeSet<(u64, u32)>,
    /// From the first stream on whose history is compressed.
    packer: Option<Box<Packer>>,
    stream_bytes: usize,
    stream_bytes_max: usize,
    /// What `stream_bytes_max` comes down to, step by step, after a reload.
    stream_bytes_goal: usize,
    evicted: u64,
}

/// Bytes that a step forgets.
const SHRINK_STEP_BYTES: usize = 1 << 20;

struct Slot {
    stream: Stream,
    /// Its entry in the schedule.
    due_ms: Option<u64>,
}

struct HashedIndex {
    hash: u64,
    index: u32,
}

impl StreamTable {
    pub(super) fn new(namespaces: Namespaces, stream_bytes_max: u64, random: Random) -> Self {
        let stream_bytes_max = usize::try_from(stream_bytes_max).unwrap_or(usize::MAX);
        Self {
            is_used: is_kept_anywhere(&namespaces),
            packer: is_packed_anywhere(&namespaces).then(Box::default),
            namespaces,
            followed: None,
            random,
            streams: Slab::new(),
            by_hash: HashTable::new(),
            schedule: BTreeSet::new(),
            stream_bytes: 0,
            stream_bytes_max,
            stream_bytes_goal: stream_bytes_max,
            evicted: 0,
        }
    }

    /// From now on these rules count. [`StreamTable::next_to_follow`] and [`StreamTable::shrink`] have work to do.
    pub(super) fn reconfigure(&mut self, namespaces: &Namespaces, stream_bytes_max: u64) {
        if self.namespaces != *namespaces {
            self.namespaces = namespaces.clone();
            self.followed = Some(0);
            self.is_used = true;
            // It stays: what is compressed already is asked for still.
            if is_packed_anywhere(namespaces) {
                self.packer.get_or_insert_default();
            }
        }
        self.stream_bytes_goal = usize::try_from(stream_bytes_max).unwrap_or(usize::MAX);
        self.stream_bytes_max = self.stream_bytes.max(self.stream_bytes_goal);
    }

    /// The next channel whose stream may have to follow other rules; its subscribers decide what
    /// [`StreamTable::follow_next`] frees.
    pub(super) fn next_to_follow(&mut self) -> Option<&ChannelName> {
        let followed = self.followed? as usize;
        let Some(index) = (followed..self.streams.capacity()).find(|index| self.streams.contains(*index)) else {
            self.followed = None;
            self.is_used = is_kept_anywhere(&self.namespaces);
            return None;
        };
        self.followed = Some(index as u32);
        Some(self.streams[index].stream.channel())
    }

    /// The stream of the channel that [`StreamTable::next_to_follow`] names follows.
    pub(super) fn follow_next(&mut self, has_subscribers: bool) {
        let index = self.followed.expect("the caller has been told a channel");
        self.follow(index, has_subscribers);
        self.followed = Some(index + 1);
    }

    /// A stream follows the rules that count now; none: they keep no history, and it is gone.
    fn follow(&mut self, index: u32, has_subscribers: bool) -> Option<u32> {
        if self.followed.is_none_or(|followed| index < followed) {
            return Some(index);
        }
        let namespace = self.namespaces.of_channel(&self.stream(index).channel().name).cloned();
        match namespace.filter(|namespace| Stream::is_kept(namespace)) {
            Some(namespace) => self.change(index, has_subscribers, |stream| stream.follow(&namespace)),
            None => {
                self.unschedule(index);
                self.remove(index);
                return None;
            }
        }
        Some(index)
    }

    /// Comes a step closer to what streams may hold together.
    pub(super) fn shrink(&mut self) {
        self.stream_bytes_max =
            self.stream_bytes_goal.max(self.stream_bytes_max.min(self.stream_bytes).saturating_sub(SHRINK_STEP_BYTES));
    }

    /// Whether the streams have yet to follow a reload.
    pub(super) fn is_following(&self) -> bool {
        self.followed.is_some() || self.stream_bytes_max > self.stream_bytes_goal
    }

    /// The channel's stream, if there is one. The index is good until the next call of [`StreamTable::expire_next`].
    pub(super) fn find(&self, channel: &ChannelName) -> Option<u32> {
        if !self.is_used {
            return None;
        }
        self.by_hash
            .find(table_hash(channel.hash), |entry| {
                entry.hash == channel.hash && self.streams[entry.index as usize].stream.channel().name == channel.name
            })
            .map(|entry| entry.index)
    }

    /// The channel's stream, created if its namespace keeps history; with all that has expired forgotten.
    pub(super) fn open(&mut self, channel: &ChannelName, has_subscribers: bool, now_ms: u64) -> Option<u32> {
        let index = match self.find(channel) {
            Some(index) => self.follow(index, has_subscribers)?,
            None if self.is_used => self.create(channel, now_ms)?,
            None => return None,
        };
        self.change(index, has_subscribers, |stream| {
            stream.expire(now_ms, usize::MAX);
            stream.touch(now_ms);
        });
        Some(index)
    }

    /// Numbers and stores a publication of the channel whose stream this is.
    pub(super) fn append(
        &mut self,
        index: u32,
        publish: Publish,
        has_subscribers: bool,
        now_ms: u64,
    ) -> Arc<Publication> {
        let mut packer = self.packer.take();
        let publication =
            self.change(index, has_subscribers, |stream| stream.append(publish, now_ms, packer.as_deref_mut()));
        self.packer = packer;
        publication
    }

    /// What brings a client that stands at `from` up to date ([`Stream::recover`]).
    pub(super) fn recover(&mut self, index: u32, from: &Position) -> Option<Vec<Arc<Publication>>> {
        self.streams[index as usize].stream.recover(from, self.packer.as_deref_mut())
    }

    /// The answer to a question for history ([`Stream::history`]).
    pub(super) fn history(&mut self, index: u32, question: &History) -> Option<Vec<Arc<Publication>>> {
        self.streams[index as usize].stream.history(question, self.packer.as_deref_mut())
    }

    /// Forgets the publications of the stream, not its position.
    pub(super) fn clear(&mut self, index: u32, has_subscribers: bool) {
        self.change(index, has_subscribers, |stream| while stream.evict_oldest() {});
    }

    /// The channel has lost its last subscriber: its stream, if it has one, may end.
    pub(super) fn abandon(&mut self, channel: &ChannelName, now_ms: u64) {
        if let Some(index) = self.find(channel) {
            self.change(index, false, |stream| stream.touch(now_ms));
        }
    }

    pub(super) fn stream(&self, index: u32) -> &Stream {
        &self.streams[index as usize].stream
    }

    /// The first channel in the schedule that is due now; its subscribers decide what [`StreamTable::expire_next`] frees.
    pub(super) fn next_due(&self, now_ms: u64) -> Option<&ChannelName> {
        let &(due_ms, index) = self.schedule.first()?;
        (due_ms <= now_ms).then(|| self.stream(index).channel())
    }

    /// Forgets at most `budget` publications of the channel that [`StreamTable::next_due`] names, or its whole stream; the work done.
    pub(super) fn expire_next(&mut self, has_subscribers: bool, now_ms: u64, budget: usize) -> usize {
        let Some((_, index)) = self.schedule.pop_first() else { return 0 };
        self.streams[index as usize].due_ms = None;
        if self.follow(index, has_subscribers).is_none() {
            return 1;
        }
        self.unschedule(index);
        if self.stream(index).is_over(has_subscribers, now_ms) {
            self.remove(index);
            return 1;
        }
        // At least one: a look at a stream that is not due after all is work too.
        self.change(index, has_subscribers, |stream| stream.expire(now_ms, budget)).max(1)
    }

    /// Whether streams hold more than they may: [`StreamTable::evict_next`] is to be called until they do not.
    pub(super) fn is_full(&self) -> bool {
        self.stream_bytes > self.stream_bytes_max
    }

    /// The channel whose history would expire first; its subscribers decide what [`StreamTable::evict_next`] frees.
    pub(super) fn next_to_evict(&self) -> Option<&ChannelName> {
        self.schedule.first().map(|&(_, index)| self.stream(index).channel())
    }

    /// Forgets publications of the channel that [`StreamTable::next_to_evict`] names until there is room, or, if it has
    /// none, its whole stream.
    pub(super) fn evict_next(&mut self, has_subscribers: bool) {
        let Some((_, index)) = self.schedule.pop_first() else { return };
        self.streams[index as usize].due_ms = None;
        let excess = self.stream_bytes.saturating_sub(self.stream_bytes_max);
        let evicted = self.change(index, has_subscribers, |stream| {
            let bytes_before = stream.bytes();
            let mut evicted = 0;
            while bytes_before - stream.bytes() < excess && stream.evict_oldest() {
                evicted += 1;
            }
            evicted
        });
        self.evicted += evicted;
        // With subscribers its position must stay: they would be told offsets of another epoch.
        if evicted == 0 && !has_subscribers {
            self.unschedule(index);
            self.remove(index);
        }
    }

    /// Publications forgotten before their time for want of room.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// What was compressed, and decompressed.
    pub(super) fn packer_figures(&self) -> PackerFigures {
        self.packer.as_ref().map_or_else(PackerFigures::default, |packer| packer.figures())
    }

    /// When the first stream is due.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.schedule.first().map(|&(due_ms, _)| due_ms)
    }

    /// Streams.
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.stream_bytes
            + self.streams.len() * size_of::<Option<u64>>()
            + self.streams.capacity() * 2 * size_of::<usize>()
            + self.by_hash.allocation_size()
            + self.schedule.len() * 2 * size_of::<(u64, u32)>()
            + self.packer.as_ref().map_or(0, |packer| packer.bytes())
    }

    fn create(&mut self, channel: &ChannelName, now_ms: u64) -> Option<u32> {
        let namespace = self.namespaces.of_channel(&channel.name)?;
        if !Stream::is_kept(namespace) {
            return None;
        }
        if namespace.history_compression_bytes_min > 0 {
            self.packer.get_or_insert_default();
        }
        let epoch = self.random.letters(EPOCH_LETTERS).into();
        let stream = Stream::new(channel.clone(), epoch, namespace, now_ms);
        self.stream_bytes += stream.bytes();
        let index = u32::try_from(self.streams.insert(Box::new(Slot { stream, due_ms: None })))
            .expect("memory ends before 2^32 streams");
        self.by_hash.insert_unique(table_hash(channel.hash), HashedIndex { hash: channel.hash, index }, |entry| {
            table_hash(entry.hash)
        });
        Some(index)
    }

    fn unschedule(&mut self, index: u32) {
        if let Some(due_ms) = self.streams[index as usize].due_ms.take() {
            self.schedule.remove(&(due_ms, index));
        }
    }

    fn remove(&mut self, index: u32) {
        let slot = self.streams.remove(index as usize);
        self.stream_bytes -= slot.stream.bytes();
        debug_assert!(!self.streams.is_empty() || self.stream_bytes == 0, "the sum follows every change");
        let entry = self.by_hash.find_entry(table_hash(slot.stream.channel().hash), |entry| entry.index == index).ok();
        entry.expect("every stream is in the table").remove();
        if self.by_hash.capacity() > 64 && self.by_hash.len() < self.by_hash.capacity() / 8 {
            self.by_hash.shrink_to(self.by_hash.len() * 2, |entry| table_hash(entry.hash));
        }
    }

    /// Every change of a stream goes through here: the sum of bytes and the schedule follow it.
    fn change<R>(&mut self, index: u32, has_subscribers: bool, change: impl FnOnce(&mut Stream) -> R) -> R {
        let slot = &mut self.streams[index as usize];
        let before = slot.stream.bytes();
        let result = change(&mut slot.stream);
        self.stream_bytes = self.stream_bytes + slot.stream.bytes() - before;
        let due_ms = slot.stream.next_due_ms(has_subscribers);
        // An entry that is early stays: moving it with every publication would cost more than the one look.
        if let Some(due_ms) = due_ms
            && slot.due_ms.is_none_or(|scheduled_ms| due_ms < scheduled_ms)
        {
            if let Some(scheduled_ms) = slot.due_ms.replace(due_ms) {
                self.schedule.remove(&(scheduled_ms, index));
            }
            self.schedule.insert((due_ms, index));
        }
        result
    }
}

fn is_kept_anywhere(namespaces: &Namespaces) -> bool {
    namespaces.without.iter().chain(&namespaces.by_name).any(|namespace| Stream::is_kept(namespace))
}

fn is_packed_anywhere(namespaces: &Namespaces) -> bool {
    let mut all = namespaces.without.iter().chain(&namespaces.by_name);
    all.any(|namespace| namespace.history_compression_bytes_min > 0)
}
