//! Sessions from the outside: bytes of a client in, frames and calls of a recording shard out.

mod bad_input;
mod compression;
mod connecting;
mod conversations;
mod encodings;
mod hooks;
mod permissions;
mod properties;
mod published_keys;
mod recorder;
mod streams;
mod tokens;
mod uplinks;

use std::sync::Arc;

use recorder::Client;

use crate::{
    config::{Config, Namespace, Namespaces, Pattern, PayloadFormat, RecoveryMode},
    session::Rules,
};

/// Secret of the tests' tokens.
const SECRET: &str = "the secret of the tests";

/// Key of the tests' operator.
const OPERATOR_KEY: &[u8] = b"the operator's key";

/// The time at which all tests happen.
const NOW: u64 = 1_700_000_000;

/// A configuration with a namespace for each kind of permission.
fn config() -> Config {
    let mut config = Config::default();
    config.client.allow_anonymous = true;
    config.client.token.hmac_secret = Some(SECRET.into());
    config.client.allowed_origins = vec!["https://app.example.com".to_owned()];
    config.client.channels_max = 4;
    let closed = |name: &str| Namespace { name: name.to_owned(), ..Namespace::default() };
    let client = Namespace {
        allow_subscribe_for_client: true,
        allow_publish_for_client: true,
        allow_history_for_client: true,
        ..closed("client")
    };
    let open = Namespace {
        allow_subscribe_for_anonymous: true,
        allow_publish_for_anonymous: true,
        allow_history_for_anonymous: true,
        ..client.clone()
    };
    // Sorted by name, as a loaded configuration has them.
    let by_name = [
        Namespace { format: PayloadFormat::Binary, ..Namespace { name: "blobs".to_owned(), ..open.clone() } },
        Namespace {
            history_size: 10,
            history_ttl_ms: 60_000,
            presence: true,
            allow_presence_for_client: true,
            ..client.clone()
        },
        closed("closed"),
        Namespace {
            name: "hh".to_owned(),
            history_size: 10,
            history_ttl_ms: 60_000,
            force_recovery: true,
            presence: true,
            allow_presence_for_client: true,
            allow_presence_for_anonymous: true,
            ..open.clone()
        },
        Namespace {
            history_size: 1,
            history_ttl_ms: 60_000,
            allow_recovery: true,
            force_recovery_mode: RecoveryMode::Cache,
            auto_cache_recover: true,
            ..Namespace { name: "latest".to_owned(), ..open.clone() }
        },
        Namespace {
            name: "may".to_owned(),
            history_size: 10,
            history_ttl_ms: 60_000,
            allow_positioning: true,
            allow_recovery: true,
            ..open.clone()
        },
        Namespace {
            allow_subscribe_for_client: true,
            allow_user_limited_channels: true,
            allow_presence_for_subscriber: true,
            presence: true,
            join_leave: true,
            ..closed("members")
        },
        Namespace {
            channel_regex: Pattern::new("^[a-zé]+$"),
            ..Namespace { name: "named".to_owned(), ..open.clone() }
        },
        Namespace { name: "open".to_owned(), ..open },
        Namespace {
            allow_subscribe_for_client: true,
            allow_publish_for_subscriber: true,
            allow_history_for_subscriber: true,
            history_size: 10,
            history_ttl_ms: 60_000,
            ..closed("subscriber")
        },
    ];
    config.namespaces = Namespaces {
        without: Some(Arc::new(Namespace { name: String::new(), ..client })),
        by_name: by_name.into_iter().map(Arc::new).collect(),
    };
    config
}

/// Rules under a configuration.
fn rules(config: Config) -> Arc<Rules> {
    Arc::new(Rules::new(Arc::new(config), OPERATOR_KEY, vec!["http://127.0.0.1:9000".to_owned()]))
}

/// A client that has not said anything.
fn client() -> Client {
    Client::new(rules(config()))
}
