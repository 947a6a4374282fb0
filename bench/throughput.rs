//! The throughput of the program in jobs per second.

mod common;

use std::path::{Path, PathBuf};

use common::client::{load, submissions};
use common::drain::{self, Drain};
use common::plot::{Plot, Series, grouped};
use common::{Bare, BenchRedis, Rounds, Server, flag, flags, list, payload, print_setup, queue_names};

const HELP: &str = "\
usage: cargo bench --bench throughput -- [flags]

Starts a redis-server and `threadq serve --demo`, and measures `echo` jobs per second. Prints a line for each combination
of the lists: median, least and greatest of the rounds. Columns, by the words of --what:
  enqueue     POST /jobs by keep-alive clients, while no server takes the jobs
  batch       POST /jobs/batch in the same way
  drain       the jobs wait before the server starts; from the first start to the last end, by the times in Redis
  both        POST /jobs while the server runs the jobs, from the first submission to the last end
  both-batch  POST /jobs/batch in the same way

  --what LIST          columns to measure [enqueue,batch,drain,both,both-batch]
  --jobs N             jobs per measurement, limited to 512 MB of payloads [50000]
  --workers LIST       worker threads [30]
  --payload LIST       bytes of each payload [100]
  --queues LIST        number of queues; jobs are submitted to each in turn [1]
  --backlog LIST       jobs that wait when the drain begins, of which --jobs are measured; 0: as many as --jobs [0]
  --kept LIST          completed jobs in Redis when the drain begins [0]
  --clients N          keep-alive connections that submit [32]
  --batch N            jobs per batch, limited to 1 MiB per batch [100]
  --rounds N           rounds [3]
  --plot DIR           draw drain-by-workers.svg and drain-by-backlog.svg instead; --workers and --backlog are the
                       places on the x axes [1,2,4,8,16,30,64 and 10000,100000,1000000]
  --aof WORD           Redis's append-only file: off, everysec or always [off]
  --program FILE       the threadq to measure [the one built with this bench]
";

/// The limit of payload bytes per measurement.
const MOST_BYTES: usize = 512 << 20;

/// One line of the table.
#[derive(Clone, Copy)]
struct Case {
    jobs: usize,
    workers: usize,
    payload: usize,
    queues: usize,
    backlog: usize,
    kept: usize,
}

fn main() {
    flags::check(HELP);
    let mut redis = BenchRedis::start("throughput");
    print_setup();
    if common::is_set("plot") {
        plot(&mut redis, &flag("plot", PathBuf::new()));
        return;
    }
    let all = ["enqueue", "batch", "drain", "both", "both-batch"].map(str::to_owned);
    let what = list("what", &all);
    print!("{:>8} {:>7} {:>7} {:>6} {:>9} {:>9}", "jobs", "workers", "payload", "queues", "backlog", "kept");
    println!("{}  jobs/s", what.iter().map(|what| format!("  {what:>25}")).collect::<String>());
    for case in cases() {
        let Case { jobs, workers, payload, queues, backlog, kept } = case;
        print!("{jobs:>8} {workers:>7} {payload:>7} {queues:>6} {backlog:>9} {kept:>9}");
        for what in &what {
            print!("  {:>25}", measure(&mut redis, what, case).to_string());
        }
        println!();
    }
}

/// Each combination of the lists.
fn cases() -> Vec<Case> {
    let [workers, payloads] = [("workers", 30), ("payload", 100)].map(|(name, value)| list(name, &[value]));
    let [queues, backlogs, kept] = [("queues", 1), ("backlog", 0), ("kept", 0)].map(|(n, v)| list(n, &[v]));
    let mut cases = Vec::new();
    for workers in workers {
        for payload in &payloads {
            for queues in &queues {
                for backlog in &backlogs {
                    cases.extend(kept.iter().map(|kept| case(workers, *payload, *queues, *backlog, *kept)));
                }
            }
        }
    }
    cases
}

fn case(workers: usize, payload: usize, queues: usize, backlog: usize, kept: usize) -> Case {
    let jobs = flag("jobs", 50_000).min(MOST_BYTES / payload);
    // No more jobs can be drained than wait.
    let jobs = if backlog > 0 { jobs.min(backlog) } else { jobs };
    Case { jobs, workers, payload, queues, backlog: backlog.max(jobs), kept }
}

fn measure(redis: &mut BenchRedis, what: &str, case: Case) -> Rounds {
    let body = payload(case.payload);
    let batch = flag("batch", 100).min((1 << 20) / (case.payload + 100)).max(1);
    redis.empty();
    if what == "drain" {
        return drain(redis, case);
    }
    let mut rounds = Rounds::default();
    for _ in 0..flag("rounds", 3) {
        rounds.add(match what {
            "enqueue" => enqueue(redis, case, &body, None),
            "batch" => enqueue(redis, case, &body, Some(batch)),
            "both" => both(redis, case, &body, None),
            "both-batch" => both(redis, case, &body, Some(batch)),
            _ => panic!("--what: unknown word {what:?}"),
        });
        redis.empty();
    }
    rounds
}

