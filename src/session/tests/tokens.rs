//! Tokens after connect: refreshed connections, channels that tokens open, refreshed subscriptions.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{NOW, OPERATOR_KEY, SECRET, client, config, recorder::Client, rules};
use crate::{
    protocol::mint_operator,
    session::{Flow, Reason},
};

fn sign(claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).expect("a token")
}

/// A client of user 42, with the id c-1.
fn user() -> Client {
    let mut client = client();
    client.connect_with(&sign(&json!({"sub": "42", "exp": NOW + 60})));
    client.shard.calls.clear();
    client
}

fn refresh(token: &str) -> String {
    json!({"id": 2, "refresh": {"token": token}}).to_string()
}

fn subscribe(channel: &str, claims: &Value) -> String {
    json!({"id": 2, "subscribe": {"channel": channel, "token": sign(claims)}}).to_string()
}

fn sub_refresh(channel: &str, claims: &Value) -> String {
    json!({"id": 3, "sub_refresh": {"channel": channel, "token": sign(claims)}}).to_string()
}

/// What a message is answered by, when it ends the conversation.
fn end(client: &mut Client, message: &str) -> Vec<String> {
    assert_eq!(client.say(message), Flow::Closing, "{message}");
    client.frames()
}

#[test]
fn a_refresh_moves_the_connections_end() {
    let mut client = user();
    let token = sign(&json!({"sub": "42", "exp": NOW + 500, "info": {"name": "Al"}, "meta": [1]}));
    assert_eq!(client.ask(&refresh(&token)), [r#"{"id":2,"refresh":{"expires":true,"ttl":500}}"#]);
    assert_eq!(client.ask(&refresh(&sign(&json!({"sub": "42"})))), [r#"{"id":2,"refresh":{}}"#]);
    let calls = [r#"refresh Some(1700000500) Some(b"{\"name\":\"Al\"}") Some(b"[1]")"#, "refresh None None None"];
    assert_eq!(client.shard.calls, calls);
}

#[test]
fn only_a_valid_token_of_the_same_user_refreshes() {
    for (claims, expected) in [
        (json!({"sub": "43"}), "close 3500 invalid token"),
        (json!({}), "close 3500 invalid token"),
        (json!({"sub": "42", "channel": "open:a"}), "close 3500 invalid token"),
        (json!({"sub": "42", "exp": NOW}), "close 3005 connection expired"),
        (json!({"sub": "42", "expire_at": NOW}), "close 3005 connection expired"),
    ] {
        let mut client = user();
        assert_eq!(end(&mut client, &refresh(&sign(&claims))), [expected], "{claims}");
        assert!(client.shard.calls.is_empty());
    }
    // The operator's token is nobody's refresh but the operator's.
    let mut anonymous = client();
    anonymous.connect();
    let operator = mint_operator(OPERATOR_KEY, NOW + 60);
    assert_eq!(end(&mut anonymous, &refresh(&operator)), ["close 3500 invalid token"]);
    let mut console = client();
    console.connect_with(&operator);
    assert_eq!(console.ask(&refresh(&operator)), [r#"{"id":2,"refresh":{"expires":true,"ttl":60}}"#]);
}

#[test]
fn a_token_opens_a_channel_that_is_closed_otherwise() {
    let mut client = user();
    for channel in ["closed:a", "$closed:a", "closed:b#7"] {
        let answer = client.ask(&json!({"id": 2, "subscribe": {"channel": channel}}).to_string());
        assert!(answer[0].contains(r#""code":103"#), "{answer:?}");
        let token = json!({"sub": "42", "channel": channel, "client": "c-1", "exp": NOW + 9, "info": 1, "data": [2]});
        assert_eq!(client.ask(&subscribe(channel, &token)), [r#"{"id":2,"subscribe":{}}"#]);
        let terms = client.shard.terms.pop().expect("terms");
        assert_eq!((terms.expires_at, terms.chan_info.as_deref()), (Some(NOW + 9), Some(&b"1"[..])));
        assert_eq!(terms.data.as_deref(), Some(&b"[2]"[..]));
    }
}

#[test]
fn a_token_may_differ_from_its_namespace() {
    let terms = |channel: &str, overrides: Value| {
        let mut client = user();
        client.ask(&subscribe(channel, &json!({"sub": "42", "channel": channel, "override": overrides})));
        client.shard.terms.remove(0)
    };
    let positions = |channel: &str, overrides: Value| {
        let terms = terms(channel, overrides);
        (terms.positioned, terms.recoverable)
    };
    let (on, off) = (json!({"value": true}), json!({"value": false}));
    assert_eq!(positions("subscriber:a", json!({})), (false, false));
    assert_eq!(positions("subscriber:a", json!({"force_recovery": on})), (true, true));
    assert_eq!(positions("subscriber:a", json!({"force_positioning": on})), (true, false));
    assert_eq!(positions("hh:a", json!({"force_recovery": off})), (false, false));
    assert_eq!(positions("closed:a", json!({"force_recovery": on})), (false, false), "it has no history");
    let members = |channel: &str, overrides: Value| {
        let terms = terms(channel, overrides);
        (terms.emit_presence, terms.emit_join_leave, terms.push_join_leave)
    };
    assert_eq!(members("members:a", json!({})), (true, true, false));
    assert_eq!(members("members:a", json!({"presence": off, "join_leave": off})), (false, false, false));
    assert_eq!(members("closed:a", json!({"presence": on, "force_push_join_leave": on})), (true, false, true));
}

#[test]
fn a_bad_subscription_token_keeps_the_client_out_and_a_foreign_one_ends_it() {
    let bad = json!({"id": 2, "subscribe": {"channel": "open:a", "token": "a.b.c"}}).to_string();
    for (message, code, reason) in [
        (bad, 103, Reason::TokenInvalid),
        (subscribe("open:a", &json!({"sub": "42"})), 103, Reason::TokenInvalid),
        (subscribe("open:a", &json!({"sub": "42", "channel": "open:a", "exp": NOW})), 109, Reason::TokenExpired),
        (
            subscribe("open:a", &json!({"sub": "42", "channel": "open:a", "expire_at": NOW})),
            110,
            Reason::TokenConnectionExpired,
        ),
        (subscribe("none:a", &json!({"sub": "42", "channel": "none:a"})), 102, Reason::ChannelUnknown),
    ] {
        let mut client = user();
        let answer = client.ask(&message);
        assert!(answer[0].contains(&format!(r#""code":{code},"#)), "{message}: {answer:?}");
        assert_eq!(client.shard.counted, [reason]);
        assert!(client.shard.calls.is_empty());
    }
    for claims in [
        json!({"sub": "42", "channel": "open:b"}),
        json!({"sub": "43", "channel": "open:a"}),
        json!({"channel": "open:a"}),
        json!({"sub": "42", "channel": "open:a", "client": "c-2"}),
    ] {
        let mut client = user();
        assert_eq!(end(&mut client, &subscribe("open:a", &claims)), ["close 3500 invalid token"], "{claims}");
    }
    let mut anonymous = client();
    anonymous.connect();
    let answer = anonymous.ask(&subscribe("closed:a", &json!({"sub": "42", "channel": "closed:a"})));
    assert!(answer[0].contains(r#""code":103"#), "{answer:?}");
    assert_eq!(anonymous.ask(&subscribe("closed:a", &json!({"channel": "closed:a"}))), [r#"{"id":2,"subscribe":{}}"#]);
}

#[test]
fn a_subscription_is_refreshed_by_its_own_token_only() {
    let mut client = user();
    let claims = json!({"sub": "42", "channel": "closed:a", "exp": NOW + 9});
    assert!(client.ask(&sub_refresh("closed:a", &claims))[0].contains(r#""code":103"#), "not subscribed");
    client.ask(&subscribe("closed:a", &claims));
    let longer = json!({"sub": "42", "channel": "closed:a", "exp": NOW + 200, "info": 3});
    assert_eq!(client.ask(&sub_refresh("closed:a", &longer)), [r#"{"id":3,"sub_refresh":{"expires":true,"ttl":200}}"#]);
    assert_eq!(client.shard.calls[1], r#"refresh closed:a Some(1700000200) Some(b"3")"#);
    let for_ever = json!({"sub": "42", "channel": "closed:a"});
    assert_eq!(client.ask(&sub_refresh("closed:a", &for_ever)), [r#"{"id":3,"sub_refresh":{}}"#]);
    let expired = json!({"sub": "42", "channel": "closed:a", "exp": NOW});
    assert!(client.ask(&sub_refresh("closed:a", &expired))[0].contains(r#""code":109"#));
    for kind in [1, 2] {
        let poll = json!({"id": 3, "sub_refresh": {"channel": "closed:a", "type": kind}});
        assert!(client.ask(&poll.to_string())[0].contains(r#""code":108"#), "polls are not built");
    }
    let foreign = json!({"sub": "42", "channel": "closed:b"});
    assert_eq!(end(&mut client, &sub_refresh("closed:a", &foreign)), ["close 3500 invalid token"]);
}

#[test]
fn the_tokens_channels_come_with_what_it_says_of_them() {
    let subs = json!({
        "subscriber:a": {"info": {"a": 1}, "data": 2, "expire_at": NOW + 5, "override": {"force_recovery": {"value": true}}},
    });
    let mut client = client();
    client.connect_with(&sign(&json!({"sub": "42", "subs": subs})));
    let channels = &client.shard.connects[0].channels;
    let granted = channels.iter().find(|granted| granted.channel == "subscriber:a").expect("it is granted");
    assert!(granted.terms.recoverable);
    assert_eq!((granted.terms.expires_at, granted.terms.data.as_deref()), (Some(NOW + 5), Some(&b"2"[..])));
    assert_eq!(granted.terms.chan_info.as_deref(), Some(&br#"{"a":1}"#[..]));
}

#[test]
fn nothing_expires_on_a_server_without_rules() {
    let mut config = config();
    config.client.insecure = true;
    let rules = rules(config);
    for exp in [NOW + 60, NOW - 60] {
        let mut client = Client::new(Arc::clone(&rules));
        let subs = json!({"open:a": {"expire_at": exp}});
        let frames = client.connect_with(&sign(&json!({"sub": "42", "exp": exp, "nbf": NOW + 5, "subs": subs})));
        assert!(frames[0].contains(r#""connect""#) && !frames[0].contains("expires"), "{frames:?}");
        assert_eq!(client.shard.connects[0].channels[1].terms.expires_at, None);
        client.ask(&subscribe("closed:a", &json!({"sub": "42", "channel": "closed:a", "expire_at": exp})));
        assert_eq!(client.shard.terms[0].expires_at, None);
        assert_eq!(client.ask(&refresh(&sign(&json!({"sub": "42", "exp": exp})))), [r#"{"id":2,"refresh":{}}"#]);
    }
}
