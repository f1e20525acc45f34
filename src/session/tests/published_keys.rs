//! Tokens whose keys are published: what a session does until they are at hand.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::{
    config,
    recorder::{Client, masked},
    rules,
};
use crate::{
    protocol::KeySet,
    session::{Flow, Reason},
};

const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/");

/// A client of a server that fetches keys and has not got any yet.
fn client() -> Client {
    let mut config = config();
    config.client.token.jwks_public_endpoint = Some("https://id.example.com/keys".to_owned());
    let mut client = Client::new(rules(config));
    client.upgrade();
    client
}

/// A token that the published key `ed25519` verifies, if it is named so.
fn token(key_id: &str, claims: &Value) -> String {
    let pem = std::fs::read(format!("{KEYS}ed25519.private.pem")).expect("a file of the tests");
    let key = EncodingKey::from_ed_pem(&pem).expect("a key");
    let header = Header { kid: Some(key_id.to_owned()), ..Header::new(Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, claims, &key).expect("a token")
}

/// The control thread's answer to the shard.
fn keys_arrive(client: &mut Client, is_current: bool, is_published: bool) -> Flow {
    let keys = match is_published {
        true => KeySet::parse(&std::fs::read(format!("{KEYS}jwks.json")).expect("a file")).expect("keys"),
        false => KeySet::default(),
    };
    Arc::get_mut(&mut client.shard.rules).expect("nobody else has them").set_key_set(Arc::new(keys), is_current);
    client.resume()
}

fn connect(token: &str) -> String {
    json!({"id": 1, "connect": {"token": token}}).to_string()
}

#[test]
fn a_connect_waits_for_its_key_and_what_is_behind_it_too() {
    let mut client = client();
    let message = format!(
        "{}\n{}",
        connect(&token("ed25519", &json!({"sub": "42"}))),
        r#"{"id":2,"subscribe":{"channel":"open:a"}}"#
    );
    assert_eq!(client.say(&message), Flow::AwaitingKeys);
    assert!(client.session.is_paused());
    // What comes while it waits is read afterwards.
    assert_eq!(client.send(&masked(0x81, br#"{"id":3,"subscribe":{"channel":"open:b"}}"#)), Flow::Paused);
    assert!(client.shard.calls.is_empty() && client.frames().is_empty());
    assert_eq!(keys_arrive(&mut client, true, true), Flow::Continue);
    assert!(client.shard.calls[0] == "connect 42" && client.shard.calls[1].starts_with("subscribe open:a"));
    assert!(client.shard.calls[2].starts_with("subscribe open:b"), "{:?}", client.shard.calls);
}

#[test]
fn a_key_that_is_not_published_makes_a_token_invalid() {
    let mut client = client();
    assert_eq!(client.say(&connect(&token("another", &json!({"sub": "42"})))), Flow::AwaitingKeys);
    assert_eq!(keys_arrive(&mut client, true, true), Flow::Closing);
    assert_eq!(client.frames(), ["close 3500 invalid token"]);
    assert_eq!(client.shard.counted, [Reason::TokenInvalid]);
}

#[test]
fn a_publisher_that_is_down_makes_clients_come_back() {
    let mut client = client();
    assert_eq!(client.say(&connect(&token("ed25519", &json!({"sub": "42"})))), Flow::AwaitingKeys);
    assert_eq!(keys_arrive(&mut client, false, false), Flow::Lingering);
    assert_eq!(
        client.frames(),
        [r#"{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}"#]
    );
    assert_eq!(client.shard.counted, [Reason::TokenKeyUnavailable]);
}

#[test]
fn a_token_that_no_published_key_could_verify_waits_for_none() {
    for token in [token("ed25519", &json!({"sub": "42"})).replace('.', ""), "a.b.c".to_owned()] {
        let mut client = client();
        assert_eq!(client.say(&connect(&token)), Flow::Closing);
        assert_eq!(client.frames(), ["close 3500 invalid token"]);
    }
}

#[test]
fn a_session_that_waits_for_keys_can_be_ended() {
    let mut client = client();
    assert_eq!(client.say(&connect(&token("ed25519", &json!({"sub": "42"})))), Flow::AwaitingKeys);
    assert_eq!(crate::session::deadline_passed(&mut client.session, &mut client.shard), Flow::Closing);
    assert_eq!(keys_arrive(&mut client, true, true), Flow::Continue);
    assert_eq!(client.frames(), ["close 3502 stale"]);
    assert!(client.shard.calls.is_empty());
}
