//! The doctor as a shell sees it, the files in `tuning/` against the doctor's own table, and the script against a
//! network card made of files.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;
use tidegate::doctor::recommendation::{FILE_CONNECTIONS, SETTINGS, limits_file, sysctl_file};

const TUNING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tuning");

#[test]
fn the_sysctl_file_is_what_the_doctor_recommends() {
    compare("tidegate-sysctl.conf", &sysctl_file());
}

#[test]
fn the_limits_file_is_what_the_doctor_recommends() {
    compare("limits.conf", &limits_file());
}

#[test]
fn the_readme_names_every_setting_with_its_value() {
    let readme = fs::read_to_string(format!("{TUNING}/README.md")).expect("tuning/README.md can be read");
    for setting in SETTINGS {
        let row = format!("| `{}` | {} |", setting.key, setting.value(FILE_CONNECTIONS));
        assert!(readme.contains(&row), "tuning/README.md has no row that begins with\n{row}");
    }
}

#[test]
fn the_doctor_examines_this_host() {
    let output = doctor(&["--connections", "1", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("the report is JSON");
    let findings = report["findings"].as_array().expect("findings are a list");
    let state = |name| {
        let finding = findings.iter().find(|finding| finding["name"] == name);
        finding.unwrap_or_else(|| panic!("{name} is not reported"))["state"].clone()
    };
    for name in ["kernel", "io_uring", "descriptors", "memory, idle", "net.ipv4.tcp_mem", "cores"] {
        assert_eq!(state(name), "ok", "{name}: {report}");
    }
    assert!(report["connections_possible"].as_u64().expect("it is known here") > 1);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_doctor_fails_when_the_configured_number_cannot_be_reached() {
    let doctor = "exec \"$0\" doctor --connections 60000";
    let mut command = Command::new("bash");
    command.args(["-c", &format!("ulimit -n 4000; {doctor}"), env!("CARGO_BIN_EXE_tidegate")]);
    let output = without_settings(&mut command).output().expect("bash can be run");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    let verdict = text.lines().last().unwrap_or_default();
    assert!(verdict.contains("too few for the 60,000 of --connections"), "{text}");
    assert!(verdict.contains("the first thing to break is descriptors; in the unit: LimitNOFILE="), "{text}");
}

#[test]
fn the_doctor_prints_a_file_for_sysctl() {
    let output = doctor(&["--sysctl"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (key, value) = line.split_once(" = ").unwrap_or_else(|| panic!("{line} sets nothing"));
        assert!(SETTINGS.iter().any(|setting| setting.key == key.trim_start_matches('-')), "{line}");
        assert!(value.split(' ').all(|word| word.parse::<u64>().is_ok()), "{line}");
    }
}

#[test]
fn a_mistake_in_the_command_line_is_no_verdict() {
    assert_eq!(doctor(&["--connections", "0"]).status.code(), Some(2));
    assert_eq!(doctor(&["--config", "/nonexistent/tidegate.toml"]).status.code(), Some(2));
}

#[test]
fn the_script_writes_nothing_unless_it_is_told_to() {
    let host = FakeHost::new();
    let before = host.contents();
    let output = host.tune(&["--shards", "0-2"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(host.contents(), before);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("would  echo 3 > ") && text.ends_with("to write; --apply writes them\n"), "{text}");
}

#[test]
fn the_script_keeps_interrupts_off_the_cores_of_shards() {
    let host = FakeHost::new();
    let output = host.tune(&["--shards", "0-2", "--apply"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for irq in [30, 31, 32, 33] {
        assert_eq!(host.read(&format!("proc/irq/{irq}/smp_affinity_list")), "3");
    }
    assert_eq!(host.read("sys/class/net/eth0/queues/rx-0/rps_cpus"), "0");
    // Shards on 0 and 2 send through the first queue, the one on 1 through the second.
    assert_eq!(host.read("sys/class/net/eth0/queues/tx-0/xps_cpus"), "5");
    assert_eq!(host.read("sys/class/net/eth0/queues/tx-1/xps_cpus"), "2");
    assert_eq!(host.read("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"), "performance");
}

#[test]
fn the_script_spreads_interrupts_over_shards_where_no_core_is_left() {
    let host = FakeHost::new();
    assert_eq!(host.tune(&["--apply"]).status.code(), Some(0));
    let of_queue = |queue: usize| host.read(&format!("proc/irq/{}/smp_affinity_list", 31 + queue));
    assert_eq!([of_queue(0), of_queue(1), of_queue(2)], ["0", "1", "2"]);
    assert_eq!(host.read("sys/class/net/eth0/queues/rx-0/rps_cpus"), "f", "two queues feed four cores");
}

#[test]
fn the_script_changes_nothing_the_second_time() {
    let host = FakeHost::new();
    host.tune(&["--shards", "0-2", "--apply"]);
    let before = host.contents();
    // The kernel pads its masks; they are the same masks.
    fs::write(host.0.join("sys/class/net/eth0/queues/tx-0/xps_cpus"), "00000000,00000005\n")
        .expect("it can be written");
    let output = host.tune(&["--shards", "0-2", "--apply"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.ends_with("everything is right already\n"), "{text}");
    fs::write(host.0.join("sys/class/net/eth0/queues/tx-0/xps_cpus"), "5\n").expect("it can be written");
    assert_eq!(host.contents(), before);
}

#[test]
fn the_script_knows_more_cores_than_a_word_has_bits() {
    let host = FakeHost::new();
    host.write("sys/devices/system/cpu/online", "0-66");
    assert_eq!(host.tune(&["--shards", "0-63", "--apply"]).status.code(), Some(0));
    assert_eq!(host.read("sys/class/net/eth0/queues/tx-0/xps_cpus"), "55555555,55555555");
    assert_eq!(host.read("sys/class/net/eth0/queues/rx-0/rps_cpus"), "7,00000000,00000000");
}

#[test]
fn the_script_skips_what_a_host_does_not_have() {
    let host = FakeHost::new();
    for folder in ["sys/devices/system/cpu/cpu0/cpufreq", "sys/class/net/eth0/device", "sys/class/net/eth0/queues"] {
        fs::remove_dir_all(host.0.join(folder)).expect("it can be removed");
    }
    let output = host.tune(&["--apply"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches("skip   ").count(), 3, "{output:?}");
}

#[test]
fn the_script_refuses_mistakes() {
    let host = FakeHost::new();
    for (arguments, message) in [
        (&["--shards", "0-9"] as &[&str], "this host has no core 4,5,6,7,8,9, only 0-3"),
        (&["--shards", "3-1"], "names no core"),
        (&["--interrupts", "all"], "all is no list of cores"),
        (&["--interface", "eth7"], "there is no network card eth7"),
        (&["--shards"], "--shards needs a value"),
        (&["--yes"], "unknown argument: --yes"),
    ] {
        let output = host.tune(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(message), "{arguments:?}: {output:?}");
    }
}

/// Checks a committed file; `TIDEGATE_WRITE_TUNING=1` writes it instead.
fn compare(name: &str, expected: &str) {
    let file = Path::new(TUNING).join(name);
    if env::var_os("TIDEGATE_WRITE_TUNING").is_some() {
        fs::write(&file, expected).expect("the file can be written");
    }
    let text = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, expected, "write it anew: TIDEGATE_WRITE_TUNING=1 cargo test --test tuning");
}

fn doctor(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    without_settings(command.arg("doctor").args(arguments)).output().expect("the binary can be run")
}

/// Takes away the settings of the shell that runs the tests.
fn without_settings(command: &mut Command) -> &mut Command {
    for (variable, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEGATE_")) {
        command.env_remove(variable);
    }
    command
}

/// A host of four cores and a network card with two queues each way and four interrupts, gone with the test.
struct FakeHost(PathBuf);

impl FakeHost {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let host = Self(env::temp_dir().join(format!("tidegate-tuning-{}-{number}", std::process::id())));
        host.write("sys/devices/system/cpu/online", "0-3");
        host.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave");
        host.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_available_governors", "performance powersave");
        host.write(
            "proc/net/route",
            "Iface Destination Gateway Flags RefCnt Use Metric Mask\n\
             eth1 0000000A 00000000 0001 0 0 0 000000FF\n\
             eth0 00000000 0100000A 0003 0 0 0 00000000",
        );
        host.write(
            "proc/interrupts",
            "    CPU0 CPU1\n\
             30: 0 0 PCI-MSI eth0\n\
             31: 0 0 PCI-MSI eth0-TxRx-0\n\
             32: 0 0 PCI-MSI eth0-TxRx-1\n\
             33: 0 0 PCI-MSI mlx5_comp2@pci:0000:01:00.0",
        );
        for irq in 30..34 {
            host.write(&format!("sys/class/net/eth0/device/msi_irqs/{irq}"), "msix");
            host.write(&format!("proc/irq/{irq}/smp_affinity_list"), "0-3");
        }
        for queue in 0..2 {
            host.write(&format!("sys/class/net/eth0/queues/rx-{queue}/rps_cpus"), "0");
            host.write(&format!("sys/class/net/eth0/queues/tx-{queue}/xps_cpus"), "0");
        }
        host
    }

    fn write(&self, path: &str, text: &str) {
        let file = self.0.join(path);
        fs::create_dir_all(file.parent().expect("a file lies in a folder")).expect("a folder can be made");
        fs::write(file, format!("{text}\n")).expect("a file can be written");
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).expect("a file can be read").trim().to_owned()
    }

    /// Every file with its text.
    fn contents(&self) -> Vec<(PathBuf, String)> {
        fn collect(folder: &Path, contents: &mut Vec<(PathBuf, String)>) {
            for entry in fs::read_dir(folder).expect("a folder can be listed") {
                let path = entry.expect("a folder can be listed").path();
                if path.is_dir() {
                    collect(&path, contents);
                } else {
                    contents.push((path.clone(), fs::read_to_string(path).expect("a file can be read")));
                }
            }
        }
        let mut contents = Vec::new();
        collect(&self.0, &mut contents);
        contents.sort();
        contents
    }

    fn tune(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("bash");
        command.arg(format!("{TUNING}/tune.sh")).arg("--root").arg(&self.0).args(arguments);
        command.output().expect("bash can be run")
    }
}

impl Drop for FakeHost {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
