//! A publication and its publisher, as clients see them (protocol.md section 3).

use super::{
    fields::{Fields, Message, field},
    tags::Tags,
};

/// A publication's parts, borrowed from wherever they are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicationView<'a> {
    /// The payload: for JSON clients a JSON text, or what [`Self::delta`] says.
    pub data: &'a [u8],
    /// The publishing client, if one did.
    pub info: Option<ClientInfoView<'a>>,
    /// From 1; 0 if it was not stored in history.
    pub offset: u64,
    /// Strings by name.
    pub tags: Option<&'a Tags>,
    /// What the payload is for subscribers that asked for deltas.
    pub delta: Delta,
    /// Identity of the stream, if it was stored; pushes tell it with offset 1.
    pub epoch: Option<&'a str>,
}

/// What the payload of a publication is (protocol.md section 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delta {
    /// The payload, for a subscription without deltas.
    #[default]
    None,
    /// The payload, for a subscription with deltas: in JSON a string, so it must be UTF-8.
    Full,
    /// A patch to the payload of the publication before: in JSON a string, so it must be UTF-8.
    Patch,
}

/// Who published, or is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientInfoView<'a> {
    /// User id; "" if anonymous.
    pub user: &'a str,
    /// Client id.
    pub client: &'a str,
    /// `info` of its connection token; a JSON text for JSON clients.
    pub conn_info: Option<&'a [u8]>,
    /// `info` of its subscription token; a JSON text for JSON clients.
    pub chan_info: Option<&'a [u8]>,
}

impl Message for PublicationView<'_> {
    #[inline]
    fn write(&self, fields: &mut impl Fields) {
        let data = field!(4, "data");
        match self.delta {
            Delta::None => fields.payload(data, self.data),
            Delta::Full | Delta::Patch => fields.quoted_payload(data, self.data),
        }
        if let Some(info) = &self.info {
            fields.message(field!(5, "info"), info);
        }
        fields.unsigned(field!(6, "offset"), self.offset);
        if let Some(tags) = self.tags {
            fields.tags(field!(7, "tags"), tags);
        }
        fields.flag(field!(8, "delta"), self.delta == Delta::Patch);
    }
}

/// A publication that is pushed: with the epoch, where a client cannot know it from its subscription.
pub(super) struct Live<'a>(pub &'a PublicationView<'a>);

impl Message for Live<'_> {
    #[inline]
    fn write(&self, fields: &mut impl Fields) {
        self.0.write(fields);
        if self.0.offset == 1
            && self.0.delta == Delta::None
            && let Some(epoch) = self.0.epoch
        {
            fields.text(field!(14, "epoch"), epoch);
        }
    }
}

impl Message for ClientInfoView<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.text(field!(1, "user", always), self.user);
        fields.text(field!(2, "client", always), self.client);
        if let Some(info) = self.conn_info {
            fields.payload(field!(3, "conn_info"), info);
        }
        if let Some(info) = self.chan_info {
            fields.payload(field!(4, "chan_info"), info);
        }
    }
}
