//! The clients' port: one listener per shard, between which the kernel spreads clients.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockname, listen, setsockopt, socket, sockopt,
};

/// Opens `shards` listeners on one address. Port 0 is given a free port, the same for all.
///
/// # Errors
/// When the address cannot be had, for instance because another server has it.
pub fn open(address: SocketAddr, shards: usize) -> io::Result<(SocketAddr, Vec<OwnedFd>)> {
    // A listener that shares its port would quietly share another server's clients; one that does not share it fails.
    let probe = bound(address, false)?;
    let address = local_address(&probe)?;
    drop(probe);
    let mut listeners = Vec::with_capacity(shards);
    for _ in 0..shards {
        let listener = bound(address, true)?;
        // The kernel cuts it to net.core.somaxconn.
        listen(&listener, Backlog::MAXALLOWABLE)?;
        listeners.push(listener);
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
    fn a_port_of_another_program_is_refused() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = open(other.local_addr().unwrap(), 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
