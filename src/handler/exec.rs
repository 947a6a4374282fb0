//! Handlers that run a program for each attempt: `exec = ["./encode.sh", "--fast"]` in the configuration.
//!
//! The program reads the payload from stdin and writes the result to stdout; its exit code decides the outcome. `process`
//! starts and stops the process. This file decides what the program receives and what its end means for the job.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf, absolute};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::error::HandlerError;
use super::executable::{Place, check_format};
use super::exit_status::{describe_end, is_permanent};
use super::limits::ResourceLimits;
use super::pipes::{OutputLimits, Source, Streams};
use super::process::{self, Ended};
use super::report_lines::ReportLines;
use super::report_pipe::{ReportFolder, ReportPipe};
use super::results::{READ_LIMIT, message_with_end, result_from_output};
use super::stopping::{TERM_TIMEOUT, term_timeout};
use super::{Handler, JobContext, StopReason};
use crate::children::program::{check_file, find_on_path};
use crate::job::{Failure, Outcome, rfc3339};
use crate::logging::job_fields::{JobFields, log_job};

/// The exit code of a program that has reported a `snooze`: EX_TEMPFAIL of sysexits.h.
const SNOOZE_CODE: i32 = 75;
/// The only variables of the server's environment that a program receives. Secrets stay with the server.
const INHERITED_VARIABLES: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];
const OUTPUT_LIMITS: OutputLimits = OutputLimits { stdout: READ_LIMIT, stderr: 2 * 1024 };

/// Runs a program for each attempt, without a shell.
///
/// The program's environment is `PATH`, `HOME`, `LANG` and `TZ` of the server, `THREADQ_JOB_ID`, `THREADQ_JOB_TYPE`,
/// `THREADQ_ATTEMPT` and `THREADQ_REPORT`, the path of a pipe for its reports. Exit code 0 completes the job with stdout as its result; 64 and 65 are permanent failures; any other
/// code or a signal is a retryable failure.
#[derive(Clone, Debug)]
pub struct ExecHandler {
    program: PathBuf,
    args: Vec<String>,
    dir: PathBuf,
    pub(super) limits: ResourceLimits,
    /// The command that sets the limits and then becomes the program; empty without limits.
    prefix: Vec<OsString>,
    term_timeout: Duration,
    pub(super) stderr_is_log: bool,
    reports: Arc<ReportFolder>,
}

impl ExecHandler {
    /// A handler that runs `command`, a program and its arguments, with `config_dir` as its working directory.
    ///
    /// A program whose name contains a `/` is a path that starts at `config_dir`. Any other program is searched on PATH, here
    /// and not again for each attempt.
    ///
    /// # Errors
    /// The command is empty, an argument has a NUL character, or the system cannot execute the program: it does not exist, is
    /// not executable, or its interpreter is missing.
    pub fn new(command: &[String], config_dir: &Path) -> Result<ExecHandler, HandlerError> {
        let [name, args @ ..] = command else { return Err(HandlerError::NoProgram) };
        // The folder of a file that was given by its bare name is "".
        let dir = if config_dir.as_os_str().is_empty() { Path::new(".") } else { config_dir };
        let dir = absolute(dir).map_err(HandlerError::Folder)?;
        let program = match name.contains('/') {
            true => dir.join(name),
            false => find_on_path(name).ok_or_else(|| HandlerError::NotOnPath { program: name.clone() })?,
        };
        let place = Place { dir: &dir, find: &find_on_path };
        let checked = check_file(&program).map_err(|problem| problem.to_string());
        checked
            .and_then(|()| check_format(&program, &place))
            .map_err(|problem| HandlerError::NotExecutable { program: program.clone(), problem })?;
        if args.iter().any(|arg| arg.contains('\0')) {
            return Err(HandlerError::NulInArgument { program: name.clone() });
        }
        Ok(ExecHandler {
            program,
            args: args.to_vec(),
            dir,
            limits: ResourceLimits::default(),
            prefix: Vec::new(),
            term_timeout: TERM_TIMEOUT,
            stderr_is_log: false,
            reports: Arc::default(),
        })
    }

