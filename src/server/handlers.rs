//! The handlers of a server: handlers of the program, and handlers of the configuration.

use serde_json::Value;

use crate::config::{Config, Run};
use crate::handler::exec::ExecHandler;
use crate::handler::http::HttpHandler;
use crate::handler::lines::LinesHandler;
use crate::handler::{Handlers, demo};
use crate::job::DEFAULT_QUEUE;
use crate::queue::Queue;
use crate::server::error::StartError;

/// The warning of a server that can run no job.
pub(super) const NO_HANDLERS: &str = "no handlers: every job will fail; add [handlers.TYPE] to the config file, or try threadq out with --demo";

/// The handlers of the program and of the configuration, with the policies and limits of the configuration.
pub(super) fn configured_handlers(mut handlers: Handlers, config: &Config) -> Result<Handlers, StartError> {
    if config.demo {
        demo::register(&mut handlers);
    }
    for entry in &config.handlers {
        let invalid = |source| StartError::Handler { job_type: entry.job_type.clone(), source };
        match &entry.run {
            Some(Run::Exec(command)) => {
                let handler = ExecHandler::new(command, &config.config_dir)
                    .and_then(|handler| handler.limited(entry.limits))
                    .map_err(invalid)?
                    .logging_stderr(entry.stderr_is_log)
                    .reporting_in(handlers.report_folder.clone());
                match entry.lines {
                    None => handlers.insert(&entry.job_type, handler),
                    Some(lines) => {
                        let backoff = entry.policy.backoff;
                        let handler =
                            LinesHandler::new(&entry.job_type, handler, lines, config.workers, backoff);
                        handlers.add_programs(handler.pool().clone());
                        handlers.insert(&entry.job_type, handler);
                    }
                }
            }
            Some(Run::Http(url)) => handlers
                .insert(&entry.job_type, HttpHandler::trusting(url, config.ca.as_ref()).map_err(invalid)?),
            Some(Run::Pull) => handlers.insert_pulled(&entry.job_type),
            None if handlers.get(&entry.job_type).is_none() => {
                return Err(StartError::Configuration(format!(
                    "handlers.{:?}: needs exec, http or pull, because the program has no handler of this job type",
                    entry.job_type
                )));
            }
            None => {}
        }
        handlers.set_policy(&entry.job_type, entry.policy);
        handlers.set_limits(&entry.job_type, entry.all_limits());
    }
    Ok(handlers)
}

/// A warning if this server takes jobs of a queue that has jobs for pull workers: a schedule of the configuration submits them to
/// the queue, or pull workers have lately asked for jobs of the queue.
pub(super) fn pulled_here(config: &Config, queue: Option<&Queue>) -> Option<String> {
    let pulled = config.handlers.iter().filter(|entry| matches!(entry.run, Some(Run::Pull)));
    let pulled: Vec<&str> = pulled.map(|entry| entry.job_type.as_str()).collect();
    let own = config.queue_names();
    if pulled.is_empty() || own.is_empty() {
        return None;
    }
    let scheduled = config.schedules.iter().filter_map(|entry| {
        let job: Value = serde_json::from_str(&entry.job).ok()?;
        let queue = job["queue"].as_str().unwrap_or(DEFAULT_QUEUE).to_owned();
        pulled.contains(&job["type"].as_str()?).then_some(queue)
    });
    let names: Vec<&str> = own.iter().map(String::as_str).collect();
    let known = queue.and_then(|queue| queue.queues(&names).ok()).unwrap_or_default();
    let asked = known.into_iter().filter(|info| info.is_pulled).map(|info| info.name);
    let name = scheduled.chain(asked).find(|name| own.contains(name))?;
    let types = pulled.join(", ");
    Some(format!(
        "the queue {name} has jobs for pull workers, and this server takes its jobs too: those of a type with pull ({types}) fail here; \
         leave {name} out of queues"
    ))
}
