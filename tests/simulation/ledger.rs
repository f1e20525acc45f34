//! What was published, and therefore what a subscriber has to see.
//!
//! Every publication carries its producer and the producer's count of publications into the channel.
//! A producer's publications travel in order, so a subscriber that misses none sees each producer's
//! count rise by one.

use std::collections::BTreeMap;

use serde_json::Value;
use tidegate::limits::{STREAM_POSITION_MS, STREAM_UNUSED_MS};

use crate::fossil;

/// Publications that `kept:` and `sync:` keep, and for how long.
pub const HISTORY_SIZE: u32 = 20;
pub const HISTORY_TTL_MS: u32 = 20_000;

/// What a channel promises to its subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Every publication, or the end of the connection.
    Every,
    /// Every publication in the order of its offset, also across connections, or the news that something is missing.
    EveryByOffset,
    /// Every publication in the order of its offset while connected; after an absence the latest, or the news that it is
    /// gone.
    EveryFromLatest,
    /// What was published last, and before it as much as there was room for.
    Last,
    /// As much as there is room for.
    Some,
}

/// What the channel of this name promises.
pub fn promise(channel: &str) -> Promise {
    match channel.split(':').next() {
        Some("kept" | "sync" | "room") => Promise::EveryByOffset,
        Some("cache") => Promise::EveryFromLatest,
        Some("latest") => Promise::Last,
        Some("oldest") => Promise::Some,
        _ => Promise::Every,
    }
}

impl Promise {
    /// Whether the channel has a stream.
    pub fn has_stream(self) -> bool {
        matches!(self, Self::EveryByOffset | Self::EveryFromLatest)
    }
}

/// Whoever publishes: producers at the ingest port, and clients.
pub type Producer = u32;

/// The first of the clients.
pub const CLIENTS: Producer = 100;

/// What the publications of producers at the ingest port are tagged with. Clients cannot tag.
pub fn tag(count: u64) -> (&'static str, &'static str) {
    ("parity", if count.is_multiple_of(2) { "even" } else { "odd" })
}

/// What a subscription brings of a channel's publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Each, whole.
    Whole,
    /// Each, as patches to each other.
    Deltas,
    /// Those with an even count, by a filter.
    Even,
}

impl Content {
    /// The first of a producer's publications that is for the subscription, after this one.
    fn after(self, count: u64) -> u64 {
        if self == Self::Even { count / 2 * 2 + 2 } else { count + 1 }
    }

    /// How many are for it of a producer's publications after one, and up to another.
    fn between(self, after: u64, to: u64) -> u64 {
        let step = if self == Self::Even { 2 } else { 1 };
        (to / step).saturating_sub(after / step)
    }
}

/// Where a stream stood.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub epoch: String,
    pub offset: u64,
}

/// All that was published.
#[derive(Default)]
pub struct Ledger {
    channels: BTreeMap<String, Past>,
    /// Publications that subscribers of `oldest:` and `latest:` did not see.
    pub unseen: u64,
    /// Publications that subscribers did see.
    pub seen: u64,
    /// Publications that came as patches.
    pub patches: u64,
}

/// What was published into one channel.
#[derive(Default)]
struct Past {
    sent: BTreeMap<Producer, u64>,
    answered: BTreeMap<Producer, u64>,
    sent_ms: BTreeMap<(Producer, u64), u64>,
    placed: BTreeMap<Place, (Producer, u64)>,
    places: BTreeMap<(Producer, u64), Place>,
    /// When each epoch was first and last seen.
    epochs: BTreeMap<String, (u64, u64)>,
}

impl Ledger {
    /// A producer publishes: its count.
    pub fn send(&mut self, channel: &str, producer: Producer, now_ms: u64) -> u64 {
        let past = self.channels.entry(channel.to_owned()).or_default();
        let count = past.sent.entry(producer).or_default();
        *count += 1;
        past.sent_ms.insert((producer, *count), now_ms);
        *count
    }

    /// The server has told the producer that it has the publication.
    pub fn answer(&mut self, channel: &str, producer: Producer, count: u64) {
        let past = self.channels.entry(channel.to_owned()).or_default();
        let before = past.answered.insert(producer, count).unwrap_or(0);
        assert_eq!(count, before + 1, "{channel}: producers are answered in order");
    }

