//! The ingest thread's state: its end of the mesh, its producers, its figures.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hashbrown::HashMap;

use super::{
    counters::Counters,
    decompression::{DecompressionFault, Decompressor},
    producer::Producer,
    signal::Signal,
};
use crate::{
    config::Config,
    limits::MESH_TURN_MESSAGES_MAX,
    mesh::{Answer, Bell, ChannelHasher, ChannelName, IngestMesh, Sampler, ToControl, ToIngest, ToShard},
    resp::Limits,
    tls::{Channel, Port},
};

/// Everything that commands act on. Borrowed between awaits, never across one.
pub(super) struct IngestState {
    pub(super) config: Arc<Config>,
    pub(super) hasher: ChannelHasher,
    pub(super) counters: Counters,
    pub(super) started_at: Instant,
    /// Of the TCP listener, for INFO; 0 without one.
    pub(super) tcp_port: u16,
    decompressor: Decompressor,
    /// Chooses which publications are traced.
    pub(super) sampler: Sampler,
    mesh: IngestMesh,
    connections: HashMap<u64, Rc<Connection>>,
    connections_so_far: u64,
    /// Of the connections, those whose TLS handshake is under way.
    handshakes: usize,
    /// Whether a full queue keeps producers from being read.
    was_holding: bool,
    is_stopping: bool,
    is_out_of_time: bool,
}

/// A producer's connection, as its reader, its writer and the pump share it.
pub(super) struct Connection {
    pub(super) producer: RefCell<Producer>,
    /// Something can be written, or the connection ends.
    pub(super) output: Signal,
    /// What kept the reader from reading may be gone.
    pub(super) room: Signal,
    /// What lies between its bytes and its socket, if the port speaks TLS.
    pub(super) tls: Option<RefCell<Channel>>,
    /// When its TLS handshake must be over; none: it is, or there is none.
    handshake_ends_at: Cell<Option<Instant>>,
}

impl Connection {
    /// When its TLS handshake must be over, if one is under way.
    pub(super) fn handshake_ends_at(&self) -> Option<Instant> {
        self.handshake_ends_at.get()
    }
}

impl IngestState {
    pub(super) fn new(config: Arc<Config>, hasher: ChannelHasher, mesh: IngestMesh, tcp_port: u16) -> Self {
        let decompressor = Decompressor::new(&config.ingest.zstd_dictionaries);
        // Its number is the first behind those of the shards.
        let sampler = Sampler::new(&config.tracing, mesh.to_shards.len(), hasher.clone());
        Self {
            config,
            hasher,
            counters: Counters::new(),
            started_at: Instant::now(),
            tcp_port,
            decompressor,
            sampler,
            mesh,
            connections: HashMap::new(),
            connections_so_far: 0,
            handshakes: 0,
            was_holding: false,
            is_stopping: false,
            is_out_of_time: false,
        }
    }

    /// A producer has connected; none: there are too many, or too many that have not shaken hands.
    pub(super) fn connect(&mut self, address: String, tls: Option<&Arc<Port>>) -> Option<Rc<Connection>> {
        self.counters.accepted += 1;
        if self.connections.len() >= self.config.ingest.connections_max as usize {
            self.counters.count_reason("too_many_connections");
            return None;
        }
        if tls.is_some() && self.handshakes >= self.config.ingest.tls.handshakes_max as usize {
            self.counters.count_reason("tls_handshakes_exhausted");
            return None;
        }
        self.connections_so_far += 1;
        let id = self.connections_so_far;
        let ingest = &self.config.ingest;
        let handshake_time_max = Duration::from_millis(ingest.tls.handshake_ms_max.into());
        self.handshakes += usize::from(tls.is_some());
        let producer = Producer::new(id, address, ingest.password.is_some(), ingest.payload_bytes_max as usize);
        let connection = Rc::new(Connection {
            producer: RefCell::new(producer),
            output: Signal::default(),
            room: Signal::default(),
            tls: tls.map(|port| RefCell::new(Channel::new(port))),
            handshake_ends_at: Cell::new(tls.map(|_| Instant::now() + handshake_time_max)),
        });
        self.connections.insert(id, Rc::clone(&connection));
        Some(connection)
    }

