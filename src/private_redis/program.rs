//! The redis-server program: found on PATH, and its version checked.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::ioctl_fionbio;

use super::error::StartError;
use crate::children;
use crate::children::program::find_in;

/// The programs that can be the private Redis, in order of preference.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
/// Older versions do not support scripts that may run at `maxmemory`.
const MIN_MAJOR_VERSION: u32 = 7;
/// The time limit of `redis-server --version`, which takes some milliseconds, or seconds on a busy machine with a slow disk.
pub(crate) const VERSION_TIMEOUT: Duration = Duration::from_secs(10);
/// The time between two checks whether `redis-server --version` has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The longest output of `--version` that is read.
const MAX_OUTPUT_BYTES: u64 = 4096;

/// The path of the first of [`PROGRAMS`] in the folders of `search_path`.
pub(crate) fn find(search_path: Option<&OsStr>) -> Option<PathBuf> {
    let search_path = search_path?;
    PROGRAMS.iter().find_map(|name| find_in(search_path, name))
}

/// Returns the version of the program, if it is new enough. An old program would refuse its arguments without saying that
/// its version is the reason. Blocks for up to `limit`, or until `is_stop_requested` returns true.
pub(crate) fn check_version(
    program: &Path,
    limit: Duration,
    is_stop_requested: &dyn Fn() -> bool,
) -> Result<String, StartError> {
    let failed = |source| StartError::Spawn { program: program.to_owned(), source };
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let (mut child, _owned) = children::spawn(&mut command).map_err(failed)?;
    let deadline = Instant::now() + limit;
    let problem = loop {
        match child.try_wait() {
            Ok(Some(_)) => break None,
            Err(error) => break Some(failed(error)),
            Ok(None) if is_stop_requested() => break Some(StartError::Stopped),
            Ok(None) if Instant::now() > deadline => {
                break Some(StartError::VersionTimeout { program: program.to_owned(), limit });
            }
            Ok(None) => thread::sleep(POLL_INTERVAL),
        }
    };
    if let Some(problem) = problem {
        let _ = child.kill().and_then(|()| child.wait());
        return Err(problem);
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        // A process that the program left behind may keep the pipe open, so the end of the output is not waited for.
        ioctl_fionbio(&stdout, true).map_err(|error| failed(error.into()))?;
        match stdout.take(MAX_OUTPUT_BYTES).read_to_end(&mut output) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(failed(error)),
            _ => {}
        }
    }
    new_enough(&String::from_utf8_lossy(&output))
}

/// The version in the output of `redis-server --version`, if it is new enough.
pub(crate) fn new_enough(text: &str) -> Result<String, StartError> {
    match version_in(text) {
        Some(version) if major(version) >= Some(MIN_MAJOR_VERSION) => Ok(version.to_owned()),
        Some(version) => Err(StartError::Version { found: format!("version {version}") }),
        None => Err(StartError::Version { found: "an unknown version".to_owned() }),
    }
}

/// `7.0.15` in `Redis server v=7.0.15 sha=00000000:0 malloc=..`.
fn version_in(text: &str) -> Option<&str> {
    text.split_whitespace().find_map(|word| word.strip_prefix("v="))
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}
