//! Handlers that post each attempt to an HTTP service: `http = "http://127.0.0.1:9000/notify"` in the configuration.
//!
//! The body of the POST is the job as JSON. The status of the response decides the outcome, and its body is the result.
//! Redirects, proxies and cookies are not used: the operator named the one service that receives the jobs.

use std::fmt;
use std::io::Read;
use std::time::{Duration, Instant, SystemTime};

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};
use ureq::config::AutoHeaderValue;
use ureq::http::header::{AUTHORIZATION, DATE, RETRY_AFTER};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use ureq::{Agent, Body};

use super::cancellable;
use super::error::HandlerError;
use super::results::{READ_LIMIT, message_with_start, result_from_output};
use super::{Handler, JobContext};
use crate::job::{Failure, Outcome};
use crate::net::authorities::Authorities;
use crate::net::http_url::HttpUrl;

/// The limit for resolving the host name, and again for connecting. A stop signal cannot interrupt either.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Shorter than the keep-alive of common servers (gunicorn 2 s, Node 5 s). A connection that the server closes during a POST
/// costs an attempt, because the client cannot know whether the job arrived.
const MAX_IDLE: Duration = Duration::from_secs(1);
/// More than workers usually post at a time. Beyond it each POST opens a new connection.
const MAX_IDLE_CONNECTIONS: usize = 64;
/// A quarter of ureq's default: most jobs are small, and each idle connection keeps two buffers.
const BUFFER: usize = 32 * 1024;
const MAX_RESPONSE_HEADER: usize = 16 * 1024;
/// The longest `Retry-After` that is honoured.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);
const USER_AGENT: &str = concat!("threadq/", env!("CARGO_PKG_VERSION"));

/// Posts each attempt to a URL.
///
/// Any 2xx completes the job with the body as its result. 408, 425, 429, 5xx and a broken connection are retryable
/// failures, and a `Retry-After` is the shortest backoff. Any other status is a permanent failure.
pub struct HttpHandler {
    url: HttpUrl,
    uri: Uri,
    agent: Agent,
}

/// Leaves out the URL, which may hold a secret.
impl fmt::Debug for HttpHandler {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("HttpHandler").finish_non_exhaustive()
    }
}

impl HttpHandler {
    /// A handler that posts jobs to this URL: `http://`, or `https://` with the feature `tls`.
    ///
    /// A user and a password in the URL become Basic authentication; they are percent-encoded there.
    ///
    /// # Errors
    /// [`HandlerError::Url`], which names the part that is wrong.
    pub fn new(url: &str) -> Result<HttpHandler, HandlerError> {
        HttpHandler::trusting(url, None)
    }

    /// As [`HttpHandler::new`], for an `https://` server whose certificate is issued by one of these authorities. `None`: by
    /// one of the public authorities that browsers trust.
    ///
    /// # Errors
    /// As [`HttpHandler::new`].
    pub fn trusting(url: &str, authorities: Option<&Authorities>) -> Result<HttpHandler, HandlerError> {
        let invalid = |problem: String| HandlerError::Url { problem };
        let url = HttpUrl::parse(url).map_err(|problem| invalid(problem.to_owned()))?;
        let uri = url.as_str().parse().map_err(|error| invalid(format!("is not a valid URL: {error}")))?;
        Ok(HttpHandler { url, uri, agent: agent(authorities) })
    }

    /// Sends the job and reads the head of the response.
    fn post(&self, job: &JobContext) -> Result<ureq::http::Response<Body>, Failure> {
        let json = serde_json::to_string(job.job())?;
        let mut request = self.agent.post(&self.uri);
        if let Some(authorization) = self.url.authorization() {
            request = request.header(AUTHORIZATION, authorization);
        }
        for (name, value) in &job.job().meta {
            // A header can have any bytes but control characters, which meta has not.
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                request = request.header(format!("Threadq-Meta-{name}"), value);
            }
        }
        if let Some(token) = job.attempt_token() {
            request = request.header("Threadq-Attempt-Token", token);
        }
        request
            .header("Content-Type", "application/json")
            .header("Threadq-Job-Id", job.job().id.to_string())
            .header("Threadq-Attempt", job.attempt().to_string())
            .config()
            .timeout_global(Some(job.deadline().saturating_duration_since(Instant::now())))
            .build()
            .send(json)
            .map_err(|error| self.no_response(&error))
    }

    fn no_response(&self, error: &ureq::Error) -> Failure {
        // The path and the query may hold secrets.
        let place = self.url.place();
        Failure::retryable(match error {
            ureq::Error::Timeout(ureq::Timeout::Global) => "timed out".to_owned(),
            _ => message_with_start(&format!("no response from {place}"), error.to_string().as_bytes()),
        })
    }
}

