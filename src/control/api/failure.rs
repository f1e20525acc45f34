//! Why a call was not carried out: the API's error codes (protocol.md section 19).

use axum::http::StatusCode;

use crate::control::inquiries::NoAnswer;

/// An error of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    code: u32,
    message: &'static str,
    label: &'static str,
}

impl Failure {
    /// Our own mistake, or a shard that does not answer.
    pub const INTERNAL: Self = Self { code: 100, message: "internal server error", label: "internal" };
    /// No namespace has rules for the channel.
    pub const UNKNOWN_CHANNEL: Self = Self { code: 102, message: "unknown channel", label: "unknown_channel" };
    /// There is no such method.
    pub const NOT_FOUND: Self = Self { code: 104, message: "not found", label: "not_found" };
    /// More than one answer may hold, or one request.
    pub const LIMIT_EXCEEDED: Self = Self { code: 106, message: "limit exceeded", label: "limit_exceeded" };
    /// The request makes no sense as it is.
    pub const BAD_REQUEST: Self = Self { code: 107, message: "bad request", label: "bad_request" };
    /// The feature is off for the channel.
    pub const NOT_AVAILABLE: Self = Self { code: 108, message: "not available", label: "not_available" };
    /// Shards have more to answer than they can; later is worth a try.
    pub const TOO_MANY_REQUESTS: Self = Self { code: 111, message: "too many requests", label: "too_many_requests" };
    /// What came after the position cannot be had any more.
    pub const UNRECOVERABLE_POSITION: Self =
        Self { code: 112, message: "unrecoverable position", label: "unrecoverable_position" };

    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::INTERNAL,
        Self::UNKNOWN_CHANNEL,
        Self::NOT_FOUND,
        Self::LIMIT_EXCEEDED,
        Self::BAD_REQUEST,
        Self::NOT_AVAILABLE,
        Self::TOO_MANY_REQUESTS,
        Self::UNRECOVERABLE_POSITION,
    ];

    /// Its place in [`Self::ALL`].
    pub fn position(self) -> usize {
        Self::ALL.iter().position(|failure| *failure == self).expect("no failure is made elsewhere")
    }

    /// Its label in the metrics.
    pub const fn label(self) -> &'static str {
        self.label
    }

    /// The HTTP status that suits it, where errors are told so.
    pub fn status(self) -> StatusCode {
        match self.code {
            102 | 104 => StatusCode::NOT_FOUND,
            106..=108 => StatusCode::BAD_REQUEST,
            111 => StatusCode::TOO_MANY_REQUESTS,
            112 => StatusCode::RANGE_NOT_SATISFIABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The error as a JSON object.
    pub fn to_json(self) -> String {
        // No message has a character that would have to be escaped.
        format!("{{\"code\":{},\"message\":\"{}\"}}", self.code, self.message)
    }
}

impl From<NoAnswer> for Failure {
    fn from(no_answer: NoAnswer) -> Self {
        match no_answer {
            NoAnswer::Late | NoAnswer::Stopping => Self::INTERNAL,
            NoAnswer::NoRoom => Self::TOO_MANY_REQUESTS,
        }
    }
}
