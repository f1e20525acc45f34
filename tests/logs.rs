//! What operators read: lines about refusals, the audit trail, and a server that outlives the loss of both.

mod support;

use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    client::Client,
    http,
    producer::{Producer, Reply},
    server::{Launch, Server},
    wait_for,
};

/// The objects of a log in JSON that pass.
fn objects(text: &str, passes: impl Fn(&Value) -> bool) -> Vec<Value> {
    let objects = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    objects.filter(passes).collect()
}

/// Waits for an object with these members.
fn wait_for_object(read: impl Fn() -> String, members: &Value) -> Value {
    let members = members.as_object().expect("members are an object").clone();
    let has_all = |object: &Value| members.iter().all(|(name, value)| object[name] == *value);
    wait_for(&format!("a line with {members:?}"), || objects(&read(), has_all).pop())
}

#[test]
fn refusals_name_the_client_the_channel_and_the_reason_and_are_bounded() {
    let server = Server::start("log.format = \"json\"\nlog.level = \"debug\"");
    let mut client = Client::user(&server, "user 42");
    for _ in 0..50 {
        let reply = client.command("subscribe", json!({ "channel": "closed:room" }));
        assert_eq!(reply["error"]["code"], 103, "{reply}");
    }
    let refusal =
        json!({ "level": "warn", "reason": "permission_denied", "user": "user 42", "channel": "closed:room" });
    let line = wait_for_object(|| server.log(), &refusal);
    assert!(line["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.1:")), "{line}");
    assert_eq!(line["client"].as_str().map(str::len), Some(36), "{line}");
    let lines = objects(&server.log(), |object| object["reason"] == "permission_denied");
    assert!(lines.len() <= 10, "50 refusals are told by a few lines, not by {}", lines.len());
    let connected = wait_for_object(|| server.log(), &json!({ "message": "connected", "user": "user 42" }));
    assert_eq!(connected["client"], line["client"]);
    drop(client);
    let left = wait_for_object(|| server.log(), &json!({ "message": "disconnected", "user": "user 42" }));
    assert_eq!(left["client"], line["client"], "{left}");
    assert!(left["reason"].is_string(), "{left}");
}

#[test]
fn the_audit_trail_has_a_file_of_its_own() {
    let folder = std::env::temp_dir().join(format!("tidegate-audit-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    let file = folder.join("audit.log");
    let settings = format!(
        "log.level = \"error\"\nlog.audit_file = {:?}\napi.keys = [\"an api key of the test\"]\ningest.password = \"right\"",
        file.display().to_string()
    );
    let server = Server::start(&settings);
    let trail = || std::fs::read_to_string(&file).unwrap_or_default();

    let mut forger = Client::upgraded(&server);
    forger.send_command("connect", json!({ "token": "a.b.c" }));
    assert_eq!(forger.close_frame().0, 3500);
    let line = wait_for_object(trail, &json!({ "target": "audit", "reason": "token_invalid" }));
    assert!(line["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.1:")), "{line}");

    let mut stream = TcpStream::connect(server.client_address()).expect("the port accepts");
    let head = "GET /connection/websocket HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.example\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("the server reads");
    wait_for_object(trail, &json!({ "reason": "origin_forbidden" }));

    let mut producer = Producer::connect(&server);
    assert!(matches!(producer.command(&["AUTH", "wrong"]), Reply::Error(_)));
    wait_for_object(trail, &json!({ "reason": "wrong_password", "message": "a producer was refused" }));

    let response = http::post(server.admin_address(), "/api/info", "X-API-Key: wrong\r\n", "{}").expect("it answers");
    assert_eq!(response.status, 401);
    let line = wait_for_object(trail, &json!({ "reason": "api_key_invalid", "path": "/api/info" }));
    assert!(line["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.1:")), "{line}");

    assert!(!server.log().contains("audit"), "the trail is not in the log too: {}", server.log());
    drop(server);
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn a_full_disk_costs_lines_and_no_message() {
    let server = Server::launch(Launch {
        settings: "log.level = \"debug\"\nlog.audit_file = \"/dev/full\"".to_owned(),
        log_to: Some("/dev/full".into()),
        ..Launch::default()
    });
    let mut subscriber = Client::anonymous(&server);
    subscriber.subscribe("open:news");
    let mut producer = Producer::connect(&server);
    for number in 0..200 {
        drop(Client::anonymous(&server));
        let begin = Instant::now();
        producer.command(&["PUBLISH", "open:news", &number.to_string()]);
        assert_eq!(subscriber.next_data(), json!(number));
        assert!(begin.elapsed() < Duration::from_secs(5), "nobody waits for a log");
    }
    let failed = || server.metrics().sum("tidegate_log_lost_lines_total", &[("log", "main"), ("reason", "failed")]);
    wait_for("lost lines are counted", || failed().filter(|failed| *failed >= 200.0));
}
