//! What clients send wrong: each mistake has its answer, its counted reason, and its end.

use super::{
    client, config,
    recorder::{Client, HEAD, masked},
    rules,
};
use crate::session::{Flow, Phase, Reason};

/// Sends a request head and expects an HTTP answer.
fn refused(head: &str, status: u16, reason: Reason) {
    let mut client = client();
    assert_eq!(client.send(head.as_bytes()), Flow::Closing, "{head}");
    let answer = String::from_utf8(std::mem::take(&mut client.shard.output)).expect("text");
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}\n{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n") || status == 426, "{answer}");
    assert!(
        answer.trim_end().len() > answer.find("\r\n\r\n").expect("a head") + 4,
        "a body says what is wrong: {answer}"
    );
    assert_eq!(client.shard.counted, [reason]);
    assert_eq!(client.session.phase(), Phase::Ended);
    assert_eq!(client.send(HEAD.as_bytes()), Flow::Continue, "what follows has no meaning");
    assert!(client.shard.output.is_empty() && client.transient.is_none());
}

#[test]
fn request_heads() {
    let without =
        |field: &str| HEAD.split_inclusive("\r\n").filter(|line| !line.starts_with(field)).collect::<String>();
    refused(&without("Upgrade"), 400, Reason::NotAnUpgrade);
    refused(&without("Connection"), 400, Reason::NotAnUpgrade);
    refused(&without("Host"), 400, Reason::HostInvalid);
    refused(&without("Sec-WebSocket-Key"), 400, Reason::WebsocketKeyMissing);
    refused(&without("Sec-WebSocket-Version"), 426, Reason::WebsocketVersionUnsupported);
    refused(&HEAD.replace("Version: 13", "Version: 8"), 426, Reason::WebsocketVersionUnsupported);
    refused(&HEAD.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400, Reason::WebsocketKeyInvalid);
    let unreadable = HEAD.replace("Host:", "Sec-WebSocket-Extensions: permessage-deflate;\r\nHost:");
    refused(&unreadable, 400, Reason::WebsocketExtensionsInvalid);
    refused(&HEAD.replace("GET", "POST"), 405, Reason::MethodNotAllowed);
    refused(&HEAD.replace("HTTP/1.1", "HTTP/1.0"), 505, Reason::HttpVersionUnsupported);
    refused("\x16\x03\x01\x02\0\x01\0\x01", 400, Reason::RequestMalformed);
    refused(&HEAD.replace("Host:", "Host: a\r\nHost:"), 400, Reason::RequestHeaderRepeated);
    refused(&HEAD.replace("Host:", "Content-Length: 3\r\nHost:"), 400, Reason::RequestBodyPresent);
    refused(&HEAD.replace("Host:", "Content-Length: +3\r\nHost:"), 400, Reason::RequestBodyLengthInvalid);
    refused("GET /connection/websocket HTTP/1.1\r\nHost: a\r\n\r\n", 400, Reason::NotAnUpgrade);
    refused(&HEAD.replace("/connection/websocket", "/#x"), 400, Reason::RequestTargetInvalid);
    refused(&HEAD.replace("Host:", &"A: b\r\nHost:".repeat(70)), 431, Reason::RequestHeadersTooMany);
    refused(&HEAD.replace("Host:", &format!("A: {}\r\nHost:", "b".repeat(9_000))), 431, Reason::RequestHeadTooLarge);
}

