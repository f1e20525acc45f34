//! A payload that a producer says it has compressed: any bytes.
//!
//! Checked: nothing becomes longer than it may; what is said of a payload depends on no payload before it; what was
//! decompressed is what the library's own stream says, and compressed again comes back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::ingest::Decompressor;

const BYTES_MAX: usize = 4096;

fuzz_target!(|input: &[u8]| {
    let mut fresh = Decompressor::new(&[]);
    let result = fresh.decompress(input, BYTES_MAX);
    assert_eq!(fresh.decompress(input, BYTES_MAX), result, "nothing is left of the first time");
    let Ok(payload) = result else { return };
    assert!(payload.len() <= BYTES_MAX);
    assert_eq!(zstd::stream::decode_all(input).expect("one whole frame"), payload);
    let again = zstd::bulk::compress(&payload, 1).expect("any bytes can be compressed");
    assert_eq!(fresh.decompress(&again, BYTES_MAX), Ok(payload));
});
