//! The server's own counters, from its /metrics (Prometheus text).

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Counters at one moment, summed over their labels.
#[derive(Debug, Default)]
pub struct Metrics {
    sums: BTreeMap<String, f64>,
}

impl Metrics {
    /// The present counters; none where there is no such port, as with other servers.
    pub fn fetch(address: SocketAddr) -> Option<Metrics> {
        let timeout = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&address, timeout).ok()?;
        stream.set_read_timeout(Some(timeout)).ok()?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).ok()?;
        response.starts_with("HTTP/1.1 200").then(|| parse(&response))
    }

    /// What a counter has counted since `earlier`, all labels together.
    pub fn since(&self, earlier: &Metrics, name: &str) -> f64 {
        let value = |metrics: &Metrics| metrics.sums.get(name).copied().unwrap_or_default();
        value(self) - value(earlier)
    }
}

fn parse(text: &str) -> Metrics {
    let mut sums = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let name = series.split('{').next().unwrap_or_default();
        if let Ok(value) = value.parse::<f64>() {
            *sums.entry(name.to_owned()).or_default() += value;
        }
    }
    Metrics { sums }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_summed() {
        let before = parse("# HELP a b\na_total{shard=\"0\"} 1\na_total{shard=\"1\"} 2\n");
        let after = parse("a_total{shard=\"0\"} 5\na_total{shard=\"1\"} 7\nb 1e3\n");
        assert_eq!(after.since(&before, "a_total"), 9.0);
        assert_eq!(after.since(&before, "b"), 1000.0);
        assert_eq!(after.since(&before, "c"), 0.0);
    }
}
