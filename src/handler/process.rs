//! Runs one program in its own process group, and leaves no process of the group behind.
//!
//! The calling thread does everything in one loop over `poll`: it writes stdin, reads stdout and stderr, and notices the end
//! of the program and the stop signal. This file knows processes and pipes, but neither jobs nor results.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::StopReason;
use super::descendants::Descendants;
use crate::children::{self, Owned};

/// The longest sleep of the loop, so that it sees a stop signal within this time.
const TICK: Duration = Duration::from_millis(100);
/// How long output is read after the end of the program, while another process still holds its pipes.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);
/// How long the loop waits for the end of killed descendants.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);
/// The time between two searches for killed descendants.
const KILL_INTERVAL: Duration = Duration::from_millis(20);
/// The default capacity of a pipe.
const CHUNK: usize = 64 * 1024;

/// How much output is kept. The rest is read and dropped, so that the program never blocks on a full pipe.
#[derive(Clone, Copy)]
pub(super) struct OutputLimits {
    /// Bytes from the start of stdout.
    pub stdout: usize,
    /// Bytes from the end of stderr.
    pub stderr: usize,
}

/// A program that has ended.
pub(super) struct Ended {
    /// How the program itself ended.
    pub status: ExitStatus,
    /// The reason of the stop signal, if the program got one.
    pub stopped: Option<StopReason>,
    /// The start of stdout.
    pub stdout: Vec<u8>,
    /// The end of stderr.
    pub stderr: Vec<u8>,
}

/// Runs the program with `input` on its stdin until it ends.
///
/// When `stop` returns a reason, the process group and all other descendants of the program get SIGTERM, and after
/// `term_timeout` SIGKILL. `term_timeout` is called repeatedly, since the time may become shorter. When this function returns
/// or panics, no process of the group is left. `mark` is an entry `NAME=VALUE` of the program's environment, by which
/// descendants are recognised whose parents have ended.
///
/// # Errors
/// The program cannot be started, or a system call on its pipes fails.
pub(super) fn run(
    command: &mut Command,
    input: &[u8],
    mark: &str,
    limits: OutputLimits,
    stop: impl Fn() -> Option<StopReason>,
    term_timeout: impl Fn() -> Duration,
) -> io::Result<Ended> {
    let mut group = Group::spawn(command)?;
    let mut pipes = Pipes::new(&mut group.child, input, limits)?;
    let exit_event = group.exit_event();

    let mut descendants = Descendants::new(group.pid, mark);
    let mut stopping = None;
    while !group.leader_has_ended() {
        match stopping {
            None => {
                if let Some(reason) = stop() {
                    // Before the group gets the signal: descendants are found through their parents.
                    descendants.terminate_new();
                    group.signal(Signal::TERM);
                    stopping = Some((reason, Instant::now()));
                }
            }
            Some((_, stopped_at)) if stopped_at.elapsed() >= term_timeout() => {
                descendants.kill();
                group.signal(Signal::KILL);
            }
            Some(_) => descendants.terminate_new(),
        }
        pipes.pump(exit_event.as_ref(), TICK)?;
    }

    // All output of the program is in the pipes now. Other processes of its group may hold the pipes open. They get
    // DRAIN_TIMEOUT for more output, or the rest of the time between SIGTERM and SIGKILL.
    match stopping {
        None => pipes.drain(Instant::now() + DRAIN_TIMEOUT)?,
        Some((_, stopped_at)) => {
            let time_left = || term_timeout().saturating_sub(stopped_at.elapsed());
            descendants.terminate_new_now();
            while (descendants.is_running() || pipes.are_open()) && !time_left().is_zero() {
                pipes.pump(None, time_left().min(TICK))?;
                descendants.terminate_new();
            }
            end_descendants(&mut descendants);
        }
    }
    let status = group.end()?;
    let (stdout, stderr) = (pipes.stdout_kept, pipes.stderr_kept);
    Ok(Ended { status, stopped: stopping.map(|(reason, _)| reason), stdout, stderr: stderr.into_bytes() })
}

/// Kills the remaining descendants, in several rounds: a process may start another one before it is killed.
fn end_descendants(descendants: &mut Descendants) {
    let deadline = Instant::now() + KILL_TIMEOUT;
    descendants.kill();
    while descendants.is_running() && Instant::now() < deadline {
        std::thread::sleep(KILL_INTERVAL);
        descendants.kill();
    }
}

/// A running program, the leader of its process group. Dropping it kills the group and reaps the leader.
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

    /// A descriptor that becomes readable when the leader ends. `None` if the system has no such descriptors: then the loop
    /// notices the end within [`TICK`].
    #[cfg(target_os = "linux")]
    fn exit_event(&self) -> Option<OwnedFd> {
        rustix::process::pidfd_open(self.pid, rustix::process::PidfdFlags::empty()).ok()
    }

    #[cfg(not(target_os = "linux"))]
    fn exit_event(&self) -> Option<OwnedFd> {
        None
    }

    /// Whether the leader has ended. It is not reaped, so that the id of its group cannot be reused.
    fn leader_has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error means that the child does not exist any more.
        !matches!(waitid(WaitId::Pid(self.pid), options), Ok(None) | Err(Errno::INTR))
    }

    fn signal(&self, signal: Signal) {
        // This fails only if no process of the group is left.
        let _ = kill_process_group(self.pid, signal);
    }

    /// Kills the rest of the group, and only then reaps the leader.
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

/// This process's ends of the program's pipes; `None` once closed.
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
    fn new(child: &mut Child, input: &'a [u8], limits: OutputLimits) -> io::Result<Pipes<'a>> {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        set_nonblocking(&stdin)?;
        set_nonblocking(&stdout)?;
        set_nonblocking(&stderr)?;
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

    /// Waits until a pipe is ready or `wake` is readable, at most for `timeout`, then reads and writes without blocking.
    fn pump(&mut self, wake: Option<&OwnedFd>, timeout: Duration) -> io::Result<()> {
        let (writable, out_readable, err_readable) = self.wait(wake, timeout)?;
        if writable {
            self.write_input();
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

    /// Which of stdin, stdout and stderr are ready, or must be closed.
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

    /// Writes more of the input. Closes stdin when all is written, or when the program has closed its end.
    fn write_input(&mut self) {
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

    /// Reads until both outputs are closed, or until the deadline.
    fn drain(&mut self, deadline: Instant) -> io::Result<()> {
        self.stdin = None;
        while self.are_open() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.pump(None, left)?;
        }
        Ok(())
    }
}

/// Makes this process's end of a pipe non-blocking. The program's end does not change.
fn set_nonblocking(pipe: &Option<impl AsFd>) -> io::Result<()> {
    if let Some(pipe) = pipe {
        ioctl_fionbio(pipe, true)?;
    }
    Ok(())
}

/// Reads once. Closes the pipe at the end of the stream.
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

    /// The bytes without a character of UTF-8 that was cut at the start.
    fn into_bytes(mut self) -> Vec<u8> {
        if self.cut {
            let rest = self.kept.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count();
            self.kept.drain(..rest);
        }
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_the_last_bytes() {
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
