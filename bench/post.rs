//! What a POST /jobs costs: processor time and thread switches of the server, of Redis and of the callers.

mod common;

use std::path::Path;

use common::client::{measured_load, submissions};
use common::process::usage;
use common::{
    BenchRedis, Comparison, Cost, Rounds, Server, flag, flags, list, payload, percentile, print_setup,
};

const HELP: &str = "\
usage: cargo bench --bench post -- [flags]

Prints what a POST /jobs with one job costs, sent by 1 and by 32 keep-alive clients to `threadq serve`, whose workers do
not take the jobs: the rate, p50 and p99, the µs of processor time (user and system) of the server, of Redis and of the
callers, and the thread switches of the server (how often one of its threads blocked and was woken). With --against,
every round measures another program too, and the last lines have the ratios.

  --clients N,..   numbers of keep-alive connections [1,32]
  --posts N        POSTs per round and number of clients [20000]
  --payload BYTES  payload of each job [100]
  --workers N      worker threads [30]
  --rounds N       rounds [5]
  --aof WORD       Redis's append-only file: off, everysec or always [off]
  --program FILE   the threadq to measure [the one built with this bench]
  --against FILE   another threadq to compare with
";

/// The figures of one program with one number of clients, one per round.
#[derive(Default)]
struct PostCost {
    rate: Rounds,
    p50: Rounds,
    p99: Rounds,
    server: Rounds,
    redis: Rounds,
    callers: Rounds,
    switches: Rounds,
}

impl Cost for PostCost {
    fn rows(&self) -> Vec<(&'static str, &Rounds)> {
        vec![
            ("POSTs per second", &self.rate),
            ("p50, ms", &self.p50),
            ("p99, ms", &self.p99),
            ("server, µs of CPU per POST", &self.server),
            ("Redis, µs of CPU per POST", &self.redis),
            ("callers, µs of CPU per POST", &self.callers),
            ("server, thread switches per POST", &self.switches),
        ]
    }
}

fn main() {
    flags::check(HELP);
    let mut redis = BenchRedis::start("post");
    print_setup();
    let clients = list("clients", &[1, 32]);
    let mut comparisons: Vec<_> = clients.iter().map(|clients| (clients, Comparison::of_flags())).collect();
    for _ in 0..flag("rounds", 5) {
        for (clients, programs) in &mut comparisons {
            programs.round(|program, cost| measure(&mut redis, program, **clients, cost));
        }
    }
    for (clients, programs) in &comparisons {
        programs.print(&format!("{clients} clients, "));
    }
}

/// Measures one program once.
fn measure(redis: &mut BenchRedis, program: &Path, clients: usize, cost: &mut PostCost) {
    redis.empty();
    let workers = flag("workers", 30).to_string();
    let server = Server::start_program(program, &redis.url(), &["--workers", &workers, "--queues", "other"]);
    let requests = submissions(&payload(flag("payload", 100)), &["default".to_owned()], None);
    // Opens the connections and loads the scripts.
    measured_load(server.addr(), clients, 50 * clients, &requests, || {});
    let mut samples = Vec::new();
    let posts: usize = flag("posts", 20_000);
    let mut load = measured_load(server.addr(), clients, posts, &requests, || {
        let redis = redis.cpu_seconds();
        samples.push((usage(server.pid()), redis * 1e6, usage(std::process::id())));
    });
    let [(server_before, redis_before, self_before), (server_after, redis_after, self_after)] = samples[..]
    else {
        panic!("one sample before and one after");
    };
    let per_post = |whole: f64| whole / posts as f64;
    let cpu = |before: u64, after: u64| per_post((after - before) as f64 / 1000.0);
    cost.rate.add(posts as f64 / load.time.as_secs_f64());
    cost.p50.add(percentile(&mut load.ms, 0.5));
    cost.p99.add(percentile(&mut load.ms, 0.99));
    cost.server.add(cpu(server_before.cpu_ns, server_after.cpu_ns));
    cost.redis.add(per_post(redis_after - redis_before));
    cost.callers.add(cpu(self_before.cpu_ns, self_after.cpu_ns));
    cost.switches.add(per_post((server_after.wakeups - server_before.wakeups) as f64));
}
