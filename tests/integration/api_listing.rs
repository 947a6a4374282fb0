//! Reading many jobs: exact pages for every filter, the dead letter queue, queues, statistics, metrics, health.

use crate::common::*;

use std::collections::BTreeSet;

/// Jobs of three types in five statuses, by id.
fn mixed(server: &TestServer) -> Vec<(u64, &'static str, &'static str)> {
    let mut jobs = Vec::new();
    let mut add = |kind: &'static str, status: &'static str, body: Value, count: usize| {
        for id in server.submit_batch(&vec![body; count]) {
            jobs.push((id, kind, status));
        }
    };
    for _ in 0..3 {
        add("echo", "completed", json!({"type": "echo"}), 7);
        add("echo", "scheduled", json!({"type": "echo", "delay_ms": 3_600_000}), 5);
        add("fail", "failed", json!({"type": "fail", "payload": {"permanent": true}}), 6);
        add("echo", "queued", json!({"type": "echo", "queue": "nobody"}), 4);
        add("Größe ☃", "queued", json!({"type": "Größe ☃", "queue": "nobody"}), 3);
        add("fail", "scheduled", json!({"type": "fail", "delay_ms": 3_600_000}), 2);
    }
    let cancelled = server.submit_batch(&vec![json!({"type": "echo", "queue": "nobody"}); 4]);
    for id in cancelled {
        server.act(&format!("/jobs/{id}/cancel")).expect(200);
        jobs.push((id, "echo", "cancelled"));
    }
    for (id, _, status) in &jobs {
        server.wait_for_status(*id, status);
    }
    jobs
}

#[test]
fn pages_are_exact_for_every_filter_and_every_page_size() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let jobs = mixed(&server);
    let statuses = [None].into_iter().chain(STATUSES.map(Some));
    for status in statuses {
        for kind in [None, Some("echo"), Some("fail"), Some("Größe ☃"), Some("nothing")] {
            let mut wanted: Vec<u64> = jobs
                .iter()
                .filter(|(_, k, s)| {
                    status.is_none_or(|status| status == *s) && kind.is_none_or(|kind| kind == *k)
                })
                .map(|(id, _, _)| *id)
                .collect();
            wanted.sort_unstable_by(|a, b| b.cmp(a));
            let mut filter = String::new();
            if let Some(status) = status {
                filter.push_str(&format!("&status={status}"));
            }
            if let Some(kind) = kind {
                filter.push_str(&format!("&type={}", http::encode(kind)));
            }
            for limit in [1, 7, 10, 100] {
                let pages = if limit == 1 { wanted.len().min(5) } else { wanted.len() / limit + 2 };
                for page in 1..=pages {
                    let reply =
                        server.get(&format!("/jobs?page={page}&limit={limit}{filter}")).expect(200).json();
                    let ids: Vec<u64> = reply["jobs"]
                        .as_array()
                        .expect("jobs")
                        .iter()
                        .filter_map(|j| j["id"].as_u64())
                        .collect();
                    let begin = ((page - 1) * limit).min(wanted.len());
                    let end = (page * limit).min(wanted.len());
                    assert_eq!(ids, wanted[begin..end], "page {page} of {limit} {filter}");
                    assert_eq!(reply["total"], wanted.len(), "{filter}");
                    assert_eq!(reply["page"], page);
                    assert_eq!(reply["limit"], limit);
                }
            }
        }
    }
}

#[test]
fn jobs_are_listed_by_the_time_of_their_creation() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let ids: Vec<u64> = (0..9).map(|_| server.submit_job(json!({"type": "echo"}))).collect();
    let time = |id: u64| {
        let time = threadq::job::rfc3339(id / 1000);
        format!("{}{:03}Z", time.trim_end_matches('Z'), id % 1000)
    };
    let listed = |query: &str| -> Vec<u64> {
        let page = server.get(&format!("/jobs?limit=100&{query}")).expect(200).json();
        let ids: Vec<u64> =
            page["jobs"].as_array().unwrap().iter().rev().map(|job| job["id"].as_u64().unwrap()).collect();
        assert_eq!(page["total"], ids.len() as u64);
        ids
    };
    // The time of a job is that of its id: the job is in the range that begins there, and not in one that ends there.
    assert_eq!(listed(&format!("created_after={}", time(ids[3]))), ids[3..]);
    assert_eq!(listed(&format!("created_before={}&type=echo", time(ids[3]))), ids[..3]);
    let both = format!("created_after={}&created_before={}&status=queued", time(ids[2]), time(ids[7]));
    assert_eq!(listed(&both), ids[2..7]);
    assert!(listed("created_before=1969-01-01T00:00:00Z").is_empty());
    assert!(listed("created_after=9999-12-31T23:59:59Z").is_empty());
    let dead = server.get(&format!("/dlq?created_after={}", time(ids[0]))).expect(200).json();
    assert_eq!(dead["total"], 0);
}

