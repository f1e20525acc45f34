//! The examination's outcome: ceilings, lowest first, the other settings, and the verdict.

use std::fmt::Write;

use serde::Serialize;

use super::{
    demand::Demand,
    finding::{Finding, Remedy, State},
    quantity::{about, count},
    recommendation::sysctl_lines,
};

/// What an examination came to.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Connections that were asked for.
    connections_wanted: u64,
    /// What asked for them.
    wanted_by: &'static str,
    /// Connections that the host holds; none if nothing that limits them could be read.
    connections_possible: Option<u64>,
    /// Whether the host holds what was asked for, as far as it could be read.
    is_reachable: bool,
    /// What ends the number of connections first.
    first_to_break: Option<&'static str>,
    /// One sentence on all of it.
    verdict: String,
    /// Ceilings by their number of connections, then the rest in the order of looking.
    findings: Vec<Finding>,
}

impl Report {
    /// Sorts findings and judges them.
    pub(super) fn new(demand: &Demand, mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.connections.map_or((1, 0), |connections| (0, connections)));
        let lowest = findings.first().filter(|finding| finding.connections.is_some());
        let possible = lowest.and_then(|finding| finding.connections);
        Self {
            connections_wanted: demand.connections,
            wanted_by: demand.source,
            connections_possible: possible,
            is_reachable: possible.is_none_or(|possible| possible >= demand.connections),
            first_to_break: lowest.map(|finding| finding.name),
            verdict: verdict(demand, lowest),
            findings,
        }
    }

    /// Whether the host holds what was asked for, as far as it could be read.
    pub fn is_reachable(&self) -> bool {
        self.is_reachable
    }

    /// Connections that the host holds; none if nothing that limits them could be read.
    pub fn connections_possible(&self) -> Option<u64> {
        self.connections_possible
    }

    /// What was looked at: ceilings by their number of connections, then the rest.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// One sentence on all of it.
    pub fn verdict(&self) -> &str {
        &self.verdict
    }

    /// For people: a line per finding, what mends what, and the verdict.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let width = self.findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
        for finding in &self.findings {
            let holds = finding.connections.map_or_else(|| "-".to_owned(), about);
            let (name, state) = (finding.name, finding.state.name());
            let _ = writeln!(text, "{name:width$}  {state:7}  {holds:>13}  {}", finding.found);
        }
        for (title, state) in [("To mend what is too low:", State::TooLow), ("Worth doing:", State::Advice)] {
            let mut remedies: Vec<String> = self.remedies(state).map(Remedy::text).collect();
            remedies.dedup();
            if !remedies.is_empty() {
                let _ = writeln!(text, "\n{title}\n  {}", remedies.join("\n  "));
            }
        }
        if self.findings.iter().any(|finding| matches!(finding.remedy, Some(Remedy::Sysctl(..)))) {
            text.push_str(
                "\nThe sysctls among them last until the next boot. To set them for good, with the same options:\n  \
                 tidegate doctor --sysctl > /etc/sysctl.d/90-tidegate.conf && sysctl --system\n",
            );
        }
        let _ = writeln!(text, "\n{}", self.verdict);
        text
    }

    /// For machines.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report has only numbers, texts and lists")
    }

    /// A sysctl.d file for this host: what it lacks with the values that it should have, the rest as it is, so that
    /// writing the file anew never takes away what an earlier one gave.
    pub fn sysctl_file(&self) -> String {
        let sysctls: Vec<_> = self.findings.iter().filter_map(Finding::sysctl).collect();
        format!(
            "# This host's kernel settings for {} connections ({}), by `tidegate doctor --sysctl`.\n\n{}",
            count(self.connections_wanted),
            self.wanted_by,
            sysctl_lines(&sysctls)
        )
    }

    fn remedies(&self, state: State) -> impl Iterator<Item = &Remedy> {
        self.findings.iter().filter(move |finding| finding.state == state).filter_map(|finding| finding.remedy.as_ref())
    }
}

fn verdict(demand: &Demand, lowest: Option<&Finding>) -> String {
    let wanted = format!("the {} of {}", count(demand.connections), demand.source);
    let Some((lowest, connections)) = lowest.and_then(|finding| Some((finding, finding.connections?))) else {
        return format!("Nothing that limits connections could be read here; whether {wanted} fit is unknown.");
    };
    let remedy = lowest.remedy.as_ref();
    let type_what = match remedy {
        Some(Remedy::Sysctl(..)) => "type: ",
        Some(Remedy::Command(_) | Remedy::Change(_)) | None => "",
    };
    let remedy = remedy.map(|remedy| format!("; {type_what}{}", remedy.text())).unwrap_or_default();
    if connections == 0 {
        return format!("This host holds no connection: {} ({}){remedy}", lowest.name, lowest.found);
    }
    let enough = if connections >= demand.connections { "enough for" } else { "too few for" };
    format!(
        "This host holds about {} connections, {enough} {wanted}; the first thing to break is {}{}",
        about(connections),
        lowest.name,
        if remedy.is_empty() { "." } else { &remedy }
    )
}
