//! Runs one program in a process group of its own and leaves nothing of it behind.
//!
//! One thread does all of it, in one loop over `poll`: it feeds stdin, reads stdout and stderr, and notices both the
//! program's end and the wish to stop it. This file knows processes and pipes, neither jobs nor results.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::StopReason;
use super::tree::Tree;
use crate::children::{self, Owned};

/// How long the loop sleeps at most before it looks whether it should stop.
const TICK: Duration = Duration::from_millis(100);
/// How long output is waited for after the program's end, while another process still holds its pipes.
const DRAIN: Duration = Duration::from_millis(100);
/// How long killed descendants are waited for, and how long between two looks.
const KILL_TIME: Duration = Duration::from_secs(1);
const KILL_PAUSE: Duration = Duration::from_millis(20);
/// As much as a pipe holds by default.
const CHUNK: usize = 64 * 1024;

/// What is kept of a program's output: the rest is read and thrown away, so that the program never blocks on it.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Bytes from the start of stdout.
    pub stdout: usize,
    /// Bytes from the end of stderr.
    pub stderr: usize,
}

/// What a run came to.
pub(super) struct Ended {
    /// How the program itself ended.
    pub status: ExitStatus,
    /// Why it was told to stop, if it was.
    pub stopped: Option<StopReason>,
    /// The start of its stdout.
    pub stdout: Vec<u8>,
    /// The end of its stderr.
    pub stderr: Vec<u8>,
}

/// Runs the program with `input` on its stdin until it ends.
///
/// As soon as `stop` gives a reason, the whole group and what else descends from the program get SIGTERM and, after the
/// time that `patience` gives, SIGKILL. That time is asked for again and again: it may become shorter. Whatever happens, no
/// process of the group is left when this returns or panics. `mark` is an entry `NAME=VALUE` of the program's environment by
/// which descendants are known that outlived their parents.
///
/// # Errors
/// The program cannot be started, or the system refuses something on the way.
pub(super) fn run(
    command: &mut Command,
    input: &[u8],
    mark: &str,
    limits: Limits,
    stop: impl Fn() -> Option<StopReason>,
    patience: impl Fn() -> Duration,
) -> io::Result<Ended> {
    let mut group = Group::spawn(command)?;
    let mut pipes = Pipes::new(&mut group.child, input, limits)?;
    let exit_event = group.exit_event();

    let mut tree = Tree::new(group.pid, mark);
    let mut stopping = None;
    while !group.leader_has_ended() {
        match stopping {
            None => {
                if let Some(reason) = stop() {
                    // Before any of them ends: its children are found by it.
                    tree.tell();
                    group.signal(Signal::TERM);
                    stopping = Some((reason, Instant::now()));
                }
            }
            Some((_, told_at)) if told_at.elapsed() >= patience() => {
                tree.kill();
                group.signal(Signal::KILL);
            }
            Some(_) => tree.tell(),
        }
        pipes.pump(exit_event.as_ref(), TICK)?;
    }

    // What the program wrote is in the pipes now. Others of its group may hold them open for as long as they like:
    // they get a moment to add their last words, or the rest of their time to stop.
    match stopping {
        None => pipes.drain(Instant::now() + DRAIN)?,
        Some((_, told_at)) => {
            let time_left = || patience().saturating_sub(told_at.elapsed());
            tree.tell_now();
            while (tree.is_running() || pipes.are_open()) && !time_left().is_zero() {
                pipes.pump(None, time_left().min(TICK))?;
                tree.tell();
            }
            end_tree(&mut tree);
        }
    }
    let status = group.end()?;
    let (stdout, stderr) = (pipes.stdout_kept, pipes.stderr_kept);
    Ok(Ended { status, stopped: stopping.map(|(reason, _)| reason), stdout, stderr: stderr.into_bytes() })
}

/// Kills what is left of the tree. A process that was about to start another one is why there is more than one round.
fn end_tree(tree: &mut Tree) {
    let give_up_at = Instant::now() + KILL_TIME;
    tree.kill();
    while tree.is_running() && Instant::now() < give_up_at {
        std::thread::sleep(KILL_PAUSE);
        tree.kill();
    }
}

/// A running program, the leader of a process group. Dropping it kills the group and reaps the leader.
struct Group {
    child: Child,
    _owned: Owned,
    pid: Pid,
    reaped: bool,
}

impl Group {
    fn spawn(command: &mut Command) -> io::Result<Group> {
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (child, owned) = children::spawn(command)?;
        let pid = Pid::from_child(&child);
        Ok(Group { child, _owned: owned, pid, reaped: false })
    }

    /// Becomes readable when the leader ends. `None` where the system cannot do that: then [`TICK`] has to do.
    #[cfg(target_os = "linux")]
    fn exit_event(&self) -> Option<OwnedFd> {
        rustix::process::pidfd_open(self.pid, rustix::process::PidfdFlags::empty()).ok()
    }

    #[cfg(not(target_os = "linux"))]
    fn exit_event(&self) -> Option<OwnedFd> {
        None
    }

    /// Leaves the leader unreaped: as long as it is, its group's id cannot come to mean another group.
    fn leader_has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error means that there is no such child any more.
        !matches!(waitid(WaitId::Pid(self.pid), options), Ok(None) | Err(Errno::INTR))
    }

    fn signal(&self, signal: Signal) {
        // Fails only if nobody of the group is left, which is what it is for.
        let _ = kill_process_group(self.pid, signal);
    }

    /// Kills what is left of the group, and only then reaps the leader.
    fn end(&mut self) -> io::Result<ExitStatus> {
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

/// Our ends of the program's pipes; `None` once closed.
struct Pipes<'a> {
    stdin: Option<ChildStdin>,
    input: &'a [u8],
    stdout: Option<ChildStdout>,
    stdout_kept: Vec<u8>,
    stdout_limit: usize,
    stderr: Option<ChildStderr>,
    stderr_kept: Tail,
    chunk: Box<[u8]>,
}

