//! The methods that change jobs. Each one is atomic: one Lua script or one command.

use std::time::Duration;

use redis::{Cmd, Value};

use super::error::{Error, Refused, SubmitError};
use super::pool::{Access, BLOCK, Repeat};
use super::record;
use super::replies;
use super::reply_value::{as_array, as_bytes, as_count, as_int, as_job_id, as_text, as_texts};
use super::scripts::Script;
use super::types::{
    ChangeResult, Changed, Claimed, DueStep, HeartbeatReply, Idempotency, Lease, Quarantine, Reclaimed,
    ServerFacts, ServerId, Settled, SettledStep, Settlement, Share, StartedJobs, Submitted, Turns, Verdict,
};
use super::{Queue, keys};
use super::{limits, options};
use crate::job::{Change, JobId, NewJob, Start, Status};

/// How long an Idempotency-Key is remembered.
const IDEMPOTENCY_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long a dead server stays in the registry: a late command of this server may still move a job into its list.
const DEAD_REMEMBERED: Duration = Duration::from_secs(3600);
/// How many entries one step of the reaper, the scheduler or the janitor handles, so that no step blocks Redis for
/// long.
const STEP: u32 = 200;
/// How many words of the agenda one step works off; a word costs about as much as two jobs.
const WORDS: u32 = 100;
/// How many scheduled and retrying jobs [`Queue::set_paused`] reads to find one of the queue: 1 to 2 ms.
const MAX_SCHEDULED_READ: u32 = 2_000;
/// How long the figures of a minute are kept.
const HISTORY_LIFE: Duration = Duration::from_secs(2 * 3600);
/// How long an activity report is valid: a little longer than the longest time between two heartbeats.
const ACTIVITY_LIFE: Duration = Duration::from_secs(4);

impl Queue {
    /// Stores submissions, one after the other; of each submission either all jobs are stored, or none.
    ///
    /// # Errors
    /// The error of a submission is [`Error::NotReplicated`] if it is stored, but too few replicas have it. The error of
    /// the call is [`Error::Full`] if Redis is full. After [`Error::Unavailable`] any of the submissions may have been stored.
    pub fn submit_all(
        &self,
        submissions: &[(&[NewJob], Option<&Idempotency>)],
        max_queue_length: u64,
    ) -> Result<Vec<Result<Submitted, SubmitError>>, Error> {
        let sizes = submissions.iter().map(|(jobs, _)| jobs.len());
        if let Some((first, too_few)) = self.submit_plain(submissions, max_queue_length)? {
            return Ok(acknowledged(replies::submitted_plain(first, sizes)?, too_few.as_ref()));
        }
        let mut call = self.scripts.enqueue.call();
        call.arg(max_queue_length).arg(IDEMPOTENCY_LIFE.as_millis() as u64).arg(self.replicas);
        for (jobs, idempotency) in submissions {
            call.arg(jobs.len());
            match idempotency {
                Some(request) => call.arg(&request.key).arg(&request.fingerprint),
                None => call.arg("").arg(""),
            };
            jobs.iter().for_each(|job| add_job(&mut call, job));
        }
        let (reply, too_few) =
            self.run_replicated(&self.scripts.enqueue, &call, replies::has_acknowledgement)?;
        Ok(acknowledged(replies::submitted(reply, sizes)?, too_few.as_ref()))
    }

    /// Stores submissions if all of their jobs start now in the same queue, and have the same type and no keys. Returns
    /// the first id, and the error if too few replicas have the jobs. `None` if a job is different, or if the queue has no
    /// room for all jobs: nothing is stored.
    fn submit_plain(
        &self,
        submissions: &[(&[NewJob], Option<&Idempotency>)],
        max_queue_length: u64,
    ) -> Result<Option<(JobId, Option<Error>)>, Error> {
        let jobs = || submissions.iter().flat_map(|(jobs, _)| jobs.iter());
        let Some(first) = jobs().next() else { return Ok(None) };
        let is_plain = |job: &NewJob| {
            job.start == Start::Now
                && job.unique_key.is_none()
                && job.extras.is_none()
                && job.queue == first.queue
                && job.job_type == first.job_type
        };
        if submissions.iter().any(|(_, idempotency)| idempotency.is_some()) || !jobs().all(is_plain) {
            return Ok(None);
        }
        let mut call = self.scripts.enqueue_plain.call();
        call.arg(max_queue_length).arg(&first.queue).arg(&first.job_type).arg(jobs().count());
        jobs().for_each(|job| add_fields(&mut call, record::new_job(job)));
        let is_stored = |reply: &Value| *reply != Value::Nil;
        match self.run_replicated(&self.scripts.enqueue_plain, &call, is_stored)? {
            (Value::Nil, _) => Ok(None),
            (id, too_few) => Ok(Some((as_job_id(&id)?, too_few))),
        }
    }

