//! Questions to the application's back end: which clients wait for an answer, and in which order answers count.
//!
//! Owns the questions of this shard that are open. What is asked, and what follows, is `session`'s business; how it is
//! asked, the control thread's.
//!
//! Invariants:
//! - Each question is answered once, whatever happens, so its entry goes; a client that has gone meanwhile is recognised
//!   by its generation, and its answer dropped.
//! - A client's publications go to their home shards in the order in which it sent them, whatever the order of the
//!   answers: an answer waits until those to the client's earlier publish commands are there.
//! - No open question keeps the shard from receiving: only its own client waits, if it has asked for too much.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use super::state::State;
use crate::{
    config::Hook,
    fanout::Form,
    limits::{HOOK_QUESTIONS_PER_CLIENT_MAX, HOOK_RETRY_SECONDS},
    mesh::{ConnectionId, ForwardedHeaders, HookQuestion, HookTicket, ToControl},
    protocol::{Encoding, HookAnswer, HookRequest},
    session::{self, Awaiting, Flow, Question},
};

/// A question that the back end has yet to answer, or whose answer waits for those before it.
pub struct Asked {
    connection: ConnectionId,
    awaiting: Awaiting,
    /// The answer, if it has come.
    answer: Option<Option<Box<HookAnswer>>>,
}

/// What a connection keeps because of hooks.
#[derive(Default)]
pub struct Asking {
    /// Questions about its commands that are open.
    questions: u16,
    /// Those about its publish commands, in their order.
    publications: VecDeque<u32>,
    /// Its session is paused until one of them is answered.
    is_paused: bool,
    /// What the back end is shown of its request.
    headers: Option<Arc<ForwardedHeaders>>,
}

impl Asking {
    /// Whether it may be given back.
    pub fn is_empty(&self) -> bool {
        self.questions == 0 && self.publications.is_empty() && self.headers.is_none()
    }

    /// Whether the session has to wait for an answer before it goes on.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }
}

impl State {
    /// Asks the back end about a client.
    pub fn ask(&mut self, index: u32, question: Question<'_>) -> Flow {
        let Question { hook, request, awaiting } = question;
        let body = self.body(index, hook, request);
        let connection = self.id(index);
        let number = self.questions.vacant_key() as u32;
        let is_of_command = !matches!(awaiting, Awaiting::Refresh | Awaiting::SubRefresh { .. });
        match &awaiting {
            Awaiting::Subscribe { command, request, .. } => {
                self.await_subscription(index, &request.channel, *command, number)
            }
            Awaiting::Publish { .. } => self.asking_mut(index).publications.push_back(number),
            _ => {}
        }
        self.questions.insert(Asked { connection, awaiting, answer: None });
        self.send_question(index, hook, Some(HookTicket { shard: self.mesh.shard, number }), body);
        if !is_of_command {
            return Flow::Continue;
        }
        let asking = self.asking_mut(index);
        asking.questions += 1;
        asking.is_paused = asking.questions >= HOOK_QUESTIONS_PER_CLIENT_MAX;
        if asking.is_paused { Flow::Paused } else { Flow::Continue }
    }

    /// Tells the back end that a client has gone.
    pub fn tell_gone(&mut self, index: u32, code: u16, reason: &str) {
        if !self.config.hooks.is_asked(Hook::Disconnect) || self.connection(index).session.is_operator() {
            return;
        }
        let request = HookRequest { code: Some(code), reason: Some(reason), ..HookRequest::default() };
        let body = self.body(index, Hook::Disconnect, request);
        self.send_question(index, Hook::Disconnect, None, body);
    }

    /// Tells the back end that what is known of a client has been changed.
    pub fn tell_changed(&mut self, index: u32) {
        if self.config.hooks.is_asked(Hook::Attributes) {
            let body = self.body(index, Hook::Attributes, HookRequest::default());
            self.send_question(index, Hook::Attributes, None, body);
        }
    }

    /// An answer has come; none: the back end does not give one.
    pub fn hook_answered(&mut self, number: u32, answer: Option<Box<HookAnswer>>) {
        let connection = self.questions[number as usize].connection;
        let Some(index) = self.live_index(connection) else {
            self.questions.remove(number as usize);
            return;
        };
        if !matches!(self.questions[number as usize].awaiting, Awaiting::Publish { .. }) {
            return self.apply_answer(index, number, answer);
        }
        self.questions[number as usize].answer = Some(answer);
        // An answer may end the conversation, and then the others go with it.
        while let Some(asking) = self.connection(index).extra.as_ref().and_then(|extra| extra.asking.as_ref())
            && let Some(first) = asking.publications.front().copied()
            && let Some(answer) = self.questions[first as usize].answer.take()
        {
            self.asking_mut(index).publications.pop_front();
            self.apply_answer(index, first, answer);
        }
    }

    /// A connection is on its way out: answers that wait for others are waited for no more.
    pub fn forget_answers(&mut self, asking: &Asking) {
        for number in &asking.publications {
            if self.questions[*number as usize].answer.is_some() {
                self.questions.remove(*number as usize);
            }
        }
    }

