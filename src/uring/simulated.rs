//! The kernel of simulations: sockets, readiness and time that one seed decides.
//!
//! Owns a network in one thread: the shards' ends are [`SimulatedKernel`]s, the clients' ends
//! [`Peer`]s. It does what the real kernel may do and a test never sees it do: bytes arrive in any
//! pieces, events late and in any order between connections, sends take a part, memory and
//! descriptors run out, peers reset, poll requests end by themselves. Who acts when, and how time
//! passes, is the simulation's business.
//!
//! It keeps the promises that the shard relies on, and no more:
//! - Events of one request arrive in order; what arrives on a watched socket is told of, but several
//!   arrivals may be told of once.
//! - A receive brings all that has arrived, up to its part of the buffer.
//! - A socket is told to be writable only when asked for; every byte that a send took reaches the
//!   client in order, unless the connection is reset.
//!
//! It panics, by design, when a shard uses a socket after closing it, or twice asks for what is
//! under way already: a real kernel would do that to somebody else's connection.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    rc::Rc,
};

use nix::errno::Errno;
use slab::Slab;

use super::{Event, Kernel, PathQuality, Receive, Send, Socket, Token};
use crate::limits::{RECEIVE_BATCH_MAX, RECEIVE_BYTES_MAX, SEND_BATCH_MAX};

/// Numbers below a bound, from the simulation's seed.
pub type Dice = Box<dyn FnMut(u64) -> u64>;

/// How often what goes wrong: times in a thousand chances.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// An event stays behind for another turn.
    pub event_delays: u64,
    /// A send takes less than it could.
    pub short_sends: u64,
    /// A send or a receive finds no memory (`ENOBUFS`).
    pub memory_shortages: u64,
    /// A signal interrupts (`EINTR`).
    pub interrupts: u64,
    /// An accept finds no descriptor (`EMFILE`) though few are in use.
    pub descriptor_shortages: u64,
    /// An accept request ends by itself.
    pub accept_ends: u64,
    /// A poll request ends by itself, behind an event.
    pub unparks: u64,
    /// Sockets that the shards may have, all together; beyond, accepting brings `EMFILE`.
    pub descriptors_max: usize,
}

/// The network, shared by the kernels and the clients of one simulation.
#[derive(Clone)]
pub struct SimulatedNetwork(Rc<RefCell<Network>>);

/// One shard's kernel.
pub struct SimulatedKernel {
    network: SimulatedNetwork,
    shard: usize,
    scratch: Vec<u8>,
    enters: u64,
}

/// A client's end of a connection.
pub struct Peer {
    network: SimulatedNetwork,
    connection: usize,
}

/// What a client's read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// So many bytes; 0: nothing there yet.
    Bytes(usize),
    /// The server has ended the stream, and all of it has been read.
    Ended,
    /// The server has reset the connection.
    Reset,
}

impl SimulatedNetwork {
    /// A network between clients and `shards` shards.
    pub fn new(shards: usize, faults: Faults, dice: Dice) -> Self {
        Self(Rc::new(RefCell::new(Network {
            dice,
            faults,
            now_ms: 1_000,
            ports: (0..shards).map(|_| Port::default()).collect(),
            connections: Slab::new(),
            sockets: BTreeMap::new(),
            fingerprint: 0,
            is_traced: false,
            deeds: None,
        })))
    }

    /// The kernel of one shard.
    pub fn kernel(&self, shard: usize) -> SimulatedKernel {
        SimulatedKernel {
            network: self.clone(),
            shard,
            scratch: vec![0; RECEIVE_BATCH_MAX * RECEIVE_BYTES_MAX],
            enters: 0,
        }
    }

    /// A client that connects to a shard and has a receive buffer of `room` bytes.
    pub fn connect(&self, shard: usize, room: usize) -> Peer {
        self.connect_from(IpAddr::V4(Ipv4Addr::LOCALHOST), shard, room)
    }

    /// The same, from an address.
    pub fn connect_from(&self, address: IpAddr, shard: usize, room: usize) -> Peer {
        let connection = self.0.borrow_mut().connect(address, shard, room);
        Peer { network: self.clone(), connection }
    }

    /// Lets a piece of what some client has sent arrive; false: nothing is under way.
    pub fn carry(&self) -> bool {
        self.0.borrow_mut().carry()
    }

