//! What the application wants done with a user's connections, on the shards where they are.

use super::*;
use crate::{
    limits::LISTED_CONNECTIONS_MAX,
    mesh::{Addressees, Answer, Device, DevicesFound, Position, ToControl, UserAction, UserRequest},
    protocol::{AttributesPatch, Claims, Encoding, Grant, mint},
};

const SECRET: &str = "a secret of the tests";

fn stage(shards: usize) -> Stage {
    Stage::new(shards, 1024, |config| config.client.token.hmac_secret = Some(SECRET.into()))
}

fn connect(stage: &mut Stage, shard: usize, user: &str) -> Client {
    let mut client = stage.stranger(shard, ROOM);
    let token = mint(SECRET.as_bytes(), &Claims { sub: user, ..Claims::default() });
    client.say(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
    stage.settle();
    assert!(client.hear()[0].contains(r#""connect""#));
    client
}

/// Asks every shard: the connections that they have found, by shard.
fn act(stage: &mut Stage, user: &str, addressees: Addressees, action: UserAction) -> Vec<u32> {
    let connections = ask(stage, user, addressees, action).into_iter().map(|answer| match answer {
        Answer::Connections(connections) => connections,
        other => panic!("{other:?}"),
    });
    connections.collect()
}

/// Asks every shard: the answers, by shard.
fn ask(stage: &mut Stage, user: &str, addressees: Addressees, action: UserAction) -> Vec<Answer> {
    let request = Arc::new(UserRequest { user: user.to_owned(), addressees, action });
    for (part, outlet) in (0..).zip(&mut stage.control.to_shards) {
        let reply_to = ReplyTo::Control { ticket: 7, part };
        outlet.send(ToShard::User { request: Arc::clone(&request), reply_to });
    }
    stage.settle();
    let mut found: Vec<Option<Answer>> = stage.shards.iter().map(|_| None).collect();
    for queue in &stage.control.inbound {
        while let Ok(message) = queue.try_recv() {
            let ToControl::Answer { ticket: 7, part, answer } = message else { panic!("{message:?}") };
            assert!(found[part as usize].replace(answer).is_none(), "each shard answers once");
        }
    }
    found.into_iter().map(|answer| answer.expect("each shard answers")).collect()
}

fn everyone() -> Addressees {
    Addressees::default()
}

fn disconnect() -> UserAction {
    UserAction::Disconnect { code: 4501, reason: "banned".to_owned() }
}

fn subscribe(channel: &str) -> UserAction {
    UserAction::Subscribe { channel: channel.to_owned(), grant: Box::default(), recover: None }
}

#[test]
fn a_user_is_found_on_every_shard_and_nobody_else() {
    let mut stage = stage(2);
    let mut clients: Vec<Client> =
        [(0, "eve"), (1, "eve"), (1, "eve"), (1, "bob")].map(|(shard, user)| connect(&mut stage, shard, user)).into();
    let mut anonymous = stage.client(0, ROOM);
    assert_eq!(act(&mut stage, "nobody", everyone(), disconnect()), [0, 0]);
    assert_eq!(act(&mut stage, "eve", everyone(), disconnect()), [1, 2]);
    let heard: Vec<_> = clients.iter_mut().map(Client::hear).collect();
    assert_eq!(heard[..3], [["close 4501"]; 3]);
    assert!(heard[3].is_empty() && anonymous.hear().is_empty());
    assert_eq!(stage.count(1, "force_disconnect"), 2);
    // Who is on the way out is not found again.
    assert_eq!(act(&mut stage, "eve", everyone(), disconnect()), [0, 0]);
    assert_eq!(act(&mut stage, "", everyone(), disconnect()), [1, 0]);
    assert_eq!(anonymous.hear(), ["close 4501"]);
    assert!(clients[3].hear().is_empty());
}

#[test]
fn one_connection_is_named_by_client_or_session_and_some_are_spared() {
    let mut stage = stage(2);
    let mut clients: Vec<Client> = [0, 1, 1].map(|shard| connect(&mut stage, shard, "eve")).into();
    let indices: Vec<u32> = stage.shards[1].state.connected().collect();
    let state = &stage.shards[1].state;
    let [first, second] = [indices[0], indices[1]].map(|index| state.client_ids.of(state.id(index)));
    let session = state.session_ids.of(state.id(indices[1]));
    let by_client = |client: &str| Addressees { client: Some(client.to_owned()), ..Addressees::default() };
    for nobody in [by_client(""), by_client("no id"), by_client(&first.replace('-', "")), by_client(&session)] {
        assert_eq!(act(&mut stage, "eve", nobody.clone(), disconnect()), [0, 0], "{nobody:?}");
    }
    // Somebody else's connection is not found by its id.
    assert_eq!(act(&mut stage, "bob", by_client(&first), disconnect()), [0, 0]);
    let by_session = Addressees { session: Some(session), ..Addressees::default() };
    assert_eq!(act(&mut stage, "", by_session.clone(), disconnect()), [0, 0]);
    assert_eq!(act(&mut stage, "eve", by_client(&first), disconnect()), [0, 1]);
    assert_eq!(act(&mut stage, "eve", Addressees { spared: vec![second, first], ..everyone() }, disconnect()), [1, 0]);
    let heard: Vec<usize> = clients.iter_mut().map(|client| client.hear().len()).collect();
    assert_eq!(heard.iter().sum::<usize>(), 2);
    assert_eq!(act(&mut stage, "eve", by_session, disconnect()), [0, 1]);
}

#[test]
fn who_publishes_behind_the_answer_reaches_the_new_subscriber() {
    let mut stage = stage(2);
    // Without history nothing but the order of messages helps.
    let far = stage.channel("plain", 1);
    let mut client = connect(&mut stage, 0, "eve");
    assert_eq!(act(&mut stage, "eve", everyone(), subscribe(&far)), [1, 0]);
    stage.publish(&far, "1", true);
    stage.settle();
    let heard = client.hear();
    assert!(heard[0].contains(r#""subscribe":{}"#) && heard[1].contains(r#""data":1"#), "{heard:?}");
    // Asked again, nothing changes.
    assert_eq!(act(&mut stage, "eve", everyone(), subscribe(&far)), [1, 0]);
    assert!(client.hear().is_empty());
    let one = UserAction::Unsubscribe { channel: Some(far.clone()) };
    assert_eq!(act(&mut stage, "eve", everyone(), one), [1, 0]);
    assert!(client.hear()[0].contains(r#""unsubscribe":{"code":2000"#));
    stage.publish(&far, "2", true);
    stage.settle();
    assert!(client.hear().is_empty());
}

#[test]
fn a_subscription_is_made_as_granted_and_recovers() {
    let mut stage = stage(1);
    for number in 0..3 {
        stage.publish("kept:1", &number.to_string(), true);
    }
    let mut client = connect(&mut stage, 0, "eve");
    let grant = Grant {
        data: Some(Bytes::from_static(b"{\"hello\":1}")),
        info: Some(Bytes::from_static(b"\"info\"")),
        ..Grant::default()
    };
    let recover = Some(Position { offset: 1, epoch: "".into() });
    let action = UserAction::Subscribe { channel: "kept:1".to_owned(), grant: Box::new(grant), recover };
    act(&mut stage, "eve", everyone(), action);
    let heard = client.hear();
    assert!(heard[0].contains(r#""data":{"hello":1}"#), "{heard:?}");
    assert_eq!(heard.len(), 3);
    assert!(heard[1].contains(r#""offset":2"#) && heard[2].contains(r#""offset":3"#), "{heard:?}");
    let index = stage.shards[0].state.connected().next().unwrap();
    let topic = stage.shards[0].state.topic_of(index, "kept:1").unwrap();
    assert_eq!(stage.shards[0].state.chan_info(index, topic).unwrap(), "\"info\"");
}

#[test]
fn all_subscriptions_end_at_once_those_under_way_among_them() {
    let mut stage = stage(2);
    let (own, far) = (stage.channel("plain", 0), stage.channel("kept", 1));
    let mut client = connect(&mut stage, 0, "eve");
    client.say(&format!(r#"{{"id":2,"subscribe":{{"channel":"{own}"}}}}"#));
    stage.settle();
    client.hear();
    client.say(&format!(r#"{{"id":3,"subscribe":{{"channel":"{far}"}}}}"#));
    while stage.network.carry() {}
    stage.shards[0].turn();
    assert_eq!(act(&mut stage, "eve", everyone(), UserAction::Unsubscribe { channel: None }), [1, 0]);
    let heard = client.hear();
    // The personal channel, the own one, and the far one, whose command is answered.
    assert_eq!(heard.iter().filter(|text| text.contains("2000")).count(), 3, "{heard:?}");
    assert_eq!(heard.iter().filter(|text| text.contains(r#""id":3,"error":{"code":103"#)).count(), 1, "{heard:?}");
    assert_eq!(stage.shards[0].figures().subscriptions, 0);
    // Still found as the user's.
    assert_eq!(act(&mut stage, "eve", everyone(), disconnect()), [1, 0]);
}

#[test]
fn a_refresh_changes_when_the_connection_ends_and_is_told() {
    let mut stage = stage(1);
    let mut client = connect(&mut stage, 0, "eve");
    let now = stage.shards[0].state.now_unix_seconds;
    let refresh = |expires_at| UserAction::Refresh { expires_at, info: Some(Bytes::from_static(b"{}")) };
    act(&mut stage, "eve", everyone(), refresh(Some(now + 100)));
    assert_eq!(client.hear(), [r#"{"push":{"refresh":{"expires":true,"ttl":100}}}"#]);
    act(&mut stage, "eve", everyone(), refresh(None));
    assert_eq!(client.hear(), [r#"{"push":{"refresh":{}}}"#]);
    act(&mut stage, "eve", everyone(), refresh(Some(now + 1)));
    client.hear();
    stage.network.pass(60_000);
    stage.settle();
    assert!(client.hear().contains(&"close 3005".to_owned()));
}

#[test]
fn users_are_counted_once() {
    let mut stage = stage(1);
    let users = |stage: &Stage| stage.shards[0].figures().users_connected;
    let first = connect(&mut stage, 0, "eve");
    let second = connect(&mut stage, 0, "eve");
    let third = connect(&mut stage, 0, "bob");
    let _anonymous = stage.client(0, ROOM);
    assert_eq!(users(&stage), 2);
    for (client, left) in [(first, 2), (second, 1), (third, 0)] {
        drop(client.peer);
        stage.settle();
        assert_eq!(users(&stage), left);
    }
}

/// A user's connections on all shards.
fn list(stage: &mut Stage, user: &str) -> Vec<Device> {
    let found = ask(stage, user, everyone(), UserAction::List).into_iter().flat_map(|answer| match answer {
        Answer::Devices(DevicesFound::Devices(devices)) => devices,
        other => panic!("{other:?}"),
    });
    found.collect()
}

fn change(stage: &mut Stage, addressees: Addressees, patch: &str) -> (u32, u32) {
    let patch = AttributesPatch::read(patch.as_bytes(), &stage.shards[0].state.config.attributes).unwrap();
    let answers = ask(stage, "eve", addressees, UserAction::ChangeAttributes { patch });
    answers.into_iter().fold((0, 0), |(updated_all, refused_all), answer| match answer {
        Answer::Changed { updated, refused } => (updated_all + updated, refused_all + refused),
        other => panic!("{other:?}"),
    })
}

#[test]
fn devices_are_listed_with_what_is_known_of_them() {
    let mut stage = stage(2);
    let mut named = stage.stranger(0, ROOM);
    let claims = serde_json::json!({"sub": "eve", "meta": {"plan": "gold"}, "channels": ["plain:b", "plain:a"]});
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    named.say(&format!(r#"{{"id":1,"connect":{{"token":"{token}","name":"js","version":"5.8.0"}}}}"#));
    stage.settle();
    let reply: serde_json::Value = serde_json::from_str(&named.hear()[0]).unwrap();
    let second = connect(&mut stage, 1, "eve");
    connect(&mut stage, 1, "bob");
    second.say(r##"{"id":2,"unsubscribe":{"channel":"#eve"}}"##);
    stage.settle();
    let devices = list(&mut stage, "eve");
    let expected = Device {
        client: reply["connect"]["client"].as_str().unwrap().to_owned(),
        transport: "websocket",
        encoding: Encoding::Json,
        name: "js".into(),
        version: "5.8.0".into(),
        attributes: Some(br#"{"plan":"gold"}"#[..].into()),
        channels: ["#eve", "plain:a", "plain:b"].map(Into::into).into(),
    };
    assert_eq!(devices[0], expected);
    assert_eq!((devices.len(), &devices[1].channels, &devices[1].attributes), (2, &Vec::new(), &None));
    drop(named);
    stage.settle();
    assert_eq!(list(&mut stage, "eve").len(), 1);
    assert!(list(&mut stage, "nobody").is_empty());
}

#[test]
fn attributes_change_while_they_are_within_the_limits() {
    let mut stage = Stage::new(2, 1024, |config| {
        config.client.token.hmac_secret = Some(SECRET.into());
        config.attributes.bytes_max = 40;
    });
    let _clients = [0, 1].map(|shard| connect(&mut stage, shard, "eve"));
    let _other = connect(&mut stage, 0, "bob");
    let attributes = |stage: &mut Stage| -> Vec<String> {
        let devices = list(stage, "eve").into_iter();
        devices.map(|device| String::from_utf8(device.attributes.unwrap_or_default().into()).unwrap()).collect()
    };
    assert_eq!(change(&mut stage, everyone(), r#"{"a":1}"#), (2, 0));
    let client = list(&mut stage, "eve")[1].client.clone();
    let second = || Addressees { client: Some(client.clone()), ..everyone() };
    assert_eq!(change(&mut stage, second(), &format!(r#"{{"b":"{}"}}"#, "x".repeat(20))), (1, 0));
    let both = [r#"{"a":1}"#.to_owned(), format!(r#"{{"a":1,"b":"{}"}}"#, "x".repeat(20))];
    assert_eq!(attributes(&mut stage), both);
    assert_eq!(change(&mut stage, everyone(), r#"{"c":"0123456789"}"#), (1, 1), "one would have too much");
    assert_eq!(attributes(&mut stage), [r#"{"a":1,"c":"0123456789"}"#, &both[1]]);
    assert_eq!(change(&mut stage, everyone(), r#"{"a":null,"b":null,"c":null}"#), (2, 0));
    assert_eq!(attributes(&mut stage), ["", ""]);
    let extras = stage.shards.iter().flat_map(|shard| shard.state.connections.iter());
    assert!(extras.into_iter().all(|(_, connection)| connection.extra.is_none()), "nothing is kept of what is gone");
    assert_eq!(change(&mut stage, Addressees { client: Some("x".to_owned()), ..everyone() }, "{}"), (0, 0));
}

#[test]
fn too_many_connections_are_not_listed() {
    let mut stage = stage(1);
    let devices = vec![0; LISTED_CONNECTIONS_MAX + 1];
    let _client = connect(&mut stage, 0, "eve");
    assert!(matches!(stage.shards[0].state.list(&devices), Answer::Devices(DevicesFound::TooMany)));
    assert!(matches!(stage.shards[0].state.list(&devices[1..]), Answer::Devices(DevicesFound::Devices(_))));
}

#[test]
fn any_code_of_the_list_may_end_a_connection() {
    let mut stage = stage(1);
    for code in [
        3001, 3004, 3005, 3006, 3008, 3009, 3010, 3011, 3012, 3013, 3014, 3500, 3501, 3502, 3503, 3504, 3505, 3506,
        3507, 3508, 3509, 4000, 4999,
    ] {
        let mut client = connect(&mut stage, 0, "eve");
        let action = UserAction::Disconnect { code, reason: "the back end says so".to_owned() };
        assert_eq!(act(&mut stage, "eve", everyone(), action), [1]);
        assert_eq!(client.hear(), [format!("close {code}")]);
    }
}
