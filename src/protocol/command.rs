//! Commands out of a client's message (protocol.md sections 1 and 3).
//!
//! Owns the syntax: one message is one or more JSON objects, separated by line feeds. Strings and
//! payloads are borrowed from the message; nothing is allocated unless a string has escapes.
//!
//! Unknown members are ignored, and `null` is the same as nothing, as in the reference. An array
//! in the place of an object is a mistake.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;

/// What a client asks for.
#[derive(Debug)]
pub struct Command<'a> {
    /// By which the client recognises the reply; 0: it wants none.
    pub id: u32,
    /// What it asks for.
    pub method: Method<'a>,
}

/// The method of a command, with its request.
#[derive(Debug)]
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
    /// Who is subscribed. The request is not read: nothing answers it.
    Presence,
    /// How many are subscribed. The request is not read: nothing answers it.
    PresenceStats,
    /// A channel's last publications.
    History(HistoryRequest<'a>),
    /// To call the application. The request is not read: nothing answers it.
    Rpc,
    /// To tell the application something. The request is not read: nothing takes it.
    Send,
    /// A new connection token.
    Refresh(RefreshRequest<'a>),
    /// A new subscription token.
    SubRefresh(SubRefreshRequest<'a>),
}

/// The request of [`Method::Connect`].
#[derive(Debug, Default, Deserialize)]
pub struct ConnectRequest<'a> {
    /// A JWT; "": the client is anonymous.
    #[serde(borrow, default, deserialize_with = "text")]
    pub token: Cow<'a, str>,
    /// Channels whose position the client knows, or that it asks to be subscribed to.
    #[serde(borrow, default, deserialize_with = "subscriptions")]
    pub subs: Vec<(Cow<'a, str>, SubscribeRequest<'a>)>,
}

/// The request of [`Method::Subscribe`].
#[derive(Debug, Default, Deserialize)]
pub struct SubscribeRequest<'a> {
    /// The channel. In [`ConnectRequest::subs`] it is the key instead.
    #[serde(borrow, default, deserialize_with = "text")]
    pub channel: Cow<'a, str>,
    /// A JWT for this channel.
    #[serde(borrow, default, deserialize_with = "text")]
    pub token: Cow<'a, str>,
    /// The client wants what it missed since `epoch` and `offset`.
    #[serde(default, deserialize_with = "or_default")]
    pub recover: bool,
    /// Identity of the stream that the client knows.
    #[serde(borrow, default, deserialize_with = "text")]
    pub epoch: Cow<'a, str>,
    /// The last offset that the client knows.
    #[serde(default, deserialize_with = "or_default")]
    pub offset: u64,
    /// The client wants to be told its position.
    #[serde(default, deserialize_with = "or_default")]
    pub positioned: bool,
    /// The client wants to recover when it comes back.
    #[serde(default, deserialize_with = "or_default")]
    pub recoverable: bool,
    /// The kind of delta compression wanted.
    #[serde(borrow, default, deserialize_with = "text")]
    pub delta: Cow<'a, str>,
    /// A filter by tags.
    #[serde(borrow, rename = "tf", default, deserialize_with = "raw_unless_null")]
    pub tags_filter: Option<&'a RawValue>,
    /// Bit 0: the client knows channel compaction; bit 1: see [`Self::REJECT_UNRECOVERED`].
    #[serde(default, deserialize_with = "or_default")]
    pub flag: i64,
    /// 0 for a stream of publications; other kinds are maps and polls.
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    pub kind: i32,
}

impl SubscribeRequest<'_> {
    /// Bit of [`Self::flag`]: better no subscription than one with a gap.
    pub const REJECT_UNRECOVERED: i64 = 1 << 1;
}

/// The request of [`Method::Unsubscribe`].
#[derive(Debug, Default, Deserialize)]
pub struct UnsubscribeRequest<'a> {
    /// The channel.
    #[serde(borrow, default, deserialize_with = "text")]
    pub channel: Cow<'a, str>,
}

/// The request of [`Method::Publish`].
#[derive(Debug, Default, Deserialize)]
pub struct PublishRequest<'a> {
    /// The channel.
    #[serde(borrow, default, deserialize_with = "text")]
    pub channel: Cow<'a, str>,
    /// The payload, checked to be JSON; `null` is a payload.
    #[serde(borrow, default, deserialize_with = "raw")]
    pub data: Option<&'a RawValue>,
    /// 0 for a stream of publications; other kinds are maps.
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    pub kind: i32,
}

