//! Channels with subscribers on this shard.

use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;

use crate::{config::SlowConsumerPolicy, mesh::ChannelName};

/// Topics that are counted as the busiest.
const BUSIEST_MAX: usize = 20;

/// A channel and its subscribers on this shard.
#[derive(Debug)]
pub struct Topic {
    /// The channel.
    pub channel: ChannelName,
    /// Its subscribers, by slab index, in no order.
    pub subscribers: Vec<u32>,
    /// Subscriptions that wait for the home shard's answer.
    pub pending: u32,
    /// Connections of the user whose personal channel this is: the topic is where the user's id is kept.
    pub users: u32,
    /// What happens to slow subscribers.
    pub policy: SlowConsumerPolicy,
    /// Whether the home shard has yet to be told the present number of subscribers.
    pub is_count_stale: bool,
    /// Publications delivered since the topic began.
    deliveries: u64,
    /// Whether it is among the busiest.
    is_busy: bool,
    /// The topic's open batch of this turn, if any.
    pub open_batch: Option<u32>,
}

impl Topic {
    /// Subscribers that the home shard must reckon with, those still waiting for its answer among them.
    pub fn interest(&self) -> u32 {
        self.subscribers.len() as u32 + self.pending
    }
}

/// All topics of a shard, by name and by index.
#[derive(Debug, Default)]
pub struct Topics {
    by_hash: HashTable<u32>,
    topics: Slab<Topic>,
    subscriptions: u64,
    /// The topics with the most deliveries, in no order, kept as deliveries happen: looking for them among a million
    /// would hold the shard up.
    busiest: Vec<u32>,
    /// Deliveries that a topic must pass to come among the busiest.
    busy_deliveries_min: u64,
}

impl Topics {
    /// How many.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Subscriptions of all topics.
    pub fn subscriptions(&self) -> u64 {
        self.subscriptions
    }

    /// The topic of a channel.
    pub fn find(&self, hash: u64, name: &str) -> Option<u32> {
        self.by_hash.find(hash, |index| &*self.topics[*index as usize].channel.name == name).copied()
    }

    /// The topic of a channel, made if there is none.
    pub fn find_or_insert(&mut self, channel: &ChannelName, policy: impl FnOnce() -> SlowConsumerPolicy) -> u32 {
        if let Some(index) = self.find(channel.hash, &channel.name) {
            return index;
        }
        let index = u32::try_from(self.topics.insert(Topic {
            channel: channel.clone(),
            subscribers: Vec::new(),
            pending: 0,
            users: 0,
            policy: policy(),
            is_count_stale: false,
            deliveries: 0,
            is_busy: false,
            open_batch: None,
        }))
        .expect("memory ends before topics number 2^32");
        let topics = &self.topics;
        self.by_hash.insert_unique(channel.hash, index, |index| topics[*index as usize].channel.hash);
        index
    }

    /// A topic that is known to exist.
    pub fn get(&self, index: u32) -> &Topic {
        &self.topics[index as usize]
    }

    /// A topic that is known to exist.
    pub fn get_mut(&mut self, index: u32) -> &mut Topic {
        &mut self.topics[index as usize]
    }

    /// A topic, if it still exists.
    pub fn try_get_mut(&mut self, index: u32) -> Option<&mut Topic> {
        self.topics.get_mut(index as usize)
    }

    /// Adds a subscriber: its position.
    pub fn attach(&mut self, index: u32, connection: u32) -> u32 {
        let topic = &mut self.topics[index as usize];
        assert!(topic.open_batch.is_none(), "an open batch is handed out before the list changes");
        topic.subscribers.push(connection);
        self.subscriptions += 1;
        u32::try_from(topic.subscribers.len() - 1).expect("slab indices are u32")
    }

    /// Takes the subscriber at `position` away: the connection that has moved there, if one has.
    pub fn detach(&mut self, index: u32, position: u32) -> Option<u32> {
        let topic = &mut self.topics[index as usize];
        assert!(topic.open_batch.is_none(), "an open batch is handed out before the list changes");
        topic.subscribers.swap_remove(position as usize);
        self.subscriptions -= 1;
        if topic.subscribers.len() * 4 < topic.subscribers.capacity() {
            topic.subscribers.shrink_to(topic.subscribers.len() * 2);
        }
        topic.subscribers.get(position as usize).copied()
    }

    /// Ends a topic that nobody needs: its channel, if it ended.
    pub fn remove_if_unused(&mut self, index: u32) -> Option<ChannelName> {
        let topic = &self.topics[index as usize];
        if topic.interest() > 0 || topic.users > 0 {
            return None;
        }
        assert!(topic.open_batch.is_none(), "an open batch is handed out before the list changes");
        if topic.is_busy {
            self.busiest.retain(|busy| *busy != index);
            self.busy_deliveries_min = 0;
        }
        let channel = self.topics.remove(index as usize).channel;
        if let Ok(entry) = self.by_hash.find_entry(channel.hash, |candidate| *candidate == index) {
            entry.remove();
        }
        Some(channel)
    }

