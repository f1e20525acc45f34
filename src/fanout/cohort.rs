//! Subscribers whose inflaters hold the same window.
//!
//! Owns, for each topic whose messages are compressed with a shared window, that window, how many subscribers have it, and
//! when all are let in: at a keyframe, the first message of an empty window. Who has it is marked in each
//! [`Subscription`](super::Subscription) and in the connection; the shard keeps these marks and this count together.
//!
//! Invariants, by which every client can read what it is sent:
//! - A member has been sent every message that was compressed with the window since the keyframe, in order.
//! - Since the keyframe it has been sent no other compressed message: these would be in its inflater's window, and not in
//!   ours. So a connection is in one cohort at most, and is sent everything else uncompressed, or leaves.
//! - Who is on its way to miss a message leaves before: whoever is slow where publications may be dropped.
//!
//! What lay in a client's window before the keyframe does not matter, as no message refers to what is before it.

use std::collections::BTreeMap;

use super::deflated::Context;
use crate::limits::COHORT_BYTES_MAX;

/// What a keyframe costs each member, in messages that are no longer for their not being compressed with a window: the
/// first is as long as if it stood alone, the next ones find little to refer to.
const KEYFRAME_COST_MESSAGES: u64 = 2;

/// Why a window begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyframe {
    /// There was none.
    First,
    /// Subscribers outside have cost as much as letting them in does.
    Waiting,
    /// Some have waited for as long as they may.
    Overdue,
}

impl Keyframe {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::First, Self::Waiting, Self::Overdue];

    /// What metrics call it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Waiting => "waiting",
            Self::Overdue => "overdue",
        }
    }
}

/// The members of one topic.
#[derive(Debug)]
pub struct Cohort {
    /// What their windows hold.
    pub context: Context,
    members: u32,
    /// Subscribers that the next keyframe would let in, as of the last message.
    waiting: u32,
    /// Messages that such subscribers were sent since the keyframe.
    debt: u64,
    keyframe_ms: u64,
    used_ms: u64,
}

/// The cohorts of a shard, by topic.
#[derive(Debug, Default)]
pub struct Cohorts {
    by_topic: BTreeMap<u32, Cohort>,
    members: u64,
    waiting: u64,
    context_bytes: usize,
}

impl Cohorts {
    /// A topic's cohort.
    pub fn get(&self, topic: u32) -> Option<&Cohort> {
        self.by_topic.get(&topic)
    }

    /// Whether the topic's next messages are to begin with a keyframe, and why.
    pub fn keyframe_due(&self, topic: u32, now_ms: u64, keyframe_ms_max: u64) -> Option<Keyframe> {
        let Some(cohort) = self.by_topic.get(&topic) else {
            return (self.bytes() < COHORT_BYTES_MAX).then_some(Keyframe::First);
        };
        if cohort.debt >= KEYFRAME_COST_MESSAGES * u64::from(cohort.members) {
            Some(Keyframe::Waiting)
        } else if cohort.waiting > 0 && now_ms.saturating_sub(cohort.keyframe_ms) >= keyframe_ms_max {
            Some(Keyframe::Overdue)
        } else {
            None
        }
    }

    /// A topic's window begins anew, and so many subscribers have it.
    pub fn begin(&mut self, topic: u32, context: Context, members: u32, now_ms: u64) {
        assert!(members > 0, "a window that nobody has serves nobody");
        self.end(topic);
        self.members += u64::from(members);
        let cohort = Cohort { context, members, waiting: 0, debt: 0, keyframe_ms: now_ms, used_ms: now_ms };
        self.by_topic.insert(topic, cohort);
    }

    /// The window of a topic that has one; `use_context` compresses with it and says how many messages that were.
    pub fn compress_with<T>(&mut self, topic: u32, now_ms: u64, use_context: impl FnOnce(&mut Context) -> T) -> T {
        let cohort =
            self.by_topic.get_mut(&topic).expect("a topic whose messages are compressed with a window has one");
        cohort.used_ms = now_ms;
        self.context_bytes -= cohort.context.bytes_held();
        let result = use_context(&mut cohort.context);
        self.context_bytes += cohort.context.bytes_held();
        result
    }

    /// So many messages were sent, and so many subscribers that a keyframe would let in got them without a window.
    pub fn count_waiting(&mut self, topic: u32, waiting: u32, messages: u64) {
        if let Some(cohort) = self.by_topic.get_mut(&topic) {
            self.waiting = self.waiting + u64::from(waiting) - u64::from(cohort.waiting);
            cohort.waiting = waiting;
            cohort.debt += u64::from(waiting) * messages;
        }
    }

