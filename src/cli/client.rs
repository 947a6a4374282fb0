//! The client of a command: its server and token from flags and environment, and the paths of its requests.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::error::Error;
use crate::cli::terminal::console::Console;
use crate::net::authorities::{self, Authorities};
// The layer below the typed client: a command prints the JSON of the response unchanged.
use crate::client::{self, DEFAULT_SERVER, with_retries};
pub(super) use crate::client::{Response, Transport as Client, Unserved};
use crate::config::token_in_file;
use crate::net::http_url::redacted;
use crate::net::percent::encode_segment;

/// The shortest time between two requests of a command that retries or polls.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long a command waits for a server that is unavailable: enough for a restart, or a failover of Redis.
pub(super) const OUTAGE_LIMIT: Duration = Duration::from_secs(60);

/// A client of the server that `--server` or the environment names, with the API token of the environment.
pub(super) fn connect(
    server: Option<&str>,
    ca_file: Option<&str>,
    console: &Console,
) -> Result<Client, Error> {
    let client = connect_without_token(server, default_server(), ca_file, console)?;
    let wrong = |name: &str, why: &str| Error::Usage(format!("{name}: {why}"));
    let (name, token) = match (console.env("THREADQ_API_TOKEN"), console.env("THREADQ_API_TOKEN_FILE")) {
        // As `serve` does: the order of precedence would not be obvious.
        (Some(_), Some(_)) => {
            return Err(wrong("THREADQ_API_TOKEN_FILE", "not allowed with THREADQ_API_TOKEN"));
        }
        (Some(token), None) => ("THREADQ_API_TOKEN", token),
        (None, Some(file)) => {
            let name = "THREADQ_API_TOKEN_FILE";
            let token =
                token_in_file(&file).map_err(|why| wrong(name, &format!("the file {file:?} {why}")))?;
            (name, token.expose().to_owned())
        }
        (None, None) => return Ok(client),
    };
    client.with_token(token).map_err(|allowed| wrong(name, &allowed.to_string()))
}

/// A client without a token, of the server that `--server` or the environment names. If none is named: of the server that
/// `serve` would start in the same environment, because a probe in a container has the environment of the server.
pub(super) fn connect_to_probe(
    server: Option<&str>,
    ca_file: Option<&str>,
    console: &Console,
) -> Result<Client, Error> {
    let given = |name: &str| console.env(name).filter(|text| !text.is_empty());
    let near = match (given("THREADQ_LISTEN"), given("PORT")) {
        (Some(address), _) => address.parse().ok().map(|address| ("THREADQ_LISTEN", reachable(address))),
        (None, Some(port)) => Some(("PORT", format!("http://127.0.0.1:{port}"))),
        (None, None) => None,
    };
    connect_without_token(server, near.unwrap_or_else(default_server), ca_file, console)
}

/// The URL on the same machine of a server that listens at `address`.
fn reachable(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    format!("http://{address}")
}

fn default_server() -> (&'static str, String) {
    ("the default", DEFAULT_SERVER.to_owned())
}

