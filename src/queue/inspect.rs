//! What can be read of the queue. Nothing here changes a job.

use std::collections::{BTreeSet, HashMap};

use redis::Value;

use crate::job::{Job, JobId, Status};

use super::error::Error;
use super::rights::Right;
use super::{Queue, WATCHED_LIFE, keys, record, replies};
use crate::queue::pool::Access;

/// Which jobs a listing shows.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only these; all by default.
    pub status: Option<Status>,
    /// Only these; all by default.
    pub job_type: Option<String>,
}

/// Where a page of a listing begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Position {
    /// After so many of the newest jobs that match.
    Offset(u64),
    /// At the newest job that matches and has a smaller id than this.
    Before(JobId),
}

/// Some jobs of a listing, newest first.
#[derive(Debug)]
pub struct Page {
    /// How many jobs match in all.
    pub total: u64,
    /// Those of this page. Large texts are left out, see [`Job::omitted`].
    pub jobs: Vec<Job>,
    /// The next page is [before](Position::Before) this id; `None` where this page is the last.
    pub next: Option<JobId>,
}

/// A queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueInfo {
    /// Its name.
    pub name: String,
    /// How many jobs are ready in it.
    pub queued: u64,
    /// Whether its jobs are held back.
    pub paused: bool,
    /// The age of its oldest job.
    pub oldest_ms: Option<u64>,
    /// How many living servers take jobs from it.
    pub servers: u64,
}

/// A server that is alive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerInfo {
    /// Its name.
    pub id: String,
    /// In ms since 1970.
    pub started_at_ms: u64,
    /// How many worker threads it has.
    pub workers: u64,
    /// How many of them had a job at its last beat.
    pub busy: u64,
    /// Since its last beat.
    pub beat_age_ms: u64,
}

/// The numbers of jobs and the servers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stats {
    /// How many jobs are in each status.
    pub counts: Vec<(Status, u64)>,
    /// The servers that are alive.
    pub servers: Vec<ServerInfo>,
}

/// What happened in one minute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Minute {
    /// Since 1970.
    pub number: u64,
    /// Sums over all servers, and how many jobs waited at its end, by name. What is not there is 0, or unknown.
    pub figures: HashMap<String, u64>,
}

/// What kind of Redis this is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedisInfo {
    /// `Redis` or `Valkey`.
    pub product: &'static str,
    /// As it gives it; `unknown` where it may not be asked.
    pub version: String,
    /// The first two numbers of it; zeros where it is unknown.
    pub major_minor: (u32, u32),
    /// What it is: `standalone`, `cluster`, `sentinel`; `unknown` where it may not be asked.
    pub mode: String,
    /// Whether it is a replica, as far as is known.
    pub is_replica: bool,
    /// What it does at `maxmemory`.
    pub maxmemory_policy: String,
    /// Whether it keeps anything on disk, where it tells.
    pub persistent: Option<bool>,
}

impl RedisInfo {
    /// Whether the queue's scripts run on it: Redis from 7.0, Valkey from 7.2. One that does not tell its version may.
    pub fn is_supported(&self) -> bool {
        self.version == "unknown"
            || self.major_minor >= if self.product == "Valkey" { (7, 2) } else { (7, 0) }
    }
}

impl Queue {
    /// One job; `None` if there is none with this id.
    pub fn get(&self, id: JobId) -> Result<Option<Job>, Error> {
        let mut call = self.scripts.get.call();
        call.arg(id.get());
        replies::job(id, self.run(&self.scripts.get, &call)?)
    }

    /// The statuses and types of jobs, in their order; `None` for one that is gone.
    pub fn statuses(&self, ids: &[JobId]) -> Result<Vec<Option<(Status, String)>>, Error> {
        let mut call = self.scripts.statuses.call();
        for id in ids {
            call.arg(id.get());
        }
        replies::statuses(self.run(&self.scripts.statuses, &call)?)
    }

    /// The jobs that match, newest first, from this position on, at most `limit` (1 to 100). Shown as JSON the page is
    /// below 4 MiB.
    pub fn list(&self, filter: &Filter, from: Position, limit: u64) -> Result<Page, Error> {
        let mut call = self.scripts.list.call();
        call.arg(filter.status.map_or("", Status::as_str)).arg(filter.job_type.as_deref().unwrap_or(""));
        call.arg(limit);
        match from {
            Position::Offset(number) => call.arg(number),
            Position::Before(id) => call.arg("").arg(id.get()),
        };
        replies::page(self.run(&self.scripts.list, &call)?)
    }

