//! Cores: which ones this process may run on, and lists of them as the kernel writes lists of CPUs.

use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};

/// The cores that this process may run on, ascending; at least one.
pub(super) fn cores_available() -> Vec<u32> {
    let from_mask = sched_getaffinity(Pid::from_raw(0)).map(|set| {
        (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).map(|core| core as u32).collect()
    });
    match from_mask {
        Ok(cores) => cores,
        // The mask does not fit (more than 1,024 cores) or a sandbox hides it: the count is known still.
        Err(_) => (0..std::thread::available_parallelism().map_or(1, |count| count.get() as u32)).collect(),
    }
}

/// Reads `0-3,8`: numbers and ranges, separated by commas, in order, each core once.
pub fn parse_cores(text: &str) -> Option<Vec<u32>> {
    /// Cores are numbered below this in every kernel; it keeps `0-4000000000` from filling memory.
    const CORE_MAX: u32 = 8191;
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > CORE_MAX {
            return None;
        }
        cores.extend(first..=last);
    }
    Some(cores)
}

/// Writes cores as [`parse_cores`] reads them.
pub(super) fn format_cores(cores: &[u32]) -> String {
    let mut text = String::new();
    let mut rest = cores;
    while let Some(first) = rest.first() {
        let length = (1..rest.len()).take_while(|index| rest[*index] as usize == *first as usize + index).count() + 1;
        if !text.is_empty() {
            text.push(',');
        }
        match length {
            1 => text.push_str(&first.to_string()),
            _ => text.push_str(&format!("{first}-{}", rest[length - 1])),
        }
        rest = &rest[length..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read_and_written_as_the_kernel_does() {
        for (text, cores) in [("0", vec![0]), ("0-3", vec![0, 1, 2, 3]), ("0-1,4,6-7", vec![0, 1, 4, 6, 7])] {
            assert_eq!(parse_cores(text), Some(cores.clone()), "{text}");
            assert_eq!(format_cores(&cores), text);
        }
        assert_eq!(parse_cores("0, 2"), Some(vec![0, 2]));
    }

    #[test]
    fn what_is_no_list_of_cores_is_refused() {
        for text in ["", "a", "3-1", "0-", "-1", "0,,1", "0-4000000000"] {
            assert_eq!(parse_cores(text), None, "{text}");
        }
    }

    #[test]
    fn this_process_runs_on_at_least_one_core() {
        assert!(!cores_available().is_empty());
    }
}
