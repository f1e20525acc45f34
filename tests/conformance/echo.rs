//! An echo server over plain sockets, a thread for each connection: text for text, binary for binary, close codes mirrored.
//!
//! Owns the sockets and what is said. Every byte in between is the server's own work: the request's head, what is agreed
//! on about compression, messages out of frames, frames out of messages. What may be compressed is compressed, with the
//! window of the connection's earlier messages where that was agreed on.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use tidegate::{
    http::{self, Answer, Head},
    websocket::{
        deflate::{Deflater, Deflation, Inflater, negotiation::negotiate},
        frame::{self, Control, Data, OpCode},
        handshake,
        message::{self, Event, Fragments, Read},
    },
};

/// The suite's longest message.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of one receive.
const RECEIVE_BYTES: usize = 64 * 1024;

/// How long a peer that was told the end may take to end its side.
const LINGER: Duration = Duration::from_secs(5);

/// Begins to serve; for as long as the process lives.
pub fn start() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("connections can be accepted");
            // A peer that goes without a word is its own business.
            thread::spawn(move || drop(serve(stream)));
        }
    });
    address
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut connection = Connection::default();
    let mut received = vec![0; RECEIVE_BYTES];
    let mut output = Vec::new();
    loop {
        let bytes = stream.read(&mut received)?;
        if bytes == 0 {
            return Ok(());
        }
        let flow = connection.receive(&received[..bytes], &mut output);
        stream.write_all(&output)?;
        output.clear();
        match flow {
            Flow::Continue => {}
            Flow::Drop => return Ok(()),
            Flow::Closing => break,
        }
    }
    // Sockets that are closed with bytes unread are reset, and the last frame with them.
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(LINGER))?;
    while stream.read(&mut received)? > 0 {}
    Ok(())
}

/// What follows from what was received.
enum Flow {
    Continue,
    /// The last word is said, and the peer's end is awaited.
    Closing,
    /// Both have said their last word.
    Drop,
}

/// A peer's bytes in, the server's bytes out.
#[derive(Default)]
struct Connection {
    input: Vec<u8>,
    is_upgraded: bool,
    fragments: Option<Box<Fragments>>,
    /// Where permessage-deflate is agreed on.
    compression: Option<Compression>,
}

/// What a connection needs to speak and hear compressed.
struct Compression {
    deflation: Deflation,
    inflater: Inflater,
    deflater: Deflater,
    /// What the peer's window holds.
    context: Vec<u8>,
}

impl Connection {
    fn receive(&mut self, bytes: &[u8], output: &mut Vec<u8>) -> Flow {
        self.input.extend_from_slice(bytes);
        if !self.is_upgraded {
            match self.upgrade(output) {
                Flow::Continue if self.is_upgraded => {}
                flow => return flow,
            }
        }
        let mut input = std::mem::take(&mut self.input);
        let mut taken = 0;
        let flow = loop {
            let inflater = self.compression.as_mut().map(|compression| &mut compression.inflater);
            match message::read(&mut input[taken..], &mut self.fragments, MESSAGE_BYTES_MAX, inflater) {
                Ok(Read::Incomplete { .. }) => break Flow::Continue,
                Ok(Read::Event { event, bytes }) => {
                    taken += bytes;
                    if let Flow::Drop = self.hear(event, output) {
                        break Flow::Drop;
                    }
                }
                Err(violation) => {
                    frame::write_close(output, violation.close_code(), &violation.to_string());
                    break Flow::Closing;
                }
            }
        };
        input.drain(..taken);
        self.input = input;
        flow
    }

    fn upgrade(&mut self, output: &mut Vec<u8>) -> Flow {
        match http::parse(&self.input) {
            Ok(Head::Incomplete) => return Flow::Continue,
            Ok(Head::Complete { request, bytes }) => match handshake::check(&request) {
                Ok(upgrade) => {
                    let agreement = negotiate(&upgrade.extensions);
                    handshake::respond_accept(output, upgrade.key, None, agreement);
                    self.compression = agreement.map(|agreement| Compression::new(agreement.deflation));
                    self.is_upgraded = true;
                    self.input.drain(..bytes);
                    return Flow::Continue;
                }
                Err(rejection) => handshake::respond_rejection(output, &rejection),
            },
            Err(rejection) => Answer::last(rejection.status(), &format!("{rejection}\n")).write(output),
        }
        Flow::Closing
    }

    fn hear(&mut self, event: Event<'_>, output: &mut Vec<u8>) -> Flow {
        match event {
            Event::Message { binary, payload } => {
                let data = if binary { Data::Binary } else { Data::Text };
                match &mut self.compression {
                    Some(compression) => compression.write(output, data, &payload),
                    None => frame::write(output, OpCode::Data(data), &payload),
                }
            }
            Event::Ping(payload) => frame::write(output, OpCode::Control(Control::Pong), payload),
            Event::Pong(_) | Event::Continue => {}
            Event::Close { code, .. } => {
                match code {
                    Some(code) => frame::write_close(output, code, ""),
                    None => frame::write(output, OpCode::Control(Control::Close), &[]),
                }
                return Flow::Drop;
            }
        }
        Flow::Continue
    }
}

impl Compression {
    fn new(deflation: Deflation) -> Self {
        Self { deflation, inflater: Inflater::default(), deflater: Deflater::default(), context: Vec::new() }
    }

    /// Appends a message's frame, compressed.
    fn write(&mut self, output: &mut Vec<u8>, data: Data, payload: &[u8]) {
        let mark = frame::begin(output);
        self.deflater.begin(self.deflation.window, &self.context).compress(payload, output);
        frame::finish_deflated(output, mark, data);
        if self.deflation.keeps_context {
            self.context.extend_from_slice(payload);
            let surplus = self.context.len().saturating_sub(self.deflation.window.bytes());
            self.context.drain(..surplus);
        }
    }
}