    /// A header field that the back end is shown with each question about this connection.
    pub fn keep_header(&mut self, index: u32, place: u16, value: &[u8], is_emulated: bool) {
        let asking = self.asking_mut(index);
        let headers = Arc::make_mut(asking.headers.get_or_insert_default());
        if !is_emulated || headers.iter().all(|(other, _)| *other != place) {
            headers.push((place, Bytes::copy_from_slice(value)));
        }
    }

    /// Asks whether a connection goes on whose time is over. Without an answer it does, for a while.
    pub fn ask_refresh(&mut self, index: u32) {
        self.connection_mut(index).expires_unix_seconds = self.hook_retry_unix_seconds();
        let request = HookRequest::default();
        let _ = self.ask(index, Question { hook: Hook::Refresh, request, awaiting: Awaiting::Refresh });
    }

    /// The same for a subscription.
    pub fn ask_sub_refresh(&mut self, index: u32, topic: u32) {
        self.set_subscription_expiry(index, topic, Some(self.hook_retry_unix_seconds().into()));
        let channel = self.topics.name(topic).to_owned();
        let request = HookRequest { channel: Some(&channel), ..HookRequest::default() };
        let awaiting = Awaiting::SubRefresh { channel: channel.clone() };
        let _ = self.ask(index, Question { hook: Hook::SubRefresh, request, awaiting });
    }

    /// Whether the back end, not the client, decides whether a connection goes on.
    pub fn is_refreshed_by_hook(&self, index: u32) -> bool {
        self.config.hooks.is_asked(Hook::Refresh) && !self.connection(index).session.is_operator()
    }

    /// The same of subscriptions to a topic.
    pub fn is_sub_refreshed_by_hook(&self, topic: u32) -> bool {
        let namespace = self.config.namespaces.of_channel(self.topics.name(topic));
        namespace.is_some_and(|namespace| namespace.sub_refresh_proxy_enabled)
    }

    fn apply_answer(&mut self, index: u32, number: u32, answer: Option<Box<HookAnswer>>) {
        let Asked { awaiting, .. } = self.questions.remove(number as usize);
        if !matches!(awaiting, Awaiting::Refresh | Awaiting::SubRefresh { .. }) {
            let asking = self.asking_mut(index);
            asking.questions -= 1;
            let was_paused = std::mem::take(&mut asking.is_paused);
            if was_paused && !matches!(awaiting, Awaiting::Connect { .. }) {
                self.paused.push(self.id(index));
            }
        }
        if matches!(awaiting, Awaiting::Subscribe { .. }) && !self.take_question(index, number) {
            // The client has taken back that it wanted to subscribe.
            return self.drop_empty_asking(index);
        }
        self.converse(index, |session, transient, rules, peer| {
            session::answered(session, transient, awaiting, answer.map(|answer| *answer), rules, peer)
        });
        self.drop_empty_asking(index);
    }

    fn asking_mut(&mut self, index: u32) -> &mut Asking {
        self.connection_mut(index).extra_mut().asking.get_or_insert_default()
    }

    fn drop_empty_asking(&mut self, index: u32) {
        let connection = self.connection_mut(index);
        if let Some(extra) = connection.extra.as_mut() {
            extra.asking = extra.asking.take().filter(|asking| !asking.is_empty());
        }
        connection.drop_empty_extra();
    }

    fn hook_retry_unix_seconds(&self) -> u32 {
        u32::try_from(self.now_unix_seconds).unwrap_or(u32::MAX).saturating_add(HOOK_RETRY_SECONDS)
    }

    fn body(&self, index: u32, hook: Hook, request: HookRequest<'_>) -> Bytes {
        let form = self.connection(index).form;
        let client = self.client_ids.of(self.id(index));
        let shows_meta = self.config.hooks.include_connection_meta || hook == Hook::Attributes;
        let request = HookRequest {
            client: &client,
            transport: form.transport(),
            protocol: form.encoding().label(),
            encoding: if self.takes_bytes(form) { "binary" } else { "json" },
            user: (hook != Hook::Connect).then(|| self.user(index)),
            meta: self.connection(index).extra.as_ref().and_then(|extra| extra.meta.as_deref()).filter(|_| shows_meta),
            ..request
        };
        request.to_json()
    }

    fn takes_bytes(&self, form: Form) -> bool {
        self.config.hooks.binary_encoding && form.encoding() == Encoding::Protobuf
    }

    fn send_question(&mut self, index: u32, hook: Hook, ticket: Option<HookTicket>, body: Bytes) {
        let connection = self.connection(index);
        let takes_bytes = self.takes_bytes(connection.form);
        let asking = connection.extra.as_ref().and_then(|extra| extra.asking.as_ref());
        let headers = asking.and_then(|asking| asking.headers.clone());
        let question = HookQuestion { hook, ticket, body, headers, takes_bytes };
        self.mesh.to_control.send(ToControl::Hook(Box::new(question)));
    }
}
