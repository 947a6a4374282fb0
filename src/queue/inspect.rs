//! The methods that read the queue. None of them changes a job.

use std::time::Duration;

use redis::Value;

use super::changes::words;
use super::error::Error;
use super::pool::Access;
use super::replies;
use super::reply_value::{as_array, as_bytes, as_texts};
use super::rights::Right;
use super::scripts::{self, Script};
use super::types::{
    Filter, JobState, Minute, Page, Position, QueueInfo, Selection, ServerId, ServerInfo, Situation, Stats,
    Walk,
};
use super::{Queue, keys};
use crate::job::{Job, JobId, Status};
use crate::sorting;

/// How long servers report the activity of their workers after a client has read it.
const WATCHED_LIFE: Duration = Duration::from_secs(10);

impl Queue {
    /// One job; `None` if there is no job with this id.
    pub fn get(&self, id: JobId) -> Result<Option<Job>, Error> {
        replies::job(id, self.record(id)?)
    }

    /// The fields and values of a job's record, in one array; it is empty if there is no such job.
    pub(super) fn record(&self, id: JobId) -> Result<Value, Error> {
        let mut call = self.scripts.get.call();
        call.arg(id.get());
        self.run(&self.scripts.get, &call)
    }

    /// The state of each job, in the order of the ids; `None` for a job that was deleted.
    pub fn statuses(&self, ids: &[JobId]) -> Result<Vec<Option<JobState>>, Error> {
        let mut call = self.scripts.statuses.call();
        for id in ids {
            call.arg(id.get());
        }
        replies::statuses(self.run(&self.scripts.statuses, &call)?)
    }

    /// The matching jobs, newest first, from this position on, at most `limit` (1 to 100). As JSON the page is
    /// smaller than 4 MiB.
    pub fn list(&self, filter: &Filter, from: Position, limit: u64) -> Result<Page, Error> {
        let mut call = self.scripts.list.call();
        call.arg(filter.status.map_or("", Status::as_str)).arg(filter.job_type.as_deref().unwrap_or(""));
        call.arg(filter.tag.as_deref().unwrap_or(""));
        for bound in [filter.created_after, filter.created_before] {
            // An id is the time of the submission in µs.
            call.arg(bound.map_or(String::new(), |micros| micros.to_string()));
        }
        call.arg(limit);
        match from {
            Position::Offset(number) => call.arg(number),
            Position::Before(id) => call.arg("").arg(id.get()),
        };
        replies::page(self.run(&self.scripts.list, &call)?)
    }

    /// The jobs that wait in this queue, in the order in which they are taken: at most `limit` (1 to 100), behind the first
    /// `skipped` ones. As JSON the page is smaller than 4 MiB.
    pub fn list_queue(&self, queue: &str, skipped: u64, limit: u64) -> Result<Page, Error> {
        let mut call = self.scripts.list_queue.call();
        call.arg(queue).arg(limit).arg(skipped);
        replies::page(self.run(&self.scripts.list_queue, &call)?)
    }

    /// What decides when a job starts; `None` if there is no job with this id.
    pub fn situation(&self, id: JobId) -> Result<Option<Situation>, Error> {
        let mut call = self.scripts.why.call();
        call.arg(id.get());
        replies::situation(id, self.run(&self.scripts.why, &call)?)
    }

    /// The next jobs of a selection, in order of their ids, and the walk behind them; `None` for the walk at its end. One
    /// call looks at `most` jobs, which may all be others: at up to 500 jobs it blocks Redis for a few milliseconds.
    pub fn select(
        &self,
        selection: &Selection,
        walk: Walk,
        most: usize,
    ) -> Result<(Vec<JobId>, Option<Walk>), Error> {
        let above_last = walk.last.map_or(0, |last| last.get() + 1);
        let lowest = selection.created_after.unwrap_or(0).max(above_last);
        let mut call = self.scripts.select.call();
        call.arg(words(&selection.statuses));
        for text in [&selection.job_type, &selection.tag, &selection.queue, &selection.error] {
            call.arg(text.as_deref().unwrap_or(""));
        }
        let or_none = |number: Option<u64>| number.map_or(String::new(), |number| number.to_string());
        call.arg(lowest).arg(or_none(selection.created_before)).arg(or_none(walk.newest.map(JobId::get)));
        call.arg(most);
        if let Some(ids) = &selection.ids {
            let next = ids.iter().map(|id| id.get()).skip_while(|id| *id < lowest);
            let next: Vec<u64> = next.take(most + 1).collect();
            if next.is_empty() {
                return Ok((Vec::new(), None));
            }
            call.arg(next);
        }
        replies::selected(self.run(&self.scripts.select, &call)?)
    }

    /// The queues of these names, and up to 1,000 others that have jobs, had jobs lately or are paused.
    pub fn queues(&self, names: &[&str]) -> Result<Vec<QueueInfo>, Error> {
        let mut call = self.scripts.queues.call();
        call.arg(names);
        replies::queues(self.run(&self.scripts.queues, &call)?)
    }

    /// The number of jobs in each status, and the live servers.
    pub fn stats(&self) -> Result<Stats, Error> {
        replies::stats(self.run(&self.scripts.stats, &self.scripts.stats.call())?)
    }

