//! The rows with one Redis: outages, restarts of servers, and several servers.

use std::time::{Duration, Instant};

use super::account;
use super::load::Answer;
use super::runs::Runs;
use super::stage::{Fault, Stage, Verdict, print, with_program};
use crate::common::{BenchRedis, Rounds, flag};
use crate::fixture::cluster::Cluster;
use crate::fixture::node::Node;
use crate::fixture::{TestServer, json};

pub fn rolling(rate: f64) -> bool {
    let redis = Node::new("");
    redis.start();
    let mut stage = Stage::start(&redis.url(), 3, &[]);
    let load = stage.warm_up(rate);
    let at = Instant::now();
    for number in 0..stage.servers.len() {
        stage.restart(number, &[]);
        std::thread::sleep(Duration::from_secs(2));
    }
    let answers: Vec<Answer> = load.stop();
    let lines = stage.log_lines();
    let mut figures = stage.figures(answers, Fault { at, over: None }, lines);
    // A connection that a server closes at its stop was in use, or is refused: the client goes to another server.
    figures.answers.retain(|answer| answer.status != 0);
    // The answers of all servers count as those of one: while one server restarts, the other two work.
    figures.answers.iter_mut().for_each(|answer| answer.server = 0);
    figures.gap = account::longest_gap(&figures.answers, 1);
    let mut verdict = Verdict::default();
    verdict.expect("0 lost", figures.account.is_complete());
    verdict.expect("0 twice", figures.account.twice.is_empty());
    verdict.expect("0 charged", figures.account.charged == 0);
    let name = format!("rolling restart of 3 servers ({} charged)", figures.account.charged);
    print(&name, "0 lost, 0 twice, 0 charged", &figures, verdict)
}

/// Measures for a minute how requests are answered while Redis cannot be used.
fn minute(name: &str, stage: &Stage, trouble: impl FnOnce()) -> bool {
    let load = stage.warm_up(20.0);
    let lines = stage.log_lines();
    let at = Instant::now();
    trouble();
    std::thread::sleep((at + Duration::from_secs(60)).saturating_duration_since(Instant::now()));
    let lines: Vec<usize> = stage.log_lines().iter().zip(lines).map(|(now, before)| now - before).collect();
    let answers = load.stop();
    // The answers of the first two seconds may be from before the trouble.
    let late = |answer: &&Answer| answer.sent > at + Duration::from_secs(2);
    let late: Vec<Answer> = answers.iter().filter(late).copied().collect();
    let (refusals, slowest) = (account::refusals(&answers), account::slowest(&answers));
    let unavailable = refusals.get(&503).copied().unwrap_or(0);
    let accepted = late.iter().filter(|answer| answer.is_accepted()).count();
    let mut verdict = Verdict::default();
    verdict.expect("503 alone", refusals.len() == 1 && unavailable > 0 && accepted == 0);
    verdict.expect("answers within 3 s", slowest <= Duration::from_millis(3_200));
    verdict.expect("3 log lines a minute", lines.iter().all(|lines| *lines <= 3));
    println!(
        "- {name}: {refusals:?} answers by status without 202, {accepted} × 202 after 2 s, the slowest {:.2} s; log lines \
         in a minute: {lines:?} (bar: 503 alone, within 3 s, ≤ 3 lines): {}",
        slowest.as_secs_f64(),
        verdict.text()
    );
    verdict.is_good()
}

pub fn killed() -> bool {
    let redis = Node::new("");
    redis.start();
    let stage = Stage::start(&redis.url(), 2, &[]);
    minute("Redis is killed", &stage, || redis.kill9())
}

pub fn frozen() -> bool {
    let redis = Node::new("");
    redis.start();
    let stage = Stage::start(&redis.url(), 2, &[]);
    let is_good = minute("Redis is frozen", &stage, || redis.pause());
    redis.resume();
    is_good
}

pub fn without_sentinels() -> bool {
    let all = crate::fixture::sentinels::Sentinels::start();
    let stage = Stage::start(&all.url(), 2, &[]);
    minute("Sentinels and Redis are killed", &stage, || {
        all.sentinels.iter().chain(&all.nodes).for_each(Node::kill9);
    })
}

pub fn moving() -> bool {
    let cluster = Cluster::start(2, 0, Duration::from_secs(2));
    let stage = Stage::start(&cluster.url(), 2, &[]);
    let slot = cluster.slot("threadq");
    minute("the slot is on its way for a minute", &stage, || {
        // The key that every script names is at the new owner, and most others are not: the move does not end.
        let moving = cluster.begin_move(slot, cluster.another_master(slot));
        moving.migrate_keys(&[b"{threadq}:servers".to_vec()]);
    })
}

