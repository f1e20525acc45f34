//! Messages and control frames out of a client's bytes (RFC 6455 sections 5.4 to 5.6 and 8.1, RFC 7692 section 6.2).
//!
//! Owns the rules that span frames: fragments, the size of the whole message, UTF-8 across
//! fragments. Rules of one header are [`frame`](super::frame)'s. A compressed message is kept as it came until its last
//! fragment, so that the inflater, of which a shard has one, is between two messages whenever another client speaks.
//!
//! Invariants:
//! - [`read`] changes `input` only when the frame at its front is complete, and then only that
//!   frame's payload. If it unmasked earlier, the next call would mask again.
//! - [`Fragments`] exist from a message's first fragment to its last; when [`read`] returns the
//!   message, they are gone and their buffer is the caller's.

use std::borrow::Cow;

pub use super::violation::Violation;
use super::{
    close,
    deflate::Inflater,
    frame::{self, Control, Data, Header, HeaderRead, OpCode},
    mask, utf8,
};
use crate::limits::deflated_bytes_max;

/// What a client said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message.
    Message {
        /// Sent as binary; otherwise as text, and `payload` is valid UTF-8.
        binary: bool,
        /// Borrowed from the input if the message came in one frame and is not compressed.
        payload: Cow<'a, [u8]>,
    },
    /// To be answered by a pong with the same payload (section 5.5.2).
    Ping(&'a [u8]),
    /// The answer to a ping, or unasked (section 5.5.3).
    Pong(&'a [u8]),
    /// The client closes, or answers a close. What follows in the input has no meaning (section 5.5.1).
    Close {
        /// None: the frame had no payload.
        code: Option<u16>,
        /// For logs; "" if there is none.
        reason: &'a str,
    },
    /// A fragment was taken in and its message goes on.
    Continue,
}

/// The outcome of [`read`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read<'a> {
    /// The frame at the front of the input is not complete.
    Incomplete {
        /// Bytes, from the frame's first, that are wanted before it is worth calling again. At
        /// most the message limit, or what a message of that size may be compressed to, and a header.
        bytes_min: usize,
    },
    /// A frame was read.
    Event {
        /// What it said.
        event: Event<'a>,
        /// Its length: to be removed from the front of the input.
        bytes: usize,
    },
}

/// The fragments of a message that is under way.
#[derive(Debug)]
pub struct Fragments {
    /// Unmasked payloads so far, one behind the other.
    payload: Vec<u8>,
    /// As the first fragment said.
    binary: bool,
    /// As the first fragment said: they are inflated when the last has come.
    is_deflated: bool,
    /// Bytes at the end of a text that are the beginning of a character.
    utf8_tail_bytes: u8,
}

// What a connection pays while it has a fragmented message under way (the payload aside), and while it has none.
const _: () = assert!(size_of::<Fragments>() == 32);
const _: () = assert!(size_of::<Option<Box<Fragments>>>() == 8);

/// Reads the frame at the front of `input`, unmasks it in place and says what it means.
///
/// `fragments` belongs to the connection and begins as `None`. `message_bytes_max` limits a
/// message, all fragments together; it is checked as soon as a header tells the length, and of a compressed message once
/// more while it is inflated. `inflater` is there if permessage-deflate was agreed on with the client. After a
/// [`Violation`] the connection is to be closed; nothing that follows can be read.
pub fn read<'a>(
    input: &'a mut [u8],
    fragments: &mut Option<Box<Fragments>>,
    message_bytes_max: usize,
    inflater: Option<&mut Inflater>,
) -> Result<Read<'a>, Violation> {
    let header = match frame::read_header(input, inflater.is_some())? {
        HeaderRead::Incomplete { bytes_min } => return Ok(Read::Incomplete { bytes_min }),
        HeaderRead::Complete(header) => header,
    };
    let payload_bytes = check_in_context(&header, fragments.as_deref(), message_bytes_max)?;
    let bytes = header.bytes + payload_bytes;
    let Some(payload) = input.get_mut(header.bytes..bytes) else {
        return Ok(Read::Incomplete { bytes_min: bytes });
    };
    mask::apply(payload, header.mask);
    let event = match header.opcode {
        OpCode::Control(control) => read_control(control, payload)?,
        OpCode::Data(data) => read_data(data, &header, payload, fragments, |deflated| {
            let inflater = inflater.expect("a message is taken for compressed only where that was agreed on");
            inflater.inflate(deflated, message_bytes_max)
        })?,
    };
    Ok(Read::Event { event, bytes })
}

