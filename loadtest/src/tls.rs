//! TLS of a client, sans-IO: what is received is opened, what is sent is sealed.
//!
//! The library is `rustls`, by the interface that owns no buffers: a client that waits keeps its keys and whatever is
//! incomplete, and all else is the worker's. Who is trusted is told in a [`Security`], which goes to every worker.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, HandshakeKind, InvalidMessage, NamedGroup,
    RootCertStore, SignatureScheme,
    client::{
        ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue, UnbufferedClientConnection,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus},
    version::{TLS12, TLS13},
};
use serde::{Deserialize, Serialize};

use crate::arguments::TlsArguments;

/// Tickets that wait for somebody to resume with them, in one worker, at most.
const TICKETS_MAX: usize = 1 << 16;

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Version {
    /// TLS 1.2 (RFC 5246).
    #[value(name = "1.2")]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    #[value(name = "1.3")]
    Tls13,
}

/// How clients speak TLS.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Security {
    /// The name or address that the server's certificate must be for.
    name: String,
    trust: Trust,
    version: Version,
    /// Whether clients resume the sessions of those before them.
    resumes: bool,
}

/// Whose certificates are good.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Trust {
    /// Those that the host trusts.
    Host,
    /// One authority, from a file.
    Authority(PathBuf),
    /// Anybody's.
    Anybody,
}

impl Security {
    /// As the command line has it, for a server at this host and port.
    pub fn new(host: &str, arguments: &TlsArguments) -> Security {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let trust = match &arguments.tls_ca {
            _ if arguments.tls_insecure => Trust::Anybody,
            Some(file) => Trust::Authority(file.clone()),
            None => Trust::Host,
        };
        Security {
            name: name.trim_matches(['[', ']']).to_owned(),
            trust,
            version: arguments.tls_version,
            resumes: arguments.tls_resume,
        }
    }
}

/// Begins the sessions of one worker's clients.
#[derive(Debug)]
pub struct Connector {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Connector {
    /// Reads the authorities.
    ///
    /// # Errors
    /// If there are none, or the server's name is none.
    pub fn new(security: &Security) -> Result<Connector> {
        let name = ServerName::try_from(security.name.clone())
            .with_context(|| format!("{}: no certificate can be for that name", security.name))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let version = match security.version {
            Version::Tls12 => &TLS12,
            Version::Tls13 => &TLS13,
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[version])?;
        let builder = match &security.trust {
            Trust::Anybody => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate { provider }))
            }
            trust => builder.with_root_certificates(trust.roots()?),
        };
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = match security.resumes {
            true => Resumption::store(Arc::new(Sessions::default())),
            false => Resumption::disabled(),
        };
        Ok(Connector { config: Arc::new(config), name })
    }

    /// A session whose first words wait to be sent.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn begin(&self) -> io::Result<Session> {
        let connection = UnbufferedClientConnection::new(Arc::clone(&self.config), self.name.clone());
        let connection = connection.map_err(explain)?;
        let mut session = Session { connection, input: Vec::new(), output: Vec::new() };
        session.receive(&mut [], &mut Vec::new())?;
        Ok(session)
    }
}

impl Trust {
    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        match self {
            Trust::Authority(file) => {
                let wrong = || format!("--tls-ca {}", file.display());
                for certificate in CertificateDer::pem_file_iter(file).with_context(wrong)? {
                    roots.add(certificate.with_context(wrong)?).with_context(wrong)?;
                }
                ensure!(!roots.is_empty(), "{}: it holds no certificate in PEM", wrong());
            }
            Trust::Host | Trust::Anybody => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                ensure!(
                    !roots.is_empty(),
                    "this host trusts no authority: name the server's with --tls-ca FILE, or write --tls-insecure"
                );
            }
        }
        Ok(roots)
    }
}

/// One client's TLS.
pub struct Session {
    connection: UnbufferedClientConnection,
    /// Received, and no whole record yet.
    input: Vec<u8>,
    /// To be sent before anything that is sealed later.
    output: Vec<u8>,
}

impl Session {
    /// Opens what was received, in place, and adds it to `opened`.
    ///
    /// # Errors
    /// If the server is not to be trusted, or does not speak TLS as it must; [`Session::take_output`] tells it so.
    pub fn receive(&mut self, sealed: &mut [u8], opened: &mut Vec<u8>) -> io::Result<()> {
        if self.input.is_empty() {
            let used = self.process(sealed, opened)?;
            self.input.extend_from_slice(&sealed[used..]);
            return Ok(());
        }
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(sealed);
        let used = self.process(&mut input, opened)?;
        if used < input.len() {
            input.drain(..used);
            self.input = input;
        }
        Ok(())
    }

