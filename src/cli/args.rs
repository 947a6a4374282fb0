//! The description of a command. Its parser, its help and its usage errors are derived from it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::str::FromStr;

use lexopt::Arg;

use super::client::Client;
use super::error::Error;
use crate::cli::terminal::console::Console;
use crate::config::{help_settings, setting_flags};
use crate::job::JobId;
use crate::job::rules::{self, TextRule};
use crate::job::time::parse_rfc3339_micros;

/// One command of the program.
pub(super) struct Command {
    /// The name on the command line.
    pub name: &'static str,
    /// The operands, as in the usage line; empty if the command takes none.
    pub operands: &'static str,
    /// What the command does: a first sentence for the overview, then more.
    pub about: &'static str,
    /// The flags of this command alone. `--help` is added to each command, `--server` and `--ca-file` to those that send
    /// requests to a server.
    pub flags: &'static [Flag],
    /// Example command lines without the leading `threadq `.
    pub examples: &'static [&'static str],
    /// Runs the command.
    pub run: Run,
}

/// All commands of the program.
pub(super) type Commands = &'static [&'static Command];

/// How a command runs, by what it needs.
pub(super) enum Run {
    /// Sends requests to a server, with the API token.
    Client(fn(&Args, &Client, &mut Console) -> Result<ExitCode, Error>),
    /// Sends requests to a server, without a token.
    Probe(fn(&Args, &Client, &mut Console) -> Result<ExitCode, Error>),
    /// Prints something about all commands.
    Catalog(fn(&Args, Commands, &mut Console) -> Result<ExitCode, Error>),
    /// Takes the settings of a server as flags too, and parses its command line itself.
    Configured(fn(lexopt::Parser) -> ExitCode),
}

/// A flag of a command. A name of one letter has one dash on the command line, other names have two.
#[derive(Clone, Copy)]
pub(super) struct Flag {
    /// Without the dashes.
    pub name: &'static str,
    /// The name of the value in the help; empty for a flag without a value. Ends with `..` if the flag can be repeated.
    pub value: &'static str,
    /// The text of the help.
    pub help: &'static str,
}

/// The flag of every command that can print JSON.
pub(super) const JSON: Flag =
    Flag { name: "json", value: "", help: "print the JSON of the server on one line" };

/// A flag of the commands that send requests to a server.
const SERVER: Flag = Flag {
    name: "server",
    value: "URL",
    help: "URL of the server [env: THREADQ_SERVER; default: http://127.0.0.1:8080]",
};

/// A flag of the commands that send requests to a server.
const CA_FILE: Flag = Flag {
    name: "ca-file",
    value: "FILE",
    help: "trust the authorities in this file (PEM) for https:// [env: THREADQ_CA_FILE, SSL_CERT_FILE]",
};

/// The flag of every command.
const HELP: Flag = Flag { name: "help", value: "", help: "print this help" };

impl Command {
    /// The first sentence of `about`.
    pub(super) fn summary(&self) -> String {
        self.about.split_inclusive('.').next().unwrap_or_default().replace('\n', " ")
    }

    /// The flags of this command, those of its kind, and `--help`; without the settings.
    fn own_flags(&self) -> impl Iterator<Item = Flag> {
        let asks = matches!(self.run, Run::Client(_) | Run::Probe(_));
        let server = asks.then_some([SERVER, CA_FILE]).into_iter().flatten();
        self.flags.iter().copied().chain(server).chain([HELP])
    }

    /// All flags, with the settings if the command takes them.
    pub(super) fn all_flags(&self) -> impl Iterator<Item = Flag> {
        let takes_settings = matches!(self.run, Run::Configured(_));
        let settings = takes_settings.then(setting_flags).into_iter().flatten();
        self.own_flags().chain(settings.map(|[name, value, help]| Flag { name, value, help }))
    }

    fn flag(&self, name: &str) -> Result<Flag, Error> {
        self.own_flags().find(|flag| flag.name == name).ok_or_else(|| self.unknown_flag(&spelled(name)))
    }

    fn unknown_flag(&self, flag: &str) -> Error {
        let allowed: Vec<String> = self.own_flags().map(|flag| spelled(flag.name)).collect();
        Error::Usage(format!("unknown flag {flag}; flags of {}: {}", self.name, allowed.join(", ")))
    }

