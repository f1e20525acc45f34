//! Where topics are found: by channel and form, and by index.
//!
//! Owns one record for each topic. A user's personal channel has a topic of its own, so there may be a million of them
//! with one member each: a record is 24 bytes, and its place in the table by name costs two or three more. The table is one of
//! linear hashing: its chains run through the records, and it grows by one bucket at a time, so that no turn of the
//! loop waits for all of it to move.
//!
//! Invariants:
//! - Topics of one channel are in one chain, in the order in which they were made, so one leads to the next; a channel
//!   whose topics lay in two chains would be delivered to some of its subscribers only.
//! - An index is given to a new topic only after the old one's removal; until then it names that topic.

use super::{arena::Arena, content::Variant, names::Names};
use crate::{
    config::SlowConsumerPolicy,
    limits::{CHANNEL_BYTES_MAX, TOPIC_BYTES},
    mesh::{ChannelName, bucket},
};

/// No record: the end of a chain.
pub const NONE: u32 = u32::MAX;

/// Topics for which there is a bucket: one look at a record more, on average, for half of the table's bytes.
const TOPICS_PER_BUCKET: usize = 2;

/// A table has no fewer buckets.
const BUCKETS_MIN: usize = 16;

/// A topic's record, in as few bytes as its facts can be put: it is part of what an idle client costs.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    /// Place of the channel's name.
    name: u32,
    /// The low half of its hash.
    hash: u32,
    /// The next record of the chain, or of the free ones.
    next: u32,
    /// The only member, or the list of members: `kind` says which.
    pub members: u32,
    /// How many publications were delivered, or where that is counted: the topic's own business.
    pub activity: u32,
    /// Length of the channel's name.
    name_bytes: u8,
    /// How its members are written to, and what.
    pub variant: Variant,
    /// What happens to slow subscribers.
    pub policy: SlowConsumerPolicy,
    /// Who is in the topic.
    pub kind: Kind,
}

const _: () = assert!(size_of::<Record>() == TOPIC_BYTES);
const _: () = assert!(CHANNEL_BYTES_MAX <= u8::MAX as usize);

/// Who is in a topic: the meaning of [`Record::members`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is no topic of this index.
    Free,
    /// Nobody.
    Nobody,
    /// This connection, silent.
    OneSilent,
    /// This connection, subscribed.
    OneSubscriber,
    /// Those of a list.
    Several,
}

/// All records of a shard.
#[derive(Debug)]
pub struct Directory {
    records: Arena<Record>,
    /// The first free record.
    free: u32,
    /// The first record of each bucket's chain.
    buckets: Vec<u32>,
    names: Names,
    topics: usize,
    channels: usize,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            records: Arena::default(),
            free: NONE,
            buckets: vec![NONE; BUCKETS_MIN],
            names: Names::default(),
            topics: 0,
            channels: 0,
        }
    }
}

impl Directory {
    /// Topics.
    pub fn topics(&self) -> usize {
        self.topics
    }

    /// Channels that have a topic.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// A topic that is known to exist.
    pub fn get(&self, index: u32) -> &Record {
        let record = self.records.get(index);
        debug_assert_ne!(record.kind, Kind::Free, "a topic is asked for while it exists");
        record
    }

    /// A topic that is known to exist.
    pub fn get_mut(&mut self, index: u32) -> &mut Record {
        let record = self.records.get_mut(index);
        debug_assert_ne!(record.kind, Kind::Free, "a topic is asked for while it exists");
        record
    }

    /// Whether there is a topic of this index.
    pub fn contains(&self, index: u32) -> bool {
        index < self.records.len() && self.records.get(index).kind != Kind::Free
    }

    /// The name of a topic's channel.
    pub fn name(&self, index: u32) -> &[u8] {
        let record = self.get(index);
        self.names.get(record.name, usize::from(record.name_bytes))
    }

    /// The first topic of a channel.
    pub fn first(&self, hash: u64, name: &str) -> Option<u32> {
        self.seek(self.buckets[bucket(hash, self.buckets.len())], hash as u32, name.as_bytes())
    }

    /// The next topic of a topic's channel.
    pub fn next(&self, index: u32) -> Option<u32> {
        let record = self.get(index);
        // Mostly there is none: then the name is of no interest.
        if record.next == NONE { None } else { self.seek(record.next, record.hash, self.name(index)) }
    }

