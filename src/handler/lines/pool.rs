//! The programs of one job type, and the thread that looks after those without a job.
//!
//! A worker takes a program that waits, or starts one, or waits for one. The program that waited last is taken first: so
//! programs that are not needed wait long enough to be ended.
//!
//! The thread `idle-TYPE` lives as long as there is a program. It ends programs that have waited too long, or that a worker
//! has handed over for that; it reads the stderr of programs that wait, so that they never block on a full pipe; and it
//! notices programs that end or write while they wait. A program is watched only when it has waited for [`SETTLE`]: so the
//! thread sleeps while jobs follow each other, and a program that waits costs nothing.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::Builder;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use super::ending::{EOF_TIMEOUT, Ending};
use super::program::{MAX_READS, Outputs, Program, TICK};
use super::settings::Lines;
use crate::handler::context::JobContext;
use crate::handler::exit_status::describe_end;
use crate::handler::limits::ResourceLimits;
use crate::handler::pipes::{is_ready, wait_for};
use crate::handler::results::message_with_end;
use crate::handler::stop::StopReason;
use crate::job::backoff::Backoff;
use crate::sync;

/// How long a program waits for a job before it is watched.
const SETTLE: Duration = Duration::from_secs(1);
/// The longest time in which no program is started because the last ones ended before they answered.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Starts a program.
pub(super) type Start = Box<dyn Fn() -> io::Result<Program> + Send + Sync>;

/// Why a worker gets no program.
pub(super) enum Refusal {
    /// The attempt was stopped.
    Stopped(StopReason),
    /// The last programs ended before they answered a job. The next one may start after this time.
    Failing(String, Duration),
    /// The system starts no program, or no thread.
    System(io::Error),
}

/// The programs of one job type.
pub(crate) struct Pool {
    job_type: String,
    lines: Lines,
    processes: usize,
    /// How long no program is started after several have ended before they answered.
    backoff: Backoff,
    start: Start,
    state: Mutex<State>,
    /// Notified when a program waits for a job, or has ended.
    freed: Condvar,
}

#[derive(Default)]
struct State {
    /// The programs that wait for a job; the one that waited last is at the end.
    idle: VecDeque<Program>,
    /// All programs that are started and not gone.
    alive: usize,
    /// The number of workers that wait for a program.
    waiting: usize,
    /// Programs that the thread has to end.
    to_end: Vec<Program>,
    /// Wakes the thread by a byte; `None` while there is no thread.
    waker: Option<OwnedFd>,
    /// No program waits for jobs any more.
    is_closed: bool,
    /// Programs get less time to end.
    is_hurried: bool,
    failures: Failures,
    /// Whether a worker waits until it may start the next program after failures.
    start_is_awaited: bool,
}

/// The programs in a row that ended before they answered a job.
#[derive(Default)]
struct Failures {
    number: u32,
    last: String,
    /// When the last one had ended.
    ended: Option<Instant>,
    /// From when on the next program may start.
    next_start: Option<Instant>,
}

impl Failures {
    /// The time until the next program may start. `None`: it may start now.
    fn pause(&self) -> Option<Duration> {
        let left = self.next_start?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    fn refusal(&self, left: Duration) -> Refusal {
        let what = format!(
            "not started: the last program ended before it answered; the next one starts in {} s",
            left.as_secs() + 1
        );
        Refusal::Failing(message_with_end(&what, self.last.as_bytes()), left)
    }
}

/// A program that a worker has. Dropping it kills the program: a worker that panics must not leave it behind.
pub(super) struct Taken<'a> {
    pool: &'a Pool,
    pub program: Option<Program>,
    /// Whether the program is gone when this is dropped.
    is_last_owner: bool,
}

impl Taken<'_> {
    /// Gives back a program that has answered its job.
    pub fn put_back(mut self) {
        let Some(mut program) = self.program.take() else { return };
        if let Some(fault) = program.fault() {
            return self.pool.warn(&program, &fault);
        }
        let pool = self.pool;
        let mut state = pool.state();
        self.is_last_owner = false;
        if program.answered == 1 {
            state.failures = Failures::default();
        }
        if state.is_closed || program.answered == pool.lines.max_jobs || !program.can_get_more() {
            state.to_end.push(program);
            state.wake();
        } else {
            state.idle.push_back(program);
            if state.waiting > 0 {
                pool.freed.notify_one();
            }
        }
    }

    /// Drops a program that ended before it answered a job, and records its error.
    pub fn has_failed(self, error: &str) {
        let started = self.program.as_ref().map(|program| program.idle_since);
        let now = Instant::now();
        let mut state = self.pool.state();
        // Programs that failed side by side count once: for a moment, as a rule, something else was broken.
        if started < state.failures.ended {
            return;
        }
        let number = state.failures.number.saturating_add(1);
        let next_start = (number > 1).then(|| now + self.pool.pause(number));
        state.failures = Failures { number, last: error.to_owned(), ended: Some(now), next_start };
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.is_last_owner {
            self.program = None;
            self.pool.count_gone(1);
        }
    }
}

