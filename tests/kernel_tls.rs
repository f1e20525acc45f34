//! `client.tls.kernel`: what clients see is the same, whether the kernel seals and opens their records or the server does.
//!
//! `make test-kernel-tls` runs these in a guest whose kernel has TLS. On a kernel that has none they show that the server
//! goes on by itself.

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use rustls::{
    SupportedCipherSuite,
    crypto::aws_lc_rs::{DEFAULT_CIPHER_SUITES, cipher_suite},
};
use support::{
    PATIENCE,
    authority::{Authority, Client, certificates},
    client,
    metrics::Metrics,
    producer::Producer,
    server::Server,
    wait_for,
};
use tungstenite::Message;

/// Set where the kernel has to have TLS, so that the tests cannot pass without it.
const REQUIRED_VARIABLE: &str = "TEST_KERNEL_TLS";

/// Clients whose memory is measured, of each kind.
const MEASURED_CLIENTS: u32 = 500;

struct Stage {
    authority: Authority,
    server: Server,
}

impl Stage {
    fn new(settings: &str) -> Self {
        let authority = Authority::new();
        let own = certificates("client.tls", &[&authority.issue("localhost")]) + "client.tls.kernel = true\n";
        let server = Server::start(&(own + settings));
        Self { authority, server }
    }

    /// A client that is connected and subscribed, and whose records are whose they should be.
    fn client(&self, suites: &[SupportedCipherSuite]) -> Client {
        let mut client = self.authority.client_with(&self.server, "localhost", suites);
        subscribe(&mut client, "open:x");
        self.wait_for_records(1);
        client
    }

    fn wait_for_records(&self, count: u32) {
        wait_for(&format!("{count} connections whose records are the {}'s", sealer()), || {
            (connections(&self.server.metrics(), sealer()) == f64::from(count)).then_some(())
        });
    }
}

/// Who seals and opens records on this kernel.
fn sealer() -> &'static str {
    let listed = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp").unwrap_or_default();
    let has_tls = listed.split_whitespace().any(|name| name == "tls");
    assert!(has_tls || std::env::var_os(REQUIRED_VARIABLE).is_none(), "this kernel has no TLS, and must");
    if has_tls { "kernel" } else { "server" }
}

fn is_kernels() -> bool {
    sealer() == "kernel"
}

fn connections(metrics: &Metrics, sealer: &str) -> f64 {
    metrics.by_label("tidegate_tls_connections", "records").get(sealer).copied().unwrap_or_default()
}

fn say(client: &mut Client, text: &str) {
    client.send(Message::text(text)).expect("the server reads");
}

fn hear(client: &mut Client) -> String {
    client.read().expect("the server writes").into_text().expect("a text").to_string()
}

