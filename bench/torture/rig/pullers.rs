//! Pull workers: threads that take jobs over HTTP, report, and answer. Some answer too late, and some vanish with their jobs.
//! Their ledger has what they were answered.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};

use super::Plan;
use super::audit::Fields;
use super::http::{Answer, Http};
use super::processes::Servers;
use super::report::Report;

/// The queue from which only pull workers take.
pub const QUEUE: &str = "outside";
/// How long a pull worker has a job without a sign of life.
const LEASE: Duration = Duration::from_secs(2);

/// Part of the configuration file of the servers.
pub const CONFIG: &str = r#"
[handlers.pulled]
pull = true
[handlers."pulled flaky"]
pull = true
backoff = { base = "400ms", cap = "2s" }
"#;

/// A response of the API to a pull worker.
struct Answered {
    job: u64,
    token: String,
    verdict: &'static str,
    status: u16,
    body: Value,
}

/// The pull workers of a run.
pub struct Pullers {
    seed: u64,
    is_over: AtomicBool,
    /// The number of the worker that got each attempt.
    given: Mutex<HashMap<String, usize>>,
    answers: Mutex<Vec<Answered>>,
    /// What no pull worker should see.
    wrong: Mutex<Vec<String>>,
}

impl Pullers {
    pub fn new(plan: &Plan) -> Pullers {
        Pullers {
            seed: plan.seed,
            is_over: AtomicBool::new(false),
            given: Mutex::default(),
            answers: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    /// Takes and runs jobs until [`Pullers::end`].
    pub fn work(&self, number: usize, servers: &Servers) {
        let mut random = Rng::with_seed(self.seed ^ 0x9011_0000 ^ number as u64);
        let http = Http::new();
        while !self.is_over.load(Ordering::Relaxed) {
            let body = json!({
                "queues": [QUEUE], "max": random.usize(1..=3), "wait_ms": 1_000, "lease_ms": LEASE.as_millis() as u64,
                "worker": format!("puller-{number}"),
            });
            let Some(answer) = self.ask(&http, servers, &mut random, "/pull", &body) else { return };
            if answer.status != 200 {
                self.note(format!("a pull was answered with {}: {}", answer.status, answer.body));
                continue;
            }
            for job in answer.body["jobs"].as_array().into_iter().flatten() {
                let token = job["token"].as_str().unwrap_or_default().to_owned();
                let before = self
                    .given
                    .lock()
                    .expect("no thread panics while it holds the lock")
                    .insert(token, number);
                if let Some(other) = before {
                    self.note(format!("worker {number} got an attempt that worker {other} had: {job}"));
                }
            }
            for job in answer.body["jobs"].as_array().into_iter().flatten() {
                if !self.run(&http, servers, &mut random, job) {
                    break;
                }
            }
        }
    }

    /// Runs a job. Returns false if the worker has vanished, with all its jobs.
    fn run(&self, http: &Http, servers: &Servers, random: &mut Rng, job: &Value) -> bool {
        let token = job["token"].as_str().unwrap_or_default();
        let is_first = job["attempts"] == json!(0);
        let (mut verdict, mut body) = ("complete", json!({"result": {"token": token}}));
        match random.u32(0..100) {
            0..2 => return false,
            2..4 => std::thread::sleep(LEASE.mul_f64(1.6)),
            4..7 => (verdict, body) = ("release", json!({})),
            7..10 => (verdict, body) = ("release", json!({"delay_ms": 1_000})),
            10..30 => {
                let report = json!({
                    "progress": {"value": random.f64(), "message": "under way"},
                    "log": ["one", "two"],
                    "checkpoint": {"token": token},
                });
                self.answer(http, servers, random, job, "report", &report);
            }
            _ => {}
        }
        if verdict == "complete" && is_first && job["type"] == "pulled flaky" {
            (verdict, body) = ("fail", json!({"error": "not yet"}));
        }
        self.answer(http, servers, random, job, verdict, &body);
        if random.u32(0..10) == 0 {
            // As after a lost reply.
            self.answer(http, servers, random, job, verdict, &body);
        }
        true
    }

    fn answer(
        &self,
        http: &Http,
        servers: &Servers,
        random: &mut Rng,
        job: &Value,
        verdict: &'static str,
        body: &Value,
    ) {
        let token = job["token"].as_str().unwrap_or_default().to_owned();
        let path = match verdict {
            "report" => format!("/attempts/{token}"),
            verdict => format!("/attempts/{token}/{verdict}"),
        };
        let Some(answer) = self.ask(http, servers, random, &path, body) else { return };
        let answered = Answered {
            job: job["id"].as_u64().unwrap_or_default(),
            token,
            verdict,
            status: answer.status,
            body: answer.body,
        };
        self.answers.lock().expect("no thread panics while it holds the lock").push(answered);
    }

    /// Asks servers until one answers; `None` at the end of the run.
    fn ask(
        &self,
        http: &Http,
        servers: &Servers,
        random: &mut Rng,
        path: &str,
        body: &Value,
    ) -> Option<Answer> {
        while !self.is_over.load(Ordering::Relaxed) {
            let answer =
                servers.any(random).and_then(|server| http.post(server, path, "", &body.to_string()).ok());
            if let Some(answer) = answer.filter(|answer| answer.status != 503) {
                return Some(answer);
            }
            std::thread::sleep(Duration::from_millis(random.u64(20..200)));
        }
        None
    }

    fn note(&self, what: String) {
        self.wrong.lock().expect("no thread panics while it holds the lock").push(what);
    }

    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// No late answer has changed a job, and no answer that was accepted was forgotten.
    pub fn judge(&self, plan: &Plan, jobs: &HashMap<u64, Fields>, report: &mut Report) {
        let wrong = self.wrong.lock().expect("no thread panics while it holds the lock");
        wrong.iter().for_each(|what| report.wrong(what.clone()));
        let answers = self.answers.lock().expect("no thread panics while it holds the lock");
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        for Answered { job, token, verdict, status, body } in answers.iter() {
            *numbers.entry(format!("{verdict} {status}")).or_default() += 1;
            let is_expected = *status == 200 || (*status == 409 && body["code"] == "stale_attempt");
            let fields = jobs.get(job);
            let has_result =
                fields.and_then(|fields| fields.get("result")).is_some_and(|text| text.contains(token));
            // With another `fsync` Redis may forget what it has answered.
            let is_kept = plan.fsync != "always" || *verdict != "complete" || has_result == (*status == 200);
            if !is_expected || !is_kept {
                report.wrong(format!("{verdict} of {token} was answered with {status} {body}: {fields:?}"));
                report.offenders.insert(*job);
            }
        }
        let shown: Vec<String> = numbers.iter().map(|(what, number)| format!("{number} {what}")).collect();
        report.notes.push(format!("answers to pull workers: {}", shown.join(", ")));
    }
}
