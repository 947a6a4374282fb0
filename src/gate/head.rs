//! Request heads: finds the end of a head, checks the head, and writes the head that tiny_http gets.
//!
//! httparse parses the head. This module rejects what httparse accepts and tiny_http would misread: bare line feeds,
//! bytes beyond ASCII in forwarded headers, ambiguous framing. Request smuggling needs two parsers that disagree, so
//! malformed requests are rejected, never normalised.

use crate::gate::error::GateError;
use crate::gate::target;

/// Path of the probe, to which the API must respond with 204 at once. It shows that a thread of tiny_http serves a new
/// connection. Clients get 404 for it.
pub const PROBE_PATH: &str = "/-/hello";
/// Paths of the health checks. Each uses a new connection to tiny_http: a kept connection would not show whether tiny_http
/// still accepts new ones.
const HEALTH_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// Length of request line and headers together, in bytes.
pub(crate) const MAX_HEAD: usize = 16 << 10;
/// Up to this many headers are parsed without an allocation.
const FEW_HEADERS: usize = 64;
/// Header with the id of the client connection, see `finish`. A client's own header of this name is dropped.
pub const CLIENT_HEADER: &str = "Gate-Client";
/// The headers that the API reads. No other header is forwarded, because tiny_http is slow at parsing headers.
const FORWARDED: [&str; 6] =
    ["Host", "Origin", "Authorization", "Content-Type", "Content-Encoding", "Idempotency-Key"];
/// The headers that only the gate reads, see [`Fields`].
const READ_BY_GATE: [&str; 4] = ["Content-Length", "Transfer-Encoding", "Connection", "Expect"];

/// Looks for the end of a head as bytes arrive. It checks no byte twice, so that a head that arrives byte by byte costs no
/// more than one that arrives at once.
#[derive(Default)]
pub(crate) struct Scanner {
    checked: usize,
    line_length: usize,
    /// Complete lines: the first is the request line.
    lines: usize,
    after_cr: bool,
}

impl Scanner {
    /// The length of the head, or `None` while `bytes` (which begin at the request line) do not contain all of it.
    pub fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, GateError> {
        for &byte in &bytes[self.checked..] {
            if self.checked == MAX_HEAD {
                return Err(GateError::HeadersTooLarge);
            }
            self.checked += 1;
            match (self.after_cr, byte) {
                (true, b'\n') if self.line_length == 0 => return Ok(Some(self.checked)),
                (true, b'\n') => {
                    (self.after_cr, self.line_length) = (false, 0);
                    self.lines += 1;
                }
                (false, b'\r') => self.after_cr = true,
                (false, b'\t' | b' '..=b'~') => self.line_length += 1,
                // obs-text of RFC 9110, 5.5. `translate` checks which headers have it.
                (false, 0x80..) if self.lines > 0 => self.line_length += 1,
                (true, _) | (false, b'\n') => {
                    return Err(GateError::BadRequest("lines of the request head must end with CR LF"));
                }
                _ if self.lines > 0 => return Err(GateError::InvalidHeader),
                _ => {
                    return Err(GateError::BadRequest(
                        "the request line must contain only printable ASCII characters",
                    ));
                }
            }
        }
        Ok(None)
    }
}

/// How the body of a request is framed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Framing {
    None,
    Length(usize),
    Chunked,
}

/// The facts about a request that the gate needs.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Head {
    /// A HEAD request: its response has no body, whatever its Content-Length says.
    pub is_head: bool,
    /// GET or HEAD: sending the request twice does no harm.
    pub is_safe: bool,
    /// The path is one of `HEALTH_PATHS`.
    pub is_health_check: bool,
    pub is_http_1_0: bool,
    /// The client asks to keep the connection open.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    pub framing: Framing,
}