impl State {
    /// Wakes the thread.
    fn wake(&self) {
        if let Some(waker) = &self.waker {
            // A full pipe wakes too.
            let _ = rustix::io::write(waker, &[0]);
        }
    }
}

impl Pool {
    pub(super) fn new(
        job_type: &str,
        lines: Lines,
        processes: usize,
        backoff: Backoff,
        start: Start,
    ) -> Pool {
        let (state, freed) = Default::default();
        Pool { job_type: job_type.to_owned(), lines, processes, backoff, start, state, freed }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    /// Takes a program that waits, or starts one, or waits for one until the attempt is stopped. While it waits, its clocks
    /// stand still.
    ///
    /// # Errors
    /// The attempt was stopped, or no program can be started.
    pub(super) fn take(self: &Arc<Pool>, job: &JobContext) -> Result<Taken<'_>, Refusal> {
        let mut clocks = None;
        let mut state = self.state();
        loop {
            if let Some(reason) = job.stop_reason() {
                return Err(Refusal::Stopped(reason));
            }
            if let Some(program) = state.idle.pop_back() {
                return Ok(Taken { pool: self, program: Some(program), is_last_owner: true });
            }
            let has_room = state.alive < self.processes;
            match state.failures.pause() {
                None if has_room => break,
                Some(left) if has_room && state.start_is_awaited => return Err(state.failures.refusal(left)),
                _ => {}
            }
            clocks.get_or_insert_with(|| job.stop_clocks());
            state = match has_room {
                true => self.wait_for_start(state, job),
                false => self.wait(state),
            };
        }
        if state.failures.number > 1 {
            // Other programs start after a further pause, unless this program answers before.
            state.failures.next_start = Some(Instant::now() + self.pause(state.failures.number));
        }
        self.ensure_thread(&mut state).map_err(Refusal::System)?;
        state.alive += 1;
        drop(state);
        // If the program does not start, the drop counts it as gone.
        let mut taken = Taken { pool: self, program: None, is_last_owner: true };
        taken.program = Some((self.start)().map_err(Refusal::System)?);
        Ok(taken)
    }

