//! The order in which threads are told to stop, and how long they are waited for.
//!
//! First nothing changes but the answer of `/health`, so that a balancer sends nobody new. Then
//! producers go: what they have been promised must still reach the shards. Then the shards
//! tell their clients to come back, and end. Pure: time and the set of running threads are handed
//! in, the caller sends.

use std::time::{Duration, Instant};

use super::observer::ThreadId;
use crate::config::ShutdownConfig;

/// The ingest thread's share of the whole time: a producer that does not read its answers must
/// not eat the clients' time.
const INGEST_SHARE: u32 = 5;

/// Why the server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopRequest {
    /// A signal, by its name. The second ends the server at once.
    Signal(&'static str),
    /// An operator's `tidegate drain`. Asked for again, nothing changes.
    Drain,
}

/// A stop under way.
pub struct Stop {
    began_at: Instant,
    unready_until: Instant,
    shards_told_at: Instant,
    ends_at: Instant,
    spread: Duration,
    stage: Stage,
}

/// How far a stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The server serves still, and says that it will not for long.
    Unready,
    /// The ingest thread has been told.
    Producers,
    /// The shards have been told.
    Clients,
}

/// What the caller has to do now.
#[derive(Debug, PartialEq, Eq)]
pub enum StopStep {
    /// Wait, at most until then.
    Wait(Instant),
    /// Tell the ingest thread to stop, and ask again.
    TellIngest,
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
    /// Begins to stop, as the configuration says.
    pub fn begin(config: &ShutdownConfig, now: Instant) -> Self {
        let whole = Duration::from_millis(u64::from(config.ms_max));
        let unready = Duration::from_millis(u64::from(config.unready_ms)).min(whole);
        Self {
            began_at: now,
            unready_until: now + unready,
            shards_told_at: now + unready + (whole - unready) / INGEST_SHARE,
            ends_at: now + whole,
            spread: Duration::from_millis(u64::from(config.spread_ms)),
            stage: Stage::Unready,
        }
    }

    /// The same for a server that has lost a part: nobody is served well by waiting.
    pub fn begin_at_once(config: &ShutdownConfig, now: Instant) -> Self {
        Self::begin(&ShutdownConfig { unready_ms: 0, ..config.clone() }, now)
    }

    /// When it began.
    pub fn began_at(&self) -> Instant {
        self.began_at
    }

    /// Whether no thread has been told yet, so that all is served as before.
    pub fn is_serving(&self) -> bool {
        self.stage == Stage::Unready
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
        match self.stage {
            Stage::Unready if now < self.unready_until => StopStep::Wait(self.unready_until),
            Stage::Unready => {
                self.stage = Stage::Producers;
                StopStep::TellIngest
            }
            Stage::Producers if ingest && now < self.shards_told_at => StopStep::Wait(self.shards_told_at),
            Stage::Producers => {
                self.stage = Stage::Clients;
                let spread = self.spread.min(self.ends_at - now);
                StopStep::TellShards { spread_ms: u32::try_from(spread.as_millis()).unwrap_or(u32::MAX) }
            }
            Stage::Clients => StopStep::Wait(self.ends_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: ShutdownConfig = ShutdownConfig { unready_ms: 0, ms_max: 10_000, spread_ms: 9_000 };

    #[test]
    fn shards_are_told_once_ingest_has_ended() {
        let start = Instant::now();
        let mut stop = Stop::begin(&CONFIG, start);
        let all = [ThreadId::Shard(0), ThreadId::Shard(1), ThreadId::Ingest];
        assert_eq!(stop.step(all.into_iter(), start), StopStep::TellIngest);
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
        assert_eq!(stop.step(all.into_iter(), start), StopStep::TellIngest);
        let share = start + Duration::from_secs(2);
        assert_eq!(stop.step(all.into_iter(), share), StopStep::TellShards { spread_ms: 8_000 });
        assert_eq!(stop.step([ThreadId::Ingest].into_iter(), share), StopStep::Wait(start + Duration::from_secs(10)));
    }

    #[test]
    fn nobody_is_told_while_balancers_take_note() {
        let start = Instant::now();
        let config = ShutdownConfig { unready_ms: 4_000, ..CONFIG };
        let mut stop = Stop::begin(&config, start);
        let all = [ThreadId::Shard(0), ThreadId::Ingest];
        let ready_until = start + Duration::from_secs(4);
        assert_eq!(stop.step(all.into_iter(), start), StopStep::Wait(ready_until));
        assert!(stop.is_serving());
        assert_eq!(stop.step(all.into_iter(), ready_until), StopStep::TellIngest);
        assert!(!stop.is_serving());
        let share = ready_until + Duration::from_millis(1_200);
        assert_eq!(stop.step(all.into_iter(), ready_until), StopStep::Wait(share));
        assert_eq!(stop.step(all[..1].iter().copied(), ready_until), StopStep::TellShards { spread_ms: 6_000 });

        let mut stop = Stop::begin_at_once(&config, start);
        assert_eq!(stop.step(all[..1].iter().copied(), start), StopStep::TellIngest);
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
