//! What goes wrong is said clearly, and what was found until then is reported.

use std::{net::TcpListener, path::Path, thread, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    support::{
        PATIENCE,
        server::{Launch, Server},
        wait_for,
    },
    tester::{Outcome, Tester, to, with_producers},
};

/// A port that nobody listens on.
fn deserted_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}

/// The run failed with these words, and its report has them in every form.
fn assert_partial(outcome: &Outcome, words: &str) {
    let problems = outcome.problems();
    assert_eq!(outcome.exit_code, Some(1), "{}{}", outcome.table, outcome.complaints);
    assert!(problems.contains(words), "`{words}` is expected: {problems}");
    assert!(outcome.table.contains("PROBLEM"), "{}", outcome.table);
    assert!(outcome.page.contains("class=missed") && outcome.page.ends_with("</html>\n"), "{}", outcome.page);
}

#[test]
fn bad_arguments_are_refused_before_anything_runs() {
    for (arguments, words) in [
        ("idle --connections none", "invalid value 'none'"),
        ("broadcast --rate 0", "above 0"),
        ("broadcast --payload-bytes 3", "--payload-bytes"),
        ("sing", "unrecognized subcommand"),
        ("idle --token a --hmac-secret b", "cannot be used with"),
    ] {
        let outcome = Tester::start(arguments, &[]).end();
        assert_eq!(outcome.exit_code, Some(2), "{arguments}: {}", outcome.complaints);
        assert!(outcome.complaints.contains(words), "{arguments}: {}", outcome.complaints);
        assert!(outcome.report.is_null(), "nothing was measured, nothing is reported");
    }
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let url = ["--url".to_owned(), format!("ws://127.0.0.1:{}/", deserted_port())];
    let outcome = Tester::start("idle --connections 10", &url).end();
    assert_partial(&outcome, "clients could not be opened; the first: connect to 127.0.0.1:");
    assert!(outcome.problems().contains("Connection refused"), "{}", outcome.problems());
    let ingest = ["--ingest".to_owned(), format!("127.0.0.1:{}", deserted_port())];
    let outcome = Tester::start("broadcast --connections 10", &[url, ingest].concat()).end();
    assert_partial(&outcome, "no ingest port at 127.0.0.1:");
}

#[test]
fn a_wrong_url_is_told() {
    let server = Server::start("");
    for (url, words) in [
        (format!("http://{}/", server.client_address()), "a URL such as ws://"),
        (format!("ws://{}/connection/wrong", server.client_address()), "the server refuses the upgrade: HTTP/1.1 404"),
        ("ws://no.such.host.invalid/".to_owned(), "the host of ws://no.such.host.invalid/ is not known"),
        // Any server of another protocol.
        (format!("ws://{}/", server.ingest_address()), "clients could not be opened"),
    ] {
        let outcome = Tester::start("idle --connections 5", &["--url".to_owned(), url]).end();
        assert_partial(&outcome, words);
    }
}

#[test]
fn a_channel_that_is_refused_is_told() {
    let server = Server::start("");
    let outcome = Tester::start("idle --connections 5 --channel closed:{}", &to(&server)).end();
    assert_partial(&outcome, "the server refuses the subscribe command: error 103");
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("ws://{}/", listener.local_addr().expect("it has an address"));
    let outcome = Tester::start("idle --connections 5 --patience-seconds 1", &["--url".to_owned(), url]).end();
    assert_partial(&outcome, "nothing has moved for 1 seconds");
}

#[test]
fn too_few_descriptors_are_told_with_the_command_that_helps() {
    let server = Server::start("");
    let outcome = Tester::start_with_descriptors(50, "idle --connections 100", &to(&server)).end();
    assert_partial(&outcome, "ulimit -n");
}

#[test]
fn a_server_with_too_few_descriptors_is_told() {
    let server = Server::launch(Launch { descriptors_max: Some(300), ..Launch::default() });
    let arguments = "idle --connections 400 --channel open:idle --patience-seconds 2";
    let outcome = Tester::start(arguments, &to(&server)).end();
    assert_partial(&outcome, "of 400 clients are open");
}

