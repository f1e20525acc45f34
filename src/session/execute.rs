//! Commands: what each needs to be carried out, and what it is refused with.

use bytes::Bytes;

use super::{
    Effects, Flow, HistoryCommand, Phase, PresenceCommand, PublishCommand, Reason, SubscribeCommand, Terms,
    TooFrequent,
    conversation::{Conversation, Refusal},
    permission::{self, Access, Subject},
    state::Flag,
};
use crate::{
    config::{DeltaType, Namespace},
    fanout::{Content, Filter},
    mesh::Position,
    protocol::{
        Command, Disconnect, Encoding, ErrorCode, Grant, HistoryRequest, Method, Payload, PublishRequest,
        SubscribeRequest,
    },
};

/// The one kind of delta compression that the protocol knows (protocol.md section 10).
const DELTA_FOSSIL: &str = "fossil";

impl<E: Effects> Conversation<'_, E> {
    pub(super) fn execute(&mut self, command: Command<'_>) -> Flow {
        if self.session.phase == Phase::AwaitingConnect {
            return match command.method {
                Method::Connect(_) if command.id == 0 => self.end(Disconnect::BAD_REQUEST, Reason::ConnectWithoutId),
                Method::Connect(request) => self.connect(command.id, &request),
                _ => self.end(Disconnect::BAD_REQUEST, Reason::CommandBeforeConnect),
            };
        }
        let is_pong = command.id == 0 && matches!(command.method, Method::None);
        if !is_pong && let Err(too_frequent) = self.charge(&command) {
            return too_frequent;
        }
        let result = match &command.method {
            Method::Send(_) => Err(Refusal::End(Disconnect::NOT_AVAILABLE, Reason::SendUnavailable)),
            _ if command.id == 0 => self.hear_pong(),
            Method::Subscribe(request) => self.subscribe(command.id, request),
            Method::Unsubscribe(request) => self.unsubscribe(command.id, &request.channel),
            Method::Publish(request) => self.publish(command.id, request),
            Method::History(request) => self.history(command.id, request),
            Method::Refresh(request) => self.refresh(command.id, request),
            Method::SubRefresh(request) => self.sub_refresh(command.id, request),
            Method::Presence(request) => self.presence(command.id, &request.channel, false),
            Method::PresenceStats(request) => self.presence(command.id, &request.channel, true),
            Method::Rpc(request) => self.rpc(command.id, request),
            Method::Connect(_) => Err(Refusal::End(Disconnect::BAD_REQUEST, Reason::ConnectTwice)),
            Method::None => Err(Refusal::End(Disconnect::BAD_REQUEST, Reason::CommandUnknown)),
        };
        match result {
            Ok(flow) => flow,
            Err(Refusal::Error(error)) => self.refuse_in(command.method.channel(), command.id, error, error.into()),
            Err(Refusal::ErrorBecause(error, reason)) => {
                self.refuse_in(command.method.channel(), command.id, error, reason)
            }
            Err(Refusal::AwaitKeys) => self.await_keys(),
            Err(Refusal::End(disconnect, reason)) => self.end(disconnect, reason),
        }
    }

    /// Answers a command that comes too often, or ends the conversation where answers have not helped.
    fn charge(&mut self, command: &Command<'_>) -> Result<(), Flow> {
        let is_publication = matches!(command.method, Method::Publish(_));
        self.effects.charge_command(is_publication).map_err(|TooFrequent { reason, is_far_beyond }| match is_far_beyond
            || command.id == 0
        {
            true => self.end(Disconnect::TOO_MANY_REQUESTS, reason),
            false => self.refuse(command.id, ErrorCode::TooManyRequests.into(), reason),
        })
    }

    fn hear_pong(&mut self) -> Result<Flow, Refusal> {
        if self.session.take_pong() {
            Ok(Flow::Continue)
        } else {
            Err(Refusal::End(Disconnect::BAD_REQUEST, Reason::PongUnexpected))
        }
    }

    fn subscribe(&mut self, command: u32, request: &SubscribeRequest<'_>) -> Result<Flow, Refusal> {
        let channel = named(&request.channel)?;
        if !matches!(request.delta.as_ref(), "" | DELTA_FOSSIL) {
            return Err(Refusal::End(Disconnect::BAD_REQUEST, Reason::CommandInvalid));
        }
        if request.kind != 0 {
            return Err(ErrorCode::NotAvailable.into());
        }
        permission::check_name(&self.rules.config.namespaces, channel)?;
        if self.effects.is_subscribed(channel) || self.effects.is_asking(channel) {
            return Err(ErrorCode::AlreadySubscribed.into());
        }
        let namespaces = &self.rules.config.namespaces;
        let (access, grant) = if request.token.is_empty() {
            (permission::subscribe(namespaces, self.subject(), channel)?, Grant::default())
        } else {
            let namespace = namespaces.of_channel(channel).ok_or(ErrorCode::UnknownChannel)?;
            (Access::Granted(namespace), self.grant(channel, &request.token)?)
        };
        if self.effects.subscriptions() >= self.rules.config.client.channels_max as usize {
            return Err(ErrorCode::LimitExceeded.into());
        }
        let content = content(access.namespace(), request)?;
        match access {
            Access::Granted(namespace) => {
                self.enter(command, request, namespace, &grant, content);
                Ok(Flow::Continue)
            }
            Access::Asked(_) => self.ask_subscribe(command, request, content),
        }
    }

    /// Subscribes a client that may.
    pub(super) fn enter(
        &mut self,
        command: u32,
        request: &SubscribeRequest<'_>,
        namespace: &Namespace,
        grant: &Grant,
        content: Content,
    ) {
        let terms = Terms { content, ..Terms::granted(namespace, grant, request) };
        self.effects.subscribe(SubscribeCommand { command, channel: &request.channel, terms });
    }

    fn unsubscribe(&mut self, command: u32, channel: &str) -> Result<Flow, Refusal> {
        self.effects.unsubscribe(command, named(channel)?);
        Ok(Flow::Continue)
    }

    fn publish(&mut self, command: u32, request: &PublishRequest<'_>) -> Result<Flow, Refusal> {
        let channel = named(&request.channel)?;
        permission::check_name(&self.rules.config.namespaces, channel)?;
        if request.kind != 0 {
            return Err(ErrorCode::NotAvailable.into());
        }
        let data = Bytes::copy_from_slice(request.data.ok_or(ErrorCode::BadRequest)?);
        let is_subscribed = self.effects.is_subscribed(channel);
        let subject = self.subject();
        let access = permission::publish(&self.rules.config.namespaces, subject, channel, is_subscribed)?;
        let namespace = access.namespace();
        let payload = match self.effects.form().encoding() {
            // It was read as JSON, from one line.
            Encoding::Json => Payload { data, is_json: true },
            Encoding::Protobuf => match Payload::check(data.clone(), namespace.format) {
                Ok(payload) => payload,
                // No rules, no formats: the SDKs' own suites publish any bytes anywhere.
                Err(_) if subject.is_unrestricted => Payload { data, is_json: false },
                Err(_) => return Err(ErrorCode::BadRequest.into()),
            },
        };
        if let Access::Asked(_) = access {
            return self.ask_publish(command, channel, payload);
        }
        let flow = self.effects.publish(PublishCommand::new(command, channel, payload));
        Ok(self.taken_in(flow))
    }

    /// What follows from a command that was passed on: nothing, or a pause.
    pub(super) fn taken_in(&mut self, flow: Flow) -> Flow {
        assert!(matches!(flow, Flow::Continue | Flow::Paused), "a command is taken in or pauses: {flow:?}");
        if flow == Flow::Paused {
            self.session.set(Flag::Paused);
        }
        flow
    }

    fn history(&mut self, command: u32, request: &HistoryRequest<'_>) -> Result<Flow, Refusal> {
        let channel = named(&request.channel)?;
        permission::check_name(&self.rules.config.namespaces, channel)?;
        let is_subscribed = self.effects.is_subscribed(channel);
        permission::history(&self.rules.config.namespaces, self.subject(), channel, is_subscribed)?;
        self.effects.history(HistoryCommand {
            command,
            channel,
            limit: request.limit,
            since: request
                .since
                .as_ref()
                .map(|since| Position { offset: since.offset, epoch: since.epoch.as_ref().into() }),
            reverse: request.reverse,
        });
        Ok(Flow::Continue)
    }

    fn presence(&mut self, command: u32, channel: &str, stats_only: bool) -> Result<Flow, Refusal> {
        let channel = named(channel)?;
        permission::check_name(&self.rules.config.namespaces, channel)?;
        let is_subscribed = self.effects.is_subscribed(channel);
        permission::presence(&self.rules.config.namespaces, self.subject(), channel, is_subscribed)?;
        self.effects.presence(PresenceCommand { command, channel, stats_only });
        Ok(Flow::Continue)
    }

    fn subject(&self) -> Subject<'_> {
        let is_unrestricted = self.session.is_operator() || self.rules.config.client.insecure;
        Subject { user: self.effects.user(), is_unrestricted, is_operator: self.session.is_operator() }
    }
}

