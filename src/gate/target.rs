//! The target of a request, in the four forms of RFC 9112, 3.2.
//!
//! - origin form, `/jobs?limit=5`: forwarded unchanged.
//! - absolute form, `http://HOST/jobs`, which a client sends to a proxy: path and query are forwarded, and HOST replaces
//!   the header `Host` (RFC 9112, 3.2.2).
//! - asterisk form, `OPTIONS *`: forwarded unchanged.
//! - authority form, `CONNECT host:443`: rejected, because this server is not a proxy.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use crate::gate::error::GateError;

/// The target as it is forwarded.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Target<'a> {
    /// Path and query, or `*`.
    pub path: Cow<'a, str>,
    /// Replaces the header `Host`.
    pub host: Option<&'a str>,
}

/// Reads the target of a request with this method. Both must be visible ASCII.
pub(crate) fn read<'a>(method: &str, target: &'a str) -> Result<Target<'a>, GateError> {
    if target.starts_with('/') || target == "*" && method == "OPTIONS" {
        return Ok(Target { path: target.into(), host: None });
    }
    if method == "CONNECT" {
        return Err(GateError::NoTunnel);
    }
    let Some((scheme, rest)) = target.split_once("://") else {
        return Err(GateError::BadRequest("the request target must be a path or a URL with http://"));
    };
    if scheme.eq_ignore_ascii_case("https") {
        // Only a connection with TLS may serve such a URL (RFC 9110, 7.4), and the gate has none.
        return Err(GateError::BadRequest(
            "a request target with https:// needs TLS, which this server does not have; allowed: http://",
        ));
    }
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(GateError::BadRequest("the request target has an unknown scheme; allowed: http://"));
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if !is_authority(authority) {
        return Err(GateError::BadRequest("the request target is a URL with an invalid host or port"));
    }
    let path = match path {
        // As a proxy forwards it, RFC 9112, 3.2.4.
        "" if method == "OPTIONS" => "*".into(),
        path if path.starts_with('/') => path.into(),
        path => format!("/{path}").into(),
    };
    Ok(Target { path, host: Some(authority) })
}

/// A host and an optional port, without a user name (RFC 9110, 4.2.4).
fn is_authority(text: &str) -> bool {
    let (is_host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address.parse::<Ipv6Addr>().is_ok(), port),
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (is_name(name), port)
        }
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let is_port =
        digits.is_empty() || digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok();
    is_host && is_port && (port.is_empty() || port.starts_with(':'))
}

/// A name or an IPv4 address: the `reg-name` of RFC 3986, 3.2.2, but not empty.
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let is_hexadecimal = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_hexdigit());
    while let Some(byte) = bytes.next() {
        let is_allowed = match byte {
            b'%' => is_hexadecimal(bytes.next()) && is_hexadecimal(bytes.next()),
            _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte),
        };
        if !is_allowed {
            return false;
        }
    }
    !name.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_get(target: &str) -> Result<(String, Option<&str>), GateError> {
        read("GET", target).map(|target| (target.path.into_owned(), target.host))
    }

    #[test]
    fn a_path_is_forwarded_unchanged() {
        for target in ["/", "/jobs?limit=5", "//jobs", "/http://h/", "/a#b", "/?"] {
            assert_eq!(read_get(target), Ok((target.to_owned(), None)));
        }
    }

    #[test]
    fn a_url_gives_path_and_host() {
        for (target, path, host) in [
            ("http://h/jobs?a=b", "/jobs?a=b", "h"),
            ("HTTP://h:80/", "/", "h:80"),
            ("http://h", "/", "h"),
            ("http://h?a=/b", "/?a=/b", "h"),
            ("http://127.0.0.1:8080/jobs", "/jobs", "127.0.0.1:8080"),
            ("http://[::1]:8080/jobs", "/jobs", "[::1]:8080"),
            ("http://[::ffff:1.2.3.4]", "/", "[::ffff:1.2.3.4]"),
            ("http://h:/x", "/x", "h:"),
            ("http://h//x", "//x", "h"),
            ("http://a-b.c_d~%41!/x", "/x", "a-b.c_d~%41!"),
            ("http://h/http://other/", "/http://other/", "h"),
            ("http://h/a@b", "/a@b", "h"),
        ] {
            assert_eq!(read_get(target), Ok((path.to_owned(), Some(host))), "{target}");
        }
    }

    #[test]
    fn an_invalid_url_is_rejected() {
        for target in [
            "http://",
            "http:///jobs",
            "http://:80/",
            "http://?x",
            "http://user@h/",
            "http://user:word@h/",
            "http://h:x/",
            "http://h:+1/",
            "http://h:65536/",
            "http://h:1:2/",
            "http://[::1/",
            "http://::1/",
            "http://[h]/",
            "http://[::1]x/",
            "http://[fe80::1%25eth0]/",
            "http://h%4/",
            "http://h%/",
            "http://h\\x/",
            "http://h|/",
            "http:/h",
            "http:h",
            "https://h/",
            "ftp://h/",
            "ws://h/",
            "://h/",
            "jobs",
            "h:443",
            "*",
            "",
        ] {
            assert!(matches!(read_get(target), Err(GateError::BadRequest(_))), "{target}");
        }
        assert_eq!(read("CONNECT", "h:443"), Err(GateError::NoTunnel));
    }

    #[test]
    fn only_options_may_have_the_target_asterisk() {
        let whole = |host| Ok(Target { path: "*".into(), host });
        assert_eq!(read("OPTIONS", "*"), whole(None));
        assert_eq!(read("OPTIONS", "http://h:80"), whole(Some("h:80")));
        assert_eq!(read("OPTIONS", "http://h/").map(|target| target.path), Ok("/".into()));
        assert!(read("POST", "*").is_err());
    }
}
