//! The report as a table for a terminal.

use std::fmt::Write;

use super::{Goal, Report};

/// The table.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let machine = &report.machine;
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{}: Linux {}, {} cores, {}{}",
        report.scenario,
        machine.kernel,
        machine.cores,
        machine.processor,
        if machine.is_virtual { " (virtual)" } else { "" }
    );
    let mut rows = vec![["", "server", "floor", "ratio", "goal", ""].map(str::to_owned)];
    for figure in &report.figures {
        rows.push([
            if figure.unit.is_empty() { figure.name.clone() } else { format!("{}, {}", figure.name, figure.unit) },
            figure.server.map(number).unwrap_or_default(),
            figure.floor.map(number).unwrap_or_default(),
            figure.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            figure.goal.map(goal).unwrap_or_default(),
            figure.meets_goal().map(|met| if met { "met" } else { "MISSED" }).unwrap_or_default().to_owned(),
        ]);
    }
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
    for problem in &report.problems {
        let _ = writeln!(text, "PROBLEM: {problem}");
    }
    text
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
