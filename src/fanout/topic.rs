//! Channels in their forms and with their contents, with their members on this shard.
//!
//! What a topic always needs is in its record ([`super::directory`]); what it needs at times is here: a list where it has
//! several members, and an [`Activity`] while something goes on. A personal channel with one client has neither.

use std::collections::BTreeMap;

use bytes::Bytes;
use slab::Slab;

use super::{
    Chain, Content, Filter, Form,
    chain::Chains,
    content::Variant,
    directory::{Directory, Kind},
    members::Members,
};
use crate::{config::SlowConsumerPolicy, mesh::ChannelName, protocol::Tags};

/// Topics that are counted as the busiest.
const BUSIEST_MAX: usize = 20;

/// In a record's `activity`: the rest is the index of an [`Activity`]. Without it the rest is the number of deliveries.
const ACTIVE: u32 = 1 << 31;

/// What a topic remembers while something goes on.
#[derive(Debug, Default)]
struct Activity {
    /// Subscriptions that wait for the home shard's answer.
    pending: u32,
    /// The topic's open batch of this turn, if any.
    open_batch: Option<u32>,
    /// Whether the home shard has yet to be told the present number of subscribers.
    is_count_stale: bool,
    /// Whether it is among the busiest.
    is_busy: bool,
    /// Publications delivered to the channel since it began; in the first of its topics.
    deliveries: u64,
}

/// All topics of a shard, by channel, form and content, and by index.
#[derive(Debug, Default)]
pub struct Topics {
    directory: Directory,
    lists: Slab<Members>,
    /// Bytes of the lists' places.
    list_bytes: usize,
    activities: Slab<Activity>,
    chains: Chains,
    /// Those of filtered topics.
    filters: BTreeMap<u32, Filter>,
    filter_bytes: usize,
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
        self.directory.topics()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Channels that have a topic.
    pub fn channels(&self) -> usize {
        self.directory.channels()
    }

    /// Subscriptions of all topics.
    pub fn subscriptions(&self) -> u64 {
        self.subscriptions
    }

    /// The first topic of a channel.
    pub fn first_of_channel(&self, hash: u64, name: &str) -> Option<u32> {
        self.directory.first(hash, name)
    }

    /// The channel's next topic.
    pub fn next_of_channel(&self, index: u32) -> Option<u32> {
        self.directory.next(index)
    }

    /// All topics of a channel.
    pub fn of_channel(&self, hash: u64, name: &str) -> impl Iterator<Item = u32> {
        std::iter::successors(self.directory.first(hash, name), |index| self.directory.next(*index))
    }

    /// The topic of a channel in a form and with a content.
    pub fn find(&self, hash: u64, name: &str, form: Form, content: &Content) -> Option<u32> {
        let variant = Variant::new(form, content);
        self.of_channel(hash, name).find(|index| {
            let is_filter = |filter| self.filters.get(index) == Some(filter);
            self.directory.get(*index).variant == variant
                && !matches!(content, Content::Filtered(filter) if !is_filter(filter))
        })
    }

    /// The topic of a channel in a form and with a content, made if there is none.
    pub fn find_or_insert(
        &mut self,
        channel: &ChannelName,
        form: Form,
        content: &Content,
        policy: impl FnOnce() -> SlowConsumerPolicy,
    ) -> u32 {
        if let Some(index) = self.find(channel.hash, &channel.name, form, content) {
            return index;
        }
        let index = self.directory.insert(channel, Variant::new(form, content), policy());
        match content {
            Content::Whole => {}
            Content::Deltas => self.chains.insert(index),
            Content::Filtered(filter) => {
                self.filter_bytes += filter.bytes();
                self.filters.insert(index, Filter::clone(filter));
            }
        }
        index
    }

    /// Whether there is a topic of this index.
    pub fn contains(&self, index: u32) -> bool {
        self.directory.contains(index)
    }

