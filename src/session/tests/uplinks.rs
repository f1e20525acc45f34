//! The emulated uplink, from both of its ends: the connection that brings commands, and the session that they are for.

use std::sync::Arc;

use proptest::prelude::*;

use super::{
    client, config,
    recorder::{Client, HEAD},
    rules,
    streams::{opened, post},
};
use crate::session::{Flow, Forwarded, Phase, Reason, Rules};

const BODY: &str = r#"{"session":"s","node":"n","data":"{\"id\":2,\"rpc\":{}}\n{}"}"#;
const FORWARDED: &str = r#"forward n/s {\"id\":2,\"rpc\":{}}\n{}"#;
const DONE: &str = "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n";

#[test]
fn commands_are_answered_when_their_session_has_taken_them() {
    let mut client = client();
    assert_eq!(client.send(post("/emulation", "", BODY).as_bytes()), Flow::Paused);
    assert_eq!(client.shard.calls, [FORWARDED]);
    assert_eq!(client.text(), "");
    assert!(client.session.is_paused());
    let passed = crate::session::deadline_passed(&mut client.session, &mut client.shard);
    assert_eq!((passed, client.text().as_str()), (Flow::Continue, ""), "what is done is not refused");
    assert_eq!(client.uplink_taken(), Flow::Answered);
    assert_eq!(client.text(), DONE);
    assert!(!client.session.is_paused() && client.transient.is_none());
    assert_eq!(client.session.phase(), Phase::Head);
    assert_eq!(client.uplink_taken(), Flow::Continue, "there is nothing to answer");
}

#[test]
fn protobuf_requests_are_read_by_the_content_type() {
    let mut client = client();
    let body = "\x0a\x01n\x12\x01s\x1a\x03\x02\x08\x01";
    let request = post("/emulation", "Content-Type: application/octet-stream\r\n", body);
    assert_eq!(client.send(request.as_bytes()), Flow::Paused);
    assert_eq!(client.shard.calls, [r"forward n/s \x02\x08\x01"]);
}

#[test]
fn requests_in_a_row_are_answered_one_after_the_other() {
    let mut client = client();
    let three = post("/emulation", "", BODY).repeat(3);
    assert_eq!(client.send(three.as_bytes()), Flow::Paused);
    for taken in 1..=2 {
        assert_eq!(client.shard.calls.len(), taken);
        assert_eq!(client.uplink_taken(), Flow::Paused);
        assert_eq!(client.text(), DONE);
    }
    assert_eq!(client.uplink_taken(), Flow::Answered);
    assert_eq!((client.text().as_str(), client.shard.calls.len()), (DONE, 3));
}

#[test]
fn without_a_place_a_connection_may_be_an_uplink_only() {
    for request in [HEAD.to_owned(), post("/connection/sse", "", "{}"), post("/connection/uni_http_stream", "", "{}")] {
        let mut client = client();
        client.shard.has_place = false;
        assert_eq!(client.send(post("/emulation", "", BODY).as_bytes()), Flow::Paused);
        assert_eq!(client.uplink_taken(), Flow::Answered);
        assert_eq!(client.text(), DONE);
        assert_eq!(client.send(request.as_bytes()), Flow::Closing);
        assert!(client.text().starts_with("HTTP/1.1 503 "));
        assert_eq!(client.shard.counted, [Reason::ConnectionsExhausted]);
    }
}

