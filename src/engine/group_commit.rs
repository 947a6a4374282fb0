//! Group commit of submissions: all submissions that arrive during a round trip to Redis are stored together in the next
//! round trip. A submission that arrives alone is sent at once.
//!
//! The threads of the API do this themselves. A thread that finds no other thread sending becomes the leader: it sends all
//! submissions that wait, passes the results on, and ends when none waits. The other threads do not wait for results:
//! each submission has a function for its result, which the leader calls. A thread of its own would cost a lone submission
//! two thread switches, and waiting threads would cost one switch each.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::job::NewJob;
use crate::queue::{Error, Idempotency, Queue, SubmitError, Submitted};
use crate::sync;

/// Jobs that are stored together, all or none.
#[derive(Debug)]
pub struct NewJobs {
    /// At least one job. All unique keys differ.
    pub jobs: Vec<NewJob>,
    /// Makes a repeated submission store nothing new, if present.
    pub idempotency: Option<Idempotency>,
}

pub type SubmitResult = Result<Submitted, SubmitError>;
/// Takes the result of a submission. The leader calls this function, and the other submissions wait meanwhile.
pub type Done = Box<dyn FnOnce(&NewJobs, SubmitResult) + Send>;

/// The most jobs in one round trip, and the bytes of their payloads. A larger submission is sent alone.
const GROUP_JOBS: usize = 256;
const GROUP_BYTES: usize = 1 << 20;

pub struct GroupCommit {
    queue: Arc<Queue>,
    /// The number of queued jobs at which a queue refuses new jobs.
    max_queue_length: u64,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    /// Whether a thread leads.
    has_leader: bool,
    /// Waiting submissions, in the order of their arrival.
    submissions: Vec<Submission>,
}

struct Submission {
    new_jobs: NewJobs,
    done: Done,
}

impl GroupCommit {
    pub fn new(queue: Arc<Queue>, max_queue_length: u64) -> GroupCommit {
        GroupCommit { queue, max_queue_length, pending: Mutex::default() }
    }

    /// The number of queued jobs at which a queue refuses new jobs.
    pub fn max_queue_length(&self) -> u64 {
        self.max_queue_length
    }

    /// Stores new jobs, all or none, as [`Queue::submit`] does. Calls `done` with the result, on this thread or another
    /// one. If the thread panics that sends the submission, `done` is dropped without a call. If this thread becomes the
    /// leader, it calls `before_sending` first. Returns whether other submissions were under way.
    pub fn submit(&self, new_jobs: NewJobs, done: Done, before_sending: impl FnOnce()) -> bool {
        if let Some(error) = self.queue.too_few_replicas() {
            done(&new_jobs, Err(error.into()));
            return false;
        }
        let leads = {
            let mut pending = self.pending();
            pending.submissions.push(Submission { new_jobs, done });
            !std::mem::replace(&mut pending.has_leader, true)
        };
        if !leads {
            return true;
        }
        let leader = Leader(self);
        before_sending();
        let mut sent = 0;
        while let Some(group) = leader.next_group() {
            sent += group.len();
            self.send(group);
        }
        sent > 1
    }

    fn send(&self, group: Vec<Submission>) {
        let submissions: Vec<_> = group
            .iter()
            .map(|one| (one.new_jobs.jobs.as_slice(), one.new_jobs.idempotency.as_ref()))
            .collect();
        let (results, fault) = match self.queue.submit_all(&submissions, self.max_queue_length) {
            Ok(results) => {
                let fault = results.iter().find_map(not_replicated);
                (results, fault)
            }
            Err(error) => (vec![Err(error.clone().into()); group.len()], Some(error)),
        };
        // Submissions that arrived meanwhile fail too, although they were not sent. They have waited as long as a request
        // may, and would most likely fail in the same way.
        let others = fault.map(|fault| (std::mem::take(&mut self.pending().submissions), fault));
        for (submission, result) in group.into_iter().zip(results) {
            submission.done(result);
        }
        if let Some((others, fault)) = others {
            for submission in others {
                submission.done(Err(fault.clone().into()));
            }
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        sync::lock(&self.pending)
    }
}

impl Submission {
    fn done(self, result: SubmitResult) {
        (self.done)(&self.new_jobs, result);
    }
}

/// The error for submissions that were not sent, if too few replicas have a submission with this result.
fn not_replicated(result: &SubmitResult) -> Option<Error> {
    match result {
        Err(SubmitError::Queue(Error::NotReplicated { have, wanted, .. })) => {
            Some(Error::NotReplicated { have: *have, wanted: *wanted, is_stored: false })
        }
        _ => None,
    }
}

impl Pending {
    /// Takes submissions from the front: as many as fit into one round trip, and at least one.
    fn next_group(&mut self) -> Vec<Submission> {
        let (mut jobs, mut bytes) = (0, 0);
        let fits = |submission: &Submission| {
            let new_jobs = &submission.new_jobs.jobs;
            jobs += new_jobs.len();
            bytes += new_jobs.iter().map(|job| job.payload.get().len()).sum::<usize>();
            jobs <= GROUP_JOBS && bytes <= GROUP_BYTES
        };
        let number = self.submissions.iter().map(fits).take_while(|fits| *fits).count().max(1);
        self.submissions.drain(..number.min(self.submissions.len())).collect()
    }
}

/// The role of the leader.
struct Leader<'a>(&'a GroupCommit);

