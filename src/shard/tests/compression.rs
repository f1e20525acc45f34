//! Compressed publications: every client reads exactly what was published, whoever comes, goes, is slow or is in which
//! cohort.

use std::collections::BTreeMap;

use flate2::{Decompress, FlushDecompress};
use serde_json::Value;

use super::*;
use crate::{
    channel::Random,
    config::{CompressionConfig, CompressionMode, DeltaType},
    protocol::apply_delta,
    websocket::deflate::{Deflation, Window},
};

const FULL: Option<Deflation> = Some(Deflation { window: Window::KiB32, keeps_context: true });

const KEYFRAME_MS_MAX: u32 = 5_000;

/// Ids of commands to subscribe, from here on by channel.
const FIRST_SUBSCRIBE: usize = 100;

const CHANNELS: [&str; 9] =
    ["shared:1", "shared:2", "small:1", "single:1", "off:1", "latest:1", "oldest:1", "sync:1", "delta:1"];

/// A client with an inflater of its own, whose window it keeps.
struct Reader {
    client: Client,
    deflation: Option<Deflation>,
    inflater: Decompress,
    /// The numbers of the publications that it has read since it subscribed, by channel.
    numbers: BTreeMap<String, Vec<u64>>,
    /// The last payload of channels with deltas.
    bases: BTreeMap<String, Vec<u8>>,
    /// Messages that came compressed.
    compressed: usize,
    /// Bytes of publications' frames.
    bytes: usize,
    is_closed: bool,
}

/// What is published: of every number its payload, by channel.
type Published = BTreeMap<String, Vec<String>>;

