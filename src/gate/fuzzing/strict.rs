//! A second parser of requests, from the grammar of RFC 9112 and the gate's own stricter rules. It shares no code with the
//! gate, and works on a whole text, line by line, where the gate works byte by byte on the bytes that have arrived.

/// Length of all extensions and trailers of one chunked body.
const MAX_IGNORED: usize = 8 << 10;

/// A request whose beginning, end and body are unambiguous.
pub(crate) struct Request {
    pub method: String,
    /// Path and query, or `*`.
    pub path: String,
    /// The host and port of a target that is a URL.
    pub host: Option<String>,
    pub fields: Vec<Field>,
    /// `None` if the request has no body, not even an empty one.
    pub body: Option<Vec<u8>>,
    /// Length of the whole request in bytes.
    pub length: usize,
}

/// Name and value of a header, each byte as a character.
pub(crate) type Field = (String, String);

/// The headers that the gate or the API reads. Only other headers may contain bytes beyond ASCII.
const READ: [&str; 10] = [
    "host",
    "origin",
    "authorization",
    "content-type",
    "content-encoding",
    "idempotency-key",
    "content-length",
    "transfer-encoding",
    "connection",
    "expect",
];

/// Why the bytes are not a [`Request`].
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Incomplete, and possibly malformed too.
    Cut,
    /// Malformed or ambiguous.
    Wrong,
    /// The body is longer than the limit.
    TooLong,
}

/// Parses the request at the beginning of `stream`.
pub(crate) fn read(stream: &[u8], max_body: usize) -> Result<Request, Fault> {
    let head_length = find(stream, b"\r\n\r\n").ok_or(Fault::Cut)? + 4;
    let head = text(&stream[..head_length - 4])?;
    let mut lines = head.split("\r\n");
    let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, version] = words[..] else { return Err(Fault::Wrong) };
    let fields = lines.map(field).collect::<Result<Vec<_>, _>>()?;
    let is_1_0 = version == "HTTP/1.0";
    let is_known = is_1_0 || version == "HTTP/1.1";
    if !is_token(method) || !is_visible(target) || !is_known {
        return Err(Fault::Wrong);
    }
    let (path, host) = place(method, target).ok_or(Fault::Wrong)?;
    let is_read = |name: &str| READ.iter().any(|read| read.eq_ignore_ascii_case(name));
    if fields.iter().any(|(name, value)| !value.is_ascii() && is_read(name)) {
        return Err(Fault::Wrong);
    }
    let hosts = values(&fields, "host").len();
    if hosts > 1 || hosts == 0 && !is_1_0 {
        return Err(Fault::Wrong);
    }
    let rest = &stream[head_length..];
    let (body, body_length) =
        match (&values(&fields, "content-length")[..], &values(&fields, "transfer-encoding")[..]) {
            ([], []) => (None, 0),
            ([length], []) => {
                let body = counted(rest, length, max_body)?;
                (Some(body.to_vec()), body.len())
            }
            ([], [coding]) if coding.eq_ignore_ascii_case("chunked") && !is_1_0 => {
                let (body, length) = chunked(rest, max_body)?;
                (Some(body), length)
            }
            _ => return Err(Fault::Wrong),
        };
    Ok(Request { method: method.to_owned(), path, host, fields, body, length: head_length + body_length })
}

/// Parses a forwarded head without the empty line at its end.
pub(crate) fn read_forwarded(head: &[u8]) -> Result<(String, Vec<Field>), Fault> {
    let head = text(head)?;
    let mut lines = head.strip_suffix("\r\n").ok_or(Fault::Cut)?.split("\r\n");
    let request_line = lines.next().unwrap_or_default().to_owned();
    Ok((request_line, lines.map(field).collect::<Result<_, _>>()?))
}

/// Lines without control characters, each byte a character; CR and LF only in pairs.
fn text(bytes: &[u8]) -> Result<String, Fault> {
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let is_line = |line: &str| line.chars().all(|c| c == '\t' || c >= ' ' && c != '\x7f');
    if text.split("\r\n").all(is_line) { Ok(text) } else { Err(Fault::Wrong) }
}

