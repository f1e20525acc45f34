//! Many subscribers in one thread: non-blocking sockets under epoll, WebSocket and JSON read with the least effort, over
//! TLS if a test wants it.
//!
//! Owns the connections and what each received, in order. What they should have received is the test's business.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    resource::{Resource, getrlimit, setrlimit},
};
use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::PATH;

/// One publication as a subscriber received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Its channel.
    pub channel: String,
    /// Its offset; 0 if it has none.
    pub offset: u64,
    /// Its payload, as text.
    pub data: String,
}

/// Subscribers.
pub struct Swarm {
    epoll: Epoll,
    /// By which its members speak TLS, to a server whose name is `localhost`.
    security: Option<Arc<ClientConfig>>,
    members: Vec<Member>,
}

/// One subscriber.
pub struct Member {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    state: State,
    input: Vec<u8>,
    channels: Vec<String>,
    /// What it received so far, in order.
    pub received: Vec<Received>,
    /// When it received the last of it.
    pub received_at: Instant,
    /// Offset in each subscribe reply, by the order of its channels.
    pub positions: Vec<Option<u64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Upgrading,
    Connected,
    Ended,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(default)]
    id: u32,
    #[serde(borrow)]
    push: Option<Push<'a>>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    subscribe: Option<Subscribed>,
}

#[derive(Deserialize)]
struct Subscribed {
    #[serde(default)]
    offset: u64,
}

#[derive(Deserialize)]
struct Push<'a> {
    channel: Option<&'a str>,
    #[serde(borrow, rename = "pub")]
    publication: Option<Publication<'a>>,
}

#[derive(Deserialize)]
struct Publication<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    offset: u64,
}

impl Swarm {
    /// A swarm without members that may have `members_max` of them.
    pub fn new(members_max: usize) -> Self {
        raise_descriptors_to(members_max as u64 + 100);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll is there");
        Self { epoll, security: None, members: Vec::with_capacity(members_max) }
    }

    /// The same, whose members speak TLS.
    pub fn secure(members_max: usize, security: Arc<ClientConfig>) -> Self {
        Self { security: Some(security), ..Self::new(members_max) }
    }

    /// Connects one more, which will subscribe to these channels.
    pub fn add(&mut self, address: SocketAddr, channels: Vec<String>) {
        let mut stream = TcpStream::connect(address).expect("the client port accepts");
        let mut tls = self.security.as_ref().map(|security| {
            let name = ServerName::try_from("localhost").expect("it is a name");
            Box::new(ClientConnection::new(Arc::clone(security), name).expect("a client"))
        });
        if let Some(tls) = &mut tls {
            tls.complete_io(&mut stream).expect("the server shakes hands");
        }
        let upgrade = format!(
            "GET {PATH} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        write_all(&mut stream, tls.as_deref_mut(), upgrade.as_bytes());
        stream.set_nonblocking(true).expect("the mode can be set");
        let event = EpollEvent::new(EpollFlags::EPOLLIN, self.members.len() as u64);
        self.epoll.add(stream.as_fd(), event).expect("epoll takes sockets");
        let positions = vec![None; channels.len()];
        self.members.push(Member {
            stream,
            tls,
            state: State::Upgrading,
            input: Vec::new(),
            channels,
            received: Vec::new(),
            received_at: Instant::now(),
            positions,
        });
    }

    /// Its members, in the order in which they were added.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Reads until all members satisfy the condition; fails with `what` after `time`.
    pub fn run_until(&mut self, what: &str, time: Duration, is_done: impl Fn(&Member) -> bool) {
        let end = Instant::now() + time;
        let mut waiting = self.members.iter().filter(|member| !is_done(member)).count();
        while waiting > 0 {
            assert!(Instant::now() < end, "{waiting} of {} still wait after {time:?}: {what}", self.members.len());
            for index in self.ready(Duration::from_millis(100)) {
                let member = &mut self.members[index];
                let was_done = is_done(member);
                member.read();
                assert_ne!(member.state, State::Ended, "the server ended connection {index}: {what}");
                waiting -= usize::from(!was_done && is_done(member));
            }
        }
    }

    /// Reads for a while, whatever comes.
    pub fn run_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            for index in self.ready(left) {
                self.members[index].read();
            }
        }
    }

    fn ready(&self, time: Duration) -> Vec<usize> {
        let mut events = [EpollEvent::empty(); 1024];
        let timeout = EpollTimeout::try_from(time).expect("waits are short");
        let count = self.epoll.wait(&mut events, timeout).expect("epoll works");
        events[..count].iter().map(|event| event.data() as usize).collect()
    }
}

impl Member {
    /// Whether all its channels have answered.
    pub fn is_subscribed(&self) -> bool {
        self.positions.iter().all(Option::is_some)
    }

