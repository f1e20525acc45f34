//! What alerts say (RFC 8446 section 6).

pub const LEVEL_WARNING: u8 = 1;
pub const LEVEL_FATAL: u8 = 2;

pub const CLOSE_NOTIFY: u8 = 0;
pub const UNEXPECTED_MESSAGE: u8 = 10;
pub const BAD_RECORD_MAC: u8 = 20;
pub const RECORD_OVERFLOW: u8 = 22;
pub const USER_CANCELED: u8 = 90;
pub const NO_RENEGOTIATION: u8 = 100;
