//! One channel's stream: its epoch, its numbering, and the last publications.
//!
//! Owns the rules of numbering, of recovery (protocol.md section 7) and of history (section 9).
//!
//! Invariants:
//! - The stored publications are the last ones without a gap: they end at the top and lose only
//!   their oldest. Whether something is missing is therefore arithmetic; were there a hole, a
//!   client would be told that it had recovered while it had not.
//! - An expired publication is never given away, whether or not it has been freed already.
//! - The newest publication is never compressed: it is what is asked for most, and whoever has recovered it must be seen
//!   to have the very payload that deltas are made to.

use std::{collections::VecDeque, mem::size_of, ops::Range, sync::Arc};

use bytes::Bytes;

use super::block::{Packed, Packer};
use crate::{
    config::{Namespace, RecoveryMode},
    limits::{HISTORY_REPLY_BYTES_MAX, HISTORY_REPLY_PUBLICATIONS_MAX, STREAM_POSITION_MS, STREAM_UNUSED_MS},
    mesh::{ChannelName, ClientInfo, History, Position, Publication, Publish, Version},
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
    /// Payload bytes from which on all but the newest publication are compressed; 0: never.
    compression_bytes_min: usize,
    /// The oldest publications, if any are compressed.
    packed: Option<Box<Packed>>,
    /// The others.
    stored: VecDeque<Stored>,
    /// Payloads of the others.
    stored_payload_bytes: usize,
    /// When the stream last had a use: a publication, a question, a subscriber.
    used_ms: u64,
    /// All of the others.
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
            compression_bytes_min: namespace.history_compression_bytes_min as usize,
            packed: None,
            stored: VecDeque::new(),
            stored_payload_bytes: 0,
            used_ms: now_ms,
            stored_bytes: 0,
            version: None,
        }
    }

    /// Goes on under these rules, which keep history. What is beyond them is forgotten; what stays, stays for as long as
    /// if it had been published under them.
    pub(super) fn follow(&mut self, namespace: &Namespace) {
        self.recovery = namespace.force_recovery_mode;
        let (before_ms, ttl_ms) = (self.history_ttl_ms, u64::from(namespace.history_ttl_ms));
        if before_ms != ttl_ms {
            self.history_ttl_ms = ttl_ms;
            let stored = self.stored.iter_mut().map(|stored| &mut stored.expires_ms);
            let packed = self.packed.iter_mut().flat_map(|packed| packed.expiries_mut());
            packed.chain(stored).for_each(|at_ms| *at_ms = at_ms.saturating_sub(before_ms).saturating_add(ttl_ms));
        }
        self.compression_bytes_min = namespace.history_compression_bytes_min as usize;
        self.history_size = namespace.history_size as usize;
        while self.len() > self.history_size {
            self.forget_oldest();
        }
        self.shrink();
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

    /// Numbers and stores; what was stored before may be compressed.
    pub(super) fn append(&mut self, publish: Publish, now_ms: u64, packer: Option<&mut Packer>) -> Arc<Publication> {
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
        if self.len() == self.history_size {
            self.forget_oldest();
        }
        if let Some(packer) = packer.filter(|_| self.is_compressible()) {
            self.pack(packer);
        }
        self.stored_payload_bytes += publication.data.len();
        self.stored_bytes += bytes_of(&publication);
        self.stored.push_back(Stored {
            publication: Arc::clone(&publication),
            expires_ms: now_ms.saturating_add(self.history_ttl_ms),
        });
        publication
    }

    fn is_compressible(&self) -> bool {
        self.compression_bytes_min > 0 && self.stored_payload_bytes >= self.compression_bytes_min
    }

    /// Compresses all that is stored: a newer publication is about to be.
    fn pack(&mut self, packer: &mut Packer) {
        let publications = self.stored.iter().map(|stored| (&*stored.publication, stored.expires_ms));
        self.packed.get_or_insert_default().push(publications, packer);
        self.stored.clear();
        (self.stored_payload_bytes, self.stored_bytes) = (0, 0);
    }

    /// What brings a client that stands at `from` up to date; none: it cannot be had.
    pub(super) fn recover(&self, from: &Position, packer: Option<&mut Packer>) -> Option<Vec<Arc<Publication>>> {
        match self.recovery {
            RecoveryMode::Stream => self.recover_all(from, packer),
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
    fn recover_all(&self, from: &Position, packer: Option<&mut Packer>) -> Option<Vec<Arc<Publication>>> {
        let missed = self.top.checked_sub(from.offset)?;
        let is_whole = self.is_of_this_stream(from) && missed <= self.len() as u64;
        if !is_whole || missed > HISTORY_REPLY_PUBLICATIONS_MAX as u64 {
            return None;
        }
        let range = self.len() - missed as usize..self.len();
        let fits = fitting(self.content_bytes(range.clone())) as u64 == missed;
        fits.then(|| self.publications(range, packer))
    }

    /// The answer to a question for history; none if the position that it names is gone.
    ///
    /// Backwards the end of what is stored is the end of the answer, since nothing between the
    /// position and the answer is missing.
    pub(super) fn history(&self, question: &History, packer: Option<&mut Packer>) -> Option<Vec<Arc<Publication>>> {
        let History { limit, limit_max, ref since, reverse, .. } = *question;
        let since = since.as_ref();
        if since.is_some_and(|since| !self.is_of_this_stream(since)) {
            return None;
        }
        let limit = usize::try_from(limit).map_or(limit_max, |limit| limit.min(limit_max));
        if limit == 0 {
            return Some(Vec::new());
        }
        let (count, before_first) = (self.len(), self.before_first());
        if reverse {
            let end = since.map_or(count, |since| {
                usize::try_from(since.offset.saturating_sub(before_first + 1)).unwrap_or(count).min(count)
            });
            let fitting = fitting(self.content_bytes(end.saturating_sub(limit)..end).rev());
            let mut publications = self.publications(end - fitting..end, packer);
            publications.reverse();
            return Some(publications);
        }
        let start = match since {
            None => 0,
            Some(since) if since.offset >= self.top => count,
            Some(since) => usize::try_from(since.offset.checked_sub(before_first)?).unwrap_or(count),
        };
        let fitting = fitting(self.content_bytes(start..count.min(start.saturating_add(limit))));
        Some(self.publications(start..start + fitting, packer))
    }

    /// Forgets at most `budget` expired publications; how many it was.
    pub(super) fn expire(&mut self, now_ms: u64, budget: usize) -> usize {
        let mut forgotten = 0;
        while forgotten < budget && self.oldest_expires_ms().is_some_and(|expires_ms| expires_ms <= now_ms) {
            self.forget_oldest();
            forgotten += 1;
        }
        self.shrink();
        forgotten
    }

    /// Forgets the oldest publication before its time; whether there was one.
    pub(super) fn evict_oldest(&mut self) -> bool {
        let is_some = self.len() > 0;
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
        match self.oldest_expires_ms() {
            Some(expires_ms) => Some(expires_ms),
            None if has_subscribers => None,
            None if self.top == 0 => Some(self.used_ms.saturating_add(STREAM_UNUSED_MS)),
            None => Some(self.used_ms.saturating_add(STREAM_POSITION_MS)),
        }
    }

    /// Whether it is time to free all of it.
    pub(super) fn is_over(&self, has_subscribers: bool, now_ms: u64) -> bool {
        self.len() == 0 && self.next_due_ms(has_subscribers).is_some_and(|due_ms| due_ms <= now_ms)
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
            + self.packed.as_ref().map_or(0, |packed| packed.bytes())
            + self.version.as_ref().map_or(0, |version| size_of::<Version>() + version.epoch.len())
    }

    fn is_of_this_stream(&self, position: &Position) -> bool {
        position.epoch.is_empty() || position.epoch == self.epoch
    }

    /// Publications in history.
    fn len(&self) -> usize {
        self.packed_len() + self.stored.len()
    }

    fn packed_len(&self) -> usize {
        self.packed.as_ref().map_or(0, |packed| packed.len())
    }

    /// Offset of the publication before the first in history.
    fn before_first(&self) -> u64 {
        self.top - self.len() as u64
    }

    fn oldest_expires_ms(&self) -> Option<u64> {
        let packed = self.packed.as_ref().and_then(|packed| packed.oldest_expires_ms());
        packed.or_else(|| self.stored.front().map(|oldest| oldest.expires_ms))
    }

    /// A range of history, as offsets of compressed publications and places of others.
    fn split(&self, range: Range<usize>) -> (Range<u64>, Range<usize>) {
        let (packed, first) = (self.packed_len(), self.before_first() + 1);
        let offset = |place: usize| first + place.min(packed) as u64;
        let stored = range.start.saturating_sub(packed)..range.end.saturating_sub(packed);
        (offset(range.start)..offset(range.end), stored)
    }

    /// What each publication of the range adds to a reply.
    fn content_bytes(&self, range: Range<usize>) -> impl DoubleEndedIterator<Item = usize> + '_ {
        let (offsets, stored) = self.split(range);
        let packed = self.packed.iter().flat_map(move |packed| packed.content_bytes(offsets.clone()));
        packed.chain(self.stored.range(stored).map(|stored| stored.publication.content_bytes()))
    }

    fn publications(&self, range: Range<usize>, packer: Option<&mut Packer>) -> Vec<Arc<Publication>> {
        let mut publications = Vec::with_capacity(range.len());
        let (offsets, stored) = self.split(range);
        if let Some(packed) = self.packed.as_ref().filter(|_| !offsets.is_empty()) {
            let newest = self.stored.back().expect("the newest publication is never compressed");
            let packer = packer.expect("where something is compressed, there is what compressed it");
            packed.unpack(offsets, &newest.publication, packer, &mut publications);
        }
        publications.extend(self.stored.range(stored).map(|stored| Arc::clone(&stored.publication)));
        publications
    }

    fn shrink(&mut self) {
        if self.stored.capacity() > 4 && self.stored.len() < self.stored.capacity() / 4 {
            self.stored.shrink_to(self.stored.len() * 2);
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(packed) = &mut self.packed {
            packed.forget_oldest();
            if packed.len() == 0 {
                self.packed = None;
            }
        } else if let Some(oldest) = self.stored.pop_front() {
            self.stored_payload_bytes -= oldest.publication.data.len();
            self.stored_bytes -= bytes_of(&oldest.publication);
        }
    }
}

/// How many of the first publications, by what each adds, a reply may carry; one always.
fn fitting(content_bytes: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let fits = |(position, content_bytes): &(usize, usize)| {
        bytes += content_bytes;
        *position == 0 || bytes <= HISTORY_REPLY_BYTES_MAX
    };
    content_bytes.enumerate().take_while(fits).count()
}

/// The two counters before the value in an `Arc`.
const ARC_BYTES: usize = 2 * size_of::<usize>();

/// What a publication takes.
pub(super) fn bytes_of(publication: &Publication) -> usize {
    let info = publication.info.as_ref().map_or(0, |_| size_of::<ClientInfo>());
    ARC_BYTES + size_of::<Publication>() + info + publication.content_bytes()
}
