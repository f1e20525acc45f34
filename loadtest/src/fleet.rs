//! The worker processes as one: starts them, tells them what to do, gathers what they say.

use std::{
    collections::BTreeMap,
    process::Child,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{
    clock::{SECOND_NS, now_ns},
    link::{Link, Plan, Progress, PublicationTally, Tally, WorkerCommand, WorkerEvent},
    sequence::Faults,
    statistics::{Durations, Summary},
    stream::Positions,
    watch::Watch,
    websocket::Savings,
};

/// Descriptors that a worker needs beside its clients' sockets.
const DESCRIPTORS_SPARE: u32 = 64;

/// All workers.
pub struct Fleet {
    workers: Vec<Worker>,
    events: Receiver<(usize, Result<WorkerEvent>)>,
    clients: u32,
    patience_ns: u64,
    /// Whether clients may fail and be dropped: something has gone wrong already.
    is_forgiving: bool,
}

struct Worker {
    link: Link,
    child: Child,
    progress: Progress,
}

/// What opening all clients came to.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// From TCP connect to subscribed, of each.
    pub durations: Option<Summary>,
    /// Of the TLS handshakes, those that resumed a session.
    pub resumed: u64,
}

/// What all workers together counted.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// From TCP connect to subscribed, of clients that came back.
    pub setup: Option<Summary>,
    /// Of every message.
    pub latency: Option<Summary>,
    /// Of the last client of each publication.
    pub last_client: Option<Summary>,
    /// Until the last client's socket had it, of each publication, whenever the client received it.
    pub last_arrival: Option<Summary>,
    /// What should not be.
    pub faults: Faults,
    /// Messages with a stamp, but those of slow clients.
    pub received: u64,
    /// Messages of slow clients.
    pub received_slowly: u64,
    /// Of the messages received, those that were missed before.
    pub recovered: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Clients with which the server agreed on compression.
    pub agreed: u64,
    /// What compression spared.
    pub savings: Savings,
    /// Messages without a stamp.
    pub unstamped: u64,
    /// Pings answered.
    pub pings: u64,
    /// The frame in which a message came.
    pub sample_frame: Option<Vec<u8>>,
}

/// Splits clients over workers: at least one per core, and as many as the limit of descriptors asks for. A client
/// that is being opened needs two.
pub fn split(clients: u32, opening_max: u32, cores: usize, descriptors: u64) -> Result<Vec<std::ops::Range<u32>>> {
    let spare = DESCRIPTORS_SPARE + opening_max;
    let room = u32::try_from(descriptors).unwrap_or(u32::MAX).saturating_sub(spare);
    if room == 0 {
        bail!("{descriptors} descriptors are too few for any client: type `ulimit -n 65536` first");
    }
    let workers = clients.div_ceil(room).max(cores as u32).clamp(1, clients.max(1));
    let begin = |worker: u32| (u64::from(clients) * u64::from(worker) / u64::from(workers)) as u32;
    Ok((0..workers).map(|worker| begin(worker)..begin(worker + 1)).collect())
}

impl Fleet {
    /// Starts a worker for each plan.
    ///
    /// # Errors
    /// If a process cannot be started.
    pub fn start(plans: Vec<Plan>, patience_seconds: u64) -> Result<Fleet> {
        let (sender, events) = channel();
        let mut workers = Vec::new();
        let mut clients = 0;
        for plan in plans {
            clients += plan.clients.len() as u32;
            let (link, child) = Link::to_child("worker")?;
            link.send(&WorkerCommand::Plan(Box::new(plan)))?;
            forward_events(workers.len(), &link, sender.clone())?;
            workers.push(Worker { link, child, progress: Progress::default() });
        }
        Ok(Fleet { workers, events, clients, patience_ns: patience_seconds * SECOND_NS, is_forgiving: false })
    }

    /// Clients of all workers.
    pub fn clients(&self) -> u32 {
        self.clients
    }

    /// Clients that are open now.
    pub fn open_now(&self) -> u32 {
        self.workers.iter().map(|worker| worker.progress.open).sum()
    }

