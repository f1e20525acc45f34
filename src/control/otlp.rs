//! Traces as a collector of OpenTelemetry takes them: OTLP, in Protobuf.
//!
//! Owns the spans of a trace, their names and attributes, and the messages of OTLP as far as they are used
//! (`opentelemetry/proto/trace/v1/trace.proto`, `collector/trace/v1/trace_service.proto`, version 1). When they are sent
//! is `trace_queue`'s business.
//!
//! The crate `opentelemetry-proto` has all of these messages, and brings the API and the SDK of OpenTelemetry for them.

use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use super::trace_assembly::Trace;
use crate::{
    config::TracingConfig,
    mesh::{FanOutNote, HomeNote},
    uring::monotonic_us,
};

/// What is said of all spans.
pub struct Describer {
    resource: Resource,
    include_channel: bool,
}

impl Describer {
    /// `instance`: tells this process from others of the same name.
    pub fn new(config: &TracingConfig, instance: &str) -> Self {
        let name = config.service_name.as_deref().unwrap_or_default();
        let attributes = vec![
            text("service.name", name),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.instance.id", instance),
            number("process.pid", std::process::id().into()),
        ];
        Self { resource: Resource { attributes }, include_channel: config.include_channel }
    }

    /// The body of a request that tells these traces, now.
    pub fn request(&self, traces: &[Trace]) -> Vec<u8> {
        let clock = Clock::now();
        let spans = traces.iter().flat_map(|trace| Spans::of(self, trace, clock).spans).collect();
        let scope = Scope { name: "tidegate".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
        let resource_spans = vec![ResourceSpans { resource: Some(self.resource.clone()), scope_spans }];
        Request { resource_spans }.encode_to_vec()
    }
}

/// What a collector did not take of a request that it answered well: how many spans, and why. None: the answer says so of
/// none, or is no message of OTLP.
pub fn rejected(answer: &[u8]) -> Option<(u64, String)> {
    let partial = Answer::decode(answer).ok()?.partial_success?;
    let spans = u64::try_from(partial.rejected_spans).unwrap_or(0);
    (spans > 0).then_some((spans, partial.error_message))
}

/// From the clock of all threads to that of the world.
#[derive(Clone, Copy)]
struct Clock {
    /// What the one is ahead of the other.
    ahead_ns: u64,
}

impl Clock {
    fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            ahead_ns: u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX).saturating_sub(monotonic_us() * 1_000),
        }
    }

    fn unix_ns(self, monotonic_us: u64) -> u64 {
        self.ahead_ns.saturating_add(monotonic_us * 1_000)
    }
}

/// The spans of one trace.
struct Spans {
    trace_id: Vec<u8>,
    clock: Clock,
    spans: Vec<Span>,
}

impl Spans {
    fn of(describer: &Describer, trace: &Trace, clock: Clock) -> Self {
        let Trace { home, fan_outs } = trace;
        let trace_id = home.parent.as_ref().map_or_else(|| random::<16>().to_vec(), |parent| parent.trace_id.to_vec());
        let mut spans = Self { trace_id, clock, spans: Vec::with_capacity(trace.spans() as usize) };
        let ends_us = fan_outs.iter().map(|note| note.written_us).fold(home.passed_on_us, u64::max);
        let attributes = describer.of_publication(trace);
        let root = spans.push("publication", &[], (home.taken_in_us, ends_us), attributes);
        spans.continue_from(home);
        spans.push("queue", &root, (home.taken_in_us, home.received_us), Vec::new());
        spans.push_home(home, &root);
        for note in fan_outs {
            spans.push_fan_out(note, home, &root);
        }
        spans
    }

    /// The first span is the server's part of a trace that its producer has begun.
    fn continue_from(&mut self, home: &HomeNote) {
        let root = &mut self.spans[0];
        root.kind = KIND_SERVER;
        if let Some(parent) = &home.parent {
            root.parent_span_id = parent.span_id.to_vec();
            root.flags |= PARENT_IS_REMOTE;
        }
    }

    fn push_home(&mut self, home: &HomeNote, root: &[u8]) {
        let attributes = vec![number("tidegate.shard", home.shard.into())];
        let stay = self.push("home", root, (home.received_us, home.passed_on_us), attributes);
        let attributes = if home.offset > 0 { vec![number("tidegate.offset", home.offset)] } else { Vec::new() };
        self.push("history", &stay, (home.received_us, home.numbered_us), attributes);
    }

