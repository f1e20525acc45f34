//! Commands out of a client's message (protocol.md sections 1 and 3).
//!
//! Owns the syntax: a message is one or more commands, in JSON separated by line feeds, in Protobuf each behind its
//! length. Strings and payloads are borrowed from the message; nothing is allocated but lists, and strings with escapes.
//!
//! Invariant: what the encodings can both say means the same to everybody behind this module.

mod emulation;
mod json;
mod protobuf;
mod request;

use serde::Deserialize;

pub use self::emulation::EmulationRequest;
pub use self::request::{
    ConnectRequest, FilterNode, Headers, HistoryRequest, PresenceRequest, PublishRequest, RefreshRequest, RpcRequest,
    SendRequest, StreamPosition, SubRefreshRequest, SubscribeRequest, UnsubscribeRequest,
};
use super::{Encoding, protobuf::take_delimited};

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Command<'a> {
    /// By which the client recognises the reply; 0: it wants none.
    pub id: u32,
    /// What it asks for.
    pub method: Method<'a>,
}

/// The method of a command, with its request.
#[derive(Debug, PartialEq, Eq)]
pub enum Method<'a> {
    /// None that is known. With id 0 the command is a pong; `ping`, which only servers send, is here too.
    None,
    /// Who the client is.
    Connect(ConnectRequest<'a>),
    /// To hear of a channel's publications.
    Subscribe(SubscribeRequest<'a>),
    /// To hear of them no longer.
    Unsubscribe(UnsubscribeRequest<'a>),
    /// To publish.
    Publish(PublishRequest<'a>),
    /// Who is subscribed.
    Presence(PresenceRequest<'a>),
    /// How many are subscribed.
    PresenceStats(PresenceRequest<'a>),
    /// A channel's last publications.
    History(HistoryRequest<'a>),
    /// To call the application.
    Rpc(RpcRequest<'a>),
    /// To tell the application something.
    Send(SendRequest<'a>),
    /// A new connection token.
    Refresh(RefreshRequest<'a>),
    /// A new subscription token.
    SubRefresh(SubRefreshRequest<'a>),
}

impl Method<'_> {
    /// The channel that it is about; "": none.
    pub fn channel(&self) -> &str {
        match self {
            Self::Subscribe(request) => &request.channel,
            Self::Unsubscribe(request) => &request.channel,
            Self::Publish(request) => &request.channel,
            Self::Presence(request) | Self::PresenceStats(request) => &request.channel,
            Self::History(request) => &request.channel,
            Self::SubRefresh(request) => &request.channel,
            Self::None | Self::Connect(_) | Self::Rpc(_) | Self::Send(_) | Self::Refresh(_) => "",
        }
    }
}

impl<'a> ConnectRequest<'a> {
    /// Reads the request that clients send bare that only listen (protocol.md section 18): one JSON object.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(json: &'a [u8]) -> Result<Self, Malformed> {
        json::read_object(json)
    }
}

/// A message, or a part of it, that is no command. Nothing behind it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a command")]
pub struct Malformed;

/// The commands of one message, each decoded when it is asked for.
#[derive(Debug)]
pub struct Commands<'a> {
    encoding: Encoding,
    /// None: all are read. Empty: a command is missing, which is a mistake.
    rest: Option<&'a [u8]>,
}

impl<'a> Commands<'a> {
    /// Of a whole message. One line feed may trail.
    pub(super) fn new(encoding: Encoding, message: &'a [u8]) -> Self {
        match encoding {
            Encoding::Json => Self::from_rest(encoding, message.strip_suffix(b"\n").unwrap_or(message)),
            Encoding::Protobuf => Self::from_rest(encoding, message),
        }
    }

    /// Goes on where [`Self::rest`] was taken.
    pub fn from_rest(encoding: Encoding, rest: &'a [u8]) -> Self {
        Self { encoding, rest: Some(rest) }
    }

    /// What is not decoded yet; none: nothing is left.
    pub fn rest(&self) -> Option<&'a [u8]> {
        self.rest
    }

    /// Reads the command at the front, and finds where the next one begins.
    #[inline(never)]
    fn read(&mut self, rest: &'a [u8]) -> Result<Command<'a>, Malformed> {
        let command = match self.encoding {
            Encoding::Json => match rest.iter().position(|byte| *byte == b'\n') {
                None => json::read(rest),
                Some(position) => {
                    self.rest = Some(&rest[position + 1..]);
                    json::read(&rest[..position])
                }
            },
            Encoding::Protobuf => {
                let mut behind = rest;
                let message = take_delimited(&mut behind)?;
                self.rest = (!behind.is_empty()).then_some(behind);
                protobuf::read(message)
            }
        };
        if command.is_err() {
            self.rest = None;
        }
        command
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        // The pong, by far the most frequent command, is known without being read.
        if rest == self.encoding.ping() {
            return Some(Ok(Command { id: 0, method: Method::None }));
        }
        Some(self.read(rest))
    }
}

/// A command as it is on the wire.
#[derive(Default, Deserialize)]
struct Envelope<'a> {
    #[serde(default, deserialize_with = "json::or_default")]
    id: u32,
    #[serde(borrow, default, deserialize_with = "json::object")]
    connect: Option<ConnectRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "json::object")]
    subscribe: Option<SubscribeRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "json::object")]
    unsubscribe: Option<UnsubscribeRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "json::object")]
    publish: Option<PublishRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "json::object")]
    presence: Option<PresenceRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "json::object")]
    presence_stats: Option<PresenceRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "json::object")]
    history: Option<HistoryRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "json::object")]
    rpc: Option<RpcRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "json::object")]
    send: Option<SendRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "json::object")]
    refresh: Option<RefreshRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "json::object")]
    sub_refresh: Option<SubRefreshRequest<'a>>,
}

