//! `tidegate doctor`: what this host can hold, what breaks first, and what mends it.

use super::{Failure, print, settings::Source};
use crate::doctor::{self, Demand, Host};

/// Examine this host: how many connections it can hold, what breaks first, and what mends it
///
/// Changes nothing. Limits such as descriptors are those of the shell that runs it; to see a
/// service's, run it as the service does (ExecStartPre=).
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate doctor --config /etc/tidegate/tidegate.toml
  tidegate doctor --connections 200000 --json
  tidegate doctor --sysctl > /etc/sysctl.d/90-tidegate.conf && sysctl --system

Exit codes: 0 the number of connections can be reached, 1 it cannot, 2 mistake in the command line
or the configuration.")]
pub(super) struct Arguments {
    #[command(flatten)]
    source: Source,

    /// Connections to hold, in place of client.connections_max
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    connections: Option<u32>,

    /// Print the report as JSON
    #[arg(long, conflicts_with = "sysctl")]
    json: bool,

    /// Print a sysctl.d file for this host instead; it never takes away what the host has
    #[arg(long)]
    sysctl: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let config = arguments.source.load_config()?;
    let report = doctor::examine(&Host::here(), &Demand::new(&config, arguments.connections));
    if arguments.sysctl {
        return print(&report.sysctl_file());
    }
    print(&if arguments.json { format!("{}\n", report.json()) } else { report.table() })?;
    match report.is_reachable() {
        true => Ok(()),
        false => Err(Failure::Failed("this host cannot hold that many connections".to_owned())),
    }
}