    fn push_fan_out(&mut self, note: &FanOutNote, home: &HomeNote, root: &[u8]) {
        let attributes =
            vec![number("tidegate.shard", note.shard.into()), number("tidegate.subscribers", note.subscribers.into())];
        let whole = self.push("fan-out", root, (home.numbered_us, note.written_us), attributes);
        self.push("mesh", &whole, (home.numbered_us, note.received_us), Vec::new());
        let attributes = vec![number("tidegate.encodings", note.encodings.into())];
        self.push("encode", &whole, (note.received_us, note.encoded_us), attributes);
        let attributes = vec![
            number("tidegate.turn.publications", note.turn.publications),
            number("tidegate.turn.sends", note.turn.sends),
            number("tidegate.turn.sent_bytes", note.turn.sent_bytes),
            number("tidegate.turn.dropped", note.turn.dropped),
        ];
        self.push("write", &whole, (note.writing_us, note.written_us), attributes);
    }

    /// Adds a span; its id.
    fn push(
        &mut self,
        name: &str,
        parent: &[u8],
        (begin_us, end_us): (u64, u64),
        attributes: Vec<KeyValue>,
    ) -> Vec<u8> {
        let span_id = random::<8>().to_vec();
        self.spans.push(Span {
            trace_id: self.trace_id.clone(),
            span_id: span_id.clone(),
            parent_span_id: parent.to_vec(),
            name: name.to_owned(),
            kind: KIND_INTERNAL,
            start_time_unix_nano: self.clock.unix_ns(begin_us),
            end_time_unix_nano: self.clock.unix_ns(end_us),
            attributes,
            flags: SAMPLED | SAYS_WHERE_PARENT_IS,
        });
        span_id
    }
}

impl Describer {
    fn of_publication(&self, trace: &Trace) -> Vec<KeyValue> {
        let home = &trace.home;
        let name = &home.channel.name;
        let mut attributes = vec![
            text("messaging.system", "tidegate"),
            text("tidegate.namespace", name.split_once(':').map_or("", |(namespace, _)| namespace)),
            text("tidegate.producer", home.producer),
            number("messaging.message.body.size", home.payload_bytes),
            number("tidegate.subscribers", home.subscribers.into()),
        ];
        if self.include_channel {
            attributes.push(text("messaging.destination.name", name));
        }
        for (key, value) in
            [("tidegate.suppressed", home.is_suppressed), ("tidegate.incomplete", trace.is_incomplete())]
        {
            if value {
                attributes.push(KeyValue::new(key, Value::Bool(true)));
            }
        }
        attributes
    }
}

/// An id that nobody else has.
fn random<const BYTES: usize>() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it has booted");
    bytes
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue::new(key, Value::Text(value.to_owned()))
}

fn number(key: &str, value: u64) -> KeyValue {
    KeyValue::new(key, Value::Integer(value.try_into().unwrap_or(i64::MAX)))
}

/// `SPAN_KIND_INTERNAL`.
const KIND_INTERNAL: i32 = 1;

/// `SPAN_KIND_SERVER`.
const KIND_SERVER: i32 = 2;

/// The trace is recorded (W3C Trace Context section 3.2.2.5).
const SAMPLED: u32 = 1;

