//! The ingest thread with real sockets and a real mesh; the shards are played.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{Ingest, Passed, spawn};
use crate::{
    config::{Config, Namespace, PayloadFormat},
    limits::{INGEST_PENDING_COMMANDS_MAX, MESH_QUEUE_MESSAGES_MAX},
    mesh::{
        Answer, ChannelHasher, ControlMesh, IngestFigures, Outlet, Position, Publish, Published, ReplyTo, ShardMesh,
        ToControl, ToIngest, ToShard, build_with_queue_length,
    },
    resp::write_command,
};

/// Longer than anything takes that does not hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the played shards were sent.
#[derive(Debug, Clone, PartialEq)]
struct Received {
    channel: String,
    data: Vec<u8>,
    is_json: bool,
    key: Option<String>,
    skip_history: bool,
    delta: bool,
    tags: Option<String>,
    version: Option<(u64, String)>,
}

struct Bench {
    config: Arc<Config>,
    ingest: Option<Ingest>,
    control: ControlMesh,
    shards: Vec<JoinHandle<()>>,
    received: Arc<Mutex<Vec<Received>>>,
    /// Shards that must not answer, by bit.
    held: Arc<AtomicU32>,
    has_ended: Arc<AtomicBool>,
}

impl Bench {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        Self::with_queue_length(MESH_QUEUE_MESSAGES_MAX, change)
    }

    fn with_queue_length(messages_max: usize, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.ingest.listen = Some("127.0.0.1:0".parse().unwrap());
        config.ingest.payload_bytes_max = 1024 * 1024;
        config.shutdown.ms_max = 2_000;
        let namespace =
            |name: &str, format| Arc::new(Namespace { name: name.to_owned(), format, ..Namespace::default() });
        config.namespaces.by_name = vec![
            namespace("bytes", PayloadFormat::Binary),
            namespace("kept", PayloadFormat::Json),
            namespace("news", PayloadFormat::Json),
        ];
        change(&mut config);
        let config = Arc::new(config);
        let (shards, ingest, control) = build_with_queue_length(2, messages_max).unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let held = Arc::new(AtomicU32::new(0));
        let has_ended = Arc::new(AtomicBool::new(false));
        let ingest =
            spawn(Arc::clone(&config), ChannelHasher::with_key([7; 16]), ingest, Passed::default(), None).unwrap();
        let shards = shards
            .into_iter()
            .map(|mesh| {
                let shard = PlayedShard {
                    mesh,
                    received: Arc::clone(&received),
                    held: Arc::clone(&held),
                    has_ended: Arc::clone(&has_ended),
                };
                thread::spawn(move || shard.run())
            })
            .collect();
        Self { config, ingest: Some(ingest), control, shards, received, held, has_ended }
    }

    fn port(&self) -> u16 {
        self.ingest.as_ref().unwrap().address.unwrap().port()
    }

    fn connect(&self) -> Producer {
        let stream = TcpStream::connect(("127.0.0.1", self.port())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Producer { reader: BufReader::new(stream.try_clone().unwrap()), writer: stream }
    }

    fn hold_shards(&self, shards: u32) {
        self.held.store(shards, Ordering::Relaxed);
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    fn figures(&mut self) -> IngestFigures {
        self.control.to_ingest.send(ToIngest::Observe { ticket: 9 });
        self.control.to_ingest.ring();
        match self.next_to_control() {
            ToControl::Ingest { ticket: 9, figures } => *figures,
            other => panic!("{other:?}"),
        }
    }

    fn count(&mut self, reason: &str) -> u64 {
        self.figures().reasons.iter().find(|(name, _)| *name == reason).map_or(0, |(_, count)| *count)
    }

    fn next_to_control(&mut self) -> ToControl {
        self.control.inbound[2].recv_timeout(PATIENCE).expect("the ingest thread answers")
    }

    fn shut_down(&mut self) {
        self.control.to_ingest.send(ToIngest::Shutdown);
        self.control.to_ingest.ring();
    }

    fn join(&mut self) {
        assert!(matches!(self.next_to_control(), ToControl::IngestStopped));
        self.ingest.take().unwrap().thread.join().unwrap();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.hold_shards(0);
            if self.ingest.is_some() {
                self.shut_down();
                self.join();
            }
            self.has_ended.store(true, Ordering::Relaxed);
            self.shards.drain(..).for_each(|shard| shard.join().unwrap());
        }
    }
}

/// Answers as a home shard does: the number of subscribers is the payload's number, if it is one.
struct PlayedShard {
    mesh: ShardMesh,
    received: Arc<Mutex<Vec<Received>>>,
    held: Arc<AtomicU32>,
    has_ended: Arc<AtomicBool>,
}

impl PlayedShard {
    fn run(mut self) {
        let queue = self.mesh.ingest_queue();
        let bit = 1 << self.mesh.shard;
        while !self.has_ended.load(Ordering::Relaxed) {
            self.mesh.to_ingest.flush();
            self.mesh.to_ingest.ring();
            if self.held.load(Ordering::Relaxed) & bit != 0 || self.mesh.to_ingest.is_holding() {
                thread::sleep(Duration::from_micros(200));
                continue;
            }
            match self.mesh.inbound[queue].try_recv() {
                Ok(message) => self.answer(message),
                Err(_) => thread::sleep(Duration::from_micros(50)),
            }
        }
    }

