//! Limits how many requests of one kind are handled at a time: pages of listings, for their memory, and operations on
//! many jobs, so that they leave threads to other requests.

use std::sync::{Condvar, Mutex, MutexGuard};

use crate::sync;

/// The most requests of one kind at a time. A page may need twice 4 MiB of memory while it is made.
const MAX_AT_A_TIME: usize = 2;

/// Limits the number of requests at a time.
#[derive(Default)]
pub struct Slots {
    taken: Mutex<usize>,
    released: Condvar,
}

impl Slots {
    /// Waits for a slot. Dropping the slot releases it.
    pub fn acquire(&self) -> Slot<'_> {
        let is_full = |taken: &mut usize| *taken >= MAX_AT_A_TIME;
        let mut taken = sync::wait_while(&self.released, self.lock(), is_full);
        *taken += 1;
        Slot(self)
    }

    /// A slot, if one is free.
    pub fn try_acquire(&self) -> Option<Slot<'_>> {
        let mut taken = self.lock();
        (*taken < MAX_AT_A_TIME).then(|| *taken += 1).map(|()| Slot(self))
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        sync::lock(&self.taken)
    }
}

pub struct Slot<'a>(&'a Slots);

impl Drop for Slot<'_> {
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
        let slots = Slots::default();
        let mut all: Vec<_> = (0..MAX_AT_A_TIME).map(|_| slots.acquire()).collect();
        assert!(slots.try_acquire().is_none());
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
