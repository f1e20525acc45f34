//! Every scenario in a short form: what comes out is complete and adds up.

use crate::{
    support::server::Server,
    tester::{Tester, to, with_producers},
};

const DELIVERED: &str = "messages delivered";

#[test]
fn idle_tells_memory_beside_the_floor() {
    let server = Server::start("");
    let arguments = "idle --connections 300 --seconds 1 --floor --channel open:idle";
    let outcome = Tester::start(arguments, &to(&server)).end();
    // Other tests, which run at the same time, may spoil the kernel's account: that is then said, and nothing else.
    let problems = outcome.problems();
    assert!(problems.split("; ").all(|problem| problem.is_empty() || problem.contains("sockets came")), "{problems}");
    assert_eq!((outcome.server("connections"), outcome.floor("connections")), (300.0, 300.0));
    assert!(outcome.server("user memory per connection, RSS") > 10.0, "{}", outcome.table);
    assert!(outcome.server("CPU per client opened") > 1.0, "{}", outcome.table);
}

#[test]
fn heartbeats_are_counted_beside_the_floor() {
    let server = Server::start("client.ping_interval = \"1s\"\nclient.pong_timeout = \"900ms\"");
    let arguments = "heartbeat --connections 100 --seconds 4 --warmup-seconds 2 --floor --channel open:idle";
    let outcome = Tester::start(arguments, &to(&server)).end().succeeded();
    let pace = outcome.server("heartbeats per client and second");
    assert!((0.7..1.1).contains(&pace), "one ping a second: {pace}");
    assert!(outcome.server("CPU per heartbeat (ping out, pong in)") > 0.1, "{}", outcome.table);
    assert!(outcome.floor("CPU per heartbeat (ping out, pong in)") > 0.1, "{}", outcome.table);
}

#[test]
fn a_server_that_pings_too_rarely_is_told() {
    let server = Server::start("");
    let arguments = "heartbeat --connections 10 --seconds 1 --warmup-seconds 0.1 --channel open:idle";
    let outcome = Tester::start(arguments, &to(&server)).end();
    assert_eq!(outcome.exit_code, Some(1));
    assert!(outcome.problems().contains("client.ping_interval"), "{}", outcome.problems());
}

#[test]
fn broadcast_counts_every_message_and_knows_when_the_last_socket_had_it() {
    let server = Server::start("");
    let arguments = "broadcast --connections 200 --rate 20 --seconds 2 --warmup-seconds 0.5 --floor";
    let outcome = Tester::start(arguments, &with_producers(&server)).end().succeeded();
    assert_eq!((outcome.server(DELIVERED), outcome.floor(DELIVERED)), (8_000.0, 8_000.0));
    let arrival = "last client's socket has it after, p99, beside the send() loop itself";
    let received = "last client has received it after, p99";
    assert!(outcome.server(arrival) > 0.0 && outcome.floor(arrival) > 0.0, "{}", outcome.table);
    assert!(outcome.server(arrival) <= outcome.server(received), "{}", outcome.table);
}

