//! One producer's replies, in the order of its commands whatever the order of the shards' answers.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    mem,
    sync::Arc,
};

use crate::{
    limits::LISTED_CONNECTIONS_MAX,
    mesh::{Answer, Device, DevicesFound, Published},
    resp::{Reply, Version},
};

/// What waits for shards, and what waits to be written.
#[derive(Debug, Default)]
pub(super) struct Replies {
    /// Sequence of the first slot.
    first: u64,
    /// From the oldest command that waits for shards.
    slots: VecDeque<Slot>,
    /// Written when the socket takes it.
    output: Vec<u8>,
}

/// A command's place.
#[derive(Debug)]
struct Slot {
    version: Version,
    state: SlotState,
}

#[derive(Debug)]
enum SlotState {
    Ready(Reply),
    Waiting(Waiting),
}

/// What a command waits for.
#[derive(Debug)]
pub(super) enum Waiting {
    /// A publication's home shard; the reply is the number of subscribers.
    Subscribers,
    /// A publication's home shard; the reply is offset and epoch.
    Position,
    /// Every shard; the reply is the sum of their connections.
    Connections {
        /// Shards that have not answered.
        shards_left: usize,
        /// The sum so far.
        connections: u64,
    },
    /// The home shards of these channels; the reply names each with its number of subscribers.
    Counts {
        /// Home shards that have not answered.
        shards_left: usize,
        /// As given by the producer, in its order.
        channels: Vec<bytes::Bytes>,
        /// What is known so far.
        counts: HashMap<Arc<str>, u32>,
    },
    /// Every shard; the reply lists a user's connections.
    Devices {
        /// Shards that have not answered.
        shards_left: usize,
        /// Those of the shards that have; none: there are too many.
        found: Option<Vec<Device>>,
    },
    /// Every shard; the reply is the number of connections whose attributes were changed.
    Changed {
        /// Shards that have not answered.
        shards_left: usize,
        /// So many so far.
        updated: u32,
        /// Those that would have had too much.
        refused: u32,
    },
    /// Every shard; the reply lists channels.
    Channels {
        /// Shards that have not answered.
        shards_left: usize,
        /// A channel may have subscribers on several.
        names: BTreeSet<Arc<str>>,
    },
}

