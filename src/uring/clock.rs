//! The clock that all threads share.

use nix::time::{ClockId, clock_gettime};

/// Microseconds since the host's start.
pub fn monotonic_us() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    time.tv_sec() as u64 * 1_000_000 + time.tv_nsec() as u64 / 1_000
}
