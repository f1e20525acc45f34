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

use crate::{dialect::Dialect, sequence::Faults, statistics::Pairs};

/// What a worker does, told once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The server.
    pub target: SocketAddr,
    /// `Host` of the upgrade request.
    pub host: String,
    /// Path and query of the upgrade request.
    pub path: String,
    /// What clients say.
    pub dialect: Dialect,
    /// Whether every client is a stream of its own; else clients of one channel share its stream.
    pub stream_per_client: bool,
    /// Number of channels, if clients of one channel share its stream.
    pub streams: u32,
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
    },
    /// Clients opened without attendance read from now on.
    Attend,
    /// Everything so far was preparation: begin to count.
    Mark,
    /// Say what was counted; each stream ended with this sequence number.
    Collect {
        /// Last sequence number of each stream.
        last: Vec<u64>,
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
    Opened,
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
    /// Pings answered since the start.
    pub pings: u64,
    /// Latencies since the last progress.
    pub latencies: Pairs,
    /// The first thing that went wrong, in words.
    pub complaint: Option<String>,
}

/// What a worker counted since the mark.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tally {
    /// From TCP connect to subscribed, since the start.
    pub setup: Pairs,
    /// From the intended instant to the receive, every message.
    pub latencies: Pairs,
    /// Per publication: stream, sequence, receivers, latency of the last one.
    pub publications: Vec<PublicationTally>,
    /// What should not be.
    pub faults: Faults,
    /// Messages with a stamp.
    pub received: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Messages without a stamp that were no pings.
    pub unstamped: u64,
    /// Bytes of the first message with a stamp, with its frame, as hexadecimal digits.
    pub sample_frame: Option<Vec<u8>>,
}

/// How one publication reached the subscribers of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicationTally {
    /// Its stream.
    pub stream: u32,
    /// Its place there.
    pub sequence: u64,
    /// Subscribers that received it.
    pub receivers: u32,
    /// Microseconds from the intended instant to the last receive.
    pub last_us: u64,
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
    /// Send to all clients, at a steady rate.
    Send(FloorSend),
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
    /// Sequence number of the first publication.
    pub first_sequence: u64,
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
