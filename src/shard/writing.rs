//! The end of a turn: batches are handed out, every connection gets one send, what is over is closed.

use std::rc::Rc;

use super::{
    compressing::{Compression, Terms, Versions},
    connection::Flag,
    figures::Counters,
    slab::ConnectionSlab,
    state::State,
};
use crate::{
    fanout::{Batch, Entry, Form, FurtherSubscriptions, Outbox, Overflow, Topics, Turn},
    limits::SEND_BATCH_MAX,
    mesh::{ApiConnection, ToControl},
    protocol::{Disconnect, Push, Reply, Unsubscribe},
    session::Reason,
    uring::{Kernel, Send},
};

/// Bytes of an outbox that are offered to the kernel at once.
const OUTBOX_SEND_BYTES_MAX: usize = 64 * 1024;

impl State {
    /// Gives a connection what was written to the replies' buffer from `start` on. Nothing else was written since.
    pub fn give_replies(&mut self, index: u32, start: usize) {
        let connection = &mut self.connections[index as usize];
        if self.turn.replies.len() == start {
            return;
        }
        if !connection.has(Flag::Backlogged) {
            self.turn.give_replies(index, &mut connection.entry, start);
            return;
        }
        let outbox = connection.extra_mut().outbox.as_mut().expect("Backlogged means that there is an outbox");
        let before = outbox.bytes();
        let result = outbox.push_own(&self.turn.replies[start..]);
        self.outbox_bytes += (outbox.bytes() - before) as u64;
        self.turn.replies.truncate(start);
        if let Err(overflow) = result {
            self.overflows.push((index, overflow));
        }
    }

    /// A topic's open batch for publications, or for the news of who comes and goes, behind what it has brought already.
    pub fn open_batch(&mut self, topic: u32, is_news: bool) -> u32 {
        match self.topics.open_batch(topic) {
            Some(open) if self.turn.is_news(open) == is_news => return open,
            Some(_) => self.hand_out(topic),
            None => {}
        }
        let policy = self.topics.policy(topic);
        let open = if is_news { self.turn.open_news(topic, policy) } else { self.turn.open_batch(topic, policy) };
        self.topics.set_open_batch(topic, open);
        open
    }

    /// Writes a push at the end of an open batch.
    pub fn write_push(&mut self, open: u32, form: Form, channel: &str, push: &Push<'_>) {
        form.write_push(&mut self.turn.open_batch_mut(open).bytes, channel, push);
        self.turn.end_frame(open);
    }

    /// Hands a topic's open batch to its subscribers, or to those that want to hear who comes and goes.
    pub fn hand_out(&mut self, topic: u32) {
        let Some(open) = self.topics.take_open_batch(topic) else { return };
        if self.turn.is_news(open) {
            let hears = |index: &&u32| {
                let subscription = self.connections[**index as usize].subscriptions.find(&self.further, topic);
                subscription.is_some_and(|subscription| subscription.marks().hears_joins)
            };
            let hearers: Vec<u32> = self.topics.subscribers(topic).iter().filter(hears).copied().collect();
            self.give_batch(open, &hearers);
        } else if self.topics.has_deltas(topic) {
            self.hand_out_chain(topic, open);
        } else if let Some(deflation) = self.topics.form(topic).deflation() {
            self.hand_out_deflated(topic, open, deflation);
        } else {
            let (mut giving, topics) = self.giving();
            giving.give_batch(open, topics.subscribers(topic));
        }
    }

    /// Closes a batch and gives it to connections.
    pub fn give_batch(&mut self, open: u32, connections: &[u32]) {
        self.giving().0.give_batch(open, connections);
    }

    pub fn giving(&mut self) -> (Giving<'_>, &Topics) {
        let giving = Giving {
            connections: &mut self.connections,
            further: &mut self.further,
            turn: &mut self.turn,
            compression: &mut self.compression,
            counters: &mut self.counters,
            overflows: &mut self.overflows,
            outbox_bytes: &mut self.outbox_bytes,
            outbox_bytes_max: self.config.shards.outbox_bytes_max as usize,
        };
        (giving, &self.topics)
    }

