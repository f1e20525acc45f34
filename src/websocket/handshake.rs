//! The opening handshake: a client's request head, and what the server answers (RFC 6455 section 4).
//!
//! Owns the head's syntax, the rules that make it an upgrade, and the bytes of every HTTP answer
//! on the clients' port. Leaves to the session which paths, origins and subprotocols are welcome,
//! and to the shard the deadline.
//!
//! Invariants:
//! - A [`Request`] that exists obeys every rule of section 4.2.1 that needs no configuration.
//! - No byte that a client chose appears in an answer, so nothing can be injected into one.
//! - At most [`REQUEST_HEAD_BYTES_MAX`] bytes are ever looked at, so an endless head is refused and not stored.

use std::io::Write;

use tungstenite::handshake::derive_accept_key;

use crate::limits::{REQUEST_HEAD_BYTES_MAX, REQUEST_HEADERS_MAX};

/// A request to upgrade, valid as far as RFC 6455 can say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// Of the target, as sent (percent-encoded); begins with `/`.
    pub path: &'a str,
    /// What follows the target's `?`, as sent.
    pub query: Option<&'a str>,
    /// The authority that the client believes it talks to; none if it sent an empty one.
    pub host: Option<&'a str>,
    /// The web page's origin; browsers send it always, others seldom.
    pub origin: Option<&'a str>,
    /// `Sec-WebSocket-Key`, checked to be 16 bytes in base64.
    pub key: &'a str,
    /// Offered subprotocols, in the client's order of preference.
    pub subprotocols: Vec<&'a str>,
    /// Offered extensions with their parameters, in the client's order of preference.
    pub extensions: Vec<&'a str>,
}

/// What the bytes so far amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head<'a> {
    /// The head goes on.
    Incomplete,
    /// The head is whole.
    Complete {
        /// What it asks for.
        request: Request<'a>,
        /// Length of the head; what follows are frames.
        bytes: usize,
    },
}

/// A mistake in a request head. Its text tells the client what it did and what would be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Longer than [`REQUEST_HEAD_BYTES_MAX`].
    #[error("the request head is longer than {REQUEST_HEAD_BYTES_MAX} bytes")]
    HeadTooLarge,
    /// More fields than [`REQUEST_HEADERS_MAX`].
    #[error("the request has more than {REQUEST_HEADERS_MAX} header fields")]
    HeadersTooMany,
    /// Not the syntax of HTTP/1.1 (RFC 9112).
    #[error("this is not an HTTP/1.1 request")]
    Malformed,
    /// Not HTTP/1.1.
    #[error("WebSocket connections begin with HTTP/1.1")]
    HttpVersionUnsupported,
    /// Not GET.
    #[error("WebSocket connections begin with GET")]
    MethodNotAllowed,
    /// The target is neither a path nor an http or ws URI, or it has a fragment (RFC 6455 section 3).
    #[error("the request target must be a path, without a fragment")]
    TargetInvalid,
    /// No `Host`, or one that is none (RFC 9112 section 3.2).
    #[error("the request needs one valid Host header")]
    HostInvalid,
    /// A field that may come once came twice; which of them counts must not be a guess.
    #[error("Host, Origin, Sec-WebSocket-Key and Sec-WebSocket-Version may be sent once")]
    HeaderRepeated,
    /// A body is announced; its bytes would be taken for frames.
    #[error("a request to upgrade has no body")]
    BodyPresent,
    /// `Upgrade: websocket` or `Connection: Upgrade` is missing.
    #[error("this is a WebSocket endpoint: it needs \"Upgrade: websocket\" and \"Connection: Upgrade\"")]
    NotAnUpgrade,
    /// `Sec-WebSocket-Version` is missing or not 13.
    #[error("the WebSocket version must be 13")]
    VersionUnsupported,
    /// No `Sec-WebSocket-Key`.
    #[error("the request needs a Sec-WebSocket-Key header")]
    KeyMissing,
    /// `Sec-WebSocket-Key` is not 16 bytes in base64.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    KeyInvalid,
}

impl Rejection {
    /// The HTTP status that answers it.
    pub fn status(&self) -> u16 {
        match self {
            Self::HeadTooLarge | Self::HeadersTooMany => 431,
            Self::Malformed
            | Self::TargetInvalid
            | Self::HostInvalid
            | Self::HeaderRepeated
            | Self::BodyPresent
            | Self::NotAnUpgrade
            | Self::KeyMissing
            | Self::KeyInvalid => 400,
            Self::MethodNotAllowed => 405,
            Self::VersionUnsupported => 426,
            Self::HttpVersionUnsupported => 505,
        }
    }

