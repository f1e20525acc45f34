//! A command: its arguments, the name first, in the bytes they were received in.

use std::ops::Range;

use bytes::Bytes;

/// A complete command. It has at least one argument, its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    bytes: Bytes,
    arguments: Vec<Range<u32>>,
}

impl Command {
    /// `arguments` lie in `bytes`, which the parser has checked.
    pub(super) fn new(bytes: Bytes, arguments: Vec<Range<u32>>) -> Self {
        assert!(!arguments.is_empty(), "a command without a name is not a command; the parser skips it");
        Self { bytes, arguments }
    }

    /// The first argument, as given.
    pub fn name(&self) -> &[u8] {
        self.argument(0).expect("a command has a name")
    }

    /// Number of arguments, the name among them.
    #[expect(clippy::len_without_is_empty, reason = "a command has always a name")]
    pub fn len(&self) -> usize {
        self.arguments.len()
    }

    /// An argument; the name is the one at 0.
    pub fn argument(&self, index: usize) -> Option<&[u8]> {
        let range = self.arguments.get(index)?;
        Some(&self.bytes[range.start as usize..range.end as usize])
    }

    /// An argument that outlives the command. It is not copied: it keeps the bytes alive that were received with it.
    pub fn share(&self, index: usize) -> Option<Bytes> {
        let range = self.arguments.get(index)?;
        Some(self.bytes.slice(range.start as usize..range.end as usize))
    }

    /// The arguments from `first` on.
    pub fn arguments_from(&self, first: usize) -> impl ExactSizeIterator<Item = &[u8]> {
        let arguments = self.arguments.get(first..).unwrap_or_default();
        arguments.iter().map(|range| &self.bytes[range.start as usize..range.end as usize])
    }

    /// Bytes that the command was received in.
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes a command as clients do: an array of bulk strings.
pub fn write_command<'a>(arguments: impl ExactSizeIterator<Item = &'a [u8]>, output: &mut Vec<u8>) {
    output.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        output.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        output.extend_from_slice(argument);
        output.extend_from_slice(b"\r\n");
    }
}
