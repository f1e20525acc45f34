//! Topics: one of a channel for each form, and a user's connections in that of its personal channel.

use super::*;
use crate::{
    fanout::Form,
    mesh::ToIngest,
    protocol::{Claims, mint},
    session::Terms,
};

const SECRET: &str = "a secret of the tests";

fn stage(personal_channel: bool) -> Stage {
    Stage::new(1, 1024, |config| {
        config.client.token.hmac_secret = Some(SECRET.into());
        config.client.personal_channel = personal_channel;
    })
}

/// A client in the form; nothing reads its output but by eye, so the form changes the topics only.
fn connect(stage: &mut Stage, user: &str, form: Form) -> Client {
    let known: Vec<usize> = indices(stage);
    let mut client = stage.stranger(0, ROOM);
    let index = indices(stage).into_iter().find(|index| !known.contains(index)).expect("a client has a slot");
    stage.shards[0].state.connections[index].form = form;
    let token = mint(SECRET.as_bytes(), &Claims { sub: user, ..Claims::default() });
    client.say(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
    stage.settle();
    assert!(client.hear()[0].contains(r#""connect""#));
    client
}

fn indices(stage: &Stage) -> Vec<usize> {
    stage.shards[0].state.connections.iter().map(|(index, _)| index).collect()
}

/// What the channel's home shard counts, once it has been told.
fn subscribers(stage: &mut Stage, channel: &str) -> u32 {
    for _ in 0..20 {
        stage.network.pass(10);
        stage.settle();
    }
    let channels = vec![stage.hasher.name(channel)];
    let reply_to = ReplyTo::Ingest { connection: 1, sequence: 1 };
    stage.ingest.to_shards[0].send(ToShard::CountSubscribers { channels, reply_to });
    stage.settle();
    while let Ok(message) = stage.ingest.inbound[0].try_recv() {
        if let ToIngest::Subscribers { counts, .. } = message {
            return counts[0].1;
        }
    }
    panic!("a home shard answers");
}

fn connections_of(stage: &Stage, user: &str) -> usize {
    stage.shards[0].state.connections_of_user(user).len()
}

#[test]
fn a_users_connections_are_found_in_any_form_and_subscribed_or_not() {
    for personal_channel in [true, false] {
        let mut stage = stage(personal_channel);
        let mut clients = [Form::default(), Form::OTHER, Form::default()].map(|form| connect(&mut stage, "ann", form));
        let mut other = connect(&mut stage, "bob", Form::default());
        let _anonymous = stage.client(0, ROOM);
        assert_eq!((connections_of(&stage, "ann"), connections_of(&stage, "bob")), (3, 1));
        assert_eq!(connections_of(&stage, ""), 0);
        let subscribed = if personal_channel { 3 } else { 0 };
        assert_eq!(subscribers(&mut stage, "#ann"), subscribed);

        stage.publish("#ann", "1", true);
        stage.settle();
        for client in &mut clients {
            assert_eq!(client.hear().len(), usize::from(personal_channel));
        }
        assert!(other.hear().is_empty());

        clients[1].peer.finish();
        stage.settle();
        stage.settle();
        assert_eq!(connections_of(&stage, "ann"), 2);
        drop(clients);
    }
}

#[test]
fn a_client_that_leaves_its_personal_channel_is_silent_until_it_comes_back() {
    let mut stage = stage(true);
    let mut first = connect(&mut stage, "ann", Form::default());
    let mut second = connect(&mut stage, "ann", Form::default());
    first.say(r##"{"id":2,"unsubscribe":{"channel":"#ann"}}"##);
    stage.settle();
    assert!(first.hear()[0].contains(r#""unsubscribe""#));
    assert_eq!((connections_of(&stage, "ann"), subscribers(&mut stage, "#ann")), (2, 1));
    assert_eq!(stage.shards[0].figures().subscriptions, 1);

    stage.publish("#ann", "1", true);
    stage.settle();
    assert_eq!((first.hear().len(), second.hear().len()), (0, 1));

    // Only the server makes this subscription; here it does so once more.
    let index = stage.shards[0].state.connections_of_user("ann")[1];
    assert_eq!(index, 0, "who is silent comes last");
    stage.shards[0].state.begin_subscribe(index, "#ann", 3, Terms::default());
    stage.settle();
    assert!(first.hear()[0].contains(r#""subscribe""#));
    assert_eq!((connections_of(&stage, "ann"), subscribers(&mut stage, "#ann")), (2, 2));
    stage.publish("#ann", "2", true);
    stage.settle();
    assert_eq!((first.hear().len(), second.hear().len()), (1, 1));

    for client in [&first, &second] {
        client.say(r##"{"id":4,"unsubscribe":{"channel":"#ann"}}"##);
    }
    stage.settle();
    assert_eq!((connections_of(&stage, "ann"), subscribers(&mut stage, "#ann")), (2, 0));
    assert_eq!(stage.shards[0].figures().channels, 1, "the topic lasts as long as its user is here");
    first.peer.finish();
    second.peer.finish();
    stage.settle();
    stage.settle();
    assert_eq!(stage.shards[0].figures().channels, 0);
}

#[test]
fn a_channel_is_delivered_to_every_form_and_counted_once() {
    let mut stage = stage(false);
    let mut clients = [Form::default(), Form::OTHER, Form::OTHER].map(|form| connect(&mut stage, "ann", form));
    for client in &mut clients {
        client.say(r#"{"id":2,"subscribe":{"channel":"plain:1"}}"#);
        stage.settle();
        assert!(client.hear()[0].contains(r#""subscribe""#));
    }
    assert_eq!(subscribers(&mut stage, "plain:1"), 3);
    let sent_before = stage.shards[0].figures().messages_sent;
    stage.publish("plain:1", "7", true);
    stage.settle();
    for client in &mut clients {
        assert_eq!(client.hear().len(), 1);
    }
    let figures = stage.shards[0].figures();
    assert_eq!((figures.deliveries, figures.messages_sent - sent_before), (1, 3));
    let top = &figures.top_channels[0];
    assert_eq!((&*top.name, top.subscribers, top.deliveries), ("plain:1", 3, 1));

    // The default form's only subscriber goes: the others go on.
    clients[0].say(r#"{"id":3,"unsubscribe":{"channel":"plain:1"}}"#);
    stage.settle();
    assert_eq!(subscribers(&mut stage, "plain:1"), 2);
    let reply_to = ReplyTo::Ingest { connection: 1, sequence: 2 };
    stage.ingest.to_shards[0].send(ToShard::ListChannels { pattern: None, reply_to });
    stage.publish("plain:1", "8", true);
    stage.settle();
    assert_eq!([0, 1, 2].map(|client| clients[client].hear().len()), [1, 1, 1], "the first hears its reply");
    match stage.ingest.inbound[0].try_recv() {
        Ok(ToIngest::Channels { names, .. }) => assert_eq!(names, ["plain:1".into()]),
        other => panic!("unexpected {other:?}"),
    }
}
