//! One client: connects, upgrades, subscribes, then reads until it is ended.
//!
//! Between messages it is a parked task and a socket: it owns bytes only while a frame is
//! incomplete. What all clients of a worker share is in [`Swarm`].

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::{
    clock::now_ns,
    composer::Judge,
    dialect::{Answer, Dialect, Expectation, StreamPosition, Subscribed, pushed_offset},
    inflate::OFFER,
    ledger::Ledger,
    link::{Plan, Slow},
    sequence::SequenceWindow,
    socket::{ReceiveBuffer, Socket, SocketOptions},
    stamp::{STAMP_BYTES, Stamp, StampFinder},
    stream::{Positions, Stream},
    tls::Connector,
    websocket::{Message, MessageReader, Opcode, client_frame, read_upgrade_response, server_frame, upgrade_request},
};

/// Bytes that one receive takes at most, in the buffer that all clients of a worker share.
const RECEIVE_BYTES_MAX: usize = 256 * 1024;

/// Least receive buffer of a slow client's socket, in bytes: so small that the server soon notices.
const SLOW_BUFFER_BYTES_MIN: usize = 4096;

/// How often a slow client reads per second.
const SLOW_READS_PER_SECOND: u32 = 10;

/// The clients of one worker.
pub struct Swarm {
    plan: Plan,
    /// If clients speak TLS.
    connector: Option<Connector>,
    receive_buffer: RefCell<ReceiveBuffer>,
    finder: RefCell<StampFinder>,
    judge: RefCell<Option<Judge>>,
    ledger: RefCell<Ledger>,
    /// By place in the worker: who wakes the client while it waits.
    wakers: RefCell<Vec<Option<Waker>>>,
    /// By place in the worker: what the client has seen of its streams.
    windows: RefCell<Vec<Windows>>,
    /// By place in the worker: where the client is in its channel's stream, if it recovers.
    stream_positions: RefCell<Vec<Option<StreamPosition>>>,
    /// By place in the worker: whether the client is to leave and come back.
    leaving: RefCell<Vec<bool>>,
    counts: Counts,
    is_closing: Cell<bool>,
    complaint: RefCell<Option<String>>,
}

/// What a client has seen of its channel's stream and of its own.
#[derive(Debug, Clone, Copy)]
struct Windows {
    channel: SequenceWindow,
    user: SequenceWindow,
}

/// How many clients are how far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Open now.
    pub open: Cell<u32>,
    /// Could not be opened.
    pub failed: Cell<u32>,
    /// Ended by the server.
    pub dropped: Cell<u32>,
    /// Slow clients ended by the server.
    pub slow_dropped: Cell<u32>,
    /// Clients that left and came back.
    pub churned: Cell<u64>,
}

impl Swarm {
    /// No client is open yet.
    ///
    /// # Errors
    /// If clients are to trust an authority that cannot be read.
    pub fn new(plan: Plan) -> Result<Rc<Swarm>> {
        let clients = plan.clients.len();
        Ok(Rc::new(Swarm {
            connector: plan.security.as_ref().map(Connector::new).transpose()?,
            receive_buffer: RefCell::new(ReceiveBuffer::new(RECEIVE_BYTES_MAX)),
            finder: RefCell::new(StampFinder::new()),
            judge: RefCell::new(plan.reading.composer.map(Judge::new)),
            ledger: RefCell::new(Ledger::new(plan.channels)),
            wakers: RefCell::new(vec![None; clients]),
            windows: RefCell::new(vec![Windows::from_whatever_comes(); clients]),
            stream_positions: RefCell::new(vec![None; if plan.dialect.recovers() { clients } else { 0 }]),
            leaving: RefCell::new(vec![false; clients]),
            counts: Counts::default(),
            is_closing: Cell::new(false),
            complaint: RefCell::new(None),
            plan,
        }))
    }

    /// What the worker was told to do.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How many clients are how far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What was counted.
    pub fn ledger(&self) -> &RefCell<Ledger> {
        &self.ledger
    }

