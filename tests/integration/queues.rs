//! Queues: which servers take from which queue, how workers are shared, pausing, and the limit of a queue's length.

use crate::common::*;

fn sleeps(queue: &str, n: usize) -> Vec<Value> {
    vec![json!({"type": "sleep", "queue": queue, "payload": {"ms": 15}}); n]
}

#[test]
fn weights_share_the_workers_and_starve_nobody() {
    let redis = TestRedis::start();
    let front = TestServer::observer(&redis);
    let ids = [front.submit_batch(&sleeps("light", 80)), front.submit_batch(&sleeps("heavy", 80))].concat();
    let _server =
        TestServer::builder().redis(&redis).flag("queues", "heavy=3,light=1").flag("workers", "1").start();
    let mut jobs: Vec<Value> = ids.iter().map(|id| front.wait_for_status(*id, "completed")).collect();
    jobs.sort_by_key(|job| time_ms(&job["started_at"]));
    let heavy = jobs[..64].iter().filter(|job| job["queue"] == "heavy").count();
    // 48 of 64 would be exact.
    assert!((36..=58).contains(&heavy), "{heavy} of the first 64 are from the queue with weight 3 of 4");
    for queue in ["light", "heavy"] {
        let of_one: Vec<u64> =
            jobs.iter().filter(|job| job["queue"] == queue).filter_map(|job| job["id"].as_u64()).collect();
        assert!(of_one.is_sorted(), "each queue by itself is FIFO: {of_one:?}");
    }
}

#[test]
fn jobs_of_a_strict_queue_start_before_others_under_load_of_both() {
    let redis = TestRedis::start();
    let front = TestServer::observer(&redis);
    let _server = TestServer::builder()
        .redis(&redis)
        .flag("queues", "heavy=3,first!,light")
        .flag("workers", "2")
        .start();
    // The other queues always have jobs, while jobs of the strict queue come in bursts.
    let low = [front.submit_batch(&sleeps("light", 150)), front.submit_batch(&sleeps("heavy", 150))].concat();
    let bursts = [1, 10, 1, 10, 10].map(|jobs| {
        let ids = front.submit_batch(&sleeps("first", jobs));
        ids.iter().map(|id| front.wait_for_status(*id, "completed")).collect::<Vec<Value>>()
    });
    let started = |job: &Value| time_ms(&job["started_at"]);
    let mut low: Vec<Value> = low.iter().map(|id| front.wait_for_status(*id, "completed")).collect();
    low.sort_by_key(started);
    assert!(started(&bursts[4][9]) < started(&low[low.len() - 1]), "the other queues still had jobs");
    for burst in bursts {
        let submitted = burst.iter().map(|job| time_ms(&job["created_at"])).max().unwrap();
        let last = burst.iter().map(started).max().unwrap();
        let overtakers = low.iter().filter(|job| (submitted + 1..last).contains(&started(job))).count();
        // Each of the two workers may get a job in the moment of the submission.
        assert!(overtakers <= 2, "{overtakers} jobs started before the last of {burst:?}");
    }
    let heavy = |jobs: &[Value]| jobs.iter().filter(|job| job["queue"] == "heavy").count();
    // 90 of 120 would be exact.
    assert!((75..=105).contains(&heavy(&low[..120])), "{} of 120 have the weight 3 of 4", heavy(&low[..120]));
}

#[test]
fn a_queue_is_shown_as_strict_while_a_server_takes_from_it_so() {
    let redis = TestRedis::start();
    let front = TestServer::builder().redis(&redis).flag("queues", "mail,default").start();
    let strict = |path: &str| {
        let answer = front.get(path).expect(200).json();
        let of = |name: &str| {
            answer["queues"].as_array()?.iter().find(|queue| queue["name"] == name)?.get("strict").cloned()
        };
        ["mail", "default"].map(of)
    };
    let mut other = TestServer::builder().redis(&redis).flag("queues", "default,mail!").start();
    for path in ["/queues", "/stats"] {
        eventually(LIMIT, path, || strict(path) == [Some(json!(true)), None]);
    }
    assert_eq!(other.stop(secs(15)), Some(0));
    assert_eq!(strict("/queues"), [None, None]);
}