    /// The name of a topic's channel.
    pub fn name(&self, index: u32) -> &str {
        std::str::from_utf8(self.directory.name(index)).expect("it was a text when it was written")
    }

    /// How a topic's members are written to.
    pub fn form(&self, index: u32) -> Form {
        self.directory.get(index).variant.form()
    }

    /// Whether a topic's content is [`Content::Deltas`].
    pub fn has_deltas(&self, index: u32) -> bool {
        self.directory.get(index).variant.has_deltas()
    }

    /// Whether a topic's content is [`Content::Filtered`].
    pub fn is_filtered(&self, index: u32) -> bool {
        self.directory.get(index).variant.is_filtered()
    }

    /// Whether a topic's subscribers are sent publications with these tags.
    pub fn passes(&self, index: u32, tags: Option<&Tags>) -> bool {
        !self.is_filtered(index) || self.filters[&index].matches(tags)
    }

    /// What a publication's tests by all filters of a channel cost, in nodes.
    pub fn filter_nodes(&self, hash: u64, name: &str) -> usize {
        let filtered = self.of_channel(hash, name).filter(|index| self.is_filtered(*index));
        filtered.map(|index| self.filters[&index].nodes()).sum()
    }

    /// Where a topic of deltas stands.
    pub fn chain_mut(&mut self, index: u32) -> &mut Chain {
        self.chains.get_mut(index)
    }

    /// A publication is given to the subscribers of a topic of deltas: the payload before it, if there is one.
    pub fn advance_chain(&mut self, index: u32, data: Bytes) -> Option<Bytes> {
        self.chains.advance(index, data)
    }

    /// A subscriber has come to a topic of deltas, having been given `data` last: whether patches are made to it.
    pub fn join_chain(&mut self, index: u32, data: &Bytes) -> bool {
        let is_only = self.subscribers(index).len() == 1;
        self.chains.join(index, data, is_only)
    }

    /// What happens to a topic's slow subscribers.
    pub fn policy(&self, index: u32) -> SlowConsumerPolicy {
        self.directory.get(index).policy
    }

    /// From now on this happens to a topic's slow subscribers. What an open batch holds already goes by the old policy.
    pub fn set_policy(&mut self, index: u32, policy: SlowConsumerPolicy) {
        self.directory.get_mut(index).policy = policy;
    }

