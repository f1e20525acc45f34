//! From one thread to another.
//!
//! Both threads need a core of their own; on a busy machine the results say more about the machine.

#[path = "cases/mesh.rs"]
mod cases;
#[path = "cases/publication.rs"]
mod publication;

use std::{
    hint, thread,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use cases::{deliver, publication};
use tidegate::{
    limits::MESH_TURN_MESSAGES_MAX,
    mesh::{IngestMesh, ShardMesh, ToIngest, ToShard, build},
};

fn hop(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mesh/hop");
    group.throughput(Throughput::Elements(1));
    group.bench_function("in-batches", |bencher| bencher.iter_custom(in_batches));
    group.bench_function("one-at-a-time-with-bell", |bencher| bencher.iter_custom(one_at_a_time));
}

/// Sends `count` messages, in turns as shards do, to a thread that takes them as fast as they come.
fn in_batches(count: u64) -> Duration {
    let (shard, mut ingest) = two_threads();
    let receiver = thread::spawn(move || {
        let queue = &shard.inbound[shard.ingest_queue()];
        let mut received = 0;
        while received < count {
            match queue.try_recv() {
                Ok(message) => {
                    hint::black_box(message);
                    received += 1;
                }
                Err(_) => hint::spin_loop(),
            }
        }
        // What is shared with the sender goes after the measurement.
        shard
    });
    let publication = publication();
    let begun = Instant::now();
    let outlet = &mut ingest.to_shards[0];
    let mut left = count;
    while left > 0 {
        let turn = left.min(MESH_TURN_MESSAGES_MAX as u64);
        (0..turn).for_each(|_| outlet.send(deliver(&publication)));
        outlet.ring();
        left -= turn;
        while outlet.is_holding() {
            hint::spin_loop();
            outlet.flush();
        }
    }
    let shard = receiver.join().expect("the receiver does not panic");
    let time = begun.elapsed();
    drop(shard);
    time
}

/// Sends a message to a sleeping thread, sleeps until it has answered, `count` times: half of that is a hop.
fn one_at_a_time(count: u64) -> Duration {
    let (mut shard, mut ingest) = two_threads();
    let echo = thread::spawn(move || {
        let queue = shard.ingest_queue();
        for _ in 0..count {
            let message = loop {
                if let Ok(message) = shard.inbound[queue].try_recv() {
                    break message;
                }
                shard.bell.begin_sleep();
                if shard.is_empty() {
                    shard.bell.wait();
                }
                shard.bell.end_sleep();
            };
            let ToShard::Observe { ticket, .. } = message else { panic!("nothing else was sent") };
            shard.to_ingest.send(ToIngest::Observe { ticket });
            shard.to_ingest.ring();
        }
        shard
    });
    let begun = Instant::now();
    for ticket in 0..count {
        ingest.to_shards[0].send(ToShard::Observe { ticket, is_watched: false });
        ingest.to_shards[0].ring();
        while ingest.inbound[0].try_recv().is_err() {
            ingest.bell.begin_sleep();
            if ingest.inbound[0].is_empty() {
                ingest.bell.wait();
            }
            ingest.bell.end_sleep();
        }
    }
    let time = begun.elapsed() / 2;
    echo.join().expect("the echo does not panic");
    time
}

fn two_threads() -> (ShardMesh, IngestMesh) {
    let (mut shards, ingest, _control) = build(1).expect("descriptors for three bells");
    (shards.remove(0), ingest)
}

criterion_group!(benches, hop);
criterion_main!(benches);
