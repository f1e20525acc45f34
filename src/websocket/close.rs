//! The payload of a close frame (RFC 6455 sections 5.5.1 and 7.4).
//!
//! Owns which codes may travel and how code and reason are laid out. When to close, and with
//! which code, is the session's business.
//!
//! Invariant: 1005, 1006 and 1015 name what an endpoint saw, never what it said; they are neither
//! accepted nor sent. A peer that meets one on the wire fails the connection.

use super::violation::Violation;
use crate::limits::CLOSE_REASON_BYTES_MAX;

/// Whether a close frame may carry the code: those of the IANA registry that are meant for the
/// wire, and the ranges for libraries and applications (section 7.4.2).
///
/// `tungstenite`'s `CloseCode::is_allowed` differs in 1014 (Bad Gateway), registered later.
pub fn is_code_allowed(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Takes an unmasked payload apart: the code, if there is one, and the reason.
pub fn parse(payload: &[u8]) -> Result<(Option<u16>, &str), Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok((None, "")) } else { Err(Violation::CloseTruncated) };
    };
    let code = u16::from_be_bytes(*code);
    if !is_code_allowed(code) {
        return Err(Violation::CloseCodeInvalid);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Violation::CloseReasonNotUtf8)?;
    Ok((Some(code), reason))
}

/// The reason as a close frame can carry it: cut at the last character that ends within
/// [`CLOSE_REASON_BYTES_MAX`].
pub fn cut_reason(reason: &str) -> &str {
    let mut end = reason.len().min(CLOSE_REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}