/// Checks the head `raw` and appends the head for tiny_http to `out`, without its end, see [`finish`].
pub(crate) fn translate(raw: &[u8], max_body: usize, out: &mut Vec<u8>) -> Result<Head, GateError> {
    let mut few = [httparse::EMPTY_HEADER; FEW_HEADERS];
    let mut many = Vec::new();
    // One header per line, but for the request line and the empty line at the end.
    let count = raw.iter().filter(|byte| **byte == b'\n').count().saturating_sub(2);
    let headers = if count <= FEW_HEADERS {
        &mut few[..]
    } else {
        many.resize(count, httparse::EMPTY_HEADER);
        &mut many
    };
    let mut request = httparse::Request::new(headers);
    match request.parse(raw) {
        Ok(httparse::Status::Complete(length)) if length == raw.len() => {}
        Err(httparse::Error::Version) => return Err(wrong_version(raw)),
        _ => return Err(GateError::BadRequest("request line or headers are malformed")),
    }
    let (Some(method), Some(target), Some(minor_version)) = (request.method, request.path, request.version)
    else {
        return Err(GateError::BadRequest("the request line is malformed"));
    };
    let target = target::read(method, target)?;
    if target.path == PROBE_PATH {
        return Err(GateError::NotFound);
    }

    write_request_line(out, method, &target.path);
    if let Some(host) = target.host {
        write_header(out, "Host", host.as_bytes());
    }
    let mut fields = Fields::default();
    for header in request.headers.iter() {
        let is_one_of = |names: &[&str]| names.iter().any(|name| header.name.eq_ignore_ascii_case(name));
        let is_forwarded = is_one_of(&FORWARDED);
        if !header.value.is_ascii() && (is_forwarded || is_one_of(&READ_BY_GATE)) {
            return Err(GateError::InvalidHeader);
        }
        fields.note(header.name, header.value)?;
        if is_forwarded && !(target.host.is_some() && is_one_of(&["Host"])) {
            write_header(out, header.name, header.value);
        }
    }
    let is_http_1_0 = minor_version == 0;
    fields.check_host(is_http_1_0)?;
    Ok(Head {
        is_head: method == "HEAD",
        is_safe: method == "GET" || method == "HEAD",
        is_health_check: target.path.split('?').next().is_some_and(|path| HEALTH_PATHS.contains(&path)),
        is_http_1_0,
        keep_alive: !fields.close && (!is_http_1_0 || fields.keep_alive),
        // HTTP/1.0 has no 100 Continue.
        expects_continue: fields.expects_continue && !is_http_1_0,
        framing: fields.framing(is_http_1_0, max_body)?,
    })
}

