//! Reads replies of Redis from a connection, in version 2 of its protocol.
//!
//! The reader of the crate `redis` copies each reply into a buffer that never shrinks, and is larger and slower, since it
//! can also wait for a reply without a thread.

use std::io::{self, BufRead, Read};

use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value, make_extension_error};

/// The longest line: far longer than any error of Redis.
const LONGEST_LINE: u64 = 64 << 10;
/// How deep lists may be nested. No script nests more than a few.
const DEEPEST: usize = 100;
/// For how many bytes or values memory is reserved before they have arrived.
const RESERVED: usize = 1 << 10;

/// The errors of Redis that the crate `redis` has a kind for, as far as this crate asks for the kind.
const KINDS: [(&str, ServerErrorKind); 6] = [
    ("ERR", ServerErrorKind::ResponseError),
    ("NOSCRIPT", ServerErrorKind::NoScript),
    ("LOADING", ServerErrorKind::BusyLoading),
    ("MASTERDOWN", ServerErrorKind::MasterDown),
    ("CLUSTERDOWN", ServerErrorKind::ClusterDown),
    ("READONLY", ServerErrorKind::ReadOnly),
];

/// Reads one reply, and nothing after it.
///
/// # Errors
/// The error that Redis sent, alone or inside a list. An error of the kind `Io` if the connection has failed, and of the kind
/// `Parse` if the bytes are not a reply: then the connection cannot be used any more.
pub(crate) fn read_reply(stream: &mut impl BufRead) -> RedisResult<Value> {
    let mut reader = Reader { stream, line: Vec::new(), error: None };
    let value = reader.value(0)?;
    reader.error.map_or(Ok(value), Err)
}

struct Reader<'a, S> {
    stream: &'a mut S,
    /// The last line, without its end.
    line: Vec<u8>,
    /// The first error of Redis in this reply.
    error: Option<RedisError>,
}

impl<S: BufRead> Reader<'_, S> {
    fn value(&mut self, depth: usize) -> RedisResult<Value> {
        // At once, since the line of another protocol may never end.
        if self.stream.fill_buf()?.first().is_some_and(|kind| !b"$*:+-".contains(kind)) {
            return Err(invalid());
        }
        self.read_line()?;
        let (kind, text) = self.line.split_first().ok_or_else(invalid)?;
        match kind {
            b'$' => match number(text)? {
                ..0 => Ok(Value::Nil),
                length => self.text(usize::try_from(length).map_err(|_| invalid())?).map(Value::BulkString),
            },
            b'*' if depth < DEEPEST => match number(text)? {
                ..0 => Ok(Value::Nil),
                length => self.list(usize::try_from(length).map_err(|_| invalid())?, depth + 1),
            },
            b':' => number(text).map(Value::Int),
            b'+' if text == b"OK" => Ok(Value::Okay),
            b'+' => Ok(Value::SimpleString(String::from_utf8_lossy(text).into_owned())),
            b'-' => {
                let error = server_error(&String::from_utf8_lossy(text));
                self.error.get_or_insert(error);
                Ok(Value::Nil)
            }
            _ => Err(invalid()),
        }
    }

    fn list(&mut self, length: usize, depth: usize) -> RedisResult<Value> {
        let mut values = Vec::with_capacity(length.min(RESERVED));
        for _ in 0..length {
            values.push(self.value(depth)?);
        }
        Ok(Value::Array(values))
    }

    fn text(&mut self, length: usize) -> RedisResult<Vec<u8>> {
        let mut text = Vec::with_capacity(length.min(RESERVED));
        while text.len() < length {
            let arrived = self.stream.fill_buf()?;
            if arrived.is_empty() {
                return Err(ended());
            }
            let size = arrived.len().min(length - text.len());
            text.extend_from_slice(&arrived[..size]);
            self.stream.consume(size);
        }
        self.read_line()?;
        if self.line.is_empty() { Ok(text) } else { Err(invalid()) }
    }

    fn read_line(&mut self) -> RedisResult<()> {
        self.line.clear();
        self.stream.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut self.line)?;
        match self.line.strip_suffix(b"\r\n") {
            Some(line) => {
                self.line.truncate(line.len());
                Ok(())
            }
            None if self.line.ends_with(b"\n") || self.line.len() as u64 == LONGEST_LINE => Err(invalid()),
            None => Err(ended()),
        }
    }
}

fn number(text: &[u8]) -> RedisResult<i64> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(invalid)
}

