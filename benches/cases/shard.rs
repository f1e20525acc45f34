//! A whole shard, with clients that answer at once and a kernel that costs next to nothing.
//!
//! What is left is the shard's own work: everything between the kernel's answers and its next requests.

use std::{collections::VecDeque, io, os::fd::OwnedFd, rc::Rc, sync::Arc};

use bytes::Bytes;
use nix::errno::Errno;

use super::{
    client_frame::client_frame,
    publication::{CHANNEL, PUBLICATION},
};
use tidegate::{
    config::{Config, Namespace},
    limits::{MESH_QUEUE_MESSAGES_MAX, RECEIVE_BATCH_MAX, RECEIVE_BYTES_MAX},
    mesh::{Admission, ChannelHasher, ControlMesh, IngestMesh, Origin, Publish, ToShard, build},
    protocol::{Claims, Encoding, mint},
    session::Rules,
    shard::{Shard, ShardOptions, wheel::TICK_MS},
    uring::{Event, Kernel, KernelTls, PathQuality, Receive, Send, Socket, Token},
    websocket::frame::{self, Data, OpCode},
};

const TOKEN_SECRET: &str = "of these clients and nobody else";

/// Publications that are sent together at most, so that no queue is ever full.
const BURST_MAX: usize = MESH_QUEUE_MESSAGES_MAX / 2;

/// Clients with an identity each, subscribed to one channel and to their personal one.
pub struct Clients {
    shard: Shard<InstantKernel>,
    ingest: IngestMesh,
    // Where the shard's messages to the control thread would go.
    _control: ControlMesh,
    hasher: ChannelHasher,
    ping_ms: u64,
    count: usize,
    data: Bytes,
}

impl Clients {
    /// So many, which have not come yet.
    pub fn new(count: usize) -> Self {
        let config = Arc::new(config());
        let hasher = ChannelHasher::with_key([7; 16]);
        let (mut shards, ingest, control) = build(1).expect("descriptors for three bells");
        let options = ShardOptions {
            kernel_tls: KernelTls::default(),
            tls: None,
            rules: Rules::new(Arc::clone(&config), b"nobody is an operator here", Vec::new()),
            hasher: hasher.clone(),
            mesh: shards.remove(0),
            admission: Admission::new(u32::MAX),
            client_id_key: [7; 16],
            seed: 1,
            core: 0,
            config: Arc::clone(&config),
        };
        let kernel = InstantKernel::new((0..count).map(first_words).collect());
        Self {
            shard: Shard::new(kernel, options),
            ingest,
            _control: control,
            hasher,
            ping_ms: u64::from(config.client.ping_ms),
            count,
            data: Bytes::from_static(PUBLICATION.data),
        }
    }

    /// So many, which are there, and idle.
    pub fn arrived(count: usize) -> Self {
        let mut clients = Self::new(count);
        clients.arrive();
        clients.assert_subscribed();
        clients
    }

    /// All are accepted, upgraded, connected by token and subscribed.
    pub fn arrive(&mut self) {
        let kernel = self.shard.kernel_mut();
        kernel.events.extend((0..self.count).map(|number| Event::Accepted(Socket(number as i32))));
        self.settle();
    }

    /// Fails unless every client has its two subscriptions.
    pub fn assert_subscribed(&self) {
        let figures = self.shard.figures();
        let count = self.count as u64;
        assert_eq!((figures.connections, figures.subscriptions), (count, 2 * count), "{:?}", figures.reasons);
    }

    /// So many publications for all clients, as the ingest thread would send them.
    pub fn publications_to_all(&self, count: usize) -> Vec<ToShard> {
        (0..count).map(|_| self.publication(CHANNEL)).collect()
    }

    /// One publication for each client's personal channel.
    pub fn publications_to_each(&self) -> Vec<ToShard> {
        (0..self.count).map(|number| self.publication(&format!("#{}", user(number)))).collect()
    }

    /// Publications arrive and are delivered: the sends that this took.
    pub fn deliver(&mut self, publications: Vec<ToShard>) -> u64 {
        let sends_before = self.shard.kernel_mut().sends;
        let mut publications = publications.into_iter();
        while !publications.as_slice().is_empty() {
            for publication in publications.by_ref().take(BURST_MAX) {
                self.ingest.to_shards[0].send(publication);
            }
            self.settle();
        }
        self.shard.kernel_mut().sends - sends_before
    }

    /// Publications arrive one at a time, each when the shard has nothing else to do: the sends that this took.
    pub fn deliver_one_by_one(&mut self, publications: Vec<ToShard>) -> u64 {
        let sends_before = self.shard.kernel_mut().sends;
        for publication in publications {
            self.ingest.to_shards[0].send(publication);
            self.settle();
        }
        self.shard.kernel_mut().sends - sends_before
    }

    /// An interval between pings passes, tick by tick: the pings that were sent and answered.
    pub fn heartbeats(&mut self) -> u64 {
        let pings_before = self.shard.kernel_mut().pings;
        for _ in 0..self.ping_ms.div_ceil(TICK_MS) {
            self.shard.kernel_mut().now_ms += TICK_MS;
            self.shard.turn();
        }
        self.settle();
        self.shard.kernel_mut().pings - pings_before
    }

    fn publication(&self, channel: &str) -> ToShard {
        let publish = Publish::json(self.hasher.name(channel), self.data.clone());
        ToShard::Publish(Box::new(Publish { origin: Origin::now(), ..publish }))
    }

    /// Turns, until the shard would sleep.
    fn settle(&mut self) {
        loop {
            self.shard.turn();
            if self.shard.kernel_mut().would_sleep {
                return;
            }
        }
    }
}