#[test]
fn a_listing_begins_with_the_first_page_of_ten_newest() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let empty = server.get("/jobs").expect(200).json();
    assert_eq!(empty, json!({"jobs": [], "page": 1, "limit": 10, "total": 0, "next": null}));
    let ids = server.submit_batch(&vec![json!({"type": "echo"}); 25]);
    let reply = server.get("/jobs").expect(200).json();
    let got: Vec<u64> =
        reply["jobs"].as_array().expect("jobs").iter().filter_map(|j| j["id"].as_u64()).collect();
    let newest: Vec<u64> = ids.iter().rev().take(10).copied().collect();
    assert_eq!(got, newest);
    assert_eq!((&reply["page"], &reply["limit"], &reply["total"]), (&json!(1), &json!(10), &json!(25)));
    // A job in a listing is equal to the response of GET /jobs/ID.
    assert_eq!(reply["jobs"][0], server.job(newest[0]));
    let far = server.get("/jobs?page=1000000").expect(200).json();
    assert_eq!(far["jobs"], json!([]));
    assert_eq!((&far["total"], &far["next"]), (&json!(25), &json!(null)));
}

#[test]
fn a_walk_by_next_meets_every_job_once_whatever_comes_meanwhile() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let jobs = mixed(&server);
    let walk = |path: &str, filter: &str| {
        let mut ids = Vec::new();
        let mut place = String::new();
        loop {
            let page = server.get(&format!("{path}?limit=7{filter}{place}")).expect(200).json();
            assert_eq!(page["page"], if place.is_empty() { json!(1) } else { Value::Null });
            assert_eq!(page["limit"], 7);
            ids.extend(page["jobs"].as_array().expect("jobs").iter().filter_map(|job| job["id"].as_u64()));
            // Between two pages submit as many jobs as a page has; the listing includes them.
            server.submit_batch(&vec![json!({"type": "echo", "queue": "nobody"}); 7]);
            if page["next"].is_null() {
                return ids;
            }
            assert_eq!(page["next"].as_u64(), ids.last().copied(), "{path} {filter}");
            place = format!("&before={}", page["next"]);
        }
    };
    let newest = jobs.iter().map(|(id, ..)| *id).max().expect("jobs");
    for (path, filter, status, kind) in [
        ("/jobs", "", None, None),
        ("/jobs", "&status=queued", Some("queued"), None),
        ("/jobs", "&status=scheduled&type=fail", Some("scheduled"), Some("fail")),
        ("/jobs", "&type=echo", None, Some("echo")),
        ("/dlq", "", Some("failed"), None),
    ] {
        let mut wanted: Vec<u64> = jobs
            .iter()
            .filter(|(_, k, s)| {
                status.is_none_or(|status| status == *s) && kind.is_none_or(|kind| kind == *k)
            })
            .map(|(id, ..)| *id)
            .collect();
        wanted.sort_unstable_by(|a, b| b.cmp(a));
        let seen: Vec<u64> = walk(path, filter).into_iter().filter(|id| *id <= newest).collect();
        assert_eq!(seen, wanted, "{path} {filter}");
    }
}

