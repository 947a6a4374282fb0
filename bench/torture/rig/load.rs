//! The jobs of a run, the threads that submit them, and the clients' ledger: the outcome of each submission.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::Scope;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};

use super::Plan;
use super::http::Http;
use super::limits;
use super::processes::Servers;
use super::pullers;

/// The file in the run's folder to which the programs of exec jobs write.
pub const EXECUTIONS: &str = "executions";
/// How long a submission is repeated.
const PATIENCE: Duration = Duration::from_secs(120);
/// The number of unique keys: few, so that they collide.
const UNIQUE_KEYS: usize = 40;

/// The program of exec jobs. It appends a line to the file of executions at its start and at its end, with the pid of
/// its server. Arguments: how many attempts fail; how many seconds to sleep; with a third argument it ignores SIGTERM.
const STEP: &str = r#"#!/bin/sh
[ -z "$3" ] || trap '' TERM
printf 'start %s %s %s %s\n' "$THREADQ_JOB_ID" "$PPID" "$THREADQ_ATTEMPT" "$$" >> executions
[ -z "$THREADQ_REPORT" ] || printf 'progress 0.5 half\nlog half\ncheckpoint 1\n' 1<> "$THREADQ_REPORT"
[ "$THREADQ_ATTEMPT" -gt "$1" ] || exit 1
[ "$2" = 0 ] || sleep "$2"
printf 'end %s %s %s %s\n' "$THREADQ_JOB_ID" "$PPID" "$THREADQ_ATTEMPT" "$$" >> executions
echo "$THREADQ_JOB_ID"
"#;

/// A program that stays. It writes to the file of executions as the other program does.
const STAY: &str = r#"#!/bin/sh
while read -r job; do
  id=${job#*'"id":'} attempt=${job#*'"attempt":'}
  id=${id%%,*} attempt=${attempt%%[!0-9]*}
  printf 'start %s %s %s %s\n' "$id" "$PPID" "$attempt" "$$" >> executions
  printf '{"progress":0.5,"message":"half"}\n{"log":"half"}\n{"checkpoint":1}\n'
  printf 'end %s %s %s %s\n' "$id" "$PPID" "$attempt" "$$" >> executions
  printf '{"result":null}\n'
done
"#;

/// The backoffs lie around `inline-backoff` (200 ms): a worker waits out the short ones, the long ones are parked.
const CONFIG: &str = r#"[handlers.quick]
exec = ["./step.sh", "0", "0"]
[handlers.slow]
exec = ["./step.sh", "0", "0.3"]
[handlers.long]
exec = ["./step.sh", "0", "4"]
[handlers.stubborn]
exec = ["./step.sh", "0", "7", "stubborn"]
[handlers.flaky]
exec = ["./step.sh", "1", "0"]
backoff = { base = "400ms", cap = "2s" }
[handlers.stay]
exec = ["./stay.sh"]
protocol = "lines"
processes = 3
max_jobs = 50
[handlers.fail]
backoff = { base = "400ms", cap = "2s" }
[handlers.panic]
backoff = { base = "400ms", cap = "2s" }
"#;

/// Writes the configuration file of the servers and the programs of the exec jobs.
pub fn write_handlers(folder: &Path) -> io::Result<()> {
    fs::write(folder.join("threadq.toml"), CONFIG.to_owned() + limits::CONFIG + pullers::CONFIG)?;
    for (name, text) in [("step.sh", STEP), ("stay.sh", STAY)] {
        let program = folder.join(name);
        fs::write(&program, text)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    }
    fs::write(folder.join(EXECUTIONS), "")
}

/// The end that a job must reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// Completed, after this number of attempts.
    Completed(u64),
    /// Failed by its handler, after this number of attempts.
    Failed(u64),
    /// Failed, because it ended too many servers.
    Poison,
}

/// One job of a submission.
#[derive(Clone, Debug)]
pub struct Intent {
    pub job_type: &'static str,
    /// The end that it must reach, unless it is cancelled.
    pub expect: Expect,
    /// Its result, where it is known in advance.
    pub result: Option<Value>,
}

impl Intent {
    /// Whether its program writes its runs to the file of executions.
    pub fn is_exec(&self) -> bool {
        matches!(self.job_type, "quick" | "slow" | "long" | "stubborn" | "flaky" | "stay")
    }
}

/// One POST, repeated until its outcome is known.
pub struct Submission {
    path: &'static str,
    body: String,
    pub intents: Vec<Intent>,
    /// Whether the client cancels its job later.
    cancel: bool,
    pub outcome: OnceLock<Outcome>,
}

/// The outcome of a submission.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Status 202 or 200, with these job ids.
    Accepted(Vec<u64>),
    /// The status and the body of the response.
    Refused(u16, String),
    /// No conclusive response: the jobs may be stored or not. The last error.
    Unknown(String),
}

/// All submissions of a run.
pub struct Load {
    /// In the order in which they are sent.
    pub submissions: Vec<Submission>,
    next: AtomicUsize,
    repeats: AtomicUsize,
    cancels: Mutex<HashMap<u64, u16>>,
    seed: u64,
    submitters: usize,
}

