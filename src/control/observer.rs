//! The last figures of every thread, and whether it still answers.
//!
//! Owns the questions under way and the answers. When to ask is decided by the control loop, what
//! the figures mean by `metrics`, `health` and `console`.
//!
//! Invariants:
//! - A thread has at most one unanswered question. A stuck thread would otherwise find its queue
//!   filled with questions, and the messages held back for it would grow without bound.
//! - Time is handed in, so that a test decides what is late.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    hooks::HookFigures, key_sets::KeySetFigures, memory::MemoryFigures, reload::ReloadFigures,
    trace_queue::TraceFigures,
};
use crate::{
    limits::THREAD_ANSWER_MS_MAX,
    mesh::{IngestFigures, ShardFigures},
    tls::PortFigures,
};

/// How long a thread may take to answer before it counts as stuck.
pub const ANSWER_TIME_MAX: Duration = Duration::from_millis(THREAD_ANSWER_MS_MAX);

/// A thread that answers questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadId {
    /// By index.
    Shard(usize),
    /// The one that serves producers.
    Ingest,
}

impl fmt::Display for ThreadId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shard(shard) => write!(formatter, "shard-{shard}"),
            Self::Ingest => formatter.write_str("ingest"),
        }
    }
}

/// Whether a thread does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadState {
    /// It answered its last question in time, or still has time to.
    Answering,
    /// Its question has been open for longer than [`ANSWER_TIME_MAX`].
    Stuck,
    /// It has said that it ended, or its end of the mesh is gone.
    Stopped,
}

/// What is known of one thread.
#[derive(Debug, Clone)]
pub struct ThreadReport<F> {
    /// Whether it does its work.
    pub state: ThreadState,
    /// Its last figures; none before its first answer.
    pub figures: Option<Arc<F>>,
    /// How long its last answer took; if it is stuck, how long its question has been open.
    pub answer_time: Option<Duration>,
}

/// What is known of all threads at one time.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// When.
    pub at: Instant,
    /// Whether the server is on its way out.
    pub stopping: bool,
    /// By index.
    pub shards: Vec<ThreadReport<ShardFigures>>,
    /// The ingest thread.
    pub ingest: ThreadReport<IngestFigures>,
    /// Published keys, if the server fetches any.
    pub key_sets: Option<KeySetFigures>,
    /// Questions to the application's back end, by kind.
    pub hooks: HookFigures,
    /// Traces, if they are told to a collector.
    pub traces: Option<TraceFigures>,
    /// What is left of memory.
    pub memory: MemoryFigures,
    /// Ports that speak TLS.
    pub tls: PortFigures,
    /// How often the configuration was read anew.
    pub reloads: ReloadFigures,
}

impl Snapshot {
    /// The figures of all shards that have answered at least once.
    pub fn shard_figures(&self) -> impl Iterator<Item = &ShardFigures> {
        self.shards.iter().filter_map(|report| report.figures.as_deref())
    }

    /// Each thread and its state.
    pub fn states(&self) -> impl Iterator<Item = (ThreadId, ThreadState, Option<Duration>)> {
        let shards = self.shards.iter().enumerate();
        shards.map(|(shard, report)| (ThreadId::Shard(shard), report.state, report.answer_time)).chain([(
            ThreadId::Ingest,
            self.ingest.state,
            self.ingest.answer_time,
        )])
    }
}

/// Keeps questions and answers.
pub struct Observer {
    ticket: u64,
    shards: Vec<Observed<ShardFigures>>,
    ingest: Observed<IngestFigures>,
}

impl Observer {
    /// Of `shards` shards and the ingest thread, none of them asked yet.
    pub fn new(shards: usize) -> Self {
        Self { ticket: 0, shards: (0..shards).map(|_| Observed::default()).collect(), ingest: Observed::default() }
    }

    /// Begins a round: the ticket of its questions, and the threads to ask. Threads that owe an
    /// answer still are not asked again.
    pub fn begin_round(&mut self, now: Instant) -> (u64, Vec<ThreadId>) {
        self.ticket += 1;
        let ticket = self.ticket;
        let mut asked: Vec<_> = self
            .shards
            .iter_mut()
            .enumerate()
            .filter_map(|(shard, observed)| observed.ask(ticket, now).then_some(ThreadId::Shard(shard)))
            .collect();
        if self.ingest.ask(ticket, now) {
            asked.push(ThreadId::Ingest);
        }
        (ticket, asked)
    }

    /// A shard has answered.
    pub fn answer_shard(&mut self, shard: usize, ticket: u64, figures: Box<ShardFigures>, now: Instant) {
        self.shards[shard].answer(ticket, figures, now);
    }

    /// The ingest thread has answered.
    pub fn answer_ingest(&mut self, ticket: u64, figures: Box<IngestFigures>, now: Instant) {
        self.ingest.answer(ticket, figures, now);
    }

    /// A thread has ended. Whether that is news.
    pub fn stopped(&mut self, thread: ThreadId) -> bool {
        let stopped = match thread {
            ThreadId::Shard(shard) => &mut self.shards[shard].stopped,
            ThreadId::Ingest => &mut self.ingest.stopped,
        };
        !std::mem::replace(stopped, true)
    }

    /// The threads that have not ended.
    pub fn running(&self) -> impl Iterator<Item = ThreadId> {
        let shards = self.shards.iter().enumerate().filter(|(_, observed)| !observed.stopped);
        shards.map(|(shard, _)| ThreadId::Shard(shard)).chain((!self.ingest.stopped).then_some(ThreadId::Ingest))
    }

    /// When the last of the open questions is late; none if nothing more is to be waited for.
    pub fn round_ends_at(&self, now: Instant) -> Option<Instant> {
        let shards = self.shards.iter().filter_map(Observed::late_at);
        shards.chain(self.ingest.late_at()).filter(|late_at| *late_at > now).max()
    }

