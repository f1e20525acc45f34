//! The client's side of RFC 6455, as far as a load tester needs it: the upgrade, frames from the
//! server, frames to the server.
//!
//! Reads incrementally from a buffer that belongs to the thread: a connection owns bytes only
//! while a frame is incomplete. Sans-IO.

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::inflate::{Agreement, Inflater};

/// Longest head of the server's answer to the upgrade, in bytes.
const RESPONSE_HEAD_BYTES_MAX: usize = 16 * 1024;

/// Longest message that is taken from a server, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Key and answer are the example of RFC 6455 section 1.3: a constant key lets the answer be
/// checked without computing it, and spares a million random numbers.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What a frame is (RFC 6455 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// More of a fragmented message.
    Continuation,
    /// A text message.
    Text,
    /// A binary message.
    Binary,
    /// The end.
    Close,
    /// To be answered with a pong.
    Ping,
    /// An answer.
    Pong,
}

/// A whole message or control frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Text or binary.
    Data(&'a [u8]),
    /// To be answered with a pong of the same payload.
    Ping(&'a [u8]),
    /// The server ends the connection.
    Close {
        /// Close code; 1005 if there is none.
        code: u16,
        /// Its reason.
        reason: &'a [u8],
    },
}

/// The request that asks for a WebSocket, perhaps with extensions.
pub fn upgrade_request(host: &str, path: &str, extensions: Option<&str>) -> Vec<u8> {
    let extensions = extensions.map_or_else(String::new, |offer| format!("Sec-WebSocket-Extensions: {offer}\r\n"));
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{extensions}\r\n"
    )
    .into_bytes()
}

/// The answer that [`read_upgrade_response`] takes, for servers of the tester's own.
pub fn upgrade_response() -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    )
    .into_bytes()
}

/// The server's answer to the upgrade.
#[derive(Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Its length.
    pub length: usize,
    /// What was agreed on about compression.
    pub agreement: Option<Agreement>,
}

/// Reads the server's answer to the upgrade, once it is complete.
///
/// # Errors
/// If the server refuses, or does not answer as RFC 6455 section 4.1 demands.
pub fn read_upgrade_response(received: &[u8], has_offered: bool) -> Result<Option<Upgrade>> {
    let Some(end) = memchr::memmem::find(received, b"\r\n\r\n") else {
        ensure!(received.len() < RESPONSE_HEAD_BYTES_MAX, "the answer to the upgrade request does not end");
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&received[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        let body = String::from_utf8_lossy(&received[end + 4..]);
        bail!("the server refuses the upgrade: {status} {}", body.trim());
    }
    let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
    let field = |wanted: &str| {
        let found = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.trim())
    };
    ensure!(field("sec-websocket-accept") == Some(ACCEPT), "the server's Sec-WebSocket-Accept is missing or wrong");
    let extensions = field("sec-websocket-extensions");
    ensure!(has_offered || extensions.is_none(), "the server agrees to extensions, and none was offered");
    Ok(Some(Upgrade { length: end + 4, agreement: extensions.map(Agreement::parse).transpose()? }))
}

/// A frame to the server, masked (RFC 6455 section 5.3).
pub fn client_frame(opcode: Opcode, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    push_header(&mut frame, opcode, payload.len(), 0x80);
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A frame as servers send it, unmasked.
pub fn server_frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    push_header(&mut frame, opcode, payload.len(), 0);
    frame.extend_from_slice(payload);
    frame
}

/// What one connection has of a frame or message that is not complete.
#[derive(Debug, Default)]
pub struct MessageReader {
    /// Bytes of an incomplete frame.
    partial: Vec<u8>,
    /// An incomplete message.
    fragments: Option<Fragments>,
    /// If compression was agreed on.
    inflater: Option<Inflater>,
    savings: Savings,
}

/// What has come of a message in several frames.
#[derive(Debug)]
struct Fragments {
    bytes: Vec<u8>,
    is_compressed: bool,
}

