//! A program without a job on its way to its end: first its stdin is closed, then it gets SIGTERM, then SIGKILL.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::program::{MAX_READS, Program};
use crate::handler::pipes::wait_for;
use crate::handler::stopping::{Stopping, term_timeout};

/// The time from the end of stdin to SIGTERM.
pub(super) const EOF_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Ending {
    pub program: Program,
    began: Instant,
    stopping: Option<Stopping>,
    leader_has_ended: bool,
    /// Whether the program has written to stdout.
    pub has_written: bool,
}

impl Ending {
    /// Closes the stdin of the program.
    pub fn begin(mut program: Program) -> Ending {
        program.close_stdin();
        Ending { program, began: Instant::now(), stopping: None, leader_has_ended: false, has_written: false }
    }

    /// Waits until the program goes on or ends, at most for `timeout`.
    pub fn wait(&self, timeout: Duration) {
        let mut fds = Vec::new();
        self.program.add_descriptors(&mut fds);
        // After an error the next step comes a little early.
        let _ = wait_for(&mut fds, Some(timeout));
    }

    /// Does what is due. Returns how the program ended, once it and all that it started have ended.
    pub fn step(&mut self, is_hurried: bool) -> Option<ExitStatus> {
        let program = &mut self.program;
        for _ in 0..MAX_READS {
            let has_written = program.drop_stdout();
            self.has_written |= has_written;
            if !has_written & !program.read_stderr(None) {
                break;
            }
        }
        if !program.has_ended() {
            match &mut self.stopping {
                Some(stopping) => stopping.go_on(&program.group, term_timeout(is_hurried)),
                None if is_hurried || self.began.elapsed() >= EOF_TIMEOUT => {
                    self.stopping = Some(Stopping::begin(&program.group, &program.mark));
                }
                None => {}
            }
            return None;
        }
        if let Some(stopping) = &mut self.stopping {
            if !std::mem::replace(&mut self.leader_has_ended, true) {
                stopping.leader_ended();
            }
            if stopping.is_going_on() && !stopping.time_left(term_timeout(is_hurried)).is_zero() {
                return None;
            }
        }
        self.stopping.take().into_iter().for_each(Stopping::end);
        // An error means that the status is lost, not that the program runs.
        Some(program.kill().unwrap_or_default())
    }
}