    /// All topics.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Topic)> {
        self.topics.iter().map(|(index, topic)| (index as u32, topic))
    }

    /// A publication was delivered to a topic.
    pub fn count_delivery(&mut self, index: u32) {
        let topic = &mut self.topics[index as usize];
        topic.deliveries += 1;
        if topic.is_busy || topic.deliveries <= self.busy_deliveries_min {
            return;
        }
        topic.is_busy = true;
        self.busiest.push(index);
        if self.busiest.len() > BUSIEST_MAX {
            let deliveries = |index: &u32| self.topics[*index as usize].deliveries;
            let (place, _) =
                self.busiest.iter().enumerate().min_by_key(|(_, index)| deliveries(index)).expect("it is not empty");
            let least = self.busiest.swap_remove(place);
            self.topics[least as usize].is_busy = false;
            let deliveries = |index: &u32| self.topics[*index as usize].deliveries;
            self.busy_deliveries_min = self.busiest.iter().map(deliveries).min().expect("it is not empty");
        }
    }

    /// The topics with the most deliveries, most first: name, subscribers, deliveries.
    pub fn busiest(&self) -> Vec<(Arc<str>, u32, u64)> {
        let topics = self.busiest.iter().map(|index| &self.topics[*index as usize]);
        let mut busiest: Vec<_> = topics
            .map(|topic| (Arc::clone(&topic.channel.name), topic.subscribers.len() as u32, topic.deliveries))
            .collect();
        busiest.sort_unstable_by_key(|(_, _, deliveries)| std::cmp::Reverse(*deliveries));
        busiest
    }

    /// Bytes that tables and lists take, names excluded.
    pub fn bytes(&self) -> u64 {
        (self.topics.capacity() * size_of::<Topic>()
            + self.by_hash.allocation_size()
            + self.subscriptions as usize * size_of::<u32>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::ChannelHasher;

    #[test]
    fn topics_live_as_long_as_somebody_needs_them() {
        let hasher = ChannelHasher::default();
        let mut topics = Topics::default();
        let news = hasher.name("news");
        let index = topics.find_or_insert(&news, || SlowConsumerPolicy::Latest);
        assert_eq!(topics.find_or_insert(&news, || unreachable!("the topic exists")), index);
        topics.get_mut(index).pending += 1;
        assert!(topics.remove_if_unused(index).is_none());
        for connection in 0..4 {
            assert_eq!(topics.attach(index, connection), connection);
        }
        topics.get_mut(index).pending -= 1;
        assert_eq!(topics.detach(index, 1), Some(3), "the last one takes the free place");
        assert_eq!(topics.detach(index, 2), None, "the last one leaves no hole");
        assert_eq!(topics.get(index).subscribers, [0, 3]);
        assert!(topics.remove_if_unused(index).is_none());
        topics.detach(index, 0);
        topics.detach(index, 0);
        assert_eq!(topics.remove_if_unused(index), Some(news.clone()));
        assert_eq!(topics.find(news.hash, "news"), None);
        assert_eq!((topics.len(), topics.subscriptions()), (0, 0));
    }

    #[test]
    fn names_with_the_same_hash_are_different_topics() {
        let mut topics = Topics::default();
        let one = ChannelName { hash: 7, name: "one".into() };
        let two = ChannelName { hash: 7, name: "two".into() };
        let first = topics.find_or_insert(&one, Default::default);
        let second = topics.find_or_insert(&two, Default::default);
        assert_ne!(first, second);
        assert_eq!(
            (topics.find(7, "one"), topics.find(7, "two"), topics.find(7, "six")),
            (Some(first), Some(second), None)
        );
    }

    #[test]
    fn the_busiest_are_known_without_looking_for_them() {
        let hasher = ChannelHasher::default();
        let mut topics = Topics::default();
        let indices: Vec<u32> = (0..100)
            .map(|number| topics.find_or_insert(&hasher.name(&format!("c{number}")), Default::default))
            .collect();
        for round in 0..100 {
            for (number, index) in indices.iter().enumerate() {
                if number >= round {
                    topics.count_delivery(*index);
                }
            }
        }
        let names = |topics: &Topics| -> Vec<String> {
            topics.busiest().into_iter().map(|(name, ..)| name.to_string()).collect()
        };
        let expected: Vec<_> = (80..100).rev().map(|number| format!("c{number}")).collect();
        assert_eq!(names(&topics), expected);
        topics.remove_if_unused(indices[99]).unwrap();
        assert_eq!(names(&topics), expected[1..]);
        topics.count_delivery(indices[0]);
        assert_eq!(topics.busiest().len(), BUSIEST_MAX, "a free place is taken by whoever is delivered to");
    }
}
