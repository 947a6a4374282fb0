//! Pull workers in three languages, programs that stay, and servers, all of them killed again and again. The workers note
//! what they were answered, and the test compares these notes with the jobs.
//!
//! `THREADQ_PULL_KILLS` and `THREADQ_PULL_JOBS` make the test longer.

use crate::common::*;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};

/// The pull workers: the program that runs them, the file, and how many there are.
const LANGUAGES: [(&str, &str, usize); 3] =
    [("python3", "worker.py", 8), ("node", "worker.mjs", 6), ("sh", "worker.sh", 6)];

fn file(name: &str) -> String {
    format!("{}/tests/integration/pull_under_kills/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A pull worker; killed when dropped.
struct Worker {
    language: usize,
    name: String,
    child: Child,
}

impl Worker {
    fn start(dir: &TempDir, language: usize, name: String) -> Worker {
        let (program, script, _) = LANGUAGES[language];
        let mut command = Command::new(program);
        command.arg(file(script)).arg(dir.path()).arg(&name).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().unwrap_or_else(|e| panic!("{program} must be on PATH: {e}"));
        Worker { language, name, child }
    }

    fn restart(&mut self, dir: &TempDir) {
        self.kill9();
        *self = Worker::start(dir, self.language, self.name.clone());
    }

    fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Writes the addresses of the servers, which the workers read before each request.
fn publish(dir: &TempDir, servers: &[TestServer]) {
    let lines: String = servers.iter().map(|server| format!("http://{}\n", server.addr())).collect();
    std::fs::rename(dir.write("servers.new", &lines), dir.join("servers")).unwrap();
}

/// Job number `n`: half of the jobs only pull workers run, some only servers, and some whoever is free.
fn job(n: usize) -> Value {
    let act = match n % 40 {
        1 => "late",
        2..=5 => "fail",
        6..=7 => "release",
        8 => "snooze",
        9..=14 => "report",
        _ => "complete",
    };
    let (queue, job_type) = match n / 7 % 10 {
        0..5 => ("pull", "outside"),
        5..8 => ("mixed", "stay"),
        _ => ("default", "stay"),
    };
    json!({"type": job_type, "queue": queue, "max_attempts": 50, "payload": {"act": act, "n": n}})
}

/// What the workers noted of one attempt.
#[derive(Default)]
struct Attempt {
    workers: BTreeSet<String>,
    /// The verdicts that were sent, with or without an answer.
    sent: BTreeSet<String>,
    /// Each answer: verdict, status code, body.
    answers: Vec<(String, u64, Value)>,
}

impl Attempt {
    fn was_answered(&self, verdict: &str, code: u64) -> bool {
        self.answers
            .iter()
            .any(|(its_verdict, its_code, _)| (its_verdict.as_str(), *its_code) == (verdict, code))
    }
}

/// The attempts of each job, by their tokens.
fn read_notes(text: &str) -> BTreeMap<u64, BTreeMap<String, Attempt>> {
    let mut jobs: BTreeMap<u64, BTreeMap<String, Attempt>> = BTreeMap::new();
    for line in text.lines() {
        let note: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let word = |name: &str| note[name].as_str().unwrap_or_else(|| panic!("no {name}: {line}")).to_owned();
        let verdict = word("verdict");
        assert_ne!(verdict, "pull", "a pull was refused: {line}");
        let token = word("token");
        let id = token.split('-').next().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        let attempt = jobs.entry(id).or_default().entry(token).or_default();
        attempt.workers.insert(word("worker"));
        match note["code"].as_u64() {
            None => {
                attempt.sent.insert(verdict);
            }
            Some(code) => {
                let is_expected = code == 200 || (code == 409 && note["answer"]["code"] == "stale_attempt");
                assert!(is_expected, "{line}");
                attempt.answers.push((verdict, code, note["answer"].clone()));
            }
        }
    }
    jobs
}

#[test]
fn nothing_is_lost_and_no_late_answer_counts_while_workers_and_servers_are_killed() {
    let kills = env_number("THREADQ_PULL_KILLS", 6);
    let number = env_number("THREADQ_PULL_JOBS", 1_000);
    let redis = TestRedis::start();
    let dir = TempDir::new();
    let config = format!(
        "[handlers.stay]\nexec = {}\nprotocol = \"lines\"\nprocesses = 2\n\n\
         [handlers.outside]\npull = true\nbackoff = {{ base = \"10ms\", cap = \"50ms\" }}\n",
        json!(["python3", file("stay.py")])
    );
    let builder = TestServer::builder()
        .redis(&redis)
        .config(&config)
        .flag("queues", "default,mixed")
        .flag("workers", "3")
        .flag("lease-timeout", "2s")
        // A job may run on many killed servers and workers: none of them is to fail for it.
        .flag("max-crashes", "100");
    let mut servers: Vec<TestServer> = (0..2).map(|_| builder.start()).collect();
    publish(&dir, &servers);
    let ids = servers[0].submit_batch(&(0..number).map(job).collect::<Vec<_>>());
    let mut workers: Vec<Worker> = Vec::new();
    for (language, (program, _, count)) in LANGUAGES.iter().enumerate() {
        workers.extend((0..*count).map(|n| Worker::start(&dir, language, format!("{program}-{n}"))));
    }

    // The kills are spread over the work, not over time.
    for kill in 0..kills {
        let done = (number * kill / (kills + 1)) as u64;
        eventually(secs(300), &format!("{done} jobs are completed"), || {
            servers[0].count("completed") >= done
        });
        std::thread::sleep(ms(fastrand::u64(0..500)));
        if kill % 3 == 2 {
            let at_once = if fastrand::u8(..4) == 0 { 2 } else { 1 };
            servers.iter_mut().take(at_once).for_each(TestServer::kill9);
            servers.iter_mut().take(at_once).for_each(|victim| *victim = builder.start());
            servers.reverse();
            publish(&dir, &servers);
        } else {
            let victim = fastrand::usize(..workers.len());
            workers[victim].restart(&dir);
        }
    }
    let api = &servers[0];
    wait_until_quiet(api, secs(120 + 4 * kills as u64));
    // Late answers are still on their way.
    eventually(LIMIT, "all workers are seen", || {
        let seen = api.get("/workers").expect(200).json();
        let seen = seen["workers"].as_array().expect("workers").clone();
        let idle = |worker: &Value| worker["jobs"] == json!([]);
        seen.len() == workers.len() && seen.iter().all(idle)
    });
    std::thread::sleep(secs(3));
    workers.iter_mut().for_each(Worker::kill9);

    let outcomes = audit(&redis, api, &ids);
    assert!(outcomes.values().all(|status| status == "completed"), "{outcomes:?}");
    let doctor = builder.run("doctor");
    assert_eq!(doctor.code, Some(0), "{doctor:?}");
    let words: Vec<String> = redis.query(&["ZRANGE", "{threadq}:agenda", "0", "-1"]);
    assert!(!words.iter().any(|word| word.starts_with("lease:")), "{words:?}");
    assert_eq!(api.metric("threadq_pull_leases"), 0.0);

    let notes = read_notes(&dir.read("answers"));
    let (mut by, mut stale, mut failures) =
        (BTreeMap::<String, usize>::new(), BTreeMap::<String, usize>::new(), 0);
    for id in &ids {
        let job = api.job(*id);
        *by.entry(job["result"]["by"].as_str().unwrap_or("nobody").to_owned()).or_default() += 1;
        let attempts = notes.get(id).map(|attempts| attempts.iter().collect::<Vec<_>>()).unwrap_or_default();
        let (mut surely_failed, mut maybe_failed) = (0, 0);
        for (token, attempt) in attempts {
            assert_eq!(attempt.workers.len(), 1, "{token} was given to {:?}", attempt.workers);
            let is_result = job["result"]["token"] == token.as_str();
            for (verdict, code, answer) in &attempt.answers {
                let context = format!("{token} {verdict} {code} {answer}: {}", api::show(&job));
                match (verdict.as_str(), code) {
                    ("complete", 200) => {
                        assert!(is_result, "{context}");
                        assert_eq!(answer["status"], "completed", "{context}");
                    }
                    ("complete", _) => {
                        assert!(!is_result, "{context}");
                        // Only a lease that ended takes an attempt away from its worker.
                        assert!(job["crashes"].as_u64() > Some(0), "{context}");
                    }
                    ("fail", 200) => assert_eq!(answer["status"], "retrying", "{context}"),
                    ("release", 200) => {
                        assert!(
                            ["queued", "scheduled"].contains(&answer["status"].as_str().unwrap()),
                            "{context}"
                        );
                    }
                    _ => {}
                }
                if *code == 409 {
                    *stale.entry(verdict.clone()).or_default() += 1;
                }
            }
            surely_failed += u64::from(attempt.was_answered("fail", 200));
            maybe_failed += u64::from(attempt.sent.contains("fail"));
        }
        failures += surely_failed;
        let failed = job["attempts"].as_u64().unwrap() - 1;
        assert!(
            (surely_failed..=maybe_failed).contains(&failed),
            "{surely_failed} to {maybe_failed}: {job:#}"
        );
    }
    println!(
        "| jobs completed by | {by:?} |\n| stale answers | {stale:?} |\n| failed attempts | {failures} |"
    );
    let words = ["own", "python", "node", "shell"];
    assert!(words.iter().all(|word| by.get(*word).is_some_and(|number| *number > 0)), "{by:?}");
    assert!(stale.get("complete").is_some_and(|number| *number > 0), "no answer came late: {stale:?}");
    assert!(failures > 0);
}
