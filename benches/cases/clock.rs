//! The clock of benchmarks that must put things back in order between two measurements.

use std::time::{Duration, Instant};

/// Things that are done between two looks at the clock: enough that the looks do not count.
const CHUNK: usize = 10_000;

/// Acts on `count` of `total` things, chunk by chunk (the first, how many) and round again; the sum of what the acts took.
pub fn in_chunks(total: usize, count: u64, mut act: impl FnMut(usize, usize) -> Duration) -> Duration {
    assert!(total.is_multiple_of(CHUNK), "chunks come round without a rest");
    let mut time = Duration::ZERO;
    let (mut left, mut first) = (count as usize, 0);
    while left > 0 {
        let chunk = left.min(CHUNK);
        time += act(first, chunk);
        left -= chunk;
        first = (first + CHUNK) % total;
    }
    time
}

/// What an act takes.
pub fn timed(act: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    act();
    begun.elapsed()
}
