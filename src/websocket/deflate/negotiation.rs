//! Which of a client's offers is accepted, and how that is answered (RFC 7692 sections 5.1 and 7.1).
//!
//! Owns the four parameters of permessage-deflate. Leaves to [`extension`](crate::websocket::extension) their syntax,
//! and to the configuration whether anything is compressed at all.
//!
//! An offer that asks for something else than what section 7.1 lets a client ask for is declined, and the next one
//! counts; that is what offers are in order for. A header that cannot be read never gets here: RFC 6455 section 9.1
//! wants the connection failed then, and the handshake answers 400.
//!
//! Invariant: every [`Agreement`] tells the client not to carry its window from one message to the next
//! (`client_no_context_takeover`), which a server may do unasked (section 7.1.1.2). That is why one inflater serves all
//! connections of a shard, and why none of them keeps 32 KiB for what its client has sent.

use std::fmt;

use super::{Deflation, Window};
use crate::websocket::extension::{Extension, Parameter};

/// The name under which the extension is registered.
const NAME: &str = "permessage-deflate";

/// The largest window that there is: 32 KiB.
const WINDOW_BITS_MAX: u8 = 15;

/// An offer that is accepted. Written out ([`fmt::Display`]), it is the answer to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// How the server may compress.
    pub deflation: Deflation,
    /// What `server_max_window_bits` is answered by; none: it was not offered.
    server_window_bits: Option<u8>,
}

/// The first offer of permessage-deflate that can be accepted; none: messages stay as they are.
pub fn negotiate(offers: &[Extension<'_>]) -> Option<Agreement> {
    offers.iter().filter(|offer| offer.name == NAME).find_map(|offer| Offer::read(&offer.parameters)).map(Offer::accept)
}

impl fmt::Display for Agreement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{NAME}; client_no_context_takeover")?;
        if !self.deflation.keeps_context {
            formatter.write_str("; server_no_context_takeover")?;
        }
        match self.server_window_bits {
            Some(bits) => write!(formatter, "; server_max_window_bits={bits}"),
            None => Ok(()),
        }
    }
}

/// What an offer asks for. The window of the client's own compressor is not in it: whatever it is, the inflater's is
/// as large as any may be.
#[derive(Default)]
struct Offer {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: bool,
}

