//! The server API over real HTTP, with the official client library as the users that it acts on.

mod support;

use std::net::{Ipv4Addr, TcpListener};

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
fn a_port_of_its_own_has_nothing_else() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = free.local_addr().expect("it is bound");
    drop(free);
    let _server = Server::start(&format!("api.listen = \"{address}\"\napi.keys = [{KEY:?}]"));
    let key = format!("Host: backend.example\r\nX-API-Key: {KEY}\r\n");
    let publish =
        http::post(address, "/api/publish", &key, r#"{"channel":"open:a","data":1}"#).expect("the port answers");
    assert_eq!((publish.status, publish.body.as_str()), (200, r#"{"result":{}}"#));
    assert_eq!(http::post(address, "/api/info", "", "{}").expect("the port answers").status, 401);
    for path in ["/", "/metrics", "/health", "/console/token"] {
        assert_eq!(http::get(address, path).expect("the port answers").status, 404, "{path}");
    }
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
