//! Whether a request may come from a web page: the guard of a server that asks for no token.
//!
//! Such a server trusts everybody who can reach its port, and every page in a browser on this machine can. The
//! browser's own rules keep a page from reading answers and from sending JSON, but not from a POST without a body,
//! and not at all once the page's host name has come to mean this address (DNS rebinding). Two headers that no page
//! can forge tell: a rebound page's requests carry its name as `Host`, and what a page of another site sends
//! carries its name as `Origin`. Programs that are no browsers send neither: their `Host` is what they were told to
//! reach, and they have no `Origin`.
//!
//! With a token none of this is needed: a page does not know it, and browsers don't add it by themselves.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::api::response::Reply;

/// Refuses a request that was meant for a server of another name.
///
/// `host` is missing in HTTP/1.0 alone, which no browser speaks.
pub fn check_host(host: Option<&str>) -> Result<(), Reply> {
    match host {
        Some(host) if !is_address_or_local(host) => {
            let sentence = "without an api-token the Host of a request must be an IP address or localhost, so that no web \
                            page can get here by a name of its own; ask by address, set a token, or start the server \
                            with --insecure-no-token";
            Err(Reply::error(403, "forbidden_host", sentence))
        }
        _ => Ok(()),
    }
}

/// Refuses a change that a page of another site has made a browser send.
pub fn check_origin(method: &str, host: Option<&str>, origin: Option<&str>) -> Result<(), Reply> {
    let changes = !matches!(method, "GET" | "HEAD" | "OPTIONS");
    match origin {
        Some(origin) if changes && !is_same_site(origin, host.unwrap_or_default()) => {
            let sentence = "without an api-token no request of a web page from elsewhere may change anything; its Origin \
                            must be this server, as its Host has it, or set a token";
            Err(Reply::error(403, "forbidden_origin", sentence))
        }
        _ => Ok(()),
    }
}

/// An address or a name that no stranger can make mean another address. That includes the host of `listen`, which is
/// always an address.
fn is_address_or_local(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest
            .split_once(']')
            .is_some_and(|(address, port)| address.parse::<Ipv6Addr>().is_ok() && is_port(port));
    }
    let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
    is_port(port) && (name.parse::<Ipv4Addr>().is_ok() || is_local_name(name))
}

/// `localhost` and what is below it: browsers and resolvers never ask DNS for these (RFC 6761).
fn is_local_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Nothing, or a colon and digits.
fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether a page that was loaded from here sent it, be it through a proxy that speaks TLS. An Origin never names the
/// default port of its scheme, a Host may.
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
        let reply = check_host(host).and_then(|()| check_origin(method, host, origin)).err()?;
        assert_eq!(reply.status, 403);
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        Some(body["code"].as_str().unwrap().to_owned())
    }

    #[test]
    fn addresses_and_local_names_may_be_asked_for() {
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
    fn other_names_may_not() {
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
    fn pages_from_elsewhere_change_nothing() {
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
