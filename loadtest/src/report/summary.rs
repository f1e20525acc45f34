//! Several runs put together: every goal in one table, growth over the number of connections, and
//! the runs themselves below, on one page.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{CONNECTIONS, CPU_PER_MESSAGE, Figure, Goal, MEMORY, Report, USER_MEMORY, html, table};
use crate::{arguments::SummaryArguments, watch::Point};

/// Figures whose growth is looked at.
const GROWING: [&str; 2] = [MEMORY, CPU_PER_MESSAGE];

/// By how much the server's figure may grow beside the floor's: two runs of one thing differ by as much.
const GROWTH_RATIO_MAX: f64 = 1.05;

/// Figures of two servers that are compared, and how many times the first's the second's may be. Memory is told in pages,
/// and what a shard has once counts for all connections: with thousands of them, both are within this.
const COMPARED: [(&str, f64); 2] = [(CPU_PER_MESSAGE, 1.0), (USER_MEMORY, 1.05)];

/// Points of a plot that are kept: as many as are seen.
const POINTS_MAX: usize = 120;

/// The runs.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// What was measured.
    pub subject: String,
    /// What went wrong in the runs.
    pub problems: Vec<String>,
    /// Every goal.
    pub goals: Vec<Judgement>,
    /// Growth, a table per figure.
    pub growth: Vec<Growth>,
    /// The runs.
    pub reports: Vec<Report>,
}

/// How near a run came to a goal.
#[derive(Debug, Serialize)]
pub struct Judgement {
    /// Title of the run.
    pub run: String,
    /// The number, the floor's, and the goal.
    #[serde(flatten)]
    pub figure: Figure,
    /// The server's value over the floor's.
    pub ratio: Option<f64>,
    /// Whether the goal is met; none if that cannot be told.
    pub is_met: Option<bool>,
}

/// One figure at several numbers of connections.
#[derive(Debug, Serialize)]
pub struct Growth {
    /// The figure.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// The figure at each size, the smallest first.
    pub sizes: Vec<Size>,
}

/// A figure at one size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Size {
    /// Number of connections.
    pub connections: f64,
    /// The server's value.
    pub server: f64,
    /// The floor's.
    pub floor: f64,
    /// The one over the other.
    pub ratio: f64,
}

impl Summary {
    /// Reads the reports and puts them together.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn of(arguments: &SummaryArguments) -> Result<Summary> {
        let grown = arguments.growth.iter().chain(&arguments.no_more_than).flat_map(|list| &list.0);
        let paths: Vec<&PathBuf> = arguments.reports.iter().chain(grown).collect();
        let mut reports = BTreeMap::new();
        for &path in &paths {
            reports.insert(path, Report::read(path)?);
        }
        let mut goals: Vec<Judgement> = arguments.reports.iter().flat_map(|path| judge(&reports[path])).collect();
        let (mut growth, mut problems) = (Vec::new(), Vec::new());
        for list in &arguments.growth {
            let sizes: Vec<&Report> = list.0.iter().map(|path| &reports[path]).collect();
            let tables: Vec<Growth> = GROWING.iter().filter_map(|name| Growth::of(name, &sizes)).collect();
            if tables.is_empty() {
                let titles: Vec<&str> = sizes.iter().map(|report| report.title.as_str()).collect();
                problems.push(format!("{}: not all have a figure that could have grown", titles.join(", ")));
            }
            growth.extend(tables);
        }
        goals.extend(growth.iter().map(Growth::judge));
        for list in &arguments.no_more_than {
            let (first, others) = list.0.split_first().expect("a list has two reports at least");
            goals.extend(others.iter().flat_map(|other| compare(&reports[first], &reports[other])));
        }
        let mut reports: Vec<Report> = paths.into_iter().filter_map(|path| reports.remove(path)).collect();
        for report in &mut reports {
            thin_out(&mut report.points);
            thin_out(&mut report.floor_points);
            problems.extend(report.problems.iter().map(|problem| format!("{}: {problem}", report.title)));
        }
        Ok(Summary { subject: arguments.subject.clone(), problems, goals, growth, reports })
    }

    /// The tables, for a terminal.
    pub fn table(&self) -> String {
        table::render_summary(self)
    }

    /// Writes the files that were asked for. Points in time are on the page alone.
    ///
    /// # Errors
    /// If one cannot be written.
    pub fn write(mut self, json: Option<&Path>, page: Option<&Path>) -> Result<()> {
        if let Some(path) = page {
            fs::write(path, html::render_summary(&self)).with_context(|| format!("{}", path.display()))?;
        }
        if let Some(path) = json {
            for report in &mut self.reports {
                report.points.clear();
                report.floor_points.clear();
            }
            fs::write(path, serde_json::to_vec_pretty(&self)?).with_context(|| format!("{}", path.display()))?;
        }
        Ok(())
    }
}

/// The goals of one run.
fn judge(report: &Report) -> Vec<Judgement> {
    let figures = report.figures.iter().filter(|figure| figure.goal.is_some());
    figures.map(|figure| Judgement::new(report.title.clone(), figure.clone())).collect()
}

/// What two servers cost, in the same figures: the second may cost no more than the first.
fn compare(first: &Report, second: &Report) -> Vec<Judgement> {
    let judgement = |&(name, ratio): &(&str, f64)| {
        let find = |report: &Report| report.figures.iter().find(|figure| figure.name == name).cloned();
        let (before, after) = (find(first)?, find(second)?);
        let figure = Figure { floor: before.server, goal: Some(Goal::Ratio(ratio)), ..after };
        Some(Judgement::new(format!("{} over {}", second.title, first.title), figure))
    };
    COMPARED.iter().filter_map(judgement).collect()
}

