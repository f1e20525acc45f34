//! Prefixes of addresses, as operators write them: `10.0.0.0/8`, `2001:db8::/32`, or a single address.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// Its bits, and behind them zeros.
    address: IpAddr,
    length: u8,
}

/// Why a text is no prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// No address, or no length.
    #[error("{0:?} is no address and no prefix; write 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32")]
    Malformed(String),
    /// Bits are set behind the prefix: one of the two numbers is a mistake.
    #[error("{0:?} has bits behind its length; write {1}")]
    HostBits(String, Prefix),
}

impl Prefix {
    /// The prefix of this length around an address; none: the address has fewer bits.
    pub fn around(address: IpAddr, length: u8) -> Option<Self> {
        let mapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
        let (address, length) = match mapped && length >= MAPPED_BITS {
            true => (address.to_canonical(), length - MAPPED_BITS),
            false => (address, length),
        };
        (length <= width(address)).then(|| Self { address: masked(address, length), length })
    }

    /// The addresses that one network is usually given: a /24, or a /64.
    pub fn network_of(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let length = if address.is_ipv4() { 24 } else { 64 };
        Self { address: masked(address, length), length }
    }

    /// The addresses that one host is usually given: one, or a /64, within which it may choose any.
    pub fn host_of(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let length = if address.is_ipv4() { 32 } else { 64 };
        Self { address: masked(address, length), length }
    }

    /// Whether it holds an address.
    pub fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.length) == self.address
    }

    /// Its first address.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// How many bits its addresses have in common.
    pub fn length(self) -> u8 {
        self.length
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let malformed = || PrefixError::Malformed(text.to_owned());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let length = match length {
            // `u8::from_str` would take a sign.
            Some(length) if length.bytes().all(|byte| byte.is_ascii_digit()) => length.parse().map_err(|_| malformed()),
            Some(_) => Err(malformed()),
            None => Ok(width(address)),
        }?;
        let prefix = Self::around(address, length).ok_or_else(malformed)?;
        if masked(address, length) == address {
            return Ok(prefix);
        }
        Err(PrefixError::HostBits(text.to_owned(), prefix))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.length == width(self.address) {
            true => write!(formatter, "{}", self.address),
            false => write!(formatter, "{}/{}", self.address, self.length),
        }
    }
}

/// The bits that come before an IPv4 address within an IPv6 address.
const MAPPED_BITS: u8 = 96;

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with zeros behind so many bits.
pub(super) fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let kept = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & kept).into()
        }
        IpAddr::V6(address) => {
            let kept = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & kept).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn prefixes_are_read_and_written() {
        for (written, read) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("::/0", "::/0"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(prefix(written).to_string(), read);
        }
        for text in ["", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/8/8", "10.0.0", "host", "::/129"] {
            assert_eq!(text.parse::<Prefix>(), Err(PrefixError::Malformed(text.to_owned())));
        }
        assert_eq!(
            "10.1.2.3/8".parse::<Prefix>().unwrap_err().to_string(),
            "\"10.1.2.3/8\" has bits behind its length; write 10.0.0.0/8"
        );
    }

    #[test]
    fn a_prefix_holds_the_addresses_of_its_family() {
        let holds = |text: &str, address: &str| prefix(text).contains(address.parse().unwrap());
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.0.0.1"));
        assert!(holds("0.0.0.0/0", "1.2.3.4") && !holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("::/0", "2001:db8::1") && !holds("::/0", "1.2.3.4") && !holds("::/0", "::ffff:1.2.3.4"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1") && !holds("2001:db8::/32", "2001:db9::1"));
    }

    #[test]
    fn hosts_and_networks_have_their_usual_lengths() {
        let around = |address: &str| {
            let address = address.parse().unwrap();
            [Prefix::host_of(address), Prefix::network_of(address)].map(|prefix| prefix.to_string())
        };
        assert_eq!(around("192.0.2.7"), ["192.0.2.7", "192.0.2.0/24"]);
        assert_eq!(around("::ffff:192.0.2.7"), ["192.0.2.7", "192.0.2.0/24"]);
        assert_eq!(around("2001:db8:1:2:3::4"), ["2001:db8:1:2::/64", "2001:db8:1:2::/64"]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(bits: u128, length in 0..=128_u8) {
            for address in [IpAddr::from(bits.to_be_bytes()), IpAddr::from((bits as u32).to_be_bytes())] {
                let Some(prefix) = Prefix::around(address, length) else { continue };
                prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
                prop_assert!(prefix.contains(address));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-f.:/+ ]{0,30}") {
            let _ = text.parse::<Prefix>();
        }
    }
}
