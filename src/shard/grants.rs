//! What tokens say of single subscriptions: when they expire, and what others see of the subscriber.
//!
//! Owns the expiry of subscriptions. A subscription of which no token says anything costs nothing here: the entries lie
//! in [`Extra`](super::connection::Extra), and the shard keeps those that expire in one ordered set.
//!
//! Invariant: an entry exists only while its subscription does, or waits for its home shard; an element of the set, only
//! while its entry has that expiry. Otherwise the set would grow with every client that comes and goes.

use bytes::Bytes;

use super::state::State;
use crate::{
    protocol::{Disconnect, Push, SubscribeResult, Unsubscribe},
    session::{Reason, ttl_seconds},
};

/// What a token says of one subscription.
pub struct Granted {
    /// The subscription's topic.
    pub topic: u32,
    /// When it expires, in seconds since 1970; 0: never.
    pub expires_unix_seconds: u32,
    /// What other subscribers see of it: a JSON text.
    pub info: Option<Bytes>,
}

impl State {
    /// Remembers what a token says of a subscription that is about to be made.
    pub fn grant(&mut self, index: u32, topic: u32, expires_at: Option<u64>, info: Option<Bytes>) {
        if expires_at.is_some() || info.is_some() {
            let granted = Granted { topic, expires_unix_seconds: 0, info };
            self.connection_mut(index).extra_mut().grants.push(granted);
            self.set_subscription_expiry(index, topic, expires_at);
        }
    }

    /// A subscription has ended, or will not be made.
    pub fn revoke(&mut self, index: u32, topic: u32) {
        let Some(extra) = self.connections[index as usize].extra.as_mut() else { return };
        let Some(position) = extra.grants.iter().position(|granted| granted.topic == topic) else { return };
        let granted = extra.grants.swap_remove(position);
        self.expiries.remove(&(granted.expires_unix_seconds, index, topic));
        self.connections[index as usize].drop_empty_extra();
    }

    /// A connection is on its way out, and what it waited for with it.
    pub fn revoke_all(&mut self, index: u32) {
        let Some(extra) = self.connections[index as usize].extra.as_mut() else { return };
        for granted in std::mem::take(&mut extra.grants) {
            self.expiries.remove(&(granted.expires_unix_seconds, index, granted.topic));
        }
    }

    /// What other subscribers see of this one.
    pub fn chan_info(&self, index: u32, topic: u32) -> Option<Bytes> {
        self.granted(index, topic)?.info.clone()
    }

    /// A subscription's result with when it expires.
    pub fn with_expiry<'a>(&self, index: u32, topic: u32, result: SubscribeResult<'a>) -> SubscribeResult<'a> {
        let granted = self.granted(index, topic).filter(|granted| granted.expires_unix_seconds != 0);
        let ttl = granted.map(|granted| ttl_seconds(granted.expires_unix_seconds.into(), self.now_unix_seconds));
        SubscribeResult { expires: ttl.is_some(), ttl_seconds: ttl.unwrap_or_default(), ..result }
    }

    /// The client has brought a new token for a subscription.
    pub fn refresh_subscription(&mut self, index: u32, topic: u32, expires_at: Option<u64>, info: Option<Bytes>) {
        let is_new_info = info.is_some() && info != self.chan_info(index, topic);
        if self.granted(index, topic).is_none() {
            self.grant(index, topic, expires_at, info);
        } else {
            self.set_subscription_expiry(index, topic, expires_at);
            if let Some(granted) = self.granted_mut(index, topic).filter(|_| is_new_info) {
                granted.info = info;
            }
        }
        if is_new_info {
            self.subscriber_renewed(index, topic);
        }
    }

    /// When the next subscription is over.
    pub fn next_subscription_end_ms(&self) -> Option<u64> {
        let (expires, ..) = self.expiries.first()?;
        Some(self.now_ms + self.subscription_end(*expires).saturating_sub(self.now_unix_seconds) * 1000)
    }

    /// Ends subscriptions whose tokens expired, and were not refreshed within the grace: the client subscribes anew, with
    /// a new token. What the server made ends with its connection only.
    pub fn end_expired_subscriptions(&mut self) {
        while let Some(&(expires, index, topic)) = self.expiries.first()
            && self.subscription_end(expires) <= self.now_unix_seconds
        {
            let subscription = self.connection(index).subscriptions.find(&self.further, topic);
            match subscription.filter(|subscription| !subscription.is_silent()) {
                // Its home shard has yet to answer; then it is over.
                None => self.set_subscription_expiry(index, topic, Some(u64::from(expires) + 1)),
                Some(subscription) if subscription.marks().is_server_side => {
                    self.disconnect(index, Disconnect::SUBSCRIPTION_EXPIRED, Reason::SubscriptionExpired);
                }
                Some(_) => {
                    let channel = self.topics.name(topic).to_owned();
                    self.leave_topic(index, topic);
                    self.counters.count(Reason::SubscriptionExpired);
                    self.push(index, &channel, &Push::Unsubscribe(Unsubscribe::EXPIRED));
                }
            }
        }
    }

    fn subscription_end(&self, expires_unix_seconds: u32) -> u64 {
        u64::from(expires_unix_seconds) + u64::from(self.config.client.expired_grace_ms).div_ceil(1000)
    }

    fn set_subscription_expiry(&mut self, index: u32, topic: u32, expires_at: Option<u64>) {
        let Some(granted) = self.granted_mut(index, topic) else { return };
        let expires = expires_at.map_or(0, |at| u32::try_from(at).unwrap_or(u32::MAX));
        let before = std::mem::replace(&mut granted.expires_unix_seconds, expires);
        self.expiries.remove(&(before, index, topic));
        if expires != 0 {
            self.expiries.insert((expires, index, topic));
        }
    }

    fn granted(&self, index: u32, topic: u32) -> Option<&Granted> {
        self.connection(index).extra.as_ref()?.grants.iter().find(|granted| granted.topic == topic)
    }

    fn granted_mut(&mut self, index: u32, topic: u32) -> Option<&mut Granted> {
        let extra = self.connections[index as usize].extra.as_mut()?;
        extra.grants.iter_mut().find(|granted| granted.topic == topic)
    }
}
