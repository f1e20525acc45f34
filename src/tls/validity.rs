//! When a certificate ends: the one fact that the library checks and does not tell.
//!
//! Reads as much of the form of certificates (X.509 in DER, RFC 5280 section 4.1) as lies before it.

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// Until when a certificate is valid, in seconds since 1970; none: it is no certificate.
pub fn ends_unix_seconds(certificate: &[u8]) -> Option<u64> {
    let mut outer = Reader(certificate);
    let mut certificate = Reader(outer.take(SEQUENCE)?);
    let mut fields = Reader(certificate.take(SEQUENCE)?);
    if fields.0.first() == Some(&VERSION) {
        fields.take(VERSION)?;
    }
    fields.take(INTEGER)?;
    let _signature_algorithm = fields.take(SEQUENCE)?;
    let _issuer = fields.take(SEQUENCE)?;
    let mut validity = Reader(fields.take(SEQUENCE)?);
    validity.take_time()?;
    validity.take_time()
}

/// What is left of a text in DER.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The content of the next value, which has this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&found, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        (found == tag).then_some(content)
    }

    fn take_time(&mut self) -> Option<u64> {
        match *self.0.first()? {
            UTC_TIME => {
                let text = self.take(UTC_TIME)?;
                // RFC 5280 section 4.1.2.5.1: two digits of the year, of 1950 to 2049.
                let year = number(text.get(..2)?)?;
                unix_seconds(if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
            }
            _ => {
                let text = self.take(GENERALIZED_TIME)?;
                unix_seconds(number(text.get(..4)?)?, text.get(4..)?)
            }
        }
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
}

/// `rest`: month, day, hour, minute and second in two digits each, and `Z`. A time before 1970 is 0.
fn unix_seconds(year: u64, rest: &[u8]) -> Option<u64> {
    let [digits @ .., b'Z'] = rest else { return None };
    if digits.len() != 10 {
        return None;
    }
    let mut parts = digits.chunks_exact(2).map(number);
    let mut part = || parts.next().flatten();
    let (month, day, hour, minute, second) = (part()?, part()?, part()?, part()?, part()?);
    // Days since 1 March of the year 0, by years that end with February, so that the leap day is a year's last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day.checked_sub(1)?;
    const DAYS_TO_1970: u64 = 719_468;
    let days = days.saturating_sub(DAYS_TO_1970);
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        // As `date -u -d ... +%s` says.
        for (year, rest, seconds) in [
            (1970, "0101000000Z", 0),
            (2000, "0229235959Z", 951_868_799),
            (2026, "1130225650Z", 1_796_079_410),
            (2049, "1231235959Z", 2_524_607_999),
            (9999, "1231235959Z", 253_402_300_799),
        ] {
            assert_eq!(unix_seconds(year, rest.as_bytes()), Some(seconds), "{year} {rest}");
        }
        for bad in ["", "0101000000", "010100000Z", "0x01000000Z", "0101000000+0000"] {
            assert_eq!(unix_seconds(2000, bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        for garbage in [&[][..], &[0x30], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30, 0x02, 0x30, 0x00], b"-----"] {
            assert_eq!(ends_unix_seconds(garbage), None);
        }
    }
}