    fn answer(&mut self, message: ToShard) {
        let shard = self.mesh.shard;
        let to_ingest: &mut Outlet<ToIngest> = &mut self.mesh.to_ingest;
        match message {
            ToShard::Publish(publish) => {
                let ReplyTo::Ingest { connection, sequence } = publish.reply_to else { panic!("nobody asked") };
                let published = self.published(*publish);
                let answer = Answer::Published(published);
                self.mesh.to_ingest.send(ToIngest::Answer { connection, sequence, answer });
            }
            ToShard::Broadcast { data, reply_to: ReplyTo::Ingest { connection, sequence } } => {
                assert_eq!(data, "{}");
                let answer = Answer::Connections(10 + u32::from(shard));
                to_ingest.send(ToIngest::Answer { connection, sequence, answer });
            }
            ToShard::CountSubscribers { channels, reply_to: ReplyTo::Ingest { connection, sequence } } => {
                let counts = channels.into_iter().map(|channel| {
                    let count = channel.name.len() as u32;
                    (channel, count)
                });
                let answer = Answer::Subscribers(counts.collect());
                to_ingest.send(ToIngest::Answer { connection, sequence, answer });
            }
            ToShard::User { request, reply_to: ReplyTo::Ingest { connection, sequence } } => {
                assert_eq!(request.user, "eve");
                let is_everyone = request.addressees.client.is_none();
                let answer = Answer::Connections(if is_everyone { 2 } else { u32::from(shard) });
                to_ingest.send(ToIngest::Answer { connection, sequence, answer });
            }
            ToShard::ListChannels { pattern, reply_to: ReplyTo::Ingest { connection, sequence } } => {
                let pattern = pattern.map_or("all".to_owned(), |pattern| String::from_utf8_lossy(&pattern).into());
                let names = vec![("both".into(), 1), (format!("{pattern}{shard}").into(), 1)];
                to_ingest.send(ToIngest::Answer { connection, sequence, answer: Answer::Channels(names) });
            }
            other => panic!("{other:?}"),
        }
    }

    fn published(&mut self, publish: Publish) -> Published {
        assert_eq!(publish.channel.home(2), usize::from(self.mesh.shard));
        let text = |bytes: Option<bytes::Bytes>| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let received = Received {
            channel: publish.channel.name.to_string(),
            data: publish.data.to_vec(),
            is_json: publish.is_json,
            key: text(publish.idempotency_key),
            skip_history: publish.skip_history,
            delta: publish.delta,
            version: publish.version.map(|version| (version.number, version.epoch)),
            tags: publish.tags.map(|tags| format!("{tags:?}")),
        };
        let subscribers = String::from_utf8_lossy(&received.data).parse().unwrap_or(1);
        let is_kept = received.channel.starts_with("kept:") && !received.skip_history;
        self.received.lock().unwrap().push(received);
        let position = is_kept.then(|| Position { offset: 5, epoch: "abcd".into() });
        Published { position, subscribers }
    }
}

struct Producer {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Producer {
    fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.writer.write_all(bytes.as_ref()).unwrap();
    }

    /// One reply, as it came.
    fn reply(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        assert!(line.ends_with("\r\n"), "the connection has ended: {line:?}");
        let length = || line[1..line.len() - 2].parse::<i64>().unwrap();
        let parts = match line.as_bytes()[0] {
            b'*' => length(),
            b'%' => 2 * length(),
            b'$' | b'=' if length() >= 0 => {
                let mut text = vec![0; length() as usize + 2];
                self.reader.read_exact(&mut text).unwrap();
                return line + &String::from_utf8_lossy(&text);
            }
            _ => 0,
        };
        (0..parts).fold(line, |reply, _| reply + &self.reply())
    }

    fn command(&mut self, arguments: &[&str]) -> String {
        self.write(encode(arguments));
        self.reply()
    }

