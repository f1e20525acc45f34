//! Changes of attributes (RFC 7396), a line each: any JSON.
//!
//! Checked: what a change leaves is within the limits and is JSON; the same change again leaves the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tidegate::{config::AttributesConfig, protocol::AttributesPatch};

/// Small, so that the fuzzer finds each.
const LIMITS: AttributesConfig = AttributesConfig { bytes_max: 100, keys_max: 6, depth_max: 3 };

fuzz_target!(|input: &[u8]| {
    let mut attributes: Option<Box<[u8]>> = None;
    for line in input.split(|byte| *byte == b'\n') {
        let Ok(patch) = AttributesPatch::read(line, &LIMITS) else { continue };
        let Ok(after) = patch.apply(attributes.as_deref(), &LIMITS) else { continue };
        if let Some(after) = &after {
            assert!(after.len() <= LIMITS.bytes_max as usize);
            let value: Value = serde_json::from_slice(after).expect("attributes are JSON");
            assert!(value.is_object());
        }
        assert_eq!(patch.apply(after.as_deref(), &LIMITS), Ok(after.clone()), "it is made already");
        attributes = after;
    }
});
