//! Takers: requests of pull workers that wait for jobs on this server.
//!
//! The oldest taker of a queue gets the next job of the queue. For each queue with a taker a puller waits in Redis. A new
//! taker of a queue that its puller holds just waits: older takers are first.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::queue::{PullRequest, PulledJob};
use crate::sorting;
use crate::sync;

/// The most queues that have a puller at a time.
pub const MAX_PULLED_QUEUES: usize = 32;
/// How long a puller without a taker stays, unless another queue needs its place: pull workers come back soon.
const IDLE: Duration = Duration::from_secs(60);
/// The time between two notes in Redis that these takers wait.
const NOTE_INTERVAL: Duration = Duration::from_secs(30);
/// The most names of workers that are remembered as noted.
const MAX_NOTED: usize = 1_000;

/// A client that waits for jobs.
pub trait Client: Send {
    /// Whether the client has closed its connection, so that no job may be given to it.
    fn has_hung_up(&self) -> bool;
    /// Gives these jobs to the client; none if its time is over.
    fn answer(self: Box<Self>, jobs: Vec<PulledJob>);
    /// Tells the client that it cannot wait here.
    fn refuse(self: Box<Self>);
}

/// A client with its request.
pub struct Taker {
    pub request: PullRequest,
    pub since: Instant,
    pub until: Instant,
    pub client: Box<dyn Client>,
}

/// All takers of this server, and the queues that have a puller.
#[derive(Default)]
pub struct Takers {
    state: Mutex<State>,
    /// Notified when a taker comes or comes back, and at the end.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    waiting: Vec<Taker>,
    pulled: Vec<PulledQueue>,
    /// How many pullers have been started.
    started: usize,
    noted: Option<Instant>,
    /// The workers of the last note, and those that were noted alone since.
    noted_workers: Vec<String>,
    is_closed: bool,
}

struct PulledQueue {
    name: String,
    /// The number of its puller: no other puller has it. A puller whose number is missing here ends.
    puller: usize,
    /// Whether its puller looks for jobs for a taker.
    is_held: bool,
}

impl State {
    fn waits_for(&self, queue: &str) -> bool {
        self.waiting.iter().any(|taker| asks_for(taker, queue))
    }

    fn has_puller(&self, queue: &str) -> bool {
        self.pulled.iter().any(|pulled| pulled.name == queue)
    }

    /// The queue of this puller, unless the puller has to end.
    fn queue_of(&mut self, puller: usize) -> Option<&mut PulledQueue> {
        self.pulled.iter_mut().find(|pulled| pulled.puller == puller)
    }

    fn is_held(&self, queue: &str) -> bool {
        self.pulled.iter().any(|pulled| pulled.name == queue && pulled.is_held)
    }

    /// Whether a puller has nothing to do for now: no taker asks for its queue.
    fn is_idle(&mut self, puller: usize, queue: &str) -> bool {
        !self.is_closed && self.queue_of(puller).is_some() && !self.waits_for(queue)
    }
}

fn asks_for(taker: &Taker, queue: &str) -> bool {
    taker.request.queues.iter().any(|name| name == queue)
}

