//! One request, from tiny_http to its response.

use std::sync::Arc;
use std::time::Instant;

use crate::api::access::Needed;
use crate::api::answer::Answer;
use crate::api::attempts::no_valid_token;
use crate::api::limits::with_key;
use crate::api::long_poll::{LongPoll, LongPolls};
use crate::api::outcome::Outcome;
use crate::api::parked::Parked;
use crate::api::query::Query;
use crate::api::request::{Headers, Request};
use crate::api::response::Response;
use crate::api::routes::{Endpoint, Path, Route};
use crate::api::state::Api;
use crate::api::ui;
use crate::engine::group_commit::NewJobs;
use crate::gate::{Handovers, PROBE_PATH, Permits};

/// The target of `OPTIONS *`.
const WHOLE_SERVER: &str = "*";

impl Api {
    /// Responds to a request, or parks it until its job ends. Calls `before_waiting` before the thread waits for Redis.
    /// Returns whether further requests are likely to come at once.
    pub fn handle(
        self: &Arc<Api>,
        mut request: tiny_http::Request,
        long_polls: &LongPolls,
        permits: &Arc<Permits>,
        handovers: &Arc<Handovers>,
        before_waiting: &dyn Fn(),
    ) -> bool {
        if request.url() == PROBE_PATH {
            Response::empty(204).send(request);
            return false;
        }
        let mut body = Vec::with_capacity(request.body_length().unwrap_or(0));
        // Fails only if the gate closes the connection: it has read the whole body and checked its length.
        if request.as_reader().read_to_end(&mut body).is_err() {
            Response::invalid_json("the body could not be read").send(request);
            return false;
        }
        let url = request.url().to_owned();
        let (path, query) = url.split_once('?').unwrap_or((&url, ""));
        let known_path = Path::find(path);
        let pattern = known_path.map_or("other", |path| path.pattern);
        let outcome = {
            let (method, headers) = (request.method().as_str(), Headers(request.headers()));
            let needed = known_path.map_or(Needed::ApiToken, Path::needed);
            let access = self.settings.access.check(method, needed, headers);
            access.and_then(|()| match known_path {
                _ if path == WHOLE_SERVER => {
                    Ok(Response::empty(204).with("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE").into())
                }
                None => Err(Response::error(404, "not_found", "unknown path")),
                Some(known_path) => match known_path.route(method) {
                    None => Err(method_not_allowed(known_path)),
                    Some(route) => {
                        let request = UncheckedRequest { path, query, headers, body: &body };
                        if !matches!(route.endpoint, Endpoint::Submit(..)) {
                            before_waiting();
                        }
                        self.call(route, known_path, request)
                    }
                },
            })
        };
        match outcome.unwrap_or_else(Outcome::Now) {
            Outcome::Now(response) => Answer::new(request, self, handovers, pattern).send(response),
            Outcome::Submit(new_jobs, submitted) => {
                let (api, answer) = (self.clone(), Answer::new(request, self, handovers, pattern));
                let done = move |new_jobs: &NewJobs, result| {
                    answer.send(submitted(&api, new_jobs, result).unwrap_or_else(|error| error));
                };
                return self.group_commit.submit(new_jobs, Box::new(done), before_waiting);
            }
            Outcome::WaitForJob(id, awaited, time) => {
                let until = Instant::now() + time;
                if let Some(parked) = Parked::new(request, self, pattern, &long_polls.places, permits)
                    && let Some(refused) = long_polls.add(LongPoll { id, awaited, until, parked })
                {
                    refused.parked.respond(Response::too_many_waiting());
                }
            }
            Outcome::WaitForJobs(pull, time) => {
                if let Some(parked) = Parked::new(request, self, pattern, &long_polls.places, permits) {
                    self.wait_for_jobs(pull, time, parked);
                    long_polls.watch_takers();
                }
            }
        }
        false
    }

    /// Checks the request against its route and calls the function of its endpoint. The path parameter is checked first, then the query,
    /// then the content type.
    fn call(&self, route: &Route, path: Path, request: UncheckedRequest) -> Result<Outcome, Response> {
        match route.endpoint {
            Endpoint::Fixed(function) => function(self, &request.check(route)?).map(Outcome::Now),
            Endpoint::Job(function) => {
                function(self, path.job_id()?, &request.check(route)?).map(Outcome::Now)
            }
            Endpoint::Submit(jobs, submitted) => {
                Ok(Outcome::Submit(jobs(self, &request.check(route)?)?, submitted))
            }
            Endpoint::LongPoll(function) => function(self, path.job_id()?, &request.check(route)?),
            Endpoint::Queue(function) => {
                function(self, path.queue_name()?, &request.check(route)?).map(Outcome::Now)
            }
            Endpoint::Schedule(function) => {
                function(self, path.schedule_name()?, &request.check(route)?).map(Outcome::Now)
            }
            Endpoint::Limit(function) => {
                let name = path.limit_name()?;
                let request = request.check(route)?;
                function(self, &with_key(name, &request.query)?, &request).map(Outcome::Now)
            }
            Endpoint::Pull(function) => function(self, &request.check(route)?),
            Endpoint::Attempt(function) => {
                let attempt = self.attempt_of(path.parameter)?.ok_or_else(no_valid_token)?;
                function(self, attempt, &request.check(route)?).map(Outcome::Now)
            }
            Endpoint::File => {
                request.check(route)?;
                ui::file(path.parameter).map(Outcome::Now)
            }
        }
    }
}

struct UncheckedRequest<'a> {
    path: &'a str,
    query: &'a str,
    headers: Headers<'a>,
    body: &'a [u8],
}

impl<'a> UncheckedRequest<'a> {
    fn check(self, route: &Route) -> Result<Request<'a>, Response> {
        let UncheckedRequest { path, query, headers, body } = self;
        let query = Query::parse(query, route.query)?;
        if matches!(route.method, "POST" | "PUT" | "PATCH") {
            headers.check_content_type(body)?;
        }
        Ok(Request { path, query, headers, body })
    }
}

fn method_not_allowed(path: Path) -> Response {
    let allowed = path.allowed_methods();
    let sentence = format!("method not allowed for {}; allowed: {allowed}", path.pattern);
    Response::error(405, "method_not_allowed", sentence).with("Allow", allowed)
}
