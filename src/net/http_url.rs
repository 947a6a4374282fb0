//! Reads the URLs of HTTP services: of http handlers and of `--server`. [`read`] reads the URLs of Redis too.
//!
//! The crate `url` follows the rules of browsers, which repair what people type. Here a repair could send a payload or a
//! token to the wrong host, so a URL that would be repaired is an error. An error names the part that is wrong, but never
//! shows it: of a password with an unescaped `/`, the start is read as a port.

use std::cell::Cell;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;
use url::{Host, ParseError, SyntaxViolation, Url};

/// The longest label of a host name in DNS, in bytes.
const MAX_LABEL: usize = 63;
/// The longest host name in DNS, in bytes.
const MAX_HOST: usize = 253;
/// The longest URL in bytes: longer than the URLs of services, and shorter than the limit of the HTTP client.
const MAX_URL: usize = 8 * 1024;

/// The URL of an HTTP service, with user and password taken out of it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct HttpUrl {
    /// Without user, password and fragment.
    url: Url,
    authorization: Option<String>,
}

/// Shows host and port only: the other parts may be secret.
impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_tuple("HttpUrl").field(&self.place()).finish()
    }
}

impl HttpUrl {
    /// Reads an absolute `http://` URL, or `https://` with the feature `tls`.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence that begins with the URL. It contains no part of the URL.
    pub(crate) fn parse(text: &str) -> Result<HttpUrl, &'static str> {
        let mut url = read(text, &["http", "https"])?;
        if authority_of(text).matches('@').count() > 1 {
            return Err("has an @ in its user or password, which must be written as %40");
        }
        if has_bare_percent(text) {
            return Err("has a % that is not followed by two hexadecimal digits");
        }
        if url.scheme() == "https" && !cfg!(feature = "tls") {
            return Err("asks for TLS, and this program was built without the feature tls");
        }
        let authorization = basic_authorization(&url)?;
        // Neither can fail for a URL with a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(HttpUrl { url, authorization })
    }

    /// The URL without user and password.
    pub(crate) fn as_str(&self) -> &str {
        self.url.as_str()
    }

    /// The value of the header `Authorization`, if the URL has a user or a password (RFC 7617).
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    /// Whether the URL has a query.
    pub(crate) fn has_query(&self) -> bool {
        self.url.query().is_some()
    }

    /// Host and port, which hold no secret. The default port of the scheme is left out.
    pub(crate) fn place(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

/// A URL that is not valid, for an error: with `***` for the part that may be user and password.
pub(crate) fn redacted(text: &str) -> String {
    match text.rsplit_once('@') {
        None => format!("{text:?}"),
        Some((login, place)) => {
            let scheme = login.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
            format!("{:?}", format!("{scheme}***@{place}"))
        }
    }
}

/// Reads an absolute URL of one of these schemes with a host. The error is a clause as for [`HttpUrl::parse`].
pub(super) fn read(text: &str, schemes: &[&str]) -> Result<Url, &'static str> {
    let (scheme, _) = text.split_once("://").ok_or("is not a valid URL")?;
    if !schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err("has an unknown scheme");
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("has a space or a control character in it");
    }
    // The part after a # is never sent. So the # belongs to a password or a path, and was not escaped.
    if text.contains('#') {
        return Err("has a # in it, which must be written as %23");
    }
    if text.len() > MAX_URL {
        return Err("is too long");
    }
    let place = authority_of(text).rsplit('@').next().unwrap_or_default();
    let (host, port) = split_port(place);
    if host.is_empty() {
        return Err("names no host");
    }

    let repaired = Cell::new(None);
    let note = |violation| repaired.set(repaired.get().or(problem_of(violation)));
    let url = Url::options().syntax_violation_callback(Some(&note)).parse(text).map_err(problem_of_error)?;
    if let Some(problem) = repaired.get() {
        return Err(problem);
    }
    if port.is_some_and(|port| !port.parse().is_ok_and(|port: u16| port > 0)) {
        return Err(BAD_PORT);
    }
    check_host(&url, host)?;
    Ok(url)
}

/// `USER:PASSWORD@HOST:PORT`.
fn authority_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or_default()
}

fn has_bare_percent(text: &str) -> bool {
    let mut parts = text.split('%');
    parts.next();
    parts.any(|part| part.len() < 2 || !part.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()))
}

pub(super) const BAD_PORT: &str = "has a port that is not a number from 1 to 65535";
pub(super) const BAD_HOST: &str = "has a host that is neither a host name nor an IP address";

