//! The folder `data-dir`: its locks, the log and the socket of its redis-server, and the process that listens on the socket.

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

use super::socket::{AskError, ask};
use crate::net::percent::encode_path;
use crate::sync;

/// The longest socket path that is used directly. The limit of the kernel is 107 bytes.
const MAX_SOCKET_PATH: usize = 100;
/// A log longer than this is renamed to `redis.log.1` before redis-server is started.
pub(crate) const MAX_LOG_BYTES: u64 = 1024 * 1024;
/// How long to wait for a lock that another process holds.
const LOCK_TIMEOUT: Duration = Duration::from_millis(300);

/// The process that listens on the socket.
pub(crate) enum SocketOwner {
    /// No process.
    None,
    /// The redis-server of this folder.
    Own,
    /// Another process; the text is a clause about it.
    Foreign(String),
    /// A process that does not reply, or replies with errors; the text is a clause about it.
    Unresponsive(String),
}

/// The folder `data-dir`.
pub(crate) struct Folder {
    /// The absolute path without links, as redis-server reports it.
    pub(crate) path: PathBuf,
    /// Keeps the folder open for [`Folder::socket`].
    handle: File,
    /// The file of the socket, see [`Folder::hold_socket`].
    held: Mutex<Option<OwnedFd>>,
}

impl Folder {
    /// Opens the folder. Creates it with mode 0700 if it is missing.
    pub(crate) fn open(path: &Path) -> io::Result<Folder> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let path = fs::canonicalize(path)?;
        // redis-server would create this folder readable by all users. It leaves an existing folder unchanged.
        DirBuilder::new().recursive(true).mode(0o700).create(path.join("appendonlydir"))?;
        let handle = File::open(&path)?;
        Ok(Folder { path, handle, held: Mutex::default() })
    }

    /// Opens the folder if it exists, and changes nothing.
    pub(crate) fn existing(path: &Path) -> io::Result<Option<Folder>> {
        let path = match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            path => path?,
        };
        let handle = File::open(&path)?;
        Ok(Some(Folder { path, handle, held: Mutex::default() }))
    }

    /// The URL of the socket for a Redis client. Valid until this is dropped.
    pub(crate) fn url(&self) -> String {
        let path = self.held().as_ref().map_or_else(|| self.socket(), path_of);
        format!("redis+unix://{}", encode_path(path.as_os_str().as_bytes()))
    }

    /// Opens the file of the socket and makes [`Folder::url`] refer to this open file: a client can then connect also after the
    /// file was removed. Must be called again after another redis-server was started; the URL stays the same.
    #[cfg(target_os = "linux")]
    pub(crate) fn hold_socket(&self) -> io::Result<()> {
        use rustix::fs::{Mode, OFlags, openat};
        use rustix::io::{DupFlags, dup3};

        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let new = openat(&self.handle, "redis.sock", flags, Mode::empty())?;
        // Some sandboxes do not allow connecting to such a path.
        UnixStream::connect(path_of(&new))?;
        match &mut *self.held() {
            // The number of the descriptor is part of the URL.
            Some(held) => dup3(&new, held, DupFlags::CLOEXEC)?,
            none => *none = Some(new),
        }
        Ok(())
    }

    /// Only Linux can connect to a socket through an open file.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn hold_socket(&self) -> io::Result<()> {
        Ok(())
    }

    /// Makes [`Folder::url`] refer to a redis-server that was restarted. Returns whether the file of the socket was removed while
    /// redis-server still listens.
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
                    // An error means that redis-server does not listen yet. The next call tries again.
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

    /// The path to connect to. If the real path is too long for a socket address, a path through the open folder in /proc,
    /// which is short and cannot be replaced by another user as a link in /tmp could.
    pub(crate) fn socket(&self) -> PathBuf {
        let direct = self.path.join("redis.sock");
        if direct.as_os_str().len() <= MAX_SOCKET_PATH {
            return direct;
        }
        PathBuf::from(format!("/proc/self/fd/{}/redis.sock", self.handle.as_raw_fd()))
    }

    /// Locks a file of this folder. Returns `None` if another process holds the lock for longer than [`LOCK_TIMEOUT`], which
    /// covers a process that is exiting, or a child between fork and exec.
    pub(crate) fn try_lock(&self, name: &str) -> io::Result<Option<File>> {
        let file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(self.path.join(name))?;
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(file)),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() > deadline => return Ok(None),
                Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(LOCK_TIMEOUT / 10),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Opens the log of redis-server for appending. Renames a log longer than [`MAX_LOG_BYTES`] first.
    pub(crate) fn open_log(&self) -> io::Result<File> {
        let path = self.path.join("redis.log");
        if fs::metadata(&path).is_ok_and(|log| log.len() > MAX_LOG_BYTES) {
            fs::rename(&path, self.path.join("redis.log.1"))?;
        }
        OpenOptions::new().append(true).create(true).mode(0o600).open(path)
    }

    /// The last line of the log of redis-server that begins at or after byte `start`, cut off after 300 characters.
    pub(crate) fn last_log_line(&self, start: u64) -> Option<String> {
        let mut log = File::open(self.path.join("redis.log")).ok()?;
        log.seek(SeekFrom::Start(start)).ok()?;
        let mut text = Vec::new();
        log.take(MAX_LOG_BYTES).read_to_end(&mut text).ok()?;
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.chars().take(300).collect())
    }

    /// The process that listens on the socket.
    pub(crate) fn socket_owner(&self) -> SocketOwner {
        match ask(&self.socket(), "CONFIG GET dir") {
            Ok(reply) if reply.last().is_some_and(|dir| dir == self.path.as_os_str().as_bytes()) => {
                SocketOwner::Own
            }
            Ok(reply) => {
                let dir = reply.last().map(|dir| String::from_utf8_lossy(dir).into_owned());
                let dir = dir.as_deref().unwrap_or("an unknown folder");
                SocketOwner::Foreign(format!("a redis-server of {dir} listens on the socket redis.sock"))
            }
            Err(AskError::NotListening) => SocketOwner::None,
            Err(AskError::Invalid) => SocketOwner::Foreign(
                "a process that is not a redis-server listens on the socket redis.sock".to_owned(),
            ),
            // This can also be the redis-server of this folder, while it exits or runs a script.
            Err(error) => SocketOwner::Unresponsive(format!(
                "the process that listens on the socket redis.sock does not respond: {error}"
            )),
        }
    }
}

/// The path of an open file in /proc.
fn path_of(handle: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}