    fn usage(&self) -> String {
        let words = if self.operands.is_empty() { String::new() } else { format!(" {}", self.operands) };
        format!("threadq {}{words} [flags]", self.name)
    }

    /// The text of `threadq COMMAND --help`.
    pub(super) fn help(&self) -> String {
        let mut text = format!("usage: {}\n\n{}\n\nflags:\n", self.usage(), self.about);
        let width = self.own_flags().map(|flag| flag.to_string().len()).max().unwrap_or(0);
        for flag in self.own_flags() {
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(text, "  {:width$}  {}", flag.to_string(), flag.help);
        }
        if matches!(self.run, Run::Configured(_)) {
            text.push_str("\nsettings; each is also an environment variable (THREADQ_MAX_BODY) and a key of the configuration file (max-body):\n");
            text.push_str(&help_settings());
        }
        text.push_str("\nexamples:\n");
        for example in self.examples {
            let _ = writeln!(text, "  threadq {example}");
        }
        text
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&spelled(self.name))?;
        if self.value.is_empty() { Ok(()) } else { write!(f, " {}", self.value) }
    }
}

/// The name of a flag with its dashes.
pub(super) fn spelled(name: &str) -> String {
    if name.len() == 1 { format!("-{name}") } else { format!("--{name}") }
}

/// The command with this name.
pub(super) fn find(commands: Commands, name: &str) -> Result<&'static Command, Error> {
    commands
        .iter()
        .copied()
        .find(|command| command.name == name)
        .ok_or_else(|| unknown_command(commands, name))
}

/// The error for a word that does not name a command.
fn unknown_command(commands: Commands, word: &str) -> Error {
    Error::Usage(format!("unknown command {word:?}; commands: {}", command_names(commands)))
}

/// `serve, check, ..`.
pub(super) fn command_names(commands: Commands) -> String {
    commands.iter().map(|command| command.name).collect::<Vec<_>>().join(", ")
}

/// A parsed command line.
pub(super) struct Args {
    command: &'static Command,
    /// The values of each flag that was given; empty text for a flag without a value.
    values: HashMap<&'static str, Vec<String>>,
    operands: Vec<String>,
}

impl Args {
    /// Parses what follows the name of the command.
    pub(super) fn parse(command: &'static Command, parser: &mut lexopt::Parser) -> Result<Args, Error> {
        let mut args = Args { command, values: HashMap::new(), operands: Vec::new() };
        while let Some(arg) = parser.next().map_err(usage)? {
            match arg {
                Arg::Short('h') => args.set(HELP, String::new())?,
                Arg::Value(word) => args.operands.push(text(word)?),
                Arg::Short(letter) => {
                    let flag = command.flag(letter.encode_utf8(&mut [0; 4]))?;
                    args.set_from(flag, parser)?;
                }
                Arg::Long(name) if name.len() == 1 => {
                    return Err(command.unknown_flag(&format!("--{name}")));
                }
                Arg::Long(name) => {
                    let flag = command.flag(name)?;
                    args.set_from(flag, parser)?;
                }
            }
        }
        Ok(args)
    }

    fn set_from(&mut self, flag: Flag, parser: &mut lexopt::Parser) -> Result<(), Error> {
        let value = match flag.value {
            "" => String::new(),
            _ => text(parser.value().map_err(|_| missing_value(flag))?)?,
        };
        self.set(flag, value)
    }

    fn set(&mut self, flag: Flag, value: String) -> Result<(), Error> {
        let values = self.values.entry(flag.name).or_default();
        if !values.is_empty() && !flag.value.ends_with("..") {
            return Err(Error::Usage(format!("{}: given twice; allowed: once", spelled(flag.name))));
        }
        values.push(value);
        Ok(())
    }

    /// Whether the flag was given.
    pub(super) fn has(&self, flag: &str) -> bool {
        debug_assert!(self.command.own_flags().any(|known| known.name == flag), "no flag --{flag}");
        self.values.contains_key(flag)
    }

    /// The value of a flag that was given.
    pub(super) fn text(&self, flag: &str) -> Option<&str> {
        self.has(flag).then(|| self.values[flag][0].as_str())
    }

