//! What a client's compressed messages say (RFC 7692 section 7.2.2).
//!
//! Owns the way from a message's compressed bytes to its own. Leaves to [`message`](crate::websocket::message) which
//! messages are compressed, and whether what comes out is text.
//!
//! Invariants:
//! - Each message begins with an empty window, as [`negotiation`](super::negotiation) makes every client promise. So one
//!   inflater serves all connections of a shard, in any order, and between two messages holds nothing of either.
//! - A message costs its limit at most: the room for what comes out grows step by step and ends one byte beyond the limit,
//!   whatever the input claims to become; and the window is carried over so often as [`DEFLATE_STREAMS_MAX`] says.

use flate2::{Decompress, FlushDecompress, Status};

use crate::{limits::DEFLATE_STREAMS_MAX, websocket::violation::Violation};

/// What stands behind every message: the four bytes that its sender has cut off (section 7.2.1), then an empty block
/// that is marked as the last. A message that ends anywhere but between two blocks is found by that: its unfinished block
/// swallows the mark, or cannot be read.
const TAIL: [u8; 9] = [0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff];

/// The largest window, which is what the inflater has.
const WINDOW_BYTES: usize = 32 * 1024;

/// Bytes that a message is expected to become for each of its own. If it becomes more, the room for it is doubled.
const EXPECTED_RATIO: usize = 4;

/// Room that no message begins with less of, in bytes.
const ROOM_BYTES_MIN: usize = 256;

/// Reads compressed messages, one after the other. Its memory, some 40 KiB, is taken for the first.
#[derive(Debug, Default)]
pub struct Inflater {
    stream: Option<Decompress>,
}

impl Inflater {
    /// What a message says, compressed as it came, of all its frames.
    ///
    /// # Errors
    /// More than `bytes_max` bytes come out, or no message can have been compressed to this.
    pub fn inflate(&mut self, message: &[u8], bytes_max: usize) -> Result<Vec<u8>, Violation> {
        let stream = self.stream.get_or_insert_with(|| Decompress::new(false));
        stream.reset(false);
        let expected = message.len().saturating_mul(EXPECTED_RATIO).max(ROOM_BYTES_MIN);
        let inflated = Vec::with_capacity(expected.min(bytes_max + 1));
        let mut inflating = Inflating { stream, inflated, bytes_max, has_ended: false, streams: 1 };
        inflating.take(message)?;
        match inflating.take(&TAIL) {
            Ok(()) if inflating.has_ended => Ok(inflating.inflated),
            Ok(()) | Err(Violation::DeflateInvalid) => Err(Violation::DeflateUnfinished),
            Err(violation) => Err(violation),
        }
    }
}

/// A message on its way through the inflater.
struct Inflating<'a> {
    stream: &'a mut Decompress,
    inflated: Vec<u8>,
    bytes_max: usize,
    /// The last block that was read is marked as the last of its stream, and nothing was read behind it.
    has_ended: bool,
    /// Streams begun, each behind the last block of the one before.
    streams: usize,
}

impl Inflating<'_> {
    /// Inflates all of `input`, and all that it makes.
    fn take(&mut self, mut input: &[u8]) -> Result<(), Violation> {
        loop {
            if self.has_ended {
                if input.is_empty() {
                    return Ok(());
                }
                self.begin_stream()?;
            }
            self.make_room();
            let taken_before = self.stream.total_in();
            let status = self
                .stream
                .decompress_vec(input, &mut self.inflated, FlushDecompress::None)
                .map_err(|_| Violation::DeflateInvalid)?;
            if self.inflated.len() > self.bytes_max {
                return Err(Violation::MessageTooLarge);
            }
            let taken = (self.stream.total_in() - taken_before) as usize;
            input = &input[taken..];
            match status {
                Status::StreamEnd => self.has_ended = true,
                // With room left, nothing more comes out of what was taken.
                Status::Ok | Status::BufError if input.is_empty() && self.has_room() => return Ok(()),
                Status::Ok | Status::BufError => {}
            }
        }
    }

    /// Goes on behind a block that was marked as the last of its stream, which senders may do anywhere (section 7.2.3.4).
    /// What came before is still in the window.
    fn begin_stream(&mut self) -> Result<(), Violation> {
        if self.streams == DEFLATE_STREAMS_MAX {
            return Err(Violation::MessageTooLarge);
        }
        self.streams += 1;
        self.has_ended = false;
        self.stream.reset(false);
        let window = &self.inflated[self.inflated.len().saturating_sub(WINDOW_BYTES)..];
        self.stream.set_dictionary(window).map_err(|_| Violation::DeflateInvalid)?;
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.inflated.len() < self.inflated.capacity()
    }

    /// Room for at least one byte, but for no more than shows that the limit is passed.
    fn make_room(&mut self) {
        if !self.has_room() {
            let bytes = self.inflated.len();
            self.inflated.reserve_exact(bytes.clamp(1, self.bytes_max + 1 - bytes));
        }
    }
}

