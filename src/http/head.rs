//! A request's head: syntax, target, and the fields that every request is held against (RFC 9112).

use crate::limits::{REQUEST_HEAD_BYTES_MAX, REQUEST_HEADERS_MAX};

/// A request, valid as far as HTTP can say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// As sent: methods are case-sensitive.
    pub method: &'a str,
    /// Of the target, as sent (percent-encoded); begins with `/`.
    pub path: &'a str,
    /// What follows the target's `?`, as sent.
    pub query: Option<&'a str>,
    /// The authority that the client believes it talks to; none if it sent an empty one.
    pub host: Option<&'a str>,
    /// The web page's origin; browsers send it always, others seldom.
    pub origin: Option<&'a str>,
    /// What follows the head.
    pub body: BodyLength,
    /// The client waits for `100 Continue` before it sends the body (RFC 9110 section 10.1.1).
    pub expects_continue: bool,
    /// The client wants the connection to end behind the answer.
    pub closes: bool,
    /// All fields, in order.
    fields: Vec<httparse::Header<'a>>,
}

/// How the end of a body is found (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// So many bytes; 0: there is none.
    Bytes(u64),
    /// In chunks, of which the last is empty.
    Chunked,
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
        /// Length of the head; what follows is the body, or whatever the request leads to.
        bytes: usize,
    },
}

/// A mistake in a request. Its text tells the client what it did and what would be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The head is longer than [`REQUEST_HEAD_BYTES_MAX`].
    #[error("the request head is longer than {REQUEST_HEAD_BYTES_MAX} bytes")]
    HeadTooLarge,
    /// More fields than [`REQUEST_HEADERS_MAX`].
    #[error("the request has more than {REQUEST_HEADERS_MAX} header fields")]
    HeadersTooMany,
    /// Not the syntax of HTTP/1.1 (RFC 9112).
    #[error("this is not an HTTP/1.1 request")]
    Malformed,
    /// Not HTTP/1.1.
    #[error("this server speaks HTTP/1.1")]
    HttpVersionUnsupported,
    /// The target is neither a path nor an http or ws URI, or it has a fragment (RFC 6455 section 3).
    #[error("the request target must be a path, without a fragment")]
    TargetInvalid,
    /// No `Host`, or one that is none (RFC 9112 section 3.2).
    #[error("the request needs one valid Host header")]
    HostInvalid,
    /// A field that may come once came twice; which of them counts must not be a guess.
    #[error("Host and Origin may be sent once")]
    HeaderRepeated,
    /// It is in doubt where the body ends (RFC 9112 section 6.3).
    #[error("the body needs one Content-Length, or the transfer encoding chunked and no other")]
    BodyLengthInvalid,
    /// The body is longer than it may be.
    #[error("the body is longer than client.message_size_max allows")]
    BodyTooLarge,
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
            | Self::BodyLengthInvalid => 400,
            Self::BodyTooLarge => 413,
            Self::HttpVersionUnsupported => 505,
        }
    }
}

/// Reads the request head at the front of `input`.
///
/// # Errors
/// The first mistake found; nothing behind it can be read.
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

impl<'a> Request<'a> {
    /// All fields in the order in which they came: names as sent, values without the space around them.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + '_ {
        self.fields.iter().map(|header| (header.name, header.value.trim_ascii()))
    }

    /// The first field of this name whose value is text.
    pub fn field(&self, name: &str) -> Option<&'a str> {
        let mut values = self.fields().filter(|(candidate, _)| candidate.eq_ignore_ascii_case(name));
        values.next().and_then(|(_, value)| str::from_utf8(value).ok())
    }

    /// Whether the body is of this media type, whatever its parameters.
    pub fn has_content_type(&self, media_type: &str) -> bool {
        let value = self.field("Content-Type").and_then(|value| value.split(';').next());
        value.is_some_and(|value| value.trim_ascii().eq_ignore_ascii_case(media_type))
    }
}

