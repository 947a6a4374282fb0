//! Tables: a title line and aligned columns, truncated to the width of the terminal.

use std::io::{self, Write};

use crate::cli::terminal::style::Style;
use crate::logging::escape::escape;

/// The space between two columns.
const GAP: &str = "  ";
/// The least width of a truncated column.
const MIN_WIDTH: usize = 6;
/// Optional columns are left out before a column is truncated below this width.
const USEFUL_WIDTH: usize = 10;

/// A column of a table.
pub(crate) struct Column {
    title: &'static str,
    /// Whether long values are truncated first.
    may_truncate: bool,
    /// Whether the column is left out on a narrow terminal.
    is_optional: bool,
    /// Whether the column is left out if all its values are empty.
    needs_values: bool,
    style: fn(&str) -> Option<Style>,
}

impl Column {
    /// The same column, left out on a terminal that is too narrow.
    pub(crate) const fn optional(self) -> Column {
        Column { is_optional: true, ..self }
    }

    /// The same column, left out if all its values are empty.
    pub(crate) const fn unless_empty(self) -> Column {
        Column { needs_values: true, ..self }
    }

    /// The least useful width, if the longest value has this width.
    fn least(&self, width: usize) -> usize {
        if self.may_truncate { width.min(USEFUL_WIDTH) } else { width }
    }

    /// The same column, with each value in the style that this function returns.
    pub(crate) const fn styled(self, style: fn(&str) -> Option<Style>) -> Column {
        Column { style, ..self }
    }
}

/// The space and the colours for a table.
#[derive(Clone, Copy)]
pub(crate) struct TableStyle {
    /// The largest width of a line, in columns of the terminal.
    pub width: usize,
    /// Whether to use colours.
    pub colours: bool,
}

/// A column whose values are truncated last.
pub(crate) const fn full(title: &'static str) -> Column {
    Column { title, may_truncate: false, is_optional: false, needs_values: false, style: |_| None }
}

/// A column whose values are truncated first.
pub(crate) const fn truncated(title: &'static str) -> Column {
    Column { title, may_truncate: true, is_optional: false, needs_values: false, style: |_| None }
}

/// Writes a title line and the rows, truncated to the width of the style as far as possible.
pub(crate) fn write_table<const N: usize>(
    out: &mut dyn Write,
    style: TableStyle,
    columns: &[Column; N],
    rows: &[[String; N]],
) -> io::Result<()> {
    let titles = columns.each_ref().map(|column| column.title.to_owned());
    let lines: Vec<[String; N]> = std::iter::once(&titles).chain(rows).map(escape_all).collect();
    let mut widths: [usize; N] =
        std::array::from_fn(|i| lines.iter().map(|line| width_of(&line[i])).max().unwrap_or(0));
    let has_values = |i: &usize| lines.iter().skip(1).any(|line| !line[*i].is_empty());
    let filled = (0..N).filter(|i| !columns[*i].needs_values || has_values(i)).collect();
    let shown = choose_columns(filled, &widths, columns, style.width);
    shrink(&mut widths, &shown, columns, style.width);
    for (number, line) in lines.iter().enumerate() {
        let cell = |&i: &usize| {
            let cell_style = if number == 0 { Some(Style::Bold) } else { (columns[i].style)(&line[i]) };
            let (text, filling) = fit(&line[i], widths[i]);
            match cell_style.filter(|_| style.colours) {
                Some(style) => style.paint(&text) + &filling,
                None => text + &filling,
            }
        };
        let cells: Vec<String> = shown.iter().map(cell).collect();
        writeln!(out, "{}", cells.join(GAP).trim_end())?;
    }
    Ok(())
}

fn escape_all<const N: usize>(cells: &[String; N]) -> [String; N] {
    cells.each_ref().map(|cell| escape(cell))
}