impl Reader {
    fn new(stage: &mut Stage, deflation: Option<Deflation>, room: usize) -> Self {
        let known: Vec<usize> = stage.shards[0].state.connections.iter().map(|(index, _)| index).collect();
        let client = stage.stranger(0, room);
        let connections = &mut stage.shards[0].state.connections;
        let index = connections.iter().map(|(index, _)| index).find(|index| !known.contains(index)).unwrap();
        // As its handshake would have agreed on.
        let form = connections[index].form;
        connections[index].form = deflation.map_or(form, |deflation| form.with_deflation(deflation));
        client.say(r#"{"id":1,"connect":{}}"#);
        stage.settle();
        Self {
            client,
            deflation,
            inflater: Decompress::new(false),
            numbers: BTreeMap::new(),
            bases: BTreeMap::new(),
            compressed: 0,
            bytes: 0,
            is_closed: false,
        }
    }

    fn with(stage: &mut Stage, deflation: Option<Deflation>, channels: &[&str]) -> Self {
        let mut reader = Self::new(stage, deflation, ROOM);
        channels.iter().for_each(|channel| reader.subscribe(channel));
        stage.settle();
        reader.hear(&Published::new(), usize::MAX);
        reader
    }

    fn subscribe(&mut self, channel: &str) {
        let delta = if channel.starts_with("delta") { r#","delta":"fossil""# } else { "" };
        let id = FIRST_SUBSCRIBE + CHANNELS.iter().position(|one| *one == channel).unwrap();
        self.client.say(&format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}"{delta}}}}}"#));
    }

    /// A subscription begins anew; one that there was already is answered by an error.
    fn begin(&mut self, reply: &Value) {
        let id = reply["id"].as_u64().unwrap_or_default() as usize;
        if reply.get("subscribe").is_some() {
            let channel = CHANNELS[id - FIRST_SUBSCRIBE];
            self.numbers.remove(channel);
            self.bases.remove(channel);
        }
    }

    fn unsubscribe(&mut self, channel: &str) {
        self.client.say(&format!(r#"{{"id":3,"unsubscribe":{{"channel":"{channel}"}}}}"#));
    }

    /// Reads what is there, and holds it against what was published.
    fn hear(&mut self, published: &Published, bytes_max: usize) {
        self.client.read(bytes_max);
        loop {
            let (before, is_deflated) = (self.client.unread.len(), self.client.unread.first().is_some_and(is_deflated));
            let Some((opcode, payload)) = self.client.take_frame() else { return };
            let frame_bytes = before - self.client.unread.len();
            if opcode != 1 {
                self.is_closed |= opcode == 8;
                assert!(!is_deflated, "control frames are never compressed");
                continue;
            }
            let text = if is_deflated { self.inflate(&payload) } else { payload };
            for line in text.split(|byte| *byte == b'\n') {
                let message: Value = serde_json::from_slice(line).expect("a JSON text");
                if let Some(publication) = message["push"].get("pub") {
                    self.bytes += frame_bytes;
                    self.take(message["push"]["channel"].as_str().unwrap(), publication, published);
                } else {
                    assert!(!is_deflated, "what is for one client alone is not compressed: {message}");
                    self.begin(&message);
                }
            }
        }
    }

    fn inflate(&mut self, payload: &[u8]) -> Vec<u8> {
        self.compressed += 1;
        let deflation = self.deflation.expect("who has not agreed is sent nothing compressed");
        if !deflation.keeps_context {
            self.inflater.reset(false);
        }
        let input = [payload, &[0, 0, 0xff, 0xff]].concat();
        let mut out = Vec::with_capacity(1 << 16);
        self.inflater.decompress_vec(&input, &mut out, FlushDecompress::Sync).expect("what refers to its own window");
        out
    }

    fn take(&mut self, channel: &str, publication: &Value, published: &Published) {
        let text = match &publication["data"] {
            Value::String(text) if channel.starts_with("delta") => {
                let payload = if publication["delta"] == true {
                    apply_delta(&self.bases[channel], text.as_bytes()).expect("a patch to what it has")
                } else {
                    text.clone().into_bytes()
                };
                self.bases.insert(channel.to_owned(), payload.clone());
                String::from_utf8(payload).unwrap()
            }
            data => data.to_string(),
        };
        let data: Value = serde_json::from_str(&text).unwrap();
        let number = data["number"].as_u64().unwrap();
        if let Some(published) = published.get(channel) {
            let expected: Value = serde_json::from_str(&published[number as usize]).unwrap();
            assert_eq!(data, expected, "{channel}");
        }
        self.numbers.entry(channel.to_owned()).or_default().push(number);
    }
}

fn is_deflated(byte: &u8) -> bool {
    byte & 0x40 != 0
}

/// A namespace for each way of compressing, and with `shared` one for each policy.
fn with_compression(config: &mut Config) {
    let plain = config.namespaces.by_name.iter().find(|namespace| namespace.name == "plain").unwrap().clone();
    let kept = config.namespaces.by_name.iter().find(|namespace| namespace.name == "sync").unwrap().clone();
    let namespace = |name: &str, mode, slow_consumer| {
        let like = if slow_consumer == SlowConsumerPolicy::Resync { &kept } else { &plain };
        let keyframe_ms_max = KEYFRAME_MS_MAX;
        let compression = CompressionConfig { mode, keyframe_ms_max, ..CompressionConfig::default() };
        let allowed_delta_types = if name == "delta" { vec![DeltaType::Fossil] } else { Vec::new() };
        let delta_publish = name == "delta";
        let name = name.to_owned();
        Arc::new(Namespace {
            name,
            compression,
            slow_consumer,
            allowed_delta_types,
            delta_publish,
            ..Namespace::clone(like)
        })
    };
    let mut small = Namespace::clone(&namespace("small", CompressionMode::Shared, SlowConsumerPolicy::Disconnect));
    small.compression.window_bytes = 1024;
    config.namespaces.by_name = vec![
        namespace("delta", CompressionMode::Shared, SlowConsumerPolicy::Disconnect),
        namespace("latest", CompressionMode::Shared, SlowConsumerPolicy::Latest),
        namespace("off", CompressionMode::Off, SlowConsumerPolicy::Disconnect),
        namespace("oldest", CompressionMode::Shared, SlowConsumerPolicy::DropOldest),
        namespace("shared", CompressionMode::Shared, SlowConsumerPolicy::Disconnect),
        namespace("single", CompressionMode::Single, SlowConsumerPolicy::Disconnect),
        Arc::new(small),
        namespace("sync", CompressionMode::Shared, SlowConsumerPolicy::Resync),
    ];
}

fn stage() -> Stage {
    Stage::new(1, 1024, with_compression)
}

fn tick(number: u64) -> String {
    let price = 10_000 + number * 7 % 100;
    format!(r#"{{"symbol":"ABC-XYZ","bid":"{price}.01","ask":"{price}.03","volume":12345678,"number":{number}}}"#)
}

/// Publishes the next tick of a channel.
fn publish(stage: &mut Stage, published: &mut Published, channel: &str) {
    let all = published.entry(channel.to_owned()).or_default();
    let data = tick(all.len() as u64);
    stage.publish(channel, &data, true);
    all.push(data);
}

fn keyframes(stage: &Stage) -> Vec<u64> {
    stage.shards[0].figures().keyframes.iter().map(|(_, count)| *count).collect()
}

fn cohort(stage: &Stage) -> (u64, u64) {
    let figures = stage.shards[0].figures();
    (figures.cohort_members, figures.cohort_waiting)
}

#[test]
fn members_are_sent_a_fraction_and_others_can_read_theirs() {
    let mut stage = stage();
    let mut published = Published::new();
    let none = Deflation { window: Window::KiB32, keeps_context: false };
    let small = Deflation { window: Window::Bytes512, keeps_context: true };
    let mut readers = [FULL, Some(none), Some(small), None].map(|form| Reader::with(&mut stage, form, &["shared:1"]));
    for number in 0..40 {
        publish(&mut stage, &mut published, "shared:1");
        if number % 3 == 0 {
            stage.settle();
        }
    }
    stage.settle();
    readers.iter_mut().for_each(|reader| reader.hear(&published, usize::MAX));
    let numbers: Vec<u64> = (0..40).collect();
    assert!(readers.iter().all(|reader| reader.numbers["shared:1"] == numbers));
    let [member, alone, small, plain] = readers.each_ref().map(|reader| reader.bytes);
    assert!(member * 3 < plain && small * 3 < plain, "{member} and {small} of {plain}");
    assert!(alone < plain && member < alone, "{alone} of {plain}");
    assert_eq!(readers.map(|reader| reader.compressed), [40, 40, 40, 0]);
    assert_eq!(cohort(&stage), (2, 0));
    let figures = stage.shards[0].figures();
    let (namespace, figures) = &figures.compression[0];
    assert_eq!((namespace.as_str(), figures.messages), ("shared", 3 * 40), "once for each form");
    assert_eq!(figures.delivered_bytes_before as usize, 3 * plain);
    assert_eq!(figures.delivered_bytes_after as usize, member + alone + small);
}

#[test]
fn who_comes_later_waits_for_a_keyframe_and_reads_everything() {
    let mut stage = stage();
    let mut published = Published::new();
    let mut members: Vec<Reader> = (0..4).map(|_| Reader::with(&mut stage, FULL, &["shared:1"])).collect();
    publish(&mut stage, &mut published, "shared:1");
    stage.settle();
    assert_eq!((cohort(&stage), keyframes(&stage)), ((4, 0), vec![1, 0, 0]));
    members.push(Reader::with(&mut stage, FULL, &["shared:1"]));
    for _ in 0..8 {
        publish(&mut stage, &mut published, "shared:1");
        stage.settle();
    }
    assert_eq!((cohort(&stage), keyframes(&stage)), ((4, 1), vec![1, 0, 0]));
    publish(&mut stage, &mut published, "shared:1");
    stage.settle();
    assert_eq!((cohort(&stage), keyframes(&stage)), ((5, 0), vec![1, 1, 0]), "it has cost twice the members' messages");
    members.push(Reader::with(&mut stage, FULL, &["shared:1"]));
    publish(&mut stage, &mut published, "shared:1");
    stage.settle();
    stage.network.pass(u64::from(KEYFRAME_MS_MAX));
    publish(&mut stage, &mut published, "shared:1");
    stage.settle();
    assert_eq!((cohort(&stage), keyframes(&stage)), ((6, 0), vec![1, 1, 1]), "and this one has waited long enough");
    for _ in 0..3 {
        publish(&mut stage, &mut published, "shared:1");
        stage.settle();
    }
    members.iter_mut().for_each(|reader| reader.hear(&published, usize::MAX));
    let read = members.iter().map(|reader| reader.numbers["shared:1"].clone());
    assert_eq!(read.map(|numbers| numbers[0]).collect::<Vec<_>>(), [0, 0, 0, 0, 1, 10]);
    assert!(members.iter().all(|reader| reader.numbers["shared:1"].ends_with(&[11, 12, 13, 14])));
}

#[test]
fn a_connection_is_in_one_cohort_and_is_sent_other_channels_plain() {
    let mut stage = stage();
    let mut published = Published::new();
    let mut both = Reader::with(&mut stage, FULL, &["shared:1", "shared:2", "single:1"]);
    let mut second = Reader::with(&mut stage, FULL, &["shared:2", "single:1"]);
    for _ in 0..5 {
        for channel in ["shared:1", "shared:2", "single:1"] {
            publish(&mut stage, &mut published, channel);
        }
        stage.settle();
    }
    assert_eq!(cohort(&stage), (2, 0));
    for reader in [&mut both, &mut second] {
        reader.hear(&published, usize::MAX);
        assert_eq!(reader.compressed, 5, "of the channel whose cohort it is in");
        assert!(reader.numbers.values().all(|numbers| *numbers == [0, 1, 2, 3, 4]));
    }
    // The first channel falls silent, and the second takes its members over with the next keyframe.
    stage.network.pass(u64::from(KEYFRAME_MS_MAX) + 1);
    let mut third = Reader::with(&mut stage, FULL, &["shared:2"]);
    for _ in 0..4 {
        publish(&mut stage, &mut published, "shared:2");
        stage.settle();
    }
    assert_eq!(cohort(&stage), (3, 0));
    for reader in [&mut both, &mut second, &mut third] {
        reader.hear(&published, usize::MAX);
        assert!(reader.numbers["shared:2"].ends_with(&[5, 6, 7, 8]));
    }
    assert!(both.compressed > 5);
}

#[test]
fn a_cohort_ends_with_its_members_and_costs_nothing_then() {
    let mut stage = stage();
    let mut published = Published::new();
    let mut readers: Vec<Reader> = (0..3).map(|_| Reader::with(&mut stage, FULL, &["shared:1", "off:1"])).collect();
    publish(&mut stage, &mut published, "shared:1");
    stage.settle();
    assert!(stage.shards[0].figures().cohort_bytes > 0);
    readers[0].unsubscribe("shared:1");
    stage.settle();
    readers[1].client.peer.write(&[0x88, 0x80, 0, 0, 0, 0]);
    stage.settle();
    assert_eq!(cohort(&stage), (1, 0));
    drop(readers.pop());
    stage.settle();
    let figures = stage.shards[0].figures();
    assert_eq!((cohort(&stage), figures.cohort_bytes), ((0, 0), 0));
}

#[test]
fn what_is_short_stays_plain() {
    let mut stage = stage();
    let mut readers = ["shared:1", "single:1"].map(|channel| Reader::with(&mut stage, FULL, &[channel]));
    for channel in ["shared:1", "single:1"] {
        stage.publish(channel, r#"{"number":0}"#, true);
    }
    stage.settle();
    for reader in &mut readers {
        reader.hear(&Published::new(), usize::MAX);
        assert_eq!((reader.compressed, reader.numbers.values().next().unwrap().len()), (0, 1));
    }
    assert_eq!((cohort(&stage), keyframes(&stage)), ((0, 0), vec![0; 3]), "nothing begins for it");
}

/// Scenarios of one test thread; the tests below split them, and together they are [`SCENARIOS`].
const SCENARIOS: u64 = 10_000;

#[test]
fn everybody_reads_what_was_published_one() {
    run(0..SCENARIOS / 4);
}

#[test]
fn everybody_reads_what_was_published_two() {
    run(SCENARIOS / 4..SCENARIOS / 2);
}

#[test]
fn everybody_reads_what_was_published_three() {
    run(SCENARIOS / 2..3 * SCENARIOS / 4);
}

#[test]
fn everybody_reads_what_was_published_four() {
    run(3 * SCENARIOS / 4..SCENARIOS);
}

/// Runs scenarios; `SEED=n` in the environment runs that one alone.
fn run(seeds: std::ops::Range<u64>) {
    let chosen = std::env::var("SEED").ok().map(|seed| seed.parse::<u64>().expect("SEED is a number"));
    let mut outcome = Outcome::default();
    for seed in seeds.clone().filter(|seed| chosen.is_none_or(|chosen| chosen == *seed)) {
        let result = std::panic::catch_unwind(|| Scenario::new(seed).run());
        match result {
            Ok(one) => outcome.add(&one),
            Err(_) => panic!("scenario {seed} failed; SEED={seed} runs it alone"),
        }
    }
    if chosen.is_none() {
        let scenarios = (seeds.end - seeds.start) as usize;
        assert!(outcome.compressed > scenarios && outcome.dropped > scenarios as u64 / 10, "{outcome:?}");
        assert!(outcome.keyframes.iter().all(|count| *count > scenarios as u64 / 100), "{outcome:?}");
    }
}

/// What scenarios have come to: a test that drops nothing, or begins no window anew, shows nothing.
#[derive(Debug, Default)]
struct Outcome {
    compressed: usize,
    dropped: u64,
    keyframes: [u64; 3],
}

impl Outcome {
    fn add(&mut self, other: &Self) {
        self.compressed += other.compressed;
        self.dropped += other.dropped;
        self.keyframes.iter_mut().zip(other.keyframes).for_each(|(sum, count)| *sum += count);
    }
}

/// Publications, personal messages, subscriptions, slow reading, ends and new beginnings, by chance.
struct Scenario {
    random: Random,
    stage: Stage,
    readers: Vec<Reader>,
    published: Published,
    compressed: usize,
}

impl Scenario {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let outbox_bytes_max = random.one_of(&[600, 1_500, 1 << 20]);
        let stage = Stage::new(1, 1024, |config| {
            with_compression(config);
            config.shards.outbox_bytes_max = outbox_bytes_max;
        });
        Self { random, stage, readers: Vec::new(), published: Published::new(), compressed: 0 }
    }

    fn run(mut self) -> Outcome {
        for _ in 0..2 + self.random.below(3) {
            self.arrive();
        }
        for _ in 0..25 {
            self.step();
            self.check();
        }
        // All read everything, and go on together.
        for _ in 0..6 {
            self.settle_and_hear(usize::MAX);
        }
        for _ in 0..2 {
            CHANNELS.iter().for_each(|channel| publish(&mut self.stage, &mut self.published, channel));
            self.settle_and_hear(usize::MAX);
        }
        self.check();
        let figures = self.stage.shards[0].figures();
        let mut outcome = Outcome { compressed: self.compressed, ..Outcome::default() };
        outcome.compressed += self.readers.iter().map(|reader| reader.compressed).sum::<usize>();
        outcome.dropped = figures.dropped.iter().map(|(_, count)| count).sum();
        outcome.keyframes = std::array::from_fn(|cause| figures.keyframes[cause].1);
        outcome
    }

    fn arrive(&mut self) {
        let window = self.random.one_of(&Window::ALL);
        let keeps_context = self.random.chance(4, 5);
        let deflation = self.random.chance(5, 6).then_some(Deflation { window, keeps_context });
        let deflation = if self.random.chance(1, 2) { FULL } else { deflation };
        let room = self.random.one_of(&[300, 900, ROOM]);
        let mut reader = Reader::new(&mut self.stage, deflation, room);
        for _ in 0..1 + self.random.below(4) {
            reader.subscribe(self.random.one_of(&CHANNELS));
        }
        self.readers.push(reader);
        self.stage.settle();
    }

    fn step(&mut self) {
        let who = self.random.below(self.readers.len() as u64) as usize;
        let channel = self.random.one_of(&CHANNELS);
        match self.random.below(20) {
            0..=9 => {
                let busy = if self.random.chance(1, 2) { "shared:1" } else { channel };
                for _ in 0..1 + self.random.below(4) {
                    publish(&mut self.stage, &mut self.published, busy);
                }
            }
            10 | 11 => self.readers[who].subscribe(channel),
            12 => self.readers[who].unsubscribe(channel),
            13 => self.readers[who].client.say(r#"{"id":9,"history":{"channel":"sync:1","limit":10}}"#),
            14 if self.readers.len() < 6 => self.arrive(),
            15 => self.depart(who),
            16 => self.stage.network.pass(self.random.one_of(&[10, 1_000, u64::from(KEYFRAME_MS_MAX) + 1])),
            _ => {
                let bytes_max = self.random.one_of(&[50, 500, usize::MAX]);
                self.readers[who].hear(&self.published, bytes_max);
            }
        }
        if self.random.chance(2, 3) {
            self.stage.settle();
        }
    }

    /// A client goes, with a close frame or without, and another comes in its place.
    fn depart(&mut self, who: usize) {
        let reader = self.readers.swap_remove(who);
        self.compressed += reader.compressed;
        if self.random.chance(1, 2) {
            reader.client.peer.write(&[0x88, 0x80, 0, 0, 0, 0]);
            self.stage.settle();
        }
        drop(reader);
        self.stage.settle();
        self.arrive();
    }

    fn settle_and_hear(&mut self, bytes_max: usize) {
        self.stage.settle();
        let published = &self.published;
        self.readers.iter_mut().for_each(|reader| reader.hear(published, bytes_max));
        self.stage.settle();
    }

    /// Whoever is sent everything has missed nothing; marks and counts of cohorts say the same.
    fn check(&self) {
        for (channel, numbers) in self.readers.iter().flat_map(|reader| &reader.numbers) {
            let is_ascending = numbers.is_sorted_by(|one, next| one < next);
            let may_miss = ["latest", "oldest", "sync"].iter().any(|namespace| channel.starts_with(namespace));
            let is_whole = numbers.is_sorted_by(|one, next| one + 1 == *next);
            assert!(if may_miss { is_ascending } else { is_whole }, "{channel}: {numbers:?}");
        }
        self.stage.shards[0].state.assert_cohorts_are_as_marked();
    }
}
