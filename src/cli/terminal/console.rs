//! What a command has around it: standard streams, environment, width of the terminal.
//!
//! Passed in rather than reached for, so that tests run the commands as the program does.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use crate::cli::error::Error;
use crate::cli::terminal::progress::Bar;
use crate::cli::terminal::table::{Column, TableStyle, write_table};
use crate::logging::escape::{escape, json_line};

/// The columns of a terminal whose width cannot be found out.
const DEFAULT_WIDTH: usize = 80;

/// A value that is no UTF-8 must not pass for one that is not set: whoever reads it finds it wrong.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// The world around a command.
pub(crate) struct Console<'a> {
    /// Where a payload of `-` comes from.
    pub stdin: &'a mut dyn Read,
    /// For answers.
    pub out: &'a mut dyn Write,
    /// For everything else.
    pub err: &'a mut dyn Write,
    /// An environment variable; one that is empty counts as not set.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Whether a person reads `out` on a terminal.
    pub out_is_terminal: bool,
    /// Whether a person reads `err` on a terminal.
    pub err_is_terminal: bool,
    /// Whether the last line of `err` is a bar that the next thing there replaces.
    pub has_bar: bool,
}

impl Console<'_> {
    /// The value of an environment variable, unless it is empty.
    pub(crate) fn env(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    /// Stdin, and a console that has none, for reading while something is said.
    pub(crate) fn without_stdin<'b>(
        &'b mut self,
        nothing: &'b mut io::Empty,
    ) -> (&'b mut dyn Read, Console<'b>) {
        let rest = Console { stdin: nothing, out: self.out, err: self.err, ..*self };
        (self.stdin, rest)
    }

    /// A console like this one whose answers go elsewhere.
    pub(crate) fn writing_to<'b>(&'b mut self, out: &'b mut dyn Write) -> Console<'b> {
        Console { stdin: self.stdin, out, err: self.err, ..*self }
    }

    /// How tables look: for a terminal they are cut to its width, which is `COLUMNS`, else what it says, else 80; for
    /// anything else they are whole.
    pub(crate) fn table_style(&self) -> TableStyle {
        let width = if self.out_is_terminal { self.width() } else { usize::MAX };
        TableStyle { width, colours: self.has_colours() }
    }

    fn width(&self) -> usize {
        let columns = self.env("COLUMNS").and_then(|text| text.parse().ok());
        let size = || Some(terminal_size()?.0);
        columns.or_else(size).filter(|&columns| columns > 0).unwrap_or(DEFAULT_WIDTH)
    }

    /// Whether the terminal, if there is one, does more than to print: move its cursor, change colours.
    pub(crate) fn has_sequences(&self) -> bool {
        self.out_is_terminal && self.env("TERM").as_deref() != Some("dumb")
    }

    fn has_colours(&self) -> bool {
        self.has_sequences() && self.env("NO_COLOR").is_none()
    }

    /// Answers with a text that ends its last line.
    pub(crate) fn print(&mut self, text: &str) -> Result<ExitCode, Error> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()?;
        Ok(ExitCode::SUCCESS)
    }

    /// Answers with a table.
    pub(crate) fn table<const N: usize>(
        &mut self,
        columns: &[Column; N],
        rows: &[[String; N]],
    ) -> io::Result<()> {
        let style = self.table_style();
        write_table(self.out, style, columns, rows)
    }

    /// Answers with JSON, on one line.
    pub(crate) fn json(&mut self, json: &str) -> io::Result<()> {
        writeln!(self.out, "{}", json_line(json))
    }

    /// Answers with the JSON if that is wanted, else with the line.
    pub(crate) fn json_or_line(&mut self, wants_json: bool, json: &str, line: &str) -> io::Result<()> {
        if wants_json { self.json(json) } else { writeln!(self.out, "{line}") }
    }

    /// Says something beside the answer. A closed stderr is no reason to fail.
    pub(crate) fn note(&mut self, text: &str) {
        self.clear_bar();
        let _ = writeln!(self.err, "threadq: {}", escape(text));
    }

    /// Shows on a terminal how far long work is.
    pub(crate) fn show_bar(&mut self, bar: &Bar) {
        if self.err_is_terminal && self.env("TERM").as_deref() != Some("dumb") {
            let line = bar.line(self.width().saturating_sub(1));
            let _ = write!(self.err, "\r{line}\x1b[K").and_then(|()| self.err.flush());
            self.has_bar = true;
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear_bar(&mut self) {
        if std::mem::take(&mut self.has_bar) {
            let _ = write!(self.err, "\r\x1b[K").and_then(|()| self.err.flush());
        }
    }
}

/// Columns and rows of the terminal, from whichever standard stream is one.
pub(crate) fn terminal_size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    let size = size.or_else(|_| rustix::termios::tcgetwinsize(io::stderr())).ok()?;
    Some((usize::from(size.ws_col), usize::from(size.ws_row)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console_of<T>(env: &[(&str, &str)], out_is_terminal: bool, ask: impl Fn(&Console) -> T) -> T {
        let env =
            |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        ask(&Console {
            stdin: &mut io::empty(),
            out: &mut io::sink(),
            err: &mut io::sink(),
            env: &env,
            out_is_terminal,
            err_is_terminal: false,
            has_bar: false,
        })
    }

    #[test]
    fn columns_set_the_width_of_a_terminal_and_nonsense_does_not() {
        let width = |columns, is_terminal| {
            console_of(&[("COLUMNS", columns)], is_terminal, |console| console.table_style().width)
        };
        assert_eq!(width("123", true), 123);
        assert_eq!(width("123", false), usize::MAX);
        assert!(width("0", true) > 0);
        assert!(width("wide", true) > 0);
    }

    #[test]
    fn colours_are_for_terminals_that_have_them_and_people_who_want_them() {
        let colours = |env: &[(&str, &str)], is_terminal| {
            console_of(env, is_terminal, |console| console.table_style().colours)
        };
        assert!(colours(&[], true));
        assert!(colours(&[("NO_COLOR", "")], true));
        assert!(!colours(&[], false));
        assert!(!colours(&[("NO_COLOR", "1")], true));
        assert!(!colours(&[("TERM", "dumb")], true));
    }
}
