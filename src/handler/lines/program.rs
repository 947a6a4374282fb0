//! One program that stays: it gets one job after the other.
//!
//! The pipes are non-blocking on this side. For a job, a thread looks whether the program is quiet, writes the job, waits for
//! stdout, reads the answer, and looks at stderr: five system calls.

use std::io;
use std::mem::{MaybeUninit, replace};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, ioctl_fionbio, ioctl_fionread};

use super::reader::{LineBuffer, Said, read};
use crate::handler::context::JobContext;
use crate::handler::group::Group;
use crate::handler::pipes::{Tail, is_ready, wait_for};
use crate::handler::report_lines::ReportLines;
use crate::handler::stop::StopReason;
use crate::handler::stopping::{Stopping, term_timeout};
use crate::job::{Outcome, rfc3339};

/// The longest sleep while a job runs, so that a stop signal is seen within this time.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// How much is read at a time.
const CHUNK: usize = 16 * 1024;
/// What the input keeps of its memory between two jobs.
const INPUT_KEPT: usize = 64 * 1024;
/// How many bytes from the end of stderr are kept.
const STDERR_KEPT: usize = 2 * 1024;
/// How often an output is read at a time, by a thread that must not wait for its end.
pub(super) const MAX_READS: usize = 64;
/// How long a program may take to end after it has closed its stdin or stdout, which it does on its way out.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// The descriptors that tell what a program does, for a thread that waits while another one has the program.
pub(super) struct Outputs {
    stdout: OwnedFd,
    stderr: OwnedFd,
    /// Becomes readable when the program ends; `None` if the system has no such descriptors.
    exit: Option<OwnedFd>,
}

/// A running program. Dropping it kills its process group.
pub(super) struct Program {
    pub group: Group,
    /// An entry `NAME=VALUE` of the environment of the program and of its descendants.
    pub mark: String,
    /// `None` once closed.
    stdin: Option<OwnedFd>,
    pub outputs: Arc<Outputs>,
    stdout_is_open: bool,
    stderr_is_open: bool,
    has_ended: bool,
    /// Whether the program has written something to stdout.
    pub has_spoken: bool,
    /// Whether all lines of a program that is stopped were reports.
    speaks: bool,
    /// The line of the job, and how much of it is written.
    input: Vec<u8>,
    written: usize,
    lines: LineBuffer,
    stderr: Tail,
    /// Makes log lines of the jobs from stderr; `None` if stderr is not their log.
    stderr_lines: Option<ReportLines>,
    /// How many jobs the program has answered.
    pub answered: u32,
    /// When it answered last.
    pub idle_since: Instant,
}

/// How an attempt ended. After any end but an answer the program is gone.
pub(super) enum End {
    /// The program has answered.
    Answered(Outcome),
    /// The program wrote this before it got the job, and was killed.
    SpokeTooSoon(String),
    /// The program has ended without an answer.
    Exited { status: ExitStatus, has_read: bool },
    /// The program broke the protocol, and was killed.
    Killed(String),
    /// The stop signal came, and the program was stopped.
    Stopped(StopReason),
}

