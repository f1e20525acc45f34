//! Another configuration: it is read, compared with the one that counts, and taken over by every thread.
//!
//! Owns the order, who has yet to say that it has changed, and the report. What changes at all is `config::change`'s
//! business, what a thread makes of it the thread's.
//!
//! Invariants:
//! - A configuration with a mistake changes nothing, anywhere.
//! - One reload at a time; the next is read when every thread has confirmed the one before, or is late. So a thread
//!   never finds two configurations in its queue in the wrong order, nor one that another thread has left already.
//! - This thread changes before it tells the others: whom shards ask of the back end, and whose keys they miss, it knows.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::{
    ControlLoop, HttpClient, Publisher,
    hooks::Hooks,
    key_sets::KeySets,
    observer::{ANSWER_TIME_MAX, ThreadId},
    traces::Traces,
};
use crate::{
    config::{Change, Config, Loaded, change},
    log::{self, AUDIT},
    mesh::{Admission, ToIngest, ToShard},
};

/// Reads the file and the environment anew: a configuration, or every mistake.
pub type LoadConfig = Arc<dyn Fn() -> Result<Loaded, Vec<String>> + Send + Sync>;

/// What a reload needs of the process.
pub struct Reloading {
    /// The configuration as it was written; ports that it leaves to the kernel are 0.
    pub written: Config,
    /// Where it comes from.
    pub load: LoadConfig,
    /// Places for connections.
    pub admission: Admission,
}

/// Somebody wants the configuration to be read anew.
pub struct ReloadRequest {
    /// Who, for the log.
    pub by: &'static str,
    /// Who is told what came of it.
    pub asker: Option<oneshot::Sender<Report>>,
}

/// What came of a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Keys that have other values now.
    pub changed: Vec<String>,
    /// Keys that are written otherwise, and count when the server is started anew.
    pub needs_restart: Vec<String>,
    /// What is suspicious, but usable.
    pub warnings: Vec<String>,
    /// Why nothing has changed, if there is anything.
    pub mistakes: Vec<String>,
    /// Threads that have not confirmed in time; they will change as soon as they go on.
    pub late: Vec<String>,
}

impl Report {
    /// How it is answered over HTTP.
    pub fn status_code(&self) -> StatusCode {
        match (self.mistakes.is_empty(), self.late.is_empty()) {
            (false, _) => StatusCode::UNPROCESSABLE_ENTITY,
            (true, false) => StatusCode::GATEWAY_TIMEOUT,
            (true, true) => StatusCode::OK,
        }
    }

    fn log(&self, by: &str) {
        for mistake in &self.mistakes {
            tracing::error!("{mistake}");
        }
        if !self.mistakes.is_empty() {
            let mistakes = self.mistakes.len();
            tracing::error!(by, mistakes, "the configuration was read anew and is refused: nothing has changed");
            tracing::info!(target: AUDIT, by, mistakes, "the configuration was read anew and is refused");
            return;
        }
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        for key in &self.needs_restart {
            tracing::warn!("{key} changes only with a restart");
        }
        if !self.late.is_empty() {
            tracing::error!(threads = self.late.join(" "), "late to take the configuration over");
        }
        let changed = self.changed.join(" ");
        tracing::info!(by, changed, "the configuration was read anew and counts");
        tracing::info!(target: AUDIT, by, changed, "the configuration was changed");
    }
}

/// How often the configuration was read anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReloadFigures {
    /// And taken over.
    pub taken_over: u64,
    /// And refused.
    pub refused: u64,
    /// Whether it was refused the last time.
    pub is_last_refused: bool,
}

/// The reload under way. Pure: time and confirmations are handed in.
#[derive(Default)]
pub struct Reloads {
    /// How many there were.
    number: u64,
    stage: Stage,
    figures: ReloadFigures,
}

#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    Loading(ReloadRequest),
    Confirming {
        request: ReloadRequest,
        report: Report,
        missing: Vec<ThreadId>,
        late_at: Instant,
    },
}

impl Reloads {
    /// Whether none is under way.
    pub fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    /// For the metrics.
    pub fn figures(&self) -> ReloadFigures {
        self.figures
    }

    fn begin(&mut self, request: ReloadRequest) {
        assert!(self.is_idle(), "the next is asked for when the last has ended");
        self.number += 1;
        self.stage = Stage::Loading(request);
    }

    /// Nothing comes of it.
    fn refuse(&mut self, report: Report) {
        self.figures.refused += 1;
        self.figures.is_last_refused = true;
        self.end(report);
    }