fn subscribe(client: &mut Client, channel: &str) {
    say(client, &format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#));
    let reply = hear(client);
    assert!(reply.contains("subscribe"), "{reply}");
}

/// Reads to a close frame and then to the end of the stream, which must not be cut: its code.
fn read_to_end(client: &mut Client) -> u16 {
    let code = loop {
        if let Message::Close(frame) = client.read().expect("a close frame comes first") {
            // RFC 6455 section 7.1.5: a close frame without a code counts as 1005.
            break frame.map_or(1005, |frame| frame.code.into());
        }
    };
    // Answers the close frame.
    let _ = client.flush();
    let rest = client.get_mut().read(&mut [0]);
    assert!(matches!(rest, Ok(0)), "an end that is no cut: {rest:?}");
    code
}

#[test]
fn every_cipher_carries_messages_both_ways() {
    let stage = Stage::new("");
    assert_eq!(DEFAULT_CIPHER_SUITES.len(), 9, "three of TLS 1.3, and of TLS 1.2 three for each kind of certificate");
    for suite in DEFAULT_CIPHER_SUITES.iter().filter(|suite| !format!("{:?}", suite.suite()).contains("RSA")) {
        let mut client = stage.client(&[*suite]);
        for (id, bytes) in (3..).zip([1_usize, 100, 16_000, 17_000, 40_000, 5]) {
            let data = "x".repeat(bytes);
            say(&mut client, &format!(r#"{{"id":{id},"publish":{{"channel":"open:x","data":"{data}"}}}}"#));
            let heard = [hear(&mut client), hear(&mut client)].concat();
            assert!(heard.contains(&data) && heard.contains(r#""publish""#), "{suite:?}: {bytes} bytes");
        }
        client.close(None).expect("the server reads");
        assert_eq!(read_to_end(&mut client), 1005);
        stage.wait_for_records(0);
    }
    assert_eq!(stage.server.metrics().reason("tls_record_invalid"), 0);
    let refusals = stage.server.metrics().sum("tidegate_tls_kernel_refusals_total", &[]);
    assert_eq!(refusals, Some(0.0), "a kernel without TLS is not asked again and again");
    assert_eq!(stage.server.log().contains("this kernel takes no TLS"), !is_kernels());
}

#[test]
fn a_record_in_pieces_is_opened_by_one_of_both() {
    let stage = Stage::new("");
    let mut tls = stage.authority.connection("localhost", &[cipher_suite::TLS13_AES_256_GCM_SHA384]);
    let mut socket = TcpStream::connect(stage.server.client_address()).expect("the server listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    tls.write_tls(&mut socket).expect("the server reads");
    while tls.is_handshaking() {
        tls.read_tls(&mut socket).expect("the server writes");
        tls.process_new_packets().expect("a handshake");
    }
    // The last of the handshake, a whole record, and the first half of another arrive together.
    let request = "GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let (first, second) = request.split_at(30);
    tls.writer().write_all(first.as_bytes()).expect("a buffer");
    tls.writer().write_all(second.as_bytes()).expect("a buffer");
    let mut sealed = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut sealed).expect("a buffer");
    }
    let (first, second) = sealed.split_at(sealed.len() - 50);
    socket.write_all(first).expect("the server reads");
    wait_for("the handshake's end", || {
        (stage.server.metrics().sum("tidegate_tls_handshakes_total", &[]) == Some(1.0)).then_some(())
    });
    assert_eq!(connections(&stage.server.metrics(), "server"), 1.0, "half a record cannot be handed over");
    socket.write_all(second).expect("the server reads");
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\n") {
        tls.read_tls(&mut socket).expect("the server writes");
        tls.process_new_packets().expect("records");
        let _ = tls.reader().read_to_end(&mut response);
    }
    assert!(response.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&response));
    stage.wait_for_records(1);
}

#[test]
fn a_slow_client_gets_everything_in_order() {
    const PUBLICATIONS: u32 = 400;
    let stage = Stage::new(
        "shards.outbox_size_max = \"32MiB\"\nclient.ping_interval = \"10m\"\nclient.pong_timeout = \"5m\"\n",
    );
    let mut client = stage.client(DEFAULT_CIPHER_SUITES);
    let mut producer = Producer::connect(&stage.server);
    let padding = "x".repeat(32 * 1024);
    for number in 0..PUBLICATIONS {
        producer.publish("open:x", &format!(r#"{{"number":{number},"padding":"{padding}"}}"#));
    }
    wait_for("something to wait for the client", || {
        (stage.server.metrics().sum("tidegate_outbox_bytes", &[])? > 0.0).then_some(())
    });
    let mut expected = 0;
    while expected < PUBLICATIONS {
        // One message may hold several.
        for line in hear(&mut client).lines() {
            assert!(line.contains(&format!(r#""number":{expected},"#)), "{expected}: {}", &line[..100]);
            expected += 1;
        }
    }
    wait_for("nothing to wait any more", || {
        (stage.server.metrics().sum("tidegate_outbox_bytes", &[])? == 0.0).then_some(())
    });
    stage.wait_for_records(1);
}

#[test]
fn new_keys_of_a_client_are_taken_or_it_is_sent_back() {
    let stage = Stage::new("");
    let mut client = stage.client(DEFAULT_CIPHER_SUITES);
    client.get_mut().conn.refresh_traffic_keys().expect("TLS 1.3");
    if is_kernels() {
        client.get_mut().flush().expect("the server reads");
        assert_eq!(read_to_end(&mut client), 3011);
        stage.server.wait_until_counted("tls_key_update", 1);
        stage.wait_for_records(0);
    } else {
        say(&mut client, r#"{"id":3,"publish":{"channel":"open:x","data":1}}"#);
        let heard = [hear(&mut client), hear(&mut client)].concat();
        assert!(heard.contains(r#""publish""#), "{heard}");
    }
    assert_eq!(stage.server.metrics().reason("tls_record_invalid"), 0);
}

#[test]
fn an_end_is_heard_behind_data_though_the_stream_stays_open() {
    let stage = Stage::new("");
    let mut client = stage.client(DEFAULT_CIPHER_SUITES);
    let tls = &mut client.get_mut().conn;
    // A frame of a text, with a mask of zeros.
    let text = br#"{"id":3,"publish":{"channel":"open:x","data":1}}"#;
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).expect("it is short"), 0, 0, 0, 0];
    frame.extend_from_slice(text);
    tls.writer().write_all(&frame).expect("a buffer");
    tls.send_close_notify();
    let mut sealed = Vec::new();
    while client.get_mut().conn.wants_write() {
        client.get_mut().conn.write_tls(&mut sealed).expect("a buffer");
    }
    client.get_mut().sock.write_all(&sealed).expect("the server reads");
    stage.wait_for_records(0);
    let published = stage.server.metrics().sum("tidegate_publications_total", &[]);
    assert_eq!(published, Some(1.0), "what came before the end counts");
    let metrics = stage.server.metrics();
    assert_eq!((metrics.reason("tls_peer_alert"), metrics.reason("tls_record_invalid")), (0, 0));
}

#[test]
fn garbage_and_alerts_end_the_connection() {
    let stage = Stage::new("");
    let garbage = [&[0x17, 3, 3, 0, 40][..], &[7; 40]].concat();
    let mut client = stage.client(DEFAULT_CIPHER_SUITES);
    client.get_mut().sock.write_all(&garbage).expect("the server reads");
    stage.server.wait_until_counted("tls_record_invalid", 1);
    let error = client.read().expect_err("nothing but an alert").to_string();
    assert!(error.contains("BadRecordMac") || error.contains("reset"), "{error}");
    stage.wait_for_records(0);

    // The client hears garbage, and says so.
    let mut client = stage.client(DEFAULT_CIPHER_SUITES);
    let stream = client.get_mut();
    stream.conn.read_tls(&mut &garbage[..]).expect("a buffer");
    stream.conn.process_new_packets().expect_err("the server has not sealed it");
    stream.conn.write_tls(&mut stream.sock).expect("the server reads");
    stage.server.wait_until_counted("tls_peer_alert", 1);
    stage.wait_for_records(0);

    let mut client = stage.client(DEFAULT_CIPHER_SUITES);
    let too_long = [&[0x17, 3, 3, 0xff, 0xff][..], &[7; 200]].concat();
    client.get_mut().sock.write_all(&too_long).expect("the server reads");
    stage.server.wait_until_counted("tls_record_invalid", 2);
    stage.wait_for_records(0);
}

#[test]
fn renegotiation_is_refused() {
    let stage = Stage::new("");
    let mut openssl = Command::new("timeout")
        .args(["30", "openssl", "s_client", "-tls1_2", "-connect", &stage.server.client_address().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs; `make test-tools` installs what the tests need");
    stage.wait_for_records(1);
    // A line of only an R asks to negotiate anew.
    openssl.stdin.as_mut().expect("it is piped").write_all(b"R\n").expect("openssl reads");
    stage.server.wait_until_counted("tls_renegotiation", 1);
    stage.wait_for_records(0);
    openssl.wait().expect("it ends");
}

#[test]
fn a_stop_is_told_and_the_stream_ends_uncut() {
    let mut stage = Stage::new("");
    let mut client = stage.client(DEFAULT_CIPHER_SUITES);
    stage.server.terminate();
    assert_eq!(read_to_end(&mut client), 3001);
    assert!(stage.server.wait_for_end(PATIENCE).success());
}

/// Memory of the server's process, and of the kernel for all processes, in bytes.
#[derive(Clone, Copy)]
struct Memory {
    server: f64,
    kernel: f64,
}

impl Memory {
    fn now(server: &Server) -> Self {
        let kib = |file: &str, name: &str| {
            let text = fs::read_to_string(file).expect("procfs is there");
            let line = text.lines().find(|line| line.starts_with(name)).expect("the kernel tells it");
            line.split_whitespace().nth(1).and_then(|number| number.parse::<f64>().ok()).expect("a number")
        };
        Self {
            server: kib(&format!("/proc/{}/status", server.process()), "RssAnon:") * 1024.0,
            kernel: kib("/proc/meminfo", "SUnreclaim:") * 1024.0,
        }
    }

    /// What each of so many clients costs, of whom `open` opens one.
    fn per_client<C>(server: &Server, mut open: impl FnMut() -> C) -> Self {
        // What the first ones need stays.
        let early: Vec<C> = (0..50).map(|_| open()).collect();
        let before = Self::settled(server);
        let clients: Vec<C> = (0..MEASURED_CLIENTS).map(|_| open()).collect();
        let after = Self::settled(server);
        drop((early, clients));
        let per_client = |before, after| (after - before) / f64::from(MEASURED_CLIENTS);
        Self { server: per_client(before.server, after.server), kernel: per_client(before.kernel, after.kernel) }
    }

    fn settled(server: &Server) -> Self {
        thread::sleep(Duration::from_secs(2));
        Self::now(server)
    }
}

#[test]
#[ignore = "measures the memory of a whole machine: make test-kernel-tls runs it alone, in a guest"]
fn an_idle_connection_costs_memory_on_one_side() {
    assert!(is_kernels(), "the guest's kernel has TLS");
    let settings = "client.ping_interval = \"10m\"\nclient.pong_timeout = \"5m\"\nlog.level = \"warn\"\n";
    let plain_server = Server::start(settings);
    let plain = Memory::per_client(&plain_server, || client::Client::anonymous(&plain_server));
    drop(plain_server);
    let mut rows = vec![("no TLS", plain)];
    for (name, kernel, suite) in [
        ("server's records", false, cipher_suite::TLS13_AES_128_GCM_SHA256),
        ("kernel's, AES-128-GCM", true, cipher_suite::TLS13_AES_128_GCM_SHA256),
        ("kernel's, ChaCha20-Poly1305", true, cipher_suite::TLS13_CHACHA20_POLY1305_SHA256),
    ] {
        let authority = Authority::new();
        let own = certificates("client.tls", &[&authority.issue("localhost")]);
        let server = Server::start(&format!("{own}client.tls.kernel = {kernel}\n{settings}"));
        let memory = Memory::per_client(&server, || authority.client_with(&server, "localhost", &[suite]));
        let by_kernel = connections(&server.metrics(), "kernel");
        assert!((by_kernel > 0.0) == kernel || by_kernel == 0.0, "{name}: {by_kernel}");
        rows.push((name, memory));
    }
    println!("bytes per idle client     server  kernel (both ends)");
    for (name, memory) in &rows {
        println!("{name:28} {:6.0} {:7.0}", memory.server, memory.kernel);
    }
    let [plain, by_server, by_kernel, ..] = rows[..] else { unreachable!("four rows") };
    let extra = |memory: Memory| (memory.server - plain.1.server, memory.kernel - plain.1.kernel);
    let ((server_user, server_kernel), (kernel_user, kernel_kernel)) = (extra(by_server.1), extra(by_kernel.1));
    assert!((150.0..600.0).contains(&server_user) && server_kernel < 200.0, "{server_user} {server_kernel}");
    assert!(kernel_user < 60.0 && kernel_kernel > 1_000.0, "{kernel_user} {kernel_kernel}");
}
