//! Logs: what the server tells its operators, and the trail of what concerns its security.
//!
//! Owns the shape of log lines, where they go, and the bound on how often one thing is said. What is worth saying is
//! decided where it happens, by the macros of `tracing`; what is said of [`AUDIT`] is the trail.
//!
//! Invariants:
//! - Nobody waits for a log. An event becomes a line on the thread where it happens, and goes into a bounded queue; a
//!   thread of its own writes it. What finds the queue full, or the disk, is counted ([`figures`]) and gone. A shard
//!   that waited for a disk would stop all its clients.
//! - Texts of peers stay within their line and their field: control characters are escaped, so nobody writes lines in
//!   the server's name.

mod encoding;
mod gate;
mod journal;
mod layer;
mod record;
mod writer;

use std::{
    env,
    io::{self, IsTerminal},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::OnceLock,
    time::Duration,
};

use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, filter_fn},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use self::{
    encoding::Encoding,
    layer::Lines,
    writer::{Output, Writer},
};
pub use self::{gate::Gate, writer::Figures};
use crate::config::{LogConfig, LogFormat};

/// The target of events that concern security: who was refused, and what was changed. Filtered by this name in
/// `log.level`, or sent to `log.audit_file`.
pub const AUDIT: &str = "audit";

/// How long a process that ends waits for its last lines to be written.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

static STARTED: OnceLock<Started> = OnceLock::new();

struct Started {
    level: reload::Handle<EnvFilter, Registry>,
    main: Writer,
    audit: Option<Writer>,
}

/// Why logs cannot be written as configured.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file of the audit trail.
    #[error(
        "log.audit_file {path}: {error}. Its folder must exist and let this process write: LogsDirectory=tidegate in the unit makes /var/log/tidegate"
    )]
    AuditFile {
        /// As configured.
        path: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// The journal's socket.
    #[error("log.format = \"journald\", but {path}: {error}. Without systemd's journal, choose \"text\" or \"json\"")]
    Journal {
        /// Of the socket.
        path: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// The thread that writes.
    #[error("no thread for logs: {0}. Raise ulimit -u, or TasksMax= in the unit")]
    Thread(io::Error),
}

/// Starts logging for the whole process, once. RUST_LOG is not looked at: the configuration is the one place.
///
/// # Errors
/// When something that is configured cannot be had.
pub fn start(config: &LogConfig) -> Result<(), StartError> {
    let (output, encoding) = output(config.format)?;
    let main = Writer::spawn("log", output, encoding)?;
    let audit = match &config.audit_file {
        None => None,
        Some(path) => {
            let output = Output::file(path)
                .map_err(|error| StartError::AuditFile { path: path.display().to_string(), error })?;
            Some(Writer::spawn("audit", output, Encoding::Json)?)
        }
    };
    let (filter, level) = reload::Layer::new(EnvFilter::new(&config.level));
    let has_own_file = audit.is_some();
    let lines = Lines::new(main.clone(), encoding, has_own_file).with_filter(filter);
    let trail = audit.clone().map(|writer| {
        let is_audit = filter_fn(|metadata| metadata.target() == AUDIT).with_max_level_hint(LevelFilter::INFO);
        Lines::new(writer, Encoding::Json, false).with_filter(is_audit)
    });
    tracing_subscriber::registry().with(lines).with(trail).init();
    assert!(STARTED.set(Started { level, main, audit }).is_ok(), "logging starts once");
    Ok(())
}

/// Changes the levels of a running process; a text that has been validated as `log.level`.
pub fn set_level(level: &str) {
    if let Some(started) = STARTED.get() {
        // It fails only when the subscriber is gone, which ends with the process.
        let _ = started.level.reload(EnvFilter::new(level));
    }
}

/// Waits until what was said so far is written, or cannot be in time.
pub fn flush() {
    for writer in STARTED.get().into_iter().flat_map(|started| [Some(&started.main), started.audit.as_ref()]).flatten()
    {
        writer.flush(FLUSH_TIME_MAX);
    }
}

/// Lines written and lost so far, by where they go.
pub fn figures() -> Vec<(&'static str, Figures)> {
    let Some(started) = STARTED.get() else { return Vec::new() };
    let audit = started.audit.as_ref().map(|writer| ("audit", writer.figures()));
    [("main", started.main.figures())].into_iter().chain(audit).collect()
}

/// Where lines go, and in which form.
fn output(format: LogFormat) -> Result<(Output, Encoding), StartError> {
    let journal = || Output::journal(journal::SOCKET).map(|output| (output, Encoding::Journal));
    match format {
        LogFormat::Json => Ok((Output::stderr(), Encoding::Json)),
        LogFormat::Text => Ok((Output::stderr(), text())),
        LogFormat::Journald => journal().map_err(|error| StartError::Journal { path: journal::SOCKET, error }),
        // Standard error may lead to the journal though its socket is out of reach; then it takes lines.
        LogFormat::Auto if is_journal_stderr() => Ok(journal().unwrap_or_else(|_| (Output::stderr(), text()))),
        LogFormat::Auto => Ok((Output::stderr(), text())),
    }
}

fn text() -> Encoding {
    let has_no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    Encoding::Text { is_colored: io::stderr().is_terminal() && !has_no_color }
}

/// Whether standard error leads to systemd's journal: it says so by device and inode (systemd.exec(5), JOURNAL_STREAM).
fn is_journal_stderr() -> bool {
    let Some(stream) = env::var("JOURNAL_STREAM").ok() else { return false };
    let stderr = Path::new("/proc/self/fd/2").metadata();
    stderr.is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}
