//! The defaults and ranges of everything that a job, a handler or a request can be given, with the words for them.
//!
//! The API, the configuration, the command line and the client all check with these rules, so that a value is valid for
//! all of them or for none. Each error says in the words of `allowed` what is valid.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

/// How often a job is tried when neither the job nor its handler sets `max_attempts`.
pub const DEFAULT_MAX_ATTEMPTS: u32 = 5;
/// How long an attempt may take when neither the job nor its handler sets a timeout.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
/// The queue of a job that is submitted without a queue.
pub const DEFAULT_QUEUE: &str = "default";
/// How many characters of an error message are kept. The rest is cut off.
pub const MAX_ERROR_CHARS: usize = 1_000;
/// How many bytes of a result are kept. A longer result is cut and kept as a string.
pub const MAX_RESULT_BYTES: usize = 64 * 1024;

const DAY: Duration = Duration::from_secs(24 * 3600);
const UP_TO_A_YEAR: RangeInclusive<Duration> = Duration::from_millis(1)..=DAY.saturating_mul(365);

/// How often a job can be tried: `max_attempts`.
pub(crate) const ATTEMPTS: RangeInclusive<u32> = 1..=100;
/// How long an attempt can be allowed to take.
pub(crate) const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=DAY;
/// How long after its submission a job can start, and how long a backoff can be.
pub(crate) const DELAY: RangeInclusive<Duration> = Duration::ZERO..=DAY.saturating_mul(365);
/// How long a pull worker can lease a job.
pub(crate) const LEASE: RangeInclusive<Duration> = Duration::from_secs(1)..=DAY;
/// After which time a job that its handler has snoozed runs again.
pub(crate) const SNOOZE: RangeInclusive<Duration> = Duration::from_secs(1)..=DAY.saturating_mul(365);

/// How long after its submission a job can expire.
pub(crate) const EXPIRY: RangeInclusive<Duration> = UP_TO_A_YEAR;
/// How long a job can hold its unique key for a fixed time.
pub(crate) const HOLD: RangeInclusive<Duration> = UP_TO_A_YEAR;
/// How long submissions with the same unique key can put off a job.
pub(crate) const MAX_WAIT: RangeInclusive<Duration> = UP_TO_A_YEAR;
/// How long a job can be kept after its end.
pub(crate) const RETENTION: RangeInclusive<Duration> = DELAY;
/// The most tags of a job.
pub(crate) const MAX_TAGS: usize = 5;
/// The most bytes of all names and values of `meta`.
pub(crate) const MAX_META_BYTES: usize = 1024;
/// How the names of types, queues and unique keys begin that the server keeps for itself.
pub(crate) const RESERVED_PREFIX: &str = "threadq.";

/// A job's type.
pub(crate) const JOB_TYPE: TextRule =
    TextRule { allowed: "1 to 100 characters, none of them a control character", accepts: is_job_type };
/// The name of a queue. A namespace follows the same rule.
pub(crate) const QUEUE_NAME: TextRule =
    TextRule { allowed: "1 to 64 of A-Z a-z 0-9 _ . -", accepts: is_queue_name };
/// The name of a pull worker.
pub(crate) const WORKER_NAME: TextRule = QUEUE_NAME;
/// The name of a schedule. `preview` is the name of a route.
pub(crate) const SCHEDULE_NAME: TextRule = TextRule {
    allowed: "1 to 64 of A-Z a-z 0-9 _ . -, but not preview",
    accepts: |name| is_queue_name(name) && name != "preview",
};
/// One tag of a job.
pub(crate) const TAG: TextRule =
    TextRule { allowed: "1 to 64 characters, none of them a control character", accepts: is_tag };
/// A name in `meta`.
pub(crate) const META_NAME: TextRule =
    TextRule { allowed: "1 to 64 of A-Z a-z 0-9 _ -", accepts: is_meta_name };
/// A value in `meta`, which can be empty. [`MAX_META_BYTES`] limits its length too.
pub(crate) const META_VALUE: TextRule = TextRule {
    allowed: "up to 1024 characters, none of them a control character",
    accepts: |value| value.len() <= MAX_META_BYTES && !value.chars().any(char::is_control),
};
/// A part of an error message, by which jobs are found.
pub(crate) const ERROR_PART: TextRule =
    TextRule { allowed: "1 to 1000 characters", accepts: |part| (1..=1000).contains(&part.chars().count()) };
/// A unique key. At most one live job can hold the same unique key.
pub(crate) const UNIQUE_KEY: TextRule =
    TextRule { allowed: "1 to 200 characters", accepts: |key| (1..=200).contains(&key.chars().count()) };
