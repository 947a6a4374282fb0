//! Requests that wait for jobs.

use super::*;

use std::io::Write;
use std::net::TcpStream;
use std::thread;

/// Waits for one job of these queues.
fn wait(api: &Api, queues: &[&str], wait_ms: u64) -> Option<Value> {
    try_pull(api, json!({"queues": queues, "wait_ms": wait_ms, "lease_ms": 60_000, "worker": "w"}))
}

/// How many requests wait for jobs at a server.
fn waiting(api: &Api) -> f64 {
    api.metric("threadq_pull_waiting")
}

#[test]
fn a_waiting_worker_gets_the_next_job_at_once() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    let submitter = front(&redis).start();
    for _ in 0..3 {
        let api = (*server).clone();
        let waiter = thread::spawn(move || wait(&api, &["q", "other"], 60_000));
        eventually(LIMIT, "the worker waits", || waiting(&server) == 1.0);
        let begin = Instant::now();
        let id = submit(&submitter);
        let job = waiter.join().unwrap().unwrap();
        assert_eq!(job["id"], id);
        assert!(begin.elapsed() < secs(30), "{:?}", begin.elapsed());
        server.act(&format!("{}/complete", attempt(&job))).expect(200);
    }
    assert_eq!(waiting(&server), 0.0);
    assert_eq!(submitter.get("/workers").expect(200).json()["workers"][0]["name"], "w");
}

#[test]
fn each_worker_that_waits_is_listed_at_once() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    let names = ["one", "two", "three"];
    let mut waiters = Vec::new();
    for (number, name) in (1..).zip(names) {
        let api = (*server).clone();
        let request = json!({"queues": ["q"], "wait_ms": 60_000, "worker": name});
        waiters.push(thread::spawn(move || try_pull(&api, request)));
        eventually(LIMIT, "one more waits", || waiting(&server) == f64::from(number));
    }
    let workers = server.get("/workers").expect(200).json()["workers"].take();
    let listed: Vec<&str> =
        workers.as_array().unwrap().iter().map(|worker| worker["name"].as_str().unwrap()).collect();
    assert!(names.iter().all(|name| listed.contains(name)), "{listed:?}");
    server.submit_batch(&vec![json!({"type": "t", "queue": "q"}); 3]);
    assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap().is_some()));
}

#[test]
fn a_wait_that_is_over_and_a_stop_answer_without_jobs() {
    let redis = TestRedis::start();
    let mut server = front(&redis).start();
    let begin = Instant::now();
    assert_eq!(wait(&server, &["q"], 500), None);
    assert!(begin.elapsed() >= ms(500) && begin.elapsed() < secs(30), "{:?}", begin.elapsed());
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let api = (*server).clone();
            thread::spawn(move || wait(&api, &["q"], 60_000))
        })
        .collect();
    eventually(LIMIT, "the workers wait", || waiting(&server) == 3.0);
    assert_eq!(server.stop(LIMIT), Some(0));
    assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap().is_none()));
}

#[test]
fn a_job_that_comes_right_after_the_last_waiting_worker_has_gone_is_not_missed() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    for _ in 0..3 {
        assert_eq!(wait(&server, &["q"], 100), None);
        // The server still waits in Redis, and claims the job for a moment.
        let id = submit(&server);
        let job = pull(&server, 60_000);
        assert_eq!(job["id"], id);
        server.act(&format!("{}/complete", attempt(&job))).expect(200);
    }
}

#[test]
fn jobs_go_to_the_worker_that_waits_longest_in_the_order_of_the_queue() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    let mut waiters = Vec::new();
    for number in 0..4 {
        let api = (*server).clone();
        waiters.push(thread::spawn(move || wait(&api, &["q"], 60_000).unwrap()));
        eventually(LIMIT, "one more waits", || waiting(&server) == f64::from(number + 1));
    }
    let ids: Vec<u64> = (0..4).map(|_| submit(&server)).collect();
    let got: Vec<u64> =
        waiters.into_iter().map(|waiter| waiter.join().unwrap()["id"].as_u64().unwrap()).collect();
    assert_eq!(got, ids);
}

