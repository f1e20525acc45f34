//! A worker process: one core, one ring, a task per client, and the coordinator's commands.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::mpsc::{Receiver, TryRecvError, channel},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use monoio::{IoUringDriver, RuntimeBuilder};

use crate::{
    client::{Client, Swarm},
    clock::{SECOND_NS, now_ns},
    cores,
    link::{Link, Progress, WorkerCommand, WorkerEvent},
    turnstile::Turnstile,
};

/// Nanoseconds between two reports of progress.
const PROGRESS_NS: u64 = SECOND_NS / 5;

/// Nanoseconds between two looks for commands.
const COMMAND_NS: u64 = SECOND_NS / 200;

/// Clients that are closed before progress is reported again: a million take minutes where one core closes both ends.
const CLOSES_PER_TURN: usize = 10_000;

/// Runs until the coordinator is gone.
///
/// # Errors
/// If the coordinator's first words are no plan, or the kernel has no io_uring for us.
pub fn run() -> Result<()> {
    let link = Link::to_coordinator()?;
    let mut messages = link.messages::<WorkerCommand>()?;
    let Some(WorkerCommand::Plan(plan)) = messages.next().transpose()? else { bail!("a worker needs a plan first") };
    if let Some(core) = plan.core {
        cores::pin(&[core])?;
    }
    let (sender, commands) = channel();
    std::thread::spawn(move || {
        for command in messages.map_while(Result::ok) {
            if sender.send(command).is_err() {
                return;
            }
        }
    });
    let mut ring = io_uring::IoUring::builder();
    // Completions are looked for at every turn anyway: no interrupt of this core is needed for them.
    ring.setup_coop_taskrun().setup_single_issuer().setup_cqsize(64 * 1024);
    let mut runtime = RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(4096)
        .uring_builder(ring)
        .enable_timer()
        .build()
        .context("io_uring cannot be set up: a kernel from 6.1 on is needed, and kernel.io_uring_disabled = 0")?;
    let worker = Worker {
        swarm: Swarm::new(*plan)?,
        link,
        idle: RefCell::default(),
        opening: Rc::default(),
        churn: Cell::default(),
        next_to_leave: Cell::new(0),
    };
    runtime.block_on(async {
        let swarm = worker.swarm.clone();
        // A task and not the main future: the runtime looks for completions between tasks only.
        let result = monoio::spawn(worker.obey(commands)).await;
        drop(swarm);
        result
    })
}

struct Worker {
    swarm: Rc<Swarm>,
    link: Link,
    /// Clients that nobody reads for.
    idle: RefCell<Vec<Client>>,
    /// The opening in progress.
    opening: Rc<Opening>,
    /// The coming and going.
    churn: Cell<Churn>,
    /// Place of the next client to leave and come back.
    next_to_leave: Cell<usize>,
}

/// At what rate clients leave and come back.
#[derive(Default, Clone, Copy)]
struct Churn {
    per_second: f64,
    since_ns: u64,
    done: u64,
}

#[derive(Default)]
struct Opening {
    next: Cell<usize>,
    /// Openers at work; the last one to end sends the event.
    openers: Cell<u32>,
    is_awaited: Cell<bool>,
    opened: RefCell<Vec<Client>>,
}

