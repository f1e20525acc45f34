//! The one table of settings that this server wants from its host.
//!
//! Owns each value, its reason and its cost. The doctor's remedies name these values, and the files
//! `tuning/tidegate-sysctl.conf` and `tuning/limits.conf` are written from them; a test compares.

use std::fmt::Write;

/// Connections that the files in `tuning/` are written for: the default of `client.connections_max`.
pub const FILE_CONNECTIONS: u64 = 1_000_000;

/// Descriptors that a process gets: the kernel's default of `fs.nr_open`, as long as that is enough.
const DESCRIPTORS: u64 = 1 << 20;

/// Whose host a setting is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The server's.
    Server,
    /// One that opens connections by the thousand: a proxy, a load tester.
    Clients,
}

/// One sysctl.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name, as `sysctl` takes it.
    pub key: &'static str,
    /// Whose host it is for.
    pub purpose: Purpose,
    /// Whether it exists only while a module is loaded.
    pub is_optional: bool,
    /// Why it has this value.
    pub reason: &'static str,
    /// What it costs.
    pub cost: &'static str,
    value: Value,
}

#[derive(Debug, PartialEq, Eq)]
enum Value {
    Fixed(&'static str),
    /// A number of connections makes it.
    Backlog,
    TcpPages,
    TrackedConnections,
}

impl Setting {
    /// Its value for a number of connections.
    pub fn value(&self, connections: u64) -> String {
        match self.value {
            Value::Fixed(value) => value.to_owned(),
            // One second of handshakes on one core, at 15 µs each; fewer where fewer clients can come.
            Value::Backlog => connections.next_power_of_two().clamp(4_096, 65_536).to_string(),
            // A page for each connection that is being sent to before the kernel begins to save, half as much again
            // before it refuses.
            Value::TcpPages => format!("{} {connections} {}", connections / 4 * 3, connections / 2 * 3),
            Value::TrackedConnections => (connections + connections / 4).to_string(),
        }
    }

    /// What sets it until the next boot.
    pub fn command(&self, value: &str) -> String {
        let quote = if value.contains(' ') { "\"" } else { "" };
        format!("sysctl -w {}={quote}{value}{quote}", self.key)
    }

    /// Its file, relative to the root.
    pub(super) fn path(&self) -> String {
        format!("proc/sys/{}", self.key.replace('.', "/"))
    }

