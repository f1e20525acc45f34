//! The encodings of one set of messages, and the shapes in which clients are written to (protocol.md sections 1, 3 and 4).

use super::{
    Commands, Push, Reply,
    fields::{Fields, Message, field},
    json, protobuf,
    push::PushTo,
};

/// How messages become bytes. Chosen once for each connection, at its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encoding {
    /// A JSON object each; line feeds lie between messages and never within one.
    #[default]
    Json,
    /// A Protobuf message each, behind its length.
    Protobuf,
}

/// What a client is written: answers to its commands too, or pushes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Shape {
    /// Replies; a push is a reply that holds one.
    #[default]
    Bidirectional,
    /// Pushes as they are (protocol.md section 18).
    Unidirectional,
}

impl Encoding {
    /// What back ends know it by (protocol.md section 20).
    pub const fn label(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Protobuf => "protobuf",
        }
    }

    /// Reads the commands of one message. Bytes that are none end the iteration with [`Malformed`](super::Malformed).
    pub fn decode(self, message: &[u8]) -> Commands<'_> {
        Commands::new(self, message)
    }

    /// Appends the answer to a command.
    pub fn write_reply(self, out: &mut Vec<u8>, command: u32, reply: &Reply<'_>) {
        self.write(out, &Answer { command, reply });
    }

    /// Appends what a client is told unasked. The channel is "" for what belongs to none.
    #[inline]
    pub fn write_push(self, shape: Shape, out: &mut Vec<u8>, channel: &str, push: &Push<'_>) {
        let push = PushTo { channel, push };
        match shape {
            Shape::Bidirectional => self.write(out, &Unasked { push }),
            Shape::Unidirectional => self.write(out, &push),
        }
    }

    /// A ping, and its pong: an empty message (protocol.md section 6).
    pub const fn ping(self) -> &'static [u8] {
        match self {
            Self::Json => b"{}",
            Self::Protobuf => &[0],
        }
    }

    #[inline]
    fn write(self, out: &mut Vec<u8>, message: &impl Message) {
        match self {
            Self::Json => json::write_message(out, message),
            Self::Protobuf => protobuf::write_delimited(out, message),
        }
    }
}

/// A reply to a command.
struct Answer<'a> {
    command: u32,
    reply: &'a Reply<'a>,
}

impl Message for Answer<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.unsigned(field!(1, "id"), u64::from(self.command));
        self.reply.write(fields);
    }
}

/// A reply to nothing.
struct Unasked<'a> {
    push: PushTo<'a>,
}

impl Message for Unasked<'_> {
    #[inline]
    fn write(&self, fields: &mut impl Fields) {
        fields.message(field!(4, "push"), &self.push);
    }
}
