//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::{composer::Composer, payload::PayloadKind, stamp::PAYLOAD_BYTES_MIN, tls::Version};

/// Load tester for Tidegate and other WebSocket push servers: connections per core, bytes per connection,
/// CPU per message, latency; beside what the kernel itself costs on the same machine (--floor).
#[derive(Debug, Parser)]
#[command(name = "tidegate-loadtest", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Holds idle clients: user and kernel memory per connection, CPU per opened client.
    Idle(IdleArguments),
    /// Holds idle clients of a server that pings often: CPU per heartbeat (ping out, pong in).
    Heartbeat(HeartbeatArguments),
    /// Publishes to channels that all clients subscribe to: CPU per delivered message, latency of the last client.
    Broadcast(BroadcastArguments),
    /// Sends each message to one user, to one after the other: CPU per message, latency.
    #[command(mut_arg("rate", |rate| rate.default_value("1000")))]
    Routed(BroadcastArguments),
    /// Broadcasts and messages to single users at the same time, each at the same rate.
    Mixed(BroadcastArguments),
    /// Cuts all clients at once and lets all come back, some times over: how long, at what cost.
    Storm(StormArguments),
    /// Clients leave and come back all the time while publications go on.
    #[command(mut_arg("seconds", |seconds| seconds.default_value("10")))]
    Churn(ChurnArguments),
    /// Publishes to everybody while a share of the clients reads slowly: do the others notice?
    Slow(SlowArguments),
    /// Finds the highest rate at which a latency limit is kept.
    #[command(mut_arg("seconds", |seconds| seconds.default_value("5")))]
    #[command(mut_arg("warmup_seconds", |seconds| seconds.default_value("1")))]
    Ramp(RampArguments),
    /// Puts reports together: one table of goals, one of growth, one page.
    Summary(SummaryArguments),
    /// A worker process of the tester's own.
    #[command(hide = true)]
    Worker,
    /// The floor's server process.
    #[command(hide = true)]
    FloorServer,
}

/// Which server, which clients, which report.
#[derive(Debug, Clone, Args)]
pub struct CommonArguments {
    /// Where clients connect; with wss:// they speak TLS.
    #[arg(long, default_value = "ws://127.0.0.1:8000/connection/websocket")]
    pub url: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub tls: TlsArguments,
    /// Number of clients.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// Process id of the server, for its memory and CPU time. Default: the process that listens there.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Starts this server for the run, and stops it at the end: memory is measured best in a fresh process.
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["pid", "floor_only"])]
    pub serve: Option<String>,
    /// Number of channels; a client subscribes to one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub channels: u32,
    /// Name of a channel; {} is its number.
    #[arg(long, default_value = "demo:loadtest-{}")]
    pub channel: String,
    /// One connection token for all clients. Default: anonymous.
    #[arg(long, conflicts_with = "hmac_secret")]
    pub token: Option<String>,
    /// Signs a token for each client, all distinct users (HS256).
    #[arg(long)]
    pub hmac_secret: Option<String>,
    /// For other servers: a text that a client sends first. {client} and {channel} are replaced.
    #[arg(long)]
    pub connect_text: Option<String>,
    /// For other servers: a text with which a client subscribes.
    #[arg(long)]
    pub subscribe_text: Option<String>,
    /// For other servers: a message with this in it says that the client is subscribed.
    #[arg(long)]
    pub ready_text: Option<String>,
    /// Offers permessage-deflate, as browsers do; what the server compresses is inflated, and its bytes are counted.
    #[arg(long)]
    pub compression: bool,
    /// Cores for the tester's threads, such as 1,2. Default: those that the server's threads are not pinned to.
    #[arg(long, value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// Client threads never sleep, so that the server never pays for waking one.
    #[arg(long)]
    pub busy_poll: bool,
    /// Clients of one worker that are being opened at the same time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub opening_max: u32,
    /// Seconds without any progress after which a step is given up.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub patience_seconds: u64,
    /// Measures a bare accept() server and a plain send() loop too, with the same clients, and shows the distance.
    #[arg(long)]
    pub floor: bool,
    /// Measures the floor alone: no server is needed.
    #[arg(long, conflicts_with = "floor")]
    pub floor_only: bool,
    /// Clients of the floor. Default: as many as the server's; bytes per connection need fewer than a million.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub floor_connections: Option<u32>,
    /// Fails if a goal that is a count of bytes is missed: those do not depend on how busy the machine is.
    #[arg(long)]
    pub gate: bool,
    /// What this run is called in its report. Default: the scenario.
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
    /// Writes the report as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes the report as one self-contained HTML page with plots.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// TLS of clients, for a `--url` with `wss://`.
