//! Readers of texts: numbers, durations, sizes, addresses, queue lists.
//!
//! Each reader is a function of the text (and of the range). Its error says what is allowed. Errors of readers of secrets
//! contain nothing of the text. The readers know neither the settings nor the source of a text.

use std::collections::HashSet;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::secret::Secret;
use super::types::QueueShare;
use crate::job::duration::{self, InvalidDuration, in_largest_unit, split_unit};
use crate::job::rules::{QUEUE_NAME, whole_number_in};
use crate::net::authorities::Authorities;
use crate::net::certificates::{ClientCertificate, ClientKey};
use crate::net::http_url::HttpUrl;
use crate::net::redis_url;

/// The largest count that numbers of Redis's Lua hold exactly.
pub(super) const MAX_COUNT: u64 = (1 << 53) - 1;
/// The longest duration: ten years. A longer one is most likely a mistake, and adding one to a clock never overflows.
pub(super) const MAX_DURATION: Duration = Duration::from_secs(3650 * 24 * 3600);

const SIZE_UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
/// The longest token. It must fit into the head of a request, which is limited to 16 KiB.
const MAX_TOKEN: usize = 1024;

/// Why a text is not a valid value. `problem` completes a sentence that begins with the text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid {
    pub problem: String,
    pub allowed: String,
}

impl Invalid {
    pub fn new(problem: impl Into<String>, allowed: impl Into<String>) -> Invalid {
        Invalid { problem: problem.into(), allowed: allowed.into() }
    }
}

/// `true` or `false`, `1` or `0`.
pub(super) fn boolean(text: &str) -> Result<bool, Invalid> {
    choice(text, &[("true", true), ("false", false), ("1", true), ("0", false)])
}

/// One of these words.
pub(super) fn choice<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Invalid> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        Invalid::new("is none of the allowed words", allowed.join(", "))
    })
}

/// Decimal digits without sign or separators, within a range.
pub(super) fn number<T>(text: &str, range: RangeInclusive<T>) -> Result<T, Invalid>
where
    T: TryFrom<u64> + PartialOrd + Display,
{
    let number = digits(text).ok_or("is not a whole number");
    number
        .and_then(|number| T::try_from(number).map_err(|_| "is too large"))
        .and_then(|number| within(number, &range))
        .map_err(|problem| Invalid::new(problem, whole_number_in(&range)))
}

/// Digits and one of `ms`, `s`, `m`, `h`, `d`; zero needs no unit.
pub(super) fn duration(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, Invalid> {
    read_duration(text).and_then(|duration| within(duration, &range)).map_err(|problem| {
        let (least, most) = (duration::to_text(*range.start()), duration::to_text(*range.end()));
        Invalid::new(problem, format!("{least} to {most}, as digits and ms, s, m, h or d"))
    })
}

fn read_duration(text: &str) -> Result<Duration, &'static str> {
    match duration::parse(text) {
        Ok(duration) => Ok(duration),
        Err(InvalidDuration::NoUnit) if digits(text) == Some(0) => Ok(Duration::ZERO),
        Err(InvalidDuration::NoUnit) => Err("has no unit"),
        Err(InvalidDuration::Form) => Err("is not a duration"),
    }
}

/// Bytes as digits, or digits and one of `KiB`, `MiB`, `GiB`.
pub(super) fn size(text: &str, range: RangeInclusive<u64>) -> Result<usize, Invalid> {
    let size = read_size(text).and_then(|size| within(size, &range));
    size.and_then(|size| usize::try_from(size).map_err(|_| "is too large")).map_err(|problem| {
        let (least, most) = (size_text(*range.start()), size_text(*range.end()));
        Invalid::new(problem, format!("{least} to {most}, as bytes or digits and KiB, MiB or GiB"))
    })
}

fn read_size(text: &str) -> Result<u64, &'static str> {
    let (number, unit) = split_unit(text).ok_or("is not a size")?;
    let unit = if unit.is_empty() { Some(1) } else { duration::factor_of(unit, &SIZE_UNITS) };
    Ok(number.saturating_mul(unit.ok_or("is not a size")?))
}

