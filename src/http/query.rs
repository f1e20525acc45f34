//! A target's query: parameters by name, as browsers and SDKs encode them (WHATWG URL, application/x-www-form-urlencoded).

use std::borrow::Cow;

/// The first parameter of this name, decoded; none if there is none, or its bytes are no UTF-8.
///
/// `+` is a space; a `%` without two digits stands for itself, as everywhere on the web.
pub fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = pairs.find(|(candidate, _)| *candidate == name)?;
    decode(value)
}

fn decode(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains(['%', '+']) {
        return Some(Cow::Borrowed(value));
    }
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        decoded.push(match (first, after) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest = after;
                digit(*high) << 4 | digit(*low)
            }
            _ => *first,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn digit(byte: u8) -> u8 {
    char::from(byte).to_digit(16).expect("the caller has seen that it is a digit") as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters_are_found_and_decoded() {
        let query = "a=1&cf_connect=%7B%22id%22%3A1%7D&b&a=2&c=x+y%2Bz&d=%zz%4&e=%ff&=empty";
        let value = |name| parameter(query, name);
        assert_eq!(value("a").as_deref(), Some("1"));
        assert_eq!(value("cf_connect").as_deref(), Some(r#"{"id":1}"#));
        assert_eq!(value("b").as_deref(), Some(""));
        assert_eq!(value("c").as_deref(), Some("x y+z"));
        assert_eq!(value("d").as_deref(), Some("%zz%4"));
        assert_eq!((value("e"), value("f")), (None, None));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(text: String, before in "[a-m=&%+]{0,9}") {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let query = format!("{before}&name={encoded}&name=other");
            let value = parameter(&query, "name");
            prop_assert_eq!(value.as_deref(), Some(text.as_str()));
        }
    }
}
