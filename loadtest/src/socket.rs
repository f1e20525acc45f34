//! A client's socket: readiness by the ring, bytes by nonblocking calls into a buffer that the
//! caller lends, so that a waiting socket owns none. What is sealed is opened and sealed here, and nobody else knows.

use std::{
    io::{self, IoSliceMut},
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd,
    time::Duration,
};

use monoio::net::TcpStream;
use nix::{
    errno::Errno,
    sys::{
        socket::{
            ControlMessageOwned, MsgFlags, recv, recvmsg, send, setsockopt,
            sockopt::{IpBindAddressNoPort, ReceiveTimestampns},
        },
        time::TimeSpec,
    },
};
use socket2::{Domain, Protocol, Type};

use crate::{
    clock,
    tls::{Connector, Session},
};

/// Where a receive puts what it gets: shared by all sockets of a thread.
#[derive(Debug)]
pub struct ReceiveBuffer {
    /// What came over the wire, and whatever was behind it before.
    wire: Vec<u8>,
    /// The same opened, of a socket that speaks TLS.
    opened: Option<Vec<u8>>,
    /// Bytes of the last receive.
    received: usize,
    /// When the kernel had the last of them, on the monotonic clock; none if the socket was not told to ask.
    pub arrived_ns: Option<u64>,
    control: Vec<u8>,
}

/// How a client connects.
#[derive(Debug, Clone, Copy, Default)]
pub struct SocketOptions {
    /// Address to connect from; none: as the kernel chooses.
    pub source: Option<Ipv4Addr>,
    /// Size of the receive buffer, in bytes; none: as the kernel chooses.
    pub receive_buffer_bytes: Option<usize>,
    /// Whether the kernel notes when bytes arrive, before anybody has time to receive them.
    pub notes_arrivals: bool,
}

impl ReceiveBuffer {
    /// Room for this many bytes.
    pub fn new(bytes: usize) -> ReceiveBuffer {
        let control = nix::cmsg_space!(TimeSpec);
        ReceiveBuffer { wire: vec![0; bytes], opened: None, received: 0, arrived_ns: None, control }
    }

    /// What the last receive brought, opened if it was sealed.
    pub fn bytes(&self) -> &[u8] {
        self.opened.as_deref().unwrap_or(&self.wire[..self.received])
    }

    /// Whether the last receive found less than there was room for: then the socket is empty.
    pub fn has_room(&self) -> bool {
        self.received < self.wire.len()
    }
}

/// A connected socket. Dropping it resets the connection, so that no TIME_WAIT outlives a run.
pub struct Socket {
    stream: TcpStream,
    notes_arrivals: bool,
    /// In a box, because most runs are without.
    session: Option<Box<Session>>,
}

impl Socket {
    /// Connects.
    ///
    /// # Errors
    /// As the system calls do.
    pub async fn connect(target: SocketAddr, options: SocketOptions) -> io::Result<Socket> {
        let socket =
            socket2::Socket::new(Domain::for_address(target), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_tcp_nodelay(true)?;
        if options.notes_arrivals {
            setsockopt(&socket, ReceiveTimestampns, &true)?;
        }
        if let Some(bytes) = options.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(source) = options.source {
            // The port is chosen at connect, where a pair of addresses and not an address must be free.
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => return Err(error),
            _ => {}
        }
        let socket = std::net::TcpStream::from(socket);
        let check = socket.try_clone()?;
        let stream = TcpStream::from_std(socket)?;
        stream.writable(true).await?;
        match check.take_error()? {
            Some(error) => Err(error),
            None => Ok(Socket { stream, notes_arrivals: options.notes_arrivals, session: None }),
        }
    }

    /// Speaks TLS from now on.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn secure(&mut self, connector: &Connector) -> io::Result<()> {
        self.session = Some(Box::new(connector.begin()?));
        Ok(())
    }

    /// Whether a TLS handshake has begun and is not over: what is to be sent must be, and more be received.
    pub fn is_shaking_hands(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_shaking_hands())
    }

    /// Whether its TLS handshake resumed a session.
    pub fn is_resumed(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_resumed())
    }

    /// Waits until there is something to receive, or the connection ends.
    ///
    /// # Errors
    /// If the ring refuses.
    pub async fn readable(&self) -> io::Result<()> {
        self.stream.readable(true).await
    }

    /// Receives what is there: how many bytes over the wire; none if nothing is; 0 at the end of the stream.
    ///
    /// # Errors
    /// As recv(2); if what comes is sealed, and not as it must be.
    pub fn receive(&mut self, buffer: &mut ReceiveBuffer) -> io::Result<Option<usize>> {
        buffer.arrived_ns = None;
        buffer.received = 0;
        let received = if self.notes_arrivals {
            self.receive_with_arrival(buffer)
        } else {
            recv(self.stream.as_raw_fd(), &mut buffer.wire, MsgFlags::MSG_DONTWAIT)
        };
        match received {
            Ok(received) => buffer.received = received,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        self.open(buffer)?;
        Ok(Some(buffer.received))
    }

    /// Opens what was received, if it is sealed.
    fn open(&mut self, buffer: &mut ReceiveBuffer) -> io::Result<()> {
        let Some(session) = &mut self.session else {
            buffer.opened = None;
            return Ok(());
        };
        let opened = buffer.opened.get_or_insert_default();
        opened.clear();
        session.receive(&mut buffer.wire[..buffer.received], opened).inspect_err(|_| {
            // The server hears why, if its socket takes it; the connection ends anyway.
            let alert = session.take_output();
            let _ = send(self.stream.as_raw_fd(), &alert, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        })
    }

    fn receive_with_arrival(&self, buffer: &mut ReceiveBuffer) -> nix::Result<usize> {
        let mut parts = [IoSliceMut::new(&mut buffer.wire)];
        let descriptor = self.stream.as_raw_fd();
        let message = recvmsg::<()>(descriptor, &mut parts, Some(&mut buffer.control), MsgFlags::MSG_DONTWAIT)?;
        buffer.arrived_ns = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(time) => Some(clock::monotonic_ns(time)),
            _ => None,
        });
        Ok(message.bytes)
    }

    /// Sends all of it, sealed if the socket speaks TLS.
    ///
    /// # Errors
    /// As send(2).
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(session) = &mut self.session else { return self.send_plain(bytes).await };
        if !bytes.is_empty() {
            session.seal(bytes)?;
        }
        let sealed = session.take_output();
        self.send_plain(&sealed).await
    }

    async fn send_plain(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match send(self.stream.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::EAGAIN) => self.stream.writable(true).await?,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
