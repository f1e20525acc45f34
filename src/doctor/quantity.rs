//! Numbers as people read them.

/// `1234567` as `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the unit that suits them: `4.0 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match UNITS.into_iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}

/// A number of connections with as many digits as an estimate deserves: the first three, rounded down.
pub fn about(number: u64) -> String {
    let magnitude = 10_u64.pow(number.checked_ilog10().unwrap_or(0).saturating_sub(2));
    count(number / magnitude * magnitude)
}

/// A limit that may be none: the kernel's own notation for it is near 2^63.
pub fn limit(number: u64) -> String {
    if number >= 1 << 60 { "unlimited".to_owned() } else { count(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn estimates_have_three_digits() {
        for (number, text) in [(0, "0"), (99, "99"), (18_769, "18,700"), (5_578_123, "5,570,000")] {
            assert_eq!(about(number), text);
        }
    }

    #[test]
    fn bytes_have_a_unit_that_suits() {
        for (number, text) in [(0, "0 B"), (1_023, "1023 B"), (8 << 20, "8.0 MiB"), (24_684_084 << 10, "23.5 GiB")] {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(limit(i64::MAX as u64), "unlimited");
        assert_eq!(limit(20_000), "20,000");
    }
}
