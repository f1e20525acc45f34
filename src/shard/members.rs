//! Who comes and who goes: what home shards are told of it, and what subscribers hear.
//!
//! A subscription whose namespace wants to know its subscribers is asked of the home shard with a
//! [`Member`] and marked; when a marked subscription ends, however it ends, the home shard is told.
//! While the shard stops nobody hears of it: all go, and each would be told to all that are left.

use std::sync::Arc;

use super::{state::State, view};
use crate::{
    channel::Telling,
    fanout::Marks,
    mesh::{
        Announcement, ChannelName, ClientInfo, ConnectionId, Member, MemberChange, MemberRenewed, PresenceFound,
        ToShard,
    },
    protocol::{ErrorCode, Push, Reply},
    session::Terms,
};

impl State {
    /// Who a connection is, to others.
    pub fn client_info(&self, index: u32, chan_info: Option<bytes::Bytes>) -> ClientInfo {
        let extra = self.connection(index).extra.as_ref();
        ClientInfo {
            user: self.user(index).into(),
            client: self.client_ids.of(self.id(index)).into(),
            conn_info: extra.and_then(|extra| extra.info.clone()),
            chan_info,
        }
    }

    /// What a subscription on these terms is like, and who subscribes, if the home shard is to know.
    pub fn member(&self, index: u32, terms: &Terms, is_server_side: bool) -> (Marks, Option<Arc<Member>>) {
        let is_known_at_home = terms.emit_presence || terms.emit_join_leave;
        let member = is_known_at_home.then(|| {
            Arc::new(Member {
                info: self.client_info(index, terms.chan_info.clone()),
                is_present: terms.emit_presence,
                is_announced: terms.emit_join_leave,
            })
        });
        (Marks { is_server_side, is_known_at_home, hears_joins: terms.push_join_leave }, member)
    }

    /// What others see of a client has changed, wherever it is: the home shards that know it are told.
    pub fn client_renewed(&mut self, index: u32) {
        let connection = self.connection(index);
        let subscribed =
            connection.subscriptions.iter(&self.further).map(|subscription| (subscription.topic, subscription.marks()));
        let pending = connection.extra.iter().flat_map(|extra| &extra.pending);
        let pending = pending.map(|pending| (pending.topic, pending.marks));
        let topics: Vec<u32> =
            subscribed.chain(pending).filter(|(_, marks)| marks.is_known_at_home).map(|(topic, _)| topic).collect();
        topics.into_iter().for_each(|topic| self.member_renewed(index, topic));
    }

    /// The same for one channel.
    pub fn subscriber_renewed(&mut self, index: u32, topic: u32) {
        let connection = self.connection(index);
        let subscription = connection.subscriptions.find(&self.further, topic).map(|subscription| subscription.marks());
        let pending = connection.extra.iter().flat_map(|extra| &extra.pending);
        let pending = pending.filter(|pending| pending.topic == topic).map(|pending| pending.marks);
        if subscription.into_iter().chain(pending).any(|marks| marks.is_known_at_home) {
            self.member_renewed(index, topic);
        }
    }

    fn member_renewed(&mut self, index: u32, topic: u32) {
        let channel = self.hasher.name(self.topics.name(topic));
        let home = channel.home(self.mesh.to_shards.len());
        let info = self.client_info(index, self.chan_info(index, topic));
        let connection = self.id(index);
        self.mesh.to_shards[home].send(ToShard::MemberRenewed(Box::new(MemberRenewed { channel, connection, info })));
    }

    /// A subscription has ended, or was taken back before it was made.
    pub fn subscription_ended(&mut self, index: u32, topic: u32, marks: Marks) {
        if marks.is_known_at_home {
            let channel = self.hasher.name(self.topics.name(topic));
            let home = channel.home(self.mesh.to_shards.len());
            let connection = self.id(index);
            let is_quiet = self.is_draining();
            self.mesh.to_shards[home].send(ToShard::Leave { channel, connection, is_quiet });
        }
    }

    /// As the channel's home: a member has left.
    pub fn member_left(&mut self, channel: &ChannelName, connection: ConnectionId, is_quiet: bool) {
        let told = self.channels.leave(channel, connection);
        if !is_quiet {
            self.tell_members(told);
        }
    }

    /// As the channel's home: tells the shards with subscribers.
    pub fn tell_members(&mut self, told: Option<Telling>) {
        let Some(Telling { announcement, mut shards }) = told else { return };
        if self.own_subscribers(&announcement.channel) > 0 {
            shards |= 1 << self.mesh.shard;
        }
        while shards != 0 {
            let shard = shards.trailing_zeros() as usize;
            shards &= shards - 1;
            self.mesh.to_shards[shard].send(ToShard::Announce(Arc::clone(&announcement)));
        }
    }

    /// Encodes the news for each of the channel's topics, next to other news of the turn.
    pub fn announce(&mut self, announcement: &Announcement) {
        let channel = &announcement.channel;
        let info = view::client_info(&announcement.member.info);
        let push = match announcement.change {
            MemberChange::Join => Push::Join(info),
            MemberChange::Leave => Push::Leave(info),
        };
        let mut next = self.topics.first_of_channel(channel.hash, &channel.name);
        while let Some(topic) = next {
            next = self.topics.next_of_channel(topic);
            if !self.topics.subscribers(topic).is_empty() {
                let open = self.open_batch(topic, true);
                self.write_push(open, self.topics.form(topic), &channel.name, &push);
            }
        }
    }

    /// The home shard's answer to who is in a channel.
    pub fn presence_found(&mut self, index: u32, command: u32, found: &PresenceFound) {
        match found {
            PresenceFound::Members(members) => {
                let clients: Vec<_> = members.iter().map(|member| view::client_info(&member.info)).collect();
                self.reply(index, command, &Reply::Presence(&clients));
            }
            PresenceFound::TooMany => self.reply(index, command, &ErrorCode::LimitExceeded.into()),
            PresenceFound::Stats(stats) => self.reply(index, command, &Reply::PresenceStats(*stats)),
        }
    }
}
