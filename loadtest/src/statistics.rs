//! Distributions of durations in microseconds: recorded by workers, merged by the coordinator.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest duration that is told apart from longer ones: 10 minutes.
const DURATION_US_MAX: u64 = 600_000_000;

/// A distribution of durations.
#[derive(Debug, Clone)]
pub struct Durations {
    histogram: Histogram<u64>,
}

/// Values and how often each was recorded: a distribution on its way between processes.
pub type Pairs = Vec<(u64, u64)>;

/// What a report says about a distribution, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Summary {
    pub count: u64,
    pub mean_us: f64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p99_9_us: u64,
    pub p99_99_us: u64,
    pub max_us: u64,
}

impl Durations {
    /// None yet; values keep three significant digits.
    pub fn new() -> Self {
        Self::with_digits(3)
    }

    /// None yet; values keep two significant digits, for many small distributions over time.
    pub fn coarse() -> Self {
        Self::with_digits(2)
    }

    fn with_digits(digits: u8) -> Self {
        let histogram = Histogram::new_with_bounds(1, DURATION_US_MAX, digits);
        Self { histogram: histogram.expect("the bounds are constants that the histogram takes") }
    }

    /// Records one duration.
    pub fn record_us(&mut self, duration_us: u64) {
        self.histogram.saturating_record(duration_us.max(1));
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.histogram.reset();
    }

    /// For the way to another process.
    pub fn to_pairs(&self) -> Pairs {
        self.histogram.iter_recorded().map(|value| (value.value_iterated_to(), value.count_at_value())).collect()
    }

    /// Counts another process's durations in.
    pub fn add_pairs(&mut self, pairs: &[(u64, u64)]) {
        for &(value, count) in pairs {
            self.histogram.saturating_record_n(value, count);
        }
    }

    /// The summary; none if nothing was recorded.
    pub fn summary(&self) -> Option<Summary> {
        let at = |quantile| self.histogram.value_at_quantile(quantile);
        (!self.histogram.is_empty()).then(|| Summary {
            count: self.histogram.len(),
            mean_us: self.histogram.mean(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            p99_99_us: at(0.9999),
            max_us: self.histogram.max(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_distributions_equal_one() {
        let (mut whole, mut left, mut right) = (Durations::new(), Durations::new(), Durations::new());
        for duration in 1..=10_000 {
            whole.record_us(duration * 7);
            if duration % 3 == 0 { &mut left } else { &mut right }.record_us(duration * 7);
        }
        left.add_pairs(&right.to_pairs());
        assert_eq!(left.summary(), whole.summary());
        let summary = whole.summary().unwrap();
        assert_eq!(summary.count, 10_000);
        assert!(summary.p50_us.abs_diff(35_000) < 350, "{summary:?}");
        assert!(summary.p99_us.abs_diff(69_300) < 700, "{summary:?}");
    }

    #[test]
    fn nothing_recorded_has_no_summary() {
        let mut durations = Durations::coarse();
        assert_eq!(durations.summary(), None);
        durations.record_us(0);
        durations.record_us(u64::MAX);
        assert_eq!(durations.summary().unwrap().count, 2);
        durations.clear();
        assert_eq!(durations.summary(), None);
    }
}
