//! The rules of admission: how many jobs the next call of `start_jobs` (a take) may start, and what the take does about
//! quarantined jobs.
//!
//! Two limits bound what one crash can touch and what an outage of Redis can pile up: at most as many attempts as
//! workers, and at most twice as many jobs in flight, since outcomes wait for Redis while the next attempts already
//! run.
//!
//! A quarantined job runs alone, so that a crash proves which job caused it. While a quarantined job is in flight, the
//! server takes no other job. While a take that may start a quarantined job is under way, no other take begins. After a
//! quarantined job, other jobs are taken once before the next quarantined job.
//!
//! Pure: counts and flags, changed by [`InFlight`](super::in_flight::InFlight) under its lock. A rule of how many jobs
//! this server takes, whatever the jobs are, belongs into [`Admission::capacity`]. A rule that needs the job, such as a
//! limit per job type, belongs into `start_jobs.lua`: no thread knows the type of a job before its start.

use crate::job::AttemptId;
use crate::queue::Quarantine;

/// The limits of one take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// The most jobs that the take may start.
    pub jobs: usize,
    /// What the take does about quarantined jobs.
    pub quarantine: Quarantine,
}

impl Capacity {
    const NONE: Capacity = Capacity { jobs: 0, quarantine: Quarantine::Skip };
}

#[derive(Clone, Default, Debug)]
pub struct Admission {
    /// The number of worker threads that are not abandoned.
    pub workers: usize,
    /// The number of in-flight jobs.
    pub in_flight: usize,
    /// The number of in-flight jobs that wait for a worker or run on a worker.
    pub busy: usize,
    /// The number of jobs that the takes under way may start.
    pub reserved: usize,
    /// Whether the server has stopped to take jobs.
    pub is_closed: bool,
    /// The quarantined job in flight.
    pub quarantined: Option<AttemptId>,
    /// Whether a quarantined job waits in Redis until no job is in flight here.
    pub must_drain: bool,
    /// Whether the next take must skip quarantined jobs, because a quarantined job has just ended.
    pub others_next: bool,
    /// Whether a take is under way that may start a quarantined job.
    pub is_exclusive: bool,
}

impl Admission {
    pub fn new(workers: usize) -> Admission {
        Admission { workers, ..Admission::default() }
    }

    /// The limits of a take that begins now.
    pub fn capacity(&self) -> Capacity {
        let is_empty = self.in_flight == 0 && self.reserved == 0;
        if self.is_closed || self.quarantined.is_some() || self.is_exclusive || (self.must_drain && !is_empty)
        {
            return Capacity::NONE;
        }
        let free_workers = self.workers.saturating_sub(self.busy + self.reserved);
        let free_places = (2 * self.workers).saturating_sub(self.in_flight + self.reserved);
        let quarantine = match is_empty {
            _ if self.others_next => Quarantine::Skip,
            true => Quarantine::Start,
            false => Quarantine::Reserve,
        };
        Capacity { jobs: free_workers.min(free_places), quarantine }
    }

    /// Reserves the whole capacity for one take, and returns it.
    pub fn reserve(&mut self) -> Capacity {
        let capacity = self.capacity();
        self.reserved += capacity.jobs;
        self.is_exclusive |= capacity.quarantine == Quarantine::Start;
        capacity
    }

    /// Ends the reservation of a take. The caller has counted the jobs that the take started.
    pub fn end_reservation(&mut self, capacity: Capacity) {
        self.reserved -= capacity.jobs;
        if capacity.quarantine == Quarantine::Start {
            self.is_exclusive = false;
        }
    }

    /// Records that Redis has executed a take with this capacity. `must_drain`: a quarantined job waits until no job is in
    /// flight here.
    pub fn record_take(&mut self, capacity: Capacity, must_drain: bool) {
        match capacity.quarantine {
            Quarantine::Skip => self.others_next = false,
            Quarantine::Reserve => self.must_drain |= must_drain,
            Quarantine::Start => self.must_drain = must_drain,
        }
    }

    /// Counts a job that was taken and needs a worker.
    pub fn add(&mut self, attempt: AttemptId, is_quarantined: bool) {
        self.in_flight += 1;
        self.busy += 1;
        if is_quarantined {
            self.quarantined = Some(attempt);
        }
    }

    /// Counts a job that was taken and needs no worker, because its record is broken.
    pub fn add_broken(&mut self) {
        self.in_flight += 1;
    }

