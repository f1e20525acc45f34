//! Turns of a shard with 10,000 clients, the kernel's part left out.

#[path = "cases/shard.rs"]
mod cases;
#[path = "cases/client_frame.rs"]
mod client_frame;
#[path = "cases/publication.rs"]
mod publication;

use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use cases::Clients;
use tidegate::mesh::ToShard;

const CLIENTS: usize = 10_000;

/// Clients that arrive together.
const ARRIVALS: usize = 1_000;

/// Results are for all clients; the throughput's elements are deliveries, pings and clients.
fn turns(criterion: &mut Criterion) {
    let mut clients = Clients::arrived(CLIENTS);
    let mut group = criterion.benchmark_group("shard/10000-clients");
    for publications in [1, 16] {
        group.throughput(Throughput::Elements((CLIENTS * publications) as u64));
        group.bench_function(BenchmarkId::new("to-all", publications), |bencher| {
            let make = |clients: &Clients| clients.publications_to_all(publications);
            bencher.iter_custom(|count| repeat(count, &mut clients, make, Clients::deliver));
        });
    }
    group.throughput(Throughput::Elements(CLIENTS as u64));
    for (name, deliver) in [("one-to-each", Clients::deliver as Deliver), ("one-by-one", Clients::deliver_one_by_one)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| repeat(count, &mut clients, Clients::publications_to_each, deliver));
        });
    }
    group.bench_function("heartbeats", |bencher| {
        bencher.iter(|| assert!(clients.heartbeats() > CLIENTS as u64 * 9 / 10, "every client is pinged"));
    });
    group.throughput(Throughput::Elements(ARRIVALS as u64));
    group.sample_size(20);
    group.bench_function(BenchmarkId::new("arrivals", ARRIVALS), |bencher| {
        bencher.iter_batched(
            || Clients::new(ARRIVALS),
            |mut clients| {
                clients.arrive();
                clients
            },
            BatchSize::PerIteration,
        );
    });
}

type Deliver = fn(&mut Clients, Vec<ToShard>) -> u64;

/// Makes publications and delivers them, `count` times: what the deliveries took.
fn repeat(
    count: u64,
    clients: &mut Clients,
    publications: impl Fn(&Clients) -> Vec<ToShard>,
    deliver: Deliver,
) -> Duration {
    let mut time = Duration::ZERO;
    for _ in 0..count {
        let publications = publications(clients);
        let begun = Instant::now();
        let sends = deliver(clients, publications);
        time += begun.elapsed();
        assert_eq!(sends, CLIENTS as u64, "one send each");
    }
    time
}

criterion_group!(benches, turns);
criterion_main!(benches);
