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
