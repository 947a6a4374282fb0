//! A few short commands to a Redis on a unix socket, without the Redis client, which belongs to the queue.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long one answer on the socket may take.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// No answer of these commands is nearly as long; what sends more is no redis-server.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// Says one command without spaces in its arguments, on a connection of its own; the texts of the answer.
pub(crate) fn ask(socket: &Path, command: &str) -> Result<Vec<Vec<u8>>, Unanswered> {
    let mut stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Unanswered::Nobody,
        _ => Unanswered::Io(error),
    })?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    stream.set_write_timeout(Some(ANSWER_TIME))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    read_answer(&mut BufReader::new(stream.take(MAX_ANSWER_BYTES)))
}

/// Why a command got no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// Nobody listens on the socket.
    Nobody,
    /// The answer is an error.
    Error(String),
    /// The connection broke, took too long, or what came is no answer of a Redis.
    Io(io::Error),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Unanswered::Nobody => f.write_str("nobody listens on its socket"),
            Unanswered::Error(error) => f.write_str(error),
            Unanswered::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for Unanswered {
    fn from(error: io::Error) -> Unanswered {
        Unanswered::Io(error)
    }
}

/// Reads one answer in Redis's protocol: a line, a text, or a list of texts.
pub(crate) fn read_answer(from: &mut impl BufRead) -> Result<Vec<Vec<u8>>, Unanswered> {
    let line = read_line(from)?;
    match line.split_first() {
        Some((b'+', text)) => Ok(vec![text.to_vec()]),
        Some((b'-', text)) => Err(Unanswered::Error(String::from_utf8_lossy(text).into_owned())),
        Some((b'$', length)) => Ok(vec![read_text(from, length)?]),
        Some((b'*', count)) => (0..number(count)?).map(|_| read_item(from)).collect(),
        _ => Err(invalid()),
    }
}

/// Reads one text of a list.
fn read_item(from: &mut impl BufRead) -> Result<Vec<u8>, Unanswered> {
    match read_line(from)?.split_first() {
        Some((b'$', length)) => read_text(from, length),
        _ => Err(invalid()),
    }
}

/// Reads a text of this length, and the end of line that follows it.
fn read_text(from: &mut impl BufRead, length: &[u8]) -> Result<Vec<u8>, Unanswered> {
    let length = number(length)?;
    let mut text = Vec::new();
    from.take(length.saturating_add(2)).read_to_end(&mut text)?;
    if (text.len() as u64) < length.saturating_add(2) {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    text.truncate(text.len().saturating_sub(2));
    Ok(text)
}

fn number(digits: &[u8]) -> Result<u64, Unanswered> {
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or_else(invalid)
}

fn invalid() -> Unanswered {
    Unanswered::Io(io::ErrorKind::InvalidData.into())
}

/// Reads a line without its end.
pub(crate) fn read_line(from: &mut impl BufRead) -> Result<Vec<u8>, Unanswered> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\n") {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    if !line.ends_with(b"\r\n") {
        return Err(invalid());
    }
    line.truncate(line.len() - 2);
    Ok(line)
}
