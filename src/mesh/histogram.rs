//! How a value is spread: counts by fixed bounds, each twice the one before.
//!
//! Recording is a shift, a count of leading zeros and two additions, so that a shard can do it in every turn. Two bounds
//! are a factor of two apart, which is enough to see that a latency has doubled.

/// Bounds of a histogram; what is above the last is counted too.
pub const HISTOGRAM_BOUNDS: usize = 21;

/// Counts of values by size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// The first bound is two to the power of this.
    first_bound_log2: u32,
    counts: [u64; HISTOGRAM_BOUNDS + 1],
    sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::of_microseconds()
    }
}

impl Histogram {
    /// Of times in microseconds: from 16 µs to 17 s.
    pub const fn of_microseconds() -> Self {
        Self::new(4)
    }

    /// Of sizes in bytes: from 256 B to 256 MiB.
    pub const fn of_bytes() -> Self {
        Self::new(8)
    }

    const fn new(first_bound_log2: u32) -> Self {
        Self { first_bound_log2, counts: [0; HISTOGRAM_BOUNDS + 1], sum: 0 }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        let above_first = value.saturating_sub(1) >> self.first_bound_log2;
        let bucket = (u64::BITS - above_first.leading_zeros()) as usize;
        self.counts[bucket.min(HISTOGRAM_BOUNDS)] += 1;
        self.sum = self.sum.wrapping_add(value);
    }

    /// Each bound with the number of values that are not above it.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let counts = self.counts[..HISTOGRAM_BOUNDS].iter().enumerate();
        counts.scan(0, |below, (index, count)| {
            *below += count;
            Some((1 << (self.first_bound_log2 as usize + index), *below))
        })
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The bound that this share of the values does not exceed; none: there are no values, or it is above all bounds.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let wanted = (self.count() as f64 * share).ceil().max(1.0);
        self.cumulative().find(|(_, below)| *below as f64 >= wanted).map(|(bound, _)| bound)
    }

    /// What was counted since an earlier state of the same histogram.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        for (count, before) in difference.counts.iter_mut().zip(earlier.counts) {
            *count = count.saturating_sub(before);
        }
        difference.sum = self.sum.wrapping_sub(earlier.sum);
        difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_at_the_first_bound_that_is_not_below_it() {
        for (value, bound) in
            [(0, 16), (1, 16), (16, 16), (17, 32), (32, 32), (33, 64), (1_000, 1_024), (1_048_576, 1_048_576)]
        {
            let mut histogram = Histogram::of_microseconds();
            histogram.record(value);
            let first = histogram.cumulative().find(|(_, below)| *below == 1).map(|(bound, _)| bound);
            assert_eq!(first, Some(bound), "{value}");
            assert_eq!((histogram.count(), histogram.sum()), (1, value));
        }
    }

    #[test]
    fn what_is_above_all_bounds_counts_only_in_the_whole() {
        let mut histogram = Histogram::of_bytes();
        histogram.record(u64::MAX);
        histogram.record(1 << 28);
        let last = histogram.cumulative().last();
        assert_eq!(last, Some((1 << 28, 1)));
        assert_eq!(histogram.count(), 2);
        assert_eq!(histogram.quantile(0.5), Some(1 << 28));
        assert_eq!(histogram.quantile(0.99), None);
    }

    #[test]
    fn a_difference_holds_what_came_between() {
        let mut histogram = Histogram::of_microseconds();
        (0..100).for_each(|_| histogram.record(10));
        let earlier = histogram.clone();
        (0..10).for_each(|_| histogram.record(5_000));
        let between = histogram.since(&earlier);
        assert_eq!((between.count(), between.sum(), between.quantile(0.99)), (10, 50_000, Some(8_192)));
        assert_eq!(Histogram::of_bytes().quantile(0.5), None);
    }
}
