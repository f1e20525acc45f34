//! Clients that stop reading: each namespace's policy, the shard's memory ceiling, and a neighbour that misses nothing.

mod support;

use serde_json::{Value, json};
use support::{client::Client, metrics::Metrics, producer::Producer, server::Server};

const PADDING_BYTES: usize = 16 * 1024;

/// More than any kernel buffers for one connection.
const PUBLICATIONS_MAX: u64 = 4_000;

#[test]
fn disconnect_ends_the_connection() {
    let mut stage = Stage::new("disconnect");
    stage.publish_until(|metrics| metrics.reason("slow") > 0);
    let mut received = Vec::new();
    let (code, reason) = stage.slow.drain_until_close(&mut received);
    assert_eq!((code, reason.as_str()), (3008, "slow"));
    let numbers = numbers(&received);
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "what arrived has no gap");
    assert!((numbers.len() as u64) < stage.published);
}

#[test]
fn drop_oldest_keeps_the_newest() {
    let mut stage = Stage::new("drop-oldest");
    stage.publish_until(|metrics| dropped(metrics, "drop-oldest") > 20);
    let numbers = stage.drain_to_last();
    assert!(numbers.is_sorted(), "in order: {numbers:?}");
    let missing = stage.published - numbers.len() as u64;
    assert_eq!(dropped(&stage.server.metrics(), "drop-oldest"), missing, "each dropped publication is counted");
    // After the gap come the newest, without another.
    let tail =
        numbers.iter().rev().zip((0..stage.published).rev()).take_while(|(number, expected)| **number == *expected);
    assert!(tail.count() > 1, "{numbers:?}");
}

#[test]
fn latest_keeps_the_last() {
    let mut stage = Stage::new("latest");
    stage.publish_until(|metrics| dropped(metrics, "latest") > 20);
    let numbers = stage.drain_to_last();
    assert!(numbers.is_sorted(), "in order: {numbers:?}");
    let missing = stage.published - numbers.len() as u64;
    assert_eq!(dropped(&stage.server.metrics(), "latest"), missing, "each conflated publication is counted");
    let before_last = numbers[numbers.len() - 2];
    assert!(stage.published - 1 - before_last > 20, "conflated to the last: {numbers:?}");
}

#[test]
fn resync_lets_the_client_recover() {
    let mut stage = Stage::new("resync");
    stage.publish_until(|metrics| dropped(metrics, "resync") > 0);
    let mut received = Vec::new();
    let unsubscribed = loop {
        let push = stage.slow.next_push();
        match push["unsubscribe"].is_object() {
            true => break push,
            false => received.push(push),
        }
    };
    assert_eq!(unsubscribed["unsubscribe"]["code"], 2500, "{unsubscribed}");
    let last = received.last().expect("something arrived before");
    let request = json!({
        "channel": stage.channel,
        "recover": true,
        "offset": last["pub"]["offset"],
        "epoch": stage.epoch,
    });
    let reply = stage.slow.command("subscribe", request);
    assert_eq!(reply["subscribe"]["recovered"], true, "{reply}");
    let recovered = reply["subscribe"]["publications"].as_array().expect("what was missed").iter();
    received.extend(recovered.map(|publication| json!({ "pub": publication })));
    assert_eq!(numbers(&received), (0..stage.published).collect::<Vec<_>>(), "nothing is lost, nothing comes twice");
}

#[test]
fn the_ceiling_ends_the_worst_connection_first() {
    let server =
        Server::start("shards.cores = [0]\nshards.outbox_size_max = \"1MiB\"\nshards.outboxes_size_max = \"1MiB\"");
    let mut worst = Client::anonymous(&server);
    let mut other = Client::anonymous(&server);
    for client in [&mut worst, &mut other] {
        client.subscribe("open:both");
    }
    worst.subscribe("open:worst");
    let mut producer = Producer::connect(&server);
    let publish_until = |producer: &mut Producer, channel: &str, is_enough: &dyn Fn(&Metrics) -> bool| {
        let enough = (0..PUBLICATIONS_MAX).find(|&number| {
            producer.publish(channel, &payload(number));
            is_enough(&server.metrics())
        });
        enough.unwrap_or_else(|| panic!("{PUBLICATIONS_MAX} publications to {channel} were not enough")) + 1
    };
    let to_both = publish_until(&mut producer, "open:both", &|metrics| {
        metrics.sum("tidegate_outboxes", &[]) == Some(2.0)
            && metrics.sum("tidegate_outbox_bytes", &[]).is_some_and(|bytes| bytes > 200_000.0)
    });
    publish_until(&mut producer, "open:worst", &|metrics| metrics.reason("memory") > 0);
    assert_eq!(server.metrics().reason("memory"), 1);
    for number in 0..to_both {
        assert_eq!(other.next_data()["number"], number);
    }
    // There is no room for its last words either: it is cut off, and its SDK comes back.
    let mut received = Vec::new();
    assert!(worst.drain(&mut received).is_err(), "no close frame");
    assert!(!received.is_empty());
}

/// A server with one policy, a subscriber that does not read, and one that does.
struct Stage {
    server: Server,
    channel: String,
    epoch: Value,
    slow: Client,
    fast: Client,
    producer: Producer,
    published: u64,
}

impl Stage {
    fn new(policy: &str) -> Self {
        let server = Server::start(&format!(
            r#"
ingest.payload_size_max = "32KiB"
shards.outbox_size_max = "64KiB"

[[channel.namespaces]]
name = "slow"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
history_size = {PUBLICATIONS_MAX}
history_ttl = "10m"
force_recovery = true
slow_consumer = "{policy}"
"#
        ));
        let channel = "slow:stream".to_owned();
        let mut slow = Client::anonymous(&server);
        let epoch = slow.subscribe(&channel)["epoch"].clone();
        let mut fast = Client::anonymous(&server);
        fast.subscribe(&channel);
        let producer = Producer::connect(&server);
        Self { server, channel, epoch, slow, fast, producer, published: 0 }
    }

    /// Publishes until the metrics say that it is enough; the reader that reads receives all of it.
    fn publish_until(&mut self, is_enough: impl Fn(&Metrics) -> bool) {
        const BETWEEN_LOOKS: u64 = 8;
        while !is_enough(&self.server.metrics()) {
            assert!(self.published < PUBLICATIONS_MAX, "{PUBLICATIONS_MAX} publications were not enough");
            for _ in 0..BETWEEN_LOOKS {
                self.producer.publish(&self.channel, &payload(self.published));
                assert_eq!(self.fast.next_data()["number"], self.published, "the neighbour misses nothing");
                self.published += 1;
            }
        }
    }

    /// Numbers of what the slow reader receives, up to the last publication.
    fn drain_to_last(&mut self) -> Vec<u64> {
        let mut received = Vec::new();
        let last = self.published - 1;
        while received.last().is_none_or(|push: &Value| push["pub"]["data"]["number"] != last) {
            received.push(self.slow.next_push());
        }
        numbers(&received)
    }
}

fn payload(number: u64) -> String {
    json!({ "number": number, "padding": "x".repeat(PADDING_BYTES) }).to_string()
}

fn numbers(pushes: &[Value]) -> Vec<u64> {
    pushes.iter().map(|push| push["pub"]["data"]["number"].as_u64().expect("a number")).collect()
}

fn dropped(metrics: &Metrics, policy: &str) -> u64 {
    metrics.sum("tidegate_slow_consumer_dropped_total", &[("policy", policy)]).unwrap_or(0.0) as u64
}
