//! Messages compressed one by one (RFC 7692 section 7.2.1), each with a window that the caller names.

use flate2::{Compress, Compression, FlushCompress, Status};

use super::Window;

/// zlib's level. On ticks of 180 bytes, level 1 leaves 24 %, 6 21 %, 9 20 % of them, at one, two and three times the time.
const LEVEL: u32 = 6;

/// What an empty stored block ends with, by which a message is flushed; it is left out (section 7.2.1).
const FLUSH_TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// A compressed message without payload (section 7.2.3.6).
const EMPTY: u8 = 0x00;

/// Bytes of room that an encoder is offered beyond what it is given: a header of a block, and the flush.
const ROOM_BYTES: usize = 64;

/// A shard's compressors, one for each window that is in use.
#[derive(Debug, Default)]
pub struct Deflater {
    encoders: [Option<Box<Compress>>; Window::ALL.len()],
}

impl Deflater {
    /// Begins with a window that holds `context`, of which the last [`Window::bytes`] count. The messages that follow
    /// refer to it, and to each other.
    pub fn begin(&mut self, window: Window, context: &[u8]) -> Compressing<'_> {
        let encoder = self.encoders[window as usize].get_or_insert_with(|| {
            Box::new(Compress::new_with_window_bits(Compression::new(LEVEL), false, window.bits()))
        });
        let mut compressing = Compressing { encoder, window };
        compressing.begin_anew(context);
        compressing
    }
}

/// Messages that are being compressed one after the other.
#[derive(Debug)]
pub struct Compressing<'a> {
    encoder: &'a mut Compress,
    window: Window,
}

