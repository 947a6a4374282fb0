//! Converts the output of a program or the body of an HTTP response into a result or an error message.

use std::borrow::Cow;

use serde_json::value::{RawValue, to_raw_value};

use crate::job::json::{MAX_DEPTH, depth_exceeds};
use crate::job::{MAX_ERROR_CHARS, MAX_RESULT_BYTES};

/// How many bytes of an output are read: one more than are kept, to find out whether the output is longer.
pub(crate) const READ_LIMIT: usize = MAX_RESULT_BYTES + 1;

/// The result for an output: the output itself if it is JSON, else a string without its last newline; null if it is empty.
///
/// An output of more than 64 KiB is cut and becomes a string. JSON keeps its text, so that numbers keep all their digits.
/// JSON that is nested too deep for a later reader becomes a string.
///
/// # Errors
/// None in practice: any string can be written as JSON.
pub(crate) fn result_from_output(output: &[u8]) -> serde_json::Result<Box<RawValue>> {
    if output.len() > MAX_RESULT_BYTES {
        return to_raw_value(cut_bytes(&String::from_utf8_lossy(output), MAX_RESULT_BYTES));
    }
    if let Some(json) = as_json(output) {
        return Ok(json);
    }
    let text = String::from_utf8_lossy(output);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    if text.is_empty() {
        return Ok(RawValue::NULL.to_owned());
    }
    // Each invalid byte became a character of three bytes.
    to_raw_value(cut_bytes(text, MAX_RESULT_BYTES))
}

/// The result for a value that is JSON already.
///
/// # Errors
/// None in practice, as for [`result_from_output`].
pub(crate) fn result_from_json(value: &RawValue) -> serde_json::Result<Box<RawValue>> {
    match depth_exceeds(value.get(), MAX_DEPTH) {
        true => to_raw_value(cut_bytes(value.get(), MAX_RESULT_BYTES)),
        false => Ok(bounded(value.to_owned())),
    }
}

fn as_json(output: &[u8]) -> Option<Box<RawValue>> {
    let text = std::str::from_utf8(output).ok()?;
    if depth_exceeds(text, MAX_DEPTH) {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// The result if it has at most 64 KiB, else its start as a string.
pub(crate) fn bounded(result: Box<RawValue>) -> Box<RawValue> {
    if result.get().len() <= MAX_RESULT_BYTES {
        return result;
    }
    let text = serde_json::from_str::<String>(result.get()).unwrap_or_else(|_| result.get().to_owned());
    to_raw_value(cut_bytes(&text, MAX_RESULT_BYTES)).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The start of the text: at most `limit` bytes, cut between two characters.
fn cut_bytes(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

/// `what: detail` as an error message. If it is too long, the end of the detail is cut.
pub(crate) fn message_with_start(what: &str, detail: &[u8]) -> String {
    join(what, detail, |detail, room| detail.chars().take(room).collect())
}

/// `what: detail` as an error message. If it is too long, the start of the detail is cut.
pub(crate) fn message_with_end(what: &str, detail: &[u8]) -> String {
    join(what, detail, |detail, room| {
        let skipped = detail.chars().count().saturating_sub(room);
        detail.chars().skip(skipped).collect()
    })
}

fn join(what: &str, detail: &[u8], cut: impl Fn(&str, usize) -> String) -> String {
    let detail: Cow<str> = String::from_utf8_lossy(detail);
    let detail = detail.trim();
    let mut message: String = what.chars().take(MAX_ERROR_CHARS).collect();
    let room = MAX_ERROR_CHARS.saturating_sub(message.chars().count() + 2);
    if !detail.is_empty() && room > 0 {
        message += ": ";
        message += &cut(detail, room);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(output: &[u8]) -> String {
        result_from_output(output).unwrap().get().to_owned()
    }

    #[test]
    fn json_stays_as_it_is() {
        assert_eq!(result(b" {\"n\": 1234567890123456789012345678901234567890.10}\n"), {
            r#"{"n": 1234567890123456789012345678901234567890.10}"#
        });
        assert_eq!(result(b"null"), "null");
        assert_eq!(result(b"\"text\"\n"), "\"text\"");
    }

    #[test]
    fn other_output_is_a_string_without_its_last_newline() {
        assert_eq!(result(b"two\nlines\n"), r#""two\nlines""#);
        assert_eq!(result(b"{\"a\": 1} {}"), r#""{\"a\": 1} {}""#);
        assert_eq!(result(b"\xff\n"), "\"\u{fffd}\"");
    }

    #[test]
    fn empty_output_is_null() {
        assert_eq!(result(b""), "null");
        assert_eq!(result(b"\n"), "null");
    }

    #[test]
    fn over_64_kib_is_cut_to_a_string_between_characters() {
        let text = "é".repeat(MAX_RESULT_BYTES);
        let cut: String = serde_json::from_str(&result(text.as_bytes())).unwrap();
        assert_eq!(cut.len(), MAX_RESULT_BYTES);

        let number = "1".repeat(MAX_RESULT_BYTES + 1);
        let cut: String = serde_json::from_str(&result(number.as_bytes())).unwrap();
        assert_eq!(cut.len(), MAX_RESULT_BYTES);
        assert_eq!(result(&number.as_bytes()[1..]), number[1..]);

        let broken: String = serde_json::from_str(&result(&[0xff; MAX_RESULT_BYTES])).unwrap();
        assert!(broken.len() <= MAX_RESULT_BYTES);
    }

    #[test]
    fn json_nested_too_deep_is_a_string() {
        let deep = "[".repeat(30_000) + &"]".repeat(30_000);
        let text: String = serde_json::from_str(&result(deep.as_bytes())).unwrap();
        assert_eq!(text, deep);
    }

    #[test]
    fn messages_keep_the_asked_end_and_at_most_1000_characters() {
        assert_eq!(message_with_start("status 500", b" oops\n"), "status 500: oops");
        assert_eq!(message_with_start("status 500", b" \n"), "status 500");
        let long = format!("start{}end", "é".repeat(2000));
        let start = message_with_start("x", long.as_bytes());
        assert!(start.starts_with("x: start") && start.chars().count() == MAX_ERROR_CHARS);
        let end = message_with_end("x", long.as_bytes());
        assert!(end.ends_with("end") && end.chars().count() == MAX_ERROR_CHARS);
    }
}