#[test]
fn a_worker_that_hung_up_gets_no_job() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    let body = r#"{"queues": ["q"], "wait_ms": 60000, "lease_ms": 60000, "worker": "gone"}"#;
    let mut gone = TcpStream::connect(server.addr()).unwrap();
    let head = "POST /pull HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ";
    write!(gone, "{head}{}\r\n\r\n{body}", body.len()).unwrap();
    eventually(LIMIT, "the worker waits", || waiting(&server) == 1.0);
    drop(gone);
    let id = submit(&server);
    // Whether the hang-up is seen before the take or after it, the next worker gets the job.
    let job = wait(&server, &["q"], 60_000).unwrap();
    assert_eq!((job["id"].as_u64(), job["attempts"].as_u64()), (Some(id), Some(0)), "{job}");
    server.act(&format!("{}/complete", attempt(&job))).expect(200);
    eventually(LIMIT, "nobody waits", || waiting(&server) == 0.0);
}

#[test]
fn the_number_of_waiting_requests_is_bounded_by_one_setting_for_all_kinds() {
    let redis = TestRedis::start();
    let server = front(&redis).flag("max-waiting", "2").start();
    let id = server.submit_job(json!({"type": "t", "delay_ms": 3_600_000}));
    let api = (*server).clone();
    let long_poll = thread::spawn(move || api.get(&format!("/jobs/{id}?wait=60s")).expect(200));
    let api = (*server).clone();
    let taker = thread::spawn(move || wait(&api, &["q"], 60_000));
    eventually(LIMIT, "two wait", || server.metric("threadq_http_requests_waiting") == 2.0);
    let request = json!({"queues": ["q"], "wait_ms": 60_000});
    server.post("/pull", &request).expect_error(503, "too_many_waiting", "a third");
    server.get(&format!("/jobs/{id}?wait=60s")).expect_error(503, "too_many_waiting", "a third");
    // Without waiting, both are answered.
    server.get(&format!("/jobs/{id}")).expect(200);
    assert_eq!(wait(&server, &["q"], 0), None);
    server.act(&format!("/jobs/{id}/cancel")).expect(200);
    long_poll.join().unwrap();
    submit(&server);
    assert!(taker.join().unwrap().is_some());
}

#[test]
fn too_many_queues_are_refused() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    let names: Vec<String> = (0..33).map(|number| format!("queue-{number}")).collect();
    let queues: Vec<&str> = names.iter().map(String::as_str).collect();
    thread::scope(|scope| {
        for part in queues[..32].chunks(16) {
            let api = &server;
            scope.spawn(move || assert!(wait(api, part, 60_000).is_some()));
        }
        eventually(LIMIT, "the workers wait", || waiting(&server) == 2.0);
        let request = json!({"queues": [queues[32]], "wait_ms": 60_000});
        server.post("/pull", &request).expect_error(503, "too_many_waiting", "the 33rd queue");
        for queue in [queues[15], queues[16]] {
            server.submit_job(json!({"type": "t", "queue": queue}));
        }
    });
}

#[test]
fn queues_for_which_no_worker_waits_any_more_make_room() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    for number in 0..40 {
        assert_eq!(wait(&server, &[&format!("queue-{number}")], 150), None);
    }
}

#[test]
fn a_request_that_does_not_wait_gets_a_job_while_others_wait() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    for _ in 0..10 {
        thread::scope(|scope| {
            let api = &server;
            let waiters: Vec<_> =
                (0..3).map(|_| scope.spawn(|| wait(api, &["q"], 60_000).is_some())).collect();
            eventually(LIMIT, "the workers wait", || waiting(api) == 3.0);
            api.submit_batch(&vec![json!({"type": "t", "queue": "q"}); 8]);
            // 8 jobs for 3 requests that wait and 5 that do not: each of the 5 finds a job.
            (0..5).for_each(|_| assert!(wait(api, &["q"], 0).is_some()));
            assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap()));
        });
    }
}

#[test]
fn a_paused_queue_gives_no_job_until_it_is_resumed() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    server.act("/queues/q/pause").expect(200);
    let id = submit(&server);
    let api = (*server).clone();
    let waiter = thread::spawn(move || wait(&api, &["q"], 60_000));
    eventually(LIMIT, "the worker waits", || waiting(&server) == 1.0);
    let commands = redis.commands_in(secs(4));
    assert!(commands < 200, "{commands} commands in 4 s");
    assert_eq!(server.job(id)["status"], "queued");
    server.act("/queues/q/resume").expect(200);
    assert_eq!(waiter.join().unwrap().unwrap()["id"], id);
}

#[test]
fn redis_may_go_away_and_come_back_while_workers_wait() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    let api = (*server).clone();
    let waiter = thread::spawn(move || wait(&api, &["q"], 60_000));
    eventually(LIMIT, "the worker waits", || waiting(&server) == 1.0);
    redis.kill9();
    eventually(LIMIT, "a new request is refused", || {
        server.post("/pull", &json!({"queues": ["q"], "wait_ms": 1000})).status == 503
    });
    redis.restart();
    server.wait_until_ready();
    let id = submit(&server);
    assert_eq!(waiter.join().unwrap().unwrap()["id"], id);
}

