//! Submissions that come while another one is on its way to Redis wait for it and go together, in one round trip. One that
//! comes alone goes at once.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::job::NewJob;
use crate::queue::{Error, Idempotency, Queue, SubmitError, Submitted};
use crate::sync;

/// Jobs that are stored together, all or none.
#[derive(Debug)]
pub struct NewJobs {
    /// At least one; no unique key twice.
    pub jobs: Vec<NewJob>,
    /// Makes it safe to repeat.
    pub idempotency: Option<Idempotency>,
}

/// What became of a submission.
pub type Outcome = Result<Submitted, SubmitError>;

/// The most jobs that go together, and about the most bytes of their payloads. A submission that is larger goes alone.
const GROUP_JOBS: usize = 256;
const GROUP_BYTES: usize = 1 << 20;

/// Where submissions meet.
pub struct GroupCommit {
    queue: Arc<Queue>,
    /// Queued jobs from which on a queue takes no more.
    max_queue_length: u64,
    line: Mutex<Line>,
}

/// Who waits, the first one in front.
#[derive(Default)]
struct Line {
    /// One of those that came earlier is on its way.
    is_led: bool,
    waiting: Vec<Waiting>,
}

struct Waiting {
    submission: Arc<NewJobs>,
    turn: Arc<Slot>,
}

/// Where a turn is put for the thread that waits for it. A channel would spin before it sleeps, which takes the
/// processor from whom it waits for.
#[derive(Default)]
struct Slot {
    turn: Mutex<Option<Signal>>,
    put: Condvar,
}

/// How the waiting ends.
enum Signal {
    /// Someone else has taken the submission along.
    Answered(Outcome),
    /// It is the first one by now, and goes.
    Lead,
}

impl GroupCommit {
    /// Nobody waits yet.
    pub fn new(queue: Arc<Queue>, max_queue_length: u64) -> GroupCommit {
        GroupCommit { queue, max_queue_length, line: Mutex::default() }
    }

    /// Queued jobs from which on a queue takes no more.
    pub fn max_queue_length(&self) -> u64 {
        self.max_queue_length
    }

    /// Stores new jobs, all or none.
    ///
    /// # Errors
    /// As of [`Queue::submit`].
    pub fn submit(&self, submission: Arc<NewJobs>) -> Outcome {
        let slot = Arc::new(Slot::default());
        let leads = {
            let mut line = self.line();
            line.waiting.push(Waiting { submission, turn: slot.clone() });
            !std::mem::replace(&mut line.is_led, true)
        };
        if !leads && let Signal::Answered(outcome) = slot.take() {
            return outcome;
        }
        self.lead();
        match slot.take() {
            Signal::Answered(outcome) => outcome,
            Signal::Lead => Err(unanswered()),
        }
    }

    /// Takes the foremost ones to Redis, and hands over to the next one.
    fn lead(&self) {
        let _next = HandOver(self);
        let mut group = Group(self.line().next_group());
        let submissions: Vec<_> = group
            .0
            .iter()
            .map(|waiting| (waiting.submission.jobs.as_slice(), waiting.submission.idempotency.as_ref()))
            .collect();
        let answer = self.queue.submit_all(&submissions, self.max_queue_length);
        drop(submissions);
        match answer {
            Ok(outcomes) => {
                for (waiting, outcome) in group.0.drain(..).zip(outcomes) {
                    waiting.turn.put(Signal::Answered(outcome.map_err(SubmitError::from)));
                }
            }
            Err(error) => {
                // Whoever came meanwhile has waited as long as it may; it was not tried, and would fail like this.
                let behind = std::mem::take(&mut self.line().waiting);
                for waiting in group.0.drain(..).chain(behind) {
                    waiting.turn.put(Signal::Answered(Err(error.clone().into())));
                }
            }
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        sync::lock(&self.line)
    }
}

fn unanswered() -> SubmitError {
    Error::Unavailable("the submission got no answer".to_owned()).into()
}

impl Slot {
    fn put(&self, turn: Signal) {
        *sync::lock(&self.turn) = Some(turn);
        self.put.notify_one();
    }

