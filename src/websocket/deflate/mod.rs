//! permessage-deflate: RFC 7692, the server's side, sans-IO.
//!
//! Owns what is agreed on with a client ([`negotiation`], [`Deflation`]), the making of compressed messages
//! ([`deflater`]) and the reading of the client's ([`inflater`]). Leaves to others which messages are compressed, and with
//! what in the window (`fanout`), and the frames around them ([`frame`](super::frame), [`message`](super::message)).
//!
//! Invariants:
//! - A compressed message refers at most a window's length back (section 7.1.2.1), and to nothing but what its maker was
//!   told that the client's window holds. Otherwise the client reads garbage, or another's data.
//! - A shard has one compressor for each window and one inflater, whatever the number of its clients: between two messages
//!   there is no state of compression but the bytes of a window, and none of what clients send.

mod deflater;
#[cfg(test)]
mod distances;
pub(super) mod inflater;
pub mod negotiation;

pub use deflater::{Compressing, Deflater};
pub use inflater::Inflater;

/// How far back a client's compressed messages may refer: what was agreed on, rounded down to one of few, so that few
/// connections are written to differently. Smaller windows spare both sides memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Window {
    /// 9 bits. Serves clients of 8, too: the compressor refers 250 bytes back at most then.
    Bytes512,
    /// 10 bits.
    KiB1,
    /// 12 bits.
    KiB4,
    /// 15 bits, the largest, and what counts if nothing was said.
    KiB32,
}

impl Window {
    /// All of them, the smallest first.
    pub const ALL: [Self; 4] = [Self::Bytes512, Self::KiB1, Self::KiB4, Self::KiB32];

    /// The base-2 logarithm of its size.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Bytes512 => 9,
            Self::KiB1 => 10,
            Self::KiB4 => 12,
            Self::KiB32 => 15,
        }
    }

    /// Its size.
    pub const fn bytes(self) -> usize {
        1 << self.bits()
    }

    /// The largest that a client with `server_max_window_bits` of 8 to 15 allows.
    pub fn within(bits: u8) -> Self {
        assert!((8..=15).contains(&bits), "RFC 7692 section 7.1.2.1 knows no window of {bits} bits");
        Self::ALL.into_iter().rev().find(|window| window.bits() <= bits).unwrap_or(Self::Bytes512)
    }

    /// The smallest that holds so many bytes.
    pub fn holding(bytes: usize) -> Self {
        Self::ALL.into_iter().find(|window| window.bytes() >= bytes).unwrap_or(Self::KiB32)
    }
}

/// What the server may do when it compresses for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deflation {
    /// How far back it may refer.
    pub window: Window,
    /// Whether a message may refer to those before it; the client has not asked for `server_no_context_takeover`.
    pub keeps_context: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_rounded_down_for_clients_and_up_for_what_they_hold() {
        let within: Vec<u8> = (8..=15).map(|bits| Window::within(bits).bits()).collect();
        assert_eq!(within, [9, 9, 10, 10, 12, 12, 12, 15]);
        let holding = [0, 512, 513, 1024, 4096, 4097, 1 << 15, 1 << 20].map(|bytes| Window::holding(bytes).bits());
        assert_eq!(holding, [9, 9, 10, 10, 12, 15, 15, 15]);
    }
}