    /// Milliseconds on the clock of all.
    pub fn now_ms(&self) -> u64 {
        self.0.borrow().now_ms
    }

    /// Time passes.
    pub fn pass(&self, ms: u64) {
        self.0.borrow_mut().now_ms += ms;
    }

    /// From now on nothing goes wrong by itself, so that what is under way comes to its end.
    pub fn calm(&self) {
        self.0.borrow_mut().faults = Faults { descriptors_max: usize::MAX, ..Faults::default() };
    }

    /// Prints what the shards ask for and get.
    pub fn trace(&self) {
        self.0.borrow_mut().is_traced = true;
    }

    /// What the shards asked for since the last call, by name and in order; the first call begins the record.
    pub fn deeds(&self) -> Vec<&'static str> {
        self.0.borrow_mut().deeds.replace(Vec::new()).unwrap_or_default()
    }

    /// Another thread's bell has become readable for the shard.
    pub fn ring(&self, shard: usize) {
        self.0.borrow_mut().ports[shard].announce(Event::Rung);
    }

    /// Whether the shard's last wait found nothing, and nothing has happened since that would have ended it.
    pub fn is_asleep(&self, shard: usize) -> bool {
        let network = self.0.borrow();
        let port = &network.ports[shard];
        match port.sleep {
            None => false,
            Some(until_ms) => port.events.is_empty() && until_ms.is_none_or(|until_ms| network.now_ms < until_ms),
        }
    }

    /// When the shard's sleep ends by itself, if it sleeps and has said so.
    pub fn wakes_ms(&self, shard: usize) -> Option<u64> {
        self.0.borrow().ports[shard].sleep.flatten()
    }

    /// Sockets that shards have open.
    pub fn sockets(&self) -> usize {
        self.0.borrow().sockets.len()
    }

    /// A number that differs, all but surely, as soon as two runs differ in what shards asked for or got.
    pub fn fingerprint(&self) -> u64 {
        self.0.borrow().fingerprint
    }
}

impl Peer {
    /// Sends; it arrives as [`SimulatedNetwork::carry`] goes on.
    pub fn write(&self, bytes: &[u8]) {
        let mut network = self.network.0.borrow_mut();
        let connection = &mut network.connections[self.connection];
        assert!(connection.client == ClientEnd::Open, "the client has ended its stream");
        connection.under_way.extend(bytes);
    }

    /// Reads at most `bytes_max` bytes to the end of `into`.
    pub fn read(&self, into: &mut Vec<u8>, bytes_max: usize) -> Read {
        self.network.0.borrow_mut().read(self.connection, into, bytes_max)
    }

    /// Ends the client's stream; it still reads.
    pub fn finish(&self) {
        self.network.0.borrow_mut().connections[self.connection].client = ClientEnd::Finished;
    }

    /// Resets the connection: what is under way either way is lost.
    pub fn reset(self) {
        self.network.0.borrow_mut().reset_by_client(self.connection);
    }

    /// Is never heard of again, and never reads again; the server learns nothing.
    pub fn fall_silent(self) {
        let mut network = self.network.0.borrow_mut();
        let connection = &mut network.connections[self.connection];
        connection.under_way.clear();
        connection.client = ClientEnd::Silent;
    }
}

impl Drop for Peer {
    /// The client's process ends: the server sees an end, and a reset when it sends more.
    fn drop(&mut self) {
        let mut network = self.network.0.borrow_mut();
        let Some(connection) = network.connections.get_mut(self.connection) else { return };
        if matches!(connection.client, ClientEnd::Open | ClientEnd::Finished) {
            connection.client = ClientEnd::Gone;
            connection.to_client.clear();
        }
        network.forget_if_over(self.connection);
    }
}

impl SimulatedKernel {
    fn with<R>(&mut self, act: impl FnOnce(&mut Network) -> R) -> R {
        act(&mut self.network.0.borrow_mut())
    }
}

impl Kernel for SimulatedKernel {
    fn now_ms(&self) -> u64 {
        self.network.now_ms()
    }

    fn now_unix_seconds(&self) -> u64 {
        1_700_000_000 + self.network.now_ms() / 1_000
    }

    fn accept(&mut self) {
        let shard = self.shard;
        self.with(|network| {
            network.note("accept", shard as u64, 0);
            let port = &mut network.ports[shard];
            assert!(!port.is_accepting, "accepting is under way already");
            port.is_accepting = true;
            network.fill_accepts(shard);
        });
    }

