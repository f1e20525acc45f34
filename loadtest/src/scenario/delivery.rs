//! Pushes publications and waits for them at the clients: the measured part of every scenario with messages.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread::ScopedJoinHandle,
};

use anyhow::{Context, Result, anyhow};

use super::stage::Stage;
use crate::{
    fleet::Findings,
    pace::{Pace, Pushed},
    proc::cpu::NamedTime,
    producer::Source,
    stream::{Positions, Stream},
};

/// A source and its timetables.
pub struct Feed<'a> {
    /// Who pushes.
    pub source: &'a mut dyn Source,
    /// Before the measurement.
    pub warmup: Pace,
    /// While it lasts.
    pub pace: Pace,
}

/// What was measured while publications were pushed.
#[derive(Debug, Default)]
pub struct Delivery {
    /// What clients counted.
    pub findings: Findings,
    /// What the sources did.
    pub pushed: Pushed,
    /// CPU nanoseconds of the server, all threads.
    pub cpu_ns: Option<u64>,
    /// The same by thread.
    pub threads: Vec<NamedTime>,
    /// What ended it early: then the findings are those so far, and nothing is said of CPU.
    pub failure: Option<anyhow::Error>,
}

impl Delivery {
    /// CPU microseconds of the server per delivered message.
    pub fn cpu_us_per_message(&self) -> Option<f64> {
        per_message(self.cpu_ns?, self.findings.received)
    }

    /// The same, of threads whose name begins so.
    pub fn cpu_us_per_message_of(&self, prefix: &str) -> Option<f64> {
        let mut named = self.threads.iter().filter(|thread| thread.name.starts_with(prefix)).peekable();
        named.peek()?;
        per_message(named.map(|thread| thread.ns).sum(), self.findings.received)
    }
}

fn per_message(ns: u64, messages: u64) -> Option<f64> {
    (messages > 0).then(|| ns as f64 / 1000.0 / messages as f64)
}

/// How many clients are sure to receive a publication.
pub type Receivers<'a> = dyn Fn(Stream) -> u64 + 'a;

/// Warms up, then pushes at the pace and measures.
///
/// # Errors
/// If the server refuses, drops a client, or goes away before the measurement has begun. What goes
/// wrong later is told beside the findings.
pub fn measure(stage: &mut Stage, feeds: &mut [Feed<'_>], receivers: &Receivers<'_>) -> Result<Delivery> {
    push(stage, feeds, receivers, "warming up", |feed| feed.warmup)?;
    measure_warm(stage, feeds, receivers, "delivering")
}

/// The same without warming up.
///
/// # Errors
/// As [`measure`].
pub fn measure_warm(
    stage: &mut Stage,
    feeds: &mut [Feed<'_>],
    receivers: &Receivers<'_>,
    what: &str,
) -> Result<Delivery> {
    stage.fleet.mark(&mut stage.watch)?;
    let before = stage.cpu();
    let pushed = match push(stage, feeds, receivers, what, |feed| feed.pace) {
        Ok(pushed) => pushed,
        Err(failure) => {
            let findings = stage.fleet.collect_remains(&mut stage.watch).unwrap_or_default();
            return Ok(Delivery { findings, failure: Some(failure), ..Delivery::default() });
        }
    };
    let times = before.zip(stage.cpu());
    let findings = stage.fleet.collect(&positions(feeds), &mut stage.watch)?;
    Ok(Delivery {
        findings,
        pushed,
        cpu_ns: times.as_ref().map(|(before, after)| after.since_ns(before)),
        threads: times.map(|(before, after)| after.since_by_name(&before)).unwrap_or_default(),
        failure: None,
    })
}

/// How far the streams of all feeds are.
pub fn positions(feeds: &[Feed<'_>]) -> Positions {
    feeds.iter().fold(Positions::default(), |positions, feed| positions.merge(feed.source.positions()))
}

/// Pushes at the pace, and waits until all has arrived that will.
///
/// # Errors
/// If the server refuses, drops a client, or goes away.
pub fn push(
    stage: &mut Stage,
    feeds: &mut [Feed<'_>],
    receivers: &Receivers<'_>,
    what: &str,
    pace: fn(&Feed<'_>) -> Pace,
) -> Result<Pushed> {
    stage.watch.show_pushing(what, feeds.iter().map(|feed| pace(feed).publications()).sum());
    push_while(stage, feeds, receivers, pace, |stage, pushing| {
        while !pushing.has_ended() {
            stage.watch.set_pushed(pushing.published.load(Relaxed));
            stage.wait(0.05)?;
        }
        Ok(())
    })
}

/// Sources at work.
pub struct Pushing<'scope> {
    published: &'scope AtomicU64,
    threads: Vec<ScopedJoinHandle<'scope, Result<Pushed>>>,
}

impl Pushing<'_> {
    /// Whether all have kept their timetables to the end, or failed.
    pub fn has_ended(&self) -> bool {
        self.threads.iter().all(|thread| thread.is_finished())
    }
}

/// Pushes at the pace while a part is played, and no longer; then waits until all has arrived that will.
///
/// # Errors
/// If the part fails, or the server refuses, drops a client, or goes away.
pub fn push_while(
    stage: &mut Stage,
    feeds: &mut [Feed<'_>],
    receivers: &Receivers<'_>,
    pace: fn(&Feed<'_>) -> Pace,
    part: impl FnOnce(&mut Stage, &Pushing<'_>) -> Result<()>,
) -> Result<Pushed> {
    let before = positions(feeds);
    let base = stage.fleet.received();
    let (published, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let pushed = std::thread::scope(|scope| {
        let threads = feeds
            .iter_mut()
            .map(|feed| {
                let (pace, published, stop) = (pace(feed), &published, &stop);
                scope.spawn(move || feed.source.push(&pace, published, stop))
            })
            .collect();
        let pushing = Pushing { published: &published, threads };
        let mut attended = part(stage, &pushing);
        stop.store(true, Relaxed);
        let mut all = Ok(Pushed::default());
        for thread in pushing.threads {
            let pushed = thread.join().map_err(|_| anyhow!("a producer's thread panicked")).flatten();
            all = all.and_then(|all| pushed.map(|pushed| all.merge(pushed)));
        }
        if attended.is_ok() && all.is_err() {
            attended = stage.wait(0.5);
        }
        // What happened to the server and its clients says more than what the producers saw of it.
        attended.and(all).with_context(|| format!("after {} publications", published.load(Relaxed)))
    })?;
    let expected = positions(feeds).deliveries_since(&before, receivers);
    stage.fleet.await_received(base + expected, &mut stage.watch)?;
    Ok(pushed)
}
