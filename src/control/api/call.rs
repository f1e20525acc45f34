//! What a request asks for: the methods and the form of their parameters (protocol.md section 19).
//!
//! A field that is missing or null is as its type is when empty; fields without a meaning are passed over. What has
//! another type than it should is unreadable; what makes no sense otherwise is refused when the call is carried out.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Unreadable;
use crate::{limits::API_LIST_ITEMS_MAX, protocol::Overrides};

/// A method's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Several calls at once.
    Batch,
    /// A publication in many channels.
    Broadcast,
    /// Lists channels.
    Channels,
    /// Lists connections of a user.
    Connections,
    /// Ends connections of a user.
    Disconnect,
    /// A channel's publications.
    History,
    /// Forgets them.
    HistoryRemove,
    /// The server.
    Info,
    /// Who is in a channel.
    Presence,
    /// How many are.
    PresenceStats,
    /// A publication.
    Publish,
    /// When connections of a user expire.
    Refresh,
    /// A method of the application's own.
    Rpc,
    /// Subscribes connections of a user.
    Subscribe,
    /// Ends their subscriptions.
    Unsubscribe,
    /// What the back end knows of connections.
    UpdateAttributes,
}

impl Method {
    /// Every method: `ALL[method as usize] == method`.
    pub const ALL: [Self; 16] = [
        Self::Batch,
        Self::Broadcast,
        Self::Channels,
        Self::Connections,
        Self::Disconnect,
        Self::History,
        Self::HistoryRemove,
        Self::Info,
        Self::Presence,
        Self::PresenceStats,
        Self::Publish,
        Self::Refresh,
        Self::Rpc,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::UpdateAttributes,
    ];

    /// As paths, batches and legacy requests call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Broadcast => "broadcast",
            Self::Channels => "channels",
            Self::Connections => "connections",
            Self::Disconnect => "disconnect",
            Self::History => "history",
            Self::HistoryRemove => "history_remove",
            Self::Info => "info",
            Self::Presence => "presence",
            Self::PresenceStats => "presence_stats",
            Self::Publish => "publish",
            Self::Refresh => "refresh",
            Self::Rpc => "rpc",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::UpdateAttributes => "update_attributes",
        }
    }

    /// The method of a name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// A call, read.
