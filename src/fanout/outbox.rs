//! What a connection that cannot keep up still has to be sent.
//!
//! Owns the order of what waits and the slow-consumer policies. Which connection has an outbox, and
//! when it is written, is the shard's business.
//!
//! Invariants:
//! - Of patches to each other none is dropped without those behind it; whole payloads follow, by which the client goes
//!   on. Its SDK could not make sense of a patch to what it has not got.
//! - What the server pushes and what a client has asked for have room of their own. Were they
//!   counted together, a reply that brings what a client missed could leave no room for the next
//!   publication, and the client, closed as slow, would come back to ask for the same reply.

use std::{collections::VecDeque, rc::Rc};

use super::Batch;
use crate::{config::SlowConsumerPolicy, limits::OUTBOX_REPLY_BYTES_MAX};

/// Waiting bytes, in order. Exists only while something waits.
#[derive(Debug, Default)]
pub struct Outbox {
    items: VecDeque<Item>,
    bytes: usize,
    /// Those of [`Item::Own`].
    own_bytes: usize,
    /// The first item's first frame has begun to go out.
    is_first_begun: bool,
}

#[derive(Debug)]
enum Item {
    /// Frames of a topic; dropped by its policy.
    Shared { batch: Rc<Batch>, start: u32, end: u32 },
    /// Replies and the like; never dropped.
    Own { bytes: Box<[u8]>, start: usize },
}

/// What an outbox without room means for its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The connection is too slow: close code 3008.
    Disconnect,
    /// Everything of this topic was dropped: unsubscribe with 2500, so that the client recovers.
    Resync(u32),
}

impl Outbox {
    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of replies that wait.
    pub fn own_bytes(&self) -> usize {
        self.own_bytes
    }

    /// Appends replies. They are never dropped, and may take [`OUTBOX_REPLY_BYTES_MAX`].
    pub fn push_own(&mut self, bytes: &[u8]) -> Result<(), Overflow> {
        self.bytes += bytes.len();
        self.own_bytes += bytes.len();
        self.items.push_back(Item::Own { bytes: bytes.into(), start: 0 });
        if self.own_bytes > OUTBOX_REPLY_BYTES_MAX { Err(Overflow::Disconnect) } else { Ok(()) }
    }

    /// Appends frames of a topic and lets its policy act. `dropped` counts the frames that will not be sent. `bytes_max`:
    /// what frames of topics may take.
    pub fn push_shared(
        &mut self,
        batch: &Rc<Batch>,
        start: u32,
        end: u32,
        bytes_max: usize,
        dropped: &mut u64,
    ) -> Result<(), Overflow> {
        let mut start = start;
        // News of who comes and goes takes no publication's place, nor a publication theirs.
        if batch.policy == SlowConsumerPolicy::Latest && !batch.is_news {
            *dropped += self.drop_publications(batch.topic);
            let last = batch.last_frame_start(end).max(start);
            *dropped += batch.frames(start, last) as u64;
            start = last;
        }
        self.bytes += (end - start) as usize;
        self.items.push_back(Item::Shared { batch: Rc::clone(batch), start, end });
        if self.shared_bytes() <= bytes_max {
            return Ok(());
        }
        match batch.policy {
            SlowConsumerPolicy::Disconnect => Err(Overflow::Disconnect),
            SlowConsumerPolicy::Latest | SlowConsumerPolicy::DropOldest => {
                *dropped += self.drop_oldest(bytes_max);
                if self.shared_bytes() > bytes_max { Err(Overflow::Disconnect) } else { Ok(()) }
            }
            SlowConsumerPolicy::Resync => {
                *dropped += self.drop_topic(batch.topic);
                let is_enough = self.shared_bytes() <= bytes_max;
                Err(if is_enough { Overflow::Resync(batch.topic) } else { Overflow::Disconnect })
            }
        }
    }

    fn shared_bytes(&self) -> usize {
        self.bytes - self.own_bytes
    }