    /// Its label in the metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::HeadTooLarge => "request_head_too_large",
            Self::HeadersTooMany => "request_headers_too_many",
            Self::Malformed => "request_malformed",
            Self::HttpVersionUnsupported => "http_version_unsupported",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TargetInvalid => "request_target_invalid",
            Self::HostInvalid => "host_invalid",
            Self::HeaderRepeated => "request_header_repeated",
            Self::BodyPresent => "request_body_present",
            Self::NotAnUpgrade => "not_an_upgrade",
            Self::VersionUnsupported => "websocket_version_unsupported",
            Self::KeyMissing => "websocket_key_missing",
            Self::KeyInvalid => "websocket_key_invalid",
        }
    }

    /// The fields with which the answer says what would be right.
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::MethodNotAllowed => &[("Allow", "GET")],
            // A 426 must name the protocol, and naming it needs the connection option (RFC 9110 section 7.8).
            Self::VersionUnsupported => {
                &[("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
            }
            Self::NotAnUpgrade => &[("Sec-WebSocket-Version", "13")],
            _ => &[],
        }
    }
}

/// Reads the request head at the front of `input`.
pub fn parse(input: &[u8]) -> Result<Head<'_>, Rejection> {
    let input = &input[..input.len().min(REQUEST_HEAD_BYTES_MAX)];
    let mut headers = [httparse::EMPTY_HEADER; REQUEST_HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(input) {
        Ok(httparse::Status::Complete(bytes)) => Ok(Head::Complete { request: check(&head)?, bytes }),
        Ok(httparse::Status::Partial) if input.len() < REQUEST_HEAD_BYTES_MAX => Ok(Head::Incomplete),
        Ok(httparse::Status::Partial) => Err(Rejection::HeadTooLarge),
        Err(httparse::Error::TooManyHeaders) => Err(Rejection::HeadersTooMany),
        Err(httparse::Error::Version) => Err(Rejection::HttpVersionUnsupported),
        Err(_) => Err(Rejection::Malformed),
    }
}

/// Appends the answer that completes the upgrade.
///
/// No `Sec-WebSocket-Extensions` is sent: no extension is accepted. When permessage-deflate
/// (RFC 7692) is, its accepted parameters go here.
pub fn respond_accept(out: &mut Vec<u8>, key: &str, subprotocol: Option<&str>) {
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    put_header(out, "Sec-WebSocket-Accept", &derive_accept_key(key.as_bytes()));
    if let Some(subprotocol) = subprotocol {
        put_header(out, "Sec-WebSocket-Protocol", subprotocol);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the answer to a mistake; the connection is to be closed behind it.
pub fn respond_rejection(out: &mut Vec<u8>, rejection: &Rejection) {
    respond_status(out, rejection.status(), rejection.headers(), &format!("{rejection}\n"));
}

/// Appends any other answer, with a body of plain text; the connection is to be closed behind it.
/// Headers and body are the server's own words, never a client's.
pub fn respond_status(out: &mut Vec<u8>, status: u16, extra_headers: &[(&str, &str)], body: &str) {
    write!(out, "HTTP/1.1 {status} {}\r\n", phrase(status)).expect("a Vec takes every byte");
    out.extend_from_slice(b"Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\n");
    put_header(out, "Content-Length", &body.len().to_string());
    for (name, value) in extra_headers {
        put_header(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body.as_bytes());
}

/// Holds a head that is syntactically right against RFC 6455 section 4.2.1.
fn check<'a>(head: &httparse::Request<'_, 'a>) -> Result<Request<'a>, Rejection> {
    if head.version != Some(1) {
        return Err(Rejection::HttpVersionUnsupported);
    }
    if head.method != Some("GET") {
        return Err(Rejection::MethodNotAllowed);
    }
    let target = Target::parse(head.path.unwrap_or_default())?;
    let fields = Fields::collect(head.headers)?;
    let host = fields.host.filter(|host| is_host(host)).ok_or(Rejection::HostInvalid)?;
    if fields.has_body {
        return Err(Rejection::BodyPresent);
    }
    if !fields.upgrade_websocket || !fields.connection_upgrade {
        return Err(Rejection::NotAnUpgrade);
    }
    if fields.version != Some("13") {
        return Err(Rejection::VersionUnsupported);
    }
    let key = fields.key.ok_or(Rejection::KeyMissing)?;
    if !is_key(key) {
        return Err(Rejection::KeyInvalid);
    }
    Ok(Request {
        path: target.path,
        query: target.query,
        host: Some(target.authority.unwrap_or(host)).filter(|host| !host.is_empty()),
        origin: fields.origin,
        key,
        subprotocols: fields.subprotocols,
        extensions: fields.extensions,
    })
}

/// The target of the request line, taken apart.
struct Target<'a> {
    /// Of an absolute URI; it goes before the `Host` field (RFC 9112 section 3.2.2).
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Accepts a path, or an absolute URI as clients send it to proxies (RFC 6455 section 4.1).
    fn parse(target: &'a str) -> Result<Self, Rejection> {
        const SCHEMES: [&str; 4] = ["http://", "https://", "ws://", "wss://"];

        if target.contains('#') {
            return Err(Rejection::TargetInvalid);
        }
        let after_scheme = SCHEMES.iter().find_map(|scheme| {
            let (front, rest) = target.split_at_checked(scheme.len())?;
            front.eq_ignore_ascii_case(scheme).then_some(rest)
        });
        let (authority, resource) = match after_scheme {
            Some(rest) => {
                let (authority, resource) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                (Some(authority), resource)
            }
            None => (None, target),
        };
        let (path, query) = match resource.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (resource, None),
        };
        let path = if path.is_empty() && authority.is_some() { "/" } else { path };
        if !path.starts_with('/') || authority.is_some_and(|authority| authority.is_empty() || !is_host(authority)) {
            return Err(Rejection::TargetInvalid);
        }
        Ok(Self { authority, path, query })
    }
}

/// The fields that matter to an upgrade.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a str>,
    origin: Option<&'a str>,
    key: Option<&'a str>,
    version: Option<&'a str>,
    upgrade_websocket: bool,
    connection_upgrade: bool,
    has_body: bool,
    subprotocols: Vec<&'a str>,
    extensions: Vec<&'a str>,
}

