//! `tidegate check-config`: whether a configuration can be used, without using it.

use super::{
    Failure, print, say,
    settings::{Source, refused, sentences},
};
use crate::config::Config;

/// Check a configuration file and the TIDEGATE_... environment without starting anything
///
/// Reports every mistake with its line, its key, what was expected and what was found, and the
/// nearest known key.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate check-config --config /etc/tidegate/tidegate.toml
  tidegate config-reference | tidegate check-config --strict --config /dev/stdin

Exit codes: 0 it can be used, 2 it cannot.")]
pub(super) struct Arguments {
    #[command(flatten)]
    source: Source,

    /// Take warnings (unknown keys and variables, questionable values) for errors
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let loaded = arguments.source.load()?;
    if arguments.strict
        && let Some(errors) = loaded.warnings_as_errors()
    {
        return Err(refused(&sentences(&errors)));
    }
    loaded.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    if !loaded.config.lets_clients_connect() {
        say(NO_CLIENT_NOTE);
    }
    print(&format!("{} can be used: {}\n", arguments.source.name(), summary(&loaded.config)))
}

const NO_CLIENT_NOTE: &str = "note: no client can connect: none of client.token.hmac_secret, hooks.connect_endpoint and client.allow_anonymous \
     is set";

/// The few facts that show whether it is the configuration that was meant.
fn summary(config: &Config) -> String {
    let producers: Vec<String> = config
        .ingest
        .listen
        .iter()
        .map(ToString::to_string)
        .chain(config.ingest.unix.iter().map(|path| path.display().to_string()))
        .collect();
    let producers = if producers.is_empty() { "nowhere".to_owned() } else { producers.join(" and ") };
    format!(
        "clients on {}, producers on {producers}, operators on {}, {}, {}",
        config.client.listen,
        config.admin.listen,
        counted(config.shards.cores.len(), "shard"),
        counted(config.namespaces.by_name.len(), "namespace"),
    )
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
