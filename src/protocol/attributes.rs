//! Attributes: what the application's back end knows of a connection, and may change while it lasts.
//!
//! They begin as `meta` of the token or of the connect hook, a JSON text that no client is told. A change is a merge patch
//! (RFC 7396): members of the patch replace those of the same name, and a `null` takes one away.
//!
//! Invariant: what a change leaves is within the configured limits; otherwise a back end that adds a little with every
//! message would fill the memory of the shards.

use serde_json::{Map, Value};

use crate::config::AttributesConfig;

/// A change of attributes that is within the limits by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributesPatch {
    members: Map<String, Value>,
}

/// Why a change is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttributesError {
    /// It is something else.
    #[error("attributes must be a JSON object")]
    NotAnObject,
    /// Longer than `attributes.size_max`, in JSON without blanks.
    #[error("attributes of {bytes} bytes are too long: attributes.size_max allows {bytes_max}")]
    TooLong {
        /// What they would be.
        bytes: usize,
        /// What they may be.
        bytes_max: u32,
    },
    /// More members than `attributes.keys_max`, on all levels together.
    #[error("attributes have {keys} keys: attributes.keys_max allows {keys_max}")]
    TooManyKeys {
        /// What they would have.
        keys: usize,
        /// What they may have.
        keys_max: u32,
    },
    /// Deeper than `attributes.depth_max`.
    #[error("attributes are nested too deeply: attributes.depth_max allows {depth_max}")]
    TooDeep {
        /// How many levels they may have.
        depth_max: u32,
    },
}

impl AttributesPatch {
    /// Reads a change.
    ///
    /// # Errors
    /// If it is no JSON object, or could never be made.
    pub fn read(json: &[u8], limits: &AttributesConfig) -> Result<Self, AttributesError> {
        let members: Map<String, Value> = serde_json::from_slice(json).map_err(|_| AttributesError::NotAnObject)?;
        let patch = Value::Object(members);
        // What is taken away counts, too: a patch is held in memory while it travels.
        check(&patch, patch.to_string().len(), limits)?;
        let Value::Object(members) = patch else { unreachable!("it was just made") };
        Ok(Self { members })
    }

    /// What attributes are after the change; none: there are none any more. Attributes that are no object are replaced.
    ///
    /// # Errors
    /// If they would be beyond a limit; then they stay as they are.
    pub fn apply(&self, json: Option<&[u8]>, limits: &AttributesConfig) -> Result<Option<Box<[u8]>>, AttributesError> {
        let present = json.and_then(|json| serde_json::from_slice(json).ok());
        let mut attributes: Map<String, Value> = present.unwrap_or_default();
        merge(&mut attributes, &self.members);
        if attributes.is_empty() {
            return Ok(None);
        }
        let attributes = Value::Object(attributes);
        let text = attributes.to_string();
        check(&attributes, text.len(), limits)?;
        Ok(Some(text.into_bytes().into()))
    }
}

/// RFC 7396, section 2.
fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => _ = target.remove(name),
            Value::Object(members) => {
                let nested = target.entry(name).or_insert(Value::Null);
                if !nested.is_object() {
                    *nested = Value::Object(Map::new());
                }
                merge(nested.as_object_mut().expect("it is one now"), members);
            }
            other => _ = target.insert(name.clone(), other.clone()),
        }
    }
}

fn check(attributes: &Value, bytes: usize, limits: &AttributesConfig) -> Result<(), AttributesError> {
    let AttributesConfig { bytes_max, keys_max, depth_max } = *limits;
    if bytes > bytes_max as usize {
        return Err(AttributesError::TooLong { bytes, bytes_max });
    }
    let (keys, depth) = extent(attributes);
    if keys > keys_max as usize {
        return Err(AttributesError::TooManyKeys { keys, keys_max });
    }
    if depth > depth_max as usize { Err(AttributesError::TooDeep { depth_max }) } else { Ok(()) }
}