    /// What is known now.
    pub fn snapshot(&self, now: Instant, stopping: bool) -> Snapshot {
        Snapshot {
            at: now,
            stopping,
            shards: self.shards.iter().map(|observed| observed.report(now)).collect(),
            ingest: self.ingest.report(now),
            key_sets: None,
            reloads: ReloadFigures::default(),
            hooks: HookFigures::new(),
            traces: None,
            memory: MemoryFigures::default(),
            tls: PortFigures::default(),
        }
    }
}

struct Observed<F> {
    open_question: Option<(u64, Instant)>,
    answer_time: Option<Duration>,
    figures: Option<Arc<F>>,
    stopped: bool,
}

impl<F> Default for Observed<F> {
    fn default() -> Self {
        Self { open_question: None, answer_time: None, figures: None, stopped: false }
    }
}

impl<F> Observed<F> {
    fn ask(&mut self, ticket: u64, now: Instant) -> bool {
        if self.stopped || self.open_question.is_some() {
            return false;
        }
        self.open_question = Some((ticket, now));
        true
    }

    fn answer(&mut self, ticket: u64, figures: Box<F>, now: Instant) {
        if let Some((asked, asked_at)) = self.open_question
            && asked == ticket
        {
            self.open_question = None;
            self.answer_time = Some(now.saturating_duration_since(asked_at));
            self.figures = Some(Arc::from(figures));
        }
    }

    fn late_at(&self) -> Option<Instant> {
        let (_, asked_at) = self.open_question.filter(|_| !self.stopped)?;
        Some(asked_at + ANSWER_TIME_MAX)
    }

    fn report(&self, now: Instant) -> ThreadReport<F> {
        let late = self.late_at().is_some_and(|late_at| late_at <= now);
        let state = match (self.stopped, late) {
            (true, _) => ThreadState::Stopped,
            (false, true) => ThreadState::Stuck,
            (false, false) => ThreadState::Answering,
        };
        let open_for = self.open_question.map(|(_, asked_at)| now.saturating_duration_since(asked_at));
        let answer_time = if late { open_for } else { self.answer_time };
        ThreadReport { state, figures: self.figures.clone(), answer_time }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard_figures(connections: u64) -> Box<ShardFigures> {
        Box::new(ShardFigures { connections, ..ShardFigures::default() })
    }

    #[test]
    fn a_round_ends_when_all_have_answered() {
        let start = Instant::now();
        let mut observer = Observer::new(2);
        let (ticket, asked) = observer.begin_round(start);
        assert_eq!(asked, [ThreadId::Shard(0), ThreadId::Shard(1), ThreadId::Ingest]);
        assert_eq!(observer.round_ends_at(start), Some(start + ANSWER_TIME_MAX));
        let soon = start + Duration::from_millis(3);
        observer.answer_shard(0, ticket, shard_figures(5), soon);
        observer.answer_shard(1, ticket, shard_figures(7), soon);
        assert!(observer.round_ends_at(soon).is_some());
        observer.answer_ingest(ticket, Box::default(), soon);
        assert_eq!(observer.round_ends_at(soon), None);
        let snapshot = observer.snapshot(soon, false);
        assert_eq!(snapshot.shard_figures().map(|figures| figures.connections).sum::<u64>(), 12);
        assert_eq!(snapshot.shards[1].answer_time, Some(Duration::from_millis(3)));
        assert!(snapshot.states().all(|(_, state, _)| state == ThreadState::Answering));
    }

    #[test]
    fn a_stuck_thread_is_named_not_asked_again_and_not_waited_for_twice() {
        let start = Instant::now();
        let mut observer = Observer::new(2);
        let (ticket, _) = observer.begin_round(start);
        observer.answer_shard(0, ticket, shard_figures(1), start);
        observer.answer_ingest(ticket, Box::default(), start);
        let late = start + ANSWER_TIME_MAX;
        assert_eq!(observer.snapshot(late, false).shards[1].state, ThreadState::Stuck);
        assert_eq!(observer.snapshot(late, false).shards[0].state, ThreadState::Answering);

        let (next, asked) = observer.begin_round(late);
        assert_eq!(asked, [ThreadId::Shard(0), ThreadId::Ingest]);
        observer.answer_shard(0, next, shard_figures(1), late);
        observer.answer_ingest(next, Box::default(), late);
        assert_eq!(observer.round_ends_at(late), None, "the stuck shard is not waited for again");

        let recovered = late + Duration::from_secs(1);
        observer.answer_shard(1, ticket, shard_figures(9), recovered);
        let snapshot = observer.snapshot(recovered, false);
        assert_eq!(snapshot.shards[1].state, ThreadState::Answering);
        assert_eq!(snapshot.shards[1].answer_time, Some(Duration::from_secs(3)));
    }

    #[test]
    fn an_answer_to_no_question_changes_nothing() {
        let start = Instant::now();
        let mut observer = Observer::new(1);
        observer.answer_shard(0, 77, shard_figures(1), start);
        assert!(observer.snapshot(start, false).shards[0].figures.is_none());
    }

    #[test]
    fn an_ended_thread_is_neither_asked_nor_stuck() {
        let start = Instant::now();
        let mut observer = Observer::new(2);
        observer.begin_round(start);
        assert!(observer.stopped(ThreadId::Shard(1)));
        assert!(!observer.stopped(ThreadId::Shard(1)), "the second time is no news");
        let late = start + ANSWER_TIME_MAX;
        assert_eq!(observer.snapshot(late, true).shards[1].state, ThreadState::Stopped);
        assert_eq!(observer.running().collect::<Vec<_>>(), [ThreadId::Shard(0), ThreadId::Ingest]);
    }
}
