//! The opening handshake: what makes a request an upgrade, and the answer that completes it (RFC 6455 section 4).
//!
//! Owns the rules of section 4.2.1 that go beyond HTTP. Leaves the head's syntax to `http`, and to
//! the session which paths, origins and subprotocols are welcome.
//!
//! Invariant: an [`Upgrade`] that exists obeys every rule of section 4.2.1 that needs no configuration.

use tungstenite::handshake::derive_accept_key;

use super::{
    deflate::negotiation::Agreement,
    extension::{self, Extension},
};
use crate::http::{Answer, BodyLength, Request, answer::put_field, head::list};

/// What a valid request to upgrade asks for, beyond what every request does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade<'a> {
    /// `Sec-WebSocket-Key`, checked to be 16 bytes in base64.
    pub key: &'a str,
    /// Offered subprotocols, in the client's order of preference.
    pub subprotocols: Vec<&'a str>,
    /// Offered extensions with their parameters, in the client's order of preference.
    pub extensions: Vec<Extension<'a>>,
}

/// Why a request is no upgrade. Its text tells the client what would be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Not GET.
    #[error("WebSocket connections begin with GET")]
    MethodNotAllowed,
    /// A field that matters is not text.
    #[error("the fields of an upgrade are text")]
    Malformed,
    /// A field that may come once came twice; which of them counts must not be a guess.
    #[error("Sec-WebSocket-Key and Sec-WebSocket-Version may be sent once")]
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
    /// `Sec-WebSocket-Extensions` breaks its grammar. RFC 6455 section 9.1 forbids to pass over that as if nothing had
    /// been offered: client and server could see different extensions in it.
    #[error("Sec-WebSocket-Extensions must list extensions by name, each with its parameters")]
    ExtensionsInvalid,
}

impl Rejection {
    /// The HTTP status that answers it.
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed
            | Self::HeaderRepeated
            | Self::BodyPresent
            | Self::NotAnUpgrade
            | Self::KeyMissing
            | Self::KeyInvalid
            | Self::ExtensionsInvalid => 400,
            Self::MethodNotAllowed => 405,
            Self::VersionUnsupported => 426,
        }
    }

    /// The fields with which the answer says what would be right.
    fn fields(&self) -> &'static [(&'static str, &'static str)] {
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

/// Holds a request against RFC 6455 section 4.2.1.
///
/// # Errors
/// The first rule that it breaks.
pub fn check<'a>(request: &Request<'a>) -> Result<Upgrade<'a>, Rejection> {
    if request.method != "GET" {
        return Err(Rejection::MethodNotAllowed);
    }
    let fields = Fields::collect(request)?;
    if request.body != BodyLength::Bytes(0) {
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
    Ok(Upgrade { key, subprotocols: fields.subprotocols, extensions: fields.extensions })
}

