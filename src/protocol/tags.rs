//! Tags of a publication: strings by name.
//!
//! Kept in one piece of memory, as Protobuf writes them, because a publication's tags are looked at by every filter
//! and written by every form while they are parsed once.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use prost::encoding::{WireType, decode_varint, encode_key, encode_varint};

/// Number of the field `tags` in a publication (protocol.md section 3).
const NUMBER: u32 = 7;

/// Bytes of a key: a field's number, below 16, and its type.
const KEY_BYTES: usize = 1;

/// Strings by name. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Tags {
    /// An entry of the map after the other, each with the key of [`NUMBER`].
    entries: Bytes,
}

impl Tags {
    /// Tags out of a JSON object of strings; of two with the same name the last counts.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice::<BTreeMap<String, String>>(json)
            .map(|tags| tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect())
    }

    /// Names with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &self.entries[..];
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let mut entry = take_field(&mut rest);
            Some((text(take_field(&mut entry)), text(take_field(&mut entry))))
        })
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(candidate, _)| *candidate == name).map(|(_, value)| value)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bytes they take.
    pub fn bytes(&self) -> usize {
        self.entries.len()
    }

    /// The entries as a Protobuf publication holds them, their keys included.
    pub(super) fn protobuf(&self) -> &[u8] {
        &self.entries
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Tags {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(tags: I) -> Self {
        let mut entries = Vec::new();
        let mut entry = Vec::new();
        for (name, value) in tags {
            entry.clear();
            put_field(&mut entry, 1, name.as_bytes());
            put_field(&mut entry, 2, value.as_bytes());
            put_field(&mut entries, NUMBER, &entry);
        }
        Self { entries: entries.into() }
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

fn put_field(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// The value of the field at the front, which `put_field` has written.
fn take_field<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    *rest = &rest[KEY_BYTES..];
    let bytes = decode_varint(rest).expect("lengths are written whole");
    let (value, behind) = rest.split_at(bytes as usize);
    *rest = behind;
    value
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("tags are made of strings")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tags_are_found_as_they_were_given(given: BTreeMap<String, String>) {
            let tags: Tags = given.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            prop_assert_eq!(tags.is_empty(), given.is_empty());
            prop_assert!(given.iter().all(|(name, value)| tags.get(name) == Some(value)));
            prop_assert!(tags.iter().eq(given.iter().map(|(name, value)| (name.as_str(), value.as_str()))));
            let json = serde_json::to_vec(&given).expect("strings");
            prop_assert_eq!(Tags::from_json(&json).expect("an object of strings"), tags);
        }
    }

    #[test]
    fn only_objects_of_strings_are_tags() {
        assert_eq!(Tags::from_json(b"{\"a\":\n\"b\", \"a\":\"c\"}").expect("strings").get("a"), Some("c"));
        assert!(Tags::from_json(b"{}").expect("strings").is_empty());
        for wrong in ["", "{", "[]", "{\"a\":1}", "{\"a\":null}", "null"] {
            assert!(Tags::from_json(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
