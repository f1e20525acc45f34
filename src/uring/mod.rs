//! The kernel as a shard sees it, through one io_uring.
//!
//! Owns the [`Kernel`] interface, the real ring behind it, the bells that wake sleeping threads, kernel TLS and
//! the probe of the host's features; descriptors that the process began with, since taking them over is `unsafe`.
//! What to do with sockets is the shard's business.
//!
//! Two kinds of requests go to the kernel:
//! - *Batches* ([`Kernel::receive`], [`Kernel::send`]) never wait for a socket, and have ended when
//!   the call returns: their buffers are borrowed for the call, and no connection owns any.
//! - *Parked* requests (accept, readiness, bells) stay with the kernel and become [`Event`]s.
//!
//! Invariants:
//! - This module holds the crate's only `unsafe` code. A batch does not return before each of its
//!   requests has completed; were that broken, the kernel would read freed memory.
//! - A [`Token`] names a connection by index and generation. Events of connections that are gone
//!   can still arrive; whoever handles them compares generations.

mod bell;
mod clock;
mod descriptor;
mod probe;
mod ring;
pub mod simulated;
#[cfg(test)]
mod tests;
mod tls;

use std::{fmt, io, net::SocketAddr, os::fd::OwnedFd};

use nix::errno::Errno;

pub use self::{
    bell::Bell,
    clock::monotonic_us,
    descriptor::take_inherited,
    probe::{Features, HostError, probe},
    ring::{Listener, Ring, RingOptions},
    tls::{
        DirectionKeys, HandOverError, KernelTls, RECORD_KEY_BYTES_MAX, RECORD_NONCE_BYTES, RecordCipher, RecordKeys,
        probe_tls,
    },
};

/// A socket by its descriptor. The shard owns it and ends it with [`Kernel::close`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Socket(pub i32);

/// A connection as the kernel hands it back: slab index, and how often that index was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// Index in the shard's slab.
    pub index: u32,
    /// Of the low [`Token::GENERATION_BITS`] bits.
    pub generation: u32,
}

impl Token {
    /// Bits of a generation that fit a request's user data beside index and kind.
    pub const GENERATION_BITS: u32 = 24;

    /// A connection's name; of its generation the low bits.
    pub fn new(index: u32, generation: u32) -> Self {
        Self { index, generation: generation & ((1 << Self::GENERATION_BITS) - 1) }
    }
}

/// What happened to a parked request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A client's socket.
    Accepted(Socket),
    /// Accepting has ended: by [`Kernel::stop_accepting`], or because of this error. [`Kernel::accept`] begins it anew.
    AcceptEnded(Option<Errno>),
    /// Bytes, an end or an error wait to be received. `ended`: an end or an error is among them, so that receiving
    /// must go on until it is seen; the kernel does not tell of it again.
    Ready {
        /// Which connection.
        token: Token,
        /// The peer has ended, or the socket has failed.
        ended: bool,
    },
    /// The kernel no longer watches the connection though nobody asked it to stop: park it again.
    Unparked(Token),
    /// The socket takes bytes again, or has failed.
    Writable(Token),
    /// Another thread has sent something.
    Rung,
}

/// What TCP knows of the way to a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathQuality {
    /// Smoothed round-trip time, in milliseconds.
    pub round_trip_ms: u32,
    /// Segments that are being retransmitted now, or time-outs in a row.
    pub retransmits: u32,
}

/// One receive of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Receive {
    /// From where.
    pub socket: Socket,
}

/// One send of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Send<'a> {
    /// Where to.
    pub socket: Socket,
    /// What.
    pub bytes: &'a [u8],
}

/// What a shard asks of the kernel. The real one is [`Ring`].
pub trait Kernel {
    /// Monotonic milliseconds.
    fn now_ms(&self) -> u64;

    /// Monotonic microseconds, by a clock that all threads share ([`monotonic_us`]).
    fn now_us(&self) -> u64 {
        self.now_ms() * 1000
    }

    /// Seconds since 1970.
    fn now_unix_seconds(&self) -> u64;

    /// Begins to accept: each client becomes [`Event::Accepted`].
    fn accept(&mut self);

    /// Ends accepting; what is in the backlog stays there.
    fn stop_accepting(&mut self);

    /// Watches a socket until it is closed, without a buffer: [`Event::Ready`] whenever something arrives.
    fn park(&mut self, socket: Socket, token: Token);

