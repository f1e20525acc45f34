//! What a publication's payload must be before it travels.

use std::borrow::Cow;

use bytes::Bytes;
use serde::de::IgnoredAny;

use crate::config::PayloadFormat;

/// A payload that may travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Its bytes.
    pub data: Bytes,
    /// Whether it is a JSON text without line feeds, so that JSON clients can be sent it as it is.
    pub is_json: bool,
}

/// A payload that should be a JSON text and is none. The text says where it goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotJson(pub Cow<'static, str>);

impl Payload {
    /// A payload of this format. JSON loses its line feeds: they cannot stand within its strings, and
    /// clients' framing separates messages by them.
    pub fn check(data: Bytes, format: PayloadFormat) -> Result<Self, NotJson> {
        match (check_json(&data), format) {
            (Ok(()), PayloadFormat::Json) => Ok(Self { data: without_line_feeds(data), is_json: true }),
            (Err(error), PayloadFormat::Json) => Err(error),
            // Bytes are passed on as they are; those that would need a change count as bytes.
            (result, PayloadFormat::Binary) => {
                let is_json = result.is_ok() && !data.contains(&b'\n');
                Ok(Self { data, is_json })
            }
        }
    }
}

fn check_json(data: &[u8]) -> Result<(), NotJson> {
    // serde_json passes over ignored strings without a look at their bytes.
    let text = str::from_utf8(data)
        .map_err(|error| NotJson(format!("invalid UTF-8 at byte {}", error.valid_up_to() + 1).into()))?;
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(IgnoredAny) => Ok(()),
        Err(error) => Err(NotJson(error.to_string().into())),
    }
}

fn without_line_feeds(data: Bytes) -> Bytes {
    if !data.contains(&b'\n') {
        return data;
    }
    data.iter().copied().filter(|byte| *byte != b'\n').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(data: &'static str) -> Result<Payload, NotJson> {
        Payload::check(Bytes::from_static(data.as_bytes()), PayloadFormat::Json)
    }

    fn binary(data: &'static [u8]) -> Payload {
        Payload::check(Bytes::from_static(data), PayloadFormat::Binary).expect("any bytes will do")
    }

    #[test]
    fn json_is_checked_whole_and_loses_its_line_feeds() {
        assert_eq!(json("{\"a\": [1,\n 2]}\n").expect("JSON").data, "{\"a\": [1, 2]}");
        assert!(json("1").expect("JSON").is_json);
        for wrong in ["", "hello", "{} {}", "{\"a\":}", "\"line\nfeed\"", "[1", "'a'", "01", "\u{feff}1"] {
            assert!(json(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(json("[1,\n x]").expect_err("no JSON").to_string(), "expected value at line 2 column 2");
        let invalid = Payload::check(Bytes::from_static(b"\"\xff\""), PayloadFormat::Json);
        assert_eq!(invalid.expect_err("no text").to_string(), "invalid UTF-8 at byte 2");
    }

    #[test]
    fn bytes_stay_as_they_are() {
        assert_eq!(binary(b"\xff\x00\n"), Payload { data: Bytes::from_static(b"\xff\x00\n"), is_json: false });
        assert_eq!(binary(b"{\"a\":1}"), Payload { data: Bytes::from_static(b"{\"a\":1}"), is_json: true });
        assert_eq!(binary(b"[\n1]"), Payload { data: Bytes::from_static(b"[\n1]"), is_json: false });
    }

    #[test]
    fn deep_nesting_is_no_danger() {
        let deep = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));
        assert!(Payload::check(deep.into(), PayloadFormat::Json).expect("JSON").is_json);
    }
}
