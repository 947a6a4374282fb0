//! A slow Redis and many jobs to reclaim: the server that reclaims them keeps its own lease.

use threadq::internals::queue::{Quarantine, Queue, ServerFacts, ServerId, Settings, Share};
use threadq::job::NewJob;

use super::proxy::{Does, Proxy};
use crate::common::*;

/// The number of jobs that one step of a reclaim moves.
const STEP: usize = 200;

/// A server that died with many jobs in progress, of a queue from which no other server takes.
fn dead_server(redis: &TestRedis, steps: usize) -> ServerId {
    let settings = Settings::new(redis.url(), "threadq");
    let queue = Queue::new(&settings).expect("a URL");
    let server = ServerId::generate();
    queue.register(&server, &ServerFacts::new(steps * STEP, &[])).expect("registered");
    let mut job = NewJob::new("echo");
    job.queue = "elsewhere".to_owned();
    let share = Share { queue: job.queue.clone(), jobs: STEP };
    let jobs = vec![job; STEP];
    for _ in 0..steps {
        queue.submit(&jobs, None, u64::MAX >> 12).expect("stored");
        let shares = std::slice::from_ref(&share);
        let taken =
            queue.start_jobs(&server, shares, Quarantine::Skip, 3, None).expect("the server is registered");
        // No server settles these jobs.
        assert_eq!(taken.jobs.len(), STEP);
    }
    server
}

#[test]
fn a_slow_take_over_costs_no_server_its_own_lease() {
    const LEASE: Duration = Duration::from_secs(5);
    const STEPS: usize = 20;
    let redis = TestRedis::start();
    let dead = dead_server(&redis, STEPS);
    let proxy = Proxy::to(&redis);
    let server = TestServer::builder().flag("redis-url", &proxy.url()).flag("lease-timeout", "5s").start();
    server.wait_until_ready();
    let id =
        until_some(LIMIT, "it is listed", || server.server_ids().into_iter().find(|id| id != dead.as_str()));
    proxy.set(Does { delay: ms(400), ..Does::default() });

    // Watch the heartbeat as another server sees it.
    let in_progress = format!("{{threadq}}:in_progress_queue:{dead}");
    let (mut beat, mut since, mut longest) = (None::<String>, Instant::now(), Duration::ZERO);
    let mut begun = None;
    eventually(secs(90), "all jobs are taken over", || {
        let now = redis.query(&["HGET", "{threadq}:servers", &id]);
        if now != beat {
            (beat, since) = (now, Instant::now());
        }
        longest = longest.max(since.elapsed());
        let left = redis.list_len(&in_progress) as usize;
        if left < STEPS * STEP {
            begun.get_or_insert_with(Instant::now);
        }
        left == 0
    });
    let took = begun.expect("it was seen").elapsed();
    assert!(took > LEASE, "too short to show anything: {took:?}");
    assert!(longest < LEASE, "the beat stood still for {longest:?}");
    assert_eq!(server.server_id(), id, "it works under the same name\n{}", server.log_tail());
    proxy.set(Does::default());
    assert_eq!(server.count("queued"), (STEPS * STEP) as u64);
}
