//! How often one thing may be said.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

/// Milliseconds of one window.
const WINDOW_MS: u64 = 10_000;

/// Lets something be said a few times in each window of ten seconds, and counts how often it was not.
///
/// Threads may share one; then a few lines more or less than the bound come through where they meet.
#[derive(Debug)]
pub struct Gate {
    lines_max: u64,
    /// When the window began, in milliseconds.
    began_ms: AtomicU64,
    lines: AtomicU64,
    suppressed: AtomicU64,
}

impl Gate {
    /// A gate for so many lines per window.
    pub const fn new(lines_max: u64) -> Self {
        Self { lines_max, began_ms: AtomicU64::new(0), lines: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }

    /// Whether the thing may be said now: if so, how often it was not said since it was said last.
    pub fn pass(&self, now_ms: u64) -> Option<u64> {
        if now_ms.saturating_sub(self.began_ms.load(Relaxed)) >= WINDOW_MS {
            self.began_ms.store(now_ms, Relaxed);
            self.lines.store(0, Relaxed);
        }
        if self.lines.fetch_add(1, Relaxed) < self.lines_max {
            return Some(self.suppressed.swap(0, Relaxed));
        }
        self.suppressed.fetch_add(1, Relaxed);
        None
    }

    /// [`Gate::pass`] by the process's own clock.
    pub fn pass_now(&self) -> Option<u64> {
        static BEGIN: OnceLock<Instant> = OnceLock::new();
        let begin = BEGIN.get_or_init(Instant::now);
        // From the second window on: the first one of a gate has begun at 0.
        self.pass(WINDOW_MS + u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX - WINDOW_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_pass_in_each_window_and_the_others_are_counted() {
        let gate = Gate::new(2);
        assert_eq!(gate.pass(5), Some(0));
        assert_eq!(gate.pass(6), Some(0));
        assert_eq!((gate.pass(7), gate.pass(WINDOW_MS - 1)), (None, None));
        assert_eq!(gate.pass(WINDOW_MS), Some(2), "those between are told once");
        assert_eq!(gate.pass(WINDOW_MS + 1), Some(0));
        assert_eq!(gate.pass(2 * WINDOW_MS - 1), None);
        assert_eq!(gate.pass(9 * WINDOW_MS), Some(1));
    }

    #[test]
    fn its_own_clock_opens_it() {
        let gate = Gate::new(1);
        assert_eq!(gate.pass_now(), Some(0));
        assert_eq!(gate.pass_now(), None);
    }
}
