//! What happens around the connect reply.

use super::*;

#[test]
fn what_was_said_before_connect_comes_before_its_reply() {
    let mut stage = Stage::new(1, 1024, |_| {});
    let mut client = Client { peer: stage.network.connect(0, 50), unread: Vec::new(), is_ended: false };
    client.peer.write(UPGRADE);
    stage.settle();
    // The answer to the upgrade is half-way when the client connects.
    client.say(r#"{"id":1,"connect":{"subs":{"plain:1":{}}}}"#);
    stage.settle();
    stage.publish("plain:1", "1", true);
    while !client.unread.ends_with(br#""pub":{"data":1}}}"#) {
        client.read(usize::MAX);
        stage.settle();
    }
    client.take_head();
    let heard = client.hear();
    assert!(heard[0].contains(r#""connect""#) && heard[1].contains(r#""push""#) && heard.len() == 2, "{heard:?}");
    assert_eq!(stage.shards[0].figures().outbox_bytes, 0);
}

#[test]
fn a_position_that_is_gone_does_not_hang_a_connect() {
    let mut stage = Stage::new(1, 1024, |_| {});
    let mut client = stage.stranger(0, ROOM);
    client.say(r#"{"id":1,"connect":{"subs":{"kept:1":{"recover":true,"offset":5,"epoch":"gone","flag":2}}}}"#);
    stage.settle();
    let heard = client.hear();
    assert!(heard.len() == 1 && heard[0].contains(r#""was_recovering":true"#), "{heard:?}");
}