/// Submits over HTTP to a server that takes jobs only from another queue.
fn enqueue(redis: &BenchRedis, case: Case, payload: &str, batch: Option<usize>) -> f64 {
    let server = Server::start(&redis.url(), &["--queues", "other"]);
    let requests = submissions(payload, &queue_names(case.queues), batch);
    let size = batch.unwrap_or(1);
    let number = case.jobs.div_ceil(size);
    let load = load(server.addr(), flag("clients", 32), number, &requests);
    (number * size) as f64 / load.time.as_secs_f64()
}

/// Submits over HTTP to the server that runs the jobs.
fn both(redis: &mut BenchRedis, case: Case, payload: &str, batch: Option<usize>) -> f64 {
    let server = start(redis, case);
    let requests = submissions(payload, &queue_names(case.queues), batch);
    let size = batch.unwrap_or(1);
    let number = case.jobs.div_ceil(size);
    load(server.addr(), flag("clients", 32), number, &requests);
    let end = drain::end_ms(redis, 0, number * size);
    // The first id is the time of the first submission in µs.
    drain::rate(number * size, drain::first_id(redis) / 1000, end)
}

/// Drains the backlog in each round; the completed jobs of a round stay in Redis for the next round.
fn drain(redis: &mut BenchRedis, case: Case) -> Rounds {
    let bare = Bare::new(&redis.url());
    let queues = queue_names(case.queues);
    if case.kept > 0 {
        bare.fill(case.kept, case.payload, &queues);
        let server = start(redis, case);
        drain::end_ms(redis, 0, case.kept);
        server.stop();
    }
    let mut rounds = Rounds::default();
    for _ in 0..flag("rounds", 3) {
        let waiting: usize = queues.iter().map(|queue| drain::waiting(redis, queue)).sum();
        bare.fill(case.backlog - waiting, case.payload, &queues);
        let drain = Drain::prepare(redis, &queues, case.jobs);
        let server = start(redis, case);
        rounds.add(drain.rate(redis));
        server.stop();
        if case.kept == 0 && case.backlog == case.jobs {
            redis.empty();
        }
    }
    rounds
}

fn start(redis: &BenchRedis, case: Case) -> Server {
    let (workers, queues) = (case.workers.to_string(), queue_names(case.queues).join(","));
    Server::start(&redis.url(), &["--workers", &workers, "--queues", &queues])
}

fn plot(redis: &mut BenchRedis, folder: &Path) {
    let workers = list("workers", &[1, 2, 4, 8, 16, 30, 64]);
    let cases: Vec<Case> = workers.iter().map(|workers| case(*workers, 100, 1, 0, 0)).collect();
    draw(
        folder,
        "drain-by-workers.svg",
        Plot {
            title: "Drain rate by number of workers",
            x_label: "worker threads",
            y_label: "jobs per second",
            places: workers.iter().map(usize::to_string).collect(),
            series: vec![series("no-op jobs of 100 bytes", redis, &cases)],
        },
    );
    let backlogs = list("backlog", &[10_000, 100_000, 1_000_000]);
    let waiting: Vec<Case> = backlogs.iter().map(|backlog| case(30, 100, 1, *backlog, 0)).collect();
    let kept: Vec<Case> = backlogs.iter().map(|kept| case(30, 100, 1, 0, *kept)).collect();
    draw(
        folder,
        "drain-by-backlog.svg",
        Plot {
            title: "Drain rate by number of jobs in Redis, 30 workers",
            x_label: "jobs",
            y_label: "jobs per second",
            places: backlogs.iter().map(|jobs| grouped(*jobs as f64)).collect(),
            series: vec![
                series("jobs that wait", redis, &waiting),
                series("completed jobs that are kept", redis, &kept),
            ],
        },
    );
}

fn series(name: &'static str, redis: &mut BenchRedis, cases: &[Case]) -> Series {
    let figures = cases.iter().map(|case| measure(redis, "drain", *case)).collect();
    Series { name, figures }
}

fn draw(folder: &Path, name: &str, plot: Plot) {
    for series in &plot.series {
        for (place, rounds) in plot.places.iter().zip(&series.figures) {
            println!("{place:>9} {}: {}: {rounds} {}", plot.x_label, series.name, plot.y_label);
        }
    }
    std::fs::create_dir_all(folder).expect("a folder for the plots");
    let path = folder.join(name);
    std::fs::write(&path, plot.to_svg()).expect("a plot");
    println!("{}", path.display());
}
