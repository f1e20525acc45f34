//! `presence`, `presence_stats`, `history`, `history_remove`, `channels`, `info`: what shards know.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Api, Failure, answers, call};
use crate::{
    limits::{API_CHANNELS_MAX, API_HISTORY_PUBLICATIONS_MAX},
    mesh::{Answer, History, Position, Presence, PresenceFound, ToShard},
    session::Rules,
};

impl Api {
    pub(super) async fn presence(&self, channel: &str) -> Result<String, Failure> {
        match self.who_is_in(channel, false).await? {
            PresenceFound::Members(members) => answers::presence(&members),
            PresenceFound::TooMany => Err(Failure::LIMIT_EXCEEDED),
            PresenceFound::Stats(_) => unreachable!("who is there was asked for"),
        }
    }

    pub(super) async fn presence_stats(&self, channel: &str) -> Result<String, Failure> {
        match self.who_is_in(channel, true).await? {
            PresenceFound::Stats(stats) => {
                Ok(format!("{{\"num_clients\":{},\"num_users\":{}}}", stats.clients, stats.users))
            }
            PresenceFound::Members(_) | PresenceFound::TooMany => unreachable!("only numbers were asked for"),
        }
    }

    async fn who_is_in(&self, channel: &str, stats_only: bool) -> Result<PresenceFound, Failure> {
        if !self.namespace(channel)?.presence {
            return Err(Failure::NOT_AVAILABLE);
        }
        let question = |channel, reply_to| ToShard::Presence(Box::new(Presence { channel, stats_only, reply_to }));
        match self.shards.ask_home(self.shards.name(channel), question).await? {
            Answer::Presence(found) => Ok(found),
            other => unreachable!("a shard answers {other:?} to who is in a channel"),
        }
    }

    pub(super) async fn history(&self, request: call::History) -> Result<String, Failure> {
        if self.namespace(&request.channel)?.history_size == 0 {
            return Err(Failure::NOT_AVAILABLE);
        }
        let since = request.since.map(|since| Position { offset: since.offset, epoch: since.epoch.into() });
        let (limit, reverse) = (request.limit, request.reverse);
        let question = |channel, reply_to| {
            let limit_max = API_HISTORY_PUBLICATIONS_MAX;
            ToShard::History(Box::new(History { channel, limit, limit_max, since, reverse, reply_to }))
        };
        match self.shards.ask_home(self.shards.name(&request.channel), question).await? {
            Answer::History(found) => {
                let found = found.ok_or(Failure::UNRECOVERABLE_POSITION)?;
                answers::history(&found)
            }
            other => unreachable!("a shard answers {other:?} to a question for history"),
        }
    }

    pub(super) async fn remove_history(&self, channel: &str) -> Result<String, Failure> {
        if self.namespace(channel)?.history_size == 0 {
            return Err(Failure::NOT_AVAILABLE);
        }
        let question = |channel, reply_to| ToShard::RemoveHistory { channel, reply_to };
        self.shards.ask_home(self.shards.name(channel), question).await?;
        Ok("{}".to_owned())
    }

    pub(super) async fn channels(&self, pattern: &str) -> Result<String, Failure> {
        let pattern = (!pattern.is_empty()).then(|| Bytes::copy_from_slice(pattern.as_bytes()));
        let question = |reply_to| ToShard::ListChannels { pattern: pattern.clone(), reply_to };
        let mut channels: BTreeMap<Arc<str>, u32> = BTreeMap::new();
        for answer in self.shards.ask_all(question).await? {
            let Answer::Channels(found) = answer else {
                unreachable!("a shard answers {answer:?} to a question for channels")
            };
            for (name, subscribers) in found {
                *channels.entry(name).or_default() += subscribers;
            }
        }
        if channels.len() > API_CHANNELS_MAX {
            return Err(Failure::LIMIT_EXCEEDED);
        }
        Ok(answers::channels(&channels))
    }

    pub(super) async fn info(&self) -> Result<String, Failure> {
        let (question, answer) = oneshot::channel();
        self.questions.send(question).await.map_err(|_| Failure::INTERNAL)?;
        let snapshot = answer.await.map_err(|_| Failure::INTERNAL)?;
        let uptime_seconds = self.started_at.elapsed().as_secs();
        let counted = self.count_everything().await?;
        Ok(answers::info(&self.node, Rules::SERVER_VERSION, uptime_seconds, &snapshot, counted))
    }

    /// Counts channels and users, each once, wherever their clients are: who is on several shards is known to none of
    /// them, so all are gone through, in parts that hold no shard up, and by one request at a time.
    async fn count_everything(&self) -> Result<Counted, Failure> {
        let _alone = self.census.lock().await;
        let (mut channels, mut users) = (Vec::new(), Vec::new());
        for shard in 0..self.shards.count() {
            let mut next = Some(0);
            while let Some(from) = next {
                let answer = self.shards.ask_one(shard, |reply_to| ToShard::Census { from, reply_to }).await?;
                let Answer::Census(mut part) = answer else {
                    unreachable!("a shard answers {answer:?} to a question for a census")
                };
                channels.append(&mut part.channels);
                users.append(&mut part.users);
                next = part.next;
            }
        }
        Ok(Counted { channels: count_distinct(channels), users: count_distinct(users) })
    }
}

/// What there is of a kind, each counted once.
pub(super) struct Counted {
    /// Channels with subscribers.
    pub(super) channels: usize,
    /// Users with connections.
    pub(super) users: usize,
}

fn count_distinct(mut hashes: Vec<u64>) -> usize {
    hashes.sort_unstable();
    hashes.dedup();
    hashes.len()
}
