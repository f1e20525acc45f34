//! Traces of publications: which are traced, and what threads note of one on its way.
//!
//! Owns the choice, what a producer says of its own trace (W3C Trace Context), and the notes. What becomes of notes is the
//! control thread's business.
//!
//! Invariants:
//! - All that a trace costs hangs on [`Origin::trace`]: where it is none, a publication costs a branch.
//! - A trace keeps nobody waiting. Notes are offered to the control thread, not sent: those that find its queue half full
//!   are gone, and counted.
//! - What is chosen cannot be foretold, so that nothing which recurs is always traced, or never.

use std::num::NonZeroU64;

use super::{ChannelHasher, ChannelName, Origin, ReplyTo};
use crate::{
    config::TracingConfig,
    network::{Bucket, Rate},
};

/// Names a trace within the process.
pub type TraceNumber = NonZeroU64;

/// Where the number of a thread begins in those of its traces.
const THREAD_SHIFT: u32 = 48;

/// The span of a producer that a publication belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// Of the trace.
    pub trace_id: [u8; 16],
    /// Of the span.
    pub span_id: [u8; 8],
}

/// What a producer says of its own trace (`traceparent`, W3C Trace Context section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// Its span.
    pub parent: TraceParent,
    /// Whether it is recorded.
    pub is_sampled: bool,
}

impl TraceContext {
    /// What a text says; none: it is no `traceparent`. Versions to come are read as far as they are known.
    pub fn parse(text: &[u8]) -> Option<Self> {
        const BYTES: usize = 55;
        let (known, rest) = text.split_at_checked(BYTES)?;
        let version = hexadecimal::<1>(&known[..2])?[0];
        let is_end = if version == 0 { rest.is_empty() } else { rest.first().is_none_or(|byte| *byte == b'-') };
        if version == 0xff || !is_end || [2, 35, 52].iter().any(|place| known[*place] != b'-') {
            return None;
        }
        let parent = TraceParent { trace_id: hexadecimal(&known[3..35])?, span_id: hexadecimal(&known[36..52])? };
        let flags = hexadecimal::<1>(&known[53..])?[0];
        let is_named = parent.trace_id != [0; 16] && parent.span_id != [0; 8];
        is_named.then_some(Self { parent, is_sampled: flags & 1 == 1 })
    }
}

/// Bytes of hexadecimal digits, which are lower case.
fn hexadecimal<const BYTES: usize>(digits: &[u8]) -> Option<[u8; BYTES]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Chooses among the publications that a thread takes in.
pub struct Sampler {
    /// Publications until one is traced, it among them. If none is, more than there can be.
    left: u64,
    one_in: u32,
    /// None: nothing is traced.
    rate: Option<Rate>,
    bucket: Bucket,
    hasher: ChannelHasher,
    /// How often was chosen.
    choices: u64,
    /// Of the last trace.
    number: u64,
}

impl Sampler {
    /// Of a thread, by a number that no other has.
    pub fn new(config: &TracingConfig, thread: usize, hasher: ChannelHasher) -> Self {
        let number = (thread as u64) << THREAD_SHIFT;
        let bucket = Bucket::default();
        let mut sampler = Self { left: 0, one_in: 0, rate: None, bucket, hasher, choices: 0, number };
        sampler.configure(config);
        sampler
    }

    /// From now on it chooses by this.
    pub fn configure(&mut self, config: &TracingConfig) {
        self.rate = if config.is_on() { Rate::new(config.traces_per_second_max) } else { None };
        self.one_in = config.sample_one_in;
        self.left = self.gap();
    }

    /// A publication comes in, whose producer says nothing of a trace.
    #[inline]
    pub fn take_in(&mut self) -> Origin {
        let mut origin = Origin::now();
        self.left -= 1;
        if self.left == 0 {
            self.left = self.gap();
            origin.trace = self.begin(origin.taken_in_us);
        }
        origin
    }

    /// A publication comes in, whose producer may have said something. If its trace goes on here, its parent.
    #[inline]
    pub fn take_in_from(&mut self, context: Option<&TraceContext>) -> (Origin, Option<Box<TraceParent>>) {
        match context {
            None => (self.take_in(), None),
            Some(context) => self.go_on(context),
        }
    }

    #[cold]
    fn go_on(&mut self, context: &TraceContext) -> (Origin, Option<Box<TraceParent>>) {
        let mut origin = Origin::now();
        if context.is_sampled {
            origin.trace = self.begin(origin.taken_in_us);
        }
        (origin, origin.trace.map(|_| Box::new(context.parent)))
    }

