//! Messages between threads, and the bounded queues that carry them.
//!
//! Owns the messages, the queues (one per ordered pair of threads) and the bells. What a message
//! means is decided by the module that receives it.
//!
//! Invariants:
//! - Sending never blocks. What finds its queue full is held back by the sender, in order, and the
//!   sender stops taking in new work until it is gone; otherwise memory would grow without bound.
//! - Messages of one pair arrive in the order they were sent; the order of a channel's publications
//!   and of a subscription's reply rests on it.
//! - A receiver announces that it sleeps before it looks at its queues for the last time; a sender
//!   looks at that announcement after it has pushed. One of the two sees the other, so no message
//!   waits beside a sleeping receiver.

mod address_table;
mod admission;
mod histogram;
mod message;
mod outlet;
mod rate_table;
mod trace;

use std::{io, sync::Arc};

use crossbeam_channel::Receiver;

pub use self::{
    address_table::{CrowdLimits, Crowded},
    admission::{Admission, Place},
    histogram::Histogram,
    message::*,
    outlet::Outlet,
    trace::{FanOutNote, HomeNote, Sampler, TraceContext, TraceNote, TraceNumber, TraceParent, TurnTotals},
};
use crate::limits::{MESH_QUEUE_MESSAGES_MAX, SHARDS_MAX};
pub use crate::uring::Bell;

/// A shard's end of the mesh.
pub struct ShardMesh {
    /// Index of the shard.
    pub shard: u16,
    /// Rung by others when this shard sleeps.
    pub bell: Arc<Bell>,
    /// From each shard by index (its own among them), then from ingest, then from control.
    pub inbound: Vec<Receiver<ToShard>>,
    /// To each shard by index, its own among them.
    pub to_shards: Vec<Outlet<ToShard>>,
    /// To the ingest thread.
    pub to_ingest: Outlet<ToIngest>,
    /// To the control thread.
    pub to_control: Outlet<ToControl>,
}

impl ShardMesh {
    /// Index in `inbound` of the ingest thread's queue.
    pub fn ingest_queue(&self) -> usize {
        self.to_shards.len()
    }

    /// Index in `inbound` of the queue that comes at a position when a turn takes messages in: the other shards' queues,
    /// ingest's, the shard's own, control's.
    ///
    /// The own queue comes behind those that bring publications for channels that are at home here, which so go out in
    /// the turn that takes them in. Control's comes last: when it says that the server stops, clients have been sent
    /// what producers were told is published.
    pub fn queue_in_turn(&self, position: usize) -> usize {
        let shards = self.to_shards.len();
        match position {
            other if other + 1 < shards => (usize::from(self.shard) + 1 + other) % shards,
            ingest if ingest + 1 == shards => self.ingest_queue(),
            own if own == shards => usize::from(self.shard),
            control => control,
        }
    }

    /// Whether messages are held back: the shard must take in nothing new.
    pub fn is_holding(&self) -> bool {
        self.to_shards.iter().any(Outlet::is_holding) || self.to_ingest.is_holding() || self.to_control.is_holding()
    }

    /// Messages that are held back now.
    pub fn held(&self) -> usize {
        self.to_shards.iter().map(Outlet::held).sum::<usize>() + self.to_ingest.held() + self.to_control.held()
    }

    /// Whether nothing waits in any queue. Asked between [`Bell::begin_sleep`] and sleeping.
    pub fn is_empty(&self) -> bool {
        self.inbound.iter().all(Receiver::is_empty)
    }
}

/// The ingest thread's end of the mesh.
pub struct IngestMesh {
    /// Rung by others when the thread sleeps.
    pub bell: Arc<Bell>,
    /// From each shard by index, then from control.
    pub inbound: Vec<Receiver<ToIngest>>,
    /// To each shard by index.
    pub to_shards: Vec<Outlet<ToShard>>,
    /// To the control thread.
    pub to_control: Outlet<ToControl>,
}

/// The control thread's end of the mesh.
pub struct ControlMesh {
    /// Rung by others when the thread sleeps.
    pub bell: Arc<Bell>,
    /// From each shard by index, then from ingest.
    pub inbound: Vec<Receiver<ToControl>>,
    /// To each shard by index.
    pub to_shards: Vec<Outlet<ToShard>>,
    /// To the ingest thread.
    pub to_ingest: Outlet<ToIngest>,
}

/// Builds the queues between `shards` shards, the ingest thread and the control thread.
///
/// # Errors
/// When the kernel gives no eventfd for a bell (descriptors have run out).
pub fn build(shards: usize) -> io::Result<(Vec<ShardMesh>, IngestMesh, ControlMesh)> {
    build_with_queue_length(shards, MESH_QUEUE_MESSAGES_MAX)
}

