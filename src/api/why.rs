//! GET /jobs/{id}/why: the reasons why a job does not run yet, or what became of it, for people and for programs.

use serde_json::{Value, json};

use crate::api::request::Request;
use crate::api::response::Response;
use crate::api::state::Api;
use crate::job::time::rfc3339;
use crate::job::{CancelReason, Job, JobId, Status};
use crate::queue::{LimitRoom, PULL, Place, Situation};

/// How long after a request of a pull worker its queue counts as served. A worker that waits asks every minute at least, and
/// one that works asks when its job has ended.
const PULLED_MS: u64 = 5 * 60_000;

impl Api {
    pub(super) fn why(&self, id: JobId, _request: &Request) -> Result<Response, Response> {
        let situation = self.queue.situation(id)?.ok_or_else(Response::no_such_job)?;
        let lease_ms = self.settings.lease_timeout.as_millis() as u64;
        Ok(Response::json(200, &json!({ "reasons": reasons(&situation, lease_ms) })))
    }
}

/// The reasons, the strongest reason first. A server whose last heartbeat is older than `lease_ms` counts as dead.
fn reasons(situation: &Situation, lease_ms: u64) -> Vec<Value> {
    let job = &situation.job;
    let mut reasons = Vec::new();
    match job.status {
        Status::Completed | Status::Failed | Status::Cancelled => reasons.push(ended(job)),
        Status::Processing => running(situation, lease_ms, &mut reasons),
        Status::Scheduled | Status::Retrying => {
            if situation.place == Place::None {
                reasons.push(no_entry());
            }
            reasons.push(if job.status == Status::Retrying {
                backing_off(job)
            } else {
                scheduled(situation)
            });
            blocked(situation, &mut reasons);
        }
        Status::Queued => queued(situation, &mut reasons),
    }
    if !job.status.is_final()
        && job.status != Status::Processing
        && let Some(at) = job.expires_at_ms
    {
        let at = rfc3339(at);
        let end = if job.attempts > 0 { "fails" } else { "is cancelled" };
        let sentence = format!("If no attempt has started by {at}, the job {end}.");
        reasons.push(reason("expires", sentence, json!({ "at": at })));
    }
    reasons
}

/// A reason with its own fields.
fn reason(code: &str, sentence: impl Into<String>, mut fields: Value) -> Value {
    fields["code"] = code.into();
    fields["sentence"] = sentence.into().into();
    fields
}

fn ended(job: &Job) -> Value {
    let at = job.finished_at_ms.map(rfc3339).unwrap_or_default();
    let sentence = match (job.status, job.cancel_reason) {
        (Status::Completed, _) => format!("The job was completed at {at}."),
        (Status::Failed, _) => {
            format!("The job failed at {at}. It starts again only if a person retries it.")
        }
        (_, Some(CancelReason::Expired)) => {
            format!("The job was cancelled at {at}, because no attempt had started before its expiry.")
        }
        (_, Some(CancelReason::Replaced)) => {
            format!("The job was cancelled at {at}, because a newer job replaced it.")
        }
        _ => {
            format!("The job was cancelled at {at} on request. It starts again only if a person retries it.")
        }
    };
    reason("ended", sentence, json!({ "status": job.status, "at": at }))
}

