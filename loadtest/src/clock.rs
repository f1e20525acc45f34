//! The one clock of a run: CLOCK_MONOTONIC, which all processes of a machine share.
//!
//! Latencies are differences between instants taken in different processes, so no clock that is
//! private to a process (as `Instant` might be) will do.

use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime},
};

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// Nanoseconds on the monotonic clock.
pub fn now_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has a monotonic clock"))
}

/// An instant of the kernel's that it tells by the time of day, on the monotonic clock.
pub fn monotonic_ns(time_of_day: TimeSpec) -> u64 {
    let now = nanoseconds(clock_gettime(ClockId::CLOCK_REALTIME).expect("every Linux has a time of day"));
    now_ns().saturating_sub(now.saturating_sub(nanoseconds(time_of_day)))
}

fn nanoseconds(time: TimeSpec) -> u64 {
    time.tv_sec() as u64 * SECOND_NS + time.tv_nsec() as u64
}

/// Sleeps until the instant; returns at once if it is past.
pub fn sleep_until_ns(instant_ns: u64) {
    let now = now_ns();
    if instant_ns > now {
        std::thread::sleep(std::time::Duration::from_nanos(instant_ns - now));
    }
}
