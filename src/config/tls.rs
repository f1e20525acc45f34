//! What ports need to speak TLS: which files, and how many handshakes. What is in the files is the business of
//! `crate::tls`.

use std::path::PathBuf;

/// A port's certificates and version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificates with their keys; none: the port speaks no TLS. Default none.
    pub certificates: Vec<CertificateFiles>,
    /// The oldest version that is spoken. Default TLS 1.2.
    pub version_min: TlsVersion,
}

/// `[client.tls]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTlsConfig {
    /// Certificates and version.
    pub port: TlsConfig,
    /// Handshakes that one shard has under way at most; further clients wait. Default 1,024.
    pub handshakes_max: u32,
    /// Handshakes that one shard begins in a second at most; further clients wait. Default 2,000.
    pub handshakes_per_second_max: u32,
    /// Whether the kernel seals and opens records, where it can. Default no.
    pub kernel: bool,
}

/// `[ingest.tls]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IngestTlsConfig {
    /// Certificates and version.
    pub port: TlsConfig,
    /// The file of the authorities of which producers must show a certificate; none: they need not.
    pub client_authority: Option<PathBuf>,
    /// Milliseconds that a producer has for its handshake, from accept on. Default 5 s.
    pub handshake_ms_max: u32,
    /// Handshakes that are under way at most; further producers are turned away. Default 256.
    pub handshakes_max: u32,
}

/// Two files that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate and those that lead to its authority, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl TlsConfig {
    /// Whether the port speaks TLS.
    pub fn is_on(&self) -> bool {
        !self.certificates.is_empty()
    }
}
