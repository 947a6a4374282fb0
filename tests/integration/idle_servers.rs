//! Servers without jobs: they send few commands to Redis, and still notice soon that another server is busy or dead.

use crate::common::*;

#[test]
fn an_idle_server_sends_3_commands_a_second_at_most_and_three_servers_12_together() {
    const WINDOW: Duration = Duration::from_secs(12);
    let most_commands = |servers: usize, most: f64| {
        let redis = TestRedis::start();
        let servers: Vec<TestServer> = (0..servers).map(|_| TestServer::start(&redis)).collect();
        for server in &servers {
            server.complete("echo", json!({}));
        }
        // Soon after a job the servers are not idle yet.
        eventually(
            LIMIT,
            &format!("{} servers send at most {most} commands a second", servers.len()),
            || {
                let number = redis.commands_in(WINDOW);
                assert!(number > 0, "no heartbeat");
                number as f64 <= most * WINDOW.as_secs_f64()
            },
        );
    };
    std::thread::scope(|scope| {
        scope.spawn(|| most_commands(1, 3.0));
        scope.spawn(|| most_commands(3, 12.0));
    });
}

#[test]
fn a_server_that_gets_busy_beats_before_its_next_regular_beat() {
    let redis = TestRedis::start();
    let observer = TestServer::observer(&redis);
    let server = TestServer::start(&redis);
    let own = server
        .server_ids()
        .into_iter()
        .find(|id| id.contains(&format!("-{}-", server.pid())))
        .expect("a name with the id of the process");
    let beat = || redis.query::<String>(&["HGET", "{threadq}:servers", &own]);
    let busy = || {
        let stats = observer.get("/stats").expect(200).json();
        let servers = stats["servers"].as_array().expect("servers").clone();
        servers.iter().find(|server| server["id"] == own.as_str()).and_then(|server| server["busy"].as_u64())
    };
    // The median, because a busy machine may delay one of three rounds.
    let mut times: Vec<Duration> = (0..3)
        .map(|_| {
            // From the second beat without a job on, the server is idle: the next beat is 3 s away.
            for _ in 0..3 {
                let last = beat();
                eventually(LIMIT, "the next beat", || beat() != last);
            }
            assert_eq!(busy(), Some(0));
            let id = server.submit("sleep", json!({"ms": 600_000}));
            server.wait_for_status(id, "processing");
            let time = eventually(LIMIT, "others see that the server is busy", || busy() == Some(1));
            server.act(&format!("/jobs/{id}/cancel"));
            server.wait_for_status(id, "cancelled");
            eventually(LIMIT, "others see that the server is idle", || busy() == Some(0));
            time
        })
        .collect();
    times.sort();
    assert!(times[1] < ms(1500), "{times:?}");
}

#[test]
fn idle_servers_with_a_short_lease_take_no_idle_server_for_dead_and_notice_a_death_in_time() {
    let redis = TestRedis::start();
    let start = |queues| {
        TestServer::builder().redis(&redis).flag("lease-timeout", "2s").flag("queues", queues).start()
    };
    let idle = [start("none"), start("none"), start("default")];
    let mut doomed = start("other");
    let mut ids = doomed.server_ids();
    ids.sort();
    assert_eq!(ids.len(), 4, "{ids:?}");
    holds_for(secs(8), "all servers are registered under their first names", || {
        let mut now = idle[0].server_ids();
        now.sort();
        now == ids
    });
    let job = doomed.submit_job(json!({"type": "sleep", "queue": "other", "payload": {"ms": 600_000}}));
    idle[0].wait_for_status(job, "processing");
    doomed.kill9();
    // `lease-timeout` + 5 s, plus a margin for a busy machine.
    idle[0].wait_for(job, secs(2 + 5 + 2), "returned to its queue", |job| {
        (&job["status"], &job["crashes"]) == (&json!("queued"), &json!(1))
    });
    for server in &idle {
        assert!(!server.log_text().contains("fenced"), "{}", server.log_tail());
    }
}

#[test]
fn a_hundred_pull_workers_that_wait_cost_half_a_command_a_second_for_each_of_their_queues() {
    const WINDOW: Duration = Duration::from_secs(12);
    const QUEUES: usize = 4;
    const TAKERS: usize = 100;
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let wait = |queue: usize| {
        let body =
            json!({"queues": [format!("pulled-{queue}")], "wait_ms": 60_000, "worker": format!("w{queue}")});
        server.try_post("/pull", &[], &body)
    };
    std::thread::scope(|scope| {
        let takers: Vec<_> = (0..TAKERS).map(|n| scope.spawn(move || wait(n % QUEUES))).collect();
        eventually(LIMIT, "all takers wait", || server.metric("threadq_pull_waiting") == TAKERS as f64);
        let most = 3.0 + 0.5 * QUEUES as f64;
        // The takers have just come.
        eventually(LIMIT, &format!("at most {most} commands a second"), || {
            let number = redis.commands_in(WINDOW);
            assert!(number > 0, "no heartbeat");
            number as f64 <= most * WINDOW.as_secs_f64()
        });
        assert_eq!(server.metric("threadq_pull_waiting"), TAKERS as f64);
        // Each taker still gets a job.
        for queue in 0..QUEUES {
            let job = json!({"type": "outside", "queue": format!("pulled-{queue}"), "payload": {}});
            server.submit_batch(&vec![job; TAKERS / QUEUES]);
        }
        let mut ids = Vec::new();
        for taker in takers {
            let reply = taker.join().expect("no panic").expect("an answer").expect(200).json();
            ids.extend(reply["jobs"].as_array().expect("jobs").iter().map(|job| job["id"].as_u64()));
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), TAKERS, "each taker has a job of its own");
    });
}
