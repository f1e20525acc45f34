//! Clients whose messages go out on an HTTP answer without an end, and clients that only listen.

use super::{
    SECRET, client, config,
    recorder::{Client, HEAD, masked},
    rules,
};
use crate::{
    http::{Body, BodyLength, BodyRead},
    protocol::{Claims, Disconnect, mint},
    session::{Flow, Phase, Reason},
};

/// A request to a stream.
pub fn post(path: &str, fields: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: example.com\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: example.com\r\n\r\n")
}

/// Takes the answer's head off what was sent: it, and the messages so far.
pub fn opened(client: &mut Client) -> (String, String) {
    let text = client.text();
    let (head, chunks) = text.split_once("\r\n\r\n").expect("a whole head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    (head.to_owned(), content(chunks))
}

/// The content of chunks; `[end]` where they end.
fn content(chunks: &str) -> String {
    let mut body = Body::new(BodyLength::Chunked, usize::MAX / 2).expect("its length is not known");
    let read = body.read(chunks.as_bytes()).expect("chunks");
    let is_ended = read == BodyRead::Complete(chunks.len());
    assert!(is_ended || read == BodyRead::Incomplete, "bytes behind the end: {chunks:?}");
    String::from_utf8(body.into_content()).expect("text") + if is_ended { "[end]" } else { "" }
}

/// What was sent on a stream that is open.
fn heard(client: &mut Client) -> String {
    content(&client.text())
}

const CONNECT: &str = r#"{"id":1,"connect":{}}"#;
const CONNECTED: &str = concat!(
    r#"{"id":1,"connect":{"client":"c-1","version":"Tidegate "#,
    env!("CARGO_PKG_VERSION"),
    r#"","ping":25,"pong":true,"session":"s-1","node":"n-1"}}"#
);
const CONNECTED_ONE_WAY: &str = concat!(
    r#"{"connect":{"client":"c-1","version":"Tidegate "#,
    env!("CARGO_PKG_VERSION"),
    r#"","ping":25,"session":"s-1"}}"#
);

#[test]
fn a_stream_begins_with_the_connect_command_of_its_body() {
    let mut client = client();
    assert_eq!(client.send(post("/connection/http_stream", "", CONNECT).as_bytes()), Flow::Continue);
    let (head, heard_first) = opened(&mut client);
    assert!(head.contains("\r\nContent-Type: application/json\r\n"), "{head}");
    assert!(!head.contains("Access-Control"), "{head}");
    assert_eq!(heard_first, format!("{CONNECTED}\n"));
    assert_eq!((client.session.phase(), client.shard.messages), (Phase::Connected, 1));
    assert!(client.transient.is_none(), "an idle stream keeps nothing");

    assert_eq!(client.send(b"anything\r\nGET / HTTP/1.1\r\n"), Flow::Continue);
    assert_eq!(heard(&mut client), "");
    assert!(client.transient.is_none(), "what a client says behind its request is not kept");

    client.ping();
    assert_eq!(heard(&mut client), "{}\n");
    assert!(client.session.awaiting_pong());
    client.disconnect(Disconnect::NO_PONG);
    assert_eq!(
        heard(&mut client),
        "{\"push\":{\"disconnect\":{\"code\":3012,\"reason\":\"no pong\",\"reconnect\":true}}}\n[end]"
    );
    assert_eq!(client.session.phase(), Phase::Ended);
}

#[test]
fn events_begin_with_the_connect_command_of_the_query_or_the_body() {
    let query = "/connection/sse?x=1&cf_connect=%7B%22id%22%3A1%2C%22connect%22%3A%7B%7D%7D";
    for request in [get(query), post("/connection/sse", "", CONNECT)] {
        let mut client = client();
        assert_eq!(client.send(request.as_bytes()), Flow::Continue);
        let (head, heard_first) = opened(&mut client);
        assert!(head.contains("\r\nContent-Type: text/event-stream; charset=utf-8\r\n"), "{head}");
        assert_eq!(heard_first, format!("\r\ndata: {CONNECTED}\n\n"));
        client.ping();
        assert_eq!(heard(&mut client), "data: {}\n\n");
    }
}

#[test]
fn a_page_of_another_origin_may_read_a_stream() {
    let mut client = client();
    let origin = "Origin: https://app.example.com\r\n";
    assert_eq!(client.send(post("/connection/http_stream", origin, CONNECT).as_bytes()), Flow::Continue);
    let (head, _) = opened(&mut client);
    assert!(head.contains("\r\nAccess-Control-Allow-Origin: https://app.example.com\r\n"), "{head}");
    assert!(head.contains("\r\nAccess-Control-Allow-Credentials: true\r\n"), "{head}");
}

#[test]
fn protobuf_goes_by_the_content_type() {
    let mut client = client();
    let body = "\x04\x08\x01\x22\x00";
    let request = post("/connection/http_stream", "Content-Type: application/octet-stream\r\n", body);
    assert_eq!(client.send(request.as_bytes()), Flow::Continue);
    let text = client.text();
    assert!(text.contains("\r\nContent-Type: application/octet-stream\r\n"), "{text}");
    let (_, chunks) = text.split_once("\r\n\r\n").expect("a head");
    let content = content(chunks);
    assert_eq!(usize::from(content.as_bytes()[0]), content.len() - 1, "the reply's length goes before it");
    assert!(content[1..].starts_with("\x08\x01\x2a") && content.contains("c-1"), "{content:?}");
    client.ping();
    assert_eq!(client.text(), "1\r\n\0\r\n");
}

#[test]
fn commands_behind_connect_wait_for_it() {
    let mut client = client();
    client.shard.connect_pauses = true;
    let body = format!("{CONNECT}\n{}", r#"{"id":2,"subscribe":{"channel":"open:a"}}"#);
    let flow = client.send(post("/connection/http_stream", "", &body).as_bytes());
    assert_eq!((flow, client.session.phase()), (Flow::Paused, Phase::Connecting));
    assert_eq!(opened(&mut client).1, "");
    assert_eq!(client.complete_connect(), Flow::Continue);
    assert_eq!(heard(&mut client), format!("{CONNECTED}\n{}\n", r#"{"id":2,"subscribe":{}}"#));
}

#[test]
fn what_is_wrong_with_the_first_commands_is_said_on_the_stream() {
    let token = mint(SECRET.as_bytes(), &Claims { sub: "ann", exp: Some(1), ..Claims::default() });
    let expired = format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#);
    let bad_request = r#"{"push":{"disconnect":{"code":3501,"reason":"bad request"}}}"#;
    let invalid = r#"{"push":{"disconnect":{"code":3500,"reason":"invalid token"}}}"#;
    for (body, said, flow, reason) in [
        ("", format!("{bad_request}\n[end]"), Flow::Closing, Reason::CommandMalformed),
        ("?", format!("{bad_request}\n[end]"), Flow::Closing, Reason::CommandMalformed),
        (r#"{"id":1,"rpc":{}}"#, format!("{bad_request}\n[end]"), Flow::Closing, Reason::CommandBeforeConnect),
        (r#"{"connect":{}}"#, format!("{bad_request}\n[end]"), Flow::Closing, Reason::ConnectWithoutId),
        (r#"{"id":1,"connect":{"token":"x"}}"#, format!("{invalid}\n[end]"), Flow::Closing, Reason::TokenInvalid),
        (
            // The client closes when it has read why.
            &expired,
            "{\"id\":1,\"error\":{\"code\":109,\"message\":\"token expired\"}}\n".to_owned(),
            Flow::Lingering,
            Reason::TokenExpired,
        ),
    ] {
        let mut client = client();
        assert_eq!(client.send(post("/connection/http_stream", "", body).as_bytes()), flow, "{body}");
        assert_eq!(opened(&mut client).1, said, "{body}");
        assert_eq!(client.shard.counted, [reason]);
        assert_eq!(client.send(b"x"), Flow::Continue);
        assert!(client.shard.output.is_empty() && client.transient.is_none());
    }
}

/// Sends a request and expects an answer that is no stream.
fn refused(request: &str, status: u16, reason: Reason) -> String {
    let mut client = client();
    assert_eq!(client.send(request.as_bytes()), Flow::Closing, "{request}");
    let answer = client.text();
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}\n{answer}");
    assert_eq!(client.shard.counted, [reason]);
    assert_eq!(client.session.phase(), Phase::Ended);
    assert!(client.transient.is_none());
    answer
}

#[test]
fn requests_that_are_no_stream() {
    refused(&get("/connection/sse"), 400, Reason::CommandIncomplete);
    refused(&get("/connection/sse?cf_connect=%ff"), 400, Reason::CommandIncomplete);
    for path in ["/connection/uni_sse", "/connection/uni_http_stream"] {
        refused(&post(path, "", "?"), 400, Reason::CommandMalformed);
        refused(&post(path, "", ""), 400, Reason::CommandMalformed);
        refused(&post(path, "", "[]"), 400, Reason::CommandMalformed);
    }
    refused(&get("/connection/uni_sse?cf_connect=%7B"), 400, Reason::CommandMalformed);
    for path in ["/connection/http_stream", "/connection/uni_http_stream", "/emulation"] {
        let answer = refused(&get(path), 405, Reason::MethodNotAllowed);
        assert!(answer.contains("\r\nAllow: POST, OPTIONS\r\n"), "{answer}");
    }
    for method in ["PUT", "HEAD", "DELETE", "get"] {
        let request = post("/connection/sse", "", "").replacen("POST", method, 1);
        let answer = refused(&request, 405, Reason::MethodNotAllowed);
        assert!(answer.contains("\r\nAllow: GET, POST, OPTIONS\r\n"), "{answer}");
    }
    refused(
        &get("/connection/uni_sse").replace("\r\n\r\n", "\r\nContent-Length: 1\r\n\r\nx"),
        400,
        Reason::RequestBodyPresent,
    );
    refused(
        &post("/connection/http_stream", "Origin: https://evil.example\r\n", CONNECT),
        403,
        Reason::OriginForbidden,
    );
    refused(
        &post("/connection/http_stream", "Transfer-Encoding: chunked\r\n", ""),
        400,
        Reason::RequestBodyLengthInvalid,
    );
    let chunked = |body: &str| {
        format!("POST /connection/http_stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
    };
    refused(&chunked("x"), 400, Reason::RequestMalformed);
    refused(&chunked("10001\r\n"), 413, Reason::RequestBodyTooLarge);
    let length = post("/connection/http_stream", "", "").replace("Length: 0", "Length: 65537");
    refused(&length, 413, Reason::RequestBodyTooLarge);
    let answer = refused(
        &post("/connection/uni_sse", "Origin: https://app.example.com\r\n", "?"),
        400,
        Reason::CommandMalformed,
    );
    assert!(answer.contains("\r\nAccess-Control-Allow-Origin: https://app.example.com\r\n"), "{answer}");
}

#[test]
fn a_body_may_come_in_any_pieces() {
    let chunked = format!(
        "POST /connection/http_stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\n{}\r\n10\r\n{}\r\n0\r\n\r\n",
        &CONNECT[..5],
        &CONNECT[5..]
    );
    for request in [post("/connection/http_stream", "", CONNECT), chunked] {
        for piece_bytes in [1, 7, 100] {
            let mut client = client();
            for piece in request.as_bytes().chunks(piece_bytes) {
                assert_eq!(client.send(piece), Flow::Continue);
            }
            assert_eq!(opened(&mut client).1, format!("{CONNECTED}\n"));
            assert!(client.transient.is_none());
        }
    }
}

#[test]
fn a_client_that_waits_to_send_the_body_is_asked_for_it() {
    let request = post("/connection/http_stream", "Expect: 100-continue\r\n", CONNECT);
    let (head, body) = request.split_at(request.len() - CONNECT.len());
    let mut client = client();
    assert_eq!(client.send(head.as_bytes()), Flow::Continue);
    assert_eq!(client.text(), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.send(body.as_bytes()), Flow::Continue);
    assert_eq!(opened(&mut client).1, format!("{CONNECTED}\n"));
}

#[test]
fn a_body_that_does_not_come_ends_at_the_deadline() {
    let mut client = client();
    let request = post("/connection/http_stream", "", CONNECT);
    assert_eq!(client.send(&request.as_bytes()[..request.len() - 1]), Flow::Continue);
    client.disconnect(Disconnect::STALE);
    assert!(client.text().starts_with("HTTP/1.1 408 "));
    assert!(client.session.is_closing());
}

#[test]
fn one_way_streams_hear_bare_pushes() {
    for (request, before, after) in [
        (get("/connection/uni_sse"), "\r\ndata: ", "\n\n"),
        (get("/connection/uni_sse?cf_connect=%7B%7D"), "\r\ndata: ", "\n\n"),
        (post("/connection/uni_sse", "", "{}"), "\r\ndata: ", "\n\n"),
        (post("/connection/uni_http_stream", "", "{}"), "", "\n"),
    ] {
        let mut client = client();
        assert_eq!(client.send(request.as_bytes()), Flow::Continue);
        let (_, heard_first) = opened(&mut client);
        assert_eq!(heard_first, format!("{before}{CONNECTED_ONE_WAY}{after}"));
        client.ping();
        assert!(!client.session.awaiting_pong(), "it has no way to answer");
        let before = before.trim_start();
        assert_eq!(heard(&mut client), format!("{before}{{}}{after}"));
        client.disconnect(Disconnect::SHUTDOWN);
        let end = r#"{"disconnect":{"code":3001,"reason":"shutdown","reconnect":true}}"#;
        assert_eq!(heard(&mut client), format!("{before}{end}{after}[end]"));
    }
}

#[test]
fn a_one_way_client_subscribes_by_its_connect_request() {
    let mut client = client();
    let request = post("/connection/uni_http_stream", "", r#"{"subs":{"open:a":{},"closed:a":{}}}"#);
    assert_eq!(client.send(request.as_bytes()), Flow::Continue);
    assert!(opened(&mut client).1.contains(r#""subs":{"open:a":{}}"#));
}

#[test]
fn errors_of_one_way_clients_are_disconnects() {
    let mut config = config();
    config.client.allow_anonymous = false;
    let rules = rules(config);
    let token = |claims: Claims<'_>| mint(SECRET.as_bytes(), &claims);
    let expired = token(Claims { sub: "ann", exp: Some(1), ..Claims::default() });
    let nowhere = token(Claims { sub: "ann", channels: &["nowhere:a".to_owned()], ..Claims::default() });
    for (token, code, reason, counted) in [
        ("", 3501, "bad request", Reason::CredentialsMissing),
        ("x", 3500, "invalid token", Reason::TokenInvalid),
        (&*expired, 3005, "connection expired", Reason::TokenExpired),
        (&*nowhere, 3004, "internal server error", Reason::ChannelUnknown),
    ] {
        let mut client = Client::new(rules.clone());
        let request = post("/connection/uni_http_stream", "", &format!(r#"{{"token":"{token}"}}"#));
        assert_eq!(client.send(request.as_bytes()), Flow::Closing);
        let said = opened(&mut client).1;
        assert!(said.starts_with(&format!(r#"{{"disconnect":{{"code":{code},"reason":"{reason}""#)), "{said}");
        assert!(said.ends_with("}}\n[end]"), "{said}");
        assert_eq!(client.shard.counted, [counted]);
    }
}

/// A client that has upgraded to listen.
fn listener(query: &str) -> Client {
    let mut client = client();
    let head = HEAD.replace("/connection/websocket", &format!("/connection/uni_websocket{query}"));
    assert_eq!(client.send(head.as_bytes()), Flow::Continue);
    let answer = client.shard.output.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head") + 4;
    assert!(client.shard.output.starts_with(b"HTTP/1.1 101 "));
    client.shard.output.drain(..answer);
    client
}

#[test]
fn a_one_way_websocket_connects_by_its_first_message_or_its_query() {
    let mut by_message = listener("");
    assert_eq!(by_message.session.phase(), Phase::AwaitingConnect);
    assert_eq!(by_message.ask("{}"), [CONNECTED_ONE_WAY]);
    let mut by_query = listener("?cf_connect=%7B%7D");
    assert_eq!(by_query.frames(), [CONNECTED_ONE_WAY]);
    for client in [&mut by_message, &mut by_query] {
        assert!(client.ask("anything").is_empty(), "later messages have no meaning");
        assert!(client.ask(r#"{"id":1,"connect":{}}"#).is_empty());
        assert!(client.transient.is_none());
    }
}

#[test]
fn a_one_way_websocket_lives_by_its_pongs() {
    let mut client = listener("?cf_connect=%7B%7D");
    client.frames();
    client.ping();
    assert!(client.session.awaiting_pong());
    assert_eq!(client.shard.output, b"\x89\x00\x81\x02{}");
    client.shard.output.clear();
    assert!(client.ask("{}").is_empty());
    assert!(client.session.awaiting_pong(), "a message is no pong");
    assert_eq!(client.send(&masked(0x8a, b"")), Flow::Continue);
    assert!(!client.session.awaiting_pong());
    client.disconnect(Disconnect::SLOW);
    let end = r#"{"disconnect":{"code":3008,"reason":"slow","reconnect":true}}"#;
    assert_eq!(client.frames(), [end, "close 3008 slow"]);
    assert_eq!(client.session.phase(), Phase::Closing);
}

#[test]
fn what_is_wrong_with_a_one_way_websocket() {
    let bad_request = [r#"{"disconnect":{"code":3501,"reason":"bad request"}}"#, "close 3501 bad request"];
    for message in ["?", "[]", "", r#"{"token":1}"#] {
        let mut client = listener("");
        assert_eq!(client.say(message), Flow::Closing, "{message}");
        assert_eq!(client.frames(), bad_request);
        assert_eq!(client.shard.counted, [Reason::CommandMalformed]);
    }
    let mut invalid = listener("");
    assert_eq!(invalid.say(r#"{"token":"x"}"#), Flow::Closing);
    assert_eq!(
        invalid.frames(),
        [r#"{"disconnect":{"code":3500,"reason":"invalid token"}}"#, "close 3500 invalid token"]
    );
    let uni = |query: &str, field: &str| {
        HEAD.replace("/connection/websocket", &format!("/connection/uni_websocket{query}"))
            .replace("Host:", &format!("{field}Host:"))
    };
    refused(&uni("?cf_connect=%7B", ""), 400, Reason::CommandMalformed);
    refused(&uni("?format=protobuf", ""), 400, Reason::EncodingUnsupported);
    refused(&uni("", "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n"), 400, Reason::EncodingUnsupported);
    refused(&get("/connection/uni_websocket"), 400, Reason::NotAnUpgrade);
}
