//! A home shard's tables: publishing, and who wants to hear of it.

#[path = "cases/channel.rs"]
mod cases;
#[path = "cases/publication.rs"]
mod publication;
#[path = "cases/shuffle.rs"]
mod shuffle;

use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use cases::Home;

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("channel/publish");
    group.throughput(Throughput::Elements(1));
    let mut plain = Home::new("plain", 1_000);
    group.bench_function("without-history", |bencher| bencher.iter(|| plain.publish()));
    let mut kept = Home::new("kept", 1_000);
    kept.fill_history();
    group.bench_function("with-history", |bencher| bencher.iter(|| kept.publish()));
}

fn interest(criterion: &mut Criterion) {
    let mut home = Home::new("plain", 1_000_000);
    let mut group = criterion.benchmark_group("channel/1000000");
    group.throughput(Throughput::Elements(1));
    group.bench_function("interest", |bencher| {
        bencher.iter_custom(|count| {
            let begun = Instant::now();
            assert_eq!(u64::from(home.subscribers(count as usize)), count, "one subscriber each");
            begun.elapsed()
        });
    });
    group.bench_function("publish", |bencher| bencher.iter(|| home.publish()));
}

criterion_group!(benches, publish, interest);
criterion_main!(benches);