impl Takers {
    fn state(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    /// The number of takers that wait.
    pub fn len(&self) -> usize {
        self.state().waiting.len()
    }

    /// The queues in this list that no puller holds.
    pub fn without_held(&self, queues: &[String]) -> Vec<String> {
        let state = self.state();
        queues.iter().filter(|queue| !state.is_held(queue)).cloned().collect()
    }

    /// The queues in this list that a puller holds although no taker waits any more: the puller may have claimed a job at this
    /// moment, which it is about to put back.
    pub fn without_taker(&self, queues: &[String]) -> Vec<String> {
        let state = self.state();
        queues.iter().filter(|queue| state.is_held(queue) && !state.waits_for(queue)).cloned().collect()
    }

    /// Whether a puller waits for jobs of this queue, or did so within the last minute.
    pub fn have_queue(&self, queue: &str) -> bool {
        self.state().has_puller(queue)
    }

    /// Adds a taker, or puts a taker back that got no job. Returns its queues that have no puller yet, each with the number of
    /// the puller that the caller starts. If too many queues would have a puller, pullers without a taker end; if these are
    /// too few, the taker is refused. After the end a taker is answered at once.
    pub fn add(&self, taker: Taker) -> Vec<(String, usize)> {
        let mut state = self.state();
        if state.is_closed {
            drop(state);
            taker.client.answer(Vec::new());
            return Vec::new();
        }
        let asked = sorting::distinct(&taker.request.queues);
        let new: Vec<String> = asked.into_iter().filter(|queue| !state.has_puller(queue)).cloned().collect();
        let State { waiting, pulled, .. } = &mut *state;
        let mut missing = (pulled.len() + new.len()).saturating_sub(MAX_PULLED_QUEUES);
        pulled.retain(|PulledQueue { name, is_held, .. }| {
            let is_needed =
                *is_held || asks_for(&taker, name) || waiting.iter().any(|other| asks_for(other, name));
            let stays = missing == 0 || is_needed;
            missing -= usize::from(!stays);
            stays
        });
        self.changed.notify_all();
        if missing > 0 {
            drop(state);
            taker.client.refuse();
            return Vec::new();
        }
        let added: Vec<(String, usize)> = new.into_iter().zip(state.started..).collect();
        state.started += added.len();
        for (name, puller) in &added {
            state.pulled.push(PulledQueue { name: name.clone(), puller: *puller, is_held: false });
        }
        let place = state.waiting.partition_point(|other| other.since <= taker.since);
        state.waiting.insert(place, taker);
        added
    }

    /// Refuses the takers of a queue whose puller could not be started.
    pub fn give_up(&self, queue: &str) {
        let mut state = self.state();
        state.pulled.retain(|pulled| pulled.name != queue);
        let refused: Vec<Taker> = state.waiting.extract_if(.., |taker| asks_for(taker, queue)).collect();
        drop(state);
        refused.into_iter().for_each(|taker| taker.client.refuse());
    }

    /// Waits until a taker asks for the queue of this puller, which holds the queue from then on. `false` if the puller ends:
    /// for long no taker has come, another queue needs its place, or the server stops.
    pub fn wait_for_taker(&self, puller: usize, queue: &str) -> bool {
        let mut state = self.state();
        let is_idle = |state: &mut State| state.is_idle(puller, queue);
        if is_idle(&mut state) {
            state.queue_of(puller).into_iter().for_each(|pulled| pulled.is_held = false);
            state = sync::wait_timeout_while(&self.changed, state, IDLE, is_idle);
        }
        let goes_on = !state.is_closed && state.waits_for(queue);
        match state.queue_of(puller) {
            Some(pulled) if goes_on => pulled.is_held = true,
            _ => {
                // Under the same lock: a taker that comes now gets a new puller.
                state.pulled.retain(|pulled| pulled.puller != puller);
                return false;
            }
        }
        true
    }

    /// Ends the hold of the queue of this puller, so that new takers find out themselves why they get no job.
    pub fn release(&self, puller: usize) {
        self.state().queue_of(puller).into_iter().for_each(|pulled| pulled.is_held = false);
    }

    /// Removes and returns the oldest taker of a queue.
    pub fn take_oldest(&self, queue: &str) -> Option<Taker> {
        let mut state = self.state();
        let place = state.waiting.iter().position(|taker| asks_for(taker, queue))?;
        Some(state.waiting.remove(place))
    }

    /// Answers the takers whose time is over or that have hung up. Returns whether takers still wait, or may come back: a
    /// puller that holds a queue may have a taker, and puts the taker back if it finds no job.
    pub fn answer_overdue(&self) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let is_over = |taker: &mut Taker| taker.until <= now || taker.client.has_hung_up();
        let over: Vec<Taker> = state.waiting.extract_if(.., is_over).collect();
        let is_waited = !state.waiting.is_empty() || state.pulled.iter().any(|pulled| pulled.is_held);
        drop(state);
        over.into_iter().for_each(|taker| taker.client.answer(Vec::new()));
        is_waited
    }

    /// The names of the workers that wait and of the queues that they ask for, if Redis has not been told for long.
    pub fn unnoted(&self) -> Option<(Vec<String>, Vec<String>)> {
        let mut state = self.state();
        if state.waiting.is_empty() || state.noted.is_some_and(|at| at.elapsed() < NOTE_INTERVAL) {
            return None;
        }
        state.noted = Some(Instant::now());
        let requests = || state.waiting.iter().map(|taker| &taker.request);
        let workers = sorting::distinct(requests().filter_map(|request| request.worker.clone()));
        let queues = requests().flat_map(|request| request.queues.iter().cloned());
        let told = (workers.clone(), sorting::distinct(queues));
        state.noted_workers = workers;
        Some(told)
    }

