//! The HTTP API: from a request to a change of the queue and back.
//!
//! Behind the gate, tiny_http's threads hand whole requests to a few API threads. A request finds its route, which
//! checks everything that was sent and then makes one call to the queue. Nothing here knows a worker or a thread of the
//! engine; the only thing it does to a running job is to ask for its end.

pub(crate) mod access;
pub(crate) mod backend;
mod body;
pub(crate) mod dlq;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod jobs;
mod listing;
pub(crate) mod long_poll;
pub(crate) mod private_socket;
mod query;
pub(crate) mod response;
pub(crate) mod routes;
pub(crate) mod stats;
mod ui;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::Secret;
use crate::engine::group_commit::GroupCommit;
use crate::engine::in_flight::InFlight;
use crate::engine::membership::Membership;
use crate::engine::metrics::Metrics;
use crate::engine::scheduler::Scheduler;
use crate::handler::Handlers;
use crate::job::JobId;
use crate::queue::Queue;

use crate::api::backend::{Backend, THREADS};
use crate::api::long_poll::{Wait, Waiting};
use crate::api::response::{Answer, Reply};
use crate::api::routes::{Route, Shape};
use crate::gate::{CLIENT_HEADER, ConnectionLimits, Gate, Limits, PROBE_PATH, Permits, Upstreams};
pub use listing::Turns;
use query::Query;

/// How long a stop waits for requests under way.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// OpenAPI 3.1 of all routes.
const OPENAPI: &str = include_str!("openapi.json");

/// What `OPTIONS *` asks for.
const WHOLE_SERVER: &str = "*";

/// What the API is told at start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The largest body in bytes.
    pub max_body: usize,
    /// Open connections.
    pub max_connections: usize,
    /// What requests must carry as a bearer token.
    pub token: Option<Secret>,
    /// How old the last heartbeat may be.
    pub lease_timeout: Duration,
    /// Whether any `Host` is taken where there is no token.
    pub any_host: bool,
    /// The queues that this server takes from.
    pub queues: Vec<String>,
}

/// What the API works with.
pub struct Api {
    /// Where jobs are.
    pub queue: Arc<Queue>,
    /// The way there for new ones.
    pub group_commit: GroupCommit,
    /// This server's name, to know whether a job to be cancelled runs here.
    pub membership: Arc<Membership>,
    /// To ask a running job for its end.
    pub in_flight: Arc<InFlight>,
    /// How jobs of a type are treated where they do not say it themselves.
    pub handlers: Arc<Handlers>,
    /// Learns of new delayed jobs.
    pub scheduler: Scheduler,
    /// Counts requests.
    pub metrics: Arc<Metrics>,
    /// Pages that are made now.
    pub listings: Turns,
    /// The rest.
    pub settings: Settings,
}

/// The running API.
pub struct Running {
    gate: Gate,
    backend: Arc<Backend>,
    waiting: Arc<Waiting>,
}

impl Running {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.gate.local_addr()
    }

    /// Takes no more requests, and ends those under way.
    pub fn stop(&self) {
        self.waiting.close();
        self.gate.stop(STOP_GRACE);
        self.backend.stop();
    }
}

/// One request, as far as the routes look at it.
struct Request<'a> {
    path: &'a str,
    query: &'a str,
    headers: &'a [tiny_http::Header],
    body: &'a [u8],
}

impl Request<'_> {
    /// A header that may be given once.
    fn header(&self, name: &'static str) -> Result<Option<&str>, Reply> {
        let mut values =
            self.headers.iter().filter(|header| header.field.equiv(name)).map(|header| header.value.as_str());
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Reply::error(400, "invalid_header", format!("{name} is given twice"))),
            (value, None) => Ok(value.map(str::trim)),
        }
    }

    /// A body, if there is one, is JSON by its own word, and not compressed.
    fn check_content_type(&self) -> Result<(), Reply> {
        let kind = self.header("Content-Type")?.unwrap_or_default();
        if self.body.is_empty() {
            return Ok(());
        }
        self.check_content_encoding()?;
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case("application/json") {
            return Ok(());
        }
        let sentence = "the body must be JSON, with the header Content-Type: application/json";
        Err(Reply::error(415, "unsupported_media_type", sentence))
    }

    /// No encoding is taken, not even `identity`, which no body may name (RFC 9110, 8.4.1).
    fn check_content_encoding(&self) -> Result<(), Reply> {
        let given = self.headers.iter().filter(|header| header.field.equiv("Content-Encoding"));
        let named: Vec<&str> =
            given.map(|header| header.value.as_str().trim()).filter(|value| !value.is_empty()).collect();
        if named.is_empty() {
            return Ok(());
        }
        let shown: String = named.join(", ").chars().take(50).collect();
        let sentence = format!("the body has the Content-Encoding {shown:?}; it must be sent without any");
        Err(Reply::error(415, "unsupported_media_type", sentence).with("Accept-Encoding", "identity"))
    }

    /// The body of a request that must have one.
    fn json_body(&self) -> Result<&[u8], Reply> {
        self.check_content_type()?;
        Ok(self.body)
    }
}

