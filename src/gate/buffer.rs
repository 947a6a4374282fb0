//! Buffers that start small, grow as bytes arrive, and share one budget.
//!
//! A buffer is charged at once for the announced length of its message, so that no two messages wait for memory that the
//! other one holds. The memory itself grows with the bytes received. When the budget is short, the connection that has
//! waited longest for its client is evicted ([`Budget::on_shortage`]): a client that announces a large body without
//! sending it, or does not read a large response, delays others for a limited time.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use crate::gate::error::GateError;
use crate::sync;

/// Size of a new buffer in bytes: most requests and responses fit.
const SMALL: usize = 2 << 10;
/// A buffer larger than this is not kept between requests.
const KEPT: usize = 8 << 10;
/// These first bytes of each buffer are not charged, so that small requests are served when the budget is spent.
const UNCHARGED: usize = 16 << 10;

/// How long a message waits for its part of the budget.
const CHARGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a connection is evicted meanwhile, if one may be.
const EVICT_INTERVAL: Duration = Duration::from_millis(5);

/// The bytes that all buffers together may use beyond their uncharged part.
pub(crate) struct Budget {
    total: usize,
    left: Mutex<usize>,
    released: Condvar,
    on_shortage: OnceLock<Box<dyn Fn() + Send + Sync>>,
    started: Instant,
}

impl Budget {
    pub fn new(bytes: usize) -> Arc<Budget> {
        let left = Mutex::new(bytes);
        let (released, on_shortage) = (Condvar::new(), OnceLock::new());
        Arc::new(Budget { total: bytes, left, released, on_shortage, started: Instant::now() })
    }

    /// Sets a function that should evict a connection which holds much memory. While a message waits for memory, the
    /// function is called every [`EVICT_INTERVAL`]. Without it a message does not wait but fails at once.
    pub fn on_shortage(&self, on_shortage: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_shortage.set(Box::new(on_shortage));
    }

    /// Returns false when the bytes are not free in time.
    fn charge(&self, bytes: usize) -> bool {
        let mut left = self.lock();
        let mut deadline = None;
        while *left < bytes {
            let Some(on_shortage) = self.on_shortage.get() else { return false };
            let now = Instant::now();
            if now >= *deadline.get_or_insert(now + CHARGE_TIMEOUT) {
                return false;
            }
            // Evicting a connection locks the table of connections; this lock must not be held then.
            drop(left);
            on_shortage();
            left = sync::wait_timeout(&self.released, self.lock(), EVICT_INTERVAL);
        }
        *left -= bytes;
        true
    }

    fn release(&self, bytes: usize) {
        if bytes > 0 {
            *self.lock() += bytes;
            self.released.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        sync::lock(&self.left)
    }

    /// Bytes that are not charged to any buffer.
    #[cfg(any(test, fuzzing))]
    pub fn left(&self) -> usize {
        *self.lock()
    }
}

/// The memory that the buffers of one connection are charged for.
pub(crate) struct Account {
    budget: Arc<Budget>,
    charged: AtomicUsize,
    /// Time of the last charge, in ms since the budget was made.
    charged_at: AtomicU64,
}

impl Account {
    pub fn new(budget: &Arc<Budget>) -> Arc<Account> {
        Arc::new(Account {
            budget: budget.clone(),
            charged: AtomicUsize::new(0),
            charged_at: AtomicU64::new(0),
        })
    }

    /// Bytes charged.
    pub fn charged(&self) -> usize {
        self.charged.load(Relaxed)
    }

    /// Time since the last charge.
    pub fn charged_for(&self) -> Duration {
        self.budget.started.elapsed().saturating_sub(Duration::from_millis(self.charged_at.load(Relaxed)))
    }

    fn charge(&self, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        let is_charged = self.budget.charge(bytes);
        if is_charged {
            self.charged_at.store(self.budget.started.elapsed().as_millis() as u64, Relaxed);
            self.charged.fetch_add(bytes, Relaxed);
        }
        is_charged
    }

    fn release(&self, bytes: usize) {
        self.charged.fetch_sub(bytes, Relaxed);
        self.budget.release(bytes);
    }
}

/// A growing buffer that is filled at its end and consumed at its front.
pub(crate) struct Buffer {
    /// Initialised to its full length, so that sockets are read into it directly.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    charged: usize,
    /// The charge for a buffer that has outgrown [`UNCHARGED`].
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

    /// The bytes that were filled in and are not consumed.
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

