//! Who pushes: a producer at the ingest port, a producer among the clients (see `text_producer`), or
//! the floor's server, behind one face.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    arguments::{CommonArguments, ProducerArguments},
    composer::Composer,
    pace::{Outlet, Pace, Pushed},
    resp::{ReplyReader, push_command},
    stamp::Stamp,
    stream::{Positions, Stream},
    text_producer::TextProducer,
};

/// Something that pushes publications.
pub trait Source: Send {
    /// Pushes at this pace; counts in `published`; ends early when told to stop.
    ///
    /// # Errors
    /// If the server refuses or goes away.
    fn push(&mut self, pace: &Pace, published: &AtomicU64, stop: &AtomicBool) -> Result<Pushed>;

    /// How far its streams are.
    fn positions(&self) -> &Positions;
}

/// Whom a producer addresses: stream i is the i-th of them.
#[derive(Debug, Clone)]
pub enum Addressees {
    /// Channels, in turn; the publications of one instant go to one channel.
    Channels(Vec<String>),
    /// Users, in turn; each publication goes to the next one.
    Users(Vec<String>),
}

impl Addressees {
    fn len(&self) -> usize {
        match self {
            Addressees::Channels(names) | Addressees::Users(names) => names.len(),
        }
    }

    fn stream(&self, index: usize) -> Stream {
        match self {
            Addressees::Channels(_) => Stream::Channel(index as u32),
            Addressees::Users(_) => Stream::User(index as u32),
        }
    }

    fn push_command(&self, index: usize, payload: &[u8], buffer: &mut Vec<u8>) {
        match self {
            Addressees::Channels(names) => push_command(buffer, &[b"PUBLISH", names[index].as_bytes(), payload]),
            Addressees::Users(names) => push_command(buffer, &[b"TG.SEND", names[index].as_bytes(), payload]),
        }
    }
}

/// The producer of the command line.
///
/// # Errors
/// If it cannot connect, or the server refuses it.
pub fn connect(
    common: &CommonArguments,
    producer: &ProducerArguments,
    addressees: Addressees,
    composer: Composer,
) -> Result<Box<dyn Source>> {
    match (&producer.publish_text, addressees) {
        (Some(text), Addressees::Channels(names)) => {
            Ok(Box::new(TextProducer::connect(common, text.clone(), names, composer)?))
        }
        (Some(_), Addressees::Users(_)) => bail!("--publish-text is for channels: users are reached by --ingest alone"),
        (None, addressees) => {
            let password = producer.ingest_password.as_deref();
            Ok(Box::new(RespProducer::connect(producer.ingest, password, addressees, composer)?))
        }
    }
}

/// A producer's connection to the ingest port.
#[derive(Debug)]
pub struct RespProducer {
    stream: TcpStream,
    replies: ReplyReader,
    /// Commands without a reply so far.
    outstanding: u64,
    addressees: Addressees,
    composer: Composer,
    payload: Vec<u8>,
    positions: Positions,
    next: usize,
    commands: Vec<u8>,
}

impl RespProducer {
    /// Connects, and gives the password if there is one.
    ///
    /// # Errors
    /// If nobody listens there, or the password is wrong.
    pub fn connect(
        address: SocketAddr,
        password: Option<&str>,
        addressees: Addressees,
        composer: Composer,
    ) -> Result<RespProducer> {
        let stream = TcpStream::connect(address).with_context(|| {
            format!("no ingest port at {address}: is the server running, and is --ingest its ingest.listen?")
        })?;
        stream.set_nodelay(true)?;
        let mut producer = RespProducer {
            stream,
            replies: ReplyReader::default(),
            outstanding: 0,
            addressees,
            composer,
            payload: Vec::new(),
            positions: Positions::default(),
            next: 0,
            commands: Vec::new(),
        };
        if let Some(password) = password {
            push_command(&mut producer.commands, &[b"AUTH", password.as_bytes()]);
            producer.send(1)?;
            producer.await_replies()?;
        }
        Ok(producer)
    }

    fn send(&mut self, commands: u64) -> Result<()> {
        self.stream.set_nonblocking(false)?;
        self.stream.write_all(&self.commands).context("the ingest port went away")?;
        self.commands.clear();
        self.outstanding += commands;
        Ok(())
    }

