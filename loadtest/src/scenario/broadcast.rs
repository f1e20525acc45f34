//! `broadcast`: everybody subscribes to a channel, a producer publishes to it.

use anyhow::{Context, Result};

use super::delivery::{self, Delivery};
use crate::{
    arguments::{BroadcastArguments, CommonArguments, PublicationArguments},
    dialect::Dialect,
    fleet::Fleet,
    floor_process::FloorProcess,
    metrics::Metrics,
    producer::{Addressees, Pace, RespProducer},
    report::{Goal, Report},
    stamp::Stamp,
    target::{self, Target},
    watch::Watch,
    websocket::{Opcode, server_frame},
};

const CPU: &str = "CPU per delivered message";
const SHARD_CPU: &str = "CPU per delivered message, shard threads";
const LAST_P99: &str = "last client's latency, p99";
const RATE: &str = "messages delivered per second";

/// Runs the scenario; the report has what was found even if it fails half-way.
///
/// # Errors
/// If something went wrong that ends the measurement.
pub fn run(arguments: &BroadcastArguments, target: &Target, report: &mut Report) -> Result<()> {
    set_goals(arguments, report);
    let BroadcastArguments { common, publications } = arguments;
    let mut frame = server_frame(Opcode::Text, &usual_message(common, publications));
    if !common.floor_only {
        frame = measure_server(arguments, target, report)?.unwrap_or(frame);
    }
    if common.floor || common.floor_only {
        measure_floor(arguments, target, frame, report).context("the floor")?;
    }
    Ok(())
}

fn set_goals(arguments: &BroadcastArguments, report: &mut Report) {
    // A burst's sends are coalesced: a message is cheap, and what is beside the send weighs more.
    let ratio = if arguments.publications.burst == 1 { 1.05 } else { 1.10 };
    report.set_goal(CPU, "us", Goal::Ratio(ratio));
    if arguments.publications.burst == 1 {
        report.set_goal(LAST_P99, "us", Goal::Ratio(1.2));
    }
}

/// Measures the server; gives back the frame in which it sent a publication.
fn measure_server(arguments: &BroadcastArguments, target: &Target, report: &mut Report) -> Result<Option<Vec<u8>>> {
    let BroadcastArguments { common, publications } = arguments;
    let mut watch = Watch::begin(target.pid);
    let result = (|| {
        let mut producer = RespProducer::connect(
            publications.ingest,
            publications.ingest_password.as_deref(),
            Addressees::Channels(target::channel_names(common)),
            publications.payload_bytes as usize,
        )?;
        let plans = target.plans(common, &target::dialect(common), false)?;
        let mut fleet = Fleet::start(plans, common.patience_seconds)?;
        watch.show_opening("opening clients", common.connections);
        fleet.open(true, &mut watch)?;
        let before = Metrics::fetch(publications.metrics);
        let receivers = receivers(common);
        let (warmup, pace) = paces(publications);
        let delivery =
            delivery::measure(&mut fleet, &mut watch, &mut producer, &receivers, &warmup, &pace, target.pid)?;
        record_server(&delivery, &pace, report);
        if let (Some(before), Some(after)) = (before, Metrics::fetch(publications.metrics)) {
            record_system_calls(&before, &after, report);
        }
        fleet.close(&mut watch)?;
        Ok(delivery.findings.sample_frame)
    })();
    report.points = watch.end();
    result
}

fn measure_floor(arguments: &BroadcastArguments, target: &Target, frame: Vec<u8>, report: &mut Report) -> Result<()> {
    let BroadcastArguments { common, publications } = arguments;
    let core = target.floor_core();
    let mut floor = FloorProcess::start(core, common.connections, frame)?;
    let bare = target.floor(floor.address(), floor.pid());
    let mut watch = Watch::begin(bare.pid);
    let result = (|| {
        // The floor's loop knows one stream only, that of all its sockets.
        let plans = bare.plans(common, &Dialect::Bare, false)?;
        let plans = plans.into_iter().map(|plan| crate::link::Plan { streams: 1, ..plan }).collect();
        let mut fleet = Fleet::start(plans, common.patience_seconds)?;
        watch.show_opening("the floor: opening", common.connections);
        fleet.open(true, &mut watch)?;
        floor.await_accepted()?;
        let clients = u64::from(common.connections);
        let (warmup, pace) = paces(publications);
        let delivery =
            delivery::measure(&mut fleet, &mut watch, &mut floor, &move |_| clients, &warmup, &pace, bare.pid)?;
        record_floor(&delivery, &pace, report);
        fleet.close(&mut watch)
    })();
    report.floor_points = watch.end();
    result
}

