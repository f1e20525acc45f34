//! What a producer is answered, and how RESP2 and RESP3 write it.

use std::{borrow::Cow, io::Write};

use bytes::Bytes;

/// A version of the protocol; a connection begins with [`Version::Two`] and changes by `HELLO`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Version {
    /// RESP2.
    #[default]
    Two,
    /// RESP3.
    Three,
}

impl Version {
    /// As `HELLO` names it.
    pub fn number(self) -> i64 {
        match self {
            Self::Two => 2,
            Self::Three => 3,
        }
    }
}

/// A reply, or (an [`Reply::ArrayHead`]) the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`: one line without line ends.
    Simple(&'static str),
    /// `-ERR ...`: the first word says what kind. Line ends become spaces.
    Error(Cow<'static, str>),
    /// A number.
    Integer(i64),
    /// A string of bytes.
    Bulk(Bytes),
    /// Nothing.
    Null,
    /// Replies in order.
    Array(Vec<Reply>),
    /// The head of an array whose elements are the next replies.
    ArrayHead(usize),
    /// Pairs; RESP2 knows no maps and gets keys and values in turn.
    Map(Vec<(Reply, Reply)>),
    /// A text to be shown as it is; RESP2 gets a bulk string.
    Verbatim(String),
}

impl Reply {
    /// The usual answer of a command that has nothing to say.
    pub const OK: Self = Self::Simple("OK");

    /// A string of bytes, copied.
    pub fn bulk(text: impl AsRef<[u8]>) -> Self {
        Self::Bulk(Bytes::copy_from_slice(text.as_ref()))
    }

    /// Appends the reply's bytes.
    pub fn write(&self, version: Version, output: &mut Vec<u8>) {
        match self {
            Self::Simple(text) => write_line(b'+', text.as_bytes(), output),
            Self::Error(text) => {
                output.push(b'-');
                output.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
                output.extend_from_slice(b"\r\n");
            }
            Self::Integer(number) => write_number(b':', *number, output),
            Self::Bulk(bytes) => write_bulk(bytes, output),
            Self::Null => output.extend_from_slice(match version {
                Version::Two => b"$-1\r\n",
                Version::Three => b"_\r\n",
            }),
            Self::Array(replies) => {
                write_length(b'*', replies.len(), output);
                replies.iter().for_each(|reply| reply.write(version, output));
            }
            Self::ArrayHead(length) => write_length(b'*', *length, output),
            Self::Map(pairs) => {
                match version {
                    Version::Two => write_length(b'*', pairs.len() * 2, output),
                    Version::Three => write_length(b'%', pairs.len(), output),
                }
                for (key, value) in pairs {
                    key.write(version, output);
                    value.write(version, output);
                }
            }
            Self::Verbatim(text) => match version {
                Version::Two => write_bulk(text.as_bytes(), output),
                Version::Three => {
                    write_length(b'=', VERBATIM_TEXT.len() + text.len(), output);
                    output.extend_from_slice(VERBATIM_TEXT);
                    write_line_rest(text.as_bytes(), output);
                }
            },
        }
    }
}

/// Says that a verbatim string is plain text.
const VERBATIM_TEXT: &[u8] = b"txt:";

fn write_bulk(bytes: &[u8], output: &mut Vec<u8>) {
    write_length(b'$', bytes.len(), output);
    write_line_rest(bytes, output);
}

fn write_line(kind: u8, text: &[u8], output: &mut Vec<u8>) {
    output.push(kind);
    write_line_rest(text, output);
}

fn write_line_rest(text: &[u8], output: &mut Vec<u8>) {
    output.extend_from_slice(text);
    output.extend_from_slice(b"\r\n");
}

fn write_length(kind: u8, length: usize, output: &mut Vec<u8>) {
    write_number(kind, i64::try_from(length).expect("nothing in memory is longer than 2^63"), output);
}

fn write_number(kind: u8, number: i64, output: &mut Vec<u8>) {
    output.push(kind);
    write!(output, "{number}\r\n").expect("a vector takes everything");
}