    /// The values of a flag that can be repeated, each converted by `read`, as in [`Args::read`].
    pub(super) fn read_all<T>(
        &self,
        flag: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Error> {
        let values = if self.has(flag) { &self.values[flag][..] } else { &[] };
        let invalid = |text: &str, allowed| Error::Usage(format!("--{flag} {text:?}: {allowed}"));
        values.iter().map(|text| read(text).map_err(|allowed| invalid(text, allowed))).collect()
    }

    /// The value of a flag that was given, converted by `read`. An error of `read` is a clause that says what is allowed.
    pub(super) fn read<T, E: fmt::Display>(
        &self,
        flag: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Error> {
        let Some(text) = self.text(flag) else { return Ok(None) };
        read(text).map(Some).map_err(|allowed| Error::Usage(format!("{} {text:?}: {allowed}", spelled(flag))))
    }

    /// A usage error if one of `flags` was given, none of which is allowed with `form`.
    pub(super) fn refuse(&self, flags: &[&str], form: &str) -> Result<(), Error> {
        match flags.iter().find(|flag| self.has(flag)) {
            None => Ok(()),
            Some(flag) => {
                let name = self.command.name;
                let flag = spelled(flag);
                Err(Error::Usage(format!("{flag}: not allowed with {form}; see threadq {name} --help")))
            }
        }
    }

    /// A usage error if one of `flags` was given without `base`, which they belong to.
    pub(super) fn require(&self, base: &str, flags: &[&str]) -> Result<(), Error> {
        match flags.iter().find(|flag| self.has(flag)) {
            Some(flag) if !self.has(base) => {
                let name = self.command.name;
                Err(Error::Usage(format!("--{flag}: needs --{base}; see threadq {name} --help")))
            }
            _ => Ok(()),
        }
    }

    /// The operands: the arguments that are neither flags nor their values.
    pub(super) fn operands(&self) -> Vec<&str> {
        self.operands.iter().map(String::as_str).collect()
    }

    /// The one operand: the id of a job.
    pub(super) fn job_id(&self) -> Result<JobId, Error> {
        let operands = self.operands();
        let [id] = operands[..] else { return Err(self.unexpected_operands()) };
        id.parse().map_err(|error| Error::Usage(format!("ID {id:?}: {error}")))
    }

    /// The usage error for operands that the command does not take.
    pub(super) fn unexpected_operands(&self) -> Error {
        match self.operands[..] {
            [] => self.missing_operand(self.command.operands),
            [_] => self.usage_error("unexpected argument", &self.operands[0]),
            _ => self.usage_error("unexpected arguments", &self.operands.join(" ")),
        }
    }

    /// The usage error for an operand that was not given.
    pub(super) fn missing_operand(&self, name: &str) -> Error {
        self.usage_error("missing argument", name)
    }

    fn usage_error(&self, problem: &str, operands: &str) -> Error {
        Error::Usage(format!("{problem}: {operands}; usage: {}", self.command.usage()))
    }

    /// A usage error if there is any operand.
    pub(super) fn no_operands(&self) -> Result<(), Error> {
        if self.operands.is_empty() { Ok(()) } else { Err(self.unexpected_operands()) }
    }
}

/// A reader for [`Args::read`]: a whole number in this range.
pub(super) fn whole_number<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String>
where
    T: FromStr + PartialOrd + fmt::Display,
{
    move |text| {
        text.parse()
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| format!("must be {}", rules::whole_number_in(&range)))
    }
}

/// A reader for [`Args::read`]: a job type.
pub(super) fn job_type(text: &str) -> Result<String, String> {
    valid_text(text, &rules::JOB_TYPE)
}

/// A reader for [`Args::read`]: the name of a queue.
pub(super) fn queue_name(text: &str) -> Result<String, String> {
    valid_text(text, &rules::QUEUE_NAME)
}

/// A reader for [`Args::read`]: a time in RFC 3339, which the API gets as it was given.
pub(super) fn time(text: &str) -> Result<String, String> {
    match parse_rfc3339_micros(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("must be a time as in RFC 3339, like 2026-11-24T08:00:00Z".to_owned()),
    }
}

/// A reader for [`Args::read`]: an Idempotency-Key.
pub(super) fn idempotency_key(text: &str) -> Result<String, String> {
    valid_text(text, &rules::IDEMPOTENCY_KEY)
}

/// The text, if this rule accepts it.
pub(super) fn valid_text(text: &str, rule: &TextRule) -> Result<String, String> {
    match rule.accepts(text) {
        true => Ok(text.to_owned()),
        false => Err(format!("must be {}", rule.allowed)),
    }
}

/// The usage error for an error of lexopt, which is one line.
pub(super) fn usage(error: lexopt::Error) -> Error {
    Error::Usage(error.to_string())
}

fn missing_value(flag: Flag) -> Error {
    Error::Usage(format!("{}: the value is missing; usage: {flag}", spelled(flag.name)))
}

fn text(word: OsString) -> Result<String, Error> {
    word.into_string().map_err(|word| Error::Usage(format!("the argument {word:?} is not valid UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    static COMMAND: Command = Command {
        name: "paint",
        operands: "WALL",
        about: "Paints a wall.",
        flags: &[
            Flag { name: "coats", value: "N", help: "how many" },
            Flag { name: "w", value: "CM", help: "the width of the brush" },
            JSON,
        ],
        examples: &["paint north --coats 2"],
        run: Run::Client(|_, _, _| Ok(ExitCode::SUCCESS)),
    };

    fn parse(words: &[&str]) -> Result<Args, String> {
        Args::parse(&COMMAND, &mut lexopt::Parser::from_args(words)).map_err(|error| error.to_string())
    }

    fn usage_error(words: &[&str]) -> String {
        parse(words).err().unwrap_or_default()
    }

    #[test]
    fn flags_and_operands_may_come_in_any_order() {
        let args = parse(&["--coats=2", "north", "--json", "--", "--odd"]).unwrap();
        assert_eq!(args.read("coats", whole_number(1..=3)).unwrap(), Some(2));
        assert_eq!(args.operands(), ["north", "--odd"]);
        assert!(args.has("json"));
        assert!(!args.has("help"));
    }

    #[test]
    fn a_value_may_start_with_a_dash() {
        let args = parse(&["--coats", "-5"]).unwrap();
        assert_eq!(args.text("coats"), Some("-5"));
    }

    #[test]
    fn a_flag_of_one_letter_has_one_dash() {
        assert_eq!(parse(&["-w", "12"]).unwrap().text("w"), Some("12"));
        assert_eq!(parse(&["-w12"]).unwrap().text("w"), Some("12"));
        assert_eq!(usage_error(&["-w"]), "-w: the value is missing; usage: -w CM");
        assert!(usage_error(&["--w", "12"]).starts_with("unknown flag --w; "));
        assert_eq!(usage_error(&["-w1", "-w2"]), "-w: given twice; allowed: once");
    }

    #[test]
    fn a_usage_error_names_the_argument_and_what_is_allowed() {
        let unknown =
            "unknown flag --colour; flags of paint: --coats, -w, --json, --server, --ca-file, --help";
        assert_eq!(usage_error(&["--colour", "red"]), unknown);
        assert_eq!(usage_error(&["--coats"]), "--coats: the value is missing; usage: --coats N");
        assert_eq!(usage_error(&["--json", "--json"]), "--json: given twice; allowed: once");
        assert!(usage_error(&["-x"]).starts_with("unknown flag -x; flags of paint: "));
        assert!(usage_error(&["--json=1"]).contains("--json"));
        let args = parse(&["--coats", "9"]).unwrap();
        let error = args.read("coats", whole_number(1..=3)).unwrap_err();
        assert_eq!(error.to_string(), "--coats \"9\": must be a whole number from 1 to 3");
        let usage = "usage: threadq paint WALL [flags]";
        assert_eq!(args.unexpected_operands().to_string(), format!("missing argument: WALL; {usage}"));
        let args = parse(&["north", "south"]).unwrap();
        assert_eq!(
            args.unexpected_operands().to_string(),
            format!("unexpected arguments: north south; {usage}")
        );
    }

    #[test]
    fn help_shows_usage_flags_and_examples() {
        let help = COMMAND.help();
        assert!(help.starts_with("usage: threadq paint WALL [flags]\n\nPaints a wall.\n"), "{help}");
        assert!(help.contains("\n  --coats N       how many\n"), "{help}");
        assert!(help.contains("\n  --server URL    URL of the server"), "{help}");
        assert!(help.ends_with("  threadq paint north --coats 2\n"), "{help}");
    }
}
