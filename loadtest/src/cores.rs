//! Which core does what: the tester keeps off the server's cores.

use anyhow::{Context, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// Cores that this process may run on.
pub fn allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    (0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect()
}

/// Those that are not taken. Empty: none is left, and the tester must share.
pub fn without(all: &[usize], taken: &[usize]) -> Vec<usize> {
    all.iter().filter(|core| !taken.contains(core)).copied().collect()
}

/// Keeps this thread, and those that it starts, on these cores.
///
/// # Errors
/// If there is no such core for us.
pub fn pin(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core).with_context(|| format!("there is no core {core}"))?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)
        .with_context(|| format!("cores {cores:?} are not ours; these are: {:?}", allowed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_core_is_not_ours() {
        assert_eq!(without(&[0, 1, 5], &[1]), [0, 5]);
        assert!(without(&[3], &[3]).is_empty());
    }

    #[test]
    fn a_thread_stays_where_it_is_pinned() {
        let first = allowed()[0];
        std::thread::spawn(move || {
            pin(&[first]).unwrap();
            assert_eq!(allowed(), [first]);
        })
        .join()
        .unwrap();
        assert!(pin(&[CpuSet::count()]).is_err());
    }
}
