//! A producer that pipelines.

use bytes::{Bytes, BytesMut};

use tidegate::resp::{Command, Limits, Parser, write_command};

/// As the server's default.
const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// What arrives from a producer in one read: whole commands, one behind the other.
pub struct Pipeline {
    bytes: Vec<u8>,
    limits: Limits,
}

impl Pipeline {
    /// So many `PUBLISH` with payloads of so many bytes.
    pub fn new(commands: usize, payload_bytes: usize) -> Self {
        let payload = vec![b'x'; payload_bytes];
        let mut bytes = Vec::new();
        for _ in 0..commands {
            write_command([&b"PUBLISH"[..], b"news:europe", &payload].into_iter(), &mut bytes);
        }
        Self { bytes, limits: Limits::new(PAYLOAD_BYTES_MAX) }
    }

    /// The bytes come anew, as from a socket, and are parsed; payloads are taken without a copy: their bytes.
    pub fn parse(&self) -> usize {
        let mut input = BytesMut::from(&*self.bytes);
        let mut parser = Parser::new();
        let mut payload_bytes = 0;
        while let Some(command) = parser.take(&mut input, &self.limits).expect("the commands are well-formed") {
            payload_bytes += payload(&command).len();
        }
        assert!(input.is_empty(), "the last command is whole");
        payload_bytes
    }
}

fn payload(command: &Command) -> Bytes {
    command.share(2).expect("PUBLISH has a channel and a payload")
}