impl Handler for HttpHandler {
    /// Blocks until the response has arrived, at most until the deadline of the attempt or its stop signal.
    fn handle(&self, job: &JobContext) -> Outcome {
        let outcome = cancellable::scope(&job.stop, || {
            let response = self.post(job)?;
            let (head, mut body) = response.into_parts();
            let mut bytes = Vec::new();
            let read = body.as_reader().take(READ_LIMIT as u64).read_to_end(&mut bytes);
            if !head.status.is_success() {
                // The status counts even if the body breaks off.
                return Err(refusal(head.status, &head.headers, &bytes));
            }
            read.map_err(|error| self.no_response(&ureq::Error::from(error)))?;
            Ok(result_from_output(&bytes)?)
        });
        match (outcome, job.stop_reason()) {
            (Err(_), Some(reason)) => Err(Failure::retryable(reason.to_string())),
            (outcome, _) => outcome,
        }
    }
}

fn agent(authorities: Option<&Authorities>) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(USER_AGENT)
        .accept_encoding(AutoHeaderValue::None)
        .timeout_resolve(Some(CONNECT_TIMEOUT))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .max_idle_age(MAX_IDLE)
        .max_idle_connections(MAX_IDLE_CONNECTIONS)
        .max_idle_connections_per_host(MAX_IDLE_CONNECTIONS)
        .input_buffer_size(BUFFER)
        .output_buffer_size(BUFFER)
        .max_response_header_size(MAX_RESPONSE_HEADER);
    #[cfg(feature = "tls")]
    let config = config.tls_config(Authorities::for_http(authorities));
    #[cfg(not(feature = "tls"))]
    let _ = authorities;
    cancellable::agent(config.build())
}

/// The failure for a response other than 2xx.
fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
    let message = message_with_start(&format!("answered {status}"), body);
    match status.as_u16() {
        408 | 425 | 429 | 500..=599 => Failure::Retryable { message, retry_after: retry_after(headers) },
        _ => Failure::permanent(message),
    }
}

/// The value of `Retry-After`: seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = header(headers, &RETRY_AFTER)?;
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number of more than 64 bits is cut to the longest wait, too.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        // Measured from the date of the response if it has one: the clocks of the two machines may differ.
        let now = header(headers, &DATE).and_then(http_date);
        let now = now.unwrap_or_else(|| OffsetDateTime::from(SystemTime::now()));
        (http_date(text)? - now).try_into().unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    Some(headers.get(name)?.to_str().ok()?.trim())
}

