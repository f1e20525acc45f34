//! How many TCP sockets the kernel holds, from /proc/net/sockstat.

use std::fs;

/// Allocated TCP sockets, in any state; none if the kernel does not say.
pub fn tcp_sockets() -> Option<u64> {
    parse(&fs::read_to_string("/proc/net/sockstat").ok()?)
}

/// `TCP: inuse 6 orphan 0 tw 3 alloc 9 mem 1`
fn parse(text: &str) -> Option<u64> {
    let mut words = text.lines().find_map(|line| line.strip_prefix("TCP:"))?.split_ascii_whitespace();
    words.find(|&word| word == "alloc")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocated_sockets_are_counted() {
        assert_eq!(parse("sockets: used 62\nTCP: inuse 6 orphan 0 tw 3 alloc 9 mem 1\nUDP: inuse 0 mem 0\n"), Some(9));
        assert_eq!(parse("UDP: inuse 0 mem 0\n"), None);
        assert!(tcp_sockets().is_some());
    }
}
