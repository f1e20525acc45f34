//! The slots of a shard's connections.
//!
//! Addresses for all of them are taken when the shard begins, and memory as it is used, page by page, by the kernel: so
//! nothing moves when connections come, and nothing is held for those that have not come. A slot is as long as a line of
//! the processor's cache and lies in one, so that whatever is done to a connection waits for memory once.
//!
//! Invariant: each free slot is in the chain of free slots once; a slot that was in it twice would be given to two
//! connections.

use std::ops::{Index, IndexMut};

use super::connection::Connection;
use crate::limits::CONNECTION_BYTES;

/// Slots for which addresses are taken at most: 256 MiB of them. If more are needed, all move once in a while.
const RESERVED_MAX: usize = 4 * 1024 * 1024;

/// No further free slot.
const NONE: u32 = u32::MAX;

/// Connections by index. An index is used again when its connection is gone.
pub struct ConnectionSlab {
    slots: Vec<Slot>,
    /// The first free slot.
    free: u32,
    connections: usize,
}

enum Slot {
    /// With the next free one, or [`NONE`].
    Free(u32),
    Taken(Connection),
}

/// To be free costs a slot nothing, because a connection has values that mean nothing.
const _: () = assert!(size_of::<Slot>() == CONNECTION_BYTES);

impl ConnectionSlab {
    /// For so many connections, or more.
    pub fn for_connections(connections: usize) -> Self {
        let mut slots = Vec::new();
        // A host that gives no addresses ahead of memory is asked again as connections come.
        let _ = slots.try_reserve_exact(connections.min(RESERVED_MAX));
        Self { slots, free: NONE, connections: 0 }
    }

    /// Connections.
    pub fn len(&self) -> usize {
        self.connections
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.connections == 0
    }

    /// Slots that were used so far: every index is below.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Adds a connection: its index.
    pub fn insert(&mut self, connection: Connection) -> usize {
        self.connections += 1;
        if self.free == NONE {
            assert!(self.slots.len() < NONE as usize, "descriptors end before 2^32");
            self.slots.push(Slot::Taken(connection));
            return self.slots.len() - 1;
        }
        let index = self.free as usize;
        let Slot::Free(next) = std::mem::replace(&mut self.slots[index], Slot::Taken(connection)) else {
            unreachable!("the chain leads through free slots only")
        };
        self.free = next;
        index
    }

    /// Takes a connection away.
    pub fn remove(&mut self, index: usize) -> Connection {
        let Slot::Taken(connection) = std::mem::replace(&mut self.slots[index], Slot::Free(self.free)) else {
            panic!("a connection is removed once")
        };
        self.free = index as u32;
        self.connections -= 1;
        connection
    }

    /// Whether there is a connection of this index.
    pub fn contains(&self, index: usize) -> bool {
        self.get(index).is_some()
    }

    /// The connection of an index, if there is one.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&Connection> {
        match self.slots.get(index)? {
            Slot::Taken(connection) => Some(connection),
            Slot::Free(_) => None,
        }
    }

    /// The connection of an index, if there is one.
    #[inline]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut Connection> {
        match self.slots.get_mut(index)? {
            Slot::Taken(connection) => Some(connection),
            Slot::Free(_) => None,
        }
    }

    /// All connections, by index.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (usize, &Connection)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(index, slot)| match slot {
            Slot::Taken(connection) => Some((index, connection)),
            Slot::Free(_) => None,
        })
    }
}

impl Index<usize> for ConnectionSlab {
    type Output = Connection;

    #[inline]
    fn index(&self, index: usize) -> &Connection {
        self.get(index).expect("whoever has an index in hand has a live connection")
    }
}

impl IndexMut<usize> for ConnectionSlab {
    #[inline]
    fn index_mut(&mut self, index: usize) -> &mut Connection {
        self.get_mut(index).expect("whoever has an index in hand has a live connection")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{session::Session, uring::Socket};

    fn connection(generation: u32) -> Connection {
        Connection::new(Socket(3), generation, Session::default())
    }

    #[test]
    fn slots_do_not_move_and_lie_in_one_line_of_the_cache() {
        let mut slab = ConnectionSlab::for_connections(10_000);
        slab.insert(connection(0));
        let first = std::ptr::from_ref(&slab[0]);
        for generation in 1..10_000 {
            let index = slab.insert(connection(generation));
            assert_eq!(std::ptr::from_ref(&slab[index]).addr() % CONNECTION_BYTES, 0);
        }
        assert_eq!(std::ptr::from_ref(&slab[0]), first);
        assert_eq!((slab.len(), slab.capacity()), (10_000, 10_000));
    }

    proptest! {
        #[test]
        fn the_slab_agrees_with_a_naive_one(changes in prop::collection::vec(prop::option::of(0_usize..700), 1..2_000)) {
            let (mut slab, mut model) = (ConnectionSlab::for_connections(4), BTreeMap::new());
            for (generation, change) in (0_u32..).zip(changes) {
                match change {
                    None => {
                        let index = slab.insert(connection(generation));
                        prop_assert!(model.insert(index, generation).is_none(), "{index} was taken");
                    }
                    Some(index) if model.contains_key(&index) => {
                        prop_assert_eq!(Some(slab.remove(index).generation), model.remove(&index));
                    }
                    Some(index) => prop_assert!(!slab.contains(index)),
                }
                prop_assert_eq!((slab.len(), slab.is_empty()), (model.len(), model.is_empty()));
            }
            let generations = slab.iter().map(|(index, connection)| (index, connection.generation));
            prop_assert!(generations.eq(model));
        }
    }
}
