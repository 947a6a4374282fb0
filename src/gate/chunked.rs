//! Decodes `Transfer-Encoding: chunked`. tiny_http gets such a body with a Content-Length.
//!
//! The decoder is strict: where two parsers can disagree about the end of a chunk, one request can be smuggled into
//! another. Extensions and trailers are checked and discarded.

use crate::gate::buffer::Buffer;
use crate::gate::error::GateError;

/// Length in bytes of all extensions and trailers of one body. They have no effect, so no client needs more.
const MAX_IGNORED: usize = 8 << 10;
/// Hexadecimal digits of a chunk size, leading zeros included: as many as fit a u64.
const MAX_DIGITS: u32 = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

/// The decoder of one body, fed with the bytes as they arrive.
pub(crate) struct Decoder {
    state: State,
    size: u64,
    digits: u32,
    ignored: usize,
    /// Bytes that are left of `max_body` after the chunks so far.
    allowed: usize,
}

impl Decoder {
    pub fn new(max_body: usize) -> Decoder {
        Decoder { state: State::Size, size: 0, digits: 0, ignored: 0, allowed: max_body }
    }

    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Decodes `input` up to the end of the body. Returns how many bytes of `input` were used.
    pub fn feed(&mut self, input: &[u8], body: &mut Buffer) -> Result<usize, GateError> {
        let mut at = 0;
        while at < input.len() && !self.is_done() {
            if self.state == State::Data {
                at += self.copy(&input[at..], body)?;
            } else {
                self.state = self.step(input[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    fn copy(&mut self, input: &[u8], body: &mut Buffer) -> Result<usize, GateError> {
        // The size was checked against max_body, so it fits a usize.
        let count = input.len().min(self.size as usize);
        body.push(&input[..count])?;
        self.size -= count as u64;
        if self.size == 0 {
            self.state = State::DataCr;
        }
        Ok(count)
    }

    fn step(&mut self, byte: u8) -> Result<State, GateError> {
        match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(byte),
            (State::Size, b';') if self.digits > 0 => Ok(State::Extension),
            (State::Size, b'\r') if self.digits > 0 => Ok(State::SizeLf),
            (State::Extension | State::Trailer, b'\t' | b' '..=b'~') => self.ignore(self.state),
            // A trailer field may contain the same characters as a header.
            (State::Trailer, 0x80..) => self.ignore(State::Trailer),
            (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::SizeLf, b'\n') => self.begin_chunk(),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size),
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart, b'!'..=b'~') => self.ignore(State::Trailer),
            (State::Trailer, b'\r') => Ok(State::TrailerLf),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::EndLf, b'\n') => Ok(State::Done),
            _ => Err(GateError::BadRequest("the chunked body is malformed")),
        }
    }

    fn digit(&mut self, byte: u8) -> Result<State, GateError> {
        self.digits += 1;
        if self.digits > MAX_DIGITS {
            return Err(GateError::BadRequest("a chunk size has too many digits"));
        }
        let value = char::from(byte).to_digit(16).unwrap_or(0);
        self.size = self.size << 4 | u64::from(value);
        Ok(State::Size)
    }

    fn begin_chunk(&mut self) -> Result<State, GateError> {
        self.digits = 0;
        if self.size == 0 {
            return Ok(State::TrailerStart);
        }
        let size = usize::try_from(self.size).map_err(|_| GateError::BodyTooLarge)?;
        self.allowed = self.allowed.checked_sub(size).ok_or(GateError::BodyTooLarge)?;
        Ok(State::Data)
    }

    fn ignore(&mut self, next: State) -> Result<State, GateError> {
        self.ignored += 1;
        if self.ignored > MAX_IGNORED {
            return Err(GateError::BadRequest("chunk extensions and trailers are too long"));
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::super::buffer::{Account, Budget};
    use super::*;

    /// Decodes `step` bytes at a time. Returns the body, and how many bytes follow it.
    fn decode(raw: &[u8], max_body: usize, step: usize) -> Result<(Vec<u8>, usize), GateError> {
        let mut decoder = Decoder::new(max_body);
        let mut body = Buffer::new(&Account::new(&Budget::new(1 << 20)));
        let mut at = 0;
        while at < raw.len() && !decoder.is_done() {
            at += decoder.feed(&raw[at..raw.len().min(at + step)], &mut body)?;
        }
        assert!(decoder.is_done(), "the body is incomplete");
        Ok((body.data().to_vec(), raw.len() - at))
    }

    #[test]
    fn a_body_is_decoded_however_the_reads_split_it() {
        let raw =
            b"5\r\nhello\r\n00A;name=\"v\"\r\n, world, 1\r\n0\r\nX-Sum: 1\r\nX-Name: M\xfcller\r\n\r\nGET /";
        for step in 1..raw.len() {
            assert_eq!(decode(raw, 15, step), Ok((b"hello, world, 1".to_vec(), 5)), "step {step}");
        }
    }

    #[test]
    fn a_body_that_two_parsers_could_read_differently_is_rejected() {
        for raw in [
            "zz\r\n",
            "-3\r\n",
            "\r\n",
            " 5\r\n",
            "5 \r\n",
            "0x5\r\n",
            "5\nhello",
            "5\rhello",
            ";a\r\n",
            "5\r\nhello!\r\n",
            "5\r\nhello\n",
            "5;\nhello",
            "5;a\x01\r\n",
            "5;\u{e9}\r\n",
            "0\r\n folded\r\n",
            "0\r\n\u{e9}: b\r\n",
            "0\r\nA: b\n",
            "0\r\nA: \0\r\n",
            "00000000000000005\r\n",
            "FFFFFFFFFFFFFFFFF\r\n",
        ] {
            let error = decode(raw.as_bytes(), 1 << 20, 3).unwrap_err();
            assert!(matches!(error, GateError::BadRequest(_)), "{raw:?}: {error:?}");
        }
    }

    #[test]
    fn a_body_over_the_limit_is_rejected_when_the_chunk_size_arrives() {
        assert_eq!(decode(b"8\r\n12345678\r\n3\r\n", 10, 4), Err(GateError::BodyTooLarge));
        assert_eq!(decode(b"FFFFFFFFFFFFFFFF\r\n", 10, 4), Err(GateError::BodyTooLarge));
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let long = "x".repeat(MAX_IGNORED);
        for raw in [format!("1;{long}x\r\n"), format!("0\r\n{long}x\r\n")] {
            assert!(matches!(decode(raw.as_bytes(), 10, 4096), Err(GateError::BadRequest(_))));
        }
    }
}
