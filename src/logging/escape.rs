//! Makes text from clients and jobs safe to show: it cannot start another line, control the terminal, or hide its content
//! by changing the direction of reading.

use std::fmt::Write as _;

/// Whether a character must not be shown as it is: a control character, a line or paragraph separator, or a character
/// that switches between left-to-right and right-to-left.
pub(crate) fn is_unsafe_to_show(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with each unsafe character written as Rust does, for example `\n` or `\u{1b}`.
pub(crate) fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, c| {
        if is_unsafe_to_show(c) {
            safe.extend(c.escape_default())
        } else {
            safe.push(c)
        }
        safe
    })
}

/// A JSON text on one line, with the same meaning and without unsafe characters.
///
/// In JSON a raw line break or tab can only stand between tokens, and any other unsafe character only in a string,
/// where `\uXXXX` means the same.
pub(crate) fn json_line(json: &str) -> String {
    json.trim().chars().fold(String::with_capacity(json.len()), |mut line, c| {
        match c {
            '\n' | '\r' | '\t' => line.push(' '),
            c if is_unsafe_to_show(c) => {
                // Writing to a String cannot fail.
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        assert_eq!(escape("a\x1b[2Jb\r\n\u{9b}c"), "a\\u{1b}[2Jb\\r\\n\\u{9b}c");
        assert_eq!(escape("\u{202e}gpj.exe"), "\\u{202e}gpj.exe");
        assert_eq!(escape("Größe 日本 \\n"), "Größe 日本 \\n");
    }

    #[test]
    fn a_json_line_means_the_same() {
        let json = "{\r\n\t\"a\u{9b}\": \"\u{202e}\\u001b\",\n \"n\": 1.000000000000000000000001\n}\n";
        let line = json_line(json);
        assert!(!line.chars().any(is_unsafe_to_show), "{line}");
        let before: serde_json::Value = serde_json::from_str(json).unwrap();
        let after: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(before, after);
        assert!(line.contains("1.000000000000000000000001"), "{line}");
    }
}
