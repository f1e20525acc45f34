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
        let ends = self.subscription_end(topic, granted.expires_unix_seconds);
        self.expiries.remove(&(ends, index, topic));
        self.connections[index as usize].drop_empty_extra();
    }

    /// A connection is on its way out, and what it waited for with it.
    pub fn revoke_all(&mut self, index: u32) {
        let Some(extra) = self.connections[index as usize].extra.as_mut() else { return };
        for granted in std::mem::take(&mut extra.grants) {
            let ends = self.subscription_end(granted.topic, granted.expires_unix_seconds);
            self.expiries.remove(&(ends, index, granted.topic));
        }
    }

    /// What other subscribers see of this one.
    pub fn chan_info(&self, index: u32, topic: u32) -> Option<Bytes> {
        self.granted(index, topic)?.info.clone()
    }

    /// A subscription's result with when it expires.
    pub fn with_expiry<'a>(&self, index: u32, topic: u32, result: SubscribeResult<'a>) -> SubscribeResult<'a> {
        let expires = |granted: &&Granted| granted.expires_unix_seconds != 0;
        let granted = self.granted(index, topic).filter(expires).filter(|_| !self.is_sub_refreshed_by_hook(topic));
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
        let (ends, ..) = self.expiries.first()?;
        Some(self.now_ms + u64::from(*ends).saturating_sub(self.now_unix_seconds) * 1000)
    }

    /// Ends subscriptions whose tokens expired, and were not refreshed within the grace, or asks the back end about them.
    /// What the server made ends with its connection only.
    pub fn end_expired_subscriptions(&mut self) {
        while let Some(&(ends, index, topic)) = self.expiries.first()
            && u64::from(ends) <= self.now_unix_seconds
        {
            let subscription = self.connection(index).subscriptions.find(&self.further, topic);
            match subscription.filter(|subscription| !subscription.is_silent()) {
                // Its home shard has yet to answer; then it is over.
                None => {
                    let granted = self.granted(index, topic).expect("what is in the set was granted");
                    self.set_subscription_expiry(index, topic, Some(u64::from(granted.expires_unix_seconds) + 1));
                }
                Some(_) if self.is_sub_refreshed_by_hook(topic) => self.ask_sub_refresh(index, topic),
                Some(subscription) if subscription.marks().is_server_side => {
                    self.disconnect(index, Disconnect::SUBSCRIPTION_EXPIRED, Reason::SubscriptionExpired);
                }
                Some(_) => self.expire_subscription(index, topic),
            }
        }
    }

    /// Ends a subscription that its client has made: it subscribes anew, with a new token.
    pub fn expire_subscription(&mut self, index: u32, topic: u32) {
        let channel = self.topics.name(topic).to_owned();
        self.leave_topic(index, topic);
        self.count(index, Reason::SubscriptionExpired, &channel);
        self.push(index, &channel, &Push::Unsubscribe(Unsubscribe::EXPIRED));
    }

    /// What decides when subscriptions end has changed.
    pub fn reconsider_expiries(&mut self) {
        for (_, index, topic) in std::mem::take(&mut self.expiries) {
            let granted = self.granted(index, topic).expect("what is in the set was granted");
            self.expiries.insert((self.subscription_end(topic, granted.expires_unix_seconds), index, topic));
        }
    }

    /// Until when a client may bring another token, or when the back end is asked.
    fn subscription_end(&self, topic: u32, expires_unix_seconds: u32) -> u32 {
        let grace_ms = if self.is_sub_refreshed_by_hook(topic) { 0 } else { self.config.client.expired_grace_ms };
        expires_unix_seconds.saturating_add(grace_ms.div_ceil(1000))
    }

    /// A subscription expires then; none: never.
    pub fn set_subscription_expiry(&mut self, index: u32, topic: u32, expires_at: Option<u64>) {
        let Some(granted) = self.granted_mut(index, topic) else { return };
        let expires = expires_at.map_or(0, |at| u32::try_from(at).unwrap_or(u32::MAX));
        let before = std::mem::replace(&mut granted.expires_unix_seconds, expires);
        self.expiries.remove(&(self.subscription_end(topic, before), index, topic));
        if expires != 0 {
            self.expiries.insert((self.subscription_end(topic, expires), index, topic));
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
