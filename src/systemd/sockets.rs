//! Listening sockets that the service manager has opened: `LISTEN_FDS`, `LISTEN_FDNAMES`, `LISTEN_PID`.

use std::{
    env,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
    process,
};

use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt};

use crate::{limits::PASSED_SOCKETS_MAX, uring::take_inherited};

/// A listening socket and where it listens.
#[derive(Debug)]
pub struct PassedSocket<S, A> {
    /// The socket.
    pub socket: S,
    /// Its address.
    pub address: A,
}

/// What was passed, by what it is for.
#[derive(Debug, Default)]
pub struct PassedSockets {
    /// For clients: those of one address.
    pub clients: Option<PassedSocket<Vec<OwnedFd>, SocketAddr>>,
    /// For producers, over TCP.
    pub ingest: Option<PassedSocket<TcpListener, SocketAddr>>,
    /// For producers, a Unix socket.
    pub ingest_unix: Option<PassedSocket<UnixListener, PathBuf>>,
    /// For operators.
    pub admin: Option<PassedSocket<TcpListener, SocketAddr>>,
    /// For the server API alone.
    pub api: Option<PassedSocket<TcpListener, SocketAddr>>,
}

/// What is wrong with a passed socket; each says what to type.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PassedError {
    /// The environment says more than is there.
    #[error("LISTEN_FDS says {0:?}, which is no number of sockets up to {max}", max = PASSED_SOCKETS_MAX)]
    Count(String),
    /// The environment says more than is there.
    #[error("LISTEN_FDS promises a socket as descriptor {0}, where nothing is open")]
    NotOpen(i32),
    /// No such purpose.
    #[error(
        "a socket was passed with the name {0:?}, for which there is no use: set FileDescriptorName= in its .socket unit \
         to client, ingest, admin or api"
    )]
    Name(String),
    /// It cannot be accepted from.
    #[error(
        "the socket passed as {0} does not listen for streams: use ListenStream= and Accept=no in its .socket unit"
    )]
    NotListening(String),
    /// It has another family of addresses than its purpose.
    #[error("the socket passed as {0} listens on neither an IP address nor, for ingest, a path")]
    Family(String),
    /// Clients of the one address would be spread over some shards only.
    #[error("the sockets passed as client listen on {0} and on {1}: give all of them one address")]
    Addresses(SocketAddr, SocketAddr),
    /// One will do.
    #[error("two sockets were passed as {0}: one is expected")]
    Twice(String),
}

