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

/// The subscriptions of one connection: one in place, more of them in a list that exists only then.
#[derive(Debug)]
pub struct Subscriptions {
    first: Subscription,
    #[expect(clippy::box_collection, reason = "a thin pointer: most connections have one subscription and no list")]
    more: Option<Box<Vec<Subscription>>>,
}

const _: () = assert!(size_of::<Subscriptions>() == 16);

impl Default for Subscriptions {
    fn default() -> Self {
        Self { first: Subscription::NONE, more: None }
    }
}

impl Subscriptions {
    /// How many.
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.as_ref().map_or(0, |more| more.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Subscription> + '_ {
        let first = self.first.is_some().then_some(self.first);
        first.into_iter().chain(self.more.iter().flat_map(|more| more.iter().copied()))
    }

    /// Adds one to a topic that is not among them.
    pub fn insert(&mut self, subscription: Subscription) {
        debug_assert!(self.position(subscription.topic).is_none(), "a connection is subscribed to a topic once");
        if self.first.is_some() {
            self.more.get_or_insert_default().push(subscription);
        } else {
            self.first = subscription;
        }
    }

    /// Where the connection stands in a topic's list.
    pub fn position(&self, topic: u32) -> Option<u32> {
        self.iter().find(|subscription| subscription.topic == topic).map(|subscription| subscription.position)
    }

    /// The topic's list was rearranged.
    pub fn set_position(&mut self, topic: u32, position: u32) {
        let subscription = if self.first.topic == topic {
            &mut self.first
        } else {
            let more = self.more.iter_mut().flat_map(|more| more.iter_mut());
            more.into_iter()
                .find(|subscription| subscription.topic == topic)
                .expect("a topic lists only its subscribers")
        };
        subscription.position = position;
    }

    /// Takes one away: where it stood in the topic's list.
    pub fn remove(&mut self, topic: u32) -> Option<u32> {
        if self.first.topic == topic {
            return Some(std::mem::replace(&mut self.first, Subscription::NONE).position);
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
        if let Some(subscription) = self.more.as_mut().and_then(|more| more.pop()) {
            return Some(subscription);
        }
        self.more = None;
        self.first.is_some().then(|| std::mem::replace(&mut self.first, Subscription::NONE))
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.more
            .as_ref()
            .map_or(0, |more| size_of::<Vec<Subscription>>() + more.capacity() * size_of::<Subscription>())
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
        assert_eq!(subscriptions.heap_bytes(), 0, "the list goes with its last element");
    }
}