#[derive(Debug, Clone, Args)]
pub struct TlsArguments {
    /// With wss://: the authority (PEM) that has issued the server's certificate. Default: those that the host trusts.
    #[arg(long, value_name = "FILE", conflicts_with = "tls_insecure")]
    pub tls_ca: Option<PathBuf>,
    /// With wss://: any certificate is good.
    #[arg(long)]
    pub tls_insecure: bool,
    /// With wss://: the version that clients speak.
    #[arg(long, value_enum, default_value = "1.3", value_name = "VERSION")]
    pub tls_version: Version,
    /// With wss://: clients resume the sessions of those before them, as one that comes back does. Default: every
    /// handshake is a full one.
    #[arg(long)]
    pub tls_resume: bool,
}

/// The scenario `idle`.
#[derive(Debug, Args)]
pub struct IdleArguments {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub common: CommonArguments,
    /// Seconds for which all clients are held once they are open, answering pings.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Publishes once in each channel at the end: does every client get it?
    #[arg(long)]
    pub broadcast: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub producer: ProducerArguments,
}

/// The scenario `heartbeat`.
#[derive(Debug, Args)]
pub struct HeartbeatArguments {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub common: CommonArguments,
    /// Seconds that are measured: several of the server's ping intervals.
    #[arg(long, default_value_t = 20.0, value_parser = positive)]
    pub seconds: f64,
    /// Seconds before, unmeasured: more than one ping interval.
    #[arg(long, default_value_t = 3.0, value_parser = positive)]
    pub warmup_seconds: f64,
}

/// The scenarios `broadcast`, `routed` and `mixed`.
#[derive(Debug, Args)]
pub struct BroadcastArguments {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub common: CommonArguments,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub publications: PublicationArguments,
}

/// The scenario `storm`.
#[derive(Debug, Args)]
pub struct StormArguments {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub common: CommonArguments,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub producer: ProducerArguments,
    /// How often all are cut.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Publications go on meanwhile, and clients recover what they missed: nothing may be lost, nothing doubled. The
    /// channels need history and recovery.
    #[arg(long)]
    pub recover: bool,
    /// With --recover: publications per second, to one channel after the other.
    #[arg(long, default_value_t = 100.0, requires = "recover", value_parser = positive)]
    pub rate: f64,
    /// With --recover: seconds from a cut to the return.
    #[arg(long, default_value_t = 1.0, requires = "recover", value_parser = positive)]
    pub away_seconds: f64,
}

/// The scenario `churn`.
#[derive(Debug, Args)]
pub struct ChurnArguments {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub common: CommonArguments,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub publications: PublicationArguments,
    /// Clients that leave and come back per second.
    #[arg(long, default_value_t = 500.0, value_parser = positive)]
    pub churn_rate: f64,
}

/// The scenario `slow`.
#[derive(Debug, Args)]
pub struct SlowArguments {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub common: CommonArguments,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub publications: PublicationArguments,
    /// Every so-manieth client reads slowly.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..))]
    pub slow_every: u32,
    /// Bytes that a slow client reads per second.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=1 << 20))]
    pub slow_bytes_per_second: u32,
}

/// The scenario `ramp`.
#[derive(Debug, Args)]
pub struct RampArguments {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub common: CommonArguments,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub publications: PublicationArguments,
    /// The limit: milliseconds that the 99th percentile of all messages' latencies may be.
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub latency_ms_max: u64,
}

