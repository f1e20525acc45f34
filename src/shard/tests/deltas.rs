//! Publications as patches to each other: who is sent what, and that every client ends with what was published.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;
use crate::{
    channel::Random,
    config::DeltaType,
    fanout::{Carrier, Content, Form},
    protocol::{Encoding, Shape, apply_delta},
    session::Terms,
};

/// A client that takes publications as an SDK does.
struct Follower {
    client: Client,
    /// What it was given last, by channel.
    payloads: BTreeMap<String, Vec<u8>>,
    /// Patches among what it was given.
    patches: usize,
    /// The channels that it is subscribed to with deltas.
    channels: BTreeSet<String>,
}

impl Follower {
    fn new(client: Client) -> Self {
        Self { client, payloads: BTreeMap::new(), patches: 0, channels: BTreeSet::new() }
    }

    /// Subscribes with deltas, perhaps to what was missed.
    fn subscribe(&mut self, stage: &mut Stage, channel: &str, more: &str) -> Value {
        self.channels.insert(channel.to_owned());
        self.client.say(&format!(r#"{{"id":7,"subscribe":{{"channel":"{channel}","delta":"fossil"{more}}}}}"#));
        stage.settle();
        let heard = self.hear();
        let reply = heard.into_iter().find(|message| message["id"] == 7).expect("an answer");
        assert_eq!(reply["subscribe"]["delta"], true, "{reply}");
        reply["subscribe"].clone()
    }

    /// Reads all that is there.
    fn hear(&mut self) -> Vec<Value> {
        self.hear_some(usize::MAX)
    }

    fn hear_some(&mut self, bytes_max: usize) -> Vec<Value> {
        self.client.read(bytes_max);
        let mut heard = Vec::new();
        while let Some((opcode, payload)) = self.client.take_frame() {
            assert_eq!(opcode, 1, "{}", String::from_utf8_lossy(&payload));
            for line in payload.split(|byte| *byte == b'\n') {
                let message: Value = serde_json::from_slice(line).unwrap();
                let channel = message["push"]["channel"].as_str().map(str::to_owned);
                let channel = channel.filter(|channel| self.channels.contains(channel));
                if let (Some(channel), Some(publication)) = (channel, message["push"].get("pub")) {
                    self.take(&channel, publication);
                }
                for publication in message["subscribe"]["publications"].as_array().into_iter().flatten() {
                    self.take("kept:1", publication);
                }
                heard.push(message);
            }
        }
        heard
    }

    fn take(&mut self, channel: &str, publication: &Value) {
        let text = publication["data"].as_str().expect("with deltas payloads are strings").as_bytes();
        let is_patch = publication.get("delta") == Some(&Value::Bool(true));
        assert!(publication.get("epoch").is_none(), "{publication}");
        self.patches += usize::from(is_patch);
        let payload = match self.payloads.get(channel) {
            _ if !is_patch => text.to_vec(),
            Some(before) => apply_delta(before, text).unwrap_or_else(|error| panic!("{channel}: {error}")),
            None => panic!("a patch to nothing"),
        };
        self.payloads.insert(channel.to_owned(), payload);
    }

    fn payload(&self, channel: &str) -> &str {
        self.payloads.get(channel).map_or("", |payload| str::from_utf8(payload).expect("text"))
    }
}

impl Stage {
    fn publish_other(&mut self, letters: usize) {
        self.publish("oldest:other", &format!("\"{}\"", "x".repeat(letters)), true);
    }
}

/// Every namespace takes deltas, and two more drop publications.
fn with_deltas(config: &mut Config) {
    let plain = config.namespaces.by_name.iter().find(|namespace| namespace.name == "plain").unwrap();
    let dropping = [("latest", SlowConsumerPolicy::Latest), ("oldest", SlowConsumerPolicy::DropOldest)]
        .map(|(name, slow_consumer)| Namespace { name: name.to_owned(), slow_consumer, ..Namespace::clone(plain) });
    let with_deltas = |namespace: &Namespace| Namespace {
        allowed_delta_types: vec![DeltaType::Fossil],
        delta_publish: true,
        ..namespace.clone()
    };
    let namespaces = config.namespaces.by_name.iter().map(|namespace| with_deltas(namespace));
    let mut namespaces: Vec<_> = namespaces.chain(dropping.iter().map(with_deltas)).map(Arc::new).collect();
    namespaces.sort_by(|left, right| left.name.cmp(&right.name));
    config.namespaces.by_name = namespaces;
}

fn payload(number: u64) -> String {
    format!(r#"{{"input":"{}","number":{number}}}"#, "a text that stays as it is, ".repeat(3))
}

fn is_patch(message: &Value) -> bool {
    message["push"]["pub"].get("delta") == Some(&Value::Bool(true))
}

#[test]
fn the_first_is_whole_and_the_next_are_patches_beside_subscribers_without_deltas() {
    let mut stage = Stage::new(2, 1024, with_deltas);
    for shard in [0, 1] {
        let mut plain = stage.subscriber(shard, ROOM, "kept:1");
        let client = stage.client(shard, ROOM);
        let mut follower = Follower::new(client);
        let result = follower.subscribe(&mut stage, "kept:1", "");
        assert_eq!(result["positioned"], true);
        for number in 0..4 {
            stage.publish("kept:1", &payload(number), true);
            // Now in turns of their own, now in one.
            if number != 1 {
                stage.settle();
            }
        }
        let pushes = follower.hear();
        let patches: Vec<bool> = pushes.iter().map(is_patch).collect();
        assert_eq!(patches, [false, true, true, true], "{pushes:?}");
        assert!(pushes[1]["push"]["pub"]["data"].as_str().unwrap().len() < 40, "{pushes:?}");
        assert_eq!(follower.payload("kept:1"), payload(3));
        let whole: Vec<Value> = plain.hear().iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        for (number, push) in whole.iter().enumerate() {
            assert_eq!(push["push"]["pub"]["data"]["number"], number, "{push}");
            assert_eq!(push["push"]["pub"]["offset"], pushes[number]["push"]["pub"]["offset"]);
        }
        stage = Stage::new(2, 1024, with_deltas);
    }
}

#[test]
fn who_comes_later_begins_with_a_whole_one() {
    let mut stage = Stage::new(1, 1024, with_deltas);
    let mut followers = Vec::new();
    for number in 0..5 {
        let client = stage.client(0, ROOM);
        let mut follower = Follower::new(client);
        follower.subscribe(&mut stage, "plain:1", "");
        followers.push(follower);
        stage.publish("plain:1", &payload(2 * number), true);
        stage.publish("plain:1", &payload(2 * number + 1), true);
        stage.settle();
        for (position, follower) in followers.iter_mut().enumerate() {
            let patches: Vec<bool> = follower.hear().iter().map(is_patch).collect();
            assert_eq!(patches.len(), 2);
            assert_eq!(patches[0], position as u64 != number, "only the newcomer needs a whole one");
            assert_eq!(follower.payload("plain:1"), payload(2 * number + 1));
        }
        if number == 2 {
            let left = followers.remove(0);
            drop(left);
            stage.settle();
            followers.insert(0, Follower::new(stage.client(0, ROOM)));
            followers[0].subscribe(&mut stage, "plain:1", "");
            stage.publish("plain:1", &payload(100), true);
            stage.settle();
            let patches: Vec<bool> = followers.iter_mut().map(|follower| is_patch(&follower.hear()[0])).collect();
            assert_eq!(patches, [false, true, true]);
        }
    }
    let state = &stage.shards[0].state;
    assert_eq!(state.topics.len(), 1);
    drop(followers);
    stage.settle();
    assert_eq!(stage.shards[0].figures().channels, 0);
}

#[test]
fn what_is_recovered_is_whole_and_the_next_may_be_a_patch() {
    check_recovery(with_deltas);
}

#[test]
fn what_is_recovered_of_a_compressed_history_is_the_base_of_the_next_too() {
    check_recovery(|config| {
        with_deltas(config);
        for namespace in &mut config.namespaces.by_name {
            Arc::make_mut(namespace).history_compression_bytes_min = 1;
        }
    });
}

fn check_recovery(change: impl Fn(&mut Config)) {
    let mut stage = Stage::new(2, 1024, change);
    for number in 1..=4 {
        stage.publish("kept:1", &payload(number), true);
    }
    stage.settle();
    // On each shard: alone, then beside others.
    for shard in [0, 1, 0, 1] {
        let client = stage.client(shard, ROOM);
        let mut follower = Follower::new(client);
        let result = follower.subscribe(&mut stage, "kept:1", r#","recover":true,"offset":2"#);
        let recovered = result["publications"].as_array().unwrap();
        assert!(recovered.iter().all(|publication| publication.get("delta").is_none()), "{result}");
        stage.publish("kept:1", &payload(5), true);
        stage.settle();
        let heard = follower.hear();
        assert!(is_patch(&heard[0]), "{heard:?}");
        assert_eq!(follower.payload("kept:1"), payload(5));
        // Nothing was missed: what the client has is not known here.
        let client = stage.client(shard, ROOM);
        let mut follower = Follower::new(client);
        let top = heard[0]["push"]["pub"]["offset"].as_u64().unwrap();
        let result = follower.subscribe(&mut stage, "kept:1", &format!(r#","recover":true,"offset":{top}"#));
        assert!(result["recovered"] == true && result.get("publications").is_none(), "{result}");
        stage.publish("kept:1", &payload(6), true);
        stage.settle();
        assert!(!is_patch(&follower.hear()[0]));
    }
}

#[test]
fn a_publication_that_history_does_not_keep_is_no_base_of_what_is_recovered() {
    let mut stage = Stage::new(1, 1024, with_deltas);
    let mut first = Follower::new(stage.client(0, ROOM));
    first.subscribe(&mut stage, "kept:1", "");
    stage.publish("kept:1", &payload(1), true);
    stage.publish_with("kept:1", &payload(2), |publish| publish.skip_history = true);
    stage.settle();
    let mut second = Follower::new(stage.client(0, ROOM));
    second.subscribe(&mut stage, "kept:1", r#","recover":true,"offset":0"#);
    assert_eq!((first.hear().len(), second.payload("kept:1")), (2, &*payload(1)));
    stage.publish("kept:1", &payload(3), true);
    stage.settle();
    assert_eq!((is_patch(&first.hear()[0]), is_patch(&second.hear()[0])), (true, false));
    assert_eq!((first.payload("kept:1"), second.payload("kept:1")), (&*payload(3), &*payload(3)));
}

#[test]
fn publications_are_whole_where_nobody_allows_patches() {
    let mut stage = Stage::new(1, 1024, |config| {
        with_deltas(config);
        for namespace in &mut config.namespaces.by_name {
            let namespace = Arc::make_mut(namespace);
            namespace.delta_publish = false;
            if namespace.name == "plain" {
                namespace.allowed_delta_types.clear();
            }
        }
    });
    let mut client = stage.client(0, ROOM);
    client.say(r#"{"id":2,"subscribe":{"channel":"plain:1","delta":"fossil"}}"#);
    stage.settle();
    assert_eq!(client.hear(), [r#"{"id":2,"subscribe":{}}"#], "deltas are not granted");
    let mut follower = Follower::new(client);
    follower.subscribe(&mut stage, "kept:1", "");
    for number in 1..=4 {
        stage.publish_with("kept:1", &payload(number), |publish| publish.delta = number == 3);
        stage.settle();
    }
    let patches: Vec<bool> = follower.hear().iter().map(is_patch).collect();
    assert_eq!(patches, [false, false, true, false], "only the one of which the producer says so");
    assert_eq!(follower.payload("kept:1"), payload(4));
    let mut stranger = stage.client(0, ROOM);
    stranger.say(r#"{"id":2,"subscribe":{"channel":"kept:1","delta":"xdelta"}}"#);
    stage.settle();
    assert_eq!(stranger.hear(), ["close 3501"]);
}

#[test]
fn a_patch_that_would_cut_a_character_is_not_sent_in_json() {
    let mut stage = Stage::new(1, 1024, with_deltas);
    let mut follower = Follower::new(stage.client(0, ROOM));
    follower.subscribe(&mut stage, "plain:1", "");
    // "ä" and "ö" begin with the same byte, which would be copied.
    for (middle, is_patched) in [("ä", false), ("ö", false), ("ö\\n", true), ("b", true)] {
        let text = format!("\"before it stands what stays, {middle} and behind it, too\"");
        stage.publish("plain:1", &text, true);
        stage.settle();
        assert_eq!(is_patch(&follower.hear()[0]), is_patched, "{middle}");
        assert_eq!(follower.payload("plain:1"), text);
    }
}

#[test]
fn a_patch_is_made_once_for_all_forms() {
    let mut stage = Stage::new(1, 1024, with_deltas);
    let mut json = Follower::new(stage.client(0, ROOM));
    json.subscribe(&mut stage, "plain:1", "");
    let connection = stage.client(0, ROOM);
    // As if its handshake had said so: what is sent to it is not looked at as text here.
    let state = &mut stage.shards[0].state;
    let index = state.connections.iter().map(|(index, _)| index).next_back().unwrap();
    let form = Form::new(Encoding::Protobuf, Shape::Bidirectional, Carrier::WebSocket);
    state.connections[index].form = form;
    state.begin_subscribe(index as u32, "plain:1", 2, Terms { content: Content::Deltas, ..Terms::default() });
    stage.settle();
    let mut binary = connection;
    binary.read(usize::MAX);
    binary.unread.clear();
    for number in 0..2 {
        stage.publish("plain:1", &payload(number), true);
        stage.settle();
    }
    assert_eq!(json.hear().iter().map(is_patch).collect::<Vec<_>>(), [false, true]);
    binary.read(usize::MAX);
    let (opcode, whole) = binary.take_frame().unwrap();
    let data = payload(0).into_bytes();
    assert!(opcode == 2 && whole.windows(data.len()).any(|window| window == data), "bytes are not quoted");
    let (_, patch) = binary.take_frame().unwrap();
    assert!(patch.len() < 60 && patch.ends_with(&[0x40, 1]), "field 8, delta, is true: {patch:?}");
}

#[test]
fn nothing_is_patched_against_what_was_dropped_for_another_channels_sake() {
    const OUTBOX_BYTES_MAX: usize = 1_500;
    let mut stage = Stage::new(1, 1024, |config| {
        with_deltas(config);
        config.shards.outbox_bytes_max = OUTBOX_BYTES_MAX as u32;
    });
    let mut client = stage.client(0, 400);
    client.say(r#"{"id":2,"subscribe":{"channel":"oldest:other"}}"#);
    stage.settle();
    client.hear();
    let mut follower = Follower::new(client);
    follower.subscribe(&mut stage, "oldest:1", "");
    stage.publish("oldest:1", &payload(1), true);
    stage.settle();
    follower.hear();

    // A patch waits behind what the socket has taken in part.
    stage.publish_other(900);
    stage.publish("oldest:1", &payload(2), true);
    stage.settle();
    // It goes for the next publication of the other channel, for which alone there is room then.
    let waiting = stage.shards[0].figures().outbox_bytes as usize;
    let frame_overhead = r#"0000{"push":{"channel":"oldest:other","pub":{"data":""}}}"#.len();
    stage.publish_other(OUTBOX_BYTES_MAX + 40 - waiting - frame_overhead);
    stage.settle();
    let dropped = stage.shards[0].figures().dropped;
    assert_eq!(dropped.iter().map(|(_, count)| count).sum::<u64>(), 1, "{dropped:?}");
    for _ in 0..20 {
        follower.hear();
        stage.settle();
    }
    assert_eq!((follower.payload("oldest:1"), stage.shards[0].figures().outboxes), (&*payload(1), 0));
    for (number, is_patched) in [(3, false), (4, true)] {
        stage.publish("oldest:1", &payload(number), true);
        stage.settle();
        assert_eq!(is_patch(&follower.hear()[0]), is_patched);
        assert_eq!(follower.payload("oldest:1"), payload(number));
    }
}

#[test]
fn whatever_is_dropped_a_client_never_has_something_that_was_not_published() {
    for namespace in ["latest", "oldest", "plain", "sync"] {
        let patches: usize = (0..20).map(|seed| follow_slowly(namespace, seed)).sum();
        assert!(patches > 300, "{namespace}: {patches} patches");
    }
}

/// Followers that read little and seldom, then all: how many patches they were given.
fn follow_slowly(namespace: &str, seed: u64) -> usize {
    let mut random = Random::new(seed);
    let outbox_bytes_max = random.one_of(&[700, 3_000]);
    let mut stage = Stage::new(2, 1024, |config| {
        with_deltas(config);
        config.shards.outbox_bytes_max = if matches!(namespace, "plain" | "sync") { 1 << 30 } else { outbox_bytes_max };
    });
    let channels = [format!("{namespace}:1"), format!("{namespace}:2"), "oldest:3".to_owned()];
    let mut followers = Vec::new();
    for _ in 0..3 {
        let room = random.one_of(&[300, 700, 2_000]);
        let mut follower = Follower::new(stage.client(0, room));
        for channel in &channels {
            follower.subscribe(&mut stage, channel, "");
        }
        followers.push(follower);
    }
    let mut published: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for number in 0..60 {
        for _ in 0..random.below(4) {
            let channel = &channels[random.below(3) as usize];
            let data = payload(number * 10 + random.below(10));
            stage.publish(channel, &data, true);
            published.entry(channel).or_default().push(data);
        }
        stage.settle();
        for follower in &mut followers {
            if random.chance(1, 3) {
                follower.hear_some(random.below(600) as usize);
            }
            for (channel, payload) in &follower.payloads {
                let payload = str::from_utf8(payload).unwrap();
                assert!(published[&**channel].iter().any(|one| one == payload), "{channel}: {payload}");
            }
        }
        stage.settle();
    }
    for follower in &mut followers {
        for _ in 0..200 {
            follower.hear();
            stage.settle();
        }
    }
    let last = payload(9_999);
    channels.iter().for_each(|channel| stage.publish(channel, &last, true));
    for _ in 0..50 {
        stage.settle();
        followers.iter_mut().for_each(|follower| _ = follower.hear());
    }
    for follower in &mut followers {
        for channel in &channels {
            assert_eq!(follower.payload(channel), last, "{channel}, seed {seed}");
        }
    }
    if namespace == "latest" {
        let dropped: u64 = stage.shards[0].figures().dropped.iter().map(|(_, count)| count).sum();
        assert!(dropped > 0, "seed {seed} drops nothing");
    }
    followers.iter().map(|follower| follower.patches).sum()
}
