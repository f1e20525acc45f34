//! `subscribe`, `unsubscribe`, `disconnect`, `refresh`: what is done with connections of a user. `connections`,
//! `update_attributes`: what is known of them.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{
    Api, Failure, answers,
    call::{Disconnect, Refresh, Subscribe, Unsubscribe, UpdateAttributes},
};
use crate::{
    mesh::{Addressees, Answer, DevicesFound, Position, ToShard, UserAction, UserRequest},
    protocol::{self, AttributesPatch, Grant},
};

/// The result of what has none.
const NOTHING: &str = "{}";

impl Api {
    pub(super) async fn subscribe(&self, request: Subscribe<'_>) -> Result<String, Failure> {
        self.namespace(&request.channel)?;
        let grant = Box::new(Grant {
            expires_at: u64::try_from(request.expire_at).ok().filter(|at| *at > 0),
            info: json(request.info, &request.b64info)?,
            data: json(request.data, &request.b64data)?,
            overrides: request.overrides.unwrap_or_default(),
        });
        let recover = request.recover_since.map(|since| Position { offset: since.offset, epoch: since.epoch.into() });
        let action = UserAction::Subscribe { channel: request.channel, grant, recover };
        self.act(request.user, addressees(request.client, request.session), action).await
    }

    pub(super) async fn unsubscribe(&self, request: Unsubscribe) -> Result<String, Failure> {
        let channel = Some(request.channel).filter(|channel| !channel.is_empty());
        if let Some(channel) = &channel {
            self.namespace(channel)?;
        }
        let action = UserAction::Unsubscribe { channel };
        self.act(request.user, addressees(request.client, request.session), action).await
    }

    pub(super) async fn disconnect(&self, request: Disconnect) -> Result<String, Failure> {
        let action = match &request.disconnect {
            None => disconnect(protocol::Disconnect::FORCE_DISCONNECT),
            Some(told) => {
                // Without a reason some SDKs come back whatever the code.
                let usual = protocol::Disconnect::FORCE_DISCONNECT;
                let reason = if told.reason.is_empty() { usual.reason() } else { &told.reason };
                disconnect(protocol::Disconnect::custom(told.code, reason).ok_or(Failure::BAD_REQUEST)?)
            }
        };
        let addressees = Addressees { spared: request.whitelist, ..addressees(request.client, request.session) };
        self.act(request.user, addressees, action).await
    }

    pub(super) async fn refresh(&self, request: Refresh<'_>) -> Result<String, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let expires_at = u64::try_from(request.expire_at).ok().filter(|at| *at > 0);
        let is_over = request.expired || expires_at.is_some_and(|at| at <= now);
        let action = match is_over {
            true => disconnect(protocol::Disconnect::CONNECTION_EXPIRED),
            false => UserAction::Refresh { expires_at, info: json(request.info, "")? },
        };
        self.act(request.user, addressees(request.client, request.session), action).await
    }

    /// The connections of a user, on all shards.
    pub(super) async fn connections(&self, user: String) -> Result<String, Failure> {
        let mut devices = Vec::new();
        for answer in self.ask_about(user, Addressees::default(), UserAction::List).await? {
            match answer {
                Answer::Devices(DevicesFound::Devices(mut found)) => devices.append(&mut found),
                Answer::Devices(DevicesFound::TooMany) => return Err(Failure::LIMIT_EXCEEDED),
                other => unreachable!("a shard answers {other:?} to a question for connections"),
            }
        }
        answers::connections(&devices)
    }

    /// Changes what is known of a user's connections.
    pub(super) async fn update_attributes(&self, request: UpdateAttributes<'_>) -> Result<String, Failure> {
        let attributes = request.attributes.ok_or(Failure::BAD_REQUEST)?.get().as_bytes();
        let patch = AttributesPatch::read(attributes, &self.config().attributes).map_err(|_| Failure::BAD_REQUEST)?;
        let addressees = addressees(request.client, request.session);
        let (mut updated_all, mut refused_all) = (0, 0);
        for answer in self.ask_about(request.user, addressees, UserAction::ChangeAttributes { patch }).await? {
            let Answer::Changed { updated, refused } = answer else {
                unreachable!("a shard answers {answer:?} to a change of attributes")
            };
            updated_all += updated;
            refused_all += refused;
        }
        Ok(format!("{{\"updated\":{updated_all},\"refused\":{refused_all}}}"))
    }

    async fn act(&self, user: String, addressees: Addressees, action: UserAction) -> Result<String, Failure> {
        self.ask_about(user, addressees, action).await?;
        Ok(NOTHING.to_owned())
    }

    async fn ask_about(
        &self,
        user: String,
        addressees: Addressees,
        action: UserAction,
    ) -> Result<Vec<Answer>, Failure> {
        let request = Arc::new(UserRequest { user, addressees, action });
        Ok(self.shards.ask_all(|reply_to| ToShard::User { request: Arc::clone(&request), reply_to }).await?)
    }
}

fn disconnect(told: protocol::Disconnect<'_>) -> UserAction {
    UserAction::Disconnect { code: told.code(), reason: told.reason().to_owned() }
}

fn addressees(client: String, session: String) -> Addressees {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    Addressees { client: some(client), session: some(session), spared: Vec::new() }
}

/// A JSON text without line feeds, so that it can be copied into messages to clients as it is.
fn json(plain: Option<&RawValue>, base64: &str) -> Result<Option<Bytes>, Failure> {
    let json = match (base64, plain) {
        ("", None) => return Ok(None),
        ("", Some(plain)) => plain.get().as_bytes().to_vec(),
        (base64, _) => {
            let json = STANDARD.decode(base64).map_err(|_| Failure::BAD_REQUEST)?;
            let text = str::from_utf8(&json).map_err(|_| Failure::BAD_REQUEST)?;
            serde_json::from_str::<IgnoredAny>(text).map_err(|_| Failure::BAD_REQUEST)?;
            json
        }
    };
    Ok(Some(json.into_iter().filter(|byte| *byte != b'\n').collect()))
}
