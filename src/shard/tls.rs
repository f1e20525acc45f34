//! A shard's connections that speak TLS: what is received is opened before their sessions see it, and what they are
//! given is sealed as it is sent. Where the kernel does both, they are received from and sent to as if there were no TLS.
//!
//! Owns how much work handshakes may bring, and when a connection's keys are handed over to the kernel. Leaves handshakes
//! and records to `tls`, and the order of what waits to the outboxes.
//!
//! Invariants:
//! - A connection has a channel, or its records are the kernel's: one of both, from its begin to its end. Its keys are
//!   handed over once, when nothing is left that was received and not opened, or sealed and not sent; otherwise bytes
//!   would be lost, or a nonce used twice.
//! - A connection of which something sealed waits has an outbox, if an empty one: so everything new waits behind it, and
//!   the connection does not go before.
//! - A handshake that has to wait keeps its bytes in its socket; so waiting costs nothing, and its deadline goes on.

use std::{collections::VecDeque, mem, sync::Arc};

use nix::errno::Errno;

use super::{connection::Flag, state::State};
use crate::{
    config::ClientTlsConfig,
    fanout::{Entry, Outbox, Turn},
    limits::{SEND_BATCH_MAX, TLS_HANDSHAKES_PER_TURN_MAX, TLS_SEALED_BYTES_MAX},
    log::Gate,
    protocol::Disconnect,
    session::Reason,
    tls::{Alert, CONTROL_BYTES_MAX, Channel, Control, Heard, Port, RECORDS_PER_KEY_MAX, Refusal},
    uring::{HandOverError, Kernel, KernelTls, Send, Socket},
};

/// Bytes of buffers that are kept from turn to turn.
const BUFFER_BYTES_KEPT_MAX: usize = 256 * 1024;

/// Milliseconds until a handshake is looked at again that waits for others to end.
const WAIT_MS: u64 = 10;

/// Lines in the log, in each of its windows, of keys that the kernel refuses.
const REFUSAL_LINES_MAX: u64 = 1;

/// What a shard has for connections that speak TLS.
pub struct TlsState {
    port: Arc<Port>,
    /// By slab index; none: the connection's records are the kernel's.
    channels: Vec<Option<Box<Channel>>>,
    /// Of all of them: sealed, and no socket has taken it yet.
    waiting_bytes: u64,
    /// What the kernel can take over, if it is to.
    kernel_tls: KernelTls,
    /// Connections whose keys may be handed over at the turn's end.
    to_hand_over: Vec<u32>,
    /// Connections whose records are the kernel's.
    handed_over: u64,
    /// Connections whose keys the kernel has refused so far.
    refused: u64,
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
#[derive(Debug, Default)]
pub struct TlsFigures {
    pub under_way: u64,
    pub waiting: u64,
    pub begun: u64,
    pub ended: u64,
    pub bytes: u64,
    /// Connections by who seals and opens their records; none where no TLS is spoken.
    pub connections: Vec<(&'static str, u64)>,
    /// Connections whose keys the kernel has refused so far.
    pub refused_by_kernel: u64,
}

/// What one connection is sent: how far its part of the buffer goes, and how much plaintext is in it.
struct Sealed {
    entry: Entry,
    end: usize,
    plaintext_bytes: usize,
}

impl TlsState {
    /// `kernel_tls`: what the kernel can do.
    pub fn new(port: Arc<Port>, settings: &ClientTlsConfig, kernel_tls: KernelTls, now_ms: u64) -> Self {
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
        let kernel_tls = if settings.kernel { kernel_tls } else { KernelTls::default() };
        Self {
            port,
            channels: Vec::new(),
            waiting_bytes: 0,
            kernel_tls,
            to_hand_over: Vec::new(),
            handed_over: 0,
            refused: 0,
            handshakes,
            plaintext: Vec::new(),
            sealed: Vec::new(),
        }
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
        match self.channels[index as usize].take() {
            Some(channel) => {
                self.waiting_bytes -= channel.output().len() as u64;
                self.handshakes.under_way -= usize::from(channel.is_shaking_hands());
            }
            None => self.handed_over -= 1,
        }
    }

    /// Bytes that are sealed and wait for sockets to take them.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    /// Whether a connection's records are sealed and opened here.
    fn seals(&self, index: u32) -> bool {
        self.channels[index as usize].is_some()
    }

