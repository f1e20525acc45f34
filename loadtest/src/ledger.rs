//! What one worker counts: latencies, publications, faults.

use crate::{
    link::{PublicationTally, Tally},
    sequence::{Faults, SequenceWindow},
    stamp::Stamp,
    statistics::{Durations, Pairs},
    stream::Stream,
    websocket::Savings,
};

/// Publications of one stream whose last receivers are kept, at most.
const PUBLICATIONS_MAX: usize = 1 << 20;

/// Longest frame that is kept as a sample, in bytes.
const SAMPLE_FRAME_BYTES_MAX: usize = 64 * 1024;

/// The counts of one worker.
#[derive(Debug)]
pub struct Ledger {
    setup: Durations,
    resumed: u64,
    latencies: Durations,
    interval: Durations,
    faults: Faults,
    received: u64,
    received_bytes: u64,
    agreed: u64,
    savings: Savings,
    unstamped: u64,
    pings: u64,
    received_slowly: u64,
    recovered: u64,
    channels: Vec<ChannelTally>,
    sample_frame: Option<Vec<u8>>,
}

/// How the publications of one channel arrived, from the first one after the mark.
#[derive(Debug, Default, Clone)]
struct ChannelTally {
    first_sequence: u64,
    publications: Vec<Arrivals>,
}

/// How one publication arrived.
#[derive(Debug, Default, Clone, Copy)]
struct Arrivals {
    receivers: u32,
    last_us: u64,
    last_arrival_us: u64,
}

impl Ledger {
    /// Nothing counted yet, of this many channels.
    pub fn new(channels: u32) -> Self {
        Self {
            setup: Durations::new(),
            resumed: 0,
            latencies: Durations::new(),
            interval: Durations::coarse(),
            faults: Faults::default(),
            received: 0,
            received_bytes: 0,
            agreed: 0,
            savings: Savings::default(),
            unstamped: 0,
            pings: 0,
            received_slowly: 0,
            recovered: 0,
            channels: vec![ChannelTally::default(); channels as usize],
            sample_frame: None,
        }
    }

    /// A client is subscribed.
    pub fn record_setup(&mut self, duration_us: u64) {
        self.setup.record_us(duration_us);
    }

    /// A client's TLS handshake has resumed a session.
    pub fn record_resumption(&mut self) {
        self.resumed += 1;
    }

    /// A client received bytes.
    pub fn record_bytes(&mut self, bytes: usize) {
        self.received_bytes += bytes as u64;
    }

    /// A client and the server have agreed on compression.
    pub fn record_agreement(&mut self) {
        self.agreed += 1;
    }

    /// What compression has spared of what a client received.
    pub fn record_savings(&mut self, savings: Savings) {
        self.savings.add(savings);
    }

    /// A client received a message that is not what was published.
    pub fn record_damaged(&mut self) {
        self.faults.damaged += 1;
    }

    /// A client received a message, which the kernel may have noted the arrival of; `window` is none if it should
    /// not have.
    pub fn record(&mut self, stamp: Stamp, window: Option<&mut SequenceWindow>, now_ns: u64, arrived_ns: Option<u64>) {
        let Some(window) = window else {
            self.faults.misrouted += 1;
            return;
        };
        window.receive(stamp.sequence, &mut self.faults);
        let since_intended_us = |instant_ns: u64| instant_ns.saturating_sub(stamp.intended_ns) / 1000;
        let latency_us = since_intended_us(now_ns);
        self.latencies.record_us(latency_us);
        self.interval.record_us(latency_us);
        self.received += 1;
        if let Stream::Channel(channel) = stamp.stream {
            let arrival_us = arrived_ns.map_or(0, since_intended_us);
            self.record_publication(channel, stamp.sequence, latency_us, arrival_us);
        }
    }

    /// A slow client received a message: it may miss some, as the server's policy has it, but none comes twice or late.
    pub fn record_slowly(&mut self, stamp: Stamp, window: Option<&mut SequenceWindow>) {
        let lost = self.faults.lost;
        // What comes late is taken off those lost, which are not counted here.
        self.faults.lost += 1;
        match window {
            Some(window) => window.receive(stamp.sequence, &mut self.faults),
            None => self.faults.misrouted += 1,
        }
        self.faults.lost = lost;
        self.received_slowly += 1;
    }

    /// The next message was missed and came with the answer to the subscription.
    pub fn record_recovered(&mut self) {
        self.recovered += 1;
    }

