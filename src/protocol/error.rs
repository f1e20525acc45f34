//! Error codes of replies (protocol.md section 13).

/// Why a command was not carried out. The connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ErrorCode {
    /// Our own mistake.
    Internal = 100,
    /// Not authenticated.
    Unauthorized = 101,
    /// No namespace has rules for the channel.
    UnknownChannel = 102,
    /// The channel's rules forbid it.
    PermissionDenied = 103,
    /// No such method.
    MethodNotFound = 104,
    /// The client is subscribed to the channel.
    AlreadySubscribed = 105,
    /// More subscriptions than one client may have.
    LimitExceeded = 106,
    /// The command makes no sense as it is.
    BadRequest = 107,
    /// The feature is switched off for the channel, or not built.
    NotAvailable = 108,
    /// The token has expired; a new one is worth a try.
    TokenExpired = 109,
    /// The connection that the token grants is over.
    Expired = 110,
    /// Too often; later is worth a try.
    TooManyRequests = 111,
    /// What was missed cannot be had any more.
    UnrecoverablePosition = 112,
}

impl ErrorCode {
    /// Its number.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// Its text.
    pub fn message(self) -> &'static str {
        match self {
            Self::Internal => "internal server error",
            Self::Unauthorized => "unauthorized",
            Self::UnknownChannel => "unknown channel",
            Self::PermissionDenied => "permission denied",
            Self::MethodNotFound => "method not found",
            Self::AlreadySubscribed => "already subscribed",
            Self::LimitExceeded => "limit exceeded",
            Self::BadRequest => "bad request",
            Self::NotAvailable => "not available",
            Self::TokenExpired => "token expired",
            Self::Expired => "expired",
            Self::TooManyRequests => "too many requests",
            Self::UnrecoverablePosition => "unrecoverable position",
        }
    }

    /// Whether an SDK tries the same again after a while.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::Internal | Self::TooManyRequests)
    }
}
