//! The client of the HTTP API: sends one request, gives the answer or why there is none.
//!
//! Knows methods, paths and errors of the API, not what any command makes of an answer.

use std::io::ErrorKind;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::{Method, Request, Uri, header, request};
use ureq::{Agent, AsSendBody, Timeout};

use super::console::Console;
use super::error::Error;

/// Where a server listens that was told nothing else.
const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";
/// How long to try to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server may be silent. Far over the 3 s in which it tells of trouble with Redis, because a
/// retry or purge of all dead letters takes its time.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// The most bytes of an answer: a page of 100 jobs, each with a payload of a few times the default limit.
const MAX_ANSWER_BYTES: u64 = 512 * 1024 * 1024;

/// Talks to one server.
#[derive(Clone)]
pub(super) struct Client {
    agent: Agent,
    /// Without a slash at its end.
    base: String,
    token: Option<String>,
}

/// A success, with its body.
#[derive(Debug)]
pub(super) struct Answer {
    /// The HTTP status, 200 to 299.
    pub status: u16,
    /// JSON, or empty.
    pub body: String,
}

impl Answer {
    /// The body as a value.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(&self.body)
            .map_err(|error| Error::Failed(format!("the answer is none of threadq's: {error}")))
    }
}

/// An error as the API tells it.
#[derive(Deserialize)]
struct ErrorBody {
    error: String,
    code: String,
}

impl Client {
    /// A client of the server that `--server` or the environment names.
    pub(super) fn new(server: Option<&str>, console: &Console) -> Result<Client, Error> {
        let base = match (server, console.env("THREADQ_SERVER")) {
            (Some(url), _) => base_url("--server", url)?,
            (None, Some(url)) => base_url("THREADQ_SERVER", &url)?,
            (None, None) => DEFAULT_SERVER.to_owned(),
        };
        let token = console.env("THREADQ_API_TOKEN").map(checked_token).transpose()?;
        Ok(Client { agent: agent(), base, token })
    }

    /// The URL of the server.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// GET of a path and query.
    pub(super) fn get(&self, path: &str) -> Result<Answer, Error> {
        self.get_within(path, Duration::ZERO)
    }

    /// GET of what the server may hold back for so long on purpose.
    pub(super) fn get_within(&self, path: &str, wait: Duration) -> Result<Answer, Error> {
        self.send(self.request(Method::GET, path).body(()), wait)
    }

    /// DELETE of a path and query.
    pub(super) fn delete(&self, path: &str) -> Result<Answer, Error> {
        self.send(self.request(Method::DELETE, path).body(()), Duration::ZERO)
    }

    /// POST without a body.
    pub(super) fn post(&self, path: &str) -> Result<Answer, Error> {
        self.send(self.request(Method::POST, path).body(()), Duration::ZERO)
    }

    /// POST of JSON, with one more header where there is one.
    pub(super) fn post_json(
        &self,
        path: &str,
        body: &impl serde::Serialize,
        extra_header: Option<(&str, &str)>,
    ) -> Result<Answer, Error> {
        let json = serde_json::to_string(body)
            .map_err(|error| Error::Failed(format!("the request cannot be written as JSON: {error}")))?;
        let mut request = self.request(Method::POST, path).header(header::CONTENT_TYPE, "application/json");
        if let Some((name, value)) = extra_header {
            request = request.header(name, value);
        }
        self.send(request.body(json), Duration::ZERO)
    }