/// Decimal digits alone, read as [`split_unit`] does.
fn digits(text: &str) -> Option<u64> {
    split_unit(text).filter(|(_, rest)| rest.is_empty()).map(|(number, _)| number)
}

fn within<T: PartialOrd>(value: T, range: &RangeInclusive<T>) -> Result<T, &'static str> {
    match value {
        value if value < *range.start() => Err("is too small"),
        value if value > *range.end() => Err("is too large"),
        value => Ok(value),
    }
}

/// A number of bytes as [`size`] reads it.
pub(super) fn size_text(bytes: u64) -> String {
    in_largest_unit(bytes.into(), &SIZE_UNITS)
}

/// `ADDR:PORT` with an IPv4 address, an IPv6 address in brackets, or `localhost` (127.0.0.1).
pub(super) fn address(text: &str) -> Result<SocketAddr, Invalid> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("{}:{port}", Ipv4Addr::LOCALHOST));
    numeric.as_deref().unwrap_or(text).parse().map_err(|_| {
        Invalid::new(
            "is not an address with a port",
            "ADDR:PORT such as 127.0.0.1:8080, [::1]:8080 or localhost:8080 (port 0 takes a free one)",
        )
    })
}

/// A port of 127.0.0.1.
pub(super) fn local_port(text: &str) -> Result<SocketAddr, Invalid> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, number::<u16>(text, 0..=u16::MAX)?)))
}

/// Any path that is not empty.
pub(super) fn path(text: &str) -> Result<PathBuf, Invalid> {
    if text.is_empty() || text.contains('\0') {
        return Err(Invalid::new("is not a path", "the path of a folder"));
    }
    Ok(PathBuf::from(text))
}

/// The prefix of all keys.
pub(super) fn namespace(text: &str) -> Result<String, Invalid> {
    if !QUEUE_NAME.accepts(text) {
        return Err(Invalid::new("is not a valid namespace", QUEUE_NAME.allowed));
    }
    Ok(text.to_owned())
}

/// A comma list of `name`, `name=weight` or, for a strict queue, `name!`. Spaces around an entry are ignored.
pub(super) fn queues(text: &str) -> Result<Vec<QueueShare>, Invalid> {
    let queues: Result<Vec<QueueShare>, String> = text.split(',').map(|entry| queue(entry.trim())).collect();
    queues.and_then(distinct).map_err(|problem| {
        let name = QUEUE_NAME.allowed;
        let allowed = format!(
            "a comma list of NAME, NAME=WEIGHT or NAME!, each name once, of {name}, weights 1 to 100"
        );
        Invalid::new(problem, allowed)
    })
}

fn queue(entry: &str) -> Result<QueueShare, String> {
    let (name, weight) = match entry.split_once('=') {
        Some((name, weight)) => (name, Some(weight)),
        None => (entry, None),
    };
    let (name, strict) = name.strip_suffix('!').map_or((name, false), |name| (name, true));
    if strict && weight.is_some() {
        return Err(format!("has an entry {entry:?} with a weight, but a strict queue has none"));
    }
    if !QUEUE_NAME.accepts(name) {
        return Err(format!("has an entry {entry:?} without a valid name"));
    }
    let weight = number(weight.unwrap_or("1"), 1..=100)
        .map_err(|_| format!("has an entry {entry:?} without a valid weight"))?;
    Ok(QueueShare { name: name.to_owned(), weight, strict })
}

fn distinct(queues: Vec<QueueShare>) -> Result<Vec<QueueShare>, String> {
    let mut seen = HashSet::new();
    match queues.iter().find(|queue| !seen.insert(queue.name.as_str())) {
        Some(twice) => Err(format!("names the queue {:?} twice", twice.name)),
        None => Ok(queues),
    }
}

/// What `redis-key-file` may name.
pub(super) const KEY_FILE: &str =
    "a file with an unencrypted private key in PEM, of the certificate in redis-cert-file";

/// A Redis URL with a scheme that this build supports.
pub(super) fn redis_url(text: &str) -> Result<Secret, Invalid> {
    let tls = if cfg!(feature = "tls") { "; with TLS: rediss, rediss+sentinel, rediss+cluster" } else { "" };
    let allowed = format!(
        "redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT],../NAME[/DB], \
         redis+cluster://[[USER]:PASSWORD@]HOST[:PORT],.., redis+unix:///PATH or unix:///PATH[?db=DB]{tls}"
    );
    redis_url::parse(text).map(|_| Secret::new(text)).map_err(|problem| Invalid::new(problem, allowed))
}

