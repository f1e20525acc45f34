//! How many connections memory holds: at rest, and while one message is on its way to all of them.

use super::{
    cgroup, cost,
    demand::Demand,
    finding::{Finding, Remedy, State},
    host::Host,
    quantity::{bytes, count},
    recommendation::SWAPPINESS,
};

const HUGE_PAGES: &str = "sys/kernel/mm/transparent_hugepage/enabled";

pub(super) fn findings(host: &Host, demand: &Demand) -> Vec<Finding> {
    let mut findings = Vec::new();
    match available(host) {
        Some(memory) => {
            findings.extend(memory.ceilings(["memory, idle", "memory, sending"], demand));
            findings.push(memory.outboxes(demand));
        }
        None => findings.push(Finding::unknown("memory, idle", "/proc/meminfo has no MemAvailable")),
    }
    match cgroup::memory(host) {
        Some(allowance) => {
            let memory = Memory { bytes: allowance.left, found: format!("{} leaves", allowance.file), is_cgroup: true };
            findings.extend(memory.ceilings(["cgroup memory, idle", "cgroup memory, sending"], demand));
            findings.push(memory.outboxes(demand));
        }
        None if cgroup::is_version_1(host) => findings.push(Finding::unknown(
            "cgroup memory, idle",
            "a cgroup of version 1, whose memory.limit_in_bytes is not looked at",
        )),
        None => findings.push(Finding::fact("cgroup memory, idle", "no limit seen".to_owned())),
    }
    findings.extend([swap(host, demand), huge_pages(host), nodes(host)]);
    findings
}

/// Memory that is left to this process: the host's, or its cgroup's, if that ends sooner; none if neither is known.
pub fn left(host: &Host) -> Option<u64> {
    let of_host = available(host).map(|memory| memory.bytes);
    let of_cgroup = cgroup::memory(host).map(|allowance| allowance.left);
    of_host.into_iter().chain(of_cgroup).min()
}

/// Memory that connections can have.
struct Memory {
    bytes: u64,
    found: String,
    is_cgroup: bool,
}

fn available(host: &Host) -> Option<Memory> {
    let bytes = host.kibibytes("proc/meminfo", "MemAvailable:")?;
    Some(Memory { bytes, found: "available".to_owned(), is_cgroup: false })
}

impl Memory {
    fn ceilings(&self, names: [&'static str; 2], demand: &Demand) -> [Finding; 2] {
        let [idle, sending] = names;
        let (idle_bytes, sending_bytes) = (cost::IDLE_BYTES + demand.tls_bytes, cost::SENDING_BYTES + demand.tls_bytes);
        [self.ceiling(idle, idle_bytes, demand), self.ceiling(sending, sending_bytes, demand)]
    }

    fn ceiling(&self, name: &'static str, connection_bytes: u64, demand: &Demand) -> Finding {
        let found = format!("{} {}; {} B for each connection", self.found, bytes(self.bytes), count(connection_bytes));
        let connections = self.bytes.saturating_sub(demand.fixed_bytes()) / connection_bytes;
        Finding::ceiling(name, found, connections, demand, || {
            let wanted = demand.connections * connection_bytes + demand.fixed_bytes();
            let lower = format!("or lower client.connections_max to {connections}");
            match self.is_cgroup {
                true => Remedy::Command(format!("in the unit: MemoryMax={}M {lower}", wanted.div_ceil(1 << 20))),
                false => {
                    let lack = bytes(wanted.saturating_sub(self.bytes));
                    Remedy::Change(format!("free or add {lack} of memory, {lower}"))
                }
            }
        })
    }

    /// Slow clients may fill what idle ones leave.
    fn outboxes(&self, demand: &Demand) -> Finding {
        let rest = self
            .bytes
            .saturating_sub(demand.fixed_bytes() + demand.connections * (cost::SENDING_BYTES + demand.tls_bytes));
        let found = format!("may take {}; {} are left", bytes(demand.outboxes_bytes), bytes(rest));
        let state = if demand.outboxes_bytes <= rest { State::Ok } else { State::Advice };
        let size = (rest / demand.shard_count().max(1) / (1 << 20)).max(1);
        let remedy = Remedy::Change(format!("set shards.outboxes_size_max to {size}MiB, or add memory"));
        let name = if self.is_cgroup { "cgroup memory, outboxes" } else { "memory, outboxes" };
        Finding::setting(name, found, state, remedy)
    }
}

fn swap(host: &Host, demand: &Demand) -> Finding {
    const NAME: &str = "swap";
    match (host.kibibytes("proc/meminfo", "SwapTotal:"), host.number(&SWAPPINESS.path())) {
        (None, _) => Finding::unknown(NAME, "/proc/meminfo cannot be read"),
        (Some(0), _) => Finding::fact(NAME, "none".to_owned()),
        (Some(_), None) => Finding::unknown(NAME, "vm.swappiness cannot be read"),
        (Some(size), Some(swappiness)) => {
            let wanted = SWAPPINESS.value(demand.connections);
            let is_fine = wanted.parse().is_ok_and(|wanted: u64| swappiness <= wanted);
            let state = if is_fine { State::Ok } else { State::Advice };
            let found = format!("{}, vm.swappiness {swappiness}", bytes(size));
            Finding::setting(NAME, found, state, Remedy::Sysctl(&SWAPPINESS, wanted)).about(&SWAPPINESS, host)
        }
    }
}

fn huge_pages(host: &Host) -> Finding {
    const NAME: &str = "transparent hugepages";
    let chosen = host.text(HUGE_PAGES).and_then(|text| {
        let (_, rest) = text.split_once('[')?;
        rest.split_once(']').map(|(chosen, _)| chosen.to_owned())
    });
    let Some(chosen) = chosen else {
        return Finding::unknown(NAME, "cannot be read");
    };
    // With "always" a shard's heap grows by 2 MiB at a time and gives little of it back.
    let state = if chosen == "always" { State::Advice } else { State::Ok };
    Finding::setting(NAME, chosen, state, Remedy::Command(format!("echo madvise > /{HUGE_PAGES}")))
}

fn nodes(host: &Host) -> Finding {
    const NAME: &str = "NUMA nodes";
    match host.text("sys/devices/system/node/online") {
        None => Finding::unknown(NAME, "/sys/devices/system/node cannot be read"),
        Some(list) if list == "0" => Finding::fact(NAME, "one".to_owned()),
        Some(list) => {
            let found =
                format!("{list}; keep the network card's interrupts on the node of its shards (tuning/tune.sh)");
            Finding::fact(NAME, found)
        }
    }
}