    /// The first thing that went wrong.
    pub fn complaint(&self) -> Option<String> {
        self.complaint.borrow().clone()
    }

    /// A client could not be opened.
    pub fn record_failure(&self, error: &anyhow::Error) {
        add(&self.counts.failed, 1);
        self.complain(error);
    }

    /// Ends clients, so many of those that wait: their tasks wake, and drop their sockets.
    pub fn close(&self, clients_max: usize) {
        self.is_closing.set(true);
        for waker in self.wakers.borrow_mut().iter_mut().filter_map(Option::take).take(clients_max) {
            waker.wake();
        }
    }

    /// Clients will be opened (again): they must receive everything after these positions, or, if there are none, after
    /// what they have received before.
    pub fn prepare(&self, positions: Option<&Positions>) {
        self.is_closing.set(false);
        let Some(positions) = positions else { return };
        for (windows, client) in self.windows.borrow_mut().iter_mut().zip(self.plan.clients.clone()) {
            let expecting = |stream| SequenceWindow::expecting(positions.last(stream) + 1);
            let channel = expecting(Stream::Channel(self.channel_of(client)));
            *windows = Windows { channel, user: expecting(Stream::User(client)) };
        }
    }

    /// The client at this place leaves and comes back.
    pub fn renew(&self, place: usize) {
        if let Some(waker) = self.wakers.borrow_mut()[place].take() {
            self.leaving.borrow_mut()[place] = true;
            waker.wake();
        }
    }

    /// Streams are so far now: judges what every client has seen.
    pub fn judge(&self, positions: &Positions) {
        let mut ledger = self.ledger.borrow_mut();
        for (windows, client) in self.windows.borrow_mut().iter_mut().zip(self.plan.clients.clone()) {
            if Slow::is_slow(self.plan.reading.slow, client) {
                continue;
            }
            ledger.end_stream(&mut windows.channel, positions.last(Stream::Channel(self.channel_of(client))));
            ledger.end_stream(&mut windows.user, positions.last(Stream::User(client)));
        }
    }

    fn channel_of(&self, client: u32) -> u32 {
        client % self.plan.channels.max(1)
    }

    fn complain(&self, error: &anyhow::Error) {
        self.complaint.borrow_mut().get_or_insert_with(|| format!("{error:#}"));
    }
}

impl Windows {
    fn from_whatever_comes() -> Windows {
        Windows { channel: SequenceWindow::from_whatever_comes(), user: SequenceWindow::from_whatever_comes() }
    }
}

/// One client.
pub struct Client {
    swarm: Rc<Swarm>,
    /// Place in its worker.
    place: usize,
    /// Index in the whole run.
    index: u32,
    socket: Socket,
    reader: MessageReader,
    expectation: Expectation,
}

impl Client {
    /// Connects, upgrades and subscribes.
    ///
    /// # Errors
    /// If the server is not there, refuses, or ends the connection.
    pub async fn open(swarm: Rc<Swarm>, place: usize) -> Result<Client> {
        let started_ns = now_ns();
        let index = swarm.plan.clients.start + place as u32;
        let sources = &swarm.plan.sources;
        let options = SocketOptions {
            source: (!sources.is_empty()).then(|| sources[index as usize % sources.len()]),
            receive_buffer_bytes: slow_of(&swarm, index).map(|slow| {
                // Room for what comes between two reads, or it could not read as fast as it should.
                SLOW_BUFFER_BYTES_MIN.max((slow.bytes_per_second * 2 / SLOW_READS_PER_SECOND) as usize)
            }),
            notes_arrivals: swarm.plan.reading.notes_arrivals,
        };
        let socket = Socket::connect(swarm.plan.target, options)
            .await
            .with_context(|| format!("connect to {}", swarm.plan.target))?;
        let expectation = swarm.plan.dialect.expectation(index);
        add(&swarm.counts.open, 1);
        let mut client = Client { swarm, place, index, socket, reader: MessageReader::default(), expectation };
        client.shake_hands().await?;
        client.subscribe().await?;
        client.swarm.ledger.borrow_mut().record_setup((now_ns() - started_ns) / 1000);
        Ok(client)
    }

