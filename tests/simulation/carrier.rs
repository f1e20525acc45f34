//! How a client's messages travel where there is no WebSocket: down in the chunks of an answer without an end, up by
//! requests to `/emulation` on connections of their own.

use serde_json::json;
use tidegate::uring::simulated::{Peer, Read};

use crate::client::World;

/// Bytes of commands that one request brings, if it brings more than one command.
const REQUEST_BYTES_MAX: usize = 30_000;

/// How long a refused request waits for its next try.
const RETRY_MS: u64 = 100;

/// What carries messages to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    WebSocket,
    Chunks,
    Events,
}

impl Carrier {
    /// Where such a client connects.
    pub fn path(self, is_one_way: bool) -> &'static str {
        match (self, is_one_way) {
            (Self::WebSocket, false) => "/connection/websocket",
            (Self::Chunks, false) => "/connection/http_stream",
            (Self::Events, false) => "/connection/sse",
            (Self::WebSocket, true) => "/connection/uni_websocket",
            (Self::Chunks, true) => "/connection/uni_http_stream",
            (Self::Events, true) => "/connection/uni_sse",
        }
    }
}

/// A request with a body.
pub fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Takes the head of an answer away, if all of it is there: its first line and the rest.
pub fn take_head(unread: &mut Vec<u8>) -> Option<String> {
    let end = unread.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    Some(String::from_utf8(unread.drain(..end).collect()).expect("a head is text"))
}

/// The messages in an answer without an end.
#[derive(Default)]
pub struct Stream {
    content: Vec<u8>,
    is_begun: bool,
    /// The last chunk was there.
    pub has_ended: bool,
}

impl Stream {
    /// Takes whole chunks away; the messages that are whole with them.
    pub fn take(&mut self, carrier: Carrier, unread: &mut Vec<u8>) -> Vec<Vec<u8>> {
        while let Some(chunk) = take_chunk(unread) {
            assert!(!self.has_ended, "a chunk behind the last one");
            self.has_ended = chunk.is_empty();
            self.content.extend(chunk);
        }
        let mut messages = Vec::new();
        if carrier == Carrier::Events && !self.is_begun && self.content.len() >= 2 {
            assert_eq!(self.content.drain(..2).as_slice(), b"\r\n", "a stream of events begins with an empty line");
            self.is_begun = true;
        }
        let (head, tail): (&[u8], &[u8]) = match carrier {
            Carrier::Events => (b"data: ", b"\n\n"),
            _ => (b"", b"\n"),
        };
        while let Some(end) = self.content.windows(tail.len()).position(|window| window == tail) {
            let line: Vec<u8> = self.content.drain(..end + tail.len()).collect();
            let message = line[..end].strip_prefix(head).expect("every event has data and nothing else");
            messages.push(message.to_vec());
        }
        assert!(!self.has_ended || self.content.is_empty(), "the stream ends within a message");
        messages
    }
}

fn take_chunk(unread: &mut Vec<u8>) -> Option<Vec<u8>> {
    let digits = unread.windows(2).position(|window| window == b"\r\n")?;
    let length = str::from_utf8(&unread[..digits]).expect("the length of a chunk is text");
    let length = usize::from_str_radix(length, 16).expect("the length of a chunk is hexadecimal");
    let (begin, end) = (digits + 2, digits + 2 + length);
    if unread.len() < end + 2 {
        return None;
    }
    assert_eq!(&unread[end..end + 2], b"\r\n", "a chunk ends with its length");
    let chunk = unread[begin..end].to_vec();
    unread.drain(..end + 2);
    Some(chunk)
}

/// What a client of a stream says.
#[derive(Default)]
pub struct Uplink {
    peer: Option<Peer>,
    unread: Vec<u8>,
    waiting: Vec<String>,
    /// Commands of the request that is under way; empty: none is.
    under_way: Vec<String>,
    retry_ms: u64,
}

/// What came of a step of an uplink.
pub enum Stepped {
    Idle,
    Busy,
    /// A request has no answer, and nobody knows whether it was heard.
    Lost,
}

impl Uplink {
    /// Commands, or a pong, to be sent.
    pub fn say(&mut self, text: String) {
        self.waiting.push(text);
    }

    /// Takes an answer in, sends the next request when the last one is answered.
    pub fn step(&mut self, session: &str, node: &str, shards: usize, world: &mut World<'_>) -> Stepped {
        let mut is_busy = false;
        if let Some(peer) = &self.peer {
            let outcome = peer.read(&mut self.unread, usize::MAX);
            is_busy |= matches!(outcome, Read::Bytes(1..));
            if let Some(head) = take_head(&mut self.unread) {
                is_busy = true;
                self.answered(&head, world);
            } else if matches!(outcome, Read::Ended | Read::Reset) {
                self.disconnect();
                if !self.under_way.is_empty() {
                    return Stepped::Lost;
                }
            }
        }
        if self.under_way.is_empty() && !self.waiting.is_empty() && world.network.now_ms() >= self.retry_ms {
            self.send(session, node, shards, world);
            is_busy = true;
        }
        if is_busy { Stepped::Busy } else { Stepped::Idle }
    }

    fn answered(&mut self, head: &str, world: &World<'_>) {
        if head.starts_with("HTTP/1.1 204 ") {
            assert!(!self.under_way.is_empty(), "an answer to no request");
            self.under_way.clear();
            if head.contains("Connection: close") {
                self.disconnect();
            }
            return;
        }
        // No place for it, or idle for too long: the request was not looked at.
        assert!(head.starts_with("HTTP/1.1 503 ") || head.starts_with("HTTP/1.1 408 "), "{head}");
        self.disconnect();
        self.waiting.splice(..0, self.under_way.drain(..));
        self.retry_ms = world.network.now_ms() + RETRY_MS;
    }

    fn send(&mut self, session: &str, node: &str, shards: usize, world: &mut World<'_>) {
        let mut bytes = 0;
        let fits = |text: &&String| {
            bytes += text.len();
            bytes <= REQUEST_BYTES_MAX
        };
        let count = self.waiting.iter().take_while(fits).count().max(1);
        self.under_way = self.waiting.drain(..count).collect();
        let body = json!({ "session": session, "node": node, "data": self.under_way.join("\n") }).to_string();
        let peer = self.peer.take().unwrap_or_else(|| {
            self.unread.clear();
            world.network.connect(world.random.below(shards as u64) as usize, 1_000)
        });
        peer.write(post("/emulation", &body).as_bytes());
        self.peer = Some(peer);
    }

    fn disconnect(&mut self) {
        self.peer = None;
        self.unread.clear();
    }
}
