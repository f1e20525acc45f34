//! The ingest thread's part: producers that push through the mesh and hold the answers against the ledger.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidegate::{
    channel::Random,
    mesh::{Answer, ChannelHasher, IngestMesh, Origin, Position, Publish, ReplyTo, ToIngest, ToShard, TraceNumber},
};

use crate::{
    client::{CHANNELS, has_one_producer, payload},
    ledger::{Ledger, Place, Producer, promise, tag},
};

/// Producers at the ingest port. Their numbers are below those of clients.
const PRODUCERS: u64 = 3;

/// The producers and the ingest thread's end of the mesh.
pub struct Producers {
    mesh: IngestMesh,
    hasher: ChannelHasher,
    next_sequence: u64,
    open: BTreeMap<u64, Publication>,
    /// Publications that were answered, to be sent again under their keys.
    answered: Vec<Publication>,
    /// Subscribers of each channel, as the home shards told last.
    pub counts: BTreeMap<String, u32>,
    open_counts: usize,
}

#[derive(Clone)]
struct Publication {
    channel: String,
    producer: Producer,
    count: u64,
    data: Bytes,
    key: Option<Bytes>,
    /// What the first of its key was answered.
    position: Option<Option<Position>>,
}

impl Producers {
    pub fn new(mesh: IngestMesh, hasher: ChannelHasher) -> Self {
        Self {
            mesh,
            hasher,
            next_sequence: 1,
            open: BTreeMap::new(),
            answered: Vec::new(),
            counts: BTreeMap::new(),
            open_counts: 0,
        }
    }

    /// Publishes something, if no queue is full.
    pub fn publish(&mut self, users: &[String], ledger: &mut Ledger, random: &mut Random, now_ms: u64) {
        self.flush();
        if self.mesh.to_shards.iter().any(|outlet| outlet.is_holding()) {
            return;
        }
        for _ in 0..=random.below(4) {
            if let Some(publication) = self.again(random) {
                self.send(publication);
                continue;
            }
            let channel = match random.below(8) {
                0 if !users.is_empty() => format!("#{}", users[random.below(users.len() as u64) as usize]),
                _ => random.one_of(&CHANNELS).to_owned(),
            };
            let producer = if has_one_producer(&channel) { 0 } else { random.below(PRODUCERS) as Producer };
            let count = ledger.send(&channel, producer, now_ms);
            let data = payload(&channel, producer, count, random).to_string().into();
            let key = random.chance(1, 4).then(|| Bytes::from(format!("{channel} {producer} {count}")));
            self.send(Publication { channel, producer, count, data, key, position: None });
        }
        self.ring();
    }

    /// Takes answers in, at most so many.
    pub fn take_answers(&mut self, messages_max: u64, ledger: &mut Ledger) -> bool {
        self.flush();
        let mut taken = 0;
        for queue in 0..self.mesh.inbound.len() {
            while taken < messages_max
                && let Ok(message) = self.mesh.inbound[queue].try_recv()
            {
                taken += 1;
                self.take(message, ledger);
            }
        }
        self.ring();
        taken > 0
    }

    /// Asks all home shards for the numbers of subscribers.
    pub fn ask_counts(&mut self, channels: impl Iterator<Item = String>) {
        for channel in channels {
            let channel = self.hasher.name(&channel);
            let home = channel.home(self.mesh.to_shards.len());
            let reply_to = ReplyTo::Ingest { connection: 0, sequence: 0 };
            self.mesh.to_shards[home].send(ToShard::CountSubscribers { channels: vec![channel], reply_to });
            self.open_counts += 1;
        }
        self.ring();
    }

    /// Whether every question was answered.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty() && self.open_counts == 0 && self.mesh.inbound.iter().all(|queue| queue.is_empty())
    }

    fn again(&mut self, random: &mut Random) -> Option<Publication> {
        if self.answered.is_empty() || !random.chance(1, 10) {
            return None;
        }
        Some(self.answered.swap_remove(random.below(self.answered.len() as u64) as usize))
    }

    fn send(&mut self, publication: Publication) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let channel = self.hasher.name(&publication.channel);
        let home = channel.home(self.mesh.to_shards.len());
        self.mesh.to_shards[home].send(ToShard::Publish(Box::new(Publish {
            idempotency_key: publication.key.clone(),
            tags: Some([tag(publication.count)].into_iter().collect()),
            reply_to: ReplyTo::Ingest { connection: u64::from(publication.producer), sequence },
            // Every other one is traced.
            origin: Origin {
                taken_in_us: 0,
                trace: TraceNumber::new(sequence).filter(|number| number.get().is_multiple_of(2)),
            },
            ..Publish::json(channel, publication.data.clone())
        })));
        self.open.insert(sequence, publication);
    }

    fn take(&mut self, message: ToIngest, ledger: &mut Ledger) {
        match message {
            ToIngest::Answer { connection, sequence, answer: Answer::Published(published) } => {
                let mut publication = self.open.remove(&sequence).expect("an answer to what was not asked");
                assert_eq!(connection, u64::from(publication.producer));
                if let Some(position) = &publication.position {
                    assert_eq!(*position, published.position, "a duplicate is answered like the first");
                    return;
                }
                ledger.answer(&publication.channel, publication.producer, publication.count);
                let is_stored = promise(&publication.channel).has_stream();
                assert_eq!(published.position.is_some(), is_stored);
                if let Some(Position { offset, epoch }) = &published.position {
                    let place = Place { epoch: epoch.to_string(), offset: *offset };
                    ledger.place(&publication.channel, &place, publication.producer, publication.count);
                }
                if publication.key.is_some() {
                    publication.position = Some(published.position);
                    self.answered.push(publication);
                }
            }
            ToIngest::Answer { answer: Answer::Subscribers(counts), .. } => {
                self.open_counts -= 1;
                self.counts.extend(counts.into_iter().map(|(channel, count)| (channel.name.to_string(), count)));
            }
            other => panic!("nobody asked for {other:?}"),
        }
    }

    fn flush(&mut self) {
        self.mesh.to_shards.iter_mut().for_each(|outlet| outlet.flush());
    }

    fn ring(&mut self) {
        self.mesh.to_shards.iter_mut().for_each(|outlet| outlet.ring());
    }
}
