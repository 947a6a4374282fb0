//! One scan through all data, in small steps. See `mod.rs`.

use std::time::{Duration, Instant};

use redis::Value;

use crate::job::JobId;

use super::findings::{Audit, EXAMPLES, FindingKind, Findings, RememberedServer, RepairPolicy};
use crate::queue::error::Error;
use crate::queue::record::to_job;
use crate::queue::reply_value::{as_array, as_bytes, as_int, as_text, first, text_pairs, unexpected};
use crate::queue::{Queue, keys};
use crate::sorting;

/// The number of keys of one SCAN.
const KEYS: usize = 500;
/// The number of jobs of one script: some 20 commands each, 1 to 2 ms in all.
const JOBS: usize = 25;
/// The number of entries of a list or set of one script: a few commands each.
const ENTRIES: usize = 100;
/// The overlap of two steps of a walk through a list, so that no entry is missed when entries before it are removed.
const OVERLAP: usize = 25;
/// The number of candidates for one call. The script checks as many candidates as fit into a short time.
const CANDIDATES: usize = 50;
/// The most candidates that wait for [`SELF_REPAIR_TIME`]; further ones are checked at once.
const MAX_WAITING: usize = 10_000;
/// One script does not read a longer list as a whole; `SHORT` in common.lua.
const SHORT: u64 = 2_048;
/// How long a candidate that concerns a live server may last before it is a finding. The cause may be a job that was
/// cancelled while a fetcher had claimed it, a server that starts, or a dead server whose jobs are being reclaimed. A
/// server notices a lost hand-over within 6 s and a heartbeat.
const SELF_REPAIR_TIME: Duration = Duration::from_secs(8);
/// The time between two checks of the candidates that concern live servers.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// A server with a younger heartbeat (in ms) is alive; servers send one at least every three seconds.
const ALIVE: u64 = 10_000;

/// Something that seems wrong.
#[derive(Clone, PartialEq, Eq)]
struct Candidate {
    kind: FindingKind,
    /// The full key; empty if the candidate is a job itself.
    key: String,
    /// The job's id as Redis has it, which may not be text; empty if the candidate is a key itself.
    id: Vec<u8>,
    /// Depends on the kind, see repair.lua.
    hint: String,
}

/// The result of the check, or of the repair, of one candidate.
struct CheckResult {
    word: String,
    note: String,
}

struct Scan<'a> {
    queue: &'a Queue,
    policy: RepairPolicy,
    repairs: bool,
    audit: Audit,
    /// The full keys of lists of ready jobs and of servers.
    lists: Vec<String>,
    /// The full keys of indexes and of requests to cancel.
    sets: Vec<String>,
    /// The full keys of in-progress lists of servers that are not in the registry.
    unregistered: Vec<String>,
    /// Jobs that were queued when the scan met them.
    queued: Vec<u64>,
    /// Jobs that were completed when the scan met them, and that only the list of completed jobs can have.
    completed: Vec<u64>,
    /// Whether a list is too long for one script.
    has_long_list: bool,
    /// Whether a server is alive, which may repair something itself.
    has_live_server: bool,
    /// Candidates that a server may be about to repair itself.
    waiting: Vec<Candidate>,
}

pub(super) fn run(queue: &Queue, policy: RepairPolicy, repairs: bool) -> Result<Audit, Error> {
    let mut scan = Scan {
        queue,
        policy,
        repairs,
        audit: Audit::default(),
        lists: Vec::new(),
        sets: Vec::new(),
        unregistered: Vec::new(),
        queued: Vec::new(),
        completed: Vec::new(),
        has_long_list: false,
        has_live_server: false,
        waiting: Vec::new(),
    };
    scan.check_servers()?;
    scan.scan()?;
    for set in scan.known_sets() {
        scan.walk_set(&set)?;
    }
    scan.check_held_counts()?;
    scan.check_lists()?;
    scan.check_completed()?;
    scan.wait()?;
    scan.read_lost_ids()?;
    Ok(scan.audit)
}

