//! Tests of the configuration as a whole: text and environment in, values or messages out.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::{
    AdminConfig, ApiConfig, AttributesConfig, CertificateFiles, Change, ClientConfig, ClientTlsConfig,
    CompressionConfig, CompressionMode, Config, DeltaType, Dictionary, ErrorMode, Errors, Hook, HookConfig,
    HookRefusal, HooksConfig, IngestConfig, IngestTlsConfig, KeyFamily, LimitsConfig, Loaded, LogConfig, LogFormat,
    Namespace, Namespaces, Pattern, PayloadFormat, PublicKey, RecoveryMode, ShardsConfig, ShutdownConfig,
    SlowConsumerPolicy, StatusTransform, TlsConfig, TlsVersion, TokenConfig, TracingConfig, change,
    load::{Draft, load, load_text},
    reference,
    schema::{Effect, Keys, NAMESPACE_OPTIONS, SECTIONS, known_keys},
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

/// Where the keys of the tests lie.
const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/");

fn public_key(file: &str, family: KeyFamily) -> PublicKey {
    PublicKey::read(&format!("{KEYS}{file}"), family).expect("a key of this family")
}

fn defaults() -> Config {
    load_text(None, std::iter::empty(), CORES).expect("the embedded defaults are valid").config
}

#[test]
fn the_embedded_defaults_are_those_documented_beside_the_values() {
    let config = defaults();
    assert_eq!(config.client.listen.to_string(), "127.0.0.1:8000");
    assert!(!config.client.allow_anonymous);
    assert_eq!(config.client.token, TokenConfig { jwks_refresh_ms: 600_000, ..TokenConfig::default() });
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
    assert!(config.client.personal_channel && !config.client.insecure);
    assert_eq!((&config.client.personal_channel_namespace, config.client.user_connections_max), (&None, 0));
    assert_eq!(config.ingest.listen.map(|listen| listen.to_string()).as_deref(), Some("127.0.0.1:7400"));
    assert_eq!((config.client.tls.handshakes_max, config.client.tls.handshakes_per_second_max), (1_024, 2_000));
    assert!(config.client.tls.port == TlsConfig::default() && config.ingest.tls.port == TlsConfig::default());
    assert_eq!((config.ingest.tls.handshake_ms_max, config.ingest.tls.handshakes_max), (5_000, 256));
    assert_eq!(config.ingest.unix, None);
    assert_eq!(config.ingest.payload_bytes_max, 1 << 20);
    assert_eq!(config.ingest.connections_max, 1_024);
    assert_eq!(config.ingest.idempotency_ms, 300_000);
    assert_eq!(config.ingest.zstd_dictionaries, []);
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9000");
    assert_eq!(config.attributes, AttributesConfig { bytes_max: 4_096, keys_max: 64, depth_max: 4 });
    let hook = HookConfig { endpoint: None, ms_max: 1_000 };
    assert!(Hook::ALL.iter().all(|one| *config.hooks.of(*one) == hook));
    assert_eq!((config.hooks.requests_max, config.hooks.queue_max), (64, 10_000));
    assert!(config.hooks.secret.is_none() && config.hooks.headers.is_empty());
    assert!(!config.hooks.include_connection_meta && !config.hooks.binary_encoding);
    assert_eq!(config.hooks.status_transforms, []);
    let tracing = TracingConfig {
        endpoint: None,
        sample_one_in: 1_000,
        traces_per_second_max: 100,
        service_name: Some("tidegate".to_owned()),
        headers: Vec::new(),
        include_channel: false,
    };
    assert_eq!(config.tracing, tracing);
    assert_eq!(config.shards.cores, CORES);
    assert_eq!(config.shards.outbox_bytes_max, 1 << 20);
    assert_eq!(config.shards.outboxes_bytes_max, 256 << 20);
    assert_eq!(config.shards.history_bytes_max, 1 << 30);
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

/// Values that are nowhere the defaults, valid or not. Every field is named, so that a new one stops the build until it is
/// listed here.
fn other_values() -> Config {
    let listen = "[::2]:1".parse().expect("an address");
    let hook = || HookConfig { endpoint: Some(String::new()), ms_max: 0 };
    let files = CertificateFiles { certificate: PathBuf::new(), key: PathBuf::new() };
    let tls = || TlsConfig { certificates: vec![files.clone()], version_min: TlsVersion::Tls13 };
    Config {
        client: ClientConfig {
            listen,
            allow_anonymous: true,
            allow_public_without_authentication: true,
            token: TokenConfig {
                hmac_secret: Some("".into()),
                hmac_secret_previous: Some("".into()),
                rsa_public_key: Some(public_key("rsa.pem", KeyFamily::Rsa)),
                ecdsa_public_key: Some(public_key("ecdsa.pem", KeyFamily::Ecdsa)),
                ed25519_public_key: Some(public_key("ed25519.pem", KeyFamily::Ed25519)),
                jwks_public_endpoint: Some(String::new()),
                jwks_refresh_ms: 0,
                audience: Some(String::new()),
                audience_regex: Pattern::new("."),
                issuer: Some(String::new()),
                issuer_regex: Pattern::new("."),
                user_id_claim: Some(String::new()),
            },
            allowed_origins: vec![String::new()],
            deny: vec!["::1".parse().expect("a prefix")],
            proxy_protocol_from: vec!["::1".parse().expect("a prefix")],
            limits: LimitsConfig {
                address_connections_max: 1,
                network_connections_max: 1,
                address_accepts_per_second: 1,
                handshakes_max: 1,
                commands_per_second: 1,
                user_commands_per_second: 1,
                publications_per_second: 1,
                received_bytes_per_second: 1,
                memory_reserve_bytes: 1,
            },
            connections_max: 0,
            channels_max: 0,
            message_bytes_max: 0,
            request_head_ms_max: 0,
            connect_ms_max: 0,
            ping_ms: 0,
            pong_ms_max: 0,
            pong_grace_ms: 0,
            expired_grace_ms: 0,
            personal_channel: false,
            personal_channel_namespace: Some(String::new()),
            user_connections_max: 1,
            insecure: true,
            tls: ClientTlsConfig { port: tls(), handshakes_max: 0, handshakes_per_second_max: 0, kernel: true },
        },
        ingest: IngestConfig {
            listen: None,
            unix: Some(PathBuf::new()),
            password: Some("".into()),
            allow_public_without_password: true,
            payload_bytes_max: 0,
            connections_max: 0,
            idempotency_ms: 0,
            zstd_dictionaries: vec![Dictionary::read(&format!("{KEYS}ticks.dictionary")).expect("a dictionary")],
            tls: IngestTlsConfig {
                port: tls(),
                client_authority: Some(PathBuf::new()),
                handshake_ms_max: 0,
                handshakes_max: 0,
            },
        },
        admin: AdminConfig { listen, allow_public: true, password: Some("".into()), tls: tls() },
        api: ApiConfig {
            listen: Some(listen),
            on_client_port: true,
            keys: vec!["".into()],
            insecure: true,
            error_mode: ErrorMode::Transport,
            tls: tls(),
        },
        hooks: HooksConfig {
            connect: hook(),
            refresh: hook(),
            subscribe: hook(),
            publish: hook(),
            rpc: hook(),
            sub_refresh: hook(),
            disconnect: hook(),
            attributes: hook(),
            requests_max: 0,
            queue_max: 0,
            secret: Some("".into()),
            headers: vec![String::new()],
            include_connection_meta: true,
            binary_encoding: true,
            status_transforms: vec![StatusTransform {
                status: 0,
                meaning: HookRefusal::Disconnect { code: 0, reason: String::new() },
            }],
        },
        shards: ShardsConfig { cores: vec![77], outbox_bytes_max: 0, outboxes_bytes_max: 0, history_bytes_max: 0 },
        shutdown: ShutdownConfig { ms_max: 1, unready_ms: 1, spread_ms: 1 },
        attributes: AttributesConfig { bytes_max: 0, keys_max: 0, depth_max: 0 },
        namespaces: Namespaces::default(),
        log: LogConfig { level: String::new(), format: LogFormat::Json, audit_file: Some("/tmp".into()) },
        tracing: TracingConfig {
            endpoint: Some(String::new()),
            sample_one_in: 7,
            traces_per_second_max: 0,
            service_name: Some(String::new()),
            headers: vec!["".into()],
            include_channel: true,
        },
    }
}

/// The same for the options of a namespace.
fn other_options() -> Namespace {
    Namespace {
        name: String::new(),
        allow_subscribe_for_client: true,
        allow_subscribe_for_anonymous: true,
        allow_publish_for_client: true,
        allow_publish_for_subscriber: true,
        allow_publish_for_anonymous: true,
        allow_history_for_client: true,
        allow_history_for_subscriber: true,
        allow_history_for_anonymous: true,
        allow_presence_for_client: true,
        allow_presence_for_subscriber: true,
        allow_presence_for_anonymous: true,
        allow_user_limited_channels: true,
        subscribe_proxy_enabled: true,
        publish_proxy_enabled: true,
        sub_refresh_proxy_enabled: true,
        channel_regex: Pattern::new("."),
        presence: true,
        join_leave: true,
        force_push_join_leave: true,
        history_size: 1,
        history_ttl_ms: 1,
        history_compression_bytes_min: 1,
        force_positioning: true,
        force_recovery: true,
        allow_positioning: true,
        allow_recovery: true,
        force_recovery_mode: RecoveryMode::Cache,
        auto_cache_recover: true,
        allow_tags_filter: true,
        allowed_delta_types: vec![DeltaType::Fossil],
        delta_publish: true,
        format: PayloadFormat::Binary,
        slow_consumer: SlowConsumerPolicy::Latest,
        compression: CompressionConfig {
            mode: CompressionMode::Shared,
            message_bytes_min: 1,
            window_bytes: 1,
            keyframe_ms_max: 1,
        },
    }
}

#[test]
fn every_field_is_set_by_a_key() {
    let mut draft = Draft { config: other_values(), without_namespace: other_options(), namespaces: Vec::new() };
    draft.set_defaults();
    assert_eq!(draft.config, Draft::with_defaults().config);
    assert_eq!(draft.without_namespace, Namespace::default());
}

/// What one new value changes in a server that runs with the defaults, its clients' port having been chosen by the kernel.
fn change_of(new: Config) -> Change {
    let written = defaults();
    let mut running = written.clone();
    running.client.listen.set_port(4711);
    let change = change(&running, &written, new).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(change.running.client.listen, running.client.listen);
    change
}

#[test]
fn a_reload_changes_what_the_table_says_key_by_key() {
    let none: &[String] = &[];
    for section in SECTIONS {
        let Keys::Server(keys) = section.keys else { continue };
        for key in keys {
            let (mut before, mut other) = (Draft::of(&defaults()), Draft::of(&other_values()));
            let path = format!("{}.{}", section.name, key.name);
            let mut new = before.clone();
            assert!(key.kind.assign(&mut new, &mut other), "{path} has a value that is not its default");
            let change = change_of(new.clone().into_config());
            let mut running = Draft::of(&change.running);
            let (changed, needs_restart) = match key.effect {
                Effect::OnReload => {
                    assert!(!key.kind.assign(&mut running, &mut new), "{path} counts");
                    (std::slice::from_ref(&path), none)
                }
                Effect::AtStart => {
                    assert!(path == "client.listen" || !key.kind.assign(&mut running, &mut before), "{path} stays");
                    (none, std::slice::from_ref(&path))
                }
            };
            assert_eq!((&*change.changed, &*change.needs_restart), (changed, needs_restart));
            let stays =
                key.kind.assign(&mut Draft::of(&change.written), &mut before) == (key.effect == Effect::OnReload);
            assert!(stays, "{path} is warned of at each reload until the restart");
        }
    }
    for key in NAMESPACE_OPTIONS {
        let mut draft = Draft::of(&defaults());
        key.kind.assign(&mut draft.without_namespace, &mut other_options());
        let change = change_of(draft.into_config());
        assert_eq!(change.changed, [format!("channel.without_namespace.{}", key.name)]);
        assert_eq!(key.effect, Effect::OnReload, "{}: namespaces come and go", key.name);
    }
}

#[test]
fn nothing_that_is_written_otherwise_changes_nothing() {
    let change = change_of(defaults());
    assert_eq!((change.changed, change.needs_restart, change.written), (Vec::new(), Vec::new(), defaults()));
}

#[test]
fn namespaces_come_go_and_change() {
    let before = config_of(
        "[[channel.namespaces]]\nname = \"kept\"\nhistory_size = 9\nhistory_ttl = \"5m\"\n[[channel.namespaces]]\nname = \"old\"",
    );
    let new = "[[channel.namespaces]]\nname = \"new\"\n[[channel.namespaces]]\nname = \"kept\"\nhistory_size = 5\nhistory_ttl = \"5m\"\npresence = true";
    let Change { running, changed, .. } = change(&before, &before, config_of(new)).expect("it can be taken over");
    assert_eq!(running, config_of(new));
    assert_eq!(
        changed,
        [
            "channel.namespaces[kept].presence",
            "channel.namespaces[kept].history_size",
            "channel.namespaces[old] (removed)",
            "channel.namespaces[new] (added)"
        ]
    );
}

#[test]
fn what_is_right_in_its_file_may_be_wrong_for_a_server_that_runs() {
    let before = config_of(
        "[client]\nlisten = \"0.0.0.0:8000\"\n[client.token]\nhmac_secret = \"0123456789abcdef0123456789abcdef\"",
    );
    let new = config_of("[client]\nlisten = \"127.0.0.1:8000\"\nallow_anonymous = true");
    let errors = change(&before, &before, new).expect_err("anyone could connect from anywhere").to_string();
    assert_eq!(
        errors,
        "with what only a restart changes: client.listen: 0.0.0.0:8000 is beyond loopback while client.allow_anonymous \
         lets anyone connect; to mean it, set client.allow_public_without_authentication = true"
    );
}

#[test]
fn no_two_keys_share_a_variable() {
    let known = known_keys();
    let variables: BTreeSet<&str> = known.iter().map(|known| known.variable.as_str()).collect();
    assert_eq!(variables.len(), known.len());
}

#[test]
fn the_reference_file_says_exactly_the_defaults() {
    assert_eq!(config_of(&reference()), defaults());
}

#[test]
fn the_reference_file_names_every_key_and_its_variable() {
    let reference = reference();
    for known in known_keys() {
        assert!(reference.contains(&format!("# {}", known.variable)), "{}", known.path);
        let (section, name) = known.path.rsplit_once('.').expect("a key is in a section");
        let is_set = reference.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{name} = ")));
        assert!(is_set || reference.contains(&format!("[[{section}.{name}]]")), "{}", known.path);
    }
}

#[test]
fn the_examples_of_the_reference_file_are_valid() {
    let with_examples: String = reference()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(setting) if setting.starts_with("[[") || is_setting(setting) => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    // These keys are not to be found in /etc, and of a text and an expression for it only one may be set.
    let with_examples = with_examples.replace("/etc/tidegate/", KEYS);
    // Endpoints want to be used.
    let with_examples = with_examples.replace("_proxy_enabled = false", "_proxy_enabled = true");
    let with_examples = with_examples.replace("\naudience_regex = ", "\n# ").replace("\nissuer_regex = ", "\n# ");
    let config = config_of(&with_examples);
    assert_eq!(config.shards.cores, [0, 1, 2, 3]);
    assert_eq!(config.client.token.audience.as_deref(), Some("tidegate"));
    assert_eq!(config.namespaces.by_name.len(), 1);
    assert_eq!(config.namespaces.by_name[0].history_ttl_ms, 300_000);
}

fn is_setting(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(key, _)| !key.is_empty() && !key.contains(' '))
}

