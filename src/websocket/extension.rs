//! What a client writes into `Sec-WebSocket-Extensions`: names and parameters (RFC 6455 section 9.1).
//!
//! Owns the syntax of one element of that list, and the list's separators are `http`'s. Leaves to
//! [`deflate::negotiation`](super::deflate::negotiation) what the names mean.
//!
//! Invariant: an [`Extension`] that exists obeys the grammar, quoted values among it: section 9.1 wants them to be tokens
//! once they are unquoted. So whoever compares names and values sees them as they were meant.

use std::borrow::Cow;

/// An extension that is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension<'a> {
    /// A token.
    pub name: &'a str,
    /// In the client's order; the same name may come twice.
    pub parameters: Vec<Parameter<'a>>,
}

/// A parameter of an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// A token.
    pub name: &'a str,
    /// A token, without the quotes that it may have come in.
    pub value: Option<Cow<'a, str>>,
}

/// Reads an element of the list; none: it breaks the grammar.
pub fn parse(element: &str) -> Option<Extension<'_>> {
    // A quoted value that holds a semicolon is no token: cut in two or not, it is refused.
    let mut parts = element.split(';').map(str::trim_ascii);
    let name = parts.next().filter(|name| is_token(name))?;
    let parameters = parts.map(parse_parameter).collect::<Option<_>>()?;
    Some(Extension { name, parameters })
}

fn parse_parameter(parameter: &str) -> Option<Parameter<'_>> {
    let (name, value) = match parameter.split_once('=') {
        Some((name, value)) => (name.trim_ascii_end(), Some(unquote(value.trim_ascii_start())?)),
        None => (parameter, None),
    };
    let is_valid = is_token(name) && value.as_deref().is_none_or(is_token);
    is_valid.then_some(Parameter { name, value })
}

/// A value without its quotes, if it has any (RFC 9110 section 5.6.4).
fn unquote(value: &str) -> Option<Cow<'_, str>> {
    let Some(quoted) = value.strip_prefix('"') else { return Some(Cow::Borrowed(value)) };
    let quoted = quoted.strip_suffix('"')?;
    if !quoted.contains('\\') {
        return Some(Cow::Borrowed(quoted));
    }
    let mut unquoted = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        unquoted.push(if character == '\\' { characters.next()? } else { character });
    }
    Some(Cow::Owned(unquoted))
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extension<'a>(name: &'a str, parameters: &[(&'a str, Option<&'a str>)]) -> Extension<'a> {
        let parameter =
            |&(name, value): &(&'a str, Option<&'a str>)| Parameter { name, value: value.map(Cow::Borrowed) };
        Extension { name, parameters: parameters.iter().map(parameter).collect() }
    }

    #[test]
    fn reads_every_form_of_the_grammar() {
        for (element, expected) in [
            ("x-other", extension("x-other", &[])),
            ("a;b", extension("a", &[("b", None)])),
            ("a; b=1;c", extension("a", &[("b", Some("1")), ("c", None)])),
            ("a \t; b = 1 ; b = \"2\"", extension("a", &[("b", Some("1")), ("b", Some("2"))])),
            (r#"a; b="1\5""#, extension("a", &[("b", Some("15"))])),
            ("!#$%&'*+-.^_`|~09AZaz", extension("!#$%&'*+-.^_`|~09AZaz", &[])),
        ] {
            assert_eq!(parse(element), Some(expected), "{element}");
        }
    }

    #[test]
    fn refuses_what_breaks_the_grammar() {
        for element in [
            "",
            ";a",
            "a;",
            "a;;b",
            "a b",
            "a;b c",
            "a;=1",
            "a;b=",
            "a;b=1 2",
            "a;b==1",
            "a;b=\"",
            "a;b=\"\"",
            "a;b=\"1",
            "a;b=1\"",
            "a;b=\"1\"2",
            r#"a;b="1\""#,
            r#"a;b="1\"2""#,
            "a;b=\"1;2\"",
            "a;b=\"1,2\"",
            "a;b=\"1 \"",
            "a=1",
            "a/b",
            "ä",
            "a;b=ä",
            "a;b='1,2'",
        ] {
            assert_eq!(parse(element), None, "{element}");
        }
    }

    proptest! {
        #[test]
        fn a_value_is_the_same_quoted_escaped_or_bare(value in "[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,9}", escaped: u16) {
            let quoted: String = value
                .char_indices()
                .map(|(index, character)| if escaped >> index & 1 == 1 { format!("\\{character}") } else { character.into() })
                .collect();
            for element in [format!("a;b={value}"), format!("a;b=\"{value}\""), format!("a;b=\"{quoted}\"")] {
                prop_assert_eq!(parse(&element), Some(extension("a", &[("b", Some(&value))])));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(element in ".{0,40}") {
            if let Some(extension) = parse(&element) {
                prop_assert!(is_token(extension.name));
            }
        }
    }
}
