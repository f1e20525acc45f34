//! Scenarios over TLS, against the real server; whom clients do not trust is told in plain words.

use crate::{
    support::{
        authority::{Authority, certificates},
        server::Server,
    },
    tester::{Tester, with_producers},
};

/// A server of the authority's, for `localhost`.
fn server_of(authority: &Authority) -> Server {
    Server::start(&certificates("client.tls", &[&authority.issue("localhost")]))
}

fn url(server: &Server) -> String {
    format!("wss://localhost:{}/connection/websocket", server.client_address().port())
}

/// Arguments that lead there with users and producers, in place of those without TLS.
fn to(server: &Server, trust: &[&str]) -> Vec<String> {
    let mut arguments = with_producers(server);
    arguments[1] = url(server);
    arguments.extend(trust.iter().map(|word| (*word).to_owned()));
    arguments
}

fn handshakes(server: &Server) -> f64 {
    server.metrics().sum("tidegate_tls_handshakes_total", &[]).unwrap_or_default()
}

#[test]
fn idle_clients_are_sealed_and_their_memory_is_told() {
    let authority = Authority::new();
    let server = server_of(&authority);
    let arguments =
        ["--url", &url(&server), "--channel", "open:idle", "--tls-ca", &authority.file().display().to_string()]
            .map(str::to_owned);
    let outcome = Tester::start("idle --connections 200 --seconds 1", &arguments).end();
    // Other tests may spoil the kernel's account.
    let problems = outcome.problems();
    assert!(problems.split("; ").all(|problem| problem.is_empty() || problem.contains("sockets came")), "{problems}");
    assert!(outcome.server("user memory per connection, RSS") > 100.0, "{}", outcome.table);
    // 64 come before the measurement.
    assert_eq!(handshakes(&server), 264.0);
}

#[test]
fn publications_arrive_sealed_in_both_versions() {
    let authority = Authority::new();
    let server = server_of(&authority);
    for version in ["1.3", "1.2"] {
        let arguments = to(&server, &["--tls-insecure", "--tls-version", version]);
        let broadcast = "broadcast --connections 100 --rate 20 --seconds 2 --warmup-seconds 0.5 --floor";
        let outcome = Tester::start(broadcast, &arguments).end().succeeded();
        let delivered = "messages delivered";
        // The floor's clients are as they always are: it speaks no TLS.
        assert_eq!((outcome.server(delivered), outcome.floor(delivered)), (4_000.0, 4_000.0), "{version}");
    }
}

#[test]
fn a_producer_among_the_clients_is_sealed_as_they_are() {
    let authority = Authority::new();
    let server = server_of(&authority);
    let mut arguments =
        ["--url", &url(&server), "--tls-ca", &authority.file().display().to_string()].map(str::to_owned).to_vec();
    for (name, text) in [
        ("--channel", "open:{}"),
        ("--connect-text", r#"{"id":1,"connect":{}}"#),
        ("--subscribe-text", r#"{"id":2,"subscribe":{"channel":"{channel}"}}"#),
        ("--ready-text", r#""id":2"#),
        ("--publish-text", r#"{"id":3,"publish":{"channel":"{channel}","data":{payload}}}"#),
    ] {
        arguments.extend([name, text].map(str::to_owned));
    }
    let broadcast = "broadcast --connections 20 --rate 20 --seconds 1 --warmup-seconds 0.2";
    let outcome = Tester::start(broadcast, &arguments).end().succeeded();
    assert_eq!(outcome.server("messages delivered"), 400.0);
}

#[test]
fn large_messages_and_slow_readers_are_sealed_too() {
    let authority = Authority::new();
    let server = server_of(&authority);
    let arguments = to(&server, &["--tls-insecure"]);
    let slow = "slow --connections 6 --slow-every 3 --slow-bytes-per-second 1000000 --payload-bytes 60000 --rate 60 \
                --seconds 10 --warmup-seconds 0.2";
    let outcome = Tester::start(slow, &arguments).end().succeeded();
    assert_eq!(outcome.server("slow clients ended by the server"), 2.0, "{}", outcome.table);
    assert_eq!(outcome.server("messages delivered"), 4.0 * 600.0);
    let churn = "churn --connections 100 --churn-rate 50 --rate 20 --seconds 1 --warmup-seconds 0.2";
    let outcome = Tester::start(churn, &arguments).end().succeeded();
    assert!(outcome.server("clients that left and came back") > 10.0, "{}", outcome.table);
}

#[test]
fn a_storm_comes_back_in_full_or_by_tickets() {
    let authority = Authority::new();
    let server = server_of(&authority);
    let storm = |more: &[&str]| {
        let mut arguments = to(&server, &["--tls-insecure"]);
        arguments.drain(4..6);
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        Tester::start("storm --connections 200 --rounds 1", &arguments).end().succeeded()
    };
    let full = storm(&[]);
    assert!(!full.table.contains("resumed"), "{}", full.table);
    for version in ["1.3", "1.2"] {
        let resuming = storm(&["--tls-resume", "--tls-version", version]);
        let resumed = resuming.server("storm 1: TLS sessions resumed");
        // Every client has left a ticket behind.
        assert_eq!(resumed, 200.0, "{version}: {}", resuming.table);
    }
}

#[test]
fn whom_clients_do_not_trust_is_told_in_plain_words() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = server_of(&authority);
    let (own, other) = (authority.file().display().to_string(), stranger.file().display().to_string());
    let port = server.client_address().port();
    let (secure, plain) = (url(&server), url(&server).replacen("wss", "ws", 1));
    let empty = authority.folder.join("empty.pem");
    std::fs::write(&empty, "").expect("the folder can be written");
    let empty = empty.display().to_string();
    let ingest = format!("wss://localhost:{}/", server.ingest_address().port());
    for (url, trust, words) in [
        (&secure, vec!["--tls-ca", &other], "of an authority that is not trusted: name it with --tls-ca"),
        (&format!("wss://127.0.0.1:{port}/"), vec!["--tls-ca", &own], "is for another name"),
        (&secure, vec!["--tls-ca", &empty], "it holds no certificate in PEM"),
        (&secure, vec!["--tls-ca", "/nowhere.pem"], "--tls-ca /nowhere.pem"),
        (&plain, vec!["--tls-insecure"], "no TLS is spoken there: write wss://"),
        (&plain, vec![], "this port speaks TLS: write wss://"),
        (&ingest, vec!["--tls-insecure"], "does not speak TLS there"),
    ] {
        let mut arguments = vec!["--url".to_owned(), url.clone()];
        arguments.extend(trust.iter().map(|word| (*word).to_owned()));
        let outcome = Tester::start("idle --connections 5", &arguments).end();
        assert_eq!(outcome.exit_code, Some(1), "{}", outcome.table);
        assert!(outcome.problems().contains(words), "`{words}` is expected: {}", outcome.problems());
    }
    // The server has been told why.
    assert!(server.metrics().reason("tls_peer_alert") > 0);
}