    /// Whether Redis has to be told of a worker that will wait: no note has named it lately. The caller tells Redis.
    pub fn is_unnoted(&self, worker: &str) -> bool {
        let noted = &mut self.state().noted_workers;
        if noted.iter().any(|name| name == worker) {
            return false;
        }
        if noted.len() >= MAX_NOTED {
            noted.clear();
        }
        noted.push(worker.to_owned());
        true
    }

    /// Answers all takers, now and later, and ends the pullers.
    pub fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.changed.notify_all();
        waiting.into_iter().for_each(|taker| taker.client.answer(Vec::new()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::wait::{LIMIT, eventually};

    #[derive(Clone, Default)]
    struct Fake {
        has_hung_up: Arc<AtomicBool>,
        answers: Arc<AtomicUsize>,
        refusals: Arc<AtomicUsize>,
    }

    impl Client for Fake {
        fn has_hung_up(&self) -> bool {
            self.has_hung_up.load(Ordering::SeqCst)
        }

        fn answer(self: Box<Self>, _: Vec<PulledJob>) {
            self.answers.fetch_add(1, Ordering::SeqCst);
        }

        fn refuse(self: Box<Self>) {
            self.refusals.fetch_add(1, Ordering::SeqCst);
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn taker(worker: &str, queues: &[&str], client: &Fake) -> Taker {
        let now = Instant::now();
        let worker = Some(worker.to_owned());
        let request = PullRequest { queues: names(queues), max: 1, lease: None, worker };
        Taker { request, since: now, until: now + HOUR, client: Box::new(client.clone()) }
    }

    fn oldest(takers: &Takers, queue: &str) -> Option<String> {
        takers.take_oldest(queue)?.request.worker
    }

    #[test]
    fn the_oldest_taker_of_a_queue_is_first_and_keeps_its_place() {
        let (takers, client) = (Takers::default(), Fake::default());
        for (worker, queues) in [("1", &["a", "b"][..]), ("2", &["b"]), ("3", &["a"])] {
            takers.add(taker(worker, queues, &client));
        }
        let first = takers.take_oldest("b").unwrap();
        assert_eq!(oldest(&takers, "b").as_deref(), Some("2"));
        takers.add(first);
        assert_eq!(oldest(&takers, "a").as_deref(), Some("1"));
        assert_eq!(oldest(&takers, "b"), None);
        assert_eq!((oldest(&takers, "a").as_deref(), takers.len()), (Some("3"), 0));
    }

    #[test]
    fn a_queue_is_held_while_it_has_a_taker() {
        let (takers, client) = (Takers::default(), Fake::default());
        let added = takers.add(taker("1", &["b", "a", "b"], &client));
        assert_eq!(added, [("a".to_owned(), 0), ("b".to_owned(), 1)]);
        assert!(takers.wait_for_taker(0, "a"));
        assert_eq!(takers.without_held(&names(&["a", "b"])), ["b"]);
        assert_eq!(takers.without_taker(&names(&["a", "b"])), names(&[]));
        let taken = takers.take_oldest("a").unwrap();
        assert_eq!(takers.without_taker(&names(&["a", "b"])), ["a"]);
        takers.add(taken);
        takers.release(0);
        assert_eq!(takers.without_held(&names(&["a", "b"])), ["a", "b"]);
        takers.close();
        assert!(!takers.wait_for_taker(0, "a") && !takers.have_queue("a"));
        assert_eq!(takers.add(taker("2", &["a"], &client)), []);
        assert_eq!((client.answers.load(Ordering::SeqCst), takers.len()), (2, 0));
    }

    #[test]
    fn the_number_of_queues_is_bounded() {
        let (takers, client) = (Takers::default(), Fake::default());
        let refusals = || client.refusals.load(Ordering::SeqCst);
        let many: Vec<String> = (0..MAX_PULLED_QUEUES).map(|number| format!("q{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(takers.add(taker("1", &many, &client)).last(), Some(&("q9".to_owned(), 31)));
        assert_eq!(takers.add(taker("2", &many[3..5], &client)), []);
        assert_eq!((takers.add(taker("3", &["q0", "more"], &client)), refusals()), (Vec::new(), 1));
        takers.give_up("q0");
        assert_eq!((refusals(), takers.len(), takers.have_queue("q0")), (2, 1, false));
        assert_eq!(takers.add(taker("4", &["more"], &client)), [("more".to_owned(), 32)]);
        assert!(takers.have_queue("more"));
    }

    #[test]
    fn pullers_without_a_taker_make_room_for_other_queues() {
        let (takers, client) = (Takers::default(), Fake::default());
        for number in 0..MAX_PULLED_QUEUES {
            takers.add(taker("1", &[&format!("q{number}")], &client));
        }
        assert!(takers.wait_for_taker(3, "q3") && takers.wait_for_taker(4, "q4"));
        for queue in ["q2", "q3", "q4"] {
            takers.take_oldest(queue).unwrap();
        }
        let takers = &takers;
        std::thread::scope(|scope| {
            // The puller of q4 has no taker any more, that of q3 still works for its taker.
            let ends = scope.spawn(|| takers.wait_for_taker(4, "q4"));
            eventually(LIMIT, "the puller has no taker", || !takers.without_held(&names(&["q4"])).is_empty());
            let new = [("x".to_owned(), 32), ("y".to_owned(), 33)];
            assert_eq!(takers.add(taker("2", &["x", "y"], &client)), new);
            assert!(!ends.join().unwrap());
        });
        assert!(!takers.wait_for_taker(2, "q2") && takers.have_queue("q3"));
        // A queue whose puller still ends gets another one, and the first one does not take its place.
        assert_eq!(takers.add(taker("3", &["q2"], &client)), []);
        takers.give_up("x");
        assert_eq!(takers.add(taker("4", &["q2"], &client)), [("q2".to_owned(), 34)]);
        assert!(!takers.wait_for_taker(2, "q2") && takers.wait_for_taker(34, "q2"));
        assert_eq!(client.refusals.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_taker_is_answered_when_its_time_is_over_or_it_hangs_up() {
        let takers = Takers::default();
        let clients: [Fake; 3] = Default::default();
        takers.add(Taker { until: Instant::now(), ..taker("1", &["a"], &clients[0]) });
        takers.add(taker("2", &["a"], &clients[1]));
        takers.add(taker("3", &["a"], &clients[2]));
        clients[2].has_hung_up.store(true, Ordering::SeqCst);
        assert!(takers.answer_overdue());
        assert_eq!(clients.each_ref().map(|client| client.answers.load(Ordering::SeqCst)), [1, 0, 1]);
        assert_eq!(oldest(&takers, "a").as_deref(), Some("2"));
        assert!(!takers.answer_overdue());
    }

    #[test]
    fn a_taker_that_its_puller_puts_back_is_answered_when_its_time_is_over() {
        let (takers, client) = (Takers::default(), Fake::default());
        takers.add(Taker { until: Instant::now(), ..taker("1", &["a"], &client) });
        assert!(takers.wait_for_taker(0, "a"));
        let taken = takers.take_oldest("a").unwrap();
        assert!(takers.answer_overdue());
        takers.add(taken);
        assert!(takers.answer_overdue());
        assert_eq!(client.answers.load(Ordering::SeqCst), 1);
        takers.close();
        assert!(!takers.wait_for_taker(0, "a") && !takers.answer_overdue());
    }

    #[test]
    fn redis_is_told_of_all_takers_at_once_and_not_again_soon() {
        let (takers, client) = (Takers::default(), Fake::default());
        assert_eq!(takers.unnoted(), None);
        for worker in ["2", "1", "2"] {
            takers.add(taker(worker, &["b", "a"], &client));
        }
        assert_eq!(takers.unnoted(), Some((names(&["1", "2"]), names(&["a", "b"]))));
        assert_eq!(takers.unnoted(), None);
        let unnoted = ["1", "3", "3", "2"].map(|worker| takers.is_unnoted(worker));
        assert_eq!(unnoted, [false, true, false, false]);
        (0..MAX_NOTED).for_each(|number| _ = takers.is_unnoted(&format!("w{number}")));
        assert!(takers.is_unnoted("1"), "the names are bounded");
    }
}