/// The width of a text in columns of the terminal.
pub(crate) fn width_of(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// An approximation: 2 for East Asian scripts and emoji, 0 for combining characters, else 1.
fn char_width(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}'
        | '\u{200b}'..='\u{200d}'
        | '\u{20d0}'..='\u{20ff}'
        | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

/// Returns the indices of the columns that fit. Where the columns are too wide, optional columns are left out, beginning with
/// the last column.
fn choose_columns(mut shown: Vec<usize>, widths: &[usize], columns: &[Column], width: usize) -> Vec<usize> {
    loop {
        let least: usize = shown.iter().map(|&i| columns[i].least(widths[i])).sum();
        match shown.iter().rposition(|&i| columns[i].is_optional) {
            Some(place) if least + gaps(&shown) > width => shown.remove(place),
            _ => return shown,
        };
    }
}

fn gaps(shown: &[usize]) -> usize {
    GAP.len() * shown.len().saturating_sub(1)
}

/// Narrows the widest truncatable column until the line fits. If that is not enough, narrows the last column, but never the
/// first, which holds the id.
fn shrink(widths: &mut [usize], shown: &[usize], columns: &[Column], width: usize) {
    while shown.iter().map(|&i| widths[i]).sum::<usize>() + gaps(shown) > width {
        let widest = shown
            .iter()
            .copied()
            .filter(|&i| columns[i].may_truncate && widths[i] > MIN_WIDTH.max(width_of(columns[i].title)))
            .max_by_key(|&i| widths[i]);
        let last = || shown.iter().skip(1).copied().rfind(|&i| widths[i] > MIN_WIDTH);
        match widest.or_else(last) {
            Some(i) => widths[i] -= 1,
            None => return,
        }
    }
}

/// The text in at most this width, and the spaces that fill it up to this width.
fn fit(text: &str, width: usize) -> (String, String) {
    let text = truncate(text, width);
    let filling = " ".repeat(width.saturating_sub(width_of(&text)));
    (text, filling)
}

/// The text in at most this width; `…` stands for the part that was cut off.
pub(crate) fn truncate(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let kept = text.chars().take_while(|&c| {
        let fits = char_width(c) <= room;
        room = room.saturating_sub(char_width(c));
        fits
    });
    kept.chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [full("ID"), truncated("TYPE").styled(red_x), truncated("ERROR")];

    fn red_x(text: &str) -> Option<Style> {
        (text == "x").then_some(Style::Red)
    }

    fn table(width: usize, rows: &[[&str; 3]]) -> String {
        styled_table(TableStyle { width, colours: false }, rows)
    }

    fn styled_table(style: TableStyle, rows: &[[&str; 3]]) -> String {
        let rows: Vec<[String; 3]> = rows.iter().map(|row| row.map(str::to_owned)).collect();
        let mut out = Vec::new();
        write_table(&mut out, style, &COLUMNS, &rows).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn colours_do_not_change_the_layout() {
        let rows = [["1", "Encode Video", "bad"], ["1000", "x", "b"]];
        let text = styled_table(TableStyle { width: 80, colours: true }, &rows);
        assert!(text.contains("1000  \x1b[31mx\x1b[0m             b\n"), "{text:?}");
        assert!(text.starts_with("\x1b[1mID\x1b[0m    \x1b[1mTYPE\x1b[0m"), "{text:?}");
        let plain = text.replace("\x1b[31m", "").replace("\x1b[1m", "").replace("\x1b[0m", "");
        assert_eq!(plain, table(80, &rows));
    }

    #[test]
    fn wide_characters_count_two_columns() {
        let text = table(24, &[["1", "日本語", &"日".repeat(20)], ["2", "e\u{301}", "b"]]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "1   日本語  日日日日日…");
        assert_eq!(lines[2], "2   e\u{301}       b");
        assert!(lines.iter().all(|line| width_of(line) <= 24), "{text}");
    }

    #[test]
    fn columns_are_aligned() {
        let text = table(80, &[["1", "Encode Video", "bad"], ["1000", "x", ""]]);
        assert_eq!(text, "ID    TYPE          ERROR\n1     Encode Video  bad\n1000  x\n");
    }

    #[test]
    fn a_long_value_is_truncated_but_not_an_id() {
        let long = "e".repeat(500);
        let text = table(40, &[["1764000000000123", "Größe", &long]]);
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("1764000000000123  Größe  eee"), "{line}");
        assert!(line.ends_with('…'), "{line}");
        assert_eq!(line.chars().count(), 40);
    }

    #[test]
    fn a_very_narrow_terminal_still_shows_ids() {
        let text = table(5, &[["1764000000000123", "Encode Video", "boom boom boom"]]);
        assert!(text.contains("1764000000000123  Encod…  boom …"), "{text}");
    }

    #[test]
    fn a_narrow_terminal_leaves_optional_columns_out() {
        const COLUMNS: [Column; 4] =
            [full("ID"), truncated("QUEUE").optional(), full("CREATED").optional(), truncated("ERROR")];
        let row = ["1764000000000123", "emails", "2026-11-24 08:00:00", "no space is left on the disk"];
        let titles = |width| {
            let mut out = Vec::new();
            write_table(&mut out, TableStyle { width, colours: false }, &COLUMNS, &[row.map(str::to_owned)])
                .unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(text.lines().all(|line| width_of(line) <= width), "{text}");
            text.lines().next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(titles(80), "ID QUEUE CREATED ERROR");
        assert_eq!(titles(57), "ID QUEUE CREATED ERROR");
        assert_eq!(titles(56), "ID QUEUE ERROR");
        assert_eq!(titles(36), "ID QUEUE ERROR");
        assert_eq!(titles(35), "ID ERROR");
    }

    #[test]
    fn a_value_cannot_start_a_new_line() {
        let text = table(80, &[["1", "a\nb", "\x1b[2J"]]);
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains('\x1b'), "{text:?}");
    }
}
