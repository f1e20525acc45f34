//! Certificates of a test's own, and clients that trust them.

use std::{
    fs,
    io::Write,
    net::TcpStream,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedCipherSuite,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tungstenite::{Message, WebSocket};

use super::{PATIENCE, server::Server};

/// An authority of a test's own, and the folder where its certificates lie.
pub struct Authority {
    /// Where its certificates lie.
    pub folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// Two files.
pub struct Pair {
    /// The certificate, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("tidegate-tls-tests-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        fs::write(folder.join("authority.pem"), issuer.pem()).expect("the folder can be written");
        Self { folder, issuer }
    }

    /// Its own certificate.
    pub fn file(&self) -> PathBuf {
        self.folder.join("authority.pem")
    }

    /// Issues a certificate for a name, in place of an earlier one.
    pub fn issue(&self, name: &str) -> Pair {
        self.issue_with(name, |_| {})
    }

    /// The same, with changes.
    pub fn issue_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let pair =
            Pair { certificate: self.folder.join(format!("{name}.pem")), key: self.folder.join(format!("{name}.key")) };
        fs::write(&pair.key, key.serialize_pem()).expect("the folder can be written");
        fs::write(&pair.certificate, certificate.pem()).expect("the folder can be written");
        pair
    }

    /// A client that trusts the authority, upgraded and connected.
    pub fn client(&self, server: &Server, name: &'static str) -> Client {
        self.client_with(server, name, aws_lc_rs::DEFAULT_CIPHER_SUITES)
    }

    /// What a client goes by that trusts the authority.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.client_config_with(aws_lc_rs::DEFAULT_CIPHER_SUITES)
    }

    fn client_config_with(&self, suites: &[SupportedCipherSuite]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.file()).expect("a certificate")).expect("a certificate");
        let provider = CryptoProvider { cipher_suites: suites.to_vec(), ..aws_lc_rs::default_provider() };
        let versions: Vec<_> = suites.iter().map(|suite| suite.version()).collect();
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&versions)
            .expect("the versions of the ciphers")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }

    /// A client's end of a connection, which speaks some ciphers.
    pub fn connection(&self, name: &'static str, suites: &[SupportedCipherSuite]) -> ClientConnection {
        let name = ServerName::try_from(name).expect("a name");
        ClientConnection::new(self.client_config_with(suites), name).expect("a client")
    }

    /// As [`Authority::client`], with some ciphers.
    pub fn client_with(&self, server: &Server, name: &'static str, suites: &[SupportedCipherSuite]) -> Client {
        let connection = self.connection(name, suites);
        let socket = TcpStream::connect(server.client_address()).expect("the server listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let stream = StreamOwned::new(connection, socket);
        let (mut client, _) =
            tungstenite::client("ws://localhost/connection/websocket", stream).expect("the server upgrades");
        client.send(Message::text(r#"{"id":1,"connect":{}}"#)).expect("the server listens");
        let reply = client.read().expect("a reply").into_text().expect("a text");
        assert!(reply.contains("connect"), "{reply}");
        client
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A client over TLS.
pub type Client = WebSocket<StreamOwned<ClientConnection, TcpStream>>;

/// The setting that gives a section of the configuration its certificates.
pub fn certificates(section: &str, pairs: &[&Pair]) -> String {
    let pair = |pair: &&Pair| format!("{{ certificate = {:?}, key = {:?} }}", pair.certificate, pair.key);
    format!("{section}.certificates = [{}]\n", pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
}

/// What `openssl s_client` prints; `said` is what it is given to say.
pub fn openssl(server: &Server, authority: &Authority, arguments: &[&str], said: &str) -> String {
    let mut child = Command::new("timeout")
        .args(["30", "openssl", "s_client", "-connect", &server.client_address().to_string(), "-CAfile"])
        .arg(authority.file())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs; `make test-tools` installs what the tests need");
    // It may have ended already, refused.
    let _ = child.stdin.take().expect("it is piped").write_all(said.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
