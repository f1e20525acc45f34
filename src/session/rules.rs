//! What a session's decisions rest on; made once per shard, and changed by a reload.

use std::sync::Arc;

use crate::{
    config::Config,
    protocol::{KeySet, TokenVerifier},
};

/// The configuration, and what is made of it.
#[derive(Debug)]
pub struct Rules {
    pub(super) config: Arc<Config>,
    pub(super) verifier: TokenVerifier,
    /// Origins of the server's own pages.
    pub(super) console_origins: Vec<String>,
}

impl Rules {
    /// What clients are told they talk to.
    pub const SERVER_VERSION: &str = concat!("Tidegate ", env!("CARGO_PKG_VERSION"));

    /// Rules under a configuration. `operator_key` is random and known to this process only;
    /// `console_origins` are those under which browsers see the console, such as `http://127.0.0.1:9000`.
    pub fn new(config: Arc<Config>, operator_key: &[u8], console_origins: Vec<String>) -> Self {
        Self { verifier: TokenVerifier::new(&config.client.token, operator_key), config, console_origins }
    }

    /// From now on this configuration counts.
    pub fn reconfigure(&mut self, config: Arc<Config>) {
        self.verifier.reconfigure(&config.client.token);
        self.config = config;
    }

    /// From now on these published keys verify tokens. `is_current`: their publisher was reached.
    pub fn set_key_set(&mut self, keys: Arc<KeySet>, is_current: bool) {
        self.verifier.set_key_set(keys, is_current);
    }
}
