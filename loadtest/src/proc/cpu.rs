//! CPU time of a process, by thread, in nanoseconds.
//!
//! From /proc/PID/task/TID/schedstat: the scheduler's own account, which counts every nanosecond
//! (utime and stime are sampled by ticks on most kernels). Softirq work that a thread's system
//! calls cause on the spot, such as the receiver's half of a loopback send, is part of it.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// CPU time of each thread of a process.
#[derive(Debug, Clone, Default)]
pub struct CpuTimes {
    by_thread: BTreeMap<u32, ThreadTime>,
}

#[derive(Debug, Clone)]
struct ThreadTime {
    name: String,
    ns: u64,
}

/// CPU time that a group of threads of one name used between two samples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedTime {
    /// Name of the threads.
    pub name: String,
    /// Nanoseconds.
    pub ns: u64,
}

impl CpuTimes {
    /// The present times of a process.
    ///
    /// # Errors
    /// If there is no such process (any more), or the kernel keeps no account.
    pub fn of_process(pid: u32) -> Result<CpuTimes> {
        let directory = format!("/proc/{pid}/task");
        let entries = fs::read_dir(&directory).with_context(|| format!("no process {pid}"))?;
        let mut by_thread = BTreeMap::new();
        for entry in entries.flatten() {
            // A thread may end between the listing and the reading.
            let Ok(schedstat) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            let tid = entry.file_name().to_string_lossy().parse().unwrap_or_default();
            let ns = parse_schedstat(&schedstat).context("the kernel's schedstat is not understood")?;
            by_thread.insert(tid, ThreadTime { name: name.trim().to_owned(), ns });
        }
        Ok(CpuTimes { by_thread })
    }

    /// Nanoseconds that all threads together have used since `earlier`.
    pub fn since_ns(&self, earlier: &CpuTimes) -> u64 {
        self.since_by_name(earlier).iter().map(|named| named.ns).sum()
    }

    /// The same by the threads' names, the busiest first.
    pub fn since_by_name(&self, earlier: &CpuTimes) -> Vec<NamedTime> {
        let mut names: BTreeMap<&str, u64> = BTreeMap::new();
        for (tid, time) in &self.by_thread {
            let before = earlier.by_thread.get(tid).map_or(0, |time| time.ns);
            *names.entry(&time.name).or_default() += time.ns.saturating_sub(before);
        }
        let mut named: Vec<NamedTime> =
            names.into_iter().map(|(name, ns)| NamedTime { name: name.to_owned(), ns }).collect();
        named.sort_by_key(|named| std::cmp::Reverse(named.ns));
        named
    }
}

/// The cores that threads of a process are pinned to: those of threads that may run on one core only.
pub fn pinned_cores(pid: u32) -> Vec<usize> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut cores: Vec<usize> = entries
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok())
        .filter_map(|status| parse_single_core(&status))
        .collect();
    cores.sort_unstable();
    cores.dedup();
    cores
}

fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

fn parse_single_core(status: &str) -> Option<usize> {
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(threads: &[(u32, &str, u64)]) -> CpuTimes {
        let by_thread =
            threads.iter().map(|&(tid, name, ns)| (tid, ThreadTime { name: name.to_owned(), ns })).collect();
        CpuTimes { by_thread }
    }

    #[test]
    fn schedstat_begins_with_nanoseconds_run() {
        assert_eq!(parse_schedstat("425613 17 1\n"), Some(425_613));
        assert_eq!(parse_schedstat(""), None);
    }

    #[test]
    fn only_a_single_core_is_a_pin() {
        assert_eq!(parse_single_core("Name:\tx\nCpus_allowed_list:\t3\nMems_allowed_list:\t0\n"), Some(3));
        assert_eq!(parse_single_core("Cpus_allowed_list:\t0-1\n"), None);
    }

    #[test]
    fn differences_count_new_threads_and_forget_ended_ones() {
        let before = times(&[(1, "main", 10), (2, "shard-0", 100), (3, "gone", 5)]);
        let after = times(&[(1, "main", 12), (2, "shard-0", 400), (4, "shard-0", 7)]);
        assert_eq!(after.since_ns(&before), 309);
        let expected = [("shard-0", 307), ("main", 2)].map(|(name, ns)| NamedTime { name: name.to_owned(), ns });
        assert_eq!(after.since_by_name(&before), expected);
    }

    #[test]
    fn this_process_has_used_time() {
        let before = CpuTimes::of_process(std::process::id()).unwrap();
        let mut sum = 0_u64;
        let start = crate::clock::now_ns();
        while crate::clock::now_ns() - start < 50_000_000 {
            sum = sum.wrapping_mul(31).wrapping_add(start);
        }
        std::hint::black_box(sum);
        let used = CpuTimes::of_process(std::process::id()).unwrap().since_ns(&before);
        assert!(used > 5_000_000, "50 ms of looping are {used} ns");
    }
}