#[cfg(test)]
pub(in crate::websocket) mod tests {
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;

    use super::*;

    const BYTES_MAX: usize = 64 * 1024;

    /// Compresses `input` with the reference, and appends what comes out.
    fn compress(compress: &mut Compress, input: &[u8], flush: FlushCompress, out: &mut Vec<u8>) {
        let taken_before = compress.total_in();
        let mut taken = 0;
        loop {
            out.reserve(1024);
            compress.compress_vec(&input[taken..], out, flush).expect("the reference compresses");
            taken = (compress.total_in() - taken_before) as usize;
            if taken == input.len() && out.len() < out.capacity() {
                return;
            }
        }
    }

    /// A message as a client compresses it (section 7.2.1).
    pub fn deflate(payload: &[u8], level: u32) -> Vec<u8> {
        let mut out = Vec::new();
        compress(&mut Compress::new(Compression::new(level), false), payload, FlushCompress::Sync, &mut out);
        assert!(out.ends_with(&TAIL[..4]));
        out.truncate(out.len() - 4);
        out
    }

    fn inflate(message: &[u8]) -> Result<Vec<u8>, Violation> {
        Inflater::default().inflate(message, BYTES_MAX)
    }

    /// A text that compresses well, and not at once.
    fn prose(bytes: usize) -> Vec<u8> {
        (0_usize..).flat_map(|number| format!("line {} of many, ", number * number).into_bytes()).take(bytes).collect()
    }

