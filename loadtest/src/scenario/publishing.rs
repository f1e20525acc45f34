//! `broadcast`, `routed`, `mixed`, `slow`: publications at a steady rate; what does a delivered
//! message cost, how long does it take, does every one arrive?

use anyhow::{Context, Result};

use super::{
    delivery::{self, Delivery, Feed},
    stage::Stage,
};
use crate::{
    arguments::{CommonArguments, PublicationArguments},
    dialect::Identity,
    fleet::Findings,
    link::{FloorAddressees, Reading, Slow},
    metrics::Metrics,
    pace::Pace,
    producer::{self, Addressees, Source},
    report::{CONNECTIONS, CPU_PER_MESSAGE, Goal, PLAIN_BYTES, Report, WIRE_BYTES, WIRE_SHARE},
    stamp::Stamp,
    statistics::Durations,
    stream::{Positions, Stream},
    target::{self, Target},
    websocket::{Opcode, server_frame},
};

const SHARD_CPU: &str = "CPU per delivered message, shard threads";
const LAST_ARRIVAL: &str = "last client's socket has it after, p99, beside the send() loop itself";
const LAST_P99: &str = "last client has received it after, p99";
const LAST_P50: &str = "last client has received it after, p50";
const BROADCASTS: &str = "broadcasts measured";
const AGREED: &str = "clients with which the server agreed on compression";
const COMPRESSED: &str = "messages that came compressed";
const DELIVERED: &str = "messages delivered";
const RATE: &str = "messages delivered per second";

/// To whom publications go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To channels that all clients subscribe to.
    Broadcast,
    /// Each to one user.
    Routed,
    /// Both at the same time, at the same rate each.
    Mixed,
}

/// A run of such a scenario.
pub struct Publishing<'a> {
    /// To whom publications go.
    pub kind: Kind,
    /// The command line.
    pub common: &'a CommonArguments,
    /// The command line.
    pub publications: &'a PublicationArguments,
    /// Clients that read slowly.
    pub slow: Option<Slow>,
}

