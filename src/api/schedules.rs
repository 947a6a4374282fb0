//! /schedules: shows, defines, runs, pauses, resumes and deletes schedules.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::api::body::{self, Invalid, Preview};
use crate::api::request::Request;
use crate::api::response::Response;
use crate::api::state::Api;
use crate::engine::schedules::CheckedSchedule;
use crate::handler::Handlers;
use crate::job::rules::SCHEDULE_NAME;
use crate::job::time::{now_ms, rfc3339};
use crate::queue::{Defined, Ran, ScheduleChange, ScheduleRecord, Tick};
use crate::schedule::{Plan, Spec};

/// How many of the next ticks are shown.
const NEXT: usize = 5;

impl Api {
    pub(super) fn list_schedules(&self, request: &Request) -> Result<Response, Response> {
        let page = request.query.number("page", 1, 1, u64::MAX)?;
        let limit = request.query.number("limit", 10, 1, 100)?;
        let offset = (page - 1).saturating_mul(limit);
        let (total, schedules) = self.queue.schedules(offset.min(1 << 53), limit)?;
        let schedules: Vec<Shown> = schedules.iter().map(shown).collect();
        Ok(Response::json(200, &Page { schedules, page, limit, total }))
    }

    pub(super) fn show_schedule(&self, name: &str, _request: &Request) -> Result<Response, Response> {
        let record = self.queue.schedule(name)?.ok_or_else(no_such_schedule)?;
        let history = Some(record.ticks.iter().map(tick_json).collect());
        Ok(Response::json(200, &Shown { history, ..shown(&record) }))
    }

    pub(super) fn put_schedule(&self, name: &str, request: &Request) -> Result<Response, Response> {
        let schedule = body::schedule(name, request.body, &self.handlers).map_err(invalid_schedule)?;
        for limit in schedule.job.extras.iter().flat_map(|extras| &extras.limits) {
            if !limit.is_reserved() && self.queue.limit(limit, 0, 1)?.is_none() {
                let sentence = format!("job.limits: there is no limit {:?}", limit.as_str());
                return Err(Response::error(400, "invalid_schedule", sentence));
            }
        }
        let defined = schedule.define(&self.queue, None)?;
        let status = match defined {
            Defined::Created => 201,
            Defined::Updated => 200,
            Defined::ManagedByConfig => return Err(managed()),
            Defined::TooMany => {
                let sentence = "there are 10000 schedules already";
                return Err(Response::error(409, "too_many_schedules", sentence));
            }
        };
        // Its first tick may be earlier than anything that the scheduler waits for.
        self.due_timer.due_in(Duration::ZERO);
        let mut response = self.show_schedule(name, request)?;
        response.status = status;
        Ok(response)
    }

    pub(super) fn delete_schedule(&self, name: &str, _request: &Request) -> Result<Response, Response> {
        changed(self.queue.delete_schedule(name)?)?;
        Ok(Response::empty(204))
    }

    pub(super) fn pause_schedule(&self, name: &str, request: &Request) -> Result<Response, Response> {
        changed(self.queue.pause_schedule(name, true)?)?;
        self.show_schedule(name, request)
    }

    pub(super) fn resume_schedule(&self, name: &str, request: &Request) -> Result<Response, Response> {
        changed(self.queue.pause_schedule(name, false)?)?;
        self.show_schedule(name, request)
    }

    pub(super) fn run_schedule(&self, name: &str, request: &Request) -> Result<Response, Response> {
        let force = body::flag(request.body, "force").map_err(invalid_schedule)?;
        match self.queue.run_schedule(name, force)? {
            Ran::Started(id) => {
                // The job may have an expiry.
                self.due_timer.due_in(Duration::ZERO);
                Ok(Response::json(202, &json!({ "job_id": id })))
            }
            Ran::Overlap(id) => {
                let error =
                    "the job of an earlier tick has not ended; with force the schedule runs all the same";
                Err(Response::json(409, &json!({ "error": error, "code": "overlap", "job_id": id })))
            }
            Ran::Missing => Err(no_such_schedule()),
        }
    }

