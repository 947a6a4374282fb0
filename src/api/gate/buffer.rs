//! Buffers that start small, grow as bytes really come in, and share one budget.
//!
//! Growing with what was received (and not with what was announced) means that an attacker has to send every
//! byte that it wants the server to hold.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::refusal::Refusal;

/// What a new buffer holds: most requests and answers fit.
const SMALL: usize = 2 << 10;
/// A buffer larger than this is not kept between requests.
const KEPT: usize = 8 << 10;
/// This much of each buffer is free of charge, so that small requests go on when the budget is spent.
const FREE: usize = 16 << 10;

/// The bytes that all buffers together may take beyond their free part.
pub(super) struct Budget(AtomicUsize);

impl Budget {
    pub fn new(bytes: usize) -> Arc<Budget> {
        Arc::new(Budget(AtomicUsize::new(bytes)))
    }

    fn take(&self, bytes: usize) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }

    fn give(&self, bytes: usize) {
        self.0.fetch_add(bytes, Relaxed);
    }

    /// How many bytes are not taken.
    #[cfg(any(test, fuzzing))]
    pub fn left(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// A growing buffer that is filled at its end and consumed at its front.
pub(super) struct Buffer {
    /// Always initialised to its full length, so that sockets can be read into it directly.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    charged: usize,
    budget: Arc<Budget>,
}

impl Buffer {
    pub fn new(budget: &Arc<Budget>) -> Buffer {
        Buffer { bytes: vec![0; SMALL], start: 0, end: 0, charged: 0, budget: budget.clone() }
    }

    /// What was filled in and is not yet consumed.
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.data().len());
        self.start += count;
        if self.is_empty() {
            self.clear();
        }
    }

    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Makes room for at least one more byte. `expected` is how much the data is known to come to, or 0: a buffer
    /// does not grow past it needlessly.
    pub fn make_room(&mut self, expected: usize) -> Result<(), Refusal> {
        if self.end < self.bytes.len() {
            return Ok(());
        }
        if self.start > 0 {
            self.move_to_front();
            return Ok(());
        }
        let doubled = self.bytes.len() * 2;
        let size = if expected > self.bytes.len() { doubled.min(expected) } else { doubled };
        self.grow(size)
    }

    /// One read into the free part. Call [`make_room`](Buffer::make_room) first, lest it looks like an end of file.
    pub fn read_from(&mut self, mut source: impl Read) -> io::Result<usize> {
        let count = source.read(&mut self.bytes[self.end..])?;
        self.end += count;
        Ok(count)
    }

    /// Appends bytes.
    pub fn push(&mut self, more: &[u8]) -> Result<(), Refusal> {
        self.make_room_for(more.len())?;
        self.bytes[self.end..self.end + more.len()].copy_from_slice(more);
        self.end += more.len();
        Ok(())
    }

    /// Inserts a few bytes `at` an offset of the data. No more is to follow, so this does not double a large buffer.
    pub fn insert(&mut self, at: usize, more: &[u8]) -> Result<(), Refusal> {
        let end = self.end + more.len();
        if end > self.bytes.len() {
            self.grow(end)?;
        }
        let at = self.start + at;
        self.bytes.copy_within(at..self.end, at + more.len());
        self.bytes[at..at + more.len()].copy_from_slice(more);
        self.end += more.len();
        Ok(())
    }

    /// Removes `count` bytes `at` an offset of the data.
    pub fn remove(&mut self, at: usize, count: usize) {
        let at = self.start + at;
        self.bytes.copy_within(at + count..self.end, at);
        self.end -= count;
    }

    /// Gives up what a large message took, so that idle connections cost little.
    pub fn shrink(&mut self) {
        if self.is_empty() && self.bytes.len() > KEPT {
            self.bytes = vec![0; SMALL];
            self.budget.give(std::mem::take(&mut self.charged));
        }
    }

    fn make_room_for(&mut self, count: usize) -> Result<(), Refusal> {
        if self.bytes.len() - self.end >= count {
            return Ok(());
        }
        self.move_to_front();
        if self.bytes.len() - self.end >= count {
            return Ok(());
        }
        self.grow((self.end + count).max(self.bytes.len() * 2))
    }

    fn move_to_front(&mut self) {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
    }

    fn grow(&mut self, size: usize) -> Result<(), Refusal> {
        let more = size.saturating_sub(FREE).saturating_sub(self.charged);
        if !self.budget.take(more) {
            return Err(Refusal::Overloaded);
        }
        self.charged += more;
        self.bytes.resize(size, 0);
        Ok(())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.budget.give(self.charged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_survives_growing_and_moving() {
        let mut buffer = Buffer::new(&Budget::new(1 << 20));
        let pattern: Vec<u8> = (0..50_000u32).map(|n| n as u8).collect();
        let mut source = &pattern[..];
        while buffer.data().len() < 40_000 {
            buffer.make_room(0).unwrap();
            buffer.read_from(&mut source).unwrap();
        }
        buffer.consume(30_000);
        buffer.push(source).unwrap();
        assert_eq!(buffer.data(), &pattern[30_000..]);
        buffer.insert(5, b"between").unwrap();
        assert_eq!(
            &buffer.data()[..14],
            [&pattern[30_000..30_005], b"between", &pattern[30_005..30_007]].concat()
        );
        buffer.remove(5, b"between".len());
        assert_eq!(buffer.data(), &pattern[30_000..]);
    }

    #[test]
    fn a_buffer_does_not_grow_past_what_is_expected() {
        let mut buffer = Buffer::new(&Budget::new(0));
        buffer.push(&[0; SMALL]).unwrap();
        buffer.make_room(SMALL + 10).unwrap();
        assert_eq!(buffer.bytes.len(), SMALL + 10);
    }

    #[test]
    fn the_budget_is_shared_and_given_back() {
        let budget = Budget::new(FREE);
        let mut first = Buffer::new(&budget);
        first.push(&[1; 2 * FREE]).unwrap();
        let mut second = Buffer::new(&budget);
        second.push(&[2; FREE]).unwrap();
        assert_eq!(second.push(&[2; 1]), Err(Refusal::Overloaded));
        first.clear();
        first.shrink();
        second.push(&[2; 1]).unwrap();
        drop((first, second));
        assert_eq!(budget.left(), FREE);
    }
}