    /// Reads until the connection ends; leaves and comes back when told to.
    pub async fn attend(mut self) {
        let (swarm, place) = (self.swarm.clone(), self.place);
        loop {
            let slow = slow_of(&swarm, self.index);
            let Err(error) = match slow {
                Some(slow) => self.read_slowly(slow).await,
                None => self.read_to_the_end().await,
            };
            if swarm.is_closing.get() {
                return;
            }
            if !swarm.leaving.borrow_mut()[place] {
                let dropped = if slow.is_some() { &swarm.counts.slow_dropped } else { &swarm.counts.dropped };
                add(dropped, 1);
                if slow.is_none() {
                    swarm.complain(&error);
                }
                return;
            }
            drop(self);
            swarm.leaving.borrow_mut()[place] = false;
            swarm.windows.borrow_mut()[place] = Windows::from_whatever_comes();
            match Client::open(swarm.clone(), place).await {
                Ok(client) => self = client,
                Err(error) => return swarm.record_failure(&error),
            }
            add_u64(&swarm.counts.churned, 1);
        }
    }

    /// The TLS handshake, if there is one.
    async fn shake_hands(&mut self) -> Result<()> {
        let swarm = self.swarm.clone();
        let Some(connector) = &swarm.connector else { return Ok(()) };
        self.socket.secure(connector)?;
        while self.socket.is_shaking_hands() {
            self.socket.send(b"").await?;
            self.socket.readable().await?;
            let received = self.socket.receive(&mut swarm.receive_buffer.borrow_mut())?;
            ensure!(received != Some(0), "the server ends the connection instead of a TLS handshake");
        }
        if self.socket.is_resumed() {
            swarm.ledger.borrow_mut().record_resumption();
        }
        Ok(())
    }

    async fn subscribe(&mut self) -> Result<()> {
        let plan = &self.swarm.plan;
        let offer = plan.compression.then_some(OFFER);
        self.socket.send(&upgrade_request(&plan.host, &plan.path, offer)).await?;
        let rest = self.read_upgrade().await?;
        let mut frames = Vec::new();
        for text in self.opening()? {
            frames.extend(client_frame(Opcode::Text, text.as_bytes(), self.mask()));
        }
        self.socket.send(&frames).await?;
        let answers = self.take(&rest, None)?;
        self.socket.send(&answers).await?;
        while self.expectation != Expectation::Nothing {
            self.socket.readable().await?;
            let answers = self.receive()?;
            self.socket.send(&answers).await?;
        }
        Ok(())
    }

    fn opening(&self) -> Result<Vec<String>> {
        let positions = self.swarm.stream_positions.borrow();
        self.swarm.plan.dialect.opening(self.index, positions.get(self.place).and_then(Option::as_ref))
    }

    /// Reads the answer to the upgrade request; what came behind it is given back.
    async fn read_upgrade(&mut self) -> Result<Vec<u8>> {
        let mut head = Vec::new();
        loop {
            self.socket.readable().await?;
            let mut buffer = self.swarm.receive_buffer.borrow_mut();
            let Some(received) = self.socket.receive(&mut buffer)? else { continue };
            ensure!(received > 0, "the server ends the connection instead of answering the upgrade request");
            head.extend_from_slice(buffer.bytes());
            if let Some(upgrade) = read_upgrade_response(&head, self.swarm.plan.compression)? {
                if let Some(agreement) = upgrade.agreement {
                    self.reader.agree(agreement);
                    self.swarm.ledger.borrow_mut().record_agreement();
                }
                head.drain(..upgrade.length);
                return Ok(head);
            }
        }
    }