impl Publishing<'_> {
    /// Runs the scenario; the report has what was found even if it fails half-way.
    ///
    /// # Errors
    /// If something went wrong that ends the measurement.
    pub fn run(&self, target: &Target, report: &mut Report) -> Result<()> {
        self.set_goals(report);
        let mut frame = server_frame(Opcode::Text, &self.usual_message());
        if !self.common.floor_only {
            frame = self.measure_server(target, report)?.unwrap_or(frame);
        }
        if self.common.floor || self.common.floor_only {
            self.measure_floor(target, frame, report).context("the floor")?;
        }
        Ok(())
    }

    fn set_goals(&self, report: &mut Report) {
        if let Some(percent_max) = self.publications.wire_percent_max {
            report.set_goal(WIRE_SHARE, "%", Goal::Value(percent_max));
        }
        // The floor compresses nothing.
        if self.kind != Kind::Broadcast || self.slow.is_some() || self.common.compression {
            return;
        }
        // A burst's sends are coalesced: a message is cheap, and what is beside the send weighs more.
        let ratio = if self.publications.burst == 1 { 1.05 } else { 1.10 };
        report.set_goal(CPU_PER_MESSAGE, "us", Goal::Ratio(ratio));
        if self.publications.burst == 1 {
            report.set_goal(LAST_ARRIVAL, "us", Goal::Ratio(1.2));
        }
    }

    /// Measures the server; gives back the frame in which it sent a publication.
    fn measure_server(&self, target: &Target, report: &mut Report) -> Result<Option<Vec<u8>>> {
        let mut producers = self.producers()?;
        let stage = Stage::server(target, self.common, self.reading())?;
        let mut points = Vec::new();
        let result = stage.play(&mut points, |stage| {
            let setup = stage.open("opening clients", true, &Positions::default())?;
            report.add_distribution("server: subscribed after", setup.durations);
            let mut feeds = self.feeds(&mut producers);
            let before = Metrics::fetch(self.publications.metrics);
            let receivers = |stream| self.receivers(stream);
            let delivery = delivery::measure(stage, &mut feeds, &receivers)?;
            self.record_server(&delivery, report);
            if let Some(failure) = delivery.failure {
                return Err(failure);
            }
            if self.slow.is_some() {
                report.set_server("slow clients ended by the server", "", f64::from(stage.fleet.slow_dropped()));
                report.set_server("messages read slowly", "", delivery.findings.received_slowly as f64);
            }
            if let (Some(before), Some(after)) = (before, Metrics::fetch(self.publications.metrics)) {
                record_system_calls(&before, &after, report);
            }
            Ok(delivery.findings.sample_frame)
        });
        report.points = points;
        result
    }

    fn measure_floor(&self, target: &Target, frame: Vec<u8>, report: &mut Report) -> Result<()> {
        let to = if self.kind == Kind::Routed { FloorAddressees::OneByOne } else { FloorAddressees::All };
        let (stage, mut floor) =
            Stage::floor(target, self.common, frame, to, Reading { notes_arrivals: true, ..Reading::default() })?;
        let clients = u64::from(self.common.of_floor().connections);
        let (warmup, pace) = self.paces();
        let mut points = Vec::new();
        let result = stage.play(&mut points, |stage| {
            stage.open("the floor: opening", true, &Positions::default())?;
            floor.await_accepted()?;
            let receivers = |stream| if matches!(stream, Stream::Channel(_)) { clients } else { 1 };
            let mut feeds = [Feed { source: &mut floor, warmup, pace }];
            let delivery = delivery::measure(stage, &mut feeds, &receivers)?;
            record_floor(&delivery, &pace, report);
            delivery.failure.map_or(Ok(()), Err)
        });
        report.floor_points = points;
        result
    }

    fn producers(&self) -> Result<Vec<Box<dyn Source>>> {
        let PublicationArguments { producer, .. } = self.publications;
        let composer = self.publications.composer();
        let connect = |addressees| producer::connect(self.common, producer, addressees, composer);
        let channels = || Addressees::Channels(target::channel_names(self.common));
        let users = || Addressees::Users((0..self.common.connections).map(Identity::user).collect());
        if self.kind != Kind::Broadcast {
            anyhow::ensure!(
                self.common.hmac_secret.is_some(),
                "each client must be a user of its own: say --hmac-secret, the server's client.token.hmac_secret"
            );
        }
        match self.kind {
            Kind::Broadcast => Ok(vec![connect(channels())?]),
            Kind::Routed => Ok(vec![connect(users())?]),
            Kind::Mixed => Ok(vec![connect(channels())?, connect(users())?]),
        }
    }

    fn feeds<'a>(&self, producers: &'a mut [Box<dyn Source>]) -> Vec<Feed<'a>> {
        let (warmup, pace) = self.paces();
        producers.iter_mut().map(|source| Feed { source: &mut **source, warmup, pace }).collect()
    }

    /// The kernel says when a message has arrived: how long its client takes to look is the tester's affair.
    fn reading(&self) -> Reading {
        Reading { slow: self.slow, notes_arrivals: true, ..Reading::of(self.publications.composer()) }
    }

    fn paces(&self) -> (Pace, Pace) {
        let pace = |seconds| Pace::of_seconds(self.publications.rate, self.publications.burst, seconds);
        (pace(self.publications.warmup_seconds), pace(self.publications.seconds))
    }

    /// Clients that are not slow, of this stream.
    fn receivers(&self, stream: Stream) -> u64 {
        let is_quick = |client: &u32| !Slow::is_slow(self.slow, *client);
        match stream {
            Stream::User(user) => u64::from(is_quick(&user)),
            Stream::Channel(channel) => {
                let clients = (channel..self.common.connections).step_by(self.common.channels as usize);
                clients.filter(is_quick).count() as u64
            }
        }
    }

    fn record_server(&self, delivery: &Delivery, report: &mut Report) {
        let (_, pace) = self.paces();
        report.set_server(CONNECTIONS, "", f64::from(self.common.connections));
        report.set_server(DELIVERED, "", delivery.findings.received as f64);
        report.set_server(RATE, "1/s", delivery.findings.received as f64 / pace.seconds());
        if let Some(cpu) = delivery.cpu_us_per_message() {
            report.set_server(CPU_PER_MESSAGE, "us", cpu);
        }
        if let Some(cpu) = delivery.cpu_us_per_message_of("shard-") {
            report.set_server(SHARD_CPU, "us", cpu);
        }
        if let Some(last) = delivery.findings.last_client {
            report.set_server(BROADCASTS, "", last.count as f64);
            report.set_server(LAST_P50, "us", last.p50_us as f64);
            report.set_server(LAST_P99, "us", last.p99_us as f64);
        }
        if let Some(last) = delivery.findings.last_arrival {
            report.set_server(LAST_ARRIVAL, "us", last.p99_us as f64);
        }
        if self.common.compression {
            record_wire(delivery, report);
        }
        report.set_server("latest publication's departure", "us late", delivery.pushed.late_us_max as f64);
        if delivery.findings.unstamped > 0 {
            report.set_server("messages that no producer of ours sent", "", delivery.findings.unstamped as f64);
        }
        report.add_distribution("server: every message", delivery.findings.latency);
        report.add_distribution("server: last client", delivery.findings.last_client);
        report.add_distribution("server: last client's socket", delivery.findings.last_arrival);
        report.threads.clone_from(&delivery.threads);
        report.add_faults("server", &delivery.findings.faults);
    }

    /// A publication as the Centrifuge protocol has it, where the server sent none that could be copied.
    fn usual_message(&self) -> Vec<u8> {
        let stamp = Stamp { stream: Stream::Channel(0), sequence: 0, intended_ns: 0 };
        let mut payload = Vec::new();
        self.publications.composer().compose(stamp, &mut payload);
        let channel = target::channel_names(self.common).swap_remove(0);
        let payload = String::from_utf8_lossy(&payload);
        format!(r#"{{"push":{{"channel":"{channel}","pub":{{"data":{payload}}}}}}}"#).into_bytes()
    }
}

