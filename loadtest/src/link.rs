//! What the coordinator and its child processes tell each other, as lines of JSON over a pair of
//! Unix sockets. A child whose coordinator is gone reads the end of the link and ends too.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    composer::Composer, dialect::Dialect, sequence::Faults, statistics::Pairs, stream::Positions, tls::Security,
    websocket::Savings,
};

/// What a worker does, told once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The server.
    pub target: SocketAddr,
    /// `Host` of the upgrade request.
    pub host: String,
    /// Path and query of the upgrade request.
    pub path: String,
    /// If clients speak TLS: how.
    pub security: Option<Security>,
    /// What clients say.
    pub dialect: Dialect,
    /// Number of channels, over which clients are spread in turn.
    pub channels: u32,
    /// Clients of this worker: their indices in the whole run.
    pub clients: std::ops::Range<u32>,
    /// Loopback addresses to connect from, in turn; empty: as the kernel chooses.
    pub sources: Vec<Ipv4Addr>,
    /// Clients that are being opened at the same time, at most.
    pub opening_max: u32,
    /// The core to run on.
    pub core: Option<usize>,
    /// Whether the worker never sleeps.
    pub busy_poll: bool,
    /// Whether clients offer compression.
    pub compression: bool,
    /// How clients read.
    pub reading: Reading,
}

/// How clients read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Some of them slowly.
    pub slow: Option<Slow>,
    /// Whether the kernel notes when bytes arrive, before a client has time to receive them.
    pub notes_arrivals: bool,
    /// Who made the payloads, if clients compare what they receive with it.
    pub composer: Option<Composer>,
}

impl Reading {
    /// What an application would publish is compared; a filling says nothing that its stamp does not.
    pub fn of(composer: Composer) -> Reading {
        let composer = Some(composer).filter(|composer| matches!(composer, Composer::Realistic { .. }));
        Reading { composer, ..Reading::default() }
    }
}

/// Clients that read slowly.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Slow {
    /// Every so-manieth client does.
    pub every: u32,
    /// Bytes that such a client reads per second.
    pub bytes_per_second: u32,
}

impl Slow {
    /// Whether this client does.
    pub fn is_slow(slow: Option<Slow>, client: u32) -> bool {
        slow.is_some_and(|slow| client % slow.every == slow.every - 1)
    }
}

/// To a worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum WorkerCommand {
    /// The first one.
    Plan(Box<Plan>),
    /// Open all clients. Without `attend` nobody waits for what their sockets receive.
    Open {
        /// Whether clients read from now on.
        attend: bool,
        /// How far streams are: clients must receive everything after this; none: after what each has received before.
        positions: Option<Positions>,
    },
    /// Clients opened without attendance read from now on.
    Attend,
    /// Everything so far was preparation: begin to count.
    Mark,
    /// Say what was counted.
    Collect {
        /// How far streams are: clients must have received everything up to this.
        positions: Positions,
    },
    /// From now on clients leave and come back at this rate; 0: no more.
    Churn {
        /// Clients per second.
        per_second: f64,
    },
    /// Close all clients.
    Close,
}

/// From a worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum WorkerEvent {
    /// Several times a second.
    Progress(Progress),
    /// All clients are open (or have failed to).
    Opened {
        /// From TCP connect to subscribed.
        setup: Pairs,
        /// Of the TLS handshakes, those that resumed a session.
        resumed: u64,
    },
    /// Clients read.
    Attending,
    /// Counting has begun.
    Marked,
    /// What was counted.
    Collected(Box<Tally>),
    /// All clients are closed.
    Closed,
}

/// How far a worker is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Clients open now.
    pub open: u32,
    /// Clients that could not be opened.
    pub failed: u32,
    /// Clients that the server ended.
    pub dropped: u32,
    /// Messages with a stamp since the mark.
    pub received: u64,
    /// Slow clients that the server ended.
    pub slow_dropped: u32,
    /// Clients that left and came back since the start.
    pub churned: u64,
    /// Latencies since the last progress.
    pub latencies: Pairs,
    /// The first thing that went wrong, in words.
    pub complaint: Option<String>,
}