#[test]
fn large_texts_are_left_out_of_listings_and_shown_with_their_job() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    // The largest text that a listing shows, and one byte more; JSON adds two quotes.
    let (shown, large) = ("x".repeat(16 * 1024 - 2), "x".repeat(16 * 1024 - 1));
    let small = server.complete("echo", json!(shown));
    let both = server.complete("echo", json!(large));
    let waiting = server.submit_job(json!({"type": "echo", "payload": large, "queue": "nobody"}));
    let dead = server.submit("fail", json!({"permanent": true, "message": large}));
    server.wait_for_status(dead, "failed");
    let listed = server.list_all("/jobs", "");
    let in_list = |id: &Value| listed.iter().find(|job| job["id"] == *id).expect("listed").clone();
    assert_eq!(in_list(&small["id"]), server.job(small["id"].as_u64().expect("an id")));
    let without = |id: u64, names: &[&str]| {
        let mut job = server.job(id);
        assert!(job.get("omitted").is_none());
        names.iter().for_each(|name| job[*name] = Value::Null);
        job["omitted"] = json!(names);
        job
    };
    let both = both["id"].as_u64().expect("an id");
    assert_eq!(in_list(&json!(both)), without(both, &["payload", "result"]));
    assert_eq!(in_list(&json!(waiting)), without(waiting, &["payload"]));
    assert_eq!(server.list_all("/dlq", ""), [without(dead, &["payload"])]);
    assert_eq!(server.job(both)["payload"], json!(large));
}

#[test]
fn the_dead_letter_queue_lists_retries_and_deletes() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let dead = |kind: &str, n: usize| -> Vec<u64> {
        let ids = server
            .submit_batch(&vec![json!({"type": kind, "payload": {"permanent": true}, "max_attempts": 1}); n]);
        for id in &ids {
            server.wait_for_status(*id, "failed");
        }
        ids
    };
    let fails = dead("fail", 12);
    let panics = dead("panic", 3);
    let done = server.submit("echo", json!({}));
    server.wait_for_status(done, "completed");
    let ids =
        |jobs: Vec<Value>| -> BTreeSet<u64> { jobs.iter().filter_map(|job| job["id"].as_u64()).collect() };
    let all: BTreeSet<u64> = fails.iter().chain(&panics).copied().collect();
    assert_eq!(ids(server.list_all("/dlq", "")), all);
    assert_eq!(ids(server.list_all("/dlq", "&type=panic")), panics.iter().copied().collect());
    let page = server.get("/dlq?page=2&limit=10").expect(200).json();
    assert_eq!(page["jobs"].as_array().map(Vec::len), Some(5));
    assert_eq!((&page["page"], &page["limit"], &page["total"]), (&json!(2), &json!(10), &json!(15)));

    let retry = |body: Value| server.post("/dlq/retry", &body).expect(200).json();
    assert_eq!(retry(json!({"dry_run": true})), json!({"matched": 15, "retried": 0}));
    assert_eq!(retry(json!({"type": "panic", "dry_run": true})), json!({"matched": 3, "retried": 0}));
    assert_eq!(ids(server.list_all("/dlq", "")), all, "a dry run changes nothing");
    assert_eq!(retry(json!({"type": "nothing"})), json!({"matched": 0, "retried": 0}));
    // By ids: one id is not a dead letter, and one id does not exist.
    let before = server.job(fails[0]);
    assert_eq!(retry(json!({"ids": [fails[0], fails[1], done, 12345]})), json!({"matched": 2, "retried": 2}));
    let again = server.wait_for(fails[0], LIMIT, "failed anew", |job| {
        job["status"] == "failed" && job["finished_at"] != before["finished_at"]
    });
    assert_eq!(again["attempts"], 1, "{again:#}");
    assert_eq!(server.job(done)["attempts"], 1);
    // By type and ids: both must match.
    assert_eq!(
        retry(json!({"type": "panic", "ids": [fails[0], panics[0]]})),
        json!({"matched": 1, "retried": 1})
    );
    eventually(LIMIT, "all are dead again", || server.total("?status=failed") == 15);
    assert_eq!(retry(json!({})), json!({"matched": 15, "retried": 15}));
    eventually(LIMIT, "all are dead again", || server.total("?status=failed") == 15);

    // By what the last error says.
    let by_error = |part: &str| retry(json!({"error": part, "dry_run": true}))["matched"].as_u64();
    assert_eq!((by_error("permanent"), by_error("PERMANENT")), (Some(3), Some(0)));
    let time = |id: u64| threadq::job::rfc3339(id / 1000 + 1);
    let by_time = format!("/dlq?created_before={}&queue=other&error=x", time(panics[0]).replace(':', "%3A"));
    assert_eq!(server.delete(&by_time).expect(200).json(), json!({"deleted": 0}));

    assert_eq!(server.delete("/dlq?type=panic").expect(200).json(), json!({"deleted": 3}));
    server.get(&format!("/jobs/{}", panics[0])).expect_error(404, "not_found", "a deleted dead letter");
    assert_eq!(server.delete("/dlq").expect(200).json(), json!({"deleted": 12}));
    assert_eq!(server.delete("/dlq").expect(200).json(), json!({"deleted": 0}));
    assert_eq!(ids(server.list_all("/jobs", "")), BTreeSet::from([done]));
    assert_eq!(redis.query::<u64>(&["ZCARD", "{threadq}:dlq_queue"]), 0);
}

