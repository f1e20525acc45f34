//! Another configuration while clients are connected: what changes for them, and what does not.

use std::sync::Weak;

use super::*;
use crate::{
    mesh::{Answer, ToControl, ToIngest},
    protocol::{Claims, mint},
};

const SECRET: &str = "a secret of the tests, of more than 32 bytes";
const OTHER_SECRET: &str = "another secret, which is as long as the first";

impl Stage {
    /// What counts now on all shards.
    fn config(&self) -> Config {
        Config::clone(&self.shards[0].state.config)
    }

    /// A namespace changes, on these shards only.
    fn change_namespace_on(&mut self, shards: &[usize], name: &str, change: impl FnOnce(&mut Namespace)) {
        let mut config = self.config();
        let namespace = config.namespaces.by_name.iter_mut().find(|namespace| namespace.name == name).unwrap();
        change(Arc::make_mut(namespace));
        self.reload_on(shards, config);
    }

    fn change_namespace(&mut self, name: &str, change: impl FnOnce(&mut Namespace)) {
        let all: Vec<usize> = (0..self.shards.len()).collect();
        self.change_namespace_on(&all, name, change);
    }

    fn remove_namespace(&mut self, name: &str) {
        let mut config = self.config();
        config.namespaces.by_name.retain(|namespace| namespace.name != name);
        self.reload(config);
    }

    fn reload(&mut self, config: Config) {
        let all: Vec<usize> = (0..self.shards.len()).collect();
        self.reload_on(&all, config);
    }

    fn reload_on(&mut self, shards: &[usize], config: Config) {
        let config = Arc::new(config);
        for shard in shards {
            let config = Arc::clone(&config);
            self.control.to_shards[*shard].send(ToShard::Reconfigure { config, reload: 1 });
        }
        self.settle();
        for shard in shards {
            let mut told = std::iter::from_fn(|| self.control.inbound[*shard].try_recv().ok());
            assert!(told.any(|message| matches!(message, ToControl::Reconfigured { reload: 1 })));
        }
    }

    /// Subscribers that a publication is answered to have.
    fn subscribers(&mut self, channel: &str) -> u32 {
        for _ in 0..20 {
            self.network.pass(10);
            self.settle();
        }
        self.publish_with(channel, "0", |publish| publish.reply_to = ReplyTo::Ingest { connection: 1, sequence: 1 });
        self.settle();
        let answers = self.ingest.inbound.iter().flat_map(|queue| queue.try_iter());
        let counts = answers.filter_map(|answer| match answer {
            ToIngest::Answer { answer: Answer::Published(published), .. } => Some(published.subscribers),
            _ => None,
        });
        counts.last().expect("the home shard answers")
    }
}

fn connect(stage: &mut Stage, secret: &str, claims: Claims<'_>) -> (Client, String) {
    let mut client = stage.stranger(0, ROOM);
    client.say(&format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, mint(secret.as_bytes(), &claims)));
    stage.settle();
    let heard = client.hear().join("\n");
    (client, heard)
}

#[test]
fn a_shard_keeps_nothing_of_the_old_configuration() {
    let mut stage = Stage::new(2, 1024, |_| {});
    let _subscriber = stage.subscriber(0, ROOM, "kept:a");
    let old: Weak<Config> = Arc::downgrade(&stage.shards[0].state.config);
    let config = stage.config();
    stage.reload(config);
    assert!(old.upgrade().is_none());
}

/// Who on the home shard is subscribed is counted there only where history or members are kept.
#[test]
fn subscribers_are_neither_missed_nor_counted_twice_when_a_channel_begins_or_ends_to_be_counted_at_home() {
    for home in 0..2 {
        let mut stage = Stage::new(2, 1024, |_| {});
        let channel = stage.channel("plain", home);
        let mut clients = [0, 1, home].map(|shard| stage.subscriber(shard, ROOM, &channel));
        let check = |stage: &mut Stage, clients: &mut [Client]| {
            assert_eq!(stage.subscribers(&channel), clients.len() as u32);
            for client in clients {
                assert_eq!(client.hear().len(), 1);
            }
        };
        check(&mut stage, &mut clients);
        stage.change_namespace("plain", |namespace| namespace.history_size = 10);
        check(&mut stage, &mut clients);
        stage.change_namespace("plain", |namespace| namespace.presence = true);
        check(&mut stage, &mut clients);
        stage.change_namespace("plain", |namespace| (namespace.history_size, namespace.presence) = (0, false));
        check(&mut stage, &mut clients);
        stage.change_namespace("plain", |namespace| namespace.join_leave = true);
        check(&mut stage, &mut clients);
        stage.remove_namespace("plain");
        check(&mut stage, &mut clients);
        drop(clients);
        stage.settle();
        assert_eq!(stage.subscribers(&channel), 0);
    }
}