    /// A connection may have come to a point where its keys can be handed over.
    fn consider(&mut self, index: u32) {
        if !self.kernel_tls.is_empty() && self.channel_mut(index).is_established() {
            self.to_hand_over.push(index);
        }
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

    /// Gives the kernel a connection's keys, and forgets them; none: they are gone already, or cannot go yet.
    fn hand_over<K: Kernel>(&mut self, index: u32, socket: Socket, kernel: &K) -> Option<Result<(), HandOverError>> {
        let channel = &mut self.channels[index as usize];
        let keys = channel.as_ref()?.for_kernel()?;
        let outcome = if self.kernel_tls.offers(keys.is_tls13, keys.cipher) {
            kernel.hand_over_records(socket, &keys)
        } else {
            Err(HandOverError::Refused(Errno::EOPNOTSUPP))
        };
        match outcome {
            Ok(()) => {
                *channel = None;
                self.handed_over += 1;
            }
            Err(_) => {
                self.channel_mut(index).stay();
                self.refused += 1;
            }
        }
        Some(outcome)
    }

    /// `connections`: those that the shard has.
    pub fn figures(&self, connections: usize) -> TlsFigures {
        let by_server = connections as u64 - self.handed_over;
        TlsFigures {
            under_way: self.handshakes.under_way as u64,
            waiting: self.handshakes.waiting.len() as u64,
            begun: self.handshakes.begun,
            ended: self.handshakes.ended,
            bytes: (self.channels.capacity() * size_of::<usize>()) as u64 + by_server * size_of::<Channel>() as u64,
            connections: vec![("kernel", self.handed_over), ("server", by_server)],
            refused_by_kernel: self.refused,
        }
    }

    fn channel_mut(&mut self, index: u32) -> &mut Channel {
        self.channels[index as usize].as_mut().expect("who asks has looked whether the kernel has its records")
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
        self.tls_mut().consider(index);
        match heard {
            Ok(Heard::More) => {}
            Ok(Heard::End) => self.peer_ended(index, Reason::PeerClosed),
            Err(refusal) => self.refuse_records(index, refusal),
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
    pub fn is_worn_out<K: Kernel>(&self, index: u32, kernel: &K) -> bool {
        let Some(tls) = &self.tls else { return false };
        match &tls.channels[index as usize] {
            Some(channel) => channel.is_worn_out(),
            None => {
                let records = kernel.records_sent(self.connection(index).socket);
                records.is_some_and(|records| records >= RECORDS_PER_KEY_MAX)
            }
        }
    }

    /// What waits sealed for a connection is not sent.
    pub fn drop_sealed(&mut self, index: u32) {
        let Some(tls) = &mut self.tls else { return };
        if let Some(channel) = &mut tls.channels[index as usize] {
            tls.waiting_bytes -= channel.output().len() as u64;
            channel.drop_output();
        }
    }

    /// Whether a connection speaks TLS and its records are sealed and opened here.
    pub fn seals(&self, index: u32) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.seals(index))
    }

    /// Whether its records are the kernel's.
    pub fn is_sealed_by_kernel(&self, index: u32) -> bool {
        self.tls.as_ref().is_some_and(|tls| !tls.seals(index))
    }

    /// A receive has failed on a connection whose records are the kernel's: what comes next is no data, or it was not
    /// sealed by the peer, or the socket has failed.
    pub fn receive_control<K: Kernel>(&mut self, index: u32, error: Errno, kernel: &K) {
        let socket = self.connection(index).socket;
        let mut bytes = [0; CONTROL_BYTES_MAX];
        let control = match error {
            Errno::EIO => match kernel.receive_record(socket, &mut bytes) {
                Ok((content, length)) => Control::of(content, &bytes[..length]),
                Err(_) => return self.peer_ended(index, Reason::PeerReset),
            },
            Errno::EBADMSG | Errno::EMSGSIZE | Errno::EINVAL => Control::Refused(Refusal::Record),
            // Kernels from 6.14 on do not open more before they have the new key.
            Errno::EKEYEXPIRED => Control::KeyUpdate,
            _ => return self.peer_ended(index, Reason::PeerReset),
        };
        match control {
            Control::Nothing => self.receive_again(index, true),
            Control::End => self.peer_ended(index, Reason::PeerClosed),
            // It was told its end already, and what it says now is under a key that is not known here.
            Control::KeyUpdate | Control::Refused(_) if self.connection(index).has(Flag::Left) => self.let_go(index),
            Control::KeyUpdate => self.disconnect(index, Disconnect::FORCE_RECONNECT, Reason::TlsKeyUpdate),
            Control::Refused(refusal) => {
                self.refuse_records(index, refusal);
                if let Some(alert) = Alert::of(refusal) {
                    // Whoever does not take it is on its way out all the same.
                    let _ = kernel.send_record(socket, alert.content, &alert.bytes);
                }
            }
        }
    }

    fn refuse_records(&mut self, index: u32, refusal: Refusal) {
        let reason = refusal.into();
        self.count(index, reason, "");
        self.forget_backlog(index);
        self.drop_when_sent(index, Some(reason));
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

    /// Sends what waits and what the turn has brought, to each connection sealed or as it is, and hands over keys.
    pub fn write_with_tls<K: Kernel>(&mut self, kernel: &mut K) {
        let writable = mem::take(&mut self.writable);
        let (sealed, plain) = writable.into_iter().partition(|index| self.seals_if_there(*index));
        self.writable = plain;
        self.write_outboxes(kernel);
        let later = mem::replace(&mut self.writable, sealed);
        self.write_sealed_outboxes(kernel);
        self.writable.extend(later);
        if !self.turn.entries().is_empty() {
            let turn = mem::take(&mut self.turn);
            let entries = turn.entries();
            if self.tls_mut().handed_over == 0 {
                self.write_sealed_entries(&turn, entries, kernel);
            } else {
                let (sealed, plain): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| self.seals(entry.connection));
                self.write_entries(&turn, &plain, kernel);
                self.write_sealed_entries(&turn, &sealed, kernel);
            }
            self.turn = turn;
        }
        self.hand_over_records(kernel);
    }

    /// The index may be one whose connection is gone.
    fn seals_if_there(&self, index: u32) -> bool {
        self.connections.contains(index as usize) && self.seals(index)
    }

    /// Gives the kernel the keys of those connections that have come to a point where it can go on.
    fn hand_over_records<K: Kernel>(&mut self, kernel: &K) {
        for index in mem::take(&mut self.tls_mut().to_hand_over) {
            let connection = self.connections.get(index as usize).filter(|connection| !connection.has(Flag::Left));
            let Some(socket) = connection.map(|connection| connection.socket) else { continue };
            match self.tls_mut().hand_over(index, socket, kernel) {
                None => {}
                // What has arrived meanwhile was told of as bytes, and is not told of again as records.
                Some(Ok(())) => self.receive_again(index, true),
                Some(Err(HandOverError::Refused(error))) => warn_of_refusal(error),
                Some(Err(HandOverError::Halfway(error))) => {
                    warn_of_refusal(error);
                    self.count(index, Reason::MemoryShort, "");
                    self.let_go(index);
                }
            }
        }
    }

    /// Sends what outboxes hold, sealed, as far as sockets take it.
    fn write_sealed_outboxes<K: Kernel>(&mut self, kernel: &mut K) {
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
    fn sealed_sent<K: Kernel>(&mut self, index: u32, sealed: &[u8], outcome: Result<usize, Errno>, kernel: &mut K) {
        let sent = outcome.unwrap_or(0);
        self.counters.bytes_sent += sent as u64;
        if sent < sealed.len() {
            self.tls_mut().keep(index, &sealed[sent..]);
            self.hold_behind_sealed(index);
        }
        match outcome {
            Ok(sent) if sent == sealed.len() => self.tls_mut().consider(index),
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
    fn write_sealed_entries<K: Kernel>(&mut self, turn: &Turn, entries: &[Entry], kernel: &mut K) {
        let mut outcomes = mem::take(&mut self.send_outcomes);
        for entries in entries.chunks(SEND_BATCH_MAX) {
            let parts = self.seal_entries(turn, entries);
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
                    self.entry_sealed(turn, part, sealed, *outcome, kernel);
                }
            }
            self.tls_mut().sealed = bytes;
        }
        self.tls_mut().sealed.shrink_to(BUFFER_BYTES_KEPT_MAX);
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
        outcome: Result<usize, Errno>,
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
            if !goes || connection.has(Flag::Backlogged) {
                continue;
            }
            if let Some(channel) = &mut tls.channels[*index as usize] {
                tls.waiting_bytes -= channel.output().len() as u64;
                channel.say_end();
                ends.push((connection.socket, channel.take_output()));
            } else if kernel.send_record(connection.socket, Alert::END.content, &Alert::END.bytes) == Err(Errno::EAGAIN)
            {
                // A record that was taken is not with TCP yet and would be cut by shutting the stream: the peer, or the
                // time that it has, ends the connection.
                self.connections[*index as usize].clear(Flag::Shutting);
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

fn warn_of_refusal(error: Errno) {
    static GATE: Gate = Gate::new(REFUSAL_LINES_MAX);
    if let Some(suppressed) = GATE.pass_now() {
        tracing::warn!(suppressed, "the kernel does not take over a connection's TLS: {}", error.desc());
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
