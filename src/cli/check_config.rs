//! `tidegate check-config`: whether a configuration can be used, without using it.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    Failure, print, say,
    settings::{Source, refused, sentences},
};
use crate::{config::Config, tls::Ports};

/// Check a configuration file and the TIDEGATE_... environment without starting anything
///
/// Reports every mistake with its line, its key, what was expected and what was found, and the
/// nearest known key. Certificates and keys are read: they have to fit together, and not to have expired.
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
    let certificates = check_certificates(&loaded.config)?;
    loaded.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    if !loaded.config.lets_clients_connect() {
        say(NO_CLIENT_NOTE);
    }
    print(&format!("{} can be used: {}\n{certificates}", arguments.source.name(), summary(&loaded.config)))
}

/// Reads the certificates and keys that are configured: a line for each.
fn check_certificates(config: &Config) -> Result<String, Failure> {
    let ports = Ports::open(config).map_err(|problems| Failure::Usage(problems.to_string()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let mut lines = String::new();
    for (section, facts) in ports.figures().certificates {
        let file = facts.file.display();
        let Some(seconds) = facts.ends_unix_seconds.checked_sub(now).filter(|seconds| *seconds > 0) else {
            return Err(Failure::Usage(format!("[{section}] {file}: has expired; renew it")));
        };
        let names = if facts.names.is_empty() { "no name".to_owned() } else { facts.names.join(", ") };
        lines.push_str(&format!("[{section}] {file}: for {names}, valid for {}\n", counted_days(seconds / 86_400)));
    }
    Ok(lines)
}

fn counted_days(days: u64) -> String {
    counted(usize::try_from(days).unwrap_or(usize::MAX), "more day")
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
