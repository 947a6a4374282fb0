//! The table of routes. The router, the errors 404 and 405, the check of query parameters, the labels of the metrics and
//! the shared parts of the OpenAPI document come from it.

use crate::api::access::Needed;
use crate::api::limits::no_such_limit;
use crate::api::outcome::{Outcome, Submitted};
use crate::api::request::Request;
use crate::api::response::Response;
use crate::api::schedules::no_such_schedule;
use crate::api::state::Api;
use crate::api::ui;
use crate::engine::group_commit::NewJobs;
use crate::job::limit::LimitName;
use crate::job::rules::{QUEUE_NAME, SCHEDULE_NAME};
use crate::job::{AttemptId, JobId};
use crate::net::percent::decode_segment;

/// One operation of the API.
pub struct Route {
    pub method: &'static str,
    /// The path as in the OpenAPI document and the metrics. A segment in braces is a parameter.
    pub pattern: &'static str,
    pub endpoint: Endpoint,
    /// The query parameters that are allowed.
    pub query: &'static [&'static str],
    /// Statuses of the errors that do not follow from method and pattern, see `openapi::errors`.
    pub errors: &'static [u16],
    /// The token that requests must have. The same for all routes of a path.
    pub needed: Needed,
}

/// The function that handles a route. The variant says which parameter the path has.
pub enum Endpoint {
    /// The path has no parameter.
    Fixed(fn(&Api, &Request) -> Result<Response, Response>),
    /// The parameter is `{id}`.
    Job(fn(&Api, JobId, &Request) -> Result<Response, Response>),
    /// The path has no parameter. The first function returns the jobs to store, the second one makes the response from the
    /// result.
    Submit(fn(&Api, &Request) -> Result<NewJobs, Response>, Submitted),
    /// The parameter is `{id}`, and the function may park the request until the job ends or logs.
    LongPoll(fn(&Api, JobId, &Request) -> Result<Outcome, Response>),
    /// The parameter is `{name}`.
    Queue(fn(&Api, &str, &Request) -> Result<Response, Response>),
    /// The parameter is `{name}`: a schedule.
    Schedule(fn(&Api, &str, &Request) -> Result<Response, Response>),
    /// The parameter is `{name}`: a limit. A query parameter `key` is part of the limit.
    Limit(fn(&Api, &LimitName, &Request) -> Result<Response, Response>),
    /// The path has no parameter, and the function may park the request until there are jobs.
    Pull(fn(&Api, &Request) -> Result<Outcome, Response>),
    /// The parameter is `{token}`: an attempt.
    Attempt(fn(&Api, AttemptId, &Request) -> Result<Response, Response>),
    /// The parameter is `{file}`: a file of the dashboard.
    File,
}

use Endpoint::{Attempt, File, Fixed, Job, Limit, LongPoll, Pull, Queue, Schedule, Submit};
use Needed::{AttemptToken, Nothing, WorkerToken};

