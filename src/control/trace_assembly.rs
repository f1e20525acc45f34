//! Notes of shards become traces: which are whole, and which will not be.
//!
//! Owns the traces that are under way; pure, as time is handed in. What a trace looks like to a collector is `otlp`'s
//! business.
//!
//! Invariants:
//! - Notes of one trace come from several queues, so in any order; the home shard's says how many there are.
//! - What is under way is bounded in number and in time. A trace without its home shard's note tells nobody whose it is,
//!   and goes; one that lacks others is told with what there is.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::{
    limits::{TRACE_ASSEMBLY_MS_MAX, TRACES_UNDER_WAY_MAX},
    mesh::{FanOutNote, HomeNote, TraceNote, TraceNumber},
};

/// For how long notes of a trace are waited for.
const TIME_MAX: Duration = Duration::from_millis(TRACE_ASSEMBLY_MS_MAX);

/// All that was noted of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// By its home shard.
    pub home: HomeNote,
    /// By each shard with subscribers, in no order.
    pub fan_outs: Vec<FanOutNote>,
}

impl Trace {
    /// Spans that it becomes.
    pub fn spans(&self) -> u64 {
        spans(Some(&self.home), &self.fan_outs)
    }

    /// Whether a shard has not said what it did.
    pub fn is_incomplete(&self) -> bool {
        self.fan_outs.len() < self.home.shards.count_ones() as usize
    }
}

fn spans(home: Option<&HomeNote>, fan_outs: &[FanOutNote]) -> u64 {
    home.map_or(0, |_| TraceNote::HOME_SPANS) + fan_outs.len() as u64 * TraceNote::FAN_OUT_SPANS
}

/// The traces that are under way.
#[derive(Default)]
pub struct Assembly {
    open: HashMap<TraceNumber, Open>,
    /// In the order of their first notes, with those that have ended since the first that has not.
    by_age: VecDeque<(Instant, TraceNumber)>,
    /// Spans of traces for which there was no room, or no home shard's note.
    spans_dropped: u64,
}

#[derive(Default)]
struct Open {
    home: Option<HomeNote>,
    fan_outs: Vec<FanOutNote>,
}

impl Assembly {
    /// A shard has noted something. Some: with it, a trace is whole.
    pub fn note(&mut self, note: TraceNote, now: Instant) -> Option<Trace> {
        let number = note.trace();
        if !self.open.contains_key(&number) {
            if self.open.len() == TRACES_UNDER_WAY_MAX {
                self.spans_dropped += note.spans();
                return None;
            }
            self.by_age.push_back((now, number));
        }
        let open = self.open.entry(number).or_default();
        match note {
            TraceNote::Home(home) => open.home = Some(home),
            TraceNote::FanOut(fan_out) => open.fan_outs.push(fan_out),
        }
        let shards = open.home.as_ref()?.shards.count_ones() as usize;
        if open.fan_outs.len() < shards {
            return None;
        }
        self.end(number)
    }

    /// The traces for which nothing more is waited.
    pub fn expire(&mut self, now: Instant) -> Vec<Trace> {
        let mut expired = Vec::new();
        while self.next_due_at().is_some_and(|due_at| due_at <= now) {
            let (_, number) = self.by_age.pop_front().expect("it is due");
            expired.extend(self.end(number));
        }
        expired
    }

    /// When the oldest is waited for no longer.
    pub fn next_due_at(&mut self) -> Option<Instant> {
        while self.by_age.front().is_some_and(|(_, number)| !self.open.contains_key(number)) {
            self.by_age.pop_front();
        }
        self.by_age.front().map(|(begun_at, _)| *begun_at + TIME_MAX)
    }

    /// Spans that became nothing.
    pub fn spans_dropped(&self) -> u64 {
        self.spans_dropped
    }