#[test]
fn a_file_sets_every_type_of_value() {
    let config = config_of(
        r#"
        [client]
        listen = "[::1]:8443"
        allow_anonymous = true
        allowed_origins = ["https://example.com", "https://*.example.com"]
        connections_max = 50_000
        message_size_max = 131072
        ping_interval = "1m"
        pong_timeout = "1500ms"

        [client.token]
        hmac_secret = "0123456789abcdef0123456789abcdef"

        [ingest]
        listen = "none"
        unix = "/run/tidegate/ingest.sock"

        [shards]
        cores = [3, 1]
        outboxes_size_max = "8GiB"

        [log]
        level = "warn,tidegate::ingest=debug"

        [channel.without_namespace]
        allow_subscribe_for_client = true

        [[channel.namespaces]]
        name = "prices"
        slow_consumer = "latest"
        format = "binary"

        [[channel.namespaces]]
        name = "chat"
        history_size = 50
        history_ttl = "1h"
        allow_recovery = true
        slow_consumer = "resync"
        "#,
    );
    assert_eq!(config.client.listen.to_string(), "[::1]:8443");
    assert!(config.client.allow_anonymous);
    assert_eq!(config.client.allowed_origins, ["https://example.com", "https://*.example.com"]);
    assert_eq!(config.client.connections_max, 50_000);
    assert_eq!(config.client.message_bytes_max, 131_072);
    assert_eq!(config.client.ping_ms, 60_000);
    assert_eq!(config.client.pong_ms_max, 1_500);
    assert_eq!(config.client.token.hmac_secret.as_deref(), Some("0123456789abcdef0123456789abcdef"));
    assert_eq!(config.ingest.listen, None);
    assert_eq!(config.ingest.unix.as_deref(), Some(Path::new("/run/tidegate/ingest.sock")));
    assert_eq!(config.shards.cores, [3, 1]);
    assert_eq!(config.shards.outboxes_bytes_max, 8 << 30);
    assert_eq!(config.log.level, "warn,tidegate::ingest=debug");
    let without = config.namespaces.of_channel("plain").expect("channels without a namespace have rules");
    assert!(without.allow_subscribe_for_client);
    let prices = config.namespaces.of_channel("prices:eur").expect("the namespace is configured");
    assert_eq!((prices.format, prices.slow_consumer), (PayloadFormat::Binary, SlowConsumerPolicy::Latest));
    assert!(!prices.allow_subscribe_for_client, "nothing is inherited from channels without a namespace");
    let chat = config.namespaces.of_channel("$chat:room").expect("a private channel has its namespace's rules");
    assert_eq!((chat.history_size, chat.history_ttl_ms), (50, 3_600_000));
    assert_eq!(config.namespaces.of_channel("elsewhere:x"), None);
    assert_eq!(config.namespaces.of_channel("#tenant:user"), Some(without), "a user's id is no namespace");
}

