//! Traces on their way to the collector: what waits, what is under way, what is tried again and when.
//!
//! Owns the bounds and the counts; pure, as time, chance and outcomes are handed in. HTTP is `traces`' part, what a request
//! says `otlp`'s.
//!
//! Invariants:
//! - One request is under way at a time, and is sent again until it is taken, refused, or given up. So a collector that is
//!   down is asked seldom, and one that is slow is not asked more than it can take.
//! - What waits is bounded. What finds no room is counted and gone: the server never waits for a collector.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::trace_assembly::Trace;
use crate::limits::{TRACE_BATCH_MS_MAX, TRACE_BATCH_SPANS_MAX, TRACE_SPANS_WAITING_MAX};

/// For how long a batch that is not full waits for more.
const BATCH_TIME_MAX: Duration = Duration::from_millis(TRACE_BATCH_MS_MAX);

/// How often a request is sent before it is given up.
const TRIES_MAX: u32 = 6;

/// Before the second try; twice as long before each further one.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// However long a collector wants to be left in peace.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The collector has taken its spans, but for so many.
    Taken {
        /// These.
        rejected: u64,
    },
    /// It will not take them, however often it is asked.
    Refused,
    /// It is not there, or has no time now. It may have said when to try again.
    Failed {
        /// After so long.
        retry_after: Option<Duration>,
    },
}

/// What is counted of spans.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TraceFigures {
    /// Taken by the collector.
    pub exported: u64,
    /// Not taken by a collector that answered.
    pub rejected: u64,
    /// Given up: the collector was away for too long.
    pub failed: u64,
    /// There was no room for them.
    pub dropped: u64,
    /// That wait, or are under way, now.
    pub waiting: u64,
}

/// A request, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// What it says.
    pub body: Bytes,
    /// How many spans that are.
    pub spans: u64,
}

/// The traces that wait.
#[derive(Default)]
pub struct TraceQueue {
    waiting: VecDeque<Trace>,
    spans_waiting: u64,
    /// When what waits is sent though it is no whole batch.
    due_at: Option<Instant>,
    under_way: Option<UnderWay>,
    figures: TraceFigures,
}

struct UnderWay {
    batch: Batch,
    tries: u32,
    /// None: it was sent, and has not ended.
    again_at: Option<Instant>,
}

impl TraceQueue {
    /// A trace is to be told.
    pub fn push(&mut self, trace: Trace, now: Instant) {
        let spans = trace.spans();
        if self.spans_waiting + spans > TRACE_SPANS_WAITING_MAX {
            self.figures.dropped += spans;
            return;
        }
        self.spans_waiting += spans;
        self.waiting.push_back(trace);
        self.due_at.get_or_insert(now + BATCH_TIME_MAX);
    }

    /// What is to be sent now; `describe` makes traces a request. It has to be told how that ended.
    pub fn next(&mut self, now: Instant, describe: impl FnOnce(&[Trace]) -> Vec<u8>) -> Option<Batch> {
        if self.under_way.is_none() {
            let is_full = self.spans_waiting >= TRACE_BATCH_SPANS_MAX;
            if !is_full && self.due_at.is_none_or(|due_at| now < due_at) {
                return None;
            }
            let (mut traces, mut spans) = (Vec::new(), 0);
            while spans < TRACE_BATCH_SPANS_MAX
                && let Some(trace) = self.waiting.pop_front()
            {
                spans += trace.spans();
                traces.push(trace);
            }
            self.spans_waiting -= spans;
            self.due_at = (!self.waiting.is_empty()).then_some(now + BATCH_TIME_MAX);
            let batch = Batch { body: describe(&traces).into(), spans };
            self.under_way = Some(UnderWay { batch, tries: 0, again_at: Some(now) });
        }
        let under_way = self.under_way.as_mut()?;
        under_way.again_at.take_if(|again_at| *again_at <= now)?;
        under_way.tries += 1;
        Some(under_way.batch.clone())
    }

    /// When [`TraceQueue::next`] may have something.
    pub fn next_due_at(&self) -> Option<Instant> {
        match &self.under_way {
            Some(under_way) => under_way.again_at,
            None => self.due_at,
        }
    }

    /// A request has ended. `chance`: a number that is like no other collector's client's, from 0 to 1.
    pub fn ended(&mut self, delivery: &Delivery, now: Instant, chance: f64) {
        let Some(mut under_way) = self.under_way.take() else { return };
        let spans = under_way.batch.spans;
        match delivery {
            Delivery::Taken { rejected } => {
                self.figures.rejected += rejected.min(&spans);
                self.figures.exported += spans.saturating_sub(*rejected);
            }
            Delivery::Refused => self.figures.rejected += spans,
            Delivery::Failed { .. } if under_way.tries == TRIES_MAX => self.figures.failed += spans,
            Delivery::Failed { retry_after } => {
                let pause = retry_after.unwrap_or_else(|| {
                    let pause = PAUSE_MIN * 2u32.pow(under_way.tries - 1);
                    pause / 2 + pause.mul_f64(chance.clamp(0.0, 1.0) / 2.0)
                });
                under_way.again_at = Some(now + pause.min(PAUSE_MAX));
                self.under_way = Some(under_way);
            }
        }
    }

    /// There is nobody to tell: what waits is dropped.
    pub fn clear(&mut self) {
        self.figures.dropped += std::mem::take(&mut self.spans_waiting);
        self.waiting.clear();
        self.due_at = None;
        if let Some(under_way) = self.under_way.take_if(|under_way| under_way.again_at.is_some()) {
            self.figures.dropped += under_way.batch.spans;
        }
    }

