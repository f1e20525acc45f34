//! How a record is written: a line of text for people, a JSON object for programs, or the journal's fields.

use std::time::{SystemTime, UNIX_EPOCH};

use tracing::Level;

use super::{
    journal,
    record::{Record, Value, cut},
};
use crate::limits::LOG_LINE_BYTES_MAX;

/// The form of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// `2026-11-30T22:56:50.123456Z  WARN tidegate::shard: refused reason=bad_origin`
    Text {
        /// With a terminal's colors.
        is_colored: bool,
    },
    /// One object per line.
    Json,
    /// One datagram of systemd's native protocol.
    Journal,
}

impl Encoding {
    /// Writes a record, a text's line feed among it.
    pub(super) fn write(self, record: &Record) -> Vec<u8> {
        match self {
            Self::Text { is_colored } => text(record, is_colored),
            Self::Json => json(record),
            Self::Journal => journal::write(record),
        }
    }
}

fn text(record: &Record, is_colored: bool) -> Vec<u8> {
    let (color, end) = if is_colored { (color(record.level), "\x1b[0m") } else { ("", "") };
    let at = timestamp(record.at);
    let mut line = format!("{at} {color}{:>5}{end} {}: ", record.level.as_str(), record.target);
    escape(&record.message, &mut line);
    for (name, value) in &record.fields {
        line.push(' ');
        line.push_str(name);
        line.push('=');
        let is_bare = value.text().bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'='));
        if is_bare && !value.text().is_empty() {
            line.push_str(value.text());
        } else {
            line.push('"');
            escape(value.text(), &mut line);
            line.push('"');
        }
    }
    ended(line)
}

fn json(record: &Record) -> Vec<u8> {
    let mut line = format!(
        "{{\"time\":\"{}\",\"level\":\"{}\",\"target\":\"{}\",\"message\":{}",
        timestamp(record.at),
        record.level.as_str().to_ascii_lowercase(),
        record.target,
        quoted(&record.message)
    );
    let room = LOG_LINE_BYTES_MAX.saturating_sub(2);
    for (name, value) in &record.fields {
        let value = match value {
            Value::Text(text) => &quoted(text),
            Value::Plain(text) => text,
        };
        // An object that is cut off is none: fields are left out whole.
        if line.len() + name.len() + value.len() + 4 > room {
            continue;
        }
        line.push_str(",\"");
        line.push_str(name);
        line.push_str("\":");
        line.push_str(value);
    }
    line.push_str("}\n");
    line.into_bytes()
}

/// Cut to its bound, where a character begins, and ended by a line feed.
fn ended(mut line: String) -> Vec<u8> {
    line.truncate(cut(&line, LOG_LINE_BYTES_MAX - 1).len());
    line.push('\n');
    line.into_bytes()
}

fn quoted(text: &str) -> String {
    serde_json::to_string(cut(text, LOG_LINE_BYTES_MAX / 8)).expect("a text becomes JSON")
}

/// What would end a line, move a cursor or end a quotation is written as an escape.
fn escape(text: &str, line: &mut String) {
    for character in text.chars() {
        match character {
            '"' => line.push_str("\\\""),
            character if character.is_control() => line.extend(character.escape_default()),
            character => line.push(character),
        }
    }
}

fn color(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// RFC 3339, in UTC, with microseconds.
fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since.subsec_micros())
}

/// The date of a number of days since 1970, by the Gregorian calendar, whose years are counted from March here, so that
/// the leap day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    // Days since 0000-03-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, months have 31, 30, 31, 30, 31 days, over and over: 153 in five.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn record(message: &str, fields: &[(&'static str, Value)]) -> Record {
        Record {
            at: UNIX_EPOCH + Duration::from_micros(1_795_993_010_000_042),
            level: Level::WARN,
            target: "audit",
            message: message.to_owned(),
            fields: fields.to_vec(),
        }
    }

    fn written(encoding: Encoding, record: &Record) -> String {
        String::from_utf8(encoding.write(record)).unwrap()
    }

    #[test]
    fn a_line_of_text_holds_what_is_told() {
        let fields = [("user", Value::Text("42".into())), ("suppressed", Value::Plain("3".into()))];
        let line = written(Encoding::Text { is_colored: false }, &record("refused", &fields));
        assert_eq!(line, "2026-11-29T22:56:50.000042Z  WARN audit: refused user=42 suppressed=3\n");
        let line = written(Encoding::Text { is_colored: true }, &record("refused", &[]));
        assert_eq!(line, "2026-11-29T22:56:50.000042Z \x1b[33m WARN\x1b[0m audit: refused\n");
    }

    #[test]
    fn nobody_writes_lines_in_the_servers_name() {
        let forged = "42\n2026-11-29T22:56:50Z  INFO tidegate: all is well \x1b[2J\"";
        let fields = [("user", Value::Text(forged.into())), ("channel", Value::Text("a b=c".into()))];
        let line = written(Encoding::Text { is_colored: false }, &record(forged, &fields));
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(!line.contains('\x1b'), "{line}");
        assert!(line.ends_with("channel=\"a b=c\"\n"), "{line}");
        let line = written(Encoding::Json, &record(forged, &fields));
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&object["user"], &object["message"]), (&forged.into(), &forged.into()));
    }

    #[test]
    fn json_keeps_numbers_and_names() {
        let fields = [("ms", Value::Plain("12".into())), ("user", Value::Text("Zoë".into()))];
        let object: serde_json::Value =
            serde_json::from_slice(&Encoding::Json.write(&record("stopped", &fields))).unwrap();
        let expected = serde_json::json!({"time": "2026-11-29T22:56:50.000042Z", "level": "warn", "target": "audit",
            "message": "stopped", "ms": 12, "user": "Zoë"});
        assert_eq!(object, expected);
    }

    #[test]
    fn lines_are_bounded_and_whole() {
        let long = "ü".repeat(2 * LOG_LINE_BYTES_MAX);
        let fields = [("user", Value::Text(long.clone())), ("reason", Value::Text("last".into()))];
        for encoding in [Encoding::Text { is_colored: false }, Encoding::Json, Encoding::Journal] {
            let line = encoding.write(&record(&long, &fields));
            assert!(line.len() <= LOG_LINE_BYTES_MAX, "{encoding:?}: {}", line.len());
        }
        let object: serde_json::Value = serde_json::from_slice(&Encoding::Json.write(&record("x", &fields))).unwrap();
        assert_eq!(object["reason"], "last");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (19_782, (2024, 2, 29)),
            (20_453, (2025, 12, 31)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
    }
}