#[test]
fn an_empty_queue_leaves_its_workers_to_the_others() {
    let redis = TestRedis::start();
    let server =
        TestServer::builder().redis(&redis).flag("queues", "heavy=100,light").flag("workers", "2").start();
    let begin = Instant::now();
    for id in server.submit_batch(&sleeps("light", 40)) {
        server.wait_for_status(id, "completed");
    }
    assert!(begin.elapsed() < secs(15), "{:?}", begin.elapsed());
    // A job in either queue starts at once.
    for queue in ["heavy", "light"] {
        let id = server.submit_job(json!({"type": "echo", "queue": queue}));
        let job = server.wait_for_status(id, "completed");
        let waited = time_ms(&job["started_at"]) - time_ms(&job["created_at"]);
        assert!(waited < 3_000, "{queue}: {waited} ms");
    }
}

#[test]
fn a_job_in_a_queue_that_no_server_takes_from_waits_until_one_does() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let id = server.submit_job(json!({"type": "echo", "queue": "Rare.queue_1"}));
    server.complete("echo", json!({}));
    holds_for(ms(1000), "it waits", || server.job(id)["status"] == "queued");
    let _other = TestServer::builder().redis(&redis).flag("queues", "Rare.queue_1").start();
    server.wait_for_status(id, "completed");
}

#[test]
fn a_paused_queue_holds_its_jobs_on_every_server_until_it_is_resumed() {
    let redis = TestRedis::start();
    let start = || TestServer::builder().redis(&redis).flag("queues", "default,other").start();
    let servers = [start(), start()];
    servers[0].complete("echo", json!({}));
    servers[0].act("/queues/default/pause").expect(200);
    let held = servers[1].submit_batch(&vec![json!({"type": "echo"}); 5]);
    let delayed = servers[1].submit_job(json!({"type": "echo", "delay_ms": 200}));
    let other = servers[1].submit_job(json!({"type": "echo", "queue": "other"}));
    servers[1].wait_for_status(other, "completed");
    servers[1].wait_for_status(delayed, "queued");
    holds_for(ms(1500), "the jobs wait", || held.iter().all(|id| servers[0].job(*id)["status"] == "queued"));
    let queues = servers[1].get("/queues").expect(200).json();
    let queue = queues["queues"].as_array().and_then(|q| q.iter().find(|q| q["name"] == "default").cloned());
    assert_eq!(
        queue.map(|q| (q["paused"].clone(), q["queued"].clone())),
        Some((json!(true), json!(6))),
        "{queues}"
    );
    // The pause survives a restart.
    let [mut first, second] = servers;
    assert_eq!(first.stop(secs(15)), Some(0));
    let third = start();
    holds_for(ms(1000), "the jobs wait", || held.iter().all(|id| third.job(*id)["status"] == "queued"));
    third.act("/queues/default/resume").expect(200);
    for id in held.iter().chain([&delayed]) {
        second.wait_for_status(*id, "completed");
    }
}

#[test]
fn a_queue_tells_how_many_servers_take_from_it() {
    let redis = TestRedis::start();
    let start = |queues: &str| TestServer::builder().redis(&redis).flag("queues", queues).start();
    let (first, second) = (start("default,mail"), start("mail"));
    first.submit_job(json!({"type": "echo", "queue": "nowhere"}));
    let shown = |name: &str| {
        let servers = |path: &str| {
            let answer = first.get(path).expect(200).json();
            let queue = answer["queues"].as_array()?.iter().find(|queue| queue["name"] == name)?;
            queue["servers"].as_u64()
        };
        let (queues, stats) = (servers("/queues"), servers("/stats"));
        (queues == stats).then_some(queues).flatten()
    };
    for (name, servers) in [("default", 1), ("mail", 2), ("nowhere", 0)] {
        eventually(LIMIT, &format!("{name}: {servers}"), || shown(name) == Some(servers));
    }
    let mut second = second;
    assert_eq!(second.stop(secs(15)), Some(0));
    assert_eq!(shown("mail"), Some(1));
}