impl Offer {
    /// Holds parameters against section 7.1; none: the offer is to be declined.
    fn read(parameters: &[Parameter<'_>]) -> Option<Self> {
        let mut offer = Self::default();
        for parameter in parameters {
            let is_repeated = match (parameter.name, parameter.value.as_deref()) {
                ("server_no_context_takeover", None) => std::mem::replace(&mut offer.server_no_context_takeover, true),
                ("client_no_context_takeover", None) => std::mem::replace(&mut offer.client_no_context_takeover, true),
                ("server_max_window_bits", Some(value)) => {
                    offer.server_max_window_bits.replace(window_bits(value)?).is_some()
                }
                ("client_max_window_bits", value) => {
                    if let Some(value) = value {
                        window_bits(value)?;
                    }
                    std::mem::replace(&mut offer.client_max_window_bits, true)
                }
                _ => return None,
            };
            if is_repeated {
                return None;
            }
        }
        Some(offer)
    }

    fn accept(self) -> Agreement {
        let window = Window::within(self.server_max_window_bits.unwrap_or(WINDOW_BITS_MAX));
        Agreement {
            deflation: Deflation { window, keeps_context: !self.server_no_context_takeover },
            // Answered even where the client offers what would hold anyway: section 7.1.2.1 knows no other way to accept
            // the parameter, and there are clients that insist.
            server_window_bits: self.server_max_window_bits.map(|offered| offered.min(window.bits())),
        }
    }
}

/// 8 to 15, in decimal and without leading zeros.
fn window_bits(value: &str) -> Option<u8> {
    match value.as_bytes() {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{http::head::list, websocket::extension};

    /// The answer to a header; "" if no offer in it is accepted.
    fn answer(header: &str) -> String {
        let offers: Vec<_> = list(header).map(|offer| extension::parse(offer).expect("an extension")).collect();
        negotiate(&offers).map(|agreement| agreement.to_string()).unwrap_or_default()
    }

    fn deflation(header: &str) -> Option<Deflation> {
        let offers: Vec<_> = list(header).map(|offer| extension::parse(offer).expect("an extension")).collect();
        negotiate(&offers).map(|agreement| agreement.deflation)
    }

    #[test]
    fn every_legal_offer_is_accepted() {
        const PLAIN: &str = "permessage-deflate; client_no_context_takeover";
        for (offer, parameters) in [
            ("permessage-deflate", ""),
            // What browsers and Node's `ws` offer.
            ("permessage-deflate; client_max_window_bits", ""),
            ("permessage-deflate;client_max_window_bits=8", ""),
            ("permessage-deflate; client_max_window_bits=15", ""),
            ("permessage-deflate; client_max_window_bits=\"10\"", ""),
            ("permessage-deflate; client_no_context_takeover", ""),
            ("permessage-deflate ; server_no_context_takeover", "; server_no_context_takeover"),
            ("permessage-deflate; server_max_window_bits=15", "; server_max_window_bits=15"),
            ("permessage-deflate; server_max_window_bits = 9", "; server_max_window_bits=9"),
            (
                "permessage-deflate; client_max_window_bits; server_max_window_bits=\"1\\0\"; \
                 server_no_context_takeover; client_no_context_takeover",
                "; server_no_context_takeover; server_max_window_bits=10",
            ),
        ] {
            assert_eq!(answer(offer), format!("{PLAIN}{parameters}"), "{offer}");
        }
    }

    #[test]
    fn every_illegal_offer_is_declined() {
        for parameters in [
            "unknown",
            "unknown=1",
            "Server_no_context_takeover",
            "server_no_context_takeover=1",
            "server_no_context_takeover; server_no_context_takeover",
            "client_no_context_takeover=true",
            "client_no_context_takeover; client_no_context_takeover",
            "server_max_window_bits",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=08",
            "server_max_window_bits=+9",
            "server_max_window_bits=1e1",
            "server_max_window_bits=100",
            "server_max_window_bits=10; server_max_window_bits=10",
            "client_max_window_bits=7",
            "client_max_window_bits=16",
            "client_max_window_bits=015",
            "client_max_window_bits=-9",
            "client_max_window_bits; client_max_window_bits",
            "client_max_window_bits=9; client_max_window_bits",
        ] {
            let offer = format!("permessage-deflate; {parameters}");
            assert_eq!(answer(&offer), "", "{offer}");
            // It does not stand in the way of the next.
            let with_next = format!("{offer}, permessage-deflate; server_no_context_takeover");
            assert!(answer(&with_next).contains("; server_no_context_takeover"), "{with_next}");
        }
    }

    #[test]
    fn the_first_acceptable_offer_counts() {
        let header = "x-webkit-deflate-frame, permessage-deflate; server_max_window_bits=10, permessage-deflate";
        assert_eq!(answer(header), "permessage-deflate; client_no_context_takeover; server_max_window_bits=10");
        assert_eq!(answer("permessage-bzip2, Permessage-Deflate, permessage-deflates"), "");
        assert_eq!(answer(""), "");
    }

    #[test]
    fn the_window_is_never_larger_than_what_was_offered() {
        for (offered, window, answered) in [
            (8, Window::Bytes512, 8),
            (9, Window::Bytes512, 9),
            (10, Window::KiB1, 10),
            (11, Window::KiB1, 10),
            (12, Window::KiB4, 12),
            (13, Window::KiB4, 12),
            (14, Window::KiB4, 12),
            (15, Window::KiB32, 15),
        ] {
            let offer = format!("permessage-deflate; server_max_window_bits={offered}");
            assert_eq!(deflation(&offer), Some(Deflation { window, keeps_context: true }));
            assert!(answer(&offer).ends_with(&format!("; server_max_window_bits={answered}")), "{offered}");
        }
        let unbounded = Deflation { window: Window::KiB32, keeps_context: true };
        assert_eq!(deflation("permessage-deflate; client_max_window_bits=9"), Some(unbounded));
    }

    proptest! {
        #[test]
        fn the_order_of_parameters_does_not_matter(
            parameters in Just(["server_no_context_takeover", "client_max_window_bits", "server_max_window_bits=11"])
                .prop_shuffle(),
        ) {
            let offer = format!("permessage-deflate; {}", parameters.join("; "));
            let expected = "permessage-deflate; client_no_context_takeover; server_no_context_takeover; \
                server_max_window_bits=10";
            prop_assert_eq!(answer(&offer), expected);
        }

        #[test]
        fn numbers_are_those_that_display_writes(value in 0..20_u8, zeros in 0..3_usize) {
            let text = format!("{}{value}", "0".repeat(zeros));
            let expected = (zeros == 0 && (8..=15).contains(&value)).then_some(value);
            prop_assert_eq!(window_bits(&text), expected);
        }
    }
}
