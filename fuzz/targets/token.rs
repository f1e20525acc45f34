//! Tokens: any text, and any claims under a signature that is right.
//!
//! Checked: what nobody signed opens nothing; what is read of signed claims depends on nothing but them and the time, and a
//! token that is valid at two times is valid at those between.

#![no_main]

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use tidegate::{config::TokenConfig, protocol::TokenVerifier};

const SECRET: &str = "a secret that the fuzzer is not told, of 32 bytes";

fuzz_target!(|input: &[u8]| {
    let config = TokenConfig { hmac_secret: Some(SECRET.into()), ..TokenConfig::default() };
    let verifier = TokenVerifier::new(&config, b"another, of the operator");
    if let Ok(text) = str::from_utf8(input) {
        assert!(verifier.verify(text, Some(0)).is_err() && verifier.verify_subscription(text, None).is_err());
    }
    let token = signed(input);
    let [first, second, third] = [1_000, 2_000, 3_000].map(|now| verifier.verify(&token, Some(now)));
    assert_eq!(verifier.verify(&token, Some(1_000)), first);
    if let Ok(identity) = &first {
        assert!(!identity.is_operator && verifier.verify(&token, None).is_ok());
        if third.is_ok() {
            assert!(second.as_ref() == Ok(identity) && third.as_ref() == Ok(identity));
        }
    }
    let _ = verifier.verify_subscription(&token, Some(1_000));
});

/// A token whose claims are these bytes.
fn signed(claims: &[u8]) -> String {
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let text = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes())))
}
