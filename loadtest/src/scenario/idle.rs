//! `idle`: everybody connects, subscribes and waits, answering pings.
//!
//! Kernel memory is one account for the whole machine, so the client's end of each connection is in
//! it too. The floor tells it apart: its clients first wait without a reader, so that both ends are
//! alike (but for the client's port) and half of the growth is one bare socket; then readers begin,
//! which shows what the client's waiting costs; the same is taken off the server's figure.
//!
//! Some clients come before the measurement and stay: what the server does for its first client only
//! (code that is loaded, tables that are made) is no price of a connection.
//!
//! With `--broadcast` the clients show at the end that they are there: each must get a publication.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{
    delivery::{self, Feed},
    stage::Stage,
};
use crate::{
    arguments::IdleArguments,
    composer::Composer,
    fleet::Fleet,
    link::{FloorAddressees, Reading},
    pace::Pace,
    proc::{
        kernel_memory::{KernelGrowth, KernelMemory},
        sockets,
        user_memory::UserMemory,
    },
    producer::{self, Addressees},
    report::{CONNECTIONS, Goal, MEMORY, Report, USER_MEMORY},
    stream::{Positions, Stream},
    target::{self, Target},
};

const SETUP_CPU: &str = "CPU per client opened";
const SETUP_RATE: &str = "clients opened per second";
const PSS: &str = "user memory per connection, PSS";
const BOTH_ENDS: &str = "kernel memory per connection, both ends";
const KERNEL: &str = "kernel memory per connection, server's end";

/// The server's memory budget of an idle connection, in bytes.
const USER_BYTES_MAX: f64 = 120.0;

const OUTSIDE_SLABS: &str = "kernel memory outside slabs per connection, both ends";

/// Clients that come before the measurement.
const FIRST_CLIENTS: u32 = 64;

/// Time for the kernel to free what closed sockets leave behind (RCU, deferred work).
const SETTLE_SECONDS: f64 = 2.0;

/// One socket of somebody else's among so many connections does not matter.
const SOCKETS_PER_STRANGER: u64 = 100;

/// Bytes of a broadcast's payload.
const PAYLOAD_BYTES: usize = 128;

/// Publications per second of a broadcast to several channels.
const BROADCAST_RATE: f64 = 1000.0;

/// Runs the scenario; the report has what was found even if it fails half-way.
///
/// # Errors
/// If something went wrong that ends the measurement.
pub fn run(arguments: &IdleArguments, target: &Target, report: &mut Report) -> Result<()> {
    report.set_goal(SETUP_CPU, "us", Goal::Ratio(2.0));
    report.set_goal(USER_MEMORY, "B", Goal::Value(USER_BYTES_MAX));
    report.set_goal(MEMORY, "B", Goal::Ratio(1.10));
    let common = &arguments.common;
    let server = if common.floor_only { None } else { Some(measure_server(arguments, target, report)?) };
    if common.floor || common.floor_only {
        await_sockets_gone(common.connections);
        let floor = measure_floor(arguments, target, report).context("the floor")?;
        if let Some(floor) = floor {
            record_distance(server.as_ref(), &floor, report);
        }
    }
    Ok(())
}

/// The kernel's account is the machine's: what it says of connections holds only if no others came or went meanwhile.
fn is_undisturbed(who: &str, before: Option<u64>, connections: u64, report: &mut Report) -> bool {
    let Some((before, now)) = before.zip(sockets::tcp_sockets()) else { return true };
    let came = now as i64 - before as i64;
    let expected = 2 * connections as i64;
    let is_undisturbed = came.abs_diff(expected) <= connections / SOCKETS_PER_STRANGER;
    if !is_undisturbed {
        report.problems.push(format!(
            "{who}: {came} sockets came, not {expected}: something else on this machine opens or closes connections, \
             and nothing can be said of kernel memory: measure again without it"
        ));
    }
    is_undisturbed
}

