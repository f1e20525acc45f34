//! The commands: one table, from which lookup, arity, authentication, counting and `COMMAND` come.

mod devices;
mod handshake;
mod introspection;
mod publication;
mod pubsub;
mod transaction;

use super::{
    producer::Producer,
    refusal::{Refusal, quote},
    replies::Waiting,
    state::IngestState,
};
use crate::{
    limits::AUDIT_LINES_PER_REASON_MAX,
    log::{AUDIT, Gate},
    resp::{Command, Reply},
};

/// One command, or one subcommand of a command.
pub(super) struct CommandSpec {
    /// Lower case.
    pub(super) name: &'static str,
    /// As Redis counts: arguments with the name; negative: at least so many.
    arity: i8,
    group: &'static str,
    summary: &'static str,
    handler: Handler,
    /// Allowed before the password is given.
    is_open: bool,
    /// Executed at once between MULTI and EXEC, where others are queued.
    is_immediate: bool,
    subcommands: &'static [CommandSpec],
}

type Handler = fn(&mut Call<'_>) -> Result<Outcome, Refusal>;

/// A command that is being executed.
struct Call<'a> {
    state: &'a mut IngestState,
    producer: &'a mut Producer,
    command: &'a Command,
}

/// What a command comes to.
enum Outcome {
    Reply(Reply),
    /// Shards have been asked, under the producer's next sequence.
    Wait(Waiting),
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

/// Every command. The most frequent come first: the lookup goes from top to bottom.
pub(super) const TABLE: &[CommandSpec] = &[
    command("publish", 3, "pubsub", "Publishes to a channel; replies its number of subscribers", publication::publish),
    command(
        "tg.publish",
        -3,
        "pubsub",
        "Publishes to a channel: channel payload [ID key] [SKIPHISTORY] [DELTA] [TAGS json] [VERSION number] [VERSIONEPOCH epoch] [ENCODING zstd]; replies offset and epoch",
        publication::publish_positioned,
    ),
    command(
        "tg.send",
        -3,
        "pubsub",
        "Sends to every connection of a user: user payload [ENCODING zstd]; replies their number",
        publication::send,
    ),
    command(
        "tg.broadcast",
        -2,
        "pubsub",
        "Sends to every connection of this host: payload [ENCODING zstd]; replies their number",
        publication::broadcast,
    ),
    command("tg.connections", 2, "pubsub", "Lists a user's connections", devices::connections),
    command(
        "tg.attributes",
        4,
        "pubsub",
        "Changes what is known of a user's connections: user client|* json; replies their number",
        devices::attributes,
    ),
    command(
        "tg.disconnect",
        -2,
        "pubsub",
        "Ends the connections of a user, or one of them: user [client]; replies their number",
        devices::disconnect,
    ),
    command("ping", -1, "connection", "Replies PONG, or its argument", handshake::ping),
    command("multi", 1, "transactions", "Queues the following commands", transaction::multi).immediate(),
    command("exec", 1, "transactions", "Executes the queued commands", transaction::exec).immediate(),
    command("discard", 1, "transactions", "Forgets the queued commands", transaction::discard).immediate(),
    command("echo", 2, "connection", "Replies its argument", handshake::echo),
    command("hello", -1, "connection", "Chooses the version of the protocol, authenticates", handshake::hello).open(),
    command("auth", -2, "connection", "Authenticates", handshake::auth).open(),
    command("client", -2, "connection", "What the server knows of this connection", unknown_subcommand).with(&[
        command("setinfo", 4, "connection", "Names the client library or its version", handshake::set_info),
        command("setname", 3, "connection", "Names the connection", handshake::set_name),
        command("getname", 2, "connection", "The connection's name", handshake::get_name),
        command("id", 2, "connection", "The connection's number", handshake::id),
        command("info", 2, "connection", "The connection, described", handshake::info),
    ]),
    command("select", 2, "connection", "Accepts any number: there are no databases", handshake::select),
    command("reset", 1, "connection", "Back to the state after connecting", handshake::reset).open().immediate(),
    command("quit", -1, "connection", "Closes the connection", handshake::quit).open().immediate(),
    command("spublish", 3, "pubsub", "As PUBLISH", publication::publish),
    command("pubsub", -2, "pubsub", "Channels and their subscribers", unknown_subcommand).with(&[
        command("channels", -2, "pubsub", "Channels with subscribers, by pattern", pubsub::channels),
        command("numsub", -2, "pubsub", "Subscribers of channels", pubsub::count_subscribers),
        command("numpat", 2, "pubsub", "0: there are no patterns", pubsub::count_patterns),
        command("shardchannels", -2, "pubsub", "As PUBSUB CHANNELS", pubsub::channels),
        command("shardnumsub", -2, "pubsub", "As PUBSUB NUMSUB", pubsub::count_subscribers),
    ]),
    command("info", -1, "server", "The server, described", introspection::info),
    command("config", -2, "server", "Settings that Redis's clients ask for", unknown_subcommand).with(&[command(
        "get",
        -3,
        "server",
        "Settings by pattern",
        introspection::config_get,
    )]),
    command("command", -1, "server", "The commands, described", introspection::commands).with(&[
        command("count", 2, "server", "Number of commands", introspection::command_count),
        command("docs", -2, "server", "Documentation of commands", introspection::command_docs),
        command("info", -2, "server", "Description of commands", introspection::command_info),
        command("list", -2, "server", "Names of commands", introspection::command_list),
    ]),
    command("time", 1, "server", "Seconds since 1970, and microseconds", introspection::time),
    command("subscribe", -2, "pubsub", "Refused: clients subscribe over WebSocket", publication::subscribe),
    command("psubscribe", -2, "pubsub", "Refused: clients subscribe over WebSocket", publication::subscribe),
    command("ssubscribe", -2, "pubsub", "Refused: clients subscribe over WebSocket", publication::subscribe),
    // The first words of an HTTP request whose page guesses ports, as Redis recognises them.
    command("post", -1, "server", "Refused: closes the connection", handshake::web_request).open().immediate(),
    command("host:", -1, "server", "Refused: closes the connection", handshake::web_request).open().immediate(),
];

/// Executes a command, or queues it in the producer's transaction; its reply finds its place.
pub(super) fn execute(state: &mut IngestState, producer: &mut Producer, command: Command) {
    let spec = match check(state, producer, &command) {
        Ok(spec) => spec,
        Err(refusal) => {
            if let Some(transaction) = &mut producer.transaction {
                transaction.is_discarded = true;
            }
            return refuse(state, producer, &refusal);
        }
    };
    if !spec.is_immediate && producer.transaction.is_some() {
        return match transaction::queue(producer, command) {
            Ok(reply) => producer.reply(reply),
            Err(refusal) => refuse(state, producer, &refusal),
        };
    }
    match (spec.handler)(&mut Call { state, producer, command: &command }) {
        Ok(Outcome::Reply(reply)) => producer.reply(reply),
        Ok(Outcome::Wait(waiting)) => producer.replies.push_waiting(waiting, producer.version),
        Err(refusal) => refuse(state, producer, &refusal),
    }
}

fn refuse(state: &mut IngestState, producer: &mut Producer, refusal: &Refusal) {
    state.counters.count_reason(refusal.reason());
    if refusal.concerns_security() {
        audit(producer, refusal);
    }
    producer.reply(refusal.reply());
    producer.is_ending |= refusal.ends_connection();
}

fn audit(producer: &Producer, refusal: &Refusal) {
    static GATE: Gate = Gate::new(AUDIT_LINES_PER_REASON_MAX);
    if let Some(suppressed) = GATE.pass_now() {
        let (reason, address) = (refusal.reason(), &*producer.address);
        tracing::warn!(target: AUDIT, reason, address, suppressed, "a producer was refused");
    }
}

/// What can be known before a command is executed: that it exists, that its producer may give it, its arity.
fn check(state: &mut IngestState, producer: &Producer, command: &Command) -> Result<&'static CommandSpec, Refusal> {
    let found = find(TABLE, command.name());
    if let Some((index, _)) = found {
        state.counters.count_command(index);
    }
    if !producer.is_authenticated && found.is_none_or(|(_, spec)| !spec.is_open) {
        return Err(Refusal::AuthenticationRequired);
    }
    let (_, spec) = found.ok_or_else(|| unknown_command(command))?;
    let subcommand = command.argument(1).and_then(|name| find(spec.subcommands, name));
    let chosen = subcommand.map_or(spec, |(_, subcommand)| subcommand);
    if !chosen.takes(command.len()) {
        let name = match subcommand {
            Some((_, subcommand)) => format!("{}|{}", spec.name, subcommand.name),
            None => spec.name.to_owned(),
        };
        return Err(Refusal::WrongArity(name));
    }
    Ok(chosen)
}