impl<'a> Fields<'a> {
    fn collect(headers: &[httparse::Header<'a>]) -> Result<Self, Rejection> {
        let mut fields = Self::default();
        for header in headers {
            fields.take(header.name, header.value)?;
        }
        Ok(fields)
    }

    fn take(&mut self, name: &str, value: &'a [u8]) -> Result<(), Rejection> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        // Fields that do not matter may hold any bytes; those that do are text.
        let text = || std::str::from_utf8(value).map(str::trim_ascii).map_err(|_| Rejection::Malformed);
        if is("Host") {
            take_once(&mut self.host, text()?)?;
        } else if is("Origin") {
            take_once(&mut self.origin, text()?)?;
        } else if is("Sec-WebSocket-Key") {
            take_once(&mut self.key, text()?)?;
        } else if is("Sec-WebSocket-Version") {
            take_once(&mut self.version, text()?)?;
        } else if is("Upgrade") {
            self.upgrade_websocket |= list(text()?).any(|protocol| protocol.eq_ignore_ascii_case("websocket"));
        } else if is("Connection") {
            self.connection_upgrade |= list(text()?).any(|option| option.eq_ignore_ascii_case("upgrade"));
        } else if is("Sec-WebSocket-Protocol") {
            self.subprotocols.extend(list(text()?));
        } else if is("Sec-WebSocket-Extensions") {
            self.extensions.extend(list(text()?));
        } else if is("Content-Length") {
            self.has_body |= text()? != "0";
        } else if is("Transfer-Encoding") {
            self.has_body = true;
        }
        Ok(())
    }
}

fn take_once<'a>(field: &mut Option<&'a str>, value: &'a str) -> Result<(), Rejection> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(Rejection::HeaderRepeated),
    }
}

/// The elements of a list field (RFC 9110 section 5.6.1); commas within quoted strings do not separate.
fn list(value: &str) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    let mut is_escaped = false;
    let is_separator = move |character| {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ',' => return !is_quoted,
            _ => {}
        }
        false
    };
    value.split(is_separator).map(str::trim_ascii).filter(|element| !element.is_empty())
}

/// Whether this could be a host with an optional port (RFC 3986 section 3.2), or is empty.
fn is_host(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte))
}

/// Whether this is the base64 of 16 bytes: 22 digits and two paddings. Bits of the last digit that
/// belong to no byte are not looked at; decoders differ about them, and nothing depends on them.
fn is_key(key: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    key.len() == 24 && key.strip_suffix("==").is_some_and(|digits| digits.bytes().all(is_digit))
}