    /// The rest of a piece whose first bytes were sent: `start` may lie within a frame.
    pub fn push_rest(&mut self, batch: Option<&Rc<Batch>>, start: u32, end: u32, bytes: &[u8], is_begun: bool) {
        self.is_first_begun |= is_begun && self.items.is_empty();
        self.bytes += bytes.len();
        self.items.push_back(match batch {
            Some(batch) => Item::Shared { batch: Rc::clone(batch), start, end },
            None => {
                self.own_bytes += bytes.len();
                Item::Own { bytes: bytes.into(), start: 0 }
            }
        });
    }

    /// Appends all of another outbox, none of which has begun to go out.
    pub fn append(&mut self, mut other: Outbox) {
        assert!(!other.is_first_begun, "only the first frame of all can have begun");
        self.bytes += other.bytes;
        self.own_bytes += other.own_bytes;
        self.items.append(&mut other.items);
    }

    /// Pieces that wait, in the order in which they were appended.
    pub fn items(&self) -> usize {
        self.items.len()
    }

    /// Takes away all but the first `items`, none of which has begun to go out.
    pub fn split_off(&mut self, items: usize) -> Self {
        assert!(items > 0 || !self.is_first_begun, "what has begun to go out stays");
        let items = self.items.split_off(items);
        let bytes = items.iter().map(|item| item.bytes().len()).sum();
        let own_bytes = items.iter().map(Item::own_bytes).sum();
        self.bytes -= bytes;
        self.own_bytes -= own_bytes;
        Self { items, bytes, own_bytes, is_first_begun: false }
    }

