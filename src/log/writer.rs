//! The thread that writes a log, and the bounded queue before it.
//!
//! Invariant: [`Writer::write`] does not wait, whatever becomes of the output. A pipe that nobody reads stops the
//! writing thread alone; a disk without room costs the lines that it does not take.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::{
        fs::{MetadataExt, OpenOptionsExt},
        net::UnixDatagram,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use tracing::Level;

use super::{
    StartError,
    encoding::Encoding,
    record::{Record, Value},
};
use crate::limits::LOG_QUEUE_LINES_MAX;

/// How often a file is looked for under its name: whoever rotates logs moves the old one away.
const FILE_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A log's writing end. Cheap to clone.
#[derive(Clone)]
pub(super) struct Writer {
    queue: Sender<Message>,
    counters: Arc<Counters>,
}

/// What goes through the queue.
enum Message {
    /// An encoded record.
    Line(Vec<u8>),
    /// Say when all before it is written.
    Flush(Sender<()>),
}

#[derive(Debug, Default)]
struct Counters {
    written: AtomicU64,
    queue_full: AtomicU64,
    failed: AtomicU64,
}

/// What became of a log's lines so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Lines that were written.
    pub written: u64,
    /// Lines that found the queue full.
    pub queue_full: u64,
    /// Lines that the output did not take.
    pub failed: u64,
}

impl Writer {
    /// Starts the thread that writes to an output.
    pub(super) fn spawn(name: &str, output: Output, encoding: Encoding) -> Result<Self, StartError> {
        let (queue, lines) = bounded(LOG_QUEUE_LINES_MAX);
        let counters = Arc::new(Counters::default());
        let work = Work { lines, output, encoding, counters: Arc::clone(&counters), lost_told: 0 };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work.run());
        thread.map_err(StartError::Thread)?;
        Ok(Self { queue, counters })
    }

    /// Hands over a line, or counts it as lost.
    pub(super) fn write(&self, line: Vec<u8>) {
        if self.queue.try_send(Message::Line(line)).is_err() {
            self.counters.queue_full.fetch_add(1, Relaxed);
        }
    }

    /// Waits until what was handed over is written, but no longer than `time_max`.
    pub(super) fn flush(&self, time_max: Duration) {
        let (done, is_done) = bounded(1);
        let end = Instant::now() + time_max;
        if self.queue.send_timeout(Message::Flush(done), time_max).is_ok() {
            // In vain if the output is stuck.
            let _ = is_done.recv_deadline(end);
        }
    }

    pub(super) fn figures(&self) -> Figures {
        self.counters.figures()
    }
}

