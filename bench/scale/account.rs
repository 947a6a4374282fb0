//! What became of the jobs of a load.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::load::Answer;
use super::runs::Runs;
use crate::fixture::Value;
use crate::fixture::api::is_final;
use crate::fixture::http::Connection;

/// How long the servers may take to run the rest of the jobs after a load.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
/// Clients that look up jobs.
const LOOKERS: usize = 4;

/// What became of all accepted jobs.
#[derive(Default)]
pub struct Account {
    /// The answers that accepted a job, in the order of their time.
    pub accepted: Vec<Answer>,
    /// The answers whose job Redis does not have any more.
    pub lost: Vec<Answer>,
    /// Jobs that did not end.
    pub stuck: Vec<u64>,
    /// Jobs that failed, although their handler never fails.
    pub failed: usize,
    /// Jobs that a crash was charged to.
    pub charged: usize,
    /// Jobs that ran more than once, with the time of the second run.
    pub twice: Vec<(u64, Instant)>,
    /// Ids that two jobs got.
    pub ids_twice: usize,
}

impl Account {
    /// Waits until the accepted jobs have ended, and looks up each of them.
    pub fn of(answers: &[Answer], server: SocketAddr, runs: &Runs) -> Account {
        let mut accepted: Vec<Answer> =
            answers.iter().filter(|answer| answer.id.is_some()).copied().collect();
        accepted.sort_by_key(|answer| answer.at);
        let ids: HashSet<u64> = accepted.iter().filter_map(|answer| answer.id).collect();
        let mut account = Account { ids_twice: accepted.len() - ids.len(), ..Account::default() };
        let end = Instant::now() + DRAIN_LIMIT;
        let mut waiting: Vec<u64> = ids.iter().copied().collect();
        let mut gone = HashSet::new();
        // In rounds: a job that has ended is not looked up again.
        loop {
            let jobs = look_up(server, &waiting);
            for (id, job) in jobs {
                match job {
                    None => _ = gone.insert(id),
                    Some(job) if is_final(&job) => {
                        account.failed += usize::from(job["status"] != "completed");
                        account.charged += usize::from(job["crashes"] != 0);
                    }
                    Some(_) => account.stuck.push(id),
                }
            }
            if account.stuck.is_empty() || Instant::now() > end {
                break;
            }
            waiting = std::mem::take(&mut account.stuck);
            std::thread::sleep(Duration::from_millis(500));
        }
        let was_lost = |answer: &&Answer| answer.id.is_some_and(|id| gone.contains(&id));
        account.lost = accepted.iter().filter(was_lost).copied().collect();
        let runs = runs.by_job();
        account.twice = ids.iter().filter_map(|id| Some((*id, *runs.get(id)?.get(1)?))).collect();
        account.accepted = accepted;
        account
    }

    /// Whether every accepted job has completed.
    pub fn is_complete(&self) -> bool {
        self.lost.is_empty() && self.nothing_is_stuck()
    }

    /// Whether every job that Redis has is completed.
    pub fn nothing_is_stuck(&self) -> bool {
        self.stuck.is_empty() && self.failed == 0 && self.ids_twice == 0
    }

    /// What else is wrong, for the table.
    pub fn troubles(&self) -> String {
        let counts =
            [("stuck", self.stuck.len()), ("failed", self.failed), ("ids given out twice", self.ids_twice)];
        let some = counts.iter().filter(|(_, number)| *number > 0);
        some.map(|(what, number)| format!(", {number} {what}")).collect()
    }
}

/// Asks for each of these jobs. `None` for a job that the server does not know.
fn look_up(server: SocketAddr, ids: &[u64]) -> HashMap<u64, Option<Value>> {
    let next = AtomicUsize::new(0);
    let look = || {
        let mut connection = None;
        let mut found = Vec::new();
        while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
            let reply = insist(server, &mut connection, &format!("/jobs/{id}"));
            match reply.status {
                200 => found.push((*id, Some(reply.json()))),
                404 => found.push((*id, None)),
                other => panic!("GET /jobs/{id}: {other} {}", reply.text()),
            }
        }
        found
    };
    std::thread::scope(|scope| {
        let lookers: Vec<_> = (0..LOOKERS).map(|_| scope.spawn(look)).collect();
        lookers.into_iter().flat_map(|looker| looker.join().expect("a client")).collect()
    })
}

/// Repeats a GET for a while as long as the connection fails or the answer is a 503.
fn insist(server: SocketAddr, connection: &mut Option<Connection>, path: &str) -> crate::fixture::Reply {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let reply = match connection.as_mut() {
            Some(connection) => Ok(connection),
            None => Connection::open(server).map(|opened| connection.insert(opened)),
        }
        .and_then(|connection| connection.request("GET", path, &[], None));
        match reply {
            Ok(reply) if reply.status != 503 => return reply,
            Ok(reply) => assert!(Instant::now() < end, "GET {path}: {}", reply.text()),
            Err(error) => {
                *connection = None;
                assert!(Instant::now() < end, "GET {path}: {error}");
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// How many answers had each status, without the accepted ones.
pub fn refusals(answers: &[Answer]) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers.iter().filter(|answer| !answer.is_accepted()) {
        *counts.entry(answer.status).or_insert(0) += 1;
    }
    counts
}

/// The slowest answer.
pub fn slowest(answers: &[Answer]) -> Duration {
    answers.iter().map(|answer| answer.at - answer.sent).max().unwrap_or_default()
}

/// The time until each server has accepted a job again after `time`. `None` if a server did not.
pub fn first_accepted(answers: &[Answer], servers: usize, time: Instant) -> Option<Duration> {
    let first = |server: usize| {
        let after = |answer: &&Answer| answer.server == server && answer.is_accepted() && answer.at >= time;
        answers.iter().filter(after).map(|answer| answer.at - time).min()
    };
    (0..servers).map(first).collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// The longest time without an accepted job at one server.
pub fn longest_gap(answers: &[Answer], servers: usize) -> Duration {
    let gap = |server: usize| {
        let accepted = answers.iter().filter(|answer| answer.server == server && answer.is_accepted());
        let mut times: Vec<Instant> = accepted.map(|answer| answer.at).collect();
        times.sort();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    };
    (0..servers).map(gap).max().unwrap_or_default()
}
