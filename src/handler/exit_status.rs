//! What the end of a program means, and how an error describes it.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::limits::ResourceLimits;

/// Exit codes of a permanent failure: EX_USAGE and EX_DATAERR of sysexits.h.
const PERMANENT_CODES: [i32; 2] = [64, 65];

/// Whether the exit code says that another attempt would fail too.
pub(super) fn is_permanent(status: ExitStatus) -> bool {
    status.code().is_some_and(|code| PERMANENT_CODES.contains(&code))
}

/// How a program ended that failed.
pub(super) fn describe_end(status: ExitStatus, limits: &ResourceLimits) -> String {
    let what = describe_status(status);
    match limits.is_empty() {
        true => what,
        // A program that hits a limit sees a failed allocation, a signal or a file that cannot be opened, and few programs
        // name the limit as the cause. So the error names the limits.
        false => format!("{what}, under the limits {limits}"),
    }
}

fn describe_status(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => match signal_name(signal) {
            Some(name) => format!("killed by signal {signal} ({name})"),
            None => format!("killed by signal {signal}"),
        },
        (None, None) => status.to_string(),
    }
}

/// The names of the signals that end programs in practice. Their numbers are the same on all systems.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 if cfg!(target_os = "linux") => "SIGXCPU",
        _ => return None,
    })
}
