//! The signing of tokens: for the command line, and for the server's own console. Applications sign their own.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::value::RawValue;

/// `{"alg":"HS256","typ":"JWT"}`.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// The claims that [`mint`] signs (protocol.md section 16).
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
    /// The channel that the token opens: it makes the token a subscription token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<&'a str>,
    /// The one client that may use the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<&'a str>,
    /// What other clients may see of the user, or of the subscriber: a JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<&'a RawValue>,
    /// Audience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<&'a str>,
    /// Issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<&'a str>,
    /// Other claims: where the configuration takes users from one.
    #[serde(flatten)]
    pub others: BTreeMap<&'a str, &'a str>,
}

/// A token under a secret, by HS256.
pub fn mint(secret: &[u8], claims: &Claims<'_>) -> String {
    let payload = serde_json::to_vec(claims).expect("strings and numbers become JSON");
    let message = format!("{HEADER}.{}", URL_SAFE_NO_PAD.encode(payload));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A token that makes its bearer an operator until `expires`, in seconds since 1970.
pub fn mint_operator(operator_key: &[u8], expires: u64) -> String {
    mint(operator_key, &Claims { exp: Some(expires), ..Claims::default() })
}
