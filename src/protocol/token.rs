//! Connection tokens: JSON web tokens that prove who a client is (protocol.md section 16).
//!
//! Owns the rules of the claims. The signature is `jsonwebtoken`'s business; the time is the
//! caller's, so that a simulation can own it.
//!
//! Invariants:
//! - Only HMAC is accepted. An algorithm that a token chose freely would let a public key, or
//!   none, be taken for the secret.
//! - The operator's key never leaves the process but inside tokens that it signs: who has one may
//!   subscribe and publish everywhere.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{config::ClientConfig, limits::USER_BYTES_MAX};

/// What a valid token says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// User id; "": anonymous.
    pub user: String,
    /// When the connection expires, in seconds since 1970; none: never.
    pub expires_at: Option<u64>,
    /// What other clients may see of the user: a JSON text.
    pub info: Option<Bytes>,
    /// Channels to subscribe the client to.
    pub channels: Vec<String>,
    /// The token is the console's: no rule of channels applies.
    pub is_operator: bool,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It was valid once; the client's SDK knows to fetch another.
    #[error("the token has expired")]
    Expired,
    /// It is still valid, but the connection that it grants is over (`expire_at`).
    #[error("the connection that the token grants has expired")]
    ConnectionExpired,
    /// It is garbled, forged, or not for here.
    #[error("the token is invalid")]
    Invalid,
}

/// Verifies connection tokens. Made once per shard.
#[derive(Debug)]
pub struct TokenVerifier {
    /// The present secret and the one before it, as configured.
    keys: Vec<DecodingKey>,
    validation: Validation,
    operator_key: DecodingKey,
    operator_validation: Validation,
}

impl TokenVerifier {
    /// A verifier of tokens that the configured secrets signed, and of those that `operator_key` did.
    pub fn new(config: &ClientConfig, operator_key: &[u8]) -> Self {
        let secrets = [&config.token_hmac_secret, &config.token_hmac_secret_previous];
        let mut validation = validation();
        if let Some(audience) = &config.token_audience {
            validation.validate_aud = true;
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        if let Some(issuer) = &config.token_issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        Self {
            keys: secrets.into_iter().flatten().map(|secret| DecodingKey::from_secret(secret.as_bytes())).collect(),
            validation,
            operator_key: DecodingKey::from_secret(operator_key),
            operator_validation: self::validation(),
        }
    }

    /// Who the token proves its bearer to be. `now` is in seconds since 1970.
    pub fn verify(&self, token: &str, now: u64) -> Result<Identity, TokenError> {
        for key in &self.keys {
            match jsonwebtoken::decode::<ReceivedClaims>(token, key, &self.validation) {
                Ok(data) => return data.claims.into_identity(now),
                Err(error) if *error.kind() == ErrorKind::InvalidSignature => {}
                Err(_) => return Err(TokenError::Invalid),
            }
        }
        let data = jsonwebtoken::decode::<ReceivedClaims>(token, &self.operator_key, &self.operator_validation)
            .map_err(|_| TokenError::Invalid)?;
        Ok(Identity { is_operator: true, ..data.claims.into_identity(now)? })
    }
}

/// The claims that [`mint`] signs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Claims<'a> {
    /// User id.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub sub: &'a str,
    /// When the token expires, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// Channels to subscribe the client to.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub channels: &'a [String],
    /// What other clients may see of the user: a JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<&'a RawValue>,
    /// Audience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<&'a str>,
    /// Issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<&'a str>,
}

/// A connection token under a secret, by HS256.
pub fn mint(secret: &[u8], claims: &Claims<'_>) -> String {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret))
        .expect("claims of strings and numbers can always be signed by HMAC")
}

/// A token that makes its bearer an operator until `expires`, in seconds since 1970.
pub fn mint_operator(operator_key: &[u8], expires: u64) -> String {
    mint(operator_key, &Claims { exp: Some(expires), ..Claims::default() })
}

/// Rules that hold for every token. Times are checked here and not by the library, which reads the clock itself.
fn validation() -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.algorithms = vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    validation
}

