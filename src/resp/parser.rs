//! Commands out of bytes, as they arrive.

use std::{mem, ops::Range};

use bytes::{Buf, Bytes, BytesMut};

use super::{Command, Violation, inline};
use crate::limits::{COMMAND_ARGUMENTS_MAX, COMMAND_BYTES_MAX, COMMAND_OVERHEAD_BYTES_MAX, INLINE_COMMAND_BYTES_MAX};

/// What a command may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Arguments, the name among them.
    pub arguments_max: usize,
    /// Bytes of one argument.
    pub bulk_bytes_max: usize,
    /// Bytes of a whole command, its framing among them; less than 4 GiB.
    pub command_bytes_max: usize,
    /// Bytes of a line: an inline command, a count, a length.
    pub line_bytes_max: usize,
    /// Whether a refusal says that authentication would have helped, as Redis does.
    pub is_unauthenticated: bool,
}

impl Limits {
    /// For a producer that may publish payloads of this many bytes. An argument may have twice as
    /// many: a payload a little too long is read, so that it can be refused with words and the
    /// connection goes on; beyond that it is cheaper to close.
    pub fn new(payload_bytes_max: usize) -> Self {
        let bulk_bytes_max = (2 * payload_bytes_max).max(INLINE_COMMAND_BYTES_MAX);
        Self {
            arguments_max: COMMAND_ARGUMENTS_MAX,
            bulk_bytes_max,
            command_bytes_max: COMMAND_BYTES_MAX.min(bulk_bytes_max + COMMAND_OVERHEAD_BYTES_MAX),
            line_bytes_max: INLINE_COMMAND_BYTES_MAX,
            is_unauthenticated: false,
        }
    }

    /// For a producer that must give its password first; the numbers are those of Redis.
    pub fn before_authentication() -> Self {
        Self { arguments_max: 10, bulk_bytes_max: 16 * 1024, is_unauthenticated: true, ..Self::new(0) }
    }
}

/// What a look at the received bytes has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// The first `bytes` are a complete command; [`Parser::arguments`] says where its arguments are.
    Command {
        /// Its length.
        bytes: usize,
    },
    /// The first `bytes` say nothing (an empty line, an empty array).
    Nothing {
        /// Their length.
        bytes: usize,
    },
    /// The command is not complete.
    Partial {
        /// It has at least this many bytes; more than are there.
        bytes_min: usize,
    },
}

/// Reads one connection's commands. Between calls it remembers how far it has looked.
#[derive(Debug, Default)]
pub struct Parser {
    /// Bytes of the command that have been understood.
    position: usize,
    /// Bytes behind `position` in which there is no line end.
    searched: usize,
    /// Bytes that the command has at least.
    bytes_min: usize,
    /// Arguments still to come; none: the command's first line is to come.
    arguments_left: Option<usize>,
    /// Length of the argument at `position`; none: its length is to come.
    bulk_bytes: Option<usize>,
    /// Where arguments are: in the input, or in `line` if there is one.
    arguments: Vec<Range<u32>>,
    /// An inline command's arguments, unquoted.
    line: Option<Vec<u8>>,
}

impl Parser {
    /// At the beginning of a command.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next complete command out of `input`; none: more bytes are needed.
    ///
    /// # Errors
    /// A violation ends the connection; `input` and the parser are not to be used again.
    pub fn take(&mut self, input: &mut BytesMut, limits: &Limits) -> Result<Option<Command>, Violation> {
        loop {
            match self.parse(input, limits)? {
                Parsed::Partial { .. } => return Ok(None),
                Parsed::Nothing { bytes } => input.advance(bytes),
                Parsed::Command { bytes } => {
                    let received = input.split_to(bytes).freeze();
                    let arguments = mem::take(&mut self.arguments);
                    return Ok(Some(Command::new(self.line.take().map_or(received, Bytes::from), arguments)));
                }
            }
        }
    }

    /// Looks at `input`, which begins with the command that the last call left incomplete, if it did.
    ///
    /// # Errors
    /// A violation ends the connection; the parser is not to be used again.
    pub fn parse(&mut self, input: &[u8], limits: &Limits) -> Result<Parsed, Violation> {
        assert!(limits.command_bytes_max < u32::MAX as usize, "places of arguments are 32 bits wide");
        if self.position == 0 && self.searched == 0 {
            self.arguments.clear();
            self.line = None;
        }
        let parsed = match (self.arguments_left, input.first()) {
            (Some(_), _) => self.parse_arguments(input, limits)?,
            (None, None) => Parsed::Partial { bytes_min: 1 },
            (None, Some(b'*')) => self.parse_count(input, limits)?,
            (None, Some(_)) => self.parse_inline(input, limits)?,
        };
        match parsed {
            Parsed::Partial { bytes_min } => self.bytes_min = bytes_min,
            Parsed::Command { .. } | Parsed::Nothing { .. } => {
                self.position = 0;
                self.searched = 0;
                self.bytes_min = 0;
                self.arguments_left = None;
            }
        }
        Ok(parsed)
    }

    /// Where the arguments of the command are that [`Parser::parse`] has found; for an inline
    /// command, whose quotes are undone, in the text that goes with them.
    pub fn arguments(&self) -> (Option<&[u8]>, &[Range<u32>]) {
        (self.line.as_deref(), &self.arguments)
    }

    /// Bytes that the incomplete command has at least: [`Parsed::Partial`], after [`Parser::take`] has found none.
    pub fn bytes_min(&self) -> usize {
        self.bytes_min
    }

