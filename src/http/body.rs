//! A request's body while it arrives: by length, or in chunks (RFC 9112 sections 6 and 7.1).

use super::head::{BodyLength, Rejection};
use crate::limits::REQUEST_HEAD_BYTES_MAX;

/// A body under way. Reading goes on where it stopped, so a slow sender costs no work twice.
#[derive(Debug)]
pub struct Body {
    state: State,
    content: Vec<u8>,
    content_bytes_max: usize,
    /// Bytes of chunk sizes, extensions and trailers that may still come.
    overhead_bytes_left: usize,
}

/// What a body is after some bytes more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyRead {
    /// All bytes were taken, and it goes on.
    Incomplete,
    /// It is whole; so many of the bytes belonged to it.
    Complete(usize),
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes of a body whose length is known; 0: it is whole.
    Content(u64),
    /// A chunk's size: its value so far, and how many digits that were.
    Size(u64, u8),
    /// The rest of the line of a size, which means nothing here.
    Extension(u64),
    /// The line feed that ends a size's line, of a chunk of so many bytes.
    SizeEnd(u64),
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The carriage return behind a chunk.
    ChunkReturn,
    /// The line feed behind a chunk.
    ChunkFeed,
    /// A line behind the last chunk, of which so many bytes have come; an empty one ends the body.
    Trailer(usize),
    /// The line feed of that line; whether it is the last.
    TrailerFeed(bool),
}

impl Body {
    /// A body of which nothing has arrived.
    ///
    /// # Errors
    /// When its length is known to be more than it may have.
    pub fn new(length: BodyLength, content_bytes_max: usize) -> Result<Self, Rejection> {
        let state = match length {
            BodyLength::Bytes(bytes) if bytes > content_bytes_max as u64 => return Err(Rejection::BodyTooLarge),
            BodyLength::Bytes(bytes) => State::Content(bytes),
            BodyLength::Chunked => State::Size(0, 0),
        };
        // A chunk of one byte comes with five more; whoever sends many of these is short of nothing but sense.
        let overhead_bytes_left = content_bytes_max + REQUEST_HEAD_BYTES_MAX;
        Ok(Self { state, content: Vec::new(), content_bytes_max, overhead_bytes_left })
    }

    /// Takes in what follows what was taken in before.
    ///
    /// # Errors
    /// When it cannot be read, or is too long. Nothing behind it can be read then.
    pub fn read(&mut self, input: &[u8]) -> Result<BodyRead, Rejection> {
        let mut taken = 0;
        loop {
            let rest = &input[taken..];
            match self.state {
                State::Content(0) => return Ok(BodyRead::Complete(taken)),
                State::Content(left) | State::Chunk(left) if !rest.is_empty() => {
                    let bytes = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.content.extend_from_slice(&rest[..bytes]);
                    taken += bytes;
                    let left = left - bytes as u64;
                    self.state = match self.state {
                        State::Content(_) => State::Content(left),
                        _ if left == 0 => State::ChunkReturn,
                        _ => State::Chunk(left),
                    };
                }
                _ => {
                    let Some(byte) = rest.first() else { return Ok(BodyRead::Incomplete) };
                    taken += 1;
                    self.overhead_bytes_left =
                        self.overhead_bytes_left.checked_sub(1).ok_or(Rejection::BodyTooLarge)?;
                    self.state = self.after(*byte)?;
                }
            }
        }
    }

    /// What has arrived; of a whole body, all of it.
    pub fn into_content(self) -> Vec<u8> {
        self.content
    }

