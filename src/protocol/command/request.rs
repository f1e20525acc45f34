//! The requests that commands carry (protocol.md section 3).
//!
//! Members that nothing here acts on are not read: channel compaction, dictionaries, maps and polls (section 22).

use std::borrow::Cow;

use serde::Deserialize;

use super::json::{filters, object, or_default, payload, subscriptions, text, texts, texts_by_name};

/// Strings by name, as sent: a name may stand there twice.
pub type Headers<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// Of [`Method::Connect`](super::Method::Connect).
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ConnectRequest<'a> {
    /// A JWT; "": the client is anonymous.
    #[serde(borrow, default, deserialize_with = "text")]
    pub token: Cow<'a, str>,
    /// What the client says to the application.
    #[serde(borrow, default, deserialize_with = "payload")]
    pub data: Option<&'a [u8]>,
    /// Channels whose position the client knows, or that it asks to be subscribed to.
    #[serde(borrow, default, deserialize_with = "subscriptions")]
    pub subs: Vec<(Cow<'a, str>, SubscribeRequest<'a>)>,
    /// What the client's program calls itself.
    #[serde(borrow, default, deserialize_with = "text")]
    pub name: Cow<'a, str>,
    /// Its version.
    #[serde(borrow, default, deserialize_with = "text")]
    pub version: Cow<'a, str>,
    /// What a browser cannot send as header fields of its own.
    #[serde(borrow, default, deserialize_with = "texts_by_name")]
    pub headers: Headers<'a>,
}

impl ConnectRequest<'_> {
    /// What matters when it is known who the client is, for longer than its message lasts.
    pub fn kept(&self) -> ConnectRequest<'static> {
        let subs = self.subs.iter().map(|(channel, request)| (kept(channel), request.kept()));
        ConnectRequest {
            subs: subs.collect(),
            name: kept(&self.name),
            version: kept(&self.version),
            ..ConnectRequest::default()
        }
    }
}

/// Of [`Method::Subscribe`](super::Method::Subscribe).
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
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
    /// What the client says to the application.
    #[serde(borrow, default, deserialize_with = "payload")]
    pub data: Option<&'a [u8]>,
    /// The client wants to be told its position.
    #[serde(default, deserialize_with = "or_default")]
    pub positioned: bool,
    /// The client wants to recover when it comes back.
    #[serde(default, deserialize_with = "or_default")]
    pub recoverable: bool,
    /// The client wants to be told who comes and goes.
    #[serde(default, deserialize_with = "or_default")]
    pub join_leave: bool,
    /// The kind of delta compression wanted.
    #[serde(borrow, default, deserialize_with = "text")]
    pub delta: Cow<'a, str>,
    /// Publications of these tags only.
    #[serde(borrow, rename = "tf", default, deserialize_with = "object")]
    pub tags_filter: Option<Box<FilterNode<'a>>>,
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

    /// The same for longer than its message lasts, without what the client says to the application and its filter.
    pub fn kept(&self) -> SubscribeRequest<'static> {
        SubscribeRequest {
            channel: kept(&self.channel),
            token: kept(&self.token),
            epoch: kept(&self.epoch),
            delta: kept(&self.delta),
            data: None,
            tags_filter: None,
            ..*self
        }
    }
}

/// A filter by tags, as sent: nothing is checked but its form (protocol.md section 22).
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub struct FilterNode<'a> {
    /// `and`, `or`, `not` of [`Self::nodes`]; "": a comparison.
    #[serde(borrow, default, deserialize_with = "text")]
    pub op: Cow<'a, str>,
    /// Name of the tag that is compared.
    #[serde(borrow, default, deserialize_with = "text")]
    pub key: Cow<'a, str>,
    /// How.
    #[serde(borrow, default, deserialize_with = "text")]
    pub cmp: Cow<'a, str>,
    /// With what.
    #[serde(borrow, default, deserialize_with = "text")]
    pub val: Cow<'a, str>,
    /// With which of several.
    #[serde(borrow, default, deserialize_with = "texts")]
    pub vals: Vec<Cow<'a, str>>,
    /// Filters that [`Self::op`] joins.
    #[serde(borrow, default, deserialize_with = "filters")]
    pub nodes: Vec<FilterNode<'a>>,
}

fn kept(text: &str) -> Cow<'static, str> {
    Cow::Owned(text.to_owned())
}

/// Of [`Method::Unsubscribe`](super::Method::Unsubscribe).
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub struct UnsubscribeRequest<'a> {
    /// The channel.
    #[serde(borrow, default, deserialize_with = "text")]
    pub channel: Cow<'a, str>,
}

/// Of [`Method::Publish`](super::Method::Publish).
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub struct PublishRequest<'a> {
    /// The channel.
    #[serde(borrow, default, deserialize_with = "text")]
    pub channel: Cow<'a, str>,
    /// The payload. Out of JSON it is a JSON text, `null` too; out of Protobuf any bytes but none.
    #[serde(borrow, default, deserialize_with = "payload")]
    pub data: Option<&'a [u8]>,
    /// 0 for a stream of publications; other kinds are maps.
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    pub kind: i32,
}

/// Of [`Method::Presence`](super::Method::Presence) and [`Method::PresenceStats`](super::Method::PresenceStats).
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub struct PresenceRequest<'a> {
    /// The channel.
    #[serde(borrow, default, deserialize_with = "text")]
    pub channel: Cow<'a, str>,
}

/// Of [`Method::History`](super::Method::History).
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
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
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub struct StreamPosition<'a> {
    /// Of a publication.
    #[serde(default, deserialize_with = "or_default")]
    pub offset: u64,
    /// Identity of the stream; "": whichever it is.
    #[serde(borrow, default, deserialize_with = "text")]
    pub epoch: Cow<'a, str>,
}

/// Of [`Method::Rpc`](super::Method::Rpc).
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub struct RpcRequest<'a> {
    /// What the client says to the application.
    #[serde(borrow, default, deserialize_with = "payload")]
    pub data: Option<&'a [u8]>,
    /// What it calls.
    #[serde(borrow, default, deserialize_with = "text")]
    pub method: Cow<'a, str>,
}

/// Of [`Method::Send`](super::Method::Send).
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub struct SendRequest<'a> {
    /// What the client says to the application.
    #[serde(borrow, default, deserialize_with = "payload")]
    pub data: Option<&'a [u8]>,
}

/// Of [`Method::Refresh`](super::Method::Refresh).
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub struct RefreshRequest<'a> {
    /// A JWT.
    #[serde(borrow, default, deserialize_with = "text")]
    pub token: Cow<'a, str>,
}

/// Of [`Method::SubRefresh`](super::Method::SubRefresh).
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub struct SubRefreshRequest<'a> {
    /// The channel.
    #[serde(borrow, default, deserialize_with = "text")]
    pub channel: Cow<'a, str>,
    /// A JWT.
    #[serde(borrow, default, deserialize_with = "text")]
    pub token: Cow<'a, str>,
    /// 0 for a stream of publications; other kinds are polls.
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    pub kind: i32,
}
