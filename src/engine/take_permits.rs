//! Permits to take: which queues one take (a call of `start_jobs`) may cover, in which order and with which shares.
//!
//! With one fetcher per queue, the jobs of a queue start in order: two takes under way never cover the same queue, and
//! no take covers a queue that its first fetcher holds. A fetcher holds its queue while it blocks in BRPOPLPUSH,
//! because the reply may have the next job of the queue at any moment. With more fetchers, takes overlap and the order
//! is not kept.
//!
//! No lock is held during a take: a [`TakePermit`] only records which queues the take covers.

use std::cmp::Reverse;
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::queue::{Share, Turns};
use crate::sorting;
use crate::sync;

/// The queues of this server, shared by all fetchers.
pub struct TakePermits {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether the jobs of each queue start in order.
    is_ordered: bool,
}

struct State {
    /// The strict queues in their order, then the others by falling weight: the share that one queue does not use goes to
    /// the next queues in this order.
    queues: Vec<Queue>,
    is_closed: bool,
}

/// When the jobs of a queue have their turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Before all jobs of later strict queues and of queues with a weight.
    Strict,
    /// In proportion to the weight, which is at least 1.
    Weight(u32),
}

struct Queue {
    name: String,
    is_strict: bool,
    /// 0 if the queue is strict.
    weight: i64,
    /// The balance of the weighted round robin, see [`TakePermit::turns`]: the queue with the highest credit is next.
    credit: i64,
    /// Whether the first fetcher of this queue holds the queue: the fetcher blocks in BRPOPLPUSH, or has claimed a job
    /// there that no take has started yet.
    is_held: bool,
    /// The number of takes under way that cover this queue.
    takes: usize,
    /// Whether the queue may have more jobs: the last take that covered it started as many jobs as it asked for.
    has_more: bool,
}

/// The right to take jobs from some queues, until the permit is dropped.
pub struct TakePermit<'a> {
    permits: &'a TakePermits,
    /// The indexes of those of these queues that are strict.
    strict: Vec<usize>,
    /// The indexes of the others.
    weighted: Vec<usize>,
    /// The queue of each job that the take may start, by the weights alone.
    picks: Vec<usize>,
}

impl TakePermits {
    /// `fetchers` is the number of fetchers of each queue.
    pub fn new(queues: impl IntoIterator<Item = (String, Turn)>, fetchers: usize) -> TakePermits {
        let queue = |(name, turn): (String, Turn)| Queue {
            name,
            is_strict: turn == Turn::Strict,
            weight: match turn {
                Turn::Strict => 0,
                Turn::Weight(weight) => weight.into(),
            },
            credit: 0,
            is_held: false,
            takes: 0,
            has_more: false,
        };
        let mut queues: Vec<Queue> = queues.into_iter().map(queue).collect();
        let key = |queue: &Queue| (!queue.is_strict, Reverse(queue.weight));
        sorting::sort_by(&mut queues, |a, b| key(a).cmp(&key(b)));
        TakePermits {
            state: Mutex::new(State { queues, is_closed: false }),
            changed: Condvar::new(),
            is_ordered: fetchers == 1,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    /// Waits, if jobs start in order, until no take under way covers this queue.
    fn wait_for_takes(&self, queue: &str) -> MutexGuard<'_, State> {
        let is_taken_from =
            |state: &mut State| self.is_ordered && state.queue(queue).is_some_and(|queue| queue.takes > 0);
        sync::wait_while(&self.changed, self.state(), is_taken_from)
    }

    /// Lets the first fetcher of this queue hold the queue. Waits for a take that covers the queue.
    pub fn hold(&self, queue: &str) {
        if let Some(queue) = self.wait_for_takes(queue).queue(queue) {
            (queue.is_held, queue.has_more) = (true, false);
        }
    }

    /// Ends the hold of this queue, when its first fetcher has claimed no job.
    pub fn release(&self, queue: &str) {
        if let Some(queue) = self.state().queue(queue) {
            queue.is_held = false;
        }
    }

    /// Waits until a take may find more jobs in this queue; `false` after [`TakePermits::close`].
    pub fn wait_for_more(&self, queue: &str) -> bool {
        let has_none = |state: &mut State| {
            !state.is_closed && state.queue(queue).is_some_and(|queue| !queue.has_more || queue.is_held)
        };
        let state = sync::wait_while(&self.changed, self.state(), has_none);
        !state.is_closed
    }

    /// Ends every [`TakePermits::wait_for_more`], now and later.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    /// Returns a permit for all queues from which a take may start jobs now. The permit of the first fetcher of a queue
    /// always covers that queue, so this fetcher may have to wait for another take.
    pub fn acquire(&self, queue: &str, is_first: bool) -> TakePermit<'_> {
        let mut state = self.wait_for_takes(queue);
        if is_first && let Some(queue) = state.queue(queue) {
            queue.is_held = false;
        }
        let is_free = |queue: &Queue| !(queue.is_held || self.is_ordered && queue.takes > 0);
        let mut permit =
            TakePermit { permits: self, strict: Vec::new(), weighted: Vec::new(), picks: Vec::new() };
        for (index, queue) in state.queues.iter_mut().enumerate() {
            if is_free(queue) {
                queue.takes += 1;
                if queue.is_strict { permit.strict.push(index) } else { permit.weighted.push(index) }
            }
        }
        permit
    }
}