    /// The first topic of a topic's channel.
    pub fn first_beside(&self, index: u32) -> u32 {
        let hash = self.get(index).hash;
        let first = self.seek(self.buckets[bucket(hash.into(), self.buckets.len())], hash, self.name(index));
        first.expect("a topic is in its bucket's chain")
    }

    /// The first record of a chain that is of the channel.
    fn seek(&self, mut index: u32, hash: u32, name: &[u8]) -> Option<u32> {
        while index != NONE {
            let record = self.records.get(index);
            if record.hash == hash && self.names.get(record.name, usize::from(record.name_bytes)) == name {
                return Some(index);
            }
            index = record.next;
        }
        None
    }

    /// Makes a topic without members.
    pub fn insert(&mut self, channel: &ChannelName, variant: Variant, policy: SlowConsumerPolicy) -> u32 {
        let hash = channel.hash as u32;
        let mut last = None;
        let mut candidate = self.first(channel.hash, &channel.name);
        while let Some(index) = candidate {
            last = Some(index);
            candidate = self.next(index);
        }
        if last.is_none() {
            self.channels += 1;
            if self.topics >= self.buckets.len() * TOPICS_PER_BUCKET {
                self.split();
            }
        }
        let place = bucket(channel.hash, self.buckets.len());
        let record = Record {
            name: self.names.insert(&channel.name),
            hash,
            next: match last {
                Some(last) => self.get(last).next,
                None => self.buckets[place],
            },
            members: NONE,
            activity: 0,
            name_bytes: u8::try_from(channel.name.len()).expect("names of channels are checked before they come here"),
            variant,
            policy,
            kind: Kind::Nobody,
        };
        let index = match self.free {
            NONE => self.records.push(record),
            index => {
                self.free = self.records.get(index).next;
                *self.records.get_mut(index) = record;
                index
            }
        };
        match last {
            Some(last) => self.get_mut(last).next = index,
            None => self.buckets[place] = index,
        }
        self.topics += 1;
        index
    }

    /// Takes a topic away.
    pub fn remove(&mut self, index: u32) {
        let record = *self.get(index);
        if self.first_beside(index) == index && self.next(index).is_none() {
            self.channels -= 1;
        }
        let place = bucket(record.hash.into(), self.buckets.len());
        if self.buckets[place] == index {
            self.buckets[place] = record.next;
        } else {
            let mut before = self.buckets[place];
            while self.records.get(before).next != index {
                before = self.records.get(before).next;
            }
            self.records.get_mut(before).next = record.next;
        }
        self.names.remove(record.name, usize::from(record.name_bytes));
        *self.records.get_mut(index) = Record { next: self.free, kind: Kind::Free, ..record };
        self.free = index;
        self.topics -= 1;
        while self.buckets.len() > BUCKETS_MIN.max(self.topics * 4 / TOPICS_PER_BUCKET) {
            self.merge();
        }
    }

    /// Indices that topics have, or had: all are below this.
    pub fn indices(&self) -> u32 {
        self.records.len()
    }

