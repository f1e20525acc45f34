//! What a payload carries so that its receiver can judge it: the stream, its place in the stream,
//! and the instant at which it was meant to be sent.
//!
//! A stamp is plain letters without quotes or escapes, so that it survives any wrapping (JSON,
//! JSON in a string, Protobuf, bare text), and of constant length, so that a sender can patch it
//! in place.

use memchr::memmem;

use crate::stream::Stream;

/// Bytes of a stamp in its written form.
pub const STAMP_BYTES: usize = MARKER.len() + 8 + 16 + 16 + 1;

/// Bytes of the smallest payload that carries a stamp.
pub const PAYLOAD_BYTES_MIN: usize = PAYLOAD_HEAD.len() + STAMP_BYTES + PAYLOAD_TAIL.len();

const MARKER: &[u8] = b"~tgl~";
const END: u8 = b'~';
const PAYLOAD_HEAD: &[u8] = b"{\"t\":\"";
const PAYLOAD_TAIL: &[u8] = b"\",\"p\":\"\"}";

/// A message's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The channel or the user that it was sent to.
    pub stream: Stream,
    /// Place in the stream, from 1.
    pub sequence: u64,
    /// When it was meant to be sent, on the monotonic clock.
    pub intended_ns: u64,
}

impl Stamp {
    /// The written form.
    pub fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [END; STAMP_BYTES];
        bytes[..5].copy_from_slice(MARKER);
        write_hex(u64::from(self.stream.code()), &mut bytes[5..13]);
        write_hex(self.sequence, &mut bytes[13..29]);
        write_hex(self.intended_ns, &mut bytes[29..45]);
        bytes
    }

    /// Writes a JSON payload of this many bytes (at least [`PAYLOAD_BYTES_MIN`]) with the stamp in it; says where it is.
    pub fn payload(self, bytes: usize, payload: &mut Vec<u8>) -> usize {
        payload.clear();
        payload.extend_from_slice(PAYLOAD_HEAD);
        payload.extend_from_slice(&self.to_bytes());
        payload.extend_from_slice(&PAYLOAD_TAIL[..PAYLOAD_TAIL.len() - 2]);
        payload.resize(bytes.max(PAYLOAD_BYTES_MIN) - 2, b'.');
        payload.extend_from_slice(&PAYLOAD_TAIL[PAYLOAD_TAIL.len() - 2..]);
        PAYLOAD_HEAD.len()
    }

    /// The stamp at the beginning of the bytes, if one is there.
    pub fn parse(bytes: &[u8]) -> Option<Stamp> {
        let bytes = bytes.get(..STAMP_BYTES)?;
        if !bytes.starts_with(MARKER) || bytes[STAMP_BYTES - 1] != END {
            return None;
        }
        Some(Stamp {
            stream: Stream::from_code(read_hex(&bytes[5..13])? as u32),
            sequence: read_hex(&bytes[13..29])?,
            intended_ns: read_hex(&bytes[29..45])?,
        })
    }
}

/// Finds stamps, fast where messages have the same form: the place in the last message is tried first.
#[derive(Debug)]
pub struct StampFinder {
    finder: memmem::Finder<'static>,
    last_place: usize,
    last_bytes: [u8; STAMP_BYTES],
    last_stamp: Option<Stamp>,
}

impl StampFinder {
    /// A finder that has seen nothing.
    pub fn new() -> Self {
        Self {
            finder: memmem::Finder::new(MARKER).into_owned(),
            last_place: 0,
            last_bytes: [0; STAMP_BYTES],
            last_stamp: None,
        }
    }

    /// The first stamp in the message, with its place.
    pub fn find(&mut self, message: &[u8]) -> Option<(usize, Stamp)> {
        let tail = message.get(self.last_place..).unwrap_or_default();
        // Subscribers of one channel receive the same bytes one after the other.
        if self.last_stamp.is_some() && tail.starts_with(&self.last_bytes) {
            return self.last_stamp.map(|stamp| (self.last_place, stamp));
        }
        let place = if tail.starts_with(MARKER) { self.last_place } else { self.finder.find(message)? };
        let stamp = Stamp::parse(&message[place..])?;
        self.last_place = place;
        self.last_bytes.copy_from_slice(&message[place..place + STAMP_BYTES]);
        self.last_stamp = Some(stamp);
        Some((place, stamp))
    }
}

fn write_hex(value: u64, digits: &mut [u8]) {
    for (index, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(value >> (4 * index)) as usize & 15];
    }
}

fn read_hex(digits: &[u8]) -> Option<u64> {
    let mut value = 0;
    for &digit in digits {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        value = value << 4 | u64::from(nibble);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { stream: Stream::User(7), sequence: 0x1234, intended_ns: u64::MAX - 1 };

    #[test]
    fn a_stamp_reads_as_it_was_written() {
        assert_eq!(Stamp::parse(&STAMP.to_bytes()), Some(STAMP));
    }

    #[test]
    fn a_payload_is_json_of_the_wanted_length() {
        for bytes in [PAYLOAD_BYTES_MIN, 64, 128, 4096] {
            let mut payload = Vec::new();
            assert_eq!(STAMP.payload(bytes, &mut payload), PAYLOAD_HEAD.len());
            assert_eq!(payload.len(), bytes.max(PAYLOAD_BYTES_MIN));
            let value: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            assert_eq!(Stamp::parse(value["t"].as_str().unwrap().as_bytes()), Some(STAMP));
        }
    }

    #[test]
    fn damaged_stamps_are_none() {
        let good = STAMP.to_bytes();
        for place in [0, 5, 20, 40, STAMP_BYTES - 1] {
            let mut bad = good;
            bad[place] = b'X';
            assert_eq!(Stamp::parse(&bad), None, "damaged at {place}");
        }
        assert_eq!(Stamp::parse(&good[..STAMP_BYTES - 1]), None);
    }

    #[test]
    fn the_finder_follows_a_stamp_that_moves() {
        let mut finder = StampFinder::new();
        let next = Stamp { sequence: STAMP.sequence + 1, ..STAMP };
        for (prefix, stamp) in [("ab", STAMP), ("ab", STAMP), ("ab", next), ("abcdef", next), ("", STAMP)] {
            let message = [prefix.as_bytes(), &stamp.to_bytes()[..], b"rest"].concat();
            assert_eq!(finder.find(&message), Some((prefix.len(), stamp)));
        }
        assert_eq!(finder.find(b"no stamp"), None);
        assert_eq!(finder.find(b""), None);
    }
}
