//! Why a command is refused, and what its producer is told.

use std::borrow::Cow;

use thiserror::Error;

use super::decompression::DecompressionFault;
use crate::{
    limits::{CHANNEL_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, INGEST_LABEL_BYTES_MAX, VERSION_EPOCH_BYTES_MAX},
    protocol::AttributesError,
    resp::Reply,
};

/// A refused command. The connection goes on, unless [`Refusal::ends_connection`]. Texts that Redis
/// has are Redis's: clients look at their first word and sometimes at more.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Refusal {
    #[error("ERR unknown command '{name}', with args beginning with: {arguments}")]
    UnknownCommand { name: String, arguments: String },
    #[error("ERR unknown subcommand '{subcommand}'. Try {container} HELP.")]
    UnknownSubcommand { container: String, subcommand: String },
    #[error("ERR wrong number of arguments for '{0}' command")]
    WrongArity(String),
    #[error("NOAUTH Authentication required.")]
    AuthenticationRequired,
    #[error(
        "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> \
         <pass> option can be used to authenticate the client and select the RESP protocol version at the same time"
    )]
    HelloWithoutAuthentication,
    #[error("WRONGPASS invalid username-password pair or user is disabled.")]
    WrongPassword,
    #[error(
        "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
         configuration is correct?"
    )]
    NoPasswordConfigured,
    #[error("NOPROTO unsupported protocol version")]
    UnsupportedVersion,
    #[error("ERR Protocol version is not an integer or out of range")]
    VersionNotInteger,
    #[error("ERR Syntax error in HELLO option '{0}'")]
    HelloOption(String),
    #[error("ERR Unrecognized option '{0}'")]
    ClientOption(String),
    #[error("ERR Client names cannot contain spaces, newlines or special characters.")]
    ClientName,
    #[error("ERR names are at most {INGEST_LABEL_BYTES_MAX} bytes long")]
    LabelTooLong,
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    #[error("ERR MULTI calls can not be nested")]
    NestedMulti,
    #[error("ERR EXEC without MULTI")]
    ExecWithoutMulti,
    #[error("ERR DISCARD without MULTI")]
    DiscardWithoutMulti,
    #[error("EXECABORT Transaction discarded because of previous errors.")]
    TransactionDiscarded,
    #[error("ERR the commands between MULTI and EXEC are too many; send them without MULTI, or in smaller parts")]
    TransactionTooBig,
    #[error("ERR channel {0}")]
    Channel(#[from] ChannelFault),
    #[error("ERR unknown namespace '{namespace}' in channel '{channel}'; known: {known}")]
    UnknownNamespace { namespace: String, channel: String, known: String },
    #[error("ERR channel '{channel}' names no namespace, and channels without one are not configured; known: {known}")]
    NoNamespace { channel: String, known: String },
    #[error("ERR user id must have 1 to {bytes_max} bytes of UTF-8 text; these are {bytes}")]
    User { bytes: usize, bytes_max: usize },
    #[error("ERR {0}")]
    Attributes(#[from] AttributesError),
    #[error("ERR personal channels are off: set client.personal_channel = true to send to a user")]
    PersonalChannelsOff,
    #[error("ERR payload of {bytes} bytes is too long: ingest.payload_size_max allows {bytes_max}")]
    PayloadTooLong { bytes: usize, bytes_max: usize },
    #[error("ERR payload is not valid JSON: {0}{hint}", hint = JSON_HINT)]
    PayloadNotJson(Cow<'static, str>),
    #[error("ERR payload {0}")]
    Decompression(#[from] DecompressionFault),
    #[error("ERR ENCODING must be zstd, got '{0}'")]
    Encoding(String),
    #[error("ERR syntax error: expected ENCODING zstd, got '{0}'")]
    SendOption(String),
    #[error("ERR TAGS must be a JSON object whose values are strings: {0}")]
    Tags(String),
    #[error("ERR ID must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes; these are {0}")]
    IdempotencyKey(usize),
    #[error(
        "ERR syntax error: expected ID key, SKIPHISTORY, DELTA, TAGS json, VERSION number, VERSIONEPOCH epoch, \
         ENCODING zstd or TRACEPARENT traceparent, got '{0}'"
    )]
    PublishOption(String),
    #[error("ERR VERSION must be a whole number from 1 to 18446744073709551615")]
    Version,
    #[error("ERR VERSIONEPOCH must be text of at most {VERSION_EPOCH_BYTES_MAX} bytes")]
    VersionEpoch,
    #[error("ERR TRACEPARENT must be a traceparent of W3C Trace Context, got '{0}'")]
    Traceparent(String),
    #[error("ERR syntax error: {0} needs a value")]
    OptionWithoutValue(&'static str),
    #[error(
        "ERR nobody subscribes on the producers' port: clients subscribe over WebSocket; to watch a channel, try \
         'tidegate tail'"
    )]
    Subscribe,
    #[error("ERR this port speaks RESP, not HTTP")]
    WebRequest,
}

