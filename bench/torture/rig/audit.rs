//! The audit: after the faults every job must reach a final status, and all records must agree.
//!
//! The audit compares three sources: the clients' ledger (which jobs were accepted), the executions (written by the
//! jobs' programs, outside of the servers), and all keys of Redis.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use redis::Value as Raw;
use serde_json::{Value, json};

use super::Plan;
use super::faults::Faults;
use super::http::Http;
use super::load::{EXECUTIONS, Expect, Intent, Load, Outcome};
use super::own_redis::{Eye, Redis};
use super::processes::Servers;
use super::report::Report;

const FINAL: [&str; 3] = ["completed", "failed", "cancelled"];
/// The longest time until all servers must report that they are idle.
const CALM: Duration = Duration::from_secs(15);

/// The fields of a job's hash.
pub type Fields = BTreeMap<String, String>;

/// Waits until all jobs are done, and compares all records. Returns all jobs.
pub fn run(
    plan: &Plan,
    folder: &Path,
    redis: &Redis,
    servers: &Servers,
    load: &Load,
    faults: &Faults,
    report: &mut Report,
) -> Result<HashMap<u64, Fields>, String> {
    let mut eye = redis.eye();
    let drain_begin = Instant::now();
    report.drained = drain(&mut eye, plan.drain_limit)?;
    report.drain = drain_begin.elapsed();
    check_calm(plan, servers, report);

    let accepted = load.accepted();
    let jobs = read_jobs(&mut eye)?;
    let executions = Executions::read(folder)?;
    count_submissions(load, report);
    judge_jobs(plan, redis, load, &accepted, &jobs, report);
    judge_executions(plan, &accepted, &jobs, &executions, servers, faults, report);
    check_lists(&mut eye, report)?;
    check_indices(&mut eye, &jobs, report)?;
    check_names(&mut eye, servers, faults, report)?;
    check_api(servers, &jobs, report);
    judge_events(plan, faults, report);
    report.unasked = servers.unasked_ends();
    report.notes.extend(faults.notes());
    report.repeats = load.repeats();

    let details: Vec<String> =
        report.offenders.iter().take(20).map(|id| describe(*id, &jobs, &executions, folder, plan)).collect();
    report.details = details;
    if !report.is_good() {
        report.details.push(servers.log_ends(15));
    }
    Ok(jobs)
}

/// Checks that Redis lists no live server after all servers were stopped by SIGTERM.
pub fn after_the_stop(redis: &Redis, report: &mut Report) {
    let mut eye = redis.eye();
    let servers: Result<Vec<(String, String)>, _> =
        eye.insist(redis::cmd("HGETALL").arg("{threadq}:servers"));
    // `P`: pull workers, which are no server.
    let alive = servers.map(|all| all.into_iter().filter(|(_, beat)| !beat.starts_with(['D', 'P'])).count());
    if alive != Ok(0) {
        report.wrong(format!("after all servers were stopped, Redis lists {alive:?} live servers"));
    }
}

/// A server takes a new name only after it was declared dead, and only a freeze may cause that.
fn check_names(eye: &mut Eye, servers: &Servers, faults: &Faults, report: &mut Report) -> Result<(), String> {
    let names: Vec<String> = eye.insist(redis::cmd("HKEYS").arg("{threadq}:servers"))?;
    let mut of_pid: HashMap<u32, usize> = HashMap::new();
    for name in &names {
        if let Some(pid) = name.rsplit('-').nth(1).and_then(|pid| pid.parse().ok()) {
            *of_pid.entry(pid).or_default() += 1;
        }
    }
    let freezes = faults.events().into_iter().filter(|event| event.what == "freeze");
    for pid in freezes.filter_map(|event| event.pid) {
        of_pid.entry(pid).and_modify(|names| *names = names.saturating_sub(1));
    }
    let renamed: usize = of_pid.values().map(|names| names.saturating_sub(1)).sum();
    // On a busy machine a server can miss its heartbeats for a whole lease without a fault.
    if renamed * 4 > servers.starts() {
        report.wrong(format!("{renamed} times a server that was not frozen was declared dead"));
    } else if renamed > 0 {
        report.notes.push(format!("{renamed} times a server that was not frozen was declared dead"));
    }
    Ok(())
}

