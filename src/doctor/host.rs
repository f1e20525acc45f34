//! A host's files in `/proc` and `/sys`, below a root that a test may choose.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::uring::{self, Features, HostError};

/// A host to examine.
pub struct Host {
    root: PathBuf,
    ring: fn() -> Result<Features, HostError>,
}

impl Host {
    /// This host, as this process sees it.
    pub fn here() -> Self {
        Self { root: PathBuf::from("/"), ring: uring::probe }
    }

    /// A host whose files lie below `root`, and whose io_uring is what `ring` says.
    pub fn at(root: &Path, ring: fn() -> Result<Features, HostError>) -> Self {
        Self { root: root.to_owned(), ring }
    }

    /// What io_uring offers.
    pub(super) fn ring(&self) -> Result<Features, HostError> {
        (self.ring)()
    }

    /// A file's text without white space around it; none if it cannot be read. The path is relative to the root.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        assert!(!path.starts_with('/'), "{path} would replace the root, not lie below it");
        let bytes = fs::read(self.root.join(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// A file that holds one number.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// A file that holds `COUNT` numbers.
    pub(super) fn numbers<const COUNT: usize>(&self, path: &str) -> Option<[u64; COUNT]> {
        let numbers: Option<Vec<u64>> = self.text(path)?.split_whitespace().map(|word| word.parse().ok()).collect();
        numbers?.try_into().ok()
    }

    /// The words after the label that opens a line, up to the line's end.
    pub(super) fn line(&self, path: &str, label: &str) -> Option<String> {
        let text = self.text(path)?;
        text.lines().find_map(|line| line.strip_prefix(label)).map(|rest| rest.trim().to_owned())
    }

    /// A line such as `MemAvailable:   23638256 kB` of a file, in bytes.
    pub(super) fn kibibytes(&self, path: &str, label: &str) -> Option<u64> {
        let kibibytes: u64 = self.line(path, label)?.split_whitespace().next()?.parse().ok()?;
        kibibytes.checked_mul(1024)
    }

    /// Whether a file or folder is there.
    pub(super) fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// The kernel's release, such as `6.18.44-fc`.
    pub(super) fn kernel_release(&self) -> Option<String> {
        self.text("proc/sys/kernel/osrelease")
    }

    /// Major and minor version of the kernel.
    pub(super) fn kernel_version(&self) -> Option<(u32, u32)> {
        let release = self.kernel_release()?;
        let mut numbers = release.split(|character: char| !character.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }

    /// Whether the process has a capability, by its number (capability.h).
    pub(super) fn has_capability(&self, number: u32) -> Option<bool> {
        let effective = u64::from_str_radix(&self.line("proc/self/status", "CapEff:")?, 16).ok()?;
        Some(effective >> number & 1 == 1)
    }

    /// A limit of the process, soft and hard; `u64::MAX` for none.
    pub(super) fn process_limit(&self, label: &str) -> Option<(u64, u64)> {
        let line = self.line("proc/self/limits", label)?;
        let mut limits = line.split_whitespace().map(|word| match word {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        });
        Some((limits.next()??, limits.next()??))
    }
}
