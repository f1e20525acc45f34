//! Compression: when it is agreed on, and what clients compress.

use std::sync::Arc;

use super::{
    client, config,
    recorder::{Client, HEAD, masked},
    rules,
};
use crate::{
    config::{CompressionMode, Namespace},
    fanout::{Carrier, Form},
    protocol::{Encoding, Shape},
    session::{Flow, Reason},
    websocket::deflate::{Deflater, Deflation, Window},
};

/// What browsers offer.
const BROWSER: &str = "permessage-deflate; client_max_window_bits";

/// A client of a server with a namespace that compresses.
fn compressing() -> Client {
    let mut config = config();
    let mut namespace = Namespace { name: "z".to_owned(), ..Namespace::default() };
    namespace.compression.mode = CompressionMode::Single;
    config.namespaces.by_name.push(Arc::new(namespace));
    Client::new(rules(config))
}

/// Upgrades with this offer: the field by which it is answered.
fn offer(client: &mut Client, head: &str, offer: &str) -> Option<String> {
    let head = head.replace("Host:", &format!("Sec-WebSocket-Extensions: {offer}\r\nHost:"));
    assert_eq!(client.send(head.as_bytes()), Flow::Continue);
    let answer = client.text();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    answer.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: ")).map(str::to_owned)
}

/// A client that compresses, and is connected.
fn connected() -> Client {
    let mut client = compressing();
    assert!(offer(&mut client, HEAD, BROWSER).is_some());
    assert_eq!(client.ask(r#"{"id":1,"connect":{}}"#).len(), 1);
    client
}

fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    Deflater::default().begin(Window::KiB32, &[]).compress(payload, &mut message);
    message
}

#[test]
fn it_is_agreed_on_where_a_namespace_compresses() {
    assert_eq!(offer(&mut client(), HEAD, BROWSER), None);
    let mut client = compressing();
    let answer = offer(&mut client, HEAD, BROWSER);
    assert_eq!(answer.as_deref(), Some("permessage-deflate; client_no_context_takeover"));
    let deflation = Deflation { window: Window::KiB32, keeps_context: true };
    let form = Form::new(Encoding::Json, Shape::Bidirectional, Carrier::WebSocket).with_deflation(deflation);
    assert_eq!(client.shard.form, form);

    let mut client = compressing();
    assert_eq!(offer(&mut client, HEAD, "permessage-deflate; server_max_window_bits=7, x-other"), None);
    assert_eq!(client.shard.form.deflation(), None);
}

#[test]
fn it_is_agreed_on_with_clients_of_every_form() {
    let mut client = compressing();
    let one_way = HEAD.replace("/connection/websocket", "/connection/uni_websocket");
    let narrow = "permessage-deflate; server_no_context_takeover; server_max_window_bits=11";
    assert!(offer(&mut client, &one_way, narrow).is_some_and(|answer| answer.ends_with("server_max_window_bits=10")));
    let deflation = Deflation { window: Window::KiB1, keeps_context: false };
    assert!(client.shard.form.is_one_way());
    assert_eq!(client.shard.form.deflation(), Some(deflation));
    assert_eq!(client.send(&masked(0xc1, &deflated(b"{}"))), Flow::Continue);
    assert!(client.shard.calls[0].starts_with("connect"));

    let mut client = compressing();
    let protobuf = HEAD.replace("Host:", "Sec-WebSocket-Protocol: centrifuge-protobuf\r\nHost:");
    assert!(offer(&mut client, &protobuf, BROWSER).is_some());
    assert_eq!(client.shard.form.encoding(), Encoding::Protobuf);
    assert_eq!(client.send(&masked(0xc2, &deflated(&[4, 0x08, 1, 0x22, 0]))), Flow::Continue);
    assert!(client.shard.calls[0].starts_with("connect"));
}

#[test]
fn compressed_commands_are_carried_out() {
    let mut client = connected();
    let data = "0123456789".repeat(300);
    let subscribe = r#"{"id":2,"subscribe":{"channel":"open:a"}}"#;
    let publish = format!(r#"{{"id":3,"publish":{{"channel":"open:a","data":"{data}"}}}}"#);
    let message = deflated(format!("{subscribe}\n{publish}").as_bytes());
    assert!(message.len() < 200);
    let (first, second) = message.split_at(message.len() / 2);
    let frames = [masked(0x41, first), masked(0x89, b"between"), masked(0x80, second)].concat();
    assert_eq!(client.send(&frames), Flow::Continue);
    assert_eq!(client.frames(), ["pong between", r#"{"id":2,"subscribe":{}}"#, r#"{"id":3,"publish":{}}"#]);
    assert_eq!(client.shard.calls.last(), Some(&format!(r#"publish open:a \"{data}\""#)));
    // A pong may be compressed, too, and a message may come as it is.
    client.ping();
    assert_eq!(client.send(&masked(0xc1, &deflated(b"{}"))), Flow::Continue);
    assert!(!client.session.awaiting_pong());
    assert_eq!(client.frames(), ["{}"]);
    assert_eq!(client.ask(r#"{"id":4,"unsubscribe":{"channel":"open:a"}}"#).len(), 1);
    assert!(client.transient.is_none(), "an idle client keeps nothing of it");
}

#[test]
fn what_is_wrong_with_a_compressed_message_ends_the_connection() {
    let closed = |bytes: &[u8], close: &str, reason: Reason| {
        let mut client = connected();
        assert_eq!(client.send(bytes), Flow::Closing, "{reason:?}");
        let frames = client.frames();
        assert!(frames.last().is_some_and(|last| last.starts_with(close)), "{reason:?}: {frames:?}");
        assert_eq!(client.shard.counted, [reason]);
    };
    closed(&masked(0xc9, b""), "close 1002 ", Reason::CompressedBitMisplaced);
    closed(&[masked(0x41, b"\x00"), masked(0xc0, b"")].concat(), "close 1002 ", Reason::CompressedBitMisplaced);
    closed(&masked(0xa1, b"\x00"), "close 1002 ", Reason::ReservedBit);
    closed(&masked(0xc1, b"\x06"), "close 1007 ", Reason::DeflateInvalid);
    closed(&masked(0xc1, b""), "close 1007 ", Reason::DeflateUnfinished);
    closed(&masked(0xc1, &deflated(b"\"\xff\"")), "close 1007 ", Reason::TextNotUtf8);
    closed(&masked(0xc1, &deflated(&[b' '; 65_537])), "close 1009 ", Reason::MessageTooLarge);
    closed(&masked(0xc1, &deflated(b"?")), "close 3501 bad request", Reason::CommandMalformed);
}
