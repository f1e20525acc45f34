//! The server as a whole: its threads are assembled here, started in order, and stopped together.
//!
//! Leaves to others: what each thread does, and the order of the stop (`control`).

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    config::{AdminConfig, Config},
    control::{Control, LoadConfig, Outcome, Reloading},
    demo, ingest,
    limits::ADMIN_CONNECTIONS_MAX,
    mesh::{self, Admission, ChannelHasher},
    protocol,
    session::Rules,
    shard::{self, ShardOptions},
    systemd::{PassedSocket, PassedSockets, ServiceManager},
    tls,
    uring::{self, HostError, KernelTls, Listener},
};

/// How long an operator's token for the console is good.
const OPERATOR_TOKEN_TIME: Duration = Duration::from_secs(600);

/// Descriptors that are not clients': rings, eventfds, listeners, producers, the console's visitors.
const OTHER_DESCRIPTORS: u64 = 64 + ADMIN_CONNECTIONS_MAX as u64;

/// Where the server listens, as bound.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// The clients' port.
    pub client: SocketAddr,
    /// The producers' port.
    pub ingest: Option<SocketAddr>,
    /// The producers' Unix socket.
    pub ingest_unix: Option<PathBuf>,
    /// The operators' port.
    pub admin: SocketAddr,
    /// The server API's own port.
    pub api: Option<SocketAddr>,
}