/// Takes over the sockets that were passed to this process. To be called before it opens any descriptor.
///
/// # Errors
/// When one of them is not what its name says.
pub fn take_sockets() -> Result<PassedSockets, PassedError> {
    let text = |name| env::var(name).ok();
    let own_process = process::id();
    if text("LISTEN_PID").and_then(|process| process.parse().ok()) != Some(own_process) {
        return Ok(PassedSockets::default());
    }
    let count = count(&text("LISTEN_FDS").unwrap_or_default())?;
    let names = text("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    let sockets = take_inherited(count).map_err(PassedError::NotOpen)?;
    sort(names.zip(sockets))
}

fn count(text: &str) -> Result<usize, PassedError> {
    text.parse().ok().filter(|count| *count <= PASSED_SOCKETS_MAX).ok_or_else(|| PassedError::Count(text.to_owned()))
}

fn sort(sockets: impl Iterator<Item = (String, OwnedFd)>) -> Result<PassedSockets, PassedError> {
    let mut passed = PassedSockets::default();
    for (name, socket) in sockets {
        if !matches!(name.as_str(), "client" | "ingest" | "admin" | "api") {
            return Err(PassedError::Name(name));
        }
        let listens = getsockopt(&socket, sockopt::SockType).is_ok_and(|kind| kind == SockType::Stream)
            && getsockopt(&socket, sockopt::AcceptConn).is_ok_and(|listens| listens);
        if !listens {
            return Err(PassedError::NotListening(name));
        }
        match (name.as_str(), address(&socket)) {
            ("client", Some(Address::Tcp(address))) => add_client(&mut passed, socket, address)?,
            ("ingest", Some(Address::Unix(address))) => {
                let socket = UnixListener::from(socket);
                put(&mut passed.ingest_unix, PassedSocket { socket, address }, name)?;
            }
            (_, Some(Address::Tcp(address))) => {
                let place = match name.as_str() {
                    "ingest" => &mut passed.ingest,
                    "admin" => &mut passed.admin,
                    _ => &mut passed.api,
                };
                put(place, PassedSocket { socket: TcpListener::from(socket), address }, name)?;
            }
            _ => return Err(PassedError::Family(name)),
        }
    }
    Ok(passed)
}

fn add_client(passed: &mut PassedSockets, socket: OwnedFd, address: SocketAddr) -> Result<(), PassedError> {
    match &mut passed.clients {
        None => passed.clients = Some(PassedSocket { socket: vec![socket], address }),
        Some(clients) if clients.address == address => clients.socket.push(socket),
        Some(clients) => return Err(PassedError::Addresses(clients.address, address)),
    }
    Ok(())
}

fn put<T>(place: &mut Option<T>, socket: T, name: String) -> Result<(), PassedError> {
    match place.replace(socket) {
        None => Ok(()),
        Some(_) => Err(PassedError::Twice(name)),
    }
}

enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

fn address(socket: &OwnedFd) -> Option<Address> {
    let address: SockaddrStorage = getsockname(socket.as_raw_fd()).ok()?;
    match address.family()? {
        AddressFamily::Inet => Some(Address::Tcp((*address.as_sockaddr_in()?).into())),
        AddressFamily::Inet6 => Some(Address::Tcp((*address.as_sockaddr_in6()?).into())),
        AddressFamily::Unix => Some(Address::Unix(address.as_unix_addr()?.path()?.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn tcp() -> OwnedFd {
        TcpListener::bind("127.0.0.1:0").unwrap().into()
    }

    fn sorted<const N: usize>(sockets: [(&str, OwnedFd); N]) -> Result<PassedSockets, PassedError> {
        sort(sockets.into_iter().map(|(name, socket)| (name.to_owned(), socket)))
    }

    #[test]
    fn each_finds_its_purpose_by_name_and_kind() {
        let path = env::temp_dir().join(format!("tidegate-passed-{}", process::id()));
        let unix = UnixListener::bind(&path).unwrap();
        let client = TcpListener::bind("[::1]:0").unwrap();
        let address = client.local_addr().unwrap();
        let passed = sorted([
            ("ingest", tcp()),
            ("client", client.try_clone().unwrap().into()),
            ("api", tcp()),
            ("ingest", unix.into()),
            ("client", client.into()),
            ("admin", tcp()),
        ])
        .unwrap();
        let clients = passed.clients.unwrap();
        assert_eq!((clients.socket.len(), clients.address), (2, address));
        assert_eq!(passed.ingest_unix.unwrap().address, path);
        let ingest = passed.ingest.unwrap();
        assert_eq!(ingest.socket.local_addr().unwrap(), ingest.address);
        assert!(passed.admin.is_some() && passed.api.is_some());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_socket_of_no_use_is_named() {
        assert_eq!(sorted([("tidegate.socket", tcp())]).unwrap_err(), PassedError::Name("tidegate.socket".into()));
        assert!(sorted([("", tcp())]).unwrap_err().to_string().contains("FileDescriptorName="));
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(sorted([("client", udp.into())]).unwrap_err(), PassedError::NotListening("client".into()));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(sorted([("admin", file.into())]).unwrap_err(), PassedError::NotListening("admin".into()));
        assert_eq!(sorted([("admin", tcp()), ("admin", tcp())]).unwrap_err(), PassedError::Twice("admin".into()));
        let error = sorted([("client", tcp()), ("client", tcp())]).unwrap_err();
        assert!(matches!(error, PassedError::Addresses(..)), "{error}");
        let path = env::temp_dir().join(format!("tidegate-family-{}", process::id()));
        let unix = UnixListener::bind(&path).unwrap();
        assert_eq!(sorted([("client", unix.into())]).unwrap_err(), PassedError::Family("client".into()));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_count_is_a_number_within_bounds() {
        assert_eq!(count("2"), Ok(2));
        for bad in ["", "-1", "many", "100000"] {
            assert_eq!(count(bad), Err(PassedError::Count(bad.to_owned())));
        }
    }
}
