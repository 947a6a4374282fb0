//! The program's command line: finds the command by its first word and runs it.
//!
//! Each command is a `Command` in the file of its group, listed in `COMMANDS`: the help, the completions and the parsing
//! are made from it. Most commands talk to the HTTP API of a running server and know nothing of Redis.

mod allocator;
mod args;
mod client;
mod commands;
mod error;
pub(crate) mod responses;
mod systemd;
mod terminal;
#[cfg(test)]
mod testing;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use lexopt::Arg;

use args::{Args, Command, Run, command_names, find, unknown_command};
use client::{connect, connect_to_probe};
use commands::help::overview;
use error::Error;
use terminal::console::{Console, environment};

/// All commands, in the order of the help.
static COMMANDS: [&Command; 16] = [
    &commands::serve::SERVE,
    &commands::serve::CHECK,
    &commands::doctor::DOCTOR,
    &commands::enqueue::ENQUEUE,
    &commands::jobs::JOBS,
    &commands::jobs::SHOW,
    &commands::jobs::RETRY,
    &commands::jobs::CANCEL,
    &commands::jobs::DELETE,
    &commands::dlq::DLQ,
    &commands::stats::STATS,
    &commands::stats::QUEUES,
    &commands::top::TOP,
    &commands::health::HEALTH,
    &commands::help::HELP,
    &commands::help::COMPLETIONS,
];

/// The first word of the command line.
enum First {
    Help,
    Version,
    Command(String),
}

/// Runs the program with the arguments of this process.
pub fn run() -> ExitCode {
    let args = lexopt::Parser::from_env();
    // Locked for each write, not for good: `serve` writes from other threads too.
    let (mut stdin, mut out, mut err) = (io::stdin(), io::stdout(), io::stderr());
    let (out_is_terminal, err_is_terminal) = (out.is_terminal(), err.is_terminal());
    let mut console = Console {
        stdin: &mut stdin,
        out: &mut out,
        err: &mut err,
        env: &environment,
        out_is_terminal,
        err_is_terminal,
        has_bar: false,
    };
    run_in(args, &mut console)
}

/// Runs the program in these surroundings.
fn run_in(mut args: lexopt::Parser, console: &mut Console) -> ExitCode {
    let done = first(&mut args).and_then(|first| match first {
        First::Help => console.print(&overview(&COMMANDS)),
        First::Version => console.print(concat!("threadq ", env!("CARGO_PKG_VERSION"), "\n")),
        First::Command(name) => run_command(find(&COMMANDS, &name)?, args, console),
    });
    done.unwrap_or_else(|error| fail(&error, console))
}

fn first(args: &mut lexopt::Parser) -> Result<First, Error> {
    match args.next().map_err(args::usage)? {
        Some(Arg::Short('h') | Arg::Long("help")) => Ok(First::Help),
        Some(Arg::Short('V') | Arg::Long("version")) => Ok(First::Version),
        Some(Arg::Value(word)) => Ok(First::Command(word.to_string_lossy().into_owned())),
        Some(Arg::Short(letter)) => Err(unknown_command(&COMMANDS, &format!("-{letter}"))),
        Some(Arg::Long(name)) => Err(unknown_command(&COMMANDS, &format!("--{name}"))),
        None => Err(Error::Usage(format!("no command is given; there is {}", command_names(&COMMANDS)))),
    }
}

fn run_command(
    command: &'static Command,
    mut parser: lexopt::Parser,
    console: &mut Console,
) -> Result<ExitCode, Error> {
    match command.run {
        Run::Configured(run) => {
            let words = parser.raw_args().map_err(args::usage)?;
            if words.as_slice().iter().any(|word| word == "--help" || word == "-h") {
                return console.print(&command.help());
            }
            Ok(run(parser))
        }
        Run::Client(run) => with_args(command, &mut parser, console, |args, console| {
            run(args, &connect(args.text("server"), args.text("ca-file"), console)?, console)
        }),
        Run::Probe(run) => with_args(command, &mut parser, console, |args, console| {
            run(args, &connect_to_probe(args.text("server"), args.text("ca-file"), console)?, console)
        }),
        Run::Catalog(run) => {
            with_args(command, &mut parser, console, |args, console| run(args, &COMMANDS, console))
        }
    }
}