    fn stop_accepting(&mut self) {
        let shard = self.shard;
        self.with(|network| {
            network.note("stop accepting", shard as u64, 0);
            let port = &mut network.ports[shard];
            if std::mem::take(&mut port.is_accepting) {
                port.announce(Event::AcceptEnded(None));
            }
        });
    }

    fn park(&mut self, socket: Socket, token: Token) {
        self.with(|network| {
            let id = network.connection_of(socket, "park");
            network.note("park", id as u64, u64::from(token.index));
            let connection = &mut network.connections[id];
            assert!(connection.parked.is_none(), "{socket} is watched already");
            connection.parked = Some(token);
            if connection.is_readable() {
                network.announce_readable(id);
            }
        });
    }

    fn park_writable(&mut self, socket: Socket, token: Token) {
        self.with(|network| {
            let id = network.connection_of(socket, "park_writable");
            network.note("park writable", id as u64, u64::from(token.index));
            let connection = &mut network.connections[id];
            assert!(connection.writable_parked.is_none(), "{socket} is watched for room already");
            connection.writable_parked = Some(token);
            network.announce_writable(id);
        });
    }

    fn receive(&mut self, requests: &[Receive], outcomes: &mut Vec<Result<usize, Errno>>) {
        assert!(requests.len() <= RECEIVE_BATCH_MAX, "each receive has its part of the scratch buffer");
        self.enters += 1;
        outcomes.clear();
        let mut network = self.network.0.borrow_mut();
        for (request, part) in requests.iter().zip(self.scratch.chunks_mut(RECEIVE_BYTES_MAX)) {
            outcomes.push(network.receive(request.socket, part));
        }
    }

    fn received(&mut self, position: usize, bytes: usize) -> &mut [u8] {
        assert!(bytes <= RECEIVE_BYTES_MAX, "a receive brings at most its part");
        &mut self.scratch[position * RECEIVE_BYTES_MAX..][..bytes]
    }

