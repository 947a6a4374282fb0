//! What must hold at every moment: each job is in the right indexes and in exactly one list or set, and listings count
//! exactly.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use threadq::internals::queue::{Filter, Position};
use threadq::job::{JobId, Status};

use crate::fixture::Place;

struct Record {
    status: Status,
    fields: HashMap<String, String>,
}

impl Record {
    fn get(&self, field: &str) -> Option<&str> {
        self.fields.get(field).map(String::as_str)
    }

    fn kind(&self) -> &str {
        &self.fields["type"]
    }

    fn queue(&self) -> &str {
        self.get("queue").unwrap_or("default")
    }

    fn limits(&self) -> impl Iterator<Item = &str> {
        self.get("limits").unwrap_or_default().lines()
    }

    /// `held` or `sent`, and the limit for which the job waits or has waited.
    fn blocked(&self) -> Option<(&str, &str)> {
        let (state, rest) = self.get("blocked")?.split_once(' ')?;
        Some((state, rest.split_once(' ')?.1))
    }

    /// When the job became ready, in ms since 1970.
    fn ready_since(&self, id: JobId) -> u64 {
        let time = |field: &str| self.get(field).map_or(0, |ms| ms.parse().unwrap());
        (id.get() / 1000).max(time("scheduled_at")).max(time("ready_at"))
    }
}

/// Asserts that every job has exactly its entries, and that no other entry exists.
#[track_caller]
pub fn assert_sound(place: &Place) {
    let strays = find_strays(place);
    assert!(strays.is_empty(), "entries that are no job's handle: {strays:?}");
}

/// Asserts the same, except for tombstones in lists, which a take will drop. Returns the tombstones.
#[track_caller]
pub fn find_strays(place: &Place) -> Vec<(String, JobId)> {
    let jobs = read_jobs(place);
    check_indexes(place, &jobs);
    check_agenda(place, &jobs);
    check_unique_keys(place, &jobs);
    check_cancels(place, &jobs);
    check_limits(place, &jobs);
    check_logs(place, &jobs);
    let strays = check_handles(place, &jobs);
    check_listings(place, &jobs, &strays);
    strays
}

#[track_caller]
fn read_jobs(place: &Place) -> BTreeMap<JobId, Record> {
    let mut jobs = BTreeMap::new();
    for key in place.keys() {
        let Some(id) = key.strip_prefix("job:") else { continue };
        let id: JobId = id.parse().unwrap_or_else(|_| panic!("{key}"));
        let fields: HashMap<String, String> = place.redis("HGETALL", &key, &[]);
        let status: Status = fields["status"].parse().unwrap_or_else(|_| panic!("{key}: {fields:?}"));
        assert_eq!(status.is_final(), fields.contains_key("finished_at"), "finished_at of {id}: {fields:?}");
        assert!(status != Status::Processing || fields.contains_key("server"), "{id}: {fields:?}");
        jobs.insert(id, Record { status, fields });
    }
    jobs
}

#[track_caller]
fn check_indexes(place: &Place, jobs: &BTreeMap<JobId, Record>) {
    let mut found: BTreeMap<String, BTreeSet<(JobId, u64)>> = BTreeMap::new();
    let is_index =
        |key: &String| ["index:", "type_index:", "tag_index:"].iter().any(|name| key.starts_with(name));
    for key in place.keys().into_iter().filter(is_index) {
        let members: Vec<(String, f64)> = place.redis("ZRANGE", &key, &["0", "-1", "WITHSCORES"]);
        let members = members.into_iter().map(|(id, score)| (id.parse().unwrap(), score as u64)).collect();
        found.insert(key, members);
    }
    let types: Vec<String> = place.redis("ZRANGE", "types", &["0", "-1"]);
    let mut expected: BTreeMap<String, BTreeSet<(JobId, u64)>> = BTreeMap::new();
    for (id, job) in jobs {
        let word = match job.status {
            Status::Queued | Status::Processing => "ready",
            other => other.as_str(),
        };
        let (kind, entry) = (job.kind(), (*id, id.get()));
        let type_index = format!("type_index:{word}:{kind}");
        let keys = if found.get(&type_index).is_some_and(|ids| ids.contains(&entry)) {
            assert!(types.iter().any(|name| name == kind), "{id} is in the type index, {kind:?} has none");
            vec![type_index]
        } else {
            vec![format!("index:{word}"), format!("index:{word}:{kind}")]
        };
        let tags = job.get("tags").unwrap_or_default().lines().map(|tag| format!("tag_index:{word}:{tag}"));
        keys.into_iter().chain(tags).for_each(|key| _ = expected.entry(key).or_default().insert(entry));
    }
    assert_eq!(found, expected, "indexes");
}