/// The first method that is there counts.
impl<'a> From<Envelope<'a>> for Command<'a> {
    fn from(envelope: Envelope<'a>) -> Self {
        let method = None
            .or_else(|| envelope.connect.map(Method::Connect))
            .or_else(|| envelope.subscribe.map(Method::Subscribe))
            .or_else(|| envelope.unsubscribe.map(Method::Unsubscribe))
            .or_else(|| envelope.publish.map(Method::Publish))
            .or_else(|| envelope.presence.map(Method::Presence))
            .or_else(|| envelope.presence_stats.map(Method::PresenceStats))
            .or_else(|| envelope.history.map(Method::History))
            .or_else(|| envelope.rpc.map(Method::Rpc))
            .or_else(|| envelope.send.map(Method::Send))
            .or_else(|| envelope.refresh.map(Method::Refresh))
            .or_else(|| envelope.sub_refresh.map(Method::SubRefresh))
            .unwrap_or(Method::None);
        Self { id: envelope.id, method }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;

    fn decode(message: &[u8]) -> Commands<'_> {
        Encoding::Json.decode(message)
    }

    fn one(line: &str) -> Command<'_> {
        let mut commands = decode(line.as_bytes());
        let command = commands.next().expect("a command").expect("well formed");
        assert!(commands.next().is_none());
        command
    }

    fn outcomes(message: &[u8]) -> Vec<Result<u32, Malformed>> {
        decode(message).map(|command| command.map(|command| command.id)).collect()
    }

    #[test]
    fn commands_are_separated_by_line_feeds_and_one_may_trail() {
        assert_eq!(outcomes(b"{\"id\":1}\n{\"id\":2}"), [Ok(1), Ok(2)]);
        assert_eq!(outcomes(b"{\"id\":1}\n"), [Ok(1)]);
        assert_eq!(outcomes(b" {\"id\":1}\r\n{}"), [Ok(1), Ok(0)]);
    }

    #[test]
    fn mistakes_end_the_message_behind_the_commands_before_them() {
        assert_eq!(outcomes(b""), [Err(Malformed)]);
        assert_eq!(outcomes(b"\n"), [Err(Malformed)]);
        assert_eq!(outcomes(b"{\"id\":1}\n\n{\"id\":2}"), [Ok(1), Err(Malformed)]);
        assert_eq!(outcomes(b"{\"id\":1}\n\n"), [Ok(1), Err(Malformed)]);
        for line in ["{", "[]", "[1]", "1", "null", "\"x\"", "{}{}", "{} x", "\u{feff}{}"] {
            assert_eq!(outcomes(line.as_bytes()), [Err(Malformed)], "{line}");
            assert_eq!(outcomes(format!("{{\"id\":3}}\n{line}\n{{}}").as_bytes()), [Ok(3), Err(Malformed)], "{line}");
        }
    }

    #[test]
    fn members_of_the_wrong_type_are_mistakes() {
        for line in [
            r#"{"id":-1}"#,
            r#"{"id":4294967296}"#,
            r#"{"id":"1"}"#,
            r#"{"id":1.5}"#,
            r#"{"id":1,"subscribe":["news"]}"#,
            r#"{"id":1,"subscribe":"news"}"#,
            r#"{"id":1,"subscribe":{"channel":1}}"#,
            r#"{"id":1,"subscribe":{"channel":"a","offset":-1}}"#,
            r#"{"id":1,"connect":{"subs":[]}}"#,
            r#"{"id":1,"connect":{"subs":{"a":[]}}}"#,
            r#"{"id":1,"rpc":7}"#,
            r#"{"id":1,"history":{"since":[1]}}"#,
        ] {
            assert_eq!(outcomes(line.as_bytes()), [Err(Malformed)], "{line}");
        }
    }

    #[test]
    fn null_is_the_same_as_nothing_and_unknown_members_are_ignored() {
        let command = one(r#"{"id":null,"connect":null,"subscribe":{"channel":null,"offset":null,"recover":null}}"#);
        assert_eq!(command.id, 0);
        let Method::Subscribe(request) = command.method else { panic!("{command:?}") };
        assert_eq!((request.channel.as_ref(), request.offset, request.recover), ("", 0, false));
        let command = one(r#"{"id":1,"strange":[{}],"connect":{"token":"t","flag":7,"headers":{"k":"v"},"data":{}}}"#);
        let Method::Connect(request) = command.method else { panic!("{command:?}") };
        assert_eq!(request.token, "t");
    }

    #[test]
    fn the_first_method_in_the_order_of_the_reference_counts() {
        assert!(matches!(one(r#"{"id":1,"publish":{},"subscribe":{},"rpc":{}}"#).method, Method::Subscribe(_)));
        assert!(matches!(one(r#"{"id":1,"send":{},"rpc":{}}"#).method, Method::Rpc(_)));
        assert!(matches!(one(r#"{"send":{"data":1}}"#).method, Method::Send(_)));
        assert!(matches!(one(r#"{"id":1,"presence":{"channel":"a"}}"#).method, Method::Presence(_)));
        assert!(matches!(one(r#"{"id":1,"ping":{}}"#).method, Method::None));
        assert!(matches!(one(r#"{"id":1,"dance":{}}"#).method, Method::None));
    }

    #[test]
    fn payloads_are_taken_verbatim_and_strings_are_borrowed() {
        let command = one(r#"{"id":3,"publish":{"channel":"c","data":{"a": [1,  2]}}}"#);
        let Method::Publish(request) = command.method else { panic!("{command:?}") };
        assert_eq!(request.data, Some(&br#"{"a": [1,  2]}"#[..]));
        assert!(matches!(request.channel, Cow::Borrowed("c")));
        let command = one(r#"{"id":3,"publish":{"channel":"\u0063","data":null}}"#);
        let Method::Publish(request) = command.method else { panic!("{command:?}") };
        assert_eq!((request.channel.as_ref(), request.data), ("c", Some(&b"null"[..])));
        let command = one(r#"{"id":3,"publish":{"channel":"c"}}"#);
        let Method::Publish(request) = command.method else { panic!("{command:?}") };
        assert!(request.data.is_none());
    }

    #[test]
    fn positions_and_subscriptions_are_read() {
        let command = one(r#"{"id":1,"connect":{"subs":{"srv":{"recover":true,"offset":5,"epoch":"xyz"},"b":null}}}"#);
        let Method::Connect(request) = command.method else { panic!("{command:?}") };
        let [(first, position), (second, _)] = &request.subs[..] else { panic!("{request:?}") };
        assert_eq!((first.as_ref(), second.as_ref()), ("srv", "b"));
        assert_eq!((position.recover, position.offset, position.epoch.as_ref()), (true, 5, "xyz"));
        let command = one(r#"{"id":1,"history":{"channel":"h","limit":-1,"since":{"offset":2,"epoch":"e"}}}"#);
        let Method::History(request) = command.method else { panic!("{command:?}") };
        assert_eq!(request.limit, -1);
        assert_eq!(request.since.map(|since| (since.offset, since.epoch.into_owned())), Some((2, "e".to_owned())));
    }

    #[test]
    fn deep_nesting_is_refused_or_skipped_and_never_overflows_the_stack() {
        let deep = format!("{}{}", "[".repeat(60_000), "]".repeat(60_000));
        let _ = outcomes(format!(r#"{{"id":1,"unknown":{deep}}}"#).as_bytes());
        let _ = outcomes(format!(r#"{{"id":1,"publish":{{"data":{deep}}}}}"#).as_bytes());
        assert_eq!(outcomes(format!(r#"{{"id":1,"subscribe":{deep}}}"#).as_bytes()), [Err(Malformed)]);
    }

    #[test]
    fn a_message_that_was_interrupted_goes_on_where_it_was() {
        let mut commands = decode(b"{\"id\":1}\n{\"id\":2}\n\n");
        assert!(commands.next().is_some());
        let rest = commands.rest().expect("more");
        let ids: Vec<_> =
            Commands::from_rest(Encoding::Json, rest).map(|command| command.map(|command| command.id)).collect();
        assert_eq!(ids, [Ok(2), Err(Malformed)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(message: Vec<u8>) {
            let outcomes = outcomes(&message);
            prop_assert!(!outcomes.is_empty());
            prop_assert!(outcomes.iter().rev().skip(1).all(Result::is_ok), "nothing follows a mistake");
        }
    }
}
