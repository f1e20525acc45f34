//! A shard's slots, of the size that connections have.

use super::shuffle::shuffled;
use tidegate::{
    session::Session,
    shard::{Connection, ConnectionSlab},
    uring::Socket,
};

/// Many connections.
pub struct Slots {
    slots: ConnectionSlab,
    /// Slots in no order.
    order: Vec<u32>,
}

impl Slots {
    /// So many.
    pub fn new(connections: u32) -> Self {
        let mut slots =
            Self { slots: ConnectionSlab::for_connections(connections as usize), order: shuffled(connections) };
        slots.insert(connections as usize);
        slots
    }

    /// Inserts so many.
    pub fn insert(&mut self, count: usize) {
        for _ in 0..count {
            let generation = self.slots.len() as u32;
            self.slots.insert(Connection::new(Socket(3), generation, Session::default()));
        }
    }

    /// Removes `count` slots from the `first` on in no order.
    pub fn remove(&mut self, first: usize, count: usize) {
        for &index in &self.order[first..first + count] {
            self.slots.remove(index as usize);
        }
    }

    /// Looks at `count` slots from the `first` on in no order.
    pub fn get(&self, first: usize, count: usize) -> u32 {
        let generations = self.order[first..first + count].iter().map(|&index| self.slots[index as usize].generation);
        generations.fold(0, u32::wrapping_add)
    }
}