/// Starts the API on a listener that is bound already.
///
/// # Errors
/// Where no private socket can be made or no thread started.
pub fn start(api: Api, listener: TcpListener) -> io::Result<Running> {
    let most =
        ConnectionLimits { connections: api.settings.max_connections, parked: crate::api::long_poll::MOST };
    let room = ConnectionLimits::find(most, THREADS);
    let limits = Limits {
        max_connections: room.connections,
        max_body: api.settings.max_body,
        request_time: Duration::from_secs(10),
        idle_time: Duration::from_secs(60),
        // Eight pages of a listing, or at least a few of the largest jobs.
        max_buffered: (32 << 20).max(4 * api.settings.max_body),
    };
    let api = Arc::new(api);
    let waiting = Arc::new(Waiting::new(room.parked));
    let permits = Permits::new(THREADS);
    let backend = Backend::new({
        let (api, waiting, permits) = (api.clone(), waiting.clone(), permits.clone());
        move |request| api.handle(request, &waiting, &permits)
    });
    let socket = backend.start()?;
    let upstreams = Upstreams::new(permits, socket, {
        let backend = backend.clone();
        move || backend.start()
    });
    std::thread::Builder::new().name("api-waits".to_owned()).spawn({
        let (api, waiting) = (api.clone(), waiting.clone());
        move || waiting.run(&api)
    })?;
    Ok(Running { gate: Gate::start(listener, upstreams, limits)?, backend, waiting })
}

/// The number by which the gate knows the client of a request.
fn number_of_client(request: &tiny_http::Request) -> Option<u64> {
    let header = request.headers().iter().find(|header| header.field.equiv(CLIENT_HEADER))?;
    header.value.as_str().parse().ok()
}

/// Sends an answer. Whether the client takes it is the gate's business.
fn send(request: tiny_http::Request, reply: Reply) {
    let Reply { status, content_type, headers, body } = reply;
    let headers = headers.iter().map(|(name, value)| (*name, value.as_str())).chain([
        ("Content-Type", content_type),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    ]);
    // Names are constants, values are ours: a header that cannot be made does not occur.
    let headers =
        headers.filter_map(|(name, value)| tiny_http::Header::from_bytes(name, value).ok()).collect();
    let length = body.len();
    let response =
        tiny_http::Response::new(status.into(), headers, io::Cursor::new(body), Some(length), None)
            .with_chunked_threshold(usize::MAX);
    let _ = request.respond(response);
}

/// Whether the request carries the token. Takes as long whatever was sent.
fn check_token(token: &str, request: &Request) -> Result<(), Reply> {
    let given = request.header("Authorization").ok().flatten().unwrap_or_default();
    let (scheme, sent) = given.split_once(' ').unwrap_or_default();
    let equal = Sha256::digest(sent.trim()).ct_eq(&Sha256::digest(token));
    if scheme.eq_ignore_ascii_case("bearer") && equal.into() {
        return Ok(());
    }
    let sentence = "a token is needed, in the header Authorization: Bearer TOKEN";
    Err(Reply::error(401, "unauthorized", sentence).with("WWW-Authenticate", "Bearer"))
}

impl Api {
    /// Answers one request, or parks it until its job ends.
    fn handle(&self, mut request: tiny_http::Request, waiting: &Waiting, permits: &Arc<Permits>) {
        if request.url() == PROBE_PATH {
            return send(request, Reply::empty(204));
        }
        let mut body = Vec::with_capacity(request.body_length().unwrap_or(0));
        // The gate has read it whole and checked its length.
        if request.as_reader().read_to_end(&mut body).is_err() {
            return send(request, Reply::invalid_json("the body could not be read"));
        }
        let method = request.method().to_string();
        let url = request.url().to_owned();
        let (path, query) = url.split_once('?').unwrap_or((&url, ""));
        let known = Shape::of(path);
        let answer = {
            let request = Request { path, query, headers: request.headers(), body: &body };
            self.admit(&method, known, &request)
                .and_then(|()| self.answer(&method, known, &request))
                .unwrap_or_else(Answered::Now)
        };
        let pattern = known.map_or("other", |(shape, _)| shape.pattern);
        match answer {
            Answered::Now(reply) => {
                self.metrics.answered(&method, pattern, reply.status);
                send(request, reply);
            }
            Answered::Later(id, time) => {
                self.metrics.wait_begins();
                let parked = permits.park(number_of_client(&request));
                let wait = Wait { id, until: Instant::now() + time, request, pattern, parked };
                if let Some(wait) = waiting.add(wait) {
                    let sentence = "as many requests wait for jobs as may; ask again without wait";
                    let reply = Reply::error(503, "too_many_waiting", sentence).with("Retry-After", "1");
                    wait.answer(self, reply);
                }
            }
        }
    }