impl Worker {
    async fn obey(self, commands: Receiver<WorkerCommand>) -> Result<()> {
        let mut next_progress_ns = now_ns();
        let mut is_closing = false;
        let turnstile = self.swarm.plan().busy_poll.then(Turnstile::open);
        loop {
            match commands.try_recv() {
                Ok(WorkerCommand::Close) => is_closing = true,
                Ok(command) => self.execute(command)?,
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
            if self.opening.is_awaited.get() && self.opening.openers.get() == 0 {
                self.opening.is_awaited.set(false);
                self.idle.borrow_mut().append(&mut self.opening.opened.borrow_mut());
                self.report_progress()?;
                let mut ledger = self.swarm.ledger().borrow_mut();
                let (setup, resumed) = (ledger.take_setup(), ledger.take_resumed());
                self.link.send(&WorkerEvent::Opened { setup, resumed })?;
            }
            if is_closing {
                self.close_some();
                if self.swarm.counts().open.get() == 0 {
                    is_closing = false;
                    self.link.send(&WorkerEvent::Closed)?;
                }
            }
            self.renew_clients();
            if now_ns() >= next_progress_ns {
                next_progress_ns = now_ns() + PROGRESS_NS;
                self.report_progress()?;
            }
            self.pause(turnstile.as_deref()).await;
        }
    }

    /// Ends some of the clients; how many are left is reported before the others' turn.
    fn close_some(&self) {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.len().saturating_sub(CLOSES_PER_TURN);
        idle.truncate(kept);
        self.swarm.close(CLOSES_PER_TURN);
    }

    fn execute(&self, command: WorkerCommand) -> Result<()> {
        match command {
            WorkerCommand::Plan(_) => bail!("a worker has one plan"),
            WorkerCommand::Open { attend, positions } => {
                self.swarm.prepare(positions.as_ref());
                self.open(attend);
            }
            WorkerCommand::Attend => {
                for client in self.idle.borrow_mut().drain(..) {
                    monoio::spawn(client.attend());
                }
                self.link.send(&WorkerEvent::Attending)?;
            }
            WorkerCommand::Mark => {
                self.swarm.ledger().borrow_mut().mark();
                self.link.send(&WorkerEvent::Marked)?;
            }
            WorkerCommand::Churn { per_second } => self.churn.set(Churn { per_second, since_ns: now_ns(), done: 0 }),
            WorkerCommand::Collect { positions } => {
                self.swarm.judge(&positions);
                let tally = self.swarm.ledger().borrow().tally();
                self.link.send(&WorkerEvent::Collected(Box::new(tally)))?;
            }
            WorkerCommand::Close => {}
        }
        Ok(())
    }

    fn open(&self, attend: bool) {
        let openers = self.swarm.plan().opening_max.max(1);
        self.opening.next.set(0);
        self.opening.openers.set(openers);
        self.opening.is_awaited.set(true);
        for _ in 0..openers {
            monoio::spawn(open_clients(self.swarm.clone(), self.opening.clone(), attend));
        }
    }

    /// Lets those leave and come back whose time it is.
    fn renew_clients(&self) {
        let churn = self.churn.get();
        let elapsed_seconds = (now_ns() - churn.since_ns) as f64 / SECOND_NS as f64;
        let due = (elapsed_seconds * churn.per_second) as u64;
        for _ in churn.done..due {
            let place = self.next_to_leave.get();
            self.next_to_leave.set((place + 1) % self.swarm.plan().clients.len());
            self.swarm.renew(place);
        }
        self.churn.set(Churn { done: due, ..churn });
    }

    fn report_progress(&self) -> Result<()> {
        let counts = self.swarm.counts();
        let mut ledger = self.swarm.ledger().borrow_mut();
        self.link.send(&WorkerEvent::Progress(Progress {
            open: counts.open.get(),
            failed: counts.failed.get(),
            dropped: counts.dropped.get(),
            received: ledger.received(),
            slow_dropped: counts.slow_dropped.get(),
            churned: counts.churned.get(),
            latencies: ledger.take_interval(),
            complaint: self.swarm.complaint(),
        }))
    }

    /// Until the next look for commands; a worker that busy-polls lets other tasks run meanwhile, but never sleeps.
    async fn pause(&self, turnstile: Option<&Turnstile>) {
        let Some(turnstile) = turnstile else {
            return monoio::time::sleep(Duration::from_nanos(COMMAND_NS)).await;
        };
        let end_ns = now_ns() + COMMAND_NS;
        while now_ns() < end_ns {
            turnstile.give_way().await;
        }
    }
}

/// Opens one client after the other, until all have been taken by some opener.
async fn open_clients(swarm: Rc<Swarm>, opening: Rc<Opening>, attend: bool) {
    while opening.next.get() < swarm.plan().clients.len() {
        let place = opening.next.replace(opening.next.get() + 1);
        match Client::open(swarm.clone(), place).await {
            Ok(client) if attend => drop(monoio::spawn(client.attend())),
            Ok(client) => opening.opened.borrow_mut().push(client),
            Err(error) => swarm.record_failure(&error),
        }
    }
    opening.openers.set(opening.openers.get() - 1);
}
