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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unmasks_the_example_of_the_rfc() {
        // Section 5.7: "A single-frame masked text message".
        let mut payload = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        apply(&mut payload, [0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(&payload, b"Hello");
    }

    proptest! {
        #[test]
        fn equals_the_definition(payload in prop::collection::vec(any::<u8>(), 0..100), mask: [u8; 4]) {
            // Section 5.3: octet i of the payload is XORed with octet i modulo 4 of the key.
            let expected: Vec<u8> = payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]).collect();
            let mut actual = payload;
            apply(&mut actual, mask);
            prop_assert_eq!(actual, expected);
        }
    }
}
