//! A port that speaks TLS: its settings as the library takes them, and their renewal while connections last.
//!
//! What a port has is shared by all threads, and read once for each handshake, never for a message: a renewal replaces
//! it whole, so a handshake has the old or the new and no mixture.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ServerSessionMemoryCache, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use super::{
    certificates::{CertificateFacts, Certificates, Files, Problem, Problems},
    channel::SecretCatcher,
};
use crate::{
    config::{CertificateFiles, ClientTlsConfig, Config, IngestTlsConfig, TlsConfig, TlsVersion},
    limits::TLS_SESSIONS_MAX,
};

/// A port that speaks TLS.
pub struct Port {
    certificates: Vec<CertificateFiles>,
    client_authority: Option<PathBuf>,
    version_min: TlsVersion,
    protocols: Vec<Vec<u8>>,
    /// Whether the library keeps a connection to its end; otherwise its secrets are taken over after the handshake.
    is_library_run: bool,
    /// What a peer is told that does not speak TLS, in what it may speak instead.
    pub(super) plain_answer: &'static str,
    provider: Arc<CryptoProvider>,
    current: RwLock<Current>,
    /// Renewals that were made, and such that were refused.
    renewed: AtomicU64,
    refused_so_far: AtomicU64,
    /// Of the files that were refused last, so that each is complained of once.
    refused: Mutex<Option<u128>>,
}

struct Current {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    fingerprint: u128,
}

/// What has become of a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reloaded {
    /// The files are what they were.
    Unchanged,
    /// The next handshakes have the new certificates.
    Changed,
    /// The old ones go on. Said once for the same files.
    Refused(Problem),
}

impl Port {
    /// The clients' port.
    ///
    /// # Errors
    /// The first file that is not as it must be.
    pub fn for_clients(settings: &ClientTlsConfig) -> Result<Self, Problem> {
        Self::new(&settings.port, None, vec![b"http/1.1".to_vec()], HTTP_ANSWER, false)
    }

    /// A port that the library serves over HTTP: the operators', or the server API's own.
    ///
    /// # Errors
    /// See [`Port::for_clients`].
    pub fn for_http(settings: &TlsConfig) -> Result<Self, Problem> {
        Self::new(settings, None, vec![b"http/1.1".to_vec()], HTTPS_ANSWER, true)
    }

    /// The producers' port.
    ///
    /// # Errors
    /// See [`Port::for_clients`].
    pub fn for_producers(settings: &IngestTlsConfig) -> Result<Self, Problem> {
        Self::new(&settings.port, settings.client_authority.clone(), Vec::new(), RESP_ANSWER, false)
    }

    fn new(
        settings: &TlsConfig,
        client_authority: Option<PathBuf>,
        protocols: Vec<Vec<u8>>,
        plain_answer: &'static str,
        is_library_run: bool,
    ) -> Result<Self, Problem> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let files = Files::read(&settings.certificates, client_authority.as_deref())?;
        let current = Current::new(&files, settings.version_min, &protocols, &provider, is_library_run)?;
        Ok(Self {
            certificates: settings.certificates.clone(),
            client_authority,
            version_min: settings.version_min,
            protocols,
            is_library_run,
            plain_answer,
            provider,
            current: RwLock::new(current),
            renewed: AtomicU64::new(0),
            refused_so_far: AtomicU64::new(0),
            refused: Mutex::new(None),
        })
    }

    /// Reads the files anew and, if they have changed and are good, lets the next handshakes have them. Connections that
    /// are established go on.
    pub fn reload(&self) -> Reloaded {
        let files = Files::read(&self.certificates, self.client_authority.as_deref());
        let fingerprint = files.as_ref().map_or(0, Files::fingerprint);
        if fingerprint == self.current.read().unwrap_or_else(PoisonError::into_inner).fingerprint {
            self.set_refused(None);
            return Reloaded::Unchanged;
        }
        let next = files.and_then(|files| {
            Current::new(&files, self.version_min, &self.protocols, &self.provider, self.is_library_run)
        });
        match next {
            Ok(next) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
                self.set_refused(None);
                self.renewed.fetch_add(1, Ordering::Relaxed);
                Reloaded::Changed
            }
            Err(_) if self.set_refused(Some(fingerprint)) == Some(fingerprint) => Reloaded::Unchanged,
            Err(problem) => {
                self.refused_so_far.fetch_add(1, Ordering::Relaxed);
                Reloaded::Refused(problem)
            }
        }
    }

    /// What is known of its certificates.
    pub fn facts(&self) -> Vec<CertificateFacts> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).certificates.facts().cloned().collect()
    }

    /// What a peer is told that does not speak TLS.
    pub fn plain_answer(&self) -> &'static str {
        self.plain_answer
    }

    /// What the next handshake goes by.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// The fingerprint that was there before.
    fn set_refused(&self, fingerprint: Option<u128>) -> Option<u128> {
        std::mem::replace(&mut self.refused.lock().unwrap_or_else(PoisonError::into_inner), fingerprint)
    }
}

/// What speaks RESP to a port that speaks TLS hears.
const RESP_ANSWER: &str = "-ERR this port speaks TLS; connect with it, like redis-cli --tls\r\n";

/// What speaks HTTP to one hears.
const HTTP_ANSWER: &str = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\
                           Content-Length: 47\r\n\r\nthis port speaks TLS: write wss:// or https://\n";

