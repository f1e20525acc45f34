//! What a client does against RFC 6455 and RFC 7692 after its upgrade.
//!
//! Owns the list of mistakes, each with the close code that answers it and the label that counts
//! it. The rules themselves are in [`frame`](super::frame), [`message`](super::message),
//! [`close`](super::close) and [`deflate`](super::deflate).
//!
//! RFC 7692 wants a connection failed and leaves the code open. A misplaced bit is a mistake in frames, so 1002, as
//! for any other. What cannot be inflated came in frames without a fault, whose content is not what they say it is:
//! 1007, as for a text that is not UTF-8.
//!
//! Invariant: the text of each is a valid reason of a close frame, so it is sent uncut.

use tungstenite::protocol::frame::coding::CloseCode;

/// A mistake of the client that ends the connection. Its text tells the client what it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// RSV1, RSV2 or RSV3 is set and no negotiated extension gives it a meaning (section 5.2).
    #[error("reserved bit set without an extension")]
    ReservedBit,
    /// RSV1, which marks a compressed message, on a control frame or a continuation (RFC 7692 section 6.1).
    #[error("compression bit on a frame that does not begin a message")]
    CompressedBitMisplaced,
    /// Opcode 3 to 7 or 11 to 15 (section 5.2).
    #[error("reserved opcode")]
    ReservedOpcode,
    /// A client's frame without a mask (section 5.1).
    #[error("frame is not masked")]
    Unmasked,
    /// A control frame without FIN (section 5.5).
    #[error("control frame is fragmented")]
    ControlFragmented,
    /// A control frame of more than 125 bytes (section 5.5).
    #[error("control frame is longer than 125 bytes")]
    ControlTooLong,
    /// A length in more bytes than it needs (section 5.2).
    #[error("frame length is not in its shortest form")]
    LengthNotMinimal,
    /// A length of 64 bits whose top bit is set (section 5.2).
    #[error("frame length has its top bit set")]
    LengthTopBit,
    /// A continuation frame while no message is under way (section 5.4).
    #[error("continuation frame without a message to continue")]
    ContinuationUnexpected,
    /// A new text or binary frame while a fragmented message is under way (section 5.4).
    #[error("new message inside a fragmented one")]
    ContinuationExpected,
    /// The message, all fragments together and inflated, is above the configured limit.
    #[error("message is above the size limit")]
    MessageTooLarge,
    /// A compressed message is not what deflate writes (RFC 7692 section 7.2.2).
    #[error("compressed message cannot be inflated")]
    DeflateInvalid,
    /// A compressed message ends within a block (RFC 7692 section 7.2.2).
    #[error("compressed message is not whole")]
    DeflateUnfinished,
    /// A text message is not UTF-8 (section 8.1).
    #[error("text message is not UTF-8")]
    TextNotUtf8,
    /// A close frame with a payload of one byte: half a code (section 5.5.1).
    #[error("close frame with half a code")]
    CloseTruncated,
    /// A close frame with a code that no endpoint may send (section 7.4).
    #[error("close code is not allowed")]
    CloseCodeInvalid,
    /// The reason in a close frame is not UTF-8 (section 5.5.1).
    #[error("close reason is not UTF-8")]
    CloseReasonNotUtf8,
}

impl Violation {
    /// The code of the close frame that answers it (section 7.4.1).
    pub fn close_code(&self) -> u16 {
        let code = match self {
            Self::TextNotUtf8 | Self::CloseReasonNotUtf8 | Self::DeflateInvalid | Self::DeflateUnfinished => {
                CloseCode::Invalid
            }
            Self::MessageTooLarge => CloseCode::Size,
            Self::ReservedBit
            | Self::CompressedBitMisplaced
            | Self::ReservedOpcode
            | Self::Unmasked
            | Self::ControlFragmented
            | Self::ControlTooLong
            | Self::LengthNotMinimal
            | Self::LengthTopBit
            | Self::ContinuationUnexpected
            | Self::ContinuationExpected
            | Self::CloseTruncated
            | Self::CloseCodeInvalid => CloseCode::Protocol,
        };
        code.into()
    }

    /// Its label in the metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::ReservedBit => "reserved_bit",
            Self::CompressedBitMisplaced => "compressed_bit_misplaced",
            Self::ReservedOpcode => "reserved_opcode",
            Self::Unmasked => "unmasked_frame",
            Self::ControlFragmented => "control_fragmented",
            Self::ControlTooLong => "control_too_long",
            Self::LengthNotMinimal => "length_not_minimal",
            Self::LengthTopBit => "length_top_bit",
            Self::ContinuationUnexpected => "continuation_unexpected",
            Self::ContinuationExpected => "continuation_expected",
            Self::MessageTooLarge => "message_too_large",
            Self::DeflateInvalid => "deflate_invalid",
            Self::DeflateUnfinished => "deflate_unfinished",
            Self::TextNotUtf8 => "text_not_utf8",
            Self::CloseTruncated => "close_truncated",
            Self::CloseCodeInvalid => "close_code_invalid",
            Self::CloseReasonNotUtf8 => "close_reason_not_utf8",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CLOSE_REASON_BYTES_MAX;

    const ALL: [Violation; 17] = [
        Violation::ReservedBit,
        Violation::CompressedBitMisplaced,
        Violation::ReservedOpcode,
        Violation::Unmasked,
        Violation::ControlFragmented,
        Violation::ControlTooLong,
        Violation::LengthNotMinimal,
        Violation::LengthTopBit,
        Violation::ContinuationUnexpected,
        Violation::ContinuationExpected,
        Violation::MessageTooLarge,
        Violation::DeflateInvalid,
        Violation::DeflateUnfinished,
        Violation::TextNotUtf8,
        Violation::CloseTruncated,
        Violation::CloseCodeInvalid,
        Violation::CloseReasonNotUtf8,
    ];

    #[test]
    fn each_has_its_close_code() {
        for violation in ALL {
            let code = match violation {
                Violation::TextNotUtf8
                | Violation::CloseReasonNotUtf8
                | Violation::DeflateInvalid
                | Violation::DeflateUnfinished => 1007,
                Violation::MessageTooLarge => 1009,
                _ => 1002,
            };
            assert_eq!(violation.close_code(), code, "{violation:?}");
        }
    }

    #[test]
    fn texts_fit_a_close_frame_and_labels_are_distinct() {
        let mut labels: Vec<_> = ALL.iter().map(Violation::reason).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), ALL.len());
        for violation in ALL {
            assert!(violation.to_string().len() <= CLOSE_REASON_BYTES_MAX, "{violation:?}");
        }
    }
}