    /// Messages received since the mark.
    pub fn received(&self) -> u64 {
        self.workers.iter().map(|worker| worker.progress.received).sum()
    }

    /// Clients that have lost their connection, but slow ones.
    pub fn dropped(&self) -> u32 {
        self.workers.iter().map(|worker| worker.progress.dropped).sum()
    }

    /// Slow clients that the server has ended.
    pub fn slow_dropped(&self) -> u32 {
        self.workers.iter().map(|worker| worker.progress.slow_dropped).sum()
    }

    /// Clients that left and came back.
    pub fn churned(&self) -> u64 {
        self.workers.iter().map(|worker| worker.progress.churned).sum()
    }

    /// Opens all clients; they must receive everything after these positions, or, if there are none, after what they
    /// have received before.
    ///
    /// # Errors
    /// If one cannot be opened.
    pub fn open(&mut self, attend: bool, positions: Option<&Positions>, watch: &mut Watch) -> Result<Opened> {
        self.tell_all(&WorkerCommand::Open { attend, positions: positions.cloned() })?;
        let events = self
            .await_all(watch, |event| matches!(event, WorkerEvent::Opened { .. }))
            .with_context(|| format!("{} of {} clients are open", self.open_now(), self.clients))?;
        let (mut durations, mut all_resumed) = (Durations::new(), 0);
        for event in events {
            if let WorkerEvent::Opened { setup, resumed } = event {
                durations.add_pairs(&setup);
                all_resumed += resumed;
            }
        }
        Ok(Opened { durations: durations.summary(), resumed: all_resumed })
    }

    /// Clients leave and come back from now on, at this rate; 0: no more.
    ///
    /// # Errors
    /// If a worker has ended.
    pub fn churn(&self, per_second: f64) -> Result<()> {
        self.tell_all(&WorkerCommand::Churn { per_second: per_second / self.workers.len() as f64 })
    }

    /// Lets clients read that were opened without attendance.
    ///
    /// # Errors
    /// If a worker ends.
    pub fn attend(&mut self, watch: &mut Watch) -> Result<()> {
        self.tell_all(&WorkerCommand::Attend)?;
        self.await_all(watch, |event| matches!(event, WorkerEvent::Attending)).map(drop)
    }

    /// Begins to count.
    ///
    /// # Errors
    /// If a worker ends or a client was dropped.
    pub fn mark(&mut self, watch: &mut Watch) -> Result<()> {
        self.tell_all(&WorkerCommand::Mark)?;
        self.await_all(watch, |event| matches!(event, WorkerEvent::Marked))?;
        for worker in &mut self.workers {
            worker.progress.received = 0;
        }
        Ok(())
    }

    /// What was counted, given how far streams are.
    ///
    /// # Errors
    /// If a worker ends.
    pub fn collect(&mut self, positions: &Positions, watch: &mut Watch) -> Result<Findings> {
        self.tell_all(&WorkerCommand::Collect { positions: positions.clone() })?;
        let events = self.await_all(watch, |event| matches!(event, WorkerEvent::Collected(_)))?;
        let tallies = events.into_iter().filter_map(|event| match event {
            WorkerEvent::Collected(tally) => Some(*tally),
            _ => None,
        });
        Ok(merge(tallies.collect()))
    }

    /// What was counted so far, after something went wrong.
    ///
    /// # Errors
    /// If a worker is gone.
    pub fn collect_remains(&mut self, watch: &mut Watch) -> Result<Findings> {
        self.is_forgiving = true;
        watch.forget_server();
        let findings = self.collect(&Positions::default(), watch)?;
        // What was still under way is not lost.
        Ok(Findings { faults: Faults { lost: 0, ..findings.faults }, ..findings })
    }

    /// Closes all clients.
    ///
    /// # Errors
    /// If a worker ends.
    pub fn close(&mut self, watch: &mut Watch) -> Result<()> {
        self.tell_all(&WorkerCommand::Close)?;
        self.await_all(watch, |event| matches!(event, WorkerEvent::Closed)).map(drop)
    }

