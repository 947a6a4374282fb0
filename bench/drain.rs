//! What a drained job costs: processor time and thread switches of the server, and Redis's processor time.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::client::{load, submissions};
use common::drain;
use common::process::usage;
use common::{BenchRedis, Comparison, Cost, Rounds, Server, flag, flags, payload, print_setup};

const HELP: &str = "\
usage: cargo bench --bench drain -- [flags]

Submits `echo` jobs, then starts a server that runs them. From the first tenth of the jobs to the last tenth, prints per
job: the µs of processor time of the server (user, system), the µs of Redis, and the thread switches of the server (how
often one of its threads blocked and was woken); and the rate. With --against, every round measures another program
too, and the last lines have the ratios.

  --jobs N         jobs per round [60000]
  --payload BYTES  payload of each job [100]
  --workers N      worker threads [30]
  --rounds N       rounds [5]
  --aof WORD       Redis's append-only file: off, everysec or always [off]
  --program FILE   the threadq to measure [the one built with this bench]
  --against FILE   another threadq to compare with
";

/// How many jobs one request submits.
const BATCH: usize = 500;
/// A drain that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(120);

/// The figures of one program, one per round.
#[derive(Default)]
struct DrainCost {
    rate: Rounds,
    server: Rounds,
    user: Rounds,
    system: Rounds,
    redis: Rounds,
    switches: Rounds,
}

impl Cost for DrainCost {
    fn rows(&self) -> Vec<(&'static str, &Rounds)> {
        vec![
            ("jobs per second", &self.rate),
            ("server, µs of CPU per job", &self.server),
            ("  of these in user mode", &self.user),
            ("  of these in the system", &self.system),
            ("Redis, µs of CPU per job", &self.redis),
            ("server, thread switches per job", &self.switches),
        ]
    }
}

fn main() {
    flags::check(HELP);
    let mut redis = BenchRedis::start("drain");
    print_setup();
    let mut programs = Comparison::of_flags();
    for _ in 0..flag("rounds", 5) {
        programs.round(|program, cost| measure(&mut redis, program, cost));
    }
    programs.print("");
}

/// Measures one program once. The program submits the jobs too: programs of other versions store jobs in another form.
fn measure(redis: &mut BenchRedis, program: &Path, cost: &mut DrainCost) {
    redis.empty();
    let queues = ["default".to_owned()];
    let jobs = flag("jobs", 60_000_usize).next_multiple_of(BATCH);
    let submitter = Server::start_program(program, &redis.url(), &["--queues", "other"]);
    let requests = submissions(&payload(flag("payload", 100)), &queues, Some(BATCH));
    load(submitter.addr(), 2, jobs / BATCH, &requests);
    submitter.stop();

    let workers = flag("workers", 30).to_string();
    let server = Server::start_program(program, &redis.url(), &["--workers", &workers]);
    let mut sample_at = |left: usize| {
        let end = Instant::now() + LIMIT;
        loop {
            let waiting = drain::waiting(redis, &queues[0]);
            if waiting <= left {
                let cpu = redis.cpu_seconds();
                return (waiting, Instant::now(), usage(server.pid()), cpu);
            }
            assert!(Instant::now() < end, "{waiting} jobs still wait");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let (waiting_before, begin, before, redis_before) = sample_at(jobs * 9 / 10);
    let (waiting_after, end, after, redis_after) = sample_at(jobs / 10);
    let number = (waiting_before - waiting_after) as f64;
    cost.rate.add(number / (end - begin).as_secs_f64());
    cost.server.add((after.cpu_ns - before.cpu_ns) as f64 / 1000.0 / number);
    cost.user.add((after.user_ms - before.user_ms) as f64 * 1000.0 / number);
    cost.system.add((after.system_ms - before.system_ms) as f64 * 1000.0 / number);
    cost.redis.add((redis_after - redis_before) * 1e6 / number);
    cost.switches.add((after.wakeups - before.wakeups) as f64 / number);
    server.stop();
}
