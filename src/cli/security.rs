//! TLS of commands that talk to a server.
//!
//! A command that finds a server in its configuration trusts the very certificates that the configuration gives the port,
//! whatever names they are for: it may reach the port by an address. Elsewhere it trusts whom it is told to, or the host's
//! authorities.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    path::PathBuf,
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use super::Failure;
use crate::config::TlsConfig;

/// A connection, sealed or not.
pub(super) trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

/// How a server on TLS is trusted, on the command line.
#[derive(clap::Args)]
pub(super) struct TrustArguments {
    /// Authority (PEM) that has issued the server's certificate. Default: the configuration's certificate, where its
    /// server is meant, otherwise those that this host trusts
    #[arg(long, value_name = "FILE", conflicts_with = "tls_insecure")]
    tls_ca: Option<PathBuf>,

    /// Take any certificate of the server's
    #[arg(long)]
    tls_insecure: bool,
}

impl TrustArguments {
    /// Whom they name, if anybody.
    pub(super) fn given(&self) -> Option<Trust> {
        match &self.tls_ca {
            _ if self.tls_insecure => Some(Trust::Anybody),
            file => file.clone().map(Trust::Authority),
        }
    }
}

/// Who a server must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trust {
    /// The one with one of these certificates.
    Certificates(Vec<PathBuf>),
    /// One with a certificate of this authority, for its name.
    Authority(PathBuf),
    /// One with a certificate of an authority that this host trusts, for its name.
    Host,
    /// Anybody.
    Anybody,
}

impl Trust {
    /// The server of a configuration, if its port speaks TLS.
    pub(super) fn configured(port: &TlsConfig) -> Option<Trust> {
        let files = || port.certificates.iter().map(|files| files.certificate.clone()).collect();
        port.is_on().then(|| Trust::Certificates(files()))
    }

    /// What a connection to such a server goes by.
    ///
    /// # Errors
    /// When a file cannot be read, or holds no certificate.
    pub(super) fn client_config(&self) -> Result<Arc<ClientConfig>, Failure> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider knows the protocol's versions");
        let exactly = |certificates| Arc::new(Exactly { certificates, provider });
        let builder = match self {
            Trust::Anybody => builder.dangerous().with_custom_certificate_verifier(exactly(None)),
            Trust::Certificates(files) => {
                let certificates =
                    files.iter().map(|file| Ok(read(file)?.remove(0))).collect::<Result<_, Failure>>()?;
                builder.dangerous().with_custom_certificate_verifier(exactly(Some(certificates)))
            }
            Trust::Authority(file) => {
                let mut roots = RootCertStore::empty();
                let wrong = |error| Failure::Usage(format!("{}: {error}", file.display()));
                read(file)?.into_iter().try_for_each(|certificate| roots.add(certificate)).map_err(wrong)?;
                builder.with_root_certificates(roots)
            }
            Trust::Host => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                builder.with_root_certificates(roots)
            }
        };
        Ok(Arc::new(builder.with_no_client_auth()))
    }
}

/// The certificates of a file, one at least.
fn read(file: &PathBuf) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(Failure::Usage(format!("{} holds no certificate in PEM", file.display()))),
        Err(error) => Err(Failure::Usage(format!("{} cannot be read: {error}", file.display()))),
    }
}

/// Shakes hands with the server at this host and port, within the socket's own time limits.
///
/// # Errors
/// What the kernel says; `InvalidData` if the server is not the one that it must be, or does not speak TLS.
pub(super) fn secure(
    mut stream: TcpStream,
    address: &str,
    config: &Arc<ClientConfig>,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no certificate can be for that name"))?;
    let mut connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).map_err(explain)?;
    }
    Ok(StreamOwned::new(connection, stream))
}

/// What is wrong with a server, and what helps.
fn explain(error: io::Error) -> io::Error {
    let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()) else { return error };
    let words = match cause {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate is of an authority that is not trusted; name it with --tls-ca".to_owned()
        }
        Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
            "it shows another certificate than those that the configuration gives this port".to_owned()
        }
        Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        cause => cause.to_string(),
    };
    io::Error::new(io::ErrorKind::InvalidData, words)
}

/// Takes certain certificates only, or any, of whoever has their key.
#[derive(Debug)]
struct Exactly {
    certificates: Option<Vec<CertificateDer<'static>>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.certificates {
            Some(certificates) if !certificates.contains(shown) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
