//! Group commit of submissions: all submissions that arrive during a round trip to Redis are stored together in the next
//! round trip. A submission that arrives alone is sent at once.
//!
//! The threads of the API do this themselves. The first thread leads: it sends all that wait, then makes the first of
//! the remaining threads the next leader. A thread of its own would cost each submission two thread switches.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};

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
    /// Whether a thread leads: it sends submissions, or has a notice to lead.
    has_leader: bool,
    /// Waiting submissions, in the order of their arrival.
    submissions: Vec<Submission>,
}

struct Submission {
    new_jobs: Arc<NewJobs>,
    notice: Arc<NoticeCell>,
}

/// What ends the wait of a thread.
enum Notice {
    /// The leader has sent the submission, with this result.
    Done(SubmitResult),
    /// The thread is the leader now, and its submission is the first one.
    Lead,
}

/// Passes a notice to one waiting thread. Not a channel, which would spin before it sleeps and so take processor time
/// from the leader.
#[derive(Default)]
struct NoticeCell {
    notice: Mutex<Option<Notice>>,
    notified: Condvar,
}

impl GroupCommit {
    pub fn new(queue: Arc<Queue>, max_queue_length: u64) -> GroupCommit {
        GroupCommit { queue, max_queue_length, pending: Mutex::default() }
    }

    /// The number of queued jobs at which a queue refuses new jobs.
    pub fn max_queue_length(&self) -> u64 {
        self.max_queue_length
    }

    /// Stores new jobs, all or none, as [`Queue::submit`] does.
    pub fn submit(&self, new_jobs: Arc<NewJobs>) -> SubmitResult {
        let notice = Arc::new(NoticeCell::default());
        let leads = {
            let mut pending = self.pending();
            pending.submissions.push(Submission { new_jobs, notice: notice.clone() });
            !std::mem::replace(&mut pending.has_leader, true)
        };
        if !leads && let Notice::Done(result) = notice.wait() {
            return result;
        }
        self.lead();
        match notice.wait() {
            Notice::Done(result) => result,
            Notice::Lead => Err(no_reply()),
        }
    }

    /// Sends the first group, and passes the lead on.
    fn lead(&self) {
        let _next = PassLead(self);
        let mut group = Group(self.pending().next_group());
        let submissions: Vec<_> = group
            .0
            .iter()
            .map(|one| (one.new_jobs.jobs.as_slice(), one.new_jobs.idempotency.as_ref()))
            .collect();
        let reply = self.queue.submit_all(&submissions, self.max_queue_length);
        drop(submissions);
        match reply {
            Ok(results) => {
                for (submission, result) in group.0.drain(..).zip(results) {
                    submission.notice.notify(Notice::Done(result.map_err(SubmitError::from)));
                }
            }
            Err(error) => {
                // Submissions that arrived meanwhile fail too, although they were not sent. They have waited as long as
                // a request may, and would most likely fail in the same way.
                let others = std::mem::take(&mut self.pending().submissions);
                for submission in group.0.drain(..).chain(others) {
                    submission.notice.notify(Notice::Done(Err(error.clone().into())));
                }
            }
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        sync::lock(&self.pending)
    }
}

fn no_reply() -> SubmitError {
    Error::Unavailable("the submission got no reply".to_owned()).into()
}

impl NoticeCell {
    fn notify(&self, notice: Notice) {
        *sync::lock(&self.notice) = Some(notice);
        self.notified.notify_one();
    }

    fn wait(&self) -> Notice {
        let mut notice = sync::lock(&self.notice);
        loop {
            match notice.take() {
                Some(notice) => return notice,
                None => notice = sync::wait(&self.notified, notice),
            }
        }
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

/// The submissions of one round trip. If the leader panics, the drop fails every submission without a result, so that no
/// thread waits for ever.
struct Group(Vec<Submission>);

impl Drop for Group {
    fn drop(&mut self) {
        for submission in &self.0 {
            submission.notice.notify(Notice::Done(Err(no_reply())));
        }
    }
}

/// Makes the first waiting thread the leader when it is dropped, also by a panic of the leader.
struct PassLead<'a>(&'a GroupCommit);

impl Drop for PassLead<'_> {
    fn drop(&mut self) {
        let mut pending = self.0.pending();
        match pending.submissions.first() {
            Some(next) => next.notice.notify(Notice::Lead),
            None => pending.has_leader = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submission_of(payloads: &[usize]) -> Submission {
        let job = |bytes: &usize| {
            let mut job = NewJob::new("t");
            job.payload = serde_json::value::to_raw_value(&"x".repeat(*bytes)).unwrap();
            job
        };
        let new_jobs = NewJobs { jobs: payloads.iter().map(job).collect(), idempotency: None };
        Submission { new_jobs: Arc::new(new_jobs), notice: Arc::default() }
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

    fn new_jobs(job_type: &str) -> Arc<NewJobs> {
        Arc::new(NewJobs { jobs: vec![NewJob::new(job_type)], idempotency: None })
    }

    #[test]
    fn submissions_that_wait_behind_a_failed_one_fail_too_and_later_ones_are_sent() {
        let settings = crate::queue::Settings {
            url: "redis://127.0.0.1:1".to_owned(),
            ca: None,
            namespace: "t".to_owned(),
            connections: 1,
            fetchers: 1,
        };
        let group_commit = GroupCommit::new(Arc::new(Queue::new(&settings).unwrap()), 10);
        let behind = Arc::new(NoticeCell::default());
        // Another thread leads, and two submissions wait.
        group_commit.pending().has_leader = true;
        group_commit.pending().submissions.push(submission_of(&[GROUP_BYTES]));
        group_commit
            .pending()
            .submissions
            .push(Submission { new_jobs: new_jobs("t"), notice: behind.clone() });
        group_commit.lead();
        assert!(matches!(behind.wait(), Notice::Done(Err(SubmitError::Queue(Error::Unavailable(_))))));
        assert!(!group_commit.pending().has_leader);
        for _ in 0..2 {
            assert!(matches!(
                group_commit.submit(new_jobs("t")),
                Err(SubmitError::Queue(Error::Unavailable(_)))
            ));
        }
    }
}
