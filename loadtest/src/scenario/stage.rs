//! A server, its clients, and who watches: what a scenario plays on.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{
    arguments::CommonArguments,
    dialect::Dialect,
    fleet::{Fleet, Opened},
    floor_process::FloorProcess,
    link::{FloorAddressees, Reading},
    proc::cpu::CpuTimes,
    statistics::Summary,
    stream::Positions,
    target::{self, Target},
    watch::{Point, Watch},
};

/// CPU accounts of a running thread are brought up to date by its next tick.
const TICK: Duration = Duration::from_millis(10);

/// A server with its clients.
pub struct Stage {
    /// The clients.
    pub fleet: Fleet,
    /// Who watches.
    pub watch: Watch,
    /// The server's process, if it can be told.
    pub pid: Option<u32>,
}

/// What opening all clients took.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Seconds in all.
    pub seconds: f64,
    /// CPU microseconds of the server in all.
    pub cpu_us: Option<f64>,
    /// Of each client.
    pub durations: Option<Summary>,
    /// Of the TLS handshakes, those that resumed a session.
    pub resumed: u64,
}

impl Stage {
    /// The server of the command line; no client is open yet.
    ///
    /// # Errors
    /// If workers cannot be started.
    pub fn server(target: &Target, common: &CommonArguments, reading: Reading) -> Result<Stage> {
        Stage::speaking(target, common, &target::dialect(common), reading)
    }

    /// The floor's server in its place; no client is open yet.
    ///
    /// # Errors
    /// If a process cannot be started.
    pub fn floor(
        target: &Target,
        common: &CommonArguments,
        frame: Vec<u8>,
        to: FloorAddressees,
        reading: Reading,
    ) -> Result<(Stage, FloorProcess)> {
        let common = common.of_floor();
        let floor = FloorProcess::start(target.floor_core(), common.connections, frame, to)?;
        let bare = target.floor(floor.address(), floor.pid());
        Ok((Stage::speaking(&bare, &common, &Dialect::Bare, reading)?, floor))
    }

    /// A server whose clients speak this; no client is open yet.
    ///
    /// # Errors
    /// If workers cannot be started.
    pub fn speaking(target: &Target, common: &CommonArguments, dialect: &Dialect, reading: Reading) -> Result<Stage> {
        let plans = target.plans(common, dialect, reading)?;
        let watch = Watch::begin(target.pid);
        Ok(Stage { fleet: Fleet::start(plans, common.patience_seconds)?, watch, pid: target.pid })
    }

    /// Opens all clients; they must receive everything after these positions.
    ///
    /// # Errors
    /// If one cannot be opened.
    pub fn open(&mut self, what: &str, attend: bool, positions: &Positions) -> Result<Setup> {
        self.open_after(what, attend, Some(positions))
    }

    /// Opens all clients again; they must receive everything after what they have received before.
    ///
    /// # Errors
    /// If one cannot be opened.
    pub fn reopen(&mut self, what: &str) -> Result<Setup> {
        self.open_after(what, true, None)
    }

    fn open_after(&mut self, what: &str, attend: bool, positions: Option<&Positions>) -> Result<Setup> {
        let before = self.cpu();
        let started = Instant::now();
        self.watch.show_opening(what, self.fleet.clients());
        let Opened { durations, resumed } = self.fleet.open(attend, positions, &mut self.watch)?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(Setup { seconds, cpu_us: self.cpu_us_since(before.as_ref()), durations, resumed })
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// If something goes wrong meanwhile.
    pub fn wait(&mut self, seconds: f64) -> Result<()> {
        self.fleet.attend_for(seconds, &mut self.watch)
    }

    /// CPU times of the server now.
    pub fn cpu(&self) -> Option<CpuTimes> {
        std::thread::sleep(TICK);
        self.pid.and_then(|pid| CpuTimes::of_process(pid).ok())
    }

    /// CPU microseconds of the server since then.
    pub fn cpu_us_since(&self, before: Option<&CpuTimes>) -> Option<f64> {
        Some(self.cpu()?.since_ns(before?) as f64 / 1000.0)
    }

    /// Plays a part, then takes the points of the plots.
    pub fn play<T>(mut self, points: &mut Vec<Point>, part: impl FnOnce(&mut Stage) -> Result<T>) -> Result<T> {
        let result = part(&mut self).and_then(|found| self.fleet.close(&mut self.watch).map(|()| found));
        *points = self.watch.end();
        result
    }
}
