//! Turns a stream of bytes into whole requests.
//!
//! The result depends on the bytes alone, not on how reads split them. The byte source keeps the deadlines.

use std::sync::Arc;

use crate::gate::buffer::{Account, Buffer};
use crate::gate::chunked::Decoder;
use crate::gate::error::GateError;
use crate::gate::head::{self, Framing, Head, Scanner};

/// Number of empty lines that are skipped before a request: some clients send them after a body.
pub(crate) const MAX_EMPTY_LINES: usize = 2;

/// The source of a connection's bytes.
pub(crate) trait ByteSource {
    /// Why no more bytes arrive.
    type Error: From<GateError>;

    /// Reads at least one more byte of a request into `input`, which will grow to `expected` bytes (0: unknown).
    fn fill(&mut self, input: &mut Buffer, expected: usize) -> Result<(), Self::Error>;
}

/// Reads and checks a head, removes it from `input`, and writes the head for tiny_http into `forward`.
pub(crate) fn read_head<S: ByteSource>(
    source: &mut S,
    input: &mut Buffer,
    max_body: usize,
    forward: &mut Vec<u8>,
) -> Result<Head, S::Error> {
    skip_empty_lines(source, input)?;
    let mut scanner = Scanner::default();
    let length = loop {
        match scanner.find_end(input.data())? {
            Some(length) => break length,
            None => source.fill(input, 0)?,
        }
    };
    forward.clear();
    let head = head::translate(&input.data()[..length], max_body, forward)?;
    input.consume(length);
    Ok(head)
}

fn skip_empty_lines<S: ByteSource>(source: &mut S, input: &mut Buffer) -> Result<(), S::Error> {
    for _ in 0..MAX_EMPTY_LINES {
        while input.data().len() < 2 && b"\r\n".starts_with(input.data()) {
            source.fill(input, 0)?;
        }
        if !input.data().starts_with(b"\r\n") {
            break;
        }
        input.consume(2);
    }
    Ok(())
}

/// Reads the body to its end. A body with a Content-Length stays in `input`; a chunked body is returned decoded.
pub(crate) fn read_body<S: ByteSource>(
    source: &mut S,
    input: &mut Buffer,
    framing: Framing,
    max_body: usize,
    account: &Arc<Account>,
) -> Result<Option<Buffer>, S::Error> {
    match framing {
        Framing::None => Ok(None),
        Framing::Length(length) => {
            while input.data().len() < length {
                source.fill(input, length)?;
            }
            Ok(None)
        }
        Framing::Chunked => {
            let mut decoder = Decoder::new(max_body);
            let mut decoded = Buffer::for_up_to(account, max_body);
            loop {
                let count = decoder.feed(input.data(), &mut decoded)?;
                input.consume(count);
                if decoder.is_done() {
                    return Ok(Some(decoded));
                }
                source.fill(input, 0)?;
            }
        }
    }
}
