//! What the program uses: disk, memory, threads, CPU, and Redis's memory, CPU and commands.

mod common;
#[path = "../tests/common/slow_clients.rs"]
#[allow(dead_code)]
mod slow_clients;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::client::{load, submissions};
use common::drain;
use common::process::{Usage, reset_peak, usage};
use common::{Bare, BenchRedis, Client, Rounds, Server, client, flag, flags, payload, print_setup, server};

const HELP: &str = "\
usage: cargo bench --bench footprint -- [flags]

Prints a table: the program's size; its memory, threads, wake-ups and CPU while idle; Redis's commands while one
server and three servers are idle; its memory while busy; Redis's memory, CPU and commands per job; the time to start;
and the program's memory under the worst load that clients can cause: the peak of each phase, and the memory 15 s later.
The program is built like the other benches, not like a release. To measure a release, run `cargo build --release` and
pass --program target/release/threadq.

  --jobs N         `echo` jobs to submit and drain [100000]
  --payload BYTES  payload of each job [100]
  --workers N      worker threads [30]
  --seconds N      how long one idle server is measured, and then three of them [20]
  --starts N       starts to measure [10]
  --clients N      clients that send large bodies, or request large pages, at once [512]
  --hour SECONDS   how long one job per second is submitted [60]
  --only-worst     run only the phases of the worst load
  --commands N     how many of Redis's commands to list [12]
  --aof WORD       Redis's append-only file: off, everysec or always [off]
  --program FILE   the threadq to measure [the one built with this bench]
";

fn main() {
    flags::check(HELP);
    let mut redis = BenchRedis::start("footprint");
    print_setup();
    println!("program: {}", server::program().display());
    row("binary, stripped (limit 4.7 MB)", format!("{:.2} MB", server::stripped_size() as f64 / 1e6));
    if !flags::is_set("only-worst") {
        start(&redis);
        idle(&mut redis);
        per_job(&mut redis);
    }
    worst(&mut redis);
}

/// The time after a burst at which the memory must be back near its idle value.
const BACK_AFTER: Duration = Duration::from_secs(15);