#[test]
fn a_misspelt_queue_is_said_to_be_unknown_and_vanishes_when_it_is_resumed() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("queues", "default,mail").start();
    let names = || {
        let answer = server.get("/queues").expect(200).json();
        let queues = answer["queues"].as_array().expect("queues").iter();
        queues.map(|queue| queue["name"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let change = |name: &str, verb: &str| {
        let answer = server.act(&format!("/queues/{name}/{verb}")).expect(200).json();
        (answer["servers"].clone(), answer.get("known").cloned())
    };
    eventually(LIMIT, "the server is entered", || change("mail", "resume").0 == 1);
    assert_eq!(change("mail", "pause"), (json!(1), None));
    assert_eq!(change("emial", "pause"), (json!(0), Some(json!(false))));
    assert_eq!(names(), ["default", "emial", "mail"]);
    assert_eq!(change("emial", "resume"), (json!(0), Some(json!(false))));
    assert_eq!(names(), ["default", "mail"]);
    // No server takes from these queues, but each has a job: one scheduled, one queued.
    server.submit_job(json!({"type": "echo", "queue": "later", "delay_ms": 3_600_000}));
    assert_eq!(change("later", "pause"), (json!(0), None));
    server.submit_job(json!({"type": "echo", "queue": "nowhere"}));
    assert_eq!(change("nowhere", "pause"), (json!(0), None));
}

#[test]
fn the_jobs_of_a_queue_are_listed_in_the_order_in_which_they_start() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let ids = server.submit_batch(&vec![json!({"type": "echo", "queue": "mail"}); 5]);
    server.submit_job(json!({"type": "echo", "queue": "mail", "delay_ms": 3_600_000}));
    let page = server.get("/queues/mail/jobs?page=2&limit=2").expect(200).json();
    let found: Vec<_> = page["jobs"].as_array().expect("jobs").iter().map(|job| job["id"].as_u64()).collect();
    assert_eq!(found, [Some(ids[2]), Some(ids[3])]);
    assert_eq!(page["jobs"][0], server.job(ids[2]), "the jobs are those of GET /jobs/ID");
    assert_eq!((&page["page"], &page["limit"], &page["total"]), (&json!(2), &json!(2), &json!(5)));
    assert!(page.get("next").is_none());
    assert_eq!(server.get("/queues/nobody/jobs").expect(200).json()["jobs"], json!([]));
    for (path, code) in [
        ("/queues/a%20b/jobs", "invalid_queue"),
        ("/queues/mail/jobs?limit=101", "invalid_query"),
        ("/queues/mail/jobs?page=0", "invalid_query"),
        ("/queues/mail/jobs?before=5", "invalid_query"),
    ] {
        server.get(path).expect_error(400, code, path);
    }
    // What is large is left out, as in all listings.
    for size in [16_000, 100_000] {
        server.submit_job(json!({"type": "echo", "queue": "large", "payload": "x".repeat(size)}));
    }
    let page = server.get("/queues/large/jobs").expect(200).json();
    assert_eq!(page["jobs"][0].get("omitted"), None);
    assert_eq!(page["jobs"][1]["omitted"], json!(["payload"]));
}

#[test]
fn a_job_that_runs_when_its_queue_is_paused_goes_on() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(QUICK_BACKOFF).start();
    let id = server.submit("sleep", json!({"ms": 3000}));
    server.wait_for_status(id, "processing");
    server.act("/queues/default/pause").expect(200);
    server.wait_for_status(id, "completed");
}

