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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tungstenite::protocol::frame::coding::CloseCode;

    use super::*;

    #[test]
    fn codes_are_those_of_the_registry() {
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
            assert!(is_code_allowed(code), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!is_code_allowed(code), "{code}");
        }
    }

    #[test]
    fn the_reference_differs_in_one_code() {
        for code in 0..=u16::MAX {
            let reference = CloseCode::from(code).is_allowed();
            assert_eq!(is_code_allowed(code), reference || code == 1014, "{code}");
        }
    }

    #[test]
    fn takes_code_and_reason_apart() {
        assert_eq!(parse(b""), Ok((None, "")));
        assert_eq!(parse(b"\x03\xe8"), Ok((Some(1000), "")));
        assert_eq!(parse(b"\x0f\xa0ferm\xc3\xa9"), Ok((Some(4000), "fermé")));
    }

    #[test]
    fn refuses_each_mistake() {
        assert_eq!(parse(b"\x03"), Err(Violation::CloseTruncated));
        assert_eq!(parse(b"\x03\xed"), Err(Violation::CloseCodeInvalid));
        assert_eq!(parse(b"\x03\xe8\xff"), Err(Violation::CloseReasonNotUtf8));
        assert_eq!(parse(b"\x03\xe8\xe2\x82"), Err(Violation::CloseReasonNotUtf8));
    }

    proptest! {
        #[test]
        fn a_cut_reason_is_the_longest_that_fits(reason in ".{0,200}") {
            let cut = cut_reason(&reason);
            prop_assert!(reason.starts_with(cut) && cut.len() <= CLOSE_REASON_BYTES_MAX);
            if let Some(next) = reason[cut.len()..].chars().next() {
                prop_assert!(cut.len() + next.len_utf8() > CLOSE_REASON_BYTES_MAX);
            }
        }
    }
}
