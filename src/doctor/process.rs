//! What lets the server start, and how many descriptors it may have.

use super::{
    cgroup,
    demand::Demand,
    finding::{Finding, Remedy, State},
    host::Host,
    quantity::{bytes, count, limit},
    recommendation::{FILE_MAX, NR_OPEN, descriptors},
};
use crate::config::parse_cores;

/// First kernel that charges the memory of rings to `RLIMIT_MEMLOCK` again.
const KERNEL_RINGS_LOCKED: (u32, u32) = (6, 14);

/// `CAP_IPC_LOCK`: locks memory without limit.
const CAPABILITY_LOCK: u32 = 14;

pub(super) fn findings(host: &Host, demand: &Demand) -> Vec<Finding> {
    vec![
        kernel(host),
        ring(host),
        kernel_tls(host, demand),
        process_descriptors(host, demand),
        descriptors_allowed(host, demand),
        host_descriptors(host, demand),
        locked_memory(host, demand),
        cores(host, demand),
        threads(host, demand),
    ]
}

fn kernel(host: &Host) -> Finding {
    match host.kernel_release() {
        Some(release) => Finding::fact("kernel", format!("Linux {release}")),
        None => Finding::unknown("kernel", "/proc/sys/kernel/osrelease cannot be read"),
    }
}

fn ring(host: &Host) -> Finding {
    const NAME: &str = "io_uring";
    match host.ring() {
        Ok(features) => {
            let has = |flag, name: &str| if flag { name.to_owned() } else { format!("no {name}") };
            let found = format!(
                "{}, {}",
                has(features.defer_taskrun, "deferred task work"),
                has(features.msg_ring, "messages between rings")
            );
            let state = if features.defer_taskrun && features.msg_ring { State::Ok } else { State::Advice };
            let newer = "boot a kernel 6.3 or newer: without these, more CPU per message".to_owned();
            Finding::setting(NAME, found, state, Remedy::Change(newer))
        }
        Err(error) => {
            let text = error.to_string();
            Finding::requirement(NAME, "not usable here".to_owned(), false, || Remedy::Change(text))
        }
    }
}

/// Asking the kernel for its ciphers could load a module, and nothing here changes the host; the server asks at its start.
fn kernel_tls(host: &Host, demand: &Demand) -> Finding {
    const NAME: &str = "kernel TLS";
    let listed = host.text("proc/sys/net/ipv4/tcp_available_ulp");
    let is_loaded = listed.is_some_and(|names| names.split_whitespace().any(|name| name == "tls"));
    let found = match (is_loaded, demand.wants_kernel_tls) {
        (true, true) => "the kernel's module is loaded",
        (true, false) => "the kernel's module is loaded, and not used (client.tls.kernel)",
        (false, true) => "the kernel's module is not loaded; the server seals and opens records itself",
        (false, false) => "not loaded, and not used (client.tls.kernel)",
    };
    let state = if demand.wants_kernel_tls && !is_loaded { State::Advice } else { State::Ok };
    let load = "modprobe tls; to keep it: echo tls > /etc/modules-load.d/tls.conf".to_owned();
    Finding::setting(NAME, found.to_owned(), state, Remedy::Command(load))
}

fn process_descriptors(host: &Host, demand: &Demand) -> Finding {
    const NAME: &str = "descriptors";
    let Some((soft, hard)) = host.process_limit("Max open files") else {
        return Finding::unknown(NAME, "/proc/self/limits cannot be read");
    };
    let raised = if soft < hard { format!(" (soft {}, raised by the server)", limit(soft)) } else { String::new() };
    let found = format!("limit {}{raised} of the process that asks", limit(hard));
    Finding::ceiling(NAME, found, hard.saturating_sub(demand.other_descriptors()), demand, || {
        let needed = demand.connections + demand.other_descriptors();
        let most = host.number(&NR_OPEN.path()).filter(|most| *most >= needed);
        let wanted = descriptors(needed).min(most.unwrap_or(u64::MAX));
        Remedy::Command(format!("in the unit: LimitNOFILE={wanted}; in a shell, as root: ulimit -n {wanted}"))
    })
}

fn descriptors_allowed(host: &Host, demand: &Demand) -> Finding {
    const NAME: &str = "fs.nr_open";
    let Some(most) = host.number(&NR_OPEN.path()) else {
        return Finding::unknown(NAME, "cannot be read");
    };
    let found = format!("LimitNOFILE= may be {}", limit(most));
    Finding::ceiling(NAME, found, most.saturating_sub(demand.other_descriptors()), demand, || {
        Remedy::Sysctl(&NR_OPEN, NR_OPEN.value(demand.connections))
    })
    .about(&NR_OPEN, host)
}

fn host_descriptors(host: &Host, demand: &Demand) -> Finding {
    const NAME: &str = "fs.file-max";
    let Some(most) = host.number(&FILE_MAX.path()) else {
        return Finding::unknown(NAME, "cannot be read");
    };
    let [used, _, _] = host.numbers("proc/sys/fs/file-nr").unwrap_or([0; 3]);
    let found = format!("{} on the whole host, {} taken", limit(most), count(used));
    let left = most.saturating_sub(used).saturating_sub(demand.other_descriptors());
    Finding::ceiling(NAME, found, left, demand, || Remedy::Sysctl(&FILE_MAX, FILE_MAX.value(demand.connections)))
        .about(&FILE_MAX, host)
}

fn locked_memory(host: &Host, demand: &Demand) -> Finding {
    const NAME: &str = "locked memory";
    let Some((soft, _)) = host.process_limit("Max locked memory") else {
        return Finding::unknown(NAME, "/proc/self/limits cannot be read");
    };
    if soft == u64::MAX || host.has_capability(CAPABILITY_LOCK) == Some(true) {
        return Finding::fact(NAME, "unlimited".to_owned());
    }
    let found = format!("{} allowed, {} for rings", bytes(soft), bytes(demand.locked_bytes()));
    let is_charged = host.kernel_version().is_some_and(|version| version >= KERNEL_RINGS_LOCKED);
    let is_met = soft >= demand.locked_bytes() || !is_charged;
    Finding::requirement(NAME, found, is_met, || {
        Remedy::Command("in the unit: LimitMEMLOCK=infinity; in a shell, as root: ulimit -l unlimited".to_owned())
    })
}

fn cores(host: &Host, demand: &Demand) -> Finding {
    const NAME: &str = "cores";
    let Some(list) = host.line("proc/self/status", "Cpus_allowed_list:") else {
        return Finding::unknown(NAME, "/proc/self/status cannot be read");
    };
    let Some(allowed) = parse_cores(&list) else {
        return Finding::unknown(NAME, format!("{list} is no list of cores"));
    };
    let is_met = demand.shards.iter().all(|core| allowed.contains(core));
    let found = format!("may run on {list}; {} of them with a shard", count(demand.shard_count()));
    Finding::requirement(NAME, found, is_met, || {
        Remedy::Change(format!("set shards.cores to some of {list}, or CPUAffinity= and AllowedCPUs= in the unit"))
    })
}

fn threads(host: &Host, demand: &Demand) -> Finding {
    const NAME: &str = "cgroup threads";
    let Some(allowance) = cgroup::threads(host) else {
        return Finding::fact(NAME, "no limit seen".to_owned());
    };
    let found = format!("{} says {}, {} left", allowance.file, count(allowance.limit), count(allowance.left));
    Finding::requirement(NAME, found, allowance.left >= demand.threads(), || {
        Remedy::Command(format!("in the unit: TasksMax={}", demand.threads().next_multiple_of(64)))
    })
}