#[test]
fn the_environment_overrides_the_file() {
    let text = "[client]\nlisten = \"127.0.0.1:1\"\n[[channel.namespaces]]\nname = \"file\"\n";
    let environment = [
        ("TIDEGATE_CLIENT_LISTEN", "127.0.0.1:2"),
        ("TIDEGATE_CLIENT_ALLOW_ANONYMOUS", "true"),
        ("TIDEGATE_CLIENT_CONNECTIONS_MAX", " 12 "),
        ("TIDEGATE_CLIENT_ALLOWED_ORIGINS", "https://a.example, https://b.example"),
        ("TIDEGATE_CLIENT_PING_INTERVAL", "30s"),
        ("TIDEGATE_CLIENT_TOKEN_AUDIENCE", ""),
        ("TIDEGATE_INGEST_LISTEN", "none"),
        ("TIDEGATE_SHARDS_CORES", "0,2-3"),
        ("TIDEGATE_CHANNEL_WITHOUT_NAMESPACE_HISTORY_SIZE", "5"),
        ("TIDEGATE_CHANNEL_WITHOUT_NAMESPACE_HISTORY_TTL", "5s"),
        ("UNRELATED", "x"),
    ];
    let config = load_with(text, &environment).expect("valid").config;
    assert_eq!(config.client.listen.to_string(), "127.0.0.1:2");
    assert!(config.client.allow_anonymous);
    assert_eq!(config.client.connections_max, 12);
    assert_eq!(config.client.allowed_origins, ["https://a.example", "https://b.example"]);
    assert_eq!(config.client.ping_ms, 30_000);
    assert_eq!(config.client.token.audience, None);
    assert_eq!(config.ingest.listen, None);
    assert_eq!(config.shards.cores, [0, 2, 3]);
    assert_eq!(config.namespaces.without.as_ref().map(|namespace| namespace.history_size), Some(5));
    assert_eq!(config.namespaces.by_name[0].name, "file");
}

