//! What an attempt reports while it runs: progress, log lines, a checkpoint.

use serde_json::value::RawValue;

use super::json::{MAX_DEPTH, depth_exceeds};

/// The most characters of the message of a progress.
pub const MAX_MESSAGE_CHARS: usize = 200;
/// The most characters of a log line.
pub const MAX_LINE_CHARS: usize = 1_000;
/// The most log lines that a job gets in a second, and the most lines of a [`Report`].
pub const MAX_LINES: usize = 100;
/// The most bytes of a checkpoint as JSON.
pub const MAX_CHECKPOINT_BYTES: usize = 32 * 1024;

/// How far a job has come, as its latest report says.
#[derive(Clone, PartialEq, Debug)]
pub struct Progress {
    /// From 0 to 1.
    pub value: f64,
    /// At most [`MAX_MESSAGE_CHARS`] characters; may be empty.
    pub message: String,
    /// When the progress was stored, in milliseconds since 1970.
    pub at_ms: u64,
}

/// What an attempt has reported and Redis does not have yet.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// The progress from 0 to 1 and its message, see [`checked_progress`].
    pub progress: Option<(f64, String)>,
    /// At most [`MAX_LINES`] log lines, see [`checked_line`].
    pub log: Vec<String>,
    /// How many further log lines are not in `log`.
    pub dropped: u64,
    /// At most [`MAX_CHECKPOINT_BYTES`] bytes of JSON.
    pub checkpoint: Option<Box<RawValue>>,
}

impl Report {
    /// Whether the report says nothing.
    pub fn is_empty(&self) -> bool {
        self.progress.is_none() && self.log.is_empty() && self.dropped == 0 && self.checkpoint.is_none()
    }

    /// Adds the lines of a text to the log.
    pub fn add_lines(&mut self, text: &str) {
        for line in text.lines() {
            if self.log.len() < MAX_LINES {
                self.log.push(checked_line(line));
            } else {
                self.dropped += 1;
            }
        }
    }

    /// Adds what was reported later. The later progress and checkpoint replace the earlier ones.
    pub fn merge(&mut self, later: Report) {
        if later.progress.is_some() {
            self.progress = later.progress;
        }
        if later.checkpoint.is_some() {
            self.checkpoint = later.checkpoint;
        }
        let room = MAX_LINES - self.log.len().min(MAX_LINES);
        self.dropped += later.dropped + later.log.len().saturating_sub(room) as u64;
        self.log.extend(later.log.into_iter().take(room));
    }
}

/// A progress with its value between 0 and 1, and with a message of one line that is not too long. `None` if the value is
/// not a number.
pub fn checked_progress(value: f64, message: &str) -> Option<(f64, String)> {
    (!value.is_nan()).then(|| (value.clamp(0.0, 1.0), one_line(message, MAX_MESSAGE_CHARS)))
}

/// Whether this JSON may be a checkpoint: its length and its nesting are bounded.
pub(crate) fn is_checkpoint(json: &str) -> bool {
    json.len() <= MAX_CHECKPOINT_BYTES && !depth_exceeds(json, MAX_DEPTH)
}

/// A log line without control characters, cut to the length that is kept.
pub fn checked_line(line: &str) -> String {
    one_line(line, MAX_LINE_CHARS)
}

/// At most `most` characters, with a space in place of each control character.
fn one_line(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(number: usize) -> Report {
        Report { log: vec!["line".to_owned(); number], ..Report::default() }
    }

    #[test]
    fn the_later_progress_counts_and_lines_above_the_limit_are_counted() {
        let mut report = Report { progress: Some((0.1, "first".to_owned())), ..lines(60) };
        assert!(!report.is_empty() && Report::default().is_empty());
        report.merge(Report { progress: Some((0.5, String::new())), dropped: 3, ..lines(50) });
        report.merge(lines(1));
        assert_eq!(report.progress, Some((0.5, String::new())));
        assert_eq!((report.log.len(), report.dropped), (MAX_LINES, 14));
    }

    #[test]
    fn the_lines_of_a_text_are_bounded() {
        let mut report = lines(1);
        report.add_lines("one\r\n\ntwo\n");
        assert_eq!(report.log, ["line", "one", "", "two"]);
        report.add_lines(&"\n".repeat(1_000));
        assert_eq!((report.log.len(), report.dropped), (MAX_LINES, 904));
    }

    #[test]
    fn texts_become_one_line_of_bounded_length() {
        assert_eq!(checked_line("a\nb\tc\u{1b}[31m"), "a b c [31m");
        assert_eq!(checked_line(&"é".repeat(2_000)).chars().count(), MAX_LINE_CHARS);
        assert_eq!(checked_progress(1.5, "x\ny"), Some((1.0, "x y".to_owned())));
        assert_eq!(checked_progress(f64::NEG_INFINITY, ""), Some((0.0, String::new())));
        assert_eq!(checked_progress(f64::NAN, ""), None);
    }
}