    /// Copies what comes first, at most `bytes_max` bytes.
    pub fn peek(&self, out: &mut Vec<u8>, bytes_max: usize) {
        let limit = out.len() + bytes_max;
        for item in &self.items {
            let room = limit - out.len();
            if room == 0 {
                return;
            }
            let bytes = item.bytes();
            out.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// The first `bytes` bytes were sent.
    pub fn advance(&mut self, mut bytes: usize) {
        assert!(bytes <= self.bytes, "only what waits is sent");
        self.bytes -= bytes;
        while bytes > 0 {
            let item = self.items.front_mut().expect("bytes are counted by item");
            let length = item.bytes().len();
            self.own_bytes -= item.own_bytes().min(bytes);
            if bytes >= length {
                bytes -= length;
                self.items.pop_front();
                self.is_first_begun = false;
                continue;
            }
            match item {
                Item::Shared { batch, start, .. } => {
                    *start += bytes as u32;
                    self.is_first_begun = batch.frame_end(*start) != *start;
                }
                Item::Own { start, .. } => {
                    *start += bytes;
                    self.is_first_begun = true;
                }
            }
            return;
        }
    }

    /// Drops everything but a frame that has begun to go out, and answers to HTTP requests: what comes behind an answer
    /// that its client was never sent would mean nothing to it. How many frames of topics were dropped.
    pub fn clear(&mut self) -> u64 {
        self.retain(Item::is_http_answer)
    }

    /// Drops a topic's frames, but for one that has begun to go out. How many.
    pub fn drop_topic(&mut self, topic: u32) -> u64 {
        self.retain(|item| !matches!(item, Item::Shared { batch, .. } if batch.topic == topic))
    }

    /// Drops a topic's patches to each other, but for one that has begun to go out.
    fn drop_chain(&mut self, topic: u32) -> u64 {
        self.retain(|item| !matches!(item, Item::Shared { batch, .. } if batch.topic == topic && batch.is_chain))
    }

    fn drop_publications(&mut self, topic: u32) -> u64 {
        self.retain(|item| !matches!(item, Item::Shared { batch, .. } if batch.topic == topic && !batch.is_news))
    }

    /// Keeps what `keep` wants, and of the first item the frame that has begun, if it has.
    fn retain(&mut self, keep: impl Fn(&Item) -> bool) -> u64 {
        let mut dropped = 0;
        let mut begun = std::mem::take(&mut self.is_first_begun);
        let was_begun = begun;
        let (mut bytes, mut own_bytes) = (0, 0);
        self.items.retain_mut(|item| {
            let is_begun = std::mem::take(&mut begun);
            if !keep(item) {
                match item {
                    Item::Shared { batch, start, end } => {
                        let frame_end = if is_begun { batch.frame_end(*start).min(*end) } else { *start };
                        dropped += batch.frames(frame_end, *end) as u64;
                        *end = frame_end;
                        if !is_begun {
                            return false;
                        }
                    }
                    Item::Own { .. } if !is_begun => return false,
                    // Frames within are not told apart; a begun one goes out with its neighbours.
                    Item::Own { .. } => {}
                }
            }
            bytes += item.bytes().len();
            own_bytes += item.own_bytes();
            true
        });
        self.bytes = bytes;
        self.own_bytes = own_bytes;
        self.is_first_begun = was_begun;
        dropped
    }

    /// Drops frames of topics whose policy allows it, oldest first, until `bytes_max` of them are kept.
    fn drop_oldest(&mut self, bytes_max: usize) -> u64 {
        let mut dropped = 0;
        let mut begun = self.is_first_begun;
        let mut excess = self.shared_bytes().saturating_sub(bytes_max);
        let mut index = 0;
        while excess > 0 && index < self.items.len() {
            let is_begun = std::mem::take(&mut begun);
            let Item::Shared { batch, start, end } = &mut self.items[index] else {
                index += 1;
                continue;
            };
            let from = if is_begun { batch.frame_end(*start) } else { *start };
            if batch.is_chain && batch.policy == SlowConsumerPolicy::DropOldest && from < *end {
                let (topic, bytes_before) = (batch.topic, self.bytes);
                dropped += self.drop_chain(topic);
                excess = excess.saturating_sub(bytes_before - self.bytes);
                (begun, index) = (self.is_first_begun, 0);
                continue;
            }
            let may_go_until = match batch.policy {
                SlowConsumerPolicy::DropOldest => *end,
                SlowConsumerPolicy::Latest if batch.is_news => *end,
                SlowConsumerPolicy::Latest if batch.is_chain => from,
                // Nothing may come after it, and its subscriber would hold an old value for the present one.
                SlowConsumerPolicy::Latest => batch.last_frame_start(*end).max(from),
                SlowConsumerPolicy::Disconnect | SlowConsumerPolicy::Resync => from,
            };
            if may_go_until <= from {
                index += 1;
                continue;
            }
            let mut to = from;
            while to < may_go_until && ((to - from) as usize) < excess {
                to = batch.frame_end(to + 1);
            }
            dropped += batch.frames(from, to) as u64;
            excess = excess.saturating_sub((to - from) as usize);
            self.bytes -= (to - from) as usize;
            if is_begun {
                // The frame that has begun stays in front; what is kept behind it becomes an item of its own.
                let rest = (to < *end).then(|| Item::Shared { batch: Rc::clone(batch), start: to, end: *end });
                *end = from;
                index += 1;
                if let Some(rest) = rest {
                    self.items.insert(index, rest);
                }
            } else if to < *end {
                *start = to;
                index += 1;
            } else {
                self.items.remove(index);
            }
        }
        dropped
    }
}

impl Item {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared { batch, start, end } => &batch.bytes[*start as usize..*end as usize],
            Self::Own { bytes, start } => &bytes[*start..],
        }
    }

    /// Whether it begins with the head of an answer to an HTTP request. No frame and no chunk begins so.
    fn is_http_answer(&self) -> bool {
        matches!(self, Self::Own { bytes, start: 0 } if bytes.starts_with(b"HTTP/"))
    }

