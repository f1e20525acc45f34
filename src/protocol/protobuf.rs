//! Messages in Protobuf: fields written in place, and read without a copy.
//!
//! Varints, keys and unknown fields are `prost`'s business. Its derived messages would own every string and payload of a
//! command and of a publication; what is here borrows them.

use std::borrow::Cow;

use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, encoded_len_varint, key_len,
    skip_field,
};

use super::{
    command::Malformed,
    fields::{Field, Fields, Message},
    tags::Tags,
};
use crate::limits::COMMAND_DEPTH_MAX;

/// Writes a message behind its length, as streams and frames hold it (protocol.md section 1).
#[inline]
pub fn write_delimited(out: &mut Vec<u8>, message: &impl Message) {
    let bytes = length(message);
    out.reserve(encoded_len_varint(bytes as u64) + bytes);
    encode_varint(bytes as u64, out);
    message.write(&mut ProtobufFields { out });
}

/// Where the pieces of a message go: into a buffer, or, since the length of a message stands before it, into a sum.
trait Sink {
    fn key(&mut self, number: u32, wire_type: WireType);
    fn varint(&mut self, value: u64);
    fn bytes(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    #[inline]
    fn key(&mut self, number: u32, wire_type: WireType) {
        encode_key(number, wire_type, self);
    }

    #[inline]
    fn varint(&mut self, value: u64) {
        encode_varint(value, self);
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts bytes.
struct Length(usize);

impl Sink for Length {
    #[inline]
    fn key(&mut self, number: u32, _wire_type: WireType) {
        self.0 += key_len(number);
    }

    #[inline]
    fn varint(&mut self, value: u64) {
        self.0 += encoded_len_varint(value);
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// How many bytes a message takes.
#[inline]
fn length(message: &impl Message) -> usize {
    let mut length = Length(0);
    message.write(&mut ProtobufFields { out: &mut length });
    length.0
}

struct ProtobufFields<'a, S> {
    out: &'a mut S,
}

impl<S: Sink> ProtobufFields<'_, S> {
    #[inline]
    fn delimited(&mut self, field: Field, bytes: usize) {
        self.out.key(field.number, WireType::LengthDelimited);
        self.out.varint(bytes as u64);
    }

    #[inline]
    fn bytes(&mut self, field: Field, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.delimited(field, bytes.len());
            self.out.bytes(bytes);
        }
    }
}

impl<S: Sink> Fields for ProtobufFields<'_, S> {
    #[inline]
    fn flag(&mut self, field: Field, value: bool) {
        self.unsigned(field, u64::from(value));
    }

    #[inline]
    fn unsigned(&mut self, field: Field, value: u64) {
        if value != 0 {
            self.out.key(field.number, WireType::Varint);
            self.out.varint(value);
        }
    }

    #[inline]
    fn text(&mut self, field: Field, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    #[inline]
    fn payload(&mut self, field: Field, value: &[u8]) {
        self.bytes(field, value);
    }

    #[inline]
    fn quoted_payload(&mut self, field: Field, value: &[u8]) {
        self.bytes(field, value);
    }

    #[inline]
    fn tags(&mut self, _field: Field, tags: &Tags) {
        self.out.bytes(tags.protobuf());
    }

    #[inline]
    fn message(&mut self, field: Field, message: &impl Message) {
        self.delimited(field, length(message));
        message.write(self);
    }

    fn messages<'a, M: Message + 'a>(&mut self, field: Field, messages: impl ExactSizeIterator<Item = &'a M>) {
        messages.for_each(|message| self.message(field, message));
    }

    fn messages_by_name<'a, M: Message + 'a>(
        &mut self,
        field: Field,
        messages: impl ExactSizeIterator<Item = (&'a str, &'a M)>,
    ) {
        messages.for_each(|(name, message)| self.message(field, &Entry { name, message }));
    }
}

/// An entry of a map.
struct Entry<'a, M> {
    name: &'a str,
    message: &'a M,
}

impl<M: Message> Message for Entry<'_, M> {
    fn write(&self, fields: &mut impl Fields) {
        fields.text(super::fields::field!(1, "key"), self.name);
        fields.message(super::fields::field!(2, "value"), self.message);
    }
}

/// A message that is read field by field. Like every reader of Protobuf it takes the last of fields that may come
/// once, and merges messages.
pub trait Merge<'a>: Default {
    /// Takes a field in, or leaves it if it is not known.
    fn merge(&mut self, field: Received<'a>) -> Result<(), Malformed>;
}

/// Takes the length-delimited message at the front of `input`: the bytes that it has.
pub fn take_delimited<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let bytes = decode_varint(input).map_err(|_| Malformed)?;
    let bytes = usize::try_from(bytes).map_err(|_| Malformed)?;
    let (message, rest) = input.split_at_checked(bytes).ok_or(Malformed)?;
    *input = rest;
    Ok(message)
}

/// Reads a message.
pub fn read<'a, M: Merge<'a>>(message: &'a [u8]) -> Result<M, Malformed> {
    let mut read = M::default();
    merge_fields(&mut read, message, COMMAND_DEPTH_MAX)?;
    Ok(read)
}

fn merge_fields<'a>(message: &mut impl Merge<'a>, mut bytes: &'a [u8], depth_left: usize) -> Result<(), Malformed> {
    while !bytes.is_empty() {
        let (number, wire_type) = decode_key(&mut bytes).map_err(|_| Malformed)?;
        let value = match wire_type {
            WireType::Varint => Value::Varint(decode_varint(&mut bytes).map_err(|_| Malformed)?),
            WireType::LengthDelimited => Value::Bytes(take_delimited(&mut bytes)?),
            _ => {
                skip_field(wire_type, number, &mut bytes, DecodeContext::default()).map_err(|_| Malformed)?;
                Value::Other
            }
        };
        message.merge(Received { number, value, depth_left })?;
    }
    Ok(())
}

/// A field that has arrived.
pub struct Received<'a> {
    /// Its number in client.proto.
    pub number: u32,
    value: Value<'a>,
    /// How many messages may still lie within each other in it.
    depth_left: usize,
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Of a type that no field of the protocol has.
    Other,
}

impl<'a> Received<'a> {
    /// A number; those of fewer bits are cut out of it, as the reference does.
    pub fn number(&self) -> Result<u64, Malformed> {
        match self.value {
            Value::Varint(value) => Ok(value),
            _ => Err(Malformed),
        }
    }

    /// A truth.
    pub fn flag(&self) -> Result<bool, Malformed> {
        self.number().map(|number| number != 0)
    }

    /// A string.
    pub fn text(&self) -> Result<Cow<'a, str>, Malformed> {
        str::from_utf8(self.bytes()?).map(Cow::Borrowed).map_err(|_| Malformed)
    }

    /// A payload; an empty one is the same as none.
    pub fn payload(&self) -> Result<Option<&'a [u8]>, Malformed> {
        self.bytes().map(|bytes| (!bytes.is_empty()).then_some(bytes))
    }

    /// A message, into one that may have been there already.
    pub fn message(&self, message: &mut impl Merge<'a>) -> Result<(), Malformed> {
        let depth_left = self.depth_left.checked_sub(1).ok_or(Malformed)?;
        merge_fields(message, self.bytes()?, depth_left)
    }

    /// A message that a list is made of.
    pub fn item<M: Merge<'a>>(&self) -> Result<M, Malformed> {
        let mut message = M::default();
        self.message(&mut message)?;
        Ok(message)
    }

    fn bytes(&self) -> Result<&'a [u8], Malformed> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed),
        }
    }
}
