//! systemd's journal by its native protocol: one datagram per record, of named fields.
//!
//! Written here and not by the crate that exists for it, because that one sends from the thread where the event
//! happens, and a full journal would make a shard wait.

use tracing::Level;

use super::record::{Record, cut};
use crate::limits::LOG_LINE_BYTES_MAX;

/// Where the journal listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// Before the names of our own fields, so that they are none of the journal's.
const FIELD_PREFIX: &str = "TIDEGATE_";

/// Writes a record as the journal takes it: `journalctl TIDEGATE_REASON=token_invalid` finds it.
pub(super) fn write(record: &Record) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(256);
    field(&mut datagram, "PRIORITY", priority(record.level));
    field(&mut datagram, "SYSLOG_IDENTIFIER", "tidegate");
    field(&mut datagram, "TIDEGATE_TARGET", record.target);
    let mut message = record.message.clone();
    for (name, value) in &record.fields {
        // People who read the journal see the message alone.
        message.push_str(&format!(" {name}={}", value.text()));
    }
    field(&mut datagram, "MESSAGE", cut(&message, LOG_LINE_BYTES_MAX / 2));
    for (name, value) in &record.fields {
        let name = format!("{FIELD_PREFIX}{}", name.to_ascii_uppercase().replace('.', "_"));
        if datagram.len() + name.len() + value.text().len() + 10 <= LOG_LINE_BYTES_MAX {
            field(&mut datagram, &name, value.text());
        }
    }
    datagram
}

/// `NAME=value`, or, where the value has line feeds, its length in eight bytes and then it.
fn field(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

/// As syslog(3) counts.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::log::record::Value;

    #[test]
    fn fields_are_named_and_values_with_line_feeds_are_counted() {
        let record = Record {
            at: UNIX_EPOCH,
            level: Level::WARN,
            target: "audit",
            message: "refused".to_owned(),
            fields: vec![("user", Value::Text("a\nPRIORITY=0".into())), ("suppressed", Value::Plain("3".into()))],
        };
        let mut expected = b"PRIORITY=4\nSYSLOG_IDENTIFIER=tidegate\nTIDEGATE_TARGET=audit\nMESSAGE\n".to_vec();
        let message = b"refused user=a\nPRIORITY=0 suppressed=3";
        expected.extend_from_slice(&(message.len() as u64).to_le_bytes());
        expected.extend_from_slice(message);
        expected.extend_from_slice(b"\nTIDEGATE_USER\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\nTIDEGATE_SUPPRESSED=3\n");
        assert_eq!(String::from_utf8_lossy(&write(&record)), String::from_utf8_lossy(&expected));
    }
}