    /// The lines that a sysctl.d file has for it.
    fn lines(&self, value: &str) -> String {
        let mut text = String::new();
        for (label, words) in [("", self.reason), ("Cost: ", self.cost)] {
            wrap(&mut text, &format!("{label}{words}"));
        }
        // A leading dash: no error where the setting does not exist.
        let dash = if self.is_optional { "-" } else { "" };
        let _ = writeln!(text, "{dash}{} = {value}", self.key);
        text
    }
}

/// Descriptors of the whole host.
pub static FILE_MAX: Setting = Setting {
    key: "fs.file-max",
    purpose: Purpose::Server,
    is_optional: false,
    reason: "Descriptors of the whole host: no limit, as systemd sets it; memory and LimitNOFILE are the limits that count.",
    cost: "nothing by itself; a socket's file and directory entry are 390 B of its 3,870.",
    value: Value::Fixed("9223372036854775807"),
};

/// Descriptors that one process may be allowed.
pub static NR_OPEN: Setting = Setting {
    key: "fs.nr_open",
    purpose: Purpose::Server,
    is_optional: false,
    reason: "The most that LimitNOFILE may say, as systemd sets it. The kernel's own default, 1048576, is enough for a million connections.",
    cost: "nothing; a process's table of descriptors takes 8 to 16 B for each one that is open.",
    value: Value::Fixed("1073741816"),
};

/// Pages of all TCP queues.
pub static TCP_MEM: Setting = Setting {
    key: "net.ipv4.tcp_mem",
    purpose: Purpose::Server,
    is_optional: false,
    reason: "Pages that all sockets' queues may take: low, pressure, most. A message on its way charges its connection one page, whatever its size up to 2 KiB, so a broadcast to all needs as many pages as there are connections.",
    cost: "nothing for an idle connection; 4 KiB in this account, 1.1 KiB of real memory, while a message is on its way.",
    value: Value::TcpPages,
};

/// Send buffer of one socket.
pub static TCP_WMEM: Setting = Setting {
    key: "net.ipv4.tcp_wmem",
    purpose: Purpose::Server,
    is_optional: false,
    reason: "Send buffer of one socket: least, first, most. The most is what a slow client may hold in the kernel before its outbox, whose policy can do something about it, sees anything; 1 MiB is the outbox's own default.",
    cost: "nothing for a client that keeps up. Uploads from this host over long, fast paths are held to 1 MiB per round trip: on a host that does those too, leave it out.",
    value: Value::Fixed("4096 16384 1048576"),
};

/// Congestion windows of idle connections.
pub static TCP_SLOW_START_AFTER_IDLE: Setting = Setting {
    key: "net.ipv4.tcp_slow_start_after_idle",
    purpose: Purpose::Server,
    is_optional: false,
    reason: "Pushes come after silence. With 1 the kernel forgets after some hundred milliseconds how much the path carried, and a burst beyond ten segments (14 KB) takes more round trips.",
    cost: "no memory; the first burst after a silence trusts what the path carried before it.",
    value: Value::Fixed("0"),
};

/// Connections that wait to be accepted.
pub static SOMAXCONN: Setting = Setting {
    key: "net.core.somaxconn",
    purpose: Purpose::Server,
    is_optional: false,
    reason: "Connections that may wait for accept, for each shard's listener: one second of handshakes at 15 µs each. When all clients come back at once, those beyond it are dropped and try again after 1, 3, 7 seconds.",
    cost: "nothing until one waits; then its socket, 2.4 KiB before it has a descriptor.",
    value: Value::Backlog,
};

/// Connections in the middle of the TCP handshake.
pub static TCP_MAX_SYN_BACKLOG: Setting = Setting {
    key: "net.ipv4.tcp_max_syn_backlog",
    purpose: Purpose::Server,
    is_optional: false,
    reason: "The same for handshakes that are half done. The lower of the two holds.",
    cost: "320 B for each that waits.",
    value: Value::Backlog,
};

/// Packets that wait for one core.
pub static NETDEV_MAX_BACKLOG: Setting = Setting {
    key: "net.core.netdev_max_backlog",
    purpose: Purpose::Server,
    is_optional: false,
    reason: "Packets that may wait for one core when another core hands them over (RPS, loopback). The default of 1000 is a millisecond of a busy core; what does not fit is lost and sent again 200 ms later.",
    cost: "nothing until packets wait; then about 1 KiB each, 16 MiB per core at most.",
    value: Value::Fixed("16384"),
};

/// Swapping.
pub static SWAPPINESS: Setting = Setting {
    key: "vm.swappiness",
    purpose: Purpose::Server,
    is_optional: false,
    reason: "Idle clients are what the kernel would swap first, and a ping to all of them would bring every page back. Matters only where there is swap.",
    cost: "file caches go before programs do.",
    value: Value::Fixed("1"),
};

/// Connections that the firewall remembers.
pub static CONNTRACK_MAX: Setting = Setting {
    key: "net.netfilter.nf_conntrack_max",
    purpose: Purpose::Server,
    is_optional: true,
    reason: "Connections that the firewall may remember, if it tracks any: all clients and a quarter for everyone else. Beyond it new connections are dropped. Cheaper is not to track the clients' port at all (README.md).",
    cost: "256 B per tracked connection, and the time to find it for each packet.",
    value: Value::TrackedConnections,
};

/// Ports of outgoing connections.
pub static PORT_RANGE: Setting = Setting {
    key: "net.ipv4.ip_local_port_range",
    purpose: Purpose::Clients,
    is_optional: false,
    reason: "Ports of outgoing connections, per source address and destination. Accepted connections take none. It begins above the ports that Tidegate listens on.",
    cost: "nothing; services that listen above 10240 should be in net.ipv4.ip_local_reserved_ports.",
    value: Value::Fixed("10240 65535"),
};

/// All of them, in the files' order.
pub static SETTINGS: [&Setting; 11] = [
    &FILE_MAX,
    &NR_OPEN,
    &TCP_MEM,
    &TCP_WMEM,
    &TCP_SLOW_START_AFTER_IDLE,
    &SOMAXCONN,
    &TCP_MAX_SYN_BACKLOG,
    &NETDEV_MAX_BACKLOG,
    &SWAPPINESS,
    &CONNTRACK_MAX,
    &PORT_RANGE,
];

/// What `LimitNOFILE=` should say for that many descriptors.
pub fn descriptors(needed: u64) -> u64 {
    if needed <= DESCRIPTORS { DESCRIPTORS } else { needed.next_multiple_of(65_536) }
}

/// The file `tuning/tidegate-sysctl.conf`.
pub fn sysctl_file() -> String {
    let mut text = format!(
        "\
# Kernel settings for a host that runs Tidegate with up to {} connections. For /etc/sysctl.d/.
# Written from the table of `tidegate doctor` (src/doctor/recommendation.rs); a test compares.
#
# `tidegate doctor --sysctl` prints such a file for the host it runs on, and never less than that host
# has already, by its size or by its operator. Prefer it where it can be run.
",
        super::quantity::count(FILE_CONNECTIONS)
    );
    for setting in SETTINGS.iter().filter(|setting| setting.purpose == Purpose::Server) {
        text.push('\n');
        text.push_str(&setting.lines(&setting.value(FILE_CONNECTIONS)));
    }
    text.push_str("\n# Only where connections are opened from: a proxy, a load tester.\n");
    for setting in SETTINGS.iter().filter(|setting| setting.purpose == Purpose::Clients) {
        text.push('\n');
        let lines = setting.lines(&setting.value(FILE_CONNECTIONS));
        let assignment = lines.trim_end().rfind('\n').map_or(0, |position| position + 1);
        let _ = write!(text, "{}#{}", &lines[..assignment], &lines[assignment..]);
    }
    text
}

/// A sysctl.d file of some settings with their values.
pub(super) fn sysctl_lines(settings: &[(&'static Setting, &str)]) -> String {
    let blocks: Vec<String> = settings.iter().map(|(setting, value)| setting.lines(value)).collect();
    blocks.join("\n")
}

/// The file `tuning/limits.conf`.
pub fn limits_file() -> String {
    let descriptors = descriptors(FILE_CONNECTIONS);
    format!(
        "\
# Limits of the user that runs Tidegate, where a login starts it. For /etc/security/limits.d/.
# Written from the table of `tidegate doctor` (src/doctor/recommendation.rs); a test compares.
#
# A systemd unit does not read this file; it says LimitNOFILE={descriptors} and LimitMEMLOCK=infinity.

# One descriptor per connection. Cost: 8 to 16 B for each that is open.
tidegate  -  nofile   {descriptors}

# Rings: kernels since 6.14 charge 200 KiB for each shard. Cost: none per connection.
tidegate  -  memlock  unlimited
"
    )
}

/// Writes words as comment lines of at most 100 characters.
fn wrap(text: &mut String, words: &str) {
    const LINE_CHARACTERS_MAX: usize = 100;
    let mut line = "#".to_owned();
    for word in words.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > LINE_CHARACTERS_MAX {
            let _ = writeln!(text, "{line}");
            line = "#".to_owned();
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
}