/// Asserts that the agenda has the words that jobs need, not too late, and no other words of jobs.
#[track_caller]
fn check_agenda(place: &Place, jobs: &BTreeMap<JobId, Record>) {
    let found: Vec<(String, f64)> = place.redis("ZRANGE", "agenda", &["0", "-1", "WITHSCORES"]);
    let mut found: BTreeMap<String, f64> = found.into_iter().collect();
    found.retain(|word, _| !["tick:", "limit:", "wake:"].iter().any(|kind| word.starts_with(kind)));
    for (id, job) in jobs {
        let number = |field: &str| job.get(field).map(|text| text.parse::<f64>().unwrap());
        if job.status == Status::Processing && job.get("server") == Some("pull") {
            let (due, lease_until) = (found.remove(&format!("lease:{id}")), number("lease_until").unwrap());
            // An attempt whose timeout is over is looked at again and again until a server has settled it.
            let timeout_at = number("started_at").unwrap() + number("timeout_ms").unwrap_or(300_000.0);
            assert!(
                lease_until <= timeout_at,
                "the lease of {id} ends at {lease_until}, its time at {timeout_at}"
            );
            let is_right = due.is_some_and(|due| due == lease_until || due > timeout_at);
            assert!(is_right, "the lease of {id} ends at {lease_until}, by the agenda at {due:?}");
        }
        if let Some(expires_at) = number("expires_at").filter(|_| !job.status.is_final()) {
            let due = found.remove(&format!("expire:{id}"));
            // Nothing is to be done while an attempt runs.
            let is_right = due.map_or(job.status == Status::Processing, |due| due <= expires_at);
            assert!(is_right, "{id} ({}) expires at {expires_at}, by the agenda at {due:?}", job.status);
        }
        if let Some(retain) = number("retain_ms").filter(|_| job.status.is_final()) {
            let due = found.remove(&format!("forget:{id}"));
            let end = number("finished_at").unwrap() + retain.max(60_000.0);
            assert!(
                due.is_some_and(|due| due <= end),
                "{id} is kept until {end}, by the agenda until {due:?}"
            );
        }
    }
    assert!(found.is_empty(), "words of the agenda that no job needs: {found:?}");
}

/// Asserts that every log belongs to a job, is not too long, and ends with the line that the job names.
#[track_caller]
fn check_logs(place: &Place, jobs: &BTreeMap<JobId, Record>) {
    for key in place.keys() {
        let Some(id) = key.strip_prefix("log:") else { continue };
        let id: JobId = id.parse().unwrap();
        let job = jobs.get(&id).unwrap_or_else(|| panic!("{key} is the log of no job"));
        let last: usize = job.get("log_last").map_or(0, |text| text.parse().unwrap());
        let kept = place.list(&key).len();
        assert!(kept <= 1_000 && kept == last.min(1_000), "{id} has {kept} lines, the last one is {last}");
    }
    for (id, job) in jobs.iter().filter(|(_, job)| job.get("log_last").is_some()) {
        assert!(!place.list(&format!("log:{id}")).is_empty(), "the log of {id} is gone: {:?}", job.fields);
    }
}

