//! The throughput of several fetchers with a distant Redis.

mod common;

use std::time::Duration;

use common::distant::Distant;
use common::drain::Drain;
use common::{Bare, BenchRedis, Rounds, Server, flag, flags, list, print_setup, queue_names};
use serde_json::value::RawValue;
use threadq::job::NewJob;

const HELP: &str = "\
usage: cargo bench --bench distant -- [flags]

Starts a redis-server, a proxy that delays every round trip to it, and `threadq serve --demo` behind the proxy. Prints
the jobs per second of a drain by the number of fetchers: median, least and greatest of the rounds.

  --ms N               duration of a round trip in ms [20]
  --fetchers LIST      the setting `fetchers` [1,2,4,8]
  --run LIST           how long each job runs in ms; 0: `echo` jobs [0,20]
  --workers N          worker threads [30]
  --jobs N             jobs to drain [3000]
  --rounds N           rounds [3]
  --aof WORD           Redis's append-only file: off, everysec or always [off]
  --program FILE       the threadq to measure [the one built with this bench]
";

fn main() {
    flags::check(HELP);
    let mut redis = BenchRedis::start("distant");
    let round_trip = Duration::from_millis(flag("ms", 20));
    let distant = Distant::from(&redis.redis.socket(), round_trip);
    let workers = flag("workers", 30).to_string();
    print_setup();
    println!("a round trip takes {round_trip:?}; {workers} workers; jobs/s");
    let fetchers = list("fetchers", &[1, 2, 4, 8]);
    let columns = fetchers.iter().map(|number| format!("  {:>22}", format!("fetchers {number}")));
    println!("{:>8}{}", "run ms", columns.collect::<String>());
    for run in list("run", &[0, 20]) {
        print!("{run:>8}");
        for number in &fetchers {
            let rounds = measure(&mut redis, &distant, run, &workers, *number);
            print!("  {:>22}", rounds.to_string());
        }
        println!();
    }
}

fn measure(redis: &mut BenchRedis, distant: &Distant, run: u64, workers: &str, fetchers: usize) -> Rounds {
    let jobs = flag("jobs", 3_000);
    let job = match run {
        0 => NewJob::new("echo"),
        ms => {
            let payload = RawValue::from_string(format!(r#"{{"ms":{ms}}}"#)).expect("it is JSON");
            NewJob { payload, ..NewJob::new("sleep") }
        }
    };
    let mut rounds = Rounds::default();
    for _ in 0..flag("rounds", 3) {
        Bare::new(&redis.url()).fill_with(jobs, &job);
        let drain = Drain::prepare(redis, &queue_names(1), jobs);
        let server =
            Server::start(&distant.url(), &["--workers", workers, "--fetchers", &fetchers.to_string()]);
        rounds.add(drain.rate(redis));
        server.stop();
        redis.empty();
    }
    rounds
}
