//! `threadq check`: finds what keeps a server with a configuration from working, and starts nothing.

use std::path::Path;

use crate::config::Config;
use crate::handler::Handlers;
use crate::job::time::now_ms;
use crate::private_redis::PrivateRedis;
use crate::queue::{self, Advice, Severity};
use crate::server::error::StartError;
use crate::server::handlers::{NO_HANDLERS, configured_handlers, pulled_here};
use crate::server::limits::undefined_limits;
use crate::server::schedules::configured_schedules;
use crate::server::store;

/// Checks the handlers and the Redis of a configuration, without starting anything. `say` gets a report, line by line.
///
/// # Errors
/// The first reason why a server with this configuration cannot work.
pub fn check(config: &Config, say: &mut dyn FnMut(String)) -> Result<(), StartError> {
    let handlers = configured_handlers(Handlers::default(), config)?;
    let job_types = handlers.job_types().collect::<Vec<_>>().join(", ");
    if job_types.is_empty() {
        say("handlers: none".to_owned());
        if config.workers > 0 {
            say(format!("warning: {NO_HANDLERS}"));
        }
    } else {
        say(format!("handlers: {job_types}"));
    }
    handlers.check_programs().map_err(StartError::Configuration)?;
    configured_schedules(config, &handlers)?;
    for (limit, numbers) in config.defined_limits() {
        say(format!("limit {limit}: {numbers}"));
    }
    say_all(undefined_limits(config), say);
    say_schedules(config, say)?;
    let Some(url) = &config.redis_url else {
        say("redis: a private one".to_owned());
        PrivateRedis::check().map_err(|error| StartError::Configuration(error.to_string()))?;
        say_all(pulled_here(config, None), say);
        return check_data_dir(&config.data_dir);
    };
    let queue = store::queue(config, url.expose())?;
    let place = queue.place_report();
    place.line.into_iter().for_each(&mut *say);
    say_advice(&place.advice, say);
    let fault = |reason: &str| StartError::failed("redis-url", reason.to_owned());
    let info = queue.redis_info().or_else(|error| {
        store::check_url(&queue)?;
        Err(place.fault.as_deref().map_or_else(|| StartError::failed("redis-url", error), fault))
    })?;
    store::check_version(&info)?;
    say(format!("redis: {} {} at {}", info.product, info.version, url.redacted()));
    if let Some(reason) = place.fault {
        return Err(fault(&reason));
    }
    if info.is_replica {
        return Err(fault("this is a replica, which refuses writes; allowed: its master"));
    }
    let problems = info.problems();
    say_advice(&problems, say);
    if let Some(wrong) = problems.iter().find(|advice| advice.severity == Severity::Wrong) {
        return Err(fault(&format!("{}; {}", wrong.what, wrong.todo)));
    }
    let tried = queue.check_ready().and_then(|()| queue.check_wait_for_job());
    tried.map_err(|error| match error {
        queue::Error::Denied(reason) => StartError::Configuration(format!("redis-url: {reason}")),
        error => StartError::failed("redis-url", error),
    })?;
    if let Ok(Some(missing)) = queue.check_operator_rights() {
        say(format!("warning: requests and commands that show or change jobs will fail: {missing}"));
    }
    say_all(pulled_here(config, Some(&queue)), say);
    Ok(())
}

/// Says when each schedule has its next tick.
fn say_schedules(config: &Config, say: &mut dyn FnMut(String)) -> Result<(), StartError> {
    for entry in &config.schedules {
        let invalid = |error| StartError::Configuration(format!("schedules.{:?}: {error}", entry.name));
        let plan = entry.spec.plan().map_err(invalid)?;
        let next = plan.next_after(now_ms()).map(|tick| plan.local_text(tick));
        let next = next.unwrap_or_else(|| "has no more ticks".to_owned());
        say(format!("schedule {}: {next}", entry.name));
    }
    Ok(())
}

fn say_all(warnings: impl IntoIterator<Item = String>, say: &mut dyn FnMut(String)) {
    warnings.into_iter().for_each(|warning| say(format!("warning: {warning}")));
}

/// Says the warnings and notes. What is wrong is the error of the check.
fn say_advice(advice: &[Advice], say: &mut dyn FnMut(String)) {
    for Advice { severity, what, todo, .. } in advice {
        if *severity != Severity::Wrong {
            say(format!("{}: {what}; {todo}", severity.as_str()));
        }
    }
}

/// Whether the private Redis can write its data to this folder. Leaves no file behind.
fn check_data_dir(data_dir: &Path) -> Result<(), StartError> {
    let invalid = |reason: String| StartError::Configuration(format!("data-dir: {reason}"));
    let exists = |folder: &&Path| folder.symlink_metadata().is_ok();
    let absolute = std::path::absolute(data_dir).map_err(|error| invalid(error.to_string()))?;
    let Some(folder) = absolute.ancestors().find(exists) else { return Ok(()) };
    let allowed = "allowed: a folder that this user can write to";
    if !folder.is_dir() {
        return Err(invalid(format!("{} is not a folder; {allowed}", folder.display())));
    }
    // Only a real write is reliable: the permission bits say nothing about quotas and unusual file systems.
    let probe = folder.join(format!(".threadq-check-{}", std::process::id()));
    std::fs::create_dir(&probe)
        .and_then(|()| std::fs::remove_dir(&probe))
        .map_err(|error| invalid(format!("cannot write to {}: {error}; {allowed}", folder.display())))
}
