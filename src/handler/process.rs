//! Runs one program for one attempt, from its start to its end, and leaves no process of its group behind.
//!
//! The calling thread does everything in one loop over `poll`: it writes stdin, reads stdout, stderr and the pipe of reports,
//! and notices the end of the program and the stop signal. This file knows processes and pipes, but neither jobs nor results.

use std::io;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use super::StopReason;
use super::group::Group;
use super::pipes::{Pipes, Streams};
use super::stopping::Stopping;

/// The longest sleep of the loop, so that it sees a stop signal within this time.
const TICK: Duration = Duration::from_millis(100);
/// How long output is read after the end of the program, while another process still holds its pipes.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

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

/// Runs the program until it ends.
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
    mark: &str,
    streams: Streams,
    stop: impl Fn() -> Option<StopReason>,
    term_timeout: impl Fn() -> Duration,
) -> io::Result<Ended> {
    let mut group = Group::spawn(command)?;
    let mut pipes = Pipes::new(&mut group.child, streams)?;
    let exit_event = group.exit_event();

    let mut stopping: Option<(StopReason, Stopping)> = None;
    while !group.leader_has_ended() {
        match &mut stopping {
            None => stopping = stop().map(|reason| (reason, Stopping::begin(&group, mark))),
            Some((_, stopping)) => stopping.go_on(&group, term_timeout()),
        }
        pipes.pump(exit_event.as_ref(), TICK)?;
    }

    // All output of the program is in the pipes now. Other processes of its group may hold the pipes open. They get
    // DRAIN_TIMEOUT for more output, or the rest of the time between SIGTERM and SIGKILL.
    let stopped = match stopping {
        None => {
            pipes.drain(Instant::now() + DRAIN_TIMEOUT)?;
            None
        }
        Some((reason, mut stopping)) => {
            stopping.leader_ended();
            while !stopping.time_left(term_timeout()).is_zero()
                && (stopping.is_going_on() || pipes.are_open())
            {
                pipes.pump(None, stopping.time_left(term_timeout()).min(TICK))?;
            }
            stopping.end();
            Some(reason)
        }
    };
    let status = group.end()?;
    pipes.read_left_reports();
    let (stdout, stderr) = (pipes.stdout_kept, pipes.stderr_kept);
    Ok(Ended { status, stopped, stdout, stderr: stderr.into_bytes() })
}
