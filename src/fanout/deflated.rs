//! The frames of a batch, compressed where that makes them shorter.
//!
//! Owns which frames are compressed and what a shared window holds. Leaves to [`Cohorts`](super::Cohorts) who may be sent
//! what refers to such a window.
//!
//! Invariant: a window holds what was sent compressed with it, in order, and nothing else (RFC 7692 section 7.2.2: only
//! compressed messages enter a receiver's window). Were a message in it that went out plain, the next could refer to what
//! no client's window has.

use super::Batch;
use crate::websocket::{
    deflate::{Compressing, Deflater, Window},
    frame,
};

/// What the compression of some frames has brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shrinkage {
    /// Messages that were compressed, and are shorter for it.
    pub messages: u64,
    /// Messages that would have been no shorter, and stayed as they were.
    pub kept: u64,
    /// Bytes of the compressed messages' frames before.
    pub bytes_before: u64,
    /// And after.
    pub bytes_after: u64,
}

/// Appends a batch's frames to another, each compressed by itself. Frames with payloads below `message_bytes_min` stay as
/// they are, and so do those that would be no shorter.
pub fn deflate_alone(
    plain: &Batch,
    out: &mut Batch,
    deflater: &mut Deflater,
    window: Window,
    message_bytes_min: usize,
) -> Shrinkage {
    let mut compressing = deflater.begin(window, &[]);
    let mut shrinkage = Shrinkage::default();
    // The encoder has taken in nothing since it was begun.
    let mut is_fresh = true;
    for frame in frames(plain) {
        if frame::written_message(frame).1.len() >= message_bytes_min {
            if !is_fresh {
                compressing.begin_anew(&[]);
            }
            is_fresh = false;
            shrinkage.append(frame, out, &mut compressing);
        } else {
            append(frame, out);
        }
    }
    shrinkage
}

/// The same, each message compressed with those before it in the window, to which it is added.
pub fn deflate_in_context(
    plain: &Batch,
    out: &mut Batch,
    deflater: &mut Deflater,
    context: &mut Context,
    message_bytes_min: usize,
) -> Shrinkage {
    let mut compressing = deflater.begin(context.window, context.bytes());
    let mut shrinkage = Shrinkage::default();
    for frame in frames(plain) {
        let payload = frame::written_message(frame).1;
        if payload.len() < message_bytes_min {
            append(frame, out);
        } else if shrinkage.append(frame, out, &mut compressing) {
            context.append(payload);
        } else {
            compressing.begin_anew(context.bytes());
        }
    }
    shrinkage
}

/// Whether some frame of a batch has a payload that is long enough to be compressed.
pub fn has_long_message(batch: &Batch, message_bytes_min: usize) -> bool {
    frames(batch).any(|frame| frame::written_message(frame).1.len() >= message_bytes_min)
}

/// What the windows of a cohort's members hold since its keyframe, as far back as messages may refer.
#[derive(Debug)]
pub struct Context {
    window: Window,
    bytes_max: usize,
    bytes: Vec<u8>,
}

impl Context {
    /// An empty window, for clients that agreed on `window`. Messages refer `bytes_max` of earlier ones back at most.
    pub fn new(window: Window, bytes_max: usize) -> Self {
        let bytes_max = bytes_max.min(window.bytes());
        Self { window: Window::holding(bytes_max).min(window), bytes_max, bytes: Vec::new() }
    }

    /// Bytes of memory that it takes.
    pub fn bytes_held(&self) -> usize {
        self.bytes.capacity()
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[self.bytes.len().saturating_sub(self.bytes_max)..]
    }

    fn append(&mut self, payload: &[u8]) {
        // Twice its length at most, so that what has passed is not moved away for every message.
        if self.bytes.len() + payload.len() > 2 * self.bytes_max {
            let stay = self.bytes_max.saturating_sub(payload.len()).min(self.bytes.len());
            self.bytes.drain(..self.bytes.len() - stay);
        }
        let payload = &payload[payload.len().saturating_sub(self.bytes_max)..];
        if self.bytes.len() + payload.len() > self.bytes.capacity() {
            self.bytes.reserve_exact(payload.len());
        }
        self.bytes.extend_from_slice(payload);
    }
}

impl Shrinkage {
    /// Appends a frame, compressed if that makes it shorter: whether it does.
    fn append(&mut self, frame: &[u8], out: &mut Batch, compressing: &mut Compressing<'_>) -> bool {
        let (data, payload) = frame::written_message(frame);
        let start = out.bytes.len();
        let mark = frame::begin(&mut out.bytes);
        compressing.compress(payload, &mut out.bytes);
        frame::finish_deflated(&mut out.bytes, mark, data);
        let bytes = out.bytes.len() - start;
        if bytes >= frame.len() {
            out.bytes.truncate(start);
            append(frame, out);
            self.kept += 1;
            return false;
        }
        out.end_frame();
        self.messages += 1;
        self.bytes_before += frame.len() as u64;
        self.bytes_after += bytes as u64;
        true
    }
}

