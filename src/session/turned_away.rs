//! Who is turned away before a request has been read, and what it is told: an answer of HTTP, whatever was asked for.

use super::{Phase, Reason, Session, state::Flag};
use crate::{http::Answer, network::proxy};

/// Why a connection may not go on to its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnedAway {
    /// There are as many connections as there may be.
    ConnectionsExhausted,
    /// Memory is short.
    MemoryShort,
    /// Others have yet to come to their connect reply, as many as may.
    HandshakesExhausted,
    /// An operator does not want the address.
    AddressDenied,
    /// The address has as many connections as it may.
    AddressCrowded,
    /// The network of the address has.
    NetworkCrowded,
    /// The address begins connections too often.
    AcceptsTooFrequent,
    /// A balancer does not say for whom the connection is.
    NoProxyHeader(proxy::Violation),
}

impl TurnedAway {
    /// As what it is counted.
    pub fn reason(self) -> Reason {
        match self {
            Self::ConnectionsExhausted => Reason::ConnectionsExhausted,
            Self::MemoryShort => Reason::MemoryShort,
            Self::HandshakesExhausted => Reason::HandshakesExhausted,
            Self::AddressDenied => Reason::AddressDenied,
            Self::AddressCrowded => Reason::AddressConnectionsExhausted,
            Self::NetworkCrowded => Reason::NetworkConnectionsExhausted,
            Self::AcceptsTooFrequent => Reason::AcceptsTooFrequent,
            Self::NoProxyHeader(_) => Reason::ProxyHeaderInvalid,
        }
    }

    /// The status, the seconds after which to come again (none: never), and the words.
    pub(super) fn answer(self) -> (u16, Option<&'static str>, String) {
        let (status, retry_seconds, body) = match self {
            Self::ConnectionsExhausted => (503, Some("10"), "as many clients are connected as there may be"),
            Self::MemoryShort => (503, Some("10"), "the server has no memory for more clients now"),
            Self::HandshakesExhausted => (503, Some("1"), "too many clients are connecting just now"),
            Self::AddressDenied => (403, None, "this address may not connect"),
            Self::AddressCrowded => (429, Some("10"), "this address has as many connections as it may"),
            Self::NetworkCrowded => (429, Some("10"), "this network has as many connections as it may"),
            Self::AcceptsTooFrequent => (429, Some("1"), "this address connects too often"),
            Self::NoProxyHeader(violation) => return (400, None, format!("{violation}\n")),
        };
        (status, retry_seconds, format!("{body}\n"))
    }
}

/// Ends a conversation that is still about requests: appends the answer, unless it has been given another already.
pub fn turn_away(session: &mut Session, why: TurnedAway, out: &mut Vec<u8>) {
    assert_eq!(session.phase, Phase::Head, "who is upgraded is told by a close frame");
    if !session.has(Flag::Answered) || session.has(Flag::Paused) {
        write(why, None, out);
    }
    session.phase = Phase::Ended;
}

/// Appends the answer. Pages of the origin, if any, may read it.
pub(super) fn write(why: TurnedAway, origin: Option<&str>, out: &mut Vec<u8>) {
    let (status, retry_seconds, body) = why.answer();
    let fields = retry_seconds.map(|seconds| ("Retry-After", seconds));
    Answer { fields: fields.as_slice(), origin, ..Answer::last(status, &body) }.write(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_says_why_and_when_to_come_again() {
        let text = |why| {
            let mut out = Vec::new();
            turn_away(&mut Session::default(), why, &mut out);
            String::from_utf8(out).expect("text")
        };
        for (why, status, retry_seconds) in [
            (TurnedAway::ConnectionsExhausted, 503, Some("10")),
            (TurnedAway::MemoryShort, 503, Some("10")),
            (TurnedAway::HandshakesExhausted, 503, Some("1")),
            (TurnedAway::AddressDenied, 403, None),
            (TurnedAway::AddressCrowded, 429, Some("10")),
            (TurnedAway::NetworkCrowded, 429, Some("10")),
            (TurnedAway::AcceptsTooFrequent, 429, Some("1")),
            (TurnedAway::NoProxyHeader(proxy::Violation::Version1), 400, None),
        ] {
            let answer = text(why);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            let field = retry_seconds.map(|seconds| format!("\r\nRetry-After: {seconds}\r\n"));
            assert_eq!(answer.contains("Retry-After"), field.is_some(), "{answer}");
            assert!(field.is_none_or(|field| answer.contains(&field)), "{answer}");
            assert!(answer.ends_with('\n') && !answer.ends_with("\r\n\r\n"), "{answer}");
        }
    }

    #[test]
    fn between_two_requests_nothing_is_answered() {
        let mut session = Session::default();
        session.set(Flag::Answered);
        let mut out = Vec::new();
        turn_away(&mut session, TurnedAway::HandshakesExhausted, &mut out);
        assert!(out.is_empty() && session.is_closing());
    }
}