#[track_caller]
fn check_unique_keys(place: &Place, jobs: &BTreeMap<JobId, Record>) {
    let mut found: BTreeMap<String, JobId> = BTreeMap::new();
    for key in place.keys().into_iter().filter(|key| key.starts_with("unique:")) {
        let id: String = place.redis("GET", &key, &[]);
        // A key that is held for a fixed time is free after that time.
        if !id.ends_with(":w") {
            found.insert(key["unique:".len()..].to_owned(), id.parse().unwrap());
        }
    }
    for (id, job) in jobs.iter().filter(|(_, job)| !job.status.is_final()) {
        let Some(key) = job.get("unique_key") else { continue };
        let ties = job.get("ties").unwrap_or_default();
        if ties.contains('W') {
            continue;
        }
        let holds = found.get(key) == Some(id);
        if ties.contains('S') {
            assert!(!holds || job.get("starts").is_none(), "{id} has started and holds {key}");
        } else {
            assert!(holds, "{id} does not hold {key}");
        }
        if holds {
            found.remove(key);
        }
    }
    assert!(found.is_empty(), "keys that no live job holds: {found:?}");
}

/// Asserts that every job with a cancel request runs, and that its server has the request.
#[track_caller]
fn check_cancels(place: &Place, jobs: &BTreeMap<JobId, Record>) {
    let mut asked = BTreeSet::new();
    for key in place.keys() {
        let Some(server) = key.strip_prefix("cancels:") else { continue };
        let beat: Option<String> = place.redis("HGET", "servers", &[server]);
        // The set of a dead server is deleted with its last job.
        if beat.is_some_and(|beat| !beat.starts_with('D')) {
            let members: Vec<String> = place.redis("SMEMBERS", &key, &[]);
            asked.extend(members.into_iter().map(|id| (server.to_owned(), id.parse::<JobId>().unwrap())));
        }
    }
    for (id, job) in jobs {
        let is_asked = job.get("cancel").is_some();
        assert!(!is_asked || job.status == Status::Processing, "{id} is {} and asked to stop", job.status);
        let server = job.get("server").unwrap_or("").to_owned();
        let told = asked.remove(&(server, *id));
        assert!(is_asked || !told, "{id} is not to be stopped, but its server is told so");
    }
    assert!(asked.is_empty(), "servers are told to stop what they do not run: {asked:?}");
}

/// Asserts that slots, kept places and waiting jobs of all limits agree with the jobs. `check_handles` checks the entries of
/// waiting jobs.
#[track_caller]
fn check_limits(place: &Place, jobs: &BTreeMap<JobId, Record>) {
    for (id, job) in jobs {
        let is_blocked = job.blocked().is_some();
        assert!(!is_blocked || job.status == Status::Queued, "{id} is {} and waits", job.status);
    }
    // By limit and queue: how many jobs keep a place.
    let mut places: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for key in place.keys() {
        if let Some(limit) = key.strip_prefix("slots:") {
            let members: Vec<(JobId, f64)> = scored(place, &key);
            for (id, score) in members {
                let job =
                    jobs.get(&id).unwrap_or_else(|| panic!("{id} has a slot of {limit}, and is no job"));
                let own = job.limits().position(|name| name == limit);
                let waits_for = job.blocked().map(|(_, name)| job.limits().position(|other| other == name));
                let state = job.blocked().map(|(state, _)| state);
                let is_right = match (score.is_finite(), job.status, state) {
                    (false, Status::Processing, None) => own.is_some(),
                    (false, Status::Queued, Some("held")) => own.is_some() && Some(own) < waits_for,
                    (true, Status::Queued, Some("sent")) => own.is_some() && Some(own) <= waits_for,
                    _ => false,
                };
                assert!(
                    is_right,
                    "{id} ({}) has a slot of {limit} until {score}: {:?}",
                    job.status, job.fields
                );
                if score.is_finite() {
                    *places.entry((limit.to_owned(), job.queue().to_owned())).or_default() += 1;
                }
            }
        }
        if let Some((queue, limit)) = key.strip_prefix("held:").and_then(|rest| rest.split_once(':')) {
            places.entry((limit.to_owned(), queue.to_owned())).or_default();
            *counts.entry(queue.to_owned()).or_default() += place.redis::<u64>("ZCARD", &key, &[]);
        }
    }
    let found: BTreeMap<String, u64> = place.redis("HGETALL", "held_count", &[]);
    assert_eq!(found, counts, "the numbers of jobs that wait for room, by queue");
    let mut found: BTreeMap<(String, String), u64> = BTreeMap::new();
    for key in place.keys() {
        let Some(limit) = key.strip_prefix("holds:") else { continue };
        let queues: Vec<(String, f64)> = place.redis("ZRANGE", &key, &["0", "-1", "WITHSCORES"]);
        found.extend(queues.into_iter().map(|(queue, number)| ((limit.to_owned(), queue), number as u64)));
    }
    assert_eq!(found, places, "the numbers of jobs that were sent on, by limit and queue");
    let waiting: BTreeSet<String> = places.into_keys().map(|(limit, _)| limit).collect();
    let found: Vec<String> = place.redis("ZRANGE", "waiting_limits", &["0", "-1"]);
    assert_eq!(BTreeSet::from_iter(found), waiting, "the limits with jobs that wait or were sent on");
    let words: Vec<String> = place.redis("ZRANGE", "agenda", &["0", "-1"]);
    let words = words.iter().filter_map(|word| word.strip_prefix("limit:")).map(str::to_owned);
    assert_eq!(words.collect::<BTreeSet<_>>(), waiting, "the limits that are looked at again");
}