    /// The topics, by index.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.records.len()).filter(|index| self.records.get(*index).kind != Kind::Free)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.records.bytes() + self.names.bytes() + self.buckets.capacity() * size_of::<u32>()
    }

    /// One bucket more: what belongs there lies in the bucket that it was one with so far.
    fn split(&mut self) {
        let added = self.buckets.len();
        let old = bucket(added as u64, added);
        super::push_tightly(&mut self.buckets, NONE);
        let mut index = self.buckets[old];
        let mut ends = [(old, NONE), (added, NONE)];
        self.buckets[old] = NONE;
        while index != NONE {
            let record = self.records.get(index);
            let (hash, next) = (record.hash, record.next);
            let (place, end) = &mut ends[usize::from(bucket(hash.into(), added + 1) == added)];
            match *end {
                NONE => self.buckets[*place] = index,
                end => self.records.get_mut(end).next = index,
            }
            *end = index;
            self.records.get_mut(index).next = NONE;
            index = next;
        }
    }

    /// One bucket less: undoes a split.
    fn merge(&mut self) {
        let chain = self.buckets.pop().expect("there are BUCKETS_MIN at least");
        let place = bucket(self.buckets.len() as u64, self.buckets.len());
        if self.buckets[place] == NONE {
            self.buckets[place] = chain;
        } else {
            let mut end = self.buckets[place];
            while self.records.get(end).next != NONE {
                end = self.records.get(end).next;
            }
            self.records.get_mut(end).next = chain;
        }
        if self.buckets.len() * 4 < self.buckets.capacity() {
            self.buckets.shrink_to(self.buckets.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        fanout::{Content, Form},
        limits::TOPIC_PLACE_BYTES_MAX,
        mesh::ChannelHasher,
    };

    fn variant(form: Form) -> Variant {
        Variant::new(form, &Content::Whole)
    }

    #[test]
    fn a_topic_costs_its_record_its_name_and_a_place() {
        let hasher = ChannelHasher::with_key([5; 16]);
        let mut directory = Directory::default();
        let unused = directory.bytes();
        let mut worst: f64 = 0.0;
        for number in 0..100_000 {
            let channel = hasher.name(&format!("#user-{number:06}"));
            directory.insert(&channel, variant(Form::default()), SlowConsumerPolicy::default());
            if number >= 20_000 {
                worst = worst.max((directory.bytes() - unused) as f64 / f64::from(number + 1));
            }
        }
        println!("at most {worst:.1} bytes for a topic with a name of 12");
        // One more for chunks that are yet to fill.
        assert!(worst <= (TOPIC_BYTES + TOPIC_PLACE_BYTES_MAX + 12 + 1) as f64, "{worst} bytes");
    }

    #[test]
    fn chains_are_short() {
        let hasher = ChannelHasher::with_key([5; 16]);
        let mut directory = Directory::default();
        for number in 0..50_000 {
            let channel = hasher.name(&format!("#{number}"));
            directory.insert(&channel, variant(Form::default()), SlowConsumerPolicy::default());
        }
        let length = |head: &u32| {
            let next = |index: &u32| Some(directory.records.get(*index).next).filter(|next| *next != NONE);
            std::iter::successors(Some(*head).filter(|head| *head != NONE), next).count()
        };
        let longest = directory.buckets.iter().map(length).max().unwrap();
        assert!(longest < 30, "a chain of {longest}");
    }

    proptest! {
        #[test]
        fn the_directory_agrees_with_a_naive_one(
            changes in prop::collection::vec((any::<bool>(), 0_u64..60, any::<bool>()), 1..600)
        ) {
            let mut directory = Directory::default();
            let mut model: BTreeMap<(u64, bool), u32> = BTreeMap::new();
            // Few hashes, so that names share them, and spread over all bits.
            let channel = |number: u64| ChannelName {
                hash: (number / 2).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                name: format!("channel {number}").into(),
            };
            let form = |other: bool| if other { Form::OTHER } else { Form::default() };
            for (adds, number, other) in changes {
                match model.get(&(number, other)) {
                    None if adds => {
                        let index = directory.insert(&channel(number), variant(form(other)), SlowConsumerPolicy::Latest);
                        prop_assert!(model.values().all(|taken| *taken != index));
                        model.insert((number, other), index);
                    }
                    Some(index) if !adds => {
                        directory.remove(*index);
                        prop_assert!(!directory.contains(*index));
                        model.remove(&(number, other));
                    }
                    _ => {}
                }
                prop_assert_eq!(directory.topics(), model.len());
                let channels = model.keys().map(|(number, _)| number).collect::<std::collections::BTreeSet<_>>();
                prop_assert_eq!(directory.channels(), channels.len());
                for number in 0..60 {
                    let channel = channel(number);
                    let mut found = BTreeMap::new();
                    let mut next = directory.first(channel.hash, &channel.name);
                    while let Some(index) = next {
                        prop_assert_eq!(directory.name(index), channel.name.as_bytes());
                        prop_assert_eq!(directory.first_beside(index), directory.first(channel.hash, &channel.name).unwrap());
                        found.insert((number, directory.get(index).variant.form() == Form::OTHER), index);
                        next = directory.next(index);
                    }
                    let expected = model.range((number, false)..=(number, true));
                    prop_assert!(found.iter().eq(expected), "{found:?} of {model:?}");
                }
                prop_assert_eq!(directory.iter().count(), model.len());
            }
        }
    }
}
