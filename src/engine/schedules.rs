//! The schedules of this server's file, and the ticks that are due. The thread `scheduler` calls both.

use std::collections::HashSet;

use crate::engine::shared::Shared;
use crate::job::NewJob;
use crate::job::time::rfc3339;
use crate::queue::{
    Defined, Error, Fired, Queue, ScheduleDefinition, ScheduleRecord, ServerId, Source, TickOutcome,
    TickOverlap,
};
use crate::schedule::{Overlap, Plan, Spec};

/// A schedule that was checked, and its job.
pub struct CheckedSchedule {
    pub name: String,
    pub spec: Spec,
    pub plan: Plan,
    /// The job as JSON.
    pub body: String,
    /// The same job, read.
    pub job: NewJob,
}

impl CheckedSchedule {
    /// Stores the schedule, as one of a server's file or of the API.
    pub fn define(&self, queue: &Queue, server: Option<&ServerId>) -> Result<Defined, Error> {
        let definition = ScheduleDefinition {
            name: self.name.clone(),
            source: if server.is_some() { Source::Config } else { Source::Api },
            spec: self.spec.to_json(),
            body: self.body.clone(),
            job: self.job.clone(),
            overlap: match self.plan.overlap() {
                Overlap::Allow => TickOverlap::Allow,
                // Only a job that has not started holds the unique key of a schedule that waits.
                Overlap::Skip | Overlap::Wait => TickOverlap::Skip,
                Overlap::Replace => TickOverlap::Replace,
            },
            server: server.map_or("", ServerId::as_str).to_owned(),
        };
        queue.define_schedule(&definition, |now| {
            self.plan.next_after(now).map(|tick| (tick, self.plan.due_at(&self.name, tick)))
        })
    }

    fn is_as_in(&self, record: &ScheduleRecord) -> bool {
        record.spec == self.spec.to_json() && record.body == self.body
    }
}

/// The schedules of this server's file.
pub struct FileSchedules {
    schedules: Vec<CheckedSchedule>,
    /// The id of this server when Redis last got the schedules.
    defined_by: Option<ServerId>,
    /// Schedules of other servers that this server cannot read, each named in the log once.
    unreadable: HashSet<String>,
}

impl FileSchedules {
    pub fn new(schedules: Vec<CheckedSchedule>) -> FileSchedules {
        FileSchedules { schedules, defined_by: None, unreadable: HashSet::new() }
    }

    /// Stores the schedules, once for each id of this server: after the start, and after Redis has lost its data.
    pub fn define(&mut self, shared: &Shared) -> Result<(), Error> {
        let server = shared.server();
        let is_done = self.schedules.is_empty() || self.defined_by.as_ref() == Some(&server);
        // The registration tells Redis which schedules this server has. The heartbeat wakes the scheduler after it.
        if is_done || shared.membership.heartbeat_age().is_none() {
            return Ok(());
        }
        for schedule in &self.schedules {
            warn_of_another(shared, schedule, &server)?;
            if schedule.define(&shared.queue, Some(&server))? == Defined::TooMany {
                log::error!("the schedule {:?} is not stored: there are too many", schedule.name);
            }
        }
        self.defined_by = Some(server);
        Ok(())
    }

    /// Works off the due ticks of these schedules, by the time of Redis.
    pub fn fire(&mut self, shared: &Shared, names: &[String], now_ms: u64) -> Result<(), Error> {
        for name in names {
            let fired = match shared.queue.schedule(name)? {
                Some(record) => self.fire_one(shared, &record, now_ms)?,
                // The schedule was deleted: the call removes its word from the agenda.
                None => shared.queue.fire(name, 0, None, None, &[], 0)?,
            };
            if let Fired::Ticks(ticks) = fired {
                shared.metrics.ticked(name, &ticks);
                for tick in ticks.iter().filter(|tick| tick.outcome == TickOutcome::Missed) {
                    let (count, first) = (tick.count, rfc3339(tick.at_ms));
                    log::warn!("the schedule {name:?} missed {count} ticks from {first} on");
                }
            }
        }
        Ok(())
    }

    fn fire_one(&mut self, shared: &Shared, record: &ScheduleRecord, now_ms: u64) -> Result<Fired, Error> {
        let name = record.name.as_str();
        let plan = match Spec::from_json(&record.spec) {
            Ok(plan) => plan,
            // Another server may have the time zone. The word of the tick is due again after 2 s.
            Err(reason) => {
                if self.unreadable.insert(name.to_owned()) {
                    log::warn!("this server cannot compute the ticks of the schedule {name:?}: {reason}");
                }
                return Ok(Fired::Changed);
            }
        };
        let expected = record.next.unwrap_or(0);
        let due = plan.due(name, expected, now_ms);
        let next_due = due.next.map(|tick| plan.due_at(name, tick));
        shared.queue.fire(name, expected, due.next, next_due, &due.start, due.missed)
    }
}

/// Warns if the file of another living server has this schedule with other values.
fn warn_of_another(shared: &Shared, schedule: &CheckedSchedule, server: &ServerId) -> Result<(), Error> {
    let name = &schedule.name;
    let Some(record) = shared.queue.schedule(name)? else { return Ok(()) };
    let other = record.server.as_str();
    if other.is_empty() || other == server.as_str() || schedule.is_as_in(&record) {
        return Ok(());
    }
    if shared.queue.stats()?.servers.iter().any(|living| living.id == other) {
        let own = server.as_str();
        log::warn!(
            "the file of server={other} has another schedule {name:?}; that of this server={own} replaces it"
        );
    }
    Ok(())
}
