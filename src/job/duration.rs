//! Durations as people write them: `250ms`, `5s`, `10m`, `24h`, `90d`.
//!
//! For the command line client and the API's queries. The settings of the server have the same spelling and a reader of
//! their own (`config/values.rs`), which also says which range is allowed.

use std::time::Duration;

/// Reads a whole number with one unit: `ms`, `s`, `m`, `h` or `d`; nothing before, between or after.
///
/// # Errors
/// A text that is no duration; the error is a clause that says what is allowed.
pub fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| allowed())?;
    let duration = match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(60 * 60).map(Duration::from_secs),
        "d" => number.checked_mul(24 * 60 * 60).map(Duration::from_secs),
        _ => None,
    };
    duration.ok_or_else(allowed)
}

fn allowed() -> String {
    "must be a whole number and a unit, such as 250ms, 5s, 10m, 24h or 90d".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        let cases = [
            ("250ms", Duration::from_millis(250)),
            ("0s", Duration::ZERO),
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
    fn anything_else_is_refused() {
        for text in
            ["", "5", "s", "-5s", "+5s", "1.5s", " 5s", "5 s", "5s ", "5S", "5sec", "1h30m", "٥s", "5µs"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_number_too_large_is_refused_and_not_wrapped() {
        for text in ["18446744073709551616ms", "18446744073709551615d", "18446744073709551615m"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
