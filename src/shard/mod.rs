//! One core's loop: the only place where the circle from socket to socket closes.
//!
//! Owns the order of things within a turn, the slab of connections and the moving of values between
//! the pure modules: what a client may say is `session`'s, what a channel remembers `channel`'s, who
//! gets which bytes `fanout`'s, what the kernel does `uring`'s.
//!
//! A turn: wait for events · receive what has arrived and let sessions act · take in messages of
//! other threads · run due timers · let other threads know · hand out the topics' batches · send, once per
//! connection · close.
//!
//! Invariants:
//! - A connection's slot goes only between those steps, never while its session acts; so whoever
//!   has an index in hand during a step has a live connection.
//! - While messages are held back for a full queue, the shard takes nothing from producers, receives
//!   nothing from clients, and lets other shards' publications wait; otherwise what is held back would
//!   grow without bound. What other shards ask is always taken in, so that no two wait for each other:
//!   it is bounded by the requests that each of them has unanswered, and by the subscriptions that they end.
//! - Everything that a turn gives to connections has been sent, kept in outboxes or dropped by policy
//!   when the turn ends; the turn's buffers are empty between turns.

mod admitting;
mod compressing;
mod connection;
mod deltas;
mod denying;
mod figures;
mod grants;
mod handshakes;
mod heartbeat;
mod hooks;
mod inbox;
mod keys;
mod listener;
mod listing;
mod members;
mod notices;
mod peer;
mod programs;
mod rates;
mod reload;
mod session_ids;
mod shedding;
mod slab;
mod state;
mod subscribing;
#[cfg(test)]
mod tests;
mod thread;
mod tls;
mod traces;
mod user_requests;
mod users;
mod view;
mod watched;
pub mod wheel;
mod writing;

use nix::errno::Errno;

pub use self::{
    connection::Connection,
    listener::{PassedError, adopt as adopt_listeners, open as open_listeners},
    slab::ConnectionSlab,
    thread::{ShardThread, StartError, spawn},
};
use self::{
    connection::{ClientIds, Flag},
    state::State,
};
use crate::{
    config::Config,
    limits::{RECEIVE_BATCH_MAX, RECEIVE_BYTES_MAX},
    mesh::{Admission, ChannelHasher, ShardMesh, ToControl},
    session::{Reason, Rules},
    uring::{Event, Kernel, KernelTls, Receive, Socket, Token},
};

/// Batches of receives in one turn, so that other threads' messages and timers get their share.
const RECEIVE_BATCHES_PER_TURN_MAX: usize = 16;

/// Milliseconds that accepting rests when descriptors or memory have run out.
const ACCEPT_REST_MS: u64 = 100;

/// Milliseconds between the waves in which clients are told to reconnect.
const DRAIN_WAVE_MS: u64 = 10;

/// What a shard is made of, beside its kernel.
pub struct ShardOptions {
    /// What the operator chose, until a reload brings another one.
    pub config: std::sync::Arc<Config>,
    /// What clients may do.
    pub rules: Rules,
    /// Alike in all threads.
    pub hasher: ChannelHasher,
    /// The shard's end of the mesh.
    pub mesh: ShardMesh,
    /// Places for connections.
    pub admission: Admission,
    /// Secret key of client ids and session ids, alike in all shards.
    pub client_id_key: [u8; 16],
    /// Seed of what need not be secret but should differ: epochs.
    pub seed: u64,
    /// The core that the shard runs on, for figures.
    pub core: u32,
    /// The clients' port, if it speaks TLS.
    pub tls: Option<std::sync::Arc<crate::tls::Port>>,
    /// What of TLS the kernel can do.
    pub kernel_tls: KernelTls,
}

/// Whether a shard goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It does.
    Running,
    /// It was told to stop, and its last connection is gone.
    Stopped,
}

/// One core's loop.
pub struct Shard<K> {
    kernel: K,
    state: State,
    events: Vec<Event>,
    receives: Vec<Receive>,
    receiving: Vec<u32>,
    outcomes: Vec<Result<usize, Errno>>,
}

