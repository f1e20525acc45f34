//! The real kernel: one io_uring of one shard.

#![allow(unsafe_code)]

use std::{
    cell::Cell,
    io,
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::Arc,
    time::{Instant, SystemTime},
};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use nix::{
    errno::Errno,
    libc,
    sys::socket::{Shutdown, SockaddrStorage, getpeername, shutdown},
};

use super::{
    Bell, Event, Features, HandOverError, Kernel, PathQuality, Receive, RecordKeys, RingDescriptor, Send, Socket,
    Token, fatal, monotonic_us, outcome, tls,
};
use crate::limits::{RECEIVE_BATCH_MAX, RECEIVE_BYTES_MAX, SEND_BATCH_MAX};

/// Submissions that the ring holds before they are handed over: a whole batch of sends and what closes bring.
const SUBMISSIONS_MAX: u32 = 1024;

/// Completions that the ring holds; what comes beyond, the kernel keeps until there is room.
const COMPLETIONS_MAX: u32 = 8 * SUBMISSIONS_MAX;

const _: () = assert!(SEND_BATCH_MAX <= SUBMISSIONS_MAX as usize);
const _: () = assert!(RECEIVE_BATCH_MAX <= SUBMISSIONS_MAX as usize);

const KIND_BATCH: u8 = 1;
const KIND_ACCEPT: u8 = 2;
const KIND_READY: u8 = 3;
const KIND_WRITABLE: u8 = 4;
const KIND_BELL: u8 = 5;
const KIND_FORGOTTEN: u8 = 6;
const KIND_RUNG: u8 = 7;
const KIND_READY_ENDED: u8 = 8;
const KIND_WRITABLE_ENDED: u8 = 9;

/// Where a shard's clients come from.
#[derive(Debug)]
pub struct Listener {
    /// A listening socket.
    pub socket: OwnedFd,
    /// Whether others hold the same socket and go on listening: the service manager that passed it, or other shards.
    pub is_shared: bool,
}

/// What a ring is made of.
pub struct RingOptions {
    /// From [`super::probe`].
    pub features: Features,
    /// The shard's listener.
    pub listener: Listener,
    /// The shard's bell: its eventfd is watched.
    pub bell: Arc<Bell>,
    /// Bells of all shards by index, for kernels whose rings cannot ring each other.
    pub bells: Vec<Arc<Bell>>,
}

