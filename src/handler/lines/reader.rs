//! What the lines mean that a program writes to its stdout. Pure: no pipes, no processes.

use std::fmt;
use std::time::Duration;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::handler::results::{message_with_start, result_from_json};
use crate::job::report::{checked_progress, is_checkpoint};
use crate::job::rules::DELAY;
use crate::job::{Failure, Outcome, Report};

/// The longest line in bytes, without its end.
pub(super) const MAX_LINE: usize = 1 << 20;
/// How many characters of a refused line are part of the error.
const MAX_SHOWN: usize = 200;
/// What the buffer keeps of its memory between two jobs.
const KEPT: usize = 64 * 1024;

/// Splits a stream of bytes into lines.
#[derive(Default)]
pub(super) struct LineBuffer {
    /// Bytes that were read are appended here.
    pub bytes: Vec<u8>,
    /// Where the line begins that [`LineBuffer::next_line`] returns next.
    start: usize,
    /// Up to where no line end was found.
    searched: usize,
}

impl LineBuffer {
    /// The next whole line, without its end. `Ok(None)`: more bytes are needed.
    ///
    /// # Errors
    /// The line has more than [`MAX_LINE`] bytes. The error has its start.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, String> {
        let found = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n');
        let end = found.map_or(self.bytes.len(), |at| self.searched + at);
        if end - self.start > MAX_LINE {
            return Err(refusal("a line over 1 MiB", &self.bytes[self.start..]));
        }
        if found.is_none() {
            self.bytes.drain(..self.start);
            self.bytes.shrink_to(KEPT);
            self.start = 0;
            self.searched = self.bytes.len();
            return Ok(None);
        }
        let line = self.start..end;
        self.start = end + 1;
        self.searched = self.start;
        Ok(Some(&self.bytes[line]))
    }

    /// The start of what was read and not returned, for an error.
    pub fn shown(&self) -> String {
        refusal("to stdout while it had no job", &self.bytes[self.start..])
    }

    /// Whether all bytes belong to lines that were returned. Then the buffer is emptied.
    pub fn is_used_up(&mut self) -> bool {
        let is_used_up = self.start == self.bytes.len();
        if is_used_up {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT);
            (self.start, self.searched) = (0, 0);
        }
        is_used_up
    }
}

/// A line of a program.
pub(super) enum Said {
    /// What the attempt reports while it goes on.
    Report(Report),
    /// The outcome of the attempt.
    Answer(Outcome),
}

/// The keys that a line can have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Line<'a> {
    #[serde(borrow, default, deserialize_with = "also_null")]
    result: Option<&'a RawValue>,
    error: Option<Text>,
    permanent: Option<bool>,
    retry_after_ms: Option<f64>,
    snooze_ms: Option<f64>,
    progress: Option<f64>,
    message: Option<Text>,
    log: Option<Text>,
    #[serde(borrow, default, deserialize_with = "also_null")]
    checkpoint: Option<&'a RawValue>,
}

/// A string of JSON. A lone surrogate, which JSON can have, becomes U+FFFD: Python writes surrogates for the name of a file
/// that is not UTF-8, and JavaScript for half of a character.
#[derive(Default)]
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        struct TextVisitor;

        impl Visitor<'_> for TextVisitor {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Text, E> {
                Ok(Text(String::from_utf8_lossy(bytes).into_owned()))
            }
        }

        // As a string, a lone surrogate would be an error.
        deserializer.deserialize_bytes(TextVisitor)
    }
}

/// `null` is a value like any other.
fn also_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads a line.
///
/// # Errors
/// The line is not one of the objects that a program may write. The error has the reason, and the start of the line.
pub(super) fn read(line: &[u8]) -> Result<Said, String> {
    let read = match line.trim_ascii_start() {
        // Else an array would be read as the values of an object.
        line if line.starts_with(b"[") => Err("it is an array".to_owned()),
        line if str::from_utf8(line).is_err() => Err("it is not UTF-8".to_owned()),
        line => serde_json::from_slice(line).map_err(|error| match error.is_eof() {
            true => "its JSON does not end in this line".to_owned(),
            false => error.to_string(),
        }),
    };
    read.and_then(|read| said(read, line).map_err(str::to_owned))
        .map_err(|reason| refusal(&format!("a line that is no answer ({reason})"), line))
}

