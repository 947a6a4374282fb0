//! The jobs that version 0.4.0 makes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Client, Server, flag};
use crate::http::Http;

/// Types whose program writes the job's id to a file.
pub const COUNTED: [&str; 3] = ["a:b \"q\" {c}", "completed:echo", "\u{1f980}\u{1f980}"];
const YEAR_MS: u64 = 31_536_000_000;
/// The most bytes of a batch.
const MOST_BYTES: usize = 800_000;

/// What was submitted.
#[derive(Default)]
pub struct Made {
    pub ids: BTreeSet<u64>,
    /// Jobs of the types [`COUNTED`].
    pub counted: BTreeSet<u64>,
    /// Unique keys of queued jobs.
    pub unique: BTreeMap<String, u64>,
    /// Idempotency keys, each with the body of its request and the job.
    pub idempotent: BTreeMap<String, (String, u64)>,
}

/// The configuration of all servers.
pub fn config(runs: &Path) -> String {
    let mut text = "[handlers.fail]\nbackoff = { base = \"300d\", cap = \"300d\" }\n".to_owned();
    for job_type in COUNTED {
        let name = job_type.replace('"', "\\\"");
        let program = format!("echo $THREADQ_JOB_ID >> {}; sleep 0.1", runs.display());
        text += &format!("[handlers.\"{name}\"]\nexec = [\"/bin/sh\", \"-c\", \"{program}\"]\n");
    }
    text
}

/// Makes jobs in all states. `start_deadly` starts a server that a job kills.
pub fn jobs(server: &Server, runs: &Path, start_deadly: impl Fn() -> Server) -> Made {
    std::fs::write(runs, "").expect("a file");
    let (mut made, mut client) = (Made::default(), server.client());
    let jobs: usize = flag("jobs", 100_000);
    let counted = (jobs / 100).clamp(9, 600);
    let counted_in = |queue: &'static str, number: usize| {
        (0..number)
            .map(move |i| json!({"type": COUNTED[i % COUNTED.len()], "queue": queue, "payload": payload(i)}))
    };
    let ids = made.submit(&mut client, counted_in("default", counted / 2));
    made.counted.extend(ids);
    let ids = made.submit(&mut client, counted_in("later", counted - counted / 2));
    made.counted.extend(ids);
    let echo = |i: usize, queue: &str| json!({"type": "echo", "queue": queue, "payload": payload(i)});
    made.submit(&mut client, (0..jobs / 2).map(|i| echo(i, "default")));
    made.submit(&mut client, (0..jobs / 20).map(|_| json!({"type": "fail", "payload": {"permanent": true}})));
    made.submit(&mut client, (0..jobs / 50).map(|_| json!({"type": "fail", "payload": {"times": 99}})));
    made.submit(&mut client, (0..100).map(|_| json!({"type": "panic", "payload": {"times": 1}})));
    let scheduled =
        |i| json!({"type": "echo", "payload": payload(i), "delay_ms": YEAR_MS, "max_attempts": 7});
    made.submit(&mut client, (0..jobs / 10).map(scheduled));
    let cancelled = made.submit(&mut client, (0..(jobs / 30).min(3_000)).map(|i| echo(i, "side")));
    for id in cancelled {
        client.json("POST", &format!("/jobs/{id}/cancel"), "");
    }
    made.submit(&mut client, (0..jobs / 10).map(|i| echo(i, "side")));
    let with_key =
        |i| json!({"type": "echo", "queue": "later", "payload": payload(i), "unique_key": format!("u-{i}")});
    let ids = made.submit(&mut client, (0..jobs / 100).map(with_key));
    made.unique.extend(ids.iter().enumerate().map(|(i, id)| (format!("u-{i}"), *id)));
    let http = Http::new();
    for i in 0..50 {
        let (key, body) = (format!("once-{i}"), echo(i, "later").to_string());
        let answer = http.post(server.addr(), "/jobs", &key, &body).expect("an answer");
        let id = answer.body["job_id"].as_u64().expect("an id");
        made.ids.insert(id);
        made.idempotent.insert(key, (body, id));
    }
    // Each start of the job kills its server; after the second one the job is quarantined.
    made.submit(
        &mut client,
        [json!({"type": "exit", "queue": "deadly", "payload": {"times": 2}})].into_iter(),
    );
    let others = (0..5).map(|i| json!({"type": "sleep", "queue": "deadly", "payload": {"ms": 1500 + i}}));
    made.submit(&mut client, others);
    for _ in 0..2 {
        let deadly = start_deadly();
        wait("the death of a server", || TcpStream::connect(deadly.addr()).is_err());
        drop(deadly);
        wait("the end of its lease", || {
            client.json("GET", "/stats", "")["servers"].as_array().map(Vec::len) == Some(1)
        });
        wait("its jobs", || client.json("GET", "/stats", "")["counts"]["processing"] == 0);
    }
    let rest = jobs.saturating_sub(made.ids.len());
    made.submit(&mut client, (0..rest).map(|i| echo(i, "later")));
    wait("the jobs of the first queue", || {
        let stats = client.json("GET", "/stats", "");
        let queue =
            stats["queues"].as_array().expect("queues").iter().find(|queue| queue["name"] == "default");
        stats["counts"]["processing"] == 0 && queue.is_none_or(|queue| queue["queued"] == 0)
    });
    made
}

impl Made {
    /// Submits jobs that run during the upgrade, and jobs behind these.
    pub fn running(&mut self, client: &mut Client) {
        self.submit(client, (0..30).map(|_| json!({"type": "sleep", "payload": {"ms": 3000}})));
        let counted = (0..200).map(|i| json!({"type": COUNTED[i % COUNTED.len()], "payload": payload(i)}));
        let ids = self.submit(client, counted);
        self.counted.extend(ids);
        self.submit(client, (0..500).map(|i| json!({"type": "echo", "payload": payload(i)})));
    }

    fn submit(&mut self, client: &mut Client, jobs: impl Iterator<Item = Value>) -> Vec<u64> {
        let (mut ids, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut send = |batch: &mut Vec<String>| {
            if batch.is_empty() {
                return;
            }
            let answer = client.json("POST", "/jobs/batch", &format!("{{\"jobs\":[{}]}}", batch.join(",")));
            ids.extend(answer["job_ids"].as_array().expect("ids").iter().filter_map(Value::as_u64));
            batch.clear();
        };
        for job in jobs {
            let text = job.to_string();
            bytes += text.len();
            if bytes > MOST_BYTES || batch.len() == 1_000 {
                send(&mut batch);
                bytes = text.len();
            }
            batch.push(text);
        }
        send(&mut batch);
        self.ids.extend(&ids);
        ids
    }
}

/// Payloads that are short, split into few and into many fields, and large.
fn payload(i: usize) -> Value {
    let bytes = match i % 500 {
        7 => 20_000,
        n if n % 10 == 3 => 1_000,
        n if n % 3 == 1 => 200,
        _ => 1,
    };
    json!({"n": i, "text": "\u{e9}".repeat(bytes / 2)})
}

fn wait(what: &str, mut is_done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(300);
    while !is_done() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}