    /// Reads a little now and then, whatever waits.
    async fn read_slowly(&mut self, slow: Slow) -> Result<Infallible> {
        let mut buffer = ReceiveBuffer::new((slow.bytes_per_second / SLOW_READS_PER_SECOND).max(1) as usize);
        loop {
            monoio::time::sleep(Duration::from_secs(1) / SLOW_READS_PER_SECOND).await;
            ensure!(!self.swarm.is_closing.get(), "closed by the coordinator");
            if let Some(received) = self.socket.receive(&mut buffer).context("the connection broke")? {
                ensure!(received > 0, "the server ended the connection without a close frame");
                let answers = self.take(buffer.bytes(), buffer.arrived_ns)?;
                self.socket.send(&answers).await?;
            }
        }
    }

    async fn read_to_the_end(&mut self) -> Result<Infallible> {
        loop {
            self.readable_or_closing().await?;
            let answers = self.receive()?;
            if !answers.is_empty() {
                self.socket.send(&answers).await?;
            }
        }
    }

    /// Waits for bytes; fails when all clients shall end.
    async fn readable_or_closing(&self) -> Result<()> {
        let mut readable = pin!(self.socket.readable());
        poll_fn(|context| {
            if self.swarm.is_closing.get() || self.swarm.leaving.borrow()[self.place] {
                return Poll::Ready(Err(anyhow!("closed by the coordinator")));
            }
            self.swarm.wakers.borrow_mut()[self.place] = Some(context.waker().clone());
            readable.as_mut().poll(context).map_err(anyhow::Error::from)
        })
        .await
    }

    /// Takes in all that the socket has; gives back what must be answered.
    fn receive(&mut self) -> Result<Vec<u8>> {
        let swarm = self.swarm.clone();
        let mut buffer = swarm.receive_buffer.borrow_mut();
        let mut answers = Vec::new();
        while let Some(received) = self.socket.receive(&mut buffer).context("the connection broke")? {
            ensure!(received > 0, "the server ended the connection without a close frame");
            swarm.ledger.borrow_mut().record_bytes(received);
            answers.extend(self.take(buffer.bytes(), buffer.arrived_ns)?);
            // The socket is empty, and another call would only say so.
            if buffer.has_room() {
                break;
            }
        }
        Ok(answers)
    }

    fn take(&mut self, bytes: &[u8], arrived_ns: Option<u64>) -> Result<Vec<u8>> {
        let mask = self.mask();
        let mut intake = Intake {
            swarm: &self.swarm,
            windows: &mut self.swarm.windows.borrow_mut()[self.place],
            client: self.index,
            place: self.place,
            expectation: &mut self.expectation,
            mask,
            now_ns: now_ns(),
            arrived_ns,
            answers: Vec::new(),
        };
        self.reader.read(bytes, &mut |message| intake.message(message))?;
        self.swarm.ledger.borrow_mut().record_savings(self.reader.take_savings());
        Ok(intake.answers)
    }

    /// Differs from client to client, so that the server's unmasking is real work.
    fn mask(&self) -> [u8; 4] {
        (self.index.wrapping_mul(0x9e37_79b9) | 1).to_be_bytes()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.swarm.wakers.borrow_mut()[self.place] = None;
        self.swarm.counts.open.update(|open| open - 1);
    }
}

/// What one receive brings to one client.
struct Intake<'a> {
    swarm: &'a Swarm,
    windows: &'a mut Windows,
    client: u32,
    place: usize,
    expectation: &'a mut Expectation,
    mask: [u8; 4],
    now_ns: u64,
    arrived_ns: Option<u64>,
    answers: Vec<u8>,
}

