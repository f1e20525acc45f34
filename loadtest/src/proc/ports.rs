//! How many ports the kernel gives to outgoing connections, from /proc/sys/net/ipv4/ip_local_port_range.

use std::fs;

/// The kernel's own range, where it does not say: 32768 to 60999.
const USUAL: u32 = 28_232;

/// Connections that one address can make to another: most of the range, so that ports that others hold are left.
pub fn usable() -> u32 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
    most_of(range.as_deref().and_then(parse).unwrap_or(USUAL))
}

/// `32768\t60999`: both ends belong to it.
fn parse(text: &str) -> Option<u32> {
    let mut ends = text.split_ascii_whitespace().map_while(|word| word.parse::<u32>().ok());
    let (first, last) = (ends.next()?, ends.next()?);
    Some((last + 1).saturating_sub(first))
}

fn most_of(ports: u32) -> u32 {
    (ports / 4 * 3).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_counted() {
        assert_eq!(parse("32768\t60999\n"), Some(USUAL));
        assert_eq!(parse("40000 40000"), Some(1));
        assert_eq!((parse(""), parse("x 1"), parse("2 0")), (None, None, Some(0)));
        assert_eq!((most_of(USUAL), most_of(0)), (21_174, 1));
        assert!(usable() > 0);
    }
}