impl<'a> Pipes<'a> {
    fn new(child: &mut Child, input: &'a [u8], limits: Limits) -> io::Result<Pipes<'a>> {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        unblock(&stdin)?;
        unblock(&stdout)?;
        unblock(&stderr)?;
        Ok(Pipes {
            stdin,
            input,
            stdout,
            stdout_kept: Vec::new(),
            stdout_limit: limits.stdout,
            stderr,
            stderr_kept: Tail::new(limits.stderr),
            chunk: vec![0; CHUNK].into_boxed_slice(),
        })
    }

    /// Waits until something can be done or `wake` is readable, `timeout` at most, and does it.
    fn pump(&mut self, wake: Option<&OwnedFd>, timeout: Duration) -> io::Result<()> {
        let (writable, out_readable, err_readable) = self.wait(wake, timeout)?;
        if writable {
            self.feed();
        }
        if out_readable && let Some(bytes) = read_once(&mut self.stdout, &mut self.chunk) {
            let room = self.stdout_limit - self.stdout_kept.len();
            self.stdout_kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        if err_readable && let Some(bytes) = read_once(&mut self.stderr, &mut self.chunk) {
            self.stderr_kept.push(bytes);
        }
        Ok(())
    }

    /// Which of stdin, stdout and stderr have something to do, be it only to be closed.
    fn wait(&self, wake: Option<&OwnedFd>, timeout: Duration) -> io::Result<(bool, bool, bool)> {
        let mut fds = Vec::with_capacity(4);
        let mut add = |fd: Option<_>, events| {
            fd.map(|fd| {
                fds.push(PollFd::from_borrowed_fd(fd, events));
                fds.len() - 1
            })
        };
        let stdin = add(self.stdin.as_ref().map(AsFd::as_fd), PollFlags::OUT);
        let stdout = add(self.stdout.as_ref().map(AsFd::as_fd), PollFlags::IN);
        let stderr = add(self.stderr.as_ref().map(AsFd::as_fd), PollFlags::IN);
        add(wake.map(AsFd::as_fd), PollFlags::IN);

        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = |index: Option<usize>| index.is_some_and(|index| !fds[index].revents().is_empty());
        Ok((ready(stdin), ready(stdout), ready(stderr)))
    }

    /// Writes on; closes stdin when all is written, or when nobody reads it, which is the program's good right.
    fn feed(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        match stdin.write(self.input) {
            Ok(written) => self.input = &self.input[written..],
            Err(error) if is_temporary(&error) => return,
            Err(_) => self.input = &[],
        }
        if self.input.is_empty() {
            self.stdin = None;
        }
    }

    fn are_open(&self) -> bool {
        self.stdout.is_some() || self.stderr.is_some()
    }

    /// Reads on until both outputs are closed or the time has come.
    fn drain(&mut self, until: Instant) -> io::Result<()> {
        self.stdin = None;
        while self.are_open() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.pump(None, left)?;
        }
        Ok(())
    }
}

/// Makes the calls on our end return at once; the program's end of a pipe is not touched by it.
fn unblock(pipe: &Option<impl AsFd>) -> io::Result<()> {
    if let Some(pipe) = pipe {
        ioctl_fionbio(pipe, true)?;
    }
    Ok(())
}

/// One read; closes the pipe at its end.
fn read_once<'b>(pipe: &mut Option<impl Read>, chunk: &'b mut [u8]) -> Option<&'b [u8]> {
    match pipe.as_mut()?.read(chunk) {
        Ok(length) if length > 0 => Some(&chunk[..length]),
        Err(error) if is_temporary(&error) => None,
        Ok(_) | Err(_) => {
            *pipe = None;
            None
        }
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// The last bytes of a stream.
struct Tail {
    kept: Vec<u8>,
    limit: usize,
    cut: bool,
}

impl Tail {
    fn new(limit: usize) -> Tail {
        Tail { kept: Vec::with_capacity(limit), limit, cut: false }
    }

    fn push(&mut self, bytes: &[u8]) {
        let bytes_kept = &bytes[bytes.len().saturating_sub(self.limit)..];
        let excess = (self.kept.len() + bytes_kept.len()).saturating_sub(self.limit);
        self.cut |= excess > 0 || bytes_kept.len() < bytes.len();
        self.kept.drain(..excess);
        self.kept.extend_from_slice(bytes_kept);
    }

    /// Without the half character that the cut may have left at the start.
    fn into_bytes(mut self) -> Vec<u8> {
        if self.cut {
            let halves = self.kept.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count();
            self.kept.drain(..halves);
        }
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_the_end_of_what_was_pushed() {
        let mut tail = Tail::new(4);
        for bytes in [&b"ab"[..], b"", b"cde", b"f"] {
            tail.push(bytes);
        }
        assert_eq!(tail.into_bytes(), b"cdef");

        let mut tail = Tail::new(4);
        tail.push(b"longer than that");
        assert_eq!(tail.into_bytes(), b"that");
    }

    #[test]
    fn a_cut_tail_starts_with_a_whole_character() {
        let mut tail = Tail::new(4);
        tail.push("aéé".as_bytes());
        assert_eq!(tail.into_bytes(), "éé".as_bytes());
        let mut tail = Tail::new(3);
        tail.push("éé".as_bytes());
        assert_eq!(tail.into_bytes(), "é".as_bytes());
    }

    #[test]
    fn a_panic_on_the_way_leaves_no_process() {
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
