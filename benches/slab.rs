//! A million slots of connections, touched in no order.

#[path = "cases/slab.rs"]
mod cases;
#[path = "cases/clock.rs"]
mod clock;
#[path = "cases/shuffle.rs"]
mod shuffle;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use cases::Slots;
use clock::{in_chunks, timed};

const CONNECTIONS: u32 = 1_000_000;

fn slab(criterion: &mut Criterion) {
    let mut slots = Slots::new(CONNECTIONS);
    let mut group = criterion.benchmark_group("slab/1000000");
    group.throughput(Throughput::Elements(1));
    group.bench_function("get", |bencher| {
        bencher.iter_custom(|count| {
            in_chunks(CONNECTIONS as usize, count, |first, count| {
                timed(|| {
                    black_box(slots.get(first, count));
                })
            })
        });
    });
    group.bench_function("insert", |bencher| {
        bencher.iter_custom(|count| {
            in_chunks(CONNECTIONS as usize, count, |first, count| {
                slots.remove(first, count);
                timed(|| slots.insert(count))
            })
        });
    });
    group.bench_function("remove", |bencher| {
        bencher.iter_custom(|count| {
            in_chunks(CONNECTIONS as usize, count, |first, count| {
                let time = timed(|| slots.remove(first, count));
                slots.insert(count);
                time
            })
        });
    });
}

criterion_group!(benches, slab);
criterion_main!(benches);
