//! One pass over everything, in small steps. See `mod.rs`.

use std::time::{Duration, Instant};

use redis::Value;

use crate::job::JobId;

use super::super::{Error, Queue, first, keys, record};
use super::{Audit, EXAMPLES, FindingKind, Findings, RememberedServer, RepairPolicy};

/// How many keys one SCAN looks at.
const KEYS: usize = 500;
/// How many jobs one script looks at: some 15 commands each, 1 to 2 ms in all.
const JOBS: usize = 25;
/// How many entries of a list or set one script looks at: a few commands each.
const ENTRIES: usize = 100;
/// Steps of a walk through a list overlap by so much, so that an entry is not missed when others before it go away.
const OVERLAP: usize = 25;
/// How many findings are given to one script; it answers as many as it can look at in a short time.
const FINDINGS: usize = 50;
/// How many findings are held back for a last look; more are judged without patience.
const MAX_WAITING: usize = 10_000;
/// A list longer than this is not looked at as a whole by one script; SHORT in audit_common.lua.
const SHORT: u64 = 2_048;
/// What concerns a live server may be on its way: a job that was cancelled while a fetcher had it in hand, a server that
/// is starting, a dead one that is being taken over. A server notices a lost hand-over within 6 s and a beat.
const PATIENCE: Duration = Duration::from_secs(8);
/// How often it is looked whether it has passed.
const LOOK: Duration = Duration::from_millis(500);
/// A server whose last beat is younger is about; they beat every second.
const ALIVE: u64 = 10_000;

/// What seems wrong.
#[derive(Clone, PartialEq, Eq)]
struct Suspicion {
    kind: FindingKind,
    /// In full; empty for what concerns a job itself.
    key: String,
    /// Empty for what concerns a key itself. As it stands in Redis: perhaps not even text.
    id: Vec<u8>,
    /// See repair.lua.
    hint: String,
}

/// What a look or a repair says to one of them.
struct Said {
    word: String,
    note: String,
}

struct Pass<'a> {
    queue: &'a Queue,
    policy: RepairPolicy,
    repairs: bool,
    audit: Audit,
    /// Lists of ready jobs and lists of servers, in full.
    lists: Vec<String>,
    /// Index sets and cancels sets.
    sets: Vec<String>,
    /// In-progress lists of servers that are not in the registry.
    unregistered: Vec<String>,
    /// Jobs that were queued when they were seen.
    queued: Vec<u64>,
    /// Whether a list is too long to be looked at as a whole.
    has_long_list: bool,
    /// Whether any server lives that could mend something itself.
    has_live_server: bool,
    /// What may pass by itself.
    waiting: Vec<Suspicion>,
}

pub(super) fn run(queue: &Queue, policy: RepairPolicy, repairs: bool) -> Result<Audit, Error> {
    let mut pass = Pass {
        queue,
        policy,
        repairs,
        audit: Audit::default(),
        lists: Vec::new(),
        sets: Vec::new(),
        unregistered: Vec::new(),
        queued: Vec::new(),
        has_long_list: false,
        has_live_server: false,
        waiting: Vec::new(),
    };
    pass.look_at_servers()?;
    pass.scan()?;
    for set in pass.known_sets() {
        pass.walk_set(&set)?;
    }
    pass.look_for_stranded_and_doubled()?;
    pass.wait()?;
    pass.look_at_notes()?;
    Ok(pass.audit)
}