impl Compressing<'_> {
    /// Forgets what was compressed since, and goes on with a window that holds `context`.
    pub fn begin_anew(&mut self, context: &[u8]) {
        self.encoder.reset();
        let context = &context[context.len().saturating_sub(self.window.bytes())..];
        if !context.is_empty() {
            self.encoder.set_dictionary(context).expect("a raw stream takes a dictionary wherever it stands");
        }
    }

    /// Appends a message's compressed payload to `out`.
    pub fn compress(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        if payload.is_empty() {
            // An encoder that was given nothing has nothing to flush.
            out.push(EMPTY);
            return;
        }
        let begin = self.encoder.total_in();
        loop {
            let taken = (self.encoder.total_in() - begin) as usize;
            out.reserve(payload.len() - taken + ROOM_BYTES);
            let status = self.encoder.compress_vec(&payload[taken..], out, FlushCompress::Sync);
            assert!(matches!(status, Ok(Status::Ok)), "an encoder with input and room goes on: {status:?}");
            let is_taken = (self.encoder.total_in() - begin) as usize == payload.len();
            // With room left, the flush has ended.
            if is_taken && out.len() < out.capacity() {
                break;
            }
        }
        assert!(out.ends_with(&FLUSH_TAIL), "a flushed message ends with an empty stored block");
        out.truncate(out.len() - FLUSH_TAIL.len());
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Decompress, FlushDecompress};
    use proptest::prelude::*;

    use super::*;

    /// A client's inflater, which keeps its window.
    struct Client(Decompress);

    impl Client {
        fn new() -> Self {
            Self(Decompress::new(false))
        }

        fn read(&mut self, message: &[u8]) -> Vec<u8> {
            let input = [message, &FLUSH_TAIL].concat();
            let (begin, mut out) = (self.0.total_in(), Vec::new());
            loop {
                let taken = (self.0.total_in() - begin) as usize;
                out.reserve(1024);
                self.0.decompress_vec(&input[taken..], &mut out, FlushDecompress::Sync).expect("a deflate stream");
                if (self.0.total_in() - begin) as usize == input.len() && out.len() < out.capacity() {
                    return out;
                }
            }
        }
    }

    fn compressed(compressing: &mut Compressing<'_>, payload: &[u8]) -> Vec<u8> {
        let mut out = b"before".to_vec();
        compressing.compress(payload, &mut out);
        assert!(out.starts_with(b"before"));
        out.split_off(6)
    }

    #[test]
    fn compresses_as_the_rfc_does() {
        // Section 7.2.3.1 and 7.2.3.2: "Hello", and once more with the first in the window.
        let mut deflater = Deflater::default();
        let mut compressing = deflater.begin(Window::KiB32, &[]);
        assert_eq!(compressed(&mut compressing, b"Hello"), [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
        assert_eq!(compressed(&mut compressing, b"Hello"), [0xf2, 0x00, 0x11, 0x00, 0x00]);
        assert_eq!(compressed(&mut deflater.begin(Window::KiB32, b"Hello"), b"Hello"), [0xf2, 0x00, 0x11, 0x00, 0x00]);
    }

    #[test]
    fn an_empty_message_is_an_empty_block() {
        let mut deflater = Deflater::default();
        let mut compressing = deflater.begin(Window::KiB4, b"x");
        let messages = [b"".as_slice(), b"x", b"", b""].map(|payload| compressed(&mut compressing, payload));
        assert_eq!(messages[0], [0x00]);
        let mut client = Client::new();
        client.0.set_dictionary(b"x").expect("a raw stream takes one");
        assert_eq!(messages.map(|message| client.read(&message)), [b"".as_slice(), b"x", b"", b""]);
    }

    #[test]
    fn what_is_begun_anew_refers_to_its_context_only() {
        let mut deflater = Deflater::default();
        let mut compressing = deflater.begin(Window::KiB1, b"");
        let secret = b"a secret of somebody else's, long enough to be referred to";
        let first = compressed(&mut compressing, secret);
        assert_eq!(Client::new().read(&first), secret);
        compressing.begin_anew(b"");
        let again = compressed(&mut compressing, secret);
        assert_eq!(again, first);
        assert_eq!(Client::new().read(&again), secret, "a client without any window reads it");
    }

    /// How far back a deflate stream refers at most, by an own reading of its blocks (RFC 1951).
    fn distance_max(stream: &[u8]) -> usize {
        super::super::distances::distance_max(stream)
    }

    /// Messages that repeat themselves and each other, at distances around the windows' sizes.
    fn any_messages() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let word = prop::collection::vec(any::<u8>(), 3..40);
        let words = prop::collection::vec(word, 1..6);
        let message = prop::collection::vec((any::<prop::sample::Index>(), 1..60_usize), 0..20);
        (words, prop::collection::vec(message, 1..6)).prop_map(|(words, messages)| {
            let message = |parts: &Vec<(prop::sample::Index, usize)>| {
                let repeated = |(word, times): &(prop::sample::Index, usize)| word.get(&words).repeat(*times);
                parts.iter().flat_map(repeated).collect()
            };
            messages.iter().map(message).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn clients_read_what_was_compressed(
            messages in any_messages(),
            window in prop::sample::select(&Window::ALL[..]),
        ) {
            let mut deflater = Deflater::default();
            let (mut client, mut context) = (Client::new(), Vec::new());
            let mut batch = Vec::new();
            for (index, message) in messages.iter().enumerate() {
                // Compressed with all before it in one go, and with a window that is told anew each time.
                let mut compressing = deflater.begin(window, &context);
                let told = compressed(&mut compressing, message);
                prop_assert!(distance_max(&told) <= window.bytes());
                prop_assert_eq!(&client.read(&told), message);
                context.extend_from_slice(message);
                batch.push(message);
                if index + 1 == messages.len() {
                    let mut together = deflater.begin(window, &[]);
                    let mut client = Client::new();
                    for message in &batch {
                        let out = compressed(&mut together, message);
                        prop_assert!(distance_max(&out) <= window.bytes());
                        prop_assert_eq!(&&client.read(&out), message);
                    }
                }
            }
        }
    }
}