/// Reads a date such as `Sun, 06 Nov 1994 08:49:37 GMT`, the only form that servers may send (RFC 9110).
fn http_date(text: &str) -> Option<OffsetDateTime> {
    const FORMAT: &[BorrowedFormatItem] = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    PrimitiveDateTime::parse(text, FORMAT).ok().map(PrimitiveDateTime::assume_utc)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, mpsc};
    use std::thread::{self, JoinHandle};

    use super::*;
    use crate::handler::testing::{Recorded, context, job};
    use crate::handler::{StopReason, StopSignal};
    use crate::job::{Job, MAX_RESULT_BYTES};
    use crate::wait::{LIMIT, eventually};

    /// Answers one request per connection, one connection after another, and gives the requests.
    fn serve(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/jobs", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                requests.push(read_request(&stream));
                // The client may have read enough and gone.
                let _ = stream.write_all(answer.as_bytes());
            }
            requests
        });
        (url, server)
    }

    fn read_request(stream: &TcpStream) -> String {
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
        }
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap()];
        reader.read_exact(&mut body).unwrap();
        head + &String::from_utf8(body).unwrap()
    }

    fn answer(status: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}")
    }

    fn outcome_of(answer: String) -> Outcome {
        let (url, server) = serve(vec![answer]);
        let outcome = HttpHandler::new(&url).unwrap().handle(&context("{}"));
        server.join().unwrap();
        outcome
    }

    fn retry_after_of(status: &str, headers: &str) -> Option<Duration> {
        match outcome_of(answer(status, headers, "")) {
            Err(Failure::Retryable { retry_after, .. }) => retry_after,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_job_is_posted_as_json() {
        let (url, server) = serve(vec![answer("200 OK", "", "")]);
        let sent = Job { attempts: 2, ..job(r#"{"n": 1.00000000000000000000000001}"#) };
        let context = JobContext::new(sent.clone(), StopSignal::default());
        HttpHandler::new(&url).unwrap().handle(&context).unwrap();

        let request = server.join().unwrap().remove(0);
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, serde_json::to_string(&sent).unwrap());
        assert!(head.starts_with("POST /jobs HTTP/1.1\r\n"), "{head}");
        let head = head.to_lowercase();
        for header in [
            "content-type: application/json",
            "threadq-job-id: 1764000000000123",
            "threadq-attempt: 3",
            concat!("user-agent: threadq/", env!("CARGO_PKG_VERSION")),
        ] {
            assert!(head.lines().any(|line| line == header), "{header} is not in {head}");
        }
        assert!(!head.contains("accept-encoding"), "{head}");
        assert!(!head.contains("threadq-attempt-token"), "without a server there is no token: {head}");
    }

    #[test]
    fn the_service_gets_the_token_of_the_attempt() {
        let (url, server) = serve(vec![answer("200 OK", "", "")]);
        let server_side = Arc::new(Recorded::default());
        let context = JobContext::on_server(Arc::new(job("{}")), StopSignal::default(), server_side);
        HttpHandler::new(&url).unwrap().handle(&context).unwrap();
        let request = server.join().unwrap().remove(0).to_lowercase();
        assert!(request.contains("\r\nthreadq-attempt-token: token\r\n"), "{request}");
    }

    #[test]
    fn the_body_of_a_2xx_is_the_result() {
        let result = |answer| outcome_of(answer).unwrap().get().to_owned();
        assert_eq!(result(answer("200 OK", "", r#"{"n": 1e999}"#)), r#"{"n": 1e999}"#);
        assert_eq!(result(answer("201 Created", "", "done\n")), "\"done\"");
        assert_eq!(result("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_owned()), "null");
        assert_eq!(
            result(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n1\r\n]\r\n0\r\n\r\n"
                    .to_owned()
            ),
            "[1]"
        );
    }

    #[test]
    fn a_long_body_is_cut_and_the_job_completes() {
        let outcome = outcome_of(answer("200 OK", "", &"x".repeat(10 << 20)));
        let cut: String = serde_json::from_str(outcome.unwrap().get()).unwrap();
        assert_eq!(cut, "x".repeat(MAX_RESULT_BYTES));
    }

    #[test]
    fn the_status_decides_whether_it_is_tried_again() {
        for status in ["408 Request Timeout", "425 Too Early", "429 Too Many Requests", "500 Oops", "599 X"] {
            let failure = outcome_of(answer(status, "", "why")).unwrap_err();
            assert!(matches!(failure, Failure::Retryable { retry_after: None, .. }), "{status}: {failure:?}");
            assert!(failure.message().starts_with(&format!("answered {}", &status[..3])), "{failure:?}");
            assert!(failure.message().ends_with(": why"), "{failure:?}");
        }
        for status in ["400 Bad Request", "401 Unauthorized", "404 Not Found", "304 Not Modified", "600 X"] {
            let failure = outcome_of(answer(status, "Retry-After: 5\r\n", "")).unwrap_err();
            assert!(matches!(failure, Failure::Permanent { .. }), "{status}: {failure:?}");
        }
    }

    #[test]
    fn a_message_is_cut_at_1000_characters() {
        let failure = outcome_of(answer("500 Oops", "", &"é".repeat(100_000))).unwrap_err();
        assert_eq!(failure.message().chars().count(), 1000);
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_as_a_date() {
        let status = "429 Too Many Requests";
        let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        let wait = |headers: &str| retry_after_of(status, headers).map(|wait| wait.as_secs());
        assert_eq!(wait("Retry-After: 120\r\n"), Some(120));
        assert_eq!(wait(&format!("{date}Retry-After: Sun, 06 Nov 1994 08:51:07 GMT\r\n")), Some(90));
        assert_eq!(wait("Retry-After: Sun, 06 Nov 1994 08:51:07 GMT\r\n"), Some(0));
        assert_eq!(wait("Retry-After: 99999999999999999999999\r\n"), Some(24 * 3600));
        assert_eq!(wait("Retry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n"), Some(24 * 3600));
        assert_eq!(wait("Retry-After: soon\r\n"), None);
        assert_eq!(wait("Retry-After: -1\r\n"), None);
        assert_eq!(
            retry_after_of("503 Service Unavailable", "Retry-After: 7\r\n"),
            Some(Duration::from_secs(7))
        );
    }

    #[test]
    fn a_redirect_is_not_followed() {
        for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
            // One connection is all that the server takes.
            let failure = outcome_of(answer(status, "Location: /elsewhere\r\n", "")).unwrap_err();
            assert!(matches!(failure, Failure::Permanent { .. }), "{failure:?}");
            assert!(failure.message().starts_with(&format!("answered {}", &status[..3])), "{failure:?}");
        }
    }

    #[test]
    fn a_refused_connection_is_tried_again() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let handler = HttpHandler::new(&format!("http://{closed}/?token=secret")).unwrap();
        let Err(Failure::Retryable { message, .. }) = handler.handle(&context("{}")) else {
            panic!("it should fail and be tried again");
        };
        assert!(message.starts_with(&format!("no response from {closed}: ")), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }

    #[test]
    fn a_broken_answer_is_tried_again() {
        for broken in
            ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "nonsense\r\n\r\n"]
        {
            let failure = outcome_of(broken.to_owned()).unwrap_err();
            assert!(matches!(failure, Failure::Retryable { .. }), "{broken:?}: {failure:?}");
        }
    }

    /// Takes connections and never says a word.
    fn silent_server() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        (listener, url)
    }

    #[test]
    fn a_slow_server_is_waited_for_until_the_deadline() {
        let (_listener, url) = silent_server();
        let context = JobContext::new(Job { timeout_ms: 400, ..job("{}") }, StopSignal::default());
        let start = Instant::now();
        let failure = HttpHandler::new(&url).unwrap().handle(&context).unwrap_err();
        assert_eq!(failure, Failure::retryable("timed out"));
        assert!(start.elapsed() >= Duration::from_millis(350), "{:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }

    #[test]
    fn waiting_for_an_answer_ends_when_told_to_stop() {
        let (listener, url) = silent_server();
        let stop = StopSignal::default();
        let context = JobContext::new(job("{}"), stop.clone());
        let handler = HttpHandler::new(&url).unwrap();
        let start = Instant::now();
        thread::scope(|scope| {
            let run = scope.spawn(|| handler.handle(&context));
            let (stream, _) = listener.accept().unwrap();
            read_request(&stream);
            stop.stop(StopReason::Cancelled);
            assert_eq!(run.join().unwrap().unwrap_err(), Failure::retryable("cancelled"));
        });
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }

    #[test]
    fn a_connection_is_used_again_and_a_closed_one_costs_no_attempt() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let handler = HttpHandler::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let (closed, is_closed) = mpsc::channel();
        let server = thread::spawn(move || {
            let keep_alive = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1";
            let (mut first, _) = listener.accept().unwrap();
            for _ in 0..2 {
                read_request(&first);
                first.write_all(keep_alive).unwrap();
            }
            drop(first);
            closed.send(()).unwrap();
            let (mut second, _) = listener.accept().unwrap();
            read_request(&second);
            second.write_all(keep_alive).unwrap();
        });
        assert!(handler.handle(&context("{}")).is_ok());
        assert!(handler.handle(&context("{}")).is_ok());
        is_closed.recv().unwrap();
        assert!(handler.handle(&context("{}")).is_ok());
        eventually(LIMIT, "the server is done", || server.is_finished());
        server.join().unwrap();
    }

    #[cfg(feature = "tls")]
    #[test]
    fn a_server_that_speaks_no_tls_is_tried_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 5]).unwrap();
            stream.write_all(answer("200 OK", "", "").as_bytes()).unwrap();
        });
        let failure = HttpHandler::new(&url).unwrap().handle(&context("{}")).unwrap_err();
        assert!(matches!(failure, Failure::Retryable { .. }), "{failure:?}");
        server.join().unwrap();
    }

    #[test]
    fn only_http_urls_are_taken() {
        assert!(HttpHandler::new("http://127.0.0.1:9000/notify?x=1").is_ok());
        for url in ["", "ftp://example.org", "http://:80/", "http://127.0.0.1:99999/"] {
            let refused = HttpHandler::new(url).unwrap_err().to_string();
            assert!(refused.starts_with("http: the URL "), "{refused}");
        }
    }

    #[test]
    fn whatever_a_url_may_hold_reaches_the_client() {
        // The reader and the client have different ideas of what stands unescaped in a URL.
        let odd: String =
            (0x21..0x7f_u8).map(char::from).filter(|c| !matches!(c, '#' | '%' | '\\' | '?')).collect();
        for url in [format!("http://h/{odd}"), format!("http://h/x?{odd}?"), "http://h/ü?ü".to_owned()] {
            assert!(HttpHandler::new(&url).is_ok(), "{url}: {:?}", HttpHandler::new(&url));
        }
    }

    /// Reads the head and some of the body, says something, and closes with the rest of the body unread.
    fn answer_early(said: String) -> (String, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 4096]).unwrap();
            stream.write_all(said.as_bytes()).unwrap();
        });
        (url, server)
    }

    fn early_outcome(said: String) -> Outcome {
        let (url, server) = answer_early(said);
        let large = format!("\"{}\"", "x".repeat(12 << 20));
        let outcome = HttpHandler::new(&url).unwrap().handle(&context(&large));
        server.join().unwrap();
        outcome
    }

    #[test]
    fn what_a_server_says_before_it_has_read_all_decides() {
        let refused = early_outcome(answer("413 Content Too Large", "", "at most 1 MB"));
        assert_eq!(refused.unwrap_err(), Failure::permanent("answered 413 Payload Too Large: at most 1 MB"));
        let busy = early_outcome(answer("503 Service Unavailable", "Retry-After: 7\r\n", ""));
        let Err(Failure::Retryable { retry_after, .. }) = busy else { panic!("{busy:?}") };
        assert_eq!(retry_after, Some(Duration::from_secs(7)));
        assert_eq!(early_outcome(answer("200 OK", "", "enough")).unwrap().get(), "\"enough\"");
        for nothing in ["", "HTTP/1.1 413 Con"] {
            let broken = early_outcome(nothing.to_owned()).unwrap_err();
            let Failure::Retryable { message, .. } = broken else { panic!("{broken:?}") };
            assert!(message.starts_with("no response from 127.0.0.1:"), "{message}");
        }
    }

    #[test]
    fn user_and_password_are_sent_decoded() {
        let (url, server) = serve(vec![answer("200 OK", "", "")]);
        let url = url.replace("http://", "http://us%40er:p%3Aw@");
        HttpHandler::new(&url).unwrap().handle(&context("{}")).unwrap();
        let request = server.join().unwrap().remove(0);
        let sent: Vec<&str> =
            request.lines().filter(|line| line.to_lowercase().starts_with("authorization")).collect();
        assert_eq!(sent, ["authorization: Basic dXNAZXI6cDp3"], "{request}");
    }
}
