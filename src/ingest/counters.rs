//! What the ingest thread counts.

use super::command;
use crate::mesh::IngestFigures;

/// Totals since the thread's start.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) accepted: u64,
    pub(super) bytes_received: u64,
    pub(super) backpressure: u64,
    /// Payloads that came compressed, and were decompressed.
    pub(super) compressed_payloads: u64,
    /// Their bytes as they came.
    pub(super) compressed_bytes: u64,
    /// Their bytes afterwards.
    pub(super) decompressed_bytes: u64,
    /// By position in the table of commands.
    commands: Vec<u64>,
    /// By first appearance: there are a few dozen at most.
    reasons: Vec<(&'static str, u64)>,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            accepted: 0,
            bytes_received: 0,
            backpressure: 0,
            compressed_payloads: 0,
            compressed_bytes: 0,
            decompressed_bytes: 0,
            commands: vec![0; command::TABLE.len()],
            reasons: Vec::new(),
        }
    }

    /// A command of the table, whether it is refused afterwards or not.
    pub(super) fn count_command(&mut self, index: usize) {
        self.commands[index] += 1;
    }

    /// A refused command or an ended connection.
    pub(super) fn count_reason(&mut self, reason: &'static str) {
        match self.reasons.iter_mut().find(|(other, _)| *other == reason) {
            Some((_, count)) => *count += 1,
            None => self.reasons.push((reason, 1)),
        }
    }

    /// Commands of the table.
    pub(super) fn commands_total(&self) -> u64 {
        self.commands.iter().sum()
    }

    /// Refused commands and ended connections.
    pub(super) fn reasons_total(&self) -> u64 {
        self.reasons.iter().map(|(_, count)| count).sum()
    }

    /// For the control thread.
    pub(super) fn figures(&self, connections: usize) -> IngestFigures {
        let commands = command::TABLE.iter().zip(&self.commands);
        IngestFigures {
            connections: connections as u64,
            accepted: self.accepted,
            commands: commands.filter(|(_, count)| **count > 0).map(|(spec, count)| (spec.name, *count)).collect(),
            reasons: self.reasons.clone(),
            bytes_received: self.bytes_received,
            backpressure: self.backpressure,
            compressed_payloads: self.compressed_payloads,
            compressed_bytes: self.compressed_bytes,
            decompressed_bytes: self.decompressed_bytes,
        }
    }
}
