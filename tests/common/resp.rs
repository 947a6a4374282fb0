//! A reader of the Redis protocol for proxies: it finds the end of a command and of a reply.

use std::io::{self, BufRead};

/// Reads one command and returns its words.
pub fn read_command(from: &mut impl BufRead) -> io::Result<Vec<Vec<u8>>> {
    let count = read_line(from, &mut Vec::new())?;
    let mut words = Vec::new();
    for _ in 0..count {
        let length = read_line(from, &mut Vec::new())?;
        let mut word = Vec::new();
        read_bytes(from, &mut word, length)?;
        word.truncate(length as usize);
        words.push(word);
    }
    Ok(words)
}

/// The bytes of a command.
pub fn command(words: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Reads one reply and appends its bytes.
pub fn read_answer(from: &mut impl BufRead, into: &mut Vec<u8>) -> io::Result<()> {
    let begin = into.len();
    let number = read_line(from, into)?;
    match into[begin] {
        b'$' if number >= 0 => read_bytes(from, into, number)?,
        b'*' => {
            for _ in 0..number.max(0) {
                read_answer(from, into)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// The hash in the reply to SCRIPT LOAD.
pub fn hash_in(answer: &[u8]) -> Option<Vec<u8>> {
    answer.split(|b| *b == b'\n').nth(1)?.get(..40).map(<[u8]>::to_vec)
}

/// Reads a line, appends its bytes, and returns the number in it.
fn read_line(from: &mut impl BufRead, into: &mut Vec<u8>) -> io::Result<i64> {
    let before = into.len();
    if from.read_until(b'\n', into)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let number = into.get(before + 1..into.len() - 2).and_then(|text| std::str::from_utf8(text).ok());
    Ok(number.and_then(|text| text.parse().ok()).unwrap_or(-1))
}

fn read_bytes(from: &mut impl BufRead, into: &mut Vec<u8>, number: i64) -> io::Result<()> {
    let before = into.len();
    into.resize(before + number as usize + 2, 0);
    from.read_exact(&mut into[before..])
}
