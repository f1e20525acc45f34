//! Clients and producers speak TLS: with the libraries and tools that they have, and with what attackers have.

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};
use support::{
    PATIENCE,
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

#[test]
fn producers_that_do_not_shake_hands_are_let_go_and_are_not_too_many() {
    let authority = Authority::new();
    let pair = authority.issue("localhost");
    let settings = certificates("ingest.tls", &[&pair])
        + "ingest.tls.handshake_timeout = \"3s\"\ningest.tls.handshakes_max = 20\n";
    let server = Server::start(&settings);
    let reason = |name: &str| {
        let counts = server.metrics().by_label("tidegate_ingest_rejections_total", "reason");
        counts.get(name).copied().unwrap_or_default()
    };
    let connect = || TcpStream::connect(server.ingest_address()).expect("the server listens");
    let publish = || {
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(authority.client_config(), name).expect("a client");
        let socket = connect();
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        StreamOwned::new(connection, socket)
    };
    let ask = |stream: &mut StreamOwned<ClientConnection, TcpStream>| {
        stream.write_all(b"PING\r\n")?;
        let mut reply = [0; 7];
        stream.read_exact(&mut reply).map(|()| reply)
    };
    let mut lasting = publish();
    assert_eq!(&ask(&mut lasting).expect("it is served"), b"+PONG\r\n");
    // Half say nothing, half say the beginning of a handshake, and go on a little at a time.
    let mut stalled: Vec<TcpStream> = (0..20).map(|_| connect()).collect();
    for socket in &mut stalled[10..] {
        socket.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).expect("the server listens");
    }
    wait_for("somebody to be one too many", || {
        let _ = ask(&mut publish());
        (reason("tls_handshakes_exhausted") > 0.0).then_some(())
    });
    // Who has shaken hands is served meanwhile.
    assert_eq!(&ask(&mut lasting).expect("it is served"), b"+PONG\r\n");
    wait_for("the time to be over", || {
        for socket in &mut stalled[10..] {
            // It may have been ended.
            let _ = socket.write_all(b"x");
        }
        (reason("tls_handshake_timeout") == 20.0).then_some(())
    });
    for mut socket in stalled {
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        // An end, or a reset where something was not read.
        let _ = socket.read_to_end(&mut Vec::new()).inspect_err(|error| {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "it is ended");
        });
    }
    assert_eq!(&ask(&mut publish()).expect("there is room again"), b"+PONG\r\n");
    assert_eq!(&ask(&mut lasting).expect("it has no deadline any more"), b"+PONG\r\n");
}

/// An address that nobody listens on.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it has an address")
}