impl Program {
    /// Starts the program. `mark` is an entry `NAME=VALUE` of its environment.
    pub fn start(command: &mut Command, mark: String, stderr_is_log: bool) -> io::Result<Program> {
        let mut group = Group::spawn(command)?;
        let child = &mut group.child;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(io::Error::other("the program has no pipes"));
        };
        let outputs = Outputs { stdout: stdout.into(), stderr: stderr.into(), exit: group.exit_event() };
        let stdin = OwnedFd::from(stdin);
        for pipe in [&stdin, &outputs.stdout, &outputs.stderr] {
            ioctl_fionbio(pipe, true)?;
        }
        Ok(Program {
            group,
            mark,
            stdin: Some(stdin),
            outputs: Arc::new(outputs),
            stdout_is_open: true,
            stderr_is_open: true,
            has_ended: false,
            has_spoken: false,
            speaks: true,
            input: Vec::new(),
            written: 0,
            lines: LineBuffer::default(),
            stderr: Tail::new(STDERR_KEPT),
            stderr_lines: stderr_is_log.then(ReportLines::of_log),
            answered: 0,
            idle_since: Instant::now(),
        })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.group.child.id()
    }

    /// Gives the program a job, and waits for the end of the attempt.
    ///
    /// # Errors
    /// A system call on the pipes fails. The caller drops the program.
    pub fn run(&mut self, job: &JobContext) -> io::Result<End> {
        // A program may close its stdout or write to it before it gets its first job: that is seen below.
        if self.answered > 0
            && let Some(end) = self.end_between_jobs()?
        {
            return Ok(end);
        }
        write_job(&mut self.input, job)?;
        self.written = 0;
        let mut reads = self.write();
        while reads {
            if let Some(reason) = job.stop_reason() {
                return self.stop(job, reason);
            }
            let [stdout, stderr, stdin] = self.wait()?;
            if stderr {
                self.read_stderr(Some(job));
            }
            if stdin {
                reads = self.goes_on_reading();
            }
            if stdout {
                match self.read_lines(job) {
                    Ok(Some(outcome)) => return Ok(self.answer(job, outcome)),
                    Ok(None) if self.stdout_is_open => {}
                    Ok(None) => break,
                    Err(reason) => {
                        self.kill()?;
                        return Ok(End::Killed(reason));
                    }
                }
            } else if !stderr && !stdin && self.has_ended() {
                break;
            }
        }
        self.wait_for_exit(job)
    }

    /// The end of a program that did not wait for its next job in silence. `None`: it did.
    fn end_between_jobs(&mut self) -> io::Result<Option<End>> {
        self.lines.bytes.reserve(CHUNK);
        match rustix::io::read(&self.outputs.stdout, spare_capacity(&mut self.lines.bytes)) {
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Ok(0) | Err(_) => {
                self.wait_for_end(None, EXIT_TIMEOUT)?;
                Ok(Some(End::Exited { status: self.kill()?, has_read: false }))
            }
            Ok(_) => {
                self.kill()?;
                Ok(Some(End::SpokeTooSoon(self.lines.shown())))
            }
        }
    }

    /// Whether a program without a job runs, and has written nothing to stdout.
    pub fn is_waiting(&mut self) -> bool {
        let stdout = rustix::io::read(&self.outputs.stdout, spare_capacity(&mut self.lines.bytes));
        matches!(stdout, Err(Errno::AGAIN | Errno::INTR)) && !self.has_ended()
    }

    /// The end of an attempt that was answered.
    fn answer(&mut self, job: &JobContext, outcome: Outcome) -> End {
        // What the program has written to stderr before its answer belongs to this attempt.
        self.read_stderr(Some(job));
        self.end_stderr(job);
        self.answered = self.answered.saturating_add(1);
        self.idle_since = Instant::now();
        if self.written < self.input.len() {
            // A program that has not read its job whole would take the rest for the next one.
            self.stdin = None;
        }
        self.input.clear();
        self.input.shrink_to(INPUT_KEPT);
        End::Answered(outcome)
    }

    /// The error of a program that wrote more than its answer.
    pub fn fault(&mut self) -> Option<String> {
        (!self.lines.is_used_up()).then(|| self.lines.shown())
    }

    /// Whether the program reads more jobs.
    pub fn can_get_more(&self) -> bool {
        self.stdin.is_some()
    }

    /// Whether a program whose stdin is ready has read its job, or goes on reading it.
    fn goes_on_reading(&mut self) -> bool {
        if self.written < self.input.len() {
            return self.write();
        }
        // The program has closed its stdin. It can answer its job if it has read something of it.
        let has_read = self.has_read();
        if has_read {
            self.stdin = None;
        }
        has_read
    }

    /// Whether the program has read something of its job.
    fn has_read(&self) -> bool {
        let unread = self.stdin.as_ref().map_or(Ok(0), ioctl_fionread);
        self.written > 0 && unread.unwrap_or(0) < self.written as u64
    }

    /// Writes more of the input. `false`: the program has closed its stdin.
    fn write(&mut self) -> bool {
        let Some(stdin) = &self.stdin else { return false };
        match rustix::io::write(stdin, &self.input[self.written..]) {
            Ok(length) => self.written += length,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return false,
        }
        true
    }

    /// Waits until a pipe is ready, at most for [`TICK`]. Returns whether stdout, stderr and stdin are.
    fn wait(&self) -> io::Result<[bool; 3]> {
        let stdout = || PollFd::new(&self.outputs.stdout, PollFlags::IN);
        // In this order: when stdout has the answer, all that was written to stderr before it is seen too.
        let stderr = match self.stderr_is_open {
            true => PollFd::new(&self.outputs.stderr, PollFlags::IN),
            // A closed pipe would be ready for ever.
            false => stdout(),
        };
        let stdin = match &self.stdin {
            // When all is written, only the end of its reader makes the pipe ready.
            Some(stdin) if self.written == self.input.len() => PollFd::new(stdin, PollFlags::empty()),
            Some(stdin) => PollFd::new(stdin, PollFlags::OUT),
            None => stdout(),
        };
        let mut fds = [stdout(), stderr, stdin];
        wait_for(&mut fds, Some(TICK))?;
        let [stdout, stderr, stdin] = fds.each_ref().map(is_ready);
        Ok([stdout, stderr && self.stderr_is_open, stdin && self.stdin.is_some()])
    }

    /// Reads stdout once, and reports what the program says. Returns its answer.
    ///
    /// # Errors
    /// The program broke the protocol.
    fn read_lines(&mut self, job: &JobContext) -> Result<Option<Outcome>, String> {
        self.lines.bytes.reserve(CHUNK);
        match rustix::io::read(&self.outputs.stdout, spare_capacity(&mut self.lines.bytes)) {
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Ok(0) | Err(_) => {
                self.stdout_is_open = false;
                return Ok(None);
            }
            Ok(_) => self.has_spoken = true,
        }
        while let Some(line) = self.lines.next_line()? {
            match read(line)? {
                Said::Report(report) => job.report(report),
                Said::Answer(outcome) => return Ok(Some(outcome)),
            }
        }
        Ok(None)
    }

    /// Reads stderr once, for a job if there is one. Returns whether there was something.
    pub fn read_stderr(&mut self, job: Option<&JobContext>) -> bool {
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        if !self.stderr_is_open {
            return false;
        }
        match rustix::io::read(&self.outputs.stderr, &mut chunk) {
            Ok((bytes, _)) if !bytes.is_empty() => {
                self.stderr.push(bytes);
                if let (Some(lines), Some(job)) = (&mut self.stderr_lines, job) {
                    job.report(lines.push(bytes));
                }
                return true;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(_) | Err(_) => self.stderr_is_open = false,
        }
        false
    }

    /// Reads stdout once and drops what it has. Returns whether there was something.
    pub fn drop_stdout(&mut self) -> bool {
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        match rustix::io::read(&self.outputs.stdout, &mut chunk) {
            Ok((bytes, _)) if !bytes.is_empty() => return true,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(_) | Err(_) => self.stdout_is_open = false,
        }
        false
    }

    /// Reports the last line of stderr, if it has no end.
    fn end_stderr(&mut self, job: &JobContext) {
        if let Some(lines) = &mut self.stderr_lines {
            job.report(lines.end());
        }
    }

    /// The end of what the program has written to stderr since the last call.
    pub fn take_stderr(&mut self) -> Vec<u8> {
        match self.stderr.is_empty() {
            true => Vec::new(),
            false => replace(&mut self.stderr, Tail::new(STDERR_KEPT)).into_bytes(),
        }
    }

    /// Closes stdin: the program should end.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Whether the program has ended. Others may still hold its pipes.
    pub fn has_ended(&mut self) -> bool {
        self.has_ended = self.has_ended || self.group.leader_has_ended();
        self.has_ended
    }

    /// Adds the descriptors that become ready when the program goes on or ends.
    pub fn add_descriptors<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        let outputs = &*self.outputs;
        let open = [(self.stdout_is_open, &outputs.stdout), (self.stderr_is_open, &outputs.stderr)];
        let open = open.into_iter().filter(|(is_open, _)| *is_open).map(|(_, fd)| fd);
        let exit = outputs.exit.iter().filter(|_| !self.has_ended);
        fds.extend(open.chain(exit).map(|fd| PollFd::new(fd, PollFlags::IN)));
    }

    /// Whether stdout or stderr is open: by the program or by a process that it has started.
    pub fn is_open(&self) -> bool {
        self.stdout_is_open || self.stderr_is_open
    }

    /// Waits for the end of a program that can answer no more, and drops what it writes to stdout. Returns whether it ended
    /// within `timeout`.
    fn wait_for_end(&mut self, job: Option<&JobContext>, timeout: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + timeout;
        while !self.has_ended() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.pump(job, left)?;
        }
        Ok(true)
    }

    /// Waits until the program goes on or ends, at most for `timeout`. Reads both outputs; an answer comes too late.
    fn pump(&mut self, job: Option<&JobContext>, timeout: Duration) -> io::Result<()> {
        let mut fds = Vec::new();
        self.add_descriptors(&mut fds);
        wait_for(&mut fds, Some(timeout.min(TICK)))?;
        self.read_stderr(job);
        match job {
            // After a line that is no report, the rest is dropped.
            Some(job) if self.speaks => self.speaks = matches!(self.read_lines(job), Ok(None)),
            _ => {
                self.drop_stdout();
            }
        }
        Ok(())
    }

    /// The end of a program that can answer no more.
    fn wait_for_exit(&mut self, job: &JobContext) -> io::Result<End> {
        let has_ended = self.wait_for_end(Some(job), EXIT_TIMEOUT)?;
        (0..MAX_READS).take_while(|_| self.read_stderr(Some(job))).for_each(drop);
        self.end_stderr(job);
        let has_read = self.has_read();
        let status = self.kill()?;
        if has_ended || self.answered > 0 && !has_read {
            return Ok(End::Exited { status, has_read });
        }
        Ok(match job.stop_reason() {
            Some(reason) => End::Stopped(reason),
            None if self.stdout_is_open => {
                End::Killed("the program closed its stdin without an answer".to_owned())
            }
            None => End::Killed("the program closed its stdout without an answer".to_owned()),
        })
    }

    /// Stops the program with all that it started: SIGTERM, later SIGKILL. Its reports still count.
    fn stop(&mut self, job: &JobContext, reason: StopReason) -> io::Result<End> {
        // The rest of the job is not written any more.
        self.stdin = None;
        let mut stopping = Stopping::begin(&self.group, &self.mark);
        let time = || term_timeout(job.stop.is_hurried());
        while !self.has_ended() {
            stopping.go_on(&self.group, time());
            self.pump(Some(job), TICK)?;
        }
        stopping.leader_ended();
        while !stopping.time_left(time()).is_zero() && (stopping.is_going_on() || self.is_open()) {
            self.pump(Some(job), stopping.time_left(time()))?;
        }
        self.end_stderr(job);
        stopping.end();
        self.kill()?;
        Ok(End::Stopped(reason))
    }

    /// Kills what is left of the program's group.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.group.end()
    }
}

impl Outputs {
    /// The descriptors to wait for while the program has no job.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.stdout, &self.stderr].into_iter().chain(&self.exit).map(AsFd::as_fd)
    }
}

/// The job's JSON in one line, as http handlers get it, with the number of the attempt and the tick of its schedule.
fn write_job(line: &mut Vec<u8>, job: &JobContext) -> io::Result<()> {
    line.clear();
    line.extend_from_slice(b"{\"attempt\":");
    line.extend_from_slice(job.attempt().to_string().as_bytes());
    if let Some(schedule) = &job.job().schedule {
        line.extend_from_slice(b",\"tick\":\"");
        line.extend_from_slice(rfc3339(schedule.tick_ms).as_bytes());
        line.push(b'"');
    }
    let start = line.len();
    serde_json::to_writer(&mut *line, job.job())?;
    line[start] = b',';
    // Where JSON has line ends they are spaces: strings have none.
    line.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    line.push(b'\n');
    Ok(())
}
