//! A client's message in JSON: any bytes, since JSON may come in a binary frame.
//!
//! Checked: a message means what its lines mean, one by one, up to the first mistake; reading may
//! be interrupted between commands; a line that is understood is a JSON object; a payload is JSON
//! on one line, taken verbatim from the message.

#![no_main]

use std::iter;

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use tidegate::protocol::{Command, Commands, Encoding, Malformed, Method};

fuzz_target!(|message: &[u8]| {
    let whole = outcomes(decode(message));
    let lines: Vec<&[u8]> = message.strip_suffix(b"\n").unwrap_or(message).split(|byte| *byte == b'\n').collect();
    assert_eq!(whole, one_by_one(&lines), "line by line");
    assert_eq!(whole, outcomes(interrupted(message)), "interrupted after each command");

    for (line, outcome) in lines.iter().zip(&whole) {
        if outcome.is_err() {
            continue;
        }
        assert_eq!(line.trim_ascii_start().first(), Some(&b'{'));
        // Members that nobody reads are skipped without a look at their characters.
        if let Ok(text) = str::from_utf8(line) {
            assert!(is_json(text), "understood, and no JSON: {text:?}");
        }
    }
    for command in decode(message).flatten() {
        if let Method::Publish(request) = command.method
            && let Some(data) = request.data
        {
            assert!(str::from_utf8(data).is_ok_and(is_json) && !data.contains(&b'\n'));
            assert!(message.as_ptr_range().contains(&data.as_ptr()), "a payload was copied");
        }
    }
});

/// What is said of each line that was read, in words that can be compared.
fn outcomes<'a>(commands: impl Iterator<Item = Result<Command<'a>, Malformed>>) -> Vec<Result<String, Malformed>> {
    commands.map(|command| command.map(|command| format!("{command:?}"))).collect()
}

/// Each line as a message of its own, up to the first mistake.
fn one_by_one(lines: &[&[u8]]) -> Vec<Result<String, Malformed>> {
    let mut all = Vec::new();
    for line in lines {
        all.extend(outcomes(decode(line)));
        if all.last().is_some_and(Result::is_err) {
            break;
        }
    }
    all
}

/// The commands of a message, each read by an iterator of its own.
fn interrupted(message: &[u8]) -> impl Iterator<Item = Result<Command<'_>, Malformed>> {
    let mut rest = decode(message).rest();
    iter::from_fn(move || {
        let mut commands = Commands::from_rest(Encoding::Json, rest?);
        let command = commands.next();
        rest = commands.rest();
        command
    })
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

fn decode(message: &[u8]) -> Commands<'_> {
    Encoding::Json.decode(message)
}
