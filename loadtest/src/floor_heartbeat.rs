//! The floor of heartbeats: one send() and one recv() per client and interval.
//!
//! Clients are pinged in groups, a group each tick, as servers do whose timers are coarse. What has
//! come is known in one of two ways: by epoll, as any server must that does not know its clients, or
//! not at all: a pong is read a tick after its ping, when it has come for sure. The second is the
//! price of the two calls alone.

use std::{
    collections::VecDeque,
    net::TcpStream,
    os::fd::{AsFd, AsRawFd},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        socket::{MsgFlags, recv, send},
    },
};

use crate::{
    clock::{SECOND_NS, now_ns, sleep_until_ns},
    link::FloorBeat,
    websocket::{Opcode, client_frame, server_frame},
};

/// Between two groups: as coarse as a server's timers may be.
const TICK_NS: u64 = 64_000_000;

/// How long pongs may take that are still owed at the end.
const OWED_NS_MAX: u64 = 10 * SECOND_NS;

/// Ready sockets that one epoll_wait() tells of.
const EVENTS_MAX: usize = 1024;

/// The client's and the server's protocol say the same: an empty message.
const HEARTBEAT: &[u8] = b"{}";

/// What pings the clients of a floor: kept from order to order, so that its making is measured with none.
pub struct Heart<'a> {
    sockets: &'a [TcpStream],
    pongs: Pongs<'a>,
}

impl<'a> Heart<'a> {
    /// For these clients; `asks_readiness`: whether epoll says which pongs have come.
    ///
    /// # Errors
    /// If the kernel has no room for that many sockets in an epoll instance.
    pub fn new(sockets: &'a [TcpStream], asks_readiness: bool) -> Result<Heart<'a>> {
        let pongs = if asks_readiness { Pongs::asking(sockets)? } else { Pongs::unasked(sockets) };
        Ok(Heart { sockets, pongs })
    }

    /// Whether epoll says which pongs have come.
    pub fn asks_readiness(&self) -> bool {
        self.pongs.epoll.is_some()
    }

    /// Pings all clients as ordered; how many pongs came.
    ///
    /// # Errors
    /// If a client goes, says something else, or owes pongs at the end.
    pub fn beat(&mut self, order: &FloorBeat) -> Result<u64> {
        let (sockets, pongs) = (self.sockets, &mut self.pongs);
        let ticks = (order.interval_ns / TICK_NS).max(1);
        let ping = server_frame(Opcode::Text, HEARTBEAT);
        let before = pongs.received;
        let mut pinged = 0;
        for tick in 0..ticks * order.rounds {
            pongs.receive_until(order.start_ns + tick * order.interval_ns / ticks)?;
            let place = |tick: u64| sockets.len() * tick as usize / ticks as usize;
            let group = place(tick % ticks)..place(tick % ticks + 1);
            for socket in &sockets[group.clone()] {
                let sent =
                    send(socket.as_raw_fd(), &ping, MsgFlags::MSG_NOSIGNAL).context("a client of the floor went")?;
                ensure!(sent == ping.len(), "a socket without a backlog takes a whole ping");
            }
            pinged += group.len() as u64;
            pongs.expect(group);
        }
        let end_ns = now_ns() + OWED_NS_MAX;
        while pongs.received - before < pinged {
            ensure!(now_ns() < end_ns, "clients of the floor owe {} pongs", pinged - (pongs.received - before));
            pongs.receive_until(now_ns() + TICK_NS)?;
        }
        Ok(pinged)
    }
}

/// Takes pongs.
struct Pongs<'a> {
    sockets: &'a [TcpStream],
    /// Tells which have come.
    epoll: Option<Epoll>,
    events: Vec<EpollEvent>,
    /// Without that: those pinged and not yet read, the first first.
    awaited: VecDeque<usize>,
    received: u64,
}

