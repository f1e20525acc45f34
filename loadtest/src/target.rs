//! The server that is measured: where it is, which process it is, and the plans of clients for it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    arguments::CommonArguments,
    cores,
    dialect::{Dialect, Identity},
    fleet::split,
    link::{Plan, Reading},
    proc::{cpu, listener, ports},
    tls::{Connector, Security},
};

/// Ports of a loopback address for each client that connects from it. connect(2) takes the even ones first and
/// looks at all of them before it takes an odd one: where half of them are free, it soon finds one.
const PORTS_PER_CLIENT: u32 = 3;

/// A server and how to be its client.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its address.
    pub address: SocketAddr,
    /// Its process, if it can be told.
    pub pid: Option<u32>,
    /// Cores that its threads are pinned to.
    pub cores: Vec<usize>,
    /// Cores that this process could run on at its start.
    allowed: Vec<usize>,
    host: String,
    path: String,
    security: Option<Security>,
}

/// A URL of clients, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientUrl {
    /// Whether clients speak TLS.
    pub is_secure: bool,
    /// Host and port.
    pub host: String,
    /// Path and query.
    pub path: String,
}

impl Target {
    /// The server of the command line.
    ///
    /// # Errors
    /// If the URL is none, or names no host that is known, or there is nobody to trust.
    pub fn find(arguments: &CommonArguments) -> Result<Target> {
        let security = security(arguments)?;
        // What cannot be read is told once, before anything runs, and not by each worker.
        security.as_ref().map(Connector::new).transpose()?;
        let ClientUrl { host, path, .. } = parse_url(&arguments.url)?;
        let address = host
            .to_socket_addrs()
            .with_context(|| format!("the host of {} is not known", arguments.url))?
            .next()
            .with_context(|| format!("the host of {} has no address", arguments.url))?;
        let pid = match arguments.pid {
            _ if arguments.floor_only => None,
            None => listener::process_of(address),
            pid => pid,
        };
        let cores = pid.map(cpu::pinned_cores).unwrap_or_default();
        Ok(Target { address, pid, cores, allowed: cores::allowed(), host, path, security })
    }

    /// The core of the floor's server: one of this server's, else the machine's first.
    pub fn floor_core(&self) -> Option<usize> {
        self.cores.first().or(self.allowed.first()).copied()
    }

    /// The floor's server, in place of this one: it speaks no TLS.
    pub fn floor(&self, address: SocketAddr, pid: u32) -> Target {
        let cores = self.floor_core().into_iter().collect();
        Target { address, pid: Some(pid), cores, security: None, ..self.clone() }
    }

    /// Cores for the tester: those asked for, else those that no thread of the server is pinned to.
    pub fn tester_cores(&self, arguments: &CommonArguments) -> Vec<usize> {
        if !arguments.cores.is_empty() {
            return arguments.cores.clone();
        }
        let mut taken = self.cores.clone();
        if arguments.floor || arguments.floor_only {
            taken.extend(self.floor_core());
        }
        cores::without(&self.allowed, &taken)
    }

    /// Plans for some clients more than those of the command line.
    ///
    /// # Errors
    /// If there are too few descriptors.
    pub fn plans_of_more(&self, arguments: &CommonArguments, dialect: &Dialect, clients: u32) -> Result<Vec<Plan>> {
        let few = CommonArguments { connections: clients, ..arguments.clone() };
        let shift = |plan: Plan| {
            let first = arguments.connections;
            Plan { clients: first + plan.clients.start..first + plan.clients.end, ..plan }
        };
        Ok(self.plans(&few, dialect, Reading::default())?.into_iter().map(shift).collect())
    }

    /// A plan for each worker.
    ///
    /// # Errors
    /// If there are too few descriptors.
    pub fn plans(&self, arguments: &CommonArguments, dialect: &Dialect, reading: Reading) -> Result<Vec<Plan>> {
        let descriptors = raise_descriptor_limit()?;
        let cores = self.tester_cores(arguments);
        let ranges = split(arguments.connections, arguments.opening_max, cores.len().max(1), descriptors)?;
        let sources = sources(self.address, arguments.connections, ports::usable())?;
        Ok(ranges
            .into_iter()
            .enumerate()
            .map(|(worker, clients)| Plan {
                target: self.address,
                host: self.host.clone(),
                path: self.path.clone(),
                security: self.security.clone(),
                dialect: dialect.clone(),
                channels: arguments.channels,
                clients,
                sources: sources.clone(),
                opening_max: arguments.opening_max,
                core: (!cores.is_empty()).then(|| cores[worker % cores.len()]),
                busy_poll: arguments.busy_poll,
                compression: arguments.compression && !matches!(dialect, Dialect::Bare),
                reading,
            })
            .collect())
    }
}

