//! The private socket that tiny_http listens on. No file leads to it.
//!
//! A socket needs a name to be connected to. A file can be removed while the server runs, as cleaners of temporary folders
//! do, and stays behind when the server is killed; an abstract name is open to every user of the machine, and leads past
//! the gate. So the file is removed at once, before anybody can connect. What is left is a handle of it in this process:
//! the kernel's own name for that handle leads to the socket, for processes of this user alone.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// How many connections the kernel keeps for tiny_http. The gate opens one at a time.
#[cfg(target_os = "linux")]
const BACKLOG: i32 = 128;

/// The way to a private socket, for as long as this lives.
pub struct Door {
    path: PathBuf,
    #[cfg(target_os = "linux")]
    _handle: std::os::fd::OwnedFd,
}

impl Door {
    /// A new socket with its door. It needs a folder for a moment: the one for temporary files, or one that is nearly
    /// always there.
    ///
    /// # Errors
    /// Where no folder can be used: one sentence that names all of them and why not.
    pub fn open() -> io::Result<(UnixListener, Door)> {
        Door::open_in_one_of(&[std::env::temp_dir(), "/dev/shm".into(), "/var/tmp".into()])
    }

    fn open_in_one_of(folders: &[PathBuf]) -> io::Result<(UnixListener, Door)> {
        let mut reasons = Vec::new();
        for folder in folders {
            match Door::open_in(folder) {
                Ok(opened) => return Ok(opened),
                Err(error) => reasons.push(format!("{}: {error}", folder.display())),
            }
        }
        Err(io::Error::other(format!(
            "cannot make the socket that this server needs for itself ({}); set TMPDIR to a folder that it can write to",
            reasons.join("; ")
        )))
    }

    /// Where to connect to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[cfg(target_os = "linux")]
    fn open_in(folder: &Path) -> io::Result<(UnixListener, Door)> {
        use std::os::fd::AsRawFd;

        use rustix::fs::{AtFlags, Mode, OFlags, fchmod, open, openat, unlinkat};
        use rustix::net::{
            AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
        };

        let folder = open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let name = format!("threadq-{}-{:016x}", std::process::id(), fastrand::u64(..));
        // By its handle the folder's path is never too long for a socket.
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // Its file gets these rights.
        fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        bind(&socket, &address)?;
        let handle = openat(&folder, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        unlinkat(&folder, &name, AtFlags::empty())?;
        let handle = handle?;
        listen(&socket, BACKLOG)?;
        let door = Door { path: format!("/proc/self/fd/{}", handle.as_raw_fd()).into(), _handle: handle };
        // Some sandboxes do not follow such a path: the start fails here and not at the first request.
        UnixStream::connect(door.path())?;
        Ok((UnixListener::from(socket), door))
    }

    /// Elsewhere no handle leads to a socket, so that the file stays.
    #[cfg(not(target_os = "linux"))]
    fn open_in(folder: &Path) -> io::Result<(UnixListener, Door)> {
        use std::os::unix::fs::DirBuilderExt;

        let folder = folder.join(format!("threadq-{}-{:016x}", std::process::id(), fastrand::u64(..)));
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let path = folder.join("api.sock");
        Ok((UnixListener::bind(&path)?, Door { path }))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // The accept thread of tiny_http notices that it shall end only at the next connection, and tiny_http itself does not know
        // this path.
        let _ = UnixStream::connect(&self.path);
        #[cfg(not(target_os = "linux"))]
        let _ = self.path.parent().map(std::fs::remove_dir_all);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// A folder that is removed when dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("door-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn leads(listener: &UnixListener, door: &Door) {
        let mut inside = UnixStream::connect(door.path()).unwrap();
        inside.write_all(b"x").unwrap();
        drop(inside);
        // The first connection was the trial.
        let mut all = Vec::new();
        while all.is_empty() {
            listener.accept().unwrap().0.read_to_end(&mut all).unwrap();
        }
        assert_eq!(all, b"x");
    }

    #[test]
    fn nothing_is_left_in_the_folder_and_the_folder_is_not_needed() {
        let folder = Folder::new("gone");
        let (listener, door) = Door::open_in(&folder.0).unwrap();
        assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0);
        std::fs::remove_dir(&folder.0).unwrap();
        leads(&listener, &door);
        leads(&listener, &door);
    }

    #[test]
    fn a_folder_may_have_a_path_of_any_length() {
        let folder = Folder::new("long");
        let deep = folder.0.join(format!("{}/{}", "x".repeat(200), "y".repeat(200)));
        std::fs::create_dir_all(&deep).unwrap();
        let (listener, door) = Door::open_in(&deep).unwrap();
        leads(&listener, &door);
    }

    #[test]
    fn the_next_folder_is_taken_where_one_cannot_be_used() {
        let folder = Folder::new("next");
        let file = folder.0.join("file");
        std::fs::write(&file, "").unwrap();
        let unusable = [folder.0.join("missing"), file, "/proc".into()];
        let (listener, door) =
            Door::open_in_one_of(&[&unusable[..], std::slice::from_ref(&folder.0)].concat()).unwrap();
        leads(&listener, &door);
        let sentence = Door::open_in_one_of(&unusable).err().unwrap().to_string();
        for folder in &unusable {
            assert!(sentence.contains(folder.to_str().unwrap()), "{sentence}");
        }
        assert!(sentence.contains("set TMPDIR to "), "{sentence}");
    }

    #[test]
    fn who_accepts_is_woken_at_the_end() {
        let folder = Folder::new("end");
        let (listener, door) = Door::open_in(&folder.0).unwrap();
        listener.accept().unwrap();
        let waiting = std::thread::spawn(move || listener.accept().map(drop));
        drop(door);
        waiting.join().unwrap().unwrap();
    }
}