/// The error of Redis that this line tells: a code and often a text.
fn server_error(line: &str) -> RedisError {
    let (code, detail) = line.split_once(' ').map_or((line, None), |(code, detail)| (code, Some(detail)));
    let detail = detail.map(str::to_owned);
    match KINDS.into_iter().find(|(known, _)| *known == code) {
        Some((_, kind)) => (ErrorKind::Server(kind), "an error of Redis", detail.unwrap_or_default()).into(),
        None => make_extension_error(code.to_owned(), detail),
    }
}

fn invalid() -> RedisError {
    (ErrorKind::Parse, "the reply does not follow the protocol of Redis").into()
}

fn ended() -> RedisError {
    io::Error::from(io::ErrorKind::UnexpectedEof).into()
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn read(bytes: &[u8]) -> RedisResult<Value> {
        read_reply(&mut BufReader::with_capacity(7, bytes))
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn every_kind_of_value_is_read() {
        for (bytes, value) in [
            ("+OK\r\n", Value::Okay),
            ("+PONG\r\n", Value::SimpleString("PONG".to_owned())),
            (":-12\r\n", Value::Int(-12)),
            ("$-1\r\n", Value::Nil),
            ("*-1\r\n", Value::Nil),
            ("$0\r\n\r\n", text("")),
            ("$12\r\ntwo\r\nlines +\r\n", text("two\r\nlines +")),
            ("*0\r\n", Value::Array(Vec::new())),
            (
                "*3\r\n:1\r\n*2\r\n$1\r\na\r\n$-1\r\n$1\r\nb\r\n",
                Value::Array(vec![Value::Int(1), Value::Array(vec![text("a"), Value::Nil]), text("b")]),
            ),
        ] {
            assert_eq!(read(bytes.as_bytes()).unwrap(), value, "{bytes:?}");
        }
    }

    #[test]
    fn bytes_after_a_reply_are_left_for_the_next_one() {
        let mut stream = BufReader::new(&b"$1\r\na\r\n:2\r\n"[..]);
        assert_eq!(read_reply(&mut stream).unwrap(), text("a"));
        assert_eq!(read_reply(&mut stream).unwrap(), Value::Int(2));
        assert!(read_reply(&mut stream).unwrap_err().is_connection_dropped());
    }

    #[test]
    fn an_error_of_redis_keeps_its_code_and_text_and_the_connection_stays_in_step() {
        let mut stream =
            BufReader::new(&b"*2\r\n-OOM command not allowed\r\n:1\r\n-NOSCRIPT No script\r\n-ERR\r\n"[..]);
        let mut next = || {
            let error = read_reply(&mut stream).unwrap_err();
            (error.kind(), error.code().unwrap().to_owned(), error.detail().unwrap_or_default().to_owned())
        };
        let owned = |kind, code: &str, detail: &str| (kind, code.to_owned(), detail.to_owned());
        assert_eq!(next(), owned(ErrorKind::Extension, "OOM", "command not allowed"));
        assert_eq!(next(), owned(ErrorKind::Server(ServerErrorKind::NoScript), "NOSCRIPT", "No script"));
        assert_eq!(next(), owned(ErrorKind::Server(ServerErrorKind::ResponseError), "ERR", ""));
    }

    #[test]
    fn a_reply_that_ends_early_is_a_lost_connection() {
        let whole = b"*2\r\n$3\r\nabc\r\n-ERR no\r\n";
        for end in 0..whole.len() {
            let error = read(&whole[..end]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{end}");
        }
    }

    #[test]
    fn bytes_that_are_no_reply_are_an_error_and_take_no_memory() {
        let deep = "*1\r\n".repeat(1000);
        for bytes in
            ["\r\n", ":\r\n", ":1x\r\n", ":1\n", "$x\r\n", "$1\r\nab\r\n", "?1\r\n", "HTTP/1.1 200", &deep]
        {
            assert_eq!(read(bytes.as_bytes()).unwrap_err().kind(), ErrorKind::Parse, "{bytes:?}");
        }
        let endless = BufReader::new(io::repeat(b'+'));
        assert_eq!(read_reply(&mut endless.take(1 << 20)).unwrap_err().kind(), ErrorKind::Parse);
        for large in ["$9223372036854775807\r\nabc", "*9223372036854775807\r\n:1\r\n"] {
            assert_eq!(read(large.as_bytes()).unwrap_err().kind(), ErrorKind::Io);
        }
    }
}
