//! Clients that are not written in Rust: scripts under Node.js and Python, run as child processes against a server.
//!
//! A script asserts by itself and says with its exit code how it went. It may ask the test for something that it
//! cannot do: it prints `ASK word` and waits for the line `DONE` on its standard input.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use super::server::{Server, TOKEN_SECRET};

/// How long a script may run.
const TIME_MAX: Duration = Duration::from_secs(120);

/// A script of `tests/javascript`.
pub fn node(server: &Server, script: &str) -> Command {
    let mut command = command("node", server);
    command.arg(tests_folder().join("javascript").join(script));
    command
}

/// A script of `tests/python`.
pub fn python(server: &Server, script: &str) -> Command {
    let mut command = command(&tests_folder().join(".venv/bin/python").to_string_lossy(), server);
    command.arg(tests_folder().join("python").join(script));
    command
}

/// A program that is told where the server listens.
pub fn command(program: &str, server: &Server) -> Command {
    let mut command = Command::new(program);
    command
        .env("TEST_CLIENT_URL", format!("ws://{}/connection/websocket", server.client_address()))
        .env("TEST_INGEST_PORT", server.ingest_address().port().to_string())
        .env("TEST_INGEST_SOCKET", server.ingest_socket())
        .env("TEST_ADMIN_URL", format!("http://{}", server.admin_address()))
        .env("TEST_TOKEN_SECRET", TOKEN_SECRET)
        .env("TEST_ENCODING", "json")
        .env("TEST_TARGET_FOLDER", env!("CARGO_TARGET_TMPDIR"))
        // Their stack traces matter, their colours do not.
        .env("NO_COLOR", "1")
        .current_dir(tests_folder());
    command
}

/// Runs a command to its end and shows what it prints; fails unless it succeeds in time. Returns its output.
pub fn run(command: &mut Command) -> String {
    run_with_answers(command, |question| panic!("it asks for {question:?}, which nobody answers"))
}

/// The same for a script that asks.
pub fn run_with_answers(command: &mut Command, mut answer: impl FnMut(&str)) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; `make test-tools` installs what the tests need"));
    let mut stdin = child.stdin.take().expect("it is piped");
    let stdout = child.stdout.take().expect("it is piped");
    let stderr = child.stderr.take().expect("it is piped");
    let errors =
        thread::spawn(move || BufReader::new(stderr).lines().map_while(Result::ok).collect::<Vec<_>>().join("\n"));
    let child = Arc::new(Mutex::new(child));
    let watchdog = Watchdog::over(&child);

    let mut output = String::new();
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        println!("{line}");
        match line.strip_prefix("ASK ") {
            Some(question) => {
                answer(question);
                writeln!(stdin, "DONE").expect("the script waits for it");
            }
            None => output.push_str(&format!("{line}\n")),
        }
    }
    let in_time = watchdog.stop();
    let status = child.lock().expect("nobody panics with it").wait().expect("it is our child");
    let errors = errors.join().expect("reading lines does not panic");
    println!("{errors}");
    assert!(in_time, "{program} did not end within {TIME_MAX:?}");
    assert!(status.success(), "{program} ended with {status}");
    output
}

fn tests_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Kills a child that runs too long.
struct Watchdog {
    stop: mpsc::Sender<()>,
    thread: thread::JoinHandle<bool>,
}

impl Watchdog {
    fn over(child: &Arc<Mutex<Child>>) -> Self {
        let (stop, stopped) = mpsc::channel();
        let child = Arc::clone(child);
        let thread = thread::spawn(move || {
            let in_time = stopped.recv_timeout(TIME_MAX).is_ok();
            if !in_time {
                // It may have ended just now.
                let _ = child.lock().expect("nobody panics with it").kill();
            }
            in_time
        });
        Self { stop, thread }
    }

    /// Whether the child ended by itself.
    fn stop(self) -> bool {
        // The watchdog may have barked already and be gone.
        let _ = self.stop.send(());
        self.thread.join().expect("the watchdog does not panic")
    }
}
