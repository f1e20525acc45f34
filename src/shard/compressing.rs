//! Publications for clients that agreed on compression (RFC 7692).
//!
//! Owns the marks that say which connection is in which cohort, and which of a batch's versions each subscriber is given:
//! the one that refers to the cohort's window, the one whose messages stand alone, or the plain one. When a window begins
//! anew is [`Cohorts`]' business, what it holds that of `fanout::deflated`.
//!
//! Invariant: a connection with [`Flag::InCohort`] has exactly one subscription whose topic has a cohort and that has its
//! base, and is given nothing compressed but that topic's version with the window. Every other version would enter its
//! inflater's window and make what follows unreadable.

use std::{collections::BTreeMap, time::Instant};

use super::{
    connection::{Connection, Flag},
    state::State,
    writing::{Closed, Giving},
};
use crate::{
    config::{CompressionConfig, CompressionMode},
    fanout::{
        Batch, Cohorts, Context, Keyframe, Shrinkage, Subscription, deflate_alone, deflate_in_context, has_long_message,
    },
    mesh::CompressionFigures,
    websocket::deflate::{Deflater, Deflation, Window},
};

/// What a shard needs to compress, and what it has brought.
#[derive(Default)]
pub struct Compression {
    pub deflater: Deflater,
    pub cohorts: Cohorts,
    /// By namespace.
    figures: BTreeMap<String, CompressionFigures>,
    /// Of the batch that is being handed out.
    batch: CompressionFigures,
    keyframes: [u64; Keyframe::ALL.len()],
}

/// How a topic's messages are compressed.
#[derive(Clone, Copy)]
pub struct Terms {
    window: Window,
    message_bytes_min: usize,
}

/// A batch, and the same with its messages compressed one by one once somebody needs it.
pub struct Versions {
    pub plain: Closed,
    /// None: not made yet. None within: it would not be shorter.
    alone: Option<Option<Closed>>,
}

impl Compression {
    /// Keyframes by what caused them.
    pub fn keyframes(&self) -> Vec<(&'static str, u64)> {
        Keyframe::ALL.iter().map(|cause| (cause.label(), self.keyframes[*cause as usize])).collect()
    }

    /// What compression has brought, by namespace.
    pub fn figures(&self) -> Vec<(String, CompressionFigures)> {
        self.figures.iter().map(|(name, figures)| (name.clone(), *figures)).collect()
    }
}

impl Versions {
    pub fn new(plain: Closed) -> Self {
        Self { plain, alone: None }
    }
}

impl State {
    /// How messages of a topic are compressed that stand alone; none: they are not.
    pub fn compression_terms(&self, topic: u32) -> Option<Terms> {
        let deflation = self.topics.form(topic).deflation()?;
        let config = self.compression_of(topic);
        let message_bytes_min = config.message_bytes_min as usize;
        (config.mode != CompressionMode::Off).then_some(Terms { window: deflation.window, message_bytes_min })
    }

    fn compression_of(&self, topic: u32) -> CompressionConfig {
        let namespace = self.config.namespaces.of_channel(self.topics.name(topic));
        namespace.map(|namespace| namespace.compression).unwrap_or_default()
    }

    /// Hands a batch of publications to subscribers that have agreed on compression.
    pub fn hand_out_deflated(&mut self, topic: u32, open: u32, deflation: Deflation) {
        let config = self.compression_of(topic);
        let is_shared = config.mode == CompressionMode::Shared && deflation.keeps_context;
        if !is_shared {
            self.disband(topic);
        }
        let message_bytes_min = config.message_bytes_min as usize;
        if config.mode == CompressionMode::Off || !has_long_message(self.turn.open_batch_mut(open), message_bytes_min) {
            let (mut giving, topics) = self.giving();
            return giving.give_batch(open, topics.subscribers(topic));
        }
        if is_shared {
            self.begin_keyframe_if_due(topic, deflation.window, config);
        }
        let now_ms = self.now_ms;
        let (mut giving, topics) = self.giving();
        let terms = Terms { window: deflation.window, message_bytes_min };
        giving.give_deflated(topic, open, terms, topics.subscribers(topic), now_ms);
        self.count_compression(topic);
    }

    /// Adds what the last batches' compression has brought to the figures of their namespace.
    pub fn count_compression(&mut self, topic: u32) {
        let batch = std::mem::take(&mut self.compression.batch);
        let Some(namespace) = self.config.namespaces.of_channel(self.topics.name(topic)) else { return };
        match self.compression.figures.get_mut(&namespace.name) {
            Some(figures) => figures.add(&batch),
            None => {
                self.compression.figures.insert(namespace.name.clone(), batch);
            }
        }
    }