    /// Whether the sender may ask at all: by the token if one is set, else by where the request comes from.
    fn admit(&self, method: &str, known: Option<(&Shape, &str)>, request: &Request) -> Result<(), Reply> {
        match &self.settings.token {
            Some(_) if known.is_some_and(|(shape, _)| shape.is_open()) => Ok(()),
            Some(token) => check_token(token.expose(), request),
            None => {
                let host = request.header("Host")?;
                if !self.settings.any_host {
                    crate::api::access::check_host(host)?;
                }
                crate::api::access::check_origin(method, host, request.header("Origin")?)
            }
        }
    }

    fn answer(
        &self,
        method: &str,
        known: Option<(&Shape, &str)>,
        request: &Request,
    ) -> Result<Answered, Reply> {
        if request.path == WHOLE_SERVER {
            return Ok(Answered::Now(Reply::empty(204).with("Allow", "GET, HEAD, POST, DELETE")));
        }
        let Some((shape, parameter)) = known else {
            return Err(Reply::error(404, "not_found", "there is nothing at this path"));
        };
        // tiny_http leaves the body of the answer out.
        let method = if method == "HEAD" { "GET" } else { method };
        if !shape.methods.contains(&method) {
            let allowed = shape.allowed();
            let sentence = format!("{} knows {} only", shape.pattern, allowed.join(" and "));
            return Err(Reply::error(405, "method_not_allowed", sentence).with("Allow", allowed.join(", ")));
        }
        let route = shape.route(parameter)?;
        let takes_query = method == "GET"
            && matches!(route, Route::Jobs | Route::Job(_) | Route::DeadLetters)
            || method == "DELETE" && route == Route::DeadLetters;
        if !takes_query {
            Query::parse(request.query, &[])?;
        }
        if method == "POST" {
            request.check_content_type()?;
        }
        if let (Route::Job(id), "GET") = (&route, method)
            && let Some(time) = Query::parse(request.query, &["wait"])?.wait()?
        {
            return self.wait_for(*id, time);
        }
        self.answer_now(&route, method, request).map(Answered::Now)
    }

    fn answer_now(&self, route: &Route, method: &str, request: &Request) -> Answer {
        match (route, method) {
            (Route::Jobs, "POST") => self.submit(request),
            (Route::Jobs, _) => self.list_jobs(request.query),
            (Route::Batch, _) => self.submit_batch(request),
            (Route::Job(id), "DELETE") => self.delete(*id),
            (Route::Job(id), _) => self.show(*id),
            (Route::Cancel(id), _) => self.cancel(*id),
            (Route::Retry(id), _) => self.retry(*id),
            (Route::DeadLetters, "DELETE") => self.delete_dead_letters(request.query),
            (Route::DeadLetters, _) => self.list_dead_letters(request.query),
            (Route::RetryDeadLetters, _) => self.retry_dead_letters(request),
            (Route::Queues, _) => self.queues(),
            (Route::Pause(name), _) => self.set_paused(name, true),
            (Route::Resume(name), _) => self.set_paused(name, false),
            (Route::Stats, _) => self.stats(),
            (Route::History, _) => self.history(),
            (Route::Workers, _) => self.workers(),
            (Route::Metrics, _) => self.metrics(),
            (Route::Healthz, _) => Ok(Reply::json(200, &json!({ "status": "ok" }))),
            (Route::Readyz, _) => self.ready().map_err(|reply| self.for_asker(reply, request)),
            (Route::OpenApi, _) => Ok(Reply::document("application/json", OPENAPI)),
            (Route::Ui(file), _) => Ok(file.reply()),
        }
    }

    /// Why this server is not ready is no business of those who cannot show the token.
    fn for_asker(&self, reply: Reply, request: &Request) -> Reply {
        match &self.settings.token {
            Some(token) if check_token(token.expose(), request).is_err() => reply.with_sentence(
                "not ready; the reason is in the log, and in this answer if the token is sent",
            ),
            _ => reply,
        }
    }

    /// Parks the request, unless the job has ended or is not there.
    fn wait_for(&self, id: JobId, time: Duration) -> Result<Answered, Reply> {
        match self.queue.statuses(&[id])?.first() {
            Some(Some((status, _))) if !status.is_final() && !time.is_zero() => Ok(Answered::Later(id, time)),
            _ => self.show(id).map(Answered::Now),
        }
    }
}

/// What comes of a request.
enum Answered {
    Now(Reply),
    /// When this job ends, or this time is over.
    Later(JobId, Duration),
}
