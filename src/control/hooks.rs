//! The application's back end: questions of shards go out over HTTP, answers go back (protocol.md section 20).
//!
//! Owns the requests and what counts as an answer. How many there are at a time and how long they wait is `hook_lane`'s
//! business; what is asked, and what follows from an answer, the shards'.
//!
//! Invariants:
//! - A question that somebody waits for is answered exactly once, with `None` if the back end did not answer it; a shard
//!   keeps an entry until then.
//! - A question is sent once. What a back end did with one that it did not answer is unknown, so it is never repeated.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Full;
use tokio::sync::mpsc;

use super::{
    hook_lane::{Lane, LaneFigures, Outcome, Turn},
    http_client::{HttpClient, HttpError},
};
use crate::{
    config::{Config, Hook, HookRefusal, HooksConfig},
    limits::HOOK_ANSWER_BYTES_MAX,
    mesh::{HookQuestion, HookTicket},
    protocol::HookAnswer,
};

/// The back end, and the questions that it has yet to answer.
pub struct Hooks {
    /// In the order of [`Hook::ALL`]; none: it is not asked.
    targets: Vec<Option<Target>>,
    client: HttpClient,
    config: Arc<Config>,
    /// In the order of `hooks.headers`.
    header_names: Vec<HeaderName>,
    authorization: Option<HeaderValue>,
    ended: mpsc::Sender<Ended>,
}

struct Target {
    endpoint: Uri,
    time_max: Duration,
    lane: Lane<Box<HookQuestion>>,
}

/// A question that was sent has ended.
pub struct Ended {
    hook: Hook,
    ticket: Option<HookTicket>,
    took: Duration,
    answer: Result<Option<HookAnswer>, Failure>,
}

/// What a shard is told: none: there is no answer.
pub type Told = (HookTicket, Option<Box<HookAnswer>>);

/// Why there is no answer, for the log.
struct Failure {
    outcome: Outcome,
    text: String,
}

/// What is counted of each kind of question that is asked.
pub type HookFigures = Vec<(Hook, LaneFigures)>;

impl Hooks {
    /// The back end that is configured; none: there is none. Ends of questions arrive at the other end of `ended`.
    pub fn new(config: &Arc<Config>, client: HttpClient, ended: mpsc::Sender<Ended>) -> Option<Self> {
        let hooks = &config.hooks;
        if !hooks.is_any_asked() {
            return None;
        }
        let names = hooks.headers.iter();
        Some(Self {
            targets: Hook::ALL.into_iter().map(|hook| Target::new(hooks, hook)).collect(),
            client,
            config: Arc::clone(config),
            header_names: names.map(|name| name.parse().expect("the configuration takes names of fields")).collect(),
            authorization: authorization(hooks),
            ended,
        })
    }

    /// From now on it is asked like this. An endpoint that is configured no more is still asked what shards ask that do
    /// not know yet.
    pub fn reconfigure(&mut self, config: &Arc<Config>) {
        let hooks = &config.hooks;
        self.config = Arc::clone(config);
        self.authorization = authorization(hooks);
        for hook in Hook::ALL {
            let Some(mut new) = Target::new(hooks, hook) else { continue };
            if let Some(mut target) = self.targets[hook as usize].take() {
                let (requests_max, queue_max, waits) = Target::bounds(hooks, hook);
                target.lane.set_bounds(requests_max, queue_max, waits);
                new.lane = target.lane;
            }
            self.targets[hook as usize] = Some(new);
            while let Some((next, asked_at)) = self.target(hook).lane.take_next() {
                self.send(next, asked_at);
            }
        }
    }

    /// A shard asks. Some: what it is told at once.
    pub fn ask(&mut self, question: Box<HookQuestion>, now: Instant) -> Option<Told> {
        let hook = question.hook;
        let target = self.target(hook);
        match target.lane.ask(question, now) {
            Turn::Send(question) => {
                self.send(question, now);
                None
            }
            Turn::Waits => None,
            Turn::Overloaded(question) => {
                self.count(hook, Outcome::Overloaded, now, "too many questions wait already");
                question.ticket.map(|ticket| (ticket, None))
            }
        }
    }

    /// A question that was sent has ended: the next goes out, and a shard is told.
    pub fn ended(&mut self, ended: Ended, now: Instant) -> Option<Told> {
        let Ended { hook, ticket, took, answer } = ended;
        if let Some((next, asked_at)) = self.target(hook).lane.ended(took) {
            self.send(next, asked_at);
        }
        let answer = match answer {
            Ok(answer) => {
                let outcome = match &answer {
                    Some(HookAnswer::Refused(HookRefusal::Error { .. })) => Outcome::Error,
                    Some(HookAnswer::Refused(HookRefusal::Disconnect { .. })) => Outcome::Disconnect,
                    _ => Outcome::Result,
                };
                self.count(hook, outcome, now, "");
                answer
            }
            Err(Failure { outcome, text }) => {
                self.count(hook, outcome, now, &text);
                None
            }
        };
        ticket.map(|ticket| (ticket, answer.map(Box::new)))
    }