fn record_floor(delivery: &Delivery, pace: &Pace, report: &mut Report) {
    report.set_floor(DELIVERED, "", delivery.findings.received as f64);
    report.set_floor(RATE, "1/s", delivery.findings.received as f64 / pace.seconds());
    if let Some(cpu) = delivery.cpu_us_per_message() {
        report.set_floor(CPU_PER_MESSAGE, "us", cpu);
        report.set_floor(SHARD_CPU, "us", cpu);
    }
    if let Some(last) = delivery.findings.last_client {
        report.set_floor(BROADCASTS, "", last.count as f64);
        report.set_floor(LAST_P50, "us", last.p50_us as f64);
        report.set_floor(LAST_P99, "us", last.p99_us as f64);
        let mut loops = Durations::new();
        delivery.pushed.loops_us.iter().for_each(|&loop_us| loops.record_us(loop_us));
        if let Some(loops) = loops.summary() {
            report.set_floor(LAST_ARRIVAL, "us", loops.p99_us as f64);
        }
        report.add_distribution("floor: the loop itself", loops.summary());
    }
    report.set_floor("sends that found a full socket", "", delivery.pushed.repeated as f64);
    report.add_distribution("floor: every message", delivery.findings.latency);
    report.add_distribution("floor: last client", delivery.findings.last_client);
    report.add_distribution("floor: last client's socket", delivery.findings.last_arrival);
    report.add_faults("floor", &delivery.findings.faults);
}

/// What came of each message, with its frame and all that a client is sent besides, and what would have come.
fn record_wire(delivery: &Delivery, report: &mut Report) {
    let Findings { received, received_bytes, agreed, savings, .. } = &delivery.findings;
    report.set_server(AGREED, "", *agreed as f64);
    report.set_server(COMPRESSED, "", savings.messages as f64);
    if *received == 0 {
        return;
    }
    let wire_bytes = *received_bytes as f64;
    let plain_bytes = wire_bytes + savings.bytes as f64;
    report.set_server(WIRE_BYTES, "B", wire_bytes / *received as f64);
    report.set_server(PLAIN_BYTES, "B", plain_bytes / *received as f64);
    report.set_server(WIRE_SHARE, "%", 100.0 * wire_bytes / plain_bytes);
}

/// Warming up is part of it: ratios do not change by that.
fn record_system_calls(before: &Metrics, after: &Metrics, report: &mut Report) {
    let messages = after.since(before, "tidegate_messages_sent_total");
    if messages > 0.0 {
        let per_message = |name| after.since(before, name) / messages;
        report.set_server("io_uring_enter calls per message", "", per_message("tidegate_io_uring_enters_total"));
        report.set_server("sends per message", "", per_message("tidegate_io_uring_sends_total"));
    }
}
