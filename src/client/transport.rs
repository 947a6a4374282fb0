//! Sends one request to the HTTP API, and gives the answer or why there is none.
//!
//! Knows methods, headers and errors of the API, not what anybody makes of an answer. The command line asks through it
//! too.

use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::{HeaderMap, Method, Request, header, request};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};
use ureq::{Agent, AsSendBody, Timeout};

use super::error::{Error, Refusal};
use crate::job::JobId;
use crate::net::authorities::Authorities;
use crate::net::early_answer::EarlyAnswerConnector;
use crate::net::http_url::HttpUrl;

/// Where a server listens that was told nothing else.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";
/// How long to try to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server may be silent. Far over the 3 s in which it tells of trouble with Redis, because a
/// retry or purge of all dead letters takes its time.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection is kept for the next request.
const KEPT_TIME: Duration = Duration::from_secs(15);
/// The most bytes of an answer: a page of 100 jobs, each with a payload of a few times the default limit.
const MAX_ANSWER_BYTES: u64 = 512 * 1024 * 1024;

/// The way to one server.
#[derive(Clone)]
pub(crate) struct Transport {
    agent: Agent,
    kept_connections: usize,
    /// Without user and password, and without a slash at its end.
    base: String,
    /// The value of the header `Authorization`.
    authorization: Option<String>,
    /// How long to try to connect.
    pub connect_timeout: Duration,
    /// How long the server may be silent.
    pub silence_timeout: Duration,
}

/// The token is a secret.
impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Transport").field("base", &self.base).finish_non_exhaustive()
    }
}

/// A success, with its body.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status, 200 to 299.
    pub status: u16,
    /// JSON, or empty.
    pub body: String,
    /// What of the submitted jobs the server that took them does not serve itself; see [`Unserved`].
    pub unserved: Unserved,
}

/// What of submitted jobs the server that answered does not serve itself, by the header `Threadq-Unserved`. Other servers
/// may.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Unserved {
    /// It has no handler for a type.
    pub job_type: bool,
    /// It does not take from a queue.
    pub queue: bool,
}

impl Unserved {
    fn read(headers: &HeaderMap) -> Unserved {
        let header =
            headers.get("Threadq-Unserved").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let has = |wanted: &str| header.split(',').any(|word| word.trim() == wanted);
        Unserved { job_type: has("type"), queue: has("queue") }
    }

    /// What is not served of these jobs or of those.
    pub(crate) fn or(self, other: Unserved) -> Unserved {
        Unserved { job_type: self.job_type || other.job_type, queue: self.queue || other.queue }
    }
}

impl Answer {
    /// The body as a value.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(&self.body)
            .map_err(|error| Error::Unreadable(format!("the answer is none of threadq's: {error}")))
    }
}

/// An error as the API tells it.
#[derive(Deserialize)]
struct ErrorBody {
    error: String,
    code: String,
    job_id: Option<JobId>,
}

impl Transport {
    /// The way to the server at this URL, which keeps up to so many connections for the next request. A user and a
    /// password in the URL become Basic authentication. The error is a clause that says what is wrong and what is allowed,
    /// without the URL.
    pub(crate) fn new(url: &str, kept_connections: usize) -> Result<Transport, String> {
        let wrong =
            |problem: &str| format!("{problem}; allowed: a URL such as {DEFAULT_SERVER}, without a query");
        let url = HttpUrl::parse(url).map_err(wrong)?;
        if url.has_query() {
            return Err(wrong("has a query"));
        }
        Ok(Transport {
            agent: agent(kept_connections, None),
            kept_connections,
            base: url.as_str().trim_end_matches('/').to_owned(),
            authorization: url.authorization().map(str::to_owned),
            connect_timeout: CONNECT_TIMEOUT,
            silence_timeout: SILENCE_TIMEOUT,
        })
    }

    /// Trusts these authorities, in place of those that the web trusts.
    pub(crate) fn trusting(self, authorities: &Authorities) -> Transport {
        Transport { agent: agent(self.kept_connections, Some(authorities)), ..self }
    }

    /// Whether it goes by TLS.
    pub(crate) fn is_https(&self) -> bool {
        self.base.starts_with("https://")
    }

