//! The PROXY protocol, version 2: what a balancer says of the client whose bytes it passes on.
//!
//! Sans-IO: bytes of the stream's beginning in, an address out. Version 1, which is text, is told apart and refused: a
//! balancer that is set to it is to be told so, not taken for a client that speaks garbage.
//!
//! Invariants:
//! - What is not a whole header is taken for none: a header that is split anywhere is read as if it were not.
//! - No more than [`HEADER_BYTES_MAX`] bytes are ever waited for, and a wrong byte is refused as soon as it is there, so
//!   whoever speaks something else is not kept waiting.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What every header begins with. No other protocol does: it has a zero, and a line feed where HTTP has a method.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// What headers of version 1 begin with.
const VERSION_1: &[u8] = b"PROXY ";

/// Bytes before the addresses: signature, version and command, family and protocol, length of the rest.
const FIXED_BYTES: usize = 16;

/// Longest header that is read. Addresses take 36 bytes at most, and what balancers add (TLVs) some hundreds.
pub const HEADER_BYTES_MAX: usize = 4 * 1024;

/// What the front of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// More bytes are needed to know.
    Incomplete,
    /// A header of so many bytes.
    Complete {
        /// Who is at the other end of the balancer.
        source: Source,
        /// Its length, with everything that was skipped.
        bytes: usize,
    },
}

/// Whose bytes follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A client's.
    Client(IpAddr),
    /// The balancer's own: it looks whether the server is there. So are those of a client whose address is none of the
    /// internet's, such as a Unix socket's.
    Balancer,
}

/// Why a stream does not begin with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// It begins with something else.
    #[error("the connection does not begin with a header of the PROXY protocol")]
    NoHeader,
    /// A header of version 1.
    #[error("the balancer speaks version 1 of the PROXY protocol; set it to version 2")]
    Version1,
    /// A version that is not 2, a command that is neither LOCAL nor PROXY, or a family that is unknown.
    #[error("the header of the PROXY protocol has a version, command or family that is not known")]
    Unknown,
    /// Shorter than the addresses that it announces, or longer than [`HEADER_BYTES_MAX`].
    #[error("the header of the PROXY protocol has a length that cannot be")]
    Length,
}

/// Reads the header at the front of a stream.
///
/// # Errors
/// When the stream cannot begin with one.
pub fn parse(input: &[u8]) -> Result<Header, Violation> {
    let front = input.len().min(SIGNATURE.len());
    if input[..front] != SIGNATURE[..front] {
        let text = input.len().min(VERSION_1.len());
        return match input[..text] == VERSION_1[..text] {
            true if text < VERSION_1.len() => Ok(Header::Incomplete),
            true => Err(Violation::Version1),
            false => Err(Violation::NoHeader),
        };
    }
    let command = input.get(12).copied();
    if command.is_some_and(|byte| !matches!(byte, 0x20 | 0x21)) {
        return Err(Violation::Unknown);
    }
    // The low half names the transport: none, stream or datagram. Clients come by streams, but nothing rests on it.
    let family = input.get(13).copied();
    if family.is_some_and(|byte| byte >> 4 > 3 || byte & 0x0f > 2) {
        return Err(Violation::Unknown);
    }
    let Some(fixed) = input.get(..FIXED_BYTES) else { return Ok(Header::Incomplete) };
    let rest = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let bytes = FIXED_BYTES + rest;
    let is_local = fixed[12] == 0x20;
    // Of a LOCAL header everything behind its length is to be ignored.
    let addresses = match (is_local, fixed[13] >> 4) {
        (true, _) | (false, 0) => 0,
        (false, 1) => 12,
        (false, 2) => 36,
        (false, _) => 216,
    };
    if rest < addresses || bytes > HEADER_BYTES_MAX {
        return Err(Violation::Length);
    }
    let Some(header) = input.get(..bytes) else { return Ok(Header::Incomplete) };
    let source = match addresses {
        12 => Source::Client(Ipv4Addr::from(octets::<4>(header)).into()),
        36 => Source::Client(IpAddr::from(Ipv6Addr::from(octets::<16>(header))).to_canonical()),
        _ => Source::Balancer,
    };
    Ok(Header::Complete { source, bytes })
}