    /// A new trace, unless there are too many.
    fn begin(&mut self, now_us: u64) -> Option<TraceNumber> {
        if !self.bucket.try_take(self.rate?, 1, now_us * 1_000) {
            return None;
        }
        self.number += 1;
        NonZeroU64::new(self.number)
    }

    /// How many publications on the next is traced: on average one in so many as are wanted.
    fn gap(&mut self) -> u64 {
        if self.rate.is_none() || self.one_in == 0 {
            return u64::MAX;
        }
        self.choices += 1;
        let (random, bound) = (self.hasher.hash_number(self.choices), 2 * u64::from(self.one_in) - 1);
        1 + ((u128::from(random) * u128::from(bound)) >> 64) as u64
    }
}

/// What a thread notes of a publication that is traced. Times are by [`monotonic_us`](crate::uring::monotonic_us).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceNote {
    /// Its home shard has numbered it and passed it on.
    Home(HomeNote),
    /// A shard has sent it to its subscribers.
    FanOut(FanOutNote),
}

/// Of the home shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeNote {
    /// The trace.
    pub trace: TraceNumber,
    /// The producer's span, if there is one.
    pub parent: Option<Box<TraceParent>>,
    /// Index of the shard.
    pub shard: u16,
    /// Where it was published.
    pub channel: ChannelName,
    /// How it came in.
    pub producer: &'static str,
    /// Bytes of its payload.
    pub payload_bytes: u64,
    /// Its offset; 0: it was not stored.
    pub offset: u64,
    /// Subscribers known, on all shards.
    pub subscribers: u32,
    /// Shards that it was sent to, one bit each.
    pub shards: u64,
    /// It was neither stored nor delivered: its key is known, or its version not new.
    pub is_suppressed: bool,
    /// It came into the server.
    pub taken_in_us: u64,
    /// The home shard took it out of its queue.
    pub received_us: u64,
    /// It was numbered, and is in history if it is to be.
    pub numbered_us: u64,
    /// It was sent to every shard that has subscribers.
    pub passed_on_us: u64,
}

/// Of a shard with subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FanOutNote {
    /// The trace.
    pub trace: TraceNumber,
    /// Index of the shard.
    pub shard: u16,
    /// Subscribers that it was encoded for.
    pub subscribers: u32,
    /// How many times it was encoded: once for all that are written to alike.
    pub encodings: u32,
    /// The shard took it out of its queue.
    pub received_us: u64,
    /// It was encoded.
    pub encoded_us: u64,
    /// The turn's first send.
    pub writing_us: u64,
    /// The turn's last send was done.
    pub written_us: u64,
    /// What the turn has done, for all that it delivered.
    pub turn: TurnTotals,
}

/// What a shard has done in a turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TurnTotals {
    /// Publications delivered.
    pub publications: u64,
    /// Sends.
    pub sends: u64,
    /// Bytes that sockets have taken.
    pub sent_bytes: u64,
    /// Publications that were dropped for slow subscribers.
    pub dropped: u64,
}

impl TraceNote {
    /// The trace.
    pub fn trace(&self) -> TraceNumber {
        match self {
            Self::Home(note) => note.trace,
            Self::FanOut(note) => note.trace,
        }
    }

    /// Spans that it stands for.
    pub fn spans(&self) -> u64 {
        match self {
            Self::Home(_) => Self::HOME_SPANS,
            Self::FanOut(_) => Self::FAN_OUT_SPANS,
        }
    }

    /// Spans of a [`HomeNote`]: the whole, its way to the home shard, its stay there, and history.
    pub const HOME_SPANS: u64 = 4;

    /// Spans of a [`FanOutNote`]: the whole, its way to the shard, encoding and writing.
    pub const FAN_OUT_SPANS: u64 = 4;
}