    /// The next dead letters with an id above this one, oldest first.
    pub fn dead_ids(
        &self,
        job_type: Option<&str>,
        above: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<JobId>, Error> {
        let mut call = self.scripts.dead_ids.call();
        call.arg(job_type.unwrap_or("")).arg(above.map_or(0, JobId::get)).arg(limit);
        replies::ids(self.run(&self.scripts.dead_ids, &call)?)
    }

    /// The queues: those named, and all that were ever used.
    pub fn queues(&self, names: &[&str]) -> Result<Vec<QueueInfo>, Error> {
        let mut call = self.scripts.queues.call();
        call.arg(names);
        replies::queues(self.run(&self.scripts.queues, &call)?)
    }

    /// The numbers of jobs and the servers.
    pub fn stats(&self) -> Result<Stats, Error> {
        replies::stats(self.run(&self.scripts.stats, &self.scripts.stats.call())?)
    }

    /// The servers that are alive, each with what it has told of its workers. Those that have told nothing yet do so with
    /// their next beat.
    pub fn workers(&self) -> Result<Vec<(ServerInfo, Option<String>)>, Error> {
        let mut call = self.scripts.workers.call();
        call.arg(WATCHED_LIFE.as_millis() as u64);
        replies::workers(self.run(&self.scripts.workers, &call)?)
    }

    /// What happened in the last minutes, oldest first; the last one still runs.
    pub fn history(&self, minutes: u32) -> Result<Vec<Minute>, Error> {
        let mut call = self.scripts.history.call();
        call.arg(minutes);
        replies::history(self.run(&self.scripts.history, &call)?)
    }

    /// Whether jobs can be submitted, taken and settled now, as far as Redis is concerned. The log has the reason if not,
    /// and when that is over.
    ///
    /// # Errors
    /// [`Error::Denied`] with all that the user of Redis may not do, though it must; as every call otherwise.
    pub fn check_ready(&self) -> Result<(), Error> {
        let lacking = self.lacking(&self.needed_rights)?;
        if lacking.is_empty() {
            self.link.lacks_nothing();
            return Ok(());
        }
        let reason = self.lack(&lacking);
        self.link.note_lack(&reason);
        Err(Error::Denied(reason))
    }

    /// What the user of Redis may not do of what looking at jobs and changing them by hand needs: a sentence, if there is
    /// something.
    pub fn check_further_rights(&self) -> Result<Option<String>, Error> {
        let rights = self.scripts.further_rights().into_iter().collect::<BTreeSet<_>>();
        let rights: Vec<String> = rights.into_iter().flat_map(|(command, key)| [command, key]).collect();
        let lacking = self.lacking(&rights)?;
        Ok((!lacking.is_empty()).then(|| self.lack(&lacking)))
    }

    /// Tries BRPOPLPUSH as fetchers use it, on queues that no job is ever in.
    ///
    /// # Errors
    /// As every call.
    pub fn try_to_fetch(&self) -> Result<(), Error> {
        let mut command = redis::cmd("BRPOPLPUSH");
        // A name that is none of a queue, since it is empty.
        command.arg(format!("{}{}", self.prefix, keys::WORK));
        command.arg(format!("{}{}", self.prefix, keys::IN_PROGRESS)).arg("0.01");
        self.explained(self.link.query_blocking::<Value>(&command), Access::Add).map(|_| ())
    }

    /// Those of these rights that the user of Redis lacks.
    fn lacking(&self, rights: &[String]) -> Result<Vec<Right>, Error> {
        let mut call = self.scripts.ready.call();
        call.arg(rights);
        let lacking = record::array(self.run(&self.scripts.ready, &call)?)?;
        let texts = lacking.iter().map(record::text).collect::<Result<Vec<String>, Error>>()?;
        Ok(texts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
    }

    /// Whether a server has lacked a right since it was last looked at.
    pub fn lacks_rights(&self) -> bool {
        self.link.lacks_rights()
    }

    /// What kind of Redis this is.
    pub fn redis_info(&self) -> Result<RedisInfo, Error> {
        // Managed services forbid INFO and CONFIG; then nothing is claimed.
        let info: String = match self.link.query(&redis::cmd("INFO")) {
            Err(Error::Denied(_)) => String::new(),
            info => info?,
        };
        let value = |name: &str| {
            let mut lines = info.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let (product, version) = match value("valkey_version") {
            Some(version) => ("Valkey", version),
            None => ("Redis", value("redis_version").unwrap_or("unknown")),
        };
        let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
        let appends = value("aof_enabled") == Some("1");
        let mut save = redis::cmd("CONFIG");
        save.arg("GET").arg("save");
        let snapshots = self.link.query::<Vec<String>>(&save).ok();
        let snapshots = snapshots.and_then(|pair| pair.get(1).map(|rule| !rule.is_empty()));
        Ok(RedisInfo {
            product,
            version: version.to_owned(),
            major_minor: (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)),
            mode: value("redis_mode").or(value("server_mode")).unwrap_or("unknown").to_owned(),
            is_replica: value("role") == Some("slave"),
            maxmemory_policy: value("maxmemory_policy").unwrap_or("unknown").to_owned(),
            persistent: if appends { Some(true) } else { snapshots },
        })
    }
}
