//! A home shard with many channels: a subscriber each, as users' personal channels have.

use std::sync::Arc;

use bytes::Bytes;

use super::{publication::PUBLICATION, shuffle::shuffled};
use tidegate::{
    channel::{Channels, PublishOutcome},
    config::{Config, Namespace},
    mesh::{ChannelHasher, ChannelName, Publish},
};

/// Publications that a channel of the namespace `kept` keeps.
const HISTORY_SIZE: u32 = 100;

/// The key of all hashes of names, the same each time.
const HASH_KEY: [u8; 16] = [7; 16];

/// The channels.
pub struct Home {
    channels: Channels,
    names: Vec<ChannelName>,
    /// Names in no order.
    order: Vec<u32>,
    next: usize,
    data: Bytes,
}

impl Home {
    /// So many channels of a namespace: `plain` is without history, `kept` with it.
    pub fn new(namespace: &str, channels: u32) -> Self {
        let hasher = ChannelHasher::with_key(HASH_KEY);
        let names = (0..channels).map(|number| hasher.name(&format!("{namespace}:{number}"))).collect();
        let mut home = Self {
            channels: Channels::new(Arc::new(config()), 63, 1),
            names,
            order: shuffled(channels),
            next: 0,
            data: Bytes::from_static(PUBLICATION.data),
        };
        for name in &home.names {
            home.channels.interest(name, 0, 1);
        }
        home
    }

    /// Looks up who wants the publications of `count` channels, in no order.
    pub fn subscribers(&mut self, count: usize) -> u32 {
        let mut subscribers = 0;
        for _ in 0..count {
            let index = self.next_index();
            subscribers += self.channels.subscribers(&self.names[index]);
        }
        subscribers
    }

    /// Publishes to the next channel, in no order.
    pub fn publish(&mut self) -> PublishOutcome {
        let index = self.next_index();
        let publish = Publish::json(self.names[index].clone(), self.data.clone());
        self.channels.publish(publish, 0)
    }

    /// Publishes until every channel keeps as many publications as it may.
    pub fn fill_history(&mut self) {
        for _ in 0..self.names.len() * HISTORY_SIZE as usize {
            self.publish();
        }
    }

    fn next_index(&mut self) -> usize {
        self.next = (self.next + 1) % self.order.len();
        self.order[self.next] as usize
    }
}

fn config() -> Config {
    let mut config = Config::default();
    let kept = Namespace {
        name: "kept".to_owned(),
        history_size: HISTORY_SIZE,
        history_ttl_ms: 60_000,
        ..Namespace::default()
    };
    let plain = Namespace { name: "plain".to_owned(), ..Namespace::default() };
    // Sorted by name.
    config.namespaces.by_name = vec![Arc::new(kept), Arc::new(plain)];
    config
}
