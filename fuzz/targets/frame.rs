//! A client's bytes after its upgrade: any bytes.
//!
//! Checked: what is said does not depend on where the network cut, nor on whether the reader is
//! called before the bytes it asked for are there; messages keep their limit and texts are UTF-8;
//! `tungstenite`'s server understands what we understood; `tungstenite`'s client reads it again
//! when we write it. All but what the reference says holds where messages may be compressed, too.

#![no_main]

use std::io::{self, ErrorKind, Write};

use libfuzzer_sys::fuzz_target;
use tidegate::{
    limits::{FRAME_HEADER_BYTES_MAX, deflated_bytes_max},
    websocket::{
        deflate::Inflater,
        frame::{self, Control, Data, OpCode},
        message::{self, Event, Fragments, Read, Violation},
    },
};
use tungstenite::{
    Message, WebSocket,
    protocol::{CloseFrame, Role, WebSocketConfig},
};

/// Small, so that the fuzzer finds it.
const MESSAGE_BYTES_MAX: usize = 300;

fuzz_target!(|input: &[u8]| {
    let (said, result) = read_whole_and_cut(input, false);
    compare_with_reference(input, &said, result);
    check_written(&said);
    let (said, _) = read_whole_and_cut(input, true);
    check_written(&said);
});

/// Reads a stream as it is and cut in pieces. `is_inflating`: permessage-deflate is agreed on.
fn read_whole_and_cut(input: &[u8], is_inflating: bool) -> (Vec<Message>, Result<(), Violation>) {
    let whole = read_all([input], Patience::None, is_inflating);
    assert_eq!(read_all(input.chunks(1), Patience::None, is_inflating), whole, "byte by byte");
    assert_eq!(read_all(input.chunks(1), Patience::Asked, is_inflating), whole, "with no more calls than asked for");
    assert_eq!(read_all(input.chunks(7), Patience::Asked, is_inflating), whole, "in pieces of seven");
    whole
}

/// When a connection calls the reader.
#[derive(Clone, Copy, PartialEq)]
enum Patience {
    /// After each receive.
    None,
    /// When the bytes are there that it asked for.
    Asked,
}

/// Reads a stream as a session does, up to its close frame or its first violation.
fn read_all<'a>(
    received: impl IntoIterator<Item = &'a [u8]>,
    patience: Patience,
    is_inflating: bool,
) -> (Vec<Message>, Result<(), Violation>) {
    let mut inflater = is_inflating.then(Inflater::default);
    let payload_bytes_max = if is_inflating { deflated_bytes_max(MESSAGE_BYTES_MAX) } else { MESSAGE_BYTES_MAX };
    let mut partial = Vec::new();
    let mut wanted = 0;
    let mut fragments: Option<Box<Fragments>> = None;
    let mut said = Vec::new();
    for bytes in received {
        partial.extend_from_slice(bytes);
        while !partial.is_empty() && (patience == Patience::None || partial.len() >= wanted) {
            match message::read(&mut partial, &mut fragments, MESSAGE_BYTES_MAX, inflater.as_mut()) {
                Ok(Read::Incomplete { bytes_min }) => {
                    assert!(bytes_min > partial.len(), "asked for bytes that are there");
                    assert!(bytes_min <= FRAME_HEADER_BYTES_MAX + payload_bytes_max, "asked for more than may be");
                    wanted = bytes_min;
                    break;
                }
                Ok(Read::Event { event, bytes }) => {
                    let message = message_of(event);
                    partial.drain(..bytes);
                    wanted = 0;
                    let is_close = matches!(message, Some(Message::Close(_)));
                    said.extend(message);
                    if is_close {
                        return (said, Ok(()));
                    }
                }
                Err(violation) => return (said, Err(violation)),
            }
        }
    }
    (said, Ok(()))
}

/// The event in `tungstenite`'s words; none for a fragment.
fn message_of(event: Event<'_>) -> Option<Message> {
    let message = match event {
        Event::Message { binary, payload } => {
            assert!(payload.len() <= MESSAGE_BYTES_MAX, "a message above the limit");
            match binary {
                true => Message::binary(payload.into_owned()),
                false => Message::text(str::from_utf8(&payload).expect("a text is UTF-8")),
            }
        }
        Event::Ping(payload) => Message::Ping(payload.to_vec().into()),
        Event::Pong(payload) => Message::Pong(payload.to_vec().into()),
        Event::Close { code, reason } => {
            Message::Close(code.map(|code| CloseFrame { code: code.into(), reason: reason.into() }))
        }
        Event::Continue => return None,
    };
    Some(message)
}

/// `tungstenite` as a server says the same, as far as we read. It may go on where we refuse (it
/// takes lengths that are not minimal), and knows close code 1014 not yet.
fn compare_with_reference(input: &[u8], said: &[Message], result: Result<(), Violation>) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .read_buffer_size(4096);
    let stream = Stream { input: input.to_vec(), position: 0 };
    let mut reference = WebSocket::from_raw_socket(stream, Role::Server, Some(config));
    for message in said {
        if matches!(message, Message::Close(Some(frame)) if u16::from(frame.code) == 1014) {
            return;
        }
        assert_eq!(reference.read().ok().as_ref(), Some(message));
    }
    if result.is_ok() && !matches!(said.last(), Some(Message::Close(_))) {
        match reference.read() {
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
            other => panic!("we wait for more, the reference says {other:?}"),
        }
    }
}

/// What we write of it is what `tungstenite` reads as a client.
fn check_written(said: &[Message]) {
    let mut written = Vec::new();
    for message in said {
        match message {
            Message::Text(text) => {
                let mark = frame::begin(&mut written);
                written.extend_from_slice(text.as_bytes());
                frame::finish(&mut written, mark, OpCode::Data(Data::Text));
            }
            Message::Binary(payload) => frame::write(&mut written, OpCode::Data(Data::Binary), payload),
            Message::Ping(payload) => frame::write(&mut written, OpCode::Control(Control::Ping), payload),
            Message::Pong(payload) => frame::write(&mut written, OpCode::Control(Control::Pong), payload),
            Message::Close(None) => frame::write(&mut written, OpCode::Control(Control::Close), &[]),
            Message::Close(Some(close)) => frame::write_close(&mut written, close.code.into(), &close.reason),
            Message::Frame(_) => unreachable!("a reader does not return frames"),
        }
    }
    let mut reference = WebSocket::from_raw_socket(Stream { input: written, position: 0 }, Role::Client, None);
    for message in said {
        if matches!(message, Message::Close(Some(frame)) if u16::from(frame.code) == 1014) {
            return;
        }
        assert_eq!(reference.read().ok().as_ref(), Some(message));
    }
}

/// A peer that said something and takes everything.
struct Stream {
    input: Vec<u8>,
    position: usize,
}

impl io::Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = io::Read::read(&mut &self.input[self.position..], bytes)?;
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.position += count;
        Ok(count)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
