//! Limits of the process's own cgroup and of those above it, version 2.

use super::host::Host;

/// Where version 2 is mounted: alone, or beside version 1.
const MOUNTS: [&str; 2] = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];

/// What a cgroup allows, and what of it is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Allowance {
    /// The file that says the limit, as the operator knows it.
    pub file: String,
    /// The limit.
    pub limit: u64,
    /// What is left of it.
    pub left: u64,
}

/// Whether memory is limited by version 1, whose files are not read.
pub(super) fn is_version_1(host: &Host) -> bool {
    let memberships = host.text("proc/self/cgroup").unwrap_or_default();
    memberships.lines().any(|line| line.split(':').nth(1).is_some_and(|names| names.split(',').any(|n| n == "memory")))
}

/// The memory that is left below the tightest limit; none if there is no limit.
pub(super) fn memory(host: &Host) -> Option<Allowance> {
    let allowances = levels(host).into_iter().filter_map(|level| {
        // Beyond memory.high the kernel throttles, beyond memory.max it kills.
        let (file, limit) = ["memory.max", "memory.high"]
            .into_iter()
            .filter_map(|name| host.number(&format!("{level}/{name}")).map(|limit| (format!("/{level}/{name}"), limit)))
            .min_by_key(|(_, limit)| *limit)?;
        let used = host.number(&format!("{level}/memory.current")).unwrap_or(0);
        // File caches are charged, too, but go when memory is wanted.
        let statistics = format!("{level}/memory.stat");
        let cache: u64 = ["inactive_file ", "active_file "]
            .into_iter()
            .filter_map(|label| host.line(&statistics, label)?.parse::<u64>().ok())
            .sum();
        Some(Allowance { file, limit, left: limit.saturating_sub(used.saturating_sub(cache)) })
    });
    allowances.min_by_key(|allowance| allowance.left)
}

/// The threads that may still be made below the tightest limit; none if there is no limit.
pub(super) fn threads(host: &Host) -> Option<Allowance> {
    let allowances = levels(host).into_iter().filter_map(|level| {
        let limit = host.number(&format!("{level}/pids.max"))?;
        let used = host.number(&format!("{level}/pids.current")).unwrap_or(0);
        Some(Allowance { file: format!("/{level}/pids.max"), limit, left: limit.saturating_sub(used) })
    });
    allowances.min_by_key(|allowance| allowance.left)
}

/// Folders of the own cgroup and of all above it. Within a container the path may lie outside of what is mounted;
/// then the mount itself is the own cgroup.
fn levels(host: &Host) -> Vec<String> {
    let Some(mount) = MOUNTS.into_iter().find(|mount| host.has(&format!("{mount}/cgroup.controllers"))) else {
        return Vec::new();
    };
    let own = host.line("proc/self/cgroup", "0::/").unwrap_or_default();
    let mut levels = vec![mount.to_owned()];
    let mut level = mount.to_owned();
    for name in own.split('/').filter(|name| !name.is_empty() && *name != "..") {
        level = format!("{level}/{name}");
        if host.has(&level) {
            levels.push(level.clone());
        }
    }
    levels
}
