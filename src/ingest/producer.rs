//! One producer: what it has said about itself, its transaction and its replies.

use std::{collections::VecDeque, time::Instant};

use super::replies::Replies;
use crate::{
    limits::{INGEST_PENDING_COMMANDS_MAX, INGEST_REPLY_BYTES_MAX},
    resp::{Command, Limits, Reply, Version},
};

/// The state of a producer's connection, without its socket.
#[derive(Debug)]
pub(super) struct Producer {
    /// Number of the connection; shards name it in their answers.
    pub(super) id: u64,
    /// Where it comes from, as `CLIENT INFO` shows it.
    pub(super) address: String,
    pub(super) connected_at: Instant,
    pub(super) version: Version,
    pub(super) is_authenticated: bool,
    /// What its commands may be; wider once it is authenticated.
    pub(super) limits: Limits,
    /// `CLIENT SETNAME`.
    pub(super) name: Box<str>,
    /// `CLIENT SETINFO LIB-NAME`.
    pub(super) library_name: Box<str>,
    /// `CLIENT SETINFO LIB-VER`.
    pub(super) library_version: Box<str>,
    /// Between MULTI and EXEC.
    pub(super) transaction: Option<Transaction>,
    /// Commands of a transaction that EXEC has begun: they come before all that was received after it.
    pub(super) executing: VecDeque<Command>,
    pub(super) replies: Replies,
    /// Nothing more is read; the connection closes when its replies are written.
    pub(super) is_ending: bool,
}

/// Commands that wait for EXEC. They are not atomic: each is published as if it had been sent alone,
/// in order. Clients use transactions to save round trips (redis-py's pipelines are transactions).
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) commands: VecDeque<Command>,
    /// What they cost together.
    pub(super) bytes: usize,
    /// A command was refused when it was queued.
    pub(super) is_discarded: bool,
}

impl Producer {
    /// A producer that has just connected. It may publish payloads of this many bytes, once it has
    /// given the password, if there is one.
    pub(super) fn new(id: u64, address: String, needs_password: bool, payload_bytes_max: usize) -> Self {
        let limits = if needs_password { Limits::before_authentication() } else { Limits::new(payload_bytes_max) };
        Self {
            id,
            address,
            connected_at: Instant::now(),
            version: Version::Two,
            is_authenticated: !needs_password,
            limits,
            name: Box::default(),
            library_name: Box::default(),
            library_version: Box::default(),
            transaction: None,
            executing: VecDeque::new(),
            replies: Replies::default(),
            is_ending: false,
        }
    }

    /// A reply that waits for nothing.
    pub(super) fn reply(&mut self, reply: Reply) {
        self.replies.push(reply, self.version);
    }

    /// Whether one more command may be begun.
    pub(super) fn has_room(&self) -> bool {
        self.replies.pending() < INGEST_PENDING_COMMANDS_MAX && self.replies.output_bytes() < INGEST_REPLY_BYTES_MAX
    }

    /// Whether everything that was asked has been answered and handed to the writer.
    pub(super) fn is_answered(&self) -> bool {
        self.replies.pending() == 0 && self.replies.output_bytes() == 0
    }
}