/// All routes. HEAD is served wherever GET is. A path belongs to the first pattern that it matches.
pub static ROUTES: &[Route] = &[
    get("/jobs", Fixed(Api::list_jobs)).query(&[
        "page",
        "before",
        "limit",
        "status",
        "type",
        "tag",
        "created_after",
        "created_before",
    ]),
    post("/jobs", Submit(Api::submit, Api::submitted)).errors(&[409, 422, 429]),
    post("/jobs/batch", Submit(Api::submit_batch, Api::batch_submitted)).errors(&[409, 422, 429]),
    post("/jobs/bulk", Fixed(Api::bulk)),
    get("/jobs/{id}", LongPoll(Api::show_or_wait)).query(&["wait"]),
    get("/jobs/{id}/why", Job(Api::why)),
    get("/jobs/{id}/log", LongPoll(Api::log_or_wait)).query(&["after", "limit", "wait"]),
    patch("/jobs/{id}", Job(Api::change)).errors(&[409]),
    delete("/jobs/{id}", Job(Api::delete)).errors(&[409]),
    post("/jobs/{id}/run", Job(Api::run_now)).errors(&[409]),
    post("/jobs/{id}/cancel", Job(Api::cancel)).errors(&[409]),
    post("/jobs/{id}/retry", Job(Api::retry)).errors(&[409]),
    get("/dlq", Fixed(Api::list_dead_letters)).query(&[
        "page",
        "before",
        "limit",
        "type",
        "tag",
        "created_after",
        "created_before",
    ]),
    delete("/dlq", Fixed(Api::delete_dead_letters)).query(&[
        "type",
        "tag",
        "queue",
        "created_after",
        "created_before",
        "error",
    ]),
    post("/dlq/retry", Fixed(Api::retry_dead_letters)),
    get("/queues", Fixed(Api::queues)),
    get("/queues/{name}/jobs", Queue(Api::queue_jobs)).query(&["page", "limit"]),
    post("/queues/{name}/pause", Queue(Api::pause)),
    post("/queues/{name}/resume", Queue(Api::resume)),
    get("/schedules", Fixed(Api::list_schedules)).query(&["page", "limit"]),
    post("/schedules/preview", Fixed(Api::preview_schedule)),
    get("/schedules/{name}", Schedule(Api::show_schedule)),
    put("/schedules/{name}", Schedule(Api::put_schedule)).errors(&[409]),
    delete("/schedules/{name}", Schedule(Api::delete_schedule)).errors(&[409]),
    post("/schedules/{name}/run", Schedule(Api::run_schedule)).errors(&[409]),
    post("/schedules/{name}/pause", Schedule(Api::pause_schedule)),
    post("/schedules/{name}/resume", Schedule(Api::resume_schedule)),
    get("/limits", Fixed(Api::list_limits)),
    get("/limits/{name}", Limit(Api::show_limit)).query(&["key", "page", "limit"]),
    put("/limits/{name}", Limit(Api::put_limit)).query(&["key"]).errors(&[409]),
    delete("/limits/{name}", Limit(Api::delete_limit)).query(&["key"]).errors(&[409]),
    post("/pull", Pull(Api::pull)).needs(WorkerToken).errors(&[429]),
    post("/attempts", Fixed(Api::settle_attempts)).needs(AttemptToken).errors(&[401]),
    post("/attempts/{token}", Attempt(Api::report_attempt)).needs(AttemptToken).errors(&[409]),
    post("/attempts/{token}/complete", Attempt(Api::complete_attempt)).needs(AttemptToken).errors(&[409]),
    post("/attempts/{token}/fail", Attempt(Api::fail_attempt)).needs(AttemptToken).errors(&[409]),
    post("/attempts/{token}/release", Attempt(Api::release_attempt)).needs(AttemptToken).errors(&[409]),
    get("/workers", Fixed(Api::pull_workers)),
    get("/stats", Fixed(Api::stats)),
    get("/stats/history", Fixed(Api::history)),
    get("/stats/workers", Fixed(Api::workers)),
    get("/metrics", Fixed(Api::metrics)),
    get("/healthz", Fixed(Api::health)).needs(Nothing),
    get("/readyz", Fixed(Api::readiness)).needs(Nothing),
    get("/openapi.json", Fixed(Api::openapi)),
    get("/", Fixed(|_, _| Ok(ui::page()))).needs(Nothing),
    get("/ui/{file}", File).needs(Nothing),
];

const fn get(pattern: &'static str, endpoint: Endpoint) -> Route {
    Route::new("GET", pattern, endpoint)
}

const fn post(pattern: &'static str, endpoint: Endpoint) -> Route {
    Route::new("POST", pattern, endpoint)
}

const fn patch(pattern: &'static str, endpoint: Endpoint) -> Route {
    Route::new("PATCH", pattern, endpoint)
}

const fn put(pattern: &'static str, endpoint: Endpoint) -> Route {
    Route::new("PUT", pattern, endpoint)
}

const fn delete(pattern: &'static str, endpoint: Endpoint) -> Route {
    Route::new("DELETE", pattern, endpoint)
}

impl Route {
    const fn new(method: &'static str, pattern: &'static str, endpoint: Endpoint) -> Route {
        Route { method, pattern, endpoint, query: &[], errors: &[], needed: Needed::ApiToken }
    }

    const fn query(mut self, names: &'static [&'static str]) -> Route {
        self.query = names;
        self
    }

    const fn errors(mut self, statuses: &'static [u16]) -> Route {
        self.errors = statuses;
        self
    }

    const fn needs(mut self, needed: Needed) -> Route {
        self.needed = needed;
        self
    }
}

/// A path that the table knows.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    pub pattern: &'static str,
    /// The segment in place of the braces; empty if the pattern has none.
    pub parameter: &'a str,
}

impl<'a> Path<'a> {
    /// Looks up a path, without its query, in the table.
    pub fn find(path: &'a str) -> Option<Path<'a>> {
        ROUTES.iter().find_map(|route| {
            parameter(route.pattern, path).map(|parameter| Path { pattern: route.pattern, parameter })
        })
    }

    fn routes(self) -> impl Iterator<Item = &'static Route> {
        ROUTES.iter().filter(move |route| route.pattern == self.pattern)
    }

    /// The route of this path for a method, if there is one.
    pub fn route(self, method: &str) -> Option<&'static Route> {
        let method = if method == "HEAD" { "GET" } else { method };
        self.routes().find(|route| route.method == method)
    }

    /// The methods of this path, for the header `Allow`.
    pub fn allowed_methods(self) -> String {
        let methods =
            self.routes().map(|route| if route.method == "GET" { "GET, HEAD" } else { route.method });
        methods.collect::<Vec<_>>().join(", ")
    }

    /// The token that a request to this path must have. Health checks need none, since their callers have none; nor does the
    /// dashboard, which asks the user for the token.
    pub fn needed(self) -> Needed {
        self.routes().next().map_or(Needed::ApiToken, |route| route.needed)
    }

    /// The parameter as a job id.
    pub fn job_id(self) -> Result<JobId, Response> {
        let invalid = |error: crate::job::InvalidId| Response::error(400, "invalid_id", error.to_string());
        self.parameter.parse().map_err(invalid)
    }

    /// The parameter as the name of a schedule.
    pub fn schedule_name(self) -> Result<&'a str, Response> {
        if SCHEDULE_NAME.accepts(self.parameter) { Ok(self.parameter) } else { Err(no_such_schedule()) }
    }

    /// The parameter as a limit: its name, or its name and its key.
    pub fn limit_name(self) -> Result<LimitName, Response> {
        let text = decode_segment(self.parameter);
        text.and_then(|text| LimitName::parse(&text)).ok_or_else(no_such_limit)
    }

    /// The parameter as a queue name.
    pub fn queue_name(self) -> Result<&'a str, Response> {
        if QUEUE_NAME.accepts(self.parameter) {
            return Ok(self.parameter);
        }
        let sentence = format!("a queue's name must be {}", QUEUE_NAME.allowed);
        Err(Response::error(400, "invalid_queue", sentence))
    }
}

