//! Splits a stream of bytes into lines, with bounded memory.

/// The lines of a stream. Of a line that is too long only the first bytes are kept.
pub(super) struct LineSplitter {
    /// The first bytes of a line whose end has not come yet.
    kept: Vec<u8>,
    is_cut: bool,
    limit: usize,
}

/// A line without its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Line<'a> {
    /// At most as many bytes as the limit says.
    pub bytes: &'a [u8],
    /// Whether the line was longer than the limit.
    pub is_cut: bool,
    /// Whether the end of the line was there. Only the last line of a stream can be without it.
    pub has_end: bool,
}

impl LineSplitter {
    /// `limit` is the number of bytes of a line that are kept.
    pub fn new(limit: usize) -> LineSplitter {
        LineSplitter { kept: Vec::new(), is_cut: false, limit }
    }

    /// Passes the lines that end in `bytes` to `take`.
    pub fn push(&mut self, mut bytes: &[u8], mut take: impl FnMut(Line)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            if self.kept.is_empty() && end <= self.limit {
                take(Line { bytes: &bytes[..end], is_cut: false, has_end: true });
            } else {
                self.keep(&bytes[..end]);
                take(Line { bytes: &self.kept, is_cut: self.is_cut, has_end: true });
                self.kept.clear();
                self.is_cut = false;
            }
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    /// Passes the last line to `take`, if it has no end.
    pub fn end(&mut self, take: impl FnOnce(Line)) {
        if !self.kept.is_empty() {
            take(Line { bytes: &self.kept, is_cut: self.is_cut, has_end: false });
        }
        self.kept = Vec::new();
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.limit - self.kept.len();
        self.is_cut |= bytes.len() > room;
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a stream that arrives in these pieces; `!` marks a line that was cut, `…` one without an end.
    fn lines(pieces: &[&str]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut show = |line: Line| {
            let text = str::from_utf8(line.bytes).unwrap();
            let (cut, end) = (if line.is_cut { "!" } else { "" }, if line.has_end { "" } else { "…" });
            lines.push(format!("{text}{cut}{end}"));
        };
        let mut splitter = LineSplitter::new(4);
        for piece in pieces {
            splitter.push(piece.as_bytes(), &mut show);
        }
        splitter.end(&mut show);
        lines
    }

    #[test]
    fn lines_are_found_however_the_stream_is_split() {
        assert_eq!(lines(&["ab\n\ncd\n"]), ["ab", "", "cd"]);
        assert_eq!(lines(&["a", "b", "\nc", "d\ne"]), ["ab", "cd", "e…"]);
        assert_eq!(lines(&["\n", "\n"]), ["", ""]);
        assert_eq!(lines(&["", "a", ""]), ["a…"]);
    }

    #[test]
    fn long_lines_are_cut() {
        assert_eq!(lines(&["abcd\nabcde\nf\n"]), ["abcd", "abcd!", "f"]);
        assert_eq!(lines(&["abc", "defg", "hi\nj\n"]), ["abcd!", "j"]);
        assert_eq!(lines(&["abcdefg"]), ["abcd!…"]);
    }
}