/// Splits into the host, with the brackets of an IPv6 address, and the text after the colon.
pub(super) fn split_port(place: &str) -> (&str, Option<&str>) {
    let end_of_address = place.rfind(']').map_or(0, |end| end + 1);
    match place[end_of_address..].find(':') {
        Some(colon) => {
            let (host, port) = place.split_at(end_of_address + colon);
            (host, Some(&port[1..]))
        }
        None => (place, None),
    }
}

/// Accepts host names and usual addresses. `0x7f.1` is refused: it is an address for some programs, and a name for others.
fn check_host(url: &Url, written: &str) -> Result<(), &'static str> {
    let read = url.host_str().unwrap_or_default();
    if let Some(Host::Ipv6(_)) = url.host() {
        return Ok(());
    }
    let name = written.strip_suffix('.').unwrap_or(written);
    let is_label = |label: &str| {
        let is_written_out = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(is_written_out)
    };
    let is_number = |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit());
    let is_address = name.parse::<std::net::Ipv4Addr>().is_ok();
    // Programs disagree on whether a name whose last label is a number is an address.
    let is_name = name.split('.').all(is_label) && !name.rsplit('.').next().is_some_and(is_number);
    match read.eq_ignore_ascii_case(written) && name.len() <= MAX_HOST && (is_address || is_name) {
        true => Ok(()),
        false => Err(BAD_HOST),
    }
}

/// Why a text that the crate `url` would repair is not valid; `None` for harmless deviations.
fn problem_of(violation: SyntaxViolation) -> Option<&'static str> {
    match violation {
        SyntaxViolation::EmbeddedCredentials
        | SyntaxViolation::NonUrlCodePoint
        | SyntaxViolation::UnencodedAtSign
        | SyntaxViolation::PercentDecode => None,
        SyntaxViolation::Backslash => Some("has a backslash in it"),
        _ => Some("is not a valid URL"),
    }
}

fn problem_of_error(error: ParseError) -> &'static str {
    match error {
        ParseError::EmptyHost => "names no host",
        ParseError::InvalidPort => BAD_PORT,
        ParseError::InvalidIpv6Address => "has a host in brackets that is not an IPv6 address",
        ParseError::InvalidIpv4Address | ParseError::IdnaError | ParseError::InvalidDomainCharacter => {
            BAD_HOST
        }
        _ => "is not a valid URL",
    }
}

