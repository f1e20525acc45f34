//! Who is present, and who hears of whose coming and going.

use super::*;
use crate::mesh::{Answer, ConnectionId, PresenceFound};

/// What a client has heard, each reply and push in one word and with its command's id or its channel.
fn words(heard: &[String]) -> Vec<String> {
    let name = |text: &str| {
        let names = ["unsubscribe", "subscribe", "join", "leave", "pub", "error", "presence_stats", "presence"];
        names.into_iter().find(|name| text.contains(&format!(r#""{name}":"#))).unwrap_or("?").to_owned()
    };
    heard.iter().map(|text| name(text)).collect()
}

fn subscribe(stage: &mut Stage, client: &mut Client, channel: &str, members: &str) -> Vec<String> {
    client.say(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"{members}}}}}"#));
    stage.settle();
    words(&client.hear())
}

/// Clients and users that a client is told are there.
fn presence_stats(stage: &mut Stage, client: &mut Client, channel: &str) -> String {
    client.say(&format!(r#"{{"id":9,"presence_stats":{{"channel":"{channel}"}}}}"#));
    stage.settle();
    client.hear().pop().unwrap()
}

#[test]
fn everybody_hears_who_comes_and_who_goes() {
    for home in 0..3 {
        let mut stage = Stage::new(3, 1024, |_| {});
        let channel = stage.channel("all", home);
        let (mut first, mut second) = (stage.client(0, ROOM), stage.client(1, ROOM));
        assert_eq!(subscribe(&mut stage, &mut first, &channel, ""), ["subscribe", "join"], "its own join comes last");
        assert_eq!(subscribe(&mut stage, &mut second, &channel, ""), ["subscribe", "join"]);
        assert_eq!(words(&first.hear()), ["join"]);
        let stats = presence_stats(&mut stage, &mut second, &channel);
        assert_eq!(stats, r#"{"id":9,"presence_stats":{"num_clients":2,"num_users":1}}"#);
        second.say(&format!(r#"{{"id":3,"presence":{{"channel":"{channel}"}}}}"#));
        stage.settle();
        let presence: serde_json::Value = serde_json::from_str(&second.hear()[0]).unwrap();
        let clients = presence["presence"]["presence"].as_object().unwrap();
        assert_eq!(clients.len(), 2);
        assert!(clients.iter().all(|(client, info)| info["client"] == **client && info["user"] == ""), "{clients:?}");

        second.say(&format!(r#"{{"id":4,"unsubscribe":{{"channel":"{channel}"}}}}"#));
        stage.settle();
        assert_eq!(words(&second.hear()), ["unsubscribe"], "nobody hears its own leave");
        assert_eq!(words(&first.hear()), ["leave"]);
        let mut third = stage.client(2, ROOM);
        subscribe(&mut stage, &mut third, &channel, "");
        third.peer.reset();
        stage.settle();
        assert_eq!(words(&first.hear()), ["join", "leave"]);
        let stats = presence_stats(&mut stage, &mut second, &channel);
        assert_eq!(stats, r#"{"id":9,"presence_stats":{"num_clients":1,"num_users":1}}"#);
        drop(first);
        stage.settle();
        let members: u64 = stage.shards.iter().map(|shard| shard.figures().members).sum();
        assert_eq!(members, 0);
    }
}

#[test]
fn where_nobody_is_forced_to_hear_it_those_hear_that_ask() {
    let mut stage = Stage::new(2, 1024, |_| {});
    let channel = stage.channel("asked", 1);
    let (mut asks, mut other) = (stage.client(0, ROOM), stage.client(0, ROOM));
    assert_eq!(subscribe(&mut stage, &mut other, &channel, ""), ["subscribe"]);
    assert_eq!(subscribe(&mut stage, &mut asks, &channel, r#","join_leave":true"#), ["subscribe", "join"]);
    // Publications keep their place between the news.
    let third = stage.client(1, ROOM);
    for round in 0..3 {
        stage.publish(&channel, &round.to_string(), true);
        third.say(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#));
        stage.settle();
        stage.publish(&channel, &round.to_string(), true);
        third.say(&format!(r#"{{"id":3,"unsubscribe":{{"channel":"{channel}"}}}}"#));
        stage.settle();
    }
    assert_eq!(words(&asks.hear()), ["pub", "join", "pub", "leave"].repeat(3));
    assert_eq!(words(&other.hear()), ["pub"].repeat(6));
}

#[test]
fn too_many_to_name_are_an_error_and_whoever_asks_and_goes_is_not_answered() {
    let mut stage = Stage::new(1, 1024, |_| {});
    let mut client = stage.client(0, ROOM);
    let asks = |generation_ahead| {
        let state = &stage.shards[0].state;
        let connection = state.id(0);
        ConnectionId { generation: connection.generation + generation_ahead, ..connection }
    };
    for connection in [asks(0), asks(1)] {
        stage.shards[0].state.answered(connection, 9, &Answer::Presence(PresenceFound::TooMany));
    }
    stage.settle();
    assert_eq!(client.hear(), [r#"{"id":9,"error":{"code":106,"message":"limit exceeded"}}"#]);
}

#[test]
fn a_subscription_that_was_not_made_is_nobody() {
    let mut stage = Stage::new(1, 1024, |_| {});
    let mut watcher = stage.client(0, ROOM);
    subscribe(&mut stage, &mut watcher, "room:1", "");
    for number in 0..301 {
        stage.publish("room:1", &number.to_string(), true);
        stage.settle();
    }
    watcher.hear();
    let mut late = stage.client(0, ROOM);
    let from_the_beginning = r#","recover":true,"flag":2"#;
    assert_eq!(subscribe(&mut stage, &mut late, "room:1", from_the_beginning), ["error"]);
    assert!(watcher.hear().is_empty(), "nobody has come, so nobody goes");
    late.say(r#"{"id":3,"unsubscribe":{"channel":"room:1"}}"#);
    stage.settle();
    drop(late);
    stage.settle();
    assert!(watcher.hear().is_empty());
    assert_eq!(stage.shards[0].figures().members, 1);
}

#[test]
fn a_subscription_that_is_taken_back_comes_and_goes() {
    let mut stage = Stage::new(2, 1024, |_| {});
    let channel = stage.channel("all", 1);
    let mut watcher = stage.client(1, ROOM);
    subscribe(&mut stage, &mut watcher, &channel, "");
    let mut client = stage.client(0, ROOM);
    // The home shard has no turn between the two commands.
    client.say(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#));
    client.say(&format!(r#"{{"id":3,"unsubscribe":{{"channel":"{channel}"}}}}"#));
    stage.settle();
    assert_eq!(words(&client.hear()), ["error", "unsubscribe"]);
    assert_eq!(words(&watcher.hear()), ["join", "leave"]);
    // The same by going.
    client.say(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#));
    while stage.network.carry() {}
    stage.shards[0].turn();
    client.peer.reset();
    stage.settle();
    assert_eq!(words(&watcher.hear()), ["join", "leave"]);
    assert_eq!(stage.shards[1].figures().members, 1);
}

#[test]
fn a_recovery_that_does_not_fit_leaves_again() {
    let mut stage = Stage::new(1, 1024, |_| {});
    let mut watcher = stage.client(0, ROOM);
    for channel in ["room:1", "room:2", "room:3"] {
        subscribe(&mut stage, &mut watcher, channel, "");
        for _ in 0..8 {
            stage.publish(channel, &format!("\"{}\"", "x".repeat(900_000)), true);
            stage.settle();
        }
    }
    watcher.hear();
    let mut slow = stage.client(0, 1_000);
    for channel in ["room:1", "room:2", "room:3"] {
        slow.say(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}","recover":true,"flag":2}}}}"#));
        stage.settle();
    }
    assert_eq!(words(&watcher.hear()), ["join", "join", "join", "leave"]);
    slow.read(usize::MAX);
    assert_eq!(stage.shards[0].figures().members, 5);
}

#[test]
fn a_shard_that_stops_says_goodbye_for_all_and_holds_little_back() {
    const CLIENTS: usize = 300;
    let mut stage = Stage::new(2, 4, |_| {});
    let channel = stage.channel("all", 1);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| stage.client(0, ROOM)).collect();
    for client in &mut clients {
        client.say(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#));
        stage.settle();
    }
    while presence_stats(&mut stage, &mut clients[0], &channel) != stats_of(CLIENTS) {}
    clients.iter_mut().for_each(|client| drop(client.hear()));
    stage.control.to_shards[0].send(ToShard::Shutdown { spread_ms: 0 });
    let mut held_max = 0;
    for _ in 0..CLIENTS {
        stage.shards[0].turn();
        held_max = held_max.max(stage.shards[0].state.mesh.held());
        stage.shards[1].turn();
        stage.network.pass(1);
    }
    assert!(held_max <= 8, "{held_max} messages were held back");
    stage.settle();
    assert_eq!(stage.shards[1].figures().members, 0);
    for client in &mut clients {
        assert_eq!(client.hear(), ["close 3001"], "that all go, all see");
    }
}

fn stats_of(clients: usize) -> String {
    format!(r#"{{"id":9,"presence_stats":{{"num_clients":{clients},"num_users":1}}}}"#)
}
