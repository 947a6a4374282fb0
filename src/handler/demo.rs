//! The handlers of `--demo`: each handler shows one way in which a handler can behave.

use std::process::abort;
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{Closure, Handlers, JobContext};
use crate::job::Failure;

/// Adds the six demo handlers: `echo`, `sleep`, `fail`, `panic`, `exit`, `hang`.
pub fn register(handlers: &mut Handlers) {
    handlers.insert("echo", Closure(echo));
    handlers.insert("sleep", Closure(sleep));
    handlers.insert("fail", Closure(fail));
    handlers.insert("panic", Closure(panic));
    handlers.insert("exit", Closure(exit));
    handlers.insert("hang", Closure(hang));
}

/// Returns the payload.
fn echo(job: &JobContext) -> Result<Box<RawValue>, Failure> {
    Ok(job.job().payload.clone())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sleep {
    ms: u64,
}

/// Sleeps until the time has passed or the attempt gets a stop signal.
fn sleep(job: &JobContext) -> Result<(), Failure> {
    let Sleep { ms } = payload(job, r#"{"ms": N}"#)?;
    job.sleep(Duration::from_millis(ms));
    job.stop_reason().map_or(Ok(()), |reason| Err(Failure::retryable(reason.to_string())))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fail {
    times: Option<u64>,
    #[serde(default)]
    permanent: bool,
    message: Option<String>,
}

/// Fails the first `times` attempts; without `times` all attempts.
fn fail(job: &JobContext) -> Result<(), Failure> {
    let wanted = r#"{"times": N, "permanent": true or false, "message": "..."}, all of them optional"#;
    let Fail { times, permanent, message } = payload(job, wanted)?;
    let message = message.unwrap_or_else(|| "failed on purpose".to_owned());
    match is_among_first(job.attempt().into(), times) {
        false => Ok(()),
        true if permanent => Err(Failure::permanent(message)),
        true => Err(Failure::retryable(message)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Times {
    times: Option<u64>,
}

const TIMES_WANTED: &str = r#"{"times": N} or {}"#;

/// Panics on the first `times` attempts; without `times` on all.
fn panic(job: &JobContext) -> Result<(), Failure> {
    let Times { times } = payload(job, TIMES_WANTED)?;
    if is_among_first(job.attempt().into(), times) {
        panic!("panicked on purpose");
    }
    Ok(())
}

/// Kills the whole process on the first `times` starts, as the kernel does when memory runs out: no code can clean up.
fn exit(job: &JobContext) -> Result<(), Failure> {
    let Times { times } = payload(job, TIMES_WANTED)?;
    if is_among_first(job.job().starts, times) {
        // SIGKILL leaves no core file, which an abort would.
        let _ = kill_process(getpid(), Signal::KILL);
        abort();
    }
    Ok(())
}

/// Never returns, and ignores the stop signal.
fn hang(_: &JobContext) -> Result<(), Failure> {
    loop {
        thread::park();
    }
}

/// Whether the attempt (or start) with this number, from 1, is one of the first `times`. Without `times` always true.
fn is_among_first(number: u64, times: Option<u64>) -> bool {
    times.is_none_or(|times| number <= times)
}

fn payload<T: DeserializeOwned>(job: &JobContext, wanted: &str) -> Result<T, Failure> {
    serde_json::from_str(job.job().payload.get()).map_err(|error| {
        let job_type = &job.job().job_type;
        Failure::permanent(format!("the payload of {job_type} must be {wanted}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;
    use crate::handler::testing::job;
    use crate::handler::{StopReason, StopSignal};
    use crate::job::{Job, Outcome};

    fn run(job_type: &str, payload: &str) -> Outcome {
        run_job(Job { job_type: job_type.to_owned(), ..job(payload) })
    }

    fn run_attempt(job_type: &str, payload: &str, attempt: u32) -> Outcome {
        run_job(Job { job_type: job_type.to_owned(), attempts: attempt - 1, ..job(payload) })
    }

    fn run_job(job: Job) -> Outcome {
        let mut handlers = Handlers::default();
        register(&mut handlers);
        let job_type = job.job_type.clone();
        handlers.get(&job_type).unwrap().handle(&JobContext::new(job, StopSignal::default()))
    }

    #[test]
    fn echo_gives_the_payload_back_digit_by_digit() {
        let payload = r#"{"n": 0.10000000000000000000000000000000000000000001}"#;
        assert_eq!(run("echo", payload).unwrap().get(), payload);
    }

    #[test]
    fn sleep_sleeps() {
        let start = Instant::now();
        assert_eq!(run("sleep", r#"{"ms": 20}"#).unwrap().get(), "null");
        assert!(start.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn sleep_ends_at_the_stop_signal() {
        let stop = StopSignal::default();
        stop.stop(StopReason::Cancelled);
        let context = JobContext::new(job(r#"{"ms": 3600000}"#), stop);
        assert_eq!(sleep(&context), Err(Failure::retryable("cancelled")));
    }

    #[test]
    fn fail_fails_its_first_attempts() {
        let failed = Failure::retryable("failed on purpose");
        assert_eq!(run_attempt("fail", r#"{"times": 2}"#, 2).unwrap_err(), failed);
        assert_eq!(run_attempt("fail", r#"{"times": 2}"#, 3).unwrap().get(), "null");
        assert_eq!(run_attempt("fail", r#"{"times": 0}"#, 1).unwrap().get(), "null");
        assert_eq!(run_attempt("fail", "{}", 99).unwrap_err(), failed);
    }

    #[test]
    fn fail_can_fail_permanently_with_its_message() {
        let outcome = run("fail", r#"{"permanent": true, "message": "no"}"#);
        assert_eq!(outcome.unwrap_err(), Failure::permanent("no"));
    }

    #[test]
    fn panic_panics_on_its_first_attempts() {
        assert!(catch_unwind(AssertUnwindSafe(|| run_attempt("panic", r#"{"times": 1}"#, 1))).is_err());
        assert!(run_attempt("panic", r#"{"times": 1}"#, 2).is_ok());
    }

    #[test]
    fn exit_kills_the_process_on_its_first_starts() {
        const MARK: &str = "THREADQ_TEST_EXIT";
        let delivery = |starts| Job { job_type: "exit".to_owned(), starts, ..job(r#"{"times": 1}"#) };
        if std::env::var_os(MARK).is_some() {
            let _ = run_job(delivery(1));
            return;
        }
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "handler::demo::tests::exit_kills_the_process_on_its_first_starts"])
            .env(MARK, "1")
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(9));
        assert!(run_job(delivery(2)).is_ok());
    }

    #[test]
    fn a_payload_of_the_wrong_shape_is_a_permanent_failure_that_shows_the_shape() {
        let wrong =
            [("sleep", "{}"), ("sleep", r#"{"ms": "5"}"#), ("fail", "null"), ("panic", r#"{"time": 1}"#)];
        for (job_type, payload) in wrong {
            let Err(Failure::Permanent { message }) = run(job_type, payload) else {
                panic!("{job_type} took {payload}");
            };
            assert!(message.starts_with(&format!("the payload of {job_type} must be {{\"")), "{message}");
        }
    }
}
