//! The running redis-server as a process: a child, or a process that an earlier server started.
//!
//! A process id can be reused, and files in `data-dir` can be removed while redis-server runs. A process file descriptor
//! refers to the same process as long as it is open.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process that can be watched and signalled.
pub(crate) struct Process {
    descriptor: OwnedFd,
}

impl Process {
    /// The process with this id, which must be a child that was not waited for. For any other use [`Process::holding`].
    pub(crate) fn open(pid: u32) -> Option<Process> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        Some(Process { descriptor: pidfd_open(pid, PidfdFlags::empty()).ok()? })
    }

    /// The process with this id, if its standard input is this file. The id alone is not enough: a redis-server in another
    /// container reports an id that belongs to another process here.
    pub(crate) fn holding(pid: u32, file: &Path) -> Option<Process> {
        let process = Process::open(pid)?;
        let held = fs::metadata(format!("/proc/{pid}/fd/0")).ok()?;
        let file = fs::metadata(file).ok()?;
        let is_same = (held.dev(), held.ino()) == (file.dev(), file.ino());
        // The process is still running, so the id was not reused between the two steps.
        (is_same && process.is_running()).then_some(process)
    }

    /// Whether the process has not ended. A child that ended but was not waited for has ended.
    pub(crate) fn is_running(&self) -> bool {
        let mut descriptors = [PollFd::new(&self.descriptor, PollFlags::IN)];
        let no_wait = Timespec { tv_sec: 0, tv_nsec: 0 };
        !matches!(poll(&mut descriptors, Some(&no_wait)), Ok(ready) if ready > 0)
    }

    /// Sends a signal, if the process has not ended.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.descriptor, signal);
    }
}
