//! Publications as patches to each other (protocol.md section 10).
//!
//! A topic of deltas is given each publication once, as a patch where it can be. Beside that batch lies another with the
//! same publications whole, if somebody needs them: who has just come, and who is slow where publications may be dropped.
//! So whatever a policy drops, what follows is whole; and whoever has taken all of it goes on with patches.

use super::{state::State, view};
use crate::{
    mesh::{Publication, Recovery, Subscribed},
    protocol::{Delta, Encoding, PublicationView, Push},
};

impl State {
    /// Encodes a publication for a topic of deltas.
    pub fn deliver_delta(&mut self, topic: u32, publication: &Publication) {
        let (channel, form) = (&*publication.channel.name, self.topics.form(topic));
        let (open, wholes) = self.open_chain(topic);
        let view = PublicationView { delta: Delta::Full, ..view::publication(publication) };
        if let Some(wholes) = wholes {
            self.write_push(wholes, form, channel, &Push::Publication(view));
        }
        let mut patches = std::mem::take(&mut self.patches);
        // What history keeps is no slice of a producer's read buffer.
        let is_kept = publication.epoch.is_some();
        let payload = if is_kept { publication.data.clone() } else { patches.copy(&publication.data) };
        let base = self.topics.advance_chain(topic, payload.clone());
        let namespace = self.config.namespaces.of_channel(channel);
        let may_be_patch = publication.delta || namespace.is_some_and(|namespace| namespace.delta_publish);
        let must_be_text = form.encoding() == Encoding::Json;
        let base = base.filter(|_| may_be_patch);
        let view = match base.and_then(|base| patches.between(&base, &payload, must_be_text)) {
            Some(data) => {
                self.turn.open_batch_mut(open).is_chain = true;
                PublicationView { data, delta: Delta::Patch, ..view }
            }
            None => view,
        };
        self.write_push(open, form, channel, &Push::Publication(view));
        self.patches = patches;
    }

    /// The open batch of a topic of deltas, and that of whole publications beside it.
    fn open_chain(&mut self, topic: u32) -> (u32, Option<u32>) {
        let is_open = self.topics.open_batch(topic).is_some_and(|open| !self.turn.is_news(open));
        let open = self.open_batch(topic, false);
        let policy = self.topics.policy(topic);
        let may_drop = policy.drops() && !self.backlogged.is_empty();
        let chain = self.topics.chain_mut(topic);
        if !is_open && (chain.lacks_base || may_drop) {
            chain.wholes = Some(self.turn.open_batch(topic, policy));
        }
        (open, chain.wholes)
    }

    /// Hands a topic's patches to its subscribers, or the whole publications to those that need them.
    pub fn hand_out_chain(&mut self, topic: u32, open: u32) {
        let chain = self.topics.chain_mut(topic);
        let wholes = chain.wholes.take();
        assert!(
            wholes.is_some() || !chain.lacks_base,
            "a batch without whole publications is for those that have the base"
        );
        let terms = self.compression_terms(topic);
        let (mut giving, topics) = self.giving();
        let lacks_base = giving.give_chain(topic, open, wholes, terms, topics.subscribers(topic));
        self.topics.chain_mut(topic).lacks_base = lacks_base;
        if terms.is_some() {
            self.count_compression(topic);
        }
    }

    /// A subscriber has come to a topic of deltas. The last that it recovered may be what the next patch is made to.
    pub fn join_chain(&mut self, index: u32, topic: u32, subscribed: &Subscribed) {
        let recovered = match &subscribed.recovery {
            Some(Recovery::Recovered { publications, .. }) => publications.last(),
            _ => None,
        };
        let has_base = recovered.is_some_and(|last| self.topics.join_chain(topic, &last.data));
        self.set_base(index, topic, has_base);
    }

    /// What a connection was given in a topic waits, and may be dropped before it is sent.
    pub fn lose_base(&mut self, index: u32, topic: u32) {
        if !self.topics.contains(topic) {
            return;
        }
        if self.topics.has_deltas(topic) {
            self.set_base(index, topic, false);
        } else {
            self.leave_cohort(index, topic);
        }
    }

    fn set_base(&mut self, index: u32, topic: u32, has_base: bool) {
        let subscriptions = &mut self.connections[index as usize].subscriptions;
        if let Some(subscription) = subscriptions.find(&self.further, topic) {
            subscriptions.replace(&mut self.further, subscription.with_base(has_base));
            self.topics.chain_mut(topic).lacks_base |= !has_base;
        }
    }
}
