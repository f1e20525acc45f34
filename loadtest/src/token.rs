//! Connection tokens (JWT, HS256), minted by the tester: one per client.

use anyhow::{Context, Result};
use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

/// Of every token.
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    exp: u64,
}

/// A token's life: longer than any run.
const LIFETIME_SECONDS: u64 = 24 * 60 * 60;

/// A token for this user.
///
/// # Errors
/// If the clock cannot be right.
pub fn mint(secret: &str, user: &str) -> Result<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).context("the clock is before 1970")?;
    let claims = serde_json::to_string(&Claims { sub: user, exp: now.as_secs() + LIFETIME_SECONDS })?;
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), message.as_bytes());
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};

    use super::*;

    #[test]
    fn a_token_verifies_with_its_secret_only() {
        let token = mint("secret", "user-7").unwrap();
        let validation = Validation::new(Algorithm::HS256);
        let verify = |secret: &str| {
            decode::<serde_json::Value>(&token, &DecodingKey::from_secret(secret.as_bytes()), &validation)
        };
        assert_eq!(verify("secret").unwrap().claims["sub"], "user-7");
        assert!(verify("other").is_err());
    }
}