    /// Watches once for room: [`Event::Writable`].
    fn park_writable(&mut self, socket: Socket, token: Token);

    /// Receives into the scratch buffer, at most [`crate::limits::RECEIVE_BATCH_MAX`] at a time. Outcomes are
    /// in the order of the requests: bytes (0: the peer has ended), or the error (`EAGAIN`: nothing there).
    fn receive(&mut self, requests: &[Receive], outcomes: &mut Vec<Result<usize, Errno>>);

    /// What the request at `position` of the last [`Kernel::receive`] brought, at most
    /// [`crate::limits::RECEIVE_BYTES_MAX`] bytes.
    fn received(&mut self, position: usize, bytes: usize) -> &mut [u8];

    /// Sends what the sockets take now, at most [`crate::limits::SEND_BATCH_MAX`] at a time. Outcomes are in the
    /// order of the requests: bytes taken, or the error (`EAGAIN`: no room).
    fn send(&mut self, requests: &[Send<'_>], outcomes: &mut Vec<Result<usize, Errno>>);

    /// Ends our side of the stream; the peer sees an end behind what was sent.
    fn shut_down(&mut self, socket: Socket);

    /// Stops watching and closes. `writable_parked`: [`Kernel::park_writable`] is under way.
    fn close(&mut self, socket: Socket, token: Token, writable_parked: bool);

    /// Another descriptor of the same socket, for another thread: it stays open when the socket is closed.
    ///
    /// # Errors
    /// When descriptors have run out.
    fn duplicate(&self, socket: Socket) -> io::Result<OwnedFd>;

    /// Wakes another shard.
    fn ring(&mut self, shard: u16);

    /// Hands over what was asked for and appends what happened; waits for the first event, but no longer than
    /// `timeout_ms` (none: as long as it takes; 0: not at all).
    fn wait(&mut self, timeout_ms: Option<u64>, events: &mut Vec<Event>);

    /// How good the way to a peer is; none if the kernel cannot say.
    fn path_quality(&self, socket: Socket) -> Option<PathQuality>;

    /// Where a socket's peer is; none if it is gone, or nowhere.
    fn peer_address(&self, socket: Socket) -> Option<SocketAddr> {
        let _ = socket;
        None
    }

    /// Gives the keys of a socket's records to the kernel, which seals and opens them from then on: what is sent and
    /// received is plaintext. The next byte to be received begins a record.
    ///
    /// # Errors
    /// When the kernel does not take them.
    fn hand_over_records(&self, socket: Socket, keys: &RecordKeys) -> Result<(), HandOverError> {
        let _ = (socket, keys);
        Err(HandOverError::Refused(Errno::EOPNOTSUPP))
    }

    /// Takes the record that is first in line on a socket whose records are the kernel's, after a receive has failed with
    /// `EIO`: what it carries, by its number on the wire, and its bytes as far as there is room.
    ///
    /// # Errors
    /// When there is none, or the socket has failed.
    fn receive_record(&self, socket: Socket, bytes: &mut [u8]) -> Result<(u8, usize), Errno> {
        let _ = (socket, bytes);
        Err(Errno::EOPNOTSUPP)
    }

    /// Sends a record that is no data on a socket whose records are the kernel's.
    ///
    /// # Errors
    /// `EAGAIN`: what was sent before is not with TCP yet, or there is no room. Others: the socket has failed.
    fn send_record(&self, socket: Socket, content: u8, bytes: &[u8]) -> Result<(), Errno> {
        let _ = (socket, content, bytes);
        Err(Errno::EOPNOTSUPP)
    }

    /// Records that the kernel has sealed on a socket with a key that wears out; none: it does not.
    fn records_sent(&self, socket: Socket) -> Option<u64> {
        let _ = socket;
        None
    }

    /// Calls of `io_uring_enter` so far, for figures.
    fn enters(&self) -> u64;

    /// Other calls so far, by name.
    fn other_calls(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// A descriptor of a ring, for other shards' [`Kernel::ring`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingDescriptor(pub i32);

impl fmt::Display for Socket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "socket {}", self.0)
    }
}

fn outcome(result: i32) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::from_raw(-result))
}

fn fatal(what: &str, error: &io::Error) -> ! {
    panic!("{what} failed, which the ring does not survive: {error}")
}