/// The number of jobs with this word in the index.
pub fn indexed(eye: &mut Eye, word: &str) -> Result<i64, String> {
    let types: Vec<String> = eye.insist(redis::cmd("ZRANGE").arg("{threadq}:types").arg(0).arg(-1))?;
    let mut number = 0;
    for name in types {
        let key = format!("{{threadq}}:type_index:{word}:{name}");
        number += eye.insist::<i64>(redis::cmd("ZCARD").arg(key))?;
    }
    Ok(number)
}

/// Waits until no job waits or runs, and returns true. Returns false when no job has ended for `patience`.
fn drain(eye: &mut Eye, patience: Duration) -> Result<bool, String> {
    let (mut fewest, mut since) = (i64::MAX, Instant::now());
    loop {
        let mut left = 0;
        for word in ["ready", "scheduled", "retrying"] {
            left += indexed(eye, word)?;
        }
        if left < fewest {
            (fewest, since) = (left, Instant::now());
        }
        if left == 0 || since.elapsed() > patience {
            return Ok(left == 0);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Every idle server must report that it is idle, and must have all its worker threads: a fault may have ended a thread
/// for good, which no job shows.
fn check_calm(plan: &Plan, servers: &Servers, report: &mut Report) {
    let (http, end) = (Http::new(), Instant::now() + CALM);
    loop {
        let mut wrong = Vec::new();
        for server in servers.running() {
            match http.get(server.addr, "/stats") {
                Ok(answer) => {
                    let all = answer.body["servers"].as_array().cloned().unwrap_or_default();
                    let idle = |server: &&Value| {
                        server["busy"] == json!(0) && server["workers"] == json!(plan.workers)
                    };
                    if all.len() != plan.servers || all.iter().filter(idle).count() != plan.servers {
                        wrong.push(format!(
                            "server {} lists these servers: {}",
                            server.number, answer.body["servers"]
                        ));
                    }
                    if report.drained
                        && ["queued", "processing", "scheduled", "retrying"]
                            .iter()
                            .any(|status| answer.body["counts"][status] != json!(0))
                    {
                        wrong.push(format!("server {} counts: {}", server.number, answer.body["counts"]));
                    }
                }
                Err(error) => wrong.push(format!("server {}: {error}", server.number)),
            }
            let threads = worker_threads(server.pid);
            if threads != plan.workers {
                wrong.push(format!(
                    "server {} has {threads} worker threads of {}",
                    server.number, plan.workers
                ));
            }
        }
        if wrong.is_empty() || Instant::now() > end {
            wrong.into_iter().for_each(|what| report.wrong(what));
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn worker_threads(pid: u32) -> usize {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks.flatten().map(name).filter(|name| name.starts_with("worker-")).count()
}

fn count_submissions(load: &Load, report: &mut Report) {
    for submission in &load.submissions {
        let jobs = submission.intents.len();
        report.submitted += jobs;
        match submission.outcome.get() {
            Some(Outcome::Accepted(_)) => report.accepted += jobs,
            Some(Outcome::Refused(409, answer)) if answer.contains("\"duplicate\"") => report.refused += jobs,
            Some(Outcome::Refused(status, answer)) => {
                report.refused += jobs;
                report.wrong(format!("a submission was refused: {status} {answer}"));
            }
            Some(Outcome::Unknown(last)) => {
                report.unknown += jobs;
                report.wrong(format!("a submission got no response after all its repeats: {last}"));
            }
            None => report.unknown += jobs,
        }
    }
}

/// Every accepted job must have the expected final status, and no other job may exist.
fn judge_jobs(
    plan: &Plan,
    redis: &Redis,
    load: &Load,
    accepted: &HashMap<u64, &Intent>,
    jobs: &HashMap<u64, Fields>,
    report: &mut Report,
) {
    if accepted.len() != report.accepted {
        report.wrong(format!("{} jobs were accepted under {} ids", report.accepted, accepted.len()));
    }
    let cancels = load.cancels();
    for (id, intent) in accepted {
        let Some(job) = jobs.get(id) else {
            // With `everysec` Redis responds before it writes to the disk.
            if plan.fsync == "everysec" && !redis.has_ever_written(*id) {
                report.lost_by_redis += 1;
                continue;
            }
            report.lost.push(*id);
            report.offenders.insert(*id);
            continue;
        };
        let status = text(job, "status");
        *report.ends.entry(status.to_owned()).or_default() += 1;
        if !FINAL.contains(&status) {
            report.stuck.push(*id);
            report.offenders.insert(*id);
            continue;
        }
        if let Some(what) = wrong_end(plan, intent, job, cancels.get(id).copied(), report) {
            report.wrong(format!("job {id} ({}): {what}", intent.job_type));
            report.offenders.insert(*id);
        }
    }
    for id in jobs.keys().filter(|id| !accepted.contains_key(id)) {
        // A submission of unknown outcome may have been stored.
        if report.unknown == 0 {
            report.wrong(format!("job {id} exists, and was never accepted"));
            report.offenders.insert(*id);
        }
    }
}

fn wrong_end(
    plan: &Plan,
    intent: &Intent,
    job: &Fields,
    cancel: Option<u16>,
    report: &mut Report,
) -> Option<String> {
    let (status, attempts, crashes) = (text(job, "status"), attempts(job), number(job, "crashes"));
    for field in ["cancel"] {
        if job.contains_key(field) {
            return Some(format!("it still has the field {field}"));
        }
    }
    if !job.contains_key("finished_at") {
        return Some("it has no finished_at".to_owned());
    }
    match (cancel, status) {
        (Some(200), "cancelled") | (Some(202), "cancelled") => return None,
        (Some(200), _) => {
            return Some(format!("its cancel request was answered with 200, and it is {status}"));
        }
        // The client may have repeated the cancel request after its response was lost.
        (_, "cancelled") if cancel.is_some() => return None,
        _ => {}
    }
    // The final attempt runs alone: only a kill or a freeze of its server can make a good job a dead letter.
    if status == "failed" && crashes >= plan.max_crashes as u64 && intent.expect != Expect::Poison {
        *report.crashed_out.entry(intent.job_type).or_default() += 1;
        return match plan.kills + plan.freezes > 0 {
            true => None,
            false => Some("it is a dead letter because of crashes that it did not cause".to_owned()),
        };
    }
    let wanted = match intent.expect {
        Expect::Completed(attempts) => ("completed", attempts),
        Expect::Failed(attempts) => ("failed", attempts),
        Expect::Poison => ("failed", 0),
    };
    if job.contains_key("expires_at") {
        let expires_at = number(job, "expires_at");
        if number(job, "started_at") > expires_at {
            return Some("an attempt started after its expiry".to_owned());
        }
        let has_expired = number(job, "finished_at") >= expires_at;
        let is_cancelled = status == "cancelled" && text(job, "cancel_reason") == "expired" && attempts == 0;
        if has_expired && (is_cancelled || (status == "failed" && attempts > 0)) {
            *report.ends.entry("expired".to_owned()).or_default() += 1;
            return None;
        }
    }
    if (status, attempts) != wanted {
        return Some(format!(
            "it is {status} after {attempts} attempts, not {} after {}",
            wanted.0, wanted.1
        ));
    }
    // A record leaves out a result of null.
    let result = || match text(job, "result") {
        "" => Some(Value::Null),
        result => serde_json::from_str(result).ok(),
    };
    match &intent.result {
        Some(wanted) if status == "completed" && result().as_ref() != Some(wanted) => {
            Some(format!("its result is {}, not {wanted}", text(job, "result")))
        }
        _ => None,
    }
}

/// What the jobs' programs have written to the file of executions.
struct Executions {
    /// Per job: the server (pid) and the attempt number of each start.
    starts: HashMap<u64, Vec<(u32, u64)>>,
    ends: HashMap<u64, usize>,
    lines: Vec<String>,
}

impl Executions {
    fn read(folder: &Path) -> Result<Executions, String> {
        let file =
            fs::read_to_string(folder.join(EXECUTIONS)).map_err(|error| format!("{EXECUTIONS}: {error}"))?;
        let (mut starts, mut ends): (HashMap<_, Vec<_>>, HashMap<_, usize>) = Default::default();
        let lines: Vec<String> = file.lines().map(str::to_owned).collect();
        for line in &lines {
            let words: Vec<&str> = line.split(' ').collect();
            let parsed = |i: usize| words.get(i).and_then(|word| word.parse::<u64>().ok());
            match (words[0], parsed(1), parsed(2), parsed(3)) {
                ("start", Some(id), Some(server), Some(attempt)) => {
                    starts.entry(id).or_default().push((server as u32, attempt));
                }
                ("end", Some(id), _, _) => *ends.entry(id).or_default() += 1,
                _ => return Err(format!("{EXECUTIONS}: cannot parse the line {line:?}")),
            }
        }
        Ok(Executions { starts, ends, lines })
    }
}

/// Every accepted job must have run at least once, and more often only where a server had a fault.
fn judge_executions(
    plan: &Plan,
    accepted: &HashMap<u64, &Intent>,
    jobs: &HashMap<u64, Fields>,
    executions: &Executions,
    servers: &Servers,
    faults: &Faults,
    report: &mut Report,
) {
    let mut faults_of: HashMap<u32, usize> = HashMap::new();
    for pid in faults.events().iter().filter_map(|event| event.pid) {
        *faults_of.entry(pid).or_default() += 1;
    }
    for pid in servers.poisoned() {
        *faults_of.entry(pid).or_default() += 1;
    }
    let mut by_server: HashMap<u32, usize> = HashMap::new();
    let mut unexplained = Vec::new();
    for (id, intent) in accepted.iter().filter(|(_, intent)| intent.is_exec()) {
        let Some(job) = jobs.get(id) else { continue };
        let starts = executions.starts.get(id).map_or(&[][..], Vec::as_slice);
        let attempts = attempts(job) as usize;
        let is_completed = text(job, "status") == "completed";
        if is_completed && !executions.ends.contains_key(id) {
            report.wrong(format!("job {id} ({}) is completed, but its program never ended", intent.job_type));
            report.offenders.insert(*id);
        }
        if text(job, "status") == "cancelled" {
            continue;
        }
        if starts.len() < attempts {
            report.wrong(format!(
                "job {id} ({}) has {attempts} attempts, but ran {} times",
                intent.job_type,
                starts.len()
            ));
            report.offenders.insert(*id);
        }
        let mut extra = starts.len().saturating_sub(attempts);
        report.duplicated += extra;
        for (server, _) in starts {
            if extra > 0 && (faults_of.contains_key(server) || *server <= 1) {
                *by_server.entry(*server).or_default() += 1;
                extra -= 1;
            }
        }
        if extra > 0 {
            unexplained.push(*id);
        }
    }
    report.unexplained = unexplained.len();
    // An outage of Redis may lose the outcome of an attempt, which then runs again.
    if plan.redis_faults == 0 && !unexplained.is_empty() {
        report.wrong(format!(
            "{} jobs ran more often than recorded, and none of their servers had a fault",
            unexplained.len()
        ));
        report.offenders.extend(unexplained.iter().copied());
    }
    report.most_by_one_fault = 0;
    for (server, number) in by_server {
        let per_fault = number.div_ceil(faults_of.get(&server).copied().unwrap_or(1));
        report.most_by_one_fault = report.most_by_one_fault.max(per_fault);
        if per_fault > report.allowed_by_one_fault {
            report.wrong(format!("the faults of process {server} caused {number} duplicate runs"));
        }
    }
}

/// No list, unique key, slot of a limit, word of the agenda or pause may remain.
fn check_lists(eye: &mut Eye, report: &mut Report) -> Result<(), String> {
    for key in scan(eye, "*")? {
        let name = key.trim_start_matches("{threadq}:");
        let must_be_gone =
            ["work_queue:", "in_progress_queue:", "unique:", "cancels:", "slots:", "held:", "holds:"];
        if must_be_gone.iter().any(|prefix| name.starts_with(prefix))
            || ["scheduled", "agenda", "lost", "paused", "held_count", "waiting_limits"].contains(&name)
        {
            report.wrong(format!("the key {name} remains"));
        }
    }
    Ok(())
}

/// The indices must agree with the jobs' hashes.
fn check_indices(eye: &mut Eye, jobs: &HashMap<u64, Fields>, report: &mut Report) -> Result<(), String> {
    let mut wanted: BTreeMap<String, BTreeSet<(u64, u64)>> = BTreeMap::new();
    for (id, job) in jobs {
        let (status, kind) = (text(job, "status"), text(job, "type"));
        let word = if ["queued", "processing"].contains(&status) { "ready" } else { status };
        let mut add = |key: String, score: u64| wanted.entry(key).or_default().insert((*id, score));
        add(format!("{{threadq}}:type_index:{word}:{kind}"), *id);
        for tag in text(job, "tags").lines() {
            add(format!("{{threadq}}:tag_index:{word}:{tag}"), *id);
        }
        let finished = number(job, "finished_at");
        match status {
            "failed" => _ = add("{threadq}:dlq_queue".to_owned(), finished),
            "completed" => _ = add("{threadq}:completed".to_owned(), 0),
            "cancelled" => _ = add("{threadq}:done".to_owned(), finished),
            _ => {}
        }
    }
    let mut found: BTreeMap<String, BTreeSet<(u64, u64)>> = BTreeMap::new();
    let completed: Vec<u64> = eye.insist(redis::cmd("LRANGE").arg("{threadq}:completed").arg(0).arg(-1))?;
    // A deleted job keeps its entry.
    let completed = completed.into_iter().filter(|id| jobs.contains_key(id)).map(|id| (id, 0)).collect();
    found.insert("{threadq}:completed".to_owned(), completed);
    let mut keys = scan(eye, "index:*")?;
    keys.extend(scan(eye, "type_index:*")?);
    keys.extend(scan(eye, "tag_index:*")?);
    keys.extend(["dlq_queue", "done"].map(|name| format!("{{threadq}}:{name}")));
    for key in keys {
        let pairs: Vec<(u64, u64)> =
            eye.insist(redis::cmd("ZRANGE").arg(&key).arg(0).arg(-1).arg("WITHSCORES"))?;
        if !pairs.is_empty() {
            found.insert(key, pairs.into_iter().collect());
        }
    }
    let names: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    let none = BTreeSet::new();
    for name in names {
        let (wanted, found) = (wanted.get(name).unwrap_or(&none), found.get(name).unwrap_or(&none));
        let missing: Vec<_> = wanted.difference(found).collect();
        let surplus: Vec<_> = found.difference(wanted).collect();
        if !missing.is_empty() || !surplus.is_empty() {
            report.wrong(format!("{name} lacks {missing:?} and has {surplus:?} in excess"));
            report.offenders.extend(missing.iter().chain(&surplus).map(|(id, _)| *id));
        }
    }
    Ok(())
}

/// The API must list every job once, newest first, with the status in Redis and the right total.
fn check_api(servers: &Servers, jobs: &HashMap<u64, Fields>, report: &mut Report) {
    let http = Http::new();
    let Some(server) = servers.running().first().copied() else {
        return report.wrong("no server runs at the end".to_owned());
    };
    let (mut seen, mut page, mut last) = (BTreeSet::new(), 1, u64::MAX);
    loop {
        let answer = match http.get(server.addr, &format!("/jobs?limit=100&page={page}")) {
            Ok(answer) if answer.status == 200 => answer.body,
            Ok(answer) => {
                return report.wrong(format!("GET /jobs, page {page}: {} {}", answer.status, answer.body));
            }
            Err(error) => return report.wrong(format!("GET /jobs, page {page}: {error}")),
        };
        if answer["total"] != json!(jobs.len()) {
            report.wrong(format!("GET /jobs has the total {} for {} jobs", answer["total"], jobs.len()));
            return;
        }
        let listed = answer["jobs"].as_array().cloned().unwrap_or_default();
        for job in &listed {
            let id = job["id"].as_u64().unwrap_or_default();
            let status = jobs.get(&id).map(|fields| text(fields, "status"));
            if id >= last || !seen.insert(id) || job["status"].as_str() != status {
                report.wrong(format!("GET /jobs, page {page}: {job} is out of order or differs from Redis"));
            }
            last = id;
        }
        if listed.is_empty() {
            break;
        }
        page += 1;
    }
    if seen.len() != jobs.len() {
        report.wrong(format!("GET /jobs lists {} jobs of {}", seen.len(), jobs.len()));
    }
}

fn judge_events(plan: &Plan, faults: &Faults, report: &mut Report) {
    for event in faults.events() {
        let at = event.at.as_secs_f64();
        *report.faults.entry(event.what.clone()).or_default() += 1;
        match event.recovery {
            Some(time) => {
                let excuse =
                    if event.pid.is_some() && event.excused { ", Redis had a fault meanwhile" } else { "" };
                let seconds = time.as_secs_f64();
                report
                    .timeline
                    .push(format!("{at:6.1} s  {:13} recovered after {seconds:.2} s{excuse}", event.what));
                let longest = match (event.pid, event.excused) {
                    (Some(_), false) => &mut report.longest_recovery,
                    (Some(_), true) => &mut report.longest_excused,
                    (None, _) if event.what.starts_with("redis") => &mut report.longest_redis,
                    (None, _) => continue,
                };
                *longest = time.max(*longest);
                if event.pid.is_some() && time > plan.recovery_limit() && !event.excused {
                    report.wrong(format!(
                        "the recovery from the {} at {at:.1} s took {seconds:.1} s",
                        event.what
                    ));
                }
            }
            None => report.wrong(format!("there was no recovery from the {} at {at:.1} s", event.what)),
        }
    }
}

fn scan(eye: &mut Eye, pattern: &str) -> Result<Vec<String>, String> {
    let (mut cursor, mut keys) = (0_u64, BTreeSet::new());
    loop {
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(format!("{{threadq}}:{pattern}")).arg("COUNT").arg(5_000);
        let (next, found): (u64, Vec<String>) = eye.insist(&command)?;
        keys.extend(found);
        if next == 0 {
            return Ok(keys.into_iter().collect());
        }
        cursor = next;
    }
}

/// All jobs' hashes, found by SCAN and not by the indices.
fn read_jobs(eye: &mut Eye) -> Result<HashMap<u64, Fields>, String> {
    let mut jobs = HashMap::new();
    for key in scan(eye, "job:*")? {
        let id = key.rsplit(':').next().and_then(|id| id.parse().ok());
        let id: u64 = id.ok_or_else(|| format!("the key {key} has no id"))?;
        let raw: Vec<Raw> = eye.insist(redis::cmd("HGETALL").arg(&key))?;
        let word = |raw: &Raw| match raw {
            Raw::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => format!("{other:?}"),
        };
        jobs.insert(id, raw.chunks_exact(2).map(|pair| (word(&pair[0]), word(&pair[1]))).collect());
    }
    Ok(jobs)
}

fn text<'a>(job: &'a Fields, field: &str) -> &'a str {
    job.get(field).map_or("", String::as_str)
}

/// The number of attempts. A record leaves the number out if the job completed at its first attempt.
fn attempts(job: &Fields) -> u64 {
    match text(job, "status") {
        "completed" if !job.contains_key("attempts") => 1,
        _ => number(job, "attempts"),
    }
}

fn number(job: &Fields, field: &str) -> u64 {
    text(job, field).parse().unwrap_or(0)
}

/// A description of a job: its hash, its executions, and the log lines with its id.
fn describe(
    id: u64,
    jobs: &HashMap<u64, Fields>,
    executions: &Executions,
    folder: &Path,
    plan: &Plan,
) -> String {
    let job = jobs.get(&id).map_or("no hash".to_owned(), |job| json!(job).to_string());
    let mut lines = vec![format!("--- job {id}: {job}")];
    let word = format!(" {id} ");
    lines.extend(executions.lines.iter().filter(|line| line.contains(&word)).cloned());
    for number in 0..plan.servers {
        let log = fs::read_to_string(folder.join(format!("server-{number}.log"))).unwrap_or_default();
        let mentions: Vec<&str> = log.lines().filter(|line| line.contains(&id.to_string())).collect();
        let last = &mentions[mentions.len().saturating_sub(10)..];
        lines.extend(last.iter().map(|line| format!("server {number}: {line}")));
    }
    lines.join("\n")
}