impl Pass<'_> {
    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.queue.prefix)
    }

    fn name<'k>(&self, key: &'k str) -> &'k str {
        key.strip_prefix(&self.queue.prefix).unwrap_or(key)
    }

    fn look_at_servers(&mut self) -> Result<(), Error> {
        let scripts = &self.queue.scripts;
        let answer = record::array(self.queue.run(&scripts.audit_servers, &scripts.audit_servers.call())?)?;
        for server in answer {
            let server = record::array(server)?;
            let number = |i: usize| record::int(server.get(i).unwrap_or(&Value::Nil));
            let beat = record::text(server.get(1).unwrap_or(&Value::Nil))?;
            self.audit.servers.push(RememberedServer {
                id: record::text(first(&server)?)?,
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
                self.waiting.push(Suspicion {
                    kind: FindingKind::Silent,
                    key: String::new(),
                    id: server.id.clone().into_bytes(),
                    hint: beat,
                });
            }
        }
        Ok(())
    }

    /// Meets every key once: judges jobs and unique keys, and collects lists and sets.
    fn scan(&mut self) -> Result<(), Error> {
        let mut cursor = "0".to_owned();
        loop {
            let mut command = redis::cmd("SCAN");
            command.arg(&cursor).arg("MATCH").arg(self.full("*")).arg("COUNT").arg(KEYS);
            let (next, page): (String, Vec<Vec<u8>>) = self.queue.link.query(&command)?;
            let mut ids = Vec::new();
            let mut suspicions = Vec::new();
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
                        Findings::note(&mut self.audit.set_aside.1, name);
                    }
                    continue;
                };
                suspicions.push(of_key(FindingKind::WrongType, &key, right));
                if name.starts_with(keys::UNIQUE) {
                    suspicions.push(of_key(FindingKind::UniqueStale, &key, ""));
                } else if name.starts_with(keys::WORK) {
                    self.lists.push(key);
                } else if let Some(server) = name.strip_prefix(keys::IN_PROGRESS) {
                    if !self.audit.servers.iter().any(|known| known.id == server) {
                        self.unregistered.push(key.clone());
                    }
                    suspicions.push(of_key(FindingKind::Abandoned, &key, ""));
                    self.lists.push(key);
                } else if name.starts_with(keys::CANCELS) {
                    suspicions.push(of_key(FindingKind::Abandoned, &key, ""));
                    self.sets.push(key);
                } else if name.starts_with(keys::INDEX) {
                    self.sets.push(key);
                }
            }
            for ids in ids.chunks(JOBS) {
                self.look_at_jobs(ids)?;
            }
            // Every key is a suspicion here: the first of the two looks is that of the script itself.
            let suspicions = self.still_there(suspicions)?;
            self.judge(suspicions)?;
            if next == "0" {
                break;
            }
            cursor = next;
        }
        // SCAN may name a key twice.
        for names in [&mut self.lists, &mut self.sets, &mut self.unregistered] {
            names.sort();
            names.dedup();
        }
        Ok(())
    }

    fn known_sets(&self) -> Vec<String> {
        let mut sets = self.sets.clone();
        sets.extend([keys::SCHEDULED, keys::DLQ, keys::DONE].map(|name| self.full(name)));
        sets
    }

    fn look_at_jobs(&mut self, ids: &[String]) -> Result<(), Error> {
        let script = &self.queue.scripts.audit_jobs;
        let mut call = script.call();
        call.arg(ids);
        let answers = record::array(self.queue.run(script, &call)?)?;
        let mut suspicions = Vec::new();
        for (id, answer) in ids.iter().zip(answers) {
            let mut answer = record::array(answer)?.into_iter();
            let status = record::text(&answer.next().unwrap_or(Value::Nil))?;
            let fields = record::array(answer.next().unwrap_or(Value::Nil))?;
            let faults = answer.map(|fault| record::text(&fault)).collect::<Result<Vec<_>, Error>>()?;
            let key = self.full(keys::JOB) + id;
            if faults.iter().any(|fault| fault == FindingKind::WrongType.as_str()) {
                suspicions.push(of_key(FindingKind::WrongType, &key, "hash"));
                continue;
            }
            let is_large = faults.iter().any(|fault| fault == "large");
            if fields.is_empty() && !is_large {
                continue;
            }
            self.audit.jobs += 1;
            if (is_large || !is_readable(id, fields))
                && let Some(print) = self.unreadable(id)?
            {
                suspicions.push(of_job(FindingKind::Unreadable, id, &print));
            }
            if status == "queued"
                && let Ok(id) = id.parse::<JobId>()
            {
                self.queued.push(id.get());
            }
            let faults = faults.iter().filter_map(|fault| FindingKind::from_word(fault));
            suspicions.extend(faults.map(|kind| of_job(kind, id, "")));
        }
        self.judge(suspicions)
    }

    /// The fingerprint of a record that cannot be read.
    fn unreadable(&self, id: &str) -> Result<Option<String>, Error> {
        let script = &self.queue.scripts.audit_record;
        let mut call = script.call();
        call.arg(id);
        let mut answer = record::array(self.queue.run(script, &call)?)?.into_iter();
        let print = record::text(&answer.next().unwrap_or(Value::Nil))?;
        let fields = record::array(answer.next().unwrap_or(Value::Nil))?;
        Ok((!fields.is_empty() && !is_readable(id, fields)).then_some(print))
    }

    fn walk_set(&mut self, key: &str) -> Result<(), Error> {
        let mut cursor = "0".to_owned();
        loop {
            let script = &self.queue.scripts.audit_set;
            let mut call = script.call();
            call.arg(key).arg(&cursor).arg(ENTRIES);
            let answer = record::array(self.queue.run(script, &call)?)?;
            cursor = record::text(first(&answer)?)?;
            let faults = entries(answer.get(1))?;
            let suspicions = faults.chunks_exact(2).filter_map(|pair| {
                let kind = FindingKind::from_word(std::str::from_utf8(&pair[1]).ok()?)?;
                Some(Suspicion { kind, key: key.to_owned(), id: pair[0].clone(), hint: "0".to_owned() })
            });
            self.judge(suspicions.collect())?;
            if cursor == "0" {
                return Ok(());
            }
        }
    }

    /// Walks through a list from its left end, where jobs come in, and shows every entry with its distance from the
    /// right end. What does not fit is judged only if `judging`.
    fn walk_list(
        &mut self,
        key: &str,
        judging: bool,
        mut see: impl FnMut(Option<u64>, u64),
    ) -> Result<(), Error> {
        let (mut from, mut last): (usize, Option<Vec<u8>>) = (0, None);
        loop {
            let script = &self.queue.scripts.audit_list;
            let mut call = script.call();
            call.arg(key).arg(from).arg(ENTRIES);
            let answer = record::array(self.queue.run(script, &call)?)?;
            let length = record::int(first(&answer)?)?.max(0) as u64;
            let ids = entries(answer.get(1))?;
            let faults = texts(answer.get(2))?;
            self.has_long_list |= length > SHORT;
            let distance = |place: usize| length.saturating_sub(1 + place as u64);
            // Behind the entry that was the last one before, wherever it is now, everything is new.
            let known = last.and_then(|last| ids.iter().position(|id| *id == last)).map_or(0, |at| at + 1);
            for (place, id) in ids.iter().enumerate().skip(known) {
                see(number(id), distance(from + place));
            }
            if judging {
                let suspicions = faults.chunks_exact(2).filter_map(|pair| {
                    let place: usize = pair[0].parse().ok().filter(|place| *place >= from + known)?;
                    let kind = FindingKind::from_word(&pair[1])?;
                    let id = ids.get(place - from)?.clone();
                    Some(Suspicion { kind, key: key.to_owned(), id, hint: distance(place).to_string() })
                });
                self.judge(suspicions.collect())?;
            }
            if ids.len() < ENTRIES {
                return Ok(());
            }
            last = ids.last().cloned();
            from += ENTRIES - OVERLAP;
        }
    }

    /// Walks through all lists; see [`Pass::walk_list`].
    fn walk_lists(
        &mut self,
        judging: bool,
        mut see: impl FnMut(&str, Option<u64>, u64),
    ) -> Result<(), Error> {
        for key in self.lists.clone() {
            self.walk_list(&key, judging, |id, distance| see(&key, id, distance))?;
        }
        Ok(())
    }

    /// Which queued jobs are in no list, and which entries are there more than once, is only seen by all lists together.
    fn look_for_stranded_and_doubled(&mut self) -> Result<(), Error> {
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
        // Newest first: each goes to the front, so the oldest ends up foremost.
        queued.reverse();
        self.look_at_stranded(&queued)?;
        self.look_at_doubled(&doubled)
    }

    fn look_at_stranded(&mut self, ids: &[u64]) -> Result<(), Error> {
        let mut suspicions = Vec::new();
        for ids in ids.chunks(FINDINGS) {
            let first: Vec<_> =
                ids.iter().map(|id| of_job(FindingKind::Stranded, &id.to_string(), "")).collect();
            let said = self.ask(false, &first)?;
            for (suspicion, said) in first.into_iter().zip(said) {
                if said.word == "there" {
                    suspicions.push(Suspicion { hint: said.note, ..suspicion });
                }
            }
        }
        // In a long list a job can stand where the script does not look. One that was there all the time is seen by a
        // second walk; one that was put there meanwhile had to be started before, which the hint tells.
        if !suspicions.is_empty() && self.has_long_list {
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
            suspicions.retain(|it| number(&it.id).is_some_and(|id| listed.binary_search(&id).is_err()));
        }
        self.judge(suspicions)
    }

    fn look_at_doubled(&mut self, ids: &[u64]) -> Result<(), Error> {
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
        let suspicions =
            ids.iter().zip(&hints).map(|(id, hint)| of_job(FindingKind::Doubled, &id.to_string(), hint));
        self.judge(suspicions.collect())
    }

    /// The second look: counts what is still wrong, and mends it. What may pass by itself waits for the end.
    fn judge(&mut self, suspicions: Vec<Suspicion>) -> Result<(), Error> {
        let there = self.still_there(suspicions)?;
        let (waiting, now) = there.into_iter().partition(|suspicion| self.may_pass(suspicion));
        self.waiting.extend::<Vec<_>>(waiting);
        self.confirm(now)
    }

    fn may_pass(&self, suspicion: &Suspicion) -> bool {
        let name = self.name(&suspicion.key);
        let servers_own = name.starts_with(keys::IN_PROGRESS) || name.starts_with(keys::CANCELS);
        servers_own && self.has_live_server && self.waiting.len() < MAX_WAITING
    }

    fn still_there(&self, suspicions: Vec<Suspicion>) -> Result<Vec<Suspicion>, Error> {
        let said = self.ask(false, &suspicions)?;
        let pairs = suspicions.into_iter().zip(said);
        Ok(pairs.filter(|(_, said)| said.word == "there").map(|(suspicion, _)| suspicion).collect())
    }

    /// Gives those that may pass the time for it, and then judges what is left. Also the place where silent servers are
    /// watched: who has not beaten meanwhile is silent.
    fn wait(&mut self) -> Result<(), Error> {
        let (silent, mut waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|it| it.kind == FindingKind::Silent);
        // A repair judges a server as another server would; a report may be a little hasty.
        let watched = if self.repairs { self.policy.lease_timeout.max(PATIENCE) } else { PATIENCE };
        let begin = Instant::now();
        while !waiting.is_empty() && begin.elapsed() < PATIENCE {
            std::thread::sleep(LOOK);
            waiting = self.still_there(waiting)?;
        }
        self.confirm(waiting)?;
        if silent.is_empty() {
            return Ok(());
        }
        std::thread::sleep(watched.saturating_sub(begin.elapsed()));
        for server in silent {
            let mut command = redis::cmd("HGET");
            command.arg(self.full(keys::SERVERS)).arg(&server.id[..]);
            let beat: Option<String> = self.queue.link.query(&command)?;
            if beat.as_ref() == Some(&server.hint) {
                self.found(&server);
                if self.repairs {
                    self.take_over(&server, &String::from_utf8_lossy(&server.id), &server.hint)?;
                }
            }
        }
        Ok(())
    }

    fn found(&mut self, suspicion: &Suspicion) {
        let name = self.name(&suspicion.key);
        let id = String::from_utf8_lossy(&suspicion.id);
        let example = match (name, &*id) {
            ("", id) => id.to_owned(),
            (name, "") => name.to_owned(),
            (name, id) => format!("{id} in {name}"),
        };
        let group = self.audit.groups.entry(suspicion.kind).or_default();
        group.found += 1;
        Findings::note(&mut group.examples, example);
    }

    fn confirm(&mut self, findings: Vec<Suspicion>) -> Result<(), Error> {
        findings.iter().for_each(|finding| self.found(finding));
        if !self.repairs || findings.is_empty() {
            return Ok(());
        }
        let said = self.ask(true, &findings)?;
        for (finding, said) in findings.iter().zip(said) {
            let list = self.name(&finding.key).strip_prefix(keys::IN_PROGRESS);
            match (finding.kind, list, said.word.as_str()) {
                (FindingKind::Abandoned, Some(server), "repaired") => {
                    let server = server.to_owned();
                    self.take_over(finding, &server, &said.note)?;
                }
                (_, _, "gone") => self.repaired(finding, "has passed by itself".to_owned(), true),
                (_, _, word) => self.repaired(finding, said.note, word == "repaired"),
            }
        }
        Ok(())
    }

    fn repaired(&mut self, finding: &Suspicion, what: String, is_mended: bool) {
        let group = self.audit.groups.entry(finding.kind).or_default();
        group.repaired += u64::from(is_mended);
        Findings::note(&mut group.done, what);
    }

    /// Takes over a server's list as after a crash. A job that ran there may have been what ended it, also where the
    /// registry has forgotten the server; to be charged once only makes a job run apart from then on, while one that
    /// kills servers and is never charged would go on for ever.
    fn take_over(&mut self, finding: &Suspicion, server: &str, beat: &str) -> Result<(), Error> {
        match self.queue.reclaim(server, beat, self.policy.max_crashes) {
            // A stranger's hand in the data, which the next round may have repaired.
            Err(Error::Protocol(reason)) => self.repaired(finding, reason, false),
            Err(error) => return Err(error),
            Ok(Some(taken)) => {
                let done = format!(
                    "{} jobs taken over, {} charged with a crash, {} failed for it",
                    taken.moved,
                    taken.crashed.len(),
                    taken.crashed.iter().filter(|job| job.has_failed).count()
                );
                self.repaired(finding, done, true);
            }
            Ok(None) => self.repaired(finding, "it beats again".to_owned(), true),
        }
        Ok(())
    }

    fn look_at_notes(&mut self) -> Result<(), Error> {
        let key = self.full(keys::LOST);
        let mut count = redis::cmd("ZCARD");
        let mut newest = redis::cmd("ZREVRANGE");
        count.arg(&key);
        newest.arg(&key).arg(0).arg(EXAMPLES - 1);
        // A key of the wrong type has been reported.
        if let Ok(number) = self.queue.link.query::<u64>(&count) {
            self.audit.lost = (number, self.queue.link.query(&newest)?);
        }
        Ok(())
    }

    /// Looks at suspicions, or mends them, each by itself and in as many steps as it takes.
    fn ask(&self, repairs: bool, suspicions: &[Suspicion]) -> Result<Vec<Said>, Error> {
        let script = if repairs { &self.queue.scripts.repair } else { &self.queue.scripts.recheck };
        let mut all = Vec::with_capacity(suspicions.len());
        while all.len() < suspicions.len() {
            let mut call = script.call();
            call.arg(if repairs { "repair" } else { "recheck" });
            call.arg(self.unregistered.len()).arg(&self.unregistered);
            for Suspicion { kind, key, id, hint } in suspicions.iter().skip(all.len()).take(FINDINGS) {
                call.arg(kind.as_str()).arg(key).arg(&id[..]).arg(hint);
            }
            let answers = record::array(self.queue.run(script, &call)?)?;
            first(&answers)?;
            for answer in answers {
                let answer = record::array(answer)?;
                let note = answer.get(1).map_or(Ok(String::new()), record::text)?;
                all.push(Said { word: record::text(first(&answer)?)?, note });
            }
        }
        Ok(all)
    }
}

