//! The sending end of a queue to another thread.

use std::{collections::VecDeque, sync::Arc};

use crossbeam_channel::{Sender, TrySendError};

use super::Bell;

/// Sends in order, never blocks, holds back what finds the queue full.
pub struct Outlet<T> {
    sender: Sender<T>,
    held: VecDeque<T>,
    held_total: u64,
    bell: Arc<Bell>,
    pushed: bool,
}

impl<T> Outlet<T> {
    pub(super) fn new(sender: Sender<T>, bell: Arc<Bell>) -> Self {
        Self { sender, held: VecDeque::new(), held_total: 0, bell, pushed: false }
    }

    /// Sends, or holds back. The receiver is woken by [`Outlet::ring`] or by whoever asks [`Outlet::claim_bell`].
    pub fn send(&mut self, message: T) {
        if self.held.is_empty() {
            match self.sender.try_send(message) {
                Ok(()) => self.pushed = true,
                Err(TrySendError::Full(message)) => self.hold(message),
                // The receiving thread has ended, which happens only while the process stops.
                Err(TrySendError::Disconnected(_)) => {}
            }
        } else {
            self.hold(message);
        }
    }

    /// Sends what may be lost, if the queue is less than half full: what may not be lost has the other half. False: it is
    /// gone.
    pub fn offer(&mut self, message: T) -> bool {
        let has_room = self.sender.capacity().is_none_or(|messages_max| 2 * self.sender.len() < messages_max);
        let is_sent = self.held.is_empty() && has_room && self.sender.try_send(message).is_ok();
        self.pushed |= is_sent;
        is_sent
    }

    /// Sends what was held back, as far as the queue has room.
    pub fn flush(&mut self) {
        while let Some(message) = self.held.pop_front() {
            match self.sender.try_send(message) {
                Ok(()) => self.pushed = true,
                Err(TrySendError::Full(message)) => {
                    self.held.push_front(message);
                    // The receiver must run before there is room.
                    self.pushed = true;
                    return;
                }
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }

    /// Whether something is held back: the caller must take in nothing new.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Messages that are held back now.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Messages held back so far, in total.
    pub fn held_total(&self) -> u64 {
        self.held_total
    }

    /// True if something was pushed since the last call and the receiver sleeps: the caller must wake it.
    pub fn claim_bell(&mut self) -> bool {
        std::mem::take(&mut self.pushed) && self.bell.claim()
    }

    /// Wakes the receiver if something was pushed since the last call and it sleeps.
    pub fn ring(&mut self) {
        if self.claim_bell() {
            self.bell.wake();
        }
    }

    fn hold(&mut self, message: T) {
        self.held_total += 1;
        self.held.push_back(message);
    }
}
