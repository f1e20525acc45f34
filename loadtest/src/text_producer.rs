//! A producer among the clients, for servers without an ingest port of ours: it connects as they do
//! and publishes by a text of the operator's.

use std::{
    borrow::Cow,
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    arguments::CommonArguments,
    composer::Composer,
    pace::{Outlet, Pace, Pushed},
    producer::Source,
    stamp::Stamp,
    stream::{Positions, Stream},
    target::{self, ClientUrl},
    tls::{Connector, Session},
    websocket::{Message, MessageReader, Opcode, Upgrade, client_frame, read_upgrade_response, upgrade_request},
};

/// How long the server may take to answer the upgrade.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// RFC 6455 section 5.3 wants masks that nobody can foresee, for the sake of browsers' users: this is none.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x96, 0x3c];

/// A client that publishes.
pub struct TextProducer {
    stream: TcpStream,
    /// If clients speak TLS.
    session: Option<Session>,
    reader: MessageReader,
    text: String,
    channels: Vec<String>,
    composer: Composer,
    positions: Positions,
    next: usize,
}

impl TextProducer {
    /// Connects to the clients' URL and sends what clients send first.
    ///
    /// # Errors
    /// If the text has no place for the payload, or the server is not there or refuses.
    pub fn connect(
        common: &CommonArguments,
        text: String,
        channels: Vec<String>,
        composer: Composer,
    ) -> Result<TextProducer> {
        ensure!(
            text.contains("{payload}"),
            "--publish-text {text}: {{payload}} is missing, which is what is published"
        );
        let ClientUrl { host, path, .. } = target::parse_url(&common.url)?;
        let connector = target::security(common)?.as_ref().map(Connector::new).transpose()?;
        let session = connector.map(|connector| connector.begin()).transpose()?;
        let stream = TcpStream::connect(&host).with_context(|| format!("the producer's connection to {host}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(UPGRADE_TIMEOUT))?;
        let positions = Positions::default();
        let reader = MessageReader::default();
        let mut producer = TextProducer { stream, session, reader, text, channels, composer, positions, next: 0 };
        producer.shake_hands().context("the producer's TLS handshake")?;
        producer.upgrade(&host, &path).context("the producer's upgrade request")?;
        if let Some(connect) = &common.connect_text {
            producer.send(&connect.replace("{client}", "producer"))?;
        }
        Ok(producer)
    }

    fn shake_hands(&mut self) -> Result<()> {
        while self.session.as_ref().is_some_and(Session::is_shaking_hands) {
            self.write(b"")?;
            ensure!(self.read(&mut [0; 4096], &mut Vec::new())? > 0, "the server ends the connection");
        }
        Ok(())
    }

    fn upgrade(&mut self, host: &str, path: &str) -> Result<()> {
        self.write(&upgrade_request(host, path, None))?;
        let mut head = Vec::new();
        loop {
            let received = self.read(&mut [0; 4096], &mut head)?;
            ensure!(received > 0, "the server ends the connection instead of answering");
            if let Some(Upgrade { length, .. }) = read_upgrade_response(&head, false)? {
                return self.take(&head[length..]);
            }
        }
    }

    fn send(&mut self, text: &str) -> Result<()> {
        self.write(&client_frame(Opcode::Text, text.as_bytes(), MASK))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.set_nonblocking(false)?;
        let sealed = match &mut self.session {
            None => Cow::Borrowed(bytes),
            Some(session) => {
                if !bytes.is_empty() {
                    session.seal(bytes)?;
                }
                Cow::Owned(session.take_output())
            }
        };
        self.stream.write_all(&sealed).context("the producer's connection broke")
    }

    /// Receives once, with this much room: how many bytes over the wire. What they hold goes to `opened`.
    fn read(&mut self, buffer: &mut [u8], opened: &mut Vec<u8>) -> io::Result<usize> {
        let received = self.stream.read(buffer)?;
        match &mut self.session {
            None => opened.extend_from_slice(&buffer[..received]),
            Some(session) => session.receive(&mut buffer[..received], opened)?,
        }
        Ok(received)
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        let mut pongs = Vec::new();
        self.reader.read(bytes, &mut |message| match message {
            Message::Data(_) => Ok(()),
            Message::Ping(payload) => {
                pongs.extend(client_frame(Opcode::Pong, payload, MASK));
                Ok(())
            }
            Message::Close { code, reason } => {
                bail!("the server closed the producer's connection: {code} {}", String::from_utf8_lossy(reason))
            }
        })?;
        if pongs.is_empty() { Ok(()) } else { self.write(&pongs) }
    }
}

impl Outlet for TextProducer {
    fn push_burst(&mut self, burst: u32, intended_ns: u64) -> Result<()> {
        let mut frames = Vec::new();
        for _ in 0..burst {
            let stream = Stream::Channel(self.next as u32);
            let stamp = Stamp { stream, sequence: self.positions.advance(stream), intended_ns };
            let mut payload = Vec::new();
            self.composer.compose(stamp, &mut payload);
            let text = self.text.replace("{channel}", &self.channels[self.next]);
            let text = text.replace("{payload}", &String::from_utf8_lossy(&payload));
            frames.extend(client_frame(Opcode::Text, text.as_bytes(), MASK));
        }
        self.next = (self.next + 1) % self.channels.len();
        self.write(&frames)
    }

    fn drain(&mut self) -> Result<()> {
        self.stream.set_nonblocking(true)?;
        let mut buffer = [0; 64 * 1024];
        loop {
            let mut opened = Vec::new();
            match self.read(&mut buffer, &mut opened) {
                Ok(0) => bail!("the server ended the producer's connection"),
                Ok(_) => {
                    self.take(&opened)?;
                    self.stream.set_nonblocking(true)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("the producer's connection broke"),
            }
        }
    }
}

impl Source for TextProducer {
    fn push(&mut self, pace: &Pace, published: &AtomicU64, stop: &AtomicBool) -> Result<Pushed> {
        pace.keep(self, published, stop)
    }

    fn positions(&self) -> &Positions {
        &self.positions
    }
}