#[test]
fn a_large_dead_letter_queue_goes_back_whole() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let worker = TestServer::start(&redis);
    server.submit_batch(&vec![json!({"type": "fail", "payload": {"permanent": true}}); 2500]);
    eventually(LIMIT, "all are dead", || server.count("failed") == 2500);
    drop(worker);
    assert_eq!(
        server.post("/dlq/retry", &json!({})).expect(200).json(),
        json!({"matched": 2500, "retried": 2500})
    );
    assert_eq!(server.count("queued"), 2500);
    assert_eq!(server.count("failed"), 0);
}

#[test]
fn queues_are_listed_with_length_and_age() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let first = server.submit_job(json!({"type": "echo", "queue": "emails"}));
    server.submit_batch(&vec![json!({"type": "echo", "queue": "emails"}); 4]);
    server.submit_job(json!({"type": "echo", "queue": "later", "delay_ms": 3_600_000}));
    let reply = server.get("/queues").expect(200).json();
    let queues = reply["queues"].as_array().expect("queues");
    let emails = queues.iter().find(|q| q["name"] == "emails").unwrap_or_else(|| panic!("{reply}"));
    assert_eq!(emails["queued"], 5, "{reply}");
    assert_eq!(emails["paused"], false);
    let age = emails["oldest_ms"].as_u64().unwrap_or_else(|| panic!("{reply}"));
    assert!(age <= now_ms() - first / 1000 + 1, "{reply}");
    let names: Vec<_> = queues.iter().filter_map(|q| q["name"].as_str()).collect();
    assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len(), "each once: {names:?}");
    let keys: BTreeSet<_> = emails.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(["name", "queued", "paused", "oldest_ms", "servers"]));
    let paused = server.act("/queues/emails/pause").expect(200).json();
    assert_eq!(
        (&paused["name"], &paused["paused"], &paused["queued"]),
        (&json!("emails"), &json!(true), &json!(5))
    );
    server.act("/queues/emails/pause").expect(200);
    let resumed = server.act("/queues/emails/resume").expect(200).json();
    assert_eq!((&resumed["name"], &resumed["paused"]), (&json!("emails"), &json!(false)));
}

#[test]
fn stats_count_every_status_and_name_every_server() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("workers", "3").start();
    let other = TestServer::builder().redis(&redis).flag("workers", "2").flag("queues", "none").start();
    mixed(&server);
    let running = server.submit("sleep", json!({"ms": 60_000}));
    server.wait_for_status(running, "processing");
    eventually(LIMIT, "both servers are listed, one of them busy", || {
        let stats = other.get("/stats").expect(200).json();
        let servers = stats["servers"].as_array().expect("servers");
        servers.len() == 2 && servers.iter().any(|s| s["workers"] == 3 && s["busy"] == 1)
    });
    let stats = other.get("/stats").expect(200).json();
    let keys: BTreeSet<_> = stats.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(["counts", "queues", "servers"]));
    let counts: BTreeSet<_> =
        stats["counts"].as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(counts, BTreeSet::from(STATUSES), "{stats:#}");
    for (status, count) in [
        ("scheduled", 21),
        ("queued", 21),
        ("processing", 1),
        ("retrying", 0),
        ("completed", 21),
        ("failed", 18),
        ("cancelled", 4),
    ] {
        assert_eq!(stats["counts"][status], count, "{status}: {stats:#}");
        assert_eq!(other.total(&format!("?status={status}")), count, "{status}");
    }
    assert_eq!(
        stats["queues"].as_array().expect("queues").iter().find(|q| q["name"] == "nobody").expect("listed")["queued"],
        21
    );
    for one in stats["servers"].as_array().expect("servers") {
        let keys: BTreeSet<_> = one.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(keys, BTreeSet::from(["id", "started_at", "workers", "busy", "beat_age_ms"]));
        time_ms(&one["started_at"]);
        assert!(one["beat_age_ms"].as_u64().is_some_and(|age| age < 60_000), "{one}");
        assert!(one["id"].is_string() && one["workers"].is_u64() && one["busy"].is_u64(), "{one}");
    }
}

