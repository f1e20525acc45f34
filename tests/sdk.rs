//! The official clients for JavaScript, under Node.js and in Chromium, and for Python, in both encodings.

mod support;

use std::net::{Ipv4Addr, TcpListener};

use support::{
    script,
    server::{Launch, Server},
};

/// Pings every second and no patience, so that a test of a few seconds sees what takes minutes otherwise.
const SHORT_TIMES: &str = "client.ping_interval = \"1s\"\nclient.pong_timeout = \"500ms\"\n\
                           client.pong_grace = \"0s\"\nclient.expired_grace = \"0s\"";

/// Little room for what waits; what does not fit is left to recovery.
const RESYNC: &str = r#"
ingest.payload_size_max = "32KiB"
shards.outbox_size_max = "64KiB"

[[channel.namespaces]]
name = "resync"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
history_size = 2000
history_ttl = "10m"
force_recovery = true
slow_consumer = "resync"
"#;

/// Channels that tell more than publications.
const TELLING: &str = r#"
[[channel.namespaces]]
name = "room"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_user_limited_channels = true
presence = true
allow_presence_for_subscriber = true
allow_presence_for_anonymous = true
join_leave = true

[[channel.namespaces]]
name = "latest"
channel_regex = "^[a-z]+$"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
history_size = 1
history_ttl = "10m"
force_recovery = true
force_recovery_mode = "cache"
auto_cache_recover = true
"#;

/// Payloads are any bytes, and kept.
const BINARY: &str = r#"
[[channel.namespaces]]
name = "blobs"
format = "binary"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true
history_size = 100
history_ttl = "10m"
force_recovery = true
allowed_delta_types = ["fossil"]
delta_publish = true
"#;

/// Publications as patches to each other, always or where their producers say so.
const DELTAS: &str = r#"
[[channel.namespaces]]
name = "delta"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
history_size = 100
history_ttl = "10m"
force_recovery = true
allowed_delta_types = ["fossil"]
delta_publish = true

[[channel.namespaces]]
name = "asked"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allowed_delta_types = ["fossil"]
"#;

/// Channels that the server subscribes its clients to.
const SERVER_SIDE: &str = r#"
client.personal_channel = false
client.expired_grace = "0s"
api.keys = ["a key of the tests"]

[[channel.namespaces]]
name = "stream"
history_size = 100
history_ttl = "10m"
force_recovery = true
join_leave = true
force_push_join_leave = true

[[channel.namespaces]]
name = "short"
history_size = 2
history_ttl = "10m"
force_recovery = true

[[channel.namespaces]]
name = "delta"
history_size = 10
history_ttl = "10m"
force_recovery = true
allowed_delta_types = ["fossil"]
delta_publish = true
"#;

/// Subscriptions may ask for a part of what is published.
const FILTERS: &str = r#"
[[channel.namespaces]]
name = "ticker"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
history_size = 100
history_ttl = "10m"
force_recovery = true
allow_tags_filter = true
allowed_delta_types = ["fossil"]
"#;

/// Publications compressed, each by itself or with those before it. A keyframe comes soon.
const COMPRESSION: &str = r#"
[[channel.namespaces]]
name = "single"
compression = "single"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true

[[channel.namespaces]]
name = "shared"
compression = "shared"
compression_keyframe_interval = "1s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
"#;

/// How clients encode what they say.
const ENCODINGS: [&str; 2] = ["json", "protobuf"];

#[test]
fn connections() {
    for encoding in ENCODINGS {
        let server = Server::start(SHORT_TIMES);
        script::run(script::node(&server, "connection.mjs").env("TEST_ENCODING", encoding));
    }
}

#[test]
fn subscriptions() {
    for encoding in ENCODINGS {
        let server = Server::start("");
        script::run(script::node(&server, "subscription.mjs").env("TEST_ENCODING", encoding));
    }
}

#[test]
fn recovery() {
    for encoding in ENCODINGS {
        let mut server = Server::start("shutdown.spread = \"100ms\"");
        let mut command = script::node(&server, "recovery.mjs");
        script::run_with_answers(command.env("TEST_ENCODING", encoding), |question| match question {
            "restart" => server.restart(),
            _ => panic!("{question:?} is not known here"),
        });
    }
}

#[test]
fn slow_consumer() {
    for encoding in ENCODINGS {
        let server = Server::start(RESYNC);
        script::run(script::node(&server, "slow_consumer.mjs").env("TEST_ENCODING", encoding));
    }
}

#[test]
fn channels() {
    for encoding in ENCODINGS {
        let server = Server::start(TELLING);
        script::run(script::node(&server, "channels.mjs").env("TEST_ENCODING", encoding));
    }
}

#[test]
fn devices() {
    const USER_CONNECTIONS_MAX: &str = "3";
    for encoding in ENCODINGS {
        let server = Server::start(&format!(
            "client.user_connections_max = {USER_CONNECTIONS_MAX}\napi.keys = [\"a key of the tests\"]\n\
             attributes.size_max = 100"
        ));
        let mut script = script::node(&server, "devices.mjs");
        script.env("TEST_ENCODING", encoding).env("TEST_API_KEY", "a key of the tests");
        script::run(script.env("TEST_USER_CONNECTIONS_MAX", USER_CONNECTIONS_MAX));
    }
}