impl Replies {
    /// Sequence of the next command, if it has to wait.
    pub(super) fn next_sequence(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// A command's reply.
    pub(super) fn push(&mut self, reply: Reply, version: Version) {
        if self.slots.is_empty() {
            reply.write(version, &mut self.output);
        } else {
            self.slots.push_back(Slot { version, state: SlotState::Ready(reply) });
        }
    }

    /// A command that has to wait; it has the sequence that [`Replies::next_sequence`] named.
    pub(super) fn push_waiting(&mut self, waiting: Waiting, version: Version) {
        self.slots.push_back(Slot { version, state: SlotState::Waiting(waiting) });
    }

    /// A shard has answered the command of this sequence.
    pub(super) fn answer(&mut self, sequence: u64, answer: Answer) {
        let index = sequence.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let slot = index.and_then(|index| self.slots.get_mut(index));
        let Some(Slot { state: state @ SlotState::Waiting(_), .. }) = slot else {
            unreachable!("a shard answered command {sequence}, which was answered already or never given");
        };
        let SlotState::Waiting(waiting) = state else { unreachable!("it was matched above") };
        let Some(reply) = waiting.take_answer(answer) else { return };
        *state = SlotState::Ready(reply);
        while let Some(Slot { version, state: SlotState::Ready(reply) }) = self.slots.front() {
            reply.write(*version, &mut self.output);
            self.slots.pop_front();
            self.first += 1;
        }
    }

    /// Commands that wait, for shards or for the commands before them.
    pub(super) fn pending(&self) -> usize {
        self.slots.len()
    }

    /// Bytes that wait to be written.
    pub(super) fn output_bytes(&self) -> usize {
        self.output.len()
    }

    /// Everything that can be written now; `buffer`, emptied, takes its place.
    pub(super) fn take_output(&mut self, mut buffer: Vec<u8>) -> Vec<u8> {
        buffer.clear();
        mem::replace(&mut self.output, buffer)
    }
}

impl Waiting {
    /// The reply, if nothing else is missing.
    fn take_answer(&mut self, answer: Answer) -> Option<Reply> {
        match (self, answer) {
            (Self::Subscribers, Answer::Published(published)) => Some(Reply::Integer(published.subscribers.into())),
            (Self::Position, Answer::Published(published)) => Some(position_reply(published)),
            (Self::Connections { shards_left, connections }, Answer::Connections(more)) => {
                *shards_left -= 1;
                *connections += u64::from(more);
                (*shards_left == 0).then(|| Reply::Integer(i64::try_from(*connections).unwrap_or(i64::MAX)))
            }
            (Self::Counts { shards_left, channels, counts }, Answer::Subscribers(more)) => {
                *shards_left -= 1;
                counts.extend(more.into_iter().map(|(channel, count)| (channel.name, count)));
                (*shards_left == 0).then(|| counts_reply(channels, counts))
            }
            (Self::Channels { shards_left, names }, Answer::Channels(more)) => {
                *shards_left -= 1;
                names.extend(more.into_iter().map(|(name, _)| name));
                (*shards_left == 0)
                    .then(|| Reply::Array(names.iter().map(|name| Reply::bulk(name.as_bytes())).collect()))
            }
            (Self::Devices { shards_left, found }, Answer::Devices(more)) => {
                *shards_left -= 1;
                match more {
                    DevicesFound::Devices(mut more) => {
                        if let Some(found) = found {
                            found.append(&mut more);
                        }
                    }
                    DevicesFound::TooMany => *found = None,
                }
                (*shards_left == 0).then(|| devices_reply(found.as_deref()))
            }
            (Self::Changed { shards_left, updated, refused }, Answer::Changed { updated: more, refused: not }) => {
                *shards_left -= 1;
                *updated += more;
                *refused += not;
                (*shards_left == 0).then(|| match (*updated, *refused) {
                    (0, 1..) => {
                        Reply::Error("ERR the connections would have more attributes than [attributes] allows".into())
                    }
                    (updated, _) => Reply::Integer(updated.into()),
                })
            }
            (waiting, answer) => unreachable!("a shard answered {answer:?} to a command that waits for {waiting:?}"),
        }
    }
}

/// Subscribers of channels: each name, followed by its number. None is known of what cannot be a channel.
pub(super) fn counts_reply(channels: &[bytes::Bytes], counts: &HashMap<Arc<str>, u32>) -> Reply {
    let count = |channel: &[u8]| str::from_utf8(channel).ok().and_then(|name| counts.get(name)).copied().unwrap_or(0);
    let pairs =
        channels.iter().flat_map(|channel| [Reply::Bulk(channel.clone()), Reply::Integer(count(channel).into())]);
    Reply::Array(pairs.collect())
}

/// Connections, each as names and values; nothing is said of what is not known.
fn devices_reply(devices: Option<&[Device]>) -> Reply {
    let Some(devices) = devices else {
        return Reply::Error(
            format!("ERR the user has more than {LISTED_CONNECTIONS_MAX} connections on one shard").into(),
        );
    };
    let device = |device: &Device| {
        let texts = [
            ("client", &*device.client),
            ("transport", device.transport),
            ("protocol", device.encoding.label()),
            ("name", &*device.name),
            ("version", &*device.version),
        ];
        let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
        let mut members: Vec<_> = texts.map(|(name, text)| (Reply::bulk(name), Reply::bulk(text))).collect();
        if let Some(attributes) = &device.attributes {
            members.push((Reply::bulk("attributes"), Reply::bulk(attributes)));
        }
        let channels = device.channels.iter().map(|channel| Reply::bulk(channel.as_bytes())).collect();
        members.push((Reply::bulk("channels"), Reply::Array(channels)));
        Reply::Map(members)
    };
    Reply::Array(devices.iter().map(device).collect())
}

/// Offset and epoch; of a publication that was not stored: 0 and nothing. An array in both versions
/// of the protocol, so that a producer need not know which one its library has chosen.
fn position_reply(published: Published) -> Reply {
    let (offset, epoch) = match published.position {
        Some(position) => (position.offset, Reply::bulk(position.epoch.as_bytes())),
        None => (0, Reply::Null),
    };
    Reply::Array(vec![Reply::Integer(i64::try_from(offset).unwrap_or(i64::MAX)), epoch])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::{ChannelHasher, Position};

    fn published(subscribers: u32) -> Answer {
        Answer::Published(Published { position: None, subscribers })
    }

    fn output(replies: &mut Replies) -> String {
        String::from_utf8(replies.take_output(Vec::new())).unwrap()
    }

    #[test]
    fn replies_keep_the_order_of_commands() {
        let mut replies = Replies::default();
        replies.push(Reply::OK, Version::Two);
        assert_eq!(output(&mut replies), "+OK\r\n");
        let first = replies.next_sequence();
        replies.push_waiting(Waiting::Subscribers, Version::Two);
        replies.push(Reply::Null, Version::Three);
        let second = replies.next_sequence();
        replies.push_waiting(Waiting::Position, Version::Two);
        replies.push(Reply::OK, Version::Two);
        replies.answer(second, published(5));
        assert_eq!((output(&mut replies).as_str(), replies.pending()), ("", 4));
        replies.answer(first, published(7));
        assert_eq!(output(&mut replies), ":7\r\n_\r\n*2\r\n:0\r\n$-1\r\n+OK\r\n");
        assert_eq!(replies.pending(), 0);
        replies.push_waiting(Waiting::Subscribers, Version::Two);
        replies.answer(replies.next_sequence() - 1, published(8));
        assert_eq!(output(&mut replies), ":8\r\n");
    }

    #[test]
    fn a_position_is_offset_and_epoch() {
        let mut replies = Replies::default();
        replies.push_waiting(Waiting::Position, Version::Three);
        let position = Some(Position { offset: 3, epoch: "abcd".into() });
        replies.answer(0, Answer::Published(Published { position, subscribers: 1 }));
        assert_eq!(output(&mut replies), "*2\r\n:3\r\n$4\r\nabcd\r\n");
    }

    #[test]
    fn devices_are_maps_and_too_many_are_an_error() {
        let device = Device {
            client: "c".to_owned(),
            transport: "sse",
            encoding: crate::protocol::Encoding::Json,
            name: "js".into(),
            version: "".into(),
            attributes: Some(b"{}"[..].into()),
            channels: vec!["#a".into()],
        };
        let mut replies = Replies::default();
        let waiting = || Waiting::Devices { shards_left: 2, found: Some(Vec::new()) };
        replies.push_waiting(waiting(), Version::Three);
        replies.answer(0, Answer::Devices(DevicesFound::Devices(vec![device.clone()])));
        replies.answer(0, Answer::Devices(DevicesFound::Devices(Vec::new())));
        assert_eq!(
            output(&mut replies),
            "*1\r\n%6\r\n$6\r\nclient\r\n$1\r\nc\r\n$9\r\ntransport\r\n$3\r\nsse\r\n$8\r\nprotocol\r\n$4\r\njson\r\n\
             $4\r\nname\r\n$2\r\njs\r\n$10\r\nattributes\r\n$2\r\n{}\r\n$8\r\nchannels\r\n*1\r\n$2\r\n#a\r\n"
        );
        replies.push_waiting(waiting(), Version::Two);
        replies.answer(1, Answer::Devices(DevicesFound::TooMany));
        replies.answer(1, Answer::Devices(DevicesFound::Devices(vec![device])));
        assert_eq!(output(&mut replies), "-ERR the user has more than 1000 connections on one shard\r\n");
        for (answers, reply) in [([(2, 0), (1, 1)], ":3\r\n"), ([(0, 0), (0, 0)], ":0\r\n")] {
            let sequence = replies.next_sequence();
            replies.push_waiting(Waiting::Changed { shards_left: 2, updated: 0, refused: 0 }, Version::Two);
            for (updated, refused) in answers {
                replies.answer(sequence, Answer::Changed { updated, refused });
            }
            assert_eq!(output(&mut replies), reply);
        }
        let sequence = replies.next_sequence();
        replies.push_waiting(Waiting::Changed { shards_left: 1, updated: 0, refused: 0 }, Version::Two);
        replies.answer(sequence, Answer::Changed { updated: 0, refused: 1 });
        assert!(output(&mut replies).starts_with("-ERR the connections would have more attributes"));
    }

    #[test]
    fn answers_of_several_shards_are_one_reply() {
        let hasher = ChannelHasher::with_key([0; 16]);
        let mut replies = Replies::default();
        replies.push_waiting(Waiting::Connections { shards_left: 2, connections: 0 }, Version::Two);
        replies.push_waiting(Waiting::Channels { shards_left: 2, names: BTreeSet::new() }, Version::Two);
        let channels = ["b", "none", "a", "b"].map(|name| bytes::Bytes::from_static(name.as_bytes())).to_vec();
        replies.push_waiting(Waiting::Counts { shards_left: 2, channels, counts: HashMap::new() }, Version::Two);
        replies.answer(2, Answer::Subscribers(vec![(hasher.name("a"), 1)]));
        replies.answer(1, Answer::Channels(vec![("b".into(), 1), ("a".into(), 1)]));
        replies.answer(0, Answer::Connections(3));
        assert_eq!(output(&mut replies), "");
        replies.answer(2, Answer::Subscribers(vec![(hasher.name("b"), 2)]));
        replies.answer(1, Answer::Channels(vec![("b".into(), 2)]));
        replies.answer(0, Answer::Connections(4));
        assert_eq!(
            output(&mut replies),
            ":7\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n*8\r\n$1\r\nb\r\n:2\r\n$4\r\nnone\r\n:0\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n:2\r\n"
        );
    }
}