#[test]
fn namespaces_in_the_environment_replace_those_of_the_file() {
    let text = "[[channel.namespaces]]\nname = \"file\"\nformat = \"binary\"\n";
    for list in [
        r#"[{"name": "zeta"}, {"name": "alpha", "history_size": 3, "history_ttl": "1m"}]"#,
        r#"[{name = "zeta"}, {name = "alpha", history_size = 3, history_ttl = "1m"}]"#,
    ] {
        let config = load_with(text, &[("TIDEGATE_CHANNEL_NAMESPACES", list)]).expect("valid").config;
        let names: Vec<&str> = config.namespaces.by_name.iter().map(|namespace| namespace.name.as_str()).collect();
        assert_eq!(names, ["alpha", "zeta"], "sorted, because channels are looked up by bisection");
        assert_eq!(config.namespaces.by_name[0].history_size, 3);
    }
    let errors = errors_of("", &[("TIDEGATE_CHANNEL_NAMESPACES", "[{name}]")]);
    assert!(errors.starts_with("environment variable TIDEGATE_CHANNEL_NAMESPACES: channel.namespaces: expected a list in JSON or TOML, like [{name = \"news\"}], found a text that is neither"), "{errors}");
    let errors = errors_of("", &[("TIDEGATE_CHANNEL_NAMESPACES", "[{\"name\": \"x\"}, 3]")]);
    assert_eq!(
        errors,
        "environment variable TIDEGATE_CHANNEL_NAMESPACES: channel.namespaces: expected a table with the name and the \
         options of a namespace, found 3\n\
         environment variable TIDEGATE_CHANNEL_NAMESPACES: channel.namespaces[x].name: expected a name of two \
         characters or more, of a-z, A-Z, 0-9, \"-\", \"_\" and \".\", found \"x\""
    );
}

#[test]
fn a_file_with_many_mistakes_is_told_all_of_them() {
    let text = r#"# A file with many mistakes.
[client]
listen = "localhost:8000"
ping_intervall = "25s"
ping_interval = 25
pong_timeout = "99h"
allow_anonymous = "yes"
allowed_origins = ["https://example.com", "example.org"]

[client.token]
hmac_secret = ""
hmac_secret_key = "never shown"

[ingest]
listen = "0.0.0.0:7400"
payload_size_max = "64KB"

[shards]
cores = [0, 9]

[shutdown]
spread = "20s"

[[channel.namespaces]]
name = "news"
history_size = 10
force_recovery = true
slow_consumer = "drop_oldest"

[[channel.namespaces]]
name = "news"
slow_consumer = "resync"

[[channel.namespaces]]
format = "xml"
"#;
    let environment = [("TIDEGATE_ADMIN_LISTEN", "7"), ("TIDEGATE_CLIENT_LISTN", "x")];
    let golden = r#"
tidegate.toml:3:10: client.listen: expected an IP address and a port, like "127.0.0.1:8000" or "[::1]:8000", found "localhost:8000"
tidegate.toml:4:1: client.ping_intervall: unknown; did you mean client.ping_interval?
tidegate.toml:5:17: client.ping_interval: expected a duration from 1s to 10m with its unit, like "25s" or "500ms", found 25
tidegate.toml:6:16: client.pong_timeout: expected a duration from 100ms to 5m with its unit, like "25s" or "500ms", found "99h"
tidegate.toml:7:19: client.allow_anonymous: expected true or false, found "yes"
tidegate.toml:8:19: client.allowed_origins: expected a list of origins like "https://example.com" or "https://*.example.com" (a scheme, no path, at most one *), or "*", found "example.org" in the list
tidegate.toml:11:15: client.token.hmac_secret: expected a string that is not empty, found an empty string
tidegate.toml:12:1: client.token.hmac_secret_key: unknown; did you mean client.token.hmac_secret?
tidegate.toml:15:10: ingest.listen: 0.0.0.0:7400 is beyond loopback and producers need no password; set ingest.password, or, to mean it, ingest.allow_public_without_password = true
tidegate.toml:16:20: ingest.payload_size_max: expected a size from 1B to 16MiB, in bytes or with a unit, like "64KiB" or "1MiB", found "64KB"
tidegate.toml:19:9: shards.cores: this process may run on the cores 0-3, not on 9
tidegate.toml:22:10: shutdown.spread: 20s must be within shutdown.timeout (10s)
tidegate.toml:26:16: channel.namespaces[news].history_size: needs history_ttl: set how long publications are kept, as in history_ttl = "5m"
tidegate.toml:28:17: channel.namespaces[news].slow_consumer: expected one of "disconnect", "drop-oldest", "latest", "resync", found "drop_oldest"
tidegate.toml:31:8: channel.namespaces[1].name: a namespace "news" exists already; merge the two tables or rename one
tidegate.toml:32:17: channel.namespaces[1].slow_consumer: "resync" needs recovery, or clients lose what was forgotten: set force_recovery or allow_recovery
tidegate.toml:34:1: channel.namespaces[2]: has no name; add name = "..."
tidegate.toml:35:10: channel.namespaces[2].format: expected one of "json", "binary", found "xml"
environment variable TIDEGATE_ADMIN_LISTEN: admin.listen: expected an IP address and a port, like "127.0.0.1:8000" or "[::1]:8000", found "7"
environment variable TIDEGATE_CLIENT_LISTN: unknown; did you mean TIDEGATE_CLIENT_LISTEN?"#;
    assert_eq!(format!("\n{}", errors_of(text, &environment)), golden);
}