    /// Ends the turn: afterwards nothing of it is left to be sent but what is in outboxes.
    pub fn end_turn<K: Kernel>(&mut self, kernel: &mut K) {
        for open in 0..self.turn.opened() {
            if let Some(topic) = self.turn.open_topic(open) {
                self.hand_out(topic);
            }
        }
        self.hand_over(kernel);
        self.act_on_overflows();
        self.shed_worst();
        // Close frames without room: their connections are on their way out, and the next turn may bring others in their slots.
        self.overflows.clear();
        self.note_writing();
        if self.tls.is_some() {
            self.write_with_tls(kernel);
        } else {
            self.write_outboxes(kernel);
            // Many turns bring nothing to send.
            if !self.turn.entries().is_empty() {
                let turn = std::mem::take(&mut self.turn);
                self.write_entries(&turn, turn.entries(), kernel);
                self.turn = turn;
            }
        }
        self.turn.clear();
        self.note_written();
        self.record_deliveries(kernel);
        self.tell_notices(kernel);
        self.say_ends(kernel);
        self.end_connections(kernel);
        for (socket, token, writable_parked) in self.closes.drain(..) {
            kernel.close(socket, token, writable_parked);
        }
    }

    /// What the turn has delivered has been sent, or waits for a slow client.
    fn record_deliveries<K: Kernel>(&mut self, kernel: &K) {
        if self.delivering.is_empty() {
            return;
        }
        let now_us = kernel.now_us();
        for taken_in_us in self.delivering.drain(..) {
            self.counters.ingest_to_socket.record(now_us.saturating_sub(taken_in_us));
        }
    }

    /// Gives connections that ask the server API to the control thread.
    fn hand_over<K: Kernel>(&mut self, kernel: &K) {
        for (index, received) in std::mem::take(&mut self.handed_over) {
            // Its deadline may have passed in the same turn.
            if self.connection(index).has(Flag::Left) {
                continue;
            }
            match kernel.duplicate(self.connection(index).socket) {
                Ok(socket) => {
                    let connection = ApiConnection { socket, received };
                    self.mesh.to_control.send(ToControl::ApiConnection(Box::new(connection)));
                }
                Err(_) => self.count(index, Reason::DescriptorsExhausted, ""),
            }
            self.let_go(index);
        }
    }

    fn act_on_overflows(&mut self) {
        // Acting on one may bring up another, of the same turn.
        while let Some((index, overflow)) = self.overflows.pop() {
            match overflow {
                Overflow::Disconnect => self.disconnect(index, Disconnect::SLOW, Reason::Slow),
                Overflow::Resync(topic) => self.resync(index, topic),
            }
        }
    }

    /// Takes a slow connection out of a channel, so that its SDK subscribes anew and recovers from its own offset.
    /// A server-side subscription is made with a connection only, so there the SDK has to connect anew.
    fn resync(&mut self, index: u32, topic: u32) {
        let Some(subscription) = self.connection(index).subscriptions.find(&self.further, topic) else { return };
        if subscription.marks().is_server_side {
            return self.disconnect(index, Disconnect::INSUFFICIENT_STATE, Reason::Resync);
        }
        let channel = self.topics.name(topic).to_owned();
        self.unsubscribe_by_server(index, &channel, Unsubscribe::INSUFFICIENT_STATE);
        let connection = &mut self.connections[index as usize];
        if let Some(outbox) = connection.extra.as_mut().and_then(|extra| extra.outbox.as_mut()) {
            let before = outbox.bytes();
            self.counters.dropped[crate::config::SlowConsumerPolicy::Resync as usize] += outbox.drop_topic(topic);
            self.outbox_bytes -= (before - outbox.bytes()) as u64;
        }
        self.count(index, Reason::Resync, &channel);
    }