    /// Stores one submission, all of its jobs or none.
    ///
    /// # Errors
    /// As [`Queue::submit_all`].
    pub fn submit(
        &self,
        jobs: &[NewJob],
        idempotency: Option<&Idempotency>,
        max_queue_length: u64,
    ) -> Result<Submitted, SubmitError> {
        let mut outcomes = self.submit_all(&[(jobs, idempotency)], max_queue_length)?;
        outcomes.pop().ok_or_else(|| Error::Protocol("no reply to a submission".to_owned()))?
    }

    /// Waits up to [`BLOCK`] for a job in an empty queue and moves its id into this server's in-progress list. The
    /// caller must pass the returned [`Claimed`] to [`Queue::start_jobs`], which starts the job.
    ///
    /// # Errors
    /// [`Error::Full`] if Redis is full: a full Redis refuses BRPOPLPUSH, but not [`Queue::start_jobs`].
    pub fn wait_for_job(&self, server: &ServerId, queue: &str) -> Result<Option<Claimed>, Error> {
        let mut command = redis::cmd("BRPOPLPUSH");
        command
            .arg(format!("{}{}{queue}", self.prefix, keys::WORK))
            .arg(self.in_progress_key(server))
            .arg(BLOCK.as_secs());
        let reply = self.connections.query_blocking(&command);
        match reply.map_err(|error| self.explained(error, Access::Add))? {
            Value::Nil => Ok(None),
            entry => Ok(Some(Claimed { entry: as_bytes(entry)?, queue: queue.to_owned() })),
        }
    }

    /// Ends all calls of [`Queue::wait_for_job`] of this process.
    pub fn unblock_fetchers(&self) {
        self.connections.unblock();
    }

    /// Starts ready jobs, as many as the shares say; the claimed job comes first.
    ///
    /// # Errors
    /// [`Error::Fenced`] if this server is not registered.
    pub fn start_jobs(
        &self,
        server: &ServerId,
        shares: &[Share],
        quarantine: Quarantine,
        max_crashes: u32,
        claimed: Option<&Claimed>,
    ) -> Result<StartedJobs, Error> {
        let turns = Turns {
            jobs: shares.iter().map(|share| share.jobs).sum(),
            strict: Vec::new(),
            shares: shares.to_vec(),
        };
        self.start_jobs_in_turn(server, &turns, quarantine, max_crashes, claimed)
    }

    /// Starts ready jobs: first those of the strict queues, then as many of each queue as the shares say. The claimed job
    /// comes before all jobs but those of strict queues before its own.
    ///
    /// # Errors
    /// [`Error::Fenced`] if this server is not registered.
    pub fn start_jobs_in_turn(
        &self,
        server: &ServerId,
        turns: &Turns,
        quarantine: Quarantine,
        max_crashes: u32,
        claimed: Option<&Claimed>,
    ) -> Result<StartedJobs, Error> {
        let mut call = self.scripts.start_jobs.call();
        call.arg(server.as_str()).arg(quarantine.as_str()).arg(max_crashes);
        match claimed {
            Some(claimed) => call.arg(&claimed.entry).arg(&claimed.queue),
            None => call.arg("").arg(""),
        };
        call.arg(turns.jobs).arg(turns.strict.len()).arg(&turns.strict);
        for share in &turns.shares {
            call.arg(&share.queue).arg(share.jobs);
        }
        let (mut taken, unsplit) =
            replies::started_jobs(self.run(&self.scripts.start_jobs, &call)?, server.as_str())?;
        for id in unsplit {
            replies::add_started(&mut taken, id, as_array(self.record(id)?)?);
        }
        Ok(taken)
    }