#[test]
fn what_is_not_toml_is_told_line_by_line() {
    assert_eq!(
        errors_of("[client]\nping_interval = 25s\nlisten =\nallowed_origins = \"x\n", &[]),
        "tidegate.toml:2:17: ping_interval: not valid TOML: expected a value in quotes, a number, true or false, \
         found \"25s\" without quotes\n\
         tidegate.toml:3:9: listen: not valid TOML: expected a value, found none\n\
         tidegate.toml:4:21: allowed_origins: not valid TOML: invalid basic string, expected `\"`"
    );
    assert_eq!(
        errors_of("[client]\nlisten = '127.0.0.1:1'\n[client]\n", &[]),
        "tidegate.toml:3:2: not valid TOML: duplicate key"
    );
}

#[test]
fn no_message_shows_a_secret() {
    let text = "[client.token]\nhmac_secret = [\"hush\"]\n[ingest]\npassword = 4711\n";
    let messages = errors_of(text, &[]);
    assert!(messages.contains("client.token.hmac_secret: expected a string that is not empty, found a list"));
    assert!(messages.contains("ingest.password: expected a string that is not empty, found a number"));
    assert!(!messages.contains("hush") && !messages.contains("4711"), "{messages}");
    let loaded =
        load_with("[client.token]\nhmac_secret = \"hush\"\n[ingest]\npassword = \"4711\"\n", &[]).expect("valid");
    assert_eq!(loaded.config.ingest.password.as_deref(), Some("4711"));
    let shown = format!("{loaded:?}");
    assert!(!shown.contains("hush") && !shown.contains("4711"), "{shown}");
}

#[test]
fn unknown_keys_are_warnings_with_the_nearest_known_key() {
    for (text, warning) in [
        ("[clinet]\nlisten = 1\n", "tidegate.toml:1:2: clinet: unknown; did you mean client?\n"),
        ("[client]\nlisen = 1\n", "tidegate.toml:2:1: client.lisen: unknown; did you mean client.listen?\n"),
        ("listen = 1\n", "tidegate.toml:1:1: listen: unknown; did you mean client.listen?\n"),
        ("[admin]\npasword = 1\n", "tidegate.toml:2:1: admin.pasword: unknown; did you mean admin.password?\n"),
        ("pong_timeout = 1\n", "tidegate.toml:1:1: pong_timeout: unknown; did you mean client.pong_timeout?\n"),
        ("[shards]\nspread = 1\n", "tidegate.toml:2:1: shards.spread: unknown; did you mean shutdown.spread?\n"),
        ("[client]\nx = 1\n", "tidegate.toml:2:1: client.x: unknown; `tidegate config-reference` lists every key\n"),
        ("[zebra]\n", "tidegate.toml:1:2: zebra: unknown; `tidegate config-reference` lists every key\n"),
        (
            "[[channel.namespaces]]\nname = \"ab\"\nhistory_sice = 1\n",
            "tidegate.toml:3:1: channel.namespaces[ab].history_sice: unknown; did you mean history_size?\n",
        ),
        (
            "[channel.without_namespace]\nallow_history = true\n",
            "tidegate.toml:2:1: channel.without_namespace.allow_history: unknown; did you mean \
             allow_history_for_client?\n",
        ),
    ] {
        assert_eq!(warnings_of(text, &[]), warning);
    }
    assert_eq!(
        warnings_of("", &[("TIDEGATE_INGEST_PASWORD", "x"), ("TIDEGATE_QQQ", "x")]),
        "environment variable TIDEGATE_INGEST_PASWORD: unknown; did you mean TIDEGATE_INGEST_PASSWORD?\n\
         environment variable TIDEGATE_QQQ: unknown; `tidegate config-reference` lists every key\n"
    );
}

#[test]
fn a_table_is_not_a_value_nor_a_value_a_table() {
    for (text, error) in [
        ("client = 3\n", "tidegate.toml:1:10: client: expected a table, [client], found 3"),
        ("channel = true\n", "tidegate.toml:1:11: channel: expected a table, [channel], found true"),
        (
            "[client.listen]\n",
            "tidegate.toml:1:1: client.listen: expected an IP address and a port, like \"127.0.0.1:8000\" or \
             \"[::1]:8000\", found a table",
        ),
        (
            "[channel.namespaces.news]\n",
            "tidegate.toml:1:10: channel.namespaces: expected a list of tables, each headed [[channel.namespaces]], \
             found a table",
        ),
    ] {
        assert_eq!(errors_of(text, &[]), error);
    }
}