    /// Seals what is to be sent, behind what waits to be.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn seal(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Session { connection, input, output } = self;
        // What is incomplete belongs to the library's view of the stream, whatever is asked of it.
        match connection.process_tls_records(input).state.map_err(explain)? {
            ConnectionState::WriteTraffic(mut traffic) => append(output, |room| {
                traffic.encrypt(bytes, room).map_err(|error| match error {
                    EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Ok(required_size),
                    error => Err(io::Error::other(error)),
                })
            }),
            state => Err(io::Error::other(format!("nothing can be sent: {state:?}"))),
        }
    }

    /// What is to be sent now.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Whether the handshake is not over.
    pub fn is_shaking_hands(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether it is over, and resumed the session of another client.
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Goes on until more must be received; how many of the bytes were used up.
    fn process(&mut self, bytes: &mut [u8], opened: &mut Vec<u8>) -> io::Result<usize> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut bytes[used..]);
            let goes_on = match state {
                Ok(state) => take(state, opened, &mut self.output)?,
                Err(error) => {
                    self.encode_alert(&mut bytes[used + discard..]);
                    return Err(explain(error));
                }
            };
            used += discard;
            if !goes_on {
                return Ok(used);
            }
        }
    }

    /// After an error: what the server is to hear of it, which is the only thing that waits to be encoded. The library
    /// must not be asked for more: it would find the same error again.
    fn encode_alert(&mut self, bytes: &mut [u8]) {
        if let Ok(state @ ConnectionState::EncodeTlsData(_)) = self.connection.process_tls_records(bytes).state {
            // The error itself is what is told; that the alert cannot be encoded matters less.
            let _ = take(state, &mut Vec::new(), &mut self.output);
        }
    }
}

/// Does what a state asks for; whether another may follow without more input.
fn take<Data>(state: ConnectionState<'_, '_, Data>, opened: &mut Vec<u8>, output: &mut Vec<u8>) -> io::Result<bool> {
    match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                opened.extend_from_slice(record.map_err(explain)?.payload);
            }
            Ok(true)
        }
        ConnectionState::EncodeTlsData(mut data) => {
            append(output, |room| {
                data.encode(room).map_err(|error| match error {
                    EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Ok(required_size),
                    error => Err(io::Error::other(error)),
                })
            })?;
            Ok(true)
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(true)
        }
        ConnectionState::PeerClosed => Ok(true),
        _ => Ok(false),
    }
}

/// Appends what the library writes into the room it gets; if it needs more (`Err(Ok(bytes))`), it is asked again.
fn append(
    output: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> std::result::Result<usize, io::Result<usize>>,
) -> io::Result<()> {
    let begin = output.len();
    loop {
        match write(&mut output[begin..]) {
            Ok(written) => {
                output.truncate(begin + written);
                return Ok(());
            }
            Err(needed) => output.resize(begin + needed?, 0),
        }
    }
}

/// What is wrong, and what helps.
fn explain(error: Error) -> io::Error {
    let words = match &error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the server's certificate is of an authority that is not trusted: name it with --tls-ca FILE, or write \
             --tls-insecure"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the server's certificate is for another name: take that for --url, or write --tls-insecure",
        Error::InvalidCertificate(_) => "the server's certificate is not good: --tls-insecure takes any",
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            "the server does not speak TLS there: is --url to begin with ws://?"
        }
        _ => return io::Error::new(io::ErrorKind::InvalidData, format!("TLS: {error}")),
    };
    io::Error::new(io::ErrorKind::InvalidData, format!("{words} ({error})"))
}

/// Sessions to be resumed: every ticket by one client, whoever had it.
#[derive(Debug, Default)]
struct Sessions {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    tickets: VecDeque<Tls13ClientSessionValue>,
    /// TLS 1.2 lets all resume the same.
    session: Option<Tls12ClientSessionValue>,
    group: Option<NamedGroup>,
}

impl Sessions {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker's clients have one server, so its name is not looked at.
impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.kept().group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept().group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.kept().session = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.kept().session.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.kept().session = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let tickets = &mut self.kept().tickets;
        if tickets.len() == TICKETS_MAX {
            tickets.pop_front();
        }
        tickets.push_back(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept().tickets.pop_front()
    }
}

/// Takes any certificate, of whoever has its key.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
