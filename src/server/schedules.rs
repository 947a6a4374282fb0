//! The schedules of a server: those of its configuration, with their jobs checked.

use crate::api;
use crate::config::Config;
use crate::engine::schedules::CheckedSchedule;
use crate::handler::Handlers;
use crate::job::rules::SCHEDULE_NAME;
use crate::server::error::StartError;

/// The schedules of the configuration.
///
/// # Errors
/// The first schedule that is not valid, with its field.
pub(super) fn configured_schedules(
    config: &Config,
    handlers: &Handlers,
) -> Result<Vec<CheckedSchedule>, StartError> {
    let checked = config.schedules.iter().enumerate().map(|(at, entry)| {
        let name = &entry.name;
        let invalid = |problem: &str| StartError::Configuration(format!("schedules.{name:?}: {problem}"));
        // A program can set any name.
        if !SCHEDULE_NAME.accepts(name) {
            return Err(invalid(&format!("the name is not allowed; allowed: {}", SCHEDULE_NAME.allowed)));
        }
        if config.schedules[..at].iter().any(|other| other.name == *name) {
            return Err(invalid("the name is given twice"));
        }
        api::checked_schedule(&entry.name, &entry.spec, &entry.job, handlers)
            .map_err(|reason| invalid(&reason))
    });
    checked.collect()
}