    /// These threads are being told.
    fn told(&mut self, report: Report, missing: Vec<ThreadId>, now: Instant) {
        self.figures.taken_over += 1;
        self.figures.is_last_refused = false;
        let Stage::Loading(request) = std::mem::take(&mut self.stage) else {
            unreachable!("what is told was loaded before")
        };
        self.stage = Stage::Confirming { request, report, missing, late_at: now + ANSWER_TIME_MAX };
    }

    /// A thread has taken a configuration over.
    pub fn confirmed(&mut self, thread: ThreadId, number: u64) {
        if let Stage::Confirming { missing, .. } = &mut self.stage
            && number == self.number
        {
            missing.retain(|other| *other != thread);
        }
    }

    /// Ends the reload, if all have confirmed or time is up. When to look again.
    pub fn turn(&mut self, now: Instant) -> Option<Instant> {
        let Stage::Confirming { report, missing, late_at, .. } = &mut self.stage else { return None };
        if !missing.is_empty() && now < *late_at {
            return Some(*late_at);
        }
        let mut report = std::mem::take(report);
        report.late = missing.iter().map(ThreadId::to_string).collect();
        self.end(report);
        None
    }

    fn end(&mut self, report: Report) {
        let (Stage::Loading(request) | Stage::Confirming { request, .. }) = std::mem::take(&mut self.stage) else {
            unreachable!("a reload ends once")
        };
        report.log(request.by);
        if let Some(asker) = request.asker {
            // An asker that has gone away, with its client, reads the log.
            let _ = asker.send(report);
        }
    }
}

impl ControlLoop {
    /// Reads the configuration anew, beside the loop: a file may lie on a disk that is slow.
    pub(super) fn begin_reload(&mut self, request: ReloadRequest) {
        self.reloads.begin(request);
        self.service.reloading();
        self.is_reload_told = true;
        let (load, loaded) = (Arc::clone(&self.reloading.load), self.loaded_sender.clone());
        tokio::task::spawn_blocking(move || {
            // The loop ends before its tasks.
            let _ = loaded.blocking_send(load());
        });
    }

    /// Ends the reload under way, if it is over. When to look again.
    pub(super) fn turn_reload(&mut self, now: Instant) -> Option<Instant> {
        let wake = self.reloads.turn(now);
        if self.reloads.is_idle() && std::mem::take(&mut self.is_reload_told) {
            self.service.reloaded();
        }
        wake
    }

    /// The configuration was read: it counts, or is refused.
    pub(super) fn config_loaded(&mut self, loaded: Result<Loaded, Vec<String>>) {
        let change = loaded.and_then(|Loaded { config, warnings }| {
            let change = change(&self.config, &self.reloading.written, config);
            let warnings = warnings.iter().map(ToString::to_string).collect();
            let change = change.map_err(|errors| errors.problems().iter().map(ToString::to_string).collect::<Vec<_>>());
            Ok((change?, warnings))
        });
        match change {
            Ok(_) if self.stop.is_some() => {
                self.reloads.refuse(Report { mistakes: vec!["the server stops".to_owned()], ..Report::default() });
            }
            Ok((change, warnings)) => self.take_over(change, warnings),
            Err(mistakes) => self.reloads.refuse(Report { mistakes, ..Report::default() }),
        }
    }

    fn take_over(&mut self, change: Change, warnings: Vec<String>) {
        let Change { running, written, changed, needs_restart } = change;
        let (before, config) = (Arc::clone(&self.config), Arc::new(running));
        self.config = Arc::clone(&config);
        self.reloading.written = written;
        if before.log.level != config.log.level {
            log::set_level(&config.log.level);
        }
        self.tls.reload_certificates();
        self.reloading.admission.resize(before.client.connections_max, config.client.connections_max);
        self.reconfigure_publisher();
        self.reconfigure_hooks();
        if before.tracing != config.tracing {
            self.reconfigure_traces();
        }
        if self.denied.configure(&config.client.deny) {
            self.tell_denied();
        }
        self.shared_config.send_replace(Arc::clone(&config));
        let reload = self.reloads.number;
        let threads: Vec<ThreadId> = self.observer.running().collect();
        for thread in &threads {
            let config = Arc::clone(&config);
            match thread {
                ThreadId::Shard(shard) => {
                    self.mesh.to_shards[*shard].send(ToShard::Reconfigure { config, reload });
                    self.mesh.to_shards[*shard].ring();
                }
                ThreadId::Ingest => {
                    self.mesh.to_ingest.send(ToIngest::Reconfigure { config, reload });
                    self.mesh.to_ingest.ring();
                }
            }
        }
        let report = Report { changed, needs_restart, warnings, ..Report::default() };
        self.reloads.told(report, threads, Instant::now());
    }

