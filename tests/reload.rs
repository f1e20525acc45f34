//! SIGHUP and `tidegate reload`: what changes in a server that runs, what does not, and that nobody who is connected notices.

mod support;

use std::{
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde_json::json;
use support::{
    client::{Client, token},
    http,
    producer::{Producer, Reply},
    server::{Server, TOKEN_SECRET},
    wait_for,
};

const ADDED: &str = r#"
[[channel.namespaces]]
name = "added"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
history_size = 10
history_ttl = "1m"
force_recovery = true
"#;

/// The command, its output and its exit code.
fn reload(server: &Server) -> Output {
    let program = std::env::var("TEST_SERVER_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_tidegate").to_owned());
    let mut command = Command::new(program);
    command.args(["reload", "--address", &server.admin_address().to_string()]);
    command.output().expect("the command runs")
}

/// A figure that has no labels.
fn figure(server: &Server, name: &str) -> f64 {
    server.metrics().sum(name, &[]).expect("the server has the figure")
}

/// Logs are written by a thread of their own.
fn wait_for_log(server: &Server, text: &str) {
    wait_for(&format!("the log says {text:?}"), || server.log().contains(text).then_some(()));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What the command printed; it must have succeeded.
fn reloaded(server: &Server) -> (String, String) {
    let output = reload(server);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn clients_and_producers_go_on_while_the_configuration_is_read_anew() {
    const RELOADS: u64 = 20;
    let server = Server::start("");
    let done = Arc::new(AtomicBool::new(false));
    let channels = ["open:load", "kept:load"];
    let mut clients: Vec<Client> = (0..20)
        .map(|_| {
            let mut client = Client::anonymous(&server);
            channels.iter().for_each(|channel| _ = client.subscribe(channel));
            client
        })
        .collect();
    let producer = {
        let (mut producer, done) = (Producer::connect(&server), Arc::clone(&done));
        thread::spawn(move || {
            let mut number = 0_u64;
            while !done.load(Ordering::Relaxed) {
                for channel in channels {
                    producer.publish(channel, &number.to_string());
                }
                number += 1;
            }
            for channel in channels {
                producer.publish(channel, "\"end\"");
            }
            number
        })
    };
    for round in 0..RELOADS {
        // Channels of `open` begin and end to be counted at home, histories shrink and grow.
        let presence = round % 2 == 0;
        server.configure(&format!("{}\n{ADDED}", if presence { "client.channels_max = 100" } else { "" }));
        server.edit(|text| match presence {
            true => text
                .replace("name = \"open\"", "name = \"open\"\npresence = true")
                .replace("history_size = 2000", "history_size = 50"),
            false => text,
        });
        if round % 5 == 4 {
            server.hang_up();
            wait_for("SIGHUP is heard", || {
                (figure(&server, "tidegate_config_reloads_total") > round as f64).then_some(())
            });
        } else {
            reloaded(&server);
        }
    }
    done.store(true, Ordering::Relaxed);
    let published = producer.join().expect("the producer was always answered");
    for client in &mut clients {
        let mut expected = [0, 0];
        let mut ended = 0;
        while ended < channels.len() {
            let push = client.next_push();
            let channel = channels.iter().position(|channel| push["channel"] == *channel).expect("a channel of ours");
            if push["pub"]["data"] == "end" {
                ended += 1;
            } else {
                assert_eq!(push["pub"]["data"], expected[channel], "{push}");
                expected[channel] += 1;
            }
        }
        assert_eq!(expected, [published; 2]);
    }
    assert_eq!(figure(&server, "tidegate_config_reloads_total"), RELOADS as f64);
}

#[test]
fn a_new_namespace_can_be_used_and_one_that_is_gone_cannot() {
    let server = Server::start("");
    let (mut client, mut producer) = (Client::anonymous(&server), Producer::connect(&server));
    let refused = client.command("subscribe", json!({ "channel": "added:a" }));
    assert_eq!(refused["error"]["code"], 102);
    server.configure(ADDED);
    let (changed, warnings) = reloaded(&server);
    assert_eq!((changed.as_str(), warnings.as_str()), ("changed:\n  channel.namespaces[added] (added)\n", ""));
    client.subscribe("added:a");
    assert_eq!(producer.publish("added:a", "1"), 1);
    assert_eq!(client.next_push()["pub"]["offset"], 1);
    server.configure("");
    assert_eq!(reloaded(&server).0, "changed:\n  channel.namespaces[added] (removed)\n");
    assert!(matches!(producer.command(&["PUBLISH", "added:a", "2"]), Reply::Error(_)));
    client.command("unsubscribe", json!({ "channel": "added:a" }));
    assert_eq!(client.command("subscribe", json!({ "channel": "added:a" }))["error"]["code"], 102);
    assert_eq!(reloaded(&server).0, "nothing is written otherwise\n");
}

#[test]
fn a_configuration_with_mistakes_changes_nothing_and_is_told_whole() {
    let server = Server::start("");
    let mut client = Client::anonymous(&server);
    server
        .configure(&format!("client.channels_max = 1\nclient.ping_interval = \"soon\"\nlog.level = \"loud\"\n{ADDED}"));
    let output = reload(&server);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let told = text(&output.stderr);
    assert!(told.starts_with("error: nothing has changed:\n"), "{told}");
    assert!(told.contains("client.ping_interval: expected a duration") && told.contains("log.level: expected off"));
    client.subscribe("open:a");
    client.subscribe("open:b");
    assert_eq!(client.command("subscribe", json!({ "channel": "added:a" }))["error"]["code"], 102);
    server.hang_up();
    wait_for("SIGHUP is heard", || (figure(&server, "tidegate_config_reload_failures_total") >= 2.0).then_some(()));
    assert_eq!(figure(&server, "tidegate_config_last_reload_successful"), 0.0);
    wait_for_log(&server, "nothing has changed");
    server.configure("");
    reloaded(&server);
    assert_eq!(figure(&server, "tidegate_config_last_reload_successful"), 1.0);
}

#[test]
fn a_secret_is_rotated_without_ending_a_connection() {
    let server = Server::start("");
    let mut old = Client::user(&server, "ann");
    let next = "a secret that comes after the first, of more than 32 bytes";
    let as_both =
        format!("client.token.hmac_secret = \"{next}\"\nclient.token.hmac_secret_previous = \"{TOKEN_SECRET}\"");
    server.configure(&as_both);
    let (changed, _) = reloaded(&server);
    assert_eq!(changed, "changed:\n  client.token.hmac_secret\n  client.token.hmac_secret_previous\n");
    Client::user(&server, "ann");
    server.configure(&format!("client.token.hmac_secret = \"{next}\""));
    reloaded(&server);
    let mut refused = Client::upgraded(&server);
    refused.send_command("connect", json!({ "token": token(&json!({ "sub": "ann" })) }));
    assert_eq!(refused.close_frame().0, 3500);
    old.subscribe("users:a");
    assert!(!server.log().contains(next), "no secret is logged");
}

#[test]
fn the_level_of_logs_changes() {
    let server = Server::start("log.level = \"warn\"");
    server.configure("log.level = \"tidegate=info\"");
    assert_eq!(reloaded(&server).0, "changed:\n  log.level\n");
    wait_for_log(&server, "the configuration was read anew and counts");
    server.configure("log.level = \"off\"");
    reloaded(&server);
    let before = server.log();
    server.configure("log.level = \"off\"\nclient.channels_max = 7");
    reloaded(&server);
    assert_eq!(server.log(), before);
}

#[test]
fn what_needs_a_restart_is_named_each_time_and_stays() {
    let server = Server::start("");
    server.configure(
        "client.listen = \"127.0.0.1:1\"\ningest.listen = \"none\"\nadmin.listen = \"127.0.0.1:2\"\n\
         api.listen = \"127.0.0.1:3\"\nclient.ping_interval = \"26s\"\nshards.cores = [0]\nhooks.headers = [\"X-A\"]\n\
         client.channels_max = 3",
    );
    for changed in ["changed:\n  client.channels_max\n", "nothing is written otherwise\n"] {
        let (told, warnings) = reloaded(&server);
        assert_eq!(told, changed);
        for key in
            ["client.listen", "client.ping_interval", "ingest.listen", "admin.listen", "api.listen", "hooks.headers"]
        {
            assert!(warnings.contains(&format!("warning: {key} changes only with a restart\n")), "{key}: {warnings}");
            wait_for_log(&server, &format!("{key} changes only with a restart"));
        }
    }
    Client::anonymous(&server).subscribe("open:a");
    Producer::connect(&server).publish("open:a", "1");
}

#[test]
fn doors_are_opened_and_shut() {
    let server = Server::start("");
    let ask = |key: &str| {
        let fields = format!("X-API-Key: {key}\r\n");
        http::post(server.admin_address(), "/api/info", &fields, "{}").expect("the admin port answers").status
    };
    let by_client_port = || {
        let fields = "X-API-Key: first\r\n";
        http::post(server.client_address(), "/api/info", fields, "{}").expect("the client port answers").status
    };
    assert_eq!((ask("first"), by_client_port()), (401, 404));
    server.configure("api.keys = [\"first\"]\napi.on_client_port = true");
    reloaded(&server);
    assert_eq!((ask("first"), by_client_port()), (200, 200));
    server.configure("api.keys = [\"second\"]\nclient.connections_max = 1\nclient.allow_anonymous = false");
    reloaded(&server);
    assert_eq!((ask("first"), ask("second"), by_client_port()), (401, 200, 404));
    // The connections before have to be gone first.
    let place = || http::get(server.client_address(), "/connection/websocket").map(|answer| answer.status).ok();
    wait_for("there is a place", || place().filter(|status| *status != 503));
    wait_for("its connection is gone", || (server.metrics().sum("tidegate_sockets", &[]) == Some(0.0)).then_some(()));
    let mut anonymous = Client::upgraded(&server);
    assert_eq!(place(), Some(503));
    anonymous.send_command("connect", json!({}));
    assert_eq!(anonymous.close_frame().0, 3501);
    let foreign = http::post(server.admin_address(), "/reload", "", "").expect("the admin port answers");
    assert_eq!(foreign.status, 403, "no page may ask for it");
}
