//! What the application's back end is asked about, and what follows from its answers (protocol.md section 20).
//!
//! A connect command that is asked about pauses the session; other commands go on beside those that are asked about.
//! Whether a command's client is still there, and the order of its publications, are the shard's business.

use bytes::Bytes;

use super::{
    Effects, Flow, PublishCommand, Reason, Renewal, Rules, Session, Transient,
    conversation::{Conversation, Refusal},
    state::Flag,
};
use crate::{
    config::{Hook, HookRefusal},
    fanout::Content,
    http::Request,
    mesh::Version,
    protocol::{
        ConnectAnswer, ConnectRequest, Disconnect, ErrorCode, ErrorView, Grant, Headers, HookAnswer, HookPayload,
        HookRequest, Payload, PublishAnswer, RefreshAnswer, Reply, RpcRequest, SubscribeRequest,
    },
};

/// A question for the back end.
#[derive(Debug)]
pub struct Question<'a> {
    /// What it is about.
    pub hook: Hook,
    /// What belongs to it; the shard adds who the client is.
    pub request: HookRequest<'a>,
    /// What is to be given back with the answer.
    pub awaiting: Awaiting,
}

/// What waits for an answer.
#[derive(Debug)]
pub enum Awaiting {
    /// A connect command.
    Connect {
        /// Its `id`.
        command: u32,
        /// What it asks for.
        request: Box<ConnectRequest<'static>>,
    },
    /// A subscribe command.
    Subscribe {
        /// Its `id`.
        command: u32,
        /// What it asks for.
        request: Box<SubscribeRequest<'static>>,
        /// What of the channel's publications it will get.
        content: Content,
    },
    /// A publish command.
    Publish {
        /// Its `id`.
        command: u32,
        /// The channel.
        channel: String,
        /// What the client wants to publish.
        payload: Payload,
    },
    /// An rpc command.
    Rpc {
        /// Its `id`.
        command: u32,
    },
    /// A connection whose time is over.
    Refresh,
    /// A subscription whose time is over.
    SubRefresh {
        /// Its channel.
        channel: String,
    },
}

/// An answer has come; none: the back end does not give one.
pub fn answered<E: Effects>(
    session: &mut Session,
    transient: &mut Option<Box<Transient>>,
    awaiting: Awaiting,
    answer: Option<HookAnswer>,
    rules: &Rules,
    effects: &mut E,
) -> Flow {
    Conversation { session, transient, rules, effects }.apply_answer(awaiting, answer)
}