    /// Makes room for at least one more byte. `expected` is the announced length of the data, or 0 if it is unknown: a
    /// buffer does not grow past it needlessly.
    pub fn make_room(&mut self, expected: usize) -> Result<(), GateError> {
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

    /// One read into the free part. Call [`make_room`](Buffer::make_room) first: a read into a full buffer returns 0,
    /// which looks like the end of the stream.
    pub fn read_from(&mut self, mut source: impl Read) -> io::Result<usize> {
        let count = source.read(&mut self.bytes[self.end..])?;
        self.end += count;
        Ok(count)
    }

    pub fn push(&mut self, more: &[u8]) -> Result<(), GateError> {
        self.make_room_for(more.len())?;
        self.bytes[self.end..self.end + more.len()].copy_from_slice(more);
        self.end += more.len();
        Ok(())
    }

    /// Inserts a few bytes `at` an offset of the data. Does not double a large buffer, because no more bytes follow.
    pub fn insert(&mut self, at: usize, more: &[u8]) -> Result<(), GateError> {
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

    /// Frees the memory of a large message, so that idle connections need little.
    pub fn shrink(&mut self) {
        if self.is_empty() && self.bytes.len() > KEPT {
            self.bytes = vec![0; SMALL];
            self.account.release(std::mem::take(&mut self.charged));
        }
    }

    fn make_room_for(&mut self, count: usize) -> Result<(), GateError> {
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

    /// Grows to `size`, and is charged for `expected` if that is more. No message is charged for more than the whole
    /// budget: its thread would wait for ever.
    fn grow(&mut self, size: usize, expected: usize) -> Result<(), GateError> {
        let charge = if size <= UNCHARGED { 0 } else { size.max(expected) - UNCHARGED };
        let more = charge.min(self.account.budget.total).saturating_sub(self.charged);
        if !self.account.charge(more) {
            return Err(GateError::Overloaded);
        }
        self.charged += more;
        // A new allocation: a buffer that grows in place at the end of the heap leaves a hole there when it is freed.
        let mut larger = vec![0; size];
        larger[..self.end].copy_from_slice(&self.bytes[..self.end]);
        self.bytes = larger;
        Ok(())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.account.release(self.charged);
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
    fn buffers_share_the_budget_and_release_their_charge() {
        let budget = Budget::new(UNCHARGED);
        let accounts = [Account::new(&budget), Account::new(&budget)];
        let mut first = Buffer::new(&accounts[0]);
        first.push(&[1; 2 * UNCHARGED]).unwrap();
        let mut second = Buffer::new(&accounts[1]);
        second.push(&[2; UNCHARGED]).unwrap();
        assert_eq!(second.push(&[2; 1]), Err(GateError::Overloaded));
        assert_eq!(accounts.each_ref().map(|account| account.charged()), [UNCHARGED, 0]);
        first.clear();
        first.shrink();
        second.push(&[2; 1]).unwrap();
        drop((first, second));
        assert_eq!(budget.left(), UNCHARGED);
        assert_eq!(accounts.each_ref().map(|account| account.charged()), [0, 0]);
    }

    #[test]
    fn the_announced_length_is_charged_at_once_and_never_more_than_the_budget() {
        let budget = Budget::new(100_000);
        let account = Account::new(&budget);
        let mut buffer = Buffer::new(&account);
        while buffer.bytes.len() <= UNCHARGED {
            buffer.end = buffer.bytes.len();
            assert_eq!(account.charged(), 0);
            buffer.make_room(50_000).unwrap();
        }
        assert_eq!(account.charged(), 50_000 - UNCHARGED);
        let mut unknown = Buffer::for_up_to(&account, 40_000);
        unknown.push(&[0; UNCHARGED + 1]).unwrap();
        assert_eq!(account.charged(), 90_000 - 2 * UNCHARGED);
        drop((buffer, unknown));
        let mut huge = Buffer::new(&account);
        huge.push(&[0; 200_000]).unwrap();
        assert_eq!(budget.left(), 0);
    }

    #[test]
    fn a_message_waits_until_another_buffer_releases_memory() {
        let budget = Budget::new(UNCHARGED);
        let first = Mutex::new(Some(Buffer::new(&Account::new(&budget))));
        first.lock().unwrap().as_mut().unwrap().push(&[1; 2 * UNCHARGED]).unwrap();
        budget.on_shortage(move || drop(first.lock().unwrap().take()));
        let mut second = Buffer::new(&Account::new(&budget));
        second.push(&[2; 2 * UNCHARGED]).unwrap();
    }
}
