//! What a command has around it: standard streams, environment, width of the terminal.
//!
//! Passed in rather than reached for, so that tests run the commands as the program does.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use super::error::Error;
use super::escape::{escape, json_line};
use super::table::{Column, write_table};

/// The columns of a terminal whose width cannot be found out.
const DEFAULT_WIDTH: usize = 80;

/// The world around a command.
pub(super) struct Console<'a> {
    /// Where a payload of `-` comes from.
    pub stdin: &'a mut dyn Read,
    /// For answers.
    pub out: &'a mut dyn Write,
    /// For everything else.
    pub err: &'a mut dyn Write,
    /// An environment variable; one that is empty counts as not set.
    pub env: &'a dyn Fn(&str) -> Option<String>,
}

impl Console<'_> {
    /// The value of an environment variable, unless it is empty.
    pub(super) fn env(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    /// How many columns a table may take: `COLUMNS`, else what the terminal says, else 80.
    fn width(&self) -> usize {
        let columns = self.env("COLUMNS").and_then(|text| text.parse().ok());
        columns.or_else(terminal_width).filter(|&columns| columns > 0).unwrap_or(DEFAULT_WIDTH)
    }

    /// Answers with a text that ends its last line.
    pub(super) fn print(&mut self, text: &str) -> Result<ExitCode, Error> {
        self.out.write_all(text.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }

    /// Answers with a table.
    pub(super) fn table<const N: usize>(
        &mut self,
        columns: &[Column; N],
        rows: &[[String; N]],
    ) -> io::Result<()> {
        let width = self.width();
        write_table(self.out, width, columns, rows)
    }

    /// Answers with JSON, on one line.
    pub(super) fn json(&mut self, json: &str) -> io::Result<()> {
        writeln!(self.out, "{}", json_line(json))
    }

    /// Answers with the JSON if that is wanted, else with the line.
    pub(super) fn json_or_line(&mut self, wants_json: bool, json: &str, line: &str) -> io::Result<()> {
        if wants_json { self.json(json) } else { writeln!(self.out, "{line}") }
    }

    /// Says something beside the answer. A closed stderr is no reason to fail.
    pub(super) fn note(&mut self, text: &str) {
        let _ = writeln!(self.err, "threadq: {}", escape(text));
    }
}

fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_set_the_width_and_nonsense_does_not() {
        let width = |columns: &'static str| {
            let env = |name: &str| (name == "COLUMNS").then(|| columns.to_owned());
            Console { stdin: &mut io::empty(), out: &mut io::sink(), err: &mut io::sink(), env: &env }.width()
        };
        assert_eq!(width("123"), 123);
        assert!(width("0") > 0);
        assert!(width("wide") > 0);
    }
}
