//! Signatures of tokens: JSON web signatures in their compact form (RFC 7515, RFC 7518 section 3).
//!
//! Owns the syntax of a token, the algorithms, and which key may verify which. What the payload says is `claims`'.
//!
//! Invariant: a key verifies under the algorithms of its own kind only, whatever a token's header says. Otherwise a
//! public key, which everybody knows, could be taken for an HMAC secret (RFC 8725 section 2.1).

use std::borrow::Cow;

use aws_lc_rs::{
    hmac,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, ParsedPublicKey,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaParameters,
        VerificationAlgorithm,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, de::IgnoredAny};

use crate::config::KeyFamily;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

impl Algorithm {
    /// The algorithm of this name; none: unknown, "none" among others.
    pub fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::Hs256,
            "HS384" => Self::Hs384,
            "HS512" => Self::Hs512,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            // The second is the first's name since RFC 9864, on this curve.
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }

    /// Those of a family of public keys.
    pub fn of_family(family: KeyFamily) -> &'static [Self] {
        match family {
            KeyFamily::Rsa => &[Self::Rs256, Self::Rs384, Self::Rs512],
            KeyFamily::Ecdsa => &[Self::Es256, Self::Es384, Self::Es512],
            KeyFamily::Ed25519 => &[Self::EdDsa],
        }
    }

    /// Parameters of RSA; none: something else.
    pub fn rsa(self) -> Option<&'static RsaParameters> {
        match self {
            Self::Rs256 => Some(&RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Some(&RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Some(&RSA_PKCS1_2048_8192_SHA512),
            _ => None,
        }
    }

    /// How a public key verifies; none: by a secret.
    pub fn public(self) -> Option<&'static dyn VerificationAlgorithm> {
        match self {
            Self::Hs256 | Self::Hs384 | Self::Hs512 => None,
            Self::Rs256 => Some(&RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Some(&RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Some(&RSA_PKCS1_2048_8192_SHA512),
            Self::Es256 => Some(&ECDSA_P256_SHA256_FIXED),
            Self::Es384 => Some(&ECDSA_P384_SHA384_FIXED),
            Self::Es512 => Some(&ECDSA_P521_SHA512_FIXED),
            Self::EdDsa => Some(&ED25519),
        }
    }
}

/// A token, taken apart.
pub(super) struct Signed<'a> {
    pub algorithm: Algorithm,
    /// The key's id; "": the token names none.
    pub key_id: String,
    /// What is signed: header and payload, as they are written.
    message: &'a [u8],
    payload: &'a str,
    signature: Vec<u8>,
}

/// The members of a header that matter (RFC 7515 section 4.1).
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow, default)]
    kid: Option<Cow<'a, str>>,
    /// Extensions that a verifier must know, and none is known here.
    #[serde(default)]
    crit: Option<IgnoredAny>,
}

impl<'a> Signed<'a> {
    /// Takes a token apart; none: it is none, or of an algorithm that is not known.
    pub fn parse(token: &'a str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        let header = URL_SAFE_NO_PAD.decode(header).ok()?;
        let header: Header<'_> = serde_json::from_slice(&header).ok()?;
        if header.crit.is_some() {
            return None;
        }
        Some(Self {
            algorithm: Algorithm::of_name(&header.alg)?,
            key_id: header.kid.map(Cow::into_owned).unwrap_or_default(),
            message: message.as_bytes(),
            payload,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    /// What the token says, as JSON. It counts once the signature is verified.
    pub fn payload(&self) -> Option<Vec<u8>> {
        URL_SAFE_NO_PAD.decode(self.payload).ok()
    }
}

/// A secret under each HMAC algorithm.
pub(super) struct Secret([hmac::Key; 3]);

impl Secret {
    pub fn new(secret: &[u8]) -> Self {
        Self([hmac::HMAC_SHA256, hmac::HMAC_SHA384, hmac::HMAC_SHA512].map(|hash| hmac::Key::new(hash, secret)))
    }

    /// Whether the token was signed with this secret.
    pub fn verifies(&self, token: &Signed<'_>) -> bool {
        let key = match token.algorithm {
            Algorithm::Hs256 => &self.0[0],
            Algorithm::Hs384 => &self.0[1],
            Algorithm::Hs512 => &self.0[2],
            _ => return false,
        };
        hmac::verify(key, token.message, &token.signature).is_ok()
    }
}

/// A public key under one algorithm.
pub(super) struct PublicKey {
    algorithm: Algorithm,
    key: ParsedPublicKey,
}

impl PublicKey {
    /// A key that the caller has parsed for this algorithm.
    pub fn new(algorithm: Algorithm, key: ParsedPublicKey) -> Self {
        Self { algorithm, key }
    }

    /// A key in the form `SubjectPublicKeyInfo`, under each algorithm of its family that it can serve.
    pub fn of_der(der: &[u8], family: KeyFamily) -> impl Iterator<Item = Self> {
        Algorithm::of_family(family).iter().filter_map(move |&algorithm| {
            let key = ParsedPublicKey::new(algorithm.public()?, der).ok()?;
            Some(Self { algorithm, key })
        })
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether the token was signed with this key's private half.
    pub fn verifies(&self, token: &Signed<'_>) -> bool {
        token.algorithm == self.algorithm && self.key.verify_sig(token.message, &token.signature).is_ok()
    }
}
