//! Durations as text: `250ms`, `5s`, `10m`, `24h`, `90d`. Settings, flags and the API's queries all use this spelling.

use std::fmt;
use std::time::Duration;

/// The units and their milliseconds, from the largest.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads decimal digits and one unit: `ms`, `s`, `m`, `h` or `d`, with nothing before, between or after them.
///
/// A duration of more than 2^64 - 1 ms is read as that many, so that it exceeds every range.
///
/// # Errors
/// The text has another form.
pub(crate) fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let (number, unit) = split_unit(text).ok_or(InvalidDuration::Form)?;
    let unit_ms = match unit {
        "" => return Err(InvalidDuration::NoUnit),
        _ => factor_of(unit, &UNITS).ok_or(InvalidDuration::Form)?,
    };
    Ok(Duration::from_millis(number.saturating_mul(unit_ms)))
}

/// A duration in whole milliseconds as [`parse`] reads it, in the largest unit in which it is a whole number; one day as
/// `24h`.
pub(crate) fn to_text(duration: Duration) -> String {
    match duration.as_millis() {
        0 => "0s".to_owned(),
        86_400_000 => "24h".to_owned(),
        ms => in_largest_unit(ms, &UNITS),
    }
}

/// Milliseconds, rounded up so that a delay or timeout is never shorter than requested.
pub(crate) fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Why a text is not a duration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InvalidDuration {
    /// The text is not a number with one of the units.
    Form,
    /// The text is a number without a unit.
    NoUnit,
}

impl fmt::Display for InvalidDuration {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("must be a whole number and a unit, such as 250ms, 5s, 10m, 24h or 90d")
    }
}

impl std::error::Error for InvalidDuration {}

/// The decimal digits at the start of a text as a number, and the text after them; `None` without digits.
///
/// A number beyond 64 bits is read as 2^64 - 1, so that it exceeds every range.
pub(crate) fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at(end);
    (!digits.is_empty()).then(|| (digits.parse().unwrap_or(u64::MAX), unit))
}

/// What this unit stands for.
pub(crate) fn factor_of(name: &str, units: &[(&str, u64)]) -> Option<u64> {
    units.iter().find(|(unit, _)| *unit == name).map(|(_, factor)| *factor)
}

/// The number in the largest unit in which it is a whole number; without a unit if there is no such unit. The largest
/// unit comes first in `units`.
pub(crate) fn in_largest_unit(number: u128, units: &[(&str, u64)]) -> String {
    let unit = units.iter().find(|(_, factor)| number.is_multiple_of(u128::from(*factor)));
    unit.map_or_else(
        || number.to_string(),
        |(name, factor)| format!("{}{name}", number / u128::from(*factor)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        let cases = [
            ("250ms", Duration::from_millis(250)),
            ("0s", Duration::ZERO),
            ("007s", Duration::from_secs(7)),
            ("5s", Duration::from_secs(5)),
            ("10m", Duration::from_secs(600)),
            ("24h", Duration::from_secs(86_400)),
            ("90d", Duration::from_secs(90 * 86_400)),
        ];
        for (text, duration) in cases {
            assert_eq!(parse(text), Ok(duration), "{text}");
        }
    }

    #[test]
    fn any_other_text_is_refused() {
        for text in
            ["", "s", "-5s", "+5s", "1.5s", " 5s", "5 s", "5s ", "5S", "5sec", "1h30m", "٥s", "5µs", "1e3s"]
        {
            assert_eq!(parse(text), Err(InvalidDuration::Form), "{text:?}");
        }
        for text in ["0", "5", "18446744073709551616"] {
            assert_eq!(parse(text), Err(InvalidDuration::NoUnit), "{text:?}");
        }
    }

    #[test]
    fn a_number_that_is_too_large_does_not_wrap() {
        for text in ["18446744073709551616ms", "18446744073709551615d", "18446744073709551615m"] {
            assert_eq!(parse(text), Ok(Duration::from_millis(u64::MAX)), "{text}");
        }
    }

    #[test]
    fn a_duration_is_written_in_the_largest_whole_unit() {
        for text in ["0s", "250ms", "1s", "90s", "10m", "24h", "36h", "2d", "365d"] {
            assert_eq!(to_text(parse(text).unwrap()), text);
        }
        assert_eq!(to_text(Duration::from_secs(3600)), "1h");
    }

    #[test]
    fn a_written_duration_reads_as_itself() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..20_000 {
            let bound = 1 << random.u32(1..39);
            let expected = Duration::from_millis(random.u64(0..bound));
            assert_eq!(parse(&to_text(expected)), Ok(expected));
        }
    }
}
