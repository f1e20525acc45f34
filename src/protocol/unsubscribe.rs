//! Unsubscribe codes: why the server ended a subscription, and whether the SDK subscribes again (protocol.md section 15).

/// Why the server ends a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Unsubscribe {
    code: u32,
    reason: &'static str,
}

impl Unsubscribe {
    /// An operator or a rule ended it.
    pub const SERVER: Self = Self::new(2000, "server unsubscribe");
    /// Publications were dropped: the client recovers from its own offset.
    pub const INSUFFICIENT_STATE: Self = Self::new(2500, "insufficient state");
    /// The subscription's token has expired.
    pub const EXPIRED: Self = Self::new(2501, "subscription expired");

    const fn new(code: u32, reason: &'static str) -> Self {
        assert!(2000 <= code && code < 3000, "unsubscribe codes lie below the disconnect codes");
        Self { code, reason }
    }

    /// Its number.
    pub const fn code(self) -> u32 {
        self.code
    }

    /// Its text.
    pub const fn reason(self) -> &'static str {
        self.reason
    }

    /// Whether the SDK subscribes again at once, with recovery.
    pub const fn resubscribes(self) -> bool {
        self.code >= 2500
    }
}
