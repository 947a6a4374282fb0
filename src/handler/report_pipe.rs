//! The named pipes by which programs report. They stand in a folder that is private to this server.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::process::geteuid;

use crate::sync;

/// The most bytes that a program can have left in its pipe: the greatest capacity that Linux gives to a user.
const MAX_LEFT: u64 = 1 << 20;

/// How the names of the folders begin.
const PREFIX: &str = "threadq-reports-";

/// The folder of the pipes of a server.
#[derive(Debug, Default)]
pub(crate) struct ReportFolder(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    folder: Option<Folder>,
    /// The number of the last pipe.
    number: u64,
    /// Whether the last attempt to make a pipe has failed. Only the first failure is logged.
    has_failed: bool,
}

impl ReportFolder {
    /// A new pipe, which only programs of this user can open. `None` if the system refuses it: then the program cannot report.
    pub(super) fn make_pipe(&self) -> Option<ReportPipe> {
        let mut state = sync::lock(&self.0);
        let State { folder, number, has_failed } = &mut *state;
        *number += 1;
        let made = match folder {
            Some(folder) => folder.make_pipe(*number),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let made = match made {
            // There was no pipe before, or a cleaner of temporary folders has removed the folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_folder(&[std::env::temp_dir(), "/dev/shm".into(), "/var/tmp".into()], *number).map(
                    |(new, pipe)| {
                        *folder = Some(new);
                        pipe
                    },
                )
            }
            made => made,
        };
        match &made {
            Ok(_) => *has_failed = false,
            Err(error) if !std::mem::replace(has_failed, true) => {
                log::error!(
                    "programs cannot report, because no pipe can be made for THREADQ_REPORT: {error}"
                );
            }
            Err(_) => {}
        }
        made.ok()
    }

    /// Removes the folder. The next pipe makes a new one.
    pub(crate) fn remove(&self) {
        sync::lock(&self.0).folder = None;
    }
}

