//! A program and its process group, of which no process is left behind.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::children::{self, Owned};

/// A running program, the leader of its process group. Dropping it kills the group and reaps the leader.
pub(super) struct Group {
    pub child: Child,
    _owned: Owned,
    pub pid: Pid,
    reaped: bool,
}

impl Group {
    pub fn spawn(command: &mut Command) -> io::Result<Group> {
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (child, owned) = children::spawn(command)?;
        let pid = Pid::from_child(&child);
        Ok(Group { child, _owned: owned, pid, reaped: false })
    }

    /// A descriptor that becomes readable when the leader ends. `None` if the system has no such descriptors.
    #[cfg(target_os = "linux")]
    pub fn exit_event(&self) -> Option<OwnedFd> {
        rustix::process::pidfd_open(self.pid, rustix::process::PidfdFlags::empty()).ok()
    }

    #[cfg(not(target_os = "linux"))]
    pub fn exit_event(&self) -> Option<OwnedFd> {
        None
    }

    /// Whether the leader has ended. It is not reaped, so that the id of its group cannot be reused.
    pub fn leader_has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error means that the child does not exist any more.
        !matches!(waitid(WaitId::Pid(self.pid), options), Ok(None) | Err(Errno::INTR))
    }

    pub fn signal(&self, signal: Signal) {
        // This fails only if no process of the group is left.
        let _ = kill_process_group(self.pid, signal);
    }

    /// Kills the rest of the group, and only then reaps the leader.
    pub fn end(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL);
        self.reaped = true;
        self.child.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_panic_during_a_run_leaves_no_process() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 1000 & echo $! >&2; sleep 1000"]);
        let pid = std::sync::Mutex::new(None);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut group = Group::spawn(&mut command).unwrap();
            let mut line = [0; 32];
            let length = group.child.stderr.take().unwrap().read(&mut line).unwrap();
            let text = std::str::from_utf8(&line[..length]).unwrap().trim().to_owned();
            *pid.lock().unwrap() = Some((group.pid, text));
            panic!("on the way");
        }));
        assert!(panicked.is_err());
        let (leader, grandchild) = pid.into_inner().unwrap().unwrap();
        assert!(rustix::process::test_kill_process(leader).is_err());
        crate::handler::testing::assert_gone(&grandchild);
    }
}
