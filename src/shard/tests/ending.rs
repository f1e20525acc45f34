//! How connections end, and what must not come behind their end.

use super::*;
use crate::{protocol::Disconnect, session::Reason};

#[test]
fn nothing_follows_a_close_frame() {
    let mut stage = Stage::new(1, 1024, |_| {});
    let mut client = stage.subscriber(0, ROOM, "plain:1");
    stage.publish("plain:1", "1", true);
    stage.shards[0].turn();
    // The publication is delivered in the turn in which the client is told to go.
    stage.control.to_shards[0].send(ToShard::Shutdown { spread_ms: 0 });
    stage.shards[0].turn();
    let heard = client.hear();
    assert_eq!(heard.last().map(String::as_str), Some("close 3001"), "{heard:?}");
}

#[test]
fn a_slow_client_that_is_gone_takes_nobody_along() {
    let mut stage = Stage::new(1, 1024, |config| {
        config.shards.outbox_bytes_max = 4_096;
        config.shards.outboxes_bytes_max = 4_096;
    });
    for _ in 0..100 {
        stage.publish("kept:1", &format!("\"{}\"", "x".repeat(200)), true);
    }
    stage.settle();
    let slow = stage.client(0, 1_000);
    // A part of the reply goes out; what is left is longer than all outboxes may be.
    slow.say(r#"{"id":2,"history":{"channel":"kept:1","limit":100}}"#);
    while stage.network.carry() {}
    while stage.shards[0].figures().outboxes == 0 {
        stage.shards[0].turn();
    }
    stage.shards[0].turn();
    assert_eq!((stage.shards[0].figures().sockets, stage.count(0, "memory")), (0, 1));
    // The next client has its slot.
    let mut next = Client { peer: stage.network.connect(0, ROOM), unread: Vec::new(), is_ended: false };
    next.peer.write(UPGRADE);
    stage.settle();
    next.take_head();
    assert_eq!((stage.shards[0].figures().sockets, stage.count(0, "slow")), (1, 0));
}

#[test]
fn a_client_that_was_paused_is_heard_when_it_ends() {
    let mut stage = Stage::new(2, 1024, |_| {});
    // A channel whose home is the other shard, which does not answer yet.
    let channel = stage.channel("plain", 1);
    let mut client = stage.stranger(0, ROOM);
    client.say(&format!(r#"{{"id":1,"connect":{{"subs":{{"{channel}":{{}}}}}}}}"#));
    while stage.network.carry() {}
    stage.shards[0].turn();
    stage.shards[0].turn();
    client.say("{}");
    while stage.network.carry() {}
    stage.shards[0].turn();
    stage.control.to_shards[0].send(ToShard::Shutdown { spread_ms: 0 });
    stage.shards[0].turn();
    stage.shards[0].turn();
    assert_eq!(client.hear(), ["close 3001"]);
    client.peer.finish();
    while stage.network.carry() {}
    stage.shards[0].turn();
    stage.shards[0].turn();
    assert_eq!(stage.shards[0].figures().sockets, 0, "its end is seen without waiting for a deadline");
}

#[test]
fn a_client_that_reads_late_learns_that_it_was_upgraded_before_it_was_ended() {
    let stream = "POST /connection/sse HTTP/1.1\r\nHost: a\r\nContent-Length: 21\r\n\r\n{\"id\":1,\"connect\":{}}";
    for (request, answer, end) in [
        (UPGRADE, "HTTP/1.1 101 ", &b"\x88\x0a\x0b\xb9shutdown"[..]),
        (stream.as_bytes(), "HTTP/1.1 200 ", b"0\r\n\r\n"),
    ] {
        let mut stage = Stage::new(1, 1024, |_| {});
        let before = "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n";
        let mut client = Client { peer: stage.network.connect(0, before.len()), unread: Vec::new(), is_ended: false };
        let body = format!(r#"{{"node":"{}"}}"#, stage.shards[0].state.session_ids.node());
        let uplink = format!("POST /emulation HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        client.peer.write(uplink.as_bytes());
        stage.settle();
        // The answer fills what the client has room for.
        client.peer.write(request);
        stage.settle();
        let index = stage.shards[0].state.connections.iter().next().unwrap().0 as u32;
        stage.shards[0].state.disconnect(index, Disconnect::SHUTDOWN, Reason::Shutdown);
        for _ in 0..20 {
            client.read(usize::MAX);
            stage.settle();
        }
        let text = String::from_utf8_lossy(&client.unread);
        let rest = text.strip_prefix(before).expect("the first answer");
        assert!(rest.starts_with(answer) && client.unread.ends_with(end), "{text}");
    }
}

#[test]
fn a_client_whose_connect_takes_too_long_is_told_so() {
    let mut stage = Stage::new(2, 1024, |_| {});
    let (far, near) = (stage.channel("plain", 1), stage.channel("plain", 0));
    let mut client = stage.stranger(0, ROOM);
    client.say(&format!(r#"{{"id":1,"connect":{{"subs":{{"{far}":{{}},"{near}":{{}}}}}}}}"#));
    while stage.network.carry() {}
    // The home of one channel answers, that of the other does not.
    for _ in 0..4 {
        stage.shards[0].turn();
    }
    stage.network.pass(20_000);
    for _ in 0..4 {
        stage.shards[0].turn();
    }
    assert_eq!(client.hear(), ["close 3502"]);
}
