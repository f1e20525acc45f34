//! A server of ours that compresses: the tester inflates what comes, compares it with what was published, and counts it.

use crate::{
    support::server::Server,
    tester::{Outcome, Tester, to},
};

/// A run against a server whose channels are compressed so.
fn broadcast(mode: &str, payload: &str) -> Outcome {
    let server = Server::start(&format!(
        "[[channel.namespaces]]\nname = \"packed\"\nallow_subscribe_for_client = true\n\
         allow_subscribe_for_anonymous = true\ncompression = \"{mode}\"\n"
    ));
    let arguments = format!(
        "broadcast --compression --payload {payload} --connections 50 --channels 2 --rate 40 --seconds 2 \
         --warmup-seconds 1 --channel packed:{{}}"
    );
    let mut more = to(&server);
    more.extend(["--ingest".to_owned(), server.ingest_address().to_string()]);
    more.extend(["--metrics".to_owned(), server.admin_address().to_string()]);
    let outcome = Tester::start(&arguments, &more).end().succeeded();
    assert_eq!(outcome.server("messages delivered"), 2_000.0, "{mode}, {payload}");
    outcome
}

const AGREED: &str = "clients with which the server agreed on compression";
const COMPRESSED: &str = "messages that came compressed";
const SHARE: &str = "bytes on the wire, of those uncompressed";

#[test]
fn a_server_that_does_not_compress_agrees_on_nothing() {
    let outcome = broadcast("off", "ticks");
    assert_eq!((outcome.server(AGREED), outcome.server(COMPRESSED), outcome.server(SHARE)), (0.0, 0.0, 100.0));
}

#[test]
fn messages_by_themselves_are_inflated_and_counted() {
    for payload in ["ticks", "json1024"] {
        let outcome = broadcast("single", payload);
        assert_eq!((outcome.server(AGREED), outcome.server(COMPRESSED)), (50.0, 2_000.0), "{payload}");
        assert!(outcome.server(SHARE) < 85.0, "{payload}: {} %", outcome.server(SHARE));
    }
}

#[test]
fn messages_that_refer_to_those_before_them_are_inflated_and_counted() {
    for payload in ["ticks", "chat", "match", "json512", "json1024"] {
        let outcome = broadcast("shared", payload);
        assert_eq!((outcome.server(AGREED), outcome.server(COMPRESSED)), (50.0, 2_000.0), "{payload}");
        assert!(outcome.server(SHARE) < 45.0, "{payload}: {} %", outcome.server(SHARE));
    }
}
