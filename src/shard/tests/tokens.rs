//! When tokens' times are over: connections and subscriptions, refreshed and not.

use serde_json::{Value, json};

use super::*;

const SECRET: &str = "the secret of the tests";

impl Stage {
    fn with_tokens() -> Self {
        Self::new(1, 1024, |config| {
            config.client.token.hmac_secret = Some(SECRET.into());
            // No ping disturbs.
            config.client.ping_ms = 600_000;
        })
    }

    fn now(&self) -> u64 {
        self.shards[0].state.now_unix_seconds
    }

    fn say(&mut self, client: &mut Client, message: &Value) -> Vec<String> {
        client.say(&message.to_string());
        self.settle();
        client.hear()
    }

    fn user(&mut self, claims: &Value) -> (Client, Vec<String>) {
        let mut client = self.stranger(0, ROOM);
        let heard = self.say(&mut client, &json!({"id": 1, "connect": {"token": sign(claims)}}));
        (client, heard)
    }

    fn pass_seconds(&mut self, seconds: u64) {
        for _ in 0..seconds * 2 {
            self.network.pass(500);
            self.settle();
        }
    }

    fn expiries(&self) -> usize {
        self.shards[0].state.expiries.len()
    }
}

fn sign(claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
}

#[test]
fn a_connection_ends_when_its_token_is_not_refreshed_in_time() {
    let mut stage = Stage::with_tokens();
    let expires = stage.now() + 30;
    let (mut client, heard) = stage.user(&json!({"sub": "42", "exp": expires}));
    assert!(heard[0].contains(r#""expires":true,"ttl":30"#), "{heard:?}");
    stage.pass_seconds(52);
    assert!(client.hear().is_empty(), "the grace is not over");
    let expires = stage.now() + 100;
    let token = sign(&json!({"sub": "42", "exp": expires}));
    let heard = stage.say(&mut client, &json!({"id": 2, "refresh": {"token": token}}));
    assert_eq!(heard, [r#"{"id":2,"refresh":{"expires":true,"ttl":100}}"#]);
    for _ in 0..123 {
        stage.pass_seconds(1);
        // The old end brings a ping forward.
        match &client.hear()[..] {
            [] => {}
            heard => {
                assert_eq!(heard, ["{}"]);
                client.say("{}");
            }
        }
    }
    stage.pass_seconds(4);
    assert_eq!(client.hear(), ["close 3005"]);
}

#[test]
fn a_refresh_to_an_earlier_end_counts_too() {
    let mut stage = Stage::with_tokens();
    let (mut client, _) = stage.user(&json!({"sub": "42"}));
    let token = sign(&json!({"sub": "42", "exp": stage.now() + 10}));
    stage.say(&mut client, &json!({"id": 2, "refresh": {"token": token}}));
    stage.pass_seconds(37);
    assert_eq!(client.hear(), ["close 3005"]);
}

#[test]
fn a_refresh_while_a_pong_is_awaited_gives_it_its_whole_time() {
    let mut stage = Stage::new(1, 1024, |config| config.client.token.hmac_secret = Some(SECRET.into()));
    // The grace ends one second into the pong's time at the latest.
    let (mut client, _) = stage.user(&json!({"sub": "42", "exp": stage.now() + 1}));
    let mut waited = 0;
    while client.hear().is_empty() {
        stage.network.pass(100);
        stage.settle();
        waited += 100;
        assert!(waited < 26_000, "no ping comes");
    }
    let token = sign(&json!({"sub": "42", "exp": stage.now() + 1000}));
    stage.say(&mut client, &json!({"id": 2, "refresh": {"token": token}}));
    stage.pass_seconds(7);
    client.say("{}");
    stage.settle();
    stage.pass_seconds(3);
    assert!(client.hear().iter().all(|heard| heard == "{}"), "the old token's end has no meaning any more");
}

#[test]
fn a_subscription_ends_when_its_token_is_not_refreshed_in_time() {
    let mut stage = Stage::with_tokens();
    let (mut client, _) = stage.user(&json!({"sub": "42"}));
    let claims = json!({"sub": "42", "channel": "plain:a", "exp": stage.now() + 10, "data": {"a": 1}});
    let subscribe = json!({"id": 2, "subscribe": {"channel": "plain:a", "token": sign(&claims)}});
    let heard = stage.say(&mut client, &subscribe);
    assert_eq!(heard, [r#"{"id":2,"subscribe":{"expires":true,"ttl":10,"data":{"a":1}}}"#]);
    stage.pass_seconds(33);
    assert!(client.hear().is_empty());
    let longer = sign(&json!({"sub": "42", "channel": "plain:a", "exp": stage.now() + 50}));
    let heard = stage.say(&mut client, &json!({"id": 3, "sub_refresh": {"channel": "plain:a", "token": longer}}));
    assert_eq!(heard, [r#"{"id":3,"sub_refresh":{"expires":true,"ttl":50}}"#]);
    stage.pass_seconds(73);
    assert!(client.hear().is_empty());
    assert_eq!(stage.expiries(), 1);
    stage.pass_seconds(3);
    let push = r#"{"push":{"channel":"plain:a","unsubscribe":{"code":2501,"reason":"subscription expired"}}}"#;
    assert_eq!(client.hear(), [push]);
    assert_eq!((stage.expiries(), stage.count(0, "subscription_expired")), (0, 1));
    stage.publish("plain:a", "1", true);
    stage.settle();
    assert!(client.hear().is_empty(), "it is in the channel no more");
    assert!(stage.shards[0].state.connections.iter().all(|(_, connection)| connection.extra.is_none()));
}

#[test]
fn a_server_side_subscription_ends_with_its_connection() {
    let mut stage = Stage::with_tokens();
    let subs = json!({"plain:a": {"expire_at": stage.now() + 10, "data": 7}});
    let (mut client, heard) = stage.user(&json!({"sub": "42", "subs": subs}));
    assert!(heard[0].contains(r#""plain:a":{"data":7}"#), "{heard:?}");
    stage.pass_seconds(37);
    assert_eq!(client.hear(), ["close 3006"]);
    assert_eq!(stage.expiries(), 0);
}

#[test]
fn nothing_is_left_of_subscriptions_that_ended_before_their_time() {
    let mut stage = Stage::with_tokens();
    for round in 0..3 {
        let (mut client, _) = stage.user(&json!({"sub": "42"}));
        let claims = json!({"sub": "42", "channel": "kept:a", "exp": stage.now() + 1_000});
        stage.say(&mut client, &json!({"id": 2, "subscribe": {"channel": "kept:a", "token": sign(&claims)}}));
        assert_eq!(stage.expiries(), 1);
        match round {
            0 => _ = stage.say(&mut client, &json!({"id": 3, "unsubscribe": {"channel": "kept:a"}})),
            1 => client.peer.reset(),
            _ => {
                let claims = json!({"sub": "42", "channel": "kept:a"});
                let refresh = json!({"channel": "kept:a", "token": sign(&claims)});
                stage.say(&mut client, &json!({"id": 3, "sub_refresh": refresh}));
            }
        }
        stage.settle();
        assert_eq!(stage.expiries(), 0, "round {round}");
    }
}

#[test]
fn who_is_present_looks_as_the_latest_tokens_say() {
    let mut stage = Stage::with_tokens();
    let (mut client, _) = stage.user(&json!({"sub": "42", "info": 1, "meta": {"a": 1}}));
    let subscription = |info| sign(&json!({"sub": "42", "channel": "all:a", "info": info}));
    let subscribe = json!({"id": 2, "subscribe": {"channel": "all:a", "token": subscription(2)}});
    let refresh = json!({"id": 3, "refresh": {"token": sign(&json!({"sub": "42", "info": 3, "meta": {"b": 2}}))}});
    let sub_refresh = json!({"id": 4, "sub_refresh": {"channel": "all:a", "token": subscription(4)}});
    for (command, expected) in [(subscribe, [1, 2]), (refresh, [3, 2]), (sub_refresh, [3, 4])] {
        stage.say(&mut client, &command);
        let heard = stage.say(&mut client, &json!({"id": 9, "presence": {"channel": "all:a"}}));
        let heard: Value = serde_json::from_str(&heard[0]).unwrap();
        let members = heard["presence"]["presence"].as_object().unwrap();
        let infos: Vec<_> = members.values().map(|info| [&info["conn_info"], &info["chan_info"]]).collect();
        assert_eq!(infos, [expected], "after {command}");
    }
    let (_, connection) = stage.shards[0].state.connections.iter().next().unwrap();
    assert_eq!(connection.extra.as_ref().unwrap().meta.as_deref(), Some(&br#"{"b":2}"#[..]));
}

#[test]
fn subscribers_see_what_tokens_say_of_a_publisher() {
    let mut stage = Stage::with_tokens();
    let (mut client, _) = stage.user(&json!({"sub": "42", "info": 1}));
    let claims = json!({"sub": "42", "channel": "plain:a", "info": {"role": "admin"}});
    stage.say(&mut client, &json!({"id": 2, "subscribe": {"channel": "plain:a", "token": sign(&claims)}}));
    let heard = stage.say(&mut client, &json!({"id": 3, "publish": {"channel": "plain:a", "data": 5}}));
    assert!(heard[0].contains(r#""conn_info":1,"chan_info":{"role":"admin"}"#), "{heard:?}");
}