impl Counters {
    fn figures(&self) -> Figures {
        Figures {
            written: self.written.load(Relaxed),
            queue_full: self.queue_full.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }
}

struct Work {
    lines: Receiver<Message>,
    output: Output,
    encoding: Encoding,
    counters: Arc<Counters>,
    /// Lost lines that the log itself has told of.
    lost_told: u64,
}

impl Work {
    fn run(mut self) {
        while let Ok(message) = self.lines.recv() {
            match message {
                Message::Line(line) => {
                    if self.write(&line) {
                        self.tell_lost();
                    }
                }
                // Whoever asked may have gone on without the answer.
                Message::Flush(done) => _ = done.send(()),
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> bool {
        let is_written = self.output.write(line).is_ok();
        let counter = if is_written { &self.counters.written } else { &self.counters.failed };
        counter.fetch_add(1, Relaxed);
        is_written
    }

    /// Says in the log itself that it has a gap, now that it takes lines again.
    fn tell_lost(&mut self) {
        let Figures { queue_full, failed, .. } = self.counters.figures();
        let lost = queue_full + failed - self.lost_told;
        if lost == 0 {
            return;
        }
        let record = Record {
            at: SystemTime::now(),
            level: Level::WARN,
            target: module_path!(),
            message: "lines of this log were lost before this one".to_owned(),
            fields: vec![("lines", Value::Plain(lost.to_string()))],
        };
        let line = self.encoding.write(&record);
        if self.write(&line) {
            self.lost_told += lost;
        }
    }
}

/// Where lines go.
pub(super) enum Output {
    /// Standard error.
    Stderr,
    /// systemd's journal.
    Journal { path: PathBuf, socket: Option<UnixDatagram> },
    /// A file, which others may move away.
    File { path: PathBuf, file: File, looked_at: Instant },
}

impl Output {
    pub(super) fn stderr() -> Self {
        Self::Stderr
    }

    pub(super) fn journal(path: impl AsRef<Path>) -> io::Result<Self> {
        let socket = Some(connect(path.as_ref())?);
        Ok(Self::Journal { path: path.as_ref().to_owned(), socket })
    }

    pub(super) fn file(path: &Path) -> io::Result<Self> {
        Ok(Self::File { path: path.to_owned(), file: open(path)?, looked_at: Instant::now() })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().lock().write_all(line),
            Self::Journal { path, socket } => {
                // A journal that was started anew has another socket.
                let is_sent = socket.as_ref().is_some_and(|socket| socket.send(line).is_ok());
                if !is_sent {
                    *socket = None;
                    socket.insert(connect(path)?).send(line)?;
                }
                Ok(())
            }
            Self::File { path, file, looked_at } => {
                if looked_at.elapsed() >= FILE_LOOK_INTERVAL {
                    *looked_at = Instant::now();
                    reopen_if_moved(path, file);
                }
                file.write_all(line)
            }
        }
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

/// For the process and its group alone: it names users and addresses.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// If the file is not the one of its name any more, and another can be made, lines go there from now on.
fn reopen_if_moved(path: &Path, file: &mut File) {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let named = path.metadata().map(identity).ok();
    if (named.is_none() || named != file.metadata().map(identity).ok())
        && let Ok(opened) = open(path)
    {
        *file = opened;
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixDatagram};

    use super::*;

    const TEXT: Encoding = Encoding::Text { is_colored: false };
    const PATIENCE: Duration = Duration::from_secs(10);

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("tidegate-log-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_full_disk_costs_lines_and_no_time() {
        let writer = Writer::spawn("test", Output::file(Path::new("/dev/full")).unwrap(), TEXT).unwrap();
        for _ in 0..100 {
            writer.write(b"line\n".to_vec());
        }
        writer.flush(PATIENCE);
        assert_eq!(writer.figures(), Figures { written: 0, queue_full: 0, failed: 100 });
    }

    #[test]
    fn an_output_that_is_stuck_stops_nobody_and_the_gap_is_told() {
        let folder = folder("stuck");
        let path = folder.join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        // Both ends are open, so nothing fails; but nobody reads.
        let mut pipe = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let writer = Writer::spawn("test", Output::file(&path).unwrap(), TEXT).unwrap();
        let line = vec![b'x'; 4096];
        let sent = 3 * LOG_QUEUE_LINES_MAX as u64;
        let begin = Instant::now();
        (0..sent).for_each(|_| writer.write(line.clone()));
        assert!(begin.elapsed() < PATIENCE, "nobody waits: {:?}", begin.elapsed());
        assert!(writer.figures().queue_full > LOG_QUEUE_LINES_MAX as u64, "{:?}", writer.figures());
        let reader = thread::spawn(move || {
            let mut text = Vec::new();
            let mut part = [0; 65_536];
            while !text.windows(5).any(|window| window == b"lost ") {
                let bytes = io::Read::read(&mut pipe, &mut part).unwrap();
                text.extend_from_slice(&part[..bytes]);
            }
            text
        });
        let text = reader.join().unwrap();
        assert!(String::from_utf8_lossy(&text).contains("lines of this log were lost before this one"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let folder = folder("moved");
        let path = folder.join("audit.log");
        let mut output = Output::file(&path).unwrap();
        output.write(b"first\n").unwrap();
        fs::rename(&path, folder.join("audit.log.1")).unwrap();
        if let Output::File { looked_at, .. } = &mut output {
            *looked_at = looked_at.checked_sub(FILE_LOOK_INTERVAL).unwrap();
        }
        output.write(b"second\n").unwrap();
        assert_eq!(fs::read_to_string(folder.join("audit.log.1")).unwrap(), "first\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "second\n");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_journal_that_starts_anew_is_found_again() {
        let folder = folder("journal");
        let path = folder.join("socket");
        let receive = |socket: &UnixDatagram| {
            let mut datagram = [0; 64];
            let bytes = socket.recv(&mut datagram).unwrap();
            datagram[..bytes].to_vec()
        };
        assert!(Output::journal(&path).is_err(), "there is no journal");
        let journal = UnixDatagram::bind(&path).unwrap();
        let mut output = Output::journal(&path).unwrap();
        output.write(b"MESSAGE=1\n").unwrap();
        assert_eq!(receive(&journal), b"MESSAGE=1\n");
        drop(journal);
        fs::remove_file(&path).unwrap();
        assert!(output.write(b"MESSAGE=2\n").is_err(), "it is away");
        let journal = UnixDatagram::bind(&path).unwrap();
        output.write(b"MESSAGE=3\n").unwrap();
        assert_eq!(receive(&journal), b"MESSAGE=3\n");
        fs::remove_dir_all(folder).unwrap();
    }
}