impl Scan<'_> {
    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.queue.prefix)
    }

    fn name<'k>(&self, key: &'k str) -> &'k str {
        key.strip_prefix(&self.queue.prefix).unwrap_or(key)
    }

    fn check_servers(&mut self) -> Result<(), Error> {
        let scripts = &self.queue.scripts;
        let reply = as_array(self.queue.run(&scripts.audit_servers, &scripts.audit_servers.call())?)?;
        for server in reply {
            let server = as_array(server)?;
            let number = |i: usize| as_int(server.get(i).unwrap_or(&Value::Nil));
            let beat = as_text(server.get(1).unwrap_or(&Value::Nil))?;
            self.audit.servers.push(RememberedServer {
                id: as_text(first(&server)?)?,
                dead: beat.starts_with('D'),
                entries: number(2)?.max(0) as u64,
                workers: number(3)?.max(0) as u64,
                busy: number(4)?.max(0) as u64,
                beat_age_ms: u64::try_from(number(5)?).ok(),
            });
            let Some(server) = self.audit.servers.last() else { continue };
            if server.dead {
                continue;
            }
            let age = server.beat_age_ms;
            self.has_live_server |= age.is_some_and(|age| age < ALIVE);
            let silent = age.is_none_or(|age| u128::from(age) >= self.policy.lease_timeout.as_millis());
            if silent && server.entries > 0 {
                self.waiting.push(Candidate {
                    kind: FindingKind::Silent,
                    key: String::new(),
                    id: server.id.clone().into_bytes(),
                    hint: beat,
                });
            }
        }
        Ok(())
    }

    /// Meets every key once: checks jobs and unique keys, and collects the keys of lists and sets.
    fn scan(&mut self) -> Result<(), Error> {
        let mut cursor = "0".to_owned();
        loop {
            let mut command = redis::cmd("SCAN");
            command.arg(&cursor).arg("MATCH").arg(self.full("*")).arg("COUNT").arg(KEYS);
            let (next, page): (String, Vec<Vec<u8>>) = self.queue.connections.query(&command)?;
            let mut ids = Vec::new();
            let mut candidates = Vec::new();
            for key in page {
                let key = String::from_utf8_lossy(&key).into_owned();
                let name = self.name(&key).to_owned();
                if let Some(id) = name.strip_prefix(keys::JOB) {
                    ids.push(id.to_owned());
                    continue;
                }
                let Some(right) = keys::right_type(&name) else {
                    if name.starts_with(keys::SET_ASIDE) {
                        self.audit.set_aside.0 += 1;
                        Findings::add_example(&mut self.audit.set_aside.1, name);
                    }
                    continue;
                };
                candidates.push(key_candidate(FindingKind::WrongType, &key, right));
                if [keys::IN_PROGRESS, keys::CANCELS]
                    .iter()
                    .any(|of| name.strip_prefix(of) == Some(keys::PULL))
                {
                    // Leases, and no heartbeats, decide over the jobs of pull workers.
                    if name.starts_with(keys::IN_PROGRESS) {
                        self.unregistered.push(key.clone());
                        self.lists.push(key);
                    } else {
                        self.sets.push(key);
                    }
                } else if name.starts_with(keys::LOG) {
                    candidates.push(key_candidate(FindingKind::LogStale, &key, ""));
                } else if name.starts_with(keys::UNIQUE) {
                    candidates.push(key_candidate(FindingKind::UniqueStale, &key, ""));
                } else if name.starts_with(keys::WORK) {
                    self.lists.push(key);
                } else if let Some(server) = name.strip_prefix(keys::IN_PROGRESS) {
                    if !self.audit.servers.iter().any(|known| known.id == server) {
                        self.unregistered.push(key.clone());
                    }
                    candidates.push(key_candidate(FindingKind::Abandoned, &key, ""));
                    self.lists.push(key);
                } else if name.starts_with(keys::CANCELS) {
                    candidates.push(key_candidate(FindingKind::Abandoned, &key, ""));
                    self.sets.push(key);
                } else if name.starts_with(keys::HOLDS) {
                    candidates.push(key_candidate(FindingKind::LimitMiscounted, &key, ""));
                } else if [keys::SLOTS, keys::HELD].iter().any(|set| name.starts_with(set)) {
                    candidates.push(key_candidate(FindingKind::LimitMiscounted, &key, ""));
                    self.sets.push(key);
                } else if [keys::INDEX, keys::TYPE_INDEX, keys::TAG_INDEX]
                    .iter()
                    .any(|set| name.starts_with(set))
                {
                    self.sets.push(key);
                }
            }
            for ids in ids.chunks(JOBS) {
                self.check_jobs(ids)?;
            }
            // Every key is a candidate here: the first of the two looks is that of the script itself.
            let candidates = self.still_wrong(candidates)?;
            self.check(candidates)?;
            if next == "0" {
                break;
            }
            cursor = next;
        }
        // SCAN may return a key twice.
        for names in [&mut self.lists, &mut self.sets, &mut self.unregistered] {
            *names = sorting::distinct(std::mem::take(names));
        }
        Ok(())
    }

    fn known_sets(&self) -> Vec<String> {
        let mut sets = self.sets.clone();
        sets.extend(
            [keys::SCHEDULED, keys::DLQ, keys::DONE, keys::AGENDA, keys::SCHEDULES, keys::WAITING_LIMITS]
                .map(|name| self.full(name)),
        );
        sets
    }

    /// Checks the numbers of waiting jobs, after the sets that are counted.
    fn check_held_counts(&mut self) -> Result<(), Error> {
        let candidate = key_candidate(FindingKind::LimitMiscounted, &self.full(keys::HELD_COUNT), "");
        self.check(vec![candidate])
    }

    fn check_jobs(&mut self, ids: &[String]) -> Result<(), Error> {
        let script = &self.queue.scripts.audit_jobs;
        let mut call = script.call();
        call.arg(ids);
        let replies = as_array(self.queue.run(script, &call)?)?;
        let mut candidates = Vec::new();
        for (id, reply) in ids.iter().zip(replies) {
            let mut reply = as_array(reply)?.into_iter();
            let status = as_text(&reply.next().unwrap_or(Value::Nil))?;
            let fields = as_array(reply.next().unwrap_or(Value::Nil))?;
            let faults = reply.map(|fault| as_text(&fault)).collect::<Result<Vec<_>, Error>>()?;
            let key = self.full(keys::JOB) + id;
            if faults.iter().any(|fault| fault == FindingKind::WrongType.as_str()) {
                candidates.push(key_candidate(FindingKind::WrongType, &key, "hash"));
                continue;
            }
            let is_large = faults.iter().any(|fault| fault == "large");
            if fields.is_empty() && !is_large {
                continue;
            }
            self.audit.jobs += 1;
            if (is_large || !is_readable(id, &fields))
                && let Some(print) = self.unreadable(id)?
            {
                candidates.push(job_candidate(FindingKind::Unreadable, id, &print));
            }
            if status == "queued"
                && !faults.iter().any(|fault| fault == "held")
                && let Ok(id) = id.parse::<JobId>()
            {
                self.queued.push(id.get());
            }
            for kind in faults.iter().filter_map(|fault| FindingKind::from_word(fault)) {
                match (kind, status.as_str(), id.parse::<JobId>()) {
                    (FindingKind::Unlisted, "completed", Ok(id)) => self.completed.push(id.get()),
                    _ => candidates.push(job_candidate(kind, id, "")),
                }
            }
        }
        self.check(candidates)
    }

    /// The fingerprint of a record, if it cannot be read.
    fn unreadable(&self, id: &str) -> Result<Option<String>, Error> {
        let script = &self.queue.scripts.audit_record;
        let mut call = script.call();
        call.arg(id);
        let mut reply = as_array(self.queue.run(script, &call)?)?.into_iter();
        let print = as_text(&reply.next().unwrap_or(Value::Nil))?;
        let fields = as_array(reply.next().unwrap_or(Value::Nil))?;
        Ok((!fields.is_empty() && !is_readable(id, &fields)).then_some(print))
    }

    fn walk_set(&mut self, key: &str) -> Result<(), Error> {
        let mut cursor = "0".to_owned();
        loop {
            let script = &self.queue.scripts.audit_set;
            let mut call = script.call();
            call.arg(key).arg(&cursor).arg(ENTRIES);
            let reply = as_array(self.queue.run(script, &call)?)?;
            cursor = as_text(first(&reply)?)?;
            let faults = entries(reply.get(1))?;
            let candidates = faults.chunks_exact(2).filter_map(|pair| {
                let kind = FindingKind::from_word(std::str::from_utf8(&pair[1]).ok()?)?;
                Some(Candidate { kind, key: key.to_owned(), id: pair[0].clone(), hint: "0".to_owned() })
            });
            self.check(candidates.collect())?;
            if cursor == "0" {
                return Ok(());
            }
        }
    }

    /// Walks through a list from its left end, where jobs are pushed, and calls `see` for every entry with its
    /// distance from the right end. Checks the entries only if `checks`.
    fn walk_list(
        &mut self,
        key: &str,
        checks: bool,
        mut see: impl FnMut(Option<u64>, u64),
    ) -> Result<(), Error> {
        let (mut from, mut last): (usize, Option<Vec<u8>>) = (0, None);
        loop {
            let script = &self.queue.scripts.audit_list;
            let mut call = script.call();
            call.arg(key).arg(from).arg(ENTRIES);
            let reply = as_array(self.queue.run(script, &call)?)?;
            let length = as_int(first(&reply)?)?.max(0) as u64;
            let ids = entries(reply.get(1))?;
            let faults = texts(reply.get(2))?;
            self.has_long_list |= length > SHORT;
            let distance = |place: usize| length.saturating_sub(1 + place as u64);
            // The entries behind the last one of the previous step, wherever that is now, are new.
            let known = last.and_then(|last| ids.iter().position(|id| *id == last)).map_or(0, |at| at + 1);
            for (place, id) in ids.iter().enumerate().skip(known) {
                see(number(id), distance(from + place));
            }
            if checks {
                let candidates = faults.chunks_exact(2).filter_map(|pair| {
                    let place: usize = pair[0].parse().ok().filter(|place| *place >= from + known)?;
                    let kind = FindingKind::from_word(&pair[1])?;
                    let id = ids.get(place - from)?.clone();
                    Some(Candidate { kind, key: key.to_owned(), id, hint: distance(place).to_string() })
                });
                self.check(candidates.collect())?;
            }
            if ids.len() < ENTRIES {
                return Ok(());
            }
            last = ids.last().cloned();
            from += ENTRIES - OVERLAP;
        }
    }

    /// Walks through all lists, see [`Scan::walk_list`].
    fn walk_lists(&mut self, checks: bool, mut see: impl FnMut(&str, Option<u64>, u64)) -> Result<(), Error> {
        for key in self.lists.clone() {
            self.walk_list(&key, checks, |id, distance| see(&key, id, distance))?;
        }
        Ok(())
    }

    /// Checks all lists together: which queued jobs are in none of them, and which jobs have more than one entry.
    fn check_lists(&mut self) -> Result<(), Error> {
        let mut listed: Vec<u64> = Vec::new();
        self.walk_lists(true, |_, id, _| listed.extend(id))?;
        listed.sort_unstable();
        let mut doubled: Vec<u64> =
            listed.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        doubled.dedup();
        listed.dedup();
        let mut queued = std::mem::take(&mut self.queued);
        queued.sort_unstable();
        queued.dedup();
        queued.retain(|id| listed.binary_search(id).is_err());
        drop(listed);
        // Newest first: each goes to the front of its queue, so that the oldest is the first at the end.
        queued.reverse();
        self.check_stranded(&queued)?;
        self.check_doubled(&doubled)
    }

    /// Checks the list of completed jobs, and which completed jobs are not in it.
    fn check_completed(&mut self) -> Result<(), Error> {
        let mut completed = std::mem::take(&mut self.completed);
        completed.sort_unstable();
        completed.dedup();
        let mut is_listed = vec![false; completed.len()];
        self.walk_list(&self.full(keys::COMPLETED), true, |id, _| {
            if let Some(Ok(at)) = id.map(|id| completed.binary_search(&id)) {
                is_listed[at] = true;
            }
        })?;
        let unlisted = completed.iter().zip(is_listed).filter(|(_, is_listed)| !is_listed);
        let candidates = unlisted.map(|(id, _)| job_candidate(FindingKind::Unlisted, &id.to_string(), ""));
        self.check(candidates.collect())
    }

    fn check_stranded(&mut self, ids: &[u64]) -> Result<(), Error> {
        let mut candidates = Vec::new();
        for ids in ids.chunks(CANDIDATES) {
            let first: Vec<_> =
                ids.iter().map(|id| job_candidate(FindingKind::Stranded, &id.to_string(), "")).collect();
            let results = self.run_repair_script(false, &first)?;
            for (candidate, result) in first.into_iter().zip(results) {
                if result.word == "there" {
                    candidates.push(Candidate { hint: result.note, ..candidate });
                }
            }
        }
        // In a long list a job may stand where the script does not look. If it was there all the time, a second walk
        // meets it; if it was put there meanwhile, it was started before, which the hint shows.
        if !candidates.is_empty() && self.has_long_list {
            let mut listed: Vec<u64> = Vec::new();
            let wanted: Vec<u64> = ids.to_vec();
            self.walk_lists(false, |_, id, _| {
                if let Some(id) = id
                    && wanted.binary_search_by(|other| id.cmp(other)).is_ok()
                {
                    listed.push(id);
                }
            })?;
            listed.sort_unstable();
            candidates.retain(|it| number(&it.id).is_some_and(|id| listed.binary_search(&id).is_err()));
        }
        self.check(candidates)
    }

    fn check_doubled(&mut self, ids: &[u64]) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut hints = vec![String::new(); ids.len()];
        self.walk_lists(false, |key, id, distance| {
            let at = id.and_then(|id| ids.binary_search(&id).ok());
            if let Some(hint) = at.and_then(|at| hints.get_mut(at)) {
                hint.push_str(&format!("{key}\n{distance}\n"));
            }
        })?;
        let candidates = ids
            .iter()
            .zip(&hints)
            .map(|(id, hint)| job_candidate(FindingKind::Doubled, &id.to_string(), hint));
        self.check(candidates.collect())
    }

    /// Checks candidates again. A candidate that is still wrong becomes a finding; if a server may be about to repair it,
    /// the candidate waits.
    fn check(&mut self, candidates: Vec<Candidate>) -> Result<(), Error> {
        let wrong = self.still_wrong(candidates)?;
        let (waiting, now) =
            wrong.into_iter().partition(|candidate| self.may_be_repaired_by_server(candidate));
        self.waiting.extend::<Vec<_>>(waiting);
        self.report(now)
    }

    fn may_be_repaired_by_server(&self, candidate: &Candidate) -> bool {
        let name = self.name(&candidate.key);
        let servers_own = name.starts_with(keys::IN_PROGRESS) || name.starts_with(keys::CANCELS);
        servers_own && self.has_live_server && self.waiting.len() < MAX_WAITING
    }

    fn still_wrong(&self, candidates: Vec<Candidate>) -> Result<Vec<Candidate>, Error> {
        let results = self.run_repair_script(false, &candidates)?;
        let pairs = candidates.into_iter().zip(results);
        Ok(pairs.filter(|(_, result)| result.word == "there").map(|(candidate, _)| candidate).collect())
    }

    /// Waits until servers had the time to repair the waiting candidates, then reports the rest. A server whose
    /// heartbeat counter has not changed meanwhile is silent.
    fn wait(&mut self) -> Result<(), Error> {
        let (silent, mut waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|it| it.kind == FindingKind::Silent);
        // A repair waits as long as another server would; a report need not.
        let watched =
            if self.repairs { self.policy.lease_timeout.max(SELF_REPAIR_TIME) } else { SELF_REPAIR_TIME };
        let begin = Instant::now();
        while !waiting.is_empty() && begin.elapsed() < SELF_REPAIR_TIME {
            std::thread::sleep(CHECK_INTERVAL);
            waiting = self.still_wrong(waiting)?;
        }
        self.report(waiting)?;
        if silent.is_empty() {
            return Ok(());
        }
        std::thread::sleep(watched.saturating_sub(begin.elapsed()));
        for server in silent {
            let mut command = redis::cmd("HGET");
            command.arg(self.full(keys::SERVERS)).arg(&server.id[..]);
            let beat: Option<String> = self.queue.connections.query(&command)?;
            if beat.as_ref() == Some(&server.hint) {
                self.add_finding(&server);
                if self.repairs {
                    self.take_over(&server, &String::from_utf8_lossy(&server.id), &server.hint)?;
                }
            }
        }
        Ok(())
    }

    fn add_finding(&mut self, candidate: &Candidate) {
        let name = self.name(&candidate.key);
        let id = String::from_utf8_lossy(&candidate.id);
        let example = match (name, &*id) {
            ("", id) => id.to_owned(),
            (name, "") => name.to_owned(),
            (name, id) => format!("{id} in {name}"),
        };
        let group = self.audit.findings.entry(candidate.kind).or_default();
        group.found += 1;
        Findings::add_example(&mut group.examples, example);
    }

    fn report(&mut self, findings: Vec<Candidate>) -> Result<(), Error> {
        findings.iter().for_each(|finding| self.add_finding(finding));
        if !self.repairs || findings.is_empty() {
            return Ok(());
        }
        let results = self.run_repair_script(true, &findings)?;
        for (finding, result) in findings.iter().zip(results) {
            let list = self.name(&finding.key).strip_prefix(keys::IN_PROGRESS);
            match (finding.kind, list, result.word.as_str()) {
                (FindingKind::Abandoned, Some(server), "repaired") => {
                    let server = server.to_owned();
                    self.take_over(finding, &server, &result.note)?;
                }
                (_, _, "gone") => self.add_repair(finding, "was right at the next check".to_owned(), true),
                (_, _, word) => self.add_repair(finding, result.note, word == "repaired"),
            }
        }
        Ok(())
    }

    fn add_repair(&mut self, finding: &Candidate, what: String, is_repaired: bool) {
        let group = self.audit.findings.entry(finding.kind).or_default();
        group.repaired += u64::from(is_repaired);
        Findings::add_example(&mut group.done, what);
    }

    /// Takes over a server's list as after a crash, even if the registry has forgotten the server: a job of the list may
    /// have killed the server. One more crash does a job little harm, but without crashes a job that kills servers would
    /// run for ever.
    fn take_over(&mut self, finding: &Candidate, server: &str, beat: &str) -> Result<(), Error> {
        match self.queue.reclaim(server, beat, self.policy.max_crashes) {
            // Data that was modified outside threadq; the next round may repair it.
            Err(Error::Protocol(reason)) => self.add_repair(finding, reason, false),
            Err(error) => return Err(error),
            Ok(Some(taken)) => {
                let done = format!(
                    "{} jobs taken over, {} of them crashed, {} failed",
                    taken.moved,
                    taken.crashed.len(),
                    taken.crashed.iter().filter(|job| job.has_failed).count()
                );
                self.add_repair(finding, done, true);
            }
            Ok(None) => self.add_repair(finding, "the server sends heartbeats again".to_owned(), true),
        }
        Ok(())
    }

    fn read_lost_ids(&mut self) -> Result<(), Error> {
        let key = self.full(keys::LOST);
        let mut count = redis::cmd("ZCARD");
        let mut newest = redis::cmd("ZREVRANGE");
        count.arg(&key);
        newest.arg(&key).arg(0).arg(EXAMPLES - 1);
        // If the key has a wrong type, there is a finding already.
        if let Ok(number) = self.queue.connections.query::<u64>(&count) {
            self.audit.lost = (number, self.queue.connections.query(&newest)?);
        }
        Ok(())
    }

    /// Checks candidates, or repairs them, each by itself and in as many steps as needed.
    fn run_repair_script(&self, repairs: bool, candidates: &[Candidate]) -> Result<Vec<CheckResult>, Error> {
        let script = if repairs { &self.queue.scripts.repair } else { &self.queue.scripts.recheck };
        let mut all = Vec::with_capacity(candidates.len());
        while all.len() < candidates.len() {
            let mut call = script.call();
            call.arg(if repairs { "repair" } else { "recheck" });
            call.arg(self.unregistered.len()).arg(&self.unregistered);
            for Candidate { kind, key, id, hint } in candidates.iter().skip(all.len()).take(CANDIDATES) {
                call.arg(kind.as_str()).arg(key).arg(&id[..]).arg(hint);
            }
            let replies = as_array(self.queue.run(script, &call)?)?;
            first(&replies)?;
            for reply in replies {
                let reply = as_array(reply)?;
                let note = reply.get(1).map_or(Ok(String::new()), as_text)?;
                all.push(CheckResult { word: as_text(first(&reply)?)?, note });
            }
        }
        Ok(all)
    }
}

