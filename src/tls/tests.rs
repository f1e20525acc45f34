//! Channels against the library's own client, byte by byte where it counts.

use std::{fs, io::Read, io::Write, path::PathBuf, sync::Arc};

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    client::Resumption,
    crypto::aws_lc_rs::{self, cipher_suite},
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::{Channel, Heard, Port, RECORD_BYTES_MAX, Refusal, Reloaded};
use crate::config::{CertificateFiles, ClientTlsConfig, IngestTlsConfig, TlsConfig, TlsVersion};

/// A folder of one test with certificates, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidegate-tls-{}-{test}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A certificate that signs itself.
    fn certificate(&self, name: &str) -> CertificateFiles {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        let files = CertificateFiles {
            certificate: self.0.join(format!("{name}.pem")),
            key: self.0.join(format!("{name}.key")),
        };
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn settings(certificates: &[CertificateFiles], version_min: TlsVersion) -> ClientTlsConfig {
    let port = TlsConfig { certificates: certificates.to_vec(), version_min };
    ClientTlsConfig { port, ..ClientTlsConfig::default() }
}

fn client_config(trusted: &[&CertificateFiles], suite: rustls::SupportedCipherSuite) -> ClientConfig {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![suite];
    let mut roots = RootCertStore::empty();
    for files in trusted {
        roots.add(CertificateDer::from_pem_file(&files.certificate).unwrap()).unwrap();
    }
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[suite.version()])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A client and its channel, side by side.
struct Pair {
    client: ClientConnection,
    channel: Channel,
    /// What the channel has opened.
    heard: Vec<u8>,
    /// What the client has.
    read: Vec<u8>,
}

impl Pair {
    fn new(port: &Arc<Port>, config: ClientConfig, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        Self { client, channel: Channel::new(port), heard: Vec::new(), read: Vec::new() }
    }

    /// Carries bytes both ways, `step` at a time, until both are silent.
    fn carry(&mut self, step: usize) -> Result<Heard, Refusal> {
        let mut heard = Heard::More;
        loop {
            let mut up = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut up).unwrap();
            }
            for part in up.chunks_mut(step) {
                heard = self.channel.receive(part, &mut self.heard)?;
            }
            let down = self.channel.take_output();
            for mut part in down.chunks(step) {
                while !part.is_empty() {
                    self.client.read_tls(&mut part).unwrap();
                    // What the client thinks of it, its next words tell.
                    let _ = self.client.process_new_packets();
                    let _ = self.client.reader().read_to_end(&mut self.read);
                }
            }
            if up.is_empty() && down.is_empty() {
                return Ok(heard);
            }
        }
    }

    fn client_reads(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.read)
    }
}

const SUITES: [rustls::SupportedCipherSuite; 6] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

#[test]
fn every_cipher_carries_bytes_both_ways_however_they_are_cut() {
    let folder = Folder::new("ciphers");
    let files = folder.certificate("a.example");
    let port = Arc::new(Port::for_clients(&settings(std::slice::from_ref(&files), TlsVersion::Tls12)).unwrap());
    for suite in SUITES {
        for step in [1, 3, 7, 100, 16 * 1024] {
            let mut pair = Pair::new(&port, client_config(&[&files], suite), "a.example");
            pair.client.writer().write_all(b"said before the handshake is over").unwrap();
            pair.carry(step).unwrap();
            assert!(pair.channel.is_established() && !pair.channel.needs_handshake());
            assert_eq!(pair.heard, b"said before the handshake is over", "{suite:?} {step}");
            // Longer than a record, and empty, and short.
            for length in [3 * RECORD_BYTES_MAX + 5, 0, 1] {
                let data = vec![b'x'; length];
                pair.channel.seal(&data);
                pair.client.writer().write_all(&data[..length.min(40_000)]).unwrap();
                pair.heard.clear();
                pair.carry(step.max(50)).unwrap();
                assert_eq!(pair.client_reads(), data);
                assert_eq!(pair.heard.len(), length.min(40_000));
            }
            pair.channel.say_end();
            pair.client.send_close_notify();
            assert_eq!(pair.carry(step), Ok(Heard::End));
        }
    }
}