    fn send(&mut self, requests: &[Send<'_>], outcomes: &mut Vec<Result<usize, Errno>>) {
        assert!(requests.len() <= SEND_BATCH_MAX, "a batch fits the ring");
        self.enters += 1;
        outcomes.clear();
        let mut network = self.network.0.borrow_mut();
        for request in requests {
            outcomes.push(network.send(request.socket, request.bytes));
        }
    }

    fn shut_down(&mut self, socket: Socket) {
        self.with(|network| {
            let id = network.connection_of(socket, "shut_down");
            network.note("shut down", id as u64, 0);
            network.connections[id].server_has_finished = true;
        });
    }

    fn close(&mut self, socket: Socket, token: Token, writable_parked: bool) {
        self.with(|network| network.close(socket, token, writable_parked));
    }

    fn duplicate(&self, socket: Socket) -> io::Result<OwnedFd> {
        let mut network = self.network.0.borrow_mut();
        let id = network.connection_of(socket, "duplicate");
        network.note("duplicate", id as u64, 0);
        // Any descriptor will do: who gets it is not simulated.
        Ok(std::fs::File::open("/dev/null")?.into())
    }

    fn ring(&mut self, shard: u16) {
        self.with(|network| {
            network.note("ring", u64::from(shard), 0);
            network.ports[usize::from(shard)].announce(Event::Rung);
        });
    }

    fn wait(&mut self, timeout_ms: Option<u64>, events: &mut Vec<Event>) {
        self.enters += 1;
        let shard = self.shard;
        self.with(|network| network.wait(shard, timeout_ms, events));
    }

    fn peer_address(&self, socket: Socket) -> Option<SocketAddr> {
        let network = self.network.0.borrow();
        let connection = &network.connections[network.connection_of(socket, "peer_address")];
        // As the kernel does: a reset leaves no peer to ask for.
        (!connection.is_reset).then_some(SocketAddr::new(connection.address, 50_000))
    }

    fn path_quality(&self, socket: Socket) -> Option<PathQuality> {
        let mut network = self.network.0.borrow_mut();
        network.connection_of(socket, "path_quality");
        let is_bad = network.happens(300);
        Some(PathQuality { round_trip_ms: if is_bad { 3_000 } else { 20 }, retransmits: u32::from(is_bad) })
    }

    fn enters(&self) -> u64 {
        self.enters
    }
}

struct Network {
    dice: Dice,
    faults: Faults,
    now_ms: u64,
    ports: Vec<Port>,
    connections: Slab<Connection>,
    /// Connections by the server's descriptor.
    sockets: BTreeMap<i32, usize>,
    fingerprint: u64,
    is_traced: bool,
    deeds: Option<Vec<&'static str>>,
}

/// One shard's listener and what its kernel has to tell it.
#[derive(Default)]
struct Port {
    is_accepting: bool,
    /// Clients that wait to be accepted.
    backlog: VecDeque<usize>,
    events: Vec<Event>,
    /// The last wait found nothing; until when it would have lasted.
    sleep: Option<Option<u64>>,
}

struct Connection {
    address: IpAddr,
    shard: usize,
    socket: Option<Socket>,
    is_closed: bool,
    client: ClientEnd,
    /// From the client, not there yet.
    under_way: VecDeque<u8>,
    /// From the client, not received yet.
    arrived: VecDeque<u8>,
    /// The client's end, or its reset, is there.
    end_arrived: bool,
    is_reset: bool,
    parked: Option<Token>,
    writable_parked: Option<Token>,
    to_client: VecDeque<u8>,
    /// Bytes that `to_client` holds at most.
    room: usize,
    server_has_finished: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientEnd {
    Open,
    Finished,
    Gone,
    Silent,
}

/// Which request an event belongs to: events of one stay in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Accept,
    Bell,
    Poll(Token),
    PollWritable(Token),
}

fn request_of(event: &Event) -> Request {
    match event {
        Event::Accepted(_) | Event::AcceptEnded(_) => Request::Accept,
        Event::Ready { token, .. } | Event::Unparked(token) => Request::Poll(*token),
        Event::Writable(token) => Request::PollWritable(*token),
        Event::Rung => Request::Bell,
    }
}

impl Port {
    fn announce(&mut self, event: Event) {
        self.events.push(event);
    }
}

impl Connection {
    fn is_readable(&self) -> bool {
        !self.arrived.is_empty() || self.end_arrived
    }
}

impl Network {
    fn happens(&mut self, times_in_thousand: u64) -> bool {
        times_in_thousand > 0 && (self.dice)(1_000) < times_in_thousand
    }

    fn note(&mut self, what: &'static str, first: u64, second: u64) {
        if let Some(deeds) = &mut self.deeds {
            deeds.push(what);
        }
        let code = what.bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        for value in [code, first, second] {
            self.fingerprint = (self.fingerprint ^ value).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
        }
        if self.is_traced {
            println!("{:>9} ms  {what} {first} {second}", self.now_ms);
        }
    }

    fn connection_of(&self, socket: Socket, request: &str) -> usize {
        *self.sockets.get(&socket.0).unwrap_or_else(|| panic!("{request} names {socket}, which is closed"))
    }

    fn connect(&mut self, address: IpAddr, shard: usize, room: usize) -> usize {
        let id = self.connections.insert(Connection {
            address,
            shard,
            socket: None,
            is_closed: false,
            client: ClientEnd::Open,
            under_way: VecDeque::new(),
            arrived: VecDeque::new(),
            end_arrived: false,
            is_reset: false,
            parked: None,
            writable_parked: None,
            to_client: VecDeque::new(),
            room,
            server_has_finished: false,
        });
        self.ports[shard].backlog.push_back(id);
        self.fill_accepts(shard);
        id
    }

    /// Accepts who waits, until something is in the way.
    fn fill_accepts(&mut self, shard: usize) {
        while self.ports[shard].is_accepting && !self.ports[shard].backlog.is_empty() {
            let error = if self.sockets.len() >= self.faults.descriptors_max
                || self.happens(self.faults.descriptor_shortages)
            {
                Some(Errno::EMFILE)
            } else if self.happens(self.faults.accept_ends) {
                [None, Some(Errno::ECONNABORTED)][(self.dice)(2) as usize]
            } else {
                let Some(id) = self.ports[shard].backlog.pop_front() else { return };
                // As the kernel does: the lowest number that is free.
                let number = (3..).find(|number| !self.sockets.contains_key(number)).expect("there are 2^31 numbers");
                self.sockets.insert(number, id);
                self.connections[id].socket = Some(Socket(number));
                self.note("accepted", id as u64, number as u64);
                self.ports[shard].announce(Event::Accepted(Socket(number)));
                continue;
            };
            self.ports[shard].is_accepting = false;
            self.ports[shard].announce(Event::AcceptEnded(error));
        }
    }

