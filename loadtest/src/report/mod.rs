//! What a run found: the same figures as a table, as JSON, and as a page.

mod html;
pub mod summary;
mod table;

use std::{borrow::Cow, fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{
    proc::{bystanders::Bystanders, cpu::NamedTime, kernel_memory::CacheGrowth, machine::Machine},
    sequence::Faults,
    statistics::Summary,
    watch::Point,
};

/// Name of the figure: number of connections.
pub const CONNECTIONS: &str = "connections";

/// Name of the figure: bytes per connection in all.
pub const MEMORY: &str = "memory per connection, user and kernel";

/// Name of the figure: bytes per connection of the server's own.
pub const USER_MEMORY: &str = "user memory per connection, RSS";

/// Name of the figure: CPU time of the server per message.
pub const CPU_PER_MESSAGE: &str = "CPU per delivered message";

/// Name of the figure: what came over the wire.
pub const WIRE_BYTES: &str = "bytes on the wire per delivered message";

/// Name of the figure: what would have come without compression.
pub const PLAIN_BYTES: &str = "the same, uncompressed";

/// Name of the figure: the part of the uncompressed bytes that came over the wire.
pub const WIRE_SHARE: &str = "bytes on the wire, of those uncompressed";

/// A report, complete or not.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// Version of the tester.
    pub version: String,
    /// The scenario.
    pub scenario: String,
    /// What this run is called among others.
    pub title: String,
    /// The command line.
    pub command: Vec<String>,
    /// Where it ran.
    pub machine: Machine,
    /// What else ran there meanwhile.
    pub bystanders: Bystanders,
    /// What went wrong; empty: nothing did, and the report is complete.
    pub problems: Vec<String>,
    /// The numbers.
    pub figures: Vec<Figure>,
    /// Distributions of durations.
    pub distributions: Vec<Distribution>,
    /// CPU time of the server's threads in the measured part.
    pub threads: Vec<NamedTime>,
    /// Kernel memory by cache and connection, both ends of each: the server's clients.
    pub caches: Vec<CacheGrowth>,
    /// The same for the floor's clients.
    pub floor_caches: Vec<CacheGrowth>,
    /// The run over time.
    pub points: Vec<Point>,
    /// The floor's run over time.
    pub floor_points: Vec<Point>,
}

/// One number, beside the floor's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// Its unit.
    pub unit: Cow<'static, str>,
    /// The server's.
    pub server: Option<f64>,
    /// The floor's.
    pub floor: Option<f64>,
    /// What it should be at most.
    pub goal: Option<Goal>,
}

/// What a figure should be at most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Goal {
    /// This value.
    Value(f64),
    /// This many times the floor's.
    Ratio(f64),
}

/// A distribution of durations.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Distribution {
    /// Of what.
    pub name: String,
    /// The summary.
    pub summary: Summary,
}

impl Figure {
    /// The server's value as a multiple of the floor's.
    pub fn ratio(&self) -> Option<f64> {
        self.floor.filter(|&floor| floor > 0.0).and_then(|floor| self.server.map(|server| server / floor))
    }

    /// Whether the goal is met; none if there is none, or it cannot be told.
    pub fn meets_goal(&self) -> Option<bool> {
        match self.goal? {
            Goal::Value(value) => self.server.map(|server| server <= value),
            Goal::Ratio(value) => self.ratio().map(|ratio| ratio <= value),
        }
    }
}

impl Report {
    /// Reads a report that was written as JSON.
    ///
    /// # Errors
    /// If there is none, or it is not of this version of the tester.
    pub fn read(path: &Path) -> Result<Report> {
        let json = fs::read(path).with_context(|| format!("{}", path.display()))?;
        serde_json::from_slice(&json).with_context(|| format!("{} is no report of this tester's", path.display()))
    }

