//! The operations whose instructions are counted.
//!
//! Tables are smaller than where time is measured: what a cache misses is no instruction.

use std::{hint::black_box, mem};

use tidegate::{
    limits::MESH_TURN_MESSAGES_MAX,
    mesh::{ToShard, build},
    protocol::Encoding,
    websocket::{mask, utf8},
};

use crate::{
    callgrind::Counter,
    channel::Home,
    client_frame::MASK,
    fanout::Audience,
    mesh::{deliver, publication},
    protocol::{COMMANDS, decode_all, encode},
    publication::{CHANNEL, PUBLICATION},
    resp::Pipeline,
    shard::Clients,
    slab::Slots,
    websocket::{Reading, Writing, json, mixed_text},
    wheel::Heartbeats,
};

/// A name, and what sets the operation up and runs it often enough that what is done once does not count.
type Operation = (&'static str, fn(&mut Counter));

/// All operations that are counted.
pub const OPERATIONS: &[Operation] = &[
    ("websocket/read/16-bytes", |counter| read(counter, 16)),
    ("websocket/read/128-bytes", |counter| read(counter, 128)),
    ("websocket/read/4096-bytes", |counter| read(counter, 4096)),
    ("websocket/write/128-bytes", write),
    ("websocket/unmask/4096-bytes", unmask),
    ("websocket/utf8/4096-bytes", check_utf8),
    ("protocol/decode/pong", |counter| decode(counter, "pong")),
    ("protocol/decode/connect", |counter| decode(counter, "connect")),
    ("protocol/decode/subscribe", |counter| decode(counter, "subscribe")),
    ("protocol/decode/publish", |counter| decode(counter, "publish")),
    ("protocol/encode/publication", |counter| encode_publication(counter, Encoding::Json)),
    ("protocol/encode/publication-protobuf", |counter| encode_publication(counter, Encoding::Protobuf)),
    ("resp/parse/publish", parse),
    ("channel/publish/without-history", |counter| publish(counter, Home::new("plain", TABLE))),
    ("channel/publish/with-history", publish_with_history),
    ("channel/interest", interest),
    ("mesh/hop", hop),
    ("slab/get", slab_get),
    ("slab/insert", slab_insert),
    ("slab/remove", slab_remove),
    ("wheel/schedule", wheel_schedule),
    ("wheel/cancel", wheel_cancel),
    ("wheel/advance-and-reschedule", wheel_advance),
    ("fanout/delivery/1-publication", |counter| fan_out(counter, 1)),
    ("fanout/delivery/16-publications", |counter| fan_out(counter, 16)),
    ("shard/delivery/1-publication", |counter| deliver_to_all(counter, 1)),
    ("shard/delivery/16-publications", |counter| deliver_to_all(counter, 16)),
    ("shard/delivery/one-to-each", |counter| deliver_to_each(counter, Clients::deliver)),
    ("shard/delivery/one-by-one", |counter| deliver_to_each(counter, Clients::deliver_one_by_one)),
    ("shard/heartbeat", heartbeat),
    ("shard/arrival", arrival),
];

const REPEATS: u64 = 1_000;

/// Entries of tables.
const TABLE: u32 = 10_000;

/// Clients of a whole shard.
const CLIENTS: usize = 2_000;

fn read(counter: &mut Counter, payload_bytes: usize) {
    let mut reading = Reading::new(&json(payload_bytes));
    repeat(counter, || reading.read());
}

fn write(counter: &mut Counter) {
    let mut writing = Writing::new(PUBLICATION.data);
    repeat(counter, || writing.write());
}

fn unmask(counter: &mut Counter) {
    let mut payload = json(4096);
    repeat(counter, || mask::apply(black_box(&mut payload), MASK));
}

fn check_utf8(counter: &mut Counter) {
    let text = mixed_text(4096);
    repeat(counter, || utf8::check(black_box(text.as_bytes())));
}

fn decode(counter: &mut Counter, name: &str) {
    let (_, message) =
        COMMANDS.iter().find(|(known, _)| *known == name).expect("commands are asked for by their names");
    repeat(counter, || decode_all(black_box(message)));
}

fn encode_publication(counter: &mut Counter, encoding: Encoding) {
    let mut out = Vec::new();
    repeat(counter, || encode(&mut out, black_box(encoding), black_box(CHANNEL), black_box(PUBLICATION)));
}

fn parse(counter: &mut Counter) {
    const COMMANDS_IN_PIPELINE: usize = 64;

    let pipeline = Pipeline::new(COMMANDS_IN_PIPELINE, 128);
    counter.count(COMMANDS_IN_PIPELINE as u64, || {
        black_box(pipeline.parse());
    });
}

fn publish(counter: &mut Counter, mut home: Home) {
    repeat(counter, || home.publish());
}

fn publish_with_history(counter: &mut Counter) {
    let mut home = Home::new("kept", 10);
    home.fill_history();
    publish(counter, home);
}

fn interest(counter: &mut Counter) {
    let mut home = Home::new("plain", TABLE);
    counter.count(u64::from(TABLE), || {
        black_box(home.subscribers(TABLE as usize));
    });
}

/// Both ends in one thread: what each thread does for a message, without what the cores do for each other.
fn hop(counter: &mut Counter) {
    let (mut shards, mut ingest, _control) = build(1).expect("descriptors for three bells");
    let (shard, publication) = (shards.remove(0), publication());
    let queue = &shard.inbound[shard.ingest_queue()];
    let mut turn = || {
        (0..MESH_TURN_MESSAGES_MAX).for_each(|_| ingest.to_shards[0].send(deliver(&publication)));
        ingest.to_shards[0].ring();
        (0..MESH_TURN_MESSAGES_MAX).for_each(|_| drop(queue.try_recv().expect("what was sent is there")));
    };
    // The first use of a queue sets its thread up.
    turn();
    counter.count(MESH_TURN_MESSAGES_MAX as u64, turn);
}

fn slab_get(counter: &mut Counter) {
    let slots = Slots::new(TABLE);
    counter.count(u64::from(TABLE), || {
        black_box(slots.get(0, TABLE as usize));
    });
}

fn slab_insert(counter: &mut Counter) {
    let mut slots = Slots::new(TABLE);
    slots.remove(0, TABLE as usize);
    counter.count(u64::from(TABLE), || slots.insert(TABLE as usize));
}

fn slab_remove(counter: &mut Counter) {
    let mut slots = Slots::new(TABLE);
    counter.count(u64::from(TABLE), || slots.remove(0, TABLE as usize));
}

fn wheel_schedule(counter: &mut Counter) {
    let mut heartbeats = Heartbeats::new(TABLE);
    heartbeats.cancel(0, TABLE as usize);
    counter.count(u64::from(TABLE), || heartbeats.schedule(0, TABLE as usize));
}

fn wheel_cancel(counter: &mut Counter) {
    let mut heartbeats = Heartbeats::new(TABLE);
    counter.count(u64::from(TABLE), || heartbeats.cancel(0, TABLE as usize));
}

/// An interval in which each timer is due once.
fn wheel_advance(counter: &mut Counter) {
    let mut heartbeats = Heartbeats::new(TABLE);
    counter.count(u64::from(TABLE), || {
        let mut due = 0;
        while due < TABLE as usize {
            due += heartbeats.tick();
        }
    });
}

fn fan_out(counter: &mut Counter, publications: u32) {
    let mut audience = Audience::new(TABLE);
    // The first turn makes the room that later ones use again.
    audience.turn(publications);
    counter.count(u64::from(TABLE * publications), || {
        black_box(audience.turn(publications));
    });
}

fn deliver_to_all(counter: &mut Counter, publications: usize) {
    let make = |clients: &Clients| clients.publications_to_all(publications);
    deliver_twice(counter, publications, make, Clients::deliver);
}

fn deliver_to_each(counter: &mut Counter, deliver: fn(&mut Clients, Vec<ToShard>) -> u64) {
    deliver_twice(counter, 1, Clients::publications_to_each, deliver);
}

/// The first time makes the room that later ones use again.
fn deliver_twice(
    counter: &mut Counter,
    to_each: usize,
    publications: impl Fn(&Clients) -> Vec<ToShard>,
    deliver: fn(&mut Clients, Vec<ToShard>) -> u64,
) {
    let mut clients = Clients::arrived(CLIENTS);
    let first = publications(&clients);
    deliver(&mut clients, first);
    let mut second = publications(&clients);
    let mut sends = 0;
    counter.count((CLIENTS * to_each) as u64, || sends = deliver(&mut clients, mem::take(&mut second)));
    assert_eq!(sends, CLIENTS as u64, "one send each");
}

fn heartbeat(counter: &mut Counter) {
    let mut clients = Clients::arrived(CLIENTS);
    clients.heartbeats();
    let mut pings = 0;
    counter.count(CLIENTS as u64, || pings = clients.heartbeats());
    assert_eq!(pings, CLIENTS as u64, "every client is pinged once");
}

fn arrival(counter: &mut Counter) {
    let mut clients = Clients::new(CLIENTS);
    counter.count(CLIENTS as u64, || clients.arrive());
    clients.assert_subscribed();
}

fn repeat<T>(counter: &mut Counter, mut operation: impl FnMut() -> T) {
    counter.count(REPEATS, || {
        for _ in 0..REPEATS {
            black_box(operation());
        }
    });
}