/// What `curl` prints, with the exit code.
fn curl(authority: &Authority, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new("curl").args(["-sS", "--cacert"]).arg(authority.file()).args(arguments).output();
    let output = output.expect("curl runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// A command of the program under test, with the configuration of a server.
fn command(file: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg(arguments[0]).arg("--config").arg(file).args(&arguments[1..]);
    command
}

/// Its exit code, and what it prints.
fn outcome(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().expect("the program runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn operators_and_back_ends_speak_tls() {
    let authority = Authority::new();
    let (pair, other) = (authority.issue("localhost"), authority.issue("other.example"));
    let api = free_address();
    let settings = certificates("admin.tls", &[&pair])
        + &certificates("api.tls", &[&pair])
        + &format!("api.listen = \"{api}\"\napi.keys = [\"key\"]\n");
    let mut server = Server::start(&settings);
    let admin = server.admin_address().port();
    // Who has connected and says nothing, or the beginning of a handshake, keeps nobody waiting.
    let mut silent: Vec<TcpStream> =
        (0..8).map(|_| TcpStream::connect(server.admin_address()).expect("it listens")).collect();
    silent[0].write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).expect("it listens");
    let (code, text) = curl(&authority, &[&format!("https://localhost:{admin}/health")]);
    assert!(code == Some(0) && text.contains("shards"), "{text}");
    let (code, text) = curl(&authority, &[&format!("https://localhost:{admin}/metrics")]);
    assert!(
        code == Some(0) && text.contains("section=\"admin.tls\"") && text.contains("section=\"api.tls\""),
        "{text}"
    );
    let info = ["-H", "X-API-Key: key", "-d", "{}", &format!("https://localhost:{}/api/info", api.port())];
    let (code, text) = curl(&authority, &info);
    assert!(code == Some(0) && text.contains("nodes"), "{text}");
    for port in [admin, api.port()] {
        let (code, text) = curl(&authority, &[&format!("http://localhost:{port}/health")]);
        assert!(code == Some(0) && text.contains("this port speaks TLS"), "{code:?} {text}");
        assert_eq!(curl(&authority, &[&format!("https://127.0.0.1:{port}/")]).0, Some(60), "the name is another");
    }
    // Certificates are renewed as those of other ports.
    authority.issue_with("localhost", |params| {
        params.subject_alt_names.push(rcgen::SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
    });
    wait_for("the certificate to be renewed", || {
        (curl(&authority, &[&format!("https://127.0.0.1:{admin}/health")]).0 == Some(0)).then_some(())
    });
    drop(silent);

    let file = server.configuration_file();
    let (code, text) = outcome(command(&file, &["deny", "add", "203.0.113.0/24"]));
    assert!(code == Some(0) && text.contains("203.0.113.0/24"), "{text}");
    let (code, text) = outcome(command(&file, &["reload"]));
    assert!(code == Some(0) && text.contains("nothing is written otherwise"), "{text}");
    // Another server, or another's configuration.
    let elsewhere = authority.folder.join("elsewhere.toml");
    let listen = format!("admin.listen = \"{}\"\n", server.admin_address());
    fs::write(&elsewhere, listen.clone() + &certificates("admin.tls", &[&other])).expect("it can be written");
    let (code, text) = outcome(command(&elsewhere, &["deny", "list"]));
    assert!(code == Some(1) && text.contains("another certificate than"), "{text}");
    fs::write(&elsewhere, listen).expect("it can be written");
    let (code, text) = outcome(command(&elsewhere, &["deny", "list"]));
    assert!(code == Some(1) && text.contains("this port speaks TLS"), "{text}");
    let (code, text) = outcome(command(&file, &["drain"]));
    assert!(code == Some(0) && text.contains("has ended after"), "{text}");
    assert!(server.wait_for_end(PATIENCE).success());
}

/// `tidegate tail`, ended with the test.
struct Tail(Child);

impl Tail {
    fn start(mut command: Command) -> Self {
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs"))
    }

    /// Waits until it is subscribed.
    fn wait(&mut self) {
        let mut line = String::new();
        let stderr = self.0.stderr.as_mut().expect("it is piped");
        BufReader::new(stderr).read_line(&mut line).expect("it says something");
        assert!(line.contains("subscribed to"), "{line}");
    }

    fn next_line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().expect("it is piped")).read_line(&mut line).expect("a line");
        line
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn tail_and_publish_speak_tls() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let pair = authority.issue("localhost");
    let server = Server::start(&(certificates("client.tls", &[&pair]) + &certificates("ingest.tls", &[&pair])));
    let file = server.configuration_file();
    let (url, ingest) = (secure_url(&server), format!("localhost:{}", server.ingest_address().port()));
    let (own, other) = (authority.file().display().to_string(), stranger.file().display().to_string());
    let plain = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(arguments);
        command
    };
    let mut tails = [
        command(&file, &["tail", "open:secure"]),
        plain(&["tail", "open:secure", "--url", &url, "--tls-ca", &own]),
        plain(&["tail", "open:secure", "--url", &url, "--tls-insecure"]),
    ]
    .map(Tail::start);
    tails.iter_mut().for_each(Tail::wait);
    let publishes = [
        command(&file, &["publish", "open:secure", "1"]),
        plain(&["publish", "open:secure", "2", "--address", &ingest, "--tls-ca", &own]),
        plain(&["publish", "open:secure", "3", "--address", &ingest, "--tls-insecure"]),
    ];
    for (number, publish) in publishes.into_iter().enumerate() {
        assert_eq!(outcome(publish), (Some(0), "3 subscribers\n".to_owned()));
        for tail in &mut tails {
            assert_eq!(tail.next_line(), format!("{}\n", number + 1));
        }
    }
    for untrusted in [
        plain(&["tail", "open:secure", "--url", &url, "--tls-ca", &other]),
        plain(&["tail", "open:secure", "--url", &url]),
        plain(&["publish", "open:secure", "2", "--address", &ingest, "--tls-ca", &other]),
    ] {
        let (code, text) = outcome(untrusted);
        assert!(code == Some(1) && text.contains("an authority that is not trusted"), "{text}");
    }
    let (code, text) = outcome(plain(&["publish", "open:secure", "2", "--address", &ingest]));
    assert!(code == Some(1) && text.contains("this port speaks TLS"), "{text}");
}

/// A header of the PROXY protocol, version 2, for a client of this address.
fn proxy_header(client: [u8; 4]) -> Vec<u8> {
    let fixed = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";
    [&fixed[..], &client, &[127, 0, 0, 1], &[0xc0, 0, 0x1f, 0x90]].concat()
}

#[test]
fn a_balancer_tells_whose_connection_it_is_before_the_handshake() {
    let authority = Authority::new();
    let settings = certificates("client.tls", &[&authority.issue("localhost")])
        + "client.proxy_protocol_from = [\"127.0.0.0/8\"]\nclient.deny = [\"192.0.2.66\"]\n\
           client.limits.address_connections_max = 1\n";
    let server = Server::start(&settings);
    let connect = || {
        let socket = TcpStream::connect(server.client_address()).expect("the server listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        socket
    };
    let session = || {
        let name = ServerName::try_from("localhost").expect("a name");
        ClientConnection::new(authority.client_config(), name).expect("a client")
    };
    let upgrade = |tls: ClientConnection, socket: TcpStream| {
        let stream = StreamOwned::new(tls, socket);
        tungstenite::client("ws://localhost/connection/websocket", stream).expect("the server upgrades").0
    };
    // In two parts, before anything else; and in one with the beginning of the handshake.
    let mut socket = connect();
    let header = proxy_header([192, 0, 2, 1]);
    socket.write_all(&header[..9]).expect("the server listens");
    wait_for("the first part to arrive", || {
        (server.metrics().sum("tidegate_received_bytes_total", &[]) >= Some(9.0)).then_some(())
    });
    socket.write_all(&header[9..]).expect("the server listens");
    let first = upgrade(session(), socket);
    let (mut socket, mut tls) = (connect(), session());
    let mut together = proxy_header([192, 0, 2, 2]);
    tls.write_tls(&mut together).expect("there is room");
    socket.write_all(&together).expect("the server listens");
    let second = upgrade(tls, socket);
    // The address in the header counts, and is denied.
    for (client, reason) in [([192, 0, 2, 1], "address_connections_exhausted"), ([192, 0, 2, 66], "address_denied")] {
        let (mut socket, mut tls) = (connect(), session());
        let mut refused = proxy_header(client);
        tls.write_tls(&mut refused).expect("there is room");
        socket.write_all(&refused).expect("the server listens");
        let mut rest = Vec::new();
        // An end, or a reset where something was not read.
        let _ = socket.read_to_end(&mut rest);
        assert_eq!(rest, b"", "nothing is said in the clear");
        server.wait_until_counted(reason, 1);
    }
    // A handshake without a header.
    let (mut socket, mut tls) = (connect(), session());
    assert!(tls.complete_io(&mut socket).is_err());
    server.wait_until_counted("proxy_header_invalid", 1);
    drop((first, second));
}
