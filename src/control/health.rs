//! `/health`: whether the server does its work, for load balancers and service managers.

use axum::http::StatusCode;
use serde::Serialize;

use super::{
    observer::{Snapshot, ThreadState},
    process,
};

/// The body of `/health`.
#[derive(Debug, Serialize)]
pub struct Health {
    /// Of the whole.
    pub status: Status,
    /// Names of threads that do not answer or have ended, if any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stuck: Vec<String>,
    /// The running version.
    pub version: &'static str,
    /// Since the start.
    pub uptime_seconds: u64,
    /// Each shard.
    pub shards: Vec<ThreadHealth>,
    /// The ingest thread.
    pub ingest: ThreadHealth,
}

/// One thread's part.
#[derive(Debug, Serialize)]
pub struct ThreadHealth {
    /// Its name.
    pub thread: String,
    /// Whether it does its work.
    pub status: Status,
    /// How long its last answer took; if it is stuck, how long one has been waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_ms: Option<f64>,
    /// Clients or producers, by its last figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
}

/// A word for a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All is well.
    Ok,
    /// A thread does not answer.
    Stuck,
    /// A thread has ended.
    Stopped,
    /// The server is on its way out: send no new work.
    Stopping,
}

impl From<ThreadState> for Status {
    fn from(state: ThreadState) -> Self {
        match state {
            ThreadState::Answering => Self::Ok,
            ThreadState::Stuck => Self::Stuck,
            ThreadState::Stopped => Self::Stopped,
        }
    }
}

impl Health {
    /// Of what is known now.
    pub fn of(snapshot: &Snapshot) -> Self {
        let bad = |(_, state, _): &(_, ThreadState, _)| *state != ThreadState::Answering;
        let stuck: Vec<_> = snapshot.states().filter(bad).map(|(thread, ..)| thread.to_string()).collect();
        let status = match (snapshot.stopping, stuck.is_empty()) {
            (true, _) => Status::Stopping,
            (false, false) => Status::Stuck,
            (false, true) => Status::Ok,
        };
        let mut threads: Vec<_> = snapshot
            .states()
            .map(|(thread, state, answer_time)| ThreadHealth {
                thread: thread.to_string(),
                status: state.into(),
                answer_ms: answer_time.map(|time| (time.as_secs_f64() * 1e6).round() / 1e3),
                connections: None,
            })
            .collect();
        let mut ingest = threads.pop().expect("the ingest thread is the last of all threads");
        ingest.connections = snapshot.ingest.figures.as_ref().map(|figures| figures.connections);
        for (thread, report) in threads.iter_mut().zip(&snapshot.shards) {
            thread.connections = report.figures.as_ref().map(|figures| figures.connections);
        }
        let version = env!("CARGO_PKG_VERSION");
        Self { status, stuck, version, uptime_seconds: process::uptime().as_secs(), shards: threads, ingest }
    }

    /// 200 if all is well, else 503, so that a load balancer needs not read the body.
    pub fn status_code(&self) -> StatusCode {
        if self.status == Status::Ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::control::observer::{ANSWER_TIME_MAX, Observer, ThreadId};

    #[test]
    fn healthy_while_all_answer() {
        let now = Instant::now();
        let mut observer = Observer::new(1);
        let (ticket, _) = observer.begin_round(now);
        observer.answer_shard(0, ticket, Box::default(), now);
        observer.answer_ingest(ticket, Box::default(), now);
        let health = Health::of(&observer.snapshot(now, false));
        assert_eq!((health.status, health.status_code()), (Status::Ok, StatusCode::OK));
        let json = serde_json::to_value(&health).unwrap();
        assert_eq!(json["status"], "ok");
        assert_eq!(json["shards"][0]["thread"], "shard-0");
        assert_eq!(json["shards"][0]["connections"], 0);
        assert_eq!(json["ingest"]["status"], "ok");
        assert!(json.get("stuck").is_none());
    }

    #[test]
    fn a_stuck_or_ended_thread_is_named() {
        let now = Instant::now();
        let mut observer = Observer::new(2);
        let (ticket, _) = observer.begin_round(now);
        observer.answer_ingest(ticket, Box::default(), now);
        observer.stopped(ThreadId::Shard(0));
        let health = Health::of(&observer.snapshot(now + ANSWER_TIME_MAX, false));
        assert_eq!((health.status, health.status_code()), (Status::Stuck, StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(health.stuck, ["shard-0", "shard-1"]);
        assert_eq!(health.shards[0].status, Status::Stopped);
        assert_eq!(health.shards[1].answer_ms, Some(2_000.0));
    }

    #[test]
    fn unavailable_while_stopping() {
        let health = Health::of(&Observer::new(1).snapshot(Instant::now(), true));
        assert_eq!((health.status, health.status_code()), (Status::Stopping, StatusCode::SERVICE_UNAVAILABLE));
    }
}
