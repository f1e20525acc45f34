//! What one turn of the loop brings for the connections, until it is sent at the turn's end.
//!
//! Batches are shared by a topic's subscribers; everything else (replies, pings, close frames) is
//! written into one buffer, of which each connection is given its ranges.

use std::rc::Rc;

use super::Batch;
use crate::config::SlowConsumerPolicy;

/// Bytes of batches that are kept for the next turns' use: as many of one publication each as a turn takes from a queue,
/// or a few long ones.
const SPARE_BYTES_MAX: usize = 256 * 1024;

/// The replies' buffer keeps no more memory than this from turn to turn.
const REPLIES_BYTES_KEPT_MAX: usize = 256 * 1024;

/// Why an open or spare batch may be changed.
const UNSHARED: &str = "outboxes refer to closed batches only";

/// In [`Piece::batch`]: the bytes are in [`Turn::replies`].
const REPLIES: u32 = u32::MAX;

/// In [`Piece::next`]: there is no further piece.
const END: u32 = u32::MAX;

/// A range of bytes for one connection.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    batch: u32,
    start: u32,
    end: u32,
    next: u32,
}

impl Piece {
    /// How many bytes.
    pub fn bytes(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Where they begin and end in their batch.
    pub fn range(&self) -> (u32, u32) {
        (self.start, self.end)
    }
}

/// A connection that is given something this turn.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// By slab index.
    pub connection: u32,
    first: u32,
    last: u32,
}

/// Everything that a turn brings.
#[derive(Debug, Default)]
pub struct Turn {
    /// Frames that are meant for one connection each, side by side.
    pub replies: Vec<u8>,
    batches: Vec<Rc<Batch>>,
    /// Bytes of all batches, open ones among them.
    batch_bytes: usize,
    open: Vec<Option<Rc<Batch>>>,
    /// Batches that nobody else refers to.
    spare: Vec<Rc<Batch>>,
    spare_bytes: usize,
    entries: Vec<Entry>,
    pieces: Vec<Piece>,
}

impl Turn {
    /// Opens a batch for a topic's publications: its index among the open ones.
    pub fn open_batch(&mut self, topic: u32, policy: SlowConsumerPolicy) -> u32 {
        self.open(topic, policy, false)
    }

    /// Opens a batch for the news of who comes and goes.
    pub fn open_news(&mut self, topic: u32, policy: SlowConsumerPolicy) -> u32 {
        self.open(topic, policy, true)
    }

    fn open(&mut self, topic: u32, policy: SlowConsumerPolicy, is_news: bool) -> u32 {
        let mut batch = self.spare.pop().inspect(|spare| self.spare_bytes -= spare.bytes_held()).unwrap_or_default();
        Rc::get_mut(&mut batch).expect(UNSHARED).reset(topic, policy, is_news);
        self.open.push(Some(batch));
        (self.open.len() - 1) as u32
    }

    /// An open batch.
    pub fn open_batch_mut(&mut self, index: u32) -> &mut Batch {
        let batch = self.open[index as usize].as_mut().expect("a topic forgets its batch when it is closed");
        Rc::get_mut(batch).expect(UNSHARED)
    }

    /// Whether an open batch is for the news of who comes and goes.
    pub fn is_news(&self, open: u32) -> bool {
        self.open[open as usize].as_ref().is_some_and(|batch| batch.is_news)
    }

    /// Marks the end of the frame that was just written to an open batch.
    pub fn end_frame(&mut self, open: u32) {
        let batch = self.open_batch_mut(open);
        let start = batch.ends.last().map_or(0, |end| *end as usize);
        batch.end_frame();
        let bytes = batch.bytes.len() - start;
        self.batch_bytes += bytes;
    }

    /// Bytes of everything that the turn has brought so far.
    pub fn bytes(&self) -> usize {
        self.batch_bytes + self.replies.len()
    }

    /// Batches that were opened this turn, closed ones among them.
    pub fn opened(&self) -> usize {
        self.open.len()
    }

    /// The topic of a batch that was opened, if it is open still.
    pub fn open_topic(&self, open: usize) -> Option<u32> {
        self.open[open].as_ref().map(|batch| batch.topic)
    }

    /// Closes a batch: its index among the closed ones, and its length in bytes.
    pub fn close_batch(&mut self, open: u32) -> (u32, u32) {
        let batch = self.open[open as usize].take().expect("a topic forgets its batch when it is closed");
        let bytes = batch.ends.last().copied().unwrap_or(0);
        self.batches.push(batch);
        ((self.batches.len() - 1) as u32, bytes)
    }

    /// A closed batch.
    pub fn batch(&self, index: u32) -> &Rc<Batch> {
        &self.batches[index as usize]
    }

