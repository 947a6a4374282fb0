//! The running redis-server as a process: a child, or one that an earlier server started.
//!
//! Files in `data-dir` can be removed while it runs, and process ids are used again. A process file descriptor means this
//! one process for as long as it is open.

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
    /// The process with this id. Right for a child that was not waited for yet; for any other see [`Process::holding`].
    pub(crate) fn open(pid: u32) -> Option<Process> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        Some(Process { descriptor: pidfd_open(pid, PidfdFlags::empty()).ok()? })
    }

    /// The process with this id, if it is the one that has this file as its standard input. An id alone proves nothing:
    /// a redis-server in another container tells an id that means another process here.
    pub(crate) fn holding(pid: u32, file: &Path) -> Option<Process> {
        let process = Process::open(pid)?;
        let held = fs::metadata(format!("/proc/{pid}/fd/0")).ok()?;
        let file = fs::metadata(file).ok()?;
        let is_it = (held.dev(), held.ino()) == (file.dev(), file.ino());
        // Still alive, so the id meant this process at the look.
        (is_it && process.is_running()).then_some(process)
    }

    /// Whether it has not ended. A child that has ended and was not waited for has ended.
    pub(crate) fn is_running(&self) -> bool {
        let mut descriptors = [PollFd::new(&self.descriptor, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        !matches!(poll(&mut descriptors, Some(&at_once)), Ok(ready) if ready > 0)
    }

    /// Sends it a signal, if it still runs.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.descriptor, signal);
    }
}
