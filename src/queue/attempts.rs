//! The methods that speak for attempts from outside of the engine: reports, and all that pull workers do.
//!
//! A pull worker takes jobs as the server [`keys::PULL`] does, which does not exist. Its hold on a job is a lease, a word of
//! the agenda, instead of the heartbeats of a server. An attempt token is the right to speak for one attempt.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use redis::Value;
use sha2::Sha256;

use super::changes::add_verdict;
use super::error::Error;
use super::reply_value::{as_array, as_count, as_int, as_text, as_texts, first, unexpected};
use super::types::{
    Answered, AttemptReport, Claimed, JobLog, LogLine, PullRequest, PullWorker, Pulled, PulledJob, Reported,
    ServerId, Verdict,
};
use super::{Queue, keys, record, replies};
use crate::job::{AttemptId, JobId, Status};
use crate::sync;

/// The bytes of the message authentication code in an attempt token.
const CODE_BYTES: usize = 16;
/// How many answers one call of `settle.lua` carries out: each takes 0.2 ms where pull workers have 10,000 jobs.
const ANSWERS_A_STEP: usize = 25;
/// How many jobs one call of `pull_workers.lua` looks at: 1,000 take 2 to 3 ms.
const JOBS_A_STEP: u64 = 1_000;

impl Queue {
    /// Stores what attempts report, each by itself. An attempt of a pull worker gets a new lease.
    ///
    /// # Errors
    /// [`Error::Full`] if Redis is full: then [`Queue::extend`] still extends leases.
    pub fn report(&self, reports: &[AttemptReport]) -> Result<Vec<Reported>, Error> {
        let mut call = self.scripts.report.call();
        for AttemptReport { attempt, report, lease } in reports {
            add_attempt(&mut call, *attempt, *lease);
            match &report.progress {
                Some((value, message)) => call.arg(format!("{value} {message}")),
                None => call.arg(""),
            };
            let texts = report.checkpoint.as_deref().into_iter().flat_map(record::checkpoint);
            call.arg(report.log.len()).arg(report.dropped).arg(2 * texts.clone().count()).arg(&report.log);
            texts.for_each(|(name, text)| _ = call.arg(&*name).arg(&*text));
        }
        reported(self.run(&self.scripts.report, &call)?)
    }

    /// Gives attempts of pull workers a new lease, as [`Queue::report`] does, and stores nothing else.
    pub fn extend(&self, attempts: &[(AttemptId, Option<Duration>)]) -> Result<Vec<Reported>, Error> {
        let mut call = self.scripts.extend.call();
        for (attempt, lease) in attempts {
            add_attempt(&mut call, *attempt, *lease);
            call.arg("").arg(0).arg(0).arg(0);
        }
        reported(self.run(&self.scripts.extend, &call)?)
    }

    /// Log lines of a job behind the line with the number `after`, at most `limit` (1 to 1,000), oldest first; `None` if there
    /// is no such job.
    pub fn job_log(&self, id: JobId, after: u64, limit: u32) -> Result<Option<JobLog>, Error> {
        let mut call = self.scripts.job_log.call();
        call.arg(id.get()).arg(after).arg(limit);
        let texts = as_texts(self.run(&self.scripts.job_log, &call)?)?;
        let [status, last, number, lines @ ..] = texts.as_slice() else { return Ok(None) };
        let number: u64 = whole(number)?;
        let lines = lines.iter().zip(number..).filter_map(|(line, number)| {
            let (at, text) = line.split_once(' ')?;
            Some(LogLine { number, at_ms: at.parse().ok()?, text: text.to_owned() })
        });
        let is_final = status.parse().is_ok_and(Status::is_final);
        Ok(Some(JobLog { lines: lines.collect(), last: whole(last)?, is_final }))
    }

