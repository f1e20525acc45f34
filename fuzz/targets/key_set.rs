//! Published keys (JWKS), as an identity provider answers: any bytes.
//!
//! Checked: a set that is taken has keys; a token that nobody signed is refused with it.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use tidegate::{
    config::TokenConfig,
    protocol::{KeySet, TokenVerifier},
};

/// Signed by nobody, for each kind of key.
const FORGED: [&str; 3] = [
    "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.e30.AAAA",
    "eyJhbGciOiJFUzI1NiIsImtpZCI6ImVjIn0.e30.AAAA",
    "eyJhbGciOiJFZERTQSIsImtpZCI6ImVkMjU1MTkifQ.e30.AAAA",
];

fuzz_target!(|input: &[u8]| {
    let Ok(keys) = KeySet::parse(input) else { return };
    assert!(!keys.is_empty() && keys.len() > 0);
    let config =
        TokenConfig { jwks_public_endpoint: Some("https://example.com/".to_owned()), ..TokenConfig::default() };
    let mut verifier = TokenVerifier::new(&config, b"of the operator");
    verifier.set_key_set(Arc::new(keys), true);
    assert!(FORGED.iter().all(|token| verifier.verify(token, None).is_err()));
});