    /// Lets time pass: takes in what workers say for this long.
    ///
    /// # Errors
    /// If something goes wrong meanwhile.
    pub fn attend_for(&mut self, seconds: f64, watch: &mut Watch) -> Result<()> {
        let end_ns = now_ns() + (seconds * SECOND_NS as f64) as u64;
        while now_ns() < end_ns {
            self.take_event(watch)?;
        }
        Ok(())
    }

    /// Waits until this many messages were received since the mark, as long as some keep coming.
    ///
    /// # Errors
    /// If something goes wrong meanwhile; not if messages are missing: that is judged at the end.
    pub fn await_received(&mut self, expected: u64, watch: &mut Watch) -> Result<()> {
        let mut received = self.received();
        let mut since_ns = now_ns();
        while received < expected && now_ns() < since_ns + self.patience_ns {
            self.take_event(watch)?;
            if self.received() != received {
                received = self.received();
                since_ns = now_ns();
            }
        }
        // One report more, so that what comes too much is seen too.
        self.attend_for(0.3, watch)
    }

    /// Waits for one event, not long. Progress is taken in here; anything else is the caller's.
    ///
    /// # Errors
    /// If a worker has ended, a client failed or was dropped, or the server is gone.
    pub fn take_event(&mut self, watch: &mut Watch) -> Result<Option<(usize, WorkerEvent)>> {
        let event = match self.events.recv_timeout(Duration::from_millis(100)) {
            Ok((worker, event)) => Some((worker, event?)),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => bail!("all workers have ended"),
        };
        let rest = event.and_then(|(worker, event)| Some((worker, self.take_progress(worker, event, watch)?)));
        if let Err(gone) = watch.observe(self.open_now(), self.received()) {
            return Err(self.explain(gone, watch));
        }
        if !self.is_forgiving
            && let Err(failure) = self.check()
        {
            return Err(self.blame(failure, watch));
        }
        Ok(rest)
    }

    /// Keeps what a worker reports; gives back any other event.
    fn take_progress(&mut self, worker: usize, event: WorkerEvent, watch: &mut Watch) -> Option<WorkerEvent> {
        let WorkerEvent::Progress(progress) = event else { return Some(event) };
        watch.record_latencies(&progress.latencies);
        self.workers[worker].progress = progress;
        None
    }

    /// Clients have failed: because the server is about to be gone, if it goes within a moment. A process that dies
    /// closes its sockets before it has ended.
    fn blame(&mut self, failure: anyhow::Error, watch: &mut Watch) -> anyhow::Error {
        let end_ns = now_ns() + SECOND_NS / 2;
        while now_ns() < end_ns {
            if let Err(gone) = watch.check_server() {
                return self.explain(gone, watch);
            }
            thread::sleep(Duration::from_millis(20));
        }
        failure
    }

    /// The server is gone: what its clients saw of that, which they tell with their next reports, says why.
    fn explain(&mut self, gone: anyhow::Error, watch: &mut Watch) -> anyhow::Error {
        let end_ns = now_ns() + SECOND_NS / 2;
        while now_ns() < end_ns
            && let Ok((worker, Ok(event))) = self.events.recv_timeout(Duration::from_millis(300))
        {
            self.take_progress(worker, event, watch);
        }
        match self.complaint() {
            Some(complaint) => anyhow!("{gone}; a client saw this: {complaint}"),
            None => gone,
        }
    }

    fn complaint(&self) -> Option<&str> {
        self.workers.iter().find_map(|worker| worker.progress.complaint.as_deref())
    }

    fn check(&self) -> Result<()> {
        let failed: u32 = self.workers.iter().map(|worker| worker.progress.failed).sum();
        let dropped = self.dropped();
        let complaint = self.complaint().unwrap_or_default();
        if failed > 0 {
            bail!("{failed} clients could not be opened; the first: {complaint}");
        }
        if dropped > 0 {
            bail!("{dropped} clients lost their connection; the first: {complaint}");
        }
        Ok(())
    }

    fn tell_all(&self, command: &WorkerCommand) -> Result<()> {
        self.workers.iter().try_for_each(|worker| worker.link.send(command))
    }

