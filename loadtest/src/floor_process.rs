//! The coordinator's side of the floor: starts its server and speaks to it.

use std::{
    net::SocketAddr,
    process::Child,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, channel},
    },
};

use anyhow::{Context, Result, bail};

use crate::{
    clock::{SECOND_NS, now_ns},
    link::{FloorAddressees, FloorBeat, FloorCommand, FloorEvent, FloorSend, Link},
    pace::{Pace, Pushed},
    producer::Source,
    stream::Positions,
};

/// The floor's server process.
pub struct FloorProcess {
    link: Link,
    child: Child,
    events: Receiver<Result<FloorEvent>>,
    address: SocketAddr,
    frame: Vec<u8>,
    to: FloorAddressees,
    clients: u32,
    published: u64,
    positions: Positions,
}

impl FloorProcess {
    /// Starts it; it waits for this many clients. It will send `frame`, to all of them or to one after the other.
    ///
    /// # Errors
    /// If it cannot be started, or cannot listen.
    pub fn start(core: Option<usize>, clients: u32, frame: Vec<u8>, to: FloorAddressees) -> Result<FloorProcess> {
        let (link, child) = Link::to_child("floor-server")?;
        link.send(&FloorCommand::Listen { core, clients })?;
        let messages = link.messages::<FloorEvent>()?;
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for message in messages {
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut floor = FloorProcess {
            link,
            child,
            events,
            address: ([0; 4], 0).into(),
            frame,
            to,
            clients,
            published: 0,
            positions: Positions::default(),
        };
        match floor.next_event()? {
            FloorEvent::Listening { address } => floor.address = address,
            other => bail!("the floor's server says {other:?} instead of where it listens"),
        }
        Ok(floor)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has answered all clients.
    ///
    /// # Errors
    /// If it ended.
    pub fn await_accepted(&mut self) -> Result<()> {
        match self.next_event()? {
            FloorEvent::Accepted => Ok(()),
            other => bail!("the floor's server says {other:?} instead of having accepted"),
        }
    }

    /// Lets it ping; [`FloorProcess::await_beaten`] says when all is answered.
    ///
    /// # Errors
    /// If it ended.
    pub fn beat(&self, order: FloorBeat) -> Result<()> {
        self.link.send(&FloorCommand::Beat(order))
    }

    /// Waits until all its pings are answered; how many were.
    ///
    /// # Errors
    /// If it ended, or a client owes a pong.
    pub fn await_beaten(&mut self) -> Result<u64> {
        match self.next_event()? {
            FloorEvent::Beaten { heartbeats } => Ok(heartbeats),
            other => bail!("the floor's server says {other:?} while it should ping"),
        }
    }

    fn next_event(&mut self) -> Result<FloorEvent> {
        self.events.recv().context("the floor's server ended early")?
    }
}

impl Source for FloorProcess {
    fn push(&mut self, pace: &Pace, published: &AtomicU64, _stop: &AtomicBool) -> Result<Pushed> {
        self.link.send(&FloorCommand::Send(FloorSend {
            frame: self.frame.clone(),
            start_ns: now_ns() + SECOND_NS / 100,
            rate: pace.rate,
            burst: pace.burst,
            instants: pace.instants,
            to: self.to,
            published: self.published,
        }))?;
        self.published += pace.publications();
        match self.to {
            FloorAddressees::All => self.positions.channels = vec![self.published],
            FloorAddressees::OneByOne => {
                // The first ones have one more, when it is not everybody's turn; nobody knows which clients these are.
                self.positions.users = vec![self.published / u64::from(self.clients); self.clients as usize];
            }
        }
        loop {
            match self.next_event()? {
                FloorEvent::Sending { publications } => published.store(publications, Relaxed),
                FloorEvent::Sent { loops_us, repeated } => {
                    published.store(pace.publications(), Relaxed);
                    return Ok(Pushed { publications: pace.publications(), late_us_max: 0, loops_us, repeated });
                }
                other => bail!("the floor's server says {other:?} while it should send"),
            }
        }
    }

    fn positions(&self) -> &Positions {
        &self.positions
    }
}

impl Drop for FloorProcess {
    fn drop(&mut self) {
        // One that has ended by itself cannot be killed; it is waited for all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