    /// Topics, by index.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.directory.iter()
    }

    /// Who is sent a topic's publications, by slab index.
    pub fn subscribers(&self, index: u32) -> &[u32] {
        let record = self.directory.get(index);
        match record.kind {
            Kind::OneSubscriber => std::slice::from_ref(&record.members),
            Kind::Several => self.lists[record.members as usize].subscribers(),
            Kind::Free | Kind::Nobody | Kind::OneSilent => &[],
        }
    }

    /// Subscribers, and those that are in the topic only to be found: of a user's personal channel, all its connections.
    pub fn members(&self, index: u32) -> &[u32] {
        let record = self.directory.get(index);
        match record.kind {
            Kind::OneSilent | Kind::OneSubscriber => std::slice::from_ref(&record.members),
            Kind::Several => self.lists[record.members as usize].all(),
            Kind::Free | Kind::Nobody => &[],
        }
    }

    /// Subscribers of a channel that the home shard must reckon with, in all forms: those that still wait for its answer
    /// are among them.
    pub fn interest(&self, hash: u64, name: &str) -> u32 {
        let interest = |index| self.subscribers(index).len() as u32 + self.pending(index);
        self.of_channel(hash, name).map(interest).sum()
    }

    /// The channels that have subscribers here, with how many they are: each channel once for each of its forms that has
    /// some.
    pub fn subscribed_channels(&self) -> impl Iterator<Item = (&str, u32)> {
        let topics = self.directory.iter().map(|index| (index, self.subscribers(index).len() as u32));
        topics.filter(|(_, subscribers)| *subscribers > 0).map(|(index, subscribers)| (self.name(index), subscribers))
    }

    /// Some of all topics: those whose indices are the `indices_max` from `from` on, and where the next of them begin, if
    /// there are more.
    pub fn part(&self, from: u32, indices_max: u32) -> (impl Iterator<Item = u32> + '_, Option<u32>) {
        let all = self.directory.indices();
        let end = from.saturating_add(indices_max).min(all);
        ((from..end).filter(|index| self.directory.contains(*index)), (end < all).then_some(end))
    }

    /// Adds a subscriber: its position. `moved` is told of each other connection that has another position now.
    pub fn attach(&mut self, index: u32, connection: u32, moved: impl FnMut(u32, u32)) -> u32 {
        let position = self.attach_silent(index, connection);
        self.make_subscriber(index, position, moved)
    }

    /// Adds a member that is sent nothing: its position.
    pub fn attach_silent(&mut self, index: u32, connection: u32) -> u32 {
        self.assert_handed_out(index);
        let record = self.directory.get_mut(index);
        match record.kind {
            Kind::Free => unreachable!("a topic is asked for while it exists"),
            Kind::Nobody => {
                (record.kind, record.members) = (Kind::OneSilent, connection);
                0
            }
            Kind::OneSilent | Kind::OneSubscriber => {
                let mut members = Members::default();
                members.push(record.members);
                if record.kind == Kind::OneSubscriber {
                    members.make_subscriber(0, |_, _| {});
                }
                let position = members.push(connection);
                self.list_bytes += members.bytes();
                let list = u32::try_from(self.lists.insert(members)).expect("memory ends before lists number 2^32");
                (record.kind, record.members) = (Kind::Several, list);
                position
            }
            Kind::Several => {
                let members = &mut self.lists[record.members as usize];
                self.list_bytes -= members.bytes();
                let position = members.push(connection);
                self.list_bytes += members.bytes();
                position
            }
        }
    }

    /// The silent member at `position` is to be sent publications: its new position.
    pub fn make_subscriber(&mut self, index: u32, position: u32, moved: impl FnMut(u32, u32)) -> u32 {
        self.assert_handed_out(index);
        self.subscriptions += 1;
        let record = self.directory.get_mut(index);
        match record.kind {
            Kind::OneSilent => record.kind = Kind::OneSubscriber,
            Kind::Several => return self.lists[record.members as usize].make_subscriber(position, moved),
            kind => panic!("no silent member is in a topic of {kind:?}"),
        }
        0
    }

    /// The subscriber at `position` is sent nothing any more, but stays: its new position.
    pub fn make_silent(&mut self, index: u32, position: u32, moved: impl FnMut(u32, u32)) -> u32 {
        self.assert_handed_out(index);
        self.subscriptions -= 1;
        let record = self.directory.get_mut(index);
        match record.kind {
            Kind::OneSubscriber => record.kind = Kind::OneSilent,
            Kind::Several => return self.lists[record.members as usize].make_silent(position, moved),
            kind => panic!("no subscriber is in a topic of {kind:?}"),
        }
        0
    }

    /// Takes the member at `position` away. `moved` is told of each connection that has another position now.
    pub fn detach(&mut self, index: u32, mut position: u32, mut moved: impl FnMut(u32, u32)) {
        if (position as usize) < self.subscribers(index).len() {
            position = self.make_silent(index, position, &mut moved);
        }
        let record = self.directory.get_mut(index);
        match record.kind {
            Kind::OneSilent => record.kind = Kind::Nobody,
            Kind::Several => {
                let list = record.members as usize;
                let members = &mut self.lists[list];
                self.list_bytes -= members.bytes();
                members.remove(position, moved);
                self.list_bytes += members.bytes();
                if let [only] = *members.all() {
                    let is_silent = members.subscribers().is_empty();
                    record.kind = if is_silent { Kind::OneSilent } else { Kind::OneSubscriber };
                    record.members = only;
                    self.list_bytes -= self.lists.remove(list).bytes();
                }
            }
            kind => panic!("no silent member is in a topic of {kind:?}"),
        }
    }

    /// Ends a topic that nobody needs: whether it ended.
    pub fn remove_if_unused(&mut self, index: u32) -> bool {
        if self.directory.get(index).kind != Kind::Nobody || self.pending(index) > 0 {
            return false;
        }
        self.assert_handed_out(index);
        let deliveries = self.deliveries(index);
        if let Some(activity) = self.activity_index(index)
            && self.activities.remove(activity).is_busy
        {
            self.busiest.retain(|busy| *busy != index);
            self.busy_deliveries_min = 0;
        }
        // The channel goes on in its other forms, and so does its count.
        let first = self.directory.first_beside(index);
        let heir = if first == index { self.directory.next(index) } else { Some(first) };
        if let Some(heir) = heir {
            self.set_deliveries(heir, self.deliveries(heir) + deliveries);
        }
        if self.has_deltas(index) {
            self.chains.remove(index);
        }
        if let Some(filter) = self.filters.remove(&index) {
            self.filter_bytes -= filter.bytes();
        }
        self.directory.remove(index);
        true
    }

    /// A subscription waits for the home shard's answer.
    pub fn begin_pending(&mut self, index: u32) {
        self.activity_mut(index).pending += 1;
    }

    /// It waits no more.
    pub fn end_pending(&mut self, index: u32) {
        self.activity_mut(index).pending -= 1;
        self.rest(index);
    }

    fn pending(&self, index: u32) -> u32 {
        self.activity(index).map_or(0, |activity| activity.pending)
    }

    /// The topic's open batch of this turn, if any.
    pub fn open_batch(&self, index: u32) -> Option<u32> {
        self.activity(index)?.open_batch
    }

    /// The topic has a batch now that it had not.
    pub fn set_open_batch(&mut self, index: u32, batch: u32) {
        let before = self.activity_mut(index).open_batch.replace(batch);
        assert!(before.is_none(), "a topic has one open batch");
    }

    /// The topic's open batch, which it has no more.
    pub fn take_open_batch(&mut self, index: u32) -> Option<u32> {
        let activity = self.activity_index(index)?;
        let batch = self.activities[activity].open_batch.take()?;
        self.rest(index);
        Some(batch)
    }

    fn assert_handed_out(&self, index: u32) {
        assert!(self.open_batch(index).is_none(), "an open batch is handed out before the list changes");
    }

    /// The home shard is to be told the number of subscribers: whether that is news.
    pub fn mark_count_stale(&mut self, index: u32) -> bool {
        !std::mem::replace(&mut self.activity_mut(index).is_count_stale, true)
    }

    /// The home shard is being told.
    pub fn clear_count_stale(&mut self, index: u32) {
        if let Some(activity) = self.activity_index(index) {
            self.activities[activity].is_count_stale = false;
            self.rest(index);
        }
    }

    /// A publication was delivered to the channel of which this is the first topic.
    pub fn count_delivery(&mut self, index: u32) {
        let deliveries = self.deliveries(index) + 1;
        self.set_deliveries(index, deliveries);
        let is_busy = self.activity(index).is_some_and(|activity| activity.is_busy);
        if is_busy || deliveries <= self.busy_deliveries_min {
            return;
        }
        self.activity_mut(index).is_busy = true;
        self.busiest.push(index);
        if self.busiest.len() > BUSIEST_MAX {
            let (place, _) = self
                .busiest
                .iter()
                .enumerate()
                .min_by_key(|(_, index)| self.deliveries(**index))
                .expect("it is not empty");
            let least = self.busiest.swap_remove(place);
            self.activity_mut(least).is_busy = false;
            self.rest(least);
            let deliveries = self.busiest.iter().map(|index| self.deliveries(*index));
            self.busy_deliveries_min = deliveries.min().expect("it is not empty");
        }
    }

    /// The channels with the most deliveries, most first: name, subscribers, deliveries.
    pub fn busiest(&self) -> Vec<(&str, u32, u64)> {
        let channel = |index: &u32| {
            let first = self.directory.first_beside(*index);
            let topics = std::iter::successors(Some(first), |index| self.directory.next(*index));
            let subscribers = topics.map(|index| self.subscribers(index).len() as u32).sum();
            (self.name(*index), subscribers, self.deliveries(*index))
        };
        let mut busiest: Vec<_> = self.busiest.iter().map(channel).collect();
        busiest.sort_unstable_by_key(|(_, _, deliveries)| std::cmp::Reverse(*deliveries));
        busiest
    }

    fn deliveries(&self, index: u32) -> u64 {
        match self.activity(index) {
            Some(activity) => activity.deliveries,
            None => u64::from(self.directory.get(index).activity),
        }
    }

    fn set_deliveries(&mut self, index: u32, deliveries: u64) {
        match self.activity_index(index) {
            Some(activity) => self.activities[activity].deliveries = deliveries,
            None => self.directory.get_mut(index).activity = at_rest(deliveries),
        }
    }

    fn activity_index(&self, index: u32) -> Option<usize> {
        let activity = self.directory.get(index).activity;
        (activity & ACTIVE != 0).then_some((activity & !ACTIVE) as usize)
    }

    fn activity(&self, index: u32) -> Option<&Activity> {
        self.activity_index(index).map(|activity| &self.activities[activity])
    }

    fn activity_mut(&mut self, index: u32) -> &mut Activity {
        let activity = self.activity_index(index).unwrap_or_else(|| {
            let record = self.directory.get_mut(index);
            let deliveries = u64::from(record.activity);
            let activity = self.activities.insert(Activity { deliveries, ..Activity::default() });
            assert!(activity < ACTIVE as usize, "memory ends before a shard has 2^31 topics");
            record.activity = ACTIVE | activity as u32;
            activity
        });
        &mut self.activities[activity]
    }

    /// Folds an activity up again in which nothing goes on.
    fn rest(&mut self, index: u32) {
        let Some(activity) = self.activity_index(index) else { return };
        let state = &self.activities[activity];
        if state.pending == 0 && state.open_batch.is_none() && !state.is_count_stale && !state.is_busy {
            let deliveries = self.activities.remove(activity).deliveries;
            self.directory.get_mut(index).activity = at_rest(deliveries);
        }
    }

    /// Bytes that records, names, lists and tables take.
    pub fn bytes(&self) -> u64 {
        (self.directory.bytes()
            + self.lists.capacity() * size_of::<Members>()
            + self.list_bytes
            + self.activities.capacity() * size_of::<Activity>()
            + self.chains.bytes()
            + self.filters.len() * size_of::<(u32, Filter)>()
            + self.filter_bytes) as u64
    }
}

