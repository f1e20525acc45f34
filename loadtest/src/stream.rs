//! Streams of messages: one per channel, and one per user.
//!
//! Every client has two: its channel's, which it shares with others, and its own.

use serde::{Deserialize, Serialize};

/// A sequence of messages in which each has its number, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stream {
    /// Of the channel with this index.
    Channel(u32),
    /// Of the user with this index: the client with the same.
    User(u32),
}

const USER_BIT: u32 = 1 << 31;

impl Stream {
    /// As one number.
    pub fn code(self) -> u32 {
        match self {
            Stream::Channel(index) => index,
            Stream::User(index) => index | USER_BIT,
        }
    }

    /// The stream of a number.
    pub fn from_code(code: u32) -> Stream {
        if code & USER_BIT == 0 { Stream::Channel(code) } else { Stream::User(code & !USER_BIT) }
    }
}

/// How far streams are: the number of the last message of each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions {
    /// By channel; channels beyond the end had no message.
    pub channels: Vec<u64>,
    /// By user; users beyond the end had no message.
    pub users: Vec<u64>,
}

impl Positions {
    /// The last message's number; 0: there was none.
    pub fn last(&self, stream: Stream) -> u64 {
        let (positions, index) = match stream {
            Stream::Channel(index) => (&self.channels, index),
            Stream::User(index) => (&self.users, index),
        };
        positions.get(index as usize).copied().unwrap_or_default()
    }

    /// One message more: its number.
    pub fn advance(&mut self, stream: Stream) -> u64 {
        let (positions, index) = match stream {
            Stream::Channel(index) => (&mut self.channels, index as usize),
            Stream::User(index) => (&mut self.users, index as usize),
        };
        if index >= positions.len() {
            positions.resize(index + 1, 0);
        }
        positions[index] += 1;
        positions[index]
    }

    /// Both together; each stream has one source only.
    pub fn merge(mut self, other: &Positions) -> Positions {
        let merge = |ours: &mut Vec<u64>, theirs: &[u64]| {
            ours.resize(ours.len().max(theirs.len()), 0);
            ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| *ours = (*ours).max(*theirs));
        };
        merge(&mut self.channels, &other.channels);
        merge(&mut self.users, &other.users);
        self
    }

    /// Deliveries that this many receivers make of what came since `earlier`.
    pub fn deliveries_since(&self, earlier: &Positions, receivers: &dyn Fn(Stream) -> u64) -> u64 {
        let channels = (0..self.channels.len()).map(|index| Stream::Channel(index as u32));
        let users = (0..self.users.len()).map(|index| Stream::User(index as u32));
        channels.chain(users).map(|stream| (self.last(stream) - earlier.last(stream)) * receivers(stream)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_a_stream() {
        for stream in [Stream::Channel(0), Stream::Channel(7), Stream::User(0), Stream::User(1_000_000)] {
            assert_eq!(Stream::from_code(stream.code()), stream);
        }
    }

    #[test]
    fn positions_count_and_merge() {
        let mut channels = Positions::default();
        assert_eq!((channels.advance(Stream::Channel(2)), channels.advance(Stream::Channel(2))), (1, 2));
        let mut users = Positions::default();
        users.advance(Stream::User(1));
        let before = channels.clone();
        let all = channels.merge(&users);
        assert_eq!(all, Positions { channels: vec![0, 0, 2], users: vec![0, 1] });
        assert_eq!(all.last(Stream::User(9)), 0);
        let receivers = |stream| if matches!(stream, Stream::User(_)) { 1 } else { 100 };
        assert_eq!(all.deliveries_since(&before, &receivers), 1);
        assert_eq!(all.deliveries_since(&Positions::default(), &receivers), 201);
    }
}
