//! Channels against the library's own client, byte by byte where it counts.

use std::{fs, io::Read, io::Write, path::PathBuf, sync::Arc};

use ::aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    client::Resumption,
    crypto::aws_lc_rs::{self, cipher_suite},
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::{Channel, Heard, Port, RECORD_BYTES_MAX, Refusal, Reloaded};
use crate::{
    config::{CertificateFiles, ClientTlsConfig, IngestTlsConfig, TlsConfig, TlsVersion},
    uring::{RecordCipher, RecordKeys},
};

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

/// Seals a record of data with a connection's keys as Linux does (`tls_sw_sendmsg`), and counts on.
fn seal_as_linux(keys: &mut RecordKeys, plaintext: &[u8]) -> Vec<u8> {
    let (algorithm, has_explicit) = match keys.cipher {
        RecordCipher::Aes128Gcm => (&AES_128_GCM, !keys.is_tls13),
        RecordCipher::Aes256Gcm => (&AES_256_GCM, !keys.is_tls13),
        RecordCipher::Chacha20Poly1305 => (&CHACHA20_POLY1305, false),
    };
    let write = &mut keys.write;
    let mut nonce = write.nonce;
    if has_explicit {
        let explicit = u64::from_be_bytes(write.nonce[4..].try_into().unwrap());
        write.nonce[4..].copy_from_slice(&explicit.wrapping_add(1).to_be_bytes());
    } else {
        nonce[4..].iter_mut().zip(write.records.to_be_bytes()).for_each(|(byte, of_number)| *byte ^= of_number);
    }
    let mut sealed = plaintext.to_vec();
    sealed.extend(keys.is_tls13.then_some(23));
    let explicit: &[u8] = if has_explicit { &nonce[4..] } else { &[] };
    let header = |bytes: usize| [&[23, 3, 3][..], &(bytes as u16).to_be_bytes()].concat();
    let outer = header(explicit.len() + sealed.len() + 16);
    let context =
        if keys.is_tls13 { outer.clone() } else { [&write.records.to_be_bytes()[..], &header(sealed.len())].concat() };
    let key = LessSafeKey::new(UnboundKey::new(algorithm, &write.key[..algorithm.key_len()]).unwrap());
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut sealed).unwrap();
    write.records += 1;
    [&outer[..], explicit, &sealed].concat()
}

#[test]
fn the_kernel_goes_on_where_the_channel_ends() {
    let folder = Folder::new("kernel");
    let files = folder.certificate("a.example");
    let port = Arc::new(Port::for_clients(&settings(std::slice::from_ref(&files), TlsVersion::Tls12)).unwrap());
    for suite in SUITES {
        let mut pair = Pair::new(&port, client_config(&[&files], suite), "a.example");
        assert!(pair.channel.for_kernel().is_none(), "there are no keys yet");
        pair.carry(1_000).unwrap();
        let mut nonces = Vec::new();
        for word in [&b"one"[..], b"two", b"three"] {
            pair.channel.seal(word);
            assert!(pair.channel.for_kernel().is_none(), "something sealed is not sent yet");
            nonces.push(pair.channel.output()[5..13].to_vec());
            pair.carry(1_000).unwrap();
        }
        pair.client_reads();
        let mut keys = pair.channel.for_kernel().expect("all is opened and sent");
        assert_eq!(keys.is_tls13, suite.version() == &rustls::version::TLS13);
        for word in [&b"four"[..], b"five", b"six"] {
            let sealed = seal_as_linux(&mut keys, word);
            let has_explicit = !keys.is_tls13 && keys.cipher != RecordCipher::Chacha20Poly1305;
            assert!(!has_explicit || !nonces.contains(&sealed[5..13].to_vec()), "a nonce is used once");
            nonces.push(sealed[5..13].to_vec());
            pair.client.read_tls(&mut &sealed[..]).unwrap();
            pair.client.process_new_packets().unwrap();
            let mut read = Vec::new();
            let _ = pair.client.reader().read_to_end(&mut read);
            assert_eq!(read, word, "{suite:?}");
        }

        // What the peer says next is numbered as the kernel is told.
        let records = keys.read.records;
        pair.client.writer().write_all(b"said").unwrap();
        let mut up = Vec::new();
        pair.client.write_tls(&mut up).unwrap();
        pair.heard.clear();
        let (begin, end) = up.split_at_mut(9);
        pair.channel.receive(begin, &mut pair.heard).unwrap();
        assert!(pair.channel.for_kernel().is_none(), "a record has come in part");
        pair.channel.receive(end, &mut pair.heard).unwrap();
        assert_eq!(pair.heard, b"said");
        assert_eq!(pair.channel.for_kernel().expect("all is opened").read.records, records + 1);
        pair.channel.stay();
        assert!(pair.channel.for_kernel().is_none(), "it is not asked twice");
    }
}

#[test]
fn keys_that_the_client_waits_for_come_before_the_kernel() {
    let folder = Folder::new("kernel-update");
    let files = folder.certificate("a.example");
    let port = Arc::new(Port::for_clients(&settings(std::slice::from_ref(&files), TlsVersion::Tls12)).unwrap());
    let mut pair = Pair::new(&port, client_config(&[&files], SUITES[0]), "a.example");
    pair.carry(1_000).unwrap();
    let before = pair.channel.for_kernel().expect("the handshake is over");
    pair.client.refresh_traffic_keys().unwrap();
    pair.carry(1_000).unwrap();
    assert!(pair.channel.for_kernel().is_none(), "new keys of ours are owed, and the kernel would not send them");
    pair.channel.seal(b"with new keys");
    pair.carry(1_000).unwrap();
    assert_eq!(pair.client_reads(), b"with new keys");
    let mut after = pair.channel.for_kernel().expect("they were sent");
    assert!(after.read.key != before.read.key && after.write.key != before.write.key);
    assert_eq!((after.read.records, after.write.records), (0, 1));
    let sealed = seal_as_linux(&mut after, b"by the kernel");
    pair.client.read_tls(&mut &sealed[..]).unwrap();
    pair.client.process_new_packets().unwrap();
    let _ = pair.client.reader().read_to_end(&mut pair.read);
    assert_eq!(pair.client_reads(), b"by the kernel");
}