    /// Waits for one such event from each worker; in vain if nothing moves for as long as patience lasts.
    fn await_all(&mut self, watch: &mut Watch, is_awaited: fn(&WorkerEvent) -> bool) -> Result<Vec<WorkerEvent>> {
        let mut awaited = Vec::new();
        let mut state = (self.open_now(), self.received());
        let mut since_ns = now_ns();
        while awaited.len() < self.workers.len() {
            if let Some((_, event)) = self.take_event(watch)?
                && is_awaited(&event)
            {
                awaited.push(event);
                since_ns = now_ns();
            }
            if state != (self.open_now(), self.received()) {
                state = (self.open_now(), self.received());
                since_ns = now_ns();
            }
            if now_ns() > since_ns + self.patience_ns {
                bail!("nothing has moved for {} seconds (--patience-seconds)", self.patience_ns / SECOND_NS);
            }
        }
        Ok(awaited)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // A worker that has ended by itself cannot be killed; it is waited for all the same.
            let _ = worker.child.kill();
            let _ = worker.child.wait();
        }
    }
}

fn forward_events(worker: usize, link: &Link, sender: Sender<(usize, Result<WorkerEvent>)>) -> Result<()> {
    let messages = link.messages::<WorkerEvent>()?;
    thread::spawn(move || {
        for message in messages {
            if sender.send((worker, message)).is_err() {
                return;
            }
        }
        let _ = sender.send((worker, Err(anyhow!("worker process {worker} ended early"))));
    });
    Ok(())
}

fn merge(tallies: Vec<Tally>) -> Findings {
    let (mut setup, mut latencies) = (Durations::new(), Durations::new());
    let mut findings = Findings::default();
    let mut publications = BTreeMap::<(u32, u64), PublicationTally>::new();
    for tally in tallies {
        setup.add_pairs(&tally.setup);
        latencies.add_pairs(&tally.latencies);
        for publication in tally.publications {
            let last = publications.entry((publication.channel, publication.sequence)).or_insert(publication);
            last.last_us = publication.last_us.max(last.last_us);
            last.last_arrival_us = publication.last_arrival_us.max(last.last_arrival_us);
        }
        findings.faults.add(&tally.faults);
        findings.received += tally.received;
        findings.received_slowly += tally.received_slowly;
        findings.recovered += tally.recovered;
        findings.received_bytes += tally.received_bytes;
        findings.agreed += tally.agreed;
        findings.savings.add(tally.savings);
        findings.unstamped += tally.unstamped;
        findings.pings += tally.pings;
        findings.sample_frame = findings.sample_frame.take().or(tally.sample_frame);
    }
    let (mut last, mut last_arrival) = (Durations::new(), Durations::new());
    for publication in publications.values() {
        last.record_us(publication.last_us);
        if publication.last_arrival_us > 0 {
            last_arrival.record_us(publication.last_arrival_us);
        }
    }
    Findings {
        setup: setup.summary(),
        latency: latencies.summary(),
        last_client: last.summary(),
        last_arrival: last_arrival.summary(),
        ..findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_split_evenly_within_the_limits() {
        assert_eq!(split(10, 64, 2, 20_000).unwrap(), [0..5, 5..10]);
        assert_eq!(split(10, 8, 1, 64 + 8 + 4).unwrap(), [0..3, 3..6, 6..10]);
        assert_eq!(split(1, 64, 8, 20_000).unwrap().len(), 1);
        let error = split(10, 64, 1, 10).unwrap_err().to_string();
        assert!(error.contains("ulimit -n"), "{error}");
    }

    #[test]
    fn the_last_client_of_a_publication_is_the_last_of_all_workers() {
        let tally = |last_us| Tally {
            publications: vec![PublicationTally {
                channel: 0,
                sequence: 1,
                receivers: 1,
                last_us,
                last_arrival_us: 31 - last_us,
            }],
            faults: Faults { lost: 1, ..Faults::default() },
            ..Tally::default()
        };
        let findings = merge(vec![tally(10), tally(30), tally(20)]);
        let last = findings.last_client.unwrap();
        assert_eq!((last.count, last.max_us), (1, 30));
        assert_eq!(findings.last_arrival.unwrap().max_us, 21);
        assert_eq!(findings.faults.lost, 3);
    }
}
