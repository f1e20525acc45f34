//! Addresses that operators do not want any more: their connections are looked for, some in each turn, and closed.

use std::sync::Arc;

use super::{connection::Flag, state::State};
use crate::{
    network::PrefixSet,
    protocol::Disconnect,
    session::{Phase, Reason, TurnedAway},
    uring::Kernel,
};

/// Slots that are looked at in one turn: of each, the kernel is asked for its address.
const LOOKS_PER_TURN_MAX: u32 = 1_024;

impl State {
    /// From now on these addresses may not connect. Who is connected is found in the turns to come.
    pub fn deny(&mut self, prefixes: Arc<PrefixSet>) {
        self.admitting.look_for_denied_from = (!prefixes.is_empty()).then_some(0);
        self.admitting.denied = prefixes;
    }

    /// Looks at some connections, if they are to be looked at.
    pub fn look_for_denied<K: Kernel>(&mut self, kernel: &K) {
        let Some(first) = self.admitting.look_for_denied_from else { return };
        let end = self.connections.capacity() as u32;
        let next = end.min(first.saturating_add(LOOKS_PER_TURN_MAX));
        for index in first..next {
            let connection = self.connections.get(index as usize);
            let Some(connection) = connection.filter(|connection| !connection.has(Flag::Left)) else { continue };
            // A balancer's own address says nothing of its clients.
            let known = self.admitting.address(index);
            let address =
                known.or_else(|| kernel.peer_address(connection.socket).map(|address| address.ip().to_canonical()));
            if address.is_some_and(|address| self.admitting.denied.contains(address)) {
                self.close_denied(index);
            }
        }
        self.admitting.look_for_denied_from = (next < end).then_some(next);
    }

    fn close_denied(&mut self, index: u32) {
        if self.connection(index).session.phase() == Phase::Head {
            return self.turn_away(index, TurnedAway::AddressDenied);
        }
        self.disconnect(index, Disconnect::PERMISSION_DENIED, Reason::AddressDenied);
    }
}
