//! What clients get wrong, over real sockets: each mistake has its clear answer, is counted by its reason, and leaves
//! every other connection untouched. Limits and deadlines, too.

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    PATIENCE,
    bystander::Bystander,
    client::{Client, PATH, now_s, token},
    http::{self, Response},
    server::{Launch, Server},
    wait_for,
};

/// Header fields of a correct upgrade.
const UPGRADE: &[(&str, &str)] = &[
    ("Host", "localhost"),
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[test]
fn wrong_requests_are_answered_with_their_status() {
    let server = Server::start("");
    let mut bystander = Bystander::new(&server);
    let without = |name: &str| request("GET", PATH, &fields(&[], &[name]));
    let with = |field: (&str, &str)| request("GET", PATH, &fields(&[field], &[]));
    let cases: Vec<(&str, String, u16, &str)> = vec![
        ("no HTTP at all", "\x16\x03\x01 hello\r\n\r\n".to_owned(), 400, "request_malformed"),
        ("a path that is not served", request("GET", "/elsewhere", UPGRADE), 404, "path_unknown"),
        ("another method", request("POST", PATH, UPGRADE), 405, "method_not_allowed"),
        ("no upgrade", without("Upgrade"), 400, "not_an_upgrade"),
        ("no connection header", without("Connection"), 400, "not_an_upgrade"),
        ("another upgrade", with(("Upgrade", "h2c")), 400, "not_an_upgrade"),
        ("no version", without("Sec-WebSocket-Version"), 426, "websocket_version_unsupported"),
        ("a wrong version", with(("Sec-WebSocket-Version", "8")), 426, "websocket_version_unsupported"),
        ("no key", without("Sec-WebSocket-Key"), 400, "websocket_key_missing"),
        ("a key of another length", with(("Sec-WebSocket-Key", "c2hvcnQ=")), 400, "websocket_key_invalid"),
        ("an origin that is not allowed", with(("Origin", "https://elsewhere.example")), 403, "origin_forbidden"),
        ("an oversized head", with(("Cookie", &"x".repeat(16 * 1024))), 431, "request_head_too_large"),
        ("an endless line", format!("GET /{}", "a".repeat(16 * 1024)), 431, "request_head_too_large"),
        ("a hundred header fields", with(("Cookie", &"x\r\nCookie: x".repeat(100))), 431, "request_headers_too_many"),
    ];
    for (index, (case, request, status, reason)) in cases.iter().enumerate() {
        let earlier = cases[..index].iter().filter(|(_, _, _, other)| other == reason).count();
        let response = ask(&server, request.as_bytes());
        assert_eq!(response.status, *status, "{case}: {}", response.head);
        server.wait_until_counted(reason, earlier as u64 + 1);
        bystander.assert_untouched();
    }
}

#[test]
fn a_correct_request_is_upgraded() {
    let server = Server::start("");
    let response = ask(&server, request("GET", PATH, UPGRADE).as_bytes());
    assert_eq!(response.status, 101, "{}", response.head);
    // The example of RFC 6455 section 1.3.
    assert!(response.head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{}", response.head);
}

#[test]
fn wrong_frames_are_closed_with_their_code() {
    let server = Server::start("");
    let mut bystander = Bystander::new(&server);
    let over_limit = 64 * 1024 + 1;
    let cases: &[(&str, Vec<u8>, u16, &str)] = &[
        ("an unmasked frame", vec![0x81, 0x02, b'{', b'}'], 1002, "unmasked_frame"),
        ("a reserved bit", frame(0xC1, b"{}"), 1002, "reserved_bit"),
        ("a reserved opcode", frame(0x83, b"{}"), 1002, "reserved_opcode"),
        ("a reserved control opcode", frame(0x8B, b""), 1002, "reserved_opcode"),
        ("a fragmented ping", frame(0x09, b""), 1002, "control_fragmented"),
        ("an oversized ping", frame(0x89, &[b'x'; 126]), 1002, "control_too_long"),
        ("a continuation of nothing", frame(0x80, b"{}"), 1002, "continuation_unexpected"),
        ("a text inside a text", [frame(0x01, b"{"), frame(0x81, b"}")].concat(), 1002, "continuation_expected"),
        ("invalid UTF-8", frame(0x81, b"\"\xff\""), 1007, "text_not_utf8"),
        ("UTF-8 that breaks off", [frame(0x01, b"\"\xe2\x82"), frame(0x80, b"\"")].concat(), 1007, "text_not_utf8"),
        ("a message over the limit", frame(0x81, &vec![b' '; over_limit]), 1009, "message_too_large"),
        (
            "fragments over the limit",
            [frame(0x01, &vec![b' '; over_limit / 2]), frame(0x80, &vec![b' '; over_limit / 2 + 1])].concat(),
            1009,
            "message_too_large",
        ),
        ("half a close code", frame(0x88, b"\x03"), 1002, "close_truncated"),
        ("a close code that nobody may send", frame(0x88, b"\x03\xed"), 1002, "close_code_invalid"),
    ];
    for (index, (case, bytes, code, reason)) in cases.iter().enumerate() {
        let earlier = cases[..index].iter().filter(|(_, _, _, other)| other == reason).count();
        let mut client = Client::anonymous(&server);
        client.send_raw(bytes);
        let (closed_with, text) = client.close_frame();
        assert_eq!(closed_with, *code, "{case}: {text}");
        client.assert_ends();
        server.wait_until_counted(reason, earlier as u64 + 1);
        bystander.assert_untouched();
    }
}

#[test]
fn wrong_compressed_frames_are_closed_with_their_code() {
    let server = Server::start("[[channel.namespaces]]\nname = \"packed\"\ncompression = \"single\"");
    let mut bystander = Bystander::new(&server);
    let offer = |offer| request("GET", PATH, &fields(&[("Sec-WebSocket-Extensions", offer)], &[]));
    let refused = ask(&server, offer("permessage-deflate; a=\"1").as_bytes());
    assert_eq!(refused.status, 400, "{}", refused.head);
    server.wait_until_counted("websocket_extensions_invalid", 1);
    let declined = ask(&server, offer("permessage-deflate; server_max_window_bits").as_bytes());
    assert_eq!(declined.status, 101);
    assert!(!declined.head.contains("Sec-WebSocket-Extensions"), "{}", declined.head);

    // Four megabytes of spaces, in four kilobytes.
    let bomb = deflated(&vec![b' '; 4 * 1024 * 1024]);
    let cases: &[(&str, Vec<u8>, u16, &str)] = &[
        ("a compressed ping", frame(0xC9, b""), 1002, "compressed_bit_misplaced"),
        ("another reserved bit", frame(0xE1, b"\x00"), 1002, "reserved_bit"),
        ("what no compressor writes", frame(0xC1, b"\x06"), 1007, "deflate_invalid"),
        ("a message that is cut off", frame(0xC1, &deflated(&[b' '; 100])[..3]), 1007, "deflate_unfinished"),
        ("invalid UTF-8 within", frame(0xC1, &deflated(b"\"\xff\"")), 1007, "text_not_utf8"),
        ("a bomb", frame(0xC1, &bomb), 1009, "message_too_large"),
    ];
    for (case, bytes, code, reason) in cases {
        let mut stream = connect(&server);
        stream.write_all(offer("permessage-deflate").as_bytes()).expect("the server reads");
        let response = http::read_response(&mut stream).expect("an answer");
        assert!(response.head.contains("permessage-deflate; client_no_context_takeover"), "{}", response.head);
        let connect = deflated(b"{\"id\":1,\"connect\":{}}");
        stream.write_all(&[frame(0xC1, &connect), bytes.clone()].concat()).expect("the server reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the server ends the connection");
        assert!(answer.starts_with(b"\x81"), "{case}: the connect command is answered");
        let close = [&[0x88][..], &code.to_be_bytes()]
            .map(|bytes| answer.windows(bytes.len()).rposition(|window| window == bytes));
        assert!(matches!(close, [Some(opcode), Some(code)] if opcode + 2 == code), "{case}: {}", answer.escape_ascii());
        server.wait_until_counted(reason, 1);
        bystander.assert_untouched();
    }
}

#[test]
fn correct_frames_of_every_kind_are_understood() {
    let server = Server::start("");
    let mut client = Client::upgraded(&server);
    let connect = "{\"id\":1,\"connect\":{\"data\":{\"word\":\"\u{20ac}\"}}}";
    let middle = connect.find('\u{20ac}').expect("it is there") + 1;
    // One message in three fragments, cut inside a character, with a ping and an empty fragment between.
    let frames = [
        frame(0x01, &connect.as_bytes()[..middle]),
        frame(0x89, b"between"),
        frame(0x00, b""),
        frame(0x80, &connect.as_bytes()[middle..]),
    ];
    // Byte by byte: nothing may depend on how the network cuts.
    for byte in frames.concat() {
        client.send_raw(&[byte]);
    }
    assert_eq!(client.next_frame(), tungstenite::Message::Pong("between".into()));
    let reply: Value = serde_json::from_str(client.next_frame().to_text().expect("a text")).expect("JSON");
    assert!(reply["connect"]["client"].is_string(), "{reply}");

    client.send_raw(&frame(0x88, b"\x03\xe8bye"));
    let (code, _) = client.close_frame();
    assert_eq!(code, 1000, "a close frame is answered with its own code");
    client.assert_ends();
}

#[test]
fn wrong_messages_are_closed_with_their_code() {
    let server = Server::start("");
    let mut bystander = Bystander::new(&server);
    let for_a_channel = token(&json!({ "sub": "42", "channel": "open:a" }));
    let foreign = foreign_token();
    let connect = |token: &str| json!({ "id": 1, "connect": { "token": token } }).to_string();
    // Before a connect command.
    let cases: &[(&str, &str, u16)] = &[
        ("malformed JSON", "{\"id\":1,", 3501),
        ("JSON that is no object", "[1]", 3501),
        ("an empty message", "", 3501),
        ("a command before connect", "{\"id\":1,\"subscribe\":{\"channel\":\"open:a\"}}", 3501),
        ("a connect without an id", "{\"connect\":{}}", 3501),
        ("a garbled token", &connect("garbled"), 3500),
        ("a token signed by someone else", &connect(&foreign), 3500),
        ("a subscription token", &connect(&for_a_channel), 3500),
    ];
    for (case, message, code) in cases {
        let mut client = Client::upgraded(&server);
        client.send(message);
        assert_closed(&mut client, case, *code);
        bystander.assert_untouched();
    }
    // After it.
    let cases: &[(&str, &str, u16)] = &[
        ("malformed JSON", "nonsense", 3501),
        ("a blank line between commands", "{}\n\n{}", 3501),
        ("a command without a method", "{\"id\":7}", 3501),
        ("an unknown method", "{\"id\":7,\"dance\":{}}", 3501),
        ("a second connect", "{\"id\":7,\"connect\":{}}", 3501),
        ("a pong that nobody asked for", "{}", 3501),
        ("a subscribe without a channel", "{\"id\":7,\"subscribe\":{}}", 3501),
        ("a message that nobody handles", "{\"send\":{\"data\":{}}}", 3508),
    ];
    for (case, message, code) in cases {
        let mut client = Client::anonymous(&server);
        client.send(message);
        assert_closed(&mut client, case, *code);
        bystander.assert_untouched();
    }
    let metrics = server.metrics();
    for reason in
        ["command_malformed", "command_unknown", "command_before_connect", "token_invalid", "send_unavailable"]
    {
        assert!(metrics.reason(reason) > 0, "no `{reason}` among the reasons");
    }
}

#[test]
fn refused_commands_are_answered_with_their_error() {
    let server = Server::start("client.channels_max = 4");
    let mut bystander = Bystander::new(&server);
    let mut client = Client::anonymous(&server);
    client.subscribe("open:one");
    let long = format!("open:{}", "x".repeat(300));
    let cases: &[(&str, &str, Value, u64)] = &[
        ("an unknown namespace", "subscribe", json!({ "channel": "nowhere:a" }), 102),
        ("a channel without a namespace", "subscribe", json!({ "channel": "bare" }), 103),
        ("a forbidden channel", "subscribe", json!({ "channel": "closed:a" }), 103),
        ("a channel for users only", "subscribe", json!({ "channel": "users:a" }), 103),
        ("a private channel", "subscribe", json!({ "channel": "$open:a" }), 103),
        ("a second subscription", "subscribe", json!({ "channel": "open:one" }), 105),
        ("a name that is too long", "subscribe", json!({ "channel": long }), 107),
        ("a publication that is not allowed", "publish", json!({ "channel": "kept:a", "data": {} }), 103),
        ("a publication into nowhere", "publish", json!({ "channel": "nowhere:a", "data": {} }), 102),
        ("a publication of nothing", "publish", json!({ "channel": "open:one" }), 107),
        ("a procedure call", "rpc", json!({ "method": "m", "data": {} }), 108),
    ];
    for (case, method, request, code) in cases {
        let reply = client.command(method, request.clone());
        assert_eq!(reply["error"]["code"], *code, "{case}: {reply}");
        assert!(reply["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{case}: {reply}");
        bystander.assert_untouched();
    }
    for number in 2..=4 {
        client.subscribe(&format!("open:{number}"));
    }
    let reply = client.command("subscribe", json!({ "channel": "open:5" }));
    assert_eq!(reply["error"]["code"], 106, "too many channels: {reply}");
    bystander.assert_untouched();

    let mut client = Client::upgraded(&server);
    let reply = client.command("connect", json!({ "token": token(&json!({ "sub": "42", "exp": now_s() - 3600 })) }));
    assert_eq!(reply["error"]["code"], 109, "an expired token: {reply}");
    bystander.assert_untouched();
    for reason in ["channel_unknown", "permission_denied", "already_subscribed", "channels_too_many", "token_expired"] {
        server.wait_until_counted(reason, 1);
    }
}

#[test]
fn a_client_without_a_token_needs_leave() {
    let server = Server::start("client.allow_anonymous = false");
    let mut client = Client::upgraded(&server);
    client.send("{\"id\":1,\"connect\":{}}");
    assert_closed(&mut client, "no credentials", 3501);
    let _user = Client::user(&server, "42");
}

#[test]
fn a_head_that_does_not_come_ends_at_its_deadline() {
    let server = Server::start("client.request_head_timeout = \"500ms\"");
    let mut bystander = Bystander::new(&server);
    let began = Instant::now();
    let mut silent = connect(&server);
    let mut slow = connect(&server);
    slow.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").expect("the server reads");
    for stream in [&mut silent, &mut slow] {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the server ends the connection");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(400) && took < Duration::from_secs(5), "{took:?}");
    server.wait_until_counted("request_head_timeout", 2);
    bystander.assert_untouched();
}

#[test]
fn a_connect_command_that_does_not_come_ends_at_its_deadline() {
    let server = Server::start("client.connect_timeout = \"500ms\"");
    let mut bystander = Bystander::new(&server);
    let mut client = Client::upgraded(&server);
    assert_closed(&mut client, "no connect command", 3502);
    server.wait_until_counted("stale", 1);
    bystander.assert_untouched();
}

#[test]
fn a_client_that_answers_no_ping_is_closed() {
    let server =
        Server::start("client.ping_interval = \"1s\"\nclient.pong_timeout = \"500ms\"\nclient.pong_grace = \"0s\"");
    let mut client = Client::anonymous(&server);
    let (code, reason) = client.close_frame();
    assert_eq!((code, reason.as_str()), (3012, "no pong"));
    server.wait_until_counted("no_pong", 1);
}

#[test]
fn pings_are_spread_and_answered_clients_stay() {
    let server =
        Server::start("client.ping_interval = \"1s\"\nclient.pong_timeout = \"500ms\"\nclient.pong_grace = \"0s\"");
    let mut bystander = Bystander::new(&server);
    // The bystander's client answers pings as it reads; five pings pass by.
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        bystander.assert_untouched();
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(server.metrics().sum("tidegate_pings_sent_total", &[]).expect("a metric") >= 4.0);
    assert_eq!(server.metrics().reason("no_pong"), 0);
}

#[test]
fn a_token_that_runs_out_ends_its_connection() {
    let server = Server::start("client.expired_grace = \"0s\"");
    let mut client = Client::upgraded(&server);
    client.command("connect", json!({ "token": token(&json!({ "sub": "42", "exp": now_s() + 2 })) }));
    assert_closed(&mut client, "an expired token", 3005);
}

#[test]
fn a_flood_of_connections_is_refused_beyond_the_total() {
    const CONNECTIONS_MAX: usize = 16;
    let server = Server::start(&format!("client.connections_max = {CONNECTIONS_MAX}"));
    let mut bystander = Bystander::new(&server);
    let mut held: Vec<TcpStream> = (1..CONNECTIONS_MAX).map(|_| connect(&server)).collect();
    for stream in &mut held {
        stream.write_all(request("GET", PATH, UPGRADE).as_bytes()).expect("the server reads");
        assert_eq!(http::read_response(stream).expect("an answer").status, 101);
    }
    for _ in 0..3 {
        let response = ask(&server, request("GET", PATH, UPGRADE).as_bytes());
        assert_eq!(response.status, 503, "{}", response.head);
    }
    server.wait_until_counted("connections_exhausted", 3);
    bystander.assert_untouched();
    held.clear();
    wait_for("a place that has become free", || {
        (ask(&server, request("GET", PATH, UPGRADE).as_bytes()).status == 101).then_some(())
    });
}

#[test]
fn descriptors_that_run_out_pause_the_accepting() {
    const DESCRIPTORS_MAX: u32 = 256;
    let server = Server::launch(Launch { descriptors_max: Some(DESCRIPTORS_MAX), ..Launch::default() });
    let mut bystander = Bystander::new(&server);
    // The kernel completes these connections; the server has no descriptors for the last of them.
    let mut held: Vec<TcpStream> = (0..DESCRIPTORS_MAX).map(|_| connect(&server)).collect();
    let pauses = || server.log().matches("accepting pauses").count();
    wait_for("the server says that it pauses", || (pauses() > 0).then_some(()));
    server.wait_until_counted("descriptors_exhausted", 1);
    bystander.assert_untouched();
    // It goes on trying, without a word more.
    server.wait_until_counted("descriptors_exhausted", 3);
    let shards = server.metrics().by_label("tidegate_connections", "shard").len();
    assert!(pauses() <= shards, "each shard says so once:\n{}", server.log());
    held.clear();
    wait_for("accepting goes on", || {
        let mut stream = connect(&server);
        stream.write_all(request("GET", PATH, UPGRADE).as_bytes()).ok()?;
        http::read_response(&mut stream).ok().filter(|response| response.status == 101)
    });
    let mut late = Client::anonymous(&server);
    late.subscribe("open:late");
    bystander.assert_untouched();
}

fn assert_closed(client: &mut Client, case: &str, code: u16) {
    let (closed_with, reason) = client.close_frame();
    assert_eq!(closed_with, code, "{case}: {reason}");
    assert!(!reason.is_empty(), "{case}: a close frame says why (an SDK takes silence for leave to return)");
    client.assert_ends();
}

/// The fields of a correct upgrade, some replaced or added, some left out.
fn fields<'a>(with: &[(&'a str, &'a str)], without: &[&str]) -> Vec<(&'a str, &'a str)> {
    let kept = UPGRADE.iter().copied();
    let kept = kept.filter(|(name, _)| !without.contains(name) && !with.iter().any(|(other, _)| other == name));
    kept.chain(with.iter().copied()).collect()
}

fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> String {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\n{fields}\r\n")
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.client_address()).expect("the client port accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream
}

fn ask(server: &Server, request: &[u8]) -> Response {
    let mut stream = connect(server);
    // A server may answer and reset before it has read a request to its end.
    let _ = stream.write_all(request);
    http::read_response(&mut stream).expect("an answer")
}

/// A client's frame: its first byte as given, its payload masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A message as a client compresses it.
fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut compress = flate2::Compress::new(flate2::Compression::best(), false);
    let mut message = Vec::with_capacity(payload.len() + 1024);
    compress.compress_vec(payload, &mut message, flate2::FlushCompress::Sync).expect("there is room");
    message.strip_suffix(&[0x00, 0x00, 0xff, 0xff]).expect("a flush").to_vec()
}

fn foreign_token() -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(b"a secret of someone else, who has none of ours");
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &json!({ "sub": "42" }), &key).expect("claims can be signed")
}
