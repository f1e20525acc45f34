//! Conversations that go well: upgrade, commands, pings, pauses, ends; the transcripts of protocol.md sections 5 to 8.

use std::sync::Arc;

use super::{
    client, config,
    recorder::{ACCEPTED, Client, HEAD, masked},
    rules,
};
use crate::{
    config::Namespace,
    mesh::Position,
    protocol::Disconnect,
    session::{self, Flow, Phase, Reason, Terms},
};

const CONNECTED: &str = concat!(
    r#"{"id":1,"connect":{"client":"c-1","version":"Tidegate "#,
    env!("CARGO_PKG_VERSION"),
    r#"","ping":25,"pong":true}}"#
);

#[test]
fn connect_and_subscribe_in_one_frame_as_sdks_send_it() {
    let mut client = client();
    client.upgrade();
    let message =
        "{\"id\":1,\"connect\":{\"name\":\"js\"}}\n{\"id\":2,\"subscribe\":{\"channel\":\"open:a\",\"flag\":1}}";
    assert_eq!(client.ask(message), [CONNECTED, r#"{"id":2,"subscribe":{}}"#]);
    assert!(client.session.is_connected());
    assert!(client.transient.is_none(), "an idle client keeps nothing");
    assert!(client.shard.counted.is_empty());
}

#[test]
fn head_and_first_message_may_come_together_and_binary_frames_are_taken() {
    let mut client = client();
    let bytes = [HEAD.as_bytes(), &masked(0x82, b"{\"id\":1,\"connect\":{}}\n")].concat();
    assert_eq!(client.send(&bytes), Flow::Continue);
    client.shard.output.drain(..ACCEPTED.len());
    assert_eq!(client.frames(), [CONNECTED]);
}

#[test]
fn subprotocols_and_origins_that_are_welcome() {
    let accepted = |fields: &str| {
        let mut client = client();
        assert_eq!(client.send(HEAD.replace("Host:", &format!("{fields}\r\nHost:")).as_bytes()), Flow::Continue);
        String::from_utf8(client.shard.output).expect("text")
    };
    let both = accepted("Sec-WebSocket-Protocol: centrifuge-protobuf, centrifuge-json");
    assert!(both.contains("\r\nSec-WebSocket-Protocol: centrifuge-json\r\n"), "{both}");
    assert!(!accepted("Sec-WebSocket-Protocol: other").contains("Sec-WebSocket-Protocol"));
    for origin in ["http://example.com", "https://app.example.com", "http://127.0.0.1:9000"] {
        assert!(accepted(&format!("Origin: {origin}")).starts_with("HTTP/1.1 101 "), "{origin}");
    }
}

#[test]
fn pings_are_answered_once() {
    let mut client = client();
    client.connect();
    client.ping();
    assert!(client.session.awaiting_pong());
    assert_eq!(client.frames(), ["{}"]);
    assert!(client.ask("{}").is_empty());
    assert!(!client.session.awaiting_pong());
    assert_eq!(client.shard.calls, ["connect "]);
    assert_eq!(client.say("{}"), Flow::Closing);
    assert_eq!(client.shard.counted, [Reason::PongUnexpected]);
}

#[test]
fn websocket_pings_are_answered_and_pongs_ignored() {
    let mut client = client();
    client.upgrade();
    assert_eq!(client.send(&masked(0x89, b"hi")), Flow::Continue);
    assert_eq!(client.send(&masked(0x8a, b"hi")), Flow::Continue);
    assert_eq!(client.frames(), ["pong hi"]);
}

#[test]
fn pings_may_be_control_frames_which_tools_answer_by_themselves() {
    let mut client = client();
    let head = HEAD.replace("/connection/websocket", "/connection/websocket?cf_ws_frame_ping_pong=true");
    assert_eq!(client.send(head.as_bytes()), Flow::Continue);
    client.shard.output.clear();
    client.shard.connect_pauses = true;
    assert_eq!(client.say(r#"{"id":1,"connect":{}}"#), Flow::Paused);
    assert_eq!(client.complete_connect(), Flow::Continue);
    let reply = client.frames().remove(0);
    assert!(!reply.contains("ping") && !reply.contains("pong"), "{reply}");
    for _ in 0..2 {
        client.ping();
        assert!(client.session.awaiting_pong());
        assert_eq!(std::mem::take(&mut client.shard.output), b"\x89\x00");
        assert_eq!(client.send(&masked(0x8a, b"")), Flow::Continue);
        assert!(!client.session.awaiting_pong());
    }
    client.ping();
    client.shard.output.clear();
    assert_eq!(client.say("{}"), Flow::Closing, "a message is no pong");
    assert_eq!(client.frames(), ["close 3501 bad request"]);
}

#[test]
fn a_message_in_fragments_with_a_ping_between() {
    let mut client = client();
    client.connect();
    let bytes = [
        masked(0x01, br#"{"id":2,"publish":{"cha"#),
        masked(0x89, b""),
        masked(0x80, br#"nnel":"open:a","data":[1,  2]}}"#),
    ];
    for frame in bytes {
        assert_eq!(client.send(&frame), Flow::Continue);
    }
    assert_eq!(client.frames(), ["pong ", r#"{"id":2,"publish":{}}"#]);
    assert_eq!(client.shard.calls, ["connect ", "publish open:a [1,  2]"]);
    assert_eq!(client.shard.messages, 2, "the connect command, and the one in fragments");
    assert!(client.transient.is_none());
}

/// The terms on which a shard is asked for the subscription of a command.
fn terms(channel: &str, members: &str) -> Terms {
    let mut client = client();
    client.connect();
    client.ask(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"{members}}}}}"#));
    assert_eq!(client.shard.calls[1], format!("subscribe {channel}"));
    client.shard.terms.remove(0)
}

#[test]
fn terms_are_what_the_namespace_grants() {
    let all = r#","positioned":true,"recoverable":true,"recover":true,"offset":7,"epoch":"AbCdEfGh","join_leave":true,"flag":3"#;
    let recover = Some(Position { offset: 7, epoch: "AbCdEfGh".into() });
    assert_eq!(terms("open:a", all), Terms { reject_unrecovered: true, ..Terms::default() });
    let forced = Terms { positioned: true, recoverable: true, emit_presence: true, ..Terms::default() };
    assert_eq!(terms("hh:1", ""), forced);
    assert_eq!(terms("may:1", ""), Terms::default());
    assert_eq!(terms("may:1", r#","positioned":true"#), Terms { positioned: true, ..Terms::default() });
    let granted = Terms { positioned: true, recoverable: true, recover, reject_unrecovered: true, ..Terms::default() };
    assert_eq!(terms("may:1", all), granted);
}

#[test]
fn a_cache_may_be_recovered_without_being_asked_for() {
    let granted = |recover| Terms { positioned: true, recoverable: true, recover, ..Terms::default() };
    assert_eq!(terms("latest:1", ""), Terms::default(), "what is not recoverable is not recovered");
    let from_the_beginning = Position { offset: 0, epoch: "".into() };
    assert_eq!(terms("latest:1", r#","recoverable":true"#), granted(Some(from_the_beginning)));
}

#[test]
fn who_comes_and_goes_is_told_to_whoever_asks_or_to_all() {
    let mut config = config();
    let namespace = |name: &str, force_push_join_leave| {
        let name = name.to_owned();
        let may =
            Namespace { allow_subscribe_for_client: true, allow_subscribe_for_anonymous: true, ..Namespace::default() };
        Arc::new(Namespace { name, join_leave: true, force_push_join_leave, ..may })
    };
    config.namespaces.by_name = vec![namespace("all", true), namespace("asked", false)];
    let mut client = Client::new(rules(config));
    client.connect();
    for (channel, join_leave) in [("all:1", ""), ("asked:1", ""), ("asked:2", r#","join_leave":true"#)] {
        client.ask(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"{join_leave}}}}}"#));
    }
    let told: Vec<_> = client.shard.terms.iter().map(|terms| (terms.emit_join_leave, terms.push_join_leave)).collect();
    assert_eq!(told, [(true, true), (true, false), (true, true)]);
}

#[test]
fn presence_is_asked_for_where_it_is_kept() {
    let mut client = client();
    client.connect();
    client.ask(r#"{"id":5,"presence":{"channel":"hh:1"}}"#);
    client.ask(r#"{"id":6,"presence_stats":{"channel":"hh:1"}}"#);
    assert_eq!(
        client.shard.calls[1..],
        [
            "PresenceCommand { command: 5, channel: \"hh:1\", stats_only: false }",
            "PresenceCommand { command: 6, channel: \"hh:1\", stats_only: true }"
        ]
    );
}

#[test]
fn an_insecure_server_has_no_rules_but_features_are_still_off_or_on() {
    let mut config = config();
    config.client.allow_anonymous = false;
    config.client.insecure = true;
    let mut client = Client::new(rules(config));
    client.upgrade();
    client.ask(r##"{"id":1,"connect":{"subs":{"closed:1":{},"$open:1":{},"open:1#42":{}}}}"##);
    assert_eq!(client.shard.connects[0].channels.len(), 3);
    for (command, call) in [
        (r#"{"id":2,"subscribe":{"channel":"closed:a"}}"#, "subscribe closed:a"),
        (r#"{"id":2,"publish":{"channel":"subscriber:a","data":1}}"#, "publish subscriber:a 1"),
        (r#"{"id":2,"history":{"channel":"subscriber:a"}}"#, "HistoryCommand"),
        (r#"{"id":2,"presence":{"channel":"members:a"}}"#, "PresenceCommand"),
    ] {
        client.ask(command);
        let asked = client.shard.calls.last().expect("the connect command, at least");
        assert!(asked.starts_with(call), "{command}: {asked}");
    }
    for command in ["history", "presence"] {
        let reply = client.ask(&format!(r#"{{"id":2,"{command}":{{"channel":"closed:a"}}}}"#));
        assert!(reply[0].contains(r#""code":108"#), "{reply:?}");
    }
    let reply = client.ask(r#"{"id":2,"subscribe":{"channel":"nowhere:a"}}"#);
    assert!(reply[0].contains(r#""code":102"#), "{reply:?}");
}

#[test]
fn history_is_asked_for_as_the_client_asked() {
    let mut client = client();
    client.connect();
    client.ask(r#"{"id":5,"history":{"channel":"hh:1","limit":-1,"since":{"offset":2,"epoch":"e"},"reverse":true}}"#);
    assert_eq!(
        client.shard.calls[1],
        "HistoryCommand { command: 5, channel: \"hh:1\", limit: -1, since: Some(Position { offset: 2, epoch: \"e\" }), reverse: true }"
    );
}

#[test]
fn unsubscribing_is_answered_whether_subscribed_or_not() {
    let mut client = client();
    client.connect();
    assert_eq!(client.ask(r#"{"id":5,"unsubscribe":{"channel":"news"}}"#), [r#"{"id":5,"unsubscribe":{}}"#]);
}

#[test]
fn what_follows_a_connect_that_waits_waits_too() {
    let mut client = client();
    client.shard.connect_pauses = true;
    client.upgrade();
    let message = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"open:a\"}}\n{\"id\":3,\"rpc\":{}}";
    let publish = masked(0x81, br#"{"id":4,"publish":{"channel":"open:a","data":1}}"#);
    let bytes = [masked(0x81, message.as_bytes()), publish.clone()].concat();
    assert_eq!(client.send(&bytes), Flow::Paused);
    assert_eq!(client.session.phase(), Phase::Connecting);
    assert_eq!(client.send(&publish), Flow::Paused);
    assert!(client.frames().is_empty());
    assert_eq!(client.resume(), Flow::Paused, "the connect reply comes first");
    assert_eq!(client.complete_connect(), Flow::Continue);
    assert_eq!(
        client.frames(),
        [
            CONNECTED,
            r#"{"id":2,"subscribe":{}}"#,
            r#"{"id":3,"error":{"code":108,"message":"not available"}}"#,
            r#"{"id":4,"publish":{}}"#,
            r#"{"id":4,"publish":{}}"#,
        ]
    );
    assert!(client.transient.is_none());
}

#[test]
fn backpressure_holds_back_what_follows() {
    let mut client = client();
    client.connect();
    client.shard.publish_pauses = true;
    let publish = |id: u32| format!(r#"{{"id":{id},"publish":{{"channel":"open:a","data":{id}}}}}"#);
    let bytes =
        [masked(0x81, format!("{}\n{}", publish(2), publish(3)).as_bytes()), masked(0x81, publish(4).as_bytes())];
    assert_eq!(client.send(&bytes.concat()), Flow::Paused);
    assert_eq!(client.frames(), [r#"{"id":2,"publish":{}}"#]);
    assert_eq!(client.resume(), Flow::Paused);
    assert_eq!(client.frames(), [r#"{"id":3,"publish":{}}"#]);
    client.shard.publish_pauses = false;
    assert_eq!(client.resume(), Flow::Continue);
    assert_eq!(client.frames(), [r#"{"id":4,"publish":{}}"#]);
    assert!(client.transient.is_none());
}

#[test]
fn a_mistake_behind_a_pause_is_not_forgotten() {
    for (rest, reason) in [("\n\n", Reason::CommandMalformed), ("\n?", Reason::CommandMalformed)] {
        let mut client = client();
        client.connect();
        client.shard.publish_pauses = true;
        let message = format!(r#"{{"id":2,"publish":{{"channel":"open:a","data":1}}}}{rest}"#);
        assert_eq!(client.say(&message), Flow::Paused);
        assert_eq!(client.resume(), Flow::Closing);
        assert_eq!(client.frames(), [r#"{"id":2,"publish":{}}"#, "close 3501 bad request"]);
        assert_eq!(client.shard.counted, [reason]);
    }
}

#[test]
fn the_client_says_goodbye() {
    let goodbye = |payload: &[u8]| {
        let mut client = client();
        client.connect();
        assert_eq!(client.send(&masked(0x88, payload)), Flow::Drop);
        assert_eq!(client.shard.counted, [Reason::PeerClosed]);
        assert_eq!(client.session.phase(), Phase::Ended);
        client.frames()
    };
    assert_eq!(goodbye(b"\x03\xe8bye"), ["close 1000 "]);
    assert_eq!(goodbye(b""), ["close"]);
}

#[test]
fn the_shard_ends_a_conversation_in_any_phase() {
    let mut at_head = client();
    at_head.disconnect(Disconnect::CONNECTION_LIMIT);
    assert!(at_head.shard.output.starts_with(b"HTTP/1.1 503 "));
    assert!(at_head.session.is_closing());

    let mut connecting = client();
    connecting.shard.connect_pauses = true;
    connecting.upgrade();
    let message = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"publish\":{\"channel\":\"open:a\",\"data\":1}}";
    assert_eq!(connecting.say(message), Flow::Paused);
    connecting.disconnect(Disconnect::SHUTDOWN);
    assert!(!connecting.session.is_paused());
    assert_eq!(connecting.resume(), Flow::Continue, "what was held back is not carried out");
    assert_eq!(connecting.send(&masked(0x88, &3001_u16.to_be_bytes())), Flow::Drop);
    assert_eq!(connecting.frames(), ["close 3001 shutdown"]);
    assert_eq!(connecting.shard.calls, ["connect "]);
    connecting.disconnect(Disconnect::SLOW);
    assert!(connecting.frames().is_empty(), "an end is said once");
}

#[test]
fn deadlines_by_phase() {
    let passed = |client: &mut Client| session::deadline_passed(&mut client.session, &mut client.shard);
    let rules = rules(config());
    let mut at_head = client();
    assert_eq!(at_head.session.deadline_ms(&rules), Some(5_000));
    assert_eq!(passed(&mut at_head), Flow::Closing);
    assert!(at_head.shard.output.starts_with(b"HTTP/1.1 408 "));
    assert_eq!(at_head.shard.counted, [Reason::RequestHeadTimeout]);
    assert_eq!(passed(&mut at_head), Flow::Drop);

    let mut silent = client();
    silent.upgrade();
    assert_eq!(silent.session.deadline_ms(&rules), Some(10_000));
    assert_eq!(passed(&mut silent), Flow::Closing);
    assert_eq!(silent.frames(), ["close 3502 stale"]);
    assert_eq!(silent.shard.counted, [Reason::Stale]);
    assert_eq!(silent.session.deadline_ms(&rules), Some(5_000));

    let mut mute = client();
    mute.connect();
    assert_eq!(mute.session.deadline_ms(&rules), None);
    assert_eq!(passed(&mut mute), Flow::Continue);
    mute.ping();
    assert_eq!(passed(&mut mute), Flow::Closing);
    assert_eq!(mute.frames(), ["{}", "close 3012 no pong"]);
    assert_eq!(mute.shard.counted, [Reason::NoPong]);
}
