//! `data-dir`: its locks, the log of its redis-server, the path of the socket and who is behind it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::private_redis::socket::{Unanswered, ask};
use crate::sync;

/// The longest socket path that is used as it is. The kernel takes 107 bytes.
const MAX_SOCKET_PATH: usize = 100;
/// A log longer than this is set aside before redis-server is started.
pub(crate) const MAX_LOG_BYTES: u64 = 1024 * 1024;
/// How long a lock of somebody else is waited for.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);

/// Who is behind the socket.
pub(crate) enum Occupant {
    /// Nobody listens.
    Nobody,
    /// A redis-server that works in this folder.
    Ours,
    /// Something else; what, for a person.
    Stranger(String),
    /// Somebody who does not answer, or only with errors; what, for a person.
    Unclear(String),
}

/// `data-dir`: the files in it and the socket.
pub(crate) struct Folder {
    /// Absolute, without links: as redis-server names it.
    pub(crate) path: PathBuf,
    /// Open as long as this lives, for [`Folder::socket`].
    handle: File,
    /// The socket's file, see [`Folder::hold_socket`].
    held: Mutex<Option<OwnedFd>>,
}

impl Folder {
    /// Opens the folder, made with mode 0700 if missing.
    pub(crate) fn open(path: &Path) -> io::Result<Folder> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let path = fs::canonicalize(path)?;
        // Redis would let everyone read its files. A folder that it finds it leaves as it is.
        DirBuilder::new().recursive(true).mode(0o700).create(path.join("appendonlydir"))?;
        let handle = File::open(&path)?;
        Ok(Folder { path, handle, held: Mutex::default() })
    }

    /// Opens the folder if it is there, and changes nothing.
    pub(crate) fn existing(path: &Path) -> io::Result<Option<Folder>> {
        let path = match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            path => path?,
        };
        let handle = File::open(&path)?;
        Ok(Some(Folder { path, handle, held: Mutex::default() }))
    }

    /// The address of the socket for a Redis client. Valid as long as this lives.
    pub(crate) fn url(&self) -> String {
        let path = self.held().as_ref().map_or_else(|| self.socket(), path_of);
        format!("redis+unix://{}", percent_encode(path.as_os_str().as_bytes()))
    }

    /// Opens the file of the socket, through which [`Folder::url`] leads from then on: to the redis-server that listens
    /// now, also once its file was removed. To be called again when another one listens: the address stays the same.
    #[cfg(target_os = "linux")]
    pub(crate) fn hold_socket(&self) -> io::Result<()> {
        use rustix::fs::{Mode, OFlags, openat};
        use rustix::io::{DupFlags, dup3};

        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let new = openat(&self.handle, "redis.sock", flags, Mode::empty())?;
        // Some sandboxes do not follow such a path.
        UnixStream::connect(path_of(&new))?;
        match &mut *self.held() {
            // The number is part of the address.
            Some(held) => dup3(&new, held, DupFlags::CLOEXEC)?,
            none => *none = Some(new),
        }
        Ok(())
    }

    /// Elsewhere no handle leads to a socket.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn hold_socket(&self) -> io::Result<()> {
        Ok(())
    }

    /// Keeps [`Folder::url`] up with a redis-server that was started again. Whether the file of the socket was removed,
    /// though redis-server still listens.
    pub(crate) fn follow_socket(&self) -> bool {
        use rustix::fs::{AtFlags, fstat, statat};

        let file = statat(&self.handle, "redis.sock", AtFlags::SYMLINK_NOFOLLOW);
        let held = self.held();
        let Some((Ok(known), path)) = held.as_ref().map(|held| (fstat(held), path_of(held))) else {
            return false;
        };
        drop(held);
        match file {
            Ok(file) if (file.st_dev, file.st_ino) == (known.st_dev, known.st_ino) => false,
            Ok(_) => {
                if UnixStream::connect(path).is_err() {
                    // It may not listen yet: the next look finds it.
                    let _ = self.hold_socket();
                }
                false
            }
            Err(_) => UnixStream::connect(path).is_ok(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        sync::lock(&self.held)
    }

    /// The path to connect to. Where the real one is too long for a socket address, the kernel's name for the open
    /// folder leads there: short, and nothing that others could put something in place of, as in /tmp.
    pub(crate) fn socket(&self) -> PathBuf {
        let direct = self.path.join("redis.sock");
        if direct.as_os_str().len() <= MAX_SOCKET_PATH {
            return direct;
        }
        PathBuf::from(format!("/proc/self/fd/{}/redis.sock", self.handle.as_raw_fd()))
    }

    /// Locks a file of this folder; `None` if somebody else has it locked, and keeps it for a moment: a process that
    /// has just ended, or is just about to become another program, lets go of it by itself.
    pub(crate) fn try_lock(&self, name: &str) -> io::Result<Option<File>> {
        let file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(self.path.join(name))?;
        let patience = Instant::now() + LOCK_PATIENCE;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(file)),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() > patience => return Ok(None),
                Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(LOCK_PATIENCE / 10),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Opens redis-server's log for appending, set aside first if it is long.
    pub(crate) fn open_log(&self) -> io::Result<File> {
        let path = self.path.join("redis.log");
        if fs::metadata(&path).is_ok_and(|log| log.len() > MAX_LOG_BYTES) {
            fs::rename(&path, self.path.join("redis.log.1"))?;
        }
        OpenOptions::new().append(true).create(true).mode(0o600).open(path)
    }

    /// The last line of redis-server's log that begins at or after `start`, cut to a readable length.
    pub(crate) fn last_log_line(&self, start: u64) -> Option<String> {
        let mut log = File::open(self.path.join("redis.log")).ok()?;
        log.seek(SeekFrom::Start(start)).ok()?;
        let mut text = Vec::new();
        log.take(MAX_LOG_BYTES).read_to_end(&mut text).ok()?;
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.chars().take(300).collect())
    }

    /// Who listens on the socket.
    pub(crate) fn look(&self) -> Occupant {
        match ask(&self.socket(), "CONFIG GET dir") {
            Ok(answer) if answer.last().is_some_and(|dir| dir == self.path.as_os_str().as_bytes()) => {
                Occupant::Ours
            }
            Ok(answer) => {
                let dir = answer.last().map(|dir| String::from_utf8_lossy(dir).into_owned());
                Occupant::Stranger(format!(
                    "a redis-server that works in {} has the socket redis.sock",
                    dir.as_deref().unwrap_or("an unknown folder")
                ))
            }
            Err(Unanswered::Nobody) => Occupant::Nobody,
            Err(Unanswered::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Occupant::Stranger("what has the socket redis.sock is no redis-server".to_owned())
            }
            // Also from one of ours: it may be ending, or busy with a script.
            Err(error) => {
                Occupant::Unclear(format!("what has the socket redis.sock gives no answer: {error}"))
            }
        }
    }
}

/// The kernel's name for an open file.
fn path_of(handle: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

/// A path as it stands in a URL.
pub(crate) fn percent_encode(path: &[u8]) -> String {
    let mut encoded = String::new();
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