/// Waits until the server has let go of the clients that have left: as long as sockets go.
fn await_sockets_gone(connections: u32) {
    let mut before = sockets::tcp_sockets();
    loop {
        std::thread::sleep(Duration::from_secs_f64(SETTLE_SECONDS));
        let now = sockets::tcp_sockets();
        let gone = before.zip(now).map_or(0, |(before, now)| before.saturating_sub(now));
        // Less than one in a thousand: others on the machine have sockets too.
        if gone <= u64::from(connections) / 1000 {
            return;
        }
        before = now;
    }
}

/// What one server's clients cost, per connection.
struct Memory {
    user: Option<f64>,
    /// None if others on the machine spoiled the account.
    kernel: Option<KernelGrowth>,
}

struct FloorMemory {
    /// Both ends without a reader.
    waiting: KernelGrowth,
    /// Both ends, the client's with a reader.
    attended: KernelGrowth,
}

fn measure_server(arguments: &IdleArguments, target: &Target, report: &mut Report) -> Result<Memory> {
    let stage = Stage::server(target, &arguments.common, Reading::default())?;
    let first_plans = target.plans_of_more(
        &arguments.common,
        &target::dialect(&arguments.common),
        FIRST_CLIENTS.min(arguments.common.connections),
    )?;
    let mut points = Vec::new();
    let result = stage.play(&mut points, |stage| {
        let clients = u64::from(arguments.common.connections);
        let mut first = Fleet::start(first_plans, arguments.common.patience_seconds)?;
        first.open(true, Some(&Positions::default()), &mut stage.watch)?;
        stage.wait(0.5)?;
        let user_before = stage.pid.map(UserMemory::of_process).transpose()?;
        let (kernel_before, sockets_before) = (KernelMemory::now()?, sockets::tcp_sockets());
        let setup = stage.open("opening clients", true, &Positions::default())?;
        report.set_server(CONNECTIONS, "", clients as f64);
        report.set_server(SETUP_RATE, "1/s", clients as f64 / setup.seconds);
        if let Some(cpu_us) = setup.cpu_us {
            report.set_server(SETUP_CPU, "us", cpu_us / clients as f64);
        }
        report.add_distribution("server: subscribed after", setup.durations);
        stage.wait(SETTLE_SECONDS)?;
        let kernel = KernelMemory::now()?.growth_per_connection(&kernel_before, clients);
        let kernel = is_undisturbed("server", sockets_before, clients, report).then_some(kernel);
        if let Some(kernel) = &kernel {
            report.set_server(BOTH_ENDS, "B", kernel.slab_bytes);
            report.set_server(OUTSIDE_SLABS, "B", kernel.other_bytes);
            report.caches.clone_from(&kernel.caches);
        }
        let user_after = stage.pid.map(UserMemory::of_process).transpose()?;
        let user = user_before.zip(user_after).map(|(before, after)| {
            let growth = |after: u64, before: u64| (after as f64 - before as f64) / clients as f64;
            report.set_server(USER_MEMORY, "B", growth(after.rss_bytes, before.rss_bytes));
            report.set_server(PSS, "B", growth(after.pss_bytes, before.pss_bytes));
            growth(after.rss_bytes, before.rss_bytes)
        });
        hold(arguments, stage, report)?;
        if arguments.broadcast {
            broadcast(arguments, stage, report)?;
        }
        Ok(Memory { user, kernel })
    });
    report.points = points;
    result
}

/// Holds the clients for a while: what do they cost though nothing happens?
fn hold(arguments: &IdleArguments, stage: &mut Stage, report: &mut Report) -> Result<()> {
    stage.fleet.mark(&mut stage.watch)?;
    let before = stage.cpu();
    stage.watch.show_time("holding clients", arguments.seconds);
    stage.wait(arguments.seconds)?;
    if let Some((before, after)) = before.zip(stage.cpu()) {
        let cpu_us = after.since_ns(&before) as f64 / 1000.0;
        report.set_server("CPU while idle, of one core", "%", cpu_us / arguments.seconds / 10_000.0);
        report.threads = after.since_by_name(&before);
    }
    let findings = stage.fleet.collect(&Positions::default(), &mut stage.watch)?;
    report.set_server("heartbeats meanwhile", "", findings.pings as f64);
    Ok(())
}

