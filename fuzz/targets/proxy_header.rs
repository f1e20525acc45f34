//! What a balancer sends first, PROXY protocol version 2: any bytes.
//!
//! Checked: what is found does not depend on where the network cut; a header has the length that it says; what follows
//! it changes nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::network::proxy::{HEADER_BYTES_MAX, Header, parse};

fuzz_target!(|input: &[u8]| {
    let found = parse(input);
    for length in 0..input.len().min(HEADER_BYTES_MAX) {
        match parse(&input[..length]) {
            Ok(Header::Incomplete) => {}
            decided => assert_eq!(decided, found, "cut at {length}"),
        }
    }
    if let Ok(Header::Complete { bytes, .. }) = found {
        assert!(bytes <= input.len() && bytes <= HEADER_BYTES_MAX);
        let said = usize::from(u16::from_be_bytes([input[14], input[15]]));
        assert_eq!(bytes, 16 + said);
        assert_eq!(parse(&input[..bytes]), found, "what follows is not its business");
    }
    if found == Ok(Header::Incomplete) {
        assert!(input.len() < HEADER_BYTES_MAX, "no more is waited for than a header may have");
    }
});
