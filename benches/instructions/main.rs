//! Instructions per operation, counted by callgrind and held against `benches/instructions.txt`.
//!
//! Counts are alike from run to run and from machine to machine, so a growth of a few percent is seen where times would
//! only be noise. They depend on the compiler, the C library and valgrind: where these differ from those of the
//! baseline, differences are told and nothing fails.
//!
//! `cargo bench --bench instructions` judges; with `-- --update` it writes the baseline anew. Each operation is counted
//! in a process of its own, so that its count does not depend on what ran before it.

mod baseline;
mod callgrind;
mod operations;

#[path = "../cases/channel.rs"]
mod channel;
#[path = "../cases/client_frame.rs"]
mod client_frame;
#[path = "../cases/fanout.rs"]
mod fanout;
#[path = "../cases/mesh.rs"]
mod mesh;
#[path = "../cases/protocol.rs"]
mod protocol;
#[path = "../cases/publication.rs"]
mod publication;
#[path = "../cases/resp.rs"]
mod resp;
#[path = "../cases/shard.rs"]
mod shard;
#[path = "../cases/shuffle.rs"]
mod shuffle;
#[path = "../cases/slab.rs"]
mod slab;
#[path = "../cases/websocket.rs"]
mod websocket;
#[path = "../cases/wheel.rs"]
mod wheel;

use std::{env, path::Path, process::ExitCode};

use baseline::{Baseline, Counts};
use callgrind::Counter;
use operations::OPERATIONS;

/// Where the baseline is, from the repository's root.
const BASELINE: &str = "benches/instructions.txt";

/// What a process of this program is for.
enum Task {
    /// Count all operations and judge them.
    Judge,
    /// Count all operations and write the baseline.
    Update,
    /// Run all operations, uncounted, to see that they work.
    Try,
    /// Run one operation, under callgrind.
    Run(String),
}

fn main() -> ExitCode {
    let outcome = match task(env::args().skip(1)) {
        Ok(Task::Judge) => judge(),
        Ok(Task::Update) => update(),
        Ok(Task::Try) => {
            OPERATIONS.iter().for_each(|(_, run)| run(&mut Counter::default()));
            println!("{} operations work; `cargo bench` counts their instructions", OPERATIONS.len());
            Ok(())
        }
        Ok(Task::Run(name)) => run(&name),
        Err(message) => Err(message),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// `--bench` is what `cargo bench` says to every benchmark; `cargo test --benches` says nothing.
fn task(arguments: impl Iterator<Item = String>) -> Result<Task, String> {
    let arguments: Vec<String> = arguments.collect();
    let is_bench = arguments.iter().any(|argument| argument == "--bench");
    let others: Vec<&str> = arguments.iter().map(String::as_str).filter(|argument| *argument != "--bench").collect();
    match (is_bench, &*others) {
        (true, []) => Ok(Task::Judge),
        (true, ["--update"]) => Ok(Task::Update),
        (false, []) => Ok(Task::Try),
        (false, [callgrind::RUN, name]) => Ok(Task::Run((*name).to_owned())),
        _ => Err(format!("unknown arguments: {}; there is only --update", others.join(" "))),
    }
}

fn judge() -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(BASELINE);
    let baseline = Baseline::read(&path)?;
    let counts = count_all()?;
    let conditions = callgrind::conditions()?;
    print!("{}", baseline.table(&counts));
    if conditions != baseline.conditions {
        println!("\nnot judged: the baseline was counted with\n  {}\nand this is\n  {conditions}", baseline.conditions);
        return Ok(());
    }
    let mistakes = baseline.mistakes(&counts);
    if mistakes.is_empty() {
        return Ok(());
    }
    Err(format!(
        "\ninstructions per operation against {BASELINE}:\n  {}\nif that is meant, write the baseline anew and commit it: make bench-instructions UPDATE=1",
        mistakes.join("\n  ")
    ))
}

fn update() -> Result<(), String> {
    let baseline = Baseline { conditions: callgrind::conditions()?, counts: count_all()? };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(BASELINE);
    std::fs::write(&path, baseline.text()).map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    print!("{}", baseline.text());
    Ok(())
}

fn count_all() -> Result<Counts, String> {
    OPERATIONS.iter().map(|(name, _)| callgrind::count(name).map(|count| ((*name).to_owned(), count))).collect()
}

/// In the counted process: tells the counting one how many operations its instructions are for.
fn run(name: &str) -> Result<(), String> {
    let (_, run) =
        OPERATIONS.iter().find(|(known, _)| *known == name).ok_or(format!("no operation is named {name}"))?;
    let mut counter = Counter::default();
    run(&mut counter);
    println!("{}", counter.operations());
    Ok(())
}
