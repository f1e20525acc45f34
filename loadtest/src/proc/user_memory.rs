//! User memory of a process, from /proc/PID/smaps_rollup.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

/// Bytes of a process's memory at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct UserMemory {
    /// Resident set size.
    pub rss_bytes: u64,
    /// Proportional set size: shared pages count by their share.
    pub pss_bytes: u64,
    /// Resident pages that belong to no file.
    pub anonymous_bytes: u64,
}

impl UserMemory {
    /// The present memory of a process.
    ///
    /// # Errors
    /// If there is no such process (any more), or its figures may not be read.
    pub fn of_process(pid: u32) -> Result<UserMemory> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("{path}: run the load tester as the server's user, or as root"))?;
        parse(&text).with_context(|| format!("{path} is not understood"))
    }
}

/// Resident bytes alone, cheap enough to ask for often; none if the process is gone.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    field(&text, "VmRSS:")
}

fn parse(text: &str) -> Option<UserMemory> {
    Some(UserMemory {
        rss_bytes: field(text, "Rss:")?,
        pss_bytes: field(text, "Pss:")?,
        anonymous_bytes: field(text, "Anonymous:")?,
    })
}

/// The value of a line `name  1234 kB`, in bytes.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rollup_is_read_by_name() {
        let text = "55b9956c1000-7ffe77a00000 ---p 00000000 00:00 0    [rollup]\n\
                    Rss:                1584 kB\nPss:                 227 kB\nPss_Dirty:   112 kB\nAnonymous:    96 kB\n";
        let expected = UserMemory { rss_bytes: 1584 * 1024, pss_bytes: 227 * 1024, anonymous_bytes: 96 * 1024 };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(parse("Rss: 1 kB\n"), None);
    }

    #[test]
    fn this_process_is_resident() {
        let memory = UserMemory::of_process(std::process::id()).unwrap();
        assert!(memory.rss_bytes > 100_000 && memory.pss_bytes <= memory.rss_bytes);
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
        assert!(UserMemory::of_process(u32::MAX).is_err());
    }
}
