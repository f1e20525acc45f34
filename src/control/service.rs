//! What the service manager is told of the server: that it is ready, that every thread answers, how it is, that it stops.
//!
//! Pure but for the telling: time and figures are handed in, and the caller asks the threads.
//!
//! Invariant: the watchdog is fed only by figures of which every thread has had its part, asked for since it was fed
//! before. So a stuck thread, this one among them, is a failure of the whole server within the watchdog's time.

use std::time::{Duration, Instant};

use super::observer::{Snapshot, ThreadState};
use crate::systemd::{Notice, ServiceManager};

/// How often the status is written anew, unless the watchdog asks for more.
const INTERVAL_MAX: Duration = Duration::from_secs(10);

/// How often threads are asked within the watchdog's time: an answer that is late once is no failure.
const LOOKS_PER_WATCHDOG_TIME: u32 = 3;

/// What a service manager waits for beyond the time that a stop may take: the process's own end.
const EXIT_TIME_MAX: Duration = Duration::from_secs(5);

/// The server, as its service manager sees it.
pub struct Service {
    manager: ServiceManager,
    interval: Duration,
    look_at: Instant,
    /// Whether a thread did not answer the last time, and the log has said so.
    is_stuck: bool,
}

impl Service {
    /// A server that serves from now on; its manager is told so.
    pub fn ready(manager: ServiceManager, now: Instant) -> Self {
        manager.tell(&[Notice::Ready, Notice::Status("serving")]);
        let interval = manager.watchdog_time().map_or(INTERVAL_MAX, |time| time / LOOKS_PER_WATCHDOG_TIME);
        Self { manager, interval: interval.min(INTERVAL_MAX), look_at: now, is_stuck: false }
    }

    /// Whether threads are to be asked for figures now; otherwise when, if at all.
    pub fn wants_figures(&mut self, now: Instant) -> Result<(), Option<Instant>> {
        if !self.manager.is_there() {
            return Err(None);
        }
        if now < self.look_at {
            return Err(Some(self.look_at));
        }
        self.look_at = now + self.interval;
        Ok(())
    }

    /// Tells what the figures say.
    pub fn tell(&mut self, snapshot: &Snapshot) {
        let stuck = snapshot.states().filter(|(_, state, _)| *state == ThreadState::Stuck);
        let stuck: Vec<_> = stuck.map(|(thread, ..)| thread.to_string()).collect();
        let was_stuck = std::mem::replace(&mut self.is_stuck, !stuck.is_empty());
        if self.is_stuck {
            let threads = stuck.join(" ");
            if !was_stuck {
                tracing::error!(threads, "not answering");
            }
            return self.manager.tell(&[Notice::Status(&format!("not answering: {threads}"))]);
        }
        let clients: u64 = snapshot.shard_figures().map(|figures| figures.connections).sum();
        let status = match snapshot.stopping {
            true => format!("stopping, clients left: {clients}"),
            false => {
                let producers = snapshot.ingest.figures.as_ref().map_or(0, |figures| figures.connections);
                format!("clients: {clients}, producers: {producers}, shards: {}", snapshot.shards.len())
            }
        };
        self.manager.tell(&[Notice::Alive, Notice::Status(&status)]);
    }

    /// Tells that the configuration is read anew: the manager waits for [`Service::reloaded`].
    pub fn reloading(&self) {
        self.manager.tell(&[Notice::Reloading]);
    }

    /// Tells that the reload has ended, whatever came of it.
    pub fn reloaded(&self) {
        self.manager.tell(&[Notice::Ready]);
    }

    /// Tells that the server stops, which takes so long at most.
    pub fn stopping(&mut self, time_max: Duration, now: Instant) {
        self.manager.tell(&[
            Notice::Stopping,
            Notice::ExtendTimeout(time_max + EXIT_TIME_MAX),
            Notice::Status("stopping"),
        ]);
        // How many clients are left is of interest more often.
        self.interval = self.interval.min(Duration::from_secs(1));
        self.look_at = now;
    }
}
