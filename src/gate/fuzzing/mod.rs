//! Fuzzing of what turns bytes into requests: [`check`] is given the bytes of one connection.
//!
//! The first byte says how the others are cut into reads. However they are cut, the same requests must come out, each of
//! which a [second, strict reading](strict) finds in the same place with the same body; and what is refused as malformed
//! must be malformed to that one as well.

mod strict;

use std::sync::Arc;

use crate::gate::buffer::{Account, Budget, Buffer};
use crate::gate::error::GateError;
use crate::gate::head::{Framing, MAX_HEAD, PROBE_PATH};
use crate::gate::request_reader::{self, ByteSource, MAX_EMPTY_LINES};

const MAX_BODY: usize = 600;
/// More than any of these connections needs.
const AMPLE: usize = 1 << 20;
/// What a connection may hold at most: head and body, in buffers that double.
const MAX_HELD: usize = 4 * (MAX_HEAD + MAX_BODY);
/// Not to be seen by tiny_http: they are about the connection to the client, or frame a body.
const FOR_THE_GATE: [&str; 10] = [
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

/// What came out of the bytes of a connection.
#[derive(PartialEq, Eq, Debug)]
struct Outcome {
    requests: Vec<Taken>,
    end: End,
}

/// A request that went on to tiny_http.
#[derive(PartialEq, Eq, Debug)]
struct Taken {
    forward: Vec<u8>,
    body: Option<Vec<u8>>,
    keep_alive: bool,
    /// Where in the stream it ended.
    end: usize,
}

/// Why there was no further request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Refused(GateError),
    /// The bytes were at their end.
    Empty,
}

impl From<GateError> for End {
    fn from(refusal: GateError) -> End {
        End::Refused(refusal)
    }
}

/// A connection that brings so many bytes with each read.
struct Pieces<'a> {
    rest: &'a [u8],
    sizes: Sizes,
}

impl ByteSource for Pieces<'_> {
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

/// How many bytes each read brings.
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
    check_against_strict_reading(stream, &outcome);

    let cut = run(stream, Sizes::of(pattern), AMPLE);
    assert_eq!(cut, outcome, "it does not matter how the bytes are cut");

    let poor = run(stream, Sizes::of(pattern), 0);
    let is_beginning = outcome.requests.starts_with(&poor.requests);
    assert!(is_beginning, "a spent budget changes no request");
    assert!(poor.end == End::Refused(GateError::Overloaded) || poor == outcome, "{:?}", poor.end);
}

/// Does what a connection does, until it would be closed.
fn run(stream: &[u8], sizes: Sizes, budget: usize) -> Outcome {
    let budget = Budget::new(budget);
    let before = budget.left();
    let account = Account::new(&budget);
    let mut requests = Vec::new();
    let end = {
        let mut source = Pieces { rest: stream, sizes };
        let mut input = Buffer::new(&account);
        loop {
            match take(&mut source, &mut input, &account) {
                Ok(request) => {
                    let end = stream.len() - source.rest.len() - input.data().len();
                    let goes_on = request.keep_alive;
                    requests.push(Taken { end, ..request });
                    if !goes_on {
                        break End::Empty;
                    }
                }
                Err(end) => break end,
            }
        }
    };
    assert_eq!(budget.left(), before, "all memory is given back");
    Outcome { requests, end }
}

fn take(source: &mut Pieces, input: &mut Buffer, account: &Arc<Account>) -> Result<Taken, End> {
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
    Ok(Taken { forward, body, keep_alive: head.keep_alive, end: 0 })
}

fn check_against_strict_reading(stream: &[u8], outcome: &Outcome) {
    let mut at = 0;
    for taken in &outcome.requests {
        at += empty_lines(&stream[at..]);
        let wanted = crate::gate::fuzzing::strict::read(&stream[at..], MAX_BODY).unwrap_or_else(|fault| {
            panic!("{fault:?} to the strict reading: {:?}", stream[at..].escape_ascii().to_string())
        });
        assert_eq!(taken.end, at + wanted.length, "both see the same end");
        assert_eq!(taken.body, wanted.body, "both see the same body");
        check_forwarded(&taken.forward, &wanted);
        at = taken.end;
    }
    at += empty_lines(&stream[at..]);
    let rest = &stream[at..];
    match (outcome.end, crate::gate::fuzzing::strict::read(rest, MAX_BODY)) {
        (End::Refused(GateError::BadRequest(_) | GateError::InvalidHeader), Ok(_)) => {
            panic!("refused, though well-formed: {:?}", rest.escape_ascii().to_string())
        }
        (End::Refused(GateError::BodyTooLarge), Ok(_)) => panic!("the body is not too large"),
        (End::Refused(GateError::Overloaded), _) => panic!("there is memory"),
        (End::Refused(GateError::NotFound), Ok(request)) => assert_eq!(request.path, PROBE_PATH),
        _ => {}
    }
}

/// How many bytes of empty lines are skipped in front of a request.
fn empty_lines(stream: &[u8]) -> usize {
    let lines = stream.chunks(2).take(MAX_EMPTY_LINES).take_while(|line| *line == b"\r\n");
    2 * lines.count()
}

/// What tiny_http gets says the same as what the client has sent, and nothing of the connection or the framing.
fn check_forwarded(forward: &[u8], request: &crate::gate::fuzzing::strict::Request) {
    assert!(forward.is_ascii(), "tiny_http gets ASCII alone");
    let (request_line, fields) =
        crate::gate::fuzzing::strict::read_forwarded(forward).expect("what is sent on is well-formed");
    assert_eq!(request_line, format!("{} {} HTTP/1.0", request.method, request.path));
    assert_ne!(request.path, PROBE_PATH, "that path is the gate's own");
    let (connection, mut fields) = fields.split_first().expect("the connection to tiny_http is kept");
    assert_eq!((connection.0.as_str(), connection.1.as_str()), ("Connection", "keep-alive"));
    if let Some(host) = &request.host {
        let (first, others) = fields.split_first().expect("the host of a URL is sent on");
        assert_eq!((first.0.as_str(), &first.1), ("Host", host));
        assert!(!others.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")), "no other Host counts");
        fields = others;
    }
    let mut sent = request.fields.iter();
    for field in fields {
        assert!(sent.any(|other| other == field), "{field:?} was sent, and in this order");
        let name = field.0.to_ascii_lowercase();
        assert!(name != "connection" && !FOR_THE_GATE.contains(&name.as_str()), "{name} ends here");
    }
}
