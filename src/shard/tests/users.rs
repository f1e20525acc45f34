//! Topics: one of a channel for each form, and a user's connections in that of its personal channel.

use super::*;
use crate::{
    fanout::Form,
    mesh::{Answer, Census, ToIngest},
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
        if let ToIngest::Answer { answer: Answer::Subscribers(counts), .. } = message {
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
        Ok(ToIngest::Answer { answer: Answer::Channels(names), .. }) => assert_eq!(names, [("plain:1".into(), 2)]),
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn a_census_finds_channels_with_subscribers_and_users_with_connections() {
    let mut stage = stage(false);
    let hash = |stage: &Stage, names: &[&str]| {
        let mut hashes: Vec<u64> = names.iter().map(|name| stage.hasher.name(name).hash).collect();
        hashes.sort_unstable();
        hashes
    };
    let found = |stage: &Stage| {
        let Census { mut channels, mut users, next } = stage.shards[0].state.census(0);
        assert_eq!(next, None);
        for hashes in [&mut channels, &mut users] {
            hashes.sort_unstable();
            hashes.dedup();
        }
        (channels, users)
    };
    assert_eq!(found(&stage), (Vec::new(), Vec::new()));
    let mut clients = [("ann", Form::default()), ("ann", Form::OTHER), ("bob", Form::default())]
        .map(|(user, form)| connect(&mut stage, user, form));
    let mut anonymous = stage.client(0, ROOM);
    // Nobody is subscribed: the users' topics are no channels.
    assert_eq!(found(&stage), (Vec::new(), hash(&stage, &["#ann", "#bob"])));
    for client in clients.iter_mut().chain([&mut anonymous]) {
        client.say(r#"{"id":2,"subscribe":{"channel":"plain:1"}}"#);
        stage.settle();
        assert!(client.hear()[0].contains(r#""subscribe""#));
    }
    assert_eq!(found(&stage), (hash(&stage, &["plain:1"]), hash(&stage, &["#ann", "#bob"])));
    clients[2].peer.finish();
    anonymous.peer.finish();
    stage.settle();
    stage.settle();
    assert_eq!(found(&stage), (hash(&stage, &["plain:1"]), hash(&stage, &["#ann"])));
    drop(clients);
}

/// As many connections of one user as there may be, on several shards.
const CONNECTIONS_MAX: u32 = 2;

fn limited() -> Stage {
    Stage::new(2, 1024, |config| {
        config.client.token.hmac_secret = Some(SECRET.into());
        config.client.user_connections_max = CONNECTIONS_MAX;
    })
}

/// Says connect, with one channel beside the personal one; the answer is yet to come.
fn say_connect(client: &Client, user: &str) {
    let channels = ["plain:1".to_owned()];
    let token = mint(SECRET.as_bytes(), &Claims { sub: user, channels: &channels, ..Claims::default() });
    client.say(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
}

/// Users that home shards count, and connections in the slabs.
fn counted(stage: &Stage) -> (u64, u64) {
    let figures: Vec<_> = stage.shards.iter().map(|shard| shard.figures()).collect();
    (figures.iter().map(|figures| figures.users).sum(), figures.iter().map(|figures| figures.sockets).sum())
}

#[test]
fn a_user_has_no_more_connections_than_allowed_on_all_shards_together() {
    for user in ["ann", "bob", "carl", "dora"] {
        let mut stage = limited();
        let mut clients: Vec<Client> = (0..5).map(|place| stage.stranger(place % 2, ROOM)).collect();
        // All at once: the home shard decides.
        clients.iter().for_each(|client| say_connect(client, user));
        stage.settle();
        stage.settle();
        let heard: Vec<String> = clients.iter_mut().map(|client| client.hear().remove(0)).collect();
        let connected = heard.iter().filter(|heard| heard.contains(&format!(r##""#{user}":{{}}"##))).count();
        let refused = heard.iter().filter(|heard| *heard == "close 3504").count();
        assert_eq!((connected, refused), (2, 3), "{heard:?}");
        assert_eq!(stage.count(0, "user_connections_exhausted") + stage.count(1, "user_connections_exhausted"), 3);
        let mut other = stage.stranger(0, ROOM);
        say_connect(&other, "other");
        let mut anonymous = stage.client(1, ROOM);
        stage.settle();
        assert!(other.hear()[0].contains(r#""connect""#), "users do not share a limit");
        assert!(anonymous.hear().is_empty());

        // Whoever goes makes room.
        let place = heard.iter().position(|heard| heard.contains(r#""connect""#)).unwrap();
        clients.remove(place).peer.reset();
        stage.settle();
        let mut next = stage.stranger(1, ROOM);
        say_connect(&next, user);
        stage.settle();
        assert!(next.hear()[0].contains(r#""connect""#));
        drop((clients, other, anonymous, next));
        stage.settle();
        stage.settle();
        assert_eq!(counted(&stage), (0, 0));
    }
}

#[test]
fn a_client_that_goes_while_its_user_is_counted_leaves_nothing() {
    for user in ["ann", "bob", "carl", "dora"] {
        for shard in [0, 1] {
            for turns in 0..6 {
                let mut stage = limited();
                let client = stage.stranger(shard, ROOM);
                say_connect(&client, user);
                while stage.network.carry() {}
                for _ in 0..turns {
                    stage.shards[turns % 2].turn();
                }
                client.peer.reset();
                stage.settle();
                stage.settle();
                assert_eq!(counted(&stage), (0, 0), "{user} on shard {shard}, after {turns} turns");
            }
        }
    }
}

#[test]
fn a_client_whose_admission_takes_too_long_is_told_so() {
    let mut stage = limited();
    let mut users = (0..).map(|number| format!("u{number}"));
    let user = users.find(|user| stage.hasher.name(&format!("#{user}")).home(2) == 1).unwrap();
    let mut client = stage.stranger(0, ROOM);
    say_connect(&client, &user);
    while stage.network.carry() {}
    // The home shard does nothing meanwhile.
    (0..4).for_each(|_| _ = stage.shards[0].turn());
    stage.network.pass(20_000);
    (0..4).for_each(|_| _ = stage.shards[0].turn());
    assert_eq!(client.hear(), ["close 3502"]);
    stage.settle();
    assert_eq!(counted(&stage).0, 0);
}

#[test]
fn users_are_found_by_personal_channels_of_a_namespace_too() {
    let mut stage = Stage::new(1, 1024, |config| {
        config.client.token.hmac_secret = Some(SECRET.into());
        config.client.personal_channel_namespace = Some("kept".to_owned());
    });
    let mut client = connect(&mut stage, "ann", Form::default());
    assert_eq!((connections_of(&stage, "ann"), connections_of(&stage, "kept:#ann")), (1, 0));
    assert_eq!(stage.shards[0].state.user(0), "ann");
    stage.publish("kept:#ann", "1", true);
    stage.publish("#ann", "2", true);
    stage.settle();
    let heard = client.hear();
    assert_eq!(heard.len(), 1);
    assert!(heard[0].contains(r##""channel":"kept:#ann","pub":{"data":1,"offset":1"##), "{heard:?}");
}

#[test]
fn what_sdks_call_themselves_costs_an_idle_client_no_memory_outside_of_its_slot() {
    let mut stage = stage(true);
    let mut client = stage.stranger(0, ROOM);
    let token = mint(SECRET.as_bytes(), &Claims { sub: "ann", ..Claims::default() });
    client.say(&format!(r#"{{"id":1,"connect":{{"token":"{token}","name":"js","version":"5.8.0"}}}}"#));
    stage.settle();
    assert!(client.hear()[0].contains(r#""connect""#));
    let state = &stage.shards[0].state;
    let program = state.connections[0].program;
    assert_eq!(state.programs.get(program), ("js", "5.8.0"));
    assert!(state.connections[0].extra.is_none());
    drop(client);
    stage.settle();
    assert_eq!(stage.shards[0].state.programs.get(program), ("", ""));
}
