//! Frames: reading a client's header, writing the server's frames (RFC 6455 section 5.2).
//!
//! Owns the header's bytes and the rules that can be judged by them alone. Rules that need to
//! know what came before (fragments, the size of the whole message) are [`message`](super::message)'s.
//!
//! The header is written by `tungstenite`'s codec; it is read by our own, because this one refuses
//! a bad frame by its first two bytes, sees lengths that are not minimal, names each mistake, and
//! leaves `tungstenite` an independent reference in the tests.
//!
//! Invariant: what is written is one whole frame, unmasked, with FIN. A server never masks
//! (section 5.1), and frames shared by many connections must stand alone.

use tungstenite::protocol::frame::FrameHeader;
pub use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::{close, violation::Violation};
use crate::limits::{CONTROL_FRAME_BYTES_MAX, FRAME_HEADER_BYTES_MAX};

/// Bytes that [`begin`] leaves free: the header of a payload of 126 to 65,535 bytes, the usual
/// publication. A payload of another length class is moved by [`finish`].
const RESERVED_BYTES: usize = 4;

/// Longest header that the server writes, in bytes: a client's without the mask.
const WRITTEN_HEADER_BYTES_MAX: usize = FRAME_HEADER_BYTES_MAX - 4;

/// The header of a client's frame that obeys every rule a header can obey alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Last frame of its message.
    pub is_final: bool,
    /// Never a reserved one.
    pub opcode: OpCode,
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

/// Reads the header at the front of `input`. A mistake is told by the first byte that makes it,
/// however much of the frame has arrived.
pub fn read_header(input: &[u8]) -> Result<HeaderRead, Violation> {
    let Some((&[first, second], rest)) = input.split_first_chunk() else {
        return Ok(HeaderRead::Incomplete { bytes_min: 2 });
    };
    let (is_final, opcode) = check_first(first)?;
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
            let Some(length) = rest.first_chunk() else { return Ok(HeaderRead::Incomplete { bytes_min: 8 }) };
            let length = u64::from(u16::from_be_bytes(*length));
            if length < 126 {
                return Err(Violation::LengthNotMinimal);
            }
            (length, 2)
        }
        127 => {
            let Some(length) = rest.first_chunk() else { return Ok(HeaderRead::Incomplete { bytes_min: 14 }) };
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
    Ok(HeaderRead::Complete(Header { is_final, opcode, mask: *mask, bytes, payload_bytes }))
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
    out.resize(mark.start + RESERVED_BYTES, 0);
    mark
}

/// Makes what was appended to `out` since [`begin`] the payload of a frame. Moves it by some
/// bytes if its length is not of the class that [`begin`] expected.
pub fn finish(out: &mut Vec<u8>, mark: FrameMark, opcode: OpCode) {
    let payload_start = mark.start + RESERVED_BYTES;
    assert!(payload_start <= out.len(), "a frame's buffer was cut below the place where the frame began");
    let (header, header_bytes) = header(opcode, out.len() - payload_start);
    out.splice(mark.start..payload_start, header[..header_bytes].iter().copied());
}

/// Appends a whole frame to `out`. The payload of a control frame has at most
/// [`CONTROL_FRAME_BYTES_MAX`] bytes.
pub fn write(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    let (header, header_bytes) = header(opcode, payload.len());
    out.reserve(header_bytes + payload.len());
    out.extend_from_slice(&header[..header_bytes]);
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

/// FIN and opcode, if the first byte of a header obeys the rules.
fn check_first(first: u8) -> Result<(bool, OpCode), Violation> {
    const FIN: u8 = 0x80;
    const RSV1: u8 = 0x40;
    const RSV2_OR_RSV3: u8 = 0x30;

    // Where permessage-deflate (RFC 7692) is negotiated, RSV1 on the first frame of a message will
    // mean "deflated". The handshake accepts no extension yet, so it means nothing.
    if first & RSV1 != 0 {
        return Err(Violation::ReservedBit);
    }
    if first & RSV2_OR_RSV3 != 0 {
        return Err(Violation::ReservedBit);
    }
    match OpCode::from(first & 0x0f) {
        OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => Err(Violation::ReservedOpcode),
        opcode => Ok((first & FIN != 0, opcode)),
    }
}

/// The header of an unmasked frame with FIN, and how many of the bytes it takes.
fn header(opcode: OpCode, payload_bytes: usize) -> ([u8; WRITTEN_HEADER_BYTES_MAX], usize) {
    assert!(
        matches!(opcode, OpCode::Data(_)) || payload_bytes <= CONTROL_FRAME_BYTES_MAX,
        "a control frame of {payload_bytes} bytes must not be sent (RFC 6455 section 5.5)"
    );
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    let mut bytes = [0; WRITTEN_HEADER_BYTES_MAX];
    header.format(payload_bytes as u64, &mut bytes.as_mut_slice()).expect("the longest header fits");
    (bytes, header.len(payload_bytes as u64))
}