    fn request(&self, method: Method, path: &str) -> request::Builder {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    fn send<B: AsSendBody>(
        &self,
        request: Result<Request<B>, ureq::http::Error>,
        wait: Duration,
    ) -> Result<Answer, Error> {
        let request = request.map_err(|error| Error::Failed(format!("cannot ask {}: {error}", self.base)))?;
        let silence = Some(SILENCE_TIMEOUT + wait);
        let request = self.agent.configure_request(request).timeout_per_read(silence).build();
        let mut response = self.agent.run(request).map_err(|error| self.no_answer(&error))?;
        let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string();
        let body = body.map_err(|error| self.no_answer(&error))?;
        self.judge(response.status().as_u16(), body)
    }

    /// A success as it is, anything else as the error that it tells.
    fn judge(&self, status: u16, body: String) -> Result<Answer, Error> {
        if (200..300).contains(&status) {
            return Ok(Answer { status, body });
        }
        Err(match serde_json::from_str(&body) {
            Ok(ErrorBody { error, code }) => Error::Refused { status, code, sentence: error },
            Err(_) => {
                let sentence = format!("{} answered {status}, and not as threadq does", self.base);
                Error::Refused { status, code: String::new(), sentence }
            }
        })
    }

    fn no_answer(&self, error: &ureq::Error) -> Error {
        let base = &self.base;
        if is_about_connecting(error) {
            let hint = "start one with \"threadq serve\", or name it with --server";
            Error::NoAnswer(format!("no server at {base}: {} ({hint})", reason(error)))
        } else {
            Error::NoAnswer(format!("no answer from {base}: {}", reason(error)))
        }
    }
}

fn agent() -> Agent {
    Agent::config_builder()
        // Jobs and tokens go to the server that was named, through nobody else.
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        // A kept connection that the server has closed meanwhile would fail the next request.
        .max_idle_connections(0)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_per_write(Some(SILENCE_TIMEOUT))
        .user_agent(concat!("threadq/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

fn base_url(source: &str, url: &str) -> Result<String, Error> {
    let wrong =
        || Error::Usage(format!("{source} {url:?}: must be a URL such as {DEFAULT_SERVER}, without a query"));
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    if uri.scheme_str() == Some("https") && !cfg!(feature = "tls") {
        return Err(Error::Usage(format!("{source} {url:?}: https needs a build with the feature tls")));
    }
    // `Uri` drops a fragment without a word.
    if !is_http || uri.host().is_none_or(str::is_empty) || uri.query().is_some() || url.contains('#') {
        return Err(wrong());
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// The token itself is never shown.
fn checked_token(token: String) -> Result<String, Error> {
    if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(token)
    } else {
        Err(Error::Usage("THREADQ_API_TOKEN: must be visible ASCII characters without spaces".to_owned()))
    }
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

/// A path with those parts of a query that have a value, percent-encoded.
pub(super) fn with_query(path: &str, query: &[(&str, Option<String>)]) -> String {
    let parts: Vec<String> = query
        .iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={}", percent_encode(value))))
        .collect();
    if parts.is_empty() { path.to_owned() } else { format!("{path}?{}", parts.join("&")) }
}

/// Everything but letters, digits, `-`, `.`, `_` and `~` as `%XX`.
pub(super) fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FakeServer, run, run_with_env};
    use super::*;

    #[test]
    fn anything_odd_in_a_url_is_percent_encoded() {
        assert_eq!(percent_encode("Encode Video/é?&+%"), "Encode%20Video%2F%C3%A9%3F%26%2B%25");
        let query = [("type", Some("a b".to_owned())), ("page", None), ("limit", Some("5".to_owned()))];
        assert_eq!(with_query("/jobs", &query), "/jobs?type=a%20b&limit=5");
        assert_eq!(with_query("/jobs", &[("page", None)]), "/jobs");
    }

    #[test]
    fn a_wrong_server_url_is_wrong_usage() {
        for url in
            ["127.0.0.1:8080", "ftp://host", "http://", "/path", "", "http://host/?a=1", "http://host/#a"]
        {
            let done = run(&["stats", "--server", url]);
            assert_eq!(done.code, 2, "{url:?}: {}", done.err);
            assert!(done.err.starts_with("threadq: --server "), "{}", done.err);
        }
        let done = run_with_env(&["stats"], &[("THREADQ_SERVER", "localhost")]);
        assert_eq!(done.code, 2);
        assert!(done.err.starts_with("threadq: THREADQ_SERVER \"localhost\": must be a URL"), "{}", done.err);
    }

    #[test]
    fn the_flag_beats_the_environment_and_a_path_prefix_is_kept() {
        let server = FakeServer::start(&[(200, r#"{"queues": []}"#)]);
        let url = format!("{}/threadq/", server.url);
        let env = [("THREADQ_SERVER", "http://127.0.0.1:1"), ("THREADQ_API_TOKEN", "")];
        let done = run_with_env(&["queues", "--server", &url], &env);
        assert_eq!(done.code, 0, "{}", done.err);
        let request = server.request();
        assert_eq!(request.line, "GET /threadq/queues");
        assert_eq!(request.header("authorization"), None);
    }

    #[test]
    fn the_token_is_sent_and_a_refusal_says_where_it_comes_from() {
        let answer = r#"{"error": "The token is wrong", "code": "unauthorized"}"#;
        let server = FakeServer::start(&[(401, answer)]);
        let env = [("THREADQ_SERVER", &*server.url), ("THREADQ_API_TOKEN", "s3cret")];
        let done = run_with_env(&["stats"], &env);
        assert_eq!(done.code, 1);
        let expected =
            "threadq: The token is wrong (unauthorized); the token is taken from THREADQ_API_TOKEN\n";
        assert_eq!(done.err, expected);
        assert_eq!(server.request().header("authorization"), Some("Bearer s3cret"));
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_wrong_usage_and_stays_secret() {
        let done = run_with_env(&["stats"], &[("THREADQ_API_TOKEN", "s3cret\r\nX: y")]);
        assert_eq!(done.code, 2);
        assert!(done.err.contains("THREADQ_API_TOKEN") && !done.err.contains("s3cret"), "{}", done.err);
    }

    #[test]
    fn no_server_says_how_to_get_one() {
        let url = FakeServer::url_of_nobody();
        let done = run(&["stats", "--server", &url]);
        assert_eq!(done.code, 1);
        assert!(done.err.starts_with(&format!("threadq: no server at {url}: ")), "{}", done.err);
        let hint = "(start one with \"threadq serve\", or name it with --server)\n";
        assert!(done.err.ends_with(hint), "{}", done.err);
    }

    #[test]
    fn a_server_that_hangs_up_gave_no_answer() {
        let server = FakeServer::start(&[(0, "")]);
        let done = server.run(&["stats"]);
        assert_eq!(done.code, 1);
        assert!(done.err.starts_with(&format!("threadq: no answer from {}: ", server.url)), "{}", done.err);
    }

    #[test]
    fn a_proxy_error_page_is_told_by_its_status() {
        let server = FakeServer::start(&[(502, "<h1>Bad gateway</h1>"), (301, ""), (200, "<h1>Hello</h1>")]);
        let gateway = server.run(&["stats"]);
        assert_eq!(gateway.code, 1);
        assert_eq!(gateway.err, format!("threadq: {} answered 502, and not as threadq does\n", server.url));
        let redirect = server.run(&["stats"]);
        assert!(redirect.err.contains("answered 301"), "{}", redirect.err);
        let page = server.run(&["stats", "--json"]);
        assert_eq!((page.code, page.out.as_str()), (1, ""));
        assert!(page.err.contains("the answer is none of threadq's"), "{}", page.err);
    }

    #[test]
    fn what_a_server_says_cannot_steer_the_terminal() {
        let server = FakeServer::start(&[(400, r#"{"error": "\u001b[2J\nok", "code": "x\u0007"}"#)]);
        let done = server.run(&["stats"]);
        assert_eq!(done.err, "threadq: \\u{1b}[2J\\nok (x\\u{7})\n");
    }
}