fn running(situation: &Situation, lease_ms: u64, reasons: &mut Vec<Value>) {
    let job = &situation.job;
    let server = job.server.as_deref().unwrap_or("unknown");
    if situation.place == Place::None {
        reasons.push(no_entry());
    }
    if job.server.as_deref() == Some(PULL) {
        if situation.is_stopping {
            let sentence = "The job was told to stop; its pull worker learns that with its next report.";
            reasons.push(reason("stopping", sentence, json!({})));
        }
        reasons.push(leased(job));
        return;
    }
    match situation.beat_age_ms {
        Some(age) if age < lease_ms => {}
        age => {
            let silence = age.map_or_else(String::new, |ms| format!(" for {} s", ms / 1000));
            let sentence = format!(
                "The server {server}, which runs the job, has given no sign of life{silence}: another server takes the \
                 job over."
            );
            reasons.push(reason("server_silent", sentence, json!({ "server": server, "silent_ms": age })));
        }
    }
    if situation.is_stopping {
        let sentence = "The job was told to stop, and its handler has not returned yet.";
        reasons.push(reason("stopping", sentence, json!({})));
    }
    let since = job.started_at_ms.map(rfc3339).unwrap_or_default();
    let attempt = job.attempts + 1;
    let sentence = format!(
        "The job has been running on the server {server} since {since}: attempt {attempt} of {}.",
        job.max_attempts
    );
    reasons.push(reason(
        "running",
        sentence,
        json!({ "server": server, "since": since, "attempt": attempt }),
    ));
}

/// A pull worker has the job.
fn leased(job: &Job) -> Value {
    let until = job.lease_until_ms.map(rfc3339).unwrap_or_default();
    let worker = job.worker.as_deref();
    let named = worker.map_or_else(|| "A pull worker".to_owned(), |name| format!("The pull worker {name}"));
    let (attempt, most) = (job.attempts + 1, job.max_attempts);
    let sentence = format!(
        "{named} has the job: attempt {attempt} of {most}. Unless it answers or extends its lease by {until}, the job starts \
         again."
    );
    reason("leased", sentence, json!({ "worker": worker, "until": until, "attempt": attempt }))
}

fn scheduled(situation: &Situation) -> Value {
    let job = &situation.job;
    let due = job.scheduled_at_ms.unwrap_or_default();
    let at = rfc3339(due);
    let sentence = match job.snoozes {
        _ if due <= situation.now_ms => {
            format!("The time of the job came at {at}: a server moves the job into its queue in a moment.")
        }
        0 => format!("The job waits for its time: {at}."),
        _ => format!("The handler asked to run the job again later: at {at}."),
    };
    reason("scheduled", sentence, json!({ "at": at }))
}

fn backing_off(job: &Job) -> Value {
    let at = job.scheduled_at_ms.map(rfc3339).unwrap_or_default();
    let sentence =
        format!("Attempt {} of {} failed. The job waits until {at}.", job.attempts, job.max_attempts);
    reason("backing_off", sentence, json!({ "at": at, "attempt": job.attempts, "error": job.last_error() }))
}

/// What keeps all jobs of the queue from starting.
fn blocked(situation: &Situation, reasons: &mut Vec<Value>) {
    let queue = &situation.job.queue;
    if situation.is_paused {
        let sentence = format!("The queue {queue} is paused: no job of it starts until a person resumes it.");
        reasons.push(reason("queue_paused", sentence, json!({ "queue": queue })));
    }
    if situation.takers == 0 && situation.pulled_age_ms.is_none_or(|age| age > PULLED_MS) {
        let others = match situation.servers {
            0 => "no server is alive".to_owned(),
            1 => "the living server takes from other queues".to_owned(),
            number => format!("the {number} living servers take from other queues"),
        };
        let sentence = format!(
            "No server takes jobs from the queue {queue}: {others}. No pull worker has asked for them lately."
        );
        reasons.push(reason("no_server", sentence, json!({ "queue": queue, "servers": situation.servers })));
    }
}

