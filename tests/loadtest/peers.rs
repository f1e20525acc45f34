//! Servers of another make: the tester is told by texts how their clients subscribe and publish.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::tester::{Outcome, Tester};

/// A broadcasting server on the `ws` library, under Node.js.
struct Peer {
    child: Child,
    port: u16,
}

impl Peer {
    /// `drop_every`: it forgets every so-manieth publication for one of its subscribers; 0: none.
    fn start(drop_every: u32) -> Peer {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let mut child = Command::new("node")
            .arg("javascript/push_peer.mjs")
            .arg(drop_every.to_string())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is installed (tests/install-tools.sh)");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says its port");
        let port = line.trim().parse().unwrap_or_else(|_| panic!("no port: {line:?}"));
        Peer { child, port }
    }

    fn broadcast(&self, channels: u32, publish_text: &str) -> Outcome {
        let url = format!("ws://127.0.0.1:{}/", self.port);
        let channels = channels.to_string();
        let more = [
            ("--url", url.as_str()),
            ("--channels", &channels),
            ("--channel", "news-{}"),
            ("--connect-text", "hello {client}"),
            ("--subscribe-text", "subscribe {channel}"),
            ("--ready-text", "subscribed"),
            ("--publish-text", publish_text),
        ];
        let more: Vec<String> =
            more.iter().flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]).collect();
        let arguments = "broadcast --connections 60 --rate 20 --seconds 2 --warmup-seconds 0.5 --floor";
        Tester::start(arguments, &more).end()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // One that has ended by itself cannot be killed; it is waited for all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PUBLISH: &str = "publish {channel} {payload}";

#[test]
fn a_peer_is_measured_by_the_texts_of_its_protocol() {
    let peer = Peer::start(0);
    let outcome = peer.broadcast(1, PUBLISH).succeeded();
    assert_eq!((outcome.server("messages delivered"), outcome.floor("messages delivered")), (2_400.0, 2_400.0));
    assert!(outcome.server("CPU per delivered message") > 0.0, "its process was found: {}", outcome.table);
    // The server greets each client once, which no producer of the tester's sent, but before the count began.
    assert!(!outcome.table.contains("that no producer of ours sent"), "{}", outcome.table);
    let outcome = peer.broadcast(3, PUBLISH).succeeded();
    assert_eq!(outcome.server("messages delivered"), 800.0);
}

#[test]
fn a_peer_that_loses_messages_is_found_out() {
    let outcome = Peer::start(10).broadcast(1, PUBLISH);
    assert_eq!(outcome.exit_code, Some(1));
    assert!(outcome.problems().contains("messages lost"), "{}", outcome.problems());
}

#[test]
fn a_publication_needs_a_payload() {
    let outcome = Peer::start(0).broadcast(1, "publish");
    assert_eq!(outcome.exit_code, Some(1));
    assert!(outcome.problems().contains("{payload} is missing"), "{}", outcome.problems());
}
