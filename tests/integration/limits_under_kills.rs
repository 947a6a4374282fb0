//! Limits while servers die: handlers note when they begin and end, and the test counts from these notes how many ran at
//! once.
//!
//! `THREADQ_LIMIT_KILLS` makes the test longer.

use crate::common::*;

use std::collections::{BTreeMap, BTreeSet};

/// The limits, and the most runs at once of those with slots.
const LIMITS: &str = r#"
[limits.customer]
concurrency = 1
[limits.printer]
concurrency = 3
[limits.mail]
rate = "20/s"
burst = 4
"#;
const PACE: (f64, usize) = (20.0, 4);

/// A run of a handler, with times in nanoseconds since 1970.
struct Run {
    job: u64,
    begin: u64,
    end: u64,
}

/// Notes the begin and the end of each run, and fails some runs.
fn config(runs: &std::path::Path) -> String {
    let note = |word: &str| format!("echo {word} $THREADQ_JOB_ID $$ $(date +%s%N) >> {}", runs.display());
    let script = format!("read s; {}; sleep $s; {}; [ $(($$ % 9)) -ne 0 ]", note("begin"), note("end"));
    format!(
        "{LIMITS}\n[handlers.note]\nexec = {}\nconcurrency = 7\nbackoff = {{ base = \"10ms\", cap = \"50ms\" }}\n",
        json!(["/bin/sh", "-c", script])
    )
}

/// The limits of job number `n`, and of every job of that type.
fn limits(n: usize) -> Vec<String> {
    let customer = format!("customer:{}", n % 5);
    match n % 4 {
        0 => vec![customer],
        1 => vec![customer, "printer".to_owned()],
        2 => vec!["printer".to_owned()],
        _ => vec!["mail".to_owned()],
    }
}

/// The most runs at once under a limit, if the limit has slots.
fn slots(limit: &str) -> Option<usize> {
    match limit {
        "threadq.type:note" => Some(7),
        "printer" => Some(3),
        "mail" => None,
        _ => Some(1),
    }
}

/// The queue of job number `n`: all jobs of a customer are in one queue, where their order is exact.
fn queue(n: usize) -> &'static str {
    match n % 4 {
        2 if n.is_multiple_of(3) => "second",
        _ => "default",
    }
}

fn read_runs(text: &str) -> Vec<Run> {
    let mut open = BTreeMap::new();
    let mut runs = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [word, job, process, at] = words[..] else { panic!("a cut line: {line}") };
        let at: u64 = at.parse().unwrap();
        let key = (job.parse::<u64>().unwrap(), process.to_owned());
        if word == "begin" {
            assert!(open.insert(key, at).is_none(), "{line}");
        } else {
            runs.push(Run { job: key.0, begin: open.remove(&key).expect("it began"), end: at });
        }
    }
    assert!(open.is_empty(), "runs without an end: {open:?}");
    runs.sort_by_key(|run| run.begin);
    runs
}

/// The most of these times that lie in one window of this length, both sorted and in the same unit.
fn most_within(times: &[u64], window: u64) -> usize {
    let in_window =
        |first: usize| times[first..].iter().take_while(|at| **at < times[first] + window).count();
    (0..times.len()).map(in_window).max().unwrap_or(0)
}

