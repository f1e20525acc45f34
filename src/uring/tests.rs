//! The real ring over real sockets: batches of every size, buffers that come and go, sockets that end in the middle.
//! `make sanitize` runs these under AddressSanitizer.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use super::{Bell, Event, Kernel, Listener, Receive, Ring, RingOptions, Send, Socket, Token, probe};
use crate::limits::{RECEIVE_BATCH_MAX, RECEIVE_BYTES_MAX, SEND_BATCH_MAX};

/// Long enough for whatever does not hang.
const PATIENCE_MS: u64 = 10_000;

struct Bench {
    ring: Ring,
    address: SocketAddr,
    events: Vec<Event>,
    outcomes: Vec<Result<usize, nix::errno::Errno>>,
}

impl Bench {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let bell = Arc::new(Bell::new().unwrap());
        let options = RingOptions {
            features: probe().unwrap(),
            listener: Listener { socket: OwnedFd::from(listener), is_shared: false },
            bell: Arc::clone(&bell),
            bells: vec![bell],
        };
        let mut ring = Ring::new(options).unwrap();
        ring.accept();
        Self { ring, address, events: Vec::new(), outcomes: Vec::new() }
    }

    /// Waits until an event of some kind has come.
    fn wait_for<T>(&mut self, mut take: impl FnMut(&Event) -> Option<T>) -> T {
        for _ in 0..1_000 {
            if let Some(position) = self.events.iter().position(|event| take(event).is_some()) {
                return take(&self.events.remove(position)).unwrap();
            }
            self.ring.wait(Some(PATIENCE_MS), &mut self.events);
            assert!(!self.events.is_empty(), "nothing happens");
        }
        panic!("other things happen");
    }

    /// A client, and its socket here.
    fn client(&mut self) -> (TcpStream, Socket) {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(PATIENCE_MS))).unwrap();
        let socket = self.wait_for(|event| match event {
            Event::Accepted(socket) => Some(*socket),
            _ => None,
        });
        (client, socket)
    }

    fn send(&mut self, sends: &[Send<'_>]) -> Vec<Result<usize, nix::errno::Errno>> {
        self.ring.send(sends, &mut self.outcomes);
        self.outcomes.clone()
    }

    fn receive(&mut self, sockets: &[Socket]) -> Vec<Result<usize, nix::errno::Errno>> {
        let receives: Vec<_> = sockets.iter().map(|socket| Receive { socket: *socket }).collect();
        self.ring.receive(&receives, &mut self.outcomes);
        self.outcomes.clone()
    }
}

#[test]
fn a_batch_has_ended_when_it_returns_and_its_buffers_may_go() {
    let mut bench = Bench::new();
    let (mut client, socket) = bench.client();
    let mut expected = Vec::new();
    for round in 0..20_u8 {
        // Buffers of their own, given back right after the call: the kernel must not look at them later.
        let buffers: Vec<Vec<u8>> =
            (0..SEND_BATCH_MAX).map(|number| vec![round ^ number as u8; 1 + number % 50]).collect();
        let sends: Vec<_> = buffers.iter().map(|bytes| Send { socket, bytes }).collect();
        let outcomes = bench.send(&sends);
        assert_eq!(outcomes.len(), SEND_BATCH_MAX);
        for (bytes, outcome) in buffers.iter().zip(outcomes) {
            assert_eq!(outcome, Ok(bytes.len()));
            expected.extend_from_slice(bytes);
        }
        drop(buffers);
        let mut received = vec![0; expected.len()];
        client.read_exact(&mut received).unwrap();
        assert_eq!(received, expected);
        expected.clear();
    }
}

