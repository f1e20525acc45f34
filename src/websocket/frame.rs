//! Frames: reading a client's header, writing the server's frames (RFC 6455 section 5.2).
//!
//! Owns the header's bytes and the rules that can be judged by them alone. Rules that need to
//! know what came before (fragments, the size of the whole message) are [`message`](super::message)'s.
//!
//! `tungstenite` has a codec for headers too. Our own refuses a bad frame by its first two bytes, sees
//! lengths that are not minimal, names each mistake, writes without a detour through a `Write`, and
//! leaves `tungstenite` an independent reference in the tests.
//!
//! Invariant: what is written is one whole frame, unmasked, with FIN. A server never masks
//! (section 5.1), and frames shared by many connections must stand alone.

pub use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::{close, violation::Violation};
use crate::limits::{CONTROL_FRAME_BYTES_MAX, FRAME_HEADER_BYTES_MAX};

/// Bytes that [`begin`] leaves free: the header of a payload of 126 to 65,535 bytes, the usual
/// publication. A payload of another length class is moved by [`finish`].
const RESERVED_BYTES: usize = 4;

/// In a header's first byte: the frame ends its message.
const FIN: u8 = 0x80;

/// In a header's first byte, with permessage-deflate: the message is compressed (RFC 7692 section 6).
const RSV1: u8 = 0x40;

/// Longest header that the server writes, in bytes: a client's without the mask.
const WRITTEN_HEADER_BYTES_MAX: usize = FRAME_HEADER_BYTES_MAX - 4;

/// The header of a client's frame that obeys every rule a header can obey alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Last frame of its message.
    pub is_final: bool,
    /// Never a reserved one.
    pub opcode: OpCode,
    /// First frame of a message that is compressed, all fragments together.
    pub is_deflated: bool,
    /// Key of the payload's mask.
    pub mask: [u8; 4],
    /// Length of the header itself.
    pub bytes: usize,
    /// Length of the payload; below 2^63.
    pub payload_bytes: u64,
}

/// What the first bytes of a frame tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderRead {
    /// The header goes on.
    Incomplete {
        /// Bytes, from the frame's first, that are needed to know more.
        bytes_min: usize,
    },
    /// The header is whole.
    Complete(Header),
}

/// Reads the header at the front of `input`. A mistake in the first two bytes or in the length is
/// told as soon as these have arrived, whatever else is missing.
///
/// `may_be_deflated`: permessage-deflate was agreed on with the client.
pub fn read_header(input: &[u8], may_be_deflated: bool) -> Result<HeaderRead, Violation> {
    let Some((&[first, second], rest)) = input.split_first_chunk() else {
        return Ok(HeaderRead::Incomplete { bytes_min: 2 });
    };
    let (is_final, opcode, is_deflated) = check_first(first, may_be_deflated)?;
    if second & 0x80 == 0 {
        return Err(Violation::Unmasked);
    }
    let length = second & 0x7f;
    if matches!(opcode, OpCode::Control(_)) {
        if !is_final {
            return Err(Violation::ControlFragmented);
        }
        if usize::from(length) > CONTROL_FRAME_BYTES_MAX {
            return Err(Violation::ControlTooLong);
        }
    }
    let (payload_bytes, length_bytes) = match length {
        126 => {
            let Some(length) = rest.first_chunk() else { return Ok(HeaderRead::Incomplete { bytes_min: 4 }) };
            let length = u64::from(u16::from_be_bytes(*length));
            if length < 126 {
                return Err(Violation::LengthNotMinimal);
            }
            (length, 2)
        }
        127 => {
            let Some(length) = rest.first_chunk() else { return Ok(HeaderRead::Incomplete { bytes_min: 10 }) };
            let length = u64::from_be_bytes(*length);
            if length >> 63 != 0 {
                return Err(Violation::LengthTopBit);
            }
            if length <= u64::from(u16::MAX) {
                return Err(Violation::LengthNotMinimal);
            }
            (length, 8)
        }
        length => (u64::from(length), 0),
    };
    let bytes = 2 + length_bytes + 4;
    let Some(mask) = rest[length_bytes..].first_chunk() else {
        return Ok(HeaderRead::Incomplete { bytes_min: bytes });
    };
    Ok(HeaderRead::Complete(Header { is_final, opcode, is_deflated, mask: *mask, bytes, payload_bytes }))
}

/// Where a frame begins whose payload is being written behind it.
#[derive(Debug)]
#[must_use = "a frame that is begun and not finished has no header"]
pub struct FrameMark {
    start: usize,
}