/// What a worker counted since the mark.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tally {
    /// From TCP connect to subscribed, of clients that came back since the mark.
    pub setup: Pairs,
    /// From the intended instant to the receive, every message.
    pub latencies: Pairs,
    /// Per publication in a channel.
    pub publications: Vec<PublicationTally>,
    /// What should not be.
    pub faults: Faults,
    /// Messages with a stamp, but those of slow clients.
    pub received: u64,
    /// Messages of slow clients.
    pub received_slowly: u64,
    /// Of the messages received, those that were missed before.
    pub recovered: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Clients with which the server agreed on compression, since the start.
    pub agreed: u64,
    /// What compression spared.
    pub savings: Savings,
    /// Messages without a stamp that were no pings.
    pub unstamped: u64,
    /// Pings answered.
    pub pings: u64,
    /// Bytes of the first message with a stamp, with its frame.
    pub sample_frame: Option<Vec<u8>>,
}

/// How one publication reached the subscribers of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicationTally {
    /// Its channel.
    pub channel: u32,
    /// Its place there.
    pub sequence: u64,
    /// Subscribers that received it.
    pub receivers: u32,
    /// Microseconds from the intended instant to the last receive.
    pub last_us: u64,
    /// Microseconds from the intended instant until the last message lay in its client's socket; 0: that is not known.
    pub last_arrival_us: u64,
}

/// To the floor's server.
#[derive(Debug, Serialize, Deserialize)]
pub enum FloorCommand {
    /// Listen, accept, answer each request once.
    Listen {
        /// The core to run on.
        core: Option<usize>,
        /// Clients that will come.
        clients: u32,
    },
    /// Send to clients, at a steady rate.
    Send(FloorSend),
    /// Ping clients and take their pongs.
    Beat(FloorBeat),
}

/// Pings of a bare server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FloorBeat {
    /// The first instant, on the monotonic clock.
    pub start_ns: u64,
    /// Nanoseconds between two pings of one client.
    pub interval_ns: u64,
    /// Pings of each client.
    pub rounds: u64,
    /// Whether epoll says which pongs have come; else each is read a tick after its ping, unasked.
    pub asks_readiness: bool,
}

/// A plain send() loop.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FloorSend {
    /// The bytes that one client receives for one publication, with a stamp in them.
    pub frame: Vec<u8>,
    /// The first instant, on the monotonic clock.
    pub start_ns: u64,
    /// Instants per second.
    pub rate: f64,
    /// Publications at each instant, in one send.
    pub burst: u32,
    /// Number of instants.
    pub instants: u64,
    /// Who gets a publication.
    pub to: FloorAddressees,
    /// Publications before.
    pub published: u64,
}

/// Who gets a publication of the floor's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FloorAddressees {
    /// Every client.
    All,
    /// One client after the other.
    OneByOne,
}

/// From the floor's server.
#[derive(Debug, Serialize, Deserialize)]
pub enum FloorEvent {
    /// It listens here.
    Listening {
        /// Address.
        address: SocketAddr,
    },
    /// All clients have come and were answered.
    Accepted,
    /// So far as this number of publications.
    Sending {
        /// Publications sent.
        publications: u64,
    },
    /// All is sent.
    Sent {
        /// Microseconds that each loop over all clients took.
        loops_us: Vec<u64>,
        /// Sends that found a full socket and were repeated.
        repeated: u64,
    },
    /// All pings are answered.
    Beaten {
        /// Pongs received.
        heartbeats: u64,
    },
}

/// One end of a link.
#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
}

impl Link {
    /// Starts a child of this program's own and the link to it.
    ///
    /// # Errors
    /// If no process can be started.
    pub fn to_child(subcommand: &str) -> Result<(Link, Child)> {
        let (ours, theirs) = UnixStream::pair()?;
        let program = std::env::current_exe().context("the load tester's own program file")?;
        let child = Command::new(program)
            .arg(subcommand)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("the child process {subcommand} cannot be started"))?;
        Ok((Link { stream: ours }, child))
    }

    /// The child's end.
    ///
    /// # Errors
    /// If this process is not a child of the load tester.
    pub fn to_coordinator() -> Result<Link> {
        let stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        stream.peer_addr().context("this subcommand is for the load tester's own child processes")?;
        Ok(Link { stream })
    }

    /// Sends one message.
    ///
    /// # Errors
    /// If the other end is gone.
    pub fn send(&self, message: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        (&self.stream).write_all(&line).context("a process of the load tester ended early")
    }

    /// The messages from the other end, until it is gone.
    ///
    /// # Errors
    /// If the process is out of descriptors.
    pub fn messages<T: DeserializeOwned>(&self) -> Result<impl Iterator<Item = Result<T>> + Send + use<T>> {
        let reader = BufReader::new(self.stream.try_clone()?);
        Ok(reader.lines().map(|line| Ok(serde_json::from_str(&line?)?)))
    }
}
