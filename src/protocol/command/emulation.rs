//! What a request to `/emulation` carries (protocol.md sections 3 and 17).

use std::borrow::Cow;

use serde::Deserialize;

use super::{Encoding, Malformed, json};
use crate::protocol::protobuf::{self, Merge, Received};

/// Commands for a session that another connection belongs to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EmulationRequest<'a> {
    /// The process that has the session.
    pub node: Cow<'a, str>,
    /// The session's secret.
    pub session: Cow<'a, str>,
    /// Commands, as in a message of the session's own encoding.
    pub data: Cow<'a, [u8]>,
}

impl<'a> EmulationRequest<'a> {
    /// Reads a request's body.
    ///
    /// # Errors
    /// When it is no such request. Members that are missing are empty.
    pub fn read(encoding: Encoding, body: &'a [u8]) -> Result<Self, Malformed> {
        match encoding {
            Encoding::Json => json::read_object::<Text<'_>>(body).map(|Text { node, session, data }| Self {
                node,
                session,
                data: match data {
                    Cow::Borrowed(data) => Cow::Borrowed(data.as_bytes()),
                    Cow::Owned(data) => Cow::Owned(data.into_bytes()),
                },
            }),
            Encoding::Protobuf => protobuf::read(body),
        }
    }
}

/// The request in JSON, where commands are a text within the text.
#[derive(Deserialize)]
struct Text<'a> {
    #[serde(borrow, default, deserialize_with = "json::text")]
    node: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "json::text")]
    session: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "json::text")]
    data: Cow<'a, str>,
}

impl<'a> Merge<'a> for EmulationRequest<'a> {
    fn merge(&mut self, field: Received<'a>) -> Result<(), Malformed> {
        match field.number {
            1 => self.node = field.text()?,
            2 => self.session = field.text()?,
            3 => self.data = Cow::Borrowed(field.payload()?.unwrap_or_default()),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As others write it; `data` is text in JSON.
    #[derive(Clone, PartialEq, prost::Message, serde::Serialize)]
    struct Reference {
        #[prost(string, tag = "1")]
        node: String,
        #[prost(string, tag = "2")]
        session: String,
        #[prost(string, tag = "3")]
        data: String,
    }

    proptest! {
        #[test]
        fn a_request_is_read_as_others_write_it(session: String, node: String, data: String) {
            let reference = Reference { node, session, data };
            for encoding in [Encoding::Json, Encoding::Protobuf] {
                let body = match encoding {
                    Encoding::Json => serde_json::to_vec(&reference).unwrap(),
                    Encoding::Protobuf => prost::Message::encode_to_vec(&reference),
                };
                let request = EmulationRequest::read(encoding, &body).unwrap();
                prop_assert_eq!(&*request.session, &reference.session);
                prop_assert_eq!(&*request.node, &reference.node);
                prop_assert_eq!(&*request.data, reference.data.as_bytes());
            }
        }

        #[test]
        fn any_body_is_read_or_refused(body: Vec<u8>, text in "[{}\\[\\]\",:a-z0-9\\\\]{0,40}") {
            for encoding in [Encoding::Json, Encoding::Protobuf] {
                let _ = EmulationRequest::read(encoding, &body);
                let _ = EmulationRequest::read(encoding, text.as_bytes());
            }
        }
    }

    #[test]
    fn both_encodings_say_the_same() {
        let json = br#"{"session":"s","node":"n","data":"{\"id\":1}\n{}","more":1}"#;
        let request = EmulationRequest::read(Encoding::Json, json).unwrap();
        assert_eq!((&*request.session, &*request.node, &*request.data), ("s", "n", b"{\"id\":1}\n{}".as_slice()));
        let protobuf = b"\x0a\x01n\x12\x01s\x1a\x0b{\"id\":1}\n{}";
        assert_eq!(EmulationRequest::read(Encoding::Protobuf, protobuf).unwrap(), request);
        assert_eq!(EmulationRequest::read(Encoding::Json, b"{}").unwrap(), EmulationRequest::default());
        assert_eq!(EmulationRequest::read(Encoding::Protobuf, b"").unwrap(), EmulationRequest::default());
    }

    #[test]
    fn what_is_no_request_is_told_from_one() {
        for body in ["", "[]", "1", "{", r#"{"session":1}"#, r#"{"data":{}}"#, r#"{} {}"#] {
            assert_eq!(EmulationRequest::read(Encoding::Json, body.as_bytes()), Err(Malformed), "{body}");
        }
        for body in [&b"\x0a"[..], b"\x0a\x05n", b"\x08\x01", b"\x0a\x01\xff"] {
            assert_eq!(EmulationRequest::read(Encoding::Protobuf, body), Err(Malformed), "{}", body.escape_ascii());
        }
    }
}
