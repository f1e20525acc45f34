//! Clients that wait for a published key: their tokens name one that this shard does not have.
//!
//! The control thread is asked once for all that wait, and again for those that came after the question.

use std::{rc::Rc, sync::Arc};

use super::state::State;
use crate::{
    mesh::{ConnectionId, ToControl},
    protocol::KeySet,
};

/// Connections whose sessions wait for published keys.
#[derive(Default)]
pub struct KeyWaiters {
    /// For the answer to the question that is open.
    asked: Vec<ConnectionId>,
    /// For the next: their tokens came after that question.
    next: Vec<ConnectionId>,
}

impl State {
    /// A session waits for keys that are published now.
    pub fn await_keys(&mut self, index: u32) {
        let id = self.id(index);
        self.key_waiters.next.push(id);
        if self.key_waiters.asked.is_empty() {
            self.ask_for_keys();
        }
    }

    /// From now on these keys count. Whoever waited for an answer goes on.
    pub fn keys_arrived(&mut self, keys: Arc<KeySet>, is_current: bool, is_answer: bool) {
        let rules = Rc::get_mut(&mut self.rules).expect("no session acts while messages are taken in");
        rules.set_key_set(keys, is_current);
        if is_answer {
            self.paused.append(&mut self.key_waiters.asked);
            if !self.key_waiters.next.is_empty() {
                self.ask_for_keys();
            }
        }
    }

    /// Tokens are judged by other rules now. Where no keys are published any more, nobody waits for some.
    pub fn keys_reconfigured(&mut self) {
        if self.config.client.token.jwks_public_endpoint.is_none() {
            let KeyWaiters { asked, next } = std::mem::take(&mut self.key_waiters);
            self.paused.extend(asked.into_iter().chain(next));
        }
    }

    fn ask_for_keys(&mut self) {
        self.key_waiters.asked = std::mem::take(&mut self.key_waiters.next);
        self.mesh.to_control.send(ToControl::TokenKeysWanted { shard: self.mesh.shard });
    }
}
