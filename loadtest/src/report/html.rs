//! The report as one self-contained page: tables, and plots in SVG. No script, no style from elsewhere.

use std::fmt::Write;

use super::{
    Figure, Report,
    summary::{Growth, Size, Summary},
    table::{bystanders, goal, machine, number, verdict},
};
use crate::watch::Point;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 240.0;
const MARGIN_LEFT: f64 = 70.0;
const MARGIN_BOTTOM: f64 = 24.0;
const MARGIN_TOP: f64 = 10.0;

/// The page of one run.
pub fn render(report: &Report) -> String {
    let mut page = String::from(HEAD);
    // Writing to a String cannot fail.
    let _ = write!(page, "<h1>{}</h1><p>{}</p>", escape(&report.title), escape(&machine(&report.machine)));
    push_report(&mut page, report);
    page.push_str("</body></html>\n");
    page
}

/// The page of several runs.
pub fn render_summary(summary: &Summary) -> String {
    let mut page = String::from(HEAD);
    let _ = write!(page, "<h1>{}</h1>", escape(&summary.subject));
    if let Some(report) = summary.reports.first() {
        let _ = write!(page, "<p>{}</p>", escape(&machine(&report.machine)));
    }
    for problem in &summary.problems {
        let _ = write!(page, "<p class=missed>{}</p>", escape(problem));
    }
    page.push_str("<h2>Goals</h2>");
    let goals = summary.goals.iter();
    push_figures(&mut page, goals.map(|goal| (format!("{}: {}", goal.run, goal.figure.name), &goal.figure)));
    for Growth { name, unit, sizes } in &summary.growth {
        let _ = write!(page, "<h2>Growth: {}, {}</h2>", escape(name), escape(unit));
        page.push_str("<table><tr><th>connections</th><th>server</th><th>floor</th><th>ratio</th></tr>");
        for Size { connections, server, floor, ratio } in sizes {
            let (server, floor) = (number(*server), number(*floor));
            let _ = write!(page, "<tr><td>{connections}</td><td>{server}</td><td>{floor}</td><td>{ratio:.2}</td></tr>");
        }
        page.push_str("</table>");
    }
    page.push_str("<h2>Runs</h2>");
    for report in &summary.reports {
        let _ = write!(page, "<details><summary>{}</summary>", escape(&report.title));
        push_report(&mut page, report);
        page.push_str("</details>");
    }
    page.push_str("</body></html>\n");
    page
}

fn push_report(page: &mut String, report: &Report) {
    let _ = write!(
        page,
        "<p><code>tidegate-loadtest {}</code></p><p>{}</p>",
        escape(&report.command.join(" ")),
        escape(&bystanders(&report.bystanders)),
    );
    for problem in &report.problems {
        let _ = write!(page, "<p class=missed>{}</p>", escape(problem));
    }
    push_figures(page, report.figures.iter().map(|figure| (figure.name.clone(), figure)));
    push_distributions(page, report);
    push_caches(page, report);
    for (who, points) in [("server", &report.points), ("floor", &report.floor_points)] {
        push_plots(page, who, points);
    }
}

fn push_figures<'a>(page: &mut String, figures: impl Iterator<Item = (String, &'a Figure)>) {
    page.push_str("<table><tr><th></th><th>measured</th><th>floor</th><th>ratio</th><th>goal</th><th></th></tr>");
    for (name, figure) in figures {
        let class = if figure.goal.is_some() && figure.meets_goal() != Some(true) { "missed" } else { "" };
        let unit = if figure.unit.is_empty() { String::new() } else { format!(", {}", figure.unit) };
        let _ = write!(
            page,
            "<tr class='{class}'><td>{}{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&name),
            escape(&unit),
            figure.server.map(number).unwrap_or_default(),
            figure.floor.map(number).unwrap_or_default(),
            figure.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            escape(&figure.goal.map(goal).unwrap_or_default()),
            verdict(figure),
        );
    }
    page.push_str("</table>");
}

fn push_distributions(page: &mut String, report: &Report) {
    if report.distributions.is_empty() {
        return;
    }
    page.push_str("<table><tr><th>&micro;s</th>");
    for title in ["count", "p50", "p90", "p99", "p99.9", "p99.99", "max"] {
        let _ = write!(page, "<th>{title}</th>");
    }
    for distribution in &report.distributions {
        let summary = &distribution.summary;
        let _ = write!(page, "</tr><tr><td>{}</td>", escape(&distribution.name));
        let quantiles =
            [summary.p50_us, summary.p90_us, summary.p99_us, summary.p99_9_us, summary.p99_99_us, summary.max_us];
        for value in std::iter::once(summary.count).chain(quantiles) {
            let _ = write!(page, "<td>{value}</td>");
        }
    }
    page.push_str("</tr></table>");
}

