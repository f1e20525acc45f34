//! `tidegate serve`: the server.

use std::sync::Arc;

use super::{
    Failure, print,
    settings::{Source, refused, sentences},
};
use crate::{
    config::{DEMO_NAMESPACE, Loaded},
    control::Outcome,
    log,
    server::{self, Addresses, Start},
    systemd,
};

/// Run the server until it is told to stop (SIGTERM or Ctrl-C)
///
/// Without a file the embedded defaults apply: clients on 127.0.0.1:8000, producers on
/// 127.0.0.1:7400, the console on http://127.0.0.1:9000/. The first signal lets clients go in
/// waves, the second ends the server at once. SIGHUP lets it read its configuration anew, as
/// `tidegate reload` does.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate serve --demo
  tidegate serve --config /etc/tidegate/tidegate.toml
  TIDEGATE_CLIENT_LISTEN=127.0.0.1:8001 tidegate serve

`tidegate config-reference` prints every key and every variable.")]
pub(super) struct Arguments {
    #[command(flatten)]
    source: Source,

    /// Open the namespace `demo` to anyone and publish to demo:ticks ten times a second
    #[arg(long)]
    demo: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    // Before anything else is opened: they are known by their numbers.
    let passed = systemd::take_sockets().map_err(|error| Failure::Failed(error.to_string()))?;
    let Arguments { source, demo } = arguments;
    let load = move || {
        let Loaded { config, warnings } = source.read()?;
        let config = if demo { config.with_demo().map_err(|errors| sentences(&errors))? } else { config };
        Ok(Loaded { config, warnings })
    };
    let Loaded { config, warnings } = load().map_err(|mistakes: Vec<String>| refused(&mistakes))?;
    log::start(&config.log).map_err(|error| Failure::Usage(error.to_string()))?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    if !config.lets_clients_connect() {
        tracing::warn!(
            "no client can connect: set client.token.hmac_secret, hooks.connect_endpoint or client.allow_anonymous, or try `tidegate serve --demo`"
        );
    }
    let scheme = |is_secure, plain: &'static str, secure: &'static str| if is_secure { secure } else { plain };
    let schemes = Schemes {
        clients: scheme(config.client.tls.port.is_on(), "ws", "wss"),
        console: scheme(config.admin.tls.is_on(), "http", "https"),
        api: scheme(config.api.tls.is_on(), "http", "https"),
    };
    let start = Start { config, demo, load: Arc::new(load), passed };
    let outcome = server::serve(start, |addresses| announce(addresses, &schemes, demo));
    log::flush();
    let outcome = outcome.map_err(|error| Failure::Failed(error.to_string()))?;
    match outcome {
        Outcome::Stopped => Ok(()),
        Outcome::TimedOut { threads } => Err(Failure::Failed(format!(
            "shutdown.timeout ran out while these threads were busy still: {}",
            threads.join(", ")
        ))),
        Outcome::Interrupted => Err(Failure::Failed("a second signal ended the server at once".to_owned())),
        Outcome::ThreadLost { thread } => {
            Err(Failure::Failed(format!("the thread {thread} ended by itself; the log says why")))
        }
    }
}

/// How the URLs of ports begin.
struct Schemes {
    clients: &'static str,
    console: &'static str,
    api: &'static str,
}

/// Tells where everything is, once it is there.
fn announce(addresses: &Addresses, schemes: &Schemes, demo: bool) {
    let clients = format!("{}://{}/connection/websocket", schemes.clients, addresses.client);
    let console = format!("{}://{}/", schemes.console, addresses.admin);
    let producers: Vec<String> = addresses
        .ingest
        .iter()
        .map(ToString::to_string)
        .chain(addresses.ingest_unix.iter().map(|path| path.display().to_string()))
        .collect();
    let api = addresses.api.map(|api| format!("{}://{api}/api", schemes.api));
    tracing::info!(clients, producers = producers.join(" "), console, api, "ready");
    if demo {
        let push = match addresses.ingest {
            Some(ingest) => format!("redis-cli -h {} -p {} PUBLISH", ingest.ip(), ingest.port()),
            None => "tidegate publish".to_owned(),
        };
        // The demonstration is for people at a terminal; if nobody reads, nobody is missed.
        let _ = print(&format!(
            "\n  console    {console}\n  clients    {clients}\n  producers  {push} {DEMO_NAMESPACE}:news '{{\"hello\":\"world\"}}'\n\n"
        ));
    }
}
