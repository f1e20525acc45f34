//! A configuration as it was written: values and their places, not yet understood.
//!
//! Owns the reading of TOML (the file) and of TOML or JSON (lists in the environment) into one
//! tree. What a key means is the schema's business.
//! Invariant: every value knows the place at which it was written, so that every message can name it.

use std::{path::Path, sync::Arc};

use toml::de::{DeTable, DeValue};

use super::problem::{Mistake, Place, Problem};

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Raw {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A value, not yet understood.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Boolean(bool),
    Integer(i64),
    Text(String),
    List(Vec<Raw>),
    Table(Vec<Entry>),
    /// What no key takes: floats, dates, null, integers beyond 64 bits; as it was written.
    Other(String),
}

/// One key of a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Where the key itself stands; the value's place is the value's.
    pub(super) place: Place,
    pub(super) raw: Raw,
}

impl Value {
    /// What was found, for a message.
    pub(super) fn describe(&self) -> String {
        /// Longer texts are cut, so that a pasted key file does not fill the terminal.
        const SHOWN_CHARACTERS_MAX: usize = 60;
        match self {
            Value::Boolean(value) => value.to_string(),
            Value::Integer(value) => value.to_string(),
            Value::Text(text) if text.chars().count() > SHOWN_CHARACTERS_MAX => {
                let shown: String = text.chars().take(SHOWN_CHARACTERS_MAX).collect();
                format!("{shown:?}...")
            }
            Value::Text(text) => format!("{text:?}"),
            Value::Other(text) => text.clone(),
            Value::List(_) | Value::Table(_) => self.describe_type().to_owned(),
        }
    }

    /// What sort of value was found: for secrets, whose text no message shows.
    pub(super) fn describe_type(&self) -> &'static str {
        match self {
            Value::Boolean(_) => "a boolean",
            Value::Integer(_) => "a number",
            Value::Text(text) if text.is_empty() => "an empty string",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(_) => "another type of value",
        }
    }
}

/// Reads a TOML document. What could be read is returned beside the mistakes.
pub(super) fn read_document(file: &Path, text: &str) -> (Vec<Entry>, Vec<Problem>) {
    let file: Arc<Path> = Arc::from(file);
    let place_of = |offset: usize| {
        let before = text_before(text, offset);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::File {
            file: Arc::clone(&file),
            line: 1 + before.matches('\n').count(),
            column: 1 + before[line_start..].chars().count(),
        }
    };
    let (table, mut errors) = DeTable::parse_recoverable(text);
    let offset_of = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
    let line_of = |error: &toml::de::Error| text.as_bytes()[..offset_of(error)].split(|byte| *byte == b'\n').count();
    errors.sort_by_key(offset_of);
    // The parser's second complaint about a line is about its own recovery from the first.
    errors.dedup_by_key(|error| line_of(error));
    let problems = errors
        .iter()
        .map(|error| Problem {
            place: place_of(offset_of(error)),
            key: key_before(text, offset_of(error)),
            mistake: syntax_mistake(text, error),
        })
        .collect();
    (read_table(table.get_ref(), &place_of), problems)
}

/// Reads a list from the environment, written in JSON or in TOML.
///
/// Errors with what each of the two parsers says.
pub(super) fn read_list(variable: &str, text: &str) -> Result<Raw, String> {
    let place = Place::Environment { variable: variable.to_owned() };
    let json_error = match serde_json::from_str(text) {
        Ok(value) => return Ok(read_json(&value, &place)),
        Err(error) => error,
    };
    let document = format!("list = {text}");
    match DeTable::parse(&document) {
        Ok(table) => {
            let mut entries = read_table(table.get_ref(), &|_| place.clone());
            match (entries.pop(), entries.is_empty()) {
                (Some(entry), true) => Ok(entry.raw),
                _ => Err("text after its end".to_owned()),
            }
        }
        Err(toml_error) => Err(format!("as TOML: {}; as JSON: {json_error}", toml_error.message())),
    }
}

/// The text before a byte. An offset within a character, which no parser gives, names the end.
fn text_before(text: &str, offset: usize) -> &str {
    text.get(..offset).unwrap_or(text)
}

/// The key of a setting that is not valid TOML: what stands before the `=` of its line; "" without one.
fn key_before(text: &str, offset: usize) -> String {
    let line = text_before(text, offset).rsplit('\n').next().unwrap_or_default();
    let key = line.split_once('=').map_or("", |(key, _)| key.trim());
    let is_key = key.chars().all(|character| character.is_ascii_alphanumeric() || "-_.".contains(character));
    if is_key { key.to_owned() } else { String::new() }
}

fn syntax_mistake(text: &str, error: &toml::de::Error) -> Mistake {
    let is_unquoted = error.message().starts_with("string values must be quoted");
    match error.span().and_then(|span| text.get(span)) {
        Some(found) if is_unquoted && !found.is_empty() => Mistake::Syntax(format!(
            "expected a value in quotes, a number, true or false, found {:?} without quotes",
            found.trim_end()
        )),
        Some("") if is_unquoted => Mistake::Syntax("expected a value, found none".to_owned()),
        _ => Mistake::Syntax(error.message().to_owned()),
    }
}

fn read_table(table: &DeTable<'_>, place_of: &dyn Fn(usize) -> Place) -> Vec<Entry> {
    table
        .iter()
        .map(|(name, value)| Entry {
            name: name.get_ref().to_string(),
            place: place_of(name.span().start),
            raw: Raw { place: place_of(value.span().start), value: read_value(value.get_ref(), place_of) },
        })
        .collect()
}

fn read_value(value: &DeValue<'_>, place_of: &dyn Fn(usize) -> Place) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(value) => Value::Integer(value),
            Err(_) => Value::Other(integer.to_string()),
        },
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Float(float) => Value::Other(float.to_string()),
        DeValue::Datetime(datetime) => Value::Other(datetime.to_string()),
        DeValue::Array(array) => Value::List(
            array
                .iter()
                .map(|item| Raw { place: place_of(item.span().start), value: read_value(item.get_ref(), place_of) })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(read_table(table, place_of)),
    }
}

fn read_json(value: &serde_json::Value, place: &Place) -> Raw {
    let value = match value {
        serde_json::Value::Bool(value) => Value::Boolean(*value),
        serde_json::Value::Number(number) => {
            number.as_i64().map_or_else(|| Value::Other(number.to_string()), Value::Integer)
        }
        serde_json::Value::String(text) => Value::Text(text.clone()),
        serde_json::Value::Array(items) => Value::List(items.iter().map(|item| read_json(item, place)).collect()),
        serde_json::Value::Object(fields) => Value::Table(
            fields
                .iter()
                .map(|(name, value)| Entry { name: name.clone(), place: place.clone(), raw: read_json(value, place) })
                .collect(),
        ),
        serde_json::Value::Null => Value::Other("null".to_owned()),
    };
    Raw { place: place.clone(), value }
}
