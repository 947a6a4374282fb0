//! Cron expressions: five fields, or six with the second first. The crate `croner` reads them and finds matching times.

use std::cmp::Ordering;

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::{CivilDate, CivilDateTime, CivilTime, CronDateTime, Resolution, Weekday};
use time::OffsetDateTime;

/// The longest expression.
const MAX_LENGTH: usize = 200;

/// A field of an expression: its name, and what is allowed in it.
struct Field {
    name: &'static str,
    allowed: &'static str,
    /// Words that stand for numbers. croner replaces them wherever they occur, so they are checked here.
    words: &'static [&'static str],
}

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEK_DAYS: [&str; 15] = [
    "SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "L", "SUNL", "MONL", "TUEL", "WEDL", "THUL", "FRIL",
    "SATL",
];

/// The fields of the longer form. The shorter form leaves out the second, which is then 0.
const FIELDS: [Field; 6] = [
    Field { name: "second", allowed: "0-59, with * , - /", words: &[] },
    Field { name: "minute", allowed: "0-59, with * , - /", words: &[] },
    Field { name: "hour", allowed: "0-23, with * , - /", words: &[] },
    Field { name: "day of the month", allowed: "1-31, with * , - / L W", words: &["L", "W", "LW"] },
    Field { name: "month", allowed: "1-12 or JAN-DEC, with * , - /", words: &MONTHS },
    Field {
        name: "day of the week",
        allowed: "0-7 or SUN-SAT (0 and 7 are Sunday), with * , - / # L",
        words: &WEEK_DAYS,
    },
];

const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A valid cron expression.
#[derive(Debug)]
pub(super) struct Cron {
    cron: croner::Cron,
    /// Whether the second, the minute or the hour has `*` or a step. Such an expression follows real time when the clocks
    /// change; any other one names fixed times of day.
    pub follows_real_time: bool,
}

/// Why a text is no cron expression: what is wrong with it, and what is allowed.
pub(super) type InvalidCron = (String, String);

impl Cron {
    /// Reads an expression. An expression that never matches is refused too.
    pub(super) fn parse(text: &str) -> Result<Cron, InvalidCron> {
        if text.len() > MAX_LENGTH {
            return Err((format!("is longer than {MAX_LENGTH} bytes"), "a shorter expression".to_owned()));
        }
        let expression = match text.trim() {
            name if name.starts_with('@') => nickname(name)?,
            other => other.to_ascii_uppercase(),
        };
        let mut fields: Vec<&str> = expression.split_ascii_whitespace().collect();
        if fields.len() == 5 {
            fields.insert(0, "0");
        }
        if fields.len() != FIELDS.len() {
            let problem = format!("has {} fields", fields.len());
            let allowed = "5 fields (minute, hour, day of the month, month, day of the week), or 6 with the second first";
            return Err((problem, allowed.to_owned()));
        }
        for (index, text) in fields.iter().enumerate() {
            check_field(index, text)?;
        }
        let never = || ("matches no time".to_owned(), "an expression that matches some day".to_owned());
        let follows_real_time = fields[..3].iter().any(|field| field.contains(['*', '/', '?']));
        let cron = Cron { cron: read(&fields).map_err(|_| never())?, follows_real_time };
        cron.next_after(0).map(|_| cron).ok_or_else(never)
    }

    /// The first matching time after `after`. Both are seconds since 1970 on a clock without a time zone.
    pub(super) fn next_after(&self, after: i64) -> Option<i64> {
        self.cron.find_next_occurrence(&Civil(after), false).ok().map(|Civil(seconds)| seconds)
    }

    /// The first matching time at or after `from`.
    pub(super) fn next_from(&self, from: i64) -> Option<i64> {
        self.cron.find_next_occurrence(&Civil(from), true).ok().map(|Civil(seconds)| seconds)
    }
}

fn nickname(name: &str) -> Result<String, InvalidCron> {
    let found = NICKNAMES.iter().find(|(nickname, _)| nickname.eq_ignore_ascii_case(name));
    found.map(|(_, expression)| (*expression).to_owned()).ok_or_else(|| {
        let names: Vec<&str> = NICKNAMES.iter().map(|(name, _)| *name).collect();
        (format!("has the unknown name {name:?}"), names.join(", "))
    })
}

fn read(fields: &[&str]) -> Result<croner::Cron, CronError> {
    let parser = CronParser::builder().seconds(Seconds::Required).year(Year::Disallowed).build();
    parser.parse(&fields.join(" "))
}

/// Checks one field alone, so that an error can name it.
fn check_field(index: usize, text: &str) -> Result<(), InvalidCron> {
    let field = &FIELDS[index];
    let mut alone = ["*"; 6];
    alone[index] = text;
    // croner ignores empty entries of a list, and a list without entries never matches.
    let has_empty_entry = text.split(',').any(str::is_empty);
    let is_valid = !has_empty_entry && has_known_words(text, field.words) && read(&alone).is_ok();
    match is_valid {
        true => Ok(()),
        false => Err((format!("has the {} {text:?}", field.name), field.allowed.to_owned())),
    }
}

/// Whether the field has only characters of expressions, and each word in it is known. A name touches no digit.
fn has_known_words(text: &str, words: &[&str]) -> bool {
    let is_separator = |c: char| matches!(c, '*' | '?' | ',' | '-' | '/' | '#');
    text.split(is_separator).all(|part| {
        let digits = part.trim_end_matches(|c: char| c.is_ascii_uppercase());
        let word = &part[digits.len()..];
        let is_known = word.is_empty() || words.contains(&word);
        is_known && digits.bytes().all(|c| c.is_ascii_digit()) && (digits.is_empty() || word.len() <= 1)
    })
}

/// A time on a clock without a time zone, in seconds since 1970: no time is skipped or repeated.
#[derive(Clone, Copy)]
struct Civil(i64);

const DAY: i64 = 86_400;

impl CronDateTime for Civil {
    fn to_civil(&self) -> CivilDateTime {
        let time = OffsetDateTime::from_unix_timestamp(self.0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let date = CivilDate::from_parts_unchecked(time.year(), time.month() as u32, time.day().into());
        let [hour, minute, second] = [time.hour(), time.minute(), time.second()].map(u32::from);
        CivilDateTime::new(date, CivilTime::from_parts_unchecked(hour, minute, second))
    }

    fn civil_weekday(&self) -> Weekday {
        // 1970-01-01 was a Thursday.
        Weekday::Thursday.shift((self.0.div_euclid(DAY) % 7) as i32)
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Civil>, CronError> {
        let month = time::Month::try_from(civil.month() as u8).map_err(|_| CronError::InvalidDate)?;
        let date = time::Date::from_calendar_date(civil.year(), month, civil.date().day() as u8);
        let midnight = date.map_err(|_| CronError::InvalidDate)?.midnight().assume_utc().unix_timestamp();
        let second = civil.hour() * 3600 + civil.minute() * 60 + civil.second();
        Ok(Resolution::Single(Civil(midnight + i64::from(second))))
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Civil> {
        self.0.checked_add(seconds).map(Civil)
    }

    fn cmp_instant(&self, other: &Civil) -> Ordering {
        self.0.cmp(&other.0)
    }
}