#[test]
fn each_rule_between_keys_says_what_to_change() {
    for (text, error) in [
        (
            "[client]\nping_interval = \"5s\"\n",
            "2:17: client.pong_timeout: 8s must be shorter than client.ping_interval (5s), so that a pong belongs to \
             one ping",
        ),
        (
            "[client]\nping_interval = \"10500ms\"\n",
            "2:17: client.ping_interval: must be whole seconds, not 10s500ms: clients are told it in seconds",
        ),
        (
            "[client]\npersonal_channel_namespace = \"mine\"\n",
            "2:30: client.personal_channel_namespace: there is no namespace \"mine\"; write [[channel.namespaces]] with \
             this name",
        ),
        (
            "[client.token]\nhmac_secret_previous = \"0123456789abcdef0123456789abcdef\"\n",
            "2:24: client.token.hmac_secret_previous: is set, but client.token.hmac_secret is not; set the present \
             secret there",
        ),
        (
            "[client]\nlisten = \"[::]:8000\"\nallow_anonymous = true\n",
            "2:10: client.listen: [::]:8000 is beyond loopback while client.allow_anonymous lets anyone connect; to \
             mean it, set client.allow_public_without_authentication = true",
        ),
        (
            "[ingest]\nlisten = \"10.0.0.1:7400\"\n",
            "2:10: ingest.listen: 10.0.0.1:7400 is beyond loopback and producers need no password; set \
             ingest.password, or, to mean it, ingest.allow_public_without_password = true",
        ),
        (
            "[admin]\nlisten = \"0.0.0.0:9000\"\n",
            "2:10: admin.listen: 0.0.0.0:9000 is beyond loopback, where anyone may publish from the console; to mean \
             it, set admin.allow_public = true",
        ),
        (
            "[api]\nlisten = \"10.0.0.1:9001\"\ninsecure = true\n",
            "2:10: api.listen: 10.0.0.1:9001 is beyond loopback while api.insecure lets anyone ask; set api.keys, and \
             api.insecure = false",
        ),
        (
            "[client]\nlisten = \"[::]:8000\"\n[client.token]\nhmac_secret = \"0123456789abcdef0123456789abcdef\"\n\
             [api]\non_client_port = true\ninsecure = true\n",
            "6:18: api.on_client_port: clients come to [::]:8000, beyond loopback, where api.insecure would let anyone \
             ask; set api.keys, and api.insecure = false",
        ),
        (
            "[api]\nlisten = \"127.0.0.1:9000\"\n",
            "2:10: api.listen: is taken by admin.listen already; give each listener a port of its own",
        ),
        (
            "[api]\nkeys = [\"secret\", \"\"]\n",
            "2:8: api.keys: expected a list of strings that are not empty, found a list",
        ),
        (
            "[admin]\nlisten = \"127.0.0.1:8000\"\n",
            "2:10: admin.listen: is taken by client.listen already; give each listener a port of its own",
        ),
        (
            "[ingest]\npayload_size_max = \"2MiB\"\n",
            "2:20: shards.outbox_size_max: 1MiB is less than ingest.payload_size_max (2MiB): one publication would \
             make every subscriber slow",
        ),
        (
            "[shards]\noutboxes_size_max = \"1MiB\"\noutbox_size_max = \"4MiB\"\n",
            "2:21: shards.outboxes_size_max: 1MiB is less than shards.outbox_size_max (4MiB), what one client may \
             use of it",
        ),
        ("[shards]\ncores = []\n", "2:9: shards.cores: is empty; name at least one core, or leave the key out"),
        ("[shards]\ncores = [1, 1]\n", "2:9: shards.cores: names core 1 twice; a core has one shard"),
        ("[shards]\ncores = \"2-5\"\n", "2:9: shards.cores: this process may run on the cores 0-3, not on 4-5"),
        ("[shutdown]\ntimeout = \"1s\"\n", "2:11: shutdown.spread: 5s must be within shutdown.timeout (1s)"),
        (
            "[shutdown]\nunready_delay = \"6s\"\n",
            "2:17: shutdown.spread: 5s after shutdown.unready_delay (6s) must be within shutdown.timeout (10s)",
        ),
        (
            "[channel.without_namespace]\nhistory_ttl = \"5m\"\n",
            "2:15: channel.without_namespace.history_ttl: needs history_size: set how many publications are kept, as \
             in history_size = 100",
        ),
        (
            "[channel.without_namespace]\nforce_recovery = true\n",
            "2:18: channel.without_namespace.force_recovery: needs history: set history_size and history_ttl",
        ),
        (
            "[[channel.namespaces]]\nname = \"ab\"\nallow_positioning = true\n",
            "3:21: channel.namespaces[ab].allow_positioning: needs history: set history_size and history_ttl",
        ),
        (
            "[client]\nlisten = \"[::]:8000\"\ninsecure = true\n",
            "2:10: client.listen: [::]:8000 is beyond loopback while client.insecure lets anyone connect; to mean it, \
             set client.allow_public_without_authentication = true",
        ),
        (
            "[channel.without_namespace]\nhistory_size = 1\nhistory_ttl = \"5m\"\nforce_recovery_mode = \"cache\"\n",
            "4:23: channel.without_namespace.force_recovery_mode: \"cache\" needs recovery: set force_recovery or \
             allow_recovery",
        ),
        (
            "[channel.without_namespace]\nauto_cache_recover = true\n",
            "2:22: channel.without_namespace.auto_cache_recover: needs force_recovery_mode = \"cache\"",
        ),
        (
            "[channel.without_namespace]\nforce_push_join_leave = true\n",
            "2:25: channel.without_namespace.force_push_join_leave: needs join_leave = true",
        ),
        (
            "[channel.without_namespace]\nallowed_delta_types = [\"fossil\", \"xdelta\"]\n",
            "2:23: channel.without_namespace.allowed_delta_types: expected a list that may hold \"fossil\", found \
             \"xdelta\" in the list",
        ),
        (
            "[[channel.namespaces]]\nname = \"ab\"\nsubscribe_proxy_enabled = true\n",
            "3:27: channel.namespaces[ab].subscribe_proxy_enabled: needs a back end to ask: set \
             hooks.subscribe_endpoint",
        ),
        (
            "[client]\nconnect_timeout = \"900ms\"\n[hooks]\nconnect_endpoint = \"http://127.0.0.1:3000/\"\n",
            "2:19: hooks.connect_timeout: 1s must be shorter than client.connect_timeout (900ms), or clients are closed \
             while the back end is asked",
        ),
        (
            "[hooks]\nheaders = [\"Cookie\", \"content-length\"]\n",
            "2:11: hooks.headers: content-length belongs to a connection or a body, not to a client; strike it",
        ),
        (
            "[hooks]\nheaders = [\"authorization\"]\nsecret = \"x\"\n",
            "2:11: hooks.headers: has Authorization, in which hooks.secret is sent; keep one of the two",
        ),
        (
            "[tracing]\nheaders = [\"X-Key: a\", \"secret\"]\n",
            "2:11: tracing.headers: has what is no header field; write each as \"Name: value\"",
        ),
        (
            "[tracing]\nheaders = [\"X Key: a\"]\n",
            "2:11: tracing.headers: has what is no header field; write each as \"Name: value\"",
        ),
        (
            "[hooks]\nheaders = [\"X Real\"]\n",
            "2:11: hooks.headers: expected a list of names of header fields, like [\"Cookie\", \"X-Real-IP\"], found \
             \"X Real\" in the list",
        ),
        (
            "[[hooks.status_to_code_transforms]]\nstatus_code = 403\nto_disconnect = { code = 403, reason = \"x\" }\n",
            "1:1: hooks.status_to_code_transforms: expected a list of tables like { status_code = 404, to_error = { code \
             = 404, message = \"not found\", temporary = false } } or { status_code = 403, to_disconnect = { code = 4501, \
             reason = \"banned\" } }, each status once, found a table in the list",
        ),
        (
            "[channel.without_namespace]\nchannel_regex = \"(\"\n",
            "2:17: channel.without_namespace.channel_regex: expected a regular expression, like \"^[a-z]+$\", found \
             \"(\"",
        ),
    ] {
        assert_eq!(errors_of(text, &[]), format!("tidegate.toml:{error}"));
    }
}

#[test]
fn more_cores_than_shards_are_refused() {
    let cores: Vec<u32> = (0..100).collect();
    let text = "[shards]\ncores = \"0-64\"\n";
    let errors = load_text(Some((Path::new("a.toml"), text)), std::iter::empty(), &cores).expect_err("65 cores");
    assert_eq!(errors.to_string(), "a.toml:2:9: shards.cores: has 65 cores; a server has at most 64 shards");
    let config = load_text(None, std::iter::empty(), &cores).expect("the default takes as many as it may").config;
    assert_eq!(config.shards.cores, cores[..64]);
}

