//! Chunks of an answer without a known end (RFC 9112 section 7.1): each carries one message.

/// Ends the answer.
pub const LAST: &[u8] = b"0\r\n\r\n";

/// Bytes that [`begin`] leaves free: the line of a size of three digits, which the usual message has.
const RESERVED_BYTES: usize = 5;

/// Digits of the longest size, and the line's end.
const LINE_BYTES_MAX: usize = 18;

/// Where a chunk begins whose content is being written behind it.
#[derive(Debug)]
#[must_use = "a chunk that is begun and not finished has no size"]
pub struct ChunkMark {
    start: usize,
}

/// Leaves room for a size at the end of `out`; the caller appends the content, then calls [`finish`].
pub fn begin(out: &mut Vec<u8>) -> ChunkMark {
    let mark = ChunkMark { start: out.len() };
    out.resize(mark.start + RESERVED_BYTES, 0);
    mark
}

/// Makes what was appended to `out` since [`begin`] a chunk. Moves it by some bytes if its size has other digits than
/// [`begin`] expected. Without content it would be the last chunk.
pub fn finish(out: &mut Vec<u8>, mark: ChunkMark) {
    let content_start = mark.start + RESERVED_BYTES;
    assert!(content_start < out.len(), "an empty chunk would end the answer");
    let mut line = [0; LINE_BYTES_MAX];
    let mut start = LINE_BYTES_MAX - 2;
    line[start..].copy_from_slice(b"\r\n");
    let mut size = out.len() - content_start;
    while size > 0 {
        start -= 1;
        line[start] = b"0123456789abcdef"[size & 0xf];
        size >>= 4;
    }
    out.splice(mark.start..content_start, line[start..].iter().copied());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Body, BodyLength, BodyRead};

    #[test]
    fn what_is_written_is_read_again_at_every_number_of_digits() {
        let mut out = Vec::new();
        let mut content = Vec::new();
        for bytes in [1, 15, 16, 255, 256, 4095, 4096, 70_000] {
            let chunk: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
            let mark = begin(&mut out);
            out.extend_from_slice(&chunk);
            finish(&mut out, mark);
            content.extend(chunk);
        }
        assert!(out.starts_with(b"1\r\n\0\r\nf\r\n"));
        out.extend_from_slice(LAST);
        let mut body = Body::new(BodyLength::Chunked, content.len()).unwrap();
        assert_eq!(body.read(&out), Ok(BodyRead::Complete(out.len())));
        assert!(body.into_content() == content);
    }

    #[test]
    #[should_panic(expected = "would end the answer")]
    fn an_empty_chunk_is_our_mistake() {
        let mut out = Vec::new();
        let mark = begin(&mut out);
        finish(&mut out, mark);
    }
}