    /// A publication was seen at an offset: everybody sees it there, and nothing else.
    pub fn place(&mut self, channel: &str, place: &Place, producer: Producer, count: u64) {
        let past = self.channels.entry(channel.to_owned()).or_default();
        let there = past.placed.entry(place.clone()).or_insert((producer, count));
        assert_eq!(*there, (producer, count), "{channel}: two publications at {place:?}");
        let known = past.places.entry((producer, count)).or_insert_with(|| place.clone());
        assert_eq!(known, place, "{channel}: publication {count} of {producer} at two places");
    }

    /// The stream was seen in this epoch.
    pub fn see_epoch(&mut self, channel: &str, epoch: &str, now_ms: u64) {
        let epochs = &mut self.channels.entry(channel.to_owned()).or_default().epochs;
        epochs.entry(epoch.to_owned()).or_insert((now_ms, now_ms)).1 = now_ms;
    }

    fn past(&self, channel: &str) -> &Past {
        static NOTHING: Past = Past {
            sent: BTreeMap::new(),
            answered: BTreeMap::new(),
            sent_ms: BTreeMap::new(),
            placed: BTreeMap::new(),
            places: BTreeMap::new(),
            epochs: BTreeMap::new(),
        };
        self.channels.get(channel).unwrap_or(&NOTHING)
    }

    /// Whether a client that has seen all up to `from` may be told, now that the stream stands at `top`, that something is missing.
    fn may_be_unrecovered(&self, channel: &str, from: &Place, top: &Place, now_ms: u64) -> bool {
        let past = self.past(channel);
        let is_old = |publication: &(Producer, u64)| past.sent_ms[publication] + u64::from(HISTORY_TTL_MS) <= now_ms;
        if promise(channel) == Promise::EveryFromLatest {
            return top.offset == 0 || past.placed.get(top).is_none_or(is_old);
        }
        if from.epoch != top.epoch {
            let (last_ms, first_ms) = (past.epochs[&from.epoch].1, past.epochs[&top.epoch].0);
            return last_ms + STREAM_UNUSED_MS.min(STREAM_POSITION_MS) <= first_ms;
        }
        let first_missed = Place { epoch: from.epoch.clone(), offset: from.offset + 1 };
        let is_evicted = top.offset - from.offset > u64::from(HISTORY_SIZE);
        let is_expired = past.placed.get(&first_missed).is_none_or(is_old);
        top.offset > from.offset && (is_evicted || is_expired)
    }
}

/// The last publication of each producer that was seen.
pub type Seen = BTreeMap<Producer, u64>;

/// What one subscription has brought so far.
pub struct Reception {
    channel: String,
    promise: Promise,
    /// Counts that the client has seen before: it must not see them again.
    seen_before: Seen,
    /// Counts that were sent when it was made: all later ones are for it.
    sent_before: BTreeMap<Producer, u64>,
    is_made: bool,
    last: Seen,
    content: Content,
    /// The payload that came last, where they are patches to each other.
    payload: Option<Vec<u8>>,
    /// Up to where all was seen.
    pub place: Option<Place>,
}

impl Reception {
    /// The client asks for it, having seen what it has seen on the same connection.
    pub fn ask(channel: &str, seen_before: Seen, content: Content) -> Self {
        Self {
            channel: channel.to_owned(),
            promise: promise(channel),
            seen_before,
            sent_before: BTreeMap::new(),
            is_made: false,
            last: BTreeMap::new(),
            content,
            payload: None,
            place: None,
        }
    }

    /// It is made, and begins behind `place`.
    pub fn make(&mut self, ledger: &Ledger, place: Option<Place>) {
        assert!(!self.is_made, "{}: a subscription is made once", self.channel);
        assert_eq!(place.is_some(), self.promise.has_stream(), "{}: {place:?}", self.channel);
        self.is_made = true;
        self.sent_before = ledger.past(&self.channel).sent.clone();
        self.place = place;
    }

    /// Whether all publications are for it.
    pub fn is_filtered(&self) -> bool {
        self.content == Content::Even
    }

    pub fn is_made(&self) -> bool {
        self.is_made
    }

