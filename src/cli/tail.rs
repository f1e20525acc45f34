//! `tidegate tail`: a client on the terminal.
//!
//! Owns the socket, the times and the output; what the two sides say is the business of `subscriber`.

use std::{
    io::{self, BufWriter, Write},
    net::TcpStream,
    sync::Arc,
    thread,
    time::Duration,
};

use tungstenite::{
    HandshakeError, Message, WebSocket,
    http::{StatusCode, Uri},
};

use super::{
    Failure, output_failure,
    producer::connect_tcp,
    publish::reachable,
    say,
    security::{self, Stream, Trust, TrustArguments},
    settings::Source,
    subscriber::{Event, Publication, Subscriber, end_of},
    token::{mint_for_user, parse_channel, parse_user},
};
use crate::config::{ClientConfig, Config};

/// Where the protocol is spoken, unless the URL says otherwise.
const PATH: &str = "/connection/websocket";

/// Time for the server's answer to connect.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// Time that a ping may be late, as official client libraries have it (protocol.md section 6).
const PING_PATIENCE: Duration = Duration::from_secs(10);

/// Shortest and longest pause before another connection (protocol.md section 21).
const BACK_OFF_MS: (u64, u64) = (500, 20_000);

/// Subscribe to a channel and print its publications, one to a line
///
/// After a lost connection it comes back by itself and recovers what it missed, if the channel
/// keeps history. Messages about the connection go to standard error.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate tail demo:ticks
  tidegate tail demo:ticks --json | jq .offset
  tidegate tail news:eu --user 42 --config tidegate.toml
  tidegate tail news:eu --url wss://push.example.com --token \"$TOKEN\"")]
pub(super) struct Arguments {
    /// Channel, such as news:eu
    #[arg(value_parser = parse_channel)]
    channel: String,

    /// Server, instead of the configuration's client.listen; the path is /connection/websocket unless given
    #[arg(long, value_name = "ws[s]://HOST[:PORT]", value_parser = parse_url)]
    url: Option<String>,

    #[command(flatten)]
    trust: TrustArguments,

    /// Connection token; without one the client is anonymous
    #[arg(long)]
    token: Option<String>,

    /// Connect as this user, with tokens minted by the configuration's secret
    #[arg(long, conflicts_with = "token", value_parser = parse_user)]
    user: Option<String>,

    /// Print a JSON object for each publication: channel, offset, data, tags
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    source: Source,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let config = arguments.source.load_config()?;
    let configured = Trust::configured(&config.client.tls.port);
    let trust = match (&arguments.url, arguments.trust.given()) {
        (Some(url), _) if url.starts_with("ws://") => None,
        (_, Some(given)) => Some(given),
        (Some(_), None) => Some(Trust::Host),
        (None, None) => configured,
    };
    let mut tail = Tail {
        url: arguments.url.unwrap_or_else(|| url_of(&config)),
        security: trust.map(|trust| trust.client_config()).transpose()?,
        identity: match (arguments.token, arguments.user) {
            (Some(token), _) => Identity::Token(token),
            (None, Some(user)) => Identity::User(user, Box::new(config.client)),
            (None, None) => Identity::Anonymous,
        },
        subscriber: Subscriber::new(&arguments.channel),
        channel: arguments.channel,
        is_json: arguments.json,
        output: BufWriter::new(io::stdout()),
        failures: 0,
    };
    loop {
        let reason = tail.follow()?;
        let pause = back_off(tail.failures, getrandom::u64().unwrap_or(0));
        tail.failures = tail.failures.saturating_add(1);
        say(&format!("{reason}; again in {:.1} s", pause.as_secs_f32()));
        thread::sleep(pause);
    }
}

/// Who the client is.
enum Identity {
    Anonymous,
    Token(String),
    /// A user, whose tokens are minted anew for each connection.
    User(String, Box<ClientConfig>),
}

struct Tail {
    url: String,
    /// By which TLS is spoken, if it is.
    security: Option<Arc<rustls::ClientConfig>>,
    identity: Identity,
    subscriber: Subscriber,
    channel: String,
    is_json: bool,
    output: BufWriter<io::Stdout>,
    /// Connections in a row that the server did not accept.
    failures: u32,
}

