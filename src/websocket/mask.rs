//! The mask on a client's payloads (RFC 6455 section 5.3).
//!
//! Owns the XOR. Invariant: applying it twice gives the original back, so whoever applies it
//! must know that it was not applied before.

/// Masks or unmasks a whole payload, eight bytes at a time; the compiler widens that to vectors.
pub fn apply(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, tail) = payload.as_chunks_mut();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    // The chunks are a multiple of the mask's length, so the tail begins with the mask's first byte.
    for (byte, key) in tail.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}
