//! Fuzzing of the request reader: [`check`] gets the bytes of one connection.
//!
//! The first byte chooses how the other bytes are split into reads. Every split must give the same requests, and a
//! [second, strict parser](strict) must find each request in the same place with the same body. A request that the gate
//! rejects as malformed must be malformed to the strict parser too.

mod strict;

use std::sync::Arc;

use crate::gate::buffer::{Account, Budget, Buffer};
use crate::gate::error::GateError;
use crate::gate::head::{Framing, MAX_HEAD, PROBE_PATH};
use crate::gate::request_reader::{self, ByteSource, MAX_EMPTY_LINES};

const MAX_BODY: usize = 600;
/// More memory than any of these connections needs.
const AMPLE: usize = 1 << 20;
/// The most memory that a connection may use: head and body, in buffers that double.
const MAX_HELD: usize = 4 * (MAX_HEAD + MAX_BODY);
/// Headers that tiny_http must not get: they are about the connection to the client, or frame a body.
const NEVER_FORWARDED: [&str; 10] = [
    "content-length",
    "transfer-encoding",
    "expect",
    "keep-alive",
    "upgrade",
    "te",
    "trailer",
    "proxy-connection",
    "proxy-authorization",
    "gate-client",
];

/// The requests in the bytes of a connection.
#[derive(PartialEq, Eq, Debug)]
struct Outcome {
    requests: Vec<Forwarded>,
    end: End,
}

/// A request that was forwarded.
#[derive(PartialEq, Eq, Debug)]
struct Forwarded {
    forward: Vec<u8>,
    body: Option<Vec<u8>>,
    keep_alive: bool,
    /// Where the request ended in the stream.
    end: usize,
}

/// Why there was no further request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Rejected(GateError),
    /// The bytes were used up.
    Empty,
}

impl From<GateError> for End {
    fn from(error: GateError) -> End {
        End::Rejected(error)
    }
}

/// A connection whose reads return a given number of bytes.
struct Reads<'a> {
    rest: &'a [u8],
    sizes: Sizes,
}

impl ByteSource for Reads<'_> {
    type Error = End;

    fn fill(&mut self, input: &mut Buffer, expected: usize) -> Result<(), End> {
        if self.rest.is_empty() {
            return Err(End::Empty);
        }
        input.make_room(expected)?;
        let size = self.sizes.next().min(self.rest.len());
        let count = input.read_from(&self.rest[..size]).map_err(|_| End::Empty)?;
        assert!(count > 0, "there is room after make_room()");
        assert!(input.data().len() <= MAX_HELD, "a connection holds no more than its limits");
        self.rest = &self.rest[count..];
        Ok(())
    }
}

/// How many bytes each read returns.
enum Sizes {
    Fixed(usize),
    Random(fastrand::Rng),
}

impl Sizes {
    fn of(pattern: u8) -> Sizes {
        match pattern {
            0..128 => Sizes::Fixed(usize::from(pattern) + 1),
            _ => Sizes::Random(fastrand::Rng::with_seed(pattern.into())),
        }
    }

    fn next(&mut self) -> usize {
        match self {
            Sizes::Fixed(size) => *size,
            Sizes::Random(random) => 1 << random.u32(0..10),
        }
    }
}

/// Reads the bytes of one connection, and panics where a promise is broken.
pub fn check(data: &[u8]) {
    let Some((&pattern, stream)) = data.split_first() else { return };
    let outcome = run(stream, Sizes::Fixed(usize::MAX), AMPLE);
    check_against_strict_parser(stream, &outcome);

    let split = run(stream, Sizes::of(pattern), AMPLE);
    assert_eq!(split, outcome, "the split into reads does not matter");

    let poor = run(stream, Sizes::of(pattern), 0);
    let is_beginning = outcome.requests.starts_with(&poor.requests);
    assert!(is_beginning, "a spent budget changes no request");
    assert!(poor.end == End::Rejected(GateError::Overloaded) || poor == outcome, "{:?}", poor.end);
}

