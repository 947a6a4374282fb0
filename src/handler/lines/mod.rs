//! Handlers that run a program for many attempts, one after the other: `protocol = "lines"` beside `exec` in the configuration.
//!
//! The program gets each job as a line of JSON on stdin, and answers with a line of JSON on stdout. `reader` knows what the
//! lines of a program mean, `program` gives one program a job, `pool` has the programs of a job type, `ending` ends a
//! program. This file decides what the end of an attempt means for the job.

mod ending;
pub(crate) mod pool;
mod program;
mod reader;
mod settings;

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, id};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::pool::{Pool, Refusal, Taken};
use self::program::{End, Program};
pub use self::settings::Lines;
use super::exec::{ExecHandler, log_stderr};
use super::exit_status::{describe_end, is_permanent};
use super::limits::ResourceLimits;
use super::results::message_with_end;
use super::{Handler, JobContext, StopReason};
use crate::job::backoff::Backoff;
use crate::job::{Failure, Outcome};

/// The variable by which the descendants of a program are recognised whose parents have ended.
const MARK: &str = "THREADQ_PROCESS";

/// What a timeout adds if the program has written nothing at all: most often its output is still in its buffer.
const MUTE: &str =
    ": the program has not written a line yet; it must flush its standard output after each line";

/// Runs jobs of one type in programs that stay.
pub struct LinesHandler {
    program: PathBuf,
    limits: ResourceLimits,
    pool: Arc<Pool>,
}

