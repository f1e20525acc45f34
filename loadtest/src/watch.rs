//! Looks at the server while a scenario runs: is it there, how much memory and CPU does it use.
//! Draws the progress bar, or where there is no terminal says how far it is now and then, and keeps
//! the points of the plots.

use std::{
    io::{IsTerminal, stderr},
    time::Duration,
};

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::{
    clock::{SECOND_NS, now_ns},
    proc::{cpu::CpuTimes, user_memory},
    statistics::{Durations, Pairs},
};

/// Nanoseconds between two points.
const POINT_NS: u64 = SECOND_NS / 4;

/// Nanoseconds between two lines, where there is no terminal for a bar.
const LINE_NS: u64 = 10 * SECOND_NS;

/// Points that are kept; a longer run thins them out.
const POINTS_MAX: usize = 2_000;

/// The state at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Point {
    /// Since the watch began.
    pub seconds: f64,
    /// Clients open.
    pub connections: u32,
    /// Messages received per second since the last point.
    pub messages_per_second: f64,
    /// Resident bytes of the server.
    pub resident_bytes: Option<u64>,
    /// Cores that the server kept busy since the last point.
    pub cores_busy: Option<f64>,
    /// Median latency since the last point, in microseconds.
    pub latency_p50_us: Option<u64>,
    /// 99th percentile.
    pub latency_p99_us: Option<u64>,
    /// Longest.
    pub latency_max_us: Option<u64>,
}

/// An observation of one server.
pub struct Watch {
    pid: Option<u32>,
    started_ns: u64,
    last_ns: u64,
    last_received: u64,
    last_cpu: Option<CpuTimes>,
    latencies: Durations,
    points: Vec<Point>,
    interval_ns: u64,
    bar: ProgressBar,
    goal: Goal,
    /// When the next line is due; none: there is a bar.
    next_line_ns: Option<u64>,
}

/// What the progress bar shows.
#[derive(Debug, Clone, Copy)]
enum Goal {
    Open,
    Pushed,
    Time,
}

impl Watch {
    /// Begins to watch a server, if its process is known.
    pub fn begin(pid: Option<u32>) -> Watch {
        let now = now_ns();
        Watch {
            pid,
            started_ns: now,
            last_ns: now,
            last_received: 0,
            last_cpu: pid.and_then(|pid| CpuTimes::of_process(pid).ok()),
            latencies: Durations::coarse(),
            points: Vec::new(),
            interval_ns: POINT_NS,
            bar: ProgressBar::hidden(),
            goal: Goal::Time,
            next_line_ns: (!stderr().is_terminal()).then_some(now + LINE_NS),
        }
    }

    /// The bar counts open clients from now on.
    pub fn show_opening(&mut self, what: &str, clients: u32) {
        self.show(what, u64::from(clients), Goal::Open);
    }

    /// The bar counts publications from now on.
    pub fn show_pushing(&mut self, what: &str, publications: u64) {
        self.show(what, publications, Goal::Pushed);
    }

    /// So many publications have left.
    pub fn set_pushed(&self, publications: u64) {
        self.bar.set_position(publications);
    }

    /// The bar counts tenths of seconds from now on.
    pub fn show_time(&mut self, what: &str, seconds: f64) {
        self.show(what, (seconds * 10.0) as u64, Goal::Time);
    }

    fn show(&mut self, what: &str, length: u64, goal: Goal) {
        self.bar.finish_and_clear();
        let style = ProgressStyle::with_template("{msg:28} [{bar:32}] {human_pos}/{human_len} {per_sec} {elapsed}");
        self.bar = ProgressBar::new(length)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "))
            .with_message(what.to_owned());
        self.goal = goal;
    }

    /// The server is gone: watches the clients alone.
    pub fn forget_server(&mut self) {
        self.pid = None;
    }

    /// Latencies that a worker has reported.
    pub fn record_latencies(&mut self, latencies: &Pairs) {
        self.latencies.add_pairs(latencies);
    }

    /// Looks at the server, if it is time to.
    ///
    /// # Errors
    /// If the server is gone.
    pub fn observe(&mut self, connections: u32, received: u64) -> Result<()> {
        match self.goal {
            Goal::Open => self.bar.set_position(u64::from(connections)),
            Goal::Pushed => {}
            Goal::Time => self.bar.set_position(self.bar.elapsed().as_millis() as u64 / 100),
        }
        let now = now_ns();
        if let Some(next_ns) = self.next_line_ns.as_mut().filter(|next_ns| now >= **next_ns) {
            *next_ns = now + LINE_NS;
            eprintln!("{}", self.line(connections, received));
        }
        if now < self.last_ns + self.interval_ns {
            return Ok(());
        }
        let point = self.point(now, connections, received)?;
        self.points.push(point);
        if self.points.len() >= POINTS_MAX {
            let mut index = 0;
            self.points.retain(|_| {
                index += 1;
                index % 2 == 0
            });
            self.interval_ns *= 2;
        }
        Ok(())
    }

    /// Looks whether the server is still there, whatever the time.
    ///
    /// # Errors
    /// If the server is gone.
    pub fn check_server(&self) -> Result<()> {
        self.pid.map_or(Ok(()), |pid| server_resident_bytes(pid).map(|_| ()))
    }

    fn line(&self, connections: u32, received: u64) -> String {
        let resident = self.points.last().and_then(|point| point.resident_bytes);
        let resident = resident.map(|bytes| format!(", server {} MB", bytes / 1_000_000)).unwrap_or_default();
        let seconds = self.bar.elapsed().as_secs();
        format!("{}: {connections} clients, {received} messages{resident}, {seconds} s", self.bar.message())
    }

    fn point(&mut self, now_ns: u64, connections: u32, received: u64) -> Result<Point> {
        let seconds = Duration::from_nanos(now_ns - self.last_ns).as_secs_f64();
        let (mut resident_bytes, mut cores_busy) = (None, None);
        if let Some(pid) = self.pid {
            resident_bytes = Some(server_resident_bytes(pid)?);
            let cpu = CpuTimes::of_process(pid).or_else(|_| gone(pid))?;
            let used_ns = self.last_cpu.as_ref().map(|last| cpu.since_ns(last));
            cores_busy = used_ns.map(|ns| ns as f64 / SECOND_NS as f64 / seconds);
            self.last_cpu = Some(cpu);
        }
        let latency = self.latencies.summary();
        self.latencies.clear();
        // After a mark the count begins anew.
        let messages = received.checked_sub(self.last_received).unwrap_or(received) as f64;
        self.last_ns = now_ns;
        self.last_received = received;
        Ok(Point {
            seconds: Duration::from_nanos(now_ns - self.started_ns).as_secs_f64(),
            connections,
            messages_per_second: messages / seconds,
            resident_bytes,
            cores_busy,
            latency_p50_us: latency.map(|latency| latency.p50_us),
            latency_p99_us: latency.map(|latency| latency.p99_us),
            latency_max_us: latency.map(|latency| latency.max_us),
        })
    }

    /// Ends the bar; the points so far.
    pub fn end(self) -> Vec<Point> {
        self.bar.finish_and_clear();
        self.points
    }
}

/// A process that has ended but is not yet waited for has no memory any more.
fn server_resident_bytes(pid: u32) -> Result<u64> {
    user_memory::resident_bytes(pid).map_or_else(|| gone(pid), Ok)
}

fn gone<T>(pid: u32) -> Result<T> {
    bail!("the server (process {pid}) is gone")
}