/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK`.
const SAYS_WHERE_PARENT_IS: u32 = 0x100;

/// `SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`.
const PARENT_IS_REMOTE: u32 = 0x200;

/// `ExportTraceServiceRequest`.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

/// `InstrumentationScope`.
#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 2, 3")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Integer(i64),
}

/// `ExportTraceServiceResponse`.
#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

/// `ExportTracePartialSuccess`.
#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

impl KeyValue {
    fn new(key: &str, value: Value) -> Self {
        Self { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::trace_assembly::tests::{fan_out, home},
        *,
    };
    use crate::mesh::TraceParent;

    fn describer(include_channel: bool) -> Describer {
        let service_name = Some("a name".to_owned());
        Describer::new(&TracingConfig { service_name, include_channel, ..TracingConfig::default() }, "an instance")
    }

    fn spans(describer: &Describer, trace: Trace) -> Vec<Span> {
        let request = Request::decode(&*describer.request(&[trace])).unwrap();
        assert_eq!(request.resource_spans.len(), 1);
        let ResourceSpans { resource, mut scope_spans } = request.resource_spans.into_iter().next().unwrap();
        assert!(resource.unwrap().attributes.contains(&text("service.name", "a name")));
        assert_eq!(scope_spans.len(), 1);
        scope_spans.remove(0).spans
    }

    fn trace() -> Trace {
        Trace { home: home(1, 0b101), fan_outs: vec![fan_out(1, 0), fan_out(1, 2)] }
    }

    #[test]
    fn a_trace_is_a_tree_of_spans_each_within_its_parent() {
        let spans = spans(&describer(false), trace());
        assert_eq!(spans.len() as u64, trace().spans());
        let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
        let shard = ["fan-out", "mesh", "encode", "write"];
        assert_eq!(names, [&["publication", "queue", "home", "history"][..], &shard, &shard].concat());
        let parents =
            [None, Some(0), Some(0), Some(2), Some(0), Some(4), Some(4), Some(4), Some(0), Some(8), Some(8), Some(8)];
        for (span, parent) in spans.iter().zip(parents) {
            assert_eq!((&span.trace_id, span.flags), (&spans[0].trace_id, 0x101), "{}", span.name);
            assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
            let Some(parent) = parent.map(|parent: usize| &spans[parent]) else { continue };
            assert_eq!(span.parent_span_id, parent.span_id, "{}", span.name);
            assert!(parent.start_time_unix_nano <= span.start_time_unix_nano, "{span:?} {parent:?}");
            assert!(span.end_time_unix_nano <= parent.end_time_unix_nano, "{span:?} {parent:?}");
        }
        assert_eq!((spans[0].trace_id.len(), spans[0].span_id.len(), spans[0].kind), (16, 8, KIND_SERVER));
        assert_eq!(spans[0].end_time_unix_nano - spans[0].start_time_unix_nano, 102_000, "the last shard's last write");
        assert!(spans[8].attributes.contains(&number("tidegate.shard", 2)));
    }

    #[test]
    fn a_producers_trace_goes_on() {
        let parent = TraceParent { trace_id: [7; 16], span_id: [8; 8] };
        let mut trace = trace();
        trace.home.parent = Some(Box::new(parent));
        let spans = spans(&describer(false), trace);
        assert!(spans.iter().all(|span| span.trace_id == [7; 16]));
        assert_eq!((&spans[0].parent_span_id[..], spans[0].flags), (&[8; 8][..], 0x301));
        assert_eq!(spans[1].parent_span_id, spans[0].span_id);
    }

    #[test]
    fn channels_are_named_where_that_is_wanted() {
        let named = text("messaging.destination.name", "news:eu");
        for include_channel in [false, true] {
            let attributes = &spans(&describer(include_channel), trace())[0].attributes;
            assert_eq!(attributes.contains(&named), include_channel);
            assert!(attributes.contains(&text("tidegate.namespace", "news")));
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let incomplete = KeyValue::new("tidegate.incomplete", Value::Bool(true));
        let is_said = |trace| spans(&describer(false), trace)[0].attributes.contains(&incomplete);
        assert!(!is_said(trace()));
        assert!(is_said(Trace { fan_outs: vec![fan_out(1, 0)], ..trace() }));
    }

    #[test]
    fn times_are_those_of_the_world() {
        let clock = Clock::now();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        assert!(now.abs_diff(clock.unix_ns(monotonic_us())) < 60_000_000_000);
    }

    #[test]
    fn a_collector_may_take_a_part() {
        let answer = |rejected_spans, error_message: &str| {
            let partial = PartialSuccess { rejected_spans, error_message: error_message.to_owned() };
            Answer { partial_success: Some(partial) }.encode_to_vec()
        };
        assert_eq!(rejected(&answer(3, "too old")), Some((3, "too old".to_owned())));
        assert_eq!(rejected(&answer(0, "a warning")), None);
        assert_eq!((rejected(b""), rejected(b"{}"), rejected(&answer(-1, ""))), (None, None, None));
    }
}
