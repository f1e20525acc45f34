//! A shard's connections that speak TLS: what is received is opened before their sessions see it, and what they are
//! given is sealed as it is sent.
//!
//! Owns how much work handshakes may bring. Leaves handshakes and records to `tls`, and the order of what waits to the
//! outboxes.
//!
//! Invariants:
//! - A connection of which something sealed waits has an outbox, if an empty one: so everything new waits behind it, and
//!   the connection does not go before.
//! - A handshake that has to wait keeps its bytes in its socket; so waiting costs nothing, and its deadline goes on.

use std::{collections::VecDeque, mem, sync::Arc};

use super::{connection::Flag, state::State};
use crate::{
    config::ClientTlsConfig,
    fanout::{Entry, Outbox, Turn},
    limits::{SEND_BATCH_MAX, TLS_HANDSHAKES_PER_TURN_MAX, TLS_SEALED_BYTES_MAX},
    session::Reason,
    tls::{Channel, Heard, Port, Refusal},
    uring::{Kernel, Send},
};

/// Bytes of buffers that are kept from turn to turn.
const BUFFER_BYTES_KEPT_MAX: usize = 256 * 1024;

/// Milliseconds until a handshake is looked at again that waits for others to end.
const WAIT_MS: u64 = 10;

/// What a shard has for connections that speak TLS.
pub struct TlsState {
    port: Arc<Port>,
    /// By slab index.
    channels: Vec<Option<Box<Channel>>>,
    /// Of all of them: sealed, and no socket has taken it yet.
    waiting_bytes: u64,
    handshakes: Handshakes,
    /// What was opened last; kept for its memory.
    plaintext: Vec<u8>,
    /// What is sealed for a batch of sends; kept for its memory.
    sealed: Vec<u8>,
}

/// How many handshakes there may be.
struct Handshakes {
    under_way: usize,
    under_way_max: usize,
    per_second_max: u32,
    /// Of which a second's worth may be saved up, in thousandths.
    begins_left: u64,
    filled_at_ms: u64,
    /// Steps that this turn may still take.
    steps_left: usize,
    /// Connections that have something to say and must wait.
    waiting: VecDeque<u32>,
    begun: u64,
    ended: u64,
}

/// What is counted of TLS.
#[derive(Debug, Clone, Copy, Default)]
pub struct TlsFigures {
    pub under_way: u64,
    pub waiting: u64,
    pub begun: u64,
    pub ended: u64,
    pub bytes: u64,
}

/// What one connection is sent: how far its part of the buffer goes, and how much plaintext is in it.
struct Sealed {
    entry: Entry,
    end: usize,
    plaintext_bytes: usize,
}

impl TlsState {
    pub fn new(port: Arc<Port>, settings: &ClientTlsConfig, now_ms: u64) -> Self {
        let handshakes = Handshakes {
            under_way: 0,
            under_way_max: settings.handshakes_max as usize,
            per_second_max: settings.handshakes_per_second_max,
            begins_left: u64::from(settings.handshakes_per_second_max) * 1_000,
            filled_at_ms: now_ms,
            steps_left: TLS_HANDSHAKES_PER_TURN_MAX,
            waiting: VecDeque::new(),
            begun: 0,
            ended: 0,
        };
        Self { port, channels: Vec::new(), waiting_bytes: 0, handshakes, plaintext: Vec::new(), sealed: Vec::new() }
    }

    /// A client was accepted at this slab index.
    pub fn begin(&mut self, index: u32) {
        let index = index as usize;
        if self.channels.len() <= index {
            self.channels.resize_with(index + 1, || None);
        }
        self.channels[index] = Some(Box::new(Channel::new(&self.port)));
    }

    /// Its connection is gone.
    pub fn end(&mut self, index: u32) {
        let Some(channel) = self.channels[index as usize].take() else { return };
        self.waiting_bytes -= channel.output().len() as u64;
        self.handshakes.under_way -= usize::from(channel.is_shaking_hands());
    }

