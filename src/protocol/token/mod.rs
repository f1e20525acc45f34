//! Tokens: JSON web tokens that prove who a client is, and which channels it may enter (protocol.md section 16).
//!
//! Owns the order of the checks: signature, audience and issuer, claims. Leaves to [`signature`] what a token is signed
//! with, to [`claims`] what it says. The time is the caller's, so that a simulation can own it; keys that must be
//! fetched are the control thread's business: here they are at hand, or missing.
//!
//! Invariants:
//! - Nothing that a token says counts before its signature is verified, and a key verifies only under the algorithms of
//!   its own kind. A token that chose freely could have a public key, or none, taken for the secret.
//! - The operator's key never leaves the process but inside tokens that it signs: who has one may
//!   subscribe and publish everywhere.

mod claims;
mod jwks;
mod mint;
mod signature;

use std::{fmt, sync::Arc};

use bytes::Bytes;

use self::{
    claims::Claims as ReceivedClaims,
    signature::{PublicKey, Secret, Signed},
};
pub use self::{
    jwks::{KeySet, KeySetError},
    mint::{Claims, mint, mint_operator},
};
use super::grant::{Grant, Overrides};
use crate::config::{KeyFamily, TokenConfig};

/// What a valid connection token says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// User id; "": anonymous.
    pub user: String,
    /// When the connection expires, in seconds since 1970; none: never.
    pub expires_at: Option<u64>,
    /// What other clients may see of the user: a JSON text.
    pub info: Option<Bytes>,
    /// What the application's back end may see of the connection, and clients never: a JSON text.
    pub meta: Option<Bytes>,
    /// Channels to subscribe the client to.
    pub channels: Vec<(String, Grant)>,
    /// The token is the console's: no rule of channels applies.
    pub is_operator: bool,
}

/// What a valid subscription token says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubscriptionToken {
    /// User id; "": anonymous. Another user's token is worth nothing.
    pub user: String,
    /// The one channel that it opens.
    pub channel: String,
    /// The one client that may use it; none: every client of the user.
    pub client: Option<String>,
    /// What comes with the subscription.
    pub grant: Grant,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It was valid once, or will be; the client's SDK knows to fetch another.
    #[error("the token has expired")]
    Expired,
    /// It is still valid, but what it grants is over (`expire_at`).
    #[error("what the token grants has expired")]
    GrantExpired,
    /// It is garbled, forged, or not for here.
    #[error("the token is invalid")]
    Invalid,
    /// It names a key that is not at hand, but might be in the set that is published now.
    #[error("the token names a key that is not at hand")]
    KeyMissing,
}

/// Verifies tokens. Made once per shard.
pub struct TokenVerifier {
    config: TokenConfig,
    /// The present secret and the one before it, as configured.
    secrets: Vec<Secret>,
    /// Configured public keys.
    keys: Vec<PublicKey>,
    /// Published public keys; none: nobody publishes any for this server.
    key_set: Option<Arc<KeySet>>,
    /// Whether what is not in the set is not published.
    is_current: bool,
    operator_key: Secret,
}

impl TokenVerifier {
    /// A verifier of tokens that the configured keys signed, and of those that `operator_key` did.
    pub fn new(config: &TokenConfig, operator_key: &[u8]) -> Self {
        Self {
            config: config.clone(),
            secrets: secrets_of(config),
            keys: keys_of(config),
            // Until they are fetched, every key that a token may name is missing.
            is_current: false,
            key_set: config.jwks_public_endpoint.as_ref().map(|_| Arc::default()),
            operator_key: Secret::new(operator_key),
        }
    }

    /// From now on these keys and demands count. What another publisher has published counts no more.
    pub fn reconfigure(&mut self, config: &TokenConfig) {
        if self.config.jwks_public_endpoint != config.jwks_public_endpoint {
            self.is_current = false;
            self.key_set = config.jwks_public_endpoint.as_ref().map(|_| Arc::default());
        }
        self.secrets = secrets_of(config);
        self.keys = keys_of(config);
        self.config = config.clone();
    }