fn put_header(out: &mut Vec<u8>, name: &str, value: &str) {
    assert!(
        !name.bytes().chain(value.bytes()).any(|byte| byte.is_ascii_control()),
        "a header field of an answer holds a control character; it would split the answer"
    );
    for part in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// The words behind a status. They are optional (RFC 9112 section 4), so an unlisted status goes without.
fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};

    use proptest::prelude::*;
    use tungstenite::{ClientRequestBuilder, Message, WebSocket};

    use super::*;
    use crate::websocket::frame::{self, Data, OpCode};

    /// The request of RFC 6455 section 1.2.
    const REQUEST: &str = "GET /chat HTTP/1.1\r\n\
        Host: server.example.com\r\n\
        Upgrade: websocket\r\n\
        Connection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Origin: http://example.com\r\n\
        Sec-WebSocket-Protocol: chat, superchat\r\n\
        Sec-WebSocket-Version: 13\r\n\
        \r\n";

    fn accept(head: &str) -> Request<'_> {
        match parse(head.as_bytes()) {
            Ok(Head::Complete { request, bytes }) => {
                assert_eq!(bytes, head.len());
                request
            }
            other => panic!("expected a request, got {other:?}"),
        }
    }

    /// The mistake in [`REQUEST`] after `from` was replaced by `to`.
    fn reject(from: &str, to: &str) -> Rejection {
        assert!(REQUEST.contains(from), "{from:?} is not in the request");
        parse(REQUEST.replacen(from, to, 1).as_bytes()).expect_err("a rejection")
    }

    /// [`REQUEST`] with more fields.
    fn with_fields(fields: &str) -> String {
        REQUEST.replace("\r\n\r\n", &format!("\r\n{fields}\r\n"))
    }

    #[test]
    fn reads_the_example_of_the_rfc() {
        let expected = Request {
            path: "/chat",
            query: None,
            host: Some("server.example.com"),
            origin: Some("http://example.com"),
            key: "dGhlIHNhbXBsZSBub25jZQ==",
            subprotocols: vec!["chat", "superchat"],
            extensions: vec![],
        };
        assert_eq!(accept(REQUEST), expected);
    }

    #[test]
    fn frames_may_follow_the_head() {
        let input = format!("{REQUEST}frames");
        assert!(matches!(parse(input.as_bytes()), Ok(Head::Complete { bytes, .. }) if bytes == REQUEST.len()));
    }

    #[test]
    fn every_beginning_of_a_request_is_incomplete() {
        for length in 0..REQUEST.len() {
            assert_eq!(parse(&REQUEST.as_bytes()[..length]), Ok(Head::Incomplete), "{length} bytes");
        }
    }

    #[test]
    fn names_and_tokens_are_read_in_any_case_and_in_lists() {
        let head = REQUEST
            .replace("Upgrade: websocket", "UPGRADE: h2c, WebSocket")
            .replace("Connection: Upgrade", "connection: keep-alive\r\nConnection: foo ,uPGRADE");
        accept(&head);
    }

    #[test]
    fn targets_are_taken_apart() {
        for (target, host, path, query) in [
            ("/", Some("server.example.com"), "/", None),
            ("/a?", Some("server.example.com"), "/a", Some("")),
            ("/a?b=c?d", Some("server.example.com"), "/a", Some("b=c?d")),
            ("//a", Some("server.example.com"), "//a", None),
            ("http://other:81/a?b", Some("other:81"), "/a", Some("b")),
            ("WS://other?b", Some("other"), "/", Some("b")),
            ("https://other", Some("other"), "/", None),
        ] {
            let head = REQUEST.replace("/chat", target);
            let request = accept(&head);
            assert_eq!((request.host, request.path, request.query), (host, path, query), "{target}");
        }
        for target in
            ["*", "chat", "server.example.com:80", "http:///a", "http://user@other/a", "/a#b", "ftp://other/a"]
        {
            assert_eq!(reject("/chat", target), Rejection::TargetInvalid, "{target}");
        }
    }

    #[test]
    fn offers_are_collected_from_all_lines() {
        let head = with_fields(
            "Sec-WebSocket-Protocol: third,, \r\n\
             Sec-WebSocket-Extensions: permessage-deflate; a=\"1,\\\"2\", x-other\r\n\
             Sec-WebSocket-Extensions: last\r\n",
        );
        let request = accept(&head);
        assert_eq!(request.subprotocols, ["chat", "superchat", "third"]);
        assert_eq!(request.extensions, ["permessage-deflate; a=\"1,\\\"2\"", "x-other", "last"]);
    }

    #[test]
    fn an_empty_host_is_none() {
        assert_eq!(accept(&REQUEST.replace("Host: server.example.com", "Host:")).host, None);
    }

    #[test]
    fn other_fields_may_hold_any_text() {
        let head = [REQUEST.trim_end().as_bytes(), b"\r\nCookie: \xff\xfe\r\nContent-Length: 0\r\n\r\n"].concat();
        assert!(matches!(parse(&head), Ok(Head::Complete { .. })));
    }

    #[test]
    fn rejects_each_mistake() {
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        for (from, to, rejection) in [
            ("GET /chat HTTP/1.1", "\x16\x03\x01", Rejection::Malformed),
            ("Host:", "Host :", Rejection::Malformed),
            ("Origin: ", "Origin: \0", Rejection::Malformed),
            ("HTTP/1.1", "HTTP/1.0", Rejection::HttpVersionUnsupported),
            ("HTTP/1.1", "HTTP/2.0", Rejection::HttpVersionUnsupported),
            ("GET", "POST", Rejection::MethodNotAllowed),
            ("GET", "get", Rejection::MethodNotAllowed),
            ("Host: server.example.com\r\n", "", Rejection::HostInvalid),
            ("Host: server", "Host: user@server", Rejection::HostInvalid),
            ("Host: server", "Host: a, server", Rejection::HostInvalid),
            ("Host: server", "Host: a\r\nhost: server", Rejection::HeaderRepeated),
            ("Origin: ", "Origin: a\r\nOrigin: ", Rejection::HeaderRepeated),
            ("Sec-WebSocket-Key: ", "Sec-WebSocket-Key: a\r\nSec-WebSocket-Key: ", Rejection::HeaderRepeated),
            ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13", Rejection::HeaderRepeated),
            ("Origin: ", "Content-Length: 1\r\nOrigin: ", Rejection::BodyPresent),
            ("Origin: ", "Content-Length: -0\r\nOrigin: ", Rejection::BodyPresent),
            ("Origin: ", "Transfer-Encoding: chunked\r\nOrigin: ", Rejection::BodyPresent),
            ("Upgrade: websocket\r\n", "", Rejection::NotAnUpgrade),
            ("Upgrade: websocket", "Upgrade: websocket2", Rejection::NotAnUpgrade),
            ("Connection: Upgrade\r\n", "", Rejection::NotAnUpgrade),
            ("Connection: Upgrade", "Connection: keep-alive", Rejection::NotAnUpgrade),
            ("Sec-WebSocket-Version: 13\r\n", "", Rejection::VersionUnsupported),
            ("Version: 13", "Version: 8", Rejection::VersionUnsupported),
            ("Version: 13", "Version: 013", Rejection::VersionUnsupported),
            (key, "", Rejection::KeyMissing),
        ] {
            assert_eq!(reject(from, to), rejection, "{to:?} for {from:?}");
        }
        for key in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQ===",
            "dGhlIHNhbXBsZSBub25j!Q==",
            "dGhlIHNhbXBsZSBub25jZQQQ",
        ] {
            assert_eq!(reject("dGhlIHNhbXBsZSBub25jZQ==", key), Rejection::KeyInvalid, "{key:?}");
        }
    }

    #[test]
    fn fields_that_matter_are_text() {
        let head =
            [b"GET / HTTP/1.1\r\nHost: a\xff\r\n", &REQUEST.as_bytes()[REQUEST.find("Upgrade").unwrap()..]].concat();
        assert_eq!(parse(&head), Err(Rejection::Malformed));
    }

    #[test]
    fn a_head_has_a_limit_in_bytes() {
        let padded = |bytes: usize| with_fields(&format!("X: {}\r\n", "x".repeat(bytes - REQUEST.len() - 5)));
        assert_eq!(padded(REQUEST_HEAD_BYTES_MAX).len(), REQUEST_HEAD_BYTES_MAX);
        accept(&padded(REQUEST_HEAD_BYTES_MAX));
        let above = padded(REQUEST_HEAD_BYTES_MAX + 1);
        assert_eq!(parse(above.as_bytes()), Err(Rejection::HeadTooLarge));
        assert_eq!(parse(&above.as_bytes()[..REQUEST_HEAD_BYTES_MAX - 1]), Ok(Head::Incomplete));
        assert_eq!(parse(&[b'\n'; 2 * REQUEST_HEAD_BYTES_MAX]), Err(Rejection::HeadTooLarge));
    }

    #[test]
    fn a_head_has_a_limit_in_fields() {
        let fields = REQUEST.matches(": ").count();
        accept(&with_fields(&"A: b\r\n".repeat(REQUEST_HEADERS_MAX - fields)));
        let above = with_fields(&"A: b\r\n".repeat(REQUEST_HEADERS_MAX - fields + 1));
        assert_eq!(parse(above.as_bytes()), Err(Rejection::HeadersTooMany));
    }

    #[test]
    fn accepts_with_the_key_of_the_rfc() {
        let mut out = Vec::new();
        respond_accept(&mut out, "dGhlIHNhbXBsZSBub25jZQ==", Some("chat"));
        let expected = "HTTP/1.1 101 Switching Protocols\r\n\
            Upgrade: websocket\r\n\
            Connection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
            Sec-WebSocket-Protocol: chat\r\n\
            \r\n";
        assert_eq!(out, expected.as_bytes());
    }

    #[test]
    fn answers_say_what_would_be_right() {
        for (rejection, status, field) in [
            (Rejection::HeadTooLarge, "431 Request Header Fields Too Large", "Connection: close\r\n"),
            (Rejection::MethodNotAllowed, "405 Method Not Allowed", "\r\nAllow: GET\r\n"),
            (Rejection::VersionUnsupported, "426 Upgrade Required", "\r\nSec-WebSocket-Version: 13\r\n"),
            (Rejection::VersionUnsupported, "426 Upgrade Required", "\r\nUpgrade: websocket\r\n"),
            (Rejection::HttpVersionUnsupported, "505 HTTP Version Not Supported", "Connection: close\r\n"),
            (Rejection::NotAnUpgrade, "400 Bad Request", "\r\nSec-WebSocket-Version: 13\r\n"),
        ] {
            let mut out = Vec::new();
            respond_rejection(&mut out, &rejection);
            let out = String::from_utf8(out).unwrap();
            assert!(out.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{out}");
            assert!(out.contains(field), "{out}");
            let (head, body) = out.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{out}");
            assert_eq!(body, format!("{rejection}\n"));
        }
    }

    #[test]
    #[should_panic(expected = "it would split the answer")]
    fn an_answer_cannot_be_split() {
        respond_status(&mut Vec::new(), 503, &[("Retry-After", "1\r\nX: y")], "");
    }

    /// The server's side of a connection to `tungstenite`'s client: it reads a request, accepts it
    /// and says hello.
    #[derive(Default)]
    struct Server {
        input: Vec<u8>,
        output: Vec<u8>,
    }

    impl Write for Server {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.input.extend_from_slice(bytes);
            if let Ok(Head::Complete { request, bytes }) = parse(&self.input) {
                respond_accept(&mut self.output, request.key, request.subprotocols.last().copied());
                frame::write(&mut self.output, OpCode::Data(Data::Text), request.path.as_bytes());
                self.input.drain(..bytes);
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Read for Server {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let count = self.output.as_slice().read(bytes)?;
            self.output.drain(..count);
            Ok(count)
        }
    }

    #[test]
    fn the_reference_client_is_accepted() {
        let request = ClientRequestBuilder::new("ws://localhost:8000/connection/websocket".parse().unwrap())
            .with_sub_protocol("centrifuge-json")
            .with_sub_protocol("centrifuge-protobuf");
        let (mut client, response): (WebSocket<Server>, _) =
            tungstenite::client(request, Server::default()).expect("an upgrade");
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "centrifuge-protobuf");
        assert_eq!(client.read().unwrap(), Message::text("/connection/websocket"));
    }

    proptest! {
        #[test]
        fn what_more_bytes_bring_does_not_change_what_was_found(
            position: prop::sample::Index,
            replacement in prop::collection::vec(any::<u8>(), 0..4),
        ) {
            let mut head = REQUEST.as_bytes().to_vec();
            let position = position.index(head.len());
            let end = (position + replacement.len()).min(head.len());
            head.splice(position..end, replacement);
            let mut beginnings = (0..=head.len()).map(|length| parse(&head[..length]));
            let found = beginnings.find(|found| *found != Ok(Head::Incomplete));
            prop_assert_eq!(found.unwrap_or(Ok(Head::Incomplete)), parse(&head));
        }
    }
}
