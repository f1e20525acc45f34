//! Shards on a simulated kernel, one situation at a time; what chance brings is `tests/simulation`'s.

mod abuse;
mod compression;
mod connecting;
mod deltas;
mod encodings;
mod ending;
mod filters;
mod heartbeats;
mod hooks;
mod members;
mod pressure;
mod published_keys;
mod queues;
mod reload;
mod server_side;
mod slow;
mod streams;
mod tls;
mod tokens;
mod traces;
mod user_requests;
mod users;

use std::sync::Arc;

use bytes::Bytes;

use super::{Shard, ShardOptions};
use crate::{
    config::{Config, Namespace, SlowConsumerPolicy},
    mesh::{Admission, ChannelHasher, ControlMesh, IngestMesh, Publish, ReplyTo, ToShard, build_with_queue_length},
    session::Rules,
    tls::Ports,
    uring::{
        KernelTls,
        simulated::{Faults, Peer, Read, SimulatedKernel, SimulatedNetwork},
    },
};

const UPGRADE: &[u8] = b"GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Room for everything.
const ROOM: usize = 1 << 30;

/// Shards, and the ends of the mesh that other threads hold.
struct Stage {
    network: SimulatedNetwork,
    shards: Vec<Shard<SimulatedKernel>>,
    ingest: IngestMesh,
    control: ControlMesh,
    hasher: ChannelHasher,
}

/// A client that reads when it is told to.
struct Client {
    peer: Peer,
    unread: Vec<u8>,
    is_ended: bool,
}

impl Stage {
    /// Shards whose queues hold `messages_max` messages, with a namespace for each policy.
    fn new(shards: usize, messages_max: usize, change: impl FnOnce(&mut Config)) -> Self {
        let network = SimulatedNetwork::new(shards, calm(), Box::new(|_| 0));
        let (meshes, ingest, control) = build_with_queue_length(shards, messages_max).unwrap();
        let mut config = config();
        change(&mut config);
        let config = Arc::new(config);
        let hasher = ChannelHasher::with_key([7; 16]);
        let admission = Admission::new(config.client.connections_max);
        let tls = Ports::open(&config).expect("the certificates of the tests are good").client;
        let shards = meshes.into_iter().map(|mesh| {
            let options = ShardOptions {
                rules: Rules::new(Arc::clone(&config), b"operators come elsewhere", Vec::new()),
                config: Arc::clone(&config),
                hasher: hasher.clone(),
                admission: admission.clone(),
                client_id_key: [1; 16],
                seed: 1,
                core: 0,
                tls: tls.clone(),
                kernel_tls: KernelTls::EVERYTHING,
                mesh,
            };
            let kernel = network.kernel(usize::from(options.mesh.shard));
            Shard::new(kernel, options)
        });
        Self { shards: shards.collect(), network, ingest, control, hasher }
    }

