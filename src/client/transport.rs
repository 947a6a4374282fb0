//! Sends one request to the HTTP API and returns its response or an error. The typed client and the command line use it.
//!
//! It knows the methods, headers and errors of the API, but not what the body of a response means.

use std::fmt;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::{HeaderMap, Method, Request, Uri, header, request};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};
use ureq::{Agent, AsSendBody, Timeout};

use super::error::{Cause, Error, Refusal};
use crate::job::JobId;
use crate::net::authorities::Authorities;
use crate::net::early_response::EarlyResponseConnector;
use crate::net::http_url::HttpUrl;

/// The URL of a server with the default `listen`.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";
/// The default time limit for looking up the host and making a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The default time limit for a pause of the server. Far more than the 3 s within which it reports that Redis is unavailable,
/// because a retry or a purge of all dead letters can take tens of seconds.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an idle connection is kept: less than the 60 s after which the server closes it.
const MAX_IDLE_TIME: Duration = Duration::from_secs(15);
/// The longest response: a page of 100 jobs, each with a payload of a few times the default limit.
const MAX_RESPONSE_BYTES: u64 = 512 * 1024 * 1024;
/// The time limit for the body of a request, and for that of a response. Without it, a server that reads or sends a byte now and
/// then would block the caller forever.
const BODY_TIMEOUT: Duration = Duration::from_secs(600);

/// Sends requests to one server.
#[derive(Clone)]
pub(crate) struct Transport {
    agent: Agent,
    max_idle_connections: usize,
    /// The URL without user and password, and without a slash at its end.
    base: String,
    /// Whether the host of the URL is a name. Only a name is looked up, which takes a thread if the time is limited.
    has_host_name: bool,
    /// The value of the header `Authorization`.
    authorization: Option<String>,
    /// The time limit for looking up the host, and for making a connection.
    pub connect_timeout: Duration,
    /// The time limit for a pause of the server while it reads a request or sends a response.
    pub silence_timeout: Duration,
}

/// Without the token, which is a secret.
impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Transport").field("base", &self.base).finish_non_exhaustive()
    }
}

/// A response with a status from 200 to 299.
#[derive(Debug)]
pub(crate) struct Response {
    /// The HTTP status.
    pub status: u16,
    /// JSON, or empty.
    pub body: String,
    /// What the server that accepted submitted jobs does not serve itself.
    pub unserved: Unserved,
}

/// The header `Threadq-Unserved` of the response to a submission: what the server that responded does not serve itself. Another
/// server may.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Unserved {
    /// The server has no handler for a job type.
    pub job_type: bool,
    /// The server does not take jobs from a queue.
    pub queue: bool,
}

impl Unserved {
    fn read(headers: &HeaderMap) -> Unserved {
        let header =
            headers.get("Threadq-Unserved").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let has = |wanted: &str| header.split(',').any(|word| word.trim() == wanted);
        Unserved { job_type: has("type"), queue: has("queue") }
    }

    /// What is not served of two groups of jobs.
    pub(crate) fn or(self, other: Unserved) -> Unserved {
        Unserved { job_type: self.job_type || other.job_type, queue: self.queue || other.queue }
    }
}

impl Response {
    /// The body as a value of type `T`.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(&self.body).map_err(|error| {
            let message = format!("the response is not from a threadq server: {error}");
            Error::Unreadable(Cause::of(message, error))
        })
    }
}

/// The body of an error response.
#[derive(Deserialize)]
struct ErrorBody {
    error: String,
    code: String,
    job_id: Option<JobId>,
}

impl Transport {
    /// Sends requests to the server at this URL and keeps up to `max_idle_connections` for further requests. A user and a
    /// password in the URL become Basic authentication. The error is a clause without the URL: what is wrong and what is
    /// allowed.
    pub(crate) fn new(url: &str, max_idle_connections: usize) -> Result<Transport, String> {
        let wrong =
            |problem: &str| format!("{problem}; allowed: a URL such as {DEFAULT_SERVER}, without a query");
        let url = HttpUrl::parse(url).map_err(wrong)?;
        if url.has_query() {
            return Err(wrong("has a query"));
        }
        let base = url.as_str().trim_end_matches('/').to_owned();
        Ok(Transport {
            agent: agent(max_idle_connections, None),
            max_idle_connections,
            has_host_name: has_host_name(&base),
            base,
            authorization: url.authorization().map(str::to_owned),
            connect_timeout: CONNECT_TIMEOUT,
            silence_timeout: SILENCE_TIMEOUT,
        })
    }