    /// While outboxes take more than the shard may spend on them, the connection with the most goes.
    fn shed_worst(&mut self) {
        let bytes_max = self.config.shards.outboxes_bytes_max;
        if self.waiting_bytes() <= bytes_max {
            return;
        }
        for (_, index) in self.outboxes_by_size() {
            if self.waiting_bytes() <= bytes_max {
                return;
            }
            self.close_with_outbox(index);
        }
    }

    /// Bytes that wait for slow clients: in outboxes, and sealed already.
    pub fn waiting_bytes(&self) -> u64 {
        self.outbox_bytes + self.tls.as_ref().map_or(0, |tls| tls.waiting_bytes())
    }

    /// Connections that something waits for, those with the most first, with its bytes.
    pub fn outboxes_by_size(&self) -> Vec<(usize, u32)> {
        let bytes = |index: u32| self.outbox(index).map_or(0, Outbox::bytes) + self.sealed_bytes(index);
        let mut worst: Vec<(usize, u32)> = self.backlogged.iter().map(|index| (bytes(*index), *index)).collect();
        worst.sort_unstable_by(|left, right| right.cmp(left));
        worst
    }

    /// Ends a connection for the memory of what waits for it.
    pub fn close_with_outbox(&mut self, index: u32) {
        self.disconnect(index, Disconnect::SLOW, Reason::Memory);
        if self.outbox(index).is_some_and(|outbox| !outbox.is_empty()) {
            // Its last frame and close frame may wait no longer than the others' room allows.
            self.drop_outbox(index);
            self.connection_mut(index).set(Flag::Dropping);
            self.ending.push(index);
        }
    }

    /// What waits to be sent to a connection.
    pub fn outbox(&self, index: u32) -> Option<&Outbox> {
        self.connection(index).extra.as_ref()?.outbox.as_deref()
    }

    /// Bytes of replies that a connection has not taken yet.
    pub fn waiting_reply_bytes(&self, index: u32) -> usize {
        self.outbox(index).map_or(0, Outbox::own_bytes)
    }

    /// Answers a command of a connection.
    pub fn reply(&mut self, index: u32, command: u32, reply: &Reply<'_>) {
        self.tell(index, |form, out| form.write_reply(out, command, reply));
    }

    /// Tells one connection something unasked.
    pub fn push(&mut self, index: u32, channel: &str, push: &Push<'_>) {
        self.tell(index, |form, out| form.write_push(out, channel, push));
    }

    /// Writes a message for one connection.
    fn tell(&mut self, index: u32, write: impl FnOnce(Form, &mut Vec<u8>)) {
        let start = self.turn.replies.len();
        write(self.connection(index).form, &mut self.turn.replies);
        self.counters.messages_sent += 1;
        self.give_replies(index, start);
    }

    /// Drops what waits for a connection that is about to be told its end; a frame that has begun stays.
    pub fn forget_backlog(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        let Some(outbox) = connection.extra.as_mut().and_then(|extra| extra.outbox.as_mut()) else { return };
        let before = outbox.bytes();
        outbox.clear();
        self.outbox_bytes -= (before - outbox.bytes()) as u64;
        if outbox.is_empty() && !self.has_sealed(index) {
            self.drop_outbox(index);
        }
    }

    /// The outbox goes with all that it holds.
    pub fn drop_outbox(&mut self, index: u32) {
        self.drop_sealed(index);
        let connection = &mut self.connections[index as usize];
        if !connection.clear(Flag::Backlogged) {
            return;
        }
        let outbox = connection.extra_mut().outbox.take().expect("Backlogged means that there is an outbox");
        connection.drop_empty_extra();
        self.outbox_bytes -= outbox.bytes() as u64;
        self.backlogged.remove(&index);
    }

    /// Takes what has waited for a connect reply out of the outbox; what was there before goes on.
    pub fn take_held(&mut self, index: u32, items_ahead: usize) -> Option<Outbox> {
        let outbox = self.connections[index as usize].extra.as_mut()?.outbox.as_mut()?;
        let held = outbox.split_off(items_ahead);
        self.outbox_bytes -= held.bytes() as u64;
        if outbox.is_empty() && !self.has_sealed(index) {
            self.drop_outbox(index);
        } else {
            self.writable.push(index);
        }
        Some(held)
    }

