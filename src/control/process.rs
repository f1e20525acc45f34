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

use nix::{
    sys::{
        resource::{Resource, UsageWho, getrlimit, getrusage},
        time::TimeValLike,
    },
    unistd::{SysconfVar, sysconf},
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
    /// The kernel's memory, of the whole host.
    pub kernel: KernelMemory,
    /// The same when it was read first.
    pub kernel_at_start: KernelMemory,
}

/// What the kernel takes for itself on this host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KernelMemory {
    /// Slabs, in bytes: sockets, files and inodes among them.
    pub slab_bytes: Option<u64>,
    /// What waits in TCP sockets, in bytes.
    pub tcp_bytes: Option<u64>,
    /// TCP sockets of this network namespace.
    pub tcp_sockets: Option<u64>,
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
            kernel: KernelMemory::read(),
            kernel_at_start: kernel_at_start(),
        }
    }

    /// By how much the kernel's memory has grown since the start for each of so many sockets; none: it cannot be told.
    pub fn kernel_bytes_per_socket(&self, sockets: u64) -> Option<f64> {
        let KernelMemory { slab_bytes, tcp_bytes, .. } = self.kernel;
        let before = self.kernel_at_start.slab_bytes? + self.kernel_at_start.tcp_bytes?;
        let growth = (slab_bytes? + tcp_bytes?).saturating_sub(before);
        (sockets > 0).then(|| growth as f64 / sockets as f64)
    }
}

impl KernelMemory {
    fn read() -> Self {
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let sockets = fs::read_to_string("/proc/self/net/sockstat").unwrap_or_default();
        let page_bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|bytes| u64::try_from(bytes).ok());
        let tcp_pages = socket_field(&sockets, "TCP", "mem");
        Self {
            slab_bytes: status_field(&memory, "Slab").map(|kib| kib * 1024),
            tcp_bytes: tcp_pages.zip(page_bytes).map(|(pages, bytes)| pages * bytes),
            tcp_sockets: socket_field(&sockets, "TCP", "inuse"),
        }
    }
}

/// The process starts now: what later figures are compared with is looked at.
pub fn begin() {
    started_at();
    kernel_at_start();
}

/// What the kernel took when this was called first.
fn kernel_at_start() -> KernelMemory {
    static AT_START: OnceLock<KernelMemory> = OnceLock::new();
    *AT_START.get_or_init(KernelMemory::read)
}

/// A number of `/proc/net/sockstat`: `TCP: inuse 27 orphan 0 tw 5 alloc 30 mem 3`.
fn socket_field(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(protocol)?.strip_prefix(':'))?;
    let mut words = line.split_whitespace().skip_while(|word| *word != name);
    words.nth(1)?.parse().ok()
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
    fn the_kernels_memory_is_told_by_socket() {
        let text = "sockets: used 200\nTCP: inuse 27 orphan 0 tw 5 alloc 30 mem 3\nUDP: inuse 3 mem 9\n";
        assert_eq!((socket_field(text, "TCP", "inuse"), socket_field(text, "TCP", "mem")), (Some(27), Some(3)));
        assert_eq!((socket_field(text, "TCP", "none"), socket_field("", "TCP", "mem")), (None, None));
        let kernel = |slab_bytes| KernelMemory { slab_bytes: Some(slab_bytes), tcp_bytes: Some(0), tcp_sockets: None };
        let figures =
            ProcessFigures { kernel: kernel(9_000_000), kernel_at_start: kernel(1_000_000), ..Default::default() };
        assert_eq!(figures.kernel_bytes_per_socket(2_000), Some(4_000.0));
        assert_eq!(
            (figures.kernel_bytes_per_socket(0), ProcessFigures::default().kernel_bytes_per_socket(2_000)),
            (None, None)
        );
        assert!(KernelMemory::read().slab_bytes.is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn a_status_field_is_found_by_its_whole_name() {
        let status = "VmRSSx:\t 1 kB\nVmRSS:\t  2048 kB\n";
        assert_eq!(status_field(status, "VmRSS"), Some(2048));
        assert_eq!(status_field(status, "VmSize"), None);
    }
}