impl<K: Kernel> Shard<K> {
    /// A shard that accepts clients from its first turn on.
    pub fn new(mut kernel: K, options: ShardOptions) -> Self {
        kernel.accept();
        let state = State::new(options, kernel.now_ms(), kernel.now_unix_seconds());
        Self { kernel, state, events: Vec::new(), receives: Vec::new(), receiving: Vec::new(), outcomes: Vec::new() }
    }

    /// Runs until the shard has stopped.
    pub fn run(mut self) {
        while self.turn() == Progress::Running {}
    }

    /// One turn.
    pub fn turn(&mut self) -> Progress {
        self.wait();
        let began_us = self.kernel.now_us();
        self.handle_events();
        self.receive();
        self.state.take_messages();
        self.state.look_for_denied(&self.kernel);
        self.stop_accepting();
        self.state.run_timers(&self.kernel);
        self.state.drain_wave();
        // Before a fan-out, which may take long: a producer hears that its publication is taken, and
        // other shards begin their part of it.
        self.ring_bells();
        self.state.end_turn(&mut self.kernel);
        self.state.counters.turns += 1;
        self.state.counters.turn_time.record(self.kernel.now_us() - began_us);
        self.state.answer_observer(|state| state.figures(&self.kernel));
        self.ring_bells();
        if self.state.is_stopped() {
            self.state.mesh.to_control.send(ToControl::ShardStopped { shard: self.state.mesh.shard });
            self.state.mesh.to_control.ring();
            return Progress::Stopped;
        }
        Progress::Running
    }

    /// The kernel, for a simulation that plays its part.
    pub fn kernel_mut(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// What the shard holds now, for a simulation that looks for leaks.
    pub fn figures(&self) -> crate::mesh::ShardFigures {
        self.state.figures(&self.kernel)
    }

    fn wait(&mut self) {
        let mut timeout_ms = self.state.sleep_ms(self.kernel.now_ms());
        if timeout_ms != Some(0) {
            self.state.mesh.bell.begin_sleep();
            if !self.state.mesh.is_empty() {
                timeout_ms = Some(0);
            }
        }
        self.kernel.wait(timeout_ms, &mut self.events);
        self.state.mesh.bell.end_sleep();
        self.state.now_ms = self.kernel.now_ms();
        self.state.now_unix_seconds = self.kernel.now_unix_seconds();
    }

    fn handle_events(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            match event {
                Event::Accepted(socket) => self.accepted(socket),
                Event::AcceptEnded(error) => self.accept_ended(error),
                Event::Ready { token, ended } => {
                    if let Some(connection) = self.state.live(token) {
                        if ended {
                            connection.set(Flag::Ended);
                        }
                        if !connection.set(Flag::Readable) {
                            self.state.readable.push_back(token.index);
                        }
                    }
                }
                Event::Unparked(token) => {
                    if let Some(socket) = self.state.live(token).map(|connection| connection.socket) {
                        self.kernel.park(socket, token);
                    }
                }
                Event::Writable(token) => {
                    if let Some(connection) = self.state.live(token) {
                        connection.clear(Flag::WritableParked);
                        self.state.writable.push(token.index);
                    }
                }
                Event::Rung => {}
            }
        }
        self.events = events;
        if self.state.accept_rests_until_ms.is_some_and(|until_ms| self.state.now_ms >= until_ms) {
            self.state.accept_rests_until_ms = None;
            self.kernel.accept();
        }
    }

    /// In the turn that brings the news: it may be the shard's last, and a listener that outlives it, as long as the
    /// kernel takes to tear down the ring, keeps the server's successor from its port.
    fn stop_accepting(&mut self) {
        if std::mem::take(&mut self.state.must_stop_accepting) {
            self.kernel.stop_accepting();
        }
    }

    fn accepted(&mut self, socket: Socket) {
        if std::mem::take(&mut self.state.is_accept_starved) {
            tracing::info!(shard = self.state.mesh.shard, "accepting again");
        }
        let address = if self.state.needs_address() { self.kernel.peer_address(socket) } else { None };
        let address = address.map(|address| address.ip());
        let token: Token = self.state.begin_connection(socket, address);
        self.kernel.park(socket, token);
    }