/// Reads the certificates of authorities in a file.
pub(super) fn ca_file(path: &str) -> Result<Authorities, Invalid> {
    let allowed = "a file with certificates of authorities in PEM";
    Authorities::from_file(Path::new(path)).map_err(|error| Invalid::new(error.to_string(), allowed))
}

/// Reads the certificate of a client in a file.
pub(super) fn cert_file(path: &str) -> Result<ClientCertificate, Invalid> {
    let allowed = "a file with a certificate in PEM";
    ClientCertificate::from_file(Path::new(path)).map_err(|error| Invalid::new(error.to_string(), allowed))
}

/// Reads the private key of a client's certificate in a file.
pub(super) fn key_file(path: &str) -> Result<ClientKey, Invalid> {
    ClientKey::from_file(Path::new(path)).map_err(|error| Invalid::new(error.to_string(), KEY_FILE))
}

/// The URL of an HTTP endpoint.
pub(super) fn http_url(text: &str) -> Result<String, Invalid> {
    let scheme = if cfg!(feature = "tls") { "http:// or https://" } else { "http://" };
    let allowed = format!("a URL with {scheme}, such as http://HOST:PORT/PATH");
    HttpUrl::parse(text).map(|_| text.to_owned()).map_err(|problem| Invalid::new(problem, allowed))
}

/// A token that a client can send in a header.
pub(super) fn token(text: &str) -> Result<Secret, Invalid> {
    let problem = match text.len() {
        0 => "is empty",
        length if length > MAX_TOKEN => "is too long",
        _ if !text.bytes().all(|b| b.is_ascii_graphic()) => {
            "has a space or a character that is not visible ASCII"
        }
        _ => return Ok(Secret::new(text)),
    };
    Err(Invalid::new(problem, format!("1 to {MAX_TOKEN} visible ASCII characters")))
}

/// Reads the token in a file, without white space around it.
pub(super) fn token_file(path: &str) -> Result<Secret, Invalid> {
    let text = read_text(Path::new(path), 2 * MAX_TOKEN as u64)
        .map_err(|error| Invalid::new(format!("cannot be read: {error}"), "a file that holds the token"))?;
    token(text.trim()).map_err(|why| Invalid::new(format!("holds a token that {}", why.problem), why.allowed))
}