    /// An empty report.
    pub fn new(scenario: &str) -> Report {
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: scenario.to_owned(),
            title: scenario.to_owned(),
            command: std::env::args().skip(1).map(hide_secret()).collect(),
            machine: Machine::here(),
            bystanders: Bystanders::default(),
            problems: Vec::new(),
            figures: Vec::new(),
            distributions: Vec::new(),
            threads: Vec::new(),
            caches: Vec::new(),
            floor_caches: Vec::new(),
            points: Vec::new(),
            floor_points: Vec::new(),
        }
    }

    /// A number of the server's.
    pub fn set_server(&mut self, name: &str, unit: &'static str, value: f64) {
        self.figure(name, unit).server = Some(value);
    }

    /// The floor's number beside it.
    pub fn set_floor(&mut self, name: &str, unit: &'static str, value: f64) {
        self.figure(name, unit).floor = Some(value);
    }

    /// What the number should be at most.
    pub fn set_goal(&mut self, name: &str, unit: &'static str, goal: Goal) {
        self.figure(name, unit).goal = Some(goal);
    }

    /// A distribution; nothing if nothing was measured.
    pub fn add_distribution(&mut self, name: &str, summary: Option<Summary>) {
        if let Some(summary) = summary {
            self.distributions.push(Distribution { name: name.to_owned(), summary });
        }
    }

    /// Faults are problems.
    pub fn add_faults(&mut self, who: &str, faults: &Faults) {
        if !faults.is_clean() {
            let Faults { lost, doubled, out_of_order, misrouted, damaged } = faults;
            self.problems.push(format!(
                "{who}: {lost} messages lost, {doubled} doubled, {out_of_order} out of order, {misrouted} misrouted, \
                 {damaged} damaged"
            ));
        }
    }

    /// Goals in bytes that are missed, or of which nothing is known, are problems.
    pub fn gate(&mut self) {
        for figure in self.figures.iter().filter(|figure| figure.unit == "B" && figure.goal.is_some()) {
            if figure.meets_goal() != Some(true) {
                self.problems.push(format!("the goal is missed: {}, {}", figure.name, figure.unit));
            }
        }
    }

    /// The table, for a terminal.
    pub fn table(&self) -> String {
        table::render(self)
    }

    /// Writes the files that were asked for.
    ///
    /// # Errors
    /// If one cannot be written.
    pub fn write(&self, json: Option<&Path>, html: Option<&Path>) -> Result<()> {
        if let Some(path) = json {
            fs::write(path, serde_json::to_vec(self)?).with_context(|| format!("{}", path.display()))?;
        }
        if let Some(path) = html {
            fs::write(path, html::render(self)).with_context(|| format!("{}", path.display()))?;
        }
        Ok(())
    }

    fn figure(&mut self, name: &str, unit: &'static str) -> &mut Figure {
        let index = self.figures.iter().position(|figure| figure.name == name).unwrap_or_else(|| {
            self.figures.push(Figure {
                name: name.to_owned(),
                unit: Cow::Borrowed(unit),
                server: None,
                floor: None,
                goal: None,
            });
            self.figures.len() - 1
        });
        &mut self.figures[index]
    }
}

/// Reports are published: what follows `--token` and its like is not shown.
fn hide_secret() -> impl FnMut(String) -> String {
    const SECRETS: [&str; 3] = ["--token", "--hmac-secret", "--ingest-password"];
    let mut hide_next = false;
    move |argument| {
        if std::mem::take(&mut hide_next) {
            return "***".to_owned();
        }
        let name = argument.split('=').next().unwrap_or_default();
        if SECRETS.contains(&name) {
            hide_next = !argument.contains('=');
            return if hide_next { argument } else { format!("{name}=***") };
        }
        argument
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_judged() {
        let figure = |goal| Figure {
            name: String::new(),
            unit: "".into(),
            server: Some(11.0),
            floor: Some(10.0),
            goal: Some(goal),
        };
        assert_eq!(figure(Goal::Ratio(1.1)).meets_goal(), Some(true));
        assert_eq!(figure(Goal::Ratio(1.05)).meets_goal(), Some(false));
        assert_eq!(figure(Goal::Value(10.9)).meets_goal(), Some(false));
        assert_eq!(Figure { floor: None, ..figure(Goal::Ratio(1.1)) }.meets_goal(), None);
    }

    #[test]
    fn the_gate_is_for_bytes() {
        let mut report = Report::new("idle");
        for (name, unit, value) in [("time", "us", 9.0), ("few", "B", 1.0), ("many", "B", 9.0)] {
            report.set_server(name, unit, value);
            report.set_goal(name, unit, Goal::Value(5.0));
        }
        report.gate();
        assert_eq!(report.problems, ["the goal is missed: many, B"]);
    }

    #[test]
    fn secrets_are_not_published() {
        let line = ["idle", "--token", "abc", "--hmac-secret=def", "--pid", "7"].map(str::to_owned);
        let shown: Vec<String> = line.into_iter().map(hide_secret()).collect();
        assert_eq!(shown, ["idle", "--token", "***", "--hmac-secret=***", "--pid", "7"]);
    }

    #[test]
    fn a_report_is_a_table_json_and_a_page() {
        let mut report = Report::new("idle");
        report.set_server("user memory <RSS>", "B", 118.0);
        report.set_floor("user memory <RSS>", "B", 59.0);
        report.set_goal("user memory <RSS>", "B", Goal::Value(120.0));
        report.add_faults("server", &Faults { lost: 3, ..Faults::default() });
        report.add_distribution("latency", Some(Summary { count: 1, p50_us: 7, ..Summary::default() }));
        let table = report.table();
        assert!(table.contains("118") && table.contains("2.00") && table.contains("3 messages lost"), "{table}");
        let page = html::render(&report);
        assert!(page.contains("user memory &lt;RSS&gt;") && page.contains("</html>"), "{page}");
        let json: serde_json::Value = serde_json::from_slice(&serde_json::to_vec(&report).unwrap()).unwrap();
        assert_eq!(json["figures"][0]["server"], 118.0);
    }
}
