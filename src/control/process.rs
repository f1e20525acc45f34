//! What the kernel says of this process: memory, descriptors, CPU time.
//!
//! A figure that the kernel does not give (a `/proc` that is not mounted) is left out rather than
//! reported as 0.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::sys::{
    resource::{Resource, UsageWho, getrlimit, getrusage},
    time::TimeValLike,
};

/// The process at one time.
#[derive(Debug, Clone, Default)]
pub struct ProcessFigures {
    /// Resident memory, in bytes. The kernel's own count, exact to some pages per thread.
    pub resident_bytes: Option<u64>,
    /// Virtual memory, in bytes.
    pub virtual_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open descriptors.
    pub open_fds: Option<u64>,
    /// Descriptors that may be open.
    pub max_fds: Option<u64>,
    /// User and system CPU time since the start, in seconds.
    pub cpu_seconds: Option<f64>,
}

impl ProcessFigures {
    /// Reads them.
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            resident_bytes: status_field(&status, "VmRSS").map(|kib| kib * 1024),
            virtual_bytes: status_field(&status, "VmSize").map(|kib| kib * 1024),
            threads: status_field(&status, "Threads"),
            open_fds: open_fds(),
            max_fds: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
            cpu_seconds: cpu_seconds(),
        }
    }
}

/// When this process started, to within the time that the control thread took to start.
/// Fixed by the first call.
pub fn started_at() -> SystemTime {
    static STARTED_AT: OnceLock<SystemTime> = OnceLock::new();
    *STARTED_AT.get_or_init(SystemTime::now)
}

/// [`started_at`] as seconds since 1970.
pub fn start_time_seconds() -> f64 {
    started_at().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// How long the process has run, by the clock on the wall.
pub fn uptime() -> Duration {
    started_at().elapsed().unwrap_or_default()
}

fn status_field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

fn open_fds() -> Option<u64> {
    // Since Linux 6.2 the folder's size is the number of descriptors. Before, they must be listed:
    // some hundred milliseconds for a million, on a thread that nobody waits for but the operator.
    let size = fs::metadata("/proc/self/fd").ok()?.size();
    if size > 0 {
        return Some(size);
    }
    let listed = fs::read_dir("/proc/self/fd").ok()?.count();
    // The listing itself holds one.
    u64::try_from(listed.saturating_sub(1)).ok()
}

fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Some(microseconds as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_process() {
        let figures = ProcessFigures::read();
        assert!(figures.resident_bytes.unwrap() > 100_000);
        assert!(figures.virtual_bytes.unwrap() > figures.resident_bytes.unwrap());
        assert!(figures.threads.unwrap() >= 1);
        assert!(figures.open_fds.unwrap() >= 3);
        assert!(figures.max_fds.unwrap() > figures.open_fds.unwrap());
        assert!(figures.cpu_seconds.unwrap() > 0.0);
    }

    #[test]
    fn a_status_field_is_found_by_its_whole_name() {
        let status = "VmRSSx:\t 1 kB\nVmRSS:\t  2048 kB\n";
        assert_eq!(status_field(status, "VmRSS"), Some(2048));
        assert_eq!(status_field(status, "VmSize"), None);
    }
}