fn job_candidate(kind: FindingKind, id: &str, hint: &str) -> Candidate {
    Candidate { kind, key: String::new(), id: id.as_bytes().to_vec(), hint: hint.to_owned() }
}

fn key_candidate(kind: FindingKind, key: &str, hint: &str) -> Candidate {
    Candidate { kind, key: key.to_owned(), id: Vec::new(), hint: hint.to_owned() }
}

fn is_readable(id: &str, fields: &[Value]) -> bool {
    id.parse().is_ok_and(|id| to_job(id, &text_pairs(fields)).is_ok())
}

fn texts(value: Option<&Value>) -> Result<Vec<String>, Error> {
    match value {
        Some(Value::Array(values)) => values.iter().map(text_or_number).collect(),
        Some(other) => Err(unexpected(other)),
        None => Ok(Vec::new()),
    }
}

/// The entries of a list or set as Redis has them.
fn entries(value: Option<&Value>) -> Result<Vec<Vec<u8>>, Error> {
    match value {
        Some(Value::Array(values)) => values.iter().cloned().map(as_bytes).collect(),
        Some(other) => Err(unexpected(other)),
        None => Ok(Vec::new()),
    }
}

/// The id in an entry, if it is an id.
fn number(entry: &[u8]) -> Option<u64> {
    std::str::from_utf8(entry).ok()?.parse().ok().map(JobId::get)
}

fn text_or_number(value: &Value) -> Result<String, Error> {
    match value {
        Value::Int(number) => Ok(number.to_string()),
        other => as_text(other),
    }
}
