//! What a producer's arguments must be before they travel: channels, payloads, tags, keys.

use std::sync::Arc;

use bytes::Bytes;

use super::refusal::{ChannelFault, Refusal, quote};
use crate::{
    config::{ClientConfig, Namespace, Namespaces, PayloadFormat},
    limits::{CHANNEL_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, VERSION_EPOCH_BYTES_MAX},
    mesh::TraceContext,
    protocol::{NotJson, Payload, Tags},
};

/// The text of a channel's name, and its rules.
pub(super) fn check_channel<'a, 'b>(
    name: &'a [u8],
    namespaces: &'b Namespaces,
) -> Result<(&'a str, &'b Arc<Namespace>), Refusal> {
    let name = channel_text(name)?;
    let namespace = namespaces.of_channel(name).ok_or_else(|| unknown_namespace(name, namespaces))?;
    Ok((name, namespace))
}

/// The text of a channel's name: 1 to 255 bytes of ASCII (protocol.md section 12).
pub(super) fn channel_text(name: &[u8]) -> Result<&str, ChannelFault> {
    if name.is_empty() {
        return Err(ChannelFault::Empty);
    }
    if name.len() > CHANNEL_BYTES_MAX {
        return Err(ChannelFault::TooLong(name.len()));
    }
    match name.iter().position(|byte| !byte.is_ascii()) {
        Some(position) => Err(ChannelFault::NotAscii { byte: name[position], position }),
        None => Ok(str::from_utf8(name).expect("ASCII is UTF-8")),
    }
}

/// The text of a user's id.
pub(super) fn check_user<'a>(user: &'a [u8], client: &ClientConfig) -> Result<&'a str, Refusal> {
    let bytes_max = client.user_bytes_max();
    match str::from_utf8(user) {
        Ok(text) if (1..=bytes_max).contains(&text.len()) => Ok(text),
        _ => Err(Refusal::User { bytes: user.len(), bytes_max }),
    }
}

/// A payload of this format, not too long.
pub(super) fn check_payload(data: Bytes, format: PayloadFormat, bytes_max: usize) -> Result<Payload, Refusal> {
    if data.len() > bytes_max {
        return Err(Refusal::PayloadTooLong { bytes: data.len(), bytes_max });
    }
    Payload::check(data, format).map_err(|NotJson(error)| Refusal::PayloadNotJson(error))
}

/// How a payload may be compressed.
pub(super) fn check_encoding(encoding: Option<&[u8]>) -> Result<(), Refusal> {
    match encoding {
        Some(name) if name.eq_ignore_ascii_case(b"zstd") => Ok(()),
        Some(other) => Err(Refusal::Encoding(quote(other))),
        None => Err(Refusal::OptionWithoutValue("ENCODING")),
    }
}

/// A JSON object of strings.
pub(super) fn check_tags(tags: &[u8]) -> Result<Tags, Refusal> {
    Tags::from_json(tags).map_err(|error| Refusal::Tags(error.to_string()))
}

/// A key that is remembered, as long as it is allowed to be.
pub(super) fn check_idempotency_key(key: Bytes) -> Result<Bytes, Refusal> {
    match key.len() {
        1..=IDEMPOTENCY_KEY_BYTES_MAX => Ok(key),
        bytes => Err(Refusal::IdempotencyKey(bytes)),
    }
}

/// A version's number.
pub(super) fn check_version(number: &[u8]) -> Result<u64, Refusal> {
    let text = str::from_utf8(number).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    text.and_then(|text| text.parse().ok()).filter(|number| *number > 0).ok_or(Refusal::Version)
}

/// What versions' numbers are compared within.
pub(super) fn check_version_epoch(epoch: &[u8]) -> Result<String, Refusal> {
    let text = str::from_utf8(epoch).ok().filter(|text| text.len() <= VERSION_EPOCH_BYTES_MAX);
    text.map(str::to_owned).ok_or(Refusal::VersionEpoch)
}

/// What a producer says of its own trace.
pub(super) fn check_traceparent(text: &[u8]) -> Result<TraceContext, Refusal> {
    TraceContext::parse(text).ok_or_else(|| Refusal::Traceparent(quote(text)))
}