    /// Lets all subscribers of a topic in that may, if it is time: the next message refers to none before it.
    fn begin_keyframe_if_due(&mut self, topic: u32, window: Window, config: CompressionConfig) {
        let keyframe_ms_max = config.keyframe_ms_max.into();
        let Some(cause) = self.compression.cohorts.keyframe_due(topic, self.now_ms, keyframe_ms_max) else { return };
        let mut members = 0;
        for place in 0..self.topics.subscribers(topic).len() {
            let index = self.topics.subscribers(topic)[place];
            members += u32::from(self.enter_cohort(index, topic, keyframe_ms_max));
        }
        if members == 0 {
            self.compression.cohorts.end(topic);
            return;
        }
        let context = Context::new(window, config.window_bytes as usize);
        self.compression.cohorts.begin(topic, context, members, self.now_ms);
        self.compression.keyframes[cause as usize] += 1;
    }

    /// Marks a subscriber as a member of the cohort that begins, if it may be one: whether it is.
    fn enter_cohort(&mut self, index: u32, topic: u32, idle_ms_max: u64) -> bool {
        let drops = self.topics.policy(topic).drops();
        let connection = self.connection(index);
        let is_leaving = connection.has(Flag::Left) || drops && connection.has(Flag::Backlogged);
        let subscription = connection.subscriptions.find(&self.further, topic).expect("a topic lists its members");
        let is_free = subscription.has_base() || !connection.has(Flag::InCohort) || self.leave_idle(index, idle_ms_max);
        let enters = is_free && !is_leaving;
        let connection = &mut self.connections[index as usize];
        if enters {
            connection.set(Flag::InCohort);
        } else if subscription.has_base() {
            connection.clear(Flag::InCohort);
        }
        connection.subscriptions.replace(&mut self.further, subscription.with_base(enters));
        enters
    }

    /// Takes a connection out of its cohort if nothing was compressed there for so long: whether it did.
    fn leave_idle(&mut self, index: u32, idle_ms_max: u64) -> bool {
        let cohorts = &self.compression.cohorts;
        let is_idle = |subscription: &Subscription| {
            let cohort = cohorts.get(subscription.topic).filter(|_| subscription.has_base());
            cohort.is_some_and(|cohort| self.now_ms.saturating_sub(cohort.used_ms()) >= idle_ms_max)
        };
        let idle = self.connection(index).subscriptions.iter(&self.further).find(is_idle);
        idle.inspect(|subscription| self.leave_cohort(index, subscription.topic)).is_some()
    }

    /// Takes a connection out of a topic's cohort, if it is in it: it is sent nothing that refers to the window any more.
    pub fn leave_cohort(&mut self, index: u32, topic: u32) {
        self.giving().0.leave_cohort(index, topic);
    }

    /// A subscription is over.
    pub fn has_left_cohort(&mut self, index: u32, before: Subscription) {
        self.giving().0.has_left_cohort(index, before);
    }

    /// Ends a topic's cohort, if there is one.
    fn disband(&mut self, topic: u32) {
        if self.compression.cohorts.get(topic).is_some() {
            for index in self.topics.subscribers(topic).to_vec() {
                self.leave_cohort(index, topic);
            }
        }
    }
}

