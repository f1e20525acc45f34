//! The control thread: figures, health, the console, signals and the order of the stop.
//!
//! Owns the operators' port and the decision when and in which order threads stop. Leaves to others:
//! binding the port and exit codes ([`crate::server`]), what a shard or the ingest thread does when
//! it is told to stop or asked for its figures (they themselves).
//!
//! Invariants:
//! - Shards are woken for figures only while somebody wants them: a request to `/metrics` or
//!   `/health`, or an open console. An idle server stays idle.
//! - Figures in an answer were asked for after the request arrived, so an operator reads his own
//!   writes; a thread that does not answer in [`observer::ANSWER_TIME_MAX`] is reported, never
//!   waited for longer.
//! - The loop below is the only owner of this thread's end of the mesh; HTTP handlers ask the loop.
//!   Two owners could send two questions to one thread, against `observer`'s invariant.

mod observer;
mod stop;

use std::{
    io,
    net::TcpListener,
    os::fd::{AsFd, AsRawFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::TryRecvError;
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
};

use self::{
    observer::{Observer, Snapshot, ThreadId},
    stop::{Stop, StopStep},
};
use crate::{
    config::Config,
    mesh::{Bell, ControlMesh, ToControl, ToIngest, ToShard},
};

/// Mints a short-lived connection token for the operator's own console page.
pub type OperatorToken = Arc<dyn Fn() -> String + Send + Sync>;

/// Everything that the control thread needs.
pub struct Control {
    /// What the operator chose.
    pub config: Arc<Config>,
    /// This thread's end of the mesh.
    pub mesh: ControlMesh,
    /// The operators' port, bound.
    pub listener: TcpListener,
    /// For the console page.
    pub operator_token: OperatorToken,
    /// Whether the demonstration's ticker runs, so that the console shows it at once.
    pub demo: bool,
}

/// How the server came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A signal asked for it, and every thread ended in time.
    Stopped,
    /// A signal asked for it, but these threads had not ended in time.
    TimedOut {
        /// Their names.
        threads: Vec<String>,
    },
    /// A second signal: nothing is waited for.
    Interrupted,
    /// A thread ended without being asked to; the others were stopped.
    ThreadLost {
        /// Its name.
        thread: String,
    },
}

impl Control {
    /// Serves operators until the server has stopped, on the calling thread.
    ///
    /// # Errors
    /// When the kernel refuses what the runtime needs (descriptors, a signal handler).
    pub fn run(self) -> io::Result<Outcome> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (stop_requests, stop_request) = mpsc::channel(4);
            forward_signal(SignalKind::terminate(), "SIGTERM", stop_requests.clone())?;
            forward_signal(SignalKind::interrupt(), "SIGINT", stop_requests)?;
            self.run_until(stop_request).await
        })
    }

    async fn run_until(self, stop_requests: mpsc::Receiver<&'static str>) -> io::Result<Outcome> {
        let (_questions, question) = mpsc::channel(QUESTIONS_MAX);
        let bell = AsyncFd::new(BellEvent(Arc::clone(&self.mesh.bell)))?;
        let control_loop = ControlLoop {
            observer: Observer::new(self.mesh.to_shards.len()),
            config: self.config,
            mesh: self.mesh,
            questions: question,
            stop_requests,
            asking: None,
            waiting: Vec::new(),
            last_round_at: None,
            stop: None,
            lost: None,
        };
        Ok(control_loop.run(&bell).await)
    }
}

/// Least time between two rounds of questions, so that a flood of requests cannot keep shards awake.
const ROUND_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// Requests for figures that wait at most; more wait in their handlers.
const QUESTIONS_MAX: usize = 64;

/// A handler's wish: figures that are asked for after now.
type Question = oneshot::Sender<Arc<Snapshot>>;

struct ControlLoop {
    config: Arc<Config>,
    mesh: ControlMesh,
    observer: Observer,
    questions: mpsc::Receiver<Question>,
    stop_requests: mpsc::Receiver<&'static str>,
    /// The round under way: who wants its result.
    asking: Option<Vec<Question>>,
    /// Who wants the next round's.
    waiting: Vec<Question>,
    last_round_at: Option<Instant>,
    stop: Option<Stop>,
    lost: Option<ThreadId>,
}

impl ControlLoop {
    async fn run(mut self, bell: &AsyncFd<BellEvent>) -> Outcome {
        loop {
            // Announced before the queues are looked at for the last time: see the mesh's invariants.
            self.mesh.bell.begin_sleep();
            let now = Instant::now();
            self.receive(now);
            let round_wake = self.turn_round(now);
            let stop_wake = match self.turn_stop(now) {
                Ok(wake) => wake,
                Err(outcome) => return outcome,
            };
            let wake_at = [round_wake, stop_wake].into_iter().flatten().min();

            tokio::select! {
                ready = bell.readable() => {
                    let mut ready = ready.expect("an eventfd does not fail to be polled while the runtime runs");
                    self.mesh.bell.clear();
                    ready.clear_ready();
                }
                Some(question) = self.questions.recv() => self.waiting.push(question),
                Some(signal) = self.stop_requests.recv() => {
                    if self.stop.is_some() {
                        tracing::warn!(signal, "second signal: exiting at once");
                        return Outcome::Interrupted;
                    }
                    tracing::info!(signal, ms_max = self.config.shutdown.ms_max, "stopping");
                    self.begin_stop();
                }
                () = sleep_until(wake_at) => {}
            }
            self.mesh.bell.end_sleep();
        }
    }

