//! The body of PUT /schedules/NAME and of POST /schedules/preview.

use serde_json::value::RawValue;

use super::fields::{Fields, Invalid, json};
use super::job::scheduled;
use crate::engine::schedules::CheckedSchedule;
use crate::handler::Handlers;
use crate::job::limit::LimitName;
use crate::job::{Hold, ScheduleTick};
use crate::schedule::{Overlap, Plan, Spec};

/// The most times of a preview.
const MAX_TIMES: u64 = 100;

/// The body of PUT /schedules/NAME.
pub fn schedule(name: &str, body: &[u8], handlers: &Handlers) -> Result<CheckedSchedule, Invalid> {
    let (spec, fields) = spec(body, &["job"])?;
    let plan = checked(&spec)?;
    let job = fields.raw("job").ok_or_else(|| Invalid::field("job is missing"))?;
    checked_schedule(name, spec, plan, job, handlers)
}

/// A schedule with this job.
pub fn checked_schedule(
    name: &str,
    spec: Spec,
    plan: Plan,
    job: &RawValue,
    handlers: &Handlers,
) -> Result<CheckedSchedule, Invalid> {
    let mut read = scheduled(job, "job.".to_owned(), handlers)?;
    let extras = read.extras.get_or_insert_default();
    extras.schedule = Some(ScheduleTick { name: name.to_owned(), tick_ms: 0 });
    // At most one job of the schedule runs and one waits.
    if matches!(plan.overlap(), Overlap::Wait | Overlap::Replace) {
        extras.unique.hold = Hold::UntilStart;
        LimitName::add(&mut extras.limits, &[LimitName::of_schedule(name)]);
    }
    Ok(CheckedSchedule { name: name.to_owned(), spec, plan, body: job.get().to_owned(), job: read })
}

/// The ticks that POST /schedules/preview computes.
pub struct Preview {
    pub plan: Plan,
    /// The time after which they begin; `None`: now.
    pub from_ms: Option<u64>,
    pub count: usize,
}

impl Preview {
    pub fn parse(body: &[u8]) -> Result<Preview, Invalid> {
        let (spec, fields) = spec(body, &["from", "count"])?;
        let count = fields.number("count", 1..=MAX_TIMES)?.unwrap_or(10);
        Ok(Preview { plan: checked(&spec)?, from_ms: fields.time("from")?, count: count as usize })
    }
}

/// The fields of a schedule's times, and all fields of the body.
fn spec<'a>(body: &'a [u8], others: &[&'static str]) -> Result<(Spec, Fields<'a>), Invalid> {
    let mut spec = Spec::default();
    let names: Vec<&str> =
        spec.fields().iter().map(|(name, _)| *name).chain(others.iter().copied()).collect();
    let fields = Fields::of(json(body)?, String::new(), &names)?;
    for (name, value) in spec.fields() {
        *value = fields.get(name, "a string", |_: &String| true)?;
    }
    Ok((spec, fields))
}

fn checked(spec: &Spec) -> Result<Plan, Invalid> {
    spec.plan().map_err(|invalid| {
        let value: String = spec.value(invalid.field).unwrap_or_default().chars().take(50).collect();
        let crate::schedule::Invalid { field, problem, allowed } = invalid;
        Invalid::Field(match value.is_empty() {
            true => format!("{field} {problem}; allowed: {allowed}"),
            false => format!("{field} {value:?} {problem}; allowed: {allowed}"),
        })
    })
}