fn push_caches(page: &mut String, report: &Report) {
    for (who, caches) in [("server", &report.caches), ("floor", &report.floor_caches)] {
        if caches.is_empty() {
            continue;
        }
        let _ = write!(page, "<h3>Kernel caches, {who}</h3><p>Bytes per connection, both ends of it.</p><table>");
        for cache in caches {
            let _ = write!(page, "<tr><td>{}</td><td>{:.0}</td></tr>", escape(&cache.name), cache.bytes);
        }
        page.push_str("</table>");
    }
    if !report.threads.is_empty() {
        page.push_str("<h3>CPU by thread</h3><table>");
        for thread in &report.threads {
            let _ = write!(page, "<tr><td>{}</td><td>{:.1} ms</td></tr>", escape(&thread.name), thread.ns as f64 / 1e6);
        }
        page.push_str("</table>");
    }
}

/// A line of a plot: its name, its colour, its values.
struct Line<'a> {
    name: &'a str,
    colour: &'a str,
    values: Vec<(f64, f64)>,
}

fn push_plots(page: &mut String, who: &str, points: &[Point]) {
    if points.len() < 2 {
        return;
    }
    let over_time = |value: &dyn Fn(&Point) -> Option<f64>| -> Vec<(f64, f64)> {
        points.iter().filter_map(|point| value(point).map(|value| (point.seconds, value))).collect()
    };
    let milliseconds = |us: Option<u64>| us.map(|us| us as f64 / 1000.0);
    let line = |name, colour, values| Line { name, colour, values };
    let latency = [
        line("p50", "#2a7", over_time(&|point| milliseconds(point.latency_p50_us))),
        line("p99", "#d80", over_time(&|point| milliseconds(point.latency_p99_us))),
        line("max", "#c33", over_time(&|point| milliseconds(point.latency_max_us))),
    ];
    push_plot(page, &format!("Latency, ms, {who}"), "s", &latency);
    let rate = [line("messages per second", "#27c", over_time(&|point| Some(point.messages_per_second)))];
    push_plot(page, &format!("Messages received per second, {who}"), "s", &rate);
    let busy = [line("cores busy", "#27c", over_time(&|point| point.cores_busy))];
    push_plot(page, &format!("Cores kept busy, {who}"), "s", &busy);
    let memory = points
        .iter()
        .filter_map(|point| Some((f64::from(point.connections), point.resident_bytes? as f64 / f64::from(1 << 20))))
        .collect();
    push_plot(page, &format!("Resident memory, MiB, over connections, {who}"), "", &[line("RSS", "#27c", memory)]);
}

fn push_plot(page: &mut String, title: &str, unit: &str, lines: &[Line<'_>]) {
    let all = || lines.iter().flat_map(|line| &line.values);
    let right = all().map(|value| value.0).fold(0.0, f64::max);
    let top = all().map(|value| value.1).fold(0.0, f64::max);
    if all().count() < 2 || right <= 0.0 || top <= 0.0 {
        return;
    }
    let x = |value: f64| MARGIN_LEFT + value / right * (WIDTH - MARGIN_LEFT - 10.0);
    let y = |value: f64| MARGIN_TOP + (1.0 - value / top) * (HEIGHT - MARGIN_TOP - MARGIN_BOTTOM);
    let _ = write!(page, "<h3>{}</h3><svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img>", escape(title));
    for part in 0..=4 {
        let value = top * f64::from(part) / 4.0;
        let _ = write!(
            page,
            "<line x1='{MARGIN_LEFT}' x2='{WIDTH}' y1='{0:.1}' y2='{0:.1}' stroke='#8884'/>\
             <text x='{1}' y='{2:.1}' text-anchor='end'>{3}</text>",
            y(value),
            MARGIN_LEFT - 6.0,
            y(value) + 4.0,
            number(value)
        );
        let value = right * f64::from(part) / 4.0;
        let _ = write!(
            page,
            "<text x='{:.1}' y='{}' text-anchor='middle'>{} {unit}</text>",
            x(value).min(WIDTH - 24.0),
            HEIGHT - 6.0,
            number(value)
        );
    }
    for (index, line) in lines.iter().enumerate() {
        let path: Vec<String> =
            line.values.iter().map(|&(at, value)| format!("{:.1},{:.1}", x(at), y(value))).collect();
        let _ = write!(
            page,
            "<polyline points='{}' fill='none' stroke='{}' stroke-width='1.5'/>\
             <text x='{}' y='{}' fill='{}' class=name>{}</text>",
            path.join(" "),
            line.colour,
            MARGIN_LEFT + 10.0,
            MARGIN_TOP + 14.0 + 14.0 * index as f64,
            line.colour,
            escape(line.name)
        );
    }
    page.push_str("</svg>");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const HEAD: &str = "<!doctype html><html lang=en><head><meta charset=utf-8>\
    <meta name=viewport content='width=device-width'><title>tidegate-loadtest</title><style>\
    :root{color-scheme:light dark}body{font:15px/1.45 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em}\
    h1{font-size:1.4em}h2{font-size:1.15em;margin-top:2em}h3{font-size:1em;margin-top:1.5em}summary{cursor:pointer;margin:.4em 0}table{border-collapse:collapse;margin:1em 0}\
    td,th{padding:.2em .9em .2em 0;text-align:right;border-bottom:1px solid #8883}td:first-child,th:first-child{text-align:left}\
    .missed{color:#c33;font-weight:600}code{overflow-wrap:anywhere}svg{width:100%}svg text{font-size:11px;fill:#888}\
    </style></head><body>";
