//! `tidegate-loadtest`: what a push server costs per connection and per message, beside what the
//! kernel itself costs on the same machine.
//!
//! One coordinator (this process) tells worker processes what to do: each is one core, one ring and
//! a task per client. Producers are the coordinator's. With `--floor` another child process is a
//! bare server, measured by the same clients and the same code.
//!
//! Exit status: 0 if all was measured and every message arrived once and in order; 1 if not (the
//! report says how far it came); 2 if the command line is wrong.

mod arguments;
mod client;
mod clock;
mod composer;
mod cores;
mod dialect;
mod fleet;
mod floor;
mod floor_heartbeat;
mod floor_process;
mod inflate;
mod ledger;
mod link;
mod metrics;
mod pace;
mod payload;
mod proc;
mod producer;
mod report;
mod resp;
mod scenario;
mod sequence;
mod served;
mod socket;
mod stamp;
mod statistics;
mod stream;
mod target;
mod text_producer;
mod tls;
mod token;
mod turnstile;
mod watch;
mod websocket;
mod worker;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use arguments::{Arguments, BroadcastArguments, Command, CommonArguments, SlowArguments, SummaryArguments};
use link::Slow;
use proc::bystanders::Lookout;
use report::{Report, summary::Summary};
use scenario::publishing::{Kind, Publishing};
use served::Served;
use target::Target;

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Summary(arguments) => child(summarize(&arguments)),
        Command::Worker => child(worker::run()),
        Command::FloorServer => child(floor::run()),
        Command::Idle(arguments) => {
            measure("idle", &arguments.common, |target, report| scenario::idle::run(&arguments, target, report))
        }
        Command::Heartbeat(arguments) => measure("heartbeat", &arguments.common, |target, report| {
            scenario::heartbeat::run(&arguments, target, report)
        }),
        Command::Broadcast(arguments) => publish("broadcast", Kind::Broadcast, &arguments, None),
        Command::Routed(arguments) => publish("routed", Kind::Routed, &arguments, None),
        Command::Mixed(arguments) => publish("mixed", Kind::Mixed, &arguments, None),
        Command::Slow(SlowArguments { common, publications, slow_every, slow_bytes_per_second }) => {
            let slow = Slow { every: slow_every, bytes_per_second: slow_bytes_per_second };
            publish("slow", Kind::Broadcast, &BroadcastArguments { common, publications }, Some(slow))
        }
        Command::Storm(arguments) => {
            measure("storm", &arguments.common, |target, report| scenario::storm::run(&arguments, target, report))
        }
        Command::Churn(arguments) => {
            measure("churn", &arguments.common, |target, report| scenario::churn::run(&arguments, target, report))
        }
        Command::Ramp(arguments) => {
            measure("ramp", &arguments.common, |target, report| scenario::ramp::run(&arguments, target, report))
        }
    }
}

fn publish(scenario: &str, kind: Kind, arguments: &BroadcastArguments, slow: Option<Slow>) -> ExitCode {
    let BroadcastArguments { common, publications } = arguments;
    let publishing = Publishing { kind, common, publications, slow };
    measure(scenario, common, |target, report| publishing.run(target, report))
}

/// Puts the reports of several runs together.
fn summarize(arguments: &SummaryArguments) -> Result<()> {
    let summary = Summary::of(arguments)?;
    print!("{}", summary.table());
    summary.write(arguments.json.as_deref(), arguments.html.as_deref())
}

fn child(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate-loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a scenario and shows its report, whole or in part.
fn measure(scenario: &str, common: &CommonArguments, run: impl FnOnce(&Target, &mut Report) -> Result<()>) -> ExitCode {
    let mut report = Report::new(scenario);
    if let Some(title) = &common.title {
        report.title.clone_from(title);
    }
    let lookout = Lookout::begin();
    if let Err(error) = serve_and_run(common, &mut report, run) {
        report.problems.push(format!("{error:#}"));
    }
    report.bystanders = lookout.end();
    if common.gate {
        report.gate();
    }
    print!("{}", report.table());
    if let Err(error) = report.write(common.json.as_deref(), common.html.as_deref()) {
        eprintln!("tidegate-loadtest: the report cannot be written: {error:#}");
        return ExitCode::FAILURE;
    }
    if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn serve_and_run(
    common: &CommonArguments,
    report: &mut Report,
    run: impl FnOnce(&Target, &mut Report) -> Result<()>,
) -> Result<()> {
    let address = Target::find(common)?.address;
    let _served = common.serve.as_deref().map(|command| Served::start(command, address)).transpose()?;
    let target = Target::find(common)?;
    keep_off_server(&target, common)?;
    run(&target, report)
}

/// The coordinator and its producers run where workers run, not on the server's cores.
fn keep_off_server(target: &Target, common: &CommonArguments) -> Result<()> {
    let tester = target.tester_cores(common);
    if tester.is_empty() {
        eprintln!("tidegate-loadtest: the server's threads are pinned to every core; tester and server share them");
        return Ok(());
    }
    cores::pin(&tester)
}
