//! What a client is told unasked (protocol.md section 8).

use super::{
    ClientInfoView, ConnectResult, Disconnect, PublicationView, Unsubscribe,
    fields::{Fields, Message, field},
    publication::Live,
    reply::ConnectPush,
};

/// What a client is told unasked.
#[derive(Debug, Clone, Copy)]
pub enum Push<'a> {
    /// A publication in a channel.
    Publication(PublicationView<'a>),
    /// Somebody has subscribed to the channel.
    Join(ClientInfoView<'a>),
    /// Somebody has left it.
    Leave(ClientInfoView<'a>),
    /// The server has ended a subscription of the client.
    Unsubscribe(Unsubscribe),
    /// A message that belongs to no channel: a payload.
    Message(&'a [u8]),
    /// The server has subscribed the client.
    Subscribe(ServerSubscription<'a>),
    /// To a one-way client: it is connected.
    Connect(ConnectResult<'a>),
    /// The connection ends, where no close frame can say so.
    Disconnect(Disconnect<'a>),
    /// The connection's time has changed.
    Refresh(Refresh),
}

/// A subscription that the server has made after the client had connected.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerSubscription<'a> {
    /// The client may ask for what it missed when it comes back.
    pub recoverable: bool,
    /// Identity of the stream; "" if the channel has none.
    pub epoch: &'a str,
    /// The stream's last offset.
    pub offset: u64,
    /// The client is told offsets.
    pub positioned: bool,
    /// What the application says to it.
    pub data: Option<&'a [u8]>,
}

/// How long a connection may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refresh {
    /// The client has to refresh its token.
    pub expires: bool,
    /// Within so many seconds.
    pub ttl_seconds: u32,
}

/// A push with its channel.
pub(super) struct PushTo<'a> {
    pub channel: &'a str,
    pub push: &'a Push<'a>,
}

impl Message for PushTo<'_> {
    #[inline]
    fn write(&self, fields: &mut impl Fields) {
        fields.text(field!(2, "channel"), self.channel);
        match self.push {
            Push::Publication(publication) => fields.message(field!(4, "pub"), &Live(publication)),
            Push::Join(info) => fields.message(field!(5, "join"), &Membership(info)),
            Push::Leave(info) => fields.message(field!(6, "leave"), &Membership(info)),
            Push::Unsubscribe(unsubscribe) => fields.message(field!(7, "unsubscribe"), unsubscribe),
            Push::Message(data) => fields.message(field!(8, "message"), &Data(data)),
            Push::Subscribe(subscription) => fields.message(field!(9, "subscribe"), subscription),
            Push::Connect(result) => fields.message(field!(10, "connect"), &ConnectPush(result)),
            Push::Disconnect(disconnect) => fields.message(field!(11, "disconnect"), disconnect),
            Push::Refresh(refresh) => fields.message(field!(12, "refresh"), refresh),
        }
    }
}

/// A join or a leave.
struct Membership<'a>(&'a ClientInfoView<'a>);

impl Message for Membership<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.message(field!(1, "info"), self.0);
    }
}

struct Data<'a>(&'a [u8]);

impl Message for Data<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.payload(field!(1, "data"), self.0);
    }
}

impl Message for Unsubscribe {
    fn write(&self, fields: &mut impl Fields) {
        fields.unsigned(field!(2, "code"), u64::from(self.code()));
        fields.text(field!(3, "reason"), self.reason());
    }
}

impl Message for ServerSubscription<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.flag(field!(1, "recoverable"), self.recoverable);
        fields.text(field!(4, "epoch"), self.epoch);
        fields.unsigned(field!(5, "offset"), self.offset);
        fields.flag(field!(6, "positioned"), self.positioned);
        if let Some(data) = self.data {
            fields.payload(field!(7, "data"), data);
        }
    }
}

impl Message for Disconnect<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.unsigned(field!(1, "code"), u64::from(self.code()));
        fields.text(field!(2, "reason"), self.reason());
        fields.flag(field!(3, "reconnect"), self.reconnects());
    }
}

impl Message for Refresh {
    fn write(&self, fields: &mut impl Fields) {
        fields.flag(field!(1, "expires"), self.expires);
        fields.unsigned(field!(2, "ttl"), u64::from(self.ttl_seconds));
    }
}
