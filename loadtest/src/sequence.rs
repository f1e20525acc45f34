//! Judges the order in which one subscriber receives one stream.
//!
//! Owns the rule: every sequence number after the first expected one arrives once, in order.
//! Memory is constant: the highest number seen and a window of [`WINDOW`] numbers below it; what is
//! later than that counts as out of order and stays counted as lost.

use serde::{Deserialize, Serialize};

/// Numbers below the highest for which it is known whether they were seen.
pub const WINDOW: u64 = 64;

/// Faults of deliveries. All zero: everything arrived, once, in order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Never arrived.
    pub lost: u64,
    /// Arrived again.
    pub doubled: u64,
    /// Arrived after a later one.
    pub out_of_order: u64,
    /// Arrived at a subscriber of another stream.
    pub misrouted: u64,
    /// Arrived, but not as it was published.
    pub damaged: u64,
}

impl Faults {
    /// Whether there is none.
    pub fn is_clean(&self) -> bool {
        *self == Faults::default()
    }

    /// Counts another subscriber's faults in.
    pub fn add(&mut self, other: &Faults) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.out_of_order += other.out_of_order;
        self.misrouted += other.misrouted;
        self.damaged += other.damaged;
    }
}

/// What one subscriber has seen of one stream.
#[derive(Debug, Clone, Copy)]
pub struct SequenceWindow {
    /// Whether the first expected number is known.
    has_begun: bool,
    highest: u64,
    /// Bit i: `highest - 1 - i` was seen, or is before the first expected number.
    seen: u64,
}

impl SequenceWindow {
    /// A subscriber that must receive everything from this number on.
    pub fn expecting(first: u64) -> Self {
        Self { has_begun: true, highest: first - 1, seen: u64::MAX }
    }

    /// A subscriber that came while the stream was under way: it must receive everything after the first that it sees.
    pub fn from_whatever_comes() -> Self {
        Self { has_begun: false, highest: 0, seen: u64::MAX }
    }

    /// A number arrived. A gap counts as lost until what is missing arrives.
    pub fn receive(&mut self, sequence: u64, faults: &mut Faults) {
        if !self.has_begun {
            *self = Self::expecting(sequence);
        }
        if sequence > self.highest {
            let step = sequence - self.highest;
            faults.lost += step - 1;
            self.seen = if step < WINDOW { (self.seen << 1 | 1) << (step - 1) } else { 0 };
            self.highest = sequence;
            return;
        }
        let age = self.highest - sequence;
        if age == 0 {
            faults.doubled += 1;
        } else if age > WINDOW {
            faults.out_of_order += 1;
        } else if self.seen & 1 << (age - 1) != 0 {
            faults.doubled += 1;
        } else {
            self.seen |= 1 << (age - 1);
            faults.out_of_order += 1;
            faults.lost -= 1;
        }
    }

    /// The stream ended with this number: what has not arrived is lost.
    pub fn end(&mut self, last: u64, faults: &mut Faults) {
        if self.has_begun && last > self.highest {
            faults.lost += last - self.highest;
            self.highest = last;
            self.seen = u64::MAX;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(sequences: &[u64], last: u64) -> Faults {
        let mut window = SequenceWindow::expecting(1);
        let mut faults = Faults::default();
        for &sequence in sequences {
            window.receive(sequence, &mut faults);
        }
        window.end(last, &mut faults);
        faults
    }

    #[test]
    fn in_order_and_complete_is_clean() {
        let all: Vec<u64> = (1..=1000).collect();
        assert!(faults(&all, 1000).is_clean());
        assert!(faults(&[], 0).is_clean());
    }

    #[test]
    fn what_is_missing_is_lost() {
        assert_eq!(faults(&[1, 2, 4], 4), Faults { lost: 1, ..Faults::default() });
        assert_eq!(faults(&[2], 2), Faults { lost: 1, ..Faults::default() });
        assert_eq!(faults(&[1, 2], 5), Faults { lost: 3, ..Faults::default() });
        assert_eq!(faults(&[1, 200], 200), Faults { lost: 198, ..Faults::default() });
        assert_eq!(faults(&[1, 65], 65), Faults { lost: 63, ..Faults::default() });
    }

    #[test]
    fn what_comes_again_is_doubled() {
        assert_eq!(faults(&[1, 1], 1), Faults { doubled: 1, ..Faults::default() });
        assert_eq!(faults(&[1, 2, 3, 1], 3), Faults { doubled: 1, ..Faults::default() });
        assert_eq!(faults(&[0], 0), Faults { doubled: 1, ..Faults::default() });
    }

    #[test]
    fn what_comes_late_is_out_of_order_and_not_lost() {
        assert_eq!(faults(&[1, 3, 2], 3), Faults { out_of_order: 1, ..Faults::default() });
        assert_eq!(faults(&[1, 3, 2, 2], 3), Faults { out_of_order: 1, doubled: 1, ..Faults::default() });
        let mut shuffled: Vec<u64> = (2..=65).collect();
        shuffled.push(1);
        assert_eq!(faults(&shuffled, 65), Faults { out_of_order: 1, ..Faults::default() });
    }

    #[test]
    fn who_comes_late_misses_nothing_after_its_first() {
        let mut window = SequenceWindow::from_whatever_comes();
        let mut faults = Faults::default();
        window.end(7, &mut faults);
        window.receive(10, &mut faults);
        window.receive(11, &mut faults);
        assert!(faults.is_clean());
        window.receive(13, &mut faults);
        assert_eq!(faults.lost, 1);
    }

    #[test]
    fn beyond_the_window_the_late_one_stays_lost() {
        let mut shuffled: Vec<u64> = (2..=66).collect();
        shuffled.push(1);
        assert_eq!(faults(&shuffled, 66), Faults { lost: 1, out_of_order: 1, ..Faults::default() });
    }
}