    /// Bytes that are sealed and wait for sockets to take them.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    /// Whether a connection that has something to say has to wait: then it is looked at again in a later turn.
    pub fn has_to_wait(&mut self, index: u32) -> bool {
        let channel = self.channels[index as usize].as_ref();
        let Some(channel) = channel.filter(|channel| channel.needs_handshake()) else { return false };
        let may_go_on = self.handshakes.take_step(channel.is_shaking_hands());
        if !may_go_on {
            self.handshakes.waiting.push_back(index);
        }
        !may_go_on
    }

    /// A turn begins: who had to wait may try again.
    pub fn begin_turn(&mut self, now_ms: u64, readable: &mut VecDeque<u32>) {
        self.handshakes.fill(now_ms);
        readable.extend(self.handshakes.waiting.drain(..));
    }

    /// When somebody who waits is to be looked at again.
    pub fn next_due_ms(&self, now_ms: u64) -> Option<u64> {
        let handshakes = &self.handshakes;
        let wait_ms = if handshakes.steps_left == 0 || handshakes.may_begin() { 0 } else { WAIT_MS };
        (!handshakes.waiting.is_empty()).then_some(now_ms + wait_ms)
    }

    /// `connections`: those that the shard has.
    pub fn figures(&self, connections: usize) -> TlsFigures {
        TlsFigures {
            under_way: self.handshakes.under_way as u64,
            waiting: self.handshakes.waiting.len() as u64,
            begun: self.handshakes.begun,
            ended: self.handshakes.ended,
            bytes: (self.channels.capacity() * size_of::<usize>() + connections * size_of::<Channel>()) as u64,
        }
    }

    fn channel_mut(&mut self, index: u32) -> &mut Channel {
        self.channels[index as usize].as_mut().expect("every connection of the port has its TLS until it goes")
    }

    /// Opens what was received into [`TlsState::plaintext`].
    fn open(&mut self, index: u32, received: &mut [u8]) -> Result<Heard, Refusal> {
        self.plaintext.clear();
        let channel = self.channels[index as usize].as_mut().expect("it was just received from");
        let (was_shaking, was_established) = (channel.is_shaking_hands(), channel.is_established());
        self.waiting_bytes -= channel.output().len() as u64;
        let heard = channel.receive(received, &mut self.plaintext);
        self.waiting_bytes += channel.output().len() as u64;
        let (is_shaking, is_established) = (channel.is_shaking_hands(), channel.is_established());
        let handshakes = &mut self.handshakes;
        handshakes.begun += u64::from(!was_shaking && !was_established && (is_shaking || is_established));
        handshakes.ended += u64::from(!was_established && is_established);
        handshakes.under_way = handshakes.under_way + usize::from(is_shaking) - usize::from(was_shaking);
        heard
    }

    /// Seals what one connection is given, behind what waits of it sealed, at the end of the buffer. How much plaintext
    /// was taken: what can still be dropped stays as it is.
    fn seal(&mut self, index: u32, plaintext: &[u8]) -> usize {
        let Self { channels, sealed, waiting_bytes, .. } = self;
        let channel = channels[index as usize].as_mut().expect("a connection is given something while it lasts");
        *waiting_bytes -= channel.output().len() as u64;
        let bytes = if channel.is_established() { plaintext.len().min(TLS_SEALED_BYTES_MAX) } else { 0 };
        if bytes > 0 {
            channel.seal(&plaintext[..bytes]);
        }
        sealed.extend_from_slice(&channel.take_output());
        bytes
    }

    /// What a socket did not take of what was sealed for it waits.
    fn keep(&mut self, index: u32, rest: &[u8]) {
        self.channel_mut(index).keep_output(rest);
        self.waiting_bytes += rest.len() as u64;
    }
}

impl Handshakes {
    fn fill(&mut self, now_ms: u64) {
        let per_second_max = u64::from(self.per_second_max);
        let filled = (now_ms - self.filled_at_ms).saturating_mul(per_second_max);
        self.begins_left = self.begins_left.saturating_add(filled).min(per_second_max * 1_000);
        self.filled_at_ms = now_ms;
        self.steps_left = TLS_HANDSHAKES_PER_TURN_MAX;
    }

