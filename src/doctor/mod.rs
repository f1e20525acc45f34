//! The host's examination: what it lets this server hold, what breaks first, and what mends it.
//!
//! Owns the reading of the host, the costs per connection that ceilings are computed from, and the one
//! table of recommended settings, from which the files in `tuning/` are written. Leaves to others: what
//! the operator wants (`config`), whether io_uring works here (`uring`), and where the report is shown (`cli`).
//!
//! Invariants:
//! - Everything is read below the root of a [`Host`], so that a test can be any host. A read past it would
//!   make tests depend on the machine that runs them.
//! - What cannot be read is unknown, never fine and never a failure: containers hide files.
//! - Every value that a remedy names comes from [`recommendation`]; elsewhere it would differ some day from
//!   the files that operators install.
//! - The host is read only; nothing here changes it.

mod cgroup;
mod cost;
mod demand;
mod finding;
mod host;
mod memory;
mod network;
mod process;
mod quantity;
pub mod recommendation;
mod report;

#[cfg(test)]
mod tests;

pub use self::{
    demand::Demand,
    finding::{Finding, Remedy, State},
    host::Host,
    memory::left as memory_left,
    report::Report,
};

/// Examines a host for a server that is to hold what is demanded.
pub fn examine(host: &Host, demand: &Demand) -> Report {
    let mut findings = process::findings(host, demand);
    findings.extend(memory::findings(host, demand));
    findings.extend(network::findings(host, demand));
    Report::new(demand, findings)
}