    /// What comes after a byte that is no content.
    fn after(&self, byte: u8) -> Result<State, Rejection> {
        /// More would not fit 64 bits.
        const SIZE_DIGITS_MAX: u8 = 16;

        Ok(match (self.state, byte) {
            (State::Size(size, digits), _) if byte.is_ascii_hexdigit() && digits < SIZE_DIGITS_MAX => {
                let digit = char::from(byte).to_digit(16).expect("it is one");
                let size = size << 4 | u64::from(digit);
                if size > (self.content_bytes_max - self.content.len()) as u64 {
                    return Err(Rejection::BodyTooLarge);
                }
                State::Size(size, digits + 1)
            }
            (State::Size(size, 1..), b'\r') => State::SizeEnd(size),
            (State::Size(size, 1..), b';' | b' ' | b'\t') => State::Extension(size),
            (State::Extension(size), b'\r') => State::SizeEnd(size),
            (State::Extension(size), _) if byte != b'\n' => State::Extension(size),
            (State::SizeEnd(0), b'\n') => State::Trailer(0),
            (State::SizeEnd(size), b'\n') => State::Chunk(size),
            (State::ChunkReturn, b'\r') => State::ChunkFeed,
            (State::ChunkFeed, b'\n') => State::Size(0, 0),
            (State::Trailer(bytes), b'\r') => State::TrailerFeed(bytes == 0),
            (State::Trailer(bytes), _) if byte != b'\n' => State::Trailer(bytes + 1),
            (State::TrailerFeed(true), b'\n') => State::Content(0),
            (State::TrailerFeed(false), b'\n') => State::Trailer(0),
            _ => return Err(Rejection::Malformed),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BYTES_MAX: usize = 100;

    /// What a body's bytes, and some that follow, amount to: its content and its length.
    fn read(length: BodyLength, input: &[u8]) -> Result<(Vec<u8>, BodyRead), Rejection> {
        let mut body = Body::new(length, BYTES_MAX)?;
        let read = body.read(input)?;
        Ok((body.into_content(), read))
    }

    #[test]
    fn a_body_of_known_length() {
        let whole = Ok((b"hello".to_vec(), BodyRead::Complete(5)));
        assert_eq!(read(BodyLength::Bytes(5), b"hello"), whole);
        assert_eq!(read(BodyLength::Bytes(5), b"hello, world"), whole);
        assert_eq!(read(BodyLength::Bytes(6), b"hello"), Ok((b"hello".to_vec(), BodyRead::Incomplete)));
        assert_eq!(read(BodyLength::Bytes(0), b"x"), Ok((Vec::new(), BodyRead::Complete(0))));
        assert_eq!(read(BodyLength::Bytes(BYTES_MAX as u64 + 1), b""), Err(Rejection::BodyTooLarge));
        assert_eq!(read(BodyLength::Bytes(u64::MAX), b""), Err(Rejection::BodyTooLarge));
    }

    #[test]
    fn a_body_in_chunks() {
        let input = b"5\r\nhello\r\n0002;a=\"b\"\r\n, \r\n5 \r\nworld\r\n0\r\nTrailer: x\r\n\r\nnext";
        let (content, bytes) = read(BodyLength::Chunked, input).unwrap();
        assert_eq!(content, b"hello, world");
        assert_eq!(bytes, BodyRead::Complete(input.len() - 4));
        assert_eq!(read(BodyLength::Chunked, b"0\r\n\r\n"), Ok((Vec::new(), BodyRead::Complete(5))));
    }

    #[test]
    fn each_mistake_in_chunks() {
        for (input, rejection) in [
            (&b"\r\n"[..], Rejection::Malformed),
            (b"x\r\n", Rejection::Malformed),
            (b"-1\r\n", Rejection::Malformed),
            (b"5\n", Rejection::Malformed),
            (b"5;a\n", Rejection::Malformed),
            (b"5\rx", Rejection::Malformed),
            (b"1\r\nab", Rejection::Malformed),
            (b"1\r\na\rb", Rejection::Malformed),
            (b"0\r\nTrailer\n", Rejection::Malformed),
            (b"0\r\n\rx", Rejection::Malformed),
            (b"00000000000000000\r\n", Rejection::Malformed),
            (b"65\r\n", Rejection::BodyTooLarge),
            (b"ffffffffffffffff\r\n", Rejection::BodyTooLarge),
            (b"64", Rejection::BodyTooLarge),
        ] {
            let found = read(BodyLength::Chunked, input);
            if input == b"64" {
                assert_eq!(found, Ok((Vec::new(), BodyRead::Incomplete)), "exactly as long as it may be");
            } else {
                assert_eq!(found, Err(rejection), "{}", input.escape_ascii());
            }
        }
        let chunks = [b"60\r\n".as_slice(), &[b'x'; 96], b"\r\n5\r\n"].concat();
        assert_eq!(read(BodyLength::Chunked, &chunks), Err(Rejection::BodyTooLarge));
    }

    #[test]
    fn what_is_no_content_is_bounded_too() {
        let endless = [b"1;".as_slice(), &[b'x'; BYTES_MAX + REQUEST_HEAD_BYTES_MAX]].concat();
        assert_eq!(read(BodyLength::Chunked, &endless), Err(Rejection::BodyTooLarge));
    }

    proptest! {
        #[test]
        fn how_a_body_is_cut_does_not_matter(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..6),
            change in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut input = Vec::new();
            for chunk in &chunks {
                input.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                input.extend_from_slice(chunk);
                input.extend_from_slice(b"\r\n");
            }
            input.extend_from_slice(b"0\r\n\r\nnext");
            if let Some((position, byte)) = change {
                let position = position.index(input.len());
                input[position] = byte;
            }
            let whole = read(BodyLength::Chunked, &input);
            if change.is_none() && chunks.concat().len() <= BYTES_MAX {
                prop_assert_eq!(&whole, &Ok((chunks.concat(), BodyRead::Complete(input.len() - 4))));
            }
            let mut body = Body::new(BodyLength::Chunked, BYTES_MAX).unwrap();
            let mut by_bytes = Ok(BodyRead::Incomplete);
            for (position, byte) in input.iter().enumerate() {
                by_bytes = body.read(&[*byte]);
                match by_bytes {
                    Ok(BodyRead::Incomplete) => {}
                    Ok(BodyRead::Complete(bytes)) => {
                        by_bytes = Ok(BodyRead::Complete(position + bytes));
                        break;
                    }
                    Err(_) => break,
                }
            }
            prop_assert_eq!(by_bytes.map(|read| (body.into_content(), read)), whole);
        }
    }
}