#[test]
fn limits_hold_while_servers_are_killed_and_no_slot_is_missing_afterwards() {
    let kills = env_number("THREADQ_LIMIT_KILLS", 15);
    let redis = TestRedis::start();
    let dir = TempDir::new();
    let builder = TestServer::builder()
        .redis(&redis)
        .config(&config(&dir.join("runs")))
        .flag("queues", "default,second")
        .flag("lease-timeout", "2s")
        // A job may run on many killed servers: none of them is to fail for it.
        .flag("max-crashes", "100");
    let observer = builder.clone().flag("queues", "nobody-submits-here").flag("workers", "1").start();
    for queue in ["default", "second"] {
        observer.act(&format!("/queues/{queue}/pause")).expect(200);
    }
    let number = 200 + 20 * kills;
    let jobs: Vec<Value> = (0..number)
        .map(|n| {
            json!({
                "type": "note", "queue": queue(n), "limits": limits(n), "max_attempts": 50,
                // Some programs outlive their killed server, and run on after the take-over of their job.
                "payload": if n.is_multiple_of(49) { 3.0 } else { f64::from(fastrand::u32(5..120)) / 1000.0 },
            })
        })
        .collect();
    let ids = observer.submit_batch(&jobs);
    let mut servers: Vec<TestServer> = (0..2).map(|_| builder.start()).collect();
    for queue in ["default", "second"] {
        observer.act(&format!("/queues/{queue}/resume")).expect(200);
    }

    // What a killed server had in its hands starts again later than the jobs behind it.
    let mut in_hands = BTreeSet::new();
    for _ in 0..kills {
        std::thread::sleep(ms(fastrand::u64(0..1_500)));
        let at_once = if fastrand::u8(..4) == 0 { 2 } else { 1 };
        for victim in servers.iter_mut().take(at_once) {
            victim.kill9();
        }
        for key in redis.keys("{threadq}:in_progress_queue:*") {
            let listed: Vec<u64> = redis.query(&["LRANGE", &key, "0", "-1"]);
            in_hands.extend(listed);
        }
        servers.iter_mut().take(at_once).for_each(|victim| *victim = builder.start());
        servers.reverse();
    }
    wait_until_quiet(&observer, secs(60 + 4 * kills as u64));

    let outcomes = audit(&redis, &observer, &ids);
    assert!(outcomes.values().all(|status| status == "completed"), "{outcomes:?}");
    eventually(LIMIT, "all keys of limits are gone", || {
        let keys = ["slots", "holds", "held", "tat", "waiting_limits", "held_count"];
        keys.iter().all(|key| redis.keys(&format!("{{threadq}}:{key}*")).is_empty())
    });
    let words: Vec<String> = redis.query(&["ZRANGE", "{threadq}:agenda", "0", "-1"]);
    assert!(!words.iter().any(|word| word.starts_with("limit:")), "{words:?}");
    let doctor = builder.run("doctor");
    assert_eq!(doctor.code, Some(0), "{doctor:?}");

    let runs = read_runs(&dir.read("runs"));
    let stored: BTreeMap<u64, Value> = ids.iter().map(|id| (*id, observer.job(*id))).collect();
    let limits_of: BTreeMap<u64, Vec<String>> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| (*id, [limits(n), vec!["threadq.type:note".to_owned()]].concat()))
        .collect();
    let (mut overlapping, mut crashed) = (0, 0);
    let mut at_once: BTreeMap<&str, Vec<(u64, i64)>> = BTreeMap::new();
    let mut mails = Vec::new();
    for run in &runs {
        // A run counts until its job was taken over from its dead server.
        let errors = stored[&run.job]["errors"].as_array().unwrap();
        let died =
            errors.iter().filter(|error| error["message"].as_str().unwrap().starts_with("its server died"));
        let taken_over = died.map(|error| time_ms(&error["at"]) * 1_000_000).find(|at| *at > run.begin);
        crashed += usize::from(taken_over.is_some());
        let end = run.end.min(taken_over.unwrap_or(u64::MAX));
        overlapping += usize::from(end < run.end);
        for limit in &limits_of[&run.job] {
            if slots(limit).is_some() {
                at_once.entry(limit).or_default().extend([(run.begin, 1), (end, -1)]);
            } else {
                mails.push(run.begin);
            }
        }
    }
    println!("| runs | {} |\n| of them on killed servers | {crashed} |", runs.len());
    println!("| of them until after the take-over | {overlapping} |");
    for (limit, mut changes) in at_once {
        changes.sort_unstable();
        let mut running = 0;
        let most = changes.iter().map(|(_, change)| {
            running += change;
            running
        });
        let most = most.max().unwrap_or(0);
        println!("| most at once of {limit} | {most} |");
        assert!(most <= slots(limit).unwrap() as i64, "{limit}: {most} at once");
    }
    // Redis's times of the last starts are exact; a handler begins a little later, on a busy machine more.
    let (per_second, burst) = PACE;
    let starts = stored.iter().filter(|(id, _)| limits_of[id].iter().any(|limit| limit == "mail"));
    let mut starts: Vec<u64> = starts.map(|(_, job)| time_ms(&job["started_at"])).collect();
    starts.sort_unstable();
    let most = most_within(&starts, 1_000);
    println!("| most starts of mail in a second | {most} |");
    assert!(most <= per_second as usize + burst, "{most} starts in a second");
    let most = most_within(&mails, 5_000_000_000);
    assert!(most as f64 <= per_second * 7.0 + burst as f64, "{most} runs began in 5 seconds");

    let mut first_runs: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for run in runs.iter().filter(|run| !in_hands.contains(&run.job)) {
        let customer = limits_of[&run.job].iter().find(|limit| limit.starts_with("customer:"));
        if let Some(customer) = customer.filter(|_| seen.insert(run.job)) {
            first_runs.entry(customer).or_default().push(run.job);
        }
    }
    for (customer, jobs) in first_runs {
        println!("| jobs of {customer} that no killed server had | {} |", jobs.len());
        assert!(jobs.len() > 10 && jobs.is_sorted(), "{customer}: {jobs:?}");
    }
}
