//! The request head of a client: any bytes.
//!
//! Checked: what is found does not depend on where the network cut; what was understood, written
//! down again, is understood alike; `tungstenite` derives the same accept key; the answer is one
//! HTTP head, whatever the client sent.

#![no_main]

use std::io::{self, Read, Write};

use libfuzzer_sys::fuzz_target;
use tidegate::websocket::handshake::{self, Head, Request};

/// Places where a head is cut. Shorter heads are cut everywhere.
const CUTS_MAX: usize = 32;

fuzz_target!(|input: &[u8]| {
    let found = handshake::parse(input);
    let step = (input.len() / CUTS_MAX).max(1);
    for length in (0..input.len()).step_by(step) {
        let beginning = handshake::parse(&input[..length]);
        assert!(
            beginning == Ok(Head::Incomplete) || beginning == found,
            "cut at {length}: {beginning:?}, not {found:?}"
        );
    }
    let mut answer = Vec::new();
    match &found {
        Ok(Head::Incomplete) => return,
        Ok(Head::Complete { request, bytes }) => {
            check_again(request);
            handshake::respond_accept(&mut answer, request.key, None);
            check_reference(&input[..*bytes], &answer);
        }
        Err(rejection) => handshake::respond_rejection(&mut answer, rejection),
    }
    let answer = str::from_utf8(&answer).expect("an answer is text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    assert!(head.is_ascii() && !body.contains('\r'), "{answer:?}");
});

/// Writes the request in its plainest form and reads it again.
fn check_again(request: &Request<'_>) {
    let mut head = format!("GET {}", request.path);
    if let Some(query) = request.query {
        head += &format!("?{query}");
    }
    head += &format!(" HTTP/1.1\r\nHost:{}\r\n", request.host.unwrap_or_default());
    head += "Upgrade:websocket\r\nConnection:Upgrade\r\nSec-WebSocket-Version:13\r\n";
    head += &format!("Sec-WebSocket-Key:{}\r\n", request.key);
    if let Some(origin) = request.origin {
        head += &format!("Origin:{origin}\r\n");
    }
    // One line takes more bytes than one element of a list did, so many elements may not fit any more.
    if request.subprotocols.len() + request.extensions.len() > 40 {
        return;
    }
    for subprotocol in &request.subprotocols {
        head += &format!("Sec-WebSocket-Protocol:{subprotocol}\r\n");
    }
    for extension in &request.extensions {
        head += &format!("Sec-WebSocket-Extensions:{extension}\r\n");
    }
    head += "\r\n";
    if head.len() > tidegate::limits::REQUEST_HEAD_BYTES_MAX {
        return;
    }
    let expected = Ok(Head::Complete { request: request.clone(), bytes: head.len() });
    assert_eq!(handshake::parse(head.as_bytes()), expected);
}

/// If `tungstenite` accepts the head too, its answer holds the same accept key.
fn check_reference(head: &[u8], answer: &[u8]) {
    let mut stream = Stream { input: head, output: Vec::new() };
    if tungstenite::accept(&mut stream).is_ok() {
        assert_eq!(accept_key(&stream.output), accept_key(answer));
    }
}

fn accept_key(answer: &[u8]) -> String {
    let answer = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let (_, key) = answer.split_once("sec-websocket-accept: ").expect("an accept key");
    key.split("\r\n").next().expect("a line").to_owned()
}

/// A client's bytes in, the server's bytes out.
struct Stream<'a> {
    input: &'a [u8],
    output: Vec<u8>,
}

impl Read for &mut Stream<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.input.read(bytes)
    }
}

impl Write for &mut Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
