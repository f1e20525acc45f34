//! A publication as clients see it (protocol.md section 3).

use super::json::{Members, write_integer, write_string, write_verbatim};

/// A publication's parts, borrowed from wherever they are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicationView<'a> {
    /// Its channel.
    pub channel: &'a str,
    /// The payload: a JSON text.
    pub data: &'a [u8],
    /// The publishing client, if one did.
    pub info: Option<ClientInfoView<'a>>,
    /// From 1; 0 if it was not stored in history.
    pub offset: u64,
    /// A JSON object of strings.
    pub tags: Option<&'a [u8]>,
    /// Identity of the stream, if it was stored; told with offset 1 only.
    pub epoch: Option<&'a str>,
}

/// Who published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientInfoView<'a> {
    /// User id; "" if anonymous.
    pub user: &'a str,
    /// Client id.
    pub client: &'a str,
    /// `info` of its token: a JSON text.
    pub conn_info: Option<&'a [u8]>,
}

/// Appends the publication object. In the order of the reference; the epoch only where a client may need it.
pub fn write_publication(out: &mut Vec<u8>, publication: &PublicationView<'_>, with_epoch: bool) {
    out.extend_from_slice(b"{\"data\":");
    write_verbatim(out, publication.data);
    if let Some(info) = &publication.info {
        out.extend_from_slice(b",\"info\":");
        write_client_info(out, info);
    }
    if publication.offset != 0 {
        out.extend_from_slice(b",\"offset\":");
        write_integer(out, publication.offset);
    }
    if let Some(tags) = publication.tags {
        out.extend_from_slice(b",\"tags\":");
        write_verbatim(out, tags);
    }
    if let Some(epoch) = publication.epoch.filter(|_| with_epoch && publication.offset == 1) {
        out.extend_from_slice(b",\"epoch\":");
        write_string(out, epoch);
    }
    out.push(b'}');
}

fn write_client_info(out: &mut Vec<u8>, info: &ClientInfoView<'_>) {
    let mut members = Members::begin(out);
    // The only strings that are written even if they are empty (section 4).
    write_string(members.name("user"), info.user);
    write_string(members.name("client"), info.client);
    if let Some(conn_info) = info.conn_info {
        write_verbatim(members.name("conn_info"), conn_info);
    }
    members.end();
}