impl State {
    fn queue(&mut self, name: &str) -> Option<&mut Queue> {
        self.queues.iter_mut().find(|queue| queue.name == name)
    }

    /// Picks the one of these queues that is next by weighted round robin.
    fn pick(&mut self, weighted: &[usize]) -> Option<usize> {
        let order = |index: &usize| {
            let queue = &self.queues[*index];
            (queue.credit + queue.weight, Reverse(*index))
        };
        let pick = weighted.iter().copied().max_by_key(order)?;
        self.move_credit(weighted, pick, 1);
        Some(pick)
    }

    /// Moves credit from the picked queue to all of these queues by their weights; -1 takes a pick back.
    fn move_credit(&mut self, weighted: &[usize], picked: usize, picks: i64) {
        for index in weighted {
            let credit = picks * self.queues[*index].weight;
            self.queues[*index].credit += credit;
            self.queues[picked].credit -= credit;
        }
    }
}

impl TakePermit<'_> {
    /// The indexes of the queues of this permit.
    fn covered(&self) -> impl Iterator<Item = usize> {
        self.strict.iter().chain(&self.weighted).copied()
    }

    /// From which queues the next `jobs` jobs should come. Over time each queue with a weight gets its part of the jobs
    /// that the strict queues leave, whether a take asks for one job or for many (smooth weighted round robin).
    pub fn turns(&mut self, jobs: usize) -> Turns {
        let mut state = self.permits.state();
        self.picks = (0..jobs).filter_map(|_| state.pick(&self.weighted)).collect();
        let name = |index: usize| state.queues[index].name.clone();
        let count = |index: usize| self.picks.iter().filter(|pick| **pick == index).count();
        let has_strict = !self.strict.is_empty();
        let share =
            |index: &usize| Share { queue: name(*index), jobs: if has_strict { 0 } else { count(*index) } };
        let mut shares: Vec<Share> = self.weighted.iter().map(share).collect();
        if has_strict {
            // Nobody knows how many jobs the strict queues leave: so these shares keep the order of the picks.
            let runs = self.picks.chunk_by(|pick, next| pick == next);
            shares.extend(runs.map(|run| Share { queue: name(run[0]), jobs: run.len() }));
        }
        Turns { jobs, strict: self.strict.iter().map(|index| name(*index)).collect(), shares }
    }

    /// Records the queue of each job that the take has started: each job of a strict queue takes the place of a pick.
    pub fn record_started<'a>(&self, queues: impl Iterator<Item = &'a str>) {
        if self.strict.is_empty() {
            return;
        }
        let mut state = self.permits.state();
        let is_strict = |name: &&str| self.strict.iter().any(|index| state.queues[*index].name == *name);
        let strict_jobs = queues.filter(is_strict).count();
        for pick in self.picks.iter().rev().take(strict_jobs) {
            state.move_credit(&self.weighted, *pick, -1);
        }
    }

    /// Records the result of the take. `is_full`: it started as many jobs as it asked for; `paused`: the paused queues.
    pub fn record(&self, is_full: bool, paused: &[String]) {
        let mut state = self.permits.state();
        for index in self.covered() {
            let queue = &mut state.queues[index];
            queue.has_more = is_full && !queue.is_held && !paused.contains(&queue.name);
        }
    }
}

