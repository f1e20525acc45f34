//! The older part of a stream's history, compressed.
//!
//! Owns the form in which publications are kept once newer ones have come: blocks of consecutive publications, the
//! payloads of each block one frame of zstd, and of everything else as little as brings it back. A payload's own
//! predecessors are what it is most like, so a block of small ones shrinks to a fraction where each alone would hardly
//! shrink. It leaves to the stream when a block is made, and which of its publications are still history.
//!
//! Invariants:
//! - What comes out is what went in, in order; positions are arithmetic for the stream, so nothing may be skipped.
//! - A block is freed as a whole, with its last publication: of one that is forgotten its payload's part of the frame
//!   stays. The bytes that are told are those that are held.
//! - A block is decompressed once however many ask for it, as long as [`HISTORY_UNPACKED_BYTES_MAX`] bytes of others have
//!   not been asked for since.

use std::{collections::VecDeque, mem::size_of, ops::Range, sync::Arc};

use bytes::Bytes;
use zstd::zstd_safe::{CCtx, DCtx, compress_bound};

use super::stream::bytes_of;
use crate::{
    limits::{HISTORY_COMPRESSION_LEVEL, HISTORY_UNPACKED_BYTES_MAX},
    mesh::{ClientInfo, Publication},
    protocol::Tags,
};

/// The compressed publications of a stream, oldest first.
#[derive(Default)]
pub(super) struct Packed {
    blocks: VecDeque<Block>,
    publications: usize,
    /// Of the blocks, beside their places in the list.
    bytes: usize,
}

/// Consecutive publications.
struct Block {
    /// What it is known by on this shard.
    number: u64,
    /// Offset of the first publication that is in it.
    first_offset: u64,
    /// How many of them are no longer history.
    forgotten: usize,
    entries: Box<[Entry]>,
    /// All payloads, one behind the other.
    frame: Box<[u8]>,
    payload_bytes: usize,
}

/// A publication without its payload, and without what it shares with the others of its stream.
struct Entry {
    expires_ms: u64,
    payload_bytes: u32,
    is_json: bool,
    delta: bool,
    extras: Option<Box<Extras>>,
}

/// What few publications have.
struct Extras {
    info: Option<Box<ClientInfo>>,
    tags: Option<Tags>,
}

/// Compresses and decompresses for all streams of a shard.
#[derive(Default)]
pub(super) struct Packer {
    /// From the first block on.
    compressor: Option<CCtx<'static>>,
    decompressor: Option<DCtx<'static>>,
    payloads: Vec<u8>,
    blocks_so_far: u64,
    /// Blocks that were asked for last, with their bytes; the oldest question first.
    unpacked: VecDeque<Unpacked>,
    unpacked_bytes: usize,
    figures: PackerFigures,
}

struct Unpacked {
    number: u64,
    bytes: usize,
    publications: Vec<Arc<Publication>>,
}

/// Totals of a shard since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PackerFigures {
    /// Payload bytes that were compressed.
    pub payload_bytes: u64,
    /// What they became.
    pub frame_bytes: u64,
    /// Blocks that were decompressed.
    pub unpacked_blocks: u64,
}

impl Packed {
    pub(super) fn len(&self) -> usize {
        self.publications
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.blocks.capacity() * size_of::<Block>() + self.bytes
    }

    /// When the oldest publication expires.
    pub(super) fn oldest_expires_ms(&self) -> Option<u64> {
        self.blocks.front().map(|block| block.entries[block.forgotten].expires_ms)
    }

