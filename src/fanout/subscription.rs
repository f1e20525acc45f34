//! The topics that one connection is in.

use super::arena::Arena;

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

    /// The subscriber has what the topic's next messages refer to: in a topic of deltas the last payload, otherwise the
    /// window of the topic's cohort.
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

/// The topics that one connection is in: two in place (a user's personal channel and one more), the rest in
/// [`FurtherSubscriptions`].
#[derive(Debug)]
pub struct Subscriptions {
    inline: [Subscription; 2],
    /// The first block of the rest.
    further: u32,
}

const _: () = assert!(size_of::<Subscriptions>() == 20);

impl Default for Subscriptions {
    fn default() -> Self {
        Self { inline: [Subscription::NONE; 2], further: NO_BLOCK }
    }
}

impl Subscriptions {
    /// How many, silent ones excluded.
    pub fn subscribed(&self, further: &FurtherSubscriptions) -> usize {
        self.iter(further).filter(|subscription| !subscription.is_silent()).count()
    }

    /// Whether there is none, not even a silent one.
    pub fn is_empty(&self) -> bool {
        self.further == NO_BLOCK && self.inline.iter().all(|place| !place.is_some())
    }

    /// All of them, in no order.
    pub fn iter<'a>(&'a self, further: &'a FurtherSubscriptions) -> impl Iterator<Item = Subscription> + 'a {
        let all = self.inline.iter().chain(further.of_chain(self.further));
        all.copied().filter(|subscription| subscription.is_some())
    }

    /// The topic that was the first to be inserted, of a connection that has not left it.
    pub fn first_topic(&self) -> u32 {
        self.inline[0].topic
    }

    /// Adds one to a topic that is not among them.
    pub fn insert(&mut self, further: &mut FurtherSubscriptions, subscription: Subscription) {
        debug_assert!(self.find(further, subscription.topic).is_none(), "a connection is subscribed to a topic once");
        match self.inline.iter_mut().find(|place| !place.is_some()) {
            Some(place) => *place = subscription,
            None => further.insert(&mut self.further, subscription),
        }
    }

    /// The one to a topic.
    pub fn find(&self, further: &FurtherSubscriptions, topic: u32) -> Option<Subscription> {
        let inline = self.inline.iter().find(|place| place.topic == topic);
        inline.or_else(|| further.of_chain(self.further).find(|place| place.topic == topic)).copied()
    }

    /// Where the connection stands in a topic's list.
    pub fn position(&self, further: &FurtherSubscriptions, topic: u32) -> Option<u32> {
        self.find(further, topic).map(Subscription::position)
    }

    /// The topic's list was rearranged.
    pub fn set_position(&mut self, further: &mut FurtherSubscriptions, topic: u32, position: u32) {
        let subscription = self.find_mut(further, topic);
        assert!(position <= POSITION_MAX, "memory ends before a shard has 2^27 connections");
        subscription.place = subscription.place & !POSITION_MAX | position;
    }

    /// The connection has begun or ceased to be subscribed to a topic that it is in: what was there before.
    pub fn replace(&mut self, further: &mut FurtherSubscriptions, subscription: Subscription) -> Subscription {
        std::mem::replace(self.find_mut(further, subscription.topic), subscription)
    }

    fn find_mut<'a>(&'a mut self, further: &'a mut FurtherSubscriptions, topic: u32) -> &'a mut Subscription {
        let inline = self.inline.iter().position(|place| place.topic == topic);
        let place = match inline {
            Some(index) => Some(&mut self.inline[index]),
            None => further.find_mut(self.further, topic),
        };
        place.expect("a topic lists only its members")
    }

    /// Takes one away.
    pub fn remove(&mut self, further: &mut FurtherSubscriptions, topic: u32) -> Option<Subscription> {
        match self.inline.iter_mut().find(|place| place.topic == topic) {
            Some(place) => Some(std::mem::replace(place, Subscription::NONE)),
            None => further.remove(&mut self.further, topic),
        }
    }
}

/// Places of a block: more would be empty in the last block of each connection, fewer would cost more bytes of chain.
const BLOCK_PLACES: usize = 4;

/// No block: the end of a chain.
const NO_BLOCK: u32 = u32::MAX;

/// The subscriptions of a shard's connections for which there is no place in their slots: a chain of small blocks for each
/// connection that has some.
///
/// Invariant: of a chain's blocks only the first has empty places, and these behind its others.
#[derive(Debug)]
pub struct FurtherSubscriptions {
    blocks: Arena<Block>,
    /// The first of the blocks that are in no chain.
    free: u32,
}

#[derive(Debug, Clone, Copy)]
struct Block {
    places: [Subscription; BLOCK_PLACES],
    next: u32,
}

impl Default for FurtherSubscriptions {
    fn default() -> Self {
        Self { blocks: Arena::default(), free: NO_BLOCK }
    }
}