/// Members of objects on all levels, and the levels of objects and lists. The JSON reader has bounded the recursion.
fn extent(value: &Value) -> (usize, usize) {
    let (own, nested): (usize, Vec<(usize, usize)>) = match value {
        Value::Object(members) => (members.len(), members.values().map(extent).collect()),
        Value::Array(items) => (0, items.iter().map(extent).collect()),
        _ => return (0, 0),
    };
    let keys = nested.iter().map(|(keys, _)| keys).sum::<usize>() + own;
    (keys, nested.iter().map(|(_, depth)| depth).max().copied().unwrap_or_default() + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: AttributesConfig = AttributesConfig { bytes_max: 60, keys_max: 4, depth_max: 2 };

    fn read(json: &str) -> Result<AttributesPatch, AttributesError> {
        AttributesPatch::read(json.as_bytes(), &LIMITS)
    }

    fn changed(present: &str, patch: &str) -> Option<String> {
        let present = (!present.is_empty()).then_some(present.as_bytes());
        let changed = read(patch).expect("a patch").apply(present, &LIMITS).expect("within the limits");
        changed.map(|json| String::from_utf8(json.into()).expect("JSON is UTF-8"))
    }

    #[test]
    fn a_change_replaces_adds_and_takes_away() {
        assert_eq!(changed("", r#"{"a":1}"#).as_deref(), Some(r#"{"a":1}"#));
        assert_eq!(
            changed(r#"{"a":1,"b":[2]}"#, r#"{"b":3,"c":{"d":null,"e":4}}"#).as_deref(),
            Some(r#"{"a":1,"b":3,"c":{"e":4}}"#)
        );
        assert_eq!(changed(r#"{"a":{"b":1,"c":2}}"#, r#"{"a":{"b":null}}"#).as_deref(), Some(r#"{"a":{"c":2}}"#));
        assert_eq!(changed(r#"{"a":1}"#, r#"{"a":null}"#), None);
        assert_eq!(changed(r#"{"a":1}"#, "{}").as_deref(), Some(r#"{"a":1}"#));
        assert_eq!(changed("[1]", r#"{"a":1}"#).as_deref(), Some(r#"{"a":1}"#), "what is no object is replaced");
    }

    #[test]
    fn numbers_that_are_not_changed_stay_what_they_are() {
        let present = r#"{"a":1,"n":2.7777777777777773e+103,"p":0.1}"#;
        assert_eq!(changed(present, r#"{"a":null}"#).as_deref(), Some(r#"{"n":2.7777777777777773e+103,"p":0.1}"#));
    }

    #[test]
    fn patches_have_limits_and_so_has_what_they_leave() {
        for other in ["", "[]", "1", "null", "{", "{} x", "\u{feff}{}"] {
            assert_eq!(read(other), Err(AttributesError::NotAnObject), "{other}");
        }
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(60));
        assert_eq!(read(&long), Err(AttributesError::TooLong { bytes: 68, bytes_max: 60 }));
        let many = r#"{"a":1,"b":2,"c":{"d":4,"e":5}}"#;
        assert_eq!(read(many), Err(AttributesError::TooManyKeys { keys: 5, keys_max: 4 }));
        for deep in [r#"{"a":{"b":{}}}"#, r#"{"a":[[]]}"#] {
            assert_eq!(read(deep), Err(AttributesError::TooDeep { depth_max: 2 }), "{deep}");
        }
        let half = read(&format!(r#"{{"a":"{}"}}"#, "x".repeat(30))).expect("it is short enough by itself");
        let other = format!(r#"{{"b":"{}"}}"#, "y".repeat(30));
        let refused = half.apply(Some(other.as_bytes()), &LIMITS);
        assert_eq!(refused, Err(AttributesError::TooLong { bytes: 75, bytes_max: 60 }));
        let deep = format!("{}{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
        assert_eq!(read(&deep), Err(AttributesError::NotAnObject), "the reader's own limit comes first");
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<i8>().prop_map(Value::from), "[a-z]{0,3}".prop_map(Value::from)];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::btree_map("[abc]", inner.clone(), 0..3)
                    .prop_map(|members| members.into_iter().collect()),
                prop::collection::vec(inner, 0..3).prop_map(Value::from),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_a_change_leaves_is_within_the_limits_and_lasts(present in json(), patches in prop::collection::vec(json(), 1..6)) {
            let mut attributes: Option<Box<[u8]>> = Some(present.to_string().into_bytes().into());
            for patch in patches {
                let Ok(patch) = read(&patch.to_string()) else { continue };
                let Ok(changed) = patch.apply(attributes.as_deref(), &LIMITS) else { continue };
                if let Some(changed) = &changed {
                    let value: Value = serde_json::from_slice(changed).unwrap();
                    prop_assert!(value.is_object() && check(&value, changed.len(), &LIMITS).is_ok());
                }
                prop_assert_eq!(&patch.apply(changed.as_deref(), &LIMITS).unwrap(), &changed, "twice is once");
                attributes = changed;
            }
        }
    }
}