    /// Trusts only these authorities, instead of those of the web.
    pub(crate) fn trusting(self, authorities: &Authorities) -> Transport {
        Transport { agent: agent(self.max_idle_connections, Some(authorities)), ..self }
    }

    /// Whether requests are sent over TLS.
    pub(crate) fn is_https(&self) -> bool {
        self.base.starts_with("https://")
    }

    /// Sends this token with every request. The error is a clause without the token: what is allowed.
    pub(crate) fn with_token(mut self, token: String) -> Result<Transport, String> {
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("must be visible ASCII characters without spaces".to_owned());
        }
        if self.authorization.is_some() {
            let problem = "cannot be sent together with the user and password of the URL: \
                           both use the header Authorization";
            return Err(problem.to_owned());
        }
        self.authorization = Some(format!("Bearer {token}"));
        Ok(self)
    }

    /// The URL of the server.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// GET of a path with its query.
    pub(crate) fn get(&self, path: &str) -> Result<Response, Error> {
        self.get_within(path, Duration::ZERO)
    }

    /// GET of a path whose response the server may delay by `wait`.
    pub(crate) fn get_within(&self, path: &str, wait: Duration) -> Result<Response, Error> {
        self.send(self.request(Method::GET, path).body(()), wait)
    }

    /// DELETE of a path with its query.
    pub(crate) fn delete(&self, path: &str) -> Result<Response, Error> {
        self.send(self.request(Method::DELETE, path).body(()), Duration::ZERO)
    }

    /// POST without a body.
    pub(crate) fn post(&self, path: &str) -> Result<Response, Error> {
        self.send(self.request(Method::POST, path).body(()), Duration::ZERO)
    }

    /// POST of JSON, with an Idempotency-Key if there is one.
    pub(crate) fn post_json(
        &self,
        path: &str,
        body: &impl serde::Serialize,
        idempotency_key: Option<&str>,
    ) -> Result<Response, Error> {
        let mut request = self.request(Method::POST, path);
        if let Some(key) = idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        self.send_json(request, body, Duration::ZERO)
    }

    /// POST of JSON whose response the server may delay by `wait`.
    pub(crate) fn post_json_within(
        &self,
        path: &str,
        body: &impl serde::Serialize,
        wait: Duration,
    ) -> Result<Response, Error> {
        self.send_json(self.request(Method::POST, path), body, wait)
    }

    /// PATCH of JSON.
    pub(crate) fn patch_json(&self, path: &str, body: &impl serde::Serialize) -> Result<Response, Error> {
        self.send_json(self.request(Method::PATCH, path), body, Duration::ZERO)
    }

    fn send_json(
        &self,
        request: request::Builder,
        body: &impl serde::Serialize,
        wait: Duration,
    ) -> Result<Response, Error> {
        let json = json_text(body)?;
        self.send(request.header(header::CONTENT_TYPE, "application/json").body(json), wait)
    }

    /// PUT of JSON.
    pub(crate) fn put_json(&self, path: &str, body: &impl serde::Serialize) -> Result<Response, Error> {
        self.send_json(self.request(Method::PUT, path), body, Duration::ZERO)
    }

    fn request(&self, method: Method, path: &str) -> request::Builder {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        match &self.authorization {
            Some(authorization) => request.header(header::AUTHORIZATION, authorization),
            None => request,
        }
    }

    fn send<B: AsSendBody>(
        &self,
        request: Result<Request<B>, ureq::http::Error>,
        wait: Duration,
    ) -> Result<Response, Error> {
        let request = request.map_err(|error| {
            Error::Invalid(Cause::of(format!("a request to {} is not valid: {error}", self.base), error))
        })?;
        let request = self
            .agent
            .configure_request(request)
            .timeout_resolve(self.has_host_name.then_some(self.connect_timeout))
            .timeout_connect(Some(self.connect_timeout))
            .timeout_per_write(Some(self.silence_timeout))
            .timeout_per_read(Some(self.silence_timeout + wait))
            .timeout_send_body(Some(BODY_TIMEOUT))
            .timeout_recv_response(Some(self.silence_timeout + wait))
            .timeout_recv_body(Some(BODY_TIMEOUT))
            .build();
        let mut response = self.agent.run(request).map_err(|error| self.no_response(error))?;
        let body = response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).read_to_string();
        let body = body.map_err(|error| self.no_response(error))?;
        self.accept(response.status().as_u16(), response.headers(), body)
    }

    /// The response if its status is 200 to 299, else the error in its body.
    fn accept(&self, status: u16, headers: &HeaderMap, body: String) -> Result<Response, Error> {
        if (200..300).contains(&status) {
            return Ok(Response { status, body, unserved: Unserved::read(headers) });
        }
        let (message, code, job_id) = match serde_json::from_str(&body) {
            Ok(ErrorBody { error, code, job_id }) => (error, code, job_id),
            Err(_) => {
                (format!("{} answered {status}, but is not a threadq server", self.base), String::new(), None)
            }
        };
        let retry_after =
            headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = retry_after.map(Duration::from_secs);
        Err(Error::Refused(Refusal { status, code, message, job_id, retry_after }))
    }

    fn no_response(&self, error: ureq::Error) -> Error {
        let (base, reason) = (&self.base, reason(&error));
        if is_about_connecting(&error) {
            Error::Unreachable(Cause::of(format!("no server at {base}: {reason}"), error))
        } else {
            Error::NoResponse(Cause::of(format!("no response from {base}: {reason}"), error))
        }
    }
}

