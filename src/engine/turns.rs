//! Whose turn it is to take from which queue, and in what shares.
//!
//! With one fetcher per queue its jobs start in order, since of two takes under way neither covers a queue of the other,
//! and none covers a queue whose fetcher sits in BRPOPLPUSH: that one may have a job in hand that nobody knows of yet. With
//! more fetchers takes overlap, and so does what they bring.
//!
//! Nothing here is locked while a take is under way: a [`TakePermit`] only notes which queues it covers.

use std::cmp::Reverse;
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::queue::Share;
use crate::sync;

/// The queues of this server, as all fetchers see them.
pub struct TakePermits {
    state: Mutex<State>,
    changed: Condvar,
    /// Jobs of a queue start in order.
    is_ordered: bool,
}

struct State {
    /// What one queue does not use goes to the others, the heaviest first.
    queues: Vec<Queue>,
    is_closed: bool,
}

struct Queue {
    name: String,
    weight: i64,
    credit: i64,
    /// Its first fetcher sits in BRPOPLPUSH.
    is_slept_on: bool,
    /// Takes under way that cover it.
    takes: usize,
    /// The last take that covered it brought as many jobs as there was room for: there may be more.
    has_more: bool,
}

/// The right to take from some queues; it ends when it is dropped.
pub struct TakePermit<'a> {
    turns: &'a TakePermits,
    /// Their places.
    covered: Vec<usize>,
}

impl TakePermits {
    /// Queues and their weights, each at least 1, from which so many fetchers take each.
    pub fn new(queues: impl IntoIterator<Item = (String, u32)>, fetchers: usize) -> TakePermits {
        let queue = |(name, weight): (String, u32)| Queue {
            name,
            weight: weight.into(),
            credit: 0,
            is_slept_on: false,
            takes: 0,
            has_more: false,
        };
        let mut queues: Vec<Queue> = queues.into_iter().map(queue).collect();
        queues.sort_by_key(|queue| Reverse(queue.weight));
        TakePermits {
            state: Mutex::new(State { queues, is_closed: false }),
            changed: Condvar::new(),
            is_ordered: fetchers == 1,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    /// Waits, where jobs start in order, until no take under way covers this queue.
    fn own(&self, queue: &str) -> MutexGuard<'_, State> {
        let is_taken_from =
            |state: &mut State| self.is_ordered && state.of(queue).is_some_and(|queue| queue.takes > 0);
        sync::wait_while(&self.changed, self.state(), is_taken_from)
    }

    /// Notes that the first fetcher of this queue is going to sit in BRPOPLPUSH.
    pub fn sleep(&self, queue: &str) {
        if let Some(queue) = self.own(queue).of(queue) {
            (queue.is_slept_on, queue.has_more) = (true, false);
        }
    }

    /// Notes that it sits there no longer, and has brought nothing.
    pub fn wake(&self, queue: &str) {
        if let Some(queue) = self.state().of(queue) {
            queue.is_slept_on = false;
        }
    }

    /// Waits until a take from this queue may find more than there was room for; `false` once all this is closed.
    pub fn wait_for_more(&self, queue: &str) -> bool {
        let has_none = |state: &mut State| {
            !state.is_closed && state.of(queue).is_some_and(|queue| !queue.has_more || queue.is_slept_on)
        };
        let state = sync::wait_while(&self.changed, self.state(), has_none);
        !state.is_closed
    }

    /// Ends all waiting for more.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    /// A turn at all queues that may be taken from now. The first fetcher of a queue gets one that covers its own queue,
    /// and may have to wait for that.
    pub fn begin(&self, queue: &str, is_first: bool) -> TakePermit<'_> {
        let mut state = self.own(queue);
        if is_first && let Some(queue) = state.of(queue) {
            queue.is_slept_on = false;
        }
        let is_free = |queue: &Queue| !(queue.is_slept_on || self.is_ordered && queue.takes > 0);
        let mut covered = Vec::new();
        for (place, queue) in state.queues.iter_mut().enumerate() {
            if is_free(queue) {
                queue.takes += 1;
                covered.push(place);
            }
        }
        TakePermit { turns: self, covered }
    }
}

impl State {
    fn of(&mut self, name: &str) -> Option<&mut Queue> {
        self.queues.iter_mut().find(|queue| queue.name == name)
    }
}

impl TakePermit<'_> {
    /// How many of the next `jobs` jobs should come from each queue: over time each queue gets its weight's part, whether
    /// a take has room for one job or for all (smooth weighted round robin).
    pub fn split(&self, jobs: usize) -> Vec<Share> {
        let mut state = self.turns.state();
        let share = |place: &usize| Share { queue: state.queues[*place].name.clone(), jobs: 0 };
        let mut shares: Vec<Share> = self.covered.iter().map(share).collect();
        if let [share] = shares.as_mut_slice() {
            share.jobs = jobs;
            return shares;
        }
        let total: i64 = self.covered.iter().map(|place| state.queues[*place].weight).sum();
        for _ in 0..jobs {
            for place in &self.covered {
                state.queues[*place].credit += state.queues[*place].weight;
            }
            let credit = |at: usize| state.queues[self.covered[at]].credit;
            if let Some(next) = (0..self.covered.len()).max_by_key(|at| (credit(*at), Reverse(*at))) {
                state.queues[self.covered[next]].credit -= total;
                shares[next].jobs += 1;
            }
        }
        shares
    }

    /// What the take has brought: as many jobs as there was room for, or fewer; and which queues are paused.
    pub fn brought(&self, is_full: bool, paused: &[String]) {
        let mut state = self.turns.state();
        for place in &self.covered {
            let queue = &mut state.queues[*place];
            queue.has_more = is_full && !queue.is_slept_on && !paused.contains(&queue.name);
        }
    }
}