/// The request of [`Method::History`].
#[derive(Debug, Default, Deserialize)]
pub struct HistoryRequest<'a> {
    /// The channel.
    #[serde(borrow, default, deserialize_with = "text")]
    pub channel: Cow<'a, str>,
    /// Publications wanted; 0: only the position; negative: as many as there may be.
    #[serde(default, deserialize_with = "or_default")]
    pub limit: i32,
    /// Publications after it, or before it if reversed.
    #[serde(borrow, default, deserialize_with = "object")]
    pub since: Option<StreamPosition<'a>>,
    /// Newest first.
    #[serde(default, deserialize_with = "or_default")]
    pub reverse: bool,
}

/// A position in a channel's stream, as a client knows it.
#[derive(Debug, Default, Deserialize)]
pub struct StreamPosition<'a> {
    /// Of a publication.
    #[serde(default, deserialize_with = "or_default")]
    pub offset: u64,
    /// Identity of the stream; "": whichever it is.
    #[serde(borrow, default, deserialize_with = "text")]
    pub epoch: Cow<'a, str>,
}

/// The request of [`Method::Refresh`].
#[derive(Debug, Default, Deserialize)]
pub struct RefreshRequest<'a> {
    /// A JWT.
    #[serde(borrow, default, deserialize_with = "text")]
    pub token: Cow<'a, str>,
}

/// The request of [`Method::SubRefresh`].
#[derive(Debug, Default, Deserialize)]
pub struct SubRefreshRequest<'a> {
    /// The channel.
    #[serde(borrow, default, deserialize_with = "text")]
    pub channel: Cow<'a, str>,
    /// A JWT.
    #[serde(borrow, default, deserialize_with = "text")]
    pub token: Cow<'a, str>,
}

/// A message, or a line of it, that is no command. Nothing behind it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a command: each line of a message must be one JSON object")]
pub struct Malformed;

/// Reads the commands of one message. Bytes that are none end the iteration with [`Malformed`].
pub fn decode(message: &[u8]) -> Commands<'_> {
    Commands { rest: Some(message.strip_suffix(b"\n").unwrap_or(message)) }
}

/// The commands of one message, each decoded when it is asked for.
#[derive(Debug)]
pub struct Commands<'a> {
    /// None: all are read. Empty: a blank line, which is a mistake.
    rest: Option<&'a [u8]>,
}

impl<'a> Commands<'a> {
    /// Goes on where [`Self::rest`] was taken.
    pub fn from_rest(rest: &'a [u8]) -> Self {
        Self { rest: Some(rest) }
    }

    /// What is not decoded yet; none: nothing is left.
    pub fn rest(&self) -> Option<&'a [u8]> {
        self.rest
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        let line = match rest.iter().position(|byte| *byte == b'\n') {
            None => rest,
            Some(position) => {
                self.rest = Some(&rest[position + 1..]);
                &rest[..position]
            }
        };
        let command = decode_line(line);
        if command.is_err() {
            self.rest = None;
        }
        Some(command)
    }
}

/// Reads one JSON object.
fn decode_line(line: &[u8]) -> Result<Command<'_>, Malformed> {
    // The pong, by far the most frequent command.
    if line == b"{}" {
        return Ok(Command { id: 0, method: Method::None });
    }
    let Object(envelope) = serde_json::from_slice::<Object<Envelope<'_>>>(line).map_err(|_| Malformed)?;
    Ok(Command { id: envelope.id, method: envelope.into_method() })
}

/// A command as it is on the wire: the first method that is there counts.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default, deserialize_with = "or_default")]
    id: u32,
    #[serde(borrow, default, deserialize_with = "object")]
    connect: Option<ConnectRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "object")]
    subscribe: Option<SubscribeRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "object")]
    unsubscribe: Option<UnsubscribeRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "object")]
    publish: Option<PublishRequest<'a>>,
    #[serde(default, deserialize_with = "object")]
    presence: Option<Unread>,
    #[serde(default, deserialize_with = "object")]
    presence_stats: Option<Unread>,
    #[serde(borrow, default, deserialize_with = "object")]
    history: Option<HistoryRequest<'a>>,
    #[serde(default, deserialize_with = "object")]
    rpc: Option<Unread>,
    #[serde(default, deserialize_with = "object")]
    send: Option<Unread>,
    #[serde(borrow, default, deserialize_with = "object")]
    refresh: Option<RefreshRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "object")]
    sub_refresh: Option<SubRefreshRequest<'a>>,
}