    fn accept_ended(&mut self, error: Option<Errno>) {
        if self.state.is_draining() {
            return;
        }
        match error {
            Some(error @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)) => {
                self.state.counters.count(Reason::DescriptorsExhausted);
                if !std::mem::replace(&mut self.state.is_accept_starved, true) {
                    tracing::warn!(
                        shard = self.state.mesh.shard,
                        sockets = self.state.connections.len(),
                        "accepting pauses: {}. Raise the limit: LimitNOFILE= in the unit, or ulimit -n, and fs.file-max",
                        error.desc()
                    );
                }
                self.state.accept_rests_until_ms = Some(self.state.now_ms + ACCEPT_REST_MS);
            }
            // A client that gave up while it waited, or a completion queue that ran full: nothing is wrong here.
            _ => self.kernel.accept(),
        }
    }

    fn receive(&mut self) {
        if let Some(tls) = &mut self.state.tls {
            tls.begin_turn(self.state.now_ms, &mut self.state.readable);
        }
        for _ in 0..RECEIVE_BATCHES_PER_TURN_MAX {
            if self.state.readable.is_empty() || !self.state.takes_from_clients() {
                return;
            }
            self.receives.clear();
            self.receiving.clear();
            while self.receives.len() < RECEIVE_BATCH_MAX
                && let Some(index) = self.state.readable.pop_front()
            {
                let Some(connection) = self.state.connections.get_mut(index as usize) else { continue };
                // While a session is paused its bytes stay in the socket, and TCP slows the client down.
                if connection.session.is_paused() {
                    continue;
                }
                if self.state.is_waiting(index) || self.state.tls.as_mut().is_some_and(|tls| tls.has_to_wait(index)) {
                    continue;
                }
                let connection = self.state.connection_mut(index);
                // The index may be in the list though its connection is gone and another has its place.
                if connection.clear(Flag::Readable) {
                    self.receives.push(Receive { socket: connection.socket });
                    self.receiving.push(index);
                }
            }
            self.kernel.receive(&self.receives, &mut self.outcomes);
            self.state.counters.receives += self.receives.len() as u64;
            for (position, outcome) in self.outcomes.iter().enumerate() {
                let index = self.receiving[position];
                match *outcome {
                    Ok(0) => self.state.peer_ended(index, Reason::PeerClosed),
                    Ok(bytes) => {
                        self.state.counters.bytes_received += bytes as u64;
                        let input = self.kernel.received(position, bytes);
                        // A receive ends before a record that is no data, which the kernel does not tell of by itself.
                        let more = bytes == RECEIVE_BYTES_MAX || self.state.is_sealed_by_kernel(index);
                        if self.state.seals(index) {
                            self.state.receive_sealed(index, input);
                        } else {
                            self.state.converse_with_input(index, input);
                        }
                        if !self.state.charge_received(index, bytes) {
                            self.state.receive_again(index, more);
                        }
                    }
                    Err(Errno::EAGAIN) => {
                        // An end would have been received: a failed watch said so wrongly.
                        self.state.connection_mut(index).clear(Flag::Ended);
                    }
                    Err(Errno::EINTR | Errno::ENOBUFS | Errno::ENOMEM) => self.state.receive_again(index, true),
                    Err(error) if self.state.is_sealed_by_kernel(index) => {
                        self.state.receive_control(index, error, &self.kernel);
                    }
                    Err(_) => self.state.peer_ended(index, Reason::PeerReset),
                }
            }
        }
    }

    fn ring_bells(&mut self) {
        let own = usize::from(self.state.mesh.shard);
        for (shard, outlet) in self.state.mesh.to_shards.iter_mut().enumerate() {
            outlet.flush();
            // What a shard sends to itself it finds before it sleeps.
            if outlet.claim_bell() && shard != own {
                self.kernel.ring(shard as u16);
            }
        }
        self.state.mesh.to_ingest.flush();
        self.state.mesh.to_ingest.ring();
        self.state.mesh.to_control.flush();
        self.state.mesh.to_control.ring();
    }
}
