//! The stop of a program and of all that it started: SIGTERM, and SIGKILL after a time.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::descendants::Descendants;
use super::group::Group;

/// The time from SIGTERM to SIGKILL.
pub(super) const TERM_TIMEOUT: Duration = Duration::from_secs(5);
/// The time from SIGTERM to SIGKILL when the server must end at once.
pub(super) const HURRIED_TERM_TIMEOUT: Duration = Duration::from_millis(500);
/// How long [`Stopping::end`] waits for the end of killed descendants.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);
/// The time between two searches for killed descendants.
const KILL_INTERVAL: Duration = Duration::from_millis(20);

/// The time from SIGTERM to SIGKILL: short if the server is hurried.
pub(super) fn term_timeout(is_hurried: bool) -> Duration {
    if is_hurried { HURRIED_TERM_TIMEOUT } else { TERM_TIMEOUT }
}

/// A program that has got SIGTERM.
pub(super) struct Stopping {
    descendants: Descendants,
    began: Instant,
}

impl Stopping {
    /// Sends SIGTERM. `mark` is an entry `NAME=VALUE` of the program's environment, by which descendants are recognised
    /// whose parents have ended.
    pub fn begin(group: &Group, mark: &str) -> Stopping {
        let mut descendants = Descendants::new(group.pid, mark);
        // Before the group gets the signal: descendants are found through their parents.
        descendants.terminate_new();
        group.signal(Signal::TERM);
        Stopping { descendants, began: Instant::now() }
    }

    /// Sends SIGTERM to new descendants, or SIGKILL to all processes once `term_timeout` is over. To be called repeatedly
    /// until the leader has ended.
    pub fn go_on(&mut self, group: &Group, term_timeout: Duration) {
        if self.time_left(term_timeout).is_zero() {
            self.descendants.kill();
            group.signal(Signal::KILL);
        } else {
            self.descendants.terminate_new();
        }
    }

    /// The time until SIGKILL.
    pub fn time_left(&self, term_timeout: Duration) -> Duration {
        term_timeout.saturating_sub(self.began.elapsed())
    }

    /// To be called once when the leader has ended: its children have a new parent now.
    pub fn leader_ended(&mut self) {
        self.descendants.terminate_new_now();
    }

    /// Whether a descendant of the program still runs. Descendants that are new get SIGTERM.
    pub fn is_going_on(&mut self) -> bool {
        self.descendants.terminate_new();
        self.descendants.is_running()
    }

    /// Kills the remaining descendants, in several rounds: a process may start another one before it is killed.
    pub fn end(mut self) {
        let deadline = Instant::now() + KILL_TIMEOUT;
        self.descendants.kill();
        while self.descendants.is_running() && Instant::now() < deadline {
            std::thread::sleep(KILL_INTERVAL);
            self.descendants.kill();
        }
    }
}
