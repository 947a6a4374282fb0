//! How many jobs a second go through a server.
//!
//!     cargo bench --bench throughput -- --jobs 50000 --workers 30 --payload 100 --rounds 3
//!
//! A real server on a private Redis of its own; no-op jobs; per round: `submit` (batches of 100 over HTTP while the queue
//! is paused) and `drain` (from resuming the queue until everything is completed).

mod common;

use std::time::{Duration, Instant};

use common::{Client, Folder, flag};
use threadq::config::Config;
use threadq::server::Server;

fn main() {
    let jobs: usize = flag("jobs", 50_000);
    let workers: usize = flag("workers", 30);
    let payload: usize = flag("payload", 100);
    let rounds: usize = flag("rounds", 3);
    let batch: usize = flag("batch", 100);
    let folder = Folder::new("throughput");
    let config = Config {
        listen: "127.0.0.1:0".parse().expect("an address"),
        data_dir: folder.path().to_owned(),
        workers,
        max_queue_length: 10_000_000,
        retain_completed_max: 10_000_000,
        log_level: log::LevelFilter::Off,
        ..Config::default()
    };
    let server = Server::builder().config(config).handler("no-op", |_| Ok(())).start().expect("a server");
    let mut client = Client::new(server.addr());
    let text = "x".repeat(payload.saturating_sub(10));
    let job = format!(r#"{{"type":"no-op","payload":{{"text":"{text}"}}}}"#);
    for round in 1..=rounds {
        client.json("POST", "/queues/default/pause", "");
        let started = Instant::now();
        for _ in 0..jobs / batch {
            let jobs = vec![job.as_str(); batch].join(",");
            client.json("POST", "/jobs/batch", &format!(r#"{{"jobs":[{jobs}]}}"#));
        }
        let submitted = started.elapsed();
        client.json("POST", "/queues/default/resume", "");
        let started = Instant::now();
        loop {
            let counts = client.json("GET", "/stats", "")["counts"].clone();
            if counts["queued"] == 0 && counts["processing"] == 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let drained = started.elapsed();
        let rate = |time: Duration| jobs as f64 / time.as_secs_f64();
        println!("round {round}: submit {:.0} jobs/s, drain {:.0} jobs/s", rate(submitted), rate(drained));
    }
    let (_, hurry) = crossbeam_channel::bounded(0);
    server.shut_down(&hurry);
}
