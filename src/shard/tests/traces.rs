//! What shards note of publications that are traced.

use super::*;
use crate::mesh::{FanOutNote, HomeNote, Origin, ToControl, TraceNote, TraceNumber, TraceParent};

impl Stage {
    /// A producer publishes what is traced.
    fn publish_traced(&mut self, channel: &str, trace: u64, change: impl FnOnce(&mut Publish)) {
        self.publish_with(channel, "1", |publish| {
            publish.origin = Origin { trace: TraceNumber::new(trace), ..Origin::now() };
            publish.reply_to = ReplyTo::Ingest { connection: 1, sequence: 1 };
            change(publish);
        });
        self.settle();
    }

    /// What the control thread was told, home shards' notes first.
    fn notes(&self) -> (Vec<HomeNote>, Vec<FanOutNote>) {
        let (mut homes, mut fan_outs) = (Vec::new(), Vec::new());
        for queue in &self.control.inbound {
            for message in queue.try_iter() {
                match message {
                    ToControl::Trace(note) => match *note {
                        TraceNote::Home(note) => homes.push(note),
                        TraceNote::FanOut(note) => fan_outs.push(note),
                    },
                    other => panic!("unexpected {other:?}"),
                }
            }
        }
        fan_outs.sort_by_key(|note| (note.trace, note.shard));
        (homes, fan_outs)
    }
}

#[test]
fn the_home_shard_and_each_that_has_subscribers_note_what_they_did() {
    let mut stage = Stage::new(3, 64, |_| {});
    let channel = stage.channel("kept", 0);
    let mut clients: Vec<Client> = [0, 0, 2].map(|shard| stage.subscriber(shard, ROOM, &channel)).into();
    let parent = TraceParent { trace_id: [1; 16], span_id: [2; 8] };
    stage.publish_traced(&channel, 5, |publish| publish.trace_parent = Some(Box::new(parent)));
    let (homes, fan_outs) = stage.notes();
    let [home] = &homes[..] else { panic!("{homes:?}") };
    assert_eq!((home.trace.get(), home.shard, home.shards, home.subscribers), (5, 0, 0b101, 3));
    assert_eq!((&*home.channel.name, home.producer, home.offset, home.payload_bytes), (&*channel, "resp", 1, 1));
    assert_eq!((home.parent.as_deref(), home.is_suppressed), (Some(&parent), false));
    assert!(home.taken_in_us <= home.received_us && home.received_us <= home.numbered_us);
    assert!(home.numbered_us <= home.passed_on_us);
    let seen: Vec<_> =
        fan_outs.iter().map(|note| (note.trace.get(), note.shard, note.subscribers, note.encodings)).collect();
    assert_eq!(seen, [(5, 0, 2, 1), (5, 2, 1, 1)]);
    for note in &fan_outs {
        assert!(home.numbered_us <= note.received_us && note.received_us <= note.encoded_us, "{note:?}");
        assert!(note.encoded_us <= note.writing_us && note.writing_us <= note.written_us, "{note:?}");
        assert_eq!((note.turn.publications, note.turn.sends), (1, note.subscribers.into()));
        assert!(note.turn.sent_bytes > 0 && note.turn.dropped == 0);
    }
    assert!(clients.iter_mut().all(|client| client.hear().len() == 1));

    stage.publish(&channel, "2", true);
    stage.settle();
    assert_eq!(stage.notes(), (Vec::new(), Vec::new()), "others are not traced");
}

#[test]
fn what_goes_nowhere_says_so() {
    let mut stage = Stage::new(2, 64, |_| {});
    let channel = stage.channel("kept", 0);
    stage.publish_traced(&channel, 1, |publish| publish.idempotency_key = Some("key".into()));
    let mut client = stage.subscriber(0, ROOM, &channel);
    stage.publish_traced(&channel, 2, |publish| publish.idempotency_key = Some("key".into()));
    let (homes, fan_outs) = stage.notes();
    let seen: Vec<_> = homes.iter().map(|note| (note.trace.get(), note.shards, note.is_suppressed)).collect();
    assert_eq!((seen, fan_outs), (vec![(1, 0, false), (2, 0, true)], Vec::new()));
    assert!(client.hear().is_empty());
}

#[test]
fn a_full_queue_to_the_control_thread_holds_nothing_back_for_notes() {
    const QUEUE: usize = 8;
    let mut stage = Stage::new(1, QUEUE, |_| {});
    let channel = stage.channel("plain", 0);
    let mut client = stage.subscriber(0, ROOM, &channel);
    for number in 1..=20 {
        stage.publish_traced(&channel, number, |publish| publish.reply_to = ReplyTo::Nobody);
    }
    assert_eq!(client.hear().len(), 20, "all is delivered");
    let figures = stage.shards[0].figures();
    let (homes, fan_outs) = stage.notes();
    let told = homes.len() as u64 * TraceNote::HOME_SPANS + fan_outs.len() as u64 * TraceNote::FAN_OUT_SPANS;
    assert_eq!(homes.len() + fan_outs.len(), QUEUE / 2, "the other half is left to what may not be lost");
    assert_eq!(told + figures.trace_spans_dropped, 20 * (TraceNote::HOME_SPANS + TraceNote::FAN_OUT_SPANS));
    assert_eq!((figures.mesh_holding, figures.mesh_held), (0, 0));
}

#[test]
fn publications_of_clients_are_chosen_from_and_a_reload_changes_how() {
    let mut stage = Stage::new(1, 64, |config| {
        config.tracing.endpoint = Some("http://127.0.0.1:1/v1/traces".to_owned());
        config.tracing.sample_one_in = 1;
    });
    let channel = stage.channel("plain", 0);
    let client = stage.subscriber(0, ROOM, &channel);
    let publish = format!(r#"{{"id":3,"publish":{{"channel":"{channel}","data":1}}}}"#);
    client.say(&publish);
    stage.settle();
    let (homes, fan_outs) = stage.notes();
    assert_eq!((homes.len(), fan_outs.len(), homes[0].producer), (1, 1, "client"));
    let mut config = Config::clone(&stage.shards[0].state.config);
    config.tracing.endpoint = None;
    stage.control.to_shards[0].send(ToShard::Reconfigure { config: Arc::new(config), reload: 1 });
    stage.settle();
    assert!(matches!(stage.control.inbound[0].try_recv(), Ok(ToControl::Reconfigured { reload: 1 })));
    client.say(&publish);
    stage.settle();
    assert_eq!(stage.notes(), (Vec::new(), Vec::new()));
}