/// The subcommand `summary`.
#[derive(Debug, Args)]
pub struct SummaryArguments {
    /// Reports as JSON, in the order in which they are shown.
    #[arg(required = true, value_name = "REPORT")]
    pub reports: Vec<PathBuf>,
    /// Of these, runs that differ in their number of connections alone, the fewest first, separated by commas: how
    /// does what they found grow?
    #[arg(long, value_name = "REPORT,REPORT", value_parser = report_list)]
    pub growth: Vec<ReportList>,
    /// Of these, two runs that differ in the server's configuration alone: what the second costs must be no more than
    /// what the first does.
    #[arg(long, value_name = "REPORT,REPORT", value_parser = report_list)]
    pub no_more_than: Vec<ReportList>,
    /// What was measured, such as a version.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub subject: String,
    /// Writes all numbers as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes one self-contained HTML page with plots.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Reports of one scenario at several sizes.
#[derive(Debug, Clone)]
pub struct ReportList(pub Vec<PathBuf>);

fn report_list(text: &str) -> Result<ReportList, String> {
    let paths: Vec<PathBuf> = text.split(',').map(PathBuf::from).collect();
    if paths.len() < 2 { Err("at least two reports make a growth".to_owned()) } else { Ok(ReportList(paths)) }
}

/// How producers reach the server.
#[derive(Debug, Args)]
pub struct ProducerArguments {
    /// Where producers connect.
    #[arg(long, default_value = "127.0.0.1:7400")]
    pub ingest: SocketAddr,
    /// Password of the ingest port.
    #[arg(long, env = "TIDEGATE_INGEST_PASSWORD", hide_env_values = true)]
    pub ingest_password: Option<String>,
    /// For other servers: a producer is a client too, and publishes with this text. {channel} and {payload}, which is
    /// an object in JSON, are replaced.
    #[arg(long, value_name = "TEXT")]
    pub publish_text: Option<String>,
}

/// What is published, and how fast.
#[derive(Debug, Args)]
pub struct PublicationArguments {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub producer: ProducerArguments,
    /// Instants per second at which something is published.
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    pub rate: f64,
    /// Publications at each instant, pipelined.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub burst: u32,
    /// Publishes what an application would, in place of a filling of --payload-bytes, and checks that it arrives as it is.
    #[arg(long, value_enum, conflicts_with = "payload_bytes")]
    pub payload: Option<PayloadKind>,
    /// With --payload: chooses all that is random in it.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Goal, with --compression: bytes on the wire, in percent of what they would be uncompressed.
    #[arg(long, value_name = "PERCENT", requires = "compression", value_parser = positive)]
    pub wire_percent_max: Option<f64>,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(PAYLOAD_BYTES_MIN as i64..=1 << 20))]
    pub payload_bytes: u32,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 20.0, value_parser = positive)]
    pub seconds: f64,
    /// Seconds of the same before, unmeasured.
    #[arg(long, default_value_t = 2.0, value_parser = positive)]
    pub warmup_seconds: f64,
    /// The server's metrics, for its system calls; nothing is said of them where it has none.
    #[arg(long, default_value = "127.0.0.1:9000")]
    pub metrics: SocketAddr,
}

impl CommonArguments {
    /// The same for the floor: its loop knows one channel only, that of all its sockets.
    pub fn of_floor(&self) -> CommonArguments {
        let connections = self.floor_connections.unwrap_or(self.connections);
        CommonArguments { channels: 1, connections, ..self.clone() }
    }

    /// Clients that subscribe to this channel: all are spread over the channels in turn.
    pub fn subscribers(&self, channel: u32) -> u64 {
        (u64::from(self.connections) + u64::from(self.channels - 1 - channel)) / u64::from(self.channels)
    }
}

impl PublicationArguments {
    /// Who makes the payloads.
    pub fn composer(&self) -> Composer {
        match self.payload {
            Some(kind) => Composer::Realistic { kind, seed: self.seed },
            None => Composer::Filler { bytes: self.payload_bytes as usize },
        }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && number <= 1e6 => Ok(number),
        _ => Err("a number above 0, at most 1000000, is expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn clients_are_spread_over_channels_in_turn() {
        let line = ["tidegate-loadtest", "idle", "--connections", "11", "--channels", "4"];
        let Command::Idle(arguments) = Arguments::parse_from(line).command else { panic!("it is idle") };
        let subscribers: Vec<u64> = (0..4).map(|channel| arguments.common.subscribers(channel)).collect();
        assert_eq!(subscribers, [3, 3, 3, 2]);
    }

    #[test]
    fn bad_numbers_are_refused() {
        for bad in
            [["--rate", "0"], ["--rate", "x"], ["--burst", "0"], ["--payload-bytes", "8"], ["--connections", "0"]]
        {
            let line = ["tidegate-loadtest", "broadcast"].into_iter().chain(bad);
            assert!(Arguments::try_parse_from(line).is_err(), "{bad:?}");
        }
    }
}
