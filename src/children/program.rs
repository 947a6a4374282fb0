//! Finds programs: on PATH, or at a given path.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// The program of this name in the first folder on the PATH of this process that has one.
pub(crate) fn find_on_path(name: &str) -> Option<PathBuf> {
    find_in(&env::var_os("PATH").unwrap_or_default(), name)
}

/// The program of this name in the first of these folders, separated as on PATH, that has one.
///
/// Relative folders are skipped: they would name another program wherever the server is started.
pub(crate) fn find_in(search_path: &OsStr, name: &str) -> Option<PathBuf> {
    let folders = env::split_paths(search_path).filter(|folder| folder.is_absolute());
    folders.map(|folder| folder.join(name)).find(|path| check_file(path).is_ok())
}

/// Checks that this is a file which this process may execute.
pub(crate) fn check_file(path: &Path) -> Result<(), FileProblem> {
    match path.metadata() {
        Ok(meta) if !meta.is_file() => Err(FileProblem::NotAFile),
        Ok(_) if access(path, Access::EXEC_OK).is_err() => Err(FileProblem::NotExecutable),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(FileProblem::Missing),
        Err(error) => Err(FileProblem::Unreadable(error)),
    }
}

/// Why a file cannot be executed. As text it completes a sentence that begins with the file.
#[derive(Debug)]
pub(crate) enum FileProblem {
    Missing,
    NotAFile,
    NotExecutable,
    Unreadable(io::Error),
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            FileProblem::Missing => f.write_str("does not exist"),
            FileProblem::NotAFile => f.write_str("is not a file"),
            FileProblem::NotExecutable => f.write_str("is not executable"),
            FileProblem::Unreadable(error) => write!(f, "cannot be examined: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_folders_on_path_are_skipped() {
        assert_eq!(find_in(OsStr::new(".:bin::/bin"), "sh"), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find_in(OsStr::new(""), "sh"), None);
    }
}
