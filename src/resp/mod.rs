//! RESP, the Redis protocol, as a server speaks it: bytes in, commands out; replies in, bytes out.
//!
//! Owns how commands are framed (arrays of bulk strings and inline commands, as in Redis 7
//! `networking.c`) and how replies are written under RESP2 and RESP3. What a command means, and who
//! may give it, is the business of `ingest`.
//!
//! Invariants:
//! - Sans-IO: no socket, no clock. What is said does not depend on where the network cut it.
//! - No byte is looked at twice to find out that a command is still incomplete; otherwise a
//!   producer that sends a large payload in small pieces would cost time in its square.
//! - Arguments are slices of the bytes received. Only inline commands, which may be quoted, are
//!   rewritten.
//! - A length is checked before anything is reserved for it.

mod command;
mod inline;
mod parser;
mod reply;
mod violation;

#[cfg(test)]
mod tests;

pub use self::{
    command::{Command, write_command},
    parser::{Limits, Parsed, Parser},
    reply::{Reply, Version},
    violation::Violation,
};
