//! A producer's `traceparent`: any bytes.
//!
//! Checked: what is read of it, written in the form of the standard's first version, is what was there, and is read as
//! the same.

#![no_main]

use std::fmt::Write;

use libfuzzer_sys::fuzz_target;
use tidegate::mesh::TraceContext;

fuzz_target!(|input: &[u8]| {
    let Some(context) = TraceContext::parse(input) else { return };
    let mut text = "00-".to_owned();
    let mut hexadecimal = |bytes: &[u8]| {
        bytes.iter().for_each(|byte| write!(text, "{byte:02x}").expect("a string grows"));
        text.push('-');
    };
    hexadecimal(&context.parent.trace_id);
    hexadecimal(&context.parent.span_id);
    assert_eq!(text.as_bytes()[3..], input[3..text.len()]);
    text.push_str(if context.is_sampled { "01" } else { "00" });
    assert_eq!(TraceContext::parse(text.as_bytes()), Some(context));
});
