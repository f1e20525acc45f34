//! Pieces of JSON text, appended byte by byte.
//!
//! Owns escaping. A serializer would do the same through a tree of calls for each publication.

/// Appends a string, quoted and escaped (RFC 8259 section 7).
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";

    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(position) = rest.iter().position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\') {
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

/// Appends a number.
pub fn write_integer(out: &mut Vec<u8>, mut number: u64) {
    // 2^64 has 20 digits.
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends a JSON text as it is, but for line feeds: within JSON they can only be white space between tokens.
pub fn write_verbatim(out: &mut Vec<u8>, json: &[u8]) {
    if json.contains(&b'\n') {
        json.split(|byte| *byte == b'\n').for_each(|line| out.extend_from_slice(line));
    } else {
        out.extend_from_slice(json);
    }
}

/// Appends an object's members: commas go between those that are written.
pub struct Members<'a> {
    out: &'a mut Vec<u8>,
    is_first: bool,
}

impl<'a> Members<'a> {
    /// Opens the object.
    pub fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, is_first: true }
    }

    /// Appends a name, which needs no escaping, and lends the buffer for the value.
    pub fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::replace(&mut self.is_first, false) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// The same for a name that a client or producer chose.
    pub fn name_escaped(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::replace(&mut self.is_first, false) {
            self.out.push(b',');
        }
        write_string(self.out, name);
        self.out.push(b':');
        self.out
    }

    /// `true`, or nothing: the protocol omits what is false.
    pub fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.name(name).extend_from_slice(b"true");
        }
    }

    /// A number, or nothing if it is 0.
    pub fn integer(&mut self, name: &str, value: u64) {
        if value != 0 {
            write_integer(self.name(name), value);
        }
    }

    /// A string, or nothing if it is empty.
    pub fn string(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            write_string(self.name(name), value);
        }
    }

    /// Closes the object.
    pub fn end(self) {
        self.out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn strings_are_read_back_as_they_were(text in ".*") {
            let mut out = Vec::new();
            write_string(&mut out, &text);
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
        write_string(&mut out, "a\"b\\c\n\r\t\u{1}\u{1f}ü");
        assert_eq!(out, "\"a\\\"b\\\\c\\n\\r\\t\\u0001\\u001fü\"".as_bytes());
    }

    #[test]
    fn line_feeds_leave_a_payload_and_nothing_else_changes() {
        let mut out = Vec::new();
        write_verbatim(&mut out, b"{\n \"a\": 1,\r\n\t\"b\": \"x\\ny\"\n}");
        assert_eq!(out, b"{ \"a\": 1,\r\t\"b\": \"x\\ny\"}");
    }
}
