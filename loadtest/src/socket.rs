//! A client's TCP socket: readiness by the ring, bytes by nonblocking calls into a buffer that the
//! caller lends, so that a waiting socket owns none.

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

use crate::clock;

/// Where a receive puts what it gets: shared by all sockets of a thread.
#[derive(Debug)]
pub struct ReceiveBuffer {
    /// The bytes of the last receive, and whatever was behind them before.
    pub bytes: Vec<u8>,
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
        ReceiveBuffer { bytes: vec![0; bytes], arrived_ns: None, control: nix::cmsg_space!(TimeSpec) }
    }
}

/// A connected socket. Dropping it resets the connection, so that no TIME_WAIT outlives a run.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    notes_arrivals: bool,
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
            None => Ok(Socket { stream, notes_arrivals: options.notes_arrivals }),
        }
    }

    /// Waits until there is something to receive, or the connection ends.
    ///
    /// # Errors
    /// If the ring refuses.
    pub async fn readable(&self) -> io::Result<()> {
        self.stream.readable(true).await
    }

    /// Receives what is there; none if nothing is; 0 at the end of the stream.
    ///
    /// # Errors
    /// As recv(2).
    pub fn receive(&self, buffer: &mut ReceiveBuffer) -> io::Result<Option<usize>> {
        buffer.arrived_ns = None;
        let received = if self.notes_arrivals {
            self.receive_with_arrival(buffer)
        } else {
            recv(self.stream.as_raw_fd(), &mut buffer.bytes, MsgFlags::MSG_DONTWAIT)
        };
        match received {
            Ok(received) => Ok(Some(received)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn receive_with_arrival(&self, buffer: &mut ReceiveBuffer) -> nix::Result<usize> {
        let mut parts = [IoSliceMut::new(&mut buffer.bytes)];
        let descriptor = self.stream.as_raw_fd();
        let message = recvmsg::<()>(descriptor, &mut parts, Some(&mut buffer.control), MsgFlags::MSG_DONTWAIT)?;
        buffer.arrived_ns = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(time) => Some(clock::monotonic_ns(time)),
            _ => None,
        });
        Ok(message.bytes)
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// As send(2).
    pub async fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
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
