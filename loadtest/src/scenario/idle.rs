//! `idle`: everybody connects, subscribes and waits, answering pings.
//!
//! Kernel memory is one account for the whole machine, so the client's end of each connection is in
//! it too. The floor tells it apart: its clients first wait without a reader, so that both ends are
//! alike (but for the client's port) and half of the growth is one bare socket; then readers begin,
//! which shows what the client's waiting costs; the same is taken off the server's figure.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::{
    arguments::IdleArguments,
    dialect::Dialect,
    fleet::Fleet,
    floor_process::FloorProcess,
    proc::{
        cpu::CpuTimes,
        kernel_memory::{KernelGrowth, KernelMemory},
        user_memory::UserMemory,
    },
    report::{Goal, Report},
    target::{self, Target},
    watch::Watch,
};

const SETUP_CPU: &str = "CPU per client opened";
const SETUP_RATE: &str = "clients opened per second";
const RSS: &str = "user memory per connection, RSS";
const PSS: &str = "user memory per connection, PSS";
const BOTH_ENDS: &str = "kernel memory per connection, both ends";
const KERNEL: &str = "kernel memory per connection, server's end";
const TOTAL: &str = "memory per connection, user and kernel";
const HOLD_CPU: &str = "CPU per heartbeat";

/// Time for the kernel to free what closed sockets leave behind (RCU, deferred work).
const SETTLE: Duration = Duration::from_secs(2);

/// Runs the scenario; the report has what was found even if it fails half-way.
///
/// # Errors
/// If something went wrong that ends the measurement.
pub fn run(arguments: &IdleArguments, target: &Target, report: &mut Report) -> Result<()> {
    report.set_goal(SETUP_CPU, "us", Goal::Ratio(2.0));
    report.set_goal(RSS, "B", Goal::Value(120.0));
    report.set_goal(TOTAL, "B", Goal::Ratio(1.10));
    let common = &arguments.common;
    let server = if common.floor_only { None } else { Some(measure_server(arguments, target, report)?) };
    if common.floor || common.floor_only {
        std::thread::sleep(SETTLE);
        let floor = measure_floor(arguments, target, report).context("the floor")?;
        record_distance(server.as_ref(), &floor, report);
    }
    Ok(())
}

/// What one server's clients cost, per connection.
struct Memory {
    user: Option<f64>,
    kernel: KernelGrowth,
}

struct FloorMemory {
    /// Both ends without a reader.
    waiting: KernelGrowth,
    /// Both ends, the client's with a reader.
    attended: KernelGrowth,
}

fn measure_server(arguments: &IdleArguments, target: &Target, report: &mut Report) -> Result<Memory> {
    let common = &arguments.common;
    let clients = f64::from(common.connections);
    let mut watch = Watch::begin(target.pid);
    let result = (|| {
        let plans = target.plans(common, &target::dialect(common), false)?;
        let mut fleet = Fleet::start(plans, common.patience_seconds)?;
        fleet.attend_for(0.5, &mut watch)?;
        let user_before = target.pid.map(UserMemory::of_process).transpose()?;
        let kernel_before = KernelMemory::now()?;
        let setup = open(&mut fleet, &mut watch, target.pid, "opening clients", true)?;
        report.set_server("connections", "", clients);
        report.set_server(SETUP_RATE, "1/s", clients / setup.seconds);
        if let Some(cpu_us) = setup.cpu_us {
            report.set_server(SETUP_CPU, "us", cpu_us / clients);
        }
        fleet.attend_for(SETTLE.as_secs_f64(), &mut watch)?;
        let kernel = KernelMemory::now()?.growth_per_connection(&kernel_before, u64::from(common.connections));
        report.set_server(BOTH_ENDS, "B", kernel.slab_bytes);
        report.set_server("kernel memory outside slabs per connection, both ends", "B", kernel.other_bytes);
        report.caches.clone_from(&kernel.caches);
        let user_after = target.pid.map(UserMemory::of_process).transpose()?;
        let mut user = None;
        if let (Some(before), Some(after)) = (user_before, user_after) {
            let growth = |after: u64, before: u64| (after as f64 - before as f64) / clients;
            user = Some(growth(after.rss_bytes, before.rss_bytes));
            report.set_server(RSS, "B", growth(after.rss_bytes, before.rss_bytes));
            report.set_server(PSS, "B", growth(after.pss_bytes, before.pss_bytes));
        }
        hold(arguments, &mut fleet, &mut watch, target.pid, report)?;
        let findings = fleet.collect(&[], &mut watch)?;
        report.add_distribution("server: subscribed after", findings.setup);
        fleet.close(&mut watch)?;
        Ok(Memory { user, kernel })
    })();
    report.points = watch.end();
    result
}