    /// Settles attempts, one after the other and each by itself. To repeat a call whose reply was lost is safe.
    ///
    /// # Errors
    /// After [`Error::Unavailable`] any of the attempts may have been settled.
    pub fn settle(&self, server: &ServerId, settlements: &[Settlement]) -> Result<SettledStep, Error> {
        let mut call = self.scripts.settle.call();
        call.arg(server.as_str()).arg(0);
        for Settlement { lease, verdict } in settlements {
            call.arg(lease.id.get()).arg(lease.token);
            add_verdict(&mut call, verdict);
        }
        replies::settled(self.run(&self.scripts.settle, &call)?)
    }

    /// Settles a failed attempt and starts the next one under the same lease, for a backoff that the worker sleeps
    /// itself. After any result but `Now(Processing)` the lease is worthless. If the queue is paused or the job has limits,
    /// the job is scheduled for after `delay` instead, and then waits in its queue.
    ///
    /// # Errors
    /// After [`Error::Unavailable`] the attempt may have been settled.
    pub fn retry_inline(
        &self,
        server: &ServerId,
        lease: &mut Lease,
        error: &str,
        delay: Duration,
    ) -> Result<Settled, Error> {
        let mut call = self.scripts.settle.call();
        call.arg(server.as_str()).arg(0).arg(lease.id.get()).arg(lease.token);
        add_failure(&mut call, "retry_inline", delay, error, None);
        // Never repeated: the first call gives the lease a new token, so that a second one would be refused as stale.
        let reply = self.run_repeated(&self.scripts.settle, Repeat::Never, &call)?;
        let settled = replies::settled(reply)?;
        let settled = settled.results.first().copied().unwrap_or(Settled::Stale);
        if settled == Settled::Now(Status::Processing) {
            lease.token += 1;
        }
        Ok(settled)
    }

    /// Returns ids from this server's in-progress list to the front of their queues. The caller passes the entries whose
    /// jobs this server does not run, newest first. Returns the number of jobs that went back.
    pub fn recover(&self, server: &ServerId, entries: &[Vec<u8>]) -> Result<usize, Error> {
        let mut call = self.scripts.recover.call();
        call.arg(server.as_str()).arg(entries);
        as_count(&self.run(&self.scripts.recover, &call)?)
    }

    /// Does one step of what is due: moves scheduled and retrying jobs into their queues, ends jobs that have expired,
    /// deletes jobs whose own retention is over, takes back jobs of pull workers whose lease is over, and returns the schedules
    /// that have a tick and the attempts of pull workers that have timed out.
    pub fn work_off_due(&self, max_crashes: u32) -> Result<DueStep, Error> {
        let mut call = self.scripts.due.call();
        call.arg(STEP).arg(WORDS).arg(max_crashes);
        replies::due_step(self.run(&self.scripts.due, &call)?)
    }

    /// Registers a new server, and stores the limits of its file.
    pub fn register(&self, server: &ServerId, facts: &ServerFacts) -> Result<(), Error> {
        let mut call = self.scripts.register.call();
        call.arg(server.as_str()).arg(facts.workers).arg(facts.queues.join(",")).arg(facts.strict.join(","));
        call.arg(facts.schedules.join("\n"));
        for (limit, numbers) in &facts.limits {
            call.arg(limit.as_str()).arg(limits::to_text(numbers));
        }
        let others = as_texts(self.run(&self.scripts.register, &call)?)?;
        for other in others.chunks_exact(2) {
            let (limit, other) = (&other[0], &other[1]);
            log::warn!(
                "the file of server={other} has other numbers of the limit {limit:?}; those of this server={server} replace them"
            );
        }
        Ok(())
    }

    /// Renews this server's registration, and returns cancels, other servers and due times.
    ///
    /// # Errors
    /// [`Error::Fenced`] if this server is not registered.
    pub fn heartbeat(
        &self,
        server: &ServerId,
        busy: usize,
        workers: usize,
        queues: &[String],
    ) -> Result<HeartbeatReply, Error> {
        let mut call = self.scripts.heartbeat.call();
        call.arg(server.as_str()).arg(busy).arg(workers).arg(DEAD_REMEMBERED.as_millis() as u64);
        call.arg(queues);
        replies::heartbeat(self.run(&self.scripts.heartbeat, &call)?)
    }

    /// Declares a server dead if its heartbeat counter is still the observed one, and takes over its jobs in steps.
    /// Returns `None` if the counter has changed: the server is alive.
    pub fn reclaim(
        &self,
        server: &str,
        observed: &str,
        max_crashes: u32,
    ) -> Result<Option<Reclaimed>, Error> {
        self.reclaim_until(server, observed, max_crashes, || false)
    }