/// Runs the phases of the worst load that clients can cause, one after the other, on one server.
fn worst(redis: &mut BenchRedis) {
    redis.empty();
    let server = server(redis);
    load(server.addr(), 1, 1, &submissions(&payload(100), &["default".to_owned()], None));
    std::thread::sleep(Duration::from_secs(3));
    let idle = usage(server.pid()).rss_kb;
    row("RSS before the worst load (limit 7 MB)", mb(idle));
    let (mut most, mut left) = (0, 0);
    let mut phase = |what: &str, work: &dyn Fn() -> String| {
        reset_peak(server.pid());
        let done = work();
        let peak = usage(server.pid()).peak_rss_kb;
        std::thread::sleep(BACK_AFTER);
        let after = usage(server.pid()).rss_kb;
        row(what, format!("{} at most, {} after 15 s; {done}", mb(peak), mb(after)));
        (most, left) = (most.max(peak), left.max(after.saturating_sub(idle)));
    };
    let (addr, clients) = (server.addr(), flag("clients", 512));
    let body = |bytes| {
        client::request("POST", "/jobs", &format!(r#"{{"type":"echo","payload":{}}}"#, payload(bytes)))
    };
    phase("100 bodies of 900 kB, 8 clients", &|| client::rush(addr, 8, 13, &body(900_000)));
    phase("8 listings of these jobs at once", &|| {
        client::rush(addr, 8, 1, &client::request("GET", "/jobs?limit=100", ""))
    });
    phase("bodies of 1 MB, all clients at once", &|| client::rush(addr, clients, 1, &body(1_000_000)));
    // No server takes from this queue: the hostile clients list queued jobs.
    let waiting = format!(r#"{{"type":"echo","queue":"unserved","payload":{}}}"#, payload(16_000));
    client::rush(addr, 8, 15, &client::request("POST", "/jobs", &waiting));
    client::rush(addr, 8, 15, &body(16_000));
    phase("pages of 3 MB, all clients at once", &|| {
        client::rush(addr, clients, 1, &client::request("GET", "/jobs?limit=100", ""))
    });
    phase("a crowd of hostile clients", &|| {
        let part = clients / 4;
        let sizes =
            slow_clients::Sizes { idle: part, slow_heads: part, slow_bodies: part, never_reading: part };
        let mut crowd = slow_clients::Crowd::gather(addr, sizes);
        while crowd.go_on() > 0 {
            std::thread::sleep(slow_clients::ROUND);
        }
        format!("slow connections closed after {:.0} s", crowd.longest_stay().as_secs_f64())
    });
    phase("one job a second", &|| {
        let mut client = Client::new(addr);
        let seconds: u64 = flag("hour", 60);
        for _ in 0..seconds {
            client.send(body(100).as_bytes());
            std::thread::sleep(Duration::from_secs(1));
        }
        format!("for {seconds} s")
    });
    row("RSS under the worst load (limit 150 MB)", mb(most));
    row("RSS above idle 15 s after a burst (limit 8 MB)", mb(left));
}

fn row(what: &str, figure: impl std::fmt::Display) {
    println!("{what:<44} {figure}");
}

fn server(redis: &BenchRedis) -> Server {
    Server::start(&redis.url(), &["--workers", &flag("workers", 30).to_string()])
}

/// Measures from the start of the process to the first response.
fn start(redis: &BenchRedis) {
    let mut ms = Rounds::default();
    for _ in 0..flag("starts", 10) {
        let before = Instant::now();
        let server = server(redis);
        assert_eq!(server.client().request("GET", "/healthz", "").0, 200);
        ms.add(before.elapsed().as_secs_f64() * 1000.0);
        server.stop();
    }
    row("start to first response, Redis running", format!("{ms} ms"));
}

fn idle(redis: &mut BenchRedis) {
    redis.empty();
    let server = idle_server(redis);
    let seconds = flag("seconds", 20.0);
    let (before, commands) = (usage(server.pid()), Snapshot::take(redis));
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let after = usage(server.pid());
    row("RSS idle (limit 7 MB)", mb(after.rss_kb));
    row("threads", after.threads);
    row("wake-ups idle", format!("{:.2} /s", (after.wakeups - before.wakeups) as f64 / seconds));
    let cpu = (after.cpu_ns - before.cpu_ns) as f64 / 1e9 / seconds * 100.0;
    row("CPU idle", format!("{cpu:.3} % of a core"));
    commands.print(redis, seconds, "idle, per second (limit 3 commands)");

    let _others = [idle_server(redis), idle_server(redis)];
    let commands = Snapshot::take(redis);
    std::thread::sleep(Duration::from_secs_f64(seconds));
    commands.print(redis, seconds, "three servers idle, per second (limit 12 commands)");
}

/// The time after the last job at which the server is idle: the last deletion of old jobs has run.
const IDLE_AFTER: Duration = Duration::from_secs(12);

/// A server that has run one job and has no job any more. A server without any job yet has not started all its threads
/// and connections.
fn idle_server(redis: &BenchRedis) -> Server {
    let server = server(redis);
    load(server.addr(), 1, 1, &submissions(&payload(100), &["default".to_owned()], None));
    std::thread::sleep(IDLE_AFTER);
    server
}

fn mb(kb: u64) -> String {
    format!("{:.1} MB", kb as f64 / 1024.0)
}

fn per_job(redis: &mut BenchRedis) {
    let (jobs, bytes) = (flag("jobs", 100_000), flag("payload", 100));
    let queues = ["default".to_owned()];
    redis.empty();
    // Redis loads the scripts and creates the indexes with the first job: that must not count per job.
    let bare = Bare::new(&redis.url());
    bare.fill(1, bytes, &queues);

    // The submission over HTTP.
    let submitter = Server::start(&redis.url(), &["--queues", "other"]);
    let (memory, before) = (redis.info("used_memory"), Snapshot::take(redis));
    load(submitter.addr(), 32, jobs, &submissions(&payload(bytes), &queues, None));
    before.print(redis, jobs as f64, &format!("POST /jobs of {jobs} jobs, per job"));
    row("RSS while jobs are submitted, 32 clients", mb(usage(submitter.pid()).peak_rss_kb));
    submitter.stop();
    let each = |memory: f64| format!("{:.0} bytes", memory / jobs as f64);
    let queued = redis.info("used_memory") - memory;
    row(&format!("Redis memory per queued job of {bytes} bytes"), each(queued));

    // The drain.
    let before = Snapshot::take(redis);
    let server = server(redis);
    let mut busy = Vec::new();
    while drain::done(redis) <= jobs * 9 / 10 {
        busy.push(usage(server.pid()));
        std::thread::sleep(Duration::from_millis(20));
    }
    drain::end_ms(redis, 0, jobs + 1);
    before.print(redis, jobs as f64, &format!("drain of {jobs} jobs, per job"));
    let last: &Usage = busy.last().expect("the drain takes longer than one look");
    row("RSS busy with the drain, at most (limit 16 MB)", mb(last.peak_rss_kb));
    server.stop();
    let kept = redis.info("used_memory") - memory;
    row(&format!("Redis memory per kept job of {bytes} bytes"), each(kept));
}

/// Redis's counters at one moment.
struct Snapshot {
    cpu: f64,
    /// Calls of each command, and µs in it.
    commands: BTreeMap<String, (f64, f64)>,
}

impl Snapshot {
    fn take(redis: &mut BenchRedis) -> Snapshot {
        let cpu = redis.cpu_seconds();
        let info: String = redis.ask(&["INFO", "commandstats"]);
        let read = |line: &str| {
            let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            let figure = |name: &str| {
                let value = figures.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
                value?.trim().parse().ok()
            };
            Some((name.to_owned(), (figure("calls")?, figure("usec")?)))
        };
        // Only this bench sends INFO.
        let commands = info.lines().filter_map(read).filter(|(name, _)| name != "info");
        Snapshot { cpu, commands: commands.collect() }
    }

    /// Prints what Redis has done since the snapshot, divided by `number` (jobs or seconds). The commands by which the
    /// bench watches a drain count too: they are too few to change the figures.
    fn print(&self, redis: &mut BenchRedis, number: f64, what: &str) {
        let now = Snapshot::take(redis);
        let since = |(name, (calls, usec)): (&String, &(f64, f64))| {
            let (calls_before, usec_before) = self.commands.get(name).copied().unwrap_or_default();
            (name.clone(), (calls - calls_before) / number, (usec - usec_before) / number)
        };
        let mut commands: Vec<(String, f64, f64)> = now.commands.iter().map(since).collect();
        commands.retain(|(_, calls, _)| *calls > 0.0);
        let is_asked = |name: &str| matches!(name, "evalsha" | "eval" | "brpoplpush");
        let asked: f64 = commands.iter().filter(|(name, ..)| is_asked(name)).map(|(_, calls, _)| calls).sum();
        let all: f64 = commands.iter().map(|(_, calls, _)| calls).sum();
        println!("{what}:");
        row("  Redis CPU", format!("{:.2} µs", (now.cpu - self.cpu) * 1e6 / number));
        row("  round trips", format!("{asked:.3}"));
        row("  commands, scripts and those inside", format!("{all:.2}"));
        commands.sort_by(|a, b| b.2.total_cmp(&a.2));
        for (name, calls, usec) in commands.iter().take(flag("commands", 12)) {
            println!("    {name:<12} {calls:>7.3} calls {usec:>8.3} µs");
        }
    }
}