    /// Shows this token to the server. The error is a clause that says what is allowed, without the token.
    pub(crate) fn with_token(mut self, token: String) -> Result<Transport, String> {
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("must be visible ASCII characters without spaces".to_owned());
        }
        if self.authorization.is_some() {
            let problem =
                "cannot be sent beside the user and password of the URL: both are the header Authorization";
            return Err(problem.to_owned());
        }
        self.authorization = Some(format!("Bearer {token}"));
        Ok(self)
    }

    /// The URL of the server.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// GET of a path and query.
    pub(crate) fn get(&self, path: &str) -> Result<Answer, Error> {
        self.get_within(path, Duration::ZERO)
    }

    /// GET of what the server may hold back for so long on purpose.
    pub(crate) fn get_within(&self, path: &str, wait: Duration) -> Result<Answer, Error> {
        self.send(self.request(Method::GET, path).body(()), wait)
    }

    /// DELETE of a path and query.
    pub(crate) fn delete(&self, path: &str) -> Result<Answer, Error> {
        self.send(self.request(Method::DELETE, path).body(()), Duration::ZERO)
    }

    /// POST without a body.
    pub(crate) fn post(&self, path: &str) -> Result<Answer, Error> {
        self.send(self.request(Method::POST, path).body(()), Duration::ZERO)
    }

    /// POST of JSON, with an Idempotency-Key where there is one.
    pub(crate) fn post_json(
        &self,
        path: &str,
        body: &impl serde::Serialize,
        idempotency_key: Option<&str>,
    ) -> Result<Answer, Error> {
        let json = serde_json::to_string(body)
            .map_err(|error| Error::Invalid(format!("the request cannot be written as JSON: {error}")))?;
        let mut request = self.request(Method::POST, path).header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        self.send(request.body(json), Duration::ZERO)
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
    ) -> Result<Answer, Error> {
        let request =
            request.map_err(|error| Error::Invalid(format!("cannot ask {}: {error}", self.base)))?;
        let request = self
            .agent
            .configure_request(request)
            .timeout_connect(Some(self.connect_timeout))
            .timeout_per_write(Some(self.silence_timeout))
            .timeout_per_read(Some(self.silence_timeout + wait))
            .build();
        let mut response = self.agent.run(request).map_err(|error| self.no_answer(&error))?;
        let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string();
        let body = body.map_err(|error| self.no_answer(&error))?;
        self.judge(response.status().as_u16(), response.headers(), body)
    }

    /// A success as it is, anything else as the error that it tells.
    fn judge(&self, status: u16, headers: &HeaderMap, body: String) -> Result<Answer, Error> {
        if (200..300).contains(&status) {
            return Ok(Answer { status, body, unserved: Unserved::read(headers) });
        }
        let (message, code, job_id) = match serde_json::from_str(&body) {
            Ok(ErrorBody { error, code, job_id }) => (error, code, job_id),
            Err(_) => {
                (format!("{} answered {status}, and not as threadq does", self.base), String::new(), None)
            }
        };
        let retry_after =
            headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = retry_after.map(Duration::from_secs);
        Err(Error::Refused(Refusal { status, code, message, job_id, retry_after }))
    }

    fn no_answer(&self, error: &ureq::Error) -> Error {
        let base = &self.base;
        if is_about_connecting(error) {
            Error::Unreachable(format!("no server at {base}: {}", reason(error)))
        } else {
            Error::NoAnswer(format!("no answer from {base}: {}", reason(error)))
        }
    }
}

fn agent(kept_connections: usize, authorities: Option<&Authorities>) -> Agent {
    let config = Agent::config_builder()
        // Jobs and tokens go to the server that was named, through nobody else.
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .max_idle_connections(kept_connections)
        .max_idle_connections_per_host(kept_connections)
        // Far below the minute after which a server closes one.
        .max_idle_age(KEPT_TIME)
        .user_agent(concat!("threadq/", env!("CARGO_PKG_VERSION")));
    #[cfg(feature = "tls")]
    let config = config.tls_config(Authorities::for_http(authorities));
    #[cfg(not(feature = "tls"))]
    let _ = authorities;
    let config = config.build();
    let connector = ().chain(TcpConnector::default()).chain(EarlyAnswerConnector);
    #[cfg(feature = "tls")]
    let connector = connector.chain(ureq::unversioned::transport::RustlsConnector::default());
    Agent::with_parts(config, connector, DefaultResolver::default())
}

/// Whether nothing was reached at all, rather than something that then fell silent.
fn is_about_connecting(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        ureq::Error::Timeout(timeout) => matches!(timeout, Timeout::Connect | Timeout::Resolve),
        // All but these come from looking up the host, which has no kind of its own, or from connecting.
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

/// The error without the library's prefixes.
fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Timeout(_) => "it takes too long".to_owned(),
        error => error.to_string(),
    }
}
