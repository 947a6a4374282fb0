//! Operations on many jobs, changes of jobs that wait, and running jobs now.
//!
//! The tests with a number show what users of other job servers have asked for or have run into.

use crate::common::*;

fn bulk(server: &TestServer, body: Value) -> Value {
    server.post("/jobs/bulk", &body).expect(200).json()
}

/// The report of a request after which there is no more.
fn report(matched: u64, changed: u64, skipped: u64) -> Value {
    json!({"matched": matched, "changed": changed, "skipped": skipped, "more": false, "cursor": null})
}

fn submit_tagged(server: &TestServer, tags: &[&str], more: Value) -> u64 {
    let mut job = json!({"type": "echo", "queue": "nobody", "tags": tags});
    for (name, value) in more.as_object().into_iter().flatten() {
        job[name] = value.clone();
    }
    server.submit_job(job)
}

fn patch(server: &TestServer, id: u64, body: &Value) -> Reply {
    let headers = [("Content-Type", "application/json")];
    server.request("PATCH", &format!("/jobs/{id}"), &headers, Some(body.to_string().as_bytes()))
}

#[test]
fn everything_of_one_customer_is_cancelled_and_nothing_else() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let running =
        server.submit_job(json!({"type": "sleep", "payload": {"ms": 600_000}, "tags": ["customer-42"]}));
    server.wait_for_status(running, "processing");
    let done = server.submit_job(json!({"type": "echo", "tags": ["customer-42"]}));
    server.wait_for_status(done, "completed");
    let queued = submit_tagged(&server, &["x", "customer-42"], json!({}));
    let scheduled = submit_tagged(&server, &["customer-42"], json!({"delay_ms": 3_600_000}));
    let other = submit_tagged(&server, &["customer-420"], json!({}));
    let filter = json!({"tag": "customer-42"});
    let count = json!({"action": "cancel", "filter": filter, "dry_run": true});
    assert_eq!(bulk(&server, count), report(4, 0, 0));
    assert_eq!(server.job(queued)["status"], "queued", "a dry run changes nothing");
    assert_eq!(bulk(&server, json!({"action": "cancel", "filter": filter})), report(4, 3, 1));
    // The running job was told to stop at once, since it runs on this server.
    for id in [running, queued, scheduled] {
        server.wait_for_status(id, "cancelled");
    }
    assert_eq!(
        (&server.job(done)["status"], &server.job(other)["status"]),
        (&json!("completed"), &json!("queued"))
    );
    assert_eq!(server.total("?tag=customer-42&status=cancelled"), 3);
}

#[test]
fn each_action_changes_the_jobs_that_it_can_change() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let fails: Vec<u64> = (0..3)
        .map(|_| server.submit_job(json!({"type": "fail", "payload": {"permanent": true}, "tags": ["f"]})))
        .collect();
    fails.iter().for_each(|id| drop(server.wait_for_status(*id, "failed")));
    let scheduled = submit_tagged(&server, &["f"], json!({"delay_ms": 3_600_000}));
    let queued = submit_tagged(&server, &["f"], json!({}));

    // Without a status the filter matches all five; each action skips those that it cannot change.
    let all = |action: &str| json!({"action": action, "filter": {"tag": "f"}});
    assert_eq!(bulk(&server, all("run")), report(5, 1, 4));
    assert_eq!(server.job(scheduled)["status"], "queued");
    let change =
        json!({"action": "change", "filter": {"tag": "f"}, "set": {"queue": "third", "tags": ["f", "g"]}});
    assert_eq!(bulk(&server, change), report(5, 2, 3));
    assert_eq!(
        (&server.job(queued)["queue"], &server.job(queued)["tags"]),
        (&json!("third"), &json!(["f", "g"]))
    );
    assert_eq!(redis.query::<u64>(&["LLEN", "{threadq}:work_queue:third"]), 2);
    assert_eq!(redis.query::<u64>(&["LLEN", "{threadq}:work_queue:nobody"]), 0);

    let failed =
        json!({"status": "failed", "tag": "f", "type": "fail", "queue": "default", "error": "on purpose"});
    assert_eq!(bulk(&server, json!({"action": "retry", "filter": failed})), report(3, 3, 0));
    eventually(LIMIT, "they have failed again", || server.count("failed") == 3);
    let by_id = json!({"action": "delete", "filter": {"ids": [fails[0], fails[1], queued, 17]}});
    assert_eq!(bulk(&server, by_id), report(3, 2, 1));
    assert_eq!(bulk(&server, json!({"action": "delete", "filter": {"all": true}})), report(3, 1, 2));
    assert_eq!(server.total(""), 2);
}

