//! How many connections each address has, and each network, on all shards together, where that is limited.
//!
//! Shared by all shards, under locks: one for each part of the networks, held for a search in a table. The kernel spreads
//! the connections of one address over all shards, so no shard's own count would do; and asking a home shard would park
//! every socket of a flood until its answer, in queues that publications travel in. A lock is taken when a connection
//! begins and when it ends, never for a message.
//!
//! Invariant: an entry exists only while its address has a connection, so the table is as long as there are connections
//! at most, and nothing is ever evicted: there is no eviction to be abused.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::network::Prefix;

/// Locks; a network is under one of them with all its addresses.
const PARTS: usize = 64;

/// Connections by address and by network.
#[derive(Debug)]
pub(super) struct AddressTable {
    /// Keyed by chance: who chooses addresses cannot choose places.
    hasher: RandomState,
    parts: [Mutex<Part>; PARTS],
}

#[derive(Debug, Default)]
struct Part {
    addresses: HashMap<IpAddr, u32>,
    networks: HashMap<Prefix, u32>,
}

/// Of what there are as many connections as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowded {
    /// Of the address.
    Address,
    /// Of its network.
    Network,
}

/// Connections that there may be; 0: any number.
#[derive(Debug, Clone, Copy)]
pub struct CrowdLimits {
    /// Of one address.
    pub address_max: u32,
    /// Of one network.
    pub network_max: u32,
}

impl Default for AddressTable {
    fn default() -> Self {
        Self { hasher: RandomState::new(), parts: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl AddressTable {
    /// One connection more, if the address and its network may have it.
    pub fn enter(&self, address: IpAddr, limits: CrowdLimits) -> Result<(), Crowded> {
        let network = Prefix::network_of(address);
        let mut part = self.part(network);
        let is_crowded = |connections: Option<&u32>, max| max > 0 && connections.is_some_and(|count| *count >= max);
        if is_crowded(part.addresses.get(&address), limits.address_max) {
            return Err(Crowded::Address);
        }
        if is_crowded(part.networks.get(&network), limits.network_max) {
            return Err(Crowded::Network);
        }
        *part.addresses.entry(address).or_default() += 1;
        *part.networks.entry(network).or_default() += 1;
        Ok(())
    }

    /// One connection less, of those that have entered.
    pub fn leave(&self, address: IpAddr) {
        let network = Prefix::network_of(address);
        let mut part = self.part(network);
        let part = &mut *part;
        take_one(&mut part.addresses, address);
        take_one(&mut part.networks, network);
    }

    fn part(&self, network: Prefix) -> MutexGuard<'_, Part> {
        let part = self.hasher.hash_one(network) as usize % PARTS;
        // Nothing is left half-done by a thread that panics, and the server stops then.
        self.parts[part].lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().unwrap().addresses.len()).sum()
    }
}

fn take_one<K: std::hash::Hash + Eq + Copy>(counts: &mut HashMap<K, u32>, key: K) {
    let count = counts.get_mut(&key).expect("a connection was counted before it leaves");
    *count -= 1;
    if *count == 0 {
        counts.remove(&key);
        if counts.capacity() > 64 && counts.len() < counts.capacity() / 8 {
            counts.shrink_to(counts.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_address_and_no_network_has_more_than_allowed(
            address_max in 0..4_u32,
            network_max in 0..6_u32,
            changes in prop::collection::vec((0..3_u8, 0..3_u8, any::<bool>(), any::<bool>()), 0..300),
        ) {
            let table = AddressTable::default();
            let limits = CrowdLimits { address_max, network_max };
            let mut model: BTreeMap<IpAddr, u32> = BTreeMap::new();
            for (network, host, is_ipv4, comes) in changes {
                let address = match is_ipv4 {
                    true => IpAddr::from([10, 0, network, host]),
                    false => IpAddr::from([0x2001, 0xdb8, 0, network.into(), 0, 0, 0, host.into()]),
                };
                let of_address = model.get(&address).copied().unwrap_or_default();
                let prefix = Prefix::network_of(address);
                let of_network: u32 = model.iter().filter(|(other, _)| prefix.contains(**other)).map(|(_, n)| n).sum();
                if comes {
                    let expected = match () {
                        () if address_max > 0 && of_address >= address_max => Err(Crowded::Address),
                        () if network_max > 0 && of_network >= network_max => Err(Crowded::Network),
                        () => Ok(()),
                    };
                    prop_assert_eq!(table.enter(address, limits), expected);
                    if expected.is_ok() {
                        model.insert(address, of_address + 1);
                    }
                } else if of_address > 0 {
                    table.leave(address);
                    model.insert(address, of_address - 1);
                }
                prop_assert_eq!(table.len(), model.values().filter(|count| **count > 0).count());
            }
        }
    }

    #[test]
    fn shards_count_together() {
        let table = AddressTable::default();
        let limits = CrowdLimits { address_max: 100, network_max: 0 };
        let address = IpAddr::from([192, 0, 2, 7]);
        let entered = std::thread::scope(|scope| {
            let shards =
                [(); 4].map(|()| scope.spawn(|| (0..1_000).filter(|_| table.enter(address, limits).is_ok()).count()));
            shards.map(|shard| shard.join().unwrap())
        });
        assert_eq!(entered.iter().sum::<usize>(), 100);
    }
}
