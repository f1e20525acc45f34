//! Conformance to RFC 6455 and RFC 7692, as others understand them: the Autobahn test suite and a reference client against
//! an echo server whose every byte goes through the server's own codec.
//!
//! The suite is a program that is not installed everywhere; `make conformance` installs and runs it.

mod autobahn;
mod echo;

use tungstenite::{Message, protocol::frame::coding::CloseCode};

#[test]
#[ignore = "needs the Autobahn test suite: make conformance"]
fn the_autobahn_test_suite_finds_no_fault() {
    let findings = autobahn::run(echo::start());
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn the_echo_server_says_what_it_hears() {
    let (mut client, _) = tungstenite::connect(format!("ws://{}/", echo::start())).expect("an upgrade");
    for message in [Message::text("é".repeat(40_000)), Message::binary(vec![7; 300]), Message::text("")] {
        client.send(message.clone()).expect("the server reads");
        assert_eq!(client.read().expect("the server answers"), message);
    }
    let close = tungstenite::protocol::CloseFrame { code: CloseCode::Library(4321), reason: "bye".into() };
    client.close(Some(close)).expect("the server reads");
    match client.read().expect("the server answers") {
        Message::Close(Some(close)) => assert_eq!(u16::from(close.code), 4321),
        other => panic!("expected a close frame, got {other:?}"),
    }
}
