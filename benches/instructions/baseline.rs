//! The baseline: a file of counts, and what to think of new ones.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

/// Percent by which an operation may grow. Counts of one source and one compiler are alike; this leaves room for what a
/// change elsewhere does to inlining.
const GROWTH_PERCENT_MAX: f64 = 3.0;

/// Instructions per operation, by name.
pub type Counts = BTreeMap<String, f64>;

/// What the committed file says.
pub struct Baseline {
    /// The tools that the counts depend on.
    pub conditions: String,
    /// The counts.
    pub counts: Counts,
}

const CONDITIONS: &str = "counted with ";

impl Baseline {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        let mut baseline = Self { conditions: String::new(), counts: Counts::new() };
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            if let Some(conditions) = line.strip_prefix(CONDITIONS) {
                baseline.conditions = conditions.to_owned();
                continue;
            }
            let count = line.split_once(' ').and_then(|(name, count)| Some((name, count.trim().parse().ok()?)));
            let (name, count) = count.ok_or(format!("{}: not a name and a count: {line}", path.display()))?;
            baseline.counts.insert(name.to_owned(), count);
        }
        Ok(baseline)
    }

    /// What the file should say.
    pub fn text(&self) -> String {
        let mut text = "# Instructions per operation, counted by callgrind: `make bench-instructions` fails where they have grown.\n\
            # When that is meant, `make bench-instructions UPDATE=1` writes this file anew.\n"
            .to_owned();
        let _ = writeln!(text, "{CONDITIONS}{}\n", self.conditions);
        for (name, count) in &self.counts {
            let _ = writeln!(text, "{name:<40} {count:>10.2}");
        }
        text
    }

    /// New counts beside those of the file.
    pub fn table(&self, counts: &Counts) -> String {
        let mut table = format!("{:<40} {:>10} {:>10} {:>9}\n", "instructions per", "now", "baseline", "change");
        for (name, &count) in counts {
            let _ = match self.counts.get(name) {
                Some(&before) => {
                    writeln!(table, "{name:<40} {count:>10.1} {before:>10.1} {:>+8.1}%", percent(before, count))
                }
                None => writeln!(table, "{name:<40} {count:>10.1} {:>10} {:>9}", "-", "-"),
            };
        }
        table
    }

    /// Operations that have grown, and those that only one side knows.
    pub fn mistakes(&self, counts: &Counts) -> Vec<String> {
        let mut mistakes = Vec::new();
        for (name, &count) in counts {
            match self.counts.get(name) {
                None => mistakes.push(format!("{name}: {count:.1}, and the baseline does not know it")),
                Some(&before) if percent(before, count) > GROWTH_PERCENT_MAX => mistakes.push(format!(
                    "{name}: {count:.1} instead of {before:.1}, {:+.1} % where {GROWTH_PERCENT_MAX} % are allowed",
                    percent(before, count)
                )),
                Some(_) => {}
            }
        }
        let gone = self.counts.keys().filter(|name| !counts.contains_key(*name));
        mistakes.extend(gone.map(|name| format!("{name}: in the baseline, but no operation has that name")));
        mistakes
    }
}

fn percent(before: f64, now: f64) -> f64 {
    (now / before - 1.0) * 100.0
}
