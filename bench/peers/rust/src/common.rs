//! Shared code of the Rust peers. ../../peer.rs describes the producer and the worker.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};

/// The payload of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Payload {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    sent: Option<u64>,
    text: String,
}

impl Payload {
    /// The payload of a no-op job.
    pub fn no_op() -> Payload {
        serde_json::from_str(&variable("PEERS_PAYLOAD")).expect("a payload")
    }

    /// The payload of a lone job that is submitted now.
    pub fn lone() -> Payload {
        Payload { sent: Some(now()), ..Payload::no_op() }
    }

    /// The job: reports the µs from the submission of a lone job to its start.
    pub fn report(&self) {
        static REPORT: OnceLock<File> = OnceLock::new();
        if let Some(sent) = self.sent {
            let took = now().saturating_sub(sent);
            let open = || OpenOptions::new().append(true).open(variable("PEERS_REPORT")).expect("a report");
            REPORT.get_or_init(open).write_all(format!("{took}\n").as_bytes()).expect("the bench reads");
        }
    }
}

/// µs of a clock that all processes share.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as u64
}

pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

pub fn is_worker() -> bool {
    std::env::args().nth(1).as_deref() == Some("worker")
}

/// The concurrency of the worker.
pub fn workers() -> usize {
    variable("PEERS_WORKERS").parse().expect("a number")
}

/// Runs the producer: calls `submit` with the word and the numbers of each line of stdin.
pub async fn produce(mut submit: impl AsyncFnMut(&str, &[usize])) {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.expect("stdin") {
        let mut words = line.split(' ');
        let way = words.next().unwrap_or_default();
        let numbers: Vec<usize> = words.map(|word| word.parse().expect("a number")).collect();
        let start = Instant::now();
        submit(way, &numbers).await;
        println!("{}", start.elapsed().as_secs_f64());
    }
}