/// Leaves room for a header at the end of `out`; the caller appends the payload, then calls [`finish`].
pub fn begin(out: &mut Vec<u8>) -> FrameMark {
    let mark = FrameMark { start: out.len() };
    out.extend_from_slice(&[0; RESERVED_BYTES]);
    mark
}

/// Makes what was appended to `out` since [`begin`] the payload of a frame. Moves it by some
/// bytes if its length is not of the class that [`begin`] expected.
pub fn finish(out: &mut Vec<u8>, mark: FrameMark, opcode: OpCode) {
    let payload_start = mark.start + RESERVED_BYTES;
    assert!(payload_start <= out.len(), "a frame's buffer was cut below the place where the frame began");
    let (header, header_bytes) = header(opcode, out.len() - payload_start);
    if header_bytes == RESERVED_BYTES {
        out[mark.start..payload_start].copy_from_slice(&header[..RESERVED_BYTES]);
    } else {
        out.splice(mark.start..payload_start, header[..header_bytes].iter().copied());
    }
}

/// The same for the compressed payload of a message, of which it is the only frame.
pub fn finish_deflated(out: &mut Vec<u8>, mark: FrameMark, data: Data) {
    let start = mark.start;
    finish(out, mark, OpCode::Data(data));
    out[start] |= RSV1;
}

/// What a message is and says that was written as one frame by this module, without compression.
///
/// # Panics
/// If it was not.
pub fn written_message(frame: &[u8]) -> (Data, &[u8]) {
    let OpCode::Data(data) = OpCode::from(frame[0] & 0x0f) else { panic!("a message is no control frame") };
    assert_eq!(frame[0] & !0x0f, FIN, "a message is whole and plain");
    let header_bytes = match frame[1] {
        126 => 4,
        127 => WRITTEN_HEADER_BYTES_MAX,
        _ => 2,
    };
    (data, &frame[header_bytes..])
}

/// Appends a whole frame to `out`. The payload of a control frame has at most
/// [`CONTROL_FRAME_BYTES_MAX`] bytes.
pub fn write(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    let (header, header_bytes) = header(opcode, payload.len());
    out.reserve(header.len() + payload.len());
    // All of it, a length that the compiler knows; what the header has not is cut off.
    let start = out.len();
    out.extend_from_slice(&header);
    out.truncate(start + header_bytes);
    out.extend_from_slice(payload);
}

/// Appends a close frame to `out`. The reason is cut at the last character that fits.
///
/// A close frame without a code, the answer to one without a code, is
/// `write(out, OpCode::Control(Control::Close), &[])`.
pub fn write_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    assert!(close::is_code_allowed(code), "close code {code} must not be sent (RFC 6455 section 7.4)");
    let mark = begin(out);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(close::cut_reason(reason).as_bytes());
    finish(out, mark, OpCode::Control(Control::Close));
}

/// FIN, opcode and whether the message is deflated, if the first byte of a header obeys the rules.
fn check_first(first: u8, may_be_deflated: bool) -> Result<(bool, OpCode, bool), Violation> {
    const RSV2_OR_RSV3: u8 = 0x30;

    let is_deflated = first & RSV1 != 0;
    if first & RSV2_OR_RSV3 != 0 || is_deflated && !may_be_deflated {
        return Err(Violation::ReservedBit);
    }
    match OpCode::from(first & 0x0f) {
        OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => Err(Violation::ReservedOpcode),
        OpCode::Data(Data::Continue) | OpCode::Control(_) if is_deflated => Err(Violation::CompressedBitMisplaced),
        opcode => Ok((first & FIN != 0, opcode, is_deflated)),
    }
}