    /// Whose keys verify tokens. Who waits for those of another publisher is answered by the new one; where there is none
    /// any more, shards know what to do.
    fn reconfigure_publisher(&mut self) {
        let config = Arc::clone(&self.config);
        let token = &config.client.token;
        let Some(endpoint) = &token.jwks_public_endpoint else {
            self.publisher = None;
            return;
        };
        let (refresh, now) = (Duration::from_millis(token.jwks_refresh_ms.into()), Instant::now());
        match self.publisher.take() {
            Some(mut publisher) if publisher.endpoint == *endpoint => {
                publisher.sets.set_refresh(refresh, now);
                self.publisher = Some(publisher);
            }
            before => {
                let mut sets = KeySets::new(refresh, now);
                let waiting = before.into_iter().flat_map(|publisher| publisher.sets.into_waiting());
                waiting.for_each(|shard| sets.asked(shard));
                // What the other one is being asked for still, goes nowhere.
                let (fetched, fetch) = mpsc::channel(1);
                self.fetch = fetch;
                let (endpoint, client) = (endpoint.clone(), self.http_client());
                self.publisher = Some(Publisher { sets, endpoint, client, fetched, is_failing: false });
            }
        }
    }

    fn reconfigure_hooks(&mut self) {
        let config = Arc::clone(&self.config);
        match &mut self.hooks {
            Some(hooks) => hooks.reconfigure(&config),
            None if config.hooks.is_any_asked() => {
                self.hooks = Hooks::new(&config, self.http_client(), self.hook_ends.clone());
            }
            None => {}
        }
    }

    fn reconfigure_traces(&mut self) {
        let config = Arc::clone(&self.config);
        match &mut self.traces {
            Some(traces) => traces.reconfigure(&config.tracing),
            None => {
                let client = self.http_client();
                self.traces = Traces::new(&config.tracing, &client, &self.trace_ends.0);
            }
        }
    }

    /// Made when it is needed first: it reads the host's certificates.
    fn http_client(&mut self) -> HttpClient {
        self.client.get_or_insert_with(HttpClient::new).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> (ReloadRequest, oneshot::Receiver<Report>) {
        let (asker, report) = oneshot::channel();
        (ReloadRequest { by: "a test", asker: Some(asker) }, report)
    }

    fn report() -> Report {
        Report { changed: vec!["log.level".to_owned()], ..Report::default() }
    }

    #[test]
    fn a_reload_ends_when_every_thread_has_confirmed_it() {
        let (mut reloads, now) = (Reloads::default(), Instant::now());
        let (request, mut answer) = asked();
        reloads.begin(request);
        reloads.told(report(), vec![ThreadId::Shard(0), ThreadId::Ingest], now);
        assert_eq!(reloads.turn(now), Some(now + ANSWER_TIME_MAX));
        reloads.confirmed(ThreadId::Shard(0), 1);
        reloads.confirmed(ThreadId::Ingest, 9);
        assert!(reloads.turn(now).is_some() && answer.try_recv().is_err());
        reloads.confirmed(ThreadId::Ingest, 1);
        assert_eq!(reloads.turn(now), None);
        assert_eq!(answer.try_recv(), Ok(report()));
        assert!(reloads.is_idle());
        assert_eq!(reloads.figures(), ReloadFigures { taken_over: 1, refused: 0, is_last_refused: false });
    }

    #[test]
    fn a_thread_that_is_late_is_named_and_its_confirmation_not_taken_for_the_next_reloads() {
        let (mut reloads, now) = (Reloads::default(), Instant::now());
        let (request, mut answer) = asked();
        reloads.begin(request);
        reloads.told(report(), vec![ThreadId::Shard(1)], now);
        assert_eq!(reloads.turn(now + ANSWER_TIME_MAX), None);
        let late = answer.try_recv().unwrap();
        assert_eq!(
            (late.late.as_slice(), late.status_code()),
            (&["shard-1".to_owned()][..], StatusCode::GATEWAY_TIMEOUT)
        );
        let (request, mut answer) = asked();
        reloads.begin(request);
        reloads.told(report(), vec![ThreadId::Shard(1)], now);
        reloads.confirmed(ThreadId::Shard(1), 1);
        assert!(reloads.turn(now).is_some() && answer.try_recv().is_err());
    }

    #[test]
    fn what_is_refused_is_told_at_once() {
        let mut reloads = Reloads::default();
        let (request, mut answer) = asked();
        reloads.begin(request);
        reloads.refuse(Report { mistakes: vec!["a mistake".to_owned()], ..Report::default() });
        assert_eq!(answer.try_recv().unwrap().status_code(), StatusCode::UNPROCESSABLE_ENTITY);
        assert!(reloads.is_idle() && reloads.figures().is_last_refused);
    }
}