impl Drop for TakePermit<'_> {
    fn drop(&mut self) {
        let mut state = self.permits.state();
        for index in self.covered() {
            state.queues[index].takes -= 1;
        }
        drop(state);
        self.permits.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::iter;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    fn permits(queues: &[(&str, u32)], fetchers: usize) -> TakePermits {
        let turn = |(name, weight): &(&str, u32)| (name.to_string(), Turn::Weight(*weight));
        TakePermits::new(queues.iter().map(turn), fetchers)
    }

    fn shares(permit: &mut TakePermit, jobs: usize) -> Vec<(String, usize)> {
        permit.turns(jobs).shares.into_iter().map(|share| (share.queue, share.jobs)).collect()
    }

    fn covered(permit: &TakePermit) -> Vec<String> {
        let state = permit.permits.state();
        permit.covered().map(|index| state.queues[index].name.clone()).collect()
    }

    /// The shares of a take that asks for `jobs` jobs.
    fn split(permits: &TakePermits, jobs: usize) -> Vec<usize> {
        let mut permit = permits.acquire("high", false);
        permit.turns(jobs).shares.into_iter().map(|share| share.jobs).collect()
    }

    #[test]
    fn shares_of_single_jobs_add_up_like_those_of_many() {
        let queues = [("low", 1), ("high", 3)];
        let one = permits(&queues, 1);
        let singles =
            (0..40).map(|_| split(&one, 1)).fold([0, 0], |sum, share| [sum[0] + share[0], sum[1] + share[1]]);
        assert_eq!(singles, [30, 10]);
        assert_eq!(split(&permits(&queues, 1), 40), [30, 10]);
    }

    #[test]
    fn shares_follow_the_weights_for_takes_of_all_sizes() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..50 {
            let weights: Vec<u32> = (0..random.usize(2..6)).map(|_| random.u32(1..10)).collect();
            let total: u32 = weights.iter().sum();
            let name = |n: usize| format!("queue {n}");
            let permits = TakePermits::new(
                weights.iter().enumerate().map(|(n, weight)| (name(n), Turn::Weight(*weight))),
                1,
            );
            let (mut all, mut given) = (0, HashMap::<String, usize>::new());
            for _ in 0..200 {
                let jobs = random.usize(..8);
                let shares = permits.acquire(&name(0), false).turns(jobs).shares;
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
    fn strict_queues_come_first_in_their_order() {
        let turns =
            [("low", Turn::Weight(1)), ("b", Turn::Strict), ("high", Turn::Weight(3)), ("a", Turn::Strict)];
        let permits = TakePermits::new(turns.map(|(name, turn)| (name.to_owned(), turn)), 1);
        let mut permit = permits.acquire("low", false);
        assert_eq!(covered(&permit), ["b", "a", "high", "low"]);
        let turns = permit.turns(4);
        assert_eq!((turns.jobs, turns.strict), (4, vec!["b".to_owned(), "a".to_owned()]));
        drop(permit);
        permits.hold("b");
        permits.hold("a");
        let turns = permits.acquire("low", false).turns(4);
        assert!(turns.strict.is_empty(), "their fetchers hold them");
        assert_eq!(turns.shares.iter().map(|share| share.jobs).collect::<Vec<_>>(), [3, 1]);
    }

    /// What `start_jobs` starts while the queues with weights have jobs: the strict jobs, then jobs of the shares.
    fn start(turns: &Turns, strict_jobs: usize) -> Vec<String> {
        let strict = iter::repeat_n(turns.strict[0].clone(), strict_jobs);
        let shares = turns.shares.iter().flat_map(|share| iter::repeat_n(share.queue.clone(), share.jobs));
        strict.chain(shares).take(turns.jobs).collect()
    }

    #[test]
    fn what_strict_queues_leave_is_shared_by_weight() {
        let mut random = fastrand::Rng::with_seed(12);
        for most in 1..6 {
            let weights = [1, 3, 4];
            let turns = [Turn::Weight(1), Turn::Weight(3), Turn::Weight(4), Turn::Strict];
            let permits = TakePermits::new((0..).map(|n: usize| n.to_string()).zip(turns), 1);
            let mut given = HashMap::<String, usize>::new();
            for _ in 0..400 {
                let mut permit = permits.acquire("0", false);
                let turns = permit.turns(most);
                let started = start(&turns, random.usize(..=most));
                assert_eq!(started.len(), most);
                permit.record_started(started.iter().map(String::as_str));
                started.into_iter().for_each(|queue| *given.entry(queue).or_default() += 1);
            }
            let left: usize = given.iter().filter(|(queue, _)| *queue != "3").map(|(_, jobs)| jobs).sum();
            for (n, weight) in weights.iter().enumerate() {
                let fair = (left * weight) as f64 / 8.0;
                let got = given[&n.to_string()] as f64;
                assert!((got - fair).abs() <= 3.0, "takes of {most}: {got} of {fair}");
            }
        }
    }

    #[test]
    fn no_other_take_covers_a_queue_that_its_fetcher_holds() {
        for fetchers in [1, 4] {
            let permits = permits(&[("low", 1), ("high", 3)], fetchers);
            permits.hold("high");
            assert_eq!(shares(&mut permits.acquire("low", false), 4), [("low".to_owned(), 4)]);
            assert_eq!(covered(&permits.acquire("high", true)), ["high", "low"], "its own fetcher takes");
            permits.hold("high");
            permits.release("high");
            assert_eq!(covered(&permits.acquire("low", false)), ["high", "low"]);
        }
    }

    #[test]
    fn a_single_queue_gets_the_whole_take() {
        assert_eq!(split(&permits(&[("high", 7)], 1), 30), [30]);
    }

    #[test]
    fn with_one_fetcher_two_takes_never_cover_the_same_queue() {
        let permits = permits(&[("a", 1), ("b", 1), ("c", 1)], 1);
        permits.hold("c");
        let first = permits.acquire("a", false);
        assert_eq!(covered(&first), ["a", "b"]);
        assert_eq!(
            covered(&permits.acquire("c", true)),
            ["c"],
            "it does not wait for a take from other queues"
        );
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let permits = &permits;
            let waits = [
                scope.spawn(|| {
                    drop(permits.acquire("b", false));
                    assert!(is_over.load(Ordering::SeqCst));
                }),
                scope.spawn(|| {
                    permits.hold("a");
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
        let permits = permits(&[("a", 1), ("b", 1)], 2);
        let first = permits.acquire("a", false);
        assert_eq!(covered(&permits.acquire("a", false)), ["a", "b"]);
        assert_eq!(covered(&first), ["a", "b"]);
    }

    #[test]
    fn further_fetchers_wait_until_a_queue_may_have_more_jobs() {
        let permits = permits(&[("a", 1), ("b", 1)], 2);
        let has_more = |queue: &str| permits.state().queue(queue).unwrap().has_more;
        let permit = permits.acquire("a", false);
        permit.record(true, &["b".to_owned()]);
        assert_eq!((has_more("a"), has_more("b")), (true, false), "a paused queue has nothing to take");
        assert!(permits.wait_for_more("a"));
        permits.hold("a");
        permit.record(true, &[]);
        assert_eq!((has_more("a"), has_more("b")), (false, true), "its first fetcher holds it");
        permit.record(false, &[]);
        assert!(!has_more("b"));
        thread::scope(|scope| {
            let waits = ["a", "b"].map(|queue| scope.spawn(|| permits.wait_for_more(queue)));
            permits.close();
            assert!(waits.into_iter().all(|waits| !waits.join().unwrap()));
        });
    }
}