impl<E: Effects> Conversation<'_, E> {
    /// Keeps what the back end is to be shown of a request that begins a client's conversation.
    pub(super) fn keep_headers(&mut self, request: &Request<'_>) {
        let hooks = &self.rules.config.hooks;
        if hooks.headers.is_empty() {
            return;
        }
        for (name, value) in request.fields() {
            if let Some(place) = hooks.header(name) {
                self.effects.keep_header(place as u16, value, false);
            }
        }
    }

    /// The same of header fields that a browser cannot send, and says in its connect command.
    pub(super) fn keep_emulated_headers(&mut self, headers: &Headers<'_>) {
        for (name, value) in headers {
            if let Some(place) = self.rules.config.hooks.header(name) {
                self.effects.keep_header(place as u16, value.as_bytes(), true);
            }
        }
    }

    /// Asks who a client is that has no token.
    pub(super) fn ask_who(&mut self, command: u32, request: &ConnectRequest<'_>) -> Flow {
        let Ok(payload) = self.payload(request.data) else {
            return self.refuse_connect(command, ErrorCode::BadRequest.into(), Reason::CommandInvalid);
        };
        let text = |text: &'_ str| if text.is_empty() { None } else { Some(text.to_owned()) };
        let (name, version) = (text(&request.name), text(&request.version));
        let question = Question {
            hook: Hook::Connect,
            request: HookRequest {
                payload,
                name: name.as_deref(),
                version: version.as_deref(),
                channels: request.subs.iter().map(|(channel, _)| &**channel).collect(),
                ..HookRequest::default()
            },
            awaiting: Awaiting::Connect { command, request: Box::new(request.kept()) },
        };
        // Everything else waits, whatever the shard has room for.
        let _ = self.effects.ask(question);
        self.session.set(Flag::Paused);
        Flow::Paused
    }

    /// Asks whether a client may subscribe.
    pub(super) fn ask_subscribe(
        &mut self,
        command: u32,
        request: &SubscribeRequest<'_>,
        content: Content,
    ) -> Result<Flow, Refusal> {
        let flow = self.effects.ask(Question {
            hook: Hook::Subscribe,
            request: HookRequest {
                channel: Some(&request.channel),
                payload: self.payload(request.data)?,
                ..HookRequest::default()
            },
            awaiting: Awaiting::Subscribe { command, request: Box::new(request.kept()), content },
        });
        Ok(self.taken_in(flow))
    }

    /// Asks whether a client may publish, and what.
    pub(super) fn ask_publish(&mut self, command: u32, channel: &str, payload: Payload) -> Result<Flow, Refusal> {
        let data = payload.data.clone();
        let flow = self.effects.ask(Question {
            hook: Hook::Publish,
            request: HookRequest {
                channel: Some(channel),
                payload: self.payload(Some(&data))?,
                ..HookRequest::default()
            },
            awaiting: Awaiting::Publish { command, channel: channel.to_owned(), payload },
        });
        Ok(self.taken_in(flow))
    }

    /// A client calls a method of the application.
    pub(super) fn rpc(&mut self, command: u32, request: &RpcRequest<'_>) -> Result<Flow, Refusal> {
        if !self.rules.config.hooks.is_asked(Hook::Rpc) {
            return Err(ErrorCode::NotAvailable.into());
        }
        let flow = self.effects.ask(Question {
            hook: Hook::Rpc,
            request: HookRequest {
                method: Some(&request.method),
                payload: self.payload(request.data)?,
                ..HookRequest::default()
            },
            awaiting: Awaiting::Rpc { command },
        });
        Ok(self.taken_in(flow))
    }

    fn payload<'p>(&self, data: Option<&'p [u8]>) -> Result<HookPayload<'p>, ErrorCode> {
        let is_binary = self.rules.config.hooks.binary_encoding;
        HookPayload::new(data, self.effects.form().encoding(), is_binary).ok_or(ErrorCode::BadRequest)
    }

    fn apply_answer(&mut self, awaiting: Awaiting, answer: Option<HookAnswer>) -> Flow {
        if let Some(HookAnswer::Refused(HookRefusal::Disconnect { code, reason })) = &answer {
            let disconnect = Disconnect::custom(*code, reason).expect("an answer that was read is in order");
            return self.end(disconnect, Reason::HookDisconnect);
        }
        match awaiting {
            Awaiting::Connect { command, request } => self.connect_answered(command, &request, answer),
            Awaiting::Subscribe { command, request, content } => match answer {
                Some(HookAnswer::Subscribe(grant)) => self.may_subscribe(command, &request, *grant, content),
                other => self.refused(command, other.as_ref()),
            },
            Awaiting::Publish { command, channel, payload } => match answer {
                Some(HookAnswer::Publish(answer)) => self.may_publish(command, &channel, payload, *answer),
                other => self.refused(command, other.as_ref()),
            },
            Awaiting::Rpc { command } => match answer {
                Some(HookAnswer::Rpc(data)) => {
                    let reply = Reply::Rpc(data.as_deref());
                    self.effects.form().write_reply(self.effects.output(), command, &reply);
                    Flow::Continue
                }
                other => self.refused(command, other.as_ref()),
            },
            Awaiting::Refresh => self.refresh_answered(answer),
            Awaiting::SubRefresh { channel } => self.sub_refresh_answered(&channel, answer),
        }
    }

    fn connect_answered(&mut self, command: u32, request: &ConnectRequest<'_>, answer: Option<HookAnswer>) -> Flow {
        self.session.clear(Flag::Paused);
        let flow = match answer {
            Some(HookAnswer::Connect(answer))
                if answer.identity.user.len() <= self.rules.config.client.user_bytes_max() =>
            {
                let ConnectAnswer { mut identity, data } = *answer;
                let expiries = identity.channels.iter_mut().map(|(_, grant)| &mut grant.expires_at);
                let in_time = expiries.chain([&mut identity.expires_at]).try_for_each(|at| self.check_expiry(at));
                self.connect_as(command, request, in_time.map(|()| identity), data)
            }
            Some(HookAnswer::Refused(HookRefusal::Error { code, message, is_temporary })) => {
                let error = ErrorView { code, message: &message, is_temporary };
                self.refuse_connect(command, error, Reason::HookError)
            }
            _ => self.end(Disconnect::INTERNAL_ERROR, Reason::HookFailed),
        };
        if flow == Flow::Continue { self.resume() } else { flow }
    }

    fn may_subscribe(
        &mut self,
        command: u32,
        request: &SubscribeRequest<'_>,
        mut grant: Grant,
        content: Content,
    ) -> Flow {
        if self.check_expiry(&mut grant.expires_at).is_err() {
            return self.refuse(command, ErrorCode::Expired.into(), ErrorCode::Expired.into());
        }
        // A reload may have taken the namespace away meanwhile.
        let Some(namespace) = self.rules.config.namespaces.of_channel(&request.channel) else {
            return self.refuse(command, ErrorCode::UnknownChannel.into(), ErrorCode::UnknownChannel.into());
        };
        self.enter(command, request, namespace, &grant, content);
        Flow::Continue
    }

    fn may_publish(&mut self, command: u32, channel: &str, payload: Payload, answer: PublishAnswer) -> Flow {
        let PublishAnswer { data, skip_history, delta, version, version_epoch, tags, idempotency_key } = answer;
        let version = (version > 0).then(|| Box::new(Version { number: version, epoch: version_epoch }));
        let payload = match data {
            None => payload,
            Some(data) => match self.replacement(channel, data) {
                Some(payload) => payload,
                None => return self.refused(command, None),
            },
        };
        // No room is no reason to pause: the client waits for its answers as it is.
        let unchanged = PublishCommand::new(command, channel, payload);
        let _ =
            self.effects.publish(PublishCommand { idempotency_key, skip_history, delta, version, tags, ..unchanged });
        Flow::Continue
    }

    /// What is published instead, if its channel takes it.
    fn replacement(&self, channel: &str, data: Bytes) -> Option<Payload> {
        let config = &self.rules.config;
        let format = config.namespaces.of_channel(channel)?.format;
        let fits = !data.is_empty() && data.len() <= config.ingest.payload_bytes_max as usize;
        Payload::check(data, format).ok().filter(|_| fits)
    }

    /// A connection goes on, or does not. Without an answer it does, and the shard asks again.
    fn refresh_answered(&mut self, answer: Option<HookAnswer>) -> Flow {
        let Some(HookAnswer::Refresh(RefreshAnswer { is_expired, mut expires_at, info, meta })) = answer else {
            return Flow::Continue;
        };
        if is_expired || self.check_expiry(&mut expires_at).is_err() {
            return self.end(Disconnect::CONNECTION_EXPIRED, Reason::ConnectionExpired);
        }
        self.effects.refresh(Renewal { expires_at, info, meta });
        Flow::Continue
    }

    /// The same for a subscription.
    fn sub_refresh_answered(&mut self, channel: &str, answer: Option<HookAnswer>) -> Flow {
        let Some(HookAnswer::Refresh(RefreshAnswer { is_expired, mut expires_at, info, meta: _ })) = answer else {
            return Flow::Continue;
        };
        if !self.effects.is_subscribed(channel) {
            return Flow::Continue;
        }
        if !is_expired && self.check_expiry(&mut expires_at).is_ok() {
            self.effects.refresh_subscription(channel, expires_at, info);
        } else if self.effects.is_server_side(channel) {
            return self.end(Disconnect::SUBSCRIPTION_EXPIRED, Reason::SubscriptionExpired);
        } else {
            self.effects.expire_subscription(channel);
        }
        Flow::Continue
    }

    /// Answers a command that the back end does not allow, or about which it says nothing.
    fn refused(&mut self, command: u32, answer: Option<&HookAnswer>) -> Flow {
        match answer {
            Some(HookAnswer::Refused(HookRefusal::Error { code, message, is_temporary })) => {
                let error = ErrorView { code: *code, message, is_temporary: *is_temporary };
                self.refuse(command, error, Reason::HookError)
            }
            _ => self.refuse(command, ErrorCode::Internal.into(), Reason::HookFailed),
        }
    }

    /// What is granted must not be over already. On a server without rules nothing expires.
    fn check_expiry(&self, expires_at: &mut Option<u64>) -> Result<(), Refusal> {
        let now = self.token_time();
        *expires_at = expires_at.filter(|_| now.is_some());
        if expires_at.zip(now).is_some_and(|(at, now)| at <= now) { Err(ErrorCode::Expired.into()) } else { Ok(()) }
    }
}