/// The value of the header `Idempotency-Key`.
pub(crate) const IDEMPOTENCY_KEY: TextRule = TextRule {
    allowed: "1 to 200 visible ASCII characters",
    accepts: |key| (1..=200).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()),
};

/// Which texts are valid for a field.
pub(crate) struct TextRule {
    /// What is valid, as the end of a sentence.
    pub allowed: &'static str,
    accepts: fn(&str) -> bool,
}

impl TextRule {
    /// Whether this text is valid.
    pub fn accepts(&self, text: &str) -> bool {
        (self.accepts)(text)
    }
}

/// What is valid for a number in this range, as the end of a sentence.
pub(crate) fn whole_number_in<T: Display>(range: &RangeInclusive<T>) -> String {
    format!("a whole number from {} to {}", range.start(), range.end())
}

/// Whether this is a valid name of a queue: 1 to 64 of `A-Z a-z 0-9 _ . -`.
pub fn is_queue_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Whether this is a valid job type: 1 to 100 characters, none of them a control character.
pub fn is_job_type(name: &str) -> bool {
    (1..=100).contains(&name.chars().count()) && !name.chars().any(char::is_control)
}

fn is_meta_name(name: &str) -> bool {
    is_queue_name(name) && !name.contains('.')
}

/// Whether the server keeps this type, queue or unique key for itself.
pub(crate) fn is_reserved(name: &str) -> bool {
    name.starts_with(RESERVED_PREFIX)
}

fn is_tag(tag: &str) -> bool {
    (1..=64).contains(&tag.chars().count()) && !tag.chars().any(char::is_control)
}

/// A range of durations in milliseconds, as the API's fields have it.
pub(crate) fn in_ms(range: &RangeInclusive<Duration>) -> RangeInclusive<u64> {
    let ms = |duration: &Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    ms(range.start())..=ms(range.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_rule_accepts_its_lengths_and_characters() {
        for (rule, valid, invalid) in [
            (&JOB_TYPE, vec!["a", "Encode Video", "Größe ☃"], vec!["", "a\nb", "a\u{7f}"]),
            (&QUEUE_NAME, vec!["a", "A-z_0.9"], vec!["", "a b", "ü", "a/b"]),
            (&SCHEDULE_NAME, vec!["a", "previews"], vec!["", "a b", "preview"]),
            (&TAG, vec!["a", "customer 42", "é/☃"], vec!["", "a\nb"]),
            (&META_NAME, vec!["a", "trace-parent_9"], vec!["", "a.b", "a b", "ü"]),
            (&META_VALUE, vec!["", "é ☃"], vec!["a\nb", "\u{7f}"]),
            (&ERROR_PART, vec!["a", "é\n"], vec![""]),
            (&UNIQUE_KEY, vec!["a", "é b"], vec![""]),
            (&IDEMPOTENCY_KEY, vec!["a", "~!"], vec!["", "a b", "é"]),
        ] {
            assert!(valid.iter().all(|text| rule.accepts(text)), "{}", rule.allowed);
            assert!(!invalid.iter().any(|text| rule.accepts(text)), "{}", rule.allowed);
        }
        for (rule, longest) in [
            (&JOB_TYPE, 100),
            (&QUEUE_NAME, 64),
            (&SCHEDULE_NAME, 64),
            (&TAG, 64),
            (&META_NAME, 64),
            (&ERROR_PART, 1000),
            (&UNIQUE_KEY, 200),
            (&IDEMPOTENCY_KEY, 200),
        ] {
            assert!(rule.accepts(&"x".repeat(longest)), "{}", rule.allowed);
            assert!(!rule.accepts(&"x".repeat(longest + 1)), "{}", rule.allowed);
            assert!(rule.allowed.starts_with(&format!("1 to {longest} ")), "{}", rule.allowed);
        }
        assert!(META_VALUE.accepts(&"x".repeat(1024)) && !META_VALUE.accepts(&"x".repeat(1025)));
        assert!(JOB_TYPE.accepts(&"☃".repeat(100)) && UNIQUE_KEY.accepts(&"☃".repeat(200)));
    }

    #[test]
    fn ranges_in_milliseconds_are_those_of_the_api() {
        assert_eq!((in_ms(&TIMEOUT), in_ms(&DELAY)), (1..=86_400_000, 0..=31_536_000_000));
        for (range, least) in [(EXPIRY, 1), (HOLD, 1), (MAX_WAIT, 1), (RETENTION, 0)] {
            assert_eq!(in_ms(&range), least..=31_536_000_000);
        }
    }
}
