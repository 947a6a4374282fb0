//! Handlers that are HTTP services: `http = "http://127.0.0.1:9000/notify"` in the configuration.
//!
//! The job goes there as JSON in a POST, the answer's status says how it went, its body is the result. Redirects,
//! proxies and cookies play no part: the operator named the one place where jobs go.

use std::io::Read;
use std::time::{Duration, Instant, SystemTime};

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};
use ureq::config::AutoHeaderValue;
use ureq::http::header::{DATE, RETRY_AFTER};
use ureq::http::{HeaderMap, HeaderName, StatusCode, Uri};
use ureq::{Agent, Body};

use super::output::{READ_LIMIT, message_with_start, result_from_output};
use super::stoppable;
use super::{Handler, JobContext};
use crate::job::{Failure, Outcome};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Shorter than any common server keeps an idle connection (gunicorn 2 s, Node 5 s): one that is closed under a POST
/// costs an attempt, because nobody can say whether the job got there.
const MAX_IDLE: Duration = Duration::from_secs(1);
/// More than workers usually post at a time; what exceeds it is a new connection each time, no failure.
const MAX_IDLE_CONNECTIONS: usize = 64;
/// A quarter of the default: most jobs are small, and every kept connection has two of these.
const BUFFER: usize = 32 * 1024;
const MAX_RESPONSE_HEADER: usize = 16 * 1024;
/// No server gets to park a job for longer.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);
const USER_AGENT: &str = concat!("threadq/", env!("CARGO_PKG_VERSION"));

/// Posts every attempt to a URL.
#[derive(Debug)]
pub struct HttpHandler {
    url: Uri,
    agent: Agent,
}

impl HttpHandler {
    /// A handler that posts jobs to this URL: `http://`, or `https://` with the feature `tls`.
    ///
    /// # Errors
    /// A sentence: this is no such URL.
    pub fn new(url: &str) -> Result<HttpHandler, String> {
        Ok(HttpHandler { url: parse_url(url)?, agent: agent() })
    }

    /// Sends the job and reads the head of the answer.
    fn post(&self, job: &JobContext) -> Result<ureq::http::Response<Body>, Failure> {
        let json = serde_json::to_string(job.job())?;
        self.agent
            .post(&self.url)
            .header("Content-Type", "application/json")
            .header("Threadq-Job-Id", job.job().id.to_string())
            .header("Threadq-Attempt", job.attempt().to_string())
            .config()
            .timeout_global(Some(job.deadline().saturating_duration_since(Instant::now())))
            .build()
            .send(json)
            .map_err(|error| self.no_answer(&error))
    }

    fn no_answer(&self, error: &ureq::Error) -> Failure {
        // The path and the query may hold secrets.
        let host = self.url.host().unwrap_or_default();
        let port = self.url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Failure::retryable(match error {
            ureq::Error::Timeout(ureq::Timeout::Global) => "timed out".to_owned(),
            _ => message_with_start(&format!("no answer from {host}{port}"), error.to_string().as_bytes()),
        })
    }
}

impl Handler for HttpHandler {
    /// Blocks until the answer is there, at most until the attempt's deadline, or until it is told to stop.
    fn handle(&self, job: &JobContext) -> Outcome {
        let outcome = stoppable::scope(&job.stop, || {
            let response = self.post(job)?;
            let (head, mut body) = response.into_parts();
            let mut bytes = Vec::new();
            let read = body.as_reader().take(READ_LIMIT as u64).read_to_end(&mut bytes);
            if !head.status.is_success() {
                // A body that breaks off takes nothing from what the status says.
                return Err(refusal(head.status, &head.headers, &bytes));
            }
            read.map_err(|error| self.no_answer(&ureq::Error::from(error)))?;
            Ok(result_from_output(&bytes)?)
        });
        match (outcome, job.stop_reason()) {
            (Err(_), Some(reason)) => Err(Failure::retryable(reason.to_string())),
            (outcome, _) => outcome,
        }
    }
}

fn parse_url(url: &str) -> Result<Uri, String> {
    let no_url = |why: &str| format!("\"{url}\" is no URL for an http handler: {why}");
    let uri: Uri = url.parse().map_err(|error| no_url(&format!("{error}")))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") if cfg!(feature = "tls") => {}
        Some("https") => return Err(no_url("this program was built without the feature tls")),
        _ => return Err(no_url("it has to start with http:// or https://")),
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(no_url("it names no host"));
    }
    Ok(uri)
}

fn agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(USER_AGENT)
        .accept_encoding(AutoHeaderValue::None)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .max_idle_age(MAX_IDLE)
        .max_idle_connections(MAX_IDLE_CONNECTIONS)
        .max_idle_connections_per_host(MAX_IDLE_CONNECTIONS)
        .input_buffer_size(BUFFER)
        .output_buffer_size(BUFFER)
        .max_response_header_size(MAX_RESPONSE_HEADER)
        .build();
    stoppable::agent(config)
}

/// The failure that an answer other than 2xx stands for.
fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
    let message = message_with_start(&format!("answered {status}"), body);
    match status.as_u16() {
        408 | 425 | 429 | 500..=599 => Failure::Retryable { message, retry_after: retry_after(headers) },
        _ => Failure::permanent(message),
    }
}

/// How long the server asked to be left alone, in seconds or until a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = header(headers, &RETRY_AFTER)?;
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Too many digits for a number are a long time, too.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        // By the server's own clock where it tells it: ours may be wrong.
        let now = header(headers, &DATE).and_then(http_date);
        let now = now.unwrap_or_else(|| OffsetDateTime::from(SystemTime::now()));
        (http_date(text)? - now).try_into().unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    Some(headers.get(name)?.to_str().ok()?.trim())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the one form of a date that servers may still send.
fn http_date(text: &str) -> Option<OffsetDateTime> {
    const FORMAT: &[BorrowedFormatItem] = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    PrimitiveDateTime::parse(text, FORMAT).ok().map(PrimitiveDateTime::assume_utc)
}
