//! A server process of a test's own: free ports, a temporary folder, a captured log; it ends with the test.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{PATIENCE, http, metrics::Metrics, wait_for};

/// HMAC secret of the tokens that tests make.
pub const TOKEN_SECRET: &str = "a secret that only the tests know, of more than 32 bytes";

/// What every test's server allows; a test adds its own lines.
const SETTINGS: &str = include_str!("settings.toml");

/// The server under test, if it is not the one that cargo built along with the test: `make test` names the release build.
const PROGRAM_VARIABLE: &str = "TEST_SERVER_PROGRAM";

/// A running server.
pub struct Server {
    child: Child,
    command: Command,
    folder: PathBuf,
    /// The configuration without what a test adds.
    usual: String,
    client: SocketAddr,
    ingest: SocketAddr,
    admin: SocketAddr,
}

/// How a server is started.
#[derive(Default, Clone)]
pub struct Launch {
    /// Lines of configuration on top of the usual ones: dotted keys first, then tables. `{client_port}` stands for the
    /// clients' port.
    pub settings: String,
    /// Most descriptors that the process may have, if fewer than usual.
    pub descriptors_max: Option<u32>,
    /// Whom the process trusts as a server, of the files of `tests/keys`, if it is not the host's authorities.
    pub trusted_certificate: Option<&'static str>,
    /// Where its output goes, if not to a file of the test's.
    pub log_to: Option<PathBuf>,
    /// With the embedded defaults and a demonstration producer; only the addresses are the test's.
    pub is_demo: bool,
    /// Where the server tells its service manager how it is.
    pub notify_socket: Option<PathBuf>,
    /// Whether the clients' port is opened here and passed, as a service manager does.
    pub passes_client_socket: bool,
}

impl Server {
    /// Starts a server with lines of configuration on top of the usual ones, and waits until it is ready.
    pub fn start(settings: &str) -> Self {
        Self::launch(Launch { settings: settings.to_owned(), ..Launch::default() })
    }

    /// Starts a server and waits until it is ready.
    pub fn launch(launch: Launch) -> Self {
        let [client, ingest, admin] = free_addresses();
        let folder = std::env::temp_dir().join(format!("tidegate-{}-{}", std::process::id(), client.port()));
        fs::create_dir_all(&folder).expect("a temporary folder can be made");
        let usual = SETTINGS
            .replace("{client}", &client.to_string())
            .replace("{ingest}", &ingest.to_string())
            .replace("{admin}", &admin.to_string())
            .replace("{folder}", &folder.display().to_string())
            .replace("{secret}", TOKEN_SECRET);
        let own = launch.settings.replace("{client_port}", &client.port().to_string());
        let settings = configuration(&own, &usual);
        fs::write(folder.join("tidegate.toml"), settings).expect("the configuration can be written");
        let mut command = command(&folder, &launch);
        if launch.passes_client_socket {
            let listener = TcpListener::bind(client).expect("the address is free");
            command.stdin(Stdio::from(OwnedFd::from(listener)));
        }
        if let Some(path) = &launch.notify_socket {
            command.env("NOTIFY_SOCKET", path);
        }
        if let Some(certificate) = launch.trusted_certificate {
            command.env("SSL_CERT_FILE", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(certificate));
        }
        if launch.is_demo {
            command.args(["serve", "--demo"]);
            for (section, address) in [("CLIENT", client), ("INGEST", ingest), ("ADMIN", admin)] {
                command.env(format!("TIDEGATE_{section}_LISTEN"), address.to_string());
            }
            command.env("TIDEGATE_INGEST_UNIX", folder.join("ingest.sock"));
        } else {
            command.args(["serve", "--config"]).arg(folder.join("tidegate.toml"));
        }
        let child = spawn(&mut command);
        let mut server = Self { child, command, folder, usual, client, ingest, admin };
        server.wait_until_ready();
        server
    }

    /// Where clients connect.
    pub fn client_address(&self) -> SocketAddr {
        self.client
    }

    /// Where producers connect.
    pub fn ingest_address(&self) -> SocketAddr {
        self.ingest
    }

    /// The producers' Unix socket.
    pub fn ingest_socket(&self) -> PathBuf {
        self.folder.join("ingest.sock")
    }

    /// Its configuration.
    pub fn configuration_file(&self) -> PathBuf {
        self.folder.join("tidegate.toml")
    }

    /// Where operators look.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// What the server counts.
    pub fn metrics(&self) -> Metrics {
        let response = http::get(self.admin, "/metrics").expect("the admin port answers");
        assert_eq!(response.status, 200, "{}", response.body);
        Metrics::parse(&response.body)
    }

    /// Waits until a reason has been counted `count` times.
    pub fn wait_until_counted(&self, reason: &str, count: u64) {
        wait_for(&format!("{count} counted for the reason `{reason}`"), || {
            (self.metrics().reason(reason) >= count).then_some(())
        });
    }

