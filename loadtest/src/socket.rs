//! A client's TCP socket: readiness by the ring, bytes by nonblocking calls into a buffer that the
//! caller lends, so that a waiting socket owns none.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd,
    time::Duration,
};

use monoio::net::TcpStream;
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv, send, setsockopt, sockopt::IpBindAddressNoPort},
};
use socket2::{Domain, Protocol, Type};

/// A connected socket. Dropping it resets the connection, so that no TIME_WAIT outlives a run.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
}

impl Socket {
    /// Connects, from a given address if there is one, with a receive buffer of a given size if there is one.
    ///
    /// # Errors
    /// As the system calls do.
    pub async fn connect(
        source: Option<Ipv4Addr>,
        target: SocketAddr,
        receive_buffer_bytes: Option<usize>,
    ) -> io::Result<Socket> {
        let socket =
            socket2::Socket::new(Domain::for_address(target), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_tcp_nodelay(true)?;
        if let Some(bytes) = receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(source) = source {
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
            None => Ok(Socket { stream }),
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
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(self.stream.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(received) => Ok(Some(received)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
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