    /// Starts ready jobs for a pull worker: those of the first queue first. `claimed` is a job that [`Queue::wait_for_job`]
    /// has moved into the list of a server; the job goes back to the front of its queue before jobs are taken.
    pub fn pull(
        &self,
        request: &PullRequest,
        claimed: Option<(&ServerId, &Claimed)>,
        max_crashes: u32,
    ) -> Result<Pulled, Error> {
        let mut call = self.scripts.start_jobs.call();
        let lease = request.lease.unwrap_or_default().as_millis();
        let server = claimed.map_or("-", |(server, _)| server.as_str());
        let worker = request.worker.as_deref().unwrap_or_default();
        call.arg(keys::PULL).arg(format!("{lease} {server} {worker}")).arg(max_crashes);
        match claimed {
            Some((_, claimed)) => call.arg(&claimed.entry).arg(&claimed.queue),
            None => call.arg("").arg(""),
        };
        call.arg(request.max).arg(request.queues.len()).arg(&request.queues);
        let reply = self.run(&self.scripts.start_jobs, &call)?;
        let Some((mut started, unsplit)) = replies::pulled_jobs(reply)? else {
            return Ok(Pulled { is_full: true, ..Pulled::default() });
        };
        for id in unsplit {
            replies::add_started(&mut started, id, as_array(self.record(id)?)?);
        }
        let fails: Vec<(AttemptId, Verdict)> = started
            .broken
            .iter()
            .map(|broken| (broken.lease.attempt_id(), Verdict::Fail(broken.reason.clone())))
            .collect();
        if !fails.is_empty() {
            self.answer(&fails)?;
        }
        let now_ms = started.now_ms;
        let jobs = started.jobs.into_iter().map(|(_, mut job)| {
            let timeout_at_ms = now_ms + job.timeout_ms;
            let lease_ms = request.lease.map_or(job.timeout_ms, |lease| lease.as_millis() as u64);
            let lease_until_ms = timeout_at_ms.min(now_ms + lease_ms);
            job.worker.clone_from(&request.worker);
            job.lease_until_ms = Some(lease_until_ms);
            PulledJob { attempt: job.attempt_id(), job, lease_until_ms, timeout_at_ms }
        });
        Ok(Pulled {
            jobs: jobs.collect(),
            paused: started.paused,
            has_more: started.has_more,
            next_look: started.next_look,
            expired: started.expired,
            now_ms,
            is_full: false,
        })
    }

    /// Settles attempts as pull workers have answered, one after the other and each by itself. Returns the time too until a
    /// limit is looked at again; `None` if no limit is.
    pub fn answer(
        &self,
        answers: &[(AttemptId, Verdict)],
    ) -> Result<(Vec<Answered>, Option<Duration>), Error> {
        self.settle_pulled(answers, true)
    }

    /// Settles the attempt of a pull worker whose timeout is over. A later answer of the worker changes nothing.
    pub fn time_out(&self, attempt: AttemptId, verdict: Verdict) -> Result<Answered, Error> {
        let (answered, _) = self.settle_pulled(&[(attempt, verdict)], false)?;
        Ok(answered.into_iter().next().unwrap_or(Answered::Stale))
    }

    fn settle_pulled(
        &self,
        answers: &[(AttemptId, Verdict)],
        is_answer: bool,
    ) -> Result<(Vec<Answered>, Option<Duration>), Error> {
        let (mut all, mut next_look) = (Vec::with_capacity(answers.len()), None);
        for answers in answers.chunks(ANSWERS_A_STEP) {
            let mut call = self.scripts.settle.call();
            call.arg(keys::PULL).arg(u8::from(is_answer));
            for (attempt, verdict) in answers {
                call.arg(attempt.job.get()).arg(attempt.start);
                add_verdict(&mut call, verdict);
            }
            let reply = as_array(self.run(&self.scripts.settle, &call)?)?;
            // The last call has seen what all calls have done.
            next_look = replies::time_left(first(&reply)?)?.or(next_look);
            for reply in reply.into_iter().skip(1) {
                all.push(answered(reply)?);
            }
        }
        Ok((all, next_look))
    }