    /// What it wrote to its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Starts it again after its end, and waits until it is ready.
    pub fn start_again(&mut self) {
        self.child = spawn(&mut self.command);
        self.wait_until_ready();
    }

    /// Writes its configuration anew, with other lines on top of the usual ones. It counts when the server is told.
    pub fn configure(&self, settings: &str) {
        let text = configuration(settings, &self.usual);
        fs::write(self.folder.join("tidegate.toml"), text).expect("the configuration can be written");
    }

    /// Changes the text of its configuration.
    pub fn edit(&self, change: impl FnOnce(String) -> String) {
        let file = self.folder.join("tidegate.toml");
        let text = fs::read_to_string(&file).expect("the configuration can be read");
        fs::write(file, change(text)).expect("the configuration can be written");
    }

    /// Tells it to read its configuration anew.
    pub fn hang_up(&self) {
        kill(self.process(), Signal::SIGHUP).expect("the server is there to be told");
    }

    /// Its process.
    pub fn process(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("process ids are small"))
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        kill(self.process(), Signal::SIGTERM).expect("the server is there to be told");
    }

    /// Waits until it has ended; fails if that takes longer than `time`.
    pub fn wait_for_end(&mut self, time: Duration) -> ExitStatus {
        let end = Instant::now() + time;
        loop {
            if let Some(status) = self.child.try_wait().expect("the server is our child") {
                return status;
            }
            assert!(Instant::now() < end, "the server did not end within {time:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it in an orderly way and starts it again on the same ports.
    pub fn restart(&mut self) {
        self.terminate();
        self.wait_for_end(PATIENCE);
        self.start_again();
    }

    fn wait_until_ready(&mut self) {
        wait_for("the server is ready", || {
            if let Some(status) = self.child.try_wait().expect("the server is our child") {
                panic!("the server ended at its start with {status}");
            }
            let response = http::get(self.admin, "/health").ok()?;
            // The operators' port is opened last, and where it speaks TLS it says so.
            (response.status == 200 || response.body.contains("this port speaks TLS")).then_some(())
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, as the test wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            println!("--- the server's log\n{}", self.log());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The usual lines and the test's own: keys first, then tables, as TOML wants them. A key of the test's replaces the usual one.
fn configuration(settings: &str, usual: &str) -> String {
    let split = |text: &str| {
        let (keys, tables) = text.split_at(text.find("[[").unwrap_or(text.len()));
        (keys.to_owned(), tables.to_owned())
    };
    let (keys, tables) = split(settings);
    let (usual_keys, usual_tables) = split(usual);
    let name = |line: &str| line.split_once('=').map(|(name, _)| name.trim().to_owned());
    let is_replaced =
        |line: &str| name(line).is_some_and(|usual| keys.lines().any(|line| name(line).as_ref() == Some(&usual)));
    let usual_keys: Vec<&str> = usual_keys.lines().filter(|line| !is_replaced(line)).collect();
    format!("{}\n{keys}\n{usual_tables}\n{tables}\n", usual_keys.join("\n"))
}

/// The server's program, its output going to the log in the folder.
fn command(folder: &Path, launch: &Launch) -> Command {
    let log = launch.log_to.clone().unwrap_or_else(|| folder.join("log"));
    let log = File::options().append(true).create(true).open(log).expect("the log can be written");
    let program = std::env::var(PROGRAM_VARIABLE).unwrap_or_else(|_| env!("CARGO_BIN_EXE_tidegate").to_owned());
    let mut command = match launch.descriptors_max {
        _ if launch.passes_client_socket => {
            let mut command = Command::new("sh");
            command.args(["-c", PASS_STDIN, "sh", &program]);
            command
        }
        None => Command::new(program),
        Some(descriptors_max) => {
            let mut command = Command::new("sh");
            command.args(["-c", "ulimit -n \"$1\"; shift; exec \"$@\"", "sh", &descriptors_max.to_string(), &program]);
            command
        }
    };
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor can be doubled")).stderr(log);
    command
}

/// Passes standard input on as a service manager passes a socket. The shell's process becomes the server's.
const PASS_STDIN: &str = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=client; export LISTEN_PID LISTEN_FDS LISTEN_FDNAMES; exec \"$@\"";

fn spawn(command: &mut Command) -> Child {
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Three addresses that nobody listens on: below the ports that outgoing connections take, and above the last that
/// browsers refuse (10080).
fn free_addresses() -> [SocketAddr; 3] {
    const PORTS: std::ops::Range<u16> = 11_000..32_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = u32::from(PORTS.end - PORTS.start);
    let begin = std::process::id().wrapping_mul(97) % span;
    std::array::from_fn(|_| {
        loop {
            let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
            let port = PORTS.start + u16::try_from((begin + step) % span).expect("the span is one of ports");
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if TcpListener::bind(address).is_ok() {
                return address;
            }
        }
    })
}
