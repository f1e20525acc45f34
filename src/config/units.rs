//! Durations and sizes as operators write them: `25s`, `1m30s`, `64KiB`.
//!
//! Owns the two notations, both ways. Bounds are the schema's business.
//! Invariant: what is formatted here parses back to the same number; the reference file relies on it.

/// Units of durations with their milliseconds, longest first.
const DURATION_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of sizes with their bytes, largest first.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads a duration such as `25s`, `500ms`, `5m` or `1h30m`, in milliseconds.
///
/// Units are d, h, m, s and ms, each at most once and the longer first, so that a slip of the
/// finger (`5s5m`) is no duration. A number without a unit is none either: 25 of what?
pub fn parse_duration_ms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total_ms: u64 = 0;
    let mut units = DURATION_UNITS.as_slice();
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let unit_end = after.find(|character: char| character.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let index = units.iter().position(|(name, _)| *name == unit)?;
        total_ms = total_ms.checked_add(number.checked_mul(units[index].1)?)?;
        units = &units[index + 1..];
        rest = after;
    }
    (!text.is_empty()).then_some(total_ms)
}

/// Writes milliseconds as [`parse_duration_ms`] reads them.
pub fn format_duration_ms(duration_ms: u64) -> String {
    if duration_ms == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    let mut rest = duration_ms;
    for (unit, unit_ms) in DURATION_UNITS {
        if rest >= unit_ms {
            text.push_str(&format!("{}{unit}", rest / unit_ms));
            rest %= unit_ms;
        }
    }
    text
}

/// Reads a size such as `64KiB`, `1MiB`, `512B` or `4096`, in bytes.
///
/// Decimal units (kB, MB) are refused: half the world reads them as powers of two.
pub fn parse_size_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    let unit_bytes = match unit.trim_start() {
        "" => 1,
        unit => SIZE_UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.checked_mul(unit_bytes)
}

/// Writes bytes as [`parse_size_bytes`] reads them, in the largest unit that divides them.
pub fn format_size_bytes(size_bytes: u64) -> String {
    let (unit, unit_bytes) = SIZE_UNITS
        .into_iter()
        .find(|(_, unit_bytes)| size_bytes >= *unit_bytes && size_bytes.is_multiple_of(*unit_bytes))
        .unwrap_or(("B", 1));
    format!("{}{unit}", size_bytes / unit_bytes)
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, duration_ms) in [
            ("0s", 0),
            ("25s", 25_000),
            ("500ms", 500),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            ("1m1ms", 60_001),
        ] {
            assert_eq!(parse_duration_ms(text), Some(duration_ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "25", "s", "25 s", "-1s", "1.5s", "5s5m", "1s1s", "5min", "25S", "1h30", "99999999999999999999s"]
        {
            assert_eq!(parse_duration_ms(text), None, "{text}");
        }
        assert_eq!(parse_duration_ms("18446744073709551615d"), None, "an overflow");
    }

    #[test]
    fn sizes_are_read_with_or_without_a_unit() {
        for (text, size_bytes) in
            [("0", 0), ("4096", 4096), ("512B", 512), ("64KiB", 65_536), ("1MiB", 1 << 20), ("2 GiB", 2 << 30)]
        {
            assert_eq!(parse_size_bytes(text), Some(size_bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "KiB", "64KB", "64k", "64kib", "-1", "1.5MiB", "1MiB2KiB", "18446744073709551615GiB"] {
            assert_eq!(parse_size_bytes(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_formatted_duration_is_read_back(duration_ms: u64) {
            prop_assert_eq!(parse_duration_ms(&format_duration_ms(duration_ms)), Some(duration_ms));
        }

        #[test]
        fn a_formatted_size_is_read_back(size_bytes: u64, shift in 0_u32..40) {
            let size_bytes = size_bytes >> 40 << shift;
            prop_assert_eq!(parse_size_bytes(&format_size_bytes(size_bytes)), Some(size_bytes));
        }

        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".{0,40}") {
            let _ = parse_duration_ms(&text);
            let _ = parse_size_bytes(&text);
        }

        #[test]
        fn text_near_a_duration_is_read_exactly_or_refused(text in "[0-9]{1,6}(d|h|m|s|ms)([0-9]{1,6}(d|h|m|s|ms))?") {
            if let Some(duration_ms) = parse_duration_ms(&text) {
                let written_again = format_duration_ms(duration_ms);
                prop_assert_eq!(parse_duration_ms(&written_again), Some(duration_ms));
            }
        }
    }
}
