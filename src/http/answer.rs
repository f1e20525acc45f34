//! The bytes of answers on the clients' port.
//!
//! Owns status lines, the fields that let web pages of other origins read an answer (CORS), and
//! the head of an answer without an end. What an upgrade is answered is `websocket`'s.

use std::io::Write;

use super::{Request, head};

/// Seconds for which browsers need not ask again whether a page may post.
const PREFLIGHT_SECONDS: &str = "600";

/// An answer with a body of plain text, or without a body.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The HTTP status.
    pub status: u16,
    /// Fields beyond those that every answer has.
    pub fields: &'a [(&'a str, &'a str)],
    /// The server's own words, never a client's.
    pub body: &'a str,
    /// The web page's origin, if it may read the answer.
    pub origin: Option<&'a str>,
    /// Whether the next request may come on the same connection.
    pub keeps_alive: bool,
}

impl<'a> Answer<'a> {
    /// An answer behind which the connection is to be closed.
    pub fn last(status: u16, body: &'a str) -> Self {
        Self { status, fields: &[], body, origin: None, keeps_alive: false }
    }

    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>) {
        put_status(out, self.status);
        put_field(out, "Connection", if self.keeps_alive { "keep-alive" } else { "close" });
        // An answer 204 has no length (RFC 9110 section 8.6).
        if self.status != 204 {
            put_field(out, "Content-Type", "text/plain; charset=utf-8");
            put_field(out, "Content-Length", &self.body.len().to_string());
        }
        for (name, value) in self.fields {
            put_field(out, name, value);
        }
        put_origin(out, self.origin);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(self.body.as_bytes());
    }
}

/// Whether the text may be sent back as the origin that is let in.
pub fn is_origin_harmless(origin: &str) -> bool {
    origin.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Appends the answer to a browser that asks whether a page may send a request (CORS preflight, WHATWG Fetch).
pub fn write_preflight(out: &mut Vec<u8>, request: &Request<'_>, methods: &str, keeps_alive: bool) {
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    // The page chooses them; none of them means anything here, so any may come.
    let wanted = request.field("Access-Control-Request-Headers").unwrap_or_default();
    let names: Vec<&str> = head::list(wanted).filter(|name| is_name(name)).collect();
    let names = if names.is_empty() { "Content-Type".to_owned() } else { names.join(", ") };
    let fields = [
        ("Access-Control-Allow-Methods", methods),
        ("Access-Control-Allow-Headers", &names),
        ("Access-Control-Max-Age", PREFLIGHT_SECONDS),
    ];
    Answer { status: 204, fields: &fields, body: "", origin: request.origin, keeps_alive }.write(out);
}

/// Appends the head of an answer that goes on in chunks, without an end (protocol.md section 17).
pub fn write_stream_head(out: &mut Vec<u8>, content_type: &str, origin: Option<&str>) {
    put_status(out, 200);
    put_field(out, "Content-Type", content_type);
    // `Expire` is no field of HTTP; SDKs' servers have always sent it.
    out.extend_from_slice(
        b"Transfer-Encoding: chunked\r\n\
          Cache-Control: private, no-cache, no-store, must-revalidate, max-age=0\r\n\
          Pragma: no-cache\r\n\
          Expire: 0\r\n\
          X-Accel-Buffering: no\r\n\
          Connection: keep-alive\r\n",
    );
    put_origin(out, origin);
    out.extend_from_slice(b"\r\n");
}

/// Tells a client that waits for it to send the body (RFC 9110 section 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Appends one field.
pub fn put_field(out: &mut Vec<u8>, name: &str, value: &str) {
    assert!(
        !name.bytes().chain(value.bytes()).any(|byte| byte.is_ascii_control()),
        "a header field of an answer holds a control character; it would split the answer"
    );
    for part in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Pages of this origin may read the answer, and may be known by their cookies. Caches must not give it to others.
fn put_origin(out: &mut Vec<u8>, origin: Option<&str>) {
    if let Some(origin) = origin {
        put_field(out, "Access-Control-Allow-Origin", origin);
        put_field(out, "Access-Control-Allow-Credentials", "true");
        put_field(out, "Vary", "Origin");
    }
}

fn put_status(out: &mut Vec<u8>, status: u16) {
    write!(out, "HTTP/1.1 {status} {}\r\n", phrase(status)).expect("a Vec takes every byte");
}

/// The words behind a status. They are optional (RFC 9112 section 4), so an unlisted status goes without.
fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
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
    use super::*;
    use crate::http::{Head, parse};

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn an_answer_says_how_long_it_is_and_who_may_read_it() {
        let answer = Answer { origin: Some("https://a.example"), ..Answer::last(404, "not here\n") };
        assert_eq!(
            text(|out| answer.write(out)),
            "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: 9\r\nAccess-Control-Allow-Origin: https://a.example\r\n\
             Access-Control-Allow-Credentials: true\r\nVary: Origin\r\n\r\nnot here\n"
        );
        let done = Answer { keeps_alive: true, ..Answer::last(204, "") };
        assert_eq!(text(|out| done.write(out)), "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n");
    }

    #[test]
    fn a_stream_has_the_fields_of_the_reference() {
        let head = text(|out| write_stream_head(out, "text/event-stream; charset=utf-8", None));
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"), "{head}");
        for field in [
            "Cache-Control: private, no-cache, no-store, must-revalidate, max-age=0",
            "Pragma: no-cache",
            "Expire: 0",
            "X-Accel-Buffering: no",
            "Connection: keep-alive",
            "Transfer-Encoding: chunked",
        ] {
            assert!(head.contains(&format!("\r\n{field}\r\n")), "{field} is missing in {head}");
        }
        assert!(head.ends_with("\r\n\r\n") && !head.contains("Access-Control"), "{head}");
    }

    #[test]
    fn a_preflight_lets_harmless_names_in() {
        let head = "OPTIONS /emulation HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\n\
                    Access-Control-Request-Headers: content-type, x y, x-mine\r\n\r\n";
        let Ok(Head::Complete { request, .. }) = parse(head.as_bytes()) else { panic!("it is whole") };
        let answer = text(|out| write_preflight(out, &request, "POST", true));
        assert!(answer.starts_with("HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n"), "{answer}");
        for field in [
            "Access-Control-Allow-Origin: https://a.example",
            "Access-Control-Allow-Methods: POST",
            "Access-Control-Allow-Headers: content-type, x-mine",
        ] {
            assert!(answer.contains(&format!("\r\n{field}\r\n")), "{field} is missing in {answer}");
        }
    }

    #[test]
    #[should_panic(expected = "it would split the answer")]
    fn an_answer_cannot_be_split() {
        let fields = [("Retry-After", "1\r\nX: y")];
        Answer { fields: &fields, ..Answer::last(503, "") }.write(&mut Vec::new());
    }
}
