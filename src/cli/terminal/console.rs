//! The standard streams, the environment and the terminal of a command. They are arguments of the command, so that tests can
//! replace them.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use crate::cli::error::Error;
use crate::cli::terminal::progress::Bar;
use crate::cli::terminal::table::{Column, TableStyle, write_table};
use crate::logging::escape::{escape, json_line};

/// The width of a terminal that does not report it.
const DEFAULT_WIDTH: usize = 80;

/// The value of an environment variable of this process. Bytes that are not UTF-8 are replaced, so that such a value is reported
/// as invalid and not taken as unset.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// The standard streams, the environment and the terminal of a command.
pub(crate) struct Console<'a> {
    /// The source of a payload or a file named `-`.
    pub stdin: &'a mut dyn Read,
    /// The output.
    pub out: &'a mut dyn Write,
    /// Messages and the progress bar.
    pub err: &'a mut dyn Write,
    /// Looks an environment variable up. An empty variable counts as not set.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Whether `stdin` is a terminal.
    pub stdin_is_terminal: bool,
    /// Whether `out` is a terminal.
    pub out_is_terminal: bool,
    /// Whether `err` is a terminal.
    pub err_is_terminal: bool,
    /// Whether the last line of `err` is a progress bar, which the next message replaces.
    pub has_bar: bool,
}

impl Console<'_> {
    /// The value of an environment variable, unless it is empty.
    pub(crate) fn env(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    /// Stdin, and a console without stdin for messages while stdin is read.
    pub(crate) fn without_stdin<'b>(
        &'b mut self,
        nothing: &'b mut io::Empty,
    ) -> (&'b mut dyn Read, Console<'b>) {
        let rest = Console { stdin: nothing, out: self.out, err: self.err, ..*self };
        (self.stdin, rest)
    }

    /// This console with another output.
    pub(crate) fn writing_to<'b>(&'b mut self, out: &'b mut dyn Write) -> Console<'b> {
        Console { stdin: self.stdin, out, err: self.err, ..*self }
    }

    /// The style of tables. On a terminal the width is `COLUMNS`, else what the terminal reports, else 80. Elsewhere nothing is
    /// truncated.
    pub(crate) fn table_style(&self) -> TableStyle {
        let width = if self.out_is_terminal { self.width() } else { usize::MAX };
        TableStyle { width, colours: self.has_colours() }
    }

    fn width(&self) -> usize {
        let columns = self.env("COLUMNS").and_then(|text| text.parse().ok());
        let size = || Some(terminal_size()?.0);
        columns.or_else(size).filter(|&columns| columns > 0).unwrap_or(DEFAULT_WIDTH)
    }

    /// Whether the output is a terminal that supports escape sequences.
    pub(crate) fn has_sequences(&self) -> bool {
        self.out_is_terminal && self.env("TERM").as_deref() != Some("dumb")
    }

    fn has_colours(&self) -> bool {
        self.has_sequences() && self.env("NO_COLOR").is_none()
    }

    /// Whether a question can be asked on a terminal.
    pub(crate) fn can_ask(&self) -> bool {
        self.stdin_is_terminal && self.err_is_terminal
    }

    /// Prints a text that ends with a newline.
    pub(crate) fn print(&mut self, text: &str) -> Result<ExitCode, Error> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()?;
        Ok(ExitCode::SUCCESS)
    }

    /// Prints a table.
    pub(crate) fn table<const N: usize>(
        &mut self,
        columns: &[Column; N],
        rows: &[[String; N]],
    ) -> io::Result<()> {
        let style = self.table_style();
        write_table(self.out, style, columns, rows)
    }

    /// Prints JSON on one line.
    pub(crate) fn json(&mut self, json: &str) -> io::Result<()> {
        writeln!(self.out, "{}", json_line(json))
    }

    /// Prints the JSON if `wants_json`, else the line.
    pub(crate) fn json_or_line(&mut self, wants_json: bool, json: &str, line: &str) -> io::Result<()> {
        if wants_json { self.json(json) } else { writeln!(self.out, "{line}") }
    }

    /// Prints a message on stderr. An error of stderr is ignored.
    pub(crate) fn note(&mut self, text: &str) {
        self.clear_bar();
        let _ = writeln!(self.err, "threadq: {}", escape(text));
    }

    /// Whether a progress bar is shown: stderr is a terminal.
    pub(crate) fn can_show_bar(&self) -> bool {
        self.err_is_terminal && self.env("TERM").as_deref() != Some("dumb")
    }

    /// Shows the progress bar if stderr is a terminal.
    pub(crate) fn show_bar(&mut self, bar: &Bar) {
        if self.can_show_bar() {
            let line = bar.line(self.width().saturating_sub(1));
            let _ = write!(self.err, "\r{line}\x1b[K").and_then(|()| self.err.flush());
            self.has_bar = true;
        }
    }

    /// Removes the progress bar.
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
            stdin_is_terminal: false,
            out_is_terminal,
            err_is_terminal: false,
            has_bar: false,
        })
    }

    #[test]
    fn columns_sets_the_width_of_a_terminal_if_it_is_a_positive_number() {
        let width = |columns, is_terminal| {
            console_of(&[("COLUMNS", columns)], is_terminal, |console| console.table_style().width)
        };
        assert_eq!(width("123", true), 123);
        assert_eq!(width("123", false), usize::MAX);
        assert!(width("0", true) > 0);
        assert!(width("wide", true) > 0);
    }

    #[test]
    fn colours_need_a_terminal_that_has_them_and_no_no_color() {
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