impl Giving<'_> {
    /// Closes a batch and gives each subscriber the version that it can read and that is shortest.
    fn give_deflated(&mut self, topic: u32, open: u32, terms: Terms, connections: &[u32], now_ms: u64) {
        let mut versions = Versions::new(self.close(open));
        let shared = self.compress_in_context(topic, &versions.plain, terms, now_ms);
        let drops = versions.plain.shared.policy.drops();
        let messages = versions.plain.shared.ends.len() as u64;
        let all = connections.len() as u64;
        let members = self.compression.cohorts.get(topic).map_or(0, |cohort| cohort.members());
        if let Some(shared) = shared.as_ref().filter(|_| u64::from(members) == all && !drops) {
            connections.iter().for_each(|index| self.give(*index, shared));
            self.count_delivered(&versions.plain, shared, all);
        } else {
            let mut waiting = 0;
            for index in connections {
                if self.is_member(*index, topic, drops) {
                    self.give_counted(*index, &versions.plain, shared.as_ref());
                } else {
                    let connection = &self.connections[*index as usize];
                    waiting += u32::from(!connection.has(Flag::InCohort) && !may_lose(connection, drops));
                    self.give_alone(*index, &mut versions, terms);
                }
            }
            self.compression.cohorts.count_waiting(topic, waiting, messages);
        }
        self.count_messages(&versions.plain, connections);
    }

    /// Whether a subscriber has the window of the topic's cohort. Where it may miss what it is given, it leaves.
    fn is_member(&mut self, index: u32, topic: u32, drops: bool) -> bool {
        let connection = &self.connections[index as usize];
        if !connection.has(Flag::InCohort) || self.compression.cohorts.get(topic).is_none() {
            return false;
        }
        if may_lose(connection, drops) {
            self.leave_cohort(index, topic);
            return false;
        }
        connection.subscriptions.find(self.further, topic).expect("a topic lists its members").has_base()
    }

    /// Takes a connection out of a topic's cohort, if it is in it.
    fn leave_cohort(&mut self, index: u32, topic: u32) {
        let subscriptions = &mut self.connections[index as usize].subscriptions;
        let subscription = subscriptions.find(self.further, topic);
        if let Some(subscription) = subscription.filter(|subscription| subscription.has_base()) {
            subscriptions.replace(self.further, subscription.with_base(false));
            self.has_left_cohort(index, subscription);
        }
    }

    /// A subscription is over, or has lost its base.
    fn has_left_cohort(&mut self, index: u32, before: Subscription) {
        if before.has_base() && self.compression.cohorts.get(before.topic).is_some() {
            self.compression.cohorts.leave(before.topic);
            self.connections[index as usize].clear(Flag::InCohort);
        }
    }

    /// Gives a subscriber messages that are compressed one by one, or the plain ones if it is in a cohort.
    pub fn give_alone(&mut self, index: u32, versions: &mut Versions, terms: Terms) {
        if self.connections[index as usize].has(Flag::InCohort) {
            return self.give_counted(index, &versions.plain, None);
        }
        if versions.alone.is_none() {
            let Terms { window, message_bytes_min } = terms;
            let deflate = |plain: &Batch, out: &mut Batch, compression: &mut Compression| {
                deflate_alone(plain, out, &mut compression.deflater, window, message_bytes_min)
            };
            versions.alone = Some(self.deflated(&versions.plain, false, deflate));
        }
        self.give_counted(index, &versions.plain, versions.alone.as_ref().and_then(Option::as_ref));
    }

    /// Gives a version of a batch, or the plain one where there is none.
    fn give_counted(&mut self, index: u32, plain: &Closed, version: Option<&Closed>) {
        let version = version.unwrap_or(plain);
        self.give(index, version);
        self.count_delivered(plain, version, 1);
    }

    fn count_delivered(&mut self, plain: &Closed, version: &Closed, connections: u64) {
        let figures = &mut self.compression.batch;
        figures.delivered_bytes_before += u64::from(plain.end) * connections;
        figures.delivered_bytes_after += u64::from(version.end) * connections;
    }

    /// The version that refers to the window of the topic's cohort, if there is one.
    fn compress_in_context(&mut self, topic: u32, plain: &Closed, terms: Terms, now_ms: u64) -> Option<Closed> {
        self.compression.cohorts.get(topic)?;
        self.deflated(plain, true, |plain, out, compression| {
            let Compression { deflater, cohorts, .. } = compression;
            cohorts.compress_with(topic, now_ms, |context| {
                deflate_in_context(plain, out, deflater, context, terms.message_bytes_min)
            })
        })
    }

    /// Another version of a batch; none: nothing in it became shorter.
    fn deflated(
        &mut self,
        plain: &Closed,
        is_chain: bool,
        deflate: impl FnOnce(&Batch, &mut Batch, &mut Compression) -> Shrinkage,
    ) -> Option<Closed> {
        let began = Instant::now();
        let open = self.turn.open_batch(plain.shared.topic, plain.shared.policy);
        let out = self.turn.open_batch_mut(open);
        let shrinkage = deflate(&plain.shared, out, self.compression);
        out.is_chain = is_chain || plain.shared.is_chain;
        let closed = self.close(open);
        let figures = &mut self.compression.batch;
        figures.messages += shrinkage.messages;
        figures.messages_kept += shrinkage.kept;
        figures.bytes_before += shrinkage.bytes_before;
        figures.bytes_after += shrinkage.bytes_after;
        figures.nanoseconds += began.elapsed().as_nanos() as u64;
        (shrinkage.messages > 0).then_some(closed)
    }
}

/// Whether what a connection is given may be dropped before it is sent.
fn may_lose(connection: &Connection, drops: bool) -> bool {
    drops && connection.has(Flag::Backlogged)
}

#[cfg(test)]
impl State {
    /// Holds the marks of connections against the cohorts' counts.
    pub fn assert_cohorts_are_as_marked(&self) {
        let mut marked = 0;
        for (index, connection) in self.connections.iter() {
            let in_cohort = connection.subscriptions.iter(&self.further).filter(|subscription| {
                subscription.has_base() && self.compression.cohorts.get(subscription.topic).is_some()
            });
            let cohorts = in_cohort.count();
            assert_eq!(cohorts, usize::from(connection.has(Flag::InCohort)), "connection {index}");
            marked += cohorts as u64;
        }
        assert_eq!(marked, self.compression.cohorts.members());
    }
}