/// A connection.
struct Socket {
    websocket: WebSocket<Box<dyn Stream>>,
    /// The socket beneath, for its time limits.
    tcp: TcpStream,
}

impl Tail {
    /// Follows the channel on one connection to its end; why another should be tried.
    fn follow(&mut self) -> Result<String, Failure> {
        let token = match &self.identity {
            Identity::Anonymous => None,
            Identity::Token(token) => Some(token.clone()),
            Identity::User(user, client) => Some(mint_for_user(user, &client.token)?),
        };
        let mut socket = match connect(&self.url, self.security.as_ref()) {
            Ok(socket) => socket,
            Err(error) => return self.connect_failure(error),
        };
        let mut to_send = vec![self.subscriber.connect_command(token.as_deref())];
        loop {
            for text in to_send.drain(..) {
                if let Err(error) = socket.websocket.send(Message::text(text)) {
                    return Ok(format!("connection lost: {error}"));
                }
            }
            let events = match socket.websocket.read() {
                Ok(Message::Text(text)) => self.subscriber.receive(&text),
                Ok(Message::Close(frame)) => vec![match frame {
                    Some(frame) => end_of(u16::from(frame.code).into(), &frame.reason),
                    None => Event::Reconnect("the server closed the connection".to_owned()),
                }],
                Ok(_) => Vec::new(),
                Err(error) => vec![lost(&error)],
            };
            for event in events {
                match event {
                    Event::Send(text) => to_send.push(text),
                    Event::Connected { ping_ms } => self.connected(&socket, ping_ms),
                    Event::Subscribed => say(&format!("subscribed to {}", self.channel)),
                    Event::Publication(publication) => self.print(&publication)?,
                    Event::Missed => {
                        say("publications may have been missed: the channel cannot go on from where this left off")
                    }
                    Event::Reconnect(reason) => return self.output.flush().map_err(output_failure).map(|()| reason),
                    Event::End(reason) => {
                        self.output.flush().map_err(output_failure)?;
                        return Err(Failure::Failed(reason));
                    }
                }
            }
            self.output.flush().map_err(output_failure)?;
        }
    }

    fn connected(&mut self, socket: &Socket, ping_ms: Option<u64>) {
        self.failures = 0;
        let patience = ping_ms.map(|ping_ms| Duration::from_millis(ping_ms) + PING_PATIENCE);
        // If it cannot be set, the old one stays, which is shorter: the worst is a needless reconnect.
        let _ = socket.tcp.set_read_timeout(patience);
    }

    fn print(&mut self, publication: &Publication) -> Result<(), Failure> {
        let line = if self.is_json { &publication.to_json(&self.channel) } else { &publication.data };
        writeln!(self.output, "{line}").map_err(output_failure)
    }

    /// What a connection that could not be made means.
    fn connect_failure(&self, error: tungstenite::Error) -> Result<String, Failure> {
        match &error {
            tungstenite::Error::Http(response) if is_final(response.status()) => Err(Failure::Failed(format!(
                "{} answers HTTP {}, not the upgrade to WebSocket; is the URL right?",
                self.url,
                response.status()
            ))),
            tungstenite::Error::Url(_) | tungstenite::Error::HttpFormat(_) => {
                Err(Failure::Usage(format!("{} cannot be used: {error}", self.url)))
            }
            // Who it is does not change by asking again.
            tungstenite::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(Failure::Failed(format!("{} cannot be used: {error}", self.url)))
            }
            tungstenite::Error::Io(error) => Ok(format!("cannot connect to {}: {}", self.url, reason_of(error))),
            tungstenite::Error::Protocol(_) => {
                Err(Failure::Failed(format!("what answers at {} is no WebSocket server: {error}", self.url)))
            }
            _ => Ok(format!("cannot connect to {}: {error}", self.url)),
        }
    }
}