    fn parse_inline(&mut self, input: &[u8], limits: &Limits) -> Result<Parsed, Violation> {
        let Some(end) =
            self.find(b'\n', input, limits.line_bytes_max).map_err(|LineTooLong| Violation::InlineTooBig)?
        else {
            return Ok(self.partial(input));
        };
        let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
        let mut text = Vec::with_capacity(line.len());
        inline::split(line, &mut text, &mut self.arguments)
            .map_err(|inline::Unbalanced| Violation::UnbalancedQuotes)?;
        let bytes = end + 1;
        if self.arguments.is_empty() {
            return Ok(Parsed::Nothing { bytes });
        }
        if self.arguments.len() > limits.arguments_max {
            return Err(too_many_arguments(limits));
        }
        self.line = Some(text);
        Ok(Parsed::Command { bytes })
    }

    fn parse_count(&mut self, input: &[u8], limits: &Limits) -> Result<Parsed, Violation> {
        let Some(count) = self.number(input, limits, Violation::CountTooBig, Violation::InvalidCount)? else {
            return Ok(self.partial(input));
        };
        if count <= 0 {
            return Ok(Parsed::Nothing { bytes: self.position });
        }
        match usize::try_from(count) {
            Ok(count) if count <= limits.arguments_max => self.arguments_left = Some(count),
            _ => return Err(too_many_arguments(limits)),
        }
        self.parse_arguments(input, limits)
    }

    fn parse_arguments(&mut self, input: &[u8], limits: &Limits) -> Result<Parsed, Violation> {
        while let Some(left @ 1..) = self.arguments_left {
            let bytes = match self.bulk_bytes {
                Some(bytes) => bytes,
                None => match self.parse_length(input, limits)? {
                    Some(bytes) => bytes,
                    None => return Ok(self.partial(input)),
                },
            };
            self.bulk_bytes = Some(bytes);
            let end = self.position + bytes;
            match input.get(end..end + LINE_END.len()) {
                None => return Ok(self.partial(input)),
                Some(line_end) if line_end != LINE_END => return Err(Violation::WrongLength),
                Some(_) => {}
            }
            self.arguments.push(place(self.position)..place(end));
            self.position = end + LINE_END.len();
            self.bulk_bytes = None;
            self.arguments_left = Some(left - 1);
        }
        Ok(Parsed::Command { bytes: self.position })
    }

    fn parse_length(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, Violation> {
        match input.get(self.position) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(other) => return Err(Violation::NotBulk(*other)),
        }
        let Some(length) = self.number(input, limits, Violation::LengthTooBig, Violation::InvalidLength)? else {
            return Ok(None);
        };
        let length = u64::try_from(length).map_err(|_| Violation::InvalidLength)?;
        match usize::try_from(length) {
            Ok(bytes) if bytes <= limits.bulk_bytes_max => {
                let command_bytes = self.position + bytes + LINE_END.len();
                (command_bytes <= limits.command_bytes_max).then_some(Some(bytes)).ok_or(Violation::CommandTooBig)
            }
            _ if limits.is_unauthenticated => Err(Violation::UnauthenticatedLength),
            _ => Err(Violation::BulkTooLong { bytes: length, bytes_max: limits.bulk_bytes_max }),
        }
    }

    /// The number in the line at `position`, behind its first byte; `position` moves behind the line.
    fn number(
        &mut self,
        input: &[u8],
        limits: &Limits,
        too_big: Violation,
        invalid: Violation,
    ) -> Result<Option<i64>, Violation> {
        let Some(end) = self.find(b'\r', input, limits.line_bytes_max).map_err(|LineTooLong| too_big)? else {
            return Ok(None);
        };
        match input.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => {
                let number = parse_integer(&input[self.position + 1..end]).ok_or(invalid)?;
                self.position = end + LINE_END.len();
                self.searched = 0;
                Ok(Some(number))
            }
            Some(_) => Err(invalid),
        }
    }

    /// Position of a line's last byte but the line end's own rest; none: it is not there yet.
    fn find(&mut self, byte: u8, input: &[u8], bytes_max: usize) -> Result<Option<usize>, LineTooLong> {
        let unsearched = self.position + self.searched;
        match input[unsearched..].iter().position(|other| *other == byte) {
            Some(distance) if self.searched + distance <= bytes_max => {
                // Found again at once, should the next byte be missing.
                self.searched += distance;
                Ok(Some(unsearched + distance))
            }
            None if input.len() - self.position <= bytes_max => {
                self.searched = input.len() - self.position;
                Ok(None)
            }
            _ => Err(LineTooLong),
        }
    }

    fn partial(&self, input: &[u8]) -> Parsed {
        let bytes_min = match self.bulk_bytes {
            Some(bytes) => self.position + bytes + LINE_END.len(),
            None => input.len() + 1,
        };
        Parsed::Partial { bytes_min }
    }
}

const LINE_END: &[u8] = b"\r\n";

/// A line is longer than a line may be.
struct LineTooLong;

fn too_many_arguments(limits: &Limits) -> Violation {
    if limits.is_unauthenticated { Violation::UnauthenticatedCount } else { Violation::InvalidCount }
}

fn place(position: usize) -> u32 {
    u32::try_from(position).expect("command_bytes_max is below 4 GiB")
}

/// A decimal integer as Redis's `string2ll` means it: no sign but `-`, no leading zeros, no white space.
fn parse_integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_canonical = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !is_canonical {
        return None;
    }
    str::from_utf8(text).ok()?.parse().ok()
}