/// Reads requests as a session does, until the connection would be closed.
fn run(stream: &[u8], sizes: Sizes, budget: usize) -> Outcome {
    let budget = Budget::new(budget);
    let before = budget.left();
    let account = Account::new(&budget);
    let mut requests = Vec::new();
    let end = {
        let mut source = Reads { rest: stream, sizes };
        let mut input = Buffer::new(&account);
        loop {
            match take(&mut source, &mut input, &account) {
                Ok(request) => {
                    let end = stream.len() - source.rest.len() - input.data().len();
                    let goes_on = request.keep_alive;
                    requests.push(Forwarded { end, ..request });
                    if !goes_on {
                        break End::Empty;
                    }
                }
                Err(end) => break end,
            }
        }
    };
    assert_eq!(budget.left(), before, "all memory is released");
    Outcome { requests, end }
}

fn take(source: &mut Reads, input: &mut Buffer, account: &Arc<Account>) -> Result<Forwarded, End> {
    let mut forward = Vec::new();
    let head = request_reader::read_head(source, input, MAX_BODY, &mut forward)?;
    let decoded = request_reader::read_body(source, input, head.framing, MAX_BODY, account)?;
    let body = match head.framing {
        Framing::None => None,
        Framing::Length(length) => Some(input.data()[..length].to_vec()),
        Framing::Chunked => decoded.map(|body| body.data().to_vec()),
    };
    if let Framing::Length(length) = head.framing {
        input.consume(length);
    }
    input.shrink();
    Ok(Forwarded { forward, body, keep_alive: head.keep_alive, end: 0 })
}

fn check_against_strict_parser(stream: &[u8], outcome: &Outcome) {
    let mut at = 0;
    for taken in &outcome.requests {
        at += empty_lines(&stream[at..]);
        let wanted = crate::gate::fuzzing::strict::read(&stream[at..], MAX_BODY).unwrap_or_else(|fault| {
            panic!("{fault:?} to the strict parser: {:?}", stream[at..].escape_ascii().to_string())
        });
        assert_eq!(taken.end, at + wanted.length, "both parsers see the same end");
        assert_eq!(taken.body, wanted.body, "both parsers see the same body");
        check_forwarded(&taken.forward, &wanted);
        at = taken.end;
    }
    at += empty_lines(&stream[at..]);
    let rest = &stream[at..];
    match (outcome.end, crate::gate::fuzzing::strict::read(rest, MAX_BODY)) {
        (End::Rejected(GateError::BadRequest(_) | GateError::InvalidHeader), Ok(_)) => {
            panic!("rejected, though well-formed: {:?}", rest.escape_ascii().to_string())
        }
        (End::Rejected(GateError::BodyTooLarge), Ok(_)) => panic!("the body is not too large"),
        (End::Rejected(GateError::Overloaded), _) => panic!("there is memory"),
        (End::Rejected(GateError::NotFound), Ok(request)) => assert_eq!(request.path, PROBE_PATH),
        _ => {}
    }
}

/// The length in bytes of the empty lines that are skipped before a request.
fn empty_lines(stream: &[u8]) -> usize {
    let lines = stream.chunks(2).take(MAX_EMPTY_LINES).take_while(|line| *line == b"\r\n");
    2 * lines.count()
}

/// Checks that tiny_http gets the same request as the client sent, without headers about the connection or the framing.
fn check_forwarded(forward: &[u8], request: &crate::gate::fuzzing::strict::Request) {
    assert!(forward.is_ascii(), "tiny_http gets only ASCII");
    let (request_line, fields) =
        crate::gate::fuzzing::strict::read_forwarded(forward).expect("the forwarded head is well-formed");
    assert_eq!(request_line, format!("{} {} HTTP/1.0", request.method, request.path));
    assert_ne!(request.path, PROBE_PATH, "the probe is never forwarded");
    let (connection, mut fields) = fields.split_first().expect("the connection to tiny_http is kept");
    assert_eq!((connection.0.as_str(), connection.1.as_str()), ("Connection", "keep-alive"));
    if let Some(host) = &request.host {
        let (first, others) = fields.split_first().expect("the host of a URL is forwarded");
        assert_eq!((first.0.as_str(), &first.1), ("Host", host));
        assert!(!others.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")), "there is no other Host");
        fields = others;
    }
    let mut sent = request.fields.iter();
    for field in fields {
        assert!(sent.any(|other| other == field), "the client sent {field:?}, in this order");
        let name = field.0.to_ascii_lowercase();
        assert!(
            name != "connection" && !NEVER_FORWARDED.contains(&name.as_str()),
            "{name} is never forwarded"
        );
    }
}
