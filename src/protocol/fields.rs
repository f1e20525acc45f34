//! Messages as lists of fields: what the encodings have in common.
//!
//! Each message says once, in [`Message::write`], which fields it has; [`Fields`] is implemented once for each encoding.
//! So the encodings cannot disagree on what a message says.

use super::tags::Tags;

/// A field: what Protobuf and what JSON know it by. Made by [`field!`].
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its number in client.proto.
    pub number: u32,
    /// Its name as it stands between two members: `,"name":`.
    pub name: &'static str,
    /// JSON has it even if it is empty (protocol.md section 4). Protobuf never does.
    pub is_always_there: bool,
}

/// A [`Field`] of that number and name; `always` is for those that JSON never omits.
macro_rules! field {
    ($number:literal, $name:literal) => {
        $crate::protocol::fields::Field { number: $number, name: concat!(",\"", $name, "\":"), is_always_there: false }
    };
    ($number:literal, $name:literal, always) => {
        $crate::protocol::fields::Field { number: $number, name: concat!(",\"", $name, "\":"), is_always_there: true }
    };
}
pub(super) use field;

/// What can be told to a client.
pub trait Message {
    /// Writes its fields, in the order of the reference.
    fn write(&self, fields: &mut impl Fields);
}

/// Where fields are written. What is false, 0 or empty is omitted, unless a method says otherwise.
pub trait Fields {
    /// A truth.
    fn flag(&mut self, field: Field, value: bool);
    /// A number.
    fn unsigned(&mut self, field: Field, value: u64);
    /// A string.
    fn text(&mut self, field: Field, value: &str);
    /// A payload: in JSON a JSON text, which stands there as it is; in Protobuf any bytes.
    fn payload(&mut self, field: Field, value: &[u8]);
    /// A payload that is a string in JSON: UTF-8, quoted. In Protobuf it is what it is.
    fn quoted_payload(&mut self, field: Field, value: &[u8]);
    /// A publication's tags.
    fn tags(&mut self, field: Field, tags: &Tags);
    /// A message; never omitted.
    fn message(&mut self, field: Field, message: &impl Message);
    /// A list of messages.
    fn messages<'a, M: Message + 'a>(&mut self, field: Field, messages: impl ExactSizeIterator<Item = &'a M>);
    /// Messages by name.
    fn messages_by_name<'a, M: Message + 'a>(
        &mut self,
        field: Field,
        messages: impl ExactSizeIterator<Item = (&'a str, &'a M)>,
    );
}
