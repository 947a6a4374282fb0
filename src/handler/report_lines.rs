//! The lines by which a program reports: `progress 0.4 half way`, `log a line`, `checkpoint {"page": 7}`, `snooze 10m`.
//!
//! A line that is none of these is a line of the job's log as it is, never an error.

use std::time::Duration;

use serde_json::value::RawValue;

use super::line_splitter::{Line, LineSplitter};
use crate::job::report::{
    MAX_CHECKPOINT_BYTES, MAX_LINE_CHARS, MAX_LINES, checked_line, checked_progress, is_checkpoint,
};
use crate::job::{Report, duration};

/// A checkpoint of the greatest length with its word.
const MAX_LINE_BYTES: usize = "checkpoint ".len() + MAX_CHECKPOINT_BYTES;
/// A log line of the greatest length, if each character has four bytes.
const MAX_LOG_BYTES: usize = 4 * MAX_LINE_CHARS;

/// Reads the lines that a program writes.
pub(super) struct ReportLines {
    lines: LineSplitter,
    has_words: bool,
    /// The time of the latest line `snooze`.
    pub snooze: Option<Duration>,
}

impl ReportLines {
    /// Reads lines that begin with a word.
    pub fn new() -> ReportLines {
        ReportLines { lines: LineSplitter::new(MAX_LINE_BYTES), has_words: true, snooze: None }
    }

    /// Reads lines of a log.
    pub fn of_log() -> ReportLines {
        ReportLines { lines: LineSplitter::new(MAX_LOG_BYTES), has_words: false, snooze: None }
    }

    /// What the lines report that end in `bytes`.
    pub fn push(&mut self, bytes: &[u8]) -> Report {
        let ReportLines { lines, has_words, snooze } = self;
        let mut report = Report::default();
        lines.push(bytes, |line| read(line, *has_words, snooze, &mut report));
        report
    }

    /// What the last line reports, if it has no end.
    pub fn end(&mut self) -> Report {
        let ReportLines { lines, has_words, snooze } = self;
        let mut report = Report::default();
        lines.end(|line| read(line, *has_words, snooze, &mut report));
        report
    }
}

/// Adds what a line says to `report` or `snooze`.
fn read(line: Line, has_words: bool, snooze: &mut Option<Duration>, report: &mut Report) {
    let bytes = line.bytes.strip_suffix(b"\r").unwrap_or(line.bytes);
    if bytes.is_empty() {
        return;
    }
    let space = bytes.iter().position(|byte| *byte == b' ').unwrap_or(bytes.len());
    let (word, rest) = (&bytes[..space], bytes.get(space + 1..).unwrap_or_default());
    match word {
        _ if !has_words => {}
        b"log" => return add_line(rest, report),
        b"progress" => {
            if let Some(progress) = progress(rest) {
                report.progress = Some(progress);
                return;
            }
        }
        // The beginning of a checkpoint can be valid JSON too.
        b"checkpoint" if line.has_end && !line.is_cut => {
            if let Some(checkpoint) = checkpoint(rest) {
                report.checkpoint = Some(checkpoint);
                return;
            }
        }
        b"snooze" => {
            if let Some(time) = str::from_utf8(rest).ok().and_then(|text| duration::parse(text.trim()).ok()) {
                *snooze = Some(time);
                return;
            }
        }
        _ => {}
    }
    add_line(bytes, report);
}

fn add_line(bytes: &[u8], report: &mut Report) {
    if report.log.len() < MAX_LINES {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_LOG_BYTES)]);
        report.log.push(checked_line(&text));
    } else {
        report.dropped += 1;
    }
}

/// A number from 0 to 1 and the message.
fn progress(bytes: &[u8]) -> Option<(f64, String)> {
    let text = String::from_utf8_lossy(bytes);
    let (value, message) = text.split_once(' ').unwrap_or((&text, ""));
    let value = value.parse().ok().filter(|value| (0.0..=1.0).contains(value))?;
    checked_progress(value, message)
}