fn scored(place: &Place, key: &str) -> Vec<(JobId, f64)> {
    let members: Vec<(String, f64)> = place.redis("ZRANGE", key, &["0", "-1", "WITHSCORES"]);
    members.into_iter().map(|(id, score)| (id.parse().unwrap(), score)).collect()
}

#[track_caller]
fn check_handles(place: &Place, jobs: &BTreeMap<JobId, Record>) -> Vec<(String, JobId)> {
    let mut handles: BTreeMap<JobId, Vec<String>> = BTreeMap::new();
    let mut scores: HashMap<(String, JobId), u64> = HashMap::new();
    for key in place.keys() {
        if key.starts_with("work_queue:") || key.starts_with("in_progress_queue:") || key == "completed" {
            for entry in place.list(&key) {
                let id = entry.parse().unwrap_or_else(|_| panic!("{key} holds {entry:?}"));
                handles.entry(id).or_default().push(key.clone());
            }
        } else if key.starts_with("held:") || matches!(key.as_str(), "scheduled" | "done" | "dlq_queue") {
            let members: Vec<(String, f64)> = place.redis("ZRANGE", &key, &["0", "-1", "WITHSCORES"]);
            for (id, score) in members {
                let id = id.parse().unwrap();
                handles.entry(id).or_default().push(key.clone());
                scores.insert((key.clone(), id), score as u64);
            }
        }
    }
    for (id, job) in jobs {
        let work = format!("work_queue:{}", job.queue());
        let crashed = job.get("crashes").is_some_and(|crashes| crashes != "0");
        let found = handles.get_mut(id).unwrap_or_else(|| panic!("{id} ({}) has no handle", job.status));
        let held = job.blocked().filter(|blocked| blocked.0 == "held");
        let held = held.map(|(_, limit)| format!("held:{}:{limit}", job.queue()));
        // A claimed job that is not started yet counts as queued.
        let belongs = |key: &&String| match job.status {
            Status::Queued if held.is_some() => Some(*key) == held.as_ref(),
            Status::Queued if crashed && **key == format!("{work}:suspects") => true,
            Status::Queued => **key == work || key.starts_with("in_progress_queue:"),
            Status::Processing => **key == format!("in_progress_queue:{}", job.get("server").unwrap_or("?")),
            Status::Scheduled | Status::Retrying => *key == "scheduled",
            Status::Failed => *key == "dlq_queue",
            // Jobs of older versions, and jobs that the doctor has put back, are in the sorted set.
            Status::Completed => *key == "completed" || *key == "done",
            Status::Cancelled => *key == "done",
        };
        let right = found.iter().rposition(|key| belongs(&key));
        let right = right.unwrap_or_else(|| panic!("{id} ({}) is only in {found:?}", job.status));
        let right = found.remove(right);
        let is_held = right.starts_with("held:");
        if let Some(score) = scores.remove(&(right, *id)) {
            if is_held {
                assert_eq!(score, job.ready_since(*id), "the place of {id} in the order of its limit");
                continue;
            }
            let field = if job.status.is_final() { "finished_at" } else { "scheduled_at" };
            // The janitor gives a job with a retention of its own another score.
            let is_rescored = job.status.is_final() && job.get("retain_ms").is_some();
            assert!(
                is_rescored || job.get(field) == Some(score.to_string().as_str()),
                "{field} of {id}: {score}"
            );
        }
    }
    assert!(scores.is_empty(), "sorted sets hold what does not belong there: {scores:?}");
    let left = handles.into_iter().flat_map(|(id, keys)| keys.into_iter().map(move |key| (key, id)));
    // A deleted job keeps its entry in the list of completed jobs.
    left.filter(|(key, id)| key != "completed" || jobs.contains_key(id)).collect()
}

