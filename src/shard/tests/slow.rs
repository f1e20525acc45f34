//! Clients that do not read, and what that means for them and for others.

use super::*;
use crate::limits::{HISTORY_REPLY_BYTES_MAX, TURN_BYTES_MAX};

#[test]
fn a_slow_client_resumes_its_own_subscription_by_itself_and_the_servers_by_connecting() {
    for (command, expected) in [
        (r#"{"id":1,"connect":{}}{"id":2,"subscribe":{"channel":"sync:1"}}"#, r#""unsubscribe":{"code":2500"#),
        (r#"{"id":1,"connect":{"subs":{"sync:1":{}}}}"#, "close 3010"),
    ] {
        let mut stage = Stage::new(1, 1024, |config| config.shards.outbox_bytes_max = 4_096);
        let mut client = stage.stranger(0, 500);
        client.say(&command.replace("}{", "}\n{"));
        stage.settle();
        client.hear();
        for _ in 0..100 {
            stage.publish("sync:1", &format!("\"{}\"", "x".repeat(100)), true);
            stage.settle();
        }
        let mut heard = Vec::new();
        for _ in 0..100 {
            heard.append(&mut client.hear());
            stage.settle();
        }
        assert!(heard.last().is_some_and(|last| last.contains(expected)), "{:?}", heard.last());
        assert_eq!(stage.count(0, "resync"), 1);
    }
}

#[test]
fn a_turn_does_not_encode_more_than_it_may() {
    let mut stage = Stage::new(1, 1024, |_| {});
    let data = format!("\"{}\"", "x".repeat(900_000));
    for _ in 0..20 {
        stage.publish("kept:1", &data, true);
    }
    stage.settle();
    let mut client = stage.client(0, ROOM);
    let questions = [r#"{"id":2,"history":{"channel":"kept:1","limit":20}}"#; 8].join("\n");
    client.say(&questions);
    let mut replies = 0;
    while stage.network.carry() {}
    for turn in 0.. {
        assert!(turn < 100, "{replies} of 8 questions are answered");
        let before = stage.shards[0].figures().bytes_sent;
        stage.shards[0].turn();
        let sent = (stage.shards[0].figures().bytes_sent - before) as usize;
        assert!(sent <= TURN_BYTES_MAX + HISTORY_REPLY_BYTES_MAX + 1_000_000, "{sent} bytes in one turn");
        for reply in client.hear() {
            // What would be 18 MB is cut, and the client asks for the rest.
            assert_eq!(reply.matches(r#""offset""#).count(), 18 + 1);
            replies += 1;
        }
        if replies == 8 {
            break;
        }
    }
}

#[test]
fn a_broadcast_is_encoded_once() {
    let mut stage = Stage::new(1, 1024, |_| {});
    let mut clients: Vec<_> = (0..100).map(|_| stage.client(0, ROOM)).collect();
    stage.ingest.to_shards[0].send(ToShard::Broadcast {
        data: Bytes::from(format!("\"{}\"", "x".repeat(TURN_BYTES_MAX / 50))),
        reply_to: ReplyTo::Nobody,
    });
    // Were it encoded for each, it would leave no room for this in the turn.
    stage.publish("kept:1", "1", true);
    stage.shards[0].turn();
    assert_eq!(stage.shards[0].figures().publications, 1);
    assert!(clients.iter_mut().all(|client| client.hear().len() == 1));
}

#[test]
fn what_a_client_has_missed_makes_it_not_slow() {
    // What is recovered is longer than what may wait, and publications come while it waits.
    let mut stage = Stage::new(1, 1024, |config| config.shards.outbox_bytes_max = 4_096);
    for number in 0..200 {
        stage.publish("kept:1", &format!("\"{number} {}\"", "x".repeat(100)), true);
    }
    stage.settle();
    let mut client = stage.client(0, 500);
    client.say(r#"{"id":2,"subscribe":{"channel":"kept:1","recover":true,"epoch":""}}"#);
    stage.settle();
    let mut heard = Vec::new();
    for number in 200..220 {
        stage.publish("kept:1", &format!("\"{number}\""), true);
        heard.append(&mut client.hear());
        stage.settle();
    }
    for _ in 0..200 {
        heard.append(&mut client.hear());
        stage.settle();
    }
    assert!(heard[0].contains(r#""recovered":true"#) && heard[0].matches(r#""offset""#).count() == 200, "{}", heard[0]);
    assert_eq!(heard.len(), 1 + 20, "{:?}", heard.last());
    assert_eq!(stage.shards[0].figures().outbox_bytes, 0);
}

#[test]
fn a_client_that_reads_no_replies_recovers_only_so_much() {
    let mut stage = Stage::new(1, 1024, |config| config.shards.outbox_bytes_max = 4_096);
    let channels: Vec<String> = (0..4).map(|number| format!("kept:{number}")).collect();
    let data = format!("\"{}\"", "x".repeat(900_000));
    for channel in &channels {
        for _ in 0..8 {
            stage.publish(channel, &data, true);
            stage.settle();
        }
    }
    let mut client = stage.client(0, 100_000);
    for (channel, flag) in channels.iter().zip([0, 0, 0, 2]) {
        let recover = format!(r#""channel":"{channel}","recover":true,"flag":{flag}"#);
        client.say(&format!(r#"{{"id":2,"subscribe":{{{recover}}}}}"#));
        stage.settle();
    }
    let mut heard = Vec::new();
    while heard.len() < channels.len() {
        heard.append(&mut client.hear());
        stage.settle();
    }
    let recovered: Vec<bool> = heard.iter().map(|reply| reply.contains(r#""recovered":true"#)).collect();
    assert_eq!(recovered, [true, true, false, false]);
    assert!(heard[2].contains(r#""was_recovering":true"#) && heard[2].contains(r#""offset":8"#), "{}", heard[2]);
    assert!(heard[3].contains(r#""code":112"#), "{}", heard[3]);
}
