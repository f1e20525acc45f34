//! The one clock of a run: CLOCK_MONOTONIC, which all processes of a machine share.
//!
//! Latencies are differences between instants taken in different processes, so no clock that is
//! private to a process (as `Instant` might be) will do.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// Nanoseconds on the monotonic clock.
pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has a monotonic clock");
    time.tv_sec() as u64 * SECOND_NS + time.tv_nsec() as u64
}

/// Sleeps until the instant; returns at once if it is past.
pub fn sleep_until_ns(instant_ns: u64) {
    let now = now_ns();
    if instant_ns > now {
        std::thread::sleep(std::time::Duration::from_nanos(instant_ns - now));
    }
}
