//! `[tracing]`: which publications leave a trace, and who is told.

use super::Secret;

/// Traces of publications, told to a collector of OpenTelemetry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TracingConfig {
    /// Where spans go, by OTLP over HTTP; none: nothing is traced.
    pub endpoint: Option<String>,
    /// One publication in so many is traced; 0: only those whose producers ask for it. Default 1,000.
    pub sample_one_in: u32,
    /// Traces that one thread begins in a second. Default 100.
    pub traces_per_second_max: u32,
    /// What the server is called. Default "tidegate".
    pub service_name: Option<String>,
    /// Header fields that each request to the collector bears: `Name: value`.
    pub headers: Vec<Secret>,
    /// Whether spans say the whole name of a channel, or its namespace alone. Default false.
    pub include_channel: bool,
}

impl TracingConfig {
    /// Whether anything is traced.
    pub fn is_on(&self) -> bool {
        self.endpoint.is_some()
    }

    /// The header fields, by name and value; none: one has no colon.
    pub fn header_fields(&self) -> Option<Vec<(&str, &str)>> {
        let fields = self.headers.iter().map(|field| {
            let (name, value) = field.split_once(':')?;
            Some((name.trim(), value.trim()))
        });
        fields.collect()
    }
}