/// What is wrong with the name of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum ChannelFault {
    #[error("is empty")]
    Empty,
    #[error("is too long: {0} bytes, at most {CHANNEL_BYTES_MAX} are allowed")]
    TooLong(usize),
    #[error("must be ASCII text: byte {byte:#04x} at position {position} is not")]
    NotAscii { byte: u8, position: usize },
}

const JSON_HINT: &str = " (a JSON string has quotes of its own; a namespace with format = \"binary\" takes any bytes)";

impl Refusal {
    /// What the producer is told.
    pub(super) fn reply(&self) -> Reply {
        Reply::Error(self.to_string().into())
    }

    /// For counting, in the words of metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::UnknownCommand { .. } | Self::Subscribe => "unknown_command",
            Self::UnknownSubcommand { .. } => "unknown_subcommand",
            Self::WrongArity(_) => "wrong_arity",
            Self::AuthenticationRequired | Self::HelloWithoutAuthentication => "authentication_required",
            Self::WrongPassword => "wrong_password",
            Self::NoPasswordConfigured => "no_password_configured",
            Self::UnsupportedVersion | Self::VersionNotInteger => "unsupported_version",
            Self::HelloOption(_)
            | Self::ClientOption(_)
            | Self::ClientName
            | Self::LabelTooLong
            | Self::NotInteger
            | Self::Version
            | Self::VersionEpoch
            | Self::Traceparent(_)
            | Self::PublishOption(_)
            | Self::SendOption(_)
            | Self::Encoding(_)
            | Self::OptionWithoutValue(_) => "invalid_argument",
            Self::NestedMulti | Self::ExecWithoutMulti | Self::DiscardWithoutMulti | Self::TransactionDiscarded => {
                "invalid_transaction"
            }
            Self::TransactionTooBig => "transaction_too_big",
            Self::Channel(_) | Self::NoNamespace { .. } => "invalid_channel",
            Self::UnknownNamespace { .. } => "unknown_namespace",
            Self::User { .. } => "invalid_user",
            Self::Attributes(_) => "invalid_attributes",
            Self::PersonalChannelsOff => "personal_channels_off",
            Self::PayloadTooLong { .. }
            | Self::Decompression(DecompressionFault::TooLong { .. } | DecompressionFault::MuchTooLong(_)) => {
                "payload_too_long"
            }
            Self::Decompression(DecompressionFault::UnknownDictionary(_)) => "unknown_dictionary",
            Self::Decompression(_) => "payload_not_zstd",
            Self::PayloadNotJson(_) => "payload_not_json",
            Self::Tags(_) => "invalid_tags",
            Self::IdempotencyKey(_) => "invalid_idempotency_key",
            Self::WebRequest => "web_request",
        }
    }

    /// Whether it belongs to the audit trail.
    pub(super) fn concerns_security(&self) -> bool {
        matches!(
            self,
            Self::WrongPassword | Self::AuthenticationRequired | Self::HelloWithoutAuthentication | Self::WebRequest
        )
    }

    /// Whether the producer is not one: a browser was led here by a page that guesses ports.
    pub(super) fn ends_connection(&self) -> bool {
        matches!(self, Self::WebRequest)
    }
}

/// Bytes from a producer, shortened and made text, to be quoted in an answer.
pub(super) fn quote(bytes: &[u8]) -> String {
    const BYTES_MAX: usize = 128;
    String::from_utf8_lossy(&bytes[..bytes.len().min(BYTES_MAX)]).into_owned()
}