impl LinesHandler {
    /// A handler whose programs are those of `exec`: at most `processes` at a time, unless `lines` says it. After programs
    /// that ended before they answered a job, the next start waits for the backoff.
    pub fn new(
        job_type: &str,
        exec: ExecHandler,
        lines: Lines,
        processes: usize,
        backoff: Backoff,
    ) -> LinesHandler {
        let processes = lines.processes.map_or(processes, |number| number as usize).max(1);
        let (program, limits) = (exec.program().to_owned(), exec.limits);
        let start = Box::new(move || start(&exec));
        LinesHandler {
            program,
            limits,
            pool: Arc::new(Pool::new(job_type, lines, processes, backoff, start)),
        }
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    fn cannot_run(&self, error: &io::Error) -> Failure {
        Failure::retryable(format!("cannot run {}: {error}", self.program.display()))
    }

    fn refused(&self, refusal: Refusal, job: &JobContext) -> Failure {
        match refusal {
            Refusal::Stopped(reason) => Failure::retryable(reason.to_string()),
            // With limits, a time to wait would close their rates, which other types may have too.
            Refusal::Failing(message, left) => {
                Failure::Retryable { message, retry_after: job.job().limits.is_empty().then_some(left) }
            }
            Refusal::System(error) => self.cannot_run(&error),
        }
    }

    /// The failure of an attempt whose program ended without an answer.
    fn exited(
        &self,
        taken: Taken,
        status: ExitStatus,
        has_read: bool,
        stderr: &[u8],
        answered: u32,
    ) -> Failure {
        let what = format!("ended before it answered: {}", describe_end(status, &self.limits));
        let message = message_with_end(&what, stderr);
        if has_read && is_permanent(status) {
            return Failure::permanent(message);
        }
        if answered == 0 {
            taken.has_failed(&message_with_end(&describe_end(status, &self.limits), stderr));
        }
        Failure::retryable(message)
    }
}

/// Starts a program.
fn start(exec: &ExecHandler) -> io::Result<Program> {
    static STARTED: AtomicU64 = AtomicU64::new(0);
    // Unique among all servers that may run here.
    let name = format!("{}-{}", id(), STARTED.fetch_add(1, Ordering::Relaxed));
    let mut command = exec.base_command();
    command.env(MARK, &name);
    Program::start(&mut command, format!("{MARK}={name}"), exec.stderr_is_log)
}

impl Handler for LinesHandler {
    /// Blocks until a program has answered, or the attempt was stopped: at most 5 s after the stop signal.
    fn handle(&self, job: &JobContext) -> Outcome {
        loop {
            let mut taken = self.pool.take(job).map_err(|refusal| self.refused(refusal, job))?;
            let Some(program) = &mut taken.program else { continue };
            let end = program.run(job).map_err(|error| self.cannot_run(&error))?;
            let stderr = program.take_stderr();
            let answered = program.answered;
            let is_mute = !program.has_spoken;
            match end {
                End::Answered(outcome) => {
                    log_stderr(job, &stderr);
                    taken.put_back();
                    return outcome;
                }
                End::SpokeTooSoon(what) => self.pool.warn(program, &what),
                // The program has not seen the job, so the job gets another one.
                End::Exited { status, has_read: false } if answered > 0 => {
                    if !status.success() {
                        let why = describe_end(status, &self.limits);
                        self.pool.warn(program, &message_with_end(&why, &stderr));
                    }
                }
                End::Exited { status, has_read } => {
                    return Err(self.exited(taken, status, has_read, &stderr, answered));
                }
                End::Killed(why) => {
                    log_stderr(job, &stderr);
                    return Err(Failure::retryable(why));
                }
                End::Stopped(reason) => {
                    let mut what = reason.to_string();
                    if is_mute && reason == StopReason::TimedOut && stderr.is_empty() {
                        what += MUTE;
                    }
                    return Err(Failure::retryable(message_with_end(&what, &stderr)));
                }
            }
        }
    }
}

/// Ends the programs, also those of a server that was dropped without a stop.
impl Drop for LinesHandler {
    fn drop(&mut self) {
        self.pool.close();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::atomic::AtomicUsize;
    use std::thread;
    use std::time::{Duration, Instant};

    use tempfile::{TempDir, tempdir};

    use super::*;
    use crate::handler::testing::{Recorded, assert_gone, context, job};
    use crate::handler::{Attempts, StopSignal};
    use crate::job::{AttemptId, Job, MAX_RESULT_BYTES, Report, ScheduleTick};
    use crate::wait::{LIMIT, eventually};

    /// A loop that runs `body` for each line, which is in `$job`.
    fn each(body: &str) -> String {
        format!("while IFS= read -r job; do {body}\ndone")
    }

    /// Answers with its process id.
    const PID: &str = "echo \"{\\\"result\\\": $$}\"";

    /// A handler that is as a rule in a folder of its own.
    struct Fixture {
        dir: TempDir,
        handler: LinesHandler,
    }

    impl std::ops::Deref for Fixture {
        type Target = LinesHandler;
        fn deref(&self) -> &LinesHandler {
            &self.handler
        }
    }

    fn handler_with_backoff(script: &str, lines: Lines, backoff: Backoff) -> Fixture {
        let dir = tempdir().unwrap();
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        let exec = ExecHandler::new(&words, dir.path()).unwrap();
        Fixture { handler: LinesHandler::new("t", exec, lines, 4, backoff), dir }
    }

    fn handler_with(script: &str, lines: Lines) -> Fixture {
        let hour = Duration::from_secs(3600);
        handler_with_backoff(script, lines, Backoff { base: hour, cap: hour })
    }

    fn handler(script: &str) -> Fixture {
        handler_with(script, Lines::default())
    }

    fn run(handler: &LinesHandler) -> String {
        handler.handle(&context("{}")).unwrap().get().to_owned()
    }

    fn error(handler: &LinesHandler) -> String {
        let failure = handler.handle(&context("{}")).unwrap_err();
        assert!(matches!(failure, Failure::Retryable { .. }), "{failure:?}");
        failure.message().to_owned()
    }

    #[test]
    fn one_program_gets_one_job_after_the_other() {
        let handler = handler(&each(PID));
        let first = run(&handler);
        assert_eq!([run(&handler), run(&handler)], [first.as_str(), first.as_str()]);
    }

    #[test]
    fn a_job_is_one_line_of_json_with_the_number_of_its_attempt() {
        let handler = handler(&each("printf '{\"result\": %s}\\n' \"$job\""));
        let schedule = Some(ScheduleTick { name: "daily".to_owned(), tick_ms: 1_764_000_001_007 });
        let sent = Job { attempts: 2, schedule, ..job("{\r\n \"a\": \"x\\n\u{2028}\"\n}") };
        let context = JobContext::new(sent.clone(), StopSignal::default());
        let got = handler.handle(&context).unwrap();
        let mut got: serde_json::Value = serde_json::from_str(got.get()).unwrap();
        assert_eq!(got.as_object_mut().unwrap().remove("attempt").unwrap(), 3);
        let tick = got.as_object_mut().unwrap().remove("tick").unwrap();
        assert_eq!((&tick, tick.as_str()), (&got["schedule"]["tick"], Some("2025-11-24T16:00:01.007Z")));
        assert_eq!(got, serde_json::to_value(&sent).unwrap());
        let large = format!("\"{}\"", "x".repeat(1 << 20));
        let handler = self::handler(&each("echo \"{\\\"result\\\": ${#job}}\""));
        let length: usize = handler.handle(&self::context(&large)).unwrap().get().parse().unwrap();
        assert!(length > 1 << 20, "{length}");
    }

    #[test]
    fn a_large_result_is_treated_as_that_of_a_program_for_one_attempt() {
        let handler =
            handler(&each("printf '{\"result\": \"'; head -c 100000 /dev/zero | tr '\\0' x; echo '\"}'"));
        for _ in 0..2 {
            let cut: String = serde_json::from_str(&run(&handler)).unwrap();
            assert_eq!(cut, "x".repeat(MAX_RESULT_BYTES));
        }
    }

    #[test]
    fn reports_come_before_the_answer() {
        let recorded = Arc::new(Recorded::default());
        let context = JobContext::on_server(Arc::new(job("{}")), StopSignal::default(), recorded.clone());
        let script = each(
            "echo '{\"progress\": 0.5, \"message\": \"half\"}'; echo '{\"log\": \"one\"}\n{\"checkpoint\": [7]}'; sleep 0.1
             echo '{\"log\": \"two\"}'; echo '{\"result\": 1}'",
        );
        assert_eq!(handler(&script).handle(&context).unwrap().get(), "1");
        let report = recorded.take();
        assert_eq!(report.progress, Some((0.5, "half".to_owned())));
        assert_eq!(
            (report.log, report.checkpoint.unwrap().get()),
            (vec!["one".to_owned(), "two".to_owned()], "[7]")
        );
    }

    #[test]
    fn lines_of_stderr_are_the_log_of_the_job_if_that_is_wanted() {
        for (stderr_is_log, wanted) in [(true, vec!["one", "two"]), (false, vec![])] {
            let script = each("echo one >&2; printf two >&2; echo '{\"result\": 1}'");
            let dir = tempdir().unwrap();
            let exec = ExecHandler::new(&["/bin/sh", "-c", &script].map(str::to_owned), dir.path()).unwrap();
            let exec = exec.logging_stderr(stderr_is_log);
            let handler = LinesHandler::new("t", exec, Lines::default(), 1, Backoff::default());
            for _ in 0..2 {
                let recorded = Arc::new(Recorded::default());
                let context =
                    JobContext::on_server(Arc::new(job("{}")), StopSignal::default(), recorded.clone());
                handler.handle(&context).unwrap();
                assert_eq!(recorded.take().log, wanted);
            }
        }
    }

    #[test]
    fn failures_leave_the_program_alive() {
        let script = each(
            "case $job in
             *retry*) echo '{\"error\": \"busy\", \"retry_after_ms\": 1500}';;
             *never*) echo '{\"error\": \"bad\", \"permanent\": true}';;
             *later*) echo '{\"snooze_ms\": 5000}';;
             *) echo \"{\\\"result\\\": $$}\";; esac",
        );
        let handler = handler(&script);
        let first = run(&handler);
        let failure = |word: &str| handler.handle(&context(word)).unwrap_err();
        let retry_after = Some(Duration::from_millis(1500));
        assert_eq!(failure("\"retry\""), Failure::Retryable { message: "busy".to_owned(), retry_after });
        assert_eq!(failure("\"never\""), Failure::permanent("bad"));
        assert_eq!(failure("\"later\""), Failure::Snooze(Duration::from_secs(5)));
        assert_eq!(run(&handler), first);
    }

    #[test]
    fn a_program_that_breaks_the_protocol_is_killed_and_replaced() {
        for (answer, wanted) in [
            (
                "echo hello",
                "the program wrote a line that is no answer (expected value at line 1 column 1): hello",
            ),
            (
                "head -c 3000000 /dev/zero | tr '\\0' x; sleep 1000",
                "the program wrote a line over 1 MiB: xxxxxx",
            ),
            ("exec >&-; sleep 1000", "the program closed its stdout without an answer"),
            (
                "echo '{\"result\": 1, \"log\": \"x\"}'; sleep 1000",
                "the program wrote a line that is no answer (an answer ",
            ),
        ] {
            let handler = handler(&each(&format!("echo $$ >> pids; {answer}")));
            for _ in 0..2 {
                let error = error(&handler);
                assert!(error.starts_with(wanted), "{error}");
            }
            let pids = fs::read_to_string(handler.dir.path().join("pids")).unwrap();
            let pids: Vec<&str> = pids.lines().collect();
            assert_eq!(pids.len(), 2);
            pids.into_iter().for_each(assert_gone);
        }
    }

    #[test]
    fn a_flood_on_stdout_or_stderr_neither_blocks_nor_is_kept() {
        let lines = each(
            "yes '{\"log\": \"x\"}' | head -n 200000; head -c 300000000 /dev/zero >&2; echo '{\"result\": 1}'",
        );
        assert_eq!(run(&handler(&lines)), "1");
        let garbage = handler("cat /dev/zero");
        assert!(error(&garbage).starts_with("the program wrote a line over 1 MiB"));
    }

    #[test]
    fn exit_codes_count_during_a_job() {
        for (script, failure) in [
            (
                "read job; echo why >&2; exit 64",
                Failure::permanent("ended before it answered: exit code 64: why"),
            ),
            ("read job; exit 65", Failure::permanent("ended before it answered: exit code 65")),
            ("read job; exit 1", Failure::retryable("ended before it answered: exit code 1")),
            ("read job; exit 0", Failure::retryable("ended before it answered: exit code 0")),
            (
                "read job; kill -9 $$",
                Failure::retryable("ended before it answered: killed by signal 9 (SIGKILL)"),
            ),
            // Before it has read anything.
            ("echo usage >&2; exit 64", Failure::retryable("ended before it answered: exit code 64: usage")),
        ] {
            assert_eq!(handler(script).handle(&context("{}")).unwrap_err(), failure, "{script}");
        }
    }

    #[test]
    fn a_program_that_ends_after_an_answer_harms_no_job() {
        for end in ["exit 0", "exit 1", "kill -9 $$", "sleep 0.01; exit 0", "exec 0<&-; exec sleep 1000"] {
            let handler = handler(&format!("read -r job; {PID}; {end}"));
            let pids: Vec<String> = (0..20).map(|_| run(&handler)).collect();
            let mut distinct = pids.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), pids.len(), "{end}: {pids:?}");
        }
    }

    #[test]
    fn an_answer_without_a_job_ends_the_program_and_harms_no_job() {
        let count = "n=$((n + 1)); echo \"{\\\"result\\\": $n}\"";
        // At once, and while no job runs.
        for second in [
            format!("{count}; echo x >> written"),
            format!("(sleep 0.05; {count}; echo x >> written) & wait"),
        ] {
            let handler = handler(&each(&format!("echo $$ > pid; {count}; {second}")));
            let read = |file: &str| fs::read_to_string(handler.dir.path().join(file)).unwrap_or_default();
            for round in 1..=3 {
                assert_eq!(run(&handler), "1", "{second}");
                let is_gone = || !Path::new("/proc").join(read("pid").trim()).exists();
                eventually(LIMIT, "the second answer is written, or the program is killed for it", || {
                    read("written").lines().count() == round || is_gone()
                });
            }
        }
    }

    #[test]
    fn after_two_programs_that_ended_at_once_one_job_waits_for_the_next_start_and_others_fail() {
        let handler = handler("echo x >> starts; echo broken >&2; exit 3");
        for _ in 0..2 {
            assert_eq!(error(&handler), "ended before it answered: exit code 3: broken");
        }
        let stop = StopSignal::default();
        let (failures, failed) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..3 {
                let (failures, job) = (failures.clone(), JobContext::new(job("{}"), stop.clone()));
                let handler = &handler;
                scope.spawn(move || failures.send(handler.handle(&job).unwrap_err()).unwrap());
            }
            for _ in 0..2 {
                let Failure::Retryable { message, retry_after } = failed.recv().unwrap() else { panic!() };
                let start = "not started: the last program ended before it answered; the next one starts in ";
                assert!(message.starts_with(start), "{message}");
                assert!(message.ends_with(" s: exit code 3: broken"), "{message}");
                assert!(retry_after.is_some_and(|left| left <= Duration::from_secs(60)), "{retry_after:?}");
            }
            stop.stop(StopReason::Shutdown);
            assert_eq!(failed.recv().unwrap(), Failure::retryable("the server is stopping"));
        });
        assert_eq!(fs::read_to_string(handler.dir.path().join("starts")).unwrap(), "x\nx\n");
    }

    #[test]
    fn a_job_waits_out_the_backoff_of_its_program() {
        let script = format!("echo x >> starts; [ $(wc -l < starts) -gt 4 ] || exit 3; {}", each(PID));
        let backoff = Duration::from_millis(100);
        let handler =
            handler_with_backoff(&script, Lines::default(), Backoff { base: backoff, cap: backoff });
        for _ in 0..4 {
            assert_eq!(error(&handler), "ended before it answered: exit code 3");
        }
        run(&handler);
    }

    #[test]
    fn programs_that_fail_side_by_side_count_once() {
        let handler = handler("echo x >> starts; until [ -e go ]; do sleep 0.05; done; exit 3");
        let starts = || fs::read_to_string(handler.dir.path().join("starts")).unwrap_or_default().len() / 2;
        thread::scope(|scope| {
            let jobs: Vec<_> = (0..4).map(|_| scope.spawn(|| error(&handler))).collect();
            eventually(LIMIT, "all programs run", || starts() == 4);
            fs::write(handler.dir.path().join("go"), "").unwrap();
            for job in jobs {
                assert_eq!(job.join().unwrap(), "ended before it answered: exit code 3");
            }
        });
        assert_eq!(error(&handler), "ended before it answered: exit code 3");
        assert_eq!(starts(), 5);
    }

    #[test]
    fn the_clocks_of_a_job_stand_still_while_it_waits_for_a_program() {
        #[derive(Default)]
        struct Clocks(std::sync::Mutex<Vec<bool>>);
        impl Attempts for Clocks {
            fn report(&self, _: AttemptId, _: Report) {}
            fn token(&self, _: AttemptId) -> Option<String> {
                None
            }
            fn set_waiting(&self, _: AttemptId, waits: bool) {
                self.0.lock().unwrap().push(waits);
            }
        }
        let lines = Lines { processes: Some(1), ..Lines::default() };
        let script = "echo $$ > pid; until [ -e go ]; do sleep 0.05; done; echo '{\"result\": 1}'";
        let handler = handler_with(&each(script), lines);
        let clocks = Arc::new(Clocks::default());
        let waits = JobContext::on_server(Arc::new(job("{}")), StopSignal::default(), clocks.clone());
        thread::scope(|scope| {
            scope.spawn(|| run(&handler));
            eventually(LIMIT, "the program has a job", || handler.dir.path().join("pid").exists());
            scope.spawn(|| handler.handle(&waits).unwrap());
            eventually(LIMIT, "the job waits", || *clocks.0.lock().unwrap() == [true]);
            fs::write(handler.dir.path().join("go"), "").unwrap();
        });
        assert_eq!(*clocks.0.lock().unwrap(), [true, false]);
        handler.handle(&waits).unwrap();
        assert_eq!(clocks.0.lock().unwrap().len(), 2, "a job that need not wait");
    }

    #[test]
    fn an_answer_ends_the_count_of_failed_programs() {
        // Every other program is broken.
        let script =
            format!("echo x >> starts; [ $(($(wc -l < starts) % 2)) = 0 ] || exit 3; read job; {PID}");
        let handler = handler(&script);
        for _ in 0..5 {
            assert_eq!(error(&handler), "ended before it answered: exit code 3");
            run(&handler);
        }
    }

    #[test]
    fn a_program_is_replaced_after_its_number_of_jobs() {
        let handler = handler_with(&each(PID), Lines { max_jobs: 3, processes: Some(1), ..Lines::default() });
        let pids: Vec<String> = (0..9).map(|_| run(&handler)).collect();
        for (index, pid) in pids.iter().enumerate() {
            assert_eq!(pid, &pids[index / 3 * 3], "{pids:?}");
        }
        assert!(pids[0] != pids[3] && pids[3] != pids[6]);
        assert_gone(&pids[0]);
        assert_gone(&pids[3]);
    }

    #[test]
    fn a_program_without_a_job_ends_after_its_time() {
        let lines = Lines { idle: Duration::from_millis(300), ..Lines::default() };
        let handler = handler_with(&format!("{}\necho end >> end", each(PID)), lines);
        let pid = run(&handler);
        assert_gone(&pid);
        eventually(LIMIT, "the program is counted as gone", || handler.pool.is_empty());
        assert_eq!(fs::read_to_string(handler.dir.path().join("end")).unwrap(), "end\n");
        assert_ne!(run(&handler), pid);
    }

    #[test]
    fn what_a_program_does_without_a_job_does_not_block_it() {
        let flood = "(sleep 1.2; head -c 1000000 /dev/zero >&2; echo done > flooded) &";
        let handler = handler(&each(&format!("{PID}; {flood}")));
        let pid = run(&handler);
        eventually(LIMIT, "stderr was read", || handler.dir.path().join("flooded").exists());
        assert_eq!(run(&handler), pid);
    }

    #[test]
    fn a_program_that_dies_without_a_job_is_reaped() {
        let handler = handler(&each(PID));
        let pid = run(&handler);
        let id = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
        eventually(LIMIT, "it is reaped", || !Path::new(&format!("/proc/{pid}")).exists());
        eventually(LIMIT, "the program is counted as gone", || handler.pool.is_empty());
    }

    /// Stops an attempt once the script has written a process id into the file `pid`. Returns its error and the id.
    fn stop(handler: &Fixture, reason: StopReason, is_hurried: bool) -> (String, String) {
        let stop = StopSignal::default();
        let context = JobContext::new(job("{}"), stop.clone());
        let file = handler.dir.path().join("pid");
        let pid = || fs::read_to_string(&file).unwrap_or_default();
        thread::scope(|scope| {
            let run = scope.spawn(|| handler.handle(&context));
            eventually(LIMIT, "the script has started", || pid().ends_with('\n'));
            stop.stop(reason);
            if is_hurried {
                stop.hurry();
            }
            let failure = run.join().unwrap().unwrap_err();
            (failure.message().to_owned(), pid().trim().to_owned())
        })
    }

    #[test]
    fn a_stopped_program_gets_sigterm_and_the_next_job_a_new_one() {
        let script = "trap 'sleep 0.2; echo tidied >&2; exit' TERM; while read -r job; do
            case $job in *hang*) ;; *) [ -e pid ] && { echo '{\"result\": 1}'; continue; } ;; esac
            echo so far >&2; echo $$ > pid; sleep 1000 & wait; done";
        for reason in
            [StopReason::TimedOut, StopReason::Cancelled, StopReason::Shutdown, StopReason::Reclaimed]
        {
            let handler = handler(script);
            let (error, pid) = stop(&handler, reason, false);
            assert_eq!(error, format!("{reason}: so far\ntidied"));
            assert_gone(&pid);
            assert_eq!(run(&handler), "1");
        }
    }

    #[test]
    fn a_timeout_of_a_program_that_has_written_nothing_says_so() {
        let handler = handler("read job; echo $$ > pid; sleep 1000");
        let (error, _) = stop(&handler, StopReason::TimedOut, false);
        assert_eq!(error, format!("timed out{MUTE}"));
    }

    #[test]
    fn a_program_that_ignores_sigterm_is_killed_with_all_that_it_started() {
        let child = "trap \"\" TERM; echo $$ > pid; while :; do sleep 1; done";
        let handler = handler(&format!("trap '' TERM; read job; setsid sh -c '{child}' & wait"));
        let start = Instant::now();
        let (error, pid) = stop(&handler, StopReason::Cancelled, true);
        assert_eq!(error, "cancelled");
        assert!(start.elapsed() < Duration::from_secs(60));
        assert_gone(&pid);
    }

    #[test]
    fn reports_during_a_stop_count() {
        let script =
            "trap 'echo \"{\\\"checkpoint\\\": 7}\"; exit' TERM; read job; echo $$ > pid; sleep 1000 & wait";
        let handler = handler(script);
        let recorded = Arc::new(Recorded::default());
        let stop = StopSignal::default();
        let context = JobContext::on_server(Arc::new(job("{}")), stop.clone(), recorded.clone());
        thread::scope(|scope| {
            let run = scope.spawn(|| handler.handle(&context));
            eventually(LIMIT, "the script has started", || handler.dir.path().join("pid").exists());
            stop.stop(StopReason::Shutdown);
            assert_eq!(run.join().unwrap().unwrap_err(), Failure::retryable("the server is stopping"));
        });
        assert_eq!(recorded.take().checkpoint.unwrap().get(), "7");
    }

    #[test]
    fn more_jobs_than_programs_wait_for_a_program() {
        let lines = Lines { processes: Some(2), ..Lines::default() };
        let handler = handler_with(&each(&format!("sleep 0.02; {PID}")), lines);
        let pids = std::sync::Mutex::new(std::collections::BTreeSet::new());
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    let pid = run(&handler);
                    pids.lock().unwrap().insert(pid)
                });
            }
        });
        assert_eq!(pids.into_inner().unwrap().len(), 2);
    }

    #[test]
    fn waiting_for_a_program_ends_with_the_stop_signal() {
        let lines = Lines { processes: Some(1), ..Lines::default() };
        let handler = handler_with(
            &each("echo $$ > pid; until [ -e go ]; do sleep 0.05; done; echo '{\"result\": 1}'"),
            lines,
        );
        let stop = StopSignal::default();
        let waits = JobContext::new(job("{}"), stop.clone());
        thread::scope(|scope| {
            let runs = scope.spawn(|| run(&handler));
            eventually(LIMIT, "the program has a job", || handler.dir.path().join("pid").exists());
            let waiting = scope.spawn(|| handler.handle(&waits));
            stop.stop(StopReason::TimedOut);
            assert_eq!(waiting.join().unwrap().unwrap_err(), Failure::retryable("timed out"));
            fs::write(handler.dir.path().join("go"), "").unwrap();
            assert_eq!(runs.join().unwrap(), "1");
        });
    }

    #[test]
    fn many_programs_work_at_a_time() {
        let handler = handler(&each(
            "printf '{\"result\": %s}\\n' \"${job#*\\\"payload\\\":}\" | sed 's/,\"attempts.*/}/'",
        ));
        let wrong = AtomicUsize::new(0);
        thread::scope(|scope| {
            for thread in 0..8 {
                let (handler, wrong) = (&handler, &wrong);
                scope.spawn(move || {
                    for number in 0..25 {
                        let payload = (thread * 1000 + number).to_string();
                        if handler.handle(&context(&payload)).unwrap().get() != payload {
                            wrong.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(wrong.into_inner(), 0);
    }

    #[test]
    fn a_panic_on_the_way_leaves_no_program() {
        let handler = handler(&each(PID));
        let pid = run(&handler);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _taken = handler.pool.take(&context("{}")).ok().unwrap();
            panic!("on the way");
        }));
        assert!(panicked.is_err());
        assert_gone(&pid);
        assert!(handler.pool.is_empty());
        assert_ne!(run(&handler), pid);
    }

    #[test]
    fn a_closed_pool_lets_its_programs_end_and_kills_the_others() {
        let fine = handler(&format!("{}\necho end >> end", each(PID)));
        let stubborn = handler(&format!("trap '' TERM; {}\nwhile :; do sleep 1; done", each(PID)));
        let pids = [run(&fine), run(&stubborn)];
        fine.pool.close();
        stubborn.pool.close();
        eventually(LIMIT, "the program has ended", || fine.pool.is_empty());
        assert_eq!(fs::read_to_string(fine.dir.path().join("end")).unwrap(), "end\n");
        stubborn.pool.hurry();
        eventually(LIMIT, "the program was killed", || stubborn.pool.is_empty());
        for pid in pids {
            assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} is a zombie");
        }
        // A job that comes later runs, and its program ends after it.
        let pid = run(&fine);
        assert_gone(&pid);
    }

    #[test]
    fn a_dropped_handler_ends_its_programs() {
        let Fixture { handler, dir: _dir } = handler(&each(PID));
        let pid = run(&handler);
        drop(handler);
        assert_gone(&pid);
    }

    #[test]
    fn the_environment_has_no_job() {
        let handler =
            handler(&each("printf '{\"result\": \"%s\"}\\n' \"$(env | cut -d= -f1 | sort | tr '\\n' ' ')\""));
        let names: String = serde_json::from_str(&run(&handler)).unwrap();
        assert!(names.contains("PATH") && names.contains(MARK), "{names}");
        assert!(!names.contains("THREADQ_JOB") && !names.contains("CARGO"), "{names}");
    }

    #[test]
    fn a_check_wants_a_program_that_ends_with_its_input() {
        assert_eq!(handler(&each(PID)).pool.check(), Ok(()));
        for (script, wanted) in [
            (
                "cat; echo no >&2; exit 3",
                "exit code 3 at the end of its standard input; wanted: exit code 0: no",
            ),
            ("echo ready; cat", "the program writes to standard output before it gets a job"),
            ("sleep 1000", "the program does not end within 5 s after the end of its standard input"),
        ] {
            assert_eq!(handler(script).pool.check(), Err(format!("handlers.\"t\": {wanted}")), "{script}");
        }
    }
}