    /// Gives a range of a closed batch to a connection. `entry`: what the connection remembers of this turn; see [`Turn::NO_ENTRY`].
    pub fn give(&mut self, connection: u32, entry: &mut u32, batch: u32, start: u32, end: u32) {
        if *entry != Self::NO_ENTRY {
            let next = self.pieces.len() as u32;
            let last = &mut self.entries[*entry as usize].last;
            let piece = &mut self.pieces[*last as usize];
            if piece.batch == batch && piece.end == start {
                piece.end = end;
                return;
            }
            piece.next = next;
            *last = next;
        } else {
            *entry = self.entries.len() as u32;
            let piece = self.pieces.len() as u32;
            self.entries.push(Entry { connection, first: piece, last: piece });
        }
        self.pieces.push(Piece { batch, start, end, next: END });
    }

    /// Gives everything in the replies' buffer from `start` on to a connection.
    pub fn give_replies(&mut self, connection: u32, entry: &mut u32, start: usize) {
        let end = self.replies.len();
        if end > start {
            let bound = |offset| u32::try_from(offset).expect("a turn brings less than 4 GiB");
            self.give(connection, entry, REPLIES, bound(start), bound(end));
        }
    }

    /// What a connection that was given nothing remembers.
    pub const NO_ENTRY: u32 = u32::MAX;

    /// The connections that were given something, in the order of the first gift.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What a connection was given, in order: shared bytes with their batch, others without.
    pub fn pieces(&self, entry: Entry) -> impl Iterator<Item = (Option<&Rc<Batch>>, Piece)> {
        let mut next = entry.first;
        std::iter::from_fn(move || {
            let piece = *self.pieces.get(next as usize)?;
            next = piece.next;
            Some(((piece.batch != REPLIES).then(|| &self.batches[piece.batch as usize]), piece))
        })
    }

    /// The bytes of a piece.
    pub fn piece_bytes(&self, piece: Piece) -> &[u8] {
        let source = if piece.batch == REPLIES { &self.replies } else { &self.batches[piece.batch as usize].bytes };
        &source[piece.start as usize..piece.end as usize]
    }

    /// The bytes for a connection if they lie side by side; none if they have to be gathered.
    pub fn contiguous(&self, entry: Entry) -> Option<&[u8]> {
        (entry.first == entry.last).then(|| self.piece_bytes(self.pieces[entry.first as usize]))
    }

    /// Ends the turn. Outboxes keep the batches that they refer to.
    pub fn clear(&mut self) {
        assert!(self.open.iter().all(Option::is_none), "every batch is handed out before the turn ends");
        self.open.clear();
        self.entries.clear();
        self.pieces.clear();
        self.batch_bytes = 0;
        self.replies.clear();
        self.replies.shrink_to(REPLIES_BYTES_KEPT_MAX);
        for batch in self.batches.drain(..) {
            let bytes = batch.bytes_held();
            if self.spare_bytes + bytes <= SPARE_BYTES_MAX && Rc::strong_count(&batch) == 1 {
                self.spare_bytes += bytes;
                self.spare.push(batch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(turn: &Turn, entry: Entry) -> String {
        let bytes: Vec<u8> = turn.pieces(entry).flat_map(|(_, piece)| turn.piece_bytes(piece).to_vec()).collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn gifts_arrive_in_order_and_neighbours_become_one() {
        let mut turn = Turn::default();
        let open = turn.open_batch(3, SlowConsumerPolicy::Disconnect);
        for frame in ["one", "two"] {
            turn.open_batch_mut(open).bytes.extend_from_slice(frame.as_bytes());
            turn.end_frame(open);
        }
        let (batch, bytes) = turn.close_batch(open);
        assert_eq!((bytes, turn.bytes()), (6, 6));
        let (mut left, mut right) = (Turn::NO_ENTRY, Turn::NO_ENTRY);
        turn.give(10, &mut left, batch, 0, 3);
        turn.give(11, &mut right, batch, 0, 6);
        turn.give(10, &mut left, batch, 3, 6);
        let start = turn.replies.len();
        turn.replies.extend_from_slice(b"reply");
        turn.give_replies(11, &mut right, start);
        turn.give_replies(11, &mut right, turn.replies.len());
        let [left, right] = *turn.entries() else { panic!("two connections were given something") };
        assert_eq!(turn.contiguous(left), Some(&b"onetwo"[..]));
        assert_eq!(turn.contiguous(right), None);
        assert_eq!(sent(&turn, right), "onetworeply");
        turn.clear();
        assert!(turn.entries().is_empty() && turn.replies.is_empty());
        assert_eq!(turn.spare.len(), 1, "nobody refers to the batch: its memory is used again");
    }

    #[test]
    #[should_panic(expected = "handed out")]
    fn a_turn_does_not_end_with_an_open_batch() {
        let mut turn = Turn::default();
        turn.open_batch(0, SlowConsumerPolicy::Disconnect);
        turn.clear();
    }
}
