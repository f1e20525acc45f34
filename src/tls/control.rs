//! Records that are no data, on connections whose records are the kernel's: what they mean, and what is answered.
//!
//! The kernel seals and opens data and passes on all else. No state is kept beside it, neither version nor secrets, so a
//! peer's new keys cannot be followed here.

use super::{
    Refusal,
    alert::{
        BAD_RECORD_MAC, CLOSE_NOTIFY, LEVEL_FATAL, LEVEL_WARNING, NO_RENEGOTIATION, UNEXPECTED_MESSAGE, USER_CANCELED,
    },
    record::Content,
};

/// Bytes of a record that are looked at: two alerts, or the longest message that is known.
pub const CONTROL_BYTES_MAX: usize = 16;

/// What a record says that is no data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Nothing that matters.
    Nothing,
    /// The peer has said that nothing more comes.
    End,
    /// The peer's next records are under a new key (RFC 8446 section 4.6.3).
    KeyUpdate,
    /// The connection has to end.
    Refused(Refusal),
}

/// A record to be sent: what it carries, by its number on the wire, and its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert {
    /// What a record of alerts carries.
    pub content: u8,
    /// Level and description.
    pub bytes: [u8; 2],
}

impl Control {
    /// What the bytes of a record say. `content`: what it carries, by its number on the wire.
    pub fn of(content: u8, bytes: &[u8]) -> Self {
        match Content::of_number(content) {
            // The kernel gives alerts that follow each other together.
            Some(Content::Alert) => {
                let says = |alert: &[u8]| match alert {
                    [_, CLOSE_NOTIFY] => Self::End,
                    [LEVEL_WARNING, USER_CANCELED] => Self::Nothing,
                    _ => Self::Refused(Refusal::PeerAlert),
                };
                bytes.chunks(2).map(says).find(|said| *said != Self::Nothing).unwrap_or(Self::Nothing)
            }
            Some(Content::Handshake) if matches!(bytes, [24, 0, 0, 1, 0 | 1]) => Self::KeyUpdate,
            Some(Content::Handshake) => Self::Refused(Refusal::Renegotiation),
            _ => Self::Refused(Refusal::Record),
        }
    }
}

impl Alert {
    /// Says that nothing more comes.
    pub const END: Self = Self::new(LEVEL_WARNING, CLOSE_NOTIFY);

    /// What a peer is told with whom the connection cannot go on; none: it has said so itself.
    pub fn of(refusal: Refusal) -> Option<Self> {
        match refusal {
            Refusal::PeerAlert => None,
            Refusal::Renegotiation => Some(Self::new(LEVEL_FATAL, NO_RENEGOTIATION)),
            Refusal::Record => Some(Self::new(LEVEL_FATAL, BAD_RECORD_MAC)),
            _ => Some(Self::new(LEVEL_FATAL, UNEXPECTED_MESSAGE)),
        }
    }

    const fn new(level: u8, description: u8) -> Self {
        Self { content: Content::Alert.number(), bytes: [level, description] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_are_no_data_are_understood() {
        let of = Control::of;
        assert_eq!(of(21, &[1, 0]), Control::End);
        assert_eq!((of(21, &[1, 90]), of(21, &[1, 90, 1, 0])), (Control::Nothing, Control::End));
        for alert in [&[2, 40][..], &[2], &[1, 90, 2, 20]] {
            assert_eq!(of(21, alert), Control::Refused(Refusal::PeerAlert));
        }
        assert_eq!((of(22, &[24, 0, 0, 1, 0]), of(22, &[24, 0, 0, 1, 1])), (Control::KeyUpdate, Control::KeyUpdate));
        for message in [&[24, 0, 0, 1, 2][..], &[24, 0, 0, 1, 0, 24], &[1, 0, 1, 0], &[]] {
            assert_eq!(of(22, message), Control::Refused(Refusal::Renegotiation));
        }
        for content in [0, 20, 23, 24, 255] {
            assert_eq!(of(content, &[1]), Control::Refused(Refusal::Record));
        }
    }

    #[test]
    fn a_peer_is_told_what_it_does_not_know() {
        assert_eq!(Alert::END, Alert { content: 21, bytes: [1, 0] });
        assert_eq!(Alert::of(Refusal::PeerAlert), None);
        let description = |refusal| Alert::of(refusal).map(|alert| alert.bytes);
        assert_eq!(description(Refusal::Renegotiation), Some([2, 100]));
        assert_eq!(description(Refusal::Record), Some([2, 20]));
    }
}
