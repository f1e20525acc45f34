//! A payload that a producer says it has compressed: any bytes.
//!
//! Checked: nothing becomes longer than it may; what is said of a payload depends on no payload before it; what was
//! decompressed is what the library's own stream says, and compressed again comes back.
//!
//! A stream keeps its window in memory, and refuses frames that name a long one (more than 128 MiB), or blocks that are
//! longer than it. The server has no window: it decompresses into the room for the whole, where all that a frame refers
//! back to lies already. So the stream is shown a window that is always the same, which nothing so short reaches beyond.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::ingest::Decompressor;

const BYTES_MAX: usize = 4096;

/// The window's descriptor for 128 KiB: no block is longer (RFC 8878 sections 3.1.1.1.2 and 3.1.1.2.4).
const WINDOW: u8 = 7 << 3;

fuzz_target!(|input: &[u8]| {
    let mut fresh = Decompressor::new(&[]);
    let result = fresh.decompress(input, BYTES_MAX);
    assert_eq!(fresh.decompress(input, BYTES_MAX), result, "nothing is left of the first time");
    let Ok(payload) = result else { return };
    assert!(payload.len() <= BYTES_MAX);
    assert_eq!(zstd::stream::decode_all(&*with_window(input)).expect("one whole frame"), payload);
    let again = zstd::bulk::compress(&payload, 1).expect("any bytes can be compressed");
    assert_eq!(fresh.decompress(&again, BYTES_MAX), Ok(payload));
});

/// The frame with a window of 128 KiB, if it has one.
fn with_window(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    // Behind the magic number and the frame's descriptor, of which bit 5 says that there is no window's descriptor.
    let has_window = frame[4] & 1 << 5 == 0;
    if has_window {
        frame[5] = WINDOW;
    }
    frame
}
