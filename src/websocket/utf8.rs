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