#[test]
fn a_full_queue_takes_no_more_until_there_is_room() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("max-queue-length", "5").start();
    let job = json!({"type": "echo", "queue": "full"});
    let three = server.submit_batch(&vec![job.clone(); 3]);
    let refused = server.post("/jobs/batch", &json!({"jobs": vec![job.clone(); 3]}));
    refused.expect_error(429, "queue_full", "a batch that does not fit");
    assert_eq!(server.total(""), 3, "nothing of it is stored");
    server.submit_batch(&vec![job.clone(); 2]);
    let refused = server.post("/jobs", &job);
    refused.expect_error(429, "queue_full", "the sixth");
    let after = refused.header("Retry-After").expect("a Retry-After");
    assert!(after.parse::<u32>().is_ok_and(|s| s >= 1), "{after}");
    // Scheduled jobs and jobs of other queues do not count.
    server.submit_job(json!({"type": "echo", "queue": "full", "delay_ms": 3_600_000}));
    let other = server.submit("echo", json!({}));
    server.wait_for_status(other, "completed");
    // The queue accepts one job after a cancel, and is full again.
    server.act(&format!("/jobs/{}/cancel", three[0])).expect(200);
    eventually(LIMIT, "there is room again", || server.post("/jobs", &job).status == 202);
    server.post("/jobs", &job).expect_error(429, "queue_full", "full again");
}

#[test]
fn scheduled_jobs_come_into_a_full_queue_when_they_are_due() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("max-queue-length", "2").start();
    let ids = server.submit_batch(&vec![json!({"type": "echo", "queue": "full", "delay_ms": 3000}); 2]);
    server.submit_batch(&vec![json!({"type": "echo", "queue": "full"}); 2]);
    for id in ids {
        server.wait_for_status(id, "queued");
    }
}

/// Runs failing jobs and pauses their queue. Asserts that no attempt begins during the pause, and that the jobs go on
/// after.
fn a_pause_ends_retries(inline_backoff: &str, backoff: &str) {
    let redis = TestRedis::start();
    let config = format!(
        "[handlers.fail]\nmax_attempts = 100\nbackoff = {{ base = \"{backoff}\", cap = \"{backoff}\" }}\n"
    );
    let server =
        TestServer::builder().redis(&redis).config(&config).flag("inline-backoff", inline_backoff).start();
    let ids = server.submit_batch(&vec![json!({"type": "fail"}); 16]);
    let attempts =
        || ids.iter().map(|id| server.job(*id)["attempts"].as_u64().unwrap_or(0)).collect::<Vec<_>>();
    eventually(LIMIT, "all have failed", || attempts().iter().all(|attempts| *attempts > 0));
    server.act("/queues/default/pause").expect(200);
    let paused_at = now_ms();
    eventually(LIMIT, "all wait in the queue", || ids.iter().all(|id| server.job(*id)["status"] == "queued"));
    for id in &ids {
        let job = server.job(*id);
        let last = job["errors"].as_array().and_then(|errors| errors.last()).expect("it has failed");
        // An attempt that ran at the pause may end.
        assert!(time_ms(&last["at"]) <= paused_at + 500, "an attempt began after the pause: {job:#}");
        assert_eq!(job["crashes"], 0, "{job:#}");
    }
    let before = attempts();
    holds_for(ms(1500), "no attempt is used up", || attempts() == before);
    server.act("/queues/default/resume").expect(200);
    eventually(LIMIT, "they go on", || attempts().iter().zip(&before).all(|(now, before)| now > before));
    for id in &ids {
        server.act(&format!("/jobs/{id}/cancel"));
    }
}

#[test]
fn a_paused_queue_holds_jobs_between_two_attempts() {
    // Jobs in a short backoff, in a long backoff on the worker's thread, and parked in Redis.
    for (inline_backoff, backoff) in [("200ms", "40ms"), ("30s", "5s"), ("0", "300ms")] {
        a_pause_ends_retries(inline_backoff, backoff);
    }
}
