//! Buffers that start small, grow as bytes really come in, and share one budget.
//!
//! A buffer takes from the budget all that its message is known to come to, at once: so no two messages wait for memory
//! that the other one has. The memory itself grows with what is received. Where the budget is short, the connection that
//! waits longest for its client is closed ([`Budget::make_room_by`]): a client that only announces a large body, or does
//! not take a large answer, keeps others waiting no longer than that takes.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use crate::gate::error::Refusal;
use crate::sync;

/// What a new buffer holds: most requests and answers fit.
const SMALL: usize = 2 << 10;
/// A buffer larger than this is not kept between requests.
const KEPT: usize = 8 << 10;
/// This much of each buffer is free of charge, so that small requests go on when the budget is spent.
const FREE: usize = 16 << 10;

/// How long a message waits for its part of the budget.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks meanwhile whether a connection can be closed.
const LOOK: Duration = Duration::from_millis(5);

/// The bytes that all buffers together may take beyond their free part.
pub(crate) struct Budget {
    total: usize,
    left: Mutex<usize>,
    given: Condvar,
    make_room: OnceLock<Box<dyn Fn() + Send + Sync>>,
    started: Instant,
}

impl Budget {
    pub fn new(bytes: usize) -> Arc<Budget> {
        let left = Mutex::new(bytes);
        let (given, make_room) = (Condvar::new(), OnceLock::new());
        Arc::new(Budget { total: bytes, left, given, make_room, started: Instant::now() })
    }

    /// From now on messages wait where the budget is short, and this function is called again and again: it should
    /// close a connection that has taken much. Without it they fail at once.
    pub fn make_room_by(&self, make_room: impl Fn() + Send + Sync + 'static) {
        let _ = self.make_room.set(Box::new(make_room));
    }

    fn take(&self, bytes: usize) -> bool {
        let mut left = self.lock();
        let mut give_up = None;
        while *left < bytes {
            let Some(make_room) = self.make_room.get() else { return false };
            let now = Instant::now();
            if now >= *give_up.get_or_insert(now + PATIENCE) {
                return false;
            }
            // Closing a connection takes the lock of the table of connections: this lock must be free then.
            drop(left);
            make_room();
            left = sync::wait_timeout(&self.given, self.lock(), LOOK);
        }
        *left -= bytes;
        true
    }

    fn give(&self, bytes: usize) {
        if bytes > 0 {
            *self.lock() += bytes;
            self.given.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        sync::lock(&self.left)
    }

    /// How many bytes are not taken.
    #[cfg(any(test, fuzzing))]
    pub fn left(&self) -> usize {
        *self.lock()
    }
}

/// What the buffers of one connection have taken of the budget.
pub(crate) struct Account {
    budget: Arc<Budget>,
    taken: AtomicUsize,
    /// When the last of it was taken, in ms since the start of the budget.
    taken_at: AtomicU64,
}

impl Account {
    pub fn new(budget: &Arc<Budget>) -> Arc<Account> {
        Arc::new(Account { budget: budget.clone(), taken: AtomicUsize::new(0), taken_at: AtomicU64::new(0) })
    }

    /// How many bytes.
    pub fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }

    /// For how long: since the last of it was taken.
    pub fn taken_for(&self) -> Duration {
        self.budget.started.elapsed().saturating_sub(Duration::from_millis(self.taken_at.load(Relaxed)))
    }

    fn take(&self, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        let is_there = self.budget.take(bytes);
        if is_there {
            self.taken_at.store(self.budget.started.elapsed().as_millis() as u64, Relaxed);
            self.taken.fetch_add(bytes, Relaxed);
        }
        is_there
    }

    fn give(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Relaxed);
        self.budget.give(bytes);
    }
}

/// A growing buffer that is filled at its end and consumed at its front.
pub(crate) struct Buffer {
    /// Always initialised to its full length, so that sockets can be read into it directly.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    charged: usize,
    /// Once it is large it is charged for so much.
    expected: usize,
    account: Arc<Account>,
}

impl Buffer {
    pub fn new(account: &Arc<Account>) -> Buffer {
        Buffer::for_up_to(account, 0)
    }

