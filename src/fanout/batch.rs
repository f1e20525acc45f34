//! Frames of one topic, side by side, encoded once for all its subscribers.

use crate::config::SlowConsumerPolicy;

/// Whole frames in a row.
#[derive(Debug, Default)]
pub struct Batch {
    /// The frames.
    pub bytes: Vec<u8>,
    /// Where each frame ends in `bytes`.
    pub ends: Vec<u32>,
    /// The topic they belong to.
    pub topic: u32,
    /// What may be done with them when a subscriber is slow.
    pub policy: SlowConsumerPolicy,
    /// They say who comes and goes, and are for those subscribers only that want to hear it.
    pub is_news: bool,
    /// Some are patches to the one before: of the topic's frames that wait in such batches, what is dropped takes what is
    /// behind it along.
    pub is_chain: bool,
}

impl Batch {
    /// In [`Batch::topic`]: its frames are for all clients, whatever they are subscribed to.
    pub const NO_TOPIC: u32 = u32::MAX;

    /// The batch is what it was when new, but for its memory.
    pub fn reset(&mut self, topic: u32, policy: SlowConsumerPolicy, is_news: bool) {
        self.bytes.clear();
        self.ends.clear();
        self.topic = topic;
        self.policy = policy;
        self.is_news = is_news;
        self.is_chain = false;
    }

    /// Bytes of memory that it takes, used or not.
    pub fn bytes_held(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity() + self.ends.capacity() * size_of::<u32>()
    }

    /// Marks the end of the frame that was just written.
    pub fn end_frame(&mut self) {
        self.ends.push(u32::try_from(self.bytes.len()).expect("a turn brings less than 4 GiB"));
    }

    /// Where the frame that holds the byte before `offset` ends; `offset` itself at a boundary.
    pub fn frame_end(&self, offset: u32) -> u32 {
        let index = self.ends.partition_point(|end| *end < offset);
        self.ends.get(index).copied().unwrap_or(offset)
    }

    /// Where the last frame before `end` begins.
    pub fn last_frame_start(&self, end: u32) -> u32 {
        let index = self.ends.partition_point(|candidate| *candidate < end);
        if index == 0 { 0 } else { self.ends[index - 1] }
    }

    /// Frames that end in `start..end`, the first byte excluded.
    pub fn frames(&self, start: u32, end: u32) -> usize {
        self.ends.partition_point(|candidate| *candidate <= end)
            - self.ends.partition_point(|candidate| *candidate <= start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_are_found_from_any_offset() {
        let mut batch = Batch::default();
        for frame in ["aaa", "bb", "cccc"] {
            batch.bytes.extend_from_slice(frame.as_bytes());
            batch.end_frame();
        }
        assert_eq!([0, 1, 3, 4, 5, 9].map(|offset| batch.frame_end(offset)), [3, 3, 3, 5, 5, 9]);
        assert_eq!([3, 5, 9].map(|end| batch.last_frame_start(end)), [0, 3, 5]);
        assert_eq!((batch.frames(0, 9), batch.frames(3, 9), batch.frames(4, 9), batch.frames(3, 5)), (3, 2, 2, 1));
    }
}