/// What clients of the command line's server say.
pub fn dialect(arguments: &CommonArguments) -> Dialect {
    let channels = channel_names(arguments);
    if arguments.subscribe_text.is_some() || arguments.connect_text.is_some() {
        return Dialect::Texts {
            connect: arguments.connect_text.clone(),
            subscribe: arguments.subscribe_text.clone(),
            ready: arguments.ready_text.clone(),
            channels,
        };
    }
    let identity = match (&arguments.token, &arguments.hmac_secret) {
        (Some(token), _) => Identity::Token(token.clone()),
        (None, Some(secret)) => Identity::Distinct { secret: secret.clone() },
        (None, None) => Identity::Anonymous,
    };
    Dialect::Centrifuge { identity, channels, recovers: false }
}

/// The names of the command line's channels.
pub fn channel_names(arguments: &CommonArguments) -> Vec<String> {
    (0..arguments.channels).map(|number| arguments.channel.replace("{}", &number.to_string())).collect()
}

/// Takes all descriptors that the hard limit allows; how many these are.
pub fn raise_descriptor_limit() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("the limit of descriptors cannot be read")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        .context("the limit of descriptors cannot be raised to the hard one")?;
    Ok(hard)
}

/// How the command line's clients speak TLS, if they do.
///
/// # Errors
/// If the URL is none, or there is to be no TLS and something is said of it.
pub fn security(arguments: &CommonArguments) -> Result<Option<Security>> {
    let url = parse_url(&arguments.url)?;
    if url.is_secure {
        return Ok(Some(Security::new(&url.host, &arguments.tls)));
    }
    let tls = &arguments.tls;
    if tls.tls_ca.is_some() || tls.tls_insecure || tls.tls_resume {
        bail!(
            "{}: no TLS is spoken there: write wss://, or leave --tls-ca, --tls-insecure and --tls-resume out",
            arguments.url
        );
    }
    Ok(None)
}

/// `ws://host[:port][/path]`, or the same with `wss://`.
pub fn parse_url(url: &str) -> Result<ClientUrl> {
    let secure = url.strip_prefix("wss://").map(|rest| (true, 443, rest));
    let Some((is_secure, port, rest)) = secure.or_else(|| url.strip_prefix("ws://").map(|rest| (false, 80, rest)))
    else {
        bail!("{url}: a URL such as ws://127.0.0.1:8000/connection/websocket (or wss://) is expected")
    };
    let (host, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    if host.is_empty() {
        bail!("{url}: the host is missing");
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host = if has_port { host.to_owned() } else { format!("{host}:{port}") };
    Ok(ClientUrl { is_secure, host, path: path.to_owned() })
}

/// Loopback addresses for so many clients; none where the server is elsewhere and the kernel must choose.
fn sources(target: SocketAddr, clients: u32, ports: u32) -> Result<Vec<Ipv4Addr>> {
    match target.ip() {
        IpAddr::V4(address) if address.is_loopback() => {
            let count = clients.div_ceil((ports / PORTS_PER_CLIENT).max(1));
            Ok((1..=count).map(|number| Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + number)).collect())
        }
        _ if clients > ports => bail!(
            "one address has ports for some {ports} connections to {target}, not for {clients}: widen \
             net.ipv4.ip_local_port_range, or let several machines connect"
        ),
        _ => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (url, is_secure, host, path) in [
            ("ws://h:81/a/b?c", false, "h:81", "/a/b?c"),
            ("ws://h", false, "h:80", "/"),
            ("wss://h/a", true, "h:443", "/a"),
            ("wss://[::1]:8443", true, "[::1]:8443", "/"),
        ] {
            let expected = ClientUrl { is_secure, host: host.to_owned(), path: path.to_owned() };
            assert_eq!(parse_url(url).unwrap(), expected, "{url}");
        }
        for bad in ["http://h/", "ws:///x", "h:80"] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn many_clients_come_from_many_addresses() {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
        assert_eq!(sources(loopback, 40_001, 60_000).unwrap().len(), 3);
        assert_eq!(sources(loopback, 1, 20_000).unwrap(), [Ipv4Addr::new(127, 0, 0, 2)]);
        let remote = SocketAddr::from(([10, 0, 0, 1], 80));
        assert_eq!(sources(remote, 20_000, 20_000).unwrap(), [] as [Ipv4Addr; 0]);
        assert!(sources(remote, 20_001, 20_000).unwrap_err().to_string().contains("ip_local_port_range"));
    }
}
