//! The two tasks of a producer's connection: one reads commands, one writes replies.
//!
//! They are two so that a producer that writes everything before it reads anything is served; what
//! that may cost is bounded by [`Producer::has_room`].

use std::{cell::RefCell, future::Future, io, rc::Rc};

use bytes::BytesMut;
use monoio::{
    buf::{IoBuf, IoBufMut},
    io::{
        AsyncWriteRent, CancelHandle, CancelableAsyncReadRent, CancelableAsyncWriteRent, OwnedReadHalf, OwnedWriteHalf,
        Split, Splitable,
    },
};

use super::{
    command,
    producer::Producer,
    state::{Connection, IngestState},
};
use crate::{
    limits::INGEST_READ_BYTES,
    resp::{Command, Parser, Violation},
    tls::{Channel, Heard},
};

/// What ends waiting when the server stops.
#[derive(Clone)]
pub(super) struct Stops {
    /// For reads and accepts: at once.
    pub(super) inputs: CancelHandle,
    /// For writes: when the time for pending replies is over.
    pub(super) outputs: CancelHandle,
}

/// Serves a producer until it goes, is sent away, or the server stops, and its replies are written.
pub(super) async fn serve<S>(state: Rc<RefCell<IngestState>>, connection: Rc<Connection>, stream: S, stops: Stops)
where
    S: CancelableAsyncReadRent + CancelableAsyncWriteRent + Split + 'static,
{
    let (input, output) = stream.into_split();
    let writer = monoio::spawn(write_replies(Rc::clone(&state), Rc::clone(&connection), output, stops.outputs));
    let mut reader = Reader { state: &state, connection: &connection, parser: Parser::new(), buffer: BytesMut::new() };
    reader.run(input, stops.inputs).await;
    connection.producer.borrow_mut().is_ending = true;
    connection.output.raise();
    writer.await;
    let id = connection.producer.borrow().id;
    state.borrow_mut().disconnect(id);
}

struct Reader<'a> {
    state: &'a RefCell<IngestState>,
    connection: &'a Connection,
    parser: Parser,
    buffer: BytesMut,
}

impl Reader<'_> {
    async fn run<S>(&mut self, mut input: OwnedReadHalf<S>, stopped: CancelHandle)
    where
        S: CancelableAsyncReadRent,
    {
        loop {
            self.until_room().await;
            if self.is_over() {
                return;
            }
            self.reserve();
            let start = self.buffer.len();
            let free = std::mem::take(&mut self.buffer).slice_mut(start..);
            let read = input.cancelable_read(free, stopped.clone());
            let Some((result, free)) = self.in_time(read).await else {
                return self.state.borrow_mut().counters.count_reason("tls_handshake_timeout");
            };
            self.buffer = free.into_inner();
            match result {
                Ok(0) => return,
                Ok(bytes) => self.state.borrow_mut().counters.bytes_received += bytes as u64,
                Err(error) => return self.count_read_error(&error),
            }
            let is_over = self.open_received(start);
            self.execute_received().await;
            if is_over {
                return;
            }
        }
    }

    /// Waits for a read, no longer than a TLS handshake that is under way may take; none: it has taken longer. How fast
    /// anything arrives does not matter.
    async fn in_time<T>(&self, read: impl Future<Output = T>) -> Option<T> {
        match self.connection.handshake_ends_at() {
            None => Some(read.await),
            Some(ends_at) => monoio::time::timeout_at(ends_at.into(), read).await.ok(),
        }
    }

    /// Where the port speaks TLS: what was received, from `start` on, becomes what it means. Whether nothing more comes.
    fn open_received(&mut self, start: usize) -> bool {
        let Some(tls) = &self.connection.tls else { return false };
        let mut sealed = self.buffer[start..].to_vec();
        self.buffer.truncate(start);
        let mut plaintext = Vec::new();
        let heard = tls.borrow_mut().receive(&mut sealed, &mut plaintext);
        self.buffer.extend_from_slice(&plaintext);
        if !tls.borrow().output().is_empty() {
            self.connection.output.raise();
        }
        if tls.borrow().is_established() {
            self.state.borrow_mut().end_handshake(self.connection);
        }
        match heard {
            Ok(heard) => heard == Heard::End,
            Err(refusal) => {
                self.state.borrow_mut().counters.count_reason(refusal.label());
                true
            }
        }
    }

    /// Executes every complete command that has been received.
    async fn execute_received(&mut self) {
        while !self.is_over() {
            if !self.has_room() {
                self.end_batch();
                self.until_room().await;
                continue;
            }
            match self.next_command() {
                Ok(Some(command)) => {
                    command::execute(&mut self.state.borrow_mut(), &mut self.producer(), command);
                }
                Ok(None) => break,
                Err(violation) => {
                    self.state.borrow_mut().counters.count_reason(violation.reason());
                    let mut producer = self.producer();
                    producer.reply(violation.reply());
                    producer.is_ending = true;
                }
            }
        }
        self.end_batch();
    }

    fn next_command(&mut self) -> Result<Option<Command>, Violation> {
        let mut producer = self.connection.producer.borrow_mut();
        if let Some(command) = producer.executing.pop_front() {
            return Ok(Some(command));
        }
        self.parser.take(&mut self.buffer, &producer.limits)
    }

    /// Wakes the shards that were sent something, and the writer if it has something to write.
    fn end_batch(&self) {
        self.state.borrow_mut().ring();
        if self.producer().replies.output_bytes() > 0 {
            self.connection.output.raise();
        }
    }

    /// Waits until one more command may be begun, or none will.
    async fn until_room(&self) {
        while !self.has_room() && !self.is_over() {
            self.connection.room.wait().await;
        }
    }

    fn has_room(&self) -> bool {
        !self.state.borrow().is_holding() && self.producer().has_room()
    }

    fn is_over(&self) -> bool {
        self.producer().is_ending || self.state.borrow().is_stopping()
    }

    fn producer(&self) -> std::cell::RefMut<'_, Producer> {
        self.connection.producer.borrow_mut()
    }

    /// Makes room for the next read. A long payload's buffer grows with what has arrived of it, so
    /// that a length alone reserves little.
    fn reserve(&mut self) {
        let received = self.buffer.len();
        let missing = self.parser.bytes_min().saturating_sub(received);
        let wanted = missing.clamp(INGEST_READ_BYTES, received.max(INGEST_READ_BYTES));
        // A tail that is too short for a usual command is not worth a read.
        if self.buffer.capacity() - received < wanted.min(missing.max(READ_BYTES_MIN)) {
            self.buffer.reserve(wanted);
        }
    }

    fn count_read_error(&self, error: &io::Error) {
        if !self.state.borrow().is_stopping() {
            tracing::debug!(%error, "a producer's connection was lost");
            self.state.borrow_mut().counters.count_reason("connection_lost");
        }
    }
}

