//! The collector of traces: notes of shards come in, requests go out over HTTP.
//!
//! Owns the requests and what an answer means (OTLP 1.9, "OTLP/HTTP Response"). Which notes make a trace is
//! `trace_assembly`'s business, how often and how many at a time `trace_queue`'s, what is said `otlp`'s.

use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use bytes::Bytes;
use http_body_util::Full;
use tokio::sync::mpsc;

use super::{
    http_client::HttpClient,
    otlp::{self, Describer},
    trace_assembly::Assembly,
    trace_queue::{Batch, Delivery, TraceFigures, TraceQueue},
};
use crate::{
    config::TracingConfig,
    limits::{TRACE_ANSWER_BYTES_MAX, TRACE_EXPORT_MS_MAX},
    log::Gate,
    mesh::TraceNote,
};

/// Statuses that say: not now (OTLP 1.9, "Retryable Response Codes").
const RETRYABLE: [u16; 4] = [429, 502, 503, 504];

/// One line of the log in ten seconds.
static FAILURES: Gate = Gate::new(1);

/// The collector, and what it is yet to be told.
pub struct Traces {
    assembly: Assembly,
    queue: TraceQueue,
    client: HttpClient,
    /// None: it is told no more.
    collector: Option<Collector>,
    /// What the process calls itself.
    instance: String,
    ended: mpsc::Sender<Delivery>,
}

struct Collector {
    endpoint: Uri,
    fields: HeaderMap,
    describer: Describer,
}

impl Traces {
    /// The collector that is configured; none: there is none. Ends of requests arrive at the other end of `ended`.
    pub fn new(config: &TracingConfig, client: &HttpClient, ended: &mpsc::Sender<Delivery>) -> Option<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("the kernel gives random bytes once it has booted");
        let instance = random.map(|byte| format!("{byte:02x}")).concat();
        let collector = Some(Collector::new(config, &instance)?);
        let (assembly, queue) = (Assembly::default(), TraceQueue::default());
        let (client, ended) = (client.clone(), ended.clone());
        Some(Self { assembly, queue, client, collector, instance, ended })
    }

    /// From now on this collector is told.
    pub fn reconfigure(&mut self, config: &TracingConfig) {
        self.collector = Collector::new(config, &self.instance);
    }

    /// A shard has noted something.
    pub fn note(&mut self, note: TraceNote, now: Instant) {
        if let Some(trace) = self.assembly.note(note, now) {
            self.queue.push(trace, now);
        }
    }

    /// Sends what is due. When to look again.
    pub fn turn(&mut self, now: Instant) -> Option<Instant> {
        for trace in self.assembly.expire(now) {
            self.queue.push(trace, now);
        }
        let next_due_at = self.assembly.next_due_at();
        let Some(collector) = &self.collector else {
            self.queue.clear();
            return next_due_at;
        };
        if let Some(batch) = self.queue.next(now, |traces| collector.describer.request(traces)) {
            let (request, client, ended) = (collector.request(&batch), self.client.clone(), self.ended.clone());
            tokio::spawn(async move {
                let time_max = Duration::from_millis(TRACE_EXPORT_MS_MAX);
                let delivery = match client.ask(request, time_max, TRACE_ANSWER_BYTES_MAX).await {
                    Ok(answer) => delivery_of(&answer),
                    Err(error) => {
                        warn(&format!("{error}"));
                        Delivery::Failed { retry_after: None }
                    }
                };
                // The loop ends before its tasks.
                let _ = ended.send(delivery).await;
            });
        }
        [next_due_at, self.queue.next_due_at()].into_iter().flatten().min()
    }

    /// A request has ended.
    pub fn ended(&mut self, delivery: &Delivery, now: Instant) {
        let mut random = [0; 2];
        getrandom::fill(&mut random).expect("the kernel gives random bytes once it has booted");
        self.queue.ended(delivery, now, f64::from(u16::from_ne_bytes(random)) / f64::from(u16::MAX));
    }

    /// For the metrics.
    pub fn figures(&self) -> TraceFigures {
        let figures = self.queue.figures();
        TraceFigures { dropped: figures.dropped + self.assembly.spans_dropped(), ..figures }
    }
}