#[track_caller]
fn check_listings(place: &Place, jobs: &BTreeMap<JobId, Record>, strays: &[(String, JobId)]) {
    let kinds: BTreeSet<&str> = jobs.values().map(Record::kind).collect();
    for status in Status::ALL.into_iter().map(Some).chain([None]) {
        for kind in kinds.iter().copied().map(Some).chain([None]) {
            let matches =
                |job: &Record| status.is_none_or(|s| s == job.status) && kind.is_none_or(|k| k == job.kind());
            let expected: Vec<JobId> =
                jobs.iter().rev().filter(|(_, job)| matches(job)).map(|(id, _)| *id).collect();
            let filter = Filter { status, job_type: kind.map(str::to_owned), ..Filter::default() };
            // Two pages, cut in the middle, show each job once.
            let half = expected.len() as u64 / 2 + 1;
            let pages = |second: &dyn Fn(Option<JobId>) -> Option<Position>| {
                let mut listed = Vec::new();
                let mut from = Some(Position::Offset(0));
                for _ in 0..2 {
                    let Some(position) = from else { break };
                    let page = place.queue.list(&filter, position, half).unwrap();
                    assert_eq!(page.total, expected.len() as u64, "total of {filter:?}");
                    listed.extend(page.jobs.into_iter().map(|job| job.id));
                    let is_last = listed.len() == expected.len();
                    assert_eq!(page.next, listed.last().copied().filter(|_| !is_last), "next of {filter:?}");
                    from = second(page.next);
                }
                listed
            };
            let by_number = pages(&|_| Some(Position::Offset(half)));
            assert_eq!(by_number, expected, "jobs of {filter:?}");
            let by_id = pages(&|next| next.map(Position::Before));
            assert_eq!(by_id, expected, "jobs of {filter:?} by id");
        }
    }
    let counts = place.queue.stats().unwrap().counts;
    for (status, count) in counts {
        let expected = jobs.values().filter(|job| job.status == status).count() as u64;
        assert_eq!(count, expected, "{status} in the statistics");
    }
    for queue in place.queue.queues(&[]).unwrap() {
        let prefix = format!("work_queue:{}", queue.name);
        let keys = [prefix.clone(), format!("{prefix}:suspects")];
        let entries: usize = keys.iter().map(|key| place.list(key).len()).sum();
        let left: Option<u64> = place.redis("HGET", &format!("tombstones:{}", queue.name), &["all"]);
        let held: Option<u64> = place.redis("HGET", "held_count", &[&queue.name]);
        let held = held.unwrap_or(0);
        let shown = (entries as u64).saturating_sub(left.unwrap_or(0)) + held;
        assert_eq!((queue.queued, queue.held), (shown, held), "queued and held in {}", queue.name);
        let stray = strays.iter().filter(|(key, _)| keys.contains(key)).count();
        let ready = jobs.values().filter(|job| job.status == Status::Queued);
        let ready = ready.filter(|job| job.queue() == queue.name).count();
        let waiting = entries - stray + held as usize;
        assert!(waiting <= ready, "{waiting} entries in {}, {ready} jobs", queue.name);
    }
}