/// Holds a header against what came before it. Returns the payload's length, which the limit has made small.
fn check_in_context(
    header: &Header,
    fragments: Option<&Fragments>,
    message_bytes_max: usize,
) -> Result<usize, Violation> {
    let (message_bytes_before, is_deflated) = match (header.opcode, fragments) {
        (OpCode::Control(_), _) => return Ok(header.payload_bytes as usize),
        (OpCode::Data(Data::Continue), None) => return Err(Violation::ContinuationUnexpected),
        (OpCode::Data(Data::Continue), Some(fragments)) => (fragments.payload.len(), fragments.is_deflated),
        (OpCode::Data(_), Some(_)) => return Err(Violation::ContinuationExpected),
        (OpCode::Data(_), None) => (0, header.is_deflated),
    };
    let bytes_max = if is_deflated { deflated_bytes_max(message_bytes_max) } else { message_bytes_max };
    let payload_bytes_max = bytes_max.saturating_sub(message_bytes_before);
    match usize::try_from(header.payload_bytes) {
        Ok(payload_bytes) if payload_bytes <= payload_bytes_max => Ok(payload_bytes),
        _ => Err(Violation::MessageTooLarge),
    }
}

fn read_control(control: Control, payload: &[u8]) -> Result<Event<'_>, Violation> {
    match control {
        Control::Ping => Ok(Event::Ping(payload)),
        Control::Pong => Ok(Event::Pong(payload)),
        Control::Close => close::parse(payload).map(|(code, reason)| Event::Close { code, reason }),
        Control::Reserved(_) => Err(Violation::ReservedOpcode),
    }
}

fn read_data<'a>(
    data: Data,
    header: &Header,
    payload: &'a [u8],
    fragments: &mut Option<Box<Fragments>>,
    inflate: impl FnOnce(&[u8]) -> Result<Vec<u8>, Violation>,
) -> Result<Event<'a>, Violation> {
    let binary = data == Data::Binary;
    match (fragments.as_deref_mut(), header.is_final) {
        (None, true) if header.is_deflated => whole(binary, Cow::Owned(inflate(payload)?)),
        (None, true) => whole(binary, Cow::Borrowed(payload)),
        (None, false) => {
            let begun = Fragments { payload: Vec::new(), binary, is_deflated: header.is_deflated, utf8_tail_bytes: 0 };
            fragments.insert(Box::new(begun)).append(payload)?;
            Ok(Event::Continue)
        }
        (Some(under_way), false) => {
            under_way.append(payload)?;
            Ok(Event::Continue)
        }
        (Some(under_way), true) => {
            under_way.append(payload)?;
            if under_way.utf8_tail_bytes != 0 {
                return Err(Violation::TextNotUtf8);
            }
            let (binary, is_deflated) = (under_way.binary, under_way.is_deflated);
            let payload = std::mem::take(&mut under_way.payload);
            *fragments = None;
            if is_deflated {
                return whole(binary, Cow::Owned(inflate(&payload)?));
            }
            // Checked, fragment by fragment.
            Ok(Event::Message { binary, payload: Cow::Owned(payload) })
        }
    }
}