    fn may_begin(&self) -> bool {
        self.under_way < self.under_way_max && self.begins_left >= 1_000
    }

    /// Whether there is room for one more step of a handshake that is under way, or begins.
    fn take_step(&mut self, is_under_way: bool) -> bool {
        if self.steps_left == 0 || !is_under_way && !self.may_begin() {
            return false;
        }
        self.steps_left -= 1;
        self.begins_left -= if is_under_way { 0 } else { 1_000 };
        true
    }
}

impl State {
    /// Bytes of a client: opened, they are its session's. What a balancer says before them is not sealed.
    pub fn receive_sealed(&mut self, index: u32, received: &mut [u8]) {
        if self.connection(index).awaits_proxy_header() {
            return self.hear_balancer(index, received);
        }
        let tls = self.tls.as_mut().expect("the port speaks TLS");
        // Whoever was refused before the handshake is not told more, as that would cost one.
        if self.connections[index as usize].has(Flag::Left) && !tls.channel_mut(index).is_established() {
            return;
        }
        let heard = tls.open(index, received);
        let mut plaintext = mem::take(&mut tls.plaintext);
        if !plaintext.is_empty() {
            self.converse_with_input(index, &mut plaintext);
        }
        plaintext.shrink_to(BUFFER_BYTES_KEPT_MAX);
        self.tls_mut().plaintext = plaintext;
        self.queue_sealed(index);
        match heard {
            Ok(Heard::More) => {}
            Ok(Heard::End) => self.peer_ended(index, Reason::PeerClosed),
            Err(refusal) => {
                let reason = refusal.into();
                self.count(index, reason, "");
                self.forget_backlog(index);
                self.drop_when_sent(index, Some(reason));
            }
        }
    }

    /// Bytes that are sealed for a connection and wait.
    pub fn sealed_bytes(&self, index: u32) -> usize {
        let channel = self.tls.as_ref().and_then(|tls| tls.channels[index as usize].as_ref());
        channel.map_or(0, |channel| channel.output().len())
    }

    /// Whether something sealed waits for a connection.
    pub fn has_sealed(&self, index: u32) -> bool {
        self.sealed_bytes(index) > 0
    }

    /// Whether a connection's TLS is not established yet.
    pub fn is_shaking_hands(&self, index: u32) -> bool {
        let channel = self.tls.as_ref().and_then(|tls| tls.channels[index as usize].as_ref());
        channel.is_some_and(|channel| !channel.is_established())
    }

    /// Whether a connection has to be made anew, because its keys have sealed all that they may.
    pub fn is_worn_out(&self, index: u32) -> bool {
        let channel = self.tls.as_ref().and_then(|tls| tls.channels[index as usize].as_ref());
        channel.is_some_and(|channel| channel.is_worn_out())
    }

    /// What waits sealed for a connection is not sent.
    pub fn drop_sealed(&mut self, index: u32) {
        let Some(tls) = &mut self.tls else { return };
        if let Some(channel) = &mut tls.channels[index as usize] {
            tls.waiting_bytes -= channel.output().len() as u64;
            channel.drop_output();
        }
    }

    /// What is sealed already goes out with the turn, and all else waits behind it.
    fn queue_sealed(&mut self, index: u32) {
        if !self.has_sealed(index) {
            return;
        }
        self.hold_behind_sealed(index);
        self.writable.push(index);
    }

    fn hold_behind_sealed(&mut self, index: u32) {
        if !self.connection(index).has(Flag::Backlogged) {
            self.begin_backlog(index, Outbox::default());
        }
    }

    fn tls_mut(&mut self) -> &mut TlsState {
        self.tls.as_mut().expect("the port speaks TLS")
    }