impl<'a> Envelope<'a> {
    fn into_method(self) -> Method<'a> {
        None.or_else(|| self.connect.map(Method::Connect))
            .or_else(|| self.subscribe.map(Method::Subscribe))
            .or_else(|| self.unsubscribe.map(Method::Unsubscribe))
            .or_else(|| self.publish.map(Method::Publish))
            .or_else(|| self.presence.map(|_| Method::Presence))
            .or_else(|| self.presence_stats.map(|_| Method::PresenceStats))
            .or_else(|| self.history.map(Method::History))
            .or_else(|| self.rpc.map(|_| Method::Rpc))
            .or_else(|| self.send.map(|_| Method::Send))
            .or_else(|| self.refresh.map(Method::Refresh))
            .or_else(|| self.sub_refresh.map(Method::SubRefresh))
            .unwrap_or(Method::None)
    }
}

/// A request whose members nobody reads.
#[derive(Deserialize)]
struct Unread {}

/// A JSON object; derived structures would take an array as well.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|Object(value)| value))
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A payload; `null` is one.
fn raw<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn raw_unless_null<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    Ok(raw(deserializer)?.filter(|value| value.get() != "null"))
}

/// A string, borrowed if it has no escapes. (`Option<Cow<str>>` would always be copied.)
fn text<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'a, str>, D::Error> {
    Ok(Option::<Text<'a>>::deserialize(deserializer)?.map_or(Cow::Borrowed(""), |Text(text)| text))
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn subscriptions<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(Cow<'a, str>, SubscribeRequest<'a>)>, D::Error> {
    Ok(Option::<Subscriptions<'a>>::deserialize(deserializer)?.map_or_else(Vec::new, |Subscriptions(list)| list))
}

/// An object of requests by channel, as a list.
struct Subscriptions<'a>(Vec<(Cow<'a, str>, SubscribeRequest<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Subscriptions<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SubscriptionsVisitor<'a>(PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for SubscriptionsVisitor<'a> {
            type Value = Subscriptions<'a>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of subscriptions by channel")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(Text(channel)) = map.next_key()? {
                    let request = map.next_value::<Option<Object<SubscribeRequest<'a>>>>()?;
                    list.push((channel, request.map_or_else(SubscribeRequest::default, |Object(request)| request)));
                }
                Ok(Subscriptions(list))
            }
        }

        deserializer.deserialize_map(SubscriptionsVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        assert!(matches!(one(r#"{"id":1,"send":{},"rpc":{}}"#).method, Method::Rpc));
        assert!(matches!(one(r#"{"send":{"data":1}}"#).method, Method::Send));
        assert!(matches!(one(r#"{"id":1,"presence":{"channel":"a"}}"#).method, Method::Presence));
        assert!(matches!(one(r#"{"id":1,"ping":{}}"#).method, Method::None));
        assert!(matches!(one(r#"{"id":1,"dance":{}}"#).method, Method::None));
    }

    #[test]
    fn payloads_are_taken_verbatim_and_strings_are_borrowed() {
        let command = one(r#"{"id":3,"publish":{"channel":"c","data":{"a": [1,  2]}}}"#);
        let Method::Publish(request) = command.method else { panic!("{command:?}") };
        assert_eq!(request.data.map(RawValue::get), Some(r#"{"a": [1,  2]}"#));
        assert!(matches!(request.channel, Cow::Borrowed("c")));
        let command = one(r#"{"id":3,"publish":{"channel":"\u0063","data":null}}"#);
        let Method::Publish(request) = command.method else { panic!("{command:?}") };
        assert_eq!((request.channel.as_ref(), request.data.map(RawValue::get)), ("c", Some("null")));
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
        let ids: Vec<_> = Commands::from_rest(rest).map(|command| command.map(|command| command.id)).collect();
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