/// What compression spared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Savings {
    /// Messages that came compressed.
    pub messages: u64,
    /// How many bytes longer their frames would have been; less than 0: they would have been shorter.
    pub bytes: i64,
}

impl Savings {
    /// Counts others in.
    pub fn add(&mut self, other: Savings) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }
}

impl MessageReader {
    /// The server may compress from now on.
    pub fn agree(&mut self, agreement: Agreement) {
        self.inflater = Some(Inflater::new(agreement));
    }

    /// What compression has spared since the last call.
    pub fn take_savings(&mut self) -> Savings {
        std::mem::take(&mut self.savings)
    }

    /// Takes received bytes and hands on every message that is complete.
    ///
    /// # Errors
    /// If the server breaks RFC 6455, or as `on_message` does.
    pub fn read(&mut self, received: &[u8], on_message: &mut dyn FnMut(Message<'_>) -> Result<()>) -> Result<()> {
        if self.partial.is_empty() {
            let used = self.read_frames(received, on_message)?;
            self.partial.extend_from_slice(&received[used..]);
            return Ok(());
        }
        let mut bytes = std::mem::take(&mut self.partial);
        bytes.extend_from_slice(received);
        let used = self.read_frames(&bytes, on_message)?;
        if used < bytes.len() {
            bytes.drain(..used);
            self.partial = bytes;
        }
        Ok(())
    }

    fn read_frames(&mut self, bytes: &[u8], on_message: &mut dyn FnMut(Message<'_>) -> Result<()>) -> Result<usize> {
        let mut used = 0;
        while let Some((frame, length)) = Frame::parse(&bytes[used..])? {
            self.read_frame(frame, on_message)?;
            used += length;
        }
        Ok(used)
    }

    fn read_frame(&mut self, frame: Frame<'_>, on_message: &mut dyn FnMut(Message<'_>) -> Result<()>) -> Result<()> {
        match frame.opcode {
            Opcode::Ping => on_message(Message::Ping(frame.payload)),
            Opcode::Pong => Ok(()),
            Opcode::Close => match frame.payload {
                [high, low, reason @ ..] => {
                    on_message(Message::Close { code: u16::from_be_bytes([*high, *low]), reason })
                }
                _ => on_message(Message::Close { code: 1005, reason: b"" }),
            },
            Opcode::Text | Opcode::Binary => {
                ensure!(self.fragments.is_none(), "a new message begins within a fragmented one");
                if frame.is_final {
                    return self.hand_on(frame.payload, frame.is_compressed, on_message);
                }
                self.fragments = Some(Fragments { bytes: frame.payload.to_vec(), is_compressed: frame.is_compressed });
                Ok(())
            }
            Opcode::Continuation => {
                let Some(mut message) = self.fragments.take() else { bail!("a continuation of no message") };
                ensure!(
                    message.bytes.len() + frame.payload.len() <= MESSAGE_BYTES_MAX,
                    "a message of more than 16 MiB"
                );
                message.bytes.extend_from_slice(frame.payload);
                if frame.is_final {
                    return self.hand_on(&message.bytes, message.is_compressed, on_message);
                }
                self.fragments = Some(message);
                Ok(())
            }
        }
    }

    fn hand_on(
        &mut self,
        payload: &[u8],
        is_compressed: bool,
        on_message: &mut dyn FnMut(Message<'_>) -> Result<()>,
    ) -> Result<()> {
        if !is_compressed {
            return on_message(Message::Data(payload));
        }
        let Some(inflater) = &mut self.inflater else {
            bail!("a compressed message, and compression was not agreed on")
        };
        let message = inflater.inflate(payload)?;
        let frame_bytes = |payload: &[u8]| (payload.len() + header_bytes(payload.len())) as i64;
        self.savings.messages += 1;
        self.savings.bytes += frame_bytes(&message) - frame_bytes(payload);
        on_message(Message::Data(&message))
    }
}

/// Bytes before the payload in a frame of a server's.
fn header_bytes(payload_bytes: usize) -> usize {
    match payload_bytes {
        0..=125 => 2,
        126..=65_535 => 4,
        _ => 10,
    }
}

struct Frame<'a> {
    is_final: bool,
    /// It begins a compressed message (RFC 7692 section 6).
    is_compressed: bool,
    opcode: Opcode,
    payload: &'a [u8],
}

impl Frame<'_> {
    /// The frame at the beginning of the bytes and its length with its header, once it is complete.
    fn parse(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        ensure!(first & 0x30 == 0, "a frame with reserved bits, without an extension that uses them");
        ensure!(second & 0x80 == 0, "a masked frame from a server");
        let opcode = match first & 0x0f {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            reserved => bail!("a frame with the reserved opcode {reserved}"),
        };
        let is_compressed = first & 0x40 != 0;
        let may_be = matches!(opcode, Opcode::Text | Opcode::Binary);
        ensure!(!is_compressed || may_be, "a frame that says that it is compressed, which cannot be");
        let (header, length) = match (second & 0x7f, rest) {
            (126, [high, low, ..]) => (4, usize::from(u16::from_be_bytes([*high, *low]))),
            (127, [a, b, c, d, e, f, g, h, ..]) => (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) as usize),
            (126 | 127, _) => return Ok(None),
            (length, _) => (2, usize::from(length)),
        };
        ensure!(length <= MESSAGE_BYTES_MAX, "a frame of more than 16 MiB");
        let Some(payload) = bytes.get(header..header + length) else { return Ok(None) };
        Ok(Some((Frame { is_final: first & 0x80 != 0, is_compressed, opcode, payload }, header + length)))
    }
}

