//! Questions of one kind to the application's back end: which go out now, which wait, which wait in vain.
//!
//! Owns the bounds and the counts; pure, as time and outcomes are handed in. HTTP is `hooks`' part.
//!
//! Invariants:
//! - A question's time runs from the moment when it was asked, waiting included; a back end that hangs answers nobody,
//!   but delays nobody either. So there is no need for a state of its own in which a back end counts as down.
//! - A lane never holds more than its bounds: questions under way keep sockets, those that wait keep memory.
//! - Kinds of questions share nothing: slow rpc methods do not keep clients from connecting.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How a question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The back end answered by a result.
    Result,
    /// ... by an error for the client.
    Error,
    /// ... by the wish that the client be disconnected.
    Disconnect,
    /// It did not answer in time.
    TimedOut,
    /// It could not be reached, or hung up.
    Unreachable,
    /// It answered another status than 200.
    Status,
    /// It answered what is no answer.
    Invalid,
    /// It was not asked: too many wait already.
    Overloaded,
}

impl Outcome {
    /// All of them: `ALL[outcome as usize] == outcome`.
    pub const ALL: [Self; 8] = [
        Self::Result,
        Self::Error,
        Self::Disconnect,
        Self::TimedOut,
        Self::Unreachable,
        Self::Status,
        Self::Invalid,
        Self::Overloaded,
    ];

    /// Its label in the metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::Error => "error",
            Self::Disconnect => "disconnect",
            Self::TimedOut => "timeout",
            Self::Unreachable => "unreachable",
            Self::Status => "status",
            Self::Invalid => "invalid",
            Self::Overloaded => "overloaded",
        }
    }

    /// Whether the back end, or the way to it, is at fault.
    pub const fn is_failure(self) -> bool {
        !matches!(self, Self::Result | Self::Error | Self::Disconnect)
    }
}

/// What is counted of one kind of question.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneFigures {
    /// Questions by how they ended, in the order of [`Outcome::ALL`].
    pub ended: [u64; Outcome::ALL.len()],
    /// Time from the sending to the end, of all that were sent.
    pub time: Duration,
    /// How many were sent and have ended.
    pub sent: u64,
    /// Questions under way now.
    pub under_way: usize,
    /// Questions that wait for their turn now.
    pub waiting: usize,
}

/// Questions of one kind.
pub struct Lane<Q> {
    requests_max: usize,
    queue_max: usize,
    /// None: who waits in the queue waits as long as it takes.
    time_max: Option<Duration>,
    under_way: usize,
    /// With the moments when they were asked, which is their order.
    waiting: VecDeque<(Q, Instant)>,
    figures: LaneFigures,
    log: FailureLog,
}

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn<Q> {
    /// It is to be sent now.
    Send(Q),
    /// It waits.
    Waits,
    /// There is no room for it.
    Overloaded(Q),
}

impl<Q> Lane<Q> {
    /// A lane of these bounds. Questions that nobody waits for have no time that could run out while they wait.
    pub fn new(requests_max: usize, queue_max: usize, time_max: Option<Duration>) -> Self {
        Self {
            requests_max,
            queue_max,
            time_max,
            under_way: 0,
            waiting: VecDeque::new(),
            figures: LaneFigures::default(),
            log: FailureLog::default(),
        }
    }

    /// A question is asked.
    pub fn ask(&mut self, question: Q, now: Instant) -> Turn<Q> {
        if self.under_way < self.requests_max {
            self.under_way += 1;
            Turn::Send(question)
        } else if self.waiting.len() < self.queue_max {
            self.waiting.push_back((question, now));
            Turn::Waits
        } else {
            Turn::Overloaded(question)
        }
    }

    /// A question that was sent has ended: the next to be sent, with the moment when it was asked.
    pub fn ended(&mut self, took: Duration) -> Option<(Q, Instant)> {
        self.figures.sent += 1;
        self.figures.time += took;
        self.under_way -= 1;
        self.take_next()
    }

