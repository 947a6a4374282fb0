//! /limits: shows, defines and deletes limits.

use std::time::Duration;

use serde::Serialize;

use crate::api::body::{self, Invalid};
use crate::api::listing::estimated_bytes;
use crate::api::query::Query;
use crate::api::request::Request;
use crate::api::response::Response;
use crate::api::state::Api;
use crate::job::limit::{LIMIT_ALLOWED, LimitName, LimitNumbers, Rate};
use crate::job::rules::RESERVED_PREFIX;
use crate::job::time::Time;
use crate::job::{Job, JobId};
use crate::queue::{LimitDeleted, LimitKey, LimitPut, LimitRecord};

impl Api {
    pub(super) fn list_limits(&self, _request: &Request) -> Result<Response, Response> {
        let limits = self.queue.limits()?;
        Ok(Response::json(200, &List { limits: limits.iter().map(shown).collect() }))
    }

    /// A limit with its running jobs, the keys with most waiting jobs, and a page of its waiting jobs.
    pub(super) fn show_limit(&self, limit: &LimitName, request: &Request) -> Result<Response, Response> {
        let page = request.query.number("page", 1, 1, u32::MAX.into())?;
        let number = request.query.number("limit", 10, 1, 100)?;
        let _slot = self.listings.acquire();
        let found = self.queue.limit(limit, (page - 1) * number, number)?.ok_or_else(no_such_limit)?;
        let bytes = 1024 + found.waiting.iter().map(estimated_bytes).sum::<usize>();
        let shown = Shown {
            key: limit.key().filter(|_| !limit.is_reserved()),
            running_ids: Some(&found.running),
            keys: found.keys.iter().map(shown_key).collect(),
            waiting_jobs: Some(&found.waiting),
            page: Some(page),
            limit: Some(number),
            ..shown(&found.record)
        };
        Ok(Response::large_json(200, &shown, bytes))
    }

    pub(super) fn put_limit(&self, limit: &LimitName, request: &Request) -> Result<Response, Response> {
        let numbers = body::limit(request.body).map_err(invalid_limit)?;
        let status = match self.queue.put_limit(limit, &numbers)? {
            LimitPut::Created => 201,
            LimitPut::Updated => 200,
            LimitPut::Missing if limit.is_reserved() => {
                let sentence = format!(
                    "the name must not begin with {RESERVED_PREFIX:?}: the server keeps such names for itself"
                );
                return Err(Response::error(400, "invalid_limit", sentence));
            }
            LimitPut::Missing => {
                let sentence =
                    format!("there is no limit {:?}, so its keys have no numbers of their own", limit.name());
                return Err(Response::error(404, "not_found", sentence));
            }
            LimitPut::TooMany => {
                return Err(Response::error(409, "too_many_limits", "there are 10000 limits already"));
            }
        };
        // Jobs may have room now: the scheduler sends them on.
        self.due_timer.due_in(Duration::ZERO);
        let mut response = self.show_limit(limit, request)?;
        response.status = status;
        Ok(response)
    }

    pub(super) fn delete_limit(&self, limit: &LimitName, _request: &Request) -> Result<Response, Response> {
        match self.queue.delete_limit(limit)? {
            LimitDeleted::Done => {
                self.due_timer.due_in(Duration::ZERO);
                Ok(Response::empty(204))
            }
            LimitDeleted::Missing => Err(no_such_limit()),
            LimitDeleted::ManagedByConfig => {
                let sentence =
                    "this limit has the numbers of the configuration file of a server, and is deleted there";
                Err(Response::error(409, "managed_by_config", sentence))
            }
        }
    }
}

/// The limit that a path and the parameter `key` name.
pub(super) fn with_key(name: LimitName, query: &Query) -> Result<LimitName, Response> {
    match (query.get("key"), name.key()) {
        (None, _) => Ok(name),
        (Some(_), Some(_)) => Err(Response::invalid_query("key must not be given beside a name with a key")),
        (Some(key), None) => LimitName::parse(&format!("{name}:{key}")).ok_or_else(|| {
            Response::invalid_query("key must be 1 to 100 characters, none of them a control character")
        }),
    }
}

/// The limit of a program, checked by the rules of the API: its name, and the body with its numbers.
///
/// # Errors
/// A sentence that names the field.
pub fn checked_limit(name: &str, body: &[u8]) -> Result<(LimitName, LimitNumbers), String> {
    let limit = LimitName::parse(name).filter(|limit| !limit.is_reserved()).ok_or_else(|| {
        format!("the name is not allowed; allowed: {LIMIT_ALLOWED}, not beginning with {RESERVED_PREFIX}")
    })?;
    let numbers = body::limit(body).map_err(|invalid| match invalid {
        Invalid::Json(sentence) | Invalid::Field(sentence) => sentence,
    })?;
    Ok((limit, numbers))
}

/// The body of the response to GET /limits.
#[derive(Serialize)]
struct List<'a> {
    limits: Vec<Shown<'a>>,
}

/// A limit as the API shows it. Without `flatten`, which makes the program much larger.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<Rate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    burst: Option<u32>,
    source: &'static str,
    overridden: bool,
    running: u64,
    waiting: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    opens_at: Option<Time>,
    /// This and the following are left out of a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    running_ids: Option<&'a [JobId]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<ShownKey<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_jobs: Option<&'a [Job]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
}

/// A key, with its numbers if it has its own.
#[derive(Serialize)]
struct ShownKey<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<Rate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    burst: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
    running: u64,
    waiting: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    opens_at: Option<Time>,
}

/// A limit without its jobs and keys.
fn shown(record: &LimitRecord) -> Shown<'_> {
    let LimitNumbers { concurrency, rate, burst } = record.numbers;
    Shown {
        name: &record.name,
        key: None,
        concurrency,
        rate,
        burst: rate.map(|_| burst),
        source: record.source.as_str(),
        overridden: record.overridden,
        running: record.running,
        waiting: record.waiting,
        opens_at: record.opens_at_ms.map(Time),
        running_ids: None,
        keys: Vec::new(),
        waiting_jobs: None,
        page: None,
        limit: None,
    }
}

fn shown_key(key: &LimitKey) -> ShownKey<'_> {
    let Shown { name, concurrency, rate, burst, source, running, waiting, opens_at, .. } = shown(&key.record);
    let source = key.is_own.then_some(source);
    ShownKey { key: name, concurrency, rate, burst, source, running, waiting, opens_at }
}

fn invalid_limit(invalid: Invalid) -> Response {
    match invalid {
        Invalid::Json(sentence) => Response::invalid_json(sentence),
        Invalid::Field(sentence) => Response::error(400, "invalid_limit", sentence),
    }
}

/// The path names no limit.
pub(super) fn no_such_limit() -> Response {
    let sentence = format!("there is no limit with this name; a name is {LIMIT_ALLOWED}");
    Response::error(404, "not_found", sentence)
}
