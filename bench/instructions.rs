//! The processor instructions that Redis executes per job, counted by callgrind.

mod common;

use std::process::ExitCode;
use std::time::Duration;

use common::callgrind::{Count, CountedRedis};
use common::{Bare, flag, flags, is_set};
use threadq::internals::queue::{Lease, ServerId, Settlement, Verdict};
use threadq::job::{Job, NewJob};

const HELP: &str = "\
usage: cargo bench --bench instructions -- [flags]

Starts redis-server under `valgrind --tool=callgrind`, runs the queue's scripts through the library from one thread, and
prints how many instructions Redis executes per job: Lua, commands, and the handling of the socket. The counts do not
depend on the speed of the machine, so two runs with the same flags can be compared. Two runs of one build differ by less
than 1 %.

Before each phase `callgrind_control --zero` resets callgrind's counters; after the phase `callgrind_control --dump`
writes them to a file. Connections, the loading of the scripts and the registration of servers are outside the phases.
A server takes 60 jobs in two calls and settles them afterwards, so that the list of its jobs has its usual length. The
indexes grow with --jobs: compare only runs with the same number.

Exit code 3: valgrind is missing.

  --jobs N         jobs per phase, rounded up to a multiple of 300 [3000]
  --payload BYTES  payload of each job, and its result [100]
  --profile        also print the 25 functions of redis-server with the most instructions, per phase; a redis-server
                   without symbols has addresses in place of some names
";

/// Jobs per call of the batch.
const BATCH: usize = 100;
/// Jobs per call of a take and of a settlement of many.
const STEP: usize = 30;
/// Jobs that a server takes before it settles them.
const PER_SERVER: usize = 2 * STEP;

fn main() -> ExitCode {
    flags::check(HELP);
    if !common::callgrind::is_installed() {
        return ExitCode::from(3);
    }
    let (jobs, payload) = (flag("jobs", 3_000_usize), flag("payload", 100));
    let jobs = jobs.max(1).next_multiple_of(300);
    let defaults = common::bare::echo(payload, "default");
    let set = NewJob {
        max_attempts: 3,
        timeout: Duration::from_secs(60),
        ..common::bare::echo(payload, "reports")
    };
    let mut redis = CountedRedis::start(is_set("profile"));
    let bare = Bare::new(&redis.url());
    println!("instructions of redis-server per job; {jobs} jobs per phase, payload {payload} bytes");
    println!("{:<32}{:>16}{:>36}", "", "default fields", "queue, max_attempts, timeout set");
    let [defaults, set] = [defaults, set].map(|job| phases(&mut redis, &bare, &job, jobs));
    for ((name, plain), (_, set)) in defaults.iter().zip(&set) {
        println!("{name:<32}{:>16.0}{:>36.0}", plain.instructions, set.instructions);
    }
    if is_set("profile") {
        for (name, count) in &defaults {
            println!("\n{name}, default fields:\n{}", count.profile);
        }
    }
    ExitCode::SUCCESS
}

/// Runs all phases with copies of one job.
fn phases(redis: &mut CountedRedis, bare: &Bare, job: &NewJob, jobs: usize) -> [(&'static str, Count); 6] {
    let queue = Phases { bare, job };
    // Afterwards all scripts are loaded, and valgrind has translated Redis's code.
    queue.submit(PER_SERVER, 1);
    queue.submit(2 * PER_SERVER, BATCH);
    queue.settle(queue.take(queue.join(PER_SERVER)), STEP, complete);
    queue.settle(queue.take(queue.join(PER_SERVER)), 1, retry);

    redis.empty();
    let enqueue_one = redis.count(jobs, || queue.submit(jobs, 1));
    redis.empty();
    let enqueue_many = redis.count(jobs, || queue.submit(jobs, BATCH));
    let servers = queue.join(jobs);
    let mut taken = Vec::new();
    let take = redis.count(jobs, || taken = queue.take(servers));
    let settle_many = redis.count(jobs, || queue.settle(taken, STEP, complete));
    redis.empty();
    queue.submit(jobs, BATCH);
    let taken = queue.take(queue.join(jobs));
    let settle_one = redis.count(jobs, || queue.settle(taken, 1, complete));
    redis.empty();
    queue.submit(jobs, BATCH);
    let taken = queue.take(queue.join(jobs));
    let retry_one = redis.count(jobs, || queue.settle(taken, 1, retry));
    redis.empty();
    [
        ("enqueue, 1 job per call", enqueue_one),
        ("enqueue, 100 jobs per call", enqueue_many),
        ("take, 30 jobs per call", take),
        ("settle, 30 jobs per call", settle_many),
        ("settle, 1 job per call", settle_one),
        ("retry, 1 job per call", retry_one),
    ]
}

/// The calls of the phases.
struct Phases<'a> {
    bare: &'a Bare,
    job: &'a NewJob,
}

/// A server, and the jobs that the server has taken.
type Taken = (ServerId, Vec<(Lease, Job)>);

impl Phases<'_> {
    fn submit(&self, jobs: usize, per_call: usize) {
        let all = vec![self.job.clone(); jobs];
        for group in all.chunks(per_call) {
            self.bare.submit(group);
        }
    }

    /// Registers the servers that take `jobs` jobs.
    fn join(&self, jobs: usize) -> Vec<ServerId> {
        (0..jobs / PER_SERVER).map(|_| self.bare.join()).collect()
    }

    /// Each server takes its jobs.
    fn take(&self, servers: Vec<ServerId>) -> Vec<Taken> {
        let take = |server: ServerId| {
            let mut jobs = Vec::new();
            while jobs.len() < PER_SERVER {
                let more = self.bare.take_from(&self.job.queue, &server, STEP.min(PER_SERVER - jobs.len()));
                assert!(!more.is_empty(), "a server has taken {} jobs of {PER_SERVER}", jobs.len());
                jobs.extend(more);
            }
            (server, jobs)
        };
        servers.into_iter().map(take).collect()
    }

    /// Each server settles its jobs, the oldest first.
    fn settle(&self, taken: Vec<Taken>, per_call: usize, verdict: fn(&Job) -> Verdict) {
        for (server, jobs) in taken {
            let settlement = |(lease, job): (Lease, Job)| Settlement { lease, verdict: verdict(&job) };
            let settlements: Vec<Settlement> = jobs.into_iter().map(settlement).collect();
            settlements.chunks(per_call).for_each(|part| self.bare.settle_as(&server, part));
        }
    }
}

/// The result is as long as the payload.
fn complete(job: &Job) -> Verdict {
    Verdict::Complete(job.payload.clone())
}

fn retry(_: &Job) -> Verdict {
    Verdict::Retry {
        error: "the handler returned an error".to_owned(),
        delay: Duration::from_secs(60),
        throttle: None,
    }
}