fn append(frame: &[u8], out: &mut Batch) {
    out.bytes.extend_from_slice(frame);
    out.end_frame();
}

fn frames(batch: &Batch) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    batch.ends.iter().map(move |end| &batch.bytes[std::mem::replace(&mut start, *end as usize)..*end as usize])
}

#[cfg(test)]
mod tests {
    use flate2::{Decompress, FlushDecompress};

    use super::*;
    use crate::websocket::frame::{Data, OpCode};

    const MESSAGE_BYTES_MIN: usize = 16;

    fn batch(payloads: &[&[u8]]) -> Batch {
        let mut batch = Batch::default();
        for payload in payloads {
            frame::write(&mut batch.bytes, OpCode::Data(Data::Text), payload);
            batch.end_frame();
        }
        batch
    }

    /// What a client reads whose inflater keeps its window.
    fn read(client: &mut Decompress, batch: &Batch) -> Vec<Vec<u8>> {
        let read_one = |frame: &[u8]| {
            let header_bytes = if frame[1] == 126 { 4 } else { 2 };
            let payload = &frame[header_bytes..];
            if frame[0] & 0x40 == 0 {
                return payload.to_vec();
            }
            let mut out = Vec::with_capacity(1 << 16);
            let input = [payload, &[0, 0, 0xff, 0xff]].concat();
            client.decompress_vec(&input, &mut out, FlushDecompress::Sync).expect("what refers to its window");
            out
        };
        frames(batch).map(read_one).collect()
    }

    /// Bytes that no compressor makes shorter.
    fn noise(seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..100).map(|_| next()).collect()
    }

    const TICK: &[u8] = br#"{"symbol":"ABC","bid":"100.01","ask":"100.03","time":1700000000123}"#;
    const NEXT: &[u8] = br#"{"symbol":"ABC","bid":"100.02","ask":"100.04","time":1700000000456}"#;

    #[test]
    fn a_window_holds_what_was_sent_compressed_and_nothing_else() {
        let (mut deflater, mut context) = (Deflater::default(), Context::new(Window::KiB4, 4096));
        let mut client = Decompress::new(false);
        let noise = noise(1);
        for payloads in [vec![TICK, b"short", &noise, NEXT], vec![TICK, b"too short", NEXT, &noise], vec![NEXT]] {
            let plain = batch(&payloads);
            let mut out = Batch::default();
            let shrinkage = deflate_in_context(&plain, &mut out, &mut deflater, &mut context, MESSAGE_BYTES_MIN);
            assert_eq!(out.ends.len(), payloads.len());
            assert_eq!(read(&mut client, &out), payloads);
            assert!(shrinkage.bytes_after < shrinkage.bytes_before);
            assert_eq!(shrinkage.kept, payloads.iter().filter(|payload| **payload == noise).count() as u64);
        }
        assert_eq!(context.bytes(), [TICK, NEXT, TICK, NEXT, NEXT].concat());
    }

    #[test]
    fn messages_that_stand_alone_are_read_by_anybody() {
        let payloads = [TICK, b"short", NEXT, NEXT];
        let plain = batch(&payloads);
        let mut out = Batch::default();
        let mut deflater = Deflater::default();
        let shrinkage = deflate_alone(&plain, &mut out, &mut deflater, Window::Bytes512, MESSAGE_BYTES_MIN);
        for (frame, payload) in frames(&out).zip(payloads) {
            let alone = Batch { bytes: frame.to_vec(), ends: vec![frame.len() as u32], ..Batch::default() };
            assert_eq!(read(&mut Decompress::new(false), &alone), [payload]);
        }
        assert_eq!((shrinkage.messages, shrinkage.kept), (3, 0));
        let mut again = Batch::default();
        assert_eq!(deflate_alone(&plain, &mut again, &mut deflater, Window::Bytes512, MESSAGE_BYTES_MIN), shrinkage);
        assert_eq!(again.bytes, out.bytes);
        assert!(has_long_message(&plain, TICK.len()) && !has_long_message(&plain, TICK.len() + 1));
    }

    #[test]
    fn a_window_keeps_no_more_than_may_be_referred_to() {
        let mut context = Context::new(Window::KiB4, 1000);
        assert_eq!(context.window, Window::KiB1);
        let mut all = Vec::new();
        for length in [10, 600, 390, 1, 999, 1000, 5000, 3, 700, 700, 700] {
            let payload: Vec<u8> = (0..length).map(|index| (index % 253) as u8).collect();
            context.append(&payload);
            all.extend_from_slice(&payload);
            assert_eq!(context.bytes(), &all[all.len().saturating_sub(1000)..]);
            assert!(context.bytes_held() <= 2000);
        }
        assert_eq!(Context::new(Window::KiB1, 1 << 15).bytes_max, 1024, "a client's own limit counts");
    }
}