#[test]
fn each_receive_has_its_own_part_of_the_buffer() {
    let mut bench = Bench::new();
    let clients: Vec<_> = (0..RECEIVE_BATCH_MAX).map(|_| bench.client()).collect();
    for (number, (client, socket)) in clients.iter().enumerate() {
        bench.ring.park(*socket, Token::new(number as u32, 7));
        (&*client).write_all(&vec![number as u8; RECEIVE_BYTES_MAX]).unwrap();
    }
    let mut ready = vec![false; clients.len()];
    while ready.contains(&false) {
        let token = bench.wait_for(|event| match event {
            Event::Ready { token, .. } => Some(*token),
            _ => None,
        });
        assert_eq!(token.generation, 7);
        ready[token.index as usize] = true;
    }
    let sockets: Vec<Socket> = clients.iter().map(|(_, socket)| *socket).collect();
    let outcomes = bench.receive(&sockets);
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let bytes = outcome.unwrap();
        assert!(bytes > 0 && bench.ring.received(number, bytes).iter().all(|byte| *byte == number as u8));
    }
}

#[test]
fn full_and_ended_sockets_are_told_and_harm_no_other() {
    let mut bench = Bench::new();
    let (full, full_socket) = bench.client();
    let (reset, reset_socket) = bench.client();
    let (mut well, well_socket) = bench.client();
    let megabyte = vec![1; 1 << 20];
    let mut sent = 0;
    let refusal = loop {
        match bench.send(&[Send { socket: full_socket, bytes: &megabyte }])[0] {
            Ok(bytes) => sent += bytes,
            Err(error) => break error,
        }
    };
    assert_eq!(refusal, nix::errno::Errno::EAGAIN);
    assert!(sent > 0);
    bench.ring.park_writable(full_socket, Token::new(1, 1));
    drop(reset);
    let sends = [full_socket, reset_socket, well_socket].map(|socket| Send { socket, bytes: b"word" });
    let outcomes = bench.send(&sends);
    assert_eq!((outcomes[0], outcomes[2]), (Err(nix::errno::Errno::EAGAIN), Ok(4)));
    let mut word = [0; 4];
    well.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"word");
    let mut rest = vec![0; sent];
    (&full).read_exact(&mut rest).unwrap();
    let writable = bench.wait_for(|event| match event {
        Event::Writable(token) => Some(*token),
        _ => None,
    });
    assert_eq!(writable, Token::new(1, 1));
    well.shutdown(Shutdown::Write).unwrap();
    bench.ring.park(well_socket, Token::new(2, 1));
    let is_ended = bench.wait_for(|event| match event {
        Event::Ready { token, ended } if token.index == 2 => Some(*ended),
        _ => None,
    });
    assert!(is_ended);
    assert_eq!(bench.receive(&[well_socket]), [Ok(0)]);
}

#[test]
fn more_is_asked_than_the_ring_holds_at_once() {
    let mut bench = Bench::new();
    let clients: Vec<_> = (0..400).map(|_| bench.client()).collect();
    for (number, (_, socket)) in clients.iter().enumerate() {
        let token = Token::new(number as u32, 1);
        bench.ring.park(*socket, token);
        bench.ring.park_writable(*socket, token);
        bench.ring.close(*socket, token, true);
    }
    for (mut client, _) in clients {
        client.set_nonblocking(true).unwrap();
        // What is asked takes more than one turn: a watch lets go of its socket in a later one than it was removed in.
        let mut turns = 0;
        while let Err(error) = client.read(&mut [0]) {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            turns += 1;
            assert!(turns < 1_000, "a socket that was closed ends");
            bench.ring.wait(Some(10), &mut bench.events);
        }
    }
}

#[test]
fn a_socket_closes_though_its_watch_is_about_to_tell_of_something() {
    let mut bench = Bench::new();
    let (mut client, socket) = bench.client();
    let token = Token::new(3, 1);
    bench.ring.park(socket, token);
    bench.ring.wait(Some(0), &mut bench.events);
    // The request to end the watch comes to the kernel before the watch has told of these bytes.
    client.write_all(b"late").unwrap();
    bench.ring.close(socket, token, false);
    for _ in 0..3 {
        bench.ring.wait(Some(10), &mut bench.events);
    }
    // An end; a reset, as nobody has read the bytes.
    let end = client.read(&mut [0]);
    assert!(
        matches!(&end, Ok(0)) || end.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
        "{end:?}"
    );
}