#[test]
fn more_clients_than_ports_are_told_before_any_connects() {
    // An address for documentation (RFC 5737), to which no packet is sent.
    let url = ["--url".to_owned(), "ws://192.0.2.1:8000/".to_owned()];
    let outcome = Tester::start("idle --connections 100000", &url).end();
    assert_partial(&outcome, "net.ipv4.ip_local_port_range");
}

/// Messages that the server has sent.
fn sent(server: &Server) -> f64 {
    server.metrics().sum("tidegate_messages_sent_total", &[]).unwrap_or_default()
}

/// A broadcast that would last much longer than a test; it has delivered something.
fn endless_broadcast(server: &Server) -> Tester {
    let arguments = "broadcast --connections 50 --rate 20 --seconds 600 --warmup-seconds 0.2 --floor";
    let tester = Tester::start(arguments, &with_producers(server));
    wait_for("messages are delivered", || (sent(server) > 2_000.0).then_some(()));
    // So that a worker has reported them.
    thread::sleep(Duration::from_millis(500));
    tester
}

#[test]
fn a_server_that_dies_leaves_a_partial_report() {
    let mut server = Server::start("");
    let tester = endless_broadcast(&server);
    kill(server.process(), Signal::SIGKILL).expect("the server is there");
    server.wait_for_end(PATIENCE);
    let outcome = tester.end();
    assert_partial(&outcome, "is gone");
    assert!(outcome.server("messages delivered") > 500.0, "{}", outcome.table);
    assert!(!outcome.problems().contains("lost"), "what was under way is not lost: {}", outcome.problems());
    assert!(outcome.table.contains("server: every message"), "{}", outcome.table);
    assert!(outcome.page.contains("<polyline"), "the time until then is drawn");
}

#[test]
fn a_server_that_stops_in_order_is_told_by_its_close_code() {
    let server = Server::start("shutdown.spread = \"0s\"");
    let tester = endless_broadcast(&server);
    server.terminate();
    let outcome = tester.end();
    assert_partial(&outcome, "the server closed with code 3001");
    assert!(outcome.server("messages delivered") > 500.0, "{}", outcome.table);
}

#[test]
fn a_server_that_dies_while_clients_are_idle_is_told() {
    let server = Server::start("");
    let tester = Tester::start("idle --connections 50 --seconds 600 --channel open:idle", &to(&server));
    let subscribers = || server.metrics().sum("tidegate_connections", &[]).unwrap_or_default();
    wait_for("clients are there", || (subscribers() > 50.0).then_some(()));
    kill(server.process(), Signal::SIGKILL).expect("the server is there");
    let outcome = tester.end();
    assert_eq!(outcome.exit_code, Some(1));
    assert!(!outcome.problems().is_empty());
}

#[test]
fn a_worker_that_dies_is_told() {
    let server = Server::start("");
    let tester = endless_broadcast(&server);
    let worker = *tester.children().first().expect("clients are in a process of their own");
    kill(Pid::from_raw(worker as i32), Signal::SIGKILL).expect("the worker is there");
    assert_partial(&tester.end(), "worker process 0 ended early");
}

#[test]
fn workers_end_with_their_coordinator() {
    let server = Server::start("");
    let mut tester = endless_broadcast(&server);
    let workers = tester.children();
    assert!(!workers.is_empty());
    tester.kill();
    let is_running = |id: &u32| Path::new(&format!("/proc/{id}/exe")).exists();
    wait_for("its workers end", || (!workers.iter().any(is_running)).then_some(()));
    let outcome = tester.end();
    assert_eq!(outcome.exit_code, None, "it was killed");
}

#[test]
fn a_server_that_does_not_start_is_told() {
    let more = ["--serve", "false", "--url"].map(str::to_owned).to_vec();
    let url = format!("ws://127.0.0.1:{}/", deserted_port());
    let outcome = Tester::start("idle --connections 5", &[more, vec![url]].concat()).end();
    assert_partial(&outcome, "ended before it listened");
}
