//! Commands out of JSON text.
//!
//! Unknown members are ignored, and `null` is the same as nothing, as in the reference. An array
//! in the place of an object is a mistake.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;

use super::{Command, Envelope, FilterNode, Headers, Malformed, SubscribeRequest};

/// Reads one JSON object.
pub fn read(line: &[u8]) -> Result<Command<'_>, Malformed> {
    read_object::<Envelope<'_>>(line).map(Command::from)
}

/// Reads one JSON object of any kind.
pub fn read_object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Malformed> {
    serde_json::from_slice::<Object<T>>(json).map(|Object(value)| value).map_err(|_| Malformed)
}

/// A JSON object; derived structures would take an array as well.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// An object, or nothing.
pub(super) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|Object(value)| value))
}

/// A truth or a number.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A payload: the JSON text that stands there, `null` too.
pub(super) fn payload<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a [u8]>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(|value| Some(value.get().as_bytes()))
}

/// A string, borrowed if it has no escapes. (`Option<Cow<str>>` would always be copied.)
pub(super) fn text<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'a, str>, D::Error> {
    Ok(Option::<Text<'a>>::deserialize(deserializer)?.map_or(Cow::Borrowed(""), |Text(text)| text))
}

/// Strings.
pub(super) fn texts<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Cow<'a, str>>, D::Error> {
    let texts = Option::<Vec<Text<'a>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(texts.into_iter().map(|Text(text)| text).collect())
}

/// Filters by tags.
pub(super) fn filters<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<FilterNode<'a>>, D::Error> {
    let filters = Option::<Vec<Object<FilterNode<'a>>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(filters.into_iter().map(|Object(filter)| filter).collect())
}

/// Strings by name.
pub(super) fn texts_by_name<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Headers<'a>, D::Error> {
    let texts = Option::<ByName<'a, Option<Text<'a>>>>::deserialize(deserializer)?;
    let texts = texts.into_iter().flat_map(|ByName(texts)| texts);
    Ok(texts.map(|(name, value)| (name, value.map_or(Cow::Borrowed(""), |Text(text)| text))).collect())
}

/// Requests by channel.
pub(super) fn subscriptions<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(Cow<'a, str>, SubscribeRequest<'a>)>, D::Error> {
    let requests = Option::<ByName<'a, Option<Object<SubscribeRequest<'a>>>>>::deserialize(deserializer)?;
    let requests = requests.into_iter().flat_map(|ByName(requests)| requests);
    Ok(requests.map(|(name, value)| (name, value.map(|Object(request)| request).unwrap_or_default())).collect())
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The members of an object, as a list.
struct ByName<'a, V>(Vec<(Cow<'a, str>, V)>);

impl<'de: 'a, 'a, V: Deserialize<'de> + 'a> Deserialize<'de> for ByName<'a, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ByNameVisitor<'a, V>(PhantomData<&'a V>);

        impl<'de: 'a, 'a, V: Deserialize<'de> + 'a> Visitor<'de> for ByNameVisitor<'a, V> {
            type Value = ByName<'a, V>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some((Text(name), value)) = map.next_entry()? {
                    list.push((name, value));
                }
                Ok(ByName(list))
            }
        }

        deserializer.deserialize_map(ByNameVisitor(PhantomData))
    }
}