fn field(line: &str) -> Result<Field, Fault> {
    let (name, value) = line.split_once(':').ok_or(Fault::Wrong)?;
    let value = value.trim_matches([' ', '\t']);
    if is_token(name) { Ok((name.to_owned(), value.to_owned())) } else { Err(Fault::Wrong) }
}

/// Splits a target into path and query, and the host of a URL.
fn place(method: &str, target: &str) -> Option<(String, Option<String>)> {
    if target.starts_with('/') {
        return Some((target.to_owned(), None));
    }
    if target == "*" {
        return (method == "OPTIONS").then(|| (target.to_owned(), None));
    }
    let is_url = target.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("http://"));
    if method == "CONNECT" || !is_url {
        return None;
    }
    let rest = &target[7..];
    let host: String = rest.chars().take_while(|c| !"/?#".contains(*c)).collect();
    let path = match &rest[host.len()..] {
        "" if method == "OPTIONS" => "*".to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => format!("/{path}"),
    };
    is_host_and_port(&host).then_some((path, Some(host)))
}

fn is_host_and_port(text: &str) -> bool {
    // The port follows the last colon that is not within the brackets of an address.
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (text, ""),
    };
    let is_port =
        port.chars().all(|c| c.is_ascii_digit()) && (port.is_empty() || port.parse::<u16>().is_ok());
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_name(host),
    };
    is_port && is_host
}

/// Letters, digits, marks, and `%` only in front of two hexadecimal digits.
fn is_name(name: &str) -> bool {
    let mut parts = name.split('%');
    let is_plain =
        |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=".contains(c));
    let is_first_plain = parts.next().is_some_and(is_plain);
    let is_escape = |part: &str| part.len() >= 2 && part[..2].chars().all(|c| c.is_ascii_hexdigit());
    !name.is_empty() && is_first_plain && parts.all(|part| is_escape(part) && is_plain(&part[2..]))
}

fn is_token(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

fn is_visible(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_graphic())
}

fn values<'a>(fields: &'a [Field], wanted: &str) -> Vec<&'a str> {
    let fields = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
    fields.map(|(_, value)| value.as_str()).collect()
}

fn counted<'a>(rest: &'a [u8], length: &str, max_body: usize) -> Result<&'a [u8], Fault> {
    if length.is_empty() || !length.chars().all(|c| c.is_ascii_digit()) {
        return Err(Fault::Wrong);
    }
    match length.parse::<u128>() {
        Ok(length) if length <= max_body as u128 => rest.get(..length as usize).ok_or(Fault::Cut),
        _ => Err(Fault::TooLong),
    }
}

/// The body, and its length in the stream in bytes.
fn chunked(stream: &[u8], max_body: usize) -> Result<(Vec<u8>, usize), Fault> {
    let (mut body, mut at, mut ignored) = (Vec::new(), 0, 0);
    loop {
        let line = line(stream, &mut at)?;
        let (size, extension) = line.split_once(';').unwrap_or((&line, ""));
        ignored += extension.len();
        let is_size = extension.is_ascii()
            && (1..=16).contains(&size.len())
            && size.chars().all(|c| c.is_ascii_hexdigit());
        if !is_size || ignored > MAX_IGNORED {
            return Err(Fault::Wrong);
        }
        let size = u64::from_str_radix(size, 16).map_err(|_| Fault::Wrong)? as usize;
        if size == 0 {
            break;
        }
        if size > max_body - body.len() {
            return Err(Fault::TooLong);
        }
        let chunk = stream.get(at..at + size + 2).ok_or(Fault::Cut)?;
        body.extend_from_slice(chunk.strip_suffix(b"\r\n").ok_or(Fault::Wrong)?);
        at += chunk.len();
    }
    loop {
        // The text of a trailer does not matter, only its end.
        let trailer = line(stream, &mut at)?;
        ignored += trailer.chars().count();
        if trailer.is_empty() {
            return Ok((body, at));
        }
        if trailer.starts_with(|c: char| !c.is_ascii_graphic()) || ignored > MAX_IGNORED {
            return Err(Fault::Wrong);
        }
    }
}

/// The line that begins at `at`. Moves `at` behind the line.
fn line(stream: &[u8], at: &mut usize) -> Result<String, Fault> {
    let rest = &stream[*at..];
    let length = find(rest, b"\r\n").ok_or(Fault::Cut)?;
    *at += length + 2;
    text(&rest[..length])
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}
