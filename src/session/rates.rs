//! How often one connection may do something: the buckets, and what is charged to which.
//!
//! They exist only while one of them is not full: an idle client has none.

use super::Reason;
use crate::{
    config::LimitsConfig,
    network::{Bucket, Rate, Verdict},
};

/// One connection's buckets.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    commands: Bucket,
    publications: Bucket,
    received: Bucket,
}

/// A command that comes too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooFrequent {
    /// As what it is counted.
    pub reason: Reason,
    /// Whether answers have not helped, so that the connection ends.
    pub is_far_beyond: bool,
}

impl Rates {
    /// Whether commands are limited at all.
    pub fn limits_commands(limits: &LimitsConfig, is_publication: bool) -> bool {
        limits.commands_per_second > 0 || is_publication && limits.publications_per_second > 0
    }

    /// Charges a command.
    ///
    /// # Errors
    /// When it comes too often.
    pub fn command(&mut self, limits: &LimitsConfig, is_publication: bool, now_ns: u64) -> Result<(), TooFrequent> {
        let publications = if is_publication { limits.publications_per_second } else { 0 };
        let charges = [
            (&mut self.commands, limits.commands_per_second, Reason::CommandsTooFrequent),
            (&mut self.publications, publications, Reason::PublicationsTooFrequent),
        ];
        let mut outcome = Ok(());
        for (bucket, per_second, reason) in charges {
            let Some(rate) = Rate::new(per_second) else { continue };
            let verdict = bucket.take(rate, 1, now_ns);
            if verdict != Verdict::Within && outcome.is_ok() {
                outcome = Err(TooFrequent { reason, is_far_beyond: verdict == Verdict::FarBeyond });
            }
        }
        outcome
    }

    /// Charges bytes that have been received: in how many nanoseconds more may be.
    pub fn receive(&mut self, limits: &LimitsConfig, bytes: usize, now_ns: u64) -> u64 {
        let Some(rate) = Rate::new(limits.received_bytes_per_second) else { return 0 };
        self.received.overdraw(rate, u32::try_from(bytes).unwrap_or(u32::MAX), now_ns)
    }

    /// When all are full again, and may be forgotten.
    pub fn full_at_ns(&self) -> u64 {
        [self.commands, self.publications, self.received].map(Bucket::full_at_ns).into_iter().max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn a_publication_is_a_command_too() {
        let limits = LimitsConfig { commands_per_second: 4, publications_per_second: 1, ..LimitsConfig::default() };
        let mut rates = Rates::default();
        let mut reasons = Vec::new();
        for _ in 0..8 {
            reasons.push(rates.command(&limits, true, SECOND_NS).err().map(|too_frequent| too_frequent.reason));
        }
        assert_eq!(reasons[..2], [None; 2]);
        assert!(reasons[2..].iter().all(|reason| *reason == Some(Reason::PublicationsTooFrequent)), "{reasons:?}");
        let other = rates.command(&limits, false, SECOND_NS).unwrap_err();
        assert_eq!((other.reason, other.is_far_beyond), (Reason::CommandsTooFrequent, false));
    }

    #[test]
    fn what_is_not_limited_is_not_charged() {
        let limits = LimitsConfig::default();
        let mut rates = Rates::default();
        for _ in 0..1_000 {
            assert_eq!(rates.command(&limits, true, SECOND_NS), Ok(()));
            assert_eq!(rates.receive(&limits, 1 << 20, SECOND_NS), 0);
        }
        assert_eq!(rates.full_at_ns(), 0);
        assert!(!Rates::limits_commands(&limits, true));
    }

    #[test]
    fn bytes_are_waited_for_and_never_refused() {
        let limits = LimitsConfig { received_bytes_per_second: 1_000, ..LimitsConfig::default() };
        let mut rates = Rates::default();
        assert_eq!(rates.receive(&limits, 2_000, SECOND_NS), 0);
        let wait_ns = rates.receive(&limits, 500, SECOND_NS);
        assert!(wait_ns.abs_diff(SECOND_NS / 2) < 10_000, "{wait_ns}");
        assert_eq!(rates.full_at_ns(), SECOND_NS + SECOND_NS * 5 / 2);
    }
}
