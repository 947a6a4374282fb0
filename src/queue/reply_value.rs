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

/// Texts and a byte with their number modulo 256, all joined by zero bytes; and whether this number is right. If it is wrong,
/// a text has a zero byte.
pub(super) fn as_joined_texts(value: &Value) -> Result<(Vec<&[u8]>, bool), Error> {
    let Value::BulkString(bytes) = value else { return Err(unexpected(value)) };
    let [texts @ .., 0, number] = bytes.as_slice() else { return Err(unexpected(value)) };
    let texts: Vec<&[u8]> = texts.split(|byte| *byte == 0).collect();
    let is_right = texts.len() % 256 == usize::from(*number);
    Ok((texts, is_right))
}

/// The bytes of `name, value, ..`, without the pairs of which one is not a text.
pub(super) fn text_pairs(values: &[Value]) -> Vec<&[u8]> {
    let pairs = values.chunks_exact(2).filter_map(|pair| match pair {
        [Value::BulkString(name), Value::BulkString(value)] => Some([name.as_slice(), value.as_slice()]),
        _ => None,
    });
    pairs.flatten().collect()
}

pub(super) fn unexpected(value: &Value) -> Error {
    let mut shown = format!("{value:?}");
    shown.truncate(shown.floor_char_boundary(SHOWN));
    Error::Protocol(shown)
}
