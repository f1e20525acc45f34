//! The report as a table for a terminal.

use std::fmt::Write;

use super::{
    CPU_PER_MESSAGE, Figure, Goal, PLAIN_BYTES, Report, WIRE_BYTES, WIRE_SHARE,
    summary::{Judgement, Size, Summary},
};
use crate::proc::{bystanders::Bystanders, machine::Machine};

/// The table.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}: {}", report.title, machine(&report.machine));
    let mut rows = vec![["", "server", "floor", "ratio", "goal", ""].map(str::to_owned)];
    rows.extend(report.figures.iter().map(|figure| row(figure.name.clone(), figure)));
    push_rows(&mut text, &rows);
    let mut rows = vec![["us", "count", "p50", "p90", "p99", "p99.9", "p99.99", "max"].map(str::to_owned)];
    for distribution in &report.distributions {
        let summary = &distribution.summary;
        let quantiles =
            [summary.p50_us, summary.p90_us, summary.p99_us, summary.p99_9_us, summary.p99_99_us, summary.max_us];
        let numbers = std::iter::once(summary.count).chain(quantiles).map(|number| number.to_string());
        let cells: Vec<String> = std::iter::once(distribution.name.clone()).chain(numbers).collect();
        rows.push(cells.try_into().expect("a name, a count and six quantiles are eight cells"));
    }
    push_rows(&mut text, &rows);
    for (who, caches) in [("server", &report.caches), ("floor", &report.floor_caches)] {
        if !caches.is_empty() {
            let list: Vec<String> = caches.iter().map(|cache| format!("{} {:.0}", cache.name, cache.bytes)).collect();
            let _ = writeln!(text, "kernel caches, B per connection and both its ends, {who}: {}", list.join(", "));
        }
    }
    if !report.threads.is_empty() {
        let list: Vec<String> =
            report.threads.iter().map(|thread| format!("{} {:.0} ms", thread.name, thread.ns as f64 / 1e6)).collect();
        let _ = writeln!(text, "CPU by thread: {}", list.join(", "));
    }
    let _ = writeln!(text, "{}", bystanders(&report.bystanders));
    for problem in &report.problems {
        let _ = writeln!(text, "PROBLEM: {problem}");
    }
    text
}

/// The tables of several runs.
pub fn render_summary(summary: &Summary) -> String {
    let mut text = String::new();
    let heading = summary.reports.first().map(|report| machine(&report.machine)).unwrap_or_default();
    let _ = writeln!(text, "{}: {heading}", summary.subject);
    let mut rows = vec![["goal", "measured", "floor", "ratio", "goal", ""].map(str::to_owned)];
    for Judgement { run, figure, .. } in &summary.goals {
        rows.push(row(format!("{run}: {}", figure.name), figure));
    }
    push_rows(&mut text, &rows);
    push_rows(&mut text, &wire_rows(&summary.reports));
    for growth in &summary.growth {
        let mut rows = vec![["", "server", "floor", "ratio"].map(str::to_owned)];
        rows[0][0] = format!("{}, {}, at connections", growth.name, growth.unit);
        for Size { connections, server, floor, ratio } in &growth.sizes {
            rows.push([connections.to_string(), number(*server), number(*floor), format!("{ratio:.2}")]);
        }
        push_rows(&mut text, &rows);
    }
    for report in &summary.reports {
        let _ = writeln!(text, "{}: {}", report.title, bystanders(&report.bystanders));
    }
    for problem in &summary.problems {
        let _ = writeln!(text, "PROBLEM: {problem}");
    }
    text
}

/// What came over the wire, and at what cost, where compression was offered.
fn wire_rows(reports: &[Report]) -> Vec<[String; 5]> {
    let columns = [WIRE_BYTES, PLAIN_BYTES, WIRE_SHARE, CPU_PER_MESSAGE];
    let mut rows = vec![["", "wire, B", "uncompressed, B", "%", "CPU per message, us"].map(str::to_owned)];
    for report in reports {
        let server = |name: &str| report.figures.iter().find(|figure| figure.name == name).and_then(|one| one.server);
        if server(WIRE_BYTES).is_some() {
            let [wire, plain, share, cpu] = columns.map(|name| server(name).map(number).unwrap_or_default());
            rows.push([report.title.clone(), wire, plain, share, cpu]);
        }
    }
    rows
}

fn row(name: String, figure: &Figure) -> [String; 6] {
    [
        if figure.unit.is_empty() { name } else { format!("{name}, {}", figure.unit) },
        figure.server.map(number).unwrap_or_default(),
        figure.floor.map(number).unwrap_or_default(),
        figure.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
        figure.goal.map(goal).unwrap_or_default(),
        verdict(figure).to_owned(),
    ]
}

/// What is to be said of a figure's goal.
pub fn verdict(figure: &Figure) -> &'static str {
    match (figure.goal, figure.meets_goal()) {
        (None, _) => "",
        (Some(_), Some(true)) => "met",
        (Some(_), Some(false)) => "MISSED",
        (Some(_), None) => "not measured",
    }
}

/// A machine in one line.
pub fn machine(machine: &Machine) -> String {
    let Machine { processor, cores, memory_bytes, kernel, is_virtual } = machine;
    let memory = *memory_bytes as f64 / f64::from(1 << 30);
    let kind = if *is_virtual { " (virtual)" } else { "" };
    format!("Linux {kernel}, {cores} cores, {processor}{kind}, {memory:.0} GiB")
}

/// What else ran, in one line.
pub fn bystanders(bystanders: &Bystanders) -> String {
    let Bystanders { load_average, cores_busy, cores_stolen, busiest } = bystanders;
    let names = if busiest.is_empty() { String::new() } else { format!(" ({})", busiest.join(", ")) };
    format!(
        "meanwhile others kept {cores_busy:.2} cores busy{names}, {cores_stolen:.2} went to other machines; \
         load average before: {load_average:.2}"
    )
}

/// Columns as wide as their widest cell; the first one to the left, numbers to the right.
fn push_rows<const COLUMNS: usize>(text: &mut String, rows: &[[String; COLUMNS]]) {
    if rows.len() < 2 {
        return;
    }
    let widths: Vec<usize> =
        (0..COLUMNS).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or_default()).collect();
    for row in rows {
        let _ = write!(text, "  {:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
}

/// Three significant digits at least, none after the point for large numbers.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        0.0..0.1 => format!("{value:.4}"),
        0.1..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A goal in a few letters.
pub fn goal(goal: Goal) -> String {
    match goal {
        Goal::Value(value) => format!("<= {}", number(value)),
        Goal::Ratio(ratio) => format!("<= {ratio:.2} x"),
    }
}