    /// What wakes the thread.
    pub(super) fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.mesh.bell)
    }

    /// A producer's connection has ended. What shards still answer it goes nowhere.
    pub(super) fn disconnect(&mut self, id: u64) {
        if let Some(connection) = self.connections.remove(&id) {
            self.end_handshake(&connection);
        }
    }

    /// A connection's TLS handshake is over, well or not.
    pub(super) fn end_handshake(&mut self, connection: &Connection) {
        self.handshakes -= usize::from(connection.handshake_ends_at.take().is_some());
    }

    /// What a payload was before its producer compressed it.
    pub(super) fn decompress(&mut self, payload: &[u8]) -> Result<Bytes, DecompressionFault> {
        let decompressed = self.decompressor.decompress(payload, self.config.ingest.payload_bytes_max as usize)?;
        self.counters.compressed_payloads += 1;
        self.counters.compressed_bytes += payload.len() as u64;
        self.counters.decompressed_bytes += decompressed.len() as u64;
        Ok(decompressed)
    }

    /// Producers connected now.
    pub(super) fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Shards of this process.
    pub(super) fn shards(&self) -> usize {
        self.mesh.to_shards.len()
    }

    /// To a channel's home.
    pub(super) fn send_home(&mut self, channel: &ChannelName, message: ToShard) {
        let home = channel.home(self.shards());
        self.mesh.to_shards[home].send(message);
    }

    /// To one shard.
    pub(super) fn send_to(&mut self, shard: usize, message: ToShard) {
        self.mesh.to_shards[shard].send(message);
    }

    /// Whether a full queue holds messages back: nothing more may be taken in.
    pub(super) fn is_holding(&self) -> bool {
        self.mesh.to_shards.iter().any(|outlet| outlet.is_holding())
    }

    /// After a batch of commands: wakes the shards that were sent something.
    pub(super) fn ring(&mut self) {
        self.mesh.to_shards.iter_mut().for_each(|outlet| outlet.ring());
        if self.is_holding() && !self.was_holding {
            self.was_holding = true;
            self.counters.backpressure += 1;
        }
    }

    /// Sends what was held back, as far as there is room; lets producers go on when all is gone.
    pub(super) fn flush(&mut self) {
        for outlet in &mut self.mesh.to_shards {
            outlet.flush();
            outlet.ring();
        }
        self.mesh.to_control.flush();
        self.mesh.to_control.ring();
        if self.was_holding && !self.is_holding() {
            self.was_holding = false;
            self.connections.values().for_each(|connection| connection.room.raise());
        }
    }

    /// Takes what other threads have sent, at most a turn's share of each queue. Whether there was anything.
    pub(super) fn drain(&mut self) -> bool {
        let mut has_drained = false;
        for queue in 0..self.mesh.inbound.len() {
            for _ in 0..MESH_TURN_MESSAGES_MAX {
                let Ok(message) = self.mesh.inbound[queue].try_recv() else { break };
                has_drained = true;
                self.receive(message);
            }
        }
        has_drained
    }

    /// Announces that the thread may sleep. False: something arrived, and it must not.
    pub(super) fn begin_sleep(&self) -> bool {
        self.mesh.bell.begin_sleep();
        let may_sleep = self.mesh.inbound.iter().all(|queue| queue.is_empty());
        if !may_sleep {
            self.mesh.bell.end_sleep();
        }
        may_sleep
    }

    /// The thread is awake, for whatever reason.
    pub(super) fn end_sleep(&self) {
        self.mesh.bell.end_sleep();
    }

    /// Whether [`ToIngest::Shutdown`] has come.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// Whether a stop has taken so long that pending replies are given up.
    pub(super) fn is_out_of_time(&self) -> bool {
        self.is_out_of_time
    }

    /// Gives up pending replies.
    pub(super) fn give_up(&mut self) {
        self.is_out_of_time = true;
        self.wake_all();
    }

    /// Lets every reader and writer look at its state again.
    pub(super) fn wake_all(&self) {
        for connection in self.connections.values() {
            connection.room.raise();
            connection.output.raise();
        }
    }

    /// The thread's last word; it is said when [`IngestState::is_flushed`].
    pub(super) fn say_stopped(&mut self) {
        self.mesh.to_control.send(ToControl::IngestStopped);
        self.mesh.to_control.ring();
    }

    /// Whether all that was sent has found its queue.
    pub(super) fn is_flushed(&self) -> bool {
        !self.is_holding() && !self.mesh.to_control.is_holding()
    }

    fn receive(&mut self, message: ToIngest) {
        match message {
            ToIngest::Answer { connection, sequence, answer } => self.answer(connection, sequence, answer),
            ToIngest::Reconfigure { config, reload } => {
                self.reconfigure(config);
                self.mesh.to_control.send(ToControl::Reconfigured { reload });
            }
            ToIngest::Shutdown => self.is_stopping = true,
            ToIngest::Observe { ticket } => {
                let figures = Box::new(self.counters.figures(self.connections.len()));
                self.mesh.to_control.send(ToControl::Ingest { ticket, figures });
            }
        }
    }

    /// From now on this configuration counts. Who is authenticated stays so, and who had no password to give, too.
    fn reconfigure(&mut self, config: Arc<Config>) {
        if self.config.ingest.zstd_dictionaries != config.ingest.zstd_dictionaries {
            self.decompressor = Decompressor::new(&config.ingest.zstd_dictionaries);
        }
        if self.config.tracing != config.tracing {
            self.sampler.configure(&config.tracing);
        }
        self.config = config;
        let limits = Limits::new(self.config.ingest.payload_bytes_max as usize);
        for connection in self.connections.values() {
            let mut producer = connection.producer.borrow_mut();
            if producer.is_authenticated {
                producer.limits = limits;
            }
        }
    }

    fn answer(&mut self, connection: u64, sequence: u64, answer: Answer) {
        let Some(connection) = self.connections.get(&connection) else { return };
        let mut producer = connection.producer.borrow_mut();
        let had_room = producer.has_room();
        producer.replies.answer(sequence, answer);
        if producer.replies.output_bytes() > 0 {
            connection.output.raise();
        }
        if !had_room && producer.has_room() {
            connection.room.raise();
        }
    }
}
