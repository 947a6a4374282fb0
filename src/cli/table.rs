//! Plain tables: a title line, aligned columns, cut to the width of the terminal.

use std::io::{self, Write};

use super::escape::escape;

/// Between two columns.
const GAP: &str = "  ";
/// A column is not cut below this, however narrow the terminal.
const LEAST_WIDTH: usize = 6;

/// A column of a table.
pub(super) struct Column {
    title: &'static str,
    /// Whether a long value may lose its end; an id that did would be of no use.
    may_cut: bool,
}

/// A column whose values are always shown whole.
pub(super) const fn whole(title: &'static str) -> Column {
    Column { title, may_cut: false }
}

/// A column whose values lose their end if there is no room.
pub(super) const fn cut(title: &'static str) -> Column {
    Column { title, may_cut: true }
}

/// Writes rows under the titles of their columns, in at most `width` characters a line where that is possible.
pub(super) fn write_table<const N: usize>(
    out: &mut dyn Write,
    width: usize,
    columns: &[Column; N],
    rows: &[[String; N]],
) -> io::Result<()> {
    let titles = columns.each_ref().map(|column| column.title.to_owned());
    let lines: Vec<[String; N]> = std::iter::once(&titles).chain(rows).map(escape_all).collect();
    let mut widths: [usize; N] =
        std::array::from_fn(|i| lines.iter().map(|line| length(&line[i])).max().unwrap_or(0));
    shrink(&mut widths, columns, width);
    for line in &lines {
        let cells: [String; N] = std::array::from_fn(|i| fit(&line[i], widths[i]));
        writeln!(out, "{}", cells.join(GAP).trim_end())?;
    }
    Ok(())
}

fn escape_all<const N: usize>(cells: &[String; N]) -> [String; N] {
    cells.each_ref().map(|cell| escape(cell))
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// Takes from the widest column that may be cut until the line fits.
fn shrink<const N: usize>(widths: &mut [usize; N], columns: &[Column; N], width: usize) {
    let gaps = GAP.len() * N.saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > width {
        let widest = (0..N)
            .filter(|&i| columns[i].may_cut && widths[i] > LEAST_WIDTH.max(length(columns[i].title)))
            .max_by_key(|&i| widths[i]);
        match widest {
            Some(i) => widths[i] -= 1,
            None => return,
        }
    }
}

/// The text in exactly `width` characters: filled with spaces, or cut with a mark.
fn fit(text: &str, width: usize) -> String {
    if length(text) <= width {
        return format!("{text:width$}");
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [whole("ID"), cut("TYPE"), cut("ERROR")];

    fn table(width: usize, rows: &[[&str; 3]]) -> String {
        let rows: Vec<[String; 3]> = rows.iter().map(|row| row.map(str::to_owned)).collect();
        let mut out = Vec::new();
        write_table(&mut out, width, &COLUMNS, &rows).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_aligned() {
        let text = table(80, &[["1", "Encode Video", "bad"], ["1000", "x", ""]]);
        assert_eq!(text, "ID    TYPE          ERROR\n1     Encode Video  bad\n1000  x\n");
    }

    #[test]
    fn a_long_value_is_cut_and_an_id_never() {
        let long = "e".repeat(500);
        let text = table(40, &[["1764000000000123", "Größe", &long]]);
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("1764000000000123  Größe  eee"), "{line}");
        assert!(line.ends_with('…'), "{line}");
        assert_eq!(line.chars().count(), 40);
    }

    #[test]
    fn a_terminal_too_narrow_still_shows_ids() {
        let text = table(5, &[["1764000000000123", "Encode Video", "boom boom boom"]]);
        assert!(text.contains("1764000000000123  Encod…  boom …"), "{text}");
    }

    #[test]
    fn a_value_cannot_break_its_line() {
        let text = table(80, &[["1", "a\nb", "\x1b[2J"]]);
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains('\x1b'), "{text:?}");
    }
}
