//! The real loop of the shards against a simulated kernel, under seeds.
//!
//! Each seed makes one to three shards, some producers, some clients of every carrier, two-way and one-way, and an
//! amount of trouble: bytes that
//! arrive in pieces, late and reordered events, sends that take a part, sockets without room, memory and
//! descriptors that run out, resets, silent peers, full queues, jumps of the clock, configurations that are read anew. Whatever happens, no
//! client may miss a publication that it was promised, see one twice or out of order, and when all clients
//! are gone no slot, socket, outbox, count, timer or place may be left.
//!
//! A seed that fails is printed with the command that replays it and tells its story.

mod carrier;
mod client;
mod fossil;
mod frames;
mod ledger;
mod producers;
mod simulation;

use std::{collections::BTreeMap, env, panic, thread};

use simulation::{Outline, run};

/// Seeds of an ordinary run. `SEEDS` in the environment asks for more, `SEED` for one, with its story.
const SEEDS: u64 = 1_000;

/// Names the seed if the simulation panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("seed {} fails; to see how: make simulate SEED={}", self.0, self.0);
        }
    }
}

fn run_named(seed: u64, trace: bool) -> Outline {
    let _named = Named(seed);
    run(seed, trace)
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

#[test]
fn every_seed_keeps_every_promise() {
    if let Some(seed) = number("SEED") {
        println!("{:?}", run_named(seed, true));
        return;
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let run_some = move |first: u64| -> Vec<Option<Outline>> {
        let mine = (first..seeds).step_by(threads as usize);
        mine.map(|seed| panic::catch_unwind(|| run_named(seed, false)).ok()).collect()
    };
    let workers: Vec<_> = (0..threads).map(|first| thread::spawn(move || run_some(first))).collect();
    let outlines: Vec<Option<Outline>> =
        workers.into_iter().flat_map(|worker| worker.join().expect("panics are caught")).collect();
    let failures = outlines.iter().filter(|outline| outline.is_none()).count();
    assert_eq!(failures, 0, "so many seeds fail, each of which is named above");
    let outlines: Vec<Outline> = outlines.into_iter().flatten().collect();
    let mut events: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, count) in outlines.iter().flat_map(|outline| &outline.events) {
        *events.entry(name).or_default() += count;
    }
    events.retain(|_, count| *count > 0);
    println!("{seeds} seeds: {events:?}");
    let rare = [
        "unseen",
        "patches",
        "held",
        "pings",
        "slow",
        "no_pong",
        "resync",
        "descriptors_exhausted",
        "connections_exhausted",
        "reloads",
    ];
    let kinds = ["websockets", "one-way websockets", "streams", "one-way streams"];
    for (name, once_in) in
        [("seen", 1)].into_iter().chain(kinds.map(|name| (name, 1))).chain(rare.map(|name| (name, 10)))
    {
        let count = events.get(name).copied().unwrap_or(0);
        assert!(count * once_in >= seeds, "{name} happened {count} times: the seeds have become tame");
    }
}

/// Without this a failing seed could not be looked into.
#[test]
fn a_seed_replays() {
    for seed in 0..5 {
        assert_eq!(run(seed, false).fingerprint, run(seed, false).fingerprint, "seed {seed}");
    }
}