fn of_job(kind: FindingKind, id: &str, hint: &str) -> Suspicion {
    Suspicion { kind, key: String::new(), id: id.as_bytes().to_vec(), hint: hint.to_owned() }
}

fn of_key(kind: FindingKind, key: &str, hint: &str) -> Suspicion {
    Suspicion { kind, key: key.to_owned(), id: Vec::new(), hint: hint.to_owned() }
}

fn is_readable(id: &str, fields: Vec<Value>) -> bool {
    id.parse().is_ok_and(|id| record::to_job(id, fields).is_ok())
}

fn texts(value: Option<&Value>) -> Result<Vec<String>, Error> {
    match value {
        Some(Value::Array(values)) => values.iter().map(text_or_number).collect(),
        Some(other) => Err(record::unexpected(other)),
        None => Ok(Vec::new()),
    }
}

/// Entries as they stand in Redis.
fn entries(value: Option<&Value>) -> Result<Vec<Vec<u8>>, Error> {
    match value {
        Some(Value::Array(values)) => values.iter().cloned().map(record::bytes).collect(),
        Some(other) => Err(record::unexpected(other)),
        None => Ok(Vec::new()),
    }
}

/// The id in an entry, if it is one.
fn number(entry: &[u8]) -> Option<u64> {
    std::str::from_utf8(entry).ok()?.parse().ok().map(JobId::get)
}

fn text_or_number(value: &Value) -> Result<String, Error> {
    match value {
        Value::Int(number) => Ok(number.to_string()),
        other => record::text(other),
    }
}