fn user(number: usize) -> String {
    format!("user-{number}")
}

/// All that a client says by itself: the request head, then connect and subscribe, without waiting for answers.
fn first_words(number: usize) -> Rc<[u8]> {
    let head = "GET /connection/websocket HTTP/1.1\r\nHost: localhost:8000\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Origin: http://localhost:8000\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
        Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    let token = mint(TOKEN_SECRET.as_bytes(), &Claims { sub: &user(number), ..Claims::default() });
    let connect = format!(r#"{{"id":1,"connect":{{"token":"{token}","name":"js"}}}}"#);
    let subscribe = format!(r#"{{"id":2,"subscribe":{{"channel":"{}"}}}}"#, CHANNEL);
    [head.as_bytes(), &client_frame(connect.as_bytes()), &client_frame(subscribe.as_bytes())].concat().into()
}

fn config() -> Config {
    let mut config = Config::default();
    config.client.token.hmac_secret = Some(TOKEN_SECRET.into());
    let (name, _) = CHANNEL.split_once(':').expect("the channel is of a namespace");
    let namespace = Namespace { name: name.to_owned(), allow_subscribe_for_client: true, ..Namespace::default() };
    config.namespaces.by_name = vec![Arc::new(namespace)];
    config
}

/// Takes whatever it is given, and has what clients say at hand. A client answers each ping.
struct InstantKernel {
    now_ms: u64,
    events: VecDeque<Event>,
    /// By socket: the connection's token, once it is parked.
    tokens: Vec<Option<Token>>,
    /// By socket: what waits to be received.
    arrived: Vec<Option<Rc<[u8]>>>,
    scratch: Vec<u8>,
    ping: Vec<u8>,
    pong: Rc<[u8]>,
    sends: u64,
    pings: u64,
    /// The shard's last wait brought nothing, and the shard had nothing else to do.
    would_sleep: bool,
}

impl InstantKernel {
    /// Clients by socket, each with what it says as soon as it is accepted.
    fn new(first_words: Vec<Rc<[u8]>>) -> Self {
        let mut ping = Vec::new();
        frame::write(&mut ping, OpCode::Data(Data::Text), Encoding::Json.ping());
        Self {
            now_ms: 0,
            events: VecDeque::new(),
            tokens: vec![None; first_words.len()],
            arrived: first_words.into_iter().map(Some).collect(),
            scratch: vec![0; RECEIVE_BATCH_MAX * RECEIVE_BYTES_MAX],
            ping,
            pong: client_frame(b"{}").into(),
            sends: 0,
            pings: 0,
            would_sleep: false,
        }
    }

    fn announce(&mut self, socket: Socket) {
        let token = self.tokens[socket.0 as usize].expect("a client that says something is parked");
        self.events.push_back(Event::Ready { token, ended: false });
    }
}

impl Kernel for InstantKernel {
    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn now_unix_seconds(&self) -> u64 {
        1_700_000_000 + self.now_ms / 1_000
    }

    fn accept(&mut self) {}

    fn stop_accepting(&mut self) {}

    fn park(&mut self, socket: Socket, token: Token) {
        self.tokens[socket.0 as usize] = Some(token);
        self.announce(socket);
    }

    fn park_writable(&mut self, socket: Socket, _token: Token) {
        panic!("every send takes all, so nobody waits for room: {socket}");
    }

    fn receive(&mut self, requests: &[Receive], outcomes: &mut Vec<Result<usize, Errno>>) {
        outcomes.clear();
        for (position, request) in requests.iter().enumerate() {
            outcomes.push(match self.arrived[request.socket.0 as usize].take() {
                Some(bytes) => {
                    self.scratch[position * RECEIVE_BYTES_MAX..][..bytes.len()].copy_from_slice(&bytes);
                    Ok(bytes.len())
                }
                None => Err(Errno::EAGAIN),
            });
        }
    }

    fn received(&mut self, position: usize, bytes: usize) -> &mut [u8] {
        &mut self.scratch[position * RECEIVE_BYTES_MAX..][..bytes]
    }

    fn send(&mut self, requests: &[Send<'_>], outcomes: &mut Vec<Result<usize, Errno>>) {
        outcomes.clear();
        self.sends += requests.len() as u64;
        for request in requests {
            if request.bytes == self.ping {
                self.pings += 1;
                self.arrived[request.socket.0 as usize] = Some(Rc::clone(&self.pong));
                self.announce(request.socket);
            }
            outcomes.push(Ok(request.bytes.len()));
        }
    }

    fn shut_down(&mut self, socket: Socket) {
        panic!("nobody leaves, but the shard shuts {socket} down");
    }

    fn close(&mut self, socket: Socket, _token: Token, _writable_parked: bool) {
        panic!("nobody leaves, but the shard closes {socket}");
    }

    fn duplicate(&self, socket: Socket) -> io::Result<OwnedFd> {
        panic!("nobody asks the server API: {socket}");
    }

    fn ring(&mut self, shard: u16) {
        panic!("there is no other shard, but {shard} is to be woken");
    }

    fn wait(&mut self, timeout_ms: Option<u64>, events: &mut Vec<Event>) {
        events.extend(self.events.drain(..));
        // A shard that holds messages back asks for a millisecond.
        self.would_sleep = events.is_empty() && timeout_ms.is_none_or(|timeout_ms| timeout_ms > 1);
    }

    fn path_quality(&self, _socket: Socket) -> Option<PathQuality> {
        None
    }

    fn enters(&self) -> u64 {
        0
    }
}