impl Drop for TakePermit<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        for place in &self.covered {
            state.queues[*place].takes -= 1;
        }
        drop(state);
        self.turns.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    fn turns(queues: &[(&str, u32)], fetchers: usize) -> TakePermits {
        TakePermits::new(queues.iter().map(|(name, weight)| (name.to_string(), *weight)), fetchers)
    }

    fn shares(turn: &TakePermit, jobs: usize) -> Vec<(String, usize)> {
        turn.split(jobs).into_iter().map(|share| (share.queue, share.jobs)).collect()
    }

    fn covered(turn: &TakePermit) -> Vec<String> {
        shares(turn, 0).into_iter().map(|(queue, _)| queue).collect()
    }

    /// What a take with room for so many jobs would bring from each queue.
    fn split(turns: &TakePermits, jobs: usize) -> Vec<usize> {
        let turn = turns.begin("high", false);
        turn.split(jobs).into_iter().map(|share| share.jobs).collect()
    }

    #[test]
    fn one_job_at_a_time_is_shared_out_like_many() {
        let queues = [("low", 1), ("high", 3)];
        let one = turns(&queues, 1);
        let singles =
            (0..40).map(|_| split(&one, 1)).fold([0, 0], |sum, share| [sum[0] + share[0], sum[1] + share[1]]);
        assert_eq!(singles, [30, 10]);
        assert_eq!(split(&turns(&queues, 1), 40), [30, 10]);
    }

    #[test]
    fn shares_follow_the_weights_whatever_the_sizes_of_the_takes() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..50 {
            let weights: Vec<u32> = (0..random.usize(2..6)).map(|_| random.u32(1..10)).collect();
            let total: u32 = weights.iter().sum();
            let name = |n: usize| format!("queue {n}");
            let turns = TakePermits::new(weights.iter().enumerate().map(|(n, weight)| (name(n), *weight)), 1);
            let (mut all, mut given) = (0, HashMap::<String, usize>::new());
            for _ in 0..200 {
                let jobs = random.usize(..8);
                let shares = turns.begin(&name(0), false).split(jobs);
                assert_eq!(shares.iter().map(|share| share.jobs).sum::<usize>(), jobs);
                all += jobs;
                shares.into_iter().for_each(|share| *given.entry(share.queue).or_default() += share.jobs);
            }
            for (n, weight) in weights.iter().enumerate() {
                let fair = all as f64 * f64::from(*weight) / f64::from(total);
                let got = given[&name(n)] as f64;
                assert!((got - fair).abs() <= weights.len() as f64, "{weights:?}: {got} of {fair}");
            }
        }
    }

    #[test]
    fn a_queue_whose_fetcher_sleeps_is_left_to_it() {
        for fetchers in [1, 4] {
            let turns = turns(&[("low", 1), ("high", 3)], fetchers);
            turns.sleep("high");
            assert_eq!(shares(&turns.begin("low", false), 4), [("low".to_owned(), 4)]);
            assert_eq!(covered(&turns.begin("high", true)), ["high", "low"], "it was woken");
            turns.sleep("high");
            turns.wake("high");
            assert_eq!(covered(&turns.begin("low", false)), ["high", "low"]);
        }
    }

    #[test]
    fn a_single_queue_gets_everything() {
        assert_eq!(split(&turns(&[("high", 7)], 1), 30), [30]);
    }

    #[test]
    fn in_order_no_two_takes_under_way_cover_one_queue() {
        let turns = turns(&[("a", 1), ("b", 1), ("c", 1)], 1);
        turns.sleep("c");
        let first = turns.begin("a", false);
        assert_eq!(covered(&first), ["a", "b"]);
        assert_eq!(
            covered(&turns.begin("c", true)),
            ["c"],
            "woken meanwhile, it need not wait for the other take"
        );
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let turns = &turns;
            let waits = [
                scope.spawn(|| {
                    drop(turns.begin("b", false));
                    assert!(is_over.load(Ordering::SeqCst));
                }),
                scope.spawn(|| {
                    turns.sleep("a");
                    assert!(is_over.load(Ordering::SeqCst));
                }),
            ];
            thread::sleep(std::time::Duration::from_millis(50));
            is_over.store(true, Ordering::SeqCst);
            drop(first);
            waits.into_iter().for_each(|waits| waits.join().unwrap());
        });
    }

    #[test]
    fn with_more_fetchers_takes_overlap() {
        let turns = turns(&[("a", 1), ("b", 1)], 2);
        let first = turns.begin("a", false);
        assert_eq!(covered(&turns.begin("a", false)), ["a", "b"]);
        assert_eq!(covered(&first), ["a", "b"]);
    }

    #[test]
    fn further_fetchers_wait_until_there_may_be_more() {
        let turns = turns(&[("a", 1), ("b", 1)], 2);
        let has_more = |queue: &str| turns.state().of(queue).unwrap().has_more;
        let turn = turns.begin("a", false);
        turn.brought(true, &["b".to_owned()]);
        assert_eq!((has_more("a"), has_more("b")), (true, false), "a paused queue has nothing to take");
        assert!(turns.wait_for_more("a"));
        turns.sleep("a");
        turn.brought(true, &[]);
        assert_eq!((has_more("a"), has_more("b")), (false, true), "its first fetcher waits for the next job");
        turn.brought(false, &[]);
        assert!(!has_more("b"));
        thread::scope(|scope| {
            let waits = ["a", "b"].map(|queue| scope.spawn(|| turns.wait_for_more(queue)));
            turns.close();
            assert!(waits.into_iter().all(|waits| !waits.join().unwrap()));
        });
    }
}