fn checkpoint(bytes: &[u8]) -> Option<Box<RawValue>> {
    let text = str::from_utf8(bytes).ok()?;
    if is_checkpoint(text) { serde_json::from_str(text).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str) -> (Report, Option<Duration>) {
        let mut lines = ReportLines::new();
        let mut report = lines.push(text.as_bytes());
        report.merge(lines.end());
        (report, lines.snooze)
    }

    #[test]
    fn each_word_is_read() {
        let (read, snooze) = report(
            "progress 0.1\nlog one: two\nprogress 0.4 encoded 3 of 7 files\r\ncheckpoint {\"page\": 7}\n\
             checkpoint [8]\nsnooze 10m\n\nlog last",
        );
        assert_eq!(read.progress, Some((0.4, "encoded 3 of 7 files".to_owned())));
        assert_eq!(read.log, ["one: two", "last"]);
        assert_eq!(read.checkpoint.unwrap().get(), "[8]");
        assert_eq!(snooze, Some(Duration::from_secs(600)));
    }

    #[test]
    fn unknown_words_and_bad_values_are_log_lines() {
        for line in [
            "hello world",
            "Progress 0.4",
            "progress",
            "progress half",
            "progress 1.5 too far",
            "progress -0.1",
            "progress nan",
            "progress  0.4",
            "checkpoint",
            "checkpoint {",
            "checkpoint 1 2",
            "snooze",
            "snooze soon",
            "snooze 10",
            "logs",
        ] {
            let (read, snooze) = report(&format!("{line}\n"));
            assert_eq!(read.log, [line]);
            assert!(read.progress.is_none() && read.checkpoint.is_none() && snooze.is_none(), "{line}");
        }
        let deep = format!("checkpoint {}{}", "[".repeat(129), "]".repeat(129));
        assert_eq!(report(&format!("{deep}\n")).0.log, [deep.as_str()]);
        assert_eq!(report("log\n").0.log, [""]);
    }

    #[test]
    fn a_bad_value_leaves_the_value_before() {
        let (read, snooze) =
            report("progress 0.5\nprogress 2\ncheckpoint 1\ncheckpoint x\nsnooze 1s\nsnooze x\n");
        assert_eq!((read.progress.unwrap().0, read.checkpoint.unwrap().get()), (0.5, "1"));
        assert_eq!((read.log.len(), snooze), (3, Some(Duration::from_secs(1))));
    }

    #[test]
    fn garbage_becomes_readable_lines() {
        let mut lines = ReportLines::new();
        let read = lines.push(b"\xff\xfe\0x\n\r\nprogress 1 \xff\n");
        assert_eq!(read.log, ["\u{fffd}\u{fffd} x"]);
        assert_eq!(read.progress, Some((1.0, "\u{fffd}".to_owned())));
    }

    #[test]
    fn a_checkpoint_may_have_32_kib_and_must_end_in_a_newline() {
        let json = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
        let longest = json(MAX_CHECKPOINT_BYTES);
        let (read, _) = report(&format!("checkpoint {longest}\n"));
        assert_eq!(read.checkpoint.unwrap().get(), longest);
        // Each of these would be valid JSON if only its beginning were read.
        for text in
            [format!("checkpoint {}\n", "1".repeat(MAX_CHECKPOINT_BYTES + 1)), "checkpoint 12".to_owned()]
        {
            let (read, _) = report(&text);
            assert!(read.checkpoint.is_none());
            assert_eq!(read.log, [text.trim_end().chars().take(MAX_LINE_CHARS).collect::<String>()]);
        }
    }

    #[test]
    fn lines_of_a_log_have_no_words() {
        let mut lines = ReportLines::of_log();
        let mut read = lines.push("progress 0.4\n\nlog x\nend".as_bytes());
        read.merge(lines.end());
        assert_eq!(read.log, ["progress 0.4", "log x", "end"]);
        assert!(read.progress.is_none());
    }

    /// However the bytes arrive, they report the same, within all limits.
    #[test]
    fn any_bytes_report_the_same_in_any_pieces() {
        let words: [&[u8]; 16] = [
            b"progress 0.5 x",
            b"progress",
            b"log ",
            b"checkpoint ",
            b"{\"a\":",
            b"1",
            b"}",
            b"snooze 1m",
            b"\n",
            b"\n",
            b"\r\n",
            b" ",
            b"\xff\xc3",
            "é".as_bytes(),
            b"[[[",
            &[b'x'; 5_000],
        ];
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let bytes: Vec<u8> =
                (0..random.usize(..60)).flat_map(|_| words[random.usize(..16)]).copied().collect();
            let mut whole = ReportLines::new();
            let mut expected = whole.push(&bytes);
            expected.merge(whole.end());

            let (mut pieces, mut got, mut rest) = (ReportLines::new(), Report::default(), &bytes[..]);
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(random.usize(1..=rest.len().min(7_000)));
                got.merge(pieces.push(piece));
                rest = later;
            }
            got.merge(pieces.end());
            assert_eq!(format!("{got:?}"), format!("{expected:?}"), "seed {seed}");
            assert_eq!(pieces.snooze, whole.snooze, "seed {seed}");
            assert!(got.log.len() <= MAX_LINES, "seed {seed}");
            assert!(got.log.iter().all(|line| line.chars().count() <= MAX_LINE_CHARS), "seed {seed}");
            assert!(
                got.checkpoint.is_none_or(|json| json.get().len() <= MAX_CHECKPOINT_BYTES),
                "seed {seed}"
            );
        }
    }

    #[test]
    fn lines_beyond_the_limit_are_counted() {
        let (read, _) = report(&"log x\n".repeat(MAX_LINES + 7));
        assert_eq!((read.log.len(), read.dropped), (MAX_LINES, 7));
    }
}
