//! Another configuration: how a shard comes to live by it.
//!
//! Owns what has been derived from the old configuration and lies in the shard's tables. What a channel's history makes
//! of it is `channel`'s business, what sessions make of it `session`'s.
//!
//! Invariants:
//! - The shard changes between two messages, when no session acts: nobody meets the old rules and the new ones in one
//!   step. Other shards change a moment sooner or later, which does no harm, as a home shard asks nothing of a
//!   subscription but what its own rules can give, and says what that is.
//! - A subscription keeps what it was granted. Connections are not looked at: who is here stays.
//! - Who on the home shard itself is subscribed to a channel is counted in one of two places
//!   ([`Channels::counts_own`]), by the channel's namespace. Where that changes, all such topics are counted anew at once;
//!   otherwise publications would miss them.

use std::{collections::BTreeSet, rc::Rc, sync::Arc};

use super::state::State;
use crate::{
    channel::Channels,
    config::{Config, Namespace, Namespaces, SlowConsumerPolicy},
    mesh::{ChannelName, ToControl},
};

/// What topics take from the namespace of their channel and keep: what happens to slow subscribers, and whether those on
/// the home shard are counted there.
type TopicRules = (SlowConsumerPolicy, bool);

impl State {
    /// From now on this configuration counts.
    pub fn reconfigure(&mut self, config: Arc<Config>, reload: u64) {
        let before = std::mem::replace(&mut self.config, Arc::clone(&config));
        let rules = Rc::get_mut(&mut self.rules).expect("no session acts while messages are taken in");
        rules.reconfigure(config);
        self.channels.reconfigure(&self.config);
        self.admitting.reconfigure(&self.config);
        if before.tracing != self.config.tracing {
            self.sampler.configure(&self.config.tracing);
        }
        if topics_differ(&before.namespaces, &self.config.namespaces) {
            self.reconsider_topics(&before.namespaces);
        }
        self.reconsider_expiries();
        self.keys_reconfigured();
        self.mesh.to_control.send(ToControl::Reconfigured { reload });
    }

    /// A message of this shard to itself tells how many subscribers a channel has here. If it was sent before a reload, it
    /// may have been overtaken: they are counted anew. How many there are.
    pub fn recounted(&mut self, channel: &ChannelName, shard: u16, subscribers: u32) -> u32 {
        if shard != self.mesh.shard || self.recounts == 0 {
            return subscribers;
        }
        let subscribers = self.topics.interest(channel.hash, &channel.name);
        let is_counted = self.channels.counts_own(channel);
        self.channels.recount_own(channel.hash, if is_counted { subscribers } else { 0 });
        subscribers
    }

    fn reconsider_topics(&mut self, before: &Namespaces) {
        let own = usize::from(self.mesh.shard);
        self.recounts = self.mesh.inbound[own].len() + self.mesh.to_shards[own].held();
        for topic in self.topics.iter().collect::<Vec<_>>() {
            let name = self.topics.name(topic);
            let (_, counted_before) = topic_rules(namespace_of(before, name));
            let (policy, counts_own) = topic_rules(namespace_of(&self.config.namespaces, name));
            if counts_own != counted_before {
                let hash = self.hasher.hash(name);
                if ChannelName::home_of(hash, self.mesh.to_shards.len()) == own {
                    let subscribers = if counts_own { self.topics.interest(hash, name) } else { 0 };
                    self.channels.recount_own(hash, subscribers);
                }
            }
            self.topics.set_policy(topic, policy);
        }
    }
}

fn namespace_of<'n>(namespaces: &'n Namespaces, channel: &str) -> Option<&'n Namespace> {
    namespaces.of_channel(channel).map(|namespace| &**namespace)
}

fn topic_rules(namespace: Option<&Namespace>) -> TopicRules {
    let policy = namespace.map_or_else(SlowConsumerPolicy::default, |namespace| namespace.slow_consumer);
    (policy, Channels::counts_own_in(namespace))
}

/// Whether topics of some namespace have to be looked at: all of a shard's are then, since there is no list by namespace.
fn topics_differ(before: &Namespaces, after: &Namespaces) -> bool {
    let rules = |namespaces: &Namespaces, name: &str| {
        let namespace = namespaces.by_name.iter().find(|namespace| namespace.name == name);
        topic_rules(namespace.map(|namespace| &**namespace))
    };
    let without = |namespaces: &Namespaces| topic_rules(namespaces.without.as_deref());
    let names: BTreeSet<&str> =
        before.by_name.iter().chain(&after.by_name).map(|namespace| namespace.name.as_str()).collect();
    without(before) != without(after) || names.into_iter().any(|name| rules(before, name) != rules(after, name))
}