    /// For the metrics.
    pub fn figures(&self) -> TraceFigures {
        let under_way = self.under_way.as_ref().map_or(0, |under_way| under_way.batch.spans);
        TraceFigures { waiting: self.spans_waiting + under_way, ..self.figures }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::trace_assembly::tests::{fan_out, home},
        *,
    };

    /// Of eight spans.
    fn trace(number: u64) -> Trace {
        Trace { home: home(number, 1), fan_outs: vec![fan_out(number, 0)] }
    }

    fn count(traces: &[Trace]) -> Vec<u8> {
        vec![0; traces.len()]
    }

    fn with(count: u64, now: Instant) -> TraceQueue {
        let mut queue = TraceQueue::default();
        (1..=count).for_each(|number| queue.push(trace(number), now));
        queue
    }

    #[test]
    fn what_is_few_waits_for_more_and_what_is_many_goes_at_once() {
        let now = Instant::now();
        let mut queue = with(3, now);
        assert_eq!((queue.next(now, count), queue.next_due_at()), (None, Some(now + BATCH_TIME_MAX)));
        let batch = queue.next(now + BATCH_TIME_MAX, count).expect("it is time");
        assert_eq!((batch.spans, batch.body.len()), (24, 3));
        assert_eq!(queue.next_due_at(), None, "one at a time");
        queue.ended(&Delivery::Taken { rejected: 4 }, now, 0.0);
        assert_eq!(queue.figures(), TraceFigures { exported: 20, rejected: 4, ..TraceFigures::default() });
        assert_eq!(queue.next(now + 9 * BATCH_TIME_MAX, count), None);

        let mut queue = with(TRACE_BATCH_SPANS_MAX / 8 + 1, now);
        let batch = queue.next(now, count).expect("a batch is full");
        assert_eq!((batch.spans, queue.figures().waiting), (TRACE_BATCH_SPANS_MAX, TRACE_BATCH_SPANS_MAX + 8));
        assert_eq!(queue.next(now + 2 * BATCH_TIME_MAX, count), None, "one at a time");
        queue.ended(&Delivery::Taken { rejected: 0 }, now, 0.0);
        assert_eq!(queue.next(now + BATCH_TIME_MAX, count).expect("the rest").spans, 8);
    }

    #[test]
    fn a_collector_that_is_away_is_asked_more_and_more_seldom_and_then_no_more() {
        let mut now = Instant::now();
        let mut queue = with(TRACE_BATCH_SPANS_MAX / 8, now);
        let failed = Delivery::Failed { retry_after: None };
        for seconds in [1, 2, 4, 8, 16] {
            assert!(queue.next(now, count).is_some());
            queue.ended(&failed, now, 1.0);
            assert_eq!(queue.next_due_at(), Some(now + Duration::from_secs(seconds)));
            assert_eq!(queue.next(now, count), None);
            now += Duration::from_secs(seconds);
        }
        assert!(queue.next(now, count).is_some());
        queue.ended(&failed, now, 1.0);
        let figures = TraceFigures { failed: TRACE_BATCH_SPANS_MAX, ..TraceFigures::default() };
        assert_eq!((queue.figures(), queue.next_due_at()), (figures, None));
    }

    #[test]
    fn pauses_differ_by_chance_and_a_collector_may_name_its_own() {
        let now = Instant::now();
        for (chance, retry_after, pause_ms) in [
            (0.0, None, 500),
            (0.5, None, 750),
            (1.0, None, 1_000),
            (0.5, Some(Duration::from_secs(7)), 7_000),
            (0.5, Some(Duration::from_secs(9_999)), 60_000),
        ] {
            let mut queue = with(TRACE_BATCH_SPANS_MAX / 8, now);
            queue.next(now, count);
            queue.ended(&Delivery::Failed { retry_after }, now, chance);
            assert_eq!(queue.next_due_at(), Some(now + Duration::from_millis(pause_ms)));
        }
    }

    #[test]
    fn what_finds_no_room_is_dropped() {
        let now = Instant::now();
        let queue = with(TRACE_SPANS_WAITING_MAX / 8 + 5, now);
        let figures = TraceFigures { dropped: 40, waiting: TRACE_SPANS_WAITING_MAX, ..TraceFigures::default() };
        assert_eq!(queue.figures(), figures);
    }

    #[test]
    fn what_nobody_is_told_is_dropped() {
        let now = Instant::now();
        let mut queue = with(TRACE_BATCH_SPANS_MAX / 8 + 1, now);
        queue.next(now, count);
        queue.clear();
        let figures = TraceFigures { dropped: 8, waiting: TRACE_BATCH_SPANS_MAX, ..TraceFigures::default() };
        assert_eq!(queue.figures(), figures, "a request is under way");
        queue.ended(&Delivery::Failed { retry_after: None }, now, 0.0);
        queue.clear();
        assert_eq!(queue.figures(), TraceFigures { dropped: 8 + TRACE_BATCH_SPANS_MAX, ..TraceFigures::default() });
        assert_eq!(queue.next_due_at(), None);
    }

    #[test]
    fn what_is_refused_is_not_sent_again() {
        let now = Instant::now();
        let mut queue = with(TRACE_BATCH_SPANS_MAX / 8, now);
        queue.next(now, count);
        queue.ended(&Delivery::Refused, now, 0.0);
        assert_eq!((queue.figures().rejected, queue.next_due_at()), (TRACE_BATCH_SPANS_MAX, None));
    }
}
