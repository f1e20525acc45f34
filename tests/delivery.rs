//! Every subscriber receives exactly what it should, once, in order: on two shards, from several producers, in bulk.

mod support;

use std::{
    collections::{BTreeMap, HashMap},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use support::{
    producer::{Producer, Reply, encode},
    server::Server,
    swarm::{Member, Swarm},
    wait_for,
};

const SUBSCRIBERS: usize = 10_000;
const CHANNELS: usize = 50;
const PRODUCERS: usize = 4;
const PUBLICATIONS: usize = 1_000;
const PUBLICATIONS_PER_CHANNEL: usize = PUBLICATIONS / CHANNELS;
/// Each subscriber has one channel of each kind.
const CHANNELS_PER_KIND: usize = CHANNELS / 2;

const _: () = assert!(PUBLICATIONS.is_multiple_of(CHANNELS * PRODUCERS));

#[test]
fn ten_thousand_subscribers_receive_what_four_producers_publish() {
    // No pings: on a busy machine the swarm may be kept from answering them.
    let server = Server::start("shards.cores = [0, 1]\nclient.ping_interval = \"10m\"");
    let mut swarm = Swarm::new(SUBSCRIBERS);
    for subscriber in 0..SUBSCRIBERS {
        let kept = kept_channel(subscriber);
        let open = open_channel(subscriber / CHANNELS_PER_KIND);
        swarm.add(server.client_address(), vec![kept, open]);
    }
    swarm.run_until("subscribed", Duration::from_secs(60), Member::is_subscribed);

    let per_channel = (SUBSCRIBERS / CHANNELS_PER_KIND) as i64;
    let mut observer = Producer::connect(&server);
    for channel in (0..CHANNELS_PER_KIND).flat_map(|index| [kept_channel(index), open_channel(index)]) {
        wait_for(&format!("{per_channel} subscribers of {channel}"), || {
            let counts = observer.command(&["PUBSUB", "NUMSUB", &channel]);
            (counts == Reply::Array(vec![Reply::Bulk(channel.clone()), Reply::Integer(per_channel)])).then_some(())
        });
    }
    let shards = server.metrics().by_label("tidegate_connections", "shard");
    assert_eq!(shards.len(), 2, "{shards:?}");
    assert!(shards.values().all(|&connections| connections > 1_000.0), "both shards have their part: {shards:?}");

    thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let server = &server;
            scope.spawn(move || publish(server, producer));
        }
        swarm.run_until("received", Duration::from_secs(60), |member| {
            member.received.len() >= 2 * PUBLICATIONS_PER_CHANNEL
        });
    });
    // What would be doubled comes late.
    swarm.run_for(Duration::from_millis(500));

    let mut streams = HashMap::new();
    for (subscriber, member) in swarm.members().iter().enumerate() {
        assert_eq!(member.received.len(), 2 * PUBLICATIONS_PER_CHANNEL, "subscriber {subscriber}");
        assert_received(member, &kept_channel(subscriber), &mut streams);
        assert_received(member, &open_channel(subscriber / CHANNELS_PER_KIND), &mut streams);
    }
    assert_eq!(streams.len(), CHANNELS);
    let delivered = SUBSCRIBERS * 2 * PUBLICATIONS_PER_CHANNEL;
    assert!(server.metrics().sum("tidegate_messages_sent_total", &[]).expect("a metric") > delivered as f64 / 100.0);
}

