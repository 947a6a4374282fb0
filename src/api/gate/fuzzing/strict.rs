//! A second reading of requests, from the grammar of RFC 9112 and the gate's own narrower rules. It shares no code with
//! the gate and works on whole texts, line by line, where the gate works byte by byte on what has come in.

/// Extensions and trailers of one chunked body.
const MAX_IGNORED: usize = 8 << 10;

/// A request whose beginning, end and body are beyond doubt.
pub(super) struct Request<'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub fields: Vec<Field<'a>>,
    /// `None` where there is none, not even an empty one.
    pub body: Option<Vec<u8>>,
    /// Of the whole request, in bytes.
    pub length: usize,
}

/// Name and value of a header.
pub(super) type Field<'a> = (&'a str, &'a str);

/// Why there is no [`Request`].
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// It is not all there, and perhaps wrong too.
    Cut,
    /// It is malformed, or can be read in two ways.
    Wrong,
    /// Its body is over the limit.
    TooLong,
}

/// The request that `stream` begins with.
pub(super) fn read(stream: &[u8], max_body: usize) -> Result<Request<'_>, Fault> {
    let head_length = find(stream, b"\r\n\r\n").ok_or(Fault::Cut)? + 4;
    let head = text(&stream[..head_length - 4])?;
    let mut lines = head.split("\r\n");
    let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, version] = words[..] else { return Err(Fault::Wrong) };
    let fields = lines.map(field).collect::<Result<Vec<_>, _>>()?;
    let is_1_0 = version == "HTTP/1.0";
    let is_known = is_1_0 || version == "HTTP/1.1";
    if !is_token(method) || !is_target(target) || !is_known {
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
    Ok(Request { method, target, fields, body, length: head_length + body_length })
}

/// A head that is sent on, without the empty line at its end.
pub(super) fn read_forwarded(head: &[u8]) -> Result<(&str, Vec<Field<'_>>), Fault> {
    let head = text(head)?.strip_suffix("\r\n").ok_or(Fault::Cut)?;
    let mut lines = head.split("\r\n");
    let request_line = lines.next().unwrap_or_default();
    Ok((request_line, lines.map(field).collect::<Result<_, _>>()?))
}

/// Lines of printable ASCII; CR and LF only in pairs.
fn text(bytes: &[u8]) -> Result<&str, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|_| Fault::Wrong)?;
    let is_line = |line: &str| line.chars().all(|c| c == '\t' || (' '..='~').contains(&c));
    if text.split("\r\n").all(is_line) { Ok(text) } else { Err(Fault::Wrong) }
}

fn field(line: &str) -> Result<Field<'_>, Fault> {
    let (name, value) = line.split_once(':').ok_or(Fault::Wrong)?;
    if is_token(name) { Ok((name, value.trim_matches([' ', '\t']))) } else { Err(Fault::Wrong) }
}

fn is_token(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

fn is_target(word: &str) -> bool {
    word.starts_with('/') && word.chars().all(|c| c.is_ascii_graphic())
}

fn values<'a>(fields: &[Field<'a>], wanted: &str) -> Vec<&'a str> {
    let fields = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
    fields.map(|(_, value)| *value).collect()
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

/// The body, and how many bytes it took.
fn chunked(stream: &[u8], max_body: usize) -> Result<(Vec<u8>, usize), Fault> {
    let (mut body, mut at, mut ignored) = (Vec::new(), 0, 0);
    loop {
        let line = line(stream, &mut at)?;
        let (size, extension) = line.split_once(';').unwrap_or((line, ""));
        ignored += extension.len();
        let is_size = (1..=16).contains(&size.len()) && size.chars().all(|c| c.is_ascii_hexdigit());
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
        // What stands in trailers is of no consequence, only where they end.
        let trailer = line(stream, &mut at)?;
        ignored += trailer.len();
        if trailer.is_empty() {
            return Ok((body, at));
        }
        if trailer.starts_with([' ', '\t']) || ignored > MAX_IGNORED {
            return Err(Fault::Wrong);
        }
    }
}

/// The line that begins at `at`, which is moved behind it.
fn line<'a>(stream: &'a [u8], at: &mut usize) -> Result<&'a str, Fault> {
    let rest = &stream[*at..];
    let length = find(rest, b"\r\n").ok_or(Fault::Cut)?;
    *at += length + 2;
    text(&rest[..length])
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}