    /// The live servers, each with the last report of its workers' activity (JSON). This call makes all servers send
    /// reports for 10 s; until a server's next heartbeat its report is `None`.
    pub fn workers(&self) -> Result<Vec<(ServerInfo, Option<String>)>, Error> {
        let mut call = self.scripts.workers.call();
        call.arg(WATCHED_LIFE.as_millis() as u64);
        replies::workers(self.run(&self.scripts.workers, &call)?)
    }

    /// The figures of the last minutes, oldest first; the last minute is not over yet.
    pub fn history(&self, minutes: u32) -> Result<Vec<Minute>, Error> {
        let mut call = self.scripts.history.call();
        call.arg(minutes);
        replies::history(self.run(&self.scripts.history, &call)?)
    }

    /// The entries of this server's in-progress list in Redis, newest first.
    pub fn in_progress_here(&self, server: &ServerId) -> Result<Vec<Vec<u8>>, Error> {
        let mut command = redis::cmd("LRANGE");
        command.arg(self.in_progress_key(server)).arg(0).arg(-1);
        as_array(self.connections.query(&command)?)?.into_iter().map(as_bytes).collect()
    }

    /// The servers with another protocol than this program that were not declared dead: name and heartbeat counter.
    pub fn servers_of_other_protocols(&self) -> Result<Vec<(String, String)>, Error> {
        let mut command = redis::cmd("HGETALL");
        command.arg(format!("{}{}", self.prefix, keys::SERVERS));
        let words = as_texts(self.connections.query(&command)?)?;
        let mut others = Vec::new();
        for pair in words.chunks_exact(2).filter(|pair| !pair[1].starts_with(['D', 'P'])) {
            let mut command = redis::cmd("HGET");
            command.arg(format!("{}{}{}", self.prefix, keys::SERVER, pair[0])).arg("version");
            let version: Option<String> = self.connections.query(&command)?;
            if version.as_deref() != Some(&keys::PROTOCOL.to_string()) {
                others.push((pair[0].clone(), pair[1].clone()));
            }
        }
        Ok(others)
    }

    /// Whether a server is registered and was not declared dead.
    pub fn is_registered(&self, server: &ServerId) -> Result<bool, Error> {
        let mut command = redis::cmd("HGET");
        command.arg(format!("{}{}", self.prefix, keys::SERVERS)).arg(server.as_str());
        let beat: Option<String> = self.connections.query(&command)?;
        Ok(beat.is_some_and(|beat| !beat.starts_with('D')))
    }

    /// Whether no job of a queue may start.
    pub fn is_paused(&self, queue: &str) -> Result<bool, Error> {
        let mut command = redis::cmd("SISMEMBER");
        command.arg(format!("{}{}", self.prefix, keys::PAUSED)).arg(queue);
        self.connections.query(&command)
    }

    /// Checks whether Redis lets this server submit, start and settle jobs now. Logs the reason if not, and when Redis
    /// lets the server do so again.
    ///
    /// # Errors
    /// [`Error::Denied`] with all rights that jobs need and the user of Redis lacks.
    pub fn check_ready(&self) -> Result<(), Error> {
        let missing = self.lacking(&self.scripts.readiness, &self.needed_rights)?;
        if missing.is_empty() {
            self.connections.note_all_rights();
            return Ok(());
        }
        let reason = self.explain(&missing);
        self.connections.note_missing_rights(&reason);
        Err(Error::Denied(reason))
    }

    /// The rights to read jobs and to change them on request that the user of Redis lacks, as one sentence; `None` if no
    /// right is missing.
    pub fn check_operator_rights(&self) -> Result<Option<String>, Error> {
        let rights = sorting::distinct(scripts::operator_rights(&self.namespace));
        let missing = self.missing_rights(&rights)?;
        Ok((!missing.is_empty()).then(|| self.explain(&missing)))
    }

    /// Runs BRPOPLPUSH as [`Queue::wait_for_job`] does, on a queue that never has a job: its name is empty.
    pub fn check_wait_for_job(&self) -> Result<(), Error> {
        let mut command = redis::cmd("BRPOPLPUSH");
        command.arg(format!("{}{}", self.prefix, keys::WORK));
        command.arg(format!("{}{}", self.prefix, keys::IN_PROGRESS)).arg("0.01");
        let reply = self.connections.query_blocking::<Value>(&command);
        reply.map(drop).map_err(|error| self.explained(error, Access::Add))
    }

    /// Returns the rights of this list that the user of Redis lacks.
    pub(super) fn missing_rights(&self, rights: &[Right]) -> Result<Vec<Right>, Error> {
        self.lacking(&self.scripts.missing_rights, rights)
    }

    fn lacking(&self, script: &Script, rights: &[Right]) -> Result<Vec<Right>, Error> {
        let mut call = script.call();
        for (command, key) in rights {
            call.arg(command).arg(key);
        }
        let texts = as_texts(self.run(script, &call)?)?;
        Ok(texts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
    }

    /// Whether the user of Redis lacked a right at the last check.
    pub fn lacks_rights(&self) -> bool {
        self.connections.lacks_rights()
    }
}
