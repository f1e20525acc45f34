//! Payloads of five kinds of applications, as producers send them and as history keeps them.

use std::sync::Arc;

use bytes::Bytes;
use tidegate::{
    channel::Channels,
    config::{Config, Namespace, PayloadFormat},
    ingest::Decompressor,
    mesh::{ChannelHasher, ChannelName, ConnectionId, Position, Publish, Recovery, Subscribe},
    protocol::Payload,
    websocket::deflate::{Deflater, Window},
};

use super::payload::{PayloadKind, Place};

/// Payloads of one stream.
const PAYLOADS: usize = 2_000;

/// Publications that each channel keeps.
const HISTORY_SIZE: u32 = 1_000;

/// Channels that are recovered from in turn: more than are kept decompressed.
const CHANNELS: usize = 64;

/// What a client has missed.
const MISSED: u64 = 50;

/// The payloads of a stream, from its first on.
pub fn payloads(kind: PayloadKind) -> Vec<Bytes> {
    let payload = |sequence| {
        let mut payload = Vec::new();
        let stamp = format!("~tgl~{:08x}{sequence:016x}{:016x}~", 1, sequence * 200_000_000 + sequence % 9_973);
        kind.write(Place { seed: 1, stream: 0, sequence }, stamp.as_bytes(), &mut payload);
        Bytes::from(payload)
    };
    (1..=PAYLOADS as u64).map(payload).collect()
}

/// What the ingest thread does with a payload before it travels.
pub struct Ingest {
    payloads: Vec<Bytes>,
    frames: Vec<Vec<u8>>,
    decompressor: Decompressor,
    next: usize,
}

impl Ingest {
    pub fn new(payloads: &[Bytes]) -> Self {
        let frames = payloads.iter().map(|payload| zstd::bulk::compress(payload, 3).expect("bytes can be compressed"));
        Self { payloads: payloads.to_vec(), frames: frames.collect(), decompressor: Decompressor::new(&[]), next: 0 }
    }

    pub fn payload_bytes(&self) -> f64 {
        self.payloads.iter().map(Bytes::len).sum::<usize>() as f64 / self.payloads.len() as f64
    }

    pub fn frame_bytes(&self) -> f64 {
        self.frames.iter().map(Vec::len).sum::<usize>() as f64 / self.frames.len() as f64
    }

    pub fn check_plain(&mut self) -> Payload {
        let index = self.advance();
        let payload = self.payloads[index].clone();
        Payload::check(payload, PayloadFormat::Json).expect("JSON")
    }

    pub fn check_compressed(&mut self) -> Payload {
        let index = self.advance();
        let payload = self.decompressor.decompress(&self.frames[index], 1 << 20).expect("a frame");
        Payload::check(payload, PayloadFormat::Json).expect("JSON")
    }

    fn advance(&mut self) -> usize {
        self.next = (self.next + 1) % self.payloads.len();
        self.next
    }
}

/// Channels whose history is full.
pub struct History {
    channels: Channels,
    names: Vec<ChannelName>,
    payloads: Vec<Bytes>,
    published: u64,
    recovered: usize,
}

impl History {
    pub fn new(payloads: &[Bytes], history_compression_bytes_min: u32) -> Self {
        let hasher = ChannelHasher::with_key([7; 16]);
        let mut config = Config::default();
        config.namespaces.by_name = vec![Arc::new(Namespace {
            name: "kept".to_owned(),
            history_size: HISTORY_SIZE,
            history_ttl_ms: 60_000,
            history_compression_bytes_min,
            ..Namespace::default()
        })];
        let mut history = Self {
            channels: Channels::new(Arc::new(config), 63, 1),
            names: (0..CHANNELS).map(|number| hasher.name(&format!("kept:{number}"))).collect(),
            payloads: payloads.to_vec(),
            published: 0,
            recovered: 0,
        };
        for _ in 0..CHANNELS * HISTORY_SIZE as usize {
            history.publish();
        }
        history
    }

    /// Bytes that history takes, for each publication in it.
    pub fn bytes_each(&self) -> f64 {
        self.channels.history_figures().0 as f64 / (CHANNELS * HISTORY_SIZE as usize) as f64
    }

    /// Publishes to the channels in turn.
    pub fn publish(&mut self) {
        let channel = self.names[self.published as usize % CHANNELS].clone();
        let data = self.payloads[self.published as usize / CHANNELS % self.payloads.len()].clone();
        self.published += 1;
        assert!(self.channels.publish(Publish::json(channel, data), 0).publication.is_some());
    }

    /// A client comes back to the next channel and has missed some.
    pub fn recover_elsewhere(&mut self) {
        self.recovered = (self.recovered + 1) % CHANNELS;
        let subscribe = |recover| Subscribe {
            channel: self.names[self.recovered].clone(),
            connection: ConnectionId { shard: 0, index: 0, generation: 0 },
            command: 1,
            subscribers: 1,
            recover,
            reject_unrecovered: false,
            positioned: true,
            recoverable: true,
            member: None,
            data: None,
        };
        let position = self.channels.subscribe(&subscribe(None), 0).subscribed.position.expect("a stream");
        let from = Position { offset: position.offset - MISSED, ..position };
        match self.channels.subscribe(&subscribe(Some(from)), 0).subscribed.recovery {
            Some(Recovery::Recovered { publications, .. }) => assert_eq!(publications.len() as u64, MISSED),
            other => panic!("not recovered: {other:?}"),
        }
    }
}

/// Messages of one channel, one after the other, as a shard compresses them: it keeps a window's bytes between two.
pub struct Deflation {
    payloads: Vec<Bytes>,
    deflater: Deflater,
    context: Vec<u8>,
    out: Vec<u8>,
    next: usize,
}

impl Deflation {
    pub fn new(payloads: &[Bytes]) -> Self {
        let (context, out) = (Vec::new(), Vec::new());
        Self { payloads: payloads.to_vec(), deflater: Deflater::default(), context, out, next: 0 }
    }

    /// The next message by itself; its bytes.
    pub fn compress_single(&mut self) -> usize {
        let index = self.advance();
        self.deflater.begin(Window::KiB32, &[]).compress(&self.payloads[index], &mut self.out);
        self.out.len()
    }

    /// The next message with those before it; its bytes.
    pub fn compress_shared(&mut self, window: Window) -> usize {
        let index = self.advance();
        let payload = &self.payloads[index];
        self.deflater.begin(window, &self.context).compress(payload, &mut self.out);
        self.context.extend_from_slice(payload);
        let excess = self.context.len().saturating_sub(window.bytes());
        self.context.drain(..excess);
        self.out.len()
    }

    fn advance(&mut self) -> usize {
        self.out.clear();
        self.next = (self.next + 1) % self.payloads.len();
        self.next
    }
}