/// How a count of deliveries is kept in a record; a topic with more is among the busiest, unless twenty are busier.
fn at_rest(deliveries: u64) -> u32 {
    u32::try_from(deliveries).map_or(ACTIVE - 1, |deliveries| deliveries.min(ACTIVE - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fanout::{FurtherSubscriptions, Marks, Subscription, Subscriptions},
        mesh::ChannelHasher,
    };

    const WHOLE: Content = Content::Whole;

    fn still(_: u32, _: u32) {
        panic!("nobody moves");
    }

    #[test]
    fn topics_live_as_long_as_somebody_needs_them() {
        let hasher = ChannelHasher::default();
        let mut topics = Topics::default();
        let news = hasher.name("news");
        let form = Form::default();
        let index = topics.find_or_insert(&news, form, &WHOLE, || SlowConsumerPolicy::Latest);
        assert_eq!(topics.find_or_insert(&news, form, &WHOLE, || unreachable!("the topic exists")), index);
        topics.begin_pending(index);
        assert!(!topics.remove_if_unused(index));
        for connection in 0..4 {
            assert_eq!(topics.attach(index, connection, still), connection);
        }
        topics.end_pending(index);
        let mut moves = Vec::new();
        topics.detach(index, 1, |connection, position| moves.push((connection, position)));
        assert_eq!(moves, [(3, 1)], "the last one takes the free place");
        topics.detach(index, 2, still);
        assert_eq!(topics.subscribers(index), [0, 3]);
        assert!(!topics.remove_if_unused(index));
        topics.detach(index, 1, still);
        topics.detach(index, 0, still);
        assert!(topics.remove_if_unused(index));
        assert_eq!(topics.find(news.hash, "news", form, &WHOLE), None);
        assert_eq!((topics.len(), topics.channels(), topics.subscriptions()), (0, 0, 0));
    }

    #[test]
    fn parts_make_up_the_whole() {
        let hasher = ChannelHasher::default();
        let mut topics = Topics::default();
        let mut expected: Vec<u32> = (0..10)
            .map(|number| {
                let channel = hasher.name(&format!("channel {number}"));
                topics.find_or_insert(&channel, Form::default(), &WHOLE, Default::default)
            })
            .collect();
        assert!(topics.remove_if_unused(expected.remove(4)));
        for indices_max in 1..12 {
            let (mut found, mut next) = (Vec::new(), Some(0));
            while let Some(from) = next {
                let part;
                (part, next) = topics.part(from, indices_max);
                found.extend(part);
            }
            assert_eq!(found, expected, "{indices_max} at a time");
        }
        // Where the next part was to begin, there may be nothing any more.
        let (part, next) = topics.part(u32::MAX, 1);
        assert_eq!((part.count(), next), (0, None));
    }

    #[test]
    fn names_with_the_same_hash_are_different_topics() {
        let mut topics = Topics::default();
        let one = ChannelName { hash: 7, name: "one".into() };
        let two = ChannelName { hash: 7, name: "two".into() };
        let form = Form::default();
        let first = topics.find_or_insert(&one, form, &WHOLE, Default::default);
        let second = topics.find_or_insert(&two, form, &WHOLE, Default::default);
        assert_ne!(first, second);
        assert_eq!(
            (
                topics.find(7, "one", form, &WHOLE),
                topics.find(7, "two", form, &WHOLE),
                topics.find(7, "six", form, &WHOLE)
            ),
            (Some(first), Some(second), None)
        );
        assert!(topics.remove_if_unused(first));
        assert_eq!((topics.find(7, "one", form, &WHOLE), topics.find(7, "two", form, &WHOLE)), (None, Some(second)));
    }

    #[test]
    fn the_topics_of_a_channel_lead_to_each_other_and_count_together() {
        let news = ChannelHasher::default().name("news");
        let forms = [Form::default(), Form::OTHER];
        for (removed_first, removed_last) in [(0, 1), (1, 0)] {
            let mut topics = Topics::default();
            let indices = forms.map(|form| topics.find_or_insert(&news, form, &WHOLE, Default::default));
            assert_ne!(indices[0], indices[1]);
            for (connection, index) in [(0, 0), (1, 0), (2, 1)] {
                topics.attach(indices[index], connection, still);
            }
            (0..4).for_each(|_| topics.begin_pending(indices[1]));
            topics.count_delivery(topics.first_of_channel(news.hash, "news").unwrap());
            assert_eq!(forms.map(|form| topics.find(news.hash, "news", form, &WHOLE)), indices.map(Some));
            assert_eq!((topics.len(), topics.channels(), topics.interest(news.hash, "news")), (2, 1, 7));
            assert_eq!(topics.busiest(), [("news", 3, 1)]);
            assert_eq!(topics.subscribed_channels().collect::<Vec<_>>(), [("news", 2), ("news", 1)]);

            (0..4).for_each(|_| topics.end_pending(indices[1]));
            let clear = |topics: &mut Topics, index: u32| {
                while !topics.members(index).is_empty() {
                    topics.detach(index, 0, |_, _| {});
                }
                assert!(topics.remove_if_unused(index));
            };
            clear(&mut topics, indices[removed_first]);
            let left = topics.of_channel(news.hash, "news").collect::<Vec<_>>();
            assert_eq!(left, [indices[removed_last]]);
            topics.count_delivery(left[0]);
            assert_eq!(topics.busiest()[0].2, 2, "the channel goes on, and so does its count");
            clear(&mut topics, indices[removed_last]);
            assert_eq!((topics.len(), topics.channels(), topics.interest(news.hash, "news")), (0, 0, 0));
        }
    }

    #[test]
    fn silent_members_are_found_but_are_not_subscribers() {
        let user = ChannelHasher::default().name("#user");
        let mut topics = Topics::default();
        let index = topics.find_or_insert(&user, Form::default(), &WHOLE, Default::default);
        // Where each connection stands, as the connections themselves would remember it.
        let mut positions = [0; 5];
        for connection in 0..5 {
            positions[connection as usize] = topics.attach_silent(index, connection);
        }
        assert_eq!((topics.interest(user.hash, "#user"), topics.subscriptions()), (0, 0));
        assert_eq!(topics.subscribed_channels().count(), 0);
        for connection in [3, 0, 4] {
            let position = positions[connection];
            positions[connection] =
                topics.make_subscriber(index, position, |moved, position| positions[moved as usize] = position);
        }
        assert_eq!(topics.subscribers(index), [3, 0, 4]);
        let position = positions[3];
        positions[3] = topics.make_silent(index, position, |moved, position| positions[moved as usize] = position);
        topics.detach(index, positions[4], |moved, position| positions[moved as usize] = position);
        assert_eq!((topics.interest(user.hash, "#user"), topics.subscriptions()), (1, 1));
        assert_eq!(topics.subscribers(index), [0]);
        assert_eq!(topics.members(index).len(), 4);
        for connection in [0, 1, 2, 3] {
            assert_eq!(topics.members(index)[positions[connection as usize] as usize], connection);
        }
        assert!(!topics.remove_if_unused(index), "silent members need their topic");
    }

    #[test]
    fn the_busiest_are_known_without_looking_for_them() {
        let hasher = ChannelHasher::default();
        let mut topics = Topics::default();
        let indices: Vec<u32> = (0..100)
            .map(|number| {
                topics.find_or_insert(&hasher.name(&format!("c{number}")), Form::default(), &WHOLE, Default::default)
            })
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

    /// Clients of many channels, such as those of one page with many live figures.
    #[test]
    fn a_further_subscription_costs_at_most_16_bytes() {
        const CONNECTIONS: u32 = 1_000;
        const CHANNELS: u64 = 64;
        for subscriptions in [10, 32, 64] {
            let hasher = ChannelHasher::with_key([5; 16]);
            let (mut topics, mut further) = (Topics::default(), FurtherSubscriptions::default());
            let indices: Vec<u32> = (0..CHANNELS)
                .map(|number| {
                    topics.find_or_insert(
                        &hasher.name(&format!("c{number}")),
                        Form::default(),
                        &WHOLE,
                        Default::default,
                    )
                })
                .collect();
            let unused = topics.bytes();
            for connection in 0..CONNECTIONS {
                let mut of_connection = Subscriptions::default();
                for number in 0..subscriptions {
                    let topic = indices[((u64::from(connection) * 7 + number) % CHANNELS) as usize];
                    let position = topics.attach(topic, connection, still);
                    of_connection.insert(&mut further, Subscription::new(topic, position, Marks::default()));
                }
            }
            let bytes = topics.bytes() - unused + further.bytes() as u64;
            let bytes = bytes as f64 / (u64::from(CONNECTIONS) * (subscriptions - 2)) as f64;
            println!("{bytes:.1} bytes for each of {subscriptions} subscriptions but two");
            assert!(bytes <= 16.0, "{bytes} bytes for each of {subscriptions}");
        }
    }
}
