//! What `/metrics` says: the Prometheus text format, read.

use std::collections::BTreeMap;

/// One reading of all metrics.
pub struct Metrics {
    samples: Vec<Sample>,
}

struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads the text format. A line that is not one of it fails the test.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self { samples: lines.map(parse_sample).collect() }
    }

    /// The sum of a metric's samples that bear all these labels; none if there is no such sample.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let values: Vec<f64> = self
            .samples
            .iter()
            .filter(|sample| sample.name == name && sample.bears(labels))
            .map(|sample| sample.value)
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// Samples of a metric by one of their labels.
    pub fn by_label(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut values = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| sample.name == name) {
            if let Some(label) = sample.labels.get(label) {
                *values.entry(label.clone()).or_default() += sample.value;
            }
        }
        values
    }

    /// How often something was refused or ended for a reason, whatever it was that it happened to.
    pub fn reason(&self, reason: &str) -> u64 {
        let bearers = self.samples.iter().filter(|sample| sample.bears(&[("reason", reason)]));
        bearers.map(|sample| sample.value as u64).sum()
    }
}

impl Sample {
    fn bears(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.labels.get(*name).is_some_and(|own| own == value))
    }
}

/// `name{label="value",...} 1.5`
fn parse_sample(line: &str) -> Sample {
    let invalid = || panic!("not a line of the Prometheus text format: {line:?}");
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(invalid);
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, labels)) => (name, labels.strip_suffix('}').unwrap_or_else(|| invalid().0)),
    };
    Sample {
        name: name.to_owned(),
        labels: labels.split_terminator("\",").filter_map(parse_label).collect(),
        value: value.parse().unwrap_or_else(|_| panic!("not a number: {line:?}")),
    }
}

fn parse_label(label: &str) -> Option<(String, String)> {
    let (name, value) = label.split_once("=\"")?;
    Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
}