fn find(table: &'static [CommandSpec], name: &[u8]) -> Option<(usize, &'static CommandSpec)> {
    table.iter().enumerate().find(|(_, spec)| name.eq_ignore_ascii_case(spec.name.as_bytes()))
}

fn unknown_command(command: &Command) -> Refusal {
    const BYTES_MAX: usize = 128;
    let mut arguments = String::new();
    for argument in command.arguments_from(1) {
        if arguments.len() >= BYTES_MAX {
            break;
        }
        arguments.push_str(&format!("'{}' ", quote(argument)));
    }
    Refusal::UnknownCommand { name: quote(command.name()), arguments }
}

/// The handler of commands that have subcommands only.
fn unknown_subcommand(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    Err(Refusal::UnknownSubcommand {
        container: quote(call.command.name()).to_ascii_uppercase(),
        subcommand: quote(call.argument(1)),
    })
}

impl Call<'_> {
    /// An argument that the arity promises.
    fn argument(&self, index: usize) -> &[u8] {
        self.command.argument(index).expect("the table's arity says that it is there")
    }
}

/// A row of the table.
const fn command(
    name: &'static str,
    arity: i8,
    group: &'static str,
    summary: &'static str,
    handler: Handler,
) -> CommandSpec {
    CommandSpec { name, arity, group, summary, handler, is_open: false, is_immediate: false, subcommands: &[] }
}

impl CommandSpec {
    const fn open(self) -> Self {
        Self { is_open: true, ..self }
    }

    const fn immediate(self) -> Self {
        Self { is_immediate: true, ..self }
    }

    const fn with(self, subcommands: &'static [CommandSpec]) -> Self {
        Self { subcommands, ..self }
    }

    fn takes(&self, arguments: usize) -> bool {
        let arity = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { arguments >= arity } else { arguments == arity }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lower_case() {
        let mut names: Vec<&str> = TABLE.iter().map(|spec| spec.name).collect();
        assert!(names.iter().all(|name| *name == name.to_ascii_lowercase()));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
    }

    #[test]
    fn commands_without_a_password_are_few() {
        let open: Vec<&str> = TABLE.iter().filter(|spec| spec.is_open).map(|spec| spec.name).collect();
        assert_eq!(open, ["hello", "auth", "reset", "quit", "post", "host:"]);
        assert!(TABLE.iter().flat_map(|spec| spec.subcommands).all(|spec| !spec.is_open));
    }
}
