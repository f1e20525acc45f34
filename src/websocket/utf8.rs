//! UTF-8 that arrives in pieces.
//!
//! Owns the one question that the standard library leaves open: may bytes that end inside a
//! character still become UTF-8?
//!
//! Invariant: a piece fails at the first byte that no continuation can mend, so a message that
//! cannot become text is refused with its fragment and not with its end.

/// Bytes that are not UTF-8 and cannot become it, whatever follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid;

/// Longest beginning of a character that can wait for its end, in bytes.
pub const TAIL_BYTES_MAX: usize = 3;

/// Checks a piece that begins at a character's boundary.
///
/// Returns how many bytes at its end, at most [`TAIL_BYTES_MAX`], are the beginning of a
/// character: they belong in front of the next piece. 0: the piece is UTF-8 as it is.
pub fn check(piece: &[u8]) -> Result<usize, Invalid> {
    match std::str::from_utf8(piece) {
        Ok(_) => Ok(0),
        // No error length means that the input ended too early, not that a byte was wrong.
        Err(error) if error.error_len().is_none() => Ok(piece.len() - error.valid_up_to()),
        Err(_) => Err(Invalid),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_open_character_is_counted_from_its_first_byte() {
        for (piece, tail_bytes) in [
            (&b""[..], 0),
            (b"plain", 0),
            ("κόσμε".as_bytes(), 0),
            (b"a\xce", 1),
            (b"a\xe2\x82", 2),
            (b"a\xf0\x9f\x98", 3),
        ] {
            assert_eq!(check(piece), Ok(tail_bytes), "{piece:02x?}");
        }
    }

    #[test]
    fn fails_at_the_first_byte_that_nothing_can_mend() {
        for piece in [
            &b"\x80"[..], // a continuation without a beginning
            b"\xff",      // never in UTF-8
            b"\xc0",      // only overlong forms begin so
            b"\xe0\x80",  // overlong
            b"\xed\xa0",  // a surrogate
            b"\xf4\x90",  // above U+10FFFF
            b"\xe2\x82A", // a character that breaks off
        ] {
            assert_eq!(check(piece), Err(Invalid), "{piece:02x?}");
        }
    }

    proptest! {
        #[test]
        fn a_text_cut_anywhere_passes(text: String, cut: prop::sample::Index) {
            let cut = cut.index(text.len() + 1);
            let tail_bytes = check(&text.as_bytes()[..cut]).expect("the beginning of a text");
            prop_assert!(tail_bytes <= TAIL_BYTES_MAX);
            prop_assert_eq!(check(&text.as_bytes()[cut - tail_bytes..]), Ok(0));
        }
    }
}
