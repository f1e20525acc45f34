//! What the host's kernel offers, found out once, before anything is started.

use std::{fmt, io};

use io_uring::{IoUring, Probe, opcode};
use nix::sys::utsname::uname;

/// Oldest kernel that is supported: the first with `DEFER_TASKRUN` and multishot accept and poll that hold.
const KERNEL_OLDEST: (u32, u32) = (6, 1);

/// First kernel that lets one ring ring another that defers its task work.
const KERNEL_MSG_RING: (u32, u32) = (6, 3);

/// What the kernel offers beyond what is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// `IORING_SETUP_SINGLE_ISSUER` and `IORING_SETUP_DEFER_TASKRUN`: completions run when the shard asks.
    pub defer_taskrun: bool,
    /// `IORING_OP_MSG_RING` to a ring that defers its task work.
    pub msg_ring: bool,
}

/// Why no ring can be had here, and what mends it.
#[derive(Debug)]
pub enum HostError {
    /// The kernel is older than 6.1.
    KernelTooOld(String),
    /// The kernel was built without io_uring.
    Missing,
    /// The `kernel.io_uring_disabled` setting forbids it.
    Disabled(String),
    /// A seccomp filter or security module forbids it.
    Forbidden,
    /// The kernel lacks an operation.
    OperationMissing(&'static str),
    /// Anything else.
    Setup(io::Error),
}

impl fmt::Display for HostError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KernelTooOld(release) => write!(
                formatter,
                "this kernel is {release}; Tidegate needs Linux 6.1 or newer. On Debian 11: apt install -t bullseye-backports linux-image-amd64, then reboot"
            ),
            Self::Missing => {
                write!(
                    formatter,
                    "this kernel was built without io_uring (CONFIG_IO_URING=y); boot a distribution's standard kernel, 6.1 or newer"
                )
            }
            Self::Disabled(value) => write!(
                formatter,
                "io_uring is forbidden by kernel.io_uring_disabled = {value}. Allow it: sysctl -w kernel.io_uring_disabled=0 (and in /etc/sysctl.d/ to keep it)"
            ),
            Self::Forbidden => write!(
                formatter,
                "io_uring is forbidden here, though kernel.io_uring_disabled allows it: a seccomp filter is at work. In Docker: --security-opt seccomp=unconfined; in a systemd unit: SystemCallFilter=@system-service @io-uring"
            ),
            Self::OperationMissing(operation) => {
                write!(formatter, "this kernel's io_uring lacks {operation}; boot a kernel 6.1 or newer")
            }
            Self::Setup(error) => write!(
                formatter,
                "io_uring could not be set up: {error}. If memory is locked too tightly: ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit"
            ),
        }
    }
}

impl std::error::Error for HostError {}

/// Looks what this host's kernel offers.
///
/// # Errors
/// When a ring cannot be had, or lacks an operation that shards rely on.
pub fn probe() -> Result<Features, HostError> {
    let release = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    let version = parse_release(&release).ok_or_else(|| HostError::KernelTooOld(release.clone()))?;
    if version < KERNEL_OLDEST {
        return Err(HostError::KernelTooOld(release));
    }
    let ring = IoUring::new(4).map_err(|error| explain(error, disabled_setting()))?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(HostError::Setup)?;
    for (name, code) in [
        ("IORING_OP_ACCEPT", opcode::Accept::CODE),
        ("IORING_OP_POLL_ADD", opcode::PollAdd::CODE),
        ("IORING_OP_POLL_REMOVE", opcode::PollRemove::CODE),
        ("IORING_OP_RECV", opcode::Recv::CODE),
        ("IORING_OP_SEND", opcode::Send::CODE),
        ("IORING_OP_SHUTDOWN", opcode::Shutdown::CODE),
        ("IORING_OP_CLOSE", opcode::Close::CODE),
        ("IORING_OP_ASYNC_CANCEL", opcode::AsyncCancel::CODE),
    ] {
        if !probe.is_supported(code) {
            return Err(HostError::OperationMissing(name));
        }
    }
    let defer_taskrun =
        IoUring::<io_uring::squeue::Entry>::builder().setup_single_issuer().setup_defer_taskrun().build(4).is_ok();
    let msg_ring = version >= KERNEL_MSG_RING && probe.is_supported(opcode::MsgRingData::CODE);
    Ok(Features { defer_taskrun, msg_ring })
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn disabled_setting() -> Option<String> {
    let value = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().to_owned();
    (value != "0").then_some(value)
}

fn explain(error: io::Error, disabled: Option<String>) -> HostError {
    match (error.raw_os_error(), disabled) {
        (Some(nix::libc::ENOSYS), _) => HostError::Missing,
        (Some(nix::libc::EPERM | nix::libc::EACCES), Some(value)) => HostError::Disabled(value),
        (Some(nix::libc::EPERM | nix::libc::EACCES), None) => HostError::Forbidden,
        _ => HostError::Setup(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(parse_release("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(parse_release("6.18.44-fc"), Some((6, 18)));
        assert_eq!(parse_release("5.10"), Some((5, 10)));
        assert_eq!(parse_release("unknown"), None);
        assert!(parse_release("6.10").unwrap() > KERNEL_OLDEST);
    }

    #[test]
    fn each_refusal_says_what_to_type() {
        let refusal = |errno, disabled: Option<&str>| {
            explain(io::Error::from_raw_os_error(errno), disabled.map(str::to_owned)).to_string()
        };
        assert!(refusal(nix::libc::EPERM, Some("2")).contains("sysctl -w kernel.io_uring_disabled=0"));
        assert!(refusal(nix::libc::EPERM, None).contains("seccomp"));
        assert!(refusal(nix::libc::ENOSYS, None).contains("CONFIG_IO_URING"));
        assert!(refusal(nix::libc::ENOMEM, None).contains("LimitMEMLOCK"));
        assert!(HostError::KernelTooOld("5.10.0".to_owned()).to_string().contains("6.1 or newer"));
    }

    #[test]
    fn this_host_has_what_shards_need() {
        probe().unwrap();
    }
}