    /// Waits until a program is free, for a moment at most.
    fn wait<'s>(&self, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        state.waiting += 1;
        state = sync::wait_timeout(&self.freed, state, TICK);
        state.waiting -= 1;
        state
    }

    /// Waits until a program may start after failures. One worker does so; the jobs of the others fail at once, so that a
    /// broken program does not hold all workers.
    fn wait_for_start<'s>(
        &self,
        mut state: MutexGuard<'s, State>,
        job: &JobContext,
    ) -> MutexGuard<'s, State> {
        state.start_is_awaited = true;
        while state.failures.pause().is_some() && state.idle.is_empty() && job.stop_reason().is_none() {
            state = self.wait(state);
        }
        state.start_is_awaited = false;
        state
    }

    /// Starts one program, closes its stdin, and waits for its end.
    ///
    /// # Errors
    /// The program does not end with exit code 0 within 5 s, or it writes to stdout. The error names the handler.
    pub(crate) fn check(&self) -> Result<(), String> {
        let wrong = |why: &str, stderr: &[u8]| {
            Err(message_with_end(&format!("handlers.{:?}: {why}", self.job_type), stderr))
        };
        let program = match (self.start)() {
            Ok(program) => program,
            Err(error) => return wrong(&format!("the program cannot be run: {error}"), b""),
        };
        let began = Instant::now();
        let mut ending = Ending::begin(program);
        let status = loop {
            if let Some(status) = ending.step(began.elapsed() >= EOF_TIMEOUT) {
                break status;
            }
            ending.wait(TICK);
        };
        let stderr = ending.program.take_stderr();
        if began.elapsed() >= EOF_TIMEOUT {
            return wrong("the program does not end within 5 s after the end of its standard input", &stderr);
        }
        if !status.success() {
            let end = describe_end(status, &ResourceLimits::default());
            return wrong(&format!("{end} at the end of its standard input; wanted: exit code 0"), &stderr);
        }
        if ending.has_written {
            return wrong("the program writes to standard output before it gets a job", &stderr);
        }
        Ok(())
    }

    fn pause(&self, failures: u32) -> Duration {
        self.backoff.delay(failures - 1, fastrand::f64()).min(MAX_PAUSE)
    }

    fn ensure_thread(self: &Arc<Pool>, state: &mut State) -> io::Result<()> {
        if state.waker.is_none() {
            let (wakes, waker) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            let pool = self.clone();
            Builder::new().name(format!("idle-{}", self.job_type)).spawn(move || pool.look_after(&wakes))?;
            state.waker = Some(waker);
        }
        Ok(())
    }

    /// Ends all programs, once they have answered their jobs.
    pub fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        state.wake();
    }

    /// Shortens the time that programs have to end.
    pub fn hurry(&self) {
        let mut state = self.state();
        state.is_hurried = true;
        state.wake();
    }

    /// Whether no program is left.
    pub fn is_empty(&self) -> bool {
        self.state().alive == 0
    }

    /// The thread.
    fn look_after(&self, wakes: &OwnedFd) {
        let mut ending: Vec<Ending> = Vec::new();
        loop {
            let mut state = self.state();
            ending.extend(state.to_end.drain(..).map(Ending::begin));
            let is_over = |program: &Program| program.idle_since.elapsed() >= self.lines.idle;
            while state.is_closed && !state.idle.is_empty() || state.idle.front().is_some_and(is_over) {
                ending.extend(state.idle.pop_front().map(Ending::begin));
            }
            if state.alive == 0 {
                state.waker = None;
                return;
            }
            let settled = |program: &&Program| program.idle_since.elapsed() >= SETTLE;
            let watched: Vec<Arc<Outputs>> =
                state.idle.iter().filter(settled).map(|program| program.outputs.clone()).collect();
            let until_over = state
                .idle
                .front()
                .map(|program| self.lines.idle.saturating_sub(program.idle_since.elapsed()));
            let time = if !ending.is_empty() {
                Some(TICK)
            } else if watched.len() < state.alive {
                Some(until_over.map_or(SETTLE, |time| time.min(SETTLE)))
            } else {
                until_over
            };
            let is_hurried = state.is_hurried;
            drop(state);

            let ready = wait(wakes, &watched, &ending, time);
            if !ready.is_empty() {
                self.look_at(&ready, &mut ending);
                // The programs that write while they wait must not keep this thread busy.
                std::thread::sleep(TICK);
            }
            self.step(&mut ending, is_hurried);
        }
    }

    /// Looks why the outputs of programs that wait are ready: their stderr is read, and those that ended are removed.
    fn look_at(&self, ready: &[&Arc<Outputs>], ending: &mut Vec<Ending>) {
        let mut state = self.state();
        let mut chatty = Vec::new();
        for outputs in ready {
            let is_it = |program: &Program| Arc::ptr_eq(&program.outputs, outputs);
            // A worker may have taken the program meanwhile.
            let Some(at) = state.idle.iter().position(is_it) else { continue };
            let program = &mut state.idle[at];
            (0..MAX_READS).take_while(|_| program.read_stderr(None)).for_each(drop);
            match program.is_waiting() {
                true => chatty.push((program.pid(), program.take_stderr())),
                false => ending.extend(state.idle.remove(at).map(Ending::begin)),
            }
        }
        drop(state);
        for (pid, stderr) in chatty.into_iter().filter(|(_, stderr)| !stderr.is_empty()) {
            let what = format!("handler {:?}: program {pid} wrote to stderr without a job", self.job_type);
            log::info!("{}", message_with_end(&what, &stderr));
        }
    }

    /// Does what is due for the programs that end.
    fn step(&self, ending: &mut Vec<Ending>, is_hurried: bool) {
        let before = ending.len();
        ending.retain_mut(|ending| {
            let Some(status) = ending.step(is_hurried) else { return true };
            if !status.success() {
                self.warn(&ending.program, &describe_end(status, &ResourceLimits::default()));
            }
            false
        });
        self.count_gone(before - ending.len());
    }

    /// Warns that a program without a job ended, or had to be killed.
    pub(super) fn warn(&self, program: &Program, why: &str) {
        log::warn!("handler {:?}: program {} ended between two jobs: {why}", self.job_type, program.pid());
    }

    fn count_gone(&self, number: usize) {
        if number > 0 {
            let mut state = self.state();
            state.alive -= number;
            if state.alive == 0 {
                // The thread ends.
                state.wake();
            }
            drop(state);
            self.freed.notify_all();
        }
    }
}

/// Waits until a program goes on, or there is a wake-up, at most for `time`. Returns those of the watched that are ready.
fn wait<'a>(
    wakes: &OwnedFd,
    watched: &'a [Arc<Outputs>],
    ending: &[Ending],
    time: Option<Duration>,
) -> Vec<&'a Arc<Outputs>> {
    let mut fds = vec![PollFd::new(wakes, PollFlags::IN)];
    let mut owners = Vec::new();
    for outputs in watched {
        for fd in outputs.descriptors() {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            owners.push(outputs);
        }
    }
    ending.iter().for_each(|ending| ending.program.add_descriptors(&mut fds));
    if wait_for(&mut fds, time).is_err() {
        // Out of memory, in practice.
        std::thread::sleep(TICK);
        return Vec::new();
    }
    let mut ready: Vec<&Arc<Outputs>> = owners
        .into_iter()
        .zip(&fds[1..])
        .filter(|(_, fd)| is_ready(fd))
        .map(|(outputs, _)| outputs)
        .collect();
    ready.dedup_by(|one, other| Arc::ptr_eq(one, other));
    let _ = rustix::io::read(wakes, &mut [0_u8; 64]);
    ready
}