impl Load {
    /// Generates the jobs from the plan's seed.
    pub fn new(plan: &Plan) -> Load {
        let mut random = Rng::with_seed(plan.seed);
        let (mut submissions, mut jobs) = (Vec::new(), 0);
        while jobs < plan.jobs {
            let left = plan.jobs - jobs;
            let submission = match random.u32(0..100) {
                0 if left > 20 => batch(&mut random, jobs),
                1 | 2 => to_be_cancelled(&mut random, jobs),
                3..=5 => unique(&mut random, jobs),
                _ => single(job(&mut random, jobs)),
            };
            jobs += submission.intents.len();
            submissions.push(submission);
        }
        for _ in 0..plan.poison {
            // One poison job in four ends its server in every attempt.
            let (payload, expect) = match random.u32(0..4) {
                0 => (json!({}), Expect::Poison),
                _ => (json!({ "times": 1 }), Expect::Completed(1)),
            };
            let at = random.usize(0..=submissions.len());
            let intent = Intent { job_type: "exit", expect, result: None };
            submissions.insert(at, single((json!({ "type": "exit", "payload": payload }), intent)));
        }
        Load {
            submissions,
            next: AtomicUsize::new(0),
            repeats: AtomicUsize::new(0),
            cancels: Mutex::default(),
            seed: plan.seed,
            submitters: plan.submitters,
        }
    }