fn push_header(frame: &mut Vec<u8>, opcode: Opcode, length: usize, mask_bit: u8) {
    let code = match opcode {
        Opcode::Continuation => 0,
        Opcode::Text => 1,
        Opcode::Binary => 2,
        Opcode::Close => 8,
        Opcode::Ping => 9,
        Opcode::Pong => 10,
    };
    frame.push(0x80 | code);
    match length {
        0..=125 => frame.push(mask_bit | length as u8),
        126..=65_535 => {
            frame.push(mask_bit | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            frame.push(mask_bit | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that a reader hands on, in words, for input that arrives in pieces.
    fn read(pieces: &[&[u8]]) -> Result<Vec<String>> {
        let mut reader = MessageReader::default();
        let mut messages = Vec::new();
        for piece in pieces {
            reader.read(piece, &mut |message| {
                messages.push(match message {
                    Message::Data(data) => format!("data {}", String::from_utf8_lossy(data)),
                    Message::Ping(data) => format!("ping {}", String::from_utf8_lossy(data)),
                    Message::Close { code, reason } => format!("close {code} {}", String::from_utf8_lossy(reason)),
                });
                Ok(())
            })?;
        }
        Ok(messages)
    }

    #[test]
    fn frames_of_every_length_form_arrive_whole() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let text = "x".repeat(length);
            let frame = server_frame(Opcode::Text, text.as_bytes());
            assert_eq!(read(&[&frame]).unwrap(), [format!("data {text}")]);
        }
    }

    #[test]
    fn input_may_be_cut_anywhere() {
        let stream = [
            server_frame(Opcode::Text, b"one"),
            server_frame(Opcode::Ping, b"p"),
            server_frame(Opcode::Binary, &[b'y'; 300]),
        ]
        .concat();
        let whole = read(&[&stream]).unwrap();
        assert_eq!(whole.len(), 3);
        for cut in 0..stream.len() {
            assert_eq!(read(&[&stream[..cut], &stream[cut..]]).unwrap(), whole, "cut at {cut}");
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(&single).unwrap(), whole);
    }

    #[test]
    fn fragments_become_one_message_around_control_frames() {
        let stream = [b"\x01\x02ab".as_slice(), &server_frame(Opcode::Ping, b""), b"\x00\x01c", b"\x80\x01d"];
        assert_eq!(read(&stream).unwrap(), ["ping ", "data abcd"]);
    }

    #[test]
    fn compressed_messages_are_inflated_and_what_they_spared_is_counted() {
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let whole = [&[0xc1, 0x07][..], &hello].concat();
        // The same in two frames, of which the first alone says so; then one that refers to it.
        let parts = [&[0x41, 0x03][..], &hello[..3], &[0x80, 0x04], &hello[3..]].concat();
        let again = [0xc1, 0x05, 0xf2, 0x00, 0x11, 0x00, 0x00];
        let mut reader = MessageReader::default();
        reader.agree(Agreement { keeps_context: true });
        let mut messages = Vec::new();
        let stream = [&whole[..], &server_frame(Opcode::Text, b"plain"), &parts, &again].concat();
        let mut take = |message: Message<'_>| {
            let Message::Data(data) = message else { panic!("{message:?}") };
            messages.push(data.to_vec());
            Ok(())
        };
        reader.read(&stream, &mut take).unwrap();
        assert_eq!(messages, [b"Hello", b"plain", b"Hello", b"Hello"]);
        assert_eq!(reader.take_savings(), Savings { messages: 3, bytes: -4 });
        assert_eq!(reader.take_savings(), Savings::default());
        let error = read(&[&whole]).unwrap_err().to_string();
        assert!(error.contains("was not agreed on"), "{error}");
    }

    #[test]
    fn close_frames_tell_code_and_reason() {
        assert_eq!(read(&[b"\x88\x04\x0b\xb9hm"]).unwrap(), ["close 3001 hm"]);
        assert_eq!(read(&[b"\x88\x00"]).unwrap(), ["close 1005 "]);
    }

    #[test]
    fn broken_frames_are_errors() {
        for bad in [
            b"\xa1\x00".as_slice(),
            b"\xc9\x00",
            b"\x01\x00\xc0\x00",
            b"\x81\x80",
            b"\x83\x00",
            b"\x80\x00",
            b"\x01\x00\x81\x00",
        ] {
            assert!(read(&[bad]).is_err(), "{bad:?}");
        }
        assert!(read(&[b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff"]).is_err());
    }

    #[test]
    fn a_client_frame_unmasks_to_its_payload() {
        let frame = client_frame(Opcode::Text, b"hello", [1, 2, 3, 4]);
        assert_eq!(frame[..2], [0x81, 0x85]);
        let payload: Vec<u8> =
            frame[6..].iter().zip(frame[2..6].iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        assert_eq!(payload, b"hello");
    }

    #[test]
    fn the_upgrade_is_checked() {
        let good = upgrade_response();
        let upgrade = Upgrade { length: good.len(), agreement: None };
        assert_eq!(read_upgrade_response(&good, true).unwrap(), Some(upgrade));
        assert_eq!(read_upgrade_response(&good[..good.len() - 1], true).unwrap(), None);
        let refused = b"HTTP/1.1 403 Forbidden\r\n\r\norigin not allowed";
        let error = read_upgrade_response(refused, false).unwrap_err().to_string();
        assert!(error.contains("403 Forbidden origin not allowed"), "{error}");
        let good = String::from_utf8(good).unwrap();
        assert!(read_upgrade_response(good.replace(ACCEPT, "x").as_bytes(), false).is_err());
        assert!(read_upgrade_response(&vec![b'x'; RESPONSE_HEAD_BYTES_MAX], false).is_err());
        let agreed = good.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
        let upgrade = read_upgrade_response(agreed.as_bytes(), true).unwrap().unwrap();
        assert_eq!(upgrade.agreement, Some(Agreement { keeps_context: true }));
        assert!(read_upgrade_response(agreed.as_bytes(), false).is_err(), "it was not offered");
    }
}
