//! A shard's thread: pinned to its core, with a ring of its own.

use std::{
    io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use super::{Shard, ShardOptions};
use crate::{
    mesh::Bell,
    uring::{Features, Listener, Ring, RingDescriptor, RingOptions},
};

/// A shard that is about to run: its ring exists, and waits to know the others'.
pub struct ShardThread {
    descriptor: RingDescriptor,
    peers: mpsc::Sender<Vec<RingDescriptor>>,
    thread: JoinHandle<()>,
}

/// Why a shard's thread could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The core is not there, or not for us.
    #[error(
        "shard {shard} cannot be pinned to core {core}: {error}. Choose cores that this process may use: shards.cores in the configuration, or CPUAffinity= in the unit"
    )]
    Affinity {
        /// Its index.
        shard: u16,
        /// The core.
        core: u32,
        /// What the kernel said.
        error: nix::Error,
    },
    /// The kernel gave no ring, though it gave one when it was probed.
    #[error(
        "shard {shard} got no io_uring: {error}. If memory is locked too tightly: ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit"
    )]
    Ring {
        /// Its index.
        shard: u16,
        /// What the kernel said.
        error: io::Error,
    },
    /// The kernel gave no thread.
    #[error("no thread for shard {shard}: {error}. Raise ulimit -u, or TasksMax= in the unit")]
    Thread {
        /// Its index.
        shard: u16,
        /// What the kernel said.
        error: io::Error,
    },
}

/// Starts a shard's thread. The shard accepts clients from [`ShardThread::run`] on.
///
/// # Errors
/// See [`StartError`].
pub fn spawn(
    options: impl FnOnce() -> ShardOptions + Send + 'static,
    shard: u16,
    core: u32,
    features: Features,
    listener: Listener,
    bells: Vec<Arc<Bell>>,
) -> Result<ShardThread, StartError> {
    let (peers, peers_arrive) = mpsc::channel::<Vec<RingDescriptor>>();
    let (started, start) = mpsc::channel();
    let body = move || {
        let ring = pin(shard, core).and_then(|()| {
            let bell = Arc::clone(&bells[usize::from(shard)]);
            Ring::new(RingOptions { features, listener, bell, bells })
                .map_err(|error| StartError::Ring { shard, error })
        });
        match ring {
            Ok(mut ring) => {
                let _ = started.send(Ok(ring.descriptor()));
                // No peers arrive if another shard could not start; then there is nothing to run.
                if let Ok(peers) = peers_arrive.recv() {
                    ring.set_peers(peers);
                    Shard::new(ring, options()).run();
                }
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        }
    };
    let thread = thread::Builder::new()
        .name(format!("shard-{shard}"))
        .spawn(body)
        .map_err(|error| StartError::Thread { shard, error })?;
    let descriptor = start.recv().expect("the thread tells how its start went")?;
    Ok(ShardThread { descriptor, peers, thread })
}

impl ShardThread {
    /// What other shards ring.
    pub fn descriptor(&self) -> RingDescriptor {
        self.descriptor
    }

    /// Lets the shard run.
    pub fn run(self, descriptors: Vec<RingDescriptor>) -> JoinHandle<()> {
        self.peers.send(descriptors).expect("the thread waits for its peers");
        self.thread
    }
}

fn pin(shard: u16, core: u32) -> Result<(), StartError> {
    let mut cores = CpuSet::new();
    cores
        .set(core as usize)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cores))
        .map_err(|error| StartError::Affinity { shard, core, error })
}
