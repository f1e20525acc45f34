//! SIGTERM: no new clients, those that are there are told to come back, paced; then exit code 0 in time.

mod support;

use std::{
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use support::{PATIENCE, client::Client, producer::Producer, server::Server, wait_for};

#[test]
fn clients_are_told_to_come_back_spread_over_time() {
    const CLIENTS: usize = 200;
    const SPREAD: Duration = Duration::from_secs(2);
    let mut server = Server::start("shutdown.timeout = \"6s\"\nshutdown.spread = \"2s\"");
    let clients: Vec<Client> = (0..CLIENTS).map(|_| Client::anonymous(&server)).collect();
    let address = server.client_address();

    let began = Instant::now();
    server.terminate();
    let told = thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                scope.spawn(move || {
                    let (code, reason) = client.close_frame();
                    let told = began.elapsed();
                    assert_eq!((code, reason.as_str()), (3001, "shutdown"));
                    client.assert_ends();
                    told
                })
            })
            .collect();
        wait_for("no new clients are accepted", || TcpStream::connect(address).is_err().then_some(()));
        let mut told: Vec<Duration> = threads.into_iter().map(|thread| thread.join().expect("told")).collect();
        told.sort_unstable();
        told
    });
    let status = server.wait_for_end(PATIENCE);
    let took = began.elapsed();
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(took < Duration::from_secs(6), "{took:?}");

    // Waves, not one blow: the middle half of the clients is told over at least a quarter of the spread.
    let middle = told[CLIENTS * 3 / 4] - told[CLIENTS / 4];
    assert!(middle > SPREAD / 4, "told after {told:?}");
    assert!(told[CLIENTS - 1] < SPREAD + Duration::from_secs(1), "told after {told:?}");
}

#[test]
fn what_was_accepted_before_is_delivered() {
    const PUBLICATIONS: u64 = 500;
    let mut server = Server::start("shutdown.spread = \"500ms\"");
    let mut client = Client::anonymous(&server);
    client.subscribe("open:last");
    let mut producer = Producer::connect(&server);
    for number in 0..PUBLICATIONS {
        producer.publish("open:last", &json!(number).to_string());
    }
    server.terminate();
    for number in 0..PUBLICATIONS {
        assert_eq!(client.next_data(), number);
    }
    assert_eq!(client.close_frame().0, 3001);
    client.assert_ends();
    assert_eq!(server.wait_for_end(PATIENCE).code(), Some(0));
}

#[test]
fn a_client_that_does_not_answer_does_not_hold_up_the_exit() {
    let mut server = Server::start("shutdown.timeout = \"2s\"\nshutdown.spread = \"100ms\"");
    let _deaf = Client::anonymous(&server);
    let began = Instant::now();
    server.terminate();
    let status = server.wait_for_end(PATIENCE);
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::start("shutdown.timeout = \"60s\"\nshutdown.spread = \"30s\"");
    let _deaf: Vec<Client> = (0..20).map(|_| Client::anonymous(&server)).collect();
    server.terminate();
    let address = server.client_address();
    wait_for("no new clients are accepted", || TcpStream::connect(address).is_err().then_some(()));
    let began = Instant::now();
    server.terminate();
    let status = server.wait_for_end(PATIENCE);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_ne!(status.code(), Some(0), "an exit in the middle of things is no success");
}