/// [`build`] with queues of another length: simulations make them short, so that they are full often.
///
/// # Errors
/// As [`build`].
pub fn build_with_queue_length(
    shards: usize,
    messages_max: usize,
) -> io::Result<(Vec<ShardMesh>, IngestMesh, ControlMesh)> {
    assert!((1..=SHARDS_MAX).contains(&shards), "the configuration allows 1 to SHARDS_MAX shards");
    let bells = (0..shards).map(|_| Bell::new().map(Arc::new)).collect::<io::Result<Vec<_>>>()?;
    let ingest_bell = Arc::new(Bell::new()?);
    let control_bell = Arc::new(Bell::new()?);

    let mut inbound: Vec<Vec<Receiver<ToShard>>> = (0..shards).map(|_| Vec::new()).collect();
    let mut outlets_to_shards = || -> Vec<Outlet<ToShard>> {
        bells.iter().zip(&mut inbound).map(|(bell, inbound)| outlet(messages_max, bell, inbound)).collect()
    };
    let shard_to_shards: Vec<_> = (0..shards).map(|_| outlets_to_shards()).collect();
    let ingest_to_shards = outlets_to_shards();
    let control_to_shards = outlets_to_shards();

    let mut ingest_inbound = Vec::new();
    let shard_to_ingest: Vec<_> =
        (0..shards).map(|_| outlet(messages_max, &ingest_bell, &mut ingest_inbound)).collect();
    let control_to_ingest = outlet(messages_max, &ingest_bell, &mut ingest_inbound);

    let mut control_inbound = Vec::new();
    let shard_to_control: Vec<_> =
        (0..shards).map(|_| outlet(messages_max, &control_bell, &mut control_inbound)).collect();
    let ingest_to_control = outlet(messages_max, &control_bell, &mut control_inbound);

    let shards = bells
        .into_iter()
        .zip(inbound)
        .zip(shard_to_shards)
        .zip(shard_to_ingest)
        .zip(shard_to_control)
        .enumerate()
        .map(|(shard, ((((bell, inbound), to_shards), to_ingest), to_control))| ShardMesh {
            shard: u16::try_from(shard).expect("SHARDS_MAX fits u16"),
            bell,
            inbound,
            to_shards,
            to_ingest,
            to_control,
        })
        .collect();
    let ingest = IngestMesh {
        bell: ingest_bell,
        inbound: ingest_inbound,
        to_shards: ingest_to_shards,
        to_control: ingest_to_control,
    };
    let control = ControlMesh {
        bell: control_bell,
        inbound: control_inbound,
        to_shards: control_to_shards,
        to_ingest: control_to_ingest,
    };
    Ok((shards, ingest, control))
}

fn outlet<T>(messages_max: usize, bell: &Arc<Bell>, inbound: &mut Vec<Receiver<T>>) -> Outlet<T> {
    let (sender, receiver) = crossbeam_channel::bounded(messages_max);
    inbound.push(receiver);
    Outlet::new(sender, Arc::clone(bell))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn observe(ticket: u64) -> ToShard {
        ToShard::Observe { ticket, is_watched: false }
    }

    fn ticket(message: &ToShard) -> u64 {
        match message {
            ToShard::Observe { ticket, .. } => *ticket,
            other => panic!("unexpected {other:?}"),
        }
    }

    #[test]
    fn every_pair_has_a_queue_of_its_own() {
        let (mut shards, mut ingest, mut control) = build(3).unwrap();
        shards[1].to_shards[2].send(observe(12));
        ingest.to_shards[2].send(observe(32));
        control.to_shards[2].send(observe(42));
        assert_eq!(ticket(&shards[2].inbound[1].try_recv().unwrap()), 12);
        assert_eq!(ticket(&shards[2].inbound[3].try_recv().unwrap()), 32);
        assert_eq!(shards[2].ingest_queue(), 3);
        let turn =
            |shard: usize| -> Vec<usize> { (0..5).map(|position| shards[shard].queue_in_turn(position)).collect() };
        assert_eq!([turn(0), turn(1), turn(2)], [[1, 2, 3, 0, 4], [2, 0, 3, 1, 4], [0, 1, 3, 2, 4]]);
        assert_eq!(ticket(&shards[2].inbound[4].try_recv().unwrap()), 42);
        assert!(shards[2].is_empty());
        shards[0].to_ingest.send(ToIngest::Shutdown);
        assert!(matches!(ingest.inbound[0].try_recv(), Ok(ToIngest::Shutdown)));
        shards[2].to_control.send(ToControl::ShardStopped { shard: 2 });
        assert!(matches!(control.inbound[2].try_recv(), Ok(ToControl::ShardStopped { shard: 2 })));
    }

    #[test]
    fn a_full_queue_holds_back_in_order_and_loses_nothing() {
        let (mut shards, ..) = build_with_queue_length(2, 4).unwrap();
        let (left, right) = shards.split_at_mut(1);
        for number in 0..20 {
            left[0].to_shards[1].send(observe(number));
        }
        assert!(left[0].is_holding());
        let mut seen = Vec::new();
        while seen.len() < 20 {
            while let Ok(message) = right[0].inbound[0].try_recv() {
                seen.push(ticket(&message));
            }
            left[0].to_shards[1].flush();
        }
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
        assert!(!left[0].is_holding());
    }

    /// Without the fences in `Bell` a message can wait beside a sleeping receiver, and this test would hang.
    #[test]
    fn no_message_waits_beside_a_sleeping_receiver() {
        const MESSAGES: u64 = 20_000;
        let (mut shards, mut ingest, _control) = build_with_queue_length(1, 8).unwrap();
        let shard = shards.remove(0);
        let receiver = thread::spawn(move || {
            let mut next = 0;
            while next < MESSAGES {
                while let Ok(message) = shard.inbound[1].try_recv() {
                    assert_eq!(ticket(&message), next);
                    next += 1;
                }
                shard.bell.begin_sleep();
                if shard.is_empty() && next < MESSAGES {
                    shard.bell.wait();
                }
                shard.bell.end_sleep();
            }
        });
        for number in 0..MESSAGES {
            ingest.to_shards[0].send(observe(number));
            ingest.to_shards[0].ring();
            while ingest.to_shards[0].is_holding() {
                thread::yield_now();
                ingest.to_shards[0].flush();
                ingest.to_shards[0].ring();
            }
        }
        receiver.join().unwrap();
    }
}