    /// Whether the lines of stderr become log lines of the job.
    pub fn logging_stderr(self, stderr_is_log: bool) -> ExecHandler {
        ExecHandler { stderr_is_log, ..self }
    }

    /// Makes the pipes for reports in this folder.
    pub(crate) fn reporting_in(self, reports: Arc<ReportFolder>) -> ExecHandler {
        ExecHandler { reports, ..self }
    }

    /// Runs the program under these limits. A small program is run once, to find out whether the limits can be set.
    ///
    /// # Errors
    /// `nice` or `prlimit` is not installed, or no program can run under these limits.
    pub fn limited(self, limits: ResourceLimits) -> Result<ExecHandler, HandlerError> {
        let prefix = limits.prefix(find_on_path).map_err(HandlerError::Limits)?;
        Ok(ExecHandler { prefix, limits, ..self })
    }

    /// The program's name, for errors.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// The program with its limits, its working directory, and the variables that do not depend on a job.
    pub(super) fn base_command(&self) -> Command {
        let program = self.program.as_os_str();
        let mut words = self.prefix.iter().map(OsString::as_os_str).chain([program]);
        let mut command = Command::new(words.next().unwrap_or(program));
        command.args(words).args(&self.args).current_dir(&self.dir).env_clear();
        command.envs(INHERITED_VARIABLES.iter().filter_map(|name| Some((name, env::var_os(name)?))));
        command
    }

    fn command(&self, job: &JobContext, reports: Option<&ReportPipe>) -> Command {
        let mut command = self.base_command();
        command
            .env("THREADQ_JOB_ID", job.job().id.to_string())
            .env("THREADQ_JOB_TYPE", &job.job().job_type)
            .env("THREADQ_ATTEMPT", job.attempt().to_string());
        if let Some(schedule) = &job.job().schedule {
            command.env("THREADQ_TICK", rfc3339(schedule.tick_ms));
        }
        if let Some(reports) = reports {
            command.env("THREADQ_REPORT", reports.path());
        }
        if let Some(checkpoint) = &job.job().checkpoint {
            command.env("THREADQ_CHECKPOINT", checkpoint.get());
        }
        command
    }
}

impl Handler for ExecHandler {
    /// Blocks until the program and its whole process group have ended: at most 5 s after the stop signal.
    fn handle(&self, job: &JobContext) -> Outcome {
        let reports = self.reports.make_pipe();
        let mut command = self.command(job, reports.as_ref());
        let mut lines = ReportLines::new();
        let mut stderr_lines = ReportLines::of_log();
        let streams = Streams {
            input: job.job().payload.get().as_bytes(),
            limits: OUTPUT_LIMITS,
            reports: reports.as_ref(),
            take: &mut |source, bytes| match source {
                Source::Reports => job.report(lines.push(bytes)),
                Source::Stderr if self.stderr_is_log => job.report(stderr_lines.push(bytes)),
                Source::Stderr => {}
            },
        };
        let mark = format!("THREADQ_JOB_ID={}", job.job().id);
        let timeout = || self.term_timeout.min(term_timeout(job.stop.is_hurried()));
        let ended = process::run(&mut command, &mark, streams, || job.stop_reason(), timeout)
            .map_err(|error| Failure::retryable(format!("cannot run {}: {error}", self.program.display())))?;
        job.report(lines.end());
        job.report(stderr_lines.end());
        if !is_in_error(&ended) {
            log_stderr(job, &ended.stderr);
        }
        outcome(&ended, &self.limits, lines.snooze)
    }
}

/// Whether the end of stderr is part of the error of the attempt. Else it would be lost without a log line.
fn is_in_error(ended: &Ended) -> bool {
    match ended.stopped {
        // An attempt that was cancelled, or stopped with the server, has no error.
        Some(reason) => reason.is_failure(),
        None => !ended.status.success(),
    }
}

/// Logs the end of stderr.
pub(super) fn log_stderr(job: &JobContext, stderr: &[u8]) {
    if !stderr.trim_ascii().is_empty() {
        log_job!(info, JobFields::attempt(job.job()), "{}", message_with_end("stderr", stderr));
    }
}