    /// The pull workers that were seen in the last hour or have a job, at most 1,000 that were seen.
    pub fn pull_workers(&self) -> Result<Vec<PullWorker>, Error> {
        let mut workers: Vec<PullWorker> = Vec::new();
        let mut skipped = 0;
        loop {
            let mut call = self.scripts.pull_workers.call();
            call.arg(skipped).arg(JOBS_A_STEP);
            let [seen, jobs, looked_at] =
                <[Value; 3]>::try_from(as_array(self.run(&self.scripts.pull_workers, &call)?)?)
                    .map_err(|reply| unexpected(&Value::Array(reply)))?;
            if skipped == 0 {
                for pair in as_texts(seen)?.chunks_exact(2) {
                    workers.push(PullWorker::new(pair[0].clone(), pair[1].parse().ok()));
                }
            }
            for job in as_texts(jobs)?.chunks_exact(4) {
                let Some(id) = job[0].parse().ok() else { continue };
                let known = workers.iter_mut().find(|worker| worker.name == job[2]);
                let worker = match known {
                    Some(worker) => worker,
                    None => {
                        workers.push(PullWorker::new(job[2].clone(), None));
                        let last = workers.len() - 1;
                        &mut workers[last]
                    }
                };
                worker.jobs.push((id, job[1].clone(), job[3].parse().unwrap_or(0)));
            }
            let looked_at = as_count::<u64>(&looked_at)?;
            skipped += looked_at;
            if looked_at < JOBS_A_STEP {
                return Ok(workers);
            }
        }
    }

    /// Notes that these pull workers wait for jobs of these queues.
    pub fn saw_pull_workers(&self, workers: &[String], queues: &[String]) -> Result<(), Error> {
        let mut call = self.scripts.note_pulls.call();
        call.arg(workers.len()).arg(workers).arg(queues);
        self.run(&self.scripts.note_pulls, &call).map(drop)
    }

    /// The number of jobs that pull workers have.
    pub fn pull_leases(&self) -> Result<u64, Error> {
        let mut command = redis::cmd("LLEN");
        command.arg(format!("{}{}{}", self.prefix, keys::IN_PROGRESS, keys::PULL));
        self.connections.query(&command)
    }

    /// The token of an attempt: the right to speak for the attempt. The first call reads the key of all tokens from Redis.
    pub fn attempt_token(&self, attempt: AttemptId) -> Result<String, Error> {
        Ok(token_of(&self.secret()?, attempt))
    }

    /// The attempt of a token; `None` if the token is not valid.
    pub fn attempt_of(&self, token: &str) -> Result<Option<AttemptId>, Error> {
        let Some(attempt) = named_attempt(token) else { return Ok(None) };
        let secret = self.secret()?;
        if is_token(&secret, attempt, token) {
            return Ok(Some(attempt));
        }
        // Redis may have lost the key that this server knows, and another server has made a new one.
        self.forget_secret();
        let newer = self.secret()?;
        Ok((newer != secret && is_token(&newer, attempt, token)).then_some(attempt))
    }

    /// Reads the key of the attempt tokens, so that [`Queue::attempt_token`] needs no Redis.
    pub fn read_secret(&self) -> Result<(), Error> {
        self.secret().map(drop)
    }

    /// Lets the next call read the key of the attempt tokens from Redis.
    pub fn forget_secret(&self) {
        *sync::lock(&self.secret) = None;
    }

    /// The key of the attempt tokens, which all servers share. The first server makes the key.
    fn secret(&self) -> Result<String, Error> {
        if let Some(secret) = sync::lock(&self.secret).clone() {
            return Ok(secret);
        }
        let mut new = [0; 32];
        getrandom::getrandom(&mut new).map_err(|error| Error::Unavailable(error.to_string()))?;
        let new = URL_SAFE_NO_PAD.encode(new);
        let mut call = self.scripts.secret.call();
        call.arg(new);
        let secret = as_text(&self.run(&self.scripts.secret, &call)?)?;
        *sync::lock(&self.secret) = Some(secret.clone());
        Ok(secret)
    }
}

fn add_attempt(call: &mut redis::Cmd, attempt: AttemptId, lease: Option<Duration>) {
    call.arg(attempt.job.get()).arg(attempt.start);
    call.arg(lease.map_or(String::new(), |lease| lease.as_millis().to_string()));
}

