//! Which requests may access the server: requests with a token; without an API token all that no foreign web page can send.
//!
//! The API token opens everything. The worker token opens what pull workers need. An attempt token, which is part of the
//! path, opens only what has to do with its attempt: the functions of these routes check it.
//!
//! A server without a token trusts everyone who can reach its port, and every web page in a browser on this machine can.
//! The browser keeps a page from reading responses and from sending JSON, but not from sending a POST without a body. It
//! keeps a page from nothing once the page's host name resolves to this address (DNS rebinding). Two headers that no page
//! can forge reveal such requests: a rebound page sends its own name as `Host`, and a page of another site sends its own
//! name as `Origin`. Other programs send the `Host` that they connect to, and no `Origin`.
//!
//! With a token none of this is needed: a page does not know the token, and browsers do not add it.

use std::net::{Ipv4Addr, Ipv6Addr};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::api::request::Headers;
use crate::api::response::Response;
use crate::config::Secret;

/// The settings about access.
#[derive(Clone, Debug)]
pub struct Access {
    /// The bearer token that opens everything.
    pub token: Option<Secret>,
    /// The bearer token of pull workers. Means nothing without the other token.
    pub worker_token: Option<Secret>,
    /// Without a token: whether every `Host` is allowed.
    pub any_host: bool,
}

/// The token that a request to a route must have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needed {
    Nothing,
    ApiToken,
    /// The API token does too.
    WorkerToken,
    /// An attempt token, which the function of the route checks. The other tokens do too.
    AttemptToken,
}

impl Access {
    /// Checks a request to a route that needs this token.
    pub fn check(&self, method: &str, needed: Needed, headers: Headers) -> Result<(), Response> {
        if self.token.is_some() {
            if matches!(needed, Needed::Nothing | Needed::AttemptToken)
                || self.has_token(headers)
                || needed == Needed::WorkerToken && self.is_worker(headers)
            {
                return Ok(());
            }
            if self.is_worker(headers) {
                let sentence = "the worker token opens POST /pull and the paths below /attempts alone";
                return Err(Response::error(403, "forbidden", sentence));
            }
            return Err(unauthorized());
        }
        let host = headers.get("Host")?;
        if !self.any_host {
            check_host(host)?;
        }
        check_origin(method, host, headers.get("Origin")?)
    }

    /// Whether a request has the API token, or needs none.
    pub fn has_token(&self, headers: Headers) -> bool {
        self.token.as_ref().is_none_or(|token| has_bearer(headers, token))
    }

    /// Whether a request has the API token or the worker token, or needs none.
    pub fn has_any_token(&self, headers: Headers) -> bool {
        self.has_token(headers) || self.is_worker(headers)
    }

    fn is_worker(&self, headers: Headers) -> bool {
        self.worker_token.as_ref().is_some_and(|token| has_bearer(headers, token))
    }
}

pub fn unauthorized() -> Response {
    let sentence = "the token is missing or wrong; send it in the header Authorization: Bearer TOKEN";
    Response::error(401, "unauthorized", sentence).with("WWW-Authenticate", "Bearer")
}

/// Whether a request has this bearer token. Takes the same time for every wrong token.
fn has_bearer(headers: Headers, token: &Secret) -> bool {
    let given = headers.get("Authorization").ok().flatten().unwrap_or_default();
    let (scheme, sent) = given.split_once(' ').unwrap_or_default();
    let is_equal = Sha256::digest(sent.trim()).ct_eq(&Sha256::digest(token.expose()));
    scheme.eq_ignore_ascii_case("bearer") && is_equal.into()
}

/// Rejects a request for a server of another name.
///
/// `host` is missing only in HTTP/1.0, which no browser sends.
fn check_host(host: Option<&str>) -> Result<(), Response> {
    match host {
        Some(host) if !is_address_or_local(host) => {
            let sentence = "without api-token the Host of a request must be an IP address or localhost, so that no web page \
                            can reach the server by a name of its own; use the address, set api-token, or start the \
                            server with --insecure-no-token";
            Err(Response::error(403, "forbidden_host", sentence))
        }
        _ => Ok(()),
    }
}

/// Rejects a change that a page of another site made a browser send.
fn check_origin(method: &str, host: Option<&str>, origin: Option<&str>) -> Result<(), Response> {
    let changes = !matches!(method, "GET" | "HEAD" | "OPTIONS");
    match origin {
        Some(origin) if changes && !is_same_site(origin, host.unwrap_or_default()) => {
            let sentence = "without api-token a web page of another site must not change anything: the Origin of the \
                            request must be this server, as its Host names it; or set api-token";
            Err(Response::error(403, "forbidden_origin", sentence))
        }
        _ => Ok(()),
    }
}

/// Whether the host is an IP address, or `localhost` or a name below it: such a name cannot be made to resolve to another
/// address. The host of `listen` is always an IP address.
fn is_address_or_local(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest
            .split_once(']')
            .is_some_and(|(address, port)| address.parse::<Ipv6Addr>().is_ok() && is_port(port));
    }
    let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
    is_port(port) && (name.parse::<Ipv4Addr>().is_ok() || is_local_name(name))
}