/// The claims that matter. Dates are numbers, with or without a fraction (RFC 7519 section 2).
#[derive(Deserialize)]
struct ReceivedClaims {
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    exp: Option<f64>,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    expire_at: Option<f64>,
    #[serde(default)]
    info: Option<Box<RawValue>>,
    #[serde(default)]
    b64info: Option<String>,
    #[serde(default)]
    channels: Option<Vec<String>>,
    /// Takes precedence over `channels`. Options of single subscriptions are not read.
    #[serde(default)]
    subs: Option<BTreeMap<String, IgnoredAny>>,
    /// Only subscription tokens have it; one of those must not open a connection.
    #[serde(default)]
    channel: Option<IgnoredAny>,
}

impl ReceivedClaims {
    fn into_identity(self, now: u64) -> Result<Identity, TokenError> {
        let now_seconds = now as f64;
        if self.channel.is_some() || self.nbf.is_some_and(|nbf| nbf > now_seconds) {
            return Err(TokenError::Invalid);
        }
        if self.exp.is_some_and(|exp| exp <= now_seconds) {
            return Err(TokenError::Expired);
        }
        let expires_at = match self.expire_at {
            None => self.exp,
            Some(expire_at) if expire_at <= 0.0 => None,
            Some(expire_at) if expire_at <= now_seconds => return Err(TokenError::ConnectionExpired),
            Some(expire_at) => Some(expire_at),
        };
        let info = self.info()?;
        let user = self.sub.unwrap_or_default();
        if user.len() > USER_BYTES_MAX {
            return Err(TokenError::Invalid);
        }
        Ok(Identity {
            user,
            // A fraction of a second more or less does not matter; a date beyond all is the last there is.
            expires_at: expires_at.map(|seconds| seconds as u64),
            info,
            channels: match self.subs {
                Some(subs) => subs.into_keys().collect(),
                None => self.channels.unwrap_or_default(),
            },
            is_operator: false,
        })
    }

    fn info(&self) -> Result<Option<Bytes>, TokenError> {
        let json: Cow<'_, [u8]> = match (&self.b64info, &self.info) {
            (Some(base64), _) => {
                let json = STANDARD.decode(base64).map_err(|_| TokenError::Invalid)?;
                serde_json::from_slice::<IgnoredAny>(&json).map_err(|_| TokenError::Invalid)?;
                json.into()
            }
            (None, Some(info)) => info.get().as_bytes().into(),
            (None, None) => return Ok(None),
        };
        // Without line feeds, so that it can be copied into every publication as it is.
        Ok(Some(json.iter().copied().filter(|byte| *byte != b'\n').collect()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::Config;

    const SECRET: &str = "the secret";
    const OPERATOR_KEY: &[u8] = b"the operator's key";
    const NOW: u64 = 1_700_000_000;

    fn config() -> ClientConfig {
        ClientConfig { token_hmac_secret: Some(SECRET.into()), ..Config::default().client }
    }

    fn verify_with(config: &ClientConfig, token: &str) -> Result<Identity, TokenError> {
        TokenVerifier::new(config, OPERATOR_KEY).verify(token, NOW)
    }

    fn sign(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
        jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes()))
            .expect("HMAC signs any claims")
    }

    /// Signs claims rightly and verifies them.
    fn claimed(claims: &Value) -> Result<Identity, TokenError> {
        verify_with(&config(), &sign(Algorithm::HS256, SECRET, claims))
    }

    /// A token put together by hand, with a signature that was made for something else.
    fn with_header(header: &Value, signature: &str) -> String {
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;

        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.{signature}", part(header), part(&json!({"sub": "42"})))
    }

