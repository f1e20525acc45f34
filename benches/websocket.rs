//! Frames and their rules, beside the reference implementation.

#[path = "cases/websocket.rs"]
mod cases;
#[path = "cases/client_frame.rs"]
mod client_frame;

use std::{
    hint::black_box,
    io::{self, Read, Write},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tungstenite::{
    WebSocket,
    protocol::{
        Role,
        frame::{Frame, FrameHeader},
    },
};

use cases::{Reading, Writing, json, mixed_text};
use client_frame::{MASK, TEXT, client_frame};
use tidegate::{
    limits::DEFLATE_STREAMS_MAX,
    websocket::{
        deflate::{Deflater, Inflater, Window},
        mask, utf8,
    },
};

const PAYLOAD_BYTES: [usize; 3] = [16, 128, 4096];

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("websocket/read");
    for bytes in PAYLOAD_BYTES {
        let payload = json(bytes);
        group.throughput(Throughput::Bytes(bytes as u64));
        let mut reading = Reading::new(&payload);
        group.bench_function(BenchmarkId::new("tidegate", bytes), |bencher| bencher.iter(|| reading.read()));
        let socket = Repeating { frame: client_frame(&payload), position: 0 };
        let mut reference = WebSocket::from_raw_socket(socket, Role::Server, None);
        group.bench_function(BenchmarkId::new("tungstenite", bytes), |bencher| {
            bencher.iter(|| reference.read().expect("a client's frame").len());
        });
    }
}

fn write(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("websocket/write");
    for bytes in PAYLOAD_BYTES {
        let payload = json(bytes);
        group.throughput(Throughput::Bytes(bytes as u64));
        let mut writing = Writing::new(&payload);
        group.bench_function(BenchmarkId::new("tidegate", bytes), |bencher| bencher.iter(|| writing.write()));
        let (payload, mut out) = (bytes::Bytes::from(payload), Vec::new());
        group.bench_function(BenchmarkId::new("tungstenite", bytes), |bencher| {
            bencher.iter(|| {
                out.clear();
                let header = FrameHeader { opcode: TEXT, ..FrameHeader::default() };
                Frame::from_payload(header, payload.clone()).format(&mut out).expect("a Vec takes every byte");
                out.len()
            });
        });
    }
}

fn unmask(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("websocket/unmask");
    for bytes in PAYLOAD_BYTES {
        let mut payload = json(bytes);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(bytes), |bencher| {
            bencher.iter(|| mask::apply(black_box(&mut payload), MASK));
        });
    }
}

fn check_utf8(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("websocket/utf8");
    for bytes in PAYLOAD_BYTES {
        for (name, text) in [("ascii", json(bytes)), ("mixed", mixed_text(bytes).into_bytes())] {
            group.throughput(Throughput::Bytes(text.len() as u64));
            group.bench_function(BenchmarkId::new(name, bytes), |bencher| {
                bencher.iter(|| utf8::check(black_box(&text)));
            });
        }
    }
}

/// What a client's compressed message costs beyond one that is not, by what it becomes.
fn inflate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("websocket/inflate");
    let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
    for bytes in PAYLOAD_BYTES {
        for (name, payload) in [("repeating", json(bytes)), ("zeros", vec![b'0'; bytes])] {
            let mut message = Vec::new();
            deflater.begin(Window::KiB32, &[]).compress(&payload, &mut message);
            group.throughput(Throughput::Bytes(bytes as u64));
            group.bench_function(BenchmarkId::new(name, bytes), |bencher| {
                bencher.iter(|| inflater.inflate(black_box(&message), 64 * 1024).map(|inflated| inflated.len()));
            });
        }
    }
}

/// The message that holds a shard longest for its size: a stream of deflate begins, with the window carried over, as often
/// as it may.
fn inflate_streams(criterion: &mut Criterion) {
    let mut message = Vec::new();
    Deflater::default().begin(Window::KiB32, &[]).compress(&[0; 32 * 1024], &mut message);
    message.extend_from_slice(&[0x00, 0x00, 0xff, 0xff]);
    message.extend([0x03, 0x00].repeat(DEFLATE_STREAMS_MAX - 1));
    message.push(0x00);
    let mut inflater = Inflater::default();
    criterion.bench_function("websocket/inflate-streams", |bencher| {
        bencher.iter(|| inflater.inflate(black_box(&message), 64 * 1024).expect("as many as there may be").len());
    });
}

/// A socket on which the same frame arrives again and again, one with each read.
struct Repeating {
    frame: Vec<u8>,
    position: usize,
}

impl Read for Repeating {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = into.len().min(self.frame.len() - self.position);
        into[..bytes].copy_from_slice(&self.frame[self.position..][..bytes]);
        self.position = (self.position + bytes) % self.frame.len();
        Ok(bytes)
    }
}

impl Write for Repeating {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

criterion_group!(benches, read, write, unmask, check_utf8, inflate, inflate_streams);
criterion_main!(benches);