fn reported(reply: Value) -> Result<Vec<Reported>, Error> {
    let read = |reply: Value| {
        let reply = as_array(reply)?;
        let [lease_until, timeout_at, cancel, job_type] = reply.as_slice() else {
            return Ok(Reported::Stale);
        };
        let lease_until: i64 = whole(&as_text(lease_until)?)?;
        Ok(Reported::Accepted {
            lease_until_ms: u64::try_from(lease_until).ok(),
            timeout_at_ms: as_count(timeout_at)?,
            is_cancelled: as_int(cancel)? == 1,
            job_type: as_text(job_type)?,
        })
    };
    as_array(reply)?.into_iter().map(read).collect()
}

fn answered(reply: Value) -> Result<Answered, Error> {
    let reply = as_array(reply)?;
    let [to, job_type, run_ms] = reply.as_slice() else { return Err(unexpected(&Value::Array(reply))) };
    let to = as_text(to)?;
    let (word, status) = to.split_once(' ').unwrap_or(("", &to));
    if status == "stale" {
        return Ok(Answered::Stale);
    }
    let status: Status = status.parse().map_err(|_| Error::Protocol(to.clone()))?;
    Ok(match word {
        "repeated" => Answered::Repeated(status),
        word => Answered::Now {
            status,
            has_expired: word == "expired",
            job_type: as_text(job_type)?,
            run_ms: as_count(run_ms)?,
        },
    })
}

fn whole<T: std::str::FromStr>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::Protocol(text.to_owned()))
}

/// The attempt that a text of the form of a token names.
fn named_attempt(token: &str) -> Option<AttemptId> {
    let (id, rest) = token.split_once('-')?;
    let (start, code) = rest.split_once('-')?;
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    let start = start.parse().ok().filter(|_| is_plain(start))?;
    let is_code = code.len() == (CODE_BYTES * 4).div_ceil(3);
    is_code.then_some(AttemptId { job: id.parse().ok()?, start })
}

fn token_of(secret: &str, attempt: AttemptId) -> String {
    let name = name_of(attempt);
    let code = mac(secret, &name).finalize().into_bytes();
    format!("{name}-{}", URL_SAFE_NO_PAD.encode(&code[..CODE_BYTES]))
}

/// Compares in constant time.
fn is_token(secret: &str, attempt: AttemptId, token: &str) -> bool {
    let name = name_of(attempt);
    let code = token.strip_prefix(&*name).and_then(|rest| rest.strip_prefix('-'));
    let code = code.and_then(|code| URL_SAFE_NO_PAD.decode(code).ok());
    code.is_some_and(|code| {
        code.len() == CODE_BYTES && mac(secret, &name).verify_truncated_left(&code).is_ok()
    })
}

fn name_of(attempt: AttemptId) -> String {
    format!("{}-{}", attempt.job, attempt.start)
}

fn mac(secret: &str, name: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key may have any length");
    mac.update(name.as_bytes());
    mac
}

impl PullWorker {
    fn new(name: String, last_seen_ms: Option<u64>) -> PullWorker {
        PullWorker { name, last_seen_ms, jobs: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_one_attempt_and_one_secret() {
        let attempt = AttemptId { job: JobId::new(1_764_000_000_000_123).unwrap(), start: 7 };
        let token = token_of("secret", attempt);
        assert!(
            token.starts_with("1764000000000123-7-") && token.len() == "1764000000000123-7-".len() + 22,
            "{token}"
        );
        assert_eq!(named_attempt(&token), Some(attempt));
        assert!(is_token("secret", attempt, &token));
        assert!(!is_token("other", attempt, &token));
        let other = AttemptId { start: 8, ..attempt };
        assert!(!is_token("secret", other, &token.replace("-7-", "-8-")));
        // The last character has bits to spare: only the canonical one is valid.
        let mut changed = token.clone();
        let last = changed.pop().unwrap();
        changed.push(if last == 'A' { 'B' } else { 'A' });
        assert!(!is_token("secret", attempt, &changed));
        for bad in [
            "",
            "-",
            "--",
            "12-7",
            "12-07-aaaaaaaaaaaaaaaaaaaaaa",
            "012-7-aaaaaaaaaaaaaaaaaaaaaa",
            "12-7-short",
        ] {
            assert_eq!(named_attempt(bad), None, "{bad}");
        }
    }
}