/// `localhost` and the names below it: browsers and resolvers never ask DNS for these (RFC 6761).
fn is_local_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Empty, or a colon and digits.
fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether the page that sent the request was loaded from this server, directly or through a proxy with TLS. An Origin
/// never contains the default port of its scheme, a Host may.
fn is_same_site(origin: &str, host: &str) -> bool {
    [("http://", ":80"), ("https://", ":443")].iter().any(|(scheme, default_port)| {
        origin.strip_prefix(scheme).is_some_and(|place| {
            let host = host.strip_suffix(default_port).or_else(|| host.strip_suffix(':')).unwrap_or(host);
            place.eq_ignore_ascii_case(host)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(method: &str, host: Option<&str>, origin: Option<&str>) -> Option<String> {
        let response = check_host(host).and_then(|()| check_origin(method, host, origin)).err()?;
        assert_eq!(response.status, 403);
        let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        Some(body["code"].as_str().unwrap().to_owned())
    }

    #[test]
    fn each_token_opens_what_it_is_for() {
        let secret = |text: &str| Some(Secret::new(text));
        let access = Access { token: secret("all"), worker_token: secret("some"), any_host: false };
        use Needed::{ApiToken, AttemptToken, Nothing, WorkerToken};
        for (sent, expected) in [
            (None, [None, Some(401), Some(401), None]),
            (Some("Bearer wrong"), [None, Some(401), Some(401), None]),
            (Some("Bearer some"), [None, Some(403), None, None]),
            (Some("bearer all"), [None; 4]),
            (Some("Basic all"), [None, Some(401), Some(401), None]),
        ] {
            let header = sent.map(|value| tiny_http::Header::from_bytes("Authorization", value).unwrap());
            let headers = header.into_iter().collect::<Vec<_>>();
            let status =
                |needed| access.check("POST", needed, Headers(&headers)).err().map(|error| error.status);
            assert_eq!([Nothing, ApiToken, WorkerToken, AttemptToken].map(status), expected, "{sent:?}");
            assert_eq!(access.has_any_token(Headers(&headers)), expected[2].is_none(), "{sent:?}");
        }
    }

    #[test]
    fn addresses_and_local_names_are_allowed_hosts() {
        for host in [
            "127.0.0.1:8080",
            "127.0.0.1",
            "10.1.2.3:80",
            "[::1]:8080",
            "[::1]",
            "[fd00::2]:1",
            "localhost",
            "LocalHost:8080",
            "localhost.:80",
            "LOCALHOST.",
            "[::FFFF:127.0.0.1]:8080",
            "0.0.0.0",
            "a.localhost:1",
            "localhost:",
        ] {
            assert_eq!(code("POST", Some(host), None), None, "{host}");
        }
        assert_eq!(code("POST", None, None), None);
    }

    #[test]
    fn other_names_are_forbidden_hosts() {
        for host in [
            "",
            "evil.example",
            "evil.example:8080",
            "EVIL.EXAMPLE.",
            "threadq",
            "threadq:8080",
            "localhost..",
            "notlocalhost",
            "2130706433",
            "[fe80::1%25eth0]",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.1",
            "[::1",
            "::1",
            "[evil.example]:80",
            "[::1]evil",
            "127.0.0.1:80@evil",
            "127.0.0.1:8x",
            "localhost:8080:1",
            ".",
            " localhost",
        ] {
            for method in ["GET", "POST"] {
                assert_eq!(code(method, Some(host), None).as_deref(), Some("forbidden_host"), "{host}");
            }
        }
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        let host = Some("127.0.0.1:8080");
        for origin in [
            "http://evil.example",
            "null",
            "",
            "http://127.0.0.1:8081",
            "http://127.0.0.1",
            "http://localhost:8080",
            "file://127.0.0.1:8080",
            "127.0.0.1:8080",
        ] {
            for method in ["POST", "DELETE", "PUT"] {
                assert_eq!(code(method, host, Some(origin)).as_deref(), Some("forbidden_origin"), "{origin}");
            }
            assert_eq!(code("GET", host, Some(origin)), None, "the browser keeps the answer from the page");
        }
        assert_eq!(code("POST", host, Some("http://127.0.0.1:8080")), None);
        assert_eq!(code("POST", Some("localhost:8080"), Some("https://LOCALHOST:8080")), None);
        for (host, origin) in [
            ("localhost:80", "http://localhost"),
            ("localhost:443", "https://localhost"),
            ("localhost:", "http://localhost"),
            ("[::1]:80", "http://[::1]"),
        ] {
            assert_eq!(code("POST", Some(host), Some(origin)), None, "{host} {origin}");
        }
        for (host, origin) in [
            ("localhost:443", "http://localhost"),
            ("localhost:80", "https://localhost"),
            ("localhost:8080", "http://localhost:80"),
            ("localhost", "http://localhost:8080"),
        ] {
            assert_eq!(
                code("POST", Some(host), Some(origin)).as_deref(),
                Some("forbidden_origin"),
                "{host} {origin}"
            );
        }
        assert_eq!(code("POST", None, Some("http://127.0.0.1:8080")).as_deref(), Some("forbidden_origin"));
    }
}
