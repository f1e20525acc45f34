//! The baseline: a file of counts, and what to think of new ones.

use std::{collections::BTreeMap, fmt::Write};

/// Percent by which an operation may grow. Counts of one source and one compiler are alike; this leaves room for what a
/// change elsewhere does to inlining.
const GROWTH_PERCENT_MAX: f64 = 3.0;

/// What to type when counts are meant to be what they are.
pub const UPDATE: &str =
    "to write the baseline anew, to be committed with what changed it:  make bench-instructions UPDATE=1";

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
    /// Reads the file's text; the error is the line that is none of its kind.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut baseline = Self { conditions: String::new(), counts: Counts::new() };
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            if let Some(conditions) = line.strip_prefix(CONDITIONS) {
                baseline.conditions = conditions.to_owned();
                continue;
            }
            let count = line.split_once(' ').and_then(|(name, count)| Some((name, count.trim().parse().ok()?)));
            let (name, count) = count.ok_or(format!("not a name and a count: {line}"))?;
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

    /// Operations that have grown, and those that only one side knows, with what to do about it; none if all is well.
    pub fn mistakes(&self, counts: &Counts) -> Option<String> {
        let mut grown: Vec<(&str, f64, f64)> =
            self.changes(counts).filter(|(_, before, now)| percent(*before, *now) > GROWTH_PERCENT_MAX).collect();
        grown.sort_by(|left, right| percent(right.1, right.2).total_cmp(&percent(left.1, left.2)));
        let new = counts.keys().filter(|name| !self.counts.contains_key(*name));
        let gone = self.counts.keys().filter(|name| !counts.contains_key(*name));

        let mut text = String::new();
        for (name, before, now) in &grown {
            let (more, percent) = (now - before, percent(*before, *now));
            let _ = writeln!(
                text,
                "{name} takes {more:.1} instructions more: {now:.1} instead of {before:.1}, {percent:+.1} % where {GROWTH_PERCENT_MAX} % are allowed"
            );
        }
        for name in new {
            let _ = writeln!(text, "{name} is not in the baseline");
        }
        for name in gone {
            let _ = writeln!(text, "{name} is in the baseline, but no operation has that name");
        }
        if let Some((name, ..)) = grown.first() {
            let _ = writeln!(text, "to see which functions take them:  make bench-instructions PROFILE={name}");
        }
        (!text.is_empty()).then(|| text + UPDATE)
    }

    /// Operations that have shrunk so far that they could grow again unseen; none if there is no such.
    pub fn gains(&self, counts: &Counts) -> Option<String> {
        let shrunk = self.changes(counts).filter(|(_, before, now)| percent(*before, *now) < -GROWTH_PERCENT_MAX);
        let names: Vec<&str> = shrunk.map(|(name, ..)| name).collect();
        (!names.is_empty()).then(|| format!("cheaper than the baseline knows: {}\n{UPDATE}", names.join(", ")))
    }

    /// What both sides know: names, and counts before and now.
    fn changes<'a>(&'a self, counts: &'a Counts) -> impl Iterator<Item = (&'a str, f64, f64)> {
        self.counts.iter().filter_map(|(name, before)| Some((name.as_str(), *before, *counts.get(name)?)))
    }
}

fn percent(before: f64, now: f64) -> f64 {
    (now / before - 1.0) * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[(&str, f64)]) -> Counts {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn baseline() -> Baseline {
        Baseline { conditions: "a compiler".to_owned(), counts: counts(&[("a/b", 1000.0), ("c", 50.0)]) }
    }

    #[test]
    fn a_file_says_what_was_written_to_it() {
        let read = Baseline::parse(&baseline().text()).expect("the text is one of a baseline");
        assert_eq!((read.conditions.as_str(), &read.counts), ("a compiler", &baseline().counts));
        assert_eq!(Baseline::parse("a/b 12x").err().as_deref(), Some("not a name and a count: a/b 12x"));
    }

    #[test]
    fn growth_within_the_tolerance_passes_and_growth_beyond_it_is_named() {
        let within = 1.0 + GROWTH_PERCENT_MAX / 100.0 - 0.001;
        assert_eq!(baseline().mistakes(&counts(&[("a/b", 1000.0 * within), ("c", 50.0 * within)])), None);
        let text = baseline().mistakes(&counts(&[("a/b", 1100.0), ("c", 100.0)])).expect("both have grown");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("c takes 50.0 instructions more: 100.0 instead of 50.0, +100.0 %"), "{text}");
        assert!(lines[1].starts_with("a/b takes 100.0 instructions more: 1100.0 instead of 1000.0, +10.0 %"), "{text}");
        assert!(lines[2].ends_with("make bench-instructions PROFILE=c"), "{text}");
        assert_eq!(lines[3], UPDATE);
    }

    #[test]
    fn operations_that_one_side_does_not_know_are_named() {
        let text = baseline().mistakes(&counts(&[("a/b", 1000.0), ("new", 1.0)])).expect("the names differ");
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            ["new is not in the baseline", "c is in the baseline, but no operation has that name", UPDATE]
        );
    }

    #[test]
    fn gains_are_told_and_are_no_mistake() {
        let shrunk = counts(&[("a/b", 900.0), ("c", 50.0)]);
        assert_eq!(baseline().mistakes(&shrunk), None);
        assert_eq!(baseline().gains(&shrunk), Some(format!("cheaper than the baseline knows: a/b\n{UPDATE}")));
        assert_eq!(baseline().gains(&baseline().counts), None);
    }
}
