//! What the mesh carries, as the protocol's encoders want to see it.

use crate::{
    mesh::{ClientInfo, HistoryFound, Publication, Recovery, Subscribed},
    protocol::{ClientInfoView, Delta, HistoryResultView, PublicationView, SubscribeResult},
};

/// A publication.
pub fn publication(publication: &Publication) -> PublicationView<'_> {
    PublicationView {
        data: &publication.data,
        info: publication.info.as_deref().map(client_info),
        offset: publication.offset,
        tags: publication.tags.as_ref(),
        delta: Delta::None,
        epoch: publication.epoch.as_deref(),
    }
}

/// Who published, or is there.
pub fn client_info(info: &ClientInfo) -> ClientInfoView<'_> {
    ClientInfoView {
        user: &info.user,
        client: &info.client,
        conn_info: info.conn_info.as_deref(),
        chan_info: info.chan_info.as_deref(),
    }
}

/// What a recovery brought, for a subscription with or without deltas; nothing where there was none. All of it is whole:
/// a patch to the one before would be made for each client that comes back.
pub fn recovered(subscribed: &Subscribed, has_deltas: bool) -> Vec<PublicationView<'_>> {
    let delta = if has_deltas { Delta::Full } else { Delta::None };
    let view = |one| PublicationView { delta, ..publication(one) };
    match &subscribed.recovery {
        Some(Recovery::Recovered { publications, .. }) => publications.iter().map(|one| view(one)).collect(),
        _ => Vec::new(),
    }
}

/// A subscription's result; `publications` are [`recovered`]'s.
pub fn subscribe_result<'a>(
    subscribed: &'a Subscribed,
    publications: &'a [PublicationView<'a>],
) -> SubscribeResult<'a> {
    let position = subscribed.position.as_ref().filter(|_| subscribed.positioned || subscribed.recoverable);
    let (recovered, offset) = match (&subscribed.recovery, position) {
        // The client advances by the publications that it is given (protocol.md section 7).
        (Some(Recovery::Recovered { from, .. }), _) => (true, *from),
        (_, Some(position)) => (false, position.offset),
        (_, None) => (false, 0),
    };
    SubscribeResult {
        recoverable: subscribed.recoverable && position.is_some(),
        positioned: position.is_some(),
        epoch: position.map_or("", |position| &position.epoch),
        offset,
        was_recovering: subscribed.recovery.is_some(),
        recovered,
        publications,
        data: subscribed.data.as_deref(),
        ..SubscribeResult::default()
    }
}

/// A history's result; `publications` are those of `found`.
pub fn history_result<'a>(found: &'a HistoryFound, publications: &'a [PublicationView<'a>]) -> HistoryResultView<'a> {
    HistoryResultView { publications, epoch: &found.position.epoch, offset: found.position.offset }
}