#[test]
fn an_idle_connection_keeps_its_keys_and_no_more() {
    let folder = Folder::new("idle");
    let files = folder.certificate("a.example");
    let port = Arc::new(Port::for_clients(&settings(std::slice::from_ref(&files), TlsVersion::Tls12)).unwrap());
    for suite in SUITES {
        let mut pair = Pair::new(&port, client_config(&[&files], suite), "a.example");
        pair.client.writer().write_all(&[7; 10_000]).unwrap();
        pair.carry(11).unwrap();
        pair.channel.seal(&[8; 10_000]);
        pair.carry(1_000).unwrap();
        assert_eq!(pair.channel.bytes(), size_of::<Channel>());
    }
    assert!(size_of::<Channel>() <= crate::limits::TLS_CHANNEL_BYTES_MAX);
}

#[test]
fn new_keys_are_made_whenever_the_client_wants_them() {
    let folder = Folder::new("keys");
    let files = folder.certificate("a.example");
    let port = Arc::new(Port::for_clients(&settings(std::slice::from_ref(&files), TlsVersion::Tls12)).unwrap());
    for suite in &SUITES[..3] {
        let mut pair = Pair::new(&port, client_config(&[&files], *suite), "a.example");
        pair.carry(1_000).unwrap();
        for round in 0..5_u8 {
            pair.client.refresh_traffic_keys().unwrap();
            pair.client.writer().write_all(&[round; 100]).unwrap();
            pair.heard.clear();
            pair.carry(9).unwrap();
            assert_eq!(pair.heard, [round; 100]);
            pair.channel.seal(&[round; 50]);
            pair.carry(9).unwrap();
            assert_eq!(pair.client_reads(), [round; 50]);
        }
    }
}

#[test]
fn new_keys_without_end_are_refused() {
    let folder = Folder::new("keys-without-end");
    let files = folder.certificate("a.example");
    let port = Arc::new(Port::for_clients(&settings(std::slice::from_ref(&files), TlsVersion::Tls12)).unwrap());
    let mut pair = Pair::new(&port, client_config(&[&files], SUITES[0]), "a.example");
    pair.carry(1_000).unwrap();
    let outcome = (0..40).find_map(|_| {
        pair.client.refresh_traffic_keys().unwrap();
        pair.carry(1_000).err()
    });
    assert_eq!(outcome, Some(Refusal::Record));
}

#[test]
fn sessions_are_resumed_in_both_versions() {
    let folder = Folder::new("resumption");
    let files = folder.certificate("a.example");
    let port = Arc::new(Port::for_clients(&settings(std::slice::from_ref(&files), TlsVersion::Tls12)).unwrap());
    for suite in [SUITES[0], SUITES[3]] {
        let mut config = client_config(&[&files], suite);
        config.resumption = Resumption::in_memory_sessions(8);
        for expected in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
            let mut pair = Pair::new(&port, config.clone(), "a.example");
            pair.carry(1_000).unwrap();
            assert_eq!(pair.client.handshake_kind(), Some(expected), "{suite:?}");
            pair.channel.seal(b"hello");
            pair.carry(1_000).unwrap();
            assert_eq!(pair.client_reads(), b"hello");
        }
    }
}

#[test]
fn early_data_is_not_taken() {
    let folder = Folder::new("early");
    let files = folder.certificate("a.example");
    let port = Arc::new(Port::for_clients(&settings(std::slice::from_ref(&files), TlsVersion::Tls12)).unwrap());
    let mut config = client_config(&[&files], SUITES[0]);
    config.enable_early_data = true;
    Pair::new(&port, config.clone(), "a.example").carry(1_000).unwrap();
    let mut pair = Pair::new(&port, config, "a.example");
    assert!(pair.client.early_data().is_none(), "the ticket does not offer it");
    pair.carry(1_000).unwrap();
    assert!(!pair.client.is_early_data_accepted());
}

#[test]
fn the_name_chooses_the_certificate() {
    let folder = Folder::new("names");
    let (one, other) = (folder.certificate("one.example"), folder.certificate("*.other.example"));
    let port = Arc::new(Port::for_clients(&settings(&[one.clone(), other.clone()], TlsVersion::Tls12)).unwrap());
    for (name, trusted) in [("one.example", &one), ("push.other.example", &other)] {
        let mut pair = Pair::new(&port, client_config(&[trusted], SUITES[0]), name);
        pair.carry(1_000).unwrap();
        assert!(pair.channel.is_established(), "{name}");
    }
    let mut stranger = Pair::new(&port, client_config(&[&one, &other], SUITES[0]), "third.example");
    assert_eq!(stranger.carry(1_000), Err(Refusal::PeerAlert), "the client sees that the name is another");
    let facts = port.facts();
    assert_eq!(
        (facts[0].names.as_slice(), facts[1].names.as_slice()),
        (&["one.example".to_owned()][..], &["*.other.example".to_owned()][..])
    );
    assert!(facts[0].ends_unix_seconds > 1_800_000_000);
}

