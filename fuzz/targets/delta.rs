//! Two payloads, cut where the first byte says: the patch from one to the other.
//!
//! Checked: a reader that was written apart from the encoder makes the second of the first, and the patch is shorter.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::protocol::DeltaEncoder;

#[path = "../../tests/simulation/fossil.rs"]
mod fossil;

fuzz_target!(|input: &[u8]| {
    let Some((place, payloads)) = input.split_first() else { return };
    let (source, target) = payloads.split_at(payloads.len() * usize::from(*place) / 256);
    let mut encoder = DeltaEncoder::default();
    // What is there already stays, and what the encoder remembers of other payloads does not matter.
    for (source, target) in [(source, target), (target, source), (source, target)] {
        let mut patch = b"before".to_vec();
        if encoder.encode(source, target, &mut patch) {
            assert!(patch.len() - b"before".len() < target.len());
            assert_eq!(fossil::apply(source, &patch[b"before".len()..]), target);
        } else {
            assert_eq!(patch, b"before");
        }
    }
});