pub enum Call<'a> {
    /// Several calls.
    Batch {
        /// Each with the name that its reply goes under.
        calls: Vec<(Method, Call<'a>)>,
        /// Whether they may run beside each other.
        is_parallel: bool,
    },
    /// `publish`.
    Publish(Publication<'a>),
    /// `broadcast`.
    Broadcast(Publication<'a>),
    /// `subscribe`.
    Subscribe(Subscribe<'a>),
    /// `unsubscribe`.
    Unsubscribe(Unsubscribe),
    /// `disconnect`.
    Disconnect(Disconnect),
    /// `refresh`.
    Refresh(Refresh<'a>),
    /// `presence`.
    Presence(OfChannel),
    /// `presence_stats`.
    PresenceStats(OfChannel),
    /// `history`.
    History(History),
    /// `history_remove`.
    HistoryRemove(OfChannel),
    /// `channels`.
    Channels(Channels),
    /// `connections`.
    Connections(OfUser),
    /// `update_attributes`.
    UpdateAttributes(UpdateAttributes<'a>),
    /// `info`.
    Info,
    /// `rpc`.
    Rpc(Rpc),
}

impl<'a> Call<'a> {
    /// Reads the parameters of a method.
    pub fn read(method: Method, params: &'a [u8]) -> Result<Self, Unreadable> {
        if !params.trim_ascii_start().starts_with(b"{") {
            // What reads an object takes a list of its fields, too.
            return Err(Unreadable);
        }
        Ok(match method {
            Method::Batch => Self::read_batch(serde_json::from_slice(params)?)?,
            Method::Publish => Self::Publish(serde_json::from_slice(params)?),
            Method::Broadcast => Self::Broadcast(serde_json::from_slice(params)?),
            Method::Subscribe => Self::Subscribe(serde_json::from_slice(params)?),
            Method::Unsubscribe => Self::Unsubscribe(serde_json::from_slice(params)?),
            Method::Disconnect => Self::Disconnect(serde_json::from_slice(params)?),
            Method::Refresh => Self::Refresh(serde_json::from_slice(params)?),
            Method::Presence => Self::Presence(serde_json::from_slice(params)?),
            Method::PresenceStats => Self::PresenceStats(serde_json::from_slice(params)?),
            Method::History => Self::History(serde_json::from_slice(params)?),
            Method::HistoryRemove => Self::HistoryRemove(serde_json::from_slice(params)?),
            Method::Channels => Self::Channels(serde_json::from_slice(params)?),
            Method::Connections => Self::Connections(serde_json::from_slice(params)?),
            Method::UpdateAttributes => Self::UpdateAttributes(serde_json::from_slice(params)?),
            Method::Info => serde_json::from_slice::<serde::de::IgnoredAny>(params).map(|_| Self::Info)?,
            Method::Rpc => Self::Rpc(serde_json::from_slice(params)?),
        })
    }

    fn read_batch(batch: Batch<'a>) -> Result<Self, Unreadable> {
        if batch.commands.len() > API_LIST_ITEMS_MAX {
            return Err(Unreadable);
        }
        let calls = batch.commands.into_iter().map(|command| {
            // A command is an object whose one member names the method.
            let mut methods = command.iter().filter_map(|(name, params)| Some((Method::of(name)?, *params)));
            let (method, params) = methods.next().ok_or(Unreadable)?;
            if method == Method::Batch {
                return Err(Unreadable);
            }
            Ok((method, Self::read(method, params.get().as_bytes())?))
        });
        Ok(Self::Batch { calls: calls.collect::<Result<_, _>>()?, is_parallel: batch.parallel })
    }
}

#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    commands: Vec<BTreeMap<String, &'a RawValue>>,
    #[serde(default, deserialize_with = "or_default")]
    parallel: bool,
}

/// Of `publish` and `broadcast`.
#[derive(Deserialize)]
pub struct Publication<'a> {
    /// Where to.
    #[serde(default, deserialize_with = "or_default")]
    pub channel: String,
    /// The same, for `broadcast`.
    #[serde(default, deserialize_with = "or_default")]
    pub channels: Vec<String>,
    /// The payload: any JSON, null included.
    #[serde(borrow, default, deserialize_with = "present")]
    pub data: Option<&'a RawValue>,
    /// The payload in base64; counts before `data`.
    #[serde(default, deserialize_with = "or_default")]
    pub b64data: String,
    /// Deliver, but do not store.
    #[serde(default, deserialize_with = "or_default")]
    pub skip_history: bool,
    /// Strings by name.
    #[serde(default, deserialize_with = "or_default")]
    pub tags: BTreeMap<String, String>,
    /// Publications of one key are one.
    #[serde(default, deserialize_with = "or_default")]
    pub idempotency_key: String,
    /// Subscribers that asked for deltas may be sent one.
    #[serde(default, deserialize_with = "or_default")]
    pub delta: bool,
    /// Which version of the channel's state this is; 0: it has none.
    #[serde(default, deserialize_with = "or_default")]
    pub version: u64,
    /// Numbers of one epoch are compared; "": with those of any.
    #[serde(default, deserialize_with = "or_default")]
    pub version_epoch: String,
}

/// Of `subscribe`.
#[derive(Deserialize)]
pub struct Subscribe<'a> {
    /// Whom.
    #[serde(default, deserialize_with = "or_default")]
    pub user: String,
    /// To what.
    #[serde(default, deserialize_with = "or_default")]
    pub channel: String,
    /// Only the client of this id.
    #[serde(default, deserialize_with = "or_default")]
    pub client: String,
    /// Only the client of this session.
    #[serde(default, deserialize_with = "or_default")]
    pub session: String,
    /// What others see of the subscriber.
    #[serde(borrow, default)]
    pub info: Option<&'a RawValue>,
    /// The same in base64; counts before `info`.
    #[serde(default, deserialize_with = "or_default")]
    pub b64info: String,
    /// What the client is told.
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
    /// The same in base64; counts before `data`.
    #[serde(default, deserialize_with = "or_default")]
    pub b64data: String,
    /// When the subscription ends, in seconds since 1970; 0 or less: never.
    #[serde(default, deserialize_with = "or_default")]
    pub expire_at: i64,
    /// Send what came after this position.
    #[serde(default)]
    pub recover_since: Option<StreamPosition>,
    /// Options that differ from the namespace's.
    #[serde(rename = "override", default)]
    pub overrides: Option<Overrides>,
}

/// Of `unsubscribe`.
#[derive(Deserialize)]
pub struct Unsubscribe {
    /// Whom.
    #[serde(default, deserialize_with = "or_default")]
    pub user: String,
    /// From what; "": from everything.
    #[serde(default, deserialize_with = "or_default")]
    pub channel: String,
    /// Only the client of this id.
    #[serde(default, deserialize_with = "or_default")]
    pub client: String,
    /// Only the client of this session.
    #[serde(default, deserialize_with = "or_default")]
    pub session: String,
}

/// Of `disconnect`.
#[derive(Deserialize)]
pub struct Disconnect {
    /// Whom.
    #[serde(default, deserialize_with = "or_default")]
    pub user: String,
    /// Only the client of this id.
    #[serde(default, deserialize_with = "or_default")]
    pub client: String,
    /// Only the client of this session.
    #[serde(default, deserialize_with = "or_default")]
    pub session: String,
    /// But not the clients of these ids.
    #[serde(default, deserialize_with = "or_default")]
    pub whitelist: Vec<String>,
    /// What they are told.
    #[serde(default)]
    pub disconnect: Option<CloseCode>,
}

/// What a client is told at its end.
#[derive(Deserialize)]
pub struct CloseCode {
    /// From 3000 to 4999.
    #[serde(default, deserialize_with = "or_default")]
    pub code: u32,
    /// For developers.
    #[serde(default, deserialize_with = "or_default")]
    pub reason: String,
}

/// Of `refresh`.
#[derive(Deserialize)]
pub struct Refresh<'a> {
    /// Whose connections.
    #[serde(default, deserialize_with = "or_default")]
    pub user: String,
    /// Only the client of this id.
    #[serde(default, deserialize_with = "or_default")]
    pub client: String,
    /// Only the client of this session.
    #[serde(default, deserialize_with = "or_default")]
    pub session: String,
    /// They are over now.
    #[serde(default, deserialize_with = "or_default")]
    pub expired: bool,
    /// When they are over, in seconds since 1970; 0 or less: never.
    #[serde(default, deserialize_with = "or_default")]
    pub expire_at: i64,
    /// What others see of the user from now on.
    #[serde(borrow, default)]
    pub info: Option<&'a RawValue>,
}

/// Of methods that need nothing but a channel.
#[derive(Deserialize)]
pub struct OfChannel {
    /// Which.
    #[serde(default, deserialize_with = "or_default")]
    pub channel: String,
}

/// Of `history`.
#[derive(Deserialize)]
pub struct History {
    /// Of which channel.
    #[serde(default, deserialize_with = "or_default")]
    pub channel: String,
    /// Publications wanted; 0: only the position; negative: as many as there may be.
    #[serde(default, deserialize_with = "or_default")]
    pub limit: i32,
    /// Where to start.
    #[serde(default)]
    pub since: Option<StreamPosition>,
    /// Newest first.
    #[serde(default, deserialize_with = "or_default")]
    pub reverse: bool,
}

/// A position in a stream.
#[derive(Deserialize)]
pub struct StreamPosition {
    /// Of the last publication that is known.
    #[serde(default, deserialize_with = "or_default")]
    pub offset: u64,
    /// Identity of the stream; "": any.
    #[serde(default, deserialize_with = "or_default")]
    pub epoch: String,
}

/// Of `channels`.
#[derive(Deserialize)]
pub struct Channels {
    /// Glob; "": all.
    #[serde(default, deserialize_with = "or_default")]
    pub pattern: String,
}

/// Of `connections`.
#[derive(Deserialize)]
pub struct OfUser {
    /// Whose.
    #[serde(default, deserialize_with = "or_default")]
    pub user: String,
}

/// Of `update_attributes`.
#[derive(Deserialize)]
pub struct UpdateAttributes<'a> {
    /// Of whose connections.
    #[serde(default, deserialize_with = "or_default")]
    pub user: String,
    /// Only the client of this id.
    #[serde(default, deserialize_with = "or_default")]
    pub client: String,
    /// Only the client of this session.
    #[serde(default, deserialize_with = "or_default")]
    pub session: String,
    /// A merge patch: a JSON object.
    #[serde(borrow, default)]
    pub attributes: Option<&'a RawValue>,
}

