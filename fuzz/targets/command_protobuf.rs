//! A client's message in Protobuf.
//!
//! Checked: reading may be interrupted between commands, nothing follows a mistake, and a payload is taken from the
//! message without a copy.

#![no_main]

use std::iter;

use libfuzzer_sys::fuzz_target;
use tidegate::protocol::{Command, Commands, Encoding, Malformed, Method};

fuzz_target!(|message: &[u8]| {
    let whole = outcomes(Encoding::Protobuf.decode(message));
    assert!(!whole.is_empty(), "no bytes are a mistake, not nothing");
    assert!(whole.iter().rev().skip(1).all(Result::is_ok), "something follows a mistake");
    assert_eq!(whole, outcomes(interrupted(message)), "interrupted after each command");

    for command in Encoding::Protobuf.decode(message).flatten() {
        let data = match command.method {
            Method::Publish(request) => request.data,
            Method::Rpc(request) => request.data,
            Method::Send(request) => request.data,
            Method::Connect(request) => request.data,
            Method::Subscribe(request) => request.data,
            _ => None,
        };
        if let Some(data) = data {
            assert!(!data.is_empty() && message.as_ptr_range().contains(&data.as_ptr()), "a payload was copied");
        }
    }
});

/// What is said of each command that was read, in words that can be compared.
fn outcomes<'a>(commands: impl Iterator<Item = Result<Command<'a>, Malformed>>) -> Vec<Result<String, Malformed>> {
    commands.map(|command| command.map(|command| format!("{command:?}"))).collect()
}

/// The commands of a message, each read by an iterator of its own.
fn interrupted(message: &[u8]) -> impl Iterator<Item = Result<Command<'_>, Malformed>> {
    let mut rest = Encoding::Protobuf.decode(message).rest();
    iter::from_fn(move || {
        let mut commands = Commands::from_rest(Encoding::Protobuf, rest?);
        let command = commands.next();
        rest = commands.rest();
        command
    })
}