/// A client of the server that `--server` or the environment names, else of `otherwise`: the origin of the URL, and the URL.
fn connect_without_token(
    server: Option<&str>,
    otherwise: (&'static str, String),
    ca_file: Option<&str>,
    console: &Console,
) -> Result<Client, Error> {
    let (source, url) = match (server, console.env("THREADQ_SERVER")) {
        (Some(url), _) => ("--server", url.to_owned()),
        (None, Some(url)) => ("THREADQ_SERVER", url),
        (None, None) => otherwise,
    };
    // No idle connections: the server may close one between two requests, and the second would fail.
    let client = Client::new(&url, 0)
        .map_err(|problem| Error::Usage(format!("{source} {} {problem}", redacted(&url))))?;
    let environment = ["THREADQ_CA_FILE", authorities::ENVIRONMENT];
    let mut named = ca_file
        .map(|file| ("--ca-file", file.to_owned()))
        .into_iter()
        .chain(environment.into_iter().filter_map(|name| Some((name, console.env(name)?))));
    match named.next() {
        Some((source, file)) if client.is_https() => {
            let authorities = Authorities::from_file(Path::new(&file))
                .map_err(|why| Error::Usage(format!("{source}: the file {file:?} {why}")))?;
            Ok(client.trusting(&authorities))
        }
        _ => Ok(client),
    }
}

/// Sends a request that is safe to repeat, again after a transient error, for [`OUTAGE_LIMIT`]. The first error is printed
/// behind the text `before`.
pub(super) fn retried(
    before: &str,
    console: &mut Console,
    send: impl FnMut() -> Result<Response, client::Error>,
) -> Result<Response, Error> {
    let mut is_reported = false;
    let report = |error: client::Error| {
        if !is_reported {
            console.note(&format!("{before}{}; retrying", Error::from(error)));
            is_reported = true;
        }
    };
    Ok(with_retries(OUTAGE_LIMIT, RETRY_INTERVAL, client::Error::is_transient, send, report)?)
}

/// A path with the query parameters that have a value, percent-encoded.
pub(super) fn with_query(path: &str, query: &[(&str, Option<String>)]) -> String {
    let parts: Vec<String> = query
        .iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={}", encode_segment(value))))
        .collect();
    if parts.is_empty() { path.to_owned() } else { format!("{path}?{}", parts.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{FakeServer, run, run_with_env};

    #[test]
    fn every_reserved_character_of_a_url_is_percent_encoded() {
        let query = [("type", Some("a b".to_owned())), ("page", None), ("limit", Some("5".to_owned()))];
        assert_eq!(with_query("/jobs", &query), "/jobs?type=a%20b&limit=5");
        assert_eq!(with_query("/jobs", &[("page", None)]), "/jobs");
    }

    #[test]
    fn an_invalid_server_url_is_a_usage_error() {
        for url in
            ["127.0.0.1:8080", "ftp://host", "http://", "/path", "", "http://host/?a=1", "http://host/#a"]
        {
            let done = run(&["stats", "--server", url]);
            assert_eq!(done.code, 2, "{url:?}: {}", done.err);
            assert!(done.err.starts_with("threadq: --server "), "{}", done.err);
        }
        let done = run_with_env(&["stats"], &[("THREADQ_SERVER", "localhost")]);
        assert_eq!(done.code, 2);
        assert!(
            done.err.starts_with(
                "threadq: THREADQ_SERVER \"localhost\" is not a valid URL; allowed: a URL such as"
            ),
            "{}",
            done.err
        );
    }

    #[test]
    fn an_invalid_part_of_the_server_url_is_named_and_nothing_is_sent() {
        let server = FakeServer::start(&[(200, "{}")]);
        let port = server.url.rsplit(':').next().unwrap().to_owned();
        for (url, part) in [
            ("http://127.0.0.1:99999".to_owned(), "has a port"),
            (format!("http://127.0.0.1:{port}abc"), "has a port"),
            ("http://127.0.0.1:0".to_owned(), "has a port"),
            (format!("http://[127.0.0.1]:{port}"), "has a host in brackets"),
            (format!("http://127.0.0.1:{port}/a b"), "has a space"),
        ] {
            let done = run_with_env(&["stats", "--server", &url], &[("THREADQ_API_TOKEN", "s3cret")]);
            assert_eq!(done.code, 2, "{}", done.err);
            assert!(done.err.starts_with(&format!("threadq: --server {url:?} {part}")), "{}", done.err);
        }
        assert!(server.is_idle());
    }

    #[test]
    fn user_and_password_of_the_server_url_are_sent_decoded() {
        let server = FakeServer::start(&[(200, r#"{"queues": []}"#)]);
        let url = server.url.replace("http://", "http://us%40er:p%3Aw@");
        let done = run(&["queues", "--server", &url]);
        assert_eq!(done.code, 0, "{}", done.err);
        assert_eq!(server.request().header("authorization"), Some("Basic dXNAZXI6cDp3"));
        let done = run_with_env(&["queues", "--server", &url], &[("THREADQ_API_TOKEN", "t")]);
        assert_eq!(done.code, 2);
        assert!(
            done.err.starts_with("threadq: THREADQ_API_TOKEN: cannot be sent together with"),
            "{}",
            done.err
        );
        assert!(!done.err.contains("us%40er"), "{}", done.err);
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
    fn the_token_is_sent_and_a_refusal_says_where_the_token_comes_from() {
        let answer = r#"{"error": "The token is wrong", "code": "unauthorized"}"#;
        let server = FakeServer::start(&[(401, answer)]);
        let env = [("THREADQ_SERVER", &*server.url), ("THREADQ_API_TOKEN", "s3cret")];
        let done = run_with_env(&["stats"], &env);
        assert_eq!(done.code, 1);
        let expected = "threadq: The token is wrong (unauthorized); the token comes from THREADQ_API_TOKEN, or from the \
                        file that THREADQ_API_TOKEN_FILE names\n";
        assert_eq!(done.err, expected);
        assert_eq!(server.request().header("authorization"), Some("Bearer s3cret"));
    }

    #[test]
    fn the_token_may_come_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let file = path.to_str().unwrap();
        let server = FakeServer::start(&[(200, r#"{"queues": []}"#); 4]);
        let run = |text: &[u8], more: &[(&str, &str)]| {
            std::fs::write(&path, text).unwrap();
            let env = [("THREADQ_SERVER", &*server.url), ("THREADQ_API_TOKEN_FILE", file)];
            run_with_env(&["queues"], &[&env[..], more].concat())
        };
        for text in ["s3cret", "s3cret\n", " s3cret \r\n", "\u{feff}s3cret\n"] {
            let done = run(text.as_bytes(), &[("THREADQ_API_TOKEN", "")]);
            assert_eq!(done.code, 0, "{text:?}: {}", done.err);
            assert_eq!(server.request().header("authorization"), Some("Bearer s3cret"), "{text:?}");
        }
        let refused = [
            run(b"", &[]),
            run(b"two s3crets", &[]),
            run(b"\xff\xfes\x003\x00", &[]),
            run(b"s3cret", &[("THREADQ_API_TOKEN", "other")]),
            run_with_env(&["queues"], &[("THREADQ_API_TOKEN_FILE", "/no/such/s3cret")]),
        ];
        for done in refused {
            assert_eq!((done.code, done.err.lines().count()), (2, 1), "{}", done.err);
            assert!(done.err.starts_with("threadq: THREADQ_API_TOKEN_FILE: "), "{}", done.err);
        }
    }

    #[test]
    fn a_token_that_is_not_valid_in_a_header_is_a_usage_error_and_stays_secret() {
        let done = run_with_env(&["stats"], &[("THREADQ_API_TOKEN", "s3cret\r\nX: y")]);
        assert_eq!(done.code, 2);
        assert!(done.err.contains("THREADQ_API_TOKEN") && !done.err.contains("s3cret"), "{}", done.err);
    }

    #[test]
    fn an_unreachable_server_is_an_error_with_a_hint() {
        let url = FakeServer::unused_url();
        let done = run(&["stats", "--server", &url]);
        assert_eq!(done.code, 1);
        assert!(done.err.starts_with(&format!("threadq: no server at {url}: ")), "{}", done.err);
        let hint = "; start one with \"threadq serve\", or give its URL with --server\n";
        assert!(done.err.ends_with(hint), "{}", done.err);
    }

    #[test]
    fn a_closed_connection_is_a_missing_response() {
        let server = FakeServer::start(&[(0, "")]);
        let done = server.run(&["stats"]);
        assert_eq!(done.code, 1);
        assert!(done.err.starts_with(&format!("threadq: no response from {}: ", server.url)), "{}", done.err);
    }

    #[test]
    fn an_error_page_of_a_proxy_is_reported_by_its_status() {
        let server = FakeServer::start(&[(502, "<h1>Bad gateway</h1>"), (301, ""), (200, "<h1>Hello</h1>")]);
        let gateway = server.run(&["stats"]);
        assert_eq!(gateway.code, 1);
        assert_eq!(
            gateway.err,
            format!("threadq: {} answered 502, but is not a threadq server\n", server.url)
        );
        let redirect = server.run(&["stats"]);
        assert!(redirect.err.contains("answered 301"), "{}", redirect.err);
        let page = server.run(&["stats", "--json"]);
        assert_eq!((page.code, page.out.as_str()), (1, ""));
        assert!(page.err.contains("the response is not from a threadq server"), "{}", page.err);
    }

    #[test]
    fn the_text_of_a_server_cannot_control_the_terminal() {
        let server = FakeServer::start(&[(400, r#"{"error": "\u001b[2J\nok", "code": "x\u0007"}"#)]);
        let done = server.run(&["stats"]);
        assert_eq!(done.err, "threadq: \\u{1b}[2J\\nok (x\\u{7})\n");
    }
}