impl Terms {
    /// What a namespace, and perhaps a token, grants of what a client asks for. A channel without history has no positions.
    pub fn granted(namespace: &Namespace, grant: &Grant, request: &SubscribeRequest<'_>) -> Self {
        let overrides = grant.overrides;
        let has_history = namespace.history_size > 0;
        let force_recovery = overrides.force_recovery.unwrap_or(namespace.force_recovery);
        let force_positioning = overrides.force_positioning.unwrap_or(namespace.force_positioning);
        let recoverable = has_history && (force_recovery || namespace.allow_recovery && request.recoverable);
        let positioned =
            recoverable || has_history && (force_positioning || namespace.allow_positioning && request.positioned);
        Self {
            positioned,
            recoverable,
            recover: (recoverable && (request.recover || namespace.auto_cache_recover))
                .then(|| Position { offset: request.offset, epoch: request.epoch.as_ref().into() }),
            // No SDK asks for anything else where the server subscribes it.
            content: Content::Whole,
            reject_unrecovered: request.flag & SubscribeRequest::REJECT_UNRECOVERED != 0,
            emit_presence: overrides.presence.unwrap_or(namespace.presence),
            emit_join_leave: overrides.join_leave.unwrap_or(namespace.join_leave),
            push_join_leave: overrides
                .force_push_join_leave
                .unwrap_or(namespace.join_leave && (namespace.force_push_join_leave || request.join_leave)),
            expires_at: grant.expires_at,
            data: grant.data.clone(),
            chan_info: grant.info.clone(),
        }
    }
}

/// What a client's subscription is sent: what it asks for, as far as the namespace allows it.
fn content(namespace: &Namespace, request: &SubscribeRequest<'_>) -> Result<Content, Refusal> {
    let wants_deltas = !request.delta.is_empty();
    match &request.tags_filter {
        Some(filter) => {
            // A patch to a publication that did not pass would be no use.
            let is_allowed = namespace.allow_tags_filter && !wants_deltas;
            let filter = Filter::new(filter).ok().filter(|_| is_allowed).ok_or(ErrorCode::BadRequest)?;
            Ok(Content::Filtered(Box::new(filter)))
        }
        None if wants_deltas && namespace.allowed_delta_types.contains(&DeltaType::Fossil) => Ok(Content::Deltas),
        None => Ok(Content::Whole),
    }
}

/// A command about a channel must name one.
pub(super) fn named(channel: &str) -> Result<&str, Refusal> {
    if channel.is_empty() { Err(Refusal::End(Disconnect::BAD_REQUEST, Reason::CommandIncomplete)) } else { Ok(channel) }
}
