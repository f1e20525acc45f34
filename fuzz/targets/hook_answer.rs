//! What an application's back end answers to each kind of question: any bytes.
//!
//! Checked: no panic; what is refused says why; a code that ends a connection is one that a close frame may carry.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::{
    config::{Hook, HookRefusal},
    protocol::{Disconnect, HookAnswer},
};

fuzz_target!(|input: &[u8]| {
    for hook in Hook::ALL.into_iter().filter(|hook| !hook.is_told()) {
        for takes_bytes in [false, true] {
            match HookAnswer::read(hook, input, takes_bytes) {
                Ok(HookAnswer::Refused(HookRefusal::Disconnect { code, reason })) => {
                    assert!(Disconnect::custom(code, &reason).is_some());
                }
                Ok(HookAnswer::Publish(answer)) => {
                    assert!(answer.data.is_none_or(|data| data.len() <= input.len()));
                }
                Ok(_) => {}
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
});
