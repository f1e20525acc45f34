//! A producer's bytes: any bytes.
//!
//! Checked: what is said does not depend on where the network cut, nor on whether the parser is
//! called before the bytes it asked for are there; commands keep their limits; a command written
//! as clients write it is read alike; a refusal is one line, whatever the producer sent.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tidegate::resp::{Command, Limits, Parser, Version, Violation, write_command};

/// Small, so that the fuzzer finds each.
const LIMITS: Limits = Limits {
    arguments_max: 6,
    bulk_bytes_max: 100,
    command_bytes_max: 300,
    line_bytes_max: 40,
    is_unauthenticated: false,
};

/// Enough for every command within [`LIMITS`] when it is written as an array. (An inline command
/// may become longer by that.)
const LIMITS_OF_WRITTEN: Limits = Limits { command_bytes_max: 1000, ..LIMITS };

/// A command's arguments.
type Arguments = Vec<Vec<u8>>;

fuzz_target!(|input: &[u8]| {
    let whole = read_all([input], &LIMITS, Patience::None);
    assert_eq!(read_all(input.chunks(1), &LIMITS, Patience::None), whole, "byte by byte");
    assert_eq!(read_all(input.chunks(1), &LIMITS, Patience::Asked), whole, "with no more calls than asked for");
    assert_eq!(read_all(input.chunks(7), &LIMITS, Patience::Asked), whole, "in pieces of seven");

    let (commands, result) = whole;
    let mut written = Vec::new();
    for arguments in &commands {
        assert!(!arguments.is_empty() && arguments.len() <= LIMITS.arguments_max);
        assert!(arguments.iter().all(|argument| argument.len() <= LIMITS.bulk_bytes_max));
        write_command(arguments.iter().map(Vec::as_slice), &mut written);
    }
    assert_eq!(read_all([written.as_slice()], &LIMITS_OF_WRITTEN, Patience::None), (commands, Ok(())));

    if let Err(violation) = result {
        let mut reply = Vec::new();
        violation.reply().write(Version::Two, &mut reply);
        let line = reply.strip_suffix(b"\r\n").expect("a reply ends with its line");
        assert!(line.starts_with(b"-ERR Protocol error: ") && !line.iter().any(u8::is_ascii_control));
    }
});

/// When a connection calls the parser.
#[derive(Clone, Copy, PartialEq)]
enum Patience {
    /// After each receive.
    None,
    /// When the bytes are there that it asked for.
    Asked,
}

/// Reads a stream as the ingest thread does, up to its first violation.
fn read_all<'a>(
    received: impl IntoIterator<Item = &'a [u8]>,
    limits: &Limits,
    patience: Patience,
) -> (Vec<Arguments>, Result<(), Violation>) {
    let (mut parser, mut input, mut commands) = (Parser::new(), BytesMut::new(), Vec::new());
    for bytes in received {
        input.extend_from_slice(bytes);
        if patience == Patience::Asked && input.len() < parser.bytes_min() {
            continue;
        }
        loop {
            match parser.take(&mut input, limits) {
                Ok(Some(command)) => commands.push(arguments_of(&command)),
                Ok(None) => break,
                Err(violation) => return (commands, Err(violation)),
            }
        }
        assert!(parser.bytes_min() > input.len(), "asked for bytes that are there");
    }
    (commands, Ok(()))
}

fn arguments_of(command: &Command) -> Arguments {
    assert_eq!(command.len(), command.arguments_from(0).len());
    command.arguments_from(0).map(<[u8]>::to_vec).collect()
}
