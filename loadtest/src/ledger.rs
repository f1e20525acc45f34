//! What one worker counts: latencies, publications, faults.

use crate::{
    link::{PublicationTally, Tally},
    sequence::{Faults, SequenceWindow},
    stamp::Stamp,
    statistics::{Durations, Pairs},
};

/// Publications of one stream whose last receivers are kept, at most.
const PUBLICATIONS_MAX: usize = 1 << 20;

/// Longest frame that is kept as a sample, in bytes.
const SAMPLE_FRAME_BYTES_MAX: usize = 64 * 1024;

/// The counts of one worker.
#[derive(Debug)]
pub struct Ledger {
    setup: Durations,
    latencies: Durations,
    interval: Durations,
    faults: Faults,
    received: u64,
    received_bytes: u64,
    unstamped: u64,
    streams: Vec<StreamTally>,
    /// Whether the last receiver of each publication is of interest.
    keeps_publications: bool,
    sample_frame: Option<Vec<u8>>,
}

/// How the publications of one stream arrived, from the first one after the mark.
#[derive(Debug, Default, Clone)]
struct StreamTally {
    first_sequence: u64,
    publications: Vec<(u32, u64)>,
}

impl Ledger {
    /// Nothing counted yet; with streams that many clients share, the last receiver of each publication is kept.
    pub fn new(shared_streams: Option<u32>) -> Self {
        Self {
            setup: Durations::new(),
            latencies: Durations::new(),
            interval: Durations::coarse(),
            faults: Faults::default(),
            received: 0,
            received_bytes: 0,
            unstamped: 0,
            streams: vec![StreamTally::default(); shared_streams.unwrap_or_default() as usize],
            keeps_publications: shared_streams.is_some(),
            sample_frame: None,
        }
    }

    /// A client is subscribed.
    pub fn record_setup(&mut self, duration_us: u64) {
        self.setup.record_us(duration_us);
    }

    /// A client received bytes.
    pub fn record_bytes(&mut self, bytes: usize) {
        self.received_bytes += bytes as u64;
    }

    /// A client of this stream received a message.
    pub fn record(&mut self, stamp: Stamp, stream: u32, window: &mut SequenceWindow, now_ns: u64) {
        if stamp.stream != stream {
            self.faults.misrouted += 1;
            return;
        }
        window.receive(stamp.sequence, &mut self.faults);
        let latency_us = now_ns.saturating_sub(stamp.intended_ns) / 1000;
        self.latencies.record_us(latency_us);
        self.interval.record_us(latency_us);
        self.received += 1;
        if self.keeps_publications {
            self.record_publication(stamp, latency_us);
        }
    }

    fn record_publication(&mut self, stamp: Stamp, latency_us: u64) {
        let Some(stream) = self.streams.get_mut(stamp.stream as usize) else { return };
        if stream.publications.is_empty() {
            stream.first_sequence = stamp.sequence;
        }
        let Some(index) = stamp.sequence.checked_sub(stream.first_sequence) else { return };
        let index = index as usize;
        if index >= PUBLICATIONS_MAX {
            return;
        }
        if index >= stream.publications.len() {
            stream.publications.resize(index + 1, (0, 0));
        }
        let (receivers, last_us) = &mut stream.publications[index];
        *receivers += 1;
        *last_us = latency_us.max(*last_us);
    }

    /// A client received a message that carries no stamp and is no ping.
    pub fn record_unstamped(&mut self) {
        self.unstamped += 1;
    }

    /// A message with a stamp in its frame, for the floor to send the same.
    pub fn keep_sample(&mut self, frame: impl FnOnce() -> Vec<u8>) {
        if self.sample_frame.is_none() {
            self.sample_frame = Some(frame()).filter(|frame| frame.len() <= SAMPLE_FRAME_BYTES_MAX);
        }
    }

    /// Messages since the mark.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// A stream ended with this number; the window of one of its subscribers is judged.
    pub fn end_stream(&mut self, window: &mut SequenceWindow, last: u64) {
        window.end(last, &mut self.faults);
    }

    /// Latencies since the last call.
    pub fn take_interval(&mut self) -> Pairs {
        let pairs = self.interval.to_pairs();
        self.interval.clear();
        pairs
    }

    /// Forgets what was preparation. Faults stay: nothing may go wrong while preparing either.
    pub fn mark(&mut self) {
        self.latencies.clear();
        self.interval.clear();
        self.received = 0;
        self.received_bytes = 0;
        self.unstamped = 0;
        self.streams.fill(StreamTally::default());
    }

    /// What was counted.
    pub fn tally(&self) -> Tally {
        Tally {
            setup: self.setup.to_pairs(),
            latencies: self.latencies.to_pairs(),
            publications: self.publications(),
            faults: self.faults,
            received: self.received,
            received_bytes: self.received_bytes,
            unstamped: self.unstamped,
            sample_frame: self.sample_frame.clone(),
        }
    }

    fn publications(&self) -> Vec<PublicationTally> {
        let streams = self.streams.iter().zip(0..);
        streams
            .flat_map(|(tally, stream)| {
                let numbered = tally.publications.iter().zip(tally.first_sequence..);
                numbered.map(move |(&(receivers, last_us), sequence)| PublicationTally {
                    stream,
                    sequence,
                    receivers,
                    last_us,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(sequence: u64) -> Stamp {
        Stamp { stream: 0, sequence, intended_ns: sequence * 1_000_000 }
    }

    #[test]
    fn publications_know_their_last_receiver() {
        let mut ledger = Ledger::new(Some(1));
        let mut clients = [SequenceWindow::expecting(1), SequenceWindow::expecting(1)];
        ledger.record(stamp(1), 0, &mut clients[0], 1_000_000);
        ledger.record(stamp(1), 0, &mut clients[1], 1_000_000);
        ledger.mark();
        ledger.record(stamp(2), 0, &mut clients[0], 2_005_000);
        ledger.record(stamp(2), 0, &mut clients[1], 2_030_000);
        ledger.record(stamp(3), 0, &mut clients[1], 3_001_000);
        let tally = ledger.tally();
        let expected = [
            PublicationTally { stream: 0, sequence: 2, receivers: 2, last_us: 30 },
            PublicationTally { stream: 0, sequence: 3, receivers: 1, last_us: 1 },
        ];
        assert_eq!(tally.publications, expected);
        assert_eq!((tally.received, tally.faults), (3, Faults::default()));
    }

    #[test]
    fn another_users_message_is_a_fault() {
        let mut ledger = Ledger::new(None);
        ledger.record(stamp(1), 5, &mut SequenceWindow::expecting(1), 0);
        assert_eq!(ledger.tally().faults, Faults { misrouted: 1, ..Faults::default() });
        assert_eq!(ledger.received(), 0);
    }
}
