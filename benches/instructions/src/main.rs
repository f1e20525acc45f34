//! A gate: instructions per operation, counted by callgrind and held against `benches/instructions/baseline.txt`.
//!
//! Counts are alike from run to run and from machine to machine, so a growth of a few percent is seen where times would
//! only be noise. They depend on the compiler, the C library and valgrind: where these differ from those of the
//! baseline, differences are told and nothing fails.
//!
//! Without arguments the program judges; with `--update` it writes the baseline anew, with `--profile` and an operation's
//! name it lists the functions that the instructions are spent in. Each operation is counted in a
//! process of its own, so that its count does not depend on what ran before it.

mod baseline;
mod callgrind;
mod operations;

#[path = "../../cases/channel.rs"]
mod channel;
#[path = "../../cases/client_frame.rs"]
mod client_frame;
#[path = "../../cases/fanout.rs"]
mod fanout;
#[path = "../../cases/mesh.rs"]
mod mesh;
#[path = "../../cases/protocol.rs"]
mod protocol;
#[path = "../../cases/publication.rs"]
mod publication;
#[path = "../../cases/resp.rs"]
mod resp;
#[path = "../../cases/shard.rs"]
mod shard;
#[path = "../../cases/shuffle.rs"]
mod shuffle;
#[path = "../../cases/slab.rs"]
mod slab;
#[path = "../../cases/websocket.rs"]
mod websocket;
#[path = "../../cases/wheel.rs"]
mod wheel;

use std::{env, fs, path::PathBuf, process::ExitCode};

use baseline::{Baseline, UPDATE};
use callgrind::Counter;
use operations::OPERATIONS;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match *arguments {
        [] => judge(),
        ["--update"] => update(),
        ["--profile", name] => callgrind::profile(name).map(|listing| println!("{listing}")),
        [callgrind::RUN, name] => run(name),
        _ => Err(format!("unknown arguments: {}; there are --update and --profile OPERATION", arguments.join(" "))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn judge() -> Result<(), String> {
    let path = baseline_path();
    let text = fs::read_to_string(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let baseline = Baseline::parse(&text).map_err(|line| format!("{}: {line}", path.display()))?;
    let counted = count()?;
    print!("{}", baseline.table(&counted.counts));
    if counted.conditions != baseline.conditions {
        println!(
            "\nnot judged: the baseline was counted with\n  {}\nand this is\n  {}\n{UPDATE}",
            baseline.conditions, counted.conditions
        );
        return Ok(());
    }
    if let Some(note) = baseline.gains(&counted.counts) {
        println!("\n{note}");
    }
    match baseline.mistakes(&counted.counts) {
        Some(mistakes) => Err(format!("\n{mistakes}")),
        None => Ok(()),
    }
}

fn update() -> Result<(), String> {
    let (path, text) = (baseline_path(), count()?.text());
    fs::write(&path, &text).map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    print!("{text}");
    Ok(())
}

fn count() -> Result<Baseline, String> {
    let names: Vec<&str> = OPERATIONS.iter().map(|(name, _)| *name).collect();
    Ok(Baseline { conditions: callgrind::conditions()?, counts: callgrind::count_all(&names)? })
}

fn baseline_path() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "baseline.txt"].iter().collect()
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
