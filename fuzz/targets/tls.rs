//! What a peer sends to a port that speaks TLS: any bytes, in the place of a handshake and behind one.
//!
//! Checked: nothing panics; what nobody has sealed is never taken for a message; what the library seals, however it is
//! cut, is heard as it was said, and heard by the library when it is sealed here.

#![no_main]

use std::{
    fs,
    io::{Read, Write},
    sync::{Arc, OnceLock},
};

use libfuzzer_sys::fuzz_target;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::ServerName,
};
use tidegate::{
    config::{CertificateFiles, ClientTlsConfig, TlsConfig, TlsVersion},
    tls::{Channel, Port},
};

const NAME: &str = "localhost";

struct Stage {
    port: Arc<Port>,
    /// One for each cipher.
    clients: Vec<Arc<ClientConfig>>,
}

fn stage() -> &'static Stage {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    STAGE.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("tidegate-fuzz-tls-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let files = CertificateFiles { certificate: folder.join("certificate.pem"), key: folder.join("key.pem") };
        let key = KeyPair::generate().expect("a key");
        let names = CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
        let certificate = names.self_signed(&key).expect("a certificate");
        fs::write(&files.certificate, certificate.pem()).expect("the folder can be written");
        fs::write(&files.key, key.serialize_pem()).expect("the folder can be written");
        let port = TlsConfig { certificates: vec![files], version_min: TlsVersion::Tls12 };
        let port = Port::for_clients(&ClientTlsConfig { port, ..ClientTlsConfig::default() }).expect("a port");
        fs::remove_dir_all(&folder).expect("the folder is there");
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).expect("a certificate");
        let suites = aws_lc_rs::DEFAULT_CIPHER_SUITES.iter();
        let clients = suites.filter(|suite| !format!("{:?}", suite.suite()).contains("RSA")).map(|suite| {
            let provider = CryptoProvider { cipher_suites: vec![*suite], ..aws_lc_rs::default_provider() };
            let config = ClientConfig::builder_with_provider(Arc::new(provider))
                .with_protocol_versions(&[suite.version()])
                .expect("the version of the cipher")
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            Arc::new(config)
        });
        Stage { port: Arc::new(port), clients: clients.collect() }
    })
}

/// Carries what both have to say, `step` bytes at a time, until both are silent: what the channel has heard.
fn carry(client: &mut ClientConnection, channel: &mut Channel, step: usize) -> Vec<u8> {
    let mut heard = Vec::new();
    loop {
        let mut up = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut up).expect("a buffer");
        }
        for part in up.chunks_mut(step) {
            channel.receive(part, &mut heard).expect("the library speaks TLS");
        }
        let down = channel.take_output();
        let mut rest = &down[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("a buffer");
            client.process_new_packets().expect("the channel speaks TLS");
        }
        if up.is_empty() && down.is_empty() {
            return heard;
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let [kind, step, said @ ..] = input else { return };
    let step = usize::from(*step) + 1;
    let Stage { port, clients } = stage();

    let mut heard = Vec::new();
    let mut fresh = Channel::new(port);
    let is_refused = said.to_vec().chunks_mut(step).any(|part| fresh.receive(part, &mut heard).is_err());
    assert!(heard.is_empty() && !fresh.is_established(), "{is_refused}");

    let config = Arc::clone(&clients[usize::from(*kind >> 1) % clients.len()]);
    let mut client = ClientConnection::new(config, ServerName::try_from(NAME).expect("a name")).expect("a client");
    let mut channel = Channel::new(port);
    carry(&mut client, &mut channel, step);
    assert!(channel.is_established() && !client.is_handshaking());
    if kind & 1 == 0 {
        let _ = said.to_vec().chunks_mut(step).try_for_each(|part| channel.receive(part, &mut heard).map(drop));
        assert!(heard.is_empty(), "nobody has sealed it");
        return;
    }
    client.writer().write_all(said).expect("a buffer");
    assert_eq!(carry(&mut client, &mut channel, step), said);
    channel.seal(said);
    carry(&mut client, &mut channel, step);
    let mut back = vec![0; said.len()];
    client.reader().read_exact(&mut back).expect("all of it");
    assert_eq!(back, said);
});
