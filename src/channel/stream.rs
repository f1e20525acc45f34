//! One channel's stream: its epoch, its numbering, and the last publications.
//!
//! Owns the rules of numbering, of recovery (protocol.md section 7) and of history (section 9).
//!
//! Invariants:
//! - The stored publications are the last ones without a gap: they end at the top and lose only
//!   their oldest. Whether something is missing is therefore arithmetic; were there a hole, a
//!   client would be told that it had recovered while it had not.
//! - An expired publication is never given away, whether or not it has been freed already.

use std::{collections::VecDeque, mem::size_of, sync::Arc};

use bytes::Bytes;

use crate::{
    config::{Namespace, RecoveryMode},
    limits::{HISTORY_REPLY_BYTES_MAX, HISTORY_REPLY_PUBLICATIONS_MAX, STREAM_POSITION_MS, STREAM_UNUSED_MS},
    mesh::{ChannelName, ClientInfo, Position, Publication, Publish, Version},
};

/// A stream. Its times are milliseconds of the clock that its caller passes on.
pub(super) struct Stream {
    channel: ChannelName,
    epoch: Arc<str>,
    /// Offset of the last publication.
    top: u64,
    history_size: usize,
    history_ttl_ms: u64,
    recovery: RecoveryMode,
    stored: VecDeque<Stored>,
    /// When the stream last had a use: a publication, a question, a subscriber.
    used_ms: u64,
    /// Of the stored publications.
    stored_bytes: usize,
    /// The last that a producer has named.
    version: Option<Box<Version>>,
}

struct Stored {
    publication: Arc<Publication>,
    expires_ms: u64,
}

impl Stream {
    /// Whether channels of this namespace have a stream at all.
    pub(super) fn is_kept(namespace: &Namespace) -> bool {
        namespace.history_size > 0 && namespace.history_ttl_ms > 0
    }

    pub(super) fn new(channel: ChannelName, epoch: Arc<str>, namespace: &Namespace, now_ms: u64) -> Self {
        assert!(Self::is_kept(namespace), "a channel without history has no stream");
        Self {
            channel,
            epoch,
            top: 0,
            history_size: namespace.history_size as usize,
            history_ttl_ms: u64::from(namespace.history_ttl_ms),
            recovery: namespace.force_recovery_mode,
            stored: VecDeque::new(),
            used_ms: now_ms,
            stored_bytes: 0,
            version: None,
        }
    }

    pub(super) fn channel(&self) -> &ChannelName {
        &self.channel
    }

    pub(super) fn position(&self) -> Position {
        Position { offset: self.top, epoch: Arc::clone(&self.epoch) }
    }

    /// Whether a version is not newer than the last.
    pub(super) fn has_seen(&self, version: &Version) -> bool {
        self.version.as_ref().is_some_and(|last| {
            (version.epoch.is_empty() || version.epoch == last.epoch) && version.number <= last.number
        })
    }

    /// Numbers and stores.
    pub(super) fn append(&mut self, publish: Publish, now_ms: u64) -> Arc<Publication> {
        self.top += 1;
        if publish.version.is_some() {
            self.version = publish.version;
        }
        let publication = Arc::new(Publication {
            channel: self.channel.clone(),
            // A payload is a slice of the producer's read buffer, all of which would live as long as this slice.
            data: Bytes::copy_from_slice(&publish.data),
            is_json: publish.is_json,
            offset: self.top,
            epoch: Some(Arc::clone(&self.epoch)),
            info: publish.info,
            tags: publish.tags,
            delta: publish.delta,
        });
        if self.stored.len() == self.history_size {
            self.forget_oldest();
        }
        self.stored_bytes += bytes_of(&publication);
        self.stored.push_back(Stored {
            publication: Arc::clone(&publication),
            expires_ms: now_ms.saturating_add(self.history_ttl_ms),
        });
        publication
    }

    /// What brings a client that stands at `from` up to date; none: it cannot be had.
    pub(super) fn recover(&self, from: &Position) -> Option<Vec<Arc<Publication>>> {
        match self.recovery {
            RecoveryMode::Stream => self.recover_all(from),
            RecoveryMode::Cache => self.recover_latest(from),
        }
    }

    /// The latest publication, unless the client has it.
    fn recover_latest(&self, from: &Position) -> Option<Vec<Arc<Publication>>> {
        // An epoch that the client does not name proves nothing here.
        if self.top > 0 && from.offset == self.top && from.epoch == self.epoch {
            return Some(Vec::new());
        }
        self.stored.back().map(|latest| vec![Arc::clone(&latest.publication)])
    }

    /// All that came after `from`; none if something of it is missing, or too much to send at once.
    fn recover_all(&self, from: &Position) -> Option<Vec<Arc<Publication>>> {
        let missed = self.top.checked_sub(from.offset)?;
        let is_whole = self.is_of_this_stream(from) && missed <= self.stored.len() as u64;
        if !is_whole || missed > HISTORY_REPLY_PUBLICATIONS_MAX as u64 {
            return None;
        }
        let publications = within_bytes(self.publications(self.stored.len() - missed as usize..self.stored.len()));
        (publications.len() as u64 == missed).then_some(publications)
    }

