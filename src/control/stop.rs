//! The order in which threads are told to stop, and how long they are waited for.
//!
//! Producers go first: what they have been promised must still reach the shards. Then the shards
//! tell their clients to come back, and end. Pure: time and the set of running threads are handed
//! in, the caller sends.

use std::time::{Duration, Instant};

use super::observer::ThreadId;
use crate::config::ShutdownConfig;

/// The ingest thread's share of the whole time: a producer that does not read its answers must
/// not eat the clients' time.
const INGEST_SHARE: u32 = 5;

/// A stop under way. The ingest thread has been told when it begins.
pub struct Stop {
    began_at: Instant,
    shards_told_at: Instant,
    ends_at: Instant,
    spread: Duration,
    shards_told: bool,
}

/// What the caller has to do now.
#[derive(Debug, PartialEq, Eq)]
pub enum StopStep {
    /// Wait, at most until then.
    Wait(Instant),
    /// Tell all shards to stop, with this spread, and ask again.
    TellShards {
        /// Milliseconds over which clients are told.
        spread_ms: u32,
    },
    /// All threads have ended.
    Finished,
    /// Time is up and some have not.
    TimeIsUp,
}

impl Stop {
    /// Begins to stop.
    pub fn begin(config: &ShutdownConfig, now: Instant) -> Self {
        let whole = Duration::from_millis(u64::from(config.ms_max));
        Self {
            began_at: now,
            shards_told_at: now + whole / INGEST_SHARE,
            ends_at: now + whole,
            spread: Duration::from_millis(u64::from(config.spread_ms)),
            shards_told: false,
        }
    }

    /// When it began.
    pub fn began_at(&self) -> Instant {
        self.began_at
    }

    /// What is to be done, now that these threads run still.
    pub fn step(&mut self, mut running: impl Iterator<Item = ThreadId>, now: Instant) -> StopStep {
        let (mut shards, mut ingest) = (false, false);
        for thread in &mut running {
            match thread {
                ThreadId::Shard(_) => shards = true,
                ThreadId::Ingest => ingest = true,
            }
        }
        if !shards && !ingest {
            return StopStep::Finished;
        }
        if now >= self.ends_at {
            return StopStep::TimeIsUp;
        }
        if self.shards_told {
            return StopStep::Wait(self.ends_at);
        }
        if ingest && now < self.shards_told_at {
            return StopStep::Wait(self.shards_told_at);
        }
        self.shards_told = true;
        let spread = self.spread.min(self.ends_at - now);
        StopStep::TellShards { spread_ms: u32::try_from(spread.as_millis()).unwrap_or(u32::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: ShutdownConfig = ShutdownConfig { ms_max: 10_000, spread_ms: 9_000 };

    #[test]
    fn shards_are_told_once_ingest_has_ended() {
        let start = Instant::now();
        let mut stop = Stop::begin(&CONFIG, start);
        let all = [ThreadId::Shard(0), ThreadId::Shard(1), ThreadId::Ingest];
        assert_eq!(stop.step(all.into_iter(), start), StopStep::Wait(start + Duration::from_secs(2)));
        let soon = start + Duration::from_millis(10);
        assert_eq!(stop.step(all[..2].iter().copied(), soon), StopStep::TellShards { spread_ms: 9_000 });
        assert_eq!(stop.step(all[..2].iter().copied(), soon), StopStep::Wait(start + Duration::from_secs(10)));
        assert_eq!(stop.step(all[..1].iter().copied(), soon), StopStep::Wait(start + Duration::from_secs(10)));
        assert_eq!(stop.step([].into_iter(), soon), StopStep::Finished);
    }

    #[test]
    fn a_stuck_ingest_thread_takes_its_share_and_no_more() {
        let start = Instant::now();
        let mut stop = Stop::begin(&CONFIG, start);
        let all = [ThreadId::Shard(0), ThreadId::Ingest];
        let share = start + Duration::from_secs(2);
        assert_eq!(stop.step(all.into_iter(), share), StopStep::TellShards { spread_ms: 8_000 });
        assert_eq!(stop.step([ThreadId::Ingest].into_iter(), share), StopStep::Wait(start + Duration::from_secs(10)));
    }

    #[test]
    fn time_is_up_for_all_at_once() {
        let start = Instant::now();
        let mut stop = Stop::begin(&CONFIG, start);
        let end = start + Duration::from_secs(10);
        assert_eq!(stop.step([ThreadId::Shard(3)].into_iter(), end), StopStep::TimeIsUp);
        assert_eq!(stop.step([].into_iter(), end), StopStep::Finished);
    }
}
