//! /metrics, as Prometheus reads it: well-formed, correct with several servers on one Redis, and bounded for any names
//! that clients send. `api_listing.rs` tests that each promised metric is there.

use crate::common::*;

use std::collections::{BTreeMap, BTreeSet};

/// All samples by name and labels. Panics at a line that Prometheus would not accept.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    let mut samples = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (what, name, rest) =
                (words.next(), words.next().expect("a name"), words.next().expect("a text"));
            match what {
                Some("HELP") => {}
                Some("TYPE") => assert!(kinds.insert(name, rest).is_none(), "announced twice: {line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let name = series.split('{').next().expect("a name");
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end).filter(|family| kinds.get(family) == Some(&"histogram")));
        assert!(kinds.contains_key(family.unwrap_or(name)), "not announced: {line}");
        let value: f64 = value.parse().unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(samples.insert(series.to_owned(), value).is_none(), "given twice: {line}");
    }
    samples
}

fn scrape(server: &TestServer) -> BTreeMap<String, f64> {
    samples(&server.get("/metrics").expect(200).text())
}

/// The values of one label of a metric.
fn labels(samples: &BTreeMap<String, f64>, before: &str) -> BTreeSet<String> {
    let values = samples.keys().filter_map(|series| series.strip_prefix(before));
    values.filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
}