    /// From now on, these published keys count, and none that were published before. `is_current`: their publisher was
    /// reached when they were last asked for.
    pub fn set_key_set(&mut self, keys: Arc<KeySet>, is_current: bool) {
        self.key_set = Some(keys);
        self.is_current = is_current;
    }

    /// Whether a key that is missing is not published, as far as the last attempt to fetch it can tell.
    pub fn has_current_keys(&self) -> bool {
        self.is_current
    }

    /// Who a connection token proves its bearer to be. `now` is in seconds since 1970; none: nothing expires.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify(&self, token: &str, now: Option<u64>) -> Result<Identity, TokenError> {
        let (payload, is_operator) = self.verify_signature(token)?;
        let claims = self.read_claims(&payload, is_operator)?;
        Ok(Identity { is_operator, ..claims.into_identity(now)? })
    }

    /// What a subscription token opens, and for whom. `now` is in seconds since 1970; none: nothing expires.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify_subscription(&self, token: &str, now: Option<u64>) -> Result<SubscriptionToken, TokenError> {
        let (payload, is_operator) = self.verify_signature(token)?;
        if is_operator {
            // The operator needs none.
            return Err(TokenError::Invalid);
        }
        self.read_claims(&payload, false)?.into_subscription(now)
    }

    /// The payload, and whether the operator's key signed it.
    fn verify_signature(&self, token: &str) -> Result<(Vec<u8>, bool), TokenError> {
        let token = Signed::parse(token).ok_or(TokenError::Invalid)?;
        let is_client = match token.algorithm.public() {
            None => self.secrets.iter().any(|secret| secret.verifies(&token)),
            Some(_) => self.verify_public(&token)?,
        };
        let is_operator = !is_client && self.operator_key.verifies(&token);
        if !is_client && !is_operator {
            return Err(TokenError::Invalid);
        }
        Ok((token.payload().ok_or(TokenError::Invalid)?, is_operator))
    }

    /// Whether the token was signed with the key that it names, or with a configured one.
    fn verify_public(&self, token: &Signed<'_>) -> Result<bool, TokenError> {
        let published = self.key_set.as_ref().map(|keys| keys.key_of(token));
        if let Some(Some(key)) = published {
            return Ok(key.verifies(token));
        }
        let is_verified = self.keys.iter().any(|key| key.verifies(token));
        if !is_verified && published.is_some() { Err(TokenError::KeyMissing) } else { Ok(is_verified) }
    }

    fn read_claims<'p>(&self, payload: &'p [u8], is_operator: bool) -> Result<ReceivedClaims<'p>, TokenError> {
        let mut claims = ReceivedClaims::parse(payload).ok_or(TokenError::Invalid)?;
        if is_operator {
            return Ok(claims);
        }
        if !claims.are_for(&self.config) {
            return Err(TokenError::Invalid);
        }
        if let Some(claim) = &self.config.user_id_claim
            && !claims.take_user_from(payload, claim)
        {
            return Err(TokenError::Invalid);
        }
        Ok(claims)
    }
}

/// The present secret and the one before it.
fn secrets_of(config: &TokenConfig) -> Vec<Secret> {
    let secrets = [&config.hmac_secret, &config.hmac_secret_previous];
    secrets.into_iter().flatten().map(|secret| Secret::new(secret.as_bytes())).collect()
}

fn keys_of(config: &TokenConfig) -> Vec<PublicKey> {
    let keys = [
        (&config.rsa_public_key, KeyFamily::Rsa),
        (&config.ecdsa_public_key, KeyFamily::Ecdsa),
        (&config.ed25519_public_key, KeyFamily::Ed25519),
    ];
    let keys = keys.into_iter().filter_map(|(key, family)| Some(PublicKey::of_der(key.as_ref()?.der(), family)));
    keys.flatten().collect()
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TokenVerifier").field("key_set", &self.key_set).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