    /// A client that is upgraded and connected.
    fn client(&mut self, shard: usize, room: usize) -> Client {
        let mut client = self.stranger(shard, room);
        client.say(r#"{"id":1,"connect":{}}"#);
        self.settle();
        assert!(client.hear()[0].contains(r#""connect""#));
        client
    }

    /// A client that is upgraded and no more.
    fn stranger(&mut self, shard: usize, room: usize) -> Client {
        let mut client = Client { peer: self.network.connect(shard, room), unread: Vec::new(), is_ended: false };
        client.peer.write(UPGRADE);
        self.settle();
        client.take_head();
        client
    }

    /// A client that is connected and subscribed.
    fn subscriber(&mut self, shard: usize, room: usize, channel: &str) -> Client {
        let mut client = self.client(shard, room);
        client.say(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#));
        self.settle();
        assert!(client.hear()[0].contains(r#""subscribe""#));
        client
    }

    /// Everything that was written arrives, and all shards take turns until it is dealt with.
    fn settle(&mut self) {
        while self.network.carry() {}
        for _ in 0..8 {
            self.shards.iter_mut().for_each(|shard| _ = shard.turn());
        }
    }

    /// A producer publishes; the home shard hears of it in its next turn.
    fn publish(&mut self, channel: &str, data: &str, is_json: bool) {
        self.publish_with(channel, data, |publish| publish.is_json = is_json);
    }

    /// The same, of JSON, with more to say.
    fn publish_with(&mut self, channel: &str, data: &str, change: impl FnOnce(&mut Publish)) {
        let channel = self.hasher.name(channel);
        let home = channel.home(self.shards.len());
        let mut publish = Publish::json(channel, Bytes::copy_from_slice(data.as_bytes()));
        change(&mut publish);
        self.ingest.to_shards[home].send(ToShard::Publish(Box::new(publish)));
    }

    /// A channel of the namespace that has its home there.
    fn channel(&self, namespace: &str, home: usize) -> String {
        let mut channels = (0..).map(|number| format!("{namespace}:{number}"));
        channels.find(|channel| self.hasher.name(channel).home(self.shards.len()) == home).unwrap()
    }

    fn count(&self, shard: usize, reason: &str) -> u64 {
        self.shards[shard].figures().reasons.iter().find(|(label, _)| *label == reason).unwrap().1
    }
}

impl Client {
    fn say(&self, text: &str) {
        let mut frame = vec![0x81];
        match text.len() {
            length @ 0..=125 => frame.push(0x80 | length as u8),
            length => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        self.peer.write(&frame);
    }

    /// Reads all that is there: texts, and close frames as "close CODE".
    fn hear(&mut self) -> Vec<String> {
        self.read(usize::MAX);
        let mut heard = Vec::new();
        while let Some((opcode, payload)) = self.take_frame() {
            heard.push(match opcode {
                1 => String::from_utf8(payload).unwrap(),
                8 => format!("close {}", u16::from_be_bytes([payload[0], payload[1]])),
                opcode => format!("opcode {opcode}"),
            });
        }
        heard
    }

    fn read(&mut self, bytes_max: usize) {
        match self.peer.read(&mut self.unread, bytes_max) {
            Read::Bytes(_) => {}
            Read::Ended | Read::Reset => self.is_ended = true,
        }
    }

    fn take_head(&mut self) {
        self.read(usize::MAX);
        if let Some(end) = self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            assert!(self.unread.starts_with(b"HTTP/1.1 101"));
            self.unread.drain(..end + 4);
        }
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (header, length) = match *self.unread.get(1)? {
            126 => (4, usize::from(u16::from_be_bytes(self.unread.get(2..4)?.try_into().unwrap()))),
            127 => (10, u64::from_be_bytes(self.unread.get(2..10)?.try_into().unwrap()) as usize),
            length => (2, usize::from(length)),
        };
        let payload = self.unread.get(header..header + length)?.to_vec();
        let opcode = self.unread[0] & 0x0f;
        self.unread.drain(..header + length);
        Some((opcode, payload))
    }
}

fn calm() -> Faults {
    Faults { descriptors_max: usize::MAX, ..Faults::default() }
}

fn config() -> Config {
    let mut config = Config::default();
    config.client.allow_anonymous = true;
    let namespace = |name: &str, history_size, slow_consumer| {
        Arc::new(Namespace {
            name: name.to_owned(),
            allow_subscribe_for_client: true,
            allow_subscribe_for_anonymous: true,
            allow_publish_for_client: true,
            allow_publish_for_anonymous: true,
            allow_history_for_client: true,
            allow_history_for_anonymous: true,
            history_size,
            history_ttl_ms: 60_000,
            force_recovery: history_size > 0,
            slow_consumer,
            ..Namespace::default()
        })
    };
    let members = |name: &str, history_size, force_push_join_leave| {
        let namespace = Namespace::clone(&namespace(name, history_size, SlowConsumerPolicy::Disconnect));
        Arc::new(Namespace {
            presence: true,
            allow_presence_for_client: true,
            allow_presence_for_anonymous: true,
            join_leave: true,
            force_push_join_leave,
            ..namespace
        })
    };
    config.namespaces.by_name = vec![
        members("all", 0, true),
        members("asked", 0, false),
        namespace("kept", 300, SlowConsumerPolicy::Disconnect),
        namespace("plain", 0, SlowConsumerPolicy::Disconnect),
        members("room", 300, true),
        namespace("sync", 300, SlowConsumerPolicy::Resync),
    ];
    config
}
