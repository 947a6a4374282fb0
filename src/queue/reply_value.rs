//! Reads values out of a reply of Redis. A value of another shape is an [`Error::Protocol`].

use redis::Value;

use super::error::Error;
use crate::job::JobId;

/// How many bytes of an unexpected value an error shows.
const SHOWN: usize = 200;

pub(super) fn as_array(value: Value) -> Result<Vec<Value>, Error> {
    match value {
        Value::Array(values) => Ok(values),
        other => Err(unexpected(&other)),
    }
}

/// The first value of an array.
pub(super) fn first(values: &[Value]) -> Result<&Value, Error> {
    values.first().ok_or_else(|| Error::Protocol("an empty array".to_owned()))
}

/// A whole number; Redis sends it as a number or as digits.
pub(super) fn as_int(value: &Value) -> Result<i64, Error> {
    match value {
        Value::Int(number) => Ok(*number),
        Value::BulkString(digits) => std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| unexpected(value)),
        other => Err(unexpected(other)),
    }
}

/// A whole number that fits into `T`: for an unsigned `T` it is not negative.
pub(super) fn as_count<T: TryFrom<i64>>(value: &Value) -> Result<T, Error> {
    T::try_from(as_int(value)?).map_err(|_| unexpected(value))
}

/// A text; nil is the empty text. Bytes that are not UTF-8 are replaced.
pub(super) fn as_text(value: &Value) -> Result<String, Error> {
    match value {
        Value::BulkString(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Ok(text.clone()),
        Value::Nil => Ok(String::new()),
        other => Err(unexpected(other)),
    }
}

pub(super) fn as_texts(value: Value) -> Result<Vec<String>, Error> {
    as_array(value)?.iter().map(as_text).collect()
}

/// The bytes of an entry of a list or set, which may not be text.
pub(super) fn as_bytes(value: Value) -> Result<Vec<u8>, Error> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        other => Err(unexpected(&other)),
    }
}

pub(super) fn as_job_id(value: &Value) -> Result<JobId, Error> {
    as_text(value)?.parse().map_err(|_| unexpected(value))
}

/// The texts of an array that Lua packed with `cmsgpack` (MessagePack).
pub(super) fn as_packed_texts(value: Value) -> Result<Vec<Value>, Error> {
    let Value::BulkString(bytes) = &value else { return Err(unexpected(&value)) };
    unpack(bytes).ok_or_else(|| unexpected(&value))
}

fn unpack(mut rest: &[u8]) -> Option<Vec<Value>> {
    let rest = &mut rest;
    let size = match split(rest, 1)? {
        [head @ 0x90..=0x9f] => usize::from(head & 0xf),
        [0xdc] => length(rest, 2)?,
        [0xdd] => length(rest, 4)?,
        _ => return None,
    };
    let mut texts = Vec::with_capacity(size.min(64));
    for _ in 0..size {
        let size = match split(rest, 1)? {
            [head @ 0xa0..=0xbf] => usize::from(head & 0x1f),
            [0xd9] => length(rest, 1)?,
            [0xda] => length(rest, 2)?,
            [0xdb] => length(rest, 4)?,
            _ => return None,
        };
        texts.push(Value::BulkString(split(rest, size)?.to_vec()));
    }
    rest.is_empty().then_some(texts)
}

/// Splits off the next `size` bytes.
fn split<'a>(rest: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let (part, left) = rest.split_at_checked(size)?;
    *rest = left;
    Some(part)
}

/// A big-endian length of `size` bytes.
fn length(rest: &mut &[u8], size: usize) -> Option<usize> {
    Some(split(rest, size)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
}

pub(super) fn unexpected(value: &Value) -> Error {
    let mut shown = format!("{value:?}");
    shown.truncate(shown.floor_char_boundary(SHOWN));
    Error::Protocol(shown)
}