#[test]
fn subscribers_that_join_amid_a_stream_miss_nothing_after_their_position() {
    const JOINING: usize = 400;
    const PUBLICATIONS_PER_JOIN: u64 = 10;
    const STREAM: u64 = JOINING as u64 * PUBLICATIONS_PER_JOIN;
    let server = Server::start("shards.cores = [0, 1]");
    let channel = "kept:stream";
    let mut swarm = Swarm::new(JOINING);
    let (joins, joining) = mpsc::channel();
    thread::scope(|scope| {
        let mut producer = Producer::connect(&server);
        scope.spawn(move || {
            let mut number = 0;
            for () in joining {
                for _ in 0..PUBLICATIONS_PER_JOIN {
                    number += 1;
                    producer.publish(channel, &number.to_string());
                }
            }
        });
        for _ in 0..JOINING {
            swarm.add(server.client_address(), vec![channel.to_owned()]);
            joins.send(()).expect("the producer goes on until the last");
            swarm.run_for(Duration::from_millis(1));
        }
        drop(joins);
        swarm.run_until("subscribed", Duration::from_secs(60), Member::is_subscribed);
        swarm.run_until("the stream's end", Duration::from_secs(60), |member| {
            let position = member.positions[0];
            position == Some(STREAM) || member.received.last().is_some_and(|received| received.offset == STREAM)
        });
    });
    swarm.run_for(Duration::from_millis(200));
    let mut joined_amid = 0;
    for member in swarm.members() {
        let position = member.positions[0].expect("subscribed");
        let offsets: Vec<u64> = member.received.iter().map(|received| received.offset).collect();
        assert_eq!(offsets, (position + 1..=STREAM).collect::<Vec<_>>(), "after position {position}");
        assert!(member.received.iter().all(|received| received.data == received.offset.to_string()));
        joined_amid += usize::from(position > 0 && position < STREAM);
    }
    assert!(joined_amid > JOINING / 2, "most joined amid the stream, not {joined_amid} of {JOINING}");
}

/// Publishes this producer's part, in pipelines, and checks that every subscriber was counted.
fn publish(server: &Server, producer: usize) {
    const PIPELINE: usize = 10;
    let per_channel = (SUBSCRIBERS / CHANNELS_PER_KIND) as i64;
    let mut connection = Producer::connect(server);
    let numbers: Vec<usize> = (0..PUBLICATIONS / PRODUCERS).collect();
    for pipeline in numbers.chunks(PIPELINE) {
        let commands = pipeline.iter().flat_map(|&number| {
            let payload = json!({ "producer": producer, "number": number }).to_string();
            encode(&["PUBLISH", &channel_of(producer, number), &payload])
        });
        connection.write(&commands.collect::<Vec<_>>());
        for number in pipeline {
            assert_eq!(connection.reply().integer(), per_channel, "publication {number} of producer {producer}");
        }
    }
}

/// Each producer visits all channels in turn, beginning elsewhere.
fn channel_of(producer: usize, number: usize) -> String {
    let channel = (number + producer * CHANNELS / PRODUCERS) % CHANNELS;
    if channel < CHANNELS_PER_KIND { kept_channel(channel) } else { open_channel(channel) }
}

fn kept_channel(index: usize) -> String {
    format!("kept:{}", index % CHANNELS_PER_KIND)
}

fn open_channel(index: usize) -> String {
    format!("open:{}", index % CHANNELS_PER_KIND)
}

/// Whether a subscriber received a channel's publications: all, once, in the order that every other subscriber saw,
/// and that of each producer.
fn assert_received(member: &Member, channel: &str, streams: &mut HashMap<String, Vec<String>>) {
    let received: Vec<_> = member.received.iter().filter(|received| received.channel == channel).collect();
    let payloads: Vec<String> = received.iter().map(|received| received.data.clone()).collect();
    let offsets: Vec<u64> = received.iter().map(|received| received.offset).collect();
    let expected_offsets: Vec<u64> = match channel.starts_with("kept:") {
        true => (1..=PUBLICATIONS_PER_CHANNEL as u64).collect(),
        false => vec![0; PUBLICATIONS_PER_CHANNEL],
    };
    assert_eq!(offsets, expected_offsets, "{channel}");

    if let Some(stream) = streams.get(channel) {
        assert_eq!(*stream, payloads, "{channel}: two subscribers saw different streams");
        return;
    }
    let mut numbers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for payload in &payloads {
        let payload: Value = serde_json::from_str(payload).expect("JSON");
        let number = |name: &str| payload[name].as_u64().expect("a number") as usize;
        numbers.entry(number("producer")).or_default().push(number("number"));
    }
    for producer in 0..PRODUCERS {
        let expected: Vec<usize> =
            (0..PUBLICATIONS / PRODUCERS).filter(|&number| channel_of(producer, number) == channel).collect();
        assert_eq!(numbers.get(&producer), Some(&expected), "{channel}: what producer {producer} published, in order");
    }
    streams.insert(channel.to_owned(), payloads);
}
