//! The server API: what an application's back end asks over HTTP (protocol.md section 19).
//!
//! Owns who may ask, how requests and answers look on the wire, and what a request must be before shards hear of it.
//! What shards do with it is theirs; how they are asked and for how long, `shards`' and `inquiries`'.
//!
//! Invariants:
//! - Nothing of a request but its head is read before its key is known; otherwise strangers could fill memory.
//! - What was answered has happened: whoever publishes behind the answer to a subscription reaches the subscriber.
//! - A request that is not answered in time (error 100) may have been carried out. Publications with an idempotency key can
//!   be sent again safely, everything else changes nothing when it is done twice.

mod access;
mod answers;
mod call;
mod failure;
mod figures;
mod publishing;
mod reading;
mod users;

use std::{sync::Arc, time::Instant};

use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{Mutex, mpsc, watch};

pub use self::{
    access::{Credentials, may_ask},
    failure::Failure,
    figures::{ApiFigures, MethodFigures, Rejection},
};
use self::{
    call::{Call, Method},
    figures::Counters,
};
use super::{Question, shards::Shards};
use crate::{
    config::{Config, ErrorMode},
    mesh::{Sampler, TraceContext},
};

/// Answers requests.
pub struct Api {
    config: watch::Receiver<Arc<Config>>,
    shards: Shards,
    /// For figures.
    questions: mpsc::Sender<Question>,
    /// What the process calls itself.
    node: String,
    started_at: Instant,
    counters: Counters,
    /// Held while channels and users are counted.
    census: Mutex<()>,
    /// Chooses which publications are traced, by the configuration beside it.
    sampling: std::sync::Mutex<(Sampler, Arc<Config>)>,
}

/// What a request brings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Its body.
    pub body: Bytes,
    /// What it says of its sender's trace.
    pub trace: Option<TraceContext>,
}

/// The answer to a request, as it goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiAnswer {
    /// The HTTP status.
    pub status: StatusCode,
    /// A JSON text, or a line for developers where the request was not one.
    pub body: String,
    /// Whether `body` is JSON.
    pub is_json: bool,
}

/// What follows `/api` in the path of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Nothing: the legacy form, which names methods in its body.
    Legacy,
    /// A method's name.
    Method(Method),
}

impl Route {
    /// What a path asks for; none: nothing is there.
    pub fn of(path: &str) -> Option<Self> {
        match path.strip_prefix("/api")? {
            "" | "/" => Some(Self::Legacy),
            rest => Method::of(rest.strip_prefix('/')?).map(Self::Method),
        }
    }
}

impl Api {
    /// An API that asks these shards.
    pub fn new(config: watch::Receiver<Arc<Config>>, shards: Shards, questions: mpsc::Sender<Question>) -> Self {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("the kernel gives random bytes once it has booted");
        let running = Arc::clone(&config.borrow());
        let sampler = shards.sampler(&running.tracing);
        let node = random.map(|byte| format!("{byte:02x}")).concat();
        Self {
            config,
            shards,
            questions,
            node,
            started_at: Instant::now(),
            counters: Counters::default(),
            census: Mutex::new(()),
            sampling: std::sync::Mutex::new((sampler, running)),
        }
    }

    /// What the operator chose, as it counts now.
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Answers a request that may ask.
    pub async fn answer(&self, route: Route, error_mode: ErrorMode, asked: &Asked) -> ApiAnswer {
        match route {
            Route::Method(method) => match Call::read(method, &asked.body) {
                Ok(call) => ApiAnswer::of(self.carry_out(method, call, asked).await, error_mode),
                Err(Unreadable) => self.unreadable(),
            },
            Route::Legacy => self.answer_legacy(asked).await,
        }
    }

    /// A request is no call.
    pub fn rejected(&self, rejection: Rejection) {
        self.counters.rejected(rejection);
    }

    /// For the metrics.
    pub fn figures(&self) -> ApiFigures {
        self.counters.figures()
    }

    /// `{"method":..,"params":..}`, one or more, each answered by a line.
    async fn answer_legacy(&self, asked: &Asked) -> ApiAnswer {
        let Ok(commands) = LegacyCommand::read_all(&asked.body) else { return self.unreadable() };
        let mut lines = Vec::with_capacity(commands.len());
        for LegacyCommand { method, params } in commands {
            let params = params.map_or("{}", RawValue::get);
            let result = match Method::of(&method).map(|method| (method, Call::read(method, params.as_bytes()))) {
                Some((method, Ok(call))) => self.carry_out(method, call, asked).await,
                Some((_, Err(Unreadable))) => {
                    self.rejected(Rejection::Unreadable);
                    Err(Failure::BAD_REQUEST)
                }
                None => {
                    self.rejected(Rejection::UnknownMethod);
                    Err(Failure::NOT_FOUND)
                }
            };
            lines.push(answers::reply(&result));
        }
        ApiAnswer { status: StatusCode::OK, body: lines.join("\n"), is_json: true }
    }

