//! The program's command line: finds the command by its first word and runs it.
//!
//! Most commands talk to the HTTP API of a running server and know nothing of Redis. Each is a `Command` in
//! the file of its group, and listed in `CLIENT_COMMANDS`; the server's own commands have their arms in `run_in`.

mod answers;
mod args;
mod client;
mod console;
mod dlq;
mod doctor;
mod enqueue;
mod error;
mod escape;
mod jobs;
mod serve;
mod stats;
mod table;
#[cfg(test)]
mod testing;

use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use lexopt::Arg;

use args::{Args, Command};
use client::Client;
use console::Console;
use error::Error;

/// The commands that talk to a server.
static CLIENT_COMMANDS: [&Command; 9] = [
    &enqueue::ENQUEUE,
    &jobs::JOBS,
    &jobs::SHOW,
    &jobs::RETRY,
    &jobs::CANCEL,
    &jobs::DELETE,
    &dlq::DLQ,
    &stats::STATS,
    &stats::QUEUES,
];

/// The commands that work without a server, or are one: name and what it does.
const SERVER_COMMANDS: [(&str, &str); 3] = [
    ("serve", "Runs the server."),
    ("check", "Checks the configuration, the handlers and Redis."),
    ("doctor", doctor::ABOUT),
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
    // A value that is no UTF-8 must not pass for one that is not set: whoever reads it finds it wrong.
    let env = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    run_in(args, &mut Console { stdin: &mut stdin, out: &mut out, err: &mut err, env: &env })
}

/// Runs the program in these surroundings.
fn run_in(mut args: lexopt::Parser, console: &mut Console) -> ExitCode {
    let done = match first(&mut args) {
        Ok(First::Help) => print(&overview(), console),
        Ok(First::Version) => print(concat!("threadq ", env!("CARGO_PKG_VERSION"), "\n"), console),
        Ok(First::Command(name)) if name == "serve" => return serve::serve(args),
        Ok(First::Command(name)) if name == "check" => return serve::check(args),
        Ok(First::Command(name)) if name == "doctor" => return doctor::doctor(args),
        Ok(First::Command(name)) => run_client(&name, &mut args, console),
        Err(error) => Err(error),
    };
    // What is still buffered may meet a closed pipe or a full disk only now.
    let done = done.and_then(|code| console.out.flush().map(|()| code).map_err(Error::from));
    done.unwrap_or_else(|error| fail(&error, console))
}

fn first(args: &mut lexopt::Parser) -> Result<First, Error> {
    match args.next().map_err(args::usage)? {
        Some(Arg::Short('h') | Arg::Long("help")) => Ok(First::Help),
        Some(Arg::Short('V') | Arg::Long("version")) => Ok(First::Version),
        Some(Arg::Value(word)) => Ok(First::Command(word.to_string_lossy().into_owned())),
        Some(Arg::Short(letter)) => Err(not_a_command(&format!("-{letter}"))),
        Some(Arg::Long(name)) => Err(not_a_command(&format!("--{name}"))),
        None => Err(Error::Usage(format!("no command is given; there is {}", command_names()))),
    }
}

fn run_client(name: &str, parser: &mut lexopt::Parser, console: &mut Console) -> Result<ExitCode, Error> {
    let command = CLIENT_COMMANDS.into_iter().find(|command| command.name == name);
    let command = command.ok_or_else(|| not_a_command(name))?;
    let args = Args::parse(command, parser)?;
    if args.has("help") {
        return print(&command.help(), console);
    }
    let client = Client::new(args.text("server"), console)?;
    (command.run)(&args, &client, console)
}

fn print(text: &str, console: &mut Console) -> Result<ExitCode, Error> {
    console.out.write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn fail(error: &Error, console: &mut Console) -> ExitCode {
    if !error.is_silent() {
        console.note(&error.to_string());
    }
    error.exit_code()
}

fn not_a_command(word: &str) -> Error {
    Error::Usage(format!("{word:?} is no command; there is {}", command_names()))
}

fn command_names() -> String {
    let names: Vec<&str> = commands().map(|(name, _)| name).collect();
    names.join(", ")
}

/// All commands, each with what it does.
fn commands() -> impl Iterator<Item = (&'static str, &'static str)> {
    let client = CLIENT_COMMANDS.iter().map(|command| (command.name, command.about));
    SERVER_COMMANDS.into_iter().chain(client)
}

/// The text of `threadq --help`.
fn overview() -> String {
    let mut text = String::from(
        "threadq: a background-job server on Redis\n\n\
         usage: threadq COMMAND [flags]\n\n\
         commands:\n",
    );
    for (name, about) in commands() {
        let first_sentence = about.split_inclusive('.').next().unwrap_or(about);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:8}  {}", first_sentence.replace('\n', " "));
    }
    text.push_str(
        "\nthreadq COMMAND --help tells more; threadq --version prints the version.\n\
         All but serve, doctor and check ask a running server: --server URL or THREADQ_SERVER\n\
         [default: http://127.0.0.1:8080], with the token in THREADQ_API_TOKEN if it wants one.\n\
         Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.\n\n\
         examples:\n  \
         threadq serve --demo\n  \
         threadq enqueue echo --payload '{\"hello\": \"world\"}' --wait\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::testing::{FakeServer, run, run_into};
    use super::*;

    #[test]
    fn help_lists_every_command() {
        for flag in ["--help", "-h"] {
            let done = run(&[flag]);
            assert_eq!((done.code, done.err.as_str()), (0, ""));
            for (name, _) in commands() {
                assert!(done.out.contains(&format!("\n  {name} ")), "{name}: {}", done.out);
            }
            assert!(done.out.lines().all(|line| line.len() <= 100), "{}", done.out);
        }
    }

    #[test]
    fn every_client_command_has_help() {
        for command in CLIENT_COMMANDS {
            let done = run(&[command.name, "--help"]);
            assert_eq!((done.code, done.err.as_str()), (0, ""));
            assert!(done.out.starts_with(&format!("usage: threadq {}", command.name)), "{}", done.out);
            assert!(done.out.contains("--server URL"), "{}", done.out);
            assert!(done.out.contains(&format!("examples:\n  threadq {}", command.name)), "{}", done.out);
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
        for (args, complaint) in cases {
            let done = run(&args);
            assert_eq!((done.code, done.out.as_str()), (2, ""));
            assert!(done.err.starts_with(complaint), "{}", done.err);
            assert!(done.err.ends_with(", stats, queues\n"), "{}", done.err);
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
