//! The body of a request to `/emulation`, in JSON or Protobuf by the first byte: any bytes.
//!
//! Checked: no panic, and the commands in it are read as in a message of their own, to the first mistake.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::protocol::{EmulationRequest, Encoding};

fuzz_target!(|input: &[u8]| {
    let Some((first, body)) = input.split_first() else { return };
    let encoding = if first % 2 == 0 { Encoding::Json } else { Encoding::Protobuf };
    let Ok(request) = EmulationRequest::read(encoding, body) else { return };
    assert!(request.data.len() <= body.len());
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let mut commands = encoding.decode(&request.data);
        assert!(commands.by_ref().take_while(Result::is_ok).count() <= request.data.len());
    }
});