    /// Carries out a call, and counts it.
    async fn carry_out(&self, method: Method, call: Call<'_>, asked: &Asked) -> Result<String, Failure> {
        let began_at = Instant::now();
        let result = self.result_of(call, asked).await;
        self.counters.ended(method, result.as_ref().err().copied(), began_at.elapsed());
        result
    }

    /// The JSON text of a call's result. Payloads are slices of its body.
    async fn result_of(&self, call: Call<'_>, asked: &Asked) -> Result<String, Failure> {
        match call {
            Call::Batch { calls, is_parallel } => self.batch(calls, is_parallel, asked).await,
            Call::Publish(request) => self.publish(request, asked).await,
            Call::Broadcast(request) => self.broadcast(request, asked).await,
            Call::Subscribe(request) => self.subscribe(request).await,
            Call::Unsubscribe(request) => self.unsubscribe(request).await,
            Call::Disconnect(request) => self.disconnect(request).await,
            Call::Refresh(request) => self.refresh(request).await,
            Call::Presence(request) => self.presence(&request.channel).await,
            Call::PresenceStats(request) => self.presence_stats(&request.channel).await,
            Call::History(request) => self.history(request).await,
            Call::HistoryRemove(request) => self.remove_history(&request.channel).await,
            Call::Channels(request) => self.channels(&request.pattern).await,
            Call::Connections(request) => self.connections(request.user).await,
            Call::UpdateAttributes(request) => self.update_attributes(request).await,
            Call::Info => self.info().await,
            // Methods of the application's own would be the back end's, which asks here.
            Call::Rpc(request) if request.method.is_empty() => Err(Failure::BAD_REQUEST),
            Call::Rpc(_) => Err(Failure::NOT_FOUND),
        }
    }

    /// Several calls, one after the other unless they may run beside each other.
    async fn batch(&self, calls: Vec<(Method, Call<'_>)>, is_parallel: bool, asked: &Asked) -> Result<String, Failure> {
        let one = async |(method, call)| {
            // Boxed: a batch in a batch is refused when it is read, which the compiler does not know.
            let result: Result<String, Failure> = Box::pin(self.carry_out(method, call, asked)).await;
            answers::batch_reply(method, &result)
        };
        let replies = if is_parallel {
            join_all(calls.into_iter().map(one)).await
        } else {
            let mut replies = Vec::with_capacity(calls.len());
            for call in calls {
                replies.push(one(call).await);
            }
            replies
        };
        Ok(format!("{{\"replies\":[{}]}}", replies.join(",")))
    }

    /// The answer to a request that cannot be read.
    fn unreadable(&self) -> ApiAnswer {
        self.rejected(Rejection::Unreadable);
        ApiAnswer { status: StatusCode::BAD_REQUEST, body: "Bad Request\n".to_owned(), is_json: false }
    }
}

/// A request that is no JSON, or not of the form that its method has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unreadable;

impl From<serde_json::Error> for Unreadable {
    fn from(_: serde_json::Error) -> Self {
        Self
    }
}

#[derive(Deserialize)]
struct LegacyCommand<'a> {
    #[serde(default)]
    method: String,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

impl<'a> LegacyCommand<'a> {
    fn read_all(body: &'a [u8]) -> Result<Vec<Self>, Unreadable> {
        let texts = serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>();
        let commands = texts.map(|text| {
            let text = text?.get();
            // What reads an object takes a list of its fields, too.
            if text.starts_with('{') { Ok(serde_json::from_str(text)?) } else { Err(Unreadable) }
        });
        let commands = commands.collect::<Result<Vec<_>, Unreadable>>()?;
        if commands.is_empty() { Err(Unreadable) } else { Ok(commands) }
    }
}

impl ApiAnswer {
    fn of(result: Result<String, Failure>, error_mode: ErrorMode) -> Self {
        match (&result, error_mode) {
            (Err(failure), ErrorMode::Transport) => {
                Self { status: failure.status(), body: failure.to_json(), is_json: true }
            }
            _ => Self { status: StatusCode::OK, body: answers::reply(&result), is_json: true },
        }
    }
}
