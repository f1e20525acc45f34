//! What a producer may do wrong in the framing of commands.

use thiserror::Error;

use super::Reply;

/// A breach of the protocol. The connection answers with [`Violation::reply`] and closes: where the
/// next command begins is not known any more. The texts are those of Redis, as far as it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Violation {
    /// A line without an end.
    #[error("too big inline request")]
    InlineTooBig,
    /// A quote that is not closed, or a closing quote that something follows.
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
    /// The number of arguments is a line without an end.
    #[error("too big mbulk count string")]
    CountTooBig,
    /// The number of arguments is no number, or above the limit.
    #[error("invalid multibulk length")]
    InvalidCount,
    /// As many arguments as that only after authentication.
    #[error("unauthenticated multibulk length")]
    UnauthenticatedCount,
    /// An argument does not begin with `$`.
    #[error("expected '$', got '{}'", .0.escape_ascii())]
    NotBulk(u8),
    /// The length of an argument is a line without an end.
    #[error("too big bulk count string")]
    LengthTooBig,
    /// The length of an argument is no number, or negative.
    #[error("invalid bulk length")]
    InvalidLength,
    /// An argument above the limit.
    #[error("invalid bulk length: {bytes} bytes, {bytes_max} are allowed")]
    BulkTooLong {
        /// Its length.
        bytes: u64,
        /// The limit.
        bytes_max: usize,
    },
    /// An argument as long as that only after authentication.
    #[error("unauthenticated bulk length")]
    UnauthenticatedLength,
    /// All arguments together are above the limit.
    #[error("too big command")]
    CommandTooBig,
    /// No line end where the announced length ends. Redis does not look; the payload would be cut
    /// short, or would have grown, and nobody would know.
    #[error("expected a line end behind an argument: its length is wrong")]
    WrongLength,
}

impl Violation {
    /// What the producer is told.
    pub fn reply(&self) -> Reply {
        Reply::Error(format!("ERR Protocol error: {self}").into())
    }

    /// For counting, in the words of metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InlineTooBig => "inline_too_big",
            Self::UnbalancedQuotes => "unbalanced_quotes",
            Self::CountTooBig | Self::InvalidCount => "invalid_argument_count",
            Self::NotBulk(_) => "not_bulk",
            Self::LengthTooBig | Self::InvalidLength | Self::WrongLength => "invalid_bulk_length",
            Self::BulkTooLong { .. } => "bulk_too_long",
            Self::UnauthenticatedCount | Self::UnauthenticatedLength => "unauthenticated_length",
            Self::CommandTooBig => "command_too_big",
        }
    }
}
