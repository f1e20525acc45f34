//! Tests of the configuration as a whole: text and environment in, values or messages out.

use std::path::Path;

use super::{
    Config, Errors, Loaded, Namespace, PayloadFormat, SlowConsumerPolicy,
    load::{Draft, load_text},
    reference,
    schema::{Keys, NAMESPACE_OPTIONS, SECTIONS, known_keys},
};

/// Cores of the imagined host.
const CORES: &[u32] = &[0, 1, 2, 3];

fn load_with(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, Errors> {
    let environment = environment.iter().map(|(variable, text)| (variable.to_string(), text.to_string()));
    load_text(Some((Path::new("tidegate.toml"), text)), environment, CORES)
}

/// The configuration of a text that must be flawless.
fn config_of(text: &str) -> Config {
    match load_with(text, &[]) {
        Ok(loaded) => {
            assert_eq!(loaded.warnings, [], "{text}");
            loaded.config
        }
        Err(errors) => panic!("{errors}\nin\n{text}"),
    }
}

/// The messages of a text that must be refused.
fn errors_of(text: &str, environment: &[(&str, &str)]) -> String {
    match load_with(text, environment) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(errors) => errors.to_string(),
    }
}

/// The warnings of a text that must be accepted.
fn warnings_of(text: &str, environment: &[(&str, &str)]) -> String {
    let loaded = load_with(text, environment).unwrap_or_else(|errors| panic!("{errors}"));
    loaded.warnings.iter().map(|problem| format!("{problem}\n")).collect()
}

fn defaults() -> Config {
    load_text(None, std::iter::empty(), CORES).expect("the embedded defaults are valid").config
}

#[test]
fn the_embedded_defaults_are_those_documented_beside_the_values() {
    let config = defaults();
    assert_eq!(config.client.listen.to_string(), "127.0.0.1:8000");
    assert!(!config.client.allow_anonymous);
    assert_eq!(config.client.token_hmac_secret, None);
    assert_eq!(config.client.allowed_origins, Vec::<String>::new());
    assert_eq!(config.client.connections_max, 1_000_000);
    assert_eq!(config.client.channels_max, 128);
    assert_eq!(config.client.message_bytes_max, 65_536);
    assert_eq!(config.client.request_head_ms_max, 5_000);
    assert_eq!(config.client.connect_ms_max, 10_000);
    assert_eq!(config.client.ping_ms, 25_000);
    assert_eq!(config.client.pong_ms_max, 8_000);
    assert_eq!(config.client.pong_grace_ms, 8_000);
    assert_eq!(config.client.expired_grace_ms, 25_000);
    assert!(config.client.personal_channel);
    assert_eq!(config.ingest.listen.map(|listen| listen.to_string()).as_deref(), Some("127.0.0.1:7400"));
    assert_eq!(config.ingest.unix, None);
    assert_eq!(config.ingest.payload_bytes_max, 1 << 20);
    assert_eq!(config.ingest.connections_max, 1_024);
    assert_eq!(config.ingest.idempotency_ms, 300_000);
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9000");
    assert_eq!(config.shards.cores, CORES);
    assert_eq!(config.shards.outbox_bytes_max, 1 << 20);
    assert_eq!(config.shards.outboxes_bytes_max, 256 << 20);
    assert_eq!(config.shutdown.ms_max, 10_000);
    assert_eq!(config.shutdown.spread_ms, 5_000);
    assert_eq!(config.log.level, "info");
    assert_eq!(config.namespaces.without.as_deref(), Some(&Namespace::default()));
    assert!(config.namespaces.by_name.is_empty());
}

#[test]
fn the_defaults_run_on_the_cores_of_this_process() {
    assert!(!Config::default().shards.cores.is_empty());
}
