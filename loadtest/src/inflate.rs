//! The client's side of permessage-deflate (RFC 7692): what is offered, what the server makes of it, and messages that it
//! has compressed. What clients send is never compressed.

use anyhow::{Context, Result, bail, ensure};
use flate2::{Decompress, FlushDecompress, Status};

use crate::websocket::MESSAGE_BYTES_MAX;

/// What browsers offer.
pub const OFFER: &str = "permessage-deflate; client_max_window_bits";

/// What the sender of a message leaves out at its end (section 7.2.2).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// What client and server have agreed on, as far as a client that only receives cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// A message may refer to those before it.
    pub keeps_context: bool,
}

impl Agreement {
    /// Reads the server's answer to [`OFFER`] (section 7.1).
    ///
    /// # Errors
    /// If it answers what it may not.
    pub fn parse(extensions: &str) -> Result<Agreement> {
        let mut agreement = Agreement { keeps_context: true };
        let mut parts = extensions.split(';').map(str::trim);
        ensure!(parts.next() == Some("permessage-deflate"), "the server agrees to what was not offered: {extensions}");
        let mut seen = Vec::new();
        for part in parts {
            let (name, value) = part.split_once('=').map_or((part, None), |(name, value)| (name, Some(value)));
            ensure!(!seen.contains(&name), "the server names a parameter twice: {extensions}");
            seen.push(name);
            let bits = value.map(|value| value.trim_matches('"').parse::<u8>());
            match (name, bits) {
                ("server_no_context_takeover", None) => agreement.keeps_context = false,
                ("client_no_context_takeover", None) => {}
                ("server_max_window_bits" | "client_max_window_bits", Some(Ok(8..=15))) => {}
                _ => bail!("the server answers a parameter that is none, or with a wrong value: {extensions}"),
            }
        }
        Ok(agreement)
    }
}

/// Inflates the messages of one connection.
#[derive(Debug)]
pub struct Inflater {
    agreement: Agreement,
    /// Some 40 KiB, from the first compressed message on. The largest window reads what was made for any.
    state: Option<Box<Decompress>>,
}

impl Inflater {
    /// Nothing was received so far.
    pub fn new(agreement: Agreement) -> Inflater {
        Inflater { agreement, state: None }
    }

    /// The message of a compressed payload.
    ///
    /// # Errors
    /// If it is none, or refers to what was never received, or is too long.
    pub fn inflate(&mut self, payload: &[u8]) -> Result<Vec<u8>> {
        let state = self.state.get_or_insert_with(|| Box::new(Decompress::new(false)));
        if !self.agreement.keeps_context {
            state.reset(false);
        }
        let mut message = Vec::with_capacity(payload.len() * 4 + 64);
        for part in [payload, &TAIL] {
            inflate_part(state, part, &mut message).context("a compressed message from the server")?;
        }
        Ok(message)
    }
}

fn inflate_part(state: &mut Decompress, mut part: &[u8], message: &mut Vec<u8>) -> Result<()> {
    // With room left, all that the part stands for has been written.
    while !part.is_empty() || message.len() == message.capacity() {
        ensure!(message.len() <= MESSAGE_BYTES_MAX, "it has more than 16 MiB");
        message.reserve(64);
        let (taken, written) = (state.total_in(), message.len());
        let status = state.decompress_vec(part, message, FlushDecompress::Sync)?;
        ensure!(status != Status::StreamEnd, "it ends its stream, which no server does that goes on");
        let taken = (state.total_in() - taken) as usize;
        part = &part[taken..];
        if taken == 0 && message.len() == written {
            ensure!(part.is_empty(), "it is damaged");
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    fn compressed(state: &mut Compress, message: &[u8]) -> Vec<u8> {
        let mut payload = Vec::with_capacity(message.len() + 100);
        state.compress_vec(message, &mut payload, FlushCompress::Sync).unwrap();
        payload.truncate(payload.len() - TAIL.len());
        payload
    }

    fn keeping(keeps_context: bool) -> Inflater {
        Inflater::new(Agreement { keeps_context })
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        let mut inflater = keeping(true);
        assert_eq!(inflater.inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]).unwrap(), b"Hello");
        assert_eq!(inflater.inflate(&[0xf2, 0x00, 0x11, 0x00, 0x00]).unwrap(), b"Hello");
        // Section 7.2.3.3: a block without compression; 7.2.3.5: two blocks; 7.2.3.6: an empty message.
        assert_eq!(
            inflater.inflate(&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00]).unwrap(),
            b"Hello"
        );
        let two = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflater.inflate(&two).unwrap(), b"Hello");
        assert_eq!(inflater.inflate(&[0x00]).unwrap(), b"");
    }

    #[test]
    fn messages_refer_to_those_before_them_only_where_that_was_agreed_on() {
        let mut state = Compress::new(Compression::default(), false);
        let texts =
            [&b"a message that repeats itself"[..], b"a message that repeats itself, somewhat", &[b'x'; 100_000]];
        let payloads = texts.map(|text| compressed(&mut state, text));
        let mut inflater = keeping(true);
        for (payload, text) in payloads.iter().zip(texts) {
            assert_eq!(inflater.inflate(payload).unwrap(), text);
        }
        let mut forgetful = keeping(false);
        assert_eq!(forgetful.inflate(&payloads[0]).unwrap(), texts[0]);
        assert!(forgetful.inflate(&payloads[1]).is_err());
        assert_eq!(forgetful.inflate(&payloads[0]).unwrap(), texts[0]);
    }

    #[test]
    fn damaged_messages_are_errors() {
        let bad = [
            &[0xff, 0xff, 0xff][..],
            &[0xf2, 0x00, 0x11, 0x00, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        ];
        for payload in bad {
            assert!(keeping(true).inflate(payload).is_err(), "{payload:?}");
        }
    }

    #[test]
    fn answers_are_read_and_wrong_ones_refused() {
        let keeps = |extensions| Agreement::parse(extensions).map(|agreement| agreement.keeps_context).ok();
        assert_eq!(keeps("permessage-deflate"), Some(true));
        assert_eq!(keeps("permessage-deflate; client_no_context_takeover; client_max_window_bits=\"15\""), Some(true));
        assert_eq!(keeps("permessage-deflate;server_max_window_bits=9;server_no_context_takeover"), Some(false));
        for wrong in [
            "",
            "x-webkit-deflate-frame",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate, permessage-deflate",
            "permessage-deflate; something",
        ] {
            assert_eq!(keeps(wrong), None, "{wrong}");
        }
    }
}
