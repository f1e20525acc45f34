//! `tidegate drain`: a running server lets its clients go, as SIGTERM makes it, and this waits for its end.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{
    Failure,
    operator::{Answer, Door, command_fields},
    print,
    publish::parse_address,
    say,
    settings::Source,
};
use crate::config::format_duration_ms;

/// Let a running server's clients go, and end it, as SIGTERM does
///
/// First /health says 503 for shutdown.unready_delay, while all is served still; then clients are told to reconnect, in
/// waves over shutdown.spread. Shows how many are left, and ends when the server has. Address and password are the
/// configuration's unless given. A service manager that restarts the server after every exit starts it again: the unit
/// that comes with Tidegate restarts it after failures only.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate drain
  tidegate drain --config /etc/tidegate/tidegate.toml
  tidegate drain --address 10.0.0.7:9000 --password \"$ADMIN_PASSWORD\" --no-wait

Exit codes: 0 the server has ended (with --no-wait: it drains), 1 it has not, 2 mistake in the command line.")]
pub(super) struct Arguments {
    /// Operators' port of the server, instead of the configuration's
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    address: Option<String>,

    /// Password of commands, instead of the configuration's. Other users of this host can see it while the command runs
    #[arg(long)]
    password: Option<String>,

    /// Do not wait for the server's end
    #[arg(long)]
    no_wait: bool,

    #[command(flatten)]
    source: Source,
}

/// Between two looks at how many clients are left.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// How much longer than the server may take its end is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let config = arguments.source.load_config()?;
    let door = Door::new(arguments.address, &config.admin)?;
    let address = &door.address;
    let password = arguments.password.as_deref().or(config.admin.password.as_deref());
    let began = Instant::now();
    let plan = tell(&door, password)?;
    say(&format!(
        "{address} drains: it serves for {} still, then clients are told to reconnect over {}; it ends within {}",
        format_duration_ms(plan.unready_ms.into()),
        format_duration_ms(plan.spread_ms.into()),
        format_duration_ms(plan.ms_max.into())
    ));
    if arguments.no_wait {
        return Ok(());
    }
    let time_max = Duration::from_millis(plan.ms_max.into()) + PATIENCE;
    watch(&door, began + time_max)?;
    print(&format!("{address} has ended after {:.1} s\n", began.elapsed().as_secs_f64()))
}

/// What the server says that it will do.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Plan {
    unready_ms: u32,
    spread_ms: u32,
    ms_max: u32,
}

fn tell(door: &Door, password: Option<&str>) -> Result<Plan, Failure> {
    let fields = command_fields("drain", password)?;
    let answer =
        door.ask("POST", "/drain", &fields).map_err(|error| Failure::Failed(describe(&door.address, &error)))?;
    read_plan(&door.address, password.is_some(), &answer)
}

fn read_plan(address: &str, has_password: bool, answer: &Answer) -> Result<Plan, Failure> {
    match answer.status {
        202 => serde_json::from_str(&answer.body)
            .map_err(|_| Failure::Failed(format!("{address} is no Tidegate: it answers {}", first_line(&answer.body)))),
        401 if has_password => {
            Err(Failure::Failed(format!("{address} has another password: see admin.password in its configuration")))
        }
        401 => Err(Failure::Failed(format!(
            "{address} wants a password: give --password, or --config with the server's file (admin.password)"
        ))),
        404 | 405 => Err(Failure::Failed(format!(
            "{address} is not the operators' port of a Tidegate (admin.listen): it answers {}",
            answer.status
        ))),
        status => Err(Failure::Failed(format!("{address} refuses: {status} {}", first_line(&answer.body)))),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn describe(address: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!(
            "no server at {address}: {error}. Give --address, or --config with the server's file (admin.listen)"
        ),
        // How a blocking socket's timeout shows.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!("{address} does not answer"),
        _ => format!("{address} cannot be asked: {error}"),
    }
}

/// Shows how many clients are left, until nobody answers any more.
fn watch(door: &Door, give_up_at: Instant) -> Result<(), Failure> {
    let mut shown = None;
    while Instant::now() < give_up_at {
        match door.ask("GET", "/health", "") {
            Ok(answer) => {
                let left = clients_left(&answer.body);
                if let Some(left) = left.filter(|_| left != shown) {
                    say(&format!("clients left: {left}"));
                    shown = Some(left);
                }
            }
            // It ends between two bytes, too.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::InvalidData
                        | io::ErrorKind::UnexpectedEof
                ) =>
            {
                return Ok(());
            }
            Err(error) => say(&format!("note: {}", describe(&door.address, &error))),
        }
        thread::sleep(LOOK_INTERVAL);
    }
    Err(Failure::Failed(format!(
        "{} answers still, though its shutdown.timeout is over: was it started again? systemctl status tidegate",
        door.address
    )))
}

/// All shards' connections, of `/health`.
fn clients_left(body: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Health {
        shards: Vec<Shard>,
    }
    #[derive(Deserialize)]
    struct Shard {
        #[serde(default)]
        status: String,
        #[serde(default)]
        connections: u64,
    }
    let health: Health = serde_json::from_str(body).ok()?;
    // A shard that has ended has no clients, whatever it said last.
    Some(health.shards.iter().filter(|shard| shard.status != "stopped").map(|shard| shard.connections).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(has_password: bool, status: u16, body: &str) -> String {
        let answer = Answer { status, body: body.to_owned() };
        match read_plan("a:1", has_password, &answer) {
            Err(Failure::Failed(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_plan_is_read_and_refusals_say_what_to_do() {
        let body = "{\"unready_ms\":0,\"spread_ms\":5000,\"ms_max\":10000}".to_owned();
        let plan = read_plan("a:1", false, &Answer { status: 202, body }).unwrap();
        assert_eq!(plan, Plan { unready_ms: 0, spread_ms: 5_000, ms_max: 10_000 });
        assert!(refusal(false, 202, "hello").contains("is no Tidegate"));
        assert!(refusal(false, 401, "").contains("wants a password: give --password"));
        assert!(refusal(true, 401, "").contains("has another password"));
        assert!(refusal(false, 404, "").contains("not the operators' port"));
        assert_eq!(refusal(false, 403, "from this host only\n"), "a:1 refuses: 403 from this host only");
    }

    #[test]
    fn clients_are_counted_over_shards_that_run() {
        let body =
            r#"{"shards":[{"status":"ok","connections":3},{"status":"ok"},{"status":"stopped","connections":9}]}"#;
        assert_eq!(clients_left(body), Some(3));
        assert_eq!(clients_left("hello"), None);
    }
}