    fn await_replies(&mut self) -> Result<()> {
        self.stream.set_nonblocking(false)?;
        self.stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        while self.outstanding > 0 {
            let outstanding = self.outstanding;
            ensure!(self.read_replies()?, "the ingest port owes {outstanding} replies for more than 10 seconds");
        }
        Ok(())
    }

    /// One read; whether anything was there.
    fn read_replies(&mut self) -> Result<bool> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => bail!("the ingest port ended the connection"),
            Ok(received) => {
                self.outstanding -= self.replies.read(&buffer[..received])?.min(self.outstanding);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(error).context("the ingest port went away"),
        }
    }
}

const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

impl Outlet for RespProducer {
    fn push_burst(&mut self, burst: u32, intended_ns: u64) -> Result<()> {
        for number in 1..=burst {
            let stream = self.addressees.stream(self.next);
            let stamp = Stamp { stream, sequence: self.positions.advance(stream), intended_ns };
            self.composer.compose(stamp, &mut self.payload);
            self.addressees.push_command(self.next, &self.payload, &mut self.commands);
            if number == burst || matches!(self.addressees, Addressees::Users(_)) {
                self.next = (self.next + 1) % self.addressees.len();
            }
        }
        self.send(u64::from(burst))
    }

    fn drain(&mut self) -> Result<()> {
        self.stream.set_nonblocking(true)?;
        while self.outstanding > 0 && self.read_replies()? {}
        Ok(())
    }
}

impl Source for RespProducer {
    fn push(&mut self, pace: &Pace, published: &AtomicU64, stop: &AtomicBool) -> Result<Pushed> {
        let pushed = pace.keep(self, published, stop)?;
        self.await_replies()?;
        Ok(pushed)
    }

    fn positions(&self) -> &Positions {
        &self.positions
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, sync::atomic::Ordering::Relaxed};

    use super::*;

    /// An ingest port that answers each PUBLISH with `reply` and hands on what it was sent.
    fn ingest_port(reply: &'static [u8], commands: usize) -> (SocketAddr, std::thread::JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let port = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut received = Vec::new();
            let mut answered = 0;
            while answered < commands {
                let mut buffer = [0; 4096];
                let length = stream.read(&mut buffer).unwrap();
                received.extend_from_slice(&buffer[..length]);
                let complete = memchr::memmem::find_iter(&received, b"PUBLISH").count();
                for _ in answered..complete {
                    stream.write_all(reply).unwrap();
                }
                answered = complete;
            }
            received
        });
        (address, port)
    }

    #[test]
    fn every_publication_has_its_place_in_its_stream() {
        let (address, port) = ingest_port(b":1\r\n", 8);
        let channels = Addressees::Channels(vec!["a".to_owned(), "b".to_owned()]);
        let mut producer = RespProducer::connect(address, None, channels, Composer::Filler { bytes: 100 }).unwrap();
        let published = AtomicU64::new(0);
        let pushed =
            producer.push(&Pace { rate: 1e4, burst: 2, instants: 4 }, &published, &AtomicBool::new(false)).unwrap();
        assert_eq!((pushed.publications, published.load(Relaxed)), (8, 8));
        assert_eq!(producer.positions(), &Positions { channels: vec![4, 4], users: vec![] });
        let received = port.join().unwrap();
        let places = memchr::memmem::find_iter(&received, b"~tgl~");
        let stamps: Vec<_> =
            places.filter_map(|at| Stamp::parse(&received[at..])).map(|stamp| (stamp.stream, stamp.sequence)).collect();
        let expected = [(0, 1), (0, 2), (1, 1), (1, 2), (0, 3), (0, 4), (1, 3), (1, 4)];
        assert_eq!(stamps, expected.map(|(channel, sequence)| (Stream::Channel(channel), sequence)));
    }

    #[test]
    fn a_refusal_ends_the_pushing() {
        let (address, _port) = ingest_port(b"-ERR unknown channel\r\n", 1);
        let mut producer = RespProducer::connect(
            address,
            None,
            Addressees::Channels(vec!["x".to_owned()]),
            Composer::Filler { bytes: 64 },
        )
        .unwrap();
        let pace = Pace { rate: 100.0, burst: 1, instants: 50 };
        let error = producer.push(&pace, &AtomicU64::new(0), &AtomicBool::new(false)).unwrap_err();
        assert!(format!("{error:#}").contains("unknown channel"), "{error:#}");
    }
}