/// Publishes once in each channel; whoever does not get it is a fault.
fn broadcast(arguments: &IdleArguments, stage: &mut Stage, report: &mut Report) -> Result<()> {
    let common = &arguments.common;
    let addressees = Addressees::Channels(target::channel_names(common));
    let mut producer =
        producer::connect(common, &arguments.producer, addressees, Composer::Filler { bytes: PAYLOAD_BYTES })?;
    let pace = Pace { rate: BROADCAST_RATE, burst: 1, instants: u64::from(common.channels) };
    let mut feeds = [Feed { source: &mut *producer, warmup: pace, pace }];
    let receivers = |stream| match stream {
        Stream::Channel(channel) => common.subscribers(channel),
        Stream::User(_) => 0,
    };
    let delivery = delivery::measure_warm(stage, &mut feeds, &receivers, "broadcast")?;
    report.set_server("clients that got the broadcast", "", delivery.findings.received as f64);
    if let Some(cpu) = delivery.cpu_us_per_message() {
        report.set_server("CPU per client that got it", "us", cpu);
    }
    report.add_distribution("server: broadcast received after", delivery.findings.latency);
    report.add_distribution("server: by the last client after", delivery.findings.last_client);
    report.add_faults("server", &delivery.findings.faults);
    delivery.failure.map_or(Ok(()), Err)
}

/// Measures the floor; nothing is known of its memory if others on the machine spoiled the account.
fn measure_floor(arguments: &IdleArguments, target: &Target, report: &mut Report) -> Result<Option<FloorMemory>> {
    let (stage, mut floor) =
        Stage::floor(target, &arguments.common, Vec::new(), FloorAddressees::All, Reading::default())?;
    let mut points = Vec::new();
    let result = stage.play(&mut points, |stage| {
        let clients = u64::from(stage.fleet.clients());
        stage.wait(0.5)?;
        let (before, sockets_before) = (KernelMemory::now()?, sockets::tcp_sockets());
        let setup = stage.open("the floor: opening", false, &Positions::default())?;
        floor.await_accepted()?;
        report.set_floor(CONNECTIONS, "", clients as f64);
        report.set_floor(SETUP_RATE, "1/s", clients as f64 / setup.seconds);
        if let Some(cpu_us) = setup.cpu_us {
            report.set_floor(SETUP_CPU, "us", cpu_us / clients as f64);
        }
        report.add_distribution("floor: answered after", setup.durations);
        stage.wait(SETTLE_SECONDS)?;
        let waiting = KernelMemory::now()?.growth_per_connection(&before, clients);
        stage.fleet.attend(&mut stage.watch)?;
        stage.wait(1.0)?;
        let attended = KernelMemory::now()?.growth_per_connection(&before, clients);
        if !is_undisturbed("floor", sockets_before, clients, report) {
            return Ok(None);
        }
        report.set_floor(BOTH_ENDS, "B", attended.slab_bytes);
        report.set_floor(OUTSIDE_SLABS, "B", attended.other_bytes);
        report.floor_caches.clone_from(&attended.caches);
        Ok(Some(FloorMemory { waiting, attended }))
    });
    report.floor_points = points;
    result
}

fn record_distance(server: Option<&Memory>, floor: &FloorMemory, report: &mut Report) {
    let socket = (floor.waiting.slab_bytes - floor.waiting.connecting_end_bytes) / 2.0;
    report.set_floor(KERNEL, "B", socket);
    report.set_floor(MEMORY, "B", socket);
    let Some(Memory { user, kernel: Some(kernel) }) = server else { return };
    let beside = kernel.slab_bytes_beyond(&floor.attended);
    report.set_server(KERNEL, "B", socket + beside);
    if let Some(user) = user {
        report.set_server(MEMORY, "B", socket + beside + user);
    }
}
