//! `tidegate reload`: a running server reads its configuration anew.

use super::{
    Failure,
    operator::{Door, command_fields},
    print,
    publish::parse_address,
    say,
    settings::Source,
};
use crate::{config::Config, control::Report};

/// Let a running server read its configuration anew, and print what changed
///
/// The server reads the file and the environment that it was started with, as on SIGHUP. What needs
/// a restart is named. A configuration with a mistake changes nothing, and every mistake is told.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate reload
  tidegate reload --config /etc/tidegate/tidegate.toml
  tidegate reload --address 127.0.0.1:9001

Exit codes: 0 it counts, 1 the server cannot be reached or a thread is late, 2 it is refused.")]
pub(super) struct Arguments {
    #[command(flatten)]
    source: Source,

    /// Operators' port of the server, instead of the configuration's
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    address: Option<String>,

    /// Password of commands, instead of the configuration's. Other users of this host can see it while the command runs
    #[arg(long)]
    password: Option<String>,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { source, address, password } = arguments;
    // Whether that address speaks TLS is in the configuration; one that cannot be read is the server's to complain of.
    let admin = match (&address, source.load()) {
        (_, Ok(loaded)) => loaded.config.admin,
        (Some(_), Err(_)) => Config::default().admin,
        (None, Err(mistakes)) => return Err(mistakes),
    };
    let configured = admin.password.as_ref().filter(|_| address.is_none()).map(|password| password.to_string());
    let password = password.or(configured);
    let door = Door::new(address, &admin)?;
    let address = &door.address;
    let fields = command_fields("reload", password.as_deref())?;
    let answer = door.ask("POST", "/reload", &fields);
    let answer = answer.map_err(|error| {
        Failure::Failed(format!(
            "no answer from {address}: {error}. Is the server running? --address names another operators' port"
        ))
    })?;
    let report: Report = serde_json::from_str(&answer.body)
        .map_err(|_| Failure::Failed(format!("{address} answered {}: {}", answer.status, answer.body.trim_end())))?;
    for warning in &report.warnings {
        say(&format!("warning: {warning}"));
    }
    for key in &report.needs_restart {
        say(&format!("warning: {key} changes only with a restart"));
    }
    if !report.mistakes.is_empty() {
        return Err(Failure::Usage(format!("nothing has changed:\n{}", report.mistakes.join("\n"))));
    }
    print(&summary(&report.changed))?;
    match report.late.as_slice() {
        [] => Ok(()),
        late => Err(Failure::Failed(format!("late to take it over: {}; the log says more", late.join(", ")))),
    }
}

fn summary(changed: &[String]) -> String {
    match changed {
        [] => "nothing is written otherwise\n".to_owned(),
        changed => format!("changed:\n  {}\n", changed.join("\n  ")),
    }
}
