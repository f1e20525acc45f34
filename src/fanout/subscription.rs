//! The topics that one connection is in.

/// A connection's place among a topic's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// The topic; [`Subscription::NONE`]'s means that there is none.
    pub topic: u32,
    /// [`Subscription::position`], and in the highest bits [`Subscription::marks`], [`Subscription::is_silent`] and
    /// [`Subscription::has_base`].
    place: u32,
}

/// What a subscription is like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// The server made it; a client that has lost it can have it anew only by connecting anew.
    pub is_server_side: bool,
    /// The channel's home shard knows the subscriber by name, and has to hear when it goes.
    pub is_known_at_home: bool,
    /// The subscriber is told who comes and who goes.
    pub hears_joins: bool,
}

const SERVER_SIDE: u32 = 1 << 31;
const SILENT: u32 = 1 << 30;
const KNOWN_AT_HOME: u32 = 1 << 29;
const HEARS_JOINS: u32 = 1 << 28;
const HAS_BASE: u32 = 1 << 27;
const POSITION_MAX: u32 = HAS_BASE - 1;

impl Subscription {
    /// No subscription.
    pub const NONE: Self = Self { topic: u32::MAX, place: 0 };

    /// A place in a topic's list.
    pub fn new(topic: u32, position: u32, marks: Marks) -> Self {
        assert!(position <= POSITION_MAX, "memory ends before a shard has 2^27 connections");
        let bit = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
        let marks = bit(marks.is_server_side, SERVER_SIDE)
            | bit(marks.is_known_at_home, KNOWN_AT_HOME)
            | bit(marks.hears_joins, HEARS_JOINS);
        Self { topic, place: position | marks }
    }

    /// The place of a member that is not subscribed.
    pub fn silent(topic: u32, position: u32) -> Self {
        let mut silent = Self::new(topic, position, Marks::default());
        silent.place |= SILENT;
        silent
    }

    /// Whether there is one.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }

    /// Index in the topic's list of members.
    pub fn position(self) -> u32 {
        self.place & POSITION_MAX
    }

    /// Whether the connection is in the topic without being subscribed: it is found there, but is sent nothing.
    pub fn is_silent(self) -> bool {
        self.place & SILENT != 0
    }

    /// In a topic of deltas: the subscriber has the payload that the next patch is made to.
    pub fn has_base(self) -> bool {
        self.place & HAS_BASE != 0
    }

    /// The same, but for [`Subscription::has_base`].
    #[must_use]
    pub fn with_base(self, has_base: bool) -> Self {
        Self { place: if has_base { self.place | HAS_BASE } else { self.place & !HAS_BASE }, ..self }
    }

    /// What it is like.
    pub fn marks(self) -> Marks {
        Marks {
            is_server_side: self.place & SERVER_SIDE != 0,
            is_known_at_home: self.place & KNOWN_AT_HOME != 0,
            hears_joins: self.place & HEARS_JOINS != 0,
        }
    }
}