fn with_args(
    command: &'static Command,
    parser: &mut lexopt::Parser,
    console: &mut Console,
    run: impl Fn(&Args, &mut Console) -> Result<ExitCode, Error>,
) -> Result<ExitCode, Error> {
    let args = Args::parse(command, parser)?;
    if args.has("help") {
        return console.print(&command.help());
    }
    let code = run(&args, console)?;
    // What is still buffered may meet a closed pipe or a full disk only now.
    console.out.flush()?;
    Ok(code)
}

fn fail(error: &Error, console: &mut Console) -> ExitCode {
    if !error.is_silent() {
        console.note(&error.to_string());
    }
    error.exit_code()
}

#[cfg(test)]
mod tests {
    use super::testing::{FakeServer, run, run_into};
    use super::*;

    #[test]
    fn help_lists_every_command() {
        for flag in ["--help", "-h", "help"] {
            let done = run(&[flag]);
            assert_eq!((done.code, done.err.as_str()), (0, ""));
            for command in COMMANDS {
                assert!(
                    done.out.contains(&format!("\n  {} ", command.name)),
                    "{}: {}",
                    command.name,
                    done.out
                );
            }
            assert!(done.out.lines().all(|line| line.len() <= 100), "{}", done.out);
        }
    }

    #[test]
    fn every_command_has_help_with_its_flags_and_examples() {
        for command in COMMANDS {
            let done = run(&[command.name, "--help"]);
            assert_eq!((done.code, done.err.as_str()), (0, ""));
            assert!(done.out.starts_with(&format!("usage: threadq {}", command.name)), "{}", done.out);
            for flag in command.all_flags() {
                assert!(done.out.contains(&format!("\n  {flag} ")), "{flag}: {}", done.out);
            }
            let asks_a_server = matches!(command.run, Run::Client(_) | Run::Probe(_));
            assert_eq!(done.out.contains("--server URL"), asks_a_server, "{}", done.out);
            assert!(done.out.contains(&format!("examples:\n  threadq {}", command.name)), "{}", done.out);
            assert_eq!(run(&["help", command.name]).out, done.out);
        }
        let done = run(&["help", "paint"]);
        assert_eq!((done.code, done.out.as_str()), (2, ""));
        assert!(done.err.starts_with("threadq: \"paint\" is no command; there is serve, "), "{}", done.err);
    }

    #[test]
    fn every_example_can_be_taken_apart() {
        for command in COMMANDS {
            for example in command.examples {
                assert!(example.starts_with(command.name), "{example}");
                for flag in example.split(' ').filter_map(|word| word.strip_prefix("--")) {
                    assert!(command.all_flags().any(|known| known.name == flag), "{example}: --{flag}");
                }
            }
        }
    }

    #[test]
    fn the_version_is_that_of_the_crate() {
        let done = run(&["--version"]);
        assert_eq!((done.code, done.out), (0, format!("threadq {}\n", env!("CARGO_PKG_VERSION"))));
    }

    #[test]
    fn what_is_no_command_is_answered_with_what_is() {
        let cases = [
            (vec![], "threadq: no command is given; there is serve, "),
            (vec!["job"], "threadq: \"job\" is no command; there is serve, "),
            (vec!["--json", "jobs"], "threadq: \"--json\" is no command; there is serve, "),
            (vec!["-x"], "threadq: \"-x\" is no command; there is serve, "),
        ];
        for (args, expected) in cases {
            let done = run(&args);
            assert_eq!((done.code, done.out.as_str()), (2, ""));
            assert!(done.err.starts_with(expected), "{}", done.err);
            assert!(done.err.ends_with(", help, completions\n"), "{}", done.err);
        }
    }

    /// Output that breaks off, like a pipe to `head` or a full disk.
    struct Broken(io::ErrorKind);

    impl io::Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_leaves_early_is_no_failure() {
        let server = FakeServer::start(&[(200, r#"{"queues": []}"#)]);
        let mut out = Broken(io::ErrorKind::BrokenPipe);
        assert_eq!(run_into(&["queues"], &server.url, &mut out), (0, String::new()));
        assert_eq!(run_into(&["--help"], "", &mut out), (0, String::new()));
    }

    #[test]
    fn a_full_disk_is_a_failure() {
        let server = FakeServer::start(&[(200, r#"{"queues": []}"#)]);
        let (code, err) = run_into(&["queues"], &server.url, &mut Broken(io::ErrorKind::StorageFull));
        assert_eq!(code, 1);
        assert!(err.starts_with("threadq: cannot write the output: "), "{err}");
    }
}
