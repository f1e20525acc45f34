//! The request head of a client: any bytes.
//!
//! Checked: what is found does not depend on where the network cut; what was understood, written
//! down again, is understood alike, extensions among it; `tungstenite` derives the same accept key; the answer is one
//! HTTP head, whatever the client sent.

#![no_main]

use std::io::{self, Read, Write};

use libfuzzer_sys::fuzz_target;
use tidegate::{
    http::{self, Answer, Head, Request},
    websocket::{
        deflate::negotiation::{Agreement, negotiate},
        extension::{self, Extension},
        handshake,
    },
};

/// Places where a head is cut. Shorter heads are cut everywhere.
const CUTS_MAX: usize = 32;

fuzz_target!(|input: &[u8]| {
    let found = http::parse(input);
    let step = (input.len() / CUTS_MAX).max(1);
    for length in (0..input.len()).step_by(step) {
        let beginning = http::parse(&input[..length]);
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
            match handshake::check(request) {
                Ok(upgrade) => {
                    let agreement = negotiate(&upgrade.extensions);
                    handshake::respond_accept(&mut answer, upgrade.key, None, agreement);
                    check_reference(&input[..*bytes], &answer);
                    check_extensions(&upgrade.extensions, agreement);
                }
                Err(rejection) => handshake::respond_rejection(&mut answer, &rejection),
            }
        }
        Err(rejection) => Answer::last(rejection.status(), &format!("{rejection}\n")).write(&mut answer),
    }
    let answer = str::from_utf8(&answer).expect("an answer is text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    assert!(head.is_ascii() && !body.contains('\r'), "{answer:?}");
});

/// Writes the request in its plainest form and reads it again.
fn check_again(request: &Request<'_>) {
    let mut head = format!("{} {}", request.method, request.path);
    if let Some(query) = request.query {
        head += &format!("?{query}");
    }
    head += " HTTP/1.1\r\n";
    let mut head = head.into_bytes();
    for (name, value) in request.fields() {
        head.extend_from_slice(name.as_bytes());
        head.push(b':');
        // An authority in the target goes before the field.
        let is_host = name.eq_ignore_ascii_case("Host");
        head.extend_from_slice(if is_host { request.host.unwrap_or_default().as_bytes() } else { value });
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    if head.len() > tidegate::limits::REQUEST_HEAD_BYTES_MAX {
        return;
    }
    let Ok(Head::Complete { request: again, bytes }) = http::parse(&head) else { panic!("it was a request") };
    assert_eq!(bytes, head.len());
    let parts = |request: &Request<'_>| {
        let body = (request.body, request.expects_continue, request.closes);
        format!("{:?}", (request.method, request.path, request.query, request.host, request.origin, body))
    };
    assert_eq!(parts(&again), parts(request));
    assert_eq!(handshake::check(&again), handshake::check(request));
}

/// Extensions, written down in their plainest form, are read alike; and what is agreed on could be offered.
fn check_extensions(extensions: &[Extension<'_>], agreement: Option<Agreement>) {
    for extension in extensions {
        let mut text = extension.name.to_owned();
        for parameter in &extension.parameters {
            text += &format!(";{}", parameter.name);
            if let Some(value) = &parameter.value {
                text += &format!("={value}");
            }
        }
        assert_eq!(extension::parse(&text).as_ref(), Some(extension));
    }
    if let Some(agreement) = agreement {
        let answer = agreement.to_string();
        let answer = extension::parse(&answer).expect("an answer has the form of an offer");
        assert!(extensions.iter().any(|extension| extension.name == answer.name));
        assert_eq!(negotiate(&[answer]).map(|again| again.deflation), Some(agreement.deflation));
    }
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