    pub(super) fn preview_schedule(&self, request: &Request) -> Result<Response, Response> {
        let Preview { plan, from_ms, count } = Preview::parse(request.body).map_err(invalid_schedule)?;
        let first = plan.next_after(from_ms.unwrap_or_else(now_ms));
        let times: Vec<String> = ticks(&plan, first).take(count).map(rfc3339).collect();
        Ok(Response::json(200, &json!({ "times": times })))
    }
}

/// The schedule of a file or of a program, with its job checked by the rules of the API.
///
/// # Errors
/// A sentence that names the field.
pub fn checked_schedule(
    name: &str,
    spec: &Spec,
    job: &str,
    handlers: &Handlers,
) -> Result<CheckedSchedule, String> {
    let plan = spec.plan().map_err(|invalid| invalid.to_string())?;
    let job: &RawValue =
        serde_json::from_str(job).map_err(|error| format!("job is not valid JSON: {error}"))?;
    body::checked_schedule(name, spec.clone(), plan, job, handlers).map_err(|invalid| match invalid {
        Invalid::Json(sentence) | Invalid::Field(sentence) => sentence,
    })
}

fn ticks(plan: &Plan, first: Option<u64>) -> impl Iterator<Item = u64> {
    std::iter::successors(first, |tick| plan.next_after(*tick))
}

/// A page of schedules.
#[derive(Serialize)]
struct Page<'a> {
    schedules: Vec<Shown<'a>>,
    page: u64,
    limit: u64,
    total: u64,
}

/// A schedule as the API shows it.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    source: &'static str,
    paused: bool,
    #[serde(flatten)]
    spec: Map<String, Value>,
    /// As it was sent, since a number may have more digits than a float.
    job: Option<&'a RawValue>,
    /// The next ticks.
    next: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<Value>>,
}

/// A schedule without its history.
fn shown(record: &ScheduleRecord) -> Shown<'_> {
    let next = match Spec::from_json(&record.spec) {
        Ok(plan) => ticks(&plan, record.next).take(NEXT).map(rfc3339).collect(),
        Err(_) => Vec::new(),
    };
    Shown {
        name: &record.name,
        source: record.source.as_str(),
        paused: record.paused,
        spec: serde_json::from_str(&record.spec).unwrap_or_default(),
        job: serde_json::from_str(&record.body).ok(),
        next,
        last: record.ticks.first().map(tick_json),
        history: None,
    }
}

fn tick_json(tick: &Tick) -> Value {
    let mut json = json!({ "tick": rfc3339(tick.at_ms), "outcome": tick.outcome.as_str() });
    if tick.count != 1 {
        json["count"] = tick.count.into();
    }
    if let Some(id) = tick.job {
        json["job_id"] = json!(id);
    }
    json
}

fn changed(result: ScheduleChange) -> Result<(), Response> {
    match result {
        ScheduleChange::Done => Ok(()),
        ScheduleChange::Missing => Err(no_such_schedule()),
        ScheduleChange::ManagedByConfig => Err(managed()),
    }
}

fn invalid_schedule(invalid: Invalid) -> Response {
    match invalid {
        Invalid::Json(sentence) => Response::invalid_json(sentence),
        Invalid::Field(sentence) => Response::error(400, "invalid_schedule", sentence),
    }
}

/// The path names no schedule.
pub(super) fn no_such_schedule() -> Response {
    let sentence = format!("there is no schedule with this name; a name is {}", SCHEDULE_NAME.allowed);
    Response::error(404, "not_found", sentence)
}

fn managed() -> Response {
    let sentence = "this schedule is in the configuration file of a server, and is changed there";
    Response::error(409, "managed_by_config", sentence)
}