fn basic_authorization(url: &Url) -> Result<Option<String>, &'static str> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let user: Vec<u8> = percent_decode_str(url.username()).collect();
    let password: Vec<u8> = percent_decode_str(url.password().unwrap_or_default()).collect();
    if user.contains(&b':') {
        return Err("has a user with a colon, which Basic authentication cannot carry");
    }
    if user.iter().chain(&password).any(u8::is_ascii_control) {
        return Err("has a control character in its user or password");
    }
    let credentials = [&user[..], b":", &password[..]].concat();
    Ok(Some(format!("Basic {}", BASE64_STANDARD.encode(credentials))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> &'static str {
        HttpUrl::parse(text).expect_err(text)
    }

    #[test]
    fn a_valid_url_is_not_changed() {
        for (text, url, place) in [
            ("http://127.0.0.1:9000/notify?x=1", "http://127.0.0.1:9000/notify?x=1", "127.0.0.1:9000"),
            ("http://[::1]:65535/", "http://[::1]:65535/", "[::1]:65535"),
            ("HTTP://Api_1.example.org./a%20b", "http://api_1.example.org./a%20b", "api_1.example.org."),
            ("http://h", "http://h/", "h"),
            ("http://h:80/x@y", "http://h/x@y", "h"),
            ("http://4chan.example:8080", "http://4chan.example:8080/", "4chan.example:8080"),
        ] {
            let read = HttpUrl::parse(text).expect(text);
            assert_eq!((read.as_str(), read.place().as_str(), read.authorization()), (url, place, None));
        }
        assert_eq!(HttpUrl::parse("https://h/x").is_ok(), cfg!(feature = "tls"));
    }

    #[test]
    fn a_wrong_port_is_named() {
        for port in ["99999", "65536", "0", "00", "8080abc", "abc", "-1", "+80", "80:90", "", "8 0", "٣"] {
            for host in ["127.0.0.1", "h", "[::1]", "u:p@h"] {
                for end in ["", "/", "/x?y"] {
                    let text = format!("http://{host}:{port}{end}");
                    let wanted = if port == "8 0" { "has a space" } else { BAD_PORT };
                    assert!(problem(&text).starts_with(wanted), "{text}: {}", problem(&text));
                }
            }
        }
    }

    #[test]
    fn a_wrong_host_is_named() {
        for text in ["http://", "http:///x", "http://:80/", "http://u:p@", "http://u:p@:80/", "http://?x"] {
            assert_eq!(problem(text), "names no host", "{text}");
        }
        for text in
            ["http://[::1/", "http://[::1]8080/", "http://[h]/", "http://[fe80::1%25eth0]/", "http://[]/"]
        {
            assert!(problem(text).contains("IPv6") || problem(text) == BAD_HOST, "{text}: {}", problem(text));
        }
        for text in [
            "http://256.1.1.1/",
            "http://1.2.3/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.0.0.1/",
            "http://1.2.3.4.5/",
            "http://a..b/",
            "http://.h/",
            "http://h../",
            "http://%31%32%37.0.0.1/",
            "http://a%00b/",
            "http://a<b/",
            "http://a,b/",
            "http://a|b/",
            "http://müller.example/",
            "http://１２７.0.0.1/",
            &format!("http://{}/", "a".repeat(64)),
            &format!("http://{}a/", "a.".repeat(127)),
        ] {
            assert_eq!(problem(text), BAD_HOST, "{text}");
        }
    }

    #[test]
    fn nothing_is_repaired() {
        for (text, wanted) in [
            ("", "is not a valid URL"),
            ("h", "is not a valid URL"),
            ("/notify", "is not a valid URL"),
            ("127.0.0.1:9000", "is not a valid URL"),
            ("http:h", "is not a valid URL"),
            ("http:/h", "is not a valid URL"),
            ("HTTP//h", "is not a valid URL"),
            ("ftp://h", "has an unknown scheme"),
            ("://h", "has an unknown scheme"),
            ("redis://h", "has an unknown scheme"),
            (" http://h", "has an unknown scheme"),
            ("http://h/ ", "has a space"),
            ("http://h/a b", "has a space"),
            ("http://h\t/", "has a space"),
            ("http://h\n", "has a space"),
            ("http:\\\\h\\", "is not a valid URL"),
            ("http://h\\@other/", "has a backslash"),
            ("http://h/a\\b", "has a backslash"),
            ("http://h/x#y", "has a #"),
            ("http://user:pass#word@h/", "has a #"),
            ("http://user:pa@ss@h/", "has an @"),
            ("http://user:p%zz@h/", "has a %"),
            ("http://h/100%", "has a %"),
            ("http://us%3Aer:p@h/", "has a user with a colon"),
            ("http://us%0Aer:p@h/", "has a control character"),
        ] {
            assert!(problem(text).starts_with(wanted), "{text}: {}", problem(text));
        }
        assert_eq!(problem(&format!("http://h/{}", "a".repeat(MAX_URL))), "is too long");
        // A password with an unescaped slash: the error does not show it.
        assert_eq!(problem("http://user:pass/word@h/"), BAD_PORT);
    }

    #[test]
    fn user_and_password_are_decoded() {
        let basic = |text: &str| HttpUrl::parse(text).expect(text).authorization().map(str::to_owned);
        for (login, decoded) in [
            ("us%40er:p%3Aw", "us@er:p:w"),
            ("user:pass", "user:pass"),
            ("user", "user:"),
            (":pass", ":pass"),
            ("user:", "user:"),
            ("a%2Fb%25:%C3%BC+%20x", "a/b%:ü+ x"),
            ("u:a:b", "u:a:b"),
            ("u:ü", "u:ü"),
            ("u:a'b!$&()*,;=", "u:a'b!$&()*,;="),
        ] {
            let wanted = format!("Basic {}", BASE64_STANDARD.encode(decoded));
            assert_eq!(basic(&format!("http://{login}@h:1/x")), Some(wanted), "{login}");
        }
        let url = HttpUrl::parse("http://user:hunter2@h:1/x").unwrap();
        assert_eq!((url.as_str(), url.place().as_str()), ("http://h:1/x", "h:1"));
        assert!(!format!("{url:?}").contains("hunter2"));
        assert_eq!(basic("http://@h/"), None);
    }

    #[test]
    fn an_error_shows_no_password() {
        for (text, wanted) in [
            ("http://h:99999", r#""http://h:99999""#),
            ("http://user:hunter2@h:99999", r#""http://***@h:99999""#),
            ("http://user:hun@ter2@h", r#""http://***@h""#),
            ("http://user:hun/ter2@h", r#""http://***@h""#),
            ("user:hunter2@h", r#""***@h""#),
        ] {
            assert_eq!(redacted(text), wanted);
        }
    }
}