    /// Gives a connection an outbox; everything new goes there until it is empty.
    pub fn begin_backlog(&mut self, index: u32, outbox: Outbox) {
        let depth = outbox.bytes() + self.sealed_bytes(index);
        let connection = &mut self.connections[index as usize];
        let was_set = connection.set(Flag::Backlogged);
        assert!(!was_set, "a connection has one outbox");
        self.outbox_bytes += outbox.bytes() as u64;
        self.counters.outbox_depth.record(depth as u64);
        connection.extra_mut().outbox = Some(Box::new(outbox));
        self.backlogged.insert(index);
    }

    /// Sends what outboxes hold, as far as sockets take it.
    pub fn write_outboxes<K: Kernel>(&mut self, kernel: &mut K) {
        if self.writable.is_empty() {
            return;
        }
        let mut outcomes = std::mem::take(&mut self.send_outcomes);
        let mut bytes = Vec::new();
        for index in std::mem::take(&mut self.writable) {
            // The index may have another connection by now; then it has no outbox, or one that may be tried as well.
            let Some(connection) = self.connections.get(index as usize) else { continue };
            if connection.has(Flag::WritableParked) {
                continue;
            }
            // What it was given before its outbox began goes first.
            if connection.entry != Turn::NO_ENTRY {
                self.writable.push(index);
                continue;
            }
            let Some(outbox) = self.outbox(index).filter(|_| !self.is_connecting(index)) else { continue };
            bytes.clear();
            outbox.peek(&mut bytes, OUTBOX_SEND_BYTES_MAX);
            kernel.send(&[Send { socket: connection.socket, bytes: &bytes }], &mut outcomes);
            self.counters.sends += 1;
            match outcomes[0] {
                Ok(sent) => {
                    self.counters.bytes_sent += sent as u64;
                    self.advance_outbox(index, sent);
                    if self.outbox(index).is_some_and(Outbox::is_empty) {
                        self.end_backlog(index);
                    } else if sent == bytes.len() {
                        self.writable.push(index);
                    } else {
                        self.park_writable(index, kernel);
                    }
                }
                Err(error) => self.send_failed(index, error, kernel),
            }
        }
        self.send_outcomes = outcomes;
    }

    /// The first bytes of an outbox are on their way.
    pub fn advance_outbox(&mut self, index: u32, bytes: usize) {
        self.outbox_bytes -= bytes as u64;
        let outbox = self.connections[index as usize].extra_mut().outbox.as_mut();
        outbox.expect("Backlogged means that there is an outbox").advance(bytes);
    }

    /// Nothing waits for a connection any more, or nothing that could be sent.
    pub fn end_backlog(&mut self, index: u32) {
        self.drop_outbox(index);
        if self.connection(index).has(Flag::Left) {
            self.ending.push(index);
        }
    }

    /// Sends connections what the turn has brought.
    #[inline]
    pub fn write_entries<K: Kernel>(&mut self, turn: &Turn, entries: &[Entry], kernel: &mut K) {
        let mut outcomes = std::mem::take(&mut self.send_outcomes);
        let mut gathered = Vec::new();
        for entries in entries.chunks(SEND_BATCH_MAX) {
            gathered.clear();
            let mut gathered_ends = Vec::new();
            for entry in entries {
                if turn.contiguous(*entry).is_none() {
                    turn.pieces(*entry).for_each(|(_, piece)| gathered.extend_from_slice(turn.piece_bytes(piece)));
                    gathered_ends.push(gathered.len());
                }
            }
            let mut sends = Vec::with_capacity(entries.len());
            let (mut gathered_start, mut gathered_ends) = (0, gathered_ends.into_iter());
            for entry in entries {
                let bytes = turn.contiguous(*entry).unwrap_or_else(|| {
                    let end = gathered_ends.next().expect("one end for each entry that was gathered");
                    &gathered[std::mem::replace(&mut gathered_start, end)..end]
                });
                sends.push(Send { socket: self.connection(entry.connection).socket, bytes });
            }
            kernel.send(&sends, &mut outcomes);
            self.counters.sends += sends.len() as u64;
            for ((entry, send), outcome) in entries.iter().zip(&sends).zip(&outcomes) {
                let index = entry.connection;
                self.connection_mut(index).entry = Turn::NO_ENTRY;
                match *outcome {
                    Ok(sent) => {
                        self.counters.bytes_sent += sent as u64;
                        if sent < send.bytes.len() {
                            self.spill(index, turn, *entry, sent);
                            self.park_writable(index, kernel);
                        }
                    }
                    Err(error) => {
                        self.spill(index, turn, *entry, 0);
                        self.send_failed(index, error, kernel);
                    }
                }
            }
        }
        self.send_outcomes = outcomes;
    }

