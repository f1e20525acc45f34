//! Disconnect codes: the close codes by which the server tells SDKs whether to come back (protocol.md section 14).

use super::ErrorCode;
use crate::limits::CLOSE_REASON_BYTES_MAX;

/// Why the server ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Disconnect<'a> {
    code: u16,
    reason: &'a str,
}

impl Disconnect<'static> {
    /// The server stops.
    pub const SHUTDOWN: Self = Self::new(3001, "shutdown");
    /// Our own mistake.
    pub const INTERNAL_ERROR: Self = Self::new(3004, "internal server error");
    /// The token's time is over.
    pub const CONNECTION_EXPIRED: Self = Self::new(3005, "connection expired");
    /// The token of a server-side subscription has expired.
    pub const SUBSCRIPTION_EXPIRED: Self = Self::new(3006, "subscription expired");
    /// The client does not take what it is sent.
    pub const SLOW: Self = Self::new(3008, "slow");
    /// A server-side subscription has lost publications.
    pub const INSUFFICIENT_STATE: Self = Self::new(3010, "insufficient state");
    /// An operator wants the client to reconnect.
    pub const FORCE_RECONNECT: Self = Self::new(3011, "force reconnect");
    /// No pong came in time.
    pub const NO_PONG: Self = Self::new(3012, "no pong");
    /// Too often.
    pub const TOO_MANY_REQUESTS: Self = Self::new(3013, "too many requests");
    /// The token is garbled, forged, or not for here.
    pub const INVALID_TOKEN: Self = Self::new(3500, "invalid token");
    /// The client breaks the protocol.
    pub const BAD_REQUEST: Self = Self::new(3501, "bad request");
    /// No connect command came in time.
    pub const STALE: Self = Self::new(3502, "stale");
    /// An operator wants the client gone.
    pub const FORCE_DISCONNECT: Self = Self::new(3503, "force disconnect");
    /// There are as many connections as there may be.
    pub const CONNECTION_LIMIT: Self = Self::new(3504, "connection limit");
    /// The token grants more channels than one client may have.
    pub const CHANNEL_LIMIT: Self = Self::new(3505, "channel limit");
    /// A payload that the connection's encoding cannot carry.
    pub const INAPPROPRIATE_PROTOCOL: Self = Self::new(3506, "inappropriate protocol");
    /// The client may not connect.
    pub const PERMISSION_DENIED: Self = Self::new(3507, "permission denied");
    /// The client used what the server does not offer.
    pub const NOT_AVAILABLE: Self = Self::new(3508, "not available");

    /// What a client that hears no replies is told instead of a failed connect's error (protocol.md section 18).
    pub const fn instead_of(code: u32) -> Self {
        const TOKEN_EXPIRED: u32 = ErrorCode::TokenExpired as u32;
        const EXPIRED: u32 = ErrorCode::Expired as u32;
        const TOO_MANY_REQUESTS: u32 = ErrorCode::TooManyRequests as u32;
        const PERMISSION_DENIED: u32 = ErrorCode::PermissionDenied as u32;
        match code {
            TOKEN_EXPIRED | EXPIRED => Self::CONNECTION_EXPIRED,
            TOO_MANY_REQUESTS => Self::TOO_MANY_REQUESTS,
            PERMISSION_DENIED => Self::PERMISSION_DENIED,
            _ => Self::INTERNAL_ERROR,
        }
    }
}

impl<'a> Disconnect<'a> {
    /// The application's own; none: a code that a close frame may not carry, or a reason that is empty or too long for it.
    pub fn custom(code: u32, reason: &'a str) -> Option<Self> {
        let code = u16::try_from(code).ok().filter(|code| (3000..5000).contains(code))?;
        (1..=CLOSE_REASON_BYTES_MAX).contains(&reason.len()).then_some(Self { code, reason })
    }

    const fn new(code: u16, reason: &'a str) -> Self {
        assert!(3000 <= code && code < 5000, "disconnect codes are the close codes that applications may use");
        assert!(!reason.is_empty(), "without a reason an SDK reconnects even from a terminal code");
        assert!(reason.len() <= CLOSE_REASON_BYTES_MAX, "the reason must fit a close frame");
        Self { code, reason }
    }

    /// The code of the close frame.
    pub const fn code(self) -> u16 {
        self.code
    }

    /// The reason in the close frame; never empty.
    pub const fn reason(self) -> &'a str {
        self.reason
    }

    /// Whether SDKs come back after it.
    pub const fn reconnects(self) -> bool {
        !matches!(self.code, 3500..=3999 | 4500..=4999)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_codes_are_those_of_the_sdks() {
        for disconnect in [Disconnect::SHUTDOWN, Disconnect::SLOW, Disconnect::NO_PONG, Disconnect::CONNECTION_EXPIRED]
        {
            assert!(disconnect.reconnects(), "{disconnect:?}");
        }
        for disconnect in [Disconnect::INVALID_TOKEN, Disconnect::BAD_REQUEST, Disconnect::STALE] {
            assert!(!disconnect.reconnects(), "{disconnect:?}");
        }
    }

    #[test]
    fn an_application_has_codes_and_reasons_that_a_close_frame_can_carry() {
        let custom = Disconnect::custom(4501, "banned").expect("it fits");
        assert_eq!((custom.code(), custom.reason(), custom.reconnects()), (4501, "banned", false));
        assert!(Disconnect::custom(3000, &"a".repeat(CLOSE_REASON_BYTES_MAX)).is_some());
        let too_long = "a".repeat(CLOSE_REASON_BYTES_MAX + 1);
        for (code, reason) in [(2999, "x"), (5000, "x"), (70_536, "x"), (4000, ""), (4000, &too_long)] {
            assert_eq!(Disconnect::custom(code, reason), None, "{code} {reason}");
        }
    }
}
