//! Public keys that verify tokens, as an operator writes them: PEM, or the path of a file that holds it.

use std::{fmt, fs, ops::RangeInclusive, path::Path};

use aws_lc_rs::{
    rsa::PublicEncryptingKey,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, ParsedPublicKey,
        VerificationAlgorithm,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};

/// The line that opens a public key of any family (RFC 7468 section 13).
const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";

/// The line that closes it.
const PEM_END: &str = "-----END PUBLIC KEY-----";

/// Size of an RSA key, in bits (RFC 7518 section 3.3 asks for 2,048 at least; the cryptography takes 8,192 at most).
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

/// What a key can verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFamily {
    /// RS256, RS384, RS512.
    Rsa,
    /// ES256, ES384 or ES512, by the key's curve.
    Ecdsa,
    /// EdDSA.
    Ed25519,
}

/// A public key that is known to be one of its family.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    der: Vec<u8>,
}

impl PublicKey {
    /// The key in the form `SubjectPublicKeyInfo` (RFC 5280 section 4.1.2.7).
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Reads PEM, or the file of this absolute path that holds it. In an environment variable, line feeds may be
    /// written as `\n`.
    ///
    /// # Errors
    /// What was found instead, to follow "found".
    pub(super) fn read(text: &str, family: KeyFamily) -> Result<Self, String> {
        if text.trim_start().starts_with("-----BEGIN") {
            return Self::of_pem(text, family);
        }
        if !Path::new(text).is_absolute() {
            return Err("a text that is neither PEM nor an absolute path".to_owned());
        }
        let pem = fs::read_to_string(text).map_err(|error| format!("{text:?}, which cannot be read: {error}"))?;
        Self::of_pem(&pem, family).map_err(|found| format!("{text:?} with {found}"))
    }

    fn of_pem(pem: &str, family: KeyFamily) -> Result<Self, String> {
        let der = der_of_pem(&pem.replace("\\n", "\n")).ok_or("no public key in PEM")?;
        if is_of_family(&der, family) { Ok(Self { der }) } else { Err("a public key of another kind".to_owned()) }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "[public key of {} bytes]", self.der.len())
    }
}

fn der_of_pem(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once(PEM_BEGIN)?;
    let (base64, _) = rest.split_once(PEM_END)?;
    let base64: String = base64.split_ascii_whitespace().collect();
    STANDARD.decode(base64).ok()
}

fn is_of_family(der: &[u8], family: KeyFamily) -> bool {
    let is_one_of = |algorithms: &[&'static dyn VerificationAlgorithm]| {
        algorithms.iter().any(|algorithm| ParsedPublicKey::new(*algorithm, der).is_ok())
    };
    match family {
        KeyFamily::Rsa => PublicEncryptingKey::from_der(der).is_ok_and(|key| RSA_BITS.contains(&key.key_size_bits())),
        KeyFamily::Ecdsa => is_one_of(&[&ECDSA_P256_SHA256_FIXED, &ECDSA_P384_SHA384_FIXED, &ECDSA_P521_SHA512_FIXED]),
        KeyFamily::Ed25519 => is_one_of(&[&ED25519]),
    }
}