    fn read(&mut self) {
        let mut chunk = [0; 64 * 1024];
        loop {
            let read = match &mut self.tls {
                None => self.stream.read(&mut chunk).inspect(|read| self.input.extend_from_slice(&chunk[..*read])),
                Some(tls) => tls.read_tls(&mut self.stream).inspect(|_| {
                    tls.process_new_packets().expect("the server seals as it must");
                    // That there is no more for now is no failure.
                    let _ = tls.reader().read_to_end(&mut self.input);
                }),
            };
            match read {
                Ok(0) => {
                    self.state = State::Ended;
                    return;
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        if self.state == State::Upgrading {
            self.finish_upgrade();
        }
        let mut input = std::mem::take(&mut self.input);
        let mut taken = 0;
        while self.state == State::Connected
            && let Some((opcode, payload, end)) = server_frame(&input, taken)
        {
            match opcode {
                0x1 => self.take(std::str::from_utf8(&input[payload..end]).expect("text frames hold text")),
                0x8 => self.state = State::Ended,
                _ => panic!("an unexpected opcode {opcode:#x}"),
            }
            taken = end;
        }
        input.drain(..taken);
        self.input = input;
    }

    fn finish_upgrade(&mut self) {
        const HEAD_END: &[u8] = b"\r\n\r\n";
        let Some(end) = self.input.windows(HEAD_END.len()).position(|window| window == HEAD_END) else { return };
        let head = String::from_utf8_lossy(&self.input[..end]).into_owned();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        self.input.drain(..end + HEAD_END.len());
        self.state = State::Connected;
        let subscribes = self.channels.iter().enumerate();
        let subscribes = subscribes
            .map(|(index, channel)| format!("\n{{\"id\":{},\"subscribe\":{{\"channel\":\"{channel}\"}}}}", index + 2));
        let commands = format!("{{\"id\":1,\"connect\":{{}}}}{}", subscribes.collect::<String>());
        self.send(&commands);
    }

    fn take(&mut self, text: &str) {
        for line in text.split('\n') {
            let message: Message<'_> = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
            assert!(message.error.is_none(), "{line}");
            match (message.push, message.id) {
                (Some(Push { channel: Some(channel), publication: Some(publication) }), _) => {
                    self.received_at = Instant::now();
                    self.received.push(Received {
                        channel: channel.to_owned(),
                        offset: publication.offset,
                        data: publication.data.get().to_owned(),
                    })
                }
                (Some(_), _) => panic!("not a publication: {line}"),
                (None, 0) => self.send("{}"),
                (None, 1) => {}
                (None, id) => {
                    let subscribed = message.subscribe.unwrap_or_else(|| panic!("not a subscribe result: {line}"));
                    self.positions[id as usize - 2] = Some(subscribed.offset);
                }
            }
        }
    }

    /// Sends a short text message, masked with zeros.
    fn send(&mut self, text: &str) {
        let mut bytes = vec![0x81];
        match text.len() {
            length @ 0..=125 => bytes.push(0x80 | length as u8),
            length => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&u16::try_from(length).expect("the message is short").to_be_bytes());
            }
        }
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(text.as_bytes());
        write_all(&mut self.stream, self.tls.as_deref_mut(), &bytes);
    }
}

/// Writes so little that the send buffer takes it.
fn write_all(stream: &mut TcpStream, tls: Option<&mut ClientConnection>, bytes: &[u8]) {
    let Some(tls) = tls else { return stream.write_all(bytes).expect("the send buffer takes a short message") };
    tls.writer().write_all(bytes).expect("it is short");
    while tls.wants_write() {
        tls.write_tls(stream).expect("the send buffer takes a short message");
    }
}

/// Opcode, and begin and end of the payload, of the complete, unfragmented frame at `from`.
fn server_frame(input: &[u8], from: usize) -> Option<(u8, usize, usize)> {
    let (&first, &second) = (input.get(from)?, input.get(from + 1)?);
    assert!(first & 0xF0 == 0x80, "a fragment, or a reserved bit: {first:#x}");
    assert!(second & 0x80 == 0, "a server masks nothing");
    let (payload, length) = match second {
        126 => (from + 4, usize::from(u16::from_be_bytes(input.get(from + 2..from + 4)?.try_into().ok()?))),
        127 => (from + 10, u64::from_be_bytes(input.get(from + 2..from + 10)?.try_into().ok()?) as usize),
        length => (from + 2, usize::from(length)),
    };
    (input.len() >= payload + length).then_some((first & 0x0F, payload, payload + length))
}

fn raise_descriptors_to(count: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits can be read");
    assert!(hard >= count, "this test needs {count} descriptors; raise the limit with `ulimit -Hn {count}`");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(count), hard).expect("the soft limit may be raised to the hard one");
}
