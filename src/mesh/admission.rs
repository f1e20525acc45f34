//! How many connections the whole process may have, each address and each network; how many an address may begin; and
//! how often a user may ask.
//!
//! What shards share: it is touched when a connection begins and ends, and, where users' commands are limited, for a
//! command; never for a message to a client. Shares per shard would refuse clients while other shards have room, because
//! the kernel spreads connections over listeners by hash.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use super::{
    address_table::{AddressTable, CrowdLimits, Crowded},
    rate_table::RateTable,
};
use crate::{
    limits::uplinks_reserved,
    network::{Prefix, Rate},
};

/// Places for connections, shared by all shards.
#[derive(Debug, Clone)]
pub struct Admission {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Free places; fewer than none, where a reload has taken away more than were free.
    clients: AtomicI64,
    uplinks: AtomicI64,
    addresses: AddressTable,
    accepts: RateTable,
    commands: RateTable,
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
        let uplinks = AtomicI64::new(uplinks_reserved(connections_max).into());
        let shared = Shared {
            clients: AtomicI64::new(connections_max.into()),
            uplinks,
            addresses: AddressTable::default(),
            accepts: RateTable::default(),
            commands: RateTable::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// There are as many places as `after` says instead of `before`. Who has one keeps it.
    pub fn resize(&self, before: u32, after: u32) {
        let add = |places: &AtomicI64, after: u32, before: u32| {
            places.fetch_add(i64::from(after) - i64::from(before), Ordering::Relaxed);
        };
        add(&self.shared.clients, after, before);
        add(&self.shared.uplinks, uplinks_reserved(after), uplinks_reserved(before));
    }

    /// Takes a place; none: there is none.
    pub fn enter(&self) -> Option<Place> {
        [Place::Client, Place::Uplink].into_iter().find_map(|place| self.enter_as(place))
    }

    /// Takes a place of this kind; none: there is none.
    pub fn enter_as(&self, place: Place) -> Option<Place> {
        let take = |free: i64| (free > 0).then(|| free - 1);
        let taken = self.places(place).fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.ok().map(|_| place)
    }

    /// Gives a place back.
    pub fn leave(&self, place: Place) {
        self.places(place).fetch_add(1, Ordering::Relaxed);
    }

    fn places(&self, place: Place) -> &AtomicI64 {
        match place {
            Place::Client => &self.shared.clients,
            Place::Uplink => &self.shared.uplinks,
        }
    }

    /// Counts a connection of an address, which is to [`Admission::leave_address`].
    ///
    /// # Errors
    /// When the address or its network has as many as it may; then it is not counted.
    pub fn enter_address(&self, address: IpAddr, limits: CrowdLimits) -> Result<(), Crowded> {
        self.shared.addresses.enter(address, limits)
    }

    /// A connection of the address that was counted has gone.
    pub fn leave_address(&self, address: IpAddr) {
        self.shared.addresses.leave(address);
    }

    /// Whether the address may begin one more connection now.
    pub fn may_begin(&self, address: IpAddr, rate: Rate, now_ns: u64) -> bool {
        self.shared.accepts.take(Prefix::host_of(address), rate, now_ns)
    }

    /// Whether the user may send one more command now.
    pub fn may_command(&self, user: &str, rate: Rate, now_ns: u64) -> bool {
        self.shared.commands.take(user, rate, now_ns)
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
    fn places_come_and_go_while_some_are_taken() {
        let admission = Admission::new(3);
        let places: Vec<_> = (0..3).filter_map(|_| admission.enter()).collect();
        assert_eq!(places, [Place::Client; 3]);
        admission.resize(3, 1);
        admission.leave(Place::Client);
        admission.leave(Place::Client);
        assert_eq!(admission.enter(), Some(Place::Uplink), "one is there still, and one there may be");
        admission.leave(Place::Client);
        assert_eq!((admission.enter(), admission.enter()), (Some(Place::Client), Some(Place::Uplink)));
        admission.resize(1, 2);
        assert_eq!((admission.enter(), admission.enter()), (Some(Place::Client), Some(Place::Uplink)));
    }

    #[test]
    fn the_reserve_is_a_small_part() {
        assert_eq!([1, 2_000, 100_000, 1_000_000].map(uplinks_reserved), [16, 31, 1_562, 4_096]);
    }
}