    fn record_publication(&mut self, channel: u32, sequence: u64, latency_us: u64, arrival_us: u64) {
        let Some(stream) = self.channels.get_mut(channel as usize) else { return };
        if stream.publications.is_empty() {
            stream.first_sequence = sequence;
        }
        let Some(index) = sequence.checked_sub(stream.first_sequence) else { return };
        let index = index as usize;
        if index >= PUBLICATIONS_MAX {
            return;
        }
        if index >= stream.publications.len() {
            stream.publications.resize(index + 1, Arrivals::default());
        }
        let arrivals = &mut stream.publications[index];
        arrivals.receivers += 1;
        arrivals.last_us = latency_us.max(arrivals.last_us);
        arrivals.last_arrival_us = arrival_us.max(arrivals.last_arrival_us);
    }

    /// A client received a message that carries no stamp and is no ping.
    pub fn record_unstamped(&mut self) {
        self.unstamped += 1;
    }

    /// A client answered a ping.
    pub fn record_ping(&mut self) {
        self.pings += 1;
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

    /// From TCP connect to subscribed, since the last call.
    pub fn take_setup(&mut self) -> Pairs {
        let pairs = self.setup.to_pairs();
        self.setup.clear();
        pairs
    }

    /// TLS handshakes that resumed a session, since the last call.
    pub fn take_resumed(&mut self) -> u64 {
        std::mem::take(&mut self.resumed)
    }

    /// Forgets what was preparation. Faults stay: nothing may go wrong while preparing either.
    pub fn mark(&mut self) {
        self.latencies.clear();
        self.interval.clear();
        self.received = 0;
        self.received_bytes = 0;
        self.savings = Savings::default();
        self.received_slowly = 0;
        self.recovered = 0;
        self.unstamped = 0;
        self.pings = 0;
        self.channels.fill(ChannelTally::default());
    }

    /// What was counted.
    pub fn tally(&self) -> Tally {
        Tally {
            setup: self.setup.to_pairs(),
            latencies: self.latencies.to_pairs(),
            publications: self.publications(),
            faults: self.faults,
            received: self.received,
            received_slowly: self.received_slowly,
            recovered: self.recovered,
            received_bytes: self.received_bytes,
            agreed: self.agreed,
            savings: self.savings,
            unstamped: self.unstamped,
            pings: self.pings,
            sample_frame: self.sample_frame.clone(),
        }
    }

    fn publications(&self) -> Vec<PublicationTally> {
        let channels = self.channels.iter().zip(0..);
        channels
            .flat_map(|(tally, channel)| {
                let numbered = tally.publications.iter().zip(tally.first_sequence..);
                numbered.map(move |(&Arrivals { receivers, last_us, last_arrival_us }, sequence)| PublicationTally {
                    channel,
                    sequence,
                    receivers,
                    last_us,
                    last_arrival_us,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(sequence: u64) -> Stamp {
        Stamp { stream: Stream::Channel(0), sequence, intended_ns: sequence * 1_000_000 }
    }

    #[test]
    fn publications_know_their_last_receiver() {
        let mut ledger = Ledger::new(1);
        let mut clients = [SequenceWindow::expecting(1), SequenceWindow::expecting(1)];
        ledger.record(stamp(1), Some(&mut clients[0]), 1_000_000, None);
        ledger.record(stamp(1), Some(&mut clients[1]), 1_000_000, None);
        ledger.mark();
        ledger.record(stamp(2), Some(&mut clients[0]), 2_005_000, Some(2_004_000));
        ledger.record(stamp(2), Some(&mut clients[1]), 2_030_000, Some(2_003_000));
        ledger.record(stamp(3), Some(&mut clients[1]), 3_001_000, None);
        let tally = ledger.tally();
        let expected = [
            PublicationTally { channel: 0, sequence: 2, receivers: 2, last_us: 30, last_arrival_us: 4 },
            PublicationTally { channel: 0, sequence: 3, receivers: 1, last_us: 1, last_arrival_us: 0 },
        ];
        assert_eq!(tally.publications, expected);
        assert_eq!((tally.received, tally.faults), (3, Faults::default()));
    }

    #[test]
    fn another_users_message_is_a_fault() {
        let mut ledger = Ledger::new(1);
        ledger.record(stamp(1), None, 0, None);
        assert_eq!(ledger.tally().faults, Faults { misrouted: 1, ..Faults::default() });
        assert_eq!(ledger.received(), 0);
    }

    #[test]
    fn a_slow_client_may_miss_but_not_see_twice() {
        let mut ledger = Ledger::new(1);
        let mut window = SequenceWindow::expecting(1);
        for sequence in [1, 5, 5] {
            ledger.record_slowly(stamp(sequence), Some(&mut window));
        }
        let tally = ledger.tally();
        assert_eq!(tally.faults, Faults { doubled: 1, ..Faults::default() });
        assert_eq!((tally.received, tally.received_slowly), (0, 3));
    }
}