    #[test]
    fn all_three_hmac_algorithms_are_accepted() {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let token = sign(algorithm, SECRET, &json!({"sub": "42"}));
            let identity = verify_with(&config(), &token).expect("a valid token");
            assert_eq!(identity, Identity { user: "42".to_owned(), ..Identity::default() });
        }
    }

    #[test]
    fn forged_garbled_and_unsigned_tokens_are_invalid() {
        let good = sign(Algorithm::HS256, SECRET, &json!({"sub": "42"}));
        let (message, signature) = good.rsplit_once('.').expect("three parts");
        let other = sign(Algorithm::HS256, SECRET, &json!({"sub": "43"}));
        let tokens = [
            sign(Algorithm::HS256, "another secret", &json!({"sub": "42"})),
            format!("{message}.{}", other.rsplit_once('.').expect("three parts").1),
            format!("{message}."),
            message.to_owned(),
            format!("{good}."),
            good.replace('.', ""),
            with_header(&json!({"alg": "none", "typ": "JWT"}), ""),
            with_header(&json!({"alg": "none"}), signature),
            with_header(&json!({"alg": "RS256"}), signature),
            with_header(&json!({"alg": "EdDSA"}), signature),
            with_header(&json!({}), signature),
            String::new(),
            "..".to_owned(),
        ];
        for token in tokens {
            assert_eq!(verify_with(&config(), &token), Err(TokenError::Invalid), "{token}");
        }
    }

    #[test]
    fn without_a_secret_no_token_of_a_client_is_valid() {
        let config = ClientConfig { token_hmac_secret: None, ..config() };
        for secret in [SECRET, ""] {
            let token = sign(Algorithm::HS256, secret, &json!({"sub": "42"}));
            assert_eq!(verify_with(&config, &token), Err(TokenError::Invalid));
        }
    }

    #[test]
    fn the_previous_secret_is_accepted_while_it_is_configured() {
        let token = sign(Algorithm::HS256, "the secret before", &json!({"sub": "42"}));
        assert_eq!(verify_with(&config(), &token), Err(TokenError::Invalid));
        let rotating = ClientConfig { token_hmac_secret_previous: Some("the secret before".into()), ..config() };
        assert_eq!(verify_with(&rotating, &token).map(|identity| identity.user), Ok("42".to_owned()));
        assert!(verify_with(&rotating, &sign(Algorithm::HS256, SECRET, &json!({}))).is_ok());
    }

    #[test]
    fn times_are_held_against_the_given_clock() {
        let expires_at = |claims| claimed(&claims).map(|identity| identity.expires_at);
        assert_eq!(expires_at(json!({})), Ok(None));
        assert_eq!(expires_at(json!({"exp": NOW + 1})), Ok(Some(NOW + 1)));
        assert_eq!(expires_at(json!({"exp": (NOW + 1) as f64 + 0.5})), Ok(Some(NOW + 1)));
        for exp in [json!(NOW), json!(NOW - 1), json!(0), json!(-1)] {
            assert_eq!(expires_at(json!({"exp": exp})), Err(TokenError::Expired), "{exp}");
        }
        assert_eq!(expires_at(json!({"nbf": NOW, "exp": 1e300})), Ok(Some(u64::MAX)));
        assert_eq!(expires_at(json!({"nbf": NOW + 1})), Err(TokenError::Invalid));
        assert_eq!(expires_at(json!({"exp": NOW + 1, "expire_at": NOW + 9})), Ok(Some(NOW + 9)));
        assert_eq!(expires_at(json!({"exp": NOW + 1, "expire_at": 0})), Ok(None));
        assert_eq!(expires_at(json!({"exp": NOW + 1, "expire_at": NOW})), Err(TokenError::ConnectionExpired));
        assert_eq!(expires_at(json!({"exp": "tomorrow"})), Err(TokenError::Invalid));
    }

    #[test]
    fn an_expired_token_with_a_wrong_signature_is_invalid_not_expired() {
        let token = sign(Algorithm::HS256, "another secret", &json!({"exp": NOW - 1}));
        assert_eq!(verify_with(&config(), &token), Err(TokenError::Invalid));
    }

    #[test]
    fn subscription_tokens_open_no_connection() {
        assert_eq!(claimed(&json!({"sub": "42", "channel": "news"})), Err(TokenError::Invalid));
    }

    #[test]
    fn channels_come_from_subs_or_channels() {
        let channels = |claims| claimed(&claims).map(|identity| identity.channels);
        assert_eq!(channels(json!({"channels": ["a", "b"]})), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(channels(json!({"channels": ["a"], "subs": {"b": {"info": 1}}})), Ok(vec!["b".to_owned()]));
        assert_eq!(channels(json!({"channels": null})), Ok(vec![]));
        assert_eq!(channels(json!({"channels": [1]})), Err(TokenError::Invalid));
    }

    #[test]
    fn info_is_json_without_line_feeds() {
        let info = |claims| claimed(&claims).map(|identity| identity.info);
        assert_eq!(info(json!({"info": {"name": "Al"}})), Ok(Some(Bytes::from_static(b"{\"name\":\"Al\"}"))));
        assert_eq!(
            info(json!({"b64info": STANDARD.encode("{\n\"a\": 1}")})),
            Ok(Some(Bytes::from_static(b"{\"a\": 1}")))
        );
        assert_eq!(info(json!({"b64info": STANDARD.encode("no JSON")})), Err(TokenError::Invalid));
        assert_eq!(info(json!({"b64info": "*"})), Err(TokenError::Invalid));
    }

    #[test]
    fn users_must_be_strings_that_fit_a_personal_channel() {
        let user = |user: Value| claimed(&json!({"sub": user})).map(|identity| identity.user);
        assert_eq!(user(json!("u".repeat(USER_BYTES_MAX))), Ok("u".repeat(USER_BYTES_MAX)));
        assert_eq!(user(json!("u".repeat(USER_BYTES_MAX + 1))), Err(TokenError::Invalid));
        assert_eq!(user(json!(42)), Err(TokenError::Invalid));
        assert_eq!(user(json!(null)), Ok(String::new()));
    }

    #[test]
    fn audience_and_issuer_count_if_they_are_configured() {
        assert!(claimed(&json!({"aud": "anybody", "iss": "anywhere"})).is_ok());
        let config = ClientConfig {
            token_audience: Some("tidegate".to_owned()),
            token_issuer: Some("https://id.example.com".to_owned()),
            ..config()
        };
        let verify = |claims: Value| verify_with(&config, &sign(Algorithm::HS256, SECRET, &claims)).map(|_| ());
        assert_eq!(verify(json!({"aud": "tidegate", "iss": "https://id.example.com"})), Ok(()));
        assert_eq!(verify(json!({"aud": ["x", "tidegate"], "iss": "https://id.example.com"})), Ok(()));
        for claims in [
            json!({"aud": "x", "iss": "https://id.example.com"}),
            json!({"aud": "tidegate", "iss": "x"}),
            json!({"aud": "tidegate"}),
            json!({"iss": "https://id.example.com"}),
            json!({}),
        ] {
            assert_eq!(verify(claims.clone()), Err(TokenError::Invalid), "{claims}");
        }
        let operator = mint_operator(OPERATOR_KEY, NOW + 1);
        assert!(verify_with(&config, &operator).is_ok_and(|identity| identity.is_operator));
    }

    #[test]
    fn only_the_operators_key_makes_an_operator() {
        let operator = verify_with(&config(), &mint_operator(OPERATOR_KEY, NOW + 60)).expect("a valid token");
        assert!(operator.is_operator);
        assert_eq!((operator.user.as_str(), operator.expires_at), ("", Some(NOW + 60)));
        assert_eq!(verify_with(&config(), &mint_operator(OPERATOR_KEY, NOW)), Err(TokenError::Expired));
        assert_eq!(verify_with(&config(), &mint_operator(b"another key", NOW + 60)), Err(TokenError::Invalid));
        let client = verify_with(&config(), &mint(SECRET.as_bytes(), &Claims::default())).expect("a valid token");
        assert!(!client.is_operator);
        let without_secret = ClientConfig { token_hmac_secret: None, ..config() };
        assert!(verify_with(&without_secret, &mint_operator(OPERATOR_KEY, NOW + 60)).is_ok());
    }
}