    fn receive(&mut self, now: Instant) {
        for queue in 0..self.mesh.inbound.len() {
            let thread = if queue < self.mesh.to_shards.len() { ThreadId::Shard(queue) } else { ThreadId::Ingest };
            loop {
                match self.mesh.inbound[queue].try_recv() {
                    Ok(ToControl::Shard { ticket, figures }) => {
                        self.observer.answer_shard(queue, ticket, figures, now);
                    }
                    Ok(ToControl::Ingest { ticket, figures }) => self.observer.answer_ingest(ticket, figures, now),
                    Ok(ToControl::ShardStopped { .. } | ToControl::IngestStopped) => self.thread_stopped(thread),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        self.thread_stopped(thread);
                        break;
                    }
                }
            }
        }
    }

    fn thread_stopped(&mut self, thread: ThreadId) {
        if !self.observer.stopped(thread) {
            return;
        }
        if self.stop.is_some() {
            tracing::info!(%thread, "stopped");
        } else {
            tracing::error!(%thread, "ended without being asked to; stopping the server");
            self.lost = Some(thread);
            self.begin_stop();
        }
    }

    /// Ends the round under way if all have answered or time is up, begins the next if somebody
    /// waits. When to look again.
    fn turn_round(&mut self, now: Instant) -> Option<Instant> {
        if self.asking.is_some() {
            if let Some(ends_at) = self.observer.round_ends_at(now) {
                return Some(ends_at);
            }
            let snapshot = Arc::new(self.observer.snapshot(now, self.stop.is_some()));
            for question in self.asking.take().into_iter().flatten() {
                // A handler that has gone away, with its client, wants no answer.
                let _ = question.send(Arc::clone(&snapshot));
            }
        }
        if self.waiting.is_empty() {
            return None;
        }
        let earliest = self.last_round_at.map_or(now, |last| last + ROUND_INTERVAL_MIN);
        if earliest > now {
            return Some(earliest);
        }
        self.last_round_at = Some(now);
        self.asking = Some(std::mem::take(&mut self.waiting));
        let (ticket, threads) = self.observer.begin_round(now);
        for thread in threads {
            match thread {
                ThreadId::Shard(shard) => {
                    self.mesh.to_shards[shard].send(ToShard::Observe { ticket });
                    self.mesh.to_shards[shard].ring();
                }
                ThreadId::Ingest => {
                    self.mesh.to_ingest.send(ToIngest::Observe { ticket });
                    self.mesh.to_ingest.ring();
                }
            }
        }
        // If no thread was asked, the round is over already.
        self.observer.round_ends_at(now).or(Some(now))
    }

    fn begin_stop(&mut self) {
        self.stop = Some(Stop::begin(&self.config.shutdown, Instant::now()));
        self.mesh.to_ingest.send(ToIngest::Shutdown);
        self.mesh.to_ingest.ring();
    }

    fn turn_stop(&mut self, now: Instant) -> Result<Option<Instant>, Outcome> {
        let Some(stop) = &mut self.stop else { return Ok(None) };
        loop {
            match stop.step(self.observer.running(), now) {
                StopStep::Wait(until) => return Ok(Some(until)),
                StopStep::TellShards { spread_ms } => {
                    for to_shard in &mut self.mesh.to_shards {
                        to_shard.send(ToShard::Shutdown { spread_ms });
                        to_shard.ring();
                    }
                }
                StopStep::Finished => {
                    let ms = u64::try_from((now - stop.began_at()).as_millis()).unwrap_or(u64::MAX);
                    tracing::info!(ms, "all threads have stopped");
                    return Err(match self.lost {
                        Some(thread) => Outcome::ThreadLost { thread: thread.to_string() },
                        None => Outcome::Stopped,
                    });
                }
                StopStep::TimeIsUp => {
                    let threads: Vec<_> = self.observer.running().map(|thread| thread.to_string()).collect();
                    tracing::warn!(?threads, "not stopped in time; exiting without them");
                    return Err(match self.lost {
                        Some(thread) => Outcome::ThreadLost { thread: thread.to_string() },
                        None => Outcome::TimedOut { threads },
                    });
                }
            }
        }
    }
}

/// The bell's eventfd, as tokio polls it.
struct BellEvent(Arc<Bell>);

impl AsRawFd for BellEvent {
    fn as_raw_fd(&self) -> RawFd {
        self.0.event().as_fd().as_raw_fd()
    }
}

fn forward_signal(kind: SignalKind, name: &'static str, stop_requests: mpsc::Sender<&'static str>) -> io::Result<()> {
    let mut signal = signal(kind)?;
    tokio::spawn(async move {
        while signal.recv().await.is_some() {
            if stop_requests.send(name).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