    fn own_bytes(&self) -> usize {
        match self {
            Self::Shared { .. } => 0,
            Self::Own { bytes, start } => bytes.len() - start,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 20;

    fn batch(topic: u32, policy: SlowConsumerPolicy, frames: &[&str]) -> Rc<Batch> {
        let mut batch = Batch { topic, policy, ..Batch::default() };
        for frame in frames {
            batch.bytes.extend_from_slice(frame.as_bytes());
            batch.end_frame();
        }
        Rc::new(batch)
    }

    fn push(outbox: &mut Outbox, batch: &Rc<Batch>, dropped: &mut u64) -> Result<(), Overflow> {
        outbox.push_shared(batch, 0, batch.bytes.len() as u32, BYTES_MAX, dropped)
    }

    fn text(outbox: &Outbox) -> String {
        let mut out = Vec::new();
        outbox.peek(&mut out, usize::MAX / 2);
        assert_eq!(out.len(), outbox.bytes(), "bytes are counted as they are kept");
        assert_eq!(outbox.own_bytes(), outbox.items.iter().map(Item::own_bytes).sum::<usize>());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn without_room_the_default_is_to_disconnect() {
        let (mut outbox, mut dropped) = (Outbox::default(), 0);
        let frames = batch(1, SlowConsumerPolicy::Disconnect, &["0123456789"]);
        assert_eq!(push(&mut outbox, &frames, &mut dropped), Ok(()));
        assert_eq!(push(&mut outbox, &frames, &mut dropped), Ok(()));
        assert_eq!(push(&mut outbox, &frames, &mut dropped), Err(Overflow::Disconnect));
        assert_eq!(dropped, 0);
    }

    #[test]
    fn replies_have_room_of_their_own() {
        let (mut outbox, mut dropped) = (Outbox::default(), 0);
        assert_eq!(outbox.push_own(&[b'r'; 100 * BYTES_MAX]), Ok(()));
        let frames = batch(1, SlowConsumerPolicy::Disconnect, &["0123456789"]);
        assert_eq!(push(&mut outbox, &frames, &mut dropped), Ok(()), "a long reply makes nobody slow");
        outbox.advance(50 * BYTES_MAX);
        assert_eq!((outbox.own_bytes(), outbox.bytes()), (50 * BYTES_MAX, 50 * BYTES_MAX + 10));
        assert_eq!(push(&mut outbox, &frames, &mut dropped), Ok(()));
        assert_eq!(push(&mut outbox, &frames, &mut dropped), Err(Overflow::Disconnect));
        let last = outbox.split_off(2);
        assert_eq!((last.own_bytes(), outbox.own_bytes()), (0, 50 * BYTES_MAX));
        outbox.advance(50 * BYTES_MAX + 3);
        assert_eq!((outbox.own_bytes(), outbox.bytes()), (0, 7));
        assert_eq!(outbox.push_own(&vec![b'r'; OUTBOX_REPLY_BYTES_MAX]), Ok(()));
        assert_eq!(outbox.push_own(b"r"), Err(Overflow::Disconnect), "asked for more than it reads");
    }

    #[test]
    fn the_oldest_frames_go_first_but_replies_and_begun_frames_stay() {
        let (mut outbox, mut dropped) = (Outbox::default(), 0);
        let policy = SlowConsumerPolicy::DropOldest;
        let push = |outbox: &mut Outbox, batch: &Rc<Batch>, dropped: &mut u64| {
            outbox.push_shared(batch, 0, batch.bytes.len() as u32, 18, dropped)
        };
        push(&mut outbox, &batch(1, policy, &["aaaa", "bbbb", "cccc"]), &mut dropped).unwrap();
        outbox.push_own(b"RR").unwrap();
        outbox.advance(1);
        push(&mut outbox, &batch(1, policy, &["dddd", "eeee"]), &mut dropped).unwrap();
        assert_eq!(text(&outbox), "aaaccccRRddddeeee");
        assert_eq!(dropped, 1);
        push(&mut outbox, &batch(2, policy, &["ffff", "gggg"]), &mut dropped).unwrap();
        assert_eq!(text(&outbox), "aaaRReeeeffffgggg");
        assert_eq!(dropped, 3);
        let kept = batch(3, SlowConsumerPolicy::Disconnect, &["0123456789012345"]);
        assert_eq!(push(&mut outbox, &kept, &mut dropped), Err(Overflow::Disconnect));
    }

    #[test]
    fn what_is_dropped_at_the_end_leaves_answers_to_requests() {
        let (mut outbox, mut dropped) = (Outbox::default(), 0);
        outbox.push_own(b"HTTP/1.1 101 ...").unwrap();
        push(&mut outbox, &batch(1, SlowConsumerPolicy::Disconnect, &["aaaa"]), &mut dropped).unwrap();
        outbox.push_own(b"reply").unwrap();
        assert_eq!(outbox.clear(), 1);
        assert_eq!(text(&outbox), "HTTP/1.1 101 ...");
        outbox.advance(3);
        outbox.push_own(b"reply").unwrap();
        assert_eq!(outbox.clear(), 0);
        assert_eq!(text(&outbox), "P/1.1 101 ...");
    }

    #[test]
    fn of_each_channel_the_latest_is_kept() {
        let (mut outbox, mut dropped) = (Outbox::default(), 0);
        let policy = SlowConsumerPolicy::Latest;
        push(&mut outbox, &batch(1, policy, &["a1", "a2"]), &mut dropped).unwrap();
        push(&mut outbox, &batch(2, policy, &["b1"]), &mut dropped).unwrap();
        outbox.push_own(b"R").unwrap();
        outbox.advance(1);
        push(&mut outbox, &batch(1, policy, &["a3"]), &mut dropped).unwrap();
        push(&mut outbox, &batch(1, policy, &["a4"]), &mut dropped).unwrap();
        push(&mut outbox, &batch(2, policy, &["b2"]), &mut dropped).unwrap();
        assert_eq!(text(&outbox), "2Ra4b2", "the begun frame ends first");
        assert_eq!(dropped, 3);
    }

    #[test]
    fn news_of_who_comes_takes_the_place_of_no_publication() {
        let (mut outbox, mut dropped) = (Outbox::default(), 0);
        let publication = |frame| batch(1, SlowConsumerPolicy::Latest, &[frame]);
        let news = |frame| {
            let frames = batch(1, SlowConsumerPolicy::Latest, &[frame]);
            Rc::new(Batch { is_news: true, ..Rc::into_inner(frames).expect("nobody else has it") })
        };
        push(&mut outbox, &publication("p1"), &mut dropped).unwrap();
        push(&mut outbox, &news("n1"), &mut dropped).unwrap();
        push(&mut outbox, &publication("p2"), &mut dropped).unwrap();
        push(&mut outbox, &news("n2"), &mut dropped).unwrap();
        assert_eq!((text(&outbox).as_str(), dropped), ("n1p2n2", 1));
        push(&mut outbox, &news("0123456789012345"), &mut dropped).unwrap();
        assert_eq!((text(&outbox).as_str(), dropped), ("p2n20123456789012345", 2), "without room they go first");
    }

    #[test]
    fn the_latest_of_a_channel_gives_way_to_nothing() {
        let (mut outbox, mut dropped) = (Outbox::default(), 0);
        push(&mut outbox, &batch(1, SlowConsumerPolicy::Latest, &["aaaa"]), &mut dropped).unwrap();
        push(&mut outbox, &batch(2, SlowConsumerPolicy::DropOldest, &["bbbb", "cccc"]), &mut dropped).unwrap();
        push(&mut outbox, &batch(3, SlowConsumerPolicy::Latest, &["dddddddddd"]), &mut dropped).unwrap();
        assert_eq!(text(&outbox), "aaaaccccdddddddddd");
        assert_eq!(dropped, 1);
        let large = batch(4, SlowConsumerPolicy::Latest, &["0123456789"]);
        assert_eq!(push(&mut outbox, &large, &mut dropped), Err(Overflow::Disconnect));
    }

    /// Frames that are patches to each other.
    fn chain(topic: u32, policy: SlowConsumerPolicy, frames: &[&str]) -> Rc<Batch> {
        let frames = batch(topic, policy, frames);
        Rc::new(Batch { is_chain: true, ..Rc::into_inner(frames).expect("nobody else has it") })
    }

    #[test]
    fn patches_are_dropped_together_and_whole_ones_go_on() {
        let (mut outbox, mut dropped) = (Outbox::default(), 0);
        let policy = SlowConsumerPolicy::DropOldest;
        let (first, second) = (chain(1, policy, &["p1", "p2", "p3"]), chain(1, policy, &["p4"]));
        outbox.push_rest(Some(&first), 1, 6, &first.bytes[1..], true);
        push(&mut outbox, &batch(2, policy, &["aa"]), &mut dropped).unwrap();
        push(&mut outbox, &second, &mut dropped).unwrap();
        push(&mut outbox, &batch(1, policy, &["whole5", "whole6"]), &mut dropped).unwrap();
        assert_eq!((text(&outbox).as_str(), dropped), ("1aawhole5whole6", 3), "without p2 nothing could be made of p4");
        push(&mut outbox, &batch(1, policy, &["whole7"]), &mut dropped).unwrap();
        assert_eq!((text(&outbox).as_str(), dropped), ("1whole5whole6whole7", 4));
    }

    #[test]
    fn patches_that_lead_to_the_latest_stay_until_it_comes_whole() {
        let (mut outbox, mut dropped) = (Outbox::default(), 0);
        let patches = chain(1, SlowConsumerPolicy::Latest, &["p1", "p2", "p3"]);
        outbox.push_rest(Some(&patches), 0, 6, &patches.bytes, false);
        push(&mut outbox, &batch(2, SlowConsumerPolicy::DropOldest, &["0123456789"; 2]), &mut dropped).unwrap();
        assert_eq!((text(&outbox).as_str(), dropped), ("p1p2p30123456789", 1));
        push(&mut outbox, &batch(1, SlowConsumerPolicy::Latest, &["whole"]), &mut dropped).unwrap();
        assert_eq!((text(&outbox).as_str(), dropped), ("0123456789whole", 4));
    }

    #[test]
    fn resync_forgets_the_channel_and_says_so() {
        let (mut outbox, mut dropped) = (Outbox::default(), 0);
        let policy = SlowConsumerPolicy::Resync;
        push(&mut outbox, &batch(1, policy, &["aaaaaaaa", "bbbbbbbb"]), &mut dropped).unwrap();
        push(&mut outbox, &batch(2, policy, &["cc"]), &mut dropped).unwrap();
        outbox.advance(3);
        assert_eq!(push(&mut outbox, &batch(1, policy, &["dddddddd"]), &mut dropped), Err(Overflow::Resync(1)));
        assert_eq!(text(&outbox), "aaaaacc");
        assert_eq!(dropped, 2);
    }

    #[test]
    fn clearing_leaves_the_frame_that_has_begun() {
        let (mut outbox, mut dropped) = (Outbox::default(), 0);
        push(&mut outbox, &batch(1, SlowConsumerPolicy::Disconnect, &["aaaa", "bbbb"]), &mut dropped).unwrap();
        outbox.push_own(b"R").unwrap();
        outbox.advance(2);
        assert_eq!(outbox.clear(), 1);
        assert_eq!(text(&outbox), "aa");
        outbox.advance(2);
        assert!(outbox.is_empty());
        push(&mut outbox, &batch(1, SlowConsumerPolicy::Disconnect, &["cccc"]), &mut dropped).unwrap();
        assert_eq!(outbox.clear(), 1);
        assert!(outbox.is_empty());
    }

    #[test]
    fn the_rest_of_a_partly_sent_piece_keeps_its_place() {
        let frames = batch(1, SlowConsumerPolicy::DropOldest, &["aaaa", "bbbb"]);
        let mut outbox = Outbox::default();
        outbox.push_rest(Some(&frames), 2, 8, &frames.bytes[2..], true);
        outbox.push_rest(None, 0, 0, b"RR", false);
        assert_eq!(text(&outbox), "aabbbbRR");
        let mut dropped = 0;
        push(&mut outbox, &batch(1, SlowConsumerPolicy::DropOldest, &["0123456789ABCDE"]), &mut dropped).unwrap();
        assert_eq!(text(&outbox), "aaRR0123456789ABCDE");
        assert_eq!(dropped, 1);
    }
}
