//! Times as RFC 3339, in the API, in logs and on the command line. Inside they are milliseconds since 1970.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// A time in milliseconds since 1970. Its JSON is the text of [`rfc3339`].
#[derive(Clone, Copy)]
pub(crate) struct Time(pub u64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

/// A time in milliseconds since 1970 as RFC 3339 in UTC, always with three digits after the second:
/// `2026-11-24T08:00:00.000Z`. Any time after the year 9999 becomes the last millisecond of that year.
pub fn rfc3339(ms: u64) -> String {
    const FORMAT: &[BorrowedFormatItem] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    const END: &str = "9999-12-31T23:59:59.999Z";

    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    time.ok().and_then(|time| time.format(FORMAT).ok()).unwrap_or_else(|| END.to_owned())
}

/// A time as RFC 3339 to the second on a clock that is `offset` seconds ahead of UTC: `2026-11-24T09:00:00+01:00`.
pub(crate) fn rfc3339_with_offset(ms: u64, offset: i64) -> String {
    let local = rfc3339(ms.saturating_add_signed(offset * 1000));
    let minutes = offset.abs() / 60;
    let sign = if offset < 0 { '-' } else { '+' };
    format!("{}{sign}{:02}:{:02}", &local[..19], minutes / 60, minutes % 60)
}

/// Reads a time in RFC 3339, in any zone, as milliseconds since 1970; `None` for another text.
///
/// A time before 1970 is 0: for a job's `run_at` both have passed.
pub(crate) fn parse_rfc3339(text: &str) -> Option<u64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0))
}

/// Reads a time in RFC 3339 as microseconds since 1970, rounded up; `None` for another text. Such a bound of job ids is
/// exact: an id is a time in whole microseconds. A time before 1970 is 0.
pub(crate) fn parse_rfc3339_micros(text: &str) -> Option<u64> {
    let nanos = u128::try_from(OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos());
    Some(u64::try_from(nanos.unwrap_or(0).div_ceil(1000)).unwrap_or(u64::MAX))
}

/// A time in microseconds since 1970 as RFC 3339 in UTC, with all its digits: `2026-11-24T08:00:00.000000Z`.
pub(crate) fn rfc3339_micros(micros: u64) -> String {
    let time = rfc3339(micros / 1000);
    format!("{}{:03}Z", time.trim_end_matches('Z'), micros % 1000)
}

/// The time of this machine's clock in milliseconds since 1970. Only for texts that operators read: Redis's clock decides.
pub(crate) fn now_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_exactly_milliseconds_in_every_year() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(253_402_300_800_000), "9999-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_local_time_has_its_offset() {
        assert_eq!(rfc3339_with_offset(1_764_000_000_123, 3600), "2025-11-24T17:00:00+01:00");
        assert_eq!(rfc3339_with_offset(1_764_000_000_123, -12_600), "2025-11-24T12:30:00-03:30");
        assert_eq!(rfc3339_with_offset(0, 0), "1970-01-01T00:00:00+00:00");
    }

    #[test]
    fn a_time_is_read_in_every_zone() {
        for (text, ms) in [
            ("2025-11-24T16:00:00.123Z", Some(1_764_000_000_123)),
            ("2025-11-24T17:00:00.1239+01:00", Some(1_764_000_000_123)),
            ("1969-12-31T23:59:59Z", Some(0)),
            ("2025-11-24", None),
            ("2025-11-24T16:00:00", None),
        ] {
            assert_eq!(parse_rfc3339(text), ms, "{text}");
        }
        assert_eq!(parse_rfc3339(&rfc3339(1_764_000_000_123)), Some(1_764_000_000_123));
    }

    #[test]
    fn a_time_is_read_and_written_in_microseconds() {
        for (text, micros) in [
            ("2025-11-24T16:00:00.123Z", Some(1_764_000_000_123_000)),
            ("2025-11-24T17:00:00.123456+01:00", Some(1_764_000_000_123_456)),
            ("2025-11-24T16:00:00.1234560001Z", Some(1_764_000_000_123_456)),
            ("2025-11-24T16:00:00.123456001Z", Some(1_764_000_000_123_457)),
            ("1969-12-31T23:59:59Z", Some(0)),
            ("9999-12-31T23:59:59Z", Some(253_402_300_799_000_000)),
            ("2025-11-24", None),
        ] {
            assert_eq!(parse_rfc3339_micros(text), micros, "{text}");
        }
        assert_eq!(rfc3339_micros(1_764_000_000_123_056), "2025-11-24T16:00:00.123056Z");
    }
}
