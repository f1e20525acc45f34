//! The load tester's program, driven as an operator drives it, and its report.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;

use crate::support::server::{Server, TOKEN_SECRET};

/// The server's program under test, if it is not the one that cargo built along with the test; the tester lies beside it.
const PROGRAM_VARIABLE: &str = "TEST_SERVER_PROGRAM";

/// A run of the load tester.
pub struct Tester {
    child: Child,
    report: PathBuf,
}

/// What a run came to.
pub struct Outcome {
    pub exit_code: Option<i32>,
    /// Its table.
    pub table: String,
    /// What it says to the operator.
    pub complaints: String,
    /// Its report; null if it wrote none.
    pub report: Value,
    /// Its page; empty if it wrote none.
    pub page: String,
}

/// The server's program, in the build under test.
pub fn server_program() -> PathBuf {
    std::env::var(PROGRAM_VARIABLE).unwrap_or_else(|_| env!("CARGO_BIN_EXE_tidegate").to_owned()).into()
}

fn program() -> PathBuf {
    let program = server_program().with_file_name("tidegate-loadtest");
    assert!(program.exists(), "{}: run `cargo build --workspace` first", program.display());
    program
}

/// Arguments that lead to a server of the tests.
pub fn to(server: &Server) -> Vec<String> {
    vec!["--url".to_owned(), format!("ws://{}/connection/websocket", server.client_address())]
}

/// The same, with users and producers.
pub fn with_producers(server: &Server) -> Vec<String> {
    let mut arguments = to(server);
    arguments.extend(["--ingest".to_owned(), server.ingest_address().to_string()]);
    arguments.extend(["--metrics".to_owned(), server.admin_address().to_string()]);
    arguments.extend(["--channel", "open:loadtest-{}", "--hmac-secret", TOKEN_SECRET].map(str::to_owned));
    arguments
}

impl Tester {
    /// Starts it with these arguments, split at blanks, and those that follow.
    pub fn start(arguments: &str, more: &[String]) -> Tester {
        Self::start_program(Command::new(program()), arguments, more)
    }

    /// The same as a process that may have this many descriptors.
    pub fn start_with_descriptors(descriptors: u32, arguments: &str, more: &[String]) -> Tester {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n \"$1\"; shift; exec \"$@\"", "sh", &descriptors.to_string()]).arg(program());
        Self::start_program(command, arguments, more)
    }

    fn start_program(mut command: Command, arguments: &str, more: &[String]) -> Tester {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let report = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("loadtest-{}-{number}", std::process::id()));
        command
            .args(arguments.split_ascii_whitespace())
            .args(more)
            .arg("--json")
            .arg(report.with_extension("json"))
            .arg("--html")
            .arg(report.with_extension("html"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Tester { child, report }
    }

    /// Its child processes.
    pub fn children(&self) -> Vec<u32> {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        children.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.child.kill().expect("the tester is there");
    }

    /// Waits for its end.
    pub fn end(self) -> Outcome {
        let Output { status, stdout, stderr } = self.child.wait_with_output().expect("the tester is our child");
        let take = |extension| {
            let path = self.report.with_extension(extension);
            let text = fs::read_to_string(&path).unwrap_or_default();
            let _ = fs::remove_file(path);
            text
        };
        Outcome {
            exit_code: status.code(),
            table: String::from_utf8_lossy(&stdout).into_owned(),
            complaints: String::from_utf8_lossy(&stderr).into_owned(),
            report: serde_json::from_str(&take("json")).unwrap_or_default(),
            page: take("html"),
        }
    }
}

impl Outcome {
    /// Fails unless all went well; the server's figures can be asked for then.
    pub fn succeeded(self) -> Outcome {
        assert_eq!((self.exit_code, self.problems()), (Some(0), String::new()), "{}{}", self.table, self.complaints);
        self
    }

    /// What went wrong, as the report has it.
    pub fn problems(&self) -> String {
        let problems = self.report["problems"].as_array().unwrap_or_else(|| panic!("no report: {}", self.complaints));
        problems.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")
    }

    /// The server's number of that name.
    pub fn server(&self, name: &str) -> f64 {
        self.figure(name)["server"].as_f64().unwrap_or_else(|| panic!("{name}: {}", self.table))
    }

    /// The floor's number of that name.
    pub fn floor(&self, name: &str) -> f64 {
        self.figure(name)["floor"].as_f64().unwrap_or_else(|| panic!("{name}: {}", self.table))
    }

    fn figure(&self, name: &str) -> &Value {
        let figures = self.report["figures"].as_array().expect("a report has figures");
        figures.iter().find(|figure| figure["name"] == name).unwrap_or_else(|| panic!("{name}: {}", self.table))
    }
}