    /// As [`Queue::reclaim`], but stops after a step once `ends` returns true. The next call, by any server, continues.
    pub fn reclaim_until(
        &self,
        server: &str,
        observed: &str,
        max_crashes: u32,
        ends: impl Fn() -> bool,
    ) -> Result<Option<Reclaimed>, Error> {
        self.take_over(server, observed, max_crashes, "crash", ends)
    }

    /// Ends the registration of a server that stops in order. Its jobs go back to their queues without a crash.
    pub fn leave(&self, server: &ServerId) -> Result<Option<Reclaimed>, Error> {
        self.take_over(server.as_str(), "", 1, "leave", || false)
    }

    fn take_over(
        &self,
        server: &str,
        observed: &str,
        max_crashes: u32,
        mode: &str,
        ends: impl Fn() -> bool,
    ) -> Result<Option<Reclaimed>, Error> {
        let mut total = Reclaimed::default();
        let mut observed = observed.to_owned();
        loop {
            let mut call = self.scripts.reclaim.call();
            call.arg(server).arg(&observed).arg(max_crashes).arg(mode).arg(STEP);
            let Some(step) = replies::reclaimed(self.run(&self.scripts.reclaim, &call)?)? else {
                return Ok(None);
            };
            total.moved += step.done.moved;
            total.crashed.extend(step.done.crashed);
            if step.left == 0 || ends() {
                return Ok(Some(total));
            }
            observed = step.beat;
        }
    }

    /// Cancels waiting jobs, each by itself. For a running job, asks its server to stop the attempt. With `wanted` only
    /// jobs of these statuses.
    pub fn cancel(&self, ids: &[JobId], wanted: &[Status]) -> Result<Vec<Changed>, Error> {
        self.change(&self.scripts.cancel, ids, wanted)
    }

    /// Changes jobs that have not started, each by itself; with `wanted` only jobs of these statuses.
    pub fn change_waiting(
        &self,
        ids: &[JobId],
        wanted: &[Status],
        change: &Change,
    ) -> Result<Vec<ChangeResult>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = self.scripts.change.call();
        call.arg(words(wanted)).arg(options::of_change(change));
        for id in ids {
            call.arg(id.get());
        }
        replies::change_results(self.run(&self.scripts.change, &call)?)
    }

    /// Puts failed or cancelled jobs back into their queues as new, each by itself; with `wanted` only jobs of these
    /// statuses.
    pub fn retry(&self, ids: &[JobId], wanted: &[Status]) -> Result<Vec<Changed>, Error> {
        self.revive(ids, wanted, false)
    }

    /// As [`Queue::retry`], and deletes progress and checkpoint of the jobs.
    pub fn retry_from_start(&self, ids: &[JobId], wanted: &[Status]) -> Result<Vec<Changed>, Error> {
        self.revive(ids, wanted, true)
    }

    fn revive(&self, ids: &[JobId], wanted: &[Status], from_start: bool) -> Result<Vec<Changed>, Error> {
        let mut call = self.scripts.retry.call();
        call.arg(words(wanted)).arg(u8::from(from_start));
        self.change_each(&self.scripts.retry, call, ids)
    }

    /// Deletes completed, failed or cancelled jobs, each by itself; with `wanted` only jobs of these statuses.
    pub fn delete(&self, ids: &[JobId], wanted: &[Status]) -> Result<Vec<Changed>, Error> {
        self.change(&self.scripts.delete, ids, wanted)
    }

    fn change(&self, script: &Script, ids: &[JobId], wanted: &[Status]) -> Result<Vec<Changed>, Error> {
        let mut call = script.call();
        call.arg(words(wanted));
        self.change_each(script, call, ids)
    }

    fn change_each(&self, script: &Script, mut call: Cmd, ids: &[JobId]) -> Result<Vec<Changed>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        for id in ids {
            call.arg(id.get());
        }
        replies::changed(self.run(script, &call)?)
    }

    /// Deletes ended jobs that are older than `keep_for`, or more than `keep`, in one step: dead letters if `failed`,
    /// otherwise completed and cancelled jobs. Returns whether there may be more.
    pub fn delete_old_jobs(&self, failed: bool, keep_for: Duration, keep: u64) -> Result<bool, Error> {
        let mut call = self.scripts.delete_old_jobs.call();
        call.arg(if failed { "failed" } else { "done" }).arg(keep_for.as_millis() as u64).arg(keep).arg(STEP);
        Ok(as_int(&self.run(&self.scripts.delete_old_jobs, &call)?)? > 0)
    }

    /// Deletes the names of empty queues, in one step. Returns the cursor of the next step, `None` after the last one.
    pub fn prune_names(&self, cursor: Option<String>) -> Result<Option<String>, Error> {
        let mut call = self.scripts.prune_names.call();
        call.arg(cursor.as_deref().unwrap_or("0"));
        let next = as_text(&self.run(&self.scripts.prune_names, &call)?)?;
        Ok(Some(next).filter(|next| next != "0"))
    }

    /// Pauses or resumes a queue. Returns whether the queue has a job that has not ended. With many scheduled jobs the
    /// script reads only some of them, and then returns `true`, since the queue may have one.
    pub fn set_paused(&self, queue: &str, paused: bool) -> Result<bool, Error> {
        let mut call = self.scripts.pause.call();
        call.arg(queue).arg(u8::from(paused)).arg(MAX_SCHEDULED_READ);
        Ok(as_int(&self.run(&self.scripts.pause, &call)?)? == 1)
    }

    /// Adds to the figures of this minute, which charts show.
    pub fn add_history(&self, figures: &[(String, u64)]) -> Result<(), Error> {
        let mut call = self.scripts.add_history.call();
        call.arg(HISTORY_LIFE.as_secs());
        for (name, number) in figures {
            call.arg(name).arg(number);
        }
        self.run(&self.scripts.add_history, &call).map(|_| ())
    }

    /// Stores the activity of this server's workers, as JSON, for clients that watch it.
    pub fn report_activity(&self, server: &ServerId, activity: &str) -> Result<(), Error> {
        let mut call = self.scripts.report_activity.call();
        call.arg(server.as_str()).arg(activity).arg(ACTIVITY_LIFE.as_millis() as u64);
        self.run(&self.scripts.report_activity, &call).map(|_| ())
    }
}