/// The header of an unmasked frame with FIN, and how many of the bytes it takes.
fn header(opcode: OpCode, payload_bytes: usize) -> ([u8; WRITTEN_HEADER_BYTES_MAX], usize) {
    assert!(
        matches!(opcode, OpCode::Data(_)) || payload_bytes <= CONTROL_FRAME_BYTES_MAX,
        "a control frame of {payload_bytes} bytes must not be sent (RFC 6455 section 5.5)"
    );
    let mut bytes = [0; WRITTEN_HEADER_BYTES_MAX];
    bytes[0] = FIN | u8::from(opcode);
    let header_bytes = match payload_bytes {
        0..126 => {
            bytes[1] = payload_bytes as u8;
            2
        }
        126..0x1_0000 => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..10].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
            10
        }
    };
    (bytes, header_bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;
    use tungstenite::{
        Message, WebSocket,
        protocol::{
            CloseFrame, Role,
            frame::{FrameHeader, coding::CloseCode},
        },
    };

    use super::*;

    const TEXT: OpCode = OpCode::Data(Data::Text);
    const BINARY: OpCode = OpCode::Data(Data::Binary);
    const PING: OpCode = OpCode::Control(Control::Ping);

    /// What `tungstenite`'s client makes of the server's bytes.
    fn read_by_reference(bytes: Vec<u8>) -> Message {
        let mut reference = WebSocket::from_raw_socket(Cursor::new(bytes), Role::Client, None);
        reference.read().expect("the reference peer reads what we write")
    }

    fn complete(input: &[u8]) -> Header {
        match read_header(input, false) {
            Ok(HeaderRead::Complete(header)) => header,
            other => panic!("expected a whole header in {input:02x?}, got {other:?}"),
        }
    }

    #[test]
    fn writes_the_examples_of_the_rfc() {
        // Section 5.7.
        let mut out = Vec::new();
        write(&mut out, TEXT, b"Hello");
        assert_eq!(out, [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        out.clear();
        write(&mut out, PING, b"Hello");
        assert_eq!(out, [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        out.clear();
        write(&mut out, BINARY, &[0; 256]);
        assert_eq!(out[..5], [0x82, 0x7e, 0x01, 0x00, 0]);
        out.clear();
        write(&mut out, BINARY, &[0; 65536]);
        assert_eq!(out[..11], [0x82, 0x7f, 0, 0, 0, 0, 0, 0x01, 0, 0, 0]);
    }

    #[test]
    fn a_frame_written_in_place_equals_one_written_whole_in_every_length_class() {
        for payload_bytes in [0, 1, 125, 126, 127, 65535, 65536, 70000] {
            let payload: Vec<u8> = (0..payload_bytes).map(|index| (index % 251) as u8).collect();
            let mut whole = b"before".to_vec();
            write(&mut whole, BINARY, &payload);
            let mut in_place = b"before".to_vec();
            let mark = begin(&mut in_place);
            in_place.extend_from_slice(&payload);
            finish(&mut in_place, mark, BINARY);
            assert!(in_place == whole, "payload of {payload_bytes} bytes");
            assert_eq!(written_message(&whole[6..]), (Data::Binary, &payload[..]));
            let mark = begin(&mut in_place);
            in_place.extend_from_slice(&payload);
            finish_deflated(&mut in_place, mark, Data::Binary);
            let deflated = &in_place[whole.len()..];
            assert_eq!(deflated[0], 0xc2);
            assert!(deflated[1..] == whole[7..], "payload of {payload_bytes} bytes");
        }
    }

    #[test]
    fn frames_follow_each_other_in_one_buffer() {
        let mut out = Vec::new();
        for payload in ["first", "second"] {
            let mark = begin(&mut out);
            out.extend_from_slice(payload.as_bytes());
            finish(&mut out, mark, TEXT);
        }
        assert_eq!(out, b"\x81\x05first\x81\x06second");
    }

    #[test]
    fn a_close_reason_is_cut_between_characters() {
        let mut out = Vec::new();
        // 62 characters of two bytes: the 62nd would end at byte 124.
        write_close(&mut out, 3001, &"é".repeat(62));
        let expected = CloseFrame { code: CloseCode::from(3001), reason: "é".repeat(61).into() };
        assert_eq!(read_by_reference(out), Message::Close(Some(expected)));
    }

    #[test]
    #[should_panic(expected = "close code 1006 must not be sent")]
    fn a_close_code_that_is_never_sent_is_our_mistake() {
        write_close(&mut Vec::new(), 1006, "");
    }

    #[test]
    #[should_panic(expected = "a control frame of 126 bytes must not be sent")]
    fn a_long_control_frame_is_our_mistake() {
        write(&mut Vec::new(), PING, &[0; 126]);
    }

    #[test]
    fn reads_the_lengths_on_both_sides_of_each_class() {
        let mask = [1, 2, 3, 4];
        for (length, bytes, payload_bytes) in [
            (&[0x80][..], 6, 0),
            (&[0xfd], 6, 125),
            (&[0xfe, 0, 126], 8, 126),
            (&[0xfe, 0xff, 0xff], 8, 65535),
            (&[0xff, 0, 0, 0, 0, 0, 1, 0, 0], 14, 65536),
            (&[0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 14, i64::MAX as u64),
        ] {
            let input = [&[0x82], length, &mask].concat();
            let expected = Header { is_final: true, opcode: BINARY, is_deflated: false, mask, bytes, payload_bytes };
            assert_eq!(complete(&input), expected);
        }
    }

    #[test]
    fn asks_for_the_bytes_that_tell_more() {
        for (input, bytes_min) in [
            (&[][..], 2),
            (&[0x82], 2),
            (&[0x82, 0x80], 6),
            (&[0x82, 0x85, 1, 2, 3], 6),
            (&[0x82, 0xfe], 4),
            (&[0x82, 0xfe, 0], 4),
            (&[0x82, 0xfe, 0, 126], 8),
            (&[0x82, 0xff, 0, 0, 0, 0], 10),
            (&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3], 14),
        ] {
            assert_eq!(read_header(input, true), Ok(HeaderRead::Incomplete { bytes_min }), "{input:02x?}");
        }
    }

    #[test]
    fn refuses_each_mistake_by_the_bytes_that_make_it() {
        for (input, violation) in [
            (&[0xc1, 0x80][..], Violation::ReservedBit),
            (&[0xa1, 0x80], Violation::ReservedBit),
            (&[0x91, 0x80], Violation::ReservedBit),
            (&[0x81, 0x00], Violation::Unmasked),
            (&[0x09, 0x80], Violation::ControlFragmented),
            (&[0x08, 0x80], Violation::ControlFragmented),
            (&[0x89, 0xfe], Violation::ControlTooLong),
            (&[0x8a, 0xff], Violation::ControlTooLong),
            (&[0x82, 0xfe, 0, 125], Violation::LengthNotMinimal),
            (&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], Violation::LengthNotMinimal),
            (&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], Violation::LengthTopBit),
        ] {
            assert_eq!(read_header(input, false), Err(violation), "{input:02x?}");
        }
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            assert_eq!(read_header(&[0x80 | opcode, 0x80], true), Err(Violation::ReservedOpcode), "opcode {opcode}");
        }
    }

    #[test]
    fn the_compression_bit_is_for_the_beginning_of_messages() {
        for (first, expected) in [
            (0xc1_u8, Ok(true)),
            (0x41, Ok(true)),
            (0xc2, Ok(true)),
            (0x81, Ok(false)),
            (0x80, Ok(false)),
            (0xc0, Err(Violation::CompressedBitMisplaced)),
            (0x40, Err(Violation::CompressedBitMisplaced)),
            (0xc8, Err(Violation::CompressedBitMisplaced)),
            (0xc9, Err(Violation::CompressedBitMisplaced)),
            (0xca, Err(Violation::CompressedBitMisplaced)),
            (0xe1, Err(Violation::ReservedBit)),
            (0xd1, Err(Violation::ReservedBit)),
            (0xc3, Err(Violation::ReservedOpcode)),
            (0xcb, Err(Violation::ReservedOpcode)),
        ] {
            let input = [first, 0x80, 1, 2, 3, 4];
            let read = read_header(&input, true).map(|read| match read {
                HeaderRead::Complete(header) => header.is_deflated,
                HeaderRead::Incomplete { .. } => panic!("the header is whole"),
            });
            assert_eq!(read, expected, "{first:02x}");
            // Where nothing is agreed, the bit is as reserved as the others.
            if first & RSV1 != 0 && expected != Err(Violation::ReservedOpcode) {
                assert_eq!(read_header(&input, false), Err(Violation::ReservedBit), "{first:02x}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_reference_client_reads_what_we_write(
            payload in prop::collection::vec(any::<u8>(), 0..400),
            ping in prop::collection::vec(any::<u8>(), 0..=125),
        ) {
            let mut out = Vec::new();
            write(&mut out, BINARY, &payload);
            prop_assert_eq!(read_by_reference(out), Message::binary(payload.clone()));
            let text = String::from_utf8_lossy(&payload).into_owned();
            let mut out = Vec::new();
            let mark = begin(&mut out);
            out.extend_from_slice(text.as_bytes());
            finish(&mut out, mark, TEXT);
            prop_assert_eq!(read_by_reference(out), Message::text(text));
            let mut out = Vec::new();
            write(&mut out, PING, &ping);
            prop_assert_eq!(read_by_reference(out), Message::Ping(ping.into()));
        }

        #[test]
        fn headers_are_read_as_the_reference_writes_them(
            is_final: bool,
            is_text: bool,
            mask: [u8; 4],
            payload_bytes in 0..=i64::MAX as u64,
            shift in 0..63_u32,
        ) {
            let payload_bytes = payload_bytes >> shift;
            let opcode = if is_text { TEXT } else { BINARY };
            let reference = FrameHeader { is_final, opcode, mask: Some(mask), ..FrameHeader::default() };
            let mut input = Vec::new();
            reference.format(payload_bytes, &mut input)?;
            let expected = Header { is_final, opcode, is_deflated: false, mask, bytes: input.len(), payload_bytes };
            prop_assert_eq!(complete(&input), expected);
        }
    }
}
