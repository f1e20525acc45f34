//! Messages as publications travel: a pointer each.

use std::sync::Arc;

use bytes::Bytes;

use super::publication::{CHANNEL, PUBLICATION};
use tidegate::mesh::{ChannelHasher, Origin, Publication, ToShard};

/// A publication on its way to a shard with subscribers.
pub fn publication() -> Arc<Publication> {
    Arc::new(Publication {
        channel: ChannelHasher::with_key([7; 16]).name(CHANNEL),
        data: Bytes::from_static(PUBLICATION.data),
        is_json: true,
        offset: 0,
        epoch: None,
        info: None,
        tags: None,
        delta: false,
    })
}

/// The message that carries it.
pub fn deliver(publication: &Arc<Publication>) -> ToShard {
    ToShard::Deliver { publication: Arc::clone(publication), origin: Origin::default() }
}
