//! INFO, CONFIG, COMMAND, TIME: what client libraries and tools ask before they trust a server.

use std::{
    fmt::Write,
    process,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{Call, CommandSpec, Outcome, TABLE, find};
use crate::{
    fanout::glob_matches,
    ingest::{refusal::Refusal, state::IngestState},
    resp::Reply,
};

/// The version of Redis whose behaviour is followed; libraries choose features by it.
pub(super) const REDIS_VERSION: &str = "7.4.0";

/// `INFO [section ...]`.
pub(super) fn info(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let mut text = String::new();
    for (name, fields) in info_sections(call.state) {
        let is_asked = call.command.len() == 1
            || call.command.arguments_from(1).any(|section| {
                [name, "default", "all", "everything"].iter().any(|word| section.eq_ignore_ascii_case(word.as_bytes()))
            });
        if is_asked {
            let lines: String = fields.iter().map(|(field, value)| format!("{field}:{value}\r\n")).collect();
            let separator = if text.is_empty() { "" } else { "\r\n" };
            write!(text, "{separator}# {}\r\n{lines}", capitalised(name)).expect("a string takes everything");
        }
    }
    Ok(Reply::Verbatim(text).into())
}

/// Sections with their fields, as Redis names them where it has them.
fn info_sections(state: &IngestState) -> [(&'static str, Vec<(&'static str, String)>); 5] {
    let uptime_s = state.started_at.elapsed().as_secs();
    let config = &state.config.ingest;
    [
        (
            "server",
            vec![
                ("redis_version", REDIS_VERSION.to_owned()),
                ("tidegate_version", env!("CARGO_PKG_VERSION").to_owned()),
                ("redis_mode", "standalone".to_owned()),
                ("arch_bits", usize::BITS.to_string()),
                ("process_id", process::id().to_string()),
                ("tcp_port", state.tcp_port.to_string()),
                ("uptime_in_seconds", uptime_s.to_string()),
                ("uptime_in_days", (uptime_s / 86_400).to_string()),
            ],
        ),
        (
            "clients",
            vec![
                ("connected_clients", state.connections().to_string()),
                ("maxclients", config.connections_max.to_string()),
            ],
        ),
        ("persistence", vec![("loading", "0".to_owned())]),
        (
            "stats",
            vec![
                ("total_connections_received", state.counters.accepted.to_string()),
                ("total_commands_processed", state.counters.commands_total().to_string()),
                ("total_net_input_bytes", state.counters.bytes_received.to_string()),
                ("total_error_replies", state.counters.reasons_total().to_string()),
            ],
        ),
        ("replication", vec![("role", "master".to_owned()), ("connected_slaves", "0".to_owned())]),
    ]
}

fn capitalised(name: &str) -> String {
    name[..1].to_ascii_uppercase() + &name[1..]
}

/// `CONFIG GET pattern ...`: the settings of Redis that tools ask for and that mean something here.
pub(super) fn config_get(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let config = &call.state.config.ingest;
    let settings = [
        ("appendonly", "no".to_owned()),
        ("databases", "1".to_owned()),
        ("maxclients", config.connections_max.to_string()),
        ("maxmemory", "0".to_owned()),
        ("port", call.state.tcp_port.to_string()),
        ("proto-max-bulk-len", config.payload_bytes_max.to_string()),
        ("save", String::new()),
        ("timeout", "0".to_owned()),
        ("unixsocket", config.unix.as_ref().map(|path| path.display().to_string()).unwrap_or_default()),
    ];
    let is_asked = |name: &str| {
        call.command.arguments_from(2).any(|pattern| glob_matches(&pattern.to_ascii_lowercase(), name.as_bytes()))
    };
    let found = settings.iter().filter(|(name, _)| is_asked(name));
    Ok(Reply::Map(found.map(|(name, value)| (Reply::bulk(name), Reply::bulk(value))).collect()).into())
}

/// `COMMAND`.
pub(super) fn commands(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    match call.command.len() {
        1 => Ok(Reply::Array(TABLE.iter().map(|spec| describe(spec, None)).collect()).into()),
        _ => super::unknown_subcommand(call),
    }
}

/// `COMMAND COUNT`.
pub(super) fn command_count(_call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    Ok(Reply::Integer(i64::try_from(TABLE.len()).unwrap_or(i64::MAX)).into())
}

/// `COMMAND LIST`; filters are not looked at.
pub(super) fn command_list(_call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    Ok(Reply::Array(TABLE.iter().map(|spec| Reply::bulk(spec.name)).collect()).into())
}

/// `COMMAND INFO [name ...]`.
pub(super) fn command_info(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let described = match call.command.len() {
        2 => TABLE.iter().map(|spec| describe(spec, None)).collect(),
        _ => call
            .command
            .arguments_from(2)
            .map(|name| find(TABLE, name).map_or(Reply::Null, |(_, spec)| describe(spec, None)))
            .collect(),
    };
    Ok(Reply::Array(described).into())
}

/// `COMMAND DOCS [name ...]`.
pub(super) fn command_docs(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let documented: Vec<&CommandSpec> = match call.command.len() {
        2 => TABLE.iter().collect(),
        _ => call.command.arguments_from(2).filter_map(|name| find(TABLE, name)).map(|(_, spec)| spec).collect(),
    };
    Ok(Reply::Map(documented.into_iter().map(|spec| document(spec, None)).collect()).into())
}

/// `TIME`.
pub(super) fn time(_call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Reply::Array(vec![Reply::bulk(now.as_secs().to_string()), Reply::bulk(now.subsec_micros().to_string())]).into())
}

/// A command as `COMMAND INFO` lists it: name, arity, flags, keys (none), categories, tips, key
/// specifications, subcommands.
fn describe(spec: &CommandSpec, container: Option<&str>) -> Reply {
    let mut flags = vec![Reply::Simple("fast")];
    if spec.is_open {
        flags.push(Reply::Simple("no_auth"));
    }
    let subcommands = spec.subcommands.iter().map(|subcommand| describe(subcommand, Some(spec.name))).collect();
    Reply::Array(vec![
        Reply::bulk(full_name(spec, container)),
        Reply::Integer(spec.arity.into()),
        Reply::Array(flags),
        Reply::Integer(0),
        Reply::Integer(0),
        Reply::Integer(0),
        Reply::Array(vec![Reply::bulk(format!("@{}", spec.group))]),
        Reply::Array(Vec::new()),
        Reply::Array(Vec::new()),
        Reply::Array(subcommands),
    ])
}

/// A command as `COMMAND DOCS` explains it.
fn document(spec: &CommandSpec, container: Option<&str>) -> (Reply, Reply) {
    let mut fields = vec![
        (Reply::bulk("summary"), Reply::bulk(spec.summary)),
        (Reply::bulk("since"), Reply::bulk(env!("CARGO_PKG_VERSION"))),
        (Reply::bulk("group"), Reply::bulk(spec.group)),
    ];
    if !spec.subcommands.is_empty() {
        let subcommands = spec.subcommands.iter().map(|subcommand| document(subcommand, Some(spec.name))).collect();
        fields.push((Reply::bulk("subcommands"), Reply::Map(subcommands)));
    }
    (Reply::bulk(full_name(spec, container)), Reply::Map(fields))
}

fn full_name(spec: &CommandSpec, container: Option<&str>) -> String {
    container.map_or_else(|| spec.name.to_owned(), |container| format!("{container}|{}", spec.name))
}