/// Holds the clients for a while: what do heartbeats cost?
fn hold(
    arguments: &IdleArguments,
    fleet: &mut Fleet,
    watch: &mut Watch,
    pid: Option<u32>,
    report: &mut Report,
) -> Result<()> {
    let before = pid.and_then(|pid| CpuTimes::of_process(pid).ok());
    let pings = fleet.pings();
    watch.show_time("holding clients", arguments.seconds);
    fleet.attend_for(arguments.seconds, watch)?;
    let after = pid.and_then(|pid| CpuTimes::of_process(pid).ok());
    let pings = fleet.pings() - pings;
    if let (Some(before), Some(after)) = (before, after) {
        let cpu_us = after.since_ns(&before) as f64 / 1000.0;
        report.set_server("CPU while idle, of one core", "%", cpu_us / arguments.seconds / 10_000.0);
        report.threads = after.since_by_name(&before);
        // Fewer would tell more about everything else that the server does.
        if pings >= 1_000 {
            report.set_server(HOLD_CPU, "us", cpu_us / pings as f64);
        }
    }
    report.set_server("heartbeats", "", pings as f64);
    Ok(())
}

fn measure_floor(arguments: &IdleArguments, target: &Target, report: &mut Report) -> Result<FloorMemory> {
    let common = &arguments.common;
    let clients = u64::from(common.connections);
    let core = target.floor_core();
    let mut floor = FloorProcess::start(core, common.connections, Vec::new())?;
    let bare = target.floor(floor.address(), floor.pid());
    let mut watch = Watch::begin(bare.pid);
    let result = (|| {
        let plans = bare.plans(common, &Dialect::Bare, false)?;
        let mut fleet = Fleet::start(plans, common.patience_seconds)?;
        fleet.attend_for(0.5, &mut watch)?;
        let before = KernelMemory::now()?;
        let setup = open(&mut fleet, &mut watch, bare.pid, "the floor: opening", false)?;
        floor.await_accepted()?;
        report.set_floor("connections", "", clients as f64);
        report.set_floor(SETUP_RATE, "1/s", clients as f64 / setup.seconds);
        if let Some(cpu_us) = setup.cpu_us {
            report.set_floor(SETUP_CPU, "us", cpu_us / clients as f64);
        }
        fleet.attend_for(SETTLE.as_secs_f64(), &mut watch)?;
        let waiting = KernelMemory::now()?.growth_per_connection(&before, clients);
        fleet.attend(&mut watch)?;
        fleet.attend_for(1.0, &mut watch)?;
        let attended = KernelMemory::now()?.growth_per_connection(&before, clients);
        report.set_floor(BOTH_ENDS, "B", attended.slab_bytes);
        report.set_floor("kernel memory outside slabs per connection, both ends", "B", attended.other_bytes);
        report.floor_caches.clone_from(&attended.caches);
        let findings = fleet.collect(&[], &mut watch)?;
        report.add_distribution("floor: answered after", findings.setup);
        fleet.close(&mut watch)?;
        Ok(FloorMemory { waiting, attended })
    })();
    report.floor_points = watch.end();
    result
}

fn record_distance(server: Option<&Memory>, floor: &FloorMemory, report: &mut Report) {
    let socket = (floor.waiting.slab_bytes - floor.waiting.connecting_end_bytes) / 2.0;
    report.set_floor(KERNEL, "B", socket);
    report.set_floor(TOTAL, "B", socket);
    let Some(server) = server else { return };
    let beside = server.kernel.slab_bytes - floor.attended.slab_bytes;
    report.set_server(KERNEL, "B", socket + beside);
    if let Some(user) = server.user {
        report.set_server(TOTAL, "B", socket + beside + user);
    }
}

struct Setup {
    seconds: f64,
    /// CPU of the server, in microseconds.
    cpu_us: Option<f64>,
}

fn open(fleet: &mut Fleet, watch: &mut Watch, pid: Option<u32>, what: &str, attend: bool) -> Result<Setup> {
    let cpu = || pid.and_then(|pid| CpuTimes::of_process(pid).ok());
    let before = cpu();
    let started = std::time::Instant::now();
    watch.show_opening(what, fleet.clients());
    fleet.open(attend, watch)?;
    let seconds = started.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_millis(10));
    let cpu_us = before.zip(cpu()).map(|(before, after)| after.since_ns(&before) as f64 / 1000.0);
    Ok(Setup { seconds, cpu_us })
}
