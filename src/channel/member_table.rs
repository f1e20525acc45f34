//! Who is in the channels whose namespace wants to know.
//!
//! Owns the members of each such channel by connection, and the number of their users. Who is told
//! of their coming and going is [`super::Channels`]' business.
//!
//! Invariants:
//! - A member is there from its shard's `Subscribe` to its shard's `Leave`, which travel in one
//!   queue; so what is here is exact, without time limits and without polling.
//! - Channels are found by hash and then by name: members of two channels never mix.
//! - A channel without members has no entry; otherwise channels that were left would keep memory.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use hashbrown::HashTable;

use super::table_hash;
use crate::{
    mesh::{ChannelName, ClientInfo, ConnectionId, Member},
    protocol::PresenceStats,
};

/// The members of a home shard's channels.
#[derive(Default)]
pub(super) struct MemberTable {
    channels: HashTable<Members>,
    members: usize,
}

/// Those of one channel.
struct Members {
    channel: ChannelName,
    by_connection: BTreeMap<ConnectionId, Arc<Member>>,
    /// Of the present ones: how many connections each user has.
    users: BTreeMap<Arc<str>, u32>,
    /// How many are present.
    present: u32,
}

impl MemberTable {
    /// A connection has come, or come again as somebody else: who it was before.
    pub(super) fn insert(
        &mut self,
        channel: &ChannelName,
        connection: ConnectionId,
        member: Arc<Member>,
    ) -> Option<Arc<Member>> {
        let hash = table_hash(channel.hash);
        let members = self
            .channels
            .entry(hash, |members| members.channel == *channel, |members| table_hash(members.channel.hash))
            .or_insert_with(|| Members::of(channel.clone()))
            .into_mut();
        let before = members.insert(connection, member);
        self.members += usize::from(before.is_none());
        before
    }

    /// A connection has gone: who it was, if it was there.
    pub(super) fn remove(&mut self, channel: &ChannelName, connection: ConnectionId) -> Option<Arc<Member>> {
        let entry = self.channels.find_entry(table_hash(channel.hash), |members| members.channel == *channel);
        let mut entry = entry.ok()?;
        let removed = entry.get_mut().remove(connection)?;
        self.members -= 1;
        if entry.get().by_connection.is_empty() {
            entry.remove();
            if self.channels.capacity() > 64 && self.channels.len() < self.channels.capacity() / 8 {
                self.channels.shrink_to(self.channels.len() * 2, |members| table_hash(members.channel.hash));
            }
        }
        Some(removed)
    }

    /// Others see a member anew from now on; its user stays the same. Nothing happens if it is not there.
    pub(super) fn renew(&mut self, channel: &ChannelName, connection: ConnectionId, info: ClientInfo) {
        let found = self.channels.find_mut(table_hash(channel.hash), |members| members.channel == *channel);
        if let Some(member) = found.and_then(|members| members.by_connection.get_mut(&connection)) {
            *member = Arc::new(Member { info, ..**member });
        }
    }

    /// The present ones, in the order of their connections.
    pub(super) fn present(&self, channel: &ChannelName) -> impl Iterator<Item = &Arc<Member>> {
        let members = self.find(channel).into_iter().flat_map(|members| members.by_connection.values());
        members.filter(|member| member.is_present)
    }

    /// How many are present, and how many users they are.
    pub(super) fn stats(&self, channel: &ChannelName) -> PresenceStats {
        self.find(channel).map_or(PresenceStats::default(), |members| PresenceStats {
            clients: members.present,
            users: members.users.len() as u32,
        })
    }

    /// Members of all channels.
    pub(super) fn len(&self) -> usize {
        self.members
    }

    /// Bytes held, but for what members are told apart by and what users are called.
    pub(super) fn bytes(&self) -> usize {
        // A node of a B-tree is two thirds full on average.
        let place = (size_of::<ConnectionId>() + size_of::<Arc<Member>>()) * 3 / 2;
        self.channels.allocation_size() + self.members * (place + size_of::<Member>() + 2 * size_of::<usize>())
    }

    fn find(&self, channel: &ChannelName) -> Option<&Members> {
        self.channels.find(table_hash(channel.hash), |members| members.channel == *channel)
    }
}

impl Members {
    fn of(channel: ChannelName) -> Self {
        Self { channel, by_connection: BTreeMap::new(), users: BTreeMap::new(), present: 0 }
    }

    fn insert(&mut self, connection: ConnectionId, member: Arc<Member>) -> Option<Arc<Member>> {
        if member.is_present {
            self.present += 1;
            *self.users.entry(Arc::clone(&member.info.user)).or_default() += 1;
        }
        let before = self.by_connection.insert(connection, member)?;
        self.forget(&before);
        Some(before)
    }

    fn remove(&mut self, connection: ConnectionId) -> Option<Arc<Member>> {
        let removed = self.by_connection.remove(&connection)?;
        self.forget(&removed);
        Some(removed)
    }

    fn forget(&mut self, member: &Member) {
        if !member.is_present {
            return;
        }
        self.present -= 1;
        if let Entry::Occupied(mut connections) = self.users.entry(Arc::clone(&member.info.user)) {
            *connections.get_mut() -= 1;
            if *connections.get() == 0 {
                connections.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mesh::ClientInfo;

    fn member(user: u8, is_present: bool) -> Arc<Member> {
        let info = ClientInfo {
            user: format!("user{user}").into(),
            client: format!("client{user}").into(),
            conn_info: None,
            chan_info: None,
        };
        Arc::new(Member { info, is_present, is_announced: true })
    }

    proptest! {
        #[test]
        fn members_and_users_are_counted_as_a_naive_list_counts_them(
            steps in prop::collection::vec((0..3_usize, 0..6_u32, prop::option::weighted(0.6, (0..3_u8, any::<bool>()))), 1..200)
        ) {
            // Two of the three names have one hash.
            let names = [("a", 1), ("b", 1), ("c", 2)].map(|(name, hash)| ChannelName { hash, name: name.into() });
            let mut table = MemberTable::default();
            let mut model: [BTreeMap<u32, (u8, bool)>; 3] = Default::default();
            for (channel, index, comes) in steps {
                let connection = ConnectionId { shard: 0, index, generation: 1 };
                let before = match comes {
                    Some((user, is_present)) => {
                        model[channel].insert(index, (user, is_present));
                        table.insert(&names[channel], connection, member(user, is_present));
                        continue;
                    }
                    None => model[channel].remove(&index),
                };
                let removed = table.remove(&names[channel], connection);
                prop_assert_eq!(removed.is_some(), before.is_some());
                for (name, expected) in names.iter().zip(&model) {
                    let present: Vec<u8> =
                        expected.values().filter(|(_, is_present)| *is_present).map(|(user, _)| *user).collect();
                    let mut users = present.clone();
                    users.sort_unstable();
                    users.dedup();
                    let stats = PresenceStats { clients: present.len() as u32, users: users.len() as u32 };
                    prop_assert_eq!(table.stats(name), stats);
                    prop_assert_eq!(table.present(name).count(), present.len());
                }
                prop_assert_eq!(table.len(), model.iter().map(BTreeMap::len).sum::<usize>());
                prop_assert_eq!(table.channels.len(), model.iter().filter(|members| !members.is_empty()).count());
            }
        }
    }
}
