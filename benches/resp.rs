//! Producers' commands, pipelined.

#[path = "cases/resp.rs"]
mod cases;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use cases::Pipeline;

const COMMANDS: usize = 64;

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("resp/parse-64-publish");
    group.throughput(Throughput::Elements(COMMANDS as u64));
    for payload_bytes in [16, 128, 4096] {
        let pipeline = Pipeline::new(COMMANDS, payload_bytes);
        group.bench_function(BenchmarkId::from_parameter(payload_bytes), |bencher| bencher.iter(|| pipeline.parse()));
    }
}

criterion_group!(benches, parse);
criterion_main!(benches);
