//! Limits the number of pages of listings that are made at a time, and so the memory for pages.

use std::sync::{Condvar, Mutex, MutexGuard};

use crate::sync;

/// The most pages that are made at a time. A page may need twice 4 MiB of memory while it is made.
const MAX_AT_A_TIME: usize = 2;

/// Limits the number of pages that are made at a time.
#[derive(Default)]
pub struct ListingSlots {
    taken: Mutex<usize>,
    released: Condvar,
}

impl ListingSlots {
    /// Waits for a slot. Dropping the slot releases it.
    pub fn acquire(&self) -> ListingSlot<'_> {
        let is_full = |taken: &mut usize| *taken >= MAX_AT_A_TIME;
        let mut taken = sync::wait_while(&self.released, self.lock(), is_full);
        *taken += 1;
        ListingSlot(self)
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        sync::lock(&self.taken)
    }
}

pub struct ListingSlot<'a>(&'a ListingSlots);

impl Drop for ListingSlot<'_> {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.released.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_when_another_one_is_dropped() {
        let slots = ListingSlots::default();
        let mut all: Vec<_> = (0..MAX_AT_A_TIME).map(|_| slots.acquire()).collect();
        assert_eq!(*slots.lock(), MAX_AT_A_TIME);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(slots.acquire()));
            all.pop();
            waiting.join().unwrap();
        });
        drop(all);
        assert_eq!(*slots.lock(), 0);
    }
}