    /// Gives up questions that have waited too long, and hands over what shards are told. When to look again.
    pub fn turn(&mut self, now: Instant, mut tell: impl FnMut(Told)) -> Option<Instant> {
        for hook in Hook::ALL {
            let Some(target) = &mut self.targets[hook as usize] else { continue };
            let late: Vec<_> = std::iter::from_fn(|| target.lane.take_late(now)).collect();
            for question in late {
                self.count(hook, Outcome::TimedOut, now, "its turn did not come in time");
                question.ticket.into_iter().for_each(|ticket| tell((ticket, None)));
            }
        }
        self.targets.iter().flatten().filter_map(|target| target.lane.next_late_at()).min()
    }

    /// For the metrics.
    pub fn figures(&self) -> HookFigures {
        let targets = Hook::ALL.into_iter().zip(&self.targets);
        targets.filter_map(|(hook, target)| Some((hook, target.as_ref()?.lane.figures()))).collect()
    }

    fn target(&mut self, hook: Hook) -> &mut Target {
        self.targets[hook as usize].as_mut().expect("shards ask what is configured, or was")
    }

    fn send(&mut self, question: Box<HookQuestion>, asked_at: Instant) {
        let hook = question.hook;
        let (endpoint, time_max) = (self.target(hook).endpoint.clone(), self.target(hook).time_max);
        let request = self.request(endpoint, &question);
        // News has its whole time, however long it waited: nobody waits with it.
        let waited = question.ticket.map_or(Duration::ZERO, |_| asked_at.elapsed());
        let (client, ended, config) = (self.client.clone(), self.ended.clone(), Arc::clone(&self.config));
        tokio::spawn(async move {
            let sent_at = Instant::now();
            let response = client.ask(request, time_max.saturating_sub(waited), HOOK_ANSWER_BYTES_MAX).await;
            let answer = response.map_err(Failure::from).and_then(|response| match question.ticket {
                None if response.status().is_success() => Ok(None),
                Some(_) if response.status() == StatusCode::OK => {
                    let answer = HookAnswer::read(hook, response.body(), question.takes_bytes);
                    answer.map(Some).map_err(|error| Failure::new(Outcome::Invalid, error.to_string()))
                }
                ticket => {
                    // Of news, nobody is told how it was received.
                    let refusal = ticket.and_then(|_| config.hooks.refusal_of(response.status().as_u16()));
                    let no_answer = || Failure::new(Outcome::Status, format!("HTTP {}", response.status()));
                    refusal.map(|refusal| Some(HookAnswer::Refused(refusal.clone()))).ok_or_else(no_answer)
                }
            });
            // The loop ends before its tasks.
            let _ = ended.send(Ended { hook, ticket: question.ticket, took: sent_at.elapsed(), answer }).await;
        });
    }

    fn request(&self, endpoint: Uri, question: &HookQuestion) -> Request<Full<bytes::Bytes>> {
        let mut request = Request::new(Full::new(question.body.clone()));
        *request.method_mut() = axum::http::Method::POST;
        *request.uri_mut() = endpoint;
        let fields = request.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (place, value) in question.headers.iter().flat_map(|headers| headers.iter()) {
            // A value with a line feed is none: it would be a field of its own.
            if let Ok(value) = HeaderValue::from_bytes(value) {
                fields.append(self.header_names[usize::from(*place)].clone(), value);
            }
        }
        if let Some(authorization) = &self.authorization {
            fields.insert(header::AUTHORIZATION, authorization.clone());
        }
        request
    }

    fn count(&mut self, hook: Hook, outcome: Outcome, now: Instant, text: &str) {
        if let Some(failures) = self.target(hook).lane.count(outcome, now) {
            tracing::warn!(hook = hook.label(), failures, "the application's back end did not answer: {text}");
        }
    }
}

impl Target {
    fn new(hooks: &HooksConfig, hook: Hook) -> Option<Self> {
        let config = hooks.of(hook);
        let endpoint = config.endpoint.as_ref()?.parse().expect("the configuration takes addresses");
        let time_max = Duration::from_millis(config.ms_max.into());
        let (requests_max, queue_max, waits) = Self::bounds(hooks, hook);
        Some(Self { endpoint, time_max, lane: Lane::new(requests_max, queue_max, waits) })
    }

    /// Of its lane: requests at a time, requests that wait, and for how long.
    fn bounds(hooks: &HooksConfig, hook: Hook) -> (usize, usize, Option<Duration>) {
        let time_max = Duration::from_millis(hooks.of(hook).ms_max.into());
        (hooks.requests_max as usize, hooks.queue_max as usize, (!hook.is_told()).then_some(time_max))
    }
}

/// What shows the back end who asks.
fn authorization(hooks: &HooksConfig) -> Option<HeaderValue> {
    let value = HeaderValue::try_from(format!("Bearer {}", &**hooks.secret.as_ref()?));
    let mut value = value.expect("the configuration takes a secret that can be sent");
    value.set_sensitive(true);
    Some(value)
}

impl Failure {
    fn new(outcome: Outcome, text: String) -> Self {
        Self { outcome, text }
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        let outcome = match error {
            HttpError::Broken(_) => Outcome::Unreachable,
            HttpError::TimedOut(_) => Outcome::TimedOut,
            HttpError::TooLarge(_) => Outcome::Invalid,
        };
        Self::new(outcome, error.to_string())
    }
}
