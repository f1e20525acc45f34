//! Channels with members on this shard.

use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;

use super::Form;
use crate::{config::SlowConsumerPolicy, mesh::ChannelName};

/// Topics that are counted as the busiest.
const BUSIEST_MAX: usize = 20;

/// In [`Topic::next`]: the channel has no further topic.
const NONE: u32 = u32::MAX;

/// A channel in one form, and who is in it on this shard.
#[derive(Debug)]
pub struct Topic {
    /// The channel.
    pub channel: ChannelName,
    /// How its members are written to.
    pub form: Form,
    /// The channel's next topic, of another form.
    next: u32,
    /// By slab index: subscribers first, then those that are silent, both in no order.
    members: Vec<u32>,
    /// How many of them are subscribers.
    subscribers: u32,
    /// Subscriptions that wait for the home shard's answer.
    pub pending: u32,
    /// What happens to slow subscribers.
    pub policy: SlowConsumerPolicy,
    /// Whether the home shard has yet to be told the present number of subscribers.
    pub is_count_stale: bool,
    /// Publications delivered to the channel since it began; in the first of its topics.
    deliveries: u64,
    /// Whether it is among the busiest.
    is_busy: bool,
    /// The topic's open batch of this turn, if any.
    pub open_batch: Option<u32>,
}

impl Topic {
    /// Who is sent the publications, by slab index.
    pub fn subscribers(&self) -> &[u32] {
        &self.members[..self.subscribers as usize]
    }

    /// Subscribers, and those that are in the topic only to be found: of a user's personal channel, all its connections.
    pub fn members(&self) -> &[u32] {
        &self.members
    }

    /// Subscribers that the home shard must reckon with, those still waiting for its answer among them.
    fn interest(&self) -> u32 {
        self.subscribers + self.pending
    }
}

/// All topics of a shard, by channel and form, and by index.
#[derive(Debug, Default)]
pub struct Topics {
    /// The first topic of each channel; it leads to the others.
    by_hash: HashTable<u32>,
    topics: Slab<Topic>,
    subscriptions: u64,
    /// The topics with the most deliveries, in no order, kept as deliveries happen: looking for them among a million
    /// would hold the shard up.
    busiest: Vec<u32>,
    /// Deliveries that a topic must pass to come among the busiest.
    busy_deliveries_min: u64,
}

impl Topic {
    fn swap(&mut self, position: u32, new_position: u32, mut moved: impl FnMut(u32, u32)) {
        if position != new_position {
            self.members.swap(position as usize, new_position as usize);
            moved(self.members[position as usize], position);
        }
    }
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

    /// Channels that have a topic.
    pub fn channels(&self) -> usize {
        self.by_hash.len()
    }

    /// Subscriptions of all topics.
    pub fn subscriptions(&self) -> u64 {
        self.subscriptions
    }

    /// The first topic of a channel.
    pub fn first_of_channel(&self, hash: u64, name: &str) -> Option<u32> {
        self.by_hash.find(hash, |index| &*self.topics[*index as usize].channel.name == name).copied()
    }

    /// The channel's next topic.
    pub fn next_of_channel(&self, index: u32) -> Option<u32> {
        let next = self.topics[index as usize].next;
        (next != NONE).then_some(next)
    }

    /// All topics of a channel.
    pub fn of_channel(&self, hash: u64, name: &str) -> impl Iterator<Item = (u32, &Topic)> {
        let first = self.first_of_channel(hash, name);
        std::iter::successors(first, |index| self.next_of_channel(*index)).map(|index| (index, self.get(index)))
    }

    /// The topic of a channel in a form.
    pub fn find(&self, hash: u64, name: &str, form: Form) -> Option<u32> {
        self.of_channel(hash, name).find(|(_, topic)| topic.form == form).map(|(index, _)| index)
    }