/// Appends the answer that completes the upgrade. Without an agreement messages are not compressed.
pub fn respond_accept(out: &mut Vec<u8>, key: &str, subprotocol: Option<&str>, deflate: Option<Agreement>) {
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    put_field(out, "Sec-WebSocket-Accept", &derive_accept_key(key.as_bytes()));
    if let Some(subprotocol) = subprotocol {
        put_field(out, "Sec-WebSocket-Protocol", subprotocol);
    }
    if let Some(agreement) = deflate {
        put_field(out, "Sec-WebSocket-Extensions", &agreement.to_string());
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the answer to a request that is no upgrade; the connection is to be closed behind it.
pub fn respond_rejection(out: &mut Vec<u8>, rejection: &Rejection) {
    let body = format!("{rejection}\n");
    Answer { fields: rejection.fields(), ..Answer::last(rejection.status(), &body) }.write(out);
}

/// The fields that matter to an upgrade.
#[derive(Default)]
struct Fields<'a> {
    key: Option<&'a str>,
    version: Option<&'a str>,
    upgrade_websocket: bool,
    connection_upgrade: bool,
    subprotocols: Vec<&'a str>,
    extensions: Vec<Extension<'a>>,
}

impl<'a> Fields<'a> {
    fn collect(request: &Request<'a>) -> Result<Self, Rejection> {
        let mut fields = Self::default();
        for (name, value) in request.fields() {
            fields.take(name, value)?;
        }
        Ok(fields)
    }

    fn take(&mut self, name: &str, value: &'a [u8]) -> Result<(), Rejection> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        // Fields that do not matter may hold any bytes; those that do are text.
        let text = || str::from_utf8(value).map_err(|_| Rejection::Malformed);
        if is("Sec-WebSocket-Key") {
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
            for element in list(text()?) {
                self.extensions.push(extension::parse(element).ok_or(Rejection::ExtensionsInvalid)?);
            }
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

/// Whether this is the base64 of 16 bytes: 22 digits and two paddings. Bits of the last digit that
/// belong to no byte are not looked at; decoders differ about them, and nothing depends on them.
fn is_key(key: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    key.len() == 24 && key.strip_suffix("==").is_some_and(|digits| digits.bytes().all(is_digit))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write};

    use tungstenite::{ClientRequestBuilder, Message, WebSocket};

    use super::*;
    use crate::{
        http::{Head, parse},
        websocket::{
            deflate::negotiation::negotiate,
            frame::{self, Data, OpCode},
        },
    };

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

    fn request(head: &[u8]) -> Request<'_> {
        match parse(head) {
            Ok(Head::Complete { request, bytes }) => {
                assert_eq!(bytes, head.len());
                request
            }
            other => panic!("expected a request, got {other:?}"),
        }
    }

    fn accept(head: &str) -> Upgrade<'_> {
        check(&request(head.as_bytes())).expect("an upgrade")
    }

    /// The mistake in [`REQUEST`] after `from` was replaced by `to`.
    fn reject(from: &str, to: &str) -> Rejection {
        assert!(REQUEST.contains(from), "{from:?} is not in the request");
        check(&request(REQUEST.replacen(from, to, 1).as_bytes())).expect_err("a rejection")
    }

    /// [`REQUEST`] with more fields.
    fn with_fields(fields: &str) -> String {
        REQUEST.replace("\r\n\r\n", &format!("\r\n{fields}\r\n"))
    }

    #[test]
    fn reads_the_example_of_the_rfc() {
        let expected =
            Upgrade { key: "dGhlIHNhbXBsZSBub25jZQ==", subprotocols: vec!["chat", "superchat"], extensions: vec![] };
        assert_eq!(accept(REQUEST), expected);
    }

    #[test]
    fn names_and_tokens_are_read_in_any_case_and_in_lists() {
        let head = REQUEST
            .replace("Upgrade: websocket", "UPGRADE: h2c, WebSocket")
            .replace("Connection: Upgrade", "connection: keep-alive\r\nConnection: foo ,uPGRADE");
        accept(&head);
    }

    #[test]
    fn offers_are_collected_from_all_lines() {
        let head = with_fields(
            "Sec-WebSocket-Protocol: third,, \r\n\
             Sec-WebSocket-Extensions: permessage-deflate; a=\"1\\2\",, x-other\r\n\
             Sec-WebSocket-Extensions: last\r\n\
             Sec-WebSocket-Extensions:\r\n",
        );
        let request = accept(&head);
        assert_eq!(request.subprotocols, ["chat", "superchat", "third"]);
        let offered = ["permessage-deflate; a=12", "x-other", "last"];
        assert_eq!(request.extensions, offered.map(|offer| extension::parse(offer).expect("an extension")));
    }

    #[test]
    fn rejects_each_mistake() {
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        for (from, to, rejection) in [
            ("GET", "POST", Rejection::MethodNotAllowed),
            ("GET", "get", Rejection::MethodNotAllowed),
            ("Sec-WebSocket-Key: ", "Sec-WebSocket-Key: a\r\nSec-WebSocket-Key: ", Rejection::HeaderRepeated),
            ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13", Rejection::HeaderRepeated),
            ("Origin: ", "Content-Length: 1\r\nOrigin: ", Rejection::BodyPresent),
            ("Origin: ", "Transfer-Encoding: chunked\r\nOrigin: ", Rejection::BodyPresent),
            ("Upgrade: websocket\r\n", "", Rejection::NotAnUpgrade),
            ("Upgrade: websocket", "Upgrade: websocket2", Rejection::NotAnUpgrade),
            ("Connection: Upgrade\r\n", "", Rejection::NotAnUpgrade),
            ("Connection: Upgrade", "Connection: keep-alive", Rejection::NotAnUpgrade),
            ("Sec-WebSocket-Version: 13\r\n", "", Rejection::VersionUnsupported),
            ("Version: 13", "Version: 8", Rejection::VersionUnsupported),
            ("Version: 13", "Version: 013", Rejection::VersionUnsupported),
            (key, "", Rejection::KeyMissing),
            ("Origin: ", "Sec-WebSocket-Extensions: a;\r\nOrigin: ", Rejection::ExtensionsInvalid),
            ("Origin: ", "Sec-WebSocket-Extensions: a; b=\"1,2\"\r\nOrigin: ", Rejection::ExtensionsInvalid),
            ("Origin: ", "Sec-WebSocket-Extensions: a, b c\r\nOrigin: ", Rejection::ExtensionsInvalid),
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
        let end = REQUEST.len() - 2;
        let head = [&REQUEST.as_bytes()[..end], b"Sec-WebSocket-Protocol: \xff\r\n\r\n"].concat();
        assert_eq!(check(&request(&head)), Err(Rejection::Malformed));
        let other = [&REQUEST.as_bytes()[..end], b"Cookie: \xff\r\n\r\n"].concat();
        assert!(check(&request(&other)).is_ok());
    }

    #[test]
    fn accepts_with_the_key_of_the_rfc() {
        let mut out = Vec::new();
        respond_accept(&mut out, "dGhlIHNhbXBsZSBub25jZQ==", Some("chat"), None);
        let expected = "HTTP/1.1 101 Switching Protocols\r\n\
            Upgrade: websocket\r\n\
            Connection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
            Sec-WebSocket-Protocol: chat\r\n\
            \r\n";
        assert_eq!(out, expected.as_bytes());
    }

    #[test]
    fn what_is_agreed_is_answered() {
        let offers = [extension::parse("permessage-deflate; server_max_window_bits=10").expect("an extension")];
        let mut out = Vec::new();
        respond_accept(&mut out, "dGhlIHNhbXBsZSBub25jZQ==", None, negotiate(&offers));
        let field = "\r\nSec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; \
            server_max_window_bits=10\r\n";
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains(field), "{out}");
    }

    #[test]
    fn answers_say_what_would_be_right() {
        for (rejection, status, field) in [
            (Rejection::MethodNotAllowed, "405 Method Not Allowed", "\r\nAllow: GET\r\n"),
            (Rejection::VersionUnsupported, "426 Upgrade Required", "\r\nSec-WebSocket-Version: 13\r\n"),
            (Rejection::VersionUnsupported, "426 Upgrade Required", "\r\nUpgrade: websocket\r\n"),
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
                let upgrade = check(&request).expect("an upgrade");
                respond_accept(&mut self.output, upgrade.key, upgrade.subprotocols.last().copied(), None);
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
}