/// The elements of a list field (RFC 9110 section 5.6.1); commas within quoted strings do not separate.
pub fn list(value: &str) -> impl Iterator<Item = &str> {
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

/// Holds a head that is syntactically right against what HTTP asks of every request.
fn check<'a>(head: &httparse::Request<'_, 'a>) -> Result<Request<'a>, Rejection> {
    if head.version != Some(1) {
        return Err(Rejection::HttpVersionUnsupported);
    }
    let target = Target::parse(head.path.unwrap_or_default())?;
    let mut fields = Fields::default();
    for header in &*head.headers {
        fields.take(header.name, header.value)?;
    }
    let host = fields.host.filter(|host| is_host(host)).ok_or(Rejection::HostInvalid)?;
    let body = match (fields.is_chunked, fields.content_length) {
        (true, Some(_)) => return Err(Rejection::BodyLengthInvalid),
        (true, None) => BodyLength::Chunked,
        (false, length) => BodyLength::Bytes(length.unwrap_or(0)),
    };
    Ok(Request {
        method: head.method.unwrap_or_default(),
        path: target.path,
        query: target.query,
        host: Some(target.authority.unwrap_or(host)).filter(|host| !host.is_empty()),
        origin: fields.origin,
        body,
        expects_continue: fields.expects_continue,
        closes: fields.closes,
        fields: head.headers.to_vec(),
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

/// The fields that matter to every request.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a str>,
    origin: Option<&'a str>,
    content_length: Option<u64>,
    is_chunked: bool,
    expects_continue: bool,
    closes: bool,
}

impl<'a> Fields<'a> {
    fn take(&mut self, name: &str, value: &'a [u8]) -> Result<(), Rejection> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        // Fields that do not matter may hold any bytes; those that do are text.
        let text = || str::from_utf8(value).map(str::trim_ascii).map_err(|_| Rejection::Malformed);
        if is("Host") {
            take_once(&mut self.host, text()?)?;
        } else if is("Origin") {
            take_once(&mut self.origin, text()?)?;
        } else if is("Connection") {
            self.closes |= list(text()?).any(|option| option.eq_ignore_ascii_case("close"));
        } else if is("Content-Length") {
            let length = content_length(text()?).ok_or(Rejection::BodyLengthInvalid)?;
            if self.content_length.replace(length).is_some() {
                return Err(Rejection::BodyLengthInvalid);
            }
        } else if is("Transfer-Encoding") {
            // Chunked twice, or behind another encoding, is one that nobody here reads.
            if !text()?.eq_ignore_ascii_case("chunked") || std::mem::replace(&mut self.is_chunked, true) {
                return Err(Rejection::BodyLengthInvalid);
            }
        } else if is("Expect") {
            self.expects_continue |= text()?.eq_ignore_ascii_case("100-continue");
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

/// Digits alone: signs and lists, which a parser of numbers or of fields may take, are doubts.
fn content_length(value: &str) -> Option<u64> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())?
}

/// Whether this could be a host with an optional port (RFC 3986 section 3.2), or is empty.
fn is_host(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REQUEST: &str = "POST /emulation HTTP/1.1\r\n\
        Host: server.example.com\r\n\
        Origin: http://example.com\r\n\
        Content-Type: application/json; charset=utf-8\r\n\
        Content-Length: 12\r\n\
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
    fn reads_a_request() {
        let request = accept(REQUEST);
        assert_eq!((request.method, request.path, request.query), ("POST", "/emulation", None));
        assert_eq!((request.host, request.origin), (Some("server.example.com"), Some("http://example.com")));
        assert_eq!((request.body, request.expects_continue, request.closes), (BodyLength::Bytes(12), false, false));
        assert!(request.has_content_type("application/json") && !request.has_content_type("application"));
        assert_eq!(request.field("content-length"), Some("12"));
        assert_eq!(request.field("Cookie"), None);
        assert_eq!(request.fields().count(), 4);
    }

    #[test]
    fn the_body_and_the_connection_are_what_the_fields_say() {
        assert_eq!(accept("GET / HTTP/1.1\r\nHost: a\r\n\r\n").body, BodyLength::Bytes(0));
        let length = "Content-Length: 12";
        assert_eq!(accept(&REQUEST.replace(length, "Transfer-Encoding: Chunked")).body, BodyLength::Chunked);
        assert_eq!(accept(&REQUEST.replace("12", "0012")).body, BodyLength::Bytes(12));
        assert!(accept(&with_fields("Expect: 100-continue\r\n")).expects_continue);
        assert!(accept(&with_fields("Connection: te, Close\r\n")).closes);
    }

    #[test]
    fn more_may_follow_the_head() {
        let input = format!("{REQUEST}body");
        assert!(matches!(parse(input.as_bytes()), Ok(Head::Complete { bytes, .. }) if bytes == REQUEST.len()));
    }

    #[test]
    fn every_beginning_of_a_request_is_incomplete() {
        for length in 0..REQUEST.len() {
            assert_eq!(parse(&REQUEST.as_bytes()[..length]), Ok(Head::Incomplete), "{length} bytes");
        }
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
            let head = REQUEST.replace("/emulation", target);
            let request = accept(&head);
            assert_eq!((request.host, request.path, request.query), (host, path, query), "{target}");
        }
        for target in
            ["*", "chat", "server.example.com:80", "http:///a", "http://user@other/a", "/a#b", "ftp://other/a"]
        {
            assert_eq!(reject("/emulation", target), Rejection::TargetInvalid, "{target}");
        }
    }

    #[test]
    fn an_empty_host_is_none() {
        assert_eq!(accept(&REQUEST.replace("Host: server.example.com", "Host:")).host, None);
    }

    #[test]
    fn other_fields_may_hold_any_text() {
        let head = [REQUEST.trim_end().as_bytes(), b"\r\nCookie: \xff\xfe\r\n\r\n"].concat();
        assert!(matches!(parse(&head), Ok(Head::Complete { .. })));
    }

    #[test]
    fn elements_of_lists_may_be_quoted() {
        let elements: Vec<_> = list("a; b=\"1,\\\"2\" , c,, ,d").collect();
        assert_eq!(elements, ["a; b=\"1,\\\"2\"", "c", "d"]);
    }

    #[test]
    fn rejects_each_mistake() {
        let length = "Content-Length: 12\r\n";
        for (from, to, rejection) in [
            ("POST /emulation HTTP/1.1", "\x16\x03\x01", Rejection::Malformed),
            ("Host:", "Host :", Rejection::Malformed),
            ("Origin: ", "Origin: \0", Rejection::Malformed),
            ("HTTP/1.1", "HTTP/1.0", Rejection::HttpVersionUnsupported),
            ("HTTP/1.1", "HTTP/2.0", Rejection::HttpVersionUnsupported),
            ("Host: server.example.com\r\n", "", Rejection::HostInvalid),
            ("Host: server", "Host: user@server", Rejection::HostInvalid),
            ("Host: server", "Host: a, server", Rejection::HostInvalid),
            ("Host: server", "Host: a\r\nhost: server", Rejection::HeaderRepeated),
            ("Origin: ", "Origin: a\r\nOrigin: ", Rejection::HeaderRepeated),
            (length, "Content-Length: 12\r\nContent-Length: 12\r\n", Rejection::BodyLengthInvalid),
            (length, "Content-Length: 12, 12\r\n", Rejection::BodyLengthInvalid),
            (length, "Content-Length: -0\r\n", Rejection::BodyLengthInvalid),
            (length, "Content-Length: +1\r\n", Rejection::BodyLengthInvalid),
            (length, "Content-Length:\r\n", Rejection::BodyLengthInvalid),
            (length, "Content-Length: 99999999999999999999\r\n", Rejection::BodyLengthInvalid),
            (length, "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Rejection::BodyLengthInvalid),
            (length, "Transfer-Encoding: gzip, chunked\r\n", Rejection::BodyLengthInvalid),
            (length, "Transfer-Encoding: identity\r\n", Rejection::BodyLengthInvalid),
            (length, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Rejection::BodyLengthInvalid),
        ] {
            assert_eq!(reject(from, to), rejection, "{to:?} for {from:?}");
        }
    }

    #[test]
    fn fields_that_matter_are_text() {
        assert_eq!(parse(b"GET / HTTP/1.1\r\nHost: a\xff\r\n\r\n"), Err(Rejection::Malformed));
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
