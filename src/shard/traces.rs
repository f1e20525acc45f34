//! What a shard notes of publications that are traced: as their home, and where it sends them to subscribers.
//!
//! Owns the notes of a turn. A publication that is not traced comes here only to be told apart; the clock is read for
//! traced ones alone. Sends belong to a turn, not to a publication: its first and its last are what a trace says of each
//! that the turn has delivered.

use super::state::State;
use crate::{
    mesh::{Answer, FanOutNote, HomeNote, Publication, Publish, ToControl, TraceNote, TraceNumber, TurnTotals},
    uring::monotonic_us,
};

/// Traced publications that the turn delivers.
#[derive(Default)]
pub struct Traces {
    fan_outs: Vec<FanOutNote>,
    /// When the first of them came: what the turn does is counted from there.
    before: TurnTotals,
    /// Spans that found no room.
    pub spans_dropped: u64,
}

impl State {
    /// As the channel's home: the same as for any publication, with a look at the clock in between.
    #[cold]
    pub fn publish_traced(&mut self, trace: TraceNumber, mut publish: Publish) {
        let received_us = monotonic_us();
        let (parent, channel, origin) = (publish.trace_parent.take(), publish.channel.clone(), publish.origin);
        let (reply_to, payload_bytes) = (publish.reply_to, publish.data.len() as u64);
        let outcome = self.number(publish);
        let numbered_us = monotonic_us();
        self.pass_on(&outcome, origin);
        let passed_on_us = monotonic_us();
        let note = HomeNote {
            trace,
            parent,
            shard: self.mesh.shard,
            channel,
            producer: reply_to.producer(),
            payload_bytes,
            offset: outcome.publication.as_ref().map_or(0, |publication| publication.offset),
            subscribers: outcome.published.subscribers,
            shards: if outcome.publication.is_some() { outcome.shards } else { 0 },
            is_suppressed: outcome.publication.is_none(),
            taken_in_us: origin.taken_in_us,
            received_us,
            numbered_us,
            passed_on_us,
        };
        self.offer_note(TraceNote::Home(note));
        self.answer(reply_to, Answer::Published(outcome.published));
    }

    /// A traced publication is about to be encoded for the topics of its channel, of which this may be the first.
    #[cold]
    pub fn note_received(&mut self, trace: TraceNumber, publication: &Publication, first: Option<u32>) {
        let received_us = monotonic_us();
        if self.traces.fan_outs.is_empty() {
            self.traces.before = self.turn_totals();
        }
        let (mut subscribers, mut encodings, mut next) = (0, 0, first);
        while let Some(topic) = next {
            let count = self.topics.subscribers(topic).len() as u32;
            if count > 0 && self.topics.passes(topic, publication.tags.as_ref()) {
                subscribers += count;
                encodings += 1;
            }
            next = self.topics.next_of_channel(topic);
        }
        self.traces.fan_outs.push(FanOutNote {
            trace,
            shard: self.mesh.shard,
            subscribers,
            encodings,
            received_us,
            encoded_us: received_us,
            writing_us: received_us,
            written_us: received_us,
            turn: TurnTotals::default(),
        });
    }

    /// It is encoded.
    #[cold]
    pub fn note_encoded(&mut self) {
        let note = self.traces.fan_outs.last_mut().expect("it was noted when it was received");
        note.encoded_us = monotonic_us();
    }

    /// The turn's sends begin.
    #[inline(always)]
    pub fn note_writing(&mut self) {
        if !self.traces.fan_outs.is_empty() {
            self.note_writing_of_traced();
        }
    }

    #[cold]
    fn note_writing_of_traced(&mut self) {
        let writing_us = monotonic_us();
        self.traces.fan_outs.iter_mut().for_each(|note| note.writing_us = writing_us);
    }

    /// The turn's sends are done.
    #[inline(always)]
    pub fn note_written(&mut self) {
        if !self.traces.fan_outs.is_empty() {
            self.note_written_of_traced();
        }
    }

    #[cold]
    fn note_written_of_traced(&mut self) {
        let (written_us, before, after) = (monotonic_us(), self.traces.before, self.turn_totals());
        let turn = TurnTotals {
            publications: self.delivering.len() as u64,
            sends: after.sends - before.sends,
            sent_bytes: after.sent_bytes - before.sent_bytes,
            dropped: after.dropped - before.dropped,
        };
        for note in std::mem::take(&mut self.traces.fan_outs) {
            self.offer_note(TraceNote::FanOut(FanOutNote { written_us, turn, ..note }));
        }
    }

    fn offer_note(&mut self, note: TraceNote) {
        let spans = note.spans();
        if !self.mesh.to_control.offer(ToControl::Trace(Box::new(note))) {
            self.traces.spans_dropped += spans;
        }
    }

    /// What the shard has done since its start, but for publications.
    fn turn_totals(&self) -> TurnTotals {
        TurnTotals {
            publications: 0,
            sends: self.counters.sends,
            sent_bytes: self.counters.bytes_sent,
            dropped: self.counters.dropped.iter().sum(),
        }
    }
}