impl Judgement {
    fn new(run: String, figure: Figure) -> Judgement {
        Judgement { run, ratio: figure.ratio(), is_met: figure.meets_goal(), figure }
    }
}

impl Growth {
    /// How a figure grows; none unless every report has it, the server's and the floor's.
    fn of(name: &str, reports: &[&Report]) -> Option<Growth> {
        let find = |report: &Report, name: &str| report.figures.iter().find(|figure| figure.name == name).cloned();
        let size = |report: &&Report| {
            let figure = find(report, name)?;
            let connections = find(report, CONNECTIONS)?.server?;
            Some(Size { connections, server: figure.server?, floor: figure.floor?, ratio: figure.ratio()? })
        };
        let sizes = reports.iter().map(size).collect::<Option<Vec<Size>>>()?;
        let unit = find(reports.first()?, name)?.unit.into_owned();
        Some(Growth { name: name.to_owned(), unit, sizes })
    }

    /// The largest size beside the smallest: the server must not grow faster than the floor.
    fn judge(&self) -> Judgement {
        let (first, last) = (self.sizes[0], self.sizes[self.sizes.len() - 1]);
        let figure = Figure {
            name: format!("{}, {} connections over {}", self.name, last.connections, first.connections),
            unit: "times".into(),
            server: Some(last.server / first.server),
            floor: Some(last.floor / first.floor),
            goal: Some(Goal::Ratio(GROWTH_RATIO_MAX)),
        };
        Judgement::new("growth".to_owned(), figure)
    }
}

fn thin_out(points: &mut Vec<Point>) {
    let step = points.len().div_ceil(POINTS_MAX).max(1);
    let mut index = 0;
    points.retain(|_| {
        index += 1;
        index % step == 0
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::ReportList;

    fn report(title: &str, connections: f64, server: f64, floor: f64) -> Report {
        let mut report = Report::new("idle");
        report.title = title.to_owned();
        report.set_server(CONNECTIONS, "", connections);
        report.set_goal(MEMORY, "B", Goal::Ratio(1.1));
        report.set_server(MEMORY, "B", server);
        report.set_floor(MEMORY, "B", floor);
        // The second costs a little less CPU and more memory.
        let is_second = connections > 1_000.0;
        report.set_server(CPU_PER_MESSAGE, "us", if is_second { 4.0 } else { 5.0 });
        report.set_server(USER_MEMORY, "B", if is_second { 76.0 } else { 71.0 });
        report
    }

    #[test]
    fn reports_become_tables_and_a_page() {
        let folder = std::env::temp_dir().join(format!("tidegate-loadtest-summary-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut broken = report("<large>", 18_000.0, 5_200.0, 4_000.0);
        broken.problems.push("the server is gone".to_owned());
        let write = |name: &str, report: &Report| {
            let path = folder.join(name);
            report.write(Some(&path), None).unwrap();
            path
        };
        let paths = vec![write("small", &report("small", 1_000.0, 4_200.0, 4_000.0)), write("large", &broken)];
        let arguments = SummaryArguments {
            reports: paths.clone(),
            growth: vec![ReportList(paths.clone())],
            no_more_than: vec![ReportList(paths)],
            subject: "a & b".to_owned(),
            json: None,
            html: None,
        };
        let summary = Summary::of(&arguments).unwrap();
        let met: Vec<_> = summary.goals.iter().map(|goal| goal.is_met).collect();
        assert_eq!(met, [Some(true), Some(false), Some(false), Some(true), Some(false)]);
        assert_eq!((summary.goals[3].figure.floor, summary.goals[3].figure.server), (Some(5.0), Some(4.0)));
        assert_eq!(summary.goals[4].run, "<large> over small");
        let growth = summary.goals[2].ratio.unwrap();
        assert!((growth - 5_200.0 / 4_200.0).abs() < 1e-9, "{growth}");
        assert_eq!(summary.problems, ["<large>: the server is gone"]);
        let table = summary.table();
        assert!(table.contains("MISSED") && table.contains("18000") && table.contains("is gone"), "{table}");
        let (json, page) = (folder.join("json"), folder.join("html"));
        summary.write(Some(&json), Some(&page)).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
        assert_eq!((&json["goals"][0]["floor"], &json["goals"][0]["is_met"]), (&4_000.0.into(), &true.into()));
        let page = fs::read_to_string(page).unwrap();
        assert!(page.contains("a &amp; b") && page.contains("&lt;large&gt;") && page.ends_with("</html>\n"), "{page}");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_figure_that_is_missing_has_no_growth_and_is_told() {
        let path = std::env::temp_dir().join(format!("tidegate-loadtest-without-{}", std::process::id()));
        let mut without = report("disturbed", 1.0, 1.0, 1.0);
        without.figures.iter_mut().for_each(|figure| figure.floor = None);
        without.write(Some(&path), None).unwrap();
        let arguments = SummaryArguments {
            reports: vec![path.clone()],
            growth: vec![ReportList(vec![path.clone(), path.clone()])],
            no_more_than: Vec::new(),
            subject: String::new(),
            json: None,
            html: None,
        };
        let summary = Summary::of(&arguments).unwrap();
        fs::remove_file(path).unwrap();
        assert!(summary.growth.is_empty() && summary.problems[0].contains("disturbed"), "{:?}", summary.problems);
        assert_eq!(summary.goals[0].is_met, None);
        assert!(summary.table().contains("not measured"));
    }
}