    /// The answer to a question for history; none if the position that it names is gone.
    ///
    /// Backwards the end of what is stored is the end of the answer, since nothing between the
    /// position and the answer is missing.
    pub(super) fn history(&self, limit: i32, since: Option<&Position>, reverse: bool) -> Option<Vec<Arc<Publication>>> {
        if since.is_some_and(|since| !self.is_of_this_stream(since)) {
            return None;
        }
        let limit = usize::try_from(limit)
            .map_or(HISTORY_REPLY_PUBLICATIONS_MAX, |limit| limit.min(HISTORY_REPLY_PUBLICATIONS_MAX));
        if limit == 0 {
            return Some(Vec::new());
        }
        let count = self.stored.len();
        // Offset of the publication before the first stored one.
        let before_first = self.top - count as u64;
        if reverse {
            let end = since.map_or(count, |since| {
                usize::try_from(since.offset.saturating_sub(before_first + 1)).unwrap_or(count).min(count)
            });
            return Some(within_bytes(self.publications(end.saturating_sub(limit)..end).rev()));
        }
        let start = match since {
            None => 0,
            Some(since) if since.offset >= self.top => count,
            Some(since) => usize::try_from(since.offset.checked_sub(before_first)?).unwrap_or(count),
        };
        Some(within_bytes(self.publications(start..count.min(start.saturating_add(limit)))))
    }

    /// Forgets at most `budget` expired publications; how many it was.
    pub(super) fn expire(&mut self, now_ms: u64, budget: usize) -> usize {
        let mut forgotten = 0;
        while forgotten < budget && self.stored.front().is_some_and(|oldest| oldest.expires_ms <= now_ms) {
            self.forget_oldest();
            forgotten += 1;
        }
        self.shrink();
        forgotten
    }

    /// Forgets the oldest publication before its time; whether there was one.
    pub(super) fn evict_oldest(&mut self) -> bool {
        let is_some = !self.stored.is_empty();
        self.forget_oldest();
        self.shrink();
        is_some
    }

    /// The stream has a use now.
    pub(super) fn touch(&mut self, now_ms: u64) {
        self.used_ms = now_ms;
    }

    /// When something of the stream, or all of it, may be freed; none: not before something happens to it.
    pub(super) fn next_due_ms(&self, has_subscribers: bool) -> Option<u64> {
        match self.stored.front() {
            Some(oldest) => Some(oldest.expires_ms),
            None if has_subscribers => None,
            None if self.top == 0 => Some(self.used_ms.saturating_add(STREAM_UNUSED_MS)),
            None => Some(self.used_ms.saturating_add(STREAM_POSITION_MS)),
        }
    }

    /// Whether it is time to free all of it.
    pub(super) fn is_over(&self, has_subscribers: bool, now_ms: u64) -> bool {
        self.stored.is_empty() && self.next_due_ms(has_subscribers).is_some_and(|due_ms| due_ms <= now_ms)
    }

    /// Bytes held, the name among them.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + ARC_BYTES
            + self.channel.name.len()
            + ARC_BYTES
            + self.epoch.len()
            + self.stored.capacity() * size_of::<Stored>()
            + self.stored_bytes
            + self.version.as_ref().map_or(0, |version| size_of::<Version>() + version.epoch.len())
    }

    fn is_of_this_stream(&self, position: &Position) -> bool {
        position.epoch.is_empty() || position.epoch == self.epoch
    }

    fn publications(&self, range: std::ops::Range<usize>) -> impl DoubleEndedIterator<Item = Arc<Publication>> + '_ {
        self.stored.range(range).map(|stored| Arc::clone(&stored.publication))
    }

    fn shrink(&mut self) {
        if self.stored.capacity() > 4 && self.stored.len() < self.stored.capacity() / 4 {
            self.stored.shrink_to(self.stored.len() * 2);
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.stored.pop_front() {
            self.stored_bytes -= bytes_of(&oldest.publication);
        }
    }
}

/// The first publications, as many as a reply may carry; one always.
fn within_bytes(publications: impl Iterator<Item = Arc<Publication>>) -> Vec<Arc<Publication>> {
    let mut bytes = 0;
    let fitting = publications.enumerate().take_while(|(position, publication)| {
        bytes += publication.content_bytes();
        *position == 0 || bytes <= HISTORY_REPLY_BYTES_MAX
    });
    fitting.map(|(_, publication)| publication).collect()
}

/// The two counters before the value in an `Arc`.
const ARC_BYTES: usize = 2 * size_of::<usize>();

fn bytes_of(publication: &Publication) -> usize {
    let info = publication.info.as_ref().map_or(0, |_| size_of::<ClientInfo>());
    ARC_BYTES + size_of::<Publication>() + info + publication.content_bytes()
}
