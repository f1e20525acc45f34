//! Clients and producers speak TLS: with the libraries and tools that they have, and with what attackers have.

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use support::{
    authority::{Authority, Pair, certificates, openssl},
    script,
    server::Server,
    wait_for,
};
use tungstenite::Message;

fn secure_url(server: &Server) -> String {
    format!("wss://localhost:{}/connection/websocket", server.client_address().port())
}

#[test]
fn libraries_of_clients_and_producers_speak_tls() {
    let (authority, strangers) = (Authority::new(), Authority::new());
    let (pair, producer, stranger) =
        (authority.issue("localhost"), authority.issue("producer"), strangers.issue("stranger"));
    let settings = certificates("client.tls", &[&pair])
        + &certificates("ingest.tls", &[&pair])
        + &format!("ingest.tls.client_authority = {:?}\n", authority.file());
    let server = Server::start(&settings);
    script::run(
        script::node(&server, "secure.mjs")
            .env("TEST_SECURE_URL", secure_url(&server))
            .env("NODE_EXTRA_CA_CERTS", authority.file()),
    );
    script::run(
        script::python(&server, "secure.py")
            .env("TEST_SECURE_URL", secure_url(&server))
            .env("TEST_AUTHORITY", authority.file())
            .env("TEST_CERTIFICATE", &producer.certificate)
            .env("TEST_KEY", &producer.key)
            .env("TEST_STRANGER", &stranger.certificate)
            .env("TEST_STRANGER_KEY", &stranger.key),
    );
    let expired = authority.issue_with("expired", |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let redis_cli = |pair: &Pair| {
        let output = Command::new("redis-cli")
            .args(["-h", "localhost", "-p", &server.ingest_address().port().to_string(), "--tls", "--cacert"])
            .arg(authority.file())
            .arg("--cert")
            .arg(&pair.certificate)
            .arg("--key")
            .arg(&pair.key)
            .args(["PUBLISH", "open:secure", "1"])
            .output()
            .expect("redis-cli runs; `make test-tools` installs what the tests need");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(redis_cli(&producer).trim(), "0");
    assert_eq!(redis_cli(&expired).trim(), "");
    wait_for("the refusals to be counted", || {
        let counts = server.metrics().by_label("tidegate_ingest_rejections_total", "reason");
        counts.get("tls_client_certificate").filter(|count| **count >= 3.0).map(|_| ())
    });
}

#[test]
fn openssl_agrees_in_both_versions() {
    let authority = Authority::new();
    let (pair, other) = (authority.issue("localhost"), authority.issue("other.example"));
    let server = Server::start(&certificates("client.tls", &[&pair, &other]));
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for version in ["-tls1_2", "-tls1_3"] {
        let session = authority.folder.join("session").display().to_string();
        let first = openssl(&server, &authority, &[version, "-sess_out", &session, "-ign_eof"], request);
        assert!(first.contains("Verify return code: 0") && first.contains("HTTP/1.1 404"), "{first}");
        let second = openssl(&server, &authority, &[version, "-sess_in", &session, "-ign_eof"], request);
        assert!(second.contains("Reused, "), "{second}");
        let named = openssl(&server, &authority, &[version, "-servername", "other.example"], "");
        assert!(named.contains("DNS:other.example") || named.contains("CN") || named.contains("BEGIN CERT"), "{named}");
    }
    let old = openssl(&server, &authority, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "");
    assert!(old.contains("alert"), "{old}");
    server.wait_until_counted("tls_incompatible", 1);
    // A line of only an R asks to negotiate anew.
    let again = openssl(&server, &authority, &["-tls1_2"], "R\n");
    assert!(again.contains("RENEGOTIATING") && again.contains("renegotiation"), "{again}");
    server.wait_until_counted("tls_renegotiation", 1);
    // A line of only a K asks for new keys.
    let keys = openssl(&server, &authority, &["-tls1_3"], "K\nQ\n");
    assert!(keys.contains("KEYUPDATE") && !keys.contains("error"), "{keys}");
    let early = authority.folder.join("early");
    fs::write(&early, request).expect("the folder can be written");
    let session = authority.folder.join("session").display().to_string();
    let refused = openssl(
        &server,
        &authority,
        &["-tls1_3", "-sess_in", &session, "-early_data", &early.display().to_string()],
        "",
    );
    assert!(!refused.contains("Early data was accepted"), "{refused}");
    assert_eq!(server.metrics().reason("tls_record_invalid"), 0);
}

#[test]
fn curl_sees_a_clean_end_and_a_wrong_name() {
    let authority = Authority::new();
    let pair = authority.issue("localhost");
    let server = Server::start(&certificates("client.tls", &[&pair]));
    let curl = |url: &str| {
        let output = Command::new("curl").args(["-sS", "--cacert"]).arg(authority.file()).arg(url).output();
        let output = output.expect("curl runs");
        (
            output.status.code(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    let port = server.client_address().port();
    let (code, text) = curl(&format!("https://localhost:{port}/"));
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(curl(&format!("https://127.0.0.1:{port}/")).0, Some(60), "the name is another");
    let stranger = Command::new("curl").args(["-sS", &format!("https://localhost:{port}/")]).output();
    assert_eq!(stranger.expect("curl runs").status.code(), Some(60), "the authority is nobody's");
    server.wait_until_counted("tls_peer_alert", 1);
    let (code, text) = curl(&format!("http://localhost:{port}/"));
    assert!(code == Some(0) && text.contains("this port speaks TLS"), "{text}");
    server.wait_until_counted("tls_not_spoken", 1);
}

#[test]
fn certificates_are_renewed_while_clients_stay() {
    let authority = Authority::new();
    let pair = authority.issue("localhost");
    let server = Server::start(&certificates("client.tls", &[&pair]));
    let mut lasting = authority.client(&server, "localhost");
    let renewals = |outcome: &str| {
        server.metrics().sum("tidegate_tls_certificate_renewals_total", &[("outcome", outcome)]).unwrap_or_default()
    };
    let good = fs::read(&pair.certificate).expect("it was written");
    fs::write(&pair.certificate, "-----BEGIN CERTIFICATE-----\nno certificate\n").expect("it can be written");
    wait_for("the bad certificate to be refused", || (renewals("refused") == 1.0).then_some(()));
    assert!(server.log().contains("the certificates stay what they were"), "{}", server.log());
    authority.client(&server, "localhost");
    fs::write(&pair.certificate, good).expect("it can be written");

    authority.issue_with("localhost", |params| {
        params.subject_alt_names.push(rcgen::SanType::DnsName("renewed.example".try_into().expect("a name")));
    });
    wait_for("the certificate to be renewed", || (renewals("renewed") >= 1.0).then_some(()));
    authority.client(&server, "renewed.example");
    lasting.send(Message::text(r#"{"id":2,"subscribe":{"channel":"open:lasting"}}"#)).expect("it is connected still");
    let reply = lasting.read().expect("a reply").into_text().expect("a text");
    assert!(reply.contains("subscribe"), "{reply}");
    let expiry =
        server.metrics().sum("tidegate_tls_certificate_expiry_timestamp_seconds", &[("section", "client.tls")]);
    assert!(expiry.is_some_and(|seconds| seconds > 1.8e9));
}

#[test]
fn handshakes_that_stall_or_are_garbage_hurt_nobody_else() {
    let authority = Authority::new();
    let pair = authority.issue("localhost");
    let settings = certificates("client.tls", &[&pair]) + "client.request_head_timeout = \"2s\"\n";
    let server = Server::start(&settings);
    let mut lasting = authority.client(&server, "localhost");
    let connect = || TcpStream::connect(server.client_address()).expect("the server listens");
    let silent: Vec<TcpStream> = (0..100).map(|_| connect()).collect();
    let half_open: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut socket = connect();
            socket.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).expect("the server listens");
            socket
        })
        .collect();
    for number in 0..100_u8 {
        let mut socket = connect();
        let garbage: Vec<u8> = (0..200).map(|byte: u8| byte.wrapping_mul(number | 1)).collect();
        socket.write_all(&[22, 3, 1, 0, 200]).and_then(|()| socket.write_all(&garbage)).expect("the server listens");
    }
    authority.client(&server, "localhost");
    lasting.send(Message::text(r#"{"id":2,"subscribe":{"channel":"open:lasting"}}"#)).expect("it is connected");
    assert!(lasting.read().expect("a reply").into_text().expect("a text").contains("subscribe"));
    server.wait_until_counted("tls_handshake_failed", 100);
    server.wait_until_counted("tls_handshake_timeout", 200);
    for mut socket in silent.into_iter().chain(half_open) {
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
        let mut rest = Vec::new();
        // An end, or a reset where something was not read.
        let _ = socket.read_to_end(&mut rest);
    }
    assert_eq!(server.metrics().sum("tidegate_tls_handshakes_under_way", &[]), Some(0.0));
}

#[test]
fn a_configuration_is_checked_with_its_certificates() {
    let authority = Authority::new();
    let (pair, other) = (authority.issue("localhost"), authority.issue("other.example"));
    let expired = authority.issue_with("expired", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let check = |certificate: &Path, key: &Path| {
        let file = authority.folder.join("tidegate.toml");
        let files = Pair { certificate: certificate.to_owned(), key: key.to_owned() };
        fs::write(&file, certificates("client.tls", &[&files])).expect("it can be written");
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(["check-config", "--config"]).arg(file).output();
        let output = output.expect("the binary runs");
        (
            output.status.code(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    let (code, text) = check(&pair.certificate, &pair.key);
    assert!(code == Some(0) && text.contains("for localhost, valid for "), "{text}");
    for (certificate, key, message) in [
        (&pair.certificate, &other.key, "is not the key of"),
        (&pair.key, &pair.key, "holds no certificate"),
        (&pair.certificate, &pair.certificate, "is no private key"),
        (&pair.certificate, &authority.folder.join("nowhere"), "cannot be read"),
        (&expired.certificate, &expired.key, "has expired"),
    ] {
        let (code, text) = check(certificate, key);
        assert!(code == Some(2) && text.contains(message), "{message}: {text}");
    }
}