#[test]
fn a_server_that_is_killed_while_workers_wait_loses_no_job() {
    let redis = TestRedis::start();
    let other = front(&redis).flag("lease-timeout", "2s").start();
    for _ in 0..5 {
        let mut server = front(&redis).flag("lease-timeout", "2s").start();
        let api = (*server).clone();
        let waiter =
            thread::spawn(move || api.try_post("/pull", &[], &json!({"queues": ["q"], "wait_ms": 60_000})));
        eventually(LIMIT, "the worker waits", || waiting(&server) == 1.0);
        let ids: Vec<u64> = (0..3).map(|_| submit(&other)).collect();
        server.kill9();
        let taken = waiter.join().unwrap().ok().filter(|reply| reply.status == 200);
        let taken = taken.and_then(|reply| reply.json()["jobs"][0]["id"].as_u64());
        // A job whose response was lost stays leased until its timeout; all others come back.
        for id in ids {
            let status = other.job(id)["status"].clone();
            if status != "processing" {
                let job = until_some(LIMIT, "the job comes back", || wait(&other, &["q"], 1_000));
                other.act(&format!("{}/complete", attempt(&job))).expect(200);
            } else if taken.is_some() {
                assert_eq!(taken, Some(id));
            }
        }
    }
    eventually(LIMIT, "no list has a job", || redis.list_len("{threadq}:work_queue:q") == 0);
    assert_eq!(other.count("queued"), 0);
}

#[test]
fn a_queue_that_servers_take_from_too_is_shared() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("queues", "q").flag("workers", "1").start();
    let config = server.submit_batch(&vec![json!({"type": "echo", "queue": "q"}); 200]);
    let pulled = thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut number = 0;
                    while let Some(job) = wait(&server, &["q"], 1_000) {
                        server.act(&format!("{}/complete", attempt(&job))).expect(200);
                        number += 1;
                    }
                    number
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum::<usize>()
    });
    eventually(LIMIT, "all are completed", || server.count("completed") == 200);
    assert!(pulled <= config.len());
    assert!(config.iter().all(|id| server.job(*id)["attempts"] == 1));
}

#[test]
fn one_limit_holds_for_servers_and_pull_workers_together() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config("[limits.two]\nconcurrency = 2\n").start();
    let job =
        |queue: &str| json!({"type": "sleep", "payload": {"ms": 20}, "queue": queue, "limits": ["two"]});
    server.submit_batch(&vec![job("default"); 20]);
    server.submit_batch(&vec![job("q"); 20]);
    let most = std::sync::atomic::AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(job) = wait(&server, &["q"], 3_000) {
                    let limit = server.get("/limits/two").expect(200).json();
                    most.fetch_max(limit["running"].as_u64().unwrap(), std::sync::atomic::Ordering::SeqCst);
                    server.act(&format!("{}/complete", attempt(&job))).expect(200);
                }
            });
        }
    });
    eventually(LIMIT, "all are completed", || server.count("completed") == 40);
    let most = most.into_inner();
    assert!((1..=2).contains(&most), "{most}");
}

#[test]
fn two_hundred_workers_that_wait_on_two_servers_cost_little_and_all_get_a_job() {
    let redis = TestRedis::start();
    let servers = [0, 1].map(|_| front(&redis).start());
    let (queues, wait_ms) = (["a", "b", "c", "d"], 60_000);
    let ids = thread::scope(|scope| {
        let workers: Vec<_> = (0..200)
            .map(|number| {
                let (server, queue) = (&servers[number % 2], queues[number % 4]);
                scope.spawn(move || wait(server, &[queue], wait_ms).expect("a job")["id"].as_u64().unwrap())
            })
            .collect();
        eventually(LIMIT, "all wait", || servers.iter().map(|server| waiting(server)).sum::<f64>() == 200.0);
        // Each of the two servers may send 3 commands a second, and 0.5 for each of its two queues.
        let (time, most) = (secs(10), 2.0 * (3.0 + 2.0 * 0.5));
        eventually(LIMIT, &format!("at most {most} commands a second"), || {
            redis.commands_in(time) as f64 / time.as_secs_f64() <= most
        });
        for queue in queues {
            servers[0].submit_batch(&vec![json!({"type": "t", "queue": queue}); 50]);
        }
        let mut ids: Vec<u64> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    });
    assert_eq!(ids.len(), 200);
}