/// What a line says. `text` is the whole line.
fn said(line: Line, text: &[u8]) -> Result<Said, &'static str> {
    let answers = [line.result.is_some(), line.error.is_some(), line.snooze_ms.is_some()];
    let is_report = line.progress.is_some() || line.log.is_some() || line.checkpoint.is_some();
    let has_details = line.permanent.is_some() || line.retry_after_ms.is_some();
    match answers.into_iter().filter(|given| *given).count() {
        0 if !is_report => {
            return Err("it has none of result, error, snooze_ms, progress, log and checkpoint");
        }
        0 => {}
        1 if is_report => return Err("an answer has no progress, log and checkpoint"),
        1 => {}
        _ => return Err("it has more than one of result, error and snooze_ms"),
    }
    if has_details && line.error.is_none() {
        return Err("permanent and retry_after_ms belong to error");
    }
    if line.message.is_some() && line.progress.is_none() {
        return Err("message belongs to progress");
    }
    if let Some(result) = line.result {
        return Ok(Said::Answer(result_from_json(result).map_err(Failure::from)));
    }
    if let Some(Text(error)) = line.error {
        let message = message_with_start(if error.is_empty() { "failed" } else { &error }, b"");
        return Ok(Said::Answer(Err(match line.permanent {
            Some(true) => Failure::Permanent { message },
            _ => Failure::Retryable { message, retry_after: line.retry_after_ms.map(milliseconds) },
        })));
    }
    if let Some(time) = line.snooze_ms {
        return Ok(Said::Answer(Err(Failure::snooze(milliseconds(time)))));
    }
    let progress = line.progress.filter(|value| (0.0..=1.0).contains(value));
    let checkpoint = line.checkpoint.filter(|json| is_checkpoint(json.get()));
    let has_bad_value =
        progress.is_some() != line.progress.is_some() || checkpoint.is_some() != line.checkpoint.is_some();
    let mut report = Report {
        progress: progress.and_then(|value| checked_progress(value, &line.message.unwrap_or_default().0)),
        checkpoint: checkpoint.map(ToOwned::to_owned),
        ..Report::default()
    };
    report.add_lines(&line.log.unwrap_or_default().0);
    if has_bad_value {
        // A report is never an error.
        report.add_lines(&String::from_utf8_lossy(text));
    }
    Ok(Said::Report(report))
}

/// A negative time is none; a time that is too long is the longest that a job can wait.
fn milliseconds(number: f64) -> Duration {
    let time = Duration::try_from_secs_f64(number.max(0.0) / 1000.0);
    time.map_or(*DELAY.end(), |time| time.min(*DELAY.end()))
}