#[test]
fn what_is_not_tls_is_told_so() {
    let folder = Folder::new("plain");
    let files = folder.certificate("a.example");
    let port = Arc::new(Port::for_clients(&settings(std::slice::from_ref(&files), TlsVersion::Tls12)).unwrap());
    let mut channel = Channel::new(&port);
    let mut request = *b"GET / HTTP/1.1\r\n\r\n";
    assert_eq!(channel.receive(&mut request, &mut Vec::new()), Err(Refusal::NotTls));
    let answer = String::from_utf8(channel.take_output()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 ") && head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
    assert!(body.contains("wss://"));
}

#[test]
fn garbage_ends_the_connection_at_any_byte() {
    let folder = Folder::new("garbage");
    let files = folder.certificate("a.example");
    let port = Arc::new(Port::for_clients(&settings(std::slice::from_ref(&files), TlsVersion::Tls12)).unwrap());
    let mut hello = Vec::new();
    let name = ServerName::try_from("a.example").unwrap();
    ClientConnection::new(Arc::new(client_config(&[&files], SUITES[0])), name).unwrap().write_tls(&mut hello).unwrap();
    for position in 0..hello.len() {
        let mut bytes = hello.clone();
        bytes[position] ^= 0xff;
        let mut channel = Channel::new(&port);
        // Some bytes do not matter; none of them may be taken for plaintext, or bring anything down.
        let mut plaintext = Vec::new();
        let _ = channel.receive(&mut bytes, &mut plaintext);
        assert!(plaintext.is_empty() && !channel.is_established());
    }
    for suite in [SUITES[0], SUITES[3]] {
        let mut record = Vec::new();
        let mut pair = Pair::new(&port, client_config(&[&files], suite), "a.example");
        pair.carry(1_000).unwrap();
        pair.client.writer().write_all(b"sealed").unwrap();
        pair.client.write_tls(&mut record).unwrap();
        // The header's version is not looked at; each other byte is.
        for position in (0..record.len()).filter(|position| ![1, 2].contains(position)) {
            let mut pair = Pair::new(&port, client_config(&[&files], suite), "a.example");
            pair.carry(1_000).unwrap();
            let mut sealed = Vec::new();
            pair.client.writer().write_all(b"sealed").unwrap();
            pair.client.write_tls(&mut sealed).unwrap();
            sealed[position] ^= 0x81;
            let outcome = pair.channel.receive(&mut sealed, &mut pair.heard);
            // A record that says it is longer waits for its rest.
            let is_length = [3, 4].contains(&position);
            assert!(outcome == Err(Refusal::Record) || outcome == Ok(Heard::More) && is_length, "{suite:?} {position}");
            assert!(pair.heard.is_empty(), "{suite:?} {position}");
        }
    }
}

#[test]
fn a_handshake_without_end_is_cut_off() {
    let folder = Folder::new("endless");
    let files = folder.certificate("a.example");
    let port = Arc::new(Port::for_clients(&settings(&[files], TlsVersion::Tls12)).unwrap());
    let mut channel = Channel::new(&port);
    // Records of a hello that says it has 16 MB.
    let mut record = vec![22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    record.resize(5 + 0x4000, 0);
    let refused = (0..8).map(|_| channel.receive(&mut record.clone(), &mut Vec::new())).find(Result::is_err);
    assert_eq!(refused, Some(Err(Refusal::Handshake)));
    channel.drop_output();
    assert_eq!(channel.bytes(), size_of::<Channel>());
}

#[test]
fn old_versions_are_refused() {
    let folder = Folder::new("versions");
    let files = folder.certificate("a.example");
    let port = Arc::new(Port::for_clients(&settings(std::slice::from_ref(&files), TlsVersion::Tls13)).unwrap());
    let mut pair = Pair::new(&port, client_config(&[&files], SUITES[3]), "a.example");
    assert_eq!(pair.carry(1_000), Err(Refusal::Incompatible));
    assert!(!pair.channel.take_output().is_empty(), "the client is told why");
}

#[test]
fn a_protocol_that_is_not_spoken_is_refused() {
    let folder = Folder::new("alpn");
    let files = folder.certificate("a.example");
    let port = Arc::new(Port::for_clients(&settings(std::slice::from_ref(&files), TlsVersion::Tls12)).unwrap());
    for (protocols, outcome) in [
        (vec![b"h2".to_vec()], Err(Refusal::Incompatible)),
        (vec![b"h2".to_vec(), b"http/1.1".to_vec()], Ok(Heard::More)),
    ] {
        let mut config = client_config(&[&files], SUITES[0]);
        config.alpn_protocols = protocols;
        assert_eq!(Pair::new(&port, config, "a.example").carry(1_000), outcome);
    }
}

#[test]
fn certificates_are_renewed_and_bad_ones_change_nothing() {
    let folder = Folder::new("reload");
    let files = folder.certificate("a.example");
    let port = Arc::new(Port::for_clients(&settings(std::slice::from_ref(&files), TlsVersion::Tls12)).unwrap());
    let mut lasting = Pair::new(&port, client_config(&[&files], SUITES[0]), "a.example");
    lasting.carry(1_000).unwrap();
    assert_eq!(port.reload(), Reloaded::Unchanged);

    let (certificate, key) = (fs::read(&files.certificate).unwrap(), fs::read(&files.key).unwrap());
    folder.certificate("a.example");
    let renewed = fs::read(&files.certificate).unwrap();
    fs::write(&files.key, &key).unwrap();
    let Reloaded::Refused(problem) = port.reload() else { panic!("the key is another's") };
    assert!(problem.message.contains("is not the key of"), "{problem}");
    assert_eq!(port.reload(), Reloaded::Unchanged, "it is said once");
    fs::write(&files.certificate, &renewed[..renewed.len() / 2]).unwrap();
    assert!(matches!(port.reload(), Reloaded::Refused(_)), "half a file");
    fs::remove_file(&files.certificate).unwrap();
    assert!(matches!(port.reload(), Reloaded::Refused(_)), "no file");
    fs::write(&files.certificate, &certificate).unwrap();
    assert_eq!(port.reload(), Reloaded::Unchanged, "what it was");

    let files = folder.certificate("a.example");
    assert_eq!(port.reload(), Reloaded::Changed);
    let mut fresh = Pair::new(&port, client_config(&[&files], SUITES[0]), "a.example");
    fresh.carry(1_000).unwrap();
    assert!(fresh.channel.is_established());
    lasting.channel.seal(b"still here");
    lasting.carry(1_000).unwrap();
    assert_eq!(lasting.client_reads(), b"still here");
}

#[test]
fn producers_show_a_certificate_of_the_authority() {
    let folder = Folder::new("producers");
    let (server, authority, stranger) =
        (folder.certificate("a.example"), folder.certificate("authority"), folder.certificate("stranger"));
    let settings = IngestTlsConfig {
        port: TlsConfig { certificates: vec![server.clone()], version_min: TlsVersion::Tls12 },
        client_authority: Some(authority.certificate.clone()),
        ..IngestTlsConfig::default()
    };
    let port = Arc::new(Port::for_producers(&settings).unwrap());
    for suite in [SUITES[0], SUITES[3]] {
        let with = |files: Option<&CertificateFiles>| {
            let config = client_config(&[&server], suite);
            let Some(files) = files else { return config };
            let provider = Arc::clone(config.crypto_provider());
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(&server.certificate).unwrap()).unwrap();
            ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[suite.version()])
                .unwrap()
                .with_root_certificates(roots)
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_file(&files.certificate).unwrap()],
                    rustls::pki_types::PrivateKeyDer::from_pem_file(&files.key).unwrap(),
                )
                .unwrap()
        };
        for (files, outcome) in [
            (Some(&authority), Ok(Heard::More)),
            (Some(&stranger), Err(Refusal::ClientCertificate)),
            (None, Err(Refusal::ClientCertificate)),
        ] {
            let mut pair = Pair::new(&port, with(files), "a.example");
            assert_eq!(pair.carry(1_000), outcome, "{suite:?} {files:?}");
        }
    }
}