    /// The topic of a channel in a form, made if there is none.
    pub fn find_or_insert(
        &mut self,
        channel: &ChannelName,
        form: Form,
        policy: impl FnOnce() -> SlowConsumerPolicy,
    ) -> u32 {
        if let Some(index) = self.find(channel.hash, &channel.name, form) {
            return index;
        }
        let first = self.first_of_channel(channel.hash, &channel.name);
        let index = u32::try_from(self.topics.insert(Topic {
            channel: channel.clone(),
            form,
            next: first.map_or(NONE, |first| self.topics[first as usize].next),
            members: Vec::new(),
            subscribers: 0,
            pending: 0,
            policy: policy(),
            is_count_stale: false,
            deliveries: 0,
            is_busy: false,
            open_batch: None,
        }))
        .expect("memory ends before topics number 2^32");
        match first {
            Some(first) => self.topics[first as usize].next = index,
            None => {
                let topics = &self.topics;
                self.by_hash.insert_unique(channel.hash, index, |index| topics[*index as usize].channel.hash);
            }
        }
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

    /// Subscribers of a channel that the home shard must reckon with, in all forms.
    pub fn interest(&self, channel: &ChannelName) -> u32 {
        self.of_channel(channel.hash, &channel.name).map(|(_, topic)| topic.interest()).sum()
    }

    /// Adds a subscriber: its position. `moved` is told of each other connection that has another position now.
    pub fn attach(&mut self, index: u32, connection: u32, moved: impl FnMut(u32, u32)) -> u32 {
        let position = self.attach_silent(index, connection);
        self.make_subscriber(index, position, moved)
    }

    /// Adds a member that is sent nothing: its position.
    pub fn attach_silent(&mut self, index: u32, connection: u32) -> u32 {
        let topic = &mut self.topics[index as usize];
        assert!(topic.open_batch.is_none(), "an open batch is handed out before the list changes");
        topic.members.push(connection);
        u32::try_from(topic.members.len() - 1).expect("slab indices are u32")
    }

    /// The silent member at `position` is to be sent publications: its new position.
    pub fn make_subscriber(&mut self, index: u32, position: u32, moved: impl FnMut(u32, u32)) -> u32 {
        let topic = &mut self.topics[index as usize];
        assert!(topic.open_batch.is_none(), "an open batch is handed out before the list changes");
        assert!(position >= topic.subscribers, "the member at {position} is a subscriber already");
        let new_position = topic.subscribers;
        topic.swap(position, new_position, moved);
        topic.subscribers += 1;
        self.subscriptions += 1;
        new_position
    }

    /// The subscriber at `position` is sent nothing any more, but stays: its new position.
    pub fn make_silent(&mut self, index: u32, position: u32, moved: impl FnMut(u32, u32)) -> u32 {
        let topic = &mut self.topics[index as usize];
        assert!(topic.open_batch.is_none(), "an open batch is handed out before the list changes");
        assert!(position < topic.subscribers, "the member at {position} is silent already");
        topic.subscribers -= 1;
        self.subscriptions -= 1;
        let new_position = topic.subscribers;
        topic.swap(position, new_position, moved);
        new_position
    }

    /// Takes the member at `position` away. `moved` is told of each connection that has another position now.
    pub fn detach(&mut self, index: u32, mut position: u32, mut moved: impl FnMut(u32, u32)) {
        if position < self.topics[index as usize].subscribers {
            position = self.make_silent(index, position, &mut moved);
        }
        let members = &mut self.topics[index as usize].members;
        members.swap_remove(position as usize);
        if let Some(connection) = members.get(position as usize) {
            moved(*connection, position);
        }
        if members.len() * 4 < members.capacity() {
            members.shrink_to(members.len() * 2);
        }
    }

    /// Lends out a topic's list of members, for as long as [`Topics::return_members`] is not called.
    pub fn lend_members(&mut self, index: u32) -> Vec<u32> {
        std::mem::take(&mut self.topics[index as usize].members)
    }

    /// Ends [`Topics::lend_members`].
    pub fn return_members(&mut self, index: u32, members: Vec<u32>) {
        self.topics[index as usize].members = members;
    }

    /// Ends a topic that nobody needs: whether it ended.
    pub fn remove_if_unused(&mut self, index: u32) -> bool {
        let topic = &self.topics[index as usize];
        if !topic.members.is_empty() || topic.pending > 0 {
            return false;
        }
        assert!(topic.open_batch.is_none(), "an open batch is handed out before the list changes");
        if topic.is_busy {
            self.busiest.retain(|busy| *busy != index);
            self.busy_deliveries_min = 0;
        }
        let Topic { channel, next, deliveries, .. } = self.topics.remove(index as usize);
        match self.by_hash.find_entry(channel.hash, |candidate| *candidate == index) {
            Ok(entry) if next == NONE => _ = entry.remove(),
            Ok(mut entry) => {
                *entry.get_mut() = next;
                self.topics[next as usize].deliveries = deliveries;
            }
            Err(_) => {
                let mut before = self.first_of_channel(channel.hash, &channel.name);
                while let Some(candidate) = before {
                    let candidate = &mut self.topics[candidate as usize];
                    if candidate.next == index {
                        candidate.next = next;
                        break;
                    }
                    before = (candidate.next != NONE).then_some(candidate.next);
                }
            }
        }
        true
    }

    /// The channels that have subscribers here.
    pub fn subscribed_channels(&self) -> impl Iterator<Item = &Arc<str>> {
        let topics = |first| std::iter::successors(Some(first), |index| self.next_of_channel(*index));
        let subscribed = move |first: &&u32| topics(**first).any(|index| self.get(index).subscribers > 0);
        self.by_hash.iter().filter(subscribed).map(|first| &self.get(*first).channel.name)
    }

    /// A publication was delivered to the channel of which this is the first topic.
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

    /// The channels with the most deliveries, most first: name, subscribers, deliveries.
    pub fn busiest(&self) -> Vec<(Arc<str>, u32, u64)> {
        let topics = self.busiest.iter().map(|index| &self.topics[*index as usize]);
        let mut busiest: Vec<_> = topics
            .map(|topic| {
                let ChannelName { hash, name } = &topic.channel;
                let subscribers = self.of_channel(*hash, name).map(|(_, topic)| topic.subscribers).sum();
                (Arc::clone(name), subscribers, topic.deliveries)
            })
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

    fn still(_: u32, _: u32) {
        panic!("nobody moves");
    }

    #[test]
    fn topics_live_as_long_as_somebody_needs_them() {
        let hasher = ChannelHasher::default();
        let mut topics = Topics::default();
        let news = hasher.name("news");
        let form = Form::default();
        let index = topics.find_or_insert(&news, form, || SlowConsumerPolicy::Latest);
        assert_eq!(topics.find_or_insert(&news, form, || unreachable!("the topic exists")), index);
        topics.get_mut(index).pending += 1;
        assert!(!topics.remove_if_unused(index));
        for connection in 0..4 {
            assert_eq!(topics.attach(index, connection, still), connection);
        }
        topics.get_mut(index).pending -= 1;
        let mut moves = Vec::new();
        topics.detach(index, 1, |connection, position| moves.push((connection, position)));
        assert_eq!(moves, [(3, 1)], "the last one takes the free place");
        topics.detach(index, 2, still);
        assert_eq!(topics.get(index).subscribers(), [0, 3]);
        assert!(!topics.remove_if_unused(index));
        topics.detach(index, 1, still);
        topics.detach(index, 0, still);
        assert!(topics.remove_if_unused(index));
        assert_eq!(topics.find(news.hash, "news", form), None);
        assert_eq!((topics.len(), topics.channels(), topics.subscriptions()), (0, 0, 0));
    }

    #[test]
    fn names_with_the_same_hash_are_different_topics() {
        let mut topics = Topics::default();
        let one = ChannelName { hash: 7, name: "one".into() };
        let two = ChannelName { hash: 7, name: "two".into() };
        let form = Form::default();
        let first = topics.find_or_insert(&one, form, Default::default);
        let second = topics.find_or_insert(&two, form, Default::default);
        assert_ne!(first, second);
        assert_eq!(
            (topics.find(7, "one", form), topics.find(7, "two", form), topics.find(7, "six", form)),
            (Some(first), Some(second), None)
        );
        assert!(topics.remove_if_unused(first));
        assert_eq!((topics.find(7, "one", form), topics.find(7, "two", form)), (None, Some(second)));
    }

    #[test]
    fn the_topics_of_a_channel_lead_to_each_other_and_count_together() {
        let news = ChannelHasher::default().name("news");
        let forms = [Form::default(), Form::OTHER];
        for (removed_first, removed_last) in [(0, 1), (1, 0)] {
            let mut topics = Topics::default();
            let indices = forms.map(|form| topics.find_or_insert(&news, form, Default::default));
            assert_ne!(indices[0], indices[1]);
            for (connection, index) in [(0, 0), (1, 0), (2, 1)] {
                topics.attach(indices[index], connection, still);
            }
            topics.get_mut(indices[1]).pending = 4;
            topics.count_delivery(topics.first_of_channel(news.hash, "news").unwrap());
            assert_eq!(forms.map(|form| topics.find(news.hash, "news", form)), indices.map(Some));
            assert_eq!((topics.len(), topics.channels(), topics.interest(&news)), (2, 1, 7));
            assert_eq!(topics.busiest(), [("news".into(), 3, 1)]);
            assert_eq!(topics.subscribed_channels().collect::<Vec<_>>(), [&news.name]);

            topics.get_mut(indices[1]).pending = 0;
            let clear = |topics: &mut Topics, index: u32| {
                while !topics.get(index).members().is_empty() {
                    topics.detach(index, 0, |_, _| {});
                }
                assert!(topics.remove_if_unused(index));
            };
            clear(&mut topics, indices[removed_first]);
            let left = topics.of_channel(news.hash, "news").map(|(index, _)| index).collect::<Vec<_>>();
            assert_eq!(left, [indices[removed_last]]);
            topics.count_delivery(left[0]);
            assert_eq!(topics.busiest()[0].2, 2, "the channel goes on, and so does its count");
            clear(&mut topics, indices[removed_last]);
            assert_eq!((topics.len(), topics.channels(), topics.interest(&news)), (0, 0, 0));
        }
    }

    #[test]
    fn silent_members_are_found_but_are_not_subscribers() {
        let user = ChannelHasher::default().name("#user");
        let mut topics = Topics::default();
        let index = topics.find_or_insert(&user, Form::default(), Default::default);
        // Where each connection stands, as the connections themselves would remember it.
        let mut positions = [0; 5];
        for connection in 0..5 {
            positions[connection as usize] = topics.attach_silent(index, connection);
        }
        assert_eq!((topics.interest(&user), topics.subscriptions()), (0, 0));
        assert_eq!(topics.subscribed_channels().count(), 0);
        for connection in [3, 0, 4] {
            let position = positions[connection];
            positions[connection] =
                topics.make_subscriber(index, position, |moved, position| positions[moved as usize] = position);
        }
        assert_eq!(topics.get(index).subscribers(), [3, 0, 4]);
        let position = positions[3];
        positions[3] = topics.make_silent(index, position, |moved, position| positions[moved as usize] = position);
        topics.detach(index, positions[4], |moved, position| positions[moved as usize] = position);
        assert_eq!((topics.interest(&user), topics.subscriptions()), (1, 1));
        let topic = topics.get(index);
        assert_eq!(topic.subscribers(), [0]);
        assert_eq!(topic.members().len(), 4);
        for connection in [0, 1, 2, 3] {
            assert_eq!(topic.members()[positions[connection as usize] as usize], connection);
        }
        assert!(!topics.remove_if_unused(index), "silent members need their topic");
    }

    #[test]
    fn the_busiest_are_known_without_looking_for_them() {
        let hasher = ChannelHasher::default();
        let mut topics = Topics::default();
        let indices: Vec<u32> = (0..100)
            .map(|number| topics.find_or_insert(&hasher.name(&format!("c{number}")), Form::default(), Default::default))
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
        assert!(topics.remove_if_unused(indices[99]));
        assert_eq!(names(&topics), expected[1..]);
        topics.count_delivery(indices[0]);
        assert_eq!(topics.busiest().len(), BUSIEST_MAX, "a free place is taken by whoever is delivered to");
    }
}