#[test]
fn requests_for_what_is_not_here() {
    refused(&HEAD.replace("/connection/websocket", "/"), 404, Reason::PathUnknown);
    refused("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 404, Reason::PathUnknown);
    refused("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", 404, Reason::PathUnknown);
    refused(&HEAD.replace("Host:", "Origin: https://evil.example\r\nHost:"), 403, Reason::OriginForbidden);
    refused(&HEAD.replace("Host:", "Origin: null\r\nHost:"), 403, Reason::OriginForbidden);
}

#[test]
fn an_endless_head_is_refused_and_not_kept() {
    let mut client = client();
    assert_eq!(client.send(b"GET /connection/websocket HTTP/1.1\r\nA: "), Flow::Continue);
    let mut flow = Flow::Continue;
    for _ in 0..200 {
        flow = client.send(&[b'b'; 100]);
        if flow != Flow::Continue {
            break;
        }
    }
    assert_eq!(flow, Flow::Closing);
    assert_eq!(client.shard.counted, [Reason::RequestHeadTooLarge]);
    assert!(client.transient.is_none());
}

/// Sends bytes behind a completed connect and expects a close frame.
fn closed(bytes: &[u8], close: &str, reason: Reason) {
    let mut client = client();
    client.connect();
    assert_eq!(client.send(bytes), Flow::Closing, "{close}");
    let frames = client.frames();
    assert!(frames.last().is_some_and(|last| last.starts_with(close)), "{close}: {frames:?}");
    assert_eq!(client.shard.counted, [reason]);
    assert!(client.session.is_closing());
}

#[test]
fn frames() {
    let with_length = |first: u8, length: &[u8]| [&[first], length, &[0; 4]].concat();
    closed(&[0x81, 0x02, b'{', b'}'], "close 1002 ", Reason::UnmaskedFrame);
    closed(&masked(0xc1, b"{}"), "close 1002 ", Reason::ReservedBit);
    closed(&masked(0xa1, b"{}"), "close 1002 ", Reason::ReservedBit);
    closed(&masked(0x83, b"{}"), "close 1002 ", Reason::ReservedOpcode);
    closed(&masked(0x8b, b""), "close 1002 ", Reason::ReservedOpcode);
    closed(&masked(0x09, b""), "close 1002 ", Reason::ControlFragmented);
    closed(&masked(0x89, &[0; 126]), "close 1002 ", Reason::ControlTooLong);
    closed(&masked(0x80, b"{}"), "close 1002 ", Reason::ContinuationUnexpected);
    closed(&[masked(0x01, b"{"), masked(0x81, b"}")].concat(), "close 1002 ", Reason::ContinuationExpected);
    closed(&with_length(0x81, &[0xfe, 0, 5]), "close 1002 ", Reason::LengthNotMinimal);
    closed(&with_length(0x81, &[0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]), "close 1002 ", Reason::LengthTopBit);
    closed(&masked(0x88, b"x"), "close 1002 ", Reason::CloseTruncated);
    closed(&masked(0x88, &1006_u16.to_be_bytes()), "close 1002 ", Reason::CloseCodeInvalid);
    closed(&masked(0x88, b"\x03\xe8\xff"), "close 1007 ", Reason::CloseReasonNotUtf8);
}

#[test]
fn messages() {
    closed(&masked(0x81, &[b' '; 65_537]), "close 1009 ", Reason::MessageTooLarge);
    let in_pieces = [masked(0x01, &[b' '; 40_000]), masked(0x80, &[b' '; 40_000])].concat();
    closed(&in_pieces, "close 1009 ", Reason::MessageTooLarge);
    let only_header = [&[0x81, 0xff], &(1_u64 << 40).to_be_bytes()[..], &[0; 4]].concat();
    closed(&only_header, "close 1009 ", Reason::MessageTooLarge);
    closed(&masked(0x81, b"\"\xc3\x28\""), "close 1007 ", Reason::TextNotUtf8);
    closed(&[masked(0x01, b"\"\xc3"), masked(0x80, b"\x28\"")].concat(), "close 1007 ", Reason::TextNotUtf8);
    closed(&[masked(0x01, b"\"\xc3"), masked(0x80, b"")].concat(), "close 1007 ", Reason::TextNotUtf8);
}

#[test]
fn commands_that_end_the_connection() {
    let ended = |command: &str, close, reason| closed(&masked(0x81, command.as_bytes()), close, reason);
    for malformed in ["", "\n", "{", "[]", "7", "{}{}", "{\"id\":-1}", "{\"id\":2,\"rpc\":[]}", "\u{0}"] {
        ended(malformed, "close 3501 bad request", Reason::CommandMalformed);
    }
    ended(r#"{"id":2}"#, "close 3501 bad request", Reason::CommandUnknown);
    ended(r#"{"id":2,"dance":{}}"#, "close 3501 bad request", Reason::CommandUnknown);
    ended(r#"{"id":2,"ping":{}}"#, "close 3501 bad request", Reason::CommandUnknown);
    ended(r#"{"id":2,"connect":{}}"#, "close 3501 bad request", Reason::ConnectTwice);
    ended(r#"{"id":2,"subscribe":{}}"#, "close 3501 bad request", Reason::CommandIncomplete);
    ended(r#"{"id":2,"unsubscribe":{}}"#, "close 3501 bad request", Reason::CommandIncomplete);
    ended(r#"{"id":2,"publish":{"data":1}}"#, "close 3501 bad request", Reason::CommandIncomplete);
    ended(r#"{"id":2,"history":{}}"#, "close 3501 bad request", Reason::CommandIncomplete);
    ended(r#"{"id":2,"refresh":{}}"#, "close 3501 bad request", Reason::CommandIncomplete);
    ended(r#"{"id":2,"refresh":{"token":"t"}}"#, "close 3500 invalid token", Reason::TokenInvalid);
    ended(r#"{"id":2,"subscribe":{"channel":"a","delta":"x"}}"#, "close 3501 bad request", Reason::CommandInvalid);
    ended(r#"{"send":{"data":1}}"#, "close 3508 not available", Reason::SendUnavailable);
    ended("{}", "close 3501 bad request", Reason::PongUnexpected);
    ended(r#"{"subscribe":{"channel":"open:a"}}"#, "close 3501 bad request", Reason::PongUnexpected);
}

#[test]
fn commands_before_the_mistake_are_answered() {
    let mut client = client();
    client.connect();
    let message = "{\"id\":2,\"subscribe\":{\"channel\":\"open:a\"}}\n{\"id\":3,\"publish\":{\"channel\":\"open:a\",\"data\":1}}\n?\n{\"id\":4,\"rpc\":{}}";
    assert_eq!(client.say(message), Flow::Closing);
    let frames = client.frames();
    assert_eq!(frames, [r#"{"id":2,"subscribe":{}}"#, r#"{"id":3,"publish":{}}"#, "close 3501 bad request"]);
}

#[test]
fn commands_before_connect() {
    let mistakes = [
        (r#"{"id":1,"subscribe":{"channel":"open:a"}}"#, Reason::CommandBeforeConnect),
        (r#"{"id":1,"rpc":{}}"#, Reason::CommandBeforeConnect),
        (r#"{"send":{}}"#, Reason::CommandBeforeConnect),
        ("{}", Reason::CommandBeforeConnect),
        (r#"{"connect":{}}"#, Reason::ConnectWithoutId),
        ("?", Reason::CommandMalformed),
    ];
    for (command, reason) in mistakes {
        let mut client = client();
        client.upgrade();
        assert_eq!(client.say(command), Flow::Closing);
        assert_eq!(client.frames(), ["close 3501 bad request"]);
        assert_eq!(client.shard.counted, [reason]);
        assert!(client.shard.calls.is_empty());
    }
}

#[test]
fn commands_that_are_answered_by_an_error() {
    let long = "a".repeat(256);
    let mistakes = [
        (r#"{"id":2,"subscribe":{"channel":"nowhere:a"}}"#, 102, Reason::ChannelUnknown),
        (r#"{"id":2,"subscribe":{"channel":"closed:a"}}"#, 103, Reason::PermissionDenied),
        (r#"{"id":2,"subscribe":{"channel":"$open:a"}}"#, 103, Reason::PermissionDenied),
        (r##"{"id":2,"subscribe":{"channel":"#42"}}"##, 103, Reason::PermissionDenied),
        (&format!(r#"{{"id":2,"subscribe":{{"channel":"{long}"}}}}"#), 107, Reason::CommandInvalid),
        (r#"{"id":2,"subscribe":{"channel":"open:ü"}}"#, 107, Reason::CommandInvalid),
        (r#"{"id":2,"subscribe":{"channel":"open:a","tf":{"key":"a"}}}"#, 107, Reason::CommandInvalid),
        (r#"{"id":2,"subscribe":{"channel":"open:a","type":1}}"#, 108, Reason::NotAvailable),
        (r#"{"id":2,"publish":{"channel":"nowhere:a","data":1}}"#, 102, Reason::ChannelUnknown),
        (r#"{"id":2,"publish":{"channel":"closed:a","data":1}}"#, 103, Reason::PermissionDenied),
        (r#"{"id":2,"publish":{"channel":"open:a"}}"#, 107, Reason::CommandInvalid),
        (r#"{"id":2,"publish":{"channel":"open:a","data":1,"type":1}}"#, 108, Reason::NotAvailable),
        (r#"{"id":2,"history":{"channel":"nowhere:a"}}"#, 102, Reason::ChannelUnknown),
        (r#"{"id":2,"history":{"channel":"client:a"}}"#, 103, Reason::PermissionDenied),
        (r#"{"id":2,"history":{"channel":"open:a"}}"#, 108, Reason::NotAvailable),
        (r#"{"id":2,"presence":{"channel":"open:a"}}"#, 108, Reason::NotAvailable),
        (r#"{"id":2,"presence_stats":{"channel":"open:a"}}"#, 108, Reason::NotAvailable),
        (r#"{"id":2,"presence":{"channel":"client:a"}}"#, 103, Reason::PermissionDenied),
        (r#"{"id":2,"presence_stats":{"channel":"members:a"}}"#, 103, Reason::PermissionDenied),
        (r#"{"id":2,"presence":{"channel":"nowhere:a"}}"#, 102, Reason::ChannelUnknown),
        (r#"{"id":2,"presence":{"channel":"named:1"}}"#, 107, Reason::CommandInvalid),
        (r#"{"id":2,"subscribe":{"channel":"named:1"}}"#, 107, Reason::CommandInvalid),
        (r#"{"id":2,"rpc":{"method":"m"}}"#, 108, Reason::NotAvailable),
        (r#"{"id":2,"sub_refresh":{"channel":"open:a","token":"t"}}"#, 103, Reason::PermissionDenied),
    ];
    for (command, code, reason) in mistakes {
        let mut client = client();
        client.connect();
        let frames = client.ask(command);
        let [reply] = &frames[..] else { panic!("{command}: {frames:?}") };
        assert!(reply.starts_with(&format!(r#"{{"id":2,"error":{{"code":{code},"message":""#)), "{command}: {reply}");
        assert_eq!(client.shard.counted, [reason], "{command}");
        assert_eq!(client.shard.calls, ["connect "], "{command}");
        assert_eq!(client.ask(r#"{"id":3,"publish":{"channel":"open:a","data":1}}"#), [r#"{"id":3,"publish":{}}"#]);
    }
}

#[test]
fn too_many_channels_and_the_same_channel_twice() {
    let mut client = client();
    client.connect();
    for index in 0..4 {
        client.ask(&format!(r#"{{"id":2,"subscribe":{{"channel":"open:{index}"}}}}"#));
    }
    assert_eq!(
        client.ask(r#"{"id":3,"subscribe":{"channel":"open:4"}}"#),
        [r#"{"id":3,"error":{"code":106,"message":"limit exceeded"}}"#]
    );
    assert_eq!(
        client.ask(r#"{"id":4,"subscribe":{"channel":"open:3"}}"#),
        [r#"{"id":4,"error":{"code":105,"message":"already subscribed"}}"#]
    );
    assert_eq!(client.shard.counted, [Reason::ChannelsTooMany, Reason::AlreadySubscribed]);
    client.ask(r#"{"id":5,"unsubscribe":{"channel":"open:3"}}"#);
    assert_eq!(client.ask(r#"{"id":6,"subscribe":{"channel":"open:4"}}"#), [r#"{"id":6,"subscribe":{}}"#]);
}

#[test]
fn nothing_that_follows_an_end_has_an_effect() {
    let mut client = client();
    client.connect();
    let publish = masked(0x81, br#"{"id":2,"publish":{"channel":"open:a","data":1}}"#);
    assert_eq!(client.send(&[masked(0x81, b"?"), publish.clone()].concat()), Flow::Closing);
    assert_eq!(client.send(&publish), Flow::Continue, "an end is said once");
    assert_eq!(client.send(&masked(0x89, b"ping")), Flow::Continue);
    assert_eq!(client.frames(), ["close 3501 bad request"]);
    assert_eq!(client.send(&masked(0x88, &3501_u16.to_be_bytes())), Flow::Drop);
    assert_eq!(client.shard.calls, ["connect "]);
    assert_eq!(client.shard.counted, [Reason::CommandMalformed]);
    assert!(client.frames().is_empty(), "our close frame was sent before");
}

#[test]
fn an_end_and_the_answer_to_it_may_come_together() {
    let mut client = client();
    client.connect();
    let bytes = [masked(0x81, b"?"), masked(0x88, &3501_u16.to_be_bytes())].concat();
    assert_eq!(client.send(&bytes), Flow::Drop);
    assert_eq!(client.frames(), ["close 3501 bad request"]);
}

#[test]
fn a_client_without_credentials() {
    let mut config = config();
    config.client.allow_anonymous = false;
    let mut client = Client::new(rules(config));
    client.upgrade();
    assert_eq!(client.say(r#"{"id":1,"connect":{}}"#), Flow::Closing);
    assert_eq!(client.frames(), ["close 3501 bad request"]);
    assert_eq!(client.shard.counted, [Reason::CredentialsMissing]);
}
