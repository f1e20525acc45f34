//! How many connections the whole process may have.
//!
//! The one number that shards share: it is touched when a connection begins and ends, never for a
//! message. Shares per shard would refuse clients while other shards have room, because the kernel
//! spreads connections over listeners by hash.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// Places for connections, shared by all shards.
#[derive(Debug, Clone)]
pub struct Admission {
    free: Arc<AtomicU32>,
}

impl Admission {
    /// `connections_max` free places.
    pub fn new(connections_max: u32) -> Self {
        Self { free: Arc::new(AtomicU32::new(connections_max)) }
    }

    /// Takes a place; false: there is none.
    pub fn enter(&self) -> bool {
        self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(1)).is_ok()
    }

    /// Gives a place back.
    pub fn leave(&self) {
        self.free.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_places_than_allowed() {
        let admission = Admission::new(2);
        let other = admission.clone();
        assert!(admission.enter() && other.enter());
        assert!(!admission.enter());
        other.leave();
        assert!(admission.enter());
        assert!(!other.enter());
    }
}
