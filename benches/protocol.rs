//! Commands in, publications out, beside what serde_json does with the same bytes.

#[path = "cases/protocol.rs"]
mod cases;
#[path = "cases/publication.rs"]
mod publication;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde::Serialize;
use serde_json::{Value, value::RawValue};
use tidegate::protocol::Encoding;

use cases::{COMMANDS, decode_all, encode};
use publication::{CHANNEL, PUBLICATION};

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("protocol/decode");
    for (name, message) in COMMANDS {
        group.throughput(Throughput::Bytes(message.len() as u64));
        group.bench_function(BenchmarkId::new("tidegate", name), |bencher| {
            bencher.iter(|| decode_all(black_box(message)));
        });
        group.bench_function(BenchmarkId::new("serde_json-value", name), |bencher| {
            bencher.iter(|| serde_json::from_slice::<Value>(black_box(message)).expect("JSON"));
        });
    }
}

fn encode_publication(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("protocol/encode-publication");
    group.throughput(Throughput::Bytes(PUBLICATION.data.len() as u64));
    let mut out = Vec::new();
    for encoding in [Encoding::Protobuf, Encoding::Json] {
        group.bench_function(format!("tidegate-{encoding:?}"), |bencher| {
            bencher.iter(|| encode(&mut out, encoding, black_box(CHANNEL), black_box(PUBLICATION)));
        });
    }

    let reference = Reply {
        push: Push {
            channel: CHANNEL,
            publication: Publication {
                data: serde_json::from_slice(PUBLICATION.data).expect("JSON"),
                offset: PUBLICATION.offset,
            },
        },
    };
    let mut reference_out = Vec::new();
    group.bench_function("serde_json", |bencher| {
        bencher.iter(|| {
            reference_out.clear();
            serde_json::to_writer(&mut reference_out, black_box(&reference)).expect("a Vec takes every byte");
            reference_out.len()
        });
    });
    assert_eq!(out, reference_out, "both write the same publication");
}

/// The same publication as serde_json is told of it.
#[derive(Serialize)]
struct Reply<'a> {
    push: Push<'a>,
}

#[derive(Serialize)]
struct Push<'a> {
    channel: &'a str,
    #[serde(rename = "pub")]
    publication: Publication<'a>,
}

#[derive(Serialize)]
struct Publication<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    offset: u64,
}

criterion_group!(benches, decode, encode_publication);
criterion_main!(benches);
