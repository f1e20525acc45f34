//! How many connections the whole process may have.
//!
//! The numbers that shards share: they are touched when a connection begins and ends, never for a
//! message. Shares per shard would refuse clients while other shards have room, because the kernel
//! spreads connections over listeners by hash.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::limits::uplinks_reserved;

/// Places for connections, shared by all shards.
#[derive(Debug, Clone)]
pub struct Admission {
    free: Arc<Free>,
}

#[derive(Debug)]
struct Free {
    clients: AtomicU32,
    uplinks: AtomicU32,
}

/// What a connection may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Anything.
    Client,
    /// All clients' places are taken: it may only bring commands of clients that have one.
    Uplink,
}

impl Admission {
    /// `connections_max` free places, and the reserve for uplinks.
    pub fn new(connections_max: u32) -> Self {
        let uplinks = AtomicU32::new(uplinks_reserved(connections_max));
        Self { free: Arc::new(Free { clients: AtomicU32::new(connections_max), uplinks }) }
    }

    /// Takes a place; none: there is none.
    pub fn enter(&self) -> Option<Place> {
        [Place::Client, Place::Uplink].into_iter().find(|place| {
            let taken =
                self.places(*place).fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(1));
            taken.is_ok()
        })
    }

    /// Gives a place back.
    pub fn leave(&self, place: Place) {
        self.places(place).fetch_add(1, Ordering::Relaxed);
    }

    fn places(&self, place: Place) -> &AtomicU32 {
        match place {
            Place::Client => &self.free.clients,
            Place::Uplink => &self.free.uplinks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_places_than_allowed_and_a_reserve_for_uplinks() {
        let admission = Admission::new(2);
        let other = admission.clone();
        assert_eq!((admission.enter(), other.enter()), (Some(Place::Client), Some(Place::Client)));
        for _ in 0..uplinks_reserved(2) {
            assert_eq!(admission.enter(), Some(Place::Uplink));
        }
        assert_eq!(other.enter(), None);
        other.leave(Place::Uplink);
        assert_eq!(admission.enter(), Some(Place::Uplink));
        other.leave(Place::Client);
        assert_eq!((admission.enter(), other.enter()), (Some(Place::Client), None));
    }

    #[test]
    fn the_reserve_is_a_small_part() {
        assert_eq!([1, 2_000, 100_000, 1_000_000].map(uplinks_reserved), [16, 31, 1_562, 4_096]);
    }
}
