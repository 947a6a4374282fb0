//! `threadq serve` and `threadq check`: the commands that read the configuration.

use std::io::Write;
use std::process::ExitCode;

use crossbeam_channel::unbounded;

use super::args::{Command, Run};
use super::env;
use super::systemd::Systemd;
use crate::config::Config;
use crate::logging;
use crate::server::{Server, StartError, check as check_server};

/// Runs the server until SIGINT or SIGTERM; a second one ends it at once.
pub(super) static SERVE: Command = Command {
    name: "serve",
    words: "",
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
pub(super) static CHECK: Command = Command {
    name: "check",
    words: "",
    about: "Checks the configuration, the handlers and Redis. Starts nothing.",
    flags: &[],
    examples: &["check --config threadq.toml"],
    run: Run::Configured(check),
};

/// Done.
const DONE: u8 = 0;
/// Failed while running.
const FAILED: u8 = 1;
/// Wrong usage or configuration.
const WRONG: u8 = 2;

fn serve(args: lexopt::Parser) -> ExitCode {
    run(args, |config| {
        logging::init(config.log_format, config.log_level);
        logging::log_panics();
        config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        let (signal, signals) = unbounded();
        let handler = move || {
            let _ = signal.send(());
        };
        ctrlc::set_handler(handler)
            .map_err(|error| StartError::Failed(format!("no signal handler: {error}")))?;
        let mut systemd = Systemd::from_env(env);
        let server = Server::builder().config(config).start()?;
        // Programs wait for this line; where nobody reads it, the server works all the same.
        let mut out = std::io::stdout();
        let url = format!("http://{}", server.addr());
        let _ = writeln!(out, "threadq listening on {url}").and_then(|()| out.flush());
        if let Some(systemd) = &mut systemd {
            systemd.ready(&url, server.liveness())?;
        }
        let _ = signals.recv();
        if let Some(systemd) = systemd {
            systemd.stopping();
        }
        log::info!("stopping: running jobs may end; a second signal ends at once");
        server.shut_down(&signals);
        Ok(())
    })
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
    let config = match Config::load(words, env) {
        Ok(config) => config,
        Err(error) => return fail(WRONG, &error.to_string()),
    };
    match work(config) {
        Ok(()) => ExitCode::from(DONE),
        Err(StartError::Configuration(message)) => fail(WRONG, &message),
        Err(StartError::Failed(message)) => fail(FAILED, &message),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "threadq: {message}");
    ExitCode::from(code)
}