/// Matches a path against a pattern, segment by segment. Returns the segment in place of the braces.
fn parameter<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut parameter = "";
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(parameter),
            (Some(wanted), Some(given)) if wanted == given => {}
            (Some(wanted), Some(given)) if wanted.starts_with('{') && !given.is_empty() => parameter = given,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(path: &str) -> Option<&'static str> {
        Path::find(path).map(|path| path.pattern)
    }

    #[test]
    fn a_path_is_matched_by_its_segments() {
        assert_eq!(pattern("/jobs"), Some("/jobs"));
        assert_eq!(pattern("/jobs/batch"), Some("/jobs/batch"));
        assert_eq!(pattern("/jobs/12"), Some("/jobs/{id}"));
        assert_eq!(pattern("/jobs/12/cancel"), Some("/jobs/{id}/cancel"));
        for unknown in
            ["", "/jobs/", "//jobs", "/jobs/12/", "/jobs//cancel", "/JOBS", "/jobs/12/x", "/queues/a"]
        {
            assert_eq!(pattern(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn every_route_is_found_by_its_own_path_and_gets_the_parameter_of_its_pattern() {
        for route in ROUTES {
            let path = route.pattern.replace("{id}", "7").replace("{name}", "7").replace("{file}", "7");
            let path = path.replace("{token}", "7");
            let found = Path::find(&path).and_then(|path| path.route(route.method)).unwrap();
            assert!(std::ptr::eq(found, route), "{} {}", route.method, route.pattern);
            let parameter = match route.endpoint {
                Fixed(_) | Pull(_) | Submit(..) => "",
                Attempt(_) => "{token}",
                Job(_) | LongPoll(_) => "{id}",
                Queue(_) | Schedule(_) | Limit(_) => "{name}",
                File => "{file}",
            };
            let in_pattern: String =
                route.pattern.split('/').filter(|segment| segment.starts_with('{')).collect();
            assert_eq!(in_pattern, parameter, "{} {}", route.method, route.pattern);
        }
    }

    #[test]
    fn head_is_allowed_wherever_get_is() {
        let allowed = |path: &'static str| Path::find(path).map(Path::allowed_methods);
        assert_eq!(allowed("/jobs").as_deref(), Some("GET, HEAD, POST"));
        assert_eq!(allowed("/jobs/batch").as_deref(), Some("POST"));
        let method = |path: &'static str| Path::find(path)?.route("HEAD").map(|route| route.method);
        assert_eq!((method("/jobs"), method("/jobs/batch")), (Some("GET"), None));
    }

    #[test]
    fn only_health_checks_and_the_dashboard_need_no_token() {
        let open: Vec<&str> =
            ROUTES.iter().filter(|route| route.needed == Nothing).map(|route| route.pattern).collect();
        assert_eq!(open, ["/healthz", "/readyz", "/", "/ui/{file}"]);
        for route in ROUTES {
            assert_eq!(
                Path { pattern: route.pattern, parameter: "" }.needed(),
                route.needed,
                "{}",
                route.pattern
            );
        }
    }

    #[test]
    fn path_parameters_are_checked() {
        for (path, is_valid) in
            [("/jobs/12", true), ("/jobs/012", false), ("/jobs/x", false), ("/jobs/9007199254740992", false)]
        {
            assert_eq!(Path::find(path).unwrap().job_id().is_ok(), is_valid, "{path}");
        }
        assert!(Path::find("/queues/a%20b/pause").unwrap().queue_name().is_err());
        assert_eq!(Path::find("/queues/a/pause").unwrap().queue_name().unwrap(), "a");
        let limit = |path| Path::find(path).unwrap().limit_name().map(|limit| limit.to_string()).ok();
        assert_eq!(limit("/limits/smtp").as_deref(), Some("smtp"));
        assert_eq!(limit("/limits/threadq.type:a%20%2F%C3%A9").as_deref(), Some("threadq.type:a /é"));
        for path in ["/limits/a%20b", "/limits/a:", "/limits/a:%FF", "/limits/a:%00", "/limits/%"] {
            assert_eq!(limit(path), None, "{path}");
        }
    }
}