/// Reads a file of UTF-8 of at most `limit` bytes, so that a path such as `/dev/zero` does not fill the memory. A byte order
/// mark at the start, which some editors write, is removed.
///
/// # Errors
/// The file cannot be read, has more bytes, or is not UTF-8.
pub(super) fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {limit} bytes")));
    }
    match text.strip_prefix('\u{feff}') {
        Some(rest) => Ok(rest.to_owned()),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY_DURATION: RangeInclusive<Duration> = Duration::ZERO..=MAX_DURATION;

    #[test]
    fn a_duration_needs_a_unit_unless_it_is_zero() {
        for (text, ms) in [("0", 0), ("00", 0), ("0s", 0), ("007s", 7_000), ("90d", 7_776_000_000)] {
            assert_eq!(duration(text, ANY_DURATION), Ok(Duration::from_millis(ms)), "{text}");
        }
        for (text, problem) in [("5", "has no unit"), ("5 s", "is not a duration"), ("", "is not a duration")]
        {
            assert_eq!(duration(text, ANY_DURATION).map_err(|why| why.problem), Err(problem.to_owned()));
        }
    }

    #[test]
    fn every_number_and_unit_is_read_or_refused_for_its_range() {
        let mut random = fastrand::Rng::with_seed(12);
        for _ in 0..20_000 {
            let number = random.u64(..) >> random.u32(0..64);
            let units: [(&str, u128); 5] =
                [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
            let (unit, factor) = units[random.usize(0..units.len())];
            let exact = u128::from(number) * factor;
            let result = duration(&format!("{number}{unit}"), ANY_DURATION);
            if exact <= MAX_DURATION.as_millis() {
                assert_eq!(result.map(|d| d.as_millis()), Ok(exact));
            } else {
                assert_eq!(result.map_err(|why| why.problem), Err("is too large".to_owned()));
            }
        }
    }

    #[test]
    fn no_text_makes_a_reader_panic() {
        let alphabet: Vec<char> = "0123456789mshd=,:/@.[]KiBMG -+\n\0é\u{1b}".chars().collect();
        let mut random = fastrand::Rng::with_seed(13);
        for _ in 0..20_000 {
            let length = random.usize(0..24);
            let text: String = (0..length).map(|_| alphabet[random.usize(0..alphabet.len())]).collect();
            let _ = duration(&text, ANY_DURATION);
            let _ = size(&text, 0..=u64::MAX);
            let _ = number(&text, 0..=u32::MAX);
            let _ = (address(&text), queues(&text), redis_url(&text), http_url(&text), token(&text));
            let _ = Secret::new(format!("redis://{text}")).redacted();
        }
    }

    #[test]
    fn sizes_are_bytes_or_binary_units() {
        for (text, bytes) in [("1048576", 1 << 20), ("1MiB", 1 << 20), ("64KiB", 64 << 10), ("1GiB", 1 << 30)]
        {
            assert_eq!(size(text, 0..=u64::MAX), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "1MB", "1 MiB", "1mib", "-1", "1.5MiB", "1K", "99999999999999999999GiB"] {
            assert!(size(text, 0..=1 << 40).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_ipv4_ipv6_or_localhost() {
        for (text, expected) in [
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::1]:80", "[::1]:80"),
            ("0.0.0.0:8080", "0.0.0.0:8080"),
            ("localhost:9", "127.0.0.1:9"),
        ] {
            assert_eq!(address(text).map(|address| address.to_string()), Ok(expected.to_owned()));
        }
        for text in
            ["", "8080", ":8080", "127.0.0.1", "localhost", "localhost:", "::1:80:x", "h:80", "1.2.3.4:65536"]
        {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_queue_list_has_distinct_names_and_weights() {
        let share = |name: &str, weight| QueueShare { name: name.to_owned(), weight, strict: false };
        let strict = |name: &str| QueueShare { strict: true, ..share(name, 1) };
        assert_eq!(queues("default"), Ok(vec![share("default", 1)]));
        assert_eq!(queues("a=3, b ,c-1=100"), Ok(vec![share("a", 3), share("b", 1), share("c-1", 100)]));
        assert_eq!(queues("a!, b=3,c!"), Ok(vec![strict("a"), share("b", 3), strict("c")]));
        for text in [
            "", ",", "a,", "a,,b", "a,a", "a=1,a=2", "a=0", "a=101", "a=", "a=b", "=1", "a b", "é", "a=1=2",
            "!", "a!!", "a !", "a!=3", "a!=", "a=3!", "a,a!",
        ] {
            assert!(queues(text).is_err(), "{text}");
        }
    }

    #[test]
    fn urls_need_a_known_scheme_and_a_place() {
        for url in
            ["redis://h", "redis://u:p@h:1/2", "unix:///s", "redis+unix:///s?db=1", "redis://[::1]:6379"]
        {
            assert!(redis_url(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "h:6379",
            "redis://",
            "redis://:1",
            "redis://u:p@",
            "unix://s",
            "http://h",
            "redis://h /1",
            "redis://h:99999",
        ] {
            assert!(redis_url(url).is_err(), "{url}");
        }
        assert_eq!(redis_url("rediss://u:p@h:1/2").is_ok(), cfg!(feature = "tls"));
        assert!(redis_url("rediss://h#insecure").is_err());
        assert!(redis_url("rediss://:1").is_err());
        for url in [
            "",
            "h",
            "http://",
            "http:///x",
            "http://:80/",
            "ftp://h",
            "http://h/a b",
            "HTTP//h",
            "http://h:0/",
        ] {
            assert!(http_url(url).is_err(), "{url}");
        }
        assert_eq!(http_url("https://h/x").is_ok(), cfg!(feature = "tls"));
        assert!(http_url("http://127.0.0.1:9000/notify").is_ok());
    }
}
