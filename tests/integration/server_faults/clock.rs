//! Clocks that are wrong, or jump by hours while the server works: only the clock of Redis decides anything.
//!
//! libfaketime changes the clock of the server. The monotonic clock stays right, as it does when an operator sets the
//! clock.

use std::path::Path;

use crate::common::*;

/// The path of libfaketime, which depends on the architecture.
fn libfaketime() -> String {
    let folders = std::fs::read_dir("/usr/lib").expect("a folder").flatten().map(|entry| entry.path());
    let files = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    let found = files.into_iter().find(|file| file.exists()).expect("libfaketime: script/setup installs it");
    found.to_str().expect("a path that can be written").to_owned()
}

/// A server whose clock is off by the offset in this file; the test may change the file at any time.
fn off_by(builder: ServerBuilder, file: &Path) -> ServerBuilder {
    builder
        .env("LD_PRELOAD", &libfaketime())
        .env("FAKETIME_TIMESTAMP_FILE", file.to_str().expect("a short path"))
        .env("FAKETIME_NO_CACHE", "1")
        .env("DONT_FAKE_MONOTONIC", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

/// The hours by which the server's clock is ahead of the test's clock. Makes the server log a line, and reads its time.
#[track_caller]
fn hours_ahead(server: &TestServer, accepted: &mut Vec<u64>) -> i64 {
    let id = server.submit_job(json!({"type": "fail", "payload": {"permanent": true}, "queue": "jumping"}));
    accepted.push(id);
    server.wait_for_status(id, "failed");
    let line = until_some(LIMIT, "the failure is logged", || {
        server.log_text().lines().find(|line| line.contains(&format!("job={id}"))).map(str::to_owned)
    });
    let logged = i64::try_from(time_ms(&json!(line[..24]))).expect("fits");
    let now = i64::try_from(now_ms()).expect("fits");
    ((logged - now) as f64 / 3_600_000.0).round() as i64
}

#[test]
fn a_clock_that_jumps_by_hours_changes_nothing() {
    let redis = TestRedis::start();
    let dir = TempDir::new();
    let clock = dir.write("clock", "+0");
    let builder = TestServer::builder()
        .redis(&redis)
        .flag("lease-timeout", "1s")
        .flag("inline-backoff", "0ms")
        .config("[handlers.fail]\nbackoff = { base = \"2s\", cap = \"2s\" }\n");
    let jumping = off_by(builder.clone().flag("queues", "jumping"), &clock).start();
    let steady = builder.start();
    let names =
        until_some(LIMIT, "both are there", || Some(steady.server_ids()).filter(|ids| ids.len() == 2));

    let mut all = Vec::new();
    for offset in ["+5h", "-7h", "+0"] {
        let now = now_ms();
        // Across each jump: a job that runs, a delayed job, a job with `run_at`, and a job in its backoff.
        let jobs = [
            json!({"type": "sleep", "payload": {"ms": 2500}, "timeout_ms": 30_000}),
            json!({"type": "echo", "delay_ms": 2000}),
            json!({"type": "echo", "run_at": rfc3339(now + 2000)}),
            json!({"type": "fail", "payload": {"times": 1}}),
        ];
        let ids: Vec<u64> = ["jumping", "default"]
            .iter()
            .flat_map(|queue| {
                jobs.clone().map(|mut job| {
                    job["queue"] = json!(queue);
                    jumping.submit_job(job)
                })
            })
            .collect();
        all.extend(&ids);
        eventually(LIMIT, "those that run do, and those that fail did", || {
            [0, 4].iter().all(|at| jumping.job(ids[*at])["status"] == "processing")
                && [3, 7].iter().all(|at| jumping.job(ids[*at])["errors"] != json!([]))
        });
        dir.write("clock", offset);
        let hours: i64 = offset.trim_end_matches('h').parse().expect("a number");
        assert_eq!(hours_ahead(&jumping, &mut all), hours, "the jump has arrived");
        for (at, id) in ids.iter().enumerate() {
            let job = jumping.wait_for_status(*id, "completed");
            let attempts = if at % 4 == 3 { 2 } else { 1 };
            assert_eq!((&job["attempts"], &job["crashes"]), (&json!(attempts), &json!(0)), "{job:#}");
            // The job's times, its delay and its backoff follow the clock of Redis.
            for time in ["created_at", "started_at", "finished_at"] {
                let time = time_ms(&job[time]);
                assert!((now - 1000..now + 60_000).contains(&time), "{job:#}");
            }
            let started = time_ms(&job["started_at"]);
            assert!(started >= now + 1999 || !matches!(at % 4, 1 | 2), "too early: {job:#}");
        }
    }
    assert_eq!(steady.server_ids(), names, "nobody was taken for dead");
    let beat = |server: &TestServer| server.get("/stats").expect(200).json()["servers"].clone();
    for seen in [beat(&steady), beat(&jumping)] {
        for server in seen.as_array().expect("servers") {
            assert!(server["beat_age_ms"].as_u64().is_some_and(|age| age < 20_000), "{server:#}");
        }
    }
    audit(&redis, &steady, &all);
}

#[test]
fn a_server_that_starts_with_a_wrong_clock_works() {
    let redis = TestRedis::start();
    let dir = TempDir::new();
    for offset in ["-20y", "+20y"] {
        let clock = dir.write("clock", offset);
        let mut server = off_by(TestServer::builder().redis(&redis), &clock).start();
        let before = now_ms();
        let job = server.complete("sleep", json!({"ms": 50}));
        assert!((before - 1000..before + 60_000).contains(&time_ms(&job["finished_at"])), "{job:#}");
        let begin = Instant::now();
        let id = server.submit("echo", json!({}));
        assert_eq!(server.get(&format!("/jobs/{id}?wait=30s")).expect(200).json()["status"], "completed");
        assert!(begin.elapsed() < secs(20), "{:?}", begin.elapsed());
        assert_eq!(server.stop(secs(20)), Some(0), "{}", server.log_tail());
    }
}

/// Asserts that a time is as long after now as it should be, by the clock of the test, which is that of Redis.
#[track_caller]
fn assert_ahead(time: &Value, ms: u64) {
    let (time, now) = (time_ms(time), now_ms());
    // A slow machine may have taken a minute to answer.
    assert!((now + ms - 60_000..=now + ms + 1000).contains(&time), "{time} is not {ms} ms after {now}");
}

#[test]
fn leases_of_pull_workers_follow_the_clock_of_redis_whichever_server_they_ask() {
    let redis = TestRedis::start();
    let dir = TempDir::new();
    let builder = TestServer::builder().redis(&redis).flag("workers", "0");
    let ahead = off_by(builder.clone(), &dir.write("ahead", "+5h")).start();
    let behind = off_by(builder, &dir.write("behind", "-7h")).start();
    let submit = |timeout_ms: u64| {
        ahead.submit_job(json!({"type": "t", "queue": "q", "timeout_ms": timeout_ms, "max_attempts": 1}))
    };
    let pull = |server: &TestServer, mut request: Value| {
        request["queues"] = json!(["q"]);
        request["worker"] = json!("w");
        // The puller of the other server may have claimed the job for a moment.
        request["wait_ms"] = request["wait_ms"].as_u64().unwrap_or(60_000).into();
        server.post("/pull", &request).expect(200).json()["jobs"].take()
    };
    let path = |job: &Value| format!("/attempts/{}", job["token"].as_str().expect("a token"));
    let mut all = Vec::new();
    for (here, there) in [(&ahead, &behind), (&behind, &ahead)] {
        let id = submit(300_000);
        let job = pull(here, json!({"lease_ms": 120_000}))[0].take();
        assert_eq!(job["id"], id);
        assert_ahead(&job["lease_until"], 120_000);
        assert_ahead(&job["timeout_at"], 300_000);
        // The worker goes on with the other server.
        let report = json!({"progress": {"value": 0.5}, "log": ["a line"], "lease_ms": 200_000});
        let reported = there.post(&path(&job), &report).expect(200).json();
        assert_ahead(&reported["lease_until"], 200_000);
        assert_ahead(&reported["timeout_at"], 300_000);
        assert_ahead(&here.job(id)["progress"]["at"], 0);
        assert_ahead(&here.get(&format!("/jobs/{id}/log")).expect(200).json()["lines"][0]["at"], 0);
        let workers = there.get("/workers").expect(200).json();
        assert_ahead(&workers["workers"][0]["last_seen"], 0);
        assert_eq!(workers["workers"][0]["jobs"][0]["id"], id);
        there.post(&format!("{}/complete", path(&job)), &json!({})).expect(200);
        assert_eq!(here.job(id)["crashes"], 0);
        all.push(id);

        // A lease that is over, and a timeout that is over: neither too early nor hours late.
        let id = submit(300_000);
        let job = pull(here, json!({"lease_ms": 1000}))[0].take();
        let crashed = there.wait_for(id, LIMIT, "come back", |job| job["crashes"] == 1);
        assert!(time_ms(&crashed["errors"][0]["at"]) >= time_ms(&job["lease_until"]), "{crashed:#}");
        let job = pull(there, json!({}))[0].take();
        assert_eq!(job["id"], id);
        here.post(&format!("{}/complete", path(&job)), &json!({})).expect(200);
        all.push(id);
        let id = submit(1000);
        let job = pull(here, json!({}))[0].take();
        let failed = there.wait_for_status(id, "failed");
        assert_eq!(failed["last_error"], "timed out", "{failed:#}");
        assert!(time_ms(&failed["finished_at"]) >= time_ms(&job["timeout_at"]), "{failed:#}");
        all.push(id);

        // Waiting takes as long as it should.
        let begin = Instant::now();
        assert_eq!(pull(here, json!({"wait_ms": 300})), json!([]));
        assert!((Duration::from_millis(300)..secs(60)).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    }
    audit(&redis, &ahead, &all);
}