    /// All until the server closes.
    fn until_end(&mut self) -> String {
        let mut text = Vec::new();
        if let Err(error) = self.reader.read_to_end(&mut text) {
            // What has been received unread makes the end a reset; what was said before it counts.
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

fn encode(arguments: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_command(arguments.iter().map(|argument| argument.as_bytes()), &mut bytes);
    bytes
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn replies_keep_the_order_of_commands_whichever_shard_is_first() {
    let bench = Bench::new(|_| {});
    let mut producer = bench.connect();
    bench.hold_shards(0b01);
    let publications: Vec<Vec<u8>> =
        (0..500).map(|number| encode(&["PUBLISH", &format!("news:{}", number % 20), &number.to_string()])).collect();
    producer.write(publications.concat());
    producer.write(encode(&["PING"]));
    until("the other shard works", || bench.received().len() > 50);
    bench.hold_shards(0);
    for number in 0..500 {
        assert_eq!(producer.reply(), format!(":{number}\r\n"));
    }
    assert_eq!(producer.reply(), "+PONG\r\n");
}

#[test]
fn a_full_queue_stops_the_reading_and_loses_nothing() {
    const PUBLICATIONS: usize = 3 * INGEST_PENDING_COMMANDS_MAX;
    let mut bench = Bench::with_queue_length(4, |_| {});
    bench.hold_shards(0b11);
    let mut producer = bench.connect();
    let mut writer = producer.writer.try_clone().unwrap();
    let publications: Vec<Vec<u8>> =
        (0..PUBLICATIONS).map(|number| encode(&["PUBLISH", "news:a", &number.to_string()])).collect();
    let bytes = publications.concat();
    let bytes_total = bytes.len() as u64;
    let writing = thread::spawn(move || writer.write_all(&bytes).unwrap());
    until("the reading stops", || bench.figures().backpressure > 0);
    assert!(bench.figures().bytes_received < bytes_total);
    bench.hold_shards(0);
    for number in 0..PUBLICATIONS {
        assert_eq!(producer.reply(), format!(":{number}\r\n"));
    }
    writing.join().unwrap();
    let received = bench.received();
    assert_eq!(received.len(), PUBLICATIONS);
    assert!(received.iter().enumerate().all(|(number, publish)| publish.data == number.to_string().as_bytes()));
}

#[test]
fn a_producer_that_reads_no_replies_hurts_itself_alone() {
    let bench = Bench::new(|_| {});
    let mut greedy = bench.connect();
    let mut writer = greedy.writer.try_clone().unwrap();
    // Replies of 100 KB each: far beyond what sockets and the reply buffer hold.
    let text = "x".repeat(100_000);
    let command = encode(&["ECHO", &text]);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for _ in 0..400 {
            writer.write_all(&command).unwrap();
        }
        sender.send(()).unwrap();
    });
    assert!(receiver.recv_timeout(Duration::from_millis(300)).is_err(), "it is not read from for ever");
    let mut other = bench.connect();
    assert_eq!(other.command(&["PUBLISH", "news:a", "7"]), ":7\r\n");
    for _ in 0..400 {
        assert_eq!(greedy.reply().len(), "$100000\r\n".len() + text.len() + 2);
    }
    receiver.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn publications_travel_as_their_namespace_says() {
    let bench = Bench::new(|_| {});
    let mut producer = bench.connect();
    assert_eq!(producer.command(&["publish", "news:a", "{\"a\":\n1}"]), ":1\r\n");
    assert_eq!(producer.command(&["SPUBLISH", "bytes:a", "no JSON"]), ":1\r\n");
    assert_eq!(producer.command(&["PUBLISH", "bytes:a", "[1]"]), ":1\r\n");
    let tagged = ["TG.PUBLISH", "kept:a", "1", "id", "key", "TAGS", "{\"a\":\"b\"}"];
    assert_eq!(producer.command(&tagged), "*2\r\n:5\r\n$4\r\nabcd\r\n");
    assert_eq!(producer.command(&["TG.PUBLISH", "kept:a", "1", "SKIPHISTORY"]), "*2\r\n:0\r\n$-1\r\n");
    assert_eq!(producer.command(&["TG.PUBLISH", "kept:a", "1", "DELTA"]), "*2\r\n:5\r\n$4\r\nabcd\r\n");
    let versioned = ["TG.PUBLISH", "kept:a", "1", "VERSIONEPOCH", "e", "version", "7"];
    assert_eq!(producer.command(&versioned), "*2\r\n:5\r\n$4\r\nabcd\r\n");
    assert_eq!(producer.command(&["TG.SEND", "t:42", "3"]), ":3\r\n");
    let plain = |channel: &str, data: &str, is_json| Received {
        channel: channel.to_owned(),
        data: data.as_bytes().to_vec(),
        is_json,
        key: None,
        skip_history: false,
        delta: false,
        tags: None,
        version: None,
    };
    let with_options =
        Received { key: Some("key".to_owned()), tags: Some("{\"a\": \"b\"}".to_owned()), ..plain("kept:a", "1", true) };
    let expected = [
        plain("news:a", "{\"a\":1}", true),
        plain("bytes:a", "no JSON", false),
        plain("bytes:a", "[1]", true),
        with_options,
        Received { skip_history: true, ..plain("kept:a", "1", true) },
        Received { delta: true, ..plain("kept:a", "1", true) },
        Received { version: Some((7, "e".to_owned())), ..plain("kept:a", "1", true) },
        plain("#t:42", "3", true),
    ];
    assert_eq!(bench.received(), expected);
}

#[test]
fn wrong_publications_are_refused_and_counted() {
    let mut bench = Bench::new(|config| config.ingest.payload_bytes_max = 100);
    let mut producer = bench.connect();
    let long = "1".repeat(101);
    let long_epoch = "e".repeat(256);
    let cases: &[(&[&str], &str)] = &[
        (
            &["PUBLISH", "nowhere:a", "1"],
            "-ERR unknown namespace 'nowhere' in channel 'nowhere:a'; known: bytes, kept, news\r\n",
        ),
        (&["PUBLISH", "", "1"], "-ERR channel is empty\r\n"),
        (
            &["PUBLISH", "news:a", "hello"],
            "-ERR payload is not valid JSON: expected value at line 1 column 1 (a JSON string has quotes of its own; a namespace with format = \"binary\" takes any bytes)\r\n",
        ),
        (
            &["PUBLISH", "news:a", &long],
            "-ERR payload of 101 bytes is too long: ingest.payload_size_max allows 100\r\n",
        ),
        (
            &["TG.PUBLISH", "news:a", "1", "TAGS", "[]"],
            "-ERR TAGS must be a JSON object whose values are strings: invalid type: sequence, expected a map at line 1 column 0\r\n",
        ),
        (&["TG.PUBLISH", "news:a", "1", "ID"], "-ERR syntax error: ID needs a value\r\n"),
        (
            &["TG.PUBLISH", "news:a", "1", "TRACEPARENT", "00-1-2-01"],
            "-ERR TRACEPARENT must be a traceparent of W3C Trace Context, got '00-1-2-01'\r\n",
        ),
        (
            &["TG.PUBLISH", "news:a", "1", "NX"],
            "-ERR syntax error: expected ID key, SKIPHISTORY, DELTA, TAGS json, VERSION number, VERSIONEPOCH epoch, ENCODING zstd or TRACEPARENT traceparent, got 'NX'\r\n",
        ),
        (&["TG.PUBLISH", "news:a", "1", "VERSION"], "-ERR syntax error: VERSION needs a value\r\n"),
        (
            &["TG.PUBLISH", "news:a", "1", "VERSION", "0"],
            "-ERR VERSION must be a whole number from 1 to 18446744073709551615\r\n",
        ),
        (
            &["TG.PUBLISH", "news:a", "1", "VERSIONEPOCH", &long_epoch],
            "-ERR VERSIONEPOCH must be text of at most 255 bytes\r\n",
        ),
        (&["TG.DISCONNECT", ""], "-ERR user id must have 1 to 254 bytes of UTF-8 text; these are 0\r\n"),
        (&["TG.DISCONNECT"], "-ERR wrong number of arguments for 'tg.disconnect' command\r\n"),
        (&["TG.DISCONNECT", "a", "b", "c"], "-ERR wrong number of arguments for 'tg.disconnect' command\r\n"),
        (&["TG.SEND", "", "1"], "-ERR user id must have 1 to 254 bytes of UTF-8 text; these are 0\r\n"),
        (
            &["TG.BROADCAST", "x"],
            "-ERR payload is not valid JSON: expected value at line 1 column 1 (a JSON string has quotes of its own; a namespace with format = \"binary\" takes any bytes)\r\n",
        ),
        (
            &["SUBSCRIBE", "a"],
            "-ERR nobody subscribes on the producers' port: clients subscribe over WebSocket; to watch a channel, try 'tidegate tail'\r\n",
        ),
    ];
    for (command, reply) in cases {
        assert_eq!(producer.command(command), *reply);
    }
    assert!(bench.received().is_empty());
    assert_eq!((bench.count("payload_not_json"), bench.count("unknown_namespace")), (2, 1));
    assert_eq!((bench.count("payload_too_long"), bench.count("invalid_argument")), (1, 6));
    assert_eq!((bench.count("invalid_tags"), bench.count("invalid_user"), bench.count("invalid_channel")), (1, 2, 1));
}

#[test]
fn compressed_payloads_travel_as_what_they_were() {
    let mut bench = Bench::new(|config| config.ingest.payload_bytes_max = 1_000);
    let mut producer = bench.connect();
    let payload = format!("[\n{}1]", "1,2,3,".repeat(100));
    let mut publish = |channel: &str, payload: &[u8]| {
        let frame = zstd::bulk::compress(payload, 3).unwrap();
        let arguments: [&[u8]; 5] = [b"TG.PUBLISH", channel.as_bytes(), &frame, b"ENCODING", b"zstd"];
        let mut bytes = Vec::new();
        write_command(arguments.into_iter(), &mut bytes);
        producer.write(bytes);
        producer.reply()
    };
    assert_eq!(publish("news:a", payload.as_bytes()), "*2\r\n:0\r\n$-1\r\n");
    assert_eq!(publish("bytes:a", b"\xff\n"), "*2\r\n:0\r\n$-1\r\n");
    assert!(publish("news:a", b"\xff\n").starts_with("-ERR payload is not valid JSON: invalid UTF-8 at byte 1"));
    assert!(publish("news:a", &[b'1'; 1_001]).contains("of 1001 bytes, decompressed, is too long"));
    let received = bench.received();
    assert_eq!(received[0].data, payload.replace('\n', "").as_bytes());
    assert_eq!((received[1].data.as_slice(), received[1].is_json), (&b"\xff\n"[..], false));
    assert_eq!(received.len(), 2);
    let figures = bench.figures();
    assert_eq!((figures.compressed_payloads, figures.decompressed_bytes), (3, payload.len() as u64 + 4));
    assert!(figures.compressed_bytes < 150);
}

#[test]
fn sending_to_users_needs_personal_channels() {
    let bench = Bench::new(|config| config.client.personal_channel = false);
    let refused = bench.connect().command(&["TG.SEND", "a", "1"]);
    assert_eq!(refused, "-ERR personal channels are off: set client.personal_channel = true to send to a user\r\n");
}

#[test]
fn answers_of_all_shards_are_one_reply() {
    let bench = Bench::new(|_| {});
    let mut producer = bench.connect();
    assert_eq!(producer.command(&["TG.BROADCAST", "{}"]), ":21\r\n");
    assert_eq!(producer.command(&["TG.DISCONNECT", "eve"]), ":4\r\n");
    assert_eq!(producer.command(&["tg.disconnect", "eve", "some-client"]), ":1\r\n");
    assert_eq!(producer.command(&["PUBSUB", "CHANNELS"]), "*3\r\n$4\r\nall0\r\n$4\r\nall1\r\n$4\r\nboth\r\n");
    assert_eq!(producer.command(&["pubsub", "shardchannels", "x"]), "*3\r\n$4\r\nboth\r\n$2\r\nx0\r\n$2\r\nx1\r\n");
    assert_eq!(
        producer.command(&["PUBSUB", "NUMSUB", "abc", "é", "a", "bb"]),
        "*8\r\n$3\r\nabc\r\n:3\r\n$2\r\né\r\n:0\r\n$1\r\na\r\n:1\r\n$2\r\nbb\r\n:2\r\n"
    );
    assert_eq!(producer.command(&["PUBSUB", "NUMSUB"]), "*0\r\n");
    assert_eq!(producer.command(&["PUBSUB", "NUMPAT"]), ":0\r\n");
    assert_eq!(
        producer.command(&["PUBSUB", "CHANNELS", "a", "b"]),
        "-ERR wrong number of arguments for 'pubsub|channels' command\r\n"
    );
}

#[test]
fn a_password_comes_before_everything() {
    let mut bench = Bench::new(|config| config.ingest.password = Some("secret".into()));
    let mut producer = bench.connect();
    let required = "-NOAUTH Authentication required.\r\n";
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    for command in [&["PUBLISH", "news:a", "1"][..], &["PING"], &["GET", "a"], &["CLIENT", "ID"], &["MULTI"]] {
        assert_eq!(producer.command(command), required, "{command:?}");
    }
    assert!(producer.command(&["HELLO", "3"]).starts_with("-NOAUTH HELLO must be called"));
    for command in [&["AUTH", "secre"][..], &["AUTH", "secretx"], &["AUTH", ""], &["AUTH", "root", "secret"]] {
        assert_eq!(producer.command(command), wrong, "{command:?}");
    }
    assert_eq!(producer.command(&["HELLO", "3", "AUTH", "default", "no"]), wrong);
    assert_eq!(producer.command(&["PING"]), required);
    assert!(producer.command(&["HELLO", "3", "AUTH", "default", "secret", "SETNAME", "me"]).starts_with("%7\r\n"));
    assert_eq!(producer.command(&["CLIENT", "GETNAME"]), "$2\r\nme\r\n");
    assert_eq!(producer.command(&["RESET"]), "+RESET\r\n");
    assert_eq!(producer.command(&["PING"]), required);
    assert_eq!(producer.command(&["AUTH", "secret"]), "+OK\r\n");
    assert_eq!(producer.command(&["AUTH", "default", "secret"]), "+OK\r\n");
    assert_eq!(producer.command(&["PUBLISH", "news:a", "4"]), ":4\r\n");
    assert_eq!((bench.count("wrong_password"), bench.count("authentication_required")), (5, 8));

    let mut stranger = bench.connect();
    stranger.write("*2\r\n$4\r\nAUTH\r\n$1000000\r\n");
    assert_eq!(stranger.until_end(), "-ERR Protocol error: unauthenticated bulk length\r\n");
}

#[test]
fn libraries_get_the_answers_that_they_expect() {
    let bench = Bench::new(|_| {});
    let mut producer = bench.connect();
    assert!(producer.command(&["HELLO"]).starts_with("*14\r\n$6\r\nserver\r\n$8\r\ntidegate\r\n"));
    assert_eq!(producer.command(&["HELLO", "4"]), "-NOPROTO unsupported protocol version\r\n");
    assert_eq!(producer.command(&["HELLO", "x"]), "-ERR Protocol version is not an integer or out of range\r\n");
    assert_eq!(producer.command(&["HELLO", "3", "AUTH", "a"]), "-ERR Syntax error in HELLO option 'AUTH'\r\n");
    assert!(producer.command(&["AUTH", "x"]).starts_with("-ERR AUTH <password> called without any password"));
    assert_eq!(producer.command(&["AUTH", "default", "x"]), "+OK\r\n");
    assert_eq!(producer.command(&["client", "SETINFO", "LIB-NAME", "ioredis"]), "+OK\r\n");
    assert_eq!(producer.command(&["CLIENT", "SETINFO", "LIB-X", "1"]), "-ERR Unrecognized option 'LIB-X'\r\n");
    assert!(producer.command(&["CLIENT", "SETNAME", "a b"]).starts_with("-ERR Client names cannot contain spaces"));
    assert!(producer.command(&["CLIENT", "INFO"]).contains(" lib-name=ioredis "));
    assert_eq!(producer.command(&["CLIENT", "GETNAME"]), "$-1\r\n");
    assert_eq!(producer.command(&["CLIENT", "ID"]), ":1\r\n");
    assert_eq!(
        producer.command(&["CLIENT", "MAINT_NOTIFICATIONS", "ON"]),
        "-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.\r\n"
    );
    assert_eq!(producer.command(&["CLIENT"]), "-ERR wrong number of arguments for 'client' command\r\n");
    assert_eq!(producer.command(&["CLIENT", "ID", "x"]), "-ERR wrong number of arguments for 'client|id' command\r\n");
    assert_eq!(producer.command(&["SELECT", "3"]), "+OK\r\n");
    assert_eq!(producer.command(&["SELECT", "x"]), "-ERR value is not an integer or out of range\r\n");
    assert_eq!(
        producer.command(&["CONFIG", "GET", "save", "append*"]),
        "*4\r\n$10\r\nappendonly\r\n$2\r\nno\r\n$4\r\nsave\r\n$0\r\n\r\n"
    );
    let info = producer.command(&["INFO"]);
    for field in ["redis_version:", "loading:0\r\n", "role:master\r\n", "connected_clients:1\r\n"] {
        assert!(info.contains(field), "{info}");
    }
    assert!(!producer.command(&["INFO", "server"]).contains("role:"));
    assert!(producer.command(&["COMMAND", "COUNT"]).starts_with(':'));
    assert!(producer.command(&["COMMAND", "DOCS", "publish", "none"]).starts_with("*2\r\n$7\r\npublish\r\n*6\r\n"));
    assert!(producer.command(&["COMMAND", "INFO", "publish", "none"]).ends_with("$-1\r\n"));
    assert!(producer.command(&["COMMAND", "LIST"]).contains("tg.publish"));
    assert!(producer.command(&["TIME"]).starts_with("*2\r\n$10\r\n"));
    assert_eq!(
        producer.command(&["GET", "a", "b"]),
        "-ERR unknown command 'GET', with args beginning with: 'a' 'b' \r\n"
    );
    assert!(producer.command(&["HELLO", "3"]).starts_with("%7\r\n"));
    assert_eq!(producer.command(&["CLIENT", "GETNAME"]), "_\r\n");
    assert!(producer.command(&["INFO"]).starts_with('='));
    assert_eq!(producer.command(&["CONFIG", "GET", "none"]), "%0\r\n");
    assert_eq!(producer.command(&["TG.PUBLISH", "news:a", "1"]), "*2\r\n:0\r\n_\r\n");
    producer.write("ping\r\nPING \"a b\"\r\nQUIT\r\nPING\r\n");
    assert_eq!(producer.until_end(), "+PONG\r\n$3\r\na b\r\n+OK\r\n");
}

#[test]
fn transactions_are_answered_at_their_end() {
    let bench = Bench::new(|_| {});
    let mut producer = bench.connect();
    let commands: [&[&str]; 6] = [
        &["MULTI"],
        &["PUBLISH", "news:a", "1"],
        &["PUBLISH", "news:a", "x"],
        &["TG.PUBLISH", "kept:b", "2"],
        &["PING"],
        &["EXEC"],
    ];
    producer.write(commands.iter().flat_map(|command| encode(command)).collect::<Vec<_>>());
    producer.write(encode(&["PING", "after"]));
    for reply in ["+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "+QUEUED\r\n"] {
        assert_eq!(producer.reply(), reply);
    }
    let all = producer.reply();
    assert!(all.starts_with("*4\r\n:1\r\n-ERR payload is not valid JSON"), "{all}");
    assert!(all.ends_with("\r\n*2\r\n:5\r\n$4\r\nabcd\r\n+PONG\r\n"), "{all}");
    assert_eq!(producer.reply(), "$5\r\nafter\r\n");

    assert_eq!(producer.command(&["MULTI"]), "+OK\r\n");
    assert_eq!(producer.command(&["MULTI"]), "-ERR MULTI calls can not be nested\r\n");
    assert_eq!(producer.command(&["EXEC"]), "*0\r\n");
    assert_eq!(producer.command(&["EXEC"]), "-ERR EXEC without MULTI\r\n");
    assert_eq!(producer.command(&["DISCARD"]), "-ERR DISCARD without MULTI\r\n");
    for wrong in [&["GET", "a"][..], &["PUBLISH", "news:a"]] {
        assert_eq!(producer.command(&["MULTI"]), "+OK\r\n");
        assert!(producer.command(wrong).starts_with("-ERR "));
        assert_eq!(producer.command(&["PING"]), "+QUEUED\r\n");
        assert_eq!(producer.command(&["EXEC"]), "-EXECABORT Transaction discarded because of previous errors.\r\n");
    }
    assert_eq!(producer.command(&["MULTI"]), "+OK\r\n");
    assert_eq!(producer.command(&["DISCARD"]), "+OK\r\n");
    assert_eq!(producer.command(&["PING"]), "+PONG\r\n");
}

#[test]
fn a_transaction_may_be_longer_than_what_may_be_pending() {
    const PUBLICATIONS: usize = 2 * INGEST_PENDING_COMMANDS_MAX;
    let bench = Bench::with_queue_length(16, |_| {});
    let mut producer = bench.connect();
    let mut bytes = encode(&["MULTI"]);
    for number in 0..PUBLICATIONS {
        bytes.extend(encode(&["PUBLISH", "news:a", &number.to_string()]));
    }
    bytes.extend(encode(&["EXEC"]));
    producer.write(bytes);
    for _ in 0..=PUBLICATIONS {
        assert!(matches!(producer.reply().as_str(), "+OK\r\n" | "+QUEUED\r\n"));
    }
    let expected: String = (0..PUBLICATIONS).map(|number| format!(":{number}\r\n")).collect();
    assert_eq!(producer.reply(), format!("*{PUBLICATIONS}\r\n{expected}"));
}

#[test]
fn a_payload_may_come_in_small_pieces() {
    let bench = Bench::new(|_| {});
    let mut producer = bench.connect();
    let payload = format!("\"{}\"", "x".repeat(1024 * 1024 - 2));
    let bytes = encode(&["PUBLISH", "news:a", &payload]);
    for piece in bytes.chunks(10_000) {
        producer.write(piece);
    }
    assert_eq!(producer.reply(), ":1\r\n");
    assert_eq!(bench.received()[0].data, payload.as_bytes());
    for byte in encode(&["PUBLISH", "news:a", "17"]) {
        producer.write([byte]);
    }
    assert_eq!(producer.reply(), ":17\r\n");
}

#[test]
fn garbage_is_answered_after_what_came_before_it() {
    let mut bench = Bench::new(|_| {});
    bench.hold_shards(0b11);
    let mut producer = bench.connect();
    producer.write(encode(&["PUBLISH", "news:a", "3"]));
    producer.write("*x\r\nPING\r\n");
    until("the garbage is seen", || bench.count("invalid_argument_count") == 1);
    bench.hold_shards(0);
    assert_eq!(producer.until_end(), ":3\r\n-ERR Protocol error: invalid multibulk length\r\n");
    let mut page = bench.connect();
    page.write("POST / HTTP/1.1\r\nHost: a\r\n\r\nPUBLISH news:a 1\r\n");
    assert_eq!(page.until_end(), "-ERR this port speaks RESP, not HTTP\r\n");
    assert_eq!(bench.count("web_request"), 1);
    assert_eq!(bench.received().len(), 1);
}

#[test]
fn a_producer_that_has_said_all_is_answered_all() {
    let mut bench = Bench::new(|_| {});
    bench.hold_shards(0b11);
    let mut producer = bench.connect();
    producer.write(encode(&["PUBLISH", "news:a", "3"]));
    producer.write("*1\r\n$4\r\nPI");
    producer.writer.shutdown(Shutdown::Write).unwrap();
    thread::sleep(Duration::from_millis(20));
    bench.hold_shards(0);
    assert_eq!(producer.until_end(), ":3\r\n");
    until("it is forgotten", || bench.figures().connections == 0);
}

#[test]
fn answers_to_producers_that_have_gone_go_nowhere() {
    let mut bench = Bench::new(|_| {});
    bench.hold_shards(0b11);
    for _ in 0..10 {
        let mut producer = bench.connect();
        producer.write(encode(&["PUBLISH", "news:a", "3"]));
        producer.write(encode(&["ECHO", "unread"]));
    }
    until("all have been read", || bench.figures().commands.contains(&("publish", 10)));
    bench.hold_shards(0);
    until("all are forgotten", || bench.figures().connections == 0);
    assert_eq!(bench.received().len(), 10);
    assert_eq!(bench.connect().command(&["PING"]), "+PONG\r\n");
}

#[test]
fn one_producer_too_many_is_told_so() {
    let mut bench = Bench::new(|config| config.ingest.connections_max = 2);
    let mut first = bench.connect();
    let mut second = bench.connect();
    assert_eq!(first.command(&["PING"]), "+PONG\r\n");
    assert_eq!(second.command(&["PING"]), "+PONG\r\n");
    assert_eq!(bench.connect().until_end(), "-ERR max number of clients reached\r\n");
    assert_eq!(bench.count("too_many_connections"), 1);
    drop(first);
    until("there is a place again", || bench.connect().command(&["PING"]) == "+PONG\r\n");
}

#[test]
fn a_stop_answers_what_is_pending_and_closes() {
    let socket = std::env::temp_dir().join(format!("tidegate-ingest-{}.socket", std::process::id()));
    let mut bench = Bench::new(|config| config.ingest.unix = Some(socket.clone()));
    let address = bench.ingest.as_ref().unwrap().address.unwrap();
    let mut idle = UnixStream::connect(&socket).unwrap();
    bench.hold_shards(0b11);
    let mut producer = bench.connect();
    producer.write(encode(&["PUBLISH", "news:a", "3"]));
    until("it is read", || bench.figures().commands == [("publish", 1)]);
    bench.shut_down();
    assert_eq!(idle.read(&mut [0; 8]).unwrap(), 0, "an idle producer is let go at once");
    bench.hold_shards(0);
    assert_eq!(producer.until_end(), ":3\r\n");
    bench.join();
    assert!(!socket.exists());
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let mut bench = Bench::new(|config| config.shutdown.ms_max = 1_000);
    bench.hold_shards(0b11);
    let mut producer = bench.connect();
    producer.write(encode(&["PUBLISH", "news:a", "3"]));
    until("it is read", || bench.figures().commands == [("publish", 1)]);
    let start = Instant::now();
    bench.shut_down();
    bench.join();
    assert!((90..900).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert_eq!(producer.until_end(), "", "the socket is closed");
}

#[test]
fn a_taken_address_is_reported_before_the_thread_runs() {
    let bench = Bench::new(|_| {});
    let mut config = Config::clone(&bench.config);
    config.ingest.listen = bench.ingest.as_ref().unwrap().address;
    let (_shards, ingest, _control) = build_with_queue_length(1, 4).unwrap();
    let error = spawn(Arc::new(config), ChannelHasher::default(), ingest, Passed::default(), None).unwrap_err();
    assert!(error.to_string().contains("Address already in use"), "{error}");
}

#[test]
fn redis_cli_and_redis_benchmark_push() {
    let socket: PathBuf = std::env::temp_dir().join(format!("tidegate-cli-{}.socket", std::process::id()));
    let bench = Bench::new(|config| {
        config.ingest.unix = Some(socket.clone());
        config.ingest.password = Some("secret".into());
    });
    let port = bench.port().to_string();
    let path = socket.to_str().unwrap();
    let run = |program: &str, arguments: &[&str], input: &str| -> String {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; `make test-tools` installs it"));
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let login = ["--no-auth-warning", "-a", "secret"];
    assert_eq!(run("redis-cli", &[&["-p", &port], &login[..], &["PUBLISH", "news:a", "5"]].concat(), ""), "5\n");
    assert_eq!(run("redis-cli", &[&["-s", path, "-3"], &login[..], &["PUBLISH", "news:a", "6"]].concat(), ""), "6\n");
    assert!(run("redis-cli", &["-p", &port, "PUBLISH", "news:a", "6"], "").contains("NOAUTH"));
    let piped: String = (0..5000).map(|number| format!("PUBLISH news:a {number}\r\n")).collect();
    let told = run("redis-cli", &[&["-p", &port, "--pipe"], &login[..]].concat(), &piped);
    assert!(told.contains("errors: 0, replies: 5000"), "{told}");
    for version in [&[][..], &["-3"]] {
        let arguments = ["-p", &port, "-a", "secret", "-c", "4", "-P", "16", "-n", "4800", "-q"];
        let told = run("redis-benchmark", &[&arguments, version, &["PUBLISH", "bytes:a", "hello"]].concat(), "");
        assert!(told.contains("requests per second") && !told.contains("Error"), "{told}");
    }
    assert_eq!(bench.received().len(), 2 + 5000 + 2 * 4800);
    drop(bench);
    assert!(fs::metadata(&socket).is_err());
}

#[test]
fn a_reload_changes_what_producers_may_and_cuts_nobody_off() {
    let mut bench = Bench::new(|config| {
        config.ingest.password = Some("first".into());
        config.ingest.payload_bytes_max = 10;
        config.ingest.connections_max = 2;
    });
    let mut producer = bench.connect();
    assert_eq!(producer.command(&["AUTH", "first"]), "+OK\r\n");
    assert!(producer.command(&["PUBLISH", "news:a", "12345678901"]).starts_with('-'));
    assert!(producer.command(&["PUBLISH", "added:a", "1"]).starts_with('-'));
    let mut config = Config::clone(&bench.config);
    config.ingest.password = Some("second".into());
    config.ingest.payload_bytes_max = 4_000_000;
    config.ingest.connections_max = 3;
    let added = Namespace { name: "added".to_owned(), ..Namespace::default() };
    config.namespaces.by_name[0] = Arc::new(added);
    bench.control.to_ingest.send(ToIngest::Reconfigure { config: Arc::new(config), reload: 4 });
    bench.control.to_ingest.ring();
    assert!(matches!(bench.next_to_control(), ToControl::Reconfigured { reload: 4 }));
    let long = format!("\"{}\"", "x".repeat(2_000_000));
    assert_eq!(producer.command(&["PUBLISH", "news:a", &long]), ":1\r\n", "its parser takes more, too");
    assert_eq!(producer.command(&["PUBLISH", "added:a", "1"]), ":1\r\n");
    assert!(producer.command(&["PUBLISH", "bytes:a", "1"]).starts_with('-'), "its namespace has gone");
    let mut others = [bench.connect(), bench.connect()];
    assert!(others[0].command(&["AUTH", "first"]).starts_with("-WRONGPASS"));
    assert!(others.iter_mut().all(|other| other.command(&["AUTH", "second"]) == "+OK\r\n"));
    assert_eq!(Arc::strong_count(&bench.config), 1, "the thread keeps nothing of the old one");
}