#[test]
fn a_long_operation_stops_after_its_time_and_goes_on_with_its_cursor() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let ids = server.submit_batch(&vec![json!({"type": "echo"}); 1_000]);
    // The cursor of a request that has looked at the first half. Jobs that come later are left alone.
    let cursor = format!("{}-{}", ids[899], ids[499]);
    let body = json!({"action": "cancel", "filter": {"status": "queued"}, "cursor": cursor});
    assert_eq!(bulk(&server, body.clone()), report(400, 400, 0));
    assert_eq!(bulk(&server, body), report(0, 0, 0));
    let left: Vec<u64> =
        server.list_all("/jobs", "&status=queued").iter().filter_map(|job| job["id"].as_u64()).collect();
    let expected: Vec<u64> = ids[900..].iter().rev().chain(ids[..500].iter().rev()).copied().collect();
    assert_eq!(left, expected);
}

#[test]
fn a_job_that_waits_is_changed_and_keeps_its_id() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let id = submit_tagged(&server, &[], json!({"unique_key": "k", "delay_ms": 3_600_000}));
    let change = json!({
        "payload": {"n": 1.50}, "queue": "later", "max_attempts": 2, "timeout_ms": 5, "tags": ["a"],
        "delay_ms": 7_200_000, "expires_in_ms": 9_000_000,
    });
    let job = patch(&server, id, &change).expect(200).json();
    assert_eq!(
        (&job["id"], &job["status"], &job["queue"]),
        (&json!(id), &json!("scheduled"), &json!("later"))
    );
    assert_eq!(
        (&job["max_attempts"], &job["timeout_ms"], &job["tags"]),
        (&json!(2), &json!(5), &json!(["a"]))
    );
    assert_eq!((&job["payload"], &job["unique_key"]), (&json!({"n": 1.5}), &json!("k")));
    assert!(time_ms(&job["scheduled_at"]) > id / 1000 + 7_000_000);
    assert_eq!(server.total("?tag=a"), 1);
    // The job would expire before its start.
    let too_late = patch(&server, id, &json!({"delay_ms": 9_500_000}));
    too_late.expect_error(400, "invalid_job", "the expiry comes first");
    for (field, value) in [("expires_at", json!("2020-01-01T00:00:00Z")), ("expires_in_ms", json!(5))] {
        let change = json!({field: value});
        let sentence = patch(&server, id, &change).expect_error(400, "invalid_job", &change.to_string());
        assert!(sentence.starts_with(&format!("{field} must be ")), "{sentence}");
    }
    // The scheduler hears of a nearer start at once.
    let soon = patch(&server, id, &json!({"queue": "default", "delay_ms": 1, "timeout_ms": 60_000}))
        .expect(200)
        .json();
    assert!(["scheduled", "queued", "processing", "completed"].contains(&soon["status"].as_str().unwrap()));
    let job = server.wait_for_status(id, "completed");
    assert_eq!(job["result"], json!({"n": 1.5}));
    patch(&server, id, &json!({"queue": "x"})).expect_error(409, "wrong_status", "an ended job");
    patch(&server, 17, &json!({"queue": "x"})).expect_error(404, "not_found", "no job");
    patch(&server, id, &json!({})).expect_error(400, "invalid_job", "no field");
    patch(&server, id, &json!({"type": "x"})).expect_error(400, "invalid_job", "a field that cannot change");
}

/// hibiken/asynq#649 and #230: run a job now, also one that waits for its backoff.
#[test]
fn a_scheduled_and_a_retrying_job_run_now() {
    let redis = TestRedis::start();
    let config = "[handlers.fail]\nbackoff = { base = \"10h\", cap = \"10h\" }\n";
    let server = TestServer::builder().redis(&redis).config(config).start();
    let scheduled = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    let retrying = server.submit("fail", json!({"times": 1}));
    server.wait_for_status(retrying, "retrying");
    for id in [scheduled, retrying] {
        server.act(&format!("/jobs/{id}/run")).expect(200);
        server.wait_for_status(id, "completed");
        server.act(&format!("/jobs/{id}/run")).expect_error(409, "wrong_status", "an ended job");
    }
    assert_eq!(server.job(retrying)["attempts"], 2, "the attempts stay counted");
    // A queued job keeps its place.
    let queued = [submit_tagged(&server, &[], json!({})), submit_tagged(&server, &[], json!({}))];
    assert_eq!(server.act(&format!("/jobs/{}/run", queued[0])).expect(200).json()["status"], "queued");
    let entries: Vec<u64> = redis.query(&["LRANGE", "{threadq}:work_queue:nobody", "0", "-1"]);
    assert_eq!(entries, [queued[1], queued[0]]);
    server.act("/jobs/17/run").expect_error(404, "not_found", "no job");
}