/// `snooze` is the time that the program has reported.
fn outcome(ended: &Ended, limits: &ResourceLimits, snooze: Option<Duration>) -> Outcome {
    if ended.status.code() == Some(SNOOZE_CODE)
        && matches!(ended.stopped, None | Some(StopReason::Shutdown))
        && let Some(time) = snooze
    {
        return Err(Failure::snooze(time));
    }
    if let Some(reason) = ended.stopped {
        return Err(Failure::retryable(message_with_end(&reason.to_string(), &ended.stderr)));
    }
    if ended.status.success() {
        return Ok(result_from_output(&ended.stdout)?);
    }
    let message = message_with_end(&describe_end(ended.status, limits), &ended.stderr);
    match is_permanent(ended.status) {
        true => Err(Failure::permanent(message)),
        false => Err(Failure::retryable(message)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Instant;

    use serde_json::value::RawValue;
    use tempfile::{TempDir, tempdir};

    use super::*;
    use crate::handler::StopSignal;
    use crate::handler::stopping::HURRIED_TERM_TIMEOUT;
    use crate::handler::testing::{Recorded, assert_gone, context, job};
    use crate::job::report::{MAX_CHECKPOINT_BYTES, MAX_LINES};
    use crate::job::{Job, MAX_RESULT_BYTES, Report, ScheduleTick};
    use crate::wait::{LIMIT, eventually};

    /// Runs a script as an attempt at this job, and gives all its reports.
    fn run_reporting(script: &str, job: Job) -> (Outcome, Report) {
        let recorded = Arc::new(Recorded::default());
        let context = JobContext::on_server(Arc::new(job), StopSignal::default(), recorded.clone());
        let outcome = shell(script, &tempdir().unwrap()).handle(&context);
        (outcome, recorded.take())
    }

    fn shell(script: &str, dir: &TempDir) -> ExecHandler {
        ExecHandler::new(&words(&["/bin/sh", "-c", script]), dir.path()).unwrap()
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn run(script: &str) -> Outcome {
        shell(script, &tempdir().unwrap()).handle(&context("{}"))
    }

    fn result(script: &str) -> String {
        run(script).unwrap().get().to_owned()
    }

    /// Runs a script and tells it to stop once it has written a process id into the file `pid`.
    fn run_and_stop(script: &str, reason: StopReason, term_timeout: Duration) -> (Outcome, String, Duration) {
        let dir = tempdir().unwrap();
        let handler = ExecHandler { term_timeout, ..shell(script, &dir) };
        let stop = StopSignal::default();
        let context = JobContext::new(job("{}"), stop.clone());
        let file = dir.path().join("pid");
        thread::scope(|scope| {
            let run = scope.spawn(|| handler.handle(&context));
            let read = || fs::read_to_string(&file).unwrap_or_default();
            eventually(LIMIT, "the script has started", || read().ends_with('\n'));
            stop.stop(reason);
            let start = Instant::now();
            let outcome = run.join().unwrap();
            (outcome, read().trim().to_owned(), start.elapsed())
        })
    }

    #[test]
    fn stdout_is_the_result() {
        assert_eq!(result("echo '{\"n\": 12345678901234567890123}'"), r#"{"n": 12345678901234567890123}"#);
        assert_eq!(result("echo two; echo lines"), r#""two\nlines""#);
        assert_eq!(result("exit 0"), "null");
        assert_eq!(result(r"printf '\377\n'"), "\"\u{fffd}\"");
        assert_eq!(result("echo fine; echo noise >&2"), "\"fine\"");
    }

    #[test]
    fn a_long_result_is_cut_and_the_job_completes() {
        let cut: String = serde_json::from_str(&result("head -c 70000 /dev/zero | tr '\\0' x")).unwrap();
        assert_eq!(cut, "x".repeat(MAX_RESULT_BYTES));
    }

    #[test]
    fn much_output_neither_blocks_nor_is_kept() {
        let start = Instant::now();
        let outcome =
            run("head -c 500000000 /dev/zero; head -c 50000000 /dev/zero >&2; echo end >&2; exit 1");
        let message = outcome.unwrap_err().message().to_owned();
        assert!(message.ends_with("end") && message.chars().count() <= 1000, "{message}");
        assert!(start.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn exit_codes_decide_whether_it_is_tried_again() {
        assert_eq!(run("echo no >&2; exit 1").unwrap_err(), Failure::retryable("exit code 1: no"));
        assert_eq!(run("exit 75").unwrap_err(), Failure::retryable("exit code 75"));
        assert_eq!(run("echo bad >&2; exit 64").unwrap_err(), Failure::permanent("exit code 64: bad"));
        assert_eq!(run("exit 65").unwrap_err(), Failure::permanent("exit code 65"));
        assert_eq!(
            run("echo ow >&2; kill -9 $$").unwrap_err(),
            Failure::retryable("killed by signal 9 (SIGKILL): ow")
        );
    }

    #[test]
    fn the_error_is_the_end_of_stderr() {
        let message = run("head -c 9000 /dev/zero | tr '\\0' x >&2; echo last >&2; exit 3").unwrap_err();
        let message = message.message();
        assert!(message.starts_with("exit code 3: xxx") && message.ends_with("xlast"), "{message}");
        assert_eq!(message.chars().count(), 1000);
    }

    #[test]
    fn a_program_reports_through_its_pipe() {
        let script = "echo 'progress 0.5 half way' > $THREADQ_REPORT; exec 3> $THREADQ_REPORT; \
                      echo 'log from a child' >&3; (echo 'log from its child' >&3); \
                      echo \"checkpoint {\\\"page\\\": 7}\" >&3; echo \"was $THREADQ_CHECKPOINT\"; printf 'log no end' >&3";
        let checkpoint = Some(RawValue::from_string("{\"page\": 6}".to_owned()).unwrap());
        let (outcome, report) = run_reporting(script, Job { checkpoint, ..job("{}") });
        assert_eq!(outcome.unwrap().get(), r#""was {\"page\": 6}""#);
        assert_eq!(report.progress, Some((0.5, "half way".to_owned())));
        assert_eq!(report.log, ["from a child", "from its child", "no end"]);
        assert_eq!(report.checkpoint.unwrap().get(), r#"{"page": 7}"#);

        let (_, report) = run_reporting("echo \"${THREADQ_CHECKPOINT-none}\"; echo noise >&2", job("{}"));
        assert!(report.is_empty(), "{report:?}");
    }

    #[test]
    fn a_long_checkpoint_needs_several_writes() {
        let json = format!("\"{}\"", "x".repeat(MAX_CHECKPOINT_BYTES - 2));
        let script = "payload=$(cat); printf 'checkpoint %s\\n' \"$payload\" > $THREADQ_REPORT";
        let (outcome, report) = run_reporting(script, job(&json));
        outcome.unwrap();
        assert_eq!(report.checkpoint.unwrap().get(), json);
    }

    #[test]
    fn a_program_that_reports_without_end_is_read_and_little_of_it_is_kept() {
        for garbage in ["yes log noise", "cat /dev/zero", "cat /dev/urandom"] {
            let script = format!(
                "{garbage} | head -c 50000000 > $THREADQ_REPORT; printf '\\nprogress 1 end\\n' > $THREADQ_REPORT"
            );
            let (outcome, report) = run_reporting(&script, job("{}"));
            assert_eq!(outcome.unwrap().get(), "null", "{garbage}");
            assert_eq!(report.progress, Some((1.0, "end".to_owned())), "{garbage}");
            assert!(report.log.len() <= MAX_LINES, "{garbage}");
        }
    }

    #[test]
    fn a_process_that_holds_the_pipe_does_not_delay_the_end() {
        let start = Instant::now();
        let script = "exec 3> $THREADQ_REPORT; (sleep 1000) > /dev/null 2>&1 & echo 'log last' >&3";
        let (outcome, report) = run_reporting(script, job("{}"));
        outcome.unwrap();
        assert_eq!(report.log, ["last"]);
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_program_that_snoozes_exits_with_75() {
        let run = |script: &str| run_reporting(script, job("{}")).0;
        let snoozed = run("echo 'snooze 10m' > $THREADQ_REPORT; exit 75");
        assert_eq!(snoozed.unwrap_err(), Failure::snooze(Duration::from_secs(600)));
        let short = run("echo 'snooze 10ms' > $THREADQ_REPORT; exit 75");
        assert_eq!(short.unwrap_err(), Failure::snooze(Duration::from_secs(1)));
        assert_eq!(
            run("echo 'snooze soon' > $THREADQ_REPORT; exit 75").unwrap_err(),
            Failure::retryable("exit code 75")
        );
        assert_eq!(
            run("echo 'snooze 10m' > $THREADQ_REPORT; exit 1").unwrap_err(),
            Failure::retryable("exit code 1")
        );
        run("echo 'snooze 10m' > $THREADQ_REPORT").unwrap();
    }

    #[test]
    fn stderr_can_be_a_log_too() {
        let recorded = Arc::new(Recorded::default());
        let context = JobContext::on_server(Arc::new(job("{}")), StopSignal::default(), recorded.clone());
        let dir = tempdir().unwrap();
        let handler = shell("echo progress 0.4 >&2; printf 'no end' >&2; exit 1", &dir);
        let failure = handler.logging_stderr(true).handle(&context).unwrap_err();
        assert_eq!(failure, Failure::retryable("exit code 1: progress 0.4\nno end"));
        let report = recorded.take();
        assert_eq!(
            (report.log, report.progress),
            (vec!["progress 0.4".to_owned(), "no end".to_owned()], None)
        );
    }

    #[test]
    fn the_environment_is_scrubbed() {
        // Set for every test by cargo, and as much the server's own as a token would be.
        assert!(env::var_os("CARGO_MANIFEST_DIR").is_some());
        let schedule = Some(ScheduleTick { name: "s".to_owned(), tick_ms: 1_764_000_000_000 });
        let context = JobContext::new(Job { attempts: 2, schedule, ..job("{}") }, StopSignal::default());
        let handler = ExecHandler::new(&words(&["env"]), tempdir().unwrap().path()).unwrap();
        let handler = ExecHandler { dir: env::temp_dir(), ..handler };
        let output: String = serde_json::from_str(handler.handle(&context).unwrap().get()).unwrap();
        for line in output.lines() {
            let name = line.split('=').next().unwrap();
            assert!(INHERITED_VARIABLES.contains(&name) || name.starts_with("THREADQ_"), "{line}");
        }
        assert!(output.contains("THREADQ_JOB_ID=1764000000000123"));
        assert!(output.contains("THREADQ_JOB_TYPE=Encode Video"));
        assert!(output.contains("THREADQ_ATTEMPT=3"));
        assert!(output.contains("THREADQ_TICK=2025-11-24T16:00:00.000Z"));
        assert!(output.contains("PATH="));
    }

    #[test]
    fn the_payload_comes_on_stdin() {
        let payload = r#"{"n": 1.00000000000000000000001}"#;
        let outcome = shell("cat", &tempdir().unwrap()).handle(&context(payload));
        assert_eq!(outcome.unwrap().get(), payload);

        let long = format!("\"{}\"", "x".repeat(1 << 20));
        let outcome = shell("wc -c", &tempdir().unwrap()).handle(&context(&long));
        assert_eq!(outcome.unwrap().get(), (long.len()).to_string());
    }

    #[test]
    fn a_program_need_not_read_its_stdin() {
        let long = format!("\"{}\"", "x".repeat(1 << 20));
        for script in ["true", "exec 0<&-; sleep 0.05", "head -c 1 >/dev/null"] {
            let outcome = shell(script, &tempdir().unwrap()).handle(&context(&long));
            assert_eq!(outcome.unwrap().get(), "null", "{script}");
        }
    }

    #[test]
    fn the_working_directory_is_the_folder_of_the_configuration() {
        let dir = tempdir().unwrap();
        let outcome = shell("pwd", &dir).handle(&context("{}"));
        assert_eq!(outcome.unwrap().get(), format!("\"{}\"", dir.path().display()));
    }

    #[test]
    fn a_relative_program_is_looked_for_from_the_configuration() {
        let dir = tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        symlink("/bin/sh", dir.path().join("bin/run")).unwrap();
        let handler = ExecHandler::new(&words(&["./bin/run", "-c", "echo $1", "0", "a b"]), dir.path());
        assert_eq!(handler.unwrap().handle(&context("{}")).unwrap().get(), "\"a b\"");
    }

    #[test]
    fn a_program_that_cannot_be_run_is_refused_by_name() {
        let dir = tempdir().unwrap();
        fs::write(dir.path().join("text"), "").unwrap();
        fs::set_permissions(dir.path().join("text"), fs::Permissions::from_mode(0o644)).unwrap();
        let refused =
            |command: &[&str]| ExecHandler::new(&words(command), dir.path()).unwrap_err().to_string();
        let path = dir.path().display();
        assert_eq!(refused(&["./gone"]), format!("the program {path}/./gone does not exist"));
        assert_eq!(refused(&["./text"]), format!("the program {path}/./text is not executable"));
        assert_eq!(refused(&["./"]), format!("the program {path}/./ is not a file"));
        assert_eq!(refused(&["threadq-no-such"]), "the program \"threadq-no-such\" is not on PATH");
        assert_eq!(refused(&[]), "exec needs at least the name of a program");
    }

    #[test]
    fn a_program_that_has_gone_since_is_a_retryable_failure() {
        let dir = tempdir().unwrap();
        symlink("/bin/sh", dir.path().join("run")).unwrap();
        let handler = ExecHandler::new(&words(&["./run"]), dir.path()).unwrap();
        fs::remove_file(dir.path().join("run")).unwrap();
        let Err(Failure::Retryable { message, .. }) = handler.handle(&context("{}")) else {
            panic!("it should fail and be tried again");
        };
        assert!(message.contains("/run: No such file"), "{message}");
    }

    #[test]
    fn a_stopped_program_gets_sigterm_and_time_to_tidy_up() {
        let script = "trap 'sleep 0.2; echo tidied >> pid; exit 0' TERM; echo $$ > pid; sleep 1000 & wait";
        let (outcome, pid, _) = run_and_stop(script, StopReason::TimedOut, Duration::from_secs(20));
        assert_eq!(outcome.unwrap_err(), Failure::retryable("timed out"));
        assert!(pid.ends_with("tidied"), "{pid}");
        assert_gone(pid.lines().next().unwrap());
    }

    #[test]
    fn what_the_program_started_gets_the_same_time() {
        let child = "trap \"sleep 0.2; echo tidied >> pid; exit\" TERM; echo $$ > pid; sleep 1000 & wait";
        let script = format!("sh -c '{child}'; true");
        let (outcome, pid, _) = run_and_stop(&script, StopReason::Cancelled, Duration::from_secs(20));
        assert_eq!(outcome.unwrap_err(), Failure::retryable("cancelled"));
        assert!(pid.ends_with("tidied"), "{pid}");
    }

    #[test]
    fn a_program_that_ignores_sigterm_is_killed_with_all_it_started() {
        let script = "trap '' TERM; sh -c 'echo $$ > pid; while :; do sleep 1; done' & wait";
        let term_timeout = Duration::from_millis(300);
        let (outcome, pid, time) = run_and_stop(script, StopReason::Cancelled, term_timeout);
        assert_eq!(outcome.unwrap_err(), Failure::retryable("cancelled"));
        assert!(time >= term_timeout && time < Duration::from_secs(10), "{time:?}");
        assert_gone(&pid);
    }

    #[test]
    fn one_that_is_hurried_is_killed_soon() {
        let script = "trap '' TERM; echo $$ > pid; while :; do sleep 1; done";
        let dir = tempdir().unwrap();
        let handler = shell(script, &dir);
        let stop = StopSignal::default();
        let context = JobContext::new(job("{}"), stop.clone());
        let file = dir.path().join("pid");
        thread::scope(|scope| {
            let run = scope.spawn(|| handler.handle(&context));
            eventually(LIMIT, "the script has started", || {
                fs::read_to_string(&file).is_ok_and(|pid| pid.ends_with('\n'))
            });
            stop.stop(StopReason::Shutdown);
            let start = Instant::now();
            stop.hurry();
            let failure = run.join().unwrap().unwrap_err();
            // A shell that sees its child killed a moment before itself says so on stderr.
            let Failure::Retryable { message, .. } = &failure else { panic!("{failure:?}") };
            assert!(message.starts_with("the server is stopping"), "{message}");
            let time = start.elapsed();
            assert!(time >= HURRIED_TERM_TIMEOUT && time < TERM_TIMEOUT, "{time:?}");
            assert_gone(fs::read_to_string(&file).unwrap().trim());
        });
    }

    #[test]
    fn the_end_of_stderr_is_part_of_the_error_of_a_stopped_program() {
        for (reason, wanted) in [
            (StopReason::TimedOut, "timed out: nearly\nthere"),
            (StopReason::Cancelled, "cancelled: nearly\nthere"),
            (StopReason::Shutdown, "the server is stopping: nearly\nthere"),
        ] {
            let script = "echo nearly >&2; echo there >&2; echo $$ > pid; sleep 1000";
            let (outcome, _, _) = run_and_stop(script, reason, Duration::from_secs(20));
            assert_eq!(outcome.unwrap_err(), Failure::retryable(wanted));
        }
    }

    #[test]
    fn what_a_program_leaves_running_is_killed_and_not_waited_for() {
        let start = Instant::now();
        let pid: String = serde_json::from_str(&result("sleep 1000 & echo \"pid $!\"")).unwrap();
        assert!(start.elapsed() < Duration::from_secs(20));
        assert_gone(pid.strip_prefix("pid ").unwrap());
    }

    fn failure_under(limits: ResourceLimits, script: &str) -> String {
        let dir = tempdir().unwrap();
        let handler = shell(script, &dir).limited(limits).unwrap();
        let failure = handler.handle(&context("{}")).unwrap_err();
        assert!(matches!(failure, Failure::Retryable { .. }), "{failure:?}");
        failure.message().to_owned()
    }

    #[test]
    fn a_program_that_wants_too_much_memory_fails() {
        let limits = ResourceLimits { memory: Some(64 << 20), ..ResourceLimits::default() };
        // tail keeps the last line, which has no end.
        let error = failure_under(limits, "tail -n 1 < /dev/zero");
        assert!(error.starts_with("exit code 1, under the limits memory=64MiB: tail: "), "{error}");
        assert!(error.contains("memory exhausted"), "{error}");
    }

    #[test]
    fn a_program_that_uses_up_its_cpu_time_is_stopped() {
        let limits = ResourceLimits { cpu: Some(Duration::from_secs(1)), ..ResourceLimits::default() };
        let error = failure_under(limits, "while :; do :; done");
        assert_eq!(error, "killed by signal 24 (SIGXCPU), under the limits cpu=1s");
    }

    #[test]
    fn a_program_that_opens_too_many_files_fails() {
        let limits = ResourceLimits { open_files: Some(8), ..ResourceLimits::default() };
        let error =
            failure_under(limits, "for n in 3 4 5 6 7 8 9; do eval \"exec $n</dev/null\" || exit; done");
        assert!(error.contains(", under the limits open_files=8: "), "{error}");
    }

    #[test]
    fn what_a_limited_program_starts_is_limited_and_nice_too() {
        let limits = ResourceLimits {
            memory: Some(512 << 20),
            cpu: Some(Duration::from_secs(60)),
            open_files: Some(64),
            niceness: Some(5),
        };
        let script = "sh -c 'ulimit -v; ulimit -t; ulimit -n; nice; cat'";
        let dir = tempdir().unwrap();
        let handler = shell(script, &dir).limited(limits).unwrap();
        let niceness: i32 = rustix::process::nice(0).unwrap();
        let expected = format!("\"524288\\n60\\n64\\n{}\\n{{}}\"", niceness + 5);
        assert_eq!(handler.handle(&context("{}")).unwrap().get(), expected);
    }

    #[test]
    fn many_run_at_a_time() {
        let all_fine = AtomicBool::new(true);
        thread::scope(|scope| {
            for number in 0..30 {
                let all_fine = &all_fine;
                scope.spawn(move || {
                    let fine =
                        result(&format!("cat; sleep 0.1; echo {number}")) == format!("\"{{}}{number}\"");
                    all_fine.fetch_and(fine, Ordering::Relaxed);
                });
            }
        });
        assert!(all_fine.into_inner());
    }
}