    /// Sends all submissions, spread evenly over `time` if the servers keep up, and repeats each until its outcome is
    /// known.
    pub fn submit_all<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        servers: &'scope Servers,
        begin: Instant,
        time: Duration,
        stop: &'scope AtomicBool,
    ) {
        let threads: Vec<_> = (0..self.submitters)
            .map(|number| scope.spawn(move || self.submit(number, servers, begin, time, stop)))
            .collect();
        for thread in threads {
            let _ = thread.join();
        }
    }

    fn submit(&self, number: usize, servers: &Servers, begin: Instant, time: Duration, stop: &AtomicBool) {
        let mut random = Rng::with_seed(self.seed ^ 0xc11e_0000 ^ number as u64);
        let http = Http::new();
        // A job is cancelled up to 1.5 s after its submission.
        let mut to_cancel: Vec<(u64, Instant)> = Vec::new();
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(submission) = self.submissions.get(index) else { break };
            let due = begin + time.mul_f64(index as f64 / self.submissions.len() as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let key = format!("torture-{}-{index}", self.seed);
            let outcome = self.send(&http, servers, &mut random, submission, &key);
            if let (true, Outcome::Accepted(ids)) = (submission.cancel, &outcome) {
                let wait = Duration::from_millis(random.u64(0..1_500));
                to_cancel.extend(ids.iter().map(|id| (*id, Instant::now() + wait)));
            }
            let _ = submission.outcome.set(outcome);
            to_cancel.retain(|(id, at)| {
                let due = *at <= Instant::now();
                if due {
                    self.cancel(&http, servers, &mut random, *id);
                }
                !due
            });
        }
        for (id, _) in to_cancel {
            self.cancel(&http, servers, &mut random, id);
        }
    }

    fn send(
        &self,
        http: &Http,
        servers: &Servers,
        random: &mut Rng,
        submission: &Submission,
        key: &str,
    ) -> Outcome {
        let end = Instant::now() + PATIENCE;
        let mut last = "no server runs".to_owned();
        while Instant::now() < end {
            let answer =
                servers.any(random).map(|server| http.post(server, submission.path, key, &submission.body));
            match answer {
                Some(Ok(answer)) => match answer.status {
                    200 | 202 => match ids(&answer.body) {
                        Some(ids) if ids.len() == submission.intents.len() => return Outcome::Accepted(ids),
                        _ => return Outcome::Refused(answer.status, format!("without ids: {}", answer.body)),
                    },
                    503 | 429 => last = format!("{}: {}", answer.status, answer.body),
                    status => return Outcome::Refused(status, answer.body.to_string()),
                },
                Some(Err(error)) => last = error,
                None => {}
            }
            self.repeats.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(random.u64(20..200)));
        }
        Outcome::Unknown(last)
    }

    fn cancel(&self, http: &Http, servers: &Servers, random: &mut Rng, id: u64) {
        for _ in 0..100 {
            let Some(server) = servers.any(random) else { continue };
            if let Ok(answer) = http.post(server, &format!("/jobs/{id}/cancel"), "", "")
                && answer.status != 503
            {
                self.cancels
                    .lock()
                    .expect("no thread panics while it holds the lock")
                    .insert(id, answer.status);
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The jobs that were accepted.
    pub fn accepted(&self) -> HashMap<u64, &Intent> {
        let mut accepted = HashMap::new();
        for submission in &self.submissions {
            if let Some(Outcome::Accepted(ids)) = submission.outcome.get() {
                accepted.extend(ids.iter().copied().zip(&submission.intents));
            }
        }
        accepted
    }

    /// The status of the response to each cancel request, by job id.
    pub fn cancels(&self) -> HashMap<u64, u16> {
        self.cancels.lock().expect("no thread panics while it holds the lock").clone()
    }

    /// How many requests were repeated.
    pub fn repeats(&self) -> usize {
        self.repeats.load(Ordering::Relaxed)
    }
}

fn ids(body: &Value) -> Option<Vec<u64>> {
    match (body["job_id"].as_u64(), body["job_ids"].as_array()) {
        (Some(id), _) => Some(vec![id]),
        (None, Some(ids)) => ids.iter().map(Value::as_u64).collect(),
        (None, None) => None,
    }
}

fn submission(path: &'static str, body: &Value, intents: Vec<Intent>) -> Submission {
    Submission { path, body: body.to_string(), intents, cancel: false, outcome: OnceLock::new() }
}

fn single((body, intent): (Value, Intent)) -> Submission {
    submission("/jobs", &body, vec![intent])
}

fn batch(random: &mut Rng, number: usize) -> Submission {
    let jobs = (0..random.usize(5..=20)).map(|i| job(random, number + i));
    let (bodies, intents): (Vec<_>, Vec<_>) = jobs.unzip();
    submission("/jobs/batch", &json!({ "jobs": bodies }), intents)
}

fn to_be_cancelled(random: &mut Rng, number: usize) -> Submission {
    let (mut body, intent) = match random.u32(0..3) {
        0 => plain("sleep", json!({ "ms": random.u32(100..1_000) }), 1, Some(Value::Null)),
        1 => plain("slow", json!({ "n": number }), 1, None),
        _ => plain("quick", json!({ "n": number }), 1, None),
    };
    if random.bool() {
        body["delay_ms"] = json!(random.u32(100..2_000));
    }
    Submission { cancel: true, ..single((body, intent)) }
}

fn unique(random: &mut Rng, number: usize) -> Submission {
    let (mut body, intent) = job(random, number);
    let key = format!("unique-{}", random.usize(0..UNIQUE_KEYS));
    match random.u32(0..4) {
        0 => body["unique"] = json!({ "key": key, "until": "start" }),
        1 => body["unique"] = json!({ "key": key, "for_ms": random.u32(1..500) }),
        _ => body["unique_key"] = json!(key),
    }
    single((body, intent))
}

fn plain(job_type: &'static str, payload: Value, attempts: u64, result: Option<Value>) -> (Value, Intent) {
    let intent = Intent { job_type, expect: Expect::Completed(attempts), result };
    (json!({ "type": job_type, "payload": payload }), intent)
}

fn to_pull((mut body, intent): (Value, Intent)) -> (Value, Intent) {
    body["queue"] = json!(pullers::QUEUE);
    (body, intent)
}

fn job(random: &mut Rng, number: usize) -> (Value, Intent) {
    let note = json!({ "n": number, "text": "\u{1f980} \"quoted\" \\ \u{0} and 0.10" });
    let (mut body, intent) = match random.u32(0..1_000) {
        0..=2 => plain("long", note, 1, None),
        3..=6 => plain("stubborn", note, 1, None),
        7..=54 => plain("slow", note, 1, None),
        55..=114 => plain("flaky", note, 2, None),
        115..=499 => plain("quick", note, 1, None),
        500..=599 => plain("sleep", json!({ "ms": random.u32(1..50) }), 1, Some(Value::Null)),
        600..=659 => {
            let times = random.u64(1..=2);
            plain("fail", json!({ "times": times }), times + 1, Some(Value::Null))
        }
        660..=699 => plain("panic", json!({ "times": 1 }), 2, Some(Value::Null)),
        700..=709 => {
            let (body, intent) = plain("fail", json!({ "permanent": true }), 1, None);
            (body, Intent { expect: Expect::Failed(1), ..intent })
        }
        710..=719 => {
            let (mut body, intent) = plain("fail", json!({ "message": "no" }), 2, None);
            body["max_attempts"] = json!(2);
            (body, Intent { expect: Expect::Failed(2), ..intent })
        }
        720..=769 => to_pull(plain("pulled", note, 1, None)),
        770..=789 => to_pull(plain("pulled flaky", note, 2, None)),
        790..=849 => plain("stay", note, 1, Some(Value::Null)),
        _ => plain("echo", note.clone(), 1, Some(note)),
    };
    if random.u32(0..100) < 8 {
        body["delay_ms"] = json!(random.u32(1..3_000));
    }
    if random.u32(0..100) < 15 {
        body["tags"] = json!(["all", format!("tag {}", random.u32(0..4))]);
    }
    if let Some(limits) = limits::choose(random) {
        body["limits"] = limits;
    }
    match random.u32(0..100) {
        // Some of these jobs expire while they wait, others while they run, and most never.
        0..3 => body["expires_in_ms"] = json!(random.u32(3_000..6_000)),
        3..9 => body["expires_in_ms"] = json!(3_600_000),
        _ => {}
    }
    (body, intent)
}
