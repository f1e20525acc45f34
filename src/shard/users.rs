//! Users: how a connection comes to have one, and what is done to all connections of one.
//!
//! Every connection of a user is in the topic of the user's personal channel, subscribed or not; there they are found.
//! Where a user's connections are limited, the personal channel's home shard counts them on all shards: it is asked
//! before the connection has its user, and told when the connection ends.
//!
//! Invariant: a connection that was counted ([`Flag::Counted`]) is counted no more once it has left. Were one forgotten,
//! its user could never have as many again. Who came while there was no limit is never counted.

use super::{
    connection::{AwaitedAdmission, Flag},
    state::State,
};
use crate::{
    fanout::{Content, Subscription},
    mesh::{ChannelName, ConnectionId, ToShard},
    protocol::Disconnect,
    session::{Reason, ServerSide},
};

impl State {
    /// A client has proved to be of this user ("": of nobody): goes on with its connect command, perhaps when the user's
    /// other connections have been counted.
    pub fn admit_user(&mut self, index: u32, user: String, channels: Vec<ServerSide>) {
        if user.is_empty() || self.config.client.user_connections_max == 0 {
            self.enter_user(index, &user);
            return self.begin_server_side(index, channels);
        }
        let channel = self.personal_channel(&user);
        let connecting = self.connecting_mut(index).expect("the client connects");
        connecting.waiting += 1;
        connecting.admission = Some(AwaitedAdmission { user, channels });
        let home = channel.home(self.mesh.to_shards.len());
        let connection = self.id(index);
        self.request(home, ToShard::UserConnects { hash: channel.hash, connection });
    }

    /// The home shard has counted: goes on with the connect command, or ends the connection.
    pub fn user_admitted(&mut self, hash: u64, connection: ConnectionId, is_admitted: bool) {
        let Some(index) = self.live_index(connection) else {
            if is_admitted {
                self.tell_user_left(hash);
            }
            return;
        };
        if !is_admitted {
            return self.disconnect(index, Disconnect::CONNECTION_LIMIT, Reason::UserConnectionsExhausted);
        }
        let connecting = self.connecting_mut(index).expect("a client that is not gone still connects");
        let awaited = connecting.admission.take().expect("the home shard answers once");
        self.connection_mut(index).set(Flag::Counted);
        self.enter_user(index, &awaited.user);
        self.begin_server_side(index, awaited.channels);
        self.connect_goes_on(index);
    }

    /// A connection is on its way out: its user has one less.
    pub fn leave_user(&mut self, index: u32) {
        self.counters.users -= u64::from(self.is_only_one_of_user(index));
        if self.connection_mut(index).clear(Flag::Counted)
            && let Some(topic) = self.connection(index).user_topic()
        {
            self.tell_user_left(self.hasher.hash(self.topics.name(topic)));
        }
    }

    fn tell_user_left(&mut self, hash: u64) {
        let home = ChannelName::home_of(hash, self.mesh.to_shards.len());
        self.mesh.to_shards[home].send(ToShard::UserLeft { hash });
    }

    /// In the user's topic from now on, subscribed or not: there the user's connections are found.
    fn enter_user(&mut self, index: u32, user: &str) {
        if user.is_empty() {
            return;
        }
        let topic = self.find_or_insert_topic(index, &self.personal_channel(user), &Content::Whole);
        self.hand_out(topic);
        let position = self.topics.attach_silent(topic, index);
        let connection = &mut self.connections[index as usize];
        connection.subscriptions.insert(&mut self.further, Subscription::silent(topic, position));
        connection.set(Flag::Identified);
        self.counters.users += u64::from(self.is_only_one_of_user(index));
    }

    /// The id of a connection's user; "" if it has none.
    pub fn user(&self, index: u32) -> &str {
        let topic = self.connection(index).user_topic();
        topic.map_or("", |topic| self.config.client.user_of_personal_channel(self.topics.name(topic)))
    }

    /// A user's connections on this shard, in any form, subscribed to the personal channel or not.
    pub fn connections_of_user(&self, user: &str) -> Vec<u32> {
        let channel = self.personal_channel(user);
        let topics = self.topics.of_channel(channel.hash, &channel.name);
        let members = topics.flat_map(|topic| self.topics.members(topic).iter().map(move |index| (topic, *index)));
        // Whoever was allowed to subscribe to another user's channel is not that user.
        let is_of_user = |(topic, index): &(u32, u32)| self.connection(*index).user_topic() == Some(*topic);
        members.filter(is_of_user).map(|(_, index)| index).collect()
    }

    /// Whether a connection has a user who has no other connection on this shard.
    fn is_only_one_of_user(&self, index: u32) -> bool {
        let Some(topic) = self.connection(index).user_topic() else { return false };
        let name = self.topics.name(topic);
        let topics = self.topics.of_channel(self.hasher.hash(name), name);
        let mut members = topics.flat_map(|topic| self.topics.members(topic).iter().map(move |index| (topic, *index)));
        !members.any(|(topic, other)| other != index && self.connection(other).user_topic() == Some(topic))
    }

    fn personal_channel(&self, user: &str) -> ChannelName {
        self.hasher.name(&self.config.client.personal_channel_of(user))
    }
}
