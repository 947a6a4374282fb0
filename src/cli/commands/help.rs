//! `threadq help` and `threadq completions`: print texts that are derived from the list of commands.

use std::fmt::Write as _;
use std::process::ExitCode;

use crate::cli::args::{Args, Command, Commands, Run, find};
use crate::cli::commands::completions;
use crate::cli::error::Error;
use crate::cli::terminal::console::Console;

pub(crate) static HELP: Command = Command {
    name: "help",
    operands: "[COMMAND]",
    about: "Prints the help of a command, or the list of all commands.",
    flags: &[],
    examples: &["help", "help enqueue"],
    run: Run::Catalog(help),
};

pub(crate) static COMPLETIONS: Command = Command {
    name: "completions",
    operands: "bash|zsh|fish",
    about: "Prints a completion script for a shell.\n\
            bash: in ~/.bashrc, source <(threadq completions bash)\n\
            zsh:  in ~/.zshrc, after compinit, source <(threadq completions zsh)\n\
            fish: threadq completions fish > ~/.config/fish/completions/threadq.fish",
    flags: &[],
    examples: &["completions bash > /etc/bash_completion.d/threadq"],
    run: Run::Catalog(print_completions),
};

fn help(args: &Args, commands: Commands, console: &mut Console) -> Result<ExitCode, Error> {
    let text = match args.operands()[..] {
        [] => overview(commands),
        [name] => find(commands, name)?.help(),
        _ => return Err(args.unexpected_operands()),
    };
    console.print(&text)
}

fn print_completions(args: &Args, commands: Commands, console: &mut Console) -> Result<ExitCode, Error> {
    let text = match args.operands()[..] {
        ["bash"] => completions::bash(commands),
        ["zsh"] => completions::zsh(commands),
        ["fish"] => completions::fish(commands),
        _ => return Err(args.unexpected_operands()),
    };
    console.print(&text)
}

/// The text of `threadq --help`.
pub(crate) fn overview(commands: Commands) -> String {
    let mut text = String::from(
        "threadq: a background-job server on Redis\n\n\
         usage: threadq COMMAND [flags]\n\n\
         commands:\n",
    );
    let width = commands.iter().map(|command| command.name.len()).max().unwrap_or(0);
    for command in commands {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:width$}  {}", command.name, command.summary());
    }
    text.push_str(
        "\nthreadq help COMMAND prints the help of a command, threadq --version the version.\n\
         All commands but serve, check and doctor send requests to a running server:\n  \
         server       --server URL or THREADQ_SERVER [default: http://127.0.0.1:8080]\n  \
         token        THREADQ_API_TOKEN, or the file that THREADQ_API_TOKEN_FILE names [default: none]\n  \
         authorities  --ca-file, THREADQ_CA_FILE or SSL_CERT_FILE, for https:// [default: those of the web]\n\
         Exit codes: 0 success, 1 failure, 2 wrong usage or configuration.\n\n\
         examples:\n  \
         threadq serve --demo\n  \
         threadq enqueue echo --payload '{\"hello\": \"world\"}' --wait\n  \
         threadq top\n",
    );
    text
}
