//! Panics of handlers: catches them and makes the error of the attempt from their message and place.
//!
//! Only the panic hook learns the place of a panic. The hook runs on the panicking thread before the stack unwinds, so
//! it leaves the text in a thread-local variable, and [`catch`] reads it after the unwinding.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Arc, Once};

use crate::job::Job;
use crate::logging::job_fields::{JobFields, log_job};

thread_local! {
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
    /// Message and place of the first panic of the attempt that runs on this thread.
    static FIRST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    /// The job whose attempt runs on this thread.
    static RUNNING: RefCell<Option<Arc<Job>>> = const { RefCell::new(None) };
}

/// Installs the panic hook, once per process. The hook keeps the first panic of each attempt for [`catch`] and passes
/// every other panic on to the hook that was set before.
///
/// A second panic of an attempt is also logged with its job: a panic during the unwinding of another one ends the
/// process, and this line is then the only one that names the job.
pub fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if IS_WORKER.get() {
                if keep_first(info) {
                    return;
                }
                log_second(info);
            }
            previous(info);
        }));
    });
}

/// Marks the current thread as a worker: the hook keeps panics of workers only.
pub fn mark_worker_thread() {
    IS_WORKER.set(true);
}

/// Runs one attempt at `job`. `Err` has the message and the place of the panic that ended the attempt.
pub fn catch<T>(job: &Arc<Job>, attempt: impl FnOnce() -> T) -> Result<T, String> {
    RUNNING.set(Some(job.clone()));
    // A panic that the previous handler caught itself can have left its text here.
    FIRST_PANIC.set(None);
    let result = catch_unwind(AssertUnwindSafe(attempt)).map_err(describe_caught);
    RUNNING.set(None);
    result
}

/// Whether the panic is the first one of the attempt on this thread, and is kept.
fn keep_first(info: &PanicHookInfo) -> bool {
    FIRST_PANIC.try_with(|first| first.replace(Some(describe(info))).is_none()).unwrap_or(false)
}

fn log_second(info: &PanicHookInfo) {
    let job = RUNNING.try_with(|job| job.try_borrow().ok()?.clone()).ok().flatten();
    if let Some(job) = job {
        log_job!(error, JobFields::attempt(&job), "{}; the attempt had already panicked", describe(info));
    }
}

fn describe(info: &PanicHookInfo) -> String {
    let message = info.payload_as_str().unwrap_or("(no message)");
    match info.location() {
        Some(place) => format!("panicked: {message} ({}:{})", place.file(), place.line()),
        None => format!("panicked: {message}"),
    }
}

fn describe_caught(payload: Box<dyn Any + Send>) -> String {
    let message = FIRST_PANIC.take();
    // Dropping the payload can itself panic, which would end the thread.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    message.unwrap_or_else(|| "panicked".to_owned())
}