#[test]
fn a_connection_may_become_a_stream_after_it_was_an_uplink() {
    let mut client = client();
    client.shard.forwarded = Forwarded::SessionUnknown;
    let requests = post("/emulation", "", BODY) + &post("/connection/http_stream", "", r#"{"id":1,"connect":{}}"#);
    assert_eq!(client.send(requests.as_bytes()), Flow::Answered);
    let text = client.text();
    assert!(text.starts_with(DONE) && text.contains("HTTP/1.1 200 OK\r\n"), "{text}");
    assert_eq!(client.session.phase(), Phase::Connected);
}

#[test]
fn a_client_may_ask_for_the_end_behind_the_answer() {
    let mut client = client();
    let request = post("/emulation", "Connection: close\r\n", BODY);
    assert_eq!(client.send(request.as_bytes()), Flow::Paused);
    assert_eq!(client.uplink_taken(), Flow::Closing);
    assert_eq!(client.text(), DONE.replace("keep-alive", "close"));
    assert_eq!(client.session.phase(), Phase::Ended);
}

#[test]
fn what_is_wrong_with_an_uplink() {
    for (body, forwarded, status, flow, reason) in [
        ("", Forwarded::Sent, 400, Flow::Closing, Reason::CommandMalformed),
        ("[]", Forwarded::Sent, 400, Flow::Closing, Reason::CommandMalformed),
        (r#"{"session":1}"#, Forwarded::Sent, 400, Flow::Closing, Reason::CommandMalformed),
        (BODY, Forwarded::NodeUnknown, 404, Flow::Closing, Reason::NodeUnknown),
        (BODY, Forwarded::SessionUnknown, 204, Flow::Answered, Reason::SessionUnknown),
    ] {
        let mut client = client();
        client.shard.forwarded = forwarded;
        let origin = "Origin: https://app.example.com\r\n";
        assert_eq!(client.send(post("/emulation", origin, body).as_bytes()), flow, "{body}");
        let answer = client.text();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("\r\nAccess-Control-Allow-Origin: https://app.example.com\r\n"), "{answer}");
        assert_eq!(client.shard.counted, [reason]);
    }
    let mut client = client();
    let long = post("/emulation", "", &" ".repeat(65_537));
    assert_eq!(client.send(long.as_bytes()), Flow::Closing);
    assert!(client.text().starts_with("HTTP/1.1 413 "));
}

#[test]
fn a_page_may_ask_before_it_posts() {
    let mut client = client();
    let request = "OPTIONS /emulation HTTP/1.1\r\nHost: example.com\r\nOrigin: https://app.example.com\r\n\
                   Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n\r\n";
    assert_eq!(client.send(request.as_bytes()), Flow::Answered);
    let answer = client.text();
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    assert!(answer.contains("\r\nAccess-Control-Allow-Methods: POST, OPTIONS\r\n"), "{answer}");
    assert_eq!(client.send(post("/emulation", "", BODY).as_bytes()), Flow::Paused, "on the same connection");
    assert!(client.shard.counted.is_empty());
}

#[test]
fn an_uplink_that_says_nothing_more_goes_without_a_word() {
    let mut client = client();
    client.shard.forwarded = Forwarded::SessionUnknown;
    assert_eq!(client.send(post("/emulation", "", BODY).as_bytes()), Flow::Answered);
    client.text();
    let passed = crate::session::deadline_passed(&mut client.session, &mut client.shard);
    assert_eq!((passed, client.text().as_str()), (Flow::Drop, ""));
    assert_eq!(client.shard.counted, [Reason::SessionUnknown]);
}

/// A session that hears by uplink.
fn session() -> Client {
    let mut client = client();
    let request = post("/connection/http_stream", "", r#"{"id":1,"connect":{}}"#);
    assert_eq!(client.send(request.as_bytes()), Flow::Continue);
    opened(&mut client);
    client
}

#[test]
fn commands_are_carried_out_as_if_they_had_come_over_the_connection() {
    let mut client = session();
    let commands = "{\"id\":2,\"subscribe\":{\"channel\":\"open:a\"}}\n{\"id\":3,\"publish\":{\"channel\":\"open:a\",\"data\":1}}\n";
    assert_eq!(client.uplink(commands.as_bytes()), Flow::Continue);
    assert!(client.shard.calls[1].starts_with("subscribe open:a") && client.shard.calls[2] == "publish open:a 1");
    assert!(client.text().contains("{\"id\":2,\"subscribe\":{}}\n"));
    client.ping();
    assert_eq!(client.uplink(b"{}"), Flow::Continue);
    assert!(!client.session.awaiting_pong());
}

#[test]
fn commands_that_are_none_end_the_session() {
    for commands in ["", "\n", "?", "{}", r#"{"id":2,"connect":{}}"#] {
        let mut client = session();
        assert_eq!(client.uplink(commands.as_bytes()), Flow::Closing, "{commands:?}");
        let said = client.text();
        assert!(said.contains(r#"{"push":{"disconnect":{"code":3501,"#) && said.ends_with("0\r\n\r\n"), "{said}");
        assert_eq!(client.uplink(b"{}"), Flow::Continue, "an end is said once");
    }
}

#[test]
fn only_sessions_with_an_emulated_uplink_hear_by_it() {
    let mut websocket = client();
    websocket.connect();
    let mut listener = client();
    assert_eq!(listener.send(post("/connection/uni_http_stream", "", "{}").as_bytes()), Flow::Continue);
    let mut nobody = client();
    for client in [&mut websocket, &mut listener, &mut nobody] {
        let calls = client.shard.calls.len();
        assert_eq!(client.uplink(br#"{"id":2,"subscribe":{"channel":"open:a"}}"#), Flow::Continue);
        assert_eq!(client.shard.calls.len(), calls);
    }
}

#[test]
fn a_paused_session_keeps_a_message_of_commands_and_no_more() {
    let mut client = session();
    client.shard.publish_pauses = true;
    let publish = |number: u32| format!(r#"{{"id":{number},"publish":{{"channel":"open:a","data":{number}}}}}"#);
    assert_eq!(client.uplink(publish(2).as_bytes()), Flow::Paused);
    client.text();
    assert_eq!(client.uplink(format!("{}\n", publish(3)).as_bytes()), Flow::Continue);
    assert_eq!(client.uplink(publish(4).as_bytes()), Flow::Continue);
    assert_eq!(client.shard.calls.len(), 2, "they wait");
    client.shard.publish_pauses = false;
    assert_eq!(client.resume(), Flow::Continue);
    assert_eq!(client.shard.calls[2..], ["publish open:a 3", "publish open:a 4"]);
    client.text();

    client.shard.publish_pauses = true;
    assert_eq!(client.uplink(publish(5).as_bytes()), Flow::Paused);
    client.text();
    let most = format!("{{\"id\":6,\"rpc\":{{\"data\":\"{}\"}}}}", "x".repeat(65_000));
    assert_eq!(client.uplink(most.as_bytes()), Flow::Continue);
    assert_eq!(client.uplink(most.as_bytes()), Flow::Closing);
    assert!(client.text().contains(r#"{"disconnect":{"code":3013,"#));
    assert_eq!(client.shard.counted, [Reason::UplinkOverrun]);
}

#[test]
fn a_mistake_among_commands_that_wait_is_found_later() {
    let mut client = session();
    client.shard.publish_pauses = true;
    assert_eq!(client.uplink(br#"{"id":2,"publish":{"channel":"open:a","data":1}}"#), Flow::Paused);
    assert_eq!(client.uplink(b"?"), Flow::Continue);
    assert_eq!(client.uplink(b"\n"), Flow::Closing, "nothing at all is a mistake that cannot wait");
    let mut client = session();
    client.shard.publish_pauses = true;
    assert_eq!(client.uplink(br#"{"id":2,"publish":{"channel":"open:a","data":1}}"#), Flow::Paused);
    assert_eq!(client.uplink(b"?"), Flow::Continue);
    assert_eq!(client.resume(), Flow::Closing);
    assert_eq!(client.shard.counted, [Reason::CommandMalformed]);
}

/// A request, mostly right.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let path = prop::sample::select(vec!["/emulation", "/connection/http_stream", "/connection/uni_sse", "/nowhere"]);
    let fields =
        prop::sample::select(vec!["", "Connection: close\r\n", "Origin: https://app.example.com\r\n", "Expect: x\r\n"]);
    let body = prop::sample::select(vec![BODY, "{}", "", r#"{"id":1,"connect":{}}"#, "?"]);
    prop_oneof![
        8 => (path, fields, body).prop_map(|(path, fields, body)| post(path, fields, body).into_bytes()),
        1 => any::<[u8; 4]>().prop_map(|bytes| bytes.to_vec()),
        1 => Just(b"OPTIONS /emulation HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
    ]
}

proptest! {
    #[test]
    fn any_cut_of_the_same_requests_has_the_same_effects(
        requests in prop::collection::vec(request(), 1..5),
        piece_bytes in 1_usize..60,
    ) {
        let requests = requests.concat();
        let converse = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let mut client = client();
            for piece in pieces {
                let mut flow = client.send(piece);
                while flow == Flow::Paused {
                    flow = client.uplink_taken();
                }
            }
            (client.text(), client.shard.calls, client.shard.counted, client.session.phase())
        };
        let whole = converse(&mut std::iter::once(&requests[..]));
        prop_assert_eq!(whole, converse(&mut requests.chunks(piece_bytes)));
    }
}

/// Of a server that has `/api` on the clients' port.
fn with_api() -> Arc<Rules> {
    let mut config = config();
    config.api.on_client_port = true;
    rules(config)
}

#[test]
fn the_server_api_gets_the_connection_and_all_that_has_arrived() {
    let request = post("/api/publish", "X-API-Key: k\r\n", r#"{"channel":"a","data":1}"#);
    let rules = with_api();
    for cut in [request.len(), request.len() - 1, request.find("\r\n\r\n").unwrap() + 4] {
        let mut client = Client::new(Arc::clone(&rules));
        assert_eq!(client.send(&request.as_bytes()[..9]), Flow::Continue);
        assert_eq!(client.send(&request.as_bytes()[9..cut]), Flow::HandOver);
        assert_eq!((client.text().as_str(), client.session.is_paused()), ("", true));
        let transient = client.transient.take().expect("the request");
        assert_eq!(transient.into_input(), request.as_bytes()[..cut]);
    }
    // Its answer could overtake that of the request before.
    let mut client = Client::new(rules);
    assert_eq!(client.send(post("/emulation", "", BODY).as_bytes()), Flow::Paused);
    assert_eq!(client.uplink_taken(), Flow::Answered);
    client.text();
    assert_eq!(client.send(request.as_bytes()), Flow::Closing);
    assert!(client.text().starts_with("HTTP/1.1 421 "));
    assert_eq!(client.send(request.as_bytes()), Flow::Continue);
}

#[test]
fn the_server_api_is_on_this_port_where_it_is_configured() {
    let mut elsewhere = client();
    assert_eq!(elsewhere.send(post("/api/info", "", "{}").as_bytes()), Flow::Closing);
    assert!(elsewhere.text().starts_with("HTTP/1.1 404 "));
    let mut client = Client::new(with_api());
    assert_eq!(client.send(post("/apis", "", "{}").as_bytes()), Flow::Closing);
    assert!(client.text().starts_with("HTTP/1.1 404 "));
}
