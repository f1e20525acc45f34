//! Messages in JSON, appended byte by byte.
//!
//! Owns escaping. A serializer would do the same through a tree of calls for each publication.

use memchr::memchr;

use super::{
    fields::{Field, Fields, Message},
    tags::Tags,
};

/// Appends a string, which is UTF-8, quoted and escaped (RFC 8259 section 7).
fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";

    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text;
    while let Some(position) = special(rest) {
        out.extend_from_slice(&rest[..position]);
        match rest[position] {
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0x0f)]]);
            }
        }
        rest = &rest[position + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Where the first byte is that does not stand for itself in a string: a control character, a quote or a backslash. Eight
/// are looked at together.
#[inline]
fn special(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    const TOPS: u64 = ONES << 7;
    // A byte's top bit where the byte is below `bound` (at most 0x80), and maybe in bytes behind such a one.
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word & TOPS;

    let (words, tail) = text.as_chunks();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = ONES * u64::from(b'"');
        let backslash = ONES * u64::from(b'\\');
        let found = below(word, 0x20) | below(word ^ quote, 1) | below(word ^ backslash, 1);
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let in_tail = tail.iter().position(|byte| matches!(byte, ..0x20 | b'"' | b'\\'))?;
    Some(words.len() * 8 + in_tail)
}

/// Appends a number.
fn write_integer(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a JSON text as it is, but for line feeds: within JSON they can only be white space between tokens.
fn write_verbatim(out: &mut Vec<u8>, json: &[u8]) {
    let mut rest = json;
    while let Some(position) = memchr(b'\n', rest) {
        out.extend_from_slice(&rest[..position]);
        rest = &rest[position + 1..];
    }
    out.extend_from_slice(rest);
}

/// Writes a message as a JSON object.
pub fn write_message(out: &mut Vec<u8>, message: &impl Message) {
    out.push(b'{');
    message.write(&mut JsonFields { out, is_first: true });
    out.push(b'}');
}

/// The members of an object: commas go between those that are written.
struct JsonFields<'a> {
    out: &'a mut Vec<u8>,
    is_first: bool,
}

impl JsonFields<'_> {
    /// Appends a name and lends the buffer for the value.
    #[inline(always)]
    fn name(&mut self, field: Field) -> &mut Vec<u8> {
        // Without the comma if it is the first. Two calls, so that each copies a number of bytes that the compiler knows.
        if std::mem::replace(&mut self.is_first, false) {
            self.out.extend_from_slice(&field.name.as_bytes()[1..]);
        } else {
            self.out.extend_from_slice(field.name.as_bytes());
        }
        self.out
    }
}

impl Fields for JsonFields<'_> {
    #[inline]
    fn flag(&mut self, field: Field, value: bool) {
        if value {
            self.name(field).extend_from_slice(b"true");
        }
    }

    #[inline]
    fn unsigned(&mut self, field: Field, value: u64) {
        if value != 0 || field.is_always_there {
            write_integer(self.name(field), value);
        }
    }

    #[inline]
    fn text(&mut self, field: Field, value: &str) {
        if !value.is_empty() || field.is_always_there {
            write_string(self.name(field), value.as_bytes());
        }
    }

    #[inline]
    fn payload(&mut self, field: Field, value: &[u8]) {
        write_verbatim(self.name(field), value);
    }

    fn quoted_payload(&mut self, field: Field, value: &[u8]) {
        write_string(self.name(field), value);
    }

    fn tags(&mut self, field: Field, tags: &Tags) {
        if tags.is_empty() {
            return;
        }
        let out = self.name(field);
        write_list(out, *b"{}", tags.iter(), |out, (name, value)| {
            write_string(out, name.as_bytes());
            out.push(b':');
            write_string(out, value.as_bytes());
        });
    }

    #[inline]
    fn message(&mut self, field: Field, message: &impl Message) {
        write_message(self.name(field), message);
    }

    fn messages<'a, M: Message + 'a>(&mut self, field: Field, messages: impl ExactSizeIterator<Item = &'a M>) {
        if messages.len() > 0 || field.is_always_there {
            write_list(self.name(field), *b"[]", messages, write_message);
        }
    }

    fn messages_by_name<'a, M: Message + 'a>(
        &mut self,
        field: Field,
        messages: impl ExactSizeIterator<Item = (&'a str, &'a M)>,
    ) {
        if messages.len() > 0 || field.is_always_there {
            write_list(self.name(field), *b"{}", messages, |out, (name, message)| {
                write_string(out, name.as_bytes());
                out.push(b':');
                write_message(out, message);
            });
        }
    }
}

/// Appends items between two brackets, with commas between them.
fn write_list<T>(
    out: &mut Vec<u8>,
    [open, close]: [u8; 2],
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(open);
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(close);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_special_byte_is_found(text in prop::collection::vec(prop_oneof![4 => any::<u8>(), 1 => Just(b'"'), 9 => Just(b'a')], 0..40)) {
            let expected = text.iter().position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\');
            prop_assert_eq!(special(&text), expected);
        }

        #[test]
        fn strings_are_read_back_as_they_were(text in ".*") {
            let mut out = Vec::new();
            write_string(&mut out, text.as_bytes());
            prop_assert!(!out.contains(&b'\n'));
            prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("a JSON string"), text);
        }

        #[test]
        fn numbers_are_written_in_decimal(number: u64) {
            let mut out = Vec::new();
            write_integer(&mut out, number);
            prop_assert_eq!(String::from_utf8(out).expect("digits"), number.to_string());
        }
    }

    #[test]
    fn control_characters_quotes_and_backslashes_are_escaped() {
        let mut out = Vec::new();
        write_string(&mut out, "a\"b\\c\n\r\t\u{1}\u{1f}ü".as_bytes());
        assert_eq!(out, "\"a\\\"b\\\\c\\n\\r\\t\\u0001\\u001fü\"".as_bytes());
    }

    #[test]
    fn line_feeds_leave_a_payload_and_nothing_else_changes() {
        let mut out = Vec::new();
        write_verbatim(&mut out, b"{\n \"a\": 1,\r\n\t\"b\": \"x\\ny\"\n}");
        assert_eq!(out, b"{ \"a\": 1,\r\t\"b\": \"x\\ny\"}");
    }
}