    /// When each publication expires.
    pub(super) fn expiries_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        self.blocks.iter_mut().flat_map(|block| &mut block.entries).map(|entry| &mut entry.expires_ms)
    }

    /// Makes a block of publications, each with the time at which it expires; at least one.
    pub(super) fn push<'a>(
        &mut self,
        publications: impl ExactSizeIterator<Item = (&'a Publication, u64)>,
        packer: &mut Packer,
    ) {
        let block = packer.pack(publications);
        self.publications += block.entries.len();
        self.bytes += block.bytes() + block.entries.iter().map(Entry::extra_bytes).sum::<usize>();
        self.blocks.push_back(block);
    }

    /// Forgets the oldest publication, if there is one.
    pub(super) fn forget_oldest(&mut self) {
        let Some(block) = self.blocks.front_mut() else { return };
        let oldest = &mut block.entries[block.forgotten];
        self.bytes -= oldest.extra_bytes();
        oldest.extras = None;
        block.forgotten += 1;
        self.publications -= 1;
        if block.forgotten == block.entries.len() {
            self.bytes -= block.bytes();
            self.blocks.pop_front();
            if self.blocks.capacity() > 4 && self.blocks.len() < self.blocks.capacity() / 4 {
                self.blocks.shrink_to(self.blocks.len() * 2);
            }
        }
    }

    /// What each publication of these offsets adds to a reply.
    pub(super) fn content_bytes(&self, offsets: Range<u64>) -> impl DoubleEndedIterator<Item = usize> + '_ {
        self.overlapping(offsets).flat_map(|(block, places)| block.entries[places].iter().map(Entry::content_bytes))
    }

    /// The publications of these offsets, decompressed; `like` is one of the same stream.
    pub(super) fn unpack(
        &self,
        offsets: Range<u64>,
        like: &Publication,
        packer: &mut Packer,
        publications: &mut Vec<Arc<Publication>>,
    ) {
        for (block, places) in self.overlapping(offsets) {
            publications.extend(packer.unpacked(block, like)[places].iter().map(Arc::clone));
        }
    }

    /// The blocks that hold these offsets, each with the places in it.
    fn overlapping(&self, offsets: Range<u64>) -> impl DoubleEndedIterator<Item = (&Block, Range<usize>)> {
        let first = self.blocks.partition_point(|block| block.end_offset() <= offsets.start);
        let end = self.blocks.partition_point(|block| block.first_offset < offsets.end).max(first);
        self.blocks.range(first..end).map(move |block| {
            let place =
                |offset: u64| (offset.clamp(block.first_offset, block.end_offset()) - block.first_offset) as usize;
            (block, place(offsets.start)..place(offsets.end))
        })
    }
}

impl Block {
    /// Offset behind the last publication.
    fn end_offset(&self) -> u64 {
        self.first_offset + self.entries.len() as u64
    }

    /// Bytes held, what belongs to single publications apart.
    fn bytes(&self) -> usize {
        self.frame.len() + self.entries.len() * size_of::<Entry>()
    }
}

impl Entry {
    fn new(publication: &Publication, expires_ms: u64) -> Self {
        let Publication { info, tags, .. } = publication;
        let has_extras = info.is_some() || tags.is_some();
        Self {
            expires_ms,
            payload_bytes: u32::try_from(publication.data.len()).expect("payloads are bounded far below 4 GiB"),
            is_json: publication.is_json,
            delta: publication.delta,
            extras: has_extras.then(|| Box::new(Extras { info: info.clone(), tags: tags.clone() })),
        }
    }

    fn content_bytes(&self) -> usize {
        self.payload_bytes as usize + self.extras.as_ref().map_or(0, |extras| extras.content_bytes())
    }

    fn extra_bytes(&self) -> usize {
        self.extras.as_ref().map_or(0, |extras| {
            let info = extras.info.as_ref().map_or(0, |_| size_of::<ClientInfo>());
            size_of::<Extras>() + info + extras.content_bytes()
        })
    }
}

impl Extras {
    fn content_bytes(&self) -> usize {
        let info = self.info.as_ref().map_or(0, |info| info.content_bytes());
        info + self.tags.as_ref().map_or(0, Tags::bytes)
    }
}

impl Packer {
    pub(super) fn figures(&self) -> PackerFigures {
        self.figures
    }