/// The error for a line, with its start.
fn refusal(what: &str, line: &[u8]) -> String {
    let start: String = String::from_utf8_lossy(&line[..line.len().min(4 * MAX_SHOWN)])
        .chars()
        .take(MAX_SHOWN)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    message_with_start(&format!("the program wrote {what}"), start.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::report::MAX_CHECKPOINT_BYTES;

    fn answer(line: &str) -> Outcome {
        match read(line.as_bytes()) {
            Ok(Said::Answer(outcome)) => outcome,
            Ok(Said::Report(report)) => panic!("{line}: {report:?}"),
            Err(error) => panic!("{line}: {error}"),
        }
    }

    fn report(line: &str) -> Report {
        match read(line.as_bytes()) {
            Ok(Said::Report(report)) => report,
            Ok(Said::Answer(outcome)) => panic!("{line}: {outcome:?}"),
            Err(error) => panic!("{line}: {error}"),
        }
    }

    fn refused(line: &str) -> String {
        match read(line.as_bytes()) {
            Err(error) => error,
            Ok(_) => panic!("{line} is taken"),
        }
    }

    #[test]
    fn a_result_is_any_json() {
        for result in ["null", "1.00000000000000000000000001", r#"{"a":[1, 2]}"#, "\"x\"", "[]"] {
            assert_eq!(answer(&format!(" {{\"result\": {result}}} \r")).unwrap().get(), result);
        }
        let deep = "[".repeat(200) + &"]".repeat(200);
        let text: String =
            serde_json::from_str(answer(&format!("{{\"result\":{deep}}}")).unwrap().get()).unwrap();
        assert_eq!(text, deep);
    }

    #[test]
    fn errors_and_snoozes_are_failures() {
        let retry = |message: &str, ms| Failure::Retryable {
            message: message.to_owned(),
            retry_after: Some(Duration::from_millis(ms)),
        };
        for (line, failure) in [
            (r#"{"error": "no"}"#, Failure::retryable("no")),
            (r#"{"error": ""}"#, Failure::retryable("failed")),
            (r#"{"error": "no", "permanent": false}"#, Failure::retryable("no")),
            (r#"{"error": "no", "permanent": true}"#, Failure::permanent("no")),
            (r#"{"error": "no", "permanent": true, "retry_after_ms": 5}"#, Failure::permanent("no")),
            (r#"{"error": "no", "retry_after_ms": 1500}"#, retry("no", 1500)),
            (r#"{"error": "no", "retry_after_ms": 1.5e3}"#, retry("no", 1500)),
            (r#"{"error": "no", "retry_after_ms": -3}"#, retry("no", 0)),
            (r#"{"error": "no", "retry_after_ms": 1e300}"#, retry("no", DELAY.end().as_millis() as u64)),
            (r#"{"error": "no", "result": null}"#, Failure::permanent("refused")),
            (r#"{"snooze_ms": 60000}"#, Failure::Snooze(Duration::from_secs(60))),
            (r#"{"snooze_ms": 0}"#, Failure::Snooze(Duration::from_secs(1))),
        ] {
            match line.contains("result") {
                true => assert!(refused(line).contains("more than one of"), "{line}"),
                false => assert_eq!(answer(line).unwrap_err(), failure, "{line}"),
            }
        }
        let half = answer(r#"{"error": "no \udcff\ud83d\ude00"}"#).unwrap_err();
        assert_eq!(half.message(), "no \u{fffd}\u{fffd}\u{fffd}\u{1f600}");
        let long = answer(&format!("{{\"error\": \"{}\"}}", "é".repeat(5_000))).unwrap_err();
        assert_eq!(long.message().chars().count(), 1_000);
    }

    #[test]
    fn reports_can_stand_alone_or_together() {
        let all = report(r#"{"progress": 0.5, "message": "half", "log": "a\nb", "checkpoint": {"page": 7}}"#);
        assert_eq!(all.progress, Some((0.5, "half".to_owned())));
        assert_eq!(all.log, ["a", "b"]);
        assert_eq!(all.checkpoint.unwrap().get(), r#"{"page": 7}"#);
        assert_eq!(report(r#"{"checkpoint": null}"#).checkpoint.unwrap().get(), "null");
        assert_eq!(report(r#"{"log": ""}"#).log, [""; 0]);
        let flood = report(&format!(r#"{{"log": "{}"}}"#, r"\n".repeat(1_000)));
        assert_eq!((flood.log.len(), flood.dropped), (100, 900));
    }

    #[test]
    fn a_report_with_a_bad_value_is_a_line_of_the_log() {
        let long = format!(r#"{{"checkpoint": "{}"}}"#, "x".repeat(MAX_CHECKPOINT_BYTES));
        let deep = format!(r#"{{"checkpoint": {}{}}}"#, "[".repeat(129), "]".repeat(129));
        for line in [r#"{"progress": 1.5, "message": "x"}"#, r#"{"progress": -1}"#, &long, &deep] {
            let bad = report(line);
            assert!(bad.progress.is_none() && bad.checkpoint.is_none(), "{line}");
            assert_eq!(bad.log, [&line[..line.len().min(1_000)]]);
        }
        let both = report(r#"{"progress": 0.5, "log": "x", "checkpoint": 7}"#);
        assert_eq!((both.progress.unwrap().0, both.log.len(), both.checkpoint.unwrap().get()), (0.5, 1, "7"));
        let line = r#"{"progress": 2, "log": "x", "checkpoint": 7}"#;
        let half = report(line);
        assert_eq!((half.log, half.checkpoint.unwrap().get()), (vec!["x".to_owned(), line.to_owned()], "7"));
    }

    #[test]
    fn any_other_line_is_refused_with_its_reason_and_its_start() {
        for (line, reason) in [
            ("", "its JSON does not end in this line"),
            ("hello", "expected value"),
            ("{", "its JSON does not end in this line"),
            ("[]", "it is an array"),
            ("\"x\"", "expected an object"),
            ("{}", "has none of result"),
            (r#"{"message": "x"}"#, "has none of result"),
            (r#"{"log": "x", "message": "x"}"#, "message belongs to progress"),
            (r#"{"result": 1, "log": "x"}"#, "an answer has no"),
            (r#"{"result": 1, "permanent": true}"#, "belong to error"),
            (r#"{"result": 1, "result": 2}"#, "duplicate field"),
            (r#"{"result": 1, "snooze_ms": 2}"#, "more than one of"),
            (r#"{"results": 1}"#, "unknown field `results`"),
            (r#"{"error": 5}"#, "invalid type: integer `5`, expected a string"),
            (r#"{"log": ["x"]}"#, "expected a string"),
            (r#"{"progress": "half"}"#, "invalid type"),
            (r#"{"result": 1} {"result": 2}"#, "trailing characters"),
        ] {
            let error = refused(line);
            assert!(error.starts_with("the program wrote a line that is no answer ("), "{error}");
            assert!(error.contains(reason) && error.ends_with(line), "{line}: {error}");
        }
        let error = refused(&format!("{}\u{1b}", "é".repeat(1_000)));
        assert!(error.ends_with(&format!("): {}", "é".repeat(200))), "{error}");
        assert!(read(b"{\"log\": \"\xff\"}").err().unwrap().contains("it is not UTF-8"));
    }

    #[test]
    fn bytes_become_lines_wherever_the_stream_is_cut() {
        let text = b"one\n\ntwo\r\nthree\nrest";
        for size in 1..=text.len() {
            let mut buffer = LineBuffer::default();
            let mut lines = Vec::new();
            for chunk in text.chunks(size) {
                buffer.bytes.extend_from_slice(chunk);
                while let Some(line) = buffer.next_line().unwrap() {
                    lines.push(String::from_utf8(line.to_vec()).unwrap());
                }
            }
            assert_eq!(lines, ["one", "", "two\r", "three"], "{size}");
            assert!(!buffer.is_used_up());
            assert_eq!(buffer.bytes, b"rest");
            buffer.bytes.push(b'\n');
            assert_eq!(buffer.next_line().unwrap(), Some(&b"rest"[..]));
            assert!(buffer.is_used_up() && buffer.bytes.is_empty());
        }
    }

    #[test]
    fn a_line_over_1_mib_is_refused_with_and_without_its_end() {
        for (length, end, is_fine) in [
            (MAX_LINE, true, true),
            (MAX_LINE, false, true),
            (MAX_LINE + 1, true, false),
            (MAX_LINE + 1, false, false),
        ] {
            let mut buffer = LineBuffer { bytes: vec![b'x'; length], ..LineBuffer::default() };
            if end {
                buffer.bytes.push(b'\n');
            }
            match buffer.next_line() {
                Ok(line) => assert!(is_fine && line.is_some() == end, "{length} {end}"),
                Err(error) => {
                    assert!(!is_fine, "{length} {end}");
                    assert_eq!(error, format!("the program wrote a line over 1 MiB: {}", "x".repeat(200)));
                }
            }
        }
    }
}