pub fn stranger() -> bool {
    // The servers start before the Sentinel does: at a Sentinel that answers they would not start.
    let sentinel = Node::new_sentinel("");
    let servers = (0..2).map(|_| with_program().flag("redis-url", &sentinel.url()).start()).collect();
    let stage = Stage::of(&sentinel.url(), servers, Runs::listen());
    minute("a Sentinel is in the place of Redis", &stage, || sentinel.start())
}

/// Jobs per second of Redis's processor time with several servers, and the share of each server.
pub fn servers() -> bool {
    const MOST: usize = 3;
    let (rounds, jobs) = (flag("rounds", 3), flag("drained", 30_000));
    let mut redis = BenchRedis::start("scale");
    let mut rates: [Rounds; MOST] = Default::default();
    let mut shares: [Vec<f64>; MOST] = Default::default();
    for _ in 0..rounds {
        for number in 1..=MOST {
            let (rate, completed) = drain(&mut redis, number, jobs);
            rates[number - 1].add(rate);
            shares[number - 1].resize(number, 0.0);
            shares[number - 1].iter_mut().zip(completed).for_each(|(sum, completed)| *sum += completed);
        }
    }
    let mut is_good = true;
    for (at, (rate, sums)) in rates.iter().zip(&shares).enumerate() {
        let total: f64 = sums.iter().sum();
        let parts: Vec<f64> = sums.iter().map(|sum| sum / total).collect();
        let even = 1.0 / (at + 1) as f64;
        let ratio = rate.median() / rates[0].median();
        let mut verdict = Verdict::default();
        verdict.expect("0.85 of one server", ratio >= 0.85);
        verdict.expect("even shares", parts.iter().all(|part| (part / even - 1.0).abs() <= 0.15));
        let parts: Vec<String> = parts.iter().map(|part| format!("{:.0} %", part * 100.0)).collect();
        println!(
            "- {} servers drain {rate} jobs per second of Redis's processor time, {ratio:.2} of one server; shares {} (bar: \
             ≥ 0.85, 1/N ± 15 %): {}",
            at + 1,
            parts.join(", "),
            verdict.text()
        );
        is_good &= verdict.is_good();
    }
    is_good
}

/// Drains jobs with several servers at once. Returns jobs per second of Redis's processor time, and how many jobs each server
/// has completed.
fn drain(redis: &mut BenchRedis, number: usize, jobs: usize) -> (f64, Vec<f64>) {
    redis.empty();
    let server = |queues| {
        with_program().flag("redis-url", &redis.url()).flag("queues", queues).flag("workers", "10").start()
    };
    let servers: Vec<TestServer> = (0..number).map(|_| server("default")).collect();
    let submitter = server("none");
    // Stopped servers take no job, and all begin at the same moment.
    servers.iter().for_each(TestServer::sigstop);
    let batch = vec![json!({"type": "echo"}); 1_000];
    for _ in 0..jobs / batch.len() {
        submitter.submit_batch(&batch);
    }
    let before = redis.cpu_seconds();
    servers.iter().for_each(TestServer::sigcont);
    crate::common::drain::end_ms(redis, 0, jobs / batch.len() * batch.len());
    let used = redis.cpu_seconds() - before;
    let completed = |server: &TestServer| server.metric("threadq_jobs_completed_total{type=\"echo\"}");
    (jobs as f64 / used, servers.iter().map(completed).collect())
}

/// Commands per second of idle servers, a minute after the last job.
pub fn idle(number: usize, most: f64) -> bool {
    // An idle server looks for old jobs once a minute.
    const WINDOW: Duration = Duration::from_secs(60);
    let redis = Node::new("");
    redis.start();
    let servers: Vec<TestServer> =
        (0..number).map(|_| with_program().flag("redis-url", &redis.url()).start()).collect();
    for server in &servers {
        server.complete("echo", json!({}));
    }
    std::thread::sleep(Duration::from_secs(60));
    let mut connection = redis.connection(Duration::from_secs(5)).expect("Redis answers");
    let mut commands = || {
        let stats: String =
            ::redis::cmd("INFO").arg("commandstats").query(&mut connection).expect("INFO commandstats");
        let calls = |line: &str| -> Option<u64> {
            let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            (name != "info").then(|| figures.split(',').next().and_then(|calls| calls.parse().ok()))?
        };
        stats.lines().filter_map(calls).sum::<u64>()
    };
    let before = commands();
    std::thread::sleep(WINDOW);
    let rate = (commands() - before) as f64 / WINDOW.as_secs_f64();
    let mut verdict = Verdict::default();
    verdict.expect("few commands", rate <= most);
    println!(
        "- {number} idle servers send {rate:.1} commands/s, those inside scripts counted (bar: ≤ {most}): {}",
        verdict.text()
    );
    verdict.is_good()
}
