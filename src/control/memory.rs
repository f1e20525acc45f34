//! How much memory is left, and what shards are told of it.
//!
//! Owns the decision when memory counts as short, and how much is to be freed. Measuring is `doctor`'s, which reads the
//! same files for its report; what is closed, and in which order, the shards'.
//!
//! Invariant: shards hear of memory when it becomes short, when it is there again, and for as long as something is to be
//! freed; otherwise an idle server stays idle.

use crate::doctor::{Host, memory_left};

/// What a measurement says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryFigures {
    /// Left to this process; none: nobody says.
    pub left_bytes: Option<u64>,
    /// What is to be left.
    pub reserve_bytes: u64,
    /// Whether new clients are turned away.
    pub is_short: bool,
}

/// What shards are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pressure {
    /// No new clients.
    pub is_short: bool,
    /// What all shards together are to free.
    pub shed_bytes: u64,
}

/// Keeps what was measured last.
pub struct MemoryWatch {
    host: Host,
    figures: MemoryFigures,
}

impl MemoryWatch {
    /// Of this host.
    pub fn new(host: Host) -> Self {
        Self { host, figures: MemoryFigures::default() }
    }

    /// Measures: what shards are to be told, if anything.
    pub fn measure(&mut self, reserve_bytes: u64) -> Option<Pressure> {
        self.figures.left_bytes = memory_left(&self.host);
        self.figures.reserve_bytes = reserve_bytes;
        let was_short = self.figures.is_short;
        let pressure = pressure(was_short, self.figures.left_bytes, reserve_bytes);
        self.figures.is_short = pressure.is_short;
        (pressure.is_short != was_short || pressure.shed_bytes > 0).then_some(pressure)
    }

    /// For the metrics.
    pub fn figures(&self) -> MemoryFigures {
        self.figures
    }
}

/// Short below the reserve, and until a quarter more than that is left; below half of it, what is missing to three
/// quarters is to be freed.
fn pressure(was_short: bool, left_bytes: Option<u64>, reserve_bytes: u64) -> Pressure {
    let Some(left_bytes) = left_bytes else { return Pressure { is_short: false, shed_bytes: 0 } };
    let enough_bytes = if was_short { reserve_bytes + reserve_bytes / 4 } else { reserve_bytes };
    let is_short = left_bytes < enough_bytes;
    let is_ending = left_bytes < reserve_bytes / 2;
    let shed_bytes = if is_ending { reserve_bytes * 3 / 4 - left_bytes } else { 0 };
    Pressure { is_short, shed_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESERVE: u64 = 1_000;

    #[test]
    fn memory_is_short_below_the_reserve_and_until_there_is_more() {
        let is_short = |was_short, left_bytes| pressure(was_short, Some(left_bytes), RESERVE).is_short;
        assert!(!is_short(false, 1_000) && is_short(false, 999));
        assert!(is_short(true, 1_249) && !is_short(true, 1_250));
    }

    #[test]
    fn what_is_missing_is_shed_below_half_of_it() {
        let shed = |left_bytes| pressure(true, Some(left_bytes), RESERVE).shed_bytes;
        assert_eq!([shed(500), shed(499), shed(0)], [0, 251, 750]);
    }

    #[test]
    fn what_is_not_known_or_not_wanted_does_not_act() {
        assert_eq!(pressure(true, None, RESERVE), Pressure { is_short: false, shed_bytes: 0 });
        assert_eq!(pressure(true, Some(0), 0), Pressure { is_short: false, shed_bytes: 0 });
    }

    #[test]
    fn this_host_says_what_it_has() {
        let mut watch = MemoryWatch::new(Host::here());
        assert_eq!(watch.measure(0), None);
        let figures = watch.figures();
        assert!(figures.left_bytes.is_some_and(|bytes| bytes > 1 << 20));
        assert_eq!(watch.measure(u64::MAX / 4).map(|pressure| pressure.is_short), Some(true));
        assert!(watch.measure(u64::MAX / 4).is_some_and(|pressure| pressure.shed_bytes > 0));
        assert_eq!(watch.measure(0), Some(Pressure { is_short: false, shed_bytes: 0 }));
        assert_eq!(watch.measure(0), None);
    }
}
