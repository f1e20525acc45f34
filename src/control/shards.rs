//! The shards, as handlers of requests see them: whom to ask for what.
//!
//! Owns the addressing of questions and the bound on how many are under way. The control loop, which alone holds this
//! thread's end of the mesh, sends them and hands the answers back (`inquiries`).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{
    inquiries::{Inquiry, NoAnswer},
    observer::ANSWER_TIME_MAX,
};
use crate::{
    config::TracingConfig,
    limits::API_QUESTIONS_MAX,
    mesh::{Answer, ChannelHasher, ChannelName, ReplyTo, Sampler, ToShard},
};

/// Asks shards. Cheap to clone.
#[derive(Clone)]
pub struct Shards {
    count: usize,
    hasher: ChannelHasher,
    inquiries: mpsc::Sender<Inquiry>,
    tickets: Arc<AtomicU64>,
    room: Arc<Semaphore>,
}

impl Shards {
    /// So many shards, which are asked by whoever receives the inquiries.
    pub fn new(count: usize, hasher: ChannelHasher, inquiries: mpsc::Sender<Inquiry>) -> Self {
        Self { count, hasher, inquiries, tickets: Arc::default(), room: Arc::new(Semaphore::new(API_QUESTIONS_MAX)) }
    }

    /// A channel's name with its hash.
    pub fn name(&self, channel: &str) -> ChannelName {
        self.hasher.name(channel)
    }

    /// Chooses which publications of the server API are traced.
    pub fn sampler(&self, config: &TracingConfig) -> Sampler {
        // Its number is the first behind those of the shards and of the ingest thread.
        Sampler::new(config, self.count + 1, self.hasher.clone())
    }

    /// Asks a channel's home shard.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn ask_home(
        &self,
        channel: ChannelName,
        question: impl FnOnce(ChannelName, ReplyTo) -> ToShard,
    ) -> Result<Answer, NoAnswer> {
        let shard = channel.home(self.count);
        self.ask_one(shard, |reply_to| question(channel, reply_to)).await
    }

    /// Asks the home shards of many channels at once: the answers, in the order of the channels.
    ///
    /// # Errors
    /// When one of the answers is missing.
    pub async fn ask_homes(
        &self,
        channels: Vec<ChannelName>,
        mut question: impl FnMut(usize, ChannelName, ReplyTo) -> ToShard,
    ) -> Result<Vec<Answer>, NoAnswer> {
        if channels.is_empty() {
            return Ok(Vec::new());
        }
        self.ask(channels.len(), |ticket| {
            let questions = channels.into_iter().zip(0_u32..).map(|(channel, part)| {
                let shard = channel.home(self.count);
                (shard, question(part as usize, channel, ReplyTo::Control { ticket, part }))
            });
            questions.collect()
        })
        .await
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Asks one shard, by index.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn ask_one(&self, shard: usize, question: impl FnOnce(ReplyTo) -> ToShard) -> Result<Answer, NoAnswer> {
        let ask = |ticket| vec![(shard, question(ReplyTo::Control { ticket, part: 0 }))];
        let answers = self.ask(1, ask).await?;
        Ok(answers.into_iter().next().expect("there is one answer to each question"))
    }

    /// Asks every shard: the answers, by index.
    ///
    /// # Errors
    /// When one of the answers is missing.
    pub async fn ask_all(&self, question: impl Fn(ReplyTo) -> ToShard) -> Result<Vec<Answer>, NoAnswer> {
        let parts = 0..u32::try_from(self.count).expect("SHARDS_MAX fits u32");
        self.ask(self.count, |ticket| {
            parts.map(|part| (part as usize, question(ReplyTo::Control { ticket, part }))).collect()
        })
        .await
    }

    async fn ask(
        &self,
        questions: usize,
        ask: impl FnOnce(u64) -> Vec<(usize, ToShard)>,
    ) -> Result<Vec<Answer>, NoAnswer> {
        let permits = u32::try_from(questions.min(API_QUESTIONS_MAX)).expect("the bound is within 32 bits");
        let room = timeout(ANSWER_TIME_MAX, self.room.acquire_many(permits)).await;
        let _room = room.map_err(|_| NoAnswer::NoRoom)?.expect("the semaphore is never closed");
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let (asker, answers) = oneshot::channel();
        let inquiry = Inquiry { ticket, questions: ask(ticket), asker };
        let sent = timeout(ANSWER_TIME_MAX, self.inquiries.send(inquiry)).await;
        sent.map_err(|_| NoAnswer::NoRoom)?.map_err(|_| NoAnswer::Stopping)?;
        answers.await.unwrap_or(Err(NoAnswer::Stopping))
    }
}