/// The source address is the first behind the fixed part.
fn octets<const LENGTH: usize>(header: &[u8]) -> [u8; LENGTH] {
    header[FIXED_BYTES..][..LENGTH].try_into().expect("the header is as long as its addresses")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    fn of_ipv4(tlvs: &[u8]) -> Vec<u8> {
        header(0x21, 0x11, &[&[192, 0, 2, 7, 10, 0, 0, 1, 0xc0, 0, 0x1f, 0x90], tlvs].concat())
    }

    fn of_ipv6() -> Vec<u8> {
        let source: Ipv6Addr = "2001:db8::7".parse().unwrap();
        header(0x21, 0x21, &[&source.octets()[..], &[0; 16], &[0xc0, 0, 0x1f, 0x90]].concat())
    }

    #[test]
    fn headers_tell_the_clients_address() {
        let client = |address: &str| Source::Client(address.parse().unwrap());
        for (bytes, source) in [
            (of_ipv4(&[]), client("192.0.2.7")),
            // An unknown TLV, and bytes that are none: nothing of it is read.
            (of_ipv4(&[0xe0, 0, 2, 1, 2, 0xff]), client("192.0.2.7")),
            (of_ipv6(), client("2001:db8::7")),
            (header(0x21, 0x31, &[0; 216]), Source::Balancer),
            (header(0x21, 0x00, &[]), Source::Balancer),
            (header(0x20, 0x00, &[]), Source::Balancer),
            (header(0x20, 0x11, &[1, 2, 3]), Source::Balancer),
        ] {
            assert_eq!(parse(&bytes), Ok(Header::Complete { source, bytes: bytes.len() }));
            let followed = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&followed), Ok(Header::Complete { source, bytes: bytes.len() }));
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Ok(Header::Incomplete), "cut at {end}");
            }
        }
    }

    #[test]
    fn an_address_of_ipv4_within_one_of_ipv6_is_one_of_ipv4() {
        let source: Ipv6Addr = "::ffff:192.0.2.7".parse().unwrap();
        let bytes = header(0x21, 0x21, &[&source.octets()[..], &[0; 20]].concat());
        let source = Source::Client("192.0.2.7".parse().unwrap());
        assert_eq!(parse(&bytes), Ok(Header::Complete { source, bytes: bytes.len() }));
    }

    #[test]
    fn everything_else_is_refused_by_its_first_wrong_byte() {
        for (bytes, violation) in [
            (b"GET / HTTP/1.1\r\n".to_vec(), Violation::NoHeader),
            (b"\x16\x03\x01".to_vec(), Violation::NoHeader),
            (b"\r\n\r\n\0\r\nQUIZ".to_vec(), Violation::NoHeader),
            (b"PROXZ ".to_vec(), Violation::NoHeader),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 49152 8080\r\n".to_vec(), Violation::Version1),
            (header(0x11, 0x11, &[0; 12])[..13].to_vec(), Violation::Unknown),
            (header(0x22, 0x11, &[0; 12])[..13].to_vec(), Violation::Unknown),
            (header(0x21, 0x41, &[0; 12])[..14].to_vec(), Violation::Unknown),
            (header(0x21, 0x13, &[0; 12])[..14].to_vec(), Violation::Unknown),
            (header(0x21, 0x11, &[0; 11]), Violation::Length),
            (header(0x21, 0x21, &[0; 35]), Violation::Length),
            (header(0x21, 0x11, &[0; HEADER_BYTES_MAX])[..16].to_vec(), Violation::Length),
        ] {
            assert_eq!(parse(&bytes), Err(violation), "{bytes:02x?}");
        }
    }

    proptest! {
        /// Whatever comes: more bytes change nothing but `Incomplete`.
        #[test]
        fn how_the_network_cuts_it_does_not_matter(
            choice in 0..4_usize,
            noise in prop::collection::vec(any::<u8>(), 0..64),
            position in 0..64_usize,
            byte: u8,
        ) {
            let mut bytes = match choice {
                0 => noise,
                1 => of_ipv4(&noise),
                2 => of_ipv6(),
                _ => header(0x20, 0x00, &noise),
            };
            if let Some(changed) = bytes.get_mut(position) {
                *changed = byte;
            }
            let whole = parse(&bytes);
            for end in 0..=bytes.len() {
                match parse(&bytes[..end]) {
                    Ok(Header::Incomplete) => {}
                    decided => prop_assert_eq!(decided, whole, "cut at {}", end),
                }
            }
            if let Ok(Header::Complete { bytes: length, .. }) = whole {
                prop_assert!((FIXED_BYTES..=bytes.len()).contains(&length));
            }
        }
    }
}
