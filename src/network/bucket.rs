//! Token buckets: so many things in a second, and some more at once.
//!
//! A bucket is one number: the time at which it is full again (the generic cell rate algorithm). One that is full says
//! nothing, so whoever keeps buckets may forget it.
//!
//! Invariants:
//! - What is let through between two moments is at most the burst, and the rate times what passed between them.
//! - A clock that jumps does no lasting harm: forwards, a bucket is full and no more than that; backwards, it is as empty
//!   as it can be, and fills from there.

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_second: u32,
    burst: u32,
}

/// What a bucket says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Within,
    /// Too often; it is counted all the same, so that who goes on trying is not let through.
    Beyond,
    /// Too often, for as long as a full bucket lasts: answers have not helped.
    FarBeyond,
}

/// When it is full again, in nanoseconds of the clock that is handed in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at_ns: u64,
}

impl Rate {
    /// So many in a second, and at once as many as two seconds bring; none: 0 stands for any number.
    pub fn new(per_second: u32) -> Option<Self> {
        Self::with_burst(per_second, per_second.saturating_mul(2))
    }

    /// So many in a second, and `burst` at once, though at least one.
    pub fn with_burst(per_second: u32, burst: u32) -> Option<Self> {
        (per_second > 0).then_some(Self { per_second, burst: burst.max(1) })
    }

    /// Nanoseconds in which a bucket gains so many.
    fn gain_ns(self, count: u64) -> u64 {
        (count.saturating_mul(1_000_000_000)).div_ceil(u64::from(self.per_second))
    }

    /// Nanoseconds in which an empty bucket fills. What is gained for one alone is rounded up, so there is one more for
    /// each, or the last of a burst would not pass.
    pub fn fill_ns(self) -> u64 {
        self.gain_ns(u64::from(self.burst)) + u64::from(self.burst)
    }
}

impl Bucket {
    /// From the number that [`Bucket::full_at_ns`] gave.
    pub fn from_full_at_ns(full_at_ns: u64) -> Self {
        Self { full_at_ns }
    }

    /// When it is full again.
    pub fn full_at_ns(self) -> u64 {
        self.full_at_ns
    }

    /// Whether it may be forgotten.
    pub fn is_full(self, now_ns: u64) -> bool {
        self.full_at_ns <= now_ns
    }

    /// Takes `count` if the bucket has them. One that has not is charged too, up to twice its size.
    pub fn take(&mut self, rate: Rate, count: u32, now_ns: u64) -> Verdict {
        let fill_ns = rate.fill_ns();
        let begins_ns = self.full_at_ns.clamp(now_ns, now_ns.saturating_add(2 * fill_ns));
        let full_at_ns = begins_ns.saturating_add(rate.gain_ns(u64::from(count)));
        let verdict = match full_at_ns - now_ns {
            debt_ns if debt_ns <= fill_ns => Verdict::Within,
            debt_ns if debt_ns <= 2 * fill_ns => Verdict::Beyond,
            _ => Verdict::FarBeyond,
        };
        self.full_at_ns = full_at_ns.min(now_ns.saturating_add(2 * fill_ns));
        verdict
    }

    /// Takes `count` if the bucket has them, and nothing otherwise.
    pub fn try_take(&mut self, rate: Rate, count: u32, now_ns: u64) -> bool {
        let fill_ns = rate.fill_ns();
        let begins_ns = self.full_at_ns.clamp(now_ns, now_ns.saturating_add(fill_ns));
        let full_at_ns = begins_ns.saturating_add(rate.gain_ns(u64::from(count)));
        let is_within = full_at_ns - now_ns <= fill_ns;
        self.full_at_ns = if is_within { full_at_ns } else { begins_ns };
        is_within
    }

    /// Takes `count`, whether it has them or not: in how many nanoseconds it is not empty any more.
    pub fn overdraw(&mut self, rate: Rate, count: u32, now_ns: u64) -> u64 {
        let begins_ns = self.full_at_ns.clamp(now_ns, now_ns.saturating_add(2 * rate.fill_ns()));
        self.full_at_ns = begins_ns.saturating_add(rate.gain_ns(u64::from(count)));
        (self.full_at_ns - now_ns).saturating_sub(rate.fill_ns())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rate = Rate::with_burst(10, 20).unwrap();
        let mut bucket = Bucket::default();
        let taken = (0..100).filter(|_| bucket.try_take(rate, 1, SECOND_NS)).count();
        assert_eq!(taken, 20);
        let later = (0..100).filter(|_| bucket.try_take(rate, 1, 2 * SECOND_NS)).count();
        assert_eq!(later, 10);
        assert!(!bucket.is_full(3 * SECOND_NS));
        assert!(bucket.is_full(4 * SECOND_NS), "it has forgotten all after two seconds");
    }

    #[test]
    fn who_goes_on_trying_is_far_beyond() {
        let rate = Rate::with_burst(5, 10).unwrap();
        let mut bucket = Bucket::default();
        let verdicts: Vec<Verdict> = (0..22).map(|_| bucket.take(rate, 1, SECOND_NS)).collect();
        assert!(verdicts[..10].iter().all(|verdict| *verdict == Verdict::Within));
        assert!(verdicts[10..20].iter().all(|verdict| *verdict == Verdict::Beyond));
        assert!(verdicts[20..].iter().all(|verdict| *verdict == Verdict::FarBeyond));
        assert_eq!(bucket.take(rate, 1, 4 * SECOND_NS), Verdict::Within, "no debt lasts longer than twice the burst");
    }

    #[test]
    fn what_is_overdrawn_is_waited_for() {
        let rate = Rate::with_burst(1_000, 1_000).unwrap();
        let mut bucket = Bucket::default();
        assert_eq!(bucket.overdraw(rate, 1_000, SECOND_NS), 0);
        assert_eq!(bucket.overdraw(rate, 500, SECOND_NS), SECOND_NS / 2 - 1_000);
        assert_eq!(bucket.overdraw(rate, 1, SECOND_NS + SECOND_NS / 2), 1_000_000 - 1_000);
    }

    #[test]
    fn no_rate_is_any_rate() {
        assert_eq!(Rate::new(0), None);
        assert_eq!(Rate::with_burst(1, 0), Rate::with_burst(1, 1));
    }

    proptest! {
        /// The clock goes forwards, stands and jumps either way.
        #[test]
        fn no_more_passes_than_burst_and_rate_allow(
            per_second in 1..5_000_u32,
            burst in 1..1_000_u32,
            steps in prop::collection::vec((-5_000_000_000..5_000_000_000_i64, 1..4_u32, any::<bool>()), 1..300),
        ) {
            let rate = Rate::with_burst(per_second, burst).unwrap();
            let mut bucket = Bucket::default();
            let (mut now_ns, mut passed_ns, mut taken) = (1_u64 << 50, 0_u64, 0_u64);
            for (step_ns, count, is_strict) in steps {
                passed_ns += step_ns.max(0) as u64;
                now_ns = now_ns.checked_add_signed(step_ns).unwrap();
                let is_within = if is_strict {
                    bucket.try_take(rate, count, now_ns)
                } else {
                    bucket.take(rate, count, now_ns) == Verdict::Within
                };
                taken += if is_within { u64::from(count) } else { 0 };
                let gained = u128::from(passed_ns) * u128::from(per_second) / 1_000_000_000;
                prop_assert!(u128::from(taken) <= u128::from(burst) + gained + 1, "{taken} passed");
                prop_assert!(bucket.full_at_ns() <= now_ns + 2 * rate.fill_ns() , "a jump makes nobody wait longer");
            }
        }
    }
}