#[test]
fn server_side_subscriptions() {
    for encoding in ENCODINGS {
        let server = Server::start(SERVER_SIDE);
        let mut script = script::node(&server, "server_side.mjs");
        script::run(script.env("TEST_ENCODING", encoding).env("TEST_API_KEY", "a key of the tests"));
    }
}

#[test]
fn encodings() {
    let server = Server::start(BINARY);
    script::run(&mut script::node(&server, "encodings.mjs"));
}

#[test]
fn deltas() {
    let server = Server::start(DELTAS);
    script::run(&mut script::node(&server, "deltas.mjs"));
}

#[test]
fn filters() {
    for encoding in ENCODINGS {
        let server = Server::start(FILTERS);
        script::run(script::node(&server, "filters.mjs").env("TEST_ENCODING", encoding));
    }
}

#[test]
fn compression() {
    for encoding in ENCODINGS {
        let server = Server::start(COMPRESSION);
        script::run(script::node(&server, "compression.mjs").env("TEST_ENCODING", encoding));
    }
}

#[test]
fn compression_in_chromium() {
    let server = Server::start(&format!("client.allowed_origins = [\"http://127.0.0.1:*\"]\n{COMPRESSION}"));
    script::run(&mut script::node(&server, "browser_compression.mjs"));
}

#[test]
fn python() {
    for encoding in ENCODINGS {
        let server = Server::start(BINARY);
        script::run(script::python(&server, "centrifuge_client.py").env("TEST_ENCODING", encoding));
    }
}

/// A port for a web server of a script.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// A back end is asked about everything. Its time is long, because the machine may be busy.
fn hooked(port: u16, is_binary: bool) -> String {
    let hooks = ["connect", "refresh", "subscribe", "publish", "rpc", "sub_refresh", "disconnect"];
    let keys: String = hooks
        .iter()
        .map(|hook| {
            format!("hooks.{hook}_endpoint = \"http://127.0.0.1:{port}/{hook}\"\nhooks.{hook}_timeout = \"3s\"\n")
        })
        .collect();
    format!(
        "{keys}hooks.secret = \"the hooks secret\"\nhooks.headers = [\"X-Tenant\"]\n\
         hooks.include_connection_meta = true\nhooks.binary_encoding = {is_binary}\n{STATUSES}\n{HOOKED_NAMESPACE}"
    )
}

/// Statuses that its framework answers by itself.
const STATUSES: &str = r#"
[[hooks.status_to_code_transforms]]
status_code = 404
to_error = { code = 1404, message = "no such thing", temporary = false }

[[hooks.status_to_code_transforms]]
status_code = 429
to_error = { code = 1429, message = "later", temporary = true }

[[hooks.status_to_code_transforms]]
status_code = 403
to_disconnect = { code = 4501, reason = "banned" }
"#;

/// Its back end decides about everything.
const HOOKED_NAMESPACE: &str = r#"
[[channel.namespaces]]
name = "asked"
subscribe_proxy_enabled = true
publish_proxy_enabled = true
sub_refresh_proxy_enabled = true
presence = true
allow_presence_for_client = true
"#;

#[test]
fn hooks() {
    for (encoding, is_binary) in [("json", false), ("protobuf", false), ("protobuf", true)] {
        let port = free_port();
        let server = Server::start(&hooked(port, is_binary));
        let mut command = script::node(&server, "hooks.mjs");
        command.env("TEST_ENCODING", encoding).env("TEST_HOOKS_PORT", port.to_string());
        script::run(command.env("TEST_BINARY", if is_binary { "1" } else { "0" }));
    }
}

#[test]
fn tokens() {
    // The script serves the keys there.
    let keys_port = free_port();
    let settings = format!(
        "client.expired_grace = \"1s\"\nclient.token.jwks_public_endpoint = \"https://127.0.0.1:{keys_port}/keys\""
    );
    let trusted_certificate = Some("loopback.pem");
    let server = Server::launch(Launch { settings, trusted_certificate, ..Launch::default() });
    script::run(script::node(&server, "tokens.mjs").env("TEST_KEYS_PORT", keys_port.to_string()));
}

#[test]
fn transports_without_websocket() {
    let server = Server::start(SHORT_TIMES);
    script::run(&mut script::node(&server, "transports.mjs"));
}

#[test]
fn transports_in_chromium() {
    let server = Server::start("client.allowed_origins = [\"http://127.0.0.1:*\"]");
    script::run(&mut script::node(&server, "browser_transports.mjs"));
}

#[test]
fn page_in_chromium() {
    let server = Server::start("client.allowed_origins = [\"http://127.0.0.1:*\"]");
    script::run(&mut script::node(&server, "browser.mjs"));
}

#[test]
fn console_in_chromium() {
    let server = Server::start("");
    script::run(&mut script::node(&server, "console.mjs"));
}
