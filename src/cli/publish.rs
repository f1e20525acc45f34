//! `tidegate publish`: one publication, through the ingest port like any producer's.

use std::{
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use super::{
    Failure, print,
    producer::{Producer, Reply, Target},
    security::{Trust, TrustArguments},
    settings::Source,
    token::parse_channel,
};
use crate::config::Config;

/// Publish to a channel through the ingest port, as any Redis client could
///
/// Prints how many subscribers the channel has; with --id, the publication's offset and the epoch
/// of its channel. Address and password are the configuration's unless given. TLS is spoken where the configuration's port
/// speaks it, or if it is said whom to trust.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate publish demo:news '{\"hello\":\"world\"}'
  date +'\"%T\"' | tidegate publish demo:news -
  tidegate publish orders:7 '{\"state\":\"paid\"}' --id order-7-paid

The same with redis-cli:  redis-cli -p 7400 PUBLISH demo:news '{\"hello\":\"world\"}'")]
pub(super) struct Arguments {
    /// Channel, such as news:eu
    #[arg(value_parser = parse_channel)]
    channel: String,

    /// Payload; JSON unless the channel's namespace takes binary. "-" reads standard input to its end
    #[arg(allow_negative_numbers = true)]
    payload: String,

    /// Idempotency key: within ingest.idempotency_window the same key is not published again
    #[arg(long, value_name = "KEY")]
    id: Option<String>,

    /// Ingest port, instead of the configuration's
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address, conflicts_with = "unix")]
    address: Option<String>,

    /// Ingest socket, instead of the configuration's
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,

    /// Password, instead of the configuration's. Other users of this host can see it while the command runs
    #[arg(long)]
    password: Option<String>,

    #[command(flatten)]
    trust: TrustArguments,

    #[command(flatten)]
    source: Source,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let config = arguments.source.load_config()?;
    let target = target(&arguments, &config)?;
    let payload = read_payload(&arguments.payload, config.ingest.payload_bytes_max)?;
    let lost = |error: io::Error| Failure::Failed(describe(&target, &error));
    let trust = arguments.trust.given().or_else(|| Trust::configured(&config.ingest.tls.port));
    let security = trust.map(|trust| trust.client_config()).transpose()?;
    let mut producer = Producer::connect(&target, security.as_ref()).map_err(lost)?;
    if let Some(password) = arguments.password.as_deref().or(config.ingest.password.as_deref()) {
        let reply = producer.command(&[b"AUTH", password.as_bytes()]).map_err(lost)?;
        refuse_error(&reply)?;
    }
    let channel = arguments.channel.as_bytes();
    let reply = match &arguments.id {
        None => producer.command(&[b"PUBLISH", channel, &payload]),
        Some(id) => producer.command(&[b"TG.PUBLISH", channel, &payload, b"ID", id.as_bytes()]),
    };
    let reply = reply.map_err(lost)?;
    refuse_error(&reply)?;
    print(&format!("{}\n", outcome(&reply)))
}

fn target(arguments: &Arguments, config: &Config) -> Result<Target, Failure> {
    let given = arguments.address.clone().map(Target::Tcp).or_else(|| arguments.unix.clone().map(Target::Unix));
    let configured = || {
        let tcp = config.ingest.listen.map(|listen| Target::Tcp(reachable(listen).to_string()));
        tcp.or_else(|| config.ingest.unix.clone().map(Target::Unix))
    };
    given.or_else(configured).ok_or_else(|| {
        Failure::Usage(
            "the configuration has neither ingest.listen nor ingest.unix; give --address or --unix".to_owned(),
        )
    })
}

/// Where a server that listens there is reached from its own host: one that listens on every address, on loopback.
pub(super) fn reachable(mut listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    listen
}

/// Reads the payload; beyond the maximum there is no point in reading on.
fn read_payload(payload: &str, payload_bytes_max: u32) -> Result<Vec<u8>, Failure> {
    if payload != "-" {
        return Ok(payload.as_bytes().to_vec());
    }
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(u64::from(payload_bytes_max) + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::Failed(format!("cannot read standard input: {error}")))?;
    if bytes.len() > payload_bytes_max as usize {
        return Err(Failure::Failed(format!(
            "standard input has more than {payload_bytes_max} bytes (ingest.payload_size_max)"
        )));
    }
    Ok(bytes)
}

fn refuse_error(reply: &Reply) -> Result<(), Failure> {
    let Reply::Error(message) = reply else { return Ok(()) };
    let advice = match message.split(' ').next() {
        Some("NOAUTH") => "; give --password, or --config with the server's file",
        Some("WRONGPASS") => "; the server has another password (ingest.password)",
        _ => "",
    };
    Err(Failure::Failed(format!("the server refused: {message}{advice}")))
}

fn outcome(reply: &Reply) -> String {
    match reply {
        Reply::Integer(1) => "1 subscriber".to_owned(),
        Reply::Integer(count) => format!("{count} subscribers"),
        Reply::List(items) => match items.as_slice() {
            [offset, epoch] => format!("offset {offset} epoch {epoch}"),
            _ => reply.to_string(),
        },
        reply => reply.to_string(),
    }
}

fn describe(target: &Target, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
            format!(
                "no server at {target}: {error}. Start one with `tidegate serve --demo`, or give --address or --unix"
            )
        }
        // How a blocking socket's timeout shows.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!("the server at {target} does not answer"),
        io::ErrorKind::UnexpectedEof => format!("the server at {target} hung up without an answer"),
        _ => format!("the server at {target} cannot be used: {error}"),
    }
}

/// A host and a port, as they were typed.
pub(super) fn parse_address(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
    match port.and_then(|port| port.parse::<u16>().ok()) {
        Some(port) if port > 0 => Ok(text.to_owned()),
        _ => Err("expected a host and a port, like 127.0.0.1:7400".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["127.0.0.1:7400", "localhost:7400", "[::1]:7400"] {
            assert_eq!(parse_address(good).as_deref(), Ok(good));
        }
        for bad in ["", "7400", ":7400", "localhost", "localhost:", "localhost:0", "localhost:70000"] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn outcomes_are_told_in_words() {
        assert_eq!(outcome(&Reply::Integer(0)), "0 subscribers");
        assert_eq!(outcome(&Reply::Integer(1)), "1 subscriber");
        let position = Reply::List(vec![Reply::Integer(7), Reply::Bulk(Some(b"AbCd".to_vec()))]);
        assert_eq!(outcome(&position), "offset 7 epoch AbCd");
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let refusal = |message: &str| match refuse_error(&Reply::Error(message.to_owned())) {
            Err(Failure::Failed(message)) => message,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            refusal("NOAUTH Authentication required."),
            "the server refused: NOAUTH Authentication required.; give --password, or --config with the server's file"
        );
        assert_eq!(refusal("ERR not JSON"), "the server refused: ERR not JSON");
        assert!(refuse_error(&Reply::Integer(3)).is_ok());
    }
}