impl FurtherSubscriptions {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.blocks.bytes()
    }

    fn blocks_of_chain(&self, first: u32) -> impl Iterator<Item = u32> {
        let exists = |index: &u32| *index != NO_BLOCK;
        let next = move |index: &u32| Some(self.blocks.get(*index).next).filter(exists);
        std::iter::successors(Some(first).filter(exists), next)
    }

    fn of_chain(&self, first: u32) -> impl Iterator<Item = &Subscription> {
        self.blocks_of_chain(first).flat_map(|block| &self.blocks.get(block).places)
    }

    fn insert(&mut self, first: &mut u32, subscription: Subscription) {
        if *first != NO_BLOCK
            && let Some(place) = self.blocks.get_mut(*first).places.iter_mut().find(|place| !place.is_some())
        {
            *place = subscription;
            return;
        }
        let mut block = Block { places: [Subscription::NONE; BLOCK_PLACES], next: *first };
        block.places[0] = subscription;
        *first = match self.free {
            NO_BLOCK => self.blocks.push(block),
            index => {
                self.free = std::mem::replace(self.blocks.get_mut(index), block).next;
                index
            }
        };
    }

    fn find_mut(&mut self, first: u32, topic: u32) -> Option<&mut Subscription> {
        let has_topic = |block: &u32| self.blocks.get(*block).places.iter().any(|place| place.topic == topic);
        let block = self.blocks_of_chain(first).find(has_topic)?;
        self.blocks.get_mut(block).places.iter_mut().find(|place| place.topic == topic)
    }

    fn remove(&mut self, first: &mut u32, topic: u32) -> Option<Subscription> {
        let removed = *self.find_mut(*first, topic)?;
        // The chain's last one takes the place.
        let block = self.blocks.get_mut(*first);
        let last = block.places.iter().rposition(|place| place.is_some()).expect("no block of a chain is empty");
        let moved = block.places[last];
        *self.find_mut(*first, topic).expect("it was just found") = moved;
        let block = self.blocks.get_mut(*first);
        block.places[last] = Subscription::NONE;
        if last == 0 {
            let next = std::mem::replace(&mut block.next, self.free);
            self.free = std::mem::replace(first, next);
        }
        Some(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Marks = Marks { is_server_side: false, is_known_at_home: false, hears_joins: false };

    #[test]
    fn subscriptions_come_and_go_in_any_order() {
        let (mut further, mut subscriptions) = (FurtherSubscriptions::default(), Subscriptions::default());
        for topic in 0..5 {
            subscriptions.insert(
                &mut further,
                Subscription::new(topic, topic * 10, Marks { is_server_side: topic == 4, ..PLAIN }),
            );
        }
        assert_eq!(subscriptions.subscribed(&further), 5);
        assert_eq!(subscriptions.remove(&mut further, 0).map(Subscription::position), Some(0));
        assert_eq!(subscriptions.remove(&mut further, 3).map(Subscription::position), Some(30));
        assert_eq!(subscriptions.remove(&mut further, 3), None);
        subscriptions.set_position(&mut further, 4, 7);
        assert_eq!(subscriptions.position(&further, 4), Some(7));
        assert!(subscriptions.find(&further, 4).is_some_and(|subscription| subscription.marks().is_server_side));
        subscriptions.insert(&mut further, Subscription::new(9, 1, PLAIN));
        let mut rest: Vec<u32> = subscriptions.iter(&further).map(|subscription| subscription.topic).collect();
        for topic in &rest {
            let position = subscriptions.remove(&mut further, *topic).map(Subscription::position);
            assert_eq!(position, Some([0, 10, 20, 0, 7, 0, 0, 0, 0, 1][*topic as usize]));
        }
        rest.sort_unstable();
        assert_eq!(rest, [1, 2, 4, 9]);
        assert!(subscriptions.is_empty());
        assert_eq!(subscriptions.further, NO_BLOCK, "a block goes with its last subscription");
    }

    #[test]
    fn a_silent_place_keeps_its_mark_when_it_moves() {
        let (mut further, mut subscriptions) = (FurtherSubscriptions::default(), Subscriptions::default());
        subscriptions.insert(&mut further, Subscription::silent(1, 4));
        subscriptions.insert(&mut further, Subscription::new(2, 0, PLAIN));
        assert_eq!(subscriptions.subscribed(&further), 1);
        subscriptions.set_position(&mut further, 1, 2);
        assert_eq!(subscriptions.find(&further, 1), Some(Subscription::silent(1, 2)));
        subscriptions.replace(&mut further, Subscription::new(1, 0, PLAIN));
        assert_eq!(subscriptions.subscribed(&further), 2);
        assert_eq!(subscriptions.remove(&mut further, 1), Some(Subscription::new(1, 0, PLAIN)));
    }

    #[test]
    fn marks_are_kept_wherever_the_place_moves() {
        for bits in 0..8 {
            let marks =
                Marks { is_server_side: bits & 1 != 0, is_known_at_home: bits & 2 != 0, hears_joins: bits & 4 != 0 };
            let (mut further, mut subscriptions) = (FurtherSubscriptions::default(), Subscriptions::default());
            let has_base = bits & 1 == 0;
            let subscription = Subscription::new(1, POSITION_MAX, marks).with_base(true).with_base(has_base);
            subscriptions.insert(&mut further, subscription);
            subscriptions.set_position(&mut further, 1, 5);
            let subscription = subscriptions.find(&further, 1).unwrap();
            assert_eq!((subscription.marks(), subscription.position(), subscription.is_silent()), (marks, 5, false));
            assert_eq!(subscription.has_base(), has_base);
        }
    }

    #[test]
    fn blocks_are_used_again_and_cost_little() {
        let mut further = FurtherSubscriptions::default();
        let mut connections: Vec<Subscriptions> = (0..500).map(|_| Subscriptions::default()).collect();
        for round in 0..3 {
            for connection in &mut connections {
                for topic in 0..10 {
                    connection.insert(&mut further, Subscription::new(topic, topic + round, PLAIN));
                }
            }
            for connection in &mut connections {
                assert_eq!(connection.subscribed(&further), 10);
                for topic in 0..10 {
                    let removed = connection.remove(&mut further, (topic * 7) % 10);
                    assert_eq!(removed.map(Subscription::position), Some((topic * 7) % 10 + round));
                }
                assert!(connection.is_empty());
            }
        }
        assert_eq!(further.blocks.len(), 500 * 2, "eight of ten are in two blocks of four");
    }
}
