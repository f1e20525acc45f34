//! What the service manager is told, over the datagram socket that `NOTIFY_SOCKET` names.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};

/// One thing to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice<'a> {
    /// The server serves; after [`Notice::Reloading`], it does so again.
    Ready,
    /// The configuration is being read anew.
    Reloading,
    /// The server is on its way out.
    Stopping,
    /// Every thread has answered: the watchdog's time begins anew.
    Alive,
    /// A line for `systemctl status`.
    Status(&'a str),
    /// What goes on now, a stop above all, may take so long from now.
    ExtendTimeout(Duration),
}

/// The service manager that started this process, if there is one.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    watchdog_time: Option<Duration>,
    /// Whether a notice could not be told, and the operator was.
    has_failed: AtomicBool,
}

/// The longest that a service manager which does not read may hold up the thread that tells it something.
const TELL_TIME_MAX: Duration = Duration::from_millis(500);

impl ServiceManager {
    /// The one that the environment names.
    pub fn from_environment() -> Self {
        let text = |name| env::var(name).ok();
        let watchdog_time = watchdog_time(text("WATCHDOG_USEC"), text("WATCHDOG_PID"), process::id());
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self::default();
        };
        match Self::connect(&name, watchdog_time) {
            Ok(manager) => manager,
            Err(error) => {
                tracing::warn!(?name, %error, "the service manager cannot be told anything: NOTIFY_SOCKET");
                Self::default()
            }
        }
    }

    /// The one that listens at a path, or at `@` and a name, and watches over the process if it has a watchdog.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(name: &OsStr, watchdog_time: Option<Duration>) -> io::Result<Self> {
        let socket = connect(name)?;
        socket.set_write_timeout(Some(TELL_TIME_MAX))?;
        Ok(Self { socket: Some(socket), watchdog_time, has_failed: AtomicBool::new(false) })
    }

    /// Whether anybody is told.
    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Within which time [`Notice::Alive`] must be told again and again; none: there is no watchdog.
    pub fn watchdog_time(&self) -> Option<Duration> {
        self.watchdog_time
    }

    /// Tells these things together.
    pub fn tell(&self, notices: &[Notice<'_>]) {
        let Some(socket) = &self.socket else { return };
        let message: String = notices.iter().map(Notice::line).collect();
        match socket.send(message.as_bytes()) {
            Ok(_) => self.has_failed.store(false, Ordering::Relaxed),
            Err(error) if !self.has_failed.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, "the service manager could not be told something");
            }
            Err(_) => {}
        }
    }
}

impl Notice<'_> {
    fn line(&self) -> String {
        match self {
            Self::Ready => "READY=1\n".to_owned(),
            Self::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}\n", monotonic_microseconds()),
            Self::Stopping => "STOPPING=1\n".to_owned(),
            Self::Alive => "WATCHDOG=1\n".to_owned(),
            // A line's end would end the text and begin another thing to tell.
            Self::Status(text) => format!("STATUS={}\n", text.replace(['\n', '\r'], " ")),
            Self::ExtendTimeout(time) => format!("EXTEND_TIMEOUT_USEC={}\n", time.as_micros()),
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let bytes = name.as_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None if bytes.starts_with(b"/") => SocketAddr::from_pathname(name)?,
        None => return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected a path, or @ and a name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// `WATCHDOG_USEC`, if it is meant for this process.
fn watchdog_time(time: Option<String>, process: Option<String>, own_process: u32) -> Option<Duration> {
    if process.is_some_and(|process| process.parse() != Ok(own_process)) {
        return None;
    }
    let microseconds = time?.parse().ok().filter(|microseconds| *microseconds > 0)?;
    Some(Duration::from_micros(microseconds))
}

fn monotonic_microseconds() -> u128 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    now.map_or(0, |now| now.as_micros())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn told(listener: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        listener.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let bytes = listener.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..bytes].to_vec()).unwrap()
    }

    fn manager(name: &OsStr) -> ServiceManager {
        ServiceManager::connect(name, None).unwrap()
    }

    fn path(name: &str) -> PathBuf {
        env::temp_dir().join(format!("tidegate-notify-{}-{name}", process::id()))
    }

    #[test]
    fn notices_arrive_together_at_a_path() {
        let path = path("path");
        let listener = UnixDatagram::bind(&path).unwrap();
        let manager = manager(path.as_os_str());
        manager.tell(&[Notice::Ready, Notice::Status("7 clients\nREADY=0"), Notice::Alive]);
        assert_eq!(told(&listener), "READY=1\nSTATUS=7 clients READY=0\nWATCHDOG=1\n");
        manager.tell(&[Notice::Stopping, Notice::ExtendTimeout(Duration::from_secs(2))]);
        assert_eq!(told(&listener), "STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000\n");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn an_abstract_name_will_do() {
        let name = format!("tidegate-notify-{}", process::id());
        let listener = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let before = monotonic_microseconds();
        manager(OsStr::new(&format!("@{name}"))).tell(&[Notice::Reloading]);
        let text = told(&listener);
        let time = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().trim_end();
        assert!((before..before + 5_000_000).contains(&time.parse().unwrap()), "{text}");
    }

    #[test]
    fn a_service_manager_that_does_not_read_holds_nobody_up_for_long() {
        let path = path("deaf");
        let listener = UnixDatagram::bind(&path).unwrap();
        let manager = manager(path.as_os_str());
        // The kernel's queue is bounded, and so is the wait for room in it.
        let fills = (0..100_000).find(|_| {
            manager.tell(&[Notice::Alive]);
            manager.has_failed.load(Ordering::Relaxed)
        });
        assert!(fills.is_some());
        assert_eq!(told(&listener), "WATCHDOG=1\n");
        manager.tell(&[Notice::Alive]);
        assert!(!manager.has_failed.load(Ordering::Relaxed), "there is room again");
        drop(listener);
        manager.tell(&[Notice::Alive]);
        assert!(manager.has_failed.load(Ordering::Relaxed));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn without_a_service_manager_nothing_happens() {
        let manager = ServiceManager::default();
        assert!(!manager.is_there());
        manager.tell(&[Notice::Ready]);
        assert!(connect(OsStr::new("relative")).is_err());
        assert!(connect(OsStr::new("/nowhere/at/all")).is_err());
    }

    #[test]
    fn a_watchdog_is_believed_if_it_watches_this_process() {
        let time = |time: &str, process: Option<&str>| watchdog_time(Some(time.into()), process.map(Into::into), 77);
        assert_eq!(time("30000000", None), Some(Duration::from_secs(30)));
        assert_eq!(time("30000000", Some("77")), Some(Duration::from_secs(30)));
        assert_eq!(time("30000000", Some("78")), None);
        assert_eq!(time("0", None), None);
        assert_eq!(time("soon", None), None);
        assert_eq!(watchdog_time(None, None, 77), None);
    }
}
