//! Connect commands: tokens, and the channels that the server subscribes a client to.

use std::sync::Arc;

use serde_json::{json, value::RawValue};

use super::{
    NOW, OPERATOR_KEY, SECRET, client, config,
    recorder::{Client, masked},
    rules,
};
use crate::{
    limits::CHANNEL_BYTES_MAX,
    protocol::{Claims, mint, mint_operator},
    session::{Flow, Phase, Reason, ServerSide, Terms},
};

fn token(user: &str) -> String {
    mint(SECRET.as_bytes(), &Claims { sub: user, exp: Some(NOW + 60), ..Claims::default() })
}

/// Connects by a command and returns what the shard was asked for.
fn channels(connect: &serde_json::Value) -> Vec<ServerSide> {
    let mut client = client();
    client.upgrade();
    client.ask(&json!({"id": 1, "connect": connect}).to_string());
    client.shard.connects.remove(0).channels
}

fn names(channels: &[ServerSide]) -> Vec<&str> {
    channels.iter().map(|granted| granted.channel.as_str()).collect()
}

#[test]
fn a_token_makes_a_user_with_a_personal_channel() {
    let info = serde_json::from_str::<&RawValue>("{\"name\": \"Al\"}").expect("JSON");
    let claims = Claims { sub: "42", exp: Some(NOW + 60), info: Some(info), ..Claims::default() };
    let mut client = client();
    let frames = client.connect_with(&mint(SECRET.as_bytes(), &claims));
    assert!(frames[0].contains(r##""subs":{"#42":{}}"##), "{frames:?}");
    assert!(frames[0].contains(r#""expires":true,"ttl":60"#), "{frames:?}");
    let connect = &client.shard.connects[0];
    assert_eq!((connect.command, connect.user.as_str(), connect.is_operator), (1, "42", false));
    assert_eq!(connect.expires_at, Some(NOW + 60));
    assert_eq!(connect.info.as_deref(), Some(&b"{\"name\": \"Al\"}"[..]));
    assert_eq!(names(&connect.channels), ["#42"]);
    assert!(!client.session.is_operator());
}

#[test]
fn what_the_back_end_may_know_of_a_connection_comes_with_it() {
    let claims = json!({"sub": "42", "meta": {"plan": "gold"}});
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token");
    let mut client = client();
    client.upgrade();
    let frames =
        client.ask(&json!({"id": 1, "connect": {"token": token, "name": "js", "version": "5.8.0"}}).to_string());
    assert!(!frames[0].contains("gold"), "no client is told: {frames:?}");
    let connect = &client.shard.connects[0];
    assert_eq!(connect.meta.as_deref(), Some(&br#"{"plan":"gold"}"#[..]));
    assert_eq!((connect.name.as_str(), connect.version.as_str()), ("js", "5.8.0"));
}

#[test]
fn personal_channels_may_have_a_namespace() {
    let mut config = config();
    config.client.personal_channel_namespace = Some("hh".to_owned());
    let rules = rules(config);
    let mut client = Client::new(Arc::clone(&rules));
    client.connect_with(&token("42"));
    let channels = &client.shard.connects[0].channels;
    assert_eq!(names(channels), ["hh:#42"]);
    assert!(channels[0].terms.recoverable, "the options are the namespace's");

    let fits = "u".repeat(CHANNEL_BYTES_MAX - "hh:#".len());
    Client::new(Arc::clone(&rules)).connect_with(&token(&fits));
    let mut longer = Client::new(rules);
    longer.upgrade();
    let connect = format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token(&format!("{fits}u")));
    assert_eq!(longer.say(&connect), Flow::Closing);
    assert_eq!(longer.frames(), ["close 3500 invalid token"]);
}

#[test]
fn an_anonymous_client_has_no_personal_channel() {
    assert!(channels(&json!({})).is_empty());
    assert!(channels(&json!({"token": ""})).is_empty());
}

#[test]
fn personal_channels_may_be_off() {
    let mut config = config();
    config.client.personal_channel = false;
    let mut client = Client::new(rules(config));
    client.connect_with(&token("42"));
    assert!(client.shard.connects[0].channels.is_empty());
}

#[test]
fn an_expired_token_is_answered_and_the_client_closes() {
    let expired = mint(SECRET.as_bytes(), &Claims { sub: "42", exp: Some(NOW - 1), ..Claims::default() });
    let mut client = client();
    client.upgrade();
    let message = format!(
        "{{\"id\":1,\"connect\":{{\"token\":\"{expired}\"}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"open:a\"}}}}"
    );
    assert_eq!(client.say(&message), Flow::Lingering);
    assert_eq!(client.frames(), [r#"{"id":1,"error":{"code":109,"message":"token expired"}}"#]);
    assert_eq!(client.shard.counted, [Reason::TokenExpired]);
    assert_eq!(client.session.phase(), Phase::Closing);
    assert!(client.shard.calls.is_empty());
    assert_eq!(client.send(&masked(0x88, &1000_u16.to_be_bytes())), Flow::Drop);
    assert_eq!(client.frames(), ["close 1000 "], "the client's close frame is answered");
}

#[test]
fn a_forged_or_garbled_token_ends_the_connection() {
    let forged = mint(b"another secret", &Claims { sub: "42", ..Claims::default() });
    for token in [forged.as_str(), "garbage", "a.b.c"] {
        let mut client = client();
        client.upgrade();
        assert_eq!(client.say(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#)), Flow::Closing);
        assert_eq!(client.frames(), ["close 3500 invalid token"]);
        assert_eq!(client.shard.counted, [Reason::TokenInvalid]);
    }
}

#[test]
fn the_tokens_channels_are_granted_whatever_their_rules() {
    let with_channels = |channels: &[&str]| {
        let channels: Vec<String> = channels.iter().map(|&channel| channel.to_owned()).collect();
        mint(SECRET.as_bytes(), &Claims { sub: "42", channels: &channels, ..Claims::default() })
    };
    let granted = channels(&json!({"token": with_channels(&["closed:a", "$closed:b", "closed:a"])}));
    assert_eq!(names(&granted), ["#42", "closed:a", "$closed:b"]);

    let mut unknown = client();
    unknown.upgrade();
    let connect = format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, with_channels(&["nowhere:a"]));
    assert_eq!(unknown.say(&connect), Flow::Lingering);
    assert_eq!(unknown.frames(), [r#"{"id":1,"error":{"code":102,"message":"unknown channel"}}"#]);

    let mut greedy = client();
    greedy.upgrade();
    let connect = format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, with_channels(&["a", "b", "c", "d", "e"]));
    assert_eq!(greedy.say(&connect), Flow::Closing);
    assert_eq!(greedy.frames(), ["close 3505 channel limit"]);
    assert_eq!(greedy.shard.counted, [Reason::TokenChannelsTooMany]);
}

#[test]
fn channels_that_the_client_asks_for_are_granted_if_it_could_subscribe() {
    let granted = channels(&json!({"subs": {
        "open:a": {}, "client:a": {}, "closed:a": {}, "$open:a": {}, "#7": {}, "open:ü": {}, "hh:1": null,
    }}));
    let mut granted = names(&granted);
    granted.sort_unstable();
    assert_eq!(granted, ["hh:1", "open:a"]);

    let many: serde_json::Map<_, _> = (0..9).map(|index| (format!("open:{index}"), json!({}))).collect();
    assert_eq!(channels(&json!({"subs": many})).len(), 4, "no more than one client may have");

    let mut client = client();
    client.upgrade();
    assert_eq!(client.say(r#"{"id":1,"connect":{"subs":{"nowhere:a":{}}}}"#), Flow::Closing);
    assert_eq!(client.frames(), ["close 3501 bad request"]);
    assert_eq!(client.shard.counted, [Reason::ConnectChannelUnknown]);
}

#[test]
fn positions_come_with_server_side_channels() {
    let tokens_channels = ["hh:srv".to_owned()];
    let claims = Claims { sub: "42", channels: &tokens_channels, ..Claims::default() };
    let granted = channels(&json!({
        "token": mint(SECRET.as_bytes(), &claims),
        "subs": {"hh:srv": {"recover": true, "offset": 5, "epoch": "xyz"}, "#42": {"recover": true, "offset": 1}},
    }));
    assert_eq!(names(&granted), ["#42", "hh:srv"]);
    assert_eq!(granted[0].terms, Terms::default(), "a personal channel without history has no position");
    let position = granted[1].terms.recover.as_ref().expect("a position");
    assert_eq!((position.offset, &*position.epoch), (5, "xyz"));
}

#[test]
fn an_operator_may_go_everywhere() {
    let mut client = client();
    client.connect_with(&mint_operator(OPERATOR_KEY, NOW + 60));
    assert!(client.session.is_operator());
    assert!(client.shard.connects[0].is_operator && client.shard.connects[0].channels.is_empty());
    for channel in ["closed:a", "$closed:b", "#42"] {
        assert_eq!(
            client.ask(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#)),
            [r#"{"id":2,"subscribe":{}}"#],
            "{channel}"
        );
        assert_eq!(
            client.ask(&format!(r#"{{"id":3,"publish":{{"channel":"{channel}","data":1}}}}"#)),
            [r#"{"id":3,"publish":{}}"#],
            "{channel}"
        );
    }
    assert_eq!(
        client.ask(r#"{"id":4,"subscribe":{"channel":"nowhere:a"}}"#),
        [r#"{"id":4,"error":{"code":102,"message":"unknown channel"}}"#]
    );
}