#[test]
fn a_fresh_server_is_listed_once_and_keeps_its_name() {
    for _ in 0..4 {
        let redis = TestRedis::start();
        let server = TestServer::start(&redis);
        let name = server.server_id();
        let job = server.complete("echo", json!({}));
        assert_eq!(job["server"], name, "{job:#}\n{}", server.log_tail());
        assert_eq!(server.server_id(), name);
    }
}

#[test]
fn metrics_have_every_promised_name_and_count() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(QUICK_BACKOFF).start();
    server.complete("echo", json!({}));
    server.complete("fail", json!({"times": 2}));
    server.complete("panic", json!({"times": 1}));
    let id = server.submit("fail", json!({"permanent": true}));
    server.wait_for_status(id, "failed");
    server.submit_job(json!({"type": "echo", "queue": "nobody"}));
    server.get("/nowhere").expect(404);
    let reply = server.get("/metrics").expect(200);
    assert!(reply.header("Content-Type").expect("a type").starts_with("text/plain"));
    let text = reply.text();
    for name in [
        "threadq_jobs_submitted_total",
        "threadq_jobs_completed_total",
        "threadq_jobs_failed_total",
        "threadq_job_retries_total",
        "threadq_job_panics_total",
        "threadq_job_processing_duration_seconds",
        "threadq_job_wait_seconds",
        "threadq_jobs",
        "threadq_queue_oldest_seconds",
        "threadq_workers_busy",
        "threadq_workers",
        "threadq_jobs_recovered_total",
        "threadq_redis_up",
        "threadq_http_requests_total",
    ] {
        assert!(text.lines().any(|l| l.starts_with(&format!("# TYPE {name} "))), "{name} has a type\n{text}");
        assert!(
            text.lines().any(|l| {
                l.strip_prefix(name).is_some_and(|rest| {
                    let rest = rest.strip_prefix("_count").unwrap_or(rest);
                    rest.starts_with(['{', ' '])
                })
            }),
            "{name} has a value\n{text}"
        );
    }
    eventually(LIMIT, "the counters say what happened", || {
        [
            (r#"threadq_jobs_submitted_total{type="fail"}"#, 2.0),
            (r#"threadq_jobs_completed_total{type="echo"}"#, 1.0),
            (r#"threadq_jobs_completed_total{type="fail"}"#, 1.0),
            (r#"threadq_jobs_failed_total{type="fail"}"#, 1.0),
            (r#"threadq_job_retries_total{type="fail"}"#, 2.0),
            (r#"threadq_job_panics_total{type="panic"}"#, 1.0),
            (r#"threadq_job_wait_seconds_count{type="echo"}"#, 1.0),
            (r#"threadq_jobs{status="completed"}"#, 3.0),
            (r#"threadq_jobs{status="queued"}"#, 1.0),
            ("threadq_workers", 30.0),
            ("threadq_redis_up", 1.0),
        ]
        .iter()
        .all(|(name, value)| (server.metric(name) - value).abs() < 0.5)
    });
    // No raw path of a request becomes a label.
    server.get("/nowhere-1").expect(404);
    server.get("/jobs/123").expect(404);
    let text = server.get("/metrics").expect(200).text();
    assert!(!text.contains("nowhere") && !text.contains("/jobs/123"), "{text}");
}

#[test]
fn health_readiness_and_documents_are_served() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    server.get("/healthz").expect(200);
    server.wait_until_ready();
    let document = server.get("/openapi.json").expect(200).json();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/jobs"]["post"].is_object());
    let page = server.get("/").expect(200);
    assert!(page.header("Content-Type").expect("a type").starts_with("text/html"));
}
