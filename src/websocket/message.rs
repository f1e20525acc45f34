//! Messages and control frames out of a client's bytes (RFC 6455 sections 5.4 to 5.6 and 8.1).
//!
//! Owns the rules that span frames: fragments, the size of the whole message, UTF-8 across
//! fragments. Rules of one header are [`frame`](super::frame)'s.
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
    frame::{self, Control, Data, Header, HeaderRead, OpCode},
    mask, utf8,
};

/// What a client said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message.
    Message {
        /// Sent as binary; otherwise as text, and `payload` is valid UTF-8.
        binary: bool,
        /// Borrowed from the input if the message came in one frame.
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
        /// most the message limit and a header.
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
    /// Bytes at the end of a text that are the beginning of a character.
    utf8_tail_bytes: u8,
}

// What a connection pays while it has a fragmented message under way (the payload aside), and while it has none.
const _: () = assert!(size_of::<Fragments>() == 32);
const _: () = assert!(size_of::<Option<Box<Fragments>>>() == 8);

/// Reads the frame at the front of `input`, unmasks it in place and says what it means.
///
/// `fragments` belongs to the connection and begins as `None`. `message_bytes_max` limits a
/// message, all fragments together; it is checked as soon as a header tells the length. After a
/// [`Violation`] the connection is to be closed; nothing that follows can be read.
pub fn read<'a>(
    input: &'a mut [u8],
    fragments: &mut Option<Box<Fragments>>,
    message_bytes_max: usize,
) -> Result<Read<'a>, Violation> {
    let header = match frame::read_header(input)? {
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
        OpCode::Data(data) => read_data(data, header.is_final, payload, fragments)?,
    };
    Ok(Read::Event { event, bytes })
}

/// Holds a header against what came before it. Returns the payload's length, which the limit has made small.
fn check_in_context(
    header: &Header,
    fragments: Option<&Fragments>,
    message_bytes_max: usize,
) -> Result<usize, Violation> {
    let message_bytes_before = match (header.opcode, fragments) {
        (OpCode::Control(_), _) => return Ok(header.payload_bytes as usize),
        (OpCode::Data(Data::Continue), None) => return Err(Violation::ContinuationUnexpected),
        (OpCode::Data(Data::Continue), Some(fragments)) => fragments.payload.len(),
        (OpCode::Data(_), Some(_)) => return Err(Violation::ContinuationExpected),
        (OpCode::Data(_), None) => 0,
    };
    let payload_bytes_max = message_bytes_max.saturating_sub(message_bytes_before);
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
    is_final: bool,
    payload: &'a [u8],
    fragments: &mut Option<Box<Fragments>>,
) -> Result<Event<'a>, Violation> {
    let binary = data == Data::Binary;
    match (fragments.as_deref_mut(), is_final) {
        (None, true) => {
            if !binary && std::str::from_utf8(payload).is_err() {
                return Err(Violation::TextNotUtf8);
            }
            Ok(Event::Message { binary, payload: Cow::Borrowed(payload) })
        }
        (None, false) => {
            let begun = fragments.insert(Box::new(Fragments { payload: Vec::new(), binary, utf8_tail_bytes: 0 }));
            begun.append(payload)?;
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
            let binary = under_way.binary;
            let payload = std::mem::take(&mut under_way.payload);
            *fragments = None;
            Ok(Event::Message { binary, payload: Cow::Owned(payload) })
        }
    }
}

impl Fragments {
    /// Adds a fragment's payload; of a text, checks what is new and what was left open before it.
    fn append(&mut self, payload: &[u8]) -> Result<(), Violation> {
        let checked = self.payload.len() - usize::from(self.utf8_tail_bytes);
        self.payload.extend_from_slice(payload);
        if !self.binary {
            let tail_bytes = utf8::check(&self.payload[checked..]).map_err(|_| Violation::TextNotUtf8)?;
            self.utf8_tail_bytes = u8::try_from(tail_bytes).expect("a character's beginning is at most 3 bytes");
        }
        Ok(())
    }
}