fn unknown_namespace(channel: &str, namespaces: &Namespaces) -> Refusal {
    const NAMES_MAX: usize = 20;
    let mut names: Vec<&str> =
        namespaces.by_name.iter().take(NAMES_MAX).map(|namespace| namespace.name.as_str()).collect();
    if namespaces.by_name.len() > NAMES_MAX {
        names.push("...");
    }
    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let channel = quote(channel.as_bytes());
    match channel.split_once(':') {
        Some((namespace, _)) => {
            let namespace = namespace.strip_prefix('$').unwrap_or(namespace).to_owned();
            Refusal::UnknownNamespace { namespace, channel, known }
        }
        None => Refusal::NoNamespace { channel, known },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, limits::USER_BYTES_MAX};

    fn namespaces(names: &[&str]) -> Namespaces {
        let by_name =
            names.iter().map(|name| Arc::new(Namespace { name: (*name).to_owned(), ..Namespace::default() })).collect();
        Namespaces { without: None, by_name }
    }

    fn refusal(name: &[u8], namespaces: &Namespaces) -> String {
        check_channel(name, namespaces).unwrap_err().to_string()
    }

    #[test]
    fn a_channel_that_cannot_be_is_refused_with_the_reason() {
        let known = namespaces(&["chat", "news"]);
        assert_eq!(check_channel(b"news:eu", &known).unwrap().0, "news:eu");
        assert_eq!(check_channel(b"$news:eu", &known).unwrap().1.name, "news");
        assert_eq!(refusal(b"", &known), "ERR channel is empty");
        let long = [b'a'; CHANNEL_BYTES_MAX + 1];
        assert_eq!(refusal(&long, &known), "ERR channel is too long: 256 bytes, at most 255 are allowed");
        assert_eq!(refusal(b"a\xff", &known), "ERR channel must be ASCII text: byte 0xff at position 1 is not");
        assert_eq!(refusal(b"x:y", &known), "ERR unknown namespace 'x' in channel 'x:y'; known: chat, news");
        assert_eq!(refusal(b"$x:y", &known), "ERR unknown namespace 'x' in channel '$x:y'; known: chat, news");
        assert_eq!(refusal(b"x:y", &namespaces(&[])), "ERR unknown namespace 'x' in channel 'x:y'; known: none");
        assert!(refusal(b"plain", &known).starts_with("ERR channel 'plain' names no namespace"));
        let many: Vec<String> = (10..50).map(|number| number.to_string()).collect();
        let many = namespaces(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(refusal(b"x:y", &many).ends_with(", 28, 29, ..."));
    }

    #[test]
    fn a_payload_that_is_no_json_is_refused_with_the_reason() {
        let wrong = check_payload(Bytes::from_static(b"[1,\n x]"), PayloadFormat::Json, 100);
        let expected = "ERR payload is not valid JSON: expected value at line 2 column 2";
        assert!(wrong.unwrap_err().to_string().starts_with(expected));
        assert!(!check_payload(Bytes::from_static(b"[1,\n x]"), PayloadFormat::Binary, 100).unwrap().is_json);
    }

    #[test]
    fn a_payload_has_a_limit() {
        let long = Bytes::from(vec![b'1'; 101]);
        let refusal = check_payload(long, PayloadFormat::Json, 100).unwrap_err();
        assert_eq!(refusal.to_string(), "ERR payload of 101 bytes is too long: ingest.payload_size_max allows 100");
    }

    #[test]
    fn tags_are_strings_by_name() {
        assert_eq!(check_tags(b"{\"a\":\n\"b\"}").unwrap().get("a"), Some("b"));
        for wrong in ["", "[]", "{\"a\":1}", "\"a\"", "{\"a\":\"b\"} x"] {
            assert!(check_tags(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn users_and_keys_have_limits() {
        let mut client = Config::default().client;
        assert_eq!(check_user("é:1".as_bytes(), &client).unwrap(), "é:1");
        assert!(check_user(b"", &client).is_err() && check_user(b"\xff", &client).is_err());
        assert!(check_user(&[b'a'; USER_BYTES_MAX], &client).is_ok());
        assert!(check_user(&[b'a'; USER_BYTES_MAX + 1], &client).is_err());
        client.personal_channel_namespace = Some("ns".to_owned());
        let refusal = check_user(&[b'a'; USER_BYTES_MAX], &client).unwrap_err();
        assert_eq!(refusal.to_string(), "ERR user id must have 1 to 251 bytes of UTF-8 text; these are 254");
        assert!(check_idempotency_key(Bytes::new()).is_err());
        assert!(check_idempotency_key(Bytes::from(vec![0; IDEMPOTENCY_KEY_BYTES_MAX + 1])).is_err());
    }
}