/// Least room for a read.
const READ_BYTES_MIN: usize = 4 * 1024;

async fn write_replies<S>(
    state: Rc<RefCell<IngestState>>,
    connection: Rc<Connection>,
    mut stream: OwnedWriteHalf<S>,
    stopped: CancelHandle,
) where
    S: CancelableAsyncWriteRent,
{
    let mut buffer = Vec::new();
    loop {
        buffer = connection.producer.borrow_mut().replies.take_output(buffer);
        if let Some(tls) = &connection.tls {
            buffer = sealed(&mut tls.borrow_mut(), &buffer);
        }
        if buffer.is_empty() {
            if is_done(&state.borrow(), &connection.producer.borrow()) {
                break;
            }
            connection.output.wait().await;
            continue;
        }
        let (result, written) = write_all(&mut stream, buffer, &stopped).await;
        buffer = written;
        connection.room.raise();
        if result.is_err() {
            // Nobody reads any more; the reader will find out, or finds this.
            connection.producer.borrow_mut().is_ending = true;
            return;
        }
    }
    if let Some(tls) = &connection.tls {
        tls.borrow_mut().say_end();
        let end = tls.borrow_mut().take_output();
        let _ = write_all(&mut stream, end, &stopped).await;
    }
    // The peer may have closed already.
    let _ = stream.shutdown().await;
}

/// What is to be sent: what the handshake has to say, and the replies behind it.
fn sealed(tls: &mut Channel, replies: &[u8]) -> Vec<u8> {
    if tls.is_established() {
        tls.seal(replies);
    }
    tls.take_output()
}

fn is_done(state: &IngestState, producer: &Producer) -> bool {
    state.is_out_of_time() || producer.is_ending && producer.is_answered()
}

async fn write_all<S>(
    stream: &mut OwnedWriteHalf<S>,
    mut buffer: Vec<u8>,
    stopped: &CancelHandle,
) -> (io::Result<()>, Vec<u8>)
where
    S: CancelableAsyncWriteRent,
{
    let mut written = 0;
    while written < buffer.len() {
        let (result, rest) = stream.cancelable_write(buffer.slice(written..), stopped.clone()).await;
        buffer = rest.into_inner();
        match result {
            Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
            Ok(bytes) => written += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (Err(error), buffer),
        }
    }
    (Ok(()), buffer)
}
