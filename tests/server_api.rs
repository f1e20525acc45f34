//! The server API over real HTTP, with the official client library as the users that it acts on.

mod support;

use std::{
    io::Write,
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread::sleep,
    time::Duration,
};

use support::{PATIENCE, http, script, server::Server};

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
fn the_clients_port_has_it_where_it_is_configured() {
    let elsewhere = Server::start(&format!("api.keys = [{KEY:?}]"));
    let key = format!("X-API-Key: {KEY}\r\n");
    let info = |server: &Server, key: &str| {
        http::post(server.client_address(), "/api/info", key, "{}").expect("the port answers").status
    };
    assert_eq!(info(&elsewhere, &key), 404);

    let server = Server::start(&format!(
        "api.on_client_port = true\napi.keys = [{KEY:?}]\nclient.message_size_max = \"4KiB\"\n{NAMESPACES}"
    ));
    assert_eq!((info(&server, ""), info(&server, &key)), (401, 200));
    assert_eq!(http::get(server.client_address(), "/apis").expect("the port answers").status, 404);
    // Longer than a client's messages may be, and than a shard receives at once.
    let long = "x".repeat(200_000);
    let body = format!(r#"{{"channel":"room:a","data":"{long}"}}"#);
    let published = http::post(server.client_address(), "/api/publish", &key, &body).expect("the port answers");
    assert_eq!(published.status, 200, "{published:?}");
    let history = http::post(server.client_address(), "/api/history", &key, r#"{"channel":"room:a","limit":1}"#);
    assert!(history.expect("the port answers").body.contains(&long));
    // A connection is kept for the next request, whatever its pieces.
    let mut stream = TcpStream::connect(server.client_address()).expect("the port answers");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    for _ in 0..3 {
        let request = format!("POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 2\r\n\r\n{{}}");
        for piece in request.as_bytes().chunks(40) {
            stream.write_all(piece).expect("the server reads");
            sleep(Duration::from_millis(2));
        }
        assert_eq!(http::read_response(&mut stream).expect("the server answers").status, 200);
    }
    drop(stream);
    // Shards have let go of all of them.
    assert_eq!(server.metrics().sum("tidegate_sockets", &[]), Some(0.0));
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