/// Statuses as the scripts read them; without a status any status is meant.
pub(super) fn words(statuses: &[Status]) -> String {
    statuses.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(" ")
}

/// The results of submissions. Those that Redis has stored are errors if too few replicas have them.
fn acknowledged(
    outcomes: Vec<Result<Submitted, Refused>>,
    too_few: Option<&Error>,
) -> Vec<Result<Submitted, SubmitError>> {
    let one = |submitted| too_few.map_or(Ok(submitted), |error| Err(error.clone().into()));
    outcomes.into_iter().map(|outcome| outcome.map_err(SubmitError::from).and_then(one)).collect()
}

fn add_job(call: &mut Cmd, job: &NewJob) {
    call.arg(&job.queue);
    call.arg(options::start(job.start));
    call.arg(job.unique_key.as_deref().unwrap_or("")).arg(&job.job_type);
    call.arg(job.extras.as_deref().map(options::of_new_job).unwrap_or_default());
    add_fields(call, record::new_job(job));
}

/// Adds the number of texts that follow, and the fields and their values.
pub(super) fn add_fields<'a>(call: &mut Cmd, fields: impl Iterator<Item = record::Field<'a>> + Clone) {
    call.arg(2 * fields.clone().count());
    fields.for_each(|(name, value)| _ = call.arg(&*name).arg(&*value));
}

/// Adds what a verdict says to a call of `settle.lua`.
pub(super) fn add_verdict(call: &mut Cmd, verdict: &Verdict) {
    match verdict {
        Verdict::Complete(result) => {
            call.arg("complete").arg(0);
            add_fields(call, record::result(result));
        }
        Verdict::Retry { error, delay, throttle } => add_failure(call, "retry", *delay, error, *throttle),
        Verdict::Fail(error) => add_failure(call, "fail", Duration::ZERO, error, None),
        Verdict::Snooze(time) => _ = call.arg("release").arg(time.as_millis() as u64).arg(0),
        Verdict::Release => _ = call.arg("release").arg(0).arg(0),
    }
}

fn add_failure(call: &mut Cmd, what: &str, delay: Duration, error: &str, throttle: Option<Duration>) {
    call.arg(what).arg(delay.as_millis() as u64).arg(1 + usize::from(throttle.is_some()));
    call.arg(record::error_text(error));
    if let Some(time) = throttle {
        call.arg(time.as_millis() as u64);
    }
}
