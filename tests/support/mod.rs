//! What the black-box tests share: a real server process, and peers of every kind to set against it.
//!
//! Nothing here knows the server's code: it is driven through its ports, its signals and its exit code only.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod authority;
pub mod bystander;
pub mod client;
pub mod http;
pub mod metrics;
pub mod producer;
pub mod script;
pub mod server;
pub mod swarm;

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long a test waits for what should happen at once; long, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again and again until there is an answer; fails with `what` when patience ends.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    const BETWEEN_QUESTIONS: Duration = Duration::from_millis(10);
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} in vain: {what}");
        thread::sleep(BETWEEN_QUESTIONS);
    }
}
