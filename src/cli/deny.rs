//! `tidegate deny`: addresses that may not connect to a running server.

use serde::Deserialize;

use super::{
    Failure,
    operator::{Answer, Door, command_fields},
    print,
    publish::parse_address,
    settings::Source,
};
use crate::network::Prefix;

/// Keep addresses away from a running server, and see which are
///
/// Prefixes are single addresses, or like 10.0.0.0/8 and 2001:db8::/32. New connections from there are answered HTTP 403,
/// and those that exist are closed. What is added is forgotten when the server ends; client.deny in the configuration
/// lasts. Address and password of the operators' port are the configuration's unless given.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate deny add 203.0.113.0/24 2001:db8:bad::/48
  tidegate deny list
  tidegate deny remove 203.0.113.0/24")]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,

    /// Operators' port of the server, instead of the configuration's
    #[arg(long, global = true, value_name = "HOST:PORT", value_parser = parse_address)]
    address: Option<String>,

    /// Password of commands, instead of the configuration's. Other users of this host can see it while the command runs
    #[arg(long, global = true)]
    password: Option<String>,

    #[command(flatten)]
    source: Source,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Deny prefixes, and close the connections that come from them
    Add {
        /// Prefixes, such as 203.0.113.0/24
        #[arg(required = true)]
        prefixes: Vec<Prefix>,
    },
    /// Let prefixes connect again that were added
    Remove {
        /// Prefixes, as they were added
        #[arg(required = true)]
        prefixes: Vec<Prefix>,
    },
    /// Show what is denied, a prefix a line
    List,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let config = arguments.source.load_config()?;
    let door = Door::new(arguments.address, &config.admin)?;
    let password = arguments.password.as_deref().or(config.admin.password.as_deref());
    let fields = command_fields("deny", password)?;
    let answer = door.ask("POST", &path(&arguments.action), &fields).map_err(|error| {
        Failure::Failed(format!(
            "{} cannot be asked: {error}. Give --address, or --config with the server's file (admin.listen)",
            door.address
        ))
    })?;
    print(&outcome(&door.address, &answer)?)
}

/// The request is in the query: prefixes hold no character that would have to be written in another way there.
fn path(action: &Action) -> String {
    let (name, prefixes) = match action {
        Action::Add { prefixes } => ("add", prefixes.as_slice()),
        Action::Remove { prefixes } => ("remove", prefixes.as_slice()),
        Action::List => return "/deny".to_owned(),
    };
    let prefixes: Vec<String> = prefixes.iter().map(Prefix::to_string).collect();
    format!("/deny?{name}={}", prefixes.join(","))
}

fn outcome(address: &str, answer: &Answer) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct Report {
        configured: Vec<String>,
        added: Vec<String>,
    }
    let refused = || Failure::Failed(format!("{address} refuses: {} {}", answer.status, answer.body.trim_end()));
    if answer.status != 200 {
        return Err(refused());
    }
    let report: Report = serde_json::from_str(&answer.body).map_err(|_| refused())?;
    let configured = report.configured.iter().map(|prefix| format!("{prefix} (client.deny)\n"));
    let added = report.added.iter().map(|prefix| format!("{prefix}\n"));
    Ok(configured.chain(added).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_are_written_and_read() {
        let prefixes = || vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(path(&Action::Add { prefixes: prefixes() }), "/deny?add=10.0.0.0/8,2001:db8::1");
        assert_eq!(path(&Action::Remove { prefixes: prefixes() }), "/deny?remove=10.0.0.0/8,2001:db8::1");
        assert_eq!(path(&Action::List), "/deny");
        let body = r#"{"configured":["10.0.0.0/8"],"added":["192.0.2.1"]}"#.to_owned();
        let shown = outcome("a:1", &Answer { status: 200, body }).unwrap();
        assert_eq!(shown, "10.0.0.0/8 (client.deny)\n192.0.2.1\n");
        let refused = Answer { status: 400, body: "10.0.0.1 is not on the list\n".to_owned() };
        assert!(
            matches!(outcome("a:1", &refused), Err(Failure::Failed(message)) if message == "a:1 refuses: 400 10.0.0.1 is not on the list")
        );
    }
}