    #[test]
    fn reads_the_examples_of_the_rfc() {
        for (message, text) in [
            // Section 7.2.3.1, 7.2.3.3 (not compressed), 7.2.3.4 (marked as the last), 7.2.3.5 (two blocks).
            (&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..], "Hello"),
            (&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00], "Hello"),
            (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], "Hello"),
            (&[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00], "Hello"),
            // Section 7.2.3.6: nothing.
            (&[0x00], ""),
            (&[0x02, 0x00], ""),
        ] {
            assert_eq!(inflate(message), Ok(text.as_bytes().to_vec()), "{message:02x?}");
        }
    }

    #[test]
    fn each_message_begins_with_an_empty_window() {
        let mut inflater = Inflater::default();
        assert_eq!(inflater.inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], BYTES_MAX), Ok(b"Hello".to_vec()));
        // Section 7.2.3.2: the same once more, by reference to the first.
        let second = [0xf2, 0x00, 0x11, 0x00, 0x00];
        assert_eq!(inflater.inflate(&second, BYTES_MAX), Err(Violation::DeflateInvalid));
        // A message that could not be read leaves nothing behind.
        assert_eq!(inflater.inflate(&deflate(b"third", 9), BYTES_MAX), Ok(b"third".to_vec()));
    }

    #[test]
    fn what_is_cut_off_is_found() {
        let message = deflate(&prose(3000), 6);
        assert_eq!(inflate(&message), Ok(prose(3000)));
        for bytes in 0..message.len() {
            assert_eq!(inflate(&message[..bytes]), Err(Violation::DeflateUnfinished), "{bytes} bytes");
        }
    }

    #[test]
    fn what_is_not_deflate_is_found() {
        for (message, violation) in [
            // A kind of block that there is not; lengths that contradict each other; a distance to before the beginning.
            (&[0x06][..], Violation::DeflateInvalid),
            (&[0x00, 0x05, 0x00, 0x00, 0x00, 0x48], Violation::DeflateInvalid),
            (&[0xf2, 0x00, 0x11, 0x00, 0x00], Violation::DeflateInvalid),
            // Nothing at all.
            (&[], Violation::DeflateUnfinished),
            // A last block without what section 7.2.1 wants behind it.
            (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], Violation::DeflateUnfinished),
            // The four bytes that the sender has to cut off.
            (&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00, 0x00, 0xff, 0xff], Violation::DeflateUnfinished),
            // A text as it is, in whose first byte there is a block of the second kind.
            (b"{\"id\":1,\"connect\":{}}", Violation::DeflateUnfinished),
        ] {
            assert_eq!(inflate(message), Err(violation), "{message:02x?}");
        }
    }

    #[test]
    fn a_bomb_costs_its_limit() {
        let bomb = deflate(&vec![0; 10_000_000], 9);
        assert!(bomb.len() < BYTES_MAX);
        assert_eq!(inflate(&bomb), Err(Violation::MessageTooLarge));
        for bytes_max in [0, 1, 255, 256, 1000] {
            let mut inflater = Inflater::default();
            let fits = inflater.inflate(&deflate(&vec![0; bytes_max], 9), bytes_max).expect("what fits");
            assert_eq!(fits.len(), bytes_max);
            assert!(fits.capacity() <= bytes_max + 1, "{} bytes for {bytes_max}", fits.capacity());
            let more = deflate(&vec![0; bytes_max + 1], 9);
            assert_eq!(inflater.inflate(&more, bytes_max), Err(Violation::MessageTooLarge));
        }
    }

    #[test]
    fn blocks_behind_a_last_one_go_on_with_its_window() {
        let (first, second) = (prose(20_000), prose(30_000));
        let mut message = Vec::new();
        compress(&mut Compress::new(Compression::best(), false), &first, FlushCompress::Finish, &mut message);
        let first_bytes = message.len();
        let mut going_on = Compress::new(Compression::best(), false);
        going_on.set_dictionary(&first).expect("a window");
        compress(&mut going_on, &second, FlushCompress::Finish, &mut message);
        assert!(message.len() - first_bytes < first_bytes, "the second stream refers to the first");
        message.push(0);
        assert_eq!(inflate(&message), Ok([first, second].concat()));
    }

    #[test]
    fn streams_are_counted() {
        // An empty block that is marked as the last.
        let empty = [0x03, 0x00];
        let message = |streams: usize| [&empty.repeat(streams)[..], &[0x00]].concat();
        assert_eq!(inflate(&message(DEFLATE_STREAMS_MAX - 1)), Ok(Vec::new()));
        assert_eq!(inflate(&message(DEFLATE_STREAMS_MAX)), Err(Violation::MessageTooLarge));
    }

    /// Bytes of which some compress well.
    pub fn any_payload(bytes_max: usize) -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..bytes_max),
            prop::collection::vec(b'a'..=b'c', 0..bytes_max),
            (any::<u8>(), 0..bytes_max).prop_map(|(byte, bytes)| vec![byte; bytes]),
        ]
    }

    proptest! {
        #[test]
        fn what_the_reference_compresses_is_read(
            payloads in prop::collection::vec((any_payload(3000), 0..=9_u32), 1..5),
        ) {
            let mut inflater = Inflater::default();
            for (payload, level) in payloads {
                prop_assert_eq!(inflater.inflate(&deflate(&payload, level), payload.len()), Ok(payload));
            }
        }

        #[test]
        fn a_message_may_be_any_sequence_of_blocks(
            pieces in prop::collection::vec((any_payload(500), 0..4_u8), 0..6),
            level in 0..=9_u32,
        ) {
            let mut compressing = Compress::new(Compression::new(level), false);
            let (mut message, mut payload) = (Vec::new(), Vec::new());
            for (piece, flush) in pieces {
                let flush = [FlushCompress::None, FlushCompress::Sync, FlushCompress::Full, FlushCompress::Finish]
                    [usize::from(flush)];
                compress(&mut compressing, &piece, flush, &mut message);
                payload.extend(piece);
                if matches!(flush, FlushCompress::Finish) {
                    compressing.reset();
                }
            }
            compress(&mut compressing, &[], FlushCompress::Sync, &mut message);
            // An empty block, unless the last flush has just written one.
            if message.ends_with(&TAIL[..4]) {
                message.truncate(message.len() - 4);
            } else {
                message.push(0);
            }
            prop_assert_eq!(inflate(&message), Ok(payload));
        }

        #[test]
        fn garbage_is_refused_or_keeps_its_limit(message in prop::collection::vec(any::<u8>(), 0..300), bytes_max in 0..500_usize) {
            let mut inflater = Inflater::default();
            if let Ok(inflated) = inflater.inflate(&message, bytes_max) {
                prop_assert!(inflated.len() <= bytes_max);
            }
            prop_assert_eq!(inflater.inflate(&deflate(b"next", 1), 4), Ok(b"next".to_vec()));
        }
    }
}