    /// Sends what outboxes hold, sealed, as far as sockets take it.
    pub fn write_sealed_outboxes<K: Kernel>(&mut self, kernel: &mut K) {
        let mut outcomes = mem::take(&mut self.send_outcomes);
        let mut plaintext = Vec::new();
        for index in mem::take(&mut self.writable) {
            // As with outboxes that are sent as they are: the index may be another's by now, and order counts.
            let Some(connection) = self.connections.get(index as usize) else { continue };
            if connection.has(Flag::WritableParked) || !connection.has(Flag::Backlogged) {
                continue;
            }
            let (socket, is_connecting) = (connection.socket, self.is_connecting(index));
            if connection.entry != Turn::NO_ENTRY && !self.has_sealed(index) {
                self.writable.push(index);
                continue;
            }
            plaintext.clear();
            // What waits for a connect reply waits on, and what came before it.
            let has_entry = self.connection(index).entry != Turn::NO_ENTRY;
            if !is_connecting
                && !has_entry
                && let Some(outbox) = self.outbox(index)
            {
                outbox.peek(&mut plaintext, TLS_SEALED_BYTES_MAX);
            }
            let tls = self.tls_mut();
            tls.sealed.clear();
            let taken = tls.seal(index, &plaintext);
            let sealed = mem::take(&mut tls.sealed);
            self.advance_outbox(index, taken);
            if !sealed.is_empty() {
                kernel.send(&[Send { socket, bytes: &sealed }], &mut outcomes);
                self.counters.sends += 1;
                self.sealed_sent(index, &sealed, outcomes[0], kernel);
            }
            self.tls_mut().sealed = sealed;
            self.settle_outbox(index);
        }
        self.send_outcomes = outcomes;
    }

    /// After an attempt to send what was sealed for a connection: the rest waits.
    fn sealed_sent<K: Kernel>(
        &mut self,
        index: u32,
        sealed: &[u8],
        outcome: Result<usize, nix::errno::Errno>,
        kernel: &mut K,
    ) {
        let sent = outcome.unwrap_or(0);
        self.counters.bytes_sent += sent as u64;
        if sent < sealed.len() {
            self.tls_mut().keep(index, &sealed[sent..]);
            self.hold_behind_sealed(index);
        }
        match outcome {
            Ok(sent) if sent == sealed.len() => {}
            Ok(_) => self.park_writable(index, kernel),
            Err(error) => self.send_failed(index, error, kernel),
        }
    }

    /// After a send: the outbox goes if nothing waits, or is tried again if its socket takes more.
    fn settle_outbox(&mut self, index: u32) {
        let connection = self.connection(index);
        if !connection.has(Flag::Backlogged) || self.has_sealed(index) || self.is_connecting(index) {
            return;
        }
        // What was to be said last cannot be said without a handshake.
        let is_unsayable = self.is_shaking_hands(index) && self.connection(index).has(Flag::Left);
        if is_unsayable || self.outbox(index).is_some_and(Outbox::is_empty) {
            self.end_backlog(index);
        } else if !self.connection(index).has(Flag::WritableParked) {
            self.writable.push(index);
        }
    }

    /// Sends what the turn has brought, sealed.
    pub fn write_sealed_entries<K: Kernel>(&mut self, kernel: &mut K) {
        if self.turn.entries().is_empty() {
            return;
        }
        let turn = mem::take(&mut self.turn);
        let mut outcomes = mem::take(&mut self.send_outcomes);
        for entries in turn.entries().chunks(SEND_BATCH_MAX) {
            let parts = self.seal_entries(&turn, entries);
            let bytes = mem::take(&mut self.tls_mut().sealed);
            let starts = [0].into_iter().chain(parts.iter().map(|part| part.end));
            let sealed: Vec<&[u8]> = starts.zip(&parts).map(|(start, part)| &bytes[start..part.end]).collect();
            let with_bytes = || parts.iter().zip(&sealed).filter(|(_, bytes)| !bytes.is_empty());
            let socket = |part: &Sealed| self.connection(part.entry.connection).socket;
            let sends: Vec<Send<'_>> = with_bytes().map(|(part, bytes)| Send { socket: socket(part), bytes }).collect();
            if !sends.is_empty() {
                kernel.send(&sends, &mut outcomes);
                self.counters.sends += sends.len() as u64;
                for ((part, sealed), outcome) in with_bytes().zip(&outcomes) {
                    self.entry_sealed(&turn, part, sealed, *outcome, kernel);
                }
            }
            self.tls_mut().sealed = bytes;
        }
        self.tls_mut().sealed.shrink_to(BUFFER_BYTES_KEPT_MAX);
        self.turn = turn;
        self.send_outcomes = outcomes;
    }