/// Makes a folder with a pipe in the first of these folders where that is possible.
fn make_folder(parents: &[PathBuf], number: u64) -> io::Result<(Folder, ReportPipe)> {
    let mut last_error = io::ErrorKind::NotFound.into();
    for parent in parents {
        Folder::remove_abandoned(parent);
        match Folder::make(parent).and_then(|folder| folder.make_pipe(number).map(|pipe| (folder, pipe))) {
            Ok(made) => return Ok(made),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// A folder that only this user can enter. Dropping it removes the folder.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Locked while this server lives. Other servers of this user remove the folder of a server that was killed.
    _lock: File,
}

impl Folder {
    fn make(parent: &Path) -> io::Result<Folder> {
        let path = parent.join(format!("{PREFIX}{:016x}", fastrand::u64(..)));
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = File::open(&path).and_then(|lock| lock.try_lock().map_err(io::Error::from).map(|()| lock));
        match lock {
            Ok(lock) => Ok(Folder { path, _lock: lock }),
            Err(error) => {
                let _ = fs::remove_dir(&path);
                Err(error)
            }
        }
    }

    fn make_pipe(&self, number: u64) -> io::Result<ReportPipe> {
        ReportPipe::make(self.path.join(number.to_string()))
    }

    /// Removes the folders that servers of this user have left behind when they were killed. A program that has outlived such a
    /// server may wait for a reader of its pipe: it gets one, and then the end of the pipe.
    fn remove_abandoned(parent: &Path) {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let is_folder = || {
                fs::symlink_metadata(entry.path())
                    .is_ok_and(|file| file.is_dir() && file.uid() == geteuid().as_raw())
            };
            let is_abandoned = || File::open(entry.path()).is_ok_and(|folder| folder.try_lock().is_ok());
            if entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()) && is_folder() && is_abandoned() {
                let pipes = fs::read_dir(entry.path()).into_iter().flatten().flatten();
                let _readers: Vec<_> = pipes.filter_map(|pipe| ReportPipe::open(&pipe.path()).ok()).collect();
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A process that outlives its job may have made a file in place of its pipe.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A named pipe for the reports of one program. Dropping it removes its name.
#[derive(Debug)]
pub(super) struct ReportPipe {
    path: PathBuf,
    pipe: File,
}

impl ReportPipe {
    #[cfg(target_os = "linux")]
    fn make(path: PathBuf) -> io::Result<ReportPipe> {
        use rustix::fs::{CWD, FileType, Mode, mknodat};

        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        match ReportPipe::open(&path) {
            Ok(pipe) => Ok(ReportPipe { path, pipe }),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Opens a pipe for reading, and for writing too: so no program waits for a reader, and the pipe has no end when a program
    /// closes it.
    fn open(path: &Path) -> io::Result<File> {
        use rustix::fs::{Mode, OFlags, open};

        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(open(path, flags, Mode::empty())?.into())
    }

    #[cfg(not(target_os = "linux"))]
    fn make(_: PathBuf) -> io::Result<ReportPipe> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The value of `THREADQ_REPORT`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The end for reading, which does not block.
    pub fn pipe(&self) -> &File {
        &self.pipe
    }

    /// Reads what the program has left in the pipe, and no more than a full pipe from processes that still write.
    pub fn read_rest(&self, chunk: &mut [u8], mut take: impl FnMut(&[u8])) {
        let mut rest = self.pipe().take(MAX_LEFT);
        while let Ok(length @ 1..) = rest.read(chunk) {
            take(&chunk[..length]);
        }
    }
}

impl Drop for ReportPipe {
    fn drop(&mut self) {
        // Another program may have removed the folder.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use tempfile::tempdir;

    use super::*;
    use crate::wait::{LIMIT, eventually};

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn folder_in(parent: &Path) -> ReportFolder {
        let (folder, _) = make_folder(&[parent.to_owned()], 0).unwrap();
        ReportFolder(Mutex::new(State { folder: Some(folder), ..State::default() }))
    }

    #[test]
    fn only_this_user_can_open_a_pipe_and_nothing_is_left_behind() {
        let parent = tempdir().unwrap();
        let folder = folder_in(parent.path());
        let pipe = folder.make_pipe().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(pipe.path()), mode(pipe.path().parent().unwrap())), (0o600, 0o700));

        // Without a wait for a reader, and the end of the writer is no end of the pipe.
        for text in ["one", "two"] {
            File::options().write(true).open(pipe.path()).unwrap().write_all(text.as_bytes()).unwrap();
        }
        let mut read = Vec::new();
        pipe.read_rest(&mut [0; 4], |bytes| read.extend_from_slice(bytes));
        assert_eq!(read, b"onetwo");

        drop(pipe);
        assert_eq!(names(&parent.path().join(&names(parent.path())[0])), [""; 0]);
        folder.remove();
        assert_eq!(names(parent.path()), [""; 0]);
    }

    #[test]
    fn the_folders_of_killed_servers_are_removed_and_no_others() {
        let parent = tempdir().unwrap();
        let living = folder_in(parent.path());
        let killed = parent.path().join(format!("{PREFIX}killed"));
        fs::create_dir(&killed).unwrap();
        fs::write(killed.join("1"), "").unwrap();
        let other = parent.path().join("threadq-other");
        fs::create_dir(&other).unwrap();
        let pipe = living.make_pipe().unwrap();
        let _new = folder_in(parent.path());
        assert!(!killed.exists());
        assert!(other.exists() && pipe.path().exists());
    }

    #[test]
    fn a_program_that_outlives_its_server_does_not_wait_for_a_reader_for_ever() {
        let parent = tempdir().unwrap();
        let killed = parent.path().join(format!("{PREFIX}killed"));
        fs::create_dir(&killed).unwrap();
        drop(ReportPipe::make(killed.join("1")).map(|pipe| fs::hard_link(pipe.path(), killed.join("2"))));
        let mut command = Command::new("/bin/sh");
        let mut program = command.args(["-c", "echo late > $0"]).arg(killed.join("2")).spawn().unwrap();
        let stat = || fs::read_to_string(format!("/proc/{}/stat", program.id())).unwrap();
        eventually(LIMIT, "the program waits for a reader", || stat().contains(") S "));
        Folder::remove_abandoned(parent.path());
        eventually(LIMIT, "the program has ended", || program.try_wait().unwrap().is_some());
        assert!(!killed.exists());
    }

    #[test]
    fn an_unusable_folder_is_skipped() {
        let parent = tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        let unusable = [parent.path().join("missing"), file, "/proc".into()];
        assert!(make_folder(&unusable, 1).is_err());
        let (_folder, pipe) = make_folder(&[&unusable[..], &[parent.path().to_owned()]].concat(), 1).unwrap();
        assert!(pipe.path().starts_with(parent.path()));
    }

    #[test]
    fn a_folder_that_was_removed_is_made_again() {
        let parent = tempdir().unwrap();
        let folder = folder_in(parent.path());
        let first = folder.make_pipe().unwrap();
        fs::remove_dir_all(first.path().parent().unwrap()).unwrap();
        let second = folder.make_pipe().unwrap();
        assert!(second.path().exists());
        assert_ne!(first.path().parent(), second.path().parent());
        folder.remove();
        assert!(!second.path().exists());
    }

    #[test]
    fn a_process_that_writes_on_and_on_is_not_read_for_ever() {
        let parent = tempdir().unwrap();
        let folder = folder_in(parent.path());
        let pipe = folder.make_pipe().unwrap();
        let mut writer = File::options().write(true).open(pipe.path()).unwrap();
        let mut read = 0;
        writer.write_all(&[b'x'; 1000]).unwrap();
        pipe.read_rest(&mut [0; 1000], |bytes| {
            read += bytes.len() as u64;
            writer.write_all(bytes).unwrap();
        });
        assert_eq!(read, MAX_LEFT);
    }
}