    /// Records that a worker continues a job with its next attempt: if attempt `ended` was quarantined, attempt `next` is.
    pub fn restart(&mut self, ended: AttemptId, next: AttemptId) {
        if self.quarantined == Some(ended) {
            self.quarantined = Some(next);
        }
    }

    /// Frees the worker of one in-flight job.
    pub fn free_worker(&mut self) {
        self.busy -= 1;
    }

    /// Removes an in-flight job that needs no worker any more.
    pub fn remove(&mut self, attempt: AttemptId) {
        self.in_flight -= 1;
        if self.quarantined == Some(attempt) {
            self.quarantined = None;
            self.others_next = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobId;
    use Quarantine::{Reserve, Skip, Start};

    fn attempt() -> AttemptId {
        AttemptId { job: JobId::new(1).unwrap(), start: 1 }
    }

    #[test]
    fn the_capacity_follows_from_counts_and_flags() {
        let four = Admission::new(4);
        let busy = |busy, in_flight| Admission { busy, in_flight, ..four.clone() };
        for (what, admission, jobs, quarantine) in [
            ("an empty server takes quarantined jobs too", four.clone(), 4, Start),
            ("one free worker each", busy(1, 1), 3, Reserve),
            ("all workers are busy", busy(4, 4), 0, Reserve),
            ("outcomes that are not stored need no worker", busy(2, 4), 2, Reserve),
            ("but they need places, twice as many as workers", busy(2, 7), 1, Reserve),
            ("no place is left", busy(0, 8), 0, Reserve),
            ("abandoned workers are not counted", Admission { workers: 0, ..busy(0, 1) }, 0, Reserve),
            ("more are busy than there are workers now", Admission { workers: 1, ..busy(3, 3) }, 0, Reserve),
            ("a take under way has the rest", Admission { reserved: 3, ..busy(1, 1) }, 0, Reserve),
            (
                "a take under way is not an empty server",
                Admission { reserved: 1, ..four.clone() },
                3,
                Reserve,
            ),
            ("beside a quarantined job", Admission { quarantined: Some(attempt()), ..busy(1, 1) }, 0, Skip),
            ("beside a take that may bring one", Admission { is_exclusive: true, ..four.clone() }, 0, Skip),
            ("until the server is empty for one", Admission { must_drain: true, ..busy(0, 1) }, 0, Skip),
            ("it is empty for one", Admission { must_drain: true, ..four.clone() }, 4, Start),
            ("the others' turn after one", Admission { others_next: true, ..four.clone() }, 4, Skip),
            ("the others' turn, beside others", Admission { others_next: true, ..busy(1, 1) }, 3, Skip),
            ("the end", Admission { is_closed: true, ..four.clone() }, 0, Skip),
        ] {
            assert_eq!(admission.capacity(), Capacity { jobs, quarantine }, "{what}");
        }
    }

    #[test]
    fn takes_under_way_share_the_capacity() {
        let mut admission = Admission::new(4);
        admission.add(attempt(), false);
        let first = admission.reserve();
        assert_eq!(first, Capacity { jobs: 3, quarantine: Reserve });
        assert_eq!(admission.reserve().jobs, 0);
        admission.add(attempt(), false);
        admission.end_reservation(first);
        assert_eq!(admission.capacity().jobs, 2);
    }

    #[test]
    fn an_exclusive_take_ends_with_its_reservation() {
        let mut admission = Admission::new(4);
        let exclusive = admission.reserve();
        assert_eq!((exclusive.quarantine, admission.capacity()), (Start, Capacity::NONE));
        admission.end_reservation(exclusive);
        assert_eq!(admission.capacity().quarantine, Start);
    }

    #[test]
    fn a_waiting_quarantined_job_drains_the_server_until_a_take_of_an_empty_one() {
        let mut admission = Admission::new(4);
        admission.add(attempt(), false);
        admission.record_take(admission.capacity(), true);
        // What a take found that ran at the same time does not end the drain.
        admission.record_take(Capacity { jobs: 3, quarantine: Reserve }, false);
        assert_eq!(admission.capacity(), Capacity::NONE);
        admission.free_worker();
        admission.remove(attempt());
        let empty = admission.capacity();
        assert_eq!(empty.quarantine, Start);
        // Another server has taken the quarantined job meanwhile.
        admission.record_take(empty, false);
        admission.add(attempt(), false);
        assert_eq!(admission.capacity(), Capacity { jobs: 3, quarantine: Reserve });
    }
}
