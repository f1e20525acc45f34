//! Questions to shards on behalf of requests, and their answers as they come in.
//!
//! Owns which answers are missing, and how long they are waited for. What is asked and what the answers mean is the
//! asker's business.
//!
//! Invariants:
//! - Each inquiry ends once: with all its answers, or as late. An answer that comes afterwards is recognised by its
//!   ticket, which is never used again, and goes nowhere.
//! - Time is handed in, so that a test decides what is late.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use tokio::sync::oneshot;

use super::observer::ANSWER_TIME_MAX;
use crate::mesh::{Answer, ToShard};

/// Questions that belong together.
pub struct Inquiry {
    /// As the questions' reply addresses name it.
    pub ticket: u64,
    /// What is asked, and by index of which shard. Part `n` of the answers is that to question `n`.
    pub questions: Vec<(usize, ToShard)>,
    /// Told all answers, in the order of the questions.
    pub asker: oneshot::Sender<Result<Vec<Answer>, NoAnswer>>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// A shard has not answered in time. What was asked of it may have been done, or may be yet.
    #[error("a shard has not answered in time")]
    Late,
    /// There was no room for the questions within the time: nothing was asked.
    #[error("too many questions wait for shards")]
    NoRoom,
    /// The server stops: nothing was asked.
    #[error("the server stops")]
    Stopping,
}

/// Inquiries under way.
#[derive(Default)]
pub struct Inquiries {
    under_way: HashMap<u64, UnderWay>,
    /// When each is late, in the order in which they began.
    late_at: VecDeque<(Instant, u64)>,
}

struct UnderWay {
    answers: Vec<Option<Answer>>,
    missing: usize,
    asker: oneshot::Sender<Result<Vec<Answer>, NoAnswer>>,
}

impl Inquiries {
    /// Begins one: what is to be sent to shards now.
    pub fn begin(&mut self, inquiry: Inquiry, now: Instant) -> Vec<(usize, ToShard)> {
        let Inquiry { ticket, questions, asker } = inquiry;
        assert!(!questions.is_empty(), "whoever asks nothing would wait for no answer");
        let answers = questions.iter().map(|_| None).collect();
        let before = self.under_way.insert(ticket, UnderWay { answers, missing: questions.len(), asker });
        assert!(before.is_none(), "a ticket is used once");
        self.late_at.push_back((now + ANSWER_TIME_MAX, ticket));
        questions
    }

    /// A shard has answered.
    pub fn answer(&mut self, ticket: u64, part: u32, answer: Answer) {
        let Some(inquiry) = self.under_way.get_mut(&ticket) else { return };
        let place = &mut inquiry.answers[part as usize];
        assert!(place.is_none(), "a question is answered once");
        *place = Some(answer);
        inquiry.missing -= 1;
        if inquiry.missing == 0
            && let Some(UnderWay { answers, asker, .. }) = self.under_way.remove(&ticket)
        {
            // An asker that has gone away, with its client, wants no answer.
            let _ = asker.send(Ok(answers.into_iter().flatten().collect()));
        }
    }

    /// Ends what is late. When to look again.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        while let Some((late_at, ticket)) = self.late_at.front() {
            match self.under_way.remove(ticket) {
                // Answered long ago.
                None => {}
                Some(inquiry) if *late_at <= now => _ = inquiry.asker.send(Err(NoAnswer::Late)),
                Some(inquiry) => {
                    self.under_way.insert(*ticket, inquiry);
                    return Some(*late_at);
                }
            }
            self.late_at.pop_front();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    type Asker = oneshot::Receiver<Result<Vec<Answer>, NoAnswer>>;

    fn begin(inquiries: &mut Inquiries, ticket: u64, questions: usize, now: Instant) -> Asker {
        let (asker, answer) = oneshot::channel();
        let questions: Vec<_> =
            (0..questions).map(|shard| (shard, ToShard::Observe { ticket, is_watched: false })).collect();
        assert_eq!(inquiries.begin(Inquiry { ticket, questions, asker }, now).len(), 2);
        answer
    }

    #[test]
    fn answers_come_in_any_order_and_are_told_in_that_of_the_questions() {
        let (mut inquiries, now) = (Inquiries::default(), Instant::now());
        let mut asker = begin(&mut inquiries, 7, 2, now);
        inquiries.answer(7, 1, Answer::Connections(1));
        assert!(asker.try_recv().is_err());
        assert_eq!(inquiries.expire(now), Some(now + ANSWER_TIME_MAX));
        inquiries.answer(7, 0, Answer::Connections(0));
        let answers = asker.try_recv().unwrap().unwrap();
        assert!(matches!(answers[..], [Answer::Connections(0), Answer::Connections(1)]));
        assert_eq!(inquiries.expire(now), None);
    }

    #[test]
    fn what_is_late_ends_and_its_answers_go_nowhere() {
        let (mut inquiries, now) = (Inquiries::default(), Instant::now());
        let mut first = begin(&mut inquiries, 1, 2, now);
        let later = now + Duration::from_secs(1);
        let mut second = begin(&mut inquiries, 2, 2, later);
        inquiries.answer(1, 0, Answer::Done);
        assert_eq!(inquiries.expire(now + ANSWER_TIME_MAX), Some(later + ANSWER_TIME_MAX));
        assert!(matches!(first.try_recv(), Ok(Err(NoAnswer::Late))));
        inquiries.answer(1, 1, Answer::Done);
        inquiries.answer(2, 0, Answer::Done);
        inquiries.answer(2, 1, Answer::Done);
        assert!(second.try_recv().unwrap().is_ok());
        assert_eq!(inquiries.expire(now + ANSWER_TIME_MAX), None);
    }

    #[test]
    fn an_asker_that_has_gone_is_no_trouble() {
        let (mut inquiries, now) = (Inquiries::default(), Instant::now());
        drop(begin(&mut inquiries, 1, 2, now));
        drop(begin(&mut inquiries, 2, 2, now));
        inquiries.answer(1, 0, Answer::Done);
        inquiries.answer(1, 1, Answer::Done);
        assert_eq!(inquiries.expire(now + ANSWER_TIME_MAX), None);
    }
}