impl<'a> Pongs<'a> {
    fn asking(sockets: &'a [TcpStream]) -> Result<Pongs<'a>> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (index, socket) in sockets.iter().enumerate() {
            epoll.add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        }
        let events = vec![EpollEvent::empty(); EVENTS_MAX];
        Ok(Pongs { epoll: Some(epoll), events, ..Pongs::unasked(sockets) })
    }

    fn unasked(sockets: &'a [TcpStream]) -> Pongs<'a> {
        Pongs { sockets, epoll: None, events: Vec::new(), awaited: VecDeque::new(), received: 0 }
    }

    /// These have been pinged.
    fn expect(&mut self, group: std::ops::Range<usize>) {
        if self.epoll.is_none() {
            self.awaited.extend(group);
        }
    }

    /// Takes pongs until the instant.
    fn receive_until(&mut self, instant_ns: u64) -> Result<()> {
        let Some(epoll) = &self.epoll else {
            sleep_until_ns(instant_ns);
            return self.receive_awaited();
        };
        loop {
            let wait_ms = instant_ns.saturating_sub(now_ns()).div_ceil(1_000_000);
            if wait_ms == 0 {
                return Ok(());
            }
            let timeout = EpollTimeout::try_from(wait_ms).context("a tick is short")?;
            let ready = match epoll.wait(&mut self.events, timeout) {
                Err(Errno::EINTR) => 0,
                ready => ready?,
            };
            for event in &self.events[..ready] {
                let socket = &self.sockets[event.data() as usize];
                self.received += receive(socket)?.context("a socket that epoll calls ready has a pong")?;
            }
        }
    }

    /// Takes those that should have come; what has not is looked for a tick later.
    fn receive_awaited(&mut self) -> Result<()> {
        for _ in 0..self.awaited.len() {
            let Some(index) = self.awaited.pop_front() else { break };
            match receive(&self.sockets[index])? {
                Some(pongs) => self.received += pongs,
                None => self.awaited.push_back(index),
            }
        }
        Ok(())
    }
}

/// One recv(): pongs received; none if there is nothing.
fn receive(socket: &TcpStream) -> Result<Option<u64>> {
    let mut buffer = [0; 64];
    let received = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
        Err(Errno::EAGAIN) => return Ok(None),
        Ok(0) => bail!("a client of the floor went before its pong"),
        received => received.context("a client of the floor")?,
    };
    let pong_bytes = client_frame(Opcode::Text, HEARTBEAT, [0; 4]).len();
    ensure!(received % pong_bytes == 0, "a client of the floor says something else than pongs: {received} bytes");
    Ok(Some((received / pong_bytes) as u64))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use super::*;

    /// Clients that answer each ping, on a thread each.
    fn sockets(clients: usize) -> Vec<TcpStream> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (0..clients)
            .map(|_| {
                let mut client = TcpStream::connect(address).unwrap();
                std::thread::spawn(move || {
                    let mut ping = [0; 4];
                    while client.read_exact(&mut ping).is_ok() {
                        assert_eq!(ping, *b"\x81\x02{}");
                        client.write_all(&client_frame(Opcode::Text, b"{}", [1, 2, 3, 4])).unwrap();
                    }
                });
                listener.accept().unwrap().0
            })
            .collect()
    }

    #[test]
    fn each_client_is_pinged_in_each_round() {
        let sockets = sockets(7);
        for asks_readiness in [true, false] {
            let order = FloorBeat { start_ns: now_ns(), interval_ns: 200_000_000, rounds: 3, asks_readiness };
            assert_eq!(
                Heart::new(&sockets, asks_readiness).unwrap().beat(&order).unwrap(),
                21,
                "epoll: {asks_readiness}"
            );
        }
    }

    #[test]
    fn a_client_that_goes_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let sockets = [listener.accept().unwrap().0];
        drop(client);
        let order = FloorBeat { start_ns: now_ns(), interval_ns: 100_000_000, rounds: 2, asks_readiness: true };
        assert!(format!("{:#}", Heart::new(&sockets, true).unwrap().beat(&order).unwrap_err()).contains("went"));
    }
}
