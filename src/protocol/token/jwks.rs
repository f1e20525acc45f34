//! Sets of public keys as identity providers publish them (RFC 7517).
//!
//! Owns the reading of a set. Fetching it, and how often, is the control thread's business.

use std::{borrow::Cow, fmt};

use aws_lc_rs::signature::{ParsedPublicKey, RsaPublicKeyComponents};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::signature::{Algorithm, PublicKey, Signed};
use crate::{config::KeyFamily, limits::KEY_SET_KEYS_MAX};

/// Public keys by their ids. Shared by all shards, never changed.
#[derive(Default)]
pub struct KeySet {
    keys: Vec<(String, PublicKey)>,
}

/// Why a text is no set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Not JSON, or no list `keys` in it.
    #[error("not a JSON Web Key Set (RFC 7517)")]
    Malformed,
    /// Keys of other kinds or for other uses, or no key at all: nobody would get in.
    #[error("no key in it can verify a token (RSA from 2048 bits, ECDSA on P-256, P-384 or P-521, or Ed25519)")]
    Unusable,
}

impl KeySet {
    /// Reads a set. Keys that cannot verify tokens are left out, as RFC 7517 section 5 asks, and so is what lies beyond
    /// [`KEY_SET_KEYS_MAX`].
    ///
    /// # Errors
    /// When nothing remains.
    pub fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        let document: Document<'_> = serde_json::from_slice(json).map_err(|_| KeySetError::Malformed)?;
        let mut keys = Vec::new();
        for key in document.keys.into_iter().take(KEY_SET_KEYS_MAX) {
            let Ok(key) = serde_json::from_str::<Key<'_>>(key.get()) else { continue };
            let id = key.kid.as_deref().unwrap_or_default().to_owned();
            keys.extend(key.public_keys().into_iter().map(|public| (id.clone(), public)));
        }
        if keys.is_empty() { Err(KeySetError::Unusable) } else { Ok(Self { keys }) }
    }

    /// Whether the set is without keys: none was fetched yet.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many keys there are, an RSA key without `alg` counting once for each of its algorithms.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key that a token names, if it may verify the token's algorithm.
    pub(super) fn key_of(&self, token: &Signed<'_>) -> Option<&PublicKey> {
        let is_named = |(id, key): &&(String, PublicKey)| *id == token.key_id && key.algorithm() == token.algorithm;
        self.keys.iter().find(is_named).map(|(_, key)| key)
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.iter().map(|(id, key)| (id, key.algorithm()));
        formatter.debug_list().entries(keys).finish()
    }
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// A key (RFC 7517 section 4, RFC 7518 section 6, RFC 8037 section 2).
#[derive(Deserialize)]
struct Key<'a> {
    #[serde(borrow)]
    kty: Cow<'a, str>,
    #[serde(borrow, default)]
    kid: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "use", default)]
    usage: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    alg: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    crv: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    n: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    e: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    x: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    y: Option<Cow<'a, str>>,
}

impl Key<'_> {
    /// The key under each algorithm that it may serve.
    fn public_keys(&self) -> Vec<PublicKey> {
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return Vec::new();
        }
        let algorithms = match (self.kty.as_ref(), self.crv.as_deref()) {
            ("RSA", _) => Algorithm::of_family(KeyFamily::Rsa),
            ("EC", Some("P-256")) => &[Algorithm::Es256],
            ("EC", Some("P-384")) => &[Algorithm::Es384],
            ("EC", Some("P-521")) => &[Algorithm::Es512],
            ("OKP", Some("Ed25519")) => Algorithm::of_family(KeyFamily::Ed25519),
            _ => &[],
        };
        let is_meant = |algorithm: Algorithm| {
            self.alg.as_deref().is_none_or(|alg| Algorithm::of_name(alg).is_some_and(|named| named == algorithm))
        };
        let meant = algorithms.iter().copied().filter(|algorithm| is_meant(*algorithm));
        meant.filter_map(|algorithm| Some(PublicKey::new(algorithm, self.parse(algorithm)?))).collect()
    }

    fn parse(&self, algorithm: Algorithm) -> Option<ParsedPublicKey> {
        if let Some(parameters) = algorithm.rsa() {
            let n = bytes(&self.n)?;
            // Some providers write a sign byte, which is no part of the number.
            let n = n.strip_prefix(&[0]).unwrap_or(&n);
            if n.len() < RSA_MODULUS_BYTES_MIN {
                return None;
            }
            let components = RsaPublicKeyComponents { n, e: &bytes(&self.e)?[..] };
            return components.to_parsed_public_key(parameters).ok();
        }
        let mut point = bytes(&self.x)?;
        if algorithm != Algorithm::EdDsa {
            // An uncompressed point (SEC 1 section 2.3.3).
            point.insert(0, 4);
            point.extend(bytes(&self.y)?);
        }
        ParsedPublicKey::new(algorithm.public()?, point).ok()
    }
}

/// 2,048 bits (RFC 7518 section 3.3).
const RSA_MODULUS_BYTES_MIN: usize = 256;

fn bytes(text: &Option<Cow<'_, str>>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.as_deref()?).ok()
}
