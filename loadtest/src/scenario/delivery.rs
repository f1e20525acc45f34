//! Pushes publications and waits for them at the clients: the measured part of every scenario with messages.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};

use crate::{
    fleet::{Findings, Fleet},
    proc::cpu::{CpuTimes, NamedTime},
    producer::{Pace, Pushed, Source},
    watch::Watch,
};

/// What was measured while publications were pushed.
#[derive(Debug, Clone, Default)]
pub struct Delivery {
    /// What clients counted.
    pub findings: Findings,
    /// What the source did.
    pub pushed: Pushed,
    /// CPU nanoseconds of the server, all threads.
    pub cpu_ns: Option<u64>,
    /// The same by thread.
    pub threads: Vec<NamedTime>,
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

/// How many clients receive a publication of this stream.
pub type Receivers = dyn Fn(usize) -> u64;

/// Warms up, then pushes at the pace and measures.
///
/// # Errors
/// If the server refuses, drops a client, or goes away.
pub fn measure(
    fleet: &mut Fleet,
    watch: &mut Watch,
    source: &mut dyn Source,
    receivers: &Receivers,
    warmup: &Pace,
    pace: &Pace,
    pid: Option<u32>,
) -> Result<Delivery> {
    push(fleet, watch, source, receivers, warmup, "warming up")?;
    fleet.mark(watch)?;
    let before = pid.and_then(|pid| CpuTimes::of_process(pid).ok());
    let pushed = push(fleet, watch, source, receivers, pace, "delivering")?;
    let after = pid.and_then(|pid| CpuTimes::of_process(pid).ok());
    let findings = fleet.collect(source.last_sequences(), watch)?;
    let times = before.zip(after);
    Ok(Delivery {
        findings,
        pushed,
        cpu_ns: times.as_ref().map(|(before, after)| after.since_ns(before)),
        threads: times.map(|(before, after)| after.since_by_name(&before)).unwrap_or_default(),
    })
}

/// Pushes at the pace, and waits until all has arrived that will.
fn push(
    fleet: &mut Fleet,
    watch: &mut Watch,
    source: &mut dyn Source,
    receivers: &Receivers,
    pace: &Pace,
    what: &str,
) -> Result<Pushed> {
    let before = source.last_sequences().to_vec();
    let base = fleet.received();
    let (published, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    watch.show_receiving(what, base + pace.publications() * receivers(0));
    let pushed = std::thread::scope(|scope| {
        let pushing = scope.spawn(|| source.push(pace, &published, &stop));
        let mut attended = Ok(());
        while !pushing.is_finished() && attended.is_ok() {
            attended = fleet.attend_for(0.05, watch);
        }
        stop.store(true, Relaxed);
        let pushed = pushing.join().map_err(|_| anyhow!("the producer's thread panicked"))?;
        // What happened to clients says more than what the producer saw of it.
        attended.with_context(|| format!("after {} publications", published.load(Relaxed)))?;
        pushed
    })?;
    let expected = before.iter().zip(source.last_sequences()).enumerate();
    let expected: u64 = expected.map(|(stream, (before, after))| (after - before) * receivers(stream)).sum();
    fleet.await_received(base + expected, watch)?;
    // CPU accounts of a running thread are brought up to date by its next tick.
    std::thread::sleep(Duration::from_millis(10));
    Ok(pushed)
}
