//! `threadq serve` and `threadq check`: run a server, or check its configuration.

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

pub(crate) static SERVE: Command = Command {
    name: "serve",
    operands: "",
    about: "Runs a server. Without redis-url it starts a private redis-server and supervises it.\n\
            The first line on stdout is the address of the server; the log goes to stderr. SIGTERM or SIGINT\n\
            drains running jobs for up to drain-timeout; a second signal ends the server at once.",
    flags: &[],
    examples: &[
        "serve --demo",
        "serve --config threadq.toml",
        "serve --redis-url redis://127.0.0.1:6379 --queues mail=3,default --workers 50",
    ],
    run: Run::Configured(serve),
};

pub(crate) static CHECK: Command = Command {
    name: "check",
    operands: "",
    about: "\
Checks the configuration, the handlers, Redis, and the rights of the Redis user.
Connects to Redis as a server would, and says which Redis it is, which Sentinels answer, and what endangers jobs. Starts no
server and changes nothing.

Exit codes: 0 a server would work (warnings do not count); 1 Redis is unreachable or takes no jobs now; 2 wrong usage or
configuration, or a right is missing.",
    flags: &[],
    examples: &["check --config threadq.toml"],
    run: Run::Configured(check),
};

/// The time between two looks for orphans that have ended: one system call if there is none.
const REAP_INTERVAL: Duration = Duration::from_millis(500);

/// The exit code of a failure at run time.
const FAILURE: u8 = 1;
/// The exit code of wrong usage or configuration.
const WRONG_USAGE: u8 = 2;

fn serve(args: lexopt::Parser) -> ExitCode {
    allocator::configure();
    run(args, |config| {
        // Before any thread is started, because a thread inherits the signal mask.
        keep_ignoring_hangups()?;
        children::inherit_orphans();
        logging::init(config.log_format, config.log_level);
        logging::log_panics();
        config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        // The first signal drains, the second ends at once, further signals have no effect.
        let (signal, signals) = bounded(2);
        let handler = move || {
            let _ = signal.try_send(());
        };
        ctrlc::set_handler(handler)
            .map_err(|error| StartError::failed("cannot set the signal handler", error))?;
        let mut systemd = Systemd::from_env(environment);
        let server = match Server::builder().config(config).start_unless(&signals) {
            Err(StartError::Stopped) => {
                log::info!("stopped before the server was ready");
                return Ok(());
            }
            started => started?,
        };
        // Programs wait for this line. A closed stdout is not an error.
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
        log::info!("stopping: draining running jobs; a second signal ends the server at once");
        server.shut_down(&signals);
        Ok(())
    })
}

/// Waits for a signal, and meanwhile reaps orphans that have ended.
fn wait_for(signals: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = signals.recv_timeout(REAP_INTERVAL) {
        children::reap_orphans();
    }
}

/// Blocks SIGHUP if it is ignored, as under nohup. Otherwise the signal handler that stops this program would handle SIGHUP too.
///
/// A signal that every thread blocks is not delivered. Programs of exec handlers inherit the block; under nohup they would
/// ignore SIGHUP anyway.
fn keep_ignoring_hangups() -> Result<(), StartError> {
    // Without /proc the signal is not blocked, and SIGHUP stops the program.
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    if ignored_signals(&status) & 1 == 0 {
        return Ok(());
    }
    SigSet::from(Signal::SIGHUP)
        .thread_block()
        .map_err(|error| StartError::failed("cannot block SIGHUP", error))
}

/// The bit mask of ignored signals in the text of `/proc/PID/status`; SIGHUP is bit 0.
fn ignored_signals(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn check(args: lexopt::Parser) -> ExitCode {
    run(args, |config| {
        config.warnings.iter().for_each(|warning| println!("warning: {warning}"));
        check_server(&config, &mut |line| println!("{line}"))?;
        println!("ok");
        Ok(())
    })
}

fn run(mut args: lexopt::Parser, work: impl FnOnce(Config) -> Result<(), StartError>) -> ExitCode {
    let words: Vec<_> = match args.raw_args() {
        Ok(words) => words.collect(),
        Err(error) => return fail(WRONG_USAGE, &error.to_string()),
    };
    let config = match Config::load(words, environment) {
        Ok(config) => config,
        Err(error) => return fail(WRONG_USAGE, &error.to_string()),
    };
    match work(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ (StartError::Configuration(_) | StartError::Handler { .. })) => {
            fail(WRONG_USAGE, &error.to_string())
        }
        Err(error) => fail(FAILURE, &error.to_string()),
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