    /// Seals what connections are given, side by side.
    fn seal_entries(&mut self, turn: &Turn, entries: &[Entry]) -> Vec<Sealed> {
        let tls = self.tls.as_mut().expect("the port speaks TLS");
        tls.sealed.clear();
        let mut gathered = Vec::new();
        let mut parts = Vec::with_capacity(entries.len());
        for entry in entries {
            self.connections[entry.connection as usize].entry = Turn::NO_ENTRY;
            let plaintext = turn.contiguous(*entry).unwrap_or_else(|| {
                gathered.clear();
                turn.pieces(*entry).for_each(|(_, piece)| gathered.extend_from_slice(turn.piece_bytes(piece)));
                &gathered
            });
            let plaintext_bytes = tls.seal(entry.connection, plaintext);
            parts.push(Sealed { entry: *entry, end: tls.sealed.len(), plaintext_bytes });
        }
        parts
    }

    /// After an attempt to send what a connection was given: what is sealed waits as it is, all else in the outbox.
    fn entry_sealed<K: Kernel>(
        &mut self,
        turn: &Turn,
        part: &Sealed,
        sealed: &[u8],
        outcome: Result<usize, nix::errno::Errno>,
        kernel: &mut K,
    ) {
        let index = part.entry.connection;
        let bytes: usize = turn.pieces(part.entry).map(|(_, piece)| piece.bytes()).sum();
        if part.plaintext_bytes < bytes {
            self.spill(index, turn, part.entry, part.plaintext_bytes);
            if outcome == Ok(sealed.len()) {
                self.writable.push(index);
            }
        }
        self.sealed_sent(index, sealed, outcome, kernel);
    }

    /// Tells those that go that nothing more comes, so that they can tell an end from a cut.
    pub fn say_ends<K: Kernel>(&mut self, kernel: &mut K) {
        let Some(tls) = &mut self.tls else { return };
        let mut ends = Vec::new();
        for index in &self.ending {
            let Some(connection) = self.connections.get(*index as usize) else { continue };
            let goes = connection.has(Flag::Dropping) || connection.has(Flag::Shutting);
            if goes && !connection.has(Flag::Backlogged) {
                let waiting = tls.channel_mut(*index).output().len() as u64;
                tls.waiting_bytes -= waiting;
                let channel = tls.channel_mut(*index);
                channel.say_end();
                ends.push((connection.socket, channel.take_output()));
            }
        }
        for ends in ends.chunks(SEND_BATCH_MAX) {
            let ends = ends.iter().filter(|(_, bytes)| !bytes.is_empty());
            let sends: Vec<Send<'_>> = ends.map(|(socket, bytes)| Send { socket: *socket, bytes }).collect();
            // Whoever does not take it is on its way out all the same.
            if !sends.is_empty() {
                kernel.send(&sends, &mut self.send_outcomes);
            }
        }
    }
}

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotTls => Self::TlsNotSpoken,
            Refusal::Incompatible => Self::TlsIncompatible,
            Refusal::ClientCertificate => Self::TlsClientCertificate,
            Refusal::PeerAlert => Self::TlsPeerAlert,
            Refusal::Handshake => Self::TlsHandshakeFailed,
            Refusal::Record => Self::TlsRecordInvalid,
            Refusal::Renegotiation => Self::TlsRenegotiation,
            Refusal::Internal => Self::Internal,
        }
    }
}
