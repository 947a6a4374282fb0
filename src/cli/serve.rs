//! `threadq serve` and `threadq check`: the commands that read the configuration.

use std::io::Write;
use std::process::ExitCode;

use crossbeam_channel::unbounded;

use crate::config::{Config, help_settings};
use crate::logging;
use crate::server::{Server, StartError, check as check_server};

/// Done.
const DONE: u8 = 0;
/// Failed while running.
const FAILED: u8 = 1;
/// Wrong usage or configuration.
const WRONG: u8 = 2;

/// Runs the server until SIGINT or SIGTERM; a second one ends it at once.
pub fn serve(args: lexopt::Parser) -> ExitCode {
    run("serve", "Runs the server.", args, |config| {
        logging::init(config.log_format, config.log_level);
        config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        let (signal, signals) = unbounded();
        let handler = move || {
            let _ = signal.send(());
        };
        ctrlc::set_handler(handler)
            .map_err(|error| StartError::Failed(format!("no signal handler: {error}")))?;
        let server = Server::builder().config(config).start()?;
        // Programs wait for this line; where nobody reads it, the server works all the same.
        let mut out = std::io::stdout();
        let _ = writeln!(out, "threadq listening on http://{}", server.addr()).and_then(|()| out.flush());
        let _ = signals.recv();
        log::info!("stopping: running jobs may end; a second signal ends at once");
        server.shut_down(&signals);
        Ok(())
    })
}

/// Reads the configuration, resolves every handler and looks at Redis, and says what is wrong.
pub fn check(args: lexopt::Parser) -> ExitCode {
    run("check", "Checks the configuration, the handlers and Redis.", args, |config| {
        let warnings = config.warnings.iter().map(|warning| format!("warning: {warning}"));
        for line in warnings.chain(check_server(&config)?) {
            println!("{line}");
        }
        println!("ok");
        Ok(())
    })
}

fn run(
    name: &str,
    about: &str,
    mut args: lexopt::Parser,
    work: impl FnOnce(Config) -> Result<(), StartError>,
) -> ExitCode {
    let words: Vec<_> = match args.raw_args() {
        Ok(words) => words.collect(),
        Err(error) => return fail(WRONG, &error.to_string()),
    };
    if words.iter().any(|word| word == "--help" || word == "-h") {
        print!("{about}\n\nUsage: threadq {name} [SETTING..]\n\n{}", help_settings());
        return ExitCode::from(DONE);
    }
    let env = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
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