fn paces(publications: &PublicationArguments) -> (Pace, Pace) {
    let pace = |seconds| Pace::of_seconds(publications.rate, publications.burst, seconds);
    (pace(publications.warmup_seconds), pace(publications.seconds))
}

/// Clients are spread over channels in turn.
fn receivers(common: &CommonArguments) -> impl Fn(usize) -> u64 + use<> {
    let (clients, channels) = (u64::from(common.connections), u64::from(common.channels));
    move |stream| clients / channels + u64::from((stream as u64) < clients % channels)
}

fn record_server(delivery: &Delivery, pace: &Pace, report: &mut Report) {
    let seconds = pace.instants as f64 / pace.rate;
    report.set_server("messages delivered", "", delivery.findings.received as f64);
    report.set_server(RATE, "1/s", delivery.findings.received as f64 / seconds);
    if let Some(cpu) = delivery.cpu_us_per_message() {
        report.set_server(CPU, "us", cpu);
    }
    if let Some(cpu) = delivery.cpu_us_per_message_of("shard-") {
        report.set_server(SHARD_CPU, "us", cpu);
    }
    if let Some(last) = delivery.findings.last_client {
        report.set_server(LAST_P99, "us", last.p99_us as f64);
    }
    report.set_server("latest publication's departure", "us late", delivery.pushed.late_us_max as f64);
    report.add_distribution("server: subscribed after", delivery.findings.setup);
    report.add_distribution("server: every message", delivery.findings.latency);
    report.add_distribution("server: last client", delivery.findings.last_client);
    report.threads.clone_from(&delivery.threads);
    report.add_faults("server", &delivery.findings.faults);
}

fn record_floor(delivery: &Delivery, pace: &Pace, report: &mut Report) {
    let seconds = pace.instants as f64 / pace.rate;
    report.set_floor("messages delivered", "", delivery.findings.received as f64);
    report.set_floor(RATE, "1/s", delivery.findings.received as f64 / seconds);
    if let Some(cpu) = delivery.cpu_us_per_message() {
        report.set_floor(CPU, "us", cpu);
        report.set_floor(SHARD_CPU, "us", cpu);
    }
    let mut loops = crate::statistics::Durations::new();
    delivery.pushed.loops_us.iter().for_each(|&loop_us| loops.record_us(loop_us));
    if let Some(loops) = loops.summary() {
        report.set_floor(LAST_P99, "us", loops.p99_us as f64);
        report.add_distribution("floor: the loop itself", Some(loops));
    }
    report.set_floor("sends that found a full socket", "", delivery.pushed.repeated as f64);
    report.add_distribution("floor: every message", delivery.findings.latency);
    report.add_distribution("floor: last client", delivery.findings.last_client);
    report.add_faults("floor", &delivery.findings.faults);
}

fn record_system_calls(before: &Metrics, after: &Metrics, report: &mut Report) {
    let messages = after.since(before, "tidegate_messages_sent_total");
    if messages > 0.0 {
        let per_message = |name| after.since(before, name) / messages;
        report.set_server("io_uring_enter calls per message", "", per_message("tidegate_io_uring_enters_total"));
        report.set_server("sends per message", "", per_message("tidegate_io_uring_sends_total"));
    }
}

/// A publication as the Centrifuge protocol has it, where the server sent none that could be copied.
fn usual_message(common: &CommonArguments, publications: &PublicationArguments) -> Vec<u8> {
    let payload = Stamp { stream: 0, sequence: 0, intended_ns: 0 }.payload(publications.payload_bytes as usize);
    let channel = target::channel_names(common).swap_remove(0);
    format!(r#"{{"push":{{"channel":"{channel}","pub":{{"data":{}}}}}}}"#, String::from_utf8_lossy(&payload))
        .into_bytes()
}
