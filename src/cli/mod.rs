//! The command line: what an operator types, and what comes of it.
//!
//! Owns arguments, help, exit codes and what is written to standard output and error. Each command
//! is a file; what a command does beyond talking to its operator is the business of the modules above.
//!
//! Invariants: results go to standard output and everything else to standard error, so that output
//! can be piped; a reader that goes away (`| head`) ends a command quietly.

mod check_config;
mod config_reference;
mod deny;
mod doctor;
mod drain;
mod operator;
mod producer;
mod publish;
mod reload;
mod security;
mod serve;
mod settings;
mod subscriber;
mod tail;
mod token;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

/// Runs the program: reads the command line, does what it says, and answers with the exit code.
///
/// Exit codes: 0 for success, 1 for a failure, 2 for a mistake in the command line or the configuration.
pub fn run() -> ExitCode {
    // clap answers a usage error with 2 itself.
    let outcome = match CommandLine::parse().command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::CheckConfig(arguments) => check_config::run(arguments),
        Command::ConfigReference => config_reference::run(),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Deny(arguments) => deny::run(arguments),
        Command::Drain(arguments) => drain::run(arguments),
        Command::Token(arguments) => token::run(arguments),
        Command::Publish(arguments) => publish::run(arguments),
        Command::Reload(arguments) => reload::run(arguments),
        Command::Tail(arguments) => tail::run(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// A push server: producers PUBLISH over the Redis protocol, WebSocket clients receive.
#[derive(Parser)]
#[command(name = "tidegate", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Try it, in three terminals:
  tidegate serve --demo
  tidegate tail demo:news
  tidegate publish demo:news '{\"hello\":\"world\"}'

Exit codes: 0 success, 1 failure, 2 mistake in the command line or the configuration.";

#[derive(Subcommand)]
enum Command {
    Serve(serve::Arguments),
    CheckConfig(check_config::Arguments),
    #[command(about = config_reference::ABOUT, after_help = config_reference::EXAMPLES)]
    ConfigReference,
    Doctor(doctor::Arguments),
    Deny(deny::Arguments),
    Drain(drain::Arguments),
    Token(token::Arguments),
    Publish(publish::Arguments),
    Reload(reload::Arguments),
    Tail(tail::Arguments),
}

/// Why a command did not succeed.
#[derive(Debug)]
enum Failure {
    /// The command line or the configuration is mistaken.
    Usage(String),
    /// It could not be done.
    Failed(String),
    /// Whoever read the output went away: nothing is left to do, and nobody to tell.
    ReaderGone,
}

impl Failure {
    fn report(self) -> ExitCode {
        let (message, code) = match self {
            Failure::Usage(message) => (message, 2),
            Failure::Failed(message) => (message, 1),
            Failure::ReaderGone => return ExitCode::SUCCESS,
        };
        say(&format!("error: {message}"));
        ExitCode::from(code)
    }
}

/// Writes to standard output.
fn print(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(output_failure)
}

/// What a failed write to standard output means.
fn output_failure(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => Failure::Failed(format!("cannot write to standard output: {error}")),
    }
}

/// Writes a line to standard error. If that cannot be written to, there is nobody to tell.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
