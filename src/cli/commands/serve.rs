//! `threadq serve` and `threadq check`: the commands that read the configuration.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use nix::sys::signal::{SigSet, Signal};

use crate::children;
use crate::cli::allocator;
use crate::cli::args::{Command, Run};
use crate::cli::systemd::Systemd;
use crate::cli::terminal::console::environment;
use crate::config::Config;
use crate::logging;
use crate::server::{Server, StartError, check as check_server};

/// Runs the server until SIGINT, SIGTERM or SIGHUP; a second one ends it at once.
pub(crate) static SERVE: Command = Command {
    name: "serve",
    operands: "",
    about: "Runs the server. Without redis-url it starts a private redis-server and looks after it.\n\
            The first line on stdout says where it listens; the log goes to stderr. SIGTERM or SIGINT\n\
            lets running jobs end for drain-timeout; a second one ends at once.",
    flags: &[],
    examples: &[
        "serve --demo",
        "serve --config threadq.toml",
        "serve --redis-url redis://127.0.0.1:6379 --queues mail=3,default --workers 50",
    ],
    run: Run::Configured(serve),
};

/// Reads the configuration, resolves every handler and looks at Redis, and says what is wrong.
pub(crate) static CHECK: Command = Command {
    name: "check",
    operands: "",
    about: "Checks the configuration, the handlers, and what Redis allows this user.\n\
            Starts nothing and changes nothing.",
    flags: &[],
    examples: &["check --config threadq.toml"],
    run: Run::Configured(check),
};

/// How often orphans that have ended are looked for: one system call when there are none.
const REAP_EVERY: Duration = Duration::from_millis(500);

/// Done.
const DONE: u8 = 0;
/// Failed while running.
const FAILED: u8 = 1;
/// Wrong usage or configuration.
const WRONG: u8 = 2;

fn serve(args: lexopt::Parser) -> ExitCode {
    allocator::settle();
    run(args, |config| {
        // Before any thread is started: threads have the mask of the one that starts them.
        keep_ignoring_hangups()?;
        children::inherit_orphans();
        logging::init(config.log_format, config.log_level);
        logging::log_panics();
        config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        // The first one stops, the second one hurries; further ones say no more.
        let (signal, signals) = bounded(2);
        let handler = move || {
            let _ = signal.try_send(());
        };
        ctrlc::set_handler(handler).map_err(|error| StartError::failed("cannot set the signal handler", error))?;
        let mut systemd = Systemd::from_env(environment);
        let server = match Server::builder().config(config).start_unless(&signals) {
            Err(StartError::Stopped) => {
                log::info!("stopped before it was ready");
                return Ok(());
            }
            started => started?,
        };
        // Programs wait for this line; where nobody reads it, the server works all the same.
        let mut out = std::io::stdout();
        let url = format!("http://{}", server.addr());
        let _ = writeln!(out, "threadq listening on {url}").and_then(|()| out.flush());
        if let Some(systemd) = &mut systemd {
            systemd.ready(&url, server.liveness())?;
        }
        wait_for(&signals);
        if let Some(systemd) = systemd {
            systemd.stopping();
        }
        log::info!("stopping: running jobs may end; a second signal ends at once");
        server.shut_down(&signals);
        Ok(())
    })
}

/// Waits for a signal, and takes orphans that have ended off the system's list meanwhile.
fn wait_for(signals: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = signals.recv_timeout(REAP_EVERY) {
        children::reap_orphans();
    }
}

/// Keeps SIGHUP away where it is ignored, as under nohup: the handler that ends this program would take it too.
///
/// A signal that every thread blocks is never delivered. Programs of handlers have it blocked too: under nohup they would
/// ignore it.
fn keep_ignoring_hangups() -> Result<(), StartError> {
    // Where the system has no /proc, nothing is known, and a hangup ends the program as before.
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    if ignored_signals(&status) & 1 == 0 {
        return Ok(());
    }
    SigSet::from(Signal::SIGHUP)
        .thread_block()
        .map_err(|error| StartError::failed("SIGHUP cannot be blocked", error))
}

/// The bit mask of the signals that a process ignores, SIGHUP first.
fn ignored_signals(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn check(args: lexopt::Parser) -> ExitCode {
    run(args, |config| {
        let warnings = config.warnings.iter().map(|warning| format!("warning: {warning}"));
        for line in warnings.chain(check_server(&config)?) {
            println!("{line}");
        }
        println!("ok");
        Ok(())
    })
}

fn run(mut args: lexopt::Parser, work: impl FnOnce(Config) -> Result<(), StartError>) -> ExitCode {
    let words: Vec<_> = match args.raw_args() {
        Ok(words) => words.collect(),
        Err(error) => return fail(WRONG, &error.to_string()),
    };
    let config = match Config::load(words, environment) {
        Ok(config) => config,
        Err(error) => return fail(WRONG, &error.to_string()),
    };
    match work(config) {
        Ok(()) => ExitCode::from(DONE),
        Err(StartError::Configuration(message)) => fail(WRONG, &message),
        Err(error) => fail(FAILED, &error.to_string()),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "threadq: {message}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_status() {
        let status = "Name:\tthreadq\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        assert_eq!(ignored_signals(status), 0x1001);
        assert_eq!(ignored_signals("SigIgn:\tffffffffffffffff"), u64::MAX);
        assert_eq!(ignored_signals("SigIgn: x"), 0);
        assert_eq!(ignored_signals(""), 0);
    }
}