    /// A member has left. With the last of them the window goes.
    pub fn leave(&mut self, topic: u32) {
        let cohort = self.by_topic.get_mut(&topic).expect("a member has a cohort");
        cohort.members -= 1;
        self.members -= 1;
        if cohort.members == 0 {
            self.end(topic);
        }
    }

    /// The cohort goes; nobody is marked to be in it any more.
    pub fn end(&mut self, topic: u32) {
        if let Some(cohort) = self.by_topic.remove(&topic) {
            self.members -= u64::from(cohort.members);
            self.waiting -= u64::from(cohort.waiting);
            self.context_bytes -= cohort.context.bytes_held();
        }
    }

    /// Members of all cohorts.
    pub fn members(&self) -> u64 {
        self.members
    }

    /// Subscribers that wait to become members.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Bytes that cohorts and their windows take.
    pub fn bytes(&self) -> usize {
        self.by_topic.len() * size_of::<(u32, Cohort)>() + self.context_bytes
    }
}

impl Cohort {
    /// Subscribers that have the window.
    pub fn members(&self) -> u32 {
        self.members
    }

    /// When a message was compressed with it last.
    pub fn used_ms(&self) -> u64 {
        self.used_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::deflate::Window;

    const TOPIC: u32 = 7;
    const KEYFRAME_MS_MAX: u64 = 30_000;

    fn cohorts(members: u32) -> Cohorts {
        let mut cohorts = Cohorts::default();
        assert_eq!(cohorts.keyframe_due(TOPIC, 0, KEYFRAME_MS_MAX), Some(Keyframe::First));
        cohorts.begin(TOPIC, Context::new(Window::KiB4, 4096), members, 1000);
        assert_eq!(cohorts.keyframe_due(TOPIC, u64::MAX, KEYFRAME_MS_MAX), None, "nobody waits for it");
        cohorts
    }

    #[test]
    fn all_are_let_in_when_those_outside_have_cost_as_much() {
        let mut cohorts = cohorts(100);
        cohorts.count_waiting(TOPIC, 10, 19);
        assert_eq!(cohorts.keyframe_due(TOPIC, 1000, KEYFRAME_MS_MAX), None);
        cohorts.count_waiting(TOPIC, 10, 1);
        assert_eq!(cohorts.keyframe_due(TOPIC, 1000, KEYFRAME_MS_MAX), Some(Keyframe::Waiting));
        cohorts.begin(TOPIC, Context::new(Window::KiB4, 4096), 110, 1000);
        assert_eq!((cohorts.members(), cohorts.waiting()), (110, 0));
        assert_eq!(cohorts.keyframe_due(TOPIC, 1000, KEYFRAME_MS_MAX), None);
    }

    #[test]
    fn nobody_waits_for_longer_than_the_interval() {
        let mut cohorts = cohorts(1_000_000);
        cohorts.count_waiting(TOPIC, 1, 1);
        assert_eq!(cohorts.keyframe_due(TOPIC, 1000 + KEYFRAME_MS_MAX - 1, KEYFRAME_MS_MAX), None);
        assert_eq!(cohorts.keyframe_due(TOPIC, 1000 + KEYFRAME_MS_MAX, KEYFRAME_MS_MAX), Some(Keyframe::Overdue));
        cohorts.count_waiting(TOPIC, 0, 1);
        assert_eq!(cohorts.keyframe_due(TOPIC, 1000 + KEYFRAME_MS_MAX, KEYFRAME_MS_MAX), None, "it has left");
    }

    #[test]
    fn a_window_goes_with_its_last_member() {
        let mut cohorts = cohorts(2);
        cohorts.count_waiting(TOPIC, 3, 0);
        assert_eq!((cohorts.members(), cohorts.waiting()), (2, 3));
        cohorts.leave(TOPIC);
        cohorts.leave(TOPIC);
        assert!(cohorts.get(TOPIC).is_none());
        assert_eq!((cohorts.members(), cohorts.waiting(), cohorts.bytes()), (0, 0, 0));
        cohorts.count_waiting(TOPIC, 3, 1);
        cohorts.end(TOPIC);
        assert_eq!(cohorts.waiting(), 0);
    }
}
