//! One topic and its subscribers: what a turn does for them, made of the pieces that the shard uses.

use super::publication::{CHANNEL, PUBLICATION};
use tidegate::{
    config::SlowConsumerPolicy,
    fanout::{Content, Form, Topics, Turn},
    mesh::ChannelHasher,
    protocol::{Encoding, Push, Shape},
    session::Session,
    shard::{Connection, ConnectionSlab},
    uring::Socket,
    websocket::frame::{self, Data, OpCode},
};

/// A topic with subscribers that can keep up.
pub struct Audience {
    connections: ConnectionSlab,
    topics: Topics,
    topic: u32,
    turn: Turn,
}

impl Audience {
    /// Of so many subscribers.
    pub fn new(subscribers: u32) -> Self {
        let mut audience = Self {
            connections: ConnectionSlab::for_connections(subscribers as usize),
            topics: Topics::default(),
            topic: 0,
            turn: Turn::default(),
        };
        let channel = ChannelHasher::with_key([7; 16]).name(CHANNEL);
        let (form, content) = (Form::default(), Content::default());
        audience.topic = audience.topics.find_or_insert(&channel, form, &content, SlowConsumerPolicy::default);
        for generation in 0..subscribers {
            let index = audience.connections.insert(Connection::new(Socket(3), generation, Session::default()));
            audience.topics.attach(audience.topic, index as u32, |_, _| {});
        }
        audience
    }

    /// Opens a batch, encodes so many publications into it, hands it out, and ends the turn as if all of it had been
    /// sent: the bytes that were to be sent.
    pub fn turn(&mut self, publications: u32) -> usize {
        let open = self.turn.open_batch(self.topic, SlowConsumerPolicy::default());
        let batch = self.turn.open_batch_mut(open);
        for _ in 0..publications {
            let mark = frame::begin(&mut batch.bytes);
            let push = Push::Publication(PUBLICATION);
            Encoding::Json.write_push(Shape::Bidirectional, &mut batch.bytes, CHANNEL, &push);
            frame::finish(&mut batch.bytes, mark, OpCode::Data(Data::Text));
            batch.end_frame();
        }
        let (batch, end) = self.turn.close_batch(open);
        for &index in self.topics.subscribers(self.topic) {
            let entry = &mut self.connections[index as usize].entry;
            self.turn.give(index, entry, batch, 0, end);
        }
        let mut bytes = 0;
        for &entry in self.turn.entries() {
            self.connections[entry.connection as usize].entry = Turn::NO_ENTRY;
            bytes += self.turn.contiguous(entry).expect("a batch is one piece").len();
        }
        self.turn.clear();
        bytes
    }
}