/// The message that a subscriber has come is on its way to its own shard when that begins to count, and the subscriber is
/// gone before it arrives.
#[test]
fn what_was_on_its_way_when_a_shard_began_to_count_leaves_no_ghost() {
    let mut stage = Stage::new(1, 1024, |_| {});
    let client = stage.client(0, ROOM);
    client.say(r#"{"id":2,"subscribe":{"channel":"plain:a"}}"#);
    client.say(r#"{"id":3,"unsubscribe":{"channel":"plain:a"}}"#);
    let mut config = stage.config();
    let namespace = config.namespaces.by_name.iter_mut().find(|namespace| namespace.name == "plain").unwrap();
    Arc::make_mut(namespace).history_size = 10;
    while stage.network.carry() {}
    // Its own queue comes before control's in a turn; the shard has to find both messages behind the configuration.
    let state = &mut stage.shards[0].state;
    state.reconfigure(Arc::new(state.config.as_ref().clone()), 0);
    stage.control.to_shards[0].send(ToShard::Reconfigure { config: Arc::new(config), reload: 1 });
    stage.settle();
    assert_eq!(stage.shards[0].state.recounts, 0);
    assert_eq!(stage.subscribers("plain:a"), 0);
    assert_eq!(stage.shards[0].state.channels.channels(), 0);
}

#[test]
fn shards_that_change_one_after_the_other_do_no_harm() {
    for first in 0..2 {
        for home in 0..2 {
            let mut stage = Stage::new(2, 1024, |_| {});
            let (plain, kept) = (stage.channel("plain", home), stage.channel("kept", home));
            let mut clients: Vec<Client> = Vec::new();
            for step in 0..2 {
                let shard = if step == 0 { first } else { 1 - first };
                stage.change_namespace_on(&[shard], "plain", |namespace| {
                    (namespace.history_size, namespace.force_recovery) = (10, true);
                });
                stage.change_namespace_on(&[shard], "kept", |namespace| {
                    (namespace.history_size, namespace.force_recovery) = (0, false);
                });
                for channel in [&plain, &kept] {
                    clients.extend([0, 1].map(|shard| stage.subscriber(shard, ROOM, channel)));
                }
                for channel in [&plain, &kept] {
                    stage.publish(channel, "1", true);
                }
                stage.settle();
                for client in &mut clients {
                    let heard = client.hear();
                    assert!(heard.len() == 1 && heard[0].contains(r#""pub""#), "{heard:?}");
                }
            }
        }
    }
}

#[test]
fn a_namespace_that_goes_takes_nothing_from_who_is_subscribed() {
    let mut stage = Stage::new(1, 1024, |_| {});
    let mut client = stage.subscriber(0, ROOM, "kept:a");
    stage.remove_namespace("kept");
    client.say(r#"{"id":3,"publish":{"channel":"kept:a","data":1}}"#);
    client.say(r#"{"id":4,"unsubscribe":{"channel":"kept:a"}}"#);
    client.say(r#"{"id":5,"subscribe":{"channel":"kept:a"}}"#);
    stage.settle();
    let heard = client.hear();
    assert!(heard[0].contains(r#""code":102"#) && heard[2].contains(r#""code":102"#), "{heard:?}");
    assert!(heard[1].contains(r#""unsubscribe""#), "{heard:?}");
}

#[test]
fn topics_take_over_another_policy() {
    let mut stage = Stage::new(1, 1024, |config| config.shards.outbox_bytes_max = 2_000);
    let mut clients = [ROOM, 300].map(|room| stage.subscriber(0, room, "plain:a"));
    stage.change_namespace("plain", |namespace| namespace.slow_consumer = SlowConsumerPolicy::Latest);
    for number in 0..100 {
        stage.publish("plain:a", &format!(r#""{number:0100}""#), true);
        stage.settle();
    }
    assert_eq!(clients[0].hear().len(), 100);
    assert_eq!(stage.count(0, "slow"), 0);
    let latest = stage.shards[0].figures().dropped.iter().find(|(name, _)| *name == "latest").unwrap().1;
    assert!(latest > 90, "{latest} were dropped");
    stage.change_namespace("plain", |namespace| namespace.slow_consumer = SlowConsumerPolicy::Disconnect);
    for number in 0..100 {
        stage.publish("plain:a", &format!(r#""{number:0100}""#), true);
        stage.settle();
    }
    assert_eq!(stage.count(0, "slow"), 1);
}

#[test]
fn a_secret_that_was_replaced_opens_nothing_and_ends_nothing() {
    let mut stage = Stage::new(1, 1024, |config| config.client.token.hmac_secret = Some(SECRET.into()));
    let ann = || Claims { sub: "ann", ..Claims::default() };
    let (mut client, heard) = connect(&mut stage, SECRET, ann());
    assert!(heard.contains(r#""connect""#), "{heard}");
    let mut config = stage.config();
    config.client.token.hmac_secret = Some(OTHER_SECRET.into());
    stage.reload(config);
    assert_eq!(connect(&mut stage, SECRET, ann()).1, "close 3500");
    assert!(connect(&mut stage, OTHER_SECRET, ann()).1.contains(r#""connect""#));
    stage.publish("#ann", "1", true);
    stage.settle();
    assert_eq!(client.hear().len(), 1, "the connection lasts until its token expires");
}

#[test]
fn expiries_follow_another_grace() {
    let mut stage = Stage::new(1, 1024, |config| config.client.expired_grace_ms = 60_000);
    let mut client = stage.client(0, ROOM);
    let state = &mut stage.shards[0].state;
    let (index, now) = (0, state.now_unix_seconds);
    client.say(r#"{"id":2,"subscribe":{"channel":"plain:a"}}"#);
    stage.settle();
    client.hear();
    let state = &mut stage.shards[0].state;
    let topic = state.topic_of(index, "plain:a").unwrap();
    state.refresh_subscription(index, topic, Some(now + 10), None);
    let mut config = stage.config();
    config.client.expired_grace_ms = 0;
    stage.reload(config);
    for _ in 0..12 {
        stage.network.pass(1_000);
        stage.settle();
    }
    assert!(client.hear().iter().any(|heard| heard.contains(r#""unsubscribe""#)));
    assert!(stage.shards[0].state.expiries.is_empty());
}

#[test]
fn users_limits_come_and_go() {
    let mut stage = Stage::new(1, 1024, |config| config.client.token.hmac_secret = Some(SECRET.into()));
    let ann = || Claims { sub: "ann", ..Claims::default() };
    let limit = |stage: &mut Stage, connections_max| {
        let mut config = stage.config();
        config.client.user_connections_max = connections_max;
        stage.reload(config);
    };
    let before: Vec<Client> = (0..3).map(|_| connect(&mut stage, SECRET, ann()).0).collect();
    limit(&mut stage, 2);
    // Those that are there already are not counted.
    let counted: Vec<Client> = (0..2).map(|_| connect(&mut stage, SECRET, ann()).0).collect();
    assert_eq!(connect(&mut stage, SECRET, ann()).1, "close 3504");
    limit(&mut stage, 3);
    let (third, heard) = connect(&mut stage, SECRET, ann());
    assert!(heard.contains(r#""connect""#), "{heard}");
    limit(&mut stage, 0);
    let uncounted = connect(&mut stage, SECRET, ann()).0;
    assert_eq!(stage.shards[0].figures().users, 1);
    for mut client in before.into_iter().chain(counted).chain([third, uncounted]) {
        client.peer.finish();
        client.read(usize::MAX);
        stage.settle();
    }
    stage.settle();
    assert_eq!(stage.shards[0].figures().users, 0, "who was counted is counted no more");
}

#[test]
fn who_waits_for_keys_that_nobody_publishes_any_more_is_answered() {
    let mut stage = Stage::new(1, 1024, |config| {
        config.client.token.jwks_public_endpoint = Some("https://id.example.com/keys".to_owned());
    });
    let key = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/ed25519.private.pem")).unwrap();
    let key = jsonwebtoken::EncodingKey::from_ed_pem(&key).unwrap();
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA);
    let token = jsonwebtoken::encode(&header, &serde_json::json!({"sub": "ann"}), &key).unwrap();
    let mut waiting = stage.stranger(0, ROOM);
    waiting.say(&serde_json::json!({"id": 1, "connect": {"token": token}}).to_string());
    stage.settle();
    assert!(waiting.hear().is_empty());
    let mut config = stage.config();
    config.client.token.jwks_public_endpoint = None;
    stage.reload(config);
    assert_eq!(waiting.hear(), ["close 3500"]);
}
