//! TLS between a simulated kernel and sessions: sockets that take a part, peers that say garbage, storms of handshakes.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::PathBuf,
    sync::Arc,
};

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::{Client, Config, Peer, ROOM, Read, Stage, UPGRADE};
use crate::config::CertificateFiles;

/// A certificate of the tests, and the folder that it lies in.
struct Certificate {
    folder: PathBuf,
    files: CertificateFiles,
}

impl Certificate {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("tidegate-shard-tls-{}-{test}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let files = CertificateFiles { certificate: folder.join("a.pem"), key: folder.join("a.key") };
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        Self { folder, files }
    }

    fn stage(&self, change: impl FnOnce(&mut Config)) -> Stage {
        Stage::new(1, 1024, |config| {
            config.client.tls.port.certificates = vec![self.files.clone()];
            change(config);
        })
    }

    fn client(&self, stage: &Stage, room: usize) -> SealedClient {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.files.certificate).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(Arc::new(config), name).unwrap();
        SealedClient { tls, peer: stage.network.connect(0, room), unread: Vec::new(), is_ended: false, room }
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A client that speaks TLS, and reads when it is told to.
struct SealedClient {
    tls: ClientConnection,
    peer: Peer,
    unread: Vec<u8>,
    is_ended: bool,
    /// Bytes that its socket holds.
    room: usize,
}

impl SealedClient {
    /// Writes what it has to say, sealed.
    fn flush(&mut self) {
        let mut sealed = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut sealed).unwrap();
        }
        self.peer.write(&sealed);
    }

    fn say(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).unwrap();
        self.flush();
    }

    fn say_text(&mut self, text: &str) {
        let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
        frame.extend(text.as_bytes());
        self.say(&frame);
    }

    /// Reads at most so many bytes from its socket, and opens what is whole.
    fn read(&mut self, bytes_max: usize) {
        let mut sealed = Vec::new();
        match self.peer.read(&mut sealed, bytes_max) {
            Read::Bytes(_) => {}
            Read::Ended | Read::Reset => self.is_ended = true,
        }
        let mut sealed = &sealed[..];
        while !sealed.is_empty() {
            self.tls.read_tls(&mut sealed).unwrap();
            let _ = self.tls.process_new_packets();
            let _ = self.tls.reader().read_to_end(&mut self.unread);
        }
    }

    /// Takes part in whatever goes on until nothing more does.
    fn settle(&mut self, stage: &mut Stage, bytes_max: usize) {
        for _ in 0..40.max(4_000 / self.room) {
            self.flush();
            stage.settle();
            self.read(bytes_max);
        }
    }

    /// Upgraded and connected.
    fn connect(&mut self, stage: &mut Stage) {
        self.say(UPGRADE);
        self.settle(stage, ROOM);
        assert!(self.unread.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&self.unread));
        self.unread.clear();
        self.say_text(r#"{"id":1,"connect":{}}"#);
        self.settle(stage, ROOM);
        assert!(self.texts().contains(r#""connect""#));
    }

    fn texts(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }
}

#[test]
fn a_client_is_served_as_without_tls() {
    let certificate = Certificate::new("served");
    let mut stage = certificate.stage(|_| {});
    let mut client = certificate.client(&stage, ROOM);
    client.connect(&mut stage);
    client.say_text(r#"{"id":2,"subscribe":{"channel":"plain:1"}}"#);
    client.settle(&mut stage, ROOM);
    assert!(client.texts().contains(r#""subscribe""#));
    stage.publish("plain:1", r#"{"n":1}"#, true);
    client.settle(&mut stage, ROOM);
    assert!(client.texts().contains(r#"{"n":1}"#));
    let figures = stage.shards[0].figures();
    assert_eq!((figures.tls_handshakes, figures.tls_handshakes_under_way, figures.connections), (1, 0, 1));
    client.tls.send_close_notify();
    client.settle(&mut stage, ROOM);
    let figures = stage.shards[0].figures();
    assert_eq!((figures.connections, figures.sockets, stage.count(0, "peer_closed")), (0, 0, 1));
}

#[test]
fn what_a_socket_does_not_take_comes_later_in_order() {
    let certificate = Certificate::new("slow");
    for room in [40, 300, 5_000, 40_000] {
        let mut stage = certificate.stage(|_| {});
        let mut client = certificate.client(&stage, room);
        client.connect(&mut stage);
        client.say_text(r#"{"id":2,"subscribe":{"channel":"plain:1"}}"#);
        client.settle(&mut stage, ROOM);
        client.texts();
        let filling = "x".repeat(if room < 1_000 { 40 } else { 30_000 });
        for number in 0..6 {
            stage.publish("plain:1", &format!(r#"{{"n":{number},"x":"{filling}"}}"#), true);
            stage.settle();
        }
        for _ in 0..40.max(if room < 1_000 { 2_000 } else { 400_000 } / room) {
            client.read(ROOM);
            stage.settle();
        }
        let texts = client.texts();
        let positions: Vec<_> = (0..6).map(|number| texts.find(&format!(r#"{{"n":{number},"#))).collect();
        assert!(positions.iter().all(Option::is_some) && positions.is_sorted(), "{room}: {positions:?}");
        assert_eq!(stage.shards[0].figures().outboxes, 0);
    }
}

#[test]
fn what_is_sealed_and_waits_is_counted_and_bounded() {
    let certificate = Certificate::new("counted");
    let mut stage = certificate.stage(|config| {
        config.shards.outbox_bytes_max = 60_000;
        config.shards.outboxes_bytes_max = 100_000;
    });
    let mut clients: Vec<_> = (0..3).map(|_| certificate.client(&stage, 5_000)).collect();
    for client in &mut clients {
        client.connect(&mut stage);
        client.say_text(r#"{"id":2,"subscribe":{"channel":"plain:1"}}"#);
        client.settle(&mut stage, ROOM);
        client.texts();
    }
    assert_eq!(stage.shards[0].figures().outbox_bytes, 0);
    let filling = "x".repeat(40_000);
    stage.publish("plain:1", &format!(r#"{{"x":"{filling}"}}"#), true);
    stage.settle();
    // Of each message, the socket holds its room, and the rest is sealed already; together it is too much for the shard.
    let figures = stage.shards[0].figures();
    assert_eq!((figures.outboxes, stage.count(0, "memory")), (2, 1));
    assert!((70_000..80_000).contains(&figures.outbox_bytes), "{}", figures.outbox_bytes);
    assert!(figures.outbox_depth.sum() > 100_000, "the depth of what waits is that of all of it");
    for _ in 0..60 {
        for client in &mut clients {
            client.read(ROOM);
        }
        stage.settle();
    }
    let complete: usize = clients.iter_mut().map(|client| usize::from(client.texts().contains(&filling))).sum();
    let figures = stage.shards[0].figures();
    assert_eq!((complete, figures.outboxes, figures.outbox_bytes), (2, 0, 0));
    // A reset takes what waits with it.
    stage.publish("plain:1", &format!(r#"{{"x":"{filling}"}}"#), true);
    stage.settle();
    assert!(stage.shards[0].figures().outbox_bytes > 60_000);
    clients.drain(..).for_each(|client| client.peer.reset());
    stage.settle();
    let figures = stage.shards[0].figures();
    assert_eq!((figures.sockets, figures.outbox_bytes), (0, 0));
}

#[test]
fn a_slow_client_still_loses_what_its_channels_policy_drops() {
    let certificate = Certificate::new("policy");
    let mut stage = certificate.stage(|config| config.shards.outbox_bytes_max = 200_000);
    let mut client = certificate.client(&stage, 10_000);
    client.connect(&mut stage);
    client.say_text(r#"{"id":2,"subscribe":{"channel":"sync:1"}}"#);
    client.settle(&mut stage, ROOM);
    client.texts();
    let filling = "x".repeat(50_000);
    for number in 0..12 {
        stage.publish("sync:1", &format!(r#"{{"n":{number},"x":"{filling}"}}"#), true);
        stage.settle();
    }
    client.settle(&mut stage, ROOM);
    let texts = client.texts();
    assert!(texts.contains(r#""code":2500"#), "it is sent back to its offset");
    assert!(!texts.contains(r#"{"n":11,"#), "and spared what it will recover");
    assert_eq!(stage.count(0, "resync"), 1);
}

#[test]
fn who_does_not_speak_tls_is_told_so_and_goes() {
    let certificate = Certificate::new("plain");
    let mut stage = certificate.stage(|_| {});
    let mut client = Client { peer: stage.network.connect(0, ROOM), unread: Vec::new(), is_ended: false };
    client.peer.write(UPGRADE);
    stage.settle();
    stage.settle();
    client.read(usize::MAX);
    assert!(client.unread.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&client.unread));
    assert_eq!((stage.count(0, "tls_not_spoken"), stage.shards[0].figures().sockets), (1, 0));
}

#[test]
fn a_reset_at_any_point_leaves_nothing_behind() {
    let certificate = Certificate::new("resets");
    let mut stage = certificate.stage(|_| {});
    for steps in 0..6 {
        let mut client = certificate.client(&stage, ROOM);
        client.say(UPGRADE);
        for _ in 0..steps {
            stage.settle();
            client.read(ROOM);
            client.flush();
        }
        client.peer.write(&[0x17, 3, 3, 0, 40, 1, 2, 3]);
        stage.settle();
        client.peer.reset();
        stage.settle();
        let figures = stage.shards[0].figures();
        assert_eq!((figures.sockets, figures.tls_handshakes_under_way, figures.outboxes), (0, 0, 0), "{steps}");
    }
}

#[test]
fn garbage_behind_the_handshake_ends_the_connection() {
    let certificate = Certificate::new("garbage");
    let mut stage = certificate.stage(|_| {});
    let mut client = certificate.client(&stage, ROOM);
    client.connect(&mut stage);
    client.peer.write(&[0x17, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
    client.settle(&mut stage, ROOM);
    assert_eq!((stage.count(0, "tls_record_invalid"), stage.shards[0].figures().sockets), (1, 0));
}

#[test]
fn handshakes_that_are_too_many_wait_and_come_to_their_end() {
    let certificate = Certificate::new("storm");
    let mut stage = certificate.stage(|config| config.client.tls.handshakes_max = 3);
    let mut lasting = certificate.client(&stage, ROOM);
    lasting.connect(&mut stage);
    let mut silent: Vec<_> = (0..3).map(|_| certificate.client(&stage, ROOM)).collect();
    for client in &mut silent {
        client.flush();
    }
    stage.settle();
    let mut storm: Vec<_> = (0..20).map(|_| certificate.client(&stage, ROOM)).collect();
    storm.iter_mut().for_each(SealedClient::flush);
    stage.settle();
    let figures = stage.shards[0].figures();
    assert_eq!((figures.tls_handshakes_under_way, figures.tls_handshakes), (3, 1), "there is room for no more");
    lasting.say_text(r#"{"id":2,"subscribe":{"channel":"plain:1"}}"#);
    lasting.settle(&mut stage, ROOM);
    assert!(lasting.texts().contains(r#""subscribe""#), "the others are served");
    silent.into_iter().for_each(|client| client.peer.reset());
    stage.settle();
    for _ in 0..60 {
        for client in &mut storm {
            client.read(ROOM);
            client.flush();
        }
        stage.settle();
    }
    let figures = stage.shards[0].figures();
    assert_eq!((figures.tls_handshakes, figures.tls_handshakes_waiting, figures.sockets), (21, 0, 21));
}

#[test]
fn a_handshake_that_is_not_complete_in_time_ends() {
    let certificate = Certificate::new("slowloris");
    let mut stage = certificate.stage(|_| {});
    let mut client = certificate.client(&stage, ROOM);
    client.flush();
    stage.settle();
    stage.network.pass(6_000);
    client.settle(&mut stage, ROOM);
    assert_eq!((stage.count(0, "tls_handshake_timeout"), stage.shards[0].figures().sockets), (1, 0));
    assert!(client.is_ended);
}

#[test]
fn keys_that_the_kernel_refuses_stay_here_and_are_not_offered_again() {
    let certificate = Certificate::new("refused");
    for (kernel, refusals) in [(true, 1), (false, 0)] {
        let mut stage = certificate.stage(|config| config.client.tls.kernel = kernel);
        let mut client = certificate.client(&stage, ROOM);
        client.connect(&mut stage);
        for _ in 0..3 {
            client.say_text(r#"{"id":2,"publish":{"channel":"latest:x","data":1}}"#);
            client.settle(&mut stage, ROOM);
        }
        let figures = stage.shards[0].figures();
        assert_eq!(figures.tls_connections, [("kernel", 0), ("server", 1)]);
        assert_eq!(figures.tls_kernel_refusals, refusals);
        assert!(!client.unread.is_empty() && !client.is_ended, "it is answered");
    }
}
