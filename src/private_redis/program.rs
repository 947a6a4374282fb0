//! The program: found on PATH, new enough.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::children;
use crate::private_redis::StartError;

/// The programs that can be the private Redis, the first one found on PATH is taken.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
/// Older ones lack scripts that run at `maxmemory`.
const OLDEST_MAJOR_VERSION: u32 = 7;

/// The first of [`PROGRAMS`] in the folders of `search_path`.
pub(crate) fn find(search_path: Option<&OsStr>) -> Option<PathBuf> {
    let folders: Vec<PathBuf> = std::env::split_paths(search_path?).collect();
    PROGRAMS.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|p| is_program(p)))
}

fn is_program(path: &Path) -> bool {
    path.is_absolute()
        && fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// The program's version, if it is new enough. Asked before it runs, since an old one refuses its arguments without
/// saying that its age is the reason.
pub(crate) fn check_version(program: &Path) -> Result<String, StartError> {
    let output = children::output(Command::new(program).arg("--version"))
        .map_err(|source| StartError::Spawn { program: program.to_owned(), source })?;
    new_enough(&String::from_utf8_lossy(&output.stdout))
}

/// The version in what `redis-server --version` says.
pub(crate) fn new_enough(text: &str) -> Result<String, StartError> {
    match version_in(text) {
        Some(version) if major(version) >= Some(OLDEST_MAJOR_VERSION) => Ok(version.to_owned()),
        Some(version) => Err(StartError::Version { found: format!("version {version}") }),
        None => Err(StartError::Version { found: "of an unknown version".to_owned() }),
    }
}

/// `7.0.15` in `Redis server v=7.0.15 sha=00000000:0 malloc=..`.
fn version_in(text: &str) -> Option<&str> {
    text.split_whitespace().find_map(|word| word.strip_prefix("v="))
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}