/// sidekiq/sidekiq#3243: a deletion with a filter that was empty by mistake has deleted everything.
#[test]
fn an_empty_filter_is_refused() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    submit_tagged(&server, &["x"], json!({}));
    for (filter, code) in [
        (json!({}), "invalid_filter"),
        (json!(null), "invalid_filter"),
        (json!({"tag": ""}), "invalid_filter"),
        (json!({"ids": null}), "invalid_filter"),
        (json!({"all": true, "tag": "x"}), "invalid_filter"),
    ] {
        let body = json!({"action": "cancel", "filter": filter});
        server.post("/jobs/bulk", &body).expect_error(400, code, &filter.to_string());
    }
    server.post("/jobs/bulk", &json!({"action": "cancel"})).expect_error(400, "invalid_filter", "no filter");
    assert_eq!(bulk(&server, json!({"action": "cancel", "filter": {"ids": []}})), report(0, 0, 0));
    assert_eq!(server.count("queued"), 1);
}

/// hibiken/asynqmon#294, Automattic/kue#335 and rundeck/rundeck#5788: choose jobs by what they belong to and by their age.
#[test]
fn jobs_are_chosen_by_tag_type_queue_and_age_together() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let submit = |n: usize| {
        let (job_type, queue) = (["echo", "other"][n % 2], ["a", "b"][n / 3]);
        submit_tagged(&server, &["t"], json!({"type": job_type, "queue": queue}))
    };
    let ids: Vec<u64> = (0..6).map(submit).collect();
    let time = |id: u64| threadq::job::rfc3339(id / 1000 + 1);
    eventually(LIMIT, "the clock goes on", || now_ms() > ids[5] / 1000 + 2);
    let last = submit_tagged(&server, &["t"], json!({"queue": "b"}));
    let filter = json!({"tag": "t", "type": "other", "queue": "b", "created_before": time(ids[5])});
    assert_eq!(
        bulk(&server, json!({"action": "cancel", "filter": filter, "dry_run": true})),
        report(2, 0, 0)
    );
    assert_eq!(bulk(&server, json!({"action": "cancel", "filter": filter})), report(2, 2, 0));
    let later = json!({"queue": "b", "status": ["queued", "scheduled"], "created_after": time(ids[5])});
    assert_eq!(bulk(&server, json!({"action": "cancel", "filter": later})), report(1, 1, 0));
    assert_eq!(server.job(last)["status"], "cancelled");
    assert_eq!(server.count("queued"), 4);
}

/// rails/solid_queue (solid_queue_monitor#45) and HangfireIO (Hangfire.Tags#68): the jobs of one tag are retried alone.
#[test]
fn a_job_whose_unique_key_is_held_is_skipped() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let first = submit_tagged(&server, &["t"], json!({"unique_key": "k"}));
    server.act(&format!("/jobs/{first}/cancel")).expect(200);
    let second = submit_tagged(&server, &["t"], json!({"unique_key": "k"}));
    let other = submit_tagged(&server, &["t"], json!({}));
    server.act(&format!("/jobs/{other}/cancel")).expect(200);
    let body = json!({"action": "retry", "filter": {"tag": "t", "status": "cancelled"}});
    assert_eq!(bulk(&server, body), report(2, 1, 1));
    assert_eq!(
        (&server.job(first)["status"], &server.job(second)["status"]),
        (&json!("cancelled"), &json!("queued"))
    );
}

#[test]
fn the_client_changes_counts_and_runs_jobs() {
    use threadq::client::bulk::{Action, Change, Filter};
    use threadq::client::{Client, Submission};

    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let client = Client::new(&format!("http://{}", server.addr())).unwrap();
    let later = Submission::new("echo").queue("nobody").delay(secs(3600));
    let ids: Vec<_> = (0..3).map(|_| client.submit(&later).unwrap().id).collect();
    let change = Change::new().queue("default").payload("new").unwrap().tags(["mine"]);
    assert_eq!(client.change(ids[0], &change).unwrap().queue, "default");
    let mine = Filter { tag: Some("mine".to_owned()), ..Filter::default() };
    assert_eq!(
        (client.count(&mine).unwrap(), client.count(&Filter { all: true, ..Filter::default() }).unwrap()),
        (1, 3)
    );
    assert_eq!(client.run_now(ids[0]).unwrap().id, ids[0]);
    let result: String = client.wait(ids[0], LIMIT).unwrap().result().unwrap();
    assert_eq!(result, "new");
    let waiting = Filter { queue: Some("nobody".to_owned()), ..Filter::default() };
    let moved = client.bulk(&Action::Change(Box::new(Change::new().tags(["x", "y"]))), &waiting).unwrap();
    assert_eq!((moved.matched, moved.changed, moved.skipped), (2, 2, 0));
    let all = Filter { all: true, ..Filter::default() };
    let report = client.bulk(&Action::Cancel, &all).unwrap();
    assert_eq!((report.matched, report.changed, report.skipped), (3, 2, 1));
    assert_eq!(client.bulk(&Action::Delete, &all).unwrap().changed, 3);
    let error = client.bulk(&Action::Delete, &Filter::default()).unwrap_err();
    assert_eq!(error.code(), Some("invalid_filter"));
}
