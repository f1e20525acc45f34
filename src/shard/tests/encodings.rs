//! What each encoding can carry, and what becomes of clients that would have to be sent something else.

use super::*;

const BYTES: &str = "no JSON";

#[test]
fn a_publication_that_is_no_json_parts_with_subscribers_in_json() {
    let mut stage = Stage::new(1, 1024, |_| {});
    let mut subscriber = stage.subscriber(0, ROOM, "plain:1");
    let mut other = stage.subscriber(0, ROOM, "plain:2");
    stage.publish("plain:1", "1", true);
    stage.publish("plain:1", BYTES, false);
    stage.settle();
    let heard = subscriber.hear();
    assert_eq!(heard, [r#"{"push":{"channel":"plain:1","pub":{"data":1}}}"#, "close 3506"]);
    assert!(other.hear().is_empty());
    assert_eq!(stage.count(0, "inappropriate_protocol"), 1);
}

#[test]
fn a_history_that_is_no_json_parts_with_who_asks_for_it_in_json() {
    let mut stage = Stage::new(1, 1024, |_| {});
    stage.publish("kept:1", "1", true);
    stage.settle();
    let mut client = stage.client(0, ROOM);
    client.say(r#"{"id":2,"history":{"channel":"kept:1","limit":10}}"#);
    stage.settle();
    assert!(client.hear()[0].contains(r#""publications":[{"data":1,"offset":1}]"#));
    stage.publish("kept:1", BYTES, false);
    stage.settle();
    client.say("{\"id\":3,\"history\":{\"channel\":\"kept:1\",\"limit\":1}}\n{\"id\":4,\"history\":{\"channel\":\"kept:1\",\"limit\":10}}");
    stage.settle();
    let heard = client.hear();
    assert_eq!((heard.len(), &*heard[1]), (2, "close 3506"), "{heard:?}");
}

#[test]
fn a_recovery_that_is_no_json_parts_with_who_asks_for_it_in_json() {
    for (connect, subscribe) in [
        (r#"{"id":1,"connect":{}}"#, r#"{"id":2,"subscribe":{"channel":"kept:1","recover":true}}"#),
        (r#"{"id":1,"connect":{"subs":{"kept:1":{"recover":true}}}}"#, "{}"),
    ] {
        let mut stage = Stage::new(2, 1024, |_| {});
        stage.publish("kept:1", BYTES, false);
        stage.settle();
        let mut client = stage.stranger(0, ROOM);
        client.say(&format!("{connect}\n{subscribe}"));
        stage.settle();
        assert_eq!(client.hear().last().map(String::as_str), Some("close 3506"));
        // Nothing of the subscription is left.
        stage.publish("kept:1", "1", true);
        stage.settle();
        assert!(client.hear().is_empty());
        assert_eq!((stage.count(0, "inappropriate_protocol"), stage.shards[0].figures().subscriptions), (1, 0));
    }
}