    fn end(&mut self, number: TraceNumber) -> Option<Trace> {
        let Open { home, fan_outs } = self.open.remove(&number)?;
        match home {
            Some(home) => Some(Trace { home, fan_outs }),
            None => {
                self.spans_dropped += spans(None, &fan_outs);
                None
            }
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::mesh::{ChannelHasher, TurnTotals};

    pub fn home(trace: u64, shards: u64) -> HomeNote {
        HomeNote {
            trace: TraceNumber::new(trace).unwrap(),
            parent: None,
            shard: 1,
            channel: ChannelHasher::with_key([7; 16]).name("news:eu"),
            producer: "resp",
            payload_bytes: 20,
            offset: 9,
            subscribers: 30,
            shards,
            is_suppressed: false,
            taken_in_us: 1_000,
            received_us: 1_010,
            numbered_us: 1_020,
            passed_on_us: 1_030,
        }
    }

    pub fn fan_out(trace: u64, shard: u16) -> FanOutNote {
        FanOutNote {
            trace: TraceNumber::new(trace).unwrap(),
            shard,
            subscribers: 15,
            encodings: 2,
            received_us: 1_040,
            encoded_us: 1_050,
            writing_us: 1_060,
            written_us: 1_100 + u64::from(shard),
            turn: TurnTotals { publications: 3, sends: 15, sent_bytes: 900, dropped: 1 },
        }
    }

    #[test]
    fn a_trace_is_whole_with_the_last_note_in_any_order() {
        let now = Instant::now();
        let notes =
            [TraceNote::Home(home(5, 0b101)), TraceNote::FanOut(fan_out(5, 0)), TraceNote::FanOut(fan_out(5, 2))];
        for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0], [1, 2, 0]] {
            let mut assembly = Assembly::default();
            // Another trace is under way.
            assert_eq!(assembly.note(TraceNote::FanOut(fan_out(6, 0)), now), None);
            assert_eq!(assembly.note(notes[order[0]].clone(), now), None);
            assert_eq!(assembly.note(notes[order[1]].clone(), now), None);
            let trace = assembly.note(notes[order[2]].clone(), now).expect("it is whole");
            assert_eq!((trace.home.shards, trace.fan_outs.len(), trace.spans()), (0b101, 2, 12));
            assert!(!trace.is_incomplete());
        }
        assert!(Assembly::default().note(TraceNote::Home(home(5, 0)), now).is_some(), "nobody is subscribed");
    }

    #[test]
    fn what_is_waited_for_in_vain_is_told_as_it_is_if_it_says_whose_it_is() {
        let begin = Instant::now();
        let mut assembly = Assembly::default();
        assembly.note(TraceNote::Home(home(1, 0b11)), begin);
        assembly.note(TraceNote::FanOut(fan_out(1, 0)), begin);
        assembly.note(TraceNote::FanOut(fan_out(2, 0)), begin);
        assembly.note(TraceNote::Home(home(3, 0b1)), begin + TIME_MAX / 2);
        assert_eq!(assembly.next_due_at(), Some(begin + TIME_MAX));
        assert_eq!(assembly.expire(begin + TIME_MAX / 2), []);
        let told = assembly.expire(begin + TIME_MAX);
        assert_eq!(told.len(), 1);
        assert!(told[0].is_incomplete() && told[0].home.trace.get() == 1);
        assert_eq!(assembly.spans_dropped(), TraceNote::FAN_OUT_SPANS);
        assert_eq!(assembly.next_due_at(), Some(begin + TIME_MAX + TIME_MAX / 2));
        assert!(assembly.note(TraceNote::FanOut(fan_out(3, 0)), begin + TIME_MAX).is_some());
        assert_eq!((assembly.next_due_at(), assembly.open.len()), (None, 0));
    }

    #[test]
    fn so_many_are_under_way_and_no_more() {
        let now = Instant::now();
        let mut assembly = Assembly::default();
        for number in 1..=TRACES_UNDER_WAY_MAX as u64 + 10 {
            assembly.note(TraceNote::FanOut(fan_out(number, 0)), now);
        }
        assert_eq!(assembly.open.len(), TRACES_UNDER_WAY_MAX);
        assert_eq!(assembly.spans_dropped(), 10 * TraceNote::FAN_OUT_SPANS);
        assert!(assembly.note(TraceNote::Home(home(1, 0b1)), now).is_some(), "those that are there go on");
    }
}