/// Ends a head that [`translate`] began, with the id of the client connection and the length of the body, if there is a
/// body.
pub(crate) fn finish(out: &mut Vec<u8>, connection: u64, body_length: Option<usize>) {
    out.extend_from_slice(format!("{CLIENT_HEADER}: {connection}\r\n").as_bytes());
    if let Some(length) = body_length {
        out.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// HTTP/1.0 with keep-alive makes tiny_http always respond with a Content-Length, never chunked.
fn write_request_line(out: &mut Vec<u8>, method: &str, target: &str) {
    for part in [method, " ", target, " HTTP/1.0\r\nConnection: keep-alive\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

fn write_header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// `HTTP/2.0` is an unknown version; `http/1.1` or a request line of four words is malformed.
fn wrong_version(raw: &[u8]) -> GateError {
    let line = raw.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ').skip(2);
    match (words.next(), words.next()) {
        (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            GateError::UnknownVersion
        }
        _ => GateError::BadRequest("the request line is malformed"),
    }
}

/// The headers about the message framing and the connection.
#[derive(Default)]
struct Fields {
    hosts: usize,
    length: Option<u64>,
    is_chunked: bool,
    has_other_coding: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl Fields {
    fn note(&mut self, name: &str, value: &[u8]) -> Result<(), GateError> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("host") {
            self.hosts += 1;
        } else if is("content-length") {
            if self.length.replace(content_length(value)?).is_some() {
                return Err(GateError::BadRequest("Content-Length is given twice"));
            }
        } else if is("transfer-encoding") {
            let is_chunked = value.eq_ignore_ascii_case(b"chunked");
            self.has_other_coding |= !is_chunked || self.is_chunked;
            self.is_chunked |= is_chunked;
        } else if is("connection") {
            self.note_connection(value);
        } else if is("expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(GateError::ExpectationFailed);
            }
            self.expects_continue = true;
        }
        Ok(())
    }

    fn note_connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',') {
            let option = option.trim_ascii();
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn check_host(&self, is_http_1_0: bool) -> Result<(), GateError> {
        match self.hosts {
            1 => Ok(()),
            0 if is_http_1_0 => Ok(()),
            _ => Err(GateError::BadRequest("a request must have exactly one Host header")),
        }
    }

    fn framing(&self, is_http_1_0: bool, max_body: usize) -> Result<Framing, GateError> {
        let has_coding = self.is_chunked || self.has_other_coding;
        match self.length {
            Some(_) if has_coding => {
                Err(GateError::BadRequest("Content-Length and Transfer-Encoding must not be given together"))
            }
            Some(length) => match usize::try_from(length) {
                Ok(length) if length <= max_body => Ok(Framing::Length(length)),
                _ => Err(GateError::BodyTooLarge),
            },
            None if !has_coding => Ok(Framing::None),
            None if is_http_1_0 => {
                Err(GateError::BadRequest("an HTTP/1.0 request must not have a Transfer-Encoding"))
            }
            None if self.has_other_coding => Err(GateError::UnknownTransferCoding),
            None => Ok(Framing::Chunked),
        }
    }
}

/// Digits only: no sign, list or space. A number beyond u64 becomes the largest u64, which exceeds every limit.
fn content_length(value: &[u8]) -> Result<u64, GateError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(GateError::BadRequest("Content-Length must be a whole number"));
    }
    Ok(value
        .iter()
        .fold(0u64, |number, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(raw: &str) -> (Head, String) {
        let mut out = Vec::new();
        let head = translate(raw.as_bytes(), 1000, &mut out).unwrap();
        (head, String::from_utf8(out).unwrap())
    }

    #[test]
    fn only_headers_that_the_api_reads_are_forwarded() {
        let (head, out) = translated(
            "POST /jobs?a=b HTTP/1.1\r\nHost: h\r\nConnection: upgrade, Close\r\nUpgrade: x\r\nTE: chunked\r\n\
             Keep-Alive: 5\r\nCookie: a=b\r\nAUTHORIZATION: x\r\nProxy-Foo: 1\r\nTrailer: T\r\ngate-client: 1\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\
             Content-Type: application/json\r\n\r\n",
        );
        assert_eq!(
            out,
            "POST /jobs?a=b HTTP/1.0\r\nConnection: keep-alive\r\nHost: h\r\nAUTHORIZATION: x\r\nContent-Type: application/json\r\n"
        );
        let expected = Head {
            is_head: false,
            is_safe: false,
            is_health_check: false,
            is_http_1_0: false,
            keep_alive: false,
            expects_continue: true,
            framing: Framing::Length(5),
        };
        assert_eq!(head, expected);
    }

    #[test]
    fn the_host_of_a_url_replaces_the_host_header() {
        let head = "GET http://a:1/jobs HTTP/1.1\r\nOrigin: o\r\nhost: b\r\n\r\n";
        let expected = "GET /jobs HTTP/1.0\r\nConnection: keep-alive\r\nHost: a:1\r\nOrigin: o\r\n";
        assert_eq!(translated(head).1, expected);
        let old = translated("GET http://a:1/jobs HTTP/1.0\r\n\r\n").1;
        assert!(old.ends_with("\r\nHost: a:1\r\n"), "{old}");
        let probe = format!("GET http://a{PROBE_PATH} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(translate(probe.as_bytes(), 0, &mut Vec::new()), Err(GateError::NotFound));
        let hostless = b"GET http://a/jobs HTTP/1.1\r\n\r\n";
        assert!(matches!(translate(hostless, 0, &mut Vec::new()), Err(GateError::BadRequest(_))));
    }

    #[test]
    fn a_head_may_have_as_many_headers_as_its_length_allows() {
        for count in [1, FEW_HEADERS - 1, FEW_HEADERS, FEW_HEADERS + 1, 1000, 4000] {
            let (_, out) =
                translated(&format!("GET / HTTP/1.1\r\n{}Host: h\r\n\r\n", "a:\r\n".repeat(count)));
            assert!(out.ends_with("\r\nHost: h\r\n"), "{count}: {out}");
        }
    }

    #[test]
    fn only_headers_that_are_read_must_be_ascii() {
        let read = |name: &str| {
            let mut raw = format!("GET / HTTP/1.1\r\nHost: h\r\n{name}: ").into_bytes();
            raw.extend_from_slice(b"M\xfcller \xc3\xa9\r\n\r\n");
            assert_eq!(Scanner::default().find_end(&raw), Ok(Some(raw.len())), "{name}");
            let mut out = Vec::new();
            translate(&raw, 1000, &mut out).map(|_| String::from_utf8(out).unwrap())
        };
        for name in ["User-Agent", "Cookie", "X", "TE", "Gate-Client"] {
            let out = read(name).unwrap();
            assert!(out.is_ascii() && !out.contains(name), "{out}");
        }
        for name in FORWARDED.iter().chain(&READ_BY_GATE) {
            assert_eq!(read(&name.to_lowercase()), Err(GateError::InvalidHeader), "{name}");
        }
    }

    #[test]
    fn http_1_0_keeps_a_connection_only_when_asked() {
        assert!(!translated("GET / HTTP/1.0\r\n\r\n").0.keep_alive);
        assert!(translated("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").0.keep_alive);
        assert!(translated("GET / HTTP/1.1\r\nHost: h\r\n\r\n").0.keep_alive);
    }

    #[test]
    fn the_end_of_a_head_is_found_however_the_reads_split_it() {
        let raw = b"GET / HTTP/1.1\r\nHost: h\r\n\r\nrest";
        let mut scanner = Scanner::default();
        for end in 0..raw.len() - 4 {
            assert_eq!(scanner.find_end(&raw[..end]), Ok(None), "at {end}");
        }
        assert_eq!(scanner.find_end(raw), Ok(Some(raw.len() - 4)));
        assert_eq!(Scanner::default().find_end(raw), Ok(Some(raw.len() - 4)));
    }

    #[test]
    fn a_head_may_be_exactly_as_long_as_the_limit() {
        let head_of = |length: usize| {
            let start = "GET / HTTP/1.1\r\nHost: h\r\nX: ";
            format!("{start}{}\r\n\r\n", "x".repeat(length - start.len() - 4))
        };
        let longest = head_of(MAX_HEAD);
        assert_eq!(Scanner::default().find_end(longest.as_bytes()), Ok(Some(MAX_HEAD)));
        let too_long = head_of(MAX_HEAD + 1);
        assert_eq!(Scanner::default().find_end(too_long.as_bytes()), Err(GateError::HeadersTooLarge));
    }
}
