//! Compressed messages: any bytes.
//!
//! Checked: what is inflated keeps its limit and costs no more memory than that; `miniz_oxide`, which shares no code with
//! our inflater, reads the same; a message is read alike whatever was read before it; what we compress is what we read.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_with_limit};
use tidegate::websocket::deflate::{Deflater, Inflater, Window};

/// Small, so that the fuzzer finds it.
const MESSAGE_BYTES_MAX: usize = 4096;

/// What stands behind a message: the bytes that its sender has cut off, and an empty last block.
const TAIL: [u8; 9] = [0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff];

thread_local! {
    /// A shard's: all inputs go through the same, and none may leave anything behind.
    static CODEC: RefCell<(Inflater, Deflater)> = RefCell::default();
}

fuzz_target!(|input: &[u8]| CODEC.with_borrow_mut(|(inflater, deflater)| check(input, inflater, deflater)));

fn check(input: &[u8], inflater: &mut Inflater, deflater: &mut Deflater) {
    let inflated = inflater.inflate(input, MESSAGE_BYTES_MAX);
    assert_eq!(Inflater::default().inflate(input, MESSAGE_BYTES_MAX), inflated, "read by an inflater that is new");
    if let Ok(inflated) = &inflated {
        assert!(inflated.len() <= MESSAGE_BYTES_MAX && inflated.capacity() <= MESSAGE_BYTES_MAX + 1);
        compare_with_reference(input, inflated);
    }
    check_compressed(input, inflater, deflater);
}

/// The reference reads the same; where a block within the message is marked as the last, as far as that.
fn compare_with_reference(message: &[u8], inflated: &[u8]) {
    let stream = [message, &TAIL].concat();
    match decompress_to_vec_with_limit(&stream, MESSAGE_BYTES_MAX) {
        Ok(reference) => assert!(inflated.starts_with(&reference)),
        Err(error) => assert_eq!(error.status, TINFLStatus::HasMoreOutput, "we read what the reference refuses"),
    }
}

/// The input as what is said: compressed for each window, it is read again.
fn check_compressed(payload: &[u8], inflater: &mut Inflater, deflater: &mut Deflater) {
    for window in Window::ALL {
        let mut message = Vec::new();
        deflater.begin(window, &[]).compress(payload, &mut message);
        assert_eq!(inflater.inflate(&message, payload.len()).as_deref(), Ok(payload));
    }
}