/// What speaks HTTP to one without WebSocket hears.
const HTTPS_ANSWER: &str = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\
                            Content-Length: 37\r\n\r\nthis port speaks TLS: write https://\n";

impl Current {
    fn new(
        files: &Files,
        version_min: TlsVersion,
        protocols: &[Vec<u8>],
        provider: &Arc<CryptoProvider>,
        is_library_run: bool,
    ) -> Result<Self, Problem> {
        let certificates = Arc::new(files.certificates(provider)?);
        let verifier: Arc<dyn ClientCertVerifier> =
            files.client_verifier(provider)?.unwrap_or_else(WebPkiClientVerifier::no_client_auth);
        let versions: &[_] = match version_min {
            TlsVersion::Tls12 => &[&TLS13, &TLS12],
            TlsVersion::Tls13 => &[&TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(versions)
            .expect("the provider has ciphers for both versions")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&certificates) as _);
        config.alpn_protocols = protocols.to_vec();
        // Sessions are resumed by tickets, which cost the server nothing; clients without them have a small cache. Both
        // are new with the certificates, so that nobody comes in by an authority that counts no more.
        config.ticketer = aws_lc_rs::Ticketer::new().expect("the kernel gives random bytes once it has booted");
        config.session_storage = ServerSessionMemoryCache::new(TLS_SESSIONS_MAX);
        config.send_tls13_tickets = 1;
        if !is_library_run {
            config.enable_secret_extraction = true;
            config.key_log = Arc::new(SecretCatcher);
        }
        Ok(Self { config: Arc::new(config), certificates, fingerprint: files.fingerprint() })
    }
}

/// What is known of all ports, for metrics.
#[derive(Debug, Clone, Default)]
pub struct PortFigures {
    /// Each certificate, with the section that configures it.
    pub certificates: Vec<(&'static str, CertificateFacts)>,
    /// Renewals by outcome: made, and refused.
    pub renewals: Vec<(&'static str, u64)>,
}

/// All ports that speak TLS, for whoever renews their certificates.
#[derive(Clone, Default)]
pub struct Ports {
    /// The clients'.
    pub client: Option<Arc<Port>>,
    /// The producers'.
    pub ingest: Option<Arc<Port>>,
    /// The operators'.
    pub admin: Option<Arc<Port>>,
    /// The server API's own.
    pub api: Option<Arc<Port>>,
}

impl Ports {
    /// Each with the section that configures it.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, &Arc<Port>)> {
        let ports = [&self.client, &self.ingest, &self.admin, &self.api];
        let sections = ["client.tls", "ingest.tls", "admin.tls", "api.tls"];
        sections.into_iter().zip(ports).filter_map(|(section, port)| port.as_ref().map(|port| (section, port)))
    }

    /// Renews the certificates whose files have changed, and tells the log what has become of it. Connections go on.
    pub fn reload_certificates(&self) {
        for (section, port) in self.each() {
            match port.reload() {
                Reloaded::Unchanged => {}
                Reloaded::Changed => {
                    tracing::info!(section, "new handshakes have new certificates");
                    self.warn_of_ends(section, port);
                }
                Reloaded::Refused(problem) => {
                    tracing::error!(section, "the certificates stay what they were: {problem}");
                }
            }
        }
    }

    /// Tells the log which certificates are valid no more, so that clients will refuse them.
    pub fn warn_of_expired(&self) {
        self.each().for_each(|(section, port)| self.warn_of_ends(section, port));
    }

    fn warn_of_ends(&self, section: &str, port: &Port) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        for facts in port.facts().into_iter().filter(|facts| facts.ends_unix_seconds <= now) {
            tracing::warn!(section, file = %facts.file.display(), "the certificate has expired: clients refuse it");
        }
    }

    /// What is known of them.
    pub fn figures(&self) -> PortFigures {
        let certificates =
            self.each().flat_map(|(section, port)| port.facts().into_iter().map(move |facts| (section, facts)));
        let sum =
            |count: fn(&Port) -> &AtomicU64| self.each().map(|(_, port)| count(port).load(Ordering::Relaxed)).sum();
        let renewals = [("renewed", sum(|port| &port.renewed)), ("refused", sum(|port| &port.refused_so_far))];
        let is_on = self.each().next().is_some();
        PortFigures {
            certificates: certificates.collect(),
            renewals: if is_on { renewals.to_vec() } else { Vec::new() },
        }
    }

    /// Opens the ports that are configured.
    ///
    /// # Errors
    /// Every port's first problem, with its section.
    pub fn open(config: &Config) -> Result<Self, Problems> {
        let (client, ingest) = (&config.client.tls, &config.ingest.tls);
        let client = client.port.is_on().then(|| ("client.tls", Port::for_clients(client)));
        let ingest = ingest.port.is_on().then(|| ("ingest.tls", Port::for_producers(ingest)));
        let http = |section, settings: &TlsConfig| settings.is_on().then(|| (section, Port::for_http(settings)));
        let (admin, api) = (http("admin.tls", &config.admin.tls), http("api.tls", &config.api.tls));
        let mut problems = Vec::new();
        let mut opened = |port: Option<(_, Result<Port, Problem>)>| {
            let (section, port) = port?;
            port.map(Arc::new).map_err(|problem| problems.push((section, problem))).ok()
        };
        let ports = Self { client: opened(client), ingest: opened(ingest), admin: opened(admin), api: opened(api) };
        if problems.is_empty() { Ok(ports) } else { Err(Problems(problems)) }
    }
}
