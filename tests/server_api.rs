//! The server API over real HTTP, with the official client library as the users that it acts on.

mod support;

use support::{http, script, server::Server};

/// The key that scripts show.
const KEY: &str = "a key that only the tests know";

/// Namespaces with and without what the API reads.
const NAMESPACES: &str = r#"
[[channel.namespaces]]
name = "room"
allow_subscribe_for_client = true
presence = true
join_leave = true
history_size = 10
history_ttl = "10m"
force_recovery = true
"#;

#[test]
fn every_method() {
    let server = Server::start(&format!("api.keys = [\"another key\", {KEY:?}]\nshards.cores = [0, 1]\n{NAMESPACES}"));
    script::run(script::node(&server, "server_api.mjs").env("TEST_API_KEY", KEY));
}

#[test]
fn without_keys_nobody_may_ask_unless_it_is_insecure() {
    let server = Server::start("");
    let info = |server: &Server, fields: &str| {
        http::post(server.admin_address(), "/api/info", fields, "{}").expect("the port answers").status
    };
    assert_eq!(info(&server, ""), 401);
    assert_eq!(info(&server, "X-API-Key: \r\n"), 401);
    let server = Server::start("api.insecure = true\napi.error_mode = \"transport\"");
    assert_eq!(info(&server, ""), 200);
    // A page in a browser on this host asks without anybody's wish, if need be by a name that was made to point here.
    assert_eq!(info(&server, "Origin: http://evil.example\r\n"), 403);
    assert_eq!(info(&server, "Sec-Fetch-Site: cross-site\r\n"), 403);
    assert_eq!(info(&server, "Host: evil.example\r\n"), 421);
    let failed = http::post(server.admin_address(), "/api/publish", "", "{}").expect("the port answers");
    assert_eq!((failed.status, failed.body.as_str()), (400, r#"{"code":107,"message":"bad request"}"#));
}
