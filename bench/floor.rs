//! The program's rate beside the rate of its bare protocol with Redis.

mod common;

use common::drain::Drain;
use common::figures::print_latencies;
use common::{Bare, BenchRedis, Rounds, Server, flag, flags, print_setup};

const HELP: &str = "\
usage: cargo bench --bench floor -- [flags]

Runs the bare protocol: the same Lua scripts on the same Redis, from one or two plain threads without handlers, HTTP and
channels. In each round the program drains the same jobs too. Prints the rates, and the program's rate divided by the
faster bare drain (the floor).

  --jobs N         `echo` jobs to drain and to submit [50000]
  --payload BYTES  payload of each job [100]
  --step N         jobs taken and settled in one step [64]
  --workers N      worker threads of the program [30]
  --lone N         lone jobs whose latency is measured [1000]
  --rounds N       rounds [3]
  --aof WORD       Redis's append-only file: off, everysec or always [off]
  --program FILE   the threadq to measure [the one built with this bench]
";

fn main() {
    flags::check(HELP);
    let (jobs, payload, step) = (flag("jobs", 50_000), flag("payload", 100), flag("step", 64));
    let workers = flag("workers", 30).to_string();
    let queues = ["default".to_owned()];
    let mut redis = BenchRedis::start("floor");
    let bare = Bare::new(&redis.url());
    print_setup();

    let [mut single, mut hundred] = [Rounds::default(), Rounds::default()];
    let [mut one, mut two, mut program] = [Rounds::default(), Rounds::default(), Rounds::default()];
    for _ in 0..flag("rounds", 3) {
        redis.empty();
        single.add(bare.enqueue(jobs, payload, 1));
        redis.empty();
        hundred.add(bare.enqueue(jobs, payload, 100));
        for (rounds, threads) in [(&mut one, 1), (&mut two, 2)] {
            redis.empty();
            bare.fill(jobs, payload, &queues);
            let drain = Drain::prepare(&mut redis, &queues, jobs);
            bare.drain(threads, step);
            rounds.add(drain.rate(&mut redis));
        }
        redis.empty();
        bare.fill(jobs, payload, &queues);
        let drain = Drain::prepare(&mut redis, &queues, jobs);
        let server = Server::start(&redis.url(), &["--workers", &workers]);
        program.add(drain.rate(&mut redis));
        server.stop();
    }
    let floor = one.best(&two);
    println!("bare enqueue, 8 connections, 1 job per call     {single} jobs/s");
    println!("bare enqueue, 8 connections, 100 jobs per call  {hundred} jobs/s");
    println!("bare drain, {step} jobs per step, 1 thread           {one} jobs/s");
    println!("bare drain, {step} jobs per step, 2 threads          {two} jobs/s");
    println!("the program's drain, {workers} workers                 {program} jobs/s");
    println!("the program by the floor                        {}", program.ratio(&floor));
    redis.empty();
    print_latencies("bare lone job, submit to started", &mut bare.lone(flag("lone", 1_000)));
}