impl Collector {
    fn new(config: &TracingConfig, instance: &str) -> Option<Self> {
        let endpoint = config.endpoint.as_ref()?.parse().expect("the configuration takes addresses");
        let mut fields = HeaderMap::new();
        let configured = config.header_fields().expect("the configuration takes header fields");
        for (name, value) in configured {
            let name = HeaderName::try_from(name).expect("the configuration takes names of fields");
            let mut value = HeaderValue::try_from(value).expect("the configuration takes values of fields");
            value.set_sensitive(true);
            fields.append(name, value);
        }
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let user_agent = concat!("tidegate/", env!("CARGO_PKG_VERSION"));
        fields.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(user_agent));
        Some(Self { endpoint, fields, describer: Describer::new(config, instance) })
    }

    fn request(&self, batch: &Batch) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(batch.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.clone();
        *request.headers_mut() = self.fields.clone();
        request
    }
}

/// What a collector's answer means.
fn delivery_of(answer: &Response<Bytes>) -> Delivery {
    let status = answer.status();
    if status.is_success() {
        let rejected = otlp::rejected(answer.body());
        if let Some((spans, text)) = &rejected {
            warn(&format!("{spans} spans are rejected: {text}"));
        }
        return Delivery::Taken { rejected: rejected.map_or(0, |(spans, _)| spans) };
    }
    warn(&format!("HTTP {status}"));
    if !RETRYABLE.contains(&status.as_u16()) {
        return Delivery::Refused;
    }
    // A date, which the field may hold as well, is passed over: the pause grows by itself.
    let seconds = answer.headers().get(header::RETRY_AFTER).and_then(|field| field.to_str().ok()?.parse().ok());
    Delivery::Failed { retry_after: seconds.map(Duration::from_secs) }
}

fn warn(text: &str) {
    if let Some(suppressed) = FAILURES.pass_now() {
        tracing::warn!(suppressed, "the collector of traces does not take them (tracing.endpoint): {text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_mean_what_otlp_says() {
        let answer = |status: u16, retry_after: Option<&str>| {
            let mut answer = Response::builder().status(status);
            if let Some(value) = retry_after {
                answer = answer.header("Retry-After", value);
            }
            delivery_of(&answer.body(Bytes::new()).unwrap())
        };
        assert_eq!(answer(200, None), Delivery::Taken { rejected: 0 });
        for status in [400, 401, 404, 413, 500] {
            assert_eq!(answer(status, Some("3")), Delivery::Refused, "{status}");
        }
        for status in RETRYABLE {
            assert_eq!(answer(status, None), Delivery::Failed { retry_after: None });
            let retry_after = Some(Duration::from_secs(3));
            assert_eq!(answer(status, Some("3")), Delivery::Failed { retry_after });
            let date = Some("Wed, 21 Oct 2026 07:28:00 GMT");
            assert_eq!(answer(status, date), Delivery::Failed { retry_after: None });
        }
    }

    #[test]
    fn requests_bear_what_is_configured() {
        let config = TracingConfig {
            endpoint: Some("https://collector.example/v1/traces".to_owned()),
            headers: vec!["Authorization: Basic dTpw".into(), "X-Scope-OrgID:a:b".into()],
            ..TracingConfig::default()
        };
        let collector = Collector::new(&config, "an instance").unwrap();
        let request = collector.request(&Batch { body: Bytes::from_static(b"spans"), spans: 1 });
        let field = |name: &str| request.headers()[name].to_str().unwrap();
        assert_eq!((field("authorization"), field("x-scope-orgid")), ("Basic dTpw", "a:b"));
        assert_eq!((field("content-type"), request.method()), ("application/x-protobuf", &Method::POST));
        assert_eq!(request.uri().path(), "/v1/traces");
    }
}