#[test]
fn what_is_public_starts_once_told_so_in_as_many_words() {
    let config = config_of(
        "[client]\nlisten = \"0.0.0.0:8000\"\nallow_anonymous = true\nallow_public_without_authentication = true\n\
         [ingest]\nlisten = \"0.0.0.0:7400\"\nallow_public_without_password = true\n\
         [admin]\nlisten = \"0.0.0.0:9000\"\nallow_public = true\n",
    );
    assert!(config.client.listen.ip().is_unspecified());
    let config = config_of(
        "[client]\nlisten = \"0.0.0.0:8000\"\n[ingest]\nlisten = \"0.0.0.0:7400\"\npassword = \"long enough\"\n",
    );
    assert!(!config.lets_clients_connect());
}

#[test]
fn any_free_port_may_be_asked_for_more_than_once() {
    let config = config_of("[client]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n");
    assert_eq!(config.client.listen, config.admin.listen);
}

#[test]
fn questionable_values_are_warnings() {
    assert_eq!(
        warnings_of("[client.token]\nhmac_secret = \"short\"\n", &[]),
        "tidegate.toml:2:15: client.token.hmac_secret: is shorter than 32 bytes and may be guessed (RFC 7518 section \
         3.2); `openssl rand -hex 32` prints a good one\n"
    );
    assert_eq!(
        warnings_of("[channel.without_namespace]\nallow_publish_for_anonymous = true\n", &[]),
        "tidegate.toml:2:31: channel.without_namespace.allow_publish_for_anonymous: has no effect without \
         allow_publish_for_client or allow_publish_for_subscriber\n"
    );
    assert_eq!(
        warnings_of("[channel.without_namespace]\nallow_presence_for_client = true\n", &[]),
        "tidegate.toml:2:29: channel.without_namespace.allow_presence_for_client: has no effect without presence = \
         true\n"
    );
    assert_eq!(
        warnings_of("[channel.without_namespace]\ndelta_publish = true\n", &[]),
        "tidegate.toml:2:17: channel.without_namespace.delta_publish: has no effect without allowed_delta_types = \
         [\"fossil\"]\n"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let errors = load(Some(Path::new("/nonexistent/tidegate.toml")), std::iter::empty()).expect_err("no such file");
    assert_eq!(
        errors.to_string(),
        "/nonexistent/tidegate.toml: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn the_demonstration_opens_its_namespace_to_anyone_on_loopback() {
    let config = defaults().with_demo().expect("the defaults are on loopback");
    assert!(config.client.allow_anonymous);
    let demo = config.namespaces.of_channel("demo:ticks").expect("the demonstration's namespace");
    assert!(demo.allow_subscribe_for_client && demo.allow_subscribe_for_anonymous);
    assert!(demo.allow_publish_for_client && demo.allow_publish_for_anonymous);
    assert!(demo.allow_history_for_client && demo.allow_history_for_anonymous);
    assert_eq!((demo.history_size, demo.history_ttl_ms, demo.force_recovery), (100, 300_000, true));
}

#[test]
fn the_demonstration_refuses_what_would_open_a_server_unasked() {
    let config = config_of("[client]\nlisten = \"0.0.0.0:8000\"\n[[channel.namespaces]]\nname = \"demo\"\n");
    assert_eq!(
        config.with_demo().expect_err("public, and the name is taken").to_string(),
        "--demo: channel.namespaces: the demonstration needs the name \"demo\" for itself; rename yours\n\
         --demo: client.listen: 0.0.0.0:8000 is beyond loopback while the demonstration lets anyone connect; to mean \
         it, set client.allow_public_without_authentication = true"
    );
}

proptest! {
    #[test]
    fn any_text_is_loaded_or_refused_without_a_panic(text in "(\\[?\\[?(client|channel\\.namespaces|shards)\\]?\\]?\n|[a-z_.]{0,12} ?= ?[-0-9a-z\"\\[\\]{}',]{0,12}\n|.{0,20}\n){0,6}") {
        let _ = load_with(&text, &[("TIDEGATE_CHANNEL_NAMESPACES", &text), ("TIDEGATE_SHARDS_CORES", &text)]);
    }
}

#[test]
fn public_keys_are_pem_or_a_file_of_their_family() {
    let pem = std::fs::read_to_string(format!("{KEYS}ed25519.pem")).expect("a file of the tests");
    let section = |text: &str| format!("[client.token]\ned25519_public_key = {text:?}\n");
    let key = Some(public_key("ed25519.pem", KeyFamily::Ed25519));
    assert_eq!(config_of(&section(&pem)).client.token.ed25519_public_key, key);
    let one_line = pem.trim().replace('\n', "\\n");
    let loaded = load_with("", &[("TIDEGATE_CLIENT_TOKEN_ED25519_PUBLIC_KEY", &one_line)]).expect("a valid key");
    assert_eq!(loaded.config.client.token.ed25519_public_key, key);
    assert!(loaded.config.lets_clients_connect());
    for curve in ["ecdsa.pem", "ecdsa_p384.pem", "ecdsa_p521.pem"] {
        public_key(curve, KeyFamily::Ecdsa);
    }
    for (text, found) in [
        (format!("{KEYS}rsa.pem"), "with a public key of another kind"),
        (format!("{KEYS}ed25519.private.pem"), "with no public key in PEM"),
        (format!("{KEYS}none.pem"), "which cannot be read: No such file"),
        ("keys/ed25519.pem".to_owned(), "a text that is neither PEM nor an absolute path"),
        (pem.replace("MCow", "MCow!"), "found no public key in PEM"),
    ] {
        let errors = errors_of(&section(&text), &[]);
        assert!(errors.contains("expected a public Ed25519 key in PEM") && errors.contains(found), "{errors}");
    }
}

#[test]
fn an_audience_is_a_text_or_an_expression() {
    let both = "[client.token]\naudience = \"a\"\naudience_regex = \"^a$\"\n";
    assert!(errors_of(both, &[]).contains("client.token.audience_regex: is set, and so is client.token.audience"));
    let loose = "[client.token]\nissuer_regex = \"example.com\"\n";
    assert!(warnings_of(loose, &[]).contains("client.token.issuer_regex: is not anchored"));
}

#[test]
fn keys_are_fetched_from_an_address_that_is_one() {
    let section = |url: &str| format!("[client.token]\njwks_public_endpoint = {url:?}\n");
    let config = config_of(&section("https://id.example.com/keys"));
    assert_eq!(config.client.token.jwks_public_endpoint.as_deref(), Some("https://id.example.com/keys"));
    assert!(config.lets_clients_connect());
    config_of(&section("http://127.0.0.1:8080/keys"));
    assert!(warnings_of(&section("http://id.example.com/keys"), &[]).contains("is without TLS"));
    for url in ["", "id.example.com", "/keys", "ftp://id.example.com", "https://", "https://u:p@id.example.com/"] {
        assert!(errors_of(&section(url), &[]).contains("expected an address like"), "{url}");
    }
}

#[test]
fn hooks_are_asked_where_they_are_switched_on() {
    let text = "[hooks]\nconnect_endpoint = \"http://127.0.0.1:3000/connect\"\nheaders = \"Cookie, X-Real-IP\"\n\
                subscribe_endpoint = \"https://app.example.com/subscribe\"\nsubscribe_timeout = \"250ms\"\n\
                [[channel.namespaces]]\nname = \"asked\"\nsubscribe_proxy_enabled = true\n";
    let config = config_of(text);
    assert!(config.lets_clients_connect() && config.hooks.is_asked(Hook::Connect));
    assert_eq!(config.hooks.of(Hook::Subscribe).ms_max, 250);
    assert_eq!((config.hooks.header("x-real-ip"), config.hooks.header("Accept")), (Some(1), None));
    assert!(config.namespaces.by_name[0].subscribe_proxy_enabled);
    for (text, warning) in [
        (
            "[hooks]\npublish_endpoint = \"http://127.0.0.1/\"\n",
            "hooks.publish_endpoint: is never asked: set publish_proxy_enabled = true for the channels that are meant",
        ),
        (
            "[hooks]\nrpc_endpoint = \"http://app.example.com/\"\nsecret = \"x\"\n",
            "hooks.rpc_endpoint: is without TLS: whoever is on the way to it reads hooks.secret and hooks.headers; use \
             https",
        ),
        (
            "[hooks]\nrpc_timeout = \"6s\"\n",
            "hooks.rpc_timeout: 6s is more than the 5s that client libraries wait for an answer",
        ),
    ] {
        assert_eq!(warnings_of(text, &[]), format!("tidegate.toml:{}{warning}\n", place(text)));
    }
    config_of("[hooks]\nrpc_endpoint = \"http://app.internal/\"\nrefresh_timeout = \"30s\"\n");
}

/// Where the second line's value is.
fn place(text: &str) -> String {
    let line = text.lines().nth(1).expect("two lines");
    format!("2:{}: ", line.find("= ").expect("a setting") + 3)
}

#[test]
fn dictionaries_are_files_that_zstd_has_trained() {
    let ticks = format!("{KEYS}ticks.dictionary");
    let config = config_of(&format!("[ingest]\nzstd_dictionaries = [{ticks:?}]\n"));
    assert_eq!(config.ingest.zstd_dictionaries[0].id().get(), 7400);
    let loaded = load_with("", &[("TIDEGATE_INGEST_ZSTD_DICTIONARIES", &ticks)]).expect("a dictionary");
    assert_eq!(loaded.config, config);
    for (paths, found) in [
        (format!("[{ticks:?}, \"{KEYS}rsa.pem\"]"), "rsa.pem\", which is no dictionary as `zstd --train` makes them"),
        (format!("[\"{KEYS}none.dictionary\"]"), "none.dictionary\", which cannot be read: No such file"),
        ("[\"ticks.dictionary\"]".to_owned(), "found \"ticks.dictionary\", which is no absolute path"),
        ("7400".to_owned(), "expected a list of absolute paths of dictionaries that `zstd --train` made, found 7400"),
        (format!("[{ticks:?}, {ticks:?}]"), "has two dictionaries of the number 7400"),
    ] {
        let errors = errors_of(&format!("[ingest]\nzstd_dictionaries = {paths}\n"), &[]);
        assert!(errors.contains("tidegate.toml:2") && errors.contains(found), "{errors}");
    }
}

#[test]
fn certificates_are_pairs_of_absolute_paths() {
    let of = |value: &str| format!("[client.tls]\ncertificates = {value}\n");
    let config = config_of(&of(r#"[{ certificate = "/a.pem", key = "/a.key" }, { certificate = "/b", key = "/c" }]"#));
    let files = |certificate: &str, key: &str| CertificateFiles { certificate: certificate.into(), key: key.into() };
    assert_eq!(config.client.tls.port.certificates, [files("/a.pem", "/a.key"), files("/b", "/c")]);
    for bad in [
        r#""/a.pem""#,
        r#"["/a.pem"]"#,
        r#"[{ certificate = "/a.pem" }]"#,
        r#"[{ certificate = "a.pem", key = "/a.key" }]"#,
        r#"[{ certificate = "/a.pem", key = "/a.key", password = "" }]"#,
    ] {
        let errors = errors_of(&of(bad), &[]);
        assert!(errors.contains("client.tls.certificates") && errors.contains("absolute paths"), "{bad}: {errors}");
    }
    let variable = r#"[{"certificate": "/a.pem", "key": "/a.key"}]"#;
    let loaded = load_with("", &[("TIDEGATE_INGEST_TLS_CERTIFICATES", variable)]).expect("a list in JSON");
    assert_eq!(loaded.config.ingest.tls.port.certificates, [files("/a.pem", "/a.key")]);
    let api = "[api.tls]\ncertificates = [{ certificate = \"/a.pem\", key = \"/a.key\" }]\n";
    let errors = errors_of(api, &[]);
    assert!(errors.contains("the server API has no port of its own; set api.listen"), "{errors}");
    let config = config_of(&format!("{api}[api]\nlisten = \"127.0.0.1:9001\"\n"));
    assert!(config.api.tls.is_on() && !config.admin.tls.is_on());
}

#[test]
fn a_collector_of_traces_is_spoken_to_where_it_hears_and_nobody_else_does() {
    assert_eq!(
        warnings_of("[tracing]\nendpoint = \"http://127.0.0.1:4318\"\n", &[]),
        "tidegate.toml:2:12: tracing.endpoint: has no path; collectors take traces at /v1/traces\n"
    );
    assert_eq!(
        warnings_of("[tracing]\nendpoint = \"http://a.example/v1/traces\"\nheaders = [\"X-Key: a\"]\n", &[]),
        "tidegate.toml:2:12: tracing.endpoint: is without TLS: whoever is on the way to it reads tracing.headers; use https\n"
    );
    let text = "[tracing]\nendpoint = \"https://a.example/v1/traces\"\nheaders = [\"X-Key: a:b\", \"Y:c\"]\n";
    let tracing = config_of(text).tracing;
    assert_eq!(tracing.header_fields(), Some(vec![("X-Key", "a:b"), ("Y", "c")]));
    assert!(!format!("{tracing:?}").contains("a:b"), "headers are secrets");
}