    /// What the socket did not take becomes the connection's outbox.
    pub fn spill(&mut self, index: u32, turn: &Turn, entry: Entry, mut sent: usize) {
        let mut outbox = Outbox::default();
        for (batch, piece) in turn.pieces(entry) {
            let skipped = sent.min(piece.bytes());
            sent -= skipped;
            if skipped == piece.bytes() {
                continue;
            }
            let (start, end) = piece.range();
            let start = start + skipped as u32;
            let is_begun = match batch {
                Some(batch) => batch.frame_end(start) != start,
                None => skipped > 0,
            };
            outbox.push_rest(batch, start, end, &turn.piece_bytes(piece)[skipped..], is_begun);
            if let Some(batch) = batch.filter(|batch| batch.policy.drops()) {
                self.lose_base(index, batch.topic);
            }
        }
        // An entry is older than the wait for a connect to complete: a stream's head, which nothing may overtake.
        if let Some(connecting) = self.connecting_mut(index) {
            connecting.items_ahead += outbox.items();
        }
        if self.connection(index).has(Flag::Backlogged) {
            // Begun after the entry, by a session that waits for its connect to complete: what was given first goes first.
            self.prepend_outbox(index, outbox);
        } else {
            self.begin_backlog(index, outbox);
        }
    }

    fn prepend_outbox(&mut self, index: u32, mut first: Outbox) {
        let extra = self.connections[index as usize].extra_mut();
        let outbox = extra.outbox.as_mut().expect("Backlogged means that there is an outbox");
        self.outbox_bytes += first.bytes() as u64;
        first.append(std::mem::take(outbox));
        **outbox = first;
    }

    pub fn send_failed<K: Kernel>(&mut self, index: u32, error: nix::errno::Errno, kernel: &mut K) {
        use nix::errno::Errno;
        match error {
            // No room in the socket, or no memory for it just now: the kernel says when to go on.
            Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS | Errno::ENOMEM => self.park_writable(index, kernel),
            _ => self.peer_ended(index, Reason::PeerReset),
        }
    }

    pub fn park_writable<K: Kernel>(&mut self, index: u32, kernel: &mut K) {
        let connection = &mut self.connections[index as usize];
        if !connection.set(Flag::WritableParked) {
            kernel.park_writable(connection.socket, connection.token(index));
        }
    }

    /// Connections that have left and have nothing more to be sent: sockets are closed, or only our side is shut.
    fn end_connections<K: Kernel>(&mut self, kernel: &mut K) {
        for index in std::mem::take(&mut self.ending) {
            let Some(connection) = self.connections.get_mut(index as usize) else { continue };
            if connection.has(Flag::Backlogged) {
                continue;
            }
            if connection.has(Flag::Dropping) {
                self.remove(index);
            } else if connection.clear(Flag::Shutting) {
                kernel.shut_down(connection.socket);
            }
        }
    }
}

/// What a batch touches when it is given to connections.
pub struct Giving<'a> {
    pub connections: &'a mut ConnectionSlab,
    pub further: &'a mut FurtherSubscriptions,
    pub turn: &'a mut Turn,
    pub compression: &'a mut Compression,
    counters: &'a mut Counters,
    overflows: &'a mut Vec<(u32, Overflow)>,
    outbox_bytes: &'a mut u64,
    outbox_bytes_max: usize,
}