fn has_host_name(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    host.trim_matches(['[', ']']).parse::<IpAddr>().is_err()
}

fn agent(max_idle_connections: usize, authorities: Option<&Authorities>) -> Agent {
    let config = Agent::config_builder()
        // A proxy of the environment would see jobs and tokens.
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .max_idle_connections(max_idle_connections)
        .max_idle_connections_per_host(max_idle_connections)
        .max_idle_age(MAX_IDLE_TIME)
        .user_agent(concat!("threadq/", env!("CARGO_PKG_VERSION")));
    #[cfg(feature = "tls")]
    let config = config.tls_config(Authorities::for_http(authorities));
    #[cfg(not(feature = "tls"))]
    let _ = authorities;
    let config = config.build();
    let connector = ().chain(TcpConnector::default()).chain(EarlyResponseConnector);
    #[cfg(feature = "tls")]
    let connector = connector.chain(ureq::unversioned::transport::RustlsConnector::default());
    Agent::with_parts(config, connector, DefaultResolver::default())
}

/// Whether no connection was made, so that no request was sent.
fn is_about_connecting(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        ureq::Error::Timeout(timeout) => matches!(timeout, Timeout::Connect | Timeout::Resolve),
        // Every other kind comes from the lookup of the host or from connecting.
        ureq::Error::Io(error) => !matches!(
            error.kind(),
            ErrorKind::BrokenPipe
                | ErrorKind::ConnectionAborted
                | ErrorKind::ConnectionReset
                | ErrorKind::InvalidData
                | ErrorKind::TimedOut
                | ErrorKind::UnexpectedEof
                | ErrorKind::WouldBlock
        ),
        _ => false,
    }
}

fn json_text(body: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(body)
        .map_err(|error| Error::Invalid(Cause::of(format!("the request has no JSON form: {error}"), error)))
}

/// The error without the prefixes of the library.
fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Timeout(_) => "timed out".to_owned(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_names_are_looked_up() {
        for (url, is_name) in [
            ("http://localhost:8080", true),
            ("https://jobs.example/api", true),
            ("http://127.0.0.1:8080", false),
            ("http://[::1]:8080/api", false),
        ] {
            assert_eq!(Transport::new(url, 0).unwrap().has_host_name, is_name, "{url}");
        }
    }
}