/// Of `rpc`.
#[derive(Deserialize)]
pub struct Rpc {
    /// Its name.
    #[serde(default, deserialize_with = "or_default")]
    pub method: String,
}

/// A value, or what its type is when empty in place of null.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A value that is there, though it may be null.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_parameters_are_read_or_refused(
            body: Vec<u8>,
            name in "channel|channels|user|data|b64data|tags|version|expire_at|since|limit|override|commands|disconnect",
            value in ".{0,20}|-?[0-9]{1,30}(\\.5|e9)?|\\[\\]|\\[\\{\\}\\]|\\{\\}|null|true|\"[a-z]{0,9}\"",
        ) {
            for method in Method::ALL {
                let _ = Call::read(method, &body);
                let _ = Call::read(method, format!("{{\"{name}\":{value}}}").as_bytes());
            }
        }
    }

    fn is_readable(method: Method, params: &str) -> bool {
        Call::read(method, params.as_bytes()).is_ok()
    }

    #[test]
    fn what_is_no_object_or_broken_is_unreadable_to_every_method() {
        for method in Method::ALL {
            assert_eq!(Method::of(method.name()), Some(method));
            assert!(is_readable(method, " {} "), "{}", method.name());
            assert!(is_readable(method, r#"{"unknown": [1, {}]}"#), "{}", method.name());
            for params in ["", " ", "null", "[]", "1", "\"{}\"", "{", "{}}", "{} {}", "{\"a\"}", "\u{feff}{}"] {
                assert!(!is_readable(method, params), "{} {params}", method.name());
            }
        }
        assert_eq!(Method::of("Publish"), None);
        assert_eq!(Method::of(""), None);
    }

    #[test]
    fn fields_of_a_wrong_type_are_unreadable() {
        use Method::*;
        let channel_methods = [Publish, Subscribe, Unsubscribe, Presence, PresenceStats, History, HistoryRemove];
        for method in channel_methods {
            for value in ["1", "true", "{}", "[\"a\"]"] {
                assert!(!is_readable(method, &format!("{{\"channel\":{value}}}")), "{} {value}", method.name());
            }
            assert!(is_readable(method, r#"{"channel":null}"#), "{}", method.name());
        }
        for method in [Subscribe, Unsubscribe, Disconnect, Refresh] {
            for field in ["user", "client", "session"] {
                for value in ["42", "[]", "{}", "false"] {
                    assert!(!is_readable(method, &format!("{{\"{field}\":{value}}}")), "{} {field}", method.name());
                }
            }
        }
        for (method, params) in [
            (Broadcast, r#"{"channels":"a"}"#),
            (Broadcast, r#"{"channels":[1]}"#),
            (Publish, r#"{"b64data":1}"#),
            (Publish, r#"{"skip_history":1}"#),
            (Publish, r#"{"tags":{"a":1}}"#),
            (Publish, r#"{"tags":["a"]}"#),
            (Publish, r#"{"idempotency_key":1}"#),
            (Publish, r#"{"delta":"yes"}"#),
            (Publish, r#"{"version":-1}"#),
            (Publish, r#"{"version":1.5}"#),
            (Publish, r#"{"version":"1"}"#),
            (Publish, r#"{"version_epoch":1}"#),
            (Subscribe, r#"{"expire_at":"soon"}"#),
            (Subscribe, r#"{"b64info":{}}"#),
            (Subscribe, r#"{"b64data":{}}"#),
            (Subscribe, r#"{"recover_since":{"offset":-1}}"#),
            (Subscribe, r#"{"recover_since":7}"#),
            (Subscribe, r#"{"override":{"presence":true}}"#),
            (Subscribe, r#"{"override":7}"#),
            (Disconnect, r#"{"whitelist":"a"}"#),
            (Disconnect, r#"{"disconnect":3500}"#),
            (Disconnect, r#"{"disconnect":{"code":"3500"}}"#),
            (Disconnect, r#"{"disconnect":{"code":4294967296}}"#),
            (Refresh, r#"{"expired":1}"#),
            (Refresh, r#"{"expire_at":"never"}"#),
            (History, r#"{"limit":"all"}"#),
            (History, r#"{"limit":2147483648}"#),
            (History, r#"{"since":{"epoch":1}}"#),
            (History, r#"{"reverse":"yes"}"#),
            (Channels, r#"{"pattern":1}"#),
            (Rpc, r#"{"method":1}"#),
            (Batch, r#"{"commands":{}}"#),
            (Batch, r#"{"commands":[1]}"#),
            (Batch, r#"{"commands":[{}]}"#),
            (Batch, r#"{"commands":[{"nothing":{}}]}"#),
            (Batch, r#"{"commands":[{"publish":{"channel":1}}]}"#),
            (Batch, r#"{"commands":[{"batch":{}}]}"#),
            (Batch, r#"{"parallel":"yes"}"#),
        ] {
            assert!(!is_readable(method, params), "{} {params}", method.name());
        }
    }

    #[test]
    fn data_may_be_null_but_is_then_there() {
        let data = |params| match Call::read(Method::Publish, params) {
            Ok(Call::Publish(request)) => request.data.map(RawValue::get),
            _ => panic!("it is readable"),
        };
        assert_eq!(data(b"{}"), None);
        assert_eq!(data(br#"{"data":null}"#), Some("null"));
        assert_eq!(data(br#"{"data":{"a": 1}}"#), Some(r#"{"a": 1}"#));
    }

    #[test]
    fn a_batch_is_read_whole() {
        let params = br#"{"commands":[{"publish":{"channel":"a"}},{"info":{}}],"parallel":true}"#;
        let Ok(Call::Batch { calls, is_parallel: true }) = Call::read(Method::Batch, params) else {
            panic!("it is readable")
        };
        assert!(matches!(calls[..], [(Method::Publish, Call::Publish(_)), (Method::Info, Call::Info)]));
        let long = format!("{{\"commands\":[{}]}}", vec!["{\"info\":{}}"; API_LIST_ITEMS_MAX + 1].join(","));
        assert!(!is_readable(Method::Batch, &long));
    }
}
