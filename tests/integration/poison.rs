//! Jobs that crash their server: they become dead letters, and no other job fails for their crashes.

use crate::common::*;

/// A supervised server that is restarted whenever it dies, and an observer server that runs no job.
fn guarded(redis: &TestRedis, workers: &str) -> (TestServer, Supervisor) {
    guarded_with(redis, workers, "1")
}

fn guarded_with(redis: &TestRedis, workers: &str, fetchers: &str) -> (TestServer, Supervisor) {
    let observer = TestServer::builder()
        .redis(redis)
        .flag("lease-timeout", "1s")
        .flag("queues", "nobody")
        .flag("workers", "1")
        .start();
    let server = TestServer::builder()
        .redis(redis)
        .flag("lease-timeout", "1s")
        .flag("workers", workers)
        .flag("fetchers", fetchers);
    (observer, Supervisor::start(server))
}

#[track_caller]
fn assert_all_completed(observer: &TestServer, good: &[u64], limit: Duration) {
    for id in good {
        let job = observer.wait_for(*id, limit, "ended", api::is_final);
        assert_eq!(job["status"], "completed", "a good job was blamed: {job:#}");
    }
}

#[test]
fn a_job_that_kills_its_server_is_buried_and_every_good_one_completes() {
    buries_the_bad_and_completes_the_good("1");
}

#[test]
fn a_job_that_kills_its_server_is_buried_beside_several_fetchers_too() {
    buries_the_bad_and_completes_the_good("4");
}

fn buries_the_bad_and_completes_the_good(fetchers: &str) {
    let redis = TestRedis::start();
    let (observer, supervisor) = guarded_with(&redis, "4", fetchers);
    let mut good = observer.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 50}}); 10]);
    let mut bad = vec![observer.submit("exit", json!({}))];
    good.extend(observer.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 300}}); 10]));
    bad.push(observer.submit("exit", json!({})));
    good.extend(observer.submit_batch(&vec![json!({"type": "echo"}); 10]));
    assert_all_completed(&observer, &good, secs(120));
    for id in &bad {
        let job = observer.wait_for(*id, secs(120), "ended", api::is_final);
        assert_eq!(job["status"], "failed", "{job:#}");
        assert_eq!(job["crashes"], 3, "{job:#}");
        assert_eq!(job["attempts"], 0, "a crash is no attempt: {job:#}");
        let reason =
            job["last_error"].as_str().unwrap_or_else(|| panic!("no reason: {job:#}")).to_lowercase();
        assert!(reason.contains("crash") || reason.contains("died"), "{job:#}");
    }
    assert!(supervisor.starts() >= 4, "{} starts", supervisor.starts());
    wait_until_quiet(&observer, LIMIT);
    audit(&redis, &observer, &[good, bad].concat());
}

#[test]
fn a_job_that_kills_its_server_once_completes_at_its_second_delivery() {
    let redis = TestRedis::start();
    let (observer, supervisor) = guarded(&redis, "4");
    let id = observer.submit("exit", json!({"times": 1}));
    let job = observer.wait_for_end(id);
    assert_eq!(job["status"], "completed", "{job:#}\n{}", supervisor.log_tail());
    assert_eq!((&job["crashes"], &job["attempts"]), (&json!(1), &json!(1)), "{job:#}");
}

#[test]
fn a_long_good_job_beside_many_killers_completes() {
    let redis = TestRedis::start();
    let (observer, supervisor) = guarded(&redis, "4");
    let good = observer.submit("sleep", json!({"ms": 2000}));
    // Each of these jobs kills the server in its first run, and is harmless afterwards.
    let bad = observer.submit_batch(&vec![json!({"type": "exit", "payload": {"times": 1}}); 8]);
    assert_all_completed(&observer, &[good], secs(180));
    for id in &bad {
        let job = observer.wait_for(*id, secs(180), "ended", api::is_final);
        assert_eq!(job["status"], "completed", "{job:#}\n{}", supervisor.log_tail());
    }
}

#[test]
fn only_the_job_on_its_last_chance_is_charged_when_its_server_dies() {
    let redis = TestRedis::start();
    let (observer, supervisor) = guarded(&redis, "6");
    let bad = observer.submit("exit", json!({}));
    observer.wait_for(bad, secs(90), "crashed twice", |job| job["crashes"].as_u64() >= Some(2));
    // From now on the job runs alone: the good jobs are not charged for its crashes.
    let good = observer.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 400}}); 12]);
    let job = observer.wait_for(bad, secs(90), "ended", api::is_final);
    assert_eq!(job["status"], "failed", "{job:#}\n{}", supervisor.log_tail());
    for id in &good {
        let job = observer.wait_for(*id, secs(90), "ended", api::is_final);
        assert_eq!(job["status"], "completed", "{job:#}");
        assert_eq!(job["crashes"], 0, "charged for what its neighbour did: {job:#}");
    }
}

#[test]
fn eight_poison_jobs_among_two_hundred_good_ones_on_two_servers() {
    let redis = TestRedis::start();
    let (observer, _first) = guarded(&redis, "12");
    let second = TestServer::builder().redis(&redis).flag("lease-timeout", "1s").flag("workers", "12");
    let _second = Supervisor::start(second);
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for round in 0..8 {
        let ms = 10 + 20 * (round % 3);
        good.extend(observer.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": ms}}); 13]));
        bad.push(observer.submit("exit", json!({})));
        good.extend(observer.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": ms}}); 12]));
    }
    for id in &bad {
        let job = observer.wait_for(*id, secs(300), "ended", api::is_final);
        assert_eq!((&job["status"], &job["crashes"]), (&json!("failed"), &json!(3)), "{job:#}");
    }
    assert_eq!(good.len(), 200);
    assert_all_completed(&observer, &good, secs(300));
    wait_until_quiet(&observer, LIMIT);
    audit(&redis, &observer, &[good, bad].concat());
}
