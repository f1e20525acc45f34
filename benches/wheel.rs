//! The timer wheel under a million connections.

#[path = "cases/wheel.rs"]
mod cases;
#[path = "cases/clock.rs"]
mod clock;
#[path = "cases/shuffle.rs"]
mod shuffle;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use cases::Heartbeats;
use clock::{in_chunks, timed};

const CONNECTIONS: u32 = 1_000_000;

fn wheel(criterion: &mut Criterion) {
    let mut heartbeats = Heartbeats::new(CONNECTIONS);
    let mut group = criterion.benchmark_group("wheel/1000000");
    group.throughput(Throughput::Elements(1));
    group.bench_function("schedule", |bencher| {
        bencher.iter_custom(|count| {
            in_chunks(CONNECTIONS as usize, count, |first, count| {
                heartbeats.cancel(first, count);
                timed(|| heartbeats.schedule(first, count))
            })
        });
    });
    group.bench_function("cancel", |bencher| {
        bencher.iter_custom(|count| {
            in_chunks(CONNECTIONS as usize, count, |first, count| {
                let time = timed(|| heartbeats.cancel(first, count));
                heartbeats.schedule(first, count);
                time
            })
        });
    });
    // Ticks are counted by the timers that they bring, so that a result is the cost of one heartbeat's turn of the wheel.
    group.bench_function("advance-and-reschedule", |bencher| {
        bencher.iter_custom(|count| {
            let mut due = 0;
            let time = timed(|| {
                while due < count {
                    due += heartbeats.tick() as u64;
                }
            });
            time.mul_f64(count as f64 / due as f64)
        });
    });
}

criterion_group!(benches, wheel);
criterion_main!(benches);
