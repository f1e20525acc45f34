//! What compression costs and saves: payloads that producers compress, history that is kept compressed, and messages that
//! are sent compressed, each by itself and each with those before it.
//!
//! Bytes do not depend on the machine: they are printed before the times.

#[path = "cases/compression.rs"]
mod cases;
#[path = "../loadtest/src/payload.rs"]
#[allow(dead_code, reason = "not all of the load tester's module is used here")]
mod payload;

use clap::ValueEnum;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use cases::{Deflation, History, Ingest, payloads};
use payload::PayloadKind;
use tidegate::websocket::deflate::Window;

/// Least sizes of history's blocks, in bytes of payload; 0: it is not compressed.
const BLOCK_SIZES: [u32; 5] = [0, 1 << 10, 4 << 10, 8 << 10, 32 << 10];

fn ingest(criterion: &mut Criterion) {
    for &kind in PayloadKind::value_variants() {
        let name = format!("{kind:?}").to_lowercase();
        let mut group = criterion.benchmark_group(format!("compression/ingest/{name}"));
        group.throughput(Throughput::Elements(1));
        let mut ingest = Ingest::new(&payloads(kind));
        println!("{name}: {:.0} bytes of payload, {:.0} compressed", ingest.payload_bytes(), ingest.frame_bytes());
        group.bench_function("plain", |bencher| bencher.iter(|| ingest.check_plain()));
        group.bench_function("zstd", |bencher| bencher.iter(|| ingest.check_compressed()));
    }
}

fn history(criterion: &mut Criterion) {
    for &kind in PayloadKind::value_variants() {
        let name = format!("{kind:?}").to_lowercase();
        let payloads = payloads(kind);
        let mut group = criterion.benchmark_group(format!("compression/history/{name}"));
        group.throughput(Throughput::Elements(1));
        for block_bytes in BLOCK_SIZES {
            let mut history = History::new(&payloads, block_bytes);
            println!("{name} in blocks of {block_bytes}: {:.0} bytes held for each", history.bytes_each());
            group
                .bench_function(BenchmarkId::new("publish", block_bytes), |bencher| bencher.iter(|| history.publish()));
            group.bench_function(BenchmarkId::new("recover-50-of-many", block_bytes), |bencher| {
                bencher.iter(|| history.recover_elsewhere());
            });
        }
    }
}

fn deflate(criterion: &mut Criterion) {
    for &kind in PayloadKind::value_variants() {
        let name = format!("{kind:?}").to_lowercase();
        let mut group = criterion.benchmark_group(format!("compression/deflate/{name}"));
        group.throughput(Throughput::Elements(1));
        let mut deflation = Deflation::new(&payloads(kind));
        let mut measure = |form: &str, compress: &mut dyn FnMut(&mut Deflation) -> usize| {
            let bytes: usize = (0..MESSAGES).map(|_| compress(&mut deflation)).sum();
            println!("{name}, {form}: {:.1} bytes", bytes as f64 / MESSAGES as f64);
            group.bench_function(form, |bencher| bencher.iter(|| compress(&mut deflation)));
        };
        measure("single", &mut Deflation::compress_single);
        for window in [Window::KiB1, Window::KiB4, Window::KiB32] {
            let form = format!("shared-{}-KiB", window.bytes() / 1024);
            measure(&form, &mut |deflation| deflation.compress_shared(window));
        }
    }
}

/// Messages whose compressed bytes are counted.
const MESSAGES: usize = 1_000;

criterion_group!(benches, ingest, history, deflate);
criterion_main!(benches);
