//! The private unix socket that tiny_http listens on. It has no file.
//!
//! A client needs a name to connect to a socket. A file can be removed while the server runs, as cleaners of temporary
//! folders do, and stays behind when the server is killed. An abstract name is open to every user of the machine, who could
//! bypass the gate. So the file is removed before another process can connect, and this process keeps a file descriptor
//! (`O_PATH`) of the removed file: the path `/proc/self/fd/N` leads to the socket, for processes of the same user alone.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Connections that the kernel queues for tiny_http. The gate opens one at a time.
#[cfg(target_os = "linux")]
const BACKLOG: i32 = 128;

/// A private socket. Clients can connect to it until this is dropped.
pub struct PrivateSocket {
    path: PathBuf,
    #[cfg(target_os = "linux")]
    _handle: std::os::fd::OwnedFd,
}

impl PrivateSocket {
    /// Makes a listener and its private socket. A folder is needed for a moment: that for temporary files, or one of two
    /// that most systems have.
    ///
    /// # Errors
    /// When no folder can be used: one sentence with all folders and the reasons.
    pub fn open() -> io::Result<(UnixListener, PrivateSocket)> {
        PrivateSocket::open_in_one_of(&[std::env::temp_dir(), "/dev/shm".into(), "/var/tmp".into()])
    }

    fn open_in_one_of(folders: &[PathBuf]) -> io::Result<(UnixListener, PrivateSocket)> {
        let mut reasons = Vec::new();
        for folder in folders {
            match PrivateSocket::open_in(folder) {
                Ok(opened) => return Ok(opened),
                Err(error) => reasons.push(format!("{}: {error}", folder.display())),
            }
        }
        Err(io::Error::other(format!(
            "cannot make the private socket of the server ({}); set TMPDIR to a folder that the server can write to",
            reasons.join("; ")
        )))
    }

    /// The path to connect to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[cfg(target_os = "linux")]
    fn open_in(folder: &Path) -> io::Result<(UnixListener, PrivateSocket)> {
        use std::os::fd::AsRawFd;

        use rustix::fs::{AtFlags, Mode, OFlags, fchmod, open, openat, unlinkat};
        use rustix::net::{
            AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
        };

        let folder = open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let name = format!("threadq-{}-{:016x}", std::process::id(), fastrand::u64(..));
        // The path of the folder's handle is short enough for a socket address, however long the folder's own path is.
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))?;
        let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // The rights of the file.
        fchmod(&listener, Mode::RUSR | Mode::WUSR)?;
        bind(&listener, &address)?;
        let handle = openat(&folder, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        unlinkat(&folder, &name, AtFlags::empty())?;
        let handle = handle?;
        listen(&listener, BACKLOG)?;
        let socket =
            PrivateSocket { path: format!("/proc/self/fd/{}", handle.as_raw_fd()).into(), _handle: handle };
        // Some sandboxes do not follow such a path: fail at the start and not at the first request.
        UnixStream::connect(socket.path())?;
        Ok((UnixListener::from(listener), socket))
    }

    /// On other systems no path leads from a handle to a socket, so the file stays.
    #[cfg(not(target_os = "linux"))]
    fn open_in(folder: &Path) -> io::Result<(UnixListener, PrivateSocket)> {
        use std::os::unix::fs::DirBuilderExt;

        let folder = folder.join(format!("threadq-{}-{:016x}", std::process::id(), fastrand::u64(..)));
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let path = folder.join("api.sock");
        Ok((UnixListener::bind(&path)?, PrivateSocket { path }))
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        // The accept thread of tiny_http ends only at the next connection, and tiny_http cannot connect because it does not
        // know this path.
        let _ = UnixStream::connect(&self.path);
        #[cfg(not(target_os = "linux"))]
        let _ = self.path.parent().map(std::fs::remove_dir_all);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use tempfile::tempdir;

    use super::*;

    fn check_connection(listener: &UnixListener, socket: &PrivateSocket) {
        let mut inside = UnixStream::connect(socket.path()).unwrap();
        inside.write_all(b"x").unwrap();
        drop(inside);
        // open() made the first connection.
        let mut all = Vec::new();
        while all.is_empty() {
            listener.accept().unwrap().0.read_to_end(&mut all).unwrap();
        }
        assert_eq!(all, b"x");
    }

    #[test]
    fn the_folder_stays_empty_and_may_be_removed() {
        let folder = tempdir().unwrap();
        let (listener, socket) = PrivateSocket::open_in(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        std::fs::remove_dir(folder.path()).unwrap();
        check_connection(&listener, &socket);
        check_connection(&listener, &socket);
    }

    #[test]
    fn a_folder_may_have_a_path_of_any_length() {
        let folder = tempdir().unwrap();
        let deep = folder.path().join(format!("{}/{}", "x".repeat(200), "y".repeat(200)));
        std::fs::create_dir_all(&deep).unwrap();
        let (listener, socket) = PrivateSocket::open_in(&deep).unwrap();
        check_connection(&listener, &socket);
    }

    #[test]
    fn an_unusable_folder_is_skipped() {
        let folder = tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let unusable = [folder.path().join("missing"), file, "/proc".into()];
        let (listener, socket) =
            PrivateSocket::open_in_one_of(&[&unusable[..], &[folder.path().to_owned()]].concat()).unwrap();
        check_connection(&listener, &socket);
        let sentence = PrivateSocket::open_in_one_of(&unusable).err().unwrap().to_string();
        for folder in &unusable {
            assert!(sentence.contains(folder.to_str().unwrap()), "{sentence}");
        }
        assert!(sentence.contains("set TMPDIR to "), "{sentence}");
    }

    #[test]
    fn dropping_it_wakes_the_accept_thread() {
        let folder = tempdir().unwrap();
        let (listener, socket) = PrivateSocket::open_in(folder.path()).unwrap();
        listener.accept().unwrap();
        let waiting = std::thread::spawn(move || listener.accept().map(drop));
        drop(socket);
        waiting.join().unwrap().unwrap();
    }
}
