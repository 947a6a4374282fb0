//! The command line of the program: the first argument names a command, which is run.
//!
//! Each command is a `Command` in a file of `commands`, and is listed in `COMMANDS`. The parser, the help and the completions
//! are derived from that list. All commands but `serve`, `check` and `doctor` send requests to the HTTP API of a running
//! server and do not connect to Redis.

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

use args::{Args, Command, Run, command_names, find};
use client::{connect, connect_to_probe};
use commands::help::overview;
use error::Error;
use terminal::console::{Console, environment};

/// All commands, in the order of the help.
static COMMANDS: [&Command; 21] = [
    &commands::serve::SERVE,
    &commands::serve::CHECK,
    &commands::doctor::DOCTOR,
    &commands::enqueue::ENQUEUE,
    &commands::jobs::JOBS,
    &commands::jobs::SHOW,
    &commands::logs::LOGS,
    &commands::jobs::RETRY,
    &commands::jobs::CANCEL,
    &commands::jobs::DELETE,
    &commands::bulk::BULK,
    &commands::dlq::DLQ,
    &commands::stats::STATS,
    &commands::stats::QUEUES,
    &commands::workers::WORKERS,
    &commands::schedules::SCHEDULES,
    &commands::limits::LIMITS,
    &commands::top::TOP,
    &commands::health::HEALTH,
    &commands::help::HELP,
    &commands::help::COMPLETIONS,
];

/// What the first argument asks for.
enum First {
    Help,
    Version,
    Command(String),
}

/// Runs the program with the arguments of this process.
pub fn run() -> ExitCode {
    let args = lexopt::Parser::from_env();
    // Not locked here: `serve` writes from other threads too.
    let (mut stdin, mut out, mut err) = (io::stdin(), io::stdout(), io::stderr());
    let (out_is_terminal, err_is_terminal) = (out.is_terminal(), err.is_terminal());
    let stdin_is_terminal = stdin.is_terminal();
    let mut console = Console {
        stdin: &mut stdin,
        out: &mut out,
        err: &mut err,
        env: &environment,
        stdin_is_terminal,
        out_is_terminal,
        err_is_terminal,
        has_bar: false,
    };
    run_in(args, &mut console)
}

/// Runs the program with this console.
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
        Some(Arg::Short(letter)) => Err(early_flag(&format!("-{letter}"))),
        Some(Arg::Long(name)) => Err(early_flag(&format!("--{name}"))),
        None => Err(Error::Usage(format!("missing command; commands: {}", command_names(&COMMANDS)))),
    }
}

fn early_flag(flag: &str) -> Error {
    let names = command_names(&COMMANDS);
    Error::Usage(format!("unexpected flag {flag} before the command; commands: {names}"))
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
    // A closed pipe or a full disk may show only now, when the buffer is written.
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
        assert!(
            done.err.starts_with("threadq: unknown command \"paint\"; commands: serve, "),
            "{}",
            done.err
        );
    }

    #[test]
    fn every_example_names_its_command_and_known_flags() {
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
    fn an_unknown_command_is_an_error_that_lists_all_commands() {
        let cases = [
            (vec![], "threadq: missing command; commands: serve, "),
            (vec!["job"], "threadq: unknown command \"job\"; commands: serve, "),
            (vec!["--json", "jobs"], "threadq: unexpected flag --json before the command; commands: serve, "),
            (vec!["-x"], "threadq: unexpected flag -x before the command; commands: serve, "),
        ];
        for (args, expected) in cases {
            let done = run(&args);
            assert_eq!((done.code, done.out.as_str()), (2, ""));
            assert!(done.err.starts_with(expected), "{}", done.err);
            assert!(done.err.ends_with(", help, completions\n"), "{}", done.err);
        }
    }

    /// An output on which every write fails, like a closed pipe or a full disk.
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
    fn a_closed_pipe_is_not_a_failure() {
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
