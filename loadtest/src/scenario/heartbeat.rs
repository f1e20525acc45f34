//! `heartbeat`: clients of a server that pings often; what does a ping with its pong cost?
//!
//! The floor pings the same number of clients at the pace that the server was found to keep, by one
//! send() and one recv() each (see `floor_heartbeat`): once with epoll to say which pongs have come,
//! which is what the goal is judged by, and once without asking anybody.

use anyhow::{Context, Result, ensure};

use super::stage::Stage;
use crate::{
    arguments::HeartbeatArguments,
    clock::{SECOND_NS, now_ns},
    floor_process::FloorProcess,
    link::{FloorAddressees, FloorBeat, Reading},
    report::{CONNECTIONS, Goal, Report},
    stream::Positions,
    target::Target,
};

const CPU: &str = "CPU per heartbeat (ping out, pong in)";
const UNASKED_CPU: &str = "CPU per heartbeat, beside send() and recv() without epoll";
const COUNT: &str = "heartbeats";
const PER_CLIENT: &str = "heartbeats per client and second";

/// The pace of a floor that is measured alone, in heartbeats per client and second.
const USUAL_PACE: f64 = 1.0;

/// Runs the scenario; the report has what was found even if it fails half-way.
///
/// # Errors
/// If something went wrong that ends the measurement.
pub fn run(arguments: &HeartbeatArguments, target: &Target, report: &mut Report) -> Result<()> {
    report.set_goal(CPU, "us", Goal::Ratio(1.15));
    let common = &arguments.common;
    let mut pace = USUAL_PACE;
    if !common.floor_only {
        pace = measure_server(arguments, target, report)?;
    }
    if common.floor || common.floor_only {
        measure_floor(arguments, target, pace, report).context("the floor")?;
    }
    Ok(())
}

/// Measures the server; gives back how often it pings a client per second.
fn measure_server(arguments: &HeartbeatArguments, target: &Target, report: &mut Report) -> Result<f64> {
    let stage = Stage::server(target, &arguments.common, Reading::default())?;
    let clients = f64::from(arguments.common.connections);
    let mut points = Vec::new();
    let result = stage.play(&mut points, |stage| {
        stage.open("opening clients", true, &Positions::default())?;
        report.set_server(CONNECTIONS, "", clients);
        stage.watch.show_time("warming up", arguments.warmup_seconds);
        stage.wait(arguments.warmup_seconds)?;
        stage.fleet.mark(&mut stage.watch)?;
        let (started_ns, before) = (now_ns(), stage.cpu());
        stage.watch.show_time("counting heartbeats", arguments.seconds);
        stage.wait(arguments.seconds)?;
        let (ended_ns, after) = (now_ns(), stage.cpu());
        let findings = stage.fleet.collect(&Positions::default(), &mut stage.watch)?;
        let heartbeats = findings.pings as f64;
        let pace = heartbeats / clients / ((ended_ns - started_ns) as f64 / SECOND_NS as f64);
        report.set_server(COUNT, "", heartbeats);
        report.set_server(PER_CLIENT, "1/s", pace);
        report.add_faults("server", &findings.faults);
        ensure!(
            heartbeats >= 2.0 * clients,
            "{heartbeats} pings for {clients} clients are too few: the server must ping more often \
             (client.ping_interval), or --seconds be more"
        );
        if let Some((before, after)) = before.zip(after) {
            let cpu_us = after.since_ns(&before) as f64 / 1000.0 / heartbeats;
            report.set_server(CPU, "us", cpu_us);
            report.set_server(UNASKED_CPU, "us", cpu_us);
            report.threads = after.since_by_name(&before);
        }
        Ok(pace)
    });
    report.points = points;
    result
}

fn measure_floor(arguments: &HeartbeatArguments, target: &Target, pace: f64, report: &mut Report) -> Result<()> {
    let (stage, mut floor) =
        Stage::floor(target, &arguments.common, Vec::new(), FloorAddressees::All, Reading::default())?;
    let mut points = Vec::new();
    let result = stage.play(&mut points, |stage| {
        stage.open("the floor: opening", true, &Positions::default())?;
        floor.await_accepted()?;
        report.set_floor(CONNECTIONS, "", f64::from(arguments.common.connections));
        for (figure, asks_readiness) in [(CPU, true), (UNASKED_CPU, false)] {
            beat(stage, &mut floor, pace, arguments.warmup_seconds, asks_readiness)?;
            stage.fleet.mark(&mut stage.watch)?;
            let before = stage.cpu();
            let heartbeats = beat(stage, &mut floor, pace, arguments.seconds, asks_readiness)?;
            let cpu_us = stage.cpu_us_since(before.as_ref());
            let findings = stage.fleet.collect(&Positions::default(), &mut stage.watch)?;
            ensure!(findings.pings == heartbeats, "{heartbeats} pongs, but {} pings", findings.pings);
            if let Some(cpu_us) = cpu_us {
                report.set_floor(figure, "us", cpu_us / heartbeats as f64);
            }
            report.set_floor(COUNT, "", heartbeats as f64);
            report.set_floor(PER_CLIENT, "1/s", pace);
        }
        Ok(())
    });
    report.floor_points = points;
    result
}

/// Lets the floor's server ping for so long; how many were answered.
fn beat(stage: &mut Stage, floor: &mut FloorProcess, pace: f64, seconds: f64, asks_readiness: bool) -> Result<u64> {
    stage.watch.show_time("the floor: heartbeats", seconds);
    floor.beat(FloorBeat {
        start_ns: now_ns(),
        interval_ns: (SECOND_NS as f64 / pace) as u64,
        rounds: ((seconds * pace).round() as u64).max(1),
        asks_readiness,
    })?;
    stage.wait(seconds)?;
    floor.await_beaten()
}
