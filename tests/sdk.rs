//! The official JavaScript client: under Node.js, and in Chromium on a page and on the console.

mod support;

use std::net::{Ipv4Addr, TcpListener};

use support::{script, server::Server};

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

#[test]
fn channels() {
    let server = Server::start(TELLING);
    script::run(&mut script::node(&server, "channels.mjs"));
}

#[test]
fn connections() {
    let server = Server::start(SHORT_TIMES);
    script::run(&mut script::node(&server, "connection.mjs"));
}

#[test]
fn subscriptions() {
    let server = Server::start("");
    script::run(&mut script::node(&server, "subscription.mjs"));
}

#[test]
fn recovery() {
    let mut server = Server::start("shutdown.spread = \"100ms\"");
    let mut command = script::node(&server, "recovery.mjs");
    script::run_with_answers(&mut command, |question| match question {
        "restart" => server.restart(),
        _ => panic!("{question:?} is not known here"),
    });
}

#[test]
fn slow_consumer() {
    let server = Server::start(RESYNC);
    script::run(&mut script::node(&server, "slow_consumer.mjs"));
}

#[test]
fn tokens() {
    // The script serves the keys there.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let keys_port = listener.local_addr().expect("it is bound").port();
    drop(listener);
    let server = Server::start(&format!(
        "client.expired_grace = \"1s\"\nclient.token.jwks_public_endpoint = \"http://127.0.0.1:{keys_port}/keys\""
    ));
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