    /// The next to be sent of those that wait, if it may be, with the moment when it was asked.
    pub fn take_next(&mut self) -> Option<(Q, Instant)> {
        if self.under_way >= self.requests_max {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.under_way += 1;
        Some(next)
    }

    /// From now on these bounds hold; what is beyond them already stays. [`Lane::take_next`] may have some.
    pub fn set_bounds(&mut self, requests_max: usize, queue_max: usize, time_max: Option<Duration>) {
        (self.requests_max, self.queue_max, self.time_max) = (requests_max, queue_max, time_max);
    }

    /// A question whose time has run out while it waited.
    pub fn take_late(&mut self, now: Instant) -> Option<Q> {
        if self.next_late_at()? > now {
            return None;
        }
        self.waiting.pop_front().map(|(question, _)| question)
    }

    /// When the first of those that wait is late.
    pub fn next_late_at(&self) -> Option<Instant> {
        let (_, asked_at) = self.waiting.front()?;
        self.time_max.map(|time_max| *asked_at + time_max)
    }

    /// Counts how a question ended. Some: it is time to log that so many have failed since it was logged last.
    pub fn count(&mut self, outcome: Outcome, now: Instant) -> Option<u64> {
        self.figures.ended[outcome as usize] += 1;
        outcome.is_failure().then(|| self.log.failed(now)).flatten()
    }

    /// For the metrics.
    pub fn figures(&self) -> LaneFigures {
        LaneFigures { under_way: self.under_way, waiting: self.waiting.len(), ..self.figures }
    }
}

/// Failures that were not logged, so that a back end that is down does not fill a disk.
#[derive(Default)]
struct FailureLog {
    logged_at: Option<Instant>,
    unlogged: u64,
}

impl FailureLog {
    fn failed(&mut self, now: Instant) -> Option<u64> {
        self.unlogged += 1;
        if self.logged_at.is_some_and(|at| now < at + LOG_INTERVAL) {
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }
}

/// Between two lines of the log on failures of one kind of question.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn so_many_are_under_way_so_many_wait_and_the_rest_is_refused() {
        let now = Instant::now();
        let mut lane = Lane::new(2, 2, Some(SECOND));
        assert_eq!((lane.ask(1, now), lane.ask(2, now)), (Turn::Send(1), Turn::Send(2)));
        assert_eq!((lane.ask(3, now), lane.ask(4, now)), (Turn::Waits, Turn::Waits));
        assert_eq!(lane.ask(5, now), Turn::Overloaded(5));
        assert_eq!((lane.figures().under_way, lane.figures().waiting), (2, 2));
        assert_eq!(lane.ended(SECOND), Some((3, now)));
        assert_eq!(lane.ended(SECOND), Some((4, now)));
        assert_eq!((lane.ended(SECOND), lane.ended(SECOND)), (None, None));
        let figures = lane.figures();
        assert_eq!((figures.under_way, figures.sent, figures.time), (0, 4, 4 * SECOND));
        assert_eq!(lane.ask(6, now), Turn::Send(6));
    }

    #[test]
    fn other_bounds_hold_from_now_on() {
        let now = Instant::now();
        let mut lane = Lane::new(2, 2, Some(SECOND));
        assert!((1..=4).all(|question| !matches!(lane.ask(question, now), Turn::Overloaded(_))));
        lane.set_bounds(1, 0, Some(SECOND));
        assert_eq!((lane.ask(5, now), lane.ended(SECOND)), (Turn::Overloaded(5), None));
        assert_eq!(lane.ended(SECOND), Some((3, now)));
        lane.set_bounds(3, 0, Some(2 * SECOND));
        assert_eq!((lane.take_next(), lane.take_next()), (Some((4, now)), None));
        assert_eq!(lane.ask(6, now), Turn::Send(6));
    }

    #[test]
    fn time_runs_while_a_question_waits_unless_nobody_waits_for_its_answer() {
        let start = Instant::now();
        let mut lane = Lane::new(1, 9, Some(SECOND));
        let mut patient = Lane::new(1, 9, None);
        for number in 0..3 {
            let now = start + number * SECOND / 4;
            let _ = (lane.ask(number, now), patient.ask(number, now));
        }
        assert_eq!(lane.next_late_at(), Some(start + SECOND + SECOND / 4));
        assert_eq!(lane.take_late(start + SECOND), None);
        assert_eq!(lane.take_late(start + 2 * SECOND), Some(1));
        assert_eq!(lane.take_late(start + 2 * SECOND), Some(2));
        assert_eq!(lane.take_late(start + 2 * SECOND), None);
        assert_eq!((patient.next_late_at(), patient.take_late(start + 9 * SECOND)), (None, None));
        assert_eq!(patient.ended(SECOND).map(|(question, _)| question), Some(1));
    }

    #[test]
    fn failures_are_counted_each_and_logged_seldom() {
        let start = Instant::now();
        let mut lane: Lane<()> = Lane::new(1, 1, None);
        assert_eq!(lane.count(Outcome::Result, start), None);
        assert_eq!(lane.count(Outcome::TimedOut, start), Some(1));
        assert_eq!(lane.count(Outcome::TimedOut, start + SECOND), None);
        assert_eq!(lane.count(Outcome::Invalid, start + 2 * SECOND), None);
        assert_eq!(lane.count(Outcome::Error, start + LOG_INTERVAL), None);
        assert_eq!(lane.count(Outcome::Status, start + LOG_INTERVAL), Some(3));
        let ended = lane.figures().ended;
        assert_eq!(ended, [1, 1, 0, 2, 0, 1, 1, 0]);
        assert!(Outcome::ALL.iter().enumerate().all(|(index, outcome)| *outcome as usize == index));
    }
}
