//! Answers to commands (protocol.md sections 3 to 9).

use super::{
    ClientInfoView, ErrorCode, PublicationView,
    fields::{Fields, Message, field},
};

/// The answer to a command.
#[derive(Debug, Clone, Copy)]
pub enum Reply<'a> {
    /// It was not carried out.
    Error(ErrorView<'a>),
    /// Of connect.
    Connect(ConnectResult<'a>),
    /// Of subscribe.
    Subscribe(SubscribeResult<'a>),
    /// Of unsubscribe: it is done.
    Unsubscribe,
    /// Of publish: it is done.
    Publish,
    /// Of presence: who is there, each client once.
    Presence(&'a [ClientInfoView<'a>]),
    /// Of presence_stats.
    PresenceStats(PresenceStats),
    /// Of history.
    History(HistoryResultView<'a>),
    /// Of rpc: what the application says, if it says anything.
    Rpc(Option<&'a [u8]>),
    /// Of refresh.
    Refresh(RefreshResult<'a>),
    /// Of sub_refresh.
    SubRefresh(SubRefreshResult),
}

/// Why a command was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorView<'a> {
    /// Of protocol.md section 13; an application's own are 400 to 1999.
    pub code: u32,
    /// For developers.
    pub message: &'a str,
    /// Whether an SDK tries the same again after a while.
    pub is_temporary: bool,
}

/// What a connect command brought.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConnectResult<'a> {
    /// The client id; never empty.
    pub client: &'a str,
    /// The server's name and version; never empty.
    pub version: &'a str,
    /// The client has to refresh its token.
    pub expires: bool,
    /// Within so many seconds.
    pub ttl_seconds: u32,
    /// What the application says to it.
    pub data: Option<&'a [u8]>,
    /// Server-side subscriptions, by channel.
    pub subs: &'a [(&'a str, SubscribeResult<'a>)],
    /// Seconds between pings.
    pub ping_seconds: u32,
    /// Whether the client has to answer pings.
    pub pong: bool,
    /// The secret of an emulated uplink; "" where commands come over the connection itself.
    pub session: &'a str,
    /// The process that knows the session; "" without one.
    pub node: &'a str,
}

/// What a subscription brought.
#[derive(Debug, Clone, Copy, Default)]
pub struct SubscribeResult<'a> {
    /// The client has to refresh the subscription's token.
    pub expires: bool,
    /// Within so many seconds.
    pub ttl_seconds: u32,
    /// The client may ask for what it missed when it comes back.
    pub recoverable: bool,
    /// Identity of the stream; "" if the channel has none.
    pub epoch: &'a str,
    /// What it missed, in order.
    pub publications: &'a [PublicationView<'a>],
    /// It has got all of it.
    pub recovered: bool,
    /// The stream's last offset; after a recovery the one that the client named.
    pub offset: u64,
    /// The client is told offsets.
    pub positioned: bool,
    /// What the application says to it.
    pub data: Option<&'a [u8]>,
    /// The client asked for what it missed.
    pub was_recovering: bool,
    /// Publications come as deltas.
    pub delta: bool,
}

/// How many are in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PresenceStats {
    /// Connections.
    pub clients: u32,
    /// Different users among them.
    pub users: u32,
}

/// What a channel's history holds.
#[derive(Debug, Clone, Copy)]
pub struct HistoryResultView<'a> {
    /// In the order asked for.
    pub publications: &'a [PublicationView<'a>],
    /// Identity of the stream.
    pub epoch: &'a str,
    /// The stream's last offset.
    pub offset: u64,
}

/// What a refresh command brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RefreshResult<'a> {
    /// The client id; may be left out.
    pub client: &'a str,
    /// The server's name and version; may be left out.
    pub version: &'a str,
    /// The client has to refresh again.
    pub expires: bool,
    /// Within so many seconds.
    pub ttl_seconds: u32,
}

/// What a sub_refresh command brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubRefreshResult {
    /// The client has to refresh again.
    pub expires: bool,
    /// Within so many seconds.
    pub ttl_seconds: u32,
}

impl From<ErrorCode> for Reply<'_> {
    fn from(error: ErrorCode) -> Self {
        Self::Error(error.into())
    }
}

impl From<ErrorCode> for ErrorView<'_> {
    fn from(error: ErrorCode) -> Self {
        Self { code: error.code(), message: error.message(), is_temporary: error.is_temporary() }
    }
}

impl Message for Reply<'_> {
    fn write(&self, fields: &mut impl Fields) {
        match self {
            Self::Error(error) => fields.message(field!(2, "error"), error),
            Self::Connect(result) => fields.message(field!(5, "connect"), result),
            Self::Subscribe(result) => fields.message(field!(6, "subscribe"), result),
            Self::Unsubscribe => fields.message(field!(7, "unsubscribe"), &Nothing),
            Self::Publish => fields.message(field!(8, "publish"), &Nothing),
            Self::Presence(clients) => fields.message(field!(9, "presence"), &Presence(clients)),
            Self::PresenceStats(stats) => fields.message(field!(10, "presence_stats"), stats),
            Self::History(result) => fields.message(field!(11, "history"), result),
            Self::Rpc(data) => fields.message(field!(13, "rpc"), &RpcResult(*data)),
            Self::Refresh(result) => fields.message(field!(14, "refresh"), result),
            Self::SubRefresh(result) => fields.message(field!(15, "sub_refresh"), result),
        }
    }
}

