//! This process's ends of the pipes of a program.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};

use super::report_pipe::ReportPipe;

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

/// What a program gets, and who gets what it writes.
pub(super) struct Streams<'a> {
    /// The whole stdin.
    pub input: &'a [u8],
    /// How much of stdout and stderr is kept.
    pub limits: OutputLimits,
    /// The pipe that is read besides stdout and stderr.
    pub reports: Option<&'a ReportPipe>,
    /// Gets all bytes of stderr and of the pipe of reports, as they arrive.
    pub take: &'a mut dyn FnMut(Source, &[u8]),
}

/// Where bytes come from.
#[derive(Clone, Copy)]
pub(super) enum Source {
    Stderr,
    Reports,
}

/// This process's ends of the program's pipes; `None` once closed.
pub(super) struct Pipes<'a> {
    streams: Streams<'a>,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    pub stdout_kept: Vec<u8>,
    stderr: Option<ChildStderr>,
    pub stderr_kept: Tail,
    chunk: Box<[u8]>,
}

impl<'a> Pipes<'a> {
    pub fn new(child: &mut Child, streams: Streams<'a>) -> io::Result<Pipes<'a>> {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        set_nonblocking(&stdin)?;
        set_nonblocking(&stdout)?;
        set_nonblocking(&stderr)?;
        Ok(Pipes {
            stdin,
            stdout,
            stdout_kept: Vec::new(),
            stderr,
            stderr_kept: Tail::new(streams.limits.stderr),
            streams,
            chunk: vec![0; CHUNK].into_boxed_slice(),
        })
    }

    /// Waits until a pipe is ready or `wake` is readable, at most for `timeout`, then reads and writes without blocking.
    pub fn pump(&mut self, wake: Option<&OwnedFd>, timeout: Duration) -> io::Result<()> {
        let [writable, out_readable, err_readable, reports_readable] = self.wait(wake, timeout)?;
        if writable {
            self.write_input();
        }
        if reports_readable && let Some(pipe) = self.streams.reports {
            // An error means that there is nothing to read.
            let length = pipe.pipe().read(&mut self.chunk).unwrap_or(0);
            (self.streams.take)(Source::Reports, &self.chunk[..length]);
        }
        if out_readable && let Some(bytes) = read_once(&mut self.stdout, &mut self.chunk) {
            let room = self.streams.limits.stdout - self.stdout_kept.len();
            self.stdout_kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        if err_readable && let Some(bytes) = read_once(&mut self.stderr, &mut self.chunk) {
            self.stderr_kept.push(bytes);
            (self.streams.take)(Source::Stderr, bytes);
        }
        Ok(())
    }

    /// Which of stdin, stdout, stderr and the pipe of reports are ready, or must be closed.
    fn wait(&self, wake: Option<&OwnedFd>, timeout: Duration) -> io::Result<[bool; 4]> {
        let mut fds = Vec::with_capacity(5);
        let mut add = |fd: Option<_>, events| {
            fd.map(|fd| {
                fds.push(PollFd::from_borrowed_fd(fd, events));
                fds.len() - 1
            })
        };
        let stdin = add(self.stdin.as_ref().map(AsFd::as_fd), PollFlags::OUT);
        let stdout = add(self.stdout.as_ref().map(AsFd::as_fd), PollFlags::IN);
        let stderr = add(self.stderr.as_ref().map(AsFd::as_fd), PollFlags::IN);
        let reports = add(self.streams.reports.map(|reports| reports.pipe().as_fd()), PollFlags::IN);
        add(wake.map(AsFd::as_fd), PollFlags::IN);

        wait_for(&mut fds, Some(timeout))?;
        let ready = |index: Option<usize>| index.is_some_and(|index| is_ready(&fds[index]));
        Ok([stdin, stdout, stderr, reports].map(ready))
    }

    /// Writes more of the input. Closes stdin when all is written, or when the program has closed its end.
    fn write_input(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        let input = &mut self.streams.input;
        match stdin.write(input) {
            Ok(written) => *input = &input[written..],
            Err(error) if is_temporary(&error) => return,
            Err(_) => *input = &[],
        }
        if input.is_empty() {
            self.stdin = None;
        }
    }

    /// Reads the reports that are in the pipe after the end of the program.
    pub fn read_left_reports(&mut self) {
        if let Some(pipe) = self.streams.reports {
            pipe.read_rest(&mut self.chunk, |bytes| (self.streams.take)(Source::Reports, bytes));
        }
    }

    pub fn are_open(&self) -> bool {
        self.stdout.is_some() || self.stderr.is_some()
    }

    /// Reads until both outputs are closed, or until the deadline.
    pub fn drain(&mut self, deadline: Instant) -> io::Result<()> {
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

/// Waits until a descriptor is ready, at most for `timeout`.
pub(super) fn wait_for(fds: &mut [PollFd], timeout: Option<Duration>) -> io::Result<()> {
    let timeout =
        timeout.map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() });
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the descriptor was ready in the last [`wait_for`].
pub(super) fn is_ready(fd: &PollFd) -> bool {
    !fd.revents().is_empty()
}

/// Makes this process's end of a pipe non-blocking. The program's end does not change.
pub(super) fn set_nonblocking(pipe: &Option<impl AsFd>) -> io::Result<()> {
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

pub(super) fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// The last bytes of a stream.
pub(super) struct Tail {
    kept: Vec<u8>,
    limit: usize,
    cut: bool,
}

impl Tail {
    pub fn new(limit: usize) -> Tail {
        Tail { kept: Vec::with_capacity(limit), limit, cut: false }
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub fn push(&mut self, bytes: &[u8]) {
        let bytes_kept = &bytes[bytes.len().saturating_sub(self.limit)..];
        let excess = (self.kept.len() + bytes_kept.len()).saturating_sub(self.limit);
        self.cut |= excess > 0 || bytes_kept.len() < bytes.len();
        self.kept.drain(..excess);
        self.kept.extend_from_slice(bytes_kept);
    }

    /// The bytes without a character of UTF-8 that was cut at the start.
    pub fn into_bytes(mut self) -> Vec<u8> {
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
}
