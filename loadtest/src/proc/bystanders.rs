//! What else ran on the machine while something was measured: a number is worth what the quiet
//! around it was.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

/// The kernel's unit of times in /proc/stat: a hundredth of a second on every architecture that runs Linux 6.
const TICK_SECONDS: f64 = 0.01;

/// Cores that a process must have kept busy to be named.
const NAMED_CORES_MIN: f64 = 0.01;

/// Processes that are named, at most.
const NAMED_MAX: usize = 5;

/// What else ran.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Bystanders {
    /// The machine's load average of one minute, before.
    pub load_average: f64,
    /// Cores that others kept busy: neither the tester nor a server that it started.
    pub cores_busy: f64,
    /// Cores that a hypervisor gave to other machines instead.
    pub cores_stolen: f64,
    /// The busiest of them, by name.
    pub busiest: Vec<String>,
}

/// A look at all processes, before.
#[derive(Debug)]
pub struct Lookout {
    load_average: f64,
    began: Instant,
    before: Sample,
}

#[derive(Debug, Default)]
struct Sample {
    machine: MachineSeconds,
    ours: Duration,
    /// By process id: name and seconds.
    processes: BTreeMap<u32, (String, f64)>,
}

/// CPU seconds of all cores together.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct MachineSeconds {
    busy: f64,
    stolen: f64,
}

impl Lookout {
    /// Begins to look.
    pub fn begin() -> Lookout {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load_average = load.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default();
        Lookout { load_average, began: Instant::now(), before: Sample::now() }
    }

    /// What was seen; children that ran meanwhile must have been waited for.
    pub fn end(&self) -> Bystanders {
        let after = Sample::now();
        let seconds = self.began.elapsed().as_secs_f64();
        let ours = after.ours.saturating_sub(self.before.ours).as_secs_f64();
        let busy = after.machine.busy - self.before.machine.busy - ours;
        Bystanders {
            load_average: self.load_average,
            cores_busy: (busy / seconds).max(0.0),
            cores_stolen: ((after.machine.stolen - self.before.machine.stolen) / seconds).max(0.0),
            busiest: busiest(&self.before.processes, &after.processes, seconds),
        }
    }
}

impl Sample {
    fn now() -> Sample {
        Sample {
            machine: parse_machine(&fs::read_to_string("/proc/stat").unwrap_or_default()).unwrap_or_default(),
            ours: used_by(UsageWho::RUSAGE_SELF) + used_by(UsageWho::RUSAGE_CHILDREN),
            processes: processes(),
        }
    }
}

/// CPU time of this process, or of its children that have ended.
fn used_by(who: UsageWho) -> Duration {
    let Ok(usage) = getrusage(who) else { return Duration::ZERO };
    let duration = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec().unsigned_abs(), time.tv_usec().unsigned_abs() as u32 * 1000)
    };
    duration(usage.user_time()) + duration(usage.system_time())
}

/// Every process but this one.
fn processes() -> BTreeMap<u32, (String, f64)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|&id| id != std::process::id())
        .filter_map(|id| Some((id, parse_process(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)?)))
        .collect()
}

/// Names of those that were busiest, the busiest first.
fn busiest(before: &BTreeMap<u32, (String, f64)>, after: &BTreeMap<u32, (String, f64)>, seconds: f64) -> Vec<String> {
    let mut by_name = BTreeMap::<&str, f64>::new();
    for (id, (name, used)) in after {
        let used_before = before.get(id).map_or(0.0, |(_, used)| *used);
        *by_name.entry(name).or_default() += (used - used_before) / seconds;
    }
    let mut named: Vec<_> = by_name.into_iter().filter(|&(_, cores)| cores >= NAMED_CORES_MIN).collect();
    named.sort_by(|a, b| b.1.total_cmp(&a.1));
    named.truncate(NAMED_MAX);
    named.into_iter().map(|(name, cores)| format!("{name} {cores:.2}")).collect()
}

/// `cpu user nice system idle iowait irq softirq steal ...`
fn parse_machine(stat: &str) -> Option<MachineSeconds> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<f64> = line.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
    let [user, nice, system, _, _, irq, softirq, stolen, ..] = ticks[..] else { return None };
    Some(MachineSeconds { busy: (user + nice + system + irq + softirq) * TICK_SECONDS, stolen: stolen * TICK_SECONDS })
}

/// `pid (name) state ...`, with user and system time as the 14th and 15th word; a name may contain anything.
fn parse_process(stat: &str) -> Option<(String, f64)> {
    let (begin, rest) = stat.rsplit_once(')')?;
    let name = begin.split_once('(')?.1;
    let mut times = rest.split_ascii_whitespace().skip(11).map_while(|word| word.parse::<f64>().ok());
    Some((name.to_owned(), (times.next()? + times.next()?) * TICK_SECONDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let stat = "cpu  100 0 50 4000 7 1 2 30 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse_machine(stat), Some(MachineSeconds { busy: 1.53, stolen: 0.3 }));
        let process = "42 (a b) c) S 1 42 42 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 1 0 100 0 0\n";
        assert_eq!(parse_process(process), Some(("a b) c".to_owned(), 3.0)));
        assert_eq!((parse_machine(""), parse_process("")), (None, None));
    }

    #[test]
    fn the_busiest_are_named() {
        let sample = |seconds: [f64; 3]| {
            let names = ["rest", "busy", "busy"];
            names.iter().zip(seconds).zip(0..).map(|((name, used), id)| (id, ((*name).to_owned(), used))).collect()
        };
        assert_eq!(busiest(&sample([5.0, 1.0, 1.0]), &sample([5.01, 3.0, 2.0]), 10.0), ["busy 0.30"]);
    }

    #[test]
    fn a_busy_child_is_ours_and_no_bystander() {
        let lookout = Lookout::begin();
        let script = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
        assert!(std::process::Command::new("sh").args(["-c", script]).status().unwrap().success());
        let ours = used_by(UsageWho::RUSAGE_SELF) + used_by(UsageWho::RUSAGE_CHILDREN);
        assert!(ours > lookout.before.ours, "a child that was waited for counts");
        assert!(lookout.end().cores_busy >= 0.0);
    }
}