/// The result of what has none: an object all the same (protocol.md section 4).
struct Nothing;

impl Message for Nothing {
    fn write(&self, _fields: &mut impl Fields) {}
}

impl Message for ErrorView<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.unsigned(field!(1, "code"), u64::from(self.code));
        fields.text(field!(2, "message"), self.message);
        fields.flag(field!(3, "temporary"), self.is_temporary);
    }
}

impl Message for ConnectResult<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.text(field!(1, "client"), self.client);
        fields.text(field!(2, "version"), self.version);
        fields.flag(field!(3, "expires"), self.expires);
        fields.unsigned(field!(4, "ttl"), u64::from(self.ttl_seconds));
        if let Some(data) = self.data {
            fields.payload(field!(5, "data"), data);
        }
        fields.messages_by_name(field!(6, "subs"), by_channel(self.subs));
        fields.unsigned(field!(7, "ping"), u64::from(self.ping_seconds));
        fields.flag(field!(8, "pong"), self.pong);
        fields.text(field!(9, "session"), self.session);
        fields.text(field!(10, "node"), self.node);
    }
}

/// The same as a push, whose fields have other numbers and another order.
pub(super) struct ConnectPush<'a>(pub &'a ConnectResult<'a>);

impl Message for ConnectPush<'_> {
    fn write(&self, fields: &mut impl Fields) {
        let Self(result) = self;
        fields.text(field!(1, "client"), result.client);
        fields.text(field!(2, "version"), result.version);
        if let Some(data) = result.data {
            fields.payload(field!(3, "data"), data);
        }
        fields.messages_by_name(field!(4, "subs"), by_channel(result.subs));
        fields.flag(field!(5, "expires"), result.expires);
        fields.unsigned(field!(6, "ttl"), u64::from(result.ttl_seconds));
        fields.unsigned(field!(7, "ping"), u64::from(result.ping_seconds));
        fields.flag(field!(8, "pong"), result.pong);
        fields.text(field!(9, "session"), result.session);
        fields.text(field!(10, "node"), result.node);
    }
}

fn by_channel<'a>(
    subs: &'a [(&'a str, SubscribeResult<'a>)],
) -> impl ExactSizeIterator<Item = (&'a str, &'a SubscribeResult<'a>)> {
    subs.iter().map(|(channel, result)| (*channel, result))
}

impl Message for SubscribeResult<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.flag(field!(1, "expires"), self.expires);
        fields.unsigned(field!(2, "ttl"), u64::from(self.ttl_seconds));
        fields.flag(field!(3, "recoverable"), self.recoverable);
        fields.text(field!(6, "epoch"), self.epoch);
        fields.messages(field!(7, "publications"), self.publications.iter());
        fields.flag(field!(8, "recovered"), self.recovered);
        fields.unsigned(field!(9, "offset"), self.offset);
        fields.flag(field!(10, "positioned"), self.positioned);
        if let Some(data) = self.data {
            fields.payload(field!(11, "data"), data);
        }
        fields.flag(field!(12, "was_recovering"), self.was_recovering);
        fields.flag(field!(13, "delta"), self.delta);
    }
}

struct Presence<'a>(&'a [ClientInfoView<'a>]);

impl Message for Presence<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.messages_by_name(field!(1, "presence", always), self.0.iter().map(|info| (info.client, info)));
    }
}

impl Message for PresenceStats {
    fn write(&self, fields: &mut impl Fields) {
        fields.unsigned(field!(1, "num_clients", always), u64::from(self.clients));
        fields.unsigned(field!(2, "num_users", always), u64::from(self.users));
    }
}

impl Message for HistoryResultView<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.messages(field!(1, "publications", always), self.publications.iter());
        fields.text(field!(2, "epoch", always), self.epoch);
        fields.unsigned(field!(3, "offset", always), self.offset);
    }
}

struct RpcResult<'a>(Option<&'a [u8]>);

impl Message for RpcResult<'_> {
    fn write(&self, fields: &mut impl Fields) {
        if let Some(data) = self.0 {
            fields.payload(field!(1, "data"), data);
        }
    }
}

impl Message for RefreshResult<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.text(field!(1, "client"), self.client);
        fields.text(field!(2, "version"), self.version);
        fields.flag(field!(3, "expires"), self.expires);
        fields.unsigned(field!(4, "ttl"), u64::from(self.ttl_seconds));
    }
}

impl Message for SubRefreshResult {
    fn write(&self, fields: &mut impl Fields) {
        fields.flag(field!(1, "expires"), self.expires);
        fields.unsigned(field!(2, "ttl"), u64::from(self.ttl_seconds));
    }
}