fn connect(url: &str, security: Option<&Arc<rustls::ClientConfig>>) -> Result<Socket, tungstenite::Error> {
    let uri: Uri = url.parse()?;
    let host = uri.host().unwrap_or_default();
    let usual_port = if security.is_some() { 443 } else { 80 };
    let address = format!("{host}:{}", uri.port_u16().unwrap_or(usual_port));
    let tcp = connect_tcp(&address)?;
    tcp.set_read_timeout(Some(CONNECT_PATIENCE))?;
    let plain = tcp.try_clone()?;
    let stream: Box<dyn Stream> = match security {
        None => Box::new(plain),
        Some(config) => Box::new(security::secure(plain, &address, config)?),
    };
    match tungstenite::client(uri, stream) {
        Ok((websocket, _)) => Ok(Socket { websocket, tcp }),
        Err(HandshakeError::Failure(error)) => Err(error),
        // How tungstenite tells that a blocking socket's patience ended.
        Err(HandshakeError::Interrupted(_)) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

/// Whether a status says that the same request will not do better later.
fn is_final(status: StatusCode) -> bool {
    status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error()
}

fn lost(error: &tungstenite::Error) -> Event {
    Event::Reconnect(match error {
        tungstenite::Error::Io(error) => format!("connection lost: {}", reason_of(error)),
        error => format!("connection lost: {error}"),
    })
}

/// What went wrong; the end of a blocking socket's patience is said in words.
fn reason_of(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "the server is silent".to_owned(),
        _ => error.to_string(),
    }
}

/// The pause before the next connection, doubling with each failure, at random so that clients do
/// not come back together.
fn back_off(failures: u32, random: u64) -> Duration {
    let (shortest_ms, longest_ms) = BACK_OFF_MS;
    let span_ms = shortest_ms.saturating_mul(1 << failures.min(16)).min(longest_ms);
    Duration::from_millis((shortest_ms + random % (span_ms + 1)).min(longest_ms))
}

/// Where this configuration's server is, seen from its own host.
fn url_of(config: &Config) -> String {
    let listen = reachable(config.client.listen);
    let scheme = if config.client.tls.port.is_on() { "wss" } else { "ws" };
    format!("{scheme}://{listen}{PATH}")
}

fn parse_url(text: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected a URL like ws://127.0.0.1:8000 or wss://push.example.com";
    let uri: Uri = text.parse().map_err(|_| EXPECTED.to_owned())?;
    match (uri.scheme_str(), uri.host()) {
        (Some(scheme @ ("ws" | "wss")), Some(_)) if uri.path() == "/" => {
            let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
            let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
            Ok(format!("{scheme}://{authority}{PATH}{query}"))
        }
        (Some("ws" | "wss"), Some(_)) => Ok(text.to_owned()),
        _ => Err(EXPECTED.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_get_the_path_where_the_protocol_is_spoken() {
        for (text, url) in [
            ("ws://127.0.0.1:8000", "ws://127.0.0.1:8000/connection/websocket"),
            ("ws://127.0.0.1:8000/", "ws://127.0.0.1:8000/connection/websocket"),
            ("ws://push.example.com/elsewhere", "ws://push.example.com/elsewhere"),
            ("ws://[::1]:8000", "ws://[::1]:8000/connection/websocket"),
            ("wss://push.example.com", "wss://push.example.com/connection/websocket"),
        ] {
            assert_eq!(parse_url(text).as_deref(), Ok(url));
        }
        for text in ["", "127.0.0.1:8000", "http://127.0.0.1:8000", "ws://", "https://push.example.com", "ws://a b"] {
            assert!(parse_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_random() {
        let (shortest_ms, longest_ms) = BACK_OFF_MS;
        for failures in [0, 1, 5, 16, u32::MAX] {
            for random in [0, 1, 12_345, u64::MAX] {
                let pause_ms = back_off(failures, random).as_millis() as u64;
                assert!((shortest_ms..=longest_ms).contains(&pause_ms), "{failures} {random}: {pause_ms}");
            }
        }
        assert!(back_off(0, u64::MAX) <= Duration::from_millis(2 * shortest_ms));
        assert_ne!(back_off(5, 1_000), back_off(5, 2_000));
    }
}