#[test]
fn many_processes_of_clients_are_as_one() {
    let server = Server::start("");
    let arguments =
        "broadcast --connections 300 --rate 10 --seconds 1 --warmup-seconds 0.5 --opening-max 8 --channels 3";
    // So few descriptors that no process has room for a third of the clients.
    let tester = Tester::start_with_descriptors(160, arguments, &with_producers(&server));
    let mut workers = 0;
    while workers < 4 {
        workers = tester.children().len();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let outcome = tester.end().succeeded();
    // Each publication goes to one of three channels.
    assert_eq!(outcome.server(DELIVERED), 1_000.0);
}

#[test]
fn routed_reaches_one_user_each() {
    let server = Server::start("");
    let arguments = "routed --connections 100 --rate 200 --seconds 2 --warmup-seconds 0.5";
    let outcome = Tester::start(arguments, &with_producers(&server)).end().succeeded();
    assert_eq!(outcome.server(DELIVERED), 400.0);
}

#[test]
fn mixed_is_broadcast_and_routed_at_once() {
    let server = Server::start("");
    let arguments = "mixed --connections 100 --rate 20 --seconds 2 --warmup-seconds 0.5";
    let outcome = Tester::start(arguments, &with_producers(&server)).end().succeeded();
    assert_eq!(outcome.server(DELIVERED), 40.0 * 100.0 + 40.0);
}

#[test]
fn a_storm_brings_everybody_back() {
    let server = Server::start("");
    let mut arguments = with_producers(&server);
    arguments.drain(4..6);
    let outcome = Tester::start("storm --connections 200 --rounds 2", &arguments).end().succeeded();
    for part in ["opening clients", "storm 1", "storm 2"] {
        assert!(outcome.server(&format!("{part}: until all are subscribed")) > 0.0, "{}", outcome.table);
    }
}

#[test]
fn a_storm_with_recovery_loses_and_doubles_nothing() {
    let server = Server::start("");
    let mut arguments = to(&server);
    arguments.extend(["--ingest".to_owned(), server.ingest_address().to_string()]);
    let storm = "storm --recover --connections 500 --channels 20 --channel kept:{} --rounds 2 --rate 200";
    let outcome = Tester::start(storm, &arguments).end().succeeded();
    let publications = outcome.server("publications meanwhile");
    assert_eq!(outcome.server(DELIVERED), publications * 25.0);
    // Two seconds away at 200 publications, to 25 clients each.
    assert!(outcome.server("of them recovered") > 8_000.0, "{}", outcome.table);
}

#[test]
fn a_storm_needs_channels_that_recover() {
    let server = Server::start("");
    let mut arguments = to(&server);
    arguments.extend(["--ingest".to_owned(), server.ingest_address().to_string()]);
    let outcome = Tester::start("storm --recover --connections 10 --channel open:{}", &arguments).end();
    assert_eq!(outcome.exit_code, Some(1));
    assert!(outcome.problems().contains("force_recovery"), "{}", outcome.problems());
}

#[test]
fn churn_misses_nothing_while_clients_come_and_go() {
    let server = Server::start("");
    let arguments = "churn --connections 200 --churn-rate 100 --rate 20 --seconds 2 --warmup-seconds 0.5";
    let outcome = Tester::start(arguments, &with_producers(&server)).end().succeeded();
    assert!(outcome.server("clients that left and came back") > 50.0, "{}", outcome.table);
    assert!(outcome.server("messages delivered meanwhile") > 4_000.0, "{}", outcome.table);
}

#[test]
fn a_ramp_ends_at_some_rate() {
    let server = Server::start("");
    // Bursts, so that a short search finds the end, and a limit that a busy machine keeps at some rate.
    let arguments =
        "ramp --connections 100 --rate 50 --burst 16 --seconds 0.3 --warmup-seconds 0.1 --latency-ms-max 300";
    let outcome = Tester::start(arguments, &with_producers(&server)).end().succeeded();
    assert!(outcome.server("highest rate within the limit, publications") > 1.0, "{}", outcome.table);
}

#[test]
fn a_ramp_ends_where_the_server_ends_clients() {
    let server = Server::start("ingest.payload_size_max = \"32KiB\"\nshards.outbox_size_max = \"64KiB\"");
    // The limit is never broken; what is sent at an instant fills a client's socket and outbox.
    let arguments = "ramp --connections 20 --payload-bytes 20000 --rate 2 --burst 16 --seconds 0.5 \
                     --warmup-seconds 0.1 --latency-ms-max 60000";
    let outcome = Tester::start(arguments, &with_producers(&server)).end().succeeded();
    assert!(outcome.server("highest rate within the limit, publications") > 1.0, "{}", outcome.table);
    assert!(outcome.table.contains("clients ended by the server at "), "{}", outcome.table);
    assert!(server.metrics().reason("slow") > 0);
}

#[test]
fn slow_readers_are_ended_and_the_others_miss_nothing() {
    let server = Server::start("");
    // Quicker than they read by so much that the kernel's buffers are soon full, and quick enough to see the end.
    let arguments = "slow --connections 6 --slow-every 3 --slow-bytes-per-second 1000000 --payload-bytes 60000 \
                     --rate 60 --seconds 10 --warmup-seconds 0.2";
    let outcome = Tester::start(arguments, &with_producers(&server)).end().succeeded();
    // 3008 is what the server counts as `slow`.
    assert_eq!(server.metrics().reason("slow"), 2);
    assert_eq!(outcome.server("slow clients ended by the server"), 2.0, "{}", outcome.table);
    assert_eq!(outcome.server(DELIVERED), 4.0 * 600.0);
}
