//! Inline commands: a line typed by hand, split into arguments by Redis's quoting rules (`sdssplitargs`).

use std::ops::Range;

/// A quote is not closed, or something other than white space follows a closing one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unbalanced;

/// Splits a line without its end; the arguments are appended to `text`, their places to `arguments`.
pub(super) fn split(line: &[u8], text: &mut Vec<u8>, arguments: &mut Vec<Range<u32>>) -> Result<(), Unbalanced> {
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        // Redis skips vertical tabs between arguments as well.
        while let [0x0b, after @ ..] = rest {
            rest = after.trim_ascii_start();
        }
        if rest.is_empty() {
            return Ok(());
        }
        let start = text.len();
        rest = take_argument(rest, text)?;
        arguments.push(place(start)..place(text.len()));
    }
}

fn place(position: usize) -> u32 {
    u32::try_from(position).expect("a line is shorter than INLINE_COMMAND_BYTES_MAX")
}

/// Appends one argument; what is behind it.
fn take_argument<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        rest = match rest {
            [] | [b' ' | b'\t' | b'\r' | b'\n', ..] => return Ok(rest),
            [b'"', quoted @ ..] => return take_double_quoted(quoted, text),
            [b'\'', quoted @ ..] => return take_single_quoted(quoted, text),
            [byte, after @ ..] => {
                text.push(*byte);
                after
            }
        };
    }
}

fn take_double_quoted<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        rest = match rest {
            [] => return Err(Unbalanced),
            [b'"', after @ ..] => return ends_argument(after),
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                text.push(hex_digit(*high) << 4 | hex_digit(*low));
                after
            }
            [b'\\', escaped, after @ ..] => {
                text.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                after
            }
            [byte, after @ ..] => {
                text.push(*byte);
                after
            }
        };
    }
}

fn take_single_quoted<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        rest = match rest {
            [] => return Err(Unbalanced),
            [b'\'', after @ ..] => return ends_argument(after),
            [b'\\', b'\'', after @ ..] => {
                text.push(b'\'');
                after
            }
            [byte, after @ ..] => {
                text.push(*byte);
                after
            }
        };
    }
}

/// A closing quote is followed by white space or nothing.
fn ends_argument(rest: &[u8]) -> Result<&[u8], Unbalanced> {
    match rest {
        [] | [b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c, ..] => Ok(rest),
        _ => Err(Unbalanced),
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Result<Vec<Vec<u8>>, Unbalanced> {
        let (mut text, mut places) = (Vec::new(), Vec::new());
        split(line.as_bytes(), &mut text, &mut places)?;
        Ok(places.into_iter().map(|place| text[place.start as usize..place.end as usize].to_vec()).collect())
    }

    fn check(line: &str, expected: &[&[u8]]) {
        let expected: Vec<Vec<u8>> = expected.iter().map(|argument| argument.to_vec()).collect();
        assert_eq!(arguments(line), Ok(expected), "{line:?}");
    }

    #[test]
    fn words_are_separated_by_white_space() {
        check("PING", &[b"PING"]);
        check("  SET \t a\x0b\x0c b  ", &[b"SET", b"a\x0b\x0c", b"b"]);
        check("", &[]);
        check(" \x0b \t", &[]);
    }

    #[test]
    fn double_quotes_know_escapes() {
        check(r#"a "b c" """#, &[b"a", b"b c", b""]);
        check(r#""\x41\xfF\n\r\t\b\a\\\"\q""#, &[b"A\xff\n\r\t\x08\x07\\\"q"]);
        check(r#""\xZZ\x4""#, &[b"xZZx4"]);
    }

    #[test]
    fn single_quotes_know_one_escape() {
        check(r#"'{"a":"b c"}'"#, &[br#"{"a":"b c"}"#]);
        check(r"'it\'s \n'", &[br"it's \n"]);
    }

    #[test]
    fn a_quote_may_begin_within_a_word_and_ends_it() {
        check(r#"ab"c d" e"#, &[b"abc d", b"e"]);
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        for line in ["\"", "'", "\"a", "'a", "a \"b\"c", "'a'b", "\"a\\\"", "\"a\"\"b\"", "\"\\"] {
            assert_eq!(arguments(line), Err(Unbalanced), "{line:?}");
        }
    }
}
