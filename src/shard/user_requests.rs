//! What the application wants done with connections of a user: subscribed, unsubscribed, ended, refreshed; listed, and
//! remembered otherwise (`listing`).
//!
//! Every shard is asked and answers with the number of connections that it has found. An answer to a request that makes
//! or ends a subscription goes by the channel's home shard, behind what that is told of it: whoever publishes
//! when he has the answer reaches the new subscriber.

use super::{
    connection::{ClientIds, Flag},
    state::State,
};
use crate::{
    mesh::{Addressees, Answer, Position, ReplyTo, ToShard, UserAction, UserRequest},
    protocol::{Disconnect, Grant, Push, Refresh, SubscribeRequest, Unsubscribe},
    session::{Phase, Reason, Renewal, Terms, ttl_seconds},
};

impl State {
    /// Does what is asked for with those of a user's connections that are meant.
    pub fn act_on_user(&mut self, request: &UserRequest, reply_to: ReplyTo) {
        let connections = self.addressed(&request.user, &request.addressees);
        let answer = match &request.action {
            UserAction::List => self.list(&connections),
            UserAction::ChangeAttributes { patch } => self.change_attributes(&connections, patch),
            action => return self.act_on(&connections, action, reply_to),
        };
        self.answer(reply_to, answer);
    }

    fn act_on(&mut self, connections: &[u32], action: &UserAction, reply_to: ReplyTo) {
        for index in connections {
            match action {
                UserAction::Subscribe { channel, grant, recover } => {
                    self.subscribe_as_granted(*index, channel, grant, recover.as_ref());
                }
                UserAction::Unsubscribe { channel: Some(channel) } => {
                    self.unsubscribe_by_server(*index, channel, Unsubscribe::SERVER);
                }
                UserAction::Unsubscribe { channel: None } => self.unsubscribe_from_all(*index),
                UserAction::Disconnect { code, reason } => {
                    let disconnect = Disconnect::custom((*code).into(), reason);
                    let disconnect = disconnect.expect("whoever asks has checked the code and the reason");
                    self.disconnect(*index, disconnect, Reason::ForceDisconnect);
                }
                UserAction::Refresh { expires_at, info } => {
                    self.refresh_by_server(*index, *expires_at, info.clone());
                }
                UserAction::List | UserAction::ChangeAttributes { .. } => {
                    unreachable!("these are answered by what they find")
                }
            }
        }
        let connections = u32::try_from(connections.len()).expect("descriptors end before 2^32");
        match action {
            UserAction::Subscribe { channel, .. } | UserAction::Unsubscribe { channel: Some(channel) }
                if connections > 0 =>
            {
                let home = self.hasher.name(channel).home(self.mesh.to_shards.len());
                self.mesh.to_shards[home].send(ToShard::Confirm { reply_to, connections });
            }
            _ => self.answer(reply_to, Answer::Connections(connections)),
        }
    }

    /// The connections of a user that are meant, on this shard.
    fn addressed(&self, user: &str, addressees: &Addressees) -> Vec<u32> {
        let Addressees { client, session, spared } = addressees;
        let mut found = match session {
            Some(session) => self.connection_of_session(session, user).into_iter().collect(),
            None if user.is_empty() => self.anonymous_connections(),
            None => self.connections_of_user(user),
        };
        if let Some(client) = client {
            // What is no client id is nobody's.
            let client = ClientIds::parse(client);
            found.retain(|index| client == Some(self.client_ids.bytes_of(self.id(*index))));
        }
        if !spared.is_empty() {
            let spared: Vec<_> = spared.iter().filter_map(|client| ClientIds::parse(client)).collect();
            found.retain(|index| !spared.contains(&self.client_ids.bytes_of(self.id(*index))));
        }
        found
    }

    fn connection_of_session(&self, session: &str, user: &str) -> Option<u32> {
        let id = self.session_ids.read(session).filter(|id| id.shard == self.mesh.shard)?;
        let index = self.live_index(id)?;
        (self.has_user(index) && self.user(index) == user).then_some(index)
    }

    fn anonymous_connections(&self) -> Vec<u32> {
        let anonymous = self.connections.iter().filter(|(_, connection)| connection.user_topic().is_none());
        anonymous.map(|(index, _)| index as u32).filter(|index| self.has_user(*index)).collect()
    }

    /// Whether it is known who the client is, and it is not on its way out.
    fn has_user(&self, index: u32) -> bool {
        let connection = self.connection(index);
        let connecting = connection.extra.as_ref().and_then(|extra| extra.connecting.as_ref());
        let is_known = match connection.session.phase() {
            Phase::Connected => true,
            Phase::Connecting => connecting.is_none_or(|connecting| connecting.admission.is_none()),
            _ => false,
        };
        is_known && !connection.has(Flag::Left)
    }

    fn subscribe_as_granted(&mut self, index: u32, channel: &str, grant: &Grant, recover: Option<&Position>) {
        let Some(namespace) = self.config.namespaces.of_channel(channel).cloned() else { return };
        let request = SubscribeRequest {
            recover: recover.is_some(),
            offset: recover.map_or(0, |recover| recover.offset),
            epoch: recover.map_or("", |recover| &recover.epoch).into(),
            ..SubscribeRequest::default()
        };
        self.subscribe_by_server(index, channel, Terms::granted(&namespace, grant, &request));
    }

    /// Ends all subscriptions of a client, those that wait for their home shards among them.
    fn unsubscribe_from_all(&mut self, index: u32) {
        let connection = self.connection(index);
        let made = connection.subscriptions.iter(&self.further).filter(|subscription| !subscription.is_silent());
        let pending = connection.extra.iter().flat_map(|extra| &extra.pending).map(|pending| pending.topic);
        let topics: Vec<u32> = made.map(|subscription| subscription.topic).chain(pending).collect();
        for topic in topics {
            let channel = self.topics.name(topic).to_owned();
            self.unsubscribe_by_server(index, &channel, Unsubscribe::SERVER);
        }
    }

    /// A connection expires at another time from now on, or never.
    fn refresh_by_server(&mut self, index: u32, expires_at: Option<u64>, info: Option<bytes::Bytes>) {
        if !self.connection(index).session.is_connected() {
            // The connect reply will tell it.
            return self.set_expiry(index, expires_at, info);
        }
        self.refresh(index, Renewal { expires_at, info, meta: None });
        let ttl_seconds = expires_at.map(|at| ttl_seconds(at, self.now_unix_seconds));
        let refresh = Refresh { expires: ttl_seconds.is_some(), ttl_seconds: ttl_seconds.unwrap_or_default() };
        self.push(index, "", &Push::Refresh(refresh));
    }
}
