//! Shards that ask for published keys, and clients that wait for them.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use super::*;
use crate::{mesh::ToControl, protocol::KeySet};

const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/");

impl Stage {
    fn fetching() -> Self {
        Self::new(1, 1024, |config| {
            config.client.token.jwks_public_endpoint = Some("https://id.example.com/keys".to_owned());
        })
    }

    /// How often the shard has asked since the last call.
    fn questions(&mut self) -> usize {
        let asked = std::iter::from_fn(|| self.control.inbound[0].try_recv().ok());
        asked.filter(|message| matches!(message, ToControl::TokenKeysWanted { shard: 0 })).count()
    }

    fn answer(&mut self, is_published: bool) {
        let json = std::fs::read(format!("{KEYS}jwks.json")).unwrap();
        let keys = if is_published { KeySet::parse(&json).unwrap() } else { KeySet::default() };
        let keys = ToShard::TokenKeys { keys: Arc::new(keys), is_current: true, is_answer: true };
        self.control.to_shards[0].send(keys);
        self.settle();
    }

    /// A client that has said a connect command with a token of this key.
    fn connecting(&mut self, key_id: &str) -> Client {
        let key = EncodingKey::from_ed_pem(&std::fs::read(format!("{KEYS}ed25519.private.pem")).unwrap()).unwrap();
        let header = Header { kid: Some(key_id.to_owned()), ..Header::new(Algorithm::EdDSA) };
        let token = jsonwebtoken::encode(&header, &json!({"sub": "42"}), &key).unwrap();
        let client = self.stranger(0, ROOM);
        client.say(&json!({"id": 1, "connect": {"token": token}}).to_string());
        self.settle();
        client
    }
}

#[test]
fn the_control_thread_is_asked_once_for_all_and_again_for_those_who_came_later() {
    let mut stage = Stage::fetching();
    let mut first = stage.connecting("ed25519");
    assert_eq!(stage.questions(), 1);
    let mut second = stage.connecting("another");
    let mut third = stage.connecting("ed25519");
    assert_eq!(stage.questions(), 0);
    assert!(first.hear().is_empty());
    stage.answer(true);
    assert!(first.hear()[0].contains(r#""connect""#));
    // The keys at hand would do for the third, but they were not asked for on its behalf.
    assert!(second.hear().is_empty() && third.hear().is_empty());
    assert_eq!(stage.questions(), 1);
    stage.answer(true);
    assert_eq!(second.hear(), ["close 3500"]);
    assert!(third.hear()[0].contains(r#""connect""#));
    assert_eq!(stage.questions(), 0);
    let mut late = stage.connecting("ed25519");
    assert!(late.hear()[0].contains(r#""connect""#), "its key is at hand");
    assert_eq!(stage.questions(), 0);
}

#[test]
fn nobody_waits_longer_than_a_connect_command_may_take() {
    let mut stage = Stage::fetching();
    let mut client = stage.connecting("ed25519");
    stage.network.pass(10_100);
    stage.settle();
    assert_eq!(client.hear(), ["close 3502"]);
    stage.answer(true);
    assert!(client.hear().is_empty());
}

#[test]
fn a_client_that_goes_while_it_waits_is_forgotten() {
    let mut stage = Stage::fetching();
    let client = stage.connecting("ed25519");
    client.peer.reset();
    stage.settle();
    let mut next = stage.connecting("ed25519");
    stage.answer(false);
    assert!(next.hear().is_empty(), "it has the slot of the first, and waits for its own answer");
    stage.answer(true);
    assert!(next.hear()[0].contains(r#""connect""#));
}