    /// Waits for a turn.
    fn take(&self) -> Signal {
        let mut turn = sync::lock(&self.turn);
        loop {
            match turn.take() {
                Some(turn) => return turn,
                None => turn = sync::wait(&self.put, turn),
            }
        }
    }
}

impl Line {
    /// As many from the front as may go together, at least one.
    fn next_group(&mut self) -> Vec<Waiting> {
        let (mut jobs, mut bytes) = (0, 0);
        let fits = |waiting: &Waiting| {
            jobs += waiting.submission.jobs.len();
            bytes += waiting.submission.jobs.iter().map(|job| job.payload.get().len()).sum::<usize>();
            jobs <= GROUP_JOBS && bytes <= GROUP_BYTES
        };
        let number = self.waiting.iter().map(fits).take_while(|fits| *fits).count().max(1);
        self.waiting.drain(..number.min(self.waiting.len())).collect()
    }
}

/// Those that one leads. Whom it has not answered when it is dropped, however its way ends, learns that.
struct Group(Vec<Waiting>);

impl Drop for Group {
    fn drop(&mut self) {
        for waiting in &self.0 {
            waiting.turn.put(Signal::Answered(Err(unanswered())));
        }
    }
}

/// Has the next one lead when it is dropped, however the way of this one ends.
struct HandOver<'a>(&'a GroupCommit);

impl Drop for HandOver<'_> {
    fn drop(&mut self) {
        let mut line = self.0.line();
        match line.waiting.first() {
            Some(next) => next.turn.put(Signal::Lead),
            None => line.is_led = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(payloads: &[usize]) -> Waiting {
        let job = |bytes: &usize| {
            let mut job = NewJob::new("t");
            job.payload = serde_json::value::to_raw_value(&"x".repeat(*bytes)).unwrap();
            job
        };
        let submission = NewJobs { jobs: payloads.iter().map(job).collect(), idempotency: None };
        Waiting { submission: Arc::new(submission), turn: Arc::default() }
    }

    #[test]
    fn groups_are_bounded_and_nobody_is_left() {
        let mut line = Line { is_led: true, waiting: Vec::new() };
        let large = GROUP_BYTES - 100;
        let jobs = vec![0; GROUP_JOBS];
        for payloads in [&[1][..], &[2], &[large], &[large + 200], &[3], &jobs, &[4], &[5]] {
            line.waiting.push(waiting(payloads));
        }
        let mut sizes = Vec::new();
        while !line.waiting.is_empty() {
            sizes.push(line.next_group().len());
        }
        assert_eq!(sizes, [3, 1, 1, 1, 2]);
    }

    fn submission(job_type: &str) -> Arc<NewJobs> {
        Arc::new(NewJobs { jobs: vec![NewJob::new(job_type)], idempotency: None })
    }

    #[test]
    fn whoever_waits_behind_one_that_fails_fails_with_it_and_the_next_one_tries() {
        let settings = crate::queue::Settings {
            url: "redis://127.0.0.1:1".to_owned(),
            ca: None,
            namespace: "t".to_owned(),
            connections: 1,
            fetchers: 1,
        };
        let group_commit = GroupCommit::new(Arc::new(Queue::new(&settings).unwrap()), 10);
        let behind = Arc::new(Slot::default());
        // Somebody leads, and two wait.
        group_commit.line().is_led = true;
        group_commit.line().waiting.push(waiting(&[GROUP_BYTES]));
        group_commit.line().waiting.push(Waiting { submission: submission("t"), turn: behind.clone() });
        group_commit.lead();
        assert!(matches!(behind.take(), Signal::Answered(Err(SubmitError::Queue(Error::Unavailable(_))))));
        assert!(!group_commit.line().is_led);
        for _ in 0..2 {
            assert!(matches!(
                group_commit.submit(submission("t")),
                Err(SubmitError::Queue(Error::Unavailable(_)))
            ));
        }
    }
}
