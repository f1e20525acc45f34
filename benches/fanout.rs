//! From one publication to 10,000 subscribers of its channel, up to the kernel's door.

#[path = "cases/fanout.rs"]
mod cases;
#[path = "cases/publication.rs"]
mod publication;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use cases::Audience;

const SUBSCRIBERS: u32 = 10_000;

/// Results are for a whole turn; the throughput's elements are deliveries.
fn turn(criterion: &mut Criterion) {
    let mut audience = Audience::new(SUBSCRIBERS);
    let mut group = criterion.benchmark_group("fanout/10000-subscribers");
    for publications in [1, 16] {
        group.throughput(Throughput::Elements(u64::from(SUBSCRIBERS * publications)));
        let id = BenchmarkId::new("publications", publications);
        group.bench_function(id, |bencher| bencher.iter(|| audience.turn(publications)));
    }
}

criterion_group!(benches, turn);
criterion_main!(benches);