    fn carry(&mut self) -> bool {
        let under_way: Vec<usize> = self
            .connections
            .iter()
            .filter(|(_, connection)| {
                let has_end = matches!(connection.client, ClientEnd::Finished | ClientEnd::Gone);
                !connection.is_closed && (!connection.under_way.is_empty() || has_end && !connection.end_arrived)
            })
            .map(|(id, _)| id)
            .collect();
        if under_way.is_empty() {
            return false;
        }
        let id = under_way[(self.dice)(under_way.len() as u64) as usize];
        let length = self.connections[id].under_way.len() as u64;
        // Half of the time all of it, else any part.
        let piece = if (self.dice)(2) == 0 { length } else { (self.dice)(length + 1) };
        let connection = &mut self.connections[id];
        connection.arrived.extend(connection.under_way.drain(..piece as usize));
        let has_end = matches!(connection.client, ClientEnd::Finished | ClientEnd::Gone);
        connection.end_arrived |= has_end && connection.under_way.is_empty();
        if piece > 0 || connection.end_arrived {
            self.announce_readable(id);
        }
        true
    }

    fn announce_readable(&mut self, id: usize) {
        let connection = &self.connections[id];
        let Some(token) = connection.parked else { return };
        let (shard, ended) = (connection.shard, connection.end_arrived);
        let poll = Request::Poll(token);
        // Several arrivals can be one event, as long as nobody has been told of the first.
        match self.ports[shard].events.iter_mut().rfind(|event| request_of(event) == poll) {
            Some(Event::Ready { ended: earlier, .. }) if (self.dice)(2) == 0 => *earlier |= ended,
            _ => self.ports[shard].announce(Event::Ready { token, ended }),
        }
        if self.happens(self.faults.unparks) {
            self.connections[id].parked = None;
            self.ports[shard].announce(Event::Unparked(token));
        }
    }

    fn announce_writable(&mut self, id: usize) {
        let connection = &mut self.connections[id];
        let has_room = connection.to_client.len() < connection.room;
        if (has_room || connection.is_reset || connection.client == ClientEnd::Gone)
            && let Some(token) = connection.writable_parked.take()
        {
            self.ports[connection.shard].announce(Event::Writable(token));
        }
    }

    fn read(&mut self, id: usize, into: &mut Vec<u8>, bytes_max: usize) -> Read {
        let connection = &mut self.connections[id];
        if connection.is_reset {
            return Read::Reset;
        }
        let bytes = connection.to_client.len().min(bytes_max);
        into.extend(connection.to_client.drain(..bytes));
        if bytes == 0 && connection.server_has_finished && connection.to_client.is_empty() {
            return Read::Ended;
        }
        if bytes > 0 {
            self.announce_writable(id);
        }
        Read::Bytes(bytes)
    }

    fn reset_by_client(&mut self, id: usize) {
        let connection = &mut self.connections[id];
        connection.client = ClientEnd::Gone;
        connection.is_reset = true;
        connection.end_arrived = true;
        connection.under_way.clear();
        connection.arrived.clear();
        connection.to_client.clear();
        self.announce_readable(id);
        self.announce_writable(id);
    }

    fn receive(&mut self, socket: Socket, part: &mut [u8]) -> Result<usize, Errno> {
        let id = self.connection_of(socket, "receive");
        let outcome = if self.happens(self.faults.memory_shortages) {
            Err(Errno::ENOBUFS)
        } else if self.happens(self.faults.interrupts) {
            Err(Errno::EINTR)
        } else {
            let connection = &mut self.connections[id];
            let bytes = connection.arrived.len().min(part.len());
            for (place, byte) in part.iter_mut().zip(connection.arrived.drain(..bytes)) {
                *place = byte;
            }
            match bytes {
                0 if connection.is_reset => Err(Errno::ECONNRESET),
                0 if connection.end_arrived => Ok(0),
                0 => Err(Errno::EAGAIN),
                bytes => Ok(bytes),
            }
        };
        self.note("receive", id as u64, code(outcome));
        outcome
    }

