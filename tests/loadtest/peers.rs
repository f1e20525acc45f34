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
        Peer::start_with(&[&drop_every.to_string()])
    }

    fn start_with(arguments: &[&str]) -> Peer {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let mut child = Command::new("node")
            .arg("javascript/push_peer.mjs")
            .args(arguments)
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
        self.run(
            "broadcast --connections 60 --rate 20 --seconds 2 --warmup-seconds 0.5 --floor",
            channels,
            publish_text,
        )
    }

    fn run(&self, arguments: &str, channels: u32, publish_text: &str) -> Outcome {
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

#[test]
fn what_a_peer_compresses_is_inflated_compared_and_counted() {
    let peer = Peer::start_with(&["0", "deflate"]);
    for (payload, percent_max) in
        [("ticks", 60.0), ("chat", 70.0), ("match", 60.0), ("json512", 60.0), ("json1024", 50.0)]
    {
        let arguments = format!(
            "broadcast --compression --payload {payload} --seed 7 --connections 20 --rate 40 --seconds 1.5 \
             --warmup-seconds 0.5"
        );
        let outcome = peer.run(&arguments, 2, PUBLISH).succeeded();
        assert_eq!(outcome.server("messages delivered"), 600.0, "{payload}");
        assert_eq!(outcome.server("clients with which the server agreed on compression"), 20.0);
        assert_eq!(outcome.server("messages that came compressed"), 600.0);
        let [wire, plain] =
            ["bytes on the wire per delivered message", "the same, uncompressed"].map(|name| outcome.server(name));
        let percent = outcome.server("bytes on the wire, of those uncompressed");
        assert!((percent - 100.0 * wire / plain).abs() < 1e-6 && percent < percent_max, "{payload}: {percent} %");
        // The channel's name and a blank come with it, and the frame's header.
        let payload_bytes = match payload {
            "ticks" => 179.0,
            "chat" => 250.0,
            "match" => 265.0,
            "json512" => 512.0,
            _ => 1024.0,
        };
        assert!((plain - payload_bytes).abs() < payload_bytes * 0.1, "{payload}: {plain}");
    }
}

#[test]
fn a_peer_that_does_not_compress_is_told_apart() {
    let arguments = "broadcast --compression --payload ticks --connections 10 --rate 20 --seconds 1 --warmup-seconds 0.5 \
                     --wire-percent-max 50";
    let outcome = Peer::start(0).run(arguments, 1, PUBLISH).succeeded();
    assert_eq!(outcome.server("clients with which the server agreed on compression"), 0.0);
    assert_eq!(outcome.server("bytes on the wire, of those uncompressed"), 100.0);
    assert!(outcome.table.contains("MISSED"), "{}", outcome.table);
}

#[test]
fn what_is_published_comes_from_the_seed() {
    let peer = Peer::start_with(&["0", "deflate"]);
    let bytes = |seed: u32| {
        let arguments = format!(
            "broadcast --compression --payload chat --seed {seed} --connections 2 --rate 20 --seconds 1 --warmup-seconds 0.5"
        );
        peer.run(&arguments, 1, PUBLISH).succeeded().server("the same, uncompressed")
    };
    assert_eq!((bytes(1), bytes(1) == bytes(2)), (bytes(1), false));
}