/// A message whose bytes are all there, and not checked yet.
fn whole(binary: bool, payload: Cow<'_, [u8]>) -> Result<Event<'_>, Violation> {
    if !binary && std::str::from_utf8(&payload).is_err() {
        return Err(Violation::TextNotUtf8);
    }
    Ok(Event::Message { binary, payload })
}

impl Fragments {
    /// Adds a fragment's payload; of a text, checks what is new and what was left open before it.
    fn append(&mut self, payload: &[u8]) -> Result<(), Violation> {
        let checked = self.payload.len() - usize::from(self.utf8_tail_bytes);
        self.payload.extend_from_slice(payload);
        if !self.binary && !self.is_deflated {
            let tail_bytes = utf8::check(&self.payload[checked..]).map_err(|_| Violation::TextNotUtf8)?;
            self.utf8_tail_bytes = u8::try_from(tail_bytes).expect("a character's beginning is at most 3 bytes");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tungstenite::protocol::frame::{Frame, FrameHeader};

    use super::*;
    use crate::websocket::deflate::inflater::tests::{any_payload, deflate};

    const MESSAGE_BYTES_MAX: usize = 1000;

    const CONTINUE: OpCode = OpCode::Data(Data::Continue);
    const TEXT: OpCode = OpCode::Data(Data::Text);
    const BINARY: OpCode = OpCode::Data(Data::Binary);
    const CLOSE: OpCode = OpCode::Control(Control::Close);
    const PING: OpCode = OpCode::Control(Control::Ping);
    const PONG: OpCode = OpCode::Control(Control::Pong);

    /// A client's frame, as `tungstenite` encodes it.
    fn frame(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader { is_final, opcode, mask: Some([0x37, 0xfa, 0x21, 0x3d]), ..FrameHeader::default() };
        let mut bytes = Vec::new();
        Frame::from_payload(header, payload.to_vec().into()).format(&mut bytes).expect("a Vec takes every byte");
        bytes
    }

    /// The same, as the first of a compressed message.
    fn deflated_frame(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
        let mut bytes = frame(opcode, is_final, payload);
        bytes[0] |= 0x40;
        bytes
    }

    /// An [`Event`] that outlives its input.
    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Said {
        Message { binary: bool, payload: Vec<u8> },
        Ping(Vec<u8>),
        Pong(Vec<u8>),
        Close { code: Option<u16>, reason: String },
        Continue,
    }

    impl From<Event<'_>> for Said {
        fn from(event: Event<'_>) -> Self {
            match event {
                Event::Message { binary, payload } => Said::Message { binary, payload: payload.into_owned() },
                Event::Ping(payload) => Said::Ping(payload.to_vec()),
                Event::Pong(payload) => Said::Pong(payload.to_vec()),
                Event::Close { code, reason } => Said::Close { code, reason: reason.to_owned() },
                Event::Continue => Said::Continue,
            }
        }
    }

    fn text(payload: &str) -> Said {
        Said::Message { binary: false, payload: payload.as_bytes().to_vec() }
    }

    /// A connection as the session keeps it.
    #[derive(Default)]
    struct Connection {
        partial: Vec<u8>,
        bytes_min: usize,
        fragments: Option<Box<Fragments>>,
        /// Where permessage-deflate is agreed on.
        inflater: Option<Inflater>,
        said: Vec<Said>,
    }

    impl Connection {
        fn receive(&mut self, bytes: &[u8]) -> Result<(), Violation> {
            self.partial.extend_from_slice(bytes);
            while self.partial.len() >= self.bytes_min.max(1) {
                match read(&mut self.partial, &mut self.fragments, MESSAGE_BYTES_MAX, self.inflater.as_mut())? {
                    Read::Incomplete { bytes_min } => {
                        assert!(bytes_min > self.partial.len(), "asked for bytes that are there");
                        self.bytes_min = bytes_min;
                    }
                    Read::Event { event, bytes } => {
                        self.said.push(event.into());
                        self.partial.drain(..bytes);
                        self.bytes_min = 0;
                    }
                }
            }
            Ok(())
        }
    }

    impl Connection {
        /// One on which permessage-deflate is agreed on.
        fn inflating() -> Self {
            Self { inflater: Some(Inflater::default()), ..Self::default() }
        }
    }

    /// What is said by a whole stream, and how it fails.
    fn read_all(stream: &[u8]) -> (Vec<Said>, Result<(), Violation>) {
        let mut connection = Connection::default();
        let result = connection.receive(stream);
        (connection.said, result)
    }

    /// The same where permessage-deflate is agreed on.
    fn inflate_all(frames: &[Vec<u8>]) -> (Vec<Said>, Result<(), Violation>) {
        let mut connection = Connection::inflating();
        let result = connection.receive(&frames.concat());
        (connection.said, result)
    }

    fn violation(frames: &[Vec<u8>]) -> Violation {
        read_all(&frames.concat()).1.expect_err("a violation")
    }

    #[test]
    fn reads_the_examples_of_the_rfc() {
        // Section 5.7.
        let masked_text = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(read_all(&masked_text), (vec![text("Hello")], Ok(())));
        let masked_pong = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(read_all(&masked_pong), (vec![Said::Pong(b"Hello".to_vec())], Ok(())));
    }

    #[test]
    fn a_message_in_one_frame_is_not_copied() {
        let mut input = frame(TEXT, true, b"Hello");
        let Ok(Read::Event { event: Event::Message { payload, .. }, bytes }) = read(&mut input, &mut None, 5, None)
        else {
            panic!("expected a message");
        };
        assert!(matches!(payload, Cow::Borrowed(b"Hello")));
        assert_eq!(bytes, 11);
    }

    #[test]
    fn an_incomplete_frame_is_left_as_it_came() {
        let whole = frame(TEXT, true, b"Hello");
        for length in 0..whole.len() {
            let mut input = whole[..length].to_vec();
            assert!(matches!(read(&mut input, &mut None, 5, None), Ok(Read::Incomplete { .. })));
            assert_eq!(input, whole[..length]);
        }
    }

    #[test]
    fn control_frames_pass_between_fragments() {
        let stream = [
            frame(TEXT, false, b"Hel"),
            frame(PING, true, b"?"),
            frame(CONTINUE, false, b""),
            frame(PONG, true, b"!"),
            frame(CONTINUE, true, b"lo"),
            frame(CLOSE, true, b"\x03\xe8bye"),
        ]
        .concat();
        let said = vec![
            Said::Continue,
            Said::Ping(b"?".to_vec()),
            Said::Continue,
            Said::Pong(b"!".to_vec()),
            text("Hello"),
            Said::Close { code: Some(1000), reason: "bye".to_owned() },
        ];
        assert_eq!(read_all(&stream), (said, Ok(())));
    }

    #[test]
    fn nothing_is_kept_between_messages() {
        let mut connection = Connection::default();
        connection.receive(&frame(BINARY, false, b"a")).unwrap();
        assert!(connection.fragments.is_some());
        connection.receive(&frame(CONTINUE, true, b"b")).unwrap();
        assert!(connection.fragments.is_none());
        assert!(connection.partial.is_empty());
        assert_eq!(connection.said[1], Said::Message { binary: true, payload: b"ab".to_vec() });
    }

    #[test]
    fn fragments_follow_the_rules() {
        assert_eq!(violation(&[frame(CONTINUE, true, b"a")]), Violation::ContinuationUnexpected);
        assert_eq!(violation(&[frame(CONTINUE, false, b"a")]), Violation::ContinuationUnexpected);
        let after_a_message = [frame(TEXT, true, b"a"), frame(CONTINUE, true, b"b")];
        assert_eq!(violation(&after_a_message), Violation::ContinuationUnexpected);
        for opcode in [TEXT, BINARY] {
            let interleaved = [frame(TEXT, false, b"a"), frame(opcode, true, b"b")];
            assert_eq!(violation(&interleaved), Violation::ContinuationExpected);
        }
    }

    #[test]
    fn rules_of_headers_hold_for_messages() {
        assert_eq!(read_all(b"\xc1\x80").1, Err(Violation::ReservedBit));
        assert_eq!(read_all(b"\x81\x01a").1, Err(Violation::Unmasked));
    }

    #[test]
    fn the_limit_is_judged_by_the_header() {
        let fits = frame(BINARY, true, &[0; MESSAGE_BYTES_MAX]);
        assert_eq!(read_all(&fits).1, Ok(()));
        let large = frame(BINARY, true, &[0; MESSAGE_BYTES_MAX + 1]);
        assert_eq!(read_all(&large[..8]).1, Err(Violation::MessageTooLarge));
        let huge = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        assert_eq!(read_all(&huge).1, Err(Violation::MessageTooLarge));
    }

    #[test]
    fn the_limit_holds_for_all_fragments_together() {
        let begun = [frame(TEXT, false, &[b'a'; 600]), frame(CONTINUE, false, &[b'b'; 399])].concat();
        assert_eq!(read_all(&[begun.as_slice(), &frame(CONTINUE, true, b"c")].concat()).1, Ok(()));
        let above = frame(CONTINUE, true, b"cd");
        assert_eq!(read_all(&[begun.as_slice(), &above[..6]].concat()).1, Err(Violation::MessageTooLarge));
        // A control frame between is no part of the message.
        let ping = frame(PING, true, &[0; 125]);
        assert_eq!(read_all(&[begun.as_slice(), &ping].concat()).1, Ok(()));
    }

    #[test]
    fn text_is_utf8_and_binary_is_anything() {
        assert_eq!(violation(&[frame(TEXT, true, b"\xff")]), Violation::TextNotUtf8);
        assert_eq!(violation(&[frame(TEXT, true, b"\xe2\x82")]), Violation::TextNotUtf8);
        let binary = [frame(BINARY, false, b"\xff"), frame(CONTINUE, true, b"\xe2\x82")].concat();
        let message = Said::Message { binary: true, payload: b"\xff\xe2\x82".to_vec() };
        assert_eq!(read_all(&binary), (vec![Said::Continue, message], Ok(())));
    }

    #[test]
    fn a_character_may_be_split_across_fragments() {
        let stream = [
            frame(TEXT, false, b"a\xf0"),
            frame(CONTINUE, false, b"\x9f"),
            frame(PING, true, b""),
            frame(CONTINUE, false, b""),
            frame(CONTINUE, false, b"\x98"),
            frame(CONTINUE, true, b"\x80b"),
        ]
        .concat();
        let (said, result) = read_all(&stream);
        assert_eq!(result, Ok(()));
        assert_eq!(said.last(), Some(&text("a😀b")));
    }

    #[test]
    fn invalid_text_fails_with_its_fragment() {
        assert_eq!(violation(&[frame(TEXT, false, b"a\xff")]), Violation::TextNotUtf8);
        // The first half of a surrogate: nothing that follows could mend it.
        assert_eq!(violation(&[frame(TEXT, false, b"\xed"), frame(CONTINUE, false, b"\xa0")]), Violation::TextNotUtf8);
        // A character that is open when the next fragment begins another.
        assert_eq!(violation(&[frame(TEXT, false, b"\xe2\x82"), frame(CONTINUE, false, b"A")]), Violation::TextNotUtf8);
        // A character that is open when the message ends.
        assert_eq!(violation(&[frame(TEXT, false, b"\xe2\x82"), frame(CONTINUE, true, b"")]), Violation::TextNotUtf8);
    }

    #[test]
    fn close_frames_are_checked() {
        let close = |payload: &[u8]| read_all(&frame(CLOSE, true, payload));
        assert_eq!(close(b"").0, [Said::Close { code: None, reason: String::new() }]);
        assert_eq!(close(b"\x03").1, Err(Violation::CloseTruncated));
        assert_eq!(close(b"\x03\xee").1, Err(Violation::CloseCodeInvalid));
        assert_eq!(close(b"\x03\xe8\xff").1, Err(Violation::CloseReasonNotUtf8));
    }

    #[test]
    fn compressed_messages_are_inflated() {
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let (said, result) = inflate_all(&[
            deflated_frame(TEXT, true, &hello),
            // RFC 7692 section 7.2.3.1: the same in two fragments; here with a ping between them.
            deflated_frame(TEXT, false, &hello[..3]),
            frame(PING, true, b"plain"),
            frame(CONTINUE, true, &hello[3..]),
            // What is not marked is as it is, and may come beside.
            frame(TEXT, true, b"plain"),
            deflated_frame(BINARY, false, b""),
            frame(CONTINUE, false, &deflate(b"\xff", 1)),
            frame(CONTINUE, true, b""),
        ]);
        let binary = Said::Message { binary: true, payload: b"\xff".to_vec() };
        let hello = text("Hello");
        let ping = Said::Ping(b"plain".to_vec());
        let expected =
            [hello.clone(), Said::Continue, ping, hello, text("plain"), Said::Continue, Said::Continue, binary];
        assert_eq!((said.as_slice(), result), (&expected[..], Ok(())));
    }

    #[test]
    fn the_compression_bit_needs_an_agreement_and_a_beginning() {
        let hello = deflate(b"Hello", 6);
        assert_eq!(violation(&[deflated_frame(TEXT, true, &hello)]), Violation::ReservedBit);
        for frames in [
            vec![deflated_frame(PING, true, b"")],
            vec![deflated_frame(TEXT, false, &hello[..2]), deflated_frame(CONTINUE, true, &hello[2..])],
            vec![frame(TEXT, false, b"a"), deflated_frame(CONTINUE, true, &hello)],
            vec![deflated_frame(CLOSE, true, b"")],
        ] {
            assert_eq!(inflate_all(&frames).1, Err(Violation::CompressedBitMisplaced));
        }
        let begun_twice = [deflated_frame(TEXT, false, &hello), deflated_frame(TEXT, true, &hello)];
        assert_eq!(inflate_all(&begun_twice).1, Err(Violation::ContinuationExpected));
    }

    #[test]
    fn text_is_utf8_once_it_is_inflated() {
        // Compressed bytes are not text, and nobody asks them to be.
        let expected = "é".repeat(400);
        let message = deflate(expected.as_bytes(), 6);
        let fragments = [deflated_frame(TEXT, false, &message[..1]), frame(CONTINUE, true, &message[1..])];
        assert_eq!(inflate_all(&fragments), (vec![Said::Continue, text(&expected)], Ok(())));
        for payload in [&b"a\xff"[..], b"\xe2\x82"] {
            let message = deflate(payload, 6);
            assert_eq!(inflate_all(&[deflated_frame(TEXT, true, &message)]).1, Err(Violation::TextNotUtf8));
            let fragments = [deflated_frame(TEXT, false, &message), frame(CONTINUE, true, b"")];
            assert_eq!(inflate_all(&fragments).1, Err(Violation::TextNotUtf8));
        }
    }

    #[test]
    fn the_limit_holds_compressed_and_inflated() {
        let most = vec![7; MESSAGE_BYTES_MAX];
        assert_eq!(inflate_all(&[deflated_frame(BINARY, true, &deflate(&most, 9))]).1, Ok(()));
        let more = vec![7; MESSAGE_BYTES_MAX + 1];
        assert_eq!(inflate_all(&[deflated_frame(BINARY, true, &deflate(&more, 9))]).1, Err(Violation::MessageTooLarge));
        // What deflate cannot make shorter becomes longer, and is still a message of the size that may be.
        let mut state = 1_u32;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        };
        let random: Vec<u8> = (0..MESSAGE_BYTES_MAX).map(|_| random()).collect();
        for level in [0, 9] {
            let message = deflate(&random, level);
            assert!(message.len() > MESSAGE_BYTES_MAX);
            assert_eq!(inflate_all(&[deflated_frame(BINARY, true, &message)]).1, Ok(()), "level {level}");
        }
        // But no longer than that, whatever it would become: judged by the header, alone or with the fragments before.
        let bytes_max = deflated_bytes_max(MESSAGE_BYTES_MAX);
        let too_long = deflated_frame(BINARY, true, &vec![0; bytes_max + 1]);
        assert_eq!(inflate_all(&[too_long[..8].to_vec()]).1, Err(Violation::MessageTooLarge));
        let begun = deflated_frame(BINARY, false, &vec![0; bytes_max]);
        let one_more = frame(CONTINUE, false, b"0");
        assert_eq!(inflate_all(std::slice::from_ref(&begun)).1, Ok(()));
        assert_eq!(inflate_all(&[begun, one_more[..6].to_vec()]).1, Err(Violation::MessageTooLarge));
    }

    #[test]
    fn what_cannot_be_inflated_is_a_violation() {
        assert_eq!(inflate_all(&[deflated_frame(TEXT, true, b"\x06")]).1, Err(Violation::DeflateInvalid));
        let cut_off = deflate(b"a text that was longer once", 6);
        let cut_off = &cut_off[..cut_off.len() / 2];
        assert_eq!(inflate_all(&[deflated_frame(TEXT, true, cut_off)]).1, Err(Violation::DeflateUnfinished));
    }

    /// A message with the places where it is cut into fragments and a ping between them.
    fn any_message() -> impl Strategy<Value = (Said, Vec<prop::sample::Index>, Option<Vec<u8>>)> {
        let binary =
            prop::collection::vec(any::<u8>(), 0..300).prop_map(|payload| Said::Message { binary: true, payload });
        let text = any::<String>().prop_map(|payload| text(&payload));
        let ping = prop::option::of(prop::collection::vec(any::<u8>(), 0..=125));
        (prop_oneof![binary, text], prop::collection::vec(any::<prop::sample::Index>(), 0..4), ping)
    }

    /// The frames of a message and what is to be read from them; compressed, if a level is given.
    fn encode(
        message: &Said,
        cuts: &[prop::sample::Index],
        ping: &Option<Vec<u8>>,
        level: Option<u32>,
    ) -> (Vec<u8>, Vec<Said>) {
        let Said::Message { binary, payload } = message else { panic!("expected a message") };
        let payload = level.map_or_else(|| payload.clone(), |level| deflate(payload, level));
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
        cuts.sort_unstable();
        let (mut stream, mut said, mut start) = (Vec::new(), Vec::new(), 0);
        let mut opcode = if *binary { BINARY } else { TEXT };
        for cut in cuts {
            stream.extend(frame(opcode, false, &payload[start..cut]));
            said.push(Said::Continue);
            if let Some(ping) = ping {
                stream.extend(frame(PING, true, ping));
                said.push(Said::Ping(ping.clone()));
            }
            (opcode, start) = (CONTINUE, cut);
        }
        stream.extend(frame(opcode, true, &payload[start..]));
        said.push(message.clone());
        if level.is_some() {
            stream[0] |= 0x40;
        }
        (stream, said)
    }

    /// Receives a stream in pieces.
    fn receive_cut(connection: &mut Connection, stream: &[u8], cuts: &[prop::sample::Index]) -> Result<(), Violation> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let mut start = 0;
        for cut in cuts.into_iter().chain([stream.len()]) {
            connection.receive(&stream[start..cut])?;
            start = cut;
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn the_network_may_cut_anywhere(
            messages in prop::collection::vec(any_message(), 1..5),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let (streams, said): (Vec<_>, Vec<_>) =
                messages.iter().map(|(message, cuts, ping)| encode(message, cuts, ping, None)).unzip();
            let mut connection = Connection::default();
            prop_assert_eq!(receive_cut(&mut connection, &streams.concat(), &cuts), Ok(()));
            prop_assert_eq!(connection.said, said.concat());
            prop_assert!(connection.partial.is_empty() && connection.fragments.is_none());
        }

        #[test]
        fn compressed_messages_may_be_cut_anywhere(
            messages in prop::collection::vec((any_message(), prop::option::of(0..=9_u32)), 1..5),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let (streams, said): (Vec<_>, Vec<_>) = messages
                .iter()
                .map(|((message, cuts, ping), level)| encode(message, cuts, ping, *level))
                .unzip();
            let mut connection = Connection::inflating();
            prop_assert_eq!(receive_cut(&mut connection, &streams.concat(), &cuts), Ok(()));
            prop_assert_eq!(connection.said, said.concat());
            prop_assert!(connection.partial.is_empty() && connection.fragments.is_none());
        }

        #[test]
        fn garbage_is_read_alike_whole_and_byte_by_byte(
            stream in prop::collection::vec(any::<u8>(), 0..200),
            is_inflating: bool,
        ) {
            let connection = || if is_inflating { Connection::inflating() } else { Connection::default() };
            let (mut whole, mut cut) = (connection(), connection());
            let result = whole.receive(&stream);
            let by_bytes = stream.chunks(1).try_for_each(|byte| cut.receive(byte));
            prop_assert_eq!((cut.said, by_bytes), (whole.said, result));
        }

        #[test]
        fn compressed_garbage_is_read_alike_whole_and_byte_by_byte(
            payloads in prop::collection::vec((any_payload(300), any::<bool>(), any::<bool>()), 1..4),
        ) {
            let frames = payloads.iter().map(|(payload, is_text, is_final)| {
                deflated_frame(if *is_text { TEXT } else { BINARY }, *is_final, payload)
            });
            let stream = frames.collect::<Vec<_>>().concat();
            let (mut whole, mut cut) = (Connection::inflating(), Connection::inflating());
            let result = whole.receive(&stream);
            let by_bytes = stream.chunks(1).try_for_each(|byte| cut.receive(byte));
            prop_assert_eq!((cut.said, by_bytes), (whole.said, result));
        }
    }
}
