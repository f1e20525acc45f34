//! When publications leave: a timetable, and keeping it.
//!
//! Instants are fixed before the first publication and do not move when something is late
//! (no coordinated omission): a publication that leaves late carries the instant at which it should
//! have left, and its lateness counts as latency.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use anyhow::Result;

use crate::clock::{SECOND_NS, now_ns, sleep_until_ns};

/// A steady rate.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Instants per second.
    pub rate: f64,
    /// Publications at each instant.
    pub burst: u32,
    /// Number of instants.
    pub instants: u64,
}

/// What came of pushing.
#[derive(Debug, Clone, Default)]
pub struct Pushed {
    /// Publications that left.
    pub publications: u64,
    /// By how much the latest one was late at its departure, in microseconds.
    pub late_us_max: u64,
    /// The floor alone: what each loop over all sockets took, in microseconds.
    pub loops_us: Vec<u64>,
    /// The floor alone: sends that found a full socket.
    pub repeated: u64,
}

/// A connection through which publications leave.
pub trait Outlet {
    /// Lets the publications of one instant leave, stamped with it.
    ///
    /// # Errors
    /// If the server refuses or goes away.
    fn push_burst(&mut self, burst: u32, intended_ns: u64) -> Result<()>;

    /// Takes what the server has sent, without waiting, so that it does not have to wait for this connection.
    ///
    /// # Errors
    /// If the server refuses or goes away.
    fn drain(&mut self) -> Result<()>;
}

impl Pace {
    /// This many seconds of a rate; at least one instant.
    pub fn of_seconds(rate: f64, burst: u32, seconds: f64) -> Pace {
        Pace { rate, burst, instants: ((rate * seconds).round() as u64).max(1) }
    }

    /// A rate until it is told to stop.
    pub fn until_stopped(rate: f64) -> Pace {
        Pace { rate, burst: 1, instants: u64::MAX }
    }

    /// Publications in all.
    pub fn publications(&self) -> u64 {
        self.instants.saturating_mul(u64::from(self.burst))
    }

    /// Seconds that it lasts.
    pub fn seconds(&self) -> f64 {
        self.instants as f64 / self.rate
    }

    /// Nanoseconds from the first instant to this one.
    pub fn offset_ns(&self, instant: u64) -> u64 {
        (instant as f64 * SECOND_NS as f64 / self.rate) as u64
    }

    /// Pushes at each instant; counts in `published`; ends early when told to stop.
    ///
    /// # Errors
    /// If the server refuses or goes away.
    pub fn keep(&self, outlet: &mut impl Outlet, published: &AtomicU64, stop: &AtomicBool) -> Result<Pushed> {
        let start_ns = now_ns() + SECOND_NS / 100;
        let mut pushed = Pushed::default();
        for instant in 0..self.instants {
            if stop.load(Relaxed) {
                break;
            }
            let intended_ns = start_ns + self.offset_ns(instant);
            sleep_until_ns(intended_ns);
            outlet.push_burst(self.burst, intended_ns)?;
            pushed.late_us_max = pushed.late_us_max.max(now_ns().saturating_sub(intended_ns) / 1000);
            pushed.publications += u64::from(self.burst);
            published.fetch_add(u64::from(self.burst), Relaxed);
            outlet.drain()?;
        }
        Ok(pushed)
    }
}

impl Pushed {
    /// What two sources did together.
    pub fn merge(mut self, mut other: Pushed) -> Pushed {
        self.loops_us.append(&mut other.loops_us);
        Pushed {
            publications: self.publications + other.publications,
            late_us_max: self.late_us_max.max(other.late_us_max),
            loops_us: self.loops_us,
            repeated: self.repeated + other.repeated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stops the pushing at the third burst.
    #[derive(Default)]
    struct Stopping<'a> {
        stop: Option<&'a AtomicBool>,
        intended_ns: Vec<u64>,
        drained: usize,
    }

    impl Outlet for Stopping<'_> {
        fn push_burst(&mut self, burst: u32, intended_ns: u64) -> Result<()> {
            assert_eq!(burst, 2);
            self.intended_ns.push(intended_ns);
            if let Some(stop) = self.stop.filter(|_| self.intended_ns.len() == 3) {
                stop.store(true, Relaxed);
            }
            Ok(())
        }

        fn drain(&mut self) -> Result<()> {
            self.drained += 1;
            Ok(())
        }
    }

    #[test]
    fn a_pace_is_a_fixed_timetable() {
        let pace = Pace::of_seconds(10.0, 16, 2.0);
        assert_eq!((pace.instants, pace.publications()), (20, 320));
        assert_eq!(pace.offset_ns(15), 1_500_000_000);
        assert_eq!(Pace::of_seconds(0.1, 1, 1.0).instants, 1);
    }

    #[test]
    fn it_is_kept_until_its_end_or_until_told_to_stop() {
        let pace = Pace { rate: 1e4, burst: 2, instants: 5 };
        for (stops, instants) in [(false, 5), (true, 3)] {
            let (published, stop) = (AtomicU64::new(0), AtomicBool::new(false));
            let mut outlet = Stopping { stop: stops.then_some(&stop), ..Stopping::default() };
            let pushed = pace.keep(&mut outlet, &published, &stop).unwrap();
            assert_eq!((pushed.publications, published.load(Relaxed)), (2 * instants, 2 * instants));
            assert_eq!((outlet.intended_ns.len() as u64, outlet.drained as u64), (instants, instants));
            assert!(outlet.intended_ns.windows(2).all(|pair| pair[1] - pair[0] == 100_000), "{:?}", outlet.intended_ns);
        }
    }
}
