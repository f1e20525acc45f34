//! The producers' thread: what they push over RESP reaches the shards, and they are answered.
//!
//! Owns the producers' sockets, the meaning of their commands, and the checks that a publication
//! passes before it travels: its channel's name and namespace, its payload. It leaves to others how
//! commands are framed (`resp`), and what a publication does (its channel's home shard).
//!
//! One thread, a monoio runtime on it: a task per listener, two per connection, and the pump, which
//! hands shards' answers to producers.
//!
//! Invariants:
//! - What a producer was told is accepted is delivered: a full mesh queue stops the reading, and
//!   the messages it refused wait in order. Dropping one would break the promise of its reply.
//! - Replies go out in the order of the commands, whatever the order of the shards' answers; clients
//!   match them by nothing else.
//! - What one connection may cost is bounded: commands by [`crate::resp::Limits`], pending commands,
//!   replies and transactions by [`crate::limits`]. Beyond, it is not read from.
//! - The state is borrowed between awaits only; a borrow across one would panic in another task.

mod accept;
mod command;
mod connection;
mod counters;
mod decompression;
mod listener;
mod payload;
mod producer;
mod pump;
mod refusal;
mod replies;
mod signal;
mod state;

#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use monoio::{
    IoUringDriver, Runtime, RuntimeBuilder,
    io::Canceller,
    net::{TcpListener, UnixListener},
    time::TimeDriver,
};

use self::{
    connection::Stops,
    listener::Listeners,
    pump::{BellStream, Cancellers},
    signal::Signal,
    state::IngestState,
};
pub use self::{
    decompression::{DecompressionFault, Decompressor},
    listener::Passed,
};
use crate::{
    config::Config,
    mesh::{ChannelHasher, IngestMesh},
    tls::Port,
};

/// The running ingest thread. It ends by [`crate::mesh::ToIngest::Shutdown`].
#[derive(Debug)]
pub struct Ingest {
    /// Ends when the thread has said [`crate::mesh::ToControl::IngestStopped`].
    pub thread: JoinHandle<()>,
    /// The TCP address, with the port that the kernel chose if the configuration says 0.
    pub address: Option<SocketAddr>,
}

/// Why the thread did not start; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The TCP address cannot be had.
    #[error("cannot listen for producers on {address} (ingest.listen): {error}. {remedy}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
        /// What to do.
        remedy: String,
    },
    /// The Unix socket cannot be had.
    #[error("cannot listen for producers on {path} (ingest.unix): {error}. {remedy}")]
    Unix {
        /// The socket's path.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The thread, or its ring, cannot be had.
    #[error("the ingest thread could not start: {0}")]
    Io(#[from] io::Error),
}

/// Listens, unless the sockets have been passed, and starts the thread. Producers are accepted when this returns. `tls`:
/// the TCP port speaks TLS.
///
/// # Errors
/// When an address is taken or forbidden, or io_uring is; nothing is left running then.
pub fn spawn(
    config: Arc<Config>,
    hasher: ChannelHasher,
    mesh: IngestMesh,
    passed: Passed,
    tls: Option<Arc<Port>>,
) -> Result<Ingest, StartError> {
    let listeners = Listeners::open(&config.ingest, passed)?;
    let address = listeners.tcp.as_ref().map(std::net::TcpListener::local_addr).transpose()?;
    let (sender, receiver) = mpsc::sync_channel(1);
    let thread = thread::Builder::new().name("ingest".to_owned()).spawn(move || {
        // The runtime belongs to the thread that builds it, so its error has to travel.
        match RuntimeBuilder::<IoUringDriver>::new().enable_timer().build() {
            Ok(runtime) => {
                let state = IngestState::new(config, hasher, mesh, listeners.tcp_port());
                run(runtime, state, listeners, tls, &sender);
            }
            Err(error) => report(&sender, Err(error)),
        }
    })?;
    receiver.recv().unwrap_or_else(|_| Err(io::Error::other("it ended at once")))?;
    Ok(Ingest { thread, address })
}

type IngestRuntime = Runtime<TimeDriver<IoUringDriver>>;

fn run(
    mut runtime: IngestRuntime,
    state: IngestState,
    listeners: Listeners,
    tls: Option<Arc<Port>>,
    started: &mpsc::SyncSender<io::Result<()>>,
) {
    let bell = state.bell();
    let state = Rc::new(RefCell::new(state));
    runtime.block_on(async {
        let cancellers = Cancellers { inputs: Canceller::new(), outputs: Canceller::new() };
        let stops = Stops { inputs: cancellers.inputs.handle(), outputs: cancellers.outputs.handle() };
        let rung = Rc::new(Signal::default());
        // Held until the thread ends: it removes the socket's file.
        let _socket_file = match start(&state, listeners, tls, bell, &stops, &rung) {
            Ok(socket_file) => socket_file,
            Err(error) => return report(started, Err(error)),
        };
        report(started, Ok(()));
        monoio::spawn(pump::run(state, rung, cancellers)).await;
    });
}

/// Spawns the tasks that wait for producers and for the bell.
fn start(
    state: &Rc<RefCell<IngestState>>,
    listeners: Listeners,
    tls: Option<Arc<Port>>,
    bell: Arc<crate::mesh::Bell>,
    stops: &Stops,
    rung: &Rc<Signal>,
) -> io::Result<Option<listener::SocketFile>> {
    monoio::spawn(BellStream::new(bell)?.run(Rc::clone(rung)));
    if let Some(listener) = listeners.tcp {
        monoio::spawn(accept::run(Rc::clone(state), TcpListener::from_std(listener)?, tls, stops.clone()));
    }
    let Some(socket) = listeners.unix else { return Ok(None) };
    monoio::spawn(accept::run(Rc::clone(state), UnixListener::from_std(socket.listener)?, None, stops.clone()));
    Ok(socket.file)
}

fn report(started: &mpsc::SyncSender<io::Result<()>>, result: io::Result<()>) {
    // The caller waits for exactly one word.
    let _ = started.send(result);
}