impl Giving<'_> {
    /// Closes a batch and gives it to connections.
    pub fn give_batch(&mut self, open: u32, connections: &[u32]) {
        let batch = self.close(open);
        for index in connections {
            self.give(*index, &batch);
        }
        self.count_messages(&batch, connections);
    }

    /// Gives a topic's subscribers its patches; to those that lack the base, or may be made to, the same publications
    /// whole. `terms`: they have agreed on compression. Whether some lack the base of the next patch.
    pub fn give_chain(
        &mut self,
        topic: u32,
        patches: u32,
        wholes: Option<u32>,
        terms: Option<Terms>,
        connections: &[u32],
    ) -> bool {
        let mut patches = Versions::new(self.close(patches));
        let Some(wholes) = wholes else {
            connections.iter().for_each(|index| self.give_version(*index, &mut patches, terms));
            self.count_messages(&patches.plain, connections);
            return false;
        };
        let mut wholes = Versions::new(self.close(wholes));
        let drops = patches.plain.shared.policy.drops();
        let mut lacks_base = false;
        for index in connections {
            let connection = &mut self.connections[*index as usize];
            let may_lose = drops && connection.has(Flag::Backlogged);
            let subscription = connection.subscriptions.find(self.further, topic).expect("a topic lists its members");
            let takes_patches = subscription.has_base() && !may_lose;
            if subscription.has_base() == may_lose {
                connection.subscriptions.replace(self.further, subscription.with_base(!may_lose));
            }
            lacks_base |= may_lose;
            self.give_version(*index, if takes_patches { &mut patches } else { &mut wholes }, terms);
        }
        self.count_messages(&patches.plain, connections);
        lacks_base
    }

    #[inline]
    fn give_version(&mut self, index: u32, versions: &mut Versions, terms: Option<Terms>) {
        match terms {
            None => self.give(index, &versions.plain),
            Some(terms) => self.give_alone(index, versions, terms),
        }
    }

    pub fn close(&mut self, open: u32) -> Closed {
        let (index, end) = self.turn.close_batch(open);
        Closed { index, end, shared: Rc::clone(self.turn.batch(index)) }
    }

    /// What a subscriber that keeps up costs: in the loop over all of them, and nothing else with it.
    #[inline(always)]
    pub fn give(&mut self, index: u32, batch: &Closed) {
        let connection = &mut self.connections[index as usize];
        // On its way out, still in some topics: nothing may follow its close frame.
        if connection.has(Flag::Left) {
            return;
        }
        if connection.has(Flag::Backlogged) {
            return self.keep_waiting(index, batch);
        }
        self.turn.give(index, &mut connection.entry, batch.index, 0, batch.end);
    }

    /// Appends a batch to what waits for a connection already.
    fn keep_waiting(&mut self, index: u32, batch: &Closed) {
        let connection = &mut self.connections[index as usize];
        let outbox = connection.extra_mut().outbox.as_mut().expect("Backlogged means that there is an outbox");
        let before = outbox.bytes();
        self.counters.outbox_depth.record(before as u64 + u64::from(batch.end));
        let dropped = &mut self.counters.dropped[batch.shared.policy as usize];
        let result = outbox.push_shared(&batch.shared, 0, batch.end, self.outbox_bytes_max, dropped);
        *self.outbox_bytes = *self.outbox_bytes + outbox.bytes() as u64 - before as u64;
        if let Err(overflow) = result {
            self.overflows.push((index, overflow));
        }
    }

    pub fn count_messages(&mut self, batch: &Closed, connections: &[u32]) {
        self.counters.messages_sent += (batch.shared.ends.len() * connections.len()) as u64;
    }
}

/// A batch that is being given.
pub struct Closed {
    /// Among the turn's closed ones.
    index: u32,
    /// Its length in bytes.
    pub end: u32,
    pub shared: Rc<Batch>,
}
