//! Connection tokens (JWT, HS256), minted by the tester: one per client.

use anyhow::{Context, Result};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

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
/// If the secret cannot be used as a key.
pub fn mint(secret: &str, user: &str) -> Result<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).context("the clock is before 1970")?;
    let claims = Claims { sub: user, exp: now.as_secs() + LIFETIME_SECONDS };
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key).context("the token cannot be signed")
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation, decode};

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