/// Why the server did not start; each says what to type.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The host lacks something.
    #[error("{0}")]
    Host(#[from] HostError),
    /// An address cannot be had.
    #[error("cannot listen on {address} ({setting}): {error}. {remedy}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The setting that names it.
        setting: &'static str,
        /// What the kernel said.
        error: io::Error,
        /// What to do.
        remedy: String,
    },
    /// The clients' sockets of the service manager's do not fit the shards.
    #[error("{0}")]
    PassedClients(#[from] shard::PassedError),
    /// A socket of the service manager's is not where the configuration says.
    #[error(
        "the service manager has passed a socket that listens on {passed}, where {setting} says {configured}. Make both \
         the same: ListenStream= in the .socket unit, and {setting}"
    )]
    PassedElsewhere {
        /// Where it listens.
        passed: String,
        /// The setting that names the address.
        setting: &'static str,
        /// Its value.
        configured: String,
    },
    /// The ingest thread could not start.
    #[error("{0}")]
    Ingest(#[from] ingest::StartError),
    /// Certificates cannot be used.
    #[error("TLS is configured, and cannot be had: {0}")]
    Certificates(String),
    /// A shard could not start.
    #[error("{0}")]
    Shard(#[from] shard::StartError),
    /// Anything else of the kernel's.
    #[error("the server could not start: {0}")]
    Io(#[from] io::Error),
}

/// What a server is started with.
pub struct Start {
    /// What the operator chose.
    pub config: Config,
    /// Whether a demonstration producer runs.
    pub demo: bool,
    /// Reads the configuration anew.
    pub load: LoadConfig,
    /// Sockets that the service manager has passed.
    pub passed: PassedSockets,
}

/// Runs the server until a signal stops it, on passed sockets where there are any. `ready` is called once every port
/// accepts.
///
/// # Errors
/// When something that the server needs cannot be had; nothing is left running then.
pub fn serve(start: Start, ready: impl FnOnce(&Addresses)) -> Result<Outcome, StartError> {
    let Start { config, demo, load, passed } = start;
    let manager = ServiceManager::from_environment();
    let features = uring::probe()?;
    raise_descriptor_limit(&config);
    let Ports { client, listeners, admin, api, ingest } = Ports::open(&config, passed)?;
    let shards = config.shards.cores.len();
    let (admin, listener) = admin;
    let (api, api_listener) = api.unzip();
    let written = config.clone();
    let config = Arc::new(with_bound(config, client, admin, api));
    let tls = tls::Ports::open(&config).map_err(|problems| StartError::Certificates(problems.to_string()))?;
    tls.warn_of_expired();
    let kernel_tls = if tls.client.is_some() && config.client.tls.kernel { kernel_tls() } else { KernelTls::default() };

    let hasher = ChannelHasher::default();
    let admission = Admission::new(config.client.connections_max);
    let operator_key: [u8; 32] = random();
    let client_id_key: [u8; 16] = random();
    let (shard_meshes, ingest_mesh, control_mesh) = mesh::build(shards)?;
    let bells: Vec<_> = shard_meshes.iter().map(|mesh| Arc::clone(&mesh.bell)).collect();

    let mut threads = Vec::with_capacity(shards);
    for ((mesh, listener), core) in shard_meshes.into_iter().zip(listeners).zip(&config.shards.cores) {
        let (shard, core) = (mesh.shard, *core);
        let (config, hasher, admission) = (Arc::clone(&config), hasher.clone(), admission.clone());
        let tls = tls.client.clone();
        let options = move || ShardOptions {
            rules: Rules::new(Arc::clone(&config), &operator_key, console_origins(&config.admin)),
            config,
            hasher,
            mesh,
            admission,
            client_id_key,
            tls,
            kernel_tls,
            seed: u64::from_le_bytes(random()),
            core,
        };
        threads.push(shard::spawn(options, shard, core, features, listener, bells.clone())?);
    }
    let ingest = ingest::spawn(Arc::clone(&config), hasher.clone(), ingest_mesh, ingest, tls.ingest.clone())?;
    let descriptors: Vec<_> = threads.iter().map(shard::ShardThread::descriptor).collect();
    for thread in threads {
        thread.run(descriptors.clone());
    }

    // The demonstration's producer speaks no TLS.
    if let Some(address) = ingest.address.filter(|_| demo && tls.ingest.is_none()) {
        demo::spawn_ticker(address, config.ingest.password.as_deref().map(str::to_owned))?;
    }
    ready(&Addresses { client, ingest: ingest.address, ingest_unix: config.ingest.unix.clone(), admin, api });
    let operator_token = Arc::new(move || operator_token(&operator_key));
    let config = Arc::new(with_bound_ingest(&config, ingest.address));
    let reloading = Reloading { written, load, admission };
    let control = Control {
        config,
        reloading,
        mesh: control_mesh,
        hasher,
        listener,
        api_listener,
        tls,
        operator_token,
        demo,
        manager,
    };
    Ok(control.run()?)
}

/// What of TLS the kernel can do, which is told.
fn kernel_tls() -> KernelTls {
    match uring::probe_tls() {
        Ok(found) => {
            tracing::info!("the kernel seals and opens records of {found}");
            found
        }
        Err(error) => {
            tracing::warn!(
                "client.tls.kernel is on, but this kernel takes no TLS ({error}), so the server seals and opens records \
                 itself. Load the module: modprobe tls, and to keep it: echo tls > /etc/modules-load.d/tls.conf"
            );
            KernelTls::default()
        }
    }
}

/// Listening sockets, and where they listen: the service manager's where it has passed any, otherwise our own.
struct Ports {
    client: SocketAddr,
    listeners: Vec<Listener>,
    admin: (SocketAddr, TcpListener),
    api: Option<(SocketAddr, TcpListener)>,
    ingest: ingest::Passed,
}

impl Ports {
    fn open(config: &Config, passed: PassedSockets) -> Result<Self, StartError> {
        let shards = config.shards.cores.len();
        let configured = config.client.listen;
        let (client, listeners) = match passed.clients {
            Some(PassedSocket { socket, address }) => {
                check_place(&address, "client.listen", Some(&configured))?;
                (address, shard::adopt_listeners(socket, shards)?)
            }
            None => shard::open_listeners(configured, shards)
                .map_err(|error| listen_error(configured, "client.listen", error))?,
        };
        if let Some(ingest) = &passed.ingest {
            check_place(&ingest.address, "ingest.listen", config.ingest.listen.as_ref())?;
        }
        if let Some(ingest) = &passed.ingest_unix {
            let configured = config.ingest.unix.as_ref().map(|path| path.display());
            check_place(&ingest.address.display(), "ingest.unix", configured.as_ref())?;
        }
        let admin = match passed.admin {
            Some(passed) => take_http(passed, "admin.listen", Some(&config.admin.listen))?,
            None => listen_http(config.admin.listen, "admin.listen")?,
        };
        let api = match (passed.api, config.api.listen) {
            (Some(passed), configured) => Some(take_http(passed, "api.listen", configured.as_ref())?),
            (None, configured) => configured.map(|listen| listen_http(listen, "api.listen")).transpose()?,
        };
        let ingest = ingest::Passed {
            tcp: passed.ingest.map(|passed| passed.socket),
            unix: passed.ingest_unix.map(|passed| passed.socket),
        };
        Ok(Self { client, listeners, admin, api, ingest })
    }
}

/// The configuration's rules about addresses have been checked with the configured ones: they must be the real ones.
fn check_place(
    passed: &impl fmt::Display,
    setting: &'static str,
    configured: Option<&impl fmt::Display>,
) -> Result<(), StartError> {
    let passed = passed.to_string();
    let configured = configured.map_or_else(|| "\"none\"".to_owned(), ToString::to_string);
    if passed == configured { Ok(()) } else { Err(StartError::PassedElsewhere { passed, setting, configured }) }
}

/// A token for the console's page.
fn operator_token(key: &[u8; 32]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    protocol::mint_operator(key, (now + OPERATOR_TOKEN_TIME).as_secs())
}

/// The producers' port is bound last; then it is known, too.
fn with_bound_ingest(config: &Config, ingest: Option<SocketAddr>) -> Config {
    let mut config = config.clone();
    config.ingest.listen = ingest;
    config
}

/// Ports that were asked for as 0 are known only now; everything that shows or checks them must see the real ones.
fn with_bound(mut config: Config, client: SocketAddr, admin: SocketAddr, api: Option<SocketAddr>) -> Config {
    config.client.listen = client;
    config.admin.listen = admin;
    config.api.listen = api;
    config
}

/// Under which origins browsers see the console.
fn console_origins(admin: &AdminConfig) -> Vec<String> {
    let (scheme, admin) = (if admin.tls.is_on() { "https" } else { "http" }, admin.listen);
    let mut origins = vec![format!("{scheme}://{admin}")];
    if admin.ip().is_loopback() || admin.ip().is_unspecified() {
        origins.extend(["127.0.0.1", "[::1]", "localhost"].map(|host| format!("{scheme}://{host}:{}", admin.port())));
    }
    origins
}

fn listen_http(address: SocketAddr, setting: &'static str) -> Result<(SocketAddr, TcpListener), StartError> {
    let listener = TcpListener::bind(address).map_err(|error| listen_error(address, setting, error))?;
    listener.set_nonblocking(true)?;
    Ok((listener.local_addr()?, listener))
}

fn take_http(
    passed: PassedSocket<TcpListener, SocketAddr>,
    setting: &'static str,
    configured: Option<&SocketAddr>,
) -> Result<(SocketAddr, TcpListener), StartError> {
    check_place(&passed.address, setting, configured)?;
    passed.socket.set_nonblocking(true)?;
    Ok((passed.address, passed.socket))
}

fn listen_error(address: SocketAddr, setting: &'static str, error: io::Error) -> StartError {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("See who has it: ss -ltnp 'sport = :{}'; or choose another address for {setting}", address.port())
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("No interface of this host has that address (ip address); choose another for {setting}")
        }
        io::ErrorKind::PermissionDenied => {
            "Ports below 1024 need AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit, or root".to_owned()
        }
        _ => format!("Choose another address for {setting}"),
    };
    StartError::Listen { address, setting, error, remedy }
}

/// Every client takes a descriptor: the soft limit is raised as far as the hard one lets it, and a shortfall is told.
fn raise_descriptor_limit(config: &Config) {
    let connections_max = u64::from(config.client.connections_max);
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft < hard {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let api = config.api.connections_max() as u64;
    let room = hard.saturating_sub(OTHER_DESCRIPTORS + api);
    if room < connections_max {
        tracing::warn!(
            "descriptors end at {hard}, so that about {room} clients find room, not the {connections_max} of client.connections_max. Raise LimitNOFILE= in the unit, or ulimit -Hn"
        );
    }
}

fn random<const BYTES: usize>() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it has booted");
    bytes
}
