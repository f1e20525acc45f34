//! What one connection is subscribed to.

/// A connection's place among a topic's subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// The topic; [`Subscription::NONE`]'s means that there is none.
    pub topic: u32,
    /// Index in the topic's list of subscribers.
    pub position: u32,
}

impl Subscription {
    /// No subscription.
    pub const NONE: Self = Self { topic: u32::MAX, position: 0 };

    /// Whether there is one.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

/// The subscriptions of one connection: two in place (a user's personal channel and one more), the rest in a list that
/// exists only then.
#[derive(Debug)]
pub struct Subscriptions {
    inline: [Subscription; 2],
    #[expect(clippy::box_collection, reason = "a thin pointer: most connections have no list")]
    more: Option<Box<Vec<Subscription>>>,
}

const _: () = assert!(size_of::<Subscriptions>() == 24);

impl Default for Subscriptions {
    fn default() -> Self {
        Self { inline: [Subscription::NONE; 2], more: None }
    }
}

impl Subscriptions {
    /// How many.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Subscription> + '_ {
        let more = self.more.iter().flat_map(|more| more.iter());
        self.inline.iter().chain(more).copied().filter(|subscription| subscription.is_some())
    }

    /// Adds one to a topic that is not among them.
    pub fn insert(&mut self, subscription: Subscription) {
        debug_assert!(self.position(subscription.topic).is_none(), "a connection is subscribed to a topic once");
        match self.inline.iter_mut().find(|place| !place.is_some()) {
            Some(place) => *place = subscription,
            None => self.more.get_or_insert_default().push(subscription),
        }
    }

    /// Where the connection stands in a topic's list.
    pub fn position(&self, topic: u32) -> Option<u32> {
        self.iter().find(|subscription| subscription.topic == topic).map(|subscription| subscription.position)
    }

    /// The topic's list was rearranged.
    pub fn set_position(&mut self, topic: u32, position: u32) {
        let more = self.more.iter_mut().flat_map(|more| more.iter_mut());
        let mut all = self.inline.iter_mut().chain(more);
        let subscription = all.find(|subscription| subscription.topic == topic);
        subscription.expect("a topic lists only its subscribers").position = position;
    }

    /// Takes one away: where it stood in the topic's list.
    pub fn remove(&mut self, topic: u32) -> Option<u32> {
        if let Some(place) = self.inline.iter_mut().find(|place| place.topic == topic) {
            return Some(std::mem::replace(place, Subscription::NONE).position);
        }
        let more = self.more.as_mut()?;
        let index = more.iter().position(|subscription| subscription.topic == topic)?;
        let subscription = more.swap_remove(index);
        if more.is_empty() {
            self.more = None;
        }
        Some(subscription.position)
    }

    /// Takes any one away.
    pub fn pop(&mut self) -> Option<Subscription> {
        let topic = self.iter().next()?.topic;
        self.remove(topic).map(|position| Subscription { topic, position })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_come_and_go_in_any_order() {
        let mut subscriptions = Subscriptions::default();
        for topic in 0..5 {
            subscriptions.insert(Subscription { topic, position: topic * 10 });
        }
        assert_eq!(subscriptions.len(), 5);
        assert_eq!(subscriptions.remove(0), Some(0));
        assert_eq!(subscriptions.remove(3), Some(30));
        assert_eq!(subscriptions.remove(3), None);
        subscriptions.set_position(4, 7);
        assert_eq!(subscriptions.position(4), Some(7));
        subscriptions.insert(Subscription { topic: 9, position: 1 });
        let mut rest = Vec::new();
        while let Some(subscription) = subscriptions.pop() {
            rest.push(subscription.topic);
        }
        rest.sort_unstable();
        assert_eq!(rest, [1, 2, 4, 9]);
        assert!(subscriptions.is_empty());
        assert!(subscriptions.more.is_none(), "the list goes with its last element");
    }
}
