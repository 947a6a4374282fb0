//! From the bytes that a client sends to whole requests, wherever the bytes come from and however they are cut.
//!
//! All that is decided here depends on the bytes alone, and not on when they come; time is the source's business.

use std::sync::Arc;

use crate::gate::buffer::{Account, Buffer};
use crate::gate::chunked::Decoder;
use crate::gate::error::Refusal;
use crate::gate::head::{self, Framing, Head, Scanner};

/// Empty lines that some clients send after a body.
pub(crate) const MAX_EMPTY_LINES: usize = 2;

/// Where the bytes come from.
pub(crate) trait Source {
    /// Why there are no more.
    type Error: From<Refusal>;

    /// Reads at least one more byte of a request, of which `expected` bytes are to be in `input` in the end (0: nobody
    /// knows).
    fn fill(&mut self, input: &mut Buffer, expected: usize) -> Result<(), Self::Error>;
}

/// Reads up to the end of a head, checks it, takes it out of `input`, and leaves what goes to tiny_http in `forward`.
pub(crate) fn read_head<S: Source>(
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

fn skip_empty_lines<S: Source>(source: &mut S, input: &mut Buffer) -> Result<(), S::Error> {
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

/// Reads the body to its end. One with a Content-Length stays in `input`; a chunked one is given decoded.
pub(crate) fn read_body<S: Source>(
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
