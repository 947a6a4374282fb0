//! Order: jobs of one queue start in the order of their submission, and ids are unique and rise on every server.

use crate::common::*;

use std::collections::BTreeSet;

/// A handler that notes its job's id in a file, so that the order of starts is exact.
const NOTE: &str = r#"
[handlers.note]
exec = ["/bin/sh", "-c", "echo $THREADQ_JOB_ID >> order"]
"#;

#[test]
fn jobs_of_one_queue_start_in_the_order_of_their_submission() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("workers", "1").config(NOTE).start();
    // While this job runs, a backlog builds up behind it.
    let blocker = server.submit("sleep", json!({"ms": 4000}));
    server.wait_for_status(blocker, "processing");
    let mut ids = Vec::new();
    for round in 0..5 {
        ids.push(server.submit("note", json!({"round": round})));
        ids.extend(server.submit_batch(&vec![json!({"type": "note"}); 5]));
    }
    for id in &ids {
        server.wait_for_status(*id, "completed");
    }
    let order: Vec<u64> = server.dir().read("order").lines().map(|l| l.parse().expect("an id")).collect();
    assert_eq!(order, ids);
    assert!(ids.is_sorted(), "ids rise in the order of submission: {ids:?}");
}

#[test]
fn a_backlog_from_before_the_server_started_is_worked_off_oldest_first() {
    let redis = TestRedis::start();
    let front = TestServer::observer(&redis);
    let ids = front.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 2}}); 150]);
    let _server = TestServer::builder().redis(&redis).flag("workers", "1").start();
    let jobs: Vec<Value> = ids.iter().map(|id| front.wait_for_status(*id, "completed")).collect();
    let starts: Vec<u64> = jobs.iter().map(|job| time_ms(&job["started_at"])).collect();
    assert!(starts.is_sorted(), "started_at by id: {starts:?}");
}

#[test]
fn parallel_submitters_get_unique_and_rising_ids_from_two_servers() {
    let redis = TestRedis::start();
    let servers = [TestServer::observer(&redis), TestServer::observer(&redis)];
    let before = now_ms();
    let apis = [(*servers[0]).clone(), (*servers[1]).clone()];
    let ids: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let apis = &apis;
                scope.spawn(move || {
                    (0..40)
                        .flat_map(|k: usize| {
                            let api = &apis[(n + k) % 2];
                            if k.is_multiple_of(4) {
                                api.submit_batch(&vec![json!({"type": "echo"}); 3])
                            } else {
                                vec![api.submit("echo", json!(k))]
                            }
                        })
                        .collect::<Vec<u64>>()
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().expect("no panic")).collect()
    });
    let after = now_ms();
    let mut all = BTreeSet::new();
    for of_one in &ids {
        assert!(of_one.windows(2).all(|w| w[0] < w[1]), "each id is above the one before: {of_one:?}");
        for id in of_one {
            assert!(all.insert(*id), "{id} was given twice");
            assert!(*id < 1 << 53);
            let at = id / 1000;
            assert!(
                (before - 1..=after + 1).contains(&at),
                "{id} is no time between {before} and {after} ms"
            );
        }
    }
    assert_eq!(all.len(), 8 * (10 * 3 + 30));
    assert_eq!(servers[0].total(""), 480);
}

#[test]
fn an_id_stays_above_all_earlier_ones_when_the_clock_lies_behind() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    // A thousand ids in one step need more microseconds than the step takes: the next one must still be above them.
    let batch = server.submit_batch(&vec![json!({"type": "echo"}); 1000]);
    let next = server.submit("echo", json!({}));
    assert!(batch.windows(2).all(|w| w[0] < w[1]), "{batch:?}");
    assert!(next > batch[999], "{next} after {}", batch[999]);
}

#[test]
fn jobs_of_each_of_several_queues_start_in_order() {
    let redis = TestRedis::start();
    let front = TestServer::observer(&redis);
    let queues = ["a", "b", "c"];
    let jobs: Vec<Value> = (0..300).map(|n| json!({"type": "echo", "queue": queues[n % 3]})).collect();
    let mut ids = front.submit_batch(&jobs);
    let server = TestServer::builder().redis(&redis).flag("queues", "a=3,b,c=2").flag("workers", "6").start();
    // While these jobs are taken, more jobs come to queues that may be empty by then.
    for round in 0..10 {
        ids.extend(front.submit_batch(&jobs[..3 * (round + 1)]));
    }
    let ended: Vec<Value> = ids.iter().map(|id| server.wait_for_status(*id, "completed")).collect();
    for queue in queues {
        let of_queue = ended.iter().filter(|job| job["queue"] == queue);
        let starts: Vec<u64> = of_queue.map(|job| time_ms(&job["started_at"])).collect();
        assert!(starts.len() > 100 && starts.is_sorted(), "{queue}: started_at by id: {starts:?}");
    }
}

#[test]
fn several_fetchers_run_every_job_once_and_end_at_a_stop() {
    let redis = TestRedis::start();
    let mut server = TestServer::builder()
        .redis(&redis)
        .flag("queues", "default=3,other")
        .flag("workers", "6")
        .flag("fetchers", "4")
        .config("[handlers.note]\nexec = [\"/bin/sh\", \"-c\", \"echo $THREADQ_JOB_ID >> ran\"]\n")
        .start();
    let observer = TestServer::observer(&redis);
    let mut ids = Vec::new();
    for round in 0..6 {
        let queues = ["default", "other"];
        let job = |n: usize| json!({"type": "note", "queue": queues[n % 2]});
        ids.extend(observer.submit_batch(&(0..30).map(job).collect::<Vec<_>>()));
        // Let the queues run empty now and then, so that all fetchers wait and are woken again.
        if round % 2 == 1 {
            wait_until_quiet(&observer, LIMIT);
        }
    }
    for id in &ids {
        let job = observer.wait_for_status(*id, "completed");
        assert_eq!((&job["attempts"], &job["crashes"]), (&json!(1), &json!(0)), "{job:#}");
    }
    let ran: BTreeSet<u64> = server.dir().read("ran").lines().map(|l| l.parse().expect("an id")).collect();
    assert_eq!(server.dir().read("ran").lines().count(), ids.len(), "none ran twice");
    assert_eq!(ran, ids.iter().copied().collect());
    assert_eq!(server.stop(secs(20)), Some(0), "{}", server.log_tail());
    audit(&redis, &observer, &ids);
}
