//! The floor: what the kernel itself costs. A child process that accepts, answers each request
//! once, and sends the same bytes to all in a plain loop. One thread, no ring, no state beyond a
//! descriptor; readiness is asked for only where it is measured too (its heartbeats).

use std::{
    io::Read,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, send},
};

use crate::{
    clock::{SECOND_NS, now_ns, sleep_until_ns},
    cores,
    floor_heartbeat::Heart,
    link::{FloorAddressees, FloorCommand, FloorEvent, FloorSend, Link},
    stamp::{STAMP_BYTES, Stamp, StampFinder},
    stream::Stream,
    websocket::upgrade_response,
};

/// Runs until the coordinator is gone.
///
/// # Errors
/// If it cannot listen, or a client goes before its time.
pub fn run() -> Result<()> {
    let link = Link::to_coordinator()?;
    let mut commands = link.messages::<FloorCommand>()?;
    let Some(FloorCommand::Listen { core, clients }) = commands.next().transpose()? else {
        bail!("the floor's server must be told to listen first")
    };
    if let Some(core) = core {
        cores::pin(&[core])?;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("the floor's server cannot listen")?;
    // The standard library's backlog is 128; servers that are measured have as much as the kernel allows.
    socket2::SockRef::from(&listener).listen(4096)?;
    listener.set_nonblocking(true)?;
    link.send(&FloorEvent::Listening { address: listener.local_addr()? })?;
    let sockets = accept(&listener, clients as usize)?;
    link.send(&FloorEvent::Accepted)?;
    let mut heart = None::<Heart<'_>>;
    for command in commands {
        match command? {
            FloorCommand::Listen { .. } => bail!("the floor's server listens already"),
            FloorCommand::Send(order) => send_all(&link, &sockets, &order)?,
            FloorCommand::Beat(order) => {
                let kept = heart.take().filter(|heart| heart.asks_readiness() == order.asks_readiness);
                let beating = match kept {
                    Some(kept) => heart.insert(kept),
                    None => heart.insert(Heart::new(&sockets, order.asks_readiness)?),
                };
                link.send(&FloorEvent::Beaten { heartbeats: beating.beat(&order)? })?;
            }
        }
    }
    Ok(())
}

/// Accepts all clients; reads once from each and answers once.
fn accept(listener: &TcpListener, clients: usize) -> Result<Vec<TcpStream>> {
    let mut answered = Vec::with_capacity(clients);
    let mut silent: Vec<TcpStream> = Vec::new();
    let response = upgrade_response();
    let mut request = [0; 4096];
    while answered.len() < clients {
        let timeout = if silent.is_empty() { PollTimeout::NONE } else { PollTimeout::from(1_u8) };
        poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], timeout)?;
        // Sockets of an earlier turn: their requests have come by now, and no receive is in vain.
        let earlier = std::mem::take(&mut silent);
        while let Ok((socket, _)) = listener.accept() {
            socket.set_nonblocking(true)?;
            silent.push(socket);
        }
        for mut socket in earlier {
            match socket.read(&mut request) {
                Ok(0) => bail!("a client of the floor went before it was answered"),
                Ok(_) => {
                    let sent = send(socket.as_raw_fd(), &response, MsgFlags::MSG_NOSIGNAL)?;
                    ensure!(sent == response.len(), "a new socket takes a whole answer");
                    answered.push(socket);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => silent.push(socket),
                Err(error) => return Err(error).context("a client of the floor"),
            }
        }
    }
    Ok(answered)
}

/// Sends the order's frames at each of its instants.
fn send_all(link: &Link, sockets: &[TcpStream], order: &FloorSend) -> Result<()> {
    let mut round = Round::new(sockets, order)?;
    let mut loops_us = Vec::with_capacity(order.instants as usize);
    let mut next_event_ns = now_ns();
    for instant in 0..order.instants {
        let intended_ns = order.start_ns + (instant as f64 * SECOND_NS as f64 / order.rate) as u64;
        sleep_until_ns(intended_ns);
        let started_ns = now_ns();
        match order.to {
            FloorAddressees::All => round.send_to_all(intended_ns)?,
            FloorAddressees::OneByOne => round.send_one_by_one(intended_ns)?,
        }
        let ended_ns = now_ns();
        loops_us.push((ended_ns - started_ns) / 1000);
        if ended_ns >= next_event_ns {
            next_event_ns = ended_ns + SECOND_NS / 5;
            link.send(&FloorEvent::Sending { publications: round.published - order.published })?;
        }
    }
    link.send(&FloorEvent::Sent { loops_us, repeated: round.repeated })
}

/// The sending at one instant after the other.
struct Round<'a> {
    sockets: &'a [TcpStream],
    burst: u64,
    frame_bytes: usize,
    /// Place of the stamp in a frame.
    place: usize,
    /// The frames of one send.
    bytes: Vec<u8>,
    published: u64,
    repeated: u64,
}

impl<'a> Round<'a> {
    fn new(sockets: &'a [TcpStream], order: &FloorSend) -> Result<Round<'a>> {
        let (place, _) = StampFinder::new().find(&order.frame).context("the floor's frame carries no stamp")?;
        let frames = match order.to {
            FloorAddressees::All => order.burst as usize,
            FloorAddressees::OneByOne => 1,
        };
        Ok(Round {
            sockets,
            burst: u64::from(order.burst),
            frame_bytes: order.frame.len(),
            place,
            bytes: order.frame.repeat(frames),
            published: order.published,
            repeated: 0,
        })
    }

    fn send_to_all(&mut self, intended_ns: u64) -> Result<()> {
        for index in 0..self.burst {
            self.published += 1;
            self.write_stamp(index as usize, Stream::Channel(0), self.published, intended_ns);
        }
        for socket in self.sockets {
            self.repeated += send_whole(socket, &self.bytes)?;
        }
        Ok(())
    }

    fn send_one_by_one(&mut self, intended_ns: u64) -> Result<()> {
        for _ in 0..self.burst {
            let clients = self.sockets.len() as u64;
            let (turn, client) = (self.published / clients, self.published % clients);
            self.published += 1;
            self.write_stamp(0, Stream::User(client as u32), turn + 1, intended_ns);
            self.repeated += send_whole(&self.sockets[client as usize], &self.bytes)?;
        }
        Ok(())
    }

    fn write_stamp(&mut self, frame: usize, stream: Stream, sequence: u64, intended_ns: u64) {
        let at = frame * self.frame_bytes + self.place;
        self.bytes[at..at + STAMP_BYTES].copy_from_slice(&Stamp { stream, sequence, intended_ns }.to_bytes());
    }
}

/// One send, repeated only where the socket is full; how often it was repeated.
fn send_whole(socket: &TcpStream, mut bytes: &[u8]) -> Result<u64> {
    let mut repeated = 0;
    loop {
        match send(socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            Ok(sent) if sent == bytes.len() => return Ok(repeated),
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::EAGAIN) => {
                poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("a client of the floor went while it was sent to"),
        }
        repeated += 1;
    }
}
