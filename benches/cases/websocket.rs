//! Frames that are read and written, and texts of a length.

use super::client_frame::{TEXT, client_frame};
use tidegate::websocket::{
    frame,
    message::{self, Event, Fragments, Read},
};

/// As the server's default.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// A JSON text of ASCII, of exactly so many bytes; at least 8.
pub fn json(bytes: usize) -> Vec<u8> {
    let mut text = b"{\"a\":\"".to_vec();
    text.extend((0..bytes - 8).map(|index| b'a' + (index % 26) as u8));
    text.extend_from_slice(b"\"}");
    text
}

/// A text in which characters of one to four bytes take turns, of about so many bytes.
pub fn mixed_text(bytes: usize) -> String {
    "aé語🌊".chars().cycle().take(bytes * 4 / 10).collect()
}

/// A server that receives one frame again and again.
pub struct Reading {
    frame: Vec<u8>,
    scratch: Vec<u8>,
    fragments: Option<Box<Fragments>>,
}

impl Reading {
    /// A frame with this payload.
    pub fn new(payload: &[u8]) -> Self {
        let frame = client_frame(payload);
        Self { scratch: frame.clone(), frame, fragments: None }
    }

    /// The bytes of the frame come anew, as from a socket, and are read: the payload's length.
    pub fn read(&mut self) -> usize {
        self.scratch.copy_from_slice(&self.frame);
        match message::read(&mut self.scratch, &mut self.fragments, MESSAGE_BYTES_MAX, None) {
            Ok(Read::Event { event: Event::Message { payload, .. }, .. }) => payload.len(),
            other => panic!("the frame is a whole message, but was read as {other:?}"),
        }
    }
}

/// A server that writes one payload again and again.
pub struct Writing {
    payload: Vec<u8>,
    out: Vec<u8>,
}

impl Writing {
    /// Of this payload.
    pub fn new(payload: &[u8]) -> Self {
        Self { payload: payload.to_vec(), out: Vec::new() }
    }

    /// The payload is appended between a frame's beginning and end, as publications are: the frame's length.
    pub fn write(&mut self) -> usize {
        self.out.clear();
        let mark = frame::begin(&mut self.out);
        self.out.extend_from_slice(&self.payload);
        frame::finish(&mut self.out, mark, TEXT);
        self.out.len()
    }
}
