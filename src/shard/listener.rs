//! The clients' port: one listener per shard, between which the kernel spreads clients. A service manager may pass one
//! for all: then each shard accepts from the same queue, whoever comes first.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockname, listen, setsockopt, socket,
        sockopt,
    },
};

use crate::uring::Listener;

/// Why passed listeners cannot be those of the shards.
#[derive(Debug, thiserror::Error)]
pub enum PassedError {
    /// Clients on a listener that no shard accepts from would wait for ever.
    #[error(
        "{sockets} sockets named client were passed to {shards} shards. Pass one, which all shards accept from, or one \
         for each: as many ListenStream= lines, with ReusePort=true"
    )]
    Number {
        /// That were passed.
        sockets: usize,
        /// There are.
        shards: usize,
    },
    /// The kernel refused.
    #[error("a socket named client cannot be used: {0}")]
    Io(#[from] io::Error),
}

/// Makes the shards' listeners of those that a service manager has opened.
///
/// # Errors
/// See [`PassedError`].
pub fn adopt(mut sockets: Vec<OwnedFd>, shards: usize) -> Result<Vec<Listener>, PassedError> {
    if let [socket] = &sockets[..] {
        let others: io::Result<Vec<OwnedFd>> = (1..shards).map(|_| socket.try_clone()).collect();
        sockets.extend(others?);
    } else if sockets.len() != shards {
        return Err(PassedError::Number { sockets: sockets.len(), shards });
    }
    for socket in &sockets {
        setsockopt(socket, sockopt::TcpNoDelay, &true).map_err(io::Error::from)?;
        // The ring itself waits for clients; of a socket that does not wait it would be told that nobody is there.
        let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL).map_err(io::Error::from)?);
        fcntl(socket, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK)).map_err(io::Error::from)?;
    }
    Ok(sockets.into_iter().map(|socket| Listener { socket, is_shared: true }).collect())
}

/// Opens `shards` listeners on one address. Port 0 is given a free port, the same for all.
///
/// # Errors
/// When the address cannot be had, for instance because another server has it.
pub fn open(address: SocketAddr, shards: usize) -> io::Result<(SocketAddr, Vec<Listener>)> {
    // A listener that shares its port would quietly share another server's clients; one that does not share it fails.
    let probe = bound(address, false)?;
    let address = local_address(&probe)?;
    drop(probe);
    let mut listeners = Vec::with_capacity(shards);
    for _ in 0..shards {
        let listener = bound(address, true)?;
        // The kernel cuts it to net.core.somaxconn.
        listen(&listener, Backlog::MAXALLOWABLE)?;
        listeners.push(Listener { socket: listener, is_shared: false });
    }
    Ok((address, listeners))
}

fn bound(address: SocketAddr, is_shared: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let listener = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&listener, sockopt::ReuseAddr, &true)?;
    if is_shared {
        setsockopt(&listener, sockopt::ReusePort, &true)?;
    }
    // Accepted sockets inherit it: a turn's bytes go out in one send, and waiting for more would only delay them.
    setsockopt(&listener, sockopt::TcpNoDelay, &true)?;
    bind(listener.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(listener)
}

fn local_address(listener: &OwnedFd) -> io::Result<SocketAddr> {
    let address: SockaddrStorage = getsockname(listener.as_raw_fd())?;
    if let Some(address) = address.as_sockaddr_in() {
        return Ok((*address).into());
    }
    let address = address.as_sockaddr_in6().expect("the socket was made for an internet address");
    Ok((*address).into())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn all_shards_listen_on_one_port_and_nobody_else() {
        let (address, listeners) = open("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_ne!(address.port(), 0);
        assert_eq!(listeners.len(), 3);
        TcpStream::connect(address).unwrap();
        assert_eq!(open(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listeners);
        assert!(open(address, 1).is_ok());
    }

    #[test]
    fn passed_listeners_are_one_for_all_or_one_for_each() {
        let passed = |sockets| -> Vec<OwnedFd> {
            (0..sockets).map(|_| TcpListener::bind("127.0.0.1:0").unwrap().into()).collect()
        };
        let one = TcpListener::bind("127.0.0.1:0").unwrap();
        one.set_nonblocking(true).unwrap();
        let address = one.local_addr().unwrap();
        let listeners = adopt(vec![one.into()], 3).unwrap();
        assert_eq!(listeners.len(), 3);
        for listener in &listeners {
            assert!(listener.is_shared);
            assert_eq!(local_address(&listener.socket).unwrap(), address);
            let flags = OFlag::from_bits_retain(fcntl(&listener.socket, FcntlArg::F_GETFL).unwrap());
            assert!(!flags.contains(OFlag::O_NONBLOCK));
        }
        assert_eq!(adopt(passed(3), 3).unwrap().len(), 3);
        let error = adopt(passed(2), 3).unwrap_err();
        assert!(error.to_string().contains("2 sockets named client were passed to 3 shards"), "{error}");
    }

    #[test]
    fn a_port_of_another_program_is_refused() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = open(other.local_addr().unwrap(), 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