fn queued(situation: &Situation, reasons: &mut Vec<Value>) {
    let Situation { job, before, workers, busy, .. } = situation;
    match &situation.place {
        Place::Claimed(server) => {
            let sentence =
                format!("The server {server} has taken the job from its queue and starts it in a moment.");
            reasons.push(reason("starting", sentence, json!({ "server": server })));
        }
        Place::Queue | Place::Suspects | Place::Limit(_) => {}
        _ => reasons.push(no_entry()),
    }
    blocked(situation, reasons);
    if let Place::Limit(room) = &situation.place {
        no_room(situation, room, reasons);
        return;
    }
    if situation.place == Place::Suspects {
        let sentence = format!(
            "The job ran when a server died (crashes: {}), and its next such crash would be its last: it starts as soon as \
             a server runs no other job.",
            job.crashes
        );
        reasons.push(reason("suspect", sentence, json!({ "crashes": job.crashes })));
    } else if let Some(server) = &situation.reserved {
        let sentence = format!(
            "The server {server} starts no other job until it has run a job that must run alone, since it ran when \
             servers died."
        );
        reasons.push(reason("server_reserved", sentence, json!({ "server": server })));
    }
    if !situation.strict.is_empty() {
        let names: Vec<&str> = situation.strict.iter().map(|(name, _)| name.as_str()).collect();
        let number: u64 = situation.strict.iter().map(|(_, queued)| queued).sum();
        let sentence = match names[..] {
            [name] => format!("The jobs of the strict queue {name} start first: {number} wait there."),
            _ => format!(
                "The jobs of the strict queues {} start first: {number} wait there.",
                names.join(", ")
            ),
        };
        let queues = situation.strict.iter().map(|(name, queued)| json!({ "name": name, "queued": queued }));
        reasons.push(reason("strict_queues", sentence, json!({ "queues": queues.collect::<Vec<_>>() })));
    }
    if *before > 0 {
        let (more, jobs) = match (situation.is_more, before) {
            (true, _) => ("More than ", "jobs of its queue start"),
            (false, 1) => ("", "job of its queue starts"),
            (false, _) => ("", "jobs of its queue start"),
        };
        let sentence = format!("{more}{before} {jobs} before this job.");
        let mut fields = json!({ "jobs": before });
        if situation.is_more {
            fields["more"] = true.into();
        }
        reasons.push(reason("behind", sentence, fields));
    }
    if situation.takers > 0 && busy >= workers {
        let sentence = format!("All {workers} workers of the servers that take from its queue are busy.");
        reasons.push(reason(
            "workers_busy",
            sentence,
            json!({ "workers": workers, "servers": situation.takers }),
        ));
    }
    if reasons.is_empty() {
        reasons.push(reason(
            "next",
            "The job is the next one of its queue: it starts in a moment.",
            json!({}),
        ));
    }
}

/// What a limit without room allows.
fn no_room(situation: &Situation, room: &LimitRoom, reasons: &mut Vec<Value>) {
    let LimitRoom { limit, slots, opens_at_ms, running } = room;
    let place = situation.before + 1;
    if let Some(max) = slots
        && (opens_at_ms.is_none() || running.len() as u64 >= (*max).min(100))
    {
        let sentence = format!(
            "The limit {limit} lets {max} of its jobs run at a time, and has no room: this job is number {place} of those \
             that wait."
        );
        let fields = json!({ "limit": limit, "max": max, "running": running, "place": place });
        reasons.push(reason("limit_full", sentence, fields));
    }
    if opens_at_ms.is_some() || slots.is_none() {
        let at = rfc3339(opens_at_ms.unwrap_or(situation.now_ms));
        let sentence = format!(
            "The rate of the limit {limit} lets a job start at {at}: this job is number {place} of those that wait."
        );
        reasons.push(reason(
            "limit_rate",
            sentence,
            json!({ "limit": limit, "opens_at": at, "place": place }),
        ));
    }
}

