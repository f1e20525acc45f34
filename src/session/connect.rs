//! The connect command: who the client is, and which channels the server subscribes it to (protocol.md sections 5 and 11).

use std::borrow::Cow;

use bytes::Bytes;

use super::{
    Connect, Effects, Flow, Phase, Reason, ServerSide, Terms,
    conversation::{Conversation, Refusal},
    permission::{self, Access, Subject},
    state::Flag,
    tokens::INVALID_TOKEN,
};
use crate::{
    config::{Hook, Namespace},
    protocol::{ConnectRequest, Disconnect, ErrorCode, ErrorView, Grant, Identity, SubscribeRequest, TokenError},
};

impl<E: Effects> Conversation<'_, E> {
    pub(super) fn connect(&mut self, command: u32, request: &ConnectRequest<'_>) -> Flow {
        self.keep_emulated_headers(&request.headers);
        if request.token.is_empty() && self.rules.config.hooks.is_asked(Hook::Connect) {
            return self.ask_who(command, request);
        }
        let identity = self.identify(&request.token);
        self.connect_as(command, request, identity, None)
    }

    /// It is known who the client is, or why it is nobody. `data` is what the application tells it.
    pub(super) fn connect_as(
        &mut self,
        command: u32,
        request: &ConnectRequest<'_>,
        identity: Result<Identity, Refusal>,
        data: Option<Bytes>,
    ) -> Flow {
        let connect = identity.and_then(|identity| {
            let channels = self.server_side(&identity, &request.subs)?;
            let Identity { user, expires_at, info, meta, channels: _, is_operator } = identity;
            let (name, version) = (request.name.clone().into_owned(), request.version.clone().into_owned());
            Ok(Connect { command, user, expires_at, info, meta, data, name, version, channels, is_operator })
        });
        match connect {
            Ok(connect) => self.begin(connect),
            Err(Refusal::End(disconnect, reason)) => self.end(disconnect, reason),
            Err(Refusal::Error(error)) => self.refuse_connect(command, error.into(), error.into()),
            Err(Refusal::ErrorBecause(error, reason)) => self.refuse_connect(command, error.into(), reason),
            Err(Refusal::AwaitKeys) => self.await_keys(),
        }
    }

    /// Nothing can follow a failed connect; the client closes when it has read why. Who only listens hears no replies.
    pub(super) fn refuse_connect(&mut self, command: u32, error: ErrorView<'_>, reason: Reason) -> Flow {
        if self.effects.form().is_one_way() {
            return self.end(Disconnect::instead_of(error.code), reason);
        }
        let _ = self.refuse(command, error, reason);
        self.session.phase = Phase::Closing;
        self.session.set(Flag::Lingering);
        Flow::Lingering
    }

    fn begin(&mut self, connect: Connect) -> Flow {
        if connect.is_operator {
            self.session.set(Flag::Operator);
        }
        let flow = self.effects.connect(connect);
        self.session.phase = match flow {
            Flow::Continue => Phase::Connected,
            Flow::Paused => Phase::Connecting,
            Flow::Answered | Flow::AwaitingKeys | Flow::Closing | Flow::Lingering | Flow::Drop | Flow::HandOver => {
                panic!("a shard that cannot connect a client calls session::disconnect afterwards: {flow:?}")
            }
        };
        flow
    }

    fn identify(&self, token: &str) -> Result<Identity, Refusal> {
        if token.is_empty() {
            let client = &self.rules.config.client;
            return match client.allow_anonymous || client.insecure {
                true => Ok(Identity::default()),
                false => Err(Refusal::End(Disconnect::BAD_REQUEST, Reason::CredentialsMissing)),
            };
        }
        self.verify(token).map_err(|error| match error {
            TokenError::Expired => ErrorCode::TokenExpired.into(),
            TokenError::GrantExpired => ErrorCode::Expired.into(),
            TokenError::Invalid => INVALID_TOKEN,
            TokenError::KeyMissing => self.key_missing(INVALID_TOKEN),
        })
    }

    /// The personal channel, the token's channels, and those that the client asks for and could subscribe to itself.
    fn server_side(
        &self,
        identity: &Identity,
        requested: &[(Cow<'_, str>, SubscribeRequest<'_>)],
    ) -> Result<Vec<ServerSide>, Refusal> {
        let client = &self.rules.config.client;
        let namespaces = &self.rules.config.namespaces;
        let channels_max = client.channels_max as usize;
        if identity.channels.len() > channels_max {
            return Err(Refusal::End(Disconnect::CHANNEL_LIMIT, Reason::TokenChannelsTooMany));
        }
        let mut granted = Granted(Vec::new());
        if client.personal_channel && !identity.user.is_empty() {
            let channel = client.personal_channel_of(&identity.user);
            let namespace = namespaces.of_channel(&channel).map(|namespace| &**namespace);
            granted.add(&channel, namespace, Grant::default());
        }
        for (channel, grant) in &identity.channels {
            if channel.is_empty() {
                return Err(ErrorCode::BadRequest.into());
            }
            permission::check_name(namespaces, channel)?;
            let namespace = namespaces.of_channel(channel).ok_or(ErrorCode::UnknownChannel)?;
            granted.add(channel, Some(namespace), grant.clone());
        }
        let subject = Subject {
            user: &identity.user,
            is_unrestricted: identity.is_operator || client.insecure,
            is_operator: identity.is_operator,
        };
        for (channel, request) in requested {
            match namespaces.of_channel(channel) {
                Some(namespace) => {
                    let is_permitted = granted.0.len() < channels_max
                        && !channel.is_empty()
                        && permission::check_name(namespaces, channel).is_ok()
                        && matches!(permission::subscribe(namespaces, subject, channel), Ok(Access::Granted(_)));
                    if is_permitted {
                        granted.add(channel, Some(namespace), Grant::default());
                    }
                    granted.set_terms(channel, namespace, request);
                }
                None if granted.contains(channel) => {}
                None => return Err(Refusal::End(Disconnect::BAD_REQUEST, Reason::ConnectChannelUnknown)),
            }
        }
        Ok(granted.0.into_iter().map(|(server_side, _)| server_side).collect())
    }
}

/// Channels to subscribe a client to, each once, with what the token says of them.
struct Granted(Vec<(ServerSide, Grant)>);

impl Granted {
    fn add(&mut self, channel: &str, namespace: Option<&Namespace>, grant: Grant) {
        if self.contains(channel) {
            return;
        }
        let terms = namespace.map(|namespace| Terms::granted(namespace, &grant, &SubscribeRequest::default()));
        self.0.push((ServerSide { channel: channel.to_owned(), terms: terms.unwrap_or_default() }, grant));
    }

    fn contains(&self, channel: &str) -> bool {
        self.0.iter().any(|(granted, _)| granted.channel == channel)
    }

    /// The client's wishes, where the channel was granted.
    fn set_terms(&mut self, channel: &str, namespace: &Namespace, request: &SubscribeRequest<'_>) {
        if let Some((granted, grant)) = self.0.iter_mut().find(|(granted, _)| granted.channel == channel) {
            let terms = Terms::granted(namespace, grant, request);
            // A refusal of one channel has no place in a connect reply: the client learns that it has a gap.
            granted.terms = Terms { reject_unrecovered: false, ..terms };
        }
    }
}
