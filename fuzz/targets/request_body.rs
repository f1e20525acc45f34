//! The body of a client's request, in chunks: any bytes.
//!
//! Checked: what is found does not depend on where the network cut; a body is no longer than it may be; a chunked body
//! that was understood, written down again in one chunk, is understood alike.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::http::{Body, BodyLength, BodyRead, Rejection};

/// Small, so that the fuzzer finds it.
const CONTENT_BYTES_MAX: usize = 200;

fuzz_target!(|input: &[u8]| {
    let whole = read([input]);
    assert_eq!(read(input.chunks(1)), whole, "byte by byte");
    assert_eq!(read(input.chunks(7)), whole, "in pieces of seven");
    if let Ok(Some((content, taken))) = whole {
        assert!(content.len() <= CONTENT_BYTES_MAX && taken <= input.len());
        let last = "0\r\n\r\n";
        let again = match content.len() {
            0 => last.as_bytes().to_vec(),
            length => [format!("{length:x}\r\n").as_bytes(), &content, b"\r\n", last.as_bytes()].concat(),
        };
        assert_eq!(read([again.as_slice()]), Ok(Some((content, again.len()))));
    }
});

/// The content and how many bytes were its own, if the body is whole.
fn read<'a>(received: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<(Vec<u8>, usize)>, Rejection> {
    let mut body = Body::new(BodyLength::Chunked, CONTENT_BYTES_MAX).expect("its length is not known");
    let mut taken = 0;
    for bytes in received {
        match body.read(bytes)? {
            BodyRead::Complete(last) => return Ok(Some((body.into_content(), taken + last))),
            BodyRead::Incomplete => taken += bytes.len(),
        }
    }
    Ok(None)
}
