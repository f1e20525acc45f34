//! Where producers connect: a TCP address and a Unix socket, opened here or by the service manager.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener},
    os::{
        fd::AsRawFd,
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use nix::sys::{
    socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket},
    stat::{Mode, fchmod},
};

use super::StartError;
use crate::config::IngestConfig;

/// Listening sockets.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) tcp: Option<TcpListener>,
    pub(super) unix: Option<UnixSocket>,
}

/// A listening Unix socket and its file, which is removed with it; none: the service manager's.
#[derive(Debug)]
pub(super) struct UnixSocket {
    pub(super) listener: UnixListener,
    pub(super) file: Option<SocketFile>,
}

/// Listening sockets of the service manager's, in place of those that would be opened here.
#[derive(Debug, Default)]
pub struct Passed {
    /// At `ingest.listen`.
    pub tcp: Option<TcpListener>,
    /// At `ingest.unix`.
    pub unix: Option<UnixListener>,
}

impl Listeners {
    /// The TCP port; 0 without one.
    pub(super) fn tcp_port(&self) -> u16 {
        self.tcp.as_ref().and_then(|listener| listener.local_addr().ok()).map_or(0, |address| address.port())
    }

    /// Listens where the configuration says, unless the socket for it is there already.
    ///
    /// # Errors
    /// When a place is taken or forbidden.
    pub(super) fn open(config: &IngestConfig, passed: Passed) -> Result<Self, StartError> {
        let tcp = match passed.tcp {
            Some(listener) => {
                listener.set_nonblocking(false)?;
                Some(listener)
            }
            None => config.listen.map(bind_tcp).transpose()?,
        };
        let unix = match passed.unix {
            Some(listener) => {
                listener.set_nonblocking(false)?;
                Some(UnixSocket { listener, file: None })
            }
            None => config.unix.as_deref().map(bind_unix).transpose()?,
        };
        Ok(Self { tcp, unix })
    }
}

fn bind_tcp(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::AddrInUse => {
                format!("See who has it: ss -ltnp 'sport = :{}'; or choose another port", address.port())
            }
            ErrorKind::AddrNotAvailable => {
                "No interface of this host has that address (ip address); choose another".to_owned()
            }
            ErrorKind::PermissionDenied => {
                "Ports below 1024 need AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit, or root".to_owned()
            }
            _ => "Choose another address".to_owned(),
        };
        StartError::Tcp { address, error, remedy }
    })
}

fn bind_unix(path: &Path) -> Result<UnixSocket, StartError> {
    listen_at(path).map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::AddrInUse => "Another server listens there: stop it, or choose another path",
            ErrorKind::AlreadyExists => "A file that is no socket is in the way: remove it, or choose another path",
            ErrorKind::PermissionDenied => "Let the server's user write to that directory, or choose another path",
            ErrorKind::NotFound => "Create its directory, or choose another path",
            _ => "Choose another path",
        };
        StartError::Unix { path: path.to_owned(), error, remedy }
    })
}

fn listen_at(path: &Path) -> io::Result<UnixSocket> {
    remove_stale(path)?;
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // The file takes its mode from the socket: at no time may others connect.
    fchmod(&socket, SOCKET_MODE)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    let file = SocketFile::new(path)?;
    // The process's umask may have taken more away.
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE.bits()))?;
    listen(&socket, Backlog::MAXCONN)?;
    Ok(UnixSocket { listener: UnixListener::from(socket), file: Some(file) })
}

/// Owner and group may connect.
const SOCKET_MODE: Mode = Mode::from_bits_truncate(0o660);

/// Removes a socket's file that a server has left behind which does not run any more.
fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

/// The file of a Unix socket; removed when this is dropped, unless another server has put its own there.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // If it cannot be removed, the next start finds that nobody listens there.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Device and inode.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of one test, removed with it.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("tidegate-listener-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_socket_file_is_for_owner_and_group_and_goes_with_the_listener() {
        let directory = Directory::new("mode");
        let path = directory.0.join("socket");
        let socket = bind_unix(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let directory = Directory::new("stale");
        let path = directory.0.join("socket");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the standard library leaves the file");
        let socket = bind_unix(&path).unwrap();
        let error = bind_unix(&path).unwrap_err();
        assert!(error.to_string().contains("Another server listens there"), "{error}");
        drop(socket);
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let directory = Directory::new("file");
        let path = directory.0.join("socket");
        fs::write(&path, "precious").unwrap();
        let error = bind_unix(&path).unwrap_err();
        assert!(error.to_string().contains("no socket is in the way"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_successors_file_is_left_alone() {
        let directory = Directory::new("successor");
        let path = directory.0.join("socket");
        let first = bind_unix(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = bind_unix(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn errors_say_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = bind_tcp(taken.local_addr().unwrap()).unwrap_err();
        assert!(error.to_string().contains("(ingest.listen): Address already in use"), "{error}");
        assert!(error.to_string().contains("ss -ltnp"), "{error}");
        let error = bind_tcp("192.0.2.1:7400".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("No interface of this host"), "{error}");
        let error = bind_unix(Path::new("/nowhere/at/all/socket")).unwrap_err();
        assert!(error.to_string().contains("Create its directory"), "{error}");
    }
}