impl ReplyTo {
    /// The kind of a publication's producer, by whom its outcome is told.
    pub const fn producer(self) -> &'static str {
        match self {
            Self::Nobody => "server",
            Self::Ingest { .. } => "resp",
            Self::Client { .. } => "client",
            Self::Control { .. } => "api",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn config(one_in: u32, per_second: u32) -> TracingConfig {
        TracingConfig {
            endpoint: Some("http://127.0.0.1/".to_owned()),
            sample_one_in: one_in,
            traces_per_second_max: per_second,
            ..TracingConfig::default()
        }
    }

    fn sampler(one_in: u32, per_second: u32) -> Sampler {
        Sampler::new(&config(one_in, per_second), 3, ChannelHasher::with_key([7; 16]))
    }

    #[test]
    fn a_traceparent_is_read() {
        let context = TraceContext::parse(PARENT.as_bytes()).unwrap();
        assert!(context.is_sampled);
        assert_eq!(context.parent.trace_id[..4], [0x4b, 0xf9, 0x2f, 0x35]);
        assert_eq!(context.parent.span_id, [0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
        let unsampled = format!("{}00", &PARENT[..53]);
        assert!(!TraceContext::parse(unsampled.as_bytes()).unwrap().is_sampled);
        // A version to come may say more (section 2.2.5 of the Recommendation).
        for later in [format!("01{}", &PARENT[2..]), format!("cc{}-more", &PARENT[2..])] {
            assert_eq!(TraceContext::parse(later.as_bytes()), Some(context), "{later}");
        }
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        let zero_trace = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let zero_span = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16));
        for wrong in [
            "",
            "00",
            &PARENT[..54],
            &format!("{PARENT}-more"),
            &format!("{PARENT}0"),
            &format!("01{}0", &PARENT[2..]),
            &format!("ff{}", &PARENT[2..]),
            &PARENT.to_uppercase(),
            &PARENT.replace('-', "_"),
            &PARENT.replace("4bf9", "4bg9"),
            &zero_trace,
            &zero_span,
        ] {
            assert_eq!(TraceContext::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn one_in_so_many_is_chosen_and_each_has_a_number_of_its_own() {
        for one_in in [1, 2, 10, 1_000] {
            let mut sampler = sampler(one_in, 1_000_000);
            let count = 200_000;
            let chosen: Vec<_> = (0..count).filter_map(|_| sampler.take_in().trace).collect();
            let expected = f64::from(count) / f64::from(one_in);
            // Gaps spread evenly from 1 to twice the mean: their deviation is below 0.58 of the mean.
            let tolerance = if one_in == 1 { 0.0 } else { 5.0 * 0.58 * expected.sqrt() };
            assert!((chosen.len() as f64 - expected).abs() <= tolerance, "1 in {one_in}: {}", chosen.len());
            assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(chosen.iter().all(|trace| trace.get() >> THREAD_SHIFT == 3));
        }
    }

    #[test]
    fn what_recurs_is_sometimes_chosen() {
        let mut sampler = sampler(10, 1_000_000);
        let mut chosen = [0; 10];
        for number in 0..10_000 {
            chosen[number % 10] += usize::from(sampler.take_in().trace.is_some());
        }
        assert!(chosen.iter().all(|count| (50..=150).contains(count)), "{chosen:?}");
    }

    #[test]
    fn producers_decide_for_themselves_within_the_rate() {
        let context = TraceContext::parse(PARENT.as_bytes()).unwrap();
        let unsampled = TraceContext { is_sampled: false, ..context };
        let mut asked = sampler(0, 50);
        assert!((0..10_000).all(|_| asked.take_in().trace.is_none()), "nobody has asked");
        assert!((0..100).all(|_| asked.take_in_from(Some(&unsampled)).0.trace.is_none()));
        let (origin, parent) = asked.take_in_from(Some(&context));
        assert!(origin.trace.is_some() && origin.taken_in_us > 0);
        assert_eq!(parent.as_deref(), Some(&context.parent));
        let more = (0..10_000).filter(|_| asked.take_in_from(Some(&context)).1.is_some()).count();
        assert!((99..=1_000).contains(&more), "two seconds' worth, and what the test's time brings: {more}");
        let mut every = sampler(1, 1_000);
        assert!((0..100).all(|_| every.take_in_from(Some(&unsampled)).0.trace.is_none()), "its word counts");
    }

    #[test]
    fn off_is_off_until_it_is_on() {
        let context = TraceContext::parse(PARENT.as_bytes()).unwrap();
        let off = TracingConfig { endpoint: None, ..config(1, 100) };
        let mut sampler = Sampler::new(&off, 1, ChannelHasher::with_key([7; 16]));
        assert!((0..1_000).all(|_| sampler.take_in().trace.is_none()));
        assert_eq!(sampler.take_in_from(Some(&context)).0.trace, None);
        sampler.configure(&config(1, 100));
        assert!(sampler.take_in().trace.is_some());
        sampler.configure(&off);
        assert!((0..1_000).all(|_| sampler.take_in().trace.is_none()));
    }
}