/// One io_uring, and the scratch buffer that everything is received into.
pub struct Ring {
    ring: IoUring,
    features: Features,
    listener: Listener,
    bell: Arc<Bell>,
    bells: Vec<Arc<Bell>>,
    peers: Vec<RingDescriptor>,
    scratch: Box<[u8]>,
    batch_results: Vec<i32>,
    batch_open: usize,
    events: Vec<Event>,
    started: Instant,
    enters: u64,
    /// By the constants below.
    other_calls: [(&'static str, Cell<u64>); 7],
}

const SHUTDOWN: usize = 0;
const GETSOCKOPT: usize = 1;
const GETPEERNAME: usize = 2;
const DUP: usize = 3;
const SETSOCKOPT: usize = 4;
const RECVMSG: usize = 5;
const SENDMSG: usize = 6;

impl Ring {
    /// Makes the ring. To be called on the thread that will use it: the kernel accepts submissions from no other.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn new(options: RingOptions) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(COMPLETIONS_MAX).setup_clamp().setup_submit_all();
        if options.features.defer_taskrun {
            builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        }
        let ring = builder.build(SUBMISSIONS_MAX)?;
        let mut ring = Self {
            ring,
            features: options.features,
            listener: options.listener,
            bell: options.bell,
            bells: options.bells,
            peers: Vec::new(),
            scratch: scratch(),
            batch_results: Vec::new(),
            batch_open: 0,
            events: Vec::new(),
            started: Instant::now(),
            enters: 0,
            other_calls: ["shutdown", "getsockopt", "getpeername", "dup", "setsockopt", "recvmsg", "sendmsg"]
                .map(|name| (name, Cell::new(0))),
        };
        ring.watch_bell();
        Ok(ring)
    }

    /// The descriptor that other shards ring.
    pub fn descriptor(&self) -> RingDescriptor {
        RingDescriptor(self.ring.as_raw_fd())
    }

    /// Tells the ring its peers' descriptors, by shard.
    pub fn set_peers(&mut self, peers: Vec<RingDescriptor>) {
        self.peers = peers;
    }

    fn watch_bell(&mut self) {
        let entry = opcode::PollAdd::new(types::Fd(self.bell.event().as_raw_fd()), poll_mask(libc::POLLIN))
            .multi(true)
            .build()
            .user_data(user_data(KIND_BELL, 0, 0));
        self.push(entry);
    }

    fn count_call(&self, call: usize) {
        let (_, count) = &self.other_calls[call];
        count.set(count.get() + 1);
    }

    /// Queues a request that owns or borrows no memory of ours.
    fn push(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: callers pass entries without pointers (poll, accept without an address, close, cancel,
            // shutdown, message), or, in batches, entries whose buffers outlive `finish_batch`.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            self.enter(0);
            self.harvest();
        }
    }

    fn enter(&mut self, completions_min: usize) {
        self.enters += 1;
        match self.ring.submit_and_wait(completions_min) {
            Ok(_) => {}
            // EBUSY and EAGAIN: completions must be taken before more is accepted; the caller takes them and comes again.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
            Err(error) => fatal("io_uring_enter", &error),
        }
    }

    fn harvest(&mut self) {
        let mut bell_ended = false;
        let mut busy = Vec::new();
        for completion in self.ring.completion() {
            let data = completion.user_data();
            let token = Token { index: data as u32, generation: (data >> 32) as u32 & 0x00ff_ffff };
            let result = completion.result();
            let more = cqueue::more(completion.flags());
            match (data >> 56) as u8 {
                KIND_BATCH => {
                    self.batch_results[token.index as usize] = result;
                    self.batch_open -= 1;
                }
                KIND_READY => {
                    if result != -libc::ECANCELED {
                        let ended =
                            result < 0 || result & i32::from(libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0;
                        self.events.push(Event::Ready { token, ended });
                        if !more {
                            self.events.push(Event::Unparked(token));
                        }
                    }
                }
                KIND_WRITABLE => {
                    if result != -libc::ECANCELED {
                        self.events.push(Event::Writable(token));
                    }
                }
                KIND_ACCEPT => {
                    if result >= 0 {
                        self.events.push(Event::Accepted(Socket(result)));
                    }
                    if !more {
                        let error = (result < 0 && result != -libc::ECANCELED).then(|| Errno::from_raw(-result));
                        self.events.push(Event::AcceptEnded(error));
                    }
                }
                KIND_BELL => {
                    self.bell.clear();
                    self.events.push(Event::Rung);
                    bell_ended |= !more;
                }
                KIND_RUNG => self.events.push(Event::Rung),
                KIND_FORGOTTEN => {}
                // It was about to tell of something, which it has done by now. It keeps the socket open until it ends.
                kind @ (KIND_READY_ENDED | KIND_WRITABLE_ENDED) => {
                    if result == -libc::EALREADY {
                        busy.push((kind, token));
                    }
                }
                kind => unreachable!("no request of kind {kind} is ever submitted"),
            }
        }
        if bell_ended {
            self.watch_bell();
        }
        busy.into_iter().for_each(|(kind, token)| self.end_watch(kind, token));
    }

    /// Ends a poll request of a socket; `kind` is that of the request which ends it.
    fn end_watch(&mut self, kind: u8, token: Token) {
        let watch = if kind == KIND_READY_ENDED { KIND_READY } else { KIND_WRITABLE };
        let entry = opcode::PollRemove::new(user_data(watch, token.index, token.generation))
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(user_data(kind, token.index, token.generation));
        self.push(entry);
    }

    fn begin_batch(&mut self, requests: usize) {
        self.batch_results.clear();
        self.batch_results.resize(requests, 0);
        self.batch_open = requests;
    }

    /// Returns when every request of the batch has completed; `MSG_DONTWAIT` makes them complete as they are submitted.
    fn finish_batch(&mut self, outcomes: &mut Vec<Result<usize, Errno>>) {
        self.enter(0);
        self.harvest();
        while self.batch_open > 0 {
            self.enter(1);
            self.harvest();
        }
        outcomes.clear();
        outcomes.extend(self.batch_results.iter().map(|result| outcome(*result)));
    }
}

impl Kernel for Ring {
    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn now_unix_seconds(&self) -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
    }

    fn accept(&mut self) {
        let entry = opcode::AcceptMulti::new(types::Fd(self.listener.socket.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(user_data(KIND_ACCEPT, 0, 0));
        self.push(entry);
    }

    fn stop_accepting(&mut self) {
        // The socket stays open for as long as the ring does; unless it stops listening, clients go on connecting
        // to a queue that nobody serves, instead of to the server's successor. It fails only if it does not listen.
        // A socket that others hold is their successor's, and who waits in its queue waits for that one.
        if !self.listener.is_shared {
            let _ = shutdown(self.listener.socket.as_raw_fd(), Shutdown::Read);
        }
        let entry =
            opcode::AsyncCancel::new(user_data(KIND_ACCEPT, 0, 0)).build().user_data(user_data(KIND_FORGOTTEN, 0, 0));
        self.push(entry);
    }

    fn park(&mut self, socket: Socket, token: Token) {
        let entry = opcode::PollAdd::new(types::Fd(socket.0), poll_mask(libc::POLLIN | libc::POLLRDHUP))
            .multi(true)
            .build()
            .user_data(user_data(KIND_READY, token.index, token.generation));
        self.push(entry);
    }

    fn park_writable(&mut self, socket: Socket, token: Token) {
        let entry = opcode::PollAdd::new(types::Fd(socket.0), poll_mask(libc::POLLOUT)).build().user_data(user_data(
            KIND_WRITABLE,
            token.index,
            token.generation,
        ));
        self.push(entry);
    }

    fn receive(&mut self, requests: &[Receive], outcomes: &mut Vec<Result<usize, Errno>>) {
        assert!(requests.len() <= RECEIVE_BATCH_MAX, "each receive has its part of the scratch buffer");
        self.begin_batch(requests.len());
        for (position, request) in requests.iter().enumerate() {
            // The parts do not overlap, and the buffer is not touched before the batch is finished.
            let part = self.scratch[position * RECEIVE_BYTES_MAX..][..RECEIVE_BYTES_MAX].as_mut_ptr();
            let entry = opcode::Recv::new(types::Fd(request.socket.0), part, RECEIVE_BYTES_MAX as u32)
                .flags(libc::MSG_DONTWAIT)
                .build()
                .user_data(user_data(KIND_BATCH, position as u32, 0));
            self.push(entry);
        }
        self.finish_batch(outcomes);
    }

    fn received(&mut self, position: usize, bytes: usize) -> &mut [u8] {
        assert!(bytes <= RECEIVE_BYTES_MAX, "a receive brings at most its part");
        &mut self.scratch[position * RECEIVE_BYTES_MAX..][..bytes]
    }

    fn send(&mut self, requests: &[Send<'_>], outcomes: &mut Vec<Result<usize, Errno>>) {
        assert!(requests.len() <= SEND_BATCH_MAX, "a batch fits the ring");
        self.begin_batch(requests.len());
        for (position, request) in requests.iter().enumerate() {
            let length = u32::try_from(request.bytes.len()).expect("outboxes are limited to less than 4 GiB");
            // `requests` borrows the bytes until this function returns, and it returns after `finish_batch`.
            let entry = opcode::Send::new(types::Fd(request.socket.0), request.bytes.as_ptr(), length)
                .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                .build()
                .user_data(user_data(KIND_BATCH, position as u32, 0));
            self.push(entry);
        }
        self.finish_batch(outcomes);
    }

    fn shut_down(&mut self, socket: Socket) {
        self.count_call(SHUTDOWN);
        // Not a request of the ring: the kernel hands IORING_OP_SHUTDOWN to a worker, which looks the descriptor up
        // when it gets to it. By then the socket may be closed and its number be another's, which would be shut down
        // in its place. It fails only if the peer has reset the connection.
        let _ = shutdown(socket.0, Shutdown::Write);
    }

    fn close(&mut self, socket: Socket, token: Token, writable_parked: bool) {
        self.end_watch(KIND_READY_ENDED, token);
        if writable_parked {
            self.end_watch(KIND_WRITABLE_ENDED, token);
        }
        let entry = opcode::Close::new(types::Fd(socket.0))
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(user_data(KIND_FORGOTTEN, 0, 0));
        self.push(entry);
    }

    fn duplicate(&self, socket: Socket) -> io::Result<OwnedFd> {
        self.count_call(DUP);
        // SAFETY: a shard names a socket only until it has asked to close it, so the descriptor is open during the call.
        unsafe { BorrowedFd::borrow_raw(socket.0) }.try_clone_to_owned()
    }

    fn ring(&mut self, shard: u16) {
        let shard = usize::from(shard);
        match self.peers.get(shard) {
            Some(peer) if self.features.msg_ring => {
                let entry = opcode::MsgRingData::new(types::Fd(peer.0), 0, user_data(KIND_RUNG, 0, 0), None)
                    .build()
                    .flags(squeue::Flags::SKIP_SUCCESS)
                    .user_data(user_data(KIND_FORGOTTEN, 0, 0));
                self.push(entry);
            }
            _ => self.bells[shard].wake(),
        }
    }

    fn wait(&mut self, timeout_ms: Option<u64>, events: &mut Vec<Event>) {
        self.harvest();
        if !self.events.is_empty() || timeout_ms == Some(0) {
            let submission = self.ring.submission();
            if !submission.is_empty() || submission.taskrun() {
                drop(submission);
                self.enter(0);
            }
        } else if let Some(timeout_ms) = timeout_ms {
            let timespec = types::Timespec::new().sec(timeout_ms / 1000).nsec((timeout_ms % 1000) as u32 * 1_000_000);
            let arguments = types::SubmitArgs::new().timespec(&timespec);
            self.enters += 1;
            match self.ring.submitter().submit_with_args(1, &arguments) {
                Ok(_) => {}
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {
                }
                Err(error) => fatal("io_uring_enter", &error),
            }
        } else {
            self.enter(1);
        }
        self.harvest();
        events.append(&mut self.events);
    }

    fn path_quality(&self, socket: Socket) -> Option<PathQuality> {
        self.count_call(GETSOCKOPT);
        tcp_info(socket.0).map(|info| PathQuality {
            round_trip_ms: info.tcpi_rtt / 1000,
            retransmits: info.tcpi_retrans.max(u32::from(info.tcpi_retransmits)),
        })
    }

    fn now_us(&self) -> u64 {
        monotonic_us()
    }

    fn other_calls(&self) -> Vec<(&'static str, u64)> {
        self.other_calls.iter().map(|(name, count)| (*name, count.get())).collect()
    }

    fn peer_address(&self, socket: Socket) -> Option<SocketAddr> {
        self.count_call(GETPEERNAME);
        let address: SockaddrStorage = getpeername(socket.0).ok()?;
        let v4 = || address.as_sockaddr_in().map(|v4| SocketAddr::V4(SocketAddrV4::from(*v4)));
        let v6 = || address.as_sockaddr_in6().map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6)));
        v4().or_else(v6)
    }

    fn hand_over_records(&self, socket: Socket, keys: &RecordKeys) -> Result<(), HandOverError> {
        self.count_call(SETSOCKOPT);
        tls::hand_over(socket.0, keys)
    }

    fn receive_record(&self, socket: Socket, bytes: &mut [u8]) -> Result<(u8, usize), Errno> {
        self.count_call(RECVMSG);
        tls::receive_record(socket.0, bytes)
    }

    fn send_record(&self, socket: Socket, content: u8, bytes: &[u8]) -> Result<(), Errno> {
        self.count_call(SENDMSG);
        tls::send_record(socket.0, content, bytes)
    }

    fn records_sent(&self, socket: Socket) -> Option<u64> {
        self.count_call(GETSOCKOPT);
        tls::records_sent(socket.0)
    }

    fn enters(&self) -> u64 {
        self.enters
    }
}

/// The buffer that everything is received into. The beginning of each part is touched now: what the first clients say
/// finds its memory, and is not what they cost.
fn scratch() -> Box<[u8]> {
    let mut scratch = vec![0; RECEIVE_BATCH_MAX * RECEIVE_BYTES_MAX].into_boxed_slice();
    scratch.iter_mut().step_by(RECEIVE_BYTES_MAX).for_each(|byte| *std::hint::black_box(byte) = 0);
    scratch
}

fn user_data(kind: u8, index: u32, generation: u32) -> u64 {
    debug_assert!(generation < 1 << Token::GENERATION_BITS);
    u64::from(kind) << 56 | u64::from(generation) << 32 | u64::from(index)
}

fn poll_mask(events: libc::c_short) -> u32 {
    events as u16 as u32
}

fn tcp_info(descriptor: RawFd) -> Option<libc::tcp_info> {
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: `info` and `length` are ours and live through the call; the kernel writes at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(descriptor, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length)
    };
    // SAFETY: all-zero bytes are a valid `tcp_info`, and the kernel wrote integers over a part of them.
    (result == 0).then(|| unsafe { info.assume_init() })
}
