//! The program `threadq`.

use std::process::ExitCode;

fn main() -> ExitCode {
    threadq::internals::run()
}