    /// A buffer for a message of unknown length, up to `expected`.
    pub fn for_up_to(account: &Arc<Account>, expected: usize) -> Buffer {
        let account = account.clone();
        Buffer { bytes: vec![0; SMALL], start: 0, end: 0, charged: 0, expected, account }
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
        self.grow(size, expected)
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
            self.grow(end, 0)?;
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
            self.account.give(std::mem::take(&mut self.charged));
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
        self.grow((self.end + count).max(self.bytes.len() * 2), self.expected)
    }

    fn move_to_front(&mut self) {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
    }

    /// Grows to `size`, and is charged for `expected` if that is more: it is known to grow so far. No message is charged
    /// for more than the whole budget: its thread would wait without an end.
    fn grow(&mut self, size: usize, expected: usize) -> Result<(), Refusal> {
        let charge = if size <= FREE { 0 } else { size.max(expected) - FREE };
        let more = charge.min(self.account.budget.total).saturating_sub(self.charged);
        if !self.account.take(more) {
            return Err(Refusal::Overloaded);
        }
        self.charged += more;
        // Not in its old place: a buffer that grows at the end of the heap leaves a hole there when it is freed.
        let mut larger = vec![0; size];
        larger[..self.end].copy_from_slice(&self.bytes[..self.end]);
        self.bytes = larger;
        Ok(())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.account.give(self.charged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_survives_growing_and_moving() {
        let mut buffer = Buffer::new(&Account::new(&Budget::new(1 << 20)));
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
        let mut buffer = Buffer::new(&Account::new(&Budget::new(0)));
        buffer.push(&[0; SMALL]).unwrap();
        buffer.make_room(SMALL + 10).unwrap();
        assert_eq!(buffer.bytes.len(), SMALL + 10);
    }

    #[test]
    fn the_budget_is_shared_and_given_back() {
        let budget = Budget::new(FREE);
        let accounts = [Account::new(&budget), Account::new(&budget)];
        let mut first = Buffer::new(&accounts[0]);
        first.push(&[1; 2 * FREE]).unwrap();
        let mut second = Buffer::new(&accounts[1]);
        second.push(&[2; FREE]).unwrap();
        assert_eq!(second.push(&[2; 1]), Err(Refusal::Overloaded));
        assert_eq!(accounts.each_ref().map(|account| account.taken()), [FREE, 0]);
        first.clear();
        first.shrink();
        second.push(&[2; 1]).unwrap();
        drop((first, second));
        assert_eq!(budget.left(), FREE);
        assert_eq!(accounts.each_ref().map(|account| account.taken()), [0, 0]);
    }

    #[test]
    fn what_a_message_comes_to_is_taken_at_once_and_never_more_than_there_is() {
        let budget = Budget::new(100_000);
        let account = Account::new(&budget);
        let mut buffer = Buffer::new(&account);
        while buffer.bytes.len() <= FREE {
            buffer.end = buffer.bytes.len();
            assert_eq!(account.taken(), 0);
            buffer.make_room(50_000).unwrap();
        }
        assert_eq!(account.taken(), 50_000 - FREE);
        let mut unknown = Buffer::for_up_to(&account, 40_000);
        unknown.push(&[0; FREE + 1]).unwrap();
        assert_eq!(account.taken(), 90_000 - 2 * FREE);
        drop((buffer, unknown));
        let mut huge = Buffer::new(&account);
        huge.push(&[0; 200_000]).unwrap();
        assert_eq!(budget.left(), 0);
    }

    #[test]
    fn a_message_waits_for_memory_that_somebody_gives_back() {
        let budget = Budget::new(FREE);
        let first = Mutex::new(Some(Buffer::new(&Account::new(&budget))));
        first.lock().unwrap().as_mut().unwrap().push(&[1; 2 * FREE]).unwrap();
        budget.make_room_by(move || drop(first.lock().unwrap().take()));
        let mut second = Buffer::new(&Account::new(&budget));
        second.push(&[2; 2 * FREE]).unwrap();
    }
}