impl Leader<'_> {
    /// The submissions of the next round trip. `None` if none waits: then the next submission has a new leader.
    fn next_group(&self) -> Option<Vec<Submission>> {
        let mut pending = self.0.pending();
        pending.has_leader = !pending.submissions.is_empty();
        pending.has_leader.then(|| pending.next_group())
    }
}

impl Drop for Leader<'_> {
    /// If the leader panics, no thread sends the submissions that wait: they are dropped.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let abandoned = {
                let mut pending = self.0.pending();
                pending.has_leader = false;
                std::mem::take(&mut pending.submissions)
            };
            drop(abandoned);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn submission_of(payloads: &[usize]) -> Submission {
        let job = |bytes: &usize| {
            let mut job = NewJob::new("t");
            job.payload = serde_json::value::to_raw_value(&"x".repeat(*bytes)).unwrap();
            job
        };
        let new_jobs = NewJobs { jobs: payloads.iter().map(job).collect(), idempotency: None };
        Submission { new_jobs, done: Box::new(|_, _| {}) }
    }

    #[test]
    fn groups_are_bounded_and_contain_every_submission() {
        let mut pending = Pending { has_leader: true, submissions: Vec::new() };
        let large = GROUP_BYTES - 100;
        let jobs = vec![0; GROUP_JOBS];
        for payloads in [&[1][..], &[2], &[large], &[large + 200], &[3], &jobs, &[4], &[5]] {
            pending.submissions.push(submission_of(payloads));
        }
        let mut sizes = Vec::new();
        while !pending.submissions.is_empty() {
            sizes.push(pending.next_group().len());
        }
        assert_eq!(sizes, [3, 1, 1, 1, 2]);
    }

    /// A submission, and where its result arrives.
    fn submission() -> (NewJobs, Done, mpsc::Receiver<SubmitResult>) {
        let (sender, receiver) = mpsc::channel();
        let done: Done = Box::new(move |_, result| sender.send(result).unwrap());
        (NewJobs { jobs: vec![NewJob::new("t")], idempotency: None }, done, receiver)
    }

    fn without_redis() -> GroupCommit {
        let settings = crate::queue::Settings::new("redis://127.0.0.1:1", "t");
        GroupCommit::new(Arc::new(Queue::new(&settings).unwrap()), 10)
    }

    #[test]
    fn submissions_that_wait_behind_a_failed_one_fail_too_and_later_ones_are_sent() {
        let group_commit = without_redis();
        // Another thread leads, and two submissions wait.
        group_commit.pending().has_leader = true;
        group_commit.pending().submissions.push(submission_of(&[GROUP_BYTES]));
        let (new_jobs, done, behind) = submission();
        group_commit.submit(new_jobs, done, || {});
        assert!(behind.try_recv().is_err(), "the leader sends it");
        let leader = Leader(&group_commit);
        group_commit.send(leader.next_group().unwrap());
        let is_unavailable = |result| matches!(result, Ok(Err(SubmitError::Queue(Error::Unavailable(_)))));
        assert!(is_unavailable(behind.try_recv()));
        assert!(leader.next_group().is_none());
        assert!(!group_commit.pending().has_leader);
        for _ in 0..2 {
            let (new_jobs, done, result) = submission();
            group_commit.submit(new_jobs, done, || {});
            assert!(is_unavailable(result.try_recv()));
        }
    }

    #[test]
    fn a_leader_that_panics_leaves_no_submission_behind() {
        let group_commit = Arc::new(without_redis());
        let (new_jobs, done, behind) = submission();
        let leader = std::thread::spawn({
            let group_commit = group_commit.clone();
            let during = group_commit.clone();
            let panics: Done = Box::new(move |_, _| {
                during.submit(new_jobs, done, || {});
                panic!("the function for a result panics");
            });
            move || group_commit.submit(submission().0, panics, || {})
        });
        assert!(leader.join().is_err());
        assert_eq!(behind.recv().unwrap_err(), mpsc::RecvError, "its function was dropped");
        let (new_jobs, done, result) = submission();
        group_commit.submit(new_jobs, done, || {});
        assert!(result.try_recv().is_ok());
    }
}