impl Intake<'_> {
    fn message(&mut self, message: Message<'_>) -> Result<()> {
        match message {
            Message::Data(data) => self.lines(data),
            Message::Ping(payload) => {
                self.answer(Opcode::Pong, payload);
                Ok(())
            }
            Message::Close { code, reason } => {
                bail!("the server closed with code {code} {}", String::from_utf8_lossy(reason))
            }
        }
    }

    /// A message is one or more lines (protocol.md section 1).
    fn lines(&mut self, data: &[u8]) -> Result<()> {
        let mut begin = 0;
        for end in memchr::memchr_iter(b'\n', data).chain([data.len()]) {
            self.line(&data[begin..end])?;
            begin = end + 1;
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<()> {
        if line == b"{}" {
            self.answer(Opcode::Text, b"{}");
            return Ok(());
        }
        if *self.expectation != Expectation::Nothing
            && let Some(answer) = self.expectation.meet(line)?
        {
            return match answer {
                Answer::Subscribed(subscribed) if self.swarm.plan.dialect.recovers() => self.recover(subscribed, line),
                Answer::Subscribed(_) | Answer::Awaited => Ok(()),
            };
        }
        if let Some(Some(position)) = self.swarm.stream_positions.borrow_mut().get_mut(self.place)
            && let Some(offset) = pushed_offset(line)
        {
            position.offset = offset;
        }
        let mut ledger = self.swarm.ledger.borrow_mut();
        let mut finder = self.swarm.finder.borrow_mut();
        let Some((place, stamp)) = finder.find(line) else {
            if !line.is_empty() {
                ledger.record_unstamped();
            }
            return Ok(());
        };
        ledger.keep_sample(|| server_frame(Opcode::Text, line));
        self.record(line, place, stamp, &mut ledger);
        // Servers may join messages by other means than lines.
        let mut rest = &line[place + STAMP_BYTES..];
        if !matches!(self.swarm.plan.dialect, Dialect::Texts { .. }) {
            return Ok(());
        }
        while let Some((place, stamp)) = finder.find(rest) {
            self.record(rest, place, stamp, &mut ledger);
            rest = &rest[place + STAMP_BYTES..];
        }
        Ok(())
    }

    /// The client is subscribed and has what it missed, all in one line.
    fn recover(&mut self, subscribed: Subscribed, line: &[u8]) -> Result<()> {
        ensure!(subscribed.recoverable, "the channel's namespace has no history or does not recover (force_recovery)");
        let is_recovered = subscribed.recovered;
        let before = self.swarm.stream_positions.borrow_mut()[self.place].replace(subscribed.position());
        if let Some(StreamPosition { epoch, offset }) = before {
            ensure!(is_recovered, "the server did not recover what came after offset {offset} of epoch {epoch}");
        }
        let mut ledger = self.swarm.ledger.borrow_mut();
        let mut finder = self.swarm.finder.borrow_mut();
        let mut rest = line;
        while let Some((place, stamp)) = finder.find(rest) {
            ledger.record_recovered();
            self.record(rest, place, stamp, &mut ledger);
            rest = &rest[place + STAMP_BYTES..];
        }
        Ok(())
    }

    /// A message with a stamp at this place.
    fn record(&mut self, message: &[u8], place: usize, stamp: Stamp, ledger: &mut Ledger) {
        let plan = &self.swarm.plan;
        if let Some(judge) = &mut *self.swarm.judge.borrow_mut()
            && !judge.is_intact(message, place, stamp)
        {
            ledger.record_damaged();
        }
        let window = match stamp.stream {
            Stream::Channel(channel) if channel == self.swarm.channel_of(self.client) => {
                Some(&mut self.windows.channel)
            }
            // The floor does not know which client is which.
            Stream::User(user) if user == self.client || matches!(plan.dialect, Dialect::Bare) => {
                Some(&mut self.windows.user)
            }
            _ => None,
        };
        if Slow::is_slow(plan.reading.slow, self.client) {
            ledger.record_slowly(stamp, window);
        } else {
            ledger.record(stamp, window, self.now_ns, self.arrived_ns);
        }
    }

    fn answer(&mut self, opcode: Opcode, payload: &[u8]) {
        self.swarm.ledger.borrow_mut().record_ping();
        self.answers.extend(client_frame(opcode, payload, self.mask));
    }
}

/// How slowly this client reads, if it does.
fn slow_of(swarm: &Swarm, client: u32) -> Option<Slow> {
    swarm.plan.reading.slow.filter(|_| Slow::is_slow(swarm.plan.reading.slow, client))
}

fn add(count: &Cell<u32>, more: u32) {
    count.set(count.get() + more);
}

fn add_u64(count: &Cell<u64>, more: u64) {
    count.set(count.get() + more);
}