fn no_entry() -> Value {
    let sentence = "The job has lost its place in Redis, so that no server finds it: `threadq doctor --repair` puts it back.";
    reason("no_entry", sentence, json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::testing::job;

    /// A queued job that is the next one of its queue, from which one server with a free worker takes.
    fn next() -> Situation {
        let mut job = job("{}");
        job.status = Status::Queued;
        job.queue = "mail".to_owned();
        Situation {
            now_ms: 1_000,
            job,
            is_stopping: false,
            is_paused: false,
            servers: 2,
            takers: 1,
            workers: 8,
            busy: 7,
            reserved: None,
            strict: Vec::new(),
            place: Place::Queue,
            before: 0,
            is_more: false,
            beat_age_ms: None,
            pulled_age_ms: None,
        }
    }

    /// The codes and sentences of a situation that differs in this from [`next`].
    fn told(change: impl FnOnce(&mut Situation)) -> Vec<(String, String)> {
        let mut situation = next();
        change(&mut situation);
        let text = |reason: &Value, field: &str| reason[field].as_str().unwrap().to_owned();
        reasons(&situation, 15_000)
            .iter()
            .map(|reason| (text(reason, "code"), text(reason, "sentence")))
            .collect()
    }

    fn codes(change: impl FnOnce(&mut Situation)) -> Vec<String> {
        told(change).into_iter().map(|(code, _)| code).collect()
    }

    /// The sentence of the only reason.
    fn sentence(change: impl FnOnce(&mut Situation)) -> String {
        let [(_, sentence)] = <[_; 1]>::try_from(told(change)).unwrap();
        sentence
    }

    #[test]
    fn the_strongest_reason_comes_first() {
        let all = codes(|all| {
            (all.is_paused, all.takers, all.before, all.busy) = (true, 0, 3, 8);
            all.strict = vec![("urgent".to_owned(), 2)];
            all.reserved = Some("s".to_owned());
            all.job.expires_at_ms = Some(5_000);
        });
        assert_eq!(
            all,
            ["queue_paused", "no_server", "server_reserved", "strict_queues", "behind", "expires"]
        );
        assert_eq!(codes(|_| {}), ["next"]);
        assert_eq!(codes(|full| full.busy = 8), ["workers_busy"]);
        assert_eq!(codes(|lost| lost.place = Place::None), ["no_entry"]);
        assert_eq!(codes(|delayed| delayed.job.status = Status::Scheduled), ["scheduled"]);
        let both = codes(|delayed| (delayed.job.status, delayed.is_paused) = (Status::Retrying, true));
        assert_eq!(both, ["backing_off", "queue_paused"], "it would wait after its time too");
    }

    #[test]
    fn sentences_have_the_numbers_and_names() {
        assert_eq!(sentence(|it| it.before = 1), "1 job of its queue starts before this job.");
        let many = sentence(|it| (it.before, it.is_more) = (10_000, true));
        assert_eq!(many, "More than 10000 jobs of its queue start before this job.");
        let none = sentence(|it| it.takers = 0);
        assert_eq!(
            none,
            "No server takes jobs from the queue mail: the 2 living servers take from other queues. No pull worker has asked \
             for them lately."
        );
        let none = sentence(|it| (it.takers, it.servers) = (0, 0));
        assert!(none.starts_with("No server takes jobs from the queue mail: no server is alive. "), "{none}");
        let strict = sentence(|it| it.strict = vec![("a".to_owned(), 2), ("b".to_owned(), 1)]);
        assert_eq!(strict, "The jobs of the strict queues a, b start first: 3 wait there.");
        let due = sentence(|it| (it.job.status, it.job.scheduled_at_ms) = (Status::Scheduled, Some(999)));
        assert!(due.starts_with("The time of the job came at 1970-01-01T00:00:00.999Z"), "{due}");
        let asked = sentence(|it| {
            (it.job.status, it.job.scheduled_at_ms, it.job.snoozes) = (Status::Scheduled, Some(2_000), 1);
        });
        assert_eq!(asked, "The handler asked to run the job again later: at 1970-01-01T00:00:02.000Z.");
    }

    #[test]
    fn a_limit_without_room_is_the_only_reason_of_the_server() {
        let room = |slots, opens_at_ms, running: u64| {
            let running = (1..=running).filter_map(JobId::new).collect();
            Place::Limit(LimitRoom { limit: "tenant:42".to_owned(), slots, opens_at_ms, running })
        };
        let told =
            |place: Place| told(|it| (it.place, it.before, it.busy, it.is_paused) = (place, 2, 8, true));
        let codes = |place| -> Vec<String> { told(place).into_iter().map(|(code, _)| code).collect() };
        assert_eq!(codes(room(Some(2), None, 2)), ["queue_paused", "limit_full"]);
        assert_eq!(codes(room(None, Some(5_000), 0)), ["queue_paused", "limit_rate"]);
        assert_eq!(codes(room(Some(2), Some(5_000), 1)), ["queue_paused", "limit_rate"]);
        assert_eq!(codes(room(Some(2), Some(5_000), 2)), ["queue_paused", "limit_full", "limit_rate"]);
        assert_eq!(codes(room(None, None, 0)), ["queue_paused", "limit_rate"]);
        let full = &told(room(Some(2), None, 2))[1].1;
        assert_eq!(
            full,
            "The limit tenant:42 lets 2 of its jobs run at a time, and has no room: this job is number 3 of those that wait."
        );
        let rate = &told(room(None, Some(5_000), 0))[1].1;
        assert!(
            rate.starts_with(
                "The rate of the limit tenant:42 lets a job start at 1970-01-01T00:00:05.000Z: "
            ),
            "{rate}"
        );
    }

    #[test]
    fn a_silent_server_is_named_before_the_attempt() {
        let running = |age, stops: bool| {
            codes(|it| {
                (it.job.status, it.place, it.beat_age_ms, it.is_stopping) =
                    (Status::Processing, Place::Server, age, stops);
            })
        };
        assert_eq!(running(Some(14_999), false), ["running"]);
        assert_eq!(running(Some(15_000), true), ["server_silent", "stopping", "running"]);
        assert_eq!(running(None, false), ["server_silent", "running"]);
    }

    #[test]
    fn a_job_of_a_pull_worker_has_a_lease_in_place_of_a_server() {
        let leased = |worker: Option<&str>, stops| {
            told(|it| {
                (it.job.status, it.place, it.is_stopping) = (Status::Processing, Place::Server, stops);
                it.job.server = Some("pull".to_owned());
                (it.job.worker, it.job.lease_until_ms) = (worker.map(str::to_owned), Some(5_000));
            })
        };
        let [(code, sentence)] = <[_; 1]>::try_from(leased(Some("gpu-1"), false)).unwrap();
        assert_eq!(code, "leased");
        assert!(sentence.starts_with("The pull worker gpu-1 has the job: attempt 1 of "), "{sentence}");
        assert!(sentence.contains(" by 1970-01-01T00:00:05.000Z, the job starts again."), "{sentence}");
        let told = leased(None, true);
        assert_eq!([told[0].0.as_str(), told[1].0.as_str()], ["stopping", "leased"]);
        assert!(told[1].1.starts_with("A pull worker has the job"), "{told:?}");
    }

    #[test]
    fn a_queue_of_pull_workers_needs_no_server() {
        let asked = |age| codes(|it| (it.takers, it.workers, it.busy, it.pulled_age_ms) = (0, 0, 0, age));
        assert_eq!(asked(Some(PULLED_MS)), ["next"]);
        assert_eq!(asked(Some(PULLED_MS + 1)), ["no_server"]);
        assert_eq!(asked(None), ["no_server"]);
    }

    #[test]
    fn an_end_has_its_reason() {
        let ended = |status, reason| {
            sentence(|it| {
                it.job.status = status;
                it.job.finished_at_ms = Some(0);
                it.job.cancel_reason = reason;
            })
        };
        for (status, reason, part) in [
            (Status::Completed, None, "completed"),
            (Status::Failed, None, "retries it"),
            (Status::Cancelled, Some(CancelReason::Request), "on request"),
            (Status::Cancelled, Some(CancelReason::Expired), "before its expiry"),
            (Status::Cancelled, Some(CancelReason::Replaced), "a newer job replaced it"),
        ] {
            let sentence = ended(status, reason);
            assert!(sentence.contains(part), "{sentence}");
        }
    }
}
