//! The machine that a report was made on.

use std::fs;

use serde::{Deserialize, Serialize};

/// What a reader must know to judge a report's numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Processor model.
    pub processor: String,
    /// Cores that this process may run on.
    pub cores: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Kernel release.
    pub kernel: String,
    /// Whether the processor says that a hypervisor is below it.
    pub is_virtual: bool,
}

impl Machine {
    /// This machine.
    pub fn here() -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let value =
            |name: &str| cpuinfo.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(": "));
        Machine {
            processor: value("model name").map_or("unknown", |(_, model)| model).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: super::user_memory::field(&meminfo, "MemTotal:").unwrap_or_default(),
            // The version alone: the rest of a release name says where a kernel was built, not what it does.
            kernel: kernel.trim().split('-').next().unwrap_or_default().to_owned(),
            is_virtual: value("flags").is_some_and(|(_, flags)| flags.split(' ').any(|flag| flag == "hypervisor")),
        }
    }
}
