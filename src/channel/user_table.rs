//! How many connections each user has, on all shards, where that is limited.
//!
//! Owns a count for each user whose personal channel is at home here, keyed by the 64-bit hash of the channel's name and
//! by nothing else: two users with one hash would share their limit, and the hash's key is secret.
//!
//! Invariant: an entry exists only while its user has a connection; otherwise users who went would keep their memory.

use hashbrown::{HashTable, hash_table::Entry};

use super::table_hash;

/// The users that are connected.
pub(super) struct UserTable {
    connections_max: u32,
    users: HashTable<User>,
}

struct User {
    // In halves, so that an entry is twelve bytes long.
    hash: [u32; 2],
    connections: u32,
}

const _: () = assert!(size_of::<User>() == 12);

impl UserTable {
    /// A table in which a user has `connections_max` connections at most; 0: any number.
    pub(super) fn new(connections_max: u32) -> Self {
        Self { connections_max, users: HashTable::new() }
    }

    /// From now on a user has so many connections at most; 0: any number. Who has more keeps them.
    pub(super) fn set_connections_max(&mut self, connections_max: u32) {
        self.connections_max = connections_max;
    }

    /// One connection more, if the user may have it.
    pub(super) fn admit(&mut self, hash: u64) -> bool {
        match self.users.entry(table_hash(hash), |user| user.is(hash), User::table_hash) {
            Entry::Occupied(mut user) => {
                let connections = &mut user.get_mut().connections;
                let is_admitted = self.connections_max == 0 || *connections < self.connections_max;
                *connections += u32::from(is_admitted);
                is_admitted
            }
            Entry::Vacant(free) => {
                free.insert(User { hash: [hash as u32, (hash >> 32) as u32], connections: 1 });
                true
            }
        }
    }

    /// One connection less.
    pub(super) fn leave(&mut self, hash: u64) {
        let user = self.users.find_entry(table_hash(hash), |user| user.is(hash));
        let mut user = user.ok().expect("a connection was counted before it leaves");
        user.get_mut().connections -= 1;
        if user.get().connections == 0 {
            user.remove();
            if self.users.capacity() > 64 && self.users.len() < self.users.capacity() / 8 {
                self.users.shrink_to(self.users.len() * 2, User::table_hash);
            }
        }
    }

    /// Users that are connected.
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.users.allocation_size()
    }
}

impl User {
    fn is(&self, hash: u64) -> bool {
        self.hash == [hash as u32, (hash >> 32) as u32]
    }

    fn table_hash(&self) -> u64 {
        table_hash(u64::from(self.hash[0]) | u64::from(self.hash[1]) << 32)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_user_has_more_than_allowed_and_who_goes_leaves_nothing(
            connections_max in 1..4_u32,
            changes in prop::collection::vec((0..12_u64, any::<bool>()), 0..300),
        ) {
            let mut table = UserTable::new(connections_max);
            let mut model: BTreeMap<u64, u32> = BTreeMap::new();
            for (user, comes) in changes {
                let hash = user.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let connections = model.entry(hash).or_default();
                if comes {
                    prop_assert_eq!(table.admit(hash), *connections < connections_max);
                    *connections = (*connections + 1).min(connections_max);
                } else if *connections > 0 {
                    table.leave(hash);
                    *connections -= 1;
                }
                prop_assert_eq!(table.len(), model.values().filter(|connections| **connections > 0).count());
            }
        }
    }
}
