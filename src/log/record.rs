//! One event, taken apart: what every encoding is made from.

use std::{fmt, time::SystemTime};

use tracing::{
    Event, Level,
    field::{Field, Visit},
};

/// An event of the log.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    /// When it happened.
    pub(super) at: SystemTime,
    pub(super) level: Level,
    /// The module that speaks, or [`AUDIT`](super::AUDIT).
    pub(super) target: &'static str,
    pub(super) message: String,
    /// What it is about, by name, in the order of the call.
    pub(super) fields: Vec<(&'static str, Value)>,
}

/// A field's value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A text.
    Text(String),
    /// A number or a truth value, as JSON writes it.
    Plain(String),
}

impl Record {
    /// Of an event that happens now.
    pub(super) fn of(event: &Event<'_>) -> Self {
        let metadata = event.metadata();
        let mut record = Self {
            at: SystemTime::now(),
            level: *metadata.level(),
            target: metadata.target(),
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut record);
        record
    }

    fn push(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Text(text) | Value::Plain(text)) => self.message = text,
            (name, value) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        // What is not said need not be told: no user, no channel.
        if !value.is_empty() {
            self.push(field, Value::Text(value.to_owned()));
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::Plain(value.to_string()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::Plain(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinities.
        let text = value.to_string();
        self.push(field, if value.is_finite() { Value::Plain(text) } else { Value::Text(text) });
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::Plain(value.to_string()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, Value::Text(format!("{value:?}")));
    }
}

impl Value {
    /// As it is, without quotes.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Plain(text) => text,
        }
    }
}

/// The beginning of a text, of at most so many bytes.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
