//! The doctor's tests: a host is a folder of files, and each test spoils one thing of a good one.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use super::*;
use crate::uring::{Features, HostError};

/// A host of files, gone with the test.
struct FakeHost {
    root: PathBuf,
    ring: fn() -> Result<Features, HostError>,
}

const GOOD_FILES: &[(&str, &str)] = &[
    ("proc/sys/kernel/osrelease", "6.18.1-test"),
    ("proc/sys/fs/nr_open", "1073741816"),
    ("proc/sys/fs/file-max", "9223372036854775807"),
    ("proc/sys/fs/file-nr", "1000\t0\t9223372036854775807"),
    ("proc/sys/net/ipv4/tcp_mem", "3000000\t4000000\t6000000"),
    ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t1048576"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456"),
    ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "0"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "65536"),
    ("proc/sys/net/ipv4/tcp_congestion_control", "cubic"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999"),
    ("proc/sys/net/core/somaxconn", "65536"),
    ("proc/sys/net/core/netdev_max_backlog", "16384"),
    ("proc/sys/vm/swappiness", "60"),
    ("proc/net/sockstat", "sockets: used 24\nTCP: inuse 5 orphan 0 tw 0 alloc 5 mem 200\n"),
    ("proc/meminfo", "MemTotal: 67108864 kB\nMemAvailable:   62914560 kB\nSwapTotal:       0 kB\n"),
    (
        "proc/self/limits",
        "Limit Soft Hard Units\nMax open files 1024 2097152 files\nMax locked memory 8388608 8388608 bytes\n",
    ),
    ("proc/self/status", "Name:\ttest\nCapEff:\t0000000000000000\nCpus_allowed_list:\t0-3\n"),
    ("proc/self/cgroup", "0::/system.slice/tidegate.service\n"),
    ("sys/fs/cgroup/cgroup.controllers", "memory pids"),
    ("sys/fs/cgroup/system.slice/tidegate.service/memory.max", "max"),
    ("sys/fs/cgroup/system.slice/tidegate.service/memory.high", "max"),
    ("sys/fs/cgroup/system.slice/tidegate.service/pids.max", "max"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never"),
    ("sys/devices/system/node/online", "0"),
];

const SERVICE: &str = "sys/fs/cgroup/system.slice/tidegate.service";

impl FakeHost {
    /// A host that holds a million connections, with nothing left to wish.
    fn good() -> Self {
        let host = Self::empty();
        for (path, text) in GOOD_FILES {
            host.write(path, text);
        }
        host
    }

    fn empty() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("tidegate-doctor-{}-{number}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        Self { root, ring: || Ok(Features { defer_taskrun: true, msg_ring: true }) }
    }

    /// A good host but for one file.
    fn with(path: &str, text: &str) -> Self {
        let host = Self::good();
        host.write(path, text);
        host
    }

    fn write(&self, path: &str, text: &str) {
        let file = self.root.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn examine(&self) -> Report {
        self.examine_for(1_000_000)
    }

    fn examine_for(&self, connections: u64) -> Report {
        examine(&Host::at(&self.root, self.ring), &demand(connections))
    }
}

impl Drop for FakeHost {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Four shards; descriptors beside the clients': 32 + 4 * 4 + 1,024 + 64 = 1,136.
fn demand(connections: u64) -> Demand {
    Demand {
        tls_bytes: 0,
        wants_kernel_tls: false,
        connections,
        source: "client.connections_max",
        shards: vec![0, 1, 2, 3],
        producers: 1_024,
        operators: 64,
        outboxes_bytes: 4 * (256 << 20),
    }
}

fn finding<'r>(report: &'r Report, name: &str) -> &'r Finding {
    report.findings().iter().find(|finding| finding.name == name).unwrap_or_else(|| panic!("{name} is not reported"))
}

/// Checks that one thing keeps a host from holding a million connections, and which remedy is named.
fn assert_ceiling(host: &FakeHost, name: &str, connections: u64, remedy: &str) {
    let report = host.examine();
    let found = finding(&report, name);
    assert_eq!((found.state, found.connections), (State::TooLow, Some(connections)), "{found:?}");
    assert_eq!(found.remedy.as_ref().unwrap().text(), remedy);
    assert_eq!(report.findings()[0].name, name, "the lowest ceiling comes first");
    assert_eq!(report.connections_possible(), Some(connections));
    assert!(!report.is_reachable());
    assert!(report.verdict().contains(name) && report.verdict().ends_with(remedy), "{}", report.verdict());
    assert!(report.table().contains(remedy));
}

/// Checks that one thing is worth doing, but ends no number.
fn assert_advice(host: &FakeHost, name: &str, state: State, remedy: &str) {
    let report = host.examine();
    let found = finding(&report, name);
    assert_eq!((found.state, found.connections), (state, None), "{found:?}");
    assert_eq!(found.remedy.as_ref().unwrap().text(), remedy);
    assert!(report.is_reachable());
    assert!(report.table().contains(remedy));
}

#[test]
fn a_good_host_is_praised_and_its_ceilings_are_sorted() {
    let report = FakeHost::good().examine();
    let wanting: Vec<_> = report.findings().iter().filter(|finding| finding.state != State::Ok).collect();
    assert!(wanting.is_empty(), "{wanting:?}");
    assert!(report.is_reachable());
    let ceilings: Vec<u64> = report.findings().iter().map_while(|finding| finding.connections).collect();
    assert!(ceilings.len() >= 6 && ceilings.is_sorted(), "{ceilings:?}");
    assert_eq!(
        report.verdict(),
        "This host holds about 2,090,000 connections, enough for the 1,000,000 of client.connections_max; \
         the first thing to break is descriptors."
    );
}

#[test]
fn descriptors_of_the_process() {
    let host = FakeHost::with("proc/self/limits", "Max open files            1024   20000   files\n");
    assert_ceiling(
        &host,
        "descriptors",
        20_000 - 1_136 - 4_096,
        "in the unit: LimitNOFILE=1048576; in a shell, as root: ulimit -n 1048576",
    );
    assert!(host.examine_for(18_574).is_reachable());
    assert!(!host.examine_for(18_575).is_reachable());
    let verdict = host.examine_for(3_000_000).verdict().to_owned();
    assert!(verdict.contains("LimitNOFILE=3014656"), "{verdict}");
    host.write("proc/sys/fs/nr_open", "1024000");
    let verdict = host.examine().verdict().to_owned();
    assert!(verdict.contains("LimitNOFILE=1024000"), "no more than fs.nr_open lets: {verdict}");
}

#[test]
fn descriptors_that_a_process_may_have() {
    let host = FakeHost::with("proc/sys/fs/nr_open", "65536");
    assert_ceiling(&host, "fs.nr_open", 65_536 - 1_136 - 4_096, "sysctl -w fs.nr_open=1073741816");
}

#[test]
fn descriptors_of_the_host() {
    let host = FakeHost::with("proc/sys/fs/file-max", "500000");
    let left = 500_000 - 1_000 - 1_136 - 4_096;
    assert_ceiling(&host, "fs.file-max", left, "sysctl -w fs.file-max=9223372036854775807");
}

#[test]
fn pages_of_tcp_queues() {
    let host = FakeHost::with("proc/sys/net/ipv4/tcp_mem", "287898\t383867\t575796");
    let remedy = "sysctl -w net.ipv4.tcp_mem=\"750000 1000000 1500000\"";
    assert_ceiling(&host, "net.ipv4.tcp_mem", 575_796 - 200, remedy);
}

#[test]
fn memory() {
    let host = FakeHost::with("proc/meminfo", "MemAvailable: 2097152 kB\nSwapTotal: 0 kB\n");
    let fixed = (32 << 20) + 4 * (4 << 20);
    let sending = ((2 << 30) - fixed) / 5_354;
    let wanted = 1_000_000 * 5_354 + fixed - (2_u64 << 30);
    let remedy = format!(
        "free or add {:.1} GiB of memory, or lower client.connections_max to {sending}",
        wanted as f64 / (1_u64 << 30) as f64
    );
    assert_ceiling(&host, "memory, sending", sending, &remedy);
    let report = host.examine();
    assert_eq!(finding(&report, "memory, idle").connections, Some(((2 << 30) - fixed) / 4_254));
}

#[test]
fn memory_of_the_cgroup_or_of_one_above_it() {
    let host = FakeHost::good();
    host.write("sys/fs/cgroup/system.slice/memory.max", "4294967296");
    host.write("sys/fs/cgroup/system.slice/memory.current", "3221225472");
    host.write("sys/fs/cgroup/system.slice/memory.stat", "anon 1\ninactive_file 1073741824\nactive_file 1073741824\n");
    host.write(&format!("{SERVICE}/memory.max"), "34359738368");
    let sending = ((3 << 30) - (48 << 20)) / 5_354;
    let megabytes = (1_000_000_u64 * 5_354 + (48 << 20)).div_ceil(1 << 20);
    assert_ceiling(
        &host,
        "cgroup memory, sending",
        sending,
        &format!("in the unit: MemoryMax={megabytes}M or lower client.connections_max to {sending}"),
    );
    let report = host.examine();
    assert!(finding(&report, "cgroup memory, sending").found.starts_with("/sys/fs/cgroup/system.slice/memory.max"));
}

#[test]
fn a_soft_limit_of_the_cgroup_counts_where_it_is_the_lower() {
    let host = FakeHost::with(&format!("{SERVICE}/memory.high"), "1073741824");
    let report = host.examine();
    let found = finding(&report, "cgroup memory, idle");
    assert!(found.found.contains("memory.high") && found.state == State::TooLow, "{found:?}");
}

#[test]
fn the_cgroup_of_a_container_is_the_mount_itself() {
    let host = FakeHost::with("proc/self/cgroup", "0::/\n");
    host.write("sys/fs/cgroup/memory.max", "1073741824");
    assert!(!host.examine().is_reachable());
    host.write("proc/self/cgroup", "0::/../docker/0123\n");
    assert!(!host.examine().is_reachable());
}

#[test]
fn a_cgroup_of_version_1_is_unknown() {
    let host = FakeHost::with("proc/self/cgroup", "4:memory:/jobs\n1:cpu,cpuacct:/\n0::/\n");
    let report = host.examine();
    assert_eq!(finding(&report, "cgroup memory, idle").state, State::Unknown);
    assert!(report.is_reachable());
}

#[test]
fn threads_of_the_cgroup() {
    let host = FakeHost::with(&format!("{SERVICE}/pids.max"), "16");
    assert_ceiling(&host, "cgroup threads", 0, "in the unit: TasksMax=64");
}

#[test]
fn connections_that_the_firewall_tracks() {
    let host = FakeHost::with("proc/sys/net/netfilter/nf_conntrack_max", "262144");
    host.write("proc/sys/net/netfilter/nf_conntrack_count", "144");
    let remedy = "sysctl -w net.netfilter.nf_conntrack_max=1250180";
    assert_ceiling(&host, "conntrack", 262_000, remedy);
    assert!(host.examine().sysctl_file().contains("\n-net.netfilter.nf_conntrack_max = 1250180\n"));
}

#[test]
fn a_firewall_that_tracks_nothing_limits_nothing() {
    let host = FakeHost::with("proc/sys/net/netfilter/nf_conntrack_max", "262144");
    host.write("proc/sys/net/netfilter/nf_conntrack_count", "0");
    let report = host.examine();
    assert_eq!(finding(&report, "conntrack").state, State::Unknown);
    assert!(report.is_reachable());
}

#[test]
fn a_kernel_that_is_too_old() {
    let mut host = FakeHost::with("proc/sys/kernel/osrelease", "5.10.0-30-amd64");
    host.ring = || Err(HostError::KernelTooOld("5.10.0-30-amd64".to_owned()));
    assert_ceiling(&host, "io_uring", 0, &HostError::KernelTooOld("5.10.0-30-amd64".to_owned()).to_string());
    assert!(host.examine().verdict().starts_with("This host holds no connection: io_uring"));
}

#[test]
fn io_uring_that_is_forbidden() {
    let mut host = FakeHost::good();
    host.ring = || Err(HostError::Disabled("2".to_owned()));
    let report = host.examine();
    assert!(!report.is_reachable() && report.verdict().contains("sysctl -w kernel.io_uring_disabled=0"));
}

#[test]
fn a_ring_without_the_newer_features_costs_more() {
    let mut host = FakeHost::good();
    host.ring = || Ok(Features { defer_taskrun: true, msg_ring: false });
    let report = host.examine();
    let found = finding(&report, "io_uring");
    assert_eq!((found.state, found.found.as_str()), (State::Advice, "deferred task work, no messages between rings"));
    assert!(report.is_reachable());
}

#[test]
fn locked_memory_counts_where_the_kernel_charges_rings() {
    let limits = "Max open files 2097152 2097152 files\nMax locked memory 65536 65536 bytes\n";
    let host = FakeHost::with("proc/self/limits", limits);
    let remedy = "in the unit: LimitMEMLOCK=infinity; in a shell, as root: ulimit -l unlimited";
    assert_ceiling(&host, "locked memory", 0, remedy);
    host.write("proc/sys/kernel/osrelease", "6.1.0-18-amd64");
    assert!(host.examine().is_reachable());
    host.write("proc/sys/kernel/osrelease", "6.18.0");
    host.write("proc/self/status", "CapEff:\t0000000000004000\nCpus_allowed_list:\t0-3\n");
    assert!(host.examine().is_reachable(), "CAP_IPC_LOCK lifts the limit");
}

#[test]
fn shards_on_cores_that_the_process_may_not_use() {
    let host = FakeHost::with("proc/self/status", "Cpus_allowed_list:\t0-2\n");
    assert_ceiling(&host, "cores", 0, "set shards.cores to some of 0-2, or CPUAffinity= and AllowedCPUs= in the unit");
}

#[test]
fn queues_that_are_too_short_for_a_storm() {
    for (path, key, wanted) in [
        ("proc/sys/net/core/somaxconn", "net.core.somaxconn", 65_536),
        ("proc/sys/net/ipv4/tcp_max_syn_backlog", "net.ipv4.tcp_max_syn_backlog", 65_536),
        ("proc/sys/net/core/netdev_max_backlog", "net.core.netdev_max_backlog", 16_384),
    ] {
        let host = FakeHost::with(path, "1000");
        assert_advice(&host, key, State::TooLow, &format!("sysctl -w {key}={wanted}"));
        assert!(host.examine().sysctl_file().contains(&format!("\n{key} = {wanted}\n")));
    }
}

#[test]
fn settings_that_another_value_serves_better() {
    let advice = |path, text, name, remedy| assert_advice(&FakeHost::with(path, text), name, State::Advice, remedy);
    advice(
        "proc/sys/net/ipv4/tcp_wmem",
        "4096\t16384\t4194304",
        "net.ipv4.tcp_wmem",
        "sysctl -w net.ipv4.tcp_wmem=\"4096 16384 1048576\"",
    );
    advice(
        "proc/sys/net/ipv4/tcp_slow_start_after_idle",
        "1",
        "net.ipv4.tcp_slow_start_after_idle",
        "sysctl -w net.ipv4.tcp_slow_start_after_idle=0",
    );
    advice("proc/meminfo", "MemAvailable: 62914560 kB\nSwapTotal: 1048576 kB\n", "swap", "sysctl -w vm.swappiness=1");
    advice(
        "sys/kernel/mm/transparent_hugepage/enabled",
        "[always] madvise never",
        "transparent hugepages",
        "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
    );
    // 6 GiB hold a million clients, but not the gibibyte that slow ones may take beside them.
    advice(
        "proc/meminfo",
        "MemAvailable: 6291456 kB\nSwapTotal: 0 kB\n",
        "memory, outboxes",
        "set shards.outboxes_size_max to 247MiB, or add memory",
    );
}

#[test]
fn a_file_of_sysctls_raises_what_lacks_and_keeps_the_rest() {
    let host = FakeHost::with("proc/sys/net/core/somaxconn", "4096");
    let values = |file: String| -> Vec<String> {
        file.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
    };
    let first = values(host.examine().sysctl_file());
    assert!(first.contains(&"net.core.somaxconn = 65536".to_owned()), "{first:?}");
    assert!(first.contains(&"net.ipv4.tcp_mem = 3000000 4000000 6000000".to_owned()), "{first:?}");
    assert!(!first.iter().any(|line| line.contains("swappiness") || line.contains("conntrack")), "{first:?}");
    host.write("proc/sys/net/core/somaxconn", "65536");
    assert_eq!(values(host.examine().sysctl_file()), first, "writing the file again changes nothing");
}

#[test]
fn ports_are_told_but_limit_no_server() {
    let host = FakeHost::with("proc/sys/net/ipv4/ip_local_port_range", "60000\t60009");
    let report = host.examine();
    let found = finding(&report, "net.ipv4.ip_local_port_range");
    assert!(found.state == State::Ok && found.found.contains("100,000 source addresses"), "{found:?}");
    assert!(report.is_reachable());
}

#[test]
fn a_host_that_shows_nothing_is_unknown() {
    let host = FakeHost::empty();
    let report = host.examine();
    for name in ["kernel", "descriptors", "fs.nr_open", "memory, idle", "net.ipv4.tcp_mem", "cores", "swap"] {
        assert_eq!(finding(&report, name).state, State::Unknown, "{name}");
    }
    assert!(report.is_reachable());
    assert_eq!(report.connections_possible(), None);
    assert!(report.verdict().contains("is unknown"), "{}", report.verdict());
}

#[test]
fn files_that_hold_nonsense_are_unknown() {
    let host = FakeHost::good();
    for (path, _) in GOOD_FILES {
        host.write(path, "\u{0}nonsense -1 \n\n[");
    }
    let report = host.examine();
    assert_eq!(finding(&report, "net.ipv4.tcp_mem").state, State::Unknown);
    assert_eq!(finding(&report, "descriptors").state, State::Unknown);
    assert_eq!(report.connections_possible(), None);
}

#[test]
fn the_table_has_a_line_for_each_finding_and_ends_with_the_verdict() {
    let report = FakeHost::good().examine();
    let table = report.table();
    for finding in report.findings() {
        assert!(table.lines().any(|line| line.starts_with(finding.name) && line.contains(finding.state.name())));
    }
    assert_eq!(table.lines().last(), Some(report.verdict()));
}

#[test]
fn machines_read_exact_numbers() {
    let host = FakeHost::with("proc/self/limits", "Max open files 1024 20000 files\n");
    let report: serde_json::Value = serde_json::from_str(&host.examine().json()).unwrap();
    assert_eq!(report["connections_wanted"], 1_000_000);
    assert_eq!(report["connections_possible"], 14_768);
    assert_eq!(report["is_reachable"], false);
    assert_eq!(report["first_to_break"], "descriptors");
    let first = &report["findings"][0];
    assert_eq!((&first["name"], &first["state"]), (&"descriptors".into(), &"too_low".into()));
    assert!(first["remedy"].as_str().unwrap().contains("LimitNOFILE=1048576"));
}

#[test]
fn values_grow_with_the_connections() {
    use recommendation::{CONNTRACK_MAX, SOMAXCONN, TCP_MEM, descriptors};
    assert_eq!(TCP_MEM.value(20_000), "15000 20000 30000");
    assert_eq!(CONNTRACK_MAX.value(20_000), "25000");
    assert_eq!([100, 20_000, 1_000_000].map(|connections| SOMAXCONN.value(connections)), ["4096", "32768", "65536"]);
    assert_eq!([1_000, 1 << 20, (1 << 20) + 1].map(descriptors), [1 << 20, 1 << 20, (1 << 20) + 65_536]);
}

#[test]
fn kernel_tls_that_is_wanted_and_not_loaded_is_advised() {
    let examine = |host: &FakeHost, wants_kernel_tls| {
        let demand = Demand { wants_kernel_tls, ..demand(1_000) };
        let report = examine(&Host::at(&host.root, host.ring), &demand);
        let found = finding(&report, "kernel TLS");
        (found.state, found.remedy.as_ref().map(Remedy::text).unwrap_or_default())
    };
    for ulps in ["", "mptcp", "espintcp mptcp tlsx"] {
        let host = FakeHost::with("proc/sys/net/ipv4/tcp_available_ulp", ulps);
        assert_eq!(examine(&host, false), (State::Ok, String::new()));
        let (state, remedy) = examine(&host, true);
        assert!(state == State::Advice && remedy.contains("modprobe tls"), "{ulps}: {remedy}");
    }
    let host = FakeHost::with("proc/sys/net/ipv4/tcp_available_ulp", "espintcp mptcp tls");
    assert_eq!((examine(&host, true).0, examine(&host, false).0), (State::Ok, State::Ok));
}