    /// Bytes held, those that the streams hold apart.
    pub(super) fn bytes(&self) -> usize {
        self.compressor.as_ref().map_or(0, CCtx::sizeof)
            + self.decompressor.as_ref().map_or(0, DCtx::sizeof)
            + self.payloads.capacity()
            + self.unpacked.capacity() * size_of::<Unpacked>()
            + self.unpacked_bytes
    }

    fn pack<'a>(&mut self, publications: impl ExactSizeIterator<Item = (&'a Publication, u64)>) -> Block {
        let mut first_offset = None;
        let mut entries = Vec::with_capacity(publications.len());
        for (publication, expires_ms) in publications {
            first_offset.get_or_insert(publication.offset);
            self.payloads.extend_from_slice(&publication.data);
            entries.push(Entry::new(publication, expires_ms));
        }
        let mut frame = Vec::with_capacity(compress_bound(self.payloads.len()));
        let compressor = self.compressor.get_or_insert_default();
        let result = compressor.compress(&mut frame, &self.payloads, HISTORY_COMPRESSION_LEVEL);
        result.expect("there is room for what cannot be compressed, too");
        let payload_bytes = self.payloads.len();
        self.payloads.clear();
        // One long payload must not keep its length in memory.
        self.payloads.shrink_to(HISTORY_UNPACKED_BYTES_MAX / 4);
        self.figures.payload_bytes += payload_bytes as u64;
        self.figures.frame_bytes += frame.len() as u64;
        self.blocks_so_far += 1;
        Block {
            number: self.blocks_so_far,
            first_offset: first_offset.expect("a block is not empty"),
            forgotten: 0,
            entries: entries.into(),
            // Into memory of its own length: the room was for the worst case.
            frame: frame.as_slice().into(),
            payload_bytes,
        }
    }

    /// All publications of a block, those that are forgotten too.
    fn unpacked(&mut self, block: &Block, like: &Publication) -> &[Arc<Publication>] {
        let known = self.unpacked.iter().position(|unpacked| unpacked.number == block.number);
        let place = known.unwrap_or_else(|| {
            let publications = self.unpack(block, like);
            let bytes = publications.iter().map(|publication| bytes_of(publication) + size_of::<usize>()).sum();
            self.unpacked_bytes += bytes;
            self.unpacked.push_back(Unpacked { number: block.number, bytes, publications });
            while self.unpacked_bytes > HISTORY_UNPACKED_BYTES_MAX && self.unpacked.len() > 1 {
                self.unpacked_bytes -= self.unpacked.pop_front().map_or(0, |oldest| oldest.bytes);
            }
            self.unpacked.len() - 1
        });
        &self.unpacked[place].publications
    }

    fn unpack(&mut self, block: &Block, like: &Publication) -> Vec<Arc<Publication>> {
        self.figures.unpacked_blocks += 1;
        self.payloads.reserve(block.payload_bytes);
        let decompressor = self.decompressor.get_or_insert_default();
        decompressor.decompress(&mut self.payloads, &block.frame).expect("it was compressed here");
        let mut rest = self.payloads.as_slice();
        let publications = block.entries.iter().zip(block.first_offset..).map(|(entry, offset)| {
            let (data, behind) = rest.split_at(entry.payload_bytes as usize);
            rest = behind;
            let (info, tags) =
                entry.extras.as_ref().map_or((None, None), |extras| (extras.info.clone(), extras.tags.clone()));
            Arc::new(Publication {
                channel: like.channel.clone(),
                data: Bytes::copy_from_slice(data),
                is_json: entry.is_json,
                offset,
                epoch: like.epoch.clone(),
                info,
                tags,
                delta: entry.delta,
            })
        });
        let publications = publications.collect();
        self.payloads.clear();
        self.payloads.shrink_to(HISTORY_UNPACKED_BYTES_MAX / 4);
        publications
    }
}
