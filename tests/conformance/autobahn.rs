//! The Autobahn test suite: which cases it runs, and what it finds.

use std::{
    collections::BTreeMap,
    env, fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::json;

/// The name under which the suite reports on the echo server.
const AGENT: &str = "tidegate";

/// How long the suite may run.
const RUN_TIME_MAX: Duration = Duration::from_secs(60 * 60);

/// Cases that take seconds: all rules of RFC 6455, and from each group about compression the shortest messages.
const SHORT: &[&str] = &[
    "1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*", "12.1.1", "12.1.2", "12.2.1", "12.3.1", "12.4.1",
    "12.5.1", "13.1.1", "13.2.1", "13.3.1", "13.4.1", "13.5.1", "13.6.1", "13.7.1",
];

/// All that there are.
const ALL: &[&str] = &["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.*", "13.*"];

/// Cases in which the suite sees behaviour that is right and could be stricter, and why it is as it is.
const REASONS: &[(&str, &str)] = &[("6.4.3", WHOLE_FRAMES), ("6.4.4", WHOLE_FRAMES)];

/// The suite sends one frame in pieces, with what is no UTF-8 in the first, and likes to see the connection fail before the
/// last. RFC 6455 section 8.1 wants it failed, not at once.
const WHOLE_FRAMES: &str = "a frame is unmasked and looked at once, when it is complete, so that an idle connection keeps \
    nothing of it; a message in several frames fails with the frame that is wrong (6.4.1, 6.4.2)";

/// What the suite says of a case.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    behavior: String,
    behavior_close: String,
}

/// Runs the suite against the echo server at that address: what it finds, case by case.
pub fn run(address: SocketAddr) -> Vec<String> {
    let program = env::var_os("AUTOBAHN_PROGRAM").expect("AUTOBAHN_PROGRAM is set: `make conformance` does it");
    let (cases, cases_min) = match env::var("AUTOBAHN_CASES").as_deref() {
        Ok("short") => (SHORT, 247 + 13),
        _ => (ALL, 247 + 54 + 216),
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
    let reports = folder.join("reports");
    // Reports of an earlier run would be taken for this one's.
    if reports.exists() {
        fs::remove_dir_all(&reports).expect("reports are ours to remove");
    }
    fs::create_dir_all(&folder).expect("a folder in target");
    let settings = folder.join("fuzzingclient.json");
    let text = json!({
        "outdir": reports,
        "servers": [{ "agent": AGENT, "url": format!("ws://{address}") }],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    fs::write(&settings, text.to_string()).expect("a file in target");
    let mut suite = Command::new(program);
    suite.args(["-m", "fuzzingclient", "-s"]).arg(&settings).current_dir(&folder);
    let status = wait(suite.spawn().expect("the suite is installed"));
    assert!(status.success(), "the suite ended with {status}");
    let verdicts = read(&reports.join("index.json"));
    println!("{} cases, reports in {}", verdicts.len(), reports.display());
    assert!(verdicts.len() >= cases_min, "the suite ran {} cases, not {cases_min}", verdicts.len());
    findings(&verdicts)
}

fn wait(mut suite: Child) -> ExitStatus {
    let end = Instant::now() + RUN_TIME_MAX;
    loop {
        if let Some(status) = suite.try_wait().expect("it is our child") {
            return status;
        }
        if Instant::now() > end {
            suite.kill().expect("it is our child");
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn read(index: &Path) -> BTreeMap<String, Verdict> {
    let text = fs::read_to_string(index).expect("the suite leaves an index");
    let mut agents: BTreeMap<String, BTreeMap<String, Verdict>> = serde_json::from_str(&text).expect("verdicts");
    agents.remove(AGENT).expect("verdicts on the echo server")
}

/// All verdicts but good ones and those for which there is a reason; and reasons for which there is no case any more.
fn findings(verdicts: &BTreeMap<String, Verdict>) -> Vec<String> {
    let reason = |case: &str| REASONS.iter().find(|(known, _)| *known == case);
    let mut findings = Vec::new();
    for (case, Verdict { behavior, behavior_close }) in verdicts {
        let is_right = |verdict: &str| matches!(verdict, "OK" | "INFORMATIONAL");
        let is_lax = |verdict: &str| is_right(verdict) || verdict == "NON-STRICT";
        match (is_right(behavior) && is_right(behavior_close), reason(case)) {
            (true, None) => {}
            (true, Some(_)) => findings.push(format!("{case}: strict by now, and excused")),
            (false, Some((_, reason))) if is_lax(behavior) && is_lax(behavior_close) => {
                println!("{case}: {behavior}, because {reason}");
            }
            (false, _) => findings.push(format!("{case}: {behavior}, its end {behavior_close}")),
        }
    }
    findings
}
