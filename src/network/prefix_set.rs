//! Sets of prefixes, which never change: each change is a new set.

use std::net::IpAddr;

use super::prefix::{Prefix, masked};

/// Prefixes, in which the longest that holds an address is found by one search for each length that there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrefixSet {
    /// Longest first within each family; sorted by address within.
    lengths: Vec<Length>,
}

/// The prefixes of one length and family.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Length {
    is_ipv4: bool,
    length: u8,
    addresses: Vec<IpAddr>,
}

impl PrefixSet {
    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The longest of its prefixes that holds the address.
    pub fn find(&self, address: IpAddr) -> Option<Prefix> {
        let address = address.to_canonical();
        self.lengths.iter().filter(|length| length.is_ipv4 == address.is_ipv4()).find_map(|length| {
            let prefix = masked(address, length.length);
            length.addresses.binary_search(&prefix).ok()?;
            Prefix::around(address, length.length)
        })
    }

    /// Whether one of its prefixes holds the address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.find(address).is_some()
    }
}

impl FromIterator<Prefix> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = Prefix>>(prefixes: I) -> Self {
        let mut prefixes: Vec<Prefix> = prefixes.into_iter().collect();
        prefixes.sort_unstable_by_key(|prefix| {
            (prefix.address().is_ipv6(), std::cmp::Reverse(prefix.length()), prefix.address())
        });
        prefixes.dedup();
        let mut lengths: Vec<Length> = Vec::new();
        for prefix in prefixes {
            let (is_ipv4, length) = (prefix.address().is_ipv4(), prefix.length());
            match lengths.last_mut() {
                Some(last) if last.is_ipv4 == is_ipv4 && last.length == length => last.addresses.push(prefix.address()),
                _ => lengths.push(Length { is_ipv4, length, addresses: vec![prefix.address()] }),
            }
        }
        Self { lengths }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(prefixes: &[&str]) -> PrefixSet {
        prefixes.iter().map(|prefix| prefix.parse::<Prefix>().unwrap()).collect()
    }

    #[test]
    fn the_longest_prefix_is_found() {
        let set = set(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "::/0", "2001:db8::/32"]);
        let found = |address: &str| set.find(address.parse().unwrap()).map(|prefix| prefix.to_string());
        assert_eq!(found("10.1.2.3").as_deref(), Some("10.1.2.3"));
        assert_eq!(found("::ffff:10.1.2.4").as_deref(), Some("10.1.0.0/16"));
        assert_eq!(found("10.9.9.9").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(found("11.0.0.1"), None);
        assert_eq!(found("2001:db8::1").as_deref(), Some("2001:db8::/32"));
        assert_eq!(found("fe80::1").as_deref(), Some("::/0"));
        assert!(PrefixSet::default().is_empty() && !set.is_empty());
    }

    proptest! {
        #[test]
        fn the_set_agrees_with_a_search_of_all(
            prefixes in prop::collection::vec((any::<bool>(), 0..16_u128, 0..=128_u8), 0..20),
            asked in prop::collection::vec((any::<bool>(), 0..16_u128), 1..20),
        ) {
            // Few high bits, so that prefixes hold each other and the addresses.
            let address = |is_ipv4: bool, bits: u128| match is_ipv4 {
                true => IpAddr::from(((bits as u32) << 28).to_be_bytes()),
                false => IpAddr::from((bits << 124).to_be_bytes()),
            };
            let prefixes: Vec<Prefix> = prefixes
                .into_iter()
                .filter_map(|(is_ipv4, bits, length)| Prefix::around(address(is_ipv4, bits), length))
                .collect();
            let set: PrefixSet = prefixes.iter().copied().collect();
            for (is_ipv4, bits) in asked {
                let address = address(is_ipv4, bits);
                let holding = prefixes.iter().filter(|prefix| prefix.contains(address));
                prop_assert_eq!(set.find(address), holding.copied().max_by_key(|prefix| prefix.length()));
            }
        }
    }
}