    fn send(&mut self, socket: Socket, bytes: &[u8]) -> Result<usize, Errno> {
        assert!(!bytes.is_empty(), "a send of nothing tells nothing");
        let id = self.connection_of(socket, "send");
        assert!(!self.connections[id].server_has_finished, "{socket} was shut down, and nothing can follow");
        let outcome = if self.happens(self.faults.memory_shortages) {
            Err(Errno::ENOBUFS)
        } else if self.happens(self.faults.interrupts) {
            Err(Errno::EINTR)
        } else {
            let is_short = self.happens(self.faults.short_sends);
            let connection = &mut self.connections[id];
            let free = connection.room.saturating_sub(connection.to_client.len());
            let mut taken = bytes.len().min(free);
            if is_short && taken > 1 {
                taken = 1 + (self.dice)(taken as u64 - 1) as usize;
            }
            match connection.client {
                _ if connection.is_reset => Err([Errno::ECONNRESET, Errno::EPIPE][(self.dice)(2) as usize]),
                // The first bytes go out and are answered by a reset.
                ClientEnd::Gone => {
                    connection.is_reset = true;
                    connection.end_arrived = true;
                    self.announce_readable(id);
                    Ok(bytes.len())
                }
                _ if taken == 0 => Err(Errno::EAGAIN),
                _ => {
                    connection.to_client.extend(&bytes[..taken]);
                    Ok(taken)
                }
            }
        };
        self.note("send", id as u64, code(outcome));
        outcome
    }

    fn close(&mut self, socket: Socket, token: Token, writable_parked: bool) {
        let id = self.connection_of(socket, "close");
        self.note("close", id as u64, u64::from(token.index));
        self.sockets.remove(&socket.0);
        let connection = &mut self.connections[id];
        assert!(
            connection.parked.is_none_or(|parked| parked == token),
            "{socket} is closed with another connection's token"
        );
        assert!(
            connection.writable_parked.is_none() || writable_parked,
            "{socket} is closed while it is watched for room, and nobody would end that"
        );
        connection.parked = None;
        connection.writable_parked = None;
        connection.socket = None;
        connection.is_closed = true;
        connection.server_has_finished = true;
        // Whoever closes with unread bytes resets, and what the client has not read is lost with it.
        if !connection.arrived.is_empty() || !connection.under_way.is_empty() {
            connection.is_reset = true;
            connection.to_client.clear();
        }
        self.forget_if_over(id);
    }

    fn forget_if_over(&mut self, id: usize) {
        let connection = &self.connections[id];
        if connection.is_closed && matches!(connection.client, ClientEnd::Gone | ClientEnd::Silent) {
            self.connections.remove(id);
        }
    }

    fn wait(&mut self, shard: usize, timeout_ms: Option<u64>, events: &mut Vec<Event>) {
        let before = events.len();
        let may_block = timeout_ms != Some(0);
        loop {
            let waiting = self.ports[shard].events.len();
            let must_deliver = may_block && events.len() == before;
            if waiting == 0 || !must_deliver && self.happens(self.faults.event_delays) {
                break;
            }
            let pick = (self.dice)(waiting as u64) as usize;
            let pending = &mut self.ports[shard].events;
            let request = request_of(&pending[pick]);
            let first = pending.iter().position(|event| request_of(event) == request).unwrap_or(pick);
            let event = pending.remove(first);
            self.note(event_name(&event), shard as u64, events.len() as u64);
            events.push(event);
        }
        let found_nothing = events.len() == before;
        self.ports[shard].sleep =
            (found_nothing && may_block).then(|| timeout_ms.map(|timeout_ms| self.now_ms.saturating_add(timeout_ms)));
    }
}

fn code(outcome: Result<usize, Errno>) -> u64 {
    match outcome {
        Ok(bytes) => bytes as u64,
        Err(error) => 1 << 32 | error as u64,
    }
}

fn event_name(event: &Event) -> &'static str {
    match event {
        Event::Accepted(_) => "event: accepted",
        Event::AcceptEnded(_) => "event: accept ended",
        Event::Ready { ended: false, .. } => "event: ready",
        Event::Ready { ended: true, .. } => "event: ready, ended",
        Event::Unparked(_) => "event: unparked",
        Event::Writable(_) => "event: writable",
        Event::Rung => "event: rung",
    }
}
