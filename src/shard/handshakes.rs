//! Connections that have yet to come to their connect reply: how many there are, and which has been at it the longest.
//!
//! Whoever is slow on purpose is the oldest before long, and whoever means it is through in a moment. So where there are
//! too many, it is the oldest that makes room, and a flood of slow ones cannot keep others out.
//!
//! Invariant: what is in line and over is taken out before it is twice as much as what is under way, so that the line
//! needs no more memory than the handshakes do.

use std::collections::VecDeque;

/// Places in the line that are kept when nothing is under way.
const PLACES_KEPT: usize = 256;

/// The handshakes of a shard.
#[derive(Default)]
pub struct Handshakes {
    under_way: usize,
    /// Oldest first; those that are over are among them for a while.
    line: VecDeque<Handshake>,
}

/// One connection's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake {
    /// Slab index.
    pub index: u32,
    /// Generation of the connection.
    pub generation: u32,
    /// When it was accepted.
    pub began_ms: u64,
}

impl Handshakes {
    /// How many are under way.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// One begins. `is_under_way` tells of others.
    pub fn begin(&mut self, handshake: Handshake, is_under_way: impl Fn(&Handshake) -> bool) {
        if self.line.len() > 2 * self.under_way + PLACES_KEPT {
            self.line.retain(is_under_way);
        }
        self.under_way += 1;
        self.line.push_back(handshake);
    }

    /// One is over, one way or the other.
    pub fn end(&mut self) {
        self.under_way -= 1;
        if self.under_way == 0 {
            self.line.clear();
            self.line.shrink_to(PLACES_KEPT);
        }
    }

    /// The oldest that is under way.
    pub fn oldest(&mut self, is_under_way: impl Fn(&Handshake) -> bool) -> Option<Handshake> {
        while let Some(handshake) = self.line.front() {
            if is_under_way(handshake) {
                return Some(*handshake);
            }
            self.line.pop_front();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_oldest_is_found_and_the_line_stays_short(changes in prop::collection::vec(prop::option::of(0..40_usize), 0..2_000)) {
            let (mut handshakes, mut model) = (Handshakes::default(), BTreeSet::new());
            for (generation, change) in (0_u32..).zip(changes) {
                match change.and_then(|nth| model.iter().nth(nth).copied()) {
                    None => {
                        let is_under_way = |other: &Handshake| model.contains(&other.generation);
                        handshakes.begin(Handshake { index: 0, generation, began_ms: 0 }, is_under_way);
                        model.insert(generation);
                    }
                    Some(over) => {
                        model.remove(&over);
                        handshakes.end();
                    }
                }
                let oldest = handshakes.oldest(|other| model.contains(&other.generation));
                prop_assert_eq!(oldest.map(|handshake| handshake.generation), model.first().copied());
                prop_assert_eq!(handshakes.under_way(), model.len());
                prop_assert!(handshakes.line.len() <= 2 * model.len() + 2 * PLACES_KEPT + 2);
            }
        }
    }
}