/// The topics that one connection is in: two in place (a user's personal channel and one more), the rest in a list that
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
    /// How many, silent ones excluded.
    pub fn subscribed(&self) -> usize {
        self.iter().filter(|subscription| !subscription.is_silent()).count()
    }

    /// Whether there is none, not even a silent one.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Subscription> + '_ {
        let more = self.more.iter().flat_map(|more| more.iter());
        self.inline.iter().chain(more).copied().filter(|subscription| subscription.is_some())
    }

    /// Bytes of the list, if there is one: what lies in the slot is not counted.
    pub fn list_bytes(&self) -> usize {
        self.more
            .as_ref()
            .map_or(0, |more| size_of::<Vec<Subscription>>() + more.capacity() * size_of::<Subscription>())
    }

    /// Adds one to a topic that is not among them.
    pub fn insert(&mut self, subscription: Subscription) {
        debug_assert!(self.position(subscription.topic).is_none(), "a connection is subscribed to a topic once");
        match self.inline.iter_mut().find(|place| !place.is_some()) {
            Some(place) => *place = subscription,
            None => super::push_tightly(self.more.get_or_insert_default(), subscription),
        }
    }

    /// The one to a topic.
    pub fn find(&self, topic: u32) -> Option<Subscription> {
        self.iter().find(|subscription| subscription.topic == topic)
    }

    /// Where the connection stands in a topic's list.
    pub fn position(&self, topic: u32) -> Option<u32> {
        self.find(topic).map(Subscription::position)
    }

    /// The topic's list was rearranged.
    pub fn set_position(&mut self, topic: u32, position: u32) {
        let subscription = self.find_mut(topic);
        assert!(position <= POSITION_MAX, "memory ends before a shard has 2^27 connections");
        subscription.place = subscription.place & !POSITION_MAX | position;
    }

    /// The connection has begun or ceased to be subscribed to a topic that it is in: what was there before.
    pub fn replace(&mut self, subscription: Subscription) -> Subscription {
        std::mem::replace(self.find_mut(subscription.topic), subscription)
    }

    fn find_mut(&mut self, topic: u32) -> &mut Subscription {
        let more = self.more.iter_mut().flat_map(|more| more.iter_mut());
        let mut all = self.inline.iter_mut().chain(more);
        all.find(|subscription| subscription.topic == topic).expect("a topic lists only its members")
    }

    /// Takes one away.
    pub fn remove(&mut self, topic: u32) -> Option<Subscription> {
        if let Some(place) = self.inline.iter_mut().find(|place| place.topic == topic) {
            return Some(std::mem::replace(place, Subscription::NONE));
        }
        let more = self.more.as_mut()?;
        let index = more.iter().position(|subscription| subscription.topic == topic)?;
        let subscription = more.swap_remove(index);
        if more.is_empty() {
            self.more = None;
        }
        Some(subscription)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Marks = Marks { is_server_side: false, is_known_at_home: false, hears_joins: false };

    #[test]
    fn subscriptions_come_and_go_in_any_order() {
        let mut subscriptions = Subscriptions::default();
        for topic in 0..5 {
            subscriptions.insert(Subscription::new(topic, topic * 10, Marks { is_server_side: topic == 4, ..PLAIN }));
        }
        assert_eq!(subscriptions.subscribed(), 5);
        assert_eq!(subscriptions.remove(0).map(Subscription::position), Some(0));
        assert_eq!(subscriptions.remove(3).map(Subscription::position), Some(30));
        assert_eq!(subscriptions.remove(3), None);
        subscriptions.set_position(4, 7);
        assert_eq!(subscriptions.position(4), Some(7));
        assert!(subscriptions.find(4).is_some_and(|subscription| subscription.marks().is_server_side));
        subscriptions.insert(Subscription::new(9, 1, PLAIN));
        let mut rest: Vec<u32> = subscriptions.iter().map(|subscription| subscription.topic).collect();
        for topic in &rest {
            let position = subscriptions.remove(*topic).map(Subscription::position);
            assert_eq!(position, Some([0, 10, 20, 0, 7, 0, 0, 0, 0, 1][*topic as usize]));
        }
        rest.sort_unstable();
        assert_eq!(rest, [1, 2, 4, 9]);
        assert!(subscriptions.is_empty());
        assert!(subscriptions.more.is_none(), "the list goes with its last element");
    }

    #[test]
    fn a_silent_place_keeps_its_mark_when_it_moves() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.insert(Subscription::silent(1, 4));
        subscriptions.insert(Subscription::new(2, 0, PLAIN));
        assert_eq!(subscriptions.subscribed(), 1);
        subscriptions.set_position(1, 2);
        assert_eq!(subscriptions.find(1), Some(Subscription::silent(1, 2)));
        subscriptions.replace(Subscription::new(1, 0, PLAIN));
        assert_eq!(subscriptions.subscribed(), 2);
        assert_eq!(subscriptions.remove(1), Some(Subscription::new(1, 0, PLAIN)));
    }

    #[test]
    fn marks_are_kept_wherever_the_place_moves() {
        for bits in 0..8 {
            let marks =
                Marks { is_server_side: bits & 1 != 0, is_known_at_home: bits & 2 != 0, hears_joins: bits & 4 != 0 };
            let mut subscriptions = Subscriptions::default();
            let has_base = bits & 1 == 0;
            subscriptions.insert(Subscription::new(1, POSITION_MAX, marks).with_base(true).with_base(has_base));
            subscriptions.set_position(1, 5);
            let subscription = subscriptions.find(1).unwrap();
            assert_eq!((subscription.marks(), subscription.position(), subscription.is_silent()), (marks, 5, false));
            assert_eq!(subscription.has_base(), has_base);
        }
    }
}