    /// It is made, though something since `from` is missing.
    pub fn check_unrecovered(&self, ledger: &Ledger, from: &Place, now_ms: u64) {
        let top = self.place.as_ref().expect("only streams are recovered");
        assert!(
            ledger.may_be_unrecovered(&self.channel, from, top, now_ms),
            "{}: unrecovered from {from:?} at {top:?}",
            self.channel
        );
    }

    /// A publication is seen, live or recovered.
    pub fn see(&mut self, ledger: &mut Ledger, producer: Producer, count: u64, offset: u64, is_live: bool) {
        let is_filtered = self.is_filtered();
        let Self { channel, seen_before, sent_before, last, content, .. } = self;
        assert!(self.is_made, "{channel}: a publication before the subscription's reply");
        assert!(
            !is_filtered || producer < CLIENTS && count.is_multiple_of(2),
            "{channel}: {count} of {producer} does not pass"
        );
        ledger.seen += 1;
        let previous = last.insert(producer, count);
        if let Some(place) = &mut self.place {
            assert!(
                offset == place.offset + 1 || is_filtered && offset > place.offset,
                "{channel}: {offset} after {place:?}"
            );
            place.offset = offset;
            ledger.place(channel, place, producer, count);
        } else {
            assert_eq!(offset, 0, "{channel} has no stream");
        }
        let is_lossy = matches!(self.promise, Promise::Last | Promise::Some);
        let first_expected = content.after(sent_before.get(&producer).copied().unwrap_or(0));
        match previous {
            Some(previous) => {
                assert!(count > previous, "{channel}: {count} of {producer} after {previous}");
                let is_next = count == content.after(previous);
                assert!(is_lossy || is_next, "{channel}: {count} of {producer} after {previous}");
                ledger.unseen += content.between(previous, count) - 1;
            }
            None => {
                let seen = seen_before.get(&producer).copied().unwrap_or(0);
                assert!(!is_live || count > seen, "{channel}: {count} of {producer} was seen before");
                let is_in_time = is_lossy || !is_live || count <= first_expected;
                assert!(is_in_time, "{channel}: {producer} begins with {count} instead of {first_expected}");
                ledger.unseen += content.between(first_expected, count);
            }
        }
    }

    /// The payload of a publication that has come, as a text or a patch where the subscription has deltas.
    pub fn payload(&mut self, ledger: &mut Ledger, publication: &Value) -> Value {
        if self.content != Content::Deltas {
            assert!(publication.get("delta").is_none(), "{}: {publication}", self.channel);
            return publication["data"].clone();
        }
        let text = publication["data"].as_str().expect("with deltas payloads are strings").as_bytes();
        let payload = match publication.get("delta") {
            None => text.to_vec(),
            Some(_) => {
                ledger.patches += 1;
                fossil::apply(self.payload.as_ref().expect("a patch follows a payload"), text)
            }
        };
        serde_json::from_slice(self.payload.insert(payload)).expect("payloads are JSON")
    }

    /// The last publication of a producer that was seen.
    pub fn last(&self, producer: Producer) -> u64 {
        self.last.get(&producer).copied().unwrap_or(0)
    }

    /// What was seen of each producer, now and before.
    pub fn into_seen(self) -> Seen {
        let mut seen = self.seen_before;
        seen.extend(self.last);
        seen
    }

    /// Nothing is under way any more: all that was published is here.
    pub fn check_complete(&self, ledger: &mut Ledger) {
        let mut unseen = 0;
        let past = ledger.past(&self.channel);
        let content = self.content;
        let is_for_it = |producer: &Producer| !self.is_filtered() || *producer < CLIENTS;
        for (producer, &answered) in past.answered.iter().filter(|(producer, _)| is_for_it(producer)) {
            let last = self.last(*producer).max(self.sent_before.get(producer).copied().unwrap_or(0));
            if self.promise == Promise::Some {
                unseen += content.between(last, answered);
            } else {
                assert!(
                    content.between(last, answered) == 0,
                    "{}: {producer} published {answered}, seen {last}",
                    self.channel
                );
            }
        }
        if let Some(place) = self.place.as_ref().filter(|_| !self.is_filtered()) {
            let top = past.placed.keys().filter(|known| known.epoch == place.epoch).map(|known| known.offset).max();
            assert!(place.offset >= top.unwrap_or(0), "{}: seen up to {place:?} of {top:?}", self.channel);
        }
        ledger.unseen += unseen;
    }
}
