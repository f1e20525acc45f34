//! Subscriptions that the server makes and ends.

use super::*;
use crate::{protocol::Unsubscribe, session::Terms};

/// What the server API would grant for a channel with history.
fn terms() -> Terms {
    Terms { positioned: true, recoverable: true, ..Terms::default() }
}

#[test]
fn a_connected_client_is_subscribed_and_unsubscribed_by_pushes() {
    let mut stage = Stage::new(2, 1024, |_| {});
    let channel = stage.channel("kept", 1);
    stage.publish(&channel, "1", true);
    let mut client = stage.client(0, ROOM);
    let index = stage.shards[0].state.connected().next().unwrap();
    let data = Some(Bytes::from_static(b"{\"from\":\"server\"}"));
    stage.shards[0].state.subscribe_by_server(index, &channel, Terms { data, ..terms() });
    // Asked for twice while the home shard is asked, it is made once.
    stage.shards[0].state.subscribe_by_server(index, &channel, terms());
    client.say(&format!(r#"{{"id":5,"subscribe":{{"channel":"{channel}"}}}}"#));
    stage.settle();
    stage.publish(&channel, "2", true);
    stage.settle();
    let heard: Vec<serde_json::Value> = client.hear().iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    assert_eq!(heard.len(), 3, "{heard:?}");
    assert_eq!(heard[0]["error"]["code"], 105);
    let subscribe = &heard[1]["push"]["subscribe"];
    assert_eq!(heard[1]["push"]["channel"], channel);
    assert_eq!(
        (&subscribe["offset"], &subscribe["recoverable"], &subscribe["positioned"]),
        (&1.into(), &true.into(), &true.into())
    );
    assert_eq!(subscribe["data"]["from"], "server");
    assert_eq!(heard[2]["push"]["pub"]["offset"], 2);

    stage.shards[0].state.unsubscribe_by_server(index, &channel, Unsubscribe::SERVER);
    stage.shards[0].state.unsubscribe_by_server(index, &channel, Unsubscribe::SERVER);
    stage.publish(&channel, "3", true);
    stage.settle();
    let expected =
        format!(r#"{{"push":{{"channel":"{channel}","unsubscribe":{{"code":2000,"reason":"server unsubscribe"}}}}}}"#);
    assert_eq!(client.hear(), [expected], "once, and nothing follows");
    assert_eq!(stage.shards[0].figures().subscriptions, 0);
}

#[test]
fn what_a_server_side_subscription_has_missed_follows_it() {
    let mut stage = Stage::new(1, 1024, |_| {});
    for number in 0..3 {
        stage.publish("kept:1", &number.to_string(), true);
    }
    let mut client = stage.client(0, ROOM);
    let recover = Some(crate::mesh::Position { offset: 1, epoch: "".into() });
    stage.shards[0].state.subscribe_by_server(0, "kept:1", Terms { recover, ..terms() });
    stage.settle();
    let heard: Vec<serde_json::Value> = client.hear().iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    assert_eq!(heard[0]["push"]["subscribe"]["offset"], 1, "the client advances by what follows");
    let offsets: Vec<_> = heard[1..].iter().map(|push| push["push"]["pub"]["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets, [2, 3]);
}

#[test]
fn a_client_that_connects_learns_it_from_the_reply() {
    let mut stage = Stage::new(2, 1024, |_| {});
    let (far, late) = (stage.channel("kept", 1), stage.channel("plain", 1));
    let mut client = stage.stranger(0, ROOM);
    client.say(&format!(r#"{{"id":1,"connect":{{"subs":{{"{far}":{{}}}}}}}}"#));
    while stage.network.carry() {}
    stage.shards[0].turn();
    stage.shards[0].turn();
    let state = &mut stage.shards[0].state;
    assert!(state.is_connecting(0));
    state.subscribe_by_server(0, &late, Terms::default());
    state.subscribe_by_server(0, &far, terms());
    stage.settle();
    let heard = client.hear();
    let reply: serde_json::Value = serde_json::from_str(&heard[0]).unwrap();
    let subs = reply["connect"]["subs"].as_object().unwrap();
    assert_eq!((heard.len(), subs.len()), (1, 2), "{heard:?}");
    assert!(subs.contains_key(&far) && subs.contains_key(&late));
}

#[test]
fn the_server_ends_whatever_there_is() {
    let mut stage = Stage::new(2, 1024, |_| {});
    let (own, far) = (stage.channel("plain", 0), stage.channel("plain", 1));
    let mut client = stage.subscriber(0, ROOM, &own);
    let state = &mut stage.shards[0].state;
    // The client's own subscription, one that waits for its home shard, and one that is not there.
    state.unsubscribe_by_server(0, &own, Unsubscribe::EXPIRED);
    client.say(&format!(r#"{{"id":7,"subscribe":{{"channel":"{far}"}}}}"#));
    while stage.network.carry() {}
    stage.shards[0].turn();
    let state = &mut stage.shards[0].state;
    state.unsubscribe_by_server(0, &far, Unsubscribe::SERVER);
    state.unsubscribe_by_server(0, "plain:none", Unsubscribe::SERVER);
    stage.settle();
    let heard = client.hear();
    assert_eq!(heard.len(), 3, "{heard:?}");
    assert!(heard[0].contains(r#""code":2501"#) && heard[1].contains(r#""code":103"#) && heard[2].contains("2000"));
    // One that is under way by the server is taken back without a word.
    stage.shards[0].state.subscribe_by_server(0, &far, Terms::default());
    stage.shards[0].state.unsubscribe_by_server(0, &far, Unsubscribe::SERVER);
    stage.settle();
    assert!(client.hear().is_empty());
    assert_eq!(stage.shards[0].figures().subscriptions, 0);
}