#[test]
fn each_server_counts_its_own_and_all_see_the_same_jobs() {
    let redis = TestRedis::start();
    let front = TestServer::builder().redis(&redis).flag("queues", "none").flag("workers", "2").start();
    let back = TestServer::builder().redis(&redis).config(QUICK_BACKOFF).flag("workers", "3").start();
    let id = front.submit("fail", json!({"times": 2}));
    front.wait_for_status(id, "completed");
    let id = front.submit("fail", json!({"permanent": true}));
    front.wait_for_status(id, "failed");
    let running = front.submit("sleep", json!({"ms": 600_000}));
    front.wait_for_status(running, "processing");
    front.submit_job(json!({"type": "echo", "queue": "nobody"}));
    front.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));

    let value = |samples: &BTreeMap<String, f64>, series: &str| samples.get(series).copied().unwrap_or(0.0);
    for (series, by_front, by_back) in [
        (r#"threadq_jobs_submitted_total{type="fail"}"#, 2.0, 0.0),
        (r#"threadq_jobs_submitted_total{type="echo"}"#, 2.0, 0.0),
        (r#"threadq_jobs_completed_total{type="fail"}"#, 0.0, 1.0),
        (r#"threadq_jobs_failed_total{type="fail"}"#, 0.0, 1.0),
        (r#"threadq_job_retries_total{type="fail"}"#, 0.0, 2.0),
        (r#"threadq_job_processing_duration_seconds_count{type="fail"}"#, 0.0, 4.0),
        (r#"threadq_job_wait_seconds_count{type="sleep"}"#, 0.0, 1.0),
        ("threadq_workers", 2.0, 3.0),
        ("threadq_workers_busy", 0.0, 1.0),
        ("threadq_redis_up", 1.0, 1.0),
        (r#"threadq_jobs{status="scheduled"}"#, 1.0, 1.0),
        (r#"threadq_jobs{status="queued"}"#, 1.0, 1.0),
        (r#"threadq_jobs{status="processing"}"#, 1.0, 1.0),
        (r#"threadq_jobs{status="retrying"}"#, 0.0, 0.0),
        (r#"threadq_jobs{status="completed"}"#, 1.0, 1.0),
        (r#"threadq_jobs{status="failed"}"#, 1.0, 1.0),
        (r#"threadq_jobs{status="cancelled"}"#, 0.0, 0.0),
    ] {
        eventually(LIMIT, &format!("{series} is {by_front} and {by_back}"), || {
            value(&scrape(&front), series) == by_front && value(&scrape(&back), series) == by_back
        });
    }
    // Both servers report the age of the oldest waiting job, and it grows.
    let age = r#"threadq_queue_oldest_seconds{queue="nobody"}"#;
    let before = value(&scrape(&front), age);
    eventually(LIMIT, "its age grows", || value(&scrape(&back), age) > before);
    assert_eq!(labels(&scrape(&back), "threadq_jobs{status=\""), BTreeSet::from(STATUSES.map(str::to_owned)));

    redis.kill9();
    let away = scrape(&front);
    assert_eq!(value(&away, "threadq_redis_up"), 0.0);
    assert_eq!(value(&away, r#"threadq_jobs_submitted_total{type="fail"}"#), 2.0, "counters stay");
    assert!(labels(&away, "threadq_jobs{status=\"").is_empty(), "nobody knows how many there are");
}

#[test]
fn histograms_add_up_and_know_the_attempts_that_never_return() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    server.complete("sleep", json!({"ms": 30}));
    server.complete("sleep", json!({"ms": 300}));
    let id = server.submit_job(json!({"type": "hang", "timeout_ms": 100, "max_attempts": 1}));
    server.wait_for_status(id, "failed");
    let histogram = |samples: &BTreeMap<String, f64>, kind: &str| {
        let name = "threadq_job_processing_duration_seconds";
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (series, value) in samples {
            if let Some(bound) = series.strip_prefix(&format!("{name}_bucket{{type=\"{kind}\",le=\"")) {
                let bound = bound.trim_end_matches("\"}").parse().expect("a bound, or +Inf");
                buckets.push((bound, *value));
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let of = |end: &str| samples[&format!("{name}_{end}{{type=\"{kind}\"}}")];
        (buckets, of("sum"), of("count"))
    };
    for (kind, attempts, least) in [("sleep", 2.0, 0.33), ("hang", 1.0, 5.1)] {
        let (buckets, sum, count) = histogram(&scrape(&server), kind);
        assert_eq!(count, attempts, "{kind}");
        assert!((least..60.0).contains(&sum), "{kind}: {sum} s");
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{kind}: {buckets:?}");
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, attempts)), "{kind}: {buckets:?}");
        // A duration above a bound does not count in that bound's bucket.
        let below = buckets.iter().filter(|(bound, _)| *bound < least / attempts);
        assert!(
            below.clone().count() > 3 && below.clone().all(|(_, n)| *n < attempts),
            "{kind}: {buckets:?}"
        );
    }
}

#[test]
fn whatever_clients_make_up_the_series_are_bounded_and_the_own_ones_stay() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("queues", "zebra").start();
    let made_up = |from: usize| -> Vec<Value> {
        (from..from + 500)
            .map(|n| json!({"type": format!("made up \\ \" {n}"), "queue": format!("a{n}"), "delay_ms": n}))
            .collect()
    };
    let ask = |from: usize| {
        server.submit_batch(&made_up(from));
        for n in from..from + 20 {
            server.request(&format!("METHOD{n}"), &format!("/nowhere/{n}"), &[], None);
            server.get(&format!("/jobs/{}", n + 1)).expect(404);
            server.act(&format!("/queues/q{n}/resume")).expect(200);
        }
        eventually(LIMIT, "all are in their queues", || server.count("scheduled") == 0);
        scrape(&server)
    };
    scrape(&server);
    let before = ask(0);
    let after = ask(500);
    let new: Vec<_> = after.keys().filter(|series| !before.contains_key(*series)).collect();
    // The choice of the queues that have their own label may change.
    let new: Vec<_> = new.into_iter().filter(|series| !series.starts_with("threadq_queue_oldest")).collect();
    assert!(new.is_empty(), "{new:?}");
    let types = labels(&after, "threadq_jobs_submitted_total{type=\"");
    // The demo handlers, 100 other job types, and the label for the rest.
    assert!(types.contains("echo") && types.contains("other") && types.len() <= 107, "{types:?}");
    let submitted: f64 = after
        .iter()
        .filter(|(series, _)| series.starts_with("threadq_jobs_submitted_total"))
        .map(|(_, n)| n)
        .sum();
    assert_eq!(submitted, 1000.0, "none is left out");
    let queues = labels(&after, "threadq_queue_oldest_seconds{queue=\"");
    assert!(queues.len() == 100 && queues.contains("zebra"), "{queues:?}");
}

#[test]
fn a_request_that_waited_is_counted_with_the_code_that_it_got() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let id = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    let counted = |code: u16| {
        server.metric(&format!(
            r#"threadq_http_requests_total{{method="GET",path="/jobs/{{id}}",code="{code}"}}"#
        ))
    };
    server.get(&format!("/jobs/{id}?wait=1ms")).expect(200);
    assert_eq!((counted(200), counted(503)), (1.0, 0.0));
    let calls = || {
        let stats = redis.query::<String>(&["INFO", "commandstats"]);
        let calls = stats.split("cmdstat_evalsha:calls=").nth(1).and_then(|rest| rest.split(',').next());
        calls.map_or(0, |calls| calls.parse::<u64>().expect("a number"))
    };
    std::thread::scope(|scope| {
        let before = calls();
        let waiting = scope.spawn(|| server.get(&format!("/jobs/{id}?wait=10s")));
        // A waiting request makes the server read its job repeatedly.
        eventually(LIMIT, "it waits", || calls() >= before + 30);
        redis.kill9();
        waiting.join().expect("an answer").expect(503);
    });
    assert_eq!((counted(200), counted(503)), (1.0, 1.0));
}

#[test]
fn the_examples_for_prometheus_and_grafana_ask_for_what_is_there() {
    let redis = TestRedis::start();
    let config =
        "[limits.x]\nrate = '10/s'\n\n[[schedules]]\nname = 'x'\nevery = '1s'\njob = { type = 'echo' }\n";
    let server = TestServer::builder().redis(&redis).config(config).start();
    for id in server.submit_batch(&vec![json!({"type": "echo", "limits": ["x"]}); 2]) {
        server.wait_for_status(id, "completed");
    }
    eventually(LIMIT, "a job of the schedule has completed", || {
        server.get("/metrics").expect(200).text().contains("threadq_schedule_last_success_timestamp_seconds{")
    });
    let known: BTreeSet<String> =
        scrape(&server).keys().filter_map(|series| series.split('{').next()).map(str::to_owned).collect();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/monitoring");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("an example");
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let metrics = |text: &str| -> BTreeSet<String> {
        text.split(|c| !is_part(c)).filter(|word| word.starts_with("threadq_")).map(str::to_owned).collect()
    };

    let dashboard: Value =
        serde_json::from_str(&read("grafana-dashboard.json")).expect("the dashboard is JSON");
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 36));
    let mut ids = BTreeSet::new();
    let mut shown = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "an id twice: {panel}");
        for target in panel["targets"].as_array().expect("targets") {
            shown.extend(metrics(target["expr"].as_str().expect("an expression")));
        }
    }
    let alerts = metrics(&read("alerts.yml"));
    assert!(alerts.len() > 3, "{alerts:?}");
    for name in shown.iter().chain(&alerts) {
        assert!(known.contains(name), "{name} is asked for and not there");
    }
    // Every documented metric is present; histograms are checked by their buckets.
    let families = known.iter().filter(|name| !name.ends_with("_sum") && !name.ends_with("_count"));
    let missing: Vec<_> = families.filter(|name| !shown.contains(*name)).collect();
    assert!(missing.is_empty(), "on no panel: {missing:?}");
}

#[test]
fn a_job_whose_record_is_broken_counts_as_a_dead_letter() {
    let redis = TestRedis::start();
    let front = TestServer::observer(&redis);
    let ids = front.submit_batch(&vec![json!({"type": "echo"}); 3]);
    redis.query::<i64>(&["HSET", &format!("{{threadq}}:job:{}", ids[0]), "payload", "{no json"]);
    redis.query::<i64>(&["HDEL", &format!("{{threadq}}:job:{}", ids[1]), "type"]);
    let back = TestServer::builder().redis(&redis).flag("workers", "1").start();
    back.wait_for_status(ids[2], "completed");
    let failed = |kind: &str| back.metric(&format!("threadq_jobs_failed_total{{type=\"{kind}\"}}"));
    eventually(LIMIT, "both are counted", || failed("echo") == 1.0 && failed("unknown") == 1.0);
    for id in &ids[..2] {
        let log = back.log_text();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(&format!("job={id} "))).collect();
        assert_eq!(lines.len(), 1, "{log}");
        assert!(lines[0].contains("failed for good: the job's record is broken: "), "{log}");
    }
    // The server holds no claimed job any more.
    let later = back.submit_batch(&vec![json!({"type": "echo"}); 10]);
    for id in later {
        back.wait_for_status(id, "completed");
    }
}

#[test]
fn busy_is_exact_for_the_server_that_answers_and_fresh_for_others() {
    let redis = TestRedis::start();
    // Alone and idle, so that its next heartbeat is far off when the jobs come.
    let busy_one = TestServer::builder().redis(&redis).flag("workers", "8").start();
    busy_one.wait_until_ready();
    let own = busy_one.server_id();
    let busy = |of: &TestServer| {
        let stats = of.get("/stats").expect(200).json();
        let servers = stats["servers"].as_array().expect("servers").clone();
        servers.iter().find(|server| server["id"] == own.as_str()).and_then(|server| server["busy"].as_u64())
    };
    let in_redis = || redis.query::<Option<u64>>(&["HGET", &format!("{{threadq}}:server:{own}"), "busy"]);
    // Two seconds without a job, and no regular heartbeat meanwhile.
    std::thread::sleep(secs(5));
    let ids = busy_one.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 600_000}}); 8]);
    for id in &ids {
        busy_one.wait_for_status(*id, "processing");
    }
    assert_eq!(busy(&busy_one), Some(8), "exact at once");
    let took = eventually(LIMIT, "others see it", || in_redis() == Some(8));
    assert!(took < secs(20), "{took:?}");
    let other = TestServer::observer(&redis);
    assert_eq!(busy(&other), Some(8));
    for id in &ids {
        busy_one.act(&format!("/jobs/{id}/cancel"));
    }
    eventually(LIMIT, "none is busy", || busy(&busy_one) == Some(0));
    eventually(LIMIT, "others see it", || busy(&other) == Some(0));
    let workers = busy_one.get("/stats/workers").expect(200).json();
    let shown = workers["servers"].as_array().and_then(|s| s.iter().find(|s| s["id"] == own.as_str()));
    assert_eq!(shown.map(|server| &server["threads"]), Some(&json!([])), "told without waiting for a beat");
}
